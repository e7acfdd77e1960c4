"""The report of a secure collective, and the branch that undoes an aborted one."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxqring._shown import Panel, Shown, first_entry, in_short
from jaxqring._types import PyTree
from jaxqring._varying import mapped_alike
from jaxqring.ring._report import Report


@struct.dataclass(repr=False)
class SecureReport(Shown):
    """Counters of one secure collective; the same on every node.

    It prints as the view of one node, like a `Report`.

    Attributes:
      ring: the report of the links.
      aborted: () bool, True if the collective was given up; then the result is NaN.
      attempts: () int32 verifications made.
      failures: () int32 tests that failed in the last one.
      copies: () float32 GHZ copies used by all attempts, each of `wire.bits` qubit states.
      restarts: () int32 attempts that ended because nodes vanished.
      survivors: () int32 nodes whose data are in the sum.
      wrong_sums: () uint32 coordinates whose masks did not add up to zero.
      uncorrected: () uint32 coordinates for which they still do not, after correction.
    """

    ring: Report
    aborted: jax.Array
    attempts: jax.Array
    failures: jax.Array
    copies: jax.Array
    restarts: jax.Array
    survivors: jax.Array
    wrong_sums: jax.Array
    uncorrected: jax.Array

    def _panels(self) -> list[Panel]:
        own, remark = first_entry(self, "aborted")
        meanings = {
            "attempts": "verifications made",
            "failures": "tests failed in the last one",
            "copies": "GHZ copies used",
            "restarts": "attempts ended because nodes vanished",
            "survivors": "nodes whose data are in the sum",
            "wrong_sums": "coordinates whose masks did not cancel",
            "uncorrected": "of them after correction",
        }
        rows = [(name, in_short(getattr(own, name)), text) for name, text in meanings.items()]
        title = "SecureReport: " + ("aborted, the result is NaN" if own.aborted else "not aborted")
        return [Panel(title + remark, rows), *self.ring._panels()]

    def keep(self, new: PyTree, old: PyTree) -> PyTree:
        """`old` where the collective was aborted, else `new`; pytrees of the same structure."""
        return choose(self.aborted, old, new)


def choose(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where the condition is true, else `no`.

    By a branch and not by `where`, which XLA would fuse into what comes before and after, and with
    it compute an optimizer's update with other roundings than without masks.
    """
    left, right = (
        jax.tree.map(lambda a, b, i=i: mapped_alike(jnp.asarray(a), jnp.asarray(b))[i], yes, no)
        for i in (0, 1)
    )
    return lax.cond(condition, lambda: left, lambda: right)
