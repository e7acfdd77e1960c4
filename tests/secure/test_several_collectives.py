"""The epsilon of steps of several collectives, and plans whose target bounds the sum of all."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pytest

from jaxqring.codes import secded
from jaxqring.compress import PowerSGD
from jaxqring.secure import _bounds as bounds
from jaxqring.secure._planning import plan
from jaxqring.secure._security import Security


class Source(NamedTuple):
    """All that the accounts read of a source."""

    num_parties: int = 4
    x_error: float = 0.0
    disagreement: float = 0.0


NOISY = Source(x_error=3e-5, disagreement=1e-4)
SIZES, BITS = (3000, 200, 900), (16, 8, 10)
SECURITIES = {
    "buckets": Security(bucket=5, tolerance=0.01),
    "unamplified": Security("none", test_ratio=20.0),
    "universal": Security("universal", tolerance=0.02),
    "corrected": Security(tests="mixed", tolerance=0.02, correction=secded(72, 64)),
}
CAPPED = ("correctness", "secrecy", "per_step")  # at one
ADDED = (
    *("sampling", "amplification", "authentication", "expected_wrong_sums", *CAPPED),
    *("kept", "tested", "copies", "qubit_copies", "masks"),
)


def each_and_all(security, steps=3, **options):
    each = [
        bounds.epsilon(security, size, NOISY, bits=bits, steps=steps, **options)
        for size, bits in zip(SIZES, BITS, strict=True)
    ]
    return each, bounds.epsilon(security, SIZES, NOISY, bits=BITS, steps=steps, **options)


@pytest.mark.parametrize("mode", ["composable", "paper"])
@pytest.mark.parametrize("name", SECURITIES)
def test_the_terms_of_several_collectives_add_up(name, mode):
    each, found = each_and_all(SECURITIES[name], mode=mode)
    for term in ADDED:
        most = 1 if term in CAPPED else math.inf
        total = min(sum(getattr(own, term) for own in each), most)
        assert getattr(found, term) == pytest.approx(total, rel=1e-12)
    assert found.total == pytest.approx(min(1, sum(own.total for own in each)), rel=1e-12)
    assert found.is_vacuous == (sum(own.total for own in each) >= 1)
    assert found.classical_error == max(own.classical_error for own in each)
    passes = np.prod([own.pass_probability for own in each])
    assert found.pass_probability == pytest.approx(passes, rel=1e-12)
    assert found.abort_rate == pytest.approx(1 - passes, rel=1e-9, abs=1e-15)
    kept = np.prod([1 - own.skip_rate for own in each])
    assert found.skip_rate == pytest.approx(1 - kept, rel=1e-9, abs=1e-15)
    assert found.overhead == pytest.approx(found.copies / found.masks)
    if mode == "composable":
        assert found.mask_rate == pytest.approx(found.masks / found.kept)
    assert found.interpretation == each[0].interpretation


def test_the_sum_may_say_nothing_where_each_still_does():
    each, found = each_and_all(Security(bucket=3, tolerance=0.001), steps=6)
    assert not any(own.is_vacuous for own in each)
    assert found.is_vacuous
    assert found.total == 1


@pytest.mark.parametrize("name", SECURITIES)
def test_a_tuple_of_one_is_the_number_in_it(name):
    alone = bounds.epsilon(SECURITIES[name], 900, NOISY, bits=8, steps=5)
    assert bounds.epsilon(SECURITIES[name], (900,), NOISY, bits=(8,), steps=5) == alone
    assert bounds.epsilon(SECURITIES[name], (900,), NOISY, bits=8, steps=5) == alone


@pytest.mark.parametrize("amplification", ["bucket", "universal", "none"])
def test_a_plan_for_a_tuple_of_one_is_that_for_the_number_in_it(amplification):
    source = Source() if amplification == "none" else NOISY
    target = 0.5 if amplification == "none" else 1e-6
    options = {"amplification": amplification, "bits": 8}
    alone = plan(target, 900, 5, source, **options)
    assert plan(target, (900,), 5, source, **options | {"bits": (8,)}) == alone


@pytest.mark.parametrize("correction", [None, secded(72, 64)])
@pytest.mark.parametrize("amplification", ["bucket", "universal"])
@pytest.mark.parametrize("source", [Source(), NOISY], ids=["quiet", "noisy"])
def test_a_plan_for_several_keeps_its_word(amplification, source, correction):
    options = {"amplification": amplification, "bits": BITS, "correction": correction}
    found = plan(1e-6, SIZES, 50, source, **options)
    each = [
        bounds.epsilon(found, size, source, bits=bits, steps=50)
        for size, bits in zip(SIZES, BITS, strict=True)
    ]
    assert sum(own.total for own in each) <= 1e-6
    assert max(own.abort_rate for own in each) <= 0.01
    # The lowest tolerance: of tests as many as these, one allowed failure less is too few.
    if source == NOISY:
        tight = [
            dataclasses.replace(found, tolerance=found.tolerance - 1 / own.tested) for own in each
        ]
        abort = [
            bounds.epsilon(lower, size, source, bits=bits).abort_rate
            for lower, size, bits in zip(tight, SIZES, BITS, strict=True)
        ]
        assert max(abort) > 0.01
    assert all(own.masks >= size for own, size in zip(each, SIZES, strict=True))


@pytest.mark.parametrize("source", [Source(), NOISY], ids=["quiet", "noisy"])
def test_a_plan_for_several_wastes_nothing(source):
    found = plan(1e-6, SIZES, 50, source, bits=BITS)
    price = bounds.epsilon(found, SIZES, source, bits=BITS, steps=50)
    smaller = dataclasses.replace(found, bucket=found.bucket - 2)
    assert bounds.epsilon(smaller, SIZES, source, bits=BITS, steps=50).total > 1e-6
    # The plan of the smallest collective at its share is the strictest, and does for all.
    shares = [
        plan(1e-6 / 3, size, 50, source, bits=bits) for size, bits in zip(SIZES, BITS, strict=True)
    ]
    strict = shares[1]
    shared = bounds.epsilon(strict, SIZES, source, bits=BITS, steps=50)
    assert shared.total <= 1e-6
    assert price.copies <= shared.copies
    # No single one of them does with less, and apart they cannot be dearer than together.
    apart = [
        bounds.epsilon(own, size, source, bits=bits)
        for own, size, bits in zip(shares, SIZES, BITS, strict=True)
    ]
    assert sum(own.copies for own in apart) <= shared.copies
    loose = bounds.epsilon(shares[0], SIZES, source, bits=BITS, steps=50)
    assert loose.total > 1e-6


def test_equal_collectives_are_steps_of_one():
    found = plan(1e-6, (900, 900), 50, NOISY, bits=8)
    single = plan(1e-6, 900, 100, NOISY, bits=8)
    assert dataclasses.replace(found, eps_authenticate=0.5) == dataclasses.replace(
        single, eps_authenticate=0.5
    )


def test_a_target_out_of_reach_of_several_is_refused_with_one_that_is_not():
    for amplification, source in (("none", Source()), ("bucket", Source(disagreement=0.02))):
        with pytest.raises(ValueError, match=r"`target_epsilon` must be at least") as refusal:
            plan(1e-9, (40, 7), 2, source, amplification=amplification)
        least = float(str(refusal.value).split("at least ")[1].split(",")[0])
        if least < 1:
            found = plan(least, (40, 7), 2, source, amplification=amplification)
            assert bounds.epsilon(found, (40, 7), source, steps=2).total <= least


def test_the_messages_of_a_compressor_are_planned():
    tree = {"w": np.zeros((300, 200)), "b": np.zeros(200)}
    messages = PowerSGD(rank=2).messages(tree, num_nodes=4)
    sizes, bits = (tuple(getattr(own, name) for own in messages) for name in ("size", "bits"))
    assert sizes == (800, 400)
    found = plan(1e-6, sizes, 1000, NOISY, bits=bits)
    assert bounds.epsilon(found, sizes, NOISY, bits=bits, steps=1000).total <= 1e-6


@pytest.mark.parametrize(
    "size, bits, words",
    [
        ((), 16, ["`size`", "a tuple of at least one"]),
        ((5, 0), 16, ["`size`", "at least 1"]),
        ((5, 6), (16,), ["`bits`", "one for each of 2 sizes"]),
        (5, (16, 8), ["`bits`", "one for each of 1 sizes"]),
        ((5, 6), (16, 33), ["`bits`", "[1, 32]"]),
        ([5, 6], 16, ["`size`"]),
    ],
)
def test_malformed_steps_are_refused(size, bits, words):
    for call in (
        lambda: bounds.epsilon(Security(), size, Source(), bits=bits),
        lambda: plan(1e-6, size, 1, Source(), bits=bits),
    ):
        with pytest.raises(ValueError, match=r"`.* must .*, but got .*\.") as refusal:
            call()
        assert all(word in str(refusal.value) for word in words)
