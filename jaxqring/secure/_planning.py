"""The cheapest verification that meets a security target."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import scipy  # whose subpackages load when they are first used

from jaxqring import _checks as checks
from jaxqring._types import Amplification, CopyTests
from jaxqring.codes._block_codes import BlockCode
from jaxqring.secure._bounds import (
    PlainSource,
    epsilon,
    honest_failure,
    mask_modulus,
    read_source,
)
from jaxqring.secure._copy_sampling import majority_loss, worst_loss
from jaxqring.secure._rates import copy_error
from jaxqring.secure._security import Epsilon, Security

#: The largest bucket that is tried. One of 255 tolerates a few bad copies in ten.
MAX_BUCKET = 255
#: Copies tested per untested copy that are tried. Most plans end up near 1/16.
RATIOS = tuple(2.0 ** (quarter / 4 - 4) for quarter in sorted(range(-16, 33), key=abs))
#: Masks that are not amplified gain from tests alone.
UNAMPLIFIED_RATIOS = tuple(2.0 ** (quarter / 4) for quarter in range(-16, 41))


def plan(
    target_epsilon: float,
    size: int,
    steps: int,
    source: Any,
    *,
    bits: int = 16,
    amplification: Amplification = "bucket",
    tests: CopyTests = "z",
    correction: BlockCode | None = None,
    attempts: int = 3,
    max_abort: float = 0.01,
    dimension: int | None = None,
) -> Security:
    """Chooses the `Security` with the fewest copies that keeps all collectives below an epsilon.

    The target bounds `Epsilon.total`: secrecy and authentication of all collectives, and with a
    correction the wrong sums that go unnoticed. Without one, wrong sums are reported as
    `Epsilon.correctness` and are no part of the target: they come from the honest noise, and no
    test makes them fewer.

    The tolerance is the smallest at which the source aborts rarely enough. Over a grid of
    `RATIOS`, the bucket is then the smallest odd one that meets the target, up to `MAX_BUCKET`.
    The epsilons that can be chosen get a hundredth of the target for authentication and for
    correctness, but no more than 1e-12 a collective, and for "universal" equal parts of the rest.

    Args:
      target_epsilon: of all collectives, in (0, 1).
      size: coordinates of a collective.
      steps: number of collectives.
      source: as for `epsilon`; its honest noise must pass the tests.
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
      TypeError: if a number is not real.
      ValueError: if an argument is refused by `Security` or `epsilon`, a number is outside its
        interval, or the target cannot be met; the message names one that can.

    >>> from jaxqring.physics.ghz import GHZSource
    >>> chosen = plan(1e-6, 10_000, 100, GHZSource(4))
    >>> chosen.bucket, chosen.tolerance
    (11, 0.0)
    >>> epsilon(chosen, 10_000, GHZSource(4), steps=100).total < 1e-6
    True
    """
    checks.open_interval("target_epsilon", target_epsilon)
    checks.open_interval("max_abort", max_abort)
    checks.integer("size", size)
    checks.integer("steps", steps)
    per_collective = target_epsilon / steps * (1 - 1e-9)
    small = min(1e-12, per_collective / 100)
    secrecy = per_collective - small * (1 if correction is None else 2)
    draft = Security(
        amplification=amplification,
        tests=tests,
        correction=correction,
        attempts=attempts,
        eps_correct=small if correction is not None else 1e-12,
        eps_authenticate=small,
    )
    if amplification == "universal":
        # The smoothing counts twice, and its square once more with mixed tests.
        third = secrecy / (3 * attempts)
        third /= 1 + third
        draft = dataclasses.replace(draft, eps_smooth=third, eps_amplify=third)
    task = _Task(size, steps, read_source(source), bits, dimension, max_abort)
    if amplification == "bucket":
        # The inverse of the map from the classical error to the sampling term in `epsilon`.
        classical_error = copy_error(secrecy**2, 1 / attempts)
        chosen = _smallest_bucket(draft, task, classical_error)
    else:
        chosen = _fewest_copies(draft, task, target_epsilon)
    if chosen is None:
        least = _round_up(min(1.05 * _least_total(draft, task), 1.0))
        rule = f"be at least {least:g}, the smallest that {amplification!r} amplification can meet"
        rule += f" with {tests!r} tests here"
        checks.refuse("target_epsilon", rule, target_epsilon)
    return chosen


@dataclasses.dataclass(frozen=True)
class _Task:
    """The collectives that a plan is for."""

    size: int
    steps: int
    source: PlainSource
    bits: int
    dimension: int | None
    max_abort: float

    def price(self, security: Security) -> Epsilon:
        """The `epsilon` of a candidate."""
        return epsilon(
            security,
            self.size,
            self.source,
            bits=self.bits,
            steps=self.steps,
            dimension=self.dimension,
        )

    def failure(self, security: Security) -> float:
        """Probability that an honest copy fails one test."""
        num_parties = self.source.num_parties
        modulus = mask_modulus(security, num_parties, self.bits, self.dimension)
        return honest_failure(security.tests, self.source, (modulus - 1).bit_length())


def _tolerant(security: Security, tested: int, task: _Task) -> Security | None:
    """`security` with the smallest tolerance that aborts rarely enough; None if out of bounds."""
    failure = task.failure(security)
    low, high = -1, tested
    while high - low > 1:
        middle = (low + high) // 2
        if scipy.special.bdtr(float(middle), tested, failure) >= 1 - task.max_abort:
            high = middle
        else:
            low = middle
    # Half a failure more, so that no rounding of a product matters.
    tolerance = (high + 0.5) / tested if high else 0.0
    if tolerance >= security.tolerance_bound:
        return None
    return dataclasses.replace(security, tolerance=tolerance)


def _smallest_bucket(draft: Security, task: _Task, max_error: float) -> Security | None:
    """The fewest copies over the grid of ratios whose `bucket_error` is at most `max_error`."""
    chosen, fewest, shift = None, math.inf, 1.0

    def meeting(ratio: float, half: int, *, surely: bool) -> Security | None:
        """With a bucket of 2 half + 1, or None if too small; unless `surely`, not for certain."""
        security = dataclasses.replace(draft, bucket=2 * half + 1, test_ratio=ratio)
        untested = security.masks_needed(task.size)
        tested = security.copies_tested(untested)
        tolerant = _tolerant(security, tested, task)
        if tolerant is None:
            return None
        allowed = tolerant.failures_allowed(tested)
        case = untested, tested, security.bucket, allowed, security.detection
        # Close to the maximum. Any value that is too large settles the matter.
        nonlocal shift
        likely = (allowed + half + 1) * (untested + tested) / (tested * security.detection)
        if majority_loss(min(round(likely * shift), untested + tested), *case) > max_error:
            return None
        if surely:
            worst, loss = worst_loss(*case)
            shift = worst / likely  # nearly that of the next cases
            return tolerant if loss <= max_error else None
        return tolerant

    buckets = draft.masks_needed(task.size) // draft.bucket
    for ratio in RATIOS:
        affordable = min(MAX_BUCKET, fewest / (buckets * (1 + ratio)))
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
        untested = best.masks_needed(task.size)
        copies = untested + best.copies_tested(untested)
        if copies < fewest:
            chosen, fewest = best, copies
    return chosen


def _fewest_copies(draft: Security, task: _Task, target: float) -> Security | None:
    """The fewest copies over the grid of ratios, where the ratio is the only choice."""
    meeting = [
        (price.copies, security)
        for security, price in _priced(draft, task)
        if price.total <= target and price.abort_rate <= task.max_abort
    ]
    return min(meeting, key=lambda pair: pair[0])[1] if meeting else None


def _priced(draft: Security, task: _Task) -> Iterator[tuple[Security, Epsilon]]:
    """Candidates and their epsilons, one for each ratio at which the source passes."""
    universal = draft.amplification == "universal"
    for ratio in RATIOS if universal else UNAMPLIFIED_RATIOS:
        security = dataclasses.replace(draft, test_ratio=ratio)
        untested = task.size if universal else security.masks_needed(task.size)
        # The more copies a rate asks for, the smaller the tolerance may be; once more is enough.
        for _ in range(2 if universal else 1):
            tolerant = _tolerant(security, security.copies_tested(untested), task)
            # Where one test may fail, a single bad copy always passes, and nothing amplifies it.
            if tolerant is None or (not universal and tolerant.tolerance > 0):
                break
            try:
                price = task.price(tolerant)
            except ValueError:  # no positive rate
                break
            yield tolerant, price
            untested = price.kept


def _least_total(draft: Security, task: _Task) -> float:
    """The smallest total epsilon on the grid."""
    if draft.amplification != "bucket":
        prices = [price for _, price in _priced(draft, task)]
        prices = [price for price in prices if price.abort_rate <= task.max_abort]
        return min((price.total for price in prices), default=1.0)
    least = 1.0
    for ratio in (min(RATIOS), 1.0, max(RATIOS)):
        security = dataclasses.replace(draft, bucket=MAX_BUCKET, test_ratio=ratio)
        untested = security.masks_needed(task.size)
        tolerant = _tolerant(security, security.copies_tested(untested), task)
        if tolerant is not None:
            least = min(least, task.price(tolerant).total)
    return least


def _round_up(value: float) -> float:
    """`value` rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
