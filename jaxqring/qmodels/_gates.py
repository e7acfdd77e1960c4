"""Circuits as lists of gates: what a plan is made for, and a plan's own language.

The gates are those of one qubit, and of two qubits only the controlled phase
diag(1, 1, 1, exp(i angle)), of which CZ is the one with angle pi. Every circuit of one-qubit gates,
CNOTs and diagonal two-qubit gates can be written so, up to a global phase.
"""

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxqring import _checks as checks

#: Fixed one-qubit gates.
FIXED = {
    "h": np.array([[1, 1], [1, -1]]) / np.sqrt(2) + 0j,
    "x": np.array([[0, 1], [1, 0]]) + 0j,
    "y": np.array([[0, -1j], [1j, 0]]),
    "z": np.diag([1, -1 + 0j]),
    "s": np.diag([1, 1j]),
    "t": np.diag([1, np.exp(0.25j * np.pi)]),
}
#: One-qubit gates with an angle.
TURNS = ("rx", "ry", "rz", "phase")
#: Two-qubit gates, both diagonal and symmetric.
TWO = ("cz", "cp")
_DIAGONAL = ("z", "s", "t", "rz", "phase", *TWO)
_WITH_ANGLE = (*TURNS, "cp")


class Gate(NamedTuple):
    """A gate of a `GateList`.

    Attributes:
      name: "h", "x", "y", "z", "s", "t", "rx", "ry", "rz", "phase", "cz" or "cp".
      qubits: one or two different ones.
      angle: in radians, of the last four of one qubit and of "cp"; 0 for the others.
    """

    name: str
    qubits: tuple[int, ...]
    angle: float = 0.0

    @property
    def diagonal(self) -> bool:
        """True if the gate commutes with Z on its qubits."""
        return self.name in _DIAGONAL

    @property
    def phase(self) -> float:
        """The angle of a two-qubit gate, pi for CZ."""
        return math.pi if self.name == "cz" else self.angle

    def matrix(self) -> np.ndarray:
        """(2, 2) complex matrix of a one-qubit gate."""
        if self.name in FIXED:
            return FIXED[self.name]
        half = self.angle / 2
        cosine, sine = math.cos(half), math.sin(half)
        if self.name == "rx":
            return np.array([[cosine, -1j * sine], [-1j * sine, cosine]])
        if self.name == "ry":
            return np.array([[cosine, -sine], [sine, cosine]]) + 0j
        first = 0.0 if self.name == "phase" else -half
        return np.diag(np.exp(1j * np.array([first, first + self.angle])))


@dataclass(frozen=True)
class GateList:
    """A circuit as gates in the order in which they are applied.

    Attributes:
      qubits: number of qubits, at least 1.
      gates: the gates; also tuples (name, qubits) or (name, qubits, angle).

    Raises:
      ValueError: if a gate has an unknown name, a wrong number of qubits, one that is not there or
        stands twice, an angle that it does not take, or one that is not finite.

    >>> circuit = GateList(2, (("h", (0,)), ("cp", (0, 1), 0.5)))
    >>> circuit.gates[1]
    Gate(name='cp', qubits=(0, 1), angle=0.5)
    """

    qubits: int
    gates: tuple[Gate, ...]

    def __post_init__(self) -> None:
        checks.integer("qubits", self.qubits)
        gates = tuple(Gate(*gate) for gate in self.gates)
        gates = tuple(Gate(name, tuple(qubits), angle) for name, qubits, angle in gates)
        for gate in gates:
            _check_gate(gate, self.qubits)
        object.__setattr__(self, "gates", gates)

    @property
    def two_qubit_gates(self) -> tuple[int, ...]:
        """The places of the two-qubit gates in the list."""
        return tuple(at for at, gate in enumerate(self.gates) if len(gate.qubits) == 2)

    def moments(self) -> tuple[int, ...]:
        """The time step of each gate, from 0, each as early as the order of the list allows."""
        free = [0] * self.qubits
        found = []
        for gate in self.gates:
            now = max(free[q] for q in gate.qubits)
            found.append(now)
            for q in gate.qubits:
                free[q] = now + 1
        return tuple(found)


def _check_gate(gate: Gate, qubits: int) -> None:
    """Refuses a gate that a circuit of so many qubits cannot have."""
    names = (*FIXED, *TURNS, *TWO)
    checks.one_of("name of a gate", gate.name, names)
    wanted = 2 if gate.name in TWO else 1
    right = all(isinstance(q, int | np.integer) and 0 <= q < qubits for q in gate.qubits)
    if not right or len(gate.qubits) != wanted or len(set(gate.qubits)) != wanted:
        rule = f"be {wanted} different integers in [0, {qubits - 1}] for {gate.name!r}"
        checks.refuse("qubits of a gate", rule, gate.qubits)
    if not isinstance(gate.angle, numbers.Real) or not math.isfinite(gate.angle):
        checks.refuse("angle of a gate", "be one finite number", gate.angle)
    if gate.angle and gate.name not in _WITH_ANGLE:
        checks.refuse("angle of a gate", f"be 0 for {gate.name!r}", gate.angle)


