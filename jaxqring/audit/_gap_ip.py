"""GapIP: does the gradient of another node agree with mine? Few qubits, no broadcast."""

import dataclasses
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from flax import struct
from jax.flatten_util import ravel_pytree
from jax.scipy.special import betainc
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import GapEstimator, Key, PyTree
from jaxqring.audit._amplitude import (
    WITHIN_RESOLUTION,
    angle,
    iterate_probability,
    phase_estimation_probabilities,
)
from jaxqring.audit._iterative import iterate, narrowings

#: The angle at which the decision changes: that of orthogonal gradients.
THRESHOLD = math.pi / 3
_GRID = 4096  # of angles, for maximum likelihood


@dataclasses.dataclass(frozen=True)
class GapPlan:
    """The cost of one GapIP, known beforehand.

    Attributes:
      estimator: "qpe", "mlae", "iqae" or "projective".
      steps: M, the number of outcomes of phase estimation, a power of two; for "mlae" the largest
        number of hops; one for "projective".
      repetitions: runs of phase estimation, whose median decides; shots for each number of
        iterations ("mlae") or in each round ("iqae"); copies for "projective".
      qubits: total sent, control qubits included; an upper bound for "iqae", which stops once it
        can decide.
      rounds: total number of messages; an upper bound likewise.
      depth: reflections that one party applies to one message, at most.
      error: bound on the probability of a wrong decision beyond the gap, without noise.
    """

    estimator: GapEstimator
    steps: int
    repetitions: int
    qubits: int
    rounds: int
    depth: int
    error: float


@struct.dataclass
class GapResult:
    """The outcome of one GapIP.

    Attributes:
      agrees: () bool, True if the inner product is taken for positive.
      inner_product: () estimate of the inner product of the unit gradients.
      qubits: () float32 sent.
      rounds: () float32 messages.
      plan: the planned cost; all of it is spent, but for "iqae".
    """

    agrees: jax.Array
    inner_product: jax.Array
    qubits: jax.Array
    rounds: jax.Array
    plan: GapPlan = struct.field(pytree_node=False)


def gap_outcomes(tau: float) -> int:
    """The number of outcomes M whose resolution pi / M is below `gap_angle`, a power of two.

    >>> [gap_outcomes(tau) for tau in (0.1, 0.05, 0.02)]
    [64, 128, 512]
    """
    return 2 ** math.ceil(math.log2(math.pi / gap_angle(tau)))


def gap_angle(tau: float) -> float:
    """The smaller distance of the angles at tau and -tau from the threshold, in radians.

    >>> round(gap_angle(0.1), 7)
    0.0568334
    """
    tau = checks.open_interval("tau", tau)
    return min(THRESHOLD - math.acos((1 + tau) / 2), math.acos((1 - tau) / 2) - THRESHOLD)


