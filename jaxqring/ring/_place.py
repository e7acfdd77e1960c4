"""The nodes that one device carries, and the moves of data between devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring._types import AxisName
from jaxqring._varying import as_varying
from jaxqring.ring._axes import device_axes, names_of


class Place(NamedTuple):
    """The position of this device in the ring. Static but for the traced index of the device.

    One device may carry k neighbouring nodes: every array has a leading axis of length k.

    Attributes:
      axis_name: the mapped axis, or None if one device carries all nodes.
      num_devices: the size of that axis.
      nodes_per_device: k, the number of neighbouring nodes that one device carries.
      beside: further axes of a `shard_map` that the payload varies over, in its types.
    """

    axis_name: AxisName | None
    num_devices: int
    nodes_per_device: int
    beside: frozenset = frozenset()

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.num_devices * self.nodes_per_device

    def nodes(self) -> jax.Array:
        """(k,) int32 numbers of the nodes on this device."""
        local = jnp.arange(self.nodes_per_device, dtype=jnp.int32)
        if self.axis_name is None:
            return as_varying(local, self.beside)
        nodes = lax.axis_index(self.axis_name) * self.nodes_per_device + local
        return as_varying(nodes, self.beside)

    def shift(self, x: jax.Array) -> jax.Array:
        """(k, ...) values of the predecessor of each node: all values move on by one node."""
        last = x[-1:]
        if self.axis_name is not None:
            ring = [(d, (d + 1) % self.num_devices) for d in range(self.num_devices)]
            last = lax.ppermute(last, self.axis_name, ring)
        return jnp.concatenate([last, x[:-1]]) if self.nodes_per_device > 1 else last

    def place_of(self, first: jax.Array, index: jax.Array) -> jax.Array:
        """() the row of a table in which chunks are collected that arrive in hop `index`."""
        begin = first[0] if self.nodes_per_device == 1 else 0
        return (begin - 1 - index) % self.num_nodes

    def highest(self, x: jax.Array) -> jax.Array:
        """The largest of every device's `x`."""
        return x if self.axis_name is None else lax.pmax(x, self.axis_name)

    def is_bound(self) -> bool:
        """True if a loop over collectives can be traced here.

        It cannot in a derivative rule that JAX calls after the `vmap` that binds the axis has
        returned, as it does for `grad` of a `jit` or a `scan` around the `vmap`.
        """
        if self.axis_name is None:
            return True
        try:
            lax.axis_size(self.axis_name)
        except NameError:
            return False
        return True

    def is_within_device(self) -> bool:
        """True if the nodes are along an axis of `vmap`, all on one device."""
        if self.axis_name is None:
            return False
        return not set(names_of(self.axis_name)) & set(device_axes())

    def all_gather(self, x: jax.Array) -> jax.Array:
        """(N, ...) the values (k, ...) of all devices."""
        return lax.all_gather(x, self.axis_name).reshape(self.num_nodes, *x.shape[1:])

    def everyone(self, x: jax.Array) -> jax.Array:
        """(N, ...) the values (k, ...) of all devices; needs no bound axis, unlike `all_gather`."""
        if self.axis_name is None:
            return x
        device = lax.axis_index(self.axis_name)
        is_mine = jnp.arange(self.num_devices).reshape(-1, *[1] * x.ndim) == device
        table = lax.psum(jnp.where(is_mine, x, jnp.zeros_like(x)), self.axis_name)
        return table.reshape(self.num_nodes, *x.shape[1:])

    def own(self, x: jax.Array) -> jax.Array:
        """(k, ...) this device's part of values (N, ...)."""
        start = lax.axis_index(self.axis_name) * self.nodes_per_device
        return lax.dynamic_slice_in_dim(x, start, self.nodes_per_device)
