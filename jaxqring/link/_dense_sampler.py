"""Errors of a noisy link on packed symbols, with a random word for every symbol.

The work is the same at every noise: arithmetic on integers in one pass over the words, without a
loop, a scatter or a logarithm, so that links, seeds and points that are mapped over go together.
That is the right shape for an accelerator. A CPU does better by looking for the few errors that
there are; see `jaxqring.link._error_sampler`, whose law is the same.

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
from jaxqring.codec._packing import SYMBOLS_PER_WORD
from jaxqring.link._kinds import below, decide, kind_thresholds, shared_envelope


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
    widths = None
    if envelope is not None:
        widths = below(table[:, 1:])
        table = jnp.maximum(shared_envelope(table, envelope), table)
    above = kind_thresholds(table[:, 1:])
    position = lax.iota(jnp.uint32, words.size)
    received = words
    # Written out, so that one kernel makes the words, uses them and forgets them.
    for pair in range(SYMBOLS_PER_WORD // 2):
        drawn = threefry(key, (position, jnp.full_like(position, pair)))
        for half, word in enumerate(drawn):
            shift = np.uint32(4 * pair + 2 * half)
            received ^= decide(word, (words >> shift) & np.uint32(3), above, widths) << shift
    return received
