"""Derivatives of an expected outcome with respect to the noise of the links.

A sampled symbol error is a step function of its probability: its derivative is zero wherever it
has one, and says nothing about the expectation. Each estimator here estimates the derivative of
the expectation, at a price of its own:

* "mean": sampled values, tangents of the mean of every hop given what was sent (see
  `jaxqring.ring._tangent`). Unbiased where the loss is linear in the sums and none wraps; knows
  nothing of the variance, which is most of what noise does to a converged training.
* "gaussian": normal noise of the same mean and variance, reparameterised. Unbiased for its own
  noise up to rounding; its noise differs from symbol errors in the second order of their
  probability, and in how sums wrap.
* "exact": sampled values, tangents of the exact mean and variance of the results of the ring, wraps
  included. Unbiased for losses that are quadratic in one all-reduce; wires of up to 12 bits.
* "score": unbiased for any loss. Its spread diverges as error^(-1/2).
* "russo": unbiased for any loss, with a bounded spread at low noise that grows with the number of
  symbols.

"mean", "gaussian" and "exact" differentiate through the training. "score" and "russo" only run it,
so that they need no memory, take losses that have no derivative, and know every wrap and rounding.

Bias measured by `benchmarks/estimators.py`, over trainings of 50 steps on eight nodes, a quadratic
and a logistic regression: "mean" -100 to -106 %, as noise acts through its variance there;
"gaussian" within 10 % of zero (the bar) at a symbol error of 1e-4, -10 and -12 % at 1e-3, -12 and
-7 % at 1e-2, each to 4 %; "score" and "russo" within two bars. `finite_difference` has the least
spread of all that are unbiased, but needs two trainings for each parameter.
"""

import dataclasses
import functools
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring import _checks as checks
from jaxqring._types import Estimator, Key, PyTree
from jaxqring.codec._formats import FixedPoint
from jaxqring.gradients import _reruns as reruns
from jaxqring.gradients._differences import check_counts
from jaxqring.gradients._reruns import Loss
from jaxqring.ring._cost import Cost, Hops
from jaxqring.ring._ring import Ring

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


def expected(
    loss: Loss,
    ring: Ring,
    key: Key,
    *,
    estimator: Estimator | None = None,
    samples: int = 1,
    calls: int = 1,
    cost: Cost | tuple[Hops, ...] | None = None,
    every_site: bool = False,
    batch: int | None = None,
) -> PyTree:
    """An estimate of the expected loss, with a derivative with respect to the links.

    Args:
      loss: (ring, keys) -> a pytree of () floats, any computation with collectives over the ring:
        a call, or a whole training with its loop. `keys` (calls,) are typed, one for each call.
        It may map its nodes itself, or run on one of them within a mapping; it is traced once.
      ring: of sampled noise. Traced where a derivative is asked for.
      key: typed key of the samples.
      estimator: "gaussian", "mean", "exact", "score" or "russo"; the module documents the bias and
        the price of each. Their derivatives work in forward and in reverse mode. "gaussian" by
        default, on bare links with a FixedPoint wire; on others it must be named.
      samples: independent runs that are averaged; "score" needs two for its baseline, the mean of
        the others.
      calls: how many keys the loss takes. A key that it leaves unused costs spread, no bias.
      cost: of a call, `ring.cost(payload, num_nodes)`; for "score" and "russo", which need the
        number of symbols sent. Every call must be of that cost. Or, where several collectives of
        unlike size or width draw from one key, the hops of each: number n must draw from
        `jax.random.fold_in(key, n)`. Those of a step of a compressor are
        `compressor.hops(ring, gradient, num_nodes)`.
      every_site: for "russo", sum over all symbols of all calls and not over one at random: 3
        runs for each symbol and sample.
      batch: samples that run side by side; all by default. Fewer need less memory.

    Returns:
      Estimates like the loss. "gaussian" estimates its own normal noise.

    Raises:
      TypeError: if the ring is not a Ring, the key not a typed key, or the cost neither a Cost nor
        a tuple of Hops.
      ValueError: if the ring has no sampled noise, the estimator cannot give its derivative, or
        the samples are too few; for a loss with calls of another cost; for a derivative of a loss
        that has none, such as an accuracy, unless the estimator is "score" or "russo".

    "score" and "russo" return NaN for a loss that calls with other keys. The derivative that
    "score" cannot give, with respect to a kind of error that has probability zero, is NaN.

    >>> from jaxqring import FixedPoint, psum, superdense, werner
    >>> values = jnp.array([3.0, 1.0, 2.0])[:, None]
    >>> def loss(ring, keys):
    ...     add = lambda x: psum(x, "nodes", ring=ring, key=keys[0])
    ...     return jnp.mean((jax.vmap(add, axis_name="nodes")(values) - 6) ** 2)
    >>> def error(fidelity):
    ...     ring = Ring(superdense(werner(fidelity=fidelity)), FixedPoint(6, clip=7.0))
    ...     cost = ring.cost(1, num_nodes=3)
    ...     return expected(loss, ring, jax.random.key(0), estimator="russo", samples=64, cost=cost)
    >>> bool(jax.jit(jax.grad(error))(0.99) < 0)
    True
    """
    if estimator is None:
        estimator = _default_estimator(ring)
    _check(ring, estimator, samples, calls, batch)
    checks.prng_key("key", key)
    if estimator in ("mean", "gaussian", "exact"):
        followed = dataclasses.replace(
            ring,
            noise="gaussian" if estimator == "gaussian" else "sampled",
            derivative="exact" if estimator == "exact" else "mean",
        )

        def run(own: Key) -> PyTree:
            return loss(followed, jax.random.split(own, calls))

        runs = reruns.each_sample(run, key, samples, batch)
        # Outcome by outcome, so that one without a derivative is seen.
        mean = jax.tree.map(lambda run: jnp.mean(run, axis=0), runs)
        return jax.tree.map(lambda value: _followed(value, ring.transition, estimator), mean)
    hops = _hops_of(cost, ring)
    weigh = reruns.every_site if every_site else reruns.one_site
    if estimator == "score":
        weigh = reruns.score
    outcomes, weights = weigh(
        reruns.Runs(loss, ring, key, samples, calls, hops, isinstance(cost, tuple), batch)
    )
    links = reruns.error_probs(ring)[..., 1:]
    return jax.tree.map(lambda mean, weight: _attach(mean, weight, links), outcomes, weights)


