"""Codes through a symbol channel: sampled exactly, or through their first two moments."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, cipher_key
from jaxqring.codec._formats import FixedPoint
from jaxqring.codec._packing import wrap
from jaxqring.link import _error_sampler as sampling
from jaxqring.link._symbol_channel import SymbolChannel, check_transition


def receive(
    key: KeyWords,
    words: jax.Array,
    channel: SymbolChannel,
    *,
    scramble: bool,
    envelope: jax.Array | None = None,
) -> jax.Array:
    """`transmit` without its checks.

    Args:
      key: see `jaxqring._threefry`.
      words: (W,) uint32, 16 symbols each.
      channel: one link. Its erased symbols are replaced by a uniform guess.
      scramble: whether a pad makes errors independent of the words; then only their shape counts.
      envelope: (4, 4) error table that links with common random numbers share; see
        `sampling.through`.

    Returns:
      (W,) uint32.
    """
    table = channel.guessed().error_table.astype(jnp.float32)
    known = jnp.all(jnp.isfinite(table), axis=-1, keepdims=True)
    table = jnp.where(known, table, 0.25)  # white noise for NaN, which only a trace can bring
    if scramble:
        table = jnp.mean(table, axis=0, keepdims=True)
    tables = [table]
    if envelope is not None:
        shared = envelope.astype(jnp.float32)
        tables.append(jnp.mean(shared, axis=0, keepdims=True) if scramble else shared)
    send = _in_step if words.size <= sampling.FEW_WORDS else _one_by_one
    return send(key, words, *map(lax.stop_gradient, tables))


_in_step = jax.jit(sampling.through)
# The work depends on the noise, so that links that are mapped over take turns: in step, each
# would wait for the noisiest.
_one_by_one = sequential_vmap(_in_step)


def transmit(
    words: jax.Array, channel: SymbolChannel, key: jax.Array, *, scramble: bool = True
) -> jax.Array:
    """Sends packed symbols over one link, sampling its errors exactly.

    Args:
      words: (...) uint32; symbol j of a word is its bits (2j + 1, 2j).
      channel: one link, no batch axes. Symbols that it flags as erased arrive as a uniform guess.
      key: typed PRNG key.
      scramble: XOR with a pad known to both ends before encoding and after decoding. Then errors
        are drawn from q(e) = mean over m of T[m XOR e | m], whatever is sent; otherwise from the
        column of T that belongs to each symbol.

    Returns:
      (...) uint32, the words received.

    Raises:
      TypeError: if the words are not uint32, the channel not a SymbolChannel or the key raw.
      ValueError: if the channel has batch axes, its matrix is not stochastic, or the key is a
        batch.

    >>> from jaxqring.link import superdense
    >>> from jaxqring.physics.pairs import werner
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
    flat = jnp.asarray(words).reshape(-1)
    return receive(cipher_key(key), flat, channel, scramble=scramble).reshape(words.shape)


def count_symbol_errors(errors: jax.Array) -> jax.Array:
    """(...) uint32, how many of the symbols in each word of errors are not zero."""
    return lax.population_count((errors | (errors >> 1)) & np.uint32(0x55555555))


def moments(
    codes: jax.Array, wire: FixedPoint, channel: SymbolChannel
) -> tuple[jax.Array, jax.Array]:
    """Exact mean and variance of a code after one hop, in units of one code.

    Args:
      codes: (...) integers in two's complement of `wire.bits` bits.
      wire: the wire that they are written with.
      channel: one link, used as it is; pass `channel.scrambled()` for a scrambled one. Symbols
        that it flags as erased are replaced by a uniform guess.

    Returns:
      Mean and variance, each (...) of the float type of the channel. The mean is linear in the
      transition matrix, the variance quadratic.

    Raises:
      TypeError: if the wire is not a FixedPoint, the codes not integers or the channel no
        SymbolChannel.

    >>> from jaxqring.link import superdense
    >>> from jaxqring.physics.pairs import werner
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
    codes = jnp.asarray(codes)
    transition = channel.guessed().transition
    values = wrap(codes.astype(jnp.int32), wire.bits)
    jump, variance = jump_moments(values, wire, transition)
    return values.astype(transition.dtype) + jump, variance


def jump_moments(
    codes: jax.Array, wire: FixedPoint, transition: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of what a hop adds to a code: each (...) of (...) codes."""
    first, spread = _jump_law(wire.bits, transition)
    return _sum_over_symbols(first, codes), _sum_over_symbols(spread, codes)


