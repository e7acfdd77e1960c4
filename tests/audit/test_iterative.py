"""Iterative amplitude estimation decides within its risk, and stops when it knows enough."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring.audit._amplitude import angle
from jaxqring.audit._gap_ip import THRESHOLD, gap_angle, gap_ip, plan_gap_ip, register_qubits
from jaxqring.audit._iterative import iterate, narrowings

SIZE = 10**6


@functools.partial(jax.jit, static_argnums=(2,))
def runs(keys, inner, tau, hop_noise):
    plan = plan_gap_ip(tau, SIZE, estimator="iqae", repetitions=20)

    def one(key):
        return iterate(
            key,
            angle(inner),
            threshold=THRESHOLD,
            gap=gap_angle(tau),
            shots=20,
            risk=plan.error,
            qubits=register_qubits(SIZE),
            hop_noise=hop_noise,
        )

    return jax.vmap(one)(keys)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.statistics
@pytest.mark.parametrize("tau", [0.1, pytest.param(0.02, marks=pytest.mark.matrix)])
@pytest.mark.parametrize("sign", [1, -1])
def test_it_errs_no_more_often_than_it_may(tau, sign):
    """20,000 runs at the edge of the gap; the bound is not tight: about 0.1 % err, of 19 %."""
    found = runs(keys(20_000), sign * tau, tau, 0.0)
    plan = plan_gap_ip(tau, SIZE, estimator="iqae", repetitions=20)
    wrong = float(jnp.mean((found.theta < THRESHOLD) != (sign > 0)))
    assert wrong < plan.error
    assert int(found.hops.max()) <= plan.rounds
    # Whoever draws lots errs half the time.
    assert wrong < 0.05


def test_it_stops_early_where_the_answer_is_plain():
    """2,000 runs each: far from the threshold a tenth of the hops is enough."""
    near, far = (float(runs(keys(2000), g, 0.02, 0.0).hops.mean()) for g in (0.02, 0.5))
    assert far < near / 10


@pytest.mark.statistics
def test_the_hops_grow_as_the_inverse_of_the_gap():
    gaps = np.array([0.2, 0.1, 0.05, 0.02])
    hops = [float(runs(keys(1000), float(gap), float(gap), 0.0).hops.mean()) for gap in gaps]
    slope = np.polyfit(np.log(gaps), np.log(hops), 1)[0]
    assert -1.25 < slope < -0.85


@pytest.mark.statistics
def test_known_noise_is_taken_into_account():
    """4,000 runs with a percent of noise a hop: still right, at the price of more hops."""
    clean, noisy = (runs(keys(4000), -0.1, 0.1, noise) for noise in (0.0, 0.01))
    assert float(jnp.mean(noisy.theta < THRESHOLD)) < 0.05
    assert float(noisy.hops.mean()) > float(clean.hops.mean())


def test_the_audit_reports_what_it_used():
    a, b = jnp.array([1.0, 0.1, 0.0]), jnp.array([0.1, 1.0, 0.0])
    found = jax.jit(lambda key: gap_ip(a, b, tau=0.1, key=key, estimator="iqae", repetitions=20))(
        jax.random.key(0)
    )
    assert bool(found.agrees)
    assert float(found.qubits) == 2 * float(found.rounds)  # a register of two qubits
    assert 0 < float(found.qubits) <= found.plan.qubits


def test_the_depth_doubles_until_the_gap_is_resolved():
    assert [narrowings(gap) for gap in (3.0, 1.0, 0.1, 0.01)] == [1, 2, 5, 9]


def test_shots_at_one_depth_add_up_until_twice_the_depth_has_one_branch():
    """Exact: at angle zero every shot is a hit, so that the rounds are known beforehand.

    After m hits of m shots, psi is between 0 and arccos(1 - 2 sqrt(L / m)) / K.
    """
    gap, shots, risk = 0.01, 4, 0.01
    log_term = np.log(2 * narrowings(2 * gap) * 4 / risk) / 2
    depth, count, high, hops, rounds, depths = 1, 0, np.pi, 0, 0, [1]
    while high > 2 * gap:
        if np.pi // high >= 2 * depth:
            depth, count = int(np.pi // high), 0
            depths.append(depth)
        count, hops, rounds = count + shots, hops + depth * shots, rounds + 1
        width = min(np.sqrt(log_term / count), 1)
        high = min(high, np.arccos(1 - 2 * width) / depth)
    # Half of the branch is excluded by 4 L shots, and no sooner.
    assert min(np.diff(np.log2(depths))) >= 1
    assert len(depths) <= narrowings(2 * gap)
    assert depths[1] == 2
    assert rounds > len(depths) * 4 * log_term / shots
    found = jax.jit(
        lambda key: iterate(
            key,
            jnp.zeros(()),
            threshold=0.001,
            gap=gap,
            shots=shots,
            risk=risk,
            qubits=10,
            hop_noise=0.0,
        )
    )(jax.random.key(0))
    assert (int(found.rounds), int(found.hops)) == (rounds, hops)
    np.testing.assert_allclose(found.theta, high / 4, rtol=1e-4)
