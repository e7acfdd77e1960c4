"""`jaxqring compression`: trainings with compressed gradients, over one parameter."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._fields import (
    LATER,
    NOT_NEGATIVE,
    as_written,
    check_fields,
    check_file_name,
    no_other_keys,
)
from jaxqring._files import to_json, write_whole
from jaxqring._types import Key, Noise, OptimizerName, Sampler
from jaxqring.codec import FixedPoint
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compress_config import CompressConfig
from jaxqring.jobs._devices import used_devices
from jaxqring.jobs._link_config import PARAMETERS, LinkConfig, check_parameter
from jaxqring.ring import Ring
from jaxqring.sweeps._sweep import sweep
from jaxqring.train._task import TaskConfig, training

if TYPE_CHECKING:
    from rich.console import Console

#: Points of accuracy whose loss says how much noise a curve bears.
LOST = 0.02
#: Parameters of a link that are better the larger they are.
LARGER_IS_BETTER = ("fidelity", "survival")


@no_other_keys
@dataclasses.dataclass(frozen=True)
class CurveConfig:
    """One method on one kind of links: a curve over the parameter.

    Attributes:
      name: of the curve, and of its folder.
      compress: the method; None for `jaxqring.pmean`.
      label: of the method, with which it has its colour in every panel; `name` by default.
      panels: of the figure that the curve is in.
      protection: of the links; no protection by default.
      protected_calls: collectives of a step that are protected, the first ones; 0 for all.
      optimizer: "adam" or "sgd"; that of the task by default.
      momentum: of "sgd"; that of the task by default.
      learning_rate: that of the task by default.
      values: of the parameter, in place of those of the grid.

    Raises:
      ValueError: if a choice is unknown, `name` cannot be that of a file, there is no panel, or
        calls are to be protected without a protection or without a method.
    """

    name: str = "uncompressed"
    compress: CompressConfig | None = None
    label: str | None = None
    panels: tuple[str, ...] = ("",)
    protection: CodeConfig | None = None
    protected_calls: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)
    optimizer: OptimizerName | None = None
    momentum: float | None = None
    learning_rate: float | None = None
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "curves.")
        check_file_name("curves.name", self.name)
        if not self.panels:
            checks.refuse("curves.panels", "name at least one panel", self.panels)
        if self.protected_calls and (self.protection is None or self.compress is None):
            rule = "be 0 without a protection or a method"
            checks.refuse("curves.protected_calls", rule, self.protected_calls)

    def task(self, task: TaskConfig) -> TaskConfig:
        """The task with what this curve has of its own."""
        names = ("optimizer", "momentum", "learning_rate")
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(task, **own)

    def rings(self, ring: Ring) -> Ring | tuple[Ring, ...]:
        """The rings of the collectives of a step, on these bare links."""
        if self.protection is None:
            return ring
        protected = dataclasses.replace(ring, protection=self.protection.build())
        if not self.protected_calls:
            return protected
        return (*[protected] * self.protected_calls, ring)


@no_other_keys
@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """Several methods of compression over one parameter of the links, or the learning rate.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      task: the training.
      link: every link, apart from what the grid varies.
      bits: of linear levels on the wire.
      noise: of the ring: "sampled", "gaussian", "mean" or "off".
      grid: the values of one parameter, by its name: that of a link, or "learning_rate".
      seeds: trainings at each value, with seeds counted from 0.
      devices: to spread the trainings over; all by default.
      curves: the methods.
      sampler: of the ring: "sparse", "dense", or "auto" by the platform; see `jaxqring.transmit`.

    Raises:
      ValueError: if the grid has another name or more than one, a value is out of range, curves
        are missing or share a name, or a method or the ring refuses what it is to do.
    """

    name: str = "compression"
    out: str = "runs"
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    link: LinkConfig = dataclasses.field(default_factory=LinkConfig)
    bits: int = 16
    noise: Noise = "sampled"
    grid: dict[str, tuple[float, ...]] = dataclasses.field(
        default_factory=lambda: {"fidelity": (0.9, 0.99, 0.999, 1.0)}
    )
    seeds: int = 3
    devices: int | None = None
    curves: tuple[CurveConfig, ...] = (CurveConfig("powersgd", CompressConfig()),)
    sampler: Sampler = dataclasses.field(default="auto", metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        if len(self.grid) != 1:
            checks.refuse("grid", "hold the values of one parameter", self.grid)
        checks.one_of("grid", self.varied, (*PARAMETERS, "learning_rate"))
        for curve in self.curves:
            values = self.values(curve)
            if not values:
                checks.refuse(f"grid.{self.varied}", "hold at least one value", values)
            if self.varied == "learning_rate":
                checks.within("grid.learning_rate", np.array(values), 1e-9, 1e3)
            else:
                check_parameter(f"grid.{self.varied}", self.varied, np.array(values))
            curve.task(self.task)
            wire = FixedPoint(self.bits)
            wire.level_bits(self.task.nodes)
            curve.rings(Ring(wire=wire, noise=self.noise))
        names = [curve.name for curve in self.curves]
        if not names or len(set(names)) < len(names):
            checks.refuse("curves", "hold at least one curve, each with a name of its own", names)

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    @property
    def varied(self) -> str:
        """The name of the parameter."""
        return next(iter(self.grid))

    def values(self, curve: CurveConfig) -> tuple[float, ...]:
        """The values of the parameter along a curve."""
        return curve.values or self.grid[self.varied]

    def train(self, curve: CurveConfig, setting: dict[str, Any], key: Key) -> dict[str, jax.Array]:
        """The outcomes of a training; see `jaxqring.train._task.training`."""
        task = curve.task(self.task)
        link = self.link.channel({name: setting[name] for name in PARAMETERS if name in setting})
        ring = Ring(link, FixedPoint(self.bits), self.noise, sampler=self.sampler)
        compressor = None if curve.compress is None else curve.compress.build()
        keys = jax.random.split(key, task.steps)
        return training(task, compressor)(curve.rings(ring), keys, setting.get("learning_rate"))


class Curve(NamedTuple):
    """The results of a curve.

    Attributes:
      config: of it.
      values: (points,) of the parameter.
      accuracy: (points, seeds) on the test set, mean over the replicas.
    """

    config: CurveConfig
    values: np.ndarray
    accuracy: np.ndarray


def run_compression(
    config: CompressionConfig, console: "Console | None" = None
) -> tuple[Curve, ...]:
    """Trains along every curve, or goes on where an earlier call was cut off.

    Files under `config.folder`: a folder for each curve, as `jaxqring.sweeps.sweep` writes it, and
    `summary.json` at the end.

    Args:
      config: the study.
      console: that shows progress; None for silence.

    Returns:
      The curves with their outcomes, as `summary.json` has them.

    Raises:
      ValueError: if there are fewer devices than `config.devices`, the data cannot be loaded, or
        a folder holds another sweep.
    """
    devices = used_devices(config.devices)
    fields = as_written(config)
    names = ("task", "link", "bits", "noise", "sampler")
    shared = {name: fields[name] for name in names if name in fields}
    curves = []
    for curve in config.curves:

        def train(setting: dict, key: Key, curve: CurveConfig = curve) -> dict[str, jax.Array]:
            return config.train(curve, setting, key)

        if console is not None:
            console.print(curve.name, markup=False, highlight=False)
        own = as_written(curve)
        own = {name: own[name] for name in own if name not in ("label", "panels", "values")}
        values = config.values(curve)
        table = sweep(
            train,
            {config.varied: list(values)},
            config.seeds,
            folder=config.folder / curve.name,
            devices=devices,
            about={**shared, "curve": own},
            console=console,
        )
        accuracy = table["accuracy"].reshape(len(values), config.seeds)
        curves.append(Curve(curve, np.array(values), np.asarray(accuracy, float)))
    found = tuple(curves)
    summary = {"config": fields, "curves": [_summary(config.varied, curve) for curve in found]}
    write_whole(config.folder / "summary.json", (to_json(summary) + "\n").encode())
    return found


def _summary(varied: str, curve: Curve) -> dict[str, Any]:
    value, accuracy = best(curve)
    return {
        "name": curve.config.name,
        "values": curve.values.tolist(),
        "mean": curve.accuracy.mean(axis=1).tolist(),
        "std": curve.accuracy.std(axis=1).tolist(),
        "best_value": value,
        "best_accuracy": accuracy,
        "borne": None if varied == "learning_rate" else borne(varied, curve),
    }


def best(curve: Curve) -> tuple[float, float]:
    """The value with the largest mean accuracy, and that accuracy."""
    mean = curve.accuracy.mean(axis=1)
    at = int(np.argmax(np.nan_to_num(mean, nan=-1.0)))
    return float(curve.values[at]), float(mean[at])


def borne(varied: str, curve: Curve, lost: float = LOST) -> float | None:
    """The value at which a curve has lost some accuracy against its least noisy point.

    Interpolated between neighbours, in the logarithm of the noise where that is positive. None if
    no point has lost as much.
    """
    larger = varied in LARGER_IS_BETTER
    noise = 1 - curve.values if larger else curve.values
    order = np.argsort(noise)
    noise, mean = noise[order], curve.accuracy.mean(axis=1)[order]
    below = np.flatnonzero(~(mean >= mean[0] - lost))  # a mean that is not a number, too
    if not below.size:
        return None
    after = int(below[0])
    ends, heights = noise[after - 1 : after + 1], mean[after - 1 : after + 1]
    part = (heights[0] - (mean[0] - lost)) / (heights[0] - heights[1])
    if ends[0] > 0:
        at = float(np.exp(np.log(ends[0]) + part * np.log(ends[1] / ends[0])))
    else:
        at = float(ends[0] + part * (ends[1] - ends[0]))
    return 1 - at if larger else at
