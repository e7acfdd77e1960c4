"""`jaxqring sensitivity`: derivatives of a training by the physics of each link."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._fields import LATER, as_written, check_fields, check_file_name, no_other_keys
from jaxqring._types import DerivativeMode, Sampler
from jaxqring.codec import FixedPoint
from jaxqring.gradients._estimators import ESTIMATORS
from jaxqring.jobs._devices import used_devices
from jaxqring.jobs._link_config import PARAMETERS, LinkConfig, check_parameter
from jaxqring.ring import Ring
from jaxqring.sweeps._sensitivity import DIFFERENCE, sensitivity
from jaxqring.sweeps._tidy_table import Table
from jaxqring.train._task import TaskConfig, payload, training

if TYPE_CHECKING:
    from rich.console import Console

#: Outcomes of a training that have a derivative.
SMOOTH = ("loss", "soft_accuracy")


@no_other_keys
@dataclasses.dataclass(frozen=True)
class SensitivityConfig:
    """Derivatives of a training with respect to its links.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      task: the training.
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
      sampler: of the ring: "sparse", "dense", or "auto" by the platform; see `jaxqring.transmit`.

    Raises:
      TypeError: if a parameter of the links is not real.
      ValueError: if one is unknown, out of range, or has neither one value nor N; a count is below
        1; `name` cannot be that of a file; a choice is unknown, or an outcome not one of its
        estimators; or N is too large for the wire.
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
    mode: DerivativeMode = "auto"
    devices: int | None = None
    sampler: Sampler = dataclasses.field(default="auto", metadata=LATER)

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
        FixedPoint(self.bits).level_bits(self.task.nodes)

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    def ring(self, at: dict[str, Any]) -> Ring:
        """The ring with these parameters of its links, () or (N,)."""
        return Ring(LinkConfig().channel(at), FixedPoint(self.bits), sampler=self.sampler)


def run_sensitivity(
    config: SensitivityConfig,
    console: "Console | None" = None,
    *,
    shard: tuple[int, int] = (1, 1),
    merge: bool = False,
) -> Table:
    """Estimates the derivatives, or goes on where an earlier call was cut off.

    Files under `config.folder`: those of `jaxqring.sweeps.sweep`, with an estimate of each
    derivative for every seed.

    Args:
      config: the study.
      console: that shows progress; None for silence.
      shard: (k, n) for the k-th of n shares of the estimates.
      merge: computes nothing, and takes the estimates of all shards from the folder.

    Returns:
      The tidy table of `jaxqring.sweeps.sensitivity`.

    Raises:
      ValueError: if there are fewer devices than `config.devices`, the data cannot be loaded, the
        estimator cannot give the derivative, the folder holds another study, or as
        `jaxqring.sweeps.sweep` for a shard or a merge.
    """
    devices = None if merge else used_devices(config.devices)
    task = config.task
    train = training(task)

    def outcomes(ring: Ring, keys: jax.Array) -> dict[str, jax.Array]:
        found = train(ring, keys)
        return {name: found[name] for name in config.outcomes}

    at = {
        name: jnp.asarray(values[0] if len(values) == 1 else values)
        for name, values in config.links.items()
    }
    fields = as_written(config)
    names = ("task", "links", "bits", "outcomes", "sampler")
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
        devices=devices,
        about={name: fields[name] for name in names if name in fields},
        shard=shard,
        merge=merge,
        console=console,
    )
