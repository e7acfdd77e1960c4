"""Sampled masks against the law of the errors of their sums, and privacy amplification.

Statistical tests have fixed keys and state their sample size. Each comparison of counts fails by
chance with probability `CHANCE`, 1e-9 for a chi-square; there are fewer than 100 of them.
"""

import functools
import itertools

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import plain_threefry
from scipy import stats

import jaxqring as jq
from jaxqring._threefry import cipher_key
from jaxqring.physics.channels import Channel
from jaxqring.physics.ghz import GHZSource, fused
from jaxqring.secure._masks import _wrong_bits, masks, prime_modulus, sum_error_law, sum_errors

CHANCE = 1e-11
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
#: Compiled once for each number of parties, shape, width and realisation.
draw = jax.jit(masks, static_argnums=(2, 3, 4))
errors_of = jax.jit(sum_errors, static_argnums=(2, 3))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- Sampled masks --------------------------------------------------------------------------------


def assert_binomial(counts, size, probs):
    """Each count within the exact tails of Binomial(size, prob), `CHANCE` for each."""
    counts, probs = np.broadcast_arrays(np.asarray(counts), np.asarray(probs, np.float64))
    low, high = stats.binom.ppf(CHANCE / 2, size, probs), stats.binom.isf(CHANCE / 2, size, probs)
    assert np.all((low <= counts) & (counts <= high)), (counts, low, high)


def assert_counts_agree(counts, probs):
    """Chi-square where at least 100 are expected, at 1e-9; exact tails of each of the others."""
    counts, probs = np.ravel(counts), np.clip(np.ravel(probs), 0, 1)
    many = counts.sum() * probs >= 100
    assert_binomial(counts[~many], counts.sum(), probs[~many])
    found = counts[many]
    expected = probs[many] / probs[many].sum() * found.sum()
    statistic = np.sum((found - expected) ** 2 / expected)
    assert many.sum() < 2 or statistic < stats.chi2.isf(1e-9, many.sum() - 1), statistic


def assert_uniform(*numbers, size):
    """The numbers (S,) below `size` are jointly uniform."""
    index = functools.reduce(lambda left, right: left * size + right, numbers)
    assert_counts_agree(
        np.bincount(index.astype(np.int64), minlength=size ** len(numbers)),
        np.full(size ** len(numbers), float(size) ** -len(numbers)),
    )


def combined(drawn, bits, realisation):
    """The sum of the masks (N, ...)."""
    drawn = np.asarray(drawn).astype(np.uint64)
    if realisation == "xor":
        return np.bitwise_xor.reduce(drawn, axis=0)
    return drawn.sum(axis=0) % modulus_of(bits, realisation)


def modulus_of(bits, realisation):
    return prime_modulus(bits) if realisation == "prime" else 2**bits


@pytest.mark.parametrize(
    "realisation, bits, parties, shape",
    [
        further("qft", 1, 2, (7,)),
        further("qft", 8, 3, ()),
        further("qft", 16, 5, (3, 5)),
        further("qft", 31, 3, (9000,)),  # more than a block
        ("qft", 32, 2, (9000,)),
        further("qft", 3, 100, (8192,)),
        further("qft", 5, 3, (16385,)),
        further("prime", 1, 2, (7,)),
        further("prime", 4, 3, (3, 5)),
        ("prime", 15, 5, (40,)),
        further("prime", 15, 3, (9000,)),
        further("xor", 1, 2, (7,)),
        further("xor", 16, 5, (3, 5)),
        ("xor", 32, 3, (40,)),
        further("xor", 31, 3, (9000,)),
    ],
)
def test_masks_of_perfect_states_add_up_to_zero(realisation, bits, parties, shape):
    """Exact. Neighbours are not alike, nor is any mask zero, nor does a party have the same twice:
    each of 2^32 chances or fewer, but for small moduli, where only the sum is looked at."""
    drawn = draw(jax.random.key(bits), GHZSource(parties), shape, bits, realisation)
    assert drawn.shape == (parties, *shape)
    assert drawn.dtype == jnp.uint32
    assert int(np.max(drawn)) < modulus_of(bits, realisation)
    np.testing.assert_array_equal(combined(drawn, bits, realisation), 0)
    assert np.all(np.any(np.asarray(drawn).reshape(parties, -1) != 0, axis=1))
    if bits >= 31 or (bits >= 15 and drawn[0].size < 100):
        assert len(np.unique(drawn[0])) > 0.99 * drawn[0].size


