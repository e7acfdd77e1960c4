"""EPR pairs against density matrices written out in `dense`. Exact, nothing statistical."""

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq

PROBS = np.array([0.7, 0.1, 0.15, 0.05])
ARBITRARY = dense.random_state(np.random.default_rng(0))

#: name: (pair of the package, density matrix of the reference)
PAIRS = {
    "perfect": (lambda: jq.werner(fidelity=1.0), dense.werner_state(1.0)),
    "werner": (lambda: jq.werner(fidelity=0.83), dense.werner_state(0.83)),
    "werner weight": (lambda: jq.werner(weight=0.6), dense.werner_state(0.7)),
    "white noise": (lambda: jq.werner(weight=0.0), np.eye(4) / 4),
    "bell diagonal": (lambda: jq.bell_diagonal(PROBS), dense.bell_diagonal_state(PROBS)),
    "arbitrary": (lambda: jq.from_density_matrix(ARBITRARY), ARBITRARY),
    "product": (
        lambda: jq.from_density_matrix(np.diag([0, 1.0, 0, 0])),
        np.diag([0, 1.0, 0, 0]).astype(complex),
    ),
}
TOLERANCE = {False: 1e-6, True: 1e-14}

every_pair = pytest.mark.parametrize("name", PAIRS)
both_precisions = pytest.mark.parametrize("x64_on", [False, True])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@every_pair
@both_precisions
def test_density_matrix_is_that_of_the_reference_and_leads_back(name, x64_on):
    make, rho = PAIRS[name]
    with jax.enable_x64(x64_on):
        pair = make()
        found = pair.density_matrix()
        assert found.dtype == (jnp.complex128 if x64_on else jnp.complex64)
        np.testing.assert_allclose(found, rho, atol=TOLERANCE[x64_on])
        back = jq.from_density_matrix(found)
        np.testing.assert_allclose(back.correlation, pair.correlation, atol=TOLERANCE[x64_on])


@every_pair
@both_precisions
def test_fidelity_and_bell_probabilities_are_overlaps_with_the_bell_states(name, x64_on):
    make, rho = PAIRS[name]
    expected = [(bell.conj() @ rho @ bell).real for bell in dense.BELL]
    with jax.enable_x64(x64_on):
        pair = make()
        np.testing.assert_allclose(pair.bell_probs, expected, atol=TOLERANCE[x64_on])
        np.testing.assert_allclose(pair.fidelity, expected[0], atol=TOLERANCE[x64_on])
        assert pair.fidelity.shape == ()


@every_pair
def test_correlation_is_the_trace_with_pairs_of_paulis(name, x64):
    make, rho = PAIRS[name]
    expected = [[np.trace(rho @ np.kron(s, t)).real for t in dense.PAULIS] for s in dense.PAULIS]
    np.testing.assert_allclose(make().correlation, expected, atol=1e-14)


@every_pair
def test_apply_acts_on_the_half_that_it_names(name, x64):
    make, rho = PAIRS[name]
    rng = np.random.default_rng(1)
    sent, kept = dense.random_kraus(rng, 2), dense.random_kraus(rng, 3)
    on_sent, on_kept = jq.from_kraus(np.array(sent)), jq.from_kraus(np.array(kept))
    pair = make()
    only_sent = pair.apply(sent=on_sent).density_matrix()
    np.testing.assert_allclose(only_sent, dense.act(dense.on_sent(sent), rho), atol=1e-14)
    only_kept = pair.apply(kept=on_kept).density_matrix()
    np.testing.assert_allclose(only_kept, dense.act(dense.on_kept(kept), rho), atol=1e-14)
    both = pair.apply(sent=on_sent, kept=on_kept).density_matrix()
    expected = dense.act(dense.on_kept(kept), dense.act(dense.on_sent(sent), rho))
    np.testing.assert_allclose(both, expected, atol=1e-14)
    np.testing.assert_array_equal(pair.apply().correlation, pair.correlation)


