"""One-qubit channels against Kraus operators written out in `dense`.

Nothing here is statistical: settings are drawn with fixed seeds, the comparison is exact.
"""

import functools

import dense
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq

KRAUS = dense.random_kraus(np.random.default_rng(0), 3)

#: name: (channel of the package, Kraus operators of the reference)
CHANNELS = {
    "identity": (lambda: jq.channels.identity(), [dense.I2]),
    "pauli": (lambda: jq.pauli(x=0.1, y=0.25, z=0.05), dense.pauli_kraus(0.1, 0.25, 0.05)),
    "pauli, all errors": (lambda: jq.pauli(x=0.5, y=0.3, z=0.2), dense.pauli_kraus(0.5, 0.3, 0.2)),
    "depolarizing error_prob": (
        lambda: jq.depolarizing(error_prob=0.3),
        dense.pauli_kraus(0.1, 0.1, 0.1),
    ),
    "depolarizing mix": (lambda: jq.depolarizing(mix=0.3), dense.pauli_kraus(*[0.075] * 3)),
    "dephasing": (lambda: jq.dephasing(error_prob=0.2), dense.pauli_kraus(0, 0, 0.2)),
    "bit flip": (lambda: jq.bit_flip(error_prob=0.2), dense.pauli_kraus(0.2, 0, 0)),
    "amplitude damping": (lambda: jq.amplitude_damping(gamma=0.3), dense.damping_kraus(0.3)),
    "full damping": (lambda: jq.amplitude_damping(gamma=1.0), dense.damping_kraus(1.0)),
    "generalized damping": (
        lambda: jq.generalized_amplitude_damping(gamma=0.3, excited_population=0.2),
        dense.damping_kraus(0.3, 0.2),
    ),
    "thermal": (
        lambda: jq.thermal_relaxation(t1=2.0, t2=1.5, time=0.7, excited_population=0.1),
        dense.thermal_kraus(2.0, 1.5, 0.7, 0.1),
    ),
    "thermal at T2 = 2 T1": (
        lambda: jq.thermal_relaxation(t1=2.0, t2=4.0, time=0.7),
        dense.thermal_kraus(2.0, 4.0, 0.7),
    ),
    "thermal without decay": (
        lambda: jq.thermal_relaxation(t1=np.inf, t2=4.0, time=0.7),
        dense.thermal_kraus(np.inf, 4.0, 0.7),
    ),
    "kraus": (lambda: jq.from_kraus(np.array(KRAUS)), KRAUS),
}
UNITAL = {
    "identity",
    "pauli",
    "pauli, all errors",
    "depolarizing error_prob",
    "depolarizing mix",
    "dephasing",
    "bit flip",
    "thermal without decay",
}
TOLERANCE = {False: 1e-6, True: 1e-14}

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
every_channel = pytest.mark.parametrize("name", CHANNELS)
both_precisions = pytest.mark.parametrize("x64_on", [False, True])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@every_channel
@both_precisions
def test_transfer_matrix_equals_that_of_the_dense_kraus_operators(name, x64_on):
    make, kraus = CHANNELS[name]
    with jax.enable_x64(x64_on):
        ptm = make().ptm
        assert ptm.shape == (4, 4)
        assert ptm.dtype == (jnp.float64 if x64_on else jnp.float32)
        np.testing.assert_allclose(ptm, dense.transfer_matrix(kraus), atol=TOLERANCE[x64_on])


@every_channel
def test_trace_is_preserved_exactly(name):
    first_row = np.asarray(CHANNELS[name][0]().ptm[0])
    np.testing.assert_allclose(first_row, [1, 0, 0, 0], atol=0 if name != "kraus" else 1e-6)


