"""The cost of a step: closed forms, what compressors say, and what a report counts."""

import dataclasses
import functools

import compress_costs as costs
import jax
import jax.numpy as jnp
import pytest
from compress_calls import AXIS, KEY, label, quiet, step

from jaxqring import FixedPoint, Ring
from jaxqring.codes import repetition
from jaxqring.compress import (
    DGC,
    LQSGD,
    QSGD,
    DeMo,
    PowerSGD,
    RandomK,
    SignVote,
    TernGrad,
    TopK,
    Uncompressed,
    star_cost,
)

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
CNN = costs.CNN_SHAPES
RESNET = costs.resnet18_shapes()


def shapes_of(shapes):
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def agreed(nodes, shapes, *calls):
    """A bit for each leaf, and float32 numbers call by call, each by a ring all-reduce."""
    return sum(2 * (nodes - 1) * -(-n // nodes) * w for n, w in [(len(shapes), 1), *calls])


def demo_bits(shapes, nodes, k, bits):
    """Places in an even number of bits, two at least."""
    return sum(
        costs.gather_bits(
            number * min(k, size), bits + max(2, costs.even((size - 1).bit_length())), nodes
        )
        for number, size in costs.demo_blocks(shapes)
    )


def low_rank(shapes, rank):
    first, second, rest = costs.factor_sizes(shapes, rank, min_rate=1)
    matrices = sum((n + m) * rank < n * m for n, m in costs.matrices(shapes))
    return first + rest, second, (len(shapes), matrices)


def expected(compressor, shapes, nodes):
    """Bits over a link, and control bits, of a wire of 16 bits."""
    size, leaves = costs.num_values(shapes), (len(shapes), 32)
    match compressor:
        case PowerSGD() | LQSGD():
            first, second, (leaves, matrices) = low_rank(shapes, compressor.rank)
            scales = [(leaves, 32), (matrices, 32)]
            width = 16
            if isinstance(compressor, PowerSGD):
                if compressor.bits is not None:
                    width = costs.even(compressor.bits + costs.guard(nodes))
                if compressor.share_factors:
                    scales.append((second, 32))
            elif compressor.reduce == "gather":
                bits = costs.gather_bits(first + second, 8, nodes)
                return bits, agreed(nodes, shapes, *scales)
            elif compressor.reduce == "hop":
                width = 8
            else:
                width, scales = costs.even(8 + 3 + costs.guard(nodes)), 2 * scales
            bits = sum(costs.sum_bits(size, width, nodes) for size in (first, second))
            return bits, agreed(nodes, shapes, *scales)
        case TopK() | DGC():
            bits = costs.topk_bits(shapes, nodes, compressor.fraction)
        case RandomK():
            kept = sum(costs.topk_counts(shapes, compressor.fraction))
            bits = costs.sum_bits(kept, 16, nodes)
        case Uncompressed():
            bits = costs.sgd_bits(shapes, nodes)
            if compressor.bits is not None:
                width = costs.even(compressor.bits + costs.guard(nodes))
                bits = costs.sgd_bits(shapes, nodes, width)
        case TernGrad():
            bits = costs.terngrad_bits(shapes, nodes)
        case QSGD():
            bits = costs.sum_bits(size, costs.sum_width(compressor.levels, nodes), nodes)
        case SignVote():
            # Three-valued votes of an odd number of nodes, counts of an even one.
            width = costs.sum_width(1, nodes) if nodes % 2 else costs.count_width(nodes)
            return costs.sum_bits(size, width, nodes), agreed(nodes, shapes)
        case DeMo():
            bits = demo_bits(shapes, nodes, compressor.k, 16)
    return bits, agreed(nodes, shapes, leaves)


COMPRESSORS = [
    Uncompressed(),
    Uncompressed(8),
    PowerSGD(),
    PowerSGD(rank=2),
    PowerSGD(rank=4),
    PowerSGD(rank=1, bits=8),
    PowerSGD(rank=2, share_factors=True),
    LQSGD(),
    LQSGD(reduce="hop"),
    LQSGD(reduce="sum"),
    TopK(),
    DGC(0.1),
    RandomK(0.3),
    TernGrad(),
    QSGD(7),
    QSGD(127),
    SignVote(),
    DeMo(),
]


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=label)
@pytest.mark.parametrize("shapes", [CNN, RESNET], ids=["cnn", "resnet"])
def test_costs_are_the_closed_forms(compressor, shapes):
    tree = shapes_of(shapes)
    for nodes in (2, 3, 5, 8, 16):
        cost = compressor.cost(quiet(), tree, nodes)
        assert (cost.bits, cost.control_bits) == expected(compressor, shapes, nodes)
        messages = compressor.messages(tree, nodes)
        assert cost.rounds == sum(
            (nodes - 1) * (2 if message.collective == "psum" else 1) for message in messages
        )
        assert cost.qubits == cost.pairs == cost.bits // 2
        assert all(message.bits % 2 == 0 for message in messages)


@pytest.mark.parametrize(
    "rank, shapes, nodes, bits",
    [(1, CNN, 8, 52_192), (2, CNN, 8, 102_368), (4, CNN, 8, 202_720), (1, RESNET, 5, 1_175_936)],
)
def test_bits_of_low_rank(rank, shapes, nodes, bits):
    assert PowerSGD(rank).cost(Ring(noise="off"), shapes_of(shapes), nodes).bits == bits
    if rank == 1 and nodes == 8:
        sizes = [message.size for message in PowerSGD().messages(shapes_of(shapes), 8)]
        assert sizes == [1795, 58]


def test_a_code_costs_what_it_repeats():
    ring = Ring(noise="off", protection=repetition(3))
    bare, coded = (SignVote().cost(each, shapes_of(CNN), 8) for each in (quiet(), ring))
    assert coded.qubits == 3 * bare.qubits
    assert coded.bits == bare.bits


def test_costs_of_one_step_after_the_other_add_up():
    one = PowerSGD().cost(quiet(), shapes_of(CNN), 8)
    two = one + one
    for field in dataclasses.fields(one):
        same = field.name == "num_nodes"
        assert getattr(two, field.name) == getattr(one, field.name) * (1 if same else 2)
    with pytest.raises(ValueError, match="`other` must be of a ring of 8 nodes, but got 3"):
        one + PowerSGD().cost(quiet(), shapes_of(CNN), 3)
    with pytest.raises(TypeError):
        one + 1


def test_a_parameter_server_counts_each_direction_once():
    """A step of the published table: eight bits up and thirty-two down."""
    sizes = costs.factor_sizes(RESNET, 1)
    up, down = star_cost(8, 32, sizes)
    assert (up, down) == (8 * sum(sizes), 32 * sum(sizes))
    assert costs.epoch_mib(up, 50_000) == pytest.approx(3.4169, abs=1e-4)
    assert down / up == 4


def reported(compressor, shapes, nodes):
    """The static part of a report, from shapes alone: nothing is compiled or run."""
    one = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    state = jax.eval_shape(compressor.init, one)
    run = jax.vmap(step(compressor, report=True), in_axes=(0, 0, None, None), axis_name=AXIS)
    lead = functools.partial(
        jax.tree.map, lambda leaf: jax.ShapeDtypeStruct((nodes, *leaf.shape), leaf.dtype)
    )
    mean, after, report = jax.eval_shape(run, lead(one), lead(state), quiet(), KEY)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, lead(state))
    assert jax.tree.map(jnp.shape, mean) == jax.tree.map(jnp.shape, lead(one))
    return report


