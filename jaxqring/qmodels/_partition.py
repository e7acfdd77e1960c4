"""A partition of a circuit's wires and gates into nodes: what both searches are about."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxqring.qmodels._hypergraph import Hypergraph


class Partition(NamedTuple):
    """The nodes of wires and gates.

    Attributes:
      wires: the node of each wire.
      gates: the node of each gate of a `Problem`.
    """

    wires: list[int]
    gates: list[int]


@dataclass(frozen=True)
class Problem:
    """Wires, runs and gates as integers.

    Attributes:
      wires: number of wires.
      runs: the wire of each run.
      gates: the two runs of each gate; gates of the same two runs are one.
      nodes: number of nodes.
      capacity: most wires of a node.
      own_nodes: True if a gate is at the node of one of its wires.
      placement: the node of each wire if that is given, else None.
    """

    wires: int
    runs: list[int]
    gates: list[tuple[int, int]]
    nodes: int
    capacity: int
    own_nodes: bool
    placement: tuple[int, ...] | None

    def pairs(self, partition: Partition) -> int:
        """The number of pairs of a partition."""
        copies = set()
        for pair, node in zip(self.gates, partition.gates, strict=True):
            copies |= {(run, node) for run in pair if partition.wires[self.runs[run]] != node}
        return len(copies)


def problem_of(
    graph: Hypergraph,
    nodes: int,
    capacity: int,
    placement: tuple[int, ...] | None = None,
    own_nodes: bool = False,
) -> Problem:
    """The problem of partitioning a hypergraph."""
    runs = [run.wire for run in graph.runs]
    gates = sorted(set(graph.runs_of_gates()))
    return Problem(graph.wires, runs, gates, nodes, capacity, own_nodes, placement)
