"""`jaxqring sensitivity`: what the physics of each link does to a training."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pydantic
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxqring import checks
from jaxqring.link import FixedPoint
from jaxqring.ring import Ring
from jaxqring.ring.estimators import ESTIMATORS
from jaxqring.study.links import PARAMETERS, LinkConfig, check_parameter
from jaxqring.study.sensitivities import DIFFERENCE, sensitivity
from jaxqring.study.training import TaskConfig, payload, training
from jaxqring.train.fields import check_fields, check_file_name
from jaxqring.train.figures import COLOURS, STYLE, save

#: Outcomes of a training that have a derivative.
SMOOTH = ("loss", "soft_accuracy")


@pydantic.with_config(extra="forbid")
@dataclasses.dataclass(frozen=True)
class SensitivityConfig:
    """Derivatives of a training with respect to its links.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      task: what is trained.
      links: parameters of the links by name, one value for all or one for each; the others are
        those of a perfect link. The derivative is taken with respect to each of these values.
      bits: of each value on the wire.
      seeds: trainings for the error bars, with seeds counted from 0.
      estimators: "mean", "gaussian", "exact", "score", "russo" and "difference"; see
        `jaxqring.expected`.
      outcomes: "loss" and "soft_accuracy"; for estimators that need no derivative of the training
        also "accuracy".
      mode: "auto", "forward" or "reverse".
      devices: to spread the seeds over; all by default.
    """

    name: str = "sensitivity"
    out: str = "runs"
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    links: dict[str, tuple[float, ...]] = dataclasses.field(
        default_factory=lambda: {"fidelity": (0.998,)}
    )
    bits: int = 16
    seeds: int = 16
    estimators: tuple[str, ...] = ("gaussian", DIFFERENCE)
    outcomes: tuple[str, ...] = SMOOTH
    mode: Literal["auto", "forward", "reverse"] = "auto"
    devices: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        if not self.links:
            checks.refuse("links", "hold at least one parameter", self.links)
        for name, values in self.links.items():
            checks.one_of("links", name, PARAMETERS)
            check_parameter(f"links.{name}", name, np.asarray(values))
            if len(values) not in (1, self.task.nodes):
                rule = f"hold one value, or one for each of the {self.task.nodes} links"
                checks.refuse(f"links.{name}", rule, values)
        for estimator in self.estimators:
            checks.one_of("estimators", estimator, (*ESTIMATORS, DIFFERENCE))
        runs_only = set(self.estimators) <= {"score", "russo", DIFFERENCE}
        allowed = (*SMOOTH, "accuracy") if runs_only else SMOOTH
        for outcome in self.outcomes:
            checks.one_of("outcomes", outcome, allowed)
        FixedPoint(self.bits).code_bits(self.task.nodes)

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    def ring(self, at: dict[str, Any]) -> Ring:
        """The ring with these parameters of its links, () or (N,)."""
        return Ring(LinkConfig().channel(at), FixedPoint(self.bits))


def run_sensitivity(
    config: SensitivityConfig, console: Console | None = None
) -> dict[str, np.ndarray]:
    """Estimates the derivatives, or goes on where an earlier call was cut off.

    Files under `config.folder`: those of `jaxqring.study.sweep`, with an estimate of each
    derivative for every seed.

    Args:
      config: what to train and to differentiate.
      console: where to show progress; None for silence.

    Returns:
      The tidy table of `jaxqring.study.sensitivity`.

    Raises:
      ValueError: if there are fewer devices than `config.devices`, the data cannot be loaded, the
        estimator cannot give the derivative, or the folder holds another study.
    """
    devices = jax.local_devices()
    if config.devices is not None and config.devices > len(devices):
        checks.refuse("devices", f"be at most the {len(devices)} there are", config.devices)
    task = config.task
    train = training(task)

    def outcomes(ring: Ring, keys: jax.Array) -> dict[str, jax.Array]:
        found = train(ring, keys)
        return {name: found[name] for name in config.outcomes}

    at = {
        name: jnp.asarray(values[0] if len(values) == 1 else values)
        for name, values in config.links.items()
    }
    fields = dataclasses.asdict(config)
    return sensitivity(
        outcomes,
        config.ring,
        at,
        seeds=config.seeds,
        calls=task.steps,
        estimators=config.estimators,
        cost=config.ring(at).cost(payload(task), task.nodes),
        mode=config.mode,
        folder=config.folder,
        devices=devices[: config.devices],
        about={name: fields[name] for name in ("task", "links", "bits", "outcomes")},
        console=console,
    )


def sensitivity_table(table: dict[str, np.ndarray], title: str) -> Table:
    """A row for each parameter of each link, a column for each estimator."""
    estimators = list(dict.fromkeys(table["estimator"].tolist()))
    shown = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("outcome", "parameter", "link", "value"):
        shown.add_column(name, no_wrap=True)
    for name in estimators:
        shown.add_column(f"{name}\nderivative", justify="right", no_wrap=True)
    first = table["estimator"] == estimators[0]
    for row in np.flatnonzero(first):
        cells = [str(table["outcome"][row]), str(table["parameter"][row])]
        cells.append("all" if table["link"][row] < 0 else str(table["link"][row]))
        cells.append(f"{table['value'][row]:g}")
        same = np.logical_and.reduce(
            [table[name] == table[name][row] for name in ("outcome", "parameter", "link")]
        )
        for mine in np.flatnonzero(same):
            cells.append(f"{table['derivative'][mine]:.3g} ± {table['standard_error'][mine]:.2g}")
        shown.add_row(*cells)
    return shown


def draw_sensitivity(folder: Path, table: dict[str, np.ndarray], outcome: str) -> Path:
    """Draws `<outcome>.png`: bars with intervals, a panel for each parameter.

    Args:
      folder: where to.
      table: of `jaxqring.study.sensitivity`.
      outcome: which to draw.

    Returns:
      The path of the figure.
    """
    names = list(dict.fromkeys(table["parameter"].tolist()))
    ratios = [2.5 + len(np.unique(table["link"][table["parameter"] == name])) for name in names]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 + 0.75 * sum(ratios), 4.6), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False, width_ratios=ratios)[0]
        for axes, name in zip(panels, names, strict=True):
            mine = (table["parameter"] == name) & (table["outcome"] == outcome)
            _bars(axes, {column: values[mine] for column, values in table.items()})
            axes.set_title(name.replace("_", " "), fontsize=13)
        unit = " (nats per unit)" if outcome == "loss" else " (per unit)"
        panels[0].set_ylabel(f"d {outcome.replace('_', ' ')} / d parameter{unit}")
        panels[0].legend(fontsize=11, loc="best", title="95% intervals", title_fontsize=11)
        return save(figure, folder / f"{outcome}.png")


def _bars(axes: Axes, rows: dict[str, np.ndarray]) -> None:
    """The derivatives of one outcome with respect to one parameter, link by link."""
    estimators = list(dict.fromkeys(rows["estimator"].tolist()))
    width = 0.8 / len(estimators)
    for place, estimator in enumerate(estimators):
        own = rows["estimator"] == estimator
        offset = width * (place - (len(estimators) - 1) / 2)
        centre = np.arange(np.count_nonzero(own)) + offset
        is_difference = estimator == DIFFERENCE
        axes.bar(
            centre,
            rows["derivative"][own],
            width * 0.92,
            yerr=(rows["high"] - rows["derivative"])[own],
            color="white" if is_difference else COLOURS[1 + place % 5],
            edgecolor="0.25",
            hatch="///" if is_difference else None,
            error_kw={"capsize": 3, "lw": 1.3, "ecolor": "black"},
            label="finite difference" if is_difference else estimator,
        )
    first = rows["estimator"] == estimators[0]
    links, values = rows["link"][first], rows["value"][first]
    labels = [
        f"{value:g}" if link < 0 else f"{link}\n{value:g}"
        for link, value in zip(links, values, strict=True)
    ]
    axes.set_xticks(range(len(labels)), labels, fontsize=10)
    axes.set_xlabel("link, and the value there" if links.max() >= 0 else "value on all links")
    axes.axhline(0, color="0.25", lw=1)
    axes.grid(visible=False, axis="x")
