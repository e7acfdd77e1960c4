"""The ring on one flat array: what every collective runs.

A chunk travels as packed words. Where it arrives, a node makes the codes of its own values, adds
them, and packs the sum, or decodes what it stores, all in one pass: no array of codes of the size
of the payload is ever written. By XLA's account a program takes three times the payload, input and
result included, and twice that where chunks do not fill whole words and are padded.

The derivative is in `jaxqring.ring._tangent`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring._threefry import KeyWords, cipher_key, derive
from jaxqring.codec._formats import FixedPoint
from jaxqring.codes._coded_hop import Tally, attempt_law
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.ring import _travel
from jaxqring.ring._call_spec import Counts, Plan
from jaxqring.ring._exact import exact_tangent
from jaxqring.ring._hops import Inputs, rounds_at_random, through_links
from jaxqring.ring._lanes import in_lanes, one_lane, out_of_lanes, put_lanes
from jaxqring.ring._ring import Ring, links_of
from jaxqring.ring._tangent import tangent, transition_tangent
from jaxqring.ring._travel import Place

#: The value of one code, in units of codes.
_ONE = np.float32(1)


def collective(
    values: jax.Array, ring: Ring, key: jax.Array | None, plan: Plan
) -> tuple[jax.Array, Counts | None]:
    """Reduces, gathers or both, around the ring.

    Args:
      values: float32 in units of codes, (k, N, c) chunks if the plan reduces, else (k, c).
      ring: checked against the plan's place, with a wire of values in units of codes.
      key: typed key, or None if the ring draws nothing.
      plan: static.

    Returns:
      float32, (k, N, c) if the plan gathers, else (k, c); and the counts if the plan counts.
    """
    result, counts, _ = _with_trail(values, ring, key, plan)
    return result, counts


def call_keys(key: jax.Array, ring: Ring, plan: Plan) -> tuple[KeyWords, KeyWords]:
    """The cipher keys of a call, and those of its own stream: each word (k,).

    Calls that differ in kind, sizes or structure have other streams, so that they draw
    independently from one key. An estimator that watches calls by their keys knows no structure,
    and gives every call a key of its own.
    """
    known = cipher_key(jnp.broadcast_to(key, plan.place.nodes().shape))
    if ring.overrides is not None and ring.overrides.calls is not None:
        return known, known
    return known, derive(known, *plan.stream)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _with_trail(
    values: jax.Array, ring: Ring, key: jax.Array | None, plan: Plan
) -> tuple[jax.Array, Counts | None, jax.Array | None]:
    return _run(_inputs(values, ring, key, plan), ring, plan)


@functools.partial(_with_trail.defjvp, symbolic_zeros=True)
def _with_trail_jvp(plan: Plan, primals: tuple, tangents: tuple) -> tuple:
    if plan.keep_codes:
        raise ValueError(
            "`ring` must not carry a derivative with respect to noise that is differentiated again,"
            " but got one: codes on the wire have no derivative, so differentiate with respect to"
            " noise last."
        )
    values, ring, key = primals
    d_values = tangents[0]
    if isinstance(d_values, SymbolicZero):
        d_values = values * 0  # not zeros: it has the type of a mapped value
    d_transition = transition_tangent(ring, tangents[1])
    here, bound = plan.place, plan.place.is_bound()
    follows_spread = ring.noise == "gaussian" and not ring.scramble
    inner = plan._replace(keep_codes=d_transition is not None or follows_spread)
    if not bound:
        values, d_values, ring, d_transition, key = _all_nodes(
            values, d_values, ring, d_transition, key, here
        )
        inner = inner._replace(place=Place(None, 1, here.num_nodes), replicated=False)
    # Through the function itself, so that its result can be differentiated once more.
    result, counts, sent = _with_trail(values, ring, key, inner)
    keys = None
    if key is not None and ring.draws:
        _, keys = call_keys(key, ring, inner)
    if ring.derivative == "exact" and d_transition is not None:
        moved = exact_tangent(values, result, ring, d_transition, inner)
        moved += tangent(values, d_values, ring, None, inner, sent, keys)
    else:
        moved = tangent(values, d_values, ring, d_transition, inner, sent, keys)
    if not bound:
        result, moved = here.own(result), here.own(moved)
        counts = _own_part(counts, here)
    outputs = (result, counts, None)
    no_tangents = jax.tree.map(lambda x: SymbolicZero(jax.typeof(x).to_tangent_aval()), outputs[1:])
    return outputs, (moved, *no_tangents)


def _all_nodes(
    values: jax.Array,
    d_values: jax.Array,
    ring: Ring,
    d_transition: jax.Array | None,
    key: jax.Array | None,
    place: Place,
) -> tuple:
    """The inputs of all nodes, for one device to carry them all."""
    try:
        nodes = place.nodes()
    except NameError:
        raise ValueError(
            f"`axis_name` must be bound where the collective is differentiated, but got"
            f" {place.axis_name!r} from a vmap inside the jit that grad was applied to, with a"
            " jit, scan, cond or checkpoint inside the vmap: apply jit to the grad instead."
        ) from None
    if ring.noise != "off":
        links = place.everyone(links_of(ring.transition, nodes))
        ring = dataclasses.replace(ring, channel=SymbolChannel(links))
    if d_transition is not None:
        d_transition = place.everyone(links_of(d_transition, nodes))
    if ring.masks is not None and ring.masks.errors is not None:
        masks = dataclasses.replace(ring.masks, errors=place.everyone(ring.masks.errors))
        ring = dataclasses.replace(ring, masks=masks)
    if key is not None and ring.draws:
        data = place.everyone(jax.random.key_data(jnp.broadcast_to(key, nodes.shape)))
        key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
    return place.everyone(values), place.everyone(d_values), ring, d_transition, key


def _own_part(counts: Counts | None, place: Place) -> Counts | None:
    """What this device would have counted, of what one device that carried all nodes did."""
    if counts is None:
        return None
    # Values are counted on one device, as each device counts its own elsewhere.
    first = (lax.axis_index(place.axis_name) == 0).astype(jnp.uint32)
    links = jax.tree.map(place.own, counts.links)
    return Counts(links, *(total * first for total in counts[1:]))


def _inputs(values: jax.Array, ring: Ring, key: jax.Array | None, plan: Plan) -> Inputs:
    nodes = plan.place.nodes()
    links = None if ring.noise == "off" else links_of(ring.transition, nodes)
    laws = None
    protection = ring.protection
    if links is not None and protection is not None and ring.simulate == "attempts":
        law = functools.partial(attempt_law, size=values.shape[-1], bits=ring.wire.bits)
        laws = jax.vmap(lambda link: law(protection, SymbolChannel(link)))(links)
    called = keys = None
    if key is not None and ring.draws:
        called, keys = call_keys(key, ring, plan)
    size = values.shape[-1]
    envelopes = None
    if ring.overrides is not None:
        turns = (plan.place.num_nodes - 1) * (plan.reduce + plan.gather)
        ring.overrides.check(plan.place.num_nodes, turns, size)
        if ring.overrides.envelope is not None:
            envelopes = links_of(ring.overrides.envelope, nodes)
    return Inputs(in_lanes(values, ring.wire.lanes), size, links, called, keys, laws, envelopes)


def _run(
    given: Inputs, ring: Ring, plan: Plan
) -> tuple[jax.Array, Counts | None, jax.Array | None]:
    """The values, what happened, and the words sent in every hop if the plan keeps them."""
    wire, place = ring.wire, plan.place
    nodes, turns = place.nodes(), place.num_nodes - 1
    first = plan.first(nodes)
    rounding = None
    if rounds_at_random(ring) and given.keys is not None:
        rounding = derive(given.keys, 2 * turns, nodes)  # the stream after those of the hops

    def own_codes(chunk: jax.Array | None, lane: jax.Array | int) -> jax.Array:
        if chunk is None:
            row, at = given.values[:, lane], nodes
        else:
            row, at = one_lane(given.values, chunk, lane), chunk
        key = None if rounding is None else derive(rounding, at, lane)
        return jax.vmap(lambda own, k: wire.encode(own, _ONE, plan.num_terms, k))(row, key)

    def own_lanes(chunk: jax.Array | None) -> list[jax.Array]:
        if rounding is not None and wire.lanes > 2:
            # In a loop, which ends in memory: XLA would put the rounds of all lanes into one
            # piece of code, once for each word that a lane is in.
            lanes = list(lax.map(lambda lane: own_codes(chunk, lane), jnp.arange(wire.lanes)))
        else:
            lanes = [own_codes(chunk, lane) for lane in range(wire.lanes)]
        if ring.masks is None:
            return lanes
        size, count = lanes[0].shape[1], place.num_nodes
        draw = functools.partial(ring.masks.lanes, size=size, bits=wire.bits, nodes=count)
        hidden = jax.vmap(draw)(nodes, nodes if chunk is None else chunk)
        return [wire.add(codes, mask) for codes, mask in zip(lanes, hidden, strict=True)]

    def add(chunk: jax.Array, words: jax.Array) -> jax.Array:
        lanes = jax.vmap(wire.part)(words)
        sums = [wire.add(own, codes) for own, codes in zip(own_lanes(chunk), lanes, strict=True)]
        return jax.vmap(wire.join)(sums)

    def decoded(words: jax.Array) -> list[jax.Array]:
        return [wire.decode(codes, _ONE) for codes in jax.vmap(wire.part)(words)]

    def store(collected: jax.Array, chunk: jax.Array, words: jax.Array) -> jax.Array:
        return put_lanes(collected, chunk, decoded(words))

    def send(words: jax.Array, index: jax.Array) -> tuple[jax.Array, Tally]:
        mend = index >= turns * plan.reduce if plan.mends else None
        return through_links(words, given, ring, index, nodes, mend)

    def hop(words: jax.Array, index: jax.Array, _: None) -> tuple[jax.Array, tuple]:
        received, tally = send(words, index)
        seen = tally if plan.report else None
        return place.shift(received), (seen, words if plan.keep_codes else None)

    chunk = first % place.num_nodes if plan.reduce else None
    own = own_lanes(chunk)
    off = None if ring.masks is None else ring.masks.first_errors(wire.lanes)
    if off is not None:
        own = [wire.add(codes, off[:, lane]) for lane, codes in enumerate(own)]
    start = jax.vmap(wire.join)(own)
    by_gather = plan.ends_in_gather()
    loops = plan.gather and not by_gather
    collected = None
    if loops:
        shape = (nodes.shape[0], place.num_nodes, *given.values.shape[-2:])
        collected = jnp.full(shape, (nodes[0] * 0).astype(jnp.float32))
        collected = store(collected, first, start) if not (plan.reduce and turns) else collected
    words, collected, (seen, sent) = _travel.around(
        start, collected, hop, add if plan.reduce else None, store if loops else None, place, first
    )
    if by_gather:
        # The same values, in a form whose type says that they are the same everywhere.
        chunks = lax.all_gather(words, place.axis_name, to="invarying").reshape(-1, words.shape[1])
        chunks = jnp.roll(chunks, 1, axis=0) if plan.reduce else chunks
        every = jnp.stack(decoded(chunks), axis=1)
        collected = jnp.broadcast_to(every, (nodes.shape[0], *every.shape))
        if plan.report:
            sends = turns + jnp.arange(turns, dtype=jnp.int32)
            watched = lax.map(lambda index: send(words, index)[1], sends)
            seen = jax.tree.map(lambda *halves: jnp.concatenate(halves), seen, watched)
    if collected is None:
        collected = jnp.stack(decoded(words), axis=1)
    result = out_of_lanes(collected, given.size)
    if ring.overrides is not None and ring.overrides.calls is not None and given.called is not None:
        result = jnp.where(ring.overrides.knows(given.called), result, jnp.nan)
    counts = None
    if plan.report:
        links = jax.tree.map(lambda each: jnp.sum(each, axis=0, dtype=jnp.uint32), seen)
        counts = _count(given.values, result, ring, plan, links)
        if isinstance(wire, FixedPoint):
            counts = counts._replace(vanished=_count_zeros(given.values, own_codes, place))
    return result, counts, sent


def _count_zeros(values: jax.Array, own_codes: Callable, place: Place) -> jax.Array:
    """() uint32 how many values that are not zero are sent as zero."""

    def of_chunk(chunk: jax.Array | None) -> jax.Array:
        lanes = range(values.shape[-2])
        rows = [values[:, i] if chunk is None else one_lane(values, chunk, i) for i in lanes]
        gone = [
            (own_codes(chunk, lane) == 0) & (row != 0) & ~jnp.isnan(row)
            for lane, row in enumerate(rows)
        ]
        return jnp.sum(jnp.stack(gone), dtype=jnp.uint32)

    if values.ndim == 3:  # one chunk on each node
        return of_chunk(None)
    nodes = place.nodes()
    each = lax.map(
        lambda at: of_chunk(nodes * 0 + at), jnp.arange(place.num_nodes, dtype=jnp.int32)
    )
    return jnp.sum(each, dtype=jnp.uint32)


def _count(values: jax.Array, result: jax.Array, ring: Ring, plan: Plan, links: Tally) -> Counts:
    none = links.errors[0] * 0
    if isinstance(ring.wire, FixedPoint):
        clipped = ring.wire.saturates(values, _ONE, plan.num_terms)
        saturated, judged = jnp.sum(clipped, dtype=jnp.uint32), values
    else:
        saturated, judged = none, result
    return Counts(links, saturated, jnp.sum(~jnp.isfinite(judged), dtype=jnp.uint32), none)
