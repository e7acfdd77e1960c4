"""Second witnesses of GapIP: phase estimation written out, and majorities of planes."""

import math

import numpy as np
import scipy  # whose subpackages load when they are first used


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


def error_with_noise(tau: float, noise: float) -> float:
    """The larger chance of a wrong sign if each hop may turn the register into white noise.

    A register of many levels that has become white noise is left alone by both reflections, so that
    no phase is added any more. The chances are a mean over the hop of the first noise: of Fourier
    transforms, over the paths of the control register, of what the register was at that hop.
    """
    steps = resolving_steps(tau)
    outcomes = np.arange(steps)
    read = np.pi * np.minimum(outcomes, steps - outcomes) / steps
    weights = noise * (1 - noise) ** np.arange(2 * (steps - 1))
    weights[-1] /= noise  # or no noise at all
    errors = []
    for inner in (tau, -tau):
        theta = math.acos((1 + inner) / 2)
        now, hops = np.zeros(steps), []
        for power in 2 ** np.arange(int(math.log2(steps))):
            asked = outcomes // power % 2 == 1
            for _ in range(power):
                for mirror in (theta, 0.0):  # about the one vector, and then about the other
                    now = np.where(asked, 2 * mirror + math.pi - now, now)
                    hops.append(now)
        spectrum = np.abs(np.fft.fft(np.cos(hops), axis=1) / steps) ** 2
        spectrum += np.abs(np.fft.fft(np.sin(hops), axis=1) / steps) ** 2
        errors.append(float((weights @ spectrum)[(read < math.pi / 3) != (inner > 0)].sum()))
    return max(errors)


def most_noise(tau: float, size: int) -> float:
    """The white noise of a hop up to which qubits are fewer than bits of SimHash."""

    def margin(log_noise: float) -> float:
        error = error_with_noise(tau, math.exp(log_noise))
        bits = fewest_signs(tau, error) if error < 0.5 else 1
        return math.log(bits / phase_estimation_qubits(tau, size))

    return math.exp(scipy.optimize.brentq(margin, math.log(1e-5), math.log(1e-2), xtol=1e-5))
