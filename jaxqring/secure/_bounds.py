"""Secrecy and correctness of an aggregation with verified GHZ states.

All numbers here are floats on the host that are known before the program runs, never traced. The
paper claims composable security at twice the GHZ copies; the terms that make it up are our
reconstruction, from the sampling bounds of `_copy_sampling` and the rates of `_rates`.
"""

import dataclasses
import math
from typing import Any, NamedTuple, get_args

import scipy  # whose subpackages load when they are first used

from jaxqring import _checks as checks
from jaxqring._types import CopyTests, EpsilonMode
from jaxqring.secure._copy_sampling import bucket_error, pass_probability, sampling_error
from jaxqring.secure._masks import is_prime, prime_above
from jaxqring.secure._rates import copy_error, mask_rate, secrecy_distance
from jaxqring.secure._security import MIN_PARTIES, Z_SHARE, Epsilon, Security, together

INTERPRETATIONS: dict[EpsilonMode, str] = {
    "composable": "finite-size bounds of the literature, put together by us",
    "paper": "our interpretation of composable security at twice the GHZ copies",
}


class PlainSource(NamedTuple):
    """The numbers of a source that the bounds need; those of a `GHZSource` are computed."""

    num_parties: int
    x_error: float
    disagreement: float


def read_source(source: Any) -> PlainSource:
    """Reads the number of parties of a source, and the two errors of a qubit copy.

    Raises:
      ValueError: if there are fewer than three parties, or an error is not a probability.

    >>> from jaxqring import GHZSource
    >>> round(read_source(GHZSource(4, white=0.1)).disagreement, 4)
    0.0875
    """
    if isinstance(source, PlainSource):
        return source
    num_parties = int(source.num_parties)
    if num_parties < MIN_PARTIES:
        checks.refuse("source", "have at least three parties", num_parties)
    errors = float(source.x_error), float(source.disagreement)
    for name, error in zip(("x_error", "disagreement"), errors, strict=True):
        # A float32 may be above its end by a rounding.
        checks.within(f"source.{name}", error, -1e-6, 1 + 1e-6)
    x_error, disagreement = (min(max(error, 0.0), 1.0) for error in errors)
    return PlainSource(num_parties, x_error, disagreement)


def sum_error_probability(security: Security, x_error: float, qubits: int) -> float:
    """Upper bound on the probability that a sum is wrong before it is corrected.

    Args:
      security: the number of raw masks that are added up.
      x_error: probability that the Fourier outcomes of one qubit copy have a wrong sum.
      qubits: qubit copies in a mask.

    Returns:
      1 - (1 - x_error)^(qubits summed). It is exact for one raw mask; errors of several may
      cancel, which this counts as wrong.

    >>> round(sum_error_probability(Security(bucket=3), 1e-4, 16), 6)
    0.004789
    """
    return copy_error(x_error, qubits * security.summed)


def honest_failure(tests: CopyTests, source: Any, qubits: int) -> float:
    """Probability that an honest copy of `qubits` qubit GHZ states fails one test.

    >>> from jaxqring import GHZSource, depolarizing
    >>> noisy = GHZSource(4, noise=depolarizing(mix=0.05))
    >>> [round(1 - honest_failure(tests, noisy, 1), 5) for tests in ("xy", "mixed")]
    [0.90725, 0.90606]
    """
    _, x_error, disagreement = read_source(source)
    z_share = Z_SHARE[tests]
    return z_share * copy_error(disagreement, qubits) + (1 - z_share) * copy_error(x_error, qubits)