@every_channel
@both_precisions
def test_kraus_operators_act_like_the_channel_and_lead_back_to_it(name, x64_on):
    make, reference = CHANNELS[name]
    # An eigenvalue of the Choi matrix that is rounded below zero is dropped: the square of its
    # root is as small as the rounding.
    atol = {False: 2e-6, True: 1e-14}[x64_on]
    rng = np.random.default_rng(1)
    with jax.enable_x64(x64_on):
        channel = make()
        kraus = channel.kraus()
        assert kraus.shape == (4, 2, 2)
        back = jq.from_kraus(kraus)
        np.testing.assert_allclose(back.ptm, channel.ptm, atol=atol)
    kraus = np.asarray(kraus)
    np.testing.assert_allclose(sum(k.conj().T @ k for k in kraus), np.eye(2), atol=atol)
    for _ in range(3):
        rho = dense.random_state(rng, 2)
        np.testing.assert_allclose(
            dense.act(kraus, rho), dense.act(reference, rho), atol=atol
        )  # fmt: skip


@every_channel
def test_is_unital_where_the_mixed_state_stays(name):
    make, kraus = CHANNELS[name]
    stays = np.allclose(dense.act(kraus, np.eye(2) / 2), np.eye(2) / 2, atol=1e-9)
    assert bool(make().is_unital) == stays == (name in UNITAL)


def test_generalized_damping_is_unital_at_half_population_only():
    unital = jq.generalized_amplitude_damping(
        gamma=0.2, excited_population=np.array([0.4, 0.5, 0.6])
    ).is_unital
    np.testing.assert_array_equal(unital, [False, True, False])


@every_channel
def test_then_applies_this_channel_first(name, x64):
    make, kraus = CHANNELS[name]
    other = dense.random_kraus(np.random.default_rng(2), 2)
    channel = make().then(jq.from_kraus(np.array(other)))
    expected = dense.transfer_matrix(dense.compose(kraus, other))
    np.testing.assert_allclose(channel.ptm, expected, atol=1e-14)


def test_then_does_not_commute_for_a_flip_and_a_decay(x64):
    flip, decay = jq.bit_flip(error_prob=1.0), jq.amplitude_damping(gamma=0.5)
    assert float(flip.then(decay).ptm[3, 0]) == 0.5
    assert float(decay.then(flip).ptm[3, 0]) == -0.5


def test_two_parametrisations_of_depolarizing_meet_at_complete_mixing(x64):
    complete = np.diag([1.0, 0, 0, 0])
    np.testing.assert_allclose(jq.depolarizing(error_prob=0.75).ptm, complete, atol=1e-15)
    np.testing.assert_allclose(jq.depolarizing(mix=1.0).ptm, complete, atol=1e-15)
    for error in np.linspace(0, 0.75, 7):
        one, other = jq.depolarizing(error_prob=error), jq.depolarizing(mix=4 * error / 3)
        np.testing.assert_allclose(one.ptm, other.ptm, atol=1e-15)


def test_waiting_twice_is_waiting_the_sum(x64):
    def wait(time):
        return jq.thermal_relaxation(t1=3.0, t2=2.0, time=time, excited_population=0.3)

    np.testing.assert_allclose(wait(0.4).then(wait(1.1)).ptm, wait(1.5).ptm, atol=1e-15)
    np.testing.assert_array_equal(wait(0.0).ptm, np.eye(4))


def test_a_long_wait_ends_in_the_thermal_state(x64):
    end = jq.thermal_relaxation(t1=1.0, t2=1.0, time=1e3, excited_population=0.3).ptm
    expected = np.zeros((4, 4))
    expected[0, 0], expected[3, 0] = 1, 1 - 2 * 0.3
    np.testing.assert_allclose(end, expected, atol=1e-15)


# --- Shapes and transformations -------------------------------------------------------------------

