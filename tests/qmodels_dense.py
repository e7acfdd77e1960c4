"""The reference of the tests of two parties: matrices of all qubits, NumPy, nothing of the package.

Qubit 0 is the leftmost factor. Gates are in the order of time; segments are B_1, A_1, B_2, A_2, ...
A hop is a function of a density matrix whose last n qubits travel, and hop k leads to segment k.
"""

import functools
import itertools

import numpy as np
import scipy.linalg
from dense import BELL, PAULIS, X, Y, Z

LETTERS = dict(zip("IXYZ", PAULIS, strict=True))


def string(letters):
    return functools.reduce(np.kron, [LETTERS[letter] for letter in letters], np.eye(1))


def two_qubit(control, target, gate, qubits):
    """`gate` on the target where the control is 1."""
    off, on = np.diag([1, 0]), np.diag([0, 1])
    factors = [{control: off}, {control: on, target: gate}]
    return sum(
        functools.reduce(np.kron, [own.get(q, np.eye(2)) for q in range(qubits)]) for own in factors
    )


def entangler(name, qubits):
    kind, shape = name.split("-")
    pairs = [(q, q + 1) for q in range(qubits - 1)]
    if shape == "ring" and qubits > 2:
        pairs.append((qubits - 1, 0))
    gates = [two_qubit(a, b, Z if kind == "cz" else X, qubits) for a, b in pairs]
    return functools.reduce(lambda so_far, gate: gate @ so_far, gates, np.eye(2**qubits))


def gates_of(names, angles, qubits):
    """Matrices of the gates, and the string of each, or None."""
    angles = iter(angles)
    for name in names:
        if "-" in name:
            yield entangler(name, qubits), None
        else:
            yield scipy.linalg.expm(-0.5j * next(angles) * string(name)), string(name)


def segments(alice, bob, angles, qubits):
    """The gates of every segment."""
    for layer in range(len(angles["alice"])):
        yield list(gates_of(bob, angles["bob"][layer], qubits))
        yield list(gates_of(alice, angles["alice"][layer], qubits))


def on_qubit(operator, qubit, qubits):
    return functools.reduce(
        np.kron, [operator if q == qubit else np.eye(2) for q in range(qubits)], np.eye(1)
    )


def kraus_hop(operators, qubits):
    """Kraus operators on each of the last `qubits` qubits."""

    def hop(rho):
        total = int(np.log2(len(rho)))
        for qubit in range(total - qubits, total):
            own = [on_qubit(k, qubit, total) for k in operators]
            rho = sum(k @ rho @ k.conj().T for k in own)
        return rho

    return hop


def white_hop(survival, qubits):
    """White noise on the last `qubits` qubits at once."""

    def hop(rho):
        size = 2**qubits
        rest = rho.reshape(len(rho) // size, size, len(rho) // size, size)
        return survival * rho + (1 - survival) * np.kron(
            np.trace(rest, axis1=1, axis2=3), np.eye(size) / size
        )

    return hop


def teleport_kraus(pair):
    """Kraus operators of teleportation of one qubit through a two-qubit state, from the protocol.

    The Bell measurement takes the qubit and Alice's half; Bob corrects by X^a Z^b.
    """
    weights, vectors = np.linalg.eigh(pair)
    corrections = [np.eye(2), Z, X, Z @ X]
    found = []
    for weight, vector in zip(weights, vectors.T, strict=True):
        for bell, correction in zip(BELL, corrections, strict=True):
            # <bell| on qubit and half; the rest maps the qubit to Bob's half.
            onto = np.einsum("qa,ab->bq", bell.conj().reshape(2, 2), vector.reshape(2, 2))
            found.append(np.sqrt(max(weight, 0)) * correction @ onto)
    return found


def initial(x):
    state = np.asarray(x, complex) / np.linalg.norm(x)
    return np.outer(state, state.conj())


def run(parts, rho, hops):
    for gates, hop in zip(parts, hops, strict=True):
        rho = hop(rho)
        for gate, _ in gates:
            rho = gate @ rho @ gate.conj().T
    return rho


def same(rho):
    return rho


def loss(alice, bob, observable, angles, x, hops=None):
    qubits = len(observable)
    parts = list(segments(alice, bob, angles, qubits))
    rho = run(parts, initial(x), hops or [same] * len(parts))
    return np.trace(string(observable) @ rho).real


def psi_states(alice, bob, observable, angles, x, hops=None):
    """|Psi><Psi| of ancilla and register after the undoing of everything later than each gate.

    Yields segment, state and string of every rotation, from the last to the first.
    """
    qubits = len(observable)
    parts = list(segments(alice, bob, angles, qubits))
    hops = hops or [same] * len(parts)
    wide = [[(np.kron(np.eye(2), gate), p) for gate, p in gates] for gates in parts]
    rho = run(wide, np.kron(np.full((2, 2), 0.5), initial(x)), hops)
    on = np.kron(np.diag([1, 0]), np.eye(2**qubits)) + np.kron(np.diag([0, 1]), string(observable))
    rho = on @ rho @ on
    for segment in reversed(range(len(wide))):
        for gate, own in reversed(wide[segment]):
            if own is not None:
                yield segment, rho, own
            rho = gate.conj().T @ rho @ gate
        rho = hops[segment](rho)


def ancilla_gradient(*model, hops=None):
    """The means of -Y P, in the order of time."""
    found = [np.trace(np.kron(-Y, own) @ rho).real for _, rho, own in psi_states(*model, hops=hops)]
    return np.array(found[::-1])


def joint_law(rho, observables):
    """The probabilities of all outcomes of commuting observables, by their signs."""
    one = np.eye(len(rho))
    return {
        signs: np.trace(
            functools.reduce(
                np.matmul, [(one + s * o) / 2 for s, o in zip(signs, observables, strict=True)], one
            )
            @ rho
        ).real
        for signs in itertools.product([1, -1], repeat=len(observables))
    }


def in_time(gradient):
    """(..., 2 L P) of angles or gradients {"alice": (..., L, P), "bob": ...}, in order of time."""
    joined = np.concatenate([np.asarray(gradient["bob"]), np.asarray(gradient["alice"])], axis=-1)
    return joined.reshape(*joined.shape[:-2], -1)


def bell_law(rho):
    """(4, ..., 4) the law of Bell measurements of each qubit of a state and of its copy."""
    qubits = int(np.log2(len(rho)))
    order = [q for pair in zip(range(qubits), range(qubits, 2 * qubits), strict=True) for q in pair]
    two = np.kron(rho, rho).reshape([2] * 4 * qubits)
    two = two.transpose([*order, *(2 * qubits + q for q in order)]).reshape([4] * 2 * qubits)
    projectors = np.einsum("ma,mb->mab", BELL, BELL.conj())
    for left in range(qubits, 0, -1):  # rows of the qubits left, their columns, outcomes
        two = np.tensordot(two, projectors, axes=([0, left], [2, 1]))
    return two.real


def bell_signs(letters):
    """(4, ..., 4) the sign of P x P in each outcome of `bell_law`."""
    signs = [
        [
            round((vector @ np.kron(LETTERS[letter], LETTERS[letter]) @ vector).real)
            for vector in BELL
        ]
        for letter in letters
    ]
    return functools.reduce(np.multiply.outer, [np.array(own) for own in signs])
