"""A file is whole or not there."""

import json
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from flax.training.train_state import TrainState

from jaxqring._files import (
    MetricsLog,
    load_state,
    lock,
    number,
    read_metrics,
    save_state,
    to_json,
    write_whole,
)


class CrashError(BaseException):
    pass


def crash(*_, **__):
    raise CrashError


def keep_all(_):
    return True


def strict(text):
    """Parses JSON, and refuses the NaN and Infinity that Python would take."""
    return json.loads(text, parse_constant=crash)


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_crash_leaves_the_old_content(tmp_path, monkeypatch, call):
    path = tmp_path / "summary.json"
    write_whole(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*(Path, "replace") if call == "replace" else (os, "fsync"), crash)
        with pytest.raises(CrashError):
            write_whole(path, b"new and longer")
    assert path.read_bytes() == b"old"
    # What the crash left behind does not get into the way of the next attempt.
    write_whole(path, b"n")
    assert path.read_bytes() == b"n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_crash_leaves_no_half_file(tmp_path, monkeypatch, call):
    path = tmp_path / "summary.json"
    with monkeypatch.context() as patch:
        patch.setattr(*(Path, "replace") if call == "replace" else (os, "fsync"), crash)
        with pytest.raises(CrashError):
            write_whole(path, b"new")
    assert not path.exists()


def test_the_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_whole(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace"]


def test_writers_of_one_file_at_once_have_drafts_of_their_own(tmp_path, monkeypatch):
    path, fsync = tmp_path / "shared", os.fsync

    def other_meanwhile(file):
        monkeypatch.setattr(os, "fsync", fsync)
        write_whole(path, b"other", alone=False)
        assert path.read_bytes() == b"other"

    monkeypatch.setattr(os, "fsync", other_meanwhile)
    write_whole(path, b"mine", alone=False)
    assert path.read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["shared"]


def test_a_file_is_locked_for_one_descriptor_until_it_is_closed(tmp_path):
    path = tmp_path / "file"
    with path.open("w") as first, path.open("w") as second:
        assert lock(first.fileno())
        assert not lock(second.fileno())
        first.close()
        assert lock(second.fileno())


def test_numbers_that_are_not_finite_become_strings():
    nan, inf = float("nan"), float("inf")
    value = {"a": nan, "b": [inf, -inf, 1.5, (nan, 2)], "c": {"d": nan}, "e": None, "f": "NaN"}
    assert strict(to_json(value)) == {
        "a": "nan",
        "b": ["inf", "-inf", 1.5, ["nan", 2]],
        "c": {"d": "nan"},
        "e": None,
        "f": "NaN",
    }


def test_these_strings_and_the_null_of_earlier_versions_are_numbers_again():
    for value in (float("inf"), -float("inf"), 0.1, 7):
        assert number(strict(to_json(value))) == value
    assert math.isnan(number(strict(to_json(float("nan")))))
    assert math.isnan(number(None))


def test_metrics_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"run": "inf", "loss": null, "step": 2}\n')
    (line,) = read_metrics(path)
    assert math.isnan(line.pop("loss"))
    assert line == {"run": "inf", "step": 2}


def test_a_float_survives_json_exactly():
    values = [0.1, 1 / 3, 1e-45, float(np.float32(0.1)), 2.0**-1074, 1.7976931348623157e308]
    assert strict(to_json(values)) == values


def test_metrics_are_strict_json_a_line_each(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, keep_all)
    lines = [{"step": 1, "loss": 2.5}, {"step": 2, "loss": float("nan")}, {"run": "line\nbreak"}]
    for count, line in enumerate(lines, start=1):
        log.write(line)
        assert len(read_metrics(path)) == count  # there without waiting for the end
    log.close()
    text = path.read_text()
    assert text.endswith("\n")
    assert [strict(line) for line in text.splitlines()] == [
        lines[0],
        {"step": 2, "loss": "nan"},
        lines[2],
    ]
    first, second, third = read_metrics(path)
    assert (first, third) == (lines[0], lines[2])
    assert math.isnan(second["loss"])


def test_a_line_is_written_with_a_single_call(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl", keep_all)
    written = []
    monkeypatch.setattr(os, "write", lambda _, line: written.append(line) or len(line))
    log.write({"step": 1})
    log.close()
    assert written == [b'{"step": 1}\n']


def test_a_line_that_is_cut_off_by_a_full_disk_is_an_error(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl", keep_all)
    monkeypatch.setattr(os, "write", lambda _, line: len(line) - 1)
    with pytest.raises(OSError, match="No space left"):
        log.write({"step": 1})
    log.close()


@pytest.mark.parametrize("cut", [1, 5, 13])
def test_a_last_line_cut_short_is_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 1}\n{"step": 2}\n'
    path.write_text(whole + '{"step": 345}\n'[:cut])
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    log = MetricsLog(path, keep_all)
    assert path.read_text() == whole
    log.write({"step": 3})
    log.close()
    assert path.read_text() == whole + '{"step": 3}\n'


def test_reopening_keeps_the_lines_that_are_asked_for(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {i}}}\n' for i in range(5)))
    MetricsLog(path, lambda line: line["step"] % 2 == 0).close()
    assert read_metrics(path) == [{"step": 0}, {"step": 2}, {"step": 4}]


def test_there_are_no_metrics_without_a_file(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    path = tmp_path / "checkpoints" / "run.msgpack"
    params = {
        "layer": {"w": jax.random.normal(jax.random.key(0), (3, 4)), "b": jnp.float32(0.1)},
        "half": jnp.array([1.1, -0.0, jnp.nan], jnp.bfloat16),
        "count": jnp.array([2**31 - 1], jnp.int32),
    }
    make = TrainState.create
    state = make(apply_fn=None, params=params, tx=optax.adam(1e-3))
    ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf), params)
    state = state.replace(step=7, opt_state=state.tx.update(ones, state.opt_state, params)[1])
    save_state(path, state, 7)
    saved, step = load_state(path)
    assert step == 7
    empty = make(apply_fn=None, params=jax.tree.map(jnp.zeros_like, params), tx=optax.adam(1e-3))
    loaded = serialization.from_state_dict(empty, saved)
    assert jax.tree.structure(loaded) == jax.tree.structure(empty)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(loaded), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def test_there_is_no_state_without_a_checkpoint(tmp_path):
    assert load_state(tmp_path / "run.msgpack") == (None, 0)
