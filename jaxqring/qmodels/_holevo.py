"""The most that an ensemble of states can tell about which of them was sent."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics.information import entropy_bits, safe_sqrt
from jaxqring.qmodels._states import check_norm


def holevo(states: ArrayLike, probs: ArrayLike | None = None, copies: int = 1) -> jax.Array:
    """The Holevo quantity of an ensemble: a bound on the bits that any measurement finds.

    chi = S(sum_i p_i rho_i) - sum_i p_i S(rho_i). For pure states the second term is zero, and the
    mean state has the eigenvalues of the Gram matrix sqrt(p_i p_j) <psi_i|psi_j>; K copies raise
    the overlaps to the K-th power and cost nothing more. Computed in the precision of `states`; in
    float32 each of the eigenvalues is off by 1e-7, which a thousand states sum up to 1e-3 bits.

    Args:
      states: (count, d) unit vectors, or (count, d, d) density matrices.
      probs: (count,) probabilities; all alike if None.
      copies: K of the same state; one for density matrices.

    Returns:
      () bits.

    Raises:
      TypeError: if `probs` is not real.
      ValueError: if a shape is wrong, a known vector has not the norm one, a known matrix is no
        state, known `probs` are negative or do not sum to one, or there are several copies of
        density matrices.

    Reference: Holevo, Probl. Inf. Transm. 9, 177 (1973).

    >>> states = jnp.array([[1.0, 0.0], [np.sqrt(0.5), np.sqrt(0.5)]])
    >>> [round(float(holevo(states, copies=copies)), 4) for copies in (1, 2, 20)]
    [0.6009, 0.8113, 1.0]
    """
    kets = _checked(states, copies)
    weights = _weights(probs, kets.shape[0], kets.real.dtype)
    if kets.ndim == 3:
        mean = jnp.einsum("i,ijk->jk", weights.astype(kets.dtype), kets, precision="highest")
        return _entropy(mean) - jnp.sum(weights * _entropy(kets))
    root = safe_sqrt(weights)[:, None]
    if copies == 1 and kets.shape[1] < kets.shape[0]:
        scaled = root * kets
        return _entropy(jnp.matmul(scaled.T, scaled.conj(), precision="highest"))
    gram = jnp.matmul(kets.conj(), kets.T, precision="highest") ** copies
    return _entropy(root * gram * root.T)


def _checked(states: ArrayLike, copies: int) -> jax.Array:
    """The states as an array of floats, or a refusal."""
    array = jnp.asarray(states)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[1] != array.shape[2]):
        checks.refuse("states", "have the shape (count, d) or (count, d, d)", array.shape)
    if checks.integer("copies", copies) > 1 and array.ndim == 3:
        checks.refuse("copies", "be 1 for density matrices", copies)
    if array.ndim == 3:
        checks.density_matrix("states", array)
    else:
        check_norm("states", states)
    return array.astype(jnp.result_type(array.dtype, jnp.float32))


def _weights(probs: ArrayLike | None, count: int, dtype: jnp.dtype) -> jax.Array:
    if probs is None:
        return jnp.full(count, 1 / count, dtype)
    if np.shape(probs) != (count,):
        checks.refuse("probs", f"have the shape ({count},)", np.shape(probs))
    if not checks.is_traced(probs):
        checks.within("probs", probs)
        total = np.sum(np.asarray(probs))
        if not np.isclose(total, 1.0, atol=1e-5):
            checks.refuse("probs", "sum to one", total)
    return checks.real("probs", probs).astype(dtype)


def _entropy(rho: jax.Array) -> jax.Array:
    """(...) the entropy of density matrices (..., d, d) in bits."""
    values = jnp.linalg.eigvalsh(rho)
    return entropy_bits(jnp.where(values >= 0, values, 0.0))


def symmetric_bound(dimension: int, copies: int) -> float:
    """The most bits that identical copies of any pure state hold.

    They lie in the symmetric subspace: log2 C(N + K - 1, K), far below K log2 N once K is large.

    Args:
      dimension: N of one copy.
      copies: K.

    Returns:
      Bits.

    Raises:
      ValueError: if an argument is not an integer of at least one.

    Reference: Harrow, arXiv:1308.6595, for the dimension of the subspace.

    >>> print(f"{symmetric_bound(1024, 738):.2f} of {738 * 10}")
    1721.88 of 7380
    """
    size, copies = checks.integer("dimension", dimension), checks.integer("copies", copies)
    # C(a, b) = 1 / ((a + 1) B(a - b + 1, b + 1)), without the cancellation of large factorials.
    beta = float(scipy.special.betaln(size, copies + 1))
    return -(math.log(size + copies) + beta) / math.log(2)


class Leakage(NamedTuple):
    """The most that K copies of a state tell about the input behind it, by four counts, in bits.

    Attributes:
      chi: the Holevo quantity of the data set.
      symmetric: that of any data set, by the symmetric subspace.
      register: K n, that of any states of as many qubits.
      message: N b, the amplitudes themselves, sent once.
      entropy: that of the choice of an input, which nothing exceeds.
    """

    chi: float
    symmetric: float
    register: int
    message: int
    entropy: float


def leakage(
    states: ArrayLike, copies: int = 1, *, probs: ArrayLike | None = None, bits: int = 16
) -> Leakage:
    """Bounds what an eavesdropper learns of an input from copies of its state.

    Args:
      states: (count, 2^n) unit vectors, one for each input of the data set.
      copies: K that travel.
      probs: (count,) probabilities of the inputs; all alike if None.
      bits: b of an amplitude in the classical message.

    Returns:
      A `Leakage`.

    Raises:
      TypeError: if an argument is traced.
      ValueError: as `holevo`; if `states` are no vectors of a power of two; if `bits` is no integer
        of at least one.

    Reference: Holevo, Probl. Inf. Transm. 9, 177 (1973); the choice of the four counts is ours.

    >>> found = leakage(jnp.eye(4), 3)
    >>> round(found.chi, 4), round(found.symmetric, 4), found.register, found.message
    (2.0, 4.3219, 6, 64)
    """
    if checks.is_traced((states, probs)):
        checks.refuse("states", "be concrete, and `probs` too", states, TypeError)
    shape = np.shape(states)
    if len(shape) != 2 or shape[1] < 2 or shape[1] & (shape[1] - 1):
        checks.refuse("states", "have the shape (count, 2^n)", shape)
    count, size = shape
    qubits = size.bit_length() - 1
    known = np.full(count, 1 / count) if probs is None else np.asarray(probs, float)
    return Leakage(
        chi=float(holevo(states, probs, copies)),
        symmetric=symmetric_bound(size, copies),
        register=copies * qubits,
        message=size * checks.integer("bits", bits),
        entropy=float(entropy_bits(jnp.asarray(known))),
    )
