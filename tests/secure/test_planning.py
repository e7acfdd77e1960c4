"""The epsilon of a `Security`, term by term, and plans that reach the epsilon asked for."""

import dataclasses
import math
import re
from typing import NamedTuple

import pytest
from scipy.stats import binom

from jaxqring.codes import bch, secded
from jaxqring.physics.channels import depolarizing
from jaxqring.physics.ghz import GHZSource
from jaxqring.secure import _bounds as bounds
from jaxqring.secure import _copy_sampling as sampling
from jaxqring.secure import _rates as rates
from jaxqring.secure._planning import MAX_BUCKET, RATIOS, plan
from jaxqring.secure._security import DETECTION, Security

HAMMING = bch(7, 4, 1)


class Source(NamedTuple):
    """All that the accounts read of a source."""

    num_parties: int = 4
    x_error: float = 0.0
    disagreement: float = 0.0


# Epsilon


def test_the_epsilon_of_buckets_is_the_root_of_what_some_attempt_loses():
    once = bounds.epsilon(Security(attempts=1), 10_000, GHZSource(4), steps=7)
    assert (once.kept, once.tested, once.masks, once.overhead) == (30_000, 30_000, 10_000, 6)
    assert once.sampling == pytest.approx(math.sqrt(2.49990e-5), rel=1e-5)
    assert once.total == pytest.approx(7 * (once.sampling + 1e-12), rel=1e-9)
    thrice = bounds.epsilon(Security(attempts=3), 10_000, GHZSource(4))
    assert thrice.sampling**2 == pytest.approx(1 - (1 - once.sampling**2) ** 3, rel=1e-9)
    assert not once.is_vacuous
    clipped = bounds.epsilon(Security(), 10_000, GHZSource(4), steps=10_000)
    assert clipped.total == 1
    assert clipped.is_vacuous


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("tests", ["z", "mixed", "xy"])
def test_epsilon_covers_one_planted_bad_copy(tests, attempts):
    security = Security("none", tests=tests, attempts=attempts)
    escapes = sampling.escape_probability(1, 500, 500, detection=DETECTION[tests])
    # It is kept in half of the cases, and then one mask is known for sure.
    known = 1 - (1 - 0.5) ** attempts
    assert escapes >= 0.5
    assert bounds.epsilon(security, 500, Source()).total >= known


def test_masks_without_amplification_are_no_better_than_honest_noise():
    noisy = Source(disagreement=1e-9)
    security = Security("none", test_ratio=1000.0, attempts=1)
    found = bounds.epsilon(security, 10, noisy, bits=8)
    assert found.sampling == pytest.approx(math.sqrt(1 / 1001), rel=0.01)
    louder = bounds.epsilon(security, 10, Source(disagreement=1e-6), bits=8)
    assert louder.sampling == pytest.approx(80 * math.sqrt(1e-6 * (1 - 1e-6)), rel=1e-9)


@pytest.mark.parametrize("tests, correction", [("z", None), ("mixed", None), ("z", HAMMING)])
def test_universal_amplification_keeps_no_copy_more_than_its_rate_asks(tests, correction):
    security = Security("universal", tests=tests, tolerance=0.01, correction=correction, attempts=1)
    size, source = 3000, Source()
    found = bounds.epsilon(security, size, source, bits=8)
    dimension, length = 257, 1 if correction is None else 7

    def masks(kept):
        tested = kept
        z_tests = (
            tested if tests == "z" else int(tested / 3 - math.sqrt(tested * 10 * math.log(10)))
        )
        leak = 0 if correction is None else 3 / 7 * math.log2(dimension)
        rate = rates.mask_rate(
            kept, z_tests, tolerance=int(tested / 100) / z_tests, dimension=dimension, leak=leak
        )
        return math.floor(kept * rate) - security.check_masks

    assert found.masks == masks(found.kept) >= size > masks(found.kept - length)
    assert found.qubit_copies == found.copies * 9
    assert found.secrecy == pytest.approx(3e-10, rel=1e-6)


