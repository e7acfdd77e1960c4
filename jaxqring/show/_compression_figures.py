"""Figures of compressed gradients: accuracy over traffic, and over a parameter by method."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring.jobs._compression_job import LARGER_IS_BETTER, Curve
from jaxqring.show._inputs import check_entries
from jaxqring.show._style import COLOURS, drawing, look, page, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

#: Families of methods: name, colour, marker.
FAMILIES = {
    "all values, linear": ("uncompressed", COLOURS[0], "s"),
    "low rank": ("powersgd lqsgd", COLOURS[1], "o"),
    "a few values": ("topk dgc randomk", COLOURS[3], "^"),
    "a few levels": ("terngrad qsgd", COLOURS[2], "D"),
    "signs": ("sign demo", COLOURS[4], "v"),
}
#: Places of a label around its point, in points (1/72 inch), the nearest first.
PLACES = sorted(
    (
        (radius * x, radius * y)
        for radius in (10, 18, 28, 42, 60, 80)
        for x, y in ((1, 0), (1, 0.7), (1, -0.7), (0, 1), (0, -1), (-1, 0), (-1, 0.7), (-1, -0.7))
    ),
    key=lambda place: place[0] ** 2 + place[1] ** 2,
)


def draw_compression(folder: Path, summary: dict[str, Any]) -> Path:
    """Draws `compression.png`: test accuracy over qubits per link and step, a point for each run.

    Args:
      folder: of a finished training job.
      summary: contents of its `summary.json`.

    Returns:
      The path of the figure.
    """
    with page(10, 6) as figure:
        compression(summary, figure.subplots())
        return save(figure, folder / "compression.png")


def compression(summary: dict[str, Any], ax: "Axes | None" = None) -> "Axes":
    """Draws the test accuracy over the qubits of a link and step, a point for each run.

    Args:
      summary: contents of the `summary.json` of a job with compressed gradients, as
        `jaxqring.jobs.train` returns them.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.

    >>> run = {"online_qubits_per_link_step": 1e4, "test_accuracy": 0.92}
    >>> job = {"runs": [{"name": "TopK 1%", "compress": {"method": "topk"}}]}
    >>> ax = compression({"config": job, "runs": [{"name": "TopK 1%", **run}]})
    >>> ax.get_legend_handles_labels()[1]
    ['a few values']
    """
    check_entries("summary", summary, "config", "runs")
    methods = {
        run["name"]: run["compress"]["method"]
        for run in summary["config"]["runs"]
        if "compress" in run
    }
    runs = [run for run in summary["runs"] if run["name"] in methods]
    with drawing(ax) as axes:
        for family, (names, colour, marker) in FAMILIES.items():
            own = [run for run in runs if methods[run["name"]] in names.split()]
            points = [(x["online_qubits_per_link_step"], x["test_accuracy"]) for x in own]
            if points:
                style: dict[str, Any] = {"color": colour, "marker": marker, "s": 60, "zorder": 3}
                axes.scatter(*zip(*points, strict=True), label=family, **style)
        axes.set(xscale="log", xlabel="qubits per link and step", ylabel="test accuracy")
        axes.margins(x=0.12, y=0.1)
        legend, figure = axes.legend(loc="lower right"), axes.get_figure(root=True)
        if figure is not None:
            figure.draw_without_rendering()  # lays it out
        _label(axes, runs, legend)
    return axes


def _label(axes: "Axes", runs: Sequence[dict[str, Any]], legend: "Legend") -> None:
    """Writes the names of runs beside their points, each where it hides nothing."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    inside = axes.get_window_extent()
    at = [(run["online_qubits_per_link_step"], run["test_accuracy"]) for run in runs]
    taken = [
        Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in axes.transData.transform(np.array(at))
    ]
    taken.append(legend.get_window_extent())
    axes.set_autoscale_on(False)
    for run, point in sorted(zip(runs, at, strict=True), key=lambda pair: pair[1]):
        for dx, dy in PLACES:
            text = axes.annotate(
                run["name"],
                point,
                (dx, dy),
                textcoords="offset points",
                ha="center" if dx == 0 else "left" if dx > 0 else "right",
                va="center" if dy == 0 else "bottom" if dy > 0 else "top",
                fontsize=10,
                arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "0.6", "shrinkA": 0},
            )
            text.get_window_extent()  # puts it in its place
            # Of the text alone, without its line.
            box = Text.get_window_extent(text).padded(4)
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1
            fits = fits and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if (fits and not box.count_overlaps(taken)) or (dx, dy) == PLACES[-1]:
                taken.append(box)
                break
            text.remove()


