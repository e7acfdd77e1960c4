import functools
import itertools
import threading
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxqring.capacity import _closed_forms as capacity
from jaxqring.capacity import _limits as limits
from jaxqring.physics import information
from jaxqring.physics._paulis import PAULIS
from jaxqring.physics.channels import amplitude_damping, dephasing, thermal_relaxation
from jaxqring.physics.pairs import bell_diagonal, from_density_matrix, werner

XOR = np.arange(4)[:, None] ^ np.arange(4)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- Dense numpy calculations that share no code with the library ---------------------------------


def dense_entropy(rho):
    spectrum = np.linalg.eigvalsh(rho)
    return -np.sum(spectrum * np.log2(np.where(spectrum > 1e-300, spectrum, 1.0)), axis=-1)


def dense_shannon(probs):
    probs = np.asarray(probs, dtype=float)
    return -np.sum(probs * np.log2(np.where(probs > 0, probs, 1.0)), axis=-1)


def bloch_state(bloch):
    return (np.eye(2) + np.einsum("...i,iab->...ab", bloch, PAULIS[1:])) / 2


def kraus_depolarizing(mix):
    weights = np.sqrt([1 - 0.75 * mix, mix / 4, mix / 4, mix / 4])
    return weights[:, None, None] * PAULIS


def kraus_erasure(erasure_prob):
    kept = np.sqrt(1 - erasure_prob) * np.eye(3, 2)
    lost = np.zeros((2, 3, 2))
    lost[0, 2, 0] = lost[1, 2, 1] = np.sqrt(erasure_prob)
    return np.array([kept, *lost], dtype=complex)


def kraus_dephasing(error_prob):
    return np.array([np.sqrt(1 - error_prob) * PAULIS[0], np.sqrt(error_prob) * PAULIS[3]])


def kraus_damping(gamma, excited_population=0.0):
    keep, decay = np.sqrt(1 - gamma), np.sqrt(gamma)
    cold = np.array([[[1, 0], [0, keep]], [[0, decay], [0, 0]]])
    hot = np.array([[[keep, 0], [0, 1]], [[0, 0], [decay, 0]]])
    return np.concatenate(
        [np.sqrt(1 - excited_population) * cold, np.sqrt(excited_population) * hot]
    ).astype(complex)


def apply(kraus, rho):
    return np.einsum("kab,...bc,kdc->...ad", kraus, rho, kraus.conj(), optimize=True)


def dense_information(kraus, bloch):
    """S(rho) + S(N rho) - S((N x I) purification of rho)."""
    rho = bloch_state(bloch)
    weights, vectors = np.linalg.eigh(rho)
    purification = vectors * np.sqrt(np.maximum(weights, 0.0))[..., None, :]
    images = np.einsum("kab,...bc->...kac", kraus, purification)
    images = images.reshape(*images.shape[:-2], -1)
    joint = np.einsum("...ki,...kj->...ij", images, images.conj())
    return dense_entropy(rho) + dense_entropy(apply(kraus, rho)) - dense_entropy(joint)


