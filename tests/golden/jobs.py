"""What the four commands write, at toy size: every JSON, CSV and checkpoint.

Left out are keys that hold times, versions and folders, by `VOLATILE`, and figures.
"""

import csv
import functools
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from flax import serialization
from golden.record import Group

from jaxqring import cli

#: Keys of what is not the same in every run.
VOLATILE = ("seconds", "out", "path", "jaxqring", "jax", "version", "versions")
DATA = '[data]\nname = "digits"\n'
TASK = '[task]\nmodel = "mlp"\nnodes = 2\nbatch_per_node = 4\nsteps = 2\n'
DEMO = 'name = "demo"\nmodel = "cnn"\nnodes = 4\nbatch_per_node = 4\nsteps = 10\neval_every = 5\n'
RUNS = {
    "classical": 'collective = "classical"\n',
    "ring-noisy": "fidelity = 0.95\n",
    "ring-protected": "fidelity = 0.99\n[runs.protection]\nn = 255\nk = 223\n",
    "ring-secure": 'noise = "off"\n[runs.security]\nghz_fidelity = 0.9999\ntarget_epsilon = 1e-3\n',
}


def demo(run: str) -> str:
    """Ten steps of the CNN with one kind of all-reduce."""
    return f'{DEMO}[data]\nname = "mnist"\n[[runs]]\nname = "{run}"\n{RUNS[run]}'


TOML = {
    "sweep": f'name = "sweep"\nseeds = 2\ndevices = 1\n{TASK}[task.data]\nname = "digits"\n'
    "[grid]\nfidelity = [0.9, 0.99]\n",
    "sensitivity": 'name = "sensitivity"\nseeds = 2\ndevices = 1\nestimators = ["gaussian", '
    f'"difference"]\n{TASK}optimizer = "sgd"\n[task.data]\nname = "digits"\n'
    "[links]\nfidelity = [0.97, 0.99]\n",
    "budget": 'name = "budget"\nsize = 1000\nnodes = 4\nfidelities = [1.0, 0.99, 0.9]\n'
    '[[codes]]\nn = 255\nk = 223\n[[codes]]\nfamily = "ideal"\n',
}


def steady(value: Any) -> Any:
    """A value from a file without what differs from run to run."""
    if isinstance(value, dict):
        return {name: steady(item) for name, item in value.items() if name not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


def content(path: Path) -> Any:
    """What a file says."""
    if path.suffix == ".msgpack":
        return serialization.msgpack_restore(path.read_bytes())
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return [dict(steady(row)) for row in csv.DictReader(io.StringIO(text))]
    if path.suffix == ".jsonl":
        return [steady(json.loads(line)) for line in text.splitlines()]
    return steady(json.loads(text))


def files_of(_: Callable, command: str, toml: str, label: str) -> dict[str, Any]:
    """All files that a command writes, but the figures, by its label and their names."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        config = Path(folder) / "config.toml"
        config.write_text(toml, encoding="utf-8")
        status = cli.main([command, "--config", str(config), "--out", f"{folder}/out"])
        assert status == 0
        found = {
            f"{label} | {path.relative_to(f'{folder}/out').as_posix()}": content(path)
            for path in sorted(Path(folder, "out").rglob("*"))
            if path.is_file() and path.suffix != ".png"
        }
    assert found
    return found


def _group(command: str, toml: str, label: str, slow: bool) -> Group:
    return Group(functools.partial(files_of, command=command, toml=toml, label=label), False, slow)


GROUPS = {
    f"train, {run}": _group("train", demo(run), f"train, {run}", run != "ring-noisy")
    for run in RUNS
}
GROUPS |= {name: _group(name, toml, name, name != "budget") for name, toml in TOML.items()}
