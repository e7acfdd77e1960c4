"""The hypergraph of a circuit: its cuts count the entangled pairs that nodes need.

One vertex of weight 1 for each wire and one of weight 0 for each two-qubit gate. A run is a maximal
sequence of two-qubit gates of one wire without a one-qubit gate between them that is not diagonal:
one copy of the wire, entangled with it and sent to another node, serves all gates of the run there.
The hyperedge of a run joins its wire and its gates; a partition into nodes needs one pair for each
further node that a hyperedge touches.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxqring import _checks as checks
from jaxqring.qmodels._gates import GateList


class Run(NamedTuple):
    """Two-qubit gates of one wire that one copy of it can serve.

    Attributes:
      wire: the qubit.
      gates: their places in the list of gates.
    """

    wire: int
    gates: tuple[int, ...]


@dataclass(frozen=True)
class Hypergraph:
    """A circuit as a partitioner sees it.

    Attributes:
      wires: number of wires; wire w is vertex w, of weight 1.
      gates: places of the two-qubit gates in the list; the i-th is vertex `wires` + i, of weight 0.
      runs: the hyperedges.
    """

    wires: int
    gates: tuple[int, ...]
    runs: tuple[Run, ...]

    def edges(self) -> list[list[int]]:
        """The vertices of each hyperedge, the wire first."""
        vertex = {gate: self.wires + at for at, gate in enumerate(self.gates)}
        return [[run.wire, *(vertex[gate] for gate in run.gates)] for run in self.runs]

    def weights(self) -> list[int]:
        """The weight of each vertex."""
        return [1] * self.wires + [0] * len(self.gates)

    def runs_of_gates(self) -> list[tuple[int, int]]:
        """The two runs of each gate of `gates`, by their places in `runs`."""
        found: dict[int, list[int]] = {gate: [] for gate in self.gates}
        for at, run in enumerate(self.runs):
            for gate in run.gates:
                found[gate].append(at)
        return [(found[gate][0], found[gate][1]) for gate in self.gates]


def circuit_hypergraph(circuit: GateList, *, reuse: bool = True) -> Hypergraph:
    """Builds the hypergraph of a circuit.

    Args:
      circuit: the gates.
      reuse: True for runs as long as they can be; False for runs of one gate each, so that every
        remote gate has a pair of its own.

    Returns:
      The hypergraph, its runs in the order of their first gates.

    Raises:
      TypeError: if `circuit` is not a GateList.

    Reference: Andres-Martinez and Heunen, Phys. Rev. A 100, 032308 (2019), arXiv:1811.10972.

    >>> from jaxqring.qmodels import qft
    >>> circuit_hypergraph(qft(3)).runs
    (Run(wire=0, gates=(1, 2)), Run(wire=1, gates=(1,)), Run(wire=2, gates=(2, 4)),
     Run(wire=1, gates=(4,)))
    """
    checks.instance("circuit", circuit, GateList)
    runs: list[tuple[int, list[int]]] = []
    current: list[list[int] | None] = [None] * circuit.qubits
    for at, gate in enumerate(circuit.gates):
        for wire in gate.qubits:
            if len(gate.qubits) == 1:
                if not gate.diagonal:
                    current[wire] = None
                continue
            run = current[wire]
            if run is None or not reuse:
                run = current[wire] = []
                runs.append((wire, run))
            run.append(at)
    return Hypergraph(
        circuit.qubits,
        circuit.two_qubit_gates,
        tuple(Run(wire, tuple(gates)) for wire, gates in runs),
    )
