"""A secure training: the numbers of a plain one, and a bound on what others learn."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest
from flax import serialization
from saved import last_state

from jaxqring._files import read_metrics
from jaxqring.jobs import TrainConfig, train
from jaxqring.jobs import _training_job as loop
from jaxqring.jobs._load import load_config
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.jobs._security_curves import cost_of, curve, security_curves
from jaxqring.secure._bounds import epsilon
from jaxqring.show import _tables as tables
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig

STEPS = 4
# At zero tolerance hardly a step of the "aborted" run is verified: of some 2,500 masks of 16 bits,
# a percent of whose qubit states disagree, all would have to pass.
RUNS = (
    RunConfig("plain", noise="off"),
    RunConfig("perfect", noise="off", security=SecurityConfig()),
    RunConfig(
        "corrected",
        noise="off",
        security=SecurityConfig(ghz_fidelity=0.9999, tolerance=0.02, correction=(255, 131, 18)),
    ),
    RunConfig("bare", noise="off", security=SecurityConfig(ghz_fidelity=0.9999, tolerance=0.02)),
    RunConfig("aborted", noise="off", security=SecurityConfig(ghz_fidelity=0.99)),
)
JOB = TrainConfig(
    data=DataConfig("digits"),
    model="mlp",
    nodes=4,
    batch_per_node=8,
    steps=STEPS,
    learning_rate=0.02,
    eval_every=2,
    runs=RUNS,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The summary, by run, and the lines of one job."""
    config = dataclasses.replace(JOB, out=str(tmp_path_factory.mktemp("secure")))
    summary = train(config)
    lines = read_metrics(config.folder / "metrics.jsonl")
    return config, {run["name"]: run for run in summary["runs"]}, lines, summary


def losses(lines, name):
    return [line["loss"] for line in lines if line["run"] == name]


def test_masks_change_nothing_and_a_failed_verification_changes_nothing_at_all(tmp_path):
    """The job below in short."""
    runs = (RUNS[0], RUNS[1], RUNS[4])
    config = dataclasses.replace(JOB, steps=2, runs=runs, out=str(tmp_path))
    summary = train(config)
    lines = read_metrics(config.folder / "metrics.jsonl")
    assert losses(lines, "perfect") == losses(lines, "plain")
    assert losses(lines, "aborted")[0] == losses(lines, "plain")[0]
    results = {run["name"]: run for run in summary["runs"]}
    assert [results[run.name]["security"]["aborted_steps"] for run in runs[1:]] == [0, 2]
    assert results["perfect"]["security"]["epsilon_total"] < 0.1
    table = tables.security_table(summary)
    assert list(table.columns[0].cells) == ["perfect", "aborted"]
    assert list(table.columns[6].cells) == ["0", "2"]
    assert "security" not in results["plain"]


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["perfect", "corrected"])
def test_right_sums_train_bit_for_bit_as_the_plain_ring(job, name):
    config, runs, lines, _ = job
    assert losses(lines, name) == losses(lines, "plain")
    masked, plain = (jax.tree.leaves(last_state(config, run)) for run in (name, "plain"))
    for found, wanted in zip(masked, plain, strict=True):
        assert np.asarray(found).tobytes() == np.asarray(wanted).tobytes()
    assert runs[name]["security"]["uncorrected_sum_rate"] == 0


@pytest.mark.matrix
def test_masks_change_the_roundings_of_an_optimized_program_alone(tmp_path):
    """By the command line and at the compiler's full strength, which the tests go without.

    The masked means are the plain ones, bit for bit; the compiler fuses the optimizer behind them
    in another way, so that parameters differ in their last bits (by 8e-7 when this was written).
    """
    code = "import sys; from jaxqring import cli; sys.exit(cli.main(sys.argv[1:]))"
    config = Path(__file__).parents[2] / "configs" / "secure.toml"
    flags = ["--config", str(config), "--steps", "3", "--out", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-c", code, "train", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    job = dataclasses.replace(load_config(config, TrainConfig), steps=3, out=str(tmp_path))
    names = ("plain", "perfect", "0.99999 coded", "0.9999 coded")
    plain, perfect, *coded = (last_state(job, name) for name in names)
    for other in coded:
        jax.tree.map(np.testing.assert_array_equal, other, perfect)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, perfect)


