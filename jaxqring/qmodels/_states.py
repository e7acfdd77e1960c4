"""State vectors of a few qubits as arrays (..., 2^n): gates, entanglers, expectations.

Qubit 0 is the leftmost factor, the most significant bit of an index. A rotation about a Pauli P by
an angle t is exp(-i t P / 2). All products are of the highest precision.
"""

import functools
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._paulis import complex_dtype

#: The most qubits of a simulated state: 2^14 amplitudes for each element of a batch.
MOST_QUBITS = 14
#: The most gates of one qubit that are multiplied into one matrix before it meets the state: with
#: four the matrices of 8 qubits would be larger than their state.
_GROUP = 3

Rotation: TypeAlias = Literal["rx", "ry", "rz"]
#: A fixed gate between neighbours, around the ring of qubits or along the line.
Entangler: TypeAlias = Literal["cz-ring", "cz-line", "cnot-ring", "cnot-line"]


def check_qubits(qubits: int) -> int:
    """The number of qubits, or a refusal of one that is below 1 or above `MOST_QUBITS`."""
    return checks.integer("qubits", qubits, 1, MOST_QUBITS)


def check_norm(argument: str, states: ArrayLike) -> None:
    """Refuses known states (..., 2^n) whose norm is not one, to 1e-4."""
    if not checks.is_traced(states):
        norms = np.linalg.norm(np.asarray(states), axis=-1)
        if not np.allclose(norms, 1.0, atol=1e-4):
            checks.refuse(argument, "be of norm one", norms)


def qubits_of(size: int) -> int:
    """The number of qubits of a state of `size` amplitudes."""
    return size.bit_length() - 1


def zero_state(qubits: int, dtype: jnp.dtype = jnp.complex64) -> jax.Array:
    """(2^n,) the state |0...0>."""
    return jnp.zeros(2**qubits, dtype).at[0].set(1)


def amplitudes(x: ArrayLike) -> jax.Array:
    """The states whose amplitudes are proportional to rows of numbers.

    Args:
      x: (..., N) real; zeros are appended up to the next power of two.

    Returns:
      (..., 2^n) complex, with n = ceil(log2 N), at least one qubit.

    Raises:
      TypeError: if `x` is not real.
      ValueError: if `x` is a scalar, N is 0 or needs more than 14 qubits, or a known row is zero or
        not finite.

    >>> print(amplitudes([3.0, 0.0, 4.0]).real)
    [0.6 0.  0.8 0. ]
    """
    values = checks.real("x", x)
    if values.ndim == 0 or values.shape[-1] == 0:
        checks.refuse("x", "have at least one number in its last axis", values.shape)
    size = values.shape[-1]
    qubits = checks.integer("qubits of `x`", max(1, (size - 1).bit_length()), 1, MOST_QUBITS)
    if not checks.is_traced(x):
        known = np.linalg.norm(checks.numbers("x", x), axis=-1)  # `values` is traced inside a jit
        if not np.all((known > 0) & np.isfinite(known)):
            checks.refuse("x", "have finite rows that are not zero", known)
    norm = jnp.linalg.norm(values, axis=-1, keepdims=True)
    padding = [(0, 0)] * (values.ndim - 1) + [(0, 2**qubits - size)]
    return jnp.pad(values / norm, padding).astype(complex_dtype(values.dtype))


def rotations(axis: str, angles: jax.Array) -> jax.Array:
    """(..., 2, 2) complex matrices exp(-i angle P / 2), of angles (...) in radians."""
    half = angles / 2
    cosine, sine = jnp.cos(half), jnp.sin(half)
    zero = jnp.zeros_like(half)
    if axis == "rx":
        entries = [(cosine, zero), (zero, -sine), (zero, -sine), (cosine, zero)]
    elif axis == "ry":
        entries = [(cosine, zero), (-sine, zero), (sine, zero), (cosine, zero)]
    else:
        entries = [(cosine, -sine), (zero, zero), (zero, zero), (cosine, sine)]
    flat = jnp.stack([jax.lax.complex(real, imag) for real, imag in entries], axis=-1)
    return flat.reshape(*angles.shape, 2, 2)


