"""Conversion of floats to levels to packed two-bit symbols, and back.

A `WireFormat` defines how a node writes a vector of float32 for its links. The integers that a
`FixedPoint` format sends are its levels; the value of one level is the scale, which float formats
ignore. A ring divides every block of values by its own scale, agreed by all nodes, and then sends
them with a scale of one. A payload is packed in `lanes` runs of equal length, so that all
arithmetic along the ring is on contiguous vectors and no level is ever shuffled. Packed words are
uint32 and hold 16 symbols each; symbol j of a word is its bits (2j + 1, 2j).
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, random_words
from jaxqring._types import Clip, NonFinite, Rounding
from jaxqring.codec._packing import join, lanes_of, part, wrap

#: Bits of the exponent of a scale, as a node sends it for a robust clip: one of the 255 that
#: `FixedPoint.powers` may give, or the mark of a block that is not finite.
EXPONENT_BITS = 8


class WireFormat(Protocol):
    """The interface of a format of numbers on the wire: `FixedPoint`, `Float32` or `BFloat16`.

    A payload is an array of the type that nodes add up; lanes are payloads of equal length.
    """

    @property
    def bits(self) -> int:
        """Width of one number on the wire."""

    @property
    def lanes(self) -> int:
        """Number of lanes that `join` packs."""

    def encode(
        self, values: jax.Array, scale: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        """Converts float32 values to a payload.

        Args:
          values: (...) float32.
          scale: () value of one level, a power of two.
          num_terms: number of payloads that will be added.
          key: of `random_words`, needed for stochastic rounding.

        Returns:
          (...) payload.
        """

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        """Adds this node's payload to one that arrived."""

    def decode(self, payload: jax.Array, scale: ArrayLike) -> jax.Array:
        """Converts a payload to float32 values."""

    def join(self, lanes: Sequence[jax.Array]) -> jax.Array:
        """Packs lanes without gaps into uint32 words."""

    def part(self, words: jax.Array) -> list[jax.Array]:
        """Unpacks words into lanes: the inverse of `join`."""


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """Integer levels of `bits` bits in two's complement; all arithmetic is mod 2^bits.

    A sum of N levels needs guard bits: a node's own levels have bits - ceil(log2 N) bits, so that
    an error-free sum cannot overflow. The value of one level is the smallest power of two that
    fits: multiplying by it is exact in floating point, so that results do not depend on how a
    compiler fuses the program around them. That costs less than one bit of resolution.

    Every block of values has a scale of its own, so that a small layer arrives as well as a large
    one: one level is worth at most 2 / (2^(b - 1) - 1) of the largest magnitude in its block, with
    b bits left beside the guard bits.

    Attributes:
      bits: width on the wire, even, in [2, 32].
      clip: "max" to fit the largest magnitude of a block on any node (agreed over the control
        channel); "robust" to fit the (liars + 1)-th largest of the nodes; or a positive number for
        all blocks. Values outside are clipped and counted.
      rounding: "nearest" (ties to even), or "stochastic", which is unbiased.
      scale: the size of a block: "leaf" for each leaf of the pytree; an integer for runs of that
        many values of a leaf, in its memory order (of each node's part of it in a
        `psum_scatter`); "payload" for the whole pytree.
      non_finite: treatment of NaN and infinities. "propagate": a block with one of them on any
        node is NaN on every node. "clip": NaN is sent as 0, an infinity as the largest level of
        its block. A mean is finite where all values are; a sum beyond the type of its leaf is
        infinite with "propagate", and the largest number of the type with "clip".
      liars: f, the number of nodes that may lie about their magnitudes, for `clip="robust"`; below
        half of the nodes.

    With "max" one number of one node sets the scale of a block for all: an entry of 1e30 has the
    values of the others sent as zero, and a NaN loses the block. With "robust" each node sends the
    exponent of its own block to all, in 8 bits, and all take the (f + 1)-th largest. Whatever f
    nodes say, that lies between the (f + 1)-th largest and the largest exponent of the others: they
    can be saturated, but not silence anybody. The price is that values of up to f honest nodes are
    clipped to the magnitude of the next one, and that every node learns the exponents of all, under
    masks too. Under "propagate" a block is NaN where more than f nodes have a NaN or an infinity
    in it; those of up to f nodes are sent as with "clip", and counted. Simplification: a node says
    the same to all; against one that does not, and against relays, there is `jaxqring.control`.

    Raises:
      ValueError: if an attribute is outside its domain, or there are liars without "robust".

    >>> FixedPoint(8).level_bits(4)
    6
    """

    bits: int = 16
    clip: Clip = "max"
    rounding: Rounding = "nearest"
    scale: Literal["leaf", "payload"] | int = "leaf"
    non_finite: NonFinite = "propagate"
    liars: int = 0

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits % 2 or not 2 <= self.bits <= 32:
            checks.refuse("bits", "be an even integer in [2, 32]", self.bits)
        info = np.finfo(np.float32)
        is_number = isinstance(self.clip, int | float) and not isinstance(self.clip, bool)
        if is_number and 0 < float(self.clip) < math.inf:
            checks.within("clip", float(self.clip), float(info.tiny), float(info.max))
        elif not (isinstance(self.clip, str) and self.clip in ("max", "robust")):
            checks.refuse("clip", 'be "max", "robust" or a positive finite number', self.clip)
        checks.integer("liars", self.liars, 0)
        if self.liars and self.clip != "robust":
            checks.refuse("liars", 'be 0 unless `clip` is "robust"', self.liars)
        checks.one_of("rounding", self.rounding, get_args(Rounding))
        if type(self.scale) is int:
            checks.integer("scale", self.scale, 1)
        elif not (isinstance(self.scale, str) and self.scale in ("leaf", "payload")):
            checks.refuse("scale", 'be "leaf", "payload" or an integer', self.scale)
        checks.one_of("non_finite", self.non_finite, get_args(NonFinite))

    def level_bits(self, num_terms: int) -> int:
        """Number of bits left for one node's levels when `num_terms` of them are added.

        Raises:
          ValueError: if fewer than two are left.
        """
        left = self.bits - (num_terms - 1).bit_length()
        if left < 2:
            rule = (
                f"be at least {self.bits + 2 - left + (self.bits - left) % 2} for {num_terms}"
                f" nodes, {self.bits - left} guard bits and 2 bits for a level"
            )
            checks.refuse("wire.bits", rule, self.bits)
        return left

    def check_liars(self, num_nodes: int) -> None:
        """Refuses more liars than a ring of N nodes can outvote.

        Raises:
          ValueError: if they are half of the nodes or more.
        """
        if 2 * self.liars >= num_nodes and self.liars:
            checks.refuse("wire.liars", f"be below half of the {num_nodes} nodes", self.liars)

    @property
    def has_fixed_clip(self) -> bool:
        """True if `clip` is a number, so that nodes agree on no scale."""
        return not isinstance(self.clip, str)

    def code_bits(self, num_terms: int) -> int:
        """The earlier name of `level_bits`; gone with release 0.3."""
        warnings.warn(
            "`FixedPoint.code_bits` is `FixedPoint.level_bits` now; the old name goes with release"
            " 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.level_bits(num_terms)

    def limit(self, num_terms: int) -> np.float32:
        """The largest level of one node, as the nearest float32 that does not exceed it."""
        top = np.float32(2.0 ** (self.level_bits(num_terms) - 1))
        exact = float(top) - 1
        return np.float32(exact) if np.float32(exact) < top else np.nextafter(top, np.float32(0))

    def scale_of(self, peak: jax.Array, num_terms: int) -> jax.Array:
        """The value of one level: the least power of two whose largest level reaches `peak`.

        Args:
          peak: (...) float32, the largest finite magnitude on any node.
          num_terms: number of levels that will be added.

        Simplification: at most 2^126, so that its inverse is a normal number. Levels of two or
        three bits saturate on the largest floats; a ring uses `powers`, which has no such limit.
        """
        bits = lax.bitcast_convert_type(jnp.asarray(peak, jnp.float32), jnp.int32)
        return power_of_two(jnp.minimum(self.powers(bits, num_terms), 126))

    def powers(self, peaks: jax.Array, num_terms: int) -> jax.Array:
        """Exponents (...) int32 in [-126, 128] of the value of one level.

        Args:
          peaks: (...) int32, the bits of the largest finite magnitudes.
          num_terms: number of levels that will be added.
        """
        width = self.level_bits(num_terms)
        fraction = (peaks & np.int32(0x7FFFFF)) | np.int32(126 << 23)  # in [1/2, 1)
        fits = lax.bitcast_convert_type(fraction, jnp.float32) <= self._reach(num_terms)
        power = (peaks >> 23) - 126 - (width - 1) + jnp.where(fits, 0, 1)
        # Below, the value of one level would be subnormal, and be flushed to zero.
        return jnp.maximum(power, -126)

    def _reach(self, num_terms: int) -> np.float32:
        """The largest level, as a fraction of the power of two above it."""
        return self.limit(num_terms) / np.float32(2.0 ** (self.level_bits(num_terms) - 1))

    def fixed_power(self, num_terms: int) -> np.int32:
        """The exponent of the value of one level if `clip` is a number; see `powers`."""
        fraction, exponent = math.frexp(np.float32(self.clip))
        power = exponent - (self.level_bits(num_terms) - 1) + int(fraction > self._reach(num_terms))
        return np.int32(max(power, -126))

    def in_units(self, num_terms: int) -> "FixedPoint":
        """The format for values that have been divided by the value of one level."""
        if not self.has_fixed_clip:
            return self
        clip = math.ldexp(float(np.float32(self.clip)), -int(self.fixed_power(num_terms)))
        return dataclasses.replace(self, clip=clip)

    def encode(
        self, values: jax.Array, scale: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        """Converts float32 values to int32 levels; NaN becomes 0, infinities are clipped.

        Args:
          values: (...) float32.
          scale: () value of one level, a power of two.
          num_terms: number of levels that will be added.
          key: of `random_words`, needed for stochastic rounding.
        """
        limit = self.limit(num_terms)
        inverse = power_of_two(127 - _exponent_field(scale))
        levels = jnp.where(jnp.isnan(values), np.float32(0), values)
        if self.has_fixed_clip:
            levels = jnp.clip(levels, -np.float32(self.clip), np.float32(self.clip))
        levels = levels * inverse
        if self.rounding == "nearest":
            levels = jnp.round(levels)
        else:
            assert key is not None
            # Compared, not added: the sum of level and uniform would be rounded before the floor.
            low = jnp.floor(levels)
            bits = random_words(key, levels.size).reshape(levels.shape)
            uniform = (bits >> 8).astype(jnp.int32).astype(jnp.float32) * np.float32(2.0**-24)
            levels = low + (uniform < levels - low).astype(levels.dtype)
        return jnp.clip(levels, -limit, limit).astype(jnp.int32)

    def saturates(self, values: jax.Array, scale: ArrayLike, num_terms: int) -> jax.Array:
        """True (...) where a value is clipped."""
        edge = np.float32(self.clip) if self.has_fixed_clip else self.limit(num_terms) * scale
        return jnp.abs(values) > edge

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        return wrap(mine + arrived, self.bits)

    def decode(self, payload: jax.Array, scale: ArrayLike) -> jax.Array:
        # Clipped, because the level nearest to a value at the end of float32 may lie beyond it.
        top = jnp.finfo(jnp.float32).max
        return jnp.clip(payload.astype(jnp.float32) * scale, -top, top)

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
        self, values: jax.Array, scale: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        return values

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        return mine + arrived

    def decode(self, payload: jax.Array, scale: ArrayLike) -> jax.Array:
        return payload

    def join(self, lanes: Sequence[jax.Array]) -> jax.Array:
        return lax.bitcast_convert_type(lanes[0], jnp.uint32)

    def part(self, words: jax.Array) -> list[jax.Array]:
        return [lax.bitcast_convert_type(words, jnp.float32)]


@dataclasses.dataclass(frozen=True)
class BFloat16:
    """bfloat16; each node adds in float32 and rounds to nearest before it sends the sum on."""

    bits: int = dataclasses.field(default=16, init=False)
    lanes: int = dataclasses.field(default=2, init=False, repr=False)

    def encode(
        self, values: jax.Array, scale: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        return values.astype(jnp.bfloat16)

    def add(self, mine: jax.Array, arrived: jax.Array) -> jax.Array:
        return (mine.astype(jnp.float32) + arrived.astype(jnp.float32)).astype(jnp.bfloat16)

    def decode(self, payload: jax.Array, scale: ArrayLike) -> jax.Array:
        return payload.astype(jnp.float32)

    def join(self, lanes: Sequence[jax.Array]) -> jax.Array:
        halves = [lax.bitcast_convert_type(lane, jnp.uint16) for lane in lanes]
        return join([half.astype(jnp.uint32) for half in halves], 16)

    def part(self, words: jax.Array) -> list[jax.Array]:
        halves = [half.astype(jnp.uint16) for half in part(words, 16)]
        return [lax.bitcast_convert_type(half, jnp.bfloat16) for half in halves]


def power_of_two(power: jax.Array) -> jax.Array:
    """Exact 2^power (...) in float32, for int32 powers in [-126, 127]."""
    return lax.bitcast_convert_type((power + 127) << 23, jnp.float32)


def _exponent_field(value: ArrayLike) -> jax.Array:
    """The biased exponent of a positive normal float32."""
    return lax.bitcast_convert_type(jnp.asarray(value, jnp.float32), jnp.int32) >> 23
