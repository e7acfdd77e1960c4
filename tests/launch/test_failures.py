"""A process that hangs, and a disk that is full: the bytes of a job that was not disturbed."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
from launched import children, finished, job, running, started, written

from jaxqring.jobs import train
from jaxqring.launch._checkpoints import Checkpoints
from jaxqring.launch._processes import HEARTBEAT


def whole(folder, runs, steps):
    """The bytes that a job in one process writes, and the same job in a folder of its own."""
    _, config = job(folder, runs, steps)
    train(config)
    (folder / "other").mkdir()
    path, other = job(folder / "other", runs, steps)
    return written(config), path, other


def lines(config):
    path = config.folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(happened, process, seconds):
    """Seconds until it has happened, in a job that goes on."""
    begin = time.monotonic()
    while not happened():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < begin + seconds
        time.sleep(0.02)
    return time.monotonic() - begin


@pytest.mark.matrix
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_hangs_is_ended_and_the_job_ends_in_the_bytes_of_one_process(tmp_path, rank):
    wanted, path, config = whole(tmp_path, ["noisy"], 100)
    with started(path, config, 2) as process:
        wait_until(lambda: lines(config) > 4, process, 300)
        stopped = children(process)[rank]
        os.kill(stopped, signal.SIGSTOP)
        seen = lines(config)
        assert wait_until(lambda: not running(stopped), process, 60) < HEARTBEAT + 10
        assert seen < 100
        said = finished(process)
    assert said.count("again, from the last checkpoint") == 1
    assert written(config) == wanted


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        checkpoints.save(1, {"a": np.random.default_rng(0).normal(size=(4, 1000))})
        with pytest.raises(OSError, match=r"^a checkpoint could not be written: .* too large"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full(folder, process):
    """Leaves no room in the file system of a folder."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    yield
    filler.unlink()


@contextlib.contextmanager
def limited(folder, process):
    """Has the process that writes fail where a file grows beyond 100 bytes."""
    writer = children(process)[0]
    resource.prlimit(writer, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    yield


@pytest.fixture
def small_disk(tmp_path):
    """A folder in a file system of its own, of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a file system of its own takes the rights of an administrator")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def check_that_nothing_is_lost(folder, without_room):
    """A job that finds no room is refused in one sentence; with room, it goes on."""
    wanted, path, config = whole(folder, ["noisy"], 100)
    with started(path, config, 2) as process:
        wait_until(lambda: lines(config) > 4, process, 300)
        with without_room(folder, process):
            said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 4 < lines(config) < 100
    assert re.search(r"^error: .*(No space left|too large|EXHAUSTED)", said, re.MULTILINE)
    assert re.search(r"^process [01] of 2 ended with status 1$", said, re.MULTILINE)
    assert "again" not in said
    with started(path, config, 2) as process:
        finished(process)
    assert written(config) == wanted


@pytest.mark.matrix
def test_a_full_disk_ends_a_job_in_one_sentence_and_costs_nothing_more(small_disk):
    check_that_nothing_is_lost(small_disk, full)


@pytest.mark.matrix
def test_a_limit_on_the_size_of_files_does_the_same(tmp_path):
    check_that_nothing_is_lost(tmp_path, limited)
