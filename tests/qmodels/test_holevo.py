"""Holevo quantities against dense density matrices with the copies written out by kron."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from refused import check_refusal

from jaxqring.qmodels import amplitudes, holevo, leakage, symmetric_bound


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def entropy(rho):
    values = scipy.linalg.eigvalsh(rho)
    values = values[values > 1e-15]
    return float(-np.sum(values * np.log2(values)))


def chi_by_matrices(matrices, probs, copies=1):
    """S(mean) - mean of S, each state tensored with itself."""
    large = [functools.reduce(np.kron, [rho] * copies) for rho in matrices]
    mean = sum(p * rho for p, rho in zip(probs, large, strict=True))
    return entropy(mean) - sum(p * entropy(rho) for p, rho in zip(probs, large, strict=True))


def projectors(kets):
    return [np.outer(ket, ket.conj()) for ket in np.asarray(kets)]


def random_kets(count, size, seed=0):
    rng = np.random.default_rng(seed)
    kets = rng.normal(size=(count, size)) + 1j * rng.normal(size=(count, size))
    return kets / np.linalg.norm(kets, axis=1, keepdims=True)


def shifts():
    """The four cyclic shifts by 0 to 3 of (1, ..., 8), normalised."""
    x = np.arange(1, 9) / np.linalg.norm(np.arange(1, 9))
    return np.stack([np.roll(x, k) for k in range(4)])


UNIFORM = np.full(4, 0.25)


# --- The quantity ---------------------------------------------------------------------------------


def test_check_values_of_chi(x64):
    kets = shifts()
    found = [float(holevo(kets, copies=copies)) for copies in (1, 2)]
    assert found == pytest.approx([0.803110556, 1.198095450], abs=1e-9)
    expected = [chi_by_matrices(projectors(kets), UNIFORM, copies) for copies in (1, 2)]
    assert found == pytest.approx(expected, abs=1e-10)


def test_a_depolarising_hop_leaves_less(x64):
    noisy = 0.9 * np.stack(projectors(shifts())) + 0.1 * np.eye(8) / 8
    found = float(holevo(noisy))
    assert found == pytest.approx(0.602601389, abs=1e-9)
    assert found == pytest.approx(chi_by_matrices(noisy, UNIFORM), abs=1e-10)


# More states than dimensions, and fewer: two ways to compute one number.
@pytest.mark.parametrize("count, size, copies", [(3, 4, 1), (3, 4, 3), (7, 4, 1), (7, 4, 2)])
def test_complex_states_with_unequal_probabilities(x64, count, size, copies):
    kets = random_kets(count, size)
    probs = np.random.default_rng(1).dirichlet(np.ones(count))
    probs = np.append(probs[:-2], [0.0, probs[-2:].sum()])  # one that is never sent
    expected = chi_by_matrices(projectors(kets), probs, copies)
    assert float(holevo(kets, probs, copies)) == pytest.approx(expected, abs=1e-9)
    if copies == 1:
        matrices = np.stack(projectors(kets))
        assert float(holevo(matrices, probs)) == pytest.approx(expected, abs=1e-9)


def test_mixed_states(x64):
    matrices = np.stack([rho / 2 + np.eye(4) / 8 for rho in projectors(random_kets(5, 4))])
    probs = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    assert float(holevo(matrices, probs)) == pytest.approx(chi_by_matrices(matrices, probs))


def test_single_precision_is_near():
    found = [float(holevo(shifts(), copies=copies)) for copies in (1, 2)]
    assert found == pytest.approx([0.803110556, 1.198095450], abs=1e-5)


def test_many_copies_tell_which_state_it_was(x64):
    kets = random_kets(6, 4)
    values = [float(holevo(kets, copies=copies)) for copies in (1, 2, 8, 64, 512)]
    assert all(np.diff(values) > -1e-12)
    assert values[-1] == pytest.approx(math.log2(6))
    bounds = [symmetric_bound(4, copies) for copies in (1, 2, 8, 64, 512)]
    assert all(value <= bound + 1e-9 for value, bound in zip(values, bounds, strict=True))


def test_derivatives_are_finite_and_right(x64):
    """chi of two states at an angle t, of eigenvalues (1 +- cos t) / 2, and of equal states."""

    def chi(t, copies=1):
        kets = jnp.stack([jnp.array([1.0, 0.0]), jnp.stack([jnp.cos(t), jnp.sin(t)])])
        return holevo(kets, copies=copies)

    def exact(t, copies=1):
        values = np.array([1 + np.cos(t) ** copies, 1 - np.cos(t) ** copies]) / 2
        return -np.sum(values * np.log2(values))

    step = 1e-6
    for copies in (1, 3):
        expected = (exact(0.8 + step, copies) - exact(0.8 - step, copies)) / (2 * step)
        slope = jax.grad(lambda t, k=copies: chi(t, k))(0.8)
        assert float(slope) == pytest.approx(expected, abs=1e-8)
    assert np.isfinite(jax.grad(chi)(0.0))
    by_probs = jax.grad(lambda p: holevo(jnp.eye(2), jnp.stack([1 - p, p])))
    assert np.isfinite(by_probs(0.0))
    assert float(by_probs(0.25)) == pytest.approx(math.log2(3))


def test_maps_of_jax_give_the_same():
    batch = jnp.asarray(np.stack([random_kets(3, 4, seed) for seed in range(2)]), jnp.complex64)
    mapped = jax.jit(jax.vmap(lambda kets: holevo(kets, copies=2)))(batch)
    single = [holevo(kets, copies=2) for kets in batch]
    np.testing.assert_allclose(mapped, single, atol=1e-5)


# --- The symmetric subspace -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, copies, bits", [(8, 10, 14.247334), (64, 100, 152.924110), (1024, 738, 1721.883616)]
)
def test_check_values_of_the_symmetric_bound(size, copies, bits):
    assert symmetric_bound(size, copies) == pytest.approx(bits, abs=5e-7)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 2**20, 2**40])
@pytest.mark.parametrize("copies", [1, 2, 100, 10_000])
def test_the_symmetric_bound_against_whole_numbers(size, copies):
    expected = math.log2(math.comb(size + copies - 1, copies))
    assert symmetric_bound(size, copies) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_the_symmetric_bound_is_the_rank_of_what_copies_span():
    # Generic states, more than the dimension: the copies of all of them span C(N + K - 1, K).
    for size, copies in ((2, 3), (3, 2), (4, 3)):
        dimension = math.comb(size + copies - 1, copies)
        large = [functools.reduce(np.kron, [ket] * copies) for ket in random_kets(40, size)]
        assert np.linalg.matrix_rank(np.stack(large)) == dimension
        assert 2 ** symmetric_bound(size, copies) == pytest.approx(dimension)


# --- Leakage --------------------------------------------------------------------------------------


def test_leakage_of_images_is_made_of_its_parts(x64):
    images = np.random.default_rng(2).uniform(size=(12, 6)) ** 3
    states = amplitudes(images)
    found = leakage(states, 3, bits=8)
    assert found.chi == pytest.approx(float(holevo(states, copies=3)))
    assert found.symmetric == pytest.approx(math.log2(math.comb(8 + 3 - 1, 3)))
    assert (found.register, found.message) == (3 * 3, 8 * 8)
    assert found.entropy == pytest.approx(math.log2(12))
    assert found.chi < min(found.symmetric, found.register, found.message, found.entropy)


def test_leakage_with_probabilities(x64):
    found = leakage(np.eye(4), probs=[0.5, 0.25, 0.25, 0.0])
    assert found.chi == pytest.approx(1.5)
    assert found.entropy == pytest.approx(1.5)


def test_leakage_of_real_digits():
    """The handwritten digits of scikit-learn as states of six qubits."""
    datasets = pytest.importorskip("sklearn.datasets", reason="brings the digits; of the extras")
    digits = datasets.load_digits()
    for classes, chi in (([3, 8], 1.626), (range(10), 2.226)):
        images = digits.data[np.isin(digits.target, list(classes))]
        unit = images / np.linalg.norm(images, axis=1, keepdims=True)
        expected = entropy(unit.T @ unit / len(unit))
        assert expected == pytest.approx(chi, abs=5e-4)
        assert leakage(amplitudes(images)).chi == pytest.approx(expected, abs=1e-4)


# --- Refusals -------------------------------------------------------------------------------------

# name: (call, exception, words of the message)
REFUSALS = {
    "one vector": (lambda: holevo(np.ones(4) / 2), ValueError, ["`states`", "(count, d)", "(4,)"]),
    "not square": (lambda: holevo(np.ones((2, 2, 3))), ValueError, ["`states`", "(2, 2, 3)"]),
    "norm": (lambda: holevo(2 * np.eye(2)), ValueError, ["`states`", "norm one"]),
    "trace": (lambda: holevo(np.eye(2)[None]), ValueError, ["`states`", "trace one"]),
    "no copies": (lambda: holevo(np.eye(2), copies=0), ValueError, ["`copies`", "at least 1"]),
    "copies of matrices": (
        lambda: holevo(np.eye(2)[None] / 2, copies=2),
        ValueError,
        ["`copies`", "be 1", "2"],
    ),
    "length of probs": (lambda: holevo(np.eye(2), [1.0]), ValueError, ["`probs`", "(2,)"]),
    "sum of probs": (lambda: holevo(np.eye(2), [0.5, 0.4]), ValueError, ["`probs`", "sum to one"]),
    "negative probs": (lambda: holevo(np.eye(2), [1.5, -0.5]), ValueError, ["`probs`", "[0, 1]"]),
    "text as probs": (lambda: holevo(np.eye(2), ["a", "b"]), TypeError, ["`probs`"]),
    "dimension": (lambda: symmetric_bound(0, 1), ValueError, ["`dimension`", "0"]),
    "copies": (lambda: symmetric_bound(2, 1.5), ValueError, ["`copies`", "1.5"]),
    "three levels": (lambda: leakage(np.eye(3)), ValueError, ["`states`", "2^n", "(3, 3)"]),
    "matrices": (lambda: leakage(np.eye(2)[None] / 2), ValueError, ["`states`", "2^n"]),
    "bits": (lambda: leakage(np.eye(2), bits=0), ValueError, ["`bits`", "0"]),
    "traced": (
        lambda: jax.jit(lambda s: leakage(s).chi)(jnp.eye(2)),
        TypeError,
        ["`states`", "concrete"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name):
    check_refusal(*REFUSALS[name])
