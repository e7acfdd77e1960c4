"""Checkpoints of a run by Orbax: whole or not there, and the same on any layout."""

import contextlib
import hashlib
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.launch._processes import is_first, of_first, wait_for_all


def checkpoint_interval(cost: float, mean_time: float) -> float:
    """The time between checkpoints that loses the least, for failures at random moments.

    Daly's higher-order formula, sqrt(2 C M) [1 + sqrt(C / 2M) / 3 + C / 18M] - C for C below 2M,
    and M above. Young's is its first factor alone.

    Args:
      cost: C, seconds that a checkpoint keeps the run from working.
      mean_time: M, mean seconds between two failures.

    Returns:
      Seconds of work between the end of a checkpoint and the begin of the next one.

    Raises:
      TypeError: if an argument is not real.
      ValueError: if one is not positive and finite.

    Reference: J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart
    dumps", Future Generation Computer Systems 22, 303 (2006), equation 37.

    >>> round(checkpoint_interval(0.5, 600.0), 3)
    24.163
    """
    for name, value in (("cost", cost), ("mean_time", mean_time)):
        checks.open_interval(name, value, 0.0, math.inf)
    if cost >= 2 * mean_time:
        return mean_time
    ratio = cost / (2 * mean_time)
    return math.sqrt(2 * cost * mean_time) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def newest(folder: Path) -> int | None:
    """The step of the last checkpoint in the folder of a run; None without one."""
    # A checkpoint has another name until all of it is there.
    return max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=None)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in the folder of a run, and what is left of those that were cut off."""
    return [
        path
        for path in folder.glob("*")
        if path.name.isdecimal() or ".orbax-checkpoint-tmp" in path.name
    ]


class Checkpoints:
    """The checkpoints of a run, of which the last one stays.

    A state is a pytree of arrays with a leading axis of nodes. An array of which all nodes have
    the same bits is written once, by the first process; of another one, each process writes the
    rows of its nodes. All processes call the methods together.

    Args:
      folder: of the run; each checkpoint is a folder in it, named by its step.

    Attributes:
      cost: seconds for which the last `save` kept its caller waiting.
    """

    def __init__(self, folder: Path) -> None:
        import orbax.checkpoint as ocp

        self.cost = 0.0
        self._folder = folder.absolute()
        self._orbax = ocp.StandardCheckpointer()
        if is_first():
            self._remove_old()
        wait_for_all("checkpoints")

    def save(self, step: int, state: PyTree) -> None:
        """Begins to write a checkpoint; the state may change as soon as this returns.

        Raises:
          OSError: if this one or the one before cannot be written.
        """
        begin = time.monotonic()
        self.wait()
        with _translated():
            self._orbax.save(self._folder / str(step), _split(state))
        self.cost = time.monotonic() - begin

    def wait(self) -> None:
        """Waits until the checkpoint that was begun is written, and removes those before it.

        Raises:
          OSError: if it cannot be written.
        """
        with _translated():
            self._orbax.wait_until_finished()
        if is_first():
            self._remove_old()

    def step(self) -> int:
        """The step of the last checkpoint, as the first process sees it; 0 without one."""
        return of_first(newest(self._folder) or 0)

    def restore(self, step: int, like: PyTree, sharding: NamedSharding | None = None) -> PyTree:
        """The state of a checkpoint.

        Args:
          step: of the checkpoint.
          like: pytree of arrays (N, ...) of the shapes and types of the state.
          sharding: of the result over several processes; NumPy arrays by default.

        Raises:
          ValueError: if the checkpoint is that of another state.
        """
        path = self._folder / str(step)
        there = self._orbax.metadata(path).item_metadata.tree
        if _places(there) != _places(like):
            _refuse(path)

        def target(saved: Any, leaf: Any) -> Any:
            once, each = tuple(leaf.shape[1:]), tuple(leaf.shape)
            fits = tuple(saved.shape) in (once, each) or leaf.size == 0
            if not fits or saved.dtype != leaf.dtype:
                _refuse(path)
            if tuple(saved.shape) == each and sharding is not None:
                return jax.ShapeDtypeStruct(each, leaf.dtype, sharding=sharding)
            return np.empty(saved.shape, leaf.dtype)

        saved = self._orbax.restore(path, jax.tree.map(target, there, like))
        return jax.tree.map(lambda own, leaf: _rows(own, leaf.shape), saved, like)

    def close(self) -> None:
        """Waits as `wait` does, after which no other method may be called."""
        self.wait()
        self._orbax.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif jax.process_count() == 1:  # others may not come to the end of theirs
            with contextlib.suppress(Exception):
                self.close()

    def _remove_old(self) -> None:
        """Removes checkpoints before the last one, and what was left of one that was cut off."""
        last = newest(self._folder)
        for path in checkpoints_in(self._folder):
            if path.name != str(last):
                # What cannot be removed is not read, and goes next time.
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Says by the type of an error whether another start could do without it."""
    try:
        yield
    except TimeoutError as error:  # of a barrier; by itself it is an OSError
        raise RuntimeError(f"another process did not come: {error}") from error
    except ValueError as error:  # of TensorStore, for files that cannot be written
        raise OSError(f"a checkpoint could not be written: {error}") from error


def _places(tree: PyTree) -> list[tuple]:
    return [place for place, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _refuse(path: Path) -> None:
    checks.refuse("out", "hold checkpoints of this job", str(path))


def _rows(leaf: Any, shape: tuple[int, ...]) -> Any:
    return leaf if leaf.shape == shape else np.broadcast_to(leaf, shape)


def _split(state: PyTree) -> PyTree:
    """The state with arrays that are the same on all nodes, bit for bit, once and as NumPy's."""
    leaves, treedef = jax.tree.flatten(state)
    own = [_own_rows(leaf) for leaf in leaves]
    kept = [
        np.zeros(1, rows.dtype)  # Orbax writes no empty array
        if rows.size == 0
        else np.array(rows[0])
        if same
        else (rows if getattr(leaf, "is_fully_addressable", True) else leaf)
        for leaf, rows, same in zip(leaves, own, _same_on_all(own), strict=True)
    ]
    return jax.tree.unflatten(treedef, kept)


def _own_rows(leaf: Any) -> np.ndarray:
    """The rows of the nodes of this process."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def _same_on_all(own: list[np.ndarray]) -> list[bool]:
    """True for each array of which all rows, on all processes, are the same bits."""
    alike = [bool(np.all(_bytes_of(rows) == _bytes_of(rows[:1]))) for rows in own]
    if jax.process_count() == 1:
        return alike
    digests = [hashlib.blake2b(rows[0].tobytes(), digest_size=16).digest() for rows in own]
    here = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    here = np.concatenate([here, np.array(alike, np.uint8)[:, None]], axis=1)
    every = np.asarray(multihost_utils.process_allgather(here))
    return (np.all(every == every[0], axis=(0, 2)) & (every[0, :, -1] == 1)).tolist()


def _bytes_of(rows: np.ndarray) -> np.ndarray:
    """(rows, bytes) uint8 the bits of each row."""
    return np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
