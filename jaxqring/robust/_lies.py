"""Lies: what nodes that lie send in place of their vectors."""

import abc
import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring.ring._axes import num_devices
from jaxqring.robust._vectors import Vectors, everyone, own_rows

#: (N,) bool, true for the liars.
Mask: TypeAlias = jax.Array | np.ndarray
#: The same, or the numbers of the liars.
LiarsLike: TypeAlias = Sequence[int] | Mask


class Attack(abc.ABC):
    """A lie that colluding nodes agree on, who have seen the vectors of all.

    Attacks are frozen dataclasses. An attack is called with the vectors (n, P), a mask (n,) of the
    liars, a key if it `draws`, and its state, and returns what each node sends with the new state;
    honest rows stay as they are. All but `DelayedGradient` have the state ().
    """

    @property
    def draws(self) -> bool:
        """True if the attack draws random numbers."""
        return False

    def init(self, x: jax.Array) -> Any:
        """The state before the first step, for vectors of the shape of `x` (n, P)."""
        return ()

    @abc.abstractmethod
    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        """(n, P) what each node would send if it lied."""

    def __call__(
        self, x: jax.Array, liars: LiarsLike, key: Key | None = None, state: Any = ()
    ) -> tuple[jax.Array, Any]:
        """The vectors that are sent.

        Args:
          x: (n, P) the vectors that honest nodes would send.
          liars: (n,) bool mask, or the numbers of the liars.
          key: typed PRNG key, for attacks that draw.
          state: of the step before.

        Returns:
          (n, P) what is sent, and the state.

        Raises:
          TypeError: if the key is no typed key where one is needed.
          ValueError: if `x` is no stack of vectors, or the liars are not among its rows.
        """
        checks.integer("x.ndim", jnp.ndim(x), 2, 2)
        mask = liars_mask(liars, jnp.shape(x)[0])
        if self.draws or key is not None:
            checks.prng_key("key", key)
        x = jnp.asarray(x)
        return jnp.where(mask[:, None], self.lies(x, mask, key), x), state


def liars_mask(liars: LiarsLike, num_nodes: int) -> Mask:
    """(N,) bool, true for the liars; of NumPy where they are given so, and known in a trace.

    Args:
      liars: a mask of N, or distinct numbers of nodes, of which at least one must be honest.
      num_nodes: N.

    Raises:
      ValueError: if a number is not that of a node or comes twice, a mask has another length, or
        no node is honest.
    """
    given = liars if isinstance(liars, jax.Array) else np.asarray(liars)
    if given.dtype == jnp.bool_:
        if given.shape != (num_nodes,):
            checks.refuse("liars", f"be a mask of {num_nodes} nodes", given.shape)
        if not checks.is_traced(given) and np.all(np.asarray(given)):
            checks.refuse("liars", "leave an honest node", given)
        return given
    if checks.is_traced(given) or given.ndim != 1:
        checks.refuse("liars", "be a mask, or a list of known numbers of nodes", given.shape)
    numbers = [checks.integer("liars", each, 0, num_nodes - 1) for each in np.asarray(given)]
    if len(set(numbers)) < len(numbers) or len(numbers) >= num_nodes:
        rule = f"be distinct, and leave one of {num_nodes} nodes honest"
        checks.refuse("liars", rule, numbers)
    mask = np.zeros(num_nodes, bool)
    mask[numbers] = True
    return mask


def honest_mean(x: jax.Array, liars: Mask) -> jax.Array:
    """(P,) the mean of the honest rows of (n, P), all of one weight."""
    honest = ~liars[:, None]
    return jnp.sum(jnp.where(honest, x, 0), axis=0) / jnp.sum(honest)


@dataclasses.dataclass(frozen=True)
class SignFlip(Attack):
    """The own vector with the other sign, some times as long.

    Attributes:
      scale: by which it is longer.

    >>> SignFlip(10.0)(jnp.array([[1.0], [2.0]]), [1])[0]
    Array([[  1.], [-20.]], dtype=float32)
    """

    scale: ArrayLike = 1.0

    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        return -jnp.asarray(self.scale * x)


@dataclasses.dataclass(frozen=True)
class InnerProduct(Attack):
    """IPM: the mean of the honest vectors times -eps.

    The mean of all turns round only if eps > (n - f) / f; robust rules can fail at small eps, which
    looks honest.

    Attributes:
      eps: the factor.

    Reference: Xie, Koyejo and Gupta, UAI 2019.

    >>> InnerProduct(0.5)(jnp.array([[1.0], [3.0], [9.0]]), [2])[0][2]
    Array([-1.], dtype=float32)
    """

    eps: ArrayLike = 0.1

    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        return jnp.broadcast_to(-(self.eps * honest_mean(x, liars)), x.shape)


