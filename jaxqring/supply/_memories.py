"""Pairs that wait in memories: for a given time, or in a stock.

Memories decay as Pauli channels in continuous time: in t seconds each half loses its X and Y
components by exp(-t / t2) and its Z component by exp(-t / t1), without a drift towards the ground
state. That is `thermal_relaxation` with an excited population of 1/2.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._pair import Pair
from jaxqring.physics._pair_operations import flagged_pair
from jaxqring.supply._generation import Supply, make_supply
from jaxqring.supply._waiting import LONGEST, decay_rates, mean_power


def wait(pair: Pair, *, time: ArrayLike, t1: ArrayLike = np.inf, t2: ArrayLike = np.inf) -> Pair:
    """Lets both halves of a pair wait in memories.

    Batch shapes of all arguments broadcast.

    Args:
      pair: the pair.
      time: (...) seconds, in [0, 1e9].
      t1: (...) seconds, relaxation time of each memory, at least 1e-9; may be infinite.
      t2: (...) seconds, coherence time of each, in [1e-9, 2 `t1`]; may be infinite.

    Returns:
      The `Pair`. Memories decay as Pauli channels, X and Y of each half by exp(-time / t2) and Z
      by exp(-time / t1), without a drift towards the ground state.

    Raises:
      TypeError: if `pair` is not a Pair.
      ValueError: if a concrete value is out of range.

    Reference: the Pauli twirl of `thermal_relaxation`.

    >>> from jaxqring import werner
    >>> old = wait(werner(fidelity=1.0), time=0.01, t1=1.0, t2=0.1)
    >>> print(np.asarray(old.correlation.diagonal()).round(4))
    [ 1.      0.8187 -0.8187  0.9802]
    """
    checks.instance("pair", pair, Pair)
    time, time_flag = checks.bounded("time", time, 0.0, LONGEST)
    rates, life_flag = decay_rates(t1, t2)
    correlation = pair.correlation * jnp.exp(-rates * time[..., None, None])
    return flagged_pair(correlation, pair.clipped, time_flag, life_flag)


def stock(
    supply: Supply, *, pairs: ArrayLike, t1: ArrayLike = np.inf, t2: ArrayLike = np.inf
) -> Supply:
    """Takes pairs from a stock, the newest first.

    Pairs arrive one by one at random (a Poisson stream) and wait in memories. At some moment the
    newest `pairs` of them are used at once. Batch shapes of all arguments broadcast.

    Args:
      supply: the stream that fills the stock.
      pairs: (...) number n of pairs used, in [1, 1e12].
      t1: (...) seconds, relaxation time of the memories, at least 1e-9; may be infinite.
      t2: (...) seconds, coherence time of the memories, in [1e-9, 2 `t1`]; may be
        infinite.

    Returns:
      The `Supply` with the mean pair of the n; rate and cost as they were. A correlation that
      decays at the rate kappa is multiplied by x (1 - x^n) / (n (1 - x)), with
      x = rate / (rate + kappa): the age of the i-th newest pair is a sum of i exponential times.
      X and Y of each half decay at 1 / t2 and Z at 1 / t1, and the rates of both halves add up.
      If no pair ever arrives, those used have decayed completely; where arrivals and decays
      together come less than once in 1e9 seconds, pairs are fresh.

    Raises:
      TypeError: if `supply` is not a Supply.
      ValueError: if a concrete value is out of range.

    Reference: derived here.

    >>> from jaxqring import werner
    >>> from jaxqring.supply import generate
    >>> supply = generate(werner(fidelity=1.0), length=20e3)
    >>> used = stock(supply, pairs=100, t1=1.0, t2=0.5)
    >>> round(float(used.pair.fidelity), 4)
    0.9404
    """
    checks.instance("supply", supply, Supply)
    count, count_flag = checks.bounded("pairs", pairs, 1.0, 1e12)
    rates, life_flag = decay_rates(t1, t2)
    arrivals = supply.pairs_per_second[..., None, None]
    happens = arrivals + rates > 1 / LONGEST
    # Multiplied by the inverse, whose derivative is finite where that of a quotient overflows.
    time = 1 / jnp.where(happens, arrivals + rates, 1.0)
    survival = jnp.where(happens, arrivals * time, 1.0)
    loss = jnp.where(happens, rates * time, 0.0)
    survival, loss, count = jnp.broadcast_arrays(survival, loss, count[..., None, None])
    correlation = supply.pair.correlation * survival * mean_power(survival, loss, count)
    return make_supply(
        correlation,
        supply.pairs_per_second,
        supply.raw_pairs_per_pair,
        supply.generation_prob,
        supply.pair.clipped,
        count_flag,
        life_flag,
    )
