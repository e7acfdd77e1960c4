"""The figure of a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring.jobs._budget_job import one_percent_effects
from jaxqring.show._inputs import check_entries
from jaxqring.show._style import COLOURS, drawing, look, page, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_budget(folder: Path, results: dict[str, Any]) -> Path:
    """Draws `budget.png`: net rates over fidelity, and the derivatives of the first code's rate.

    Args:
      folder: for the figure.
      results: contents of `budget.json`.

    Returns:
      The path of the figure.
    """
    with page(12, 4.8) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
        net_rate(results, left)
        hardware(results, right)
        return save(figure, folder / "budget.png")


def net_rate(results: dict[str, Any], ax: "Axes | None" = None) -> "Axes":
    """Draws the net bits per online qubit of each code over the infidelity of the pairs.

    Args:
      results: contents of `budget.json`, as `jaxqring.jobs.run_budget` returns them.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes, with a mark on each code where it nets one bit, as a classical link does.

    Raises:
      ImportError: without matplotlib, of the extra `train`.

    >>> curves = {"curve_infidelity": [0, 1e-4, 1e-1], "curve_capacity": [2, 1.998, 1.2]}
    >>> code = {"name": "a code", "curve": [1.7, 1.7, 0.1], "break_even_fidelity": 0.98}
    >>> net_rate({**curves, "codes": [code]}).get_legend_handles_labels()[1]
    ['capacity', 'classical: one bit per use', 'a code']
    """
    check_entries("results", results, "curve_infidelity", "curve_capacity", "codes")
    infidelity = np.array(results["curve_infidelity"][1:])
    capacity = results["curve_capacity"][1:]
    with drawing(ax) as axes:
        axes.fill_between(infidelity, capacity, 2.1, color="0.88", lw=0)
        axes.plot(infidelity, capacity, color="0.35", lw=1.5, label="capacity")
        axes.axhline(1, color="0.35", lw=1.5, ls=(0, (1, 1)), label="classical: one bit per use")
        for index, code in enumerate(results["codes"]):
            (line,) = axes.plot(infidelity, code["curve"][1:], label=code["name"], **look(index, 1))
            even = code["break_even_fidelity"]
            if even is not None and even < 1:
                axes.plot(1 - even, 1, "o", color=line.get_color(), ms=7, mec="white", zorder=5)
        axes.set(
            xscale="log",
            xlim=(infidelity.max(), 1e-4),
            ylim=(0, 2.1),
            xlabel="infidelity of the pairs, 1 - F (Werner)",
            ylabel="net bits per online qubit",
        )
        place: dict[str, Any] = {"fontsize": 11, "color": "0.35", "va": "center"}
        axes.text(infidelity.max() * 0.92, 2.03, "beyond capacity", **place)
        axes.legend(loc="lower right", fontsize=10)
    return axes


def hardware(results: dict[str, Any], ax: "Axes | None" = None) -> "Axes":
    """Draws the change of the net rate of the first code by one percent of each hardware parameter.

    Args:
      results: contents of `budget.json`, as `jaxqring.jobs.run_budget` returns them.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.

    >>> code = {"name": "a code", "derivatives": {"fidelity": 2.0, "length": -1e-6}}
    >>> hardware_of = {"hardware": {"fidelity": 0.99, "length": 1e4}}
    >>> ax = hardware({"codes": [code], "config": hardware_of})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['length', '1 - fidelity']
    """
    check_entries("results", results, "codes", "config")
    effects = {n.replace("_", " "): x for n, x in one_percent_effects(results).items()}
    names = sorted((name for name in effects if effects[name]), key=lambda name: abs(effects[name]))
    with drawing(ax) as axes:
        for sign, colour, mark, means in ((1, 1, "o", "more helps"), (-1, 2, "s", "less helps")):
            rows = [row for row, name in enumerate(names) if effects[name] * sign > 0]
            sizes = [abs(effects[names[row]]) for row in rows]
            axes.plot(sizes, rows, mark, color=COLOURS[colour], ms=9, label=means)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="change of net bits per qubit\nfor 1% of the parameter", xscale="log")
        axes.set_title(f"on the hardware configured,\n{results['codes'][0]['name']}", fontsize=11)
        axes.legend(loc="lower right")
    return axes
