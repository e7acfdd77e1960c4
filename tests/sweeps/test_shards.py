"""A sweep in shards, cut off and gone on with at will, ends in the bytes of one process."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from launched import children, finished

import jaxqring as jq
from jaxqring import cli
from jaxqring.jobs._flags import shard_of
from jaxqring.jobs._sweep_job import SweepConfig
from jaxqring.launch import World
from jaxqring.launch._supervisor import PARENT
from jaxqring.show import _sweep_figures
from jaxqring.sweeps import sensitivity, sweep
from jaxqring.sweeps._points import points_of
from jaxqring.sweeps._points_folder import PointsFolder

GRID = {"x": [0.1, 0.7, 2.0, 3.0], "kind": ["bent", "straight"]}
SETTINGS = {"static": ["kind"], "devices": jax.devices()[:1], "chunk": 1}
POINTS = 24


def wave(setting, key):
    """A cheap point whose bits would show any difference in its inputs or its arithmetic."""
    noise = jax.random.uniform(key, (9,))
    bend = jnp.sin if setting["kind"] == "bent" else jnp.abs
    return {"height": jnp.sum(bend(setting["x"] * noise)), "turns": jnp.int32(setting["x"] * 10)}


def waves(folder, function=wave, **options):
    return sweep(function, GRID, 3, folder=folder, **SETTINGS, **options)


def results(folder):
    return (folder / "results.csv").read_bytes()


def lines(folder):
    """The lines of each file of points, sorted: settings that are compiled together come first."""
    return {file.name: sorted(file.read_bytes().splitlines()) for file in folder.glob("points*")}


def shares_of(folder, n):
    """The lines of one process, as those of n shards, sorted."""
    one = (folder / "points.jsonl").read_bytes().splitlines()
    one.sort(key=lambda line: json.loads(line)["point"])
    return {f"points.{k}-of-{n}.jsonl": sorted(one[k - 1 :: n]) for k in range(1, n + 1)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the table of one process."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, waves(folder)


def assert_same(table, other):
    assert list(table) == list(other)
    for name in table:
        np.testing.assert_array_equal(table[name], other[name], err_msg=name)


@contextlib.contextmanager
def cut_off_after(points, monkeypatch):
    """Interrupts whatever appends another point."""
    append, count = PointsFolder.append, itertools.count()

    def interrupted(self, found):
        if next(count) == points:
            raise KeyboardInterrupt
        append(self, found)

    with monkeypatch.context() as patch:
        patch.setattr(PointsFolder, "append", interrupted)
        yield


def test_three_shards_cut_off_at_random_merge_to_the_bytes_of_one_process(
    whole, tmp_path, monkeypatch
):
    dice = random.Random(3)
    for k in dice.sample((1, 2, 3), 3):
        with cut_off_after(dice.randrange(8), monkeypatch), pytest.raises(KeyboardInterrupt):
            waves(tmp_path, shard=(k, 3))
    tables = [waves(tmp_path, shard=(k, 3)) for k in dice.sample((1, 2, 3), 3)]
    assert [table["seed"].size for table in tables] == [0, 0, POINTS]
    assert_same(tables[-1], whole[1])
    assert results(tmp_path) == results(whole[0])
    (tmp_path / "results.csv").unlink()
    assert_same(waves(tmp_path, pytest.fail, merge=True), whole[1])
    assert results(tmp_path) == results(whole[0])
    # Each has its share, in the lines that one process writes, and there is nothing else.
    shares = shares_of(whole[0], 3)
    assert lines(tmp_path) == shares
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.json", "results.csv", *shares}


def test_points_of_another_split_are_kept_and_not_computed_twice(whole, tmp_path, monkeypatch):
    for split, points in (((2, 3), 5), ((1, 1), 4)):
        with cut_off_after(points, monkeypatch), pytest.raises(KeyboardInterrupt):
            waves(tmp_path, shard=split)
    for k in (1, 2):
        waves(tmp_path, shard=(k, 2))
    found = {name: len(there) for name, there in lines(tmp_path).items()}
    assert (found["points.2-of-3.jsonl"], found["points.jsonl"]) == (5, 4)
    assert found["points.1-of-2.jsonl"] + found["points.2-of-2.jsonl"] == POINTS - 5 - 4
    assert results(tmp_path) == results(whole[0])


@pytest.mark.parametrize("n", [1, 2, 3, 7, POINTS])
def test_the_shares_hold_every_point_once_and_differ_by_one_at_most(n):
    points = points_of(GRID, 3, ["kind"])
    shares = [list(points.share(k, n)) for k in range(1, n + 1)]
    assert sorted(itertools.chain(*shares)) == list(range(POINTS))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    # The processes of a job divide a share among them in the same way.
    for k, count in itertools.product(range(1, n + 1), (1, 2, 3)):
        parts = [shard_of(f"{k}/{n}", World(index, count)) for index in range(count)]
        if n * count <= POINTS:
            together = itertools.chain(*(points.share(*part) for part in parts))
            assert sorted(together) == shares[k - 1]


# --- what a merge refuses


@pytest.fixture
def shards(whole, tmp_path):
    """A folder with the lines of three shards that are done, not merged."""
    (tmp_path / "sweep.json").write_bytes((whole[0] / "sweep.json").read_bytes())
    for name, there in shares_of(whole[0], 3).items():
        there.sort(key=lambda line: json.loads(line)["point"])
        (tmp_path / name).write_bytes(b"\n".join(there) + b"\n")
    return tmp_path


def refused(folder, *words):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=r"^`folder` must [^\n]+\.$") as refusal:
        waves(folder, pytest.fail, merge=True)
    for word in words:
        assert word in str(refusal.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_gaps_are_counted_and_the_first_one_is_named(shards, tmp_path_factory):
    second = shards / "points.2-of-3.jsonl"
    content = second.read_bytes()
    second.write_bytes(content[:-1])  # the last line is not whole
    refused(shards, "hold every point", "without 1 of 24", "point 22 (x = 3.0, kind = straight, s")
    second.unlink()
    refused(shards, "without 8 of 24, the first point 1 (x = 0.1, kind = bent, seed = 1)")
    refused(tmp_path_factory.mktemp("empty"), "without 24 of 24, the first point 0")
    second.write_bytes(content)
    waves(shards, pytest.fail, merge=True)


def test_doubles_are_named_with_their_files(shards):
    line = (shards / "points.2-of-3.jsonl").read_bytes().splitlines(keepends=True)[1]
    other = shards / "points.1-of-2.jsonl"
    other.write_bytes(line)
    words = "hold each point once", "point 4 (", "in points.1-of-2.jsonl and points.2-of-3.jsonl"
    refused(shards, *words)
    with pytest.raises(ValueError, match="must hold each point once"):
        waves(shards, pytest.fail, shard=(1, 3))
    other.write_bytes(b"")
    waves(shards, pytest.fail, merge=True)


def test_points_of_another_sweep_are_refused(shards):
    first = shards / "points.1-of-3.jsonl"
    content = first.read_bytes()
    entry = json.loads(content.splitlines()[0])
    for change in (
        {"at": {**entry["at"], "x": 0.2}},
        {"outcomes": {"depth": 1.0}},
        {"point": POINTS},
    ):
        line = json.dumps({**entry, **change}).encode()
        first.write_bytes(content.replace(content.splitlines()[0], line))
        refused(shards, "be empty or hold the same sweep", "points.1-of-3.jsonl with another point")
    (shards / "sweep.json").unlink()
    refused(shards, "points.1-of-3.jsonl alone")


# --- several at work


def test_a_shard_at_work_is_refused_to_others_and_its_file_left_alone(shards):
    cut = (shards / "points.2-of-3.jsonl").read_bytes()[:-5]
    for k in (1, 2):
        (shards / f"points.{k}-of-3.jsonl").write_bytes(cut if k == 2 else b"")
    points = points_of(GRID, 3, ["kind"])
    with contextlib.closing(PointsFolder(shards, points, None, "cpu", (2, 3))) as second:
        second.read()
        (shards / "points.2-of-3.jsonl").write_bytes(cut + b"more")
        with pytest.raises(ValueError, match="`folder` must be one in which no other process wo"):
            second.hold()
    (shards / "points.2-of-3.jsonl").write_bytes(cut)
    with contextlib.closing(PointsFolder(shards, points, None, "cpu", (1, 3))) as first:
        first.read()
        first.hold()
        with pytest.raises(ValueError, match="`folder` must be one in which no other process wo"):
            waves(shards, pytest.fail, shard=(1, 3))
    waves(shards, shard=(1, 3))
    assert (shards / "points.2-of-3.jsonl").read_bytes() == cut
    assert waves(shards, shard=(2, 3))["seed"].size == POINTS


def test_shards_may_begin_while_others_do(whole, shards):
    late = shards / "late"
    points = points_of(GRID, 3, ["kind"])
    kinds = json.loads((shards / "sweep.json").read_text())["outcomes"]
    with contextlib.closing(PointsFolder(late, points, None, "cpu", (1, 3))) as first:
        assert first.read() == {}
        with contextlib.closing(PointsFolder(late, points, None, "cpu", (2, 3))) as second:
            first.begin(kinds)
            first.append({0: dict.fromkeys(kinds, 1)})
            assert second.read() == {0: dict.fromkeys(kinds, 1)}
            second.begin(kinds)
            with pytest.raises(ValueError, match=r"with outcomes \{'height'"):
                second.begin({"depth": "float32"})
    assert sorted(path.name for path in late.iterdir()) == [
        *("points.1-of-3.jsonl", "points.2-of-3.jsonl", "sweep.json")
    ]
    assert (late / "sweep.json").read_bytes() == (whole[0] / "sweep.json").read_bytes()


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1.5, 3), (1, POINTS + 1), (True, 2)])
def test_a_shard_that_is_none_is_refused(shard, tmp_path):
    with pytest.raises(ValueError, match=r"^`shard` must be "):
        waves(tmp_path, pytest.fail, shard=shard)
    assert not list(tmp_path.iterdir())


def test_without_a_folder_there_are_no_shards():
    for option in ({"shard": (1, 2)}, {"merge": True}):
        with pytest.raises(ValueError, match=r"^`folder` must be given for a shard or a merge"):
            waves(None, pytest.fail, **option)


def test_a_merge_may_take_place_on_another_kind_of_device(shards):
    held = json.loads((shards / "sweep.json").read_text())
    (shards / "sweep.json").write_text(json.dumps({**held, "platform": "tpu", "jax": "9.9"}))
    with pytest.raises(ValueError, match="with other jax"):
        waves(shards, pytest.fail)
    waves(shards, pytest.fail, merge=True)


# --- sensitivities


def test_derivatives_of_two_shards_are_those_of_one_process(tmp_path):
    def train(ring, keys):
        return {"level": ring.transition[0, 0] * jax.random.uniform(keys[0])}

    def make(at):
        return jq.Ring(jq.superdense(jq.werner(fidelity=at["fidelity"])), jq.FixedPoint(8))

    def derivatives(folder, **share):
        options = {
            "seeds": 4,
            "calls": 1,
            "estimators": ["difference"],
            "devices": jax.devices()[:1],
        }
        at = {"fidelity": 0.9}
        return sensitivity(train, make, at, folder=tmp_path / folder, **options, **share)

    one = derivatives("one")
    first = derivatives("two", shard=(1, 2))
    assert list(first) == list(one)
    assert not any(column.size for column in first.values())
    assert_same(derivatives("two", shard=(2, 2)), one)
    assert_same(derivatives("two", merge=True), one)
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert one["standard_error"] > 0


# --- the command

JOB = """
name = "job"
seeds = 2
[task]
nodes = 2
steps = 2
batch_per_node = 4
[task.data]
name = "digits"
[grid]
fidelity = [0.9, 0.99, 1.0]
bits = [8]
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A command in which training is cheap, for a folder of its own."""

    def cheap(config, setting, key):
        return {"loss": setting["fidelity"] * jax.random.uniform(key), "accuracy": jnp.float32(1)}

    def draw(folder, table):
        (folder / "figure.png").write_text(f"{table['loss'].size} points")
        return [folder / "figure.png"]

    monkeypatch.setattr(SweepConfig, "train", cheap)
    monkeypatch.setattr(_sweep_figures, "draw_sweep", draw)
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "job.toml").write_text(JOB)
    return ["sweep", "--config", str(tmp_path / "job.toml"), "--devices", "1", "--out"]


def test_shards_by_the_command_are_merged_by_the_last_and_on_request(job, tmp_path, capsys):
    one, two = (tmp_path / name for name in ("one", "two"))
    assert cli.main([*job, str(one)]) == 0
    told = capsys.readouterr().out
    assert cli.main([*job, str(two), "--shard", "2/2"]) == 0
    assert f"{two / 'job'} waits for points of others" in capsys.readouterr().out
    assert cli.main([*job, str(two), "--merge"]) == 2
    assert "`folder` must hold every point of the sweep" in capsys.readouterr().err
    for arguments in (["--shard", "1/2"], ["--merge"]):
        assert not (two / "job" / "figure.png").exists()
        assert cli.main([*job, str(two), *arguments]) == 0
        said = capsys.readouterr().out.replace(str(two), str(one)).splitlines()
        table = told.splitlines()[1:]  # without the bar of progress
        assert said[-len(table) :] == table
        assert results(two / "job") == results(one / "job")
        (two / "job" / "figure.png").unlink()


@pytest.mark.parametrize("text", ["4/3", "0/3", "a/b", "1", "1/", "-1/3", "1.5/3", "/", ""])
def test_a_share_that_is_none_is_refused_by_the_command(job, tmp_path, text, capsys):
    assert cli.main([*job, str(tmp_path), f"--shard={text}", "--processes", "2"]) == 2
    assert "`shard` must be K/N, the K-th of N shares, with 1 <= K <= N" in capsys.readouterr().err


def test_processes_take_their_shares_by_rank_and_the_parent_shows_the_table(
    job, tmp_path, capsys, monkeypatch
):
    one, two = (tmp_path / name for name in ("one", "two"))
    assert cli.main([*job, str(one)]) == 0
    capsys.readouterr()
    progress = []

    def in_a_row(command, processes, *, progress, say):
        """In place of `supervise`, whose children are those of another test."""
        say(f"{progress()}")
        for rank in range(processes):
            with monkeypatch.context() as patch:
                place = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "", "MASTER_PORT": 1}
                for name, value in (place | {PARENT: 0}).items():
                    patch.setenv(name, str(value))
                patch.setattr(cli, "follow_parent", lambda: None)
                assert cli.main(command[3:]) == 0
            assert "wrote" not in capsys.readouterr().out
            say(f"{progress()}")
        return 0

    monkeypatch.setattr(cli, "supervise", in_a_row)
    monkeypatch.setattr(cli, "_say", lambda console, line: progress.append(line))
    assert cli.main([*job, str(two), "--processes", "3"]) == 0
    assert results(two / "job") == results(one / "job")
    assert sorted(lines(two / "job")) == [f"points.{k}-of-3.jsonl" for k in (1, 2, 3)]
    assert len(set(progress[:4])) == 4
    assert [line for line in progress[4:] if "wrote" not in line] == []
    assert "std over seeds" in capsys.readouterr().out
    # A request that is refused by a child is not merged.
    monkeypatch.setattr(cli, "supervise", lambda *given, **named: 2)
    assert cli.main([*job, str(tmp_path / "three"), "--processes", "3"]) == 2
    assert not (tmp_path / "three").exists()


# --- processes that are killed

SLOW_SWEEP = """
import sys
import jax
from jaxqring.sweeps import sweep

