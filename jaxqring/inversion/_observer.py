"""`Observer`: what a node sends in a step of any compressor, recorded.

The observer stands in for the `Exchange` of a ring of one node: it lets the compressor run as it
is, answers as the ring would, and notes the integers that the node sends, with their width and the
value of one of them. Answers have no derivative, as an attacker knows them; and compressors take
the places of the values they choose for fixed and put a straight line in the place of rounding. So
the derivative of what was sent with respect to the gradient is a linear map, and the messages that
another gradient would have sent, had the choices and the answers been the same, are this map of it.
No compressor needs code of its own, but for those whose codes are no multiples of a value:
logarithmic levels are noted as the values they stand for, and signs have a smooth step instead.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._types import Key, PyTree
from jaxqring.codec import Counts, FixedPoint
from jaxqring.codec._log_levels import LogLevels, of_log_level, to_log_level
from jaxqring.compress import LQSGD, Compressor, Exchange
from jaxqring.compress._codes import straight_through
from jaxqring.compress._exchange import over
from jaxqring.compress._message import wire_for_sums
from jaxqring.ring import Ring


class Sent(NamedTuple):
    """One tensor that a node sends.

    Attributes:
      codes: (...) integer-valued float32 in [-2^(bits - 1), 2^(bits - 1)).
      unit: () float32 the value of one code, up to a factor that the tensors of a step share; of
        codes that are gathered, within a factor of two.
      bits: () int32 width of a code.
    """

    codes: jax.Array
    unit: jax.Array
    bits: jax.Array

    @property
    def values(self) -> jax.Array:
        """(...) float32 that the codes stand for."""
        return self.codes * self.unit


#: All that a node sends in a step.
Sends = list[Sent]


class Observer(Exchange):
    """An exchange of one node that notes what the node sends.

    Attributes:
      sent: so far.
      num_nodes, nodes, rings: of a ring of one node with a fixed wire of 16 bits.
    """

    def __init__(self, key: Key) -> None:
        """Args: `key` for compressors that draw."""
        self.rings = (Ring(noise="off", wire=FixedPoint()),)
        self.num_nodes, self.nodes = 1, jnp.zeros(1, jnp.int32)
        self.masking, self.axis_name = None, None
        self.reports, self.control_bits = [], 0
        self.out_of_range = jnp.zeros((), jnp.uint32)
        self._key, self._axes, self._per_device, self._draws = key, frozenset(), 1, 0
        self.sent: Sends = []
        self._peaks: list[jax.Array] = []

    def highest(self, peaks: Sequence[jax.Array], bits: int = 32) -> list[jax.Array]:
        """The peaks themselves, without a derivative."""
        self._peaks = [lax.stop_gradient(peak) for peak in peaks]
        return list(self._peaks)

    def total(self, numbers: Sequence[jax.Array]) -> list[jax.Array]:
        """The numbers themselves, without a derivative."""
        return [lax.stop_gradient(number) for number in numbers]

    def shared(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """The leaves themselves, without a derivative."""
        return [lax.stop_gradient(leaf) for leaf in leaves]

    def mean(
        self, leaves: Sequence[jax.Array], bits: int | None = None
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Notes the linear levels of leaves (1, ...); returns what they stand for, twice."""
        wire = self.wire if bits is None else wire_for_sums(bits, 1)
        peaks = self.highest([jnp.max(jnp.abs(leaf.reshape(1, -1)), axis=1) for leaf in leaves])
        own = []
        for leaf, peak in zip(leaves, peaks, strict=True):
            scale = wire.scale_of(peak, 1)
            exact = leaf / over(leaf, scale)
            level = straight_through(exact, self._rounded(lax.stop_gradient(exact), wire))
            self._note(level, scale, wire.bits)
            own.append(level * over(leaf, scale))
        return [lax.stop_gradient(value) for value in own], own

    def sum(self, codes: Sequence[jax.Array], most: int) -> list[jax.Array]:
        """Notes codes (1, ...), and returns them."""
        for code, unit in zip(codes, self._units(len(codes)), strict=True):
            self._note(code, unit, Counts.for_sums(most).bits)
        return [lax.stop_gradient(code) for code in codes]

    def gather(
        self, numbers: Sequence[tuple[jax.Array, int]], *, places: bool = False
    ) -> list[jax.Array]:
        """Notes those (1, ...) that stand for values, not places; returns all as (1, 1, ...)."""
        values = [(n, bits) for n, bits in numbers if jnp.issubdtype(n.dtype, jnp.floating)]
        for (number, bits), unit in zip(values, self._units(len(values)), strict=True):
            self._note(number - np.float32(2 ** (bits - 1)), unit, bits)
        return [lax.stop_gradient(number)[:, None] for number, _ in numbers]

    def requantised(self, leaves: Sequence[jax.Array], wire: LogLevels) -> list[jax.Array]:
        """Returns fractions (1, ...) on logarithmic levels; notes nothing, see `as_values`."""
        levels = [to_log_level(lax.stop_gradient(x), wire.bits, wire.alpha) for x in leaves]
        return [of_log_level(level, wire.bits, wire.alpha) for level in levels]

    def _units(self, count: int) -> list[jax.Array]:
        """The value of one code of each tensor, up to a factor that all of them share.

        Codes are fractions of the scales that the nodes agreed on before, if on one for each
        tensor; gathered ones round the scale up to a power of two. An attack needs directions
        alone.
        """
        return self._peaks if len(self._peaks) == count else [jnp.ones(1)] * count

    def _note(self, codes: jax.Array, unit: jax.Array, bits: int) -> None:
        self.sent.append(Sent(codes[0], unit[0], jnp.int32(bits)))