def _default_estimator(ring: Ring) -> Estimator:
    checks.instance("ring", ring, Ring)
    if ring.protection is not None or not isinstance(ring.wire, FixedPoint):
        rule = "be named on protected links and float wires, which have no normal noise"
        checks.refuse("estimator", rule, None)
    return "gaussian"


def _check(ring: Ring, estimator: Estimator, samples: int, calls: int, batch: int | None) -> None:
    checks.instance("ring", ring, Ring)
    checks.one_of("estimator", estimator, ESTIMATORS)
    check_counts(samples, calls, batch)
    if ring.noise != "sampled" or ring.channel is None:
        checks.refuse("ring.noise", 'be "sampled", on links, for its derivative', ring.noise)
    if estimator == "mean":
        return
    if ring.protection is not None:
        rule = f'be None for the estimator "{estimator}", which knows bare links'
        checks.refuse("ring.protection", rule, ring.protection)
    if estimator in ("gaussian", "exact"):
        return
    if not ring.scramble:
        rule = f'be True for the estimator "{estimator}", so that errors do not follow the data'
        checks.refuse("ring.scramble", rule, ring.scramble)
    if estimator == "score":
        if samples < 2:
            checks.refuse("samples", "be at least 2 for a baseline of the other samples", samples)
        if not checks.is_traced(ring.transition):
            with jax.ensure_compile_time_eval():
                probs = np.asarray(reruns.error_probs(ring))
            if np.any(probs[..., 1:] <= 0):
                rule = 'have every kind of error for the estimator "score"; "russo" needs none'
                checks.refuse("ring.channel", rule, probs)


def _hops_of(cost: Cost | tuple[Hops, ...] | None, ring: Ring) -> tuple[Hops, ...]:
    """The hops of all collectives that draw from one key, checked."""
    hops = cost
    if not isinstance(hops, tuple):
        checks.instance("cost", cost, Cost)
        assert isinstance(cost, Cost)
        size = cost.bits // max(cost.rounds * ring.wire.bits, 1)
        hops = (Hops(cost.num_nodes, cost.rounds, size, ring.wire.bits),)
    for number, each in enumerate(hops):
        checks.instance(f"cost[{number}]", each, Hops)
    if not hops or any(each.rounds * each.symbols < 1 for each in hops):
        checks.refuse("cost", "be that of a call that sends something", cost)
    num_nodes = hops[0].num_nodes
    if any(each.num_nodes != num_nodes for each in hops):
        checks.refuse("cost", "be that of collectives of the same nodes", cost)
    batch_shape = ring.transition.shape[:-2]
    if batch_shape not in ((), (num_nodes,)):
        checks.refuse("cost.num_nodes", f"be the number of links {batch_shape}", num_nodes)
    return hops


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _followed(value: jax.Array, transition: jax.Array, estimator: Estimator) -> jax.Array:
    """The value; its derivative is refused where the links have a tangent and it has none."""
    return value


def _followed_jvp(estimator: Estimator, primals: tuple, tangents: tuple) -> tuple[jax.Array, Any]:
    d_value, links = tangents
    if isinstance(d_value, SymbolicZero) and not isinstance(links, SymbolicZero):
        rule = 'be "score" or "russo" for a loss that has no derivative, as an accuracy has none'
        checks.refuse("estimator", rule, estimator)
    return primals[0], d_value


_followed.defjvp(_followed_jvp, symbolic_zeros=True)


@jax.custom_jvp
def _attach(mean: jax.Array, weights: jax.Array, probs: jax.Array) -> jax.Array:
    """The mean, with the derivative `weights` with respect to `probs`."""
    return mean


@_attach.defjvp
def _attach_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    mean, weights, probs = primals
    d_mean = jnp.sum(_last(lax.stop_gradient(weights), probs) * tangents[2])
    return mean, tangents[0] + d_mean.astype(mean.dtype)


@jax.custom_jvp
def _last(weights: jax.Array, probs: jax.Array) -> jax.Array:
    """The weights, which refuse a second derivative."""
    return weights


def _last_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    if not isinstance(tangents[1], SymbolicZero):
        raise ValueError(
            '`estimator` must not be "score" or "russo" where it is differentiated twice, but got'
            " one of them, whose derivatives have none of their own."
        )
    weights = primals[0]
    return weights, jnp.zeros_like(weights)


_last.defjvp(_last_jvp, symbolic_zeros=True)
