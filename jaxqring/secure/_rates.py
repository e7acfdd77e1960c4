"""Rates and counts in closed form, to compare with and to build on."""

import math
from collections.abc import Sequence

import numpy as np
import scipy  # whose subpackages load when they are first used

from jaxqring import _checks as checks
from jaxqring.secure._copy_sampling import check_counts, check_open, sampling_excess


def mask_rate(
    kept: int,
    tested: int,
    *,
    tolerance: float = 0.0,
    dimension: int = 2,
    honest: int = 2,
    eps_smooth: float = 1e-10,
    eps_amplify: float = 1e-10,
    leak: float = 0.0,
) -> float:
    """Secret masks per copy kept, after multiplication with a public random matrix.

    Args:
      kept: n.
      tested: k, Z tests only.
      tolerance: fraction of the Z tests that may fail.
      dimension: d, of a copy. For a matrix over it to be universal it has to be prime.
      honest: h, parties outside the coalition; two of them are the worst case.
      eps_smooth: term of the sampling.
      eps_amplify: term of the matrix.
      leak: bits per copy kept that are published about the masks.

    Returns:
      l / n with D = d^(h - 1), delta = tolerance + mu and
      l = n - (n [h2(delta) + delta log2(D - 1) + leak] + 2 log2(1 / (2 eps_amplify))) / log2 D,
      and 0 where l is negative or delta above 1 - 1 / D. The masks are secret to
      2 eps_smooth + eps_amplify.

    Raises:
      ValueError: if a number is outside its domain.

    Source: derived, after Tomamichel et al. (2012) and Renner, Int. J. Quantum Inf. 6, 1 (2008).

    >>> round(mask_rate(100_000, 100_000), 6), round(mask_rate(100_000, 100_000, tolerance=0.01), 6)
    (0.849796, 0.797695)
    """
    check_counts(dimension=(dimension, 2), honest=(honest, 2))
    checks.within("tolerance", tolerance)
    checks.within("leak", leak, 0.0, math.inf)
    check_open(eps_amplify=eps_amplify)
    delta = tolerance + sampling_excess(kept, tested, eps_smooth)
    patterns = float(dimension) ** (honest - 1)
    if delta > 1 - 1 / patterns:
        return 0.0
    given = _entropy(delta) + delta * math.log2(patterns - 1) + leak
    given -= 2 * math.log2(2 * eps_amplify) / kept
    return max(1 - given / math.log2(patterns), 0.0)


def tests_needed(infidelity: float, significance: float, gap: float) -> int:
    """Tests, all passed, that rule out independent copies of a lower fidelity.

    Args:
      infidelity: of the copies to be ruled out.
      significance: probability with which they may pass nevertheless.
      gap: of the test operator: 1/2 for XY tests, 2/3 for mixed ones.

    Returns:
      ceil(ln significance / ln(1 - gap infidelity)).

    Raises:
      ValueError: if a number is outside (0, 1).

    Source: Pallister, Linden and Montanaro, Phys. Rev. Lett. 120, 170502 (2018); for GHZ states
    Li, Han and Zhu, Phys. Rev. Applied 13, 054002 (2020).

    >>> tests_needed(0.01, 0.01, 1 / 2), tests_needed(0.01, 0.01, 2 / 3)
    (919, 689)
    """
    check_open(infidelity=infidelity, significance=significance, gap=gap)
    return math.ceil(math.log(significance) / math.log1p(-gap * infidelity))


def adversarial_tests(infidelity: float, significance: float, gap: float) -> float:
    """`tests_needed` if the copies may be correlated and one is kept, to leading order.

    Args:
      infidelity: of the copy kept.
      significance: probability with which a worse one may pass.
      gap: of the test operator.

    Returns:
      ln significance / (infidelity lambda ln lambda) with lambda = 1 - gap; not rounded, as it is
      the leading term of an expansion.

    Raises:
      ValueError: if a number is outside (0, 1).

    Source: Zhu and Hayashi, Phys. Rev. Lett. 123, 260504 (2019).

    >>> round(adversarial_tests(0.01, 0.01, 2 / 3), 1)
    1257.5
    """
    check_open(infidelity=infidelity, significance=significance, gap=gap)
    left = 1 - gap
    return math.log(significance) / (infidelity * left * math.log(left))


def secrecy_distance(error: float) -> float:
    """How far one mask bit of a copy is from a perfect secret, if it is used as it is.

    Args:
      error: probability that the two honest parties' Z outcomes of a qubit copy disagree.

    Returns:
      sqrt(error (1 - error)), the largest trace distance, which some state attains.

    Raises:
      ValueError: if `error` is outside [0, 1].

    Source: derived from the complementarity of Z and X.

    >>> round(secrecy_distance(0.01), 4)
    0.0995
    """
    checks.within("error", error)
    # Beyond one half the state can be anything: an error rate of one certifies nothing.
    return math.sqrt(error * (1 - error)) if error < 0.5 else 0.5


def conference_key_rate(x_error: float, z_errors: float | Sequence[float]) -> float:
    """Asymptotic key bits per copy of N-party BB84, to compare the masks with.

    Args:
      x_error: of the parity of X outcomes.
      z_errors: of the agreement of party one with each other party, or with all of them.

    Returns:
      max(0, 1 - h2(x_error) - max_j h2(z_errors_j)). X and Z have swapped roles: here Z makes the
      key and X bounds what leaks.

    Raises:
      ValueError: if an error rate is outside [0, 1].

    Source: Epping, Kampermann, Macchiavello and Bruss, New J. Phys. 19, 093012 (2017); Grasselli,
    Kampermann and Bruss, New J. Phys. 20, 113014 (2018).

    >>> round(conference_key_rate(0.05, [0.01, 0.02]), 4)
    0.5722
    """
    checks.within("x_error", x_error)
    checks.within("z_errors", np.asarray(z_errors))
    worst = max(_entropy(float(error)) for error in np.atleast_1d(z_errors))
    return max(1 - _entropy(x_error) - worst, 0.0)


def asymptotic_mask_rate(x_error: float, z_error: float) -> float:
    """Masks bits per copy kept in the limit of many copies, sums corrected.

    Args:
      x_error: of the sum of Fourier outcomes of a qubit copy.
      z_error: that its Z outcomes disagree.

    Returns:
      max(0, 1 - h2(x_error) - h2(z_error)); zero from 0.110028 for both.

    Raises:
      ValueError: if an error rate is outside [0, 1].

    Source: derived; the limit of `mask_rate` for d = 2 with an ideal code.

    >>> round(asymptotic_mask_rate(0.05, 0.02), 4)
    0.5722
    """
    checks.within("x_error", x_error)
    checks.within("z_error", z_error)
    return max(1 - _entropy(x_error) - _entropy(z_error), 0.0)


def copy_error(error: float, qubits: float) -> float:
    """The probability that one of so many qubit GHZ states, or more, is in error.

    >>> round(copy_error(0.01, 16), 4)
    0.1485
    """
    return 1.0 if error >= 1 else -math.expm1(qubits * math.log1p(-error))


def _entropy(p: float) -> float:
    return float(-(scipy.special.xlogy(p, p) + scipy.special.xlog1py(1 - p, -p))) / math.log(2)
