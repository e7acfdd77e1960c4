"""From floats to codes to packed two-bit symbols, and back.

A wire says how a node writes a vector of float32 for its links. Every wire has the same methods,
and a payload is an array of whatever the wire adds up:

    encode(values, step) -> payload     add(mine, arrived) -> payload     decode(payload, step)
    join(lanes) -> words                part(words) -> lanes

`step` is the value of one code of a `FixedPoint` wire; float wires ignore it. A ring divides every
block of values by its own, agreed by all nodes, and then sends them with a step of one. A payload
is packed in `lanes` runs of equal length, so that all arithmetic on the way is on contiguous
vectors and no code is ever shuffled. Words are uint32 and hold 16 symbols each; symbol j of a word
is its bits (2j + 1, 2j).
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, random_words
from jaxqring.codec._packing import join, lanes_of, part, wrap


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """Integer codes of `bits` bits in two's complement; all arithmetic is mod 2^bits.

    A sum of N codes needs guard bits: a node's own codes have bits - ceil(log2 N) bits, so that
    an error-free sum cannot overflow. One code is worth a power of two, the smallest that fits:
    multiplying by it is exact in floating point, so that results do not depend on how a compiler
    fuses the program around them. That costs less than one bit of resolution.

    Every block of values has a scale of its own, so that a small layer arrives as well as a large
    one: a code is worth at most 2 / (2^(b - 1) - 1) of the largest magnitude in its block, with b
    bits left beside the guard bits.

    Attributes:
      bits: width on the wire, even, in [2, 32].
      clip: "max" to fit the largest magnitude of a block on any node (agreed over the control
        channel), or a positive number for all blocks; what lies outside is clipped and counted.
      rounding: "nearest" (ties to even), or "stochastic", which is unbiased.
      scale: what is a block: "leaf" for each leaf of the pytree; an integer for runs of so many
        values of a leaf, in its memory order (of each node's part of it in a `psum_scatter`);
        "payload" for the whole pytree.
      non_finite: what becomes of NaN and infinities. "propagate": a block with one of them on any
        node is NaN on every node. "clip": NaN is sent as 0, an infinity as the largest code of its
        block. A mean is finite where all values are; a sum beyond the type of its leaf is infinite
        with "propagate", and the largest number of the type with "clip".

    Raises:
      ValueError: if one of them is something else.

    >>> FixedPoint(8).level_bits(4)
    6
    """

    bits: int = 16
    clip: str | float = "max"
    rounding: str = "nearest"
    scale: str | int = "leaf"
    non_finite: str = "propagate"

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits % 2 or not 2 <= self.bits <= 32:
            checks.refuse("bits", "be an even integer in [2, 32]", self.bits)
        info = np.finfo(np.float32)
        known = isinstance(self.clip, int | float) and not isinstance(self.clip, bool)
        if known and 0 < float(self.clip) < math.inf:
            checks.within("clip", float(self.clip), float(info.tiny), float(info.max))
        elif not (isinstance(self.clip, str) and self.clip == "max"):
            checks.refuse("clip", 'be "max" or a positive finite number', self.clip)
        checks.one_of("rounding", self.rounding, ("nearest", "stochastic"))
        if type(self.scale) is int:
            if self.scale < 1:
                checks.refuse("scale", "be positive where it is a number of values", self.scale)
        elif not (isinstance(self.scale, str) and self.scale in ("leaf", "payload")):
            checks.refuse("scale", 'be "leaf", "payload" or an integer', self.scale)
        checks.one_of("non_finite", self.non_finite, ("propagate", "clip"))

    def level_bits(self, num_terms: int) -> int:
        """Bits left for one node's codes when `num_terms` of them are added.

        Raises:
          ValueError: if fewer than two are left.
        """
        left = self.bits - (num_terms - 1).bit_length()
        if left < 2:
            rule = (
                f"be at least {self.bits + 2 - left + (self.bits - left) % 2} for {num_terms}"
                f" nodes, {self.bits - left} guard bits and 2 bits for a code"
            )
            checks.refuse("wire.bits", rule, self.bits)
        return left

    def limit(self, num_terms: int) -> np.float32:
        """The largest code of one node, as the nearest float32 that does not exceed it."""
        top = np.float32(2.0 ** (self.level_bits(num_terms) - 1))
        exact = float(top) - 1
        return np.float32(exact) if np.float32(exact) < top else np.nextafter(top, np.float32(0))

    def step(self, peak: jax.Array, num_terms: int) -> jax.Array:
        """The value of one code: the least power of two whose largest code reaches `peak`.

        Args:
          peak: (...) float32, the largest finite magnitude on any node.
          num_terms: how many codes will be added.

        Simplification: at most 2^126, so that its inverse is a normal number. Of two or three bits
        for a code, the largest floats then saturate; a ring uses `powers`, and has no such limit.
        """
        bits = lax.bitcast_convert_type(jnp.asarray(peak, jnp.float32), jnp.int32)
        return power_of_two(jnp.minimum(self.powers(bits, num_terms), 126))

    def powers(self, peaks: jax.Array, num_terms: int) -> jax.Array:
        """(...) int32 in [-126, 128], the exponent of the value of one code.

        Args:
          peaks: (...) int32, the bits of the largest finite magnitudes.
          num_terms: how many codes will be added.
        """
        width = self.level_bits(num_terms)
        fraction = (peaks & np.int32(0x7FFFFF)) | np.int32(126 << 23)  # in [1/2, 1)
        fits = lax.bitcast_convert_type(fraction, jnp.float32) <= self._reach(num_terms)
        power = (peaks >> 23) - 126 - (width - 1) + jnp.where(fits, 0, 1)
        # Below, one code would be subnormal, and be flushed to zero.
        return jnp.maximum(power, -126)

    def _reach(self, num_terms: int) -> np.float32:
        """The largest code, as a fraction of the power of two above it."""
        return self.limit(num_terms) / np.float32(2.0 ** (self.level_bits(num_terms) - 1))

    def fixed_power(self, num_terms: int) -> np.int32:
        """The exponent of the value of one code if `clip` is a number; see `powers`."""
        fraction, exponent = math.frexp(np.float32(self.clip))
        power = exponent - (self.level_bits(num_terms) - 1) + int(fraction > self._reach(num_terms))
        return np.int32(max(power, -126))

    def in_units(self, num_terms: int) -> "FixedPoint":
        """The wire of values that have been divided by the value of one code."""
        clip: str | float = "max"
        if self.clip != "max":
            clip = math.ldexp(float(np.float32(self.clip)), -int(self.fixed_power(num_terms)))
        return dataclasses.replace(self, clip=clip)

    def encode(
        self, values: jax.Array, step: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        """float32 values to int32 codes; NaN becomes 0, infinities are clipped.

        Args:
          values: (...) float32.
          step: () value of one code, a power of two.
          num_terms: how many codes will be added.
          key: of `random_words`, needed for stochastic rounding.
        """
        limit = self.limit(num_terms)
        inverse = power_of_two(127 - _exponent_field(step))
        codes = jnp.where(jnp.isnan(values), np.float32(0), values)
        if self.clip != "max":
            codes = jnp.clip(codes, -np.float32(self.clip), np.float32(self.clip))
        codes = codes * inverse
        if self.rounding == "nearest":
            codes = jnp.round(codes)
        else:
            assert key is not None
            # Compared, not added: the sum of code and uniform would be rounded before the floor.
            low = jnp.floor(codes)
            bits = random_words(key, codes.size).reshape(codes.shape)
            uniform = (bits >> 8).astype(jnp.int32).astype(jnp.float32) * np.float32(2.0**-24)
            codes = low + (uniform < codes - low).astype(codes.dtype)
        return jnp.clip(codes, -limit, limit).astype(jnp.int32)

    def saturates(self, values: jax.Array, step: ArrayLike, num_terms: int) -> jax.Array:
        """(...) bool, which values are clipped."""
        edge = self.limit(num_terms) * step if self.clip == "max" else np.float32(self.clip)
        return jnp.abs(values) > edge

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        return wrap(mine + arrived, self.bits)

    def decode(self, payload: jax.Array, step: ArrayLike) -> jax.Array:
        # Clipped, because the code nearest to a value at the end of float32 may lie beyond it.
        top = jnp.finfo(jnp.float32).max
        return jnp.clip(payload.astype(jnp.float32) * step, -top, top)

    @property
    def lanes(self) -> int:
        return lanes_of(self.bits)

    def join(self, lanes: Sequence[jax.Array]) -> jax.Array:
        return join([lax.bitcast_convert_type(lane, jnp.uint32) for lane in lanes], self.bits)

    def part(self, words: jax.Array) -> list[jax.Array]:
        lanes = part(words, self.bits)
        return [wrap(lax.bitcast_convert_type(lane, jnp.int32), self.bits) for lane in lanes]


@dataclasses.dataclass(frozen=True)
class Float32:
    """IEEE single precision as it is. An error delivers what the bits say, NaN included."""

    bits: int = dataclasses.field(default=32, init=False)
    lanes: int = dataclasses.field(default=1, init=False, repr=False)

    def encode(
        self, values: jax.Array, step: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        return values

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        return mine + arrived

    def decode(self, payload: jax.Array, step: ArrayLike) -> jax.Array:
        return payload

    def join(self, lanes: Sequence[jax.Array]) -> jax.Array:
        return lax.bitcast_convert_type(lanes[0], jnp.uint32)

    def part(self, words: jax.Array) -> list[jax.Array]:
        return [lax.bitcast_convert_type(words, jnp.float32)]


@dataclasses.dataclass(frozen=True)
class BFloat16:
    """bfloat16; each node adds in float32 and rounds to nearest before it sends on."""

    bits: int = dataclasses.field(default=16, init=False)
    lanes: int = dataclasses.field(default=2, init=False, repr=False)

    def encode(
        self, values: jax.Array, step: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        return values.astype(jnp.bfloat16)

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        return (mine.astype(jnp.float32) + arrived.astype(jnp.float32)).astype(jnp.bfloat16)

    def decode(self, payload: jax.Array, step: ArrayLike) -> jax.Array:
        return payload.astype(jnp.float32)

    def join(self, lanes: Sequence[jax.Array]) -> jax.Array:
        halves = [lax.bitcast_convert_type(lane, jnp.uint16) for lane in lanes]
        return join([half.astype(jnp.uint32) for half in halves], 16)

    def part(self, words: jax.Array) -> list[jax.Array]:
        halves = [half.astype(jnp.uint16) for half in part(words, 16)]
        return [lax.bitcast_convert_type(half, jnp.bfloat16) for half in halves]


Wire = FixedPoint | Float32 | BFloat16


def power_of_two(power: jax.Array) -> jax.Array:
    """(...) float32 2^power, exactly, for int32 powers in [-126, 127]."""
    return lax.bitcast_convert_type((power + 127) << 23, jnp.float32)


def _exponent_field(value: ArrayLike) -> jax.Array:
    """The biased exponent of a positive normal float32."""
    return lax.bitcast_convert_type(jnp.asarray(value, jnp.float32), jnp.int32) >> 23