def test_an_int_is_a_shape_of_one_axis():
    drawn = draw(jax.random.key(0), GHZSource(3), 4, 8)
    np.testing.assert_array_equal(drawn, draw(jax.random.key(0), GHZSource(3), (4,), 8))


@pytest.mark.parametrize(
    "realisation, shape",
    [("qft", (3, 0)), *(further(name, 0) for name in ("qft", "prime", "xor"))],
)
def test_no_masks_are_an_empty_array(realisation, shape):
    drawn = draw(jax.random.key(0), GHZSource(3), shape, 8, realisation)
    assert drawn.shape == (3, *np.zeros(shape).shape)


@pytest.mark.parametrize(
    "realisation, bits",
    [
        ("qft", 2),
        further("prime", 2),
        further("xor", 2),
        *(further(realisation, 3) for realisation in ("qft", "prime", "xor")),
    ],
)
@pytest.mark.parametrize("white", [0.3, further(0.0)])
def test_masks_of_all_parties_but_one_are_uniform_and_independent(realisation, bits, white):
    """2^16 masks of four parties. Independent of one another, of the masks before them and of
    those that share a random word with them, and of the error of the sum."""
    size, modulus = 2**16, modulus_of(bits, realisation)
    drawn = draw(jax.random.key(7), GHZSource(4, white=white), (size,), bits, realisation)
    off = combined(drawn, bits, realisation)
    drawn = np.asarray(drawn).astype(np.int64)
    for three in itertools.combinations(drawn, 3):
        assert_uniform(*three, size=modulus)
        if white:
            assert_uniform(*(mask[off != 0] for mask in three), size=modulus)
            assert_uniform(*(mask[off == off.max()] for mask in three[:2]), size=modulus)
    # Positions whose bits are cut out of the same draw lie a fixed way apart within a block.
    apart = -(-(2**13) // (2 * (32 // bits)))
    for lag in (1, apart, 2 * apart, 2**13):
        for first, second in itertools.product(drawn[:2], repeat=2):
            assert_uniform(first[:-lag], second[lag:], size=modulus)


NOISY = GHZSource(3, noise=Channel(jnp.asarray(dense.transfer_matrix(dense.damping_kraus(0.15)))))
#: <0...0|rho|1...1> of three damped qubits.
NOISY_VISIBILITY = (1 - 0.15) ** 1.5


@pytest.mark.parametrize("bits", [further(3), 8])
def test_errors_of_sums_follow_their_law(bits):
    """2^16 masks. The law is that of the dense states."""
    drawn = draw(jax.random.key(1), NOISY, (2**16,), bits)
    off = combined(drawn, bits, "qft").astype(np.int64)
    with jax.enable_x64(True):
        law = sum_error_law(NOISY_VISIBILITY, bits)
    assert_counts_agree(np.bincount(off, minlength=2**bits), law)


@pytest.mark.parametrize("bits, modulus, copies", [further(3, 11, 4), (4, 17, 5)])
def test_errors_mod_a_prime_are_uniform_among_wrong_sums(bits, modulus, copies):
    """2^16 masks. Each takes as many qubit GHZ states as the modulus has bits."""
    drawn = draw(jax.random.key(2), NOISY, (2**16,), bits, "prime")
    off = combined(drawn, bits, "prime").astype(np.int64)
    right = ((1 + NOISY_VISIBILITY) / 2) ** copies
    law = np.r_[right, np.full(modulus - 1, (1 - right) / (modulus - 1))]
    assert_counts_agree(np.bincount(off, minlength=modulus), law)


@pytest.mark.statistics
def test_errors_of_xor_are_independent_bits():
    """2^16 masks of four bits."""
    off = combined(draw(jax.random.key(3), NOISY, (2**16,), 4, "xor"), 4, "xor").astype(np.int64)
    wrong = (1 - NOISY_VISIBILITY) / 2
    ones = np.array([number.bit_count() for number in range(16)])
    law = wrong**ones * (1 - wrong) ** (4 - ones)
    assert_counts_agree(np.bincount(off, minlength=16), law)


@pytest.mark.matrix
@pytest.mark.parametrize("realisation", ["qft", "prime", "xor"])
def test_key_decides_all_however_it_is_mapped(realisation):
    """Over keys and over noise."""
    noise = jnp.array([0.0, 0.05, 0.3], jnp.float32)
    keys = jax.random.split(jax.random.key(4), 3)

    def one(key, white):
        return masks(key, GHZSource(3, white=white), (300,), 4, realisation)

    mapped = jax.jit(jax.vmap(one))(keys, noise)
    compiled = jax.jit(one)
    for key, white, found in zip(keys, noise, mapped, strict=True):
        np.testing.assert_array_equal(found, compiled(key, white))
    same_noise = compiled(keys[0], noise[1])
    # Independent masks of four bits agree once in 16.
    for party in range(3):
        assert_binomial(np.sum(same_noise[party] == mapped[1][party]), 300, 1 / 16)


@pytest.mark.matrix
@pytest.mark.parametrize("realisation", ["qft", "prime", "xor"])
def test_compiled_masks_are_those_without_compilation(realisation):
    source = GHZSource(3, white=0.1)
    eager = masks(jax.random.key(6), source, (300,), 4, realisation)
    np.testing.assert_array_equal(
        eager, draw(jax.random.key(6), source, (300,), 4, realisation)
    )  # fmt: skip


@pytest.mark.matrix
@pytest.mark.parametrize("realisation", ["qft", "prime"])
def test_double_precision_changes_no_type(realisation, x64):
    """Of "xor" it does: the links, whose errors it draws, are of single precision."""
    drawn = draw(jax.random.key(5), GHZSource(3, white=0.1), (300,), 8, realisation)
    assert drawn.dtype == jnp.uint32
    assert 0 < np.sum(combined(drawn, 8, realisation) != 0) < 300


# --- Errors found by the gaps between them --------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(2, 3))
@functools.partial(jax.vmap, in_axes=(0, 0, None, None))
def many_errors(key, visibility, size, bits):
    return sum_errors(cipher_key(key), visibility, size, bits)


@pytest.mark.parametrize("bits", [4, *map(further, (1, 2, 3, 8, 16))])
def test_errors_drawn_by_gaps_follow_the_law(bits):
    """2^17 sums for each of six visibilities."""
    visibility = np.float32([1, 0.999, 0.9, 0, -0.5, -1])
    keys = jax.random.split(jax.random.key(bits), len(visibility))
    found = many_errors(keys, visibility, 2**17, bits)
    assert found.dtype == jnp.int32
    for value, errors in zip(visibility, np.asarray(found), strict=True):
        with jax.enable_x64(True):
            law = np.asarray(sum_error_law(np.float64(value), bits))
        if value == 1:
            assert not errors.any()
            continue
        # Of a float32 the probabilities are right to 2^-22 or so, which zeros of the law show.
        counts = np.bincount(errors, minlength=2**bits)
        assert len(counts) == 2**bits
        if bits <= 8:
            assert_counts_agree(counts, np.maximum(law, 2.0**-22))
        else:  # of each bit, and of pairs of the high ones
            error = np.arange(2**bits)
            for t in range(bits):
                of_bit = (error >> t) & 1 == 1
                assert_binomial(counts[of_bit].sum(), 2**17, min(law[of_bit].sum(), 1))
            top = error >> (bits - 5)
            assert_counts_agree(np.bincount(top, counts), np.bincount(top, law))
    # No two sums share their luck: what follows an error is any sum.
    errors = np.asarray(found)[2] != 0
    rate = errors.mean()
    assert_binomial((errors[1:] & errors[:-1]).sum(), 2**17 - 1, rate**2)


@pytest.mark.statistics
@pytest.mark.parametrize("size", [1, 15, 16, 1000])
def test_every_place_is_as_likely_to_be_wrong_as_any_other(size):
    """500 keys: in short messages, in those that stretches do not divide, and at both ends."""
    keys = jax.random.split(jax.random.key(size), 500)
    found = np.asarray(many_errors(keys, np.full(500, 0.5, np.float32), size, 2)) != 0
    assert found.shape == (500, size)
    wrong = 1 - 0.75**2
    assert_binomial(found.sum(), found.size, wrong)
    assert_binomial(found.sum(axis=0), 500, wrong)  # of each place


@pytest.mark.parametrize("size", [further(1), further(15), 16, further(1000)])
def test_a_visibility_of_minus_one_turns_every_single_bit(size):
    """Certain, but for the resolution of 2^-24 with which errors are found."""
    errors = errors_of(cipher_key(jax.random.key(0)), jnp.float32(-1), size, 1)
    np.testing.assert_array_equal(errors, np.ones(size))


@pytest.mark.statistics
def test_visibilities_next_to_one_have_errors_of_their_rate():
    """2^20 sums of 16 bits at a rate of 16 x 5e-6; nothing at one; no NaN where rates vanish."""
    visibility = np.float32([1 - 1e-5, 1.0])
    found = np.asarray(many_errors(jax.random.split(jax.random.key(3)), visibility, 2**20, 16))
    wrong = (1 - np.float64(visibility[0])) / 2
    assert_binomial(np.sum(found[0] != 0), 2**20, -np.expm1(16 * np.log1p(-wrong)))
    assert not found[1].any()
    assert np.all((found >= 0) & (found < 2**16))


def test_prime_moduli_are_the_next_primes():
    known = [3, 5, 11, 17, 37, 67, 131, 257, 521, 1031, 2053, 4099, 8209, 16411, 32771]
    assert [prime_modulus(bits) for bits in range(1, 16)] == known


# --- Refusals -------------------------------------------------------------------------------------

KEY, SOURCE = jax.random.key(0), GHZSource(3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: masks(0, SOURCE, 4, 8), TypeError, "`key` must be a typed key"),
        (lambda: masks(jax.random.split(KEY), SOURCE, 4, 8), ValueError,
         "`key` must be a single key"),
        (lambda: masks(KEY, 3, 4, 8), TypeError, "`source` must be a GHZSource, but got 3"),
        (lambda: masks(KEY, SOURCE, 4, 8, "phase"), ValueError,
         "`realisation` must be one of 'qft', 'prime', 'xor', but got 'phase'"),
        *(
            (lambda bits=bits: masks(KEY, SOURCE, 4, bits), ValueError,
             rf"`bits` must be an integer in \[1, 32\], but got {bits}\.")
            for bits in (0, 33, -1, 8.0, True)
        ),
        (lambda: masks(KEY, SOURCE, 4, 33, "xor"), ValueError,
         r"`bits` must be an integer in \[1, 32\]"),
        (lambda: masks(KEY, SOURCE, 4, 16, "prime"), ValueError,
         r"`bits` must be an integer in \[1, 15\], but got 16"),
        (lambda: sum_error_law(0.9, 0), ValueError, r"`bits` must be an integer in \[1, 20\]"),
        (lambda: sum_error_law(0.9, 21), ValueError, r"`bits` must be an integer in \[1, 20\]"),
        (lambda: sum_error_law(np.ones(3), 2), ValueError,
         r"`visibility` must have the shape \(\) or \(2,\), but got \(3,\)\."),
        (lambda: sum_error_law(1.1, 2), ValueError,
         r"`visibility` must lie in \[-1, 1\], but got 1\.1"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.statistics
def test_sources_of_other_noise_have_their_visibility_in_the_masks():
    """2^14 masks of four bits from pairs that nodes fused: the error rate of their visibility."""
    source = fused(jq.werner(weight=0.8), 3)
    drawn = draw(jax.random.key(8), source, (2**14,), 4)
    wrong = np.sum(combined(drawn, 4, "qft") != 0)
    assert_binomial(wrong, 2**14, 1 - ((1 + 0.8**2) / 2) ** 4)


# --- Privacy amplification ------------------------------------------------------------------------


def test_hashed_masks_still_add_up_to_zero():
    raw = jq.secure.masks(jax.random.key(0), GHZSource(5), 300, 15, "prime")
    hashed = np.asarray(
        jq.secure.universal_hash(jax.random.key(1), raw, 40, prime_modulus(15)), np.int64
    )
    assert (hashed.sum(axis=0) % prime_modulus(15) == 0).all()
    assert hashed.any(axis=1).all()


def test_hashing_is_one_public_matrix_over_the_field():
    """The unit vectors show the matrix; any other masks are multiplied with the same."""
    modulus, key = prime_modulus(4), jax.random.key(2)
    matrix = np.asarray(
        jq.secure.universal_hash(key, jnp.eye(6, dtype=jnp.uint32), 3, modulus), np.int64
    )
    raw = np.random.default_rng(0).integers(0, modulus, (4, 6))
    found = np.asarray(jq.secure.universal_hash(key, jnp.asarray(raw, jnp.uint32), 3, modulus))
    np.testing.assert_array_equal(found, raw @ matrix % modulus)


def weights_by_hand(key, rows, columns, modulus):
    """(rows, columns) in Python's integers: 64 random bits mod the prime, row by row."""
    cipher = tuple(int(word) for word in cipher_key(key))
    matrix = np.zeros((rows, columns), np.int64)
    for row in range(rows):
        own = plain_threefry(cipher, (row, 0))
        for column in range(columns):
            high, low = plain_threefry(own, (column, 0))
            matrix[row, column] = (high << 32 | low) % modulus
    return matrix


@pytest.mark.parametrize("bits", [1, 4, 15])
def test_the_matrix_is_64_random_bits_for_each_entry_and_no_row_is_another(bits):
    """Exact. Two of five rows of 200 random entries agree by chance with 10 / 3^200 at most."""
    modulus, key = prime_modulus(bits), jax.random.key(bits)
    unit = jnp.eye(200, dtype=jnp.uint32)
    matrix = np.asarray(jq.secure.universal_hash(key, unit, 5, modulus)).T
    np.testing.assert_array_equal(matrix, weights_by_hand(key, 5, 200, modulus))
    assert len(np.unique(matrix, axis=0)) == 5
    other = np.asarray(jq.secure.universal_hash(jax.random.key(99), unit, 5, modulus)).T
    assert not (matrix == other).all(axis=1).any()


def test_images_of_two_masks_are_uniform_pairs_that_collide_with_the_square_of_one_over_p():
    """200,000 matrices of 2 x 2 over the field of 3 elements: all 81 are as likely, by chi-square.

    So are the 9 images of the difference of two vectors of masks: they collide with 1 / 9, and
    not with 1 / 3, as they would if both rows were the same. Each of the six tests fails by chance
    with 1e-9.
    """
    modulus, count = 3, 200_000
    keys = jax.random.split(jax.random.key(11), count)
    vectors = [(0, 0), (1, 0), (0, 2), (1, 1), (2, 1), (2, 2)]
    hashed = jax.jit(
        jax.vmap(lambda key, raw: jq.secure.universal_hash(key, raw, 2, modulus), (0, None))
    )
    images = np.asarray(hashed(keys, jnp.asarray(vectors, jnp.uint32))).astype(np.int64)
    of_units = np.concatenate([images[:, 1], 2 * images[:, 2] % 3], axis=1)  # the matrices
    assert_uniform(*of_units.T, size=modulus)
    for first, second in [(0, 1), (1, 2), (1, 3), (3, 5), (2, 4)]:
        difference = (images[:, first] - images[:, second]) % modulus
        assert_uniform(*difference.T, size=modulus)
        collide = np.sum((images[:, first] == images[:, second]).all(axis=1))
        assert_binomial(collide, count, 1 / modulus**2)


def test_two_vectors_collide_as_rarely_as_two_universal_hashing_allows():
    """20,000 matrices: collisions of the difference with probability 1/17; mod 16 it would be 1/4.

    Five standard errors of 1/17 are 0.008: fails by chance once in 1e6 times.
    """
    difference = jnp.array([[4, 0]], jnp.uint32)
    keys = jax.random.split(jax.random.key(3), 20_000)
    images = jax.vmap(lambda key: jq.secure.universal_hash(key, difference, 1, prime_modulus(4)))(
        keys
    )
    assert abs(float(jnp.mean(images == 0)) - 1 / 17) < 0.0085
    numbers = np.arange(16)
    assert np.mean(numbers * 4 % 16 == 0) == 1 / 4


@pytest.mark.parametrize(
    "size, modulus, words",
    [(0, 17, "size"), (3, 17, "size"), (1, 16, "prime"), (1, 65_537, "modulus")],
)
def test_hashes_that_cannot_be_are_refused(size, modulus, words):
    with pytest.raises(ValueError, match=words):
        jq.secure.universal_hash(jax.random.key(0), jnp.zeros((3, 2), jnp.uint32), size, modulus)


def test_the_two_bits_of_a_symbol_are_wrong_independently():
    """320,000 symbols; each count within six standard deviations: by chance once in 1e8."""
    wrong = 0.2
    words = np.asarray(_wrong_bits(cipher_key(jax.random.key(4)), jnp.float32(0.6), 20_000))
    symbols = (words[:, None] >> np.arange(0, 32, 2, dtype=np.uint32)) & 3
    seen = np.bincount(symbols.ravel(), minlength=4)
    law = np.array([(1 - wrong) ** 2, wrong * (1 - wrong), wrong * (1 - wrong), wrong**2])
    spread = np.sqrt(symbols.size * law * (1 - law))
    assert (np.abs(seen - symbols.size * law) < 6 * spread).all()
