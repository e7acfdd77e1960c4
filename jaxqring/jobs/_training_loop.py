"""The loop of a run: steps, lines of metrics, evaluations, and checkpoints."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import serialization
from flax.training.train_state import TrainState

from jaxqring._files import MetricsLog, load_state
from jaxqring._progress import Advance
from jaxqring.jobs._training_config import RunConfig, TrainConfig
from jaxqring.jobs._training_folder import checkpoint_path, old_checkpoint_path
from jaxqring.launch._checkpoints import Checkpoints, checkpoint_interval, newest
from jaxqring.launch._processes import is_first, of_first, wait_for_all
from jaxqring.launch._stopping import Stopped, stopping
from jaxqring.train import _datasets as datasets
from jaxqring.train._placement import Placement

#: Steps whose metrics are fetched at once, unless an evaluation or a checkpoint comes before.
FETCHED_TOGETHER = 16


def restored(
    run: RunConfig,
    config: TrainConfig,
    initial: TrainState,
    placement: Placement,
    checkpoints: Checkpoints,
) -> tuple[TrainState, int]:
    """The state of the last checkpoint, or the initial one, and the number of the steps behind it.

    The file of an earlier version is read once more, and then written anew.
    """
    old = old_checkpoint_path(config.folder, run.name)
    if old.exists():
        if newest(checkpoint_path(config.folder, run.name)) is None:
            saved, step = load_state(old)
            checkpoints.save(step, saved)
            checkpoints.wait()
        wait_for_all("old checkpoint")
        if is_first():
            old.unlink()
    sharding = placement.sharding if placement.processes > 1 else None
    state, step = checkpoints.restore(serialization.to_state_dict(initial), sharding)
    return serialization.from_state_dict(initial, state), step


def trained(
    run: RunConfig,
    config: TrainConfig,
    state: TrainState,
    first: int,
    update: Callable[[TrainState, int], tuple[TrainState, dict[str, jax.Array]]],
    accuracy_of: Callable[[TrainState], np.ndarray],
    checkpoints: Checkpoints,
    log: MetricsLog | None,
    advance: Advance,
) -> tuple[TrainState, np.ndarray]:
    """Trains to the last step, with a checkpoint of it.

    Returns:
      The state, and (N,) the accuracy of each node's replica on the test set.

    Raises:
      Stopped: after the checkpoint of the step at which SIGTERM has come.
    """
    due, accuracy, waiting = _Due(config, first), None, []
    with stopping() as asked:
        for step in range(first, config.steps):
            state, metrics = update(state, step)
            waiting.append({"run": run.name, "step": step + 1, **metrics})
            note, stops = None, asked()
            evaluates = step + 1 == config.steps or (step + 1) % config.eval_every == 0
            saves = stops or due(step + 1)
            if evaluates or saves or len(waiting) == FETCHED_TOGETHER:
                lines, waiting = _fetched(waiting), []
                if evaluates:
                    accuracy = accuracy_of(state)
                    lines[-1]["test_accuracy"] = float(accuracy.mean())
                    note = f"loss {lines[-1]['loss']:.3f}, test accuracy {accuracy.mean():.3f}"
                if log is not None:
                    for line in lines:
                        log.write(line)
            if saves:  # after its lines: a checkpoint never speaks of lines that are not there
                checkpoints.save(step + 1, serialization.to_state_dict(state))
                due.saved(step + 1, checkpoints.cost)
            advance(1, note)
            if stops:
                checkpoints.close()
                raise Stopped(f"{run.name}, step {step + 1}")
    checkpoints.close()
    # None where it was cut off between the last checkpoint and the result.
    return state, accuracy_of(state) if accuracy is None else accuracy


class _Due:
    """Says after which steps a checkpoint is written; the same on all processes."""

    def __init__(self, config: TrainConfig, first: int) -> None:
        self._last = config.steps
        self._every = config.checkpoint_every or config.eval_every
        self._mean_time = config.mean_time_between_failures
        self._next = first + FETCHED_TOGETHER  # the first to be measured
        self._since: tuple[int, float] | None = None

    def __call__(self, done: int) -> bool:
        if self._since is None:  # after the first step, which compiles
            self._since = done, time.monotonic()
        if done == self._last:
            return True
        return done % self._every == 0 if self._mean_time is None else done >= self._next

    def saved(self, done: int, cost: float) -> None:
        """Takes note of a checkpoint, and of the seconds that it cost."""
        if self._mean_time is None or self._since is None:
            return
        (begin, at), now = self._since, time.monotonic()
        each = (now - at - cost) / max(done - begin, 1)
        steps = checkpoint_interval(cost, self._mean_time) / max(each, 1e-9)
        self._next = done + of_first(max(1, min(round(steps), self._last)))
        self._since = done, now


def updates(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    step_fn: Callable,
    resync_fn: Callable,
    placement: Placement,
) -> Callable[[TrainState, int], tuple[TrainState, dict[str, jax.Array]]]:
    """A function `update(state, step)` that returns the next state and its metrics, on the devices.

    Where the devices run ahead, it returns once the step before the one that it begins is done.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    nodes, rows, runs_ahead = config.nodes, placement.rows, placement.runs_ahead
    spread = functools.partial(jax.make_array_from_process_local_data, placement.sharding)
    before: Any = None

    def update(state: TrainState, step: int) -> tuple[TrainState, dict[str, jax.Array]]:
        nonlocal before
        batch = datasets.batches(data, step, config.seed, nodes, config.batch_per_node, rows)
        if placement.processes > 1:
            batch = jax.tree.map(spread, batch)
        state, metrics = step_fn(state, batch, key)
        jax.block_until_ready(before if runs_ahead else (state, metrics))
        if run.resync_every and (step + 1) % run.resync_every == 0:
            state = resync_fn(state)
            jax.block_until_ready(None if runs_ahead else state)
        before = metrics
        return state, metrics

    return update


def _fetched(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics as numbers, fetched from the devices at once.

    All nodes have the same, of which a process takes those of its first.
    """
    own = jax.device_get(jax.tree.map(_of_process, lines))
    # In the order of the names that was given, which JAX does not keep.
    return [
        {name: _plain(values[name]) for name in line}
        for line, values in zip(lines, own, strict=True)
    ]


def _of_process(value: Any) -> Any:
    """A part of an array that is on a device of this process; the whole of what is not spread."""
    if not isinstance(value, jax.Array) or value.is_fully_addressable:
        return value
    return value.addressable_data(0)


def _plain(value: Any) -> str | int | float:
    """A number of the first node, or what every node has in common."""
    if not isinstance(value, np.ndarray):
        return value
    return int(value[0]) if np.issubdtype(value.dtype, np.integer) else float(value[0])
