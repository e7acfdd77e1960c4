"""Runs of a training job with an outer loop: their parameters, traffic, resumption and refusals."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from saved import cut_off, last_state

from jaxqring import Ring
from jaxqring._files import read_metrics
from jaxqring.jobs import CompressConfig, TrainConfig, train
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._loop_config import LoopConfig
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._step_costs import cost_of
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig
from jaxqring.train._objective import cross_entropy, initial_params, model_for

NODES, STEPS, SIZE, RATE = 4, 4, 64 * 64 + 64 + 64 * 10 + 10, 0.25
THIN = CompressConfig("topk", fraction=0.1, error_feedback=False)
JOB = TrainConfig(
    data=DataConfig("digits"),
    model="mlp",
    nodes=NODES,
    batch_per_node=8,
    steps=STEPS,
    learning_rate=RATE,
    optimizer="sgd",
    momentum=0.0,
    eval_every=2,
    mapping="vmap",
    split="sorted",
    runs=(
        RunConfig("mean", noise="off", bits=32, outer=LoopConfig("average", 2)),
        RunConfig(
            "protected",
            fidelity=0.98,
            bits=32,
            protection=CodeConfig(n=63, k=47),
            outer=LoopConfig("average", 2),
        ),
        RunConfig("streaming", noise="off", clip=1e-3, outer=LoopConfig("diloco", 2, fragments=2)),
        RunConfig("thin", noise="off", compress=THIN, outer=LoopConfig("scafcom", 2, momentum=0.5)),
        RunConfig("classical", "classical", outer=LoopConfig("eager", 2)),
    ),
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The configuration, the results by run, and the lines by run of one whole job."""
    config = dataclasses.replace(JOB, out=str(tmp_path_factory.mktemp("outer")))
    summary = train(config)
    lines = read_metrics(config.folder / "metrics.jsonl")
    by_run = {run.name: [x for x in lines if x["run"] == run.name] for run in config.runs}
    return config, {run["name"]: run for run in summary["runs"]}, by_run


def moved(param, slope, rate):
    return param - rate * np.float64(slope)


def by_hand(data):
    """Local SGD written out: two steps of each node, and then the mean of their parameters."""
    model = model_for("mlp", data)
    params = initial_params(model, jax.random.fold_in(jax.random.key(0), 0), data)
    slope = jax.jit(jax.grad(lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)))
    nodes = [jax.tree.map(np.float64, params)] * NODES
    for step in range(STEPS):
        images, labels = datasets.batches(data, step, 0, NODES, 8, split="sorted")
        rate = RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        for node in range(NODES):
            own = slope(jax.tree.map(np.float32, nodes[node]), images[node], labels[node])
            move = functools.partial(moved, rate=rate)
            nodes[node] = jax.tree.map(move, nodes[node], own)
        if step % 2:
            nodes = [jax.tree.map(lambda *x: np.mean(x, axis=0), *nodes)] * NODES
    return nodes[0]


