"""Logarithmic levels on the wire: requantised by every node that adds to them."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords
from jaxqring.codec._packing import join, lanes_of, part, wrap


def to_log_level(fraction: jax.Array, bits: int, alpha: ArrayLike) -> jax.Array:
    """The nearest logarithmic level (...) float32 of fractions (...) in [-1, 1].

    Nearest in the logarithmic domain: round(L sign(x) ln(1 + alpha |x|) / ln(1 + alpha)) with
    L = 2^(bits - 1) - 1, so that zero is a level. Fractions beyond the interval are clipped.

    Logarithms differ in their last bit from one program to the next, as compilers have several of
    them. What decides is therefore a comparison with the borders of a level.
    """
    top = 2 ** (bits - 1) - 1
    size = jnp.minimum(jnp.abs(fraction), 1)
    guess = jnp.round(np.float32(top) * jnp.log1p(alpha * size) / jnp.log1p(alpha))
    level = jnp.clip(guess, 0, top).astype(jnp.int32)
    borders = _fractions(np.arange(top + 2) - 0.5, bits, alpha)
    above = (level < top) & (size >= borders[level + 1])
    level += above.astype(jnp.int32) - ((level > 0) & (size < borders[level])).astype(jnp.int32)
    return jnp.sign(fraction) * level.astype(jnp.float32)


def of_log_level(level: jax.Array, bits: int, alpha: ArrayLike) -> jax.Array:
    """The fraction (...) float32 in [-1, 1] that an integer logarithmic level (...) stands for.

    From a table, for the reason given above. Errors of links also make the level -2^(bits - 1),
    which stands for a little less than -1.
    """
    table = _fractions(np.arange(2 ** (bits - 1) + 1), bits, alpha)
    return jnp.sign(level) * table[jnp.abs(level).astype(jnp.int32)]


def _fractions(levels: np.ndarray, bits: int, alpha: ArrayLike) -> jax.Array:
    """float32 fractions that levels (...) of at least -1/2 stand for, also between integers."""
    exponents = levels / (2 ** (bits - 1) - 1)
    if checks.is_traced(alpha):
        return jnp.expm1(exponents.astype(np.float32) * jnp.log1p(alpha)) / alpha
    known = np.asarray(alpha, np.float64)
    return jnp.asarray((np.expm1(exponents * np.log1p(known)) / known).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class LogLevels:
    """Fractions in [-1, 1] on levels that lie close to each other near zero.

    Level q of `bits` bits stands for sign(q) ((1 + alpha)^(|q| / L) - 1) / alpha with
    L = 2^(bits - 1) - 1. Levels of this kind do not add up: each node adds values, and sends the
    level nearest to the sum. The error of a sum therefore grows with the number of hops, sums
    beyond one are clipped, and no masks can be added. No guard bits are needed.

    Attributes:
      bits: width on the wire, even, in [4, 16].
      alpha: of the logarithm, positive and finite; the larger, the finer the levels near zero.

    Raises:
      TypeError: if `alpha` is not real.
      ValueError: if an attribute is outside its domain.

    Reference: the quantiser of LQ-SGD, arXiv 2506.17974; alpha is our interpretation, the paper
    states no value. Requantising at every hop is ours as well.
    """

    bits: int = 8
    alpha: float = 10.0

    def __post_init__(self) -> None:
        checks.integer("bits", self.bits, 4, 16)
        if self.bits % 2:
            checks.refuse("bits", "be an even integer in [4, 16]", self.bits)
        checks.open_interval("alpha", self.alpha, 0.0, math.inf)

    @property
    def lanes(self) -> int:
        return lanes_of(self.bits)

    def encode(
        self, values: jax.Array, scale: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        return values

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        return mine + arrived

    def decode(self, payload: jax.Array, scale: ArrayLike) -> jax.Array:
        return payload

    def join(self, lanes: Sequence[jax.Array]) -> jax.Array:
        levels = [to_log_level(lane, self.bits, self.alpha).astype(jnp.int32) for lane in lanes]
        return join([lax.bitcast_convert_type(level, jnp.uint32) for level in levels], self.bits)

    def part(self, words: jax.Array) -> list[jax.Array]:
        levels = [
            wrap(lax.bitcast_convert_type(lane, jnp.int32), self.bits)
            for lane in part(words, self.bits)
        ]
        return [of_log_level(level.astype(jnp.float32), self.bits, self.alpha) for level in levels]
