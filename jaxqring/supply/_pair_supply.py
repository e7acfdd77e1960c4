"""Where pairs come from: fibres, detectors, repeater stations and memories, as functions.

`generate` makes a supply of pairs out of hardware; `stock`, `purify` and `hashed` turn one supply
into another. Every quantity is a closed form or the solution of a triangular system of positive
numbers, and can be differentiated in every parameter, at the ends of its domain as well.

Memories decay as Pauli channels in continuous time: in t seconds each half loses its X and Y
components by exp(-t / t2) and its Z component by exp(-t / t1), without a drift towards the ground
state. That is `thermal_relaxation` with an excited population of 1/2.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._pair import Pair
from jaxqring.physics._pair_operations import (
    PROTOCOLS,
    flagged_pair,
    hashing_yield,
    recurrence,
    swap_gain,
)
from jaxqring.physics._paulis import PHI_PLUS
from jaxqring.physics.channels import add_clipped
from jaxqring.supply._waiting import (
    LONGEST,
    SHORTEST,
    decay_rates,
    mean_power,
    scaled_slowest,
    waiting_decay,
    whole_number,
)

SCHEMES = ("midpoint", "direct")

#: Rounds of purification allowed; each takes at least two pairs for one.
MOST_ROUNDS = 32

#: Hashing yields below this one count as this one in the price of a pair, which stays finite.
LEAST_YIELD = 1e-9


@struct.dataclass
class Supply:
    """A stream of pairs and what it costs. All fields share one batch shape.

    Attributes:
      pair: the pairs delivered.
      pairs_per_second: (...) how many, in hertz.
      raw_pairs_per_pair: (...) pairs, as `generate` delivers them from end to end, used up for
        one delivered pair; 1 without purification.
      generation_prob: (...) probability that one attempt on one elementary link heralds a pair.

    >>> from jaxqring.physics.pairs import werner
    >>> supply = generate(werner(fidelity=0.95), length=40e3, links=2, t2=0.1, t1=1.0)
    >>> better = purify(supply, rounds=1)
    >>> [round(float(s.pair.fidelity), 3) for s in (supply, better)]
    [0.899, 0.928]
    >>> [round(float(s.pairs_per_second)) for s in (supply, better)]
    [1381, 603]
    """

    pair: Pair
    pairs_per_second: jax.Array
    raw_pairs_per_pair: jax.Array
    generation_prob: jax.Array


def _supply(
    correlation: jax.Array,
    rate: jax.Array,
    raw: jax.Array,
    prob: jax.Array,
    *flags: jax.Array | None,
) -> Supply:
    """A `Supply` whose fields have been broadcast to one batch shape."""
    shape = jnp.broadcast_shapes(correlation.shape[:-2], rate.shape, raw.shape, prob.shape)
    clipped = add_clipped(*flags)
    if clipped is not None:
        shape = jnp.broadcast_shapes(shape, clipped.shape)
        clipped = jnp.broadcast_to(clipped, shape)
    pair = Pair(jnp.broadcast_to(correlation, (*shape, 4, 4)), clipped)
    return Supply(pair, *(jnp.broadcast_to(field, shape) for field in (rate, raw, prob)))


def generate(
    pair: Pair,
    *,
    length: ArrayLike,
    links: int = 1,
    attenuation_length: ArrayLike = 22e3,
    detector_efficiency: ArrayLike = 1.0,
    scheme: str = "midpoint",
    modes: ArrayLike = 1.0,
    signal_speed: ArrayLike = 2e8,
    cycle_time: ArrayLike = 1e-6,
    t1: ArrayLike = np.inf,
    t2: ArrayLike = np.inf,
    gate_error: ArrayLike = 0.0,
    readout_error: ArrayLike = 0.0,
) -> Supply:
    """Pairs over a fibre, by way of repeater stations if there is more than one link.

    All links of a chain try at once, again and again, until each has a pair; then the stations
    swap, and the chain starts anew. Pairs that are ready wait in memories at both ends of their
    link. Batch shapes of all arguments broadcast.

    Args:
      pair: the fresh pair of an elementary link, as it is at the end of the attempt that heralds
        it; what fibre and detectors do to it is up to you.
      length: (...) metres from end to end, in [0, 1e9], divided evenly among the links.
      links: elementary links in the chain; a static integer >= 1.
      attenuation_length: (...) metres of fibre that let 1/e of the photons through, at least 1;
        may be infinite.
      detector_efficiency: (...) probability in [0, 1] that a photon that arrives is detected.
      scheme: "midpoint", where both ends send a photon to a linear-optical Bell measurement
        half-way, which succeeds with probability efficiency^2 exp(-l / attenuation_length) / 2
        on a link of l metres; or "direct", where one end sends a photon to the other, with
        probability efficiency exp(-l / attenuation_length).
      modes: (...) independent chains side by side, in [1, 1e9].
      signal_speed: (...) metres per second in the fibre, at least 1; may be infinite.
      cycle_time: (...) seconds that an attempt takes besides l / signal_speed, in [1e-9, 1e9].
      t1: (...) seconds, relaxation time of the memories, at least 1e-9; may be infinite.
      t2: (...) seconds, coherence time of the memories, in [1e-9, 2 `t1`]; may be
        infinite.
      gate_error: (...) probability in [0, 1], of each swap; see `swap`.
      readout_error: (...) probability in [0, 1], of each swap; see `swap`.

    Returns:
      A `Supply`. Its pair is the mean over the waiting times, exactly, and its rate is
      modes / (mean attempts of the slowest link * attempt time) hertz. Swaps take no time, and
      the ends do not wait for the outcomes: they travel with the pair. Where no attempt can
      succeed the rate is zero and the pair is that of links that succeed once in 1e15 attempts.

    Raises:
      TypeError: if `pair` is not a Pair.
      ValueError: if `links` or `scheme` is none, or a value known now is out of range.

    Reference: for the rate Sangouard, Simon, de Riedmatten and Gisin, Rev. Mod. Phys. 83, 33
    (2011); the mean over waiting times is derived here. Work and memory grow as links^2.

    >>> from jaxqring.physics.pairs import werner
    >>> supply = generate(werner(fidelity=0.9), length=80e3, links=4)
    >>> round(float(supply.pair.fidelity), 6), round(float(supply.generation_prob), 4)
    (0.673126, 0.2014)
    """
    checks.instance("pair", pair, Pair)
    checks.one_of("scheme", scheme, SCHEMES)
    links = whole_number("links", links, 1)
    length, flag = checks.bounded("length", length, 0.0, 1e9)
    flags = [flag]
    values = []
    for name, value, low, high in (
        ("attenuation_length", attenuation_length, 1.0, np.inf),
        ("detector_efficiency", detector_efficiency, 0.0, 1.0),
        ("modes", modes, 1.0, 1e9),
        ("signal_speed", signal_speed, 1.0, np.inf),
        ("cycle_time", cycle_time, SHORTEST, LONGEST),
    ):
        value, flag = checks.bounded(name, value, low, high)
        values.append(value)
        flags.append(flag)
    attenuation, efficiency, chains, speed, cycle = values
    rates, life_flag = decay_rates(t1, t2)
    gain, swap_flag = swap_gain(pair, gate_error, readout_error)

    each = length / links
    arrival = jnp.exp(-each / attenuation)
    prob = efficiency**2 * arrival / 2 if scheme == "midpoint" else efficiency * arrival
    attempt = each / speed + cycle
    # prob times the mean number of attempts, so that the rate has a derivative at prob = 0.
    pairs_per_second = chains * prob / (scaled_slowest(prob, links) * attempt)

    # The swaps leave row i of the first link's correlations and the diagonal of the others'.
    correlation = pair.correlation * (gain ** (links - 1))[..., None, :]
    if links > 1:
        own = rates * attempt[..., None, None]
        others = jnp.broadcast_to(jnp.diagonal(own, axis1=-2, axis2=-1)[..., None, :], own.shape)
        correlation = correlation * waiting_decay(prob[..., None, None], own, others, links)
    one = jnp.ones_like(pairs_per_second)
    return _supply(
        correlation, pairs_per_second, one, prob, pair.clipped, life_flag, swap_flag, *flags
    )


def wait(pair: Pair, *, time: ArrayLike, t1: ArrayLike = np.inf, t2: ArrayLike = np.inf) -> Pair:
    """A pair after both halves have waited in memories.

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
      ValueError: if a value known now is out of range.

    Reference: the Pauli twirl of `thermal_relaxation`.

    >>> from jaxqring.physics.pairs import werner
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
    """Pairs taken from a stock, the newest first.

    Pairs arrive one by one at random (a Poisson stream) and wait in memories. At some moment the
    newest `pairs` of them are used at once. Batch shapes of all arguments broadcast.

    Args:
      supply: the stream that fills the stock.
      pairs: (...) how many pairs n are used, in [1, 1e12].
      t1: (...) seconds, relaxation time of the memories, at least 1e-9; may be infinite.
      t2: (...) seconds, coherence time of the memories, in [1e-9, 2 `t1`]; may be
        infinite.

    Returns:
      The `Supply` with the mean pair of the n; rate and cost as they were. A correlation that
      decays at the rate kappa is multiplied by x (1 - x^n) / (n (1 - x)), with
      x = rate / (rate + kappa): the age of the i-th newest pair is a sum of i exponential times.
      X and Y of each half decay at 1 / t2 and Z at 1 / t1 and the rates of both halves add up.
      If nothing arrives the pairs have decayed for ever; where neither pairs arrive nor memories
      decay, less than once in 1e9 seconds in all, pairs are fresh.

    Raises:
      TypeError: if `supply` is not a Supply.
      ValueError: if a value known now is out of range.

    Reference: derived here.

    >>> from jaxqring.physics.pairs import werner
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
    left, lost = jnp.where(happens, arrivals * time, 1.0), jnp.where(happens, rates * time, 0.0)
    left, lost, count = jnp.broadcast_arrays(left, lost, count[..., None, None])
    correlation = supply.pair.correlation * left * mean_power(left, lost, count)
    return _supply(
        correlation,
        supply.pairs_per_second,
        supply.raw_pairs_per_pair,
        supply.generation_prob,
        supply.pair.clipped,
        count_flag,
        life_flag,
    )


@functools.partial(jax.jit, static_argnums=(3, 4))
def _rounds(
    correlation: jax.Array, gate: jax.Array, readout: jax.Array, rounds: int, protocol: str
) -> tuple[jax.Array, jax.Array]:
    """(..., 4, 4) correlations after so many rounds, and (...) raw pairs used up for one."""

    def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple, None]:
        matrix, cost = carry
        matrix, success = recurrence(matrix, matrix, gate, readout, protocol)
        # Two equal pairs agree at least half the time, so that nothing is divided by zero.
        return (matrix, cost * 2 / success), None

    shape = jnp.broadcast_shapes(correlation.shape[:-2], gate.shape, readout.shape)
    kind = jnp.result_type(correlation, gate, readout)
    start = jnp.broadcast_to(correlation, (*shape, 4, 4)).astype(kind), jnp.ones(shape, kind)
    return lax.scan(step, start, None, length=rounds)[0]


def purify(
    supply: Supply,
    *,
    rounds: int,
    protocol: str = "dejmps",
    gate_error: ArrayLike = 0.0,
    readout_error: ArrayLike = 0.0,
) -> Supply:
    """Fewer, better pairs: rounds of distillation, each of two equal pairs of the last round.

    Batch shapes of all arguments broadcast.

    Args:
      supply: the pairs to be distilled.
      rounds: how many times; a static integer in [0, 32].
      protocol: "dejmps" or "bbpssw"; see `distill`. Only the latter twirls between rounds.
      gate_error: (...) probability in [0, 1]; see `distill`.
      readout_error: (...) probability in [0, 1]; see `distill`.

    Returns:
      The `Supply` of pairs that passed all rounds. With p_k the probability of success of round
      k, never below 1/2, the raw pairs used up for one are multiplied by the product of 2 / p_k
      and the rate in hertz is divided by it. Waiting for a partner or for news of success takes
      no time here; see `wait` and `best_purification_time`.

    Raises:
      TypeError: if `supply` is not a Supply.
      ValueError: if `rounds` or `protocol` is none, or a probability known now is out of range.

    Reference: Duer and Briegel, Rep. Prog. Phys. 70, 1381 (2007), and see `distill`.

    >>> from jaxqring.physics.pairs import werner
    >>> supply = purify(generate(werner(fidelity=0.8), length=10e3), rounds=2)
    >>> round(float(supply.pair.fidelity), 4), round(float(supply.raw_pairs_per_pair), 4)
    (0.9436, 6.9868)
    """
    checks.instance("supply", supply, Supply)
    checks.one_of("protocol", protocol, PROTOCOLS)
    rounds = whole_number("rounds", rounds, 0, MOST_ROUNDS)
    gate, gate_flag = checks.bounded("gate_error", gate_error)
    readout, readout_flag = checks.bounded("readout_error", readout_error)
    correlation, cost = _rounds(supply.pair.correlation, gate, readout, rounds, protocol)
    return _supply(
        correlation,
        supply.pairs_per_second / cost,
        supply.raw_pairs_per_pair * cost,
        supply.generation_prob,
        supply.pair.clipped,
        gate_flag,
        readout_flag,
    )


def hashed(supply: Supply) -> Supply:
    """Perfect pairs, by hashing very many at once.

    Args:
      supply: the pairs to be hashed.

    Returns:
      The `Supply` of perfect pairs, with the rate in hertz multiplied by `hashing_yield` and the
      raw pairs used up for one divided by it. Where the yield is zero so is the rate, and the
      price is that of a yield of 1e-9, a large number without a slope. The limit of many pairs
      and of noiseless gates is taken.

    Raises:
      TypeError: if `supply` is not a Supply.

    Reference: Bennett, DiVincenzo, Smolin and Wootters, Phys. Rev. A 54, 3824 (1996).

    >>> from jaxqring.physics.pairs import werner
    >>> supply = hashed(generate(werner(fidelity=0.95), length=10e3))
    >>> float(supply.pair.fidelity), round(float(supply.raw_pairs_per_pair), 4)
    (1.0, 1.5764)
    """
    checks.instance("supply", supply, Supply)
    fraction = hashing_yield(supply.pair)
    perfect = jnp.asarray(np.diag(PHI_PLUS), supply.pair.correlation.dtype)
    return _supply(
        perfect,
        supply.pairs_per_second * fraction,
        supply.raw_pairs_per_pair / jnp.where(fraction > LEAST_YIELD, fraction, LEAST_YIELD),
        supply.generation_prob,
        supply.pair.clipped,
    )
