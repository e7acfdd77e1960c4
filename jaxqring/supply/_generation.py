"""Generation of pairs over fibres, with detectors and repeater stations.

Every quantity is a closed form or the solution of a triangular system of positive numbers, and can
be differentiated in every parameter, at the ends of its domain as well.
"""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import HeraldingScheme
from jaxqring.physics._pair import Pair
from jaxqring.physics._pair_operations import swap_gain
from jaxqring.physics.channels import add_clipped
from jaxqring.supply._waiting import (
    LONGEST,
    SHORTEST,
    decay_rates,
    scaled_slowest,
    waiting_decay,
)


@struct.dataclass
class Supply:
    """A stream of pairs and its price. All fields share one batch shape.

    Attributes:
      pair: the pairs delivered.
      pairs_per_second: (...) rate of delivery, in hertz.
      raw_pairs_per_pair: (...) pairs, as `generate` delivers them from end to end, used up for
        one delivered pair; 1 without purification.
      generation_prob: (...) probability that one attempt on one elementary link heralds a pair.

    >>> from jaxqring import werner
    >>> from jaxqring.supply import purify
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


def make_supply(
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
    scheme: HeraldingScheme = "midpoint",
    modes: ArrayLike = 1.0,
    signal_speed: ArrayLike = 2e8,
    cycle_time: ArrayLike = 1e-6,
    t1: ArrayLike = np.inf,
    t2: ArrayLike = np.inf,
    gate_error: ArrayLike = 0.0,
    readout_error: ArrayLike = 0.0,
) -> Supply:
    """Generates pairs over a fibre, by way of repeater stations if there is more than one link.

    All links of a chain try at once, again and again, until each has a pair; then the stations
    swap, and the chain starts anew. Pairs that are ready wait in memories at both ends of their
    link, which decay as in `wait`. Batch shapes of all arguments broadcast.

    Args:
      pair: the fresh pair of an elementary link at the end of the attempt that heralds it, with
        the noise of fibre and detectors already applied.
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
      the ends do not wait for the outcomes, which travel with the pair. Where no attempt can
      succeed the rate is zero and the pair is that of links that succeed once in 1e15 attempts.

    Raises:
      TypeError: if `pair` is not a Pair.
      ValueError: if `links` is not an integer of at least 1, `scheme` is not one of these, or a
        concrete value is out of range.

    Reference: for the rate Sangouard, Simon, de Riedmatten and Gisin, Rev. Mod. Phys. 83, 33
    (2011); the mean over waiting times is derived here. Work and memory grow as links^2.

    >>> from jaxqring import werner
    >>> supply = generate(werner(fidelity=0.9), length=80e3, links=4)
    >>> round(float(supply.pair.fidelity), 6), round(float(supply.generation_prob), 4)
    (0.673126, 0.2014)
    """
    checks.instance("pair", pair, Pair)
    checks.one_of("scheme", scheme, get_args(HeraldingScheme))
    links = checks.integer("links", links, 1)
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
        one = rates * attempt[..., None, None]
        others = jnp.broadcast_to(jnp.diagonal(one, axis1=-2, axis2=-1)[..., None, :], one.shape)
        correlation = correlation * waiting_decay(prob[..., None, None], one, others, links)
    raw = jnp.ones_like(pairs_per_second)
    return make_supply(
        correlation, pairs_per_second, raw, prob, pair.clipped, life_flag, swap_flag, *flags
    )
