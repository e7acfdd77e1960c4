"""The one road around the ring: values, tangents and laws take the same rounds.

N nodes, a vector in N chunks, N - 1 rounds each way (see the reference):

* reduce-scatter, round t: node i sends its partial sum of chunk (i - t) mod N to node i + 1, which
  adds its own; afterwards node i owns the sum of chunk (i + 1) mod N.
* all-gather, round t: node i sends chunk (i + 1 - t) mod N on to node i + 1.

Both halves are the same hop and differ in what is done with the chunk that arrives, so that they
are one `lax.scan`, whose size in the compiled program does not depend on N.

Reference: Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 117 (2009).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring._types import PyTree
from jaxqring.ring._call_spec import CallSpec
from jaxqring.ring._lanes import turned

#: (what travels, the number of the hop, its slice) -> (what is received, an output).
Cross = Callable[[Any, jax.Array, Any], tuple[Any, Any]]
#: The numbers of the chunks, what arrived -> the sums with each node's own chunk.
Add = Callable[[jax.Array, Any], Any]
#: What is collected, the place in the tables, the chunks -> what is collected with them there.
Put = Callable[[Any, jax.Array, Any], Any]


class Journey(NamedTuple):
    """The end of a journey around the ring.

    Attributes:
      result: pytree, (k, N, ...) the chunks as read if the call gathers, else (k, ...) the last.
      outputs: the outputs of all hops, stacked.
      sent: everything that was sent in a hop of the loop, stacked; None unless it is kept.
    """

    result: PyTree
    outputs: PyTree
    sent: PyTree


def travel(
    spec: CallSpec,
    *,
    start: Callable[[jax.Array | None], PyTree],
    cross: Cross,
    add: Add,
    read: Callable[[Any], PyTree],
    put: Put,
    slices: PyTree = None,
) -> Journey:
    """Sends chunks around the ring and collects them.

    Args:
      spec: of the call.
      start: makes what nodes send first, a pytree of arrays (k, ...), of the numbers of the chunks
        (k,); of None where each node has one chunk only, as nothing is added.
      cross: sends what travels over one link, and returns what the other end receives.
      add: adds each node's own chunk to a partial sum that it received.
      read: makes of what travels a pytree of arrays (k, ...), as they are collected.
      put: puts chunks that arrived into the tables (k, N, ...) of those collected, at one place for
        all. Where a device has several nodes, chunks are collected in the order in which they
        arrive, which is the same for all, and put in that of their numbers at the end: places that
        differ from node to node would copy whole tables in every hop. A place is filled more than
        once if chunks are also added up; the last time they are whole.
      slices: pytree with a leading axis, one slice for each hop of the loop.
    """
    place, first = spec.place, spec.first_chunk(spec.place.nodes())
    begun = start(first % place.num_nodes if spec.reduce else None)
    by_gather = spec.ends_in_gather()
    collected = None
    if spec.gather and not by_gather:
        collected = _empty(spec, read, begun)
        if not (spec.reduce and spec.rounds):
            collected = put(collected, spec.place.place_of(first, jnp.int32(-1)), begun)
    held, collected, (outputs, sent) = _around(
        spec, begun, collected, cross, add, put, first, slices
    )
    if by_gather:
        collected = _gathered(spec, read, held)
        if jax.tree.leaves(outputs):
            last = _hops_of_gather(spec, cross, held)
            outputs = jax.tree.map(lambda *halves: jnp.concatenate(halves), outputs, last)
    elif collected is not None and spec.place.nodes_per_device > 1:
        collected = jax.tree.map(
            lambda table: turned(table, first % spec.place.num_nodes), collected
        )
    return Journey(read(held) if collected is None else collected, outputs, sent)


def _empty(spec: CallSpec, read: Callable[[Any], PyTree], begun: PyTree) -> PyTree:
    """(k, N, ...) zeros to put chunks in, with the types of mapped values."""
    zero = spec.place.nodes()[0] * 0

    def table(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        shape = leaf.shape[0], spec.place.num_nodes, *leaf.shape[1:]
        return jnp.full(shape, zero.astype(leaf.dtype))

    return jax.tree.map(table, jax.eval_shape(read, begun))


def _around(
    spec: CallSpec,
    held: PyTree,
    collected: PyTree,
    cross: Cross,
    add: Add,
    put: Put,
    first: jax.Array,
    slices: PyTree,
) -> tuple[PyTree, PyTree, tuple[PyTree, PyTree]]:
    """N - 1 rounds of adding, if the call reduces, and N - 1 of passing on, if it collects here.

    One loop for both halves, so that a hop is compiled once. Chunks arrive in descending order,
    from the one before the first that was sent.
    """
    place, collects = spec.place, collected is not None

    def hop(state: tuple, given: tuple) -> tuple[tuple, tuple]:
        held, collected = state
        index, own = given
        sent = held if spec.keep_sent else None
        received, output = cross(held, index, own)
        held = jax.tree.map(place.shift, received)
        arrived = (first - 1 - index) % place.num_nodes
        if spec.reduce and collects:
            adding = functools.partial(add, arrived)
            held = lax.cond(index < spec.rounds, adding, lambda held: held, held)
        elif spec.reduce:
            held = add(arrived, held)
        if collects:
            collected = put(collected, place.place_of(first, index), held)
        return (held, collected), (output, sent)

    hops = spec.rounds * (spec.reduce + collects)
    indices = jnp.arange(hops, dtype=jnp.int32)
    (held, collected), outputs = lax.scan(hop, (held, collected), (indices, slices))
    return held, collected, outputs


def _gathered(spec: CallSpec, read: Callable[[Any], PyTree], held: PyTree) -> PyTree:
    """The same chunks as the second half of the loop collects, on every node.

    In a form whose type says that they are the same everywhere; nothing is lost on the way.
    """
    place = spec.place

    def of_all(leaf: jax.Array) -> jax.Array:
        chunks = lax.all_gather(leaf, place.axis_name, to="invarying").reshape(-1, *leaf.shape[1:])
        return jnp.roll(chunks, 1, axis=0) if spec.reduce else chunks

    def on_each(leaf: jax.Array) -> jax.Array:
        return jnp.broadcast_to(leaf, (place.nodes_per_device, *leaf.shape))

    return jax.tree.map(on_each, read(jax.tree.map(of_all, held)))


def _hops_of_gather(spec: CallSpec, cross: Cross, held: PyTree) -> PyTree:
    """The outputs of hops in a second half that is not a loop: of the same size, counted alike."""
    indices = spec.rounds + jnp.arange(spec.rounds, dtype=jnp.int32)
    return lax.map(lambda index: cross(held, index, None)[1], indices)
