"""What classical messages achieve against GapIP, at the same error."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.audit._gap_ip import check_tau, decision_error, plan_gap_ip


def simhash_agreement(inner_product: ArrayLike) -> jax.Array:
    """(...) probability that two unit vectors lie on the same side of a random plane.

    Source: Charikar, STOC 2002.

    >>> print(f"{simhash_agreement(0.1):.6f} {simhash_agreement(-0.1):.6f}")
    0.531884 0.468116
    """
    value, _ = checks.bounded("inner_product", inner_product, -1.0, 1.0)
    return 1 - jnp.arccos(value) / jnp.pi


def simhash(key: jax.Array, inner_product: ArrayLike, bits: int) -> jax.Array:
    """() bool, whether most of so many signs agree: SimHash with shared random planes.

    The planes are drawn by what matters of them: how many signs agree is binomial.

    Args:
      key: typed PRNG key.
      inner_product: () of the unit gradients.
      bits: an odd number of signs that are sent.
    """
    checks.prng_key("key", key)
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1 or bits % 2 == 0:
        checks.refuse("bits", "be an odd positive integer", bits)
    agree = jax.random.binomial(key, bits, simhash_agreement(inner_product))
    return agree > bits / 2


def simhash_bits(tau: float, error: float) -> int:
    """The fewest signs, an odd number, that decide wrongly with probability `error` at most.

    Exact, by the binomial distribution at +-tau.

    >>> simhash_bits(0.1, 0.09863), simhash_bits(0.05, 0.09140), simhash_bits(0.02, 0.04819)
    (409, 1749, 17049)
    """
    check_tau(tau)
    _check_error(error)
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
    """() variance of the estimate of <u, v> by so many rows of random signs.

    (1 + <u, v>^2 - 2 sum u_i^2 v_i^2) / rows for unit vectors. Source: our derivation.
    """
    u, v = jnp.asarray(server), jnp.asarray(client)
    return (1 + jnp.vdot(u, v, precision="highest") ** 2 - 2 * jnp.sum(u**2 * v**2)) / rows


def random_sign_bits(tau: float, error: float, width: int = 16) -> int:
    """Bits of random-sign projections that decide wrongly with probability `error`, nearly.

    The estimate is taken for normal with the variance (1 + tau^2) / rows of spread-out gradients;
    each row is a number of `width` bits.

    >>> random_sign_bits(0.1, 0.09863)
    2688
    """
    check_tau(tau)
    _check_error(error)
    rows = math.ceil((1 + tau**2) * (float(scipy.stats.norm.isf(error)) / tau) ** 2)
    return rows * width


class Crossover(NamedTuple):
    """GapIP beside its rivals at one gap, at the error of one run of phase estimation.

    Attributes:
      tau: the gap.
      error: of phase estimation, the larger of those at tau and at -tau.
      qubits: of phase estimation.
      simhash_bits: of SimHash.
      random_sign_bits: of random-sign projections.
      full_bits: of the gradient itself.
      quantum_wins: whether qubits are fewer than the bits of each rival.
    """

    tau: float
    error: float
    qubits: int
    simhash_bits: int
    random_sign_bits: int
    full_bits: int
    quantum_wins: bool


def crossover(tau: float, size: int, *, hop_noise: float = 0.0, width: int = 16) -> Crossover:
    """Who needs fewer symbols at one gap.

    Args:
      tau: the gap, in (0, 1).
      size: P.
      hop_noise: probability that a hop replaces the register by white noise.
      width: bits of a number.

    Raises:
      ValueError: if an argument is out of range.

    >>> crossover(0.1, 10**6).quantum_wins, crossover(0.01, 10**6).quantum_wins
    (False, True)
    """
    plan = plan_gap_ip(tau, size)
    errors = [float(decision_error(g, tau, size, hop_noise=hop_noise)) for g in (tau, -tau)]
    error = max(errors)
    full = size * width
    if error >= 0.5:  # noise has left nothing
        return Crossover(tau, error, plan.qubits, 1, width, full, False)
    hashed, signs = simhash_bits(tau, error), random_sign_bits(tau, error, width)
    wins = plan.qubits < min(hashed, signs, full)
    return Crossover(tau, error, plan.qubits, hashed, signs, full, wins)


def crossover_gap(size: int, *, hop_noise: float = 0.0, width: int = 16) -> float:
    """The gap below which GapIP needs fewer symbols than SimHash; NaN if there is none.

    The number of steps is a power of two, so that who wins alternates near the crossover; this is
    the geometric mean of the largest gap at which GapIP wins and the smallest at which it does not,
    between 1e-3 and 1/2.

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


def _check_error(error: float) -> None:
    checks.within("error", error)
    if not 0 < error < 0.5:
        checks.refuse("error", "lie in (0, 0.5)", error)