def untested_copies(
    security: Security,
    size: int,
    source: Any,
    *,
    bits: int = 16,
    dimension: int | None = None,
) -> int:
    """Number of untested copies of an attempt, also where it follows from a rate.

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

    >>> from jaxqring import GHZSource
    >>> untested_copies(Security("universal"), 100_000, GHZSource(4))
    103136
    """
    num_parties = read_source(source).num_parties
    if security.amplification != "universal":
        return security.masks_needed(size)
    checks.integer("size", size)
    modulus = mask_modulus(security, num_parties, bits, dimension)
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
    size: int | tuple[int, ...],
    source: Any,
    *,
    bits: int | tuple[int, ...] = 16,
    steps: int = 1,
    dimension: int | None = None,
    mode: EpsilonMode = "composable",
    excess: float = 0.05,
) -> Epsilon:
    """Computes the security of a number of secure collectives together.

    A step is one collective, or several of unlike size with the same `security`, as those of a
    compressor are: then their epsilons and copies add up, see `Epsilon`.

    A collective may verify fresh copies `attempts` times, and an adversary may try as often: with
    the classical error c of one attempt, that of the collective is 1 - (1 - c)^attempts.

    * "bucket": the sampling term is the square root of that, for the c of `bucket_error`.
    * "none": the same with buckets of one, where no untested copy may be bad; and never below
      `secrecy_distance` of the source's honest noise summed over all untested qubit copies.
    * "universal": attempts x 2 eps_smooth, and attempts x eps_amplify, at the rate of `mask_rate`.
    * mode "paper": half of the copies are tested and the others used as they are; epsilon is the
      square root of `sampling_error`. It is our interpretation of "twice the GHZ copies", and no
      composable bound on the secrecy of every mask: one planted bad copy passes half the time.
      `mask_rate` is that of the composable formula for those copies.

    Args:
      security: tests, amplification and correction.
      size: coordinates of a collective; a tuple for those of a step.
      source: has `num_parties`, `x_error` and `disagreement` of a qubit copy, as `GHZSource`.
      bits: b of a mask mod 2^b, which takes b qubit copies; in [1, 32]; a tuple where the
        collectives of a step have unlike ones.
      steps: number of collectives, or of steps of several; their epsilons add up.
      dimension: prime modulus of the masks in place of 2^bits, taking ceil(log2 dimension) qubit
        copies. Universal amplification needs one; None is the smallest prime above
        N 2^(bits - ceil(log2 N)), the largest sum that `bits` have room for.
      mode: "composable" or "paper".
      excess: difference between the error rates of untested and tested copies, for "paper" only.

    Returns:
      An `Epsilon`, every term by its name.

    Raises:
      TypeError: if `security` is not a `Security`, or a number is not real.
      ValueError: if a count is not an integer in range, there are not as many bits as sizes, the
        mode is unknown, fewer than three parties take part, an error of the source is no
        probability, the dimension is not a large enough prime, or universal amplification has no
        positive rate.

    Reference: the terms' own; composition by Mueller-Quade and Renner, New J. Phys. 11, 085006
    (2009).

    >>> from jaxqring import GHZSource
    >>> collective = epsilon(Security(attempts=1), 10_000, GHZSource(4))
    >>> round(collective.total, 6), collective.overhead
    (0.005, 6.0)
    >>> both = epsilon(Security(attempts=1), (10_000, 400), GHZSource(4), bits=(16, 6))
    >>> round(both.total, 6), both.masks
    (0.029988, 10400)
    """
    checks.instance("security", security, Security)
    source = read_source(source)
    pairs = sizes_and_bits(size, bits)
    checks.integer("steps", steps)
    checks.one_of("mode", mode, get_args(EpsilonMode))
    each = [
        _of_collective(security, *pair, source, steps, dimension, mode, excess) for pair in pairs
    ]
    return each[0] if len(each) == 1 else together(each, steps)


