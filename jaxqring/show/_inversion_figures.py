"""Figures of a study of inversion: the reconstructions, and their similarity over the rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring.jobs._inversion_job import Attack, InversionConfig, images_of, victims_of
from jaxqring.show._inputs import check_entries
from jaxqring.show._style import drawing, look, page, save
from jaxqring.train._datasets import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    paths = [_reconstructions(config, network) for network in config.networks]
    ranks = {entry["rank"] for entry in _low_rank(summary)}
    if len(ranks) > 1:
        paths.append(_over_rank(config, summary))
    return paths


def _reconstructions(config: InversionConfig, network: str) -> Path:
    """A row for each method, a group of columns for each adversary, the truth on top."""
    truth = np.asarray(victims_of(config, load(config.data))[0])[:MOST_SHOWN, ..., 0]
    shown, height, width = truth.shape
    # Neighbours see what the adaptive adversary sees.
    adversaries = _shown_adversaries(config.adversaries)
    rows, groups = len(config.compressors) + 1, len(adversaries)
    made = {attack: attack.path(config.folder) for attack in config.attacks()}
    labels = ["the images", *(compressor.label() for compressor in config.compressors)]
    with page(1.9 + 0.62 * shown * groups, 0.75 + 0.62 * rows) as figure:
        panels = figure.subplots(1, groups, squeeze=False)[0]
        for axes, adversary in zip(panels, adversaries, strict=True):
            grid = np.full((rows, shown, height, width), np.nan)
            grid[0] = truth
            for row, compressor in enumerate(config.compressors):
                attack = Attack(network, compressor, adversary)  # type: ignore[arg-type]
                if attack in made:
                    grid[row + 1] = images_of(config.folder, attack)[:shown, ..., 0]
            _mosaic(axes, grid)
            axes.set_title(_title(adversary, config.adversaries), fontsize=12)
            axes.set_yticks(height * (np.arange(rows) + 0.5), labels if axes is panels[0] else [])
        return save(figure, config.folder / f"reconstructions_{network}.png")


def _shown_adversaries(adversaries: Sequence[str]) -> list[str]:
    """All but the neighbours where there is the adaptive one, who sees the same."""
    twice = "adaptive" in adversaries
    return [a for a in adversaries if not (twice and a == "neighbours")]


def _title(adversary: str, adversaries: Sequence[str]) -> str:
    if adversary == "adaptive" and "neighbours" in adversaries:
        return "adaptive, neighbours"
    return adversary


def _mosaic(axes: "Axes", grid: np.ndarray) -> None:
    """Images (rows, columns, height, width) edge to edge, with white lines between them."""
    import matplotlib

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


def _over_rank(config: InversionConfig, summary: dict[str, Any]) -> Path:
    """A panel for each network, a curve for each adversary, and the plain gradient as a line."""
    with page(1.5 + 4.7 * len(config.networks), 4.6) as figure:
        panels = figure.subplots(1, len(config.networks), squeeze=False, sharey=True)[0]
        for axes, network in zip(panels, config.networks, strict=True):
            similarity(summary, network, axes)
            axes.get_legend().remove()
        for axes in panels[1:]:
            axes.set_ylabel("")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
        return save(figure, config.folder / "ssim_rank.png")


def similarity(summary: dict[str, Any], network: str, ax: "Axes | None" = None) -> "Axes":
    """Draws how similar reconstructions are to the images, over the rank of low-rank compressors.

    Args:
      summary: contents of `summary.json`, as `jaxqring.jobs.run_inversion` returns them.
      network: whose gradients were attacked.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes, with a curve for each adversary: means over images and their standard errors.

    Raises:
      ImportError: without matplotlib, of the extra `train`.

    >>> attack = {"network": "mlp", "method": "powersgd", "adversary": "naive", "bits": None}
    >>> found = {"ssim": [0.4, 0.6], "ssim_mean": 0.5, "ssim_std": 0.1}
    >>> attacks = [{**attack, "rank": rank, **found} for rank in (1, 2)]
    >>> ax = similarity({"config": {"adversaries": ["naive"]}, "attacks": attacks}, "mlp")
    >>> ax.get_legend_handles_labels()[1]
    ['naive: PowerSGD']
    """
    check_entries("summary", summary, "config", "attacks")
    checks.one_of("network", network, tuple({x["network"]: 0 for x in summary["attacks"]}))
    entries = [entry for entry in _low_rank(summary) if entry["network"] == network]
    ranks = sorted({entry["rank"] for entry in _low_rank(summary)})
    adversaries = summary["config"]["adversaries"]
    with drawing(ax) as axes:
        for index, adversary in enumerate(_shown_adversaries(adversaries)):
            for method, name in LOW_RANK.items():
                kind = (adversary, method)
                chosen = [x for x in entries if (x["adversary"], x["method"]) == kind]
                if chosen:
                    _curve(axes, chosen, f"{_title(adversary, adversaries)}: {name}", index, method)
        for entry in summary["attacks"]:
            if (entry["network"], entry["method"]) == (network, "uncompressed") and (
                entry["adversary"] == "naive"
            ):
                axes.axhline(entry["ssim_mean"], color="0.45", lw=1.5, ls=(0, (1, 1)), label="SGD")
        axes.set(xlabel="rank", xscale="log", ylim=(-0.08, 1.05))
        axes.set_xticks(ranks, [str(rank) for rank in ranks])
        axes.set_xticks([], minor=True)
        axes.set_ylabel("structural similarity (SSIM)\nmean over images")
        axes.set_title(network, fontsize=13)
        axes.legend(loc="best")
    return axes


def _curve(
    axes: "Axes", entries: list[dict[str, Any]], label: str, index: int, method: str
) -> None:
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
