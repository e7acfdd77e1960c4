"""Figures of sensitivities: derivatives with their intervals, link by link."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxqring.show._style import COLOURS, STYLE, save
from jaxqring.sweeps._sensitivity import DIFFERENCE


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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 + 0.75 * sum(ratios), 4.6), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False, width_ratios=ratios)[0]
        for axes, name in zip(panels, names, strict=True):
            selected = (table["parameter"] == name) & (table["outcome"] == outcome)
            _bars(axes, {column: values[selected] for column, values in table.items()})
            axes.set_title(name.replace("_", " "), fontsize=13)
        unit = " (nats per unit)" if outcome == "loss" else " (per unit)"
        panels[0].set_ylabel(f"d {outcome.replace('_', ' ')} / d parameter{unit}")
        panels[0].legend(fontsize=11, loc="best", title="95% intervals", title_fontsize=11)
        return save(figure, folder / f"{outcome}.png")


def _bars(axes: Axes, rows: dict[str, np.ndarray]) -> None:
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
