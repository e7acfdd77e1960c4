"""The cheapest verification that meets a security target."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
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
    sizes_and_bits,
)
from jaxqring.secure._copy_sampling import majority_loss, worst_loss
from jaxqring.secure._rates import copy_error
from jaxqring.secure._security import Epsilon, Security, together

#: The largest bucket that is tried. One of 255 tolerates a few bad copies in ten.
MAX_BUCKET = 255
#: Copies tested per untested copy that are tried. Most plans end up near 1/16.
RATIOS = tuple(2.0 ** (quarter / 4 - 4) for quarter in sorted(range(-16, 33), key=abs))
#: Masks that are not amplified gain from tests alone.
UNAMPLIFIED_RATIOS = tuple(2.0 ** (quarter / 4) for quarter in range(-16, 41))


def plan(
    target_epsilon: float,
    size: int | tuple[int, ...],
    steps: int,
    source: Any,
    *,
    bits: int | tuple[int, ...] = 16,
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

    A step is one collective, or several of unlike size, as those of a compressor are, which all
    use the one `Security`: what counts is the sum of their epsilons and of their copies.

    The tolerance is the smallest at which the source aborts rarely enough. Over a grid of
    `RATIOS`, the bucket is then the smallest odd one that meets the target, up to `MAX_BUCKET`.
    The epsilons that can be chosen get a hundredth of the target for authentication and for
    correctness, but no more than 1e-12 a collective, and for "universal" equal parts of the rest.

    Args:
      target_epsilon: of all collectives, in (0, 1).
      size: coordinates of a collective; a tuple for those of a step.
      steps: number of collectives, or of steps of several.
      source: as for `epsilon`; its honest noise must pass the tests.
      bits: of a mask; a tuple where the collectives of a step have unlike ones.
      amplification: as for `Security`.
      tests: as for `Security`.
      correction: as for `Security`.
      attempts: as for `Security`.
      max_abort: largest probability that an attempt of an honest source is aborted, in any one
        collective.
      dimension: as for `epsilon`.

    Returns:
      A `Security` whose `epsilon` for the same size, steps and source is at most the target.

    Raises:
      TypeError: if a number is not real.
      ValueError: if an argument is refused by `Security` or `epsilon`, a number is outside its
        interval, or the target cannot be met; the message names one that can.

    >>> from jaxqring import GHZSource
    >>> chosen = plan(1e-6, 10_000, 100, GHZSource(4))
    >>> chosen.bucket, chosen.tolerance
    (11, 0.0)
    >>> epsilon(chosen, 10_000, GHZSource(4), steps=100).total < 1e-6
    True
    >>> plan(1e-6, (10_000, 400), 100, GHZSource(4), bits=(16, 6)).bucket
    17
    """
    checks.open_interval("target_epsilon", target_epsilon)
    checks.open_interval("max_abort", max_abort)
    collectives = sizes_and_bits(size, bits)
    checks.integer("steps", steps)
    per_collective = target_epsilon / (steps * len(collectives)) * (1 - 1e-9)
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
    task = _Task(collectives, steps, read_source(source), dimension, max_abort)
    if amplification == "bucket":
        chosen = _smallest_bucket(draft, task, secrecy * len(collectives))
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

    collectives: tuple[tuple[int, int], ...]  # of a step: size and bits
    steps: int
    source: PlainSource
    dimension: int | None
    max_abort: float

    @property
    def sizes(self) -> list[int]:
        """Of the collectives of a step."""
        return [size for size, _ in self.collectives]

    def prices(self, security: Security) -> list[Epsilon]:
        """The `epsilon` of a candidate, for each collective of a step."""
        return [
            epsilon(
                security,
                size,
                self.source,
                bits=bits,
                steps=self.steps,
                dimension=self.dimension,
            )
            for size, bits in self.collectives
        ]

    def total(self, prices: list[Epsilon]) -> float:
        """The epsilon of all collectives of all steps, from `prices`."""
        return prices[0].total if len(prices) == 1 else together(prices, self.steps).total

    def failures(self, security: Security) -> list[float]:
        """Probabilities that an honest copy for each collective fails one test."""
        moduli = (
            mask_modulus(security, self.source.num_parties, bits, self.dimension)
            for _, bits in self.collectives
        )
        return [
            honest_failure(security.tests, self.source, (modulus - 1).bit_length())
            for modulus in moduli
        ]


def _tolerance(tested: int, failure: float, max_abort: float) -> float:
    """The smallest tolerance at which tests of honest copies abort rarely enough."""
    low, high = -1, tested
    while high - low > 1:
        middle = (low + high) // 2
        if scipy.special.bdtr(float(middle), tested, failure) >= 1 - max_abort:
            high = middle
        else:
            low = middle
    # Half a failure more, so that no rounding of a product matters.
    return (high + 0.5) / tested if high else 0.0


