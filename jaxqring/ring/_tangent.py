"""The derivative of a collective.

The derivative is the mean-straight-through rule. A hop delivers v' = sample + (mean - its own
value), so that values are sampled and tangents are those of the conditional mean given the codes
that were sent:

    dv' = slope dv + sum_j sum_r dT[r | symbol j of v] V_j(r)

with `slope` the regression slope of the mean on the code (1 - 2f for uniform bit flips f) and
V_j(r) what symbol r adds at position j, all in units of codes. It is exact in expectation where the
loss is linear and no sum wraps, and first-order otherwise. Quantisation passes tangents straight
through, except where a value is clipped. A loop over the hops carries the tangents, linear in them,
so that forward and reverse mode both work, and may be differentiated again with respect to
anything; a derivative with respect to noise comes last, as its codes have no derivative of their
own.

With noise "gaussian" a hop delivers mean + deviation * normal variate, and the tangent of the
deviation is added (reparameterisation), which makes quadratic losses right as well. With
derivative="exact" the noise part is that of `jaxqring.ring._exact`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, derive
from jaxqring.codec._formats import FixedPoint
from jaxqring.link._transport import mean_jump, variance_slope
from jaxqring.ring import _travel
from jaxqring.ring._call_spec import Plan
from jaxqring.ring._hops import code_runs, code_slope, effective_channels, normal_tangent
from jaxqring.ring._lanes import each_node
from jaxqring.ring._ring import Ring, links_of


def transition_tangent(ring: Ring, tangent: Ring) -> jax.Array | None:
    """The tangent of the transition matrices, or None where they are not differentiated."""
    if ring.noise == "off" or tangent.channel is None:
        return None
    if isinstance(tangent.channel.transition, SymbolicZero):
        return None
    if ring.masks is not None:
        raise ValueError(
            "`ring` must not be differentiated with respect to noise under masks, but got a"
            " derivative: what an error does to a masked code depends on the mask, and is not"
            " followed; use finite differences."
        )
    if not isinstance(ring.wire, FixedPoint):
        checks.refuse(
            "ring.wire",
            "be a FixedPoint for a derivative with respect to noise (the mean of a float whose"
            " exponent may flip diverges)",
            ring.wire,
        )
    if ring.noise == "sampled" and ring.derivative is None:
        raise ValueError(
            "`ring.derivative` must say what a derivative with respect to sampled noise follows,"
            ' but got None: use `jaxqring.expected`, or `Ring(derivative="mean")` for the mean of'
            " every hop, which knows nothing of the variance."
        )
    return tangent.channel.transition


def tangent(
    values: jax.Array,
    d_values: jax.Array,
    ring: Ring,
    d_transition: jax.Array | None,
    plan: Plan,
    sent: jax.Array | None,
    keys: KeyWords | None,
) -> jax.Array:
    """The tangent of the result: a ring that carries tangents instead of codes.

    Args:
      values: as for `jaxqring.ring._engine.collective`.
      d_values: their tangent.
      ring: of the call.
      d_transition: tangent of the matrices of the links, or None.
      plan: of the call.
      sent: the words sent in every hop, if the derivative needs them.
      keys: those that the call draws with, (k,); None if nothing is drawn.
    """
    place, wire = plan.place, ring.wire
    nodes, turns, size = place.nodes(), place.num_nodes - 1, values.shape[-1]
    if isinstance(wire, FixedPoint):
        values = lax.stop_gradient(values)
        lost = wire.saturates(values, np.float32(1), plan.num_terms) | jnp.isnan(values)
        d_values = jnp.where(lost, 0, d_values)
    slope = jnp.ones((nodes.shape[0], 1), jnp.float32)
    d_met: Any = None
    spread_slope = None
    if ring.noise != "off":
        links = links_of(ring.transition, nodes)
        # One for each run of codes in words of like length.
        runs = code_runs(ring, size)
        lengths = [length for length, _ in runs]
        effective = jax.vmap(functools.partial(effective_channels, ring=ring, runs=runs))
        if d_transition is None:
            met = effective(links)
        else:
            met, d_met = jax.jvp(effective, (links,), (links_of(d_transition, nodes),))
        slopes = [jax.vmap(functools.partial(code_slope, wire=wire))(each)[:, None] for each in met]
        slope = _by_run(slopes, lengths)
        # The spread of scrambled links does not follow the codes: `variance_slope` is zero.
        if ring.noise == "gaussian" and (d_met is not None or not ring.scramble):
            assert isinstance(wire, FixedPoint)  # `Ring` has refused others
            # Links are bare, and there is one run.
            spread_slope = jax.vmap(functools.partial(variance_slope, wire))(met[0])
            d_met = [jnp.zeros_like(met[0])] if d_met is None else d_met

    def moved_mean(words: Any, d_links: list[jax.Array]) -> jax.Array:
        assert isinstance(wire, FixedPoint)  # `transition_tangent` has refused others
        codes = jnp.stack(wire.part(words))
        if len(d_links) == 1:
            return mean_jump(codes, wire, d_links[0]).reshape(-1)[:size]
        parts = jnp.split(codes.reshape(-1)[:size], np.cumsum(lengths)[:-1])
        return jnp.concatenate(
            [mean_jump(part, wire, d) for part, d in zip(parts, d_links, strict=True)]
        )

    def moved_spread(
        words: Any, link: Any, d_link: Any, key: KeyWords, spread_slope: Any, moving: Any
    ) -> jax.Array:
        assert isinstance(wire, FixedPoint)
        noise, data = normal_tangent(words, link, d_link, key, spread_slope, wire)
        return noise[:size] + data[:size] * moving

    def hop(moving: jax.Array, index: jax.Array, words: Any) -> tuple:
        noisy = slope * moving
        if d_met is not None:
            noisy += jax.vmap(moved_mean)(words, d_met)
        if spread_slope is not None:
            assert keys is not None  # normal noise draws
            noisy += jax.vmap(moved_spread)(
                words, met[0], d_met[0], derive(keys, index, nodes), spread_slope, moving
            )
        if ring.masks is not None:
            # An error moves a masked code by as much whatever the code is. Sums travel unmasked.
            noisy = jnp.where(index < turns * plan.reduce, moving, noisy)
        if plan.mends:
            noisy = jnp.where(index >= turns * plan.reduce, moving, noisy)
        return place.shift(noisy), None

    def rows(chunk: jax.Array) -> jax.Array:
        at = functools.partial(lax.dynamic_index_in_dim, keepdims=False)
        return each_node(at, d_values, chunk)

    def put(collected: jax.Array, chunk: jax.Array, row: jax.Array) -> jax.Array:
        at = functools.partial(lax.dynamic_update_index_in_dim, axis=0)
        return each_node(at, collected, row, chunk)

    first = plan.first(nodes)
    start = rows(first % place.num_nodes) if plan.reduce else d_values
    by_gather = plan.ends_in_gather()
    loops = plan.gather and not by_gather
    collected = None
    if loops:
        collected = jnp.broadcast_to(start[:, None] * 0, (*nodes.shape, place.num_nodes, size))
        collected = put(collected, first, start) if not (plan.reduce and turns) else collected
    reduced, collected, _ = _travel.around(
        start,
        collected,
        hop,
        (lambda chunk, moving: rows(chunk) + moving) if plan.reduce else None,
        put if loops else None,
        place,
        first,
        sent,
    )
    if by_gather:
        chunks = lax.all_gather(reduced, place.axis_name, to="invarying").reshape(-1, size)
        chunks = jnp.roll(chunks, 1, axis=0) if plan.reduce else chunks
        collected = jnp.broadcast_to(chunks, (*nodes.shape, *chunks.shape))
    return reduced if collected is None else collected


def _by_run(rows: list[jax.Array], lengths: list[int]) -> jax.Array:
    """(k, codes) of (k, 1) for each run of codes; (k, 1) of a single one."""
    if len(rows) == 1:
        return rows[0]
    pairs = zip(rows, lengths, strict=True)
    return jnp.concatenate([jnp.broadcast_to(x, (x.shape[0], n)) for x, n in pairs], axis=1)
