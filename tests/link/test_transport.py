"""Sampled errors against the transition matrix, and exact moments against enumeration.

Every statistical test has a fixed key and states its sample size, the number of its comparisons
and the probability that one of them fails by chance, `CHANCE` unless it says otherwise.
"""

import functools

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packing import unpack
from scipy import stats

import jaxqring as jq
from jaxqring.codec._packing import pack
from jaxqring.link import _transport as transport

CHANCE = 1e-8
WORDS = 2**18  # 4,194,304 symbols
further = functools.partial(pytest.param, marks=pytest.mark.matrix)

#: Compiled whole, which is quicker than one operation after the other.
transmit = jax.jit(jq.transmit, static_argnames="scramble")
moments = jax.jit(jq.moments, static_argnums=1)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def random_words(size=WORDS, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, size=size, dtype=np.uint32)


def symbols(words):
    """(..., 16) the symbols of each word, the lowest bits first."""
    shifts = np.arange(0, 32, 2, dtype=np.uint32)
    return ((np.asarray(words)[..., None] >> shifts) & 3).astype(np.uint8)


def send(words, channel, seed=1, scramble=False):
    return jax.jit(transport.transmit, static_argnames="scramble")(
        words, channel, jax.random.key(seed), scramble=scramble
    )


def assert_counts_agree(counts, probs, chance=CHANCE):
    """Pearson's chi-square of multinomial counts; what has probability zero must not occur."""
    counts, probs = np.asarray(counts, float), np.asarray(probs, float)
    possible = probs > 0
    assert np.all(counts[~possible] == 0)
    expected = counts.sum() * probs[possible]
    assert expected.min() > 100  # where the chi-square tail is reliable
    statistic = np.sum((counts[possible] - expected) ** 2 / expected)
    assert statistic < stats.chi2.isf(chance, possible.sum() - 1), statistic


def contingency(sent, received):
    """(4, 4) counts[r, m]."""
    return np.bincount(4 * received.ravel().astype(int) + sent.ravel(), minlength=16).reshape(4, 4)


def stated(matrix):
    """float64 columns that sum to one, from the float32 ones the sampler was given."""
    matrix = np.asarray(matrix, np.float64)
    matrix = np.where(np.abs(matrix) < 1e-9, 0.0, matrix)
    return matrix / matrix.sum(0)


HALF_DEAD = jq.amplitude_damping(gamma=0.3)
LINKS = {
    "werner": (jq.superdense(jq.werner(fidelity=0.9)), dense.werner_state(0.9), {}),
    "dephasing": (
        jq.superdense(jq.werner(fidelity=1.0), sent=jq.dephasing(error_prob=0.07)),
        dense.werner_state(1.0),
        {"sent": dense.pauli_kraus(0, 0, 0.07)},
    ),
    "damping of both halves": (
        jq.superdense(jq.werner(fidelity=1.0), sent=HALF_DEAD, kept=HALF_DEAD),
        dense.werner_state(1.0),
        {"sent": dense.damping_kraus(0.3), "kept": dense.damping_kraus(0.3)},
    ),
    "thermal": (
        jq.superdense(
            jq.werner(fidelity=0.97),
            kept=jq.thermal_relaxation(t1=10.0, t2=7.0, time=1.0, excited_population=0.1),
        ),
        dense.werner_state(0.97),
        {"kept": dense.thermal_kraus(10.0, 7.0, 1.0, 0.1)},
    ),
    "silent loss": (
        jq.superdense(jq.werner(fidelity=0.95), survival=0.8),
        dense.werner_state(0.95),
        {"survival": 0.8},
    ),
    "asymmetric readout": (
        jq.superdense(
            jq.werner(fidelity=0.95),
            readout_error=(
                np.array([[0.99, 0.06], [0.01, 0.94]]),
                np.array([[0.9, 0.02], [0.1, 0.98]]),
            ),
        ),
        dense.werner_state(0.95),
        {
            "readout": (
                np.array([[0.99, 0.06], [0.01, 0.94]]),
                np.array([[0.9, 0.02], [0.1, 0.98]]),
            )
        },
    ),
}
ARBITRARY = np.random.default_rng(1).dirichlet(np.ones(4), size=4).T
HERALDED = np.random.default_rng(2).dirichlet(np.ones(5), size=4).T


