"""Decisions of GapIP against their exact laws, and the identities that they obey.

Statistical tests have fixed keys and state their sample size. Each comparison of counts is at 5
standard deviations or at an exact tail, and fails by chance with probability 6e-7 at most.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audit_cases import projective_error, unit
from scipy import stats

from jaxqring.audit._amplitude import (
    angle,
    phase_estimation_probabilities,
)
from jaxqring.audit._gap_ip import (
    decision_error,
    gap_ip,
    measure_angle,
    plan_gap_ip,
    register_qubits,
)

MILLION = 10**6
RUNS = 20_000
SIGMAS = 5
KEY = jax.random.key(0)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
law = jax.jit(phase_estimation_probabilities, static_argnums=(1, 2))


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
        probs = np.asarray(phase_estimation_probabilities(angle(0.4), steps, 20, 0.0))
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
