"""The cost of a robust mean over each link, from shapes alone."""

from typing import Literal, get_args

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.ring import Cost, Ring
from jaxqring.robust._topologies import check_group_size
from jaxqring.robust._ways import Topology, agrees_on_scales, with_own_scales

#: Bits of the exponent of a scale.
_EXPONENT = 8


def robust_cost(
    ring: Ring,
    tree_or_size: PyTree | int,
    num_nodes: int,
    *,
    topology: Topology = "groups",
    group_size: int = 3,
    links: Literal["direct", "ring"] = "direct",
) -> Cost:
    """The traffic of one `robust_pmean` over each link, masks not counted.

    With P numbers of b bits: "gather" (N - 1) P b; "butterfly" c b N (N - 1) / 2 for the parts on
    their way to their nodes, each over all links between, and (N - 1) c b back, c = ceil(P / N);
    "groups" 2 (s - 1) ceil(P / s) b inside a group, and (N - 1) ceil(P / s) b to gather the means
    of the groups, each member passing on its part.

    Args:
      ring: the wire, the links and their protection.
      tree_or_size: as for `jaxqring.Ring.cost`.
      num_nodes: N.
      topology: as for `robust_pmean`.
      group_size: s, for groups.
      links: for groups, "direct" if members of a group share links of their own, or "ring" if all
        groups go round over the N links of one ring, of which each then carries all G of them.

    Returns:
      The cost. Its control bits are the scales: 8 bits for each leaf of every vector, mean of a
      group or part, or on a wire whose clip is a number those of `jaxqring.all_gather`; inside a
      group those of the ring.

    Raises:
      TypeError, ValueError: as `jaxqring.Ring.cost`; if groups do not fit the nodes.

    >>> from jaxqring import FixedPoint
    >>> quiet = Ring(noise="off", wire=FixedPoint(16))
    >>> [robust_cost(quiet, 10**6, 8, topology=way).bits for way in ("gather", "butterfly")]
    [112000000, 70000000]
    """
    checks.instance("ring", ring, Ring)
    checks.one_of("topology", topology, get_args(Topology))
    checks.one_of("links", links, ("direct", "ring"))
    num_nodes = checks.integer("num_nodes", num_nodes, 2)
    gathering = with_own_scales(ring)
    whole = gathering.cost(tree_or_size, num_nodes, collective="all_gather")
    size = whole.bits // (num_nodes - 1) // ring.wire.bits
    leaves = 1
    if not isinstance(tree_or_size, int | np.integer):
        leaves = len(jax.tree.leaves(tree_or_size))
    around = num_nodes - 1

    def times(size: int, messages: int, rounds: int, exponents: int) -> Cost:
        """The cost of some messages of `size` numbers over each link, and of their scales."""
        one = gathering.cost(size, 2, collective="all_gather")  # a message over each of two links
        control = exponents * _EXPONENT if size else 0
        if not agrees_on_scales(ring):
            control = gathering.cost(size, num_nodes, collective="all_gather").control_bits
        return Cost(
            num_nodes=num_nodes,
            rounds=rounds,
            bits=messages * one.bits,
            qubits=messages * one.qubits,
            pairs=messages * one.pairs,
            control_bits=control,
            codewords=messages * one.codewords,
        )

    if topology == "gather":
        return times(size, around, around, around * leaves)
    if topology == "butterfly":
        chunk = -(-size // num_nodes)
        there = times(chunk, num_nodes * around // 2, around, around * leaves)
        return there + times(chunk, around, around, around)
    check_group_size(group_size, num_nodes, masked=False)
    groups = num_nodes // group_size
    inner = ring.cost(tree_or_size, group_size)
    sharing = groups if links == "ring" else 1
    means = times(-(-size // group_size), around, around, groups * leaves)
    return Cost(
        num_nodes=num_nodes,
        rounds=inner.rounds + means.rounds,
        bits=sharing * inner.bits + means.bits,
        qubits=sharing * inner.qubits + means.qubits,
        pairs=sharing * inner.pairs + means.pairs,
        control_bits=sharing * inner.control_bits + means.control_bits,
        codewords=sharing * inner.codewords + means.codewords,
    )
