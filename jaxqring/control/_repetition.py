"""Exponents over noisy links: every symbol several times, and a majority at each hop.

An exponent of a scale has eight bits, four symbols. A node sends each symbol r times over its link;
its successor takes the symbol that arrived most often, and among several of those the one that
arrived first. Copies are alike, so that each of the tied symbols is as likely to be the first: the
law is that of a tie broken by a fair coin, and needs none.

Repetition is the simplest code and far from the best. It suits a word of four symbols, which needs
no table of a code, and its law is a polynomial that can be differentiated by the link.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.link import SymbolChannel, transmit
from jaxqring.link._symbol_channel import check_transition

#: The most repetitions: their outcomes, 6,545 of them, are enumerated.
MOST = 32
_SYMBOLS = 16  # of a packed word


@functools.cache
def _losing_outcomes(repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """The outcomes of a vote in which the right symbol may lose.

    Returns:
      (K, 4) the copies that arrived with each pattern of errors, the first the one without; and
      (K,) the number of orders of such copies, times the probability that the vote is lost.
    """
    counts, weights = [], []
    for right, one, two in itertools.product(range(repetitions + 1), repeat=3):
        three = repetitions - right - one - two
        if three < 0:
            continue
        outcome = (right, one, two, three)
        ties = outcome.count(max(outcome))
        lost = 1 - 1 / ties if right == max(outcome) else 1.0
        if lost:
            orders = math.factorial(repetitions)
            for copies in outcome:
                orders //= math.factorial(copies)
            counts.append(outcome)
            weights.append(orders * lost)
    return np.array(counts), np.array(weights)


def symbol_error(channel: SymbolChannel, repetitions: int) -> jax.Array:
    """Exact probability that the majority of the copies of a symbol is wrong.

    Args:
      channel: (...) links, scrambled, so that errors do not depend on the symbol. Symbols that one
        flags as erased count as uniform guesses. (A receiver that left them out of the vote would
        do better.)
      repetitions: r, in [1, 32]. Ties go to the symbol that arrived first.

    Returns:
      (...) probability, which can be differentiated by the channel.

    Raises:
      TypeError: if the channel is not a SymbolChannel.
      ValueError: if its matrix is not stochastic, or the repetitions are out of range.

    Reference: derived; a sum over the outcomes of the vote.

    >>> from jaxqring import superdense, werner
    >>> link = superdense(werner(fidelity=0.99))
    >>> [f"{float(symbol_error(link, r)):.2e}" for r in (1, 2, 3, 5)]
    ['1.00e-02', '1.00e-02', '2.32e-04', '4.41e-06']
    """
    check_transition("channel", channel)
    checks.integer("repetitions", repetitions, 1, MOST)
    counts, weights = _losing_outcomes(repetitions)
    patterns = channel.guessed().xor_probs
    ones = jnp.ones((*patterns.shape[:-1], 1, 4), patterns.dtype)
    copies = jnp.broadcast_to(patterns[..., None, :], (*patterns.shape[:-1], repetitions, 4))
    powers = jnp.concatenate([ones, jnp.cumprod(copies, axis=-2)], axis=-2)
    chosen = [powers[..., counts[:, pattern], pattern] for pattern in range(4)]
    return jnp.sum(weights * functools.reduce(jnp.multiply, chosen), axis=-1, dtype=powers.dtype)


def word_error(
    channel: SymbolChannel, repetitions: int, hops: int, *, symbols: int = 4
) -> jax.Array:
    """Exact probability that a word of repeated symbols is wrong somewhere on its way.

    Args:
      channel: (...) as for `symbol_error`, the same for every hop.
      repetitions: r, of each symbol on each hop.
      hops: the links that the word crosses, each node voting and sending anew.
      symbols: of a word; four for an exponent.

    Returns:
      (...) 1 - (1 - e)^(symbols hops) with e of `symbol_error`. A word that one hop spoils and
      another one mends counts as wrong, since the nodes between have used it.

    Raises:
      TypeError: as `symbol_error`.
      ValueError: as `symbol_error`; if there are no hops or no symbols.

    >>> link = SymbolChannel(jnp.full((4, 4), 0.01 / 3) + jnp.eye(4) * (0.99 - 0.01 / 3))
    >>> [f"{float(word_error(link, r, 14)):.3e}" for r in (1, 3, 5, 7)]
    ['4.304e-01', '1.291e-02', '2.467e-04', '3.62...e-06']
    """
    checks.integer("hops", hops)
    checks.integer("symbols", symbols)
    wrong = symbol_error(channel, repetitions)
    sure = wrong >= 1  # where the logarithm is infinite, or, by rounding, not a number
    right = symbols * hops * jnp.log1p(-jnp.where(sure, 0, wrong))
    return jnp.where(sure, 1, -jnp.expm1(right))


def repetitions_for(target: float, channel: SymbolChannel, hops: int, *, symbols: int = 4) -> int:
    """The fewest repetitions with which a word is wrong at most as often as told.

    Args:
      target: probability that a word is wrong somewhere on its way, in (0, 1).
      channel: one link, as for `word_error`; concrete.
      hops: as for `word_error`.
      symbols: as for `word_error`.

    Returns:
      r.

    Raises:
      TypeError: as `word_error`.
      ValueError: as `word_error`; if the target is not in (0, 1) or needs more than 32
        repetitions, or the channel is traced or has batch axes.

    >>> from jaxqring import superdense, werner
    >>> repetitions_for(1e-3, superdense(werner(fidelity=0.99)), 14)
    5
    """
    checks.open_interval("target", target)
    check_transition("channel", channel)
    if checks.is_traced(channel):
        checks.refuse("channel", "be concrete", channel)
    if channel.transition.ndim != 2:
        checks.refuse("channel", "be one link without batch axes", channel.transition.shape)
    checks.integer("hops", hops)
    checks.integer("symbols", symbols)
    # In double precision on the host: a program for each number of repetitions would be compiled.
    patterns = np.asarray(channel.guessed().xor_probs, np.float64)
    for repetitions in range(1, MOST + 1):
        counts, weights = _losing_outcomes(repetitions)
        wrong = min(float(weights @ np.prod(patterns**counts, axis=1)), 1 - 2**-53)
        if -math.expm1(symbols * hops * math.log1p(-wrong)) <= target:
            return repetitions
    return checks.refuse("target", f"be in reach of {MOST} repetitions on this link", target)


def relay(
    words: jax.Array, channel: SymbolChannel, key: Key, *, repetitions: int, hops: int
) -> jax.Array:
    """Sends packed words over some hops, every symbol repeated on each, and samples the errors.

    Args:
      words: (W,) uint32, four exponents of eight bits each; symbol j is bits (2j + 1, 2j).
      channel: one link without batch axes, the same for every hop; scrambled.
      key: typed PRNG key.
      repetitions: r, in [1, 32]. Ties go to the symbol that arrived first.
      hops: the links that the words cross, each node voting and sending anew.

    Returns:
      (W,) uint32 words that the last node has.

    Raises:
      TypeError: as `jaxqring.transmit`.
      ValueError: as `jaxqring.transmit`; if the words have not one axis, or a number is out of
        range.

    >>> from jaxqring import superdense, werner
    >>> link, words = superdense(werner(fidelity=0.99)), jnp.arange(100, dtype=jnp.uint32)
    >>> bool((relay(words, link, jax.random.key(0), repetitions=9, hops=7) == words).all())
    True
    """
    checks.integer("repetitions", repetitions, 1, MOST)
    checks.integer("hops", hops)
    if not hasattr(words, "dtype") or words.dtype != jnp.uint32:
        checks.refuse("words", "be uint32", getattr(words, "dtype", words), TypeError)
    if words.ndim != 1:
        checks.refuse("words", "have one axis", words.shape)
    check_transition("channel", channel)
    if channel.transition.ndim != 2:
        checks.refuse("channel", "be one link without batch axes", channel.transition.shape)
    checks.prng_key("key", key)

    def hop(held: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        copies = jnp.broadcast_to(held, (repetitions, *held.shape))
        return _majority(transmit(copies, channel, jax.random.fold_in(key, number))), None

    return lax.scan(hop, jnp.asarray(words), jnp.arange(hops))[0]


def _majority(copies: jax.Array) -> jax.Array:
    """(W,) uint32 words of the symbols that are most frequent in copies (r, W)."""
    places = 2 * np.arange(_SYMBOLS, dtype=np.uint32)
    arrived = (copies[..., None] >> places) & np.uint32(3)
    votes = jnp.stack([jnp.sum(arrived == symbol, axis=0) for symbol in range(4)])
    own = jnp.take_along_axis(votes, arrived.astype(jnp.int32), axis=0)
    first = jnp.argmax(own == jnp.max(votes, axis=0), axis=0)
    chosen = jnp.take_along_axis(arrived, first[None], axis=0)[0]
    return jnp.sum(chosen << places, axis=-1, dtype=jnp.uint32)
