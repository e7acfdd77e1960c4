"""One data-parallel step, written for one node and mapped over all of them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, NodeMapping, PyTree
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Report, Ring, pmean, replica_agreement
from jaxqring.secure import Security, secure_pmean
from jaxqring.train._objective import AXIS, cross_entropy
from jaxqring.train._placement import MAPPINGS

NodeStep = Callable[[TrainState, tuple, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def node_step(
    ring: Ring | None, source: GHZSource | None = None, security: Security | None = None
) -> NodeStep:
    """The step of one node: gradients of its own batch, averaged over the nodes, then an update.

    A secure step whose GHZ states fail verification changes neither parameters nor optimizer, but
    is counted, so that the next one has fresh states.

    Args:
      ring: that averages; None for `lax.pmean` in float32.
      source: of GHZ states, for a secure average.
      security: their verification; given with `source`.

    Returns:
      (state, (images, labels), key) -> (state, metrics); the metrics are the same on all nodes.
    """

    def step(state: TrainState, batch: tuple, key: Key) -> tuple[TrainState, dict]:
        images, labels = batch

        def loss_of(params: PyTree) -> tuple[jax.Array, jax.Array]:
            scores = state.apply_fn({"params": params}, images)
            loss = cross_entropy(scores, labels)
            return loss, jnp.mean(jnp.argmax(scores, axis=-1) == labels)

        (loss, accuracy), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        metrics: dict[str, Any] = {
            "symbol_errors": jnp.uint32(0),
            "saturated": jnp.uint32(0),
            "retransmissions": jnp.uint32(0),
            "repeated_qubits": jnp.float32(0),
            "undelivered": jnp.uint32(0),
        }
        secure = None
        if ring is None:
            gradients = lax.pmean(gradients, AXIS)
            metrics["replica_agreement"] = replica_agreement(gradients, AXIS)
        else:
            step_key = jax.random.fold_in(key, state.step)
            if source is None or security is None:
                gradients, report = pmean(
                    gradients, AXIS, ring=ring, key=step_key, with_report=True
                )
            else:
                gradients, secure = secure_pmean(
                    gradients,
                    AXIS,
                    ring=ring,
                    source=source,
                    security=security,
                    key=step_key,
                    with_report=True,
                )
                report = secure.ring
            metrics |= _counts(report)
        metrics["loss"], metrics["train_accuracy"] = lax.pmean(jnp.stack([loss, accuracy]), AXIS)
        after = state.apply_gradients(grads=gradients)
        if secure is not None:
            after = secure.keep(after, state).replace(step=after.step)
            metrics |= {
                "aborted": secure.aborted.astype(jnp.uint32),
                "attempts": secure.attempts,
                "ghz_copies": secure.copies,
                "wrong_sums": secure.wrong_sums,
                "uncorrected_sums": secure.uncorrected,
            }
        metrics["replica_drift"] = replica_drift(after.params, AXIS)
        return after, metrics

    return step


def _counts(report: Report) -> dict[str, Any]:
    return {
        "symbol_errors": report.symbol_errors,
        "saturated": report.saturated,
        "retransmissions": report.retransmissions,
        "repeated_qubits": report.repeated_qubits,
        "undelivered": report.undelivered,
        "replica_agreement": report.replica_agreement,
    }


def replica_drift(params: PyTree, axis_name: AxisName) -> jax.Array:
    """The distance between the two replicas that differ most.

    Args:
      params: pytree of floating arrays, the replica of this node.
      axis_name: name of the mapped axis.

    Returns:
      () float32 the largest difference of each parameter between two nodes, root mean square over
      the parameters, relative to that of their values; exactly zero while all nodes hold the same.
    """
    values = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(params)])
    high, minus_low = lax.pmax(jnp.stack([values, -values]), axis_name)
    scale = jnp.maximum(jnp.mean(high**2 + minus_low**2) / 2, jnp.finfo(jnp.float32).tiny)
    return jnp.sqrt(jnp.mean((high + minus_low) ** 2) / scale)


def node_resync(state: TrainState) -> TrainState:
    """The state with its floating arrays averaged over the nodes, classically and without error."""

    def mean(leaf: jax.Array) -> jax.Array:
        return lax.pmean(leaf, AXIS) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(mean, state)


def node_correct(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    """() int32 number of images that one node's replica classifies correctly."""
    scores = state.apply_fn({"params": state.params}, images)
    return jnp.sum(jnp.argmax(scores, axis=-1) == labels)


def over_nodes(
    function: Callable, mapping: NodeMapping, devices: Sequence[jax.Device], shared: tuple[int, ...]
) -> Callable:
    """Maps a function of one node over all nodes.

    Args:
      function: of one node; any callable with positional arguments.
      mapping: "pmap" or "shard_map", with a device for each node, or "vmap", with one for all; each
        takes and gives arrays with a leading axis of nodes.
      devices: one for each node, or one.
      shared: positions of the arguments that are the same on all nodes.

    Returns:
      The mapped and compiled function.

    Raises:
      ValueError: if `mapping` is not one of these.
    """
    checks.one_of("mapping", mapping, MAPPINGS)

    # Once for each number of arguments, which a call alone knows of a partial or a compiled one.
    @functools.cache
    def mapped(count: int) -> Callable:
        in_axes = tuple(None if i in shared else 0 for i in range(count))
        if mapping == "pmap":
            return jax.pmap(function, axis_name=AXIS, in_axes=in_axes, devices=devices)
        if mapping == "vmap":
            together = jax.jit(jax.vmap(function, in_axes=in_axes, axis_name=AXIS))
            return lambda *arguments: together(*jax.device_put(arguments, devices[0]))
        return _shard_mapped(function, devices, in_axes)

    return lambda *arguments: mapped(len(arguments))(*arguments)


def _shard_mapped(
    function: Callable, devices: Sequence[jax.Device], in_axes: tuple[int | None, ...]
) -> Callable:
    """A function of one node under `shard_map`; arguments whose axis is None are shared."""

    def block(*arguments: PyTree) -> PyTree:
        of_one = [
            argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(*of_one))

    mesh = Mesh(np.array(devices), (AXIS,))
    in_specs = tuple(P() if axis is None else P(AXIS) for axis in in_axes)
    return jax.jit(jax.shard_map(block, mesh=mesh, in_specs=in_specs, out_specs=P(AXIS)))
