"""Which chunk moves when: the two loops of a ring all-reduce.

N nodes, a vector in N chunks, N - 1 steps each way (Patarasuk and Yuan, J. Parallel Distrib.
Comput. 69, 117 (2009)):

* reduce-scatter, step t: node i sends its partial sum of chunk (i - t) mod N to node i + 1, which
  adds its own; afterwards node i owns the sum of chunk (i + 1) mod N.
* all-gather, step t: node i sends chunk (i + 1 - t) mod N on to node i + 1.

A node thus meets the chunks in descending order. Putting its rows into that order once, before
the loop, makes every step the same for every node: the loops below are one `lax.scan` each,
whose size in the compiled program does not depend on N.

One device may carry k neighbouring nodes: every array has a leading axis of length k.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import checks

Hop = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


def axis_size(axis_name: Any) -> int:
    """The number of devices along a mapped axis, or several axes.

    Raises:
      TypeError: if it is not a name or a tuple of names.
      ValueError: if it is not bound here.
    """
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if not names or any(isinstance(n, int) or not isinstance(n, Hashable) for n in names):
        checks.refuse("axis_name", "be a name or a tuple of names", axis_name, TypeError)
    try:
        return lax.axis_size(axis_name)
    except NameError:
        rule = "be bound by pmap, shard_map or vmap(axis_name=...) around the call"
        raise ValueError(f"`axis_name` must {rule}, but got {axis_name!r}.") from None


class Place(NamedTuple):
    """Where this device sits in the ring. Static but for the traced index of the device.

    Attributes:
      axis_name: the mapped axis, or None if one device carries all nodes.
      num_devices: its size.
      nodes_per_device: k, how many neighbouring nodes one device carries.
    """

    axis_name: Any
    num_devices: int
    nodes_per_device: int

    @property
    def num_nodes(self) -> int:
        return self.num_devices * self.nodes_per_device

    def nodes(self) -> jax.Array:
        """(k,) int32 the nodes on this device."""
        local = jnp.arange(self.nodes_per_device, dtype=jnp.int32)
        if self.axis_name is None:
            return local
        return lax.axis_index(self.axis_name) * self.nodes_per_device + local

    def shift(self, x: jax.Array) -> jax.Array:
        """(k, ...) what the predecessor of each node held: all values move on by one node."""
        last = x[-1:]
        if self.axis_name is not None:
            ring = [(d, (d + 1) % self.num_devices) for d in range(self.num_devices)]
            last = lax.ppermute(last, self.axis_name, ring)
        return jnp.concatenate([last, x[:-1]]) if self.nodes_per_device > 1 else last

    def highest(self, x: jax.Array) -> jax.Array:
        """The largest of every device's `x`."""
        return x if self.axis_name is None else lax.pmax(x, self.axis_name)

    def is_bound(self) -> bool:
        """Whether a loop over collectives can be traced here.

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

    def everyone(self, x: jax.Array) -> jax.Array:
        """(N, ...) the values (k, ...) of all devices; needs no bound axis, unlike `all_gather`."""
        device = lax.axis_index(self.axis_name)
        mine = jnp.arange(self.num_devices).reshape(-1, *[1] * x.ndim) == device
        spread = lax.psum(jnp.where(mine, x, jnp.zeros_like(x)), self.axis_name)
        return spread.reshape(self.num_nodes, *x.shape[1:])

    def own(self, x: jax.Array) -> jax.Array:
        """(k, ...) the part of this device of values (N, ...)."""
        first = lax.axis_index(self.axis_name) * self.nodes_per_device
        return lax.dynamic_slice_in_dim(x, first, self.nodes_per_device)


def descending(rows: jax.Array, first: jax.Array) -> jax.Array:
    """(k, N, ...) rows `first`, `first` - 1, ... mod N of each node's (N, ...), first (k,).

    It is its own inverse: the row of chunk j stands at place (first - j) mod N.
    """
    num_nodes = rows.shape[1]
    order = (first[:, None] - jnp.arange(num_nodes, dtype=jnp.int32)) % num_nodes
    return jax.vmap(lambda own, at: own[at])(rows, order)


def reduce_scatter(
    rows: jax.Array, hop: Hop, add: Callable[[jax.Array, jax.Array], jax.Array], inputs: Any
) -> tuple[jax.Array, Any]:
    """N - 1 steps of adding.

    Args:
      rows: (k, N, c) the chunks of each node in the order in which it meets them.
      hop: (k, c) partial sums and one slice of `inputs` -> those that arrive, and an output.
      add: own row, arrived sum -> sum.
      inputs: pytree with a leading axis N - 1, one slice a step.

    Returns:
      (k, c) the sum of the last chunk in the order, and the stacked outputs.
    """

    def step(partial_sum: jax.Array, slices: tuple) -> tuple[jax.Array, Any]:
        row, given = slices
        arrived, out = hop(partial_sum, given)
        return add(row, arrived), out

    return lax.scan(step, rows[:, 0], (jnp.moveaxis(rows[:, 1:], 1, 0), inputs))


def all_gather(own: jax.Array, hop: Hop, inputs: Any, steps: int) -> tuple[jax.Array, Any]:
    """N - 1 steps of passing on.

    Args:
      own: (k, c) the chunk that each node starts with.
      hop: as in `reduce_scatter`.
      inputs: pytree with a leading axis N - 1, one slice a step.
      steps: N - 1.

    Returns:
      (k, N, c) the own chunk and those that arrived, in the order met; the stacked outputs.
    """

    def step(held: jax.Array, given: Any) -> tuple[jax.Array, Any]:
        arrived, out = hop(held, given)
        return arrived, (arrived, out)

    _, (arrived, outputs) = lax.scan(step, own, inputs, length=steps)
    return jnp.concatenate([own[:, None], jnp.moveaxis(arrived, 0, 1)], axis=1), outputs
