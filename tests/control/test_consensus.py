"""Iterations towards the maximum, and the drift of the plain one under noise."""

import jax
import numpy as np
import pytest
from refused import check_refusal

from jaxqring.control import admm_maximum, max_consensus

VALUES = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]


def test_plain_consensus_spreads_the_maximum_by_one_node_an_iteration():
    found = [np.asarray(max_consensus(VALUES, count)) for count in (1, 3, 4)]
    assert found[0].tolist() == [6, 4, 4, 5, 9, 9, 9, 6]
    assert found[1].tolist() == [9, 6, 9, 9, 9, 9, 9, 9]
    assert found[2].tolist() == [9] * 8


def test_the_programme_converges_as_in_double_precision():
    start = np.array(VALUES)
    x, u, rho = start.copy(), np.zeros(8), 0.5
    want = {}
    for count in range(1, 401):
        around = np.roll(x, 1) + np.roll(x, -1)
        x = np.maximum(start, (rho * (2 * x + around) - u - 1) / (4 * rho))
        u = u + rho * (2 * x - np.roll(x, 1) - np.roll(x, -1))
        want[count] = np.abs(x - 9).max()
    known = {20: 3.001697540, 100: 0.629309486, 400: 0.001672335}
    with jax.enable_x64(True):
        for count, distance in known.items():
            found = float(abs(admm_maximum(start, count) - 9).max())
            assert found == pytest.approx(want[count], abs=1e-9)
            assert found == pytest.approx(distance, abs=1e-8)


def test_noise_is_drawn_from_the_key():
    key = jax.random.key(0)
    for iterate in (max_consensus, admm_maximum):
        runs = [iterate(VALUES, 3, noise=0.1, key=jax.random.fold_in(key, at)) for at in (0, 0, 1)]
        np.testing.assert_array_equal(runs[0], runs[1])
        assert (np.asarray(runs[0]) != np.asarray(runs[2])).any()


@pytest.mark.statistics
def test_plain_consensus_drifts_for_ever():
    """4,000 rings each: means beyond 5.5 standard deviations with a chance of 4e-8."""
    key, rings = jax.random.key(1), 4000
    start = np.tile(np.float32(VALUES), (rings, 1))
    found = np.asarray(max_consensus(start, 200, noise=0.1, key=key)).mean(axis=1) - 9
    rng, x = np.random.default_rng(2), start.astype(np.float64)
    for _ in range(200):
        heard = [np.roll(x, by, axis=1) + rng.normal(0, 0.1, x.shape) for by in (1, -1)]
        x = np.maximum(x, np.maximum(*heard))
    other = x.mean(axis=1) - 9
    spread = np.sqrt(found.var() / rings + other.var() / rings)
    assert abs(found.mean() - other.mean()) < 5.5 * spread
    assert found.mean() == pytest.approx(20.12, abs=0.15)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: max_consensus([1.0], 3), ValueError, ["`values`", "two or more nodes"]),
        (lambda: max_consensus("12", 3), TypeError, ["`values`"]),
        (lambda: max_consensus(VALUES, 0), ValueError, ["`iterations`", "0"]),
        (lambda: max_consensus(VALUES, 3, noise=-1.0), ValueError, ["`noise`", "-1.0"]),
        (lambda: max_consensus(VALUES, 3, noise=0.1), TypeError, ["`key`", "typed key"]),
        (lambda: admm_maximum(VALUES, 3, penalty=0.0), ValueError, ["`penalty`", "0"]),
    ],
)
def test_numbers_out_of_range_are_refused(call, error, words):
    check_refusal(call, error, words)
