"""Compressors that send few of the values: the largest, or some that all nodes draw alike."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.codec import FixedPoint
from jaxqring.compress._codes import check_decay, check_positive, straight_through, unit_near
from jaxqring.compress._compressor import Compressor
from jaxqring.compress._exchange import Exchange
from jaxqring.compress._message import Message, Traffic, sizes_of, width


def kept_of(size: int, fraction: float) -> int:
    """The number of values kept of `size`: the fraction rounded down, and one at least."""
    return max(1, math.floor(fraction * size * (1 + 1e-12)))


def check_fraction(fraction: float) -> None:
    """Refuses a fraction outside (0, 1].

    Raises:
      ValueError: if it is outside.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float):
        checks.refuse("fraction", "be a number in (0, 1]", fraction)
    if not 0 < fraction <= 1:
        checks.refuse("fraction", "lie in (0, 1]", fraction)


def check_value_bits(bits: int) -> None:
    """Refuses an odd or too large width of a value.

    Raises:
      ValueError: if it is not an even integer in [2, 24].
    """
    checks.integer("bits", bits, 2, 24)
    if bits % 2:
        checks.refuse("bits", "be an even integer in [2, 24]", bits)


def sent_to_all(
    exchange: Exchange,
    values: list[jax.Array],
    places: list[tuple[jax.Array, int]],
    bits: int,
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """Sends chosen values to all nodes, on linear levels, and where they belong.

    Args:
      exchange: of the step.
      values: (k, K) float32 of each leaf.
      places: int32 arrays and their widths, as for `Exchange.gather`.
      bits: of a value.

    Returns:
      (k, N, K) values of all nodes for each leaf, the places of all nodes, and (k, K) this node's
      own values as they are sent.
    """
    wire, middle = FixedPoint(bits), np.float32(2 ** (bits - 1))
    peaks = exchange.highest([jnp.max(jnp.abs(leaf), axis=1) for leaf in values])
    scales = [wire.scale_of(peak, 1)[:, None] for peak in peaks]
    levels = []
    for leaf, scale in zip(values, scales, strict=True):
        exact = leaf / scale
        rounded = wire.encode(lax.stop_gradient(exact), np.float32(1), 1).astype(jnp.float32)
        levels.append(straight_through(exact, rounded))
    numbers = [(level + middle, bits) for level in levels] + places
    received = exchange.gather(numbers, places=True)
    of_all = [
        (number - middle) * scale[:, None]
        for number, scale in zip(received[: len(values)], scales, strict=True)
    ]
    own = [level * scale for level, scale in zip(levels, scales, strict=True)]
    return of_all, received[len(values) :], own


def scattered(values: jax.Array, places: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The sum of sparse vectors, one node after the other, so that its rounding has one order.

    Args:
      values: (N, K) of all nodes.
      places: (N, K) int32; what lies beyond `size` is dropped.
      size: of the vector.

    Returns:
      (size,) the sum, and () uint32 the number of places dropped.
    """

    def add(total: jax.Array, sparse: tuple) -> tuple[jax.Array, None]:
        own_values, own_places = sparse
        return total.at[own_places].add(own_values, mode="drop"), None

    # With the type of a mapped value, and without the sign of a zero.
    start = jnp.zeros((size,), jnp.float32) + jnp.abs(values[0, 0]) * 0
    total, _ = lax.scan(add, start, (values, places))
    return total, jnp.sum(places >= size, dtype=jnp.uint32)


def largest(values: jax.Array, count: int) -> jax.Array:
    """(count,) int32 the places of the largest magnitudes of (size,), of equal ones the first."""
    return lax.top_k(jnp.abs(lax.stop_gradient(values)), count)[1].astype(jnp.int32)


def _place_bits(sizes: list[int]) -> int:
    """The width of the place of a value among all values of the tree."""
    return max(2, width((sum(sizes) - 1).bit_length()))


def _sparse_traffic(tree: PyTree, fraction: float, bits: int) -> Traffic:
    """A gather of values and places, in the pieces in which they travel."""
    sizes = sizes_of(tree)
    kept = sum(kept_of(size, fraction) for size in sizes)
    place_bits = _place_bits(sizes)
    piece = math.gcd(bits, place_bits)
    message = Message("all_gather", kept * (bits + place_bits) // piece, piece)
    return Traffic((message,), (len(sizes),))


def _mean_of_largest(
    tree: PyTree, fraction: float, bits: int, exchange: Exchange
) -> tuple[PyTree, list[jax.Array], list[jax.Array]]:
    """The mean of what every node keeps of its tree.

    Returns:
      The tree; for each leaf, (k, size) what this node sent, and (k, size) bool where.
    """
    leaves, treedef = jax.tree.flatten(tree)
    sizes = [leaf[0].size for leaf in leaves]
    starts = np.cumsum([0, *sizes])
    rows = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves]
    kept = [_largest_of_each(row, kept_of(row.shape[1], fraction)) for row in rows]
    chosen = [jnp.take_along_axis(row, at, axis=1) for row, at in zip(rows, kept, strict=True)]
    in_tree = [at + np.int32(start) for at, start in zip(kept, starts[:-1], strict=True)]
    places = [(jnp.concatenate(in_tree, axis=1), _place_bits(sizes))]
    values, (of_all,), own = sent_to_all(exchange, chosen, places, bits)
    add = jax.vmap(lambda value, place: scattered(value, place, sum(sizes)))
    totals, dropped = add(jnp.concatenate(values, axis=2), of_all)
    exchange.out_of_range += jnp.sum(dropped, dtype=jnp.uint32)
    means = jnp.split(totals / exchange.num_nodes, starts[1:-1], axis=1)
    delivered = [mean.reshape(leaf.shape) for mean, leaf in zip(means, leaves, strict=True)]
    put = jax.vmap(lambda row, at, value: jnp.zeros_like(row).at[at].set(value))
    sent = [put(row, at, value) for row, at, value in zip(rows, kept, own, strict=True)]
    marked = [
        put(row, at, jnp.ones_like(value)) for row, at, value in zip(rows, kept, own, strict=True)
    ]
    return jax.tree.unflatten(treedef, delivered), sent, [mark > 0 for mark in marked]


def _largest_of_each(rows: jax.Array, count: int) -> jax.Array:
    """(k, count) int32 places of the largest magnitudes in each of (k, size)."""
    return jax.vmap(lambda row: largest(row, count))(rows)


@struct.dataclass
class TopK(Compressor):
    """The largest values of every leaf, with what is left behind added to the next gradient.

    Each node sends the values and the places of its own largest ones to all nodes; the rest,
    and what the levels of the wire round off, stays in its error.

    Attributes:
      fraction: of the values of a leaf that are sent, in (0, 1]; one value at least.
      bits: of a value on the wire, even, in [2, 24]; one scale for each leaf.
      error_feedback: whether errors are added to the next gradient.

    Raises:
      ValueError: if the fraction or the bits are outside their domain.

    Reference: Aji and Heafield, EMNLP 2017; Stich et al., NeurIPS 2018, for the errors.

    >>> TopK(0.01).messages(np.zeros(10_000), num_nodes=8)
    (Message(collective='all_gather', size=1500, bits=2),)
    """

    fraction: float = struct.field(pytree_node=False, default=0.01)
    bits: int = struct.field(pytree_node=False, default=16)
    error_feedback: bool = struct.field(pytree_node=False, default=True)

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        check_value_bits(self.bits)
        checks.one_of("error_feedback", self.error_feedback, (True, False))

    @property
    def reduce(self) -> Literal["gather"]:
        return "gather"

    def init(self, tree: PyTree) -> PyTree:
        """Errors of zero, float32 in the shapes of the tree."""
        return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), tree)

    def mean(self, tree: PyTree, state: PyTree, exchange: Exchange) -> tuple[PyTree, PyTree]:
        total = jax.tree.map(jnp.add, tree, state) if self.error_feedback else tree
        delivered, sent, _ = _mean_of_largest(total, self.fraction, self.bits, exchange)
        if not self.error_feedback:
            return delivered, state
        leaves, treedef = jax.tree.flatten(total)
        errors = [leaf - own.reshape(leaf.shape) for leaf, own in zip(leaves, sent, strict=True)]
        return delivered, jax.tree.unflatten(treedef, errors)

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        return _sparse_traffic(tree, self.fraction, self.bits)


@struct.dataclass
class DGC(Compressor):
    """Deep gradient compression: the largest sums of momenta, with the momentum kept local.

    u <- momentum u + g, v <- v + u; the largest of |v| are sent, and both are set back where they
    are: stale momentum would push in old directions. The optimizer after it has none of its own.
    What the levels of the wire round off stays in v.

    Attributes:
      fraction: as for `TopK`.
      momentum: in [0, 1).
      bits: as for `TopK`.
      clip: largest norm of the gradients of all nodes together, positive: each node clips its own
        to clip / sqrt(N) before it is added; None for no clipping.

    Raises:
      ValueError: if an attribute is outside its domain.

    Reference: Lin et al., ICLR 2018. The warm-up of its sparsity is left to the caller.

    >>> DGC(0.01).messages(np.zeros(10_000), num_nodes=8)
    (Message(collective='all_gather', size=1500, bits=2),)
    """

    fraction: float = struct.field(pytree_node=False, default=0.01)
    momentum: ArrayLike = 0.9
    bits: int = struct.field(pytree_node=False, default=16)
    clip: ArrayLike | None = None

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        check_value_bits(self.bits)
        check_decay("momentum", self.momentum)
        if self.clip is not None:
            check_positive("clip", self.clip)

    @property
    def reduce(self) -> Literal["gather"]:
        return "gather"

    def init(self, tree: PyTree) -> tuple[PyTree, PyTree]:
        """(u, v) of zero, float32 in the shapes of the tree."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), tree)
        return zeros, zeros

    def mean(
        self, tree: PyTree, state: tuple[PyTree, PyTree], exchange: Exchange
    ) -> tuple[PyTree, tuple[PyTree, PyTree]]:
        u, v = state
        if self.clip is not None:
            most = jnp.asarray(self.clip) / np.float32(math.sqrt(exchange.num_nodes))
            tree = jax.vmap(lambda own: _clipped(own, most))(tree)
        u = jax.tree.map(lambda old, g: self.momentum * old + g, u, tree)
        v = jax.tree.map(jnp.add, v, u)
        delivered, sent, at = _mean_of_largest(v, self.fraction, self.bits, exchange)
        treedef = jax.tree.structure(v)
        sent_tree, at_tree = jax.tree.unflatten(treedef, sent), jax.tree.unflatten(treedef, at)
        u = jax.tree.map(lambda old, mask: jnp.where(mask.reshape(old.shape), 0, old), u, at_tree)
        v = jax.tree.map(lambda old, own: old - own.reshape(old.shape), v, sent_tree)
        return delivered, (u, v)

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        return _sparse_traffic(tree, self.fraction, self.bits)


def _clipped(tree: PyTree, most: jax.Array) -> PyTree:
    """The tree of one node, shortened to the norm `most` where it is longer."""
    leaves = jax.tree.leaves(tree)
    unit, inverse = unit_near(jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves])))
    square = jnp.sum(jnp.stack([jnp.sum((leaf * inverse) ** 2) for leaf in leaves]))
    is_zero = square == 0
    norm = unit * jnp.sqrt(jnp.where(is_zero, 1, square))
    factor = jnp.where(is_zero | (norm <= most), 1, most / norm)
    return jax.tree.map(lambda leaf: leaf * factor, tree)


