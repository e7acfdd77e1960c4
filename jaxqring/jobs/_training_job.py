"""The training loop: several runs of one job, resumable at any moment."""

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from flax import serialization
from flax.training.train_state import TrainState

from jaxqring import _checks as checks
from jaxqring._files import MetricsLog, load_state, read_metrics, save_state, to_json, write_whole
from jaxqring._progress import Advance, progress_bars
from jaxqring.codec import Float32
from jaxqring.jobs._security_config import promise
from jaxqring.jobs._training_config import RunConfig, TrainConfig
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Ring, replica_agreement
from jaxqring.secure import Security
from jaxqring.train import _datasets as datasets
from jaxqring.train._models import MODELS
from jaxqring.train._placement import Placement, place
from jaxqring.train._step import AXIS, node_correct, node_resync, node_step, over_nodes

if TYPE_CHECKING:
    from rich.console import Console

TEST_BATCH = 1000

#: Shows a line to the user.
Say = Callable[[str], None]


def train(config: TrainConfig, console: "Console | None" = None) -> dict[str, Any]:
    """Trains every run of a job and writes what came of it.

    Files under `config.folder`: `metrics.jsonl`, one line a step; `summary.json`, written whole
    at the end; a checkpoint and, once it is done, the result of each run. A job that was cut off
    goes on from its last checkpoints if it is started again with the same configuration, and
    ends with the same numbers as one that was not. One that is finished is not trained again.
    Where `config.resume` is off, either starts over.

    Args:
      config: the job.
      console: where to show progress, with the platform, the devices and the mapping in the first
        line; None for silence.

    Returns:
      The contents of `summary.json`.

    Raises:
      ValueError: if there are fewer devices than nodes where each needs one, the data cannot be
        loaded, or the job was cut off on another platform or under another mapping.
    """
    if before := finished_summary(config):
        return before
    placement = place(config.mapping, config.nodes)
    data = datasets.load(config.data)
    datasets.batches(data, 0, config.seed, config.nodes, config.batch_per_node)  # or refuse now
    say: Say = (lambda line: None) if console is None else functools.partial(_say, console)
    say(str(placement))
    folder = _prepare_folder(config, placement, say)
    points = _resume_points(config)
    log = MetricsLog(
        folder / "metrics.jsonl", keep=lambda line: line["step"] <= points.get(line["run"], 0)
    )
    try:
        with progress_bars(console) as bar:
            results = [
                _finished_before(run, folder, say)
                or _finish(run, config, data, placement, log, bar)
                for run in config.runs
            ]
    finally:
        log.close()
    summary = {
        "name": config.name,
        "parameters": results[0]["parameters"],
        "platform": placement.platform,
        "mapping": placement.mapping,
        "jax": jax.__version__,
        "config": dataclasses.asdict(config),
        "runs": results,
    }
    write_whole(folder / "summary.json", (to_json(summary) + "\n").encode())
    return summary


def finished_summary(config: TrainConfig) -> dict[str, Any] | None:
    """The contents of `summary.json` of a job that is finished and shall not start over."""
    summary = config.folder / "summary.json"
    there, _ = _marker(config.folder)
    if not config.resume or there != _identity(config) or not summary.exists():
        return None
    return json.loads(summary.read_text())


