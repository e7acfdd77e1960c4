"""Fewer but better pairs: rounds of purification, and hashing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import DistillationProtocol
from jaxqring.physics._pair_operations import PROTOCOLS, hashing_yield, recurrence
from jaxqring.physics._paulis import PHI_PLUS
from jaxqring.supply._generation import Supply, make_supply

#: Rounds of purification allowed; each takes at least two pairs for one.
MOST_ROUNDS = 32

#: Hashing yields below this one count as this one in the price of a pair, which stays finite.
LEAST_YIELD = 1e-9


@functools.partial(jax.jit, static_argnums=(3, 4))
def _rounds(
    correlation: jax.Array,
    gate: jax.Array,
    readout: jax.Array,
    rounds: int,
    protocol: DistillationProtocol,
) -> tuple[jax.Array, jax.Array]:
    """The correlations (..., 4, 4) after `rounds` rounds, and the raw pairs (...) used for one."""

    def distill_once(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple, None]:
        matrix, cost = carry
        matrix, success = recurrence(matrix, matrix, gate, readout, protocol)
        # Two equal pairs agree at least half the time, so that nothing is divided by zero.
        return (matrix, cost * 2 / success), None

    shape = jnp.broadcast_shapes(correlation.shape[:-2], gate.shape, readout.shape)
    kind = jnp.result_type(correlation, gate, readout)
    start = jnp.broadcast_to(correlation, (*shape, 4, 4)).astype(kind), jnp.ones(shape, kind)
    return lax.scan(distill_once, start, None, length=rounds)[0]


def purify(
    supply: Supply,
    *,
    rounds: int,
    protocol: DistillationProtocol = "dejmps",
    gate_error: ArrayLike = 0.0,
    readout_error: ArrayLike = 0.0,
) -> Supply:
    """Distils pairs in rounds, each from two equal pairs of the round before.

    Batch shapes of all arguments broadcast.

    Args:
      supply: the pairs to be distilled.
      rounds: number of rounds; a static integer in [0, 32].
      protocol: "dejmps" or "bbpssw"; see `distill`. Only the latter twirls between rounds.
      gate_error: (...) probability in [0, 1]; see `distill`.
      readout_error: (...) probability in [0, 1]; see `distill`.

    Returns:
      The `Supply` of pairs that passed all rounds. With p_k the probability of success of round
      k, never below 1/2, the raw pairs used up for one are multiplied by the product of 2 / p_k,
      and the rate in hertz is divided by it. Waiting for a partner or for news of success takes
      no time here; see `wait` and `best_purification_time`.

    Raises:
      TypeError: if `supply` is not a Supply.
      ValueError: if `rounds` is not an integer in [0, 32], `protocol` is not one of these, or a
        concrete probability is out of range.

    Reference: Duer and Briegel, Rep. Prog. Phys. 70, 1381 (2007), and see `distill`.

    >>> from jaxqring import werner
    >>> from jaxqring.supply import generate
    >>> supply = purify(generate(werner(fidelity=0.8), length=10e3), rounds=2)
    >>> round(float(supply.pair.fidelity), 4), round(float(supply.raw_pairs_per_pair), 4)
    (0.9436, 6.9868)
    """
    checks.instance("supply", supply, Supply)
    checks.one_of("protocol", protocol, PROTOCOLS)
    rounds = checks.integer("rounds", rounds, 0, MOST_ROUNDS)
    gate, gate_flag = checks.bounded("gate_error", gate_error)
    readout, readout_flag = checks.bounded("readout_error", readout_error)
    correlation, cost = _rounds(supply.pair.correlation, gate, readout, rounds, protocol)
    return make_supply(
        correlation,
        supply.pairs_per_second / cost,
        supply.raw_pairs_per_pair * cost,
        supply.generation_prob,
        supply.pair.clipped,
        gate_flag,
        readout_flag,
    )


def hashed(supply: Supply) -> Supply:
    """Hashes very many pairs at once into perfect ones.

    Args:
      supply: the pairs to be hashed.

    Returns:
      The `Supply` of perfect pairs, with the rate in hertz multiplied by `hashing_yield` and the
      raw pairs used up for one divided by it. Where the yield is zero so is the rate, and the
      price is that of a yield of 1e-9, a large number without a slope. The result holds in the
      limit of many pairs and for noiseless gates.

    Raises:
      TypeError: if `supply` is not a Supply.

    Reference: Bennett, DiVincenzo, Smolin and Wootters, Phys. Rev. A 54, 3824 (1996).

    >>> from jaxqring import werner
    >>> from jaxqring.supply import generate
    >>> supply = hashed(generate(werner(fidelity=0.95), length=10e3))
    >>> float(supply.pair.fidelity), round(float(supply.raw_pairs_per_pair), 4)
    (1.0, 1.5764)
    """
    checks.instance("supply", supply, Supply)
    fraction = hashing_yield(supply.pair)
    perfect = jnp.asarray(np.diag(PHI_PLUS), supply.pair.correlation.dtype)
    return make_supply(
        perfect,
        supply.pairs_per_second * fraction,
        supply.raw_pairs_per_pair / jnp.where(fraction > LEAST_YIELD, fraction, LEAST_YIELD),
        supply.generation_prob,
        supply.pair.clipped,
    )
