"""FedVote: nodes that send one sampled bit for every weight, and the credibility of their votes."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key
from jaxqring._varying import as_varying
from jaxqring.codec import Counts
from jaxqring.compress._codes import check_positive
from jaxqring.ring import Ring, all_gather, psum
from jaxqring.ring._axes import axis_size, tracked

#: A mean vote is kept this far from one, where the latent would be infinite.
_MARGIN = 1e-4


def ballot(latent: jax.Array, key: Key, slope: ArrayLike = 1.5) -> jax.Array:
    """A sampled vote for every weight: +1 with probability (1 + tanh(k h)) / 2, else -1.

    Its mean is the weight tanh(k h). A vote is drawn, and its derivative by the latent is zero.
    (Public code has a ternary vote as well, which cannot run.)

    Args:
      latent: (...) h.
      key: typed PRNG key, another one on every node and in every round.
      slope: k.

    Returns:
      (...) float32 of ones, each with a sign.

    Raises:
      TypeError, ValueError: if the key is not one typed key, or `slope` not positive.

    Reference: Yue, Jin, Wong and Dai, arXiv:2110.02998 (FedVote).

    >>> ballot(jnp.array([-9.0, 9.0]), jax.random.key(0))
    Array([-1.,  1.], dtype=float32)
    """
    checks.prng_key("key", key)
    check_positive("slope", slope)
    prob = jax.nn.sigmoid(2 * slope * jnp.asarray(latent, jnp.float32))  # (1 + tanh) / 2
    chosen = jax.random.uniform(key, jnp.shape(latent), jnp.float32) < prob
    return 2 * chosen.astype(jnp.float32) - 1


def latent_of(mean_vote: jax.Array, slope: ArrayLike = 1.5) -> jax.Array:
    """The latent of a mean vote: atanh(v) / k, with v kept within 1 - 1e-4 of zero.

    Args:
      mean_vote: (...) in [-1, 1].
      slope: k.

    Returns:
      (...) h.

    Raises:
      ValueError: if a concrete `slope` is not positive.

    Reference: as `ballot`.

    >>> latent_of(jnp.float32(0.25))
    Array(0.1702..., dtype=float32)
    """
    check_positive("slope", slope)
    return jnp.arctanh(jnp.clip(mean_vote, -1 + _MARGIN, 1 - _MARGIN)) / slope


def credibility(votes: jax.Array, before: jax.Array) -> jax.Array:
    """The credibility of nodes after a round: half of that before, half of their agreement.

    The agreement of a node is the share of its votes that are those of the majority; a tie is
    nobody's.

    Args:
      votes: (N, P) of ones, each with a sign.
      before: (N,) in [0, 1].

    Returns:
      (N,) in [0, 1].

    Raises:
      ValueError: if the shapes do not fit.

    Reference: as `ballot`.

    >>> votes = jnp.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    >>> credibility(votes, jnp.ones(3))
    Array([1.  , 0.75, 1.  ], dtype=float32)
    """
    if jnp.ndim(votes) != 2 or jnp.shape(before) != jnp.shape(votes)[:1]:
        rule = f"be one number for each of the rows of votes {jnp.shape(votes)}"
        checks.refuse("before", rule, jnp.shape(before))
    majority = jnp.sign(jnp.sum(votes, axis=0))
    return 0.5 * before + 0.5 * jnp.mean((votes == majority).astype(jnp.float32), axis=1)


def vote_weights(credible: jax.Array) -> jax.Array:
    """The weights of votes: credibilities that are not below their mean, normalised.

    Args:
      credible: (N,) credibilities.

    Returns:
      (N,) weights that add up to one; equal ones where no node has any credibility.

    Reference: as `ballot`.

    >>> vote_weights(jnp.array([1.0, 1.0, 0.4]))
    Array([0.5, 0.5, 0. ], dtype=float32)
    """
    # Rounding of the mean must not put equal credibilities below it.
    kept = jnp.where(credible >= jnp.mean(credible) * (1 - 1e-6), credible, 0)
    total = jnp.sum(kept)
    equal = jnp.full_like(kept, 1 / kept.shape[0])
    return jnp.where(total > 0, kept / jnp.where(total > 0, total, 1), equal)


def fedvote(
    latent: jax.Array,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key,
    slope: ArrayLike = 1.5,
    credible: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """One round of FedVote over a ring: the latent that all nodes go on from.

    A vote is one bit, but a sum of N votes has N + 1 values: without credibilities the votes are
    added up as integers of ceil(log2(N + 1)) bits and one or two more, for a sign and an even
    number (`jaxqring.codec.Counts`). Credibilities need the single votes, which then are gathered,
    as integers of two bits; that cannot be done under masks.

    Args:
      latent: (...) the latent of this node after its local steps, of any shape.
      axis_name: name of the mapped axis, as for `jaxqring.pmean`.
      ring: the links; its wire is replaced.
      key: typed PRNG key, the same on every node, another one in every round.
      slope: k.
      credible: (N,) credibilities of the round before, ones at first; None to do without.

    Returns:
      The new latent, like `latent`, and the new credibilities.

    Raises:
      TypeError, ValueError: as `jaxqring.psum`; if `slope` is not positive, `latent` not floating,
        the ring has several nodes on a device, or `credible` not one number for each node.

    Reference: as `ballot`.

    >>> latent = jnp.array([[9.0], [9.0], [9.0], [-9.0]])
    >>> step = lambda h: fedvote(h, "nodes", ring=Ring(noise="off"), key=jax.random.key(0))[0]
    >>> jax.vmap(step, axis_name="nodes")(latent)[0]
    Array([0.366...], dtype=float32)
    """
    checks.instance("ring", ring, Ring)
    checks.prng_key("key", key)
    if ring.nodes_per_device > 1:
        checks.refuse("ring.nodes_per_device", "be 1 for votes", ring.nodes_per_device)
    num_nodes = axis_size(axis_name)
    if credible is not None and jnp.shape(credible) != (num_nodes,):
        rule = f"be one number for each of the {num_nodes} nodes"
        checks.refuse("credible", rule, jnp.shape(credible))
    if not jnp.issubdtype(jnp.result_type(latent), jnp.floating):
        checks.refuse("latent", "be floating", str(jnp.result_type(latent)), TypeError)
    votes_key, ring_key = jax.random.split(key)
    own = jax.random.fold_in(votes_key, lax.axis_index(axis_name))
    votes = ballot(latent, own, slope)
    if credible is None:
        most = ring.replace(wire=Counts.for_sums(num_nodes))  # type: ignore[attr-defined]
        total = psum(votes, axis_name, ring=most, key=ring_key)
        return latent_of(total / num_nodes, slope).astype(jnp.result_type(latent)), None
    narrow = ring.replace(wire=Counts(2))  # type: ignore[attr-defined]
    table = all_gather(votes, axis_name, ring=narrow, key=ring_key)
    table = jnp.where(table >= 0, 1.0, -1.0)  # an error on a link makes it another number
    rows = table.reshape(num_nodes, -1)
    credible = credibility(rows, as_varying(credible, tracked(axis_name)))
    mean = jnp.tensordot(vote_weights(credible), table, 1, precision="highest")
    return latent_of(mean, slope).astype(jnp.result_type(latent)), credible


def majority_probability(weight: float, num_nodes: int, liars: int = 0) -> float:
    """The probability that the majority of votes is +1, where liars always vote -1.

    Args:
      weight: tanh(k h) of the honest nodes, in [-1, 1].
      num_nodes: N, odd.
      liars: of them.

    Returns:
      The probability, from the binomial law of the honest votes.

    Raises:
      TypeError: if `weight` is not real.
      ValueError: if one is out of its domain.

    >>> round(majority_probability(0.537049567, 9), 6)
    0.964109
    """
    checks.within("weight", weight, -1.0, 1.0)
    if checks.integer("num_nodes", num_nodes) % 2 == 0:
        checks.refuse("num_nodes", "be odd, so that there is a majority", num_nodes)
    honest = num_nodes - checks.integer("liars", liars, 0, num_nodes)
    prob = (1 + float(weight)) / 2
    needed = num_nodes // 2 + 1
    return sum(
        math.comb(honest, votes) * prob**votes * (1 - prob) ** (honest - votes)
        for votes in range(needed, honest + 1)
    )