@pytest.mark.parametrize("name", LINKS)
def test_sampled_symbols_follow_the_column_of_each_symbol_sent(name):
    """4,194,304 symbols, about 2^20 a column; four chi-squares at 1e-8 each."""
    link, rho, options = LINKS[name]
    expected = stated(dense.transition(rho, **options, heralded=False))
    sent = random_words()
    received = send(sent, link)
    assert received.dtype == jnp.uint32
    counts = contingency(symbols(sent), symbols(received))
    for m in range(4):
        assert_counts_agree(counts[:, m], expected[:, m])


def test_samples_of_an_arbitrary_matrix_follow_its_columns():
    """4,194,304 symbols; four chi-squares at 1e-8 each."""
    link = jq.SymbolChannel(jnp.asarray(ARBITRARY, jnp.float32))
    sent = random_words()
    counts = contingency(symbols(sent), symbols(send(sent, link)))
    for m in range(4):
        assert_counts_agree(counts[:, m], ARBITRARY[:, m])


def test_a_data_dependent_channel_is_told_from_its_symmetric_average():
    """The power of the tests above: the same counts against the scrambled channel fail."""
    link, _, _ = LINKS["damping of both halves"]
    sent = random_words()
    counts = contingency(symbols(sent), symbols(send(sent, link)))
    average = stated(link.scrambled().transition)
    for m in range(4):
        with pytest.raises(AssertionError):
            assert_counts_agree(counts[:, m], average[:, m])


@pytest.mark.parametrize("scramble", [False, further(True)])
def test_flagged_symbols_arrive_as_a_uniform_guess(scramble):
    """4,194,304 symbols; four chi-squares at 1e-8 each."""
    link = jq.SymbolChannel(jnp.asarray(HERALDED, jnp.float32))
    guessed = HERALDED[:4] + HERALDED[4] / 4
    if scramble:
        q = dense.xor_probs(guessed)
        guessed = np.array([[q[r ^ m] for m in range(4)] for r in range(4)])
    sent = random_words()
    counts = contingency(symbols(sent), symbols(send(sent, link, scramble=scramble)))
    for m in range(4):
        assert_counts_agree(counts[:, m], guessed[:, m])


@pytest.mark.statistics
def test_a_flagged_loss_of_a_superdense_link_is_a_uniform_guess():
    """4,194,304 symbols; four chi-squares at 1e-8 each."""
    link = jq.superdense(jq.werner(fidelity=0.9), survival=0.9, heralded=True)
    expected = stated(dense.transition(dense.werner_state(0.9), survival=0.9, heralded=False))
    assert expected[0, 0] == pytest.approx(0.835)
    sent = random_words()
    counts = contingency(symbols(sent), symbols(send(sent, link)))
    for m in range(4):
        assert_counts_agree(counts[:, m], expected[:, m])


@pytest.mark.statistics
def test_scrambling_makes_errors_independent_of_the_data():
    """4,194,304 symbols; five chi-squares at 1e-8 each, one of each symbol and one in all."""
    link = jq.SymbolChannel(jnp.asarray(ARBITRARY, jnp.float32))
    q = dense.xor_probs(ARBITRARY)
    sent = random_words()
    received = send(sent, link, scramble=True)
    errors = symbols(sent ^ np.asarray(received))
    counts = contingency(symbols(sent), errors)
    for m in range(4):
        assert_counts_agree(counts[:, m], q)
    assert_counts_agree(counts.sum(1), q)
    # Exactly so: whatever is sent, the same key draws the same errors.
    other = random_words(seed=5)
    np.testing.assert_array_equal(
        sent ^ np.asarray(received), other ^ np.asarray(send(other, link, scramble=True))
    )


