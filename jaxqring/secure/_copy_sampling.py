"""What a random sample of the copies says about the others.

"Kept" copies make masks, "tested" ones are measured and gone; which is which is drawn at random
after the copies were handed out. A copy is bad if the honest parties' Z outcomes disagree. Tests
say how many kept copies are bad *in superposition*, and the distance from a perfect secret is the
square root of the probability that the same tests fail on classical errors: Bouman and Fehr,
CRYPTO 2010, Theorem 3. That holds for Z tests, and for XY and mixed ones because their operators
are block diagonal between good and bad copies (derived; the nodes have to keep their settings to
themselves until the outcomes are in).
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import scipy  # whose subpackages load when they are first used

from jaxqring import _checks as checks
from jaxqring.codes._block_codes import check_count


def escape_probability(
    bad: int, tested: int, kept: int, *, allowed: int = 0, detection: float = 1.0
) -> float:
    """The probability that bad copies get through the tests of a step.

    Args:
      bad: bad copies among all; good ones never fail.
      tested: copies tested.
      kept: copies kept.
      allowed: tests that may fail.
      detection: probability that a bad copy fails when it is tested, as in `DETECTION`.

    Returns:
      The probability of `allowed` failures or fewer, to about 1e-7 relative at 10^8 copies.

    Raises:
      ValueError: if a number is outside its domain.

    Source: hypergeometric counting. Half the copies tested, one bad copy escapes half the time.

    >>> [round(escape_probability(bad, 1000, 1000), 6) for bad in (1, 2, 3)]
    [0.5, 0.249875, 0.124812]
    """
    check_counts(bad=(bad, 0), tested=(tested, 1), kept=(kept, 1), allowed=(allowed, 0))
    if bad > tested + kept:
        checks.refuse("bad", f"be at most the {tested + kept} copies", bad)
    checks.within("detection", detection)
    return math.exp(min(_log_escape(bad, kept, tested, allowed, detection, None), 0.0))


def sampling_error(kept: int, tested: int, excess: float) -> float:
    """How likely the kept copies are worse than the tested ones by more than `excess`, or better.

    Args:
      kept: n.
      tested: k.
      excess: between the two fractions of bad copies.

    Returns:
      2 exp(-2 k excess^2 n^2 / (M (n + 1))) with M = n + k, at most one.

    Raises:
      ValueError: if a number is outside its domain.

    Source: Serfling, Ann. Stat. 2, 39 (1974), for sampling without replacement, both sides.

    >>> f"{sampling_error(10_000, 10_000, 0.05):.4e}"
    '2.7845e-11'
    """
    check_counts(kept=(kept, 1), tested=(tested, 1))
    checks.within("excess", excess)
    exponent = 2 * tested * excess**2 * kept**2 / ((kept + tested) * (kept + 1))
    return min(2 * math.exp(-exponent), 1.0)


def sampling_excess(kept: int, tested: int, eps_smooth: float) -> float:
    """What to add to the tested error rate so that the kept one is below it.

    Args:
      kept: n.
      tested: k, Z tests only.
      eps_smooth: the kept rate is above with probability eps_smooth^2 at most.

    Returns:
      mu = sqrt((n + k) (k + 1) ln(1 / eps_smooth) / (n k^2)); above one, it says nothing.

    Raises:
      ValueError: if a number is outside its domain.

    Source: Tomamichel, Lim, Gisin and Renner, Nat. Commun. 3, 634 (2012).

    >>> round(sampling_excess(100_000, 100_000, 1e-10), 7)
    0.0214598
    """
    check_counts(kept=(kept, 1), tested=(tested, 1))
    check_open(eps_smooth=eps_smooth)
    spread = (kept + tested) * (tested + 1) / (kept * tested**2)
    return math.sqrt(-spread * math.log(eps_smooth))


def bucket_error(
    kept: int, tested: int, bucket: int, allowed: int = 0, detection: float = 1.0
) -> float:
    """The probability that the tests pass although bad copies are a majority in some bucket.

    Args:
      kept: n, a multiple of `bucket`.
      tested: k.
      bucket: B, odd; 1 for masks without amplification, where no kept copy may be bad.
      allowed: tests that may fail.
      detection: probability that a bad copy fails when it is tested.

    Returns:
      The largest value, over e bad copies of which j are tested, of
      E_j[Pr[pass | j] min(1, (n / B) Pr[Hyp(n, e - j, B) >= (B + 1) / 2])]. The masks are secret
      to its square root.

    Raises:
      ValueError: if a number is outside its domain.

    Source: derived. A sum of B masks is secret if fewer than half of them are bad, in any
    superposition: the Z outcomes tell such patterns of errors from their complements as a
    repetition code does. The expectation over j is what Bouman and Fehr's Theorem 3 asks for;
    the product of the two expectations bounds it and equals it if no test may fail.

    >>> f"{bucket_error(30_000, 30_000, 3):.5e}"
    '2.49990e-05'
    """
    check_counts(kept=(kept, 1), tested=(tested, 1), bucket=(bucket, 1), allowed=(allowed, 0))
    if bucket % 2 == 0:
        checks.refuse("bucket", "be odd", bucket)
    if kept % bucket:
        checks.refuse("kept", f"be a multiple of bucket = {bucket}", kept)
    checks.within("detection", detection)
    return worst_loss(kept, tested, bucket, allowed, float(detection))[1]


def majority_loss(
    bad: int, kept: int, tested: int, bucket: int, allowed: int = 0, detection: float = 1.0
) -> float:
    """What `bucket_error` takes the largest value of, for one number of bad copies.

    >>> f"{majority_loss(3, 30_000, 30_000, 3):.5e}"
    '2.49990e-05'
    """
    return math.exp(min(_log_escape(bad, kept, tested, allowed, detection, bucket), 0.0))


def failures_allowed(tested: int, tolerance: float) -> int:
    """Tests that may fail before a step is aborted: floor(tolerance tested).

    >>> failures_allowed(100, 0.29)
    29
    """
    # 0.29 is no binary fraction, and 0.29 x 100 falls short of 29 in floating point.
    return math.floor(tolerance * tested * (1 + 1e-12))


def pass_probability(tested: int, error: float, tolerance: float) -> float:
    """The probability that an honest but noisy source passes.

    Args:
      tested: k.
      error: probability that a test fails, independently of the others.
      tolerance: fraction of the tests that may fail.

    Returns:
      The binomial distribution function at floor(tolerance k).

    Raises:
      ValueError: if a number is outside its domain.

    >>> round(pass_probability(10_000, 0.01, 0.015), 9)
    0.999998921
    """
    check_counts(tested=(tested, 1))
    checks.within("error", error)
    checks.within("tolerance", tolerance)
    allowed = failures_allowed(tested, tolerance)
    return 1.0 if allowed >= tested else float(scipy.special.bdtr(float(allowed), tested, error))


def check_counts(**counts: tuple[int, int]) -> None:
    """Refuses what is no integer of at least the least: name=(value, least)."""
    for name, (value, least) in counts.items():
        check_count(name, value, least)


def check_open(**values: float) -> None:
    """Refuses values outside the open interval (0, 1)."""
    for name, value in values.items():
        checks.within(name, value)
        if not 0 < value < 1:
            checks.refuse(name, "lie strictly between 0 and 1", value)


def _log_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
    n, k = np.asarray(n, dtype=float), np.asarray(k, dtype=float)
    return -np.log1p(n) - scipy.special.betaln(n - k + 1, k + 1)


def _log_bad_majority(bad: np.ndarray, kept: int, bucket: int) -> np.ndarray:
    """Log of a bound on the probability that some bucket of the kept copies has a bad majority."""
    least = (bucket + 1) // 2
    if kept == bucket:
        return np.where(bad >= least, 0.0, -np.inf)
    # From half the copies on, a majority is at least as likely as not in each of two buckets.
    few = np.clip(bad, least, kept // 2).astype(float)
    logs = _log_choose(few, least) + _log_choose(kept - few, bucket - least)
    term, tail = np.ones_like(few), np.ones_like(few)
    for hits in range(least, bucket):
        term = term * np.maximum(few - hits, 0) * (bucket - hits)
        term /= (hits + 1) * (kept - few - bucket + hits + 1)
        tail += term
        # The ratio of neighbours falls, so the rest is smaller than a geometric series.
        if hits > least and np.max(term / tail) < 1e-17:
            break
    logs = logs + np.log(tail) - _log_choose(kept, bucket) + math.log(kept / bucket)
    logs = np.where(bad > kept // 2, 0.0, np.minimum(logs, 0.0))
    return np.where(bad >= least, logs, -np.inf)


def _log_escape(
    bad: int, kept: int, tested: int, allowed: int, detection: float, bucket: int | None
) -> float:
    """Log of E_j[Pr[pass | j of the bad copies tested] x Pr[a bad majority]]."""
    low, high = max(0, bad - kept), min(bad, tested)
    if detection == 1:
        high = min(high, allowed)
    if bucket is not None:
        high = min(high, bad - (bucket + 1) // 2)
    if low > high:
        return -math.inf
    total = kept + tested

    def log_terms(hit: np.ndarray) -> np.ndarray:
        logs = _log_choose(bad, hit) + _log_choose(total - bad, tested - hit)
        logs = logs - _log_choose(total, tested)
        if detection < 1:
            beyond = np.maximum(hit, allowed)
            with np.errstate(divide="ignore"):  # a probability below 1e-308
                logs = logs + np.log(scipy.special.bdtr(float(allowed), beyond, detection))
        return logs if bucket is None else logs + _log_bad_majority(bad - hit, kept, bucket)

    # Each factor is log-concave in j, so the terms have one peak and fall off from it at least as
    # fast as the hypergeometric weights: beyond eight standard deviations nothing is left.
    share = bad / total
    reach = 8 * math.sqrt(tested * share * (1 - share) * kept / total) + 60
    first, last = low, high
    while last - first > reach / 4 + 64:
        points = np.unique(np.linspace(first, last, 33).astype(np.int64))
        best = int(np.argmax(log_terms(points)))
        first, last = int(points[max(best - 1, 0)]), int(points[min(best + 1, len(points) - 1)])
    ends = max(low, math.floor(first - reach)), min(high, math.ceil(last + reach))
    logs = log_terms(np.arange(ends[0], ends[1] + 1))
    most = float(np.max(logs))
    return most if most == -math.inf else most + math.log(float(np.sum(np.exp(logs - most))))


@functools.lru_cache(maxsize=4096)
def worst_loss(
    kept: int, tested: int, bucket: int, allowed: int, detection: float
) -> tuple[int, float]:
    """The number of bad copies that is worst, and `majority_loss` for it, unchecked."""

    @functools.cache
    def value(bad: int) -> float:
        return _log_escape(bad, kept, tested, allowed, detection, bucket)

    # What gets past the tests becomes ever less likely, and bounds all that comes after.
    points, best = [(bucket + 1) // 2], -math.inf
    while points[-1] < kept + tested:
        best = max(best, value(points[-1]))
        if _log_escape(points[-1], kept, tested, allowed, detection, None) < best - 1e-9:
            break
        points.append(min(2 * points[-1], kept + tested))
    top = max(range(len(points)), key=lambda i: value(points[i]))
    found = _peak(value, points[max(top - 1, 0)], points[min(top + 1, len(points) - 1)])
    return found, math.exp(min(value(found), 0.0))


def _peak(value: Callable[[int], float], low: int, high: int) -> int:
    """Where a function of an integer that rises and then falls is largest, to 1e-9."""
    while high - low > 4:
        points = [low + (high - low) * quarter // 4 for quarter in range(5)]
        best = max(range(5), key=lambda i: value(points[i]))
        if value(points[best]) - min(value(points[0]), value(points[-1])) < 1e-9:
            return points[best]
        low, high = points[max(best - 1, 0)], points[min(best + 1, 4)]
    return max(range(low, high + 1), key=value)
