"""SimHash and random signs against planes and signs that are drawn, and where GapIP wins.

Statistical tests have fixed keys and state their sample size. Each comparison is at 5 standard
deviations, and fails by chance with probability 6e-7 at most.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refused import check_refusal
from scipy import stats

from jaxqring.audit._gap_ip import decision_error, plan_gap_ip
from jaxqring.audit._rivals import (
    crossover,
    crossover_gap,
    random_sign_bits,
    random_sign_variance,
    simhash,
    simhash_agreement,
    simhash_bits,
)

MILLION = 10**6
SIGMAS = 5


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def unit_pair(rng, inner_product, size):
    a, b = rng.normal(size=(2, size))
    a /= np.linalg.norm(a)
    b -= (a @ b) * a
    b /= np.linalg.norm(b)
    return a, inner_product * a + math.sqrt(1 - inner_product**2) * b


# --- SimHash --------------------------------------------------------------------------------------


def test_check_values_of_simhash(x64):
    assert float(simhash_agreement(0.1)) == pytest.approx(0.531884, abs=5e-7)
    assert float(simhash_agreement(-0.1)) == pytest.approx(0.468116, abs=5e-7)
    assert np.allclose(simhash_agreement(np.array([-1.0, 0, 1])), [0, 0.5, 1])
    for tau, error, bits in ((0.1, 0.09863, 409), (0.05, 0.09140, 1749), (0.02, 0.04819, 17049)):
        assert simhash_bits(tau, error) == bits
        largest = max(float(decision_error(g, tau, MILLION)) for g in (tau, -tau))
        assert simhash_bits(tau, largest) == bits


@pytest.mark.statistics
@pytest.mark.parametrize("inner_product", [-0.5, 0.1, 0.8])
def test_planes_agree_as_often_as_they_should(inner_product):
    """400,000 random planes."""
    rng = np.random.default_rng(0)
    a, b = unit_pair(rng, inner_product, 8)
    planes = rng.normal(size=(400_000, 8))
    found = np.mean((planes @ a > 0) == (planes @ b > 0))
    chance = float(simhash_agreement(inner_product))
    spread = math.sqrt(chance * (1 - chance) / len(planes))
    assert found == pytest.approx(chance, abs=SIGMAS * spread + 1e-6)


@pytest.mark.statistics
@pytest.mark.parametrize("inner_product", [0.1, pytest.param(-0.1, marks=pytest.mark.matrix)])
@pytest.mark.parametrize("bits", [1, 409])
def test_simhash_decides_as_often_as_it_should(inner_product, bits):
    """20,000 runs, against the binomial law and, for one plane, against what planes do."""
    keys = jax.random.split(jax.random.key(1), 20_000)
    found = np.mean(jax.vmap(lambda key: simhash(key, inner_product, bits))(keys))
    agree = 1 - math.acos(inner_product) / math.pi
    chance = stats.binom.sf(bits // 2, bits, agree)
    assert found == pytest.approx(chance, abs=SIGMAS * math.sqrt(chance * (1 - chance) / 20_000))


@pytest.mark.parametrize("tau, error", [(0.5, 0.3), (0.3, 0.01), (0.1, 0.09863), (0.1, 0.2)])
def test_simhash_takes_the_fewest_bits(tau, error):
    odd = np.arange(1, 6001, 2)
    wrong = stats.binom.cdf(odd // 2, odd, 1 - math.acos(tau) / math.pi)
    assert simhash_bits(tau, error) == odd[wrong <= error][0]


def test_simhash_bits_grow_with_the_inverse_square_of_the_gap():
    gaps = [0.2 / 2**k for k in range(6)]
    slope = np.polyfit(np.log(gaps), np.log([simhash_bits(tau, 0.05) for tau in gaps]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.1)


# --- Random signs ---------------------------------------------------------------------------------


@pytest.mark.statistics
@pytest.mark.parametrize("inner_product, size", [(0.3, 3), (-0.7, 5), (0.0, 8)])
def test_variance_of_random_signs(inner_product, size):
    """200,000 estimates of two rows each, the spread of their variance from the fourth moment."""
    rng = np.random.default_rng(2)
    a, b = unit_pair(rng, inner_product, size)
    signs = rng.choice([-1.0, 1.0], size=(200_000, 2, size))
    estimates = np.mean((signs @ a) * (signs @ b), axis=1)
    squares = (estimates - inner_product) ** 2
    spread = np.std(squares) / math.sqrt(len(squares))
    expected = float(random_sign_variance(a, b, 2))
    assert np.mean(squares) == pytest.approx(expected, abs=SIGMAS * spread)
    assert np.mean(estimates) == pytest.approx(
        inner_product, abs=SIGMAS * math.sqrt(expected / len(squares))
    )


def test_variance_of_one_entry_is_zero():
    assert float(random_sign_variance(jnp.array([1.0, 0]), jnp.array([1.0, 0]), 7)) == 0


@pytest.mark.parametrize("tau, error", [(0.1, 0.09863), (0.02, 0.04819)])
def test_bits_of_random_signs_counted_again(tau, error):
    def wrong(rows):
        return stats.norm.cdf(-tau / math.sqrt((1 + tau**2) / rows))

    for width in (16, 32):
        rows, left = divmod(random_sign_bits(tau, error, width), width)
        assert left == 0
        assert wrong(rows) <= error < wrong(rows - 1)


@pytest.mark.statistics
def test_bits_of_random_signs_keep_their_error():
    """20,000 decisions of spread-out gradients of 256 entries, within a tenth of the error."""
    tau, error = 0.3, 0.1
    rows = random_sign_bits(tau, error) // 16
    rng = np.random.default_rng(3)
    a = rng.choice([-1.0, 1.0], size=256) / 16
    b = rng.choice([-1.0, 1.0], size=256) / 16
    b -= (a @ b) * a
    b = tau * a + math.sqrt(1 - tau**2) * b / np.linalg.norm(b)
    found = np.empty(20_000)
    for block in np.split(np.arange(20_000), 20):
        signs = rng.choice(np.array([-1, 1], np.float32), size=(len(block) * rows, 256))
        products = (signs @ a.astype(np.float32)) * (signs @ b.astype(np.float32))
        found[block] = products.reshape(len(block), rows).mean(axis=1)
    # 5 standard deviations are 0.011; products of normals are not normal in so few rows.
    assert np.mean(found <= 0) == pytest.approx(error, abs=0.025)


# --- Who wins -------------------------------------------------------------------------------------


def test_crossover_is_made_of_its_parts(x64):
    for tau in (0.1, 0.01):
        found = crossover(tau, MILLION)
        error = max(float(decision_error(g, tau, MILLION)) for g in (tau, -tau))
        assert found.error == pytest.approx(error, rel=1e-12)
        assert found.qubits == plan_gap_ip(tau, MILLION).qubits
        assert found.simhash_bits == simhash_bits(tau, error)
        assert found.random_sign_bits == random_sign_bits(tau, error, 16)
        assert found.full_bits == 16 * MILLION
        rivals = (found.simhash_bits, found.random_sign_bits, found.full_bits)
        assert found.quantum_wins == (found.qubits < min(rivals))


def test_quantum_wins_at_small_gaps_only(x64):
    assert crossover(0.017, MILLION).quantum_wins
    assert not crossover(0.02, MILLION).quantum_wins
    assert not crossover(0.1, MILLION).quantum_wins


def test_full_gradient_is_a_rival(x64):
    found = crossover(0.01, 100)
    assert found.qubits < found.simhash_bits
    assert not found.quantum_wins
    assert crossover(0.01, 100, width=10**4).full_bits == MILLION


@pytest.mark.matrix
def test_noise_takes_the_win_away(x64):
    """Sixteen thousand hops: one in a thousand lost leaves nothing but guesses."""
    assert crossover(0.01, MILLION, hop_noise=1e-6).quantum_wins
    found = crossover(0.01, MILLION, hop_noise=1e-2)
    assert not found.quantum_wins
    assert found.error > crossover(0.01, MILLION).error


@pytest.mark.matrix
def test_gap_at_which_quantum_wins(x64):
    found = crossover_gap(MILLION)
    assert 0.017 < found < 0.02
    assert math.isnan(crossover_gap(MILLION, hop_noise=0.1))


# --- Refusals -------------------------------------------------------------------------------------

KEY = jax.random.key(0)

# name: (call, exception, words of the message)
REFUSALS = {
    "error of zero": (lambda: simhash_bits(0.1, 0.0), ValueError, ["`error`", "(0, 0.5)"]),
    "error of a half": (lambda: simhash_bits(0.1, 0.5), ValueError, ["`error`", "(0, 0.5)", "0.5"]),
    "error above one": (lambda: random_sign_bits(0.1, 1.5), ValueError, ["`error`", "1.5"]),
    "negative error": (lambda: random_sign_bits(0.1, -0.1), ValueError, ["`error`", "-0.1"]),
    "no gap": (lambda: simhash_bits(0.0, 0.1), ValueError, ["`tau`", "(0, 1)"]),
    "whole gap": (lambda: random_sign_bits(1.0, 0.1), ValueError, ["`tau`", "(0, 1)"]),
    "gap of a crossover": (lambda: crossover(-0.1, 10), ValueError, ["`tau`", "-0.1"]),
    "size of a crossover": (
        lambda: crossover(0.1, 0),
        ValueError,
        ["`size`", "at least 1"],
    ),
    "inner product": (lambda: simhash_agreement(1.5), ValueError, ["`inner_product`", "1.5"]),
    "even bits": (lambda: simhash(KEY, 0.1, 2), ValueError, ["`bits`", "be odd", "2"]),
    "no bits": (
        lambda: simhash(KEY, 0.1, -1),
        ValueError,
        ["`bits`", "at least 1", "-1"],
    ),
    "raw key": (
        lambda: simhash(np.zeros(2, np.uint32), 0.1, 3),
        TypeError,
        ["`key`", "typed key"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name):
    check_refusal(*REFUSALS[name])
