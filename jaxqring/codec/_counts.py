"""Integers on the wire, whose sum is known to fit."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords
from jaxqring._types import Clip, NonFinite, Rounding
from jaxqring.codec._formats import FixedPoint


@dataclasses.dataclass(frozen=True)
class Counts(FixedPoint):
    """Integers that are sent as they are and add up mod 2^bits, in two's complement.

    `FixedPoint` keeps ceil(log2 N) guard bits, as it knows nothing of N levels but their width.
    Whoever knows the range of the sum needs only the bits of that: nine outcomes of a vote of eight
    nodes, each node voting 0 or 1 and every second one less by one, lie in [-4, 4] and take 4 bits
    where a level and its guard bits take 6. There is no scale, and nothing to agree on.

    A value that is no integer is rounded, one beyond [-2^(bits - 1), 2^(bits - 1) - 1] clipped and
    counted as saturated, and NaN is sent as zero. That a sum fits is up to the caller; one that
    does not wraps around.

    Attributes:
      bits: width on the wire, even, in [2, 32]. Integers beyond 2^24 are not all floats.

    Raises:
      ValueError: if `bits` is outside its domain.

    >>> Counts.for_sums(4), Counts.for_sums(8)
    (Counts(bits=4), Counts(bits=6))
    """

    bits: int = 16
    clip: Clip = dataclasses.field(init=False, default=1.0, repr=False)
    rounding: Rounding = dataclasses.field(init=False, default="nearest", repr=False)
    scale: Literal["leaf", "payload"] | int = dataclasses.field(
        init=False, default="payload", repr=False
    )
    non_finite: NonFinite = dataclasses.field(init=False, default="clip", repr=False)
    liars: int = dataclasses.field(init=False, default=0, repr=False)

    @classmethod
    def for_sums(cls, most: int) -> "Counts":
        """The narrowest format for sums of magnitude `most` or less.

        Raises:
          TypeError: if `most` is not an integer.
          ValueError: if it is below 1 or above 2^23 - 1, where float32 loses integers.
        """
        most = checks.integer("most", most, 1, 2**23 - 1)
        width = most.bit_length() + 1
        return cls(width + width % 2)

    def level_bits(self, num_terms: int) -> int:
        return self.bits

    def fixed_power(self, num_terms: int) -> np.int32:
        return np.int32(0)

    def in_units(self, num_terms: int) -> "Counts":
        return self

    def encode(
        self, values: jax.Array, scale: ArrayLike, num_terms: int, key: KeyWords | None = None
    ) -> jax.Array:
        levels = jnp.round(jnp.where(jnp.isnan(values), np.float32(0), values))
        return jnp.clip(levels, self._least, self.limit(num_terms)).astype(jnp.int32)

    def saturates(self, values: jax.Array, scale: ArrayLike, num_terms: int) -> jax.Array:
        return (values < self._least) | (values > self.limit(num_terms))

    @property
    def _least(self) -> np.float32:
        return -np.float32(2.0 ** (self.bits - 1))
