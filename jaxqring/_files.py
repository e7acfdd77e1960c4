"""Files that are whole or not there: metrics line by line, results and checkpoints at once."""

import json
import math
import os
from pathlib import Path
from typing import Any

import jax
from flax import serialization


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def to_json(value: Any) -> str:
    """Strict JSON: numbers that are not finite become null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [plain(entry) for entry in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(plain(value), allow_nan=False)


class MetricsLog:
    """`metrics.jsonl`: one line a step, each written with a single call.

    Args:
      path: of the file.
      keep: which of the lines already there to keep; a last line cut short is dropped.
    """

    def __init__(self, path: Path, keep: Any) -> None:
        kept = [line for line in read_metrics(path) if keep(line)]
        write_whole(path, "".join(to_json(line) + "\n" for line in kept).encode())
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def write(self, line: dict[str, Any]) -> None:
        os.write(self._file, (to_json(line) + "\n").encode())

    def close(self) -> None:
        os.close(self._file)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def save_state(path: Path, state: Any, step: int) -> None:
    """A checkpoint: any Flax-serialisable state, and the number of the steps behind it."""
    tree = serialization.to_state_dict(jax.device_get(state))
    write_whole(path, serialization.msgpack_serialize({"step": step, "state": tree}))


def load_state(path: Path) -> tuple[Any, int]:
    """The state dict and the step of a checkpoint; None and 0 where there is none."""
    if not path.exists():
        return None, 0
    saved = serialization.msgpack_restore(path.read_bytes())
    return saved["state"], int(saved["step"])
