"""Errors of a noisy link on packed symbols, with a random word for every symbol.

The work is the same at every noise: arithmetic on integers in one pass over the words, without a
loop, a scatter or a logarithm, so that links, seeds and points that are mapped over go together.
That is the right shape for an accelerator. A CPU does better by looking for the few errors that
there are; see `jaxqring.link._error_sampler`, whose law is the same. Where a CPU draws densely it
makes a pass for every other symbol of a word, eight in all, which compiles sooner.

Exactness. Every probability is a multiple of 2^-32, next to the float32 number that it is given.
Nothing is rounded differently from one platform to another, see `jaxqring.link._kinds`: the same
key and the same table give the same bits on all of them. A symbol's word depends on the key and on
its place, not on how many symbols there are.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring._threefry import KeyWords, threefry
from jaxqring._varying import mapped_alike
from jaxqring.codec._packing import SYMBOLS_PER_WORD
from jaxqring.link._kinds import below, decide, kind_thresholds, shared_envelope

_WHOLE = 64  # words
_PAIRS = SYMBOLS_PER_WORD // 2


def through_all(
    key: KeyWords, words: jax.Array, table: jax.Array, envelope: jax.Array | None = None
) -> jax.Array:
    """Sends packed words over a link, deciding for every symbol by itself.

    Args:
      key: see `jaxqring._threefry`.
      words: (W,) uint32, 16 symbols each.
      table: (S, 4) float32 probabilities of the errors, as `_error_sampler.through` takes them.
      envelope: (S, 4) float32, as there: links with the same key and envelope share errors.

    Returns:
      (W,) uint32.
    """
    if envelope is None:
        words, table, first, second = mapped_alike(words, table, *key)
        widths = None
    else:
        words, table, envelope, first, second = mapped_alike(words, table, envelope, *key)
        widths = below(table[:, 1:])
        table = jnp.maximum(shared_envelope(table, envelope), table)
    above = kind_thresholds(table[:, 1:])
    # XLA's CPU backend does not vectorise loops over odd lengths.
    size = words.size
    words = jnp.pad(words, (0, -size % _WHOLE))
    position = lax.iota(jnp.uint32, words.size)

    def two_symbols(pair: jax.Array | np.uint32, received: jax.Array) -> jax.Array:
        drawn = threefry((first, second), (position, jnp.full_like(position, pair)))
        for half, word in enumerate(drawn):
            shift = np.uint32(4) * pair + np.uint32(2 * half)
            received ^= decide(word, (words >> shift) & np.uint32(3), above, widths) << shift
        return received

    def in_turns() -> jax.Array:
        def turn(pair: jax.Array, received: jax.Array) -> jax.Array:
            return two_symbols(pair.astype(jnp.uint32), received)

        return lax.fori_loop(0, _PAIRS, turn, words)

    def at_once() -> jax.Array:
        received = words
        for pair in range(_PAIRS):
            received = two_symbols(np.uint32(pair), received)
        return lax.optimization_barrier(received)

    # Both end in memory: no consumer of the words is to draw them again for itself.
    return lax.platform_dependent(cpu=in_turns, default=at_once)[:size]
