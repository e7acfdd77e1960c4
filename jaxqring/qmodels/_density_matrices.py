"""Density matrices (2^n, 2^n) of a few qubits: what gates and errors between nodes do to them.

Everything here multiplies entries or permutes them; nothing is a product of large matrices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._pair import Pair
from jaxqring.physics._paulis import complex_dtype
from jaxqring.qmodels._states import bits, qubits_of

#: The most qubits of a density matrix: as many entries as 14 qubits have amplitudes.
MOST_QUBITS_MIXED = 7


def check_rho(rho: ArrayLike) -> tuple[jax.Array, int]:
    """The matrix as a complex array and its number of qubits, or a refusal."""
    shape = np.shape(rho)
    sizes = [2**n for n in range(1, MOST_QUBITS_MIXED + 1)]
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] not in sizes:
        rule = f"have the shape (2^n, 2^n) with n in [1, {MOST_QUBITS_MIXED}]"
        checks.refuse("rho", rule, shape)
    checks.density_matrix("rho", rho)
    array = jnp.asarray(rho)
    return array.astype(complex_dtype(array.dtype)), qubits_of(shape[0])


def check_qubit(argument: str, qubit: Any, qubits: int) -> int:
    """The qubit, or a refusal of one that is not there."""
    return checks.integer(argument, qubit, 0, qubits - 1)


def bell_probs(pair: Pair) -> jax.Array:
    """(4,) weights of one pair, or a refusal of several."""
    checks.instance("pair", pair, Pair)
    if pair.correlation.ndim != 2:
        checks.refuse("pair", "have no batch axes", pair.correlation.shape[:-2])
    return pair.bell_probs


def z_signs(qubits: int, qubit: int) -> np.ndarray:
    """(2^n, 2^n) what Z rho Z multiplies the entries of rho by."""
    signs = 1 - 2 * bits(qubits)[qubit]
    return np.outer(signs, signs).astype(np.float32)


def partner_phases(qubits: int, partners: Sequence[int], angles: jax.Array) -> jax.Array:
    """(2^n,) radians: the sum of the angles (m,) of the partners that are 1."""
    on = jnp.asarray(bits(qubits)[list(partners)], angles.dtype)
    return jnp.sum(angles[:, None] * on, axis=0)


def conjugated(rho: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """A rho B^dagger for unitary diagonals A and B, given by the phases (2^n,) in radians."""
    return rho * jnp.exp(1j * (left[:, None] - right[None, :])).astype(rho.dtype)


def check_partners(
    control: Any, partners: Sequence[int], angles: ArrayLike, qubits: int
) -> tuple[int, tuple[int, ...], jax.Array]:
    """The control, its partners and an angle for each, or a refusal."""
    control = check_qubit("control", control, qubits)
    partners = tuple(check_qubit("partners", partner, qubits) for partner in partners)
    if not partners or len({control, *partners}) != 1 + len(partners):
        checks.refuse("partners", f"be different qubits other than {control}", partners)
    array = checks.real("angles", angles)
    if array.shape not in ((), (len(partners),)):
        checks.refuse("angles", "be one for all partners or one for each", array.shape)
    return control, partners, jnp.broadcast_to(array, len(partners))