def bloch_grid():
    """Inputs all over the Bloch ball, its surface left out."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(3000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * (0.999 * random.uniform(size=(3000, 1)))


def dense_assisted(kraus):
    """The largest information of any input: a search of the ball, then a climb."""
    inputs = bloch_grid()
    found = dense_information(kraus, inputs)
    start = inputs[np.argmax(found)]
    start = start / np.sqrt(1 - start @ start)
    climbed = scipy.optimize.minimize(
        lambda v: -dense_information(kraus, v / np.sqrt(1 + v @ v)), start, method="BFGS"
    )
    return found.max(), max(found.max(), -climbed.fun)


def dense_holevo(kraus, starts=4):
    """The largest Holevo information of any ensemble of four pure states."""
    random = np.random.default_rng(1)

    def information(parameters):
        logits, theta, phi = parameters.reshape(3, 4)
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        bloch = np.stack(
            [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
        )
        outputs = apply(kraus, bloch_state(bloch))
        mean = np.einsum("m,mab->ab", probs, outputs)
        return dense_entropy(mean) - probs @ dense_entropy(outputs)

    climbs = [
        scipy.optimize.minimize(
            lambda p: -information(p), random.normal(scale=2.0, size=12), method="BFGS"
        )
        for _ in range(starts)
    ]
    return max(-climb.fun for climb in climbs)


def dense_symbol_capacity(transition):
    """The dual, min over output distributions s of max over m of D(T_m || s), by SLSQP."""
    count = len(transition)

    def divergence(outputs):
        ratio = np.where(transition > 0, transition / np.maximum(outputs, 1e-12)[:, None], 1.0)
        return np.sum(transition * np.log2(ratio), axis=0)

    mean = transition.mean(1)
    result = scipy.optimize.minimize(
        lambda v: v[-1],
        np.append(mean, divergence(mean).max()),
        method="SLSQP",
        bounds=[(1e-9, 1)] * count + [(0, None)],
        constraints=[
            {"type": "eq", "fun": lambda v: v[:-1].sum() - 1},
            {"type": "ineq", "fun": lambda v: v[-1] - divergence(v[:-1])},
        ],
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return divergence(result.x[:-1] / result.x[:-1].sum()).max()


def random_states(count, dimension, seed=0):
    random = np.random.default_rng(seed)
    shape = (count, dimension, dimension)
    root = random.normal(size=shape) + 1j * random.normal(size=shape)
    rho = root @ np.swapaxes(root.conj(), -1, -2)
    return rho / np.trace(rho, axis1=-2, axis2=-1)[:, None, None]


def random_transitions(count, received, concentration, seed=0):
    random = np.random.default_rng(seed)
    columns = random.dirichlet(np.full(received, concentration), size=(count, 4))
    return np.swapaxes(columns, -1, -2)


# --- Entropies ------------------------------------------------------------------------------------


def test_entropies_of_random_states_and_distributions_are_the_dense_ones(x64):
    states = random_states(50, 4)
    probs = np.random.default_rng(0).dirichlet(np.ones(5), size=(7, 3))
    np.testing.assert_allclose(
        information.von_neumann_entropy(states), dense_entropy(states), atol=1e-12
    )
    np.testing.assert_allclose(information.shannon_entropy(probs), dense_shannon(probs), atol=1e-12)
    coin = np.linspace(0, 1, 11)
    np.testing.assert_allclose(
        information.binary_entropy(coin), dense_shannon(np.stack([coin, 1 - coin], -1)), atol=1e-12
    )


def test_gradient_of_the_von_neumann_entropy_is_minus_log_rho(x64):
    state, other = random_states(2, 4, seed=3)
    slope = jax.jvp(information.von_neumann_entropy, (jnp.asarray(state),), (state - other,))[1]
    weights, vectors = np.linalg.eigh(state)
    logarithm = (vectors * np.log2(weights)) @ vectors.conj().T
    np.testing.assert_allclose(slope, -np.trace((state - other) @ logarithm).real, rtol=1e-9)


def test_entropy_gradient_at_zero_is_large_and_finite():
    for dtype, least in ((jnp.float32, 120.0), (jnp.float64, 1000.0)):
        with jax.enable_x64(dtype == jnp.float64):
            slope = jax.jit(jax.grad(information.shannon_entropy))(jnp.array([1.0, 0.0], dtype))
            assert slope.dtype == dtype
            assert least < slope[1] < 1100
            coin = jax.jit(jax.vmap(jax.grad(information.binary_entropy)))
            low, high = coin(jnp.array([0.0, 1.0], dtype))
            assert low > least
            assert high < -least


# --- Dense coding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity, bits", [(0.9, 1.372508), (0.95, 1.634355), (1.0, 2.0)])
def test_werner_capacity_has_its_published_values(fidelity, bits):
    np.testing.assert_allclose(
        capacity.dense_coding_capacity(werner(fidelity=fidelity)), bits, atol=2e-6
    )


def test_bell_diagonal_capacity_is_two_minus_the_entropy(x64):
    probs = np.random.default_rng(0).dirichlet(np.full(4, 0.3), size=(20, 5))
    found = capacity.dense_coding_capacity(bell_diagonal(probs))
    assert found.shape == (20, 5)
    np.testing.assert_allclose(found, 2 - dense_shannon(probs), atol=1e-12)


def test_capacity_of_any_pair_is_the_holevo_information_of_uniform_encodings(x64):
    states = random_states(20, 4, seed=5)
    encodings = np.array([np.kron(pauli, np.eye(2)) for pauli in PAULIS])
    sent = np.einsum("mab,nbc,mdc->nmad", encodings, states, encodings.conj())
    holevo = dense_entropy(sent.mean(1)) - dense_entropy(sent).mean(1)
    np.testing.assert_allclose(
        capacity.dense_coding_capacity(from_density_matrix(states)), holevo, atol=1e-12
    )


def test_werner_capacity_has_the_analytic_gradient_at_its_threefold_eigenvalue(x64):
    slope = jax.jit(
        jax.vmap(jax.grad(lambda f: capacity.dense_coding_capacity(werner(fidelity=f))))
    )
    fidelity = jnp.array([0.3, 0.7, 0.9, 0.999])
    np.testing.assert_allclose(slope(fidelity), np.log2(3 * fidelity / (1 - fidelity)), rtol=1e-9)


@pytest.mark.parametrize("wide", [False, further(True)])
def test_dense_coding_gradient_is_finite_at_degenerate_pairs(wide):
    with jax.enable_x64(wide):

        def bits(fidelity, gamma):
            pair = werner(fidelity=fidelity).apply(sent=amplitude_damping(gamma=gamma))
            return capacity.dense_coding_capacity(pair)

        fidelity = jnp.array([0.25, 0.5, 1.0], dtype=float)
        both = (0, 1)
        for derivative in (jax.grad(bits, both), jax.jacfwd(bits, both)):
            gain, loss = jax.jit(jax.vmap(derivative))(fidelity, jnp.zeros_like(fidelity))
            assert np.all(np.isfinite(gain))
            assert np.all(gain > -1e-5)
            assert np.all(np.isfinite(loss))


# --- Entanglement-assisted capacities -------------------------------------------------------------

ASSISTED = [
    *((capacity.assisted_depolarizing, kraus_depolarizing, {"mix": p}) for p in (0.1, 0.4, 0.8, 1)),
    *(
        (capacity.assisted_erasure, kraus_erasure, {"erasure_prob": p})
        for p in (0.1, 0.5, 0.7, 1.0)
    ),
    *(
        (capacity.assisted_dephasing, kraus_dephasing, {"error_prob": p})
        for p in (0.05, 0.3, 0.5, 0.9)
    ),
    *(
        (capacity.assisted_amplitude_damping, kraus_damping, {"gamma": g})
        for g in (0.01, 0.1, 0.3917, 0.5, 0.8, 0.97)
    ),
    *(
        (
            capacity.assisted_generalized_amplitude_damping,
            kraus_damping,
            {"gamma": g, "excited_population": e},
        )
        for g, e in itertools.product((0.05, 0.4, 0.9), (0.02, 0.3, 0.5, 1.0))
    ),
]


def first_of_each(cases, extra):
    """All cases, those of a function after its first in the lane `matrix` but for `extra`."""
    functions = [function for function, _, _ in cases]
    return [
        case if functions.index(case[0]) == at or case[2] in extra else further(*case)
        for at, case in enumerate(cases)
    ]


@pytest.mark.parametrize(
    "function, kraus, noise",
    first_of_each(ASSISTED, [{"gamma": 0.8}, {"gamma": 0.9, "excited_population": 0.3}]),
)
def test_assisted_capacity_is_the_best_of_all_bloch_inputs(x64, function, kraus, noise):
    tried, best = dense_assisted(kraus(**noise))
    found = float(function(**noise))
    assert tried <= found + 1e-9
    np.testing.assert_allclose(found, best, atol=2e-7)


def test_damping_information_is_the_dense_one_for_every_diagonal_input(x64):
    for gamma, excited in itertools.product((0.0, 0.2, 0.7, 1.0), (0.0, 0.3, 1.0)):
        inputs = np.linspace(0, 1, 21)
        bloch = np.stack([0 * inputs, 0 * inputs, 1 - 2 * inputs], axis=-1)
        found = capacity.damping_mutual_information(
            gamma=gamma, excited_population=excited, excited_input=inputs
        )
        expected = dense_information(kraus_damping(gamma, excited), bloch)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_amplitude_damping_has_its_published_values():
    found = capacity.assisted_amplitude_damping(gamma=0.1)
    np.testing.assert_allclose(found, 1.707700, atol=2e-6)
    for excited_input, bits in ((0.48390, 1.707700), (0.5, 1.706377)):
        found_bits = capacity.damping_mutual_information(
            gamma=0.1, excited_population=0.0, excited_input=excited_input
        )
        np.testing.assert_allclose(found_bits, bits, atol=2e-6)
        assert found_bits <= found + 1e-6
    # To five digits the published input is where the information is flat.
    slope = jax.grad(
        lambda u: capacity.damping_mutual_information(
            gamma=0.1, excited_population=0.0, excited_input=u
        )
    )
    assert slope(0.483895) > 0 > slope(0.483905)
    np.testing.assert_allclose(
        capacity.unassisted_amplitude_damping(gamma=0.1), 0.840497, atol=2e-6
    )
    q = werner(fidelity=1.0).apply(sent=amplitude_damping(gamma=0.1)).bell_probs
    np.testing.assert_allclose(q, [0.949342, 0.000658, 0.025, 0.025], atol=1e-6)
    np.testing.assert_allclose(2 - information.shannon_entropy(q), 1.655744, atol=2e-6)


def test_assisted_amplitude_damping_is_one_at_half_damping_and_1_17315_at_the_bell_threshold():
    np.testing.assert_allclose(capacity.assisted_amplitude_damping(gamma=0.5), 1.0, atol=1e-6)
    np.testing.assert_allclose(
        capacity.assisted_amplitude_damping(gamma=0.391687), 1.17315, atol=5e-6
    )


def test_damping_towards_the_mixed_state_needs_no_better_code_than_bell_states(x64):
    gamma = np.linspace(0, 1, 11)
    probs = werner(fidelity=1.0).apply(sent=amplitude_damping(gamma=gamma)).bell_probs
    np.testing.assert_allclose(
        capacity.assisted_generalized_amplitude_damping(gamma=gamma, excited_population=0.5),
        2 - dense_shannon(np.maximum(probs, 0)),
        atol=1e-12,
    )


# --- Unassisted capacities ------------------------------------------------------------------------

UNASSISTED = [
    *((capacity.unassisted_depolarizing, kraus_depolarizing, {"mix": p}) for p in (0.1, 0.6)),
    *((capacity.unassisted_erasure, kraus_erasure, {"erasure_prob": p}) for p in (0.1, 0.7)),
    *((capacity.unassisted_dephasing, kraus_dephasing, {"error_prob": p}) for p in (0.1, 0.5)),
    *(
        (capacity.unassisted_amplitude_damping, kraus_damping, {"gamma": g})
        for g in (0.1, 0.35, 0.5, 0.75, 0.95)
    ),
]


@pytest.mark.parametrize(
    "function, kraus, noise", first_of_each(UNASSISTED, [{"gamma": 0.5}, {"gamma": 0.95}])
)
def test_unassisted_capacity_is_the_best_holevo_information_of_any_ensemble(
    x64, function, kraus, noise
):
    np.testing.assert_allclose(function(**noise), dense_holevo(kraus(**noise)), atol=1e-6)


def test_amplitude_damping_holevo_is_the_best_of_a_dense_grid_of_signal_pairs(x64):
    populations = np.linspace(0, 1, 20001)
    phases = np.zeros_like(populations)
    height = 1 - 2 * populations
    for gamma in np.linspace(0.02, 0.98, 13):
        kraus = kraus_damping(gamma)
        mean = apply(kraus, bloch_state(np.stack([phases, phases, height], -1)))
        width = np.sqrt(1 - height**2)
        signal = apply(kraus, bloch_state(np.stack([width, phases, height], -1)))
        best = np.max(dense_entropy(mean) - dense_entropy(signal))
        np.testing.assert_allclose(
            capacity.unassisted_amplitude_damping(gamma=gamma), best, atol=1e-7
        )


def test_depolarizing_has_its_published_values():
    np.testing.assert_allclose(capacity.assisted_depolarizing(mix=0.1), 1.496816, atol=2e-6)
    np.testing.assert_allclose(capacity.unassisted_depolarizing(mix=0.1), 0.713603, atol=2e-6)


def test_entanglement_triples_the_capacity_of_a_nearly_useless_depolarizing_channel(x64):
    survival = np.array([0.5, 1e-1, 1e-2, 1e-3])
    ratio = capacity.assisted_depolarizing(mix=1 - survival) / capacity.unassisted_depolarizing(
        mix=1 - survival
    )
    assert np.all(np.diff(ratio) > 0)
    assert np.all(ratio < 3)
    np.testing.assert_allclose(ratio[-1], 3.0, atol=2e-3)


# --- Discrete memoryless channels -----------------------------------------------------------------


@pytest.mark.parametrize("received", [4, 5])
@pytest.mark.parametrize("concentration", [0.3, further(1.0), further(100.0)])
def test_symbol_capacity_meets_its_dual(x64, received, concentration):
    transitions = random_transitions(6, received, concentration)
    found = information.discrete_memoryless_capacity(transitions)
    expected = [dense_symbol_capacity(transition) for transition in transitions]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.all(found <= np.array(expected) + 1e-9)
    uniform = information.mutual_information_uniform(transitions)
    assert np.all(uniform <= found + 1e-12)
    expected = dense_shannon(transitions.mean(-1)) - dense_shannon(transitions.swapaxes(1, 2)).mean(
        -1
    )
    np.testing.assert_allclose(uniform, expected, atol=1e-12)


def test_symbol_capacity_is_never_far_from_the_capacity_however_contrived_the_channel(x64):
    transitions = random_transitions(6, 5, 0.05, seed=4)
    found = np.asarray(information.discrete_memoryless_capacity(transitions))
    best = np.stack([dense_symbol_capacity(transition) for transition in transitions])
    assert np.all(found >= best - 2.0 / information.BLAHUT_ARIMOTO_ITERATIONS)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda q: sum(q) > 1e-3))
def test_xor_symmetric_symbol_capacity_is_two_minus_the_entropy(weights):
    q = np.array(weights) / sum(weights)
    found = information.discrete_memoryless_capacity(q[XOR])
    np.testing.assert_allclose(found, 2 - dense_shannon(q), atol=3e-6)
    np.testing.assert_allclose(
        information.mutual_information_uniform(q[XOR]), 2 - dense_shannon(q), atol=3e-6
    )


def test_useless_perfect_and_partial_channels_have_known_capacities():
    linear_optics = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(
        information.discrete_memoryless_capacity(linear_optics), np.log2(3), atol=1e-6
    )
    np.testing.assert_allclose(information.discrete_memoryless_capacity(np.eye(4)), 2.0, atol=1e-6)
    useless = information.discrete_memoryless_capacity(np.full((5, 4), 0.2))
    np.testing.assert_allclose(useless, 0.0, atol=1e-6)
    flip = 0.11  # one bit of the two is lost altogether, the other passes a binary channel
    bit = np.array([[1 - flip, flip], [flip, 1 - flip]])
    np.testing.assert_allclose(
        information.discrete_memoryless_capacity(np.kron(bit, np.full((2, 2), 0.5))),
        1 - dense_shannon([flip, 1 - flip]),
        atol=1e-6,
    )


def test_loss_has_its_published_values():
    q = np.asarray(werner(fidelity=0.9).bell_probs)
    unflagged = 0.9 * q[XOR] + 0.1 / 4
    np.testing.assert_allclose(unflagged[0, 0], 0.835, atol=1e-6)
    flagged = np.vstack([0.9 * q[XOR], np.full(4, 0.1)])
    np.testing.assert_allclose(
        information.discrete_memoryless_capacity(flagged), 1.235257, atol=2e-6
    )
    assert information.discrete_memoryless_capacity(unflagged) < 1.235257


def test_symbol_capacity_has_the_gradient_of_finite_differences(x64):
    start = 0.6 * np.eye(4) + 0.4 * random_transitions(8, 4, 1.0, seed=7)
    direction = random_transitions(8, 4, 1.0, seed=8) - start

    @jax.jit
    def bits(t):
        return information.discrete_memoryless_capacity(start + t[:, None, None] * direction)

    where, step = jnp.full(8, 0.1), 1e-5
    slopes = jax.jit(jax.grad(lambda t: bits(t).sum()))(where)
    expected = (bits(where + step) - bits(where - step)) / (2 * step)
    np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=1e-7)


def test_symbol_capacity_gradient_is_that_of_two_minus_the_entropy(x64):
    def bits(fidelity):
        return information.discrete_memoryless_capacity(werner(fidelity=fidelity).bell_probs[XOR])

    fidelity = jnp.array([0.5, 0.9, 0.99])
    slopes = jax.jit(jax.vmap(jax.grad(bits)))(fidelity)
    np.testing.assert_allclose(slopes, np.log2(3 * fidelity / (1 - fidelity)), rtol=1e-9)


# --- All channels alike ---------------------------------------------------------------------------

#: One noise parameter each, which runs over [0, 1].
NOISE = {
    "assisted_depolarizing": lambda x: capacity.assisted_depolarizing(mix=x),
    "assisted_erasure": lambda x: capacity.assisted_erasure(erasure_prob=x),
    "assisted_dephasing": lambda x: capacity.assisted_dephasing(error_prob=x),
    "assisted_amplitude_damping": lambda x: capacity.assisted_amplitude_damping(gamma=x),
    "assisted_generalized": lambda x: capacity.assisted_generalized_amplitude_damping(
        gamma=x, excited_population=0.3 * jnp.ones_like(x)
    ),
    "assisted_half_excited": lambda x: capacity.assisted_generalized_amplitude_damping(
        gamma=x, excited_population=0.5 * jnp.ones_like(x)
    ),
    "excited_population": lambda x: capacity.assisted_generalized_amplitude_damping(
        gamma=0.2 * jnp.ones_like(x), excited_population=x
    ),
    "excited_input": lambda x: capacity.damping_mutual_information(
        gamma=0.2 * jnp.ones_like(x), excited_population=0 * x, excited_input=x
    ),
    "unassisted_depolarizing": lambda x: capacity.unassisted_depolarizing(mix=x),
    "unassisted_erasure": lambda x: capacity.unassisted_erasure(erasure_prob=x),
    "unassisted_dephasing": lambda x: capacity.unassisted_dephasing(error_prob=x),
    "unassisted_amplitude_damping": lambda x: capacity.unassisted_amplitude_damping(gamma=x),
}


@jax.jit  # one program for all, because compilation is what takes the time here
def everywhere(points):
    """For each function its values, reverse-mode slopes and forward-mode slopes at `points`."""
    return {
        name: (
            *jax.vmap(jax.value_and_grad(function))(points),
            jax.jvp(function, (points,), (jnp.ones_like(points),))[1],
        )
        for name, function in NOISE.items()
    }


def domain():
    return jnp.array([0.0, 1e-30, 1e-6, 0.03, 0.2, 0.4, 0.5, 0.6, 0.9, 1 - 1e-6, 1.0], dtype=float)


def test_gradients_are_those_of_finite_differences(x64):
    points, step = jnp.linspace(0.03, 0.93, len(domain())), 1e-5
    found, above, below = (everywhere(points + shift) for shift in (0.0, step, -step))
    for name in NOISE:
        expected = (above[name][0] - below[name][0]) / (2 * step)
        np.testing.assert_allclose(found[name][1], expected, rtol=1e-6, atol=1e-7, err_msg=name)


# float32 is tried with float64 enabled, so that a stray float64 constant would show.
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_values_and_gradients_are_finite_over_the_whole_domain(x64, dtype):
    for name, (values, reverse, forward) in everywhere(domain().astype(dtype)).items():
        assert values.dtype == reverse.dtype == forward.dtype == dtype, name
        assert np.all(np.isfinite(values)), name
        assert np.all(values > -1e-6), name
        assert np.all(values < 2 + 1e-6), name
        assert np.all(np.isfinite(reverse)), name
        # Not at the very end, where the capacity is zero and no input is the best one. In single
        # precision the best input is known to half the digits, and the slope follows it.
        np.testing.assert_allclose(
            reverse[:-1],
            forward[:-1],
            rtol=1e-3 if dtype == jnp.float32 else 1e-4,
            atol=1e-6,
            err_msg=name,
        )


def test_single_precision_follows_double(x64):
    wide, narrow = everywhere(domain()), everywhere(domain().astype(jnp.float32))
    for name in NOISE:
        np.testing.assert_allclose(narrow[name][0], wide[name][0], atol=2e-6, err_msg=name)
        # Gradients too, but not where the entropy of what rounding left decides them.
        inside = slice(3, -2)
        np.testing.assert_allclose(
            narrow[name][1][inside], wide[name][1][inside], atol=2e-5, err_msg=name
        )


@pytest.mark.matrix
def test_batches_follow_scalars_and_parameters_broadcast(x64):
    points = domain()
    scalars = everywhere(points)
    batches = jax.jit(lambda p: {name: function(p) for name, function in NOISE.items()})(
        points.reshape(-1, 1)
    )
    for name, batch in batches.items():
        np.testing.assert_allclose(batch[:, 0], scalars[name][0], atol=1e-12, err_msg=name)
    grid = capacity.assisted_generalized_amplitude_damping(
        gamma=np.array([[0.2], [0.4]]), excited_population=np.array([0.0, 0.3, 0.5])
    )
    assert grid.shape == (2, 3)
    np.testing.assert_allclose(grid[:, 0], scalars["assisted_amplitude_damping"][0][4:6])
    np.testing.assert_allclose(grid[:, 1], scalars["assisted_generalized"][0][4:6])


def test_noiseless_channels_carry_two_bits_with_pairs_and_one_without(x64):
    for name, (values, _, _) in everywhere(domain()).items():
        if name.startswith("assisted"):
            np.testing.assert_allclose(values[0], 2.0, atol=1e-6, err_msg=name)
        elif name.startswith("unassisted"):
            np.testing.assert_allclose(values[0], 1.0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("wide", [False, further(True)])
def test_symbol_gradients_are_finite_at_zero_noise_and_at_no_signal(wide):
    with jax.enable_x64(wide):
        unreached = np.vstack([np.eye(4), np.zeros(4)])
        stack = np.stack([unreached, np.full((5, 4), 0.2), random_transitions(1, 5, 0.02)[0]])
        for function in (
            information.discrete_memoryless_capacity,
            information.mutual_information_uniform,
        ):
            total, slopes = jax.jit(jax.value_and_grad(lambda t, f=function: f(t).sum()))(
                jnp.asarray(stack, dtype=float)
            )
            assert slopes.shape == (3, 5, 4)
            assert np.isfinite(total)
            assert np.all(np.isfinite(slopes))


# --- Thresholds -----------------------------------------------------------------------------------


def test_thresholds_have_their_published_values_and_leave_the_precision_alone():
    assert not jax.config.jax_enable_x64
    found = limits.thresholds()
    assert not jax.config.jax_enable_x64
    expected = {
        "werner_fidelity": 0.810710,
        "werner_weight": 0.747614,
        "depolarizing_mix": 0.252386,
        "survival_each_half": 0.864647,
        "erasure_prob": 0.5,
        "amplitude_damping_bell": 0.391687,
        "amplitude_damping_assisted": 0.5,
    }
    assert list(found) == list(expected)
    assert all(type(value) is float for value in found.values())
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=6e-7)
    assert found["werner_weight"] == pytest.approx((4 * found["werner_fidelity"] - 1) / 3, abs=1e-9)
    assert found["survival_each_half"] == pytest.approx(found["werner_weight"] ** 0.5, abs=1e-9)
    assert found["depolarizing_mix"] == pytest.approx(1 - found["werner_weight"], abs=1e-9)
    # In numpy: at the damping threshold of the Bell measurement its errors have one bit of entropy.
    root = np.sqrt(1 - found["amplitude_damping_bell"])
    quarter = found["amplitude_damping_bell"] / 4
    q = [(1 + root) ** 2 / 4, (1 - root) ** 2 / 4, quarter, quarter]
    assert dense_shannon(q) == pytest.approx(1.0, abs=1e-9)


def test_break_even_is_good_to_1e_10_and_local_to_its_thread():
    seen = []
    thread = threading.Thread(
        target=lambda: seen.append(
            limits.break_even(lambda mix: capacity.assisted_depolarizing(mix=mix), 0.0, 1.0)
        )
    )
    thread.start()
    thread.join()
    root = scipy.optimize.brentq(
        lambda p: 1 - dense_shannon([1 - 0.75 * p, p / 4, p / 4, p / 4]), 0.01, 0.9, xtol=1e-14
    )
    assert seen[0] == pytest.approx(root, abs=1e-10)


def test_break_even_finds_the_waiting_time_of_a_memory():
    def bits(time):
        noise = thermal_relaxation(t1=1.0, t2=0.7, time=time)
        return capacity.dense_coding_capacity(werner(fidelity=1.0).apply(sent=noise))

    found = limits.break_even(bits, 0.0, 5.0)

    def joint_entropy(time):
        decayed = kraus_damping(1 - np.exp(-time))
        phase = kraus_dephasing((1 - np.exp(-time / 0.7 + time / 2)) / 2)
        kraus = np.einsum("iab,jbc->ijac", phase, decayed).reshape(-1, 2, 2)
        halves = kraus.reshape(len(kraus), -1) / np.sqrt(2)
        return dense_entropy(halves.T @ halves.conj())

    # The kept half stays mixed, so one bit is lost when the pair has one bit of entropy.
    assert joint_entropy(found) == pytest.approx(1.0, abs=1e-9)


# --- Bounds and accounting ------------------------------------------------------------------------


def test_one_shot_bound_is_the_exact_power_of_two_for_integers_of_any_size():
    for qubits, bits in itertools.product((0, 1, 5, 40), (0, 1, 2, 9, 11, 85)):
        exact = min(Fraction(1), Fraction(4) ** qubits / Fraction(2) ** bits)
        found = limits.one_shot_success_bound(qubits=qubits, bits=bits)
        np.testing.assert_allclose(found, float(exact), rtol=1e-5)
    huge = limits.one_shot_success_bound(qubits=10**10, bits=2 * 10**10 + np.array([0, 1, 3]))
    np.testing.assert_array_equal(huge, [1.0, 0.5, 0.125])
    traced = jax.jit(lambda m, n: limits.one_shot_success_bound(qubits=m, bits=n))(3, 8)
    assert float(traced) == 0.25


def test_lifetime_uses_are_the_expected_attempts_plus_the_online_qubits():
    attempts = np.arange(1, 4000)
    for success, cost in itertools.product((0.05, 0.5, 1.0), (1.0, 2.5)):
        expected = np.sum(attempts * success * (1 - success) ** (attempts - 1))
        found = limits.lifetime_uses(online=8, generation_prob=success, purification_cost=cost)
        np.testing.assert_allclose(found, 8 * (1 + cost * expected), rtol=1e-6)
    # One pair and one qubit per two bits: what the bits would take without entanglement.
    assert float(limits.lifetime_uses(online=1, generation_prob=1.0)) == 2.0
    slope = jax.grad(lambda p: limits.lifetime_uses(online=2.0, generation_prob=p))
    np.testing.assert_allclose(slope(0.5), -8.0, rtol=1e-6)
    assert np.isfinite(slope(0.0))


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: capacity.assisted_depolarizing(mix=1.5), ValueError, r"`mix` must .*1\.5"),
        (lambda: capacity.unassisted_depolarizing(mix=-1), ValueError, r"`mix` must .*-1"),
        (lambda: capacity.assisted_erasure(erasure_prob=2), ValueError, r"`erasure_prob` .*2\."),
        (lambda: capacity.unassisted_erasure(erasure_prob=2), ValueError, r"`erasure_prob` .*2\."),
        (lambda: capacity.assisted_dephasing(error_prob=2), ValueError, r"`error_prob` .*2\."),
        (lambda: capacity.unassisted_dephasing(error_prob=2), ValueError, r"`error_prob` .*2\."),
        (lambda: capacity.assisted_amplitude_damping(gamma=np.nan), ValueError, "`gamma` .*nan"),
        (lambda: capacity.unassisted_amplitude_damping(gamma=-0.1), ValueError, r"`gamma` .*-0\.1"),
        (
            lambda: capacity.assisted_generalized_amplitude_damping(
                gamma=0.1, excited_population=1.2
            ),
            ValueError,
            r"`excited_population` must lie in \[0, 1\], but got 1\.2\.",
        ),
        (
            lambda: capacity.damping_mutual_information(
                gamma=0.1, excited_population=0.0, excited_input=-0.5
            ),
            ValueError,
            r"`excited_input` must lie in \[0, 1\], but got -0\.5\.",
        ),
        (lambda: information.binary_entropy(1.1), ValueError, r"`prob` must .*1\.1"),
        (lambda: information.binary_entropy("half"), TypeError, "`prob` must be a real number"),
        (
            lambda: information.shannon_entropy(0.5),
            ValueError,
            r"`probs` must have the shape .*\(\)",
        ),
        (lambda: information.shannon_entropy([0.5, 0.6]), ValueError, r"`probs` must sum .*1\.1"),
        (lambda: information.shannon_entropy([1.5, -0.5]), ValueError, r"`probs` .*no negative"),
        (
            lambda: information.von_neumann_entropy(np.eye(2)),
            ValueError,
            "`rho` must have trace one",
        ),
        (
            lambda: information.von_neumann_entropy([[0.5, 1], [0, 0.5]]),
            ValueError,
            "`rho` must be Hermitian",
        ),
        (
            lambda: information.von_neumann_entropy(np.diag([1.5, -0.5])),
            ValueError,
            r"`rho` must have no negative eigenvalue, but got -0\.5\.",
        ),
        (
            lambda: information.von_neumann_entropy(np.ones((2, 3))),
            ValueError,
            r"`rho` must have the shape \(\.\.\., d, d\), but got \(2, 3\)\.",
        ),
        (
            lambda: capacity.dense_coding_capacity(dephasing(error_prob=0.1)),
            TypeError,
            "`pair` must be a Pair",
        ),
        (
            lambda: information.discrete_memoryless_capacity([0.5, 0.5]),
            ValueError,
            r"`transition` must have the shape \(\.\.\., R, M\), but got \(2,\)\.",
        ),
        (
            lambda: information.mutual_information_uniform(2 * np.eye(4)),
            ValueError,
            "`transition` must sum to one",
        ),
        (
            lambda: limits.break_even(lambda x: capacity.assisted_dephasing(error_prob=x), 0, 0.4),
            ValueError,
            r"`capacity` must cross one bit between 0 and 0\.4, but got \[2\. +1\.029049\]\.",
        ),
        (
            lambda: limits.one_shot_success_bound(qubits=-1, bits=1),
            ValueError,
            "`qubits` must be at least 0, but got -1.",
        ),
        (
            lambda: limits.one_shot_success_bound(qubits=1, bits=-2),
            ValueError,
            "`bits` must be at least 0, but got -2.",
        ),
        (
            lambda: limits.lifetime_uses(online=1, generation_prob=0.0),
            ValueError,
            r"`generation_prob` must lie in \[1e-18, 1\], but got 0\.0\.",
        ),
        (
            lambda: limits.lifetime_uses(online=1, generation_prob=1, purification_cost=0.5),
            ValueError,
            r"`purification_cost` must be at least 1, but got 0\.5\.",
        ),
        (
            lambda: limits.lifetime_uses(online=-1, generation_prob=1),
            ValueError,
            "`online` must be at least 0, but got -1.",
        ),
    ],
)
def test_refusal_names_the_argument_the_rule_and_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
