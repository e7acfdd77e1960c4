"""What a noisy link makes of packed symbols, sampled exactly in time that follows the noise.

The probabilities q(e | s) of the error e on a symbol s are split into a coarse and a sparse part,

    q(e | s) = (1 - rate) coarse(e | s) + rate rest(e | s)

with `coarse` in multiples of 1/256. The coarse part is drawn for all symbols at once, eight random
bits each, by comparing bit planes; then a fraction `rate` of the symbols is drawn again from
`rest`, found by the gaps between them, which are geometric. At high noise `rate` is a percent or
so. At low noise the coarse part is "no error", costs nothing, and `rate` is the error probability:
the work follows the number of errors. Which of the two is cheaper is decided by the compiled
function, from the probabilities that it is given.

A short message, where each error costs more to find than all symbols to draw, has a random word
for every symbol instead.

Exactness. The coarse part is exact. Gaps come from 31-bit uniforms through a float32 logarithm,
which moves `rate` by less than 1e-6 of itself; kinds are decided by 32-bit words. What remains is
the rounding of float32: 1e-7 of each probability, and 2.4e-10 of `rate`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import KeyWords, threefry
from jaxqring.codec._packing import SYMBOLS_PER_WORD

_LEVELS = 256  # of the coarse part, by eight random bits a symbol
_PLANES = 8
_EVEN = np.uint32(0x55555555)

# Symbols in a stretch: their positions, and sums of as many as there are lanes, fit 32 bits.
_STRETCH = 2**22
# Gaps are drawn in batches of rows x lanes; a lane adds its gaps row by row.
_ROWS = 8
_MAX_LANES = 128
# A coarse draw costs as much as this many errors a symbol. Measured: 0.55 against 20 ns.
_COARSE_COST = 1 / 40

# The largest float32 below 2^32, which a uint32 can hold.
_BELOW = np.float32(2.0**32 - 2.0**8)
_FULL = np.uint32(2**32 - 1)
_TINY = np.finfo(np.float32).tiny
# Up to here every symbol is drawn by itself, which costs less than looking for the errors.
FEW_WORDS = 128
_WHOLE = 64


class Split(NamedTuple):
    """The two parts of the probabilities, for S = 1 symbol (scrambled links) or 4.

    Attributes:
      is_coarse: () bool, whether there is a coarse part.
      levels: (S, 3) uint32 coarse probabilities of the errors 1, 2 and 3, in 1/256.
      rate: () float32 fraction of the symbols to draw again.
      above: (S, 3) uint32 thresholds of what is drawn then; see `kind_thresholds`.
      widths: (S, 3) uint32 how much of the room between two thresholds is the kind's own, counted
        from its lower end; None if all of it.
    """

    is_coarse: jax.Array
    levels: jax.Array
    rate: jax.Array
    above: jax.Array
    widths: jax.Array | None = None


def through(
    key: KeyWords, words: jax.Array, table: jax.Array, envelope: jax.Array | None = None
) -> jax.Array:
    """Sends words through a link.

    Args:
      key: see `jaxqring._threefry`.
      words: (W,) uint32, 16 symbols each.
      table: (S, 4) float32 probabilities of the errors 0, ..., 3 that are XORed onto a symbol;
        S = 1, or 4 with one row for each symbol sent.
      envelope: (S, 4) float32, at least `table` for the errors 1, 2 and 3, if links shall share
        their random numbers: errors are drawn as often as it says, and then confirmed with the
        probability that is left. Of two links with the same envelope and key, an error on one is
        the same error on the other wherever that is likelier to have it. An envelope whose errors
        add up to more than one is left aside.

    Returns:
      (W,) uint32.
    """
    if words.size == 0:
        return words
    if envelope is None:
        words, table, first, second = mapped_alike(words, table, *key)
    else:
        words, table, envelope, first, second = mapped_alike(words, table, envelope, *key)
        # Links too far apart to share their errors, which would fill more than all symbols.
        shares = jnp.all(jnp.sum(envelope[:, 1:], axis=1) <= 1)
        envelope = jnp.where(shares, envelope, table)
    cipher = first, second
    if words.size <= FEW_WORDS:
        return words ^ _errors_of_few(cipher, words, table, envelope)
    parts = split(table) if envelope is None else _thinned(table, envelope)

    # Of odd lengths XLA makes loops that are not vectorised, which take 15 times as long.
    size = words.size
    words = jnp.pad(words, (0, -size % _WHOLE))

    def coarse(words: jax.Array) -> jax.Array:
        return words ^ _coarse_errors(cipher, words, parts.levels)

    drawn = lax.cond(parts.is_coarse, coarse, lambda words: words, words)
    return _redraw(cipher, words, drawn, parts, size)[:size]


def mapped_alike(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, varying over all axes of a `shard_map` that any of them varies over."""
    axes = frozenset().union(*(jax.typeof(array).mat.varying for array in arrays))

    def cast(array: jax.Array) -> jax.Array:
        missing = tuple(axes - jax.typeof(array).mat.varying)
        return lax.pcast(array, missing, to="varying") if missing else array

    return [cast(array) for array in arrays]


