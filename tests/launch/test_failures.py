"""A process that hangs, and a disk that is full: the bytes of a job that was not disturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launched import children, finished, job, running, started, written

from jaxqring.jobs import train
from jaxqring.launch._processes import HEARTBEAT


def whole(folder, runs, steps):
    """What a job in one process writes, and the same job in a folder of its own."""
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
    wanted, path, config = whole(tmp_path, ["noisy"], 200)
    with started(path, config, 2) as process:
        wait_until(lambda: lines(config) > 4, process, 300)
        stopped = children(process)[rank]
        os.kill(stopped, signal.SIGSTOP)
        seen = lines(config)
        assert wait_until(lambda: not running(stopped), process, 60) < HEARTBEAT + 10
        assert seen < 200
        said = finished(process)
    assert said.count("again, from the last checkpoint") == 1
    assert written(config) == wanted
