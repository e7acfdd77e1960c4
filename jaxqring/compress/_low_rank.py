"""Compressors that send two thin factors in place of a matrix: PowerSGD and LQ-SGD."""

import abc
import math
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.codec import FixedPoint, LogLevels
from jaxqring.compress._codes import Logarithmic
from jaxqring.compress._compressor import Compressor
from jaxqring.compress._exchange import Exchange, over, sum_in_order
from jaxqring.compress._message import Message, Traffic, width, wire_for_sums

#: The ways in which `LQSGD` reduces its codes.
Reduction: TypeAlias = Literal["gather", "hop", "sum", "server"]
#: A column of which less than this part is left, once those before it are taken off, adds nothing
#: but rounding errors.
DEPENDENT = np.float32(1e-5)


class Matrix(NamedTuple):
    """A leaf as a matrix of all axes but the last by the last. Static."""

    rows: int
    columns: int

    def is_compressed(self, rank: int) -> bool:
        """True if two factors are smaller than the matrix, so that it has two axes at least."""
        return (self.rows + self.columns) * rank < self.rows * self.columns


def matrix_of(shape: tuple[int, ...]) -> Matrix:
    """The matrix that a leaf of this shape is seen as; a vector is one of a single row."""
    return Matrix(math.prod(shape[:-1]), shape[-1] if shape else 1)


def orthonormal(columns: jax.Array) -> jax.Array:
    """The columns of (n, r), made orthonormal one after the other.

    A column that is zero, or that lies in the span of those before it, becomes zero: nothing is
    divided by its norm, and its derivative is zero as well. Gram and Schmidt, twice for each
    column, so that what is left of it is orthogonal to float32's precision.
    """
    peak = lax.stop_gradient(jnp.max(jnp.abs(columns)))
    columns = columns / jnp.where(peak > 0, peak, 1)  # the directions do not depend on the peak
    done: list[jax.Array] = []
    for number in range(columns.shape[1]):
        column = columns[:, number]
        size = jnp.sqrt(jnp.sum(column**2) + np.float32(1e-30))
        if done:
            basis = jnp.stack(done, axis=1)
            for _ in range(2):
                along = jnp.einsum("nr,n->r", basis, column, precision="highest")
                column = column - jnp.einsum("nr,r->n", basis, along, precision="highest")
        square = jnp.sum(column**2)
        adds = lax.stop_gradient(square) > (DEPENDENT * lax.stop_gradient(size)) ** 2
        root = jnp.sqrt(jnp.where(adds, square, 1))
        done.append(jnp.where(adds, column / root, 0))
    return jnp.stack(done, axis=1)


class LowRankState(NamedTuple):
    """The memory of a low-rank compressor.

    Attributes:
      errors: pytree as the gradient, float32: what this node has not sent yet.
      factors: the right factor (m, r) of every compressed leaf, the same on all nodes where links
        have no errors; of other leaves none.
    """

    errors: PyTree
    factors: list[jax.Array]


