"""Costs and exact errors of GapIP, counted again, and the calls that it refuses."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest
from audit_cases import projective_error
from refused import check_refusal
from scipy import stats

from jaxqring.audit._amplitude import (
    angle,
    phase_estimation_probabilities,
)
from jaxqring.audit._gap_ip import (
    decision_error,
    gap_ip,
    gap_outcomes,
    median_error,
    plan_gap_ip,
    register_qubits,
)

MILLION = 10**6
KEY = jax.random.key(0)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
law = jax.jit(phase_estimation_probabilities, static_argnums=(1, 2))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


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


def test_the_resolution_is_less_than_the_margin(x64):
    margin = min(np.pi / 3 - float(angle(0.1)), float(angle(-0.1)) - np.pi / 3)
    assert margin == pytest.approx(0.0568334, abs=5e-8)
    for tau in np.geomspace(1e-4, 0.999, 200):
        margin = min(math.pi / 3 - math.acos((1 + tau) / 2), math.acos((1 - tau) / 2) - math.pi / 3)
        steps = gap_outcomes(tau)
        assert math.pi / steps <= margin < 2 * math.pi / steps
        assert steps & (steps - 1) == 0


@pytest.mark.parametrize("tau", [0.3, 0.05])
@pytest.mark.parametrize("size", [1, 7, 8, MILLION])
def test_qubits_and_rounds_counted_again(tau, size):
    register = math.ceil(math.log2(size + 1))
    assert register_qubits(size) == register
    steps = gap_outcomes(tau)
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
        probs = np.asarray(law(angle(g), gap_outcomes(0.2), register_qubits(100), noise))
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
    "negative gap": (lambda: plan(-0.1), ValueError, ["`tau`", "lie in (0, 1)", "-0.1"]),
    "gap above one": (lambda: plan(1.5), ValueError, ["`tau`", "lie in (0, 1)", "1.5"]),
    "gap that is no number": (lambda: plan(float("nan")), ValueError, ["`tau`", "nan"]),
    "gap that is text": (lambda: plan("0.1"), TypeError, ["`tau`", "real number"]),
    "gap of outcomes": (lambda: gap_outcomes(0.0), ValueError, ["`tau`", "lie in (0, 1)"]),
    "gap of errors": (lambda: decision_error(0.1, 1.0, 5), ValueError, ["`tau`", "(0, 1)"]),
    "other size": (lambda: audit(client=np.ones(4)), ValueError, ["`client`", "3 entries", "4"]),
    "complex": (lambda: audit(ONES * 1j), TypeError, ["`server`", "real number"]),
    "text": (lambda: audit(client="abc"), TypeError, ["`client`", "real number"]),
    "even runs": (lambda: audit(repetitions=2), ValueError, ["`repetitions`", "be odd", "2"]),
    "no runs": (
        lambda: plan(repetitions=0),
        ValueError,
        ["`repetitions`", "at least 1"],
    ),
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
    "delta above one": (lambda: plan(delta=2.0), ValueError, ["`delta`", "lie in (0, 1)", "2"]),
    "estimator": (
        lambda: audit(estimator="swap"),
        ValueError,
        ["`estimator`", "be one of", "'qpe'", "'swap'"],
    ),
    "size of zero": (lambda: plan(size=0), ValueError, ["`size`", "at least 1", "0"]),
    "size of a float": (lambda: plan(size=1e6), ValueError, ["`size`", "at least 1"]),
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
    check_refusal(*REFUSALS[name])
