"""The figure of secure runs: epsilon over copies, and copies over the fidelity of GHZ states."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring._files import number
from jaxqring.jobs._security_curves import SecurityCurves
from jaxqring.show._style import drawing, look, page, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # infidelities of the curves of epsilon
TICKS = (3, 5, 10, 20, 50, 100)  # of copies


def draw_security(folder: Path, summary: dict[str, Any], curves: SecurityCurves) -> Path:
    """Draws `security.png` of a finished job with secure runs.

    Args:
      folder: of the job.
      summary: contents of its `summary.json`.
      curves: of `security_curves`, for this summary.

    Returns:
      The path of the figure.
    """
    with page(11, 5.2) as figure:
        left, right = figure.subplots(1, 2)
        epsilon(curves, summary["runs"], left)
        copies(curves, right)
        title = f"{curves.size:,} masks of {curves.bits} bits, {curves.num_nodes} nodes, buckets; "
        figure.suptitle(title + "depolarized states", fontsize=12)
        return save(figure, folder / "security.png")


def epsilon(
    curves: SecurityCurves, runs: Sequence[Mapping[str, Any]] = (), ax: "Axes | None" = None
) -> "Axes":
    """Draws the epsilon of a step over GHZ copies, a curve for each fidelity of the states.

    Args:
      curves: of `jaxqring.jobs.security_curves`.
      runs: of a summary; a secure one is a mark, in the colour of the curve of its fidelity. A run
        with a correction takes more copies than its curve, which is one without.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.

    >>> copies = dict.fromkeys(SHOWN, np.array([3.0, 30.0]))
    >>> epsilons = {loss: np.array([1e-2, 1e-9]) for loss in SHOWN}
    >>> epsilon(SecurityCurves(100, 4, 8, copies, epsilons, costs={})).get_xlabel()
    'GHZ copies per mask'
    """
    checks.instance("curves", curves, SecurityCurves)
    floor = min(float(curves.epsilons[loss].min()) for loss in SHOWN)
    with drawing(ax) as axes:
        lines = []
        for index, loss in enumerate(SHOWN):
            points = curves.copies[loss], curves.epsilons[loss]
            lines += axes.plot(*points, label=f"{1 - loss:.6g}", marker=".", **look(index))
        marks = []
        for run, marker in zip(_secure(runs), itertools.cycle("*sD^vP"), strict=False):
            security = run["security"]
            at = number(security["overhead"]), number(security["epsilon_per_step"])
            loss = 1 - number(security["ghz_fidelity"])
            alike = [
                line.get_color()
                for line, shown in zip(lines, SHOWN, strict=True)
                if math.isclose(loss, shown, rel_tol=0.01)
            ]
            style: dict[str, Any] = {
                "color": alike[0] if alike else "white",
                "mec": "black",
                "ms": 10,
            }
            marks += axes.plot(*at, marker, label=run["name"], zorder=5, **style)
        axes.axhline(floor, color="0.35", lw=1.2, ls=(0, (1, 1)), zorder=1)
        axes.annotate(
            f"floor: a forged message is accepted, {floor:.0e}".replace("e-0", "e-"),
            (0.02, floor),
            (0, -4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="top",
            fontsize=10,
            color="0.35",
        )
        axes.set(
            xscale="log",
            yscale="log",
            ylim=(floor / 30, 10),
            yticks=10.0 ** np.arange(-12, 1, 3),
            xlabel="GHZ copies per mask",
            ylabel="epsilon of a step",
        )
        _tick_copies(axes.xaxis)
        if marks:
            above = axes.legend(handles=marks, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
            axes.add_artist(above)
        axes.legend(handles=lines, title="GHZ fidelity", loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def copies(curves: SecurityCurves, ax: "Axes | None" = None) -> "Axes":
    """Draws GHZ copies per mask over the infidelity of the states, a curve for each epsilon.

    Args:
      curves: of `jaxqring.jobs.security_curves`.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.

    >>> by_loss = {1e-4: np.array([10.0]), 1e-3: np.array([30.0])}
    >>> costs = {1e-3: np.array([5.0, 9.0]), 1e-6: np.array([9.0, 16.0])}
    >>> ax = copies(SecurityCurves(100, 4, 8, by_loss, {}, costs))
    >>> ax.get_legend_handles_labels()[1]
    ['1e-3', '1e-6']
    """
    checks.instance("curves", curves, SecurityCurves)
    with drawing(ax) as axes:
        for index, (target, costs) in enumerate(curves.costs.items()):
            label = f"{target:.0e}".replace("e-0", "e-")
            axes.plot(list(curves.copies), costs, marker="o", label=label, **look(index))
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="1 - fidelity of the GHZ states",
            ylabel="GHZ copies per mask",
        )
        _tick_copies(axes.yaxis)
        axes.legend(title="epsilon of a step", loc="upper left")
    return axes


def _secure(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [run for run in runs if "security" in run]


def _tick_copies(axis: Any) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    axis.set_major_locator(FixedLocator(TICKS))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_locator(NullLocator())
