"""The style of all figures: fonts, colours, line styles, and how one is written."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart, each with a line style of its own.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", "-", "-.", ":", "--")

#: For `matplotlib.rc_context`.
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


def look(index: int, first: int = 0) -> dict[str, Any]:
    """Colour and line style of one of several curves; colours begin with number `first`."""
    return {
        "color": COLOURS[(index + first) % len(COLOURS)],
        "linestyle": STYLES[index % len(STYLES)],
    }


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure; returns its path."""
    figure.savefig(path, dpi=150)
    return path
