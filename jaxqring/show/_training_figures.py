"""Figures of a training job, from the lines of its metrics and from its summary."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring._files import read_metrics
from jaxqring.show._inputs import check_entries, check_lines
from jaxqring.show._style import drawing, look, page, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Runs of a job with compressed gradients whose curves and bars can be told apart.
MOST_RUNS = 6
#: Curves that differ by less than this share of the axis lie on each other.
_SAME = 0.02

#: Lines of `metrics.jsonl`, as `jaxqring.jobs.read_metrics` reads them.
Lines = Sequence[Mapping[str, Any]]
#: Steps and values.
Points = list[tuple[float, float]]


def loss(lines: Lines, ax: "Axes | None" = None) -> "Axes":
    """Draws the training loss over the steps, a curve for each run, in means of ten steps.

    Args:
      lines: of metrics, as `jaxqring.jobs.read_metrics` reads them: dicts with "run", "step" and
        "loss", in nats.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if there are no lines, or one lacks an entry.

    >>> lines = [{"run": "ideal", "step": step, "loss": 2 / step} for step in range(1, 31)]
    >>> loss(lines).get_ylabel()
    'training loss (nats)'
    """
    check_lines(lines, "loss")
    # A logarithmic axis has no zero.
    curves = {
        run: _smooth([(x["step"], x["loss"]) for x in own if 0 < x["loss"] < math.inf])
        for run, own in _by_run(lines)
    }
    with drawing(ax) as axes:
        axes.set(xlabel="step", ylabel="training loss (nats)", yscale="log")
        _overlaid(axes, curves)
        axes.legend(loc="best")
    return axes


def accuracy(lines: Lines, ax: "Axes | None" = None) -> "Axes":
    """Draws the test accuracy over the steps, a curve for each run.

    Args:
      lines: of metrics, as `jaxqring.jobs.read_metrics` reads them, those with "test_accuracy".
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if there are no lines, or one lacks an entry.

    >>> lines = [{"run": "ideal", "step": 25, "test_accuracy": 0.9}]
    >>> lines += [{"run": "ideal", "step": 50, "test_accuracy": 0.95}]
    >>> accuracy(lines).get_legend_handles_labels()[1]
    ['ideal']
    """
    check_lines(lines)
    curves = {
        run: [(x["step"], x["test_accuracy"]) for x in own if "test_accuracy" in x]
        for run, own in _by_run(lines)
    }
    with drawing(ax) as axes:
        _overlaid(axes, curves, marker="o", markersize=5)
        axes.set(xlabel="step", ylabel="test accuracy", ylim=(None, 1.0))
        axes.legend(loc="best")
    return axes


def agreement(lines: Lines, ax: "Axes | None" = None) -> "Axes":
    """Draws the fraction of coordinates that are equal on all nodes, over the steps.

    Args:
      lines: of metrics, as `jaxqring.jobs.read_metrics` reads them, with "replica_agreement".
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if there are no lines, or one lacks an entry.

    >>> lines = [{"run": "noisy", "step": step, "replica_agreement": 0.57} for step in (1, 2)]
    >>> agreement(lines).get_xlabel()
    'step'
    """
    check_lines(lines, "replica_agreement")
    curves = {
        run: [(x["step"], x["replica_agreement"]) for x in own] for run, own in _by_run(lines)
    }
    with drawing(ax) as axes:
        _overlaid(axes, curves)
        axes.set(xlabel="step", ylabel="coordinates equal on all nodes\n(fraction)")
        axes.set_ylim(-0.03, 1.05)
        axes.legend(loc="best")
    return axes


def drift(lines: Lines, ax: "Axes | None" = None) -> "Axes":
    """Draws the largest difference of two replicas over the steps, relative to the parameters.

    Args:
      lines: of metrics, as `jaxqring.jobs.read_metrics` reads them, with "replica_drift".
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if there are no lines, or one lacks an entry.

    >>> lines = [{"run": "ideal", "step": step, "replica_drift": 0.0} for step in (1, 2)]
    >>> drift(lines).get_legend_handles_labels()[1]
    ['ideal: exactly 0']
    """
    check_lines(lines)
    with drawing(ax) as axes:
        for index, (run, own) in enumerate(_by_run(lines)):
            # A logarithmic axis has no zero; the legend says it.
            found = [(x["step"], x["replica_drift"]) for x in own if x.get("replica_drift")]
            label = run if found else f"{run}: exactly 0"
            axes.plot(*_columns(found), label=label, **look(index))
        axes.set(
            xlabel="step",
            ylabel="largest difference of two replicas\n(rms, relative to the parameters)",
            yscale="log",
        )
        axes.legend(loc="best")
    return axes


def traffic(summary: Mapping[str, Any], ax: "Axes | None" = None) -> "Axes":
    """Draws the uses of a link for a step of each run: those for a bit, and those for a qubit.

    A use of a link carries one bit or one qubit. Beside the qubits of a run stand the bits that a
    classical ring of the same width sends: a narrower wire saves traffic, too, and that saving is
    not the quantum one.

    Args:
      summary: contents of `summary.json`, as `jaxqring.jobs.train` returns them.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if the summary has no runs.

    >>> run = {"online_bits_per_link_step": 2000, "online_qubits_per_link_step": 1000}
    >>> ax = traffic({"runs": [{"name": "ideal", **run}]})
    >>> [text.get_text() for text in ax.texts]
    ['2.00', '1.00']
    """
    check_entries("summary", summary, "runs")
    runs = summary["runs"]
    if not runs:
        checks.refuse("summary", "hold a run", runs)
    largest = max(run["online_bits_per_link_step"] for run in runs)
    scale, unit = (1e6, "millions") if largest >= 1e5 else (1e3, "thousands")
    with drawing(ax) as axes:
        for index, run in enumerate(runs):
            bits, qubits = (run[f"online_{what}_per_link_step"] / scale for what in _OUTLINED)
            amounts = {"bits": bits, "qubits": qubits} if qubits else {"bits": bits}
            for row, (what, amount) in enumerate(amounts.items()):
                place = index + 0.4 * (row - (len(amounts) - 1) / 2)
                bar = axes.barh(place, amount, 0.38, **_bar(look(index)["color"], what))
                axes.bar_label(bar, labels=[f"{amount:.2f}"], padding=4, fontsize=11)
        from matplotlib.patches import Patch

        meanings = {"bits": "one bit each, without pairs", "qubits": "one qubit each, and a pair"}
        handles = [Patch(**_bar("0.3", what), label=text) for what, text in meanings.items()]
        axes.set_yticks(range(len(runs)), [run["name"] for run in runs])
        axes.set_xlabel(f"uses of a link for a step ({unit})")
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(visible=False, axis="y")
        axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=1)
    return axes


#: True for what is drawn as an outline.
_OUTLINED = {"bits": True, "qubits": False}


def _bar(colour: str, what: str) -> dict[str, Any]:
    outline = _OUTLINED[what]
    style = {"edgecolor": colour, "linewidth": 1.5, "linestyle": "--" if outline else "-"}
    return {"facecolor": "none" if outline else colour, **style}


def draw_training(folder: Path, summary: dict[str, Any], only_missing: bool = False) -> list[Path]:
    """Draws `training.png`, `network.png` and `drift.png` from the files of a finished job.

    Args:
      folder: of the job.
      summary: contents of its `summary.json`.
      only_missing: if true, figures that are there are left as they are.

    Returns:
      The paths of the figures drawn.
    """
    figures: dict[str, tuple[float, list[Callable[[Lines, Axes], Axes]]]] = {
        "training.png": (10, [loss, accuracy]),
        "network.png": (11, [lambda _, ax: traffic(summary, ax), agreement]),
        "drift.png": (7, [drift]),
    }
    if only_missing:
        figures = {n: figure for n, figure in figures.items() if not (folder / n).exists()}
    if not figures:
        return []
    lines = read_metrics(folder / "metrics.jsonl")
    paths = []
    for name, (width, panels) in figures.items():
        with page(width, 4.4) as figure:
            grid = figure.subplots(1, len(panels), squeeze=False)[0]
            for axes, draw in zip(grid, panels, strict=True):
                draw(lines, axes)
            paths.append(save(figure, folder / name))
    return paths


def _by_run(lines: Lines) -> Iterable[tuple[str, Lines]]:
    """The lines of each run, in the order in which the runs begin."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        runs.setdefault(line["run"], []).append(line)
    return runs.items()


