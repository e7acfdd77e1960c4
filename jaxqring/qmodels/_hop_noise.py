"""The noise of one hop of n qubits, as a map of density matrices that is linear in its parameters.

A hop is a `Channel` on each qubit, a `Pair` that each qubit uses up as it is teleported, or white
noise on all qubits at once. Transfer matrices enter linearly and no Kraus operator is computed, so
that the derivative with respect to the physics of a hop exists everywhere.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._pair import Pair
from jaxqring.physics._paulis import PAULIS, SIGNS, complex_dtype
from jaxqring.physics.channels import Channel
from jaxqring.qmodels._states import qubits_of


@struct.dataclass
class GlobalDepolarizing:
    """White noise on all qubits of a hop at once: rho -> survival rho + (1 - survival) I / 2^n.

    Attributes:
      survival: () for every hop, or (hops,) for each; in [0, 1].

    Raises:
      TypeError: if a concrete survival is not real.
      ValueError: if a concrete survival is out of range.

    >>> GlobalDepolarizing(0.9).survival
    0.9
    """

    survival: ArrayLike

    def __post_init__(self) -> None:
        # JAX rebuilds pytrees around other things than numbers, which are not checked.
        kinds = float | int | list | tuple | np.ndarray | np.generic | jax.Array
        if isinstance(self.survival, kinds) and not checks.is_traced(self.survival):
            checks.within("survival", self.survival)


Hop: TypeAlias = Channel | Pair | GlobalDepolarizing


def teleportation(pair: Pair) -> Channel:
    """The channel of a qubit that is teleported through a pair, of any two-qubit state.

    The overlaps of the pair with Phi+, Phi-, Psi+ and Psi- are the probabilities of I, Z, X and Y.

    Args:
      pair: (...) resource, of which one copy is used up.

    Returns:
      The Pauli channel, with the batch shape (...).

    Raises:
      TypeError: if `pair` is not a Pair.

    Reference: Bowen and Bose, Phys. Rev. Lett. 87, 267901 (2001).

    >>> from jaxqring import werner
    >>> print(np.asarray(teleportation(werner(fidelity=0.85)).ptm.diagonal()).round(4))
    [1.  0.8 0.8 0.8]
    """
    checks.instance("pair", pair, Pair)
    probs = pair.bell_probs
    kept = jnp.matmul(probs, jnp.asarray(SIGNS, probs.dtype), precision="highest")
    return Channel(kept[..., None] * jnp.eye(4, dtype=probs.dtype), pair.clipped)


def each_hop(hop: Hop | None, hops: int) -> jax.Array | None:
    """The parameters of each hop: (hops, 4, 4) transfer matrices, (hops,) survivals, or None."""
    if hop is None:
        return None
    if not isinstance(hop, Channel | Pair | GlobalDepolarizing):
        rule = "be a Channel, a Pair, a GlobalDepolarizing or None"
        checks.refuse("hop", rule, hop, TypeError)
    own: tuple[int, ...] = (4, 4)
    if isinstance(hop, GlobalDepolarizing):
        values, own = checks.bounded("survival", hop.survival)[0], ()
    else:
        values = (teleportation(hop) if isinstance(hop, Pair) else hop).ptm
    if values.shape not in (own, (hops, *own)):
        batch = values.shape[: values.ndim - len(own)]
        checks.refuse("hop", f"have no batch axis, or one of {hops} hops", batch)
    return jnp.broadcast_to(values, (hops, *own))


def cross(rho: jax.Array, hop: jax.Array) -> jax.Array:
    """Density matrices (..., 2^n, 2^n) after a hop, given as one row of `each_hop`."""
    size = rho.shape[-1]
    if hop.ndim == 0:
        white = jnp.trace(rho, axis1=-2, axis2=-1)[..., None, None] / size * jnp.eye(size)
        return hop * rho + (1 - hop) * white.astype(rho.dtype)
    dtype = complex_dtype(hop.dtype)
    paulis = jnp.asarray(PAULIS, dtype)
    # N(rho) = sum_ij M_ij s_i Tr[s_j rho] / 2, with indices (out row, out column; row, column).
    on_one = jnp.einsum(
        "ij,iab,jdc->abcd", hop.astype(dtype), paulis, paulis / 2, precision="highest"
    ).astype(rho.dtype)
    qubits = qubits_of(size)
    for q in range(qubits):
        ends = 2**q, 2, 2 ** (qubits - q - 1)
        shaped = rho.reshape(*rho.shape[:-2], *ends, *ends)
        shaped = jnp.einsum("abcd,...icjkdl->...iajkbl", on_one, shaped, precision="highest")
        rho = shaped.reshape(rho.shape)
    return rho
