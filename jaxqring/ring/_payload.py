"""A pytree as one vector in units of levels, and back.

    leaves -> (k, R, P) float32 -> in units of their scales -> ring -> times their scales -> leaves

k nodes share a device; a leaf has R rows, one for each node in a `psum_scatter` and one elsewhere.
Every block of values has a scale of its own, a power of two that all nodes agree on: a block is a
leaf, a run of values of a row, or the whole payload (`FixedPoint.scale`). The vector that the ring
carries is free of scales, so that multiplying by them is all that they cost.

Leaves of equal length and type lie side by side in the vector. One operation serves all of them, so
that programs grow with the number of different lengths, not with the number of leaves.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring.codec._formats import EXPONENT_BITS, FixedPoint, WireFormat, power_of_two
from jaxqring.ring._lanes import each_node

_INFINITY = np.int32(0x7F800000)
_TOP = np.finfo(np.float32).max
#: The least exponent of `FixedPoint.powers`, which is sent as zero; and the mark of a block that is
#: not finite, above all others.
_LEAST, _NOT_FINITE = -126, 2**EXPONENT_BITS - 1
#: More pieces than this are cut out at offsets that the compiler does not know; see `_cut`.
_FEW_PIECES = 32


class Group(NamedTuple):
    """Leaves of equal length and type: their numbers, values in a row, type, and first position."""

    members: tuple[int, ...]
    size: int
    dtype: np.dtype
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.members) * self.size


@dataclasses.dataclass(frozen=True)
class Layout:
    """The positions of all leaves in the vector. Static.

    Attributes:
      sizes: values in a row of each leaf.
      dtypes: of each leaf.
      rows: R.
      block: values of a block within a row; 0 for a block a leaf, -1 for one block in all.
    """

    sizes: tuple[int, ...]
    dtypes: tuple[np.dtype, ...]
    rows: int
    block: int

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        kinds: dict[tuple, list[int]] = {}
        for number, kind in enumerate(zip(self.sizes, self.dtypes, strict=True)):
            if kind[0]:  # a leaf without values is nowhere
                kinds.setdefault(kind, []).append(number)
        ends = itertools.accumulate(len(members) * size for (size, _), members in kinds.items())
        return tuple(
            Group(tuple(members), size, dtype, end - len(members) * size)
            for ((size, dtype), members), end in zip(kinds.items(), ends, strict=True)
        )

    @property
    def order(self) -> list[int]:
        """The numbers of the leaves, as they follow each other in the vector."""
        return [member for group in self.groups for member in group.members]

    @property
    def own_rows(self) -> int:
        """The number of rows with scales of their own: those of a leaf cut into runs."""
        return self.rows if self.block > 0 else 1

    @property
    def num_scales(self) -> int:
        return self.own_rows * self.row_scales

    def runs(self, group: Group) -> int:
        """The number of scales of a row of one leaf."""
        return -(-group.size // self.block) if self.block > 0 else 1

    @property
    def row_scales(self) -> int:
        """S, the number of scales of a row."""
        if self.block < 0:
            return int(bool(self.groups))
        return sum(len(group.members) * self.runs(group) for group in self.groups)

    def join(self, rows: Sequence[jax.Array]) -> jax.Array:
        """Leaves (k, R, m) as one float32 (k, R, P)."""
        parts = [lax.convert_element_type(rows[at], jnp.float32) for at in self.order]
        return lax.concatenate(parts, 2) if len(parts) > 1 else parts[0]

    def split(self, values: jax.Array) -> list[jax.Array]:
        """Leaves (k, R', m) of values (k, R', P), in their own order; the inverse of `join`."""
        sizes = [group.size for group in self.groups for _ in group.members]
        pieces: list[Any] = [None] * len(self.sizes)
        for at, piece in zip(self.order, _cut(values, tuple(sizes)), strict=True):
            pieces[at] = piece
        empty = lax.slice_in_dim(values, 0, 0, axis=2)
        return [empty if piece is None else piece for piece in pieces]

    def by_group(self, values: jax.Array, act: Callable, *tables: jax.Array) -> jax.Array:
        """Values (k, R', P) after `act` on each group of leaves.

        Args:
          values: (k, R', P).
          act: (k, R', leaves, runs, b) values, the entries of each table for them, and the type of
            the leaves -> values.
          tables: (1 or k, 1 or R', S).
        """
        done, first = [], 0
        for group in self.groups:
            part = self._runs_of(values, group)
            last = first + (0 if self.block < 0 else math.prod(part.shape[2:4]))
            own = []
            for table in tables:
                scales = table if self.block < 0 else lax.slice_in_dim(table, first, last, axis=2)
                leaves = (1, 1) if self.block < 0 else part.shape[2:4]
                own.append(scales.reshape(*table.shape[:2], *leaves, 1))
            first = last
            part = act(part, *own, group.dtype).reshape(*part.shape[:3], -1)
            done.append(part[..., : group.size].reshape(*part.shape[:2], -1))
        return lax.concatenate(done, 2) if len(done) > 1 else done[0]

    def _runs_of(self, values: jax.Array, group: Group) -> jax.Array:
        """(k, R', leaves, runs, b) the values of one group, runs filled up with zeros."""
        part = lax.slice_in_dim(values, group.start, group.stop, axis=2)
        shape = *part.shape[:2], len(group.members)
        runs = self.runs(group)
        length = self.block if self.block > 0 else group.size
        if runs * length > group.size:
            padding = runs * length - group.size
            part = jnp.pad(part.reshape(*shape, group.size), [(0, 0)] * 3 + [(0, padding)])
        return part.reshape(*shape, runs, length)

    def peaks(self, values: jax.Array, *, finite: bool) -> jax.Array:
        """(R or 1, S) int32 the bits of the largest magnitude in each block of this device.

        The bits of floats without sign order as integers, with infinity above all others, which
        stands for a NaN as well unless only finite values count. A `max` of floats may lose a NaN,
        a sum does not: of differences of values and themselves, it is zero if all is finite.

        Args:
          values: (k, R, P).
          finite: whether to leave aside values that are not finite.
        """

        # Of both ends and not of magnitudes, and of one array of runs: XLA would write out others.
        def tops(runs: jax.Array, axis: Any = None) -> jax.Array:
            return jnp.abs(jnp.maximum(jnp.max(runs, axis), -jnp.min(runs, axis)))

        def marked(runs: jax.Array, axis: Any = None) -> jax.Array:
            bad = jnp.isnan(jnp.sum(runs - runs, axis))
            return jnp.where(bad, np.float32(np.inf), tops(runs, axis))

        peaks = self._by_block(values, marked)
        if finite:  # in a branch, as XLA would write out all masked values first
            peaks = lax.cond(
                jnp.any(jnp.isinf(peaks)),
                lambda: self._by_block(jnp.where(jnp.isfinite(values), values, 0), tops),
                lambda: peaks,
            )
        return lax.bitcast_convert_type(peaks, jnp.int32)

    def _by_block(self, values: jax.Array, reduce: Callable) -> jax.Array:
        """(R or 1, S) one number of each block of values (k, R, P)."""
        if self.block < 0:
            return reduce(values).reshape(1, 1)
        axes = (0, 4) if self.block > 0 else (0, 1, 4)
        blocks = [
            reduce(self._runs_of(values, group), axis=axes).reshape(self.own_rows, -1)
            for group in self.groups
        ]
        return lax.concatenate(blocks, 1) if len(blocks) > 1 else blocks[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _cut(values: jax.Array, sizes: tuple[int, ...]) -> list[jax.Array]:
    """Consecutive pieces of the last axis.

    A slice at an offset that the compiler knows is a program of its own for each piece, 15 ms of
    compilation for each of a thousand leaves. Offsets that come out of a branch are unknown to it:
    pieces of equal length then share one program.
    """
    if len(sizes) <= _FEW_PIECES:
        return list(lax.split(values, sizes, axis=values.ndim - 1))
    starts = [0, *itertools.accumulate(sizes)][:-1]
    unknown = lax.fori_loop(0, 2, lambda _, z: (5 * z) & 7, np.int32(0)) == 0  # true
    offsets = lax.cond(  # of constants that all differ, which XLA copies least
        unknown, lambda: [np.int32(at) for at in starts], lambda: [np.int32(~at) for at in starts]
    )
    front = [np.int32(0)] * (values.ndim - 1)
    return [
        lax.dynamic_slice(
            values, (*front, offset), (*values.shape[:-1], size), allow_negative_indices=False
        )
        for offset, size in zip(offsets, sizes, strict=True)
    ]


@_cut.defjvp
def _cut_jvp(sizes: tuple[int, ...], primals: tuple, tangents: tuple) -> tuple:
    # As one operation, whose transpose is one concatenation.
    moved = list(lax.split(tangents[0], sizes, axis=tangents[0].ndim - 1))
    return _cut(primals[0], sizes), moved


def layout_of(
    wire: WireFormat, sizes: Sequence[int], rows: int = 1, dtypes: Sequence[Any] | None = None
) -> Layout:
    """The layout of leaves with `sizes` values in each of `rows` rows; float32 without `dtypes`."""
    scale = wire.scale if isinstance(wire, FixedPoint) else "payload"
    block = scale if isinstance(scale, int) else {"leaf": 0, "payload": -1}[scale]
    kinds = [np.dtype(kind) for kind in dtypes or [np.float32] * len(sizes)]
    return Layout(tuple(sizes), tuple(kinds), rows, block)


class Scales(NamedTuple):
    """The scales of a payload, the same on all nodes, each (1, R or 1, S).

    Attributes:
      power: int32, the value of one level is 2^power.
      lost: float32 NaN for blocks with a value that is not finite, else zero; None where such
        values are clipped.
    """

    power: jax.Array
    lost: jax.Array | None

    def of_rows(self, rows: jax.Array) -> "Scales":
        """Those of one row each, (k, 1, S), for rows (k,)."""

        def chosen(table: jax.Array) -> jax.Array:
            return table[0, rows][:, None] if table.shape[1] > 1 else table

        return Scales(chosen(self.power), None if self.lost is None else chosen(self.lost))


def agree(
    values: jax.Array,
    layout: Layout,
    wire: FixedPoint,
    num_terms: int,
    highest: Callable,
    everyone: Callable | None = None,
) -> Scales:
    """The scales of all blocks, in one call over the control channel.

    Args:
      values: (k, R, P).
      layout: of the values.
      wire: of the ring.
      num_terms: the number of levels that will be added.
      highest: the largest of every device's int32.
      everyone: (N, ...) those of all nodes, of (k, ...); for a robust wire.
    """
    propagates, known = wire.non_finite == "propagate", wire.has_fixed_clip
    if wire.clip == "robust":
        assert everyone is not None
        return _agree_despite_liars(values, layout, wire, num_terms, everyone)
    shape = (1, layout.own_rows, layout.row_scales)
    power = jnp.full(shape, wire.fixed_power(num_terms)) if known else None
    if power is not None and not propagates:
        return Scales(power, None)
    peaks = layout.peaks(lax.stop_gradient(values), finite=not propagates)
    if known:
        peaks = (peaks >= _INFINITY).astype(jnp.int32)  # one bit
    peaks = highest(peaks)[None]
    lost = None
    if propagates:
        bad = peaks >= (1 if known else _INFINITY)
        lost = jnp.where(bad, np.float32(np.nan), np.float32(0))
        peaks = jnp.where(bad, 0, peaks)
    return Scales(wire.powers(peaks, num_terms) if power is None else power, lost)


def _agree_despite_liars(
    values: jax.Array, layout: Layout, wire: FixedPoint, num_terms: int, everyone: Callable
) -> Scales:
    """As `agree`, of the exponents of all nodes: the (f + 1)-th largest of each block."""
    propagates = wire.non_finite == "propagate"

    def own(node: jax.Array) -> jax.Array:
        return layout.peaks(node[None], finite=not propagates)

    peaks = each_node(own, lax.stop_gradient(values))
    codes = wire.powers(peaks, num_terms) - _LEAST
    table = everyone(jnp.where(peaks >= _INFINITY, _NOT_FINITE, codes))
    chosen = jnp.sort(table, axis=0)[table.shape[0] - 1 - wire.liars][None]
    if not propagates:
        return Scales(chosen + _LEAST, None)
    bad = chosen == _NOT_FINITE
    lost = jnp.where(bad, np.float32(np.nan), np.float32(0))
    return Scales(jnp.where(bad, 0, chosen + _LEAST), lost)


def in_levels(values: jax.Array, layout: Layout, wire: FixedPoint, scales: Scales) -> jax.Array:
    """(k, R, P) values in units of one level, not yet rounded.

    A block that is lost holds zeros, and NaN for values that were not finite: nothing is clipped.
    """

    def act(part: jax.Array, first: jax.Array, second: jax.Array, dtype: Any) -> jax.Array:
        scaled = part * first * second
        # Values too small for a float of this scale stay apart from zero, and round to it.
        small = (scaled == 0) & (part != 0) & (first != 0)
        scaled += jnp.where(small, -np.finfo(np.float32).tiny, np.float32(0))
        if wire.clip == "max":
            return scaled
        # Far beyond a clip that is given, or that others have set, values would become infinite.
        return jnp.where(jnp.isfinite(part), jnp.clip(scaled, -_TOP, _TOP), scaled)

    halves = two_powers(-scales.power)
    if scales.lost is not None:
        lost = jnp.isnan(scales.lost)
        halves = (jnp.where(lost, 0, halves[0]), jnp.where(lost, 0, halves[1]))
    return layout.by_group(values, act, *halves)


def from_levels(
    values: jax.Array,
    layout: Layout,
    wire: WireFormat,
    scales: Scales | None,
    *,
    divisor: int | jax.Array,
    fits: bool,
) -> jax.Array:
    """Values (k, R', P) of levels, as floats that the type of each leaf holds.

    Args:
      values: (k, R', P) levels, or floats of a float wire.
      layout: of the values.
      wire: of the ring.
      scales: None for a float wire.
      divisor: of a mean; divided by before values are scaled, which cannot overflow then.
      fits: whether the result of values that fit must fit: a mean must, a sum may be infinite.
    """
    values = values if isinstance(divisor, int) and divisor == 1 else values / divisor
    clips = isinstance(wire, FixedPoint) and (fits or wire.non_finite == "clip")

    def act(part: jax.Array, *factors: Any) -> jax.Array:
        *scale, dtype = factors
        lost = scale.pop() if scales is not None and scales.lost is not None else None
        for factor in scale:
            part = part * factor
        if clips:
            # The level nearest to the largest number may lie beyond it.
            top = min(float(jnp.finfo(dtype).max), float(_TOP))
            part = jnp.clip(part, -np.float32(top), np.float32(top))
        if lost is not None:
            part = part + lost
        return part.astype(dtype).astype(jnp.float32) if dtype.itemsize < 4 else part

    tables: tuple = ()
    if scales is not None:
        tables = two_powers(scales.power) + (() if scales.lost is None else (scales.lost,))
    elif all(dtype.itemsize >= 4 for dtype in layout.dtypes):
        return values
    return layout.by_group(values, act, *tables)


def two_powers(power: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two powers of two whose product is 2^power, which float32 may not hold."""
    half = power >> 1
    return power_of_two(half), power_of_two(power - half)
