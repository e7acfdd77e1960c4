"""Transmission over a symbol channel: sampled exactly, or through the first two moments."""

from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, cipher_key
from jaxqring._types import Key, Sampler
from jaxqring.codec._formats import FixedPoint
from jaxqring.codec._packing import wrap
from jaxqring.link import _error_sampler as sampling
from jaxqring.link._dense_sampler import through_all
from jaxqring.link._symbol_channel import SymbolChannel, check_transition


def receive(
    key: KeyWords,
    words: jax.Array,
    channel: SymbolChannel,
    *,
    scramble: bool,
    sampler: Sampler,
    envelope: jax.Array | None = None,
) -> jax.Array:
    """Sends packed words over one link, like `transmit` but without its checks.

    Args:
      key: see `jaxqring._threefry`.
      words: (W,) uint32, 16 symbols each.
      channel: one link. Its erased symbols are replaced by a uniform guess.
      scramble: if True, symbols are XORed with a shared pad, so that the errors do not depend on
        `words`, of which only the size is used.
      sampler: see `transmit`.
      envelope: (4, 4) error table that links with common random numbers share; see
        `sampling.through`.

    Returns:
      (W,) uint32.
    """
    table = channel.guessed().error_table.astype(jnp.float32)
    known = jnp.all(jnp.isfinite(table), axis=-1, keepdims=True)
    tables = [jnp.where(known, table, 0.25)]  # white noise in place of a traced NaN
    if envelope is not None:
        tables.append(envelope.astype(jnp.float32))
    if scramble:
        tables = [_mean_row(each) for each in tables]
    return _SAMPLERS[sampler](key, words, *map(lax.stop_gradient, tables))


def _mean_row(table: jax.Array) -> jax.Array:
    """(1, 4) the mean of the rows of a (4, 4) table, in an order that is the same everywhere."""
    return (((table[:1] + table[1:2]) + table[2:3]) + table[3:]) / 4


_together = jax.jit(sampling.through)
# The work depends on the noise, so that links that are mapped over are done one after the other:
# together, each would wait for the noisiest.
_one_by_one = sequential_vmap(_together)
_dense = jax.jit(through_all)


def _sparse(key: KeyWords, words: jax.Array, *tables: jax.Array) -> jax.Array:
    send = _together if words.size <= sampling.FEW_WORDS else _one_by_one
    return send(key, words, *tables)


@jax.jit
def _by_platform(key: KeyWords, words: jax.Array, *tables: jax.Array) -> jax.Array:
    return lax.platform_dependent(key, words, *tables, cpu=_sparse, default=_dense)


_SAMPLERS: dict[Sampler, Callable[..., jax.Array]] = {
    "auto": _by_platform,
    "sparse": _sparse,
    "dense": _dense,
}


def transmit(
    words: jax.Array,
    channel: SymbolChannel,
    key: Key,
    *,
    scramble: bool = True,
    sampler: Sampler = "auto",
) -> jax.Array:
    """Sends packed symbols over one link, sampling its errors exactly.

    Args:
      words: (...) uint32; symbol j of a word is its bits (2j + 1, 2j).
      channel: one link, no batch axes. Symbols that it flags as erased arrive as a uniform guess.
      key: typed PRNG key.
      scramble: XOR with a pad known to both ends before encoding and after decoding. Then errors
        are drawn from q(e) = mean over m of T[m XOR e | m], whatever is sent; otherwise from the
        column of T that belongs to each symbol.
      sampler: "sparse" looks for the errors there are, in a time that follows the noise; "dense"
        has a random word for every symbol, in the same time at every noise. The law is the same and
        the bits are not. "auto" is "sparse" in programs compiled for a CPU, "dense" in others.

    Returns:
      (...) uint32, the words received.

    Raises:
      TypeError: if `words` is not uint32, `channel` not a SymbolChannel or `key` not a typed key.
      ValueError: if the channel has batch axes, its matrix is not stochastic, or the key is a
        batch.

    >>> from jaxqring import superdense, werner
    >>> words = jnp.zeros((1000,), jnp.uint32)
    >>> received = transmit(words, superdense(werner(fidelity=0.9)), jax.random.key(0))
    >>> count = int(jnp.sum(count_symbol_errors(received)))  # of 16,000 symbols
    >>> 1450 < count < 1750
    True
    """
    if not hasattr(words, "dtype") or words.dtype != jnp.uint32:
        checks.refuse("words", "be uint32", getattr(words, "dtype", words), TypeError)
    check_transition("channel", channel)
    if channel.transition.ndim != 2:
        checks.refuse("channel", "be one link without batch axes", channel.transition.shape)
    checks.prng_key("key", key)
    checks.one_of("scramble", scramble, (True, False))
    checks.one_of("sampler", sampler, get_args(Sampler))
    flat = jnp.asarray(words).reshape(-1)
    received = receive(cipher_key(key), flat, channel, scramble=scramble, sampler=sampler)
    return received.reshape(words.shape)


def count_symbol_errors(errors: jax.Array) -> jax.Array:
    """Number (...) uint32 of the symbols in each packed word of errors that are not zero."""
    return lax.population_count((errors | (errors >> 1)) & np.uint32(0x55555555))


