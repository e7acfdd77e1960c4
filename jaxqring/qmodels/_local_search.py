"""A cheap partition of a circuit's hypergraph, by simulated annealing.

A step moves one wire to another node, or swaps two, and puts each of their gates where it costs
the fewest pairs at the moment; then it does without some of the copies, one after another, and puts
the gates of each elsewhere. A change that costs d pairs more is kept with probability exp(-d / T),
while T falls. Wires and copies move with their gates because one that moved alone, or one gate of
several, would nearly always cost more.
"""

import math

import numpy as np

from jaxqring.qmodels._partition import Partition, Problem

#: Starts from random partitions, steps of each for every wire, and copies dropped after a step.
STARTS, STEPS, DROPS = 8, 150, 4
#: T at the first and at the last step, in pairs.
HOT, COLD = 0.7, 0.2


class _Search:
    """A partition and its number of pairs, changed in place."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self.problem = problem
        self.rng = rng
        self.drawn: list[float] = []
        self.runs_of: list[list[int]] = [[] for _ in range(problem.wires)]
        for run, wire in enumerate(problem.runs):
            self.runs_of[wire].append(run)
        self.gates_of: list[list[int]] = [[] for _ in problem.runs]
        for gate, pair in enumerate(problem.gates):
            for run in pair:
                self.gates_of[run].append(gate)
        # The nodes, as many times as they have places, in random order.
        places = rng.permutation(np.repeat(np.arange(problem.nodes), problem.capacity))
        self.home = list(problem.placement or places[: problem.wires].tolist())
        self.load = [self.home.count(node) for node in range(problem.nodes)]
        # How many gates of a run, and its wire, are on each node.
        self.count = [[0] * problem.nodes for _ in problem.runs]
        for run, wire in enumerate(problem.runs):
            self.count[run][self.home[wire]] = 1
        self.node = [0] * len(problem.gates)
        self.pairs = 0
        for gate in rng.permutation(len(problem.gates)).tolist():
            self.put(gate, self.best(gate))

    def uniform(self) -> float:
        """A random number in [0, 1), of many drawn at once."""
        if not self.drawn:
            self.drawn = self.rng.random(4096).tolist()
        return self.drawn.pop()

    def allowed(self, gate: int) -> tuple[int, ...] | range:
        """The nodes at which a gate may be."""
        if not self.problem.own_nodes:
            return range(self.problem.nodes)
        first, second = self.problem.gates[gate]
        return self.home[self.problem.runs[first]], self.home[self.problem.runs[second]]

    def best(self, gate: int, but: int | None = None) -> int:
        """A node, but one, where a gate that is nowhere costs the fewest pairs; random if equal."""
        first, second = (self.count[run] for run in self.problem.gates[gate])
        return min(
            ((first[node] == 0) + (second[node] == 0), self.uniform(), node)
            for node in self.allowed(gate)
            if node != but
        )[2]

    def put(self, gate: int, node: int) -> None:
        """Puts a gate on a node."""
        self.node[gate] = node
        for run in self.problem.gates[gate]:
            self.pairs += self.count[run][node] == 0
            self.count[run][node] += 1

    def take(self, gate: int) -> int:
        """Takes a gate off its node, which is returned."""
        node = self.node[gate]
        for run in self.problem.gates[gate]:
            self.count[run][node] -= 1
            self.pairs -= self.count[run][node] == 0
        return node

    def rehome(self, wire: int, node: int) -> None:
        """Moves a wire, whose gates are nowhere."""
        before, self.home[wire] = self.home[wire], node
        self.load[before] -= 1
        self.load[node] += 1
        for run in self.runs_of[wire]:
            self.count[run][before] -= 1
            self.count[run][node] += 1

    def accepts(self, before: int, temperature: float) -> bool:
        """True if the change since there were `before` pairs is kept."""
        worse = self.pairs - before
        return worse <= 0 or self.uniform() < math.exp(-worse / temperature)

    def move_wires(self, temperature: float) -> None:
        """Tries to move a wire, or to swap two, with their gates."""
        wire = int(self.uniform() * self.problem.wires)
        other = int(self.uniform() * (self.problem.wires + self.problem.nodes))
        homes = {wire: self.home[wire]}
        if other < self.problem.wires:
            node, homes[other] = self.home[other], self.home[other]
        else:
            node = other - self.problem.wires
            if self.load[node] >= self.problem.capacity:
                return
        if node == homes[wire]:
            return
        before = self.pairs
        runs = [run for each in homes for run in self.runs_of[each]]
        gates = list(dict.fromkeys(gate for run in runs for gate in self.gates_of[run]))
        nodes = [self.take(gate) for gate in gates]
        for each, there in zip(homes, (node, homes[wire]), strict=False):
            self.rehome(each, there)
        for gate in gates:
            self.put(gate, self.best(gate))
        if not self.accepts(before, temperature):
            for gate in gates:
                self.take(gate)
            for each, there in homes.items():
                self.rehome(each, there)
            for gate, there in zip(gates, nodes, strict=True):
                self.put(gate, there)

    def drop_copy(self, temperature: float) -> None:
        """Tries to do without the copy of a random run on a random node, if there is one."""
        run = int(self.uniform() * len(self.problem.runs))
        home = self.home[self.problem.runs[run]]
        copies = [node for node, count in enumerate(self.count[run]) if count and node != home]
        if not copies:
            return
        there = copies[int(self.uniform() * len(copies))]
        gates = [gate for gate in self.gates_of[run] if self.node[gate] == there]
        before = self.pairs
        for gate in gates:
            self.take(gate)
        for gate in gates:
            self.put(gate, self.best(gate, but=there))
        if not self.accepts(before, temperature):
            for gate in gates:
                self.take(gate)
            for gate in gates:
                self.put(gate, there)


def anneal(problem: Problem, seed: int) -> Partition:
    """The best partition seen in several runs of simulated annealing.

    Args:
      problem: the hypergraph and the nodes.
      seed: of all that is random.
    """
    seen = math.inf
    for rng in np.random.default_rng(seed).spawn(STARTS):
        search = _Search(problem, rng)
        if search.pairs < seen:
            seen, best = search.pairs, Partition(list(search.home), list(search.node))
        steps = STEPS * problem.wires if seen else 0
        for step in range(steps):
            temperature = HOT * (COLD / HOT) ** (step / steps)
            if problem.placement is None:
                search.move_wires(temperature)
            for _ in range(DROPS):
                search.drop_copy(temperature)
            if search.pairs < seen:
                seen, best = search.pairs, Partition(list(search.home), list(search.node))
    return best
