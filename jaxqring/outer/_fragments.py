"""Fragments of the parameters: leaves in parts of balanced size."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import PyTree


@dataclasses.dataclass(frozen=True)
class Fragments:
    """A partition of the leaves of a pytree.

    One fragment is the tree itself; several are dictionaries of leaves by their paths.

    Attributes:
      places: for each fragment, the indices of its leaves.
    """

    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tree: PyTree, *, count: int) -> "Fragments":
        """Puts the largest leaf that is left into the smallest fragment, until none is left.

        Ties go to the first. The largest fragment then has at most 4/3 - 1/(3 F) of the values
        that that of the best partition has.

        Args:
          tree: of arrays.
          count: F.

        Raises:
          ValueError: if there are fewer leaves than fragments.

        Reference: Graham, SIAM J. Appl. Math. 17, 416 (1969), for the bound.
        """
        leaves = jax.tree.leaves(tree)
        if count > len(leaves):
            rule = f"be at most the number of leaves of `params`, {len(leaves)}"
            checks.refuse("fragments", rule, count)
        loads, places = [0] * count, [[] for _ in range(count)]  # type: tuple[list, list[list]]
        for at in sorted(range(len(leaves)), key=lambda at: (-math.prod(np.shape(leaves[at])), at)):
            least = loads.index(min(loads))
            # A fragment without a leaf comes before one of empty leaves.
            empty = [place for place in range(count) if not places[place]]
            least = empty[0] if empty else least
            loads[least] += math.prod(np.shape(leaves[at]))
            places[least].append(at)
        return cls(tuple(tuple(sorted(part)) for part in places))

    @property
    def count(self) -> int:
        """F."""
        return len(self.places)

    def split(self, tree: PyTree) -> list[PyTree]:
        """All fragments."""
        return [self.part(tree, place) for place in range(self.count)]

    def part(self, tree: PyTree, place: int) -> PyTree:
        """One fragment."""
        if self.count == 1:
            return tree
        named = jax.tree_util.tree_leaves_with_path(tree)
        chosen = [named[at] for at in self.places[place]]
        return {jax.tree_util.keystr(path): leaf for path, leaf in chosen}

    def put(self, tree: PyTree, place: int, part: Any) -> PyTree:
        """The tree with another fragment in its place."""
        if self.count == 1:
            return part
        named, treedef = jax.tree_util.tree_flatten_with_path(tree)
        leaves = [leaf for _, leaf in named]
        for at in self.places[place]:
            leaves[at] = part[jax.tree_util.keystr(named[at][0])]
        return jax.tree.unflatten(treedef, leaves)
