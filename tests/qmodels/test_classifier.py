"""The Flax module of a quantum classifier: parameters, readouts, shots, and the ring around it."""

import functools

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring.qmodels import QuantumClassifier, hardware_efficient, readout_values, z_values

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
SAMPLES = jax.random.normal(jax.random.key(9), (5, 6))


def made(**options):
    model = QuantumClassifier(**({"qubits": 3, "layers": 2, "classes": 3} | options))
    return model, model.init(jax.random.key(1), SAMPLES)["params"]


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "options, features, count",
    [
        ({"qubits": 8, "layers": 6, "classes": 10}, 16, 370),
        ({"qubits": 8, "layers": 4, "classes": 10}, 16, 306),  # 27 n L / ... written out below
        ({"qubits": 8, "layers": 6, "classes": 4, "readout": "z"}, 16, 201),
    ],
)
def test_the_number_of_parameters_is_that_of_slots_and_readout(options, features, count):
    model = QuantumClassifier(**options)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, features)))["params"]
    n, layers, classes = options["qubits"], options["layers"], options["classes"]
    readout = 1 if options.get("readout") == "z" else (2 * n + 1) * classes
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(params)) == count
    assert count == 2 * (2 * n * layers) + n + readout


@pytest.mark.parametrize("engine", ["statevector", "tensorcircuit"])
def test_scores_are_those_of_the_circuit(engine):
    circuit = hardware_efficient(3, 2, features=6)
    for readout in ("z", "linear"):
        model, params = made(readout=readout, engine=engine)
        scores = model.apply({"params": params}, SAMPLES.reshape(5, 2, 3, 1))
        for sample, found in zip(SAMPLES, scores, strict=True):
            z = z_values(3)
            state = circuit.state(circuit.encode(params["circuit"], sample))
            probs = np.abs(np.asarray(state)) ** 2
            if readout == "z":
                close(found, 4 * probs @ z)
                continue
            pairs = [probs @ (z[:, a] * z[:, b]) for a, b in ((0, 1), (1, 2), (2, 0))]
            dense = params["Dense_0"]
            close(found, np.array([*probs @ z, *pairs]) @ dense["kernel"] + dense["bias"])


def test_two_qubits_have_one_pair_of_neighbours():
    assert readout_values("linear", 2, 2).shape == (4, 3)
    assert readout_values("linear", 3, 2).shape == (8, 6)


def test_with_shots_each_sample_and_each_key_has_outcomes_of_its_own():
    model, params = made(shots=50, readout="z")
    same = jnp.broadcast_to(SAMPLES[:1], SAMPLES.shape)

    def scores(seed):
        return model.apply({"params": params}, same, rngs={"shots": jax.random.key(seed)})

    assert len(np.unique(np.asarray(scores(0)), axis=0)) == 5
    np.testing.assert_array_equal(scores(0), scores(0))
    assert (scores(0) != scores(1)).any()
    exact = model.clone(shots=None).apply({"params": params}, same)
    # Means of 50 outcomes of +-1, times 4: six standard deviations.
    assert np.abs(scores(0) - exact).max() < 6 * 4 / np.sqrt(50)
    with pytest.raises(flax.errors.InvalidRngError):
        model.apply({"params": params}, same)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"qubits": 15}, r"`qubits` must be an integer in \[1, 14\]"),
        ({"layers": 0}, r"`layers` must be"),
        ({"classes": 4, "readout": "z"}, r"`classes` must be at most the 3 qubits"),
        ({"readout": "argmax"}, r"`readout` must be one of"),
        ({"engine": "qiskit"}, r"`engine` must be one of"),
        ({"shots": 0}, r"`shots` must be an integer"),
        ({"qubits": 4}, r"`features` must have a multiple of 4"),
    ],
)
def test_models_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(**options)


def test_the_ring_averages_gradients_of_the_model_as_any_other(every_mapping):
    model, params = made()
    labels = jnp.arange(5) % 3

    def gradient(params, samples):
        def loss(params):
            scores = jax.nn.log_softmax(model.apply({"params": params}, samples))
            return -jnp.mean(scores[jnp.arange(5), labels])

        return jax.grad(loss)(params)

    ring = jq.Ring(noise="off")

    def step(samples, params, key):
        return jq.pmean(gradient(params, samples), "nodes", ring=ring, key=key)

    samples = jnp.stack([SAMPLES, -SAMPLES, 2 * SAMPLES, SAMPLES + 1])
    replicas = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), params)
    found = every_mapping(step, 4, shared=1)(samples, replicas, jax.random.key(0))
    alone = [gradient(params, own) for own in samples]
    # Fixed point of 16 bits, two of them guards: levels of 2^-13 of the largest value, four added.
    jax.tree.map(
        lambda of_nodes, *own: np.testing.assert_allclose(
            of_nodes, np.stack([sum(own) / 4] * 4), atol=2 * np.abs(own).max() * 2.0**-12
        ),
        found,
        *alone,
    )