def _say(console: "Console", line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _identity(config: TrainConfig) -> dict[str, Any]:
    """What tells a job from others, as it is read back from JSON."""
    fields = dataclasses.asdict(config)
    del fields["resume"]
    return json.loads(to_json(fields))


def _marker(folder: Path) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The configuration of the job that a folder holds, if any, and where it ran."""
    marker = folder / "config.json"
    if not marker.exists():
        return None, {}
    there = json.loads(marker.read_text())
    return there, there.pop("placement", {})


def _prepare_folder(config: TrainConfig, placement: Placement, say: Say) -> Path:
    """The folder of the job, emptied of other jobs' results unless this one goes on."""
    folder = config.folder
    there, where = _marker(folder)
    wanted = _identity(config)
    here = {"platform": placement.platform, "mapping": placement.mapping}
    same = there == wanted
    goes_on = same and config.resume
    if goes_on and where and where != here:
        rule = f"be {where['mapping']!r} on platform {where['platform']}, where the job was cut off"
        got = f"{placement.mapping} on {placement.platform}"
        checks.refuse("mapping", f"{rule}, unless it starts over (--restart)", got)
    if not goes_on:
        if there is not None and not same:
            say(f"{folder} held a job of another configuration, which this one replaces")
        # The marker first: once it is gone, whatever else is left, the job starts afresh.
        stale = [*folder.glob("results/*.json"), *folder.glob("checkpoints/*.msgpack")]
        names = ("metrics.jsonl", "summary.json")
        for path in [folder / "config.json", *stale, *(folder / name for name in names)]:
            path.unlink(missing_ok=True)
    write_whole(folder / "config.json", to_json({**wanted, "placement": here}).encode())
    return folder


def _result_path(folder: Path, run: str) -> Path:
    return folder / "results" / f"{run}.json"


def _checkpoint_path(folder: Path, run: str) -> Path:
    return folder / "checkpoints" / f"{run}.msgpack"


def _resume_points(config: TrainConfig) -> dict[str, float]:
    """Up to which step the metrics of each run stand: its checkpoint, or its end."""
    points: dict[str, float] = {}
    for run in config.runs:
        _, points[run.name] = load_state(_checkpoint_path(config.folder, run.name))
        if _result_path(config.folder, run.name).exists():
            points[run.name] = math.inf
    return points


def _finished_before(run: RunConfig, folder: Path, say: Say) -> dict[str, Any] | None:
    """The result of a run that was finished before the job was cut off; None of any other."""
    done = _result_path(folder, run.name)
    if not done.exists():
        return None
    say(f"{run.name}: finished before, kept")
    return json.loads(done.read_text())


def _finish(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    placement: Placement,
    log: MetricsLog,
    bar: Callable[..., Advance],
) -> dict[str, Any]:
    """Trains a run to its end and writes its result."""
    folder = config.folder
    start = time.monotonic()
    ring = run.ring()
    state = _initial_state(config, data)
    saved, first = load_state(_checkpoint_path(folder, run.name))
    if saved is not None:
        state = serialization.from_state_dict(state, saved)
    count = sum(leaf[0].size for leaf in jax.tree.leaves(state.params))
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    source, security = _masking(run, config, count)
    where = placement.mapping, placement.devices
    step_fn = over_nodes(node_step(ring, source, security), *where, shared=(2,))
    correct_fn = over_nodes(node_correct, *where, shared=(1, 2))
    resync_fn = over_nodes(node_resync, *where, shared=())

    advance = bar(run.name, total=config.steps, done=first, note="compiling")
    accuracy = np.zeros(config.nodes)
    for step in range(first, config.steps):
        batch = datasets.batches(data, step, config.seed, config.nodes, config.batch_per_node)
        # Wait for all nodes: virtual devices of one host share its threads, and a node that
        # runs ahead into the next collective can starve one that has not finished this step.
        state, metrics = jax.block_until_ready(step_fn(state, batch, key))
        if run.resync_every and (step + 1) % run.resync_every == 0:
            state = jax.block_until_ready(resync_fn(state))
        values = {name: _plain(value[0]) for name, value in metrics.items()}
        line = {"run": run.name, "step": step + 1, **values}
        last = step + 1 == config.steps
        if last or (step + 1) % config.eval_every == 0:
            accuracy = _test_accuracy(correct_fn, state, data)
            line["test_accuracy"] = float(accuracy.mean())
        log.write(line)
        note = None
        if "test_accuracy" in line:
            # After its lines, so that a checkpoint never speaks of lines that are not there.
            save_state(_checkpoint_path(folder, run.name), state, step + 1)
            note = f"loss {values['loss']:.3f}, test accuracy {accuracy.mean():.3f}"
        advance(1, note)
    if first == config.steps:  # cut off between the last checkpoint and the result
        accuracy = _test_accuracy(correct_fn, state, data)

    agreement_fn = over_nodes(lambda tree: replica_agreement(tree, AXIS), *where, shared=())
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["run"] == run.name]
    result = {
        "name": run.name,
        "test_accuracy": float(accuracy.mean()),
        "test_accuracy_worst_node": float(accuracy.min()),
        **_traffic(ring, count, config.nodes, lines),
        "resync_bits_per_link": _resync_bits(run, state, config),
        "symbol_errors": sum(line["symbol_errors"] for line in lines),
        "symbol_error_rate": _error_rate(lines, ring, count, config.nodes),
        "replica_agreement": float(np.mean([line["replica_agreement"] for line in lines])),
        "parameter_agreement": float(agreement_fn(state.params)[0]),
        "replica_drift": lines[-1]["replica_drift"],
        "parameters": count,
        "steps": len(lines),
        "seconds": round(time.monotonic() - start, 2),
    }
    if source is not None and security is not None:
        result["security"] = promise(security, source, count, run.bits, lines)
    write_whole(_result_path(folder, run.name), (to_json(result) + "\n").encode())
    return result