def split(table: jax.Array) -> Split:
    """The coarse and the sparse part of the probabilities (S, 4).

    Errors are rounded down to multiples of 1/256, and what that leaves goes to "no error"; then
    1 - rate is the largest share of the coarse part that no probability falls below.
    """
    errors = jnp.clip(table[:, 1:], 0.0, 1.0)

    def rate_of(levels: jax.Array) -> jax.Array:
        right = _LEVELS - jnp.sum(levels, axis=1)
        excess = jnp.sum(errors * _LEVELS - levels, axis=1)
        return jnp.max(jnp.minimum(excess / jnp.maximum(right, 1), 1))

    levels = jnp.floor(errors * _LEVELS)
    none = jnp.zeros_like(levels)
    is_coarse = rate_of(none) - rate_of(levels) > _COARSE_COST
    levels = jnp.where(is_coarse, levels, none)
    rate = rate_of(levels)
    again = (errors * _LEVELS - levels) + rate * levels
    rest = again / (_LEVELS * jnp.where(rate > 0, rate, 1))
    return Split(is_coarse, levels.astype(jnp.uint32), rate, kind_thresholds(rest))


def _thinned(table: jax.Array, envelope: jax.Array) -> Split:
    """All errors drawn at the rate of the envelope, and only some kept."""
    often = jnp.clip(jnp.maximum(envelope, table)[:, 1:], 0.0, 1.0)
    rate = jnp.minimum(jnp.max(jnp.sum(often, axis=1)), 1)
    scale = 1 / jnp.where(rate > 0, rate, 1)
    none = jnp.zeros_like(often, jnp.uint32)
    above = kind_thresholds(often * scale)
    return Split(rate < 0, none, rate, above, _below(table[:, 1:] * scale))


def _below(probs: jax.Array) -> jax.Array:
    """uint32 thresholds that random words lie below with these probabilities."""
    scaled = jnp.minimum(jnp.clip(probs, 0.0, 1.0) * np.float32(2.0**32), _BELOW)
    return jnp.where(probs < 1, scaled.astype(jnp.uint32), _FULL)


def kind_thresholds(probs: jax.Array) -> jax.Array:
    """Where a random word u decides for a kind: kind k or above if u < threshold[k - 1].

    Args:
      probs: (..., K) float32 probabilities of the kinds 1, ..., K; kind 0 takes what is left.

    Returns:
      (..., K) uint32, falling. Added up as integers, so that the probability of a rare kind is not
      the difference of two rounded floats; the likeliest takes what rounding makes too much.
    """
    widths = _below(probs)
    kinds = jnp.arange(probs.shape[-1], dtype=jnp.int32)
    likeliest = kinds == jnp.argmax(probs, axis=-1, keepdims=True)
    others = jnp.sum(jnp.where(likeliest, 0, widths), axis=-1, keepdims=True, dtype=jnp.uint32)
    widths = jnp.where(likeliest, jnp.minimum(widths, _FULL - others), widths)
    return jnp.cumsum(widths[..., ::-1], axis=-1, dtype=jnp.uint32)[..., ::-1]


