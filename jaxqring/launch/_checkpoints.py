"""Checkpoints of a run by Orbax: whole or not there, and the same on any layout."""

import hashlib
import math
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.launch._processes import is_first, wait_for_all


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
        self._orbax.save(self._folder / str(step), _split(state))
        self.cost = time.monotonic() - begin

    def wait(self) -> None:
        """Waits until the checkpoint that was begun is written, and removes those before it.

        Raises:
          OSError: if it cannot be written.
        """
        try:
            self._orbax.wait_until_finished()
        except ValueError as error:  # of TensorStore, which has no others
            raise OSError(f"a checkpoint could not be written: {error}") from error
        if is_first():
            self._remove_old()

    def restore(self, like: PyTree, sharding: NamedSharding | None = None) -> tuple[PyTree, int]:
        """The state of the last checkpoint, and its step; `like` itself and 0 without one.

        Args:
          like: pytree of arrays (N, ...) of the shapes and types of the state.
          sharding: of the result over several processes; a single one gets NumPy arrays.

        Raises:
          ValueError: if the checkpoint is that of another state.
        """
        step = newest(self._folder)
        if step is None:
            return like, 0
        path = self._folder / str(step)
        there = self._orbax.metadata(path).item_metadata.tree
        if _places(there) != _places(like):
            _refuse(path)

        def target(saved: Any, leaf: Any) -> Any:
            once, each = tuple(leaf.shape[1:]), tuple(leaf.shape)
            if tuple(saved.shape) not in (once, each) or saved.dtype != leaf.dtype:
                _refuse(path)
            if tuple(saved.shape) == each and sharding is not None:
                return jax.ShapeDtypeStruct(each, leaf.dtype, sharding=sharding)
            return np.empty(saved.shape, leaf.dtype)

        saved = self._orbax.restore(path, jax.tree.map(target, there, like))
        return jax.tree.map(lambda own, leaf: _rows(own, leaf.shape), saved, like), step

    def close(self) -> None:
        """Ends the writing, after which nothing else may be called."""
        self.wait()
        self._orbax.close()

    def _remove_old(self) -> None:
        """Removes all but the last checkpoint, and what was left of one that was cut off."""
        last = newest(self._folder)
        for path in self._folder.glob("*"):
            if path.name != str(last):
                shutil.rmtree(path)


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
    alike = _alike(own)
    kept = [
        np.array(rows[0])
        if same
        else (rows if getattr(leaf, "is_fully_addressable", True) else leaf)
        for leaf, rows, same in zip(leaves, own, alike, strict=True)
    ]
    return jax.tree.unflatten(treedef, kept)


def _own_rows(leaf: Any) -> np.ndarray:
    """The rows of the nodes of this process."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def _alike(own: list[np.ndarray]) -> list[bool]:
    """True for each array of which all rows, on all processes, are the same bits."""
    rows_alike = [all(row.tobytes() == rows[0].tobytes() for row in rows[1:]) for rows in own]
    if jax.process_count() == 1:
        return rows_alike
    digests = [hashlib.blake2b(rows[0].tobytes(), digest_size=16).digest() for rows in own]
    here = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    here = np.concatenate([here, np.array(rows_alike, np.uint8)[:, None]], axis=1)
    every = np.asarray(multihost_utils.process_allgather(here))
    return (np.all(every == every[0], axis=(0, 2)) & (every[0, :, -1] == 1)).tolist()
