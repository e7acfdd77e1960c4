"""Fixed chips against dense circuits of data and program qubits, and gradients from their runs.

Statistical tests have fixed keys and state their sample size. Each comparison is at 6 standard
deviations, and fails by chance with probability 2e-9.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from refused import check_refusal

import jaxqring as jq
from jaxqring.qmodels import (
    ChipCircuit,
    chip_branches,
    chip_cost,
    chip_gradient,
    fixed_chip,
    gradient_state_cost,
    holevo,
    program,
    read_program,
)

SIGMAS = 6
KEY = jax.random.key(0)
X = np.array([[0, 1], [1, 0]], complex)
Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1.0 + 0j, -1])
PAULI = {"rx": X, "ry": Y, "rz": Z}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def kron(*factors):
    return functools.reduce(np.kron, factors)


def on(qubit, gate, qubits):
    return kron(*(gate if q == qubit else np.eye(2) for q in range(qubits)))


def rotation(axis, angle):
    return scipy.linalg.expm(-0.5j * angle * PAULI[axis])


def program_by_hand(theta, k):
    return np.array([[1, np.exp(1j * 2**j * theta)] for j in range(k)]) / np.sqrt(2)


def random_kets(count, size, seed):
    rng = np.random.default_rng(seed)
    kets = rng.normal(size=(count, size)) + 1j * rng.normal(size=(count, size))
    return kets / np.linalg.norm(kets, axis=1, keepdims=True)


def branches_by_circuit(data, kets, qubit):
    """Probabilities and projectors of all branches, by CNOTs and projectors on n + k qubits."""
    n, k = int(math.log2(len(data))), len(kets)
    state = kron(data, *kets)
    zero, one = np.diag([1.0, 0]), np.diag([0, 1.0])
    ends = []
    for j in range(k):
        control = on(qubit, zero, n + k) + on(qubit, one, n + k) @ on(n + j, X, n + k)
        state = control @ state
        ends.append(on(n + j, zero, n + k) @ state)
        state = on(n + j, one, n + k) @ state
    ends.append(state)
    probs = [np.linalg.norm(end) ** 2 for end in ends]
    # Program qubits are not entangled with the data any more: the reduced state is pure.
    reduced = []
    for end in ends:
        matrix = end.reshape(len(data), -1)
        rho = matrix @ matrix.conj().T
        reduced.append(rho / np.trace(rho))
    return np.array(probs), np.array(reduced)


def projector(ket):
    return np.outer(ket, np.conj(ket))


# --- One rotation ---------------------------------------------------------------------------------


def test_program_states(x64):
    thetas = np.array([[0.7, -2.0, 9.0]])
    found = program(thetas, 5)
    assert found.shape == (1, 3, 5, 2)
    for theta, kets in zip(thetas[0], found[0], strict=True):
        np.testing.assert_allclose(kets, program_by_hand(theta, 5), atol=1e-12)
    assert program(jnp.float32(0.7), 2).dtype == jnp.complex64


def test_check_values_of_a_program_of_three_qubits(x64):
    plus = np.array([1, 1]) / np.sqrt(2)
    found = chip_branches(plus, program(0.7, 3), 0)
    assert float(found.probs[:-1].sum()) == pytest.approx(0.875, abs=1e-12)
    for end, angle in zip(np.asarray(found.states), [0.7, 0.7, 0.7, -7 * 0.7], strict=True):
        expected = np.array([1, np.exp(1j * angle)]) / np.sqrt(2)
        np.testing.assert_allclose(projector(end), projector(expected), atol=1e-12)


@pytest.mark.parametrize("axis", ["rx", "ry", "rz"])
@pytest.mark.parametrize("qubit", [0, 1, 2])
def test_every_branch_is_a_rotation(x64, axis, qubit):
    (data,) = random_kets(1, 8, 1)
    theta, k = -1.3, 4
    found = chip_branches(data, program(theta, k), qubit, axis=axis)
    np.testing.assert_allclose(found.probs, [0.5, 0.25, 0.125, 0.0625, 0.0625], atol=1e-12)
    angles = [theta] * k + [(1 - 2**k) * theta]
    for end, angle in zip(np.asarray(found.states), angles, strict=True):
        expected = on(qubit, rotation(axis, angle), 3) @ data
        np.testing.assert_allclose(projector(end), projector(expected), atol=1e-11)


@pytest.mark.parametrize("qubit", [0, 1])
def test_branches_of_any_program_against_the_circuit(x64, qubit):
    (data,), kets = random_kets(1, 4, 2), random_kets(3, 2, 3)
    probs, reduced = branches_by_circuit(data, kets, qubit)
    found = chip_branches(data, jnp.asarray(kets), qubit)
    np.testing.assert_allclose(found.probs, probs, atol=1e-12)
    ends = np.stack([projector(end) for end in np.asarray(found.states)])
    np.testing.assert_allclose(ends, reduced, atol=1e-12)


def test_a_branch_that_never_occurs_has_no_state():
    found = chip_branches(jnp.array([1.0, 0.0]), jnp.array([[1.0, 0.0]]), 0)
    np.testing.assert_allclose(found.probs, [1, 0], atol=1e-7)
    assert np.all(np.isfinite(found.states))
    slope = jax.grad(lambda a: chip_branches(jnp.array([1.0, 0.0]), a[None], 0).probs[0])
    assert np.all(np.isfinite(slope(jnp.array([1.0, 0.0]))))


def test_derivatives_by_the_angle_are_those_of_the_rotation(x64):
    (data,) = random_kets(1, 4, 4)

    def value(theta):
        found = chip_branches(data, program(theta, 3), 1, axis="ry")
        of_branch = jnp.sum(jnp.abs(found.states) ** 2 * jnp.array([1, -1, 1, -1]), axis=1)
        return jnp.sum(found.probs * of_branch)

    def exact(theta):
        ends = [on(1, rotation("ry", angle), 2) @ data for angle in (theta, -7 * theta)]
        values = [np.vdot(end, on(1, Z, 2) @ end).real for end in ends]
        return 0.875 * values[0] + 0.125 * values[1]

    assert float(value(0.4)) == pytest.approx(exact(0.4), abs=1e-12)
    expected = (exact(0.4 + 1e-6) - exact(0.4 - 1e-6)) / 2e-6
    assert float(jax.jit(jax.grad(value))(0.4)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("ideal", [True, False])
def test_sampled_runs_follow_the_branches(ideal):
    """20,000 runs, each of which ends in one of the branches."""
    (data,) = random_kets(1, 4, 5)
    kets = program_by_hand(0.7, 2) if ideal else random_kets(2, 2, 6)
    kets = jnp.asarray(kets, jnp.complex64)
    keys = jax.random.split(KEY, 20_000)
    run = jax.jit(jax.vmap(lambda key: fixed_chip(data, kets, 1, key, axis="ry")))
    states, succeeded = map(np.asarray, run(keys))
    exact = chip_branches(data, kets, 1, axis="ry")
    overlaps = np.abs(states.conj() @ np.asarray(exact.states).T) ** 2
    chance = float(exact.probs[-1])
    spread = math.sqrt(chance * (1 - chance) / len(keys))
    assert np.mean(~succeeded) == pytest.approx(chance, abs=SIGMAS * spread)
    np.testing.assert_allclose(overlaps[~succeeded, -1], 1, atol=1e-5)
    np.testing.assert_allclose(overlaps[succeeded, :-1].max(axis=1), 1, atol=1e-5)
    if ideal:
        assert chance == pytest.approx(0.25, abs=1e-6)
        np.testing.assert_allclose(overlaps[succeeded, 0], 1, atol=1e-5)


# --- Secrecy and cost -----------------------------------------------------------------------------


def distribution_by_matrices(theta, k):
    """Phase estimation (..., 2^k) by the Fourier matrix: y has the qubit j at the weight 2^j."""
    size = 2**k
    register = np.exp(1j * np.arange(size) * np.asarray(theta)[..., None]) / np.sqrt(size)
    return np.abs(register @ scipy.linalg.dft(size, scale="sqrtn")) ** 2


@pytest.mark.parametrize("k", [1, 3, 6])
def test_phase_estimation_reads_a_program(x64, k):
    for theta in (0.0, 0.7, -2.9, 2 * np.pi / 2**k):
        found = np.asarray(read_program(program(theta, k)))
        np.testing.assert_allclose(found, distribution_by_matrices(theta, k), atol=1e-12)
        # The likeliest outcome is the nearest, with the probability that the bound says.
        nearest = round(theta * 2**k / (2 * np.pi)) % 2**k
        assert found[nearest] >= 4 / np.pi**2
    assert float(read_program(program(2 * np.pi / 2**k, k))[1]) == pytest.approx(1)


def test_a_program_leaks_its_number_of_qubits(x64):
    for k in (1, 2, 4):
        angles = 2 * np.pi * np.arange(2**k) / 2**k + 0.3
        registers = [kron(*program_by_hand(theta, k)) for theta in angles]
        assert float(holevo(np.stack(registers))) == pytest.approx(k)
        assert chip_cost(k).leaked == k


@pytest.mark.parametrize("k", [1, 3, 7])
def test_bits_that_phase_estimation_reads(k):
    angles = 2 * np.pi * (np.arange(64 * 2**k) + 0.5) / (64 * 2**k)
    given = distribution_by_matrices(angles, k)

    def entropy(probs):
        return -np.sum(probs * np.log2(np.maximum(probs, 1e-300)), axis=-1)

    expected = entropy(given.mean(axis=0)) - entropy(given).mean()
    assert chip_cost(k).read == pytest.approx(expected, abs=1e-9)
    assert expected < k


def test_costs_of_runs_until_success():
    """200,000 circuits of three rotations, each of which fails with probability 1 / 4."""
    cost = chip_cost(2, uses=3)
    assert cost.success == pytest.approx(0.75**3)
    rng = np.random.default_rng(0)
    fails = (rng.random((200_000, 3)) < 0.25).any(axis=1)
    ends = np.flatnonzero(~fails)
    runs = np.diff(ends)
    spread = runs.std() / math.sqrt(len(runs))
    assert cost.runs == pytest.approx(runs.mean(), abs=SIGMAS * spread)
    assert cost.program_qubits == pytest.approx(2 * 3 * cost.runs)


def test_gradients_as_states_save_nothing():
    for size in (2, 3, 4, 5, 8, 20, 2000, 10**6):
        for epsilon in (0.999, 0.9, 0.7, 0.5, 0.3, 0.1, 0.01):
            cost = gradient_state_cost(size, epsilon)
            assert cost.qubits_per_copy == math.ceil(math.log2(size))
            assert 0 <= cost.copies - size / epsilon**2 < 1 + 1e-6
            assert cost.qubits == cost.copies * cost.qubits_per_copy
            assert not cost.saves
    assert gradient_state_cost(160, 0.1).copies == 16_000


def test_the_rounded_gradient_has_the_error_of_the_state():
    rng = np.random.default_rng(1)
    for size, epsilon in ((4, 0.5), (100, 0.1), (1000, 0.03)):
        levels = 2 ** (gradient_state_cost(size, epsilon).bits // size)
        step = 2 / levels
        for _ in range(20):
            gradient = rng.normal(size=size)
            gradient /= np.linalg.norm(gradient)
            sent = (np.floor(gradient / step) + 0.5) * step
            assert np.linalg.norm(sent - gradient) <= epsilon


def test_copies_read_amplitudes_as_well_as_stated():
    """Magnitudes alone, from P / epsilon^2 readings: half of epsilon, to a tenth of it."""
    rng = np.random.default_rng(2)
    for size, epsilon in ((64, 0.1), (256, 0.05)):
        magnitudes = rng.uniform(0.5, 1.5, size=size)
        magnitudes /= np.linalg.norm(magnitudes)
        copies = gradient_state_cost(size, epsilon).copies
        counts = rng.multinomial(copies, magnitudes**2, size=200)
        errors = np.linalg.norm(np.sqrt(counts / copies) - magnitudes, axis=1)
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(epsilon / 2, rel=0.1)


# --- Gradients and a federated round --------------------------------------------------------------

CIRCUIT = ChipCircuit(("ry", "rx"), "ZX", program_qubits=3)
ANGLES = np.array([[0.4, -0.9], [1.1, 0.3]])
NODES, BATCH, SHOTS = 4, 3, 400
OBSERVABLE = kron(Z, X)
INPUTS = np.stack([random_kets(BATCH, 4, 10 + node) for node in range(NODES)])
LABELS = np.sign(np.random.default_rng(3).normal(size=(NODES, BATCH)))


def value(angles, state):
    """<O> of the circuit, in matrices."""
    cz = np.diag([1, 1, 1, -1])
    for axis, layer in zip(CIRCUIT.axes, angles, strict=True):
        state = cz @ kron(*(rotation(axis, angle) for angle in layer)) @ state
    return np.vdot(state, OBSERVABLE @ state).real


def exact_gradient(node):
    """The gradient of a client's loss by differences, and the variance of its estimate."""
    gradient, variance = np.zeros((2, 2)), np.zeros((2, 2))
    success = (1 - 2.0**-CIRCUIT.program_qubits) ** ANGLES.size
    for state, label in zip(INPUTS[node], LABELS[node], strict=True):
        for place in np.ndindex(2, 2):
            step = np.zeros((2, 2))
            step[place] = 1e-5
            slope = (value(ANGLES + step, state) - value(ANGLES - step, state)) / 2e-5
            gradient[place] += -label * slope / 2 / BATCH
            step[place] = np.pi / 2
            sides = [value(ANGLES + sign * step, state) for sign in (1, -1)]
            each = sum(1 - side**2 for side in sides) / (SHOTS * success)
            variance[place] += each / (4 * BATCH) ** 2
    return gradient, variance


