"""The second witnesses by closed forms, so that they are none of the library's mistakes."""

import itertools
import math

import numpy as np
import pytest

from jaxqring.claims._compression_witnesses import (
    resnet18_tensors,
    rounded_by_log,
    similarity,
)
from jaxqring.claims._secrecy_witnesses import bucket_loss, disagreement, sampling_distance
from jaxqring.claims._training_witness import Errors, linear_mean, majority, ring_sum
from jaxqring.claims._witnesses import (
    bell_transition,
    best_ensemble,
    codeword_fails,
    heralded_attempts,
    information,
    repeated_net_rate,
    repeated_qubits,
    werner_density,
)


def test_dense_matrices_give_the_capacity_of_a_werner_pair():
    fidelity = 0.9
    entropy = -fidelity * math.log2(fidelity) - (1 - fidelity) * math.log2((1 - fidelity) / 3)
    transition = bell_transition(werner_density(fidelity))
    assert information(transition) == pytest.approx(2 - entropy, abs=1e-12)
    np.testing.assert_allclose(np.diag(transition), fidelity, atol=1e-12)


def test_no_ensemble_beats_one_half():
    assert best_ensemble(20, 0) == pytest.approx(0.5, abs=1e-12)


def test_photons_herald_a_pair_by_a_geometric_law():
    mean, error = heralded_attempts(0.5, 100_000, 0)
    assert error < 0.04
    assert abs(mean - 8) < 5.5 * error  # fails once in 2.6e7 keys


def test_a_code_without_errors_nets_its_rate():
    assert repeated_net_rate(1.0, 255, 223, 32) == pytest.approx(2 * (223 - 4) / 255)


def test_the_last_codeword_of_a_message_is_shortened_to_what_is_left():
    payload, parity = 8 * 223 - 32, 32
    assert repeated_qubits(3 * payload, 1.0, 255, 223, 32) == 3 * 4 * 255
    # A byte more takes its own, those of the checksum, and the parity.
    assert repeated_qubits(3 * payload + 8, 1.0, 255, 223, 32) == 3 * 4 * 255 + 4 * (5 + parity)
    fails = codeword_fails(0.99, 255, 223)
    again = repeated_qubits(payload, 0.99, 255, 223, 32) / (4 * 255)
    assert again == pytest.approx((1 - fails**8) / (1 - fails), rel=1e-12)
    assert codeword_fails(0.9, 3, 1) == pytest.approx(1 - 0.9**12 - 3 * (1 - 0.9**4) * 0.9**8)


def exact_loss(kept, tested, allowed, bucket):
    """By enumeration of the places of the bad copies in one bucket, all buckets by their number."""
    copies, worst = kept + tested, 0.0
    for bad in range(1, copies + 1):
        total = 0.0
        for seen in range(min(allowed, bad, tested) + 1):
            left = bad - seen
            if left > kept:
                continue
            drawn = math.comb(tested, seen) * math.comb(kept, left) / math.comb(copies, bad)
            hits = [
                sum(place < bucket for place in places) > bucket / 2
                for places in itertools.combinations(range(kept), left)
            ]
            total += drawn * min(1.0, kept / bucket * np.mean(hits))
        worst = max(worst, total)
    return worst


def test_a_bad_majority_of_a_bucket_by_enumeration():
    assert bucket_loss(9, 5, 1, 3) == pytest.approx(exact_loss(9, 5, 1, 3), rel=1e-12)
    # One of 2n copies is not among the n tested half of the time.
    assert bucket_loss(50, 50, 0, 1) == pytest.approx(0.5, rel=1e-12)


def test_outcomes_of_two_parties_disagree_where_one_is_flipped():
    flip = 2 * 0.03 / 3
    assert disagreement(2, 0.03) == pytest.approx(2 * flip * (1 - flip), rel=1e-12)


def test_the_distance_of_sampling_is_that_of_serfling():
    assert sampling_distance(10_000, 10_000, 0.05) == pytest.approx(5.2769e-6, rel=1e-4)


def test_a_silent_ring_adds_up_and_a_loud_one_spoils_as_many_symbols_as_it_should():
    rng = np.random.default_rng(0)
    codes = rng.integers(-4000, 4000, (2, 8, 30))
    silent = Errors(np.zeros((2, 8)), (0, 1), 0.0)
    sums = ring_sum(codes, 16, silent)
    np.testing.assert_array_equal(sums, np.repeat(codes.sum(1, keepdims=True), 8, 1))
    loud = Errors(np.full((1, 8), 0.1), (0,), 0.2)
    sent = np.zeros((1, 8, 4000), np.int64)
    loud.add(sent, 16)
    wrong = sum(np.count_nonzero(sent >> 2 * symbol & 3) for symbol in range(8))
    # 256,000 symbols, of which two errors may meet; within 8 standard deviations of a tenth.
    assert abs(wrong / 256_000 - (1 - math.exp(-0.1 * 4 / 3)) * 3 / 4) < 8 * 0.3 / 506


def test_averages_round_by_less_than_a_step_and_votes_are_majorities():
    silent = Errors(np.zeros((1, 8)), (0,), 0.0)
    values = np.random.default_rng(1).normal(size=(1, 8, 50))
    step = 2.0 ** math.ceil(math.log2(np.abs(values).max() / 4095))
    error = linear_mean(silent)(values) - values.mean(1, keepdims=True)
    assert np.abs(error).max() <= step / 2
    votes = majority(silent)(values)[0, 0]
    np.testing.assert_array_equal(votes, np.sign(np.sign(values[0]).sum(0)))
    assert not majority(silent)(np.zeros((1, 8, 3))).any()


def test_errors_of_one_seed_are_nested():
    pair = Errors(np.array([[0.01] * 8, [0.02] * 8]), (5, 5), 0.02)
    sent = np.zeros((2, 8, 500), np.int64)
    pair.add(sent, 16)
    quiet, loud = np.count_nonzero(sent, axis=(1, 2))
    assert 0 < quiet < loud
    assert not np.any((sent[0] != 0) & (sent[1] == 0) & (sent[0] < 4))


def test_a_resnet_18_has_the_parameters_that_the_source_counts():
    assert sum(math.prod(shape) for shape in resnet18_tensors(10, 3)) == 11_173_962


def test_levels_are_kept_and_images_are_like_themselves():
    assert rounded_by_log(np.array([1.0, -1.0, 0.0])) == pytest.approx([1.0, -1.0, 0.0])
    image = np.random.default_rng(0).random((28, 28))
    assert similarity(image, image) == pytest.approx(1.0)
    rows, columns = np.mgrid[:28, :28]
    ramp = (rows + columns) / 54
    assert similarity(ramp, ramp + 0.1) == pytest.approx(0.979716, abs=1e-5)
    assert similarity(ramp, 1 - ramp) == pytest.approx(-0.478243, abs=1e-5)
