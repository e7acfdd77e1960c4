"""Threefry against its published vectors, plain Python and JAX; keys and words as random bits.

Every statistical test has a fixed key and states its sample size, the number of its comparisons
and the probability that one of them fails by chance, `CHANCE` unless it says otherwise.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry2x32_p
from plain import FULL, plain_threefry
from scipy import stats

from jaxqring._threefry import cipher_key, derive, random_words, threefry

CHANCE = 1e-9
IMPLEMENTATIONS = (
    "threefry2x32",
    "rbg",
    pytest.param("unsafe_rbg", marks=pytest.mark.matrix),
)
SIZE = 2**18


def random_uint32(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, size=shape, dtype=np.uint32)


def pair_of(words):
    """One Python integer for each pair of words."""
    first, second = (np.asarray(word, np.uint64) for word in words)
    return (first << np.uint64(32)) | second


# --- Threefry -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, counter, expected",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((FULL, FULL), (FULL, FULL), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_vectors_of_random123(key, counter, expected):
    found = threefry(*(tuple(np.uint32(word) for word in pair) for pair in (key, counter)))
    assert tuple(int(word) for word in found) == expected
    assert plain_threefry(key, counter) == expected


def test_threefry_equals_plain_integers_and_the_primitive_of_jax():
    """Exact, on 2,000 random inputs and on the 81 of words 0, 1 and 2^32 - 1."""
    corners = np.stack(np.meshgrid(*[np.array([0, 1, FULL], np.uint32)] * 4), -1).reshape(-1, 4)
    inputs = np.concatenate([random_uint32(2000, 4), corners])
    a, b, c, d = (jnp.asarray(column) for column in inputs.T)
    found = threefry((a, b), (c, d))
    expected = np.array([plain_threefry(row[:2], row[2:]) for row in inputs.tolist()])
    np.testing.assert_array_equal(np.stack(found, 1), expected)
    np.testing.assert_array_equal(found, threefry2x32_p.bind(a, b, c, d))


def test_threefry_equals_what_jax_folds_into_a_key():
    """JAX folds d into a key by encrypting (0, d)."""
    key = jax.random.key(5)
    numbers = jnp.asarray(random_uint32(100, seed=1))
    folded = jax.random.key_data(jax.vmap(lambda d: jax.random.fold_in(key, d))(numbers))
    data = jax.random.key_data(key)
    found = threefry((data[0], data[1]), (jnp.zeros_like(numbers), numbers))
    np.testing.assert_array_equal(jnp.stack(found, 1), folded)


def test_threefry_broadcasts_words_of_different_shapes():
    rows, columns = random_uint32(3, 1, seed=2), random_uint32(4, seed=3)
    found = threefry((np.uint32(1), rows), (columns, np.uint32(2)))
    assert found[0].shape == found[1].shape == (3, 4)
    expected = plain_threefry((1, int(rows[2, 0])), (int(columns[3]), 2))
    assert (int(found[0][2, 3]), int(found[1][2, 3])) == expected


# --- Keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_keys_of_every_implementation_have_pairs_of_their_own(name):
    """Exact; 64-bit pairs of 4,096 random keys repeat one by chance with 2^23 / 2^64 = 5e-13."""
    keys = jax.random.split(jax.random.key(0, impl=name), 4096)
    pairs = cipher_key(keys)
    assert [(word.shape, word.dtype) for word in pairs] == [((4096,), jnp.uint32)] * 2
    assert len(np.unique(pair_of(pairs))) == 4096
    for index in (0, 4095):
        np.testing.assert_array_equal(
            jnp.stack(cipher_key(keys[index])), jnp.stack(pairs)[:, index]
        )


@pytest.mark.parametrize("name, size", [("threefry2x32", 2), ("rbg", 4), ("unsafe_rbg", 4)])
def test_every_bit_of_a_key_matters(name, size):
    """Exact, of one key and its neighbours at all single bits. A flip changes 32 of the 64 bits in
    the mean, and fewer than 5 or more than 59 with 2 * 2^-44 each (binomial), at most 128 times:
    1.5e-11."""
    data = random_uint32(size, seed=4)
    flips = np.uint32(1) << np.arange(32, dtype=np.uint32)
    flipped = np.repeat(data[None], 32 * size, 0)
    for word in range(size):
        flipped[32 * word : 32 * word + 32, word] ^= flips
    both = np.concatenate([data[None], flipped])
    pairs = pair_of(cipher_key(jax.random.wrap_key_data(jnp.asarray(both), impl=name)))
    assert len(np.unique(pairs)) == len(pairs)
    changed = np.bitwise_count(pairs[1:] ^ pairs[0])
    assert changed.min() >= 5
    assert changed.max() <= 59


def test_words_of_a_key_are_not_interchangeable():
    """Exact, of the 24 orders of the words of an rbg key and the 2 of a threefry key."""
    data = np.array([1, 2, 3, 4], np.uint32)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 4), -1).reshape(-1, 4)
    orders = grid[[len(set(order)) == 4 for order in grid.tolist()]]
    long = jax.random.wrap_key_data(jnp.asarray(data[orders]), impl="rbg")
    short = jax.random.wrap_key_data(jnp.asarray(data[[[0, 1], [1, 0]]]), impl="threefry2x32")
    assert len(np.unique(pair_of(cipher_key(long)))) == 24
    assert len(np.unique(pair_of(cipher_key(short)))) == 2


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_pair_of_a_key_is_none_that_jax_makes_of_it(name):
    """Exact: neither the data of the key, nor of the keys folded or split from it, nor bits drawn
    with it. 64-bit pairs meet 5,000 others by chance with 3e-16; words of 32 bits 8,192 others
    with 4e-6, so that both of a pair would have to, with 1.5e-11."""
    key = jax.random.key(3, impl=name)
    own = pair_of(cipher_key(key))
    folded = jax.vmap(lambda d: jax.random.fold_in(key, d))(jnp.arange(1000))
    data = [
        jax.random.key_data(some).reshape(-1, 2)
        for some in (key, folded, jax.random.split(key, 1000))
    ]
    assert own not in pair_of(np.concatenate(data).T)
    drawn = np.asarray(jax.random.bits(key, (8192,)))
    assert not np.isin(np.stack(cipher_key(key)), drawn).all()


def test_derived_keys_differ_on_a_grid_of_numbers():
    """Exact, with numbers at both ends of 32 bits; 4,096 pairs repeat by chance with 5e-13."""
    numbers = np.r_[np.arange(48), FULL - np.arange(16)].astype(np.uint32)
    first, second = (jnp.asarray(axis) for axis in np.meshgrid(numbers, numbers, indexing="ij"))
    key = cipher_key(jax.random.key(0))
    grid = pair_of(derive(key, first, second))
    assert len(np.unique(np.r_[grid.ravel(), pair_of(key)])) == 64 * 64 + 1
    # Numbers of Python are numbers of JAX, and the second is zero unless given.
    assert pair_of(derive(key, 3, 7)) == grid[3, 7]
    assert pair_of(derive(key, jnp.int32(3), 7)) == grid[3, 7]
    assert pair_of(derive(key, FULL)) == grid[48, 0]
    other = pair_of(derive(cipher_key(jax.random.key(1)), first, second))
    assert not np.isin(other, grid).any()


# --- Words ----------------------------------------------------------------------------------------

DRAW = jax.jit(random_words, static_argnums=1)


@pytest.fixture(scope="module")
def streams():
    """(8, SIZE) words of the keys derived for 0, ..., 7."""
    key = cipher_key(jax.random.key(9))
    return np.stack([np.asarray(DRAW(derive(key, number), SIZE)) for number in range(8)])


def assert_uniform(counts, chance=CHANCE):
    expected = counts.sum() / counts.size
    assert expected >= 1000
    statistic = np.sum((counts - expected) ** 2) / expected
    assert statistic < stats.chi2.isf(chance, counts.size - 1), statistic


def bit_counts(words):
    """(32,) how many words have each bit."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")
    return bits.reshape(-1, 32).sum(0, dtype=np.int64)