def client(angles, states, labels, key):
    own, shared = jax.random.split(key)
    own = jax.random.fold_in(own, jax.lax.axis_index("nodes"))
    found = chip_gradient(CIRCUIT, angles, states, labels, shots=SHOTS, key=own)
    mean = jq.pmean(found.gradient, "nodes", ring=jq.Ring(noise="off"), key=shared)
    return found, angles - 0.5 * mean


def inputs():
    angles = jnp.asarray(np.tile(ANGLES, (NODES, 1, 1)), jnp.float32)
    states = jnp.asarray(INPUTS, jnp.complex64)
    return angles, states, jnp.asarray(LABELS, jnp.float32), KEY


@functools.cache
def federated(mapping):
    return jax.tree.map(np.asarray, mapping(client, NODES, shared=1)(*inputs()))


def test_gradients_of_clients_are_within_the_predicted_error(mapping_named):
    """16 numbers of 400 runs a side and input; 38,400 runs."""
    found, _ = federated(mapping_named("vmap"))
    scores = []
    for node in range(NODES):
        gradient, variance = exact_gradient(node)
        scores.append((found.gradient[node] - gradient) / np.sqrt(variance))
        np.testing.assert_allclose(found.variance[node], variance, rtol=0.15)
    assert np.abs(scores).max() < SIGMAS
    # The mean square of 16 scores is one to 5.5 standard deviations of 0.35, at least 0.1.
    assert 0.1 < np.mean(np.square(scores)) < 3
    success = (1 - 2.0**-3) ** 4
    spread = math.sqrt(success * (1 - success) / (NODES * 8 * BATCH * SHOTS))
    assert found.succeeded.mean() == pytest.approx(success, abs=SIGMAS * spread)


