"""Which chunk moves when: the loop of a ring all-reduce.

N nodes, a vector in N chunks, N - 1 steps each way (Patarasuk and Yuan, J. Parallel Distrib.
Comput. 69, 117 (2009)):

* reduce-scatter, step t: node i sends its partial sum of chunk (i - t) mod N to node i + 1, which
  adds its own; afterwards node i owns the sum of chunk (i + 1) mod N.
* all-gather, step t: node i sends chunk (i + 1 - t) mod N on to node i + 1.

Both halves are the same hop and differ in what is done with the chunk that arrives, so that they
are one `lax.scan`, whose size in the compiled program does not depend on N.

One device may carry k neighbouring nodes: every array has a leading axis of length k.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring.ring._axes import as_varying

Hop = Callable[[Any, jax.Array, Any], tuple[Any, Any]]


class Place(NamedTuple):
    """Where this device sits in the ring. Static but for the traced index of the device.

    Attributes:
      axis_name: the mapped axis, or None if one device carries all nodes.
      num_devices: its size.
      nodes_per_device: k, how many neighbouring nodes one device carries.
      beside: further axes of a `shard_map` that what is sent varies over, in its types.
    """

    axis_name: Any
    num_devices: int
    nodes_per_device: int
    beside: frozenset = frozenset()

    @property
    def num_nodes(self) -> int:
        return self.num_devices * self.nodes_per_device

    def nodes(self) -> jax.Array:
        """(k,) int32 the nodes on this device."""
        local = jnp.arange(self.nodes_per_device, dtype=jnp.int32)
        if self.axis_name is None:
            return local
        nodes = lax.axis_index(self.axis_name) * self.nodes_per_device + local
        return as_varying(nodes, self.beside)

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


def around(
    held: Any,
    met: Any,
    hop: Hop,
    add: Callable[[jax.Array, Any], Any] | None,
    store: Callable[[Any, jax.Array, Any], Any] | None,
    place: Place,
    chunk: jax.Array,
    given: Any = None,
) -> tuple[Any, Any, Any]:
    """N - 1 steps of adding, if `add` is given, and N - 1 of passing on, if `store` is.

    One loop for both halves, so that what a hop does is compiled once.

    Args:
      held: what each node sends first, arrays (k, ...).
      met: what is collected, updated in place.
      hop: held, the number of the step and one slice of `given` -> what arrives, and an output.
      add: (k,) numbers of chunks, sums that arrived without the nodes' own chunks -> with them.
      store: collected, (k,) numbers of chunks, the chunks -> collected. A chunk is stored more
        than once if it is also added up; the last time it is whole.
      place: where the nodes are.
      chunk: (k,) the chunk that each node sends first; they arrive in descending order.
      given: pytree with a leading axis, one slice a step.

    Returns:
      What is held at last, what is collected, and the stacked outputs.
    """
    turns = place.num_nodes - 1
    steps = turns * ((add is not None) + (store is not None))

    def step(state: tuple, slices: tuple) -> tuple[tuple, Any]:
        held, met = state
        index, own = slices
        held, output = hop(held, index, own)
        arrived = (chunk - 1 - index) % place.num_nodes
        if add is not None and store is not None:
            adding = functools.partial(add, arrived)
            held = lax.cond(index < turns, adding, lambda held: held, held)
        elif add is not None:
            held = add(arrived, held)
        if store is not None:
            met = store(met, arrived, held)
        return (held, met), output

    indices = jnp.arange(steps, dtype=jnp.int32)
    (held, met), outputs = lax.scan(step, (held, met), (indices, given))
    return held, met, outputs
