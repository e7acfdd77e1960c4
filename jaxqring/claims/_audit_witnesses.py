"""Second witnesses of the conflict audits: phase estimation, majorities and matchings by numpy."""

import math

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats


def resolving_steps(tau: float) -> int:
    """The smallest power of two M whose resolution pi / M tells the gaps tau and -tau from none."""
    steps = 1
    middle = math.acos(1 / 2)
    while math.pi / steps > min(abs(math.acos((1 + sign * tau) / 2) - middle) for sign in (1, -1)):
        steps *= 2
    return steps


def phase_estimation_qubits(tau: float, size: int) -> int:
    """Qubits sent if every step but the first carries the register and its control both ways."""
    register = math.ceil(math.log2(size + 1))
    return 2 * (resolving_steps(tau) - 1) * (register + 1)


def error_by_fourier(tau: float) -> float:
    """The larger chance of a wrong sign at the gaps tau and -tau: Fourier transforms of phases."""
    steps = resolving_steps(tau)
    read = np.pi * np.minimum(np.arange(steps), steps - np.arange(steps)) / steps
    errors = []
    for inner in (tau, -tau):
        phases = np.exp(2j * math.acos((1 + inner) / 2) * np.arange(steps))
        amplitudes = np.fft.fft([phases, phases.conj()]) / steps
        chances = (np.abs(amplitudes) ** 2).mean(0)
        errors.append(float(chances[(read < math.pi / 3) != (inner > 0)].sum()))
    return max(errors)


