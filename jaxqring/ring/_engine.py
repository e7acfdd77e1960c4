"""The ring on one flat array: the program that every collective runs, and its derivative rule.

A chunk travels as packed words. Where it arrives, a node makes the levels of its own values, adds
them, and packs the sum, all in one pass: no array of levels of the size of the payload is ever
written. What is gathered is stored as words and decoded once, at the end. By XLA's account a
program takes 2.7 times the payload on a wire of 16 bits and 3.3 times on one of 32, input and
result included, and up to twice that where chunks do not fill whole words and are padded.

A call goes through these modules of the room, each with a carrier of its own:

    ===========  ==================  =============================================================
    Carrier      Module              Content
    ===========  ==================  =============================================================
    `Ring`       `_ring`             configuration: links and what is done on them; a pytree
    `Call`       `_call`             a checked call on one device: leaves, place, ring, key
    `Scales`     `_payload`          the values of one level that all nodes agreed on, by block
    `CallSpec`   `_call_spec`        static description of a call: which halves, on which axis
    `Place`      `_place`            the nodes of this device; moves of data between devices
    `Inputs`     `_hops`             arrays of this device: values in lanes, links, keys
    `Masks`      `_masking`          zero-sum masks on the levels; part of a `Ring`
    `Overrides`  `_overrides`        errors that a gradient estimator sets; part of a `Ring`
    `Tally`      `codes._coded_hop`  counters of one hop over each link
    `Journey`    `_travel`           chunks collected, counters and words sent of all hops
    `Counts`     `_call_spec`        counters of a whole call on this device
    `Report`     `_report`           counters of a whole call on all nodes, as the user sees them
    ===========  ==================  =============================================================
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring._threefry import KeyWords, cipher_key, derive
from jaxqring._types import Key
from jaxqring.codes._coded_hop import Tally, attempt_thresholds
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.ring._call_spec import CallSpec, Counts
from jaxqring.ring._cost import Hops
from jaxqring.ring._exact import exact_tangent
from jaxqring.ring._hops import Inputs, through_links
from jaxqring.ring._lanes import in_lanes, out_of_lanes, put_row
from jaxqring.ring._levels import SCALE, add_own, count_values, first_words
from jaxqring.ring._place import Place
from jaxqring.ring._ring import Ring, links_of, rounds_at_random
from jaxqring.ring._tangent import tangent, transition_tangent
from jaxqring.ring._travel import Journey, travel


def collective(
    values: jax.Array, ring: Ring, key: Key | None, spec: CallSpec
) -> tuple[jax.Array, Counts | None]:
    """Reduces, gathers or both, around the ring.

    Args:
      values: float32 in units of levels, (k, N, c) chunks if the call reduces, else (k, c).
      ring: checked against the place of the call, with a wire of values in units of levels.
      key: typed key, or None if the ring draws nothing.
      spec: static.

    Returns:
      float32, (k, N, c) if the call gathers, else (k, c); and its counters if it reports.
    """
    result, counts, _ = _with_sent(values, ring, key, spec)
    return result, counts


def call_keys(key: Key, ring: Ring, spec: CallSpec) -> tuple[KeyWords, KeyWords]:
    """The cipher keys of a call, and those of its own stream: each word (k,).

    Calls that differ in kind, sizes or structure have other streams, so that they draw
    independently from one key. An estimator that watches calls by their keys knows no structure,
    and gives every call a key of its own.
    """
    known = cipher_key(jnp.broadcast_to(key, spec.place.nodes().shape))
    if ring.overrides is not None and ring.overrides.calls is not None:
        return known, known
    return known, derive(known, *spec.stream)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _with_sent(
    values: jax.Array, ring: Ring, key: Key | None, spec: CallSpec
) -> tuple[jax.Array, Counts | None, jax.Array | None]:
    """As `collective`, and the words that every hop sent if `spec.keep_sent`."""
    place = spec.place
    if not place.is_within_device():
        return _of_device(values, ring, key, spec)
    # In order along a leading axis: under `vmap` a place in a table that differs from node to node
    # copies the whole table in every hop.
    values, ring, key = _all_nodes(values, ring, key, place, place.all_gather)
    result, counts, sent = _of_device(values, ring, key, _of_one_device(spec))
    if sent is not None:
        sent = jnp.moveaxis(place.own(jnp.moveaxis(sent, 1, 0)), 0, 1)
    return place.own(result), _own_counts(counts, place), sent


def _of_device(
    values: jax.Array, ring: Ring, key: Key | None, spec: CallSpec
) -> tuple[jax.Array, Counts | None, jax.Array | None]:
    """As `_with_sent`, of the nodes that this device carries."""
    inputs = _inputs(values, ring, key, spec)
    journey = _journey(inputs, ring, spec)
    result = out_of_lanes(_decoded(journey.result, ring), inputs.size)
    overrides = ring.overrides
    if overrides is not None and overrides.calls is not None and inputs.called is not None:
        own = _hops(ring, spec, inputs.size)
        result = jnp.where(overrides.knows(inputs.called, own), result, jnp.nan)
    counts = None
    if spec.report:
        links = jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=jnp.uint32), journey.outputs)
        counts = count_values(inputs, result, ring, spec, links)
    return result, counts, journey.sent


def _inputs(values: jax.Array, ring: Ring, key: Key | None, spec: CallSpec) -> Inputs:
    nodes = spec.place.nodes()
    links = None if ring.noise == "off" else links_of(ring.transition, nodes)
    laws = None
    protection = ring.protection
    if links is not None and protection is not None and ring.simulate == "attempts":
        law = functools.partial(attempt_thresholds, size=values.shape[-1], bits=ring.wire.bits)
        laws = jax.vmap(lambda link: law(protection, SymbolChannel(link)))(links)
    called = keys = rounding = None
    if key is not None and ring.draws:
        called, keys = call_keys(key, ring, spec)
        if rounds_at_random(ring.wire):
            rounding = derive(keys, 2 * spec.rounds, nodes)  # the stream after those of the hops
    size = values.shape[-1]
    envelopes = None
    if ring.overrides is not None:
        ring.overrides.check(_hops(ring, spec, size), ring.protection)
        if ring.overrides.envelope is not None:
            envelopes = links_of(ring.overrides.envelope, nodes)
    lanes = in_lanes(values, ring.wire.lanes)
    return Inputs(lanes, size, links, called, keys, rounding, laws, envelopes)


def _hops(ring: Ring, spec: CallSpec, size: int) -> Hops:
    return Hops(spec.place.num_nodes, spec.num_hops, size, ring.wire.bits)


def _journey(inputs: Inputs, ring: Ring, spec: CallSpec) -> Journey:
    """The journey of packed words: those delivered, and the tallies of all hops."""
    nodes = spec.place.nodes()

    def cross(words: jax.Array, index: jax.Array, _: None) -> tuple[jax.Array, Tally | None]:
        mend = index >= spec.rounds_of_adding if spec.mends else None
        received, tally = through_links(words, inputs, ring, index, nodes, mend)
        return received, tally if spec.report else None

    # Words are collected and decoded at the end, all at once: they are half as large, or less.
    return travel(
        spec,
        start=functools.partial(first_words, inputs, ring, spec),
        cross=cross,
        add=functools.partial(add_own, inputs, ring, spec),
        read=lambda words: words,
        put=put_row,
    )


def _decoded(words: jax.Array, ring: Ring) -> jax.Array:
    """(..., L, G) lanes of packed words (..., G)."""
    levels = jax.vmap(ring.wire.part)(words.reshape(-1, words.shape[-1]))
    lanes = jnp.stack([ring.wire.decode(lane, SCALE) for lane in levels], axis=1)
    return lanes.reshape(*words.shape[:-1], *lanes.shape[1:])


@functools.partial(_with_sent.defjvp, symbolic_zeros=True)
def _with_sent_jvp(spec: CallSpec, primals: tuple, tangents: tuple) -> tuple:
    if spec.keep_sent:
        raise ValueError(
            "`ring` must not carry a derivative with respect to noise that is differentiated again,"
            " but got one: levels on the wire have no derivative, so differentiate with respect to"
            " noise last."
        )
    values, ring, key = primals
    d_values = tangents[0]
    if isinstance(d_values, SymbolicZero):
        d_values = values * 0  # not zeros: it has the type of a mapped value
    d_transition = transition_tangent(ring, tangents[1])
    place, is_bound = spec.place, spec.place.is_bound()
    if not is_bound:
        if d_transition is not None:
            d_transition = place.everyone(links_of(d_transition, _nodes(place)))
        values, ring, key = _all_nodes(values, ring, key, place, place.everyone)
        d_values, spec = place.everyone(d_values), _of_one_device(spec)
    follows_spread = ring.noise == "gaussian" and not ring.scramble
    keep_sent = d_transition is not None or follows_spread
    # Through the function itself, so that its result can be differentiated once more.
    result, counts, sent = _with_sent(values, ring, key, spec._replace(keep_sent=keep_sent))
    keys = None
    if key is not None and ring.draws:
        _, keys = call_keys(key, ring, spec)
    if ring.derivative == "exact" and d_transition is not None:
        d_result = exact_tangent(values, result, ring, d_transition, spec)
        d_result += tangent(values, d_values, ring, None, spec, None, keys)
    else:
        d_result = tangent(values, d_values, ring, d_transition, spec, sent, keys)
    if not is_bound:
        result, d_result = place.own(result), place.own(d_result)
        counts = _own_counts(counts, place)
    outputs = (result, counts, None)
    no_tangents = jax.tree.map(lambda x: SymbolicZero(jax.typeof(x).to_tangent_aval()), outputs[1:])
    return outputs, (d_result, *no_tangents)


def _of_one_device(spec: CallSpec) -> CallSpec:
    """The same call with all nodes on one device."""
    return spec._replace(place=Place(None, 1, spec.place.num_nodes))


def _nodes(place: Place) -> jax.Array:
    try:
        return place.nodes()
    except NameError:
        raise ValueError(
            f"`axis_name` must be bound where the collective is differentiated, but got"
            f" {place.axis_name!r} from a vmap inside the jit that grad was applied to, with a"
            " jit, scan, cond or checkpoint inside the vmap: apply jit to the grad instead."
        ) from None


def _all_nodes(
    values: jax.Array,
    ring: Ring,
    key: Key | None,
    place: Place,
    gather: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, Ring, Key | None]:
    """The inputs of all nodes, for one device to carry them all."""
    nodes = _nodes(place)
    if ring.noise != "off":
        links = gather(links_of(ring.transition, nodes))
        ring = dataclasses.replace(ring, channel=SymbolChannel(links))
    if ring.masks is not None and ring.masks.errors is not None:
        masks = dataclasses.replace(ring.masks, errors=gather(ring.masks.errors))
        ring = dataclasses.replace(ring, masks=masks)
    if key is not None and ring.draws:
        data = gather(jax.random.key_data(jnp.broadcast_to(key, nodes.shape)))
        key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
    return gather(values), ring, key


def _own_counts(counts: Counts | None, place: Place) -> Counts | None:
    """This device's share of counters that one device made for all nodes."""
    if counts is None:
        return None
    # Values are counted on one device, as each device counts its own elsewhere.
    is_first = (lax.axis_index(place.axis_name) == 0).astype(jnp.uint32)
    links = jax.tree.map(place.own, counts.links)
    return Counts(links, *(total * is_first for total in counts[1:]))
