"""Codes: integers that stand for the values of a tensor, given its scale.

Every code has `encode(x, scale)` and `decode(codes, scale)`, pure functions of arrays. Codes are
integer-valued float32, as the ring takes floats; a scale is positive and broadcasts against them.
Where the scale is zero so is the tensor: all codes are zero and decode to zero. Those that round by
chance take the uniform numbers as an argument, so that an expectation can be computed exactly.

A derivative takes the place of rounding by a straight line of slope one (`straight_through`).
`Sign` has none: it is refused.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.codec._formats import power_of_two
from jaxqring.codec._log_levels import of_log_level, to_log_level


@jax.custom_jvp
def straight_through(value: jax.Array, coded: jax.Array) -> jax.Array:
    """`coded`, with the derivative of `value`."""
    return coded


@straight_through.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return primals[1], tangents[0]


@jax.custom_jvp
def without_derivative(value: jax.Array) -> jax.Array:
    """The value, which refuses to be differentiated."""
    return value


def _refuse_derivative(primals: tuple, tangents: tuple) -> tuple:
    if not isinstance(tangents[0], SymbolicZero):
        raise ValueError(
            "`x` must not be differentiated through signs, whose derivative is zero wherever there"
            ' is one, but got a derivative: use the estimators "score" or "russo", finite'
            " differences, or `jax.lax.stop_gradient` to hold the signs fixed."
        )
    return primals[0], tangents[0]


without_derivative.defjvp(_refuse_derivative, symbolic_zeros=True)


def _fraction(x: jax.Array, scale: ArrayLike) -> jax.Array:
    """`x / scale`, zero where the scale is."""
    scale = jnp.asarray(scale, jnp.float32)
    return jnp.where(scale > 0, x / jnp.where(scale > 0, scale, 1), 0)


def within(value: jax.Array, most: ArrayLike) -> jax.Array:
    """The value, clipped to a magnitude; the derivative is one up to that, and zero beyond.

    That of `jnp.clip` is a half where the value is the magnitude itself, as the largest one of a
    leaf is.
    """
    return jnp.where(jnp.abs(value) > most, jnp.sign(value) * jnp.float32(most), value)


def unit_near(peak: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Powers of two (...) float32 near positive numbers (...), and one over them.

    Values divided by the largest of them have squares that neither overflow nor vanish. A division
    by the largest itself would not do: one over it may be subnormal, and count as zero.
    """
    field = lax.bitcast_convert_type(lax.stop_gradient(peak), jnp.int32) >> 23
    power = jnp.clip(field - 127, -126, 126)
    return power_of_two(power), power_of_two(-power)


def _rounded_by_chance(level: jax.Array, uniform: jax.Array) -> jax.Array:
    """The integer below or above, above with the fractional part as its probability."""
    low = jnp.floor(level)
    return low + (uniform < level - low)


@dataclasses.dataclass(frozen=True)
class Linear:
    """Evenly spaced levels from -scale to scale: zero and L = 2^(bits - 1) - 1 on either side.

    Attributes:
      bits: of a code, in [2, 24].

    Raises:
      ValueError: if `bits` is not an integer in its interval.

    >>> code = Linear(8)
    >>> code.encode(jnp.array([1.0, -0.5]), 1.0)
    Array([127., -64.], dtype=float32)
    """

    bits: int

    def __post_init__(self) -> None:
        checks.integer("bits", self.bits, 2, 24)

    @property
    def most(self) -> int:
        """The largest code, L."""
        return 2 ** (self.bits - 1) - 1

    def encode(self, x: jax.Array, scale: ArrayLike) -> jax.Array:
        """Codes (...) float32 of x (...), clipped to the scale; rounded half to even."""
        fraction = within(_fraction(x, scale), 1) * self.most
        return straight_through(fraction, jnp.round(fraction))

    def decode(self, codes: jax.Array, scale: ArrayLike) -> jax.Array:
        """Values (...) float32 of codes (...)."""
        return codes * (scale / np.float32(self.most))


@struct.dataclass
class Logarithmic:
    """Levels that lie close to each other near zero; see `jaxqring.codec.LogLevels`.

    Codes of this kind do not add up: the mean of the codes of 1 and 0 decodes to 0.23, not to 0.5.

    Attributes:
      bits: of a code, in [2, 16].
      alpha: of the logarithm, positive; may be traced.

    Raises:
      ValueError: if `bits` is not an integer in its interval, or a concrete `alpha` not positive.

    Reference: LQ-SGD, arXiv 2506.17974, which leaves alpha open; 10 is our choice.

    >>> code = Logarithmic(8)
    >>> codes = code.encode(jnp.array([0.5, -0.01]), 1.0)
    >>> codes, code.decode(codes, 1.0)
    (Array([95., -5.], dtype=float32), Array([ 0.501..., -0.0099...], dtype=float32))
    """

    bits: int = struct.field(pytree_node=False)
    alpha: ArrayLike = 10.0

    def __post_init__(self) -> None:
        if type(self.bits) is int:
            checks.integer("bits", self.bits, 2, 16)
        check_positive("alpha", self.alpha)

    @property
    def most(self) -> int:
        """The largest code."""
        return 2 ** (self.bits - 1) - 1

    def encode(self, x: jax.Array, scale: ArrayLike) -> jax.Array:
        """Codes (...) float32 of x (...), the nearest in the logarithmic domain."""
        fraction = _fraction(x, scale)
        return straight_through(fraction, to_log_level(fraction, self.bits, self.alpha))

    def decode(self, codes: jax.Array, scale: ArrayLike) -> jax.Array:
        """Values (...) float32 of codes (...); the derivative is that of the values encoded."""
        scale = jnp.asarray(scale)
        size = scale * of_log_level(jnp.abs(codes), self.bits, self.alpha)
        # The sign comes last: a product with it is exact, so that a compiler that fuses it with a
        # sum or a difference changes nothing.
        return straight_through(codes * scale, jnp.sign(codes) * size)


