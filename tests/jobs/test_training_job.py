"""A job ends with the same numbers however it is mapped and however often it is cut off."""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from saved import last_state

from jaxqring import superdense, werner
from jaxqring._fields import as_written
from jaxqring._files import read_metrics, save_state
from jaxqring.jobs import TrainConfig, load_config, tensorboard, train
from jaxqring.jobs import _training_job as loop
from jaxqring.jobs import _training_loop as steps
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._training_folder import _identity
from jaxqring.jobs._training_programs import Programs, updates
from jaxqring.launch._checkpoints import Checkpoints
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig
from jaxqring.train._placement import Placement

NODES, STEPS = 8, 12
CLASSICAL = RunConfig("classical", collective="classical")
JOB = TrainConfig(
    data=DataConfig("digits"),
    model="mlp",
    nodes=NODES,
    batch_per_node=16,
    steps=STEPS,
    learning_rate=0.02,
    eval_every=5,
    runs=(
        CLASSICAL,
        RunConfig("ideal", noise="off", bits=32),
        RunConfig("noisy", fidelity=0.99, resync_every=7),
        RunConfig("protected", fidelity=0.99, bits=32, protection=CodeConfig()),
    ),
)
SMALL = dataclasses.replace(
    JOB, nodes=2, batch_per_node=4, steps=4, eval_every=2, runs=(CLASSICAL,)
)
REQUIRED = {
    "name",
    "test_accuracy",
    "online_bits_per_link_step",
    "online_qubits_per_link_step",
    "epr_pairs_per_link_step",
    "net_bits_per_online_qubit",
    "capacity_bits_per_online_qubit",
    "retransmissions",
    "undelivered",
    "resync_bits_per_link",
    "symbol_error_rate",
    "replica_agreement",
    "replica_drift",
}


class CutError(BaseException):
    """The end of a process, wherever it strikes."""


def without_seconds(summary):
    """The summary but for the times and for where it was written."""
    runs = [{k: v for k, v in run.items() if k != "seconds"} for run in summary["runs"]]
    config = {k: v for k, v in summary["config"].items() if k not in ("out", "mapping", "resume")}
    return {**summary, "runs": runs, "config": config}


def metrics_of(folder):
    return read_metrics(folder / "metrics.jsonl")