def test_scrambling_is_on_unless_told_otherwise():
    link = jq.SymbolChannel(jnp.asarray(ARBITRARY, jnp.float32))
    sent, key = random_words(1000), jax.random.key(1)
    default = transmit(sent, link, key)
    np.testing.assert_array_equal(default, transmit(sent, link, key, scramble=True))
    assert np.any(default != transmit(sent, link, key, scramble=False))


@pytest.mark.statistics
@pytest.mark.parametrize("scramble", [further(False), True])
def test_rare_errors_have_their_rates_each(scramble):
    """67,108,864 symbols at rates of 1e-6, 2e-6, 5e-6 (67, 134 and 336 expected): exact binomial
    tails at 1e-8 on either side of each."""
    rates = {1: 2e-6, 2: 1e-6, 3: 5e-6}
    q = np.array([1 - sum(rates.values()), *(rates[e] for e in (1, 2, 3))])
    matrix = np.array([[q[r ^ m] for m in range(4)] for r in range(4)])
    link = jq.SymbolChannel(jnp.asarray(matrix, jnp.float32))
    words = np.full(2**22, 0x1B1B1B1B, np.uint32)
    found = symbols((words ^ np.asarray(send(words, link, 3, scramble)))[..., None])
    counts = np.bincount(found.ravel(), minlength=4)
    for error, rate in rates.items():
        low, high = stats.binom.isf([1 - CHANCE, CHANCE], words.size * 16, rate)
        assert low <= counts[error] <= high, (error, counts, low, high)


@pytest.mark.statistics
def test_rates_near_one_are_kept():
    """4,194,304 symbols; three kinds of right symbols at 1e-5 or so, binomial tails at 1e-8."""
    q = np.array([1e-5, 2e-5, 4e-5, 1 - 7e-5])
    matrix = np.array([[q[r ^ m] for m in range(4)] for r in range(4)])
    link = jq.SymbolChannel(jnp.asarray(matrix, jnp.float32))
    words = random_words()
    counts = np.bincount(symbols(words ^ np.asarray(send(words, link))).ravel(), minlength=4)
    for error in range(3):
        low, high = stats.binom.isf([1 - CHANCE, CHANCE], words.size * 16, q[error])
        assert low <= counts[error] <= high, (error, counts)


Q = np.array([0.7, 0.05, 0.1, 0.15])
XOR_LINK = jq.SymbolChannel(
    jnp.asarray([[Q[r ^ m] for m in range(4)] for r in range(4)], jnp.float32)
)


@pytest.fixture(scope="module")
def errors():
    """(262144, 16) errors of an XOR-symmetric link."""
    words = random_words()
    return symbols(words ^ np.asarray(send(words, XOR_LINK, 4)))


@pytest.mark.statistics
def test_all_positions_of_a_word_behave_alike(errors):
    """262,144 words; sixteen chi-squares of one position each, at 1e-8 each."""
    for position in range(16):
        assert_counts_agree(np.bincount(errors[:, position], minlength=4), Q)


@pytest.mark.statistics
def test_errors_of_two_positions_of_a_word_are_independent(errors):
    """262,144 words; 120 chi-squares, one of each pair of positions, at 1e-9 each."""
    joint = np.outer(Q, Q).ravel()
    for first in range(16):
        for second in range(first):
            pairs = 4 * errors[:, first].astype(int) + errors[:, second]
            assert_counts_agree(np.bincount(pairs, minlength=16), joint, chance=1e-9)


