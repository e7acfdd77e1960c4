"""The interface of a rule of aggregation, and the arithmetic that several of them share."""

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import Key


class Aggregate(NamedTuple):
    """The result of a rule.

    Attributes:
      value: (P,) float32 what stands for the mean of the honest vectors.
      clipped: () float32 share of what came in that did not enter as it was: vectors that were
        clipped or left out, for a rule by coordinates the numbers.
    """

    value: jax.Array
    clipped: jax.Array


class Rule(abc.ABC):
    """A rule that aggregates n vectors of which some may be lies.

    Every rule is called in one way, `rule(x, key, state)`: with the vectors (n, P), with a key if
    it `draws`, and with the aggregate of the step before, which is all the state that any of them
    has. Rules are frozen dataclasses and pure functions, and can be compiled, mapped and, but for
    `Flag`, differentiated: where a rule chooses vectors or orders numbers, on the given choice.

    Numbers must be finite and below 2^120; `robust_pmean` sees to that.
    """

    @property
    def draws(self) -> bool:
        """True if the rule draws random numbers, so that a call needs a key."""
        return False

    @property
    def remembers(self) -> bool:
        """True if the rule begins with the aggregate of the step before; others ignore it."""
        return False

    @abc.abstractmethod
    def check(self, count: int) -> None:
        """Refuses a number of vectors that is too small for the rule.

        Raises:
          ValueError: if it is.
        """

    @abc.abstractmethod
    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        """The aggregate of vectors that have been checked; see `__call__`."""

    def __call__(
        self, x: jax.Array, key: Key | None = None, state: jax.Array | None = None
    ) -> Aggregate:
        """The aggregate of vectors.

        Args:
          x: (n, P) real vectors, one in each row; computed in float32 at least.
          key: typed PRNG key, another one in every step; for rules that draw.
          state: (P,) the aggregate of the step before; None in the first step.

        Returns:
          The aggregate.

        Raises:
          TypeError: if `x` is not floating, or `key` no typed key where one is needed.
          ValueError: if `x` or `state` is of another shape, or there are too few vectors.
        """
        checks.integer("x.ndim", jnp.ndim(x), 2, 2)
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            checks.refuse("x", "be real and floating", str(jnp.result_type(x)), TypeError)
        self.check(jnp.shape(x)[0])
        if self.draws or key is not None:
            checks.prng_key("key", key)
        if state is not None and jnp.shape(state) != jnp.shape(x)[1:]:
            rule = f"be one vector of shape {jnp.shape(x)[1:]}"
            checks.refuse("state", rule, jnp.shape(state))
        dtype = jnp.promote_types(jnp.result_type(x), jnp.float32)
        state = None if state is None else jnp.asarray(state, dtype)
        return self.aggregate(jnp.asarray(x, dtype), key, state)


def check_liars(name: str, liars: int, count: int, most: int, why: str) -> None:
    """Refuses a number of vectors for which a rule cannot bear so many liars.

    Args:
      name: of the rule.
      liars: f.
      count: n, the number of vectors.
      most: largest f that is allowed.
      why: the condition, in words.

    Raises:
      ValueError: if `liars` is above `most`.
    """
    if liars > most:
        rule = f"be at most {max(most, 0)} for {name} of {count} vectors, as {why}"
        checks.refuse("liars", rule, liars)


def norms(x: jax.Array) -> jax.Array:
    """(...) Euclidean norms of vectors (..., P), which neither overflow nor vanish early.

    The derivative at the zero vector is zero.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    unit = x / jnp.where(largest > 0, largest, 1)
    square = jnp.sum(unit * unit, axis=-1)
    root = jnp.sqrt(jnp.where(square > 0, square, 1))
    return jnp.where(square > 0, largest[..., 0] * root, 0)


def square_distances(x: jax.Array) -> jax.Array:
    """(n, n) squared distances between vectors (n, P).

    From differences: those of a Gram matrix lose all digits where one vector is huge.
    """
    return lax.map(lambda row: jnp.sum((x - row) ** 2, axis=-1), x)


def in_order(x: jax.Array) -> jax.Array:
    """(n, ...) the numbers of every column in ascending order.

    Neighbours are exchanged in turn, n/2 times the even and the odd pairs: for the few rows that
    there are, this takes a fifteenth of the time of a general sort on a CPU.
    """
    count = x.shape[0]

    def exchanged(x: jax.Array, first: int) -> jax.Array:
        pairs = (count - first) // 2
        end = first + 2 * pairs
        body = x[first:end].reshape(pairs, 2, *x.shape[1:])
        low = jnp.minimum(body[:, 0], body[:, 1])
        high = jnp.maximum(body[:, 0], body[:, 1])
        body = jnp.stack([low, high], axis=1).reshape(2 * pairs, *x.shape[1:])
        return jnp.concatenate([x[:first], body, x[end:]])

    if count == 1:
        return x
    rounds = (count + 1) // 2
    return lax.fori_loop(0, rounds, lambda _, x: exchanged(exchanged(x, 0), 1), x)


def middle(x: jax.Array) -> jax.Array:
    """(...) the median of every column of numbers (n, ...), of an even n the mean of two."""
    count = x.shape[0]
    ordered = in_order(x)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def share(part: float) -> jax.Array:
    """A share that is known, as an array."""
    return jnp.float32(part)