@struct.dataclass
class Ternary:
    """-1, 0 or 1 by chance: sign(x), with probability |x| / scale. Unbiased for |x| <= scale.

    Attributes:
      clip_sigma: the scale of a tensor is this many standard deviations, and larger values count
        as that much; None for the largest magnitude.

    Raises:
      ValueError: if a concrete `clip_sigma` is not positive.

    Reference: Wen et al., TernGrad, NeurIPS 2017.

    >>> Ternary(None).encode(jnp.array([0.3, -0.7]), 0.7, uniform=jnp.array([0.5, 0.5]))
    Array([ 0., -1.], dtype=float32)
    """

    clip_sigma: ArrayLike | None = 2.5

    def __post_init__(self) -> None:
        if self.clip_sigma is not None:
            check_positive("clip_sigma", self.clip_sigma)

    def scale(self, x: jax.Array) -> jax.Array:
        """() float32 the scale of a tensor of any shape: central, population standard deviation.

        A single value, which has none, is its own scale.
        """
        peak = jnp.max(jnp.abs(x))
        if self.clip_sigma is None or x.size == 1:
            return peak
        unit, inverse = unit_near(peak)  # so that squares do not overflow before values do
        return unit * jnp.std(x * inverse) * jnp.asarray(self.clip_sigma)

    def encode(self, x: jax.Array, scale: ArrayLike, uniform: jax.Array) -> jax.Array:
        """Codes (...) float32 of x (...), with uniform (...) numbers in [0, 1)."""
        fraction = within(_fraction(x, scale), 1)
        return straight_through(fraction, jnp.sign(x) * (uniform < jnp.abs(fraction)))

    def decode(self, codes: jax.Array, scale: ArrayLike) -> jax.Array:
        """Values (...) float32 of codes (...), or of their sum."""
        return codes * scale


@dataclasses.dataclass(frozen=True)
class Levels:
    """The magnitudes 0, 1, ..., count in units of scale / count, rounded by chance. Unbiased.

    Attributes:
      count: levels above zero, at least 1.

    Raises:
      ValueError: if `count` is not an integer in [1, 2^22].

    Reference: Alistarh et al., QSGD, NeurIPS 2017.

    >>> Levels(4).encode(jnp.array([3.0, 4.0]), 5.0, uniform=jnp.array([0.5, 0.5]))
    Array([2., 3.], dtype=float32)
    """

    count: int

    def __post_init__(self) -> None:
        checks.integer("count", self.count, 1, 2**22)

    def encode(self, x: jax.Array, scale: ArrayLike, uniform: jax.Array) -> jax.Array:
        """Codes (...) float32 of x (...), with uniform (...) numbers in [0, 1)."""
        level = within(_fraction(x, scale), 1) * self.count
        return straight_through(level, jnp.sign(x) * _rounded_by_chance(jnp.abs(level), uniform))

    def decode(self, codes: jax.Array, scale: ArrayLike) -> jax.Array:
        """Values (...) float32 of codes (...), or of their sum."""
        return codes * (scale / np.float32(self.count))


@dataclasses.dataclass(frozen=True)
class Sign:
    """-1, 0 or 1: the sign alone. Without a derivative, which is refused.

    >>> Sign().encode(jnp.array([0.3, -0.7, 0.0]))
    Array([ 1., -1.,  0.], dtype=float32)
    """

    def encode(self, x: jax.Array, scale: ArrayLike = 1.0) -> jax.Array:
        """Codes (...) float32 of x (...)."""
        return jnp.sign(without_derivative(x))

    def decode(self, codes: jax.Array, scale: ArrayLike = 1.0) -> jax.Array:
        """Values (...) float32 of codes (...): the scale, with the sign of a code or of a sum."""
        return jnp.sign(without_derivative(codes)) * scale


def check_positive(name: str, value: Any) -> None:
    """Refuses a concrete number that is not positive and finite; see `_is_known`.

    Raises:
      ValueError: if the number is not positive and finite.
    """
    if _is_known(value):
        numbers = checks.numbers(name, value)
        if not np.all((numbers > 0) & (numbers < math.inf)):
            checks.refuse(name, "be positive and finite", value)


def check_decay(name: str, value: Any) -> None:
    """Refuses a concrete number outside [0, 1); see `_is_known`.

    Raises:
      ValueError: if the number is outside.
    """
    if _is_known(value):
        numbers = checks.numbers(name, value)
        if not np.all((numbers >= 0) & (numbers < 1)):
            checks.refuse(name, "lie in [0, 1)", value)


def _is_known(value: Any) -> bool:
    """True for concrete numbers: JAX rebuilds a pytree with whatever it has put into its leaves."""
    if isinstance(value, jax.Array):
        return not checks.is_traced(value)
    return isinstance(value, int | float | np.ndarray | np.generic)
