"""Figures of sensitivities: derivatives with their intervals, link by link."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxqring import _checks as checks
from jaxqring.show._inputs import check_entries
from jaxqring.show._style import COLOURS, drawing, page, save
from jaxqring.sweeps._sensitivity import COLUMNS, DIFFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_sensitivity(folder: Path, table: dict[str, np.ndarray], outcome: str) -> Path:
    """Draws `<outcome>.png`: bars with intervals, a panel for each parameter.

    Args:
      folder: for the figure.
      table: of `jaxqring.sweeps.sensitivity`.
      outcome: that is drawn.

    Returns:
      The path of the figure.
    """
    names = list(dict.fromkeys(table["parameter"].tolist()))
    ratios = [2.5 + len(np.unique(table["link"][table["parameter"] == name])) for name in names]
    with page(2 + 0.75 * sum(ratios), 4.6) as figure:
        panels = figure.subplots(1, len(names), squeeze=False, width_ratios=ratios)[0]
        for axes, name in zip(panels, names, strict=True):
            sensitivity(table, name, outcome, axes)
        for axes in panels[1:]:
            axes.set_ylabel("")
            axes.get_legend().remove()
        return save(figure, folder / f"{outcome}.png")


def sensitivity(
    table: dict[str, np.ndarray],
    parameter: str,
    outcome: str = "loss",
    ax: "Axes | None" = None,
    *,
    confidence: float = 0.95,
) -> "Axes":
    """Draws the derivatives of an outcome by a parameter of the links: bars with their intervals.

    Args:
      table: of `jaxqring.sensitivity`.
      parameter: by which the derivatives are taken.
      outcome: of which.
      ax: axes of matplotlib to draw on; new ones by default.
      confidence: of the intervals, as it was given to `jaxqring.sensitivity`.

    Returns:
      The axes, with a group of bars for each link, and a bar for each estimator.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if the parameter or the outcome is not in the table, or the confidence is not in
        (0, 1).

    >>> names = {"estimator": "gaussian", "outcome": "loss", "parameter": "fidelity", "link": -1}
    >>> numbers = {"value": 0.99, "derivative": -1.3, "low": -1.4, "high": -1.2}
    >>> table = {name: np.array([value]) for name, value in (names | numbers).items()}
    >>> sensitivity(table, "fidelity").get_ylabel()
    'd loss / d parameter (nats per unit)'
    """
    check_entries("table", table, *COLUMNS[:6], *COLUMNS[-2:])
    checks.open_interval("confidence", confidence)
    for column, value in (("parameter", parameter), ("outcome", outcome)):
        checks.one_of(column, value, tuple(dict.fromkeys(table[column].tolist())))
    selected = (table["parameter"] == parameter) & (table["outcome"] == outcome)
    rows = {column: values[selected] for column, values in table.items()}
    unit = " (nats per unit)" if outcome == "loss" else " (per unit)"
    with drawing(ax) as axes:
        _bars(axes, rows)
        axes.set_title(parameter.replace("_", " "), fontsize=13)
        axes.set_ylabel(f"d {outcome.replace('_', ' ')} / d parameter{unit}")
        axes.legend(loc="best", title=f"{100 * confidence:.4g}% intervals")
    return axes


def _bars(axes: "Axes", rows: dict[str, np.ndarray]) -> None:
    """The derivatives of one outcome with respect to one parameter, link by link."""
    estimators = list(dict.fromkeys(rows["estimator"].tolist()))
    width = 0.8 / len(estimators)
    for index, estimator in enumerate(estimators):
        selected = rows["estimator"] == estimator
        offset = width * (index - (len(estimators) - 1) / 2)
        centre = np.arange(np.count_nonzero(selected)) + offset
        is_difference = estimator == DIFFERENCE
        axes.bar(
            centre,
            rows["derivative"][selected],
            width * 0.92,
            yerr=(rows["high"] - rows["derivative"])[selected],
            color="white" if is_difference else COLOURS[1 + index % 5],
            edgecolor="0.25",
            hatch="///" if is_difference else None,
            error_kw={"capsize": 3, "lw": 1.3, "ecolor": "black"},
            label="finite difference" if is_difference else estimator,
        )
    first = rows["estimator"] == estimators[0]
    links, values = rows["link"][first], rows["value"][first]
    labels = [
        f"{value:g}" if link < 0 else f"{link}\n{value:g}"
        for link, value in zip(links, values, strict=True)
    ]
    axes.set_xticks(range(len(labels)), labels, fontsize=10)
    axes.set_xlabel("link, and the value there" if links.max() >= 0 else "value on all links")
    axes.axhline(0, color="0.25", lw=1)
    axes.grid(visible=False, axis="x")
