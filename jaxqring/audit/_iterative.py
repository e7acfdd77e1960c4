"""Iterative amplitude estimation: shots as deep as what is known so far allows.

Of psi = 2 theta, in [0, pi], a message that has made K hops shows (1 + cos(K psi)) / 2: back at u
for even K, at v for odd ones. The interval that psi is known to lie in is narrowed by shots at the
deepest K at which the whole interval lies on one branch of the cosine.

Source: Grinko, Gacon, Zoufal and Woerner, npj Quantum Information 7, 52 (2021), with Hoeffding's
intervals, for the psi of this protocol.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

_MOST_ROUNDS = 1000


class Found(NamedTuple):
    """The angle () read off, the hops () of all messages, and how many rounds () of shots."""

    theta: jax.Array
    hops: jax.Array
    rounds: jax.Array


class _State(NamedTuple):
    low: jax.Array
    high: jax.Array
    depth: jax.Array
    hits: jax.Array
    shots: jax.Array
    hops: jax.Array
    rounds: jax.Array


def narrowings(gap: float) -> int:
    """How often the depth can double before the interval is as small as the gap of psi.

    >>> narrowings(0.1)
    5
    """
    return max(1, math.ceil(math.log2(math.pi / gap)))


def iterate(
    key: jax.Array,
    theta: jax.Array,
    *,
    threshold: float,
    gap: float,
    shots: int,
    risk: float,
    qubits: int,
    hop_noise: ArrayLike,
) -> Found:
    """Narrows the angle down until it lies on one side of a threshold, or to the gap.

    Args:
      key: typed PRNG key.
      theta: () the angle.
      threshold: of theta.
      gap: of theta; narrower than this around the threshold nothing is promised.
      shots: in one round.
      risk: probability that an interval misses the angle, all rounds together, without noise.
      qubits: of the register.
      hop_noise: () probability that a hop replaces it by white noise; known to the parties.
    """
    kind = theta.dtype
    deepest = 2 ** narrowings(2 * gap)
    depths = jnp.arange(1, deepest + 1)
    # Each depth has its own interval; a depth that is kept for several rounds uses up as many.
    spread = math.log(2 * narrowings(2 * gap) * 4 / risk) / 2

    def go_on(state: _State) -> jax.Array:
        undecided = (state.low < 2 * threshold) & (state.high > 2 * threshold)
        wide = state.high - state.low > 2 * gap
        return undecided & wide & (state.rounds < _MOST_ROUNDS)

    def measure(state: _State) -> _State:
        # An interval may end where its branch does.
        first = jnp.floor(depths * state.low / jnp.pi + 1e-6)
        last = jnp.ceil(depths * state.high / jnp.pi - 1e-6) - 1
        one_branch = (first == last) & (depths >= jnp.maximum(2 * state.depth, 1))
        best = jnp.max(jnp.where(one_branch, depths, 0))
        deeper = best > 0
        depth = jnp.where(deeper, best, state.depth)
        alive = (1 - jnp.asarray(hop_noise, kind)) ** depth
        rest = (1 - alive) * 2.0**-qubits
        chance = alive * (1 + jnp.cos(2 * theta * depth)) / 2 + rest
        own = jax.random.fold_in(key, state.rounds)
        found = jax.random.binomial(own, shots, jnp.clip(chance, 0, 1), dtype=kind)
        hits = jnp.where(deeper, 0, state.hits) + found
        count = jnp.where(deeper, 0, state.shots) + shots
        share = (hits / count - rest) / alive
        width = jnp.sqrt(spread / count) / alive
        least, most = jnp.clip(share - width, 0, 1), jnp.clip(share + width, 0, 1)
        branch = jnp.floor(depth * (state.low + state.high) / 2 / jnp.pi)
        rising = branch % 2 == 1
        near = jnp.where(rising, jnp.arccos(1 - 2 * least), jnp.arccos(2 * most - 1))
        far = jnp.where(rising, jnp.arccos(1 - 2 * most), jnp.arccos(2 * least - 1))
        low = jnp.maximum(state.low, (branch * jnp.pi + near) / depth)
        high = jnp.minimum(state.high, (branch * jnp.pi + far) / depth)
        return _State(
            jnp.minimum(low, high),
            jnp.maximum(low, high),
            depth,
            hits,
            count,
            state.hops + (depth * shots).astype(kind),
            state.rounds + 1,
        )

    zero = theta * 0
    start = _State(zero, zero + jnp.pi, jnp.int32(0), zero, zero, zero, jnp.int32(0))
    end = lax.while_loop(go_on, measure, start)
    return Found((end.low + end.high) / 4, end.hops, end.rounds)
