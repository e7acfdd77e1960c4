"""The loop of a run: steps, lines of metrics, evaluations, and checkpoints."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization
from flax.training.train_state import TrainState

from jaxqring._files import MetricsLog, load_state
from jaxqring._progress import Advance
from jaxqring._types import PyTree
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_folder import old_checkpoint_path
from jaxqring.launch._checkpoints import Checkpoints, checkpoint_interval
from jaxqring.launch._processes import is_first, of_first, wait_for_all
from jaxqring.launch._stopping import Stopped
from jaxqring.train._membership import fresh_copies, reached
from jaxqring.train._placement import Placement

#: Steps whose metrics are fetched at once, unless an evaluation or a checkpoint comes before.
FETCHED_TOGETHER = 16


class Reached(NamedTuple):
    """The point that a run has come to.

    Attributes:
      state: of its nodes.
      copies: of the memory of nodes that are away, by their numbers; None if there are none ever.
      done: the number of the steps behind it.
    """

    state: TrainState
    copies: dict[str, PyTree] | None
    done: int

    def saved(self) -> PyTree:
        """The pytree that a checkpoint holds, every array with a leading axis."""
        tree = serialization.to_state_dict(self.state)
        if self.copies:
            rows = jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.copies)
            tree["copies"] = serialization.to_state_dict(rows)
        return tree


def restored(
    run: RunConfig,
    config: TrainConfig,
    initial: TrainState,
    placement: Placement,
    checkpoints: Checkpoints,
) -> Reached:
    """The point of the last checkpoint, or the begin of the run.

    The file of an earlier version is read once more, and then written anew.

    Args:
      run: of the job.
      config: the job.
      initial: the state of one node before the first step, with a leading axis of one.
      placement: of the nodes.
      checkpoints: of the run.
    """
    done, old = checkpoints.step(), old_checkpoint_path(config.folder, run.name)
    if of_first(old.is_file()):
        if not done:
            saved, done = load_state(old)
            checkpoints.save(done, saved)
            checkpoints.wait()
        wait_for_all("old checkpoint")
        if is_first():
            old.unlink()
    periods = config.periods(run)
    index = reached(periods, done)
    nodes = len(periods[index].nodes)
    state = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (nodes, *leaf.shape[1:])), initial)
    copies: dict[str, PyTree] | None = None
    if (compressor := run.compressor()) is not None and run.memory == "neighbour":
        params = jax.tree.map(lambda leaf: leaf[0], initial.params)
        copies = jax.device_get(fresh_copies(compressor, params, periods, index))
    like = Reached(state, copies, done)
    if not done:
        return like
    # Where the processes cannot carry the nodes of the checkpoint, each reads the whole of it.
    shares = 1 < placement.processes <= nodes <= placement.nodes
    shares = shares and nodes % placement.processes == 0
    sharding = placement.of(nodes).sharding if shares else None
    tree = checkpoints.restore(done, like.saved(), sharding)
    if copies:
        rows = jax.tree.map(lambda leaf: np.asarray(leaf)[0], tree.pop("copies"))
        copies = serialization.from_state_dict(copies, rows)
    return Reached(serialization.from_state_dict(state, tree), copies, done)


class Loop(NamedTuple):
    """The steps of a run, with the checkpoints, the log and the bar that they share.

    Attributes:
      run: of the job.
      config: the job.
      checkpoints: of the run.
      due: says after which steps one is written.
      log: of the metrics; None on other processes than the first.
      advance: the progress bar.
      asked: true after a step at which SIGTERM asks to stop; called once after each step.
    """

    run: RunConfig
    config: TrainConfig
    checkpoints: Checkpoints
    due: "Due"
    log: MetricsLog | None
    advance: Advance
    asked: Callable[[], bool]

    def steps(
        self,
        point: Reached,
        end: int,
        update: Callable[[TrainState, int], tuple[TrainState, dict[str, jax.Array]]],
        accuracy_of: Callable[[TrainState], np.ndarray],
    ) -> Reached:
        """Trains up to a step.

        Args:
          point: from which on.
          end: the number of the steps that are to be done.
          update: takes a state and the number of the step to the next state and its metrics.
          accuracy_of: (N,) the accuracy of each node's replica on the test set.

        Raises:
          Stopped: after the checkpoint of the step at which SIGTERM has come.
        """
        (state, copies, done), config = point, self.config
        waiting: list[dict[str, Any]] = []
        for step in range(done, end):
            state, metrics = update(state, step)
            waiting.append({"run": self.run.name, "step": step + 1, **metrics})
            note, stops = None, self.asked()
            evaluates = step + 1 == config.steps or (step + 1) % config.eval_every == 0
            saves = self.due(step + 1) or stops
            if evaluates or saves or step + 1 == end or len(waiting) == FETCHED_TOGETHER:
                lines, waiting = _fetched(waiting), []
                if evaluates:
                    accuracy = accuracy_of(state)
                    lines[-1]["test_accuracy"] = float(accuracy.mean())
                    note = f"loss {lines[-1]['loss']:.3f}, test accuracy {accuracy.mean():.3f}"
                if self.log is not None:
                    for line in lines:
                        self.log.write(line)
            if saves:
                if self.log is not None:  # a checkpoint never speaks of lines that are not there
                    self.log.sync()
                self.checkpoints.save(step + 1, Reached(state, copies, step + 1).saved())
                self.due.saved(step + 1, self.checkpoints.cost)
            self.advance(1, note)
            if stops:
                self.checkpoints.close()
                raise Stopped(f"{self.run.name}, step {step + 1}")
        return Reached(state, copies, end)


class Due:
    """Says after which steps a checkpoint is written: the same on all processes, which all ask."""

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
        # A coarse clock may say that either took no time.
        steps = checkpoint_interval(max(cost, 1e-9), self._mean_time) / max(each, 1e-9)
        self._next = done + of_first(max(1, min(round(steps), self._last)))
        self._since = done, now


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
