"""The nodes that carry a run from step to step, and what is left to those that leave and join."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax.training.train_state import TrainState

from jaxqring import _checks as checks
from jaxqring._fields import check_fields, no_other_keys
from jaxqring._types import PyTree
from jaxqring.compress import Compressor
from jaxqring.train._datasets import NOTHING, Consumed
from jaxqring.train._updates import CompressedState


@no_other_keys
@dataclasses.dataclass(frozen=True)
class MembershipConfig:
    """A change of the nodes that carry a run, which begins with the nodes 0 to N - 1 of its job.

    Attributes:
      step: the number of steps of the run that are done before the change.
      nodes: the numbers of those that carry the run from there on, two or more, ascending; nodes
        that join may have any numbers.

    Raises:
      ValueError: if `step` is not positive, or `nodes` are not such numbers.
    """

    step: int
    nodes: tuple[int, ...]

    def __post_init__(self) -> None:
        check_fields(self, "membership.")
        for node in self.nodes:
            checks.integer("membership.nodes", node, 0)
        if len(self.nodes) < 2 or list(self.nodes) != sorted(set(self.nodes)):
            rule = "be two or more different numbers in ascending order"
            checks.refuse("membership.nodes", rule, self.nodes)


class Period(NamedTuple):
    """The steps between two changes of the nodes.

    Attributes:
      first: the first of the steps, counted from zero.
      end: the step after the last.
      nodes: the numbers of the nodes, ascending, which is their order round the ring.
    """

    first: int
    end: int
    nodes: tuple[int, ...]


def periods_of(
    changes: Sequence[MembershipConfig], num_nodes: int, steps: int
) -> tuple[Period, ...]:
    """The periods of a run, one more than there are changes.

    Args:
      changes: of its nodes.
      num_nodes: N at the beginning.
      steps: of the run.

    Raises:
      ValueError: if a change does not come after the one before it and before the last step, leaves
        all nodes as they are, or leaves none of them, so that nobody has the parameters.
    """
    first, nodes = 0, tuple(range(num_nodes))
    found = []
    for change in changes:
        if not first < change.step < steps:
            rule = f"lie in ({first}, {steps}), after the change before it and within the run"
            checks.refuse("membership.step", rule, change.step)
        if change.nodes == nodes:
            checks.refuse("membership.nodes", "differ from those before the change", change.nodes)
        if not set(change.nodes) & set(nodes):
            rule = "keep one of those before the change, which have the parameters"
            checks.refuse("membership.nodes", rule, change.nodes)
        found.append(Period(first, change.step, nodes))
        first, nodes = change.step, change.nodes
    return (*found, Period(first, steps, nodes))


def reached(periods: Sequence[Period], done: int) -> int:
    """The index of the period of the last of so many steps, or of the first if none is done.

    A checkpoint between two periods is of the earlier one: the change belongs to the later.
    """
    return max(sum(period.first < done for period in periods) - 1, 0)


def consumed(periods: Sequence[Period], per_node: int, have: int) -> Consumed:
    """The images consumed in the periods of a run, one after the other.

    Args:
      periods: of a run, up to the one whose `batches` take this for `before`.
      per_node: images of a node in a step.
      have: images of an epoch.

    Raises:
      ValueError: as `Consumed.until`.
    """
    return functools.reduce(
        lambda done, period: done.until(period.end, len(period.nodes), per_node, have),
        periods,
        NOTHING,
    )


def carried(tree: PyTree, before: Sequence[int], after: Sequence[int]) -> PyTree:
    """The rows of the nodes after a change.

    A node that stays keeps its row. One that joins has a copy of the row of the nearest node before
    it round the ring that stays.

    Args:
      tree: pytree of arrays with a leading axis of nodes.
      before: numbers of these nodes, ascending.
      after: those of the nodes after the change, ascending, of which one at least stays.

    >>> carried(np.array([0.0, 0.1, 0.2, 0.3]), before=(0, 1, 2, 3), after=(0, 2, 5, 6)).tolist()
    [0.0, 0.2, 0.2, 0.2]
    """
    stay = set(before) & set(after)
    rows = np.array([before.index(_nearest(node, stay)) for node in after])
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _nearest(node: int, stay: set[int]) -> int:
    """The first of the nodes that stay, backwards round the ring from this one."""
    return max((other for other in stay if other <= node), default=max(stay))


def holders(periods: Sequence[Period], index: int) -> dict[int, int]:
    """The nodes that are away in a period but whose memory is not lost, each with its holder.

    After every step, each node sends its memory to the next one round the ring. The copy outlives
    the node that leaves, unless the holder leaves in the same change, or later while it is away.

    >>> both = (Period(0, 3, (0, 1, 2, 3)), Period(3, 9, (0, 3)))
    >>> holders(both, 1)  # that of node 1 was held by node 2
    {2: 3}
    """
    held: dict[int, int] = {}
    for before, after in itertools.pairwise(period.nodes for period in periods[: index + 1]):
        held |= zip(before, (*before[1:], before[0]), strict=True)
        held = {
            node: holder for node, holder in held.items() if node not in after and holder in after
        }
    return held


def fresh_copies(
    compressor: Compressor, params: PyTree, periods: Sequence[Period], index: int
) -> dict[str, PyTree]:
    """A dictionary of the structure and the shapes of the copies that a checkpoint holds.

    Args:
      compressor: of the gradients.
      params: pytree of the parameters of one node.
      periods: of a run.
      index: of the period.
    """
    own = compressor.own(compressor.init(params))
    return {str(node): own for node in holders(periods, index)}


def changed(
    state: TrainState,
    copies: dict[str, PyTree] | None,
    periods: Sequence[Period],
    index: int,
    compressor: Compressor | None = None,
) -> tuple[TrainState, dict[str, PyTree] | None]:
    """The state of the nodes of a period, from that of the period before.

    Args:
      state: pytree of arrays of the host with a leading axis of nodes; with a compressor a
        `CompressedState`, so that each node has a memory of its own.
      copies: those of the memory of nodes that are away, by their numbers as strings; None if
        neighbours hold no copies: nodes that join begin with a fresh memory.
      periods: of a run.
      index: of the period that begins; 1 or more.
      compressor: of the gradients.

    Returns:
      The state, and the copies that are held from there on.
    """
    before, after = periods[index - 1].nodes, periods[index].nodes
    carried_state = carried(state, before, after)
    if compressor is None:
        return carried_state, copies
    assert isinstance(state, CompressedState)
    own = compressor.own(state.memory)
    rows = {node: _row(own, number) for number, node in enumerate(before)}
    if copies is not None:
        kept = rows | {int(node): copy for node, copy in copies.items()}
        copies = {str(node): kept[node] for node in holders(periods, index)}
        # A copy whose holder leaves as its node comes back is lost.
        back = [n for n, holder in holders(periods, index - 1).items() if {n, holder} <= set(after)]
        rows |= {node: kept[node] for node in back}
    fresh = compressor.own(compressor.init(_row(state.params, 0)))
    own = jax.tree.map(lambda *each: np.stack(each), *(rows.get(node, fresh) for node in after))
    memory = compressor.joined(own, carried_state.memory)
    return carried_state.replace(memory=memory), copies


def _row(tree: PyTree, number: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[number], tree)


def copy_bits(compressor: Compressor, params: PyTree) -> int:
    """The classical bits over each link in a step if neighbours hold copies of the memory.

    Every node sends its own part of it over one hop.

    Args:
      compressor: of the gradients.
      params: pytree of the parameters of one node, or of their shapes.

    >>> from jaxqring.compress import TopK
    >>> copy_bits(TopK(), np.zeros(100, np.float32))
    3200
    """
    own = jax.eval_shape(lambda tree: compressor.own(compressor.init(tree)), params)
    return sum(8 * leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(own))


def copies_lost(num_nodes: int, leaving: int) -> float:
    """The probability that a memory is lost, though the next node round the ring has a copy.

    Nodes leave together, each choice of them equally likely; a memory is lost if the next node is
    among them.

    Args:
      num_nodes: N, of the ring.
      leaving: k, the nodes that leave, in [0, N].

    Returns:
      1 - N / (N - k) C(N - k, k) / C(N, k).

    Raises:
      ValueError: if a number is not an integer of its range.

    Reference: the choices of k in N round a circle without two neighbours are those of Kaplansky,
    Bull. Amer. Math. Soc. 49 (1943), 784.

    >>> round(copies_lost(8, 2), 6)
    0.285714
    """
    num_nodes = checks.integer("num_nodes", num_nodes, 2)
    leaving = checks.integer("leaving", leaving, 0, num_nodes)
    if leaving == num_nodes:
        return 1.0
    apart = num_nodes * math.comb(num_nodes - leaving, leaving)
    return 1 - apart / ((num_nodes - leaving) * math.comb(num_nodes, leaving))
