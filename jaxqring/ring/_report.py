"""The report of one call of a collective, and the agreement of replicas."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxqring import _checks as checks
from jaxqring._shown import Panel, Shown, first_entry, in_short
from jaxqring._types import AxisName, PyTree
from jaxqring.ring._axes import num_devices
from jaxqring.ring._call_spec import Counts
from jaxqring.ring._place import Place
from jaxqring.ring._ring import Ring

#: Counts that each node hands in.
_COLUMNS = 7


#: Rings of so many links are shown link by link.
_FEW_LINKS = 16


@struct.dataclass(repr=False)
class Report(Shown):
    """The report of one call of a collective; the same on every node.

    It prints as the view of one node: where it has an axis of nodes, or of steps, in front, that of
    the first.

    Attributes:
      errors_per_link: (N,) uint32 two-bit symbols of payload that arrived wrong over each link, on
        a protected one after the last attempt. Zero unless noise is "sampled".
      retransmissions_per_link: (N,) uint32 codewords sent again on each link.
      undelivered: () uint32 codewords, on all links, that stayed wrong after their last attempt or
        whose failure the checksum missed. Never silent: while it is zero, all payload is exact.
      online_qubits: () float32 qubits sent over all links, repetitions included (to a relative
        6e-8); for an `IdealCode`, the number that follows from its rate.
      repeated_qubits: () float32 of those, the ones of codewords sent again.
      saturated: () uint32 values that were clipped, on all nodes.
      non_finite: () uint32 values that were not finite: put in by all nodes for a FixedPoint
        wire (see `FixedPoint.non_finite`), delivered to all nodes for a float one.
      vanished: () uint32 values that are not zero and were sent as zero, on all nodes: too small
        for the scale of their block. Zero on a float wire.
      clipped_parameters: () float traced noise parameters that lay outside their domain and were
        clipped, and columns of transition matrices that were not probability distributions.
      replica_agreement: () float32 fraction of the coordinates whose bits are the same on all
        nodes; None for `psum_scatter`, which leaves no replicas.
      num_links: N.
      symbols_per_link: symbols of payload sent over each link.
      codewords_per_link: codewords sent over each link, repetitions not counted.
    """

    errors_per_link: jax.Array
    retransmissions_per_link: jax.Array
    undelivered: jax.Array
    online_qubits: jax.Array
    repeated_qubits: jax.Array
    saturated: jax.Array
    non_finite: jax.Array
    vanished: jax.Array
    clipped_parameters: jax.Array
    replica_agreement: jax.Array | None
    num_links: int = struct.field(pytree_node=False)
    symbols_per_link: int = struct.field(pytree_node=False)
    codewords_per_link: int = struct.field(pytree_node=False)

    def _panels(self) -> list[Panel]:
        own, remark = first_entry(self, "clipped_parameters")
        wrong, worst = own.errors_per_link, int(own.errors_per_link.argmax())
        title = f"Report: {self.symbols_sent:,} symbols, {int(wrong.sum()):,} wrong"
        if wrong.any():
            title += f" ({100 * wrong.sum() / self.symbols_sent:.3g}%), most on link {worst}"
        if own.replica_agreement is not None:
            title += f", replicas agree {own.replica_agreement:.4g}"
        meanings = {
            "online_qubits": "over all links",
            "repeated_qubits": "of them for codewords sent again",
            "undelivered": "codewords that stayed wrong",
            "saturated": "values clipped",
            "non_finite": "values not finite",
            "vanished": "values sent as zero",
            "clipped_parameters": "noise parameters clipped",
        }
        counts = [(name, getattr(own, name), text) for name, text in meanings.items()]
        # The promise of a protected ring is shown also where it is kept.
        kept = {"undelivered"} if self.codewords_per_link else set()
        counts = [(name, count, text) for name, count, text in counts if count or name in kept]
        rows = [(name, in_short(count), text) for name, count, text in counts]
        panels = [Panel(title + remark, rows)]
        if self.num_links <= _FEW_LINKS:
            again = own.retransmissions_per_link
            columns = {
                "link": range(self.num_links),
                "symbols": [self.symbols_per_link] * self.num_links,
                "wrong": wrong,
                "codewords": [self.codewords_per_link] * self.num_links,
                "sent again": again,
            }
            shown = list(columns)[: 5 if self.codewords_per_link else 3]
            links = zip(*(map(in_short, columns[name]) for name in shown), strict=True)
            panels.append(Panel("Link by link", list(links), shown))
        return panels

    @property
    def symbols_sent(self) -> int:
        """Symbols of payload sent over all links."""
        return self.num_links * self.symbols_per_link

    @property
    def symbol_errors(self) -> jax.Array:
        """() uint32 symbol errors on all links together; exact below 2^32."""
        return jnp.sum(self.errors_per_link, axis=-1, dtype=jnp.uint32)

    @property
    def worst_link_errors(self) -> jax.Array:
        """() uint32 symbol errors on the worst link."""
        return jnp.max(self.errors_per_link, axis=-1)

    @property
    def retransmissions(self) -> jax.Array:
        """() uint32 codewords sent again, on all links together."""
        return jnp.sum(self.retransmissions_per_link, axis=-1, dtype=jnp.uint32)

    @property
    def bits_per_qubit(self) -> jax.Array:
        """() float32 bits of payload per online qubit: 2 on bare links, less with protection.

        Zero if nothing was sent.
        """
        return 2 * float(self.symbols_sent) / jnp.maximum(self.online_qubits, 1)

    @property
    def symbol_error_rate(self) -> jax.Array:
        """() float32 symbol errors per symbol sent; zero if none was sent."""
        return self.symbol_errors.astype(jnp.float32) / float(max(self.symbols_sent, 1))


def make_report(
    result: PyTree,
    counts: Counts | None,
    place: Place,
    ring: Ring,
    hops: int,
    size: int,
    *,
    replicas: bool = True,
) -> Report:
    """The report of a call.

    Args:
      result: of the call.
      counts: of this device, or None if nothing was sent.
      place: the position of this device in the ring.
      ring: of the call.
      hops: over each link.
      size: levels sent in a hop.
      replicas: whether all nodes should hold the same result.
    """
    num_nodes = place.num_nodes
    seen = jnp.zeros((0,), jnp.int32)
    if counts is not None:
        start = jnp.int32(0)
        if place.axis_name is not None:
            start = lax.axis_index(place.axis_name) * place.nodes_per_device
        totals = jnp.stack([counts.saturated, counts.non_finite, counts.vanished])
        # With the type of a mapped value.
        rows = jnp.zeros((num_nodes, _COLUMNS), jnp.uint32) + totals[0] * 0
        links = jnp.stack(counts.links, axis=1)
        rows = lax.dynamic_update_slice(rows, links, (start, jnp.int32(0)))
        rows = lax.dynamic_update_slice(rows, totals[None], (start, jnp.int32(4)))
        seen = lax.bitcast_convert_type(rows, jnp.int32).reshape(-1)
    values = jax.tree.map(lax.stop_gradient, result) if replicas else ()
    agreement, seen = _compare(values, seen, place.axis_name, place.nodes_per_device)
    if counts is None:
        seen = jnp.zeros((_COLUMNS * num_nodes,), jnp.int32)
    table = seen.reshape(num_nodes, _COLUMNS).astype(jnp.uint32)
    codewords, online = _online_qubits(ring, num_nodes, size)
    message, repeated = ring.message_words(size), table[:, 1].astype(jnp.float32)
    if message is not None:  # without codewords, nothing is sent again
        repeated = message.repeated_qubits(table[:, 1], table[:, 3])
    repeated = jnp.sum(repeated)
    return Report(
        errors_per_link=table[:, 0],
        retransmissions_per_link=table[:, 1],
        online_qubits=hops * online + repeated,
        repeated_qubits=repeated,
        undelivered=jnp.sum(table[:, 2], dtype=jnp.uint32),
        saturated=jnp.sum(table[:, 4], dtype=jnp.uint32),
        non_finite=jnp.sum(table[:, 5], dtype=jnp.uint32),
        vanished=jnp.sum(table[:, 6], dtype=jnp.uint32),
        clipped_parameters=_clipped(ring),
        replica_agreement=agreement if replicas else None,
        num_links=num_nodes,
        symbols_per_link=hops * size * ring.wire.bits // 2,
        codewords_per_link=hops * codewords,
    )


def _online_qubits(ring: Ring, num_nodes: int, size: int) -> tuple[int, jax.Array]:
    """The codewords of a message, and () float32 qubits on all links if each is sent once."""
    codewords, qubits = ring.message_qubits(size)
    per_link = jnp.broadcast_to(jnp.asarray(qubits, jnp.float32), (num_nodes,))
    return codewords, jnp.sum(per_link)


def _clipped(ring: Ring) -> jax.Array:
    if ring.noise == "off":
        return jnp.float32(0)
    assert ring.channel is not None
    count = ring.channel.invalid_columns
    return count if ring.channel.clipped is None else count + jnp.sum(ring.channel.clipped)


def replica_agreement(tree: PyTree, axis_name: AxisName, *, nodes_per_device: int = 1) -> jax.Array:
    """The fraction of coordinates whose bits are the same on all nodes.

    Args:
      tree: pytree of floating arrays; with k > 1 nodes per device, each with a leading axis k.
      axis_name: name of the mapped axis; None if one device carries all nodes.
      nodes_per_device: k.

    Returns:
      () float32, the same on every node; one for a tree without values.

    Raises:
      TypeError: if a leaf is not floating.
      ValueError: if the axis is not bound or a leaf lacks its leading axis.

    >>> jax.vmap(lambda x: replica_agreement(x, "nodes"), axis_name="nodes")(jnp.eye(2, 4))[0]
    Array(0.5, dtype=float32)
    """
    num_devices(axis_name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "tree" + jax.tree_util.keystr(path)
        if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating):
            checks.refuse(name, "be real and floating", str(jnp.asarray(leaf).dtype), TypeError)
        if nodes_per_device > 1 and jnp.shape(leaf)[:1] != (nodes_per_device,):
            rule = f"have a leading axis of `nodes_per_device` = {nodes_per_device}"
            checks.refuse(name, rule, jnp.shape(leaf))
    agreement, _ = _compare(tree, jnp.zeros((0,), jnp.int32), axis_name, nodes_per_device)
    return agreement


def _compare(
    tree: PyTree, counts: jax.Array, axis_name: AxisName | None, nodes_per_device: int
) -> tuple[jax.Array, jax.Array]:
    """Compares replicas and collects counts in a single `pmax`.

    A bitwise complement reverses the order of integers, so the largest complement is that of the
    smallest value.

    Args:
      tree: as for `replica_agreement`.
      counts: (M,) int32 of at least 0, each set on one device at most.
      axis_name: name of the mapped axis.
      nodes_per_device: k.

    Returns:
      () float32 the agreement, and (M,) int32 the counts, on all devices.
    """
    leaves = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(tree)) if leaf.size]
    bits = [_as_int32(leaf, nodes_per_device) for leaf in leaves]
    rows = [leaf.reshape(nodes_per_device, -1) for leaf in bits]
    tops = [jnp.max(row, axis=0) for row in rows] + [jnp.max(~row, axis=0) for row in rows]
    if not tops and not counts.size:
        return jnp.float32(1), counts
    seen = jnp.concatenate([*tops, counts])
    seen = seen if axis_name is None else lax.pmax(seen, axis_name)
    size = sum(row.shape[1] for row in rows)
    high, low = seen[:size], ~seen[size : 2 * size]
    pieces = lax.split(high == low, [row.shape[1] for row in rows])
    same = sum(
        jnp.sum(jnp.all(piece.reshape(leaf.shape[1:]), axis=-1))
        for piece, leaf in zip(pieces, bits, strict=True)
    )
    total = sum(leaf.shape[1] for leaf in bits)
    agreement = jnp.asarray(same, jnp.float32) / total if total else jnp.float32(1)
    return agreement, seen[2 * size :]


def _as_int32(leaf: jax.Array, nodes_per_device: int) -> jax.Array:
    """(k, size, M) the bits of floats of any width, in M integers each."""
    if leaf.dtype.itemsize < 4:
        narrow = jnp.dtype(f"int{8 * leaf.dtype.itemsize}")
        bits = lax.bitcast_convert_type(leaf, narrow).astype(jnp.int32)
    else:
        bits = lax.bitcast_convert_type(leaf, jnp.int32)
    return bits.reshape(nodes_per_device, leaf.size // nodes_per_device, -1)