def test_errors_of_neighbouring_words_are_independent(errors):
    """131,072 pairs of words at 16 positions, and for pairs shifted by one; 1e-8 each of two."""
    joint = np.outer(Q, Q).ravel()
    for start in (0, 1):
        left, right = errors[start:-1:2], errors[start + 1 :: 2]
        pairs = 4 * left.astype(int) + right[: len(left)]
        assert_counts_agree(np.bincount(pairs.ravel(), minlength=16), joint)


@pytest.mark.statistics
def test_errors_under_different_keys_are_independent(errors):
    """4,194,304 pairs of symbols, one chi-square at 1e-8."""
    words = random_words()
    others = symbols(words ^ np.asarray(send(words, XOR_LINK, 5)))
    pairs = 4 * errors.astype(int) + others
    assert_counts_agree(np.bincount(pairs.ravel(), minlength=16), np.outer(Q, Q).ravel())


@pytest.mark.parametrize(
    "heralded, scramble", [(False, False), further(False, True), further(True, False), (True, True)]
)
def test_a_noise_free_link_returns_the_words_bit_for_bit(heralded, scramble):
    link = jq.superdense(jq.werner(fidelity=1.0), survival=1.0, heralded=heralded)
    words = random_words()
    np.testing.assert_array_equal(send(words, link, 6, scramble), words)


def test_certain_errors_always_happen():
    """Probability one up to 2^-24: 4,194,304 symbols miss one with about 2^-24 * 2^22 = 1/4, so
    that at most 12 may be missed (Poisson tail 1e-17)."""
    link = jq.superdense(jq.bell_diagonal([0.0, 0.0, 0.0, 1.0]))
    words = random_words()
    found = symbols(words ^ np.asarray(send(words, link, 7)))
    assert np.sum(found != 3) <= 12


@pytest.mark.matrix
def test_the_same_key_gives_the_same_bits_under_jit_and_vmap():
    words = random_words(3 * 40).reshape(3, 40)
    keys = jax.random.split(jax.random.key(8), 3)
    matrices = np.stack([ARBITRARY, HERALDED[:4] + HERALDED[4] / 4, np.eye(4)])
    batch = jq.SymbolChannel(jnp.asarray(matrices, jnp.float32))
    for scramble in (False, True):

        def hop(row, link, key, scramble=scramble):
            return jq.transmit(row, link, key, scramble=scramble)

        links = [jq.SymbolChannel(matrix) for matrix in batch.transition]
        eager = [hop(words[i], links[i], keys[i]) for i in range(3)]
        jitted = jax.jit(hop)
        for i in range(3):
            np.testing.assert_array_equal(jitted(words[i], links[i], keys[i]), eager[i])
        np.testing.assert_array_equal(jax.vmap(hop)(words, batch, keys), eager)
        np.testing.assert_array_equal(jax.jit(jax.vmap(hop))(words, batch, keys), eager)
        np.testing.assert_array_equal(eager[2], words[2])
        assert np.any(eager[0] != words[0])
        again = hop(words[0], links[0], keys[1])
        assert np.any(again != eager[0])


@pytest.mark.parametrize("shape", [(), (0,), further((1,)), (2, 3, 5)])
def test_words_of_any_shape_keep_it(shape):
    words = np.random.default_rng(3).integers(0, 2**32, size=shape, dtype=np.uint32)
    link = jq.superdense(jq.werner(fidelity=0.25))
    received = transmit(jnp.asarray(words), link, jax.random.key(0))
    assert received.shape == shape
    assert received.dtype == jnp.uint32


def test_counting_symbol_errors_counts_symbols_that_are_not_zero():
    words = random_words(1000)
    np.testing.assert_array_equal(
        transport.count_symbol_errors(jnp.asarray(words)), (symbols(words) != 0).sum(-1)
    )
    quiet = jnp.array([0, 1, 2, 3, 0x80000000, 0xFFFFFFFF], jnp.uint32)
    np.testing.assert_array_equal(transport.count_symbol_errors(quiet), [0, 1, 1, 1, 1, 16])


# --- Moments --------------------------------------------------------------------------------------


