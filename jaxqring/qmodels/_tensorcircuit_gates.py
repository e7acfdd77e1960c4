"""Lists of gates from circuits of TensorCircuit-NG."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring.qmodels._gates import Gate, GateList, one_qubit_gates

if TYPE_CHECKING:
    import tensorcircuit

_CNOT = np.eye(4)[[0, 1, 3, 2]]


def gates_from_tensorcircuit(circuit: "tensorcircuit.Circuit") -> GateList:
    """Converts the gates of a circuit of TensorCircuit; its initial state is not looked at.

    Args:
      circuit: of one-qubit gates, CNOTs and diagonal two-qubit gates, all with known angles.

    Returns:
      The circuit up to a global phase, as accurate as TensorCircuit's precision (single, unless
      set). A CNOT becomes CZ between two H on its target, a diagonal gate a controlled phase and
      phases, a one-qubit gate one that is named or RZ RY RZ.

    Raises:
      TypeError: if `circuit` has no list of gates, as circuits of TensorCircuit have.
      ValueError: if it has another gate, noise, a measurement or a reset, or a traced angle.

    >>> import tensorcircuit as tc
    >>> circuit = tc.Circuit(2)
    >>> circuit.cnot(0, 1)
    >>> [gate.name for gate in gates_from_tensorcircuit(circuit).gates]
    ['h', 'cz', 'h']
    """
    if not hasattr(circuit, "to_qir"):
        checks.refuse("circuit", "be a circuit of TensorCircuit", circuit, TypeError)
    others = [each["name"] for each in getattr(circuit, "_extra_qir", [])]
    others = [name for name in others if name != "barrier"]
    if others:
        checks.refuse("circuit", "have no measurements or resets", others[0])
    gates: list[Gate] = []
    for record in circuit.to_qir():
        gates += _converted(record)
    return GateList(circuit.circuit_param["nqubits"], tuple(gates))


def _converted(record: dict[str, Any]) -> list[Gate]:
    """The gates that one record of the intermediate representation stands for."""
    qubits = tuple(int(q) for q in record["index"])
    if record.get("is_channel"):
        checks.refuse("circuit", "have no noise", record["name"])
    if record.get("mpo") or len(qubits) > 2:
        checks.refuse("circuit", "have gates of one or two qubits", record["name"])
    tensor = record["gate"].tensor
    if checks.is_traced(tensor):
        checks.refuse("circuit", "have known angles", record["name"])
    matrix = np.asarray(tensor, complex).reshape(2 ** len(qubits), -1)
    if len(qubits) == 1:
        return list(one_qubit_gates(matrix, qubits[0]))
    if np.allclose(matrix, _CNOT, atol=1e-6):
        turn = Gate("h", (qubits[1],))
        return [turn, Gate("cz", qubits), turn]
    if not np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-6):
        rule = "have only diagonal gates and CNOT on two qubits"
        checks.refuse("circuit", rule, record["name"])
    return _diagonal(np.angle(np.diag(matrix)), qubits)


def _diagonal(angles: np.ndarray, qubits: tuple[int, ...]) -> list[Gate]:
    """The gates of a diagonal two-qubit gate with the phases (4,): a phase on each, and on both."""
    own = [Gate("phase", (qubits[0],), float(angles[2] - angles[0]))]
    own.append(Gate("phase", (qubits[1],), float(angles[1] - angles[0])))
    both = math.remainder(angles[3] - angles[2] - angles[1] + angles[0], 2 * math.pi)
    gates = [gate for gate in own if abs(math.remainder(gate.angle, 2 * math.pi)) > 1e-7]
    if abs(abs(both) - math.pi) < 1e-6:
        return [*gates, Gate("cz", (qubits[0], qubits[1]))]
    return [*gates, Gate("cp", (qubits[0], qubits[1]), both)] if abs(both) > 1e-7 else gates
