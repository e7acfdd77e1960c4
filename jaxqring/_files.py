"""Files that are whole or not there: metrics line by line, results and checkpoints at once.

JSON is strict. A number that is not finite is a string that Python reads back, "nan", "inf" or
"-inf"; null says that there is no number. Earlier versions wrote null for all three in metrics and
results: `number` reads it as NaN.
"""

import contextlib
import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import serialization

from jaxqring import _checks as checks
from jaxqring._types import PyTree

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: int) -> bool:
    """Takes an open file for its descriptor alone, until that is closed or the process ends.

    Returns:
      False if another descriptor has it, here or in another process. On Windows, which has no such
      locks, always True.
    """
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process alone, for as long as the process lives.

    On Windows, which has no such locks, it does nothing.

    Raises:
      ValueError: if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if not lock(file.fileno()):
            checks.refuse("out", "name a folder in which no other process works", str(folder))
        yield


def write_whole(path: Path, content: bytes, *, alone: bool = True) -> None:
    """Writes a file so that a reader, or a crash, sees all of it or nothing.

    Args:
      path: of the file; its folder need not exist.
      content: of it.
      alone: False if another process may write the same file at this moment. The draft then has a
        name of its own, and stays where a crash leaves it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ("" if alone else f".{secrets.token_hex(4)}") + ".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def to_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Strict JSON of one line, with a string for each number that is not finite.

    Args:
      value: nested dicts, lists and tuples of what JSON knows.
      default: takes what JSON does not know to something that it does.

    Raises:
      TypeError: if JSON does not know a value and there is no `default`.

    >>> to_json({"loss": float("nan"), "steps": (1, 2)})
    '{"loss": "nan", "steps": [1, 2]}'
    """

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [plain(entry) for entry in item]
        return repr(float(item)) if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(plain(value), allow_nan=False, default=default)


def number(value: Any) -> Any:
    """The number that `to_json` wrote, from its string; NaN for null; other values unchanged.

    >>> number("-inf"), number(None), number(3)
    (-inf, nan, 3)
    """
    if value is None:
        return math.nan
    return float(value) if value in ("nan", "inf", "-inf") else value


class MetricsLog:
    """`metrics.jsonl`: a line for each step, each written with a single call.

    Args:
      path: of the file.
      keep: says which of the lines already there to keep; a last line cut short is dropped.
      then: called with each line after it is written.
    """

    def __init__(
        self,
        path: Path,
        keep: Callable[[dict[str, Any]], bool],
        then: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        there = [line for line in read_metrics(path) if keep(line)]
        write_whole(path, "".join(to_json(line) + "\n" for line in there).encode())
        self.path, self._then = path, then
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def write(self, line: Mapping[str, Any]) -> None:
        text = (to_json(line) + "\n").encode()
        if os.write(self._file, text) < len(text):  # the next call would say so, and spoil the line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._then is not None:
            self._then(line)

    def sync(self) -> None:
        """Waits until the disk has all lines."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    r"""Reads the complete lines of a metrics file; a file that is not there has no lines.

    Args:
      path: of `metrics.jsonl`, in the folder of a job.

    Returns:
      A dict for each line. All entries are numbers, but for the name of the run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "metrics.jsonl")
    ...     _ = path.write_text('{"run": "ideal", "step": 1, "loss": 2.3}\n{"run": "id')
    ...     read_metrics(path)
    [{'run': 'ideal', 'step': 1, 'loss': 2.3}]
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return [{k: v if k == "run" else number(v) for k, v in line.items()} for line in lines]


def total(lines: Sequence[Mapping[str, Any]], name: str) -> Any:
    """The sum of a counter over lines of metrics; lines of versions without it count as zero."""
    return sum(line.get(name, 0) for line in lines)


def save_state(path: Path, state: PyTree, step: int) -> None:
    """Writes a checkpoint: any Flax-serialisable state, and the number of the steps behind it."""
    tree = serialization.to_state_dict(jax.device_get(state))
    write_whole(path, serialization.msgpack_serialize({"step": step, "state": tree}))


def load_state(path: Path) -> tuple[PyTree, int]:
    """The state dict and the step of a checkpoint; None and 0 where there is no checkpoint."""
    if not path.is_file():
        return None, 0
    saved = serialization.msgpack_restore(path.read_bytes())
    return saved["state"], int(saved["step"])
