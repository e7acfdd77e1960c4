"""The static cost against the protocol's numbers, and against what a traced program moves."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxqring import (
    BFloat16,
    Cost,
    FixedPoint,
    Float32,
    Ring,
    all_gather,
    psum,
    psum_scatter,
    superdense,
    werner,
)

AXIS = "nodes"
COLLECTIVES = {"psum": psum, "psum_scatter": psum_scatter, "all_gather": all_gather}
SYMBOLS_IN_A_WORD = 16
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def words_sent(jaxpr, times=1):
    """The uint32 words that one device hands to its neighbour, counted in a jaxpr."""
    words = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "ppermute":
            (operand,) = equation.invars
            assert operand.aval.dtype == jnp.uint32
            words += times * math.prod(operand.aval.shape)
        length = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                words += words_sent(inner, times * length)
    return words


def traced(collective, ring, num_nodes, shape):
    """The jaxpr of a collective on one device, and the symbols that its report claims."""
    claimed = []

    def per_device(x):
        _, report = COLLECTIVES[collective](
            x[0], AXIS, ring=ring, key=jax.random.key(0), with_report=True
        )
        claimed.append(report.symbols_per_link)
        return report.errors_per_link[None]

    mesh = Mesh(np.array(jax.devices()[:num_nodes]), (AXIS,))
    spec = PartitionSpec(AXIS)
    run = jax.shard_map(per_device, mesh=mesh, in_specs=spec, out_specs=spec)
    return jax.make_jaxpr(run)(jnp.zeros((num_nodes, *shape))).jaxpr, claimed[0]


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize(
    "wire",
    [
        further(FixedPoint(8)),
        FixedPoint(10),
        FixedPoint(16),
        further(FixedPoint(24)),
        further(Float32()),
        BFloat16(),
    ],
    ids=lambda wire: f"{type(wire).__name__}{wire.bits}",
)
@pytest.mark.parametrize("num_nodes, chunk", [(2, 16), (5, 7), further(8, 33)])
def test_the_cost_is_what_the_program_moves(collective, wire, num_nodes, chunk):
    shapes = {
        "psum": (num_nodes * chunk - 1,),  # one short, so that a chunk is padded
        "psum_scatter": (num_nodes, chunk),
        "all_gather": (chunk,),
    }
    ring = Ring(superdense(werner(fidelity=0.9)), wire=wire)
    jaxpr, claimed = traced(collective, ring, num_nodes, shapes[collective])
    cost = ring.cost(math.prod(shapes[collective]), num_nodes, collective=collective)
    moved = SYMBOLS_IN_A_WORD * words_sent(jaxpr)
    rounds = (num_nodes - 1) * (2 if collective == "psum" else 1)
    assert cost.rounds == rounds
    assert claimed == cost.symbols
    # Codes fill whole words in groups of lcm(bits, 32) bits; only the last group may be padded.
    group = math.lcm(wire.bits, 32) // 2
    padding = moved - cost.symbols
    assert 0 <= padding < rounds * group
    assert padding % rounds == 0
    if chunk * wire.bits % math.lcm(wire.bits, 32) == 0:
        assert padding == 0


@pytest.mark.parametrize(
    "num_nodes, size, bits, expected",
    [
        (4, 1000, 8, Cost(4, 6, 12_000, 6_000, 6_000, 192)),
        (8, 10**6, 16, Cost(8, 14, 28_000_000, 14_000_000, 14_000_000, 448)),
        (3, 10, 10, Cost(3, 4, 160, 80, 80, 128)),  # chunks of 4
    ],
)
def test_the_cost_of_psum_has_the_numbers_of_the_protocol(num_nodes, size, bits, expected):
    cost = Ring(wire=FixedPoint(bits)).cost(size, num_nodes)
    assert cost == expected
    assert cost.symbols == cost.qubits


def test_the_halves_cost_half_and_one_node_or_no_value_nothing():
    ring = Ring(wire=FixedPoint(8))
    whole = ring.cost(1000, 4)
    for collective, size in (("psum_scatter", 1000), ("all_gather", 250)):
        half = ring.cost(size, 4, collective=collective)
        assert (2 * half.rounds, 2 * half.bits) == (whole.rounds, whole.bits)
    for free in (ring.cost(1000, 1), ring.cost(0, 4), ring.cost({"none": jnp.zeros((3, 0))}, 4)):
        assert (free.rounds, free.bits, free.qubits, free.control_bits) == (0, 0, 0, 0)


def test_the_cost_of_a_tree_is_that_of_its_size_and_needs_no_arrays():
    tree = {"w": jax.ShapeDtypeStruct((20, 30), jnp.float32), "b": (np.zeros(30), 1.0)}
    ring = Ring(wire=FixedPoint(12))
    # Three leaves have three scales, which in a ring of five cost no more than one.
    assert ring.cost(tree, 5) == ring.cost(631, 5)


@pytest.mark.parametrize("wire", [FixedPoint(10), Float32(), BFloat16()])
@pytest.mark.parametrize("num_nodes", [2, 3, 8])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_superdense_coding_halves_the_online_traffic_and_uses_a_pair_for_each_qubit(
    wire, num_nodes, collective
):
    cost = Ring(wire=wire).cost(1001, num_nodes, collective=collective)
    assert cost.qubits == cost.pairs == cost.bits / 2 > 0


@pytest.mark.parametrize(
    "wire, control",
    [
        (FixedPoint(8), 6 * 32),
        (FixedPoint(8, non_finite="clip"), 6 * 32),
        (FixedPoint(8, clip=1.0), 6 * 1),  # whether all values are finite
        (FixedPoint(8, clip=1.0, non_finite="clip"), 0),
        (Float32(), 0),
    ],
)
def test_only_what_must_be_agreed_costs_control_bits(wire, control):
    assert Ring(wire=wire).cost(1000, 4).control_bits == control


def test_seconds_are_those_of_the_alpha_beta_model():
    # B2 by hand: 6 rounds of 1000 qubits or 2000 bits.
    cost = Ring(wire=FixedPoint(8)).cost(1000, 4)
    quantum = cost.seconds(qubit_rate=1e6, latency=1e-3, encode_time=2e-4, measure_time=3e-4)
    assert quantum == pytest.approx(6 * (1e-3 + 2e-4 + 1000 / 1e6 + 3e-4), rel=1e-12)
    assert cost.seconds(qubit_rate=1e6) == pytest.approx(6e-3, rel=1e-12)
    classical = cost.classical_seconds(bit_rate=4e6, latency=1e-3)
    assert classical == pytest.approx(6 * (1e-3 + 2000 / 4e6), rel=1e-12)
    # The gain is real only where qubits come faster than half the bits.
    equal = cost.classical_seconds(bit_rate=2e6)
    assert cost.seconds(qubit_rate=1e6) == pytest.approx(equal)
    assert cost.seconds(qubit_rate=0.9e6) > equal > cost.seconds(qubit_rate=1.1e6)
