"""Second witnesses of pairs that were used: what is left between the nodes, by dense matrices."""

import math

import numpy as np


def spent_pairs() -> dict[str, list[np.ndarray]]:
    """A perfect pair after its three uses: (4, 4) states of sender and receiver, by outcome.

    "ring": both halves are read at the receiver, and the sender takes a new qubit |0>. "hop": the
    sender reads its half with a qubit that is one half of another pair. "steered": the sender reads
    its half along X, of either sign.
    """
    bell = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / math.sqrt(2)
    pair = bell[0].reshape(2, 2)
    spent: dict[str, list[np.ndarray]] = {"ring": [], "hop": [], "steered": []}

    def keep(use: str, state: np.ndarray) -> None:
        rho = state @ state.T
        spent[use].append(rho / np.trace(rho))

    for outcome in bell.reshape(4, 2, 2):
        # The sender made it one of the four Bell states, and that one is read.
        read = np.einsum("ab,cd,cd,s->sab", outcome, outcome, outcome, [1.0, 0.0])
        keep("ring", read.transpose(0, 2, 1).reshape(4, 2))
        # Reference r and input q are a pair, and so are a and b; q and a are read.
        read = np.einsum("qa,cd,rc,db->abrq", outcome, outcome, pair, pair)
        keep("hop", read.reshape(4, 4))
    for sign in (1, -1):
        plus = np.array([1, sign]) / math.sqrt(2)
        for turn in (np.eye(2), np.diag([1, -1])):
            keep("steered", np.einsum("a,c,cb->ab", plus, plus, turn @ pair).reshape(4, 1))
    return spent


def negativity(rho: np.ndarray) -> float:
    """The sum of the negative eigenvalues of the partial transpose; 1/2 for a perfect pair."""
    crossed = rho.reshape(2, 2, 2, 2).transpose(0, 3, 2, 1).reshape(4, 4)
    return float(np.abs(np.minimum(np.linalg.eigvalsh(crossed), 0)).sum())


def coding_capacity(rho: np.ndarray) -> float:
    """1 + S(B) - S(AB) bits, of eigenvalues."""

    def entropy(matrix: np.ndarray) -> float:
        values = np.linalg.eigvalsh(matrix)
        values = values[values > 1e-15]
        return float(-np.sum(values * np.log2(values)))

    return 1 + entropy(np.einsum("abac->bc", rho.reshape(2, 2, 2, 2))) - entropy(rho)