def test_the_honest_overhead_is_two_over_the_rate():
    found = bounds.epsilon(Security("universal", attempts=1), 10**7, Source())
    assert found.overhead * found.mask_rate == pytest.approx(2, rel=1e-6)
    assert 2 < found.overhead < 2.02
    # A matrix spreads one wrong sum over all of them.
    noisy = bounds.epsilon(Security("universal"), 1000, Source(x_error=1e-6))
    any_wrong = 1 - (1 - 1e-6) ** (17 * noisy.kept)
    assert noisy.expected_wrong_sums == pytest.approx(1000 * any_wrong, rel=1e-9)


def test_the_paper_mode_is_labelled_as_our_reading():
    found = bounds.epsilon(Security(), 10_000, Source(), mode="paper")
    assert (found.kept, found.tested, found.overhead) == (10_000, 10_000, 2)
    assert found.sampling == pytest.approx(5.2769e-6, rel=1e-4)
    assert "our interpretation" in found.interpretation
    assert 0 < found.mask_rate < 1
    # What it does not say: a single bad copy passes half the time and gives one mask away.
    assert found.secrecy < sampling.escape_probability(1, 10_000, 10_000)


def test_honest_noise_aborts_and_skips_as_often_as_it_should():
    source = Source(x_error=0.01, disagreement=0.002)
    security = Security(tests="mixed", tolerance=0.06, test_ratio=0.5, attempts=2)
    found = bounds.epsilon(security, 100, source, bits=6)
    failure = (1 - 0.998**6) / 3 + 2 * (1 - 0.99**6) / 3
    passes = binom.cdf(9, 150, failure)
    assert found.tested == 150
    assert found.pass_probability == pytest.approx(passes, rel=1e-9)
    assert found.skip_rate == pytest.approx((1 - passes) ** 2, rel=1e-9)


def test_masks_needed_are_words_of_buckets():
    security = Security(bucket=5, correction=secded(72, 64), eps_correct=2.0**-20)
    # 1000 coordinates and 20 checks in words of 64, each of 72 sums of five.
    assert security.masks_needed(1000) == 16 * 72 * 5
    assert bounds.epsilon(security, 1000, Source()).masks == 16 * 64 - 20
    assert hash(security) == hash(Security(bucket=5, correction=secded(), eps_correct=2.0**-20))


# Plans

SIZES = [1_000, 20_000, 1_000_000]
# Of a million masks, a per cent of noise on each qubit takes 157 million copies, and seconds.
CASES = [
    pytest.param(size, noise, marks=pytest.mark.matrix if size * noise >= 1000 else ())
    for size in SIZES
    for noise in (0.0, 1e-4, 1e-3, 1e-2)
]


@pytest.mark.parametrize("size, noise", CASES)
@pytest.mark.parametrize("amplification", ["bucket", "universal"])
def test_a_plan_keeps_its_word(size, noise, amplification):
    source = Source(x_error=noise / 3, disagreement=noise)
    found = plan(1e-6, size, 1000, source, amplification=amplification)
    price = bounds.epsilon(found, size, source, steps=1000)
    assert price.total <= 1e-6
    assert price.abort_rate <= 0.01
    assert price.masks >= size
    assert (found.tolerance > 0) == (noise > 0)


@pytest.mark.parametrize("tests", ["mixed", "xy"])
@pytest.mark.parametrize("correction", [None, secded(72, 64)])
def test_a_plan_for_noise_of_both_kinds_keeps_its_word(tests, correction):
    source = GHZSource(5, noise=depolarizing(mix=1e-4))
    found = plan(1e-4, 2000, 10, source, bits=8, tests=tests, correction=correction)
    price = bounds.epsilon(found, 2000, source, bits=8, steps=10)
    assert price.total <= 1e-4
    assert price.abort_rate <= 0.01
    assert found.correction == correction


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_no_bucket_is_larger_than_it_has_to_be(noise):
    source = Source(disagreement=noise)
    found = plan(1e-6, 5000, 100, source)
    smaller = dataclasses.replace(found, bucket=found.bucket - 2)
    assert bounds.epsilon(smaller, 5000, source, steps=100).total > 1e-6
    # Nor is any other point of the grid cheaper, tried one after the other.
    copies = bounds.epsilon(found, 5000, source).copies
    for ratio in RATIOS[::6]:
        for bucket in (found.bucket - 2, found.bucket, found.bucket + 2):
            other = Security(bucket=bucket, test_ratio=ratio, eps_authenticate=1e-15)
            kept = other.masks_needed(5000)
            tested = other.copies_tested(kept)
            if kept + tested >= copies:
                continue
            allowed = int(binom.ppf(0.99, tested, 1 - (1 - noise) ** 16))
            other = dataclasses.replace(other, tolerance=(allowed + 0.5) / tested)
            assert bounds.epsilon(other, 5000, source, steps=100).total > 1e-6


