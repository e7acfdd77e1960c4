"""NoLoCo: nodes average in pairs, and no collective is ever run."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring.outer._averages import Average, check_name
from jaxqring.outer._loop import make_loop
from jaxqring.outer._nesterov import mean_replica
from jaxqring.outer._outer_types import Loop, Method, Received
from jaxqring.outer._pair_stability import warn_unless_contracting
from jaxqring.outer._stability import check_rates
from jaxqring.ring._axes import axis_size

Pairs: TypeAlias = Literal["random", "neighbours"]


class NoLoCoState(NamedTuple):
    """The state of NoLoCo.

    Attributes:
      momentum: delta, the last change of the slow parameters.
    """

    momentum: PyTree


def noloco(
    inner_tx: optax.GradientTransformation,
    axis_name: AxisName,
    *,
    every: int,
    pairs: Pairs | Sequence[Sequence[int]] | np.ndarray = "random",
    learning_rate: float = 0.7,
    momentum: float = 0.5,
    consensus: float = 0.7,
    key: Key | None = None,
) -> Loop:
    """NoLoCo: in every round each node exchanges with one other, and all stay apart a little.

    delta <- alpha delta + beta mean_pair(theta_j - phi_j) + gamma (mean_pair(phi) - phi_i);
    phi <- phi + delta, where phi are the slow parameters of a node and theta those after its inner
    steps. A heavy ball, which the public code calls Nesterov.

    Random partners change each round and are drawn from the key, which all nodes share, so that
    they need not agree on anything; neighbours are (0, 1), (2, 3), ... and (1, 2), ..., (N - 1, 0)
    in turn.

    **Simulated** is a one-way ring that passes every message on for N - 1 hops, without error, as
    over protected links; each node takes its partner's as it comes by. `pair_cost` says what such
    rounds take: random pairs cost more than an all-reduce, N / 2 times as much on a one-way ring.

    Differences between nodes shrink for consensus weights below `largest_consensus`.

    Args:
      inner_tx: the inner optimizer; its state stays local.
      axis_name: name of the mapped axis, of an even number of nodes, one on each device.
      every: H, inner steps of a round.
      pairs: "random", "neighbours", or (T, N) integers, the partners of all nodes in round t mod T.
      learning_rate: beta, weight of what the inner steps of the pair have found.
      momentum: alpha in [0, 1).
      consensus: gamma, weight of the difference of the pair.
      key: typed PRNG key, the same on all nodes, for random pairs.

    Returns:
      A `Loop`; its `replica` is the mean over the nodes, in float32 and exact.

    Raises:
      TypeError: as `local_sgd`.
      ValueError: as `local_sgd`; if a number is out of range, or partners are none. Calls of
        `update` refuse an odd number of nodes.

    Warns:
      UserWarning: in `update`, if differences between nodes with random partners grow.

    Reference: Kolehmainen et al., 2506.10911.

    >>> loop = noloco(optax.sgd(1.0), "nodes", every=1, pairs="neighbours")
    >>> params = jnp.zeros((4, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> act = lambda g, s, p: loop.update(g, s, p, step=0)
    >>> grads = jnp.array([[1.0], [3.0], [5.0], [5.0]])
    >>> jax.vmap(act, axis_name="nodes")(grads, state, params)[0].ravel()
    Array([-1.4, -1.4, -3.5, -3.5], dtype=float32)
    """
    check_rates(learning_rate, momentum)
    checks.open_interval("consensus", consensus, 0.0, np.inf)
    alpha, beta, gamma = float(momentum), float(learning_rate), float(consensus)
    average = in_pairs(axis_name, pairs)

    def init(slow: PyTree) -> NoLoCoState:
        return NoLoCoState(jax.tree.map(jnp.zeros_like, slow))

    def send(displacement: PyTree, slow: PyTree, own: NoLoCoState) -> PyTree:
        del own
        return displacement, slow

    def receive(mean: PyTree, sent: PyTree, slow: PyTree, own: NoLoCoState, here: Any) -> Received:
        del sent, here
        if isinstance(pairs, str) and pairs == "random":
            warn_unless_contracting(alpha, gamma, average.num_nodes())
        displacement, centre = mean
        moved = jax.tree.map(
            lambda d, delta, phi, mid: alpha * d - beta * delta + gamma * (mid - phi),
            own.momentum,
            displacement,
            slow,
            centre,
        )
        return Received(jax.tree.map(lambda a, b: a + b, slow, moved), NoLoCoState(moved))

    method = Method(init, receive, send=send)
    replica = mean_replica(average)
    return make_loop(inner_tx, average, method, every=every, key=key, replica=replica)


def in_pairs(
    axis_name: AxisName, pairs: Pairs | Sequence[Sequence[int]] | np.ndarray = "random"
) -> Average:
    """The mean over this node and its partner, exactly.

    Args:
      axis_name: as for `noloco`.
      pairs: as for `noloco`.

    Returns:
      An `Average` whose memory is the number of the round.

    Raises:
      TypeError: if the name is none.
      ValueError: if `pairs` is unknown, or partners are none.

    >>> average = in_pairs("nodes", [[1, 0, 3, 2]])
    >>> mean = lambda x: average.mean(x, jnp.int32(0), None)[0]
    >>> jax.vmap(mean, axis_name="nodes")(jnp.arange(4.0))
    Array([0.5, 0.5, 2.5, 2.5], dtype=float32)
    """
    check_name(axis_name)
    table = None
    if isinstance(pairs, str):
        checks.one_of("pairs", pairs, get_args(Pairs))
    else:
        table = _checked_table(pairs)

    def mean(tree: PyTree, memory: jax.Array, key: Key | None) -> Any:
        nodes = axis_size(axis_name)
        if nodes % 2:
            checks.refuse("axis_name", "bind an even number of nodes, to be paired", nodes)
        if table is not None and table.shape[1] != nodes:
            checks.refuse("pairs", f"have a partner for each of the {nodes} nodes", table.shape)
        if isinstance(pairs, str) and pairs == "random":
            assert key is not None  # `draws` has had it checked
            order = jax.random.permutation(key, nodes)
            partners = jnp.zeros_like(order).at[order].set(jnp.roll(order, nodes // 2))
        else:
            rows = neighbours(nodes) if table is None else table
            partners = jnp.asarray(rows, jnp.int32)[memory % len(rows)]
        theirs = _passing(tree, partners[lax.axis_index(axis_name)], axis_name, nodes)
        return jax.tree.map(lambda a, b: (a + b) / 2, tree, theirs), memory + 1, None

    draws = isinstance(pairs, str) and pairs == "random"
    return Average(lambda tree: jnp.int32(0), mean, axis_name, draws=draws)


def neighbours(nodes: int) -> np.ndarray:
    """(2, N) the partners of nodes paired with one neighbour and with the other, in turn."""
    at = np.arange(nodes)
    step = 1 - 2 * (at % 2)
    return np.stack([at + step, at - step]) % nodes


def _checked_table(pairs: Any) -> np.ndarray:
    table = checks.numbers("pairs", pairs)
    shaped = table.ndim == 2 and table.size and np.issubdtype(table.dtype, np.integer)
    if not shaped or table.min() < 0 or table.max() >= table.shape[1]:
        rule = "be (T, N) integers in [0, N), the partners of all nodes in each of T rounds"
        checks.refuse("pairs", rule, table)
    at = np.arange(table.shape[1])
    back = np.take_along_axis(table, table, axis=1)
    if (back != at).any() or (table == at).any():
        checks.refuse("pairs", "pair every node with another one, whose partner it is", table)
    return table


def _passing(tree: PyTree, partner: jax.Array, axis_name: AxisName, nodes: int) -> PyTree:
    """The tree of the partner, as it comes by on a one-way ring."""
    index = lax.axis_index(axis_name)
    onward = [(node, (node + 1) % nodes) for node in range(nodes)]

    def hop(number: int, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        passing, kept = carry
        passing = jax.tree.map(lambda leaf: lax.ppermute(leaf, axis_name, onward), passing)
        mine = (index - number - 1) % nodes == partner
        return passing, jax.tree.map(lambda a, b: jnp.where(mine, a, b), passing, kept)

    return lax.fori_loop(0, nodes - 1, hop, (tree, tree))[1]