def as_values(compressor: Compressor) -> Compressor:
    """The compressor whose messages are the values that the codes of this one stand for."""
    if isinstance(compressor, LQSGD) and compressor.reduce != "sum":
        return dataclasses.replace(compressor, reduce="sum")
    return compressor


class Observed(NamedTuple):
    """One node's first step, as it was observed. A pytree, which programs may take and return.

    Attributes:
      delivered: pytree as the gradient: what the step delivers in its place.
      sent: the tensors that the node sends, in their order. Codes of LQ-SGD stand as linear levels
        of the values that they decode to, fine enough for the smallest of them.
      message_map: `message_map(other) -> values`, for each tensor sent what it would stand for but
        for rounding if the gradient were another, and the node had chosen and the ring answered as
        they did. It is linear, unless the method sends signs: then tanh(x / rms(x)) takes the place
        of each. It depends on what is to be seen in the messages alone.
    """

    delivered: PyTree
    sent: Sends
    message_map: Callable[[PyTree], list[jax.Array]]


def observe(compressor: Compressor | None, gradient: PyTree, key: Key) -> Observed:
    """The first step of one node, observed. Pure: map it over gradients and keys.

    Args:
      compressor: the method; None for 16-bit levels of the gradient itself.
      gradient: pytree of float32 arrays.
      key: for methods that draw.

    Returns:
      What is delivered, what is sent, and what others would send.

    >>> from jaxqring.compress import TopK
    >>> step = observe(TopK(0.5), jnp.array([3.0, -1.0, 0.5, 2.0]), jax.random.key(0))
    >>> step.delivered
    Array([3., 0., 0., 2.], dtype=float32)
    >>> (sent,) = step.message_map(jnp.array([1.0, 2.0, 3.0, 4.0]))
    >>> sent / sent[0]
    Array([1., 4.], dtype=float32)
    """
    delivered, sent = _step(compressor, gradient, key)
    if compressor is not None and compressor.reduce == "vote":
        return Observed(delivered, sent, jax.tree_util.Partial(_soft_signs))
    method = None if compressor is None else as_values(compressor)

    def values(other: PyTree) -> tuple[list[jax.Array], Sends]:
        sent = _step(method, other, key)[1]
        return [tensor.values for tensor in sent], sent

    _, linear, sent = jax.linearize(values, gradient, has_aux=True)
    return Observed(delivered, sent, linear)


def _soft_signs(gradient: PyTree) -> list[jax.Array]:
    leaves = jax.tree.leaves(gradient)
    sizes = [jnp.sqrt(jnp.mean(lax.stop_gradient(leaf) ** 2) + 1e-30) for leaf in leaves]
    return [jnp.tanh(leaf / size) for leaf, size in zip(leaves, sizes, strict=True)]


def _step(compressor: Compressor | None, gradient: PyTree, key: Key) -> tuple[PyTree, Sends]:
    """The tree that the first step delivers, and all that the node sends in it."""
    observer = Observer(key)
    tree = jax.tree.map(lambda leaf: leaf[None], gradient)
    if compressor is None:
        leaves, treedef = jax.tree.flatten(tree)
        done = jax.tree.unflatten(treedef, observer.mean(leaves)[0])
    else:
        state = jax.tree.map(lambda leaf: leaf[None], compressor.init(gradient))
        done, _ = compressor.mean(tree, state, observer)
    return jax.tree.map(lambda leaf: leaf[0], done), observer.sent
