"""The axes that `shard_map` with check_vma knows values to vary over, in their types."""

from typing import Any

import jax
from jax import lax

from jaxqring._types import PyTree


def varying(*values: Any) -> frozenset:
    """The axes that any of the arrays varies over; empty without check_vma."""
    return frozenset().union(*(jax.typeof(value).mat.varying for value in values))


def as_varying(tree: PyTree, axes: frozenset) -> PyTree:
    """The tree with every leaf varying over the axes, in the types of `shard_map`."""

    def cast(leaf: Any) -> Any:
        missing = tuple(name for name in sorted(axes - varying(leaf), key=str))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if axes else tree


def mapped_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, each varying over all axes that any of them varies over."""
    return as_varying(arrays, varying(*arrays))