class _LowRank(Compressor):
    """Subspace iteration: P = mean(M Q), orthonormal; Q = mean(M^T P); P Q^T is delivered."""

    rank: int
    error_feedback: bool
    warm_start: bool
    seed: int

    def _check_static(self) -> None:
        checks.integer("rank", self.rank)
        checks.integer("seed", self.seed, 0, 2**31 - 1)
        checks.one_of("error_feedback", self.error_feedback, (True, False))
        checks.one_of("warm_start", self.warm_start, (True, False))

    @property
    def draws(self) -> bool:
        return not self.warm_start

    @property
    def _feeds_all_back(self) -> bool:
        """True if leaves that are sent as they are have errors as well."""
        return False

    def init(self, tree: PyTree) -> LowRankState:
        """Errors of zero, and right factors drawn from the seed, the same on all nodes."""
        key = jax.random.key(self.seed)
        matrices = self._matrices([np.shape(leaf) for leaf in jax.tree.leaves(tree)])
        factors = [
            jax.random.normal(jax.random.fold_in(key, number), (matrix.columns, self.rank))
            for number, matrix in enumerate(matrices)
            if matrix is not None
        ]
        errors = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), tree)
        return LowRankState(errors, factors)

    def own(self, state: LowRankState) -> PyTree:
        """The errors: nodes whose factors differ could not add up what they send."""
        return state.errors

    def joined(self, own: PyTree, state: LowRankState) -> LowRankState:
        """These errors, with the factors of another node."""
        return LowRankState(own, state.factors)

    def _matrices(self, shapes: list[tuple[int, ...]]) -> list[Matrix | None]:
        """Each leaf as a matrix, None for those that are sent as they are."""
        seen = [matrix_of(shape) for shape in shapes]
        return [matrix if matrix.is_compressed(self.rank) else None for matrix in seen]

    def _sizes(self, tree: PyTree) -> tuple[list[int], list[int]]:
        """The numbers of the first and of the second message, by leaf."""
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
        matrices = self._matrices(shapes)
        first = [
            math.prod(shape) if matrix is None else self.rank * matrix.rows
            for shape, matrix in zip(shapes, matrices, strict=True)
        ]
        return first, [self.rank * matrix.columns for matrix in matrices if matrix is not None]

    @abc.abstractmethod
    def _means(
        self, leaves: list[jax.Array], exchange: Exchange
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Means (k, ...) of leaves, and what this node's own codes of them stand for."""

    def _next_factors(self, factors: list[jax.Array], exchange: Exchange) -> list[jax.Array]:
        """The right factors to begin with."""
        if self.warm_start:
            return factors
        key = exchange.shared_key()
        return [
            jnp.broadcast_to(
                jax.random.normal(jax.random.fold_in(key, number), factor.shape[1:]), factor.shape
            )
            for number, factor in enumerate(factors)
        ]

    def mean(
        self, tree: PyTree, state: LowRankState, exchange: Exchange
    ) -> tuple[PyTree, LowRankState]:
        leaves, treedef = jax.tree.flatten(tree)
        errors = jax.tree.leaves(state.errors)
        seen = self._matrices([leaf.shape[1:] for leaf in leaves])
        fed_back = [
            self.error_feedback and (matrix is not None or self._feeds_all_back) for matrix in seen
        ]
        wanted = [
            leaf + error if feeds else leaf
            for leaf, error, feeds in zip(leaves, errors, fed_back, strict=True)
        ]
        factors = self._next_factors(state.factors, exchange)
        shapes = {number: matrix for number, matrix in enumerate(seen) if matrix is not None}
        compressed = list(shapes)
        matrices = [wanted[number].reshape(-1, *shape) for number, shape in shapes.items()]
        products = list(wanted)
        for number, matrix, factor in zip(compressed, matrices, factors, strict=True):
            products[number] = _product("knm,kmr->knr", matrix, factor)
        means, own = self._means(products, exchange)
        bases = [jax.vmap(orthonormal)(means[number]) for number in compressed]
        delivered, sent = list(means), list(own)
        if compressed:
            thin = [
                _product("knm,knr->kmr", matrix, basis)
                for matrix, basis in zip(matrices, bases, strict=True)
            ]
            rights, own_rights = self._means(thin, exchange)
            for at, number in enumerate(compressed):
                shape = leaves[number].shape
                delivered[number] = _product("knr,kmr->knm", bases[at], rights[at]).reshape(shape)
                sent[number] = _product("knr,kmr->knm", bases[at], own_rights[at]).reshape(shape)
            factors = [_kept_alive(new, old) for new, old in zip(rights, factors, strict=True)]
            factors = self._shared_factors(factors, exchange)
        errors = [
            value - said if feeds else error
            for value, said, error, feeds in zip(wanted, sent, errors, fed_back, strict=True)
        ]
        done = jax.tree.unflatten(treedef, delivered)
        return done, LowRankState(jax.tree.unflatten(treedef, errors), factors)

    def _shared_factors(self, factors: list[jax.Array], exchange: Exchange) -> list[jax.Array]:
        return factors


def _product(spec: str, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum(spec, left, right, precision="highest")


def _kept_alive(new: jax.Array, old: jax.Array) -> jax.Array:
    """The new right factors (k, m, r), with the old column in place of one that is zero.

    A column of zeros would stay zero for ever, and a gradient of zero, as an unused layer has it,
    makes one.
    """
    return jnp.where(jnp.any(new != 0, axis=1, keepdims=True), new, old)


@struct.dataclass
class PowerSGD(_LowRank):
    """Low-rank approximation by one step of subspace iteration, with two sums over the ring.

    A leaf is seen as a matrix M (n, m), the gradient plus this node's error. P = M Q is summed over
    the nodes and made orthonormal; Q = M^T P is averaged; P Q^T is delivered. The next step begins
    with this Q. The error of a node is M - P own(Q)^T, with the factor that its own codes stand
    for: the mean of all errors plus what is delivered is the mean of what was put in, rounding of
    the wire included, and errors stay bounded on data that differ between the nodes. (Public code
    that subtracts the averaged reconstruction has the same trajectory in exact arithmetic, and
    errors that grow with time.)

    Leaves of one axis, and those with (n + m) rank >= n m, are averaged as they are, beside P.
    (PyTorch's hook has a factor of two in that rule, `min_compression_rate`.) Momentum and weight
    decay come after it, in the optimizer.

    Attributes:
      rank: r, of the factors.
      bits: of a level at least, beside guard bits; None for the wire of the ring as it is.
      error_feedback: whether errors are added to the next gradient.
      warm_start: whether Q is that of the last step; else drawn anew, the same on all nodes.
      share_factors: whether the nodes average Q over the control channel after every step, which
        keeps nodes together whose links have errors.
      seed: of the first Q.

    Raises:
      ValueError: if an attribute is outside its domain.

    Reference: Vogels, Karimireddy and Jaggi, NeurIPS 2019.

    >>> [message.size for message in PowerSGD(rank=2).messages(np.zeros((300, 200)), num_nodes=8)]
    [600, 400]
    """

    rank: int = struct.field(pytree_node=False, default=1)
    bits: int | None = struct.field(pytree_node=False, default=None)
    error_feedback: bool = struct.field(pytree_node=False, default=True)
    warm_start: bool = struct.field(pytree_node=False, default=True)
    share_factors: bool = struct.field(pytree_node=False, default=False)
    seed: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self) -> None:
        self._check_static()
        checks.one_of("share_factors", self.share_factors, (True, False))
        if self.bits is not None:
            checks.integer("bits", self.bits, 2, 24)

    @property
    def reduce(self) -> Literal["sum"]:
        return "sum"

    def _means(
        self, leaves: list[jax.Array], exchange: Exchange
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        return exchange.mean(leaves, self.bits)

    def _shared_factors(self, factors: list[jax.Array], exchange: Exchange) -> list[jax.Array]:
        return exchange.shared(factors) if self.share_factors else factors

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        first, second = self._sizes(tree)
        bits = wire.bits if self.bits is None else wire_for_sums(self.bits, num_nodes).bits
        messages = [Message("psum", sum(sizes), bits) for sizes in (first, second) if sizes]
        shared = sum(second) if self.share_factors else 0
        return Traffic(tuple(messages), tuple(len(x) for x in (first, second) if x), shared)


@struct.dataclass
class LQSGD(_LowRank):
    """PowerSGD whose factors are quantised on logarithmic levels.

    The paper sends 8-bit codes to a parameter server. Codes on logarithmic levels do not add up, so
    that a ring has to do otherwise: "gather" shows the codes of each node to all, who decode them
    and take the mean; "hop" decodes, adds and requantises at every hop, whose rounding is lost;
    "sum" decodes to linear levels that are fine enough for the smallest logarithmic one, and sums
    these exactly, which masks can hide; "server" is the account of the paper, for costs alone. All
    leaves are quantised, those that are no matrices as well, and have errors.

    Attributes:
      rank: of the factors.
      bits: of a code, in [2, 16]; even for "hop".
      alpha: of the logarithm. The paper leaves it open; 10 is our choice. Traced for "gather" only.
      reduce: "gather", "hop", "sum" or "server".
      error_feedback: as for `PowerSGD`.
      warm_start: as for `PowerSGD`.
      seed: as for `PowerSGD`.

    Raises:
      ValueError: if an attribute is outside its domain.

    Reference: LQ-SGD, arXiv 2506.17974.

    >>> LQSGD(rank=1).messages({"w": np.zeros((300, 200))}, num_nodes=8)[0]
    Message(collective='all_gather', size=300, bits=8)
    """

    rank: int = struct.field(pytree_node=False, default=1)
    bits: int = struct.field(pytree_node=False, default=8)
    alpha: ArrayLike = 10.0
    reduce: Reduction = struct.field(pytree_node=False, default="gather")
    error_feedback: bool = struct.field(pytree_node=False, default=True)
    warm_start: bool = struct.field(pytree_node=False, default=True)
    seed: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self) -> None:
        self._check_static()
        Logarithmic(self.bits, self.alpha)
        checks.one_of("reduce", self.reduce, ("gather", "hop", "sum", "server"))
        if self.reduce == "hop" and (self.bits % 2 or self.bits < 4):
            checks.refuse("bits", 'be even and at least 4 for reduce="hop"', self.bits)

    @property
    def _feeds_all_back(self) -> bool:
        return True

    def _known_alpha(self) -> float:
        if checks.is_traced(self.alpha):
            checks.refuse("alpha", f'be concrete for reduce="{self.reduce}"', self.alpha)
        return float(np.asarray(self.alpha))

    def _linear_bits(self) -> int:
        """Of linear levels as fine as the smallest logarithmic one."""
        alpha = self._known_alpha()
        return self.bits + math.ceil(math.log2(alpha / math.log1p(alpha)))

    def _means(
        self, leaves: list[jax.Array], exchange: Exchange
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        code = Logarithmic(self.bits, self.alpha)
        peaks = [jnp.max(jnp.abs(leaf.reshape(leaf.shape[0], -1)), axis=1) for leaf in leaves]
        if self.reduce == "hop":
            return self._requantised(leaves, peaks, exchange), leaves
        scales = [
            over(leaf, peak) for leaf, peak in zip(leaves, exchange.highest(peaks), strict=True)
        ]
        codes = [code.encode(leaf, scale) for leaf, scale in zip(leaves, scales, strict=True)]
        own = [code.decode(each, scale) for each, scale in zip(codes, scales, strict=True)]
        if self.reduce == "sum":
            return exchange.mean(own, self._linear_bits())
        received = exchange.gather([(each + code.most, width(self.bits)) for each in codes])
        means = [
            sum_in_order(code.decode(each - code.most, scale[:, None]), 1) / exchange.num_nodes
            for each, scale in zip(received, scales, strict=True)
        ]
        return means, own

    def _requantised(
        self, leaves: list[jax.Array], peaks: list[jax.Array], exchange: Exchange
    ) -> list[jax.Array]:
        """The means, of sums that are rounded at every hop; the sum of all peaks bounds them."""
        scales = [
            over(leaf, jnp.where(bound > 0, bound, 1))
            for leaf, bound in zip(leaves, exchange.total(peaks), strict=True)
        ]
        fractions = [leaf / scale for leaf, scale in zip(leaves, scales, strict=True)]
        sums = exchange.requantised(fractions, LogLevels(self.bits, self._known_alpha()))
        return [
            total * scale / exchange.num_nodes for total, scale in zip(sums, scales, strict=True)
        ]

    def mean(
        self, tree: PyTree, state: LowRankState, exchange: Exchange
    ) -> tuple[PyTree, LowRankState]:
        if self.reduce == "server":
            rule = 'be "gather", "hop" or "sum" on a ring; "server" is an account of costs'
            checks.refuse("reduce", rule, self.reduce)
        return super().mean(tree, state, exchange)

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        first, second = self._sizes(tree)
        bits = width(self.bits)
        collective: Literal["psum", "all_gather"] = "all_gather"
        if self.reduce == "server":
            rule = 'be "gather", "hop" or "sum" for the cost of a ring; see `star_cost`'
            checks.refuse("reduce", rule, self.reduce)
        if self.reduce == "sum":
            bits = wire_for_sums(self._linear_bits(), num_nodes).bits
        if self.reduce != "gather":
            collective = "psum"
        parts = [sizes for sizes in (first, second) if sizes]
        # The nodes agree on a scale for the codes, and for "sum" on one for their values.
        agreements = [len(sizes) for sizes in parts for _ in range(1 + (self.reduce == "sum"))]
        messages = [Message(collective, sum(sizes), bits) for sizes in parts]
        return Traffic(tuple(messages), tuple(agreements))
