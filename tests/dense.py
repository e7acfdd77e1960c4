"""The reference of the physics tests: dense matrices, Kraus operators, Bell projectors.

NumPy in complex128 and nothing of the package, so that the two calculations share no line.
Qubit A (sent) is the left factor, symbol m = 2a + b is sent as X^a Z^b, and T[r, m] is the
probability of the Bell outcome r.
"""

import functools

import numpy as np

I2 = np.eye(2, dtype=complex)
X = np.array([[0, 1], [1, 0]], dtype=complex)
Y = np.array([[0, -1j], [1j, 0]], dtype=complex)
Z = np.array([[1, 0], [0, -1]], dtype=complex)
PAULIS = [I2, X, Y, Z]

#: U_m = X^a Z^b, spelt out for (a, b) = (0, 0), (0, 1), (1, 0), (1, 1).
ENCODINGS = [I2, Z, X, X @ Z]

#: Phi+, Phi-, Psi+, Psi- on |00>, |01>, |10>, |11>.
BELL = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / np.sqrt(2)


def projector(vector):
    return np.outer(vector, np.conj(vector))


BELL_PROJECTORS = [projector(vector) for vector in BELL]


# --- Pairs ----------------------------------------------------------------------------------------


def werner_state(fidelity):
    rest = (1 - fidelity) / 3
    return sum(
        weight * bell
        for weight, bell in zip([fidelity, rest, rest, rest], BELL_PROJECTORS, strict=True)
    )


def bell_diagonal_state(probs):
    return sum(weight * bell for weight, bell in zip(probs, BELL_PROJECTORS, strict=True))


def random_state(rng, size=4):
    factor = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
    rho = factor @ factor.conj().T
    return rho / np.trace(rho).real


# --- Channels as lists of Kraus operators ---------------------------------------------------------


def pauli_kraus(x, y, z):
    weights = [1 - x - y - z, x, y, z]
    return [np.sqrt(max(w, 0.0)) * s for w, s in zip(weights, PAULIS, strict=True)]


def damping_kraus(gamma, excited=0.0):
    """(Generalised) amplitude damping: with probability 1 - excited towards |0>, else |1>."""
    stay = np.sqrt(1 - gamma)
    down = [np.diag([1, stay]), np.array([[0, np.sqrt(gamma)], [0, 0]])]
    up = [np.diag([stay, 1]), np.array([[0, 0], [np.sqrt(gamma), 0]])]
    return [np.sqrt(1 - excited) * k for k in down] + [np.sqrt(excited) * k for k in up]


def thermal_kraus(t1, t2, time, excited=0.0):
    """Damping to e^(-t/T1), then the dephasing that brings the coherence to e^(-t/T2)."""
    flip = (1 - np.exp(-time / t2 + time / (2 * t1))) / 2
    return compose(damping_kraus(1 - np.exp(-time / t1), excited), pauli_kraus(0, 0, flip))


def random_kraus(rng, count):
    """`count` operators cut out of a random isometry."""
    factor = rng.normal(size=(2 * count, 2)) + 1j * rng.normal(size=(2 * count, 2))
    isometry, _ = np.linalg.qr(factor)
    return list(isometry.reshape(count, 2, 2))


def compose(first, second):
    return [b @ a for a in first for b in second]


def act(kraus, rho):
    kraus = np.asarray(kraus)
    return np.sum(kraus @ rho @ kraus.conj().swapaxes(-1, -2), axis=0)


def on_sent(kraus):
    return [np.kron(k, I2) for k in kraus]


def on_kept(kraus):
    return [np.kron(I2, k) for k in kraus]


def transfer_matrix(kraus):
    """Pauli transfer matrix Tr[s_i N(s_j)] / 2, one entry at a time."""
    return np.array([[np.trace(s @ act(kraus, t)).real / 2 for t in PAULIS] for s in PAULIS])


def two_qubit_depolarizing_kraus(weight):
    pairs = [np.kron(s, t) for s in PAULIS for t in PAULIS]
    weights = [1 - 15 * weight / 16] + [weight / 16] * 15
    return [np.sqrt(w) * k for w, k in zip(weights, pairs, strict=True)]


def flip_matrices(error):
    flip = np.array([[1 - error, error], [error, 1 - error]])
    return flip, flip


# --- Superdense coding ----------------------------------------------------------------------------


def transition(
    rho, *, before=(I2,), sent=(I2,), kept=(I2,), gate=0.0, readout=None, survival=1.0, heralded
):
    """T[r, m] by brute force: encode, send, lose, measure, misread, for each symbol."""
    readout_a, readout_b = flip_matrices(0.0) if readout is None else readout
    shared = act(on_kept(kept), act(on_sent(before), rho))
    columns = []
    for encoding in ENCODINGS:
        state = act(on_sent(sent), act(on_sent([encoding]), shared))
        state = act(two_qubit_depolarizing_kraus(gate), state)
        outcomes = np.array([np.trace(bell @ state).real for bell in BELL_PROJECTORS])
        # What a receiver measures who has lost the state.
        blind = np.array([np.trace(bell @ np.eye(4) / 4).real for bell in BELL_PROJECTORS])
        if not heralded:
            outcomes = survival * outcomes + (1 - survival) * blind
        read = np.zeros(4)
        for true in range(4):
            for seen in range(4):
                a = readout_a[seen >> 1, true >> 1]
                b = readout_b[seen & 1, true & 1]
                read[seen] += a * b * outcomes[true]
        if heralded:
            read = np.append(survival * read, 1 - survival)
        columns.append(read)
    return np.array(columns).T


def xor_probs(matrix):
    """q(e) = mean over m of T[m XOR e, m]."""
    return np.array([np.mean([matrix[m ^ e, m] for m in range(4)]) for e in range(4)])


# --- GHZ states -----------------------------------------------------------------------------------


def tensor(factors):
    return functools.reduce(np.kron, factors)


def ghz(parties, sign=1):
    """(|0...0> + sign |1...1>) / sqrt(2)."""
    vector = np.zeros(2**parties, dtype=complex)
    vector[0], vector[-1] = np.sqrt(0.5), sign * np.sqrt(0.5)
    return vector


def on_qubit(kraus, rho, qubit):
    """The channel on one of the qubits of rho."""
    before, after = 2**qubit, len(rho) // 2 ** (qubit + 1)
    return act([tensor([np.eye(before), k, np.eye(after)]) for k in kraus], rho)


def noisy_ghz(kraus_of_each, white=0.0):
    """The GHZ state after a channel on each party's qubit, mixed with white noise."""
    rho = projector(ghz(len(kraus_of_each)))
    for qubit, kraus in enumerate(kraus_of_each):
        rho = on_qubit(kraus, rho, qubit)
    return (1 - white) * rho + white * np.eye(len(rho)) / len(rho)


def product_of_paulis(coefficients):
    """The product of one operator for each qubit, given by (N, 4) coefficients of I, X, Y, Z."""
    return tensor([np.einsum("i,iab->ab", row, PAULIS) for row in np.asarray(coefficients)])


def born(rho, axes):
    """(2^N,) probabilities of the outcomes along (N, 3) axes, the first party's bit the highest."""
    effects = []
    for axis in np.asarray(axes):
        spin = np.einsum("i,iab->ab", axis, PAULIS[1:])
        effects.append([(I2 + spin) / 2, (I2 - spin) / 2])
    size = len(effects)
    return np.array(
        [
            np.trace(
                rho @ tensor([pair[(o >> (size - 1 - i)) & 1] for i, pair in enumerate(effects)])
            ).real
            for o in range(2**size)
        ]
    )
