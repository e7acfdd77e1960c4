"""The exact law of what a ring delivers: the distribution of a code, hop after hop, mod 2^bits.

A code that crosses a link is spread over all 2^bits codes by the matrix of its symbols, and what
a node adds shifts the distribution: a dynamic programme of bits 2^bits operations a hop, which
knows of every wrap (PROTOCOLS G1). It gives the derivative of the exact mean and variance of the
sum, with respect to the links.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import _checks as checks
from jaxqring.codec._formats import FixedPoint
from jaxqring.codec._packing import wrap
from jaxqring.link._symbol_channel import SymbolChannel, check_transition
from jaxqring.ring import _travel
from jaxqring.ring._call_spec import Plan
from jaxqring.ring._hops import effective_channel
from jaxqring.ring._ring import MAX_EXACT_BITS, Ring, links_of


def spread(law: jax.Array, transition: jax.Array) -> jax.Array:
    """The law of codes after a hop.

    Args:
      law: (..., 2^bits) probabilities of the codes 0, ..., 2^bits - 1.
      transition: (4, 4) matrix of every symbol.

    Returns:
      (..., 2^bits).
    """
    *lead, size = law.shape
    for position in range((size.bit_length() - 1) // 2):
        parts = law.reshape(-1, size // 4 ** (position + 1), 4, 4**position)
        law = jnp.einsum("rm,hsml->hsrl", transition, parts, precision="highest")
    return law.reshape(*lead, size)


def shift(law: jax.Array, codes: jax.Array) -> jax.Array:
    """The law (..., 2^bits) of codes to which `codes` (...) are added, mod 2^bits."""
    size = law.shape[-1]
    source = (jnp.arange(size, dtype=jnp.int32) - codes[..., None]) & (size - 1)
    return jnp.take_along_axis(law, source, axis=-1)


def certain(codes: jax.Array, bits: int) -> jax.Array:
    """(..., 2^bits) the law of codes (...) that are known."""
    return jax.nn.one_hot(codes & (2**bits - 1), 2**bits, dtype=jnp.float32)


def code_values(bits: int) -> jax.Array:
    """(2^bits,) float32 what each code stands for, in two's complement."""
    return wrap(jnp.arange(2**bits, dtype=jnp.int32), bits).astype(jnp.float32)


def chain_law(codes: jax.Array, wire: FixedPoint, channel: SymbolChannel) -> jax.Array:
    """The exact law of a sum that is passed along a chain of links, each node adding its code.

    Args:
      codes: (H + 1, ...) integers in two's complement: the first starts, and one is added after
        each of H hops; zeros for a code that is only passed on.
      wire: of at most 12 bits.
      channel: one link for all hops, or (H,) of them; used as it is, so pass
        `channel.scrambled()` for scrambled ones. Erased symbols are replaced by a uniform guess.

    Returns:
      (..., 2^bits) probabilities of the codes 0, ..., 2^bits - 1, differentiable in the channel.

    Raises:
      TypeError: if the wire is not a FixedPoint, or the channel no SymbolChannel.
      ValueError: if the wire is too wide, or the links are not one or H.

    >>> from jaxqring.link import superdense
    >>> from jaxqring.physics.pairs import werner
    >>> law = chain_law(jnp.array([37, 0]), FixedPoint(8), superdense(werner(fidelity=0.9)))
    >>> round(float(law @ code_values(8)), 3)
    32.0
    """
    checks.instance("wire", wire, FixedPoint)
    check_transition("channel", channel)
    if wire.bits > MAX_EXACT_BITS:
        checks.refuse("wire.bits", f"be at most {MAX_EXACT_BITS} for an exact law", wire.bits)
    codes = jnp.asarray(codes)
    hops = codes.shape[0] - 1
    links = channel.guessed().transition
    if links.shape[:-2] not in ((), (hops,)):
        rule = f"be one link or one for each of {hops} hops"
        checks.refuse("channel", rule, links.shape[:-2])
    links = jnp.broadcast_to(links.astype(jnp.float32), (hops, 4, 4))

    def hop(law: jax.Array, step: tuple) -> tuple[jax.Array, None]:
        link, own = step
        return shift(spread(law, link), own), None

    return lax.scan(hop, certain(codes[0], wire.bits), (links, codes[1:]))[0]


