"""Masks that add up to zero, from GHZ states measured in the Fourier basis.

A mask mod 2^b takes b qubit GHZ states: each party reads its b qubits as a number and applies the
Fourier transform of Z_(2^b), one measured qubit after the other (Griffiths and Niu, Phys. Rev.
Lett. 76, 3228 (1996)). Hadamards in its place give masks whose XOR is zero, which a ring that adds
cannot use.

**Noise.** The parties twirl the states: they turn their qubits by public random phases that add up
to zero, and either all flip them or no party does. That leaves a GHZ state as it is, and reduces
any noise to one number for the sum, the visibility V of `GHZSource`: whatever the state, any N - 1
masks are uniform and independent, and the sum is off by e with probability

    P(e) = prod_r (1 + V cos(2 pi 2^r e / 2^b)) / 2

independently of them (our derivation; the tests compare it with dense matrices). As with `scramble`
on the links, public randomness makes errors independent of data.
"""

import functools
import math
from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, cipher_key, derive, threefry
from jaxqring._types import Key, Realisation
from jaxqring.link._error_sampler import spacing_factor, spacings, through
from jaxqring.physics.ghz import GHZSource

# Segments of the sums in which errors are searched for at once.
_SEGMENTS = 256
# Masks are made in blocks that fit a cache.
_BLOCK = 2**13


