"""Binomial probabilities whose derivatives are finite everywhere, the ends of [0, 1] included.

Counts and totals are static, so that coefficients are computed once, in double precision.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from jax.scipy.special import xlog1py, xlogy


def binomial_pmf(counts: np.ndarray | int, totals: np.ndarray | int, prob: jax.Array) -> jax.Array:
    """The probability of exactly `counts` successes.

    Args:
      counts: (...) integers, static; a count outside [0, total] has probability zero.
      totals: (...) numbers of trials, static.
      prob: (...) probability of one success, in [0, 1]; all three broadcast.

    Returns:
      (...) C(total, count) prob^count (1 - prob)^(total - count), of the type of `prob`. It can
      be differentiated any number of times, and no derivative is infinite.

    >>> round(float(binomial_pmf(2, 4, jnp.float32(0.5))), 4)
    0.375
    """
    count, total = np.broadcast_arrays(counts, totals)
    inside = (count >= 0) & (count <= total)
    if not inside.any():
        return jnp.zeros(np.broadcast_shapes(count.shape, jnp.shape(prob)), jnp.result_type(prob))
    hits = np.where(inside, count, 0)
    misses = np.where(inside, total - count, 0)
    gammaln = scipy.special.gammaln
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
    """The probability of more than `counts` successes.

    Args:
      counts: (...) integers, static; below zero the answer is one, from the total on it is zero.
      totals: (...) numbers of trials, static.
      prob: (...) probability of one success, in [0, 1]; all three broadcast.

    Returns:
      (...) of the type of `prob`: the regularised incomplete beta function I_prob(count + 1,
      total - count). It is summed from its terms, all positive, on the smaller side: in float32
      that is more accurate than JAX's `betainc`, which `shard_map` also refuses on mapped
      values. The derivative is total binomial_pmf(count, total - 1), finite everywhere.

    >>> round(float(binomial_tail(2, 4, jnp.float32(0.5))), 4)
    0.3125
    """
    count, total = np.broadcast_arrays(counts, totals)
    number = np.arange(int(total.max()) + 1)
    below = number <= count[..., None]

    @jax.custom_jvp
    def probability(p: jax.Array) -> jax.Array:
        terms = binomial_pmf(number, total[..., None], p[..., None])
        low = jnp.sum(jnp.where(below, terms, 0), axis=-1)
        high = jnp.sum(jnp.where(below, 0, terms), axis=-1)
        return jnp.where(high < low, high, 1 - low)

    @probability.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        (p,), (dp,) = primals, tangents
        return probability(p), total.astype(p.dtype) * binomial_pmf(count, total - 1, p) * dp

    return probability(prob)


def any_of(total: int, prob: jax.Array) -> jax.Array:
    """The probability (...) that at least one of very many independent events happens.

    Args:
      total: number of events.
      prob: (...) probability of each, in [0, 1].

    >>> round(float(any_of(1_000_000, jnp.float32(1e-6))), 4)
    0.6321
    """
    sure = prob >= 1
    return jnp.where(sure, 1.0, -jnp.expm1(total * jnp.log1p(-jnp.where(sure, 0, prob))))
