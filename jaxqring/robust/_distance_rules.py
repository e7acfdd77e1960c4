"""Rules that look at the distances of vectors, and ways to mix vectors before a rule."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.robust._rule import Aggregate, Rule, check_liars, share, square_distances


@dataclasses.dataclass(frozen=True)
class Krum(Rule):
    """The vector whose n - f - 2 nearest others are nearest, by the sum of squared distances.

    With `select` m the mean of the m vectors of least score, multi-Krum. The guarantee of the paper
    needs n > 2 f + 2; fewer vectors are taken, down to f + 3, where a score has one term. (A
    library in use counts n - f - 1 neighbours; the paper has n - f - 2.)

    Attributes:
      liars: f.
      select: m, in [1, n - f].

    Raises:
      ValueError: if an attribute is no integer of its domain.

    Reference: Blanchard, El Mhamdi, Guerraoui and Stainer, NeurIPS 2017.

    >>> Krum(1)(jnp.array([[1.0], [1.1], [1.3], [90.0]])).value
    Array([1.], dtype=float32)
    """

    liars: int
    select: int = 1

    def __post_init__(self) -> None:
        checks.integer("liars", self.liars, 0)
        checks.integer("select", self.select)

    def check(self, count: int) -> None:
        check_liars("Krum", self.liars, count, count - 3, "a score needs n - f - 2 neighbours")
        checks.integer("select", self.select, 1, count - self.liars)

    def scores(self, x: jax.Array) -> jax.Array:
        """(n,) the sums of squared distances of vectors (n, P) to their nearest others."""
        count = x.shape[0]
        itself = jnp.eye(count, dtype=bool)
        others = jnp.sort(jnp.where(itself, jnp.inf, square_distances(x)), axis=1)
        return jnp.sum(others[:, : count - self.liars - 2], axis=1)

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        chosen = jnp.argsort(self.scores(x), stable=True)[: self.select]
        return Aggregate(jnp.mean(x[chosen], axis=0), share(1 - self.select / x.shape[0]))


@dataclasses.dataclass(frozen=True)
class NearestNeighbourMixing(Rule):
    """Any rule, on vectors each of which is first the mean of its n - f nearest, itself included.

    Attributes:
      rule: that aggregates the mixed vectors.
      liars: f, less than half of the vectors.

    Raises:
      TypeError: if `rule` is not a Rule.
      ValueError: if `liars` is no integer of at least 0.

    Reference: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, AISTATS 2023.

    >>> from jaxqring.robust import Median
    >>> NearestNeighbourMixing(Median(), 1)(jnp.array([[1.0], [2.0], [3.0], [90.0]])).value
    Array([2.], dtype=float32)
    """

    rule: Rule
    liars: int

    def __post_init__(self) -> None:
        checks.instance("rule", self.rule, Rule)
        checks.integer("liars", self.liars, 0)

    @property
    def draws(self) -> bool:
        return self.rule.draws

    @property
    def remembers(self) -> bool:
        return self.rule.remembers

    def check(self, count: int) -> None:
        most = (count - 1) // 2
        check_liars("mixing", self.liars, count, most, "most neighbours must be honest")
        self.rule.check(count)

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        kept = x.shape[0] - self.liars
        count = x.shape[0]
        nearest = jnp.argsort(square_distances(x), axis=1, stable=True)[:, :kept]
        parts = jnp.zeros((count, count), x.dtype).at[jnp.arange(count)[:, None], nearest].set(1)
        mixed = jnp.matmul(parts / kept, x, precision="highest")
        return self.rule.aggregate(mixed, key, state)


@dataclasses.dataclass(frozen=True)
class Bucketing(Rule):
    """Any rule, on the means of buckets of s vectors, dealt out at random in every step.

    The last bucket is smaller where s does not divide n. f liars spoil up to f buckets.

    Attributes:
      rule: that aggregates the means.
      size: s.

    Raises:
      TypeError: if `rule` is not a Rule.
      ValueError: if `size` is no integer of at least 1.

    Reference: Karimireddy, He and Jaggi, ICLR 2022.

    >>> from jaxqring.robust import Median
    >>> x = jnp.array([[1.0], [1.0], [1.0], [1.0], [1.0], [90.0]])
    >>> Bucketing(Median(), 2)(x, jax.random.key(0)).value
    Array([1.], dtype=float32)
    """

    rule: Rule
    size: int = 2

    def __post_init__(self) -> None:
        checks.instance("rule", self.rule, Rule)
        checks.integer("size", self.size)

    @property
    def draws(self) -> bool:
        return True

    @property
    def remembers(self) -> bool:
        return self.rule.remembers

    def check(self, count: int) -> None:
        self.rule.check(-(-count // self.size))

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        assert key is not None  # `__call__` has refused that
        count = x.shape[0]
        buckets = -(-count // self.size)
        deal, inner = jax.random.split(key)
        order = jax.random.permutation(deal, count)
        spare = ((0, buckets * self.size - count), (0, 0))
        rows = jnp.pad(x[order], spare).reshape(buckets, self.size, -1)
        filled = jnp.minimum(self.size, count - self.size * jnp.arange(buckets))
        means = jnp.sum(rows, axis=1) / filled[:, None]
        return self.rule.aggregate(means, inner if self.rule.draws else None, state)
