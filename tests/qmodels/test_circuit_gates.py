"""A circuit of layers as a list of gates, against its own state and matrices in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuit_matrices import controlled, kron

from jaxqring.qmodels import (
    Circuit,
    from_tensorcircuit,
    gates_from_circuit,
    hardware_efficient,
    plan_circuit,
)

LAYER = ("rx", "rzz-ring", "ry", "rz", "cz-line", "crz-ring", "cnot-ring")


def state_of(gates):
    """The state of a list of gates, by matrices of the whole space."""
    state = np.eye(2**gates.qubits)[0].astype(complex)
    for gate in gates.gates:
        if len(gate.qubits) == 2:
            matrix = controlled(np.diag([1, np.exp(1j * gate.phase)]), *gate.qubits, gates.qubits)
        else:
            factors = [np.eye(2)] * gates.qubits
            factors[gate.qubits[0]] = gate.matrix()
            matrix = kron(*factors)
        state = matrix @ state
    return state


def test_the_gates_make_the_state_of_the_circuit_up_to_a_phase():
    circuit = Circuit(4, 2, LAYER, ("ry", "rx"))
    keys = jax.random.split(jax.random.key(0))
    angles = {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, circuit.shapes.items(), strict=True)
    }
    gates = gates_from_circuit(circuit, angles)
    overlap = np.vdot(state_of(gates), np.asarray(circuit.state(angles)))
    np.testing.assert_allclose(abs(overlap), 1, atol=2e-6)


def test_a_hardware_efficient_circuit_is_planned_with_two_pairs_a_layer_for_two_nodes():
    # A ring of CZ in each layer crosses a cut of neighbours twice, and RY ends every run.
    circuit = hardware_efficient(6, 3)
    angles = {name: jnp.full(shape, 0.3) for name, shape in circuit.shapes.items()}
    gates = gates_from_circuit(circuit, angles)
    assert len(gates.two_qubit_gates) == 18
    plan = plan_circuit(gates, 2)
    assert (plan.ebits, plan.proven) == (6, True)


def test_traced_angles_and_layers_of_tensorcircuit_are_refused():
    circuit = hardware_efficient(2, 1)
    angles = {name: jnp.zeros(shape) for name, shape in circuit.shapes.items()}
    with pytest.raises(ValueError, match=r"`angles` must be known"):
        jax.jit(lambda angles: gates_from_circuit(circuit, angles) and 0)(angles)
    custom = from_tensorcircuit(lambda circuit, angles: None, 2, 1, 1)
    with pytest.raises(ValueError, match=r"gates_from_tensorcircuit"):
        gates_from_circuit(custom, {"layers": jnp.zeros((1, 1, 2)), "last": jnp.zeros((0, 2))})
