"""Updates of one node among nodes that lie, some of whom may be this one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jax import lax

from jaxqring._types import Key, PyTree
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Ring
from jaxqring.robust import (
    Attack,
    RobustReport,
    Rule,
    attacked,
    flipped_labels,
    robust_pmean,
    worker_momentum,
)
from jaxqring.robust._ways import Topology
from jaxqring.secure import SecureReport, Security
from jaxqring.train._objective import AXIS
from jaxqring.train._updates import Update, secure_counts

#: Folded into the key of a run for what liars draw, where the all-reduce folds the number of the
#: step.
_LIES = 2**32 - 2


class Liars(NamedTuple):
    """The nodes that lie, and what they do.

    Attributes:
      nodes: (N,) bool mask.
      attack: on what they send; None if they send what they have learnt.
      flip_labels: whether they learn from flipped labels.
    """

    nodes: np.ndarray
    attack: Attack | None
    flip_labels: bool = False

    def send(self, tree: PyTree, key: Key, step: jax.Array) -> PyTree:
        """The tree that this node sends in place of `tree`; `key` is that of the run."""
        if self.attack is None:
            return tree
        own = None
        if self.attack.draws:
            own = jax.random.fold_in(jax.random.fold_in(key, _LIES), step)
        return attacked(tree, AXIS, self.attack, self.nodes, own)[0]

    def labels(self, labels: jax.Array, num_classes: int) -> jax.Array:
        """The labels that this node learns from."""
        if not self.flip_labels:
            return labels
        lies = jnp.asarray(self.nodes)[lax.axis_index(AXIS)]
        return jnp.where(lies, flipped_labels(labels, num_classes), labels)


def lying(update: Update, liars: Liars) -> Update:
    """An update whose gradients are those that nodes send, liars among them."""

    def lied(
        gradients: PyTree, state: TrainState, key: Key, step: jax.Array
    ) -> tuple[TrainState, dict[str, Any]]:
        return update(liars.send(gradients, key, step), state, key, step)

    return lied


class RobustState(TrainState):
    """The state of a training by robust means.

    Attributes:
      momenta: of the gradients of this node.
      last: the mean of the last step; zeros before there is one.
    """

    momenta: PyTree
    last: PyTree


class Robustness(NamedTuple):
    """The way to a robust mean; see `jaxqring.robust.robust_pmean`.

    Attributes:
      rule: of the aggregation.
      topology: of the ways of the vectors.
      group_size: s, of rings in groups.
      momentum: of the workers.
    """

    rule: Rule
    topology: Topology
    group_size: int
    momentum: float


def robustly(
    ring: Ring,
    robust: Robustness,
    secure: tuple[GHZSource, Security] | None = None,
    liars: Liars | None = None,
) -> Update:
    """An update by a robust mean of the momenta of the nodes.

    Args:
      ring: that carries them.
      robust: the way to their mean.
      secure: the masks of a group; None for none.
      liars: some of the nodes; None for none.
    """

    def update(
        gradients: PyTree, state: TrainState, key: Key, step: jax.Array
    ) -> tuple[TrainState, dict[str, Any]]:
        assert isinstance(state, RobustState)
        momenta = worker_momentum(state.momenta, gradients, robust.momentum)
        sent = momenta if liars is None else liars.send(momenta, key, step)
        mean, report = robust_pmean(
            sent,
            AXIS,
            rule=robust.rule,
            topology=robust.topology,
            ring=ring,
            key=jax.random.fold_in(key, state.step),
            secure=secure,
            group_size=robust.group_size,
            start=state.last,
            with_report=True,
        )
        after = state.apply_gradients(grads=mean)
        return after.replace(momenta=momenta, last=mean), _counts(report)

    return update


def _counts(report: RobustReport) -> dict[str, Any]:
    """The counts of a robust mean, over the ring of all nodes and those in groups."""
    counts: dict[str, Any] = {}
    rings, groups = [report.ring], report.groups
    if isinstance(groups, SecureReport):
        counts = {name: jnp.sum(each) for name, each in secure_counts((groups,)).items()}
        groups = groups.ring
    if groups is not None:
        rings.append(groups)
    for name in ("symbol_errors", "saturated", "retransmissions", "repeated_qubits", "undelivered"):
        first, *others = [jnp.sum(getattr(each, name), dtype=None) for each in rings]
        counts[name] = sum(others, first)
    # Over noisy links each node has a view of its own.
    # Added up in the order of the nodes, as in `node_step`.
    counts["clipped"] = jnp.mean(lax.all_gather(report.clipped, AXIS))
    return counts | {"unusable": report.unusable, "replica_agreement": report.replica_agreement}
