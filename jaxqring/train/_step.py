"""One data-parallel step, written for one node and mapped over all of them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

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
from jaxqring.qmodels._classifier import SHOTS
from jaxqring.ring import Ring, pmean
from jaxqring.train._objective import AXIS, cross_entropy
from jaxqring.train._placement import MAPPINGS
from jaxqring.train._updates import Update

#: Folded into the key of a run, where the all-reduce folds the number of the step.
NO_STEP = 2**32 - 1

NodeStep = Callable[
    [TrainState, tuple, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]
]


def node_step(
    update: Update,
    sampled: Callable | None = None,
    labels_of: Callable[[jax.Array], jax.Array] | None = None,
) -> NodeStep:
    """The step of one node: the gradients of its own batch, and what becomes of them.

    Args:
      update: of the state, by the gradients of all nodes.
      sampled: a model whose scores are of finite shots, in place of that of the state; each node
        has shots of its own.
      labels_of: takes the labels of a node to those that it learns; they are the same by default.

    Returns:
      (state, (images, labels), key, number of the step) -> (state, metrics); the metrics are the
      same on all nodes, as the last two arguments must be.
    """

    def step(
        state: TrainState, batch: tuple, key: Key, number: jax.Array
    ) -> tuple[TrainState, dict]:
        images, labels = batch
        labels = labels if labels_of is None else labels_of(labels)

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
        after, counts = update(gradients, state, key, number)
        metrics |= counts
        # Added up in the order of the nodes, so that the bits do not depend on where they run.
        each = lax.all_gather(jnp.stack([loss, accuracy]), AXIS)
        metrics["loss"], metrics["train_accuracy"] = jnp.mean(each, axis=0)
        metrics["replica_drift"] = replica_drift(after.params, AXIS)
        return after, metrics

    return step


def _shot_key(key: Key, state: TrainState) -> Key:
    """The key of the outcomes of one node in one step, apart from that of the all-reduce."""
    root = jax.random.fold_in(key, NO_STEP)
    return jax.random.fold_in(jax.random.fold_in(root, state.step), lax.axis_index(AXIS))


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
