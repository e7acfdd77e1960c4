"""GapIP: does the gradient of another node agree with mine? Few qubits, no broadcast."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from flax import struct
from jax.flatten_util import ravel_pytree
from jax.scipy.special import betainc
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.audit._amplitude import ONE_STEP, angle, iterate_probability, phase_estimation_law
from jaxqring.audit._iterative import iterate, narrowings

Estimator = Literal["qpe", "mlae", "iqae", "projective"]
ESTIMATORS = ("qpe", "mlae", "iqae", "projective")
#: Where the decision falls: the angle of gradients that are at right angles.
THRESHOLD = math.pi / 3
_GRID = 4096  # of angles, for maximum likelihood


@dataclasses.dataclass(frozen=True)
class GapPlan:
    """What one GapIP takes, known beforehand.

    Attributes:
      estimator: "qpe", "mlae", "iqae" or "projective".
      steps: M of phase estimation, a power of two; for "mlae" the largest number of hops; one for
        "projective".
      repetitions: runs of phase estimation, whose median counts; shots for each number of turns
        ("mlae") or in each round ("iqae"); copies for "projective".
      qubits: sent in all, control qubits included; for "iqae", which stops when it knows enough, a
        bound.
      rounds: messages in all; a bound likewise.
      depth: reflections that one party applies to one message, at most.
      error: bound on the probability of a wrong decision beyond the gap, without noise.
    """

    estimator: str
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
      agrees: () bool, whether the inner product is taken for positive.
      inner_product: () estimate of the inner product of the unit gradients.
      qubits: () float32 sent.
      rounds: () float32 messages.
      plan: what was planned; all of it is used, but for "iqae".
    """

    agrees: jax.Array
    inner_product: jax.Array
    qubits: jax.Array
    rounds: jax.Array
    plan: GapPlan = struct.field(pytree_node=False)


def gap_steps(tau: float) -> int:
    """M: so many steps that one of them is less than the angle between the two cases.

    >>> [gap_steps(tau) for tau in (0.1, 0.05, 0.02)]
    [64, 128, 512]
    """
    return 2 ** math.ceil(math.log2(math.pi / gap_angle(tau)))


def gap_angle(tau: float) -> float:
    """The smaller distance of the two cases from the threshold, in radians.

    >>> round(gap_angle(0.1), 7)
    0.0568334
    """
    check_tau(tau)
    return min(THRESHOLD - math.acos((1 + tau) / 2), math.acos((1 - tau) / 2) - THRESHOLD)


