"""The ring on one flat array: what every collective runs, and its derivative.

The derivative is the mean-straight-through rule. A hop delivers v' = sample + (mean - its own
value), so that values are sampled and tangents are those of the conditional mean given the codes
that were sent:

    dv' = slope dv + step sum_j sum_r dT[r | symbol j of v] V_j(r)

with `slope` the regression slope of the mean on the code (1 - 2f for uniform bit flips f) and
V_j(r) what symbol r adds at position j. It is exact in expectation where the loss is linear and
no sum wraps, and first-order otherwise. Quantisation passes tangents straight through, except
where a value is clipped. A loop over the hops carries the tangents, linear in them, so that
forward and reverse mode both work, and may be differentiated again with respect to anything; a
derivative with respect to noise comes last, as its codes have no derivative of their own.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring import checks
from jaxqring.link.coded import Tally, attempt_law
from jaxqring.link.superdense import SymbolChannel
from jaxqring.link.transport import mean_jump
from jaxqring.link.wire import FixedPoint
from jaxqring.ring import schedule
from jaxqring.ring.config import Ring, links_of
from jaxqring.ring.hops import (
    Inputs,
    code_slope,
    effective_channel,
    no_tally,
    node_keys,
    rounds_at_random,
    through_links,
)
from jaxqring.ring.schedule import Place


class Plan(NamedTuple):
    """What is static about one call.

    Attributes:
      place: the mapped axis and the nodes on each device.
      reduce: whether there is a first half, of adding.
      gather: whether there is a second half, of passing on.
      replicated: whether the result must be known to `shard_map` as equal on all nodes.
      report: whether to count errors for a report.
      keep_codes: whether to hand out what every hop sent, for the derivative.
    """

    place: Place
    reduce: bool
    gather: bool
    replicated: bool
    report: bool
    keep_codes: bool = False

    @property
    def num_terms(self) -> int:
        """How many codes are added."""
        return self.place.num_nodes if self.reduce else 1

    def first(self, nodes: jax.Array) -> jax.Array:
        """(k,) the chunk that each node sends first.

        Its own number, so that it ends with the sum of the next chunk; one lower where nothing
        is gathered, so that node i is left with part i.
        """
        return nodes if self.gather else nodes - 1

    def own(self, nodes: jax.Array) -> jax.Array:
        """(k,) the chunk that each node passes on first."""
        return nodes + 1 if self.reduce else nodes


class Counts(NamedTuple):
    """What this device saw, uint32: on its links, each (k,); () clipped, () not finite."""

    links: Tally
    saturated: jax.Array
    non_finite: jax.Array


class _Trail(NamedTuple):
    """What the derivative needs of the values: the step, and the codes sent in every hop."""

    step: jax.Array
    reduce: Any
    gather: Any


def collective(
    values: jax.Array, ring: Ring, key: jax.Array | None, plan: Plan
) -> tuple[jax.Array, Counts | None]:
    """Reduces, gathers or both, around the ring.

    Args:
      values: float32, (k, N, c) chunks if the plan reduces, else (k, c).
      ring: checked against the plan's place.
      key: typed key, or None if the ring draws nothing.
      plan: static.

    Returns:
      float32, (k, N, c) if the plan gathers, else (k, c); and the counts if the plan counts.
    """
    result, counts, _ = _with_trail(values, ring, key, plan)
    return result, counts


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _with_trail(
    values: jax.Array, ring: Ring, key: jax.Array | None, plan: Plan
) -> tuple[jax.Array, Counts | None, _Trail]:
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
    d_transition = _transition_tangent(ring, tangents[1])
    here, bound = plan.place, plan.place.is_bound()
    inner = plan._replace(keep_codes=d_transition is not None)
    if not bound:
        values, d_values, ring, d_transition, key = _all_nodes(
            values, d_values, ring, d_transition, key, here
        )
        inner = inner._replace(place=Place(None, 1, here.num_nodes), replicated=False)
    # Through the function itself, so that its result can be differentiated once more.
    result, counts, trail = _with_trail(values, ring, key, inner)
    moved = _tangent(values, d_values, ring, d_transition, inner, trail)
    if not bound:
        result, moved = here.own(result), here.own(moved)
        counts = _own_part(counts, here)
    outputs = (result, counts, _Trail(trail.step, None, None))
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
        ring = ring.replace(channel=SymbolChannel(links))  # type: ignore[attr-defined]
    if d_transition is not None:
        d_transition = place.everyone(links_of(d_transition, nodes))
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
    return Counts(links, counts.saturated * first, counts.non_finite * first)


def _inputs(values: jax.Array, ring: Ring, key: jax.Array | None, plan: Plan) -> Inputs:
    nodes = plan.place.nodes()
    links = None if ring.noise == "off" else links_of(ring.transition, nodes)
    laws = None
    protection = ring.protection
    if links is not None and protection is not None and ring.simulate == "attempts":
        laws = jax.vmap(lambda link: attempt_law(protection, SymbolChannel(link)))(links)
    keys = None if key is None or not ring.draws else jnp.broadcast_to(key, nodes.shape)
    return Inputs(values, links, keys, laws)


def _run(given: Inputs, ring: Ring, plan: Plan) -> tuple[jax.Array, Counts | None, _Trail]:
    """The values."""
    wire, place, values = ring.wire, plan.place, given.values
    nodes, steps = place.nodes(), place.num_nodes - 1
    scale = _agree_on_step(values, ring, plan)
    rows = schedule.descending(values, plan.first(nodes)) if plan.reduce else values
    # The stream after those of the hops rounds at random.
    keys = None
    if rounds_at_random(ring) and given.keys is not None:
        keys = node_keys(given.keys, 2 * steps, nodes)
    payload = jax.vmap(lambda row, k: wire.encode(row, scale, plan.num_terms, k))(rows, keys)

    def send(sent: jax.Array, stream: jax.Array, mend: bool = False) -> tuple[jax.Array, Tally]:
        return through_links(sent, given, ring, stream, nodes, mend=mend)

    def hop(sent: jax.Array, stream: jax.Array, mend: bool = False) -> tuple[jax.Array, tuple]:
        words, tally = send(sent, stream, mend)
        size = sent.shape[1]
        arrived = jax.vmap(lambda word: wire.unpack(word, size))(place.shift(words))
        return arrived, (tally if plan.report else None, sent if plan.keep_codes else None)

    reduced = gathered = (None, None)
    if plan.reduce:
        streams = jnp.arange(steps, dtype=jnp.int32)
        payload, reduced = schedule.reduce_scatter(payload, hop, wire.add, streams)
    if plan.gather:
        streams = jnp.arange(steps, 2 * steps, dtype=jnp.int32)
        own, mended = payload, functools.partial(hop, mend=plan.replicated)
        payload, gathered = _pass_on(own, mended, streams, plan)
        if plan.report and gathered[0] is None:
            watched = lax.map(lambda stream: send(own, stream, mend=True)[1], streams)
            gathered = (watched, None)
    result = wire.decode(payload, scale)
    counts = None
    if plan.report:
        links = no_tally(nodes)
        for half in (reduced[0], gathered[0]):
            if half is not None:
                links = jax.tree.map(
                    lambda total, seen: total + jnp.sum(seen, axis=0, dtype=jnp.uint32), links, half
                )
        counts = _count(values, result, scale, ring, plan, links)
    return result, counts, _Trail(scale, reduced[1], gathered[1])


def _agree_on_step(values: jax.Array, ring: Ring, plan: Plan) -> jax.Array:
    """() the value of one code, the same on all nodes; the control channel has no errors."""
    if not isinstance(ring.wire, FixedPoint):
        return jnp.float32(1)
    if ring.wire.clip != "max":
        return ring.wire.step(jnp.float32(ring.wire.clip), plan.num_terms)
    finite = jnp.where(jnp.isfinite(values), jnp.abs(values), 0)
    return ring.wire.step(plan.place.highest(jnp.max(finite)), plan.num_terms)


def _pass_on(
    own: jax.Array, hop: schedule.Hop, inputs: Any, plan: Plan
) -> tuple[jax.Array, tuple[Any, Any]]:
    """(k, N, c) all chunks, in order, on every node; and what the hops gave out."""
    place = plan.place
    if plan.replicated and sees_varying(place.axis_name):
        # The same values, in a form whose type says that they are the same everywhere.
        chunks = lax.all_gather(own, place.axis_name, to="invarying").reshape(-1, own.shape[1])
        chunks = jnp.roll(chunks, 1, axis=0) if plan.reduce else chunks
        return jnp.broadcast_to(chunks, (own.shape[0], *chunks.shape)), (None, None)
    met, outputs = schedule.all_gather(own, hop, inputs, place.num_nodes - 1)
    return schedule.descending(met, plan.own(place.nodes())), outputs


def _count(
    values: jax.Array,
    result: jax.Array,
    scale: jax.Array,
    ring: Ring,
    plan: Plan,
    links: Tally,
) -> Counts:
    if isinstance(ring.wire, FixedPoint):
        clipped = ring.wire.saturates(values, scale, plan.num_terms)
        saturated, judged = jnp.sum(clipped, dtype=jnp.uint32), values
    else:
        saturated, judged = links.errors[0] * 0, result
    return Counts(links, saturated, jnp.sum(~jnp.isfinite(judged), dtype=jnp.uint32))


def _transition_tangent(ring: Ring, tangent: Ring) -> jax.Array | None:
    """The tangent of the transition matrices, or None where they are not differentiated."""
    if ring.noise == "off" or tangent.channel is None:
        return None
    if isinstance(tangent.channel.transition, SymbolicZero):
        return None
    if not isinstance(ring.wire, FixedPoint):
        checks.refuse(
            "ring.wire",
            "be a FixedPoint for a derivative with respect to noise (the mean of a float whose"
            " exponent may flip diverges)",
            ring.wire,
        )
    return tangent.channel.transition


def _tangent(
    values: jax.Array,
    d_values: jax.Array,
    ring: Ring,
    d_transition: jax.Array | None,
    plan: Plan,
    trail: _Trail,
) -> jax.Array:
    """The tangent of the result: a ring that carries tangents instead of codes."""
    place, wire = plan.place, ring.wire
    nodes = place.nodes()
    if isinstance(wire, FixedPoint):
        values = lax.stop_gradient(values)
        lost = wire.saturates(values, trail.step, plan.num_terms) | jnp.isnan(values)
        d_values = jnp.where(lost, 0, d_values)
    slope, d_met = jnp.ones((nodes.shape[0], 1), jnp.float32), None
    if ring.noise != "off":
        links = links_of(ring.transition, nodes)
        effective = jax.vmap(functools.partial(effective_channel, ring=ring))
        if d_transition is None:
            met = effective(links)
        else:
            met, d_met = jax.jvp(effective, (links,), (links_of(d_transition, nodes),))
        slope = jax.vmap(functools.partial(code_slope, wire=wire))(met)[:, None]

    def hop(moving: jax.Array, codes: Any, mend: bool = False) -> tuple[jax.Array, None]:
        if mend:
            return place.shift(moving), None
        moving = slope * moving
        if d_met is not None:
            assert isinstance(wire, FixedPoint)  # `_transition_tangent` has refused others
            moving += trail.step * jax.vmap(lambda c, t: mean_jump(c, wire, t))(codes, d_met)
        return place.shift(moving), None

    if plan.reduce:
        rows = schedule.descending(d_values, plan.first(nodes))
        d_values, _ = schedule.reduce_scatter(rows, hop, jnp.add, trail.reduce)
    if plan.gather:
        mended = functools.partial(hop, mend=plan.replicated)
        d_values, _ = _pass_on(d_values, mended, trail.gather, plan)
    return d_values


def sees_varying(axis_name: Any) -> frozenset:
    """The axes among `axis_name` that `shard_map` tracks (with check_vma); empty elsewhere."""
    return frozenset(jax.typeof(lax.axis_index(axis_name)).mat.varying)