def mean_jump(codes: jax.Array, wire: FixedPoint, transition: jax.Array) -> jax.Array:
    """How far a hop moves the mean of a code: (...) of (...) codes.

    Linear in the matrix, (4, 4) or (bits / 2, 4, 4) with one for each symbol of a code, so that a
    tangent of T gives the tangent of the mean.
    """
    return _sum_over_symbols(_jump_law(wire.bits, transition)[0], codes)


def mean_slope(wire: FixedPoint, transition: jax.Array) -> jax.Array:
    """How far the mean of a received code follows the code sent: 1 - 2f for uniform flips f.

    Args:
      wire: the wire of the codes.
      transition: (4, 4), or (bits / 2, 4, 4) with one for each symbol of a code.

    Returns:
      () the regression slope of the mean on the code, over uniformly distributed codes. Where
      the mean is affine in the code (equal flip probabilities of both bits) this is its slope;
      elsewhere it is the best affine approximation.
    """
    centred = _centred_values(wire.bits, transition)
    transition = jnp.broadcast_to(transition, (wire.bits // 2, 4, 4))
    covariance = jnp.einsum("jr,jrm,jm->", centred, transition, centred, precision="highest")
    return covariance / jnp.sum(centred**2)


def variance_slope(wire: FixedPoint, transition: jax.Array) -> jax.Array:
    """() how far the variance of a received code follows the code sent, as `mean_slope`.

    Zero for XOR-symmetric channels.
    """
    centred = _centred_values(wire.bits, transition)
    _, spread = _jump_law(wire.bits, transition)
    return jnp.sum(centred * spread) / jnp.sum(centred**2)


def _centred_values(bits: int, transition: jax.Array) -> jax.Array:
    values = jnp.asarray(symbol_values(bits), dtype=transition.dtype)
    return values - jnp.mean(values, axis=1, keepdims=True)


def symbol_values(bits: int) -> np.ndarray:
    """(bits / 2, 4) what symbol s at position j adds to a code in two's complement."""
    weights = 2.0 ** np.arange(bits)
    weights[-1] *= -1
    symbols = np.arange(4)
    return np.outer(weights[1::2], symbols >> 1) + np.outer(weights[::2], symbols & 1)


def _jump_law(bits: int, transition: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(bits / 2, 4) mean and variance of received less sent value, by symbol sent.

    Of differences, and not of values, so that little noise does not drown in rounding. Symbols
    are independent, so that both add up over those of a code.
    """
    values = symbol_values(bits)
    jumps = jnp.asarray(values[:, :, None] - values[:, None, :], dtype=transition.dtype)
    mean = jnp.sum(jumps * transition, axis=1)
    variance = jnp.sum(jumps**2 * transition, axis=1) - mean**2
    return mean, jnp.where(variance >= 0, variance, 0)  # jnp.maximum halves the slope at zero


def _sum_over_symbols(table: jax.Array, codes: jax.Array) -> jax.Array:
    """(...) sum over positions j of table[j, symbol j of the code]; the table is (bits / 2, 4)."""

    def add(total: jax.Array, position: tuple) -> tuple[jax.Array, None]:
        shift, row = position
        return total + _look_up(row, (codes >> shift) & 3), None

    shifts = jnp.arange(2, 2 * table.shape[0], 2, dtype=codes.dtype)
    # Starting from the first position, not from zeros, gives the sum the type of a mapped value.
    return lax.scan(add, _look_up(table[0], codes & 3), (shifts, table[1:]))[0]


def _look_up(table: jax.Array, symbol: jax.Array) -> jax.Array:
    """table[symbol] for a (4,) table; selects are faster than a gather and transpose to sums."""
    low, high = (symbol & 1).astype(bool), symbol >= 2
    return jnp.where(high, jnp.where(low, table[3], table[2]), jnp.where(low, table[1], table[0]))
