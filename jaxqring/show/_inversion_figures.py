"""Figures of a study of inversion: the reconstructions, and their similarity over the rank."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxqring.jobs._inversion_job import Attack, InversionConfig, images_of, victims_of
from jaxqring.show._style import STYLE, look, save
from jaxqring.train._datasets import load

#: Images of each adversary that are shown.
MOST_SHOWN = 4
#: The names of low-rank methods by that of the configuration.
LOW_RANK = {"powersgd": "PowerSGD", "lqsgd": "LQ-SGD"}


def draw_inversion(config: InversionConfig, summary: dict[str, Any]) -> list[Path]:
    """Draws the figures of a finished study.

    For each network `reconstructions_<network>.png`, and, if there are methods of several ranks,
    `ssim_rank.png`.

    Args:
      config: of the study.
      summary: contents of its `summary.json`.

    Returns:
      The paths of the figures.
    """
    with matplotlib.rc_context(STYLE):
        paths = [
            save(
                _reconstructions(config, network), config.folder / f"reconstructions_{network}.png"
            )
            for network in config.networks
        ]
        ranks = {entry["rank"] for entry in _low_rank(summary)}
        if len(ranks) > 1:
            paths.append(save(_over_rank(config, summary), config.folder / "ssim_rank.png"))
    return paths


def _reconstructions(config: InversionConfig, network: str) -> Figure:
    """A row for each method, a group of columns for each adversary, the truth on top."""
    truth = np.asarray(victims_of(config, load(config.data))[0])[:MOST_SHOWN, ..., 0]
    shown, height, width = truth.shape
    # Neighbours see what the adaptive adversary sees.
    adversaries = _shown_adversaries(config)
    rows, groups = len(config.compressors) + 1, len(adversaries)
    figure = Figure(figsize=(1.9 + 0.62 * shown * groups, 0.75 + 0.62 * rows), layout="constrained")
    panels = figure.subplots(1, groups, squeeze=False)[0]
    made = {attack: attack.path(config.folder) for attack in config.attacks()}
    labels = ["the images", *(compressor.label() for compressor in config.compressors)]
    for axes, adversary in zip(panels, adversaries, strict=True):
        grid = np.full((rows, shown, height, width), np.nan)
        grid[0] = truth
        for row, compressor in enumerate(config.compressors):
            attack = Attack(network, compressor, adversary)  # type: ignore[arg-type]
            if attack in made:
                grid[row + 1] = images_of(config.folder, attack)[:shown, ..., 0]
        _mosaic(axes, grid)
        axes.set_title(_title(adversary, config), fontsize=12)
        axes.set_yticks(height * (np.arange(rows) + 0.5), labels if axes is panels[0] else [])
    return figure


def _shown_adversaries(config: InversionConfig) -> list[str]:
    """All but the neighbours where there is the adaptive one, who sees the same."""
    twice = "adaptive" in config.adversaries
    return [a for a in config.adversaries if not (twice and a == "neighbours")]


def _title(adversary: str, config: InversionConfig) -> str:
    if adversary == "adaptive" and "neighbours" in config.adversaries:
        return "adaptive, neighbours"
    return adversary


def _mosaic(axes: Axes, grid: np.ndarray) -> None:
    """Images (rows, columns, height, width) edge to edge, with white lines between them."""
    rows, columns, height, width = grid.shape
    picture = grid.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    palette = matplotlib.colormaps["gray"].with_extremes(bad="white")
    axes.imshow(
        picture, cmap=palette, vmin=0, vmax=1, extent=(0, columns * width, rows * height, 0)
    )
    for row in range(1, rows):
        axes.axhline(row * height, color="white", lw=4 if row == 1 else 1.5)
    for column in range(1, columns):
        axes.axvline(column * width, color="white", lw=1.5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def _low_rank(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The attacks on low-rank methods, of LQ-SGD those of its most frequent number of bits."""
    entries = [x for x in summary["attacks"] if x["method"] in LOW_RANK and x["rank"] is not None]
    bits = [x["bits"] for x in entries if x["method"] == "lqsgd"]
    usual = max(bits, key=bits.count, default=None)
    return [x for x in entries if x["method"] != "lqsgd" or x["bits"] == usual]


def _over_rank(config: InversionConfig, summary: dict[str, Any]) -> Figure:
    """A panel for each network, a curve for each adversary, and the plain gradient as a line."""
    entries = _low_rank(summary)
    figure = Figure(figsize=(1.5 + 4.7 * len(config.networks), 4.6), layout="constrained")
    panels = figure.subplots(1, len(config.networks), squeeze=False, sharey=True)[0]
    ranks = sorted({entry["rank"] for entry in entries})
    for axes, network in zip(panels, config.networks, strict=True):
        here = [entry for entry in entries if entry["network"] == network]
        for index, adversary in enumerate(_shown_adversaries(config)):
            for method, name in LOW_RANK.items():
                chosen = [x for x in here if x["adversary"] == adversary and x["method"] == method]
                if chosen:
                    _curve(axes, chosen, f"{_title(adversary, config)}: {name}", index, method)
        for entry in summary["attacks"]:
            if (entry["network"], entry["method"]) == (network, "uncompressed") and (
                entry["adversary"] == "naive"
            ):
                axes.axhline(entry["ssim_mean"], color="0.45", lw=1.5, ls=(0, (1, 1)), label="SGD")
        axes.set(xlabel="rank", xscale="log", ylim=(-0.08, 1.05))
        axes.set_xticks(ranks, [str(rank) for rank in ranks])
        axes.set_xticks([], minor=True)
        axes.set_title(network, fontsize=13)
    panels[0].set_ylabel("structural similarity (SSIM)\nmean over images")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=10)
    return figure


def _curve(axes: Axes, entries: list[dict[str, Any]], label: str, index: int, method: str) -> None:
    """Means with standard errors over images, side by side where points would coincide."""
    entries = sorted(entries, key=lambda entry: entry["rank"])
    aside = 1.03 if method == "lqsgd" else 1 / 1.03
    axes.errorbar(
        [entry["rank"] * aside for entry in entries],
        [entry["ssim_mean"] for entry in entries],
        [entry["ssim_std"] / len(entry["ssim"]) ** 0.5 for entry in entries],
        marker="o" if method == "powersgd" else "s",
        markerfacecolor="white" if method == "lqsgd" else None,
        markersize=7,
        capsize=3,
        elinewidth=1.3,
        label=label,
        **(look(index, 1) | {"linestyle": "-" if method == "powersgd" else ":"}),
    )
