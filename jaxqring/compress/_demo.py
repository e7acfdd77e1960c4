"""DeMo: the largest cosine coefficients of momenta that each node keeps to itself."""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.codec import FixedPoint
from jaxqring.compress._codes import check_decay, check_positive, without_derivative
from jaxqring.compress._compressor import Compressor
from jaxqring.compress._exchange import Exchange
from jaxqring.compress._message import Message, Traffic, width
from jaxqring.compress._sparse import check_value_bits, largest, scattered, sent_to_all

#: The longest side of a block.
LONGEST = 64


def cosines(length: int) -> np.ndarray:
    """(length, length) float32 the orthonormal DCT-II: coefficients are its product with values."""
    place, order = np.arange(length), np.arange(length)[:, None]
    matrix = np.sqrt(2 / length) * np.cos(np.pi * (2 * place + 1) * order / (2 * length))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


class Blocks(NamedTuple):
    """The division of a leaf into blocks. Static.

    Attributes:
      rows: of the leaf as a matrix; 1 for a vector.
      columns: of it.
      height: rows of a block, the largest divisor of `rows` up to 64.
      width: columns of a block.
    """

    rows: int
    columns: int
    height: int
    width: int

    @property
    def number(self) -> int:
        """The number of blocks."""
        return self.rows * self.columns // self.size

    @property
    def size(self) -> int:
        """Values of a block."""
        return self.height * self.width

    def transform(self, leaf: jax.Array, *, back: bool = False) -> jax.Array:
        """Coefficients (k, blocks, size) of values (k, ...), or values (k, rows, columns) of them.

        One node after the other, so that products are rounded as where a device has one node.
        """
        return lax.map(functools.partial(self._transform, back=back), leaf)

    def _transform(self, leaf: jax.Array, back: bool) -> jax.Array:
        """As `transform`, of one node."""
        left, right = (_for_each(cosines(side), leaf) for side in (self.height, self.width))
        across, down = self.rows // self.height, self.columns // self.width
        product = functools.partial(jnp.einsum, precision="highest")
        if back:
            blocks = leaf.reshape(across, down, self.height, self.width)
            tall = product("hi,abhw->abiw", left, blocks)
            return product("abiw,wj->aibj", tall, right).reshape(self.rows, self.columns)
        values = leaf.reshape(across, self.height, down, self.width)
        tall = product("hi,aibj->abhj", left, values)
        return product("abhj,wj->abhw", tall, right).reshape(self.number, self.size)


def _for_each(matrix: np.ndarray, leaf: jax.Array) -> jax.Array:
    """A copy of a matrix for the node of a leaf.

    Nodes then are a batch of products. As columns of one larger product, which a constant matrix
    would make of them under `vmap`, they would be rounded otherwise.
    """
    return jnp.asarray(matrix) + leaf.reshape(-1)[0] * 0


def blocks_of(shape: tuple[int, ...]) -> Blocks:
    """The blocks of a leaf of this shape, seen as a matrix of all axes but the last by the last."""
    columns = shape[-1] if shape else 1
    rows = math.prod(shape[:-1])

    def side(length: int) -> int:
        return next(n for n in range(min(length, LONGEST), 0, -1) if length % n == 0)

    return Blocks(rows, columns, side(rows), side(columns))


