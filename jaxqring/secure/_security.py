"""The tests, amplification and correction of a secure collective, and the epsilon they buy.

Two things can be wrong with a copy of a GHZ state, and they cost different things. If the parties'
Z outcomes disagree, someone else may know their masks; if the sum of their Fourier outcomes is not
zero, the sum of the data comes out wrong. Tests and amplification buy secrecy, a correction buys
right sums, and neither does the work of the other.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, get_args

from jaxqring import _checks as checks
from jaxqring._shown import Panel, Shown, in_short
from jaxqring._types import Amplification, CopyTests
from jaxqring.codes._block_codes import BlockCode
from jaxqring.secure._copy_sampling import failures_allowed

#: Of two nodes each would know the other's data from the sum, masked or not.
MIN_PARTIES = 3

#: Probability that a test fails on a copy whose Z outcomes disagree. A Z test sees it. An XY test
#: has the operator (I + |G+><G+| - |G-><G-|) / 2, half the identity on such copies, whoever
#: prepared them; a mixed one is a Z test in one of three cases. All of them are block diagonal
#: between agreeing and disagreeing copies.
DETECTION: dict[CopyTests, float] = {"z": 1.0, "mixed": 2 / 3, "xy": 1 / 2}
#: The fraction of the tests that are Z tests.
Z_SHARE: dict[CopyTests, float] = {"z": 1.0, "mixed": 1 / 3, "xy": 0.0}


@dataclasses.dataclass(frozen=True)
class Security:
    """The tests, amplification and correction of the masks of a collective.

    **Amplification.** "bucket" adds up the masks of `bucket` random copies, which is secret as
    long as fewer than half of them are bad, in superposition also. "universal" multiplies with a
    public random matrix over a prime field. "none" uses the copies as they are: each bad copy
    among them gives one mask away.

    **Correction.** Let H be the 0/1 parity-check matrix of a binary code of distance 2 t + 1. If
    H e = 0 mod 2^b for an e that is not zero, divide e by the largest power of two common to its
    entries and reduce it mod 2: a codeword that is not zero, on part of the support of e. So e
    has 2 t + 1 entries or more that are not zero, and t wrong sums in n can be put right over
    Z_(2^b). Every node publishes H k of its n masks k; what is published adds up to H e. The n - k
    masks on which H is invertible are thrown away, so that it says nothing about those in use.
    Over a prime field of n elements or more, a Reed-Solomon code has these parameters. So that a
    codeword with more than t wrong sums does not pass for a right one, the nodes compare
    `check_masks` random combinations more (derived).

    **XY tests** see a bad copy only if the nodes keep their settings to themselves until all the
    outcomes are in: a coalition that knows them can pass with any copy it prepared.

    Attributes:
      amplification: "bucket", "none" or "universal".
      bucket: raw masks added up for one, odd; meaningful for "bucket" only.
      tests: "z", "mixed" (one in three a Z test) or "xy".
      test_ratio: copies tested per untested copy.
      tolerance: fraction of the tests that may fail; below half of the probability that a bad
        copy is detected (for "universal", below half of the share of Z tests).
      correction: a code of one-bit symbols, as `bch` makes, or None.
      attempts: verifications of fresh copies before a collective is aborted.
      eps_smooth: probability term of the sampling, for "universal".
      eps_amplify: distance left by the random matrix, for "universal".
      eps_correct: probability that a sum left wrong goes unnoticed, with a correction.
      eps_authenticate: probability that a forged classical message of a collective is accepted.

    Raises:
      TypeError: if the correction is not a `BlockCode`, or a number is not real.
      ValueError: if an option is unknown, a number is out of range, the bucket is even, the code
        not binary, or "universal" is combined with "xy" tests.

    >>> Security().masks_needed(1000)
    3000
    """

    amplification: Amplification = "bucket"
    bucket: int = 3
    tests: CopyTests = "z"
    test_ratio: float = 1.0
    tolerance: float = 0.0
    correction: BlockCode | None = None
    attempts: int = 3
    eps_smooth: float = 1e-10
    eps_amplify: float = 1e-10
    eps_correct: float = 1e-12
    eps_authenticate: float = 1e-12

    def __post_init__(self) -> None:
        checks.one_of("amplification", self.amplification, get_args(Amplification))
        checks.one_of("tests", self.tests, get_args(CopyTests))
        if self.amplification == "universal" and self.tests == "xy":
            rule = "include Z tests, which alone bound the rate of universal amplification"
            checks.refuse("tests", rule, self.tests)
        checks.integer("bucket", self.bucket, 3)
        if self.bucket % 2 == 0:
            checks.refuse("bucket", "be odd, so that there is a majority", self.bucket)
        checks.within("test_ratio", self.test_ratio, 0.0, math.inf)
        if not 0 < self.test_ratio < math.inf:
            checks.refuse("test_ratio", "be positive and finite", self.test_ratio)
        checks.within("tolerance", self.tolerance, 0.0, math.inf)
        if not self.tolerance < self.tolerance_bound:
            rule = (
                f"stay below {self.tolerance_bound:g}, where {self.tests!r} tests leave no honest "
                "majority"
            )
            checks.refuse("tolerance", rule, self.tolerance)
        if self.correction is not None:
            checks.instance("correction", self.correction, BlockCode)
            if self.correction.symbol_bits != 1:
                rule = "be a binary code, whose distance alone carries over to Z_(2^b)"
                checks.refuse("correction", rule, self.correction)
        checks.integer("attempts", self.attempts)
        for name in ("eps_smooth", "eps_amplify", "eps_correct", "eps_authenticate"):
            checks.open_interval(name, getattr(self, name))

    @property
    def detection(self) -> float:
        """Probability that a tested copy fails if its Z outcomes disagree."""
        return DETECTION[self.tests]

    @property
    def tolerance_bound(self) -> float:
        """The bound that `tolerance` has to stay below."""
        detection = Z_SHARE if self.amplification == "universal" else DETECTION
        return detection[self.tests] / 2

    @property
    def summed(self) -> int:
        """Raw masks added up for one."""
        return self.bucket if self.amplification == "bucket" else 1

    @property
    def check_masks(self) -> int:
        """Masks of a collective given up to find out whether its corrected sums are right.

        A sum that is wrong shows in a random combination mod 2^b with probability 1/2 or more.
        """
        return 0 if self.correction is None else math.ceil(-math.log2(self.eps_correct))

    def blocks(self, size: int) -> int:
        """Codewords of the correction for `size` coordinates and the checks; `size` without one."""
        checks.integer("size", size)
        if self.correction is None:
            return size
        return -(-(size + self.check_masks) // self.correction.k)

    def masks_needed(self, size: int) -> int:
        """Raw masks, which is untested copies, for a collective.

        Args:
          size: coordinates of the payload.

        Raises:
          ValueError: if `size` is not a positive integer, or the amplification is "universal",
            where the number follows from a rate: see `Epsilon.kept`.
        """
        if self.amplification == "universal":
            rule = "be 'bucket' or 'none' for a number of masks without a rate"
            checks.refuse("amplification", rule, self.amplification)
        length = 1 if self.correction is None else self.correction.n
        return self.blocks(size) * length * self.summed

    def copies_tested(self, kept: int) -> int:
        """Copies tested beside `kept` untested ones.

        >>> Security(test_ratio=0.1).copies_tested(30)
        3
        """
        checks.integer("kept", kept)
        # A ratio such as 0.7 is not a binary fraction, and 0.7 x 10 is to be 7.
        return max(math.ceil(self.test_ratio * kept * (1 - 1e-12)), 1)

    def failures_allowed(self, tested: int) -> int:
        """Of `tested` tests, those that may fail before an attempt is aborted."""
        return failures_allowed(tested, self.tolerance)


@dataclasses.dataclass(frozen=True, repr=False)
class Epsilon(Shown):
    """The security of a secure collective, term by term; all but `total` are of one collective.

    Or of one step of several collectives: terms and numbers add up, `classical_error` is that of
    the worst one, the pass probability that all of them pass, the skip rate that one does not.

    The promise is composable: no one outside the honest parties tells the collective from an ideal
    one, which is either aborted or has perfect masks, better than with probability
    1/2 + `per_step` / 2.

    Attributes:
      sampling: secrecy distance due to bad copies that tests miss, over all attempts.
      amplification: that of the random matrix, over all attempts; 0 but for "universal".
      correctness: probability that a wrong sum goes unnoticed: `eps_correct` with a correction.
        Without one, no wrong sum is noticed, and it is the probability that the honest noise of
        the source makes any sum wrong; it is then no part of `per_step`.
      authentication: probability that a forged classical message is accepted.
      secrecy: sampling + amplification, at most one.
      per_step: secrecy + authentication, and correctness with a correction; at most one.
      total: min(1, steps x per_step). At one the promise is empty, see `is_vacuous`.
      is_vacuous: whether the sum reached one, so that `total` says nothing.
      classical_error: for "bucket" and "none", the largest probability that one attempt passes
        its tests although a mask is not secret; for "paper", that of the sampling.
      kept: untested copies of an attempt.
      tested: copies tested in an attempt.
      copies: kept + tested.
      qubit_copies: qubit GHZ states for them.
      masks: masks ready to be used.
      mask_rate: masks per untested copy.
      overhead: copies per mask.
      pass_probability: that an honest, noisy source passes the tests of an attempt.
      abort_rate: that it does not.
      skip_rate: that all attempts of a collective fail.
      expected_wrong_sums: mean number of the coordinates whose sum is wrong, noticed or not.
      interpretation: the source of this reading of the protocol.
    """

    sampling: float
    amplification: float
    correctness: float
    authentication: float
    secrecy: float
    per_step: float
    total: float
    is_vacuous: bool
    classical_error: float
    kept: int
    tested: int
    copies: int
    qubit_copies: int
    masks: int
    mask_rate: float
    overhead: float
    pass_probability: float
    abort_rate: float
    skip_rate: float
    expected_wrong_sums: float
    interpretation: str

    def _panels(self) -> list[Panel]:
        total = "vacuous" if self.is_vacuous else f"{self.total:.3g}"
        title = f"Epsilon: {self.per_step:.3g} a step, {total} in all"
        names = [field.name for field in dataclasses.fields(self)]
        # Those that the title and the class say already are left out.
        shown = [name for name in names if name not in ("is_vacuous", "interpretation")]
        return [Panel(title, [(name, in_short(getattr(self, name))) for name in shown])]


def together(each: Sequence[Epsilon], steps: int) -> Epsilon:
    """The security of steps of several collectives, from that of each of them."""

    def total(name: str) -> Any:
        return sum(getattr(own, name) for own in each)

    summed = (
        "sampling",
        "amplification",
        "authentication",
        "kept",
        "tested",
        "copies",
        "qubit_copies",
        "masks",
        "expected_wrong_sums",
    )
    per_step, passes = total("per_step"), math.prod(own.pass_probability for own in each)
    return Epsilon(
        **{name: total(name) for name in summed},
        correctness=min(total("correctness"), 1.0),
        secrecy=min(total("secrecy"), 1.0),
        per_step=min(per_step, 1.0),
        total=min(steps * per_step, 1.0),
        is_vacuous=steps * per_step >= 1,
        classical_error=max(own.classical_error for own in each),
        mask_rate=sum(own.mask_rate * own.kept for own in each) / total("kept"),
        overhead=total("copies") / total("masks"),
        pass_probability=passes,
        abort_rate=1 - passes,
        skip_rate=1 - math.prod(1 - own.skip_rate for own in each),
        interpretation=each[0].interpretation,
    )
