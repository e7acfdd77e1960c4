"""Figures of sweeps: an outcome over each parameter, and over two at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxqring import _checks as checks
from jaxqring.show._inputs import check_entries
from jaxqring.show._style import drawing, look, page, save, write_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Curves in one figure, and cells of a heat map whose numbers can be read.
MOST_CURVES, MOST_NUMBERS = 6, 60

_LABELS = {
    "fidelity": "infidelity of the pairs, 1 - F (Werner)",
    "error_prob": "Pauli error on the way (probability)",
    "dephasing": "phase flip of the stored half (probability)",
    "gamma": "decay of the sent half (probability)",
    "gate_error": "white noise in the Bell measurement (weight)",
    "readout_error": "readout error of a bit (probability)",
    "survival": "pairs that arrive (probability)",
    "learning_rate": "learning rate, at the first step",
    "bits": "width of a value on the wire (bits)",
    "nodes": "nodes of the ring",
}


class _Axis(NamedTuple):
    """A parameter as it is drawn: at `positions`, one for each value."""

    name: str
    values: list[float]
    positions: list[float]
    label: str

    def style(self) -> dict[str, Any]:
        """Logarithmic where positions span a decade and a half, with a position for zero."""
        positive = [position for position in self.positions if position > 0]
        if min(self.positions) < 0 or not positive or max(positive) < 30 * min(positive):
            return {}
        if min(self.positions) > 0:
            return {"value": "log"}
        return {"value": "symlog", "linthresh": min(positive)}

    def short(self) -> str:
        """The name of the parameter beside one of its positions."""
        return "1 - F" if self.name == "fidelity" else self.name.replace("_", " ")


def draw_sweep(folder: Path, table: dict[str, np.ndarray], outcome: str = "accuracy") -> list[Path]:
    """Draws an outcome over every parameter of a sweep that varies.

    For each, `<outcome>_<name>.png`: the mean over the seeds and one standard deviation either
    side, a curve for each setting of the others, or for six of them, spread evenly. If exactly two
    vary, also `<outcome>_<name>_<name>.png`, a heat map of the mean.

    Args:
      folder: for the figures.
      table: of `jaxqring.sweeps.sweep`, with parameters that are numbers.
      outcome: name of its column.

    Returns:
      The paths of the figures.
    """
    varying = _varying(table)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for parameter in varying:
        with page(10 if len(varying) > 1 else 8, 4.8) as figure:
            sweep(table, parameter, outcome, figure.subplots())
            paths.append(save(figure, folder / f"{outcome}_{parameter}.png"))
    if len(varying) == 2:
        with page(8, 5.2) as figure:
            heat_map(table, varying[0], varying[1], outcome, figure.subplots())
            paths.append(save(figure, folder / f"{'_'.join([outcome, *varying])}.png"))
    return paths


def sweep(
    table: dict[str, np.ndarray],
    parameter: str,
    outcome: str = "accuracy",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws an outcome of a sweep over a parameter: the mean over the seeds in a band.

    The band is one standard deviation either side. There is a curve for each setting of the other
    parameters that vary, or for six of them, spread evenly.

    Args:
      table: of `jaxqring.sweep`, with parameters that are numbers.
      parameter: name of a column.
      outcome: name of a column.
      ax: axes of matplotlib to draw on; new ones by default.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if a column or all rows are missing, or a parameter is no number.

    >>> table = {"fidelity": np.array([0.9, 0.9, 0.99, 0.99]), "seed": np.array([0, 1, 0, 1])}
    >>> table["accuracy"] = np.array([0.5, 0.6, 0.9, 0.91])
    >>> sweep(table, "fidelity").get_xlabel()
    'infidelity of the pairs, 1 - F (Werner)'
    """
    _check_columns(table, parameter, outcome)
    x = _axis(parameter, table[parameter])
    others = [_axis(name, table[name]) for name in _varying(table) if name != parameter]
    with drawing(ax) as axes:
        for index, setting in enumerate(_spread_out(_settings(table, others))):
            at = dict(zip([axis.name for axis in others], setting, strict=True))
            positions, mean, std = _over_seeds(table, x, at, outcome)
            label = ", ".join(_at(axis, value) for axis, value in zip(others, setting, strict=True))
            points: dict[str, Any] = {
                "marker": "o",
                "markersize": 4 if len(positions) < 30 else 2,
                "label": label,
            }
            # Blue first: it can be seen on its band, as black cannot.
            (line,) = axes.plot(positions, mean, **points, **look(index, first=1))
            band: dict[str, Any] = {"alpha": 0.2, "lw": 0, "color": line.get_color()}
            axes.fill_between(positions, mean - std, mean + std, **band)
        _scale(axes, x, outcome)
        seeds = len(np.unique(table["seed"]))
        title = f"mean and standard\ndeviation over {seeds} seeds" if seeds > 1 else "one seed"
        if others:  # beside the axes, where it hides no curve
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=title, handlelength=3)
        else:
            axes.set_title(title.replace("\n", " "), fontsize=11)
    return axes