def draw_curves(folder: Path, varied: str, curves: Sequence[Curve]) -> Path:
    """Draws `accuracy_<parameter>.png`: the accuracy of every method, panel by panel.

    Args:
      folder: for the figure.
      varied: the parameter.
      curves: of `jaxqring.jobs.run_compression`.

    Returns:
      The path of the figure: mean over the seeds, and one standard deviation either side.
    """
    panels = list(dict.fromkeys(panel for curve in curves for panel in curve.config.panels))
    members = [[curve for curve in curves if panel in curve.config.panels] for panel in panels]
    looks = _looks(members)
    labels = list(dict.fromkeys(map(_label_of, curves)))
    is_noise = varied in LARGER_IS_BETTER
    with page(5 * len(panels) + 2, 4.8) as figure:
        grid = figure.subplots(1, len(panels), sharey=True, sharex=is_noise, squeeze=False)[0]
        for axes, panel, own in zip(grid, panels, members, strict=True):
            _curves(axes, varied, own, looks)
            axes.set_title(panel, fontsize=12)
        if is_noise:
            grid[0].invert_xaxis()  # better links to the right
        for axes in grid[1:]:
            axes.set_ylabel("")
        if len(set(looks.values())) < len(labels):  # a colour has other meanings elsewhere
            for axes in grid:
                axes.legend(loc="best")
        else:
            handles = [axes.get_legend_handles_labels() for axes in grid]
            first = {
                x: line for lines, names in handles for line, x in zip(lines, names, strict=True)
            }
            figure.legend(
                [first[label] for label in labels],
                labels,
                loc="outside right upper",
                title=_over_seeds_of(curves),
                handlelength=3,
            )
        return save(figure, folder / f"accuracy_{varied}.png")


def methods(varied: str, curves: Sequence[Curve], ax: "Axes | None" = None) -> "Axes":
    """Draws the accuracy of compressors over a parameter: the mean over the seeds in a band.

    The band is one standard deviation either side.

    Args:
      varied: the parameter.
      curves: of `jaxqring.jobs.run_compression`, each a compressor.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.

    >>> from jaxqring.jobs._compression_job import CurveConfig
    >>> accuracy = np.array([[0.5, 0.6], [0.9, 0.91]])
    >>> curve = Curve(CurveConfig("SGD"), np.array([0.9, 0.99]), accuracy)
    >>> methods("fidelity", [curve]).get_xlabel()
    'infidelity of the pairs, 1 - F (Werner)'
    """
    if not curves:
        checks.refuse("curves", "hold a curve", curves)
    looks = _looks([curves])
    with drawing(ax) as axes:
        _curves(axes, varied, curves, looks)
        if varied in LARGER_IS_BETTER:
            axes.invert_xaxis()
        axes.legend(loc="best", title=_over_seeds_of(curves))
    return axes


def _curves(axes: "Axes", varied: str, curves: Sequence[Curve], looks: dict[str, int]) -> None:
    from matplotlib.ticker import NullFormatter

    for curve in curves:
        _draw_curve(axes, varied, curve, looks[_label_of(curve)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    values = np.unique(np.concatenate([curve.values for curve in curves]))
    if varied not in LARGER_IS_BETTER and values[0] > 0 and values[-1] < 30 * values[0]:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_ylabel("accuracy" if varied == "learning_rate" else "test accuracy")


def _over_seeds_of(curves: Sequence[Curve]) -> str:
    seeds = curves[0].accuracy.shape[1]
    return f"mean and standard\ndeviation over {seeds} seeds" if seeds > 1 else "one seed"


def _label_of(curve: Curve) -> str:
    return curve.config.label or curve.config.name


def _looks(members: Sequence[Sequence[Curve]]) -> dict[str, int]:
    """A number for the colour and the line of each label, alike wherever it is drawn.

    Args:
      members: the curves of each panel, in which numbers differ if the labels of earlier panels
        allow it.
    """
    looks: dict[str, int] = {}
    for curves in members:
        labels = [_label_of(curve) for curve in curves]
        taken = {looks[label] for label in labels if label in looks}
        for label in labels:
            if label not in looks:
                looks[label] = next(n for n in itertools.count() if n not in taken)
                taken.add(looks[label])
    return looks


def _draw_curve(axes: "Axes", varied: str, curve: Curve, index: int) -> None:
    larger = varied in LARGER_IS_BETTER
    noise = np.round(1 - curve.values, 12) if larger else curve.values
    order = np.argsort(noise)
    order = order[noise[order] > 0]  # a logarithmic axis has no zero
    mean, std = curve.accuracy.mean(axis=1)[order], curve.accuracy.std(axis=1)[order]
    points: dict[str, Any] = {"marker": "o", "markersize": 4, "label": _label_of(curve)}
    axes.plot(noise[order], mean, **points, **look(index))
    band: dict[str, Any] = {"alpha": 0.2, "lw": 0, "color": look(index)["color"]}
    axes.fill_between(noise[order], mean - std, mean + std, **band)
    names = {"fidelity": "infidelity of the pairs, 1 - F (Werner)"}
    axes.set(xscale="log", xlabel=names.get(varied, varied.replace("_", " ")))
