"""The cheapest partition of a circuit's hypergraph, as an integer program for SciPy's HiGHS.

Binary x[w, b] places wire w on node b and z[g, b] gate g; y[r, b] >= x[w_r, b] and
y[r, b] >= z[g, b] for the gates g of run r. The rows of x and of z sum to one, a node holds at most
`capacity` wires, and the sum of y less the number of runs is the number of pairs.

Three things of ours make it smaller and change no optimum: gates of the same two runs are one gate;
a gate alone in one of its runs is at the home of that run's wire, since moving it there saves a
pair and costs one at most; nodes are numbered in the order of their first wires, as all are alike.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from jaxqring.qmodels._partition import Partition, Problem


class Solution(NamedTuple):
    """The outcome of a search below a bound.

    Attributes:
      partition: the cheapest one below the bound, or None if none was found.
      proven: True if nothing cheaper than `partition`, or below the bound, exists.
    """

    partition: Partition | None
    proven: bool


class _Rows:
    """Linear constraints low <= sum of coefficient x variable <= high, one after the other."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, float]] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, plus: list[int], minus: list[int], low: float, high: float) -> None:
        row = len(self.low)
        self.entries += [(row, at, 1.0) for at in plus] + [(row, at, -1.0) for at in minus]
        self.low.append(low)
        self.high.append(high)

    def constraint(self, variables: int) -> LinearConstraint:
        rows, columns, values = zip(*self.entries, strict=True)
        shape = (len(self.low), variables)
        matrix = sparse.csr_array((values, (rows, columns)), shape=shape)
        return LinearConstraint(matrix, self.low, self.high)


class _Variables:
    """The columns of x, z and y, as arrays of indices; z of some gates is x of a wire."""

    def __init__(self, problem: Problem) -> None:
        wires, nodes = problem.wires, problem.nodes
        self.x = np.arange(wires * nodes).reshape(wires, nodes)
        self.count = self.x.size
        gates_of_run = np.bincount(np.array(problem.gates).ravel(), minlength=len(problem.runs))
        self.z = np.empty((len(problem.gates), nodes), int)
        self.free = np.zeros(len(problem.gates), bool)
        for at, pair in enumerate(problem.gates):
            alone = [run for run in pair if gates_of_run[run] == 1]
            self.z[at] = self.x[problem.runs[alone[0]]] if alone else self._new(nodes)
            self.free[at] = not alone
        self.integers = self.count  # y takes integer values by itself
        self.y = np.stack([self._new(nodes) for _ in problem.runs])

    def _new(self, nodes: int) -> np.ndarray:
        self.count += nodes
        return np.arange(self.count - nodes, self.count)


def _placement_rows(rows: _Rows, problem: Problem, x: np.ndarray) -> None:
    """Every wire on one node, no node with too many, nodes in the order of their first wires."""
    wires, nodes = x.shape
    if problem.placement is not None:
        for wire, node in enumerate(problem.placement):
            rows.add([x[wire, node]], [], 1, 1)
            rows.add(list(np.delete(x[wire], node)), [], 0, 0)
        return
    for wire in range(wires):
        rows.add(list(x[wire]), [], 1, 1)
        for node in range(1, nodes):
            if node > wire:
                rows.add([x[wire, node]], [], 0, 0)
            else:
                rows.add([x[wire, node]], list(x[node - 1 : wire, node - 1]), -np.inf, 0)
    for node in range(nodes):
        rows.add(list(x[:, node]), [], 0, problem.capacity)


def _gate_rows(rows: _Rows, problem: Problem, of: _Variables) -> None:
    """Every gate on one node, where both of its wires are or have a copy."""
    for at, wire in enumerate(problem.runs):
        for node in range(problem.nodes):
            rows.add([of.y[at, node]], [of.x[wire, node]], 0, np.inf)
    for at, pair in enumerate(problem.gates):
        if of.free[at]:
            rows.add(list(of.z[at]), [], 1, 1)
        homes = [of.x[problem.runs[run]] for run in pair]
        for node in range(problem.nodes):
            if problem.own_nodes and of.free[at]:
                rows.add([of.z[at, node]], [home[node] for home in homes], -np.inf, 0)
            for run, home in zip(pair, homes, strict=True):
                if of.z[at, node] != home[node]:
                    rows.add([of.y[run, node]], [of.z[at, node]], 0, np.inf)


def search_below(problem: Problem, bound: int, time_limit: float | None) -> Solution:
    """The cheapest partition with fewer than `bound` pairs, by branch and bound.

    Args:
      problem: the hypergraph and the nodes.
      bound: number of pairs that is known to be enough.
      time_limit: seconds after which the search ends, or None.

    Raises:
      RuntimeError: if HiGHS ends in another way than with a proof or at the limit.
    """
    of, rows = _Variables(problem), _Rows()
    _placement_rows(rows, problem, of.x)
    _gate_rows(rows, problem, of)
    rows.add(list(of.y.ravel()), [], 0, len(problem.runs) + bound - 1)
    found = milp(
        np.arange(of.count) >= of.integers,
        integrality=np.arange(of.count) < of.integers,
        bounds=Bounds(0, 1),
        constraints=rows.constraint(of.count),
        options={} if time_limit is None else {"time_limit": time_limit},
    )
    if found.status not in (0, 1, 2):
        raise RuntimeError(f"HiGHS gave up: {found.message}")
    if found.x is None:
        return Solution(None, found.status == 2)
    node = [np.argmax(found.x[at], axis=1).tolist() for at in (of.x, of.z)]
    return Solution(Partition(*node), found.status == 0)
