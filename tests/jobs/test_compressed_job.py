"""A training with compressed gradients: its state, its traffic, its masks and its resumption."""

import dataclasses
import io
import json

import jax
import matplotlib.image
import numpy as np
import pytest
from compress_costs import scale_bits
from flax import serialization
from rich.console import Console
from saved import last_state

from jaxqring._files import read_metrics
from jaxqring.jobs import CompressConfig, SecurityConfig, TrainConfig, train
from jaxqring.jobs import _training_job as loop
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._run_config import RunConfig
from jaxqring.launch._checkpoints import Checkpoints
from jaxqring.secure import Security, epsilon
from jaxqring.show import _tables as tables
from jaxqring.show._compression_figures import draw_compression
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig

NODES, STEPS, COUNT = 4, 4, 64 * 64 + 64 + 64 * 10 + 10
LOW_RANK = CompressConfig("powersgd", rank=1)
NOISY = RunConfig("noisy", fidelity=0.95, compress=LOW_RANK, resync_every=3)
JOB = TrainConfig(
    data=DataConfig("digits"),
    model="mlp",
    nodes=NODES,
    batch_per_node=8,
    steps=STEPS,
    learning_rate=0.05,
    optimizer="sgd",
    eval_every=2,
    runs=(
        RunConfig("ideal", noise="off", compress=LOW_RANK),
        RunConfig(
            "protected", fidelity=0.975, compress=LOW_RANK, protection=CodeConfig(n=63, k=47)
        ),
        RunConfig("votes", noise="off", momentum=0.0, compress=CompressConfig("sign")),
        NOISY,
    ),
)


class CutError(BaseException):
    """The end of a process, wherever it strikes."""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The configuration, the results by run, and the lines by run of one whole job."""
    config = dataclasses.replace(JOB, out=str(tmp_path_factory.mktemp("compressed")))
    summary = train(config)
    lines = read_metrics(config.folder / "metrics.jsonl")
    by_run = {run.name: [x for x in lines if x["run"] == run.name] for run in config.runs}
    return config, summary, {run["name"]: run for run in summary["runs"]}, by_run


def saved_state(config, name):
    state, step = last_state(config, name)
    assert step == STEPS
    return state


def test_protected_links_end_as_perfect_ones_bit_for_bit(job):
    config, _, runs, lines = job
    ideal, protected = (saved_state(config, name) for name in ("ideal", "protected"))
    jax.tree.map(np.testing.assert_array_equal, protected, ideal)
    assert np.abs(ideal["memory"]["errors"]["Dense_0"]["kernel"]).max() > 0
    assert {leaf.shape[0] for leaf in jax.tree.leaves(ideal["memory"])} == {NODES}
    for wanted, found in zip(lines["ideal"], lines["protected"], strict=True):
        assert found["loss"] == wanted["loss"]
    assert runs["protected"]["retransmissions"] > 0
    assert runs["protected"]["replica_drift"] == runs["ideal"]["replica_drift"] == 0


def test_the_errors_of_the_nodes_differ_and_their_factors_do_not(job):
    memory = saved_state(job[0], "ideal")["memory"]
    kernel = memory["errors"]["Dense_0"]["kernel"]
    assert all((kernel[node] != kernel[0]).any() for node in range(1, NODES))
    for factor in memory["factors"].values():
        np.testing.assert_array_equal(factor, np.broadcast_to(factor[:1], factor.shape))


def test_the_traffic_is_that_of_the_messages(job):
    _, _, runs, _ = job

    def link_bits(sizes, width):
        return sum(2 * (NODES - 1) * -(-size // NODES) * width for size in sizes)

    # Matrices of 64 x 64 and 64 x 10, with rank 1; vectors of 64 and 10 go along.
    sizes = (64 + 64 + 74, 64 + 10)
    for name in ("ideal", "noisy"):
        assert runs[name]["online_bits_per_link_step"] == link_bits(sizes, 16)
        assert runs[name]["online_qubits_per_link_step"] == link_bits(sizes, 16) // 2
    assert runs["votes"]["online_bits_per_link_step"] == link_bits([COUNT], 4)
    # Four leaves are said to be finite, a bit each; scales of four and of two tensors.
    control = 6 * (1 + 32 + 32)
    assert runs["ideal"]["control_bits_per_link_step"] == control
    assert runs["votes"]["control_bits_per_link_step"] == 6
    assert runs["ideal"]["net_bits_per_online_qubit"] == 2
    assert runs["noisy"]["net_bits_per_online_qubit"] is None
    assert 1 < runs["protected"]["net_bits_per_online_qubit"] < 2
    assert runs["ideal"]["out_of_range"] == runs["votes"]["out_of_range"] == 0
    rate = runs["noisy"]["symbol_error_rate"]
    # 16 x 4 links x 4 steps x some 3400 symbols; six standard deviations.
    sent = runs["noisy"]["online_qubits_per_link_step"] * NODES * STEPS
    assert abs(rate - 0.05) < 6 * np.sqrt(0.05 * 0.95 / sent)
    assert runs["noisy"]["out_of_range"] > 0
    assert scale_bits([(64, 64)], 2) == 64  # the tool of the tests counts scales as here


def test_a_resync_averages_errors_and_factors(job):
    _, _, runs, lines = job
    drift = [line["replica_drift"] for line in lines["noisy"]]
    assert min(drift) > 0
    assert drift[3] < drift[2]
    floats = 2 * COUNT + COUNT + (64 + 10)  # parameters, momenta; errors; right factors
    expected = 2 * (NODES - 1) * -(-floats // NODES) * 32
    assert runs["noisy"]["resync_bits_per_link"] == expected
    # After step 3 all nodes hold the same; step 4 parts them again, by its own errors alone.
    assert runs["ideal"]["resync_bits_per_link"] == 0


def test_a_run_that_was_cut_off_goes_on_with_its_memory(job, tmp_path, monkeypatch):
    config, _, _, lines = job
    again = dataclasses.replace(config, runs=(NOISY,), out=str(tmp_path))

    def cut(checkpoints, step, state):
        save(checkpoints, step, state)
        checkpoints.wait()
        raise CutError

    save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", cut)
        with pytest.raises(CutError):
            train(again)
    train(again)
    assert read_metrics(again.folder / "metrics.jsonl") == lines["noisy"]
    whole, resumed = saved_state(config, "noisy"), saved_state(again, "noisy")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_the_table_and_the_figure_show_every_run(job, tmp_path):
    _, summary, runs, _ = job
    shown = io.StringIO()
    Console(width=80, file=shown).print(tables.compression_table(summary))
    for name, run in runs.items():
        assert name in shown.getvalue()
        assert f"{run['control_bits_per_link_step']:,}" in shown.getvalue()
        assert f"{run['online_qubits_per_link_step']:,}" in shown.getvalue()
    plain = {k: v for k, v in runs["ideal"].items() if k not in ("control_bits_per_link_step",)}
    tables.compression_table({**summary, "runs": [plain]})  # a run without a method
    path = draw_compression(tmp_path, json.loads(json.dumps(summary)))
    assert path.name == "compression.png"
    assert matplotlib.image.imread(path).shape[1] > 600


def test_what_a_run_cannot_send_is_refused_before_anything_is_written(tmp_path):
    wide = CodeConfig(n=63, k=47, top_symbols=3)  # votes of four nodes have two symbols
    run = RunConfig("votes", protection=wide, compress=CompressConfig("sign"))
    config = dataclasses.replace(JOB, runs=(run,), out=str(tmp_path))
    with pytest.raises(ValueError, match="at most the 2 symbols of the wire"):
        train(config)
    assert list(tmp_path.iterdir()) == []


def test_the_optimizer_is_that_of_the_run_or_of_the_job():
    data = datasets.load(JOB.data)
    run = RunConfig("a", compress=LOW_RANK)

    def slots(run, **job):
        state = loop._initial_state(run, dataclasses.replace(JOB, **job), data)
        return sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) // COUNT

    assert slots(run) == 1  # a momentum
    assert slots(run, momentum=0.0) == slots(dataclasses.replace(run, momentum=0.0)) == 0
    assert slots(run, optimizer="adam", runs=(run,)) == 2
    assert slots(dataclasses.replace(run, optimizer="adam")) == 2


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A job under masks: perfect states, and states of which hardly a step is verified."""
    runs = (
        RunConfig("masked", noise="off", compress=LOW_RANK, security=SecurityConfig()),
        RunConfig(
            "aborted",
            noise="off",
            compress=LOW_RANK,
            security=SecurityConfig(ghz_fidelity=0.97, attempts=1),
        ),
    )
    out = str(tmp_path_factory.mktemp("masked"))
    config = dataclasses.replace(JOB, runs=runs, out=out, steps=2, eval_every=2)
    return config, {run["name"]: run for run in train(config)["runs"]}


