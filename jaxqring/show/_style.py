"""The style of all figures: fonts, colours, line styles, and how one is begun and written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxqring import _checks as checks
from jaxqring._extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart, each with a line style of its own.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", "-", "-.", ":", "--")

#: Titles of the splits of training images.
SPLITS = {"iid": "images drawn alike", "sorted": "images sorted by label"}

#: For `matplotlib.rc_context`.
STYLE: dict[str, Any] = {
    "font.size": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 2,
    "legend.fontsize": 11,
    "legend.title_fontsize": 11,
    "svg.hashsalt": "jaxqring",
}


def look(index: int, first: int = 0) -> dict[str, Any]:
    """Colour and line style of one of several curves; colours begin with number `first`."""
    return {
        "color": COLOURS[(index + first) % len(COLOURS)],
        "linestyle": STYLES[index % len(STYLES)],
    }


@contextlib.contextmanager
def page(width: float, height: float) -> Iterator["Figure"]:
    """A figure for a file, and the style of the library while it is drawn.

    Args:
      width: in inches.
      height: in inches.
    """
    with needs("train", "A figure"):
        import matplotlib
        from matplotlib.figure import Figure
    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


@contextlib.contextmanager
def drawing(axes: "Axes | None") -> Iterator["Axes"]:
    """The axes to draw on: those given, or new ones of pyplot in the style of the library.

    Raises:
      TypeError: if `axes` are none of matplotlib.
    """
    with needs("train", "A figure"):
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    if axes is not None:
        checks.instance("ax", axes, Axes)
        yield axes
        return
    with pyplot.rc_context(STYLE):
        yield pyplot.subplots(figsize=(7, 4.4), layout="constrained")[1]


def write_numbers(
    axes: "Axes", values: np.ndarray, form: str = "{:.2f}", middle: float | None = None
) -> None:
    """Writes the numbers of a map of colours into its cells, white where the colours are dark.

    Args:
      axes: with the map.
      values: (rows, columns).
      form: of a number.
      middle: of the colours; that of the finite values by default.
    """
    finite = values[np.isfinite(values)]
    if middle is None:
        middle = (finite.min() + finite.max()) / 2 if finite.size else 0.0
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value <= middle else "black"  # no number is on white
        text = form.format(value)
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)


def save(figure: "Figure", path: Path) -> Path:
    """Writes a figure as PNG, and as SVG beside it; returns the path of the PNG.

    The same figure gives the same bytes: the SVG has no date and no random names.
    """
    figure.savefig(path, dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return path
