"""Errors of sums of masks, each drawn bit by bit: integers only, in the same time at every noise.

Given the lower bits of an error, of value E below 2^t, its bit t is set with probability

    (1 - V cos(pi E / 2^t)) / 2 = w + (1 - 2 w) sin^2(pi E / 2^(t + 1)),    w = (1 - V) / 2.

The sine is a series in fixed point of 32 bits, so that every such probability is right to 1e-9 and
the same on every platform. `jaxqring.secure._masks` looks for the wrong sums instead, which is
faster where they are few and the processor has few lanes; the law is the same.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import KeyWords, threefry
from jaxqring.link._kinds import below

# sin^2(pi x / 4) = y (c_1 - y (c_2 - y (c_3 - ...))) with y = x^2: below 2^-32 after seven terms.
_SERIES = tuple(
    np.uint32(round(2**32 * (math.pi / 2) ** (2 * k) / (2 * math.factorial(2 * k))))
    for k in range(1, 8)
)


def all_sum_errors(cipher: KeyWords, visibility: jax.Array, size: int, bits: int) -> jax.Array:
    """Draws the errors of sums of masks, with a random word for every bit of each.

    Args:
      cipher: two words of key, used for nothing else.
      visibility: () V, of every GHZ state.
      size: number of sums.
      bits: b, of a mask.

    Returns:
      (size,) int32, below 2^b for b < 32.
    """
    wrong = below((1 - visibility.astype(jnp.float32)) / 2)
    position = lax.iota(jnp.uint32, size)
    # Made of the key and the noise, to have the type of mapped values.
    start = position & (cipher[0] & np.uint32(0)) & (wrong & np.uint32(0))

    def two_bits(pair: jax.Array, error: jax.Array) -> jax.Array:
        number = pair.astype(jnp.uint32)
        drawn = threefry(cipher, (position, jnp.full_like(position, number)))
        for half, word in enumerate(drawn):
            t = 2 * number + np.uint32(half)
            one = (word < bit_threshold(error, t, wrong)) & (t < bits)
            error |= one.astype(jnp.uint32) << jnp.minimum(t, np.uint32(31))
        return error

    error = lax.fori_loop(0, -(-bits // 2), two_bits, start)
    return lax.bitcast_convert_type(error, jnp.int32)


def bit_threshold(error: jax.Array, t: jax.Array, wrong: jax.Array) -> jax.Array:
    """The uint32 below which a random word sets bit t of errors whose lower bits are known.

    Args:
      error: (...) uint32 below 2^t.
      t: () uint32, below 32.
      wrong: () uint32 threshold of the probability w.
    """
    # E / 2^t in units of 2^-32; shifted by 32, which t = 0 would be, a word is undefined.
    turn = (error << (np.uint32(31) - t)) << np.uint32(1)
    above_half = turn >> np.uint32(31) == 1
    folded = jnp.where(above_half, ~turn, turn) << np.uint32(1)  # sin^2 is 1 - that of the rest
    square = _product(folded, folded)
    series = jnp.zeros_like(square)
    for coefficient in reversed(_SERIES):
        series = _product(square, coefficient - series)
    sine = jnp.where(above_half, ~series, series)
    return wrong - _product(sine, wrong) + _product(sine, ~wrong)


def _product(one: jax.Array, other: jax.Array) -> jax.Array:
    """The upper 32 of the 64 bits of a product of uint32."""
    low, half = np.uint32(0xFFFF), np.uint32(16)
    a, b, c, d = one >> half, one & low, other >> half, other & low
    middle = a * d + (b * d >> half)
    rest = b * c + (middle & low)
    return a * c + (middle >> half) + (rest >> half)
