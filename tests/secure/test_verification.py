"""Verification against hypergeometric and binomial laws and against dense states.

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
from scipy import stats

import jaxqring as jq
from jaxqring.physics.channels import Channel
from jaxqring.physics.ghz import GHZSource, sample
from jaxqring.secure._attacks import PlantedSource, plus_states
from jaxqring.secure._verification import draw_tests, failure_probability, judge, verify

CHANCE = 1e-11
TESTS = ("z", "mixed", "xy")

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
every_test = pytest.mark.parametrize("tests", TESTS)

#: Compiled once for each kind of test and number of parties.
draw = jax.jit(sample)
make_tests = jax.jit(draw_tests, static_argnums=(1, 2, 3, 4))
failure = jax.jit(failure_probability, static_argnums=(1, 2))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6, 7))
@functools.partial(jax.vmap, in_axes=(0, None, None, None, None, None, None, None))
def verify_all(key, source, num_kept, num_tested, tests, tolerance, bits, simulate):
    done = verify(
        key,
        source,
        num_kept,
        num_tested,
        tests=tests,
        tolerance=tolerance,
        bits=bits,
        simulate=simulate,
    )
    return done.passed, done.failures, done.bad_kept


def verified(seed, runs, source, num_kept, num_tested, **options):
    options = {"tests": "z", "tolerance": 0.0, "bits": 1, "simulate": "counts"} | options
    order = ("tests", "tolerance", "bits", "simulate")
    keys = jax.random.split(jax.random.key(seed), runs)
    done = verify_all(keys, source, num_kept, num_tested, *(options[name] for name in order))
    return tuple(np.asarray(each) for each in done)


def channel(*kraus):
    """One channel of the package for each list of Kraus operators, along a leading axis."""
    return Channel(jnp.asarray(np.stack([dense.transfer_matrix(each) for each in kraus])))


def seen_by_z(parties):
    """GHZ states whose first qubit is flipped, which fail every Z test."""
    flipped = [dense.pauli_kraus(1.0, 0, 0)] + [[dense.I2]] * (parties - 1)
    return GHZSource(parties, noise=channel(*flipped))


def assert_binomial(counts, size, probs):
    """Each count within the exact tails of Binomial(size, prob), `CHANCE` for each."""
    counts, probs = np.broadcast_arrays(np.asarray(counts), np.asarray(probs, np.float64))
    low, high = stats.binom.ppf(CHANCE / 2, size, probs), stats.binom.isf(CHANCE / 2, size, probs)
    assert np.all((low <= counts) & (counts <= high)), (counts, low, high)


def assert_law(found, law):
    """Integers (R,) from a distribution of SciPy: chi-square over what is expected ten times."""
    values = np.arange(int(law.isf(1e-12)) + 2)
    expected = law.pmf(values) * len(found)
    assert found.max() <= values[-1]
    counts = np.bincount(found, minlength=len(values))
    often = expected >= 10
    counts = np.append(counts[often], counts[~often].sum())
    expected = np.append(expected[often], len(found) - expected[often].sum())
    if expected[-1] < 10:  # too few for a chi-square: by themselves
        assert_binomial(counts[-1], len(found), max(expected[-1], 0) / len(found))
        counts, expected = counts[:-1], expected[:-1] * counts[:-1].sum() / expected[:-1].sum()
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert len(counts) < 2 or statistic < stats.chi2.isf(1e-9, len(counts) - 1), (counts, expected)


# --- What one test tells --------------------------------------------------------------------------

NOISE = {
    "damping": dense.damping_kraus(0.2),
    "depolarizing": dense.pauli_kraus(0.02, 0.02, 0.02),
    "pauli": dense.pauli_kraus(0.05, 0.1, 0.03),
    "random": dense.random_kraus(np.random.default_rng(0), 2),
}


def fails_in_the_dense_state(rho, tests):
    """The probability that a test fails: of outcomes along Z, and of every even string of Y."""
    parties = int(np.log2(len(rho)))
    agree = rho[0, 0].real + rho[-1, -1].real
    wrong = []
    for letters in itertools.product([0, 1], repeat=parties):
        if sum(letters) % 2 == 0:
            axes = np.eye(3)[list(letters)]
            odd = np.array([int(o).bit_count() % 2 for o in range(2**parties)])
            bad = odd != sum(letters) // 2 % 2
            wrong.append(dense.born(rho, axes)[bad].sum())
    z_share = {"z": 1, "mixed": 1 / 3, "xy": 0}[tests]
    return z_share * (1 - agree) + (1 - z_share) * np.mean(wrong)


@every_test
def test_a_test_fails_as_often_as_that_of_the_dense_state(tests, x64):
    for name, kraus in NOISE.items():
        source = GHZSource(3, noise=channel(kraus, kraus, NOISE["pauli"]), white=0.1)
        rho = dense.noisy_ghz([kraus, kraus, NOISE["pauli"]], 0.1)
        expected = fails_in_the_dense_state(rho, tests)
        assert float(failure(source, tests, 1)) == pytest.approx(expected, abs=1e-13), name
        expected = 1 - (1 - dense_z(rho)) ** 3 if tests == "z" else None
        if expected is not None:
            assert float(failure(source, tests, 3)) == pytest.approx(expected, abs=1e-13)


def dense_z(rho):
    return fails_in_the_dense_state(rho, "z")


def test_check_values_of_four_depolarized_parties(x64):
    source = GHZSource(4, noise=jq.depolarizing(mix=0.05))
    fidelity = 0.859097
    assert 1 - float(failure(source, "xy", 1)) == pytest.approx(0.907253, abs=1e-6)
    assert 1 - float(failure(source, "mixed", 1)) == pytest.approx(0.906065, abs=1e-6)
    assert float(failure(source, "z", 1)) == pytest.approx(0.096312, abs=1e-6)
    # A mixed test tells the fidelity, as its operator is |G><G| + (I - |G><G|) / 3.
    assert 1 - float(failure(source, "mixed", 1)) == pytest.approx((1 + 2 * fidelity) / 3, abs=1e-6)


def test_a_mixed_test_of_any_state_passes_by_its_fidelity(x64):
    for kraus in NOISE.values():
        source = GHZSource(3, noise=channel(kraus, NOISE["damping"], kraus), white=0.1)
        rho = dense.noisy_ghz([kraus, NOISE["damping"], kraus], 0.1)
        fidelity = (dense.ghz(3).conj() @ rho @ dense.ghz(3)).real
        passes = 1 - float(failure(source, "mixed", 1))
        assert passes == pytest.approx((1 + 2 * fidelity) / 3, abs=1e-13)


@every_test
def test_a_copy_of_several_states_fails_if_one_of_them_does(tests, x64):
    """All of its states are tested along Z, or none is."""
    source = GHZSource(3, noise=channel(*[NOISE["damping"]] * 3), white=0.0)
    along_z, across = (float(failure(source, kind, 1)) for kind in ("z", "xy"))
    z_share = {"z": 1, "mixed": 1 / 3, "xy": 0}[tests]
    expected = z_share * (1 - (1 - along_z) ** 3) + (1 - z_share) * (1 - (1 - across) ** 3)
    assert float(failure(source, tests, 3)) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("tests", [further("z"), "mixed", further("xy")])
def test_derivative_of_the_failures_is_whole_at_zero_noise(tests, x64):
    def fails(mix):
        return failure_probability(GHZSource(3, noise=jq.depolarizing(mix=mix)), tests, 2)

    slope, step = jax.jit(jax.grad(fails)), 1e-5
    value = jax.jit(fails)
    for at in (0.0, 0.1):
        differences = (-3 * value(at) + 4 * value(at + step) - value(at + 2 * step)) / (2 * step)
        assert float(slope(at)) == pytest.approx(float(differences), rel=1e-6)


# --- Tests as they are drawn ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "tests, parties, bits",
    [
        ("mixed", 5, 3),
        further("mixed", 2, 1),
        *(further(tests, 5, 3) for tests in ("z", "xy")),
    ],
)
def test_drawn_tests_are_those_that_a_perfect_state_passes(tests, parties, bits):
    """2^14 copies: an even number of Y, each string as likely as any other, a third along Z."""
    copies = 2**14
    axes, expected = make_tests(jax.random.key(parties), copies, parties, tests, bits)
    assert axes.shape == (copies, bits, parties, 3)
    assert expected.shape == (copies, bits)
    kinds = np.asarray(axes)
    np.testing.assert_array_equal(kinds.sum(-1), 1)
    assert set(np.unique(kinds)) <= {0, 1}
    _, y, z = np.moveaxis(kinds.astype(bool), -1, 0)
    # One kind for a whole copy.
    along_z = z.reshape(copies, -1).all(1)
    np.testing.assert_array_equal(along_z, z.reshape(copies, -1).any(1))
    assert_binomial(along_z.sum(), copies, {"z": 1, "mixed": 1 / 3, "xy": 0}[tests])
    ys = y.sum(-1)
    assert not np.any(ys % 2)
    np.testing.assert_array_equal(
        expected, np.where(along_z[:, None], 0, np.where(ys % 4 == 0, 1, -1))
    )
    if tests != "z":
        strings = y[~along_z].reshape(-1, parties) @ (1 << np.arange(parties))
        counts = np.bincount(strings, minlength=2**parties)
        even = [int(s).bit_count() % 2 == 0 for s in range(2**parties)]
        assert_binomial(counts[even], counts.sum(), 2.0 ** (1 - parties))
        # Of the states in one copy each has a string of its own.
        same = np.mean(np.all(y[~along_z][:, 0] == y[~along_z][:, -1], axis=-1))
        assert same == 1 if bits == 1 else same < 0.2
    outcomes = draw(jax.random.key(9), GHZSource(parties), axes)
    assert not np.any(judge(outcomes, expected))


def test_judging_is_by_equality_along_z_and_by_the_product_across():
    outcomes = jnp.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 1, 0]], jnp.uint8)
    np.testing.assert_array_equal(judge(outcomes, jnp.zeros(4)), [0, 0, 1, 1])
    np.testing.assert_array_equal(judge(outcomes, jnp.ones(4)), [0, 1, 1, 0])
    np.testing.assert_array_equal(judge(outcomes, -jnp.ones(4)), [1, 0, 0, 1])


# --- Failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("simulate", ["counts", "outcomes"])
@pytest.mark.parametrize(
    "tests, bits",
    [("mixed", 3), *(further(tests, bits) for tests in TESTS for bits in (1, 3))],
)
def test_failures_of_either_simulation_are_binomial(simulate, tests, bits):
    """4000 verifications of 50 tests: noise that X, Y and Z see differently."""
    kraus = [NOISE["pauli"], NOISE["damping"], [dense.I2]]
    source = GHZSource(3, noise=channel(*kraus), white=0.05)
    rho = dense.noisy_ghz(kraus, 0.05)
    along_z, across = (fails_in_the_dense_state(rho, kind) for kind in ("z", "xy"))
    z_share = {"z": 1, "mixed": 1 / 3, "xy": 0}[tests]
    prob = z_share * (1 - (1 - along_z) ** bits) + (1 - z_share) * (1 - (1 - across) ** bits)
    passed, failures, bad_kept = verified(
        bits, 4000, source, 10, 50, tests=tests, bits=bits, simulate=simulate, tolerance=0.3
    )
    assert_law(failures, stats.binom(50, prob))
    np.testing.assert_array_equal(passed, failures <= 15)
    assert not bad_kept.any()


@pytest.mark.statistics
@pytest.mark.parametrize("simulate", ["counts", "outcomes"])
def test_honest_states_pass_by_the_binomial_law(simulate):
    """20,000 verifications of 300 tests at an error rate of 0.01, of which 0.015 may fail."""
    source = GHZSource(2, white=0.02)  # Z outcomes differ with probability 0.02 / 2
    passed, _, _ = verified(1, 20_000, source, 300, 300, tolerance=0.015, simulate=simulate)
    assert_binomial(passed.sum(), 20_000, stats.binom.cdf(4, 300, 0.01))


@pytest.mark.statistics
def test_honest_states_pass_the_check_value():
    """2000 verifications of 10^4 tests: passes 0.999998921 of the time, and never fails here;
    that it is not for want of failures is seen by their mean."""
    source = GHZSource(2, white=0.02)
    passed, failures, _ = verified(2, 2000, source, 0, 10_000, tolerance=0.015)
    assert stats.binom.cdf(150, 10_000, 0.01) == pytest.approx(0.999998921, abs=1e-9)
    # One in 2000 does with probability 2e-3, two with 2e-6, three with 2e-9.
    assert np.sum(~passed) <= 2
    assert_binomial(failures.sum(), 2000 * 10_000, 0.01)
    assert_law(failures, stats.binom(10_000, 0.01))


@pytest.mark.statistics
def test_zero_tolerance_passes_a_power_of_what_is_right():
    """20,000 verifications of 100 tests."""
    passed, _, _ = verified(3, 20_000, GHZSource(2, white=0.02), 100, 100)
    assert_binomial(passed.sum(), 20_000, 0.99**100)


@pytest.mark.parametrize("simulate", ["counts", "outcomes"])
def test_perfect_states_never_fail_and_certain_errors_always_do(simulate):
    """Exact, of 20 runs: where the binomial has nothing to draw."""
    for source, failures in (
        (GHZSource(3, noise=channel(*[[dense.I2]] * 3)), 0),
        (seen_by_z(3), 40),
    ):
        passed, found, _ = verified(4, 20, source, 40, 40, simulate=simulate)
        np.testing.assert_array_equal(found, failures)
        np.testing.assert_array_equal(passed, failures == 0)


def test_tolerance_counts_whole_tests():
    """Exact: as many as are allowed may fail, and no more, however the product is rounded."""
    source = PlantedSource(GHZSource(2), seen_by_z(2), 29)
    for tolerance, passes in ((0.29, True), (0.2899, False)):
        passed, failures, _ = verified(0, 1, source, 0, 100, tolerance=tolerance)
        assert failures == 29
        assert passed == passes, tolerance


# --- Planted copies -------------------------------------------------------------------------------


def escape_probability(planted, kept, tested, tolerance=0.0):
    """That so few of the planted copies are tested as may fail."""
    law = stats.hypergeom(kept + tested, planted, tested)
    return law.cdf(np.floor(tolerance * tested))


def test_planted_copies_escape_by_a_product_of_shares():
    """The check values, which SciPy's hypergeometric has too."""
    for planted, value in ((1, 0.5), (2, 0.249875), (3, 0.124812)):
        i = np.arange(planted)
        assert np.prod((1000 - i) / (2000 - i)) == pytest.approx(value, abs=1e-6)
        assert escape_probability(planted, 1000, 1000) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    "planted, kept, tested, tolerance",
    [
        further(1, 1000, 1000, 0.0),
        (3, 1000, 1000, 0.0),
        further(2, 1000, 1000, 0.0),
        further(20, 100, 50, 0.1),
        further(150, 100, 50, 0.1),  # all of them
        further(5, 3, 12, 0.26),  # more than are kept
    ],
)
def test_planted_copies_escape_as_often_as_the_hypergeometric_says(
    planted, kept, tested, tolerance
):
    """20,000 verifications by Z tests, which every planted copy fails that is tested."""
    # Leaves of one structure, so that the honest states compile alike.
    honest = GHZSource(3, noise=channel(*[[dense.I2]] * 3))
    source = PlantedSource(honest, seen_by_z(3), planted)
    passed, failures, bad_kept = verified(
        planted, 20_000, source, kept, tested, tolerance=tolerance
    )
    np.testing.assert_array_equal(failures + bad_kept, planted)
    np.testing.assert_array_equal(passed, failures <= np.floor(tolerance * tested))
    assert_law(failures, stats.hypergeom(kept + tested, planted, tested))
    assert_binomial(passed.sum(), 20_000, escape_probability(planted, kept, tested, tolerance))


