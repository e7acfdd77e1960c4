"""The spectral radius of a round: published values, simulated rounds, and enumerated pairings."""

import itertools

import jax
import numpy as np
import pytest
from outer_cases import diloco_round
from refused import check_refusal

from jaxqring.outer import largest_consensus, largest_share, pair_radius, radius
from jaxqring.outer._stability import round_matrix, traced_radius


def growth(step, size, rounds=4000, skipped=2000):
    """The factor by which a linear map grows a vector in a round, in the long run."""
    vector, log = np.random.default_rng(0).normal(size=size), 0.0
    for at in range(rounds):
        vector = step(vector)
        norm = np.linalg.norm(vector)
        vector = vector / norm
        log += np.log(norm) if at >= skipped else 0
    return np.exp(log / (rounds - skipped))


@pytest.mark.parametrize(
    "kind, nodes, wanted",
    [("sync", None, 0.6998), ("delayed", None, 1.1182), ("eager", 8, 1.0688)],
)
def test_the_radius_has_the_published_values_and_is_the_growth_of_errors(kind, nodes, wanted):
    found = radius(kind, 0.6513, 0.7, 0.9, nodes)
    assert abs(found - wanted) < 5e-5
    step = diloco_round(kind, 0.6513, 0.7, 0.9, nodes)
    np.testing.assert_allclose(growth(step, 3), found, rtol=1e-3)


@pytest.mark.parametrize(
    "rates, kind, nodes, wanted",
    [
        ((0.7, 0.9), "sync", None, 1.938775510),  # (2 + 2 mu) / (eta (1 + 2 mu)) at eta 0.7
        ((0.7, 0.9), "delayed", None, 0.361625509),
        ((0.7, 0.9), "eager", 8, 0.457503409),
        ((0.4, 0.9), "delayed", None, 0.632844641),
        ((0.4, 0.9), "eager", 8, 0.800630966),
        ((0.7, 0.5), "sync", None, 2.142857143),
        ((0.7, 0.5), "delayed", None, 0.802218304),
        ((0.7, 0.5), "eager", 8, 0.926365862),
        ((1.0, 0.0), "sync", None, 2.0),
        ((1.0, 0.0), "delayed", None, 1.0),  # z^2 = z - r
        ((0.4, 0.5), "delayed", None, 1.403882032),
        ((0.3, 0.3), "delayed", None, 2.394048073),  # the defaults of delayed steps
        ((0.4, 0.5), "eager", 8, 1.621140259),  # and of eager ones
        ((1.0, 0.5), "co2", None, 1.5),
        ((1.0, 0.0), "co2", None, 2.0),  # x after two rounds is 1 - r times x
        ((1e-6, 0.5), "eager", 8, 648456.1034849734),  # as 0.648 of a rate of one
        ((1e-13, 0.9), "delayed", None, 0.361625509 * 0.7e13),
    ],
)
def test_the_largest_share_is_where_eigenvalues_reach_the_unit_circle(rates, kind, nodes, wanted):
    found = largest_share(kind, *rates, nodes)
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    size = 3
    for share, sign in ((0.98 * found, -1), (1.02 * found, 1)):
        step = diloco_round(kind, share, *rates, nodes)
        matrix = np.stack([step(unit) for unit in np.eye(size)], axis=1)
        assert sign * (np.abs(np.linalg.eigvals(matrix)).max() - 1) > 1e-5
    # Nothing unstable below.
    for share in np.linspace(0.01, 0.99, 50) * found:
        assert radius(kind, share, *rates, nodes) < 1


def test_the_radius_of_a_traced_share_is_that_of_a_known_one():
    run = jax.jit(
        jax.vmap(lambda share: traced_radius(round_matrix("delayed", share, 0.7, 0.9, None)))
    )
    shares = np.array([0.01, 0.36, 0.6513, 1.0, 2.0], np.float32)
    wanted = [radius("delayed", share, 0.7, 0.9) for share in shares]
    np.testing.assert_allclose(run(shares), wanted, rtol=1e-5)


def matchings(nodes):
    """All partners of `nodes` nodes in pairs."""
    for order in itertools.permutations(range(nodes)):
        partners = np.empty(nodes, int)
        half = nodes // 2
        for k in range(half):
            partners[order[k]], partners[order[k + half]] = order[k + half], order[k]
        yield partners


@pytest.mark.parametrize("alpha, gamma", [(0.5, 0.7), (0.5, 1.6), (0.3, 1.8), (0.7, 1.1)])
def test_the_radius_of_random_pairs_is_that_of_all_pairings(alpha, gamma):
    # The mean over all pairings of the map of (x x^T, x d^T, d d^T), whole: 64 numbers for 4 nodes.
    nodes, total, count = 4, 0, 0
    centred = np.eye(nodes) - 1 / nodes
    for partners in matchings(nodes):
        away = (np.eye(nodes) - np.eye(nodes)[partners]) / 2
        matrix = np.block(
            [
                [np.eye(nodes) - gamma * away, alpha * np.eye(nodes)],
                [-gamma * away, alpha * np.eye(nodes)],
            ]
        ) @ np.kron(np.eye(2), centred)
        total, count = total + np.kron(matrix, matrix), count + 1
    wanted = np.abs(np.linalg.eigvals(total / count)).max()
    np.testing.assert_allclose(pair_radius(alpha, gamma, nodes), wanted, atol=1e-9)


def test_random_pairs_have_the_published_radii():
    for gamma, wanted in ((0.7, 0.700100580), (1.5, 1.0), (1.6, 1.051922674)):
        np.testing.assert_allclose(pair_radius(0.5, gamma), wanted, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("nodes", [None, 2, 4, 8])
def test_the_largest_consensus_is_where_the_radius_is_one(alpha, nodes):
    # At alpha = 0.5 and many nodes this is 1.5, as is sqrt(2 + alpha^2); elsewhere it is not.
    most = largest_consensus(alpha, nodes)
    np.testing.assert_allclose(pair_radius(alpha, most, nodes), 1, atol=1e-6)
    assert pair_radius(alpha, 0.99 * most, nodes) < 1 < pair_radius(alpha, 1.01 * most, nodes)
    if nodes == 2:  # always the same partner: x'' - (1 + alpha - gamma) x' + alpha x
        np.testing.assert_allclose(most, 2 * (1 + alpha))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: radius("late", 0.5, 0.7, 0.9), ValueError, ["`kind`", "'late'"]),
        (lambda: radius("sync", -0.5, 0.7, 0.9), ValueError, ["`share`", "-0.5"]),
        (lambda: radius("sync", 0.5, 0.0, 0.9), ValueError, ["`learning_rate`", "0.0"]),
        (lambda: largest_share("sync", 0.7, 1.0), ValueError, ["`momentum`", "1.0"]),
        (lambda: largest_share("eager", 0.7, 0.9, 0), ValueError, ["`nodes`", "0"]),
        (lambda: pair_radius(0.5, -1.0), ValueError, ["`consensus`", "-1.0"]),
        (lambda: pair_radius(1.5, 1.0), ValueError, ["`momentum`", "1.5"]),
        (lambda: largest_consensus(0.5, 3), ValueError, ["`nodes`", "even", "3"]),
    ],
)
def test_numbers_out_of_range_are_refused(call, error, words):
    check_refusal(call, error, words)
