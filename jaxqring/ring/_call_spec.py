"""The static description of one call of a collective, and the counters that it leaves."""

from typing import NamedTuple

import jax

from jaxqring.codes._coded_hop import Tally
from jaxqring.ring._axes import tracked
from jaxqring.ring._place import Place


class CallSpec(NamedTuple):
    """The static description of one call.

    Attributes:
      place: the mapped axis and the nodes on each device.
      reduce: whether there is a first half, of adding.
      gather: whether there is a second half, of passing on.
      replicated: whether the result must be known to `shard_map` as equal on all nodes.
      report: whether to count errors for a report.
      stream: two numbers that stand for the kind, the sizes and the structure of the call.
      keep_sent: whether to return the words that every hop sent, for the derivative.
    """

    place: Place
    reduce: bool
    gather: bool
    replicated: bool
    report: bool
    stream: tuple[int, int]
    keep_sent: bool = False

    @property
    def num_terms(self) -> int:
        """The number of levels that are added."""
        return self.place.num_nodes if self.reduce else 1

    @property
    def rounds(self) -> int:
        """The rounds of one half, N - 1."""
        return self.place.num_nodes - 1

    @property
    def rounds_of_adding(self) -> int:
        """The number of the first hop that only passes on: the rounds of the first half."""
        return self.rounds * self.reduce

    @property
    def num_hops(self) -> int:
        """The hops over each link."""
        return self.rounds * (self.reduce + self.gather)

    def first_chunk(self, nodes: jax.Array) -> jax.Array:
        """(k,) the chunk that each node sends first.

        Its own number; one lower where nothing is gathered, so that node i is left with part i.
        """
        return nodes if self.gather else nodes - 1

    @property
    def mends(self) -> bool:
        """True if codewords still undelivered while passing on come over the control channel."""
        return self.replicated and self.gather

    def ends_in_gather(self) -> bool:
        """True if the second half of the values is an `all_gather` that `shard_map` knows."""
        axis_name = self.place.axis_name
        return self.replicated and axis_name is not None and bool(tracked(axis_name))


class Counts(NamedTuple):
    """The counters of this device, uint32: (k,) each for its links, () for its values.

    Attributes:
      links: counters of its links.
      saturated: values that were clipped.
      non_finite: values that were not finite.
      vanished: values that are not zero and were sent as zero.
    """

    links: Tally
    saturated: jax.Array
    non_finite: jax.Array
    vanished: jax.Array
