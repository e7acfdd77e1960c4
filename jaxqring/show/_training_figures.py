"""Figures of a training job."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from jaxqring._files import read_metrics
from jaxqring.show._style import STYLE, look, save

#: Runs of a job with compressed gradients whose curves and bars can be told apart.
MOST_RUNS = 6
#: The lines of a job's `metrics.jsonl`, by run.
Lines = dict[str, list[dict[str, Any]]]


def draw_training(folder: Path, summary: dict[str, Any], only_missing: bool = False) -> list[Path]:
    """Draws `training.png`, `network.png` and `drift.png` from the files of a finished job.

    Args:
      folder: of the job.
      summary: contents of its `summary.json`.
      only_missing: if true, figures that are there are left as they are.

    Returns:
      The paths of the figures drawn.
    """
    figures: dict[str, Callable[[Lines], Figure]] = {
        "training.png": _training,
        "network.png": lambda by_run: _network(by_run, summary["runs"]),
        "drift.png": _drift,
    }
    if only_missing:
        figures = {n: figure for n, figure in figures.items() if not (folder / n).exists()}
    if not figures:
        return []
    lines = read_metrics(folder / "metrics.jsonl")
    by_run = {run["name"]: [x for x in lines if x["run"] == run["name"]] for run in summary["runs"]}
    with matplotlib.rc_context(STYLE):
        return [save(figure(by_run), folder / name) for name, figure in figures.items()]


def _training(by_run: Lines) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, lines) in enumerate(by_run.items()):
        finite = [(x["step"], x["loss"]) for x in lines if math.isfinite(x["loss"])]
        left.plot(*zip(*_smooth(finite), strict=True), label=name, **look(index))
        tested = [(x["step"], x["test_accuracy"]) for x in lines if "test_accuracy" in x]
        points = {"marker": "o", "markersize": 5, "label": name}
        right.plot(*zip(*tested, strict=True), **points, **look(index))
    left.set(xlabel="step", ylabel="training loss (nats)", yscale="log")
    right.set(xlabel="step", ylabel="test accuracy", ylim=(None, 1.0))
    right.legend(loc="best")
    return figure


def _smooth(points: list[tuple[int, float]], width: int = 10) -> list[tuple[float, float]]:
    """Means of consecutive steps, so that the loss of single batches does not hide the trend."""
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(sum(s for s, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _network(by_run: Lines, runs: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    largest = max(run["online_bits_per_link_step"] for run in runs)
    scale, unit_of_scale = (1e6, "millions") if largest >= 1e5 else (1e3, "thousands")
    for index, run in enumerate(runs):
        # Beside the qubits, in outline, the bits that a classical ring of the same width sends:
        # a narrower wire saves traffic, too, and that saving is not the quantum one.
        colour = look(index)["color"]
        amounts = {"bits": run["online_bits_per_link_step"] / scale}
        if run["online_qubits_per_link_step"]:
            amounts["qubits"] = run["online_qubits_per_link_step"] / scale
        for offset, (unit, amount) in enumerate(amounts.items()):
            outline = unit == "bits" and len(amounts) == 2
            bar = left.bar(
                index + 0.4 * (offset - (len(amounts) - 1) / 2),
                amount,
                width=0.38,
                color="none" if outline else colour,
                edgecolor=colour,
                linestyle="--" if outline else "-",
                linewidth=1.5,
            )
            left.bar_label(bar, labels=[f"{amount:.2f}"], padding=3, fontsize=11)
    names = [run["name"].replace("-", "-\n").replace(", ", ",\n") for run in runs]
    left.set_xticks(range(len(runs)), names)
    left.set(ylabel=f"online traffic per link and step\n({unit_of_scale})")
    title = "filled: qubits sent (bits, if classical)\ndashed: the same payload as bits"
    left.set_title(title, fontsize=11)
    left.margins(y=0.1)
    left.grid(visible=False, axis="x")
    for index, (name, lines) in enumerate(by_run.items()):
        agreement = [(x["step"], x["replica_agreement"]) for x in lines]
        right.plot(*zip(*agreement, strict=True), label=name, **look(index))
    right.set(
        xlabel="step", ylabel="coordinates equal on all nodes\n(fraction)", ylim=(-0.03, 1.05)
    )
    right.legend(loc="lower right")
    return figure


def _drift(by_run: Lines) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (name, lines) in enumerate(by_run.items()):
        # A logarithmic axis has no zero; the legend says it.
        drift = [(x["step"], x["replica_drift"]) for x in lines if x.get("replica_drift")]
        label = name if drift else f"{name}: exactly 0"
        axes.plot(*(zip(*drift, strict=True) if drift else ([], [])), label=label, **look(index))
    axes.set(
        xlabel="step",
        ylabel="largest difference of two replicas\n(rms, relative to the parameters)",
        yscale="log",
    )
    axes.legend(loc="best", fontsize=11)
    return figure
