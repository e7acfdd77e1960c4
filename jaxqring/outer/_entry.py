"""Refusals of outer loops: inner optimizers, steps and gradients that are none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring._varying import varying
from jaxqring.compress import CompressState
from jaxqring.outer._averages import Average
from jaxqring.outer._outer_types import OuterState
from jaxqring.ring import AllReduceState
from jaxqring.ring._axes import device_axes, refuse_spmd_vmap, tracked


def refuse_averages_within(inner: PyTree) -> None:
    """Refuses the state of an inner optimizer that averages over nodes itself."""
    kinds = (AllReduceState, CompressState, OuterState)
    for leaf in jax.tree.leaves(inner, is_leaf=lambda part: isinstance(part, kinds)):
        if isinstance(leaf, kinds):
            rule = "leave averages over nodes to the outer loop"
            checks.refuse("inner_tx", rule, f"a state that holds {type(leaf).__name__}")


@jax.custom_batching.custom_vmap
def _unmapped(step: jax.Array) -> jax.Array:
    return step


@_unmapped.def_vmap
def _(axis_size: int, in_batched: list[bool], step: jax.Array) -> Any:
    del axis_size, in_batched, step  # only called for a step that is mapped
    raise ValueError(
        "`step` must not be mapped (in_axes=None), as under vmap every step would carry out a round"
        " and throw most of them away, but got one step for each node."
    )


def checked_step(step: Any, seen: frozenset) -> jax.Array:
    """The number of an inner step as an int32 that no axis of `vmap` will map.

    Args:
      step: as for `Loop.update`.
      seen: the axes of nodes that shard_map tracks.

    Raises:
      TypeError: if it is not an integer.
      ValueError: if it is known and negative, has a shape, or differs between nodes.
    """
    if isinstance(step, bool) or not isinstance(step, int | np.integer | np.ndarray | jax.Array):
        checks.refuse("step", "be an integer", step, TypeError)
    if not jnp.issubdtype(jnp.result_type(step), jnp.integer):
        checks.refuse("step", "be an integer", str(jnp.result_type(step)), TypeError)
    if jnp.shape(step):
        checks.refuse("step", "have the shape (), the same on all nodes", jnp.shape(step))
    if not checks.is_traced(step) and int(step) < 0:
        checks.refuse("step", "be at least 0", int(step))
    step = jnp.asarray(step, jnp.int32)
    if seen & varying(step):
        rule = "be the same on all nodes, in_specs=PartitionSpec() of shard_map,"
        checks.refuse("step", rule, "a value that varies over them")
    return _unmapped(step)


def check_grads(grads: PyTree, average: Average) -> frozenset:
    """The axes of nodes that shard_map tracks; refuses gradients that are summed already."""
    known = average.axis_name is not None
    axes = average.axis_name if known else device_axes()
    if known:
        average.num_nodes()  # refuses an axis that is not bound
    seen = tracked(axes) if axes else frozenset()
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        if not seen or not jnp.size(leaf):
            continue
        refuse_spmd_vmap(jnp.asarray(leaf))
        found = varying(jnp.asarray(leaf)) & seen
        if found != seen if known else not found:
            raise ValueError(
                f"`grads{jax.tree_util.keystr(path)}` must vary over the nodes, but got a value"
                " that is the same on all of them: under shard_map with check_vma=True the"
                " gradient with respect to replicated parameters has been summed already; give"
                " parameters a row for each node, as an outer loop needs."
            )
    return seen
