"""One data-parallel step, written for one node and mapped over all of them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxqring import _checks as checks
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Report, Ring, pmean, replica_agreement
from jaxqring.secure import Security, secure_pmean
from jaxqring.train._placement import MAPPINGS

AXIS = "nodes"

NodeStep = Callable[[TrainState, tuple, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def node_step(
    ring: Ring | None, source: GHZSource | None = None, security: Security | None = None
) -> NodeStep:
    """The step of one node: gradients of its own batch, averaged over the nodes, then an update.

    A secure step whose GHZ states fail verification changes neither parameters nor optimizer; its
    number counts, so that the next one has fresh states.

    Args:
      ring: how to average; None for `lax.pmean` in float32.
      source: of GHZ states, for a secure average.
      security: how they are verified; with `source`.

    Returns:
      (state, (images, labels), key) -> (state, metrics); the metrics are the same on all nodes.
    """

    def step(state: TrainState, batch: tuple, key: jax.Array) -> tuple[TrainState, dict]:
        images, labels = batch

        def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
            scores = state.apply_fn({"params": params}, images)
            loss = optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
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


def replica_drift(params: Any, axis_name: str) -> jax.Array:
    """How far the replicas have come apart.

    Args:
      params: pytree of floating arrays, the replica of this node.
      axis_name: name of the mapped axis.

    Returns:
      () float32 the largest difference between two nodes, root mean square over the parameters,
      relative to that of their values; exactly zero while all nodes hold the same.
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
    """() int32 how many images one node's replica classifies rightly."""
    scores = state.apply_fn({"params": state.params}, images)
    return jnp.sum(jnp.argmax(scores, axis=-1) == labels)


def over_nodes(
    function: Callable, mapping: str, devices: Sequence[jax.Device], shared: tuple[int, ...]
) -> Any:
    """Maps a function of one node over all nodes.

    Args:
      function: of one node.
      mapping: "pmap" or "shard_map", with a device for each node, or "vmap", with one for all; each
        takes and gives arrays with a leading axis of nodes.
      devices: one for each node, or one.
      shared: positions of the arguments that are the same on all nodes.

    Returns:
      The mapped and compiled function.

    Raises:
      ValueError: if the mapping is none of these.
    """
    checks.one_of("mapping", mapping, MAPPINGS)
    # The number of arguments is known from the function, so that None marks the shared ones.
    count = function.__code__.co_argcount
    in_axes = tuple(None if i in shared else 0 for i in range(count))
    if mapping == "pmap":
        return jax.pmap(function, axis_name=AXIS, in_axes=in_axes, devices=devices)
    if mapping == "vmap":
        together = jax.jit(jax.vmap(function, in_axes=in_axes, axis_name=AXIS))
        return lambda *arguments: together(*jax.device_put(arguments, devices[0]))

    def block(*arguments: Any) -> Any:
        own = [
            a if i in shared else jax.tree.map(lambda x: x[0], a) for i, a in enumerate(arguments)
        ]
        return jax.tree.map(lambda x: jnp.asarray(x)[None], function(*own))

    mesh = Mesh(np.array(devices), (AXIS,))

    @jax.jit
    def mapped(*arguments: Any) -> Any:
        in_specs = tuple(P() if i in shared else P(AXIS) for i in range(len(arguments)))
        return jax.shard_map(block, mesh=mesh, in_specs=in_specs, out_specs=P(AXIS))(*arguments)

    return mapped
