"""The levels of the nodes' own values: made, masked, packed and counted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import derive
from jaxqring.codec._formats import FixedPoint
from jaxqring.codes._coded_hop import Tally
from jaxqring.ring._call_spec import CallSpec, Counts
from jaxqring.ring._hops import Inputs
from jaxqring.ring._lanes import one_lane
from jaxqring.ring._ring import Ring

#: The scale of values that are in units of levels already.
SCALE = np.float32(1)


def first_words(inputs: Inputs, ring: Ring, spec: CallSpec, chunk: jax.Array | None) -> jax.Array:
    """(k, W) packed words of the chunks that the nodes send first."""
    lanes = _own_lanes(inputs, ring, spec, chunk)
    errors = None if ring.masks is None else ring.masks.first_errors(ring.wire.lanes)
    if errors is not None:
        lanes = [ring.wire.add(levels, errors[:, lane]) for lane, levels in enumerate(lanes)]
    return jax.vmap(ring.wire.join)(lanes)


def add_own(
    inputs: Inputs, ring: Ring, spec: CallSpec, chunk: jax.Array, words: jax.Array
) -> jax.Array:
    """(k, W) partial sums that arrived, with each node's own chunk added."""
    received = jax.vmap(ring.wire.part)(words)
    lanes = zip(_own_lanes(inputs, ring, spec, chunk), received, strict=True)
    return jax.vmap(ring.wire.join)([ring.wire.add(own, levels) for own, levels in lanes])


def _own_lanes(
    inputs: Inputs, ring: Ring, spec: CallSpec, chunk: jax.Array | None
) -> list[jax.Array]:
    """L lanes, each (k, G), of the levels of one chunk of each node, under masks if there are."""
    wire, nodes = ring.wire, spec.place.nodes()
    levels_of = functools.partial(_own_levels, inputs, ring, spec, chunk)
    if inputs.rounding is not None and wire.lanes > 2:
        # In a loop, which ends in memory: XLA would put the rounds of all lanes into one
        # piece of code, once for each word that a lane is in.
        lanes = list(lax.map(levels_of, jnp.arange(wire.lanes)))
    else:
        lanes = [levels_of(lane) for lane in range(wire.lanes)]
    if ring.masks is None:
        return lanes
    draw = functools.partial(
        ring.masks.lanes,
        size=lanes[0].shape[1],
        bits=wire.bits,
        num_nodes=spec.place.num_nodes,
    )
    masks = jax.vmap(draw)(nodes, nodes if chunk is None else chunk)
    return [wire.add(levels, mask) for levels, mask in zip(lanes, masks, strict=True)]


def _own_levels(
    inputs: Inputs, ring: Ring, spec: CallSpec, chunk: jax.Array | None, lane: jax.Array | int
) -> jax.Array:
    """(k, G) levels of one lane of one chunk of each node; of the only chunk for None."""
    if chunk is None:
        values, chunk = inputs.values[:, lane], spec.place.nodes()
    else:
        values = one_lane(inputs.values, chunk, lane)
    key = None if inputs.rounding is None else derive(inputs.rounding, chunk, lane)
    encode = ring.wire.encode
    return jax.vmap(lambda own, k: encode(own, SCALE, spec.num_terms, k))(values, key)


def count_values(
    inputs: Inputs, result: jax.Array, ring: Ring, spec: CallSpec, links: Tally
) -> Counts:
    """The counters of a call, from those of its links and from what it was given or delivered."""
    wire, zero = ring.wire, links.errors[0] * 0
    if not isinstance(wire, FixedPoint):
        return Counts(links, zero, _count(~jnp.isfinite(result)), zero)
    values = inputs.values
    saturated = _count(wire.saturates(values, SCALE, spec.num_terms))
    non_finite = _count(~jnp.isfinite(values))
    return Counts(links, saturated, non_finite, _count_vanished(inputs, ring, spec))


def _count(flags: jax.Array) -> jax.Array:
    """() uint32 the number of flags that are set."""
    return jnp.sum(flags, dtype=jnp.uint32)


def _count_vanished(inputs: Inputs, ring: Ring, spec: CallSpec) -> jax.Array:
    """() uint32 the number of values that are not zero and are sent as zero."""
    values, place = inputs.values, spec.place

    def of_chunk(chunk: jax.Array | None) -> jax.Array:
        lanes = range(values.shape[-2])
        rows = [values[:, i] if chunk is None else one_lane(values, chunk, i) for i in lanes]
        vanished = [
            (_own_levels(inputs, ring, spec, chunk, lane) == 0) & (row != 0) & ~jnp.isnan(row)
            for lane, row in enumerate(rows)
        ]
        return _count(jnp.stack(vanished))

    if values.ndim == 3:  # one chunk on each node
        return of_chunk(None)
    nodes = place.nodes()
    chunks = jnp.arange(place.num_nodes, dtype=jnp.int32)
    return _count(lax.map(lambda chunk: of_chunk(nodes * 0 + chunk), chunks))
