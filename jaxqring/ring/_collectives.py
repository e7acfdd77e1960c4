"""`psum`, `pmean`, `psum_scatter` and `all_gather` over a quantum ring.

They take the place of their `jax.lax` namesakes inside `pmap`, `shard_map` and
`vmap(axis_name=...)`. The path of a payload:

    pytree -> one float32 vector -> in units of the scale of each leaf -> N chunks -> levels
           -> (N - 1 hops of adding) -> (N - 1 hops of passing on) -> levels -> float32 -> pytree

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
from typing import Any, Literal, TypeVar, overload

from jaxqring._types import AxisName, Key, PyTree
from jaxqring.ring._axes import within_devices
from jaxqring.ring._call import enter
from jaxqring.ring._leaves import gather, scatter, sum_of
from jaxqring.ring._report import Report
from jaxqring.ring._ring import Ring

T = TypeVar("T")


@overload
def psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: Literal[False] = False,
) -> T: ...
@overload
def psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: Literal[True],
) -> tuple[T, Report]: ...
@overload
def psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: bool,
) -> T | tuple[T, Report]: ...
def psum(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: bool = False,
) -> T | tuple[T, Report]:
    """Sums a pytree over the nodes of a ring; `jax.lax.psum` over quantum links.

    With `noise="off"` and a FixedPoint wire every node gets the exact sum of the levels, bit for
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
        fastest. Axes of `vmap` within a device come last; their nodes are then carried by it. None
        if one device carries all nodes, `ring.nodes_per_device` of them: no mapping is needed then,
        and inside of one every device has a ring of its own, with the same errors.
      ring: the links, the wire and the kind of noise.
      key: typed PRNG key, the same on every node, or None where nothing is drawn. Two calls with
        one key draw the same errors if they are the same kind of call on a pytree of the same
        structure, sizes and types (`psum` and `pmean` are of one kind), and independent ones
        otherwise.
      replicated: whether to end in a result that `shard_map` knows to be equal on all nodes, so
        that `out_specs=P()` is allowed. Only where it provably is: with noise "off", or with
        protection of every symbol. A codeword that no attempt delivers in the second half of the
        ring then comes over the error-free control channel, and still counts as undelivered.
      with_report: whether to return a `Report` too.

    Returns:
      The sum, a pytree like `x`; with a report, the pair (sum, Report).

    Raises:
      TypeError: if a leaf is not floating, the key not a typed key, or the ring not a Ring.
      ValueError: if the axis is not bound, the ring does not fit it, the key is a batch, or
        `shard_map` has summed `x` already.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> ring = Ring(noise="off")
    >>> total = jax.vmap(lambda x: psum(x, "nodes", ring=ring, key=None), axis_name="nodes")
    >>> jax.jit(total)(jnp.arange(8.0).reshape(4, 2))[0]
    Array([12., 16.], dtype=float32)
    """
    return _summed(x, axis_name, ring, key, replicated, with_report, mean=False)


@overload
def pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: Literal[False] = False,
) -> T: ...
@overload
def pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: Literal[True],
) -> tuple[T, Report]: ...
@overload
def pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: bool,
) -> T | tuple[T, Report]: ...
def pmean(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    replicated: bool = False,
    with_report: bool = False,
) -> T | tuple[T, Report]:
    """The mean over the nodes of a ring: `psum`, divided by the number of nodes.

    Args:
      x: pytree of floating arrays, as for `psum`.
      axis_name: name of the mapped axis, or a tuple of names, as for `psum`.
      ring: the links, the wire and the kind of noise.
      key: typed PRNG key, the same on every node, or None where nothing is drawn.
      replicated: as for `psum`.
      with_report: whether to return a `Report` too.

    Returns:
      The mean, a pytree like `x`; with a report, the pair (mean, Report).

    Raises:
      TypeError, ValueError: as `psum`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> ring = Ring(noise="off")
    >>> mean = jax.vmap(lambda x: pmean(x, "nodes", ring=ring, key=None), axis_name="nodes")
    >>> jax.jit(mean)(jnp.arange(8.0).reshape(4, 2))[0]
    Array([3., 4.], dtype=float32)
    """
    return _summed(x, axis_name, ring, key, replicated, with_report, mean=True)


def _summed(
    x: PyTree,
    axis_name: AxisName,
    ring: Ring,
    key: Key | None,
    replicated: bool,
    with_report: bool,
    *,
    mean: bool,
) -> Any:
    def act(x: PyTree, axis_name: AxisName, ring: Ring) -> Any:
        call = enter(x, axis_name, ring, key, "sum", with_report=with_report, replicated=replicated)
        divisor = call.place.num_nodes if mean else 1
        return sum_of(call, replicated, with_report, divisor, fits=mean)

    return within_devices(act, x, axis_name, ring, with_report)


@overload
def psum_scatter(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    scatter_dimension: int = 0,
    tiled: bool = False,
    with_report: Literal[False] = False,
) -> T: ...
@overload
def psum_scatter(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    scatter_dimension: int = 0,
    tiled: bool = False,
    with_report: Literal[True],
) -> tuple[T, Report]: ...
@overload
def psum_scatter(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    scatter_dimension: int = 0,
    tiled: bool = False,
    with_report: bool,
) -> T | tuple[T, Report]: ...
def psum_scatter(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    scatter_dimension: int = 0,
    tiled: bool = False,
    with_report: bool = False,
) -> T | tuple[T, Report]:
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
      TypeError: as `psum`.
      ValueError: as `psum`, and if a leaf cannot be split in this way or `x` holds no value.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> ring = Ring(noise="off")
    >>> part = lambda x: psum_scatter(x, "nodes", ring=ring, key=None)
    >>> jax.jit(jax.vmap(part, axis_name="nodes"))(jnp.arange(4.0).reshape(2, 2))
    Array([2., 4.], dtype=float32)
    """
    split = functools.partial(
        scatter, key=key, dimension=scatter_dimension, tiled=tiled, with_report=with_report
    )
    return within_devices(split, x, axis_name, ring, with_report)


@overload
def all_gather(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    axis: int = 0,
    tiled: bool = False,
    with_report: Literal[False] = False,
) -> T: ...
@overload
def all_gather(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    axis: int = 0,
    tiled: bool = False,
    with_report: Literal[True],
) -> tuple[T, Report]: ...
@overload
def all_gather(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    axis: int = 0,
    tiled: bool = False,
    with_report: bool,
) -> T | tuple[T, Report]: ...
def all_gather(
    x: T,
    axis_name: AxisName,
    *,
    ring: Ring,
    key: Key | None,
    axis: int = 0,
    tiled: bool = False,
    with_report: bool = False,
) -> T | tuple[T, Report]:
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
      TypeError: as `psum`.
      ValueError: as `psum`, and if a leaf has no such axis or `x` holds no value.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> ring = Ring(noise="off")
    >>> gather = jax.vmap(lambda x: all_gather(x, "nodes", ring=ring, key=None), axis_name="nodes")
    >>> jax.jit(gather)(jnp.array([1.0, 2.0, 3.0]))[0]
    Array([1., 2., 3.], dtype=float32)
    """
    join = functools.partial(gather, key=key, axis=axis, tiled=tiled, with_report=with_report)
    return within_devices(join, x, axis_name, ring, with_report)