@pytest.mark.parametrize("amplification", ["bucket", "universal"])
def test_a_smaller_epsilon_takes_no_fewer_copies(amplification):
    source, copies = Source(disagreement=1e-4), []
    for target in (0.1, 1e-3, 1e-6, 1e-9, 1e-14):
        found = plan(target, 3000, 10, source, amplification=amplification)
        price = bounds.epsilon(found, 3000, source, steps=10)
        assert price.total <= target
        copies.append(price.copies)
    assert copies == sorted(copies)
    assert copies[0] < copies[-1]


def test_universal_plans_beat_half_of_the_copies_tested():
    source = Source(disagreement=1e-3)
    found = plan(1e-6, 1_000_000, 100, source, amplification="universal")
    planned = bounds.epsilon(found, 1_000_000, source)
    half = bounds.epsilon(dataclasses.replace(found, test_ratio=1.0), 1_000_000, source)
    assert planned.overhead < half.overhead
    assert half.overhead * half.mask_rate == pytest.approx(2, rel=1e-6)
    # With many masks a copy more is tested only to know the noise that there is.
    per_copy = 1 - (1 - 1e-3) ** 17
    assert 1 < planned.overhead < 1.1 / (1 - per_copy - 0.13 / 16)


@pytest.mark.parametrize(
    "options",
    [
        {"amplification": "none", "noise": 0.0},
        {"amplification": "none", "noise": 1e-9},
        {"amplification": "bucket", "noise": 0.02},
    ],
    ids=["unamplified", "unamplified below noise", "too noisy for the largest bucket"],
)
def test_an_epsilon_out_of_reach_is_refused_with_one_that_is_not(options):
    options = dict(options)
    source = Source(disagreement=options.pop("noise"))
    with pytest.raises(ValueError, match=r"`target_epsilon` must be .*") as refusal:
        plan(1e-9, 40, 2, source, **options)
    least = float(re.search(r"at least ([-+.\de]+),", str(refusal.value)).group(1))
    assert 1e-9 < least < 1
    found = plan(least, 40, 2, source, **options)
    assert bounds.epsilon(found, 40, source, steps=2).total <= least
    assert found.bucket <= MAX_BUCKET


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ((1e-6, 100, 1, Source(2)), {}, ["`source`", "three parties"]),
        ((1e-6, 100, 1, Source(disagreement=0.1)), {}, ["`target_epsilon`", "at least 1,"]),
        ((1e-6, 100, 1, Source(disagreement=0.5)), {"amplification": "universal"}, ["at least 1,"]),
        ((0.0, 100, 1, Source()), {}, ["`target_epsilon`", "lie in (0, 1)"]),
        ((1e-6, 0, 1, Source()), {}, ["`size`"]),
        ((1e-6, 100, 0, Source()), {}, ["`steps`"]),
        ((1e-6, 100, 1, Source()), {"max_abort": 1.0}, ["`max_abort`"]),
        ((1e-6, 100, 1, Source()), {"amplification": "hash"}, ["`amplification`"]),
    ],
)
def test_plans_that_cannot_be_are_refused(arguments, options, words):
    with pytest.raises(ValueError, match=r"`.* must .*, but got .*\.") as refusal:
        plan(*arguments, **options)
    assert all(word in str(refusal.value) for word in words)
