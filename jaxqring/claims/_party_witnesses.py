"""Second witnesses of the two-party model: dense circuits, hops one by one, ensembles of states."""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import scipy  # whose subpackages load when they are first used

_PAULIS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


class DenseModel(NamedTuple):
    """A two-party model.

    Attributes:
      alice: her gates in each layer, Pauli strings of rotations and "cz-ring".
      bob: his, which come before hers.
      observable: a Pauli string.
    """

    alice: tuple[str, ...]
    bob: tuple[str, ...]
    observable: str


def pauli_matrix(string: str) -> np.ndarray:
    """(2^n, 2^n) a Pauli string, its first letter on the first qubit."""
    return functools.reduce(np.kron, [_PAULIS[letter] for letter in string])


def cz_ring(qubits: int) -> np.ndarray:
    """(2^n,) signs of controlled Zs around a ring of three or more qubits."""
    bits = np.array(list(np.ndindex(*(2,) * qubits)))
    return (-1.0) ** np.sum(bits * np.roll(bits, -1, axis=1), axis=1)


def party_losses(
    model: DenseModel, angles: dict[str, np.ndarray], states: np.ndarray
) -> np.ndarray:
    """The losses of a two-party model, gate by gate.

    Args:
      model: gates and observable.
      angles: of both, (L, P) or (batch, L, P).
      states: (batch, 2^n) amplitudes.

    Returns:
      (batch,) expectations.
    """
    now = np.asarray(states, complex)
    for layer in range(angles["bob"].shape[-2]):
        for party, gates in (("bob", model.bob), ("alice", model.alice)):
            left = list(np.moveaxis(angles[party][..., layer, :], -1, 0))
            for gate in gates:
                if gate == "cz-ring":
                    now = now * cz_ring(len(model.observable))
                    continue
                half = np.asarray(left.pop(0))[..., None] / 2
                now = np.cos(half) * now - 1j * np.sin(half) * (now @ pauli_matrix(gate).T)
    return np.einsum("bi,ij,bj->b", now.conj(), pauli_matrix(model.observable), now).real


def slope_by_shifts(
    model: DenseModel, angles: dict[str, np.ndarray], states: np.ndarray
) -> np.ndarray:
    """All derivatives of the loss of one state, from angles turned by +-pi / 2."""
    found = []
    for party in ("alice", "bob"):
        for place in np.ndindex(angles[party].shape):
            sides = []
            for turn in (math.pi / 2, -math.pi / 2):
                moved = {name: own.copy() for name, own in angles.items()}
                moved[party][place] += turn
                sides.append(float(party_losses(model, moved, states)[0]))
            found.append((sides[0] - sides[1]) / 2)
    return np.array(found)


def fewest_shots(error: float, delta: float, estimates: int = 1, outcomes: int = 1) -> int:
    """The fewest shots m with 2 exp(-outcomes m error^2 / 2) <= delta / estimates, by a scan.

    A difference of two sides has two outcomes a shot.
    """
    shots = np.arange(1, math.ceil(60 / error**2))
    return int(shots[np.argmax(2 * np.exp(-outcomes * shots * error**2 / 2) <= delta / estimates)])


def hops_of_loss(layers: int) -> int:
    """Hops of a run, one by one: to Bob and back in every layer."""
    hops = 0
    for _ in range(layers):
        for _ in ("to Bob", "to Alice"):
            hops += 1
    return hops


def hops_of_slopes(layers: int) -> list[int]:
    """Hops of a copy for each of the 2 L unitaries: to the end, and back to where that acted."""
    owners = ["Bob", "Alice"] * layers
    found = []
    for segment in range(len(owners)):
        forward = ["Alice", *owners]
        backward = owners[segment:][::-1]
        found.append(sum(a != b for way in (forward, backward) for a, b in itertools.pairwise(way)))
    return found


def miss_of_mean(shots: int, mean: float, error: float) -> float:
    """Probability that a mean of outcomes +-1 is off by more than `error`."""
    plus = np.arange(shots + 1)
    off = np.abs(2 * plus / shots - 1 - mean) > error
    return float(scipy.stats.binom.pmf(plus[off], shots, (1 + mean) / 2).sum())


def planes_wrong(inner: float, size: int, bits: int, draws: int, seed: int) -> float:
    """Share of draws in which most of `bits` drawn planes put two vectors on the wrong sides."""
    rng = np.random.default_rng(seed)
    first, other = np.linalg.qr(rng.normal(size=(size, 2)))[0].T
    second = inner * first + math.sqrt(1 - inner**2) * other
    wrong = 0
    for _ in range(draws):
        planes = rng.standard_normal((bits, size), dtype=np.float32)
        agree = np.sum((planes @ first > 0) == (planes @ second > 0))
        wrong += int((agree > bits / 2) != (inner > 0))
    return wrong / draws


def bits_of(weights: np.ndarray) -> float:
    """Entropy of eigenvalues in bits."""
    seen = weights[weights > 1e-15]
    return float(-np.sum(seen * np.log2(seen)))


def holevo_of_matrix(states: np.ndarray) -> float:
    """Entropy of the mean density matrix (N, N) of pure states (count, N)."""
    mean = sum(np.outer(state, state) for state in states) / len(states)
    return bits_of(np.linalg.eigvalsh(mean))


def holevo_of_two(states: np.ndarray) -> float:
    """The same of two copies: singular values of the products (count, N^2)."""
    products = np.einsum("ki,kj->kij", states, states).reshape(len(states), -1)
    return bits_of(np.linalg.svd(products / math.sqrt(len(states)), compute_uv=False) ** 2)


def holevo_of_many(states: np.ndarray, copies: int) -> tuple[float, float]:
    """The same of many copies, and the success of the pretty good measurement at naming the state.

    Both from the eigenvalues of the overlaps to the power of the copies.
    """
    values, vectors = np.linalg.eigh((states @ states.T) ** copies)
    values = np.maximum(values, 0)
    root = (vectors * np.sqrt(values)) @ vectors.T
    return bits_of(values / len(states)), float(np.mean(np.diag(root) ** 2))


def signed_sums(base: int, layers: int) -> int:
    """The number of sums of base^l over the layers, each taken once, left out or subtracted."""
    found = {0}
    for layer in range(layers):
        found = {each + sign * base**layer for each in found for sign in (-1, 0, 1)}
    return len(found)
