"""What is static about one call of a collective, and what one call leaves behind."""

from typing import NamedTuple

import jax

from jaxqring.codes._coded_hop import Tally
from jaxqring.ring._axes import tracked
from jaxqring.ring._travel import Place


class Plan(NamedTuple):
    """What is static about one call.

    Attributes:
      place: the mapped axis and the nodes on each device.
      reduce: whether there is a first half, of adding.
      gather: whether there is a second half, of passing on.
      replicated: whether the result must be known to `shard_map` as equal on all nodes.
      report: whether to count errors for a report.
      stream: two numbers that stand for the kind, the sizes and the structure of the call.
      keep_codes: whether to hand out what every hop sent, for the derivative.
    """

    place: Place
    reduce: bool
    gather: bool
    replicated: bool
    report: bool
    stream: tuple[int, int]
    keep_codes: bool = False

    @property
    def num_terms(self) -> int:
        """How many codes are added."""
        return self.place.num_nodes if self.reduce else 1

    def first(self, nodes: jax.Array) -> jax.Array:
        """(k,) the chunk that each node sends first.

        Its own number; one lower where nothing is gathered, so that node i is left with part i.
        """
        return nodes if self.gather else nodes - 1

    @property
    def mends(self) -> bool:
        """Whether what no attempt delivers in the second half comes over the control channel."""
        return self.replicated and self.gather

    def ends_in_gather(self) -> bool:
        """Whether the second half of the values is an `all_gather` that `shard_map` knows."""
        return self.replicated and bool(tracked(self.place.axis_name))


class Counts(NamedTuple):
    """What this device saw, uint32: on its links, each (k,); () of its values the others.

    Attributes:
      links: what happened on its links.
      saturated: values that were clipped.
      non_finite: values that were not finite.
      vanished: values that are not zero and were sent as zero.
    """

    links: Tally
    saturated: jax.Array
    non_finite: jax.Array
    vanished: jax.Array
