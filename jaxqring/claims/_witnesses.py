"""Second witnesses: numpy and scipy alone, with none of the code they are to judge."""

import itertools
import math

import numpy as np
import scipy  # whose subpackages load when they are first used

_BELL = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / math.sqrt(2)
_X, _Z = np.array([[0, 1], [1, 0]]), np.diag([1, -1])


def werner_density(fidelity: float) -> np.ndarray:
    """(4, 4) a Werner pair: weight `fidelity` on Phi+, the rest even on the other Bell states."""
    weights = [fidelity, *[(1 - fidelity) / 3] * 3]
    return np.einsum("k,ki,kj->ij", weights, _BELL, _BELL)


def bell_transition(rho: np.ndarray) -> np.ndarray:
    """(4, 4) probability of reading Bell state r if X^a Z^b was applied to the first qubit."""
    sent = [
        np.linalg.matrix_power(_X, a) @ np.linalg.matrix_power(_Z, b)
        for a, b in itertools.product((0, 1), repeat=2)
    ]
    states = [np.kron(u, np.eye(2)) @ rho @ np.kron(u, np.eye(2)).T for u in sent]
    return np.array([[bell @ state @ bell for state in states] for bell in _BELL])


def information(transition: np.ndarray) -> float:
    """Bits of mutual information between a uniform column and the row."""
    joint = transition / transition.shape[1]
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 1e-300
    return float(np.sum(joint[seen] * np.log2(joint[seen] / outer[seen])))


def best_ensemble(trials: int, seed: int) -> float:
    """The most success, over ensembles, of reading 3 bits from half of a pair.

    Eight unitaries on half of Phi+, read by the pretty good measurement: the Paulis twice, and
    `trials` sets of random ones.
    """
    rng = np.random.default_rng(seed)
    paulis = [np.eye(2), _X, _Z, _X @ _Z] * 2
    best = 0.0
    for trial in range(trials + 1):
        if trial:
            raw = rng.normal(size=(8, 2, 2)) + 1j * rng.normal(size=(8, 2, 2))
            unitaries = np.linalg.qr(raw)[0]
        else:
            unitaries = np.array(paulis)
        states = np.stack([np.kron(u, np.eye(2)) @ _BELL[0] for u in unitaries])
        values, vectors = np.linalg.eigh(states.T @ states.conj() / 8)
        roots = np.where(values > 1e-12, 1 / np.sqrt(np.maximum(values, 1e-12)), 0)
        inverse = vectors @ np.diag(roots) @ vectors.conj().T
        amplitudes = np.einsum("ki,ij,kj->k", states.conj(), inverse, states)
        best = max(best, float(np.mean(np.abs(amplitudes) ** 2) / 8))
    return best


def heralded_attempts(photon: float, pairs: int, seed: int) -> tuple[float, float]:
    """Mean attempts for a pair and its standard error, photon by photon.

    Both ends send a photon to the middle, each arriving with probability `photon`; two that arrive
    are joined half of the time.
    """
    rng = np.random.default_rng(seed)
    attempts = int(pairs / (photon**2 / 2) * 1.1) + 1000
    made = 0
    tried = 0
    while made < pairs:
        block = min(attempts, 4_000_000)
        joined = rng.random((3, block))
        success = (joined[0] < photon) & (joined[1] < photon) & (joined[2] < 0.5)
        made += int(success.sum())
        tried += block
    chance = made / tried
    return 1 / chance, math.sqrt(chance * (1 - chance) / tried) / chance**2


def repeated_net_rate(fidelity: float, n: int, k: int, checksum: int) -> float:
    """Bits per qubit of a Reed-Solomon code over bytes, repeated until a codeword is right.

    The last of eight attempts may fail as well: what it delivers does not count.
    """
    fails = codeword_fails(fidelity, n, k)
    attempts = sum(fails**attempt for attempt in range(8))
    delivered = 1 - fails**8
    return (8 * k - checksum) * delivered / (4 * n * attempts)


def repeated_qubits(bits: int, fidelity: float, n: int, k: int, checksum: int) -> float:
    """Mean number of qubits for `bits` bits in such codewords, of which the last is shortened."""
    whole, rest = divmod(bits, 8 * k - checksum)
    short = math.ceil((rest + checksum) / 8) if rest else 0
    qubits = 0.0
    for count, data in ((whole, k), (min(short, 1), short)):
        fails = codeword_fails(fidelity, data + n - k, data)
        qubits += count * 4 * (data + n - k) * sum(fails**attempt for attempt in range(8))
    return qubits


def codeword_fails(fidelity: float, n: int, k: int) -> float:
    """The chance that a Reed-Solomon codeword over bytes has more wrong ones than it corrects.

    A byte is four symbols of a Werner pair, each wrong with probability 1 - F.
    """
    return float(scipy.stats.binom.sf((n - k) // 2, n, 1 - fidelity**4))
