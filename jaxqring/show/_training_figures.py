"""Pictures of a training job."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from jaxqring._files import read_metrics

# Okabe and Ito's colours, which the colour-blind tell apart, each with a line style of its own.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", "-", "-.", ":", "--")

STYLE: dict[str, Any] = {
    "font.size": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 2,
    "svg.hashsalt": "jaxqring",
}


def draw(folder: Path, summary: dict[str, Any]) -> list[Path]:
    """Draws `training.png`, `network.png` and `drift.png` from the files of a finished job.

    Args:
      folder: of the job.
      summary: contents of its `summary.json`.

    Returns:
      The paths of the figures.
    """
    lines = read_metrics(folder / "metrics.jsonl")
    by_run = {run["name"]: [x for x in lines if x["run"] == run["name"]] for run in summary["runs"]}
    with matplotlib.rc_context(STYLE):
        return [
            save(_training(by_run), folder / "training.png"),
            save(_network(by_run, summary["runs"]), folder / "network.png"),
            save(_drift(by_run), folder / "drift.png"),
        ]


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure; returns where."""
    figure.savefig(path, dpi=150)
    return path


def _training(by_run: dict[str, list[dict]]) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (name, lines) in enumerate(by_run.items()):
        look = {"color": COLOURS[place % 6], "linestyle": STYLES[place % 6], "label": name}
        known = [(x["step"], x["loss"]) for x in lines if x["loss"] is not None]
        left.plot(*zip(*_smooth(known), strict=True), **look)
        tested = [(x["step"], x["test_accuracy"]) for x in lines if "test_accuracy" in x]
        right.plot(*zip(*tested, strict=True), marker="o", markersize=5, **look)
    left.set(xlabel="step", ylabel="training loss (nats)", yscale="log")
    right.set(xlabel="step", ylabel="test accuracy", ylim=(None, 1.0))
    right.legend(loc="lower right")
    return figure


def _smooth(points: list[tuple[int, float]], width: int = 10) -> list[tuple[float, float]]:
    """Means of consecutive steps, so that the loss of single batches does not hide the trend."""
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(sum(s for s, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _network(by_run: dict[str, list[dict]], runs: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, run in enumerate(runs):
        # Beside the qubits, in outline, the bits that a classical ring of the same width sends:
        # a narrower wire saves traffic, too, and that saving is not the quantum one.
        colour = COLOURS[place % 6]
        amounts = {"bits": run["online_bits_per_link_step"] / 1e6}
        if run["online_qubits_per_link_step"]:
            amounts["qubits"] = run["online_qubits_per_link_step"] / 1e6
        for offset, (unit, amount) in enumerate(amounts.items()):
            outline = unit == "bits" and len(amounts) == 2
            bar = left.bar(
                place + 0.4 * (offset - (len(amounts) - 1) / 2),
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
    left.set(ylabel="online traffic per link and step\n(millions)")
    title = "filled: qubits sent (bits, if classical)\ndashed: the same payload as bits"
    left.set_title(title, fontsize=11)
    left.margins(y=0.1)
    left.grid(visible=False, axis="x")
    for place, (name, lines) in enumerate(by_run.items()):
        right.plot(
            [x["step"] for x in lines],
            [x["replica_agreement"] for x in lines],
            color=COLOURS[place % 6],
            linestyle=STYLES[place % 6],
            label=name,
        )
    right.set(
        xlabel="step", ylabel="coordinates equal on all nodes\n(fraction)", ylim=(-0.03, 1.05)
    )
    right.legend(loc="lower right")
    return figure


def _drift(by_run: dict[str, list[dict]]) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, lines) in enumerate(by_run.items()):
        look: dict[str, Any] = {"color": COLOURS[place % 6], "linestyle": STYLES[place % 6]}
        # Exactly zero has no place on a logarithmic axis; the legend says it.
        apart = [(x["step"], x["replica_drift"]) for x in lines if x["replica_drift"]]
        if apart:
            axes.plot(*zip(*apart, strict=True), label=name, **look)
        else:
            axes.plot([], [], label=f"{name}: exactly 0", **look)
    axes.set(
        xlabel="step",
        ylabel="largest difference of two replicas\n(rms, relative to the parameters)",
        yscale="log",
    )
    axes.legend(loc="best", fontsize=11)
    return figure
