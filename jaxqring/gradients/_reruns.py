"""Weights of the probabilities of errors, from runs of a loss alone: score and Margulis-Russo.

An outcome is run, never differentiated. The result is its mean over samples, and for every kind of
error on every link the derivative of the expectation with respect to its probability.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import KeyWords, cipher_key, derive
from jaxqring._types import Key, PyTree
from jaxqring.codec._packing import pack, packed_size
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.link._transport import receive
from jaxqring.ring._cost import Cost
from jaxqring.ring._overrides import Overrides, Site
from jaxqring.ring._ring import Ring

#: (ring, typed keys (calls,)) -> a pytree of () floats.
Loss = Callable[[Ring, jax.Array], PyTree]
_KINDS = 3  # of errors of a symbol


class Runs(NamedTuple):
    """A loss, and the number of its runs; see `jaxqring.expected` for the fields."""

    loss: Loss
    ring: Ring
    key: Key
    samples: int
    calls: int
    cost: Cost
    batch: int | None

    @property
    def values(self) -> int:
        """Levels of one hop."""
        return self.cost.bits // (self.cost.rounds * self.ring.wire.bits)

    @property
    def symbols(self) -> int:
        """Symbols of one hop."""
        return self.values * self.ring.wire.bits // 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Calls, hops, links and symbols: the sites of a sample."""
        return self.calls, self.cost.rounds, self.cost.num_nodes, self.symbols

    def watched(self, calls: KeyWords, site: Site | None = None) -> Ring:
        """The ring without derivatives, of these calls only, and with the error of one site set."""
        shape = (self.cost.num_nodes, self.cost.rounds, self.values)
        fixed = jax.tree.map(lax.stop_gradient, self.ring)
        return dataclasses.replace(fixed, overrides=Overrides(calls=calls, site=site, shape=shape))

    def probs(self) -> jax.Array:
        """(4,) or (N, 4) float32 probabilities of no error and of each kind."""
        return lax.stop_gradient(error_probs(self.ring).astype(jnp.float32))


def error_probs(ring: Ring) -> jax.Array:
    """(4,) or (N, 4) probabilities of no error and of each kind, lost symbols guessed."""
    return SymbolChannel(ring.transition).guessed().xor_probs


def each_sample(function: Callable, key: Key, samples: int, batch: int | None) -> PyTree:
    """Results of the function for `samples` keys, stacked; `batch` of them side by side."""
    keys = jax.random.split(key, samples)
    if batch is None or batch >= samples:
        return jax.vmap(function)(keys)
    return lax.map(function, keys, batch_size=batch)


def score(runs: Runs) -> tuple[PyTree, PyTree]:
    """Mean losses, and their weights (N, 3) or (3,) on the probabilities of errors."""
    counted = _counts_of_errors(runs)

    def run(own: Key) -> tuple[PyTree, jax.Array]:
        keys = jax.random.split(own, runs.calls)
        return runs.loss(runs.watched(cipher_key(keys)), keys), counted(keys)

    losses, counts = each_sample(run, runs.key, runs.samples, runs.batch)
    probs = runs.probs()
    samples, sent = runs.samples, float(runs.calls * runs.cost.rounds * runs.symbols)
    if probs.ndim == 1:
        counts, sent = jnp.sum(counts, axis=1), sent * runs.cost.num_nodes
    # Centred, so that the large counts of right symbols do not drown the small ones in rounding.
    excess = counts - sent * probs[..., 1:]
    missing = jnp.sum(excess, axis=-1, keepdims=True)
    is_possible = probs[..., 1:] > 0
    scores = excess / jnp.where(is_possible, probs[..., 1:], jnp.nan) + missing / probs[..., :1]

    def weigh(outcome: jax.Array) -> jax.Array:
        # Less the mean of the others, which is less the mean of all, times a factor.
        gain = (outcome - jnp.mean(outcome)) * (samples / (samples - 1))
        return jnp.tensordot(gain, scores, 1, precision="highest") / samples

    return jax.tree.map(lambda x: jnp.mean(x, axis=0), losses), jax.tree.map(weigh, losses)


