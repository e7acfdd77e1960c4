"""Pytrees of the nodes of a device as rows of numbers, and rows of all nodes."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring._types import AxisName, PyTree
from jaxqring._varying import as_varying
from jaxqring.ring._axes import num_devices, tracked
from jaxqring.ring._call import check_leaf
from jaxqring.ring._place import Place

#: Numbers beyond this are taken for no numbers: their differences might be infinite.
LARGEST = 2.0**120


class Vectors:
    """The vectors of the nodes of a device.

    Attributes:
      rows: (k, P) float32.
      sizes: numbers of each leaf on a node.
    """

    def __init__(self, x: PyTree, axis_name: AxisName | None, nodes_per_device: int) -> None:
        """Checks the leaves, and puts those of a node side by side.

        Args:
          x: pytree of floating arrays, each with a leading axis k if k > 1.
          axis_name: of the nodes; None if this device carries all of them.
          nodes_per_device: k.

        Raises:
          TypeError: if a leaf is not floating.
          ValueError: if a leaf lacks its leading axis, there is no number, or `shard_map` has
            summed `x` already.
        """
        named, self._treedef = jax.tree_util.tree_flatten_with_path(x)
        place = Place(axis_name, num_devices(axis_name), nodes_per_device)
        for path, leaf in named:
            name = "x" + jax.tree_util.keystr(path)
            check_leaf(name, leaf, place, tracked(axis_name))
        self._leaves = [jnp.asarray(leaf) for _, leaf in named]
        if sum(leaf.size for leaf in self._leaves) == 0:
            raise ValueError("`x` must hold at least one value, but got none.")
        flat = [
            leaf.reshape(nodes_per_device, leaf.size // nodes_per_device).astype(jnp.float32)
            for leaf in self._leaves
        ]
        self.sizes = [part.shape[1] for part in flat]
        self.rows = jnp.concatenate(as_varying(flat, tracked(axis_name)), axis=1)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the leaves on this device."""
        return [leaf.shape for leaf in self._leaves]

    def split(self, rows: jax.Array) -> list[jax.Array]:
        """The leaves (..., size) of rows (..., P)."""
        return list(lax.split(rows, self.sizes, axis=rows.ndim - 1))

    def spread(self, of_leaves: jax.Array) -> jax.Array:
        """(..., P) a number of each leaf (..., L), for every number of the leaf."""
        lead = of_leaves.shape[:-1]
        parts = [
            jnp.broadcast_to(of_leaves[..., leaf, None], (*lead, size))
            for leaf, size in enumerate(self.sizes)
        ]
        return jnp.concatenate(parts, axis=-1)

    def powers(self, rows: jax.Array) -> jax.Array:
        """(..., L) powers of two that no number of a leaf exceeds; one for a leaf of zeros."""
        peaks = [jnp.max(jnp.abs(part), axis=-1, initial=0) for part in self.split(rows)]
        return powers_of_two(jnp.stack(peaks, axis=-1))

    def restored(self, rows: jax.Array) -> PyTree:
        """The pytree of rows (k, P), in the shapes and types of the leaves."""
        return jax.tree.unflatten(
            self._treedef,
            [
                part.reshape(leaf.shape).astype(leaf.dtype)
                for part, leaf in zip(self.split(rows), self._leaves, strict=True)
            ],
        )


def powers_of_two(peaks: jax.Array) -> jax.Array:
    """Powers of two of at least these numbers, within those that float32 can divide by.

    They are a scale and have no derivative.
    """
    exponent = jnp.clip(jnp.frexp(lax.stop_gradient(peaks))[1], -120, 121)
    return jnp.where(peaks > 0, jnp.ldexp(jnp.float32(1), exponent), 1)


def usable(rows: jax.Array) -> jax.Array:
    """(...) bool, true for vectors (..., P) of numbers that are finite and not beyond 2^120."""
    return jnp.all(jnp.abs(rows) <= LARGEST, axis=-1)  # false for NaN


def everyone(rows: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """(N, ...) the rows (k, ...) of all devices, moved by the simulator and no traffic.

    Under `shard_map` with check_vma in a type that is the same on all devices.
    """
    if axis_name is None:
        return rows
    seen = tracked(axis_name)
    if seen:
        gathered = lax.all_gather(as_varying(rows, seen), axis_name, to="invarying")
    else:
        gathered = lax.all_gather(rows, axis_name)
    return gathered.reshape(-1, *rows.shape[1:])


def own_rows(rows: jax.Array, axis_name: AxisName | None, nodes_per_device: int) -> jax.Array:
    """(k, ...) the rows (N, ...) of the nodes of this device."""
    if axis_name is None:
        return rows
    start = lax.axis_index(axis_name) * nodes_per_device
    rows = as_varying(rows, tracked(axis_name))
    return lax.dynamic_slice_in_dim(rows, start, nodes_per_device)