def moments(
    codes: jax.Array, wire: FixedPoint, channel: SymbolChannel
) -> tuple[jax.Array, jax.Array]:
    """Exact mean and variance of a level after one hop, in units of one level.

    Args:
      codes: (...) levels sent, integers in two's complement of `wire.bits` bits.
      wire: the format of the levels.
      channel: one link, used as it is; pass `channel.scrambled()` for a scrambled one. Symbols
        that it flags as erased are replaced by a uniform guess.

    Returns:
      Mean and variance, each (...) of the float type of the channel. The mean is linear in the
      transition matrix, the variance quadratic.

    Raises:
      TypeError: if `wire` is not a FixedPoint, `codes` are not integers or `channel` is not a
        SymbolChannel.
      ValueError: if the channel has batch axes, or its matrix is not stochastic.

    >>> from jaxqring import superdense, werner
    >>> mean, variance = moments(jnp.array(37), FixedPoint(8), superdense(werner(fidelity=0.9)))
    >>> round(float(mean), 3), round(float(variance), 2)
    (32.0, 854.38)
    """
    checks.instance("wire", wire, FixedPoint)
    check_transition("channel", channel)
    if channel.transition.ndim != 2:
        checks.refuse("channel", "be one link without batch axes", channel.transition.shape)
    kind = codes.dtype if hasattr(codes, "dtype") else np.asarray(codes).dtype
    if not jnp.issubdtype(kind, jnp.integer):
        checks.refuse("codes", "be integers", str(kind), TypeError)
    transition = channel.guessed().transition
    levels = wrap(jnp.asarray(codes).astype(jnp.int32), wire.bits)
    jump, variance = jump_moments(levels, wire, transition)
    return levels.astype(transition.dtype) + jump, variance


def jump_moments(
    levels: jax.Array, wire: FixedPoint, transition: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the jump that a hop adds to a level: each (...) of (...) levels."""
    mean, variance = _symbol_jumps(wire.bits, transition)
    return _sum_over_symbols(mean, levels), _sum_over_symbols(variance, levels)


def mean_jump(levels: jax.Array, wire: FixedPoint, transition: jax.Array) -> jax.Array:
    """Mean jump (...) that a hop adds to each of (...) levels.

    Linear in the matrix, (4, 4) or (bits / 2, 4, 4) with one for each symbol of a level, so that a
    tangent of T gives the tangent of the mean.
    """
    return _sum_over_symbols(_symbol_jumps(wire.bits, transition)[0], levels)


def mean_slope(wire: FixedPoint, transition: jax.Array) -> jax.Array:
    """Slope of the mean of a received level in the level sent: 1 - 2f for uniform flips f.

    Args:
      wire: the format of the levels.
      transition: (4, 4), or (bits / 2, 4, 4) with one for each symbol of a level.

    Returns:
      () the regression slope of the mean on the level, over uniformly distributed levels. Where
      the mean is affine in the level (equal flip probabilities of both bits) this is its slope;
      elsewhere it is that of the best affine approximation.
    """
    centred = _centred_values(wire.bits, transition)
    transition = jnp.broadcast_to(transition, (wire.bits // 2, 4, 4))
    covariance = jnp.einsum("jr,jrm,jm->", centred, transition, centred, precision="highest")
    return covariance / jnp.sum(centred**2)


def variance_slope(wire: FixedPoint, transition: jax.Array) -> jax.Array:
    """Slope () of the variance of a received level in the level sent, like `mean_slope`.

    It is zero for XOR-symmetric channels.
    """
    centred = _centred_values(wire.bits, transition)
    _, variance = _symbol_jumps(wire.bits, transition)
    return jnp.sum(centred * variance) / jnp.sum(centred**2)


def _centred_values(bits: int, transition: jax.Array) -> jax.Array:
    values = jnp.asarray(symbol_values(bits), dtype=transition.dtype)
    return values - jnp.mean(values, axis=1, keepdims=True)


def symbol_values(bits: int) -> np.ndarray:
    """Contribution (bits / 2, 4) of symbol s at position j to a level in two's complement."""
    weights = 2.0 ** np.arange(bits)
    weights[-1] *= -1
    symbols = np.arange(4)
    return np.outer(weights[1::2], symbols >> 1) + np.outer(weights[::2], symbols & 1)


def _symbol_jumps(bits: int, transition: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance (bits / 2, 4) of the received less the sent value, by symbol sent.

    Both are of differences, not of values, so that little noise does not drown in rounding. Symbols
    are independent, so that both add up over the symbols of a level.
    """
    values = symbol_values(bits)
    jumps = jnp.asarray(values[:, :, None] - values[:, None, :], dtype=transition.dtype)
    mean = jnp.sum(jumps * transition, axis=1)
    variance = jnp.sum(jumps**2 * transition, axis=1) - mean**2
    return mean, jnp.where(variance >= 0, variance, 0)  # jnp.maximum halves the slope at zero


def _sum_over_symbols(table: jax.Array, levels: jax.Array) -> jax.Array:
    """Sum (...) over positions j of table[j, symbol j of the level]; the table is (bits / 2, 4)."""

    def add(total: jax.Array, position: tuple) -> tuple[jax.Array, None]:
        shift, row = position
        return total + _look_up(row, (levels >> shift) & 3), None

    shifts = jnp.arange(2, 2 * table.shape[0], 2, dtype=levels.dtype)
    # Starting from the first position, not from zeros, gives the sum the type of a mapped value.
    return lax.scan(add, _look_up(table[0], levels & 3), (shifts, table[1:]))[0]


def _look_up(table: jax.Array, symbol: jax.Array) -> jax.Array:
    """Looks up table[symbol] in a (4,) table; selects beat a gather and transpose to sums."""
    low, high = (symbol & 1).astype(bool), symbol >= 2
    return jnp.where(high, jnp.where(low, table[3], table[2]), jnp.where(low, table[1], table[0]))
