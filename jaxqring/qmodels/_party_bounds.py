"""Bounds on the traffic of the two-party model that the paper states, as formulas.

They are quoted from memory of arXiv:2310.07136, whose body was not at hand; every constant is set
to one and logarithms of sizes are to the base 2: our interpretation. They say how a cost grows, not
what it is, and nothing here is simulated.
"""

import math
from typing import NamedTuple

from jaxqring import _checks as checks
from jaxqring.qmodels._party_costs import shots_for


def inference_bound(size: int, layers: int, epsilon: float) -> float:
    """Computes the paper's L log N / epsilon^2 qubits for the loss to within an error.

    Args:
      size: N, numbers of the input.
      layers: L.
      epsilon: error of the loss, in (0, 1).

    Returns:
      Qubits up to a constant.

    Raises:
      TypeError: if `epsilon` is not real.
      ValueError: if an argument is out of range.

    Reference: from memory of Gilboa et al., arXiv:2310.07136; the constant is set to one, which is
    our interpretation.

    >>> round(inference_bound(1024, 4, 0.1))
    4000
    """
    epsilon = checks.open_interval("epsilon", epsilon)
    return checks.integer("layers", layers) * _log(size) / epsilon**2


def gradient_bound(size: int, layers: int, parameters: int, epsilon: float, delta: float) -> float:
    """Computes the paper's qubits for all derivatives in the max norm, by shadow tomography.

    L^2 log N (log P)^2 ln(L / delta) / epsilon^4. Shadow tomography measures many copies jointly
    and takes long to compute; no estimator of this library does that.

    Args:
      size: N, numbers of the input.
      layers: L.
      parameters: P, of each unitary, at least 2.
      epsilon: error of each derivative, in (0, 1).
      delta: probability of a larger error, in (0, 1).

    Returns:
      Qubits up to a constant.

    Raises:
      TypeError: if a number is not real.
      ValueError: if an argument is out of range.

    Reference: from memory of Gilboa et al., arXiv:2310.07136; the constant is set to one, which is
    our interpretation.

    >>> f"{gradient_bound(1024, 4, 20, 0.1, 0.05):.2e}"
    '1.31e+08'
    """
    epsilon, delta = checks.open_interval("epsilon", epsilon), checks.open_interval("delta", delta)
    layers, parameters = (
        checks.integer("layers", layers),
        checks.integer("parameters", parameters, 2),
    )
    logs = _log(size) * math.log2(parameters) ** 2 * math.log(layers / delta)
    return layers**2 * logs / epsilon**4


def classical_bound(size: int, layers: int) -> float:
    """Computes the paper's lower bound of max(sqrt N, L) bits for any classical protocol.

    Args:
      size: N, numbers of the input.
      layers: L.

    Returns:
      Bits up to a constant. No protocol is known to us that reaches it.

    Raises:
      ValueError: if an argument is not an integer of at least one.

    Reference: from memory of Gilboa et al., arXiv:2310.07136; the constant is set to one, which is
    our interpretation.

    >>> classical_bound(1024, 4)
    32.0
    """
    return max(math.sqrt(checks.integer("size", size)), float(checks.integer("layers", layers)))


def amplitude_crossover(epsilon: float, delta: float, *, bits: int = 16) -> int:
    """Computes from how many qubits on a hop takes fewer qubits than its amplitudes take bits.

    The quantum message of a hop is m copies of n qubits, with m = `shots_for(epsilon, delta)`; the
    classical one is N = 2^n amplitudes of `bits` bits.

    Args:
      epsilon: error of the loss, in (0, 1).
      delta: probability of a larger error, in (0, 1).
      bits: of an amplitude.

    Returns:
      The smallest n with 2^n bits > n m.

    Raises:
      TypeError: if a number is not real.
      ValueError: if an argument is out of range.

    Reference: our comparison; the classical message is one that exists and not a lower bound.

    >>> [amplitude_crossover(epsilon, 0.05) for epsilon in (0.1, 0.01)]
    [9, 17]
    """
    shots, bits = shots_for(epsilon, delta), checks.integer("bits", bits)
    qubits = 1
    while 2**qubits * bits <= qubits * shots:
        qubits += 1
    return qubits


class LinearBounds(NamedTuple):
    """The bounds for the sign of an inner product of a known margin, constants one.

    Attributes:
      quantum: qubits that any quantum protocol sends at least.
      classical: bits that a classical protocol with shared randomness sends at most.
    """

    quantum: float
    classical: float


def linear_classifier_bounds(size: int, margin: float) -> LinearBounds:
    """Computes the paper's bounds for a linear classifier, where no exponential advantage can hold.

    Alice has x and Bob y, unit vectors of N entries with |x . y| >= margin, and they want the sign:
    at least sqrt(N / max(1, ceil(margin N))) qubits against at most min(N, 1/margin^2) bits. This
    is the problem that `jaxqring.audit.gap_ip` solves with the gap `tau` = margin.

    Args:
      size: N.
      margin: in (0, 1).

    Returns:
      The bounds, a pair (quantum, classical). The second is the fourth power of the first at most,
      but for rounding: a polynomial gap.

    Raises:
      TypeError: if `margin` is not real.
      ValueError: if an argument is out of range.

    Reference: from memory of Gilboa et al., arXiv:2310.07136; the constants are set to one, which
    is our interpretation.

    >>> linear_classifier_bounds(10**6, 0.01)
    LinearBounds(quantum=10.0, classical=10000.0)
    """
    size, margin = checks.integer("size", size), checks.open_interval("margin", margin)
    quantum = math.sqrt(size / max(1, math.ceil(margin * size)))
    return LinearBounds(quantum, min(float(size), 1 / margin**2))


def _log(size: int) -> float:
    return math.log2(checks.integer("size", size, 2))