def plan_gap_ip(
    tau: float,
    size: int,
    *,
    delta: float | None = None,
    estimator: GapEstimator = "qpe",
    repetitions: int | None = None,
) -> GapPlan:
    """Computes the cost of GapIP for gradients of P entries.

    Args:
      tau: gap: inner products of at least tau are told from those of at most -tau; in (0, 1).
      size: P.
      delta: probability of a wrong decision to plan for; give this, `repetitions` or neither, which
        is one repetition.
      estimator: "qpe", phase estimation and the median of its runs; "mlae", maximum likelihood
        over shots without a control qubit; "iqae", shots as deep as the knowledge of the angle
        allows, until the sign is clear; "projective", one copy after the other, measured.
      repetitions: see `GapPlan`.

    Returns:
      A `GapPlan`.

    Raises:
      TypeError: if a number is not real.
      ValueError: if an argument is out of range, or `delta` is given for "mlae", of which no
        bound is known to us, or for "iqae", which is run at the error of one phase estimation.

    Reference: the paper states O~(tau^-1 log P) qubits; estimators, constants and the count of the
    control qubit are our interpretation. The median errs with exp(-2 r (8/pi^2 - 1/2)^2) at most.

    >>> plan_gap_ip(0.1, 10**6).qubits
    2646
    """
    tau = checks.open_interval("tau", tau)
    checks.one_of("estimator", estimator, get_args(GapEstimator))
    qubits = register_qubits(checks.integer("size", size))
    if delta is not None:
        delta = checks.open_interval("delta", delta)
        if repetitions is not None:
            checks.refuse("repetitions", "be left out where `delta` is given", repetitions)
        if estimator in ("mlae", "iqae"):
            rule = f"be left out for {estimator!r}, whose error it does not set"
            checks.refuse("delta", rule, delta)
        repetitions = _repetitions(tau, delta, estimator)
    repetitions = checks.integer("repetitions", 1 if repetitions is None else repetitions)
    if estimator == "projective":
        error = float(_projective_error(tau, repetitions))
        return GapPlan(estimator, 1, repetitions, repetitions * qubits, repetitions, 1, error)
    outcomes = gap_outcomes(tau)
    if estimator == "mlae":
        hops = [1] + [2 * iterations for iterations in _iteration_counts(outcomes)]
        sent = repetitions * sum(hops)
        return GapPlan(
            estimator, outcomes, repetitions, sent * qubits, sent, outcomes // 2, math.nan
        )
    if estimator == "iqae":
        margin, risk = gap_angle(tau), 1 - WITHIN_RESOLUTION
        # Calls of Q, of two hops each; the bound of Grinko et al., quoted from memory.
        calls = 50 / margin * math.log(2 / risk * math.log2(math.pi / (4 * margin)))
        sent = 2 * math.ceil(calls)
        deepest = 2 ** narrowings(2 * margin)
        return GapPlan(estimator, outcomes, repetitions, sent * qubits, sent, deepest // 2, risk)
    if repetitions % 2 == 0:
        checks.refuse("repetitions", "be odd, so that there is a median", repetitions)
    error = median_error(1 - WITHIN_RESOLUTION, repetitions)
    sent = repetitions * 2 * (outcomes - 1)
    return GapPlan("qpe", outcomes, repetitions, sent * (qubits + 1), sent, outcomes - 1, error)


def register_qubits(size: int) -> int:
    """Qubits for the P entries of a gradient and the one that is appended: ceil(log2(P + 1)).

    >>> register_qubits(10**6)
    20
    """
    return int(size).bit_length()


def median_error(single: float, repetitions: int) -> float:
    """Probability that at least half of the runs err, each with probability `single`."""
    return float(scipy.stats.binom.sf((repetitions - 1) // 2, repetitions, single))


def _repetitions(tau: float, delta: float, estimator: GapEstimator) -> int:
    """The fewest repetitions, an odd number, that err with probability delta at most."""
    count = 64
    while True:
        odd = 2 * np.arange(count) + 1
        if estimator == "projective":
            errors = _projective_error(tau, odd)
        else:
            errors = scipy.stats.binom.sf((odd - 1) // 2, odd, 1 - WITHIN_RESOLUTION)
        enough = np.flatnonzero(errors <= delta)
        if len(enough):
            return int(odd[enough[0]])
        count *= 2


def _projective_error(tau: float, copies: np.ndarray | int) -> np.ndarray:
    """The larger of the error probabilities at tau and -tau.

    Each copy is detected with probability ((1 +- tau)/2)^2, and the threshold is 1/4.
    """
    quarter = np.asarray(copies) // 4  # more than a quarter is agreement
    at_high = scipy.stats.binom.cdf(quarter, copies, ((1 + tau) / 2) ** 2)
    at_low = scipy.stats.binom.sf(quarter, copies, ((1 - tau) / 2) ** 2)
    return np.maximum(at_high, at_low)


def _iteration_counts(outcomes: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to M / 2: as deep as phase estimation goes."""
    return tuple(2**power for power in range(int(math.log2(outcomes))))


def gap_ip(
    server: PyTree,
    client: PyTree,
    *,
    tau: float,
    key: Key,
    estimator: GapEstimator = "qpe",
    repetitions: int = 1,
    hop_noise: ArrayLike = 0.0,
) -> GapResult:
    """Decides whether two gradients agree (inner product >= tau) or conflict (<= -tau).

    The exact simulation depends on the gradients only through the angle between them, so that any
    size costs no more than the inner product. Between -tau and tau the decision may be either.

    Args:
      server: pytree of real arrays; normalised here.
      client: another one with the same number of entries.
      tau: the gap, in (0, 1); static.
      key: typed PRNG key.
      estimator: see `plan_gap_ip`.
      repetitions: see `GapPlan`.
      hop_noise: () probability that a hop replaces the register by white noise, in [0, 1].

    Returns:
      A `GapResult`.

    Raises:
      TypeError: if `key` is not a typed PRNG key, or a leaf is not real.
      ValueError: if `plan_gap_ip` refuses the plan, `hop_noise` is outside [0, 1], a concrete
        gradient is zero, or the gradients differ in size.

    >>> server, client = jnp.array([1.0, 2.0, 2.0]), jnp.array([2.0, 1.0, 1.0])
    >>> result = gap_ip(server, client, tau=0.1, key=jax.random.key(0))
    >>> bool(result.agrees), result.plan.steps
    (True, 64)
    """
    checks.prng_key("key", key)
    u, v = _flat("server", server), _flat("client", client)
    if u.shape != v.shape:
        checks.refuse("client", f"have the {u.size} entries of the server", v.size)
    plan = plan_gap_ip(tau, u.size, estimator=estimator, repetitions=repetitions)
    noise, _ = checks.bounded("hop_noise", hop_noise)
    is_noiseless = isinstance(hop_noise, float | int) and hop_noise == 0
    inner = jnp.vdot(u, v, precision="highest")
    inner = inner / (jnp.linalg.norm(u) * jnp.linalg.norm(v))
    theta = angle(jnp.clip(inner, -1, 1))
    qubits = register_qubits(u.size)
    if estimator == "iqae":
        estimate = iterate(
            key,
            theta,
            threshold=THRESHOLD,
            gap=gap_angle(tau),
            shots=repetitions,
            risk=plan.error,
            qubits=qubits,
            hop_noise=noise,
        )
        measured, rounds = estimate.theta, estimate.hops
        sent = rounds * qubits
    else:
        measured = measure_angle(key, theta, plan, qubits, 0.0 if is_noiseless else noise)
        sent, rounds = jnp.float32(plan.qubits), jnp.float32(plan.rounds)
    return GapResult(measured < THRESHOLD, 2 * jnp.cos(measured) - 1, sent, rounds, plan)


def measure_angle(
    key: Key, theta: jax.Array, plan: GapPlan, qubits: int, hop_noise: ArrayLike
) -> jax.Array:
    """Draws the angle () that an estimator reads off, but for "iqae"."""
    if plan.estimator == "qpe":
        probs = phase_estimation_probabilities(theta, plan.steps, qubits, hop_noise)
        cumulative = jnp.cumsum(probs)
        uniform = jax.random.uniform(key, (plan.repetitions,), cumulative.dtype) * cumulative[-1]
        outcomes = jnp.searchsorted(cumulative, uniform)
        return jnp.median(jnp.pi * jnp.minimum(outcomes, plan.steps - outcomes) / plan.steps)
    alive = 1 - jnp.asarray(hop_noise, float)
    white_hits = (1 - alive) * 2.0**-qubits
    shots = plan.repetitions

    def one_hop(angles: jax.Array) -> jax.Array:
        return alive * jnp.cos(angles) ** 2 + white_hits

    if plan.estimator == "projective":
        frequency = jax.random.binomial(key, shots, one_hop(theta)) / shots
        # The contribution of white noise is known; more than a quarter is agreement.
        overlap = jnp.clip((frequency - white_hits) / jnp.maximum(alive, 1e-6), 0, 1)
        return jnp.arccos(jnp.sqrt(overlap)) + jnp.where(overlap > 0.25, 0, 1e-6)
    iterations = np.array(_iteration_counts(plan.steps))
    grid = (jnp.arange(_GRID) + 0.5) * (np.pi / 2 / _GRID)

    def hit_probs(angles: jax.Array) -> jax.Array:
        amplified = iterate_probability(angles[..., None], iterations, qubits, hop_noise)
        return jnp.concatenate([one_hop(angles)[..., None], amplified], axis=-1)

    hits = jax.random.binomial(key, shots, hit_probs(theta))
    probs = jnp.clip(hit_probs(grid), 1e-7, 1 - 1e-7)
    log_likelihood = jnp.sum(hits * jnp.log(probs) + (shots - hits) * jnp.log1p(-probs), axis=-1)
    return grid[jnp.argmax(log_likelihood)]


def decision_error(
    inner_product: ArrayLike,
    tau: float,
    size: int,
    *,
    repetitions: int = 1,
    hop_noise: ArrayLike = 0.0,
) -> jax.Array:
    """Exact probability () that phase estimation decides against the sign of the inner product.

    Differentiable in `hop_noise`.

    Args:
      inner_product: () of the unit gradients.
      tau: the gap, in (0, 1).
      size: P.
      repetitions: runs of phase estimation, an odd number.
      hop_noise: () probability that a hop replaces the register by white noise, in [0, 1].

    Returns:
      () the probability.

    Raises:
      TypeError, ValueError: as `plan_gap_ip`; if a concrete probability or inner product is out of
        range.

    >>> print(f"{decision_error(-0.1, 0.1, 10**6):.4f}")
    0.0986
    """
    plan = plan_gap_ip(tau, size, repetitions=repetitions)
    if not (isinstance(hop_noise, float | int) and hop_noise == 0):
        hop_noise, _ = checks.bounded("hop_noise", hop_noise)
    num_outcomes, theta = plan.steps, angle(inner_product)
    probs = phase_estimation_probabilities(theta, num_outcomes, register_qubits(size), hop_noise)
    outcomes = np.arange(num_outcomes)
    agrees = np.pi * np.minimum(outcomes, num_outcomes - outcomes) / num_outcomes < THRESHOLD
    wrong = jnp.sum(jnp.where(agrees == (jnp.asarray(inner_product) >= 0), 0, probs))
    if repetitions == 1:
        return wrong
    majority = (repetitions + 1) // 2  # of wrong runs makes the median wrong
    return betainc(majority, repetitions - majority + 1, jnp.clip(wrong, 0, 1))


def _flat(argument: str, tree: PyTree) -> jax.Array:
    """All entries of a gradient as one vector (P,), the largest of which is one in magnitude."""
    leaves = jax.tree.leaves(tree)
    if not leaves:
        checks.refuse(argument, "hold at least one entry", tree)
    for leaf in leaves:
        checks.real(argument, leaf)
    # By NumPy: the answer of JAX would be traced inside a jit.
    if not checks.is_traced(tree) and not any(np.any(np.asarray(leaf) != 0) for leaf in leaves):
        checks.refuse(argument, "not be zero, which has no direction", tree)
    flat = ravel_pytree(jax.tree.map(jnp.asarray, tree))[0]
    if flat.size == 0:
        checks.refuse(argument, "hold at least one entry", flat.shape)
    flat = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
    largest = jnp.max(jnp.abs(flat))  # so that no square over- or underflows
    return flat / jnp.where(largest > 0, largest, 1)
