"""Teleportation and remote gates against the protocols with every measurement, in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import physical_nodes as nodes
import pytest

import jaxqring as jq

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)


def pair_of(resource):
    return jq.pairs.from_density_matrix(resource)


def cat_errors(rho, probs, control, partners):
    """CZ gates have been made: I, Z on the control, Z on all partners, both."""
    total = int(np.log2(len(rho)))
    on_control = nodes.on(nodes.Z, [control], total)
    on_partners = np.linalg.multi_dot(
        [np.eye(2**total), np.eye(2**total), *(nodes.on(nodes.Z, [t], total) for t in partners)]
    )
    errors = [np.eye(2**total), on_control, on_partners, on_control @ on_partners]
    return sum(p * e @ rho @ e.conj().T for p, e in zip(probs, errors, strict=True))


@pytest.mark.parametrize("qubit", [0, 1, 2])
def test_teleportation_through_any_resource_is_the_pauli_channel_of_its_overlaps(qubit):
    rng = np.random.default_rng(qubit)
    resource, rho = nodes.random_resource(rng), nodes.random_rho(rng, 3)
    physical = nodes.teleported(rho, resource, qubit)
    errors = [nodes.on(error, [qubit], 3) for error in nodes.ERRORS]
    probs = nodes.overlaps(resource)
    channel = sum(p * e @ rho @ e.conj().T for p, e in zip(probs, errors, strict=True))
    np.testing.assert_allclose(physical, channel, atol=1e-15)
    with jax.enable_x64(True):
        found = jq.qmodels.teleport(rho, pair_of(resource), qubit)
        np.testing.assert_allclose(found, physical, atol=1e-15)
    close(jq.qmodels.teleport(rho, pair_of(resource), qubit), physical)


def test_a_remote_cz_through_a_werner_pair_has_its_fidelity():
    plus = np.full((4, 4), 0.25)
    pair = jq.werner(fidelity=0.9)
    found = np.asarray(jq.qmodels.remote_gate(plus, pair, 0, [1]))
    ideal = np.array([1, 1, 1, -1]) / 2
    close((ideal @ found @ ideal).real, 0.9)
    process, average = jq.qmodels.remote_gate_fidelity(pair)
    close(process, 0.9)
    close(average, 0.92)


def physical_gate(rho, resource, control, partners, angles):
    total = int(np.log2(len(rho)))
    gates = [("cp", (control, t), a) for t, a in zip(partners, angles, strict=True)]
    copies = [(control, tuple(range(len(gates))), resource)]
    return nodes.run(total, gates, copies, rho)


def test_two_cz_on_one_pair_leave_joint_errors():
    rng = np.random.default_rng(5)
    resource, rho = nodes.random_resource(rng), nodes.random_rho(rng, 3)
    physical = physical_gate(rho, resource, 1, [0, 2], [np.pi] * 2)
    ideal = nodes.act(nodes.act(rho, nodes.phase(np.pi), [1, 0]), nodes.phase(np.pi), [1, 2])
    errors = cat_errors(ideal, nodes.overlaps(resource), 1, [0, 2])
    np.testing.assert_allclose(physical, errors, atol=1e-15)
    with jax.enable_x64(True):
        found = jq.qmodels.remote_gate(rho, pair_of(resource), 1, [0, 2])
        np.testing.assert_allclose(found, physical, atol=1e-15)
    close(jq.qmodels.remote_gate(rho, pair_of(resource), 1, [0, 2]), physical)


@pytest.mark.parametrize("partners, angles", [([1], [0.7]), ([2, 0], [0.4, -1.3])])
def test_a_remote_phase_is_the_protocol_with_a_flipped_copy(partners, angles):
    rng = np.random.default_rng(6)
    control = 1 if 1 not in partners else 0
    resource, rho = nodes.random_resource(rng), nodes.random_rho(rng, 3)
    physical = physical_gate(rho, resource, control, partners, angles)
    found = jq.qmodels.remote_gate(rho, pair_of(resource), control, partners, angles)
    close(found, physical)
    # No mixture of Pauli errors after the ideal gates does it.
    ideal = rho
    for partner, angle in zip(partners, angles, strict=True):
        ideal = nodes.act(ideal, nodes.phase(angle), [control, partner])
    pauli = cat_errors(ideal, nodes.overlaps(resource), control, partners)
    assert np.abs(pauli - physical).max() > 1e-3


@pytest.mark.parametrize("angles", [[np.pi], [0.7], [np.pi, np.pi], [0.4, -1.3, 2.0]])
def test_fidelities_of_a_remote_gate_are_those_of_its_choi_state(angles):
    rng = np.random.default_rng(7)
    resource = nodes.random_resource(rng)
    size = 2 ** (len(angles) + 1)
    partners = list(range(1, len(angles) + 1))
    unitary = np.eye(size)
    for partner, angle in zip(partners, angles, strict=True):
        unitary = nodes.on(nodes.phase(angle), [0, partner], len(angles) + 1) @ unitary
    # sum_ij <i| U^dagger E(|i><j|) U |j> / d^2.
    process = 0
    for i in range(size):
        for j in range(size):
            unit = np.zeros((size, size), complex)
            unit[i, j] = 1
            out = physical_gate(unit, resource, 0, partners, angles)
            process += (unitary.conj().T @ out @ unitary)[i, j].real / size**2
    found = jq.qmodels.remote_gate_fidelity(pair_of(resource), angles)
    close(found.process, process)
    close(found.average, (size * process + 1) / (size + 1))


def test_remote_gates_have_derivatives_and_batches():
    rho = nodes.random_rho(np.random.default_rng(8), 2)

    def value(fidelity, angle):
        out = jq.qmodels.remote_gate(rho, jq.werner(fidelity=fidelity), 0, [1], angle)
        return jq.qmodels.teleport(out, jq.werner(fidelity=fidelity), 1)[0, 3].real

    with jax.enable_x64(True):
        for at in (0.9, 1.0):
            slopes = jax.grad(value, (0, 1))(at, 0.8)
            step = 1e-6
            low, high = (value(at - sign * step, 0.8) for sign in (1, -1)) if at < 1 else (0, 0)
            if at < 1:
                np.testing.assert_allclose(slopes[0], (high - low) / (2 * step), atol=1e-8)
            assert np.isfinite(slopes).all()
            turned = (value(at, 0.8 + step) - value(at, 0.8 - step)) / (2 * step)
            np.testing.assert_allclose(slopes[1], turned, atol=1e-8)
    batch = jax.jit(jax.vmap(value, (0, None)))(jnp.array([0.9, 1.0]), 0.8)
    close(batch, [value(0.9, 0.8), value(1.0, 0.8)])


def test_what_is_no_state_pair_or_qubit_is_refused():
    rho, pair = np.eye(4) / 4, jq.werner(fidelity=0.9)
    with pytest.raises(ValueError, match=r"`rho` must have the shape \(2\^n, 2\^n\)"):
        jq.qmodels.teleport(np.eye(3) / 3, pair, 0)
    with pytest.raises(ValueError, match="`rho` must have trace one"):
        jq.qmodels.teleport(np.eye(4), pair, 0)
    with pytest.raises(ValueError, match=r"`qubit` must be an integer in \[0, 1\], but got 2"):
        jq.qmodels.teleport(rho, pair, 2)
    with pytest.raises(ValueError, match="`pair` must have no batch axes"):
        jq.qmodels.teleport(rho, jq.werner(fidelity=[0.9, 0.8]), 0)
    with pytest.raises(TypeError, match="`pair` must be a Pair"):
        jq.qmodels.remote_gate(rho, 0.9, 0, [1])
    with pytest.raises(ValueError, match="`partners` must be different qubits other than 0"):
        jq.qmodels.remote_gate(rho, pair, 0, [0])
    with pytest.raises(ValueError, match="`angles` must be one for all partners or one for each"):
        jq.qmodels.remote_gate(rho, pair, 0, [1], [0.1, 0.2])
    with pytest.raises(ValueError, match="`angles` must be one number or several"):
        jq.qmodels.remote_gate_fidelity(pair, [])
