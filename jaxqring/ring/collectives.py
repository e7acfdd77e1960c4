"""`psum`, `pmean`, `psum_scatter` and `all_gather` over a quantum ring.

They take the place of their `jax.lax` namesakes inside `pmap`, `shard_map` and
`vmap(axis_name=...)`. The path of a payload:

    pytree -> one float32 vector -> N chunks -> codes -> (N - 1 hops of adding)
           -> (N - 1 hops of passing on) -> codes -> float32 -> pytree

The same key gives the same bits under every mapping, whatever its implementation: the random
stream of a hop is derived from the key, the number of the hop and the index of the node.

Derivatives follow the mean of the channel; `jaxqring.ring.tangent` says how.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import checks
from jaxqring.link.wire import FixedPoint
from jaxqring.ring.config import Ring
from jaxqring.ring.engine import collective
from jaxqring.ring.plan import Plan, sees_varying
from jaxqring.ring.report import make_report, split
from jaxqring.ring.schedule import Place, axis_size

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

    Args:
      x: pytree of floating arrays, of any shape; sent as float32, returned in their own type.
        With `ring.nodes_per_device` k > 1 every leaf has a leading axis of length k.
      axis_name: name of the mapped axis.
      ring: the links, the wire and the kind of noise.
      key: typed PRNG key, the same on every node, or None where nothing is drawn.
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
    place = _check_call(x, axis_name, ring, key, with_report, replicated)
    flat, restore = _flatten(x, place, ring)
    size = flat.shape[1]
    if size == 0:
        return (x, make_report(x, None, place, ring, 0, 0)) if with_report else x
    chunk = -(-size // place.num_nodes)
    rows = jnp.pad(flat, ((0, 0), (0, chunk * place.num_nodes - size)))
    rows = rows.reshape(-1, place.num_nodes, chunk)
    # Divided before the cast: the mean of narrow floats fits their type where the sum may not.
    divisor = place.num_nodes if mean else 1
    plan = Plan(place, True, True, replicated, with_report, divisor)
    summed, counts = collective(rows, ring, key, plan)
    total = restore(summed.reshape(place.nodes_per_device, -1)[:, :size])
    if not with_report:
        return total
    return total, make_report(total, counts, place, ring, 2 * (place.num_nodes - 1), chunk)


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
    place = _check_call(x, axis_name, ring, key, with_report)
    lead, nodes = _lead(place), place.num_nodes
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, x))
    rows = []
    for leaf in leaves:
        dimension = _dimension("scatter_dimension", scatter_dimension, leaf.ndim - lead)
        length = leaf.shape[lead + dimension]
        if length % nodes if tiled else length != nodes:
            rule = f"name a dimension of length {'a multiple of ' if tiled else ''}{nodes}"
            checks.refuse("scatter_dimension", rule, length)
        front = jnp.moveaxis(leaf, lead + dimension, lead).astype(jnp.float32)
        rows.append(front.reshape(place.nodes_per_device, nodes, -1))
    _refuse_nothing(rows)
    values = jnp.concatenate(rows, axis=2)
    plan = Plan(place, reduce=True, gather=False, replicated=False, report=with_report)
    summed, counts = collective(values, ring, key, plan)

    def part(leaf: jax.Array, piece: jax.Array) -> jax.Array:
        shape = list(leaf.shape[lead:])
        dimension = scatter_dimension % len(shape)
        length = shape.pop(dimension) // nodes
        piece = as_leaf(piece, leaf.dtype, ring)
        piece = piece.reshape(place.nodes_per_device, length, *shape)
        piece = jnp.moveaxis(piece, 1, 1 + dimension) if tiled else piece[:, 0]
        return piece if lead else piece[0]

    pieces = split(summed, [row.shape[2] for row in rows])
    outputs = jax.tree.unflatten(treedef, list(map(part, leaves, pieces)))
    if not with_report:
        return outputs
    size = values.shape[2]
    return outputs, make_report(outputs, counts, place, ring, nodes - 1, size, replicas=False)


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
    place = _check_call(x, axis_name, ring, key, with_report, adds=False)
    x = _to_varying(x, axis_name)
    lead, nodes = _lead(place), place.num_nodes
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, x))
    for leaf in leaves:
        _dimension("axis", axis, leaf.ndim - lead + (not tiled))
    flat, _ = _flatten(x, place, ring)
    _refuse_nothing(leaves)
    plan = Plan(place, reduce=False, gather=True, replicated=False, report=with_report)
    gathered, counts = collective(flat, ring, key, plan)

    def joined(leaf: jax.Array, piece: jax.Array) -> jax.Array:
        shape = leaf.shape[lead:]
        where = axis % (len(shape) + (not tiled))
        piece = as_leaf(piece, leaf.dtype, ring)
        piece = piece.reshape(place.nodes_per_device, nodes, *shape)
        piece = jnp.moveaxis(piece, 1, 1 + where)
        if tiled:
            merged = (*shape[:where], nodes * shape[where], *shape[where + 1 :])
            piece = piece.reshape(place.nodes_per_device, *merged)
        return piece if lead else piece[0]

    pieces = split(gathered, [math.prod(leaf.shape[lead:]) for leaf in leaves])
    outputs = jax.tree.unflatten(treedef, list(map(joined, leaves, pieces)))
    if not with_report:
        return outputs
    return outputs, make_report(outputs, counts, place, ring, nodes - 1, flat.shape[1])


def _check_call(
    x: Any,
    axis_name: AxisName,
    ring: Ring,
    key: jax.Array | None,
    with_report: bool,
    replicated: bool = False,
    *,
    adds: bool = True,
) -> Place:
    """Refuses a malformed call before anything is traced, else says where this device sits."""
    checks.instance("ring", ring, Ring)
    checks.one_of("with_report", with_report, (True, False))
    checks.one_of("replicated", replicated, (True, False))
    num_devices = axis_size(axis_name)
    place = Place(axis_name, num_devices, ring.nodes_per_device)
    ring.check(place.num_nodes if adds else 1, place.num_nodes)
    if ring.draws or key is not None:
        checks.prng_key("key", key)
    if replicated and not ring.delivers_exactly:
        rule = 'be False unless noise is "off" or every symbol is protected'
        checks.refuse("replicated", rule, replicated)
    varying = sees_varying(axis_name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        name = "x" + jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex):
            checks.refuse(name, "be real and floating", leaf, TypeError)
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            checks.refuse(name, "be real and floating", str(dtype), TypeError)
        shape = jnp.shape(leaf)
        if _lead(place) and shape[:1] != (place.nodes_per_device,):
            rule = f"have a leading axis of `nodes_per_device` = {place.nodes_per_device}"
            checks.refuse(name, rule, shape)
        if adds and varying and math.prod(shape) and not varying <= _varying(leaf):
            raise ValueError(
                f"`{name}` must vary over {axis_name!r}, but got a value that is the same on all"
                " nodes: under shard_map with check_vma=True the gradient with respect to"
                " replicated parameters has been summed already, and the collective would sum it"
                f" twice; apply `jax.lax.pcast(params, {axis_name!r}, to='varying')` before"
                " `jax.grad`."
            )
    return place


def _varying(x: Any) -> frozenset:
    return frozenset(jax.typeof(x).mat.varying)


def _lead(place: Place) -> int:
    """How many leading axes a leaf has for the nodes of one device."""
    return int(place.nodes_per_device > 1)


def _dimension(argument: str, dimension: int, rank: int) -> int:
    """`dimension` counted from the front."""
    if not isinstance(dimension, int) or not -rank <= dimension < rank:
        rule = f"be an integer in [{-rank}, {rank}) for a leaf of this shape"
        checks.refuse(argument, rule, dimension)
    return dimension % rank


def _refuse_nothing(leaves: list[jax.Array]) -> None:
    if sum(leaf.size for leaf in leaves) == 0:
        raise ValueError("`x` must hold at least one value, but got none.")


def _to_varying(x: Any, axis_name: AxisName) -> Any:
    """`x` with every leaf varying over the axis, where `shard_map` tracks that."""

    def cast(leaf: Any) -> jax.Array:
        missing = tuple(sees_varying(axis_name) - _varying(leaf))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, x)


def as_leaf(values: jax.Array, dtype: Any, ring: Ring) -> jax.Array:
    """float32 values in the type of a leaf; a FixedPoint wire makes no infinity, here neither."""
    if isinstance(ring.wire, FixedPoint) and jnp.finfo(dtype).bits < 32:
        top = float(jnp.finfo(dtype).max)
        values = jnp.clip(values, -top, top)
    return values.astype(dtype)


def _flatten(x: Any, place: Place, ring: Ring) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """All leaves as one (k, P) float32 array, and the way back."""
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, x))
    flat = [leaf.astype(jnp.float32).reshape(place.nodes_per_device, -1) for leaf in leaves]
    sizes = [rows.shape[1] for rows in flat]

    def restore(values: jax.Array) -> Any:
        pieces = split(values, sizes)
        shaped = [
            as_leaf(piece, leaf.dtype, ring).reshape(leaf.shape)
            for piece, leaf in zip(pieces, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, shaped)

    empty = jnp.zeros((place.nodes_per_device, 0), jnp.float32)
    return jnp.concatenate(flat, axis=1) if flat else empty, restore
