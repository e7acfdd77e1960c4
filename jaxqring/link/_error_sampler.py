"""Errors of a noisy link on packed symbols, sampled exactly in time that follows the noise.

The probabilities q(e | s) of the error e on a symbol s are split into a coarse and a sparse part,

    q(e | s) = (1 - rate) coarse(e | s) + rate rest(e | s)

with `coarse` in multiples of 1/256. The coarse part is drawn for all symbols at once, eight random
bits each, by comparing bit planes; then a fraction `rate` of the symbols is drawn again from
`rest`, found by the spacings between them, which are geometric. At high noise `rate` is a percent
or so. At low noise the coarse part is "no error", costs nothing, and `rate` is the error
probability: the work follows the number of errors. The compiled function chooses the cheaper of
the two from the probabilities that it is given.

In a short message, where finding one error costs more than drawing all symbols, every symbol has a
random word instead.

Exactness. The coarse part is exact. Spacings come from 31-bit uniforms through a float32 logarithm,
which changes `rate` by less than 1e-6 of itself; kinds are decided by 32-bit words. The remaining
error is the rounding of float32: 1e-7 of each probability, and 2.4e-10 of `rate`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import KeyWords, threefry
from jaxqring._varying import mapped_alike
from jaxqring.codec._packing import SYMBOLS_PER_WORD
from jaxqring.link._kinds import below, decide, kind_thresholds, shared_envelope

_GRID = 256  # coarse probabilities are multiples of 1/256: eight random bits a symbol
_PLANES = 8
_EVEN = np.uint32(0x55555555)

# Symbols in a stretch: their positions, and sums of one for each lane, fit 32 bits.
_STRETCH = 2**22
# Spacings are drawn in batches of rows x lanes; a lane adds its spacings row by row.
_ROWS = 8
_MAX_LANES = 128
# Errors a symbol at which redrawing costs as much as a coarse draw. Measured: 7 ns an error, and
# 0.15 ns a symbol.
_COARSE_COST = 1 / 40

_TINY = np.finfo(np.float32).tiny
# Up to this size every symbol is drawn by itself, which costs less than looking for the errors.
FEW_WORDS = 128
_WHOLE = 64


class Split(NamedTuple):
    """The two parts of the probabilities, for S = 1 symbol (scrambled links) or 4.

    Attributes:
      is_coarse: () bool, whether there is a coarse part.
      multiples: (S, 3) uint32 coarse probabilities of the errors 1, 2 and 3, in units of 1/256.
      rate: () float32 fraction of the symbols to draw again.
      above: (S, 3) uint32 thresholds for the errors drawn then; see `kind_thresholds`.
      widths: (S, 3) uint32 part of the interval between two thresholds that belongs to the kind,
        counted from its lower end; None if all of it.
    """

    is_coarse: jax.Array
    multiples: jax.Array
    rate: jax.Array
    above: jax.Array
    widths: jax.Array | None = None


def through(
    key: KeyWords, words: jax.Array, table: jax.Array, envelope: jax.Array | None = None
) -> jax.Array:
    """Sends packed words over a link, sampling its errors.

    Args:
      key: see `jaxqring._threefry`.
      words: (W,) uint32, 16 symbols each.
      table: (S, 4) float32 probabilities of the errors 0, ..., 3 that are XORed onto a symbol;
        S = 1, or 4 with one row for each symbol sent.
      envelope: (S, 4) float32, at least `table` for the errors 1, 2 and 3, for links that share
        their random numbers: errors are drawn with its probabilities, and then confirmed with
        the ratio of the two. Two links with the same key and envelope share errors: an error
        drawn on the quieter link also occurs, identically, on the noisier one. An envelope whose
        errors add up to more than one is ignored.

    Returns:
      (W,) uint32.
    """
    if words.size == 0:
        return words
    if envelope is None:
        words, table, first, second = mapped_alike(words, table, *key)
    else:
        words, table, envelope, first, second = mapped_alike(words, table, envelope, *key)
        envelope = shared_envelope(table, envelope)
    cipher = first, second
    if words.size <= FEW_WORDS:
        return words ^ _errors_of_few(cipher, words, table, envelope)
    parts = split(table) if envelope is None else _thinned(table, envelope)

    # XLA does not vectorise loops over odd lengths, which then take 15 times as long.
    size = words.size
    words = jnp.pad(words, (0, -size % _WHOLE))

    def coarse(words: jax.Array) -> jax.Array:
        return words ^ _coarse_errors(cipher, words, parts.multiples)

    drawn = lax.cond(parts.is_coarse, coarse, lambda words: words, words)
    return _redraw(cipher, words, drawn, parts, size)[:size]


def split(table: jax.Array) -> Split:
    """Splits the probabilities (S, 4) into a coarse and a sparse part.

    Errors are rounded down to multiples of 1/256, and the remainder goes to "no error"; 1 - rate
    is then the largest weight of the coarse part that exceeds no probability.
    """
    errors = jnp.clip(table[:, 1:], 0.0, 1.0)

    def rate_of(multiples: jax.Array) -> jax.Array:
        right = _GRID - jnp.sum(multiples, axis=1)
        excess = jnp.sum(errors * _GRID - multiples, axis=1)
        return jnp.max(jnp.minimum(excess / jnp.maximum(right, 1), 1))

    multiples = jnp.floor(errors * _GRID)
    zeros = jnp.zeros_like(multiples)
    is_coarse = rate_of(zeros) - rate_of(multiples) > _COARSE_COST
    multiples = jnp.where(is_coarse, multiples, zeros)
    rate = rate_of(multiples)
    again = (errors * _GRID - multiples) + rate * multiples
    rest = again / (_GRID * jnp.where(rate > 0, rate, 1))
    return Split(is_coarse, multiples.astype(jnp.uint32), rate, kind_thresholds(rest))


def _thinned(table: jax.Array, envelope: jax.Array) -> Split:
    """The split that draws all errors at the rate of the envelope and confirms only some."""
    often = jnp.clip(jnp.maximum(envelope, table)[:, 1:], 0.0, 1.0)
    rate = jnp.minimum(jnp.max(jnp.sum(often, axis=1)), 1)
    scale = 1 / jnp.where(rate > 0, rate, 1)
    zeros = jnp.zeros_like(often, jnp.uint32)
    above = kind_thresholds(often * scale)
    return Split(rate < 0, zeros, rate, above, below(table[:, 1:] * scale))


def _coarse_errors(cipher: KeyWords, words: jax.Array, multiples: jax.Array) -> jax.Array:
    """Draws errors (W,) uint32 with probabilities that are multiples of 1/256.

    A random word gives the symbols of a packed word two bits each: its even bits and its odd ones.
    It is one expression without a second output, for which XLA would draw the bits again.
    """
    position = lax.iota(jnp.uint32, words.shape[0])
    tails = jnp.cumsum(multiples[:, ::-1], axis=1)[:, ::-1]  # 0 to 256
    low, high = words, words >> 1

    def bit_of(kind: int, bit: int) -> jax.Array:
        """Bit `bit` of the threshold that belongs to each symbol, in all its even bits."""
        ones = np.uint32(0) - ((tails[:, kind] >> np.uint32(bit)) & np.uint32(1))
        if multiples.shape[0] == 1:
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
            edge = bit_of(kind, plane)
            below[kind] = (~one & (edge | below[kind])) | (edge & below[kind])
    first, second, third = (below[kind] | bit_of(kind, _PLANES) for kind in range(3))
    return (((first & ~second) | third) & _EVEN) | ((second & _EVEN) << np.uint32(1))


def spacing_factor(rate: jax.Array) -> jax.Array:
    """Factor () that turns the logarithm of a uniform variate into a spacing; see `spacings`."""
    return 1 / jnp.log1p(-jnp.maximum(rate, _TINY))


def spacings(words: jax.Array, factor: jax.Array, longest: int) -> jax.Array:
    """Distances from one redrawn symbol to the next.

    Args:
      words: (...) uint32 random words, of which 31 bits are used.
      factor: () float32, see `spacing_factor`.
      longest: distances are cut off at `longest` + 1.

    Returns:
      (...) int32, at least one, geometric: from the logarithm of a uniform variate that is resolved
      to 2^-31 near zero and near one, so that short spacings are as accurate as long ones.
    """
    near = ((words >> 1) & np.uint32(2**30 - 1)).astype(jnp.int32).astype(jnp.float32)
    near = (near + np.float32(0.5)) * np.float32(2.0**-31)  # the distance from zero, or from one
    from_one = words >> 31 == 1
    uniform = jnp.where(from_one, 1 - near, near)
    rounded = jnp.where(from_one, (1 - uniform) - near, 0)  # the exact error of 1 - near
    log = jnp.log(uniform) + rounded
    return 1 + jnp.minimum(log * factor, np.float32(longest)).astype(jnp.int32)


def _redraw(
    cipher: KeyWords, words: jax.Array, drawn: jax.Array, parts: Split, size: int
) -> jax.Array:
    """Draws a fraction of the symbols again.

    Args:
      cipher: key; streams 0 and 1 are taken by the coarse part.
      words: (W,) as sent.
      drawn: (W,) as received so far; updated in place.
      parts: probabilities of the errors.
      size: number of words that count; the others are padding.
    """
    stretch = min(_STRETCH, size * SYMBOLS_PER_WORD)
    lanes = 32
    while lanes < _MAX_LANES and lanes * _ROWS * 32 < stretch:
        lanes *= 2
    batch = lanes * _ROWS
    # Made of the key, to have the type of a mapped value.
    zero = cipher[0] & np.uint32(0)
    begin = zero.astype(jnp.int32)
    factor = spacing_factor(parts.rate)

    def redraw_batch(state: tuple) -> tuple:
        base, start, stream, drawn = state

        def draw() -> KeyWords:
            return threefry(cipher, (lax.iota(jnp.uint32, batch), jnp.full((batch,), stream)))

        def nothing() -> KeyWords:
            return jnp.full((batch,), zero), jnp.full((batch,), zero)

        # Always drawn: this is what the loop asks. A branch ends in memory; without it every
        # consumer draws the words again, four in all, and the one that gathers word by word.
        near, fate = lax.cond(base < size, draw, nothing)
        spacing = spacings(near, factor, stretch).reshape(_ROWS, lanes)
        wholes = jnp.minimum(jnp.sum(spacing, axis=0, dtype=jnp.int32), stretch)
        before = jnp.cumsum(wholes) - wholes + (start - 1)

        def add(last: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            return last + row, last + row

        position = lax.scan(add, before, spacing)[1].reshape(batch)
        word = base + (position >> 4)
        word = jnp.where(position < stretch, word, words.size)
        shift = ((position & 15) << 1).astype(jnp.uint32)

        def symbol_in(array: jax.Array, at: jax.Array) -> jax.Array:
            return (array.at[at].get(mode="clip") >> shift) & np.uint32(3)

        current = symbol_in(drawn, word)
        # Without a coarse part that is the symbol sent, and one array is enough for the cache.
        sent = symbol_in(words, jnp.where(parts.is_coarse, word, 0))
        sent = jnp.where(parts.is_coarse, sent, current)
        error = decide(fate, sent, parts.above, parts.widths)
        # Positions are distinct: sums of differences, mod 2^32, replace each symbol by its own.
        change = ((sent ^ error) - current) << shift
        drawn = drawn.at[word].add(change, mode="drop")
        # Spacings that reach beyond the stretch are dropped: geometric ones have no memory.
        start = start + jnp.sum(wholes, dtype=jnp.int32)
        done = start >= stretch
        base = jnp.where(done, base + stretch // SYMBOLS_PER_WORD, base)
        return base, jnp.where(done, 0, start), stream + 1, drawn

    base = jnp.where(parts.rate >= _TINY, begin, size)
    state = (base, begin, zero + np.uint32(2), drawn)
    return lax.while_loop(lambda state: state[0] < size, redraw_batch, state)[3]


def _errors_of_few(
    cipher: KeyWords, words: jax.Array, table: jax.Array, envelope: jax.Array | None
) -> jax.Array:
    """Draws errors (W,) uint32 with a random word a symbol: every probability to 2.4e-10."""
    often = table if envelope is None else jnp.maximum(table, envelope)
    above = kind_thresholds(often[:, 1:])
    widths = None if envelope is None else below(table[:, 1:])
    rows = lax.iota(jnp.uint32, SYMBOLS_PER_WORD // 2)[:, None]
    counter = rows * np.uint32(words.size) + lax.iota(jnp.uint32, words.size)
    halves = threefry(cipher, (counter, jnp.zeros_like(counter)))
    errors = jnp.zeros_like(words)
    for half, drawn in enumerate(halves):
        shift = (rows + np.uint32(half * (SYMBOLS_PER_WORD // 2))) << 1
        kinds = decide(drawn, (words >> shift) & 3, above, widths)
        errors |= jnp.sum(kinds << shift, axis=0, dtype=jnp.uint32)
    return errors
