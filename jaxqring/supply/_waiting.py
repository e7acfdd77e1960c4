"""The mathematics of waiting: for the slowest link, for a herald, in a memory.

Geometric waiting times lead to systems of equations that are triangular in the number of links
not yet ready, with positive terms only: nothing cancels, and a probability of zero is no
exception.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.codes._binomial import binomial_pmf

#: Seconds, and the domain of all times here, so that products of a few of them, and of their
#: derivatives, are finite in float32.
SHORTEST, LONGEST = 1e-9, 1e9


def whole_number(argument: str, value: int, least: int, most: float = np.inf) -> int:
    """A static integer in [least, most].

    Raises:
      ValueError: if it is another.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        rule = f"of at least {least}" if np.isinf(most) else f"in [{least}, {most}]"
        checks.refuse(argument, f"be an integer {rule}", value)
    return int(value)


def decay_rates(t1: ArrayLike, t2: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """(..., 4, 4) rates in 1/seconds at which correlation i, k decays, and a count of clips."""
    (life, life_flag), (coherence, coherence_flag) = (
        checks.bounded(name, value, SHORTEST, np.inf) for name, value in (("t1", t1), ("t2", t2))
    )
    if not checks.is_traced((t1, t2)) and np.any(np.asarray(t2) > 2 * np.asarray(t1) * (1 + 1e-6)):
        checks.refuse("t2", f"be at most 2 t1 = {2 * np.asarray(t1)}", t2)
    # Traced values may still break t2 <= 2 t1; flag it and take the largest t2 there is.
    high = jnp.where(coherence > 2 * life * (1 + 1e-6), 1.0, 0.0).astype(life.dtype)
    coherence = jnp.where(coherence > 2 * life, 2 * life, coherence)
    life, coherence = jnp.broadcast_arrays(life, coherence)
    one_half = jnp.stack([jnp.zeros_like(life), 1 / coherence, 1 / coherence, 1 / life], axis=-1)
    return one_half[..., :, None] + one_half[..., None, :], life_flag + coherence_flag + high


def _fewer(prob: jax.Array, count: int) -> jax.Array:
    """What one attempt on r links that are not yet ready does, for r = 0 to `count`.

    Returns:
      (..., count + 1, count + 1) Pr[j still not ready | r] / prob for j < r, else 0: polynomials
      in `prob` with positive terms, so that the division by a small number is never made.
    """
    r, j = np.arange(count + 1)[:, None], np.arange(count + 1)
    ratio = np.where(j < r, r / np.where(j < r, r - j, 1), 0.0)  # C(r, j) over C(r - 1, j)
    return binomial_pmf(r - j - 1, r - 1, prob[..., None, None]) * ratio.astype(prob.dtype)


@functools.partial(jax.jit, static_argnums=1)
def scaled_slowest(prob: jax.Array, count: int) -> jax.Array:
    """(...) prob * E[attempts until the slowest of `count` links is ready], finite at zero."""
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

    A state is (s, r): whether the first link, and how many others, are not yet ready. What is
    ready decays once per attempt, D(s, r) = x(s, r) E[D(next)], with the terms of staying on the
    left hand side and both sides divided by `prob`.
    """
    rest = count - 1
    # A link that never succeeds waits for ever; this floor decides how long that is.
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
    leave = jnp.where(np.arange(2 * count) == 0, 1.0, leave)  # all are ready: nothing more decays
    system = leave[..., None] * jnp.eye(2 * count, dtype=leave.dtype) - decay[..., None] * moves
    ready = jnp.zeros((*system.shape[:-1], 1), system.dtype).at[..., 0, 0].set(1.0)
    return solve_triangular(system, ready, lower=True)[..., -1, 0]


def expected_slowest(prob: ArrayLike, count: int) -> jax.Array:
    """The mean number of attempts until all of several links have succeeded.

    Args:
      prob: (...) probability that an attempt on one link succeeds, in [1e-18, 1]; independent.
      count: how many links try at once, each until it succeeds; a static integer >= 1.

    Returns:
      (...) mean of the largest of `count` geometric variables, in attempts. Found from the mean
      for fewer links by positive terms only, so that nothing cancels.

    Raises:
      ValueError: if a probability known now is out of range, or `count` is below one.

    Reference: derived here; the alternating sum over subsets of links that it equals is well
    known, see Bernardes, Praxmeyer and van Loock, Phys. Rev. A 83, 012323 (2011).

    >>> round(float(expected_slowest(0.1, 2)), 4), round(float(expected_slowest(0.1, 4)), 4)
    (14.7368, 20.2734)
    """
    prob, _ = checks.bounded("prob", prob, 1e-18, 1.0)
    return scaled_slowest(prob, whole_number("count", count, 1)) / prob


def mean_power(left: jax.Array, lost: jax.Array, count: jax.Array) -> jax.Array:
    """(1 - x^n) / (n (1 - x)) for x = `left` = 1 - `lost` in [0, 1] and n = `count` >= 1."""
    small = count * lost < 0.1
    # Near x = 1 both sides of the fraction vanish, and it is a short binomial series.
    series, term = jnp.zeros_like(lost), jnp.ones_like(lost)
    step = jnp.where(small, lost, 0.0)
    for m in range(12):
        series = series + term
        term = term * (m + 1 - count) * step / (m + 2)
    # Each logarithm where its argument is exact, and none of zero.
    near, far = lost < 0.5, left > jnp.finfo(left.dtype).tiny
    log = jnp.where(
        near, jnp.log1p(-jnp.where(near, lost, 0.0)), jnp.log(jnp.where(near | ~far, 1.0, left))
    )
    power = jnp.where(far, jnp.exp(count * log), 0.0)
    return jnp.where(small, series, (1 - power) / (count * jnp.where(small, 1.0, lost)))
