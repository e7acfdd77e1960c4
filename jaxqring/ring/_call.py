"""One call of a collective: its refusals, and the conversion of leaves to levels and back."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring._varying import as_varying, varying
from jaxqring.codec._formats import FixedPoint
from jaxqring.ring._axes import (
    device_axes,
    key_of_ring,
    names_of,
    num_devices,
    of_first,
    refuse_spmd_vmap,
    resharded,
    tracked,
    unsharded,
)
from jaxqring.ring._call_spec import CallSpec, Counts
from jaxqring.ring._engine import collective
from jaxqring.ring._payload import agree, from_levels, in_levels, layout_of
from jaxqring.ring._place import Place
from jaxqring.ring._ring import Ring


class Call(NamedTuple):
    """A call that has been checked, on one device.

    Attributes:
      leaves: of the pytree, k nodes each along a leading axis if k > 1; in the types of `shard_map`
        all vary over the same axes.
      treedef: of the pytree.
      extra: axes that each leaf varies over in `leaves` and shall not vary over in the result.
      shardings: of each leaf, over explicit axes of the mesh that the ring does not run along.
      place: the position of this device in the ring.
      ring: of the call.
      key: of this ring, or None.
      stream: two numbers that stand for the kind, the sizes and the structure of the call.
    """

    leaves: list[jax.Array]
    treedef: jax.tree_util.PyTreeDef
    extra: list[frozenset]
    shardings: list[Any]
    place: Place
    ring: Ring
    key: Key | None
    stream: tuple[int, int]

    @property
    def lead(self) -> int:
        """The number of leading axes of a leaf for the nodes of one device."""
        return int(self.place.nodes_per_device > 1)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of each leaf, on one node."""
        return [leaf.shape[self.lead :] for leaf in self.leaves]

    def run(
        self,
        leaves: Sequence[jax.Array],
        rows: int,
        *,
        reduce: bool,
        gather: bool,
        report: bool,
        replicated: bool = False,
        divisor: int | jax.Array = 1,
        fits: bool = True,
    ) -> tuple[list[jax.Array], jax.Array, Counts | None, int]:
        """Sends leaves round the ring.

        Args:
          leaves: (k, R, m) each.
          rows: R, N where each node ends with a row of its own, else 1.
          reduce: whether to add.
          gather: whether to pass on.
          report: whether to count.
          replicated: whether the result must be known to `shard_map` as equal on all nodes.
          divisor: of the result.
          fits: whether the result of values that fit the type of their leaf must fit it.

        Returns:
          The leaves of the result, (k, R', m) each with R' = N where it gathers without adding
          and 1 elsewhere, not yet in their own types; the same as one array; the counts; and the
          values that were sent in a hop.
        """
        place, wire, ring = self.place, self.ring.wire, self.ring
        sizes = [leaf.shape[2] for leaf in leaves]
        layout = layout_of(wire, sizes, rows, [leaf.dtype for leaf in leaves])
        flat, scales = layout.join(leaves), None
        nodes = place.num_nodes
        if isinstance(wire, FixedPoint):
            terms = nodes if reduce else 1
            scales = agree(flat, layout, wire, terms, place.highest, place.everyone)
            flat = in_levels(flat, layout, wire, scales)
            ring = dataclasses.replace(ring, wire=wire.in_units(terms))
        size = flat.shape[2]
        if reduce and gather:
            flat = jnp.pad(flat[:, 0], ((0, 0), (0, -size % nodes))).reshape(
                -1, nodes, -(-size // nodes)
            )
        values = flat if reduce else flat[:, 0]
        spec = CallSpec(place, reduce, gather, replicated, report, self.stream)
        levels, counts = collective(values, ring, self.key, spec)
        if reduce and gather:
            levels = levels.reshape(place.nodes_per_device, 1, -1)[..., :size]
        elif reduce:
            levels = levels[:, None]
            scales = None if scales is None else scales.of_rows(place.nodes())
        result = from_levels(levels, layout, wire, scales, divisor=divisor, fits=fits)
        return layout.split(result), result, counts, values.shape[-1]

    def restored(self, leaves: Sequence[jax.Array]) -> PyTree:
        """The pytree of leaves, in their own types, which do not vary over extra axes."""
        typed = [
            resharded(of_first(lax.convert_element_type(leaf, own.dtype), extra), own, sharding)
            for leaf, own, extra, sharding in zip(
                leaves, self.leaves, self.extra, self.shardings, strict=True
            )
        ]
        return jax.tree.unflatten(self.treedef, typed)


def enter(
    x: PyTree,
    axis_name: AxisName,
    ring: Ring,
    key: Key | None,
    kind: str,
    *,
    with_report: bool,
    replicated: bool = False,
    adds: bool = True,
) -> Call:
    """Checks a call before anything is traced, and prepares its leaves.

    Args:
      x: as for `psum`.
      axis_name: as for `psum`.
      ring: as for `psum`.
      key: as for `psum`.
      kind: a name for the collective, whose calls share a stream of random numbers.
      with_report: as for `psum`.
      replicated: as for `psum`.
      adds: whether values are added up.

    Raises:
      TypeError: as `psum`.
      ValueError: as `psum`.
    """
    checks.instance("ring", ring, Ring)
    checks.one_of("with_report", with_report, (True, False))
    checks.one_of("replicated", replicated, (True, False))
    place = Place(axis_name, num_devices(axis_name), ring.nodes_per_device)
    ring.check(place.num_nodes if adds else 1, place.num_nodes)
    if ring.draws or key is not None:
        checks.prng_key("key", key)
    if replicated and not ring.delivers_exactly:
        rule = 'be False unless noise is "off" or every symbol is protected'
        checks.refuse("replicated", rule, replicated)
    seen = tracked(axis_name)
    named, treedef = jax.tree_util.tree_flatten_with_path(x)
    for path, leaf in named:
        check_leaf("x" + jax.tree_util.keystr(path), leaf, place, seen if adds else frozenset())
    given = [jnp.asarray(leaf) for _, leaf in named]
    leaves = [unsharded(leaf) for leaf in given]
    shardings = [jax.typeof(leaf).sharding for leaf in given]
    # Sizes and not shapes: under some mappings a leaf has axes of length one that others take away.
    parts = [
        (jax.tree_util.keystr(path), leaf.size // place.nodes_per_device, str(leaf.dtype))
        for (path, _), leaf in zip(named, leaves, strict=True)
    ]
    stream = _stream(kind, parts)

    names = frozenset(names_of(axis_name))
    aside = frozenset(device_axes()) - names
    if axis_name is None:
        aside = frozenset()  # the same ring on every device, with the same errors
    extra: list[frozenset] = [frozenset()] * len(leaves)
    if seen or axis_name is None:
        for leaf in leaves:
            refuse_spmd_vmap(leaf)
        others = [each for each in (key, *jax.tree.leaves(ring)) if isinstance(each, jax.Array)]
        of_all = varying(*others)
        aside = (varying(*leaves) | of_all) - names
        extra = [aside - varying(leaf) - of_all for leaf in leaves]
        leaves = as_varying(leaves, seen | aside)
        place = place._replace(beside=aside)
    is_watched = ring.overrides is not None and ring.overrides.calls is not None
    if key is not None and aside and axis_name is not None and not is_watched:
        key = key_of_ring(key, tuple(name for name in device_axes() if name in aside))
    return Call(leaves, treedef, extra, shardings, place, ring, key, stream)


def _stream(kind: str, parts: list[tuple[str, int, str]]) -> tuple[int, int]:
    """Two numbers for the kind of a call and the names, sizes and types of its leaves."""
    digest = hashlib.blake2b(repr((kind, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4]), int.from_bytes(digest[4:])


def check_leaf(name: str, leaf: Any, place: Place, seen: frozenset) -> None:
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex):
        checks.refuse(name, "be real and floating", leaf, TypeError)
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        checks.refuse(name, "be real and floating", str(dtype), TypeError)
    shape = jnp.shape(leaf)
    if place.nodes_per_device > 1 and shape[:1] != (place.nodes_per_device,):
        rule = f"have a leading axis of `nodes_per_device` = {place.nodes_per_device}"
        checks.refuse(name, rule, shape)
    if seen and math.prod(shape) and not seen <= varying(leaf):
        raise ValueError(
            f"`{name}` must vary over {place.axis_name!r}, but got a value that is the same on all"
            " nodes: under shard_map with check_vma=True the gradient with respect to"
            " replicated parameters has been summed already, and the collective would sum it"
            f" twice; apply `jax.lax.pcast(params, {place.axis_name!r}, to='varying')` before"
            " `jax.grad`."
        )
