"""The leaves of one call of a collective: put in rows, sent around the ring, and put in shape."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring.ring._call import Call, enter
from jaxqring.ring._report import make_report
from jaxqring.ring._ring import Ring


def sum_of(
    call: Call, replicated: bool, with_report: bool, divisor: int | jax.Array, *, fits: bool
) -> Any:
    """The sum of a call, divided, and its report if asked for.

    Args:
      call: to `psum` or `pmean`.
      replicated: as for `psum`.
      with_report: as for `psum`.
      divisor: a number, or () float32 the same on all nodes.
      fits: whether the result of values that fit the type of their leaf must fit it.
    """
    place, ring = call.place, call.ring
    if sum(leaf.size for leaf in call.leaves) == 0:
        same = call.restored(call.leaves)
        return (same, make_report((), None, place, ring, 0, 0)) if with_report else same
    rows = [leaf.reshape(place.nodes_per_device, 1, -1) for leaf in call.leaves]
    parts, result, counts, size = call.run(
        rows,
        1,
        reduce=True,
        gather=True,
        report=with_report,
        replicated=replicated,
        divisor=divisor,
        fits=fits,
    )
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, call.leaves, strict=True)]
    total = call.restored(shaped)
    if not with_report:
        return total
    return total, make_report(result, counts, place, ring, 2 * (place.num_nodes - 1), size)


def scatter(
    x: PyTree,
    axis_name: AxisName,
    ring: Ring,
    *,
    key: Key | None,
    dimension: int,
    tiled: bool,
    with_report: bool,
) -> Any:
    """The part of the sum of each node, and its report if asked for. See `psum_scatter`."""
    call = enter(x, axis_name, ring, key, "scatter", with_report=with_report)
    place, lead = call.place, call.lead
    num_nodes = place.num_nodes
    rows = []
    for leaf in call.leaves:
        at = lead + _dimension("scatter_dimension", dimension, leaf.ndim - lead)
        length = leaf.shape[at]
        if length % num_nodes if tiled else length != num_nodes:
            rule = f"name a dimension of length {'a multiple of ' if tiled else ''}{num_nodes}"
            checks.refuse("scatter_dimension", rule, length)
        front = jnp.moveaxis(leaf, at, lead)
        rows.append(front.reshape(place.nodes_per_device, num_nodes, -1))
    _refuse_nothing(rows)
    parts, result, counts, size = call.run(
        rows, num_nodes, reduce=True, gather=False, report=with_report, fits=False
    )

    def shaped(part: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        at = dimension % len(shape)
        rest = [*shape[:at], *shape[at + 1 :]]
        part = part.reshape(place.nodes_per_device, shape[at] // num_nodes, *rest)
        part = jnp.moveaxis(part, 1, 1 + at) if tiled else part[:, 0]
        return part if lead else part[0]

    outputs = call.restored([shaped(*both) for both in zip(parts, call.shapes, strict=True)])
    if not with_report:
        return outputs
    return outputs, make_report(result, counts, place, ring, num_nodes - 1, size, replicas=False)


def gather(
    x: PyTree,
    axis_name: AxisName,
    ring: Ring,
    *,
    key: Key | None,
    axis: int,
    tiled: bool,
    with_report: bool,
) -> Any:
    """The values of all nodes, and their report if asked for. See `all_gather`."""
    call = enter(x, axis_name, ring, key, "gather", with_report=with_report, adds=False)
    place, lead = call.place, call.lead
    for shape in call.shapes:
        _dimension("axis", axis, len(shape) + (not tiled))
    _refuse_nothing(call.leaves)
    rows = [leaf.reshape(place.nodes_per_device, 1, -1) for leaf in call.leaves]
    parts, result, counts, size = call.run(rows, 1, reduce=False, gather=True, report=with_report)

    def joined(part: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        at = axis % (len(shape) + (not tiled))
        part = part.reshape(place.nodes_per_device, place.num_nodes, *shape)
        part = jnp.moveaxis(part, 1, 1 + at)
        if tiled:
            merged = (*shape[:at], place.num_nodes * shape[at], *shape[at + 1 :])
            part = part.reshape(place.nodes_per_device, *merged)
        return part if lead else part[0]

    outputs = call.restored([joined(*both) for both in zip(parts, call.shapes, strict=True)])
    if not with_report:
        return outputs
    return outputs, make_report(result, counts, place, ring, place.num_nodes - 1, size)


def _dimension(argument: str, dimension: int, rank: int) -> int:
    """`dimension` of a leaf with `rank` of them, counted from the front."""
    return checks.integer(argument, dimension, -rank, rank - 1) % rank


def _refuse_nothing(leaves: list[jax.Array]) -> None:
    if sum(leaf.size for leaf in leaves) == 0:
        raise ValueError("`x` must hold at least one value, but got none.")