@struct.dataclass
class DeMo(Compressor):
    """Decoupled momentum: each node sends the few cosine coefficients that move the most.

    delta <- decay delta + rate g on each node; of the orthonormal DCT-II of every block the largest
    k coefficients are sent to all nodes and taken off delta, which is the error feedback as well.
    A coefficient is averaged over the nodes that sent it, and the sign of the inverse transform is
    delivered: take small learning rates and no further momentum.

    Attributes:
      decay: of delta, in [0, 1).
      k: coefficients of a block of up to 64 x 64; all of a smaller one.
      rate: of the gradient in delta, positive. The paper has the learning rate here as well as in
        the step; only its changes in time matter, as the sign is delivered.
      bits: of a coefficient on the wire, even, in [2, 24].

    Raises:
      ValueError: if an attribute is outside its domain.

    Reference: Peng, Quesnelle and Kingma, arXiv 2411.19870.

    >>> DeMo(k=4).messages(np.zeros((64, 128)), num_nodes=8)
    (Message(collective='all_gather', size=56, bits=4),)
    """

    decay: ArrayLike = 0.999
    k: int = struct.field(pytree_node=False, default=32)
    rate: ArrayLike = 1.0
    bits: int = struct.field(pytree_node=False, default=16)

    def __post_init__(self) -> None:
        check_decay("decay", self.decay)
        checks.integer("k", self.k, 1)
        check_positive("rate", self.rate)
        check_value_bits(self.bits)

    @property
    def reduce(self) -> Literal["gather"]:
        return "gather"

    def init(self, tree: PyTree) -> PyTree:
        """Momenta of zero, float32 in the shapes of the tree."""
        return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), tree)

    def mean(self, tree: PyTree, state: PyTree, exchange: Exchange) -> tuple[PyTree, PyTree]:
        state = jax.tree.map(lambda old, g: self.decay * old + self.rate * g, state, tree)
        leaves, treedef = jax.tree.flatten(state)
        all_blocks = [blocks_of(leaf.shape[1:]) for leaf in leaves]
        coefficients = [
            blocks.transform(leaf) for blocks, leaf in zip(all_blocks, leaves, strict=True)
        ]
        kept = [
            _largest_of_blocks(each, min(self.k, blocks.size))
            for each, blocks in zip(coefficients, all_blocks, strict=True)
        ]
        chosen = [
            jnp.take_along_axis(each, at, axis=2).reshape(each.shape[0], -1)
            for each, at in zip(coefficients, kept, strict=True)
        ]
        places = [(at, place_bits(blocks)) for at, blocks in zip(kept, all_blocks, strict=True)]
        values, of_all, own = sent_to_all(exchange, chosen, places, self.bits)
        delivered, left = [], []
        for number, (leaf, blocks) in enumerate(zip(leaves, all_blocks, strict=True)):
            at = of_all[number]
            means, dropped = _means_of_senders(values[number].reshape(at.shape), at, blocks.size)
            exchange.out_of_range += dropped
            direction = without_derivative(blocks.transform(means, back=True))
            delivered.append(jnp.sign(direction).reshape(leaf.shape))
            sent = own[number].reshape(kept[number].shape)
            put = jax.vmap(jax.vmap(lambda row, place, value: (row * 0).at[place].set(value)))
            back = blocks.transform(put(coefficients[number], kept[number], sent), back=True)
            left.append(leaf - back.reshape(leaf.shape))
        return jax.tree.unflatten(treedef, delivered), jax.tree.unflatten(treedef, left)

    def traffic(self, tree: PyTree, num_nodes: int, wire: FixedPoint) -> Traffic:
        all_blocks = [blocks_of(np.shape(leaf)) for leaf in jax.tree.leaves(tree)]
        counts = [blocks.number * min(self.k, blocks.size) for blocks in all_blocks]
        widths = [place_bits(blocks) for blocks in all_blocks]
        piece = math.gcd(self.bits, *widths)
        bits = sum(count * (self.bits + own) for count, own in zip(counts, widths, strict=True))
        return Traffic((Message("all_gather", bits // piece, piece),), (len(counts),))


def place_bits(blocks: Blocks) -> int:
    """The width of the place of a coefficient in its block."""
    return max(2, width((blocks.size - 1).bit_length()))


def _largest_of_blocks(coefficients: jax.Array, count: int) -> jax.Array:
    """(k, blocks, count) int32 places of the largest of each block of (k, blocks, size)."""
    return jax.vmap(jax.vmap(lambda row: largest(row, count)))(coefficients)


def _means_of_senders(
    values: jax.Array, places: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """Coefficients averaged over the nodes that sent them.

    Args:
      values: (k, N, blocks, count) of all nodes.
      places: of them in their blocks.
      size: of a block.

    Returns:
      (k, blocks, size) means, zero where nobody sent; and () uint32 the number of places beyond a
      block, which errors of links have made.
    """
    of_block = jax.vmap(jax.vmap(lambda v, p: scattered(v, p, size), (1, 1)))
    totals, dropped = of_block(values, places)
    senders, _ = of_block(jnp.ones_like(values), places)
    return totals / jnp.maximum(senders, 1), jnp.sum(dropped, dtype=jnp.uint32)