def slow(setting, key):
    body = lambda _, x: jax.numpy.sin(x + setting["x"])
    return {"y": jax.lax.fori_loop(0, 1_000_000, body, jax.random.normal(key))}

sweep(slow, {"x": [0.1 * i for i in range(12)]}, 2, folder=sys.argv[1],
      devices=jax.devices()[:1], chunk=1, shard=(int(sys.argv[2]), int(sys.argv[3])))
"""
KILLS = 9


@pytest.mark.matrix
def test_two_processes_of_the_command_one_of_which_is_killed_end_in_the_bytes_of_one(tmp_path):
    (tmp_path / "job.toml").write_text(JOB.replace("seeds = 2", "seeds = 6"))

    def start(name, *arguments):
        command = ["sweep", "--config", str(tmp_path / "job.toml"), "--out", str(tmp_path / name)]
        return subprocess.Popen(
            [sys.executable, "-m", "jaxqring.cli", *command, "--task.steps", "100", *arguments],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with start("two", "--processes", "2") as process:
        while not any(lines(tmp_path / "two" / "job").values()):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        os.kill(children(process)[1], signal.SIGKILL)
        said = finished(process)
    assert "process 1 of 2 was ended by SIGKILL" in said
    assert said.count("std over seeds") == 1
    with start("one") as process:
        assert finished(process).count("std over seeds") == 1
    assert results(tmp_path / "two" / "job") == results(tmp_path / "one" / "job")
    assert lines(tmp_path / "two" / "job") == shares_of(tmp_path / "one" / "job", 2)


@pytest.mark.matrix
def test_three_shards_at_once_killed_at_random_merge_to_the_bytes_of_one_process(tmp_path):
    """Nine kills by SIGKILL at moments of chance, each followed by another start of its shard."""

    def start(folder, k, n):
        return subprocess.Popen([sys.executable, "-c", SLOW_SWEEP, str(folder), str(k), str(n)])

    one, three, dice = tmp_path / "one", tmp_path / "three", random.Random(5)
    assert start(one, 1, 1).wait() == 0
    running, kills = {k: start(three, k, 3) for k in (1, 2, 3)}, 0
    try:
        while running:
            k = dice.choice(sorted(running))
            if kills < KILLS and running[k].poll() is None:
                done = sum(map(len, lines(three).values()))
                time.sleep(dice.uniform(0, 4))  # from before the first import to the last point
                running[k].send_signal(signal.SIGKILL)
                if running[k].wait() == -signal.SIGKILL:
                    kills += 1
                    running[k] = start(three, k, 3)
                assert sum(map(len, lines(three).values())) >= done
            elif running[k].poll() is not None:
                assert running.pop(k).wait() == 0
            else:
                time.sleep(0.05)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert kills > 2
    assert results(three) == results(one)
    assert lines(three) == shares_of(one, 3)
