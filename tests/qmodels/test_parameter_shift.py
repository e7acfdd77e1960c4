"""The shift rule against JAX and against values computed elsewhere; its shots against their law."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxqring.qmodels import (
    Circuit,
    from_tensorcircuit,
    hardware_efficient,
    parameter_shift,
    sampled_expectations,
    z_values,
)

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
CIRCUIT = hardware_efficient(3, 2, features=6)
Z = z_values(3)


def parameters():
    index = np.indices((2, 2, 2, 3)).astype(float)
    angles = 0.4 + 0.1 * index[0] - 0.2 * index[1] + 0.15 * index[2] + 0.05 * index[3]
    return {
        "weight": jnp.asarray(angles[:, 0], jnp.float32),
        "bias": jnp.asarray(angles[:, 1], jnp.float32),
        "last": jnp.array([[0.2, -0.1, 0.4]]),
    }


X = jnp.array([0.5, -1, 0.25, 1, 0.3, -0.6])
ANGLES = CIRCUIT.encode(parameters(), X)


def shifted(angles, step):
    return {**angles, "layers": angles["layers"].at[0, 0, 0].add(step)}


def test_the_rule_is_the_derivative_of_every_angle():
    found = parameter_shift(CIRCUIT, ANGLES, Z)
    expected = jax.jacrev(lambda angles: CIRCUIT.expectations(angles, Z))(ANGLES)
    jax.tree.map(close, found.derivative, expected)
    assert found.circuits == 2 * CIRCUIT.num_angles == 30
    assert found.shots is None
    assert not any(leaf.any() for leaf in jax.tree.leaves(found.variance))
    circuit = Circuit(4, 2, ("rx", "rzz-ring", "ry", "cnot-ring"), ("rz", "rx"))
    keys = jax.random.split(jax.random.key(3))
    angles = {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, circuit.shapes.items(), strict=True)
    }
    found = parameter_shift(circuit, angles, z_values(4)).derivative
    expected = jax.jacrev(lambda angles: circuit.expectations(angles, z_values(4)))(angles)
    jax.tree.map(close, found, expected)


def test_the_shifted_circuits_have_their_values():
    up = CIRCUIT.expectations(shifted(ANGLES, np.pi / 2), Z)
    down = CIRCUIT.expectations(shifted(ANGLES, -np.pi / 2), Z)
    close(up, [-0.488333, 0.979689, 0.810550])
    close(down, [0.510847, 0.929667, 0.406009])
    one_shot = parameter_shift(CIRCUIT, ANGLES, Z, shots=1, key=jax.random.key(0)).variance
    close(one_shot["layers"][:, 0, 0, 0], [0.375142, 0.043982, 0.294541])
    close(one_shot["layers"][:, 0, 0, 0], (2 - up**2 - down**2) / 4)


def test_a_loss_of_the_classifier_and_its_slopes_have_their_values():
    def loss(params, x):
        scores = 4 * CIRCUIT.expectations(CIRCUIT.encode(params, x), Z)
        return optax.softmax_cross_entropy_with_integer_labels(scores, jnp.array(1))

    value, slopes = jax.value_and_grad(loss)(parameters(), X)
    close(value, 0.373340226)
    close(slopes["bias"][0, 0, 0], -0.480545944)
    close(slopes["weight"][0, 0, 0], -0.240272972)


def test_derivatives_from_shots_have_their_mean_and_their_variance():
    # 20,000 runs of 10 shots. A mean is off by six of its standard errors with a chance of 2e-9,
    # a variance, whose relative standard error is sqrt(2 / 20,000) = 1 %, by 6 % likewise.
    @jax.jit
    @jax.vmap
    def run(key):
        return parameter_shift(CIRCUIT, ANGLES, Z, shots=10, key=key)

    found = run(jax.random.split(jax.random.key(1), 20_000))
    exact = parameter_shift(CIRCUIT, ANGLES, Z).derivative
    for name in exact:
        predicted = found.variance[name][0]
        off = np.abs(found.derivative[name].mean(0) - exact[name])
        assert (off <= 6 * np.sqrt(predicted / 20_000) + 2e-6).all()
        np.testing.assert_allclose(found.derivative[name].var(0), predicted, rtol=0.06, atol=1e-7)


def test_all_observables_are_read_from_the_same_outcomes():
    # <Z_0 Z_1> and its factors: of one shot, the product of two outcomes is the outcome of both.
    both = np.stack([Z[:, 0], Z[:, 1], Z[:, 0] * Z[:, 1]], axis=1)
    keys = jax.random.split(jax.random.key(2), 500)
    found = jax.vmap(lambda key: sampled_expectations(CIRCUIT, ANGLES, both, shots=1, key=key))(
        keys
    )
    np.testing.assert_array_equal(found[:, 0] * found[:, 1], found[:, 2])
    assert set(np.unique(found)) == {-1, 1}


def test_frequencies_are_those_of_the_state():
    # 2e5 shots over eight outcomes: each within six standard errors, with a chance of 2e-9 each.
    shots = 200_000
    probs = np.abs(np.asarray(CIRCUIT.state(ANGLES))) ** 2
    found = sampled_expectations(CIRCUIT, ANGLES, np.eye(8), shots=shots, key=jax.random.key(4))
    assert (np.abs(found - probs) <= 6 * np.sqrt(probs * (1 - probs) / shots) + 1e-6).all()
    close(found.sum(), 1)


def loss_from_shots(angles, key, shots):
    means = sampled_expectations(CIRCUIT, angles, Z, shots=shots, key=key)
    return jnp.sum(means**2) / 2


def test_the_slope_of_a_loss_from_shots_is_a_product_of_independent_means():
    # The mean of a product of independent means is the exact slope; 20,000 runs of 4 shots.
    run = jax.jit(jax.vmap(lambda key: jax.grad(loss_from_shots)(ANGLES, key, 4)))
    found = run(jax.random.split(jax.random.key(5), 20_000))
    exact = jax.grad(lambda a: jnp.sum(CIRCUIT.expectations(a, Z) ** 2) / 2)(ANGLES)
    for name in exact:
        error = found[name].std(0) / np.sqrt(20_000)
        assert (np.abs(found[name].mean(0) - exact[name]) <= 6 * error + 2e-6).all()
    # The value is not: E[m^2] = <Z>^2 + Var / shots, which the docstring names.
    values = jax.vmap(lambda key: loss_from_shots(ANGLES, key, 4))(
        jax.random.split(jax.random.key(6), 20_000)
    )
    means = np.asarray(CIRCUIT.expectations(ANGLES, Z))
    biased = np.sum(means**2 + (1 - means**2) / 4) / 2
    assert abs(values.mean() - biased) < 6 * values.std() / np.sqrt(20_000)


def test_observables_have_a_derivative_too():
    def mean(values):
        return sampled_expectations(CIRCUIT, ANGLES, values, shots=100, key=jax.random.key(7))[0]

    slope = jax.grad(mean)(jnp.asarray(Z))
    close(slope[:, 0].sum(), 1)
    close(slope[:, 1:], 0)


def test_nodes_average_their_shots_away(every_mapping):
    # The variance of the mean of four nodes is a quarter: each with 2,000 samples, whose variance
    # has a relative standard error of 3.2 %; all of 15 slopes within 20 %, six of them.
    def step(key, angles):
        keys = jax.random.split(key, 2000)
        own = jax.vmap(lambda key: jax.grad(loss_of_one)(angles, key)["layers"])(keys)
        return lax.pmean(own, "nodes"), own

    def loss_of_one(angles, key):
        return sampled_expectations(CIRCUIT, angles, Z, shots=3, key=key)[0]

    keys = jax.random.split(jax.random.key(8), 4)
    # Replicas of their own: by angles that are shared, JAX adds up the gradients of all nodes.
    replicas = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), ANGLES)
    mean, own = every_mapping(step, 4)(keys, replicas)
    np.testing.assert_array_equal(mean[0], mean[1])
    predicted = parameter_shift(CIRCUIT, ANGLES, Z, shots=3, key=keys[0]).variance["layers"][0]
    np.testing.assert_allclose(own[1].var(0), predicted, rtol=0.2, atol=1e-7)
    np.testing.assert_allclose(mean[0].var(0), predicted / 4, rtol=0.2, atol=1e-7)


def test_a_circuit_of_tensorcircuit_may_be_shifted_if_its_user_says_so():
    def layer(circuit, angles):
        for q in range(2):
            circuit.rx(q, theta=angles[0, q])
        circuit.rzz(0, 1, theta=angles[1, 0])
        circuit.h(0)

    angles = {"layers": jnp.linspace(0.1, 0.8, 8).reshape(2, 2, 2), "last": jnp.zeros((0, 2))}
    values = z_values(2)
    circuit = from_tensorcircuit(layer, 2, 2, 2, shift_rule=True)
    expected = jax.jacrev(lambda angles: circuit.expectations(angles, values))(angles)
    jax.tree.map(close, parameter_shift(circuit, angles, values).derivative, expected)
    unsaid = from_tensorcircuit(layer, 2, 2, 2)
    with pytest.raises(ValueError, match=r"`circuit` must have a Pauli as generator"):
        parameter_shift(unsaid, angles, values)


@pytest.mark.parametrize(
    "keywords, error, sentence",
    [
        ({"shots": 0, "key": jax.random.key(0)}, ValueError, r"`shots` must be an integer in"),
        ({"shots": 10**7, "key": jax.random.key(0)}, ValueError, r"`shots` must be"),
        ({"shots": 1.5, "key": jax.random.key(0)}, ValueError, r"`shots` must be an integer"),
        ({"shots": 10}, TypeError, r"`key` must be a typed key"),
        ({"key": jax.random.key(0)}, ValueError, r"`key` must be left out without shots"),
    ],
)
def test_shots_that_cannot_be_are_refused(keywords, error, sentence):
    with pytest.raises(error, match=sentence):
        parameter_shift(CIRCUIT, ANGLES, Z, **keywords)
    if "shots" in keywords:
        with pytest.raises(error, match=sentence):
            sampled_expectations(CIRCUIT, ANGLES, Z, **{"key": None, **keywords})


def test_controlled_rotations_are_refused_and_indeed_not_shifted_by_the_rule():
    circuit = Circuit(3, 1, ("ry", "crz-ring", "ry"))
    angles = {"layers": jnp.linspace(0.5, 2.5, 9).reshape(1, 3, 3), "last": jnp.zeros((0, 3))}
    with pytest.raises(ValueError, match=r"`circuit` must have a Pauli as generator"):
        parameter_shift(circuit, angles, Z)
    exact = jax.jacrev(lambda angles: circuit.expectations(angles, Z))(angles)["layers"][:, 0, 1, 0]

    def at(step):
        moved = {**angles, "layers": angles["layers"].at[0, 1, 0].add(step)}
        return circuit.expectations(moved, Z)

    assert np.abs((at(np.pi / 2) - at(-np.pi / 2)) / 2 - exact).max() > 0.01
