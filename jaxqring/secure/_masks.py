"""Masks that add up to zero, from GHZ states measured in the Fourier basis.

A mask mod 2^b takes b qubit GHZ states: each party reads its b qubits as a number and applies the
Fourier transform of Z_(2^b), one measured qubit after the other (Griffiths and Niu, Phys. Rev.
Lett. 76, 3228 (1996)). Hadamards in its place give masks whose XOR is zero, which a ring that adds
cannot use.

**What noise does.** The parties twirl the states: they turn their qubits by public random phases
that add up to zero, and all flip them or none does. That leaves a GHZ state as it is, and of any
noise it leaves one number for the sum, the visibility V of `GHZSource`: whatever the state, any
N - 1 masks are uniform and independent, and the sum is off by e with probability

    P(e) = prod_r (1 + V cos(2 pi 2^r e / 2^b)) / 2

independently of them (our derivation; the tests hold it against dense matrices). It is the law of
`scramble` on the links once more: public randomness makes errors independent of data.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._threefry import KeyWords, cipher_key, derive, threefry
from jaxqring.link._error_sampler import gap_scale, gaps, through
from jaxqring.physics.ghz import GHZSource

REALISATIONS = ("qft", "prime", "xor")
# Errors are looked for in so many stretches of the sums at once.
_WALKERS = 256
# Masks are made in blocks that fit a cache.
_BLOCK = 2**13


def masks(
    key: jax.Array,
    source: GHZSource,
    shape: int | tuple[int, ...],
    bits: int,
    realisation: str = "qft",
) -> jax.Array:
    """Masks of every party that add up to zero but for errors of the states.

    Args:
      key: typed PRNG key.
      source: of the GHZ states, twirled; `bits` copies are measured for each mask.
      shape: of one party's masks.
      bits: b, of a mask: in [1, 32], for "prime" in [1, 15].
      realisation: "qft" for sums mod 2^b; "prime" for sums mod `prime_modulus(bits)`; "xor" for
        masks whose bitwise XOR is zero, one X measurement a bit.

    Returns:
      (N, *shape) uint32, below the modulus.

    Simplification of "prime": a system of prime dimension is carried by ceil(log2 d) qubit GHZ
    states, and an error in any of them makes the sum a uniform wrong one.

    Raises:
      TypeError, ValueError: if an argument is none of these.

    Source: our interpretation; the paper does not say mod what its masks add up to zero.

    >>> drawn = masks(jax.random.key(0), GHZSource(3), 4, bits=8)
    >>> drawn.shape, [int(total) for total in jnp.sum(drawn, axis=0) % 256]
    ((3, 4), [0, 0, 0, 0])
    """
    checks.prng_key("key", key)
    checks.instance("source", source, GHZSource)
    checks.one_of("realisation", realisation, REALISATIONS)
    most = 15 if realisation == "prime" else 32
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= most:
        checks.refuse("bits", f"be an integer in [1, {most}] for {realisation!r}", bits)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    parties, size = source.num_parties, math.prod(shape)
    cipher = cipher_key(key)
    draws, mistakes = derive(cipher, 0), derive(cipher, 1)
    visibility = source.visibility
    if realisation == "prime":
        modulus = prime_modulus(bits)
        wrong = _uniform_errors(mistakes, visibility, size, modulus)
    elif realisation == "xor":
        modulus, wrong = 0, _wrong_bits(mistakes, visibility, size)
    else:
        modulus = 0
        wrong = lax.bitcast_convert_type(sum_errors(mistakes, visibility, size, bits), jnp.uint32)
    # Differences of N uniform numbers in a ring have this law; see `jaxqring.ring._masking`.
    block = min(_BLOCK, size)
    everyone = jnp.arange(parties, dtype=jnp.uint32)

    def fill(number: jax.Array, filled: jax.Array) -> jax.Array:
        here = derive(draws, number)
        if realisation == "prime":
            ends = jax.vmap(lambda i: _uniform_below(derive(here, i), block, modulus))(everyone)
        else:
            ends = jax.vmap(lambda i: _uniform_bits(derive(here, i), block, bits))(everyone)
        before = jnp.roll(ends, 1, axis=0)
        # The last block begins early enough to fit, and writes over the end of the one before.
        start = jnp.minimum(number * block, size - block)
        off = lax.dynamic_slice(wrong, (start,), (block,))
        if realisation == "prime":
            drawn = (ends + (modulus - before)) % modulus
            drawn = drawn.at[0].set((drawn[0] + off) % modulus)
        elif realisation == "xor":
            drawn = ends ^ before
            drawn = drawn.at[0].set(drawn[0] ^ off) & np.uint32(2**bits - 1)
        else:
            drawn = ends - before
            drawn = drawn.at[0].add(off) & np.uint32(2**bits - 1)
        return lax.dynamic_update_slice(filled, drawn, (0, start))

    room = jnp.zeros((parties, size), jnp.uint32)
    if size:
        room = lax.fori_loop(0, -(-size // block), fill, room)
    return room.reshape(parties, *shape)


def universal_hash(key: jax.Array, masks: jax.Array, size: int, modulus: int) -> jax.Array:
    """Privacy amplification: every party multiplies its masks with one public random matrix.

    Linear, so that masks that add up to zero still do. Over a prime field the matrices are
    two-universal: two different vectors of masks have the same image with probability
    modulus^-size, which is what `Security(amplification="universal")` counts on. Mod 2^b they are
    not, as 4 m = 0 mod 8 for half of all m.

    Args:
      key: typed PRNG key; public randomness, drawn after the copies were verified.
      masks: (N, n) uint32 raw masks, below `modulus`, with n below 2^16.
      size: masks that are left.
      modulus: a prime below 2^16, as `prime_modulus` finds.

    Returns:
      (N, size) uint32.

    Raises:
      TypeError, ValueError: if an argument is none of these.

    Source: Renner, arXiv:quant-ph/0512258 (privacy amplification by two-universal hashing).

    >>> raw = masks(jax.random.key(0), GHZSource(3), 100, bits=8, realisation="prime")
    >>> hashed = universal_hash(jax.random.key(1), raw, 10, prime_modulus(8))
    >>> hashed.shape, int(jnp.max(jnp.sum(hashed, axis=0) % 257))
    ((3, 10), 0)
    """
    checks.prng_key("key", key)
    if getattr(masks, "dtype", None) != jnp.uint32 or masks.ndim != 2 or masks.shape[1] >= 2**16:
        shown = getattr(masks, "shape", masks)
        checks.refuse("masks", "be uint32 of shape (N, n), with n below 2^16", shown)
    if not isinstance(size, int) or not 1 <= size <= masks.shape[1]:
        checks.refuse("size", f"be an integer in [1, {masks.shape[1]}]", size)
    if not isinstance(modulus, int) or not 2 <= modulus < 2**16 or not is_prime(modulus):
        checks.refuse("modulus", "be a prime below 2^16", modulus)
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
    candidate = 2**bits + 1
    while not is_prime(candidate):
        candidate += 1
    return candidate


def is_prime(number: int) -> bool:
    """Whether `number`, of some ten digits at most, is prime."""
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def sum_error_law(visibility: ArrayLike, bits: int) -> jax.Array:
    """What the sum of masks mod 2^bits is off by.

    Args:
      visibility: () of every qubit GHZ state, or (bits,) of each: state r holds the bit 2^r of
        the number before the Fourier transform.
      bits: b, in [1, 20].

    Returns:
      (2^b,) probability of each error.

    Raises:
      ValueError: if an argument is out of range.

    Source: our derivation.

    >>> print(sum_error_law(0.9, 2).round(4))  # of the sums 0, 1, 2 and 3
    [0.9025 0.025  0.0475 0.025 ]
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 20:
        checks.refuse("bits", "be an integer in [1, 20]", bits)
    if np.shape(visibility) not in ((), (bits,)):
        checks.refuse("visibility", f"have the shape () or ({bits},)", np.shape(visibility))
    value, _ = checks.bounded("visibility", visibility, -1.0, 1.0)
    # Of whole turns only the fraction counts, which integers keep exactly.
    turns = (np.arange(2**bits)[None] << np.arange(bits)[:, None]) % 2**bits / 2**bits
    cosines = jnp.asarray(np.cos(2 * np.pi * turns), value.dtype)
    return jnp.prod((1 + jnp.broadcast_to(value, (bits,))[:, None] * cosines) / 2, axis=0)


