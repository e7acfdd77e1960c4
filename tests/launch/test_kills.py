"""Random kills, and other layouts after them: the bytes of a job that was not disturbed."""

import os
import random
import signal
import time

import pytest
from launched import children, finished, job, running, started, wait_for, written

from jaxqring.jobs import train

KILLS = 6
LAYOUTS = [1, 2, 4]


def lines(config):
    path = config.folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_at_random(path, config, kills, dice, note=print):
    """Runs a job to its end and kills one of its processes, `kills` times; what it said last.

    A killed parent is followed by another, with another number of processes.
    """
    processes, done, at = dice.choice(LAYOUTS), 0, None
    while True:
        with started(path, config, processes) as parent:
            while done < kills:
                before = lines(config)
                if not wait_for(lambda before=before: lines(config) > before, parent, 300):
                    break
                if at is not None:
                    note(f"next step on {processes} processes {time.monotonic() - at:.1f} s later")
                    at = None
                time.sleep(dice.uniform(0, 0.3))
                started_children = children(parent)
                there = processes == 1 or len(started_children) == processes
                if parent.poll() is not None or not there:
                    continue
                done += 1
                rank = -1 if processes == 1 else dice.randrange(-1, processes)
                victim = parent.pid if rank < 0 else started_children[rank]
                at, seen = time.monotonic(), lines(config)
                os.kill(victim, signal.SIGKILL)
                gone = wait_for_end(started_children, at)
                who = "the parent" if rank < 0 else f"process {rank}"
                note(f"kill {done}: {who} of {processes} at line {seen}; all ended in {gone:.2f} s")
                if rank < 0:
                    break
            else:
                return finished(parent)
            if parent.poll() == 0:
                raise AssertionError(f"ended after {done} of {kills} kills: make the job longer")
        processes = dice.choice(LAYOUTS)


def wait_for_end(pids, since):
    """Seconds until none of the processes is left, at most 30."""
    while any(map(running, pids)):
        assert time.monotonic() < since + 30
        time.sleep(0.01)
    return time.monotonic() - since


@pytest.mark.matrix
def test_killed_at_random_a_job_ends_in_the_bytes_of_one_process(tmp_path):
    path, whole = job(tmp_path, ["protected"], steps=400)
    train(whole)
    (tmp_path / "other").mkdir()
    path, config = job(tmp_path / "other", ["protected"], steps=400)
    said = []
    killed_at_random(path, config, KILLS, random.Random(1), said.append)
    assert sum("kill" in line for line in said) == KILLS
    assert written(config) == written(whole)