def twos_complement(code, bits):
    return code - 2**bits if code >= 2 ** (bits - 1) else code


def enumerate_moments(bits, transition, codes):
    """Mean and variance of each code, from the probability of each of the 2^bits outcomes."""
    outcomes = np.arange(2**bits)
    values = np.array([twos_complement(code, bits) for code in outcomes], float)
    means, variances = [], []
    for code in codes:
        probs = np.ones(2**bits)
        for shift in range(0, bits, 2):
            probs *= transition[(outcomes >> shift) & 3, (int(code) >> shift) & 3]
        mean = probs @ values
        means.append(mean)
        variances.append(probs @ (values - mean) ** 2)
    return np.array(means), np.array(variances)


WERNER_90 = dense.transition(dense.werner_state(0.9), heralded=False)
DAMPED = dense.transition(
    dense.werner_state(0.95),
    sent=dense.damping_kraus(0.3),
    kept=dense.damping_kraus(0.2),
    heralded=False,
)
ALL_CODES = np.arange(-128, 128)


@pytest.mark.parametrize(
    "matrix", [ARBITRARY, WERNER_90, DAMPED, np.eye(4)], ids=["any", "werner", "damped", "none"]
)
def test_moments_of_all_codes_of_eight_bits_equal_the_enumeration_of_all_outcomes(x64, matrix):
    link = jq.SymbolChannel(jnp.asarray(matrix))
    mean, variance = jq.moments(ALL_CODES, jq.FixedPoint(8), link)
    assert mean.dtype == variance.dtype == jnp.float64
    expected_mean, expected_variance = enumerate_moments(8, matrix, ALL_CODES)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", [2, further(4), further(6), 10, further(16)])
def test_moments_of_other_widths_equal_the_enumeration(x64, bits):
    half = 2 ** (bits - 1)
    codes = np.unique(np.linspace(-half, half - 1, 9).astype(int))
    link = jq.SymbolChannel(jnp.asarray(ARBITRARY))
    mean, variance = jq.moments(codes, jq.FixedPoint(bits), link)
    expected_mean, expected_variance = enumerate_moments(bits, ARBITRARY, codes)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", [further(16), further(24), 32])