def sum_errors(cipher: KeyWords, visibility: jax.Array, size: int, bits: int) -> jax.Array:
    """Draws what sums of masks are off by, in time that follows the number of wrong ones.

    The bits of an error are measured from the lowest to the highest; given the lower ones, of
    value E below 2^t, bit t is set with probability (1 - V cos(pi E / 2^t)) / 2. All bits are zero
    up to the first error, so that wrong sums are found by the gaps between them, and only their
    higher bits are drawn one by one.

    Args:
      cipher: two words of key, used for nothing else.
      visibility: () V, of every GHZ state.
      size: how many sums.
      bits: b, of a mask.

    Returns:
      (size,) int32, below 2^b for b < 32.
    """
    return _sum_errors(size, bits)(*cipher, visibility)


@functools.cache
def _sum_errors(size: int, bits: int) -> Callable[..., jax.Array]:
    """`sum_errors` of one size. Under `vmap` one after another: no walker waits for another key."""
    drawn = functools.partial(_draw_sum_errors, size=size, bits=bits)
    return sequential_vmap(drawn)


def _draw_sum_errors(
    first: jax.Array, second: jax.Array, visibility: jax.Array, *, size: int, bits: int
) -> jax.Array:
    cipher = first, second
    walkers = max(1, min(_WALKERS, size // 16))
    stretch = -(-size // walkers)
    wrong = jnp.clip((1 - visibility.astype(jnp.float32)) / 2, 0, 1)  # of one bit
    log_right = jnp.log1p(-jnp.minimum(wrong, 1 - 2.0**-24))
    rate = -jnp.expm1(bits * log_right)  # of a sum
    scale = gap_scale(jnp.minimum(rate, 1 - 2.0**-24))
    walker = lax.iota(jnp.uint32, walkers)
    # Made of the key and the noise, to have the type of mapped values.
    zero = (cipher[0] & np.uint32(0)) + (rate < 0).astype(jnp.uint32)

    def drawn(turn: jax.Array, place: jax.Array | np.uint32) -> KeyWords:
        counter = jnp.full_like(walker, turn), walker * np.uint32(64) + place
        return threefry(cipher, counter)

    def turn(state: tuple) -> tuple:
        number, position, errors = state
        gap, fate = drawn(number, np.uint32(32))
        position = jnp.minimum(position + gaps(gap, scale, stretch), stretch)
        lowest = jnp.log1p(-_uniform(fate) * rate) / log_right
        lowest = jnp.clip(lowest, 0, bits - 1).astype(jnp.int32)

        def two_bits(pair: jax.Array, made: tuple) -> tuple:
            for half, word in enumerate(drawn(number, pair.astype(jnp.uint32))):
                error, cosine = made  # the error so far, and the cosine of pi E / 2^t
                t = 2 * pair + half
                chosen = _uniform(word) < (1 - (1 - 2 * wrong) * cosine) / 2
                one = jnp.where(t > lowest, chosen, t == lowest)
                error |= jnp.where(t < bits, one.astype(jnp.int32) << t, 0)
                # Of half the angle, or of that and a quarter turn: square roots, because XLA
                # vectorises no cosine.
                signed = jnp.where(one, -cosine, cosine)
                root = jnp.sqrt(jnp.maximum(1 + signed, 0) / 2)
                made = error, jnp.where(one, -root, root)
            return made

        made = jnp.zeros_like(lowest), jnp.ones_like(_uniform(fate))
        error, _ = lax.fori_loop(0, -(-bits // 2), two_bits, made)
        at = walker.astype(jnp.int32) * stretch + position
        at = jnp.where(position < stretch, at, size)
        return number + 1, position, errors.at[at].set(error, mode="drop", unique_indices=True)

    start = zero.astype(jnp.int32) - 1 + jnp.zeros((walkers,), jnp.int32)
    start = jnp.where(rate > 0, start, stretch)
    state = (zero, start, jnp.full((size,), zero.astype(jnp.int32)))
    return lax.while_loop(lambda state: jnp.any(state[1] < stretch), turn, state)[2]


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
    rest = high % modulus
    for half in (low >> 16, low & np.uint32(0xFFFF)):
        rest = ((rest << 16) | half) % modulus
    return rest


def _uniform_errors(cipher: KeyWords, visibility: jax.Array, size: int, modulus: int) -> jax.Array:
    """(size,) uint32 errors of sums mod a prime: zero, or any other with equal probability."""
    right = ((1 + visibility) / 2) ** (modulus - 1).bit_length()
    position = lax.iota(jnp.uint32, size)
    fate = threefry(derive(cipher, 0), (position, jnp.zeros_like(position)))[0]
    wrong = 1 + _uniform_below(derive(cipher, 1), size, modulus - 1)
    return jnp.where(_uniform(fate) < right, np.uint32(0), wrong)


def _wrong_bits(cipher: KeyWords, visibility: jax.Array, size: int) -> jax.Array:
    """(size,) uint32 whose bits are set with the probability of an error in one state."""
    wrong = jnp.clip((1 - visibility.astype(jnp.float32)) / 2, 0, 1)
    single = wrong * (1 - wrong)
    table = jnp.stack([(1 - wrong) ** 2, single, single, wrong**2])[None]
    return through(cipher, jnp.zeros((size,), jnp.uint32), table)
