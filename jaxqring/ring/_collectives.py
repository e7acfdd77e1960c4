"""`psum`, `pmean`, `psum_scatter` and `all_gather` over a quantum ring.

They take the place of their `jax.lax` namesakes inside `pmap`, `shard_map` and
`vmap(axis_name=...)`. The path of a payload:

    pytree -> one float32 vector -> in units of the scale of each leaf -> N chunks -> codes
           -> (N - 1 hops of adding) -> (N - 1 hops of passing on) -> codes -> float32 -> pytree

The same key gives the same bits under every mapping, whatever its implementation: the random
stream of a hop is derived from the key, the kind and structure of the call, the number of the hop
and the index of the node.

On a mesh with further axes, of data x model say, a ring along one of them is one of many side by
side, each with links of its own. Errors are its own too: the first ring draws from the key, ring
number r (counted along the other axes of the `shard_map`, the last one fastest) from
`jax.random.fold_in(key, r)`. Where `shard_map` knows what is the same along an axis (with
check_vma), rings that carry the same are one: they draw the same, and a leaf that is the same along
the axis, beside leaves that are not, comes from the first of the rings and is the same afterwards.
Without check_vma nothing of this is known, and every ring draws its own. Under `vmap` the key alone
decides, as everywhere in JAX.

Derivatives follow the mean of the channel; `jaxqring.ring._tangent` says how.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring.ring._axes import within_devices
from jaxqring.ring._call import Call, enter
from jaxqring.ring._report import make_report
from jaxqring.ring._ring import Ring

AxisName = Any


def psum(
    x: Any,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: jax.Array | None,
    replicated: bool = False,
    with_report: bool = False,
) -> Any:
    """Sums a pytree over the nodes of a ring; `jax.lax.psum` over quantum links.

    With `noise="off"` and a FixedPoint wire every node gets the exact sum of the codes, bit for
    bit. With noise each hop of the second half of the ring adds errors of its own, so that nodes
    hold different results: `Report.replica_agreement` says how different.

    A loss that holds a `psum` is one sum on each node. Under `shard_map` with check_vma=True its
    gradient is that of all N losses together, as their results may differ, which is N times that
    of `jax.lax.psum`, whose result is one number; with `replicated=True` the two agree::

        jax.grad(lambda w: psum(w * x, "nodes", ring=ring, key=key))(w)                   # N x
        jax.grad(lambda w: psum(w * x, "nodes", ring=ring, key=key, replicated=True))(w)  # x

    Args:
      x: pytree of floating arrays, of any shape; sent as float32, returned in their own type.
        With `ring.nodes_per_device` k > 1 every leaf has a leading axis of length k.
      axis_name: name of the mapped axis, or a tuple of names that count as one axis, the last one
        fastest. Axes of `vmap` within a device come last; their nodes are then carried by it.
      ring: the links, the wire and the kind of noise.
      key: typed PRNG key, the same on every node, or None where nothing is drawn. Two calls with
        one key draw the same errors if they are the same kind of call on a pytree of the same
        structure, sizes and types (`psum` and `pmean` are of one kind), and independent ones
        otherwise.
      replicated: end in a result that `shard_map` knows to be equal on all nodes, so that
        `out_specs=P()` is allowed. Only where it provably is: with noise "off", or with protection
        of every symbol. A codeword that no attempt brings across in the second half of the ring
        then comes over the error-free control channel, and still counts as undelivered.
      with_report: whether to return a `Report` too.

    Returns:
      The sum, a pytree like `x`; with a report, the pair (sum, Report).

    Raises:
      TypeError: if a leaf is not floating, the key not a typed key, or the ring not a Ring.
      ValueError: if the axis is not bound, the ring does not fit it, the key is a batch, or
        `shard_map` has summed `x` already.

    >>> ring = Ring(noise="off")
    >>> total = jax.vmap(lambda x: psum(x, "nodes", ring=ring, key=None), axis_name="nodes")
    >>> jax.jit(total)(jnp.arange(8.0).reshape(4, 2))[0]
    Array([12., 16.], dtype=float32)
    """
    return _summed(x, axis_name, ring, key, replicated, with_report, mean=False)


def pmean(
    x: Any,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: jax.Array | None,
    replicated: bool = False,
    with_report: bool = False,
) -> Any:
    """The mean over the nodes of a ring: `psum`, divided by the number of nodes.

    Arguments, results and errors as of `psum`.

    >>> ring = Ring(noise="off")
    >>> mean = jax.vmap(lambda x: pmean(x, "nodes", ring=ring, key=None), axis_name="nodes")
    >>> jax.jit(mean)(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3., 4.], dtype=float32)
    """
    return _summed(x, axis_name, ring, key, replicated, with_report, mean=True)


def _summed(
    x: Any,
    axis_name: AxisName,
    ring: Ring,
    key: jax.Array | None,
    replicated: bool,
    with_report: bool,
    *,
    mean: bool,
) -> Any:
    def act(x: Any, axis_name: AxisName, ring: Ring) -> Any:
        call = enter(x, axis_name, ring, key, "sum", with_report=with_report, replicated=replicated)
        divisor = call.place.num_nodes if mean else 1
        return sum_of(call, replicated, with_report, divisor, fits=mean)

    return within_devices(act, x, axis_name, ring, with_report)


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


def psum_scatter(
    x: Any,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: jax.Array | None,
    scatter_dimension: int = 0,
    tiled: bool = False,
    with_report: bool = False,
) -> Any:
    """The first half of `psum`: node i keeps the i-th part of the sum; `jax.lax.psum_scatter`.

    Args:
      x: pytree of floating arrays as for `psum`.
      axis_name: name of the mapped axis.
      ring: the links, the wire and the kind of noise.
      key: typed PRNG key, the same on every node, or None where nothing is drawn.
      scatter_dimension: the dimension to split (not counting the axis of `nodes_per_device`).
      tiled: if False its length must be N and it disappears; if True N must divide it.
      with_report: whether to return a `Report` too; its replica agreement is None.

    Returns:
      The node's part of the sum; with a report, the pair (part, Report).

    Raises:
      TypeError, ValueError: as `psum`, and if a leaf cannot be split so.

    >>> ring = Ring(noise="off")
    >>> part = lambda x: psum_scatter(x, "nodes", ring=ring, key=None)
    >>> jax.jit(jax.vmap(part, axis_name="nodes"))(jnp.arange(4.0).reshape(2, 2))
    Array([2., 4.], dtype=float32)
    """
    split = functools.partial(
        _scatter, key=key, dimension=scatter_dimension, tiled=tiled, with_report=with_report
    )
    return within_devices(split, x, axis_name, ring, with_report)


def _scatter(
    x: Any,
    axis_name: AxisName,
    ring: Ring,
    *,
    key: jax.Array | None,
    dimension: int,
    tiled: bool,
    with_report: bool,
) -> Any:
    call = enter(x, axis_name, ring, key, "scatter", with_report=with_report)
    place, lead = call.place, call.lead
    nodes = place.num_nodes
    rows = []
    for leaf in call.leaves:
        at = lead + _dimension("scatter_dimension", dimension, leaf.ndim - lead)
        length = leaf.shape[at]
        if length % nodes if tiled else length != nodes:
            rule = f"name a dimension of length {'a multiple of ' if tiled else ''}{nodes}"
            checks.refuse("scatter_dimension", rule, length)
        front = jnp.moveaxis(leaf, at, lead)
        rows.append(front.reshape(place.nodes_per_device, nodes, -1))
    _refuse_nothing(rows)
    parts, result, counts, size = call.run(
        rows, nodes, reduce=True, gather=False, report=with_report, fits=False
    )

    def shaped(part: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        at = dimension % len(shape)
        rest = [*shape[:at], *shape[at + 1 :]]
        part = part.reshape(place.nodes_per_device, shape[at] // nodes, *rest)
        part = jnp.moveaxis(part, 1, 1 + at) if tiled else part[:, 0]
        return part if lead else part[0]

    outputs = call.restored([shaped(*both) for both in zip(parts, call.shapes, strict=True)])
    if not with_report:
        return outputs
    return outputs, make_report(result, counts, place, ring, nodes - 1, size, replicas=False)


def all_gather(
    x: Any,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: jax.Array | None,
    axis: int = 0,
    tiled: bool = False,
    with_report: bool = False,
) -> Any:
    """The second half of `psum`: every node gets the values of all; `jax.lax.all_gather`.

    A FixedPoint wire needs no guard bits here and uses all its bits.

    Args:
      x: pytree of floating arrays as for `psum`.
      axis_name: name of the mapped axis.
      ring: the links, the wire and the kind of noise.
      key: typed PRNG key, the same on every node, or None where nothing is drawn.
      axis: where the axis of nodes goes (not counting the axis of `nodes_per_device`).
      tiled: whether to concatenate along `axis` instead of stacking.
      with_report: whether to return a `Report` too.

    Returns:
      The gathered values; with a report, the pair (values, Report).

    Raises:
      TypeError, ValueError: as `psum`, and if a leaf has no such axis.

    >>> ring = Ring(noise="off")
    >>> gather = jax.vmap(lambda x: all_gather(x, "nodes", ring=ring, key=None), axis_name="nodes")
    >>> jax.jit(gather)(jnp.array([1.0, 2.0, 3.0]))[0]
    Array([1., 2., 3.], dtype=float32)
    """
    join = functools.partial(_gather, key=key, axis=axis, tiled=tiled, with_report=with_report)
    return within_devices(join, x, axis_name, ring, with_report)


def _gather(
    x: Any,
    axis_name: AxisName,
    ring: Ring,
    *,
    key: jax.Array | None,
    axis: int,
    tiled: bool,
    with_report: bool,
) -> Any:
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
    """`dimension` counted from the front."""
    if not isinstance(dimension, int) or not -rank <= dimension < rank:
        rule = f"be an integer in [{-rank}, {rank}) for a leaf of this shape"
        checks.refuse(argument, rule, dimension)
    return dimension % rank


def _refuse_nothing(leaves: list[jax.Array]) -> None:
    if sum(leaf.size for leaf in leaves) == 0:
        raise ValueError("`x` must hold at least one value, but got none.")