def test_fidelity_is_the_squared_one_and_a_fixed_point_of_the_constructor(x64):
    fidelity = np.linspace(0.25, 1, 7)
    np.testing.assert_allclose(jq.werner(fidelity=fidelity).fidelity, fidelity, atol=1e-15)
    weight = np.linspace(0, 1, 7)
    np.testing.assert_allclose(
        jq.werner(weight=weight).fidelity, (1 + 3 * weight) / 4, atol=1e-15
    )  # fmt: skip


def test_depolarizing_both_halves_multiplies_the_weight(x64):
    noise = jq.depolarizing(mix=0.1)
    pair = jq.werner(weight=0.8).apply(sent=noise, kept=noise)
    np.testing.assert_allclose(
        pair.correlation, jq.werner(weight=0.8 * 0.81).correlation, atol=1e-15
    )


def test_numbers_and_channels_broadcast_to_a_batch_of_pairs(x64):
    fidelity, gamma = np.array([[0.7], [0.95]]), np.array([0.0, 0.2, 0.5])
    pair = jq.werner(fidelity=fidelity).apply(kept=jq.amplitude_damping(gamma=gamma))
    assert pair.correlation.shape == (2, 3, 4, 4)
    assert pair.fidelity.shape == (2, 3)
    assert pair.bell_probs.shape == (2, 3, 4)
    found = pair.density_matrix()
    for i, j in np.ndindex(2, 3):
        kraus = dense.on_kept(dense.damping_kraus(gamma[j]))
        expected = dense.act(kraus, dense.werner_state(fidelity[i, 0]))
        np.testing.assert_allclose(found[i, j], expected, atol=1e-14)
    states = np.stack([dense.random_state(np.random.default_rng(s)) for s in range(6)])
    batch = jq.from_density_matrix(states.reshape(2, 3, 4, 4))
    np.testing.assert_allclose(
        batch.density_matrix().reshape(6, 4, 4), states, atol=1e-14
    )  # fmt: skip
    weights = np.random.default_rng(2).dirichlet(np.ones(4), size=(2, 3))
    np.testing.assert_allclose(jq.bell_diagonal(weights).bell_probs, weights, atol=1e-14)


def test_jit_and_vmap_give_the_eager_pair():
    fidelity = np.array([0.5, 0.8, 1.0], np.float32)
    mapped = jax.jit(jax.vmap(lambda f: jq.werner(fidelity=f)))(fidelity)
    np.testing.assert_allclose(
        mapped.correlation, jq.werner(fidelity=fidelity).correlation, atol=1e-6
    )
    probs = np.random.default_rng(3).dirichlet(np.ones(4), size=5)
    mapped = jax.jit(jax.vmap(jq.bell_diagonal))(probs)
    np.testing.assert_allclose(mapped.bell_probs, probs, atol=1e-6)
    np.testing.assert_array_equal(mapped.clipped, np.zeros(5))


def test_traced_fidelities_out_of_domain_are_clipped_and_flagged_and_never_nan():
    make = jax.jit(lambda f: jq.werner(fidelity=f))
    for outside, edge in ((1.2, 1.0), (0.1, 0.25), (np.nan, 0.25), (np.inf, 1.0)):
        pair = make(outside)
        np.testing.assert_allclose(pair.fidelity, edge, atol=1e-6)
        assert float(pair.clipped) == 1
        applied = pair.apply(sent=jq.dephasing(error_prob=0.1), kept=jq.channels.identity())
        assert float(applied.clipped) == 1
    assert float(make(0.9).clipped) == 0