def assert_fair(counts, size, chance=CHANCE):
    """Counts of Binomial(size, 1/2): a chi-square of as many degrees of freedom."""
    statistic = np.sum((counts - size / 2) ** 2) / (size / 4)
    assert statistic < stats.chi2.isf(chance, counts.size), statistic


@pytest.mark.statistics
def test_every_bit_is_set_half_of_the_time(streams):
    """2^21 words; one chi-square of 32 bits."""
    assert_fair(bit_counts(streams.ravel()), streams.size)


@pytest.mark.statistics
def test_the_bytes_of_words_are_uniform(streams):
    """2^21 words; four chi-squares of the 256 values of a byte, 8,192 expected of each."""
    for shift in (0, 8, 16, 24):
        counts = np.bincount((streams.ravel() >> np.uint32(shift)) & 255, minlength=256)
        assert_uniform(counts, CHANCE / 4)


@pytest.mark.statistics
def test_words_of_keys_for_neighbouring_numbers_are_independent(streams):
    """2^18 pairs of words for each of 7 pairs of keys: the 32 bits of their XOR, and the joint
    counts of the 4 highest and of the 4 lowest bits, 1,024 expected of each; 21 chi-squares."""
    for one, other in itertools.pairwise(streams):
        assert_fair(bit_counts(one ^ other), SIZE, CHANCE / 21)
        for shift in (0, 28):
            high, low = ((words >> np.uint32(shift)) & 15 for words in (one, other))
            assert_uniform(np.bincount(16 * high + low, minlength=256), CHANCE / 21)


