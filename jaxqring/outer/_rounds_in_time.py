"""The seconds of a round: pairs that wait in memories between rounds, and those made during one.

A reconstruction of ours, in closed form: it puts the waiting of `jaxqring.supply` and the budget of
`jaxqring.economics` into the time between two rounds of an outer loop.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.economics import Budget, budget
from jaxqring.link import SymbolChannel, superdense
from jaxqring.physics.pairs import Pair
from jaxqring.ring import Ring
from jaxqring.supply import Supply, wait
from jaxqring.supply._waiting import decay_rates

#: Classes of age into which the pairs of a stock are sorted.
AGES = 128


class RoundTime(NamedTuple):
    """A round of an outer loop over each link, in expectation; all fields (...).

    Attributes:
      period: seconds from one round to the next, inner steps included.
      seconds: of the collective.
      late: seconds of it that no inner step hides.
      steps_per_second: inner steps in a second, H / `period`.
      bits: payload.
      bits_per_second: `bits` / `period`.
      online_qubits: of a round, one pair each, repetitions included.
      stocked: of them, those on pairs from the memories.
      fresh: of them, those on pairs that the round had to wait for.
      fidelity: of the pairs, in the mean over a round.
      stocked_fidelity: of the pairs from the memories alone; of fresh ones if there are none.
      oldest: seconds that the oldest pair in use has waited.
    """

    period: jax.Array
    seconds: jax.Array
    late: jax.Array
    steps_per_second: jax.Array
    bits: jax.Array
    bits_per_second: jax.Array
    online_qubits: jax.Array
    stocked: jax.Array
    fresh: jax.Array
    fidelity: jax.Array
    stocked_fidelity: jax.Array
    oldest: jax.Array


def round_time(
    ring: Ring,
    size: PyTree | int,
    nodes: int,
    supply: Supply,
    *,
    every: ArrayLike,
    step_time: ArrayLike,
    overlap: ArrayLike = 0.0,
    slots: ArrayLike = 1e12,
    t1: ArrayLike = np.inf,
    t2: ArrayLike = np.inf,
    link: Callable[[Pair], SymbolChannel] = superdense,
    qubit_rate: ArrayLike = 1e9,
    latency: ArrayLike = 0.0,
    encode_time: ArrayLike = 0.0,
    measure_time: ArrayLike = 0.0,
) -> RoundTime:
    """The time of a round of H inner steps on links with memories.

    While nodes make inner steps and no collective is on the way, every link makes pairs and keeps
    the newest in its memories. A round uses those first, the youngest before the older ones, as
    long as they carry their bits sooner than fresh pairs would, and then pairs as they are made. A
    codeword is on pairs of about the same age. A loop that hides its rounds behind all H steps
    keeps nothing, as it uses all pairs as they are made. Batch shapes of all arguments broadcast.

    Four simplifications. Pairs are made at an even pace: the number made in T seconds has a
    standard deviation of sqrt(R T), which is left out. Pairs of the stock are as old as at the
    beginning of the round: in its last hop their correlations have lost a further factor of
    exp(-2 `seconds` / t2) at most. A link whose collective ends before its overlap does begins to
    stock at the end of the overlap. Pairs made while those of the stock are sent are not used, so
    that seconds are an upper bound where sending takes as long as making.

    Args:
      ring: its wire and its protection, of every symbol. Without a channel: that is `link` of the
        pairs.
      size: the payload of one node and round: a pytree of arrays, or its number of values, at
        least one.
      nodes: N, an integer of at least 2.
      supply: of fresh pairs, on each link.
      every: (...) H, inner steps of a round, at least 1.
      step_time: (...) seconds of an inner step, in [0, 1e9].
      overlap: (...) inner steps, in [0, H], that a collective may take without anyone waiting: 0
        for a loop that waits, H for delayed and eager rounds and CO2, tau for streaming.
      slots: (...) pairs that the memories of a link hold, in [0, 1e12]. A new pair takes the place
        of the oldest.
      t1: (...) seconds, relaxation time of each memory; see `jaxqring.supply.wait`.
      t2: (...) seconds, coherence time of each memory.
      link: from pairs to the channel of a symbol.
      qubit_rate: (...) qubits per second on a link, above zero.
      latency: (...) seconds of one hop.
      encode_time: (...) seconds of one hop.
      measure_time: (...) seconds of one hop.

    Returns:
      A `RoundTime`. Pairs of age a have waited as in `jaxqring.supply.wait`, and a qubit on one
      nets r(a) bits, as `jaxqring.economics.budget` says. A stock of pairs up to the age A, made
      at the rate R, carries R times the integral of r from 0 to A. The integral is a midpoint rule
      over 128 classes of age: seconds are right to 3e-4 where r is smooth, and to some 4e-3 where a
      code fails within a small range of ages. What is left of the payload goes over pairs of age
      zero, which take 1 / R seconds each. Other seconds are those of the budget, in the mean over
      the payload. Codewords that stay wrong count as not sent.

    Raises:
      TypeError: if `ring` is not a Ring or `supply` not a Supply.
      ValueError: as `jaxqring.economics.budget` and `jaxqring.supply.wait`; if there is no value
        to send, the ring has a channel, `nodes` is not such an integer, or a concrete value is out
        of range.

    >>> from jaxqring import werner
    >>> from jaxqring.codes import IdealCode
    >>> from jaxqring.supply import generate
    >>> supply = generate(werner(fidelity=0.99), length=10e3, modes=1000)
    >>> memory = {"step_time": 0.01, "t2": 1.0}
    >>> ring = Ring(protection=IdealCode())
    >>> found = round_time(ring, 50_890, 8, supply, every=np.array([5, 500]), **memory)
    >>> [round(float(each), 3) for each in (*found.fidelity, *found.steps_per_second)]
    [0.98, 0.925, 40.057, 99.982]
    """
    checks.instance("ring", ring, Ring)
    checks.instance("supply", supply, Supply)
    nodes = checks.integer("nodes", nodes, 2)
    if ring.channel is not None:
        checks.refuse("ring.channel", "be None, as `link` makes it of the pairs", ring.channel)
    values = {
        name: checks.bounded(name, value, low, high)[0]
        for name, value, low, high in (
            ("every", every, 1.0, 1e12),
            ("step_time", step_time, 0.0, 1e9),
            ("overlap", overlap, 0.0, 1e12),
            ("slots", slots, 0.0, 1e12),
            ("qubit_rate", qubit_rate, 1e-9, 1e18),
            ("latency", latency, 0.0, 1e9),
            ("encode_time", encode_time, 0.0, 1e9),
            ("measure_time", measure_time, 0.0, 1e9),
        )
    }
    decay_rates(t1, t2)  # refuses what it cannot take
    known = not checks.is_traced((every, overlap))
    if known and bool(jnp.any(values["overlap"] > values["every"])):
        checks.refuse("overlap", "be at most `every`", overlap)
    lives = jnp.asarray(t1, float), jnp.asarray(t2, float)
    count = (
        size if isinstance(size, int | np.integer) else sum(map(jnp.size, jax.tree.leaves(size)))
    )
    checks.integer("size", count)
    return _round(ring, count, nodes, link, supply, lives, values)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _round(
    ring: Ring,
    size: int,
    nodes: int,
    link: Callable[[Pair], SymbolChannel],
    supply: Supply,
    lives: tuple[jax.Array, jax.Array],
    values: dict[str, jax.Array],
) -> RoundTime:
    """A round, from checked arguments; `lives` are t1 and t2."""
    every, step_time, overlap, slots = (
        values[name] for name in ("every", "step_time", "overlap", "slots")
    )
    overlap = jnp.where(overlap > every, every, overlap)
    times = {
        name: values[name] for name in ("qubit_rate", "latency", "encode_time", "measure_time")
    }
    young = _bill(ring, size, nodes, link, supply, times)
    rate, young_net = supply.pairs_per_second, _net(young)
    some, carries = rate > 0, young_net > 0
    idle = (every - overlap) * step_time
    fitting = jnp.where(some, slots, 0) / jnp.where(some, rate, 1)
    needed = young.bits / jnp.where(some & carries, young_net * rate, 1)
    shorter = jnp.where(lives[0] < lives[1], lives[0], lives[1])
    old = _stock(
        lambda pairs, own: _bill(ring, size, nodes, link, pairs, own),
        supply,
        lives,
        jnp.where(fitting < idle, fitting, idle),
        jnp.where(shorter < needed, shorter, needed),
        times,
    )

    rest = 1 - jnp.sum(old.share, axis=-1)
    rest = jnp.where(rest > 1e-6, rest, 0)  # as far as float32 tells
    stocked = jnp.sum(old.pairs, axis=-1)
    fresh = _part(rest, jnp.where(carries, young.bits / jnp.where(carries, young_net, 1), jnp.inf))
    making = jnp.where(some, fresh / jnp.where(some, rate, 1), jnp.inf)
    busy = jnp.sum(_part(old.share, old.seconds), axis=-1) + _part(rest, young.seconds)
    seconds = busy + jnp.where(fresh > 0, making, 0)
    hidden = overlap * step_time
    late = jnp.where(seconds > hidden, seconds - hidden, 0)
    period = every * step_time + late

    total, kept, online = jnp.sum(old.pairs * old.fidelity, axis=-1), stocked > 0, stocked + fresh
    of_stock = jnp.where(kept, total / jnp.where(kept, stocked, 1), supply.pair.fidelity)
    weight = stocked / jnp.where(online > 0, online, 1)
    fields = (
        period,
        seconds,
        late,
        every / period,
        young.bits,
        young.bits / period,
        online,
        stocked,
        fresh,
        weight * of_stock + (1 - weight) * supply.pair.fidelity,
        of_stock,
        jnp.max(jnp.where(old.pairs > 0, old.oldest, 0), axis=-1),
    )
    return RoundTime(*jnp.broadcast_arrays(*fields))


class _Stock(NamedTuple):
    """The pairs that a round takes from a stock, by classes of age, (..., AGES) each.

    Attributes:
      share: of the payload that they carry.
      pairs: their number.
      fidelity: of them.
      oldest: seconds that the oldest of them has waited.
      seconds: of a whole collective on such pairs.
    """

    share: jax.Array
    pairs: jax.Array
    fidelity: jax.Array
    oldest: jax.Array
    seconds: jax.Array


def _stock(
    bill: Callable[[Supply, dict[str, jax.Array]], Budget],
    supply: Supply,
    lives: tuple[jax.Array, jax.Array],
    end: jax.Array,
    unit: jax.Array,
    times: dict[str, jax.Array],
) -> _Stock:
    """The pairs that a round takes from a stock.

    Args:
      bill: the budget of a collective on such pairs, with such times.
      supply: of fresh pairs.
      lives: (...) t1 and t2.
      end: (...) seconds that the oldest pair of the stock has waited.
      unit: (...) seconds in which little changes: classes of age are even up to it, and then grow
        in proportion to their age.
      times: (...) of a collective.
    """
    ends = np.linspace(0, 1, AGES + 1, dtype=np.float32)
    edges = unit[..., None] * jnp.expm1(jnp.log1p(end / unit)[..., None] * ends)
    width = jnp.diff(edges)
    t1, t2, *own = (value[..., None] for value in (*lives, *times.values()))
    waited = wait(_wider(supply.pair), time=edges[..., :-1] + width / 2, t1=t1, t2=t2)
    prices = (supply.pairs_per_second, supply.raw_pairs_per_pair, supply.generation_prob)
    aged = Supply(waited, *(price[..., None] for price in prices))
    old = bill(aged, dict(zip(times, own, strict=True)))

    young = bill(supply, times)
    rate, bits = supply.pairs_per_second[..., None], young.bits[..., None]
    # A pair of the stock takes a turn on the link for its bits, a fresh one has to be made as well.
    sooner = _net(old) * (own[0] + rate) > _net(young)[..., None] * rate
    carried = jnp.where(sooner, rate * width * _net(old), 0)
    left = bits - (jnp.cumsum(carried, axis=-1) - carried)
    useful = (carried > 0) & (left > 0)
    part = jnp.where(useful, left / jnp.where(useful, carried, 1), 0)
    part = jnp.where(part < 1, part, 1)
    return _Stock(
        part * carried / bits,
        part * rate * width,
        waited.fidelity,
        edges[..., :-1] + part * width,
        old.seconds,
    )


def _bill(
    ring: Ring,
    size: int,
    nodes: int,
    link: Callable[[Pair], SymbolChannel],
    supply: Supply,
    times: dict[str, jax.Array],
) -> Budget:
    """The budget of a collective over such pairs, if none of them has to be waited for."""
    there = dataclasses.replace(ring, channel=link(supply.pair))
    return budget(
        there,
        size,
        nodes,
        supply,
        qubit_rate=times["qubit_rate"],
        latency=times["latency"],
        encode_time=times["encode_time"],
        measure_time=times["measure_time"],
        compute_time=1e18,
    )


def _net(found: Budget) -> jax.Array:
    """(...) bits that arrive exact per qubit; zero below the share that float32 tells from it."""
    rate = found.net_bits_per_qubit
    return jnp.where(rate > 1e-6, rate, 0)


def _wider(pair: Pair) -> Pair:
    """The pairs (...) along a last axis (..., 1)."""
    clipped = None if pair.clipped is None else pair.clipped[..., None]
    return Pair(pair.correlation[..., None, :, :], clipped)


def _part(share: jax.Array, whole: jax.Array) -> jax.Array:
    """`share` of a number that may be infinite where the share is zero."""
    return jnp.where(share > 0, share * jnp.where(share > 0, whole, 0), 0)