def test_a_run_ends_where_its_loop_written_out_does(job):
    config, _, lines = job
    state, step = last_state(config, "mean")
    assert step == STEPS
    wanted = by_hand(datasets.load(config.data))
    for found, leaf in zip(
        jax.tree.leaves(state["outer"]["slow"]), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
        np.testing.assert_allclose(found[0], leaf, rtol=1e-4, atol=1e-6)
    assert [line["rounds"] for line in lines["mean"]] == [0, 1, 0, 1]


def test_protected_links_end_as_perfect_ones_bit_for_bit(job):
    config, runs, lines = job
    ideal, protected = (last_state(config, name)[0]["params"] for name in ("mean", "protected"))
    jax.tree.map(np.testing.assert_array_equal, protected, ideal)
    repeated = [line["retransmissions"] for line in lines["protected"]]
    assert repeated[0] == repeated[2] == 0
    assert sum(repeated) == runs["protected"]["retransmissions"] > 0


def test_the_traffic_is_that_of_the_rounds(job):
    _, runs, lines = job

    def mean(*sizes, bits=16):
        """Bits of an all-reduce of each size over a link."""
        return sum(2 * (NODES - 1) * -(-size // NODES) * bits for size in sizes)

    kernels = 64 * 64, 64 * 10  # the largest leaf alone, and all others
    wanted = {
        "mean": mean(SIZE, bits=32) / 2,
        "streaming": mean(kernels[0], SIZE - kernels[0]) / 2,
        "classical": mean(SIZE, bits=32) / 2,
    }
    for name, bits in wanted.items():
        assert runs[name]["online_bits_per_link_step"] == round(bits), name
    assert lines["streaming"][-1]["bits_so_far"] == STEPS * wanted["streaming"]
    cost = THIN.build().cost(Ring(noise="off"), np.zeros(SIZE, np.float32), NODES)
    assert runs["thin"]["online_bits_per_link_step"] < wanted["streaming"] / 2
    assert 0 < runs["thin"]["online_qubits_per_link_step"] < cost.qubits
    assert runs["protected"]["net_bits_per_online_qubit"] < 2 * 47 / 63
    assert runs["mean"]["net_bits_per_online_qubit"] == 2


def test_what_a_round_clips_or_cannot_read_is_counted_in_its_step(job):
    _, _, lines = job
    assert all(line["saturated"] > 0 for line in lines["streaming"])  # a fragment in every step
    assert [line["saturated"] for line in lines["mean"]] == [0] * STEPS
    assert [line["out_of_range"] for line in lines["thin"]] == [0] * STEPS


def test_a_round_in_pairs_costs_two_vectors_over_every_link_on_the_way():
    params = np.zeros(SIZE, np.float32)
    for method, hops in (("neighbours", 1), ("noloco", NODES / 2)):
        for own in ({"collective": "classical"}, {"noise": "off", "wire": "float32"}):
            run = RunConfig(**own, outer=LoopConfig(method, 2))
            assert cost_of(run, params, NODES).bits == 2 * SIZE * 32 * hops


@pytest.mark.parametrize("name", ["thin", "classical"])
def test_a_run_cut_off_in_the_middle_goes_on_to_the_same_bytes(job, name, tmp_path, monkeypatch):
    config, _, lines = job
    own = tuple(run for run in config.runs if run.name == name)
    again = dataclasses.replace(config, runs=own, out=str(tmp_path))

    with cut_off(monkeypatch):
        train(again)
    train(again)
    assert read_metrics(again.folder / "metrics.jsonl") == lines[name]
    whole, resumed = (last_state(each, name)[0] for each in (config, again))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert json.loads((again.folder / "summary.json").read_text())["runs"][0]["name"] == name


LOOP = LoopConfig("diloco", 2)
REFUSED = {
    "no inner step": (lambda: LoopConfig("diloco", 0), "`outer.every` must be an integer"),
    "unknown": (lambda: LoopConfig("dilico"), "`outer.method` must be one of"),
    "of another method": (lambda: LoopConfig("average", momentum=0.5), "`outer.momentum` must be"),
    "masks": (
        lambda: RunConfig(noise="off", outer=LOOP, resync_every=2),
        "`runs.resync_every` must be left out",
    ),
    "no momentum": (lambda: LoopConfig("scafcom"), '`outer.momentum` must be given for "scafcom"'),
    "no compressor": (
        lambda: RunConfig(noise="off", outer=LoopConfig("scafcom", momentum=0.5)),
        '`runs.compress` must be given for "scafcom"',
    ),
    "noisy pairs": (
        lambda: RunConfig(outer=LoopConfig("noloco")),
        '`runs.noise` must be "off" for "noloco", whose pairs have no errors',
    ),
    "pairs that would round": (
        lambda: RunConfig(noise="off", bits=2, outer=LoopConfig("noloco")),
        '`runs.wire` must be "float32" for "noloco"',
    ),
    "no round": (
        lambda: dataclasses.replace(JOB, runs=(RunConfig(outer=LoopConfig("diloco", 5)),)),
        "`outer.every` must be at most the 4 steps",
    ),
    "odd pairs": (
        lambda: dataclasses.replace(
            JOB, nodes=3, runs=(RunConfig("x", "classical", outer=LoopConfig("noloco", 2)),)
        ),
        "`nodes` must be even for pairs",
    ),
    "momentum inside": (
        lambda: dataclasses.replace(
            JOB, momentum=0.9, runs=(RunConfig(outer=LoopConfig("scaffold", 2)),)
        ),
        '`runs.optimizer` must be "sgd" without momentum',
    ),
}


@pytest.mark.parametrize("make, sentence", REFUSED.values(), ids=REFUSED)
def test_what_a_loop_cannot_do_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match="must") as refusal:
        make()
    assert sentence in str(refusal.value)


def test_what_the_loop_itself_refuses_is_refused_before_a_folder_is_made(tmp_path):
    biased = CompressConfig("topk", fraction=0.1)
    run = RunConfig(noise="off", compress=biased, outer=LoopConfig("scafcom", 2, momentum=0.5))
    config = dataclasses.replace(JOB, runs=(run,), out=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="error_feedback=False"):
        train(config)
    assert not config.folder.exists()
