"""The mapped axes around a call: which carry the ring, and which lie beside it.

A ring runs along one axis, or along several that count as one. On a mesh with further axes there
is one ring for each position along those, side by side, each with links of its own.

Axes of a `shard_map` or a `pmap` are axes of devices. An axis of `vmap` lies within a device: named
after axes of devices, it says which of its nodes a device carries (as `Ring(nodes_per_device=)`
does without a name).
"""

import dataclasses
import math
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import AxisName, PyTree
from jaxqring._varying import as_varying, varying
from jaxqring.ring._ring import Ring


def names_of(axis_name: AxisName) -> tuple:
    """The names in `axis_name`, which is one or a tuple of them; none for None.

    Raises:
      TypeError: if it is not a name or a tuple of names.
    """
    if axis_name is None:
        return ()
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if not names or any(isinstance(n, int) or not isinstance(n, Hashable) for n in names):
        checks.refuse("axis_name", "be a name or a tuple of names", axis_name, TypeError)
    return names


def axis_size(axis_name: AxisName) -> int:
    """The number of devices along a mapped axis, or several axes.

    Raises:
      TypeError: if it is not a name or a tuple of names.
      ValueError: if it is not bound here.
    """
    try:
        if names_of(axis_name):
            return lax.axis_size(axis_name)
    except NameError:
        pass
    rule = "be bound by pmap, shard_map or vmap(axis_name=...) around the call"
    raise ValueError(f"`axis_name` must {rule}, but got {axis_name!r}.")


def num_devices(axis_name: AxisName | None) -> int:
    """As `axis_size`; one for None, where a device carries all nodes."""
    return 1 if axis_name is None else axis_size(axis_name)


