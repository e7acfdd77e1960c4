"""Centred clipping, the identity of its fixed point, and the momentum that it is used with."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring._varying import as_varying, varying
from jaxqring.compress._codes import check_decay, check_positive
from jaxqring.robust._rule import Aggregate, Rule, middle, norms

Start = Literal["median", "last"]


@struct.dataclass
class CentredClipping(Rule):
    """A centre that moves by the mean of the differences to it, each clipped to length tau.

    v <- v + mean_i (x_i - v) min(1, tau / |x_i - v|), `iterations` times. A liar moves it by
    tau / n a time at the most. The radius decides everything: where it is too large liars are let
    in, where it is too small the honest are clipped too, so look at `Aggregate.clipped`, the share
    of vectors that were clipped in the last iteration.

    Attributes:
      tau: the radius, positive; a number that a sweep may vary.
      iterations: L.
      start: of v: "median" for the median of every coordinate, "last" for the aggregate of the step
        before, which is zero in the first one.

    Raises:
      ValueError: if a concrete `tau` is not positive, or another attribute out of its domain.

    Reference: Karimireddy, He and Jaggi, ICML 2021; the start at the median is that of Gorbunov,
    Borzunov, Diskin and Ryabinin, ICML 2022.

    >>> x = jnp.array([[0.0], [1.0], [90.0]])
    >>> result = CentredClipping(1.0)(x)
    >>> result.value, float(result.clipped)
    (Array([1.], dtype=float32), 0.333...)
    """

    tau: ArrayLike
    iterations: int = struct.field(pytree_node=False, default=1)
    start: Start = struct.field(pytree_node=False, default="median")

    def __post_init__(self) -> None:
        check_positive("tau", self.tau)
        checks.integer("iterations", self.iterations)
        checks.one_of("start", self.start, get_args(Start))

    @property
    def remembers(self) -> bool:
        return self.start == "last"

    def check(self, count: int) -> None:
        checks.integer("count", count)

    def begin(self, x: jax.Array, state: jax.Array | None) -> jax.Array:
        """(P,) the centre before the first iteration."""
        if self.start == "median":
            return middle(x)
        return jnp.zeros(x.shape[1:], x.dtype) if state is None else state

    def aggregate(self, x: jax.Array, key: Key | None, state: jax.Array | None) -> Aggregate:
        def move(_: jax.Array, moving: tuple) -> tuple:
            centre, _ = moving
            differences, is_clipped = _clipped(x, centre, self.tau)
            return centre + jnp.mean(differences, axis=0), jnp.mean(is_clipped)

        share = as_varying(jnp.zeros((), x.dtype), varying(x))
        centre = as_varying(self.begin(x, state), varying(x))
        return Aggregate(*lax.fori_loop(0, self.iterations, move, (centre, share)))


def _clipped(x: jax.Array, centre: jax.Array, tau: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Differences (n, P) to the centre, clipped, and (n,) ones where they were."""
    difference = x - centre
    length = norms(difference)
    outside = length > tau
    factor = jnp.where(outside, tau / jnp.where(outside, length, 1), 1)
    return difference * factor[:, None], outside.astype(x.dtype)


def clipped_projections(x: jax.Array, centre: jax.Array, tau: ArrayLike, key: Key) -> jax.Array:
    """Projections <z, clipped(x_i - v)> on one random direction, by which a centre is checked.

    At the fixed point of centred clipping the clipped differences add up to zero, and with them
    their projections: every node broadcasts one number, and all see whether the sum is zero. The
    direction is drawn after the centre was announced. For a centre that is off by a sum d of
    clipped differences the projections add up to a normal number of standard deviation |d|.

    Args:
      x: (n, P) the vectors.
      centre: (P,) the announced v.
      tau: the radius.
      key: typed PRNG key of the direction, which is standard normal.

    Returns:
      (n,) the projections.

    Raises:
      TypeError, ValueError: if the key is not one typed key, or `tau` not positive.

    Reference: Gorbunov, Borzunov, Diskin and Ryabinin, ICML 2022.

    >>> x, key = jnp.array([[0.0], [1.0], [90.0]]), jax.random.key(0)
    >>> float(jnp.sum(clipped_projections(x, jnp.array([1.0]), 1.0, key)))
    0.0
    """
    checks.prng_key("key", key)
    check_positive("tau", tau)
    differences, _ = _clipped(jnp.asarray(x), jnp.asarray(centre), tau)
    direction = jax.random.normal(key, differences.shape[1:], differences.dtype)
    return jnp.sum(differences * direction, axis=-1)


def worker_momentum(
    momentum: PyTree,
    gradient: PyTree,
    decay: ArrayLike,
    form: Literal["average", "sum"] = "average",
) -> PyTree:
    """The momentum that a node sends in place of its gradient, after one more gradient.

    "average", the form of the paper: m <- decay m + (1 - decay) g. "sum", that of its public code:
    m <- decay m + g, which is 1 / (1 - decay) times as long, and so must be the radius of clipping.

    Args:
      momentum: pytree, of the step before; zeros before the first.
      gradient: pytree like it.
      decay: in [0, 1).
      form: of the two.

    Returns:
      The momentum, a pytree like `gradient`.

    Raises:
      ValueError: if a concrete decay is outside [0, 1), or the form unknown.

    Reference: Karimireddy, He and Jaggi, ICML 2021.

    >>> worker_momentum(1.0, 2.0, 0.5), worker_momentum(1.0, 2.0, 0.5, "sum")
    (1.5, 2.5)
    """
    check_decay("decay", decay)
    checks.one_of("form", form, ("average", "sum"))
    new = 1 - decay if form == "average" else 1
    return jax.tree.map(lambda m, g: decay * m + new * g, momentum, gradient)