def _tolerant(security: Security, tested: list[int], task: _Task) -> Security | None:
    """`security` with the smallest tolerance that aborts rarely enough; None if out of bounds."""
    cases = zip(tested, task.failures(security), strict=True)
    tolerance = max(_tolerance(count, failure, task.max_abort) for count, failure in cases)
    if tolerance >= security.tolerance_bound:
        return None
    return dataclasses.replace(security, tolerance=tolerance)


def _smallest_bucket(draft: Security, task: _Task, secrecy: float) -> Security | None:
    """The fewest copies over the grid of ratios at which sampling costs `secrecy` or less."""
    chosen, fewest, shifts = None, math.inf, [1.0] * len(task.sizes)

    def is_lost(losses: Iterable[float]) -> bool:
        return sum(math.sqrt(copy_error(loss, draft.attempts)) for loss in losses) > secrecy

    def meeting(ratio: float, half: int, *, surely: bool) -> Security | None:
        """With a bucket of 2 half + 1, or None if too small; unless `surely`, not for certain."""
        security = dataclasses.replace(draft, bucket=2 * half + 1, test_ratio=ratio)
        untested = [security.masks_needed(size) for size in task.sizes]
        tested = [security.copies_tested(kept) for kept in untested]
        tolerant = _tolerant(security, tested, task)
        if tolerant is None:
            return None
        cases, likely, losses = [], [], []
        for kept, tests, shift in zip(untested, tested, shifts, strict=True):
            allowed = tolerant.failures_allowed(tests)
            cases.append((kept, tests, security.bucket, allowed, security.detection))
            # Close to the maximum. Any value that is too large settles the matter.
            likely.append((allowed + half + 1) * (kept + tests) / (tests * security.detection))
            losses.append(majority_loss(min(round(likely[-1] * shift), kept + tests), *cases[-1]))
        if is_lost(losses):
            return None
        if surely:
            worst = [worst_loss(*case) for case in cases]
            # Nearly those of the next cases.
            shifts[:] = [bad / own for (bad, _), own in zip(worst, likely, strict=True)]
            return None if is_lost(loss for _, loss in worst) else tolerant
        return tolerant

    buckets = sum(draft.masks_needed(size) // draft.bucket for size in task.sizes)
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
        kept = [best.masks_needed(size) for size in task.sizes]
        copies = sum(kept) + sum(best.copies_tested(own) for own in kept)
        if copies < fewest:
            chosen, fewest = best, copies
    return chosen


def _fewest_copies(draft: Security, task: _Task, target: float) -> Security | None:
    """The fewest copies over the grid of ratios, where the ratio is the only choice."""
    meeting = [
        (sum(price.copies for price in prices), security)
        for security, prices in _priced(draft, task)
        if task.total(prices) <= target and _aborts_rarely(prices, task)
    ]
    return min(meeting, key=lambda pair: pair[0])[1] if meeting else None


def _aborts_rarely(prices: list[Epsilon], task: _Task) -> bool:
    return all(price.abort_rate <= task.max_abort for price in prices)


def _priced(draft: Security, task: _Task) -> Iterator[tuple[Security, list[Epsilon]]]:
    """Candidates and their epsilons, one for each ratio at which the source passes."""
    universal = draft.amplification == "universal"
    for ratio in RATIOS if universal else UNAMPLIFIED_RATIOS:
        security = dataclasses.replace(draft, test_ratio=ratio)
        untested = task.sizes
        if not universal:
            untested = [security.masks_needed(size) for size in task.sizes]
        # The more copies a rate asks for, the smaller the tolerance may be; once more is enough.
        for _ in range(2 if universal else 1):
            tested = [security.copies_tested(kept) for kept in untested]
            tolerant = _tolerant(security, tested, task)
            # Where one test may fail, a single bad copy always passes, and nothing amplifies it.
            if tolerant is None or (not universal and tolerant.tolerance > 0):
                break
            try:
                prices = task.prices(tolerant)
            except ValueError:  # no positive rate
                break
            yield tolerant, prices
            untested = [price.kept for price in prices]


def _least_total(draft: Security, task: _Task) -> float:
    """The smallest total epsilon on the grid."""
    if draft.amplification != "bucket":
        each = [prices for _, prices in _priced(draft, task)]
        totals = [task.total(prices) for prices in each if _aborts_rarely(prices, task)]
        return min(totals, default=1.0)
    least = 1.0
    for ratio in (min(RATIOS), 1.0, max(RATIOS)):
        security = dataclasses.replace(draft, bucket=MAX_BUCKET, test_ratio=ratio)
        tested = [security.copies_tested(security.masks_needed(size)) for size in task.sizes]
        tolerant = _tolerant(security, tested, task)
        if tolerant is not None:
            least = min(least, task.total(task.prices(tolerant)))
    return least


def _round_up(value: float) -> float:
    """`value` rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
