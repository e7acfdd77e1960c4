"""`compressed_pmean`: the mean over the nodes of a ring, by way of a compressor."""

import dataclasses
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring._varying import as_varying, varying
from jaxqring.codec import Counts, FixedPoint
from jaxqring.compress._compressor import Compressor, with_nodes
from jaxqring.compress._exchange import Exchange, Masking, over
from jaxqring.compress._report import CompressReport
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Ring, replica_agreement
from jaxqring.ring._axes import axis_size, tracked, within_devices
from jaxqring.secure import SecureReport, Security


@overload
def compressed_pmean(
    x: PyTree,
    state: PyTree,
    axis_name: AxisName,
    *,
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    key: Key | None,
    security: Security | None = None,
    source: GHZSource | None = None,
    with_report: Literal[False] = False,
) -> tuple[PyTree, PyTree]: ...
@overload
def compressed_pmean(
    x: PyTree,
    state: PyTree,
    axis_name: AxisName,
    *,
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    key: Key | None,
    security: Security | None = None,
    source: GHZSource | None = None,
    with_report: Literal[True],
) -> tuple[PyTree, PyTree, CompressReport]: ...
@overload
def compressed_pmean(
    x: PyTree,
    state: PyTree,
    axis_name: AxisName,
    *,
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    key: Key | None,
    security: Security | None = None,
    source: GHZSource | None = None,
    with_report: bool,
) -> Any: ...
def compressed_pmean(
    x: PyTree,
    state: PyTree,
    axis_name: AxisName,
    *,
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    key: Key | None,
    security: Security | None = None,
    source: GHZSource | None = None,
    with_report: bool = False,
) -> Any:
    """The mean of a pytree over the nodes of a ring, as a compressor delivers it.

    All that is sent are integers: the compressor rounds, the ring adds or carries them exactly, so
    that with noise "off" or protected links all nodes are delivered the same, bit for bit, under
    every mapping. A leaf with a NaN or an infinity on any node is delivered as NaN on all of them,
    and the state then stays as it was.

    Args:
      x: pytree of floating arrays, as for `jaxqring.pmean`; compressed as float32, returned in
        their own types.
      state: of this node: `compressor.init(x)` before the first step (outside of the mapping, the
        same for every node), then what the last step returned. With `ring.nodes_per_device` k > 1
        every leaf of it has a leading axis of length k, as those of `x` have.
      axis_name: name of the mapped axis, or a tuple of names, as for `jaxqring.pmean`.
      compressor: one of `jaxqring.compress`.
      ring: with a FixedPoint wire, of which linear levels take the width and the rounding; or a
        tuple of them for the collectives of a step, in their order, the last one for all further
        ones. They differ in links and protection alone.
      key: typed PRNG key, the same on every node, another one in every step; or None where nothing
        is drawn. Collective number n draws from `jax.random.fold_in(key, n)`.
      security: of masks on every sum, for compressors that sum; given with `source`. Every
        collective of a step is verified by itself, so that epsilons add up: `secure.plan` takes
        the sizes of all of them.
      source: of the GHZ states, one party for each node.
      with_report: whether to return a `CompressReport` too.

    Returns:
      The delivered tree and the new state; with a report, (delivered, state, CompressReport).

    Raises:
      TypeError: as `jaxqring.pmean`; if the compressor is not a Compressor, or a wire not a
        FixedPoint.
      ValueError: as `jaxqring.pmean`; if a leaf holds no value, the state is not that of the tree,
        the wire has another clip than "max" or leaves no room, or a compressor that gathers is to
        be masked.

    >>> from jaxqring.compress import TopK
    >>> compressor, gradients = TopK(0.5), jnp.array([[3.0, 1.0], [1.0, 5.0]])
    >>> mean = lambda x, state: compressed_pmean(
    ...     x, state, "nodes", compressor=compressor, ring=Ring(noise="off"), key=None)
    >>> delivered, errors = jax.jit(jax.vmap(mean, axis_name="nodes"))(gradients, 0 * gradients)
    >>> delivered[0], errors
    (Array([1.5, 2.5], dtype=float32), Array([[0., 1.], [1., 0.]], dtype=float32))
    """
    rings = ring if isinstance(ring, tuple) else (ring,)
    options = _Options(compressor, rings, key, _masking(security, source), with_report)
    _check(x, state, axis_name, options)

    def act(both: tuple[PyTree, PyTree], axis: AxisName, first: Ring) -> Any:
        wider = tuple(
            dataclasses.replace(each, nodes_per_device=first.nodes_per_device) for each in rings
        )
        return _on_device(both, axis, options._replace(rings=wider))

    result = within_devices(act, (x, state), axis_name, rings[0], with_report)
    return (*result[0], result[1]) if with_report else result


class _Options(NamedTuple):
    """The keyword arguments of `compressed_pmean`."""

    compressor: Compressor
    rings: tuple[Ring, ...]
    key: Key | None
    masking: Masking | None
    with_report: bool


def _masking(security: Security | None, source: GHZSource | None) -> Masking | None:
    if (security is None) != (source is None):
        missing, given = ("source", "security") if source is None else ("security", "source")
        checks.refuse(missing, f"be given with `{given}`", None)
    return None if security is None or source is None else Masking(source, security)