def test_moments_of_wide_codes_obey_the_closed_form_of_uniform_flips(x64, bits):
    """Closed form: mean (1 - 2f) v - f; the variance with the term of joint flips."""
    fidelity = 0.93
    flip, joint = 2 * (1 - fidelity) / 3, (1 - fidelity) / 3
    half = 2 ** (bits - 1)
    codes = np.array([0, 1, -1, 37, half - 1, -half, half // 3, -half // 5])
    link = jq.superdense(jq.werner(fidelity=fidelity))
    mean, variance = jq.moments(codes, jq.FixedPoint(bits), link)
    np.testing.assert_allclose(mean, (1 - 2 * flip) * codes - flip, rtol=1e-12, atol=1e-7)
    weights = 2.0 ** np.arange(bits)
    weights[-1] *= -1
    sign = 1 - 2 * ((codes[:, None] >> np.arange(bits)) & 1)
    products = (weights[1::2] * weights[::2] * sign[:, 1::2] * sign[:, ::2]).sum(1)
    expected = flip * (1 - flip) * (4.0**bits - 1) / 3 + 2 * (joint - flip**2) * products
    np.testing.assert_allclose(variance, expected, rtol=1e-12)


def test_moments_of_a_werner_link_have_the_stated_numbers(x64):
    link = jq.superdense(jq.werner(fidelity=0.9))
    wire = jq.FixedPoint(8)
    mean, variance = jq.moments(jnp.array([37, 0]), wire, link)
    np.testing.assert_allclose(mean, [32.0, -1 / 15], atol=1e-9)
    np.testing.assert_allclose(variance, [854.3822, 917.4756], atol=5e-5)
    mean, variance = jq.moments(ALL_CODES, wire, link)
    error = np.mean(np.asarray(variance) + (np.asarray(mean) - ALL_CODES) ** 2)
    assert error == pytest.approx(1456.3333, abs=5e-5)


def test_moments_in_float32_keep_small_noise():
    """Exact. One code in a million is hit: float32 of differences keeps seven digits."""
    link = jq.superdense(jq.werner(fidelity=1 - 1e-6))
    mean, variance = jq.moments(jnp.array([12345, -32768]), jq.FixedPoint(16), link)
    matrix = np.asarray(link.transition, np.float64)
    for index, code in enumerate((12345, -32768)):
        expected_mean, expected_variance = enumerate_moments(16, matrix / matrix.sum(0), [code])
        np.testing.assert_allclose(variance[index], expected_variance[0], rtol=1e-3)
        np.testing.assert_allclose(mean[index], expected_mean[0], atol=0.01)


def test_derivative_of_the_mean_with_respect_to_fidelity_is_the_stated_one(x64):
    def mean(fidelity):
        return jq.moments(
            jnp.array([37, 0, -100]), jq.FixedPoint(8), jq.superdense(jq.werner(fidelity=fidelity))
        )[0]

    expected = 2 / 3 * (2 * np.array([37, 0, -100]) + 1)
    assert expected[0] == 50
    np.testing.assert_allclose(jax.jit(jax.jacfwd(mean))(0.9), expected, atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.jacrev(mean))(0.9), expected, atol=1e-10)


def test_the_mean_is_linear_in_the_transition_matrix(x64):
    rng = np.random.default_rng(4)
    first, second = (rng.dirichlet(np.ones(4), size=4).T for _ in range(2))
    wire = jq.FixedPoint(12)
    codes = np.arange(-2048, 2048, 17)

    def mean(matrix):
        return np.asarray(moments(codes, wire, jq.SymbolChannel(jnp.asarray(matrix)))[0])

    mixed = mean(0.3 * first + 0.7 * second)
    np.testing.assert_allclose(mixed, 0.3 * mean(first) + 0.7 * mean(second), atol=1e-10)
    assert np.abs(mean(first) - mean(second)).max() > 10
    jump = transport.mean_jump(jnp.asarray(codes), wire, jnp.asarray(first))
    np.testing.assert_allclose(jump, mean(first) - codes, atol=1e-10)


@pytest.mark.parametrize("bits", [further(2), 8, further(10)])
@pytest.mark.parametrize(
    "matrix", [ARBITRARY, WERNER_90, DAMPED, np.eye(4)], ids=["any", "werner", "damped", "none"]
)
def test_mean_slope_is_the_regression_of_the_mean_on_the_code(x64, bits, matrix):
    codes = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    means, _ = enumerate_moments(bits, matrix, codes)
    expected = np.polyfit(codes, means, 1)[0]
    found = transport.mean_slope(jq.FixedPoint(bits), jnp.asarray(matrix))
    assert float(found) == pytest.approx(expected, abs=1e-10)


def test_mean_slope_of_a_werner_link_is_one_less_twice_the_flip_probability(x64):
    fidelity = np.linspace(0.25, 1, 7)
    link = jq.superdense(jq.werner(fidelity=fidelity))
    for bits in (2, 8, 16, 32):
        slope = functools.partial(transport.mean_slope, jq.FixedPoint(bits))
        found = jax.vmap(slope)(link.transition)
        np.testing.assert_allclose(found, 1 - 4 * (1 - fidelity) / 3, atol=1e-12)


def test_moments_of_a_flagging_link_are_those_of_its_guessing_receiver(x64):
    link = jq.SymbolChannel(jnp.asarray(HERALDED))
    mean, variance = jq.moments(ALL_CODES, jq.FixedPoint(8), link)
    expected = enumerate_moments(8, HERALDED[:4] + HERALDED[4] / 4, ALL_CODES)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-9)


