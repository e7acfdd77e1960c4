"""Derivatives of an expected outcome with respect to the noise of the links (PROTOCOLS G2).

A sampled symbol error is a step function of its probability: its derivative is zero wherever it
has one, and says nothing about the expectation. Each estimator here stands for the derivative of
the expectation, at a price of its own:

* "mean": sampled values, tangents of the mean of every hop given what was sent (see
  `jaxqring.ring.tangent`). Unbiased where the loss is linear in the sums and none wraps; knows
  nothing of the variance, which is most of what noise does to a converged training.
* "gaussian": normal noise of the same mean and variance, reparameterised. Unbiased for its own
  noise up to rounding; its noise differs from symbol errors in the second order of their
  probability, and in how sums wrap.
* "exact": sampled values, tangents of the exact mean and variance of what the ring delivers, wraps
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

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring import checks
from jaxqring.link.superdense import SymbolChannel
from jaxqring.link.transport import receive
from jaxqring.link.wire import pack, packed_size
from jaxqring.ring.config import Ring
from jaxqring.ring.control import Control, Site
from jaxqring.ring.cost import Cost
from jaxqring.threefry import Words, cipher_key, derive

ESTIMATORS = ("mean", "gaussian", "score", "russo", "exact")

Loss = Callable[[Ring, jax.Array], Any]
_KINDS = 3  # of errors of a symbol


def expected(
    loss: Loss,
    ring: Ring,
    key: jax.Array,
    *,
    estimator: str = "mean",
    samples: int = 1,
    calls: int = 1,
    cost: Cost | None = None,
    every_site: bool = False,
    batch: int | None = None,
) -> Any:
    """An estimate of the expected loss, with a derivative with respect to the links.

    Args:
      loss: (ring, keys) -> a pytree of () floats, any computation with collectives over the ring:
        a call, or a whole training with its loop. `keys` (calls,) are typed, one for each call.
        It may map its nodes itself, or run on one of them within a mapping; it is traced once.
      ring: of sampled noise. Traced where a derivative is asked for.
      key: typed key of the samples.
      estimator: "mean", "gaussian", "exact", "score" or "russo"; see the module for what each is
        good for. Their derivatives work in forward and in reverse mode.
      samples: independent runs that are averaged; "score" needs two for its baseline, the mean of
        the others.
      calls: how many keys the loss takes. A key that it leaves unused costs spread, no bias.
      cost: of a call, `ring.cost(payload, num_nodes)`; for "score" and "russo", which must know
        how many symbols are sent. Every call must be of that cost.
      every_site: for "russo", sum over all symbols of all calls and not over one at random: 3
        runs for each symbol and sample.
      batch: samples that run in step; all by default. Fewer need less memory.

    Returns:
      Estimates like the loss. "gaussian" estimates its own normal noise.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if the ring has no sampled noise, the estimator cannot give its derivative, or
        the samples are too few; for a loss with calls of another cost; for a derivative of a loss
        that has none, such as an accuracy, unless the estimator is "score" or "russo".

    "score" and "russo" return NaN for a loss that calls with other keys. The derivative that
    "score" cannot give, with respect to a kind of error that has probability zero, is NaN.

    >>> from jaxqring.link import FixedPoint, superdense
    >>> from jaxqring.quantum import werner
    >>> from jaxqring.ring import psum
    >>> codes = jnp.array([3.0, 1.0, 2.0])[:, None]
    >>> def loss(ring, keys):
    ...     add = lambda x: psum(x, "nodes", ring=ring, key=keys[0])
    ...     return jnp.mean((jax.vmap(add, axis_name="nodes")(codes) - 6) ** 2)
    >>> def error(fidelity):
    ...     ring = Ring(superdense(werner(fidelity=fidelity)), FixedPoint(6, clip=7.0))
    ...     cost = ring.cost(1, num_nodes=3)
    ...     return expected(loss, ring, jax.random.key(0), estimator="russo", samples=64, cost=cost)
    >>> bool(jax.jit(jax.grad(error))(0.99) < 0)
    True
    """
    _check(ring, estimator, samples, calls, cost, batch)
    checks.prng_key("key", key)
    if estimator in ("mean", "gaussian", "exact"):
        held = ring.replace(  # type: ignore[attr-defined]
            noise="gaussian" if estimator == "gaussian" else "sampled",
            derivative="exact" if estimator == "exact" else "mean",
        )
        runs = _each(lambda own: loss(held, jax.random.split(own, calls)), key, samples, batch)
        # A () of each outcome, so that one without a derivative is seen.
        mean = jax.tree.map(lambda run: jnp.mean(run, axis=0), runs)
        return jax.tree.map(lambda value: _followed(value, ring.transition, estimator), mean)
    assert cost is not None  # `_check` has refused that
    if estimator == "score":
        outcomes, weights = _score(loss, ring, key, samples, calls, cost, batch)
    else:
        rule = _every_site if every_site else _one_site
        outcomes, weights = rule(loss, ring, key, samples, calls, cost, batch)
    links = SymbolChannel(ring.transition).guessed().scrambled().xor_probs[..., 1:]
    return jax.tree.map(lambda mean, weight: _attach(mean, weight, links), outcomes, weights)


def couple(*rings: Ring) -> tuple[Ring, ...]:
    """Rings that share their random numbers: common random numbers for finite differences.

    With the same key an error on a link of one ring is the same error on the other rings, as far
    as their links are likely to have it. Bare links only; protected ones share no more than their
    keys.

    Args:
      rings: of the same number of links.

    Returns:
      The same rings, coupled.

    Raises:
      TypeError: if one is not a Ring.
      ValueError: if they have no links, or not the same number of them.

    >>> from jaxqring.link import superdense
    >>> from jaxqring.quantum import werner
    >>> low, high = couple(*(Ring(superdense(werner(fidelity=f))) for f in (0.98, 0.99)))
    """
    for ring in rings:
        checks.instance("rings", ring, Ring)
        if ring.channel is None:
            checks.refuse("rings", "have links", None)
    tables = [SymbolChannel(ring.transition).guessed().error_table for ring in rings]
    shapes = {table.shape for table in tables}
    if len(shapes) != 1:
        checks.refuse("rings", "have the same number of links", sorted(shapes))
    envelope = jnp.max(jnp.stack(tables), axis=0)
    control = Control(envelope=lax.stop_gradient(envelope))
    return tuple(ring.replace(control=control) for ring in rings)  # type: ignore[attr-defined]


def finite_difference(
    loss: Loss,
    low: Ring,
    high: Ring,
    width: Any,
    key: jax.Array,
    *,
    samples: int = 1,
    calls: int = 1,
    batch: int | None = None,
) -> Any:
    """Differences of the loss between two rings with common random numbers.

    Args:
      loss: as for `expected`.
      low: a ring at one end of an interval.
      high: the ring at the other end.
      width: of the interval.
      key: typed key of the samples.
      samples: independent pairs of runs.
      calls: how many keys the loss takes.
      batch: samples that run in step; all by default.

    Returns:
      (high - low) / width of each sample, (samples,) for each () of the loss: unbiased for the
      difference quotient, with a variance of the order 1 / width.

    Raises:
      TypeError, ValueError: as `couple`.
    """
    low, high = couple(low, high)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), low, high)

    def difference(own: jax.Array) -> Any:
        keys = jax.random.split(own, calls)
        ends = lax.map(lambda ring: loss(ring, keys), both)
        return jax.tree.map(lambda end: (end[1] - end[0]) / width, ends)

    return _each(difference, key, samples, batch)


def _check(
    ring: Ring, estimator: str, samples: int, calls: int, cost: Cost | None, batch: int | None
) -> None:
    checks.instance("ring", ring, Ring)
    checks.one_of("estimator", estimator, ESTIMATORS)
    counts = {"calls": calls, "samples": samples}
    for name, count in (counts | ({} if batch is None else {"batch": batch})).items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            checks.refuse(name, "be a positive integer", count)
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
    checks.instance("cost", cost, Cost)
    assert cost is not None
    if cost.symbols < 1:
        checks.refuse("cost", "be that of a call that sends something", cost)
    batch_shape = ring.transition.shape[:-2]
    if batch_shape not in ((), (cost.num_nodes,)):
        checks.refuse("cost.num_nodes", f"be the number of links {batch_shape}", cost.num_nodes)
    if estimator == "score":
        if samples < 2:
            checks.refuse("samples", "be at least 2 for a baseline of the other samples", samples)
        if not checks.is_traced(ring.transition):
            with jax.ensure_compile_time_eval():
                known = np.asarray(SymbolChannel(ring.transition).guessed().xor_probs)
            if np.any(known[..., 1:] <= 0):
                rule = 'have every kind of error for the estimator "score"; "russo" needs none'
                checks.refuse("ring.channel", rule, known)


def _each(function: Callable, key: jax.Array, samples: int, batch: int | None) -> Any:
    """The function of `samples` keys, stacked."""
    keys = jax.random.split(key, samples)
    if batch is None or batch >= samples:
        return jax.vmap(function)(keys)
    return lax.map(function, keys, batch_size=batch)


def _held(ring: Ring, calls: Words, cost: Cost, site: Site | None) -> Ring:
    """The ring with its noise held against derivatives, watched, and one error set."""
    shape = (cost.num_nodes, cost.rounds, _hop_size(ring, cost))
    control = Control(calls=calls, site=site, shape=shape)
    still = jax.tree.map(lax.stop_gradient, ring)
    return still.replace(control=control)


def _hop_size(ring: Ring, cost: Cost) -> int:
    """Codes of one hop."""
    return cost.bits // (cost.rounds * ring.wire.bits)


def _score(
    loss: Loss,
    ring: Ring,
    key: jax.Array,
    samples: int,
    calls: int,
    cost: Cost,
    batch: int | None,
) -> tuple[Any, Any]:
    """Mean losses, and their weights (N, 3) or (3,) on the probabilities of errors."""
    counted = _counts_of_errors(ring, cost)

    def run(own: jax.Array) -> tuple[Any, jax.Array]:
        keys = jax.random.split(own, calls)
        return loss(_held(ring, cipher_key(keys), cost, None), keys), counted(keys)

    losses, counts = _each(run, key, samples, batch)
    links = SymbolChannel(ring.transition).guessed().scrambled().xor_probs
    probs = lax.stop_gradient(links.astype(jnp.float32))
    sent = float(calls * cost.rounds * _hop_size(ring, cost) * ring.wire.bits // 2)
    if probs.ndim == 1:
        counts, sent = jnp.sum(counts, axis=1), sent * cost.num_nodes
    # Centred, so that the large counts of right symbols do not drown the small ones in rounding.
    above = counts - sent * probs[..., 1:]
    missed = jnp.sum(above, axis=-1, keepdims=True)
    possible = probs[..., 1:] > 0
    scores = above / jnp.where(possible, probs[..., 1:], jnp.nan) + missed / probs[..., :1]

    def weigh(outcome: jax.Array) -> jax.Array:
        # Less the mean of the others: all but a factor of what the mean of all would leave.
        gain = (outcome - jnp.mean(outcome)) * (samples / (samples - 1))
        return jnp.tensordot(gain, scores, 1) / samples

    return jax.tree.map(lambda x: jnp.mean(x, axis=0), losses), jax.tree.map(weigh, losses)


def _counts_of_errors(ring: Ring, cost: Cost) -> Callable[[jax.Array], jax.Array]:
    """Counts each kind of error that calls will draw, (N, 3) from keys (calls,).

    On scrambled links errors do not depend on what is sent: the same keys draw them again.
    """
    nodes, size, bits = cost.num_nodes, _hop_size(ring, cost), ring.wire.bits
    links = jnp.broadcast_to(ring.transition, (nodes, *ring.transition.shape[-2:]))
    links = lax.stop_gradient(links)
    real = pack(jnp.full((size,), -1, jnp.int32), bits)
    nothing = jnp.zeros((packed_size(size, bits),), jnp.uint32)

    def of_hop(call: Words, hop: jax.Array, node: jax.Array) -> jax.Array:
        channel = SymbolChannel(links[node])
        errors = real & receive(derive(call, hop, node), nothing, channel, scramble=True)
        low, high = errors & np.uint32(0x55555555), (errors >> 1) & np.uint32(0x55555555)
        kinds = jnp.stack([low & ~high, high & ~low, low & high])
        return jnp.sum(lax.population_count(kinds), axis=1, dtype=jnp.uint32)

    def of_call(call: Words) -> jax.Array:
        def turn(total: jax.Array, hop: jax.Array) -> tuple[jax.Array, None]:
            drawn = lax.map(lambda node: of_hop(call, hop, node), jnp.arange(nodes))
            return total + drawn, None

        begun = jnp.zeros((nodes, _KINDS), jnp.uint32)
        return lax.scan(turn, begun, jnp.arange(cost.rounds, dtype=jnp.int32))[0]

    def counted(keys: jax.Array) -> jax.Array:
        each = lax.map(of_call, cipher_key(keys))
        return jnp.sum(each, axis=0, dtype=jnp.uint32).astype(jnp.float32)

    return counted


def _one_site(
    loss: Loss,
    ring: Ring,
    key: jax.Array,
    samples: int,
    calls: int,
    cost: Cost,
    batch: int | None,
) -> tuple[Any, Any]:
    """As `_score`, from one symbol of each sample, run with an error and without.

    The symbol and the kind of its error are uniform, and weighed with their number. The two runs
    also give the mean loss, given all other symbols.
    """
    size = _hop_size(ring, cost) * ring.wire.bits // 2
    places = calls * cost.rounds * cost.num_nodes * size
    probs = _error_probs(ring, cost)

    def run(own: jax.Array) -> tuple[Any, Any]:
        keys_of_calls, key_of_site = jax.random.split(own)
        keys = jax.random.split(keys_of_calls, calls)
        words = cipher_key(keys)
        draws = jax.random.split(key_of_site, 5)
        ends = (calls, cost.rounds, cost.num_nodes, size, _KINDS)
        call, hop, link, symbol, kind = (
            jax.random.randint(draw, (), 0, end) for draw, end in zip(draws, ends, strict=True)
        )

        def with_error(error: jax.Array) -> Any:
            chosen = words[0][call], words[1][call]
            site = Site(chosen, hop, link, symbol, error)
            return loss(_held(ring, words, cost, site), keys)

        ends_ = lax.map(with_error, jnp.stack([jnp.uint32(0), kind.astype(jnp.uint32) + 1]))
        known = probs[link]
        right = 1 - jnp.sum(known)
        mean = jax.tree.map(lambda two: right * two[0] + _KINDS * known[kind] * two[1], ends_)
        at = jnp.zeros((cost.num_nodes, _KINDS)).at[link, kind].set(float(places * _KINDS))
        return mean, jax.tree.map(lambda two: (two[1] - two[0]) * at, ends_)

    return _averaged(_each(run, key, samples, batch), ring)


def _every_site(
    loss: Loss,
    ring: Ring,
    key: jax.Array,
    samples: int,
    calls: int,
    cost: Cost,
    batch: int | None,
) -> tuple[Any, Any]:
    """As `_one_site`, summed over all symbols."""
    size = _hop_size(ring, cost) * ring.wire.bits // 2
    shape = (calls, cost.rounds, cost.num_nodes, size)

    def run(own: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(own, calls)
        words = cipher_key(keys)

        def at(number: jax.Array) -> Any:
            call, hop, link, symbol = jnp.unravel_index(number, shape)
            chosen = words[0][call], words[1][call]

            def with_error(error: jax.Array) -> Any:
                site = Site(chosen, hop, link, symbol, error)
                return loss(_held(ring, words, cost, site), keys)

            ends = lax.map(with_error, jnp.arange(_KINDS + 1, dtype=jnp.uint32))
            return jax.tree.map(lambda each: each[1:] - each[0], ends)

        changes = lax.map(at, jnp.arange(int(np.prod(shape)), dtype=jnp.int32))

        def by_link(change: jax.Array) -> jax.Array:
            return jnp.sum(change.reshape(*shape, _KINDS), axis=(0, 1, 3))

        mean = loss(_held(ring, words, cost, None), keys)
        return mean, jax.tree.map(by_link, changes)

    return _averaged(_each(run, key, samples, batch), ring)


def _error_probs(ring: Ring, cost: Cost) -> jax.Array:
    """(N, 3) float32."""
    links = SymbolChannel(ring.transition).guessed().scrambled().xor_probs[..., 1:]
    probs = lax.stop_gradient(links.astype(jnp.float32))
    return jnp.broadcast_to(probs, (cost.num_nodes, _KINDS))


def _averaged(runs: tuple[Any, Any], ring: Ring) -> tuple[Any, Any]:
    """Means over the samples; the weights of all links together where they are one."""
    mean, weights = jax.tree.map(lambda run: jnp.mean(run, axis=0), runs)
    if ring.transition.ndim == 2:
        weights = jax.tree.map(lambda weight: jnp.sum(weight, axis=0), weights)
    return mean, weights


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _followed(value: jax.Array, transition: jax.Array, estimator: str) -> jax.Array:
    """A value that must have a derivative if the links have one."""
    return value


def _followed_jvp(estimator: str, primals: tuple, tangents: tuple) -> tuple[jax.Array, Any]:
    moved, links = tangents
    if isinstance(moved, SymbolicZero) and not isinstance(links, SymbolicZero):
        rule = 'be "score" or "russo" for a loss that has no derivative, as an accuracy has none'
        checks.refuse("estimator", rule, estimator)
    return primals[0], moved


_followed.defjvp(_followed_jvp, symbolic_zeros=True)


@jax.custom_jvp
def _attach(mean: jax.Array, weights: jax.Array, probs: jax.Array) -> jax.Array:
    """The mean, with the derivative `weights` with respect to `probs`."""
    return mean


@_attach.defjvp
def _attach_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    mean, weights, probs = primals
    moved = jnp.sum(_last(lax.stop_gradient(weights), probs) * tangents[2])
    return mean, tangents[0] + moved.astype(mean.dtype)


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
