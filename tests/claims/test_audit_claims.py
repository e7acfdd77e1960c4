"""Claims about the conflict audits: their verdicts follow the numbers, their witnesses agree."""

import copy
import math

import numpy as np
import pytest
from scipy import stats

from jaxqring.claims import (
    _gap_claims,
    _gap_witnesses,
    _reuse_claims,
    _reuse_witnesses,
    _tie_claims,
    _tie_witnesses,
)

(GAP,) = _gap_claims.CLAIMS
(TIE,) = _tie_claims.CLAIMS
(REUSE,) = _reuse_claims.CLAIMS


def gap_results():
    """Costs of exactly the stated powers."""
    gaps = [0.1, 0.05, 0.025]
    qubits, bits = [1 / gap for gap in gaps], [gap**-2 for gap in gaps]
    sizes = [2**10, 2**20]
    by_size = [10, 20]
    return {
        "costs": {
            "gaps": gaps,
            "qubits": qubits,
            "qubits_counted": qubits,
            "bits": bits,
            "bits_counted": bits,
            "sizes": sizes,
            "by_size": by_size,
            "by_size_counted": by_size,
            "between": 0.02,
            "between_scanned": 0.02,
            "least": 1e-5,
            "least_solved": 1e-5,
        },
        "noise": {"most": 1e-3, "most_solved": 1e-3},
        "decisions": {
            "exact": 0.1,
            "dense": 0.1,
            "sampled": 0.1,
            "dense_of_sampled": 0.1,
            "draws": 100,
        },
    }


def test_the_verdict_on_gap_ip_follows_the_exponents_and_the_crossover():
    found = gap_results()
    assert GAP.conclude(found).verdict == "holds if"
    assert not GAP.conclude(found).disputed
    found["costs"]["between"] = 0.5
    assert GAP.conclude(found).verdict == "holds"
    found["costs"]["bits"] = found["costs"]["qubits"]
    assert GAP.conclude(found).verdict == "fails"
    assert {number.name for number in GAP.conclude(found).disputed} >= {
        "exponent of the bits of SimHash over the gap"
    }


def tie_results():
    errors, sizes = [0.2, 0.1, 0.05], [2**power for power in range(10, 20)]
    copies = [round(1 / error**2) for error in errors]
    qubits = [100 * (size - 1).bit_length() for size in sizes]
    bits = [10 * math.sqrt(size) for size in sizes]
    return {
        "costs": {
            "errors": errors,
            "copies": copies,
            "copies_scanned": copies,
            "copies_exact": copies,
            "sizes": sizes,
            "curves": {"0.1": {"qubits": qubits, "bits": bits}},
            "qubits_counted": qubits,
            "bits_counted": bits,
            "crossover": 20_000,
            "crossover_scanned": 20_000,
        },
        "audits": {
            "draws": 100,
            "missed": 0.01,
            "missed_exact": 0.01,
            "subset_missed": 0.01,
            "subset_exact": 0.01,
            "minus": 0.25,
            "minus_dense": 0.25,
        },
    }


@pytest.mark.parametrize(
    "part, name, value, verdict",
    [
        ("costs", "crossover", 20_000, "holds if"),
        ("costs", "crossover", 2, "holds"),
        ("costs", "copies", [25, 50, 100], "fails"),
        ("audits", "missed", 0.06, "fails"),
    ],
)
def test_the_verdict_on_tie_audit_follows_exponents_misses_and_the_crossover(
    part, name, value, verdict
):
    found = tie_results()
    found[part][name] = value
    assert TIE.conclude(found).verdict == verdict


def reuse_results():
    spent = {
        "capacity": 1.0,
        "capacity_dense": 1.0,
        "negativity": 0.0,
        "read": 0.0,
        "read_dense": 0.0,
    }
    return {
        "spent": {
            "before": 2.0,
            "before_dense": 2.0,
            "negativity": 0.5,
            "left": {use: dict(spent) for use in _reuse_claims.USES},
        },
        "stock": {
            "ring": 1000,
            "ring_counted": 1000,
            "gap_ip": 10,
            "gap_ip_counted": 10,
            "tie": 20,
            "tie_counted": 20,
            "gaps": [0.001, 0.1],
            "by_gap": [2000, 10],
        },
    }


def test_the_verdict_on_reuse_follows_what_is_left_of_a_pair_and_the_stock():
    found = reuse_results()
    assert REUSE.conclude(found).verdict == "holds if"
    assert "serves once" in REUSE.conclude(found).because
    dear = copy.deepcopy(found)
    dear["stock"]["tie"] = 1000
    assert REUSE.conclude(dear).verdict == "fails"
    found["spent"]["left"]["hop"]["negativity"] = 0.1
    assert REUSE.conclude(found).verdict == "holds"
    assert "could serve again" in REUSE.conclude(found).because