def gradients_at(inner: float, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors (size,) of a given inner product, otherwise random."""
    first, second = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, 2)))[0].T
    return first, inner * first + math.sqrt(1 - inner**2) * second


def error_of_state_vector(inner: float, tau: float, size: int, seed: int) -> float:
    """The chance of a wrong sign by phase estimation of dense matrices.

    Two random gradients get the entry 1 and zeros up to a power of two; reflections about them,
    controlled by a register in even superposition, and its inverse Fourier transform.
    """
    steps = resolving_steps(tau)
    levels = 2 ** math.ceil(math.log2(size + 1))
    ends = np.zeros((2, levels))
    for row, gradient in zip(ends, gradients_at(inner, size, seed), strict=True):
        row[:size], row[size] = gradient / math.sqrt(2), 1 / math.sqrt(2)
    reflections = [np.eye(levels) - 2 * np.outer(end, end) for end in ends]
    turn = reflections[0] @ reflections[1]
    state = np.empty((steps, levels), complex)
    state[0] = ends[0] / math.sqrt(steps)
    for step in range(1, steps):
        state[step] = turn @ state[step - 1]
    index = np.arange(steps)
    inverse = np.exp(-2j * np.pi * np.outer(index, index) / steps) / math.sqrt(steps)
    chances = (np.abs(inverse @ state) ** 2).sum(1)
    agrees = np.pi * np.minimum(index, steps - index) / steps < math.pi / 3
    return float(chances[agrees != (inner > 0)].sum())


def fewest_signs(tau: float, error: float) -> int:
    """The odd number of signs of random planes whose majority errs with at most `error`.

    The majority of 2 h + 1 signs that are right with probability p is wrong with the incomplete
    beta function I_{1-p}(h + 1, h + 1), which is solved for a real h.
    """
    wrong = 0.5 - math.asin(tau) / math.pi

    def excess(half: float) -> float:
        return float(scipy.special.betainc(half + 1, half + 1, wrong)) - error

    if excess(0) <= 0:
        return 1
    half = math.ceil(scipy.optimize.brentq(excess, 0, 40 / tau**2, xtol=1e-9))
    return 2 * half + 1


def gap_of_fewer_symbols(size: int) -> float:
    """The gap below which phase estimation sends fewer qubits than SimHash bits.

    Of a hundred gaps from 0.001 to 0.5, the geometric mean of the largest at which it does and the
    smallest at which it does not.
    """
    gaps = 1e-3 * 500 ** (np.arange(100) / 99)
    wins = [
        phase_estimation_qubits(gap, size) < fewest_signs(gap, error_by_fourier(gap))
        for gap in gaps
    ]
    return math.sqrt(max(gaps[wins]) * min(gaps[np.logical_not(wins)]))


def least_gap(size: int, bits: int) -> float:
    """The gap below which phase estimation sends more qubits than the gradient has bits."""
    register = math.ceil(math.log2(size + 1))
    steps = 2 ** math.floor(math.log2(size * bits / (2 * (register + 1)) + 1))
    angle = math.pi / steps
    # The angle of tau is nearer to that of right angles, or that of -tau.
    return max(2 * math.cos(math.pi / 3 - angle) - 1, 1 - 2 * math.cos(math.pi / 3 + angle))


def fewest_hits(error: float, delta: float) -> int:
    """The fewest hits K with 2 exp(-2 K error^2) <= delta, one after the other."""
    hits = np.arange(1, math.ceil(20 / error**2))
    return int(hits[np.argmax(2 * np.exp(-2 * hits * error**2) <= delta)])


def fewest_copies(error: float, delta: float, hit: float) -> int:
    """The same of copies that are a hit with probability `hit`, over all numbers of hits."""
    copies = fewest_hits(error, delta)
    while True:
        hits = np.arange(copies + 1)
        misses = 2 * np.exp(-2 * hits * error**2)
        if scipy.stats.binom.pmf(hits, copies, hit) @ misses <= delta:
            return copies
        copies += 1


def fewest_hits_exactly(error: float, delta: float) -> int:
    """The hits from which on a mean of fair coins is off by more than `error` rarely enough."""
    hits = np.arange(1, fewest_hits(error, delta) + 1)
    few = np.ceil(hits * (0.5 - error) - 1e-9) - 1
    misses = 2 * scipy.stats.binom.cdf(few, hits, 0.5) > delta
    return int(hits[misses][-1]) + 1


def fewest_subset(pairs: int, size: int) -> int:
    """The fewest signs that hold `pairs` pairs of a perfect matching on average, in integers."""
    signs = math.isqrt(2 * (size - 1) * pairs)
    while signs * (signs - 1) < 2 * (size - 1) * pairs:
        signs += 1
    return min(signs, size)


def miss_of_hits(hits: int, fraction: float, error: float) -> float:
    """Probability that a share of `hits` coins is off its fraction by more than `error`."""
    counts = np.arange(hits + 1)
    off = np.abs(counts / hits - fraction) > error + 1e-9
    return float(scipy.stats.binom.pmf(counts[off], hits, fraction).sum())


def miss_of_subset(signs: int, size: int, fraction: float, error: float) -> float:
    """The same of a random subset of signs: all numbers of pairs in it, and of minus among them."""
    every = size // 2
    minus = round(every * fraction)
    found = np.arange(max(0, signs - every), signs // 2 + 1)
    choose = scipy.special.gammaln
    weights = np.exp(
        choose(every + 1)
        - choose(found + 1)
        - choose(signs - 2 * found + 1)
        - choose(every - signs + found + 1)
        + (signs - 2 * found) * math.log(2)
        - (choose(size + 1) - choose(signs + 1) - choose(size - signs + 1))
    )
    missed = 0.0
    for hits, weight in zip(found[weights > 1e-15], weights[weights > 1e-15], strict=True):
        counts = np.arange(hits + 1)
        off = np.abs(counts / max(hits, 1) - fraction) > error + 1e-9
        missed += weight * scipy.stats.hypergeom.pmf(counts[off], every, minus, hits).sum()
    return float(missed)


def steered_minus(signs: np.ndarray, matching: np.ndarray) -> float:
    """Probability that Bob's corrected sign is minus, of EPR pairs written out.

    Alice's halves get her signs and are measured along X; Bob measures (|i> +- |j>) / sqrt(2).
    """
    size = len(signs)
    halves = np.diag(signs) / math.sqrt(size)
    index = np.arange(size)
    parity = np.array([[(a & i).bit_count() % 2 for i in index.tolist()] for a in index.tolist()])
    states = (1 - 2 * parity) @ halves / math.sqrt(size)  # of Bob, a row for each outcome a
    minus = 0.0
    for i, j in matching:
        for sign in (1, -1):
            chances = (states[:, i] + sign * states[:, j]) ** 2 / 2
            corrected = sign * (1 - 2 * parity[:, i ^ j])
            minus += float(chances[corrected < 0].sum())
    return minus


def size_of_fewer_symbols(error: float, delta: float, most: int) -> int:
    """The smallest even size up to `most` at which n K qubits are fewer than the signs sent."""
    hits = fewest_hits(error, delta)
    sizes = np.arange(2, most + 1, 2)
    needed = 2.0 * (sizes - 1) * hits
    signs = np.ceil(np.sqrt(needed))
    signs += signs * (signs - 1) < needed
    wins = np.ceil(np.log2(sizes)) * hits < np.minimum(signs, sizes)
    return int(sizes[np.argmax(wins)])
