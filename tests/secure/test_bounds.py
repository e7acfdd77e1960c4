"""The finite-size bounds against enumeration, dense matrices and attacks."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from jaxqring.codes import bch, reed_solomon
from jaxqring.secure import _bounds as bounds
from jaxqring.secure import _copy_sampling as sampling
from jaxqring.secure import _rates as rates
from jaxqring.secure._masks import sum_error_law
from jaxqring.secure._security import DETECTION, Security


class Source(NamedTuple):
    """All that the bounds read of a source."""

    num_parties: int = 4
    x_error: float = 0.0
    disagreement: float = 0.0


HAMMING = bch(7, 4, 1)
PARITY = np.array([[1, 0, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1]])


def entropy(*probs):
    return -sum(p * math.log2(p) for p in probs if p > 0)


# Sampling


@pytest.mark.parametrize("allowed", [0, 1, 4])
@pytest.mark.parametrize("detection", [1.0, 2 / 3, 1 / 2])
@pytest.mark.parametrize("tested, kept", [(1, 1), (13, 30), (40, 7)])
def test_bad_copies_escape_as_enumeration_says(tested, kept, detection, allowed):
    for bad in range(tested + kept + 1):
        hit = np.arange(min(bad, tested) + 1)
        ways = hypergeom.pmf(hit, tested + kept, bad, tested) * binom.cdf(allowed, hit, detection)
        found = sampling.escape_probability(bad, tested, kept, allowed=allowed, detection=detection)
        assert found == pytest.approx(np.sum(ways), rel=1e-9, abs=1e-300)


def test_cut_and_choose_of_half_the_copies():
    found = [sampling.escape_probability(bad, 1000, 1000) for bad in (1, 2, 3)]
    np.testing.assert_allclose(found, [0.5, 0.249875, 0.124812], atol=5e-7)


def test_counting_stays_exact_for_very_many_copies():
    tested, kept, bad = 60_000_000, 100_000_000, 5
    exact = math.prod((kept - i) / (kept + tested - i) for i in range(bad))
    found = sampling.escape_probability(bad, tested, kept)
    assert found == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("excess", [0.1, 0.25, 0.4])
def test_serfling_bounds_every_exact_tail(excess):
    closest = 0.0
    for tested, kept in itertools.product([3, 8, 25, 60], repeat=2):
        limit = sampling.sampling_error(kept, tested, excess)
        for bad in range(tested + kept + 1):
            hit = np.arange(max(0, bad - kept), min(bad, tested) + 1)
            beyond = np.abs((bad - hit) / kept - hit / tested) >= excess - 1e-12
            tail = np.sum(hypergeom.pmf(hit, tested + kept, bad, tested)[beyond])
            assert tail <= limit * (1 + 1e-9)
            closest = max(closest, tail / limit)
    assert closest > 0.05  # no bound so loose that it could hide a wrong exponent


def test_sampling_numbers_of_ten_thousand_copies():
    error = sampling.sampling_error(10_000, 10_000, 0.05)
    assert (error, math.sqrt(error)) == pytest.approx((2.7845e-11, 5.2769e-6), rel=1e-4)


def enumerated(kept, tested, bucket, allowed, detection):
    """The definition of `bucket_error`, every number of bad copies tried."""
    values = []
    for bad in range(kept + tested + 1):
        hit = np.arange(max(0, bad - kept), min(bad, tested) + 1)
        passes = hypergeom.pmf(hit, kept + tested, bad, tested) * binom.cdf(allowed, hit, detection)
        majority = hypergeom.sf((bucket - 1) // 2, kept, bad - hit, bucket)
        values.append(np.sum(passes * np.minimum(1, kept / bucket * majority)))
    return max(values)


@pytest.mark.parametrize(
    "case",
    [
        (30, 30, 3, 0, 1.0),
        (30, 30, 3, 2, 1.0),
        (7, 20, 7, 1, 1.0),
        (60, 20, 5, 3, 2 / 3),
        (33, 90, 11, 12, 1 / 2),
        (50, 11, 1, 0, 1.0),
        (45, 60, 9, 30, 2 / 3),
    ],
)
def test_bucket_error_is_the_largest_over_all_bad_copies(case):
    assert sampling.bucket_error(*case) == pytest.approx(enumerated(*case), rel=1e-9)


def test_bucket_error_of_thirty_thousand_copies():
    assert sampling.bucket_error(30_000, 30_000, 3) == pytest.approx(2.49990e-5, rel=1e-5)
    # One at a time, with the product that there is for zero tolerance.
    for bad in range(2, 20):
        passes = math.prod((30_000 - i) / (60_000 - i) for i in range(bad))
        majority = hypergeom.sf(1, 30_000, bad, 3)
        found = sampling.majority_loss(bad, 30_000, 30_000, 3)
        assert found == pytest.approx(passes * min(1, 10_000 * majority), rel=1e-7)


def test_no_classical_attack_beats_the_bucket_error():
    # 40,000 permutations for each number of bad copies; five standard deviations: 3e-7 each.
    draws, kept, tested, bucket, allowed = 40_000, 30, 20, 3, 1
    limit = sampling.bucket_error(kept, tested, bucket, allowed)
    rng, most = np.random.default_rng(1), 0.0
    order = rng.permuted(np.tile(np.arange(kept + tested), (draws, 1)), axis=1)
    for bad in (2, 4, 6, 8):
        is_bad = order < bad
        passes = is_bad[:, kept:].sum(1) <= allowed
        lost = (is_bad[:, :kept].reshape(draws, -1, bucket).sum(2) > bucket // 2).any(1)
        most = max(most, np.mean(passes & lost))
    assert limit / 4 < most <= limit + 5 * math.sqrt(limit / draws)


def hadamards(qubits):
    return np.array(
        [[(-1) ** bin(i & j).count("1") for j in range(2**qubits)] for i in range(2**qubits)]
    ) / 2 ** (qubits / 2)


@pytest.mark.parametrize("bucket, distance", [(2, 0.5), (3, 0.0)])
def test_one_bad_copy_in_superposition_breaks_even_buckets_only(bucket, distance):
    # Two honest parties; qubits are (party one's copies, party two's copies).
    state = np.zeros((2**bucket, 2**bucket))
    for first in range(2**bucket):
        for flipped in range(bucket):
            state[first, first ^ (1 << flipped)] += 1
    state /= np.linalg.norm(state)
    outcomes = (hadamards(bucket) @ state @ hadamards(bucket)) ** 2
    parity = np.array([bin(i).count("1") % 2 for i in range(2**bucket)])
    joint = np.array(
        [[outcomes[np.ix_(parity == a, parity == b)].sum() for b in (0, 1)] for a in (0, 1)]
    )
    sums = np.array([[joint[a, a ^ s] for s in (0, 1)] for a in (0, 1)])
    found = np.abs(sums - sums.sum(0) / 2).sum() / 2
    assert found == pytest.approx(distance, abs=1e-12)


# Secrecy of one copy, and what tests see


def distance_from_secret(state):
    """Of party one's X outcome, for a state (2, 2, E): to E and the sum of both outcomes."""
    turned = np.einsum("ia,jb,abe->ije", hadamards(1), hadamards(1), state)
    found = 0.0
    for total in (0, 1):
        rho = [np.outer(turned[a, a ^ total], turned[a, a ^ total].conj()) for a in (0, 1)]
        found += np.abs(np.linalg.eigvalsh(rho[0] - rho[1])).sum() / 2
    return found


