"""Circuits run by their plans against every measurement in NumPy, and against TensorCircuit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import physical_nodes as nodes
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxqring as jq
from jaxqring._tensorcircuit import tensorcircuit_module
from jaxqring.qmodels import GateList, plan_circuit, qft, random_gates, run_distributed, ry_cz_ring

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=3e-6)
TRIANGLE = [("cz", (0, 1)), ("h", (0,)), ("cp", (0, 2), 0.9), ("h", (2,)), ("cp", (1, 2), 2.0)]
CIRCUITS = {
    "QFT": (qft(4), 2),
    "ring": (ry_cz_ring(4, 2, seed=1), 2),
    "third node": (GateList(3, [("rx", (q,), 0.5 + q) for q in range(3)] + TRIANGLE[:1]
                            + [("cp", (0, 2), 0.9), ("t", (1,)), ("cp", (1, 2), 2.0)]), 3),
    "random": (random_gates(4, 8, turn=0.3, seed=2), 3),
}  # fmt: skip


def physical(plan, resources, psi):
    circuit = plan.circuit
    copies = [(c.wire, c.gates, r) for c, r in zip(plan.copies, resources, strict=True)]
    return nodes.run(circuit.qubits, circuit.gates, copies, np.outer(psi, psi.conj()))


def ideal(circuit, psi):
    for name, qubits, angle in circuit.gates:
        psi = nodes.on(nodes.gate_matrix(name, angle), qubits, circuit.qubits) @ psi
    return psi


def random_state(qubits, seed):
    rng = np.random.default_rng(seed)
    psi = rng.normal(size=2**qubits) + 1j * rng.normal(size=2**qubits)
    return psi / np.linalg.norm(psi)


@pytest.mark.parametrize("name", CIRCUITS)
def test_a_run_by_a_plan_is_the_protocol_with_all_its_measurements(name):
    circuit, k = CIRCUITS[name]
    plan = plan_circuit(circuit, k)
    if name == "third node":
        assert any(
            plan.gate_nodes[g] not in {plan.placement[q] for q in circuit.gates[g].qubits}
            for g in circuit.two_qubit_gates
        )
    rng = np.random.default_rng(1)
    resources = [nodes.random_resource(rng) for _ in plan.copies]
    psi = random_state(circuit.qubits, 3)
    expected, target = physical(plan, resources, psi), ideal(circuit, psi)
    run = run_distributed(plan, jq.pairs.from_density_matrix(np.stack(resources)), psi)
    close(run.state, expected)
    close(run.fidelity, (target.conj() @ expected @ target).real)
    close(run.no_error, np.prod([nodes.overlaps(r)[0] for r in resources]))
    assert run.fidelity > run.no_error
    perfect = run_distributed(plan, jq.werner(fidelity=1.0), psi)
    close(perfect.state, np.outer(target, target.conj()))
    close([perfect.fidelity, perfect.no_error], 1)


VQC = GateList(
    4,
    [("ry", (q,), 0.4 + 0.1 * q) for q in range(4)]
    + [("cz", (q, (q + 1) % 4)) for q in range(4)]
    + [("ry", (q,), 0.3) for q in range(4)],
)
SIGNS = 1 - 2 * np.array([[i >> (3 - q) & 1 for i in range(16)] for q in range(4)])


@pytest.mark.parametrize(
    "fidelity, first, second",
    [(1.0, 0.802679, 0.414454), (0.95, 0.807829, 0.430893), (0.9, 0.812979, 0.447333)],
)
def test_noise_of_pairs_can_raise_the_expectations_of_a_classifier(fidelity, first, second):
    plan = plan_circuit(VQC, 2, placement=(0, 0, 1, 1))
    assert plan.ebits == 2
    found = np.diag(run_distributed(plan, jq.werner(fidelity=fidelity)).state).real
    close(found @ SIGNS[0], first)
    close(found @ (SIGNS[1] * SIGNS[2]), second)


def test_tensorcircuit_finds_the_same_noisy_state():
    tc = tensorcircuit_module("A test")
    before = tc.backend.name
    tc.set_backend("numpy")
    try:
        noise, circuit = 0.1 / 3, tc.DMCircuit(4)
        for name, qubits, angle in VQC.gates:
            if name == "ry":
                circuit.ry(*qubits, theta=angle)
                continue
            circuit.cz(*qubits)
            if qubits in ((1, 2), (3, 0)):
                errors = [np.kron(a, b) for a in (nodes.I2, nodes.Z) for b in (nodes.I2, nodes.Z)]
                weights = np.sqrt([0.9, noise, noise, noise])
                circuit.general_kraus(
                    [
                        tc.gates.Gate((w * e).reshape((2,) * 4).astype(np.complex64))
                        for w, e in zip(weights, errors, strict=True)
                    ],
                    *qubits,
                )
        expected = np.asarray(circuit.state())
    finally:
        tc.set_backend(before)
    plan = plan_circuit(VQC, 2, placement=(0, 0, 1, 1))
    close(run_distributed(plan, jq.werner(fidelity=0.9)).state, expected)


def test_the_fidelity_has_the_derivative_of_each_pair():
    plan = plan_circuit(qft(4), 2)
    start = random_state(4, 5)

    def fidelity(each):
        return run_distributed(plan, jq.werner(fidelity=each), start).fidelity

    with jax.enable_x64(True):
        at = jnp.array([0.9, 1.0])
        slopes = jax.grad(fidelity)(at)
        # The fidelity is affine in each of them.
        lower = [fidelity(at.at[e].add(-0.1)) for e in range(2)]
        np.testing.assert_allclose(slopes, (fidelity(at) - jnp.array(lower)) / 0.1, atol=1e-12)
        assert slopes.shape == (2,)
        assert min(slopes.tolist()) > 0


def test_runs_take_batches_and_nodes_of_a_mesh():
    plan = plan_circuit(qft(4), 2)

    def fidelity(each):
        return run_distributed(plan, jq.werner(fidelity=each)).fidelity

    values = jnp.linspace(0.9, 1.0, 4)
    expected = jnp.stack([fidelity(value) for value in values])
    close(jax.jit(jax.vmap(fidelity))(values), expected)
    mesh = Mesh(np.array(jax.devices()[:4]), "nodes")
    spec = PartitionSpec("nodes")
    mapped = jax.shard_map(lambda x: fidelity(x[0])[None], mesh=mesh, in_specs=spec, out_specs=spec)
    close(jax.jit(mapped)(values), expected)


def test_what_cannot_be_run_is_refused():
    plan = plan_circuit(qft(4), 2)
    with pytest.raises(TypeError, match="`plan` must be a CircuitPlan"):
        run_distributed(qft(4), jq.werner(fidelity=0.9))
    with pytest.raises(TypeError, match="`pairs` must be a Pair"):
        run_distributed(plan, 0.9)
    with pytest.raises(ValueError, match=r"`pairs` must have the batch shape \(\) or \(2,\)"):
        run_distributed(plan, jq.werner(fidelity=[0.9, 0.9, 0.9]))
    with pytest.raises(ValueError, match=r"`state` must have the shape \(16,\)"):
        run_distributed(plan, jq.werner(fidelity=0.9), np.ones(8))
    with pytest.raises(ValueError, match="`state` must have the norm one"):
        run_distributed(plan, jq.werner(fidelity=0.9), np.ones(16))
    large = plan_circuit(qft(8), 2, method="local")
    with pytest.raises(ValueError, match="`plan` must have at most 7 wires and 4194304 entries"):
        run_distributed(large, jq.werner(fidelity=0.9))


def test_a_circuit_without_copies_runs():
    plan = plan_circuit(GateList(2, (("h", (0,)), ("s", (1,)))), 2)
    run = run_distributed(plan, jq.werner(fidelity=0.9))
    close(run.state[0, 2], 0.5)
    close([run.fidelity, run.no_error], 1)
    close(run_distributed(plan_circuit(GateList(1, ()), 1), jq.werner(fidelity=0.9)).fidelity, 1)
