"""Audits by recomputation: who computes whose step again, and when a liar is caught.

Collectives over codes are exact, so that a node that computes the step of another one from the same
data gets the same bits, under every mapping: the test is equality, without a tolerance.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._threefry import cipher_key, derive, threefry
from jaxqring._types import AxisName, Key, PyTree
from jaxqring._varying import as_varying
from jaxqring.ring._axes import axis_size, tracked
from jaxqring.robust._vectors import everyone


def digest(tree: PyTree, key: Key) -> jax.Array:
    """Two words that stand for all bits of a pytree.

    The exclusive or of Threefry-2x32 of every word and its place: two trees of one structure that
    differ have the same digest with a chance of 2^-64, in the model of a random function, if the
    key was not known when the second one was made. What is sent for an audit are these 64 bits.

    Args:
      tree: pytree of numbers of 32 bits or fewer.
      key: typed PRNG key, drawn after nodes have committed to their trees.

    Returns:
      (2,) uint32.

    Raises:
      TypeError, ValueError: if the key is not one typed key, or numbers have more than 32 bits.

    >>> key, tree = jax.random.key(0), {"w": jnp.arange(4.0)}
    >>> bool(jnp.all(digest(tree, key) == digest({"w": jnp.arange(4.0)}, key)))
    True
    """
    checks.prng_key("key", key)
    words = [_words(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    cipher = cipher_key(key)
    total = jnp.zeros((2,), jnp.uint32)
    for number, leaf in enumerate(words):
        own = derive(cipher, number)
        mixed = threefry(own, (lax.iota(jnp.uint32, leaf.size), leaf))
        total = total ^ jnp.stack([_exclusive_or(word) for word in mixed])
    return total


def _exclusive_or(words: jax.Array) -> jax.Array:
    return lax.reduce(words, jnp.uint32(0), lax.bitwise_xor, (0,))


def _words(path: tuple, leaf: jax.Array) -> jax.Array:
    """(size,) uint32 the bits of the numbers of a leaf."""
    leaf = jnp.asarray(leaf)
    size = leaf.dtype.itemsize
    if size > 4 or leaf.dtype == jnp.bool_ or not jnp.issubdtype(leaf.dtype, jnp.number):
        name = "tree" + jax.tree_util.keystr(path)
        checks.refuse(name, "hold numbers of at most 32 bits", str(leaf.dtype), TypeError)
    kind = jnp.dtype(f"uint{8 * size}")
    return lax.bitcast_convert_type(leaf.reshape(-1), kind).astype(jnp.uint32)


def subjects(key: Key, num_nodes: int, audited: int) -> jax.Array:
    """The node that each node computes again in a step, drawn at random.

    Args:
      key: typed PRNG key of the step, the same on every node, not known before it.
      num_nodes: N, at least 2.
      audited: m, of at most N nodes whose step is computed again, each by one other node.

    Returns:
      (N,) int32 numbers of nodes, -1 for a node without a task. No node is its own auditor.

    Raises:
      TypeError, ValueError: if the key is not one typed key, or a count out of its domain.

    >>> subjects(jax.random.key(0), 4, 4).tolist() != [0, 1, 2, 3]
    True
    """
    checks.prng_key("key", key)
    num_nodes = checks.integer("num_nodes", num_nodes, 2)
    audited = checks.integer("audited", audited, 1, num_nodes)
    order = jax.random.permutation(key, num_nodes).astype(jnp.int32)
    auditors = jnp.roll(order, -1)[:audited]
    return jnp.full((num_nodes,), -1, jnp.int32).at[auditors].set(order[:audited])


def recheck(
    sent: PyTree,
    recompute: Callable[[jax.Array], PyTree],
    axis_name: AxisName,
    *,
    audited: int,
    key: Key,
) -> jax.Array:
    """Audits of one step, inside a mapped step: which nodes did not send what they should have.

    When all has been sent, the key is drawn; every node announces the digest of what it sent, on an
    authenticated channel; auditors compute the step of their subject again, and compare digests.
    What is simulated is the honest digest of `sent`. It binds a node only where others can compare
    it with what they have received, as with "gather" and "butterfly" of `robust_pmean`: in a ring,
    where nobody sees a single vector, a liar can announce the digest of an honest one.

    A liar that is an auditor can accuse an honest node, or not accuse another liar, so that an
    accusation calls for a third node: the answer is who has been accused.

    Args:
      sent: pytree that this node has sent; the codes, or the numbers that they stand for.
      recompute: node (), int32 -> the pytree that the node should have sent, from its seed of data;
        the same function on every node, pure and with the same bits everywhere.
      axis_name: name of the mapped axis, one node on each device.
      audited: m.
      key: typed PRNG key of the step, the same on every node.

    Returns:
      (N,) bool, true for nodes whose digest differs; the same on every node.

    Raises:
      TypeError, ValueError: as `subjects` and `digest`; if the axis is not bound.

    >>> honest = lambda node: node.astype(jnp.float32) ** 2
    >>> step = lambda sent: recheck(sent, honest, "nodes", audited=3, key=jax.random.key(0))
    >>> jax.vmap(step, axis_name="nodes")(jnp.array([0.0, 1.0, 5.0]))[0]
    Array([False, False,  True], dtype=bool)
    """
    num_nodes = axis_size(axis_name)
    checks.prng_key("key", key)
    deal, tag = jax.random.split(key)
    tasks = subjects(deal, num_nodes, audited)
    tags = everyone(digest(sent, tag)[None], axis_name)
    subject = as_varying(tasks, tracked(axis_name))[lax.axis_index(axis_name)]
    # Whoever has no task computes its own step again, so that no branch depends on the node.
    node = jnp.where(subject < 0, lax.axis_index(axis_name), subject)
    differs = jnp.any(digest(recompute(node), tag) != tags[node]) & (subject >= 0)
    found = everyone(differs[None], axis_name)
    return jnp.zeros((num_nodes,), bool).at[tasks].max(found & (tasks >= 0), mode="drop")


def agreed(tree: PyTree, axis_name: AxisName, key: Key) -> jax.Array:
    """True if all nodes hold the same bits, as their digests say on an authenticated channel.

    So is equivocation found: a relay that passes on different values to different nodes leaves them
    with different results. It costs N digests of 64 bits.

    Args:
      tree: pytree of this node.
      axis_name: name of the mapped axis, one node on each device.
      key: typed PRNG key, the same on every node, drawn after the trees were made.

    Returns:
      () bool, the same on every node.

    Raises:
      TypeError, ValueError: as `digest`; if the axis is not bound.

    >>> same = lambda x: agreed(x, "nodes", jax.random.key(0))
    >>> jax.vmap(same, axis_name="nodes")(jnp.array([1.0, 1.0, 1.5]))
    Array([False, False, False], dtype=bool)
    """
    axis_size(axis_name)
    tags = everyone(digest(tree, key)[None], axis_name)
    return jnp.all(tags == tags[0])


class Catch(NamedTuple):
    """Steps until a node that lies in every step is caught.

    Attributes:
      mean: of the steps.
      within: steps after which it is caught with the probability that was asked for, not rounded.
    """

    mean: float
    within: float


def steps_to_catch(num_nodes: int, audited: int, probability: float = 0.99) -> Catch:
    """Steps until a persistent liar is caught: geometric, with the chance m / N a step.

    By honest auditors: where f - 1 others cover up for it, the chance is (N - f) / (N - 1) of that.

    Args:
      num_nodes: N.
      audited: m.
      probability: of `Catch.within`, in (0, 1).

    Returns:
      The mean N / m, and ln(1 - probability) / ln(1 - m / N).

    Raises:
      TypeError: if the probability is not real.
      ValueError: if an argument is out of its domain.

    >>> catch = steps_to_catch(16, 2)
    >>> catch.mean, round(catch.within, 2)
    (8.0, 34.49)
    """
    num_nodes = checks.integer("num_nodes", num_nodes, 2)
    audited = checks.integer("audited", audited, 1, num_nodes)
    checks.open_interval("probability", probability)
    if audited == num_nodes:
        return Catch(1.0, 1.0)
    return Catch(num_nodes / audited, math.log(1 - probability) / math.log(1 - audited / num_nodes))
