"""Classical rivals of GapIP at the same error."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.audit._gap_ip import decision_error, plan_gap_ip


def simhash_agreement(inner_product: ArrayLike) -> jax.Array:
    """Probability (...) that two unit vectors lie on the same side of a random plane.

    Reference: Charikar, STOC 2002.

    >>> print(f"{simhash_agreement(0.1):.6f} {simhash_agreement(-0.1):.6f}")
    0.531884 0.468116
    """
    value, _ = checks.bounded("inner_product", inner_product, -1.0, 1.0)
    return 1 - jnp.arccos(value) / jnp.pi


def simhash(key: Key, inner_product: ArrayLike, bits: int) -> jax.Array:
    """Decides by a majority of agreeing signs: SimHash with shared random planes.

    No plane is drawn: the number of signs that agree is binomial.

    Args:
      key: typed PRNG key.
      inner_product: () of the unit gradients.
      bits: number of signs that are sent, odd.

    Returns:
      () bool, True if the gradients are taken to agree.

    Raises:
      TypeError: if `key` is not a typed PRNG key.
      ValueError: if `bits` is not an odd positive integer, or a concrete inner product is outside
        [-1, 1].

    >>> bool(simhash(jax.random.key(0), 0.9, 99))
    True
    """
    checks.prng_key("key", key)
    if checks.integer("bits", bits) % 2 == 0:
        checks.refuse("bits", "be odd, so that there is a majority", bits)
    agree = jax.random.binomial(key, bits, simhash_agreement(inner_product))
    return agree > bits / 2


def simhash_bits(tau: float, error: float) -> int:
    """The fewest signs, an odd number, that decide wrongly with probability `error` at most.

    Exact, by the binomial distribution at +-tau.

    Args:
      tau: the gap, in (0, 1).
      error: probability of a wrong decision, in (0, 1/2).

    Returns:
      The number of bits.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if one is out of range.

    >>> simhash_bits(0.1, 0.09863), simhash_bits(0.05, 0.09140), simhash_bits(0.02, 0.04819)
    (409, 1749, 17049)
    """
    tau = checks.open_interval("tau", tau)
    error = checks.open_interval("error", error, 0.0, 0.5)
    agree = 1 - math.acos(tau) / math.pi

    def wrong(half: int) -> float:
        return float(scipy.stats.binom.cdf(half, 2 * half + 1, agree))

    high = 1
    while wrong(high) > error:
        high *= 2
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wrong(middle) <= error else (middle, high)
    return 2 * high + 1


def random_sign_variance(server: ArrayLike, client: ArrayLike, rows: int) -> jax.Array:
    """Variance () of the estimate of <u, v> by `rows` rows of random signs.

    (1 + <u, v>^2 - 2 sum u_i^2 v_i^2) / rows for unit vectors.

    Reference: our derivation.
    """
    u, v = jnp.asarray(server), jnp.asarray(client)
    return (1 + jnp.vdot(u, v, precision="highest") ** 2 - 2 * jnp.sum(u**2 * v**2)) / rows


def random_sign_bits(tau: float, error: float, width: int = 16) -> int:
    """Number of bits of random-sign projections that decide wrongly with probability `error`.

    Approximate: the estimate is taken for normal with the variance (1 + tau^2) / rows of spread-out
    gradients; each row is a number of `width` bits.

    Args:
      tau: the gap, in (0, 1).
      error: probability of a wrong decision, in (0, 1/2).
      width: bits of a number.

    Returns:
      The number of bits.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if one is out of range.

    >>> random_sign_bits(0.1, 0.09863)
    2688
    """
    tau = checks.open_interval("tau", tau)
    error = checks.open_interval("error", error, 0.0, 0.5)
    rows = math.ceil((1 + tau**2) * (float(scipy.stats.norm.isf(error)) / tau) ** 2)
    return rows * width


class Crossover(NamedTuple):
    """GapIP beside its rivals at one gap, at the error of one run of phase estimation.

    Attributes:
      tau: the gap.
      error: probability of a wrong decision by phase estimation, the larger one of +-tau.
      qubits: of phase estimation.
      simhash_bits: of SimHash.
      random_sign_bits: of random-sign projections.
      full_bits: of the gradient itself.
      quantum_wins: True if qubits are fewer than the bits of each rival.
    """

    tau: float
    error: float
    qubits: int
    simhash_bits: int
    random_sign_bits: int
    full_bits: int
    quantum_wins: bool


def crossover(tau: float, size: int, *, hop_noise: float = 0.0, width: int = 16) -> Crossover:
    """Compares the symbols that GapIP and its rivals send at one gap.

    Args:
      tau: the gap, in (0, 1).
      size: P.
      hop_noise: probability that a hop replaces the register by white noise.
      width: bits of a number.

    Returns:
      A `Crossover`.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if an argument is out of range.

    >>> crossover(0.1, 10**6).quantum_wins, crossover(0.01, 10**6).quantum_wins
    (False, True)
    """
    plan = plan_gap_ip(tau, size)
    errors = [float(decision_error(g, tau, size, hop_noise=hop_noise)) for g in (tau, -tau)]
    error = max(errors)
    full = size * width
    if error >= 0.5:  # no number of repetitions helps
        return Crossover(tau, error, plan.qubits, 1, width, full, False)
    hashed, signs = simhash_bits(tau, error), random_sign_bits(tau, error, width)
    wins = plan.qubits < min(hashed, signs, full)
    return Crossover(tau, error, plan.qubits, hashed, signs, full, wins)


def crossover_gap(size: int, *, hop_noise: float = 0.0, width: int = 16) -> float:
    """The gap below which GapIP needs fewer symbols than SimHash; NaN if it never does.

    The number of outcomes of phase estimation is a power of two, so that the winner alternates near
    the crossover; this is the geometric mean of the largest gap at which GapIP wins and the
    smallest at which it does not, between 1e-3 and 1/2.

    Args:
      size: P.
      hop_noise: probability that a hop replaces the register by white noise.
      width: bits of a number.

    Returns:
      The gap.

    Raises:
      TypeError, ValueError: as `crossover`.

    >>> 0.017 < crossover_gap(10**6) < 0.02
    True
    """
    gaps = np.geomspace(1e-3, 0.5, 100)
    rows = [crossover(float(g), size, hop_noise=hop_noise, width=width) for g in gaps]
    wins = [row.qubits < row.simhash_bits for row in rows]
    if not any(wins):
        return math.nan
    if all(wins):
        return float(gaps[-1])
    return float(math.sqrt(gaps[wins][-1] * gaps[~np.array(wins)][0]))