def check_options(
    compressor: Compressor, rings: tuple[Ring, ...], key: Key | None, masking: Masking | None
) -> None:
    """Refuses a compressor, rings and a key that do not go together.

    Raises:
      TypeError: if one of them is of another type.
      ValueError: if the wires are not fit for a compressor, or it cannot be masked.
    """
    checks.instance("compressor", compressor, Compressor)
    if not rings:
        checks.refuse("ring", "be a Ring or a tuple of at least one", rings)
    for ring in rings:
        checks.instance("ring", ring, Ring)
        if not isinstance(ring.wire, FixedPoint) or isinstance(ring.wire, Counts):
            rule = "be a FixedPoint, as a compressor sends integers"
            checks.refuse("ring.wire", rule, ring.wire, TypeError)
        if ring.wire.clip != "max":
            rule = 'be "max", as what a compressor sends has scales of its own'
            checks.refuse("ring.wire.clip", rule, ring.wire.clip)
    if any(
        (ring.wire, ring.nodes_per_device) != (rings[0].wire, rings[0].nodes_per_device)
        for ring in rings
    ):
        checks.refuse("ring", "be rings with one wire and one number of nodes per device", rings)
    if masking is not None and compressor.reduce not in ("sum", "vote"):
        rule = "sum what it sends under masks, which hide sums alone"
        checks.refuse("compressor", rule, compressor)
    if (
        any(ring.draws for ring in rings)
        or compressor.draws
        or masking is not None
        or key is not None
    ):
        checks.prng_key("key", key)


def _check(x: PyTree, state: PyTree, axis_name: AxisName, options: _Options) -> None:
    """Refuses a malformed call before anything is traced."""
    compressor, rings = options.compressor, options.rings
    check_options(compressor, rings, options.key, options.masking)
    checks.one_of("with_report", options.with_report, (True, False))
    own = rings[0].nodes_per_device
    num_nodes = axis_size(axis_name) * own
    wire = rings[0].wire
    assert isinstance(wire, FixedPoint)  # `check_options` has refused others
    wire.level_bits(num_nodes)
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        name = "x" + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            kind = str(leaf.dtype) if hasattr(leaf, "dtype") else leaf
            checks.refuse(name, "be real and floating", kind, TypeError)
        if own > 1 and jnp.shape(leaf)[:1] != (own,):
            rule = f"have a leading axis of `nodes_per_device` = {own}"
            checks.refuse(name, rule, jnp.shape(leaf))
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[own > 1 :], jnp.float32), x)
    compressor.check(one)
    compressor.traffic(one, num_nodes, wire)
    wanted = jax.eval_shape(compressor.init, one)
    if own > 1:
        wanted = jax.eval_shape(lambda: with_nodes(wanted_zeros(wanted), own))
    if _shapes(wanted) != _shapes(state):
        rule = "be that of the compressor for a tree like `x`, as its `init` makes it"
        checks.refuse("state", rule, jax.tree.map(jnp.shape, state))


def wanted_zeros(tree: PyTree) -> PyTree:
    """Zeros in the shapes and types of a tree of `ShapeDtypeStruct`s."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def _shapes(tree: PyTree) -> tuple:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [jnp.shape(leaf) for leaf in leaves]


def _on_device(both: tuple[PyTree, PyTree], axis_name: AxisName, options: _Options) -> Any:
    """The step on one device."""
    x, state = both
    compressor, rings = options.compressor, options.rings
    axes = tracked(axis_name) | varying(*jax.tree.leaves(x), *jax.tree.leaves(rings))
    x_varying, state = as_varying(x, axes), as_varying(state, axes)
    lead = rings[0].nodes_per_device > 1
    led, old = x_varying, state
    if not lead:
        led, old = jax.tree.map(lambda leaf: leaf[None], (led, old))
    exchange = Exchange(axis_name, rings, options.key, options.masking, axes)
    leaves, treedef = jax.tree.flatten(led)
    single = [leaf.astype(jnp.float32) for leaf in leaves]
    lost = exchange.highest([_has_bad(leaf) for leaf in single], bits=1)
    finite = [
        jnp.where(over(leaf, bad) > 0, 0, leaf) for leaf, bad in zip(single, lost, strict=True)
    ]
    delivered, new = compressor.mean(jax.tree.unflatten(treedef, finite), old, exchange)
    any_lost = jnp.any(jnp.stack(lost) > 0)
    aborted = jnp.zeros((), bool)
    for report in exchange.reports:
        if isinstance(report, SecureReport):
            aborted |= report.aborted
    stays = any_lost | (exchange.lost > 0) | aborted
    new = jax.tree.map(lambda a, b: jnp.where(stays, a, b.astype(a.dtype)), old, new)
    out = [
        _undelivered(mean, bad, aborted).astype(leaf.dtype)
        for mean, bad, leaf in zip(jax.tree.leaves(delivered), lost, leaves, strict=True)
    ]
    if not lead:
        out, new = jax.tree.map(lambda leaf: leaf[0], (out, new))
    result = jax.tree.unflatten(treedef, out), new
    if not options.with_report:
        return result
    held = jax.tree.map(lax.stop_gradient, result[0])
    agreement = replica_agreement(held, axis_name, nodes_per_device=rings[0].nodes_per_device)
    return result, CompressReport(
        calls=tuple(exchange.reports),
        out_of_range=lax.psum(exchange.out_of_range, axis_name),
        lost_leaves=jnp.sum(jnp.stack([bad[0] for bad in lost]) > 0, dtype=jnp.uint32)
        + exchange.lost,
        aborted=aborted,
        replica_agreement=agreement,
        control_bits=exchange.control_bits,
    )


def _has_bad(leaf: jax.Array) -> jax.Array:
    """(k,) float32 one where a leaf (k, ...) has a value that is not finite, else zero."""
    rows = leaf.reshape(leaf.shape[0], -1)
    # The sum of differences of values and themselves is zero, or NaN; four times as fast as asking
    # each value.
    return jnp.isnan(jnp.sum(rows - rows, axis=1)).astype(jnp.float32)


def _undelivered(mean: jax.Array, bad: jax.Array, aborted: jax.Array) -> jax.Array:
    return jnp.where((over(mean, bad) > 0) | aborted, jnp.nan, mean)
