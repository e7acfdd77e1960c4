"""A study of outer loops: its trainings, its bits and seconds, its files, table and figures."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from jaxqring import Ring, werner
from jaxqring.codes import IdealCode
from jaxqring.jobs import CompressConfig, OuterConfig, OuterLoopConfig, load_config, run_outer
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._outer_config import _OPTIONS, MemoriesConfig
from jaxqring.jobs._outer_training import _problem
from jaxqring.outer import Loop, round_time
from jaxqring.show import _tables as tables
from jaxqring.show import outer_loops, outer_memories
from jaxqring.show._outer_figure import draw_outer
from jaxqring.supply import generate
from jaxqring.train import DataConfig, TaskConfig
from jaxqring.train._datasets import load, sorted_shards

TASK = TaskConfig(DataConfig("digits"), nodes=4, batch_per_node=8, steps=8, learning_rate=4e-3)
STUDY = OuterConfig(
    task=TASK,
    every=(4,),
    seeds=2,
    devices=1,
    loops=(
        OuterLoopConfig("every step", "every_step"),
        OuterLoopConfig("DiLoCo", "diloco", every=(2, 4)),
        OuterLoopConfig("[server]", "asynchronous", slowest=0.5),
    ),
    memories=MemoriesConfig(protection=CodeConfig("ideal"), coherence=(0.01, 1.0)),
)
SIZE = 64 * 64 + 64 + 64 * 10 + 10


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = dataclasses.replace(STUDY, out=str(tmp_path_factory.mktemp("study")))
    return config, run_outer(config)


def points_of(summary, name):
    loop = next(loop for loop in summary["loops"] if loop["name"] == name)
    return {(point["every"], point["split"]): point for point in loop["points"]}


@pytest.mark.matrix
def test_a_point_is_the_mean_of_its_trainings(study):
    config, summary = study
    points = points_of(summary, "DiLoCo")
    assert set(points) == {(2, "iid"), (2, "sorted"), (4, "iid"), (4, "sorted")}
    train = jax.jit(config.training(config.loops[1], 2, SIZE))
    found = [train(jax.random.key(seed), jnp.array(True)) for seed in range(2)]
    accuracy = np.array([float(each["accuracy"]) for each in found])
    point = points[2, "sorted"]
    assert point["accuracy"] == pytest.approx(accuracy.mean(), abs=3e-3)
    assert point["std"] == pytest.approx(accuracy.std(), abs=3e-3)
    assert points[2, "iid"]["accuracy"] != point["accuracy"]


def test_traffic_is_that_of_the_rounds(study):
    _, summary = study
    assert summary["size"] == SIZE
    once = 2 * 3 * -(-SIZE // 4) * 16  # bits of an all-reduce over each link
    for name, every, rounds in (("every step", 1, 8), ("DiLoCo", 2, 4), ("DiLoCo", 4, 2)):
        point = points_of(summary, name)[every, "iid"]
        assert point["rounds"] == rounds
        assert point["bits"] == pytest.approx(rounds * once)
    # Three of the four nodes are not the server, and a displacement and a copy cross every link
    # once together. At speeds 1, 0.83, 0.67, 0.5 nodes make 4, 3, 2 and 2 steps: 11 in a turn, and
    # the 32 of a training take 3 turns, all but the last arrival.
    point = points_of(summary, "[server]")[4, "iid"]
    assert point["bits"] == pytest.approx(3 * 3 * SIZE * 16, rel=0.2)
    assert point["rounds"] == pytest.approx(3, abs=0.3)


def test_seconds_are_those_of_rounds_on_its_links(study):
    config, summary = study
    memories = config.memories
    supply = generate(werner(fidelity=0.99), length=10e3, modes=1000.0, detector_efficiency=0.9)
    options = {"step_time": 5e-3, "slots": 1e7, "t1": 10.0, "latency": 5e-5}
    ring = Ring(protection=IdealCode())
    shown = summary["shown"]
    for row, every in enumerate((2, 4)):
        point = points_of(summary, "DiLoCo")[every, "iid"]
        time = round_time(ring, SIZE, 4, supply, every=every, t2=1.0, **options)
        assert point["seconds"] == pytest.approx(8 / every * float(time.period), rel=1e-4)
        assert point["qubits"] == pytest.approx(8 / every * float(time.online_qubits), rel=1e-4)
        rates = round_time(ring, SIZE, 4, supply, every=every, t2=np.array([0.01, 1.0]), **options)
        np.testing.assert_allclose(shown["steps_per_second"][row], rates.steps_per_second, 1e-4)
        score = np.asarray(rates.steps_per_second) * point["accuracy"]
        np.testing.assert_allclose(shown["score"][row], score, rtol=1e-4)
    best = np.argmax(shown["score"], axis=0)
    assert shown["best_every"] == [(2, 4)[at] for at in best]
    assert shown["coherence"] == list(memories.coherence)
    # A server waits for nobody: the slowest node makes 6 steps in all, at half the speed.
    assert points_of(summary, "[server]")[4, "iid"]["seconds"] == pytest.approx(0.06, rel=0.2)


def test_its_files_say_what_it_returns_and_it_goes_on(study):
    config, summary = study
    assert json.loads((config.folder / "summary.json").read_text()) == summary
    before = (config.folder / "DiLoCo" / "points.jsonl").read_bytes()
    assert run_outer(config) == summary  # from its files
    assert (config.folder / "DiLoCo" / "points.jsonl").read_bytes() == before


def test_its_table_and_its_figures_show_every_loop(study, tmp_path):
    _, summary = study
    shown = io.StringIO()
    for table in tables.outer_tables(summary):
        Console(width=110, file=shown).print(table)
    for word in ("every step", "DiLoCo", "[server]", "sorted", "best H"):
        assert word in shown.getvalue(), shown.getvalue()
    paths = draw_outer(tmp_path, summary)
    assert [path.name for path in paths] == ["outer_accuracy.png", "outer_memories.png"]
    for path in paths:
        assert matplotlib.image.imread(path).shape[1] > 1000
        assert path.with_suffix(".svg").exists()


def test_panels_have_the_numbers_of_the_summary(study):
    _, summary = study
    axes = outer_loops(summary, "sorted", Figure().subplots())
    drawn = {line.get_label(): line for line in axes.containers}
    points = points_of(summary, "DiLoCo")
    line = drawn["DiLoCo"].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [points[h, "sorted"]["bits"] for h in (4, 2)])
    wanted = [points[h, "sorted"]["accuracy"] for h in (4, 2)]
    np.testing.assert_allclose(line.get_ydata(), wanted)
    axes = outer_memories(summary, Figure().subplots())
    shown = summary["shown"]
    np.testing.assert_allclose(axes.images[0].get_array(), np.transpose(shown["score"]))
    rings = [tuple(ring.get_offsets()[0]) for ring in axes.collections]
    best = [((2, 4).index(every), row) for row, every in enumerate(shown["best_every"])]
    assert rings == best


def test_nodes_learn_from_their_own_shards_where_images_are_sorted():
    problem = _problem(dataclasses.replace(TASK, batch_per_node=64))
    data = load(TASK.data)
    held = [set(data.train_labels[shard]) for shard in sorted_shards(data.train_labels, 4)]
    params = jax.tree.map(jnp.zeros_like, problem.initial(jax.random.key(0)))
    gradient = jax.jit(problem.gradient)
    for node in range(4):
        grads = [
            gradient(params, jax.random.key(1), jnp.int32(node), jnp.array(is_sorted))
            for is_sorted in (True, False)
        ]
        # At equal scores the slope of a class is 1/10 less its share of the images.
        shares = [0.1 - np.asarray(grad["Dense_1"]["bias"]) for grad in grads]
        assert set(np.flatnonzero(shares[0] > 1e-6)) <= held[node]
        assert (shares[1] > 1e-6).sum() > 5


# --- Configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in _OPTIONS if name != "asynchronous"])
def test_every_method_is_a_loop(method):
    compress = {
        "scallion": CompressConfig("qsgd", levels=7),
        "scafcom": CompressConfig("topk", fraction=0.1, error_feedback=False),
    }.get(method)
    given = {"scallion": {"scale": 0.5}, "scafcom": {"momentum": 0.5}}.get(method, {})
    config = OuterLoopConfig(method=method, compress=compress, **given)
    loop = config.loop(TASK, Ring(noise="off"), 4, jax.random.key(0))
    assert isinstance(loop, Loop)
    hidden = {"delayed": 4, "eager": 4, "co2": 4}.get(method, 0)
    assert config.overlapped(4) == hidden
    pairs = {"noloco": 4 * 100 * 16.0, "neighbours": 2 * 2 * 100 * 16 / 2}
    assert config.bits(100, 4, 16) == pairs.get(method)


def test_the_packaged_studies_are_read():
    for name in ("outer", "outer_quick"):
        config = load_config(name, OuterConfig)
        for loop in config.loops:
            for every in config.steps_of(loop):
                if loop.method != "asynchronous":
                    config.loop_of(loop, every)(jax.random.key(0))


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: OuterLoopConfig(method="average", outer_rate=0.5),
            '`loops.outer_rate` must be left out of "average", but got 0.5.',
        ),
        (
            lambda: OuterLoopConfig(method="every_step", every=(2,)),
            '`loops.every` must be left out of "every_step", but got (2,).',
        ),
        (
            lambda: OuterLoopConfig(method="scaffold", optimizer="adam"),
            '`loops.optimizer` must be "sgd" for "scaffold"',
        ),
        (
            lambda: OuterLoopConfig(method="scallion", compress=CompressConfig("qsgd")),
            '`loops.scale` must be given for "scallion", but got None.',
        ),
        (
            lambda: OuterLoopConfig(method="scafcom", momentum=0.5),
            '`loops.compress` must be given for "scafcom", but got None.',
        ),
        (
            lambda: OuterLoopConfig(method="noloco", compress=CompressConfig()),
            '`loops.compress` must be left out of "noloco", but got CompressConfig(',
        ),
        (
            lambda: OuterLoopConfig(method="asynchronous", slowest=0.0),
            "`loops.slowest` must lie in",
        ),
        (lambda: OuterConfig(every=(3,)), "`every` must divide `task.steps` = 200, but got 3."),
        (lambda: OuterConfig(splits=()), "`splits` must hold at least one split"),
        (
            lambda: OuterConfig(splits=("sorted",)),
            "`shown_split` must be one of 'sorted', but got 'iid'.",
        ),
        (lambda: OuterConfig(shown="x"), "`shown` must be one of 'every step', 'DiLoCo'"),
        (
            lambda: OuterConfig(task=dataclasses.replace(TASK, split="sorted"), every=(4,)),
            "`task.split` must be left to `splits`",
        ),
        (lambda: MemoriesConfig(t2=30.0), "`memories.t2` must lie in"),
        (lambda: MemoriesConfig(modes=0.5), "`memories.modes` must lie in [1, 1e+09], but got 0.5"),
        (lambda: MemoriesConfig(t1=0.0), "`memories.t1` must lie in"),
        (lambda: MemoriesConfig(coherence=()), "`memories.coherence` must hold at least one time"),
        (
            lambda: run_outer(
                dataclasses.replace(
                    STUDY,
                    loops=(OuterLoopConfig("DiLoCo", "diloco", fragments=3),),
                    out="/nonexistent",
                )
            ),
            "`fragments` must divide `every` = 4, but got 3.",
        ),
        (
            lambda: run_outer(
                dataclasses.replace(
                    STUDY,
                    loops=(
                        OuterLoopConfig("every step", "every_step"),
                        OuterLoopConfig("DiLoCo", "diloco", every=(8,), fragments=8),
                    ),
                    out="/nonexistent",  # where the first would have been trained
                )
            ),
            "`fragments` must be at most the number of leaves of `params`, 4, but got 8.",
        ),
        (
            lambda: dataclasses.replace(
                STUDY,
                task=dataclasses.replace(TASK, nodes=3),
                loops=(OuterLoopConfig("DiLoCo", "noloco"),),
            ),
            "`task.nodes` must be even for pairs, but got 3.",
        ),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises((ValueError, TypeError)) as found:
        call()
    assert str(found.value).startswith(sentence)
    assert str(found.value).endswith(".")
