"""Plans against enumeration, against matchings for two nodes, and proven values."""

import itertools

import numpy as np
import physical_nodes as nodes
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from jaxqring._tensorcircuit import tensorcircuit_module
from jaxqring.qmodels import (
    CatCopy,
    GateList,
    _local_search,
    circuit_hypergraph,
    gates_from_tensorcircuit,
    plan_circuit,
    qft,
    random_gates,
    ry_cz_ring,
)
from jaxqring.qmodels._integer_program import search_below
from jaxqring.qmodels._partition import problem_of

TRIANGLE = GateList(3, (("cz", (0, 1)), ("cz", (0, 2)), ("cz", (1, 2))))


@pytest.fixture(autouse=True)
def hasty(request, monkeypatch):
    """One start of the annealing, except where its plans are the subject: proofs need no more."""
    if "local" not in request.node.name:
        monkeypatch.setattr(_local_search, "STARTS", 1)


def labels(circuit):
    """Place, and wires with the number of turns so far, of each two-qubit gate."""
    turns, found = [0] * circuit.qubits, []
    for place, (name, qubits, _) in enumerate(circuit.gates):
        if len(qubits) == 2:
            found.append((place, [(q, turns[q]) for q in qubits]))
        elif name in ("h", "x", "y", "rx", "ry"):
            turns[qubits[0]] += 1
    return found


def pairs_of(gates, placement, gate_nodes):
    """Pairs by their definition: one for each wire's run and node away from home."""
    needed = set()
    for (_, ends), node in zip(gates, gate_nodes, strict=True):
        needed |= {(wire, run, node) for wire, run in ends if placement[wire] != node}
    return len(needed)


def placements(qubits, nodes, capacity):
    for found in itertools.product(range(nodes), repeat=qubits):
        if all(found.count(node) <= capacity for node in range(nodes)):
            yield found


def enumerated(circuit, nodes, capacity, own_nodes=False):
    """The fewest pairs, over all placements of wires and of gates."""
    gates, best = labels(circuit), np.inf
    for placement in placements(circuit.qubits, nodes, capacity):
        if placement[0]:  # nodes are alike
            continue
        choices = [
            {placement[wire] for wire, _ in ends} if own_nodes else range(nodes)
            for _, ends in gates
        ]
        for gate_nodes in itertools.product(*choices):
            best = min(best, pairs_of(gates, placement, gate_nodes))
    return best


def matched(circuit, placement):
    """The fewest pairs of a placement on two nodes: a matching of the runs on either side."""
    runs, edges = {}, []
    for _, ends in labels(circuit):
        first, second = sorted(ends, key=lambda end: placement[end[0]])
        if placement[first[0]] != placement[second[0]]:
            edges.append([runs.setdefault(end, len(runs)) for end in (first, second)])
    if not edges:
        return 0
    rows, columns = np.array(edges).T
    graph = csr_array((np.ones(len(edges)), (rows, columns)), shape=(len(runs),) * 2)
    return int(np.sum(maximum_bipartite_matching(graph, perm_type="column") >= 0))


def check_plan(plan, capacity):
    """A plan says of itself what is so; returns the number of pairs."""
    gates = labels(plan.circuit)
    assert len(plan.placement) == plan.circuit.qubits
    assert all(0 <= plan.placement.count(node) <= capacity for node in range(plan.nodes))
    assert plan.ebits == pairs_of(gates, plan.placement, [plan.gate_nodes[g] for g, _ in gates])
    for place, gate in enumerate(plan.circuit.gates):
        there = {copy.wire for copy in plan.copies if place in copy.gates}
        if len(gate.qubits) == 2:
            away = {q for q in gate.qubits if plan.placement[q] != plan.gate_nodes[place]}
            assert there == away
        else:
            assert plan.gate_nodes[place] == plan.placement[gate.qubits[0]]
            assert not there
    for copy in plan.copies:
        assert {plan.gate_nodes[gate] for gate in copy.gates} == {copy.node}
        assert list(copy.gates) == sorted(copy.gates)
    return plan.ebits


