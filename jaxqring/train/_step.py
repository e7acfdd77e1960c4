"""One data-parallel step, written for one node and mapped over all of them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, NodeMapping, PyTree
from jaxqring.codec import Float32
from jaxqring.compress import Compressor, CompressReport, compressed_pmean
from jaxqring.physics.ghz import GHZSource
from jaxqring.qmodels._classifier import SHOTS
from jaxqring.ring import Report, Ring, pmean, replica_agreement
from jaxqring.secure import SecureReport, Security, secure_pmean
from jaxqring.train._objective import AXIS, cross_entropy
from jaxqring.train._placement import MAPPINGS

#: Folded into the key of a run, where the all-reduce folds the number of the step.
NO_STEP = 2**32 - 1

NodeStep = Callable[[TrainState, tuple, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


class CompressedState(TrainState):
    """The state of a training whose gradients are compressed.

    Attributes:
      memory: of the compressor of this node, from step to step.
    """

    memory: PyTree


class _Reduced(NamedTuple):
    """The result of an all-reduce.

    Attributes:
      gradients: the mean, or what a compressor delivers in its place.
      memory: of the compressor; None without one.
      counts: metrics of the all-reduce.
      keep: takes the new and the old state to the old one where a secure step was aborted.
      secure: metrics of its masks.
    """

    gradients: PyTree
    memory: PyTree
    counts: dict[str, Any]
    keep: Callable[[PyTree, PyTree], PyTree] | None = None
    secure: dict[str, Any] | None = None


def node_step(
    ring: Ring | tuple[Ring, ...] | None,
    source: GHZSource | None = None,
    security: Security | None = None,
    compressor: Compressor | None = None,
    sampled: Callable | None = None,
) -> NodeStep:
    """The step of one node: gradients of its own batch, averaged over the nodes, then an update.

    A secure step whose GHZ states fail verification changes neither parameters nor optimizer nor
    the memory of a compressor, but is counted, so that the next one has fresh states.

    Args:
      ring: that averages; None for `lax.pmean` in float32. With a compressor it may be a tuple, as
        for `jaxqring.compressed_pmean`.
      source: of GHZ states, for a secure average.
      security: their verification; given with `source`.
      compressor: of the gradients; the state is a `CompressedState` then.
      sampled: a model whose scores are of finite shots, in place of that of the state; each node
        has shots of its own.

    Returns:
      (state, (images, labels), key) -> (state, metrics); the metrics are the same on all nodes.
    """

    def reduced(gradients: PyTree, state: TrainState, key: Key) -> _Reduced:
        if ring is None:
            gradients = lax.pmean(gradients, AXIS)
            return _Reduced(
                gradients, None, {"replica_agreement": replica_agreement(gradients, AXIS)}
            )
        step_key = jax.random.fold_in(key, state.step)
        if compressor is not None:
            masked = {"source": source, "security": security}
            assert isinstance(state, CompressedState)
            return _compressed(gradients, state.memory, step_key, compressor, ring, masked)
        assert isinstance(ring, Ring)
        if source is None or security is None:
            gradients, report = pmean(gradients, AXIS, ring=ring, key=step_key, with_report=True)
            return _Reduced(gradients, None, _counts(report))
        gradients, secure = secure_pmean(
            gradients,
            AXIS,
            ring=ring,
            source=source,
            security=security,
            key=step_key,
            with_report=True,
        )
        counts = _counts(secure.ring)
        return _Reduced(gradients, None, counts, secure.keep, _secure_counts((secure,)))

    def step(state: TrainState, batch: tuple, key: Key) -> tuple[TrainState, dict]:
        images, labels = batch

        def loss_of(params: PyTree) -> tuple[jax.Array, jax.Array]:
            if sampled is None:
                scores = state.apply_fn({"params": params}, images)
            else:
                scores = sampled({"params": params}, images, rngs={SHOTS: _shot_key(key, state)})
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
        result = reduced(gradients, state, key)
        metrics |= result.counts
        # Added up in the order of the nodes, so that the bits do not depend on where they run.
        each = lax.all_gather(jnp.stack([loss, accuracy]), AXIS)
        metrics["loss"], metrics["train_accuracy"] = jnp.mean(each, axis=0)
        after = state.apply_gradients(grads=result.gradients)
        if compressor is not None:
            after = after.replace(memory=result.memory)
        if result.keep is not None:
            after = result.keep(after, state).replace(step=after.step)
        metrics |= result.secure or {}
        metrics["replica_drift"] = replica_drift(after.params, AXIS)
        return after, metrics

    return step


def _shot_key(key: Key, state: TrainState) -> Key:
    """The key of the outcomes of one node in one step, apart from that of the all-reduce."""
    root = jax.random.fold_in(key, NO_STEP)
    return jax.random.fold_in(jax.random.fold_in(root, state.step), lax.axis_index(AXIS))


def _compressed(
    gradients: PyTree,
    memory: PyTree,
    key: Key,
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    masked: dict[str, Any],
) -> _Reduced:
    """The all-reduce by way of a compressor, under masks if there are any."""
    gradients, memory, report = compressed_pmean(
        gradients,
        memory,
        AXIS,
        compressor=compressor,
        ring=ring,
        key=key,
        with_report=True,
        **masked,
    )
    counts = {**_counts(report), "out_of_range": report.out_of_range}
    secure = [call for call in report.calls if isinstance(call, SecureReport)]
    if not secure:
        return _Reduced(gradients, memory, counts)
    of_masks = {**_secure_counts(secure), "aborted": report.aborted.astype(jnp.uint32)}
    return _Reduced(gradients, memory, counts, report.keep, of_masks)


def _counts(report: Report | CompressReport) -> dict[str, Any]:
    return {
        "symbol_errors": report.symbol_errors,
        "saturated": report.saturated,
        "retransmissions": report.retransmissions,
        "repeated_qubits": report.repeated_qubits,
        "undelivered": report.undelivered,
        "replica_agreement": report.replica_agreement,
    }


def _secure_counts(reports: Sequence[SecureReport]) -> dict[str, Any]:
    """The counts of the masks of a step, over all its collectives."""

    def total(name: str) -> jax.Array:
        first, *others = [getattr(report, name) for report in reports]
        return sum(others, first)

    return {
        "aborted": reports[0].aborted.astype(jnp.uint32),
        "attempts": total("attempts"),
        "ghz_copies": total("copies"),
        "wrong_sums": total("wrong_sums"),
        "uncorrected_sums": total("uncorrected"),
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
    """The state with its floating arrays averaged over the nodes, classically and without error.

    Over a ring of float32, whose bits do not depend on where the nodes run.
    """
    leaves, treedef = jax.tree.flatten(state)
    floats = {i: leaf for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    means = pmean(floats, AXIS, ring=Ring(wire=Float32(), noise="off"), key=None)
    return jax.tree.unflatten(treedef, [means.get(i, leaf) for i, leaf in enumerate(leaves)])


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
    mapped = jax.shard_map(block, mesh=mesh, in_specs=in_specs, out_specs=P(AXIS))
    shardings = [NamedSharding(mesh, spec) for spec in in_specs]
    compiled = jax.jit(mapped)

    # Placed before the call: the first step, from arrays of the host, would otherwise compile
    # another program than the ones after, and several processes could not make it at all.
    def placed(*arguments: PyTree) -> PyTree:
        pairs = zip(arguments, shardings, strict=True)
        return compiled(
            *(jax.tree.map(functools.partial(_on, sharding), part) for part, sharding in pairs)
        )

    return placed


def _on(sharding: NamedSharding, leaf: Any) -> jax.Array:
    """An array of the host, the same on every process, in its place on the devices."""
    if isinstance(leaf, jax.Array):
        return leaf
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
