"""What an aggregation with verified GHZ states gives away, and how often it is wrong.

Everything here is a number known before the program runs: floats on the host, never traced. The
paper claims composable security at twice the GHZ copies; which terms make it up is our
reconstruction, from the sampling bounds of `sampling` and the rates of `rates`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import scipy  # whose subpackages load when they are first used

from jaxqring import _checks as checks
from jaxqring.codes._block_codes import check_count
from jaxqring.secure._copy_sampling import (
    bucket_error,
    escape_probability,
    failures_allowed,
    pass_probability,
    sampling_error,
    sampling_excess,
)
from jaxqring.secure._masks import is_prime
from jaxqring.secure._rates import (
    adversarial_tests,
    asymptotic_mask_rate,
    conference_key_rate,
    copy_error,
    mask_rate,
    secrecy_distance,
    tests_needed,
)
from jaxqring.secure._security import Z_SHARE, Epsilon, Security

__all__ = [
    "INTERPRETATIONS",
    "Epsilon",
    "PlainSource",
    "adversarial_tests",
    "asymptotic_mask_rate",
    "bucket_error",
    "conference_key_rate",
    "copy_error",
    "epsilon",
    "escape_probability",
    "failures_allowed",
    "honest_failure",
    "kept_copies",
    "mask_modulus",
    "mask_rate",
    "pass_probability",
    "read_source",
    "sampling_error",
    "sampling_excess",
    "secrecy_distance",
    "sum_error_probability",
    "tests_needed",
]

INTERPRETATIONS = {
    "composable": "finite-size bounds of the literature, put together by us",
    "paper": "our interpretation of composable security at twice the GHZ copies",
}


def sum_error_probability(security: Security, x_error: float, qubits: int) -> float:
    """The probability that a sum is wrong before it is corrected, at most.

    Args:
      security: how many raw masks are added up.
      x_error: that the Fourier outcomes of one qubit copy have a wrong sum.
      qubits: qubit copies in a mask.

    Returns:
      1 - (1 - x_error)^(qubits summed). It is exact for one raw mask; errors of several may
      cancel, which this counts as wrong.

    >>> round(sum_error_probability(Security(bucket=3), 1e-4, 16), 6)
    0.004789
    """
    return copy_error(x_error, qubits * security.summed)


def honest_failure(tests: str, source: Any, qubits: int) -> float:
    """The probability that an honest copy of so many qubit GHZ states fails one test.

    >>> from jaxqring.physics.channels import depolarizing
    >>> from jaxqring.physics.ghz import GHZSource
    >>> noisy = GHZSource(4, noise=depolarizing(mix=0.05))
    >>> [round(1 - honest_failure(tests, noisy, 1), 5) for tests in ("xy", "mixed")]
    [0.90725, 0.90606]
    """
    _, x_error, disagreement = read_source(source)
    share = Z_SHARE[tests]
    return share * copy_error(disagreement, qubits) + (1 - share) * copy_error(x_error, qubits)


def kept_copies(
    security: Security,
    size: int,
    source: Any,
    *,
    bits: int = 16,
    dimension: int | None = None,
) -> int:
    """Copies kept for a step, also where their number follows from a rate.

    Args:
      security: tests, amplification and correction.
      size: coordinates of the payload.
      source: as for `epsilon`.
      bits: as for `epsilon`.
      dimension: as for `epsilon`.

    Returns:
      `Security.masks_needed`, or for "universal" the fewest from which enough masks can be made.

    Raises:
      ValueError: if universal amplification has no positive rate at this tolerance.

    >>> from jaxqring.physics.ghz import GHZSource
    >>> kept_copies(Security("universal"), 100_000, GHZSource(4))
    103136
    """
    parties = read_source(source).num_parties
    if security.amplification != "universal":
        return security.masks_needed(size)
    check_count("size", size, 1)
    modulus = mask_modulus(security, parties, bits, dimension)
    length = 1 if security.correction is None else security.correction.n
    needed = size + security.check_masks

    def enough(blocks: int) -> bool:
        return _universal_masks(security, blocks * length, modulus) >= needed

    few, many = 0, -(-needed // length)
    while not enough(many):
        few, many = many, 2 * many
        if many > 64 * needed + 2**30:
            rule = "leave universal amplification a positive rate"
            checks.refuse("tolerance", rule, security.tolerance)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many * length


def epsilon(
    security: Security,
    size: int,
    source: Any,
    *,
    bits: int = 16,
    steps: int = 1,
    dimension: int | None = None,
    mode: str = "composable",
    excess: float = 0.05,
) -> Epsilon:
    """What so many secure steps promise together.

    A step may verify fresh copies `attempts` times, and an adversary may try as often: with the
    classical error c of one attempt, that of the step is 1 - (1 - c)^attempts.

    * "bucket": the sampling term is the square root of that, for the c of `bucket_error`.
    * "none": the same with buckets of one, where no kept copy may be bad; and never below
      `secrecy_distance` of the source's honest noise summed over all kept qubit copies.
    * "universal": attempts x 2 eps_smooth, and attempts x eps_amplify, at the rate of `mask_rate`.
    * mode "paper": half of the copies are tested and the others used as they are; epsilon is the
      square root of `sampling_error`. It is our interpretation of "twice the GHZ copies", and no
      composable bound on the secrecy of every mask: one planted bad copy passes half the time.
      `mask_rate` is what the composable formula would leave of those copies.

    Args:
      security: tests, amplification and correction.
      size: coordinates of a step.
      source: has `num_parties`, `x_error` and `disagreement` of a qubit copy, as `GHZSource`.
      bits: of a mask mod 2^bits, which takes as many qubit copies; in [1, 32].
      steps: collectives; their epsilons add up.
      dimension: prime modulus of the masks in place of 2^bits, taking ceil(log2 dimension) qubit
        copies. Universal amplification needs one; None is the smallest prime above
        N 2^(bits - ceil(log2 N)), the largest sum that `bits` have room for.
      mode: "composable" or "paper".
      excess: between the error rates of kept and tested copies, for "paper" only.

    Returns:
      An `Epsilon`, every term by its name.

    Raises:
      TypeError, ValueError: if an argument is none of these, fewer than three parties take part,
        or universal amplification has no positive rate.

    Source: the terms' own; composition by Mueller-Quade and Renner, New J. Phys. 11, 085006 (2009).

    >>> from jaxqring.physics.ghz import GHZSource
    >>> step = epsilon(Security(attempts=1), 10_000, GHZSource(4))
    >>> round(step.total, 6), step.overhead
    (0.005, 6.0)
    """
    checks.instance("security", security, Security)
    source = read_source(source)
    parties, x_error, disagreement = source
    for name, count in (("size", size), ("steps", steps), ("bits", bits)):
        check_count(name, count, 1)
    checks.within("bits", bits, 1, 32)
    checks.one_of("mode", mode, ("composable", "paper"))
    universal, code = security.amplification == "universal", security.correction
    if mode == "paper":
        security = dataclasses.replace(
            security, amplification="none", tests="z", test_ratio=1.0, correction=None, attempts=1
        )
        universal, code = False, None
    modulus = mask_modulus(security, parties, bits, dimension)
    qubits = (modulus - 1).bit_length()
    kept = kept_copies(security, size, source, bits=bits, dimension=dimension)
    tested = security.copies_tested(kept)
    usable = kept if code is None else kept // code.n * code.k

    tries, amplification = security.attempts, 0.0
    if mode == "paper":
        classical = sampling_error(kept, tested, excess)
        sampling, masks = math.sqrt(classical), kept
        prime = mask_modulus(Security("universal"), parties, bits, dimension)
        rate = mask_rate(kept, tested, tolerance=security.tolerance, dimension=prime)
    elif universal:
        # The number of Z tests among mixed ones is random, and too small with eps_smooth^2.
        slack = security.eps_smooth**2 if security.tests == "mixed" else 0.0
        sampling = tries * (2 * security.eps_smooth + slack)
        amplification, classical = tries * security.eps_amplify, 0.0
        masks = _universal_masks(security, kept, modulus) - security.check_masks
        rate = masks / kept
    else:
        allowed = security.failures_allowed(tested)
        classical = bucket_error(kept, tested, security.summed, allowed, security.detection)
        sampling = math.sqrt(copy_error(classical, tries))
        masks = usable // security.summed - security.check_masks
        rate = masks / kept
        if security.amplification == "none":
            sampling = max(sampling, kept * qubits * secrecy_distance(disagreement))

    honest = honest_failure(security.tests, source, qubits)
    passes = pass_probability(tested, honest, security.tolerance)
    any_wrong, wrong_sums = _wrong_sums(
        security, size, kept, sum_error_probability(security, x_error, qubits)
    )
    secrecy = min(sampling + amplification, 1.0)
    per_step = secrecy + security.eps_authenticate + (security.eps_correct if code else 0.0)
    return Epsilon(
        sampling=sampling,
        amplification=amplification,
        correctness=security.eps_correct if code else any_wrong,
        authentication=security.eps_authenticate,
        secrecy=secrecy,
        per_step=min(per_step, 1.0),
        total=min(steps * per_step, 1.0),
        is_vacuous=steps * per_step >= 1,
        classical_error=classical,
        kept=kept,
        tested=tested,
        copies=kept + tested,
        qubit_copies=(kept + tested) * qubits,
        masks=masks,
        mask_rate=rate,
        overhead=(kept + tested) / masks,
        pass_probability=passes,
        abort_rate=1 - passes,
        skip_rate=(1 - passes) ** tries,
        expected_wrong_sums=wrong_sums,
        interpretation=INTERPRETATIONS[mode],
    )


class PlainSource(NamedTuple):
    """What the bounds need of a source, as plain numbers: of a `GHZSource` they are computed."""

    num_parties: int
    x_error: float
    disagreement: float


def read_source(source: Any) -> PlainSource:
    """Parties, and the two errors of a qubit copy.

    Raises:
      ValueError: if there are fewer than three parties, or an error is no probability.

    >>> from jaxqring.physics.ghz import GHZSource
    >>> round(read_source(GHZSource(4, white=0.1)).disagreement, 4)
    0.0875
    """
    if isinstance(source, PlainSource):
        return source
    parties = int(source.num_parties)
    if parties < 3:
        # Of two parties, each learns the other's data from the sum, masked or not.
        checks.refuse("source", "have at least three parties", parties)
    errors = float(source.x_error), float(source.disagreement)
    for name, error in zip(("x_error", "disagreement"), errors, strict=True):
        # A float32 may be above its end by a rounding.
        checks.within(f"source.{name}", error, -1e-6, 1 + 1e-6)
    x_error, disagreement = (min(max(error, 0.0), 1.0) for error in errors)
    return PlainSource(parties, x_error, disagreement)


def mask_modulus(security: Security, parties: int, bits: int, dimension: int | None) -> int:
    """What the masks are added modulo, which takes log2 of it, rounded up, qubit copies a mask."""
    largest = parties * 2 ** max(bits - (parties - 1).bit_length(), 0)
    if dimension is None:
        if security.amplification != "universal":
            return 2**bits
        dimension = largest + 1
        while not is_prime(dimension):
            dimension += 1
    check_count("dimension", dimension, 2)
    if not is_prime(dimension):
        checks.refuse("dimension", "be prime", dimension)
    if dimension <= largest:
        rule = f"exceed {largest}, so that no sum of {parties} codes overflows"
        checks.refuse("dimension", rule, dimension)
    if security.correction is not None and dimension < security.correction.n:
        rule = f"reach the code's length {security.correction.n}"
        checks.refuse("dimension", rule, dimension)
    return dimension


def _universal_masks(security: Security, kept: int, dimension: int) -> int:
    """Masks that universal amplification makes of so many copies, checks included."""
    tested = security.copies_tested(kept)
    z_tests = tested
    if security.tests == "mixed":
        z_tests = math.floor(tested / 3 - math.sqrt(-tested * math.log(security.eps_smooth)))
    # All of the failures may be those of Z tests.
    allowed = security.failures_allowed(tested)
    if z_tests <= allowed:
        return 0
    code = security.correction
    published = 0.0 if code is None else (code.n - code.k) / code.n
    rate = mask_rate(
        kept,
        z_tests,
        tolerance=allowed / z_tests,
        dimension=dimension,
        eps_smooth=security.eps_smooth,
        eps_amplify=security.eps_amplify,
        leak=published * math.log2(dimension),
    )
    return math.floor(rate * kept * (1 + 1e-15))


def _wrong_sums(security: Security, size: int, kept: int, error: float) -> tuple[float, float]:
    """The probability that any sum is wrong, and the mean number of wrong ones."""
    code = security.correction
    word = error if code is None else float(scipy.special.bdtrc(float(code.t), code.n, error))
    if security.amplification == "universal":
        # The matrix spreads one wrong sum over all of them.
        any_wrong = copy_error(word, kept if code is None else kept // code.n)
        return any_wrong, size * any_wrong
    any_wrong = copy_error(word, security.blocks(size))
    if code is None:
        return any_wrong, size * error
    # A word beyond the reach of the code is left as it is: t or more of the others are wrong, too.
    others = 1.0 if code.t == 0 else float(scipy.special.bdtrc(code.t - 1.0, code.n - 1, error))
    return any_wrong, size * error * others
