"""The kinds of errors: which of them a random word decides for.

A random word is compared with thresholds in units of 2^-32. They are made of float32 probabilities
by products with powers of two, comparisons and sums of integers alone, or sums of floats in an
order that is written out: exact on every platform, so that one word decides alike on all of them.
"""

import jax
import jax.numpy as jnp
import numpy as np

# The largest float32 below 2^32, which a uint32 can hold.
_BELOW = np.float32(2.0**32 - 2.0**8)
_FULL = np.uint32(2**32 - 1)


def below(probs: jax.Array) -> jax.Array:
    """Thresholds (uint32) that random words lie below with these probabilities."""
    scaled = jnp.minimum(jnp.clip(probs, 0.0, 1.0) * np.float32(2.0**32), _BELOW)
    return jnp.where(probs < 1, scaled.astype(jnp.uint32), _FULL)


def kind_thresholds(probs: jax.Array) -> jax.Array:
    """Thresholds at which a random word u decides for a kind: k or above if u < threshold[k - 1].

    Args:
      probs: (..., K) float32 probabilities of the kinds 1, ..., K; kind 0 has the remainder.

    Returns:
      (..., K) uint32, decreasing. They are added up as integers, so that the probability of a rare
      kind is not the difference of two rounded floats; any excess of rounding is taken from the
      likeliest kind.
    """
    widths = below(probs)
    kinds = jnp.arange(probs.shape[-1], dtype=jnp.int32)
    likeliest = kinds == jnp.argmax(probs, axis=-1, keepdims=True)
    others = jnp.sum(jnp.where(likeliest, 0, widths), axis=-1, keepdims=True, dtype=jnp.uint32)
    widths = jnp.where(likeliest, jnp.minimum(widths, _FULL - others), widths)
    return jnp.cumsum(widths[..., ::-1], axis=-1, dtype=jnp.uint32)[..., ::-1]


def shared_envelope(table: jax.Array, envelope: jax.Array) -> jax.Array:
    """The envelope (S, 4) of links that share errors; the table itself if they are too different.

    Too different are links whose errors together would fill more than all symbols.
    """
    errors = (envelope[:, 1] + envelope[:, 2]) + envelope[:, 3]
    return jnp.where(jnp.all(errors <= 1), envelope, table)


def decide(
    drawn: jax.Array, sent: jax.Array, above: jax.Array, widths: jax.Array | None
) -> jax.Array:
    """The errors (uint32) that random words choose for the symbols sent."""
    error = jnp.zeros_like(drawn)
    thresholds = [_of_symbol(above[:, kind], sent) for kind in range(3)]
    if widths is None:
        for threshold in thresholds:
            error += (drawn < threshold).astype(jnp.uint32)
        return error
    for kind, low in enumerate([*thresholds[1:], jnp.zeros_like(drawn)]):
        width = jnp.minimum(_of_symbol(widths[:, kind], sent), thresholds[kind] - low)
        error = jnp.where(drawn - low < width, np.uint32(kind + 1), error)
    return error


def _of_symbol(by_symbol: jax.Array, symbol: jax.Array) -> jax.Array:
    """by_symbol[symbol] for (1,) or (4,) values; selects are faster than a gather."""
    if by_symbol.shape[0] == 1:
        return by_symbol[0]
    low, high = (symbol & 1).astype(bool), symbol >= 2
    first = jnp.where(low, by_symbol[1], by_symbol[0])
    return jnp.where(high, jnp.where(low, by_symbol[3], by_symbol[2]), first)
