"""What secrecy costs: epsilon over copies, and copies over the fidelity of the GHZ states."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import scipy  # whose subpackages load when they are first used
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.jobs._training_config import RunConfig
from jaxqring.secure import Security, epsilon
from jaxqring.secure._bounds import honest_failure
from jaxqring.show._training_figures import COLOURS, STYLE, STYLES, save

INFIDELITIES = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SHOWN = (1e-6, 1e-4, 1e-3, 1e-2)  # in the left half
BUCKETS = (3, 5, 7, 9, 13, 19, 27, 39, 57, 81, 121)
TARGETS = (1e-3, 1e-6, 1e-9)
TICKS = (3, 5, 10, 20, 50, 100)  # of copies
#: Tested copies per copy kept, and how often an honest source may fail an attempt.
TEST_RATIO, MAX_ABORT = 1 / 8, 0.01


def draw_security(folder: Path, summary: dict[str, Any]) -> list[Path]:
    """Draws `security.png`, if a run of a finished job was secure.

    Args:
      folder: of the job.
      summary: contents of its `summary.json`.

    Returns:
      The paths of the figures.
    """
    runs = [run for run in summary["runs"] if "security" in run]
    if not runs:
        return []
    size, nodes = summary["parameters"], summary["config"]["nodes"]
    configs = {run["name"]: run for run in summary["config"]["runs"]}
    bits = configs[runs[0]["name"]]["bits"]
    found = {loss: curve(loss, size, nodes, bits) for loss in INFIDELITIES}
    small: dict[str, Any] = {"fontsize": 10, "title_fontsize": 10}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, loss in enumerate(SHOWN):
            look: dict[str, Any] = {"color": COLOURS[place], "linestyle": STYLES[place]}
            left.plot(*found[loss], label=f"{1 - loss:.6g}", marker=".", **look)
        curves = left.get_lines()
        for run, marker in zip(runs, itertools.cycle("*sD^vP"), strict=False):
            cost = run["security"]["overhead"], run["security"]["epsilon_per_step"]
            left.plot(*cost, f"k{marker}", markersize=9, label=run["name"], linestyle="")
        left.set(
            xscale="log",
            yscale="log",
            ylim=(1e-13, 1e5),  # room for a legend above
            yticks=10.0 ** np.arange(-12, 1, 2),
            xlabel="GHZ copies per mask",
            ylabel="epsilon of a step",
        )
        marks = [line for line in left.get_lines() if line not in curves]
        by_run = left.legend(handles=marks, title="runs", loc="upper right", ncols=2, **small)
        left.add_artist(by_run)
        left.legend(handles=list(curves), title="GHZ fidelity", loc="lower left", **small)
        for place, target in enumerate(TARGETS):
            costs = [cost_of(target, *found[loss]) for loss in INFIDELITIES]
            right.plot(
                INFIDELITIES,
                costs,
                color=COLOURS[place],
                linestyle=STYLES[place],
                marker="o",
                label=f"{target:.0e}".replace("e-0", "e-"),
            )
        right.set(
            xscale="log",
            yscale="log",
            xlabel="1 - fidelity of the GHZ states",
            ylabel="GHZ copies per mask",
        )
        for axis in (left.xaxis, right.yaxis):
            axis.set_major_locator(FixedLocator(TICKS))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_locator(NullLocator())
        right.legend(title="epsilon of a step", **small)
        title = f"{size:,} masks of {bits} bits, {nodes} nodes, buckets; depolarized states"
        figure.suptitle(title, fontsize=12)
        return [save(figure, folder / "security.png")]


def curve(loss: float, size: int, nodes: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies per mask and epsilon of a step, for every bucket, at one fidelity."""
    source = SecurityConfig(ghz_fidelity=1 - loss).source(nodes, RunConfig().fidelity)
    failure = honest_failure("z", source, bits)
    copies, epsilons = [], []
    for bucket in BUCKETS:
        security = Security(bucket=bucket, test_ratio=TEST_RATIO)
        tested = security.copies_tested(security.masks_needed(size))
        allowed = float(scipy.stats.binom.ppf(1 - MAX_ABORT, tested, failure))
        security = dataclasses.replace(security, tolerance=min(allowed / tested, 0.49))
        bound = epsilon(security, size, source, bits=bits)
        copies.append(bound.overhead)
        epsilons.append(bound.per_step)
    return np.array(copies), np.array(epsilons)


def cost_of(target: float, copies: np.ndarray, epsilons: np.ndarray) -> float:
    """Copies per mask at which a curve falls to the target; NaN if it does not."""
    below = np.flatnonzero(epsilons <= target)
    if not len(below):
        return np.nan
    last = below[0]
    if last == 0:
        return float(copies[0])
    pair = slice(last - 1, last + 1)
    logs = -np.log(epsilons[pair])
    return float(np.exp(np.interp(-np.log(target), logs, np.log(copies[pair]))))