def qft(qubits: int) -> GateList:
    """The quantum Fourier transform without the swaps at its end.

    Args:
      qubits: number of qubits, n.

    Returns:
      H on each qubit j, followed by controlled phases of pi / 2^(k-j) with all later ones k:
        n (n - 1) / 2 two-qubit gates.

    Raises:
      ValueError: if `qubits` is not an integer of at least 1.

    Reference: Coppersmith, arXiv:quant-ph/0201067.

    >>> len(qft(8).two_qubit_gates)
    28
    """
    checks.integer("qubits", qubits)
    gates: list[Gate] = []
    for j in range(qubits):
        gates.append(Gate("h", (j,)))
        gates += [Gate("cp", (j, k), math.pi / 2 ** (k - j)) for k in range(j + 1, qubits)]
    return GateList(qubits, tuple(gates))


def ry_cz_ring(qubits: int, layers: int, *, seed: int = 0) -> GateList:
    """A hardware-efficient circuit: layers of RY on every qubit and CZ around the ring.

    Args:
      qubits: number of qubits, n, at least 2; two have one CZ a layer.
      layers: L.
      seed: of the angles, which are uniform in [0, 2 pi).

    Returns:
      The circuit, with L n two-qubit gates for n > 2.

    Raises:
      ValueError: if an argument is not an integer, or too small.

    Reference: Kandala et al., Nature 549, 242 (2017).

    >>> len(ry_cz_ring(8, 4).two_qubit_gates)
    32
    """
    checks.integer("qubits", qubits, 2)
    checks.integer("layers", layers)
    angles = np.random.default_rng(checks.integer("seed", seed, 0)).uniform(
        0, 2 * np.pi, (layers, qubits)
    )
    ring = [(q, (q + 1) % qubits) for q in range(qubits if qubits > 2 else 1)]
    gates: list[Gate] = []
    for layer in angles:
        gates += [Gate("ry", (q,), float(angle)) for q, angle in enumerate(layer)]
        gates += [Gate("cz", pair) for pair in ring]
    return GateList(qubits, tuple(gates))


def random_gates(qubits: int, gates: int, *, turn: float = 0.4, seed: int = 0) -> GateList:
    """A circuit of CZ gates on random pairs of qubits, and RY between them.

    Args:
      qubits: number of qubits, at least 2.
      gates: number of CZ gates.
      turn: probability of an RY on either qubit after each CZ, in [0, 1]: the smaller, the longer
        the runs.
      seed: of the pairs, the places and the angles.

    Returns:
      The circuit.

    Raises:
      TypeError: if `turn` is not real.
      ValueError: if an argument is out of range.

    >>> random_gates(4, 2, turn=0.0).gates
    (Gate(name='cz', qubits=(2, 3), angle=0.0), Gate(name='cz', qubits=(0, 3), angle=0.0))
    """
    checks.integer("qubits", qubits, 2)
    checks.integer("gates", gates)
    checks.within("turn", turn)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    found: list[Gate] = []
    for _ in range(gates):
        pair = tuple(int(q) for q in rng.choice(qubits, 2, replace=False))
        found.append(Gate("cz", pair))
        for q in pair:
            if rng.random() < turn:
                found.append(Gate("ry", (q,), float(rng.uniform(0, 2 * np.pi))))
    return GateList(qubits, tuple(found))


def one_qubit_gates(matrix: np.ndarray, qubit: int) -> Iterable[Gate]:
    """Gates that make up a unitary (2, 2), up to a global phase: a named one, or RZ RY RZ."""
    for name, fixed in FIXED.items():
        if np.allclose(matrix, fixed, atol=1e-6):
            return [Gate(name, (qubit,))]
    root = matrix / np.sqrt(complex(np.linalg.det(matrix)))
    # RZ(b) RY(c) RZ(d) has cos(c/2) exp(-i (b+d)/2) above and sin(c/2) exp(i (b-d)/2) below.
    both, between = -2 * np.angle(root[0, 0]), 2 * np.angle(root[1, 0])
    if abs(root[1, 0]) < 1e-6:
        return [Gate("rz", (qubit,), float(both))] if abs(both) > 1e-7 else []
    if abs(root[0, 0]) < 1e-6:
        both = 0.0
    middle = 2 * math.atan2(abs(root[1, 0]), abs(root[0, 0]))
    return [
        Gate("rz", (qubit,), float((both - between) / 2)),
        Gate("ry", (qubit,), middle),
        Gate("rz", (qubit,), float((both + between) / 2)),
    ]
