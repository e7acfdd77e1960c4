"""Pictures of studies."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxqring.show._training_figures import COLOURS, STYLE, STYLES, save


def draw_budget(folder: Path, results: dict[str, Any]) -> Path:
    """Draws `budget.png`: net rates over fidelity, and what the first code's rate hangs on.

    Args:
      folder: where to.
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
    for place, code in enumerate(results["codes"]):
        colour = COLOURS[(place + 1) % 6]
        style = STYLES[place % 6]
        axes.plot(infidelity, code["curve"][1:], color=colour, ls=style, label=code["name"])
        even = code["break_even_fidelity"]
        if even is not None and even < 1:
            axes.plot(1 - even, 1, "o", color=colour, ms=7, mec="white", zorder=5)
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
    code, hardware = results["codes"][0], results["config"]["hardware"]
    # A change of one percent of each parameter, so that units do not matter; of the fidelity, one
    # percent of what it lacks.
    effects = {
        name.replace("_", " "): slope * hardware[name] / 100
        for name, slope in code["derivatives"].items()
        if name != "fidelity" and np.isfinite(hardware[name])
    }
    effects["1 - fidelity"] = -code["derivatives"]["fidelity"] * (1 - hardware["fidelity"]) / 100
    names = sorted((name for name in effects if effects[name]), key=lambda name: abs(effects[name]))
    for sign, colour, mark, means in ((1, 1, "o", "more helps"), (-1, 2, "s", "less helps")):
        rows = [row for row, name in enumerate(names) if effects[name] * sign > 0]
        sizes = [abs(effects[names[row]]) for row in rows]
        axes.plot(sizes, rows, mark, color=COLOURS[colour], ms=9, label=means)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="change of net bits per qubit\nfor 1% of the parameter", xscale="log")
    axes.set_title(f"on the hardware configured,\n{code['name']}", fontsize=11)
    axes.legend(loc="lower right", fontsize=10)