def heat_map(
    table: dict[str, np.ndarray],
    x: str,
    y: str,
    outcome: str = "accuracy",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws the mean of an outcome over two parameters of a sweep, as colours.

    Args:
      table: of `jaxqring.sweep`, with parameters that are numbers.
      x: name of the column along the horizontal axis.
      y: name of the column along the vertical axis.
      outcome: name of a column.
      ax: axes of matplotlib to draw on; new ones by default. A bar of colours is put beside them.

    Returns:
      The axes.

    Raises:
      ImportError: without matplotlib, of the extra `train`.
      ValueError: if a column or all rows are missing, or a parameter is no number.

    >>> table = {"bits": np.array([8, 8, 16, 16]), "nodes": np.array([2, 4, 2, 4])}
    >>> table |= {"seed": np.zeros(4), "accuracy": np.array([0.5, 0.4, 0.9, 0.8])}
    >>> heat_map(table, "bits", "nodes").images[0].get_array().shape
    (2, 2)
    """
    _check_columns(table, x, y, outcome)
    across, up = _axis(x, table[x]), _axis(y, table[y])
    with drawing(ax) as axes:
        mean = np.full((len(up.values), len(across.values)), np.nan)
        for row, v in enumerate(up.values):
            for column, u in enumerate(across.values):
                cell = table[outcome][_rows(table, **{x: u, y: v})]
                if cell.size:
                    mean[row, column] = cell.mean(dtype=float)
        # A colour map for all kinds of colour vision, even in lightness.
        picture = axes.imshow(mean, cmap="cividis", origin="lower", aspect="auto")
        axes.grid(visible=False)
        for axis, set_ticks in ((across, axes.set_xticks), (up, axes.set_yticks)):
            # Every value where its number fits, else about six of them.
            spacing = 1 if len(axis.values) <= 8 else -(-len(axis.values) // 6)
            ticks = range(0, len(axis.values), spacing)
            set_ticks(ticks, [f"{axis.positions[tick]:.2g}" for tick in ticks])
        axes.set(xlabel=across.label, ylabel=up.label)
        if mean.size <= MOST_NUMBERS:
            write_numbers(axes, mean)
        seeds = len(np.unique(table["seed"]))
        label = _outcome(outcome) + (f", mean over {seeds} seeds" if seeds > 1 else "")
        axes.figure.colorbar(picture, ax=axes, label=label)
    return axes


def _check_columns(table: dict[str, np.ndarray], *names: str) -> None:
    check_entries("table", table, "seed", *names)
    if not len(table["seed"]):
        checks.refuse("table", "have a row", table)


def _varying(table: dict[str, np.ndarray]) -> list[str]:
    """The parameters of a sweep that have more than one value."""
    names = list(table)[: list(table).index("seed")]
    return [name for name in names if len(np.unique(table[name])) > 1]


def _axis(name: str, column: np.ndarray) -> _Axis:
    if column.dtype.kind not in "biufV":  # the last one is bfloat16
        checks.refuse("table", "have parameters that are numbers", f"{name} = {column[0]}")
    values = np.unique(column.astype(float))
    # Rounded, for the digits that the subtraction adds.
    positions = np.round(1 - values, 12) if name == "fidelity" else values
    label = _LABELS.get(name, name.replace("_", " "))
    return _Axis(name, values.tolist(), positions.tolist(), label)


def _outcome(name: str) -> str:
    unit = {"accuracy": "test accuracy", "loss": "test loss (nats)"}
    return unit.get(name, name.replace("_", " "))


def _rows(table: dict[str, np.ndarray], **at: float) -> np.ndarray:
    """Mask (points,) of those that have these values."""
    alike = [table[name].astype(float) == value for name, value in at.items()]
    return np.all(alike, axis=0)


def _over_seeds(
    table: dict[str, np.ndarray], x: _Axis, at: dict[str, float], outcome: str
) -> tuple[list[float], np.ndarray, np.ndarray]:
    """Positions along x with mean and standard deviation, where the others are `at` a setting."""
    found = [
        (position, table[outcome][_rows(table, **{**at, x.name: value})].astype(float))
        for value, position in zip(x.values, x.positions, strict=True)
    ]
    found = [(position, values) for position, values in found if values.size]  # a grid with holes
    # A run that diverged has no mean, and leaves a hole in the curve.
    with np.errstate(invalid="ignore"):
        mean = np.array([values.mean() for _, values in found])
        std = np.array([values.std() for _, values in found])
    return [position for position, _ in found], mean, std


def _at(axis: _Axis, value: float) -> str:
    return f"{axis.short()} = {axis.positions[axis.values.index(value)]:.3g}"


def _settings(table: dict[str, np.ndarray], axes: list[_Axis]) -> list[tuple[float, ...]]:
    """The distinct settings of these parameters."""
    columns = [table[axis.name].astype(float).tolist() for axis in axes]
    return sorted(set(zip(*columns, strict=True))) if axes else [()]


def _spread_out(settings: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    count = min(len(settings), MOST_CURVES)
    return [settings[i] for i in np.linspace(0, len(settings) - 1, count).round().astype(int)]


def _scale(axes: "Axes", x: _Axis, outcome: str) -> None:
    if style := x.style():
        axes.set_xscale(**style)
    axes.set(xlabel=x.label, ylabel=_outcome(outcome))
    if x.name == "fidelity":  # better pairs to the right
        axes.invert_xaxis()
