"""The view of a set of nodes of a ring all-reduce, for audits of its privacy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.codec._packing import wrap
from jaxqring.secure._security import MIN_PARTIES


class View(NamedTuple):
    """The data that K nodes of a coalition hold and receive: levels mod 2^bits, int32.

    Attributes:
      codes: (K, size) the levels that they put in.
      masks: (K, size) the masks that they add.
      received: (K, 2 (N - 1), c) chunks received over their links: partial sums in the first N - 1
        rounds, sums in the others.
    """

    codes: jax.Array
    masks: jax.Array
    received: jax.Array

    def vector(self) -> jax.Array:
        """All entries as one vector (V,)."""
        return jnp.concatenate([part.reshape(-1) for part in self])


def view(
    coalition: tuple[int, ...],
    codes: ArrayLike,
    masks: ArrayLike | None = None,
    *,
    bits: int,
) -> View:
    """Computes the view of a coalition of honest but curious nodes of one exact all-reduce.

    Verification shows outcomes of copies that are not used, which say nothing about the others;
    the scale of the levels is public. Padding appears as zeros.

    Args:
      coalition: numbers of the nodes, N - 2 at most: of two honest nodes only the sum is to be
        known, of one nothing can be hidden.
      codes: (N, size) levels that the nodes put in.
      masks: (N, size) integers added to them; None for a ring without masks.
      bits: of the wire.

    Returns:
      The `View` of the coalition, its nodes in the given order.

    Raises:
      ValueError: if the coalition has a number twice, one that is not a node, or too many of them;
        if there are fewer than 3 nodes; or if shapes differ.

    >>> levels = jnp.arange(9).reshape(3, 3)  # without masks the successor gets a chunk as it is
    >>> int(view((1,), levels, bits=8).received[0, 0, 0]), int(levels[0, 0])
    (0, 0)
    """
    if np.ndim(codes) != 2 or np.shape(codes)[0] < MIN_PARTIES:
        rule = f"have the shape (N, size), with N at least {MIN_PARTIES}"
        checks.refuse("codes", rule, np.shape(codes))
    num_nodes, size = np.shape(codes)
    if len(set(coalition)) < len(coalition) or not set(coalition) <= set(range(num_nodes)):
        checks.refuse("coalition", f"hold different nodes of 0, ..., {num_nodes - 1}", coalition)
    if len(coalition) > num_nodes - 2:
        rule = f"leave two honest nodes, and so hold at most {num_nodes - 2}"
        checks.refuse("coalition", rule, coalition)
    levels = jnp.asarray(codes, jnp.int32)
    hidden = jnp.zeros_like(levels) if masks is None else jnp.asarray(masks).astype(jnp.int32)
    if hidden.shape != levels.shape:
        checks.refuse("masks", f"have the shape {levels.shape} of `codes`", hidden.shape)
    chunk = -(-size // num_nodes)
    sent = jnp.pad(wrap(levels + hidden, bits), ((0, 0), (0, chunk * num_nodes - size)))
    sent = sent.reshape(num_nodes, num_nodes, chunk)
    members = np.array(coalition, int)
    rounds = np.arange(num_nodes - 1)
    # Round t brings node j the sum of chunk j - 1 - t over the nodes from there to j - 1.
    arriving = (members[:, None] - 1 - rounds) % num_nodes
    # Hops from the node that sends a chunk first to each node.
    hops = (np.arange(num_nodes) - arriving[..., None]) % num_nodes
    inside = jnp.asarray(hops <= rounds[:, None], jnp.int32)
    partial = jnp.einsum("kti,iktc->ktc", inside, sent[:, arriving])
    total = jnp.sum(sent, axis=0)[(members[:, None] - rounds) % num_nodes]
    received = wrap(jnp.concatenate([partial, total], axis=1), bits)
    return View(levels[members], wrap(hidden[members], bits), received)
