"""The number of groups that liars spoil."""

import math

import numpy as np

from jaxqring import _checks as checks
from jaxqring.robust._topologies import check_group_size


def spoilt_groups(num_nodes: int, group_size: int, liars: int) -> np.ndarray:
    """The law of the number of groups that have a liar, where nodes are dealt at random.

    Exact, in integers: C(G, j) times the deals of f liars that leave none of j groups out, by
    inclusion and exclusion, of C(N, f).

    Args:
      num_nodes: N.
      group_size: s, which divides N.
      liars: f.

    Returns:
      (G + 1,) probabilities of 0, 1, ..., G spoilt groups. A rule over the means of groups is safe
      while fewer than half of them are spoilt.

    Raises:
      ValueError: if an argument is out of its domain.

    >>> spoilt_groups(12, 3, 2).round(6)
    array([0.      , 0.181818, 0.818182, 0.      , 0.      ])
    """
    num_nodes = checks.integer("num_nodes", num_nodes, 2)
    check_group_size(group_size, num_nodes, masked=False)
    liars = checks.integer("liars", liars, 0, num_nodes)
    groups = num_nodes // group_size
    deals = math.comb(num_nodes, liars)

    def spoiling(count: int) -> int:
        """The deals that spoil exactly these groups."""
        return sum(
            (-1) ** left * math.comb(count, left) * math.comb((count - left) * group_size, liars)
            for left in range(count + 1)
        )

    ways = [math.comb(groups, count) * spoiling(count) for count in range(groups + 1)]
    return np.array([way / deals for way in ways])