def _masking(
    run: RunConfig, config: TrainConfig, count: int
) -> tuple[GHZSource | None, Security | None]:
    """The GHZ states of a secure run and how they are verified; None for other runs."""
    if run.security is None:
        return None, None
    source = run.security.source(config.nodes, run.fidelity)
    return source, run.security.build(source, count, config.steps, run.bits)


def _initial_state(config: TrainConfig, data: datasets.Dataset) -> TrainState:
    """The same parameters on every node, with a leading axis of nodes."""
    model = MODELS[config.model](num_classes=data.num_classes)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    params = model.init(key, data.train_images[:1])["params"]
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(schedule))
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (config.nodes, *np.shape(leaf))), state
    )


def _test_accuracy(correct_fn: Any, state: TrainState, data: datasets.Dataset) -> np.ndarray:
    """(N,) accuracy of each node's replica on the whole test set."""
    total = len(data.test_labels)
    correct = np.zeros(jax.tree.leaves(state.params)[0].shape[0])
    for start in range(0, total, TEST_BATCH):
        images = data.test_images[start : start + TEST_BATCH]
        labels = data.test_labels[start : start + TEST_BATCH]
        correct += np.asarray(correct_fn(state, images, labels))
    return correct / total


def _traffic(ring: Ring | None, count: int, nodes: int, lines: list[dict]) -> dict[str, Any]:
    """Online traffic per link and step; a classical run sends float32 bits round the same ring.

    Qubits include repetitions, in the mean over links and steps. The net rate is that of payload
    in codewords that arrived, all words of a message taken for equally long (the last may hold
    less); of unprotected noisy links no bit is sure, and it is None.
    """
    again = sum(line["retransmissions"] for line in lines)
    lost = sum(line["undelivered"] for line in lines)
    if ring is None:
        cost = Ring(wire=Float32(), noise="off").cost(count, nodes)
        qubits, net, ceiling = 0.0, None, None
    else:
        cost = ring.cost(count, nodes)
        repeated = sum(line["repeated_qubits"] for line in lines)
        qubits = cost.qubits + repeated / (nodes * max(len(lines), 1))
        ceiling = 2.0
        if ring.noise != "off" and ring.channel is not None:
            ceiling = float(ring.channel.scrambled().capacity())
        net = None
        if ring.delivers_exactly and qubits:
            words = max(cost.codewords * nodes * len(lines), 1)
            net = cost.bits * (1 - lost / words) / qubits
    return {
        "online_bits_per_link_step": cost.bits,
        "online_qubits_per_link_step": round(qubits),
        "epr_pairs_per_link_step": round(qubits),
        "net_bits_per_online_qubit": net,
        "capacity_bits_per_online_qubit": ceiling,
        "retransmissions": again,
        "undelivered": lost,
    }


def _resync_bits(run: RunConfig, state: TrainState, config: TrainConfig) -> int:
    """Classical bits over each link for all resynchronisations, by a ring all-reduce of float32."""
    if not run.resync_every:
        return 0
    floats = [x for x in jax.tree.leaves(state) if np.issubdtype(x.dtype, np.floating)]
    size = sum(leaf[0].size for leaf in floats)
    bits = Ring(wire=Float32(), noise="off").cost(size, config.nodes).bits
    return bits * (config.steps // run.resync_every)


def _error_rate(lines: list[dict], ring: Ring | None, count: int, nodes: int) -> float:
    """Symbol errors per symbol sent over the whole run; zero where no symbol was sent."""
    if ring is None:
        return 0.0
    sent = ring.cost(count, nodes).symbols * nodes * len(lines)
    return sum(line["symbol_errors"] for line in lines) / sent if sent else 0.0


def _plain(value: jax.Array) -> int | float:
    return int(value) if np.issubdtype(value.dtype, np.integer) else float(value)
