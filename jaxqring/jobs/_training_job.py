"""A training job: several runs one after the other, resumable at any moment."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from jaxqring._fields import as_written
from jaxqring._files import MetricsLog, locked, read_metrics, to_json, write_whole
from jaxqring._progress import Advance, progress_bars
from jaxqring.jobs._on_step import OnStep
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._run_parts import loop_of, optimizer_of
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_folder import (
    check_folder,
    checkpoint_path,
    finished_summary,
    prepare_folder,
    result_path,
    resume_points,
)
from jaxqring.jobs._training_loop import Due, Loop, restored
from jaxqring.jobs._training_losses import sizes_ahead, with_losses
from jaxqring.jobs._training_programs import programs_of, updates
from jaxqring.jobs._training_results import (
    guarantees,
    of_compression,
    parts_of,
    resync_bits,
    summarize,
    terms_of,
)
from jaxqring.launch._checkpoints import Checkpoints
from jaxqring.launch._processes import gathered, is_first, of_first, wait_for_all
from jaxqring.launch._stopping import stopping
from jaxqring.train import _datasets as datasets
from jaxqring.train._liars import RobustState
from jaxqring.train._membership import changed, consumed, copy_bits, reached
from jaxqring.train._objective import exact, initial_params, model_for
from jaxqring.train._placement import Placement, check_processes, place
from jaxqring.train._updates import CompressedState, LoopState

if TYPE_CHECKING:
    from rich.console import Console

#: Shows a line to the user.
Say = Callable[[str], None]


def train(
    config: TrainConfig, console: "Console | None" = None, *, on_step: OnStep | None = None
) -> dict[str, Any]:
    """Trains every run of a job and writes its results.

    Files under `config.folder`: `metrics.jsonl`, one line for each step; `summary.json`, written
    whole at the end; the last checkpoint of each run, by Orbax, and, once it is done, its result.
    SIGTERM ends a job after a checkpoint of the step that it is at. A job that was cut off goes on
    from its last checkpoints if it is started again with the same configuration, and ends with the
    same numbers as one that was not. A finished job is not trained again. Where `config.resume` is
    off, either starts over.

    Over several processes (see `jaxqring.launch.initialize`) all call it, and the first one alone
    writes and shows.

    Args:
      config: the job.
      console: that shows progress, with the platform, the devices and the mapping in the first
        line; None for silence.
      on_step: called as `on_step(run, step, metrics)` on the first process, with the name of a run,
        the number of a step, counted from 1, and the numbers of its line of metrics. The lines come
        some at a time, as they are fetched from the devices. A job that goes on calls it for the
        steps after the last checkpoint, those that it computes again included, and for no others;
        what it raises ends the job, which goes on from there when it is started again.

    Returns:
      The contents of `summary.json`; on other processes than the first, without results.

    Raises:
      ValueError: if there are fewer devices than nodes where each needs one, the data cannot be
        loaded, the folder holds another job and `config.resume` is on, or the job was cut off on
        another platform or under another mapping.
      jaxqring.launch.Stopped: after SIGTERM.
    """
    if before := finished_summary(config):
        return before
    check_folder(config)
    given, config, ahead = config, with_losses(config), sizes_ahead(config)
    placement = place(config.mapping, max(ahead, default=jax.process_count()))
    for nodes in ahead:
        check_processes(config.mapping, nodes, placement.processes)
    data = datasets.load(config.data)
    _check_costs(config, data)
    if not is_first():
        console = None
    say: Say = (lambda line: None) if console is None else functools.partial(_say, console)
    say(str(placement))
    folder = config.folder
    with contextlib.ExitStack() as stack:
        log = None
        # All have read by then what there was before.
        wait_for_all("read")
        if is_first():
            stack.enter_context(locked(folder))
            prepare_folder(given, placement)
            points = resume_points(config)
            log = MetricsLog(
                folder / "metrics.jsonl",
                keep=lambda line: line["step"] <= points.get(line["run"], 0),
                then=None if on_step is None else functools.partial(_tell, on_step),
            )
            stack.callback(log.close)
        # The others read what there is after that, and nothing is written before they have.
        wait_for_all("folder")
        finished = [_finished_before(run, folder, say) for run in config.runs]
        wait_for_all("finished before")
        asked = stack.enter_context(stopping())
        with progress_bars(console) as bar:
            results = [
                _finish(run, config, data, placement, log, bar, asked) if done is None else done
                for run, done in zip(config.runs, finished, strict=True)
            ]
    summary = {
        "name": config.name,
        "parameters": results[0].get("parameters"),
        "platform": placement.platform,
        "mapping": placement.mapping,
        "jax": jax.__version__,
        "config": as_written(config),
        "runs": results,
    }
    if is_first():
        write_whole(folder / "summary.json", (to_json(summary) + "\n").encode())
    return summary


def _tell(on_step: OnStep, line: Mapping[str, Any]) -> None:
    numbers = {name: float(x) for name, x in line.items() if name not in ("run", "step")}
    on_step(line["run"], line["step"], numbers)


def _check_costs(config: TrainConfig, data: datasets.Dataset) -> None:
    """Refuses too large a batch, and what a run cannot send or mask, on all its numbers of nodes.

    Raises:
      ValueError: as `consumed` and `terms_of`.
    """
    model, key = model_for(config.model, data, config.quantum), jax.random.key(0)
    params = jax.eval_shape(lambda: initial_params(model, key, data))
    for run in config.runs:
        consumed(config.periods(run), config.batch_per_node, len(data.train_labels))
        if (loop := loop_of(run, config)) is not None:
            jax.eval_shape(loop.init, params)
        for nodes in set(config.sizes(run)):
            terms_of(run, config, params, nodes)


def _say(console: "Console", line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _finished_before(run: RunConfig, folder: Path, say: Say) -> dict[str, Any] | None:
    """The result of a run that was finished before the job was cut off; None for other runs."""
    done = result_path(folder, run.name)
    if not of_first(done.exists()):
        return None
    say(f"{run.name}: finished before, left as it is")
    return json.loads(done.read_text()) if is_first() else {}


def _finish(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    placement: Placement,
    log: MetricsLog | None,
    bar: Callable[..., Advance],
    asked: Callable[[], bool],
) -> dict[str, Any]:
    """Trains a run to its end and writes its result, on the process that has a log to write."""
    start = time.monotonic()
    compressor, periods = run.compressor(), config.periods(run)
    initial = _initial_state(run, config, data)
    params = jax.tree.map(lambda leaf: leaf[0], initial.params)
    # Once for each number of nodes, also where it comes back.
    terms = functools.cache(lambda nodes: terms_of(run, config, params, nodes))
    programs = functools.cache(
        lambda nodes: programs_of(run, config, data, terms(nodes), placement.of(nodes))
    )
    have, per_node = len(data.train_labels), config.batch_per_node
    with Checkpoints(checkpoint_path(config.folder, run.name)) as checkpoints:
        point = restored(run, config, initial, placement, checkpoints)
        advance = bar(run.name, total=config.steps, done=point.done, note="compiling")
        loop = Loop(run, config, checkpoints, Due(config, point.done), log, advance, asked)
        for index in range(reached(periods, point.done), len(periods)):
            period = periods[index]
            if index and point.done == period.first:
                held = gathered(point.state), point.copies
                state, copies = changed(*held, periods, index, compressor)
                point = point._replace(state=state, copies=copies)
            if point.done == period.end < config.steps:
                continue
            here = programs(len(period.nodes))
            before = consumed(periods[:index], per_node, have)
            update = updates(run, config, data, here, before)
            point = loop.steps(point, period.end, update, here.accuracy)
    accuracy, agreement = here.accuracy(point.state), here.agreement(point.state)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    if log is None:
        return {}
    lines = [line for line in read_metrics(log.path) if line["run"] == run.name]
    parts = parts_of(run, config, lines, terms)
    result = {
        "name": run.name,
        "test_accuracy": float(accuracy.mean()),
        "test_accuracy_worst_node": float(accuracy.min()),
        **summarize(run, parts, resync_bits(run, periods, point.state)),
        "parameter_agreement": agreement,
        "parameters": count,
        "steps": len(lines),
        "seconds": round(time.monotonic() - start, 2),
    }
    if compressor is not None:
        result |= of_compression(parts)
        if run.memory == "neighbour":
            result["copy_bits_per_link_step"] = copy_bits(compressor, params)
    if run.security is not None:
        result["security"] = guarantees(parts)
    write_whole(result_path(config.folder, run.name), (to_json(result) + "\n").encode())
    return result


def _initial_state(run: RunConfig, config: TrainConfig, data: datasets.Dataset) -> TrainState:
    """The state of one node before the first step, with a leading axis of one."""
    model = model_for(config.model, data, config.quantum)
    params = initial_params(model, jax.random.fold_in(jax.random.key(config.seed), 0), data)
    parts: dict[str, Any] = {
        "apply_fn": exact(model).apply,
        "params": params,
        "tx": optimizer_of(run, config),
    }
    compressor, loop = run.compressor(), loop_of(run, config)
    if loop is not None:
        state = LoopState.create(**{**parts, "tx": optax.identity()}, outer=loop.init(params))
    elif run.robust is not None:
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = RobustState.create(**parts, momenta=zeros, last=zeros)
    elif compressor is None:
        state = TrainState.create(**parts)
    else:
        state = CompressedState.create(**parts, memory=compressor.init(params))

    def with_axis(leaf: Any) -> np.ndarray:
        # Python's numbers in the type that they have on the devices.
        array = np.asarray(leaf, jax.dtypes.canonicalize_dtype(jnp.result_type(leaf)))
        return array[None]

    return jax.tree.map(with_axis, state)