BATCHES = {
    "pauli": (
        lambda a, b: jq.pauli(x=a / 3, y=b / 3, z=0.1),
        lambda a, b: dense.pauli_kraus(a / 3, b / 3, 0.1),
    ),
    "depolarizing": (
        lambda a, b: jq.depolarizing(mix=a * b),
        lambda a, b: dense.pauli_kraus(*[a * b / 4] * 3),
    ),
    "dephasing": (
        lambda a, b: jq.dephasing(error_prob=a * b),
        lambda a, b: dense.pauli_kraus(0, 0, a * b),
    ),
    "bit flip": (
        lambda a, b: jq.bit_flip(error_prob=a * b),
        lambda a, b: dense.pauli_kraus(a * b, 0, 0),
    ),
    "amplitude damping": (
        lambda a, b: jq.amplitude_damping(gamma=a * b),
        lambda a, b: dense.damping_kraus(a * b),
    ),
    "generalized damping": (
        lambda a, b: jq.generalized_amplitude_damping(gamma=a, excited_population=b),
        dense.damping_kraus,
    ),
    "thermal": (
        lambda a, b: jq.thermal_relaxation(t1=1 + a, t2=1 + b, time=a + b, excited_population=a),
        lambda a, b: dense.thermal_kraus(1 + a, 1 + b, a + b, a),
    ),
}
ROWS, COLUMNS = np.array([[0.1], [0.6]]), np.array([0.0, 0.3, 0.9])


BATCHES_FIRST = ("pauli", "generalized damping", "thermal")


@pytest.mark.parametrize("name", [x if x in BATCHES_FIRST else further(x) for x in BATCHES])
def test_parameters_broadcast_to_a_batch_of_channels(name, x64):
    make, reference = BATCHES[name]
    batch = make(ROWS, COLUMNS)
    assert batch.ptm.shape == (2, 3, 4, 4)
    assert batch.kraus().shape == (2, 3, 4, 2, 2)
    assert batch.is_unital.shape == (2, 3)
    assert batch.clipped.shape == (2, 3)
    both = batch.then(jq.amplitude_damping(gamma=0.2))
    again = jq.from_kraus(batch.kraus())
    for i, j in np.ndindex(2, 3):
        kraus = reference(ROWS[i, 0], COLUMNS[j])
        expected = dense.transfer_matrix(kraus)
        np.testing.assert_allclose(batch.ptm[i, j], expected, atol=1e-14)
        np.testing.assert_allclose(again.ptm[i, j], expected, atol=1e-14)
        expected = dense.transfer_matrix(dense.compose(kraus, dense.damping_kraus(0.2)))
        np.testing.assert_allclose(both.ptm[i, j], expected, atol=1e-14)


@pytest.mark.parametrize("name", [x if x in BATCHES_FIRST else further(x) for x in BATCHES])
def test_jit_and_vmap_give_the_eager_channel(name):
    make, _ = BATCHES[name]
    a, b = np.float32(0.4), COLUMNS.astype(np.float32)
    mapped = jax.jit(jax.vmap(make, in_axes=(None, 0)))(a, b)
    np.testing.assert_allclose(mapped.ptm, make(a, b).ptm, atol=1e-6)
    np.testing.assert_array_equal(mapped.clipped, np.zeros(3))


def test_a_channel_is_a_pytree_that_passes_through_jit():
    channel = jq.amplitude_damping(gamma=0.3)
    squared = jax.jit(lambda c: c.then(c))(channel)
    np.testing.assert_allclose(squared.ptm, jq.amplitude_damping(gamma=1 - 0.7**2).ptm, atol=1e-6)


# --- Values known only inside a trace -------------------------------------------------------------