@pytest.mark.parametrize(
    "qubits, nodes, ebits, own",
    [(6, 2, 3, 9), (8, 2, 4, 16), (6, 3, 4, None), (9, 3, 6, None), (8, 4, 8, 24)],
)
def test_fourier_transforms_need_the_proven_number_of_pairs(qubits, nodes, ebits, own):
    plan = plan_circuit(qft(qubits), nodes)
    assert check_plan(plan, -(-qubits // nodes)) == ebits
    assert plan.proven
    assert plan.classical_bits == 2 * ebits
    if own is not None:
        gate_by_gate = plan_circuit(qft(qubits), nodes, reuse=False)
        assert gate_by_gate.ebits == own
        assert gate_by_gate.proven
        assert all(len(copy.gates) == 1 for copy in gate_by_gate.copies)


def test_gates_at_a_third_node_save_pairs():
    assert plan_circuit(TRIANGLE, 3).ebits == 2
    own = plan_circuit(TRIANGLE, 3, own_nodes=True)
    assert own.ebits == 3
    assert own.proven
    assert plan_circuit(TRIANGLE, 3, own_nodes=True, method="local").ebits == 3
    assert plan_circuit(qft(8), 4, own_nodes=True).ebits == 12


@pytest.mark.parametrize("nodes, ebits", [(2, 8), (4, 16)])
def test_a_ring_of_cz_needs_a_pair_at_each_cut_of_each_layer(nodes, ebits):
    plan = plan_circuit(ry_cz_ring(8, 4), nodes)
    assert check_plan(plan, 8 // nodes) == ebits
    assert plan.proven


SMALL = [
    (4, 2, 6, 0.4), (4, 2, 8, 0.2), (4, 3, 6, 0.2), (5, 3, 5, 0.2), (4, 4, 5, 0.3), (3, 3, 6, 0.3),
]  # fmt: skip


@pytest.mark.parametrize("own_nodes", [False, True])
@pytest.mark.parametrize("seed, case", [*enumerate(SMALL)])
def test_the_integer_program_finds_the_best_of_all_partitions(seed, case, own_nodes):
    qubits, nodes, gates, turn = case
    circuit = random_gates(qubits, gates, turn=turn, seed=seed)
    capacity = -(-qubits // nodes)
    expected = enumerated(circuit, nodes, capacity, own_nodes)
    problem = problem_of(circuit_hypergraph(circuit), nodes, capacity, None, own_nodes)
    found = search_below(problem, 1000, None)  # with no help from the annealing
    assert found.proven
    assert problem.pairs(found.partition) == expected
    least = search_below(problem, expected + 1, None).partition
    assert problem.pairs(least) == expected
    assert search_below(problem, expected, None) == (None, True)
    for method in ("exact", "local"):
        plan = plan_circuit(circuit, nodes, method=method, own_nodes=own_nodes)
        assert check_plan(plan, capacity) == expected


@pytest.mark.parametrize("seed", range(4))
def test_two_nodes_need_a_maximum_matching_of_their_runs(seed):
    circuit = random_gates(8, 24, turn=0.3, seed=seed)
    each = {place: matched(circuit, place) for place in placements(8, 2, 4) if not place[0]}
    assert len(each) == 35
    best = min(each, key=each.get)
    assert check_plan(plan_circuit(circuit, 2), 4) == each[best]
    for placement in (best, (0, 1) * 4):
        plan = plan_circuit(circuit, 2, placement=placement)
        assert plan.placement == placement
        assert check_plan(plan, 4) == each[placement]
        assert plan.proven


def compare(numbers):
    """Pairs of exact and of local plans of random circuits, the exact ones all proven."""
    found = []
    for seed in numbers:
        rng = np.random.default_rng(1000 + seed)
        qubits, nodes, gates = (int(rng.integers(*ends)) for ends in ((5, 10), (2, 5), (10, 31)))
        circuit = random_gates(qubits, gates, seed=seed)
        plans = [plan_circuit(circuit, nodes, method=method) for method in ("exact", "local")]
        assert plans[0].proven
        found.append([check_plan(plan, -(-qubits // nodes)) for plan in plans])
    return np.array(found).T


def test_local_plans_are_within_a_tenth_of_the_best():
    exact, local = compare(range(6))
    assert np.all(exact <= local)
    assert np.all(local <= 1.1 * exact)


@pytest.mark.matrix
def test_local_plans_of_fifty_circuits_are_within_a_tenth_of_the_best():
    exact, local = compare(range(50))
    assert np.all(exact <= local)
    assert np.all(local <= 1.1 * exact)


def test_a_search_that_is_cut_short_returns_a_plan_without_a_proof():
    plan = plan_circuit(qft(9), 3, time_limit=0.01)
    assert not plan.proven
    assert check_plan(plan, 3) >= 6
    assert not plan_circuit(qft(6), 2, method="local").proven


def test_no_pairs_are_needed_on_one_node_or_without_two_qubit_gates():
    assert plan_circuit(qft(4), 1).ebits == 0
    assert plan_circuit(qft(4), 2, capacity=4).ebits == 0
    alone = plan_circuit(GateList(4, (("h", (0,)), ("rz", (3,), 0.2))), 4, method="local")
    assert alone.ebits == 0
    assert alone.proven
    assert alone.link_qubits == (0, 0, 0, 0)


def test_copies_know_their_gates_their_time_and_their_places():
    gates = [("cz", (0, 2)), ("z", (0,)), ("cz", (0, 3)), ("h", (0,)), ("cz", (0, 2))]
    plan = plan_circuit(GateList(4, gates), 2, placement=(0, 0, 1, 1))
    # Either wire 0 or, for the last gate, wire 2 is copied.
    assert plan.ebits == 2
    assert plan.copies[0] == CatCopy(wire=0, node=1, gates=(0, 2), birth=0, death=2)
    assert (plan.copies[1].birth, plan.copies[1].death) == (4, 4)
    assert plan.link_qubits == (1, 1)
    both = plan_circuit(TRIANGLE, 3, placement=(0, 1, 2))
    assert max(both.link_qubits) == 2


def test_diagonal_gates_do_not_end_a_run():
    between = {"z": 0, "s": 0, "t": 0, "rz": 0.3, "phase": 0.3, "h": 0, "x": 0, "rx": 0.3}
    for name, angle in between.items():
        gates = (("cz", (0, 1)), (name, (0,), angle), ("cp", (0, 1), 0.5))
        runs = circuit_hypergraph(GateList(2, gates)).runs
        expected = 2 if name in ("z", "s", "t", "rz", "phase") else 3
        assert len(runs) == expected, name


def test_a_hypergraph_is_ready_for_a_partitioner():
    graph = circuit_hypergraph(TRIANGLE)
    assert graph.edges() == [[0, 3, 4], [1, 3, 5], [2, 4, 5]]
    assert graph.weights() == [1, 1, 1, 0, 0, 0]
    assert len(circuit_hypergraph(TRIANGLE, reuse=False).runs) == 6


def test_what_is_no_circuit_or_plan_is_refused():
    for gate, match in [
        (("ccz", (0, 1)), "`name of a gate` must be one of 'h'"),
        (("cz", (0, 0)), r"`qubits of a gate` must be 2 different integers in \[0, 1\] for 'cz'"),
        (("h", (2,)), r"`qubits of a gate` must be 1 different integers"),
        (("h", (0,), 0.1), "`angle of a gate` must be 0 for 'h'"),
        (("rx", (0,), np.nan), "`angle of a gate` must be one finite number"),
    ]:
        with pytest.raises(ValueError, match=match):
            GateList(2, (gate,))
    with pytest.raises(TypeError, match="`circuit` must be a GateList"):
        plan_circuit([], 2)
    with pytest.raises(ValueError, match="`method` must be one of 'exact', 'local'"):
        plan_circuit(qft(3), 2, method="greedy")
    with pytest.raises(ValueError, match="`capacity` must give 2 nodes at least 3 places"):
        plan_circuit(qft(3), 2, capacity=1)
    with pytest.raises(ValueError, match="`placement` must be 3 integers in"):
        plan_circuit(qft(3), 2, placement=(0, 1, 2))
    with pytest.raises(ValueError, match="`capacity` must be None if `placement` is given"):
        plan_circuit(qft(3), 2, capacity=2, placement=(0, 0, 1))
    with pytest.raises(ValueError, match="`time_limit` must be at least 0"):
        plan_circuit(qft(3), 2, time_limit=-1.0)


# --- TensorCircuit --------------------------------------------------------------------------------


@pytest.fixture
def tc():
    found = tensorcircuit_module("A test")
    before = found.backend.name
    found.set_backend("numpy")
    yield found
    found.set_backend(before)


def filled(circuit):
    """A circuit with gates of every kind that is taken."""
    random = np.random.default_rng(0).normal(size=(2, 2)) + 1j * np.eye(2)
    circuit.h(0)
    circuit.rx(1, theta=0.3)
    circuit.cnot(0, 1)
    circuit.any(0, unitary=np.linalg.qr(random)[0])
    circuit.cnot(1, 0)
    circuit.y(1)
    circuit.rzz(0, 1, theta=0.4)
    circuit.sd(0)
    circuit.barrier_instruction(0)
    circuit.any(1, unitary=np.array([[0, 1j], [np.exp(0.3j), 0]]))
    circuit.cphase(1, 0, theta=-2.2)
    circuit.cz(0, 1)
    return circuit


def test_circuits_of_tensorcircuit_become_lists_of_gates(tc):
    found = gates_from_tensorcircuit(filled(tc.Circuit(2)))
    assert {gate.name for gate in found.gates} <= {"h", "y", "ry", "rz", "phase", "cz", "cp"}
    columns = [filled(tc.Circuit(2, inputs=column)).state() for column in np.eye(4)]
    unitary = np.eye(4)
    for name, qubits, angle in found.gates:
        unitary = nodes.on(nodes.gate_matrix(name, angle), qubits, 2) @ unitary
    overlap = np.trace(np.conj(columns) @ unitary) / 4
    np.testing.assert_allclose(abs(overlap), 1, atol=2e-6)
    assert plan_circuit(found, 2).ebits > 1


def test_what_nodes_cannot_share_is_refused(tc):
    with pytest.raises(TypeError, match="`circuit` must be a circuit of TensorCircuit"):
        gates_from_tensorcircuit(qft(2))
    for method, options, match in [
        ("swap", {}, "have only diagonal gates and CNOT on two qubits, but got 'swap'"),
        ("toffoli", {}, "have gates of one or two qubits, but got 'toffoli'"),
        ("measure_instruction", {}, "have no measurements or resets, but got 'measure'"),
        ("depolarizing", {"px": 0.1, "py": 0.1, "pz": 0.1}, "have no noise"),
    ]:
        circuit = tc.Circuit(3)
        number = {"swap": 2, "toffoli": 3}.get(method, 1)
        getattr(circuit, method)(*range(number), **options)
        with pytest.raises(ValueError, match=f"`circuit` must {match}"):
            gates_from_tensorcircuit(circuit)
