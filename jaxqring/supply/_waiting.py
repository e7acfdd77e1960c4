"""The mathematics of waiting: for the slowest link, for a herald, in a memory.

Geometric waiting times lead to systems of equations that are triangular in the number of links
not yet ready, with positive terms only: nothing cancels, not even at a probability of zero.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.codes._binomial import binomial_pmf
from jaxqring.physics.channels import relaxation_times

#: The domain of all times here, in seconds: products of a few of them, and of their derivatives,
#: are finite in float32.
SHORTEST, LONGEST = 1e-9, 1e9


def decay_rates(t1: ArrayLike, t2: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Decay rates (..., 4, 4) of correlations i, k in 1/seconds, and a count of clipped times."""
    life, coherence, flag = relaxation_times(t1, t2, SHORTEST)
    life, coherence = jnp.broadcast_arrays(life, coherence)
    per_half = jnp.stack([jnp.zeros_like(life), 1 / coherence, 1 / coherence, 1 / life], axis=-1)
    return per_half[..., :, None] + per_half[..., None, :], flag


def _fewer(prob: jax.Array, count: int) -> jax.Array:
    """Transitions of one attempt on r links that are not yet ready, for r = 0 to `count`.

    Returns:
      (..., count + 1, count + 1) Pr[j still not ready | r] / prob for j < r, else 0: polynomials
      in `prob` with positive terms, so that nothing is divided by a small number.
    """
    r, j = np.arange(count + 1)[:, None], np.arange(count + 1)
    ratio = np.where(j < r, r / np.where(j < r, r - j, 1), 0.0)  # C(r, j) over C(r - 1, j)
    return binomial_pmf(r - j - 1, r - 1, prob[..., None, None]) * ratio.astype(prob.dtype)


@functools.partial(jax.jit, static_argnums=1)
def scaled_slowest(prob: jax.Array, count: int) -> jax.Array:
    """`prob` times the mean attempts (...) until all `count` links are ready: finite at zero."""
    fewer = _fewer(prob, count)[..., 1:, :]
    leave = jnp.sum(fewer, axis=-1, keepdims=True)
    system = leave * jnp.eye(count, dtype=prob.dtype) - fewer[..., 1:]
    ones = jnp.ones((*prob.shape, count, 1), prob.dtype)
    return solve_triangular(system, ones, lower=True)[..., -1, 0]


@functools.partial(jax.jit, static_argnums=3)
def waiting_decay(prob: jax.Array, one: jax.Array, other: jax.Array, count: int) -> jax.Array:
    """The mean decay while the pairs of a chain wait for the slowest one.

    Args:
      prob: (...) probability of success per attempt and link.
      one: (...) decay of the first link's pair in one attempt time, as an exponent.
      other: (...) the same for each other link's pair.
      count: links, at least 2.

    Returns:
      (...) E[exp(-one W_1 - other (W_2 + ...))], W_l the attempts from success on link l to
      success on the last link.

    A state is (s, r): s = 1 while the first link is not yet ready, and r others are not. Ready
    pairs decay once per attempt, D(s, r) = x(s, r) E[D(next)], with the terms of staying on the
    left-hand side and both sides divided by `prob`.
    """
    rest = count - 1
    # A link that never succeeds would wait for ever; this floor bounds the wait.
    prob = jnp.where(prob > 1e-15, prob, 1e-15)
    fewer = _fewer(prob, rest)
    stay = binomial_pmf(0, np.arange(count), prob[..., None])
    all_of = prob[..., None, None] * fewer + stay[..., None] * jnp.eye(count, dtype=prob.dtype)
    blocks = [[fewer, jnp.zeros_like(fewer)], [all_of, (1 - prob)[..., None, None] * fewer]]
    moves = jnp.concatenate([jnp.concatenate(row, axis=-1) for row in blocks], axis=-2)

    first, others = np.divmod(np.arange(2 * count), count)
    exponent = one[..., None] * (1 - first) + other[..., None] * (rest - others)
    decay = jnp.exp(-exponent)
    # Summed from the moves themselves, so that rounding leaves the answer at one without decay.
    leave = decay * jnp.sum(moves, axis=-1) - jnp.expm1(-exponent) / prob[..., None]
    leave = jnp.where(np.arange(2 * count) == 0, 1.0, leave)  # all are ready: decay ends
    system = leave[..., None] * jnp.eye(2 * count, dtype=leave.dtype) - decay[..., None] * moves
    ready = jnp.zeros((*system.shape[:-1], 1), system.dtype).at[..., 0, 0].set(1.0)
    return solve_triangular(system, ready, lower=True)[..., -1, 0]


def expected_slowest(prob: ArrayLike, count: int) -> jax.Array:
    """The mean number of attempts until all of several links have succeeded.

    Args:
      prob: (...) probability that an attempt on one link succeeds, in [1e-18, 1]; independent.
      count: number of links that try at once, each until it succeeds; a static integer >= 1.

    Returns:
      (...) mean of the largest of `count` geometric variables, in attempts. Found from the mean
      for fewer links by positive terms only, so that nothing cancels.

    Raises:
      ValueError: if a concrete probability is out of range, or `count` is not an integer of at
        least 1.

    Reference: derived here; the alternating sum over subsets of links that it equals is well
    known, see Bernardes, Praxmeyer and van Loock, Phys. Rev. A 83, 012323 (2011).

    >>> round(float(expected_slowest(0.1, 2)), 4), round(float(expected_slowest(0.1, 4)), 4)
    (14.7368, 20.2734)
    """
    prob, _ = checks.bounded("prob", prob, 1e-18, 1.0)
    return scaled_slowest(prob, checks.integer("count", count, 1)) / prob


def mean_power(survival: jax.Array, loss: jax.Array, count: jax.Array) -> jax.Array:
    """(1 - x^n) / (n (1 - x)) for x = `survival` = 1 - `loss` in [0, 1] and n = `count` >= 1."""
    small = count * loss < 0.1
    # Near x = 1 both sides of the fraction vanish, and it is a short binomial series.
    series, term = jnp.zeros_like(loss), jnp.ones_like(loss)
    ratio = jnp.where(small, loss, 0.0)
    for m in range(12):
        series = series + term
        term = term * (m + 1 - count) * ratio / (m + 2)
    # Each logarithm where its argument is exact, and never of zero.
    near, far = loss < 0.5, survival > jnp.finfo(survival.dtype).tiny
    log = jnp.where(
        near,
        jnp.log1p(-jnp.where(near, loss, 0.0)),
        jnp.log(jnp.where(near | ~far, 1.0, survival)),
    )
    power = jnp.where(far, jnp.exp(count * log), 0.0)
    return jnp.where(small, series, (1 - power) / (count * jnp.where(small, 1.0, loss)))