def plan_gap_ip(
    tau: float,
    size: int,
    *,
    delta: float | None = None,
    estimator: Estimator = "qpe",
    repetitions: int | None = None,
) -> GapPlan:
    """What GapIP takes for gradients of P entries.

    Args:
      tau: gap: inner products of at least tau are told from those of at most -tau; in (0, 1).
      size: P.
      delta: probability of a wrong decision to plan for; give this, `repetitions` or neither, which
        is one repetition.
      estimator: "qpe", phase estimation and the median of its runs; "mlae", maximum likelihood
        over shots without a control qubit; "iqae", shots as deep as is known to be safe, until
        the sign is known; "projective", one copy after the other, measured.
      repetitions: see `GapPlan`.

    Raises:
      ValueError: if an argument is out of range, or `delta` is given for "mlae", of which no
        bound is known to us, or for "iqae", which is run at the error of one phase estimation.

    Source: the paper states O~(tau^-1 log P) qubits; estimators, constants and the count of the
    control qubit are our interpretation. The median errs with exp(-2 r (8/pi^2 - 1/2)^2) at most.

    >>> plan_gap_ip(0.1, 10**6).qubits
    2646
    """
    check_tau(tau)
    checks.one_of("estimator", estimator, ESTIMATORS)
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        checks.refuse("size", "be a positive integer", size)
    if delta is not None:
        checks.within("delta", delta)
        if not 0 < delta < 1:
            checks.refuse("delta", "lie in (0, 1)", delta)
        if repetitions is not None:
            checks.refuse("repetitions", "be left out where `delta` is given", repetitions)
        if estimator in ("mlae", "iqae"):
            rule = f"be left out for {estimator!r}, whose error it does not set"
            checks.refuse("delta", rule, delta)
        repetitions = _repetitions(tau, delta, estimator)
    repetitions = 1 if repetitions is None else repetitions
    if isinstance(repetitions, bool) or not isinstance(repetitions, int) or repetitions < 1:
        checks.refuse("repetitions", "be a positive integer", repetitions)
    qubits = register_qubits(size)
    if estimator == "projective":
        error = float(_projective_error(tau, repetitions))
        return GapPlan(estimator, 1, repetitions, repetitions * qubits, repetitions, 1, error)
    steps = gap_steps(tau)
    if estimator == "mlae":
        hops_of = [1] + [2 * turns for turns in _turns(steps)]
        sent = repetitions * sum(hops_of)
        return GapPlan(estimator, steps, repetitions, sent * qubits, sent, steps // 2, math.nan)
    if estimator == "iqae":
        gap, risk = gap_angle(tau), 1 - ONE_STEP
        # Calls of Q, of two hops each; the bound of Grinko et al., quoted from memory.
        sent = 2 * math.ceil(50 / gap * math.log(2 / risk * math.log2(math.pi / (4 * gap))))
        deepest = 2 ** narrowings(2 * gap)
        return GapPlan(estimator, steps, repetitions, sent * qubits, sent, deepest // 2, risk)
    if repetitions % 2 == 0:
        checks.refuse("repetitions", "be odd, so that there is a median", repetitions)
    hops = 2 * (steps - 1)
    error = median_error(1 - ONE_STEP, repetitions)
    sent = repetitions * hops
    return GapPlan("qpe", steps, repetitions, sent * (qubits + 1), sent, steps - 1, error)


def register_qubits(size: int) -> int:
    """ceil(log2(P + 1)): the entries of a gradient, and the one that is appended.

    >>> register_qubits(10**6)
    20
    """
    return int(size).bit_length()


def median_error(single: float, repetitions: int) -> float:
    """The probability that half or more of so many runs err, each with probability `single`."""
    return float(scipy.stats.binom.sf((repetitions - 1) // 2, repetitions, single))


def _repetitions(tau: float, delta: float, estimator: str) -> int:
    """The fewest, an odd number, that err with probability delta at most."""
    few = 64
    while True:
        odd = 2 * np.arange(few) + 1
        if estimator == "projective":
            errors = _projective_error(tau, odd)
        else:
            errors = scipy.stats.binom.sf((odd - 1) // 2, odd, 1 - ONE_STEP)
        enough = np.flatnonzero(errors <= delta)
        if len(enough):
            return int(odd[enough[0]])
        few *= 2


def _projective_error(tau: float, copies: np.ndarray | int) -> Any:
    """The larger of the errors at tau and -tau: s^2 of the copies are found, and 1/4 decides."""
    found = np.asarray(copies) // 4  # more than a quarter is agreement
    at_high = scipy.stats.binom.cdf(found, copies, ((1 + tau) / 2) ** 2)
    at_low = scipy.stats.binom.sf(found, copies, ((1 - tau) / 2) ** 2)
    return np.maximum(at_high, at_low)


def _turns(steps: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to M / 2: as deep as phase estimation goes."""
    return tuple(2**power for power in range(int(math.log2(steps))))


def check_tau(tau: float) -> None:
    """Refuses a gap that is none."""
    checks.within("tau", tau)
    if not 0 < float(tau) < 1:
        checks.refuse("tau", "lie in (0, 1)", tau)


def gap_ip(
    server: Any,
    client: Any,
    *,
    tau: float,
    key: jax.Array,
    estimator: Estimator = "qpe",
    repetitions: int = 1,
    hop_noise: ArrayLike = 0.0,
) -> GapResult:
    """Decides whether two gradients agree (inner product >= tau) or conflict (<= -tau).

    Simulated by the angle between them, exactly, so that any size costs no more than the inner
    product. Between -tau and tau the decision may be either.

    Args:
      server: pytree of real arrays; normalised here.
      client: another one of as many entries.
      tau: the gap, in (0, 1); static.
      key: typed PRNG key.
      estimator: see `plan_gap_ip`.
      repetitions: see `GapPlan`.
      hop_noise: () probability that a hop replaces the register by white noise, in [0, 1].

    Raises:
      TypeError, ValueError: if an argument is none of these, a gradient known now is zero, or they
        have not the same size.

    >>> mine, other = jnp.array([1.0, 2.0, 2.0]), jnp.array([2.0, 1.0, 1.0])
    >>> found = gap_ip(mine, other, tau=0.1, key=jax.random.key(0))
    >>> bool(found.agrees), found.plan.steps
    (True, 64)
    """
    checks.prng_key("key", key)
    ours, theirs = (_flat(name, x) for name, x in (("server", server), ("client", client)))
    if ours.shape != theirs.shape:
        checks.refuse("client", f"have the {ours.size} entries of the server", theirs.size)
    plan = plan_gap_ip(tau, ours.size, estimator=estimator, repetitions=repetitions)
    noise, _ = checks.bounded("hop_noise", hop_noise)
    exact = isinstance(hop_noise, float | int) and hop_noise == 0
    inner = jnp.vdot(ours, theirs, precision="highest")
    inner = inner / (jnp.linalg.norm(ours) * jnp.linalg.norm(theirs))
    theta = angle(jnp.clip(inner, -1, 1))
    qubits = register_qubits(ours.size)
    if estimator == "iqae":
        found = iterate(
            key,
            theta,
            threshold=THRESHOLD,
            gap=gap_angle(tau),
            shots=repetitions,
            risk=plan.error,
            qubits=qubits,
            hop_noise=noise,
        )
        measured, rounds = found.theta, found.hops
        sent = rounds * qubits
    else:
        measured = measure_angle(key, theta, plan, qubits, 0.0 if exact else noise)
        sent, rounds = jnp.float32(plan.qubits), jnp.float32(plan.rounds)
    return GapResult(measured < THRESHOLD, 2 * jnp.cos(measured) - 1, sent, rounds, plan)


def measure_angle(
    key: jax.Array, theta: jax.Array, plan: GapPlan, qubits: int, hop_noise: ArrayLike
) -> jax.Array:
    """() the angle that an estimator reads off."""
    if plan.estimator == "qpe":
        law = phase_estimation_law(theta, plan.steps, qubits, hop_noise)
        ends = jnp.cumsum(law)
        uniform = jax.random.uniform(key, (plan.repetitions,), ends.dtype) * ends[-1]
        read = jnp.searchsorted(ends, uniform)
        return jnp.median(jnp.pi * jnp.minimum(read, plan.steps - read) / plan.steps)
    alive = 1 - jnp.asarray(hop_noise, float)
    found = alive * jnp.cos(theta) ** 2 + (1 - alive) * 2.0**-qubits  # v, sent once
    shots = plan.repetitions
    if plan.estimator == "projective":
        hits = jax.random.binomial(key, shots, found) / shots
        # What white noise adds is known; more than a quarter is agreement.
        share = jnp.clip((hits - (1 - alive) * 2.0**-qubits) / jnp.maximum(alive, 1e-6), 0, 1)
        return jnp.arccos(jnp.sqrt(share)) + jnp.where(share > 0.25, 0, 1e-6)
    turns = np.array(_turns(plan.steps))
    grid = (jnp.arange(_GRID) + 0.5) * (np.pi / 2 / _GRID)

    def chances(angles: jax.Array) -> jax.Array:
        amplified = iterate_probability(angles[..., None], turns, qubits, hop_noise)
        first = alive * jnp.cos(angles) ** 2 + (1 - alive) * 2.0**-qubits
        return jnp.concatenate([first[..., None], amplified], axis=-1)

    hits = jax.random.binomial(key, shots, chances(theta))
    probs = jnp.clip(chances(grid), 1e-7, 1 - 1e-7)
    score = jnp.sum(hits * jnp.log(probs) + (shots - hits) * jnp.log1p(-probs), axis=-1)
    return grid[jnp.argmax(score)]


def decision_error(
    inner_product: ArrayLike,
    tau: float,
    size: int,
    *,
    repetitions: int = 1,
    hop_noise: ArrayLike = 0.0,
) -> jax.Array:
    """() exact probability that phase estimation decides against the sign of the inner product.

    Differentiable in `hop_noise`.

    >>> print(f"{decision_error(-0.1, 0.1, 10**6):.4f}")
    0.0986
    """
    plan = plan_gap_ip(tau, size, repetitions=repetitions)  # refuses what cannot be
    if not (isinstance(hop_noise, float | int) and hop_noise == 0):
        hop_noise, _ = checks.bounded("hop_noise", hop_noise)
    steps, theta = plan.steps, angle(inner_product)
    law = phase_estimation_law(theta, steps, register_qubits(size), hop_noise)
    outcomes = np.arange(steps)
    agrees = np.pi * np.minimum(outcomes, steps - outcomes) / steps < THRESHOLD
    wrong = jnp.sum(jnp.where(agrees == (jnp.asarray(inner_product) >= 0), 0, law))
    if repetitions == 1:
        return wrong
    half = (repetitions + 1) // 2  # so many wrong ones make the median wrong
    return betainc(half, repetitions - half + 1, jnp.clip(wrong, 0, 1))


def _flat(argument: str, tree: Any) -> jax.Array:
    leaves = jax.tree.leaves(tree)
    if not leaves:
        checks.refuse(argument, "hold at least one entry", tree)
    for leaf in leaves:
        checks.real(argument, leaf)
    # Asked of NumPy: of JAX the answer would be traced inside a jit.
    known = not checks.is_traced(tree)
    if known and not any(np.any(np.asarray(leaf) != 0) for leaf in leaves):
        checks.refuse(argument, "not be zero, which has no direction", tree)
    flat = ravel_pytree(jax.tree.map(jnp.asarray, tree))[0]
    if flat.size == 0:
        checks.refuse(argument, "hold at least one entry", flat.shape)
    flat = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
    largest = jnp.max(jnp.abs(flat))  # so that no square over- or underflows
    return flat / jnp.where(largest > 0, largest, 1)
