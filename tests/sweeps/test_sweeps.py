"""A sweep says what each point says alone, however it is cut, spread, interrupted or resumed."""

import csv
import dataclasses
import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

import jaxqring as jq
from jaxqring import cli
from jaxqring.jobs import _sweep_job
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._link_config import PARAMETERS, LinkConfig
from jaxqring.jobs._load import load_config
from jaxqring.jobs._sweep_job import SweepConfig, run_sweep
from jaxqring.show._sweep_figures import draw_sweep
from jaxqring.show._tables import sweep_table
from jaxqring.sweeps._points_folder import PointsFolder
from jaxqring.sweeps._sweep import _widest, sweep
from jaxqring.train._datasets import DataConfig
from jaxqring.train._task import TaskConfig

TASK = TaskConfig(DataConfig("digits"), nodes=2, batch_per_node=8, steps=4)
JOB = SweepConfig(task=TASK, grid={"fidelity": (0.9, 0.99), "learning_rate": (0.01,)}, seeds=2)
SETTINGS = {"fidelity": [0.9, 0.99], "learning_rate": [0.01]}


def wave(setting, key):
    """A cheap point whose bits would show any difference in its inputs or its arithmetic."""
    noise = jax.random.uniform(key, (50,))
    height = jnp.sum(jnp.sin(setting["x"] * noise) / (1 + setting["y"] ** 2))
    return {"height": height, "turns": jnp.int32(setting["x"] * 10)}


GRID = {"x": [0.1, 0.7, 2.0], "y": [0.0, 0.3]}


def traced_alone(function, names):
    """One point by itself, traced, as `point(values, seed)`."""

    def point(values, seed):
        return function(values, jax.random.key(seed))

    values = dict.fromkeys(names, jax.ShapeDtypeStruct((), jnp.float32))
    return jax.jit(point).trace(values, jax.ShapeDtypeStruct((), jnp.uint32))


def alone(compiled, table, names):
    """Each point of a table, computed by itself."""
    return [
        compiled({name: np.float32(table[name][row]) for name in names}, np.uint32(seed))
        for row, seed in enumerate(table["seed"])
    ]


