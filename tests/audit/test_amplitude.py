"""Phase estimation and iterates against states and density matrices written out."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audit_cases import unit

from jaxqring.audit._amplitude import (
    WITHIN_RESOLUTION,
    angle,
    fisher_information,
    iterate_probability,
    phase_estimation_probabilities,
)
from jaxqring.audit._gap_ip import (
    register_qubits,
)

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
law = jax.jit(phase_estimation_probabilities, static_argnums=(1, 2))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- States and density matrices written out ------------------------------------------------------


def embedded(gradient):
    """The state (gradient, 1) / sqrt(2) in a register of ceil(log2(P + 1)) qubits."""
    state = np.zeros(2 ** math.ceil(math.log2(len(gradient) + 1)))
    state[: len(gradient)] = gradient
    state[len(gradient)] = 1
    return state / np.sqrt(2)


def reflection(state):
    return np.eye(len(state)) - 2 * np.outer(state, state)


def inverse_fourier(steps):
    numbers = np.arange(steps)
    return np.exp(-2j * np.pi * np.outer(numbers, numbers) / steps) / np.sqrt(steps)


def phase_estimation_of_the_state(u, v, steps):
    """(M,) the law of the control register, whose branch x holds Q^x u."""
    turn = reflection(u) @ reflection(v)
    branches = [u]
    for _ in range(steps - 1):
        branches.append(turn @ branches[-1])
    amplitudes = inverse_fourier(steps) @ (np.array(branches) / np.sqrt(steps))
    return np.sum(np.abs(amplitudes) ** 2, axis=1)


def replaced(rho, control, survival):
    """A density matrix of control and register whose register is white noise now and then."""
    size = len(rho) // control
    kept = np.einsum("aibi->ab", rho.reshape(control, size, control, size))
    return survival * rho + (1 - survival) * np.kron(kept, np.eye(size) / size)


def phase_estimation_of_the_density_matrix(u, v, steps, survival):
    """(M,) the same with a hop after each reflection, controlled Q^1 first, then Q^2, Q^4, ..."""
    size = len(u)
    plus = np.full(steps, 1 / np.sqrt(steps))
    rho = np.outer(np.kron(plus, u), np.kron(plus, u)).astype(complex)
    for power in (2**bit for bit in range(int(math.log2(steps)))):
        on = np.array([float(bool(x & power)) for x in range(steps)])
        for _ in range(power):
            for state in (v, u):
                gate = np.kron(np.diag(1 - on), np.eye(size)) + np.kron(
                    np.diag(on), reflection(state)
                )
                rho = replaced(gate @ rho @ gate, steps, survival)
    fourier = np.kron(inverse_fourier(steps), np.eye(size))
    outcomes = np.diagonal(fourier @ rho @ fourier.conj().T).real
    return outcomes.reshape(steps, size).sum(axis=1)


def pair_of_states(seed, size):
    rng = np.random.default_rng(seed)
    a, b = unit(rng, size), unit(rng, size)
    if seed % 2:
        b = unit(rng, size) * 0.5 - a  # and a pair that conflicts
        b = b / np.linalg.norm(b)
    return a, b


# --- The law of phase estimation ------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, steps",
    [(7, 8), (100, 32), *(further(*case) for case in [(7, 32), (16, 16), (16, 2), (100, 16)])],
)
def test_law_is_that_of_the_state(size, steps, x64):
    for seed in range(4):
        a, b = pair_of_states(seed, size)
        theta = angle(a @ b)
        expected = phase_estimation_of_the_state(embedded(a), embedded(b), steps)
        qubits = register_qubits(size)
        assert np.allclose(law(theta, steps, qubits, 0.0), expected, atol=1e-12)
        assert np.allclose(
            phase_estimation_probabilities(theta, steps, qubits, 0), expected, atol=1e-12
        )


@pytest.mark.parametrize("steps", [further(4), 8])
@pytest.mark.parametrize("noise", [0.3, 1.0, further(0.01)])
def test_law_with_noise_is_that_of_the_density_matrix(steps, noise, x64):
    for seed in range(2):
        a, b = pair_of_states(seed, 7)
        expected = phase_estimation_of_the_density_matrix(
            embedded(a), embedded(b), steps, 1 - noise
        )
        found = law(angle(a @ b), steps, register_qubits(7), noise)
        assert np.allclose(found, expected, atol=1e-12)


def test_law_with_noise_needs_the_whole_register(x64):
    """White noise is I / D: a register of another size has another law."""
    theta = angle(0.2)
    assert not np.allclose(law(theta, 8, 3, 0.1), law(theta, 8, 20, 0.1), atol=1e-3)


@pytest.mark.parametrize("steps", [2, further(16), further(64)])
def test_closed_form_is_the_product_of_matrices_at_no_noise(steps, x64):
    for g in (-1.0, -0.3, 0.0, 0.1, 0.9, 1.0):
        closed = phase_estimation_probabilities(angle(g), steps, 20, 0.0)
        traced = law(angle(g), steps, 20, jnp.asarray(0.0))
        tiny = law(angle(g), steps, 20, jnp.asarray(1e-13))
        assert np.allclose(closed, traced, atol=1e-12)
        assert np.allclose(closed, tiny, atol=1e-10)


@pytest.mark.parametrize("noise", [0.0, further(1e-3), further(0.2), further(1.0)])
def test_law_is_a_distribution_and_even(noise, x64):
    for theta in np.linspace(0, np.pi / 2, 7):
        for steps in (2, 16, 64):
            found = np.asarray(law(theta, steps, 20, noise))
            assert np.all(found >= 0)
            assert found.sum() == pytest.approx(1, abs=1e-12)
            if noise == 0:
                assert np.allclose(found[1:], found[:0:-1], atol=1e-12)


@pytest.mark.matrix
def test_law_in_single_precision():
    for steps in (16, 128, 512):
        with jax.enable_x64(True):
            expected = np.asarray(phase_estimation_probabilities(1.02, steps, 20, 0.0))
            noisy = np.asarray(law(1.02, steps, 20, 1e-3))
        assert np.allclose(
            phase_estimation_probabilities(1.02, steps, 20, 0.0), expected, atol=1e-4
        )
        assert np.allclose(law(1.02, steps, 20, 1e-3), noisy, atol=1e-3)


@functools.partial(jax.jit, static_argnums=1)
def within_the_resolution(thetas, steps):
    """(...) the probability that phase estimation errs by its resolution at most."""

    def one(theta):
        outcomes = jnp.arange(steps)
        read = jnp.pi * jnp.minimum(outcomes, steps - outcomes) / steps
        near = jnp.abs(read - theta) <= jnp.pi / steps * (1 + 1e-12)
        return jnp.sum(jnp.where(near, phase_estimation_probabilities(theta, steps, 20, 0.0), 0))

    return jax.vmap(one)(thetas)


@pytest.mark.parametrize("steps", [64, further(8), further(512)])
def test_phase_estimation_errs_by_its_resolution_at_most(steps, x64):
    chances = np.asarray(within_the_resolution(np.linspace(0, np.pi / 2, 1001), steps))
    assert np.all(chances >= WITHIN_RESOLUTION)
    assert 8 / np.pi**2 == WITHIN_RESOLUTION


def test_check_value_of_the_least_chance_of_one_resolution(x64):
    chances = np.asarray(within_the_resolution(np.linspace(0, np.pi / 2, 200_001), 32))
    # 0.81327 of a coarse grid of angles
    assert chances.min() == pytest.approx(0.81327, abs=1e-4)
    assert chances.min() == pytest.approx(0.813198, abs=1e-6)


# --- Iterates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 16, 100])
def test_iterates_are_those_of_the_state(size, x64):
    for seed in range(4):
        a, b = pair_of_states(seed, size)
        u, v = embedded(a), embedded(b)
        assert u @ v == pytest.approx((1 + a @ b) / 2, abs=1e-15)
        theta = float(angle(a @ b))
        assert theta == pytest.approx(np.arccos(u @ v), abs=1e-12)
        forth, back = reflection(u) @ reflection(v), reflection(v) @ reflection(u)
        found, other = u, u
        for turns in range(12):
            expected = iterate_probability(theta, turns, register_qubits(size), 0.0)
            assert (u @ found) ** 2 == pytest.approx(float(expected), abs=1e-12)
            assert (u @ found) ** 2 == pytest.approx(np.cos(2 * turns * theta) ** 2, abs=1e-12)
            assert (v @ found) ** 2 == pytest.approx(
                np.cos((2 * turns + 1) * theta) ** 2, abs=1e-12
            )
            assert (v @ other) ** 2 == pytest.approx(
                np.cos((2 * turns - 1) * theta) ** 2, abs=1e-12
            )
            found, other = forth @ found, back @ other


@pytest.mark.parametrize("noise", [0.02, 0.4, 1.0])
def test_iterates_with_noise_are_those_of_the_density_matrix(noise, x64):
    a, b = pair_of_states(0, 7)
    u, v = embedded(a), embedded(b)
    rho = np.outer(u, u)
    turns = np.arange(9)
    expected = iterate_probability(angle(a @ b), turns, register_qubits(7), noise)
    for k in turns:
        assert u @ rho @ u == pytest.approx(float(expected[k]), abs=1e-12)
        for state in (v, u):
            rho = replaced(reflection(state) @ rho @ reflection(state), 1, 1 - noise)


def test_fisher_information(x64):
    assert int(fisher_information(3)) == 144
    for k in (1, 3, 8):
        for theta in (0.4, 1.01):
            p = np.cos(2 * k * theta) ** 2
            slope = jax.grad(lambda t, k=k: iterate_probability(t, k, 20, 0.0))(theta)
            assert slope**2 / (p * (1 - p)) == pytest.approx(16 * k**2, rel=1e-9)
