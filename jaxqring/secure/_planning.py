"""The cheapest verification that is as secure as wanted."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import scipy  # whose subpackages load when they are first used

from jaxqring import _checks as checks
from jaxqring.codes._block_codes import BlockCode, check_count
from jaxqring.secure._bounds import (
    PlainSource,
    copy_error,
    epsilon,
    honest_failure,
    mask_modulus,
    read_source,
)
from jaxqring.secure._copy_sampling import check_open, majority_loss, worst_loss
from jaxqring.secure._security import Epsilon, Security

#: The largest bucket that is tried. One of 255 stands a few bad copies in ten.
MAX_BUCKET = 255
#: Copies tested per copy kept that are tried. Most plans end up near 1/16.
RATIOS = tuple(2.0 ** (step / 4 - 4) for step in sorted(range(-16, 33), key=abs))
#: Masks that are not amplified gain from tests alone.
UNAMPLIFIED_RATIOS = tuple(2.0 ** (step / 4) for step in range(-16, 41))


def plan(
    target_epsilon: float,
    size: int,
    steps: int,
    source: Any,
    *,
    bits: int = 16,
    amplification: str = "bucket",
    tests: str = "z",
    correction: BlockCode | None = None,
    attempts: int = 3,
    max_abort: float = 0.01,
    dimension: int | None = None,
) -> Security:
    """The `Security` with the fewest copies that keeps so many steps below an epsilon.

    The target bounds `Epsilon.total`: secrecy and authentication of all steps, and with a
    correction the wrong sums that go unnoticed. Without one, wrong sums are reported as
    `Epsilon.correctness` and are no part of the target: they come from the honest noise, and no
    test makes them fewer.

    The tolerance is the smallest at which the source aborts rarely enough. Over a grid of
    `RATIOS`, the bucket is then the smallest odd one that meets the target, up to `MAX_BUCKET`.
    The epsilons that can be chosen get a hundredth of the target for authentication and for
    correctness, but no more than 1e-12 a step, and for "universal" equal parts of the rest.

    Args:
      target_epsilon: of all steps, in (0, 1).
      size: coordinates of a step.
      steps: collectives.
      source: as for `epsilon`; its honest noise is what must pass the tests.
      bits: of a mask.
      amplification: as for `Security`.
      tests: as for `Security`.
      correction: as for `Security`.
      attempts: as for `Security`.
      max_abort: largest probability that an attempt of an honest source is aborted.
      dimension: as for `epsilon`.

    Returns:
      A `Security` whose `epsilon` for the same size, steps and source is at most the target.

    Raises:
      TypeError, ValueError: if an argument is none of these, or the target cannot be met; the
        message says which can.

    >>> from jaxqring.physics.ghz import GHZSource
    >>> found = plan(1e-6, 10_000, 100, GHZSource(4))
    >>> found.bucket, found.tolerance, epsilon(found, 10_000, GHZSource(4), steps=100).total < 1e-6
    (11, 0.0, True)
    """
    check_open(target_epsilon=target_epsilon, max_abort=max_abort)
    for name, count in (("size", size), ("steps", steps)):
        check_count(name, count, 1)
    share = target_epsilon / steps * (1 - 1e-9)
    small = min(1e-12, share / 100)
    rest = share - small * (1 if correction is None else 2)
    first = Security(
        amplification=amplification,
        tests=tests,
        correction=correction,
        attempts=attempts,
        eps_correct=small if correction is not None else 1e-12,
        eps_authenticate=small,
    )
    if amplification == "universal":
        # The smoothing counts twice, and its square once more with mixed tests.
        third = rest / (3 * attempts)
        third /= 1 + third
        first = dataclasses.replace(first, eps_smooth=third, eps_amplify=third)
    task = _Task(size, steps, read_source(source), bits, dimension, max_abort)
    if amplification == "bucket":
        # The inverse of what `epsilon` makes of the classical error.
        limit = copy_error(rest**2, 1 / attempts)
        found = _smallest_bucket(first, task, limit)
    else:
        found = _fewest_copies(first, task, target_epsilon)
    if found is None:
        least = _round_up(min(1.05 * _least_total(first, task), 1.0))
        rule = f"be at least {least:g}, the smallest that {amplification!r} amplification can meet"
        rule += f" with {tests!r} tests here"
        checks.refuse("target_epsilon", rule, target_epsilon)
    return found


@dataclasses.dataclass(frozen=True)
class _Task:
    """What a plan is for."""

    size: int
    steps: int
    source: PlainSource
    bits: int
    dimension: int | None
    max_abort: float

    def price(self, security: Security) -> Epsilon:
        """What `epsilon` says."""
        return epsilon(
            security,
            self.size,
            self.source,
            bits=self.bits,
            steps=self.steps,
            dimension=self.dimension,
        )

    def failure(self, security: Security) -> float:
        """Probability that one test fails honestly."""
        parties = self.source.num_parties
        modulus = mask_modulus(security, parties, self.bits, self.dimension)
        return honest_failure(security.tests, self.source, (modulus - 1).bit_length())


def _tolerant(security: Security, tested: int, task: _Task) -> Security | None:
    """With the smallest tolerance that aborts rarely enough; None if that is above the bound."""
    failure = task.failure(security)
    low, high = -1, tested
    while high - low > 1:
        middle = (low + high) // 2
        if scipy.special.bdtr(float(middle), tested, failure) >= 1 - task.max_abort:
            high = middle
        else:
            low = middle
    # Half a failure more, for nobody to depend on how a product is rounded.
    tolerance = (high + 0.5) / tested if high else 0.0
    if tolerance >= security.tolerance_bound:
        return None
    return dataclasses.replace(security, tolerance=tolerance)


def _smallest_bucket(first: Security, task: _Task, limit: float) -> Security | None:
    """The fewest copies over the grid of ratios whose `bucket_error` is at most `limit`."""
    found, fewest, shift = None, math.inf, 1.0

    def meeting(ratio: float, half: int, *, surely: bool) -> Security | None:
        """With a bucket of 2 half + 1, if that is enough; unless `surely`, it may not be."""
        security = dataclasses.replace(first, bucket=2 * half + 1, test_ratio=ratio)
        kept = security.masks_needed(task.size)
        tested = security.copies_tested(kept)
        tolerant = _tolerant(security, tested, task)
        if tolerant is None:
            return None
        allowed = tolerant.failures_allowed(tested)
        case = kept, tested, security.bucket, allowed, security.detection
        # Close to where the largest value is. Any value that is too large settles the matter.
        nonlocal shift
        likely = (allowed + half + 1) * (kept + tested) / (tested * security.detection)
        if majority_loss(min(round(likely * shift), kept + tested), *case) > limit:
            return None
        if surely:
            worst, loss = worst_loss(*case)
            shift = worst / likely  # of the next cases, too, more or less
            return tolerant if loss <= limit else None
        return tolerant

    words = first.masks_needed(task.size) // first.bucket
    for ratio in RATIOS:
        affordable = min(MAX_BUCKET, fewest / (words * (1 + ratio)))
        low, top = 0, math.floor((affordable - 1) / 2)
        if top < 1 or meeting(ratio, top, surely=True) is None:
            continue
        high = top
        while high - low > 1:
            middle = (low + high) // 2
            if meeting(ratio, middle, surely=False) is None:
                low = middle
            else:
                high = middle
        sure = (meeting(ratio, half, surely=True) for half in range(high, top + 1))
        best = next(security for security in sure if security is not None)
        kept = best.masks_needed(task.size)
        copies = kept + best.copies_tested(kept)
        if copies < fewest:
            found, fewest = best, copies
    return found


def _fewest_copies(first: Security, task: _Task, target: float) -> Security | None:
    """The fewest copies over the grid of ratios, where nothing else can be chosen."""
    meeting = [
        (price.copies, security)
        for security, price in _priced(first, task)
        if price.total <= target and price.abort_rate <= task.max_abort
    ]
    return min(meeting, key=lambda pair: pair[0])[1] if meeting else None


def _priced(first: Security, task: _Task) -> Iterator[tuple[Security, Epsilon]]:
    """What each ratio gives, with a tolerance at which the source passes."""
    universal = first.amplification == "universal"
    for ratio in RATIOS if universal else UNAMPLIFIED_RATIOS:
        security = dataclasses.replace(first, test_ratio=ratio)
        kept = task.size if universal else security.masks_needed(task.size)
        # The more copies a rate asks for, the smaller the tolerance may be; once is enough.
        for _ in range(2 if universal else 1):
            tolerant = _tolerant(security, security.copies_tested(kept), task)
            # Where one test may fail, a bad copy that is not amplified passes always.
            if tolerant is None or (not universal and tolerant.tolerance > 0):
                break
            try:
                price = task.price(tolerant)
            except ValueError:  # no positive rate
                break
            yield tolerant, price
            kept = price.kept


def _least_total(first: Security, task: _Task) -> float:
    """The smallest epsilon of all steps that the grid has."""
    if first.amplification != "bucket":
        prices = [price for _, price in _priced(first, task)]
        prices = [price for price in prices if price.abort_rate <= task.max_abort]
        return min((price.total for price in prices), default=1.0)
    least = 1.0
    for ratio in (min(RATIOS), 1.0, max(RATIOS)):
        security = dataclasses.replace(first, bucket=MAX_BUCKET, test_ratio=ratio)
        kept = security.masks_needed(task.size)
        tolerant = _tolerant(security, security.copies_tested(kept), task)
        if tolerant is not None:
            least = min(least, task.price(tolerant).total)
    return least


def _round_up(value: float) -> float:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