def sizes_and_bits(
    size: int | tuple[int, ...], bits: int | tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """The size and the bits of every collective of a step, checked.

    Raises:
      ValueError: if one is not an integer in range, or there are not as many bits as sizes.
    """
    sizes = size if isinstance(size, tuple) else (size,)
    if not sizes:
        checks.refuse("size", "be an integer or a tuple of at least one", size)
    widths = bits if isinstance(bits, tuple) else (bits,) * len(sizes)
    if len(widths) != len(sizes):
        checks.refuse("bits", f"be an integer or one for each of {len(sizes)} sizes", bits)
    return tuple(
        (checks.integer("size", own), checks.integer("bits", width, 1, 32))
        for own, width in zip(sizes, widths, strict=True)
    )


def _of_collective(
    security: Security,
    size: int,
    bits: int,
    source: PlainSource,
    steps: int,
    dimension: int | None,
    mode: EpsilonMode,
    excess: float,
) -> Epsilon:
    """The `epsilon` of steps of one collective."""
    num_parties, x_error, disagreement = source
    if mode == "paper":
        security = dataclasses.replace(
            security, amplification="none", tests="z", test_ratio=1.0, correction=None, attempts=1
        )
    modulus = mask_modulus(security, num_parties, bits, dimension)
    qubits = (modulus - 1).bit_length()
    untested = untested_copies(security, size, source, bits=bits, dimension=dimension)
    tested = security.copies_tested(untested)
    if mode == "paper":
        prime = mask_modulus(Security("universal"), num_parties, bits, dimension)
        terms = _paper_terms(security, untested, tested, prime, excess)
    elif security.amplification == "universal":
        terms = _universal_terms(security, untested, modulus)
    else:
        terms = _counted_terms(security, untested, tested, qubits, disagreement)
    passes = pass_probability(
        tested, honest_failure(security.tests, source, qubits), security.tolerance
    )
    any_wrong, wrong_sums = _wrong_sums(
        security, size, untested, sum_error_probability(security, x_error, qubits)
    )
    secrecy = min(terms.sampling + terms.amplification, 1.0)
    is_corrected = security.correction is not None
    per_step = secrecy + security.eps_authenticate + (security.eps_correct if is_corrected else 0.0)
    return Epsilon(
        sampling=terms.sampling,
        amplification=terms.amplification,
        correctness=security.eps_correct if is_corrected else any_wrong,
        authentication=security.eps_authenticate,
        secrecy=secrecy,
        per_step=min(per_step, 1.0),
        total=min(steps * per_step, 1.0),
        is_vacuous=steps * per_step >= 1,
        classical_error=terms.classical_error,
        kept=untested,
        tested=tested,
        copies=untested + tested,
        qubit_copies=(untested + tested) * qubits,
        masks=terms.masks,
        mask_rate=terms.mask_rate,
        overhead=(untested + tested) / terms.masks,
        pass_probability=passes,
        abort_rate=1 - passes,
        skip_rate=(1 - passes) ** security.attempts,
        expected_wrong_sums=wrong_sums,
        interpretation=INTERPRETATIONS[mode],
    )


class _Terms(NamedTuple):
    """The entries of an `Epsilon` that depend on the amplification."""

    sampling: float
    amplification: float
    classical_error: float
    masks: int
    mask_rate: float


def _paper_terms(
    security: Security, untested: int, tested: int, prime: int, excess: float
) -> _Terms:
    error = sampling_error(untested, tested, excess)
    rate = mask_rate(untested, tested, tolerance=security.tolerance, dimension=prime)
    return _Terms(math.sqrt(error), 0.0, error, untested, rate)


def _universal_terms(security: Security, untested: int, modulus: int) -> _Terms:
    # The number of Z tests among mixed ones is random, and too small with eps_smooth^2.
    too_few = security.eps_smooth**2 if security.tests == "mixed" else 0.0
    sampling = security.attempts * (2 * security.eps_smooth + too_few)
    amplification = security.attempts * security.eps_amplify
    masks = _universal_masks(security, untested, modulus) - security.check_masks
    return _Terms(sampling, amplification, 0.0, masks, masks / untested)


def _counted_terms(
    security: Security, untested: int, tested: int, qubits: int, disagreement: float
) -> _Terms:
    """The terms of "bucket" and "none", which follow from the number of bad copies."""
    allowed = security.failures_allowed(tested)
    error = bucket_error(untested, tested, security.summed, allowed, security.detection)
    sampling = math.sqrt(copy_error(error, security.attempts))
    code = security.correction
    usable = untested if code is None else untested // code.n * code.k
    masks = usable // security.summed - security.check_masks
    if security.amplification == "none":
        sampling = max(sampling, untested * qubits * secrecy_distance(disagreement))
    return _Terms(sampling, 0.0, error, masks, masks / untested)


def mask_modulus(security: Security, num_parties: int, bits: int, dimension: int | None) -> int:
    """The modulus m of the sums of masks, which take ceil(log2 m) qubit copies each.

    Raises:
      ValueError: if `dimension` is not a prime above every sum and no less than the length of the
        correction.
    """
    largest = num_parties * 2 ** max(bits - (num_parties - 1).bit_length(), 0)
    if dimension is None:
        if security.amplification != "universal":
            return 2**bits
        dimension = prime_above(largest)
    checks.integer("dimension", dimension, 2)
    if not is_prime(dimension):
        checks.refuse("dimension", "be prime", dimension)
    if dimension <= largest:
        rule = f"exceed {largest}, so that no sum of {num_parties} levels overflows"
        checks.refuse("dimension", rule, dimension)
    if security.correction is not None and dimension < security.correction.n:
        rule = f"reach the code's length {security.correction.n}"
        checks.refuse("dimension", rule, dimension)
    return dimension


def _universal_masks(security: Security, untested: int, dimension: int) -> int:
    """Number of masks that universal amplification makes of the copies, checks included."""
    tested = security.copies_tested(untested)
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
        untested,
        z_tests,
        tolerance=allowed / z_tests,
        dimension=dimension,
        eps_smooth=security.eps_smooth,
        eps_amplify=security.eps_amplify,
        leak=published * math.log2(dimension),
    )
    return math.floor(rate * untested * (1 + 1e-15))


def _wrong_sums(security: Security, size: int, untested: int, error: float) -> tuple[float, float]:
    """Probability that any sum is wrong, and the mean number of wrong ones."""
    code = security.correction
    # Of one codeword; without a code, of one sum.
    failure = error if code is None else float(scipy.special.bdtrc(float(code.t), code.n, error))
    if security.amplification == "universal":
        # The matrix spreads one wrong sum over all of them.
        any_wrong = copy_error(failure, untested if code is None else untested // code.n)
        return any_wrong, size * any_wrong
    any_wrong = copy_error(failure, security.blocks(size))
    if code is None:
        return any_wrong, size * error
    # A codeword with more than t wrong sums stays as it is: t or more of the others are wrong, too.
    others = 1.0 if code.t == 0 else float(scipy.special.bdtrc(code.t - 1.0, code.n - 1, error))
    return any_wrong, size * error * others