@pytest.mark.matrix
def test_masks_change_nothing_and_their_epsilons_add_up(masked, job):
    config, runs = masked
    lines = [x for x in read_metrics(config.folder / "metrics.jsonl") if x["run"] == "masked"]
    wanted = [line["loss"] for line in job[3]["ideal"][:2]]
    # The learning rates of two jobs of other lengths differ from the second step on.
    assert lines[0]["loss"] == wanted[0]
    found = runs["masked"]["security"]
    source = config.runs[0].security.source(NODES, 1.0)
    bounds = [epsilon(Security(), size, source, bits=16, steps=2) for size in (202, 74)]
    assert found["epsilon_total"] == pytest.approx(min(sum(b.total for b in bounds), 1))
    assert found["epsilon_per_step"] == pytest.approx(min(sum(b.per_step for b in bounds), 1))
    assert found["copies"] == 2 * sum(bound.copies for bound in bounds)
    assert found["attempts"] == 4  # two collectives in each of two steps
    assert found["wrong_sum_rate"] == found["aborted_steps"] == 0


@pytest.mark.matrix
def test_an_aborted_step_leaves_the_memory_as_it_was(masked):
    config, runs = masked
    assert runs["aborted"]["security"]["aborted_steps"] == 2
    saved, step = last_state(config, "aborted")
    data = datasets.load(config.data)
    fresh = serialization.to_state_dict(loop._initial_state(config.runs[1], config, data))
    assert step == 2
    assert (saved.pop("step") == 2).all()
    assert (fresh.pop("step") == 0).all()
    for left, right in zip(jax.tree.leaves(saved), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(left, np.broadcast_to(right, left.shape))


def test_one_plan_meets_the_target_of_two_collectives():
    security = SecurityConfig(target_epsilon=1e-6)
    source = security.source(NODES, 1.0)
    sums = [(202, 16), (74, 16)]
    planned = security.build(source, sums, 10)
    bounds = [epsilon(planned, size, source, bits=bits, steps=10) for size, bits in sums]
    assert 0 < sum(bound.total for bound in bounds) <= 1e-6
