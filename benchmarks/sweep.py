"""A sweep of trainings beside a loop over one compiled training, and beside fresh processes.

The sweep of `configs/sweep_fidelity.toml`: an MLP on MNIST over eight nodes, 64 fidelities with
four seeds, 200 steps each. It is timed whole, with its trace and its compilation; `--fraction`
takes part of the fidelities, evenly, and compilation then weighs more. The loop and sweeps of the
same few points, in a row and in one batch, are compiled before and timed in turns. Processes are
started as many at a time as there are cores; each starts, traces and compiles for itself. The goal:
one trace, a point in less time than in the loop, and the whole in a quarter of the time of fresh
processes.
"""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from timing import medians, parser, report

from jaxqring.jobs._load import load_config
from jaxqring.jobs._sweep_job import SweepConfig
from jaxqring.sweeps._points import points_of
from jaxqring.sweeps._sweep import _compiled, _trace, sweep

CONFIG = Path(__file__).parent.parent / "configs" / "sweep_fidelity.toml"
CORES = os.cpu_count() or 1


def main(options):
    config = load_config(CONFIG, SweepConfig)
    task = dataclasses.replace(config.task, steps=options.steps)
    config = dataclasses.replace(config, task=task)
    everything = len(config.grid["fidelity"]) * config.seeds
    if options.alone is not None:
        jax.block_until_ready(jax.jit(point(config))(np.float32(options.alone), 0))
        return

    count, whole, traces = whole_sweep(config, options.fraction)
    some = evenly(config.grid["fidelity"], options.sample)
    runs = {
        "loop": loop(config, some),
        "chunk": chunk(config, some),
        "batch": chunk(config, some, at_once=True),
    }
    seconds = medians(runs, options.repeats)
    fresh = fresh_processes(evenly(some, options.processes), options.steps) / options.processes
    each = {
        f"sweep of {count}, {traces} trace, compiled for it": whole / count,
        f"sweep of {len(some)}, compiled before": seconds["chunk"] / len(some),
        f"sweep of {len(some)}, in one batch": seconds["batch"] / len(some),
        f"loop over {len(some)}, compiled before": seconds["loop"] / len(some),
        f"{options.processes} processes, {CORES} at a time": fresh,
    }
    rows = [
        [name, time, time * everything / 60, time * count / whole] for name, time in each.items()
    ]
    columns = [f"{options.steps} steps", "s each", f"minutes for {everything}", "x sweep"]
    report("sweep", columns, rows, options)


def evenly(values, count):
    """As many of the values, from the first to the last."""
    return [values[place] for place in np.linspace(0, len(values) - 1, count).round().astype(int)]


def point(config):
    """One training as a function of the fidelity and the seed."""
    return lambda fidelity, seed: config.train({"fidelity": fidelity}, jax.random.key(seed))


def whole_sweep(config, fraction):
    """The number of trainings, the seconds they take, and how often they are traced."""
    traces = []

    def train(setting, key):
        traces.append(setting)
        return config.train(setting, key)

    fidelities = config.grid["fidelity"]
    grid = {"fidelity": evenly(fidelities, max(1, round(fraction * len(fidelities))))}
    start = time.perf_counter()
    table = sweep(train, grid, config.seeds, console=Console())
    return len(table["seed"]), time.perf_counter() - start, len(traces)


def loop(config, fidelities):
    """Trainings one after another, each a call of the same compiled function."""
    compiled = jax.jit(point(config))
    return lambda: [jax.block_until_ready(compiled(np.float32(f), 0)) for f in fidelities]


def chunk(config, fidelities, at_once=False):
    """The same trainings as one chunk of a sweep, in a row on each device or all at once."""
    devices = jax.local_devices()
    points = points_of({"fidelity": fidelities}, 1)
    traced = _trace(config.train, points, list(range(len(points))))
    share = -(-len(points) // len(devices))
    # Filled up with repeats where the devices do not divide the points.
    evaluate = _compiled(traced, devices, share * len(devices), share if at_once else 1).evaluate
    filled = np.resize(np.array(fidelities, np.float32), share * len(devices))
    return lambda: evaluate([filled], np.zeros(filled.shape, np.uint32))


def fresh_processes(fidelities, steps):
    """Seconds until each training has been done by a process of its own, one on each core."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--steps", str(steps), "--alone"]
    for first in range(0, len(fidelities), CORES):
        together = [subprocess.Popen([*command, str(f)]) for f in fidelities[first : first + CORES]]
        for process in together:
            if process.wait():
                raise RuntimeError("a training by itself failed")
    return time.perf_counter() - start


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--fraction", type=float, default=1.0, help="of the fidelities")
    options.add_argument("--steps", type=int, default=200, help="of each training")
    options.add_argument("--sample", type=int, default=8, help="points of the loop")
    options.add_argument("--processes", type=int, default=4, help="trainings on their own")
    options.add_argument("--alone", type=float, help="train at this fidelity and do nothing else")
    options = options.parse_args()
    if options.alone is None:
        jax.config.update("jax_num_cpu_devices", CORES)
    main(options)