def _counts_of_errors(runs: Runs) -> Callable[[jax.Array], jax.Array]:
    """A counter of the errors that calls will draw: (N, 3) of each kind, from keys (calls,).

    On scrambled links errors do not depend on the words sent: the same keys draw them again.
    """
    ring, cost = runs.ring, runs.cost
    num_nodes, size, bits = cost.num_nodes, runs.values, ring.wire.bits
    links = jnp.broadcast_to(ring.transition, (num_nodes, *ring.transition.shape[-2:]))
    links = lax.stop_gradient(links)
    real = pack(jnp.full((size,), -1, jnp.int32), bits)
    nothing = jnp.zeros((packed_size(size, bits),), jnp.uint32)

    def of_hop(call: KeyWords, hop: jax.Array, node: jax.Array) -> jax.Array:
        channel = SymbolChannel(links[node])
        errors = real & receive(derive(call, hop, node), nothing, channel, scramble=True)
        low, high = errors & np.uint32(0x55555555), (errors >> 1) & np.uint32(0x55555555)
        kinds = jnp.stack([low & ~high, high & ~low, low & high])
        return jnp.sum(lax.population_count(kinds), axis=1, dtype=jnp.uint32)

    def of_call(call: KeyWords) -> jax.Array:
        def add(total: jax.Array, hop: jax.Array) -> tuple[jax.Array, None]:
            drawn = lax.map(lambda node: of_hop(call, hop, node), jnp.arange(num_nodes))
            return total + drawn, None

        nothing_yet = jnp.zeros((num_nodes, _KINDS), jnp.uint32)
        return lax.scan(add, nothing_yet, jnp.arange(cost.rounds, dtype=jnp.int32))[0]

    def counted(keys: jax.Array) -> jax.Array:
        each = lax.map(of_call, cipher_key(keys))
        return jnp.sum(each, axis=0, dtype=jnp.uint32).astype(jnp.float32)

    return counted


def one_site(runs: Runs) -> tuple[PyTree, PyTree]:
    """As `score`, from one symbol of each sample, run with an error and without.

    The symbol and the kind of its error are uniform, and weighted with their number. The two runs
    also give the mean loss, given all other symbols.
    """
    cost, shape = runs.cost, runs.shape
    sites = math.prod(shape)
    probs = jnp.broadcast_to(runs.probs()[..., 1:], (cost.num_nodes, _KINDS))

    def run(own: Key) -> tuple[PyTree, PyTree]:
        keys_of_calls, key_of_site = jax.random.split(own)
        keys = jax.random.split(keys_of_calls, runs.calls)
        ciphers = cipher_key(keys)
        draws = jax.random.split(key_of_site, 5)
        call, hop, link, symbol, kind = (
            jax.random.randint(draw, (), 0, end)
            for draw, end in zip(draws, (*shape, _KINDS), strict=True)
        )

        def with_error(error: jax.Array) -> PyTree:
            site = Site((ciphers[0][call], ciphers[1][call]), hop, link, symbol, error)
            return runs.loss(runs.watched(ciphers, site), keys)

        both = lax.map(with_error, jnp.stack([jnp.uint32(0), kind.astype(jnp.uint32) + 1]))
        own_probs = probs[link]
        right = 1 - jnp.sum(own_probs)
        mean = jax.tree.map(lambda two: right * two[0] + _KINDS * own_probs[kind] * two[1], both)
        weight = jnp.zeros((cost.num_nodes, _KINDS)).at[link, kind].set(float(sites * _KINDS))
        return mean, jax.tree.map(lambda two: (two[1] - two[0]) * weight, both)

    return _averaged(run, runs)


def every_site(runs: Runs) -> tuple[PyTree, PyTree]:
    """As `one_site`, summed over all symbols."""
    shape = runs.shape

    def run(own: Key) -> tuple[PyTree, PyTree]:
        keys = jax.random.split(own, runs.calls)
        ciphers = cipher_key(keys)

        def changes_at(number: jax.Array) -> PyTree:
            call, hop, link, symbol = jnp.unravel_index(number, shape)
            chosen = ciphers[0][call], ciphers[1][call]

            def with_error(error: jax.Array) -> PyTree:
                site = Site(chosen, hop, link, symbol, error)
                return runs.loss(runs.watched(ciphers, site), keys)

            ends = lax.map(with_error, jnp.arange(_KINDS + 1, dtype=jnp.uint32))
            return jax.tree.map(lambda each: each[1:] - each[0], ends)

        changes = lax.map(changes_at, jnp.arange(math.prod(shape), dtype=jnp.int32))

        def by_link(change: jax.Array) -> jax.Array:
            return jnp.sum(change.reshape(*shape, _KINDS), axis=(0, 1, 3))

        mean = runs.loss(runs.watched(ciphers), keys)
        return mean, jax.tree.map(by_link, changes)

    return _averaged(run, runs)


def _averaged(run: Callable, runs: Runs) -> tuple[PyTree, PyTree]:
    """Means over the samples; the weights of all links together where they are one."""
    both = each_sample(run, runs.key, runs.samples, runs.batch)
    mean, weights = jax.tree.map(lambda each: jnp.mean(each, axis=0), both)
    if runs.ring.transition.ndim == 2:
        weights = jax.tree.map(lambda weight: jnp.sum(weight, axis=0), weights)
    return mean, weights
