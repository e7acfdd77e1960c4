"""Copies of Alice's state and what Bob measures of each: an exact sampler for every noise.

Alice sends |psi> = P^(-1/2) sum_i x_i |i> on n = ceil(log2 P) qubits, and Bob measures
(|i> +- |j>) / sqrt(2) for his pairs and |i> for the rest: he hits a uniformly random pair with
probability 2M / P, and the sign is x_i x_j with certainty. Steered, Alice turns her halves of n EPR
pairs by diag(x) and measures them along X, which leaves Z^a |psi> with Bob, a her outcomes; he
multiplies his sign by (-1)^(a.(i^j)). Her halves have 2^n dimensions, so x goes on with ones.

An error X^a Z^b of the qubits takes |i'> to (-1)^(b.i') |i' ^ a>. So the amplitude at i is
x_(i^a) (-1)^(b.(i^a)) / sqrt(P), or zero if i ^ a is beyond P, and a pair (i, j) gives +- with
probability |c_i +- c_j|^2 / 2. Hence the sampler for every P <= 2^n: draw i' < P and let
i = i' ^ a; an unmatched i is a miss; with j its partner, the sign is a fair coin if j ^ a >= P,
else x_(i') x_(j^a) (-1)^(b.(i^j)). Qubits that depolarize with survival lambda each have a Pauli X,
Y or Z with probability (1 - lambda) / 4. A global mix leaves I / 2^n with probability p: a uniform
i < 2^n and a fair coin. Memory and time of a copy do not depend on P, but for n bits if noise is
local.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key, TieVariant
from jaxqring.audit._tie_plans import (
    MAX_COUNT,
    NoiseKind,
    TieNoise,
    check_local,
    check_options,
    in_use,
    index_qubits,
)


class Outcomes(NamedTuple):
    """Bob's outcomes of K copies.

    Attributes:
      pair: (K,) int32 row of the matching, or -1 for a miss.
      sign: (K,) int8 of the pair, corrected by what was announced; 0 for a miss.
      announced: (K,) int32 Alice's n outcomes along X, as a number whose bits are in the order of
        those of the indices; zero if she sent qubits.
    """

    pair: jax.Array
    sign: jax.Array
    announced: jax.Array


def sample_outcomes(
    key: Key,
    signs: ArrayLike,
    matching: ArrayLike,
    copies: int,
    *,
    variant: TieVariant = "message",
    noise: TieNoise | None = None,
    relabel: bool = False,
) -> Outcomes:
    """Draws Bob's outcome of each copy, exactly, for every size, matching and noise.

    Args:
      key: typed PRNG key.
      signs: (P,) of -1 and 1.
      matching: (M, 2) integers, disjoint pairs of indices of signs.
      copies: K.
      variant: "message" or "steered".
      noise: of the qubits; None for perfect ones.
      relabel: whether to permute the labels at random before each copy, as `tie_audit` does if
        noise is local: for P a power of two and a perfect matching. Labels are drawn as they are
        needed.

    Returns:
      `Outcomes` of K copies.

    Raises:
      TypeError, ValueError: as `tie_audit`; if labels are permuted and noise is global, P is not a
        power of two or the matching is not perfect.

    >>> signs, matching = [1, 1, -1, -1, 1, -1, 1, 1], [[0, 1], [2, 3], [4, 5]]
    >>> outcomes = sample_outcomes(jax.random.key(0), signs, matching, 1000)
    >>> [set(outcomes.sign[outcomes.pair == row].tolist()) for row in (-1, 0, 1, 2)]
    [{0}, {1}, {1}, {-1}]
    """
    checks.prng_key("key", key)
    kind, strength = in_use(check_options(variant, noise, "estimate"))
    signs, matching = check_task(signs, matching)
    copies = checks.integer("copies", copies, 1, MAX_COUNT)
    perfect = 2 * matching.shape[0] == signs.shape[0]
    if relabel:
        check_local("local", signs.shape[0], perfect)
    if kind == "local" and not relabel:
        kind = "fixed"
    elif relabel and kind != "local":
        if kind == "global":
            rule = "be False if noise is global, which no permutation changes"
            checks.refuse("relabel", rule, relabel)
        kind, strength = "local", 1.0
    return draw_outcomes(
        key, signs < 0, matching, strength, kind=kind, copies=copies, variant=variant
    )


@functools.partial(jax.jit, static_argnames=("kind", "copies", "variant"))
def draw_outcomes(
    key: Key,
    negative: jax.Array,
    matching: jax.Array,
    strength: ArrayLike,
    *,
    kind: NoiseKind,
    copies: int,
    variant: TieVariant,
) -> Outcomes:
    """`sample_outcomes` of checked arguments.

    Args:
      key: typed PRNG key.
      negative: (P,) bool, True where the sign is -1.
      matching: (M, 2) int32.
      strength: () of the noise, as `in_use` returns it.
      kind: of the noise; "local" permutes labels, "fixed" is local noise without that.
      copies: K.
      variant: "message" or "steered".
    """
    size, n = negative.shape[0], index_qubits(negative.shape[0])
    dimension = 2**n
    if variant == "steered":
        negative = jnp.pad(negative, (0, dimension - size))
        size = dimension
    index_key, noise_key, coin_key, announce_key, label_key = jax.random.split(key, 5)
    shape = (copies,)
    if kind in ("local", "fixed"):
        flips, phases = _draw_paulis(noise_key, n, copies, strength)
    else:
        flips = phases = jnp.zeros(shape, jnp.int32)
    if kind == "local":
        pair, difference, minus = _draw_relabelled(
            index_key, label_key, negative, matching, flips, dimension
        )
    else:
        drawn = jax.random.randint(index_key, shape, 0, size, jnp.int32)
        white = jnp.zeros(shape, bool)
        if kind == "global":
            white_key, noise_key = jax.random.split(noise_key)
            white = jax.random.bernoulli(white_key, strength, shape)
            drawn = jnp.where(white, _draw_bits(noise_key, n, shape), drawn)
        pair, difference, minus = _measured(
            coin_key, negative, matching, drawn, flips, white, dimension
        )
    minus = minus ^ _odd(phases & difference)
    announced = jnp.zeros(shape, jnp.int32)
    if variant == "steered":
        announced = _draw_bits(announce_key, n, shape)
        measured = minus ^ _odd(announced & difference)  # of Z^a |psi>
        minus = measured ^ _odd(announced & difference)  # as Bob corrects it
    sign = jnp.where(pair < 0, 0, jnp.where(minus, -1, 1)).astype(jnp.int8)
    return Outcomes(pair, sign, announced)


def _draw_relabelled(
    index_key: Key,
    label_key: Key,
    negative: jax.Array,
    matching: jax.Array,
    flips: jax.Array,
    dimension: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(K,) row of the matching, difference of its labels, and sign before phases: of a hit each.

    Labels are permuted, so that their difference d is uniform over all but zero, and flips other
    than zero and d lead to a random pair disjoint from the one that was hit.
    """
    pair = jax.random.randint(index_key, flips.shape, 0, matching.shape[0], jnp.int32)
    i, j = matching[pair, 0], matching[pair, 1]
    difference_key, disjoint_key = jax.random.split(label_key)
    difference = jax.random.randint(difference_key, flips.shape, 1, dimension, jnp.int32)
    moved = (flips != 0) & (flips != difference)
    k, m = _draw_disjoint(disjoint_key, i, j, negative.shape[0])
    minus = jnp.where(moved, negative[k] ^ negative[m], negative[i] ^ negative[j])
    return pair, difference, minus


