"""Programs grow with the number of different leaves, not with the number of leaves."""

import re
import time

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxqring import FixedPoint, Ring, pmean, superdense, werner

AXIS = "nodes"
NODES = 8
SHAPES = 7


def run_ring(x, key):
    return pmean(x, AXIS, ring=Ring(superdense(werner(fidelity=0.999)), FixedPoint(16)), key=key)


def run_lax(x, key):
    return lax.pmean(x, AXIS)


def lowered(function, leaves, mesh):
    """The mean of a tree of so many leaves, in seven shapes, over eight devices."""
    tree = {f"p{n}": jax.ShapeDtypeStruct((NODES, 4 + n % SHAPES, 8), "float32") for n in range(leaves)}
    run = jax.shard_map(
        function, mesh=mesh, in_specs=(P(AXIS), P()), out_specs=P(AXIS), check_vma=False
    )
    return jax.jit(run).trace(tree, jax.eval_shape(lambda: jax.random.key(0))).lower()


def cpu_seconds(function, leaves, mesh):
    """Of tracing, lowering and compiling, all threads together."""
    start = time.process_time()
    lowered(function, leaves, mesh).compile()
    return time.process_time() - start


def kernels(function, leaves, mesh):
    """Different computations of the compiled program, without names, places and wide signatures."""
    text = lowered(function, leaves, mesh).compile().as_text()
    bodies = re.findall(r"^%?\S*fused_computation\S* \(.*?^}", text, re.MULTILINE | re.DOTALL)
    found = set()
    for body in bodies:
        body = re.sub(r", metadata={[^}]*}", "", body)
        body = re.sub(r"%?[a-zA-Z_][\w.-]*[.\d]+\b(?=[ ,)=]|$)", "name", body)
        found.add(re.sub(r"constant\([^)]*\)", "constant", body))
    return len(bodies), len(found)


if __name__ == "__main__":
    m = jax.make_mesh((NODES,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    for leaves in (10, 100, 1000):
        print(leaves, "lax", cpu_seconds(run_lax, leaves, m), "ring", cpu_seconds(run_ring, leaves, m), kernels(run_ring, leaves, m), flush=True)
