"""Methods that code every value by itself: linear levels, TernGrad, QSGD, and votes of signs."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.codec import Counts, FixedPoint
from jaxqring.compress._codes import (
    Levels,
    Ternary,
    check_decay,
    check_positive,
    unit_near,
    without_derivative,
)
from jaxqring.compress._compressor import Compressor
from jaxqring.compress._exchange import Exchange, over
from jaxqring.compress._message import Message, Traffic, sizes_of, wire_for_sums


class _Summed(Compressor):
    """A compressor whose codes add up, one for every value."""

    @property
    def reduce(self) -> Literal["sum"]:
        return "sum"

    @property
    def draws(self) -> bool:
        return True

    def init(self, tree: PyTree) -> tuple:
        """No state: the codes are unbiased, and nothing is fed back."""
        return ()

    def _delivered(
        self,
        tree: PyTree,
        exchange: Exchange,
        scales: list[jax.Array],
        code: Ternary | Levels,
        most: int,
    ) -> PyTree:
        leaves, treedef = jax.tree.flatten(tree)
        shared = [
            over(leaf, scale) for leaf, scale in zip(leaves, exchange.highest(scales), strict=True)
        ]
        codes = [
            code.encode(leaf, scale, uniform)
            for leaf, scale, uniform in zip(leaves, shared, exchange.uniform(leaves), strict=True)
        ]
        sums = exchange.sum(codes, most * exchange.num_nodes)
        means = [
            code.decode(total, scale) / exchange.num_nodes
            for total, scale in zip(sums, shared, strict=True)
        ]
        return jax.tree.unflatten(treedef, means)

    def _traffic(self, tree: PyTree, most: int) -> Traffic:
        sizes = sizes_of(tree)
        message = Message("psum", sum(sizes), Counts.for_sums(most).bits)
        return Traffic((message,), (len(sizes),))


@struct.dataclass
class Uncompressed(Compressor):
    """Every value on evenly spaced levels, as `jaxqring.pmean`, but with a scale for each leaf.

    The yardstick of the others: it goes the same way over the ring.

    Attributes:
      bits: of a level at least, beside guard bits; None for the wire of the ring as it is.

    Raises:
      ValueError: if `bits` is not an integer in [2, 24].

    >>> Uncompressed().messages(np.zeros(100), num_nodes=8)
    (Message(collective='psum', size=100, bits=16),)
    """

    bits: int | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self) -> None:
        if self.bits is not None:
            checks.integer("bits", self.bits, 2, 24)

    @property
    def reduce(self) -> Literal["sum"]:
        return "sum"

    def init(self, tree: PyTree) -> tuple:
        """No state: what is rounded off is lost."""
        return ()

    def mean(self, tree: PyTree, state: tuple, exchange: Exchange) -> tuple[PyTree, tuple]:
        leaves, treedef = jax.tree.flatten(tree)
        means, _ = exchange.mean(leaves, self.bits)
        return jax.tree.unflatten(treedef, means), state

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        sizes = sizes_of(tree)
        bits = wire.bits if self.bits is None else wire_for_sums(self.bits, num_nodes).bits
        return Traffic((Message("psum", sum(sizes), bits),), (len(sizes),))


@struct.dataclass
class TernGrad(_Summed):
    """Ternary gradients: every value is sent as -1, 0 or 1 times a scale that all nodes share.

    The scale of a leaf is the largest of all nodes' own. Without clipping the result is unbiased,
    with an error of variance sum_j |g_j| (s - |g_j|) a node; clipping at 2.5 standard deviations
    makes it smaller and the result biased. The public code leaves the last layer as it is; here it
    is sent like the others.

    Attributes:
      clip: standard deviations at which a leaf is clipped; None for no clipping.

    Raises:
      ValueError: if a concrete `clip` is not positive.

    Reference: Wen et al., NeurIPS 2017.

    >>> TernGrad().messages(np.zeros(100), num_nodes=8)
    (Message(collective='psum', size=100, bits=6),)
    """

    clip: ArrayLike | None = 2.5

    def __post_init__(self) -> None:
        if self.clip is not None:
            check_positive("clip", self.clip)

    def mean(self, tree: PyTree, state: tuple, exchange: Exchange) -> tuple[PyTree, tuple]:
        code = Ternary(self.clip)
        scales = [jax.vmap(code.scale)(leaf) for leaf in jax.tree.leaves(tree)]
        return self._delivered(tree, exchange, scales, code, 1), state

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        return self._traffic(tree, num_nodes)


@struct.dataclass
class QSGD(_Summed):
    """Stochastic rounding of every value to a few levels of a norm that all nodes share.

    The paper gives each node a norm of its own, whose codes do not add up; with the largest norm of
    all nodes they do. The norm is that of a leaf, without buckets.

    Attributes:
      levels: s, levels above zero.
      norm: "l2" as in the paper, or "max", whose levels are finer and whose codes are denser.

    Raises:
      ValueError: if `levels` is not an integer of at least 1 or `norm` is unknown.

    Reference: Alistarh et al., NeurIPS 2017; sharing the norm is our interpretation.

    >>> QSGD(7).messages(np.zeros(100), num_nodes=8)
    (Message(collective='psum', size=100, bits=8),)
    """

    levels: int = struct.field(pytree_node=False, default=7)
    norm: Literal["l2", "max"] = struct.field(pytree_node=False, default="l2")

    def __post_init__(self) -> None:
        checks.integer("levels", self.levels, 1, 2**22)
        checks.one_of("norm", self.norm, ("l2", "max"))

    def mean(self, tree: PyTree, state: tuple, exchange: Exchange) -> tuple[PyTree, tuple]:
        norm = _largest if self.norm == "max" else _euclidean
        scales = [norm(leaf) for leaf in jax.tree.leaves(tree)]
        return self._delivered(tree, exchange, scales, Levels(self.levels), self.levels), state

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        return self._traffic(tree, self.levels * num_nodes)


def _largest(leaf: jax.Array) -> jax.Array:
    """(k,) largest magnitudes of (k, ...)."""
    return jnp.max(jnp.abs(leaf.reshape(leaf.shape[0], -1)), axis=1)


def _euclidean(leaf: jax.Array) -> jax.Array:
    """(k,) Euclidean norms of (k, ...), which do not overflow before the values do."""
    unit, inverse = unit_near(_largest(leaf))
    squares = jnp.sum(((leaf * over(leaf, inverse)) ** 2).reshape(leaf.shape[0], -1), axis=1)
    # A little more, so that no rounding puts the largest value beyond the norm.
    return unit * jnp.sqrt(squares) * np.float32(1 + 1e-6)


@struct.dataclass
class SignVote(Compressor):
    """The majority of the nodes' signs: signSGD with majority vote, and Signum with momentum.

    Delivers -1, 0 or 1: take small learning rates and no further momentum, and decay weights apart.
    A tie delivers 0. A value that is zero abstains. With an odd number of nodes -1, 0 and 1 are
    added up. With an even number only the votes for 1 are counted, which takes a bit less: a node
    that abstains then votes for 1 or for -1 by the parity of its number and the coordinate's. Where
    all abstain they cancel out; where some do, the vote is shifted by the difference of their
    numbers on either side.

    Signs have no derivative, and asking for one raises.

    Attributes:
      momentum: of each node's gradient before it votes, m <- momentum m + (1 - momentum) g.

    Raises:
      ValueError: if a concrete `momentum` is outside [0, 1).

    Reference: Bernstein et al., ICML 2018, and ICLR 2019 for the vote; abstention is our choice.

    >>> SignVote().messages(np.zeros(100), num_nodes=8)
    (Message(collective='psum', size=100, bits=4),)
    """

    momentum: ArrayLike = 0.0

    def __post_init__(self) -> None:
        check_decay("momentum", self.momentum)

    @property
    def reduce(self) -> Literal["vote"]:
        return "vote"

    def init(self, tree: PyTree) -> PyTree:
        """Momenta of zero, float32 in the shapes of the tree."""
        return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), tree)

    def mean(self, tree: PyTree, state: PyTree, exchange: Exchange) -> tuple[PyTree, PyTree]:
        state = jax.tree.map(
            lambda old, new: self.momentum * old + (1 - self.momentum) * new, state, tree
        )
        leaves, treedef = jax.tree.flatten(state)
        votes = [_vote(without_derivative(leaf), exchange) for leaf in leaves]
        sums = exchange.sum(votes, most_of_votes(exchange.num_nodes))
        signs = [jnp.sign(without_derivative(total)) for total in sums]
        return jax.tree.unflatten(treedef, signs), state

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        bits = Counts.for_sums(most_of_votes(num_nodes)).bits
        return Traffic((Message("psum", sum(sizes_of(tree)), bits),))


def most_of_votes(num_nodes: int) -> int:
    """The largest magnitude of a sum of votes."""
    return num_nodes if num_nodes % 2 else num_nodes // 2


def _vote(values: jax.Array, exchange: Exchange) -> jax.Array:
    """(k, ...) integer-valued votes whose sum is positive where most of the values are."""
    if exchange.num_nodes % 2:
        return jnp.sign(values)
    # Half of the nodes count ones, the others what is missing to them: less N / 2 in all. A zero
    # sends 0, which is a vote against in one half and one for in the other.
    place = jnp.arange(math.prod(values.shape[1:]), dtype=jnp.int32).reshape(values.shape[1:])
    counts_ones = (over(values, exchange.nodes) + place) % 2 == 0
    ones = (values > 0).astype(jnp.float32)
    return jnp.where(counts_ones, ones, -(values < 0).astype(jnp.float32))