@pytest.mark.statistics
def test_words_at_neighbouring_positions_are_independent(streams):
    """2^20 disjoint pairs of words, even and odd ones, in 8 streams: the 32 bits of their XOR, and
    the joint counts of 4 bits, 4,096 expected of each; 3 chi-squares."""
    even, odd = streams[:, ::2].ravel(), streams[:, 1::2].ravel()
    assert_fair(bit_counts(even ^ odd), even.size, CHANCE / 3)
    for shift in (0, 28):
        high, low = ((words >> np.uint32(shift)) & 15 for words in (even, odd))
        assert_uniform(np.bincount(16 * high + low, minlength=256), CHANCE / 3)


def test_words_do_not_repeat_those_of_another_key_at_other_positions(streams):
    """2^21 words of 32 bits repeat one 512 times in the mean, nearly Poisson: fewer than 300 with
    2e-24, more than 800 with 1e-31. Two streams that overlap would repeat up to 2^18."""
    ordered = np.sort(streams.ravel())
    repeats = np.sum(ordered[1:] == ordered[:-1])
    assert 300 < repeats < 800


def test_the_same_words_are_drawn_under_jit_under_vmap_and_eagerly():
    pair = cipher_key(jax.random.key(2))
    keys = derive(pair, jnp.arange(3))
    mapped = jax.vmap(lambda *key: random_words(key, 100))(*keys)
    assert mapped.shape == (3, 100)
    assert mapped.dtype == jnp.uint32
    for number in range(3):
        own = derive(pair, number)
        eager = random_words(own, 100)
        np.testing.assert_array_equal(eager, mapped[number])
        np.testing.assert_array_equal(eager, DRAW(own, 100))
        expected = [plain_threefry([int(word) for word in own], (i, 0))[0] for i in range(100)]
        np.testing.assert_array_equal(eager, np.array(expected, np.uint32))


def test_fewer_words_are_the_first_of_more():
    key = cipher_key(jax.random.key(2))
    np.testing.assert_array_equal(random_words(key, 7), random_words(key, 100)[:7])
    assert random_words(key, 0).shape == (0,)