def outcome(config):
    """All numbers of a finished job."""
    return metrics_of(config.folder), without_seconds(
        json.loads((config.folder / "summary.json").read_text())
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The configuration, the summary and the lines of one whole job."""
    config = dataclasses.replace(JOB, out=str(tmp_path_factory.mktemp("job")))
    summary = train(config)
    lines = {run.name: [] for run in config.runs}
    for line in metrics_of(config.folder):
        lines[line["run"]].append(line)
    return config, summary, lines


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The outcome of a small job that was not cut off."""
    config = dataclasses.replace(SMALL, out=str(tmp_path_factory.mktemp("small")))
    train(config)
    return outcome(config)


@pytest.fixture
def again(tmp_path):
    """A small job of the same configuration as that of `small`, in a folder of its own."""
    return dataclasses.replace(SMALL, out=str(tmp_path))


def test_the_summary_is_what_train_returns(job):
    config, summary, _ = job
    text = (config.folder / "summary.json").read_text()
    # Through JSON once, so that the tuple of runs compares with a list.
    assert json.loads(text) == json.loads(json.dumps(summary))
    assert summary["name"] == config.name
    assert summary["config"] == as_written(config)
    assert summary["platform"] == "cpu"
    assert summary["mapping"] == "pmap"
    assert [run["name"] for run in summary["runs"]] == [
        "classical",
        "ideal",
        "noisy",
        "protected",
    ]
    for run in summary["runs"]:
        assert run.keys() >= REQUIRED
        assert 0 <= run["test_accuracy_worst_node"] <= run["test_accuracy"] <= 1
        assert run["steps"] == STEPS
        assert run["parameters"] == summary["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
        assert run["seconds"] > 0


def test_no_draft_is_left_behind(job):
    config, _, _ = job
    names = [run.name for run in config.runs]
    checkpoints = config.folder / "checkpoints"
    assert {str(path.relative_to(checkpoints)) for path in checkpoints.glob("*/*")} == {
        f"{name}/{STEPS}" for name in names
    }
    files = [path for path in config.folder.rglob("*.*") if checkpoints not in path.parents]
    assert {str(path.relative_to(config.folder)) for path in files} == {
        "config.json",
        "metrics.jsonl",
        "summary.json",
        *(f"results/{name}.json" for name in names),
    }


def test_the_traffic_is_that_of_a_ring_all_reduce(job):
    _, summary, _ = job
    classical, ideal, noisy, protected = summary["runs"]
    hops = 2 * (NODES - 1)
    chunk = -(-summary["parameters"] // NODES)
    assert classical["online_bits_per_link_step"] == hops * chunk * 32
    assert classical["online_qubits_per_link_step"] == 0
    assert classical["epr_pairs_per_link_step"] == 0
    # The payload alone: the scale of the fixed wire is agreed on by control bits.
    assert ideal["online_bits_per_link_step"] == hops * chunk * 32
    assert noisy["online_bits_per_link_step"] == hops * chunk * 16
    assert protected["online_bits_per_link_step"] == hops * chunk * 32
    for run in (ideal, noisy):
        assert 2 * run["online_qubits_per_link_step"] == run["online_bits_per_link_step"]
        assert run["epr_pairs_per_link_step"] == run["online_qubits_per_link_step"]


def test_protected_links_train_bit_for_bit_as_perfect_ones(job):
    config, summary, lines = job
    saved = [last_state(config, name) for name in ("ideal", "protected")]
    (ideal, end), (protected, same_end) = saved
    assert end == same_end == STEPS
    assert jax.tree.structure(ideal) == jax.tree.structure(protected)
    for wanted, found in zip(jax.tree.leaves(ideal), jax.tree.leaves(protected), strict=True):
        assert found.dtype == wanted.dtype
        assert found.tobytes() == wanted.tobytes()
    equal = ("loss", "train_accuracy", "replica_agreement", "saturated")
    for wanted, found in zip(lines["ideal"], lines["protected"], strict=True):
        assert [wanted[name] for name in equal] == [found[name] for name in equal]
    # 11 words on 14 hops of 8 links in 12 steps, of which one in 39 is sent again.
    words = 11 * 14 * NODES * STEPS
    run = summary["runs"][3]
    assert 0 < run["retransmissions"] < words / 10
    assert run["retransmissions"] == sum(line["retransmissions"] for line in lines["protected"])
    assert run["undelivered"] == run["symbol_errors"] == 0


def test_the_net_rate_is_that_of_what_was_sent(job):
    _, summary, lines = job
    classical, ideal, noisy, protected = summary["runs"]
    # Nobody knows which bits of a bare noisy link are right.
    assert classical["net_bits_per_online_qubit"] is noisy["net_bits_per_online_qubit"] is None
    assert classical["capacity_bits_per_online_qubit"] is None
    assert ideal["net_bits_per_online_qubit"] == ideal["capacity_bits_per_online_qubit"] == 2
    ceiling = float(superdense(werner(fidelity=0.99)).capacity())
    for run in (noisy, protected):
        assert run["capacity_bits_per_online_qubit"] == pytest.approx(ceiling, rel=1e-6)
    # RS(255, 223) words of 1020 qubits, each with 1752 bits of payload and 32 of checksum, but for
    # the last one of every message: the rest of its payload, 32 bits and 32 check symbols.
    bits = protected["online_bits_per_link_step"] // 14
    assert -(-bits // 1752) == 11
    last = 4 * (-(-(bits - 10 * 1752 + 32) // 8) + 32)
    assert last < 1020
    repeated = sum(line["repeated_qubits"] for line in lines["protected"])
    again = protected["retransmissions"]
    assert last * again <= repeated <= 1020 * again
    qubits = 14 * (10 * 1020 + last) + repeated / (NODES * STEPS)
    net = protected["online_bits_per_link_step"] / qubits
    assert protected["net_bits_per_online_qubit"] == pytest.approx(net, rel=1e-9)
    assert 1 < net < ceiling
    assert protected["online_qubits_per_link_step"] == round(qubits)
    assert protected["epr_pairs_per_link_step"] == round(qubits)
    for run in (classical, ideal, noisy):
        assert run["retransmissions"] == run["undelivered"] == 0


def test_replicas_drift_on_bare_noisy_links_alone_and_a_resync_brings_them_back(job):
    _, summary, lines = job
    drift = {name: [line["replica_drift"] for line in lines[name]] for name in lines}
    for name in ("classical", "ideal", "protected"):
        assert drift[name] == [0.0] * STEPS
    noisy = drift["noisy"]
    assert min(noisy) > 0
    # Measured before the replicas are averaged after step 7: it grows up to there, and the next
    # step starts from equal replicas, so that it is what one step does.
    assert noisy[:7] == sorted(noisy[:7])
    assert noisy[7:] == sorted(noisy[7:])
    assert noisy[7] < noisy[6] / 2
    for run in summary["runs"]:
        assert run["replica_drift"] == drift[run["name"]][-1]
    # Parameters and both moments of Adam, once, by a classical ring all-reduce of float32.
    chunk = -(-3 * summary["parameters"] // NODES)
    bits = [run["resync_bits_per_link"] for run in summary["runs"]]
    assert bits == [0, 0, 2 * (NODES - 1) * chunk * 32, 0]


def test_without_noise_all_replicas_agree(job):
    _, summary, lines = job
    for run in (*summary["runs"][:2], summary["runs"][3]):
        assert run["replica_agreement"] == run["parameter_agreement"] == 1.0
        assert run["symbol_error_rate"] == run["symbol_errors"] == 0
        assert run["test_accuracy"] == pytest.approx(run["test_accuracy_worst_node"], abs=1e-12)
        assert all(line["symbol_errors"] == 0 for line in lines[run["name"]])


def test_with_noise_symbols_are_lost_at_the_rate_of_the_pairs(job):
    _, summary, lines = job
    noisy = summary["runs"][2]
    # Werner pairs of fidelity 0.99 lose a symbol with probability 0.01, each on its own:
    # 67,424 symbols on each of 8 links in each of 12 steps, six standard deviations, so that
    # chance fails with a probability below 1e-8; and the key is fixed.
    sent = noisy["online_qubits_per_link_step"] * NODES * STEPS
    assert sent == 67_424 * 8 * 12
    assert abs(noisy["symbol_error_rate"] - 0.01) < 6 * math.sqrt(0.01 * 0.99 / sent)
    assert noisy["symbol_errors"] == sum(line["symbol_errors"] for line in lines["noisy"])
    assert noisy["symbol_error_rate"] == noisy["symbol_errors"] / sent
    assert noisy["replica_agreement"] < 1
    assert noisy["parameter_agreement"] < 1
    assert noisy["replica_agreement"] == pytest.approx(
        np.mean([line["replica_agreement"] for line in lines["noisy"]])
    )
    assert noisy["test_accuracy_worst_node"] < noisy["test_accuracy"]
    assert len({line["symbol_errors"] for line in lines["noisy"]}) > 1  # each step its own noise


def test_there_is_a_line_for_every_step_of_every_run(job):
    config, summary, lines = job
    for result in summary["runs"]:
        own = lines[result["name"]]
        assert [line["step"] for line in own] == list(range(1, STEPS + 1))
        looks = [line["step"] for line in own if "test_accuracy" in line]
        assert looks == [5, 10, 12]
        assert own[-1]["test_accuracy"] == result["test_accuracy"]
        for line in own:
            assert isinstance(line["symbol_errors"], int)
            assert isinstance(line["saturated"], int)
            assert 0 <= line["train_accuracy"] <= 1
            assert line["loss"] > 0
    text = (config.folder / "metrics.jsonl").read_text()
    assert len(text.splitlines()) == STEPS * len(config.runs)


def test_the_loss_falls(job):
    _, summary, lines = job
    for name in ("classical", "ideal"):
        loss = [line["loss"] for line in lines[name]]
        assert np.mean(loss[-3:]) < 0.6 * loss[0], loss
        assert lines[name][-1]["test_accuracy"] > lines[name][0]["train_accuracy"] + 0.3
    assert summary["runs"][0]["test_accuracy"] > 0.6


def test_an_ideal_ring_of_32_bits_trains_as_the_classical_all_reduce(job):
    _, _, lines = job
    loss = {name: [line["loss"] for line in lines[name]] for name in lines}
    assert loss["ideal"][0] == loss["classical"][0]  # the same start and the same images
    np.testing.assert_allclose(loss["ideal"], loss["classical"], rtol=1e-4)
    assert not np.allclose(loss["noisy"], loss["classical"], rtol=1e-4)


@pytest.mark.matrix
def test_shard_map_gives_the_numbers_of_pmap(job, tmp_path):
    config, summary, lines = job
    # Two of the four runs, for the time it takes to compile the others.
    runs = config.runs[::2]
    other = dataclasses.replace(config, mapping="shard_map", out=str(tmp_path), runs=runs)
    results = without_seconds(train(other))["runs"]
    assert results == without_seconds(summary)["runs"][::2]
    assert metrics_of(other.folder) == lines["classical"] + lines["noisy"]


@pytest.mark.matrix
def test_vmap_draws_the_errors_of_pmap_and_learns_the_same(job, tmp_path):
    # The last bits of the gradients may differ: the compiler batches the products of the nodes.
    config, _, lines = job
    runs = (CLASSICAL, config.runs[-1])
    other = dataclasses.replace(config, mapping="vmap", out=str(tmp_path), runs=runs)
    summary = train(other)
    assert (summary["platform"], summary["mapping"]) == ("cpu", "vmap")
    found = metrics_of(other.folder)
    expected = lines["classical"] + lines["protected"]
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        for name in ("symbol_errors", "retransmissions", "undelivered", "replica_agreement"):
            assert mine[name] == theirs[name]
        # Twelve steps of Adam on roundings of 6e-8.
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4)


def test_metrics_are_fetched_some_steps_at_a_time(tmp_path, monkeypatch):
    fetched, get = [], steps._fetched

    def counted(lines):
        fetched.append([line["step"] for line in lines])
        return get(lines)

    monkeypatch.setattr(steps, "_fetched", counted)
    monkeypatch.setattr(steps, "FETCHED_TOGETHER", 3)
    job = dataclasses.replace(
        SMALL, mapping="vmap", steps=7, eval_every=5, out=str(tmp_path), runs=(CLASSICAL,)
    )
    heard = []
    train(job, on_step=lambda *line: heard.append(line))
    assert fetched == [[1, 2, 3], [4, 5], [6, 7]]
    lines = metrics_of(job.folder)
    # Who listens hears what is written, as numbers.
    assert heard == [
        ("classical", line["step"], {k: x for k, x in line.items() if k not in ("run", "step")})
        for line in lines
    ]
    assert all(type(x) is float for *_, metrics in heard for x in metrics.values())
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert all(list(line)[:2] == ["run", "step"] for line in lines)
    assert [line["step"] for line in lines if "test_accuracy" in line] == [5, 7]


def test_a_step_waits_for_the_one_before_it_where_nodes_share_a_device(monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    monkeypatch.setattr(datasets, "batches", lambda *args: None)

    def step(state, batch, key, number):
        return state + 1, {"loss": state}

    device = jax.devices()[0]
    one, each = Placement("vmap", (device,), 2), Placement("pmap", (device, device), 2)
    cases = (one, [None, {"loss": 0}]), (each, [(1, {"loss": 0}), (2, {"loss": 1})])
    for placement, expected in cases:
        waited.clear()
        programs = Programs(placement, step, None, None, None)
        update = updates(CLASSICAL, SMALL, None, programs)
        state, _ = update(0, 0)
        update(state, 1)
        assert waited == expected


@pytest.mark.matrix
def test_a_single_node_has_nobody_to_talk_to(tmp_path):
    runs = (RunConfig("alone"),)
    config = dataclasses.replace(SMALL, nodes=1, steps=1, runs=runs, out=str(tmp_path))
    (run,) = train(config)["runs"]
    assert run["online_bits_per_link_step"] == run["symbol_errors"] == 0
    assert run["symbol_error_rate"] == 0
    assert run["replica_agreement"] == run["parameter_agreement"] == 1


@pytest.mark.matrix
def test_a_loss_that_is_not_finite_is_a_string(tmp_path):
    config = dataclasses.replace(SMALL, learning_rate=1e38, steps=3, out=str(tmp_path))
    summary = train(config)
    assert not math.isfinite(metrics_of(config.folder)[-1]["loss"])
    assert "NaN" not in (config.folder / "metrics.jsonl").read_text()
    assert json.loads((config.folder / "summary.json").read_text())["runs"][0]["steps"] == 3
    assert summary["runs"][0]["replica_agreement"] >= 0


def test_too_many_nodes_and_too_large_a_batch_are_refused_before_anything_is_written(tmp_path):
    for wrong, words in (
        ({"nodes": 9}, "`nodes` must be at most the 8 devices .*, but got 9"),
        ({"batch_per_node": 1000}, "`batch_per_node` must leave at most the 1437 .* got 1000"),
    ):
        with pytest.raises(ValueError, match=words):
            train(dataclasses.replace(SMALL, **wrong, out=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


# --- starting again, in this process ---

CHECKPOINT, RESULT, SUMMARY = 4, "results/classical.json", "train/summary.json"


@pytest.mark.parametrize(
    "when, place",
    [
        ("before", CHECKPOINT),
        pytest.param("before", RESULT, marks=pytest.mark.matrix),
        ("after", RESULT),
        pytest.param("before", SUMMARY, marks=pytest.mark.matrix),
    ],
)
@pytest.mark.matrix
def test_a_job_cut_off_at_a_write_ends_with_the_same_numbers(
    again, small, monkeypatch, when, place
):
    def cut(function, where):
        def writes(*arguments):
            now = place == where(*arguments)
            if now and when == "before":
                raise CutError
            function(*arguments)
            if now:
                raise CutError

        return writes

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", cut(Checkpoints.save, lambda own, step, state: step))
        named = cut(loop.write_whole, lambda path, content: f"{path.parent.name}/{path.name}")
        patch.setattr(loop, "write_whole", named)
        with pytest.raises(CutError):
            train(again)
    assert not (again.folder / "summary.json").exists()
    train(again)
    assert outcome(again) == small


def cut_after_its_first_checkpoint(config, monkeypatch):
    def cut(checkpoints, step, state):
        save(checkpoints, step, state)
        checkpoints.wait()
        raise CutError

    save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", cut)
        with pytest.raises(CutError):
            train(config)


def test_a_job_cut_off_goes_on_from_its_checkpoint(again, small, monkeypatch):
    cut_after_its_first_checkpoint(again, monkeypatch)
    # A process that died later left lines that no checkpoint speaks of, the last one cut short.
    with (again.folder / "metrics.jsonl").open("a") as file:
        file.write('{"run": "classical", "step": 3, "loss": -1}\n{"run": "classi')
    seen = []
    batches = datasets.batches

    def counted(data, step, *rest):
        seen.append(step)
        return batches(data, step, *rest)

    monkeypatch.setattr(datasets, "batches", counted)
    heard = []
    train(again, on_step=lambda run, step, metrics: heard.append(step))
    assert seen == [2, 3]
    assert heard == [3, 4]  # those that are computed, and no others
    assert outcome(again) == small


def test_a_job_cut_off_by_an_earlier_version_goes_on(tmp_path, monkeypatch):
    run = RunConfig("noisy", fidelity=0.95)
    config = dataclasses.replace(SMALL, runs=(run,), out=str(tmp_path))

    cut_after_its_first_checkpoint(config, monkeypatch)
    # A file for all of a checkpoint,
    state, step = last_state(config, "noisy")
    shutil.rmtree(config.folder / "checkpoints" / "noisy")
    before = config.folder / "checkpoints" / "noisy.msgpack"
    save_state(before, state, step)
    # metrics of before there were codewords or a drift, and a configuration of before links had
    # more than two parameters.
    metrics = config.folder / "metrics.jsonl"
    new = ("retransmissions", "repeated_qubits", "undelivered", "replica_drift")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    old = [{name: value for name, value in line.items() if name not in new} for line in lines]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in old))
    (there,) = json.loads((config.folder / "config.json").read_text())["runs"]
    assert "readout_error" not in there
    (result,) = train(config)["runs"]
    assert result["steps"] == 4
    assert result["symbol_errors"] == sum(x["symbol_errors"] for x in metrics_of(config.folder)) > 0
    assert result["retransmissions"] == result["undelivered"] == 0
    assert result["online_qubits_per_link_step"] == run.ring().cost(result["parameters"], 2).qubits
    there = [name in line for line in metrics_of(config.folder) for name in new]
    assert there == [False] * 8 + [True] * 8
    assert not before.exists()
    whole = dataclasses.replace(config, out=str(tmp_path / "whole"))
    train(whole)
    for found, wanted in zip(
        jax.tree.leaves(last_state(config, "noisy")),
        jax.tree.leaves(last_state(whole, "noisy")),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.matrix
def test_a_finished_run_is_not_trained_again(again):
    train(again)
    (again.folder / "summary.json").unlink()
    mark(again)
    assert train(again)["runs"][0]["test_accuracy"] == -1


def mark(config):
    """Writes a result that no training has."""
    path = config.folder / "results" / "classical.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": -1}))


def test_what_a_listener_raises_ends_a_job_that_goes_on(again, small):
    def tired(run, step, metrics):
        if step > 2:  # a checkpoint is begun, and perhaps not written yet
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        train(again, on_step=tired)
    train(again)
    assert outcome(again) == small


def test_a_finished_job_is_left_as_it_is(again):
    summary = train(again)
    there = {path: path.read_bytes() for path in again.folder.rglob("*") if path.is_file()}
    said = io.StringIO()
    console = Console(file=said)
    assert train(again, console) == json.loads(json.dumps(summary))
    assert there == {path: path.read_bytes() for path in again.folder.rglob("*") if path.is_file()}
    assert said.getvalue() == ""


def test_a_job_cut_off_elsewhere_is_refused_until_it_starts_over(again, small):
    train(again)
    (again.folder / "summary.json").unlink()
    marker = again.folder / "config.json"
    fields = json.loads(marker.read_text())
    assert fields["placement"] == {"platform": "cpu", "mapping": "pmap"}
    fields["placement"] = {"platform": "gpu", "mapping": "vmap"}
    marker.write_text(json.dumps(fields))
    mark(again)
    with pytest.raises(
        ValueError, match=r"`mapping` must be 'vmap' on platform gpu, .* 'pmap on cpu"
    ):
        train(again)
    train(dataclasses.replace(again, resume=False))
    assert outcome(again) == small


@pytest.mark.matrix
@pytest.mark.parametrize("finished", [False, True])
def test_a_job_starts_afresh_if_resume_is_off(again, small, finished):
    train(again)
    if not finished:
        (again.folder / "summary.json").unlink()
    mark(again)
    (again.folder / "results" / "other.json").write_text("{}")
    (again.folder / "checkpoints" / "other.msgpack").write_bytes(b"")
    (again.folder / "checkpoints" / "another" / "2").mkdir(parents=True)
    own = again.folder / "checkpoints" / "mine" / "notes"
    own.parent.mkdir()
    own.write_text("of the user")
    tensorboard(again.folder / "tensorboard")("other", 1, {"loss": 1.0})
    train(dataclasses.replace(again, resume=False))
    assert outcome(again) == small
    assert not [*again.folder.glob("tensorboard/*/*")]
    assert not list(again.folder.rglob("other.*"))
    assert not (again.folder / "checkpoints" / "another").exists()
    assert own.read_text() == "of the user"


def test_a_folder_with_another_job_is_refused_and_left_as_it_is(again):
    there = again.folder / "checkpoints" / "classical" / "2" / "some"
    there.parent.mkdir(parents=True)
    there.write_text("bytes")
    config = {**as_written(dataclasses.replace(again, seed=1)), "placement": {}}
    (again.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"^`out` must hold no job of another configuration, .*"):
        train(again)
    assert there.read_text() == "bytes"


def test_a_checkpoint_of_another_model_is_refused(again):
    other = dataclasses.replace(again, model="cnn", steps=2, eval_every=2)
    train(other)
    config = {**_identity(again), "placement": {"platform": "cpu", "mapping": "pmap"}}
    (again.folder / "config.json").write_text(json.dumps(config))
    (again.folder / "summary.json").unlink()
    (again.folder / "results" / "classical.json").unlink()
    with pytest.raises(
        ValueError, match=r"^`out` must hold checkpoints of this job, but got '.*2'"
    ):
        train(again)


@pytest.mark.matrix
@pytest.mark.parametrize("count", [*(pytest.param(i, marks=pytest.mark.matrix) for i in (1, 2)), 3])
def test_a_job_cut_off_while_it_clears_its_folder_ends_with_the_same_numbers(
    again, small, monkeypatch, count
):
    train(again)
    seen = []
    unlink = Path.unlink

    def cut(path, missing_ok=False):
        if len(seen) == count:
            raise CutError
        seen.append(path)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut)
        with pytest.raises(CutError):
            train(dataclasses.replace(again, resume=False))
    train(again)
    assert outcome(again) == small


# --- the end of a process ---

COMMAND = """
name = "cut"
model = "mlp"
nodes = 2
batch_per_node = 8
steps = 120
learning_rate = 0.01
eval_every = 10
[data]
name = "digits"
[[runs]]
name = "classical"
collective = "classical"
[[runs]]
name = "noisy"
fidelity = 0.95
resync_every = 15
"""


@contextlib.contextmanager
def started(tmp_path):
    """The job as a process, with as many devices of the host as it has nodes."""
    # It chooses its devices itself, but compiles as this process does: else digits would differ.
    flags = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    arguments = ["train", "--config", str(tmp_path / "job.toml"), "--out", str(tmp_path)]
    # A process started in the background may have been told to ignore the signal.
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxqring.cli", *arguments],
            env={**environment, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, old)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_line(process, path, run, step):
    """Waits until a run of the process has written the line of a step."""
    wanted = re.compile(rf'"run": "{run}", "step": {step},')
    deadline = time.monotonic() + 120
    while not (path.exists() and wanted.search(path.read_text())):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_whole(folder, most):
    """Complete lines only, no summary, no draft of it."""
    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    assert 0 < len(lines) < most
    assert lines == read_metrics(folder / "metrics.jsonl")
    assert not list(folder.glob("summary.json*"))
    return lines


@pytest.mark.matrix
def test_a_process_cut_off_twice_ends_with_the_same_numbers(tmp_path):
    (tmp_path / "job.toml").write_text(COMMAND)
    config = dataclasses.replace(load_config(tmp_path / "job.toml"), out=str(tmp_path))
    metrics = config.folder / "metrics.jsonl"

    with started(tmp_path) as process:
        wait_for_line(process, metrics, "classical", 25)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output
    lines = assert_whole(config.folder, 120)
    assert {line["run"] for line in lines} == {"classical"}
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))

    with started(tmp_path) as process:
        wait_for_line(process, metrics, "noisy", 25)
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    lines = assert_whole(config.folder, 240)
    assert len(lines) >= 145

    with started(tmp_path) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    whole = dataclasses.replace(config, out=str(tmp_path / "whole"))
    train(whole)
    assert outcome(config) == outcome(whole)
    assert len(outcome(config)[0]) == 240
