"""GAS: gradients are cut into parts, and scored by their distance from a rule on every part."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.robust._rule import Aggregate, Rule, check_liars, norms, share


@dataclasses.dataclass(frozen=True)
class GAS(Rule):
    """The mean of the n - f vectors that are nearest to a base rule, part by part.

    Coordinates are permuted and cut into `parts` parts of equal length (the last one filled up with
    zeros, which count for nothing). A base rule aggregates every part; the score of a vector is the
    sum of the distances of its parts from those aggregates. Liars that hide in many coordinates,
    each by a little, add up.

    Attributes:
      rule: the base rule.
      parts: p.
      liars: f, less than half of the vectors.
      permute: whether coordinates are permuted, freshly by every key.

    Raises:
      TypeError: if `rule` is not a Rule.
      ValueError: if a count is out of its domain, or the rule begins with the last aggregate.

    Reference: Liu, Chen, Lyu, Wu, Wu and Chen, ICML 2023.

    >>> from jaxqring.robust import Median
    >>> x = jnp.array([[1.0, 2.0], [1.5, 2.5], [2.0, 3.0], [1.5, -9.0]])
    >>> GAS(Median(), parts=2, liars=1)(x, jax.random.key(0)).value
    Array([1.5, 2.5], dtype=float32)
    """

    rule: Rule
    parts: int
    liars: int
    permute: bool = True

    def __post_init__(self) -> None:
        checks.instance("rule", self.rule, Rule)
        if self.rule.remembers:
            rule = "be one that does not begin with the last aggregate, which has no parts"
            checks.refuse("rule", rule, self.rule)
        checks.integer("parts", self.parts)
        checks.integer("liars", self.liars, 0)
        checks.one_of("permute", self.permute, (True, False))

    @property
    def draws(self) -> bool:
        return self.permute or self.rule.draws

    def check(self, count: int) -> None:
        most = (count - 1) // 2
        check_liars("GAS", self.liars, count, most, "most vectors must be honest")
        self.rule.check(count)

    def scores(self, x: jax.Array, key: Key | None = None) -> jax.Array:
        """(n,) the sums of distances of vectors (n, P) from the base rule, over the parts."""
        if self.draws:
            checks.prng_key("key", key)
        order, base = (None, None) if key is None else tuple(jax.random.split(key))
        if self.permute:
            x = x[:, jax.random.permutation(order, x.shape[1])]
        length = -(-x.shape[1] // self.parts)
        filled = jnp.pad(x, ((0, 0), (0, length * self.parts - x.shape[1])))
        parts = jnp.moveaxis(filled.reshape(-1, self.parts, length), 1, 0)
        inner = base if self.rule.draws else None
        bases = jax.vmap(lambda part: self.rule.aggregate(part, inner, None).value)(parts)
        return jnp.sum(norms(parts - bases[:, None]), axis=0)

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        count = x.shape[0]
        kept = jnp.argsort(self.scores(x, key), stable=True)[: count - self.liars]
        return Aggregate(jnp.mean(x[kept], axis=0), share(self.liars / count))
