"""Figures of outer loops: accuracy over traffic, and what memories make of H."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring.show._inputs import check_entries
from jaxqring.show._style import COLOURS, SPLITS, drawing, page, save, write_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A marker for each loop, apart from its colour.
MARKERS = ("s", "o", "D", "^", "v", "<", ">", "P", "X", "*", "h", "d")


def draw_outer(folder: Path, summary: dict[str, Any]) -> list[Path]:
    """Draws `outer_accuracy.png`, a panel for each split, and `outer_memories.png`.

    Args:
      folder: of a finished study.
      summary: contents of its `summary.json`.

    Returns:
      The paths of the figures.
    """
    splits = summary["config"]["splits"]
    with page(6.5 * len(splits) + 2.5, 5.4) as figure:
        grid = figure.subplots(1, len(splits), squeeze=False)[0]
        for axes, split in zip(grid, splits, strict=True):
            outer_loops(summary, split, axes)
            axes.get_legend().remove()
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", title=_over_seeds(summary))
        first = save(figure, folder / "outer_accuracy.png")
    with page(8, 5.2) as figure:
        outer_memories(summary, figure.subplots())
        return [first, save(figure, folder / "outer_memories.png")]


def outer_loops(summary: dict[str, Any], split: str, ax: "Axes | None" = None) -> "Axes":
    """Draws the accuracy of outer loops over the bits of a training, a point for each H.

    Points of one loop are joined, and each has its H beside it.

    Args:
      summary: of `jaxqring.jobs.run_outer`.
      split: of the images, "iid" or "sorted".
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if the summary is another one, or has no points of the split.

    >>> point = {"every": 10, "split": "iid", "accuracy": 0.9, "std": 0.01, "bits": 7e7}
    >>> study = {"loops": [{"name": "DiLoCo", "points": [point]}], "config": {"seeds": 3}}
    >>> outer_loops(study, "iid").get_ylabel()
    'test accuracy'
    """
    check_entries("summary", summary, "loops", "config")
    chosen = [
        (loop["name"], [point for point in loop["points"] if point["split"] == split])
        for loop in summary["loops"]
    ]
    if not any(points for _, points in chosen):
        checks.refuse("split", "be one of the study", split)
    with drawing(ax) as axes:
        for index, (name, points) in enumerate(chosen):
            points = sorted(points, key=lambda point: point["bits"])
            bits, accuracy, std = (
                np.array([point[key] for point in points], float)
                for key in ("bits", "accuracy", "std")
            )
            style: dict[str, Any] = {
                "color": COLOURS[index % len(COLOURS)],
                "marker": MARKERS[index % len(MARKERS)],
                "markersize": 8,
                "linewidth": 1,
                "capsize": 3,
                "label": name,
                # Loops beyond the colours are hollow.
                "markerfacecolor": None if index < len(COLOURS) else "white",
            }
            axes.errorbar(bits, accuracy, yerr=std, **style)
            for point in points:
                axes.annotate(
                    f"{point['every']}",
                    (point["bits"], point["accuracy"]),
                    xytext=(6, -11),
                    textcoords="offset points",
                    fontsize=8,
                )
        axes.set(xscale="log", xlabel="bits over each link, in all", ylabel="test accuracy")
        axes.set_title(SPLITS.get(split, split) + "; numbers are H", fontsize=12)
        axes.legend(loc="best", title=_over_seeds(summary))
    return axes


def outer_memories(summary: dict[str, Any], ax: "Axes | None" = None) -> "Axes":
    """Draws accuracy times inner steps a second over H and coherence time, as colours.

    A ring marks the best H of each coherence time.

    Args:
      summary: of `jaxqring.jobs.run_outer`.
      ax: axes of matplotlib to draw on; new ones by default. A bar of colours is put beside them.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if the summary is another one.

    >>> shown = {"loop": "DiLoCo", "split": "iid", "every": [5, 10], "coherence": [0.1, 1.0]}
    >>> shown |= {"score": [[3.0, 9.0], [4.0, 8.0]], "best_every": [10, 5]}
    >>> outer_memories({"shown": shown}).images[0].get_array().shape
    (2, 2)
    """
    check_entries("summary", summary, "shown")
    shown = summary["shown"]
    score = np.array(shown["score"], float).T
    every, coherence = shown["every"], shown["coherence"]
    with drawing(ax) as axes:
        picture = axes.imshow(score, cmap="cividis", origin="lower", aspect="auto")
        axes.grid(visible=False)
        axes.set_xticks(range(len(every)), [f"{steps:g}" for steps in every])
        axes.set_yticks(range(len(coherence)), [f"{time:g}" for time in coherence])
        write_numbers(axes, score, "{:.3g}")
        for row, best in enumerate(shown["best_every"]):
            ring: dict[str, Any] = {"facecolors": "none", "edgecolors": COLOURS[2]}
            axes.scatter(list(every).index(best), row, s=900, linewidths=2.5, **ring)
        axes.set(xlabel="H, inner steps of a round", ylabel="coherence time of the memories (s)")
        images = SPLITS.get(shown["split"], shown["split"])
        axes.set_title(f"{shown['loop']}, {images}; a ring marks the best H", fontsize=12)
        label = "accuracy x inner steps per second"
        axes.figure.colorbar(picture, ax=axes, label=label)
    return axes


def _over_seeds(summary: dict[str, Any]) -> str:
    seeds = summary["config"]["seeds"]
    return f"mean and standard\ndeviation over {seeds} seeds" if seeds > 1 else "one seed"
