"""`Exchange`: the collectives of one step of a compressor, over a ring, plain or under masks.

A compressor turns tensors into integers that mean something as a sum, or as a list of those of all
nodes; the exchange agrees on scales over the control channel, sends the integers over the ring, and
counts. The ring adds or carries them exactly, so that all loss happens where a node sees it and can
feed it back.

k nodes share a device: every array has a leading axis of length k, one where a device is a node.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxqring import _checks as checks
from jaxqring._threefry import cipher_key
from jaxqring._types import AxisName, Key
from jaxqring._varying import as_varying
from jaxqring.codec import Counts, FixedPoint, LogLevels
from jaxqring.compress._codes import straight_through, within
from jaxqring.compress._message import all_reduced_bits, wire_for_sums
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Report, Ring, all_gather, psum
from jaxqring.ring._payload import agree, from_levels, in_levels, layout_of, two_powers
from jaxqring.secure import SecureReport, Security, secure_psum

#: Collective number n of a step draws from `fold_in(key, n)`, draw number n of a node from
#: `fold_in(fold_in(key, OWN + n), node)`, and what all nodes draw alike from
#: `fold_in(key, SHARED + n)`.
OWN, SHARED = 1 << 30, 1 << 31


class Masking(NamedTuple):
    """The masks on the sums of a step."""

    source: GHZSource
    security: Security


class Exchange:
    """The collectives of one step. It lives while the step is traced.

    Attributes:
      axis_name: of the mapped axis.
      rings: of the collectives in their order, the last one of all further ones.
      num_nodes: N.
      nodes: (k,) int32 numbers of the nodes on this device.
      reports: of the collectives made so far.
      control_bits: over each link for what was agreed on so far.
      out_of_range: () uint32 sums on this device that no codes add up to: errors of links have
        made them, and they count as the nearest possible ones.
      lost: () uint32 leaves of means that were not finite on some node, as a gradient plus an error
        may be: they are NaN on all nodes.
    """

    def __init__(
        self,
        axis_name: AxisName,
        rings: tuple[Ring, ...],
        key: Key | None,
        masking: Masking | None,
        axes: frozenset,
    ) -> None:
        """Args: as for `compressed_pmean`; `axes` are those that values vary over, in their types.

        The key and the rings have been checked.
        """
        self.axis_name, self.rings, self.masking = axis_name, rings, masking
        self._key, self._axes = key, axes
        self._per_device = rings[0].nodes_per_device
        self.num_nodes = lax.axis_size(axis_name) * self._per_device
        first = lax.axis_index(axis_name) * self._per_device
        own = first + jnp.arange(self._per_device, dtype=jnp.int32)
        self.nodes = as_varying(own, axes)
        self.reports: list[Report | SecureReport] = []
        self.control_bits = 0
        self.out_of_range = self.nodes[0].astype(jnp.uint32) * 0
        self.lost = jnp.zeros((), jnp.uint32)
        self._draws = 0

    @property
    def wire(self) -> FixedPoint:
        """The format of linear levels."""
        wire = self.rings[0].wire
        assert isinstance(wire, FixedPoint)  # `compressed_pmean` has refused others
        return wire

    def highest(self, peaks: Sequence[jax.Array], bits: int = 32) -> list[jax.Array]:
        """The largest of each number over all nodes, over the control channel.

        Args:
          peaks: (k,) float32 each, of at least 0.
          bits: of each number.

        Returns:
          (k,) float32 each, the same on all nodes. Without a derivative.
        """
        if not peaks:
            return []
        self.control_bits += all_reduced_bits(len(peaks), self.num_nodes, bits)
        own = lax.stop_gradient(jnp.max(jnp.stack(peaks), axis=1))
        return self._on_each(lax.pmax(own, self.axis_name))

    def total(self, numbers: Sequence[jax.Array]) -> list[jax.Array]:
        """As `highest`, of sums."""
        if not numbers:
            return []
        self.control_bits += all_reduced_bits(len(numbers), self.num_nodes)
        own = lax.stop_gradient(jnp.stack(numbers, axis=1))
        return self._on_each(sum_in_order(self._of_all(own), 0))

    def shared(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """The mean (k, ...) of each leaf, as float32 over the control channel, without error."""
        self.control_bits += all_reduced_bits(sum(leaf[0].size for leaf in leaves), self.num_nodes)
        means = [sum_in_order(self._of_all(leaf), 0) / self.num_nodes for leaf in leaves]
        return [
            jnp.broadcast_to(as_varying(mean, self._axes), leaf.shape)
            for mean, leaf in zip(means, leaves, strict=True)
        ]

    def _of_all(self, own: jax.Array) -> jax.Array:
        """(N, ...) of all nodes, in their order, from (k, ...) of those on this device."""
        return lax.all_gather(own, self.axis_name).reshape(self.num_nodes, *own.shape[1:])

    def _on_each(self, values: jax.Array) -> list[jax.Array]:
        everywhere = as_varying(values, self._axes)
        return [jnp.broadcast_to(value, (self._per_device,)) for value in everywhere]

    def shared_key(self) -> Key:
        """A key that is the same on all nodes, a new one in every step."""
        assert self._key is not None  # compressors that draw have asked for a key
        self._draws += 1
        return jax.random.fold_in(self._key, np.uint32(SHARED + self._draws))

    def uniform(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """(k, ...) float32 numbers in [0, 1) for each leaf (k, ...), own ones on every node.

        Rings that lie side by side on a mesh draw alike.
        """
        assert self._key is not None
        self._draws += 1
        key = jax.random.fold_in(self._key, np.uint32(OWN + self._draws))
        sizes = [leaf[0].size for leaf in leaves]

        def of_node(node: jax.Array) -> jax.Array:
            return jax.random.uniform(jax.random.fold_in(key, node), (sum(sizes),))

        drawn = lax.split(jax.vmap(of_node)(self.nodes), sizes, axis=1)
        return [part.reshape(leaf.shape) for part, leaf in zip(drawn, leaves, strict=True)]

    def mean(
        self, leaves: Sequence[jax.Array], bits: int | None = None
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """The means of leaves over the nodes, on evenly spaced levels with a scale for each leaf.

        Args:
          leaves: (k, ...) float32 each, finite.
          bits: of a level at least; None for those that the wire of the ring leaves beside its
            guard bits.

        Returns:
          The means (k, ...), and the values (k, ...) that this node's own levels stand for, whose
          mean over the nodes is the first where links have no errors. A derivative takes the place
          of rounding by a straight line. No sum exceeds N times the level of the largest value of
          all nodes: those that do are counted and taken for the nearest that does not.
        """
        wire = self.wire if bits is None else wire_for_sums(bits, self.num_nodes)
        wire = dataclasses.replace(self.wire, bits=wire.bits, scale="leaf", non_finite="propagate")
        # As one vector, in which leaves of equal length lie side by side: what is done to it is
        # compiled once for each length, not for each leaf.
        layout = layout_of(wire, [leaf[0].size for leaf in leaves])
        flat = layout.join([leaf.reshape(leaf.shape[0], 1, -1) for leaf in leaves])
        self.control_bits += all_reduced_bits(len(leaves), self.num_nodes)
        peaks: list[jax.Array] = []

        def highest(own: jax.Array) -> jax.Array:
            peaks.append(lax.pmax(own, self.axis_name))
            return peaks[0]

        scales = agree(flat, layout, wire, self.num_nodes, highest)
        assert scales.lost is not None  # as NaN propagates
        self.lost += jnp.sum(jnp.isnan(scales.lost), dtype=jnp.uint32)
        exact = in_levels(flat, layout, wire, scales)
        levels = straight_through(exact, self._rounded(lax.stop_gradient(exact), wire))
        (sums,) = self._sum([levels], Counts(wire.bits))
        first, second = two_powers(-scales.power)
        most = lax.bitcast_convert_type(peaks[0], jnp.float32)[None] * first * second
        limits = self.num_nodes * jnp.ceil(most)
        held = layout.by_group(sums, lambda part, most, _: within(part, most), limits)
        self.out_of_range += jnp.sum(jnp.abs(sums) > jnp.abs(held), dtype=jnp.uint32)
        mean = from_levels(held, layout, wire, scales, divisor=self.num_nodes, fits=True)
        own = from_levels(levels, layout, wire, scales, divisor=1, fits=True)

        def as_leaves(values: jax.Array) -> list[jax.Array]:
            parts = zip(layout.split(values), leaves, strict=True)
            return [part.reshape(leaf.shape) for part, leaf in parts]

        return as_leaves(mean), as_leaves(own)

    def _rounded(self, exact: jax.Array, wire: FixedPoint) -> jax.Array:
        """Levels (k, ...) float32 of values (k, ...) in units of one level."""
        if wire.rounding == "nearest":
            return wire.encode(exact, np.float32(1), self.num_nodes).astype(jnp.float32)
        self._draws += 1
        assert self._key is not None
        key = jax.random.fold_in(self._key, np.uint32(OWN + self._draws))

        def of_node(node: jax.Array, own: jax.Array) -> jax.Array:
            words = cipher_key(jax.random.fold_in(key, node))
            return wire.encode(own, np.float32(1), self.num_nodes, words)

        return jax.vmap(of_node)(self.nodes, exact).astype(jnp.float32)

    def sum(self, codes: Sequence[jax.Array], most: int) -> list[jax.Array]:
        """The sums of integer codes over the nodes.

        Args:
          codes: (k, ...) integer-valued float32 each.
          most: the largest magnitude that a sum can have without errors.

        Returns:
          (k, ...) integer-valued float32 each, in [-most, most].
        """
        sums = self._sum(codes, Counts.for_sums(most))
        held = [within(total, most) for total in sums]
        for total, near in zip(sums, held, strict=True):
            self.out_of_range += jnp.sum(jnp.abs(total) > jnp.abs(near), dtype=jnp.uint32)
        return held

    def _sum(self, leaves: Sequence[jax.Array], wire: Counts) -> list[jax.Array]:
        ring, key = self._next(wire)
        given = [self._stripped(leaf) for leaf in leaves]
        if self.masking is None:
            result, report = psum(given, self.axis_name, ring=ring, key=key, with_report=True)
        else:
            assert key is not None  # masks are drawn
            source, security = self.masking
            result, report = secure_psum(  # type: ignore[assignment]
                given,
                self.axis_name,
                ring=ring,
                source=source,
                security=security,
                key=key,
                with_report=True,
            )
        self.reports.append(report)
        return [self._led(leaf) for leaf in result]

    def requantised(self, leaves: Sequence[jax.Array], wire: LogLevels) -> list[jax.Array]:
        """The sums of fractions, rounded to a logarithmic level at every hop.

        Args:
          leaves: (k, ...) float32 each, such that all partial sums lie in [-1, 1].
          wire: of the levels.

        Returns:
          (k, ...) float32 each.
        """
        ring, key = self._next(wire)
        given = [self._stripped(leaf) for leaf in leaves]
        result, report = psum(given, self.axis_name, ring=ring, key=key, with_report=True)
        self.reports.append(report)
        return [self._led(leaf) for leaf in result]

    def gather(
        self, numbers: Sequence[tuple[jax.Array, int]], *, places: bool = False
    ) -> list[jax.Array]:
        """The integers of all nodes, in one collective.

        They travel in pieces of equal width, the widest that divides the widths of all.

        Args:
          numbers: pairs of an array (k, ...) and its even number of bits: int32 in [0, 2^bits), or
            integer-valued float32 of the same range and at most 24 bits, which keeps a derivative.
          places: whether some of them say where others belong: then a derivative with respect to
            the noise of links is refused, since what an error does to them has none.

        Returns:
          (k, N, ...) for each of them, in its own type; the same on all nodes but for errors of
          links.
        """
        piece = math.gcd(*(bits for _, bits in numbers))
        half = np.float32(2 ** (piece - 1))
        pieces = [part for number, bits in numbers for part in _in_pieces(number, bits, piece)]
        ring, key = self._next(Counts(piece))
        if places:
            ring = jax.tree.map(_held_fixed, ring)
        sent = self._stripped(jnp.concatenate(pieces, axis=1) - half)
        result, report = all_gather(sent, self.axis_name, ring=ring, key=key, with_report=True)
        self.reports.append(report)
        # The axis of nodes is the first one of a node's result.
        received = self._led(result) + half
        found, start = [], 0
        for number, bits in numbers:
            size, is_whole = number[0].size, jnp.issubdtype(number.dtype, jnp.integer)
            total = None
            for shift in range(0, bits, piece):
                part = lax.slice_in_dim(received, start, start + size, axis=2)
                if is_whole:
                    part = jnp.round(part).astype(jnp.int32) << shift
                else:
                    part = part * np.float32(2**shift)
                total = part if total is None else total + part
                start += size
            assert total is not None
            found.append(total.reshape(*total.shape[:2], *number.shape[1:]))
        return found

    def _next(self, wire: Counts | LogLevels) -> tuple[Ring, Key | None]:
        """The ring and the key of the next collective."""
        number = len(self.reports)
        ring = self.rings[min(number, len(self.rings) - 1)]
        key = None if self._key is None else jax.random.fold_in(self._key, number)
        return dataclasses.replace(ring, wire=wire), key

    def _stripped(self, leaf: jax.Array) -> jax.Array:
        return leaf if self._per_device > 1 else leaf[0]

    def _led(self, leaf: jax.Array) -> jax.Array:
        return leaf if self._per_device > 1 else leaf[None]


def _in_pieces(number: jax.Array, bits: int, piece: int) -> list[jax.Array]:
    """The pieces (k, size) float32 of integers (k, ...), each of `piece` bits, the lowest first."""
    known = lax.stop_gradient(number).astype(jnp.int32)
    parts = [
        ((known >> shift) & np.int32(2**piece - 1)).astype(jnp.float32)
        for shift in range(0, bits, piece)
    ]
    if jnp.issubdtype(number.dtype, jnp.floating):
        # The highest piece carries the derivative of the number.
        parts[-1] = straight_through(number / np.float32(2 ** (bits - piece)), parts[-1])
    return [_rows(part) for part in parts]


def _rows(leaf: jax.Array) -> jax.Array:
    return leaf.reshape(leaf.shape[0], -1)


@jax.custom_jvp
def _held_fixed(value: jax.Array) -> jax.Array:
    return value


def _held_fixed_jvp(primals: tuple, tangents: tuple) -> tuple:
    if not isinstance(tangents[0], SymbolicZero):
        checks.refuse(
            "compressor",
            "send no places for a derivative with respect to noise, as a wrong place has none; use"
            ' the estimators "score" or "russo", or finite differences',
            "a derivative",
        )
    return primals[0], tangents[0]


_held_fixed.defjvp(_held_fixed_jvp, symbolic_zeros=True)


def sum_in_order(values: jax.Array, axis: int) -> jax.Array:
    """The sum over an axis, one after the other, so that its rounding has one order."""
    rows = jnp.moveaxis(values, axis, 0)
    total, _ = lax.scan(lambda total, row: (total + row, None), rows[0], rows[1:])
    return total


def over(leaf: jax.Array, per_node: jax.Array) -> jax.Array:
    """Numbers of the nodes (k,) as (k, 1, ...), to broadcast against a leaf (k, ...)."""
    return per_node.reshape(-1, *[1] * (leaf.ndim - 1))