@pytest.mark.statistics
@pytest.mark.parametrize("simulate", ["counts", "outcomes"])
def test_noise_and_planted_copies_fail_together(simulate):
    """4000 verifications of 20 out of 40 copies, 10 of them planted; the failures are a mixture
    over how many of these are tested of the sums of two binomials."""
    honest, bad = GHZSource(3, white=0.2), plus_states(3)
    _, failures, bad_kept = verified(
        5, 4000, PlantedSource(honest, bad, 10), 20, 20, simulate=simulate
    )
    law = np.zeros(21)
    for tested, weight in enumerate(stats.hypergeom(40, 10, 20).pmf(np.arange(11))):
        good = stats.binom(20 - tested, 0.2 * 0.75).pmf(np.arange(21))
        law += weight * np.convolve(good, stats.binom(tested, 0.75).pmf(np.arange(21)))[:21]
    assert_law(failures, stats.rv_discrete(values=(np.arange(21), law / law.sum())))
    assert_law(bad_kept, stats.hypergeom(40, 10, 20))


@pytest.mark.parametrize("simulate", ["counts", "outcomes"])
def test_a_source_that_plants_nothing_is_honest(simulate):
    source = PlantedSource(GHZSource(2), plus_states(2), 0)
    passed, failures, bad_kept = verified(0, 5, source, 5, 5, simulate=simulate)
    assert passed.all()
    assert not failures.any()
    assert not bad_kept.any()