@pytest.mark.statistics
def test_wrong_sums_are_as_many_as_the_states_say(job):
    _, runs, _, _ = job
    found = runs["bare"]["security"]
    source = RUNS[3].security.source(4, 0.99)
    # A sum is wrong if one of 3 x 16 states is (some cancel, which is rarer than 1 in 16).
    expected = 1 - (1 - float(source.x_error)) ** 48
    sums = STEPS * runs["bare"]["parameters"]
    spread = math.sqrt(expected / sums)
    # Seven standard errors: it fails by chance once in 1e11 times.
    assert abs(found["wrong_sum_rate"] - expected) < 7 * spread + expected / 16
    assert found["wrong_sum_rate"] == found["uncorrected_sum_rate"] > 0
    assert runs["corrected"]["security"]["wrong_sum_rate"] > 0


@pytest.mark.matrix
def test_an_aborted_step_changes_nothing_but_its_number(job):
    config, runs, lines, _ = job
    own = [line for line in lines if line["run"] == "aborted"]
    assert [line["aborted"] for line in own] == [1] * STEPS
    assert [line["attempts"] for line in own] == [3] * STEPS
    assert runs["aborted"]["security"]["aborted_steps"] == STEPS
    saved, step = last_state(config, "aborted")
    fresh = serialization.to_state_dict(
        loop._initial_state(config.runs[0], config, datasets.load(config.data))
    )
    assert step == STEPS
    assert (saved.pop("step") == STEPS).all()
    assert (fresh.pop("step") == 0).all()
    for left, right in zip(jax.tree.leaves(saved), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(left, np.broadcast_to(right, left.shape))
    other, _ = last_state(config, "plain")
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), other["params"], saved["params"])
    assert all(jax.tree.leaves(changed))


@pytest.mark.matrix
def test_the_guarantee_is_that_of_the_bounds(job):
    config, runs, _, _ = job
    for run in RUNS[1:]:
        found = runs[run.name]["security"]
        source = run.security.source(config.nodes, run.fidelity)
        security = run.security.build(source, [(runs[run.name]["parameters"], run.bits)], STEPS)
        bound = epsilon(security, runs[run.name]["parameters"], source, bits=run.bits, steps=STEPS)
        assert found["epsilon_total"] == bound.total
        assert found["overhead"] == bound.overhead
        # Each attempt uses up the copies that the bound speaks of.
        assert found["copies"] == found["attempts"] * bound.copies
    assert "security" not in runs["plain"]


def test_the_target_of_a_run_is_met():
    chosen = SecurityConfig(ghz_fidelity=0.9999, target_epsilon=1e-6)
    source = chosen.source(8, 0.99)
    security = chosen.build(source, [(1000, 16)], 50)
    assert epsilon(security, 1000, source, bits=16, steps=50).total <= 1e-6


@pytest.mark.parametrize("noise", ["depolarizing", "dephasing", "white"])
@pytest.mark.parametrize("fidelity", [1.0, 0.9999, 0.6])
@pytest.mark.parametrize("nodes", [3, 8])
def test_the_states_have_the_fidelity_that_was_asked_for(noise, fidelity, nodes):
    source = SecurityConfig(noise=noise, ghz_fidelity=fidelity).source(nodes, 1.0)
    assert abs(float(source.fidelity) - fidelity) < 3e-7


def test_fused_states_have_the_fidelity_of_their_pairs():
    source = SecurityConfig(noise="fused").source(3, 0.95)
    assert abs(float(source.fidelity) - 0.902778) < 1e-6


