"""Gates of several qubits as matrices of the whole space, qubit 0 leftmost."""

import functools

import numpy as np

PAULIS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


def kron(*matrices):
    return functools.reduce(np.kron, matrices)


def of_string(string):
    return kron(*(PAULIS[letter] for letter in string))


def controlled(gate, control, target, qubits):
    """The gate on the target where the control is one."""
    zero, one = [PAULIS["I"]] * qubits, [PAULIS["I"]] * qubits
    zero[control], one[control], one[target] = np.diag([1, 0]), np.diag([0, 1]), gate
    return kron(*zero) + kron(*one)
