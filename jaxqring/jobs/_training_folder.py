"""The folder of a training job: what it holds, and up to where it is done."""

import contextlib
import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

from jaxqring import _checks as checks
from jaxqring._fields import as_written
from jaxqring._files import load_state, to_json, write_whole
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.launch._checkpoints import checkpoints_in, newest
from jaxqring.train._placement import Placement


def result_path(folder: Path, run: str) -> Path:
    """The file with the result of a run."""
    return folder / "results" / f"{run}.json"


def checkpoint_path(folder: Path, run: str) -> Path:
    """The folder with the last checkpoint of a run."""
    return folder / "checkpoints" / run


def old_checkpoint_path(folder: Path, run: str) -> Path:
    """The file in which earlier versions wrote the last checkpoint of a run."""
    return folder / "checkpoints" / f"{run}.msgpack"


def losses_path(folder: Path) -> Path:
    """The file with the nodes that runs have lost."""
    return folder / "losses.json"


def finished_summary(config: TrainConfig) -> dict[str, Any] | None:
    """The contents of `summary.json` of a finished job; None if it is to be trained.

    A job is trained if it is not finished, or if `config.resume` is off.
    """
    summary = config.folder / "summary.json"
    return json.loads(summary.read_text()) if goes_on(config) and summary.exists() else None


def goes_on(config: TrainConfig) -> bool:
    """True if the folder holds this job, and it is not to start over."""
    return config.resume and _marker(config.folder)[0] == _identity(config)


def check_folder(config: TrainConfig) -> None:
    """Refuses a job whose folder holds another one, unless it is to start over.

    Raises:
      ValueError: if it does.
    """
    there, _ = _marker(config.folder)
    if config.resume and there is not None and there != _identity(config):
        rule = "hold no job of another configuration, unless this one is to replace it (--restart)"
        checks.refuse("out", rule, str(config.folder))


def prepare_folder(config: TrainConfig, placement: Placement) -> None:
    """Marks the folder as that of this job, emptied of other results unless the job goes on.

    Raises:
      ValueError: if the job was cut off on another platform or under another mapping.
    """
    folder = config.folder
    there, where = _marker(folder)
    here = {"platform": placement.platform, "mapping": placement.mapping}
    goes_on = there is not None and config.resume
    # What "pmap" draws and adds up is what "shard_map" does, bit for bit.
    if goes_on and where and _alike(where) != _alike(here):
        rule = f"be {where['mapping']!r} on platform {where['platform']}, where the job was cut off"
        got = f"{placement.mapping} on {placement.platform}"
        checks.refuse("mapping", f"{rule}, unless it starts over (--restart)", got)
    if not goes_on:
        forget(folder)
    marker = {**_identity(config), "placement": here}
    write_whole(folder / "config.json", to_json(marker).encode())


def forget(folder: Path) -> None:
    """Removes all that a folder holds of a job."""
    # The marker first: once it is gone, whatever else is left, the job starts afresh.
    names = ("config.json", "metrics.jsonl", "summary.json", "losses.json")
    others = itertools.chain(folder.glob("results/*.json"), folder.glob("tensorboard/*/events.*"))
    for path in [*(folder / name for name in names), *others]:
        path.unlink(missing_ok=True)
    for run in folder.glob("checkpoints/*"):
        if run.suffix == ".msgpack" and run.is_file():
            run.unlink()
        for path in checkpoints_in(run):
            shutil.rmtree(path)
        with contextlib.suppress(OSError):  # what others have put there stays
            run.rmdir()


def _alike(where: dict[str, str]) -> dict[str, str]:
    return {**where, "mapping": where["mapping"].replace("pmap", "shard_map")}


def resume_points(config: TrainConfig) -> dict[str, float]:
    """The step of the checkpoint of each run, by name; infinity for a finished run."""
    points: dict[str, float] = {}
    for run in config.runs:
        step = newest(checkpoint_path(config.folder, run.name))
        if step is None:
            _, step = load_state(old_checkpoint_path(config.folder, run.name))
        done = result_path(config.folder, run.name).exists()
        points[run.name] = math.inf if done else step
    return points


def _identity(config: TrainConfig) -> dict[str, Any]:
    """The part of a configuration that tells a job from others, as it is read back from JSON."""
    fields = as_written(config)
    for name in ("resume", "checkpoint_every", "mean_time_between_failures"):
        fields.pop(name, None)
    return json.loads(to_json(fields))


def _marker(folder: Path) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The configuration of the job that a folder holds, if any, and where it ran."""
    marker = folder / "config.json"
    if not marker.exists():
        return None, {}
    there = json.loads(marker.read_text())
    return there, there.pop("placement", {})
