"""Qubits and gates across a pair: teleportation, and controlled phases by an entangled copy.

Of a pair in any state only its overlaps with the four Bell states matter, as the bits that the two
ends exchange are random and cancel every coherence between them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._pair import Pair
from jaxqring.qmodels._density_matrices import (
    bell_probs,
    check_partners,
    check_qubit,
    check_rho,
    conjugated,
    partner_phases,
    z_signs,
)
from jaxqring.qmodels._states import bits


def teleport(rho: ArrayLike, pair: Pair, qubit: int) -> jax.Array:
    """The state after one of its qubits has been teleported.

    Args:
      rho: (2^n, 2^n) density matrix of n <= 7 qubits.
      pair: the pair that is used up, without batch axes, in any state.
      qubit: the qubit that moves; it keeps its place among the n.

    Returns:
      (2^n, 2^n) the state after the channel that applies I, Z, X or Y to the qubit with the
      overlaps of the pair with Phi+, Phi-, Psi+ and Psi-. It is linear in them.

    Raises:
      TypeError: if `pair` is not a Pair.
      ValueError: if a shape is wrong, the qubit is not there, or a known `rho` is not a state.

    Reference: Bowen and Bose, Phys. Rev. Lett. 87, 267901 (2001).

    >>> from jaxqring import werner
    >>> zero = jnp.diag(jnp.array([1.0, 0.0]))
    >>> print(teleport(zero, werner(fidelity=0.94), 0).diagonal().real.round(4))
    [0.96 0.04]
    """
    matrix, qubits = check_rho(rho)
    check_qubit("qubit", qubit, qubits)
    phi, phi_minus, psi, psi_minus = bell_probs(pair)
    signs = z_signs(qubits, qubit)
    split = matrix.reshape(2**qubit, 2, -1, 2**qubit, 2, matrix.shape[0] >> (qubit + 1))
    flipped = jnp.flip(split, (1, 4)).reshape(matrix.shape)
    return (phi + phi_minus * signs) * matrix + (psi + psi_minus * signs) * flipped


def remote_gate(
    rho: ArrayLike,
    pair: Pair,
    control: int,
    partners: Sequence[int],
    angles: ArrayLike = math.pi,
) -> jax.Array:
    """The state after controlled phases of one qubit with qubits of another node, by one pair.

    The control is copied onto the other node's half of the pair (a bit goes there), the gates act
    on the copy, and it is measured away (a bit comes back). Of the pair's errors Phi- leaves a Z on
    the control; Psi+ flips the copy, so that the gates act where the control is 0; Psi- does both.
    For CZ the flip is a Z on every partner; for other angles it is no Pauli error (our derivation).

    Args:
      rho: (2^n, 2^n) density matrix of n <= 7 qubits.
      pair: the pair that is used up, without batch axes, in any state.
      control: the qubit that is copied.
      partners: the qubits on the other node.
      angles: () or (m,) radians, of diag(1, 1, 1, exp(i angle)) with each of the m partners.

    Returns:
      (2^n, 2^n) the state after the gates, linear in the four overlaps.

    Raises:
      TypeError: if `pair` is not a Pair, or an angle not real.
      ValueError: if a shape is wrong, a qubit is not there or stands twice, or a known `rho` is not
        a state.

    Reference: Eisert, Jacobs, Papadopoulos and Plenio, Phys. Rev. A 62, 052317 (2000);
    Yimsiriwattana and Lomonaco, arXiv:quant-ph/0402148.

    >>> from jaxqring import werner
    >>> plus = jnp.full((4, 4), 0.25)
    >>> found = remote_gate(plus, werner(fidelity=0.9), 0, [1])
    >>> ideal = jnp.array([1, 1, 1, -1]) / 2
    >>> round(float((ideal @ found @ ideal).real), 6)
    0.9
    """
    matrix, qubits = check_rho(rho)
    control, partners, angles = check_partners(control, partners, angles, qubits)
    phi, phi_minus, psi, psi_minus = bell_probs(pair)
    signs = z_signs(qubits, control)
    phases, on = partner_phases(qubits, partners, angles), bits(qubits)[control]
    right, wrong = (conjugated(matrix, acts * phases, acts * phases) for acts in (on, 1 - on))
    return (phi + phi_minus * signs) * right + (psi + psi_minus * signs) * wrong


class GateFidelity(NamedTuple):
    """The closeness of a noisy gate to the ideal one.

    Attributes:
      process: (...) overlap of the Choi states.
      average: (...) mean fidelity of the output over all pure inputs.
    """

    process: jax.Array
    average: jax.Array


def remote_gate_fidelity(pair: Pair, angles: ArrayLike = math.pi) -> GateFidelity:
    """The fidelity of controlled phases that are made by one pair.

    With s = sum of the angles / 2 and c the product of cos(angle / 2), the process fidelity is
    p(Phi+) + c^2 (p(Psi+) cos^2 s + p(Psi-) sin^2 s) (our derivation): F for CZ, and more for small
    angles, to which a flipped copy does little. The average is (d process + 1) / (d + 1), with d =
    2^(m+1) the dimension of the qubits.

    Args:
      pair: (...) pairs in any states.
      angles: () or (m,) radians, one for each partner.

    Returns:
      Both fidelities, with the batch shape (...).

    Raises:
      TypeError: if `pair` is not a Pair, or an angle not real.
      ValueError: if `angles` has more than one axis, or no entry.

    Reference: Nielsen, Phys. Lett. A 303, 249 (2002), for the average.

    >>> from jaxqring import werner
    >>> process, average = remote_gate_fidelity(werner(fidelity=0.9))
    >>> round(float(process), 6), round(float(average), 6)
    (0.9, 0.92)
    """
    checks.instance("pair", pair, Pair)
    array = jnp.atleast_1d(checks.real("angles", angles))
    if array.ndim != 1 or not array.size:
        checks.refuse("angles", "be one number or several in one axis", np.shape(angles))
    half = jnp.sum(array) / 2
    closeness = jnp.prod(jnp.cos(array / 2)) ** 2
    probs = pair.bell_probs
    flips = probs[..., 2] * jnp.cos(half) ** 2 + probs[..., 3] * jnp.sin(half) ** 2
    process = probs[..., 0] + closeness * flips
    size = 2 ** (array.size + 1)
    return GateFidelity(process, (size * process + 1) / (size + 1))
