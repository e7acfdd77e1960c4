"""The report of one robust mean."""

import jax
from flax import struct

from jaxqring._shown import Panel, Shown, first_entry, in_short
from jaxqring.ring import Report
from jaxqring.secure import SecureReport


@struct.dataclass(repr=False)
class RobustReport(Shown):
    """Counters of one robust mean; the same on every node, but for `clipped` over noisy links.

    It prints as the view of one node, like a `Report`.

    Attributes:
      clipped: () float32 share that the rule clipped or left out; see `Aggregate.clipped`.
      unusable: () uint32 vectors, or means of groups, that had a number that is not finite or lies
        beyond 2^120, or that were given up under masks. They count as zero vectors.
      garbled: () uint32 vectors, or parts of them, that errors of links have made unusable on their
        way, on all nodes; they count as zero there. Zero on a FixedPoint wire.
      replica_agreement: () float32 fraction of the coordinates whose bits are the same on all
        nodes.
      ring: the report of the ring of all nodes: of the gathering of vectors or of means of groups,
        or of both halves of the butterfly (the first as an `all_gather`, see `robust_pmean`).
      groups: the reports of the rings in the groups, with a leading axis of groups; None without
        groups.
      residual: (N,) float32 for each part of the butterfly the sum of `clipped_projections`, zero
        at the fixed point of clipping; None without one.
    """

    clipped: jax.Array
    unusable: jax.Array
    garbled: jax.Array
    replica_agreement: jax.Array
    ring: Report
    groups: Report | SecureReport | None = None
    residual: jax.Array | None = None

    def _panels(self) -> list[Panel]:
        own, remark = first_entry(self, "unusable")
        title = f"RobustReport: replicas agree {own.replica_agreement:.4g}{remark}"
        meanings = {
            "clipped": "of what came in, clipped or left out",
            "unusable": "vectors that count as zero",
            "garbled": "arrivals that count as zero, of all nodes",
        }
        rows = [(name, in_short(getattr(own, name)), text) for name, text in meanings.items()]
        if own.residual is not None:
            rows.append(("residual", in_short(abs(own.residual).max()), "of the worst part"))
        panels = [Panel(title, rows)]
        if own.groups is not None:
            inner = own.groups
            if isinstance(inner, SecureReport):
                given_up, inner = inner.aborted.sum(), inner.ring
                rows.append(("aborted", in_short(given_up), "groups given up under masks"))
            cells = [
                (in_short(group), in_short(inner.num_links * inner.symbols_per_link), in_short(bad))
                for group, bad in enumerate(inner.errors_per_link.sum(axis=-1))
            ]
            panels.append(Panel("Group by group", cells, ("group", "symbols", "wrong")))
        return [*panels, *own.ring._panels()]
