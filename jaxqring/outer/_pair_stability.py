"""Averages in pairs: whether differences between nodes shrink, and what a round costs."""

import warnings
from typing import Literal, TypeAlias, get_args

import numpy as np

from jaxqring import _checks as checks

Pattern: TypeAlias = Literal[
    "all_reduce", "random", "shortest", "neighbours", "all_gather", "butterfly"
]


def _check(momentum: float, nodes: int | None) -> None:
    number = checks.numbers("momentum", momentum)
    if number.size != 1 or not 0 <= number.item() < 1:
        checks.refuse("momentum", "lie in [0, 1)", momentum)
    if nodes is not None and (checks.integer("nodes", nodes, 2) % 2):
        checks.refuse("nodes", "be even", nodes)


def pair_radius(momentum: float, consensus: float, nodes: int | None = None) -> float:
    """The factor by which NoLoCo changes the variance between nodes in a round, in the long run.

    Without gradients, partners being drawn at random each round. The second moments <x x>, <x d>
    and <d d> of a node's distance x from the mean and its momentum d follow a linear map, whose
    spectral radius this is: d' = alpha d - gamma (x - x_partner) / 2, x' = x + d', and a partner's
    distance has a correlation of -1 / (N - 1).

    Args:
      momentum: alpha in [0, 1).
      consensus: gamma, at least 0.
      nodes: N, even; None for very many.

    Returns:
      The radius; below one, differences shrink.

    Raises:
      TypeError: if a number is not real.
      ValueError: if a number is out of range.

    Derived here.

    >>> round(pair_radius(0.5, 0.7), 9)
    0.70010058
    """
    _check(momentum, nodes)
    checks.within("consensus", consensus, 0.0, np.inf)
    alpha, gamma = float(momentum), float(consensus)
    half = 0.5 if nodes is None else 0.5 * nodes / (nodes - 1)
    drift = np.array([-half * gamma, alpha, 0.0])  # <x d'>
    spread = np.array([half * gamma**2, -2 * half * alpha * gamma, alpha**2])  # <d' d'>
    rows = [np.array([1.0, 0, 0]) + 2 * drift + spread, drift + spread, spread]
    return float(np.abs(np.linalg.eigvals(np.stack(rows))).max())


def largest_consensus(momentum: float, nodes: int | None = None) -> float:
    """The consensus weight of NoLoCo at which differences between nodes stop shrinking.

    2 (1 - alpha^2) / (1 - alpha / (N - 1)), where the largest eigenvalue of the map of
    `pair_radius` is one; it is real, as moments stay moments.

    Args:
      momentum: alpha in [0, 1).
      nodes: N, even; None for very many.

    Returns:
      gamma; below it the radius is below one.

    Raises:
      TypeError: if a number is not real.
      ValueError: if a number is out of range.

    Derived here.

    >>> largest_consensus(0.5)
    1.5
    """
    _check(momentum, nodes)
    alpha = float(momentum)
    return 2 * (1 - alpha**2) / (1.0 if nodes is None else 1 - alpha / (nodes - 1))


def warn_unless_contracting(momentum: float, consensus: float, nodes: int) -> None:
    """Warns of a consensus weight with which differences between nodes do not shrink."""
    most = largest_consensus(momentum, nodes)
    if consensus >= most:
        warnings.warn(
            f"NoLoCo with momentum={momentum:g} on {nodes} nodes has differences between nodes that"
            f" grow for a consensus of {most:.3g} or more, and consensus={consensus:g} is given.",
            UserWarning,
            stacklevel=3,
        )


def pair_cost(size: int, num_nodes: int, bits: int, pattern: Pattern = "random") -> float:
    """Payload bits over each link in a round, for pairs and for what they are to replace.

    Both nodes of a pair send two vectors of `size` numbers, the slow parameters and the difference.
    Messages are passed on from node to node, as a ring has no other links.

    Args:
      size: P, numbers of a vector.
      num_nodes: N, even.
      bits: b, of a number.
      pattern: "random" for random partners on a one-way ring, N / 2 hops in the mean;
        "shortest" for the shorter of two ways, by links that carry both; "neighbours" for pairs of
        neighbours by such links; "all_reduce", "all_gather" and "butterfly" (part j of all
        vectors to node j, and the result to all) for one vector of each node on a one-way ring.

    Returns:
      Bits over each link, of the mean of random partners.

    Raises:
      ValueError: if a number is out of range, or the pattern unknown.

    Derived here.

    >>> [pair_cost(10**6, 8, 16, pattern) for pattern in ("all_reduce", "random", "neighbours")]
    [28000000.0, 128000000.0, 32000000.0]
    """
    size = checks.integer("size", size, 0)
    nodes = checks.integer("num_nodes", num_nodes, 2)
    if nodes % 2:
        checks.refuse("num_nodes", "be even", num_nodes)
    bits = checks.integer("bits", bits)
    checks.one_of("pattern", pattern, get_args(Pattern))
    chunk = -(-size // nodes) * bits
    hops = {
        # Of two vectors from each of N nodes, over N links.
        "random": nodes / 2,
        # Over 2 N links: the mean of min(d, N - d), d = 1 ... N - 1, which adds up to N^2 / 4.
        "shortest": nodes**2 / 4 / (nodes - 1) / 2,
        "neighbours": 1.0,
    }
    if pattern in hops:
        return float(2 * size * bits * hops[pattern])
    if pattern == "all_gather":
        return float((nodes - 1) * size * bits)
    if pattern == "all_reduce":
        return float(2 * (nodes - 1) * chunk)
    return float(chunk * nodes * (nodes - 1) / 2 + (nodes - 1) * chunk)
