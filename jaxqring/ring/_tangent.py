"""The derivative of a collective.

The derivative is the mean-straight-through rule. A hop delivers v' = sample + (mean - its own
value), so that values are sampled and tangents are those of the conditional mean given the levels
that were sent:

    dv' = slope dv + sum_j sum_r dT[r | symbol j of v] V_j(r)

with `slope` the regression slope of the mean on the level (1 - 2f for uniform bit flips f) and
V_j(r) the value that symbol r adds at position j, all in units of levels. It is exact in
expectation where the loss is linear and no sum wraps, and first-order otherwise. Quantisation
passes tangents straight through, except where a value is clipped. A loop over the hops carries the
tangents, linear in them, so that forward and reverse mode both work, and may be differentiated
again with respect to anything; a derivative with respect to noise comes last, as its levels have no
derivative of their own.

With noise "gaussian" a hop delivers mean + deviation * normal variate, and the tangent of the
deviation is added (reparameterisation), which makes quadratic losses right as well. With
derivative="exact" the noise part is that of `jaxqring.ring._exact`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, derive
from jaxqring.codec._formats import FixedPoint
from jaxqring.link._transport import mean_jump, variance_slope
from jaxqring.ring._call_spec import CallSpec
from jaxqring.ring._hops import effective_channels, level_runs, level_slope, normal_tangent
from jaxqring.ring._lanes import one_row, put_row
from jaxqring.ring._levels import SCALE
from jaxqring.ring._ring import Ring, links_of
from jaxqring.ring._travel import travel


def transition_tangent(ring: Ring, tangent: Ring) -> jax.Array | None:
    """The tangent of the transition matrices, or None where they are not differentiated.

    Raises:
      ValueError: if the ring has no derivative with respect to its noise.
    """
    if ring.noise == "off" or tangent.channel is None:
        return None
    if isinstance(tangent.channel.transition, SymbolicZero):
        return None
    if ring.masks is not None:
        raise ValueError(
            "`ring` must not be differentiated with respect to noise under masks, but got a"
            " derivative: what an error does to a masked level depends on the mask, and is not"
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
    spec: CallSpec,
    sent: jax.Array | None,
    keys: KeyWords | None,
) -> jax.Array:
    """The tangent of the result: a ring that carries tangents instead of levels.

    Args:
      values: as for `jaxqring.ring._engine.collective`.
      d_values: their tangent.
      ring: of the call.
      d_transition: tangent of the matrices of the links, or None.
      spec: of the call.
      sent: the words sent in every hop, if the derivative needs them.
      keys: those that the call draws with, (k,); None if nothing is drawn.
    """
    wire, nodes, size = ring.wire, spec.place.nodes(), values.shape[-1]
    if isinstance(wire, FixedPoint):
        values = lax.stop_gradient(values)
        is_lost = wire.saturates(values, SCALE, spec.num_terms) | jnp.isnan(values)
        d_values = jnp.where(is_lost, 0, d_values)
    response = _response(ring, d_transition, nodes, size)

    def cross(moving: jax.Array, index: jax.Array, words: jax.Array | None) -> tuple:
        noisy = response.slope * moving
        if response.d_channels is not None:
            assert words is not None  # they are kept for this
            noisy += jax.vmap(functools.partial(_d_mean, ring, size))(words, response.d_channels)
        if response.variance_slope is not None:
            assert keys is not None  # normal noise draws
            assert words is not None
            assert response.d_channels is not None
            noisy += jax.vmap(functools.partial(_d_normal, ring, size))(
                words,
                response.channels[0],
                response.d_channels[0],
                derive(keys, index, nodes),
                response.variance_slope,
                moving,
            )
        if ring.masks is not None:
            # An error moves a masked level by as much whatever the level is. Sums travel unmasked.
            noisy = jnp.where(index < spec.rounds_of_adding, moving, noisy)
        if spec.mends:
            noisy = jnp.where(index >= spec.rounds_of_adding, moving, noisy)
        return noisy, None

    return travel(
        spec,
        start=lambda chunk: d_values if chunk is None else one_row(d_values, chunk),
        cross=cross,
        add=lambda chunk, moving: one_row(d_values, chunk) + moving,
        read=lambda moving: moving,
        put=put_row,
        slices=sent,
    ).result


class _Response(NamedTuple):
    """The linear response of the links of this device.

    Lists have an entry for each run of levels in codewords of like length.

    Attributes:
      slope: (k, 1) or (k, c) slope of the mean of a received level on the level sent.
      channels: (k, 4, 4) or (k, bits / 2, 4, 4) each, as `effective_channels`; empty without noise.
      d_channels: their tangents; None where nothing needs them.
      variance_slope: (k,) slope of the variance on the level sent; None where it is not followed.
    """

    slope: jax.Array
    channels: list[jax.Array]
    d_channels: list[jax.Array] | None
    variance_slope: jax.Array | None


def _response(ring: Ring, d_transition: jax.Array | None, nodes: jax.Array, size: int) -> _Response:
    """The response of the links that leave the given nodes (k,), for chunks of `size` levels."""
    if ring.noise == "off":
        return _Response(jnp.ones((nodes.shape[0], 1), jnp.float32), [], None, None)
    wire, links, runs = ring.wire, links_of(ring.transition, nodes), level_runs(ring, size)
    effective = jax.vmap(functools.partial(effective_channels, ring=ring, runs=runs))
    d_channels = None
    if d_transition is None:
        channels = effective(links)
    else:
        channels, d_channels = jax.jvp(effective, (links,), (links_of(d_transition, nodes),))
    slope_of = jax.vmap(functools.partial(level_slope, wire=wire))
    slope = _by_run([slope_of(each)[:, None] for each in channels], [run[0] for run in runs])
    # The variance of scrambled links does not follow the levels: its slope is zero.
    if ring.noise != "gaussian" or (d_channels is None and ring.scramble):
        return _Response(slope, channels, d_channels, None)
    assert isinstance(wire, FixedPoint)  # `Ring` has refused others
    # Links are bare, and there is one run.
    follows = jax.vmap(functools.partial(variance_slope, wire))(channels[0])
    if d_channels is None:
        d_channels = [jnp.zeros_like(channels[0])]
    return _Response(slope, channels, d_channels, follows)


def _by_run(rows: list[jax.Array], lengths: list[int]) -> jax.Array:
    """(k, c) of (k, 1) for each run of levels; (k, 1) of a single one."""
    if len(rows) == 1:
        return rows[0]
    pairs = zip(rows, lengths, strict=True)
    return jnp.concatenate([jnp.broadcast_to(x, (x.shape[0], n)) for x, n in pairs], axis=1)


def _d_mean(ring: Ring, size: int, words: jax.Array, d_channels: list[jax.Array]) -> jax.Array:
    """(c,) tangent of the mean of levels after a hop, by that of the link; see `_Response`."""
    wire = ring.wire
    assert isinstance(wire, FixedPoint)  # `transition_tangent` has refused others
    levels = jnp.stack(wire.part(words))
    if len(d_channels) == 1:
        return mean_jump(levels, wire, d_channels[0]).reshape(-1)[:size]
    lengths = [length for length, _ in level_runs(ring, size)]
    parts = jnp.split(levels.reshape(-1)[:size], np.cumsum(lengths)[:-1])
    return jnp.concatenate(
        [mean_jump(part, wire, d) for part, d in zip(parts, d_channels, strict=True)]
    )


def _d_normal(
    ring: Ring,
    size: int,
    words: jax.Array,
    channel: jax.Array,
    d_channel: jax.Array,
    key: KeyWords,
    follows: jax.Array,
    moving: jax.Array,
) -> jax.Array:
    """(c,) tangent of the normal noise of a hop, by those of its link and of the levels sent."""
    assert isinstance(ring.wire, FixedPoint)
    noise, data = normal_tangent(words, channel, d_channel, key, follows, ring.wire)
    return noise[:size] + data[:size] * moving
