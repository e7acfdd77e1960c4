"""Runs of a training job among liars: the harm that they do, and what a robust mean makes of it."""

import dataclasses

import jax
import numpy as np
import pytest
from saved import cut_off, last_state

from jaxqring._files import read_metrics
from jaxqring.jobs import SecurityConfig, TrainConfig, train
from jaxqring.jobs._liar_config import AggregationConfig, AttackConfig
from jaxqring.jobs._loop_config import LoopConfig
from jaxqring.jobs._run_config import RunConfig
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig
from jaxqring.train._objective import cross_entropy, initial_params, model_for

NODES, STEPS, SIZE, RATE = 9, 2, 64 * 64 + 64 + 64 * 10 + 10, 0.25
GROUPS = AggregationConfig("median", liars=1, momentum=0.5)
JOB = TrainConfig(
    data=DataConfig("digits"),
    model="mlp",
    nodes=NODES,
    batch_per_node=8,
    steps=STEPS,
    learning_rate=RATE,
    optimizer="sgd",
    momentum=0.0,
    eval_every=1,
    mapping="vmap",
    runs=(
        RunConfig(
            "flipped",
            noise="off",
            bits=32,
            robust=AggregationConfig("mean", "gather", liars=0, momentum=0.5),
            attack=AttackConfig("flip10"),
        ),
        RunConfig("labels", noise="off", bits=32, attack=AttackConfig("labels", 2)),
        RunConfig("groups", noise="off", robust=GROUPS, attack=AttackConfig("huge")),
        RunConfig(
            "masked",
            noise="off",
            robust=GROUPS,
            attack=AttackConfig("huge"),
            security=SecurityConfig(),
        ),
    ),
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The configuration, the results by run, and the lines by run of one whole job."""
    config = dataclasses.replace(JOB, out=str(tmp_path_factory.mktemp("liars")))
    summary = train(config)
    lines = read_metrics(config.folder / "metrics.jsonl")
    by_run = {run.name: [x for x in lines if x["run"] == run.name] for run in config.runs}
    return config, {run["name"]: run for run in summary["runs"]}, by_run


def by_hand(data, weights, labels_of, momentum):
    """SGD on a weighted sum of the momenta of all nodes, written out."""
    model = model_for("mlp", data)
    params = initial_params(model, jax.random.fold_in(jax.random.key(0), 0), data)
    slope = jax.jit(jax.grad(lambda p, x, y: cross_entropy(model.apply({"params": p}, x), y)))
    params = [np.float64(leaf) for leaf in jax.tree.leaves(params)]
    treedef = jax.tree.structure(initial_params(model, jax.random.key(0), data))
    momenta = [[0.0 for _ in params] for _ in range(NODES)]
    for step in range(STEPS):
        images, labels = datasets.batches(data, step, 0, NODES, 8)
        rate = RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        tree = jax.tree.unflatten(treedef, [np.float32(leaf) for leaf in params])
        for node in range(NODES):
            own = jax.tree.leaves(slope(tree, images[node], labels_of(node, labels[node])))
            for at, gradient in enumerate(own):
                new = momentum * momenta[node][at] + (1 - momentum) * np.float64(gradient)
                momenta[node][at] = new
                params[at] -= rate * weights[node] * new
    return params


@pytest.mark.parametrize("name, liars, momentum", [("flipped", 1, 0.5), ("labels", 2, 0.0)])
def test_a_mean_is_that_of_the_lies(job, name, liars, momentum):
    config = job[0]
    data = datasets.load(config.data)
    weights = np.full(NODES, 1 / NODES)
    if name == "flipped":
        weights[-liars:] *= -10

    def labels_of(node, labels):
        return 9 - labels if name == "labels" and node >= NODES - liars else labels

    wanted = by_hand(data, weights, labels_of, momentum)
    state, _ = last_state(config, name)
    for found, leaf in zip(jax.tree.leaves(state["params"]), wanted, strict=True):
        np.testing.assert_allclose(found[0], leaf, rtol=1e-4, atol=1e-5)


def test_masks_in_groups_change_no_bit_and_the_rule_bears_the_liar(job):
    config, runs, lines = job
    plain, masked = (last_state(config, name)[0] for name in ("groups", "masked"))
    jax.tree.map(np.testing.assert_array_equal, masked, plain)
    for leaf in jax.tree.leaves(plain["params"]):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
        assert np.abs(leaf).max() < 2  # one entry of 1e3 times the rate is some 80
    assert runs["groups"]["test_accuracy"] == runs["masked"]["test_accuracy"]
    assert all(0 < line["clipped"] < 1 and not line["unusable"] for line in lines["groups"])
    security = runs["masked"]["security"]
    assert security["attempts"] == STEPS * NODES // 3  # one in each group
    assert security["copies"] == lines["masked"][0]["ghz_copies"] * STEPS > 0


def test_the_traffic_is_that_of_the_groups(job):
    _, runs, _ = job
    share = -(-SIZE // 3) * 16
    for name in ("groups", "masked"):
        bits = runs[name]["online_bits_per_link_step"]
        assert bits == 2 * 2 * share + (NODES - 1) * share
    assert runs["labels"]["online_bits_per_link_step"] == 2 * 8 * -(-SIZE // NODES) * 32
    assert runs["flipped"]["online_bits_per_link_step"] == 8 * SIZE * 32


def test_a_robust_run_cut_off_goes_on_to_the_same_bytes(job, tmp_path, monkeypatch):
    config, _, lines = job
    own = tuple(run for run in config.runs if run.name == "groups")
    again = dataclasses.replace(config, runs=own, out=str(tmp_path))

    with cut_off(monkeypatch):
        train(again)
    train(again)
    assert read_metrics(again.folder / "metrics.jsonl") == lines["groups"]
    whole, resumed = (last_state(each, "groups")[0] for each in (config, again))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def run_of(**fields):
    return dataclasses.replace(JOB, runs=(RunConfig(noise="off", **fields),))


REFUSED = {
    "half lie": (lambda: run_of(attack=AttackConfig(liars=5)), "`attack.liars` must be less than"),
    "too many for the groups": (
        lambda: run_of(robust=AggregationConfig(liars=2)),
        "`liars` must be less than half of the 3 vectors",
    ),
    "pairs under masks": (
        lambda: dataclasses.replace(
            run_of(robust=AggregationConfig(size=2), security=SecurityConfig()), nodes=10
        ),
        "`group_size` must be",
    ),
    "masks without groups": (
        lambda: run_of(robust=AggregationConfig(topology="gather"), security=SecurityConfig()),
        "`rules.masks` must be false but for groups",
    ),
    "half of a group": (
        lambda: run_of(clip="robust", liars=2, robust=AggregationConfig(size=3)),
        "`wire.liars` must be below half of the 3 nodes",
    ),
    "a radius that nobody reads": (
        lambda: AggregationConfig(tau=0.1),
        '`rules.tau` must be left out of "median" by "groups"',
    ),
    "no radius": (lambda: AggregationConfig("clipping", tau=0.0), "`tau` must"),
    "with an outer loop": (
        lambda: run_of(attack=AttackConfig(), outer=LoopConfig()),
        "`runs.attack` must be left out of a run with `outer`",
    ),
    "with a plain mean of all states": (
        lambda: run_of(robust=GROUPS, resync_every=1),
        "`runs.robust` must be left out of a run with `resync_every`",
    ),
    "without a ring": (
        lambda: RunConfig(collective="classical", robust=AggregationConfig()),
        "`runs.robust` must be left out of classical",
    ),
}


@pytest.mark.parametrize("make, sentence", REFUSED.values(), ids=REFUSED)
def test_what_a_rule_cannot_bear_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match="must") as refusal:
        make()
    assert sentence in str(refusal.value)
