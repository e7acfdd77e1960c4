"""The figure of a budget."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxqring.jobs._budget_job import one_percent_effects
from jaxqring.show._style import COLOURS, STYLE, look, save


def draw_budget(folder: Path, results: dict[str, Any]) -> Path:
    """Draws `budget.png`: net rates over fidelity, and the derivatives of the first code's rate.

    Args:
      folder: for the figure.
      results: contents of `budget.json`.

    Returns:
      The path of the figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
        _net_rates(left, results)
        _sensitivities(right, results)
        return save(figure, folder / "budget.png")


def _net_rates(axes: Axes, results: dict[str, Any]) -> None:
    infidelity = np.array(results["curve_infidelity"][1:])
    axes.fill_between(infidelity, results["curve_capacity"][1:], 2.1, color="0.88", lw=0)
    axes.plot(infidelity, results["curve_capacity"][1:], color="0.35", lw=1.5, label="capacity")
    axes.axhline(1, color="0.35", lw=1.5, ls=(0, (1, 1)), label="classical: one bit per use")
    for index, code in enumerate(results["codes"]):
        (line,) = axes.plot(infidelity, code["curve"][1:], label=code["name"], **look(index, 1))
        even = code["break_even_fidelity"]
        if even is not None and even < 1:
            axes.plot(1 - even, 1, "o", color=line.get_color(), ms=7, mec="white", zorder=5)
    axes.set(
        xscale="log",
        xlim=(infidelity[-1], 1e-4),
        ylim=(0, 2.1),
        xlabel="infidelity of the pairs, 1 - F (Werner)",
        ylabel="net bits per online qubit",
    )
    axes.text(
        infidelity[-1] * 0.92, 2.03, "beyond capacity", fontsize=10, color="0.35", va="center"
    )
    axes.legend(loc="lower right", fontsize=10)


def _sensitivities(axes: Axes, results: dict[str, Any]) -> None:
    effects = {n.replace("_", " "): x for n, x in one_percent_effects(results).items()}
    names = sorted((name for name in effects if effects[name]), key=lambda name: abs(effects[name]))
    for sign, colour, mark, means in ((1, 1, "o", "more helps"), (-1, 2, "s", "less helps")):
        rows = [row for row, name in enumerate(names) if effects[name] * sign > 0]
        sizes = [abs(effects[names[row]]) for row in rows]
        axes.plot(sizes, rows, mark, color=COLOURS[colour], ms=9, label=means)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="change of net bits per qubit\nfor 1% of the parameter", xscale="log")
    axes.set_title(f"on the hardware configured,\n{results['codes'][0]['name']}", fontsize=11)
    axes.legend(loc="lower right", fontsize=10)