def _measured(
    coin_key: Key,
    negative: jax.Array,
    matching: jax.Array,
    drawn: jax.Array,
    flips: jax.Array,
    white: jax.Array,
    dimension: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(K,) row of the matching or -1, difference of its labels, and sign before phases."""
    size = negative.shape[0]
    # The row of the matching and the partner of every index.
    ends = matching.T.reshape(-1)
    rows = jnp.tile(jnp.arange(matching.shape[0], dtype=jnp.int32), 2)
    row_of = jnp.full(dimension, -1, jnp.int32).at[ends].set(rows)
    partner = jnp.zeros(dimension, jnp.int32).at[ends].set(matching[:, ::-1].T.reshape(-1))
    i = drawn ^ flips
    j, pair = partner[i], row_of[i]
    other = j ^ flips
    # Only indices of white noise and of misses are out of range, and those do not count.
    product = negative[jnp.minimum(drawn, size - 1)] ^ negative[jnp.minimum(other, size - 1)]
    coin = jax.random.bernoulli(coin_key, 0.5, drawn.shape)
    return pair, i ^ j, jnp.where(white | (other >= size), coin, product)


def _draw_paulis(key: Key, n: int, copies: int, survival: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """(K,) a and (K,) b of errors X^a Z^b: a depolarized qubit has one of four at random."""
    lost_key, pauli_key = jax.random.split(key)
    lost = ~jax.random.bernoulli(lost_key, survival, (n, copies))
    bits = jnp.left_shift(1, jnp.arange(n, dtype=jnp.int32))
    mask = jnp.sum(jnp.where(lost, bits[:, None], 0), axis=0, dtype=jnp.int32)
    flips, phases = _draw_bits(pauli_key, n, (2, copies))
    return flips & mask, phases & mask


def _draw_bits(key: Key, n: int, shape: tuple[int, ...]) -> jax.Array:
    """(...) int32 of n random bits."""
    return (jax.random.bits(key, shape, jnp.uint32) >> (32 - n)).astype(jnp.int32)


def _draw_disjoint(key: Key, i: jax.Array, j: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Two different indices that are neither i nor j, uniformly; without meaning for P = 2."""
    if size < 4:
        return i, j
    k_key, m_key = jax.random.split(key)
    low, high = jnp.minimum(i, j), jnp.maximum(i, j)
    k = jax.random.randint(k_key, i.shape, 0, size - 2, jnp.int32)
    k += (k >= low).astype(k.dtype)
    k += (k >= high).astype(k.dtype)
    m = jax.random.randint(m_key, i.shape, 0, size - 3, jnp.int32)
    for taken in (
        jnp.minimum(low, k),
        jnp.maximum(low, jnp.minimum(high, k)),
        jnp.maximum(high, k),
    ):
        m += (m >= taken).astype(m.dtype)
    return k, m


def _odd(bits: jax.Array) -> jax.Array:
    """True where the number of ones is odd."""
    return lax.population_count(bits) % 2 == 1


def check_task(signs: ArrayLike, matching: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Signs (P,) and pairs (M, 2) int32; concrete ones stay off the device until they are used."""
    if not checks.is_traced(signs):
        concrete = checks.numbers("signs", signs)
        if not np.all(np.abs(concrete) == 1):
            checks.refuse("signs", "be -1 or 1", concrete)
        signs = concrete
    shape = np.shape(signs)
    if len(shape) != 1 or not 2 <= shape[0] <= MAX_COUNT:
        checks.refuse("signs", f"have the shape (P,), P from 2 to {MAX_COUNT}", shape)
    if not checks.is_traced(matching):
        matching = checks.numbers("matching", matching)
    pairs = np.shape(matching)
    if len(pairs) != 2 or pairs[1] != 2 or not 1 <= pairs[0] <= shape[0] // 2:
        checks.refuse("matching", f"have the shape (M, 2), M from 1 to {shape[0] // 2}", pairs)
    if not jnp.issubdtype(matching.dtype, jnp.integer):  # type: ignore[union-attr]
        checks.refuse("matching", "be of integers", matching, TypeError)
    if not checks.is_traced(matching):
        ends = np.asarray(matching)
        if ends.min() < 0 or ends.max() >= shape[0]:
            checks.refuse("matching", f"hold indices from 0 to {shape[0] - 1}", ends)
        if len(np.unique(ends)) < ends.size:
            checks.refuse("matching", "hold each index at most once", ends)
    return signs, matching.astype(np.int32)  # type: ignore[return-value, union-attr]