@pytest.mark.parametrize(
    "probs, expected, clipped",
    [
        ([0.5, 0.2, 0.2, 0.1], [0.5, 0.2, 0.2, 0.1], 0),
        ([-0.2, 0.5, 0.25, 0.25], [0, 0.5, 0.25, 0.25], 1),
        ([1.0, 1.0, 1.0, 1.0], [0.25, 0.25, 0.25, 0.25], 1),
        ([2.0, -1.0, 0.0, 0.0], [1, 0, 0, 0], 2),
        ([0.8, 0.2, np.nan, 0.0], [0.8, 0.2, 0, 0], 1),
    ],
)
def test_traced_bell_probabilities_are_clipped_rescaled_and_flagged(probs, expected, clipped):
    pair = jax.jit(jq.bell_diagonal)(jnp.array(probs))
    np.testing.assert_allclose(pair.bell_probs, expected, atol=1e-6)
    assert float(pair.clipped) == clipped


def test_traced_bell_probabilities_that_are_all_zero_make_a_state_and_no_nan():
    pair = jax.jit(jq.bell_diagonal)(jnp.zeros(4))
    assert float(pair.clipped) >= 1
    rho = np.asarray(pair.density_matrix())
    assert np.all(np.isfinite(rho))
    assert np.trace(rho).real == pytest.approx(1.0, abs=1e-6)
    assert np.linalg.eigvalsh(rho).min() > -1e-6


@pytest.mark.parametrize("mode", ["jacfwd", "jacrev"])
def test_derivative_of_the_fidelity_is_full_at_both_ends(mode):
    jacobian = getattr(jax, mode)
    for at in (0.25, 0.6, 1.0):
        slope = jax.jit(jacobian(lambda f: jq.werner(fidelity=f).bell_probs))(at)
        np.testing.assert_allclose(slope, [1, -1 / 3, -1 / 3, -1 / 3], atol=1e-6)
    for at in (0.0, 1.0):
        slope = jax.jit(jacobian(lambda w: jq.werner(weight=w).fidelity))(at)
        np.testing.assert_allclose(slope, 0.75, atol=1e-6)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: jq.werner(fidelity=1.2), ValueError,
         "`fidelity` must lie in [0.25, 1], but got 1.2."),
        (lambda: jq.werner(fidelity=0.2), ValueError, "`fidelity` must lie in [0.25, 1]"),
        (lambda: jq.werner(weight=-0.1), ValueError, "`weight` must lie in [0, 1], but got -0.1."),
        (lambda: jq.werner(), ValueError, "but got neither"),
        (lambda: jq.werner(weight=0.5, fidelity=0.5), ValueError, "but got both"),
        (lambda: jq.werner(fidelity="good"), TypeError, "`fidelity` must be a real number"),
        (lambda: jq.bell_diagonal([0.5, 0.5]), ValueError, "`probs` must have a last axis"),
        (lambda: jq.bell_diagonal([0.5, 0.4, 0.0, 0.0]), ValueError, "`probs` must sum to one"),
        (lambda: jq.bell_diagonal([1.5, -0.5, 0.0, 0.0]), ValueError, "`probs` must lie in"),
        (lambda: jq.from_density_matrix(np.eye(2)), ValueError, "`rho` must have the shape"),
        (lambda: jq.from_density_matrix(np.eye(4)), ValueError, "`rho` must have trace one"),
        (lambda: jq.from_density_matrix(np.diag([1.5, -0.5, 0, 0])), ValueError,
         "`rho` must have no negative eigenvalue"),
        (lambda: jq.from_density_matrix(np.eye(4) / 4 + np.eye(4, k=1)), ValueError,
         "`rho` must be Hermitian"),
        (lambda: jq.werner(fidelity=0.9).apply(sent=np.eye(4)), TypeError,
         "`sent` must be a Channel"),
        (lambda: jq.werner(fidelity=0.9).apply(kept=1.0), TypeError, "`kept` must be a Channel"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_traced_probabilities_that_do_not_sum_to_one_are_counted():
    clipped = jax.jit(lambda probs: jq.bell_diagonal(probs).clipped)
    for total, flagged in ((1.0, 0), (1 + 1e-6, 0), (1.01, 1), (0.999, 1), (0.0, 1)):
        probs = total * np.array([0.7, 0.1, 0.1, 0.1], np.float32)
        assert float(clipped(probs)) == flagged