def masks(
    key: Key,
    source: GHZSource,
    shape: int | tuple[int, ...],
    bits: int,
    realisation: Realisation = "qft",
) -> jax.Array:
    """Draws masks of every party that add up to zero but for errors of the states.

    Wrong sums are looked for, as `Ring(sampler="sparse")` does, on every platform.

    Simplification of "prime": a system of prime dimension is carried by ceil(log2 d) qubit GHZ
    states, and an error in any of them makes the sum a uniform wrong one.

    Args:
      key: typed PRNG key, for these masks only.
      source: of the GHZ states, twirled; `bits` copies are measured for each mask.
      shape: of one party's masks.
      bits: b, of a mask: in [1, 32], for "prime" in [1, 15].
      realisation: "qft" for sums mod 2^b; "prime" for sums mod `prime_modulus(bits)`; "xor" for
        masks whose bitwise XOR is zero, one X measurement a bit.

    Returns:
      (N, *shape) uint32, below the modulus.

    Raises:
      TypeError: if `key` is not a typed PRNG key, or `source` not a `GHZSource`.
      ValueError: if `key` is a batch of keys, the realisation is unknown, or `bits` is out of
        range.

    Reference: our interpretation; the paper does not name the modulus of the sums of masks.

    >>> drawn = masks(jax.random.key(0), GHZSource(3), 4, bits=8)
    >>> drawn.shape, [int(total) for total in jnp.sum(drawn, axis=0) % 256]
    ((3, 4), [0, 0, 0, 0])
    """
    checks.prng_key("key", key)
    checks.instance("source", source, GHZSource)
    checks.one_of("realisation", realisation, get_args(Realisation))
    bits = checks.integer("bits", bits, 1, 15 if realisation == "prime" else 32)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    num_parties, size = source.num_parties, math.prod(shape)
    cipher = cipher_key(key)
    draws, mistakes = derive(cipher, 0), derive(cipher, 1)
    visibility = source.visibility
    if realisation == "prime":
        modulus = prime_modulus(bits)
        errors = _uniform_errors(mistakes, visibility, size, modulus)
    elif realisation == "xor":
        modulus, errors = 0, _wrong_bits(mistakes, visibility, size)
    else:
        modulus = 0
        errors = lax.bitcast_convert_type(sum_errors(mistakes, visibility, size, bits), jnp.uint32)
    # Differences of N uniform numbers in a ring are distributed as zero-sum masks are; see
    # `jaxqring.ring._masking`.
    block = min(_BLOCK, size)
    everyone = jnp.arange(num_parties, dtype=jnp.uint32)

    def fill(number: jax.Array, filled: jax.Array) -> jax.Array:
        keys = derive(draws, number)
        if realisation == "prime":
            uniform = jax.vmap(lambda i: _uniform_below(derive(keys, i), block, modulus))(everyone)
        else:
            uniform = jax.vmap(lambda i: _uniform_bits(derive(keys, i), block, bits))(everyone)
        previous = jnp.roll(uniform, 1, axis=0)
        # The last block begins early enough to fit, and writes over the end of the one before.
        start = jnp.minimum(number * block, size - block)
        error = lax.dynamic_slice(errors, (start,), (block,))
        if realisation == "prime":
            drawn = (uniform + (modulus - previous)) % modulus
            drawn = drawn.at[0].set((drawn[0] + error) % modulus)
        elif realisation == "xor":
            drawn = uniform ^ previous
            drawn = drawn.at[0].set(drawn[0] ^ error) & np.uint32(2**bits - 1)
        else:
            drawn = uniform - previous
            drawn = drawn.at[0].add(error) & np.uint32(2**bits - 1)
        return lax.dynamic_update_slice(filled, drawn, (0, start))

    filled = jnp.zeros((num_parties, size), jnp.uint32)
    if size:
        filled = lax.fori_loop(0, -(-size // block), fill, filled)
    return filled.reshape(num_parties, *shape)


def universal_hash(key: Key, masks: jax.Array, size: int, modulus: int) -> jax.Array:
    """Multiplies every party's masks with one public random matrix: privacy amplification.

    Linear, so that masks that add up to zero still do. Over a prime field the matrices are
    two-universal: two different vectors of masks have the same image with probability
    modulus^-size, on which `Security(amplification="universal")` relies. Mod 2^b they are not, as
    4 m = 0 mod 8 for half of all m.

    Args:
      key: typed PRNG key; public randomness, drawn after the copies were verified.
      masks: (N, n) uint32 raw masks, below `modulus`, with n below 2^16.
      size: number of masks to make, at most n.
      modulus: a prime below 2^16, as `prime_modulus` finds.

    Returns:
      (N, size) uint32.

    Raises:
      TypeError: if `key` is not a typed PRNG key.
      ValueError: if `key` is a batch of keys, the masks have another type or shape, `size` is out
        of range, or the modulus is not a prime below 2^16.

    Reference: Renner, arXiv:quant-ph/0512258 (privacy amplification by two-universal hashing).

    >>> raw = masks(jax.random.key(0), GHZSource(3), 100, bits=8, realisation="prime")
    >>> hashed = universal_hash(jax.random.key(1), raw, 10, prime_modulus(8))
    >>> hashed.shape, int(jnp.max(jnp.sum(hashed, axis=0) % 257))
    ((3, 10), 0)
    """
    checks.prng_key("key", key)
    if getattr(masks, "dtype", None) != jnp.uint32 or masks.ndim != 2 or masks.shape[1] >= 2**16:
        shown = getattr(masks, "shape", masks)
        checks.refuse("masks", "be uint32 of shape (N, n), with n below 2^16", shown)
    size = checks.integer("size", size, 1, masks.shape[1])
    modulus = checks.integer("modulus", modulus, 2, 2**16 - 1)
    if not is_prime(modulus):
        checks.refuse("modulus", "be prime", modulus)
    cipher = cipher_key(key)

    def row(number: jax.Array) -> jax.Array:
        weights = _uniform_below(derive(cipher, number), masks.shape[1], modulus)
        return jnp.sum(weights * masks % modulus, axis=1, dtype=jnp.uint32) % modulus

    return lax.map(row, jnp.arange(size, dtype=jnp.uint32)).T


def prime_modulus(bits: int) -> int:
    """The smallest prime above 2^bits.

    >>> prime_modulus(4), prime_modulus(15)
    (17, 32771)
    """
    return prime_above(2**bits)


def prime_above(number: int) -> int:
    """The smallest prime above `number`, of some ten digits at most.

    >>> prime_above(24), prime_above(29)
    (29, 31)
    """
    candidate = number + 1
    while not is_prime(candidate):
        candidate += 1
    return candidate


def is_prime(number: int) -> bool:
    """True if `number`, of some ten digits at most, is prime."""
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def sum_error_law(visibility: ArrayLike, bits: int) -> jax.Array:
    """Distribution of the error of a sum of masks mod 2^bits.

    Args:
      visibility: () of every qubit GHZ state, or (bits,) of each: state r holds the bit 2^r of
        the number before the Fourier transform.
      bits: b, in [1, 20].

    Returns:
      (2^b,) probability of each error.

    Raises:
      ValueError: if `bits` is not an integer in [1, 20], or the visibility has another shape or
        lies outside [-1, 1].

    Reference: our derivation.

    >>> print(sum_error_law(0.9, 2).round(4))  # of the sums 0, 1, 2 and 3
    [0.9025 0.025  0.0475 0.025 ]
    """
    bits = checks.integer("bits", bits, 1, 20)
    if np.shape(visibility) not in ((), (bits,)):
        checks.refuse("visibility", f"have the shape () or ({bits},)", np.shape(visibility))
    value, _ = checks.bounded("visibility", visibility, -1.0, 1.0)
    # Whole cycles cancel, and integers give the fraction of one exactly.
    cycles = (np.arange(2**bits)[None] << np.arange(bits)[:, None]) % 2**bits / 2**bits
    cosines = jnp.asarray(np.cos(2 * np.pi * cycles), value.dtype)
    return jnp.prod((1 + jnp.broadcast_to(value, (bits,))[:, None] * cosines) / 2, axis=0)


def sum_errors(cipher: KeyWords, visibility: jax.Array, size: int, bits: int) -> jax.Array:
    """Draws the errors of sums of masks, in a time that grows with the number of wrong ones.

    The bits of an error are measured from the lowest to the highest; given the lower ones, of
    value E below 2^t, bit t is set with probability (1 - V cos(pi E / 2^t)) / 2. All bits are zero
    up to the first error, so that wrong sums are found by the gaps between them, and only their
    higher bits are drawn one by one.

    Args:
      cipher: two words of key, used for nothing else.
      visibility: () V, of every GHZ state.
      size: number of sums.
      bits: b, of a mask.

    Returns:
      (size,) int32, below 2^b for b < 32.
    """
    return _sum_errors(size, bits)(*cipher, visibility)


@functools.cache
def _sum_errors(size: int, bits: int) -> Callable[..., jax.Array]:
    """`sum_errors` of one size; under `vmap` keys run one by one and do not wait for each other."""
    return sequential_vmap(functools.partial(_draw_sum_errors, size=size, bits=bits))


def _draw_sum_errors(
    first: jax.Array, second: jax.Array, visibility: jax.Array, *, size: int, bits: int
) -> jax.Array:
    cipher = first, second
    segments = max(1, min(_SEGMENTS, size // 16))
    length = -(-size // segments)
    wrong = jnp.clip((1 - visibility.astype(jnp.float32)) / 2, 0, 1)  # of one bit
    log_right = jnp.log1p(-jnp.minimum(wrong, 1 - 2.0**-24))
    rate = -jnp.expm1(bits * log_right)  # of a sum
    factor = spacing_factor(jnp.minimum(rate, 1 - 2.0**-24))
    segment = lax.iota(jnp.uint32, segments)
    # Made of the key and the noise, to have the type of mapped values.
    zero = (cipher[0] & np.uint32(0)) + (rate < 0).astype(jnp.uint32)

    def draw(error_id: jax.Array, word_id: jax.Array | np.uint32) -> KeyWords:
        counter = jnp.full_like(segment, error_id), segment * np.uint32(64) + word_id
        return threefry(cipher, counter)

    def next_error(state: tuple) -> tuple:
        """Draws one error in every segment that has not come to its end."""
        error_id, position, errors = state
        spacing_word, lowest_word = draw(error_id, np.uint32(32))
        position = jnp.minimum(position + spacings(spacing_word, factor, length), length)
        lowest = jnp.log1p(-_uniform(lowest_word) * rate) / log_right
        lowest = jnp.clip(lowest, 0, bits - 1).astype(jnp.int32)

        def two_bits(pair: jax.Array, made: tuple) -> tuple:
            for half, word in enumerate(draw(error_id, pair.astype(jnp.uint32))):
                error, cosine = made  # the error so far, and the cosine of pi E / 2^t
                t = 2 * pair + half
                chosen = _uniform(word) < (1 - (1 - 2 * wrong) * cosine) / 2
                one = jnp.where(t > lowest, chosen, t == lowest)
                error |= jnp.where(t < bits, one.astype(jnp.int32) << t, 0)
                # cos(x/2) and cos(x/2 + pi/2) by half-angle formulas; XLA's CPU backend does not
                # vectorise cos.
                signed = jnp.where(one, -cosine, cosine)
                root = jnp.sqrt(jnp.maximum(1 + signed, 0) / 2)
                made = error, jnp.where(one, -root, root)
            return made

        made = jnp.zeros_like(lowest), jnp.ones_like(_uniform(lowest_word))
        error, _ = lax.fori_loop(0, -(-bits // 2), two_bits, made)
        at = segment.astype(jnp.int32) * length + position
        at = jnp.where(position < length, at, size)
        return error_id + 1, position, errors.at[at].set(error, mode="drop", unique_indices=True)

    start = zero.astype(jnp.int32) - 1 + jnp.zeros((segments,), jnp.int32)
    start = jnp.where(rate > 0, start, length)
    state = (zero, start, jnp.full((size,), zero.astype(jnp.int32)))
    return lax.while_loop(lambda state: jnp.any(state[1] < length), next_error, state)[2]


def _uniform(words: jax.Array) -> jax.Array:
    """float32 in [0, 1), resolved to 2^-24."""
    return (words >> 8).astype(jnp.int32).astype(jnp.float32) * np.float32(2.0**-24)


def _uniform_bits(key: KeyWords, size: int, bits: int) -> jax.Array:
    """(size,) uint32 whose lowest `bits` bits are uniform, 64 // bits of them from one draw.

    The two words of the draws are made in a loop, which ends in memory: XLA would make them again
    for every shift.
    """
    per_word = 32 // bits
    rows = -(-size // (2 * per_word))
    position = lax.iota(jnp.uint32, rows)

    def draw(is_second: jax.Array) -> jax.Array:
        first, second = threefry(key, (position, jnp.zeros_like(position)))
        return jnp.where(is_second, second, first)

    drawn = lax.map(draw, jnp.arange(2) == 1)
    shifts = np.arange(per_word, dtype=np.uint32) * np.uint32(bits)
    return (drawn[:, None] >> shifts[:, None]).reshape(-1)[:size]


def _uniform_below(key: KeyWords, size: int, modulus: int) -> jax.Array:
    """(size,) uint32 uniform below `modulus` < 2^16, to 2^-48 of each probability."""
    position = lax.iota(jnp.uint32, size)
    high, low = threefry(key, (position, jnp.zeros_like(position)))
    remainder = high % modulus
    for half in (low >> 16, low & np.uint32(0xFFFF)):
        remainder = ((remainder << 16) | half) % modulus
    return remainder


def _uniform_errors(cipher: KeyWords, visibility: jax.Array, size: int, modulus: int) -> jax.Array:
    """(size,) uint32 errors of sums mod a prime: zero, or any other with equal probability."""
    right = ((1 + visibility) / 2) ** (modulus - 1).bit_length()
    position = lax.iota(jnp.uint32, size)
    drawn = threefry(derive(cipher, 0), (position, jnp.zeros_like(position)))[0]
    wrong = 1 + _uniform_below(derive(cipher, 1), size, modulus - 1)
    return jnp.where(_uniform(drawn) < right, np.uint32(0), wrong)


def _wrong_bits(cipher: KeyWords, visibility: jax.Array, size: int) -> jax.Array:
    """(size,) uint32 whose bits are set with the probability of an error in one state."""
    wrong = jnp.clip((1 - visibility.astype(jnp.float32)) / 2, 0, 1)
    single = wrong * (1 - wrong)
    table = jnp.stack([(1 - wrong) ** 2, single, single, wrong**2])[None]
    return through(cipher, jnp.zeros((size,), jnp.uint32), table)
