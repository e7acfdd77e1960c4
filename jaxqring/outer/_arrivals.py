"""Nodes of unequal speed that report to a server, each in its own time: the order of arrivals."""

import dataclasses
import heapq
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from jaxqring import _checks as checks


@dataclasses.dataclass(frozen=True, eq=False)
class Arrivals:
    """The arrivals of displacements at a server, in their order.

    Attributes:
      num_nodes: N.
      node: (count,) int32, the node that arrives.
      steps: (count,) int32, the inner steps that it has made since it took its copy.
      version: (count,) int32, the arrivals that its copy already held; arrival number t is
        t - version old, zero if no other came in between.
      time: (count,) float64 seconds from the start, without the time of messages.

    Raises:
      ValueError: if nodes are not integers in [0, N), steps not integers of at least 1 for each of
        them, or versions not those of nodes that take a copy as they arrive.
    """

    num_nodes: int
    node: np.ndarray
    steps: np.ndarray
    version: np.ndarray
    time: np.ndarray

    def __post_init__(self) -> None:
        most = checks.integer("num_nodes", self.num_nodes) - 1
        for name, low, high in (("node", 0, most), ("steps", 1, 2**31 - 1)):
            known = np.asarray(getattr(self, name))
            whole = known.shape == np.shape(self.node) and np.issubdtype(known.dtype, np.integer)
            if known.ndim != 1 or not whole or np.any((known < low) | (known > high)):
                rule = f"hold an integer in [{low}, {high}] for each arrival"
                checks.refuse(name, rule, getattr(self, name))
        taken, versions = [0] * (most + 1), []
        for arrival, node in enumerate(np.asarray(self.node).tolist()):
            versions.append(taken[node])
            taken[node] = arrival + 1
        if not np.array_equal(self.version, versions):
            rule = "be those of copies that nodes take as they arrive"
            checks.refuse("version", rule, self.version)


def dylu(speeds: Sequence[float], steps: int) -> tuple[int, ...]:
    """Inner steps of each node, in proportion to its speed, so that all take about as long.

    Args:
      speeds: of the nodes, in inner steps per second, above zero; a decimal number counts as it is
        written.
      steps: H, those of the fastest.

    Returns:
      floor(speed / fastest * H) for each node, but at least one, which is ours.

    Raises:
      TypeError: if a speed is not real.
      ValueError: if there is none, one is out of range, or `steps` is not an integer of at least 1.

    Reference: the dynamic local updates of Liu et al., arXiv:2401.09135.

    >>> dylu((1.0, 0.7, 0.33), 50)
    (50, 35, 16)
    """
    exact = _exact_speeds(speeds)
    steps = checks.integer("steps", steps)
    return tuple(max(1, int(speed / max(exact) * steps)) for speed in exact)


def arrivals(
    speeds: Sequence[float], steps: int, count: int, *, dylu_steps: bool = False
) -> Arrivals:
    """The first arrivals of nodes that start together and never wait for each other.

    A node makes its inner steps, arrives, takes the copy that includes its own displacement and
    goes on at once. Messages take no time here, so that a copy is as fresh as it can be; see
    `arrival_bits` for what they carry. Times are exact fractions, and of two nodes that arrive
    at the same moment the one with the smaller number is first.

    Args:
      speeds: of the nodes, as for `dylu`.
      steps: H, inner steps between two arrivals of a node.
      count: of the arrivals.
      dylu_steps: whether nodes make the steps that `dylu` gives them, in place of H each.

    Returns:
      The `Arrivals`.

    Raises:
      TypeError, ValueError: as `dylu`; if `count` is not an integer of at least 1, or `dylu_steps`
        is not a bool.

    >>> found = arrivals((1.0, 0.4), steps=10, count=5)
    >>> found.node.tolist(), found.version.tolist()
    ([0, 0, 1, 0, 0], [0, 1, 0, 2, 4])
    >>> arrivals((1.0, 0.4), steps=10, count=5, dylu_steps=True).node.tolist()
    [0, 1, 0, 1, 0]
    """
    exact = _exact_speeds(speeds)
    steps = checks.integer("steps", steps)
    count = checks.integer("count", count)
    checks.one_of("dylu_steps", dylu_steps, (True, False))
    own = dylu(speeds, steps) if dylu_steps else (steps,) * len(exact)
    waiting = [(own[node] / speed, node) for node, speed in enumerate(exact)]
    heapq.heapify(waiting)
    version = [0] * len(exact)
    rows = []
    for arrival in range(count):
        time, node = waiting[0]
        rows.append((node, own[node], version[node], float(time)))
        version[node] = arrival + 1
        heapq.heapreplace(waiting, (time + own[node] / exact[node], node))
    nodes, made, versions, times = zip(*rows, strict=True)
    return Arrivals(
        len(exact),
        np.array(nodes, np.int32),
        np.array(made, np.int32),
        np.array(versions, np.int32),
        np.array(times),
    )


def arrival_bits(
    size: int,
    *,
    num_nodes: int,
    node: ArrayLike,
    server: int = 0,
    bits: int = 16,
    two_way: bool = False,
) -> np.ndarray:
    """Payload bits of arrivals, summed over the links that they cross.

    A ring has no server in its middle: a node of it plays the part, and a displacement goes up to
    it and a copy comes down, from neighbour to neighbour. On a one-way ring both together cross
    every link once, wherever the node sits, so that an arrival costs each link size * bits; half
    as many qubits.

    Args:
      size: values of a displacement, and of a copy.
      num_nodes: N.
      node: (...) integers in [0, N), those that arrive.
      server: the node that plays the server, in [0, N).
      bits: of a value on the wire.
      two_way: whether links carry messages both ways, which then go the shorter way.

    Returns:
      (...) int64 bits, zero for the server itself.

    Raises:
      ValueError: if an argument is not an integer of its domain.

    >>> arrival_bits(1000, num_nodes=8, node=[0, 1, 4]).tolist()
    [0, 128000, 128000]
    >>> arrival_bits(1000, num_nodes=8, node=[0, 1, 4], two_way=True).tolist()
    [0, 32000, 128000]
    """
    size = checks.integer("size", size)
    num_nodes = checks.integer("num_nodes", num_nodes)
    server = checks.integer("server", server, 0, num_nodes - 1)
    bits = checks.integer("bits", bits)
    checks.one_of("two_way", two_way, (True, False))
    known = np.asarray(node)
    if not np.issubdtype(known.dtype, np.integer) or np.any((known < 0) | (known >= num_nodes)):
        checks.refuse("node", f"hold integers in [0, {num_nodes - 1}]", node)
    up = (server - known.astype(np.int64)) % num_nodes
    down = -up % num_nodes
    hops = 2 * np.minimum(up, down) if two_way else up + down
    return hops * size * bits


def _exact_speeds(speeds: Sequence[float]) -> list[Fraction]:
    known = checks.numbers("speeds", np.asarray(speeds))
    if known.ndim != 1 or not known.size:
        checks.refuse("speeds", "hold one number for each node", speeds)
    checks.within("speeds", known, 1e-9, 1e18)
    return [Fraction(str(speed)) for speed in known.astype(float).tolist()]
