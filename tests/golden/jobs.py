"""Files that the four commands write, at toy size: every JSON, CSV and checkpoint.

Left out are keys that hold times of the clock and folders, `VOLATILE`, and figures. No file holds a
version.
"""

import dataclasses
import functools
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from saved import last_state

from golden.record import Group
from jaxqring import cli
from jaxqring.jobs import TrainConfig, load_config

#: Keys of wall-clock times, which a training alone writes, and of folders.
VOLATILE = {"train": ("seconds", "out"), "sweep": (), "sensitivity": (), "budget": ("out",)}
TASK = '[task]\nmodel = "mlp"\nnodes = 2\nbatch_per_node = 4\nsteps = 2\n'
TOML = {
    "train": """
name = "demo"
model = "cnn"
nodes = 4
batch_per_node = 4
steps = 10
eval_every = 5
[data]
name = "digits"
[[runs]]
name = "classical"
collective = "classical"
[[runs]]
name = "ring-noisy"
fidelity = 0.95
resync_every = 4
[[runs]]
name = "ring-protected"
fidelity = 0.99
[runs.protection]
n = 255
k = 223
[[runs]]
name = "ring-secure"
noise = "off"
[runs.security]
ghz_fidelity = 0.9999
target_epsilon = 1e-3
""",
    "sweep": f'name = "sweep"\nseeds = 2\ndevices = 1\n{TASK}[task.data]\nname = "digits"\n'
    "[grid]\nfidelity = [0.9, 0.99]\n",
    "sensitivity": 'name = "sensitivity"\nseeds = 2\ndevices = 1\nestimators = ["gaussian", '
    f'"difference"]\n{TASK}optimizer = "sgd"\n[task.data]\nname = "digits"\n'
    "[links]\nfidelity = [0.97, 0.99]\n",
    "budget": 'name = "budget"\nsize = 1000\nnodes = 4\nfidelities = [1.0, 0.99, 0.9]\n'
    '[[codes]]\nn = 255\nk = 223\n[[codes]]\nfamily = "ideal"\n',
}


def steady(value: Any, volatile: tuple[str, ...]) -> Any:
    """A value from a file without what differs from run to run."""
    if isinstance(value, dict):
        return {k: steady(item, volatile) for k, item in value.items() if k not in volatile}
    return [steady(item, volatile) for item in value] if isinstance(value, list) else value


def content(path: Path) -> Any:
    """The content of a file; numbers of a table as they are written."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return text
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text)


def files_of(_: Callable, command: str) -> dict[str, Any]:
    """All files that a command writes, but the figures, by their names."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        config = Path(folder) / "config.toml"
        config.write_text(TOML[command], encoding="utf-8")
        status = cli.main([command, "--config", str(config), "--out", f"{folder}/out"])
        assert status == 0
        found = {
            path.relative_to(f"{folder}/out").as_posix(): content(path)
            for path in sorted(Path(folder, "out").rglob("*"))
            if path.is_file() and path.suffix in (".csv", ".json", ".jsonl")
            if "checkpoints" not in path.parts
        }
        if command == "train":
            job = dataclasses.replace(load_config(config, TrainConfig), out=f"{folder}/out")
            for run in job.runs:
                state, step = last_state(job, run.name)
                found[f"{job.name}/checkpoints/{run.name}.msgpack"] = {"state": state, "step": step}
    assert found
    return {name: steady(value, VOLATILE[command]) for name, value in found.items()}


GROUPS = {
    f"jaxqring {command}": Group(functools.partial(files_of, command=command), False, matrix=True)
    for command in TOML
}
