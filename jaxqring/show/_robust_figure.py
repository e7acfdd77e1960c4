"""The figure of a study of liars: accuracy by attack and rule, for every split of the images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring.show._inputs import check_entries
from jaxqring.show._style import SPLITS, drawing, page, save, write_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_robust(folder: Path, summary: dict[str, Any]) -> Path:
    """Draws `robust.png`: the test accuracy by attack and rule, splits side by side.

    Args:
      folder: of the study.
      summary: contents of its `summary.json`.

    Returns:
      The path of the figure.
    """
    job = summary["config"]
    splits, attacks, rules = job["splits"], job["attacks"], job["rules"]
    width = 2.5 + len(splits) * (0.75 * len(attacks) + 0.3)
    with page(width, 1.8 + 0.5 * len(rules)) as figure:
        panels = figure.subplots(1, len(splits), squeeze=False, sharey=True)[0]
        for axes, split in zip(panels, splits, strict=True):
            liars(summary, split, axes)
        picture = panels[-1].images[0]
        seeds = job["seeds"]
        label = "test accuracy" + (f",\nmean over {seeds} seeds" if seeds > 1 else "")
        figure.colorbar(picture, ax=list(panels), label=label)
        return save(figure, folder / "robust.png")


def liars(summary: dict[str, Any], split: str = "iid", ax: "Axes | None" = None) -> "Axes":
    """Draws the test accuracy of trainings among liars, by attack and rule, as colours.

    Args:
      summary: contents of the `summary.json` of a study, as `jaxqring.jobs.run_robust` returns
        them.
      split: of the images.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if there is no result with this split.

    >>> result = {"rule": "median", "split": "iid", "attacks": ["none", "flip"]}
    >>> study = {"config": {}, "results": [{**result, "mean": [0.9, 0.8]}]}
    >>> liars(study).images[0].get_array().shape
    (1, 2)
    """
    check_entries("summary", summary, "config", "results")
    checks.one_of("split", split, tuple({each["split"]: None for each in summary["results"]}))
    found = [each for each in summary["results"] if each["split"] == split]
    mean = np.array([each["mean"] for each in found], float)
    with drawing(ax) as axes:
        axes.imshow(mean, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axes.grid(visible=False)
        attacks = found[0]["attacks"]
        axes.set_xticks(range(len(attacks)), attacks, rotation=45, ha="right")
        axes.set_yticks(range(len(found)), [each["rule"] for each in found])
        axes.set_title(SPLITS.get(split, split), fontsize=12)
        write_numbers(axes, mean, middle=0.5)
    return axes
