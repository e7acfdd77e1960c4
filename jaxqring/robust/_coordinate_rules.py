"""Rules that take every coordinate by itself: the mean, the median and the trimmed mean."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.robust._rule import Aggregate, Rule, check_liars, in_order, middle, share


@dataclasses.dataclass(frozen=True)
class Mean(Rule):
    """The mean, which a single liar puts where it likes: the yardstick of the others.

    >>> Mean()(jnp.array([[1.0, 2.0], [3.0, 6.0]])).value
    Array([2., 4.], dtype=float32)
    """

    def check(self, count: int) -> None:
        checks.integer("count", count)

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        return Aggregate(jnp.mean(x, axis=0), share(0))


@dataclasses.dataclass(frozen=True)
class Median(Rule):
    """The median of every coordinate; of an even number of vectors the mean of the middle two.

    Reference: Yin, Chen, Kannan and Bartlett, ICML 2018.

    >>> Median()(jnp.array([[1.0], [2.0], [90.0]])).value
    Array([2.], dtype=float32)
    """

    def check(self, count: int) -> None:
        checks.integer("count", count)

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        used = 1 if x.shape[0] % 2 else 2
        return Aggregate(middle(x), share(1 - used / x.shape[0]))


@dataclasses.dataclass(frozen=True)
class TrimmedMean(Rule):
    """The mean of every coordinate without its f smallest and its f largest numbers.

    Attributes:
      liars: f, less than half of the vectors.

    Raises:
      ValueError: if `liars` is no integer of at least 0.

    Reference: Yin, Chen, Kannan and Bartlett, ICML 2018.

    >>> TrimmedMean(1)(jnp.array([[1.0], [2.0], [90.0], [4.0]])).value
    Array([3.], dtype=float32)
    """

    liars: int

    def __post_init__(self) -> None:
        checks.integer("liars", self.liars, 0)

    def check(self, count: int) -> None:
        most = (count - 1) // 2
        check_liars("a trimmed mean", self.liars, count, most, "2 f are cut off")

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        count = x.shape[0]
        kept = in_order(x)[self.liars : count - self.liars]
        return Aggregate(jnp.mean(kept, axis=0), share(2 * self.liars / count))
