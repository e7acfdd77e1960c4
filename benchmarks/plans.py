"""Plans of circuits over nodes, exact and local, beside Mt-KaHyPar.

Pairs and seconds on Fourier transforms, hardware-efficient and random circuits. Mt-KaHyPar gets the
same hypergraph, gates as vertices of weight 0, with the objective km1, its deterministic preset and
one thread; a node holds ceil(n / k) wires for all. The goal is to need no more pairs than it does.
Exact plans are for the small circuits; all plans are checked before anything is timed.
"""

import functools

import mtkahypar
from timing import medians, parser, report

from jaxqring.qmodels import circuit_hypergraph, plan_circuit, qft, random_gates, ry_cz_ring

#: Circuits of so many two-qubit gates have an exact plan in seconds.
EXACT_GATES = 36


def circuits(largest):
    """Name, circuit and number of nodes, up to a number of qubits."""
    found = [(f"QFT-{n}", qft(n), k) for n, k in ((6, 2), (8, 2), (6, 3), (9, 3), (8, 4))]
    found += [(f"ring-{n}", ry_cz_ring(n, 4), k) for n, k in ((8, 2), (8, 4), (16, 4))]
    found += [(f"QFT-{n}", qft(n), 4) for n in (16, 32)]
    for n, gates, nodes in ((8, 24, 3), (16, 100, 4), (32, 400, 4)):
        for seed in range(2):
            random = random_gates(n, gates, turn=0.3, seed=seed)
            found.append((f"random-{n}-{seed}", random, nodes))
    return [row for row in found if row[1].qubits <= largest]


def rival(library, circuit, nodes):
    """Pairs of Mt-KaHyPar's partition, counted by itself."""
    graph = circuit_hypergraph(circuit)
    capacity = -(-graph.wires // nodes)
    mtkahypar.set_seed(0)
    context = library.context_from_preset(mtkahypar.PresetType.DETERMINISTIC)
    slack = nodes * capacity / graph.wires - 1
    context.set_partitioning_parameters(nodes, slack, mtkahypar.Objective.KM1)
    context.set_individual_target_block_weights([capacity] * nodes)
    context.logging = False
    edges, weights = graph.edges(), graph.weights()
    whole = library.create_hypergraph(
        context, len(weights), len(edges), edges, weights, [1] * len(edges)
    )
    found = whole.partition(context)
    assert all(found.block_weight(node) <= capacity for node in range(nodes))
    return found.km1()


def main():
    options = parser(__doc__)
    options.add_argument("--largest", type=int, default=32, help="number of qubits")
    options.set_defaults(repeats=3)
    options = options.parse_args()
    library = mtkahypar.initialize(1, False)
    rows = []
    for name, circuit, nodes in circuits(options.largest):
        runs = {"rival": functools.partial(rival, library, circuit, nodes)}
        methods = ["local"]
        if len(circuit.two_qubit_gates) <= EXACT_GATES:
            methods.append("exact")
        for method in methods:
            runs[method] = functools.partial(plan_circuit, circuit, nodes, method=method)
        pairs = {method: runs[method]() for method in methods}
        assert "exact" not in pairs or pairs["exact"].proven
        timed = {name: (lambda run=run: run() and None) for name, run in runs.items()}
        seconds = medians(timed, options.repeats)
        rows.append(
            [
                f"{name}, {nodes} nodes",
                len(circuit.two_qubit_gates),
                pairs["exact"].ebits if "exact" in pairs else "-",
                pairs["local"].ebits,
                runs["rival"](),
                seconds.get("exact", "-"),
                seconds["local"],
                seconds["rival"],
            ]
        )
    columns = ["circuit", "gates", "exact", "local", "Mt-KaHyPar"]
    columns += ["exact, s", "local, s", "Mt-KaHyPar, s"]
    report("plans", columns, rows, options)


if __name__ == "__main__":
    main()