@dataclasses.dataclass(frozen=True)
class LittleIsEnough(Attack):
    """ALIE: the mean of the honest vectors less z of their standard deviations, coordinatewise.

    `alie_z` gives the largest z that a majority hides, which may be zero: no attack at all.

    Attributes:
      z: the factor.
      population: whether the deviation is that of all honest vectors; by default the one that
        divides by their number less one, as `byzfl` has it. (One public code takes the variance.)

    Reference: Baruch, Baruch and Goldberg, NeurIPS 2019.

    >>> LittleIsEnough(1.0)(jnp.array([[1.0], [3.0], [9.0]]), [2])[0][2]
    Array([0.58...], dtype=float32)
    """

    z: ArrayLike
    population: bool = False

    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        mean, honest = honest_mean(x, liars), ~liars[:, None]
        count = jnp.sum(honest) - (not self.population)
        square = jnp.sum(jnp.where(honest, (x - mean) ** 2, 0), axis=0) / jnp.maximum(count, 1)
        return jnp.broadcast_to(mean - self.z * jnp.sqrt(square), x.shape)


def alie_z(num_nodes: int, liars: int) -> float:
    """The z of `LittleIsEnough`: Phi^-1((n - f - s) / (n - f)) with s = floor(n / 2) + 1 - f.

    Args:
      num_nodes: n.
      liars: f, at least 1 and less than half of n.

    Returns:
      z; zero, and so no attack, for 8 nodes of which 2 lie. It can be negative for fewer liars.

    Raises:
      ValueError: if an argument is out of its domain.

    Reference: Baruch, Baruch and Goldberg, NeurIPS 2019.

    >>> round(alie_z(25, 5), 6), alie_z(8, 2)
    (0.253347, 0.0)
    """
    num_nodes = checks.integer("num_nodes", num_nodes, 3)
    liars = checks.integer("liars", liars, 1, (num_nodes - 1) // 2)
    supporters, honest = num_nodes // 2 + 1 - liars, num_nodes - liars
    return statistics.NormalDist().inv_cdf((honest - supporters) / honest)


@dataclasses.dataclass(frozen=True)
class Mimic(Attack):
    """A copy of one honest vector, which then counts more than the others.

    Attributes:
      node: whose; the number of an honest node.

    Raises:
      ValueError: if `node` is no integer of at least 0; in a call, if it is that of a liar.

    Reference: Karimireddy, He and Jaggi, ICLR 2022, where the node is chosen by the data.

    >>> Mimic()(jnp.array([[1.0], [3.0], [9.0]]), [2])[0][2]
    Array([1.], dtype=float32)
    """

    node: int = 0

    def __post_init__(self) -> None:
        checks.integer("node", self.node, 0)

    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        checks.integer("node", self.node, 0, x.shape[0] - 1)
        if not checks.is_traced(liars) and liars[self.node]:
            checks.refuse("node", "be the number of an honest node", self.node)
        return jnp.broadcast_to(x[self.node], x.shape)


@dataclasses.dataclass(frozen=True)
class HugeEntries(Attack):
    """The own vector, with huge numbers at a few places drawn anew for every liar and step.

    Attributes:
      size: of these numbers, each with a random sign.
      entries: their number; places are drawn one by one, so that two may fall together.

    Raises:
      ValueError: if `entries` is no integer of at least 1.

    >>> sent, _ = HugeEntries(1e6)(jnp.zeros((3, 4)), [2], jax.random.key(0))
    >>> float(jnp.max(jnp.abs(sent[2]))), float(jnp.max(jnp.abs(sent[:2])))
    (1000000.0, 0.0)
    """

    size: ArrayLike = 1e3
    entries: int = 1

    def __post_init__(self) -> None:
        checks.integer("entries", self.entries)

    @property
    def draws(self) -> bool:
        return True

    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        place, sign = jax.random.split(key)  # type: ignore[arg-type]
        shape = (x.shape[0], self.entries)
        at = jax.random.randint(place, shape, 0, x.shape[1])
        value = self.size * jax.random.rademacher(sign, shape, x.dtype)
        return jax.vmap(lambda row, at, value: row.at[at].set(value))(x, at, value)


@dataclasses.dataclass(frozen=True)
class ScaleAttack(Attack):
    """The own vector with a first number so large that a common scale is lost on it.

    A FixedPoint wire with clip "max" takes the largest peak of all nodes for its scale: beside 1e30
    all other numbers of all nodes are sent as zero.

    Attributes:
      size: of that number.

    >>> ScaleAttack()(jnp.ones((2, 2)), [1])[0]
    Array([[1.e+00, 1.e+00], [1.e+30, 1.e+00]], dtype=float32)
    """

    size: ArrayLike = 1e30

    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        return x.at[:, 0].set(self.size)


@dataclasses.dataclass(frozen=True)
class DelayedGradient(Attack):
    """The own vector of some steps ago; zeros before there is one.

    Attributes:
      steps: of the delay.

    Raises:
      ValueError: if `steps` is no integer of at least 1.

    >>> attack, x = DelayedGradient(1), jnp.array([[1.0], [2.0]])
    >>> _, state = attack(x, [1], state=attack.init(x))
    >>> attack(10 * x, [1], state=state)[0]
    Array([[10.], [ 2.]], dtype=float32)
    """

    steps: int = 1

    def __post_init__(self) -> None:
        checks.integer("steps", self.steps)

    def init(self, x: jax.Array) -> jax.Array:
        return jnp.zeros((self.steps, *jnp.shape(x)), jnp.result_type(x))

    def lies(self, x: jax.Array, liars: Mask, key: Key | None) -> jax.Array:
        return x

    def __call__(
        self, x: jax.Array, liars: LiarsLike, key: Key | None = None, state: Any = ()
    ) -> tuple[jax.Array, Any]:
        if getattr(state, "shape", None) != (self.steps, *jnp.shape(x)):
            rule = f"be that of `init`, of shape {(self.steps, *jnp.shape(x))}"
            checks.refuse("state", rule, getattr(state, "shape", state))
        x = jnp.asarray(x)
        mask = liars_mask(liars, jnp.shape(x)[0])
        return jnp.where(mask[:, None], state[0], x), jnp.concatenate([state[1:], x[None]])


def flipped_labels(labels: jax.Array, num_classes: int) -> jax.Array:
    """The labels that a liar learns in place of its own: y -> C - 1 - y.

    Args:
      labels: (...) integers in [0, C).
      num_classes: C.

    Returns:
      (...) labels.

    Raises:
      ValueError: if `num_classes` is no integer of at least 2.

    >>> flipped_labels(jnp.array([0, 3, 9]), 10)
    Array([9, 6, 0], dtype=int32)
    """
    return checks.integer("num_classes", num_classes, 2) - 1 - labels


def attacked(
    x: PyTree,
    axis_name: AxisName | None,
    attack: Attack,
    liars: LiarsLike,
    key: Key | None = None,
    state: Any = (),
    *,
    nodes_per_device: int = 1,
) -> tuple[PyTree, Any]:
    """The vectors that nodes send, liars among them; before a collective, inside a mapped step.

    Liars know the vectors of all: they are gathered by the simulator, as float32, and are no
    traffic.

    Args:
      x: pytree of floating arrays; with `nodes_per_device` k > 1 every leaf has a leading axis k.
      axis_name: name of the mapped axis, or None if one device carries all nodes.
      attack: of the liars.
      liars: (N,) bool mask, or the numbers of the liars, known before tracing.
      key: typed PRNG key, the same on every node; for attacks that draw.
      state: of the attack, (), or what the last step returned; at first `attack.init` of zeros
        (N, P), the same on every node.
      nodes_per_device: k.

    Returns:
      What each node sends, a pytree like `x`, and the state.

    Raises:
      TypeError: if `attack` is not an Attack, or the key no typed key where one is needed.
      ValueError: as the attack; if the axis is not bound or a leaf lacks its leading axis.

    >>> lie = lambda x: attacked(x, "nodes", SignFlip(), [0])[0]
    >>> jax.vmap(lie, axis_name="nodes")(jnp.array([1.0, 2.0, 3.0]))
    Array([-1.,  2.,  3.], dtype=float32)
    """
    checks.instance("attack", attack, Attack)
    num_nodes = num_devices(axis_name) * checks.integer("nodes_per_device", nodes_per_device)
    mask = liars_mask(liars, num_nodes)
    vectors = Vectors(x, axis_name, nodes_per_device)
    sent, state = attack(everyone(vectors.rows, axis_name), mask, key, state)
    return vectors.restored(own_rows(sent, axis_name, nodes_per_device)), state