def device_axes() -> tuple:
    """The names of the axes of the `shard_map` or `pmap` around the call."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def tracked(axis_name: AxisName | None) -> frozenset:
    """The axes among `axis_name` that `shard_map` tracks (with check_vma); empty elsewhere."""
    return frozenset() if axis_name is None else varying(lax.axis_index(axis_name))


def of_first(value: jax.Array, axes: frozenset) -> jax.Array:
    """The value of the first device along the axes, in a type that does not vary over them."""
    if not axes:
        return value
    names = tuple(sorted(axes, key=str))
    return lax.psum(jnp.where(lax.axis_index(names) == 0, value, jnp.zeros_like(value)), names)


def _is_sharded(sharding: Any) -> bool:
    return any(part is not None for part in getattr(sharding, "spec", ()))


def unsharded(leaf: jax.Array) -> jax.Array:
    """A leaf in whole on every device, of one that is sharded over explicit axes of the mesh."""
    if not _is_sharded(jax.typeof(leaf).sharding):
        return leaf
    return jax.sharding.reshard(leaf, jax.sharding.PartitionSpec())


def resharded(leaf: jax.Array, own: jax.Array, sharding: Any) -> jax.Array:
    """The result for a leaf `own`, sharded as that was; whole if its shape is another."""
    if not _is_sharded(sharding) or leaf.shape != own.shape:
        return leaf
    return jax.sharding.reshard(leaf, sharding.spec)


def refuse_spmd_vmap(leaf: Any) -> None:
    """Refuses values that a `vmap(shard_map(...), spmd_axis_name=...)` with check_vma has batched.

    Inside, JAX hides from the type of a value that it varies over the axis of the `vmap`, and then
    fails in any `cond` or loop of ours, as in those of anybody.

    Raises:
      ValueError: if the value varies over axes that its type does not have.
    """
    inner = leaf
    while isinstance(below := getattr(inner, "val", getattr(inner, "primal", None)), jax.Array):
        inner = below
    hidden = varying(inner) - varying(leaf) if inner is not leaf else frozenset()
    if hidden:
        raise ValueError(
            "`spmd_axis_name` must not be given to the vmap around a shard_map with check_vma=True,"
            f" whose types do not show it, but got {sorted(hidden, key=str)[0]!r}; pass"
            " check_vma=False to shard_map, or give it the axis in its specs and vmap inside."
        )


def apart(function: Callable, *values: jax.Array) -> jax.Array:
    """`function(*values)`, run in types that vary over no axis of a `shard_map`.

    For functions of JAX with loops that are not typed for values that vary: all devices along the
    axes run it for all of them, and keep their own.
    """
    axes = tuple(sorted(varying(*values), key=str))
    if not axes:
        return function(*values)
    everyone = [
        lax.all_gather(as_varying(value, frozenset(axes)), axes, to="invarying").reshape(
            -1, *value.shape
        )
        for value in values
    ]
    return jax.vmap(function)(*everyone)[lax.axis_index(axes)]


def key_of_ring(key: jax.Array, axes: tuple) -> jax.Array:
    """The key of this ring among those that lie side by side along the axes.

    The first ring has the key itself, ring number r `jax.random.fold_in(key, r)`.
    """
    number = jnp.int32(0)
    for name in axes:
        number = number * lax.axis_size(name) + lax.axis_index(name)
    data = jax.random.key_data(key)
    folded = jax.random.key_data(jax.random.fold_in(key, number))
    chosen = jnp.where(number == 0, data, folded)
    return jax.random.wrap_key_data(chosen, impl=jax.random.key_impl(key))


def _split(axis_name: AxisName) -> tuple[AxisName, tuple]:
    """The part of `axis_name` that a ring of devices runs along, and the axes of `vmap` within.

    Raises:
      ValueError: if an axis of `vmap` comes before one of devices, or lies within a `shard_map`
        with check_vma=True, where JAX has no collectives over it.
    """
    names, devices = names_of(axis_name), device_axes()
    mapped = tuple(name for name in names if name not in devices)
    if not mapped:
        return axis_name, ()
    if devices and tracked(devices):
        raise ValueError(
            f"`axis_name` must not name an axis of vmap inside a shard_map with check_vma=True, for"
            f" which JAX has no collectives, but got {mapped[0]!r}; pass check_vma=False to"
            " shard_map, or give leaves a leading axis and `Ring(nodes_per_device=...)`."
        )
    if names[len(names) - len(mapped) :] != mapped:
        rule = "name axes of vmap after those of devices, whose nodes lie next to each other"
        checks.refuse("axis_name", rule, axis_name)
    outer = names[: len(names) - len(mapped)]
    if outer:
        return outer, mapped
    return mapped[0], mapped[1:]


def within_devices(
    act: Callable, x: PyTree, axis_name: AxisName, ring: Ring, with_report: bool
) -> Any:
    """`act(x, axis_name, ring)` with the nodes along axes of `vmap` carried by their device.

    Args:
      act: a collective, or a pair of its result and a report.
      x: pytree of one node, or with a leading axis `ring.nodes_per_device`.
      axis_name: one name or several.
      ring: of the call.
      with_report: whether `act` returns a report as well.
    """
    num_devices(axis_name)  # refuses what is not bound
    outer, inner = _split(axis_name)
    if not inner:
        return act(x, axis_name, ring)
    checks.instance("ring", ring, Ring)
    own = ring.nodes_per_device
    count = math.prod(lax.axis_size(name) for name in inner)

    def gathered(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        leaf = leaf if own > 1 else leaf[None]
        shape = leaf.shape[1:]
        for name in reversed(inner):
            leaf = lax.all_gather(leaf, name)
        return leaf.reshape(own * count, *shape)

    index = lax.axis_index(inner) * own

    def mine(leaf: jax.Array) -> jax.Array:
        if own > 1:
            return lax.dynamic_slice_in_dim(leaf, index, own)
        return lax.dynamic_index_in_dim(leaf, index, keepdims=False)

    wider = dataclasses.replace(ring, nodes_per_device=own * count)
    result = act(jax.tree.map(gathered, x), outer, wider)
    if with_report:
        return jax.tree.map(mine, result[0]), result[1]
    return jax.tree.map(mine, result)