@pytest.mark.parametrize("error", [0.0, 0.01, 0.2, 0.5])
def test_the_secrecy_distance_is_attained_and_never_exceeded(error):
    best = np.zeros((2, 2, 1))
    best[0, 0] = best[1, 1] = math.sqrt((1 - error) / 2)
    best[0, 1] = best[1, 0] = math.sqrt(error / 2)
    assert distance_from_secret(best) == pytest.approx(rates.secrecy_distance(error), abs=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(200):
        state = rng.normal(size=(2, 2, 4)) + 1j * rng.normal(size=(2, 2, 4))
        equal = np.eye(2, dtype=bool)
        state[equal] *= math.sqrt(1 - error) / np.linalg.norm(state[equal])
        state[~equal] *= math.sqrt(error) / np.linalg.norm(state[~equal])
        assert distance_from_secret(state) <= rates.secrecy_distance(error) + 1e-12


def test_detection_is_that_of_the_test_operators():
    parties = 3
    pauli = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]])}
    xy = np.zeros((8, 8), complex)
    settings = [s for s in itertools.product("XY", repeat=parties) if s.count("Y") % 2 == 0]
    for setting in settings:
        product = np.eye(1)
        for axis in setting:
            product = np.kron(product, pauli[axis])
        xy += (np.eye(8) + (-1) ** (setting.count("Y") // 2) * product) / 2 / len(settings)
    agree = np.diag([1.0, 0, 0, 0, 0, 0, 0, 1])
    bad = np.eye(8) - agree
    operators = {"z": agree, "xy": xy, "mixed": agree / 3 + 2 * xy / 3}
    for name, passing in operators.items():
        np.testing.assert_allclose(bad @ passing @ bad, (1 - DETECTION[name]) * bad, atol=1e-12)
        # Bad and good copies do not interfere, which is what makes them countable.
        np.testing.assert_allclose(bad @ passing @ agree, 0, atol=1e-12)


# Rates and counts


@pytest.mark.parametrize("dimension, honest", [(2, 2), (5, 2), (3, 3)])
@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_the_mask_rate_counts_error_patterns(dimension, honest, tolerance):
    kept, tested, letters = 20_000, 30_000, dimension ** (honest - 1)
    # Exactly as many error patterns as there are within the radius, counted with integers.
    radius = kept * (tolerance + sampling.sampling_excess(kept, tested, 1e-10))
    term = patterns = 1
    for weight in range(math.floor(radius)):
        term = term * (kept - weight) * (letters - 1) // (weight + 1)
        patterns += term
    counted = (math.log2(patterns) + 2 * math.log2(1 / 2e-9)) / (kept * math.log2(letters))
    rate = rates.mask_rate(
        kept, tested, tolerance=tolerance, dimension=dimension, honest=honest, eps_amplify=1e-9
    )
    assert 0 <= (1 - counted) - rate < 1e-3


def test_mask_rates_of_a_hundred_thousand_copies():
    assert sampling.sampling_excess(10**5, 10**5, 1e-10) == pytest.approx(0.0214598, abs=5e-8)
    found = [rates.mask_rate(10**5, 10**5, tolerance=tolerance) for tolerance in (0, 0.01)]
    np.testing.assert_allclose(found, [0.849796, 0.797695], atol=5e-7)
    assert rates.mask_rate(100, 100, tolerance=0.2) == 0.0
    # Two honest parties are the worst case.
    assert rates.mask_rate(10**5, 10**5, honest=3) > rates.mask_rate(10**5, 10**5)


@pytest.mark.parametrize("x_error, z_error", [(0.01, 0.02), (0.08, 0.0)])
def test_the_finite_rate_has_the_asymptotic_one_as_its_limit(x_error, z_error):
    many = 10**14
    found = rates.mask_rate(many, many, tolerance=z_error, leak=entropy(x_error, 1 - x_error))
    assert found == pytest.approx(rates.asymptotic_mask_rate(x_error, z_error), abs=1e-4)


def test_key_rates_end_at_eleven_per_cent():
    assert rates.asymptotic_mask_rate(0.110027, 0.110027) > 0
    assert rates.asymptotic_mask_rate(0.110029, 0.110029) == 0
    key = rates.conference_key_rate(0.05, [0.01, 0.03, 0.02])
    assert key == pytest.approx(1 - entropy(0.05, 0.95) - entropy(0.03, 0.97), rel=1e-12)


def test_numbers_of_tests():
    assert rates.tests_needed(0.01, 0.01, 1 / 2) == 919
    assert rates.tests_needed(0.01, 0.01, 2 / 3) == 689
    assert rates.adversarial_tests(0.01, 0.01, 2 / 3) == pytest.approx(1257.5, abs=0.05)
    for gap in (1 / 2, 2 / 3):
        number = rates.tests_needed(0.03, 1e-4, gap)
        assert (1 - 0.03 * gap) ** number <= 1e-4 < (1 - 0.03 * gap) ** (number - 1)


@pytest.mark.parametrize("tested, error, tolerance", [(20, 0.1, 0.0), (100, 0.2, 0.29), (7, 0, 0)])
def test_the_honest_source_passes_as_often_as_counted(tested, error, tolerance):
    allowed = round(tested * tolerance)
    exact = sum(
        math.comb(tested, fails) * error**fails * (1 - error) ** (tested - fails)
        for fails in range(allowed + 1)
    )
    assert sampling.pass_probability(tested, error, tolerance) == pytest.approx(exact, rel=1e-12)


# Wrong sums and their correction


def test_a_binary_code_corrects_sums_mod_four():
    words = np.array(list(itertools.product(range(4), repeat=7)), dtype=np.int8)
    clean = words[(PARITY @ words.T % 4 == 0).all(0)]
    weights = np.count_nonzero(clean, axis=1)
    assert len(clean) == 4**4
    assert sorted(set(weights))[:2] == [0, 3]
    # What is thrown away so that syndromes say nothing: H is invertible there.
    assert round(np.linalg.det(PARITY[:, [0, 1, 3]])) % 2 == 1


@pytest.mark.parametrize("summed", [1, 3])
def test_sums_are_wrong_as_often_as_the_law_of_errors_says(summed):
    x_error, bits = 0.02, 4
    law = np.asarray(sum_error_law(1 - 2 * x_error, bits), dtype=float)
    right = np.fft.ifft(np.fft.fft(law) ** summed).real[0]
    security = Security("none") if summed == 1 else Security(bucket=summed)
    found = bounds.sum_error_probability(security, x_error, bits)
    if summed == 1:
        assert found == pytest.approx(1 - right, rel=1e-5)
    else:
        assert 1 - right < found < 1.05 * (1 - right)


def test_wrong_sums_after_correction_by_enumeration():
    source, bits, size = Source(x_error=0.004), 5, 40
    security = Security("none", correction=HAMMING)
    error = 1 - (1 - 0.004) ** bits
    remain = sum(
        sum(pattern[:4]) * error ** sum(pattern) * (1 - error) ** (7 - sum(pattern))
        for pattern in itertools.product((0, 1), repeat=7)
        if sum(pattern) > HAMMING.t
    )
    found = bounds.epsilon(security, size, source, bits=bits)
    assert found.expected_wrong_sums == pytest.approx(size / 4 * remain, rel=1e-12)
    assert found.correctness == security.eps_correct
    bare = bounds.epsilon(Security("none"), size, source, bits=bits)
    assert bare.expected_wrong_sums == pytest.approx(size * error, rel=1e-12)
    assert bare.correctness == pytest.approx(1 - (1 - 0.004) ** (bits * size), rel=1e-12)


def test_a_wrong_sum_escapes_random_combinations_half_the_time_each():
    # The worst error mod 16 is 8; 20,000 combinations, five standard deviations: 6e-7.
    coefficients = np.random.default_rng(2).integers(0, 16, (20_000, 3))
    for error in ([8, 0, 0], [8, 8, 0], [3, 8, 1]):
        missed = np.mean(coefficients @ np.array(error) % 16 == 0)
        assert missed < 0.5 + 5 * 0.5 / math.sqrt(20_000)
    assert Security(correction=HAMMING, eps_correct=1e-12).check_masks == 40


# Refusals


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Security("hash"), ["`amplification`", "'bucket', 'none', 'universal'"]),
        (lambda: Security(bucket=4), ["`bucket`", "odd"]),
        (lambda: Security(bucket=1), ["`bucket`", "at least 3"]),
        (lambda: Security(tests="x"), ["`tests`"]),
        (lambda: Security("universal", tests="xy"), ["`tests`", "Z tests"]),
        (lambda: Security(test_ratio=0.0), ["`test_ratio`", "positive"]),
        (lambda: Security(tolerance=0.5), ["`tolerance`", "below 0.5"]),
        (lambda: Security(tests="xy", tolerance=0.25), ["`tolerance`", "below 0.25"]),
        (lambda: Security(correction=reed_solomon(15, 11)), ["`correction`", "binary"]),
        (lambda: Security(attempts=0), ["`attempts`", "at least 1"]),
        (lambda: Security(eps_smooth=0.0), ["`eps_smooth`", "lie in (0, 1)"]),
        (lambda: Security("universal").masks_needed(5), ["`amplification`", "rate"]),
        (lambda: bounds.epsilon(Security(), 5, Source(2)), ["`source`", "three parties"]),
        (lambda: bounds.epsilon(Security(), 0, Source()), ["`size`", "at least 1"]),
        (lambda: bounds.epsilon(Security(), 5, Source(), mode="x"), ["`mode`"]),
        (lambda: bounds.epsilon(Security("universal"), 5, Source(), dimension=9), ["be prime"]),
        (lambda: bounds.epsilon(Security("universal"), 5, Source(), dimension=7), ["exceed 65536"]),
        (
            lambda: bounds.epsilon(
                Security("universal", tolerance=0.49999, correction=HAMMING), 5, Source(), bits=3
            ),
            ["`tolerance`", "positive rate"],
        ),
        (lambda: sampling.escape_probability(9, 4, 4), ["`bad`", "8 copies"]),
        (lambda: sampling.bucket_error(10, 10, 3), ["`untested`", "multiple of bucket = 3"]),
        (lambda: rates.mask_rate(10, 10, eps_smooth=1.0), ["`eps_smooth`", "lie in (0, 1)"]),
    ],
)  # fmt: skip
def test_refusals_name_the_argument_and_the_rule(call, words):
    with pytest.raises(ValueError, match=r"`.* must .*, but got .*\.") as refusal:
        call()
    assert all(word in str(refusal.value) for word in words)
