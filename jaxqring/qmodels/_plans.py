"""Plans of circuits that are spread over nodes, with as few entangled pairs as possible.

A controlled phase between wires of two nodes is made on one node, on copies of the wires that have
their home elsewhere: a shared pair, a bit there and a bit back make such a copy and undo it. One
copy serves a whole run of gates (see `_hypergraph`), and with three nodes or more a gate may be at
a third.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from jaxqring import _checks as checks
from jaxqring.qmodels._gates import GateList
from jaxqring.qmodels._hypergraph import Hypergraph, circuit_hypergraph
from jaxqring.qmodels._integer_program import search_below
from jaxqring.qmodels._local_search import anneal
from jaxqring.qmodels._partition import problem_of

#: The search for a plan: proven optimal, or quick.
PlanMethod: TypeAlias = Literal["exact", "local"]


class CatCopy(NamedTuple):
    """A copy of a wire on another node, entangled with it: one pair, a bit there, a bit back.

    Attributes:
      wire: the qubit.
      node: where the copy is.
      gates: places of the gates that it serves in the list.
      birth, death: moments of the first and of the last of them.
    """

    wire: int
    node: int
    gates: tuple[int, ...]
    birth: int
    death: int


@dataclass(frozen=True)
class CircuitPlan:
    """A circuit on nodes.

    Attributes:
      circuit: the gates.
      nodes: number of nodes.
      placement: the node of each wire.
      gate_nodes: the node of each gate.
      copies: in the order of their first gates.
      proven: True if no plan under the same rules has fewer copies.
    """

    circuit: GateList
    nodes: int
    placement: tuple[int, ...]
    gate_nodes: tuple[int, ...]
    copies: tuple[CatCopy, ...]
    proven: bool

    @property
    def ebits(self) -> int:
        """The number of pairs: one for each copy."""
        return len(self.copies)

    @property
    def classical_bits(self) -> int:
        """The number of bits between nodes: one there and one back for each copy."""
        return 2 * len(self.copies)

    @property
    def link_qubits(self) -> tuple[int, ...]:
        """The most qubits beside the wires that each node holds at one moment.

        These are a copy on its node from birth to death, and half a pair at its wire's home at
        birth.
        """
        held: dict[tuple[int, int], int] = {}
        for copy in self.copies:
            home = self.placement[copy.wire]
            times = [(copy.node, now) for now in range(copy.birth, copy.death + 1)]
            for key in [*times, (home, copy.birth)]:
                held[key] = held.get(key, 0) + 1
        return tuple(
            max((count for (at, _), count in held.items() if at == node), default=0)
            for node in range(self.nodes)
        )


def plan_circuit(
    circuit: GateList,
    nodes: int,
    *,
    method: PlanMethod = "exact",
    capacity: int | None = None,
    placement: Sequence[int] | None = None,
    own_nodes: bool = False,
    reuse: bool = True,
    seed: int = 0,
    time_limit: float | None = None,
) -> CircuitPlan:
    """Plans a circuit over nodes with the fewest pairs.

    Args:
      circuit: the gates.
      nodes: number of nodes, k.
      method: "local" for simulated annealing; "exact" for annealing and then an integer program,
        which finds a better plan or proves that there is none: seconds for some 30 two-qubit gates.
      capacity: most wires of a node; None for ceil(n / k).
      placement: the node of each wire, where that is given and only gates are to be planned; their
        number on a node is then not limited.
      own_nodes: True if every two-qubit gate must be at the node of one of its wires.
      reuse: False if a copy may serve one gate only: every remote gate has its own pair.
      seed: of the annealing.
      time_limit: seconds after which the integer program ends; the plan is then perhaps not the
        best, and not `proven`. None for no limit.

    Returns:
      The plan.

    Raises:
      TypeError: if `circuit` is not a GateList, or `time_limit` not real.
      ValueError: if an argument is out of range, or the nodes have not enough places for the wires.

    The paper partitions the hypergraph by heuristics; the integer program, the annealing and gates
    on a third node as a choice (its hypergraph allows them) are ours.

    Reference: Andres-Martinez and Heunen, Phys. Rev. A 100, 032308 (2019), arXiv:1811.10972.

    >>> from jaxqring.qmodels import qft
    >>> plan = plan_circuit(qft(6), 2)
    >>> plan.ebits, plan.classical_bits, plan.proven
    (3, 6, True)
    >>> plan_circuit(qft(6), 2, reuse=False).ebits
    9
    """
    checks.instance("circuit", circuit, GateList)
    checks.integer("nodes", nodes)
    checks.one_of("method", method, get_args(PlanMethod))
    checks.integer("seed", seed, 0)
    if time_limit is not None:
        checks.within("time_limit", time_limit, 0.0, float("inf"))
    graph = circuit_hypergraph(circuit, reuse=reuse)
    places = _places(circuit.qubits, nodes, capacity, placement)
    problem = problem_of(graph, nodes, *places, own_nodes)
    partition = anneal(problem, seed)
    pairs = problem.pairs(partition)
    proven = pairs == 0
    if method == "exact" and not proven:
        better, proven = search_below(problem, pairs, time_limit)
        partition = partition if better is None else better
    of_runs = dict(zip(problem.gates, partition.gates, strict=True))
    at = {gate: of_runs[two] for gate, two in zip(graph.gates, graph.runs_of_gates(), strict=True)}
    gate_nodes = tuple(
        at.get(place, partition.wires[gate.qubits[0]]) for place, gate in enumerate(circuit.gates)
    )
    copies = _copies(circuit, graph, partition.wires, gate_nodes)
    return CircuitPlan(circuit, nodes, tuple(partition.wires), gate_nodes, copies, proven)


def _places(
    wires: int, nodes: int, capacity: int | None, placement: Sequence[int] | None
) -> tuple[int, tuple[int, ...] | None]:
    """The capacity of a node and the placement, if it is given."""
    if placement is not None:
        given = tuple(placement)
        if len(given) != wires or not all(
            isinstance(node, int | np.integer) and 0 <= node < nodes for node in given
        ):
            rule = f"be {wires} integers in [0, {nodes - 1}], one for each wire"
            checks.refuse("placement", rule, given)
        if capacity is not None:
            checks.refuse("capacity", "be None if `placement` is given", capacity)
        return wires, tuple(int(node) for node in given)
    capacity = checks.integer("capacity", -(-wires // nodes) if capacity is None else capacity)
    if nodes * capacity < wires:
        checks.refuse("capacity", f"give {nodes} nodes at least {wires} places", capacity)
    return capacity, None


def _copies(
    circuit: GateList, graph: Hypergraph, homes: Sequence[int], gate_nodes: Sequence[int]
) -> tuple[CatCopy, ...]:
    """The copies that gates on their nodes need, in the order of their first gates."""
    moments = circuit.moments()
    found = []
    for wire, gates in graph.runs:
        for node in {gate_nodes[gate] for gate in gates} - {homes[wire]}:
            served = tuple(gate for gate in gates if gate_nodes[gate] == node)
            found.append(CatCopy(wire, node, served, moments[served[0]], moments[served[-1]]))
    return tuple(sorted(found, key=lambda copy: (copy.gates, copy.wire)))
