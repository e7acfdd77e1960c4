"""`jaxqring sweep`: the outcomes of a training, over the parameters of the links."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxqring import _checks as checks
from jaxqring._fields import LATER, as_written, check_fields, check_file_name, no_other_keys
from jaxqring._types import Key, Noise, Sampler, Simulate
from jaxqring.codec import FixedPoint
from jaxqring.codes._protection import Protection
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._devices import used_devices
from jaxqring.jobs._link_config import PARAMETERS, LinkConfig, check_parameter
from jaxqring.ring import Ring
from jaxqring.sweeps._sweep import sweep
from jaxqring.sweeps._tidy_table import Table
from jaxqring.train._task import TaskConfig, training

if TYPE_CHECKING:
    from rich.console import Console

#: Parameters that shape the computation, and take a compilation for each value.
STATIC = ("bits", "nodes")
NAMES = (*PARAMETERS, "learning_rate", *STATIC)


@no_other_keys
@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A sweep: one task, trained again and again, on rings whose links differ.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      task: the training.
      link: every link, apart from what the grid varies.
      bits: of each value on the wire.
      noise: of the ring: "sampled", "gaussian", "mean" or "off".
      grid: values by name, for all their combinations. Names are those of the link,
        "learning_rate", and, compiled anew for each value, "bits" and "nodes".
      seeds: trainings at each setting, with seeds counted from 0.
      devices: to spread the trainings over; all by default.
      protection: of the links; no protection by default.
      simulate: of protected links: "attempts" or "symbol"; the distribution is the same.
      sampler: of the ring: "sparse", "dense", or "auto" by the platform; see `jaxqring.transmit`.
    """

    name: str = "sweep"
    out: str = "runs"
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    link: LinkConfig = dataclasses.field(default_factory=LinkConfig)
    bits: int = 16
    noise: Noise = "sampled"
    grid: dict[str, tuple[float, ...]] = dataclasses.field(
        default_factory=lambda: {"fidelity": (0.9, 0.99, 0.999)}
    )
    seeds: int = 4
    devices: int | None = None
    protection: CodeConfig | None = dataclasses.field(default=None, metadata=LATER)
    simulate: Simulate = dataclasses.field(default="attempts", metadata=LATER)
    sampler: Sampler = dataclasses.field(default="auto", metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        for name, values in self.grid.items():
            _check_values(name, values)
        for bits in self.grid.get("bits", (self.bits,)):
            for nodes in self.grid.get("nodes", (self.task.nodes,)):
                wire = FixedPoint(int(bits))
                wire.level_bits(int(nodes))
                Ring(wire=wire, noise=self.noise, protection=self._protection())

    def _protection(self) -> Protection | None:
        return None if self.protection is None else self.protection.build()

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    def train(self, setting: dict[str, Any], key: Key) -> dict[str, jax.Array]:
        """The outcomes of the training at a setting; see `jaxqring.train._task.training`."""
        task = dataclasses.replace(self.task, nodes=setting.get("nodes", self.task.nodes))
        link = self.link.channel({name: setting[name] for name in PARAMETERS if name in setting})
        ring = Ring(
            link,
            FixedPoint(setting.get("bits", self.bits)),
            self.noise,
            self._protection(),
            simulate=self.simulate,
            sampler=self.sampler,
        )
        keys = jax.random.split(key, task.steps)
        return training(task)(ring, keys, setting.get("learning_rate"))


def _check_values(name: str, values: Any) -> None:
    """Refuses values that a parameter cannot have, without touching a device."""
    checks.one_of("grid", name, NAMES)
    if not values:
        checks.refuse(f"grid.{name}", "hold at least one value", values)
    if name in PARAMETERS:
        check_parameter(f"grid.{name}", name, values)
    elif name == "learning_rate":
        checks.within("grid.learning_rate", values, 1e-9, 1e3)
    elif any(value != int(value) or value < 1 for value in values):
        checks.refuse(f"grid.{name}", "hold positive whole numbers", values)


def run_sweep(
    config: SweepConfig,
    console: "Console | None" = None,
    *,
    shard: tuple[int, int] = (1, 1),
    merge: bool = False,
) -> Table:
    """Trains at every setting and with every seed, or goes on where an earlier call was cut off.

    Files under `config.folder`: `sweep.json`, `points.jsonl`, which grows as trainings finish,
    and `results.csv` at the end; see `jaxqring.sweeps.sweep`.

    Args:
      config: the sweep.
      console: that shows progress; None for silence.
      shard: (k, n) for the k-th of n shares of the trainings.
      merge: trains nothing, and takes the outcomes of all shards from the folder.

    Returns:
      The tidy table of `jaxqring.sweeps.sweep`.

    Raises:
      ValueError: if there are fewer devices than `config.devices`, the data cannot be loaded,
        the folder holds another sweep, or as `jaxqring.sweeps.sweep` for a shard or a merge.
    """
    devices = None if merge else used_devices(config.devices)
    grid = {
        name: [int(value) for value in values] if name in STATIC else list(values)
        for name, values in config.grid.items()
    }
    # Everything that a result depends on but the grid, whose parameters stand there already.
    fields = as_written(config)
    names = ("task", "link", "bits", "noise", "protection", "simulate", "sampler")
    return sweep(
        config.train,
        grid,
        config.seeds,
        static=[name for name in STATIC if name in grid],
        folder=config.folder,
        devices=devices,
        about={name: fields[name] for name in names if name in fields},
        shard=shard,
        merge=merge,
        console=console,
    )
