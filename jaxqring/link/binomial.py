"""Binomial probabilities whose derivatives are finite everywhere, the ends of [0, 1] included.

Counts and totals are static, so that coefficients are computed once, in double precision.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, xlog1py, xlogy
from scipy.special import gammaln


def binomial_pmf(counts: np.ndarray | int, totals: np.ndarray | int, prob: jax.Array) -> jax.Array:
    """The probability of exactly so many successes.

    Args:
      counts: (...) integers, static; a count outside [0, total] has probability zero.
      totals: (...) numbers of trials, static.
      prob: (...) probability of one success, in [0, 1]; all three broadcast.

    Returns:
      (...) C(total, count) prob^count (1 - prob)^(total - count), of the type of `prob`. It can
      be differentiated any number of times, and nowhere is a derivative infinite.

    >>> round(float(binomial_pmf(2, 4, jnp.float32(0.5))), 4)
    0.375
    """
    count, total = np.broadcast_arrays(counts, totals)
    inside = (count >= 0) & (count <= total)
    if not inside.any():
        return jnp.zeros(np.broadcast_shapes(count.shape, jnp.shape(prob)), jnp.result_type(prob))
    hits = np.where(inside, count, 0)
    misses = np.where(inside, total - count, 0)
    log_ways = gammaln(hits + misses + 1.0) - gammaln(hits + 1.0) - gammaln(misses + 1.0)

    @jax.custom_jvp
    def probability(p: jax.Array) -> jax.Array:
        kind = p.dtype
        logs = xlogy(hits.astype(kind), p) + xlog1py(misses.astype(kind), -p)
        return jnp.where(inside, jnp.exp(logs + log_ways.astype(kind)), 0).astype(kind)

    @probability.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        (p,), (dp,) = primals, tangents
        fewer = binomial_pmf(count - 1, total - 1, p) - binomial_pmf(count, total - 1, p)
        return probability(p), total.astype(p.dtype) * fewer * dp

    return probability(prob)


def binomial_tail(counts: np.ndarray | int, totals: np.ndarray | int, prob: jax.Array) -> jax.Array:
    """The probability of more than so many successes.

    Args:
      counts: (...) integers, static; below zero the answer is one, from the total on it is zero.
      totals: (...) numbers of trials, static.
      prob: (...) probability of one success, in [0, 1]; all three broadcast.

    Returns:
      (...) the regularised incomplete beta function I_prob(count + 1, total - count), of the type
      of `prob`; its derivative is total binomial_pmf(count, total - 1), finite everywhere.

    >>> round(float(binomial_tail(2, 4, jnp.float32(0.5))), 4)
    0.3125
    """
    count, total = np.broadcast_arrays(counts, totals)
    inside = (count >= 0) & (count < total)
    above = np.where(inside, count + 1, 1)
    rest = np.where(inside, total - count, 1)

    @jax.custom_jvp
    def probability(p: jax.Array) -> jax.Array:
        kind = p.dtype
        tail = betainc(above.astype(kind), rest.astype(kind), p)
        return jnp.where(inside, tail, (count < 0).astype(kind)).astype(kind)

    @probability.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        (p,), (dp,) = primals, tangents
        slope = np.where(inside, total, 0).astype(p.dtype) * binomial_pmf(count, total - 1, p)
        return probability(p), slope * dp

    return probability(prob)