# --- Who announces last ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plus states", further("white noise")])
def test_who_sees_the_others_first_passes_every_xy_test_and_no_other(name):
    """2^12 tests of four parties, the last of which lies. That outcomes must be committed."""
    copies, parties = 2**12, 4
    source = plus_states(parties) if name == "plus states" else GHZSource(parties, white=1.0)
    for tests in ("xy", "z"):
        axes, expected = make_tests(jax.random.key(1), copies, parties, tests, 1)
        outcomes = np.array(draw(jax.random.key(2), source, axes))
        others = outcomes[..., :-1].sum(-1, dtype=int)
        blind = np.array(outcomes)
        blind[..., -1] = np.random.default_rng(0).integers(0, 2, blind.shape[:-1])
        if tests == "xy":
            # What makes the product right, whatever it was measured to be.
            outcomes[..., -1] = (others + (np.asarray(expected) == -1)) % 2
            assert not np.any(judge(outcomes, expected))
            assert_binomial(np.sum(judge(blind, expected)), copies, 0.5)
        else:
            # The best is what most of the others say; they still differ among themselves.
            outcomes[..., -1] = others >= 2
            assert_binomial(np.sum(judge(outcomes, expected)), copies, 1 - 2.0 ** (2 - parties))


# --- Keys and mappings ----------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("simulate", ["counts", "outcomes"])
def test_key_decides_all_however_it_is_called(simulate):
    source = PlantedSource(GHZSource(3, white=0.2), plus_states(3), 10)
    mapped = verified(6, 8, source, 20, 20, simulate=simulate)
    alone = jax.jit(lambda key: verify(key, source, 20, 20, simulate=simulate))
    for i, key in enumerate(jax.random.split(jax.random.key(6), 8)[:2]):
        done = alone(key)
        found = (done.passed, done.failures, done.bad_kept)
        np.testing.assert_array_equal(found, [each[i] for each in mapped])
    assert len(set(mapped[1])) > 1


