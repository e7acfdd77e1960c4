"""Training jobs of a quantum model: over every ring, from shots, and on principal components."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from saved import last_state

from jaxqring._files import read_metrics
from jaxqring.jobs import TrainConfig, train
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._load import load_config
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.ring import Ring
from jaxqring.train import DataConfig, QuantumConfig, TaskConfig, load, training

BCH = CodeConfig("bch", 255, 187, 9)
RUNS = (
    RunConfig("classical", "classical"),
    RunConfig("ideal", noise="off"),
    RunConfig("noisy", fidelity=0.95),
    RunConfig("protected", fidelity=0.99, protection=BCH),
    RunConfig("secure", noise="off", security=SecurityConfig(ghz_fidelity=1.0)),
)
JOB = TrainConfig(
    "job",
    data=DataConfig("digits", features=8),
    model="quantum",
    quantum=QuantumConfig(qubits=4, layers=2),
    nodes=4,
    batch_per_node=16,
    steps=30,
    eval_every=30,
    learning_rate=0.1,
    mapping="vmap",
    runs=RUNS,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The configuration, the results and the lines of one whole job, by run."""
    config = dataclasses.replace(JOB, out=str(tmp_path_factory.mktemp("job")))
    results = {run["name"]: run for run in train(config)["runs"]}
    lines = {name: [] for name in results}
    for line in read_metrics(config.folder / "metrics.jsonl"):
        lines[line["run"]].append(line)
    return config, results, lines


def test_every_ring_trains_the_circuit(job):
    _, results, lines = job
    for name in ("classical", "ideal", "protected", "secure"):
        assert lines[name][-1]["loss"] < lines[name][0]["loss"] - 0.3
    # 4 qubits, 2 layers of 2 slots, weights and biases, 4 last angles, 9 x 10 of the readout.
    assert results["ideal"]["parameters"] == 2 * 16 + 4 + (8 + 1) * 10
    assert results["noisy"]["replica_drift"] > 0


def test_protected_and_secure_rings_end_in_the_bits_of_the_ideal_one(job):
    config, results, lines = job
    states = {name: last_state(config, name)[0]["params"] for name in ("ideal", "protected")}
    jax.tree.map(np.testing.assert_array_equal, states["ideal"], states["protected"])
    for name in ("protected", "secure"):
        assert [line["loss"] for line in lines[name]] == [line["loss"] for line in lines["ideal"]]
        assert results[name]["parameter_agreement"] == 1
    assert results["protected"]["undelivered"] == 0
    # A message is 32 codes of 16 bits and three checksums, in three codewords, the last shortened.
    assert results["protected"]["net_bits_per_online_qubit"] > 1


def test_shots_are_drawn_anew_by_node_and_step_and_drawn_again_after_a_restart(tmp_path):
    config = dataclasses.replace(
        JOB,
        steps=4,
        eval_every=2,
        quantum=QuantumConfig(qubits=4, layers=2, shots=20),
        runs=RUNS[1:2],
    )
    lines = []
    for name in ("first", "second"):
        other = dataclasses.replace(config, out=str(tmp_path / name))
        train(other)
        lines.append([line["loss"] for line in read_metrics(other.folder / "metrics.jsonl")])
        summary = json.loads((other.folder / "summary.json").read_text())
        assert summary["runs"][0]["parameter_agreement"] == 1
    assert lines[0] == lines[1]
    exact = dataclasses.replace(JOB, out=str(tmp_path), steps=4, runs=RUNS[1:2])
    train(exact)
    without = [line["loss"] for line in read_metrics(exact.folder / "metrics.jsonl")]
    # The first loss is that of the same parameters and images, but for the shots.
    assert without[0] != lines[0][0]
    assert abs(without[0] - lines[0][0]) < 0.5


def test_principal_components_are_those_of_the_training_images():
    whole, part = load(DataConfig("digits")), load(DataConfig("digits", features=8))
    train_images, test_images = (
        images.reshape(len(images), -1).astype(float)
        for images in (whole.train_images, whole.test_images)
    )
    assert part.train_images.shape == (len(train_images), 1, 8, 1)
    mean = train_images.mean(0)
    _, singular, rows = np.linalg.svd(train_images - mean, full_matrices=False)
    scale = singular[:8] / np.sqrt(len(train_images) - 1)
    for images, found in ((train_images, part.train_images), (test_images, part.test_images)):
        expected = (images - mean) @ rows[:8].T / scale
        found = found.reshape(-1, 8)
        sign = np.sign(np.sum(expected * found, axis=0))
        np.testing.assert_allclose(found, expected * sign, atol=2e-4)
    np.testing.assert_array_equal(part.test_labels, whole.test_labels)


def test_more_components_than_images_have_are_refused():
    images = load(DataConfig("digits")).train_images.reshape(-1, 64)
    rank = np.linalg.matrix_rank(images - images.mean(0), tol=1e-3)
    assert rank < 64  # some pixels are the same on every image
    for features, most in ((65, 64), (64, rank)):
        with pytest.raises(ValueError, match=rf"`data.features` must be at most {most}"):
            load(DataConfig("digits", features=features))


def test_a_sweep_trains_a_quantum_model_too():
    quantum = QuantumConfig(qubits=4, layers=1)
    task = TaskConfig(
        DataConfig("digits", features=8), "quantum", nodes=2, steps=2, quantum=quantum
    )
    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.jit(training(task))(Ring(noise="off"), keys)
    assert 0 <= found["accuracy"] <= 1
    assert np.isfinite(found["loss"])


@pytest.mark.parametrize(
    "text, words",
    [
        ('model = "quantum"', ["data.features", "multiple of the 8 qubits", "0"]),
        ('model = "quantum"\n[data]\nfeatures = 12', ["data.features", "8 qubits", "12"]),
        ("[quantum]\nqubits = 4", ["quantum", 'unless model = "quantum"']),
        ("[data]\nfeatures = 8", ["data.features", 'model = "cnn"', "8"]),
        ("[data]\nfeatures = -8", ["data.features", "at least 0", "-8"]),
        ('model = "quantum"\n[quantum]\nqubits = 15', ["qubits", "[1, 14]", "15"]),
        ('model = "quantum"\n[quantum]\nshots = 0', ["quantum.shots", "at least 1", "0"]),
        ('model = "quantum"\n[quantum]\nlayers = 0', ["quantum.layers", "at least 1", "0"]),
        ('model = "quantum"\n[quantum]\nreadout = "x"', ["readout", "linear", "x"]),
        ('model = "quantum"\n[quantum]\nengine = "qiskit"', ["engine", "tensorcircuit", "qiskit"]),
    ],
)
def test_configurations_that_cannot_be_are_refused_in_one_sentence(text, words, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="must") as refusal:
        load_config(path)
    for word in words:
        assert word in str(refusal.value)


def test_what_data_and_model_cannot_have_together_is_refused_before_anything_is_written(tmp_path):
    config = dataclasses.replace(
        JOB, out=str(tmp_path), quantum=QuantumConfig(qubits=4, layers=2, readout="z")
    )
    with pytest.raises(ValueError, match=r"`classes` must be at most the 4 qubits"):
        train(config)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"`task.quantum.shots` must be left out"):
        TaskConfig(DataConfig(features=8), "quantum", quantum=QuantumConfig(shots=10))