def _smooth(points: Points, width: int = 10) -> Points:
    """Means of consecutive steps, so that the loss of single batches does not hide the trend."""
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(sum(s for s, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _columns(points: Points) -> tuple[Sequence[float], Sequence[float]]:
    steps, values = zip(*points, strict=True) if points else ((), ())
    return steps, values


def _overlaid(axes: "Axes", curves: Mapping[str, Points], **style: Any) -> None:
    """Draws curves so that those that lie on each other are all seen: the lower ones as bands.

    The legend says of a curve whose values are those of an earlier one that they are.
    """
    names = list(curves)
    log = axes.get_yscale() == "log"
    lie_on = {
        (a, b): _close(curves[a], curves[b], curves, log)
        for a, b in itertools.combinations(names, 2)
    }
    for index, name in enumerate(names):
        points = curves[name]
        equal = next((x for x in names[:index] if points and curves[x] == points), None)
        label = name if equal is None else f"{name}: as {equal}"
        line = {**look(index), **style}
        if above := sum(lie_on[name, other] for other in names[index + 1 :]):
            band = {"color": _lighter(line["color"]), "linestyle": "-", "marker": ""}
            line |= band | {"linewidth": 2 + 2.5 * above}
        axes.plot(*_columns(points), label=label, **line)


def _lighter(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(0.4 * part + 0.6 for part in to_rgb(colour))


def _close(first: Points, second: Points, curves: Mapping[str, Points], log: bool) -> bool:
    """True for curves that would hide each other nearly everywhere."""
    scaled = np.log if log else np.asarray
    if not first or [step for step, _ in first] != [step for step, _ in second]:
        return False
    every = scaled([value for points in curves.values() for _, value in points])
    difference = scaled(_columns(first)[1]) - scaled(_columns(second)[1])
    return bool(np.quantile(abs(difference), 0.9) <= _SAME * np.ptp(every))