def one_qubit_layer(state: jax.Array, gates: jax.Array) -> jax.Array:
    """The state after a gate on each qubit.

    Neighbouring gates are multiplied to matrices of up to 8 x 8, as many small products cost more
    than few of that size.

    Args:
      state: (..., 2^n) complex.
      gates: (..., n, 2, 2) complex, in the order of the qubits.
    """
    qubits = gates.shape[-3]
    batch = state.shape[:-1]
    for first in range(0, qubits, _GROUP):
        last = min(first + _GROUP, qubits)
        matrix = functools.reduce(_kron, [gates[..., q, :, :] for q in range(first, last)])
        shaped = state.reshape(*batch, 2**first, matrix.shape[-1], -1)
        state = jnp.einsum("...ij,...ajb->...aib", matrix, shaped, precision="highest")
    return state.reshape(*batch, -1)


def _kron(left: jax.Array, right: jax.Array) -> jax.Array:
    rows, columns = left.shape[-2] * right.shape[-2], left.shape[-1] * right.shape[-1]
    outer = left[..., :, None, :, None] * right[..., None, :, None, :]
    return outer.reshape(*outer.shape[:-4], rows, columns)


@functools.cache
def bits(qubits: int) -> np.ndarray:
    """(n, 2^n) the bit of each qubit in each index."""
    index = np.arange(2**qubits)
    return (index >> (qubits - 1 - np.arange(qubits))[:, None]) & 1


@functools.cache
def neighbours(kind: Literal["ring", "line"], qubits: int) -> tuple[tuple[int, int], ...]:
    """The pairs of neighbours; a ring of two has one pair, as its line has."""
    line = tuple((q, q + 1) for q in range(qubits - 1))
    return (*line, (qubits - 1, 0)) if kind == "ring" and qubits > 2 else line


@functools.cache
def _phases(entangler: str, qubits: int) -> np.ndarray:
    """(2^n,) signs of the CZ gates."""
    of = bits(qubits)
    pairs = neighbours("ring" if entangler.endswith("ring") else "line", qubits)
    exponent = sum((of[a] & of[b] for a, b in pairs), np.zeros(2**qubits, int))
    return (1 - 2 * (exponent & 1)).astype(np.float32)


@functools.cache
def _sources(entangler: str, qubits: int) -> np.ndarray:
    """(2^n,) int32 the index from which each amplitude comes under the CNOT gates in order.

    Not int64: beside tests that switch x64, JAX 0.12 was seen to refuse an index of that type.
    """
    index = np.arange(2**qubits, dtype=np.int32)
    for a, b in reversed(neighbours("ring" if entangler.endswith("ring") else "line", qubits)):
        control = (index >> (qubits - 1 - a)) & 1
        index = index ^ (control << (qubits - 1 - b))
    return index


def entangle(state: jax.Array, entangler: str, inverse: bool = False) -> jax.Array:
    """The states (..., 2^n) after CZ, or CNOT from each to its right, between neighbours in order.

    With `inverse` they are undone.
    """
    qubits = qubits_of(state.shape[-1])
    if entangler.startswith("cz"):
        return state * _phases(entangler, qubits).astype(state.real.dtype)
    sources = _sources(entangler, qubits)
    return state[..., np.argsort(sources).astype(np.int32) if inverse else sources]


def probabilities(state: jax.Array) -> jax.Array:
    """(..., 2^n) the probabilities of the outcomes of a measurement of all qubits, of a state."""
    return state.real**2 + state.imag**2


def z_values(qubits: int) -> np.ndarray:
    """The outcomes of Z on each qubit, by the outcome of all.

    Args:
      qubits: n, at most 14.

    Returns:
      (2^n, n) +1 or -1.

    Raises:
      ValueError: if the qubits are out of range.

    >>> z_values(2)[1]
    array([ 1., -1.], dtype=float32)
    """
    check_qubits(qubits)
    return (1 - 2 * bits(qubits)).T.astype(np.float32)
