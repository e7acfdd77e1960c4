"""The part that a node has in a compressed mean: what its own message says."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring._varying import as_varying, varying
from jaxqring.codec import Counts
from jaxqring.compress import (
    QSGD,
    Compressor,
    Exchange,
    RandomK,
    TernGrad,
    TopK,
    Uncompressed,
)
from jaxqring.outer._averages import Average, compressed
from jaxqring.ring import Ring
from jaxqring.ring._axes import tracked, within_devices

#: Compressors of one collective, each with the question whether it is unbiased.
_UNBIASED = {
    Uncompressed: lambda compressor: True,  # but for rounding
    QSGD: lambda compressor: True,
    RandomK: lambda compressor: True,
    TernGrad: lambda compressor: compressor.clip is None,
    TopK: lambda compressor: False,
}


class _Echo(Exchange):
    """An exchange in which all nodes send what this one does, so that their mean is its message.

    Scales are agreed upon and numbers drawn as in the exchange of all; nothing crosses a link, and
    what is agreed upon here is known to the nodes from there.
    """

    def _sum(self, leaves: Any, wire: Any) -> list[jax.Array]:
        assert isinstance(wire, Counts)
        return [leaf * self.num_nodes for leaf in leaves]

    def gather(self, numbers: Any, *, places: bool = False) -> list[jax.Array]:
        del places
        return [
            jnp.broadcast_to(number[:, None], (number.shape[0], self.num_nodes, *number.shape[1:]))
            for number, _ in numbers
        ]


def check_own(compressor: Compressor, *, unbiased: bool) -> None:
    """Refuses a compressor whose messages no node knows by itself, or that is biased.

    Raises:
      TypeError: if it is not a Compressor.
      ValueError: if it is another method, remembers what it has not sent, or is biased where it
        must not be.
    """
    checks.instance("compressor", compressor, Compressor)
    kind = type(compressor)
    if kind not in _UNBIASED:
        rule = "send one message a round (QSGD, RandomK, TernGrad, TopK or Uncompressed)"
        checks.refuse("compressor", rule, compressor)
    if unbiased and not _UNBIASED[kind](compressor):
        rule = "be unbiased (QSGD, RandomK, TernGrad(clip=None) or Uncompressed)"
        checks.refuse("compressor", rule, compressor)
    if isinstance(compressor, TopK) and compressor.error_feedback:
        rule = "have error_feedback=False, as control variates remember what was not sent"
        checks.refuse("compressor", rule, compressor)


def own_message(
    tree: PyTree,
    memory: PyTree,
    axis_name: AxisName,
    *,
    compressor: Compressor,
    ring: Ring,
    key: Key | None,
) -> PyTree:
    """The part of this node in `compressed_pmean` of the same arguments.

    The mean of these parts over the nodes is what is delivered, where links make no errors, but for
    rounding to float32. A value that is not finite gives one.

    Args:
      tree: as for `compressed_pmean`.
      memory: of the compressor.
      axis_name: of the mapped axis.
      compressor: of one collective, see `check_own`.
      ring: of that collective.
      key: as for `compressed_pmean`.
    """

    def act(both: tuple[PyTree, PyTree], axis: AxisName, wider: Ring) -> PyTree:
        axes = tracked(axis) | varying(*jax.tree.leaves((both, wider)))
        tree, memory = as_varying(both, axes)
        lead = wider.nodes_per_device > 1
        led = (tree, memory) if lead else jax.tree.map(lambda leaf: leaf[None], (tree, memory))
        exchange = _Echo(axis, (wider,), key, None, axes)
        single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), led[0])
        own, _ = compressor.mean(single, led[1], exchange)
        return own if lead else jax.tree.map(lambda leaf: leaf[0], own)

    return within_devices(act, (tree, memory), axis_name, ring, False)


def with_own(average: Average) -> Average:
    """An average of {"mean": x, "own": x}, which leaves the second as it is."""

    def mean(tree: PyTree, memory: PyTree, key: Key | None) -> Any:
        result, memory, counts = average.mean(tree["mean"], memory, key)
        return {"mean": result, "own": tree["own"]}, memory, counts

    return average._replace(init=lambda tree: average.init(tree["mean"]), mean=mean)


def compressed_with_own(compressor: Compressor, ring: Ring, axis_name: AxisName) -> Average:
    """A compressed average of {"mean": x, "own": x}, whose second is the node's own message."""
    average = compressed(compressor, ring, axis_name)

    def mean(tree: PyTree, memory: PyTree, key: Key | None) -> Any:
        result, after, counts = average.mean(tree["mean"], memory, key)
        own = own_message(tree["own"], memory, axis_name, compressor=compressor, ring=ring, key=key)
        return {"mean": result, "own": own}, after, counts

    return average._replace(init=lambda tree: average.init(tree["mean"]), mean=mean)
