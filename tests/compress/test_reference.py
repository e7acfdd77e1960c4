"""The reference of the compressors against numbers worked out beforehand, digit by digit."""

import itertools

import compress_reference as ref
import jax
import numpy as np
import pytest


def close(found, wanted, digits):
    """Equal to all digits given behind the point."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.5001 * 10.0**-digits)


# Logarithmic codes


@pytest.mark.parametrize(
    "x, fraction, code, value",
    [
        (0.5, 0.7472217363, 95, 0.5011661633),
        (-0.01, -0.0397474322, -5, -0.0099005111),
        (0.25, None, 66, 0.2476932012),
        (0.001, None, 1, 0.0019060440),
    ],
)
def test_codes_of_eight_bits(x, fraction, code, value):
    assert ref.log_encode(x) == code
    close(ref.log_decode(code), value, 10)
    if fraction is not None:
        close(ref.log_fraction(x), fraction, 10)


def test_levels():
    close(1 - ref.log_decode(126), 0.0205743278, 10)
    levels = [0, 0.0408543888, 0.0983995886, 0.1794545279, 0.2936239674, 0.4544366336, 0.6809483318]
    close(ref.log_decode(np.arange(8), bits=4), [*levels, 1], 10)
    # Between the two highest codes: halfway on the logarithmic axis, and halfway between values.
    close(ref.log_decode(126.5), 0.9896643, 7)
    close((ref.log_decode(126) + 1) / 2, 0.9897128, 7)
    close(ref.log_decode(0.5), 9.5e-4, 5)  # smaller values become zero


@pytest.mark.parametrize("scale", [1e-30, 0.3, 7e20])
def test_every_level_is_its_own_code_at_every_scale(scale):
    codes = np.arange(-127, 128)
    found = ref.log_encode(ref.log_decode(codes, scale), scale)
    np.testing.assert_array_equal(found, codes)


def test_nothing_but_zeros_is_sent_as_zeros():
    for send in (ref.exact, ref.linear(8), ref.logarithmic(), ref.hopwise()):
        mean, own = send(np.zeros((3, 5)))
        assert not mean.any()
        assert not own.any()


def test_linear_codes_need_more_bits():
    found = [ref.extra_linear_bits(alpha) for alpha in (1, 10, 100, 255)]
    close(found, [0.528766, 2.060159, 4.437488, 5.523120], 6)


def test_squared_error_of_uniform_values():
    found = [ref.log_squared_error(np.ones_like, alpha=alpha) / 2 for alpha in (10, 100)]
    found.append(ref.linear_squared_error(np.ones_like) / 2)
    assert [f"{x:.6e}" for x in found] == ["1.317020e-05", "3.779062e-05", "5.166677e-06"]


@pytest.mark.parametrize(
    "t, wanted",
    [
        (0.1, ["2.5828e-04", "7.4174e-05", "1.2131e-04"]),
        (0.02, ["6.4293e-03", "5.4955e-04", "1.7885e-04"]),
    ],
)
def test_squared_error_of_laplace_values(t, wanted):
    def density(x):
        return np.exp(-np.abs(x) / t) / (2 * t)

    found = [ref.linear_squared_error(density)]
    found += [ref.log_squared_error(density, alpha=alpha) for alpha in (10, 100)]
    assert [f"{x / (2 * t * t):.4e}" for x in found] == wanted


def test_codes_do_not_add():
    close(ref.wrong_mean(np.array([1.0, 0.0])), 0.2316624790, 10)
    pair = np.array([1.0, -0.5])
    np.testing.assert_array_equal(ref.log_encode(pair), [127, -95])
    close(ref.wrong_mean(pair), 0.0352692489, 10)
    close(ref.log_decode(ref.log_encode(pair)).mean(), 0.2494169184, 10)


FOUR = np.array([0.9, -0.2, 0.05, 0.4])


def test_four_values_by_three_readings():
    np.testing.assert_array_equal(ref.log_encode(FOUR), [122, -58, 21, 85])
    close(ref.log_decode(ref.log_encode(FOUR)).mean(), 0.2870874101, 10)
    close(ref.wrong_mean(FOUR), 0.1230989633, 10)
    close(FOUR.mean(), 0.2875, 15)
    close(ref.hop_sum(FOUR, 2.0), 1.1465552527, 10)


def test_senders_are_the_codes_they_are_made_of():
    rows = np.array([[1.0, 0.5], [-0.5, 2.0], [0.25, -0.125]])
    mean, own = ref.logarithmic()(rows)
    np.testing.assert_allclose(mean, own.mean(axis=0))
    close(own[0] / [1, 1], ref.log_decode(ref.log_encode(rows[0])), 15)
    close(own[1], ref.log_decode(ref.log_encode(rows[1], 2.0), 2.0), 15)
    for first in range(3):
        # Chunk 0 starts at node `first`, chunk 1 at the next one.
        mean, _ = ref.hopwise(first=first)(rows)
        by_hand = [ref.hop_sum(np.roll(rows[:, c], -(c + first)), 6.0) / 3 for c in (0, 1)]
        np.testing.assert_allclose(mean, by_hand)
    for power_of_two, step in ((False, 2 / 127), (True, 2.0**-5)):
        mean, own = ref.linear(8, power_of_two=power_of_two)(rows)
        np.testing.assert_allclose(own, np.rint(rows / step) * step)
        np.testing.assert_allclose(mean, own.mean(axis=0))


# PowerSGD

MATRICES = np.array([[[1, 2], [3, 4], [5, 6]], [[0, 1], [1, 0], [2, 2]]], dtype=float)
FIRST = np.array([[1.0], [0.0]])


def test_one_step_of_rank_one():
    P = (MATRICES @ FIRST).mean(axis=0)
    close(P[:, 0], [0.5, 2, 3.5], 15)
    basis = ref.orthonormal(P)
    close(basis[:, 0], [0.1230914910, 0.4923659639, 0.8616404369], 10)
    delivered, errors, Q = ref.powersgd_step(MATRICES, 0.0, FIRST)
    close(Q[:, 0], [4.0620192023, 4.6159309117], 10)
    close(delivered, [[0.5, 0.5681818182], [2, 2.2727272727], [3.5, 3.9772727273]], 10)
    mean = MATRICES.mean(axis=0)
    close(np.linalg.norm(mean - delivered), 0.9711754827, 10)
    close(np.linalg.svd(mean)[1][1], 0.6370744726, 10)
    np.testing.assert_allclose(errors[0], np.array([[3, 12], [1, 4], [-1, -4]]) / 11, atol=1e-14)
    _, averaged, _ = ref.powersgd_step(MATRICES, 0.0, FIRST, feedback="averaged")
    close(averaged[0], [[0.5, 1.4318181818], [1, 1.7272727273], [1.5, 2.0227272727]], 10)
    np.testing.assert_allclose(errors.mean(axis=0), averaged.mean(axis=0), atol=1e-14)


@pytest.mark.parametrize("feedback", ["own", "averaged"])
def test_the_second_step_of_both_errors(feedback):
    _, errors, Q = ref.powersgd_step(MATRICES, 0.0, FIRST, feedback=feedback)
    delivered, _, _ = ref.powersgd_step(MATRICES, errors, Q, feedback=feedback)
    close(delivered[:, 0], [1.3484228061, 1.6374010397, 3.3349880926], 10)
    close(delivered[:, 1], [1.6852061124, 2.0463598124, 4.1679377513], 10)


def test_full_rank_delivers_the_mean():
    delivered, errors, _ = ref.powersgd_step(MATRICES, 0.0, np.eye(2))
    np.testing.assert_allclose(delivered, MATRICES.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=1e-14)


SENDERS = [ref.exact, ref.linear(5), ref.logarithmic(5)]


@pytest.mark.parametrize("send", SENDERS)
def test_own_errors_keep_all_that_was_not_delivered(send):
    rng = np.random.default_rng(0)
    gradients, errors = rng.normal(size=(2, 4, 6, 5))
    delivered, left, _ = ref.powersgd_step(gradients, errors, rng.normal(size=(5, 2)), send=send)
    wanted = (gradients + errors).mean(axis=0)
    np.testing.assert_allclose(delivered + left.mean(axis=0), wanted, atol=1e-14)


def test_zeros_deliver_zeros_and_no_feedback_leaves_none():
    zeros = np.zeros((2, 3, 2))
    assert all(not found.any() for found in ref.powersgd_step(zeros, zeros, np.eye(2)))
    assert not ref.powersgd_step(MATRICES, 0.0, FIRST, feedback=None)[1].any()


# TopK and DGC


def test_three_steps_of_the_largest_value():
    gradients = np.array([[0.5, -2, 0.1, 1], [-0.4, 0.3, 1.5, 0.2]])
    errors = np.zeros((2, 4))
    for wanted in ([0, -1, 0.75, 0], [0, -1, 0.75, 0], [0, 0, 0.75, 1.5]):
        delivered, errors = ref.topk_step(gradients, errors, 1)
        close(delivered, wanted, 12)
    close(errors, [[1.5, -2, 0.3, 0], [-1.2, 0.9, 0, 0.6]], 12)


def test_two_steps_of_momentum_correction():
    u = v = np.zeros((1, 3))
    steps = ([1, -0.5, 0.2], [1, 0, 0]), ([0.3, -0.6, 0.1], [0, -1.55, 0])
    for gradient, wanted in steps:
        sent, u, v = ref.dgc_step(np.array([gradient]), u, v, 1)
        close(sent, wanted, 12)
    close(u, [[0.3, 0, 0.28]], 12)
    close(v, [[0.3, 0, 0.48]], 12)


def test_coded_values_leave_their_rounding_behind():
    gradients = np.array([[0.26, -2.6, 0.1], [1.2, 0.3, -0.4]])
    delivered, errors = ref.topk_step(gradients, 0.0, 1, value=np.rint)
    close(delivered, [0.5, -1.5, 0], 14)
    close(errors, [[0.26, 0.4, 0.1], [0.2, 0.3, -0.4]], 14)
    assert not ref.topk_step(gradients, 0.0, 1, feedback=False)[1].any()
    np.testing.assert_array_equal(ref.top_mask([1, -2, 2, 2], 2), [False, True, True, False])
    close(ref.clipped_norm(np.array([3.0, 4.0]), 1.0), [0.6, 0.8], 14)
    close(ref.clipped_norm(np.array([3.0, 4.0]), 6.0), [3, 4], 14)


def test_random_positions_are_unbiased():
    gradients = np.array([[1.0, 2, 3, 4], [5, -6, 7, 0]])
    masks = [np.isin(np.arange(4), at) for at in itertools.combinations(range(4), 2)]
    found = np.mean([ref.random_mean(gradients, mask) for mask in masks], axis=0)
    np.testing.assert_allclose(found, gradients.mean(axis=0))


# TernGrad and QSGD

TERNARY = np.array([0.3, -0.7, 0.1, 0.0])


def test_ternary_codes():
    p = ref.terngrad_probabilities(TERNARY, 0.7)
    close(p, [0.4285714286, 1, 0.1428571429, 0], 10)
    close(ref.terngrad_error(TERNARY, 0.7), 0.18, 14)
    close(p.sum(), 1.5714285714, 10)
    close(ref.terngrad_error(TERNARY, 1.0), 0.51, 14)
    close(ref.terngrad_mean_error([TERNARY] * 8, 0.7), 0.0225, 14)
    np.testing.assert_allclose(ref.terngrad_expected(TERNARY, 0.7), TERNARY)


def test_the_scaler_of_ternary_codes():
    layer = np.array([1.0, 2, 3, 4, -20])
    close(ref.terngrad_scale([layer], 1, peak=False), 9.0553851381, 10)
    close(np.std(layer, ddof=1), 10.1242283657, 10)
    spike = np.array([0.0] * 15 + [16])
    close(ref.terngrad_scale([spike], 1), 3.8729833462, 10)
    close(ref.terngrad_scale([spike, layer * 0]), 9.6824583655, 10)
    assert ref.terngrad_scale([spike], None) == 16
    # Nothing is clipped: the limit itself is another scaler.
    assert ref.terngrad_scale([layer]) == 20
    close(ref.terngrad_scale([layer], peak=False), 2.5 * 9.0553851381, 9)


@pytest.mark.parametrize(
    "v, count, error, bound",
    [([3, 4], 4, 0.625, 3.125), ([1, -2, 2, 0.5], 1, 7.4775969583, 2 * 9.25)],
)
def test_levels_of_the_two_norm(v, count, error, bound):
    v = np.array(v, dtype=float)
    norm = ref.qsgd_norm(v)
    found = ref.qsgd_error(v, norm, count)
    close(found, error, 10)
    assert min(v.size / count**2, np.sqrt(v.size) / count) * norm**2 == pytest.approx(bound)
    assert found <= bound
    np.testing.assert_allclose(ref.qsgd_expected(v, norm, count), v)
    if count == 1:
        close(ref.qsgd_nonzeros(v, norm, count), 1.8083888604, 10)


def test_codes_are_drawn_with_the_probabilities_said():
    uniform = (np.arange(1000)[:, None] + 0.5) / 1000
    codes = ref.terngrad_codes(TERNARY, 0.7, uniform)
    np.testing.assert_allclose(0.7 * codes.mean(axis=0), TERNARY, atol=1e-3)
    v = np.array([3.0, -4.0, 0.0])
    codes = ref.qsgd_codes(v, 5.0, 4, uniform)
    np.testing.assert_allclose(5 / 4 * codes.mean(axis=0), v, atol=2e-3)
    # With one level of the largest norm they are the ternary ones.
    norm = ref.qsgd_norm(TERNARY, "max")
    assert ref.qsgd_error(TERNARY, norm, 1) == pytest.approx(ref.terngrad_error(TERNARY, norm))


# Votes


@pytest.mark.parametrize(
    "nodes, error, wanted",
    [
        (5, 0.2, (0.05792, 0)),
        (7, 0.3, (0.126036, 0)),
        (8, 0.3, (0.05796765, 0.1361367)),
        (8, 0.4, (0.1736704, 0.2322432)),
    ],
)
def test_wrong_majorities_and_ties(nodes, error, wanted):
    close(ref.majority_errors(nodes, error), wanted, 14)


def test_votes_of_momenta():
    gradients = np.array([[1.0, -1, 1, 0], [-3, -1, 0, 0]])
    delivered, momenta = ref.vote_step(gradients, np.zeros((2, 4)))
    np.testing.assert_array_equal(delivered, [0, -1, 1, 0])
    delivered, momenta = ref.vote_step(-gradients, momenta, momentum=0.75)
    np.testing.assert_allclose(momenta, gradients / 2)
    np.testing.assert_array_equal(delivered, [0, -1, 1, 0])


# DeMo


def test_cosine_transforms():
    close(ref.dct_matrix(4) @ [1, 2, 3, 4], [5, -2.2304424974, 0, -0.1585126678], 10)
    np.testing.assert_allclose(ref.dct_matrix(7) @ ref.dct_matrix(7).T, np.eye(7), atol=1e-14)
    X = (4 * np.arange(4)[:, None] + np.arange(4)) ** 1.5
    D = ref.block_dct(X)
    close([D[0, 0], D[1, 0], D[0, 1]], [94.518630733, -70.867198511, -17.151560129], 9)
    kept = np.where(ref.top_mask(D, 3), D, 0)
    np.testing.assert_array_equal(np.argwhere(kept), [[0, 0], [0, 1], [1, 0]])
    close(np.sum(kept**2) / np.sum(X**2), 0.9895907913, 10)
    lengths = [ref.block_length(size) for size in (4, 64, 67, 128, 1568, 27)]
    assert lengths == [4, 64, 1, 64, 56, 27]
    Y = np.random.default_rng(0).normal(size=(128, 27))
    np.testing.assert_allclose(ref.block_dct(ref.block_dct(Y), inverse=True), Y, atol=1e-12)
    np.testing.assert_allclose(ref.block_dct(Y)[64:], ref.block_dct(Y[64:]), atol=1e-12)


def test_one_step_of_two_nodes():
    gradients = np.array([[1.0, 2, 3, 4], [4, -3, 2, -1]])
    close(ref.dct_matrix(4) @ gradients[0] / 10, [0.5, -0.2230442497, 0, -0.0158512668], 10)
    close(ref.dct_matrix(4) @ gradients[1] / 10, [0.1, 0.1913417162, 0.2, 0.4619397663], 10)
    decoded, left = ref.demo_step(gradients, np.zeros((2, 4)), rate=0.1, k=1)
    close(decoded, [0.375, -0.0517766953, 0.5517766953, 0.125], 10)
    np.testing.assert_array_equal(np.sign(decoded), [1, -1, 1, 1])
    close(left[0], [-0.15, -0.05, 0.05, 0.15], 14)


@pytest.mark.parametrize("shape", [(10,), (130, 6), (67, 2)])
def test_all_coefficients_are_the_mean(shape):
    gradients, deltas = np.random.default_rng(0).normal(size=(2, 3, *shape))
    decoded, left = ref.demo_step(gradients, deltas, decay=0.5, k=4096)
    np.testing.assert_allclose(decoded, (0.5 * deltas + gradients).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(left, 0, atol=1e-12)


# Similarity of images

GRADIENT = np.add.outer(np.arange(28), np.arange(28)) / 54
CHECKERS = (np.add.outer(np.arange(28) // 4, np.arange(28) // 4) % 2).astype(float)
IMAGES = [
    (GRADIENT, GRADIENT + 0.1, 0.9797186062, 0.976602),
    (GRADIENT, 1 - GRADIENT, -0.4782510976, -0.595027),
    (CHECKERS, np.roll(CHECKERS, 1, axis=1), 0.4851667151, 0.520180),
    (CHECKERS, 0.9 * CHECKERS + 0.05, 0.9941240273, 0.994484),
]


@pytest.mark.parametrize("a, b, wanted, of_defaults", IMAGES)
def test_similarity_of_images(a, b, wanted, of_defaults):
    close(ref.ssim(a, b), wanted, 10)
    metrics = pytest.importorskip("skimage.metrics")
    convention = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    close(metrics.structural_similarity(a, b, data_range=1, **convention), wanted, 10)
    # A uniform window of 7 x 7 is another convention.
    close(metrics.structural_similarity(a, b, data_range=1), of_defaults, 6)


@pytest.mark.parametrize("a, b, wanted, _", IMAGES)
def test_similarity_of_images_in_jax(a, b, wanted, _):
    dm_pix = pytest.importorskip("dm_pix")
    with jax.enable_x64(True):
        close(dm_pix.ssim(a[..., None], b[..., None]), wanted, 10)
    # Differences of squares cancel in float32.
    assert dm_pix.ssim(a[..., None], b[..., None]) == pytest.approx(wanted, abs=2e-5)