# --- Refusals -------------------------------------------------------------------------------------

KEY, SOURCE = jax.random.key(0), GHZSource(3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: verify(0, SOURCE, 4, 4), TypeError, "`key` must be a typed key"),
        (lambda: verify(jax.random.split(KEY), SOURCE, 4, 4), ValueError,
         "`key` must be a single key"),
        (lambda: verify(KEY, 3, 4, 4), TypeError, "`source` must be a GHZSource, but got 3"),
        *(
            (lambda kept=kept: verify(KEY, SOURCE, kept, 4), ValueError,
             "`num_kept` must be an integer of at least 0")
            for kept in (-1, 1.0, True)
        ),
        *(
            (lambda tested=tested: verify(KEY, SOURCE, 4, tested), ValueError,
             rf"`num_tested` must be an integer of at least 1, but got {tested}\.")
            for tested in (0, 2.0, True)
        ),
        *(
            (lambda bits=bits: verify(KEY, SOURCE, 4, 4, bits=bits), ValueError,
             "`bits` must be an integer of at least 1")
            for bits in (0, 1.0, True)
        ),
        (lambda: verify(KEY, SOURCE, 4, 4, tests="x"), ValueError,
         "`tests` must be one of 'z', 'mixed', 'xy', but got 'x'"),
        (lambda: verify(KEY, SOURCE, 4, 4, simulate="fast"), ValueError,
         "`simulate` must be one of 'counts', 'outcomes', but got 'fast'"),
        *(
            (lambda tolerance=tolerance: verify(KEY, SOURCE, 4, 4, tolerance=tolerance), ValueError,
             r"`tolerance` must lie in \[0, 0\.5\)")
            for tolerance in (-0.1, 0.5, 1.0, np.nan)
        ),
        (lambda: verify(KEY, PlantedSource(SOURCE, plus_states(3), 9), 4, 4), ValueError,
         "`source` must hide at most the 8 copies there are, but got 9"),
        (lambda: failure_probability(SOURCE, "x"), ValueError,
         "`tests` must be one of 'z', 'mixed', 'xy', but got 'x'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()