#: name: (channel of one parameter, a value outside, the edge it is moved to)
OUTSIDE = {
    "pauli x": (lambda v: jq.pauli(x=v, y=0.1, z=0.1), -0.3, 0.0),
    "pauli y": (lambda v: jq.pauli(x=0.1, y=v, z=0.1), -0.3, 0.0),
    "pauli z": (lambda v: jq.pauli(x=0.1, y=0.1, z=v), -0.3, 0.0),
    "depolarizing error_prob": (lambda v: jq.depolarizing(error_prob=v), 1.2, 1.0),
    "depolarizing mix": (lambda v: jq.depolarizing(mix=v), -0.2, 0.0),
    "dephasing": (lambda v: jq.dephasing(error_prob=v), 1.2, 1.0),
    "bit flip": (lambda v: jq.bit_flip(error_prob=v), -1.0, 0.0),
    "damping low": (lambda v: jq.amplitude_damping(gamma=v), -0.1, 0.0),
    "damping high": (lambda v: jq.amplitude_damping(gamma=v), 1.3, 1.0),
    "generalized gamma": (
        lambda v: jq.generalized_amplitude_damping(gamma=v, excited_population=0.2), 2.0, 1.0),
    "generalized excited": (
        lambda v: jq.generalized_amplitude_damping(gamma=0.3, excited_population=v), -2.0, 0.0),
    "thermal t1": (lambda v: jq.thermal_relaxation(t1=v, t2=1.0, time=1.0), -1.0, 1e-30),
    "thermal t2": (lambda v: jq.thermal_relaxation(t1=1.0, t2=v, time=1.0), 0.0, 1e-30),
    "thermal t2 above 2 t1": (
        lambda v: jq.thermal_relaxation(t1=1.0, t2=v, time=1.0), 2.5, 2.0),
    "thermal time": (lambda v: jq.thermal_relaxation(t1=1.0, t2=1.0, time=v), -1.0, 0.0),
    "thermal excited": (
        lambda v: jq.thermal_relaxation(t1=1.0, t2=1.0, time=1.0, excited_population=v), 1.1, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_traced_values_out_of_domain_are_clipped_and_flagged(name):
    make, outside, edge = OUTSIDE[name]
    traced = jax.jit(make)(outside)
    expected = jax.jit(make)(edge)
    np.testing.assert_allclose(traced.ptm, expected.ptm, atol=1e-6)
    assert float(traced.clipped) >= 1
    if edge != 1e-30:  # any positive T1 allows a T2 of 1 or not
        assert float(expected.clipped) == 0


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_traced_values_that_are_no_numbers_never_make_a_nan(name, value):
    traced = jax.jit(OUTSIDE[name][0])(value)
    assert np.all(np.isfinite(traced.ptm))
    may_be_infinite = name == "thermal t1" and value > 0
    assert (float(traced.clipped) == 0) == may_be_infinite


#: One of each function that draws its parameter into the domain in a way of its own.
SLOPES_FIRST = ("pauli x", "damping low", "damping high", "thermal t2 above 2 t1", "thermal time")


@pytest.mark.parametrize("name", [x if x in SLOPES_FIRST else further(x) for x in OUTSIDE])
def test_derivative_with_respect_to_a_clipped_value_is_zero_and_not_nan(name):
    make, outside, _ = OUTSIDE[name]

    def ptm(value):
        return make(value).ptm

    for slope in jax.jit(lambda v: (jax.jacrev(ptm)(v), jax.jacfwd(ptm)(v)))(float(outside)):
        np.testing.assert_array_equal(slope, 0.0)


def test_traced_pauli_probabilities_that_sum_to_more_than_one_are_scaled_and_flagged():
    channel = jax.jit(jq.pauli)(x=0.8, y=0.4, z=0.4)
    np.testing.assert_allclose(channel.ptm, jq.pauli(x=0.5, y=0.25, z=0.25).ptm, atol=1e-6)
    assert float(channel.clipped) == 1


def test_clipped_counts_add_up_along_a_chain_of_channels():
    @jax.jit
    def chain(a, b):
        return (
            jq.dephasing(error_prob=a).then(jq.channels.identity()).then(jq.bit_flip(error_prob=b))
        )

    assert float(chain(-1.0, 2.0).clipped) == 2
    assert float(chain(0.1, 2.0).clipped) == 1
    assert float(chain(0.1, 0.2).clipped) == 0


@pytest.mark.parametrize("mode", ["jacfwd", further("jacrev")])
def test_derivative_where_pauli_probabilities_sum_to_one_is_the_full_one_sided_one(mode, x64):
    """The edges of all other parameters are in tests/link/test_superdense.py."""
    slope = jax.jit(getattr(jax, mode)(lambda v: jq.pauli(x=v, y=0.25, z=0.25).ptm))(0.5)
    np.testing.assert_allclose(slope, np.diag([0.0, 0, -2, -2]), atol=1e-14)


# --- Any parameters -------------------------------------------------------------------------------

probability = st.floats(0, 1)


def check_positivity(p, ratio):
    def choi_is_positive(channel):
        # Choi matrix with the transposed input, from the transfer matrix alone.
        ptm = np.asarray(channel.ptm, dtype=float)
        choi = sum(
            ptm[i, j] * np.kron(dense.PAULIS[i], dense.PAULIS[j].T)
            for i in range(4)
            for j in range(4)
        )
        return np.linalg.eigvalsh(choi).min() > -5e-6 and np.allclose(ptm[0], [1, 0, 0, 0])

    total = max(1.0, p[0] + p[1] + p[2])
    channels = [
        jq.pauli(x=p[0] / total, y=p[1] / total, z=p[2] / total),
        jq.depolarizing(error_prob=p[3]),
        jq.depolarizing(mix=p[3]),
        jq.dephasing(error_prob=p[4]),
        jq.bit_flip(error_prob=p[5]),
        jq.amplitude_damping(gamma=p[6]),
        jq.generalized_amplitude_damping(gamma=p[6], excited_population=p[7]),
        jq.thermal_relaxation(
            t1=0.5 + p[6], t2=(0.5 + p[6]) * ratio, time=5 * p[8], excited_population=p[7]
        ),
    ]
    product = channels[0]
    for channel in channels:
        assert choi_is_positive(channel)
        product = product.then(channel)
    assert choi_is_positive(product)


@pytest.mark.parametrize("examples", [30, further(100)])
def test_every_channel_is_completely_positive_for_any_parameters(examples):
    given = hypothesis.given(st.lists(probability, min_size=9, max_size=9), st.floats(1e-3, 2))
    hypothesis.settings(deadline=None, max_examples=examples)(given(check_positivity))()


# --- Refusal --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: jq.dephasing(error_prob=1.2), ValueError,
         "`error_prob` must lie in [0, 1], but got 1.2."),
        (lambda: jq.bit_flip(error_prob=np.array([0.1, -0.1])), ValueError, "`error_prob` must"),
        (lambda: jq.amplitude_damping(gamma=float("nan")), ValueError,
         "`gamma` must lie in [0, 1], but got nan."),
        (lambda: jq.depolarizing(), ValueError, "exactly one of them, but got neither"),
        (lambda: jq.depolarizing(mix=0.1, error_prob=0.1), ValueError, "but got both"),
        (lambda: jq.depolarizing(mix=1.1), ValueError, "`mix` must lie in [0, 1], but got 1.1."),
        (lambda: jq.pauli(x=0.5, y=0.4, z=0.2), ValueError, "`x + y + z` must lie in [0, 1]"),
        (lambda: jq.thermal_relaxation(t1=1.0, t2=2.1, time=1.0), ValueError,
         "`t2` must be at most 2 t1"),
        (lambda: jq.thermal_relaxation(t1=0.0, t2=0.1, time=1.0), ValueError,
         "`t1` must be above 0"),
        (lambda: jq.thermal_relaxation(t1=1.0, t2=1.0, time=-1.0), ValueError,
         "`time` must be at least 0, but got -1.0."),
        (lambda: jq.generalized_amplitude_damping(gamma=0.1, excited_population=2), ValueError,
         "`excited_population` must lie in [0, 1], but got 2."),
        (lambda: jq.from_kraus(np.eye(2)), ValueError, "`kraus` must have the shape"),
        (lambda: jq.from_kraus(0.9 * np.eye(2)[None]), ValueError, "`kraus` must preserve"),
        (lambda: jq.dephasing(error_prob="some"), TypeError, "must be a real number"),
        (lambda: jq.dephasing(error_prob=0.1j), TypeError, "must be a real number"),
        (lambda: jq.channels.identity().then(np.eye(4)), TypeError, "`other` must be a Channel"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