#: One of each path; what differs in a number alone is in the lane `matrix`.
FEW = {"PowerSGD", "LQSGD", "LQSGD-reduce=sum", "TopK", "RandomK-fraction=0.3", "SignVote", "DeMo"}
CASES = [
    (each, nodes) if nodes == 5 and label(each) in FEW else further(each, nodes)
    for each in COMPRESSORS
    for nodes in (3, 5, 8)
]


@pytest.mark.parametrize("compressor, nodes", CASES, ids=label)
def test_reports_count_what_costs_say(compressor, nodes):
    report = reported(compressor, CNN, nodes)
    cost = compressor.cost(quiet(), shapes_of(CNN), nodes)
    assert report.symbols_per_link == cost.symbols
    assert report.control_bits == cost.control_bits
    messages = compressor.messages(shapes_of(CNN), nodes)
    assert len(report.calls) == len(messages)
    for call, message in zip(report.calls, messages, strict=True):
        half = message.bits // 2 * (nodes - 1)
        size = message.size if message.collective == "all_gather" else -(-message.size // nodes) * 2
        assert call.symbols_per_link == half * size


def test_a_wire_of_another_width_costs_accordingly():
    for bits in (8, 24):
        wire = FixedPoint(bits)
        cost = PowerSGD(rank=2).cost(Ring(noise="off", wire=wire), shapes_of(CNN), 8)
        assert cost.bits == costs.powersgd_bits(CNN, 8, rank=2, width=bits, min_rate=1)
    sums = LQSGD(reduce="sum").messages(shapes_of(CNN), 8)
    assert {message.bits for message in sums} == {14}
    linear = PowerSGD(bits=8).messages(shapes_of(CNN), 8)
    assert {message.bits for message in linear} == {12}  # 8 and 3 guard bits, made even
