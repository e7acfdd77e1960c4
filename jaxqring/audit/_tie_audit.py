"""TieAudit: the fraction of a private matching whose two ends disagree in sign.

Alice has signs x of P coordinates. Bob has a matching: M disjoint pairs of coordinates that were
meant to be tied. The audit estimates f, the fraction of his pairs with x_i != x_j, by messages from
Alice to Bob only. Copies of her state are sampled in `_tie_copies`; costs and moments are in
`_tie_plans`.

A hit has mean sign w (1 - 2f) + c, so that with B of H hits negative
f = (1 - (1 - 2B/H - c) / w) / 2 on average, exactly, whatever H > 0 is. Its variance is
q (1 - q) E[1/H] / w^2, with q the probability of a minus. It may leave [0, 1]. The offset c is zero
but for local noise, where Alice sends the sum of her signs, in n + 1 bits. By Hoeffding, H hits are
off by more than eps with probability 2 exp(-2 H w^2 eps^2) at most.

Reference: Gragera Garces and Pira, arXiv:2606.20344, abstract: O(eps^-2 log P) qubits against
Omega(sqrt P) bits. The protocol, from the hidden matching problem (Bar-Yossef, Jayram and
Kerenidis, STOC 2004), the noise, the estimator and every constant are our interpretation; the lower
bound on bits is theirs and cannot be simulated. `subset_audit` is a protocol of O(sqrt(P) / eps)
bits.
"""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key, TieTest, TieVariant
from jaxqring.audit._tie_copies import check_task, draw_outcomes
from jaxqring.audit._tie_plans import (
    MAX_COUNT,
    NoiseKind,
    TieNoise,
    TiePlan,
    check_delta,
    check_local,
    check_options,
    cost_of,
    hit_moments,
    in_use,
    local_weights,
    plan_subset_audit,
    plan_tie_audit,
)


@struct.dataclass
class TieResult:
    """The result of an audit, and its cost.

    Attributes:
      fraction: () unbiased estimate of f, outside [0, 1] now and then if there is noise; 1/2 if
        there was no hit.
      low: () lower end of the Hoeffding interval given the hits, at confidence 1 - delta.
      high: () upper end.
      hits: () int32 measurements that found a pair.
      copies: K, static like the following; see `TiePlan`.
      qubits: sent from Alice to Bob.
      pairs: EPR pairs used.
      bits: sent from Alice to Bob.
    """

    fraction: jax.Array
    low: jax.Array
    high: jax.Array
    hits: jax.Array
    copies: int = struct.field(pytree_node=False)
    qubits: int = struct.field(pytree_node=False)
    pairs: int = struct.field(pytree_node=False)
    bits: int = struct.field(pytree_node=False)


def tie_audit(
    signs: ArrayLike,
    matching: ArrayLike,
    *,
    delta: float,
    key: Key,
    epsilon: float | None = None,
    copies: int | None = None,
    variant: TieVariant = "message",
    noise: TieNoise | None = None,
    test: TieTest = "estimate",
) -> TieResult:
    """Estimates the fraction of pairs whose signs differ, from copies of Alice's state.

    Sampled exactly, in a time for each copy that does not depend on P. May be mapped over keys,
    signs and matchings.

    Args:
      signs: (P,) of -1 and 1, integers or floats.
      matching: (M, 2) integers, disjoint pairs of indices of signs.
      delta: () probability with which the interval may miss the fraction, in (0, 1).
      key: typed PRNG key; of public randomness and of outcomes.
      epsilon: tolerated error, in (0, 1), which sets the number of copies by `plan_tie_audit`. Give
        this or `copies`.
      copies: number of copies. With it, `delta` and the noise may be traced.
      variant: "message" sends the qubits, "steered" uses EPR pairs and sends bits.
      noise: of the qubits; None for perfect ones.
      test: "estimate" or "zero"; the latter takes fewer copies to tell f = 0 from f >= epsilon, and
        decides for zero if the estimate is 0.

    Returns:
      A `TieResult` whose costs are those of `plan_tie_audit`.

    Raises:
      TypeError: if the key is not a typed key, the noise not a `TieNoise`, or numbers are not real.
      ValueError: if a concrete argument is out of range; if noise is local and P not a power of two
        or the matching not perfect; if there is noise in a test of zero. The values of traced signs
        and pairs are not checked.

    >>> signs, matching = [1, 1, -1, -1, 1, -1, 1, 1], [[0, 1], [2, 3], [4, 5], [6, 7]]
    >>> result = tie_audit(signs, matching, epsilon=0.1, delta=0.05, key=jax.random.key(0))
    >>> bool(result.low <= 0.25 <= result.high), int(result.hits), result.qubits
    (True, 185, 555)
    """
    checks.prng_key("key", key)
    noise = check_options(variant, noise, test)
    kind, strength = in_use(noise)
    signs, matching = check_task(signs, matching)
    size, coverage = signs.shape[0], 2 * matching.shape[0] / signs.shape[0]
    check_local(kind, size, coverage == 1)
    name, _ = checks.exactly_one(epsilon=epsilon, copies=copies)
    if name == "epsilon":
        assert epsilon is not None
        plan = plan_tie_audit(epsilon, delta, size, coverage, variant, noise, test)
        checks.integer("copies", plan.copies, 1, MAX_COUNT)
    else:
        check_delta(delta)
        if test == "zero" and kind != "none":
            checks.refuse("noise", "have no effect in a test of zero", noise)
        plan = cost_of(checks.integer("copies", copies, 1, MAX_COUNT), size, variant, kind)
    _, contrast = hit_moments(size, coverage, variant, kind, strength)
    estimate = _run(
        key,
        signs < 0,
        matching,
        strength,
        contrast,
        delta,
        kind=kind,
        copies=plan.copies,
        variant=variant,
    )
    return TieResult(*estimate, **plan._asdict())


