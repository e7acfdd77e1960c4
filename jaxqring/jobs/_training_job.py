"""A training job: several runs one after the other, resumable at any moment."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from jaxqring._fields import as_written
from jaxqring._files import MetricsLog, read_metrics, to_json, write_whole
from jaxqring._progress import Advance, progress_bars
from jaxqring.jobs._security_config import guarantees
from jaxqring.jobs._training_config import RunConfig, TrainConfig
from jaxqring.jobs._training_folder import (
    check_folder,
    checkpoint_path,
    finished_summary,
    locked,
    prepare_folder,
    result_path,
    resume_points,
)
from jaxqring.jobs._training_loop import restored, trained, updates
from jaxqring.jobs._training_results import cost_of, of_compression, resync_bits, summarize, sums_of
from jaxqring.launch._checkpoints import Checkpoints
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

#: Shows a line to the user.
Say = Callable[[str], None]


def train(config: TrainConfig, console: "Console | None" = None) -> dict[str, Any]:
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
            prepare_folder(config, placement)
            points = resume_points(config)
            log = MetricsLog(
                folder / "metrics.jsonl",
                keep=lambda line: line["step"] <= points.get(line["run"], 0),
            )
            stack.callback(log.close)
        # The others read what there is after that, and nothing is written before they have.
        wait_for_all("folder")
        before = {run.name: _finished_before(run, folder, say) for run in config.runs}
        wait_for_all("finished before")
        with progress_bars(console) as bar:
            results = [
                before[run.name] or _finish(run, config, data, placement, log, bar)
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


def _finished_before(run: RunConfig, folder: Path, say: Say) -> dict[str, Any] | None:
    """The result of a run that was finished before the job was cut off; None for other runs."""
    done = result_path(folder, run.name)
    if not done.exists():
        return None
    say(f"{run.name}: finished before, left as it is")
    return json.loads(done.read_text())


def _finish(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    placement: Placement,
    log: MetricsLog | None,
    bar: Callable[..., Advance],
) -> dict[str, Any]:
    """Trains a run to its end and writes its result, on the process that has a log to write."""
    folder = config.folder
    start = time.monotonic()
    ring, compressor = run.ring(), run.compressor()
    initial = _initial_state(run, config, data)
    params = jax.tree.map(lambda leaf: leaf[0], initial.params)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    cost = cost_of(ring, compressor, params, config.nodes)
    sums = sums_of(run, params, config.nodes)
    source, security = _masking(run, config, sums)
    over = functools.partial(over_nodes, mapping=placement.mapping, devices=placement.devices)
    with_shots = config.quantum is not None and config.quantum.shots is not None
    sampled = model_for(config.model, data, config.quantum).apply if with_shots else None
    step_fn = over(node_step(ring, source, security, compressor, sampled), shared=(2,))
    resync_fn = over(node_resync, shared=())
    update = updates(run, config, data, step_fn, resync_fn, placement)
    accuracy_of = functools.partial(_test_accuracy, over(node_correct, shared=(1, 2)), data)
    checkpoints = Checkpoints(checkpoint_path(folder, run.name))
    state, first = restored(run, config, initial, placement, checkpoints)
    advance = bar(run.name, total=config.steps, done=first, note="compiling")
    state, accuracy = trained(
        run, config, state, first, update, accuracy_of, checkpoints, log, advance
    )

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

    def of_nodes(leaf: Any) -> np.ndarray:
        # Python's numbers in the type that they have on the devices.
        array = np.asarray(leaf, jax.dtypes.canonicalize_dtype(jnp.result_type(leaf)))
        return np.broadcast_to(array, (config.nodes, *array.shape))

    return jax.tree.map(of_nodes, state)


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
