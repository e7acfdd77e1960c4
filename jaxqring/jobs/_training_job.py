"""A training job: several runs one after the other, resumable at any moment."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from flax import serialization
from flax.training.train_state import TrainState

from jaxqring._fields import as_written
from jaxqring._files import MetricsLog, load_state, read_metrics, save_state, to_json, write_whole
from jaxqring._progress import Advance, progress_bars
from jaxqring._types import PyTree
from jaxqring.jobs._security_config import guarantees
from jaxqring.jobs._training_config import RunConfig, TrainConfig
from jaxqring.jobs._training_folder import (
    checkpoint_path,
    finished_summary,
    locked,
    prepare_folder,
    result_path,
    resume_points,
)
from jaxqring.jobs._training_results import cost_of, of_compression, resync_bits, summarize, sums_of
from jaxqring.launch._processes import gathered, is_first, wait_for_all
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import replica_agreement
from jaxqring.secure import Security
from jaxqring.train import _datasets as datasets
from jaxqring.train._objective import AXIS, exact, initial_params, model_for, schedule
from jaxqring.train._placement import Placement, place
from jaxqring.train._step import CompressedState, node_correct, node_resync, node_step, over_nodes

if TYPE_CHECKING:
    from rich.console import Console

TEST_BATCH = 1000

#: Steps whose metrics are fetched at once, unless an evaluation comes before.
FETCHED_TOGETHER = 16

#: Shows a line to the user.
Say = Callable[[str], None]


def train(config: TrainConfig, console: "Console | None" = None) -> dict[str, Any]:
    """Trains every run of a job and writes its results.

    Files under `config.folder`: `metrics.jsonl`, one line for each step; `summary.json`, written
    whole at the end; a checkpoint and, once it is done, the result of each run. A job that was cut
    off goes on from its last checkpoints if it is started again with the same configuration, and
    ends with the same numbers as one that was not. A finished job is not trained again. Where
    `config.resume` is off, either starts over.

    Over several processes (see `jaxqring.launch.initialize`) all call it, and the first one alone
    writes and shows.

    Args:
      config: the job.
      console: that shows progress, with the platform, the devices and the mapping in the first
        line; None for silence.

    Returns:
      The contents of `summary.json`; on other processes than the first, without results.

    Raises:
      ValueError: if there are fewer devices than nodes where each needs one, the data cannot be
        loaded, or the job was cut off on another platform or under another mapping.
    """
    if before := finished_summary(config):
        return before
    placement = place(config.mapping, config.nodes)
    data = datasets.load(config.data)
    # Refuses too large a batch, or what a run cannot send, before anything is written.
    datasets.batches(data, 0, config.seed, config.nodes, config.batch_per_node)
    _check_costs(config, data)
    if not is_first():
        console = None
    say: Say = (lambda line: None) if console is None else functools.partial(_say, console)
    say(str(placement))
    folder = config.folder
    with contextlib.ExitStack() as stack:
        log = None
        if is_first():
            stack.enter_context(locked(folder))
            if prepare_folder(config, placement):
                say(f"{folder} held a job of another configuration, which this one replaces")
            points = resume_points(config)
            log = MetricsLog(
                folder / "metrics.jsonl",
                keep=lambda line: line["step"] <= points.get(line["run"], 0),
            )
            stack.callback(log.close)
        # The others read what there is after that, and nothing is written before they have.
        wait_for_all("folder")
        begun = {run.name: _begun(run, folder) for run in config.runs}
        wait_for_all("begun")
        with progress_bars(console) as bar:
            results = [
                _finished_before(run, begun[run.name], say)
                or _finish(run, config, data, placement, begun[run.name], log, bar)
                for run in config.runs
            ]
    summary = {
        "name": config.name,
        "parameters": results[0]["parameters"],
        "platform": placement.platform,
        "mapping": placement.mapping,
        "jax": jax.__version__,
        "config": as_written(config),
        "runs": results,
    }
    if is_first():
        write_whole(folder / "summary.json", (to_json(summary) + "\n").encode())
    return summary


def _check_costs(config: TrainConfig, data: datasets.Dataset) -> None:
    """Refuses a compressor that cannot send the gradients over the links of its run.

    Raises:
      ValueError: as `Compressor.cost`.
    """
    model, key = model_for(config.model, data, config.quantum), jax.random.key(0)
    params = jax.eval_shape(lambda: initial_params(model, key, data))
    for run in config.runs:
        if run.compress is not None:
            cost_of(run.ring(), run.compressor(), params, config.nodes)


def _say(console: "Console", line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Begun(NamedTuple):
    """The part of a run that is done.

    Attributes:
      result: of a finished run; None for others.
      state: the state dict of its last checkpoint; None without one, or where it is finished.
      step: the number of the steps behind it.
    """

    result: dict[str, Any] | None
    state: PyTree
    step: int


def _begun(run: RunConfig, folder: Path) -> _Begun:
    done = result_path(folder, run.name)
    if done.exists():
        return _Begun(json.loads(done.read_text()), None, 0)
    return _Begun(None, *load_state(checkpoint_path(folder, run.name)))


def _finished_before(run: RunConfig, begun: _Begun, say: Say) -> dict[str, Any] | None:
    """The result of a run that was finished before the job was cut off; None for other runs."""
    if begun.result is not None:
        say(f"{run.name}: finished before, left as it is")
    return begun.result


def _finish(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    placement: Placement,
    begun: _Begun,
    log: MetricsLog | None,
    bar: Callable[..., Advance],
) -> dict[str, Any]:
    """Trains a run to its end and writes its result, on the process that has a log to write."""
    folder = config.folder
    start = time.monotonic()
    ring, compressor = run.ring(), run.compressor()
    state, first = _initial_state(run, config, data), begun.step
    if begun.state is not None:
        state = serialization.from_state_dict(state, begun.state)
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    cost = cost_of(ring, compressor, params, config.nodes)
    sums = sums_of(run, params, config.nodes)
    source, security = _masking(run, config, sums)
    over = functools.partial(over_nodes, mapping=placement.mapping, devices=placement.devices)
    accuracy_of = functools.partial(_test_accuracy, over(node_correct, shared=(1, 2)), data)
    with_shots = config.quantum is not None and config.quantum.shots is not None
    sampled = model_for(config.model, data, config.quantum).apply if with_shots else None
    step_fn = over(node_step(ring, source, security, compressor, sampled), shared=(2,))
    resync_fn = over(node_resync, shared=())
    update = _updates(run, config, data, step_fn, resync_fn, placement)
    advance = bar(run.name, total=config.steps, done=first, note="compiling")
    accuracy, waiting = None, []
    for step in range(first, config.steps):
        state, metrics = update(state, step)
        waiting.append({"run": run.name, "step": step + 1, **metrics})
        note = None
        evaluates = step + 1 == config.steps or (step + 1) % config.eval_every == 0
        if evaluates or len(waiting) == FETCHED_TOGETHER:
            lines, waiting = _fetched(waiting), []
            if evaluates:
                accuracy = accuracy_of(state)
                lines[-1]["test_accuracy"] = float(accuracy.mean())
                note = f"loss {lines[-1]['loss']:.3f}, test accuracy {accuracy.mean():.3f}"
            whole = gathered(state) if evaluates else None
            if log is not None:
                for line in lines:
                    log.write(line)
                if evaluates:
                    # After its lines: a checkpoint never speaks of lines that are not there.
                    save_state(checkpoint_path(folder, run.name), whole, step + 1)
        advance(1, note)
    if accuracy is None:  # cut off between the last checkpoint and the result
        accuracy = accuracy_of(state)

    agreement_fn = over(lambda tree: replica_agreement(tree, AXIS), shared=())
    agreement = gathered(agreement_fn(state.params))
    if log is None:
        return {"parameters": count}
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["run"] == run.name]
    resyncs = config.steps // run.resync_every if run.resync_every else 0
    result = {
        "name": run.name,
        "test_accuracy": float(accuracy.mean()),
        "test_accuracy_worst_node": float(accuracy.min()),
        **summarize(lines, ring, cost, resync_bits(state, config.nodes, resyncs)),
        "parameter_agreement": float(agreement[0]),
        "parameters": count,
        "steps": len(lines),
        "seconds": round(time.monotonic() - start, 2),
    }
    if compressor is not None:
        result |= of_compression(lines, cost)
    if source is not None and security is not None:
        result["security"] = guarantees(security, source, sums, lines)
    write_whole(result_path(folder, run.name), (to_json(result) + "\n").encode())
    return result


def _updates(
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


def _masking(
    run: RunConfig, config: TrainConfig, sums: Sequence[tuple[int, int]]
) -> tuple[GHZSource | None, Security | None]:
    """The GHZ states of a secure run and their verification; None for other runs.

    Args:
      run: of the job.
      config: the job.
      sums: the sizes of the collectives of a step, and their bits.
    """
    if run.security is None:
        return None, None
    source = run.security.source(config.nodes, run.fidelity)
    return source, run.security.build(source, sums, config.steps)


def _initial_state(run: RunConfig, config: TrainConfig, data: datasets.Dataset) -> TrainState:
    """The same parameters on every node, with a leading axis of nodes."""
    model = model_for(config.model, data, config.quantum)
    params = initial_params(model, jax.random.fold_in(jax.random.key(config.seed), 0), data)
    parts: dict[str, Any] = {
        "apply_fn": exact(model).apply,
        "params": params,
        "tx": _optimizer(run, config),
    }
    compressor = run.compressor()
    if compressor is None:
        state = TrainState.create(**parts)
    else:
        state = CompressedState.create(**parts, memory=compressor.init(params))
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (config.nodes, *np.shape(leaf))), state
    )


def _optimizer(run: RunConfig, config: TrainConfig) -> optax.GradientTransformation:
    rate = schedule(run.learning_rate or config.learning_rate, config.steps)
    if (run.optimizer or config.optimizer) == "adam":
        return optax.adam(rate)
    momentum = config.momentum if run.momentum is None else run.momentum
    return optax.sgd(rate, momentum or None)


def _test_accuracy(correct_fn: Callable, data: datasets.Dataset, state: TrainState) -> np.ndarray:
    """(N,) accuracy of each node's replica on the whole test set."""
    total = len(data.test_labels)
    correct = np.zeros(jax.tree.leaves(state.params)[0].shape[0])
    for start in range(0, total, TEST_BATCH):
        images = data.test_images[start : start + TEST_BATCH]
        labels = data.test_labels[start : start + TEST_BATCH]
        correct += gathered(correct_fn(state, images, labels))
    return correct / total


def _plain(value: Any) -> str | int | float:
    """A number of the first node, or what every node has in common."""
    if not isinstance(value, np.ndarray):
        return value
    return int(value[0]) if np.issubdtype(value.dtype, np.integer) else float(value[0])
