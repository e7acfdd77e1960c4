"""The training loop: several runs of one job, resumable at any moment."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import serialization
from flax.training.train_state import TrainState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxqring import checks
from jaxqring.link import Float32
from jaxqring.quantum import GHZSource
from jaxqring.ring import Ring, replica_agreement
from jaxqring.secure import Security
from jaxqring.train import data as datasets
from jaxqring.train.config import RunConfig, TrainConfig
from jaxqring.train.files import (
    MetricsLog,
    load_state,
    read_metrics,
    save_state,
    to_json,
    write_whole,
)
from jaxqring.train.models import MODELS
from jaxqring.train.security import promise
from jaxqring.train.step import AXIS, node_correct, node_resync, node_step, over_nodes

TEST_BATCH = 1000


def train(config: TrainConfig, console: Console | None = None) -> dict[str, Any]:
    """Trains every run of a job and writes what came of it.

    Files under `config.folder`: `metrics.jsonl`, one line a step; `summary.json`, written whole
    at the end; a checkpoint and, once it is done, the result of each run. A job that was cut off
    goes on from its last checkpoints if it is started again with the same configuration, and
    ends with the same numbers as one that was not.

    Args:
      config: the job.
      console: where to show progress; None for silence.

    Returns:
      The contents of `summary.json`.

    Raises:
      ValueError: if there are fewer devices than nodes, or the data cannot be loaded.
    """
    console = console or Console(quiet=True)
    devices = node_devices(config.nodes)
    data = datasets.load(config.data)
    datasets.batches(data, 0, config.seed, config.nodes, config.batch_per_node)  # or refuse now
    folder = _prepare_folder(config)
    points = _resume_points(config)
    log = MetricsLog(
        folder / "metrics.jsonl", keep=lambda line: line["step"] <= points.get(line["run"], 0)
    )
    try:
        with _progress(console) as progress:
            results = [_finish(run, config, data, devices, log, progress) for run in config.runs]
    finally:
        log.close()
    summary = {
        "name": config.name,
        "parameters": results[0]["parameters"],
        "platform": devices[0].platform,
        "jax": jax.__version__,
        "config": dataclasses.asdict(config),
        "runs": results,
    }
    write_whole(folder / "summary.json", (to_json(summary) + "\n").encode())
    return summary


def node_devices(nodes: int) -> list[jax.Device]:
    """One device for each node: accelerators if there are enough, else host devices.

    Raises:
      ValueError: if there are too few of both.
    """
    devices = jax.devices() if len(jax.devices()) >= nodes else jax.devices("cpu")
    if len(devices) < nodes:
        rule = f"be at most the {len(devices)} devices (jax_num_cpu_devices sets those of the host)"
        checks.refuse("nodes", rule, nodes)
    return devices[:nodes]


def _prepare_folder(config: TrainConfig) -> Path:
    """The folder of the job, emptied of other jobs' results unless this one goes on."""
    folder = config.folder
    fields = dataclasses.asdict(config)
    del fields["resume"]
    wanted = to_json(fields)
    marker = folder / "config.json"
    same = marker.exists() and marker.read_text() == wanted
    if not (config.resume and same) or (folder / "summary.json").exists():
        # The summary last: while it is there, whatever else is gone, the job starts afresh.
        stale = [*folder.glob("results/*.json"), *folder.glob("checkpoints/*.msgpack")]
        for path in [*stale, folder / "metrics.jsonl", folder / "summary.json"]:
            path.unlink(missing_ok=True)
    write_whole(marker, wanted.encode())
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


def _finish(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    devices: list,
    log: MetricsLog,
    progress: Progress,
) -> dict[str, Any]:
    """The result of a run: read, if it was finished before, else trained to its end."""
    folder = config.folder
    done = _result_path(folder, run.name)
    if done.exists():
        progress.console.print(f"{run.name}: finished before, kept", markup=False)
        return json.loads(done.read_text())
    start = time.monotonic()
    ring = run.ring()
    state = _initial_state(config, data)
    saved, first = load_state(_checkpoint_path(folder, run.name))
    if saved is not None:
        state = serialization.from_state_dict(state, saved)
    count = sum(leaf[0].size for leaf in jax.tree.leaves(state.params))
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    source, security = _masking(run, config, count)
    secured = node_step(ring, source, security)
    step_fn = over_nodes(secured, config.mapping, devices, shared=(2,))
    correct_fn = over_nodes(node_correct, config.mapping, devices, shared=(1, 2))
    resync_fn = over_nodes(node_resync, config.mapping, devices, shared=())

    task = progress.add_task(run.name, total=config.steps, completed=first, note="compiling")
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
        if "test_accuracy" in line:
            # After its lines, so that a checkpoint never speaks of lines that are not there.
            save_state(_checkpoint_path(folder, run.name), state, step + 1)
            note = f"loss {values['loss']:.3f}, test accuracy {accuracy.mean():.3f}"
            progress.update(task, note=note)
        progress.advance(task)
    if first == config.steps:  # cut off between the last checkpoint and the result
        accuracy = _test_accuracy(correct_fn, state, data)

    agreement_fn = over_nodes(
        lambda tree: replica_agreement(tree, AXIS), config.mapping, devices, ()
    )
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
    write_whole(done, (to_json(result) + "\n").encode())
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


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:>12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield progress