def subset_audit(
    signs: ArrayLike,
    matching: ArrayLike,
    *,
    delta: float,
    key: Key,
    epsilon: float | None = None,
    bits: int | None = None,
    test: TieTest = "estimate",
) -> TieResult:
    """Estimates the same from the signs of a public random subset: the classical rival.

    Alice sends these signs, and Bob counts his pairs that have both ends in the subset: given their
    number, a random sample of his pairs without replacement, to which Hoeffding's bound applies.

    Args:
      signs: (P,) of -1 and 1, integers or floats.
      matching: (M, 2) integers, disjoint pairs of indices of signs.
      delta: () probability with which the interval may miss the fraction, in (0, 1).
      key: typed PRNG key, of public randomness.
      epsilon: tolerated error, in (0, 1), which sets the bits by `plan_subset_audit`. Give this or
        `bits`.
      bits: m, signs sent, from 1 to P.
      test: "estimate" or "zero".

    Returns:
      A `TieResult` without copies, qubits and pairs.

    Raises:
      TypeError, ValueError: as `tie_audit`.

    >>> signs, matching = jnp.ones(2**10), jnp.arange(2**10).reshape(-1, 2)
    >>> result = subset_audit(signs, matching, epsilon=0.1, delta=0.05, key=jax.random.key(0))
    >>> float(result.fraction), result.bits
    (0.0, 616)
    """
    checks.prng_key("key", key)
    checks.one_of("test", test, get_args(TieTest))
    signs, matching = check_task(signs, matching)
    size, coverage = signs.shape[0], 2 * matching.shape[0] / signs.shape[0]
    name, _ = checks.exactly_one(epsilon=epsilon, bits=bits)
    if name == "epsilon":
        assert epsilon is not None
        plan = plan_subset_audit(epsilon, delta, size, coverage, test)
    else:
        check_delta(delta)
        plan = TiePlan(0, 0, 0, checks.integer("bits", bits, 1, size))
    estimate = _run_subset(key, signs < 0, matching, delta, sent=plan.bits)
    return TieResult(*estimate, **plan._asdict())


@functools.partial(jax.jit, static_argnames=("kind", "copies", "variant"))
def _run(
    key: Key,
    negative: jax.Array,
    matching: jax.Array,
    strength: ArrayLike,
    contrast: ArrayLike,
    delta: ArrayLike,
    *,
    kind: NoiseKind,
    copies: int,
    variant: TieVariant,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    outcomes = draw_outcomes(
        key, negative, matching, strength, kind=kind, copies=copies, variant=variant
    )
    sign = outcomes.sign
    offset = _offset(negative, strength) if kind == "local" else 0.0
    hits = jnp.sum(sign != 0, dtype=jnp.int32)
    minus = jnp.sum(sign < 0, dtype=jnp.int32)
    return _estimate(minus, hits, contrast, offset, delta)


@functools.partial(jax.jit, static_argnames="sent")
def _run_subset(
    key: Key, negative: jax.Array, matching: jax.Array, delta: ArrayLike, *, sent: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    size = negative.shape[0]
    chosen = jax.random.permutation(key, size)[:sent]
    inside = jnp.zeros(size, bool).at[chosen].set(True)
    seen = inside[matching[:, 0]] & inside[matching[:, 1]]
    minus = seen & (negative[matching[:, 0]] ^ negative[matching[:, 1]])
    hits = jnp.sum(seen, dtype=jnp.int32)
    return _estimate(jnp.sum(minus, dtype=jnp.int32), hits, 1.0, 0.0, delta)


def _offset(negative: jax.Array, survival: ArrayLike) -> ArrayLike:
    """Contribution () to the mean sign of pairs that are not Bob's."""
    size = negative.shape[0]
    if size < 4:
        return 0.0
    mean = 1 - 2 * jnp.sum(negative, dtype=jnp.int32) / size
    mean_product = mean**2 * (1 - 4 / size) + (4 - size) / size**2
    return local_weights(size, survival)[1] * mean_product / ((1 - 2 / size) * (1 - 3 / size))


def _estimate(
    minus: jax.Array, hits: jax.Array, contrast: ArrayLike, offset: ArrayLike, delta: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Fraction, low, high and hits of a `TieResult`."""
    seen = jnp.maximum(hits, 1).astype(float)
    fraction = (1 - (1 - 2 * minus / seen - offset) / contrast) / 2
    width = jnp.sqrt(jnp.log(2 / jnp.asarray(delta, seen.dtype)) / (2 * seen)) / contrast
    fraction = jnp.where(hits > 0, fraction, 0.5)
    width = jnp.where(hits > 0, width, 0.5)
    return fraction, jnp.clip(fraction - width, 0, 1), jnp.clip(fraction + width, 0, 1), hits
