"""The report of one step of a compressor."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxqring._shown import Panel, Shown, first_entry, in_short
from jaxqring._types import PyTree
from jaxqring.ring import Report
from jaxqring.secure import SecureReport
from jaxqring.secure._secure_report import choose


@struct.dataclass(repr=False)
class CompressReport(Shown):
    """Counters of one step of a compressor; the same on every node.

    It prints as the view of one node, like a `Report`, with a row for each collective.

    Attributes:
      calls: the reports of its collectives in their order, `SecureReport`s under masks.
      out_of_range: () uint32 sums, votes and places that no codes give, on all nodes: errors of
        links made them. A sum counts as the nearest possible one, a value without a place is lost.
      lost_leaves: () uint32 leaves with a value that was not finite on some node, as put in or
        with an error added. They are delivered as NaN on all nodes, and the state stays as it was.
      aborted: () bool, True if a collective under masks was given up: then NaN is delivered, and
        the state stays as it was.
      replica_agreement: () float32 fraction of the delivered coordinates whose bits are the same on
        all nodes.
      control_bits: classical bits per link for what the nodes agreed on.
    """

    calls: tuple[Report | SecureReport, ...]
    out_of_range: jax.Array
    lost_leaves: jax.Array
    aborted: jax.Array
    replica_agreement: jax.Array
    control_bits: int = struct.field(pytree_node=False)

    def _panels(self) -> list[Panel]:
        own, remark = first_entry(self, "aborted")
        title = "CompressReport: " + ("aborted, " if own.aborted else "")
        title += f"replicas agree {own.replica_agreement:.4g}{remark}"
        meanings = {
            "out_of_range": "sums and places that no codes give",
            "lost_leaves": "leaves with a value not finite",
            "control_bits": "classical, over each link",
        }
        rows = [(name, in_short(getattr(own, name)), text) for name, text in meanings.items()]
        calls = [
            [str(place), *map(in_short, (ring.symbols_sent, wrong, ring.online_qubits))]
            for place, ring in enumerate(own.rings)
            for wrong in [ring.errors_per_link.sum()]
        ]
        head = ("collective", "symbols", "wrong", "online qubits")
        return [Panel(title, rows), Panel("Over all links", calls, head)]

    @property
    def rings(self) -> tuple[Report, ...]:
        """The reports of the links, of the collectives in their order."""
        return tuple(each.ring if isinstance(each, SecureReport) else each for each in self.calls)

    def _total(self, name: str) -> jax.Array:
        values = jnp.stack([getattr(each, name) for each in self.rings])
        return jnp.sum(values, axis=0, dtype=values.dtype)

    @property
    def symbols_per_link(self) -> int:
        """Symbols of payload sent over each link."""
        return sum(each.symbols_per_link for each in self.rings)

    @property
    def symbol_errors(self) -> jax.Array:
        """() uint32 symbol errors on all links."""
        return self._total("symbol_errors")

    @property
    def retransmissions(self) -> jax.Array:
        """() uint32 codewords sent again on all links."""
        return self._total("retransmissions")

    @property
    def undelivered(self) -> jax.Array:
        """() uint32 codewords that stayed wrong, on all links."""
        return self._total("undelivered")

    @property
    def online_qubits(self) -> jax.Array:
        """() float32 qubits sent over all links, repetitions included."""
        return self._total("online_qubits")

    @property
    def repeated_qubits(self) -> jax.Array:
        """() float32 of those, the ones of codewords sent again."""
        return self._total("repeated_qubits")

    @property
    def saturated(self) -> jax.Array:
        """() uint32 codes that were clipped on the wire, on all nodes; zero without a fault."""
        return self._total("saturated")

    def keep(self, new: PyTree, old: PyTree) -> PyTree:
        """`old` where a collective was aborted, else `new`; pytrees of the same structure."""
        return choose(self.aborted, old, new)
