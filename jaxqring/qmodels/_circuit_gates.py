"""Lists of gates from circuits of layers."""

import numpy as np

from jaxqring import _checks as checks
from jaxqring.qmodels._circuits import PAIR_ROTATIONS, ROTATIONS, Angles, Circuit
from jaxqring.qmodels._gates import Gate, GateList
from jaxqring.qmodels._states import neighbours


def gates_from_circuit(circuit: Circuit, angles: Angles) -> GateList:
    """Writes a circuit with known angles as a list of gates, to plan and to run over nodes.

    Args:
      circuit: of steps that are named; not of a layer written for TensorCircuit.
      angles: of the circuit, in radians, known.

    Returns:
      The circuit up to a global phase. A CNOT becomes CZ between two H on its target; rotations
      about Z Z and controlled ones about Z become a controlled phase and rotations or phases.

    Raises:
      ValueError: if the layer is one of TensorCircuit, for which there is
        `gates_from_tensorcircuit`, or the angles are traced or of another shape.

    >>> import jax
    >>> from jaxqring.qmodels import hardware_efficient, plan_circuit
    >>> circuit = hardware_efficient(4, 1)
    >>> angles = circuit.encode(circuit.init(jax.random.key(0)))
    >>> gates = gates_from_circuit(circuit, angles)
    >>> len(gates.two_qubit_gates), plan_circuit(gates, 2).ebits
    (4, 2)
    """
    if circuit.custom is not None:
        rule = "have named steps; a circuit of TensorCircuit goes to `gates_from_tensorcircuit`"
        checks.refuse("circuit", rule, circuit.custom)
    if any(checks.is_traced(value) for value in angles.values()):
        checks.refuse("angles", "be known", "traced ones")
    known = {name: np.asarray(value, float) for name, value in circuit.checked(angles).items()}
    gates: list[Gate] = []
    for of_layer in known["layers"]:
        gates += _steps(circuit.layer, of_layer, circuit.qubits)
    gates += _steps(circuit.last, known["last"], circuit.qubits)
    return GateList(circuit.qubits, tuple(gates))


def _steps(steps: tuple[str, ...], angles: np.ndarray, qubits: int) -> list[Gate]:
    """The gates of some steps, with angles (slots, n)."""
    gates: list[Gate] = []
    rows = iter(angles)
    for step in steps:
        kind, _, shape = step.partition("-")
        if step in ROTATIONS:
            gates += [Gate(step, (q,), float(angle)) for q, angle in enumerate(next(rows))]
            continue
        pairs = neighbours("ring" if shape == "ring" else "line", qubits)
        row = next(rows) if step in PAIR_ROTATIONS else np.zeros(len(pairs))
        for pair, angle in zip(pairs, row, strict=True):
            gates += _pair(kind, pair, float(angle))
    return gates


def _pair(kind: str, pair: tuple[int, int], angle: float) -> list[Gate]:
    """The gates of one step on one pair of qubits."""
    left, right = pair
    if kind == "cz":
        return [Gate("cz", pair)]
    if kind == "cnot":
        return [Gate("h", (right,)), Gate("cz", pair), Gate("h", (right,))]
    if kind == "crz":
        return [Gate("phase", (left,), -angle / 2), Gate("cp", pair, angle)]
    # exp(-i t ZZ / 2) = CP(-2 t) RZ(t) x RZ(t), up to a phase.
    turns = [Gate("rz", (q,), angle) for q in pair]
    return [Gate("cp", pair, -2 * angle), *turns]