@pytest.mark.parametrize(
    "name",
    ["vmap", "shard_map_checked", pytest.param("shard_map_unchecked", marks=pytest.mark.matrix)],
)
def test_a_federated_round_takes_the_mean_gradient(mapping_named, name):
    found, angles = federated(mapping_named(name))
    gradients, variances = zip(*(exact_gradient(node) for node in range(NODES)), strict=True)
    assert np.all(angles == angles[:1])  # replicas agree
    taken = (ANGLES - angles[0]) / 0.5
    # Levels of 16 bits leave less than 1e-3 of the largest of these gradients.
    np.testing.assert_allclose(taken, found.gradient.mean(axis=0), atol=1e-3)
    spread = np.sqrt(np.mean(variances, axis=0) / NODES)
    assert np.all(np.abs(taken - np.mean(gradients, axis=0)) < SIGMAS * spread + 1e-3)


def test_every_mapping_draws_the_same_runs(mapping_named):
    one, other = (federated(mapping_named(name)) for name in ("vmap", "shard_map_checked"))
    np.testing.assert_allclose(one[0].gradient, other[0].gradient, atol=1e-6)
    np.testing.assert_allclose(one[1], other[1], atol=1e-4)


def test_a_round_under_masks_takes_the_same_mean(mapping_named):
    """Perfect GHZ states and links leave the sum of the levels as it is, bit for bit."""

    def means(gradient, key):
        options = {"source": jq.GHZSource(NODES), "security": jq.secure.Security("none")}
        ring = jq.Ring(noise="off")
        masked = jq.secure_pmean(gradient, "nodes", ring=ring, key=key, **options)
        return masked, jq.pmean(gradient, "nodes", ring=ring, key=key)

    mapping = mapping_named("vmap")
    found, _ = federated(mapping)
    masked, plain = mapping(means, NODES, shared=1)(jnp.asarray(found.gradient), KEY)
    np.testing.assert_array_equal(masked, plain)


