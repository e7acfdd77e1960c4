"""Circuits over nodes as they would happen: resource states, measurements and corrections.

NumPy in complex128 and nothing of the package. A gate is a tuple (name, qubits, angle), a copy a
tuple (wire, places of its gates, resource). The resource is a density matrix (4, 4) of the half at
the wire's home (left factor) and the half at the other node, where it becomes the copy.
"""

import numpy as np

I2 = np.eye(2, dtype=complex)
X = np.array([[0, 1], [1, 0]], dtype=complex)
Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1, -1 + 0j])
H = np.array([[1, 1], [1, -1]]) / np.sqrt(2) + 0j
CNOT = np.eye(4, dtype=complex)[[0, 1, 3, 2]]
BELL = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / np.sqrt(2)
#: What Phi+, Phi-, Psi+ and Psi- do to a teleported qubit.
ERRORS = (I2, Z, X, Y)


def phase(angle):
    return np.diag([1, 1, 1, np.exp(1j * angle)])


def turn(axis, angle):
    return np.cos(angle / 2) * I2 - 1j * np.sin(angle / 2) * axis


def gate_matrix(name, angle):
    return {
        "h": H,
        "x": X,
        "y": Y,
        "z": Z,
        "s": np.diag([1, 1j]),
        "t": np.diag([1, np.exp(0.25j * np.pi)]),
        "rx": turn(X, angle),
        "ry": turn(Y, angle),
        "rz": turn(Z, angle),
        "phase": np.diag([1, np.exp(1j * angle)]),
        "cz": phase(np.pi),
        "cp": phase(angle),
    }[name]


def on(matrix, qubits, total):
    """A matrix on some of `total` qubits."""
    rest = [q for q in range(total) if q not in qubits]
    whole = np.kron(matrix, np.eye(2 ** len(rest))).reshape((2,) * 2 * total)
    order = np.argsort([*qubits, *rest])
    return whole.transpose([*order, *(order + total)]).reshape(2**total, 2**total)


def without(rho, qubit):
    """The partial trace over a qubit."""
    total = int(np.log2(len(rho)))
    halves = rho.reshape(2**qubit, 2, 2 ** (total - qubit - 1), 2**qubit, 2, -1)
    return np.einsum("aibcid->abcd", halves).reshape(len(rho) // 2, -1)


def act(rho, matrix, qubits):
    whole = on(matrix, qubits, int(np.log2(len(rho))))
    return whole @ rho @ whole.conj().T


def measured(rho, qubit, correction, target):
    """Measures a qubit away; on outcome 1 a correction acts on another one."""
    branches = [act(rho, np.diag([1 - m, m]), [qubit]) for m in (0, 1)]
    return without(branches[0] + act(branches[1], correction, [target]), qubit)


def random_resource(rng):
    factor = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
    rho = factor @ factor.conj().T
    # Mostly Phi+, so that the four overlaps differ and the coherences are as large as they can be.
    return 0.5 * rho / np.trace(rho) + 0.5 * np.outer(BELL[0], BELL[0])


def overlaps(resource):
    return np.array([(bell @ resource @ bell).real for bell in BELL])


def random_rho(rng, qubits):
    factor = rng.normal(size=(2**qubits, 2)) + 1j * rng.normal(size=(2**qubits, 2))
    rho = factor @ factor.conj().T
    return rho / np.trace(rho)


def teleported(rho, resource, qubit):
    """Bell measurement of a qubit and the left half; the right half takes the qubit's place."""
    total = int(np.log2(len(rho)))
    state = act(np.kron(rho, resource), CNOT, [qubit, total])
    state = act(state, H, [qubit])
    state = measured(state, total, X, total + 1)  # which becomes qubit number `total`
    state = measured(state, qubit, Z, total)
    # Now the right half is the last one.
    order = np.insert(np.arange(total - 1), qubit, total - 1)
    shaped = state.reshape((2,) * 2 * total).transpose([*order, *(order + total)])
    return shaped.reshape(rho.shape)


def born(rho, wire, resource):
    """A copy of a wire, as the last qubit."""
    total = int(np.log2(len(rho)))
    state = act(np.kron(rho, resource), CNOT, [wire, total])
    return measured(state, total, X, total + 1)


def buried(rho, wire, copy):
    """The same without a copy, which is measured away."""
    return measured(act(rho, H, [copy]), copy, Z, wire)


def run(qubits, gates, copies, rho):
    """The state after gates, each on the copies that serve it."""
    alive = []  # numbers of copies, in the order of their qubits after those of the circuit
    for place, (name, on_qubits, angle) in enumerate(gates):
        for at, (wire, served, resource) in enumerate(copies):
            if served[0] == place:
                rho = born(rho, wire, resource)
                alive.append(at)
        where = []
        for wire in on_qubits:
            mine = [at for at in alive if copies[at][0] == wire and place in copies[at][1]]
            where.append(qubits + alive.index(mine[0]) if mine else wire)
        rho = act(rho, gate_matrix(name, angle), where)
        for at, (wire, served, _) in enumerate(copies):
            if served[-1] == place:
                rho = buried(rho, wire, qubits + alive.index(at))
                alive.remove(at)
    return rho