def test_moments_read_codes_mod_the_width(x64):
    link, wire = jq.SymbolChannel(jnp.asarray(ARBITRARY)), jq.FixedPoint(8)
    plain = jq.moments(np.array([37, -1]), wire, link)
    wrapped = jq.moments(np.array([37 + 256, 255]), wire, link)
    np.testing.assert_array_equal(wrapped, plain)


@pytest.mark.statistics
@pytest.mark.parametrize("scramble", [further(False), True])
def test_received_codes_have_the_stated_mean_and_variance(scramble):
    """2^20 codes of 8 bits of each of three values. The mean: z = 5.7, two-sided 1.2e-8. The
    variance: its standard error from the exact fourth moment, z = 6, two-sided 2e-9."""
    count, wire = 2**20, jq.FixedPoint(8)
    link = jq.SymbolChannel(jnp.asarray(ARBITRARY, jnp.float32))
    expected = link.scrambled() if scramble else link
    for index, code in enumerate((37, -128, 0)):
        words = pack(jnp.full((count,), code, jnp.int32), 8)
        received = unpack(send(words, link, 20 + index, scramble), 8, count)
        found = np.asarray(received, np.float64)
        mean, variance = (float(m) for m in jq.moments(jnp.array(code), wire, expected))
        assert abs(found.mean() - mean) < 5.7 * np.sqrt(variance / count)
        fourth = np.mean((found - mean) ** 4)
        spread = np.sqrt((fourth - variance**2) / count)
        assert abs(found.var() - variance) < 6 * spread


def test_moments_under_jit_and_vmap_agree():
    link, wire = LINKS["thermal"][0], jq.FixedPoint(8)
    codes = jnp.asarray(ALL_CODES)
    eager = jq.moments(codes, wire, link)
    mapped = jax.jit(jax.vmap(lambda code: jq.moments(code, wire, link)))(codes)
    for one, other in zip(eager, mapped, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    grid = jq.moments(codes.reshape(2, 4, 32), wire, link)
    np.testing.assert_allclose(grid[0].reshape(-1), eager[0], rtol=1e-6)


# --- Refusal --------------------------------------------------------------------------------------

WORD = jnp.zeros((4,), jnp.uint32)
KEY = jax.random.key(0)
LINK = jq.superdense(jq.werner(fidelity=0.9))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: jq.transmit(jnp.zeros(4), LINK, KEY), TypeError,
         "`words` must be uint32, but got"),
        (lambda: jq.transmit(WORD, jnp.eye(4), KEY), TypeError,
         "`channel` must be a SymbolChannel"),
        (lambda: jq.transmit(WORD, LINK, jax.random.PRNGKey(0)), TypeError,
         "`key` must be a typed key"),
        (lambda: jq.transmit(WORD, LINK, jax.random.split(KEY)), ValueError,
         "`key` must be a single key"),
        (lambda: jq.transmit(WORD, LINK, None), TypeError, "`key` must be a typed key"),
        (lambda: jq.transmit(WORD, jq.superdense(jq.werner(fidelity=np.array([0.9, 0.8]))), KEY),
         ValueError, "`channel` must be one link without batch axes"),
        (lambda: jq.transmit(WORD, jq.SymbolChannel(2 * jnp.eye(4)), KEY), ValueError,
         "columns that are probability distributions"),
        (lambda: jq.transmit(WORD, jq.SymbolChannel(jnp.eye(3)), KEY), ValueError,
         "`channel.transition` must have the shape"),
        (lambda: jq.moments(jnp.array(1.5), jq.FixedPoint(8), LINK), TypeError,
         "`codes` must be integers"),
        (lambda: jq.moments(jnp.array(1), jq.Float32(), LINK), TypeError,
         "`wire` must be a FixedPoint"),
        (lambda: jq.moments(jnp.array(1), jq.FixedPoint(8), np.eye(4)), TypeError,
         "`channel` must be a SymbolChannel"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
