"""EPR pairs as correlation matrices.

A pair rho on qubits A (sent) and B (kept) is the real matrix R_ij = Tr[rho s_i x s_j], with
s = [I, X, Y, Z]. A channel on A multiplies R from the left by its transfer matrix, a channel on
B from the right by its transpose.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._paulis import PAULIS, PHI_PLUS, SIGNS, complex_dtype, product
from jaxqring.physics.channels import Channel, add_clipped


@struct.dataclass
class Pair:
    """Two qubits that were meant to be in the Bell state Phi+.

    Attributes:
      correlation: (..., 4, 4) R_ij = Tr[rho s_i x s_j]; rows are of the sent half, columns of
        the kept one.
      clipped: (...) number of traced parameters that were moved into their domain, or None.

    >>> pair = werner(fidelity=0.95).apply(kept=Channel(jnp.eye(4)))
    >>> print(np.asarray(pair.bell_probs).round(4))
    [0.95   0.0167 0.0167 0.0167]
    """

    correlation: jax.Array
    clipped: jax.Array | None = None

    @property
    def bell_probs(self) -> jax.Array:
        """(..., 4) overlaps with [Phi+, Phi-, Psi+, Psi-]."""
        signs = jnp.asarray(SIGNS * PHI_PLUS[None, :], dtype=self.correlation.dtype)
        diagonal = jnp.diagonal(self.correlation, axis1=-2, axis2=-1)
        return jnp.matmul(diagonal, signs.T, precision="highest") / 4

    @property
    def fidelity(self) -> jax.Array:
        """(...) <Phi+|rho|Phi+>, the squared fidelity."""
        return self.bell_probs[..., 0]

    def density_matrix(self) -> jax.Array:
        """(..., 4, 4) complex density matrix; qubit A is the left factor."""
        paulis = jnp.asarray(PAULIS, dtype=complex_dtype(self.correlation.dtype))
        rho = jnp.einsum(
            "...ij,iab,jcd->...acbd",
            self.correlation.astype(paulis.dtype),
            paulis,
            paulis,
            precision="highest",
        )
        return rho.reshape(*rho.shape[:-4], 4, 4) / 4

    def apply(self, *, sent: Channel | None = None, kept: Channel | None = None) -> "Pair":
        """The pair after a channel on either half.

        Args:
          sent: channel on the half that will travel.
          kept: channel on the half that stays.

        Raises:
          TypeError: if one of them is not a Channel.
        """
        correlation, clipped = self.correlation, self.clipped
        if sent is not None:
            checks.instance("sent", sent, Channel)
            correlation = product(sent.ptm, correlation)
            clipped = add_clipped(clipped, sent.clipped)
        if kept is not None:
            checks.instance("kept", kept, Channel)
            correlation = product(correlation, jnp.swapaxes(kept.ptm, -1, -2))
            clipped = add_clipped(clipped, kept.clipped)
        return Pair(correlation, clipped)


def werner(*, fidelity: ArrayLike | None = None, weight: ArrayLike | None = None) -> Pair:
    """An EPR pair mixed with white noise. Give exactly one of its two parametrisations.

    Args:
      fidelity: (...) overlap with Phi+, in [1/4, 1]; 1/4 is white noise alone.
      weight: (...) weight of Phi+ in the mixture, in [0, 1]; fidelity = (1 + 3 weight) / 4.

    Returns:
      A `Pair` with batch shape (...).

    Raises:
      ValueError: if both or neither are given, or a concrete value is out of range.

    Reference: Werner, Phys. Rev. A 40, 4277 (1989).

    >>> round(float(werner(fidelity=0.9).fidelity), 6)
    0.9
    """
    name, given = checks.exactly_one(fidelity=fidelity, weight=weight)
    value, flag = checks.bounded(name, given, 0.25 if name == "fidelity" else 0.0, 1.0)
    if name == "fidelity":
        value = (4 * value - 1) / 3
    ones = jnp.ones_like(value)
    scale = jnp.stack([ones, value, value, value], axis=-1)
    perfect = jnp.asarray(np.diag(PHI_PLUS), dtype=value.dtype)
    return Pair(scale[..., None] * perfect, flag)


def bell_diagonal(probs: ArrayLike) -> Pair:
    """A mixture of the four Bell states.

    Args:
      probs: (..., 4) weights of [Phi+, Phi-, Psi+, Psi-]: in [0, 1], summing to one.

    Returns:
      The pair, with the batch shape (...).

    Raises:
      ValueError: if the last axis is not 4, or concrete weights are out of range or do not sum
        to one within 1e-5. Traced weights are clipped and rescaled.

    >>> print(np.asarray(bell_diagonal([0.7, 0.1, 0.15, 0.05]).bell_probs).round(4))
    [0.7  0.1  0.15 0.05]
    """
    if np.ndim(probs) < 1 or np.shape(probs)[-1] != 4:
        checks.refuse("probs", "have a last axis of length 4", np.shape(probs))
    if not checks.is_traced(probs):
        total = np.asarray(probs).sum(-1)
        if not np.allclose(total, 1.0, atol=1e-5):
            checks.refuse("probs", "sum to one", total)
    value, flag = checks.bounded("probs", probs)
    if checks.is_traced(probs):
        total = jnp.sum(value, axis=-1)
        off = jnp.where(jnp.abs(total - 1) > 1e-5, 1.0, 0.0).astype(value.dtype)
        flag = jnp.sum(flag, axis=-1) + off
        empty = (total == 0)[..., None]  # becomes white noise
        value = jnp.where(empty, 0.25, value / jnp.where(empty, 1.0, total[..., None]))
    else:
        flag = jnp.sum(flag, axis=-1)
    signs = jnp.asarray(SIGNS * PHI_PLUS[None, :], dtype=value.dtype)
    diagonal = jnp.matmul(value, signs, precision="highest")
    return Pair(diagonal[..., None] * jnp.eye(4, dtype=value.dtype), flag)


def from_density_matrix(rho: ArrayLike) -> Pair:
    """A pair in any two-qubit state.

    Args:
      rho: (..., 4, 4) complex density matrix; the sent qubit is the left factor.

    Returns:
      The pair, with the batch shape (...); `clipped` is 1 where the trace is not one, else 0.

    Raises:
      ValueError: if the shape is not (..., 4, 4), or a concrete matrix is not Hermitian, of trace
        one and positive, to 1e-5. Traced ones are flagged if their trace is not one.

    >>> import numpy as np
    >>> float(from_density_matrix(np.eye(4) / 4).fidelity)
    0.25
    """
    if np.shape(rho)[-2:] != (4, 4):
        checks.refuse("rho", "have the shape (..., 4, 4)", np.shape(rho))
    checks.density_matrix("rho", rho)
    state = jnp.asarray(rho)
    state = state.astype(complex_dtype(state.dtype))
    paulis = jnp.asarray(PAULIS, dtype=state.dtype)
    blocks = state.reshape(*state.shape[:-2], 2, 2, 2, 2)
    correlation = jnp.einsum(
        "...acbd,iba,jdc->...ij", blocks, paulis, paulis, precision="highest"
    ).real
    flag = jnp.where(jnp.abs(correlation[..., 0, 0] - 1) > 1e-5, 1.0, 0.0)
    return Pair(correlation, flag.astype(correlation.dtype))
