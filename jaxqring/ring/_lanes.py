"""Chunks in lanes, as the wire packs them, and in rows: one chunk for each node on a device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def in_lanes(values: jax.Array, lanes: int) -> jax.Array:
    """(..., c) as (..., L, G), padded with zeros."""
    *lead, size = values.shape
    groups = -(-size // lanes)
    padding = [(0, 0)] * len(lead) + [(0, groups * lanes - size)]
    return jnp.pad(values, padding).reshape(*lead, lanes, groups)


def out_of_lanes(values: jax.Array, size: int) -> jax.Array:
    """The inverse of `in_lanes`."""
    return values.reshape(*values.shape[:-2], -1)[..., :size]


def one_lane(values: jax.Array, chunk: jax.Array, lane: jax.Array | int) -> jax.Array:
    """(k, G) one lane of one chunk of each node's (k, N, L, G).

    Lane by lane, as vectors: of a slice with two lanes XLA makes slow code.
    """
    size = values.shape[-1]

    def of_node(rows: jax.Array, at: jax.Array) -> jax.Array:
        start = at, jnp.int32(lane), np.int32(0)
        return lax.dynamic_slice(rows, start, (1, 1, size)).reshape(size)

    return each_node(of_node, values, chunk)


def one_row(values: jax.Array, chunk: jax.Array) -> jax.Array:
    """(k, c) one chunk of each node's (k, N, c)."""
    of_node = functools.partial(lax.dynamic_index_in_dim, keepdims=False)
    return each_node(of_node, values, chunk)


def put_row(tables: jax.Array, at: jax.Array, row: jax.Array) -> jax.Array:
    """Tables (k, N, c) with the chunk at one place of each replaced by a row (k, c)."""
    return lax.dynamic_update_slice_in_dim(tables, row[:, None], at, axis=1)


def turned(tables: jax.Array, first: jax.Array) -> jax.Array:
    """Tables (k, N, ...) whose rows are moved on by `first` (k,) places, around the end."""

    def of_node(rows: jax.Array, by: jax.Array) -> jax.Array:
        count = rows.shape[0]
        from_row = (jnp.arange(count, dtype=jnp.int32) - by) % count
        return rows.at[from_row].get(mode="promise_in_bounds", unique_indices=True)

    return each_node(of_node, tables, first)


def each_node(function: Callable, *arguments: Any) -> Any:
    """`vmap` over the nodes of a device, without its gathers and loops where there is one."""
    if jax.tree.leaves(arguments)[0].shape[0] > 1:
        return jax.vmap(function)(*arguments)
    only = jax.tree.map(lambda leaf: leaf[0], arguments)
    return jax.tree.map(lambda leaf: leaf[None], function(*only))
