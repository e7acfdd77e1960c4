"""Random bits at the speed of the consumer: Threefry-2x32 without loops.

The generator is the one behind JAX's default keys, Threefry-2x32 with 20 rounds (Salmon, Moraes,
Dror and Shaw, SC 2011). On CPUs JAX runs its rounds as a loop over whole arrays, which costs six
times as much as the rounds themselves; written out, XLA fuses them into whatever consumes the
bits, compiles them faster, and no random bit passes through memory.

Bits depend on the key, a position and the number of a stream, and on nothing else: not on the
implementation that made the key beyond its own words, nor on the mapping around the call.

Fused rounds have a price where keys are made: a key is then made again by all that draws with it,
in the loop over its words, and what LLVM does to such a loop took a large part of the compilation
of a protected ring. A key is therefore one array of two words, which ends in memory. Where keys are
made for many nodes at once, the analysis by which LLVM finds what is the same along a row takes a
time that doubles with every round. On CPUs such keys are made one by one, in a loop.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

KeyWords = tuple[Any, Any]  # uint32 arrays, or numpy scalars

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_ROUNDS = 20
_DOMAIN = np.uint32(0x6A617871), np.uint32(0x72696E67)


@jax.jit  # so that it is traced once, not for every use
def threefry(key: KeyWords, counter: KeyWords) -> KeyWords:
    """Two random words from two words of key and two of counter, elementwise.

    >>> zero = jnp.uint32(0)
    >>> [hex(int(word)) for word in threefry((zero, zero), (zero, zero))]
    ['0x6b200159', '0x99ba4efe']
    """
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(_ROUNDS // 4):
        for distance in _ROTATIONS[group % 2]:
            x = x + y
            y = ((y << np.uint32(distance)) | (y >> np.uint32(32 - distance))) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def cipher_key(key: jax.Array) -> KeyWords:
    """Two words that stand for typed keys (...) of any implementation, each (...) uint32.

    Encrypted once under a counter of our own, so that nothing drawn here repeats what JAX draws
    or folds from the same key.
    """
    words = jax.random.key_data(key)
    pair = words[..., 0], words[..., 1]
    for word in range(2, words.shape[-1], 2):
        pair = _make_keys(pair, (words[..., word], words[..., word + 1]))
    return _make_keys(pair, _DOMAIN)


def derive(key: KeyWords, first: jax.Array | int, second: jax.Array | int = 0) -> KeyWords:
    """A key for each pair of numbers. A key either draws words or derives keys, never both."""
    return _make_keys(key, (_uint32(first), _uint32(second)))


@jax.jit
def _make_keys(key: KeyWords, counter: KeyWords) -> KeyWords:
    """`threefry` for keys, whose rounds no consumer repeats for every word it draws."""
    words = jnp.broadcast_arrays(*key, *counter)
    flat = [word.reshape(-1) for word in words]
    made = jax.vmap(_make_key)(*flat) if words[0].ndim else _make_key(*words)
    return made[0].reshape(words[0].shape), made[1].reshape(words[0].shape)


@custom_vmap
def _make_key(*words: jax.Array) -> KeyWords:
    # As one array, which ends in memory: otherwise every consumer of a word makes both again.
    pair = lax.optimization_barrier(jnp.stack(threefry(words[:2], words[2:])))
    return pair[0], pair[1]


@_make_key.def_vmap
def _(size: int, mapped: list[bool], *words: jax.Array) -> tuple[KeyWords, tuple[bool, bool]]:
    def at_once(*words: jax.Array) -> KeyWords:
        axes = [0 if own else None for own in mapped]
        return jax.vmap(lambda *each: threefry(each[:2], each[2:]), axes)(*words)

    def one_by_one(*words: jax.Array) -> KeyWords:
        own = [word for word, is_own in zip(words, mapped, strict=True) if is_own]

        def make(own: list[jax.Array]) -> KeyWords:
            left = iter(own)
            pairs = zip(words, mapped, strict=True)
            return _make_key(*(next(left) if is_own else word for word, is_own in pairs))

        return lax.map(make, own)

    if size == 1:
        pairs = zip(words, mapped, strict=True)
        only = _make_key(*(word[0] if is_own else word for word, is_own in pairs))
        made = only[0][None], only[1][None]
    else:
        made = lax.platform_dependent(*words, cpu=one_by_one, default=at_once)
    return made, (True, True)


def _uint32(number: jax.Array | int) -> Any:
    return number.astype(jnp.uint32) if isinstance(number, jax.Array) else np.uint32(number)


def random_words(key: KeyWords, size: int) -> jax.Array:
    """(size,) uint32, uniform.

    Args:
      key: see `cipher_key` and `derive`.
      size: how many.

    >>> key = cipher_key(jax.random.key(0))
    >>> first, second = (random_words(derive(key, i), 3) for i in range(2))
    >>> first.dtype, bool(jnp.all(first != second))
    (dtype('uint32'), True)
    """
    position = lax.iota(jnp.uint32, size)
    return threefry(key, (position, jnp.zeros_like(position)))[0]
