"""The cost of a step of a run, or of a round of its outer loop."""

import functools
import operator

from jaxqring._types import PyTree
from jaxqring.codec import Float32
from jaxqring.compress._message import sizes_of
from jaxqring.jobs._loop_config import PAIRS
from jaxqring.jobs._run_config import RunConfig
from jaxqring.outer import pair_cost
from jaxqring.outer._fragments import Fragments
from jaxqring.ring import Cost, Ring
from jaxqring.robust import robust_cost


def cost_of(run: RunConfig, params: PyTree, num_nodes: int) -> Cost:
    """The cost of a step, or of a round in which every fragment has had its turn.

    A classical run sends float32 bits round the same ring.

    Args:
      run: of a job.
      params: pytree of the shapes of one replica.
      num_nodes: N, the nodes of the ring.
    """
    ring, compressor = run.ring(), run.compressor()
    ring = Ring(wire=Float32(), noise="off") if ring is None else ring
    if run.robust is not None:
        way, size = run.robust.topology, run.robust.size
        return robust_cost(ring, params, num_nodes, topology=way, group_size=size)
    if run.outer is not None and run.outer.method in PAIRS:
        return _cost_in_pairs(run, params, num_nodes, ring.wire.bits)
    fragments = 1 if run.outer is None else run.outer.fragments or 1
    parts = Fragments.of(params, count=fragments).split(params)
    if compressor is None:
        costs = [ring.cost(sum(sizes_of(part)), num_nodes) for part in parts]
    else:
        costs = [compressor.cost(ring, part, num_nodes) for part in parts]
    return functools.reduce(operator.add, costs)


def _cost_in_pairs(run: RunConfig, params: PyTree, num_nodes: int, width: int) -> Cost:
    """Messages between partners, which all links pass on; see `jaxqring.outer.pair_cost`."""
    assert run.outer is not None
    pattern, size = PAIRS[run.outer.method], sum(sizes_of(params))
    bits = round(pair_cost(size, num_nodes, width, pattern))
    hops = 1 if pattern == "neighbours" else num_nodes - 1
    return Cost(num_nodes, hops, bits, bits // 2, bits // 2, control_bits=0)