def test_the_security_of_a_job_is_that_of_every_ring_run_without_its_own(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(
        '[security]\nbucket = 5\n[[runs]]\nname = "a"\ncollective = "classical"\n'
        '[[runs]]\nname = "b"\n[[runs]]\nname = "c"\n[runs.security]\nbucket = 7\n'
    )
    runs = load_config(path).runs
    assert runs[0].security is None
    assert [run.security.bucket for run in runs[1:]] == [5, 7]


@pytest.mark.parametrize(
    "text, words",
    [
        ("[security]\nghz_fidelity = 0.5", ["ghz_fidelity", "(0.5, 1]", "0.5"]),
        ("[security]\nbucket = 4", ["bucket", "odd", "4"]),
        ("[security]\ntarget_epsilon = 0.0", ["target_epsilon", "(0, 1)", "0.0"]),
        ("[security]\ntolerance = 0.5", ["tolerance", "0.5"]),
        ('[security]\nnoise = "fused"\nghz_fidelity = 0.9', ["ghz_fidelity", "fused", "0.9"]),
        ('[security]\namplification = "universal"', ["amplification", "universal"]),
        ("[security]\ncorrection = [63, 60, 10]", ["`t`", "10"]),
        ("[security]\nepsilon = 0.1", ["epsilon"]),
        ("nodes = 2\n[security]\nbucket = 3", ["nodes", "at least 3", "2"]),
        ('[[runs]]\nnoise = "gaussian"\n[runs.security]\nbucket = 3', ["noise", "masks"]),
        ('[[runs]]\nwire = "float32"\n[runs.security]\nbucket = 3', ["wire", "masks"]),
        ('[[runs]]\ncollective = "classical"\n[runs.security]\nbucket = 3', ["security"]),
    ],
)
def test_a_security_that_cannot_be_is_refused(tmp_path, text, words):
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"`.*` must ") as refusal:
        load_config(path)
    for word in words:
        assert word in str(refusal.value)


def test_a_target_out_of_reach_is_refused_with_the_least_that_is_not():
    chosen = SecurityConfig(ghz_fidelity=0.6, target_epsilon=1e-6)
    with pytest.raises(ValueError, match="target_epsilon` must be at least"):
        chosen.build(chosen.source(4, 1.0), [(100, 16)], 1)


@pytest.mark.matrix
def test_the_figure_is_a_picture(job):
    from jaxqring.show._security_figure import draw_security

    config, *_, summary = job
    path = draw_security(config.folder, summary, security_curves(summary))
    assert matplotlib.image.imread(path).shape[0] > 500
    assert json.loads((config.folder / "summary.json").read_text())["name"] == config.name


def test_worse_states_cost_more_copies_for_the_same_epsilon():
    costs = [cost_of(1e-6, *curve(loss, 1000, 8, 16)) for loss in (1e-6, 1e-4, 1e-3)]
    assert costs[0] < costs[1] < costs[2]


def test_the_cost_of_a_target_lies_between_those_of_its_neighbours():
    copies, epsilons = np.array([3.0, 6.0, 12.0]), np.array([1e-2, 1e-4, 1e-6])
    assert math.isclose(cost_of(1e-3, copies, epsilons), math.sqrt(18.0))
    assert cost_of(1e-1, copies, epsilons) == 3.0
    assert math.isnan(cost_of(1e-9, copies, epsilons))


def test_the_table_of_the_guarantees_counts_copies_in_millions():
    security = {
        "ghz_fidelity": 0.9999,
        "epsilon_per_step": 1.25e-7,
        "epsilon_total": 1.0,
        "is_vacuous": True,
        "overhead": 6.04,
        "copies_per_step": 1_234_567.0,
        "aborted_steps": 2,
        "wrong_sum_rate": 0.0,
        "uncorrected_sum_rate": 3e-12,
    }
    runs = [{"name": "plain"}, {"name": "secure", "security": security}]
    table = tables.security_table({"name": "job", "runs": runs})
    cells = [list(column.cells) for column in table.columns]
    row = ["secure", "0.9999", "1.2e-7", "vacuous", "6.0", "1.235", "2", "0", "3.0e-12"]
    assert cells == [[cell] for cell in row]
    assert table.columns[5].header == "1e6\na step"