def _coarse_errors(cipher: KeyWords, words: jax.Array, levels: jax.Array) -> jax.Array:
    """(W,) uint32 errors drawn with probabilities in 1/256.

    A random word gives the symbols of a word two bits each: its even bits and its odd ones. One
    expression without a second output, because XLA would draw the bits again for that.
    """
    position = lax.iota(jnp.uint32, words.shape[0])
    tails = jnp.cumsum(levels[:, ::-1], axis=1)[:, ::-1]  # of 0 to 256
    low, high = words, words >> 1

    def bit_of(kind: int, bit: int) -> jax.Array:
        """Bit `bit` of the threshold that belongs to each symbol, in all its even bits."""
        ones = np.uint32(0) - ((tails[:, kind] >> np.uint32(bit)) & np.uint32(1))
        if levels.shape[0] == 1:
            return ones[0]
        mixed = ones[0] ^ ones[1] ^ ones[2] ^ ones[3]
        return (
            ones[0]
            ^ (low & (ones[0] ^ ones[1]))
            ^ (high & (ones[0] ^ ones[2]))
            ^ (low & high & mixed)
        )

    below = [jnp.zeros_like(words)] * 3  # whether the bits so far are below those of a threshold
    for plane in range(_PLANES):
        if plane % 4 == 0:
            drawn = threefry(cipher, (position, jnp.full_like(position, plane // 4)))
        one = drawn[plane % 4 // 2] >> np.uint32(plane % 2)
        for kind in range(3):
            own = bit_of(kind, plane)
            below[kind] = (~one & (own | below[kind])) | (own & below[kind])
    first, second, third = (below[kind] | bit_of(kind, _PLANES) for kind in range(3))
    return (((first & ~second) | third) & _EVEN) | ((second & _EVEN) << np.uint32(1))


def gap_scale(rate: jax.Array) -> jax.Array:
    """() float32 what turns the logarithm of a uniform variate into a gap; see `gaps`."""
    return 1 / jnp.log1p(-jnp.maximum(rate, _TINY))


def gaps(words: jax.Array, scale: jax.Array, longest: int) -> jax.Array:
    """Distances from one redrawn symbol to the next.

    Args:
      words: (...) uint32 random words, of which 31 bits are used.
      scale: () float32, see `gap_scale`.
      longest: what distances are cut off at, but for one more.

    Returns:
      (...) int32, at least one, geometric: by the logarithm of a uniform variate that is resolved
      to 2^-31 near zero and near one, so that short gaps are as right as long ones.
    """
    near = ((words >> 1) & np.uint32(2**30 - 1)).astype(jnp.int32).astype(jnp.float32)
    near = (near + np.float32(0.5)) * np.float32(2.0**-31)  # the distance from zero, or from one
    from_one = words >> 31 == 1
    uniform = jnp.where(from_one, 1 - near, near)
    lost = jnp.where(from_one, (1 - uniform) - near, 0)  # by rounding 1 - near, exactly
    log = jnp.log(uniform) + lost
    return 1 + jnp.minimum(log * scale, np.float32(longest)).astype(jnp.int32)


def _redraw(
    cipher: KeyWords, words: jax.Array, drawn: jax.Array, parts: Split, size: int
) -> jax.Array:
    """Draws a fraction of the symbols again.

    Args:
      cipher: key; the streams 0 and 1 are used up.
      words: (W,) as sent.
      drawn: (W,) as received so far; updated in place.
      parts: what is drawn.
      size: how many of the words count.
    """
    stretch = min(_STRETCH, size * SYMBOLS_PER_WORD)
    lanes = 32
    while lanes < _MAX_LANES and lanes * _ROWS * 32 < stretch:
        lanes *= 2
    batch = lanes * _ROWS
    # Made of the key, to have the type of a mapped value.
    zero = cipher[0] & np.uint32(0)
    none = zero.astype(jnp.int32)
    scale = gap_scale(parts.rate)

    def turn(state: tuple) -> tuple:
        base, start, stream, drawn = state
        counter = lax.iota(jnp.uint32, batch), jnp.full((batch,), stream)
        gap = gaps(threefry(cipher, counter)[0], scale, stretch).reshape(_ROWS, lanes)
        wholes = jnp.minimum(jnp.sum(gap, axis=0, dtype=jnp.int32), stretch)
        before = jnp.cumsum(wholes) - wholes + (start - 1)

        def add(last: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            return last + row, last + row

        position = lax.scan(add, before, gap)[1].reshape(batch)
        word = base + (position >> 4)
        word = jnp.where(position < stretch, word, words.size)
        shift = ((position & 15) << 1).astype(jnp.uint32)

        def symbol_in(held: jax.Array, at: jax.Array) -> jax.Array:
            return (held.at[at].get(mode="clip") >> shift) & np.uint32(3)

        held = symbol_in(drawn, word)
        # Without a coarse part that is what was sent, and one array is enough for the cache.
        sent = symbol_in(words, jnp.where(parts.is_coarse, word, 0))
        sent = jnp.where(parts.is_coarse, sent, held)
        fate = threefry(cipher, counter)[1]
        error = _decide(fate, sent, parts.above, parts.widths)
        # Positions are distinct: sums of differences, mod 2^32, replace each symbol by its own.
        change = ((sent ^ error) - held) << shift
        drawn = drawn.at[word].add(change, mode="drop")
        start = start + jnp.sum(
            wholes, dtype=jnp.int32
        )  # the gaps that are left over are forgotten, as gaps are
        done = start >= stretch
        base = jnp.where(done, base + stretch // SYMBOLS_PER_WORD, base)
        return base, jnp.where(done, 0, start), stream + 1, drawn

    base = jnp.where(parts.rate >= _TINY, none, size)
    state = (base, none, zero + np.uint32(2), drawn)
    return lax.while_loop(lambda state: state[0] < size, turn, state)[3]


def _errors_of_few(
    cipher: KeyWords, words: jax.Array, table: jax.Array, envelope: jax.Array | None
) -> jax.Array:
    """(W,) uint32 errors, a random word for each symbol: every probability to 2.4e-10."""
    often = table if envelope is None else jnp.maximum(table, envelope)
    above = kind_thresholds(often[:, 1:])
    widths = None if envelope is None else _below(table[:, 1:])
    rows = lax.iota(jnp.uint32, SYMBOLS_PER_WORD // 2)[:, None]
    counter = rows * np.uint32(words.size) + lax.iota(jnp.uint32, words.size)
    halves = threefry(cipher, (counter, jnp.zeros_like(counter)))
    errors = jnp.zeros_like(words)
    for half, drawn in enumerate(halves):
        shift = (rows + np.uint32(half * (SYMBOLS_PER_WORD // 2))) << 1
        kinds = _decide(drawn, (words >> shift) & 3, above, widths)
        errors |= jnp.sum(kinds << shift, axis=0, dtype=jnp.uint32)
    return errors


def _decide(
    drawn: jax.Array, sent: jax.Array, above: jax.Array, widths: jax.Array | None
) -> jax.Array:
    """uint32 errors that random words choose, of symbols sent; see `Split`."""
    error = jnp.zeros_like(drawn)
    thresholds = [_of_symbol(above[:, kind], sent) for kind in range(3)]
    if widths is None:
        for threshold in thresholds:
            error += (drawn < threshold).astype(jnp.uint32)
        return error
    for kind, low in enumerate([*thresholds[1:], jnp.zeros_like(drawn)]):
        own = drawn - low < jnp.minimum(_of_symbol(widths[:, kind], sent), thresholds[kind] - low)
        error = jnp.where(own, np.uint32(kind + 1), error)
    return error


def _of_symbol(by_symbol: jax.Array, symbol: jax.Array) -> jax.Array:
    """by_symbol[symbol] for (1,) or (4,) values; selects are faster than a gather."""
    if by_symbol.shape[0] == 1:
        return by_symbol[0]
    low, high = (symbol & 1).astype(bool), symbol >= 2
    first = jnp.where(low, by_symbol[1], by_symbol[0])
    return jnp.where(high, jnp.where(low, by_symbol[3], by_symbol[2]), first)
