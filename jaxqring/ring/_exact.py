"""The exact law of what a ring delivers: the distribution of a level, hop after hop, mod 2^bits.

A level that crosses a link is spread over all 2^bits levels by the matrix of its symbols, and what
a node adds shifts the distribution: a dynamic programme of bits 2^bits operations a hop, which
follows every wrap. It gives the derivative of the exact mean and variance of the sum, with respect
to the links.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring.codec._formats import FixedPoint
from jaxqring.codec._packing import wrap
from jaxqring.link._symbol_channel import SymbolChannel, check_transition
from jaxqring.ring._call_spec import CallSpec
from jaxqring.ring._hops import effective_channel
from jaxqring.ring._lanes import one_row, put_row
from jaxqring.ring._levels import SCALE
from jaxqring.ring._ring import MAX_EXACT_BITS, Ring, links_of
from jaxqring.ring._travel import travel


def spread(law: jax.Array, transition: jax.Array) -> jax.Array:
    """The law of levels after a hop.

    Args:
      law: (..., 2^bits) probabilities of the levels 0, ..., 2^bits - 1.
      transition: (4, 4) matrix of every symbol.

    Returns:
      (..., 2^bits).
    """
    *lead, size = law.shape
    for position in range((size.bit_length() - 1) // 2):
        parts = law.reshape(-1, size // 4 ** (position + 1), 4, 4**position)
        law = jnp.einsum("rm,hsml->hsrl", transition, parts, precision="highest")
    return law.reshape(*lead, size)


def shift(law: jax.Array, levels: jax.Array) -> jax.Array:
    """The law (..., 2^bits) of levels to which `levels` (...) are added, mod 2^bits."""
    size = law.shape[-1]
    origin = (jnp.arange(size, dtype=jnp.int32) - levels[..., None]) & (size - 1)
    return jnp.take_along_axis(law, origin, axis=-1)


def certain(levels: jax.Array, bits: int) -> jax.Array:
    """(..., 2^bits) the law of levels (...) that are known."""
    return jax.nn.one_hot(levels & (2**bits - 1), 2**bits, dtype=jnp.float32)


def level_values(bits: int) -> jax.Array:
    """(2^bits,) float32 values of the levels, in two's complement."""
    return wrap(jnp.arange(2**bits, dtype=jnp.int32), bits).astype(jnp.float32)


def chain_law(codes: jax.Array, wire: FixedPoint, channel: SymbolChannel) -> jax.Array:
    """The exact law of a sum that is passed along a chain of links, each node adding its level.

    Args:
      codes: (H + 1, ...) levels, integers in two's complement: the first starts, and one is added
        after each of H hops; zeros for a level that is only passed on.
      wire: of at most 12 bits.
      channel: one link for all hops, or (H,) of them; used as it is, so pass
        `channel.scrambled()` for scrambled ones. Erased symbols are replaced by a uniform guess.

    Returns:
      (..., 2^bits) probabilities of the levels 0, ..., 2^bits - 1, differentiable in the channel.

    Raises:
      TypeError: if the wire is not a FixedPoint, or the channel not a SymbolChannel.
      ValueError: if the wire is too wide, or the links are not one or H.

    >>> from jaxqring import superdense, werner
    >>> law = chain_law(jnp.array([37, 0]), FixedPoint(8), superdense(werner(fidelity=0.9)))
    >>> round(float(law @ level_values(8)), 3)
    32.0
    """
    checks.instance("wire", wire, FixedPoint)
    check_transition("channel", channel)
    if wire.bits > MAX_EXACT_BITS:
        checks.refuse("wire.bits", f"be at most {MAX_EXACT_BITS} for an exact law", wire.bits)
    levels = jnp.asarray(codes)
    hops = levels.shape[0] - 1
    links = channel.guessed().transition
    if links.shape[:-2] not in ((), (hops,)):
        rule = f"be one link or one for each of {hops} hops"
        checks.refuse("channel", rule, links.shape[:-2])
    links = jnp.broadcast_to(links.astype(jnp.float32), (hops, 4, 4))

    def hop(law: jax.Array, link_and_own: tuple) -> tuple[jax.Array, None]:
        link, own = link_and_own
        return shift(spread(law, link), own), None

    return lax.scan(hop, certain(levels[0], wire.bits), (links, levels[1:]))[0]


def exact_tangent(
    values: jax.Array,
    result: jax.Array,
    ring: Ring,
    d_transition: jax.Array,
    spec: CallSpec,
) -> jax.Array:
    """The contribution of the noise to the tangent of the result.

    With mu and V the exact mean and variance of what a node receives, given what all nodes put in,
    the tangent of a received r is dmu + dV / (2 V) (r - mu). Its expectation is dmu, and that of
    2 r dr is d(mu^2 + V): right for every loss that is linear or quadratic in one all-reduce.

    Args:
      values: as for `jaxqring.ring._engine.collective`.
      result: what that returned.
      ring: of the call.
      d_transition: tangent of the matrices of the links.
      spec: of the call.
    """
    wire, nodes = ring.wire, spec.place.nodes()
    assert isinstance(wire, FixedPoint)  # `Ring` has refused others
    bits = wire.bits
    effective = jax.vmap(functools.partial(effective_channel, ring=ring))
    links, d_links = jax.jvp(
        effective, (links_of(ring.transition, nodes),), (links_of(d_transition, nodes),)
    )
    levels = wire.encode(lax.stop_gradient(values), SCALE, spec.num_terms)
    known = level_values(bits)

    def start(chunk: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        law = certain(levels if chunk is None else one_row(levels, chunk), bits)
        return law, law * 0 * d_links.reshape(-1)[0]  # with the type of a mapped value

    def cross(moving: tuple, index: jax.Array, _: None) -> tuple[tuple, None]:
        return jax.jvp(jax.vmap(spread), (moving[0], links), (moving[1], d_links)), None

    def add(chunk: jax.Array, moving: tuple) -> tuple[jax.Array, jax.Array]:
        own = one_row(levels, chunk)
        return shift(moving[0], own), shift(moving[1], own)

    def read(moving: tuple) -> tuple:
        return _moments(moving, known)

    def put(collected: tuple, at: jax.Array, moving: tuple) -> tuple:
        rows = zip(collected, read(moving), strict=True)
        return tuple(put_row(table, at, row) for table, row in rows)

    journey = travel(spec, start=start, cross=cross, add=add, read=read, put=put)
    mean, d_mean, half = journey.result
    # The result is not followed: a derivative of this derivative would be another estimator's.
    return d_mean + half * (lax.stop_gradient(result) - mean)


def _moments(moving: tuple, levels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(k, c) each: mean, its tangent, and half the relative tangent of the variance."""
    law, d_law = moving
    mean = jnp.matmul(law, levels, precision="highest")
    square = (levels - mean[..., None]) ** 2
    variance, d_variance = jnp.sum(law * square, axis=-1), jnp.sum(d_law * square, axis=-1)
    is_known = variance <= 0
    half = jnp.where(is_known, 0, d_variance / (2 * jnp.where(is_known, 1, variance)))
    return mean, jnp.matmul(d_law, levels, precision="highest"), half
