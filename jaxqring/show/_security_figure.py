"""The figure of secure runs: epsilon over copies, and copies over the fidelity of GHZ states."""

import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from jaxqring._files import number
from jaxqring.jobs._security_curves import SecurityCurves
from jaxqring.show._style import STYLE, look, save

SHOWN = (1e-6, 1e-4, 1e-3, 1e-2)  # infidelities in the left half
TICKS = (3, 5, 10, 20, 50, 100)  # of copies
SMALL: dict[str, Any] = {"fontsize": 10, "title_fontsize": 10}


def draw_security(folder: Path, summary: dict[str, Any], curves: SecurityCurves) -> Path:
    """Draws `security.png` of a finished job with secure runs.

    Args:
      folder: of the job.
      summary: contents of its `summary.json`.
      curves: of `security_curves`, for this summary.

    Returns:
      The path of the figure.
    """
    runs = [run for run in summary["runs"] if "security" in run]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _epsilons(left, runs, curves)
        _costs(right, curves)
        for axis in (left.xaxis, right.yaxis):
            axis.set_major_locator(FixedLocator(TICKS))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_locator(NullLocator())
        title = f"{curves.size:,} masks of {curves.bits} bits, {curves.num_nodes} nodes, buckets; "
        figure.suptitle(title + "depolarized states", fontsize=12)
        return save(figure, folder / "security.png")


def _epsilons(axes: Axes, runs: list[dict[str, Any]], curves: SecurityCurves) -> None:
    """Epsilon over copies, a curve for each fidelity and a mark for each run."""
    by_fidelity = []
    for index, loss in enumerate(SHOWN):
        points = curves.copies[loss], curves.epsilons[loss]
        by_fidelity += axes.plot(*points, label=f"{1 - loss:.6g}", marker=".", **look(index))
    by_run = []
    for run, marker in zip(runs, itertools.cycle("*sD^vP"), strict=False):
        cost = number(run["security"]["overhead"]), number(run["security"]["epsilon_per_step"])
        by_run += axes.plot(*cost, f"k{marker}", markersize=9, label=run["name"], linestyle="")
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(1e-13, 1e5),  # space for a legend above
        yticks=10.0 ** np.arange(-12, 1, 2),
        xlabel="GHZ copies per mask",
        ylabel="epsilon of a step",
    )
    axes.add_artist(axes.legend(handles=by_run, title="runs", loc="upper right", ncols=2, **SMALL))
    axes.legend(handles=by_fidelity, title="GHZ fidelity", loc="lower left", **SMALL)


def _costs(axes: Axes, curves: SecurityCurves) -> None:
    """Copies over infidelity, a curve for each target of epsilon."""
    for index, (target, costs) in enumerate(curves.costs.items()):
        label = f"{target:.0e}".replace("e-0", "e-")
        axes.plot(list(curves.copies), costs, marker="o", label=label, **look(index))
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="1 - fidelity of the GHZ states",
        ylabel="GHZ copies per mask",
    )
    axes.legend(title="epsilon of a step", **SMALL)