@pytest.mark.parametrize("tau", [0.3, 0.1])
def test_errors_of_phase_estimation_by_fourier_transform_are_those_of_the_state_vector(tau):
    dense = [_gap_witnesses.error_of_state_vector(sign * tau, tau, 5, 1) for sign in (1, -1)]
    assert _gap_witnesses.error_by_fourier(tau) == pytest.approx(max(dense), abs=1e-12)


def test_the_fewest_signs_are_those_of_binomials():
    wrong = 1 - math.acos(0.1) / math.pi
    signs = _gap_witnesses.fewest_signs(0.1, 0.05)
    errors = [stats.binom.cdf(bits // 2, bits, wrong) for bits in (signs - 2, signs)]
    assert errors[0] > 0.05 >= errors[1]


def test_the_least_gap_is_where_twice_the_outcomes_would_exceed_the_gradient():
    gap = _gap_witnesses.least_gap(1000, 16)
    above, below = (
        _gap_witnesses.phase_estimation_qubits(gap * scale, 1000) for scale in (1.001, 0.999)
    )
    assert above < 16_000 <= below


def test_white_noise_adds_to_the_errors_of_phase_estimation():
    exact = _gap_witnesses.error_by_fourier(0.3)
    assert _gap_witnesses.error_with_noise(0.3, 1e-12) == pytest.approx(exact, abs=1e-9)
    # Noise on every hop leaves the first reflection alone: nothing is known of the angle.
    steps = _gap_witnesses.resolving_steps(0.3)
    errors = [_gap_witnesses.error_with_noise(0.3, noise) for noise in (0.1 / steps, 0.5 / steps)]
    assert exact < errors[0] < errors[1] < _gap_witnesses.error_with_noise(0.3, 1 - 1e-9)


def test_copies_follow_hoeffdings_bound():
    assert _tie_witnesses.fewest_hits(0.1, 0.05) == math.ceil(math.log(40) / 0.02)
    assert _tie_witnesses.fewest_copies(0.1, 0.05, 1.0) == 185
    exact = _tie_witnesses.fewest_hits_exactly(0.1, 0.05)
    assert _tie_witnesses.miss_of_hits(exact, 0.5, 0.1) <= 0.05
    assert _tie_witnesses.miss_of_hits(exact - 1, 0.5, 0.1) > 0.05


def test_numbers_of_pairs_in_a_subset_sum_to_one():
    assert _tie_witnesses.miss_of_subset(60, 100, 0.5, -1.0) == pytest.approx(1)
    # All signs are sent: every pair is seen, and none is missed.
    assert _tie_witnesses.miss_of_subset(100, 100, 0.5, 0.01) == 0


def test_the_crossover_of_tie_audit_is_the_first_size_that_wins():
    size = _tie_witnesses.size_of_fewer_symbols(0.3, 0.05, 10_000)
    hits = _tie_witnesses.fewest_hits(0.3, 0.05)
    wins = [
        math.ceil(math.log2(each)) * hits < _tie_witnesses.fewest_subset(hits, each)
        for each in range(2, size + 2, 2)
    ]
    assert wins == [False] * (len(wins) - 1) + [True]


def test_steered_signs_are_minus_as_often_as_pairs_disagree():
    signs = np.array([1, 1, -1, 1, 1, -1, -1, -1])
    matching = np.array([[0, 5], [1, 4], [2, 7], [3, 6]])
    found = _tie_witnesses.steered_minus(signs, matching)
    assert found == pytest.approx(np.mean(signs[matching[:, 0]] != signs[matching[:, 1]]))


def test_a_spent_pair_is_not_entangled_and_a_new_one_is():
    bell = np.zeros((4, 4))
    bell[np.ix_([0, 3], [0, 3])] = 0.5
    assert _reuse_witnesses.negativity(bell) == pytest.approx(0.5)
    assert _reuse_witnesses.coding_capacity(bell) == pytest.approx(2)
    for use, states in _reuse_witnesses.spent_pairs().items():
        assert len(states) == 4
        for rho in states:
            assert np.trace(rho) == pytest.approx(1), use
            halves = rho.reshape(2, 2, 2, 2)
            product = np.kron(np.einsum("abcb->ac", halves), np.einsum("abad->bd", halves))
            np.testing.assert_allclose(rho, product, atol=1e-12, err_msg=use)