def exact_tangent(
    values: jax.Array,
    result: jax.Array,
    ring: Ring,
    d_transition: jax.Array,
    plan: Plan,
) -> jax.Array:
    """What the noise contributes to the tangent of the result.

    With mu and V the exact mean and variance of what a node receives, given what all nodes put in,
    the tangent of a received r is dmu + dV / (2 V) (r - mu). Its expectation is dmu, and that of
    2 r dr is d(mu^2 + V): right for every loss that is linear or quadratic in one all-reduce.

    Args:
      values: as for `jaxqring.ring._engine.collective`.
      result: what that returned.
      ring: of the call.
      d_transition: tangent of the matrices of the links.
      plan: of the call.
    """
    wire, place = ring.wire, plan.place
    assert isinstance(wire, FixedPoint)  # `Ring` has refused others
    nodes = place.nodes()
    effective = jax.vmap(functools.partial(effective_channel, ring=ring))
    links, d_links = jax.jvp(
        effective, (links_of(ring.transition, nodes),), (links_of(d_transition, nodes),)
    )
    codes = wire.encode(lax.stop_gradient(values), np.float32(1), plan.num_terms)
    held = code_values(wire.bits)

    def hop(moving: tuple, index: jax.Array, _: None) -> tuple:
        laws, d_laws = jax.jvp(jax.vmap(spread), (moving[0], links), (moving[1], d_links))
        return (place.shift(laws), place.shift(d_laws)), None

    def rows(chunk: jax.Array) -> jax.Array:
        at = functools.partial(lax.dynamic_index_in_dim, keepdims=False)
        return jax.vmap(at)(codes, chunk)

    def add(chunk: jax.Array, moving: tuple) -> tuple:
        own = rows(chunk)
        return shift(moving[0], own), shift(moving[1], own)

    def judged(moving: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(k, c) each: mean, its tangent, and half the relative tangent of the variance."""
        law, d_law = moving
        mean = jnp.matmul(law, held, precision="highest")
        apart = (held - mean[..., None]) ** 2
        variance, d_variance = jnp.sum(law * apart, axis=-1), jnp.sum(d_law * apart, axis=-1)
        certain = variance <= 0
        half = jnp.where(certain, 0, d_variance / (2 * jnp.where(certain, 1, variance)))
        return mean, jnp.matmul(d_law, held, precision="highest"), half

    def put(collected: tuple, chunk: jax.Array, moving: tuple) -> tuple:
        at = jax.vmap(functools.partial(lax.dynamic_update_index_in_dim, axis=0))
        return tuple(
            at(rows, row, chunk) for rows, row in zip(collected, judged(moving), strict=True)
        )

    first = plan.first(nodes)
    start = rows(first % place.num_nodes) if plan.reduce else codes
    law = certain(start, wire.bits)
    begun = law, law * 0 * d_links.reshape(-1)[0]  # with the type of a mapped value
    collected = None
    if plan.gather:
        shape = (*nodes.shape, place.num_nodes, values.shape[-1])
        empty = jnp.zeros(shape, jnp.float32)
        collected = tuple(empty + 0 * part.reshape(-1)[0] for part in (law, *begun[1:] * 2))
        if not (plan.reduce and place.num_nodes > 1):
            collected = put(collected, first, begun)
    moving, collected, _ = _travel.around(
        begun,
        collected,
        hop,
        add if plan.reduce else None,
        put if plan.gather else None,
        place,
        first,
    )
    mean, d_mean, half = judged(moving) if collected is None else collected
    # The result is not followed: a derivative of this derivative would be another estimator's.
    return d_mean + half * (lax.stop_gradient(result) - mean)
