"""Values and derivatives of every estimator, and differences between coupled rings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxqring as jq
from golden.collectives import AXIS, KEY, link
from golden.record import Group

NODES = 3
WIRE = jq.FixedPoint(6, clip=7.0)
VALUES = np.array([[3.0, -2.0, 5.0, 1.0], [1.0, 0.0, -4.0, 2.0], [2.0, 2.0, 6.0, -7.0]])
ERRORS = jnp.asarray([0.01, 0.02, 0.04], jnp.float32)
#: What `jaxqring.expected` is told.
KINDS: dict[str, dict[str, Any]] = {
    "mean": {"estimator": "mean"},
    "gaussian": {"estimator": "gaussian"},
    "exact": {"estimator": "exact"},
    "score": {"estimator": "score", "samples": 3, "batch": 1},
    "russo": {"estimator": "russo", "samples": 2},
    "every site": {"estimator": "russo", "every_site": True},
}


def ring_of(errors: jax.Array) -> jq.Ring:
    """A ring whose links follow a traced probability of an error, by exact arithmetic."""
    perfect, broken = link(np.zeros(NODES)).transition, link(np.ones(NODES)).transition
    share = errors[:, None, None]
    return jq.Ring(jq.SymbolChannel(perfect * (1 - share) + broken * share), WIRE)


def loss(ring: jq.Ring, keys: jax.Array) -> dict[str, jax.Array]:
    """A loss made of sums, one call for each key."""

    def total(key: jax.Array) -> jax.Array:
        def add(x: jax.Array) -> jax.Array:
            return jq.psum(x, AXIS, ring=ring, key=key)

        return jax.vmap(add, axis_name=AXIS)(jnp.asarray(VALUES, jnp.float32))

    found = jax.lax.map(total, keys)
    return {"square": jnp.sum((found - VALUES.sum(0)) ** 2), "mean": jnp.mean(found)}


def _of(kind: str, mapping_named: Callable) -> dict[str, Any]:
    options = dict(KINDS[kind])
    if options["estimator"] in ("score", "russo"):
        options["cost"] = ring_of(ERRORS).cost(VALUES.shape[1], NODES)

    def run(errors: jax.Array) -> tuple[jax.Array, Any]:
        found = jq.expected(loss, ring_of(errors), KEY, calls=2, **options)
        return sum(found.values()), found

    slope, values = jax.jit(jax.grad(run, has_aux=True))(ERRORS)
    return {f"expected | {kind}": (values, slope)}


def differences(_: Callable) -> dict[str, Any]:
    def run(low: jax.Array, high: jax.Array) -> Any:
        ends = ring_of(low), ring_of(high)
        slopes = jq.gradients.finite_difference(
            loss, *ends, jnp.float32(0.25), KEY, samples=2, calls=2
        )
        keys = jax.random.split(KEY)
        return slopes, [loss(ring, keys) for ring in jq.gradients.couple(*ends)]

    slopes, ends = jax.jit(run)(ERRORS, 2 * ERRORS)
    return {"finite_difference": slopes, "couple": ends}


def derivatives(_: Callable) -> dict[str, Any]:
    """Products with the derivative of a sampled ring, by data and by links."""

    def run(x: jax.Array, errors: jax.Array, derivative: str) -> jax.Array:
        ring = dataclasses.replace(ring_of(errors), derivative=derivative)

        def add(x: jax.Array) -> jax.Array:
            return jq.psum(x, AXIS, ring=ring, key=KEY)

        return jnp.sum(jax.vmap(add, axis_name=AXIS)(x) ** 2)

    of_both = jax.jit(jax.value_and_grad(run, argnums=(0, 1)), static_argnums=2)
    x = jnp.asarray(VALUES, jnp.float32)
    return {f"derivative | {name}": of_both(x, ERRORS, name) for name in ("mean", "exact")}


def probabilities(_: Callable) -> dict[str, Any]:
    """Laws of what codes become."""
    one, codes = link(0.04), jnp.asarray([13, -7, 3], jnp.int32)
    return {
        "moments": jax.jit(jq.moments, static_argnums=1)(codes, WIRE, one),
        "chain_law": jax.jit(jq.gradients.chain_law, static_argnums=1)(codes, WIRE, one),
        "sum_error_law": jq.secure.sum_error_law(0.9, 4),
    }


GROUPS = {
    f"expected, {kind}": Group(functools.partial(_of, kind), False, kind != "gaussian")
    for kind in KINDS
}
GROUPS |= {
    "finite differences": Group(differences, True, True),
    "derivatives": Group(derivatives, False, True),
    "laws of codes": Group(probabilities, False),
}
