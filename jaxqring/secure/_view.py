"""What a set of nodes sees of a ring all-reduce: for audits of what it gives away."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.codec._packing import wrap
from jaxqring.secure._secure_sums import MIN_PARTIES


class View(NamedTuple):
    """What the nodes of a coalition hold and receive, K of them; codes mod 2^bits, int32.

    Attributes:
      codes: (K, size) their own.
      masks: (K, size) their own.
      received: (K, 2 (N - 1), c) what comes in over their links: partial sums in the first N - 1
        rounds, sums in the others.
    """

    codes: jax.Array
    masks: jax.Array
    received: jax.Array

    def vector(self) -> jax.Array:
        """(V,) all of it in one."""
        return jnp.concatenate([part.reshape(-1) for part in self])


def view(
    coalition: tuple[int, ...],
    codes: ArrayLike,
    masks: ArrayLike | None = None,
    *,
    bits: int,
) -> View:
    """What a coalition of honest but curious nodes sees of one all-reduce without link errors.

    Verification shows outcomes of copies that are not used, which say nothing about the others;
    the scale of the codes is public. What pads the chunks
    is shown as zero.

    Args:
      coalition: numbers of the nodes, N - 2 at most: of two honest nodes the sum is all there is
        to hide, of one there is nothing.
      codes: (N, size) integers that the nodes put in.
      masks: (N, size) integers added to them; None for none.
      bits: of the wire.

    Raises:
      ValueError: if the coalition has a number twice, one that is no node, or too many of them;
        if there are fewer than 3 nodes; or if shapes differ.

    >>> codes = jnp.arange(9).reshape(3, 3)  # without masks the successor gets a chunk as it is
    >>> int(view((1,), codes, bits=8).received[0, 0, 0]), int(codes[0, 0])
    (0, 0)
    """
    if np.ndim(codes) != 2 or np.shape(codes)[0] < MIN_PARTIES:
        rule = f"have the shape (N, size), with N at least {MIN_PARTIES}"
        checks.refuse("codes", rule, np.shape(codes))
    nodes, size = np.shape(codes)
    if len(set(coalition)) < len(coalition) or not set(coalition) <= set(range(nodes)):
        checks.refuse("coalition", f"hold different nodes of 0, ..., {nodes - 1}", coalition)
    if len(coalition) > nodes - 2:
        rule = f"leave two honest nodes, and so hold at most {nodes - 2}"
        checks.refuse("coalition", rule, coalition)
    codes = jnp.asarray(codes, jnp.int32)
    hidden = jnp.zeros_like(codes) if masks is None else jnp.asarray(masks).astype(jnp.int32)
    if hidden.shape != codes.shape:
        checks.refuse("masks", f"have the shape {codes.shape} of the codes", hidden.shape)
    chunk = -(-size // nodes)
    sent = jnp.pad(wrap(codes + hidden, bits), ((0, 0), (0, chunk * nodes - size)))
    sent = sent.reshape(nodes, nodes, chunk)
    members = np.array(coalition, int)
    rounds = np.arange(nodes - 1)
    # Round t brings node j the sum of chunk j - 1 - t over the nodes from there to j - 1.
    arriving = (members[:, None] - 1 - rounds) % nodes
    steps = (np.arange(nodes) - arriving[..., None]) % nodes  # of each node behind the first
    inside = jnp.asarray(steps <= rounds[:, None], jnp.int32)
    partial = jnp.einsum("kti,iktc->ktc", inside, sent[:, arriving])
    total = jnp.sum(sent, axis=0)[(members[:, None] - rounds) % nodes]
    received = wrap(jnp.concatenate([partial, total], axis=1), bits)
    return View(codes[members], wrap(hidden[members], bits), received)
