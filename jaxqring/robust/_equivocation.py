"""Equivocation: a relay that passes on other values than it has received."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.robust._lies import liars_mask


def relayed(
    table: jax.Array,
    node: jax.Array | int,
    liars: Sequence[int] | jax.Array | np.ndarray,
    scale: ArrayLike = -1.0,
) -> jax.Array:
    """The values of all nodes as one node gets them in a ring whose liars alter what they relay.

    In the gathering half of a ring the value of node j reaches node i by way of j + 1, ..., i - 1.
    Every liar on that way multiplies what it passes on by `scale`; its own value it sends as it is.
    So nodes on either side of a liar hold different values, which `agreed` finds, where a vector
    that is a lie from the beginning is the same lie for all.

    Args:
      table: (N, ...) the values that arrive without a lie.
      node: i, the node that gets them; may be traced.
      liars: (N,) bool mask, or the numbers of the liars.
      scale: the factor.

    Returns:
      (N, ...) the values that node i gets.

    Raises:
      ValueError: if the liars are no nodes of the table.

    >>> relayed(jnp.ones(4), 3, [1])
    Array([-1.,  1.,  1.,  1.], dtype=float32)
    """
    num_nodes = checks.integer("len(table)", jnp.shape(table)[0])
    mask = liars_mask(liars, num_nodes)
    numbers = jnp.arange(num_nodes)
    steps = (jnp.asarray(node) - numbers) % num_nodes  # hops from j to i, none to itself
    place = (numbers[None] - numbers[:, None]) % num_nodes  # hops from j to a relay
    between = (place > 0) & (place < steps[:, None])
    lies = jnp.sum(between & mask[None], axis=1)
    factor = jnp.asarray(scale, table.dtype) ** lies
    return table * factor.reshape(-1, *[1] * (table.ndim - 1))
