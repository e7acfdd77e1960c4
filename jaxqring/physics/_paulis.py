"""Paulis and the conventions that the whole library keeps.

* Qubit 0 is the leftmost tensor factor.
* Symbol m = 2a + b carries the two bits (a, b) and is sent as U_m = X^a Z^b on half A of a pair.
* Bell states are ordered [Phi+, Phi-, Psi+, Psi-]; Bell state m is (U_m x I)|Phi+>.
* Pauli transfer matrices use the order [I, X, Y, Z].

U_m differs from a Pauli by a phase at most (U_3 = XZ = -iY), so conjugation by U_m multiplies
each Pauli by a sign. `SIGNS[m, i]` is the sign that U_m gives to Pauli i.
"""

import jax
import jax.numpy as jnp
import numpy as np

#: (4, 2, 2) the matrices I, X, Y, Z.
PAULIS = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=complex
)

#: (4, 2, 2) the encodings U_m = X^a Z^b for m = 2a + b.
ENCODINGS = np.array(
    [
        np.linalg.matrix_power(PAULIS[1], m >> 1) @ np.linalg.matrix_power(PAULIS[3], m & 1)
        for m in range(4)
    ]
)

#: (4, 4) U_m s_i U_m^dagger = SIGNS[m, i] s_i. The first index is a symbol, the second a Pauli.
SIGNS = np.array([[1, 1, 1, 1], [1, -1, -1, 1], [1, 1, -1, -1], [1, -1, 1, -1]], dtype=float)

#: (4,) <Phi+| s_i x s_i |Phi+>, the correlations of a perfect pair.
PHI_PLUS = np.array([1.0, 1.0, -1.0, 1.0])


def complex_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """complex128 for types of double precision, complex64 for all others."""
    return jnp.dtype("complex128" if dtype in ("float64", "complex128") else "complex64")


@jax.jit  # one dispatch where it is called eagerly
def product(left: jax.Array, right: jax.Array) -> jax.Array:
    """The product of small matrices (..., I, K) and (..., K, J), whose batch shapes broadcast.

    Written out over the batch: XLA on a CPU takes ten times as long for a batch of 4x4 `matmul`s.
    """
    rank = max(left.ndim, right.ndim)
    left, right = (
        jnp.moveaxis(matrix.reshape((1,) * (rank - matrix.ndim) + matrix.shape), (-2, -1), (0, 1))
        for matrix in (left, right)
    )
    terms = [left[:, k, None] * right[None, k] for k in range(right.shape[0])]
    return jnp.moveaxis(sum(terms[1:], terms[0]), (0, 1), (-2, -1))