# --- Refusals -------------------------------------------------------------------------------------

PLUS, PROGRAM = jnp.ones(2) / np.sqrt(2), program(0.1, 2)
SINGLE = ChipCircuit(("ry",), "Z")


def estimate(angles=((0.1,),), states=((1.0, 0.0),), labels=(1.0,), shots=2, key=KEY):
    arrays = map(jnp.asarray, (angles, states, labels))
    return chip_gradient(SINGLE, *arrays, shots=shots, key=key)


# name: (call, exception, words of the message)
REFUSALS = {
    "no program": (lambda: program(0.1, 0), ValueError, ["`qubits`", "[1, 14]"]),
    "text as an angle": (lambda: program("a", 1), TypeError, ["`theta`"]),
    "size": (lambda: chip_branches(jnp.ones(3), PROGRAM, 0), ValueError, ["`state`", "(3,)"]),
    "norm": (lambda: chip_branches(2 * PLUS, PROGRAM, 0), ValueError, ["`state`", "norm one"]),
    "program": (lambda: chip_branches(PLUS, PLUS, 0), ValueError, ["`program`", "(k, 2)"]),
    "qubit": (lambda: chip_branches(PLUS, PROGRAM, 1), ValueError, ["`qubit`", "1"]),
    "axis": (
        lambda: chip_branches(PLUS, PROGRAM, 0, axis="z"),
        ValueError,
        ["`axis`", "'rz'", "'z'"],
    ),
    "raw key": (
        lambda: fixed_chip(PLUS, PROGRAM, 0, np.zeros(2, np.uint32)),
        TypeError,
        ["`key`", "typed key"],
    ),
    "reading": (lambda: read_program(PLUS), ValueError, ["`program`", "(k, 2)"]),
    "cost": (lambda: chip_cost(15), ValueError, ["`qubits`", "[1, 14]", "15"]),
    "uses": (lambda: chip_cost(1, 0), ValueError, ["`uses`", "at least 1"]),
    "one entry": (lambda: gradient_state_cost(1, 0.1), ValueError, ["`parameters`", "2"]),
    "error": (lambda: gradient_state_cost(9, 1.0), ValueError, ["`epsilon`", "(0, 1)"]),
    "no layer": (lambda: ChipCircuit((), "Z"), ValueError, ["`axes`", "at least one"]),
    "axes": (lambda: ChipCircuit(("ry", "h"), "Z"), ValueError, ["`axes`", "'h'"]),
    "string": (lambda: ChipCircuit(("ry",), "ZQ"), ValueError, ["`observable`", "'ZQ'"]),
    "entangler": (
        lambda: ChipCircuit(("ry",), "Z", entangler="swap"),
        ValueError,
        ["`entangler`", "'swap'"],
    ),
    "programs": (
        lambda: ChipCircuit(("ry",), "Z", program_qubits=0),
        ValueError,
        ["`program_qubits`", "0"],
    ),
    "angles": (lambda: estimate(angles=(0.1,)), ValueError, ["`angles`", "(1, 1)"]),
    "states": (lambda: estimate(states=(1.0, 0.0)), ValueError, ["`states`", "(batch, 2)"]),
    "labels": (lambda: estimate(labels=1.0), ValueError, ["`labels`", "(1,)"]),
    "another label": (lambda: estimate(labels=(0.5,)), ValueError, ["`labels`", "+1 or -1"]),
    "norm of an input": (lambda: estimate(states=((1.0, 1.0),)), ValueError, ["`states`", "norm"]),
    "shots": (lambda: estimate(shots=1), ValueError, ["`shots`", "at least 2"]),
    "key": (lambda: estimate(key=jnp.zeros(2)), TypeError, ["`key`"]),
    "circuit": (
        lambda: chip_gradient("ry", 0.1, PLUS, 1.0, shots=2, key=KEY),
        TypeError,
        ["`circuit`", "ChipCircuit"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name):
    check_refusal(*REFUSALS[name])
