"""Programs grow with the number of different leaves, not with the number of leaves."""

import math
import re
import time

import jax
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxqring import FixedPoint, Ring, pmean, superdense, werner
from jaxqring._threefry import derive, random_words

AXIS = "nodes"
NODES = 8
SHAPES = 7

pytestmark = pytest.mark.usefixtures("compiled_anew")


def run_ring(x, key):
    return pmean(x, AXIS, ring=Ring(superdense(werner(fidelity=0.999)), FixedPoint(16)), key=key)


def run_lax(x, key):
    return lax.pmean(x, AXIS)


def lowered(function, leaves, mesh):
    """The mean of a tree of so many leaves, in seven shapes, over eight devices."""
    tree = {
        f"p{n}": jax.ShapeDtypeStruct((NODES, 4 + n % SHAPES, 8), "float32") for n in range(leaves)
    }
    run = jax.shard_map(
        function, mesh=mesh, in_specs=(P(AXIS), P()), out_specs=P(AXIS), check_vma=False
    )
    return jax.jit(run).trace(tree, jax.eval_shape(lambda: jax.random.key(0))).lower()


def cpu_seconds(function, leaves, mesh):
    """Of tracing, lowering and compiling, all threads together."""
    start = time.process_time()
    lowered(function, leaves, mesh).compile()
    return time.process_time() - start


def computations(function, leaves, mesh):
    """Counts the computations of the compiled program, and the different ones.

    Names and the values of constants aside, that is: places in a vector are constants.
    """
    text = lowered(function, leaves, mesh).compile().as_text()
    bodies = re.findall(r"^%?\S* \([^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    plain = [re.sub(r", (metadata|backend_config)=\{[^\n]*", "", body) for body in bodies]
    plain = [re.sub(r"%[\w.-]+", "%", body) for body in plain]
    return len(bodies), len({re.sub(r"constant\(.*?\)", "constant", body) for body in plain})


def test_a_program_has_as_many_different_parts_whatever_the_number_of_leaves(ring_mesh):
    mesh = ring_mesh(NODES)
    total, different = computations(run_ring, 10 * SHAPES, mesh)
    larger_total, still_different = computations(run_ring, 30 * SHAPES, mesh)
    # A leaf is cut out by a part of its own, of which the compiler keeps one for each shape.
    assert larger_total >= total + 15 * SHAPES  # of 20 more of each
    assert still_different <= different + SHAPES


@pytest.mark.matrix
def test_compiling_the_mean_of_a_thousand_leaves_is_not_far_from_that_of_jax(ring_mesh):
    mesh = ring_mesh(NODES)
    cpu_seconds(run_lax, 10, mesh)  # what is done once
    exact = cpu_seconds(run_lax, 1000, mesh)
    assert cpu_seconds(run_ring, 1000, mesh) <= 5 * exact


def inside_loops(text):
    """The lines of all computations that the loops of a compiled program run."""
    parts = dict(
        re.findall(r"^(?:ENTRY )?%?(\S+) \([^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    )
    waiting = re.findall(r"body=%?([\w.-]+)", text)
    found = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            called = r"(?:calls|to_apply|body|branch_computations)=\{?((?:%?[\w.-]+(?:, )?)+)"
            for names in re.findall(called, parts[name]):
                waiting += [one.strip("% ") for one in names.split(",") if one.strip("% ") in parts]
    return "\n".join(parts[name] for name in found)


@pytest.mark.parametrize("nodes_per_device", [1, NODES])
def test_nodes_on_one_device_copy_nothing_of_the_size_of_the_result_in_a_hop(nodes_per_device):
    size = 2000 * NODES
    ring = Ring(noise="off", nodes_per_device=nodes_per_device)

    def step(x, key):
        return pmean(x, AXIS, ring=ring, key=key)

    over = jax.jit(jax.vmap(step, in_axes=(0, None), axis_name=AXIS))
    shape = (1, NODES, size) if nodes_per_device > 1 else (NODES, size)
    values = jax.ShapeDtypeStruct(shape, "float32")
    body = inside_loops(over.lower(values, jax.random.key(0)).compile().as_text())
    assert "dynamic-update-slice" in body
    moved = re.findall(r"= \w+\[([\d,]+)\]\S* (?:copy|transpose|scatter|gather)\(", body)
    largest = max((math.prod(map(int, dims.split(","))) for dims in moved), default=0)
    assert largest <= 2 * size, f"{largest} numbers are moved in every hop"


@pytest.mark.parametrize("nodes", [None, 1, 4])
def test_no_word_is_drawn_in_the_same_loop_as_its_key(nodes):
    def draw(key, number):
        return random_words(derive(key, number), 1000)

    of_nodes = draw if nodes is None else jax.vmap(draw)
    shape = () if nodes is None else (nodes,)
    word, number = (jax.ShapeDtypeStruct(shape, kind) for kind in ("uint32", "int32"))
    text = jax.jit(of_nodes).lower((word, word), number).compile().as_text()
    bodies = re.findall(r"^%?\S* \([^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    ciphers = [round(body.count(" xor(") / 21) for body in bodies]  # 20 rounds and a word of key
    assert max(ciphers) == 1
