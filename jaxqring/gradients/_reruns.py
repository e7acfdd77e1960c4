"""Weights of the probabilities of errors, from runs of a loss alone: score and Margulis-Russo.

An outcome is run, never differentiated. The result is its mean over samples, and for every kind of
error on every link the derivative of the expectation with respect to its probability.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import KeyWords, cipher_key, derive
from jaxqring._types import Key, PyTree, Sampler
from jaxqring.codec._packing import pack, packed_size
from jaxqring.link._symbol_channel import SymbolChannel
from jaxqring.link._transport import receive
from jaxqring.ring._cost import Hops
from jaxqring.ring._overrides import Overrides, Site
from jaxqring.ring._ring import Ring

#: (ring, typed keys (calls,)) -> a pytree of () floats.
Loss = Callable[[Ring, jax.Array], PyTree]
_KINDS = 3  # of errors of a symbol


class Runs(NamedTuple):
    """A loss, and the number of its runs; see `jaxqring.expected` for the other fields.

    Attributes:
      hops: of the collectives that draw from one key of the loss; all on the same nodes.
      folds: whether collective number n draws from `fold_in(key, n)`; else the only one draws from
        the key itself.
    """

    loss: Loss
    ring: Ring
    key: Key
    samples: int
    calls: int
    hops: tuple[Hops, ...]
    folds: bool
    batch: int | None

    @property
    def num_nodes(self) -> int:
        """N, as well the number of links."""
        return self.hops[0].num_nodes

    @property
    def sent(self) -> list[int]:
        """Symbols over each link, of each of the collectives."""
        return [hops.rounds * hops.symbols for hops in self.hops]

    def ciphers(self, keys: jax.Array) -> KeyWords:
        """The cipher keys (calls, collectives) of all collectives, from the keys (calls,)."""
        each = keys[:, None]
        if self.folds:
            numbers = jnp.arange(len(self.hops), dtype=jnp.uint32)
            fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
            each = jax.vmap(fold, in_axes=(0, None))(keys, numbers)
        return cipher_key(each)

    def watched(self, calls: KeyWords, site: Site | None = None) -> Ring:
        """The ring without derivatives, of these calls only, and with the error of one site set."""
        fixed = jax.tree.map(lax.stop_gradient, self.ring)
        overrides = Overrides(calls=calls, site=site, hops=self.hops)
        return dataclasses.replace(fixed, overrides=overrides)

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
        ciphers = runs.ciphers(keys)
        return runs.loss(runs.watched(ciphers), keys), counted(ciphers)

    losses, counts = each_sample(run, runs.key, runs.samples, runs.batch)
    probs = runs.probs()
    samples, sent = runs.samples, float(runs.calls * sum(runs.sent))
    if probs.ndim == 1:
        counts, sent = jnp.sum(counts, axis=1), sent * runs.num_nodes
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


def _counts_of_errors(runs: Runs) -> Callable[[KeyWords], jax.Array]:
    """A counter of the errors that calls will draw: (N, 3) of each kind, from `Runs.ciphers`.

    On scrambled links errors do not depend on the words sent: the same keys draw them again.
    """
    transition = runs.ring.transition
    links = jnp.broadcast_to(transition, (runs.num_nodes, *transition.shape[-2:]))
    sampler = runs.ring.sampler
    of_each = [_counts_of_collective(lax.stop_gradient(links), h, sampler) for h in runs.hops]

    def counted(ciphers: KeyWords) -> jax.Array:
        counts = [
            jnp.sum(lax.map(of_call, (ciphers[0][:, n], ciphers[1][:, n])), 0, dtype=jnp.uint32)
            for n, of_call in enumerate(of_each)
        ]
        return sum(counts[1:], counts[0]).astype(jnp.float32)

    return counted


def _counts_of_collective(
    links: jax.Array, hops: Hops, sampler: Sampler
) -> Callable[[KeyWords], jax.Array]:
    """A counter (N, 3) as `_counts_of_errors`, of one call, from its cipher key."""
    num_nodes, size, bits = hops.num_nodes, hops.size, hops.bits
    real = pack(jnp.full((size,), -1, jnp.int32), bits)
    nothing = jnp.zeros((packed_size(size, bits),), jnp.uint32)

    def of_hop(call: KeyWords, hop: jax.Array, node: jax.Array) -> jax.Array:
        channel = SymbolChannel(links[node])
        key = derive(call, hop, node)
        errors = real & receive(key, nothing, channel, scramble=True, sampler=sampler)
        low, high = errors & np.uint32(0x55555555), (errors >> 1) & np.uint32(0x55555555)
        kinds = jnp.stack([low & ~high, high & ~low, low & high])
        return jnp.sum(lax.population_count(kinds), axis=1, dtype=jnp.uint32)

    def of_call(call: KeyWords) -> jax.Array:
        def add(total: jax.Array, hop: jax.Array) -> tuple[jax.Array, None]:
            drawn = lax.map(lambda node: of_hop(call, hop, node), jnp.arange(num_nodes))
            return total + drawn, None

        nothing_yet = jnp.zeros((num_nodes, _KINDS), jnp.uint32)
        return lax.scan(add, nothing_yet, jnp.arange(hops.rounds, dtype=jnp.int32))[0]

    return of_call


def one_site(runs: Runs) -> tuple[PyTree, PyTree]:
    """As `score`, from one symbol of each sample, run with an error and without.

    The symbol and the kind of its error are uniform, and weighted with their number. The two runs
    also give the mean loss, given all other symbols.
    """
    num_nodes = runs.num_nodes
    probs = jnp.broadcast_to(runs.probs()[..., 1:], (num_nodes, _KINDS))

    def run(own: Key) -> tuple[PyTree, PyTree]:
        keys_of_calls, key_of_site = jax.random.split(own)
        keys = jax.random.split(keys_of_calls, runs.calls)
        ciphers = runs.ciphers(keys)
        number, rounds, symbols, sent = _one_collective(runs, key_of_site)
        ends = runs.calls, rounds, num_nodes, symbols, _KINDS
        call, hop, link, symbol, kind = (
            jax.random.randint(draw, (), 0, end)
            for draw, end in zip(jax.random.split(key_of_site, 5), ends, strict=True)
        )
        cipher = ciphers[0][call, number], ciphers[1][call, number]

        def with_error(error: jax.Array) -> PyTree:
            site = Site(cipher, hop, link, symbol, error)
            return runs.loss(runs.watched(ciphers, site), keys)

        both = lax.map(with_error, jnp.stack([jnp.uint32(0), kind.astype(jnp.uint32) + 1]))
        own_probs = probs[link]
        right = 1 - jnp.sum(own_probs)
        mean = jax.tree.map(lambda two: right * two[0] + _KINDS * own_probs[kind] * two[1], both)
        times = sent * float(runs.calls * num_nodes * _KINDS)
        weight = jnp.zeros((num_nodes, _KINDS)).at[link, kind].set(times)
        return mean, jax.tree.map(lambda two: (two[1] - two[0]) * weight, both)

    return _averaged(run, runs)


def _one_collective(runs: Runs, key: Key) -> tuple[Any, ...]:
    """The number of a collective, its rounds and the symbols of one of them; and its symbols sent.

    Drawn about as often as it sends symbols; the last number is divided by the exact probability.
    """
    rounds, symbols = (
        [getattr(hops, name) for hops in runs.hops] for name in ("rounds", "symbols")
    )
    if len(runs.hops) == 1:
        return 0, rounds[0], symbols[0], float(runs.sent[0])
    shares = np.asarray(runs.sent, np.float64) / sum(runs.sent)
    shares = np.maximum(shares, 2.0**-24)  # so that none is left out
    ends = np.round(np.cumsum(shares / shares.sum()) * 2.0**32)
    sent = np.asarray(runs.sent) / (np.diff(ends, prepend=0) / 2.0**32)
    # The keys of the site are made by `split`.
    word = jax.random.bits(jax.random.fold_in(key, 2**31), dtype=jnp.uint32)
    number = jnp.sum(word >= ends[:-1].astype(np.uint32), dtype=jnp.int32)
    tables = np.asarray(rounds, np.int32), np.asarray(symbols, np.int32), sent.astype(np.float32)
    return number, *(jnp.asarray(table)[number] for table in tables)


def every_site(runs: Runs) -> tuple[PyTree, PyTree]:
    """As `one_site`, summed over all symbols."""
    shapes = [(runs.calls, hops.rounds, runs.num_nodes, hops.symbols) for hops in runs.hops]
    lasts = np.cumsum([math.prod(shape) for shape in shapes])
    starts = lasts - [math.prod(shape) for shape in shapes]
    tables = [np.asarray(column, np.int32) for column in (starts, *zip(*shapes, strict=True))]

    def run(own: Key) -> tuple[PyTree, PyTree]:
        keys = jax.random.split(own, runs.calls)
        ciphers = runs.ciphers(keys)

        def changes_at(number: jax.Array) -> PyTree:
            which = jnp.sum(number >= lasts[:-1], dtype=jnp.int32)
            start, _, rounds, links, symbols = (jnp.asarray(table)[which] for table in tables)
            rest, symbol = jnp.divmod(number - start, symbols)
            rest, link = jnp.divmod(rest, links)
            call, hop = jnp.divmod(rest, rounds)
            cipher = ciphers[0][call, which], ciphers[1][call, which]

            def with_error(error: jax.Array) -> PyTree:
                site = Site(cipher, hop, link, symbol, error)
                return runs.loss(runs.watched(ciphers, site), keys)

            ends = lax.map(with_error, jnp.arange(_KINDS + 1, dtype=jnp.uint32))
            return jax.tree.map(lambda each: each[1:] - each[0], ends)

        changes = lax.map(changes_at, jnp.arange(int(lasts[-1]), dtype=jnp.int32))

        def by_link(change: jax.Array) -> jax.Array:
            parts = [
                jnp.sum(change[start:end].reshape(*shape, _KINDS), axis=(0, 1, 3))
                for start, end, shape in zip(starts, lasts, shapes, strict=True)
            ]
            return sum(parts[1:], parts[0])

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
