"""GapIP against states and density matrices written out, and against exact laws of its decisions.

Statistical tests have fixed keys and state their sample size. Each comparison of counts is at 5
standard deviations or at an exact tail, and fails by chance with probability 6e-7 at most.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxqring.audit._amplitude import (
    ONE_STEP,
    angle,
    fisher_information,
    iterate_probability,
    phase_estimation_law,
)
from jaxqring.audit._gap_ip import (
    decision_error,
    gap_ip,
    gap_steps,
    measure_angle,
    median_error,
    plan_gap_ip,
    register_qubits,
)

MILLION = 10**6
RUNS = 20_000
SIGMAS = 5
KEY = jax.random.key(0)

further = functools.partial(pytest.param, marks=pytest.mark.matrix)

law = jax.jit(phase_estimation_law, static_argnums=(1, 2))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- States and density matrices written out ------------------------------------------------------


def unit(rng, size):
    vector = rng.normal(size=size)
    return vector / np.linalg.norm(vector)


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
        assert np.allclose(phase_estimation_law(theta, steps, qubits, 0), expected, atol=1e-12)


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
        closed = phase_estimation_law(angle(g), steps, 20, 0.0)
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
            expected = np.asarray(phase_estimation_law(1.02, steps, 20, 0.0))
            noisy = np.asarray(law(1.02, steps, 20, 1e-3))
        assert np.allclose(phase_estimation_law(1.02, steps, 20, 0.0), expected, atol=1e-4)
        assert np.allclose(law(1.02, steps, 20, 1e-3), noisy, atol=1e-3)


@functools.partial(jax.jit, static_argnums=1)
def within_one_step(thetas, steps):
    """(...) the probability that phase estimation errs by one step at most."""

    def one(theta):
        outcomes = jnp.arange(steps)
        read = jnp.pi * jnp.minimum(outcomes, steps - outcomes) / steps
        near = jnp.abs(read - theta) <= jnp.pi / steps * (1 + 1e-12)
        return jnp.sum(jnp.where(near, phase_estimation_law(theta, steps, 20, 0.0), 0))

    return jax.vmap(one)(thetas)


@pytest.mark.parametrize("steps", [64, further(8), further(512)])
def test_phase_estimation_errs_by_one_step_at_most(steps, x64):
    chances = np.asarray(within_one_step(np.linspace(0, np.pi / 2, 1001), steps))
    assert np.all(chances >= ONE_STEP)
    assert 8 / np.pi**2 == ONE_STEP


def test_check_value_of_the_least_chance_of_one_step(x64):
    chances = np.asarray(within_one_step(np.linspace(0, np.pi / 2, 200_001), 32))
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


# --- What it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tau, steps, qubits, error",
    [(0.1, 64, 2646, 0.09863), (0.05, 128, 5334, 0.09140), (0.02, 512, 21462, 0.04819)],
)
def test_check_values_of_the_plan(tau, steps, qubits, error, x64):
    plan = plan_gap_ip(tau, MILLION)
    assert (plan.steps, plan.qubits) == (steps, qubits)
    errors = [float(decision_error(g, tau, MILLION)) for g in (tau, -tau)]
    assert max(errors) == pytest.approx(error, abs=5e-6)
    assert max(errors) <= plan.error == pytest.approx(1 - 8 / np.pi**2)


def test_steps_are_less_than_the_margin(x64):
    margin = min(np.pi / 3 - float(angle(0.1)), float(angle(-0.1)) - np.pi / 3)
    assert margin == pytest.approx(0.0568334, abs=5e-8)
    for tau in np.geomspace(1e-4, 0.999, 200):
        margin = min(math.pi / 3 - math.acos((1 + tau) / 2), math.acos((1 - tau) / 2) - math.pi / 3)
        steps = gap_steps(tau)
        assert math.pi / steps <= margin < 2 * math.pi / steps
        assert steps & (steps - 1) == 0


@pytest.mark.parametrize("tau", [0.3, 0.05])
@pytest.mark.parametrize("size", [1, 7, 8, MILLION])
def test_qubits_and_rounds_counted_again(tau, size):
    register = math.ceil(math.log2(size + 1))
    assert register_qubits(size) == register
    steps = gap_steps(tau)
    # Phase estimation: controlled Q^1, Q^2, Q^4, ..., each Q there and back, a control beside.
    sent = qubits = 0
    power = 1
    while power < steps:
        for _ in range(power):
            sent += 2
            qubits += 2 * (register + 1)
        power *= 2
    plan = plan_gap_ip(tau, size, repetitions=3)
    assert (plan.qubits, plan.rounds, plan.depth) == (3 * qubits, 3 * sent, steps - 1)
    assert (plan.steps, plan.repetitions, plan.estimator) == (steps, 3, "qpe")
    # Maximum likelihood: one way for the shots without a turn, there and back for each turn.
    sent = 1
    turns = 1
    while turns <= steps // 2:
        sent += 2 * turns
        turns *= 2
    plan = plan_gap_ip(tau, size, estimator="mlae", repetitions=10)
    assert (plan.qubits, plan.rounds, plan.repetitions) == (10 * sent * register, 10 * sent, 10)
    assert math.isnan(plan.error)
    plan = plan_gap_ip(tau, size, estimator="projective", repetitions=50)
    assert (plan.qubits, plan.rounds, plan.depth, plan.steps) == (50 * register, 50, 1, 1)


def test_error_of_the_plan_is_that_of_the_median():
    for repetitions in (1, 3, 9, 21):
        single = 1 - 8 / math.pi**2
        expected = sum(
            math.comb(repetitions, k) * single**k * (1 - single) ** (repetitions - k)
            for k in range(repetitions // 2 + 1, repetitions + 1)
        )
        assert plan_gap_ip(0.1, 100, repetitions=repetitions).error == pytest.approx(expected)
        assert expected <= math.exp(-2 * repetitions * (8 / math.pi**2 - 1 / 2) ** 2)
        assert median_error(single, repetitions) == pytest.approx(expected)


@pytest.mark.parametrize("delta", [0.3, 0.15, 1e-2, 1e-3, 1e-9])
def test_delta_takes_the_fewest_runs(delta):
    single = 1 - 8 / math.pi**2
    fewest = next(r for r in range(1, 999, 2) if stats.binom.sf(r // 2, r, single) <= delta)
    plan = plan_gap_ip(0.1, MILLION, delta=delta)
    assert plan.repetitions == fewest
    assert plan.error <= delta
    assert plan == plan_gap_ip(0.1, MILLION, repetitions=fewest)


def projective_error(tau, copies):
    """More than a quarter of the copies found is agreement: the larger of the two errors."""
    few, many = ((1 - tau) / 2) ** 2, ((1 + tau) / 2) ** 2
    quarter = np.asarray(copies) // 4
    return np.maximum(stats.binom.cdf(quarter, copies, many), stats.binom.sf(quarter, copies, few))


@pytest.mark.parametrize("tau, delta", [(0.1, 0.1), (0.1, 1e-3), (0.3, 0.01), (0.05, 0.09)])
def test_delta_of_single_copies(tau, delta):
    plan = plan_gap_ip(tau, MILLION, delta=delta, estimator="projective")
    assert plan.repetitions % 2 == 1
    assert plan.error == pytest.approx(projective_error(tau, plan.repetitions), rel=1e-9)
    assert plan.error <= delta
    copies = np.arange(1, plan.repetitions + 1, 2)
    fewest = copies[projective_error(tau, copies) <= delta][0]
    # The error of a count of copies is a saw of period four.
    assert plan.repetitions == fewest


def test_qubits_grow_with_the_inverse_of_the_gap():
    gaps = [0.1 / 2**k for k in range(7)]
    plans = [plan_gap_ip(tau, MILLION) for tau in gaps]
    steps = [plan.steps for plan in plans]
    assert all(more == 2 * less for less, more in itertools.pairwise(steps))
    slope = np.polyfit(np.log(gaps), np.log([plan.qubits for plan in plans]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


# --- Exact errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, further(0.02)])
def test_decision_error_is_the_wrong_part_of_the_law(noise, x64):
    for g in (0.25, -0.25, 0.6):
        probs = np.asarray(law(angle(g), gap_steps(0.2), register_qubits(100), noise))
        steps = len(probs)
        wrong = 0.0
        for y, chance in enumerate(probs):
            agrees = np.pi * min(y, steps - y) / steps < np.pi / 3
            wrong += chance if agrees != (g > 0) else 0
        one = decision_error(g, 0.2, 100, hop_noise=noise)
        assert float(one) == pytest.approx(wrong, abs=1e-12)
        five = decision_error(g, 0.2, 100, repetitions=5, hop_noise=noise)
        assert float(five) == pytest.approx(stats.binom.sf(2, 5, wrong), rel=1e-9)


@pytest.mark.matrix
def test_decision_error_beyond_the_gap_is_within_the_plan(x64):
    for tau in (0.3, 0.1, 0.05):
        for g in np.linspace(tau, 1, 25):
            for repetitions in (1, 5):
                most = plan_gap_ip(tau, MILLION, repetitions=repetitions).error
                for sign in (1, -1):
                    assert decision_error(sign * g, tau, MILLION, repetitions=repetitions) <= most


def test_analytic_gradient_in_the_noise(x64):
    for g in (0.15, -0.15):
        for repetitions in (1, 3):
            error = jax.jit(
                lambda noise, g=g, r=repetitions: decision_error(
                    g, 0.15, MILLION, repetitions=r, hop_noise=noise
                )
            )
            for noise in (1e-3, 0.05):
                step = 1e-6
                slope = (error(noise + step) - error(noise - step)) / (2 * step)
                assert float(jax.grad(error)(noise)) == pytest.approx(float(slope), rel=1e-5)
            step = 1e-6
            slope = (4 * error(step) - 3 * error(0.0) - error(2 * step)) / (2 * step)
            assert float(jax.grad(error)(0.0)) == pytest.approx(float(slope), rel=1e-4)


@pytest.mark.matrix
def test_noise_makes_decisions_worse(x64):
    error = jax.jit(lambda noise: decision_error(0.1, 0.1, MILLION, hop_noise=noise))
    errors = np.array([float(error(noise)) for noise in (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 0.1)])
    assert np.all(np.diff(errors) > 0)
    assert float(error(0.0)) == pytest.approx(float(decision_error(0.1, 0.1, MILLION)), abs=1e-11)


# --- Decisions, by sampling -----------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(2, 3))
def measured(keys, theta, plan, qubits, noise=0.0):
    noise = 0.0 if isinstance(noise, float) else noise
    return jax.vmap(lambda key: measure_angle(key, theta, plan, qubits, noise))(keys)


@functools.partial(jax.jit, static_argnames=("tau", "estimator", "repetitions"))
@functools.partial(jax.vmap, in_axes=(0, None, None, None, None, None, None))
def audits(keys, server, client, tau, estimator, repetitions, hop_noise):
    options = {"estimator": estimator, "repetitions": repetitions, "hop_noise": hop_noise}
    return gap_ip(server, client, tau=tau, key=keys, **options)


def keys(seed, runs=RUNS):
    return jax.random.split(jax.random.key(seed), runs)


def assert_frequency(wrong, chance):
    """A share of trials within 5 standard deviations of the chance of each."""
    runs = len(wrong)
    assert abs(np.mean(wrong) - chance) <= SIGMAS * math.sqrt(chance * (1 - chance) / runs)


def two_vectors(inner_product):
    """Gradients of 12 entries and no unit length with a given inner product of directions."""
    rng = np.random.default_rng(1)
    a = unit(rng, 12)
    other = rng.normal(size=12)
    other = other - (other @ a) * a
    other /= np.linalg.norm(other)
    b = inner_product * a + math.sqrt(1 - inner_product**2) * other
    return jnp.asarray(3 * a, jnp.float32), jnp.asarray(0.2 * b, jnp.float32)


@pytest.mark.parametrize("tau", [0.1, further(0.05), further(0.02)])
@pytest.mark.parametrize("repetitions", [1, 5])
def test_decisions_err_as_often_as_they_should(tau, repetitions):
    """20,000 runs at each sign; also within the plan."""
    plan = plan_gap_ip(tau, MILLION, repetitions=repetitions)
    for seed, g in enumerate((tau, -tau)):
        found = np.asarray(measured(keys(seed), angle(g), plan, register_qubits(MILLION)))
        wrong = (found < np.pi / 3) != (g > 0)
        with jax.enable_x64(True):
            chance = float(decision_error(g, tau, MILLION, repetitions=repetitions))
        assert_frequency(wrong, chance)
        assert np.mean(wrong) <= plan.error


@pytest.mark.statistics
@pytest.mark.parametrize("noise", [None, further(2e-3)])
def test_decisions_of_two_vectors_err_as_often_as_they_should(noise):
    """20,000 runs at each sign, of vectors and not of an angle, with and without noise."""
    tau = 0.1
    for seed, g in enumerate((tau, -tau)):
        server, client = two_vectors(g)
        hop_noise = jnp.float32(0 if noise is None else noise)
        done = audits(keys(10 + seed), server, client, tau, "qpe", 1, hop_noise)
        with jax.enable_x64(True):
            chance = float(decision_error(g, tau, 12, hop_noise=0.0 if noise is None else noise))
        assert_frequency(np.asarray(done.agrees) != (g > 0), chance)


@pytest.mark.statistics
def test_estimates_follow_the_law():
    """20,000 runs; chi-square of the outcomes, at 1e-7."""
    plan = plan_gap_ip(0.3, MILLION)
    steps = plan.steps
    found = np.asarray(measured(keys(3), angle(0.4), plan, 20))
    read = np.rint(found * steps / np.pi).astype(int)
    counts = np.bincount(read, minlength=steps // 2 + 1)
    with jax.enable_x64(True):
        probs = np.asarray(phase_estimation_law(angle(0.4), steps, 20, 0.0))
    folded = np.append(probs[0], probs[1 : steps // 2] + probs[: steps // 2 : -1])
    folded = np.append(folded, probs[steps // 2])
    expected = RUNS * folded
    often = expected >= 10
    counts = np.append(counts[often], counts[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    statistic = np.sum((counts - expected) ** 2 / np.maximum(expected, 1))
    assert statistic < stats.chi2.isf(1e-7, len(counts) - 1)


@pytest.mark.statistics
@pytest.mark.parametrize("copies", [200, further(201), further(1000)])
def test_single_copies_err_as_often_as_they_should(copies):
    """20,000 runs at each sign, against the binomial law of the copies that are found."""
    tau = 0.1
    for seed, g in enumerate((tau, -tau)):
        server, client = two_vectors(g)
        done = audits(keys(20 + seed), server, client, tau, "projective", copies, 0.0)
        found = ((1 + g) / 2) ** 2
        quarter = copies // 4
        right = stats.binom.sf(quarter, copies, found)
        assert_frequency(np.asarray(done.agrees) != (g > 0), 1 - right if g > 0 else right)
    # and the plan knows the larger of the two
    plan = plan_gap_ip(tau, 12, estimator="projective", repetitions=copies)
    assert plan.error == pytest.approx(projective_error(tau, copies), rel=1e-9)


@pytest.mark.statistics
def test_single_copies_without_bias_under_noise():
    """20,000 runs of 400 copies; the mean of the share that is found, at 5 sigma."""
    server, client = two_vectors(0.3)
    done = audits(keys(25), server, client, 0.1, "projective", 400, jnp.float32(0.2))
    share = ((1 + np.asarray(done.inner_product, float)) / 2) ** 2
    mean, noisy = 0.65**2, 0.8 * 0.65**2 + 0.2 / 2 ** register_qubits(12)
    spread = math.sqrt(noisy * (1 - noisy) / 400) / 0.8
    assert np.mean(share) == pytest.approx(mean, abs=SIGMAS * spread / math.sqrt(RUNS) + 2e-6)


@pytest.mark.statistics
@pytest.mark.parametrize("noise", [0.0, 5e-4])
def test_maximum_likelihood_decides_right(noise):
    """300 runs of 40 shots at three times the gap: a wrong one is over 20 deviations away."""
    for seed, g in enumerate((0.3, -0.3)):
        server, client = two_vectors(g)
        done = audits(keys(30 + seed, 300), server, client, 0.1, "mlae", 40, jnp.float32(noise))
        assert np.all(np.asarray(done.agrees) == (g > 0))


@pytest.mark.statistics
@pytest.mark.parametrize("quarters", [further(4 / 3), further(6 / 5), further(7 / 5)])
def test_maximum_likelihood_is_as_sharp_as_fisher_information_allows(quarters):
    """500 runs of 400 shots; the mean square has a relative spread of 6 %, a factor of 2 is far.

    At these angles 2 k theta is never near a multiple of pi / 2, where an angle and its mirror
    image are told apart by fewer turns only: that fails 6 standard deviations away.
    """
    theta = quarters * np.pi / 4
    plan = plan_gap_ip(0.1, MILLION, estimator="mlae", repetitions=400)
    found = np.asarray(measured(keys(40, 500), jnp.asarray(theta), plan, 20))
    turns = 2.0 ** np.arange(int(math.log2(plan.steps)))
    information = 400 * (4 + np.sum(16 * turns**2))
    ratio = np.mean((found - theta) ** 2) * information
    assert 1 / 2 < ratio < 2


@pytest.mark.statistics
@pytest.mark.parametrize("estimator", ["qpe", "mlae", "projective"])
def test_all_estimators_know_equal_and_opposite_gradients(estimator):
    """300 runs; 1 of 99 copies found too few has no chance, nor has phase estimation of angle 0."""
    server, _ = two_vectors(0.1)
    for client, agrees in ((server, True), (-server, False)):
        done = audits(keys(50, 300), server, client, 0.2, estimator, 99, jnp.float32(0))
        assert np.all(np.asarray(done.agrees) == agrees)
        assert np.allclose(done.inner_product, 1.0 if agrees else -1.0, atol=0.01)


# --- Identities and invariances -------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("estimator, repetitions", [("qpe", 3), ("mlae", 20), ("projective", 99)])
def test_plan_is_what_the_run_reports(estimator, repetitions):
    server, client = two_vectors(0.2)
    done = gap_ip(server, client, tau=0.2, key=KEY, estimator=estimator, repetitions=repetitions)
    plan = plan_gap_ip(0.2, 12, estimator=estimator, repetitions=repetitions)
    assert dataclass_equal(done.plan, plan)


def dataclass_equal(one, other):
    return np.array_equal(
        [x for x in vars(one).values() if not isinstance(x, str)],
        [x for x in vars(other).values() if not isinstance(x, str)],
        equal_nan=True,
    ) and (one.estimator == other.estimator)


def outcomes(done):
    return bool(done.agrees), float(done.inner_product)


def test_trees_of_other_structure_are_the_same_gradient():
    server, client = two_vectors(0.25)
    plain = gap_ip(server, client, tau=0.1, key=KEY)
    tree = {"b": client[4:].reshape(2, 4), "a": [client[:1], {"c": client[1:4]}]}
    assert outcomes(gap_ip(server, tree, tau=0.1, key=KEY)) == outcomes(plain)
    half = (server[:6].reshape(3, 2), server[6:])
    assert outcomes(gap_ip(half, tree, tau=0.1, key=KEY)) == outcomes(plain)
    assert outcomes(gap_ip(np.asarray(server), tree, tau=0.1, key=KEY)) == outcomes(plain)
    assert plain.plan.qubits == plan_gap_ip(0.1, 12).qubits


@pytest.mark.matrix
@pytest.mark.parametrize("estimator, repetitions", [("qpe", 1), ("mlae", 20), ("projective", 99)])
def test_lengths_of_gradients_do_not_matter(estimator, repetitions):
    server, client = two_vectors(0.25)
    options = {"tau": 0.1, "estimator": estimator, "repetitions": repetitions}
    for seed in range(5):
        key = jax.random.key(seed)
        plain = gap_ip(server, client, key=key, **options)
        scaled = gap_ip(server * 2.0**20, client * 2.0**-30, key=key, **options)
        assert outcomes(plain) == outcomes(scaled)


@pytest.mark.matrix
@pytest.mark.parametrize("estimator, repetitions", [("qpe", 1), ("mlae", 20), ("projective", 99)])
def test_same_key_same_bits(estimator, repetitions):
    server, client = two_vectors(0.25)
    run = functools.partial(gap_ip, tau=0.1, estimator=estimator, repetitions=repetitions)
    compiled = jax.jit(lambda key: run(server, client, key=key))
    seen = set()
    for seed in range(5):
        key = jax.random.key(seed)
        eager, jitted = run(server, client, key=key), compiled(key)
        assert outcomes(eager) == outcomes(run(server, client, key=key))
        assert bool(eager.agrees) == bool(jitted.agrees)
        assert float(eager.inner_product) == pytest.approx(float(jitted.inner_product), abs=1e-6)
        assert eager.plan.qubits == jitted.plan.qubits
        seen.add(outcomes(eager))
    assert len(seen) > 1


@pytest.mark.matrix
def test_over_pairs_is_one_after_the_other():
    pairs = [two_vectors(g) for g in (-0.6, -0.2, 0.2, 0.6)]
    server, client = (jnp.stack(each) for each in zip(*pairs, strict=True))
    many = jax.random.split(KEY, 4)
    done = jax.vmap(lambda s, c, k: gap_ip(s, c, tau=0.1, key=k))(server, client, many)
    assert done.agrees.shape == done.inner_product.shape == (4,)
    for n, (s, c) in enumerate(pairs):
        one = gap_ip(s, c, tau=0.1, key=many[n])
        assert bool(one.agrees) == bool(done.agrees[n])
        assert float(one.inner_product) == pytest.approx(float(done.inner_product[n]), abs=1e-6)


@pytest.mark.matrix
def test_whole_numbers_and_half_precision_are_gradients():
    done = gap_ip(np.array([1, 2, 2]), [2.0, 1, 1], tau=0.1, key=KEY)
    same = gap_ip(jnp.array([1.0, 2, 2]), jnp.array([2.0, 1, 1], jnp.bfloat16), tau=0.1, key=KEY)
    assert outcomes(done) == outcomes(same)
    assert done.inner_product.dtype == jnp.float32


@pytest.mark.statistics
def test_a_thousand_audits_of_a_million_entries():
    """1,000 runs of one compiled function; the share of wrong ones at 5 sigma."""
    first, second = (jax.random.normal(jax.random.key(k), (MILLION,)) for k in (1, 2))
    server, client = first, first * 0.2 + second
    with jax.enable_x64(True):
        a, b = np.asarray(server, float), np.asarray(client, float)
        g = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        chance = float(decision_error(g, 0.1, MILLION))
    done = audits(keys(60, 1000), server, client, 0.1, "qpe", 1, jnp.float32(0))
    assert done.plan.qubits == 2646
    assert_frequency(~np.asarray(done.agrees), chance)


# --- Refusals -------------------------------------------------------------------------------------

ONES = np.ones(3, np.float32)


def audit(server=ONES, client=ONES, *, tau=0.1, key=KEY, **options):
    return gap_ip(server, client, tau=tau, key=key, **options)


def plan(tau=0.1, size=100, **options):
    return plan_gap_ip(tau, size, **options)


# name: (call, exception, words of the message)
REFUSALS = {
    "zero server": (lambda: audit(0 * ONES), ValueError, ["`server`", "not be zero"]),
    "zero client": (
        lambda: audit(client={"a": np.zeros(2), "b": np.zeros(1)}),
        ValueError,
        ["`client`", "not be zero"],
    ),
    "no leaves": (lambda: audit({}), ValueError, ["`server`", "at least one entry"]),
    "no gap": (lambda: audit(tau=0), ValueError, ["`tau`", "lie in (0, 1)", "0"]),
    "whole gap": (lambda: audit(tau=1), ValueError, ["`tau`", "lie in (0, 1)", "1"]),
    "negative gap": (lambda: plan(-0.1), ValueError, ["`tau`", "lie in [0, 1]", "-0.1"]),
    "gap above one": (lambda: plan(1.5), ValueError, ["`tau`", "lie in [0, 1]", "1.5"]),
    "gap that is no number": (lambda: plan(float("nan")), ValueError, ["`tau`", "nan"]),
    "gap that is text": (lambda: plan("0.1"), TypeError, ["`tau`", "real number"]),
    "gap of steps": (lambda: gap_steps(0.0), ValueError, ["`tau`", "lie in (0, 1)"]),
    "gap of errors": (lambda: decision_error(0.1, 1.0, 5), ValueError, ["`tau`", "(0, 1)"]),
    "other size": (lambda: audit(client=np.ones(4)), ValueError, ["`client`", "3 entries", "4"]),
    "complex": (lambda: audit(ONES * 1j), TypeError, ["`server`", "real number"]),
    "text": (lambda: audit(client="abc"), TypeError, ["`client`", "real number"]),
    "even runs": (lambda: audit(repetitions=2), ValueError, ["`repetitions`", "be odd", "2"]),
    "no runs": (lambda: plan(repetitions=0), ValueError, ["`repetitions`", "positive integer"]),
    "half a run": (lambda: plan(repetitions=1.5), ValueError, ["`repetitions`", "1.5"]),
    "runs that are true": (lambda: plan(repetitions=True), ValueError, ["`repetitions`"]),
    "delta for maximum likelihood": (
        lambda: plan(delta=0.1, estimator="mlae"),
        ValueError,
        ["`delta`", "left out", "mlae", "0.1"],
    ),
    "delta and runs": (
        lambda: plan(delta=0.1, repetitions=3),
        ValueError,
        ["`repetitions`", "left out", "`delta`", "3"],
    ),
    "delta of zero": (lambda: plan(delta=0.0), ValueError, ["`delta`", "lie in (0, 1)"]),
    "delta of one": (lambda: plan(delta=1), ValueError, ["`delta`", "lie in (0, 1)"]),
    "delta above one": (lambda: plan(delta=2.0), ValueError, ["`delta`", "lie in [0, 1]", "2"]),
    "estimator": (
        lambda: audit(estimator="swap"),
        ValueError,
        ["`estimator`", "be one of", "'qpe'", "'swap'"],
    ),
    "size of zero": (lambda: plan(size=0), ValueError, ["`size`", "positive integer", "0"]),
    "size of a float": (lambda: plan(size=1e6), ValueError, ["`size`", "positive integer"]),
    "raw key": (
        lambda: audit(key=np.zeros(2, np.uint32)),
        TypeError,
        ["`key`", "typed key", "uint32[2]"],
    ),
    "batch of keys": (lambda: audit(key=jax.random.split(KEY)), ValueError, ["`key`", "(2,)"]),
    "noise above one": (lambda: audit(hop_noise=1.5), ValueError, ["`hop_noise`", "[0, 1]", "1.5"]),
    "negative noise": (lambda: audit(hop_noise=-0.1), ValueError, ["`hop_noise`", "-0.1"]),
    "inner product": (
        lambda: decision_error(1.1, 0.1, 5),
        ValueError,
        ["`inner_product`", "lie in [-1, 1]", "1.1"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name):
    call, error, words = REFUSALS[name]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "must" in message
    assert message.endswith(".")
    assert "\n" not in message
    for word in words:
        assert word in message
