"""Iterations that find the maximum of a ring, for comparison with gathered exponents.

They are for noise that is small and added to real numbers. A wrong symbol is no small noise, and a
liar is none either: `FixedPoint(clip="robust")` gathers exponents instead.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key


def max_consensus(
    values: ArrayLike, iterations: int, *, noise: float = 0.0, key: Key | None = None
) -> jax.Array:
    """Plain max consensus on a ring: each node keeps the largest number that it has seen.

    Every error that is positive stays for ever, so that with noise the numbers drift upwards
    without end.

    Args:
      values: (..., N) one number of each node.
      iterations: in each, every node hears its two neighbours.
      noise: standard deviation of the normal error of each number that is heard.
      key: typed PRNG key; may be None without noise.

    Returns:
      (..., N) what the nodes have at the end.

    Raises:
      TypeError: if the values are not real, or the key is not a typed one.
      ValueError: if there are fewer than two nodes, or a number is out of range.

    >>> max_consensus([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], 4)
    Array([9., 9., 9., 9., 9., 9., 9., 9.], dtype=float32)
    """
    start = _checked(values, iterations, noise, key)

    def step(held: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        left, right = _heard(held, number, noise, key)
        return jnp.maximum(held, jnp.maximum(left, right)), None

    return lax.scan(step, start, jnp.arange(iterations))[0]


def admm_maximum(
    values: ArrayLike,
    iterations: int,
    *,
    penalty: float = 0.5,
    noise: float = 0.0,
    key: Key | None = None,
) -> jax.Array:
    """The maximum as a consensus programme, by the alternating direction method of multipliers.

    The least sum of x_i with x_i >= a_i and equal neighbours has all x_i at the maximum. Each node
    takes x <- max(a, (rho (2 x + x_left + x_right) - u - 1) / (4 rho)) and then
    u <- u + rho (2 x - x_left - x_right), from x = a and u = 0.

    Args:
      values: (..., N) a, one number of each node.
      iterations: each node hears its two neighbours twice in each.
      penalty: rho, above zero.
      noise: standard deviation of the normal error of each number that is heard.
      key: typed PRNG key; may be None without noise.

    Returns:
      (..., N) x of the nodes at the end.

    Raises:
      TypeError: if the values are not real, or the key is not a typed one.
      ValueError: if there are fewer than two nodes, or a number is out of range.

    Reference: the programme is that of RD-MC, arXiv 2403.18509, by its public summary. The updates
    are ours, derived from the programme: those of the paper, which average a window of earlier
    iterations against noise, were not available to us.

    >>> found = admm_maximum([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], 100)
    >>> round(float(abs(found - 9).max()), 4)
    0.6293
    """
    start = _checked(values, iterations, noise, key)
    rho = checks.open_interval("penalty", penalty, 0.0, float("inf"))

    def step(state: tuple, number: jax.Array) -> tuple[tuple, None]:
        x, u = state
        left, right = _heard(x, 2 * number, noise, key)
        x = jnp.maximum(start, (rho * (2 * x + left + right) - u - 1) / (4 * rho))
        left, right = _heard(x, 2 * number + 1, noise, key)
        return (x, u + rho * (2 * x - left - right)), None

    return lax.scan(step, (start, jnp.zeros_like(start)), jnp.arange(iterations))[0][0]


def _checked(values: ArrayLike, iterations: int, noise: float, key: Key | None) -> jax.Array:
    start = checks.real("values", values)
    if start.ndim < 1 or start.shape[-1] < 2:
        checks.refuse("values", "have an axis of two or more nodes", start.shape)
    checks.integer("iterations", iterations)
    checks.within("noise", noise, 0.0, float(np.finfo(np.float32).max))
    if noise or key is not None:
        checks.prng_key("key", key)
    return start


def _heard(
    held: jax.Array, number: jax.Array, noise: float, key: Key | None
) -> tuple[jax.Array, jax.Array]:
    """(..., N) the numbers of the left and of the right neighbour, as they arrive."""
    sent = jnp.stack([jnp.roll(held, 1, axis=-1), jnp.roll(held, -1, axis=-1)])
    if noise:
        assert key is not None  # `_checked` has asked for one
        sent += noise * jax.random.normal(jax.random.fold_in(key, number), sent.shape, sent.dtype)
    return sent[0], sent[1]