def assert_same(table, other):
    assert list(table) == list(other)
    for name in table:
        np.testing.assert_array_equal(table[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def trained():
    """A sweep of real trainings over two devices, and how often they were traced."""
    calls = []

    def train(setting, key):
        calls.append(setting)
        return JOB.train(setting, key)

    return sweep(train, SETTINGS, 2, devices=jax.devices()[:2]), len(calls)


def test_real_trainings_are_traced_once_and_are_those_of_one_alone(trained):
    table, traces = trained
    assert traces == 1
    compiled = traced_alone(JOB.train, SETTINGS).lower().compile()
    for row, outcomes in enumerate(alone(compiled, table, SETTINGS)):
        for name, value in outcomes.items():
            assert table[name][row] == value
    assert len(set(table["loss"])) == 4


@pytest.mark.matrix
def test_real_trainings_do_not_depend_on_chunks_and_devices(trained):
    table, _ = trained
    assert_same(table, sweep(JOB.train, SETTINGS, 2, devices=jax.devices()[2:3], chunk=1))


@pytest.fixture(scope="module")
def waves():
    """The plainest sweep of cheap points."""
    return sweep(wave, GRID, 2)


def test_the_table_is_tidy():
    table = sweep(wave, GRID, [5, 3])
    assert list(table) == ["x", "y", "seed", "height", "turns"]
    np.testing.assert_array_equal(table["x"], np.repeat(GRID["x"], 4))
    np.testing.assert_array_equal(table["y"], np.tile(np.repeat(GRID["y"], 2), 3))
    np.testing.assert_array_equal(table["seed"], np.tile([5, 3], 6))
    assert table["height"].dtype == np.float32
    assert table["turns"].dtype == np.int32
    compiled = traced_alone(wave, GRID).lower().compile()
    for row, outcomes in enumerate(alone(compiled, table, GRID)):
        assert table["height"][row] == outcomes["height"]
        assert table["turns"][row] == outcomes["turns"]


@pytest.mark.parametrize("devices, chunk", [(1, 1), (1, 5), (2, 4), (3, 3), (8, 8), (8, 80)])
def test_no_point_depends_on_how_the_sweep_is_cut(waves, devices, chunk):
    assert_same(sweep(wave, GRID, 2, devices=jax.devices()[:devices], chunk=chunk), waves)


def test_no_point_depends_on_what_else_is_in_the_sweep(waves):
    one = sweep(wave, [{"y": 0.3, "x": 0.7}], [1])
    (row,) = np.flatnonzero((waves["x"] == 0.7) & (waves["y"] == 0.3) & (waves["seed"] == 1))
    assert waves["height"][row] == one["height"][0]


@pytest.mark.parametrize("batch", [2, 3])
def test_batches_say_the_same_to_rounding(waves, batch):
    table = sweep(wave, GRID, 2, batch=batch, devices=jax.devices()[:2])
    np.testing.assert_allclose(table["height"], waves["height"], rtol=1e-5)


def test_keys_are_those_of_the_seeds():
    seeds = [0, 7, 2**31, 2**32 - 1]
    found = sweep(lambda _, key: {"u": jax.random.uniform(key)}, {"x": [0.0]}, seeds)["u"]
    assert found.tolist() == [float(jax.random.uniform(jax.random.key(seed))) for seed in seeds]


def test_static_values_arrive_as_given_and_take_a_trace_each():
    seen = []

    def power(setting, key):
        seen.append(setting["power"])
        bend = np.sin if setting["kind"] == "bent" else float
        return {"y": setting["x"] ** setting["power"] * bend(1.0)}

    grid = {"x": [1.0, 2.0, 3.0], "power": [1, 3], "kind": ["bent", "straight"]}
    table = sweep(power, grid, 2, static=["power", "kind"])
    assert seen == [1, 1, 3, 3]
    assert all(type(value) is int for value in seen)
    bent = np.where(table["kind"] == "bent", np.sin(1.0), 1.0)
    np.testing.assert_allclose(table["y"], table["x"] ** table["power"] * bent, rtol=1e-6)


def test_arrays_that_the_function_holds_go_to_every_device():
    weights = jax.device_put(jnp.arange(3.0), jax.devices()[5])
    table = sweep(lambda s, _: {"y": s["x"] * weights.sum()}, {"x": [1.0, 2.0]}, 4)
    assert table["y"].tolist() == [3.0] * 4 + [6.0] * 4


# --- what stays on disk


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a sweep that was not interrupted, with outcomes that are not finite."""
    folder = tmp_path_factory.mktemp("whole")
    table = sweep(strange, GRID, 2, folder=folder, devices=jax.devices()[:1])
    return table, files(folder)


def strange(setting, key):
    outcomes = wave(setting, key)
    infinite = jnp.where(setting["y"] > 0, -1.0, 1.0) / 0.0
    undefined = jnp.where(setting["x"] > 1, jnp.nan, outcomes["height"])
    return {**outcomes, "infinite": infinite, "undefined": undefined}


def test_the_csv_holds_the_table_exactly(whole):
    table, written = whole
    header, *rows = csv.reader(written["results.csv"].decode().splitlines())
    assert header == list(table)
    for name, column in zip(header, zip(*rows, strict=True), strict=True):
        np.testing.assert_array_equal(
            np.array(column, float).astype(table[name].dtype), table[name]
        )
    assert {"nan", "inf", "-inf"} <= {cell for row in rows for cell in row}


def test_each_line_says_its_setting_seed_and_outcomes(whole):
    table, written = whole
    lines = [json.loads(line) for line in written["points.jsonl"].splitlines()]
    assert [line["point"] for line in lines] == list(range(12))
    for row, line in enumerate(lines):
        for name, value in {**line["at"], **line["outcomes"]}.items():
            np.testing.assert_equal(float(value), float(table[name][row]))


def test_a_file_cut_anywhere_is_completed_without_computing_anything_twice(whole, tmp_path):
    table, written = whole
    lines = written["points.jsonl"]
    # Every way to end around a line, and places of chance within.
    ends = [place + 1 for place, byte in enumerate(lines) if byte == ord("\n")]
    places = {0, ends[0] - 1, ends[0], ends[0] + 1, ends[-2], len(lines) - 1}
    places |= set(random.Random(0).sample(range(len(lines)), 3))
    for place in sorted(places):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "sweep.json").write_bytes(written["sweep.json"])
        (folder / "points.jsonl").write_bytes(lines[:place])
        resumed = sweep(strange, GRID, 2, folder=folder, devices=jax.devices()[:1], chunk=5)
        # Twelve lines, each point once: those that were whole have been kept as they were.
        assert files(folder) == written, place
        assert_same(resumed, table)


def test_lines_that_the_disk_lost_are_computed_again(whole, tmp_path):
    table, written = whole
    lines = written["points.jsonl"].splitlines(keepends=True)
    lines[7] = b"\0" * (len(lines[7]) - 1) + b"\n"
    (tmp_path / "sweep.json").write_bytes(written["sweep.json"])
    (tmp_path / "points.jsonl").write_bytes(b"".join(lines))
    assert_same(sweep(strange, GRID, 2, folder=tmp_path), table)
    assert files(tmp_path) == written


def test_a_finished_sweep_is_read_without_tracing(whole, tmp_path):
    table, written = whole
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    never = pytest.fail
    assert_same(sweep(never, GRID, 2, folder=tmp_path), table)
    assert files(tmp_path) == written


def test_an_interrupt_leaves_every_finished_chunk(monkeypatch, tmp_path, whole):
    append, appended = PointsFolder.append, []

    def interrupted(self, found):
        if len(appended) == 2:
            raise KeyboardInterrupt
        append(self, found)
        appended.append(found)

    monkeypatch.setattr(PointsFolder, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(strange, GRID, 2, folder=tmp_path, devices=jax.devices()[:1], chunk=3)
    monkeypatch.undo()
    assert set(files(tmp_path)) == {"sweep.json", "points.jsonl"}
    assert files(tmp_path)["points.jsonl"].count(b"\n") == 6
    sweep(strange, GRID, 2, folder=tmp_path)
    assert files(tmp_path) == whole[1]


def test_progress_counts_what_is_there_already(whole, tmp_path):
    for name, content in whole[1].items():
        (tmp_path / name).write_bytes(content)
    lines = whole[1]["points.jsonl"].splitlines(keepends=True)
    (tmp_path / "points.jsonl").write_bytes(b"".join(lines[:7]))
    with (tmp_path / "shown").open("w") as file:
        sweep(strange, GRID, 2, folder=tmp_path, console=Console(file=file, width=80))
    assert "12/12" in (tmp_path / "shown").read_text()


SLOW_SWEEP = """
import sys
import jax
from jaxqring.sweeps._sweep import sweep

def slow(setting, key):
    body = lambda _, x: jax.numpy.sin(x + setting["x"])
    return {"y": jax.lax.fori_loop(0, 400_000, body, jax.random.normal(key))}

sweep(slow, {"x": [0.1 * i for i in range(30)]}, 2, folder=sys.argv[1],
      devices=jax.devices()[:2], chunk=2)
"""


@pytest.mark.matrix
def test_killed_at_any_moment_it_ends_with_the_same_file(tmp_path):
    """Two kills by SIGKILL at moments of chance, each after more of the sweep is done."""
    command = [sys.executable, "-c", SLOW_SWEEP]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    killed = tmp_path / "killed"
    for _ in range(2):
        done = count_lines(killed)
        with subprocess.Popen([*command, str(killed)]) as process:
            while count_lines(killed) == done and process.poll() is None:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.2))
            os.kill(process.pid, signal.SIGKILL)
    assert 0 < count_lines(killed) < 60
    before = (killed / "points.jsonl").read_bytes()
    subprocess.run([*command, str(killed)], check=True)
    assert (killed / "points.jsonl").read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert files(killed) == files(tmp_path / "whole")


def count_lines(folder):
    file = folder / "points.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize(
    "change, words",
    [
        ({"grid": {"x": [0.1, 0.7], "y": [0.0, 0.3]}}, "other settings"),
        ({"seeds": 3}, "other seeds"),
        ({"about": "another task"}, "other about"),
        ({"train_fn": wave}, "outcomes"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_and_left_alone(whole, tmp_path, change, words):
    for name, content in whole[1].items():
        (tmp_path / name).write_bytes(content)
    if "train_fn" in change:  # whose outcomes are seen only if there is something left to do
        (tmp_path / "points.jsonl").write_bytes(b"")
    before = files(tmp_path)
    call = {"train_fn": strange, "grid": GRID, "seeds": 2, **change}
    with pytest.raises(ValueError, match="`folder` must be empty or hold the same") as refusal:
        sweep(**call, folder=tmp_path)
    assert words in str(refusal.value)
    assert files(tmp_path) == before


def test_results_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "results.csv").write_text("x\n")
    with pytest.raises(ValueError, match=r"results\.csv alone"):
        sweep(wave, GRID, 2, folder=tmp_path)


# --- what is refused


@pytest.mark.parametrize(
    "change, words",
    [
        ({"grid": {}}, "`grid` must hold at least one parameter"),
        ({"grid": []}, "`grid` must hold at least one parameter"),
        ({"grid": {"x": [], "y": [0.0]}}, "`grid` must hold at least one parameter"),
        ({"grid": {"x": 0.1, "y": [0.0]}}, "`grid.x` must be a sequence"),
        ({"grid": {"x": [0.1, np.nan], "y": [0.0]}}, "`grid.x` must hold numbers that are finite"),
        ({"grid": {"x": [1e39], "y": [0.0]}}, "`grid.x` must hold numbers that are finite"),
        ({"grid": {"x": ["a"], "y": [0.0]}}, "`grid.x` must be a real number"),
        ({"grid": {"x": [0.1, 0.1], "y": [0.0]}}, "`grid` must hold no setting twice"),
        ({"grid": {"x": [0.1], "seed": [0.0]}}, "`grid` must leave the name `seed`"),
        ({"grid": [{"x": 0.1, "y": 0.0}, {"x": 0.1}]}, "`grid` must have the names x, y"),
        ({"static": ["z"]}, "`static` must be one of 'x', 'y', but got 'z'"),
        ({"grid": {"x": [[1]], "y": [0.0]}, "static": ["x"]}, "`grid.x` must hold hashable"),
        ({"seeds": 0}, "`seeds` must be a positive count"),
        ({"seeds": [1, 1]}, "`seeds` must be a positive count, or distinct"),
        ({"seeds": [-1]}, "`seeds` must"),
        ({"seeds": [2**32]}, "`seeds` must"),
        ({"seeds": 2.0}, "`seeds` must"),
        ({"seeds": True}, "`seeds` must"),
        ({"devices": []}, "`devices` must hold at least one"),
        ({"chunk": 12}, "`chunk` must be a multiple of 8"),
        ({"chunk": 8, "batch": 2}, "`chunk` must be a multiple of 16"),
        ({"chunk": 0}, "`chunk` must be an integer of at least 1"),
        ({"batch": 1.5}, "`batch` must be an integer of at least 1"),
        ({"memory": -1}, "`memory` must be an integer of at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_swept_is_refused_before_tracing(change, words):
    call = {"train_fn": pytest.fail, "grid": GRID, "seeds": 2, **change}
    with pytest.raises((ValueError, TypeError), match=r"^`[^\n]+\.$") as refusal:
        sweep(**call)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "outcomes, words",
    [
        (1.0, "return a dict"),
        ({}, "return a dict"),
        ({"z": jnp.zeros(3)}, "float32[3] for 'z'"),
        ({"z": True}, "bool[] for 'z'"),
        ({"z": 1j}, "complex128[] for 'z'"),
        ({"z": "one"}, "for 'z'"),
        ({"x": 1.0}, "names that are free"),
        ({"seed": 1.0}, "names that are free"),
        ({3: 1.0}, "names that are free"),
    ],
    ids=str,
)
def test_outcomes_that_fit_no_table_are_refused(outcomes, words):
    with pytest.raises((ValueError, TypeError), match=r"^`train_fn` must ") as refusal:
        sweep(lambda setting, key: outcomes, GRID, 2)
    assert words in str(refusal.value)


def test_outcomes_that_differ_with_static_values_are_refused(tmp_path):
    def fickle(setting, key):
        return {setting["name"]: setting["x"]}

    with pytest.raises(ValueError, match="`train_fn` must return the same outcomes"):
        sweep(fickle, {"x": [1.0], "name": ["a", "b"]}, 1, static=["name"], folder=tmp_path)
    assert not list(tmp_path.iterdir())


# --- memory


def test_a_point_that_does_not_fit_is_refused():
    def large(setting, key):
        return {"y": jnp.sum(jax.random.normal(key, (1000, 1000)) * setting["x"])}

    with pytest.raises(ValueError, match="`memory` must be at least") as refusal:
        sweep(large, {"x": [1.0]}, 1, memory=3_999_999)
    assert "but got 3999999" in str(refusal.value)
    with pytest.raises(ValueError, match="the bytes of 10 points at once by XLA's count"):
        sweep(large, {"x": [1.0]}, 1, memory=20_000_000, batch=10)


def test_the_widest_batch_divides_a_row():
    assert _widest(7, None) == 7
    assert _widest(7, 12) == 6
    assert _widest(5, 7) == 1
    assert _widest(50, 12) == 12


# --- the job


def test_the_link_is_that_of_its_parameters():
    values = dict(zip(PARAMETERS, [0.9, 0.05, 0.04, 0.1, 0.02, 0.01, 0.95], strict=True))
    link = jq.superdense(
        jq.werner(fidelity=0.9),
        sent=jq.amplitude_damping(gamma=0.1).then(jq.depolarizing(error_prob=0.05)),
        kept=jq.dephasing(error_prob=0.04),
        gate_error=0.02,
        readout_error=0.01,
        survival=0.95,
    )
    for found in (LinkConfig(**values).channel({}), LinkConfig().channel(values)):
        np.testing.assert_allclose(found.transition, link.transition, rtol=1e-6)
    batch = jax.jit(LinkConfig().channel)({name: jnp.full(3, v) for name, v in values.items()})
    np.testing.assert_allclose(batch.transition[1], link.transition, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="`parameters` must be one of 'fidelity'"):
        LinkConfig().channel({"t1": 1.0})


def test_a_sweep_over_protected_links_learns_as_over_perfect_ones():
    code = CodeConfig(n=63, k=47)
    config = dataclasses.replace(JOB, grid={"fidelity": (0.99,)}, protection=code)
    with pytest.raises(ValueError, match="`noise` must be "):
        dataclasses.replace(config, noise="gaussian")
    key = jax.random.key(0)

    def outcomes(config):
        found = jax.jit(lambda fidelity: config.train({"fidelity": fidelity}, key))(0.99)
        return {name: float(value) for name, value in found.items()}

    protected, bare = outcomes(config), outcomes(JOB)
    perfect = outcomes(dataclasses.replace(JOB, noise="off"))
    assert protected == perfect
    assert bare["loss"] != perfect["loss"]


def test_protection_tells_sweeps_apart_and_its_absence_changes_no_file(tmp_path, monkeypatch):
    def cheap(config, setting, key):
        return {"loss": setting["fidelity"], "accuracy": 1 - setting["fidelity"]}

    monkeypatch.setattr(SweepConfig, "train", cheap)
    plain = dataclasses.replace(JOB, out=str(tmp_path), grid={"fidelity": (0.99,)}, seeds=1)
    run_sweep(plain)
    about = json.loads((plain.folder / "sweep.json").read_text())["about"]
    assert set(about) == {"task", "link", "bits", "noise"}
    with pytest.raises(ValueError, match="`folder` must be empty or hold the same sweep"):
        run_sweep(dataclasses.replace(plain, protection=CodeConfig()))
    other = dataclasses.replace(plain, name="other", protection=CodeConfig())
    run_sweep(other)
    about = json.loads((other.folder / "sweep.json").read_text())["about"]
    assert about["protection"] == dataclasses.asdict(CodeConfig())


def test_the_sampler_is_that_of_the_ring_and_tells_sweeps_apart(tmp_path, monkeypatch):
    path = tmp_path / "dense.toml"
    path.write_text('sampler = "dense"')
    rings = []

    def noted(task):
        return lambda ring, keys, rate: rings.append(ring.sampler) or {"loss": rate}

    monkeypatch.setattr(_sweep_job, "training", noted)
    dense = load_config(path, SweepConfig)
    for job in (dense, SweepConfig()):
        job.train({"fidelity": 0.9, "learning_rate": 0.1}, jax.random.key(0))
    assert rings == ["dense", "auto"]
    plain = dataclasses.replace(JOB, out=str(tmp_path))
    run_sweep(plain)
    with pytest.raises(ValueError, match="`folder` must be empty or hold the same sweep"):
        run_sweep(dataclasses.replace(plain, sampler="dense"))
    with pytest.raises(ValueError, match="`sampler` must be one of 'auto'"):
        SweepConfig(sampler="fast")


def test_the_shipped_configurations_load():
    config = load_config("configs/sweep_fidelity.toml", SweepConfig)
    fidelities = config.grid["fidelity"]
    assert (len(fidelities), config.seeds, config.task.steps) == (64, 4, 200)
    gaps = np.diff(np.log(1 - np.array(fidelities)))
    np.testing.assert_allclose(gaps, np.log(1e-3) / 63, rtol=0.04)
    assert set(load_config("configs/sweep_bits.toml", SweepConfig).grid) == {"fidelity", "bits"}


@pytest.mark.parametrize(
    "text, words",
    [
        ("[grid]\nfidelty = [0.9]", ["`grid`", "'learning_rate'", "'fidelty'"]),
        ("[grid]\nfidelity = [0.9, 0.2]", ["`grid.fidelity`", "[0.25, 1]", "0.2"]),
        ("[grid]\nsurvival = [1.1]", ["`grid.survival`", "[0, 1]", "1.1"]),
        ("[grid]\nlearning_rate = [0.0]", ["`grid.learning_rate`", "0.0"]),
        ("[grid]\nbits = [7.5]", ["`grid.bits`", "whole", "7.5"]),
        ("[grid]\nbits = [40]", ["`bits`", "40"]),
        ("[grid]\nnodes = [0]", ["`grid.nodes`", "0"]),
        ("[grid]\nfidelity = []", ["`grid.fidelity`", "at least one"]),
        ("[link]\ngamma = -0.1", ["`link.gamma`", "-0.1"]),
        ("[task]\nsteps = 0", ["`task.steps`", "integer of at least 1"]),
        ("seeds = 0", ["`seeds`", "integer of at least 1"]),
        ("devices = 0", ["`devices`", "integer of at least 1"]),
        ("widgets = 3", ["unknown keys", "widgets"]),
    ],
)
def test_bad_configurations_are_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as refusal:
        load_config(path, SweepConfig)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_more_devices_than_there_are_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`devices` must be at most the 8 there are, but got 9"):
        run_sweep(dataclasses.replace(JOB, out=str(tmp_path), devices=9))


def test_the_command_writes_files_and_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "small.toml"
    config.write_text("""
        name = "small"
        seeds = 2
        noise = "off"
        [task]
        nodes = 2
        steps = 2
        [task.data]
        name = "digits"
        [grid]
        fidelity = [0.9, 1.0]
        bits = [8]
    """)
    arguments = ["sweep", "--config", str(config), "--out", str(tmp_path), "--devices", "2"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "small"
    names = {"sweep.json", "points.jsonl", "results.csv", "accuracy_fidelity.png"}
    names |= {"accuracy_fidelity.svg"}
    assert {path.name for path in folder.iterdir()} == names
    for name in ("results.csv", "accuracy_fidelity.png"):
        assert f"wrote {folder / name}" in printed
    _, *rows = csv.reader((folder / "results.csv").read_text().splitlines())
    accuracy = np.array([float(row[3]) for row in rows]).reshape(2, 2)
    for fidelity, own in zip(("0.9", "1"), accuracy, strict=True):
        assert [fidelity, "8", f"{own.mean():.4f}", f"{own.std():.4f}"] in [
            line.split() for line in printed.splitlines()
        ]
    # Another configuration does not touch them.
    assert cli.main([*arguments, "--task.steps", "3"]) == 2
    assert "`folder` must be empty or hold the same sweep" in capsys.readouterr().err


# --- pictures


def made_up(**parameters):
    """A table over all combinations, with three seeds."""
    names = [*parameters, "seed"]
    columns = np.meshgrid(*parameters.values(), np.arange(3), indexing="ij")
    table = {name: column.ravel() for name, column in zip(names, columns, strict=True)}
    table["accuracy"] = np.sin(sum(table.values())).astype(np.float32)
    return table


@pytest.mark.parametrize(
    "parameters, names",
    [
        ({"fidelity": [0.9, 0.99, 1.0], "bits": [8]}, ["accuracy_fidelity"]),
        (
            {"fidelity": 1 - np.geomspace(0.1, 1e-4, 9), "readout_error": np.linspace(0, 0.1, 12)},
            ["accuracy_fidelity", "accuracy_readout_error", "accuracy_fidelity_readout_error"],
        ),
        (
            {"gamma": [0.0, 0.1], "nodes": [2, 4], "bits": [8, 16]},
            ["accuracy_gamma", "accuracy_nodes", "accuracy_bits"],
        ),
        ({"fidelity": [0.9]}, []),
    ],
    ids=["one", "two", "three", "none"],
)
def test_there_is_a_picture_for_each_parameter_that_varies(tmp_path, parameters, names):
    table = made_up(**parameters)
    table["accuracy"][:2] = np.nan, np.inf  # a run that diverged is no reason to draw nothing
    paths = draw_sweep(tmp_path, table)
    assert [path.stem for path in paths] == names
    for path in paths:
        picture = matplotlib.image.imread(path)[..., :3]
        assert picture.shape[1] > 600
        assert (picture.min(-1) < 0.9).mean() > 0.01


def test_a_sparse_grid_is_drawn_too(tmp_path):
    table = made_up(fidelity=[0.9, 0.99, 0.999], bits=[4, 8])
    some = {name: column[:-6] for name, column in table.items()}
    assert len(draw_sweep(tmp_path, some)) == 3


def test_a_row_of_the_table_has_the_mean_and_the_spread_of_its_seeds():
    table = {
        "fidelity": np.array([0.9] * 3 + [1.0] * 3),
        "seed": np.array([0, 1, 2] * 2),
        "accuracy": np.array([0.3, 0.5, 1.0, 0.7, 0.7, 0.7]),
    }
    shown = sweep_table(table, "two settings")
    # 0.6 and the root of (0.09 + 0.01 + 0.16) / 3 by hand.
    assert [list(column.cells) for column in shown.columns] == [
        ["0.9", "1"],
        ["0.6000", "0.7000"],
        ["0.2944", "0.0000"],
    ]


def test_a_long_table_leaves_out_its_middle():
    shown = sweep_table(made_up(fidelity=np.linspace(0.5, 1, 64)), "many [bold]")
    assert shown.row_count == 41
    assert "24 more" in list(shown.columns[0].cells)[20]
    output = io.StringIO()
    Console(width=80, file=output).print(shown)
    assert "many [bold]" in output.getvalue()