def _places_by_chance(key: Key, size: int, count: int) -> jax.Array:
    """(count,) int32 places of a random choice among `size`, each choice equally likely.

    But for ties of 29 random bits, which go to the first: a chance of size / 2^29 a place. The bits
    are compared as floats, whose order is that of their bits, as XLA finds the largest floats
    several times as fast as the largest integers.
    """
    bits = (jax.random.bits(key, (size,)) >> 3) + np.uint32(1 << 23)  # no subnormal, no NaN
    return largest(lax.bitcast_convert_type(bits, jnp.float32), count)


@struct.dataclass
class RandomK(Compressor):
    """Values at random places that all nodes draw alike, so that they add up. Unbiased.

    They are multiplied by size / k. Masks hide them as any sum, and the places say nothing about
    the data.

    Attributes:
      fraction: of the values of a leaf that are sent, in (0, 1]; one value at least.

    Raises:
      ValueError: if the fraction is outside its domain.

    Reference: Stich et al., NeurIPS 2018.

    >>> RandomK(0.01).messages(np.zeros(10_000), num_nodes=8)
    (Message(collective='psum', size=100, bits=16),)
    """

    fraction: float = struct.field(pytree_node=False, default=0.01)

    def __post_init__(self) -> None:
        check_fraction(self.fraction)

    @property
    def reduce(self) -> Literal["sum"]:
        return "sum"

    @property
    def draws(self) -> bool:
        return True

    def init(self, tree: PyTree) -> tuple:
        """No state."""
        return ()

    def mean(self, tree: PyTree, state: tuple, exchange: Exchange) -> tuple[PyTree, tuple]:
        leaves, treedef = jax.tree.flatten(tree)
        key = exchange.shared_key()
        chosen, places = [], []
        for number, leaf in enumerate(leaves):
            size = leaf[0].size
            count = kept_of(size, self.fraction)
            place = _places_by_chance(jax.random.fold_in(key, number), size, count)
            row = leaf.reshape(leaf.shape[0], -1)
            chosen.append(row[:, place] * np.float32(size / count))
            places.append(place)
        means, _ = exchange.mean(chosen)
        delivered = [
            jnp.zeros_like(leaf).reshape(leaf.shape[0], -1).at[:, at].set(mean).reshape(leaf.shape)
            for leaf, at, mean in zip(leaves, places, means, strict=True)
        ]
        return jax.tree.unflatten(treedef, delivered), state

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        sizes = sizes_of(tree)
        kept = sum(kept_of(size, self.fraction) for size in sizes)
        return Traffic((Message("psum", kept, wire.bits),), (len(sizes),))
