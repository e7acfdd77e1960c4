"""The cost of programs of fixed chips, what they give away, and gradients sent as states."""

import math
from typing import NamedTuple

import numpy as np

from jaxqring import _checks as checks
from jaxqring.qmodels._states import MOST_QUBITS


class ChipCost(NamedTuple):
    """The cost of a circuit of programmed rotations, and the secrecy of its angles.

    Attributes:
      success: probability that all rotations of a run succeed.
      runs: expected runs until one has succeeded.
      program_qubits: expected number of them, sent by the server, until then.
      leaked: bits that a program tells of its angle at most, k: the Holevo quantity for an angle
        of which nothing is known.
      read: bits that phase estimation of one program does tell of such an angle.
    """

    success: float
    runs: float
    program_qubits: float
    leaked: int
    read: float


def chip_cost(qubits: int, uses: int = 1) -> ChipCost:
    """Computes the cost of a circuit with programmed rotations, and what its programs give away.

    Args:
      qubits: k, of each program, at most 14.
      uses: programmed rotations in a run, each with a program of its own.

    Returns:
      A `ChipCost`.

    Raises:
      ValueError: if an argument is not an integer of its domain.

    Reference: our derivation. The mean program is I / 2^k, which makes the Holevo quantity k; the
    outcome of phase estimation is uniform, and its distribution about the angle is that of
    `read_program`, so that the information is k less the mean entropy of the latter.

    >>> cost = chip_cost(3, uses=2)
    >>> round(cost.success, 4), round(cost.program_qubits, 3), cost.leaked, round(cost.read, 2)
    (0.7656, 7.837, 3, 1.96)
    """
    k = checks.integer("qubits", qubits, 1, MOST_QUBITS)
    success = (1 - 2.0**-k) ** checks.integer("uses", uses)
    return ChipCost(success, 1 / success, k * uses / success, k, _information(k))


def _information(k: int) -> float:
    """Bits that one phase estimation of k qubits tells of a uniform angle."""
    size = 2**k
    # Angles between two outcomes, at the midpoints of 64 cells; the others are shifts of these.
    angles = 2 * np.pi / size * (np.arange(64) + 0.5) / 64
    grid = 2 * np.pi * np.arange(size) / size
    half = (angles[:, None] - grid) / 2
    chances = (np.sin(size * half) / (size * np.sin(half))) ** 2
    entropy = -np.sum(chances * np.log2(np.maximum(chances, np.finfo(float).tiny)), axis=1)
    return k - float(np.mean(entropy))


class GradientStateCost(NamedTuple):
    """A gradient sent as amplitudes of a state, beside the same gradient sent as numbers.

    Attributes:
      qubits_per_copy: ceil(log2 P).
      copies: that the server needs in order to read the gradient.
      qubits: of all copies.
      bits: of a classical message of the same error.
      saves: True if the qubits are fewer than the bits.
    """

    qubits_per_copy: int
    copies: int
    qubits: int
    bits: int
    saves: bool


def gradient_state_cost(parameters: int, epsilon: float) -> GradientStateCost:
    """Computes the cost of a gradient as a quantum state, with a verdict.

    A copy takes few qubits, but P amplitudes are read from P / epsilon^2 copies, to within epsilon
    in the l2 norm of a unit vector. As numbers of ceil(log2(sqrt(P) / epsilon)) bits each they
    have that error at most, by rounding. The verdict is the same for all P and epsilon: states save
    nothing where the server reads the gradient.

    Args:
      parameters: P, at least 2.
      epsilon: l2 error of the direction of the gradient, in (0, 1).

    Returns:
      A `GradientStateCost`.

    Raises:
      TypeError: if `epsilon` is not real.
      ValueError: if an argument is out of range.

    Reference: van Apeldoorn, Cornelissen, Gilyen and Nannicini, SODA (2023), for the growth of the
    number of copies; its constant is set to one, which is our interpretation.

    >>> gradient_state_cost(1000, 0.1)
    GradientStateCost(qubits_per_copy=10, copies=100000, qubits=1000000, bits=9000, saves=False)
    """
    size = checks.integer("parameters", parameters, 2)
    epsilon = checks.open_interval("epsilon", epsilon)
    width = (size - 1).bit_length()
    copies = math.ceil(size / epsilon**2 * (1 - 1e-12))  # 1 / 0.1^2 is a little below 100
    bits_sent = size * math.ceil(math.log2(math.sqrt(size) / epsilon))
    return GradientStateCost(width, copies, copies * width, bits_sent, copies * width < bits_sent)
