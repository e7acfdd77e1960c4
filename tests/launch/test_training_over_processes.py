"""A training ends in the same bytes over any number of processes, whoever dies on the way."""

import os
import signal
import subprocess
import sys

import pytest
from launched import RUNS, children, finished, job, started, wait_for, written

from jaxqring._files import locked
from jaxqring.jobs import train


def test_a_job_over_two_processes_one_of_which_is_killed_ends_in_the_bytes_of_one_process(tmp_path):
    runs = ("changing", "protected")
    path, whole = job(tmp_path, runs)
    train(whole)
    (tmp_path / "other").mkdir()
    path, config = job(tmp_path / "other", runs)
    with started(path, config, 2) as process:
        assert wait_for(lambda: list(config.folder.glob("checkpoints/*/2")), process)
        os.kill(children(process)[1], signal.SIGKILL)
        said = finished(process)
    assert "process 1 of 2 was ended by SIGKILL" in said
    assert "2 processes start again, from the last checkpoint" in said
    assert "4 devices, one for each node of 2 processes, mapping shard_map" in said
    assert written(config) == written(whole)


@pytest.mark.matrix
@pytest.mark.parametrize("processes", [2, 4])
def test_runs_of_every_kind_end_in_the_bytes_of_one_process(tmp_path, processes):
    # Four processes cannot carry the two nodes that stay in one of them.
    runs = [run for run in RUNS if (processes, run) != (4, "changing")]
    path, whole = job(tmp_path, runs)
    train(whole)
    (tmp_path / "other").mkdir()
    path, config = job(tmp_path / "other", runs)
    with started(path, config, processes) as process:
        assert "start again" not in finished(process)
    assert written(config) == written(whole)


def test_a_folder_in_which_another_process_works_is_refused(tmp_path):
    _, config = job(tmp_path, ["ideal"])
    with (
        locked(config.folder),
        pytest.raises(ValueError, match=r"^`out` must name a folder in whi"),
    ):
        train(config)


@pytest.mark.matrix
def test_processes_of_slurm_find_each_other(tmp_path):
    path, whole = job(tmp_path, ["ideal"])
    train(whole)
    (tmp_path / "other").mkdir()
    path, config = job(tmp_path / "other", ["ideal"])
    found = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost"}
    found |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "jaxqring.cli", "train", "--config", str(path)]
    processes = []
    try:
        for rank in ("0", "1"):
            own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
            processes.append(
                subprocess.Popen(
                    [*command, "--out", config.out],
                    env={**os.environ, **found, **own},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        said = [process.communicate(timeout=300)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    finally:
        for process in processes:
            process.kill()
    assert "2 processes, mapping shard_map" in said[0]
    assert "mapping" not in said[1]
    assert written(config) == written(whole)
