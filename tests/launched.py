"""Jobs over several processes, for the tests of `launch`."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
from saved import last_state

from jaxqring.jobs import TrainConfig, load_config

RUNS = {
    "noisy": "fidelity = 0.99\nresync_every = 4",
    "ideal": 'noise = "off"\nbits = 32',
    "protected": "fidelity = 0.99\nprotection = {}",
    "secure": 'noise = "off"\nsecurity = {}',
    "changing": "fidelity = 0.99\nresync_every = 4\n"
    "membership = [{ step = 2, nodes = [0, 2] }, { step = 4, nodes = [0, 1, 2, 3] }]",
    "compressed": 'fidelity = 0.99\ncompress = { method = "topk" }',
}
JOB = """
name = "job"
model = "mlp"
nodes = 4
batch_per_node = 4
steps = 6
eval_every = 2
learning_rate = 0.02
[data]
name = "digits"
"""


def job(folder, runs, steps=6):
    """A job of some runs, as a file and as a configuration."""
    folder.mkdir(exist_ok=True)
    path = folder / "job.toml"
    text = JOB.replace("steps = 6", f"steps = {steps}")
    path.write_text(text + "".join(f'[[runs]]\nname = "{run}"\n{RUNS[run]}\n' for run in runs))
    return path, dataclasses.replace(load_config(path, TrainConfig), out=str(folder))


def written(config):
    """The bytes of the metrics and of the last states of a finished job."""
    assert (config.folder / "summary.json").exists()
    assert not list(config.folder.rglob("*tmp*"))
    found = {"metrics": (config.folder / "metrics.jsonl").read_bytes()}
    for run in config.runs:
        state, step = last_state(config, run.name)
        assert step == config.steps
        for place, leaf in jax.tree_util.tree_leaves_with_path(state):
            found[run.name + jax.tree_util.keystr(place)] = leaf.tobytes()
    return found


@contextlib.contextmanager
def started(path, config, processes, *flags):
    """The job over several processes, which compile as this one does."""
    arguments = ["train", "--config", str(path), "--out", config.out, *flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxqring.cli", *arguments, "--processes", str(processes)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def children(process):
    """The processes that a process has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def wait_for(happened, process, seconds=300):
    """Waits until something has happened; false if the process has ended before."""
    deadline = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return True


def finished(process):
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    return said


def running(pid):
    """True for a process that has not ended, a zombie not counted."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
