"""`jaxqring outer`: trainings with outer loops, and the seconds of their rounds on memories."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._fields import as_written, check_fields, check_file_name, no_other_keys
from jaxqring._files import to_json, write_whole
from jaxqring._types import Key, Split
from jaxqring.codec import FixedPoint
from jaxqring.jobs._devices import used_devices
from jaxqring.jobs._loop_config import PAIRS
from jaxqring.jobs._outer_config import MemoriesConfig, OuterLoopConfig
from jaxqring.jobs._outer_training import (
    OuterTraining,
    asynchronous_training,
    initial_shapes,
    loop_training,
)
from jaxqring.outer import Arrivals, RoundTime, Server, arrival_bits, arrivals, delayed_nesterov
from jaxqring.ring import Ring
from jaxqring.sweeps._sweep import sweep
from jaxqring.sweeps._tidy_table import Table
from jaxqring.train._task import TaskConfig

if TYPE_CHECKING:
    from rich.console import Console


@no_other_keys
@dataclasses.dataclass(frozen=True)
class OuterConfig:
    """Several outer loops over H, on images that nodes draw alike and on sorted ones.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      task: the training; its learning rate is that of inner steps, and constant.
      bits: of a value on the wire of the rings, which are without noise.
      every: H, inner steps of a round; each divides the steps of the task.
      splits: of the images over the nodes, see `TaskConfig.split`.
      seeds: trainings at each point, with seeds counted from 0.
      devices: to spread the trainings over; all by default.
      loops: to compare.
      shown: name of the loop in the figure over H and coherence time.
      shown_split: of the images in that figure.
      memories: of the links, for seconds.

    Raises:
      ValueError: if a value is out of range, loops are missing or share a name, H does not divide
        the steps, pairs are to be made of an odd number of nodes, the task has a split of its own,
        or what is shown is not in the study.
    """

    name: str = "outer"
    out: str = "runs"
    task: TaskConfig = dataclasses.field(default_factory=lambda: TaskConfig(learning_rate=2e-3))
    bits: int = 16
    every: tuple[int, ...] = (10, 50)
    splits: tuple[Split, ...] = ("iid", "sorted")
    seeds: int = 3
    devices: int | None = None
    loops: tuple[OuterLoopConfig, ...] = (
        OuterLoopConfig("every step", "every_step"),
        OuterLoopConfig("DiLoCo", "diloco"),
    )
    shown: str = "DiLoCo"
    shown_split: Split = "iid"
    memories: MemoriesConfig = dataclasses.field(default_factory=MemoriesConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        checks.integer("task.nodes", self.task.nodes, 2)
        FixedPoint(self.bits).level_bits(self.task.nodes)
        if self.task.split != "iid":
            checks.refuse("task.split", "be left to `splits`", self.task.split)
        for split in self.splits:
            checks.one_of("splits", split, get_args(Split))
        if not self.splits or len(set(self.splits)) < len(self.splits):
            checks.refuse("splits", "hold at least one split, and each once", self.splits)
        names = [loop.name for loop in self.loops]
        if not names or len(set(names)) < len(names):
            checks.refuse("loops", "hold at least one loop, each with a name of its own", names)
        checks.one_of("shown", self.shown, tuple(names))
        checks.one_of("shown_split", self.shown_split, self.splits)
        for loop in self.loops:
            if loop.method in PAIRS and self.task.nodes % 2:
                checks.refuse("task.nodes", "be even for pairs", self.task.nodes)
            for steps in self.steps_of(loop):
                checks.integer("every", steps)
                if self.task.steps % steps:
                    checks.refuse("every", f"divide `task.steps` = {self.task.steps}", steps)
            if not self.steps_of(loop):
                checks.refuse("every", "hold at least one number of steps", self.every)

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    @property
    def ring(self) -> Ring:
        return Ring(wire=FixedPoint(self.bits), noise="off")

    def steps_of(self, loop: OuterLoopConfig) -> tuple[int, ...]:
        """The H of a loop."""
        return (1,) if loop.method == "every_step" else loop.every or self.every

    def arrivals(self, loop: OuterLoopConfig, every: int) -> Arrivals:
        """The arrivals at a server, of as many inner steps as others make."""
        nodes, slowest = self.task.nodes, 1.0 if loop.slowest is None else loop.slowest
        speeds = np.linspace(1.0, slowest, nodes).round(6).tolist()
        most = nodes * self.task.steps  # each arrival has at least one step
        listed = arrivals(speeds, every, most, dylu_steps=True)
        count = int(np.searchsorted(np.cumsum(listed.steps), most) + 1)
        return arrivals(speeds, every, min(count, most), dylu_steps=True)

    def training(self, loop: OuterLoopConfig, every: int, size: int) -> OuterTraining:
        """The training of a loop; see `jaxqring.jobs._outer_training`.

        Args:
          loop: one of the study.
          every: H.
          size: parameters of the model.
        """
        if loop.method != "asynchronous":
            return loop_training(
                self.task, self.loop_of(loop, every), loop.bits(size, self.task.nodes, self.bits)
            )
        events = self.arrivals(loop, every)
        total = arrival_bits(size, num_nodes=self.task.nodes, node=events.node, bits=self.bits)
        per_link = float(total.sum()) / self.task.nodes
        return asynchronous_training(
            self.task, loop.inner(self.task).optimizer, self.server(loop), events, per_link
        )

    def server(self, loop: OuterLoopConfig) -> Server:
        """The server of an asynchronous loop, with a window of one arrival of each node."""
        names = {"outer_rate": "learning_rate", "momentum": "momentum", "activation": "activation"}
        given = {names[name]: value for name, value in loop.given().items() if name in names}
        return delayed_nesterov(every=self.task.nodes, **given)

    def loop_of(self, loop: OuterLoopConfig, every: int) -> Callable[[Key], Any]:
        """A loop by its key."""
        return lambda key: loop.loop(self.task, self.ring, every, key)


def run_outer(config: OuterConfig, console: "Console | None" = None) -> dict[str, Any]:
    """Trains with every loop, or goes on where an earlier call was cut off.

    Files under `config.folder`: a folder for each loop, as `jaxqring.sweeps.sweep` writes it, and
    `summary.json` at the end.

    Args:
      config: the study.
      console: that shows progress; None for silence.

    Returns:
      The contents of `summary.json`: for each loop its points, one for each H and split, and for
      the loop that is shown the score, accuracy times inner steps a second, over H and coherence
      time. Seconds are those of `jaxqring.outer.round_time` on the links of the study; a round
      whose bits are not those of an all-reduce counts as one of as many bits, and messages to a
      server take none.

    Raises:
      ValueError: if there are fewer devices than `config.devices`, the data cannot be loaded, a
        loop refuses its options, or a folder holds another study.
    """
    devices = used_devices(config.devices)
    shapes = initial_shapes(config.task)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    for loop in config.loops:  # refused before the first is trained
        for every in config.steps_of(loop):
            if loop.method == "asynchronous":
                config.server(loop)
            else:
                jax.eval_shape(config.loop_of(loop, every)(jax.random.key(0)).init, shapes)
    fields = as_written(config)
    shared = {name: fields[name] for name in ("task", "bits")}
    found = []
    for loop in config.loops:

        def train(setting: dict, key: Key, loop: OuterLoopConfig = loop) -> dict[str, jax.Array]:
            training = config.training(loop, setting["every"], size)
            return training(key, setting["sorted"] > 0)

        if console is not None:
            console.print(loop.name, markup=False, highlight=False)
        own = as_written(loop)
        table = sweep(
            train,
            {
                "every": list(config.steps_of(loop)),
                "sorted": [float(split == "sorted") for split in config.splits],
            },
            config.seeds,
            static=("every",),
            folder=config.folder / loop.name,
            devices=devices,
            about={**shared, "loop": {name: own[name] for name in own if name != "every"}},
            console=console,
        )
        found.append(
            {"name": loop.name, "method": loop.method, "points": _points(config, loop, table)}
        )
    summary = {"config": fields, "size": size, "loops": found, "shown": _shown(config, found)}
    plain = _plain(summary)
    write_whole(config.folder / "summary.json", (to_json(plain) + "\n").encode())
    return plain


def _points(config: OuterConfig, loop: OuterLoopConfig, table: Table) -> list[dict[str, Any]]:
    """The points of a loop, one for each H and split, over the seeds."""
    points = []
    for every in config.steps_of(loop):
        for split in config.splits:
            chosen = (table["every"] == every) & (table["sorted"] == float(split == "sorted"))
            at = {
                name: np.asarray(table[name], float)[chosen]
                for name in ("accuracy", "worst", "rounds", "bits")
            }
            rounds, bits = at["rounds"].mean(), at["bits"].mean()
            points.append(
                {
                    "every": every,
                    "split": split,
                    "accuracy": at["accuracy"].mean(),
                    "std": at["accuracy"].std(),
                    "worst": at["worst"].min(),
                    "rounds": rounds,
                    "bits": bits,
                    **_in_time(config, loop, every, bits),
                }
            )
    return points


def _collectives(config: OuterConfig, loop: OuterLoopConfig, every: int) -> float:
    """The collectives of a training: one a round and fragment; at a server one for N arrivals."""
    if loop.method == "asynchronous":
        return len(config.arrivals(loop, every).node) / config.task.nodes
    return config.task.steps / every * (loop.fragments or 1)


def _round_time(
    config: OuterConfig, loop: OuterLoopConfig, every: int, bits: float, t2: Any = None
) -> RoundTime:
    """The time of one collective of a loop, of so many bits over each link in all of them."""
    number = _collectives(config, loop, every)
    steps = max(config.task.steps / number, 1.0)
    return config.memories.round_time(
        bits / number,
        config.task.nodes,
        config.bits,
        every=steps,
        overlap=min(loop.overlapped(every), steps),
        t2=t2,
    )


def _in_time(
    config: OuterConfig, loop: OuterLoopConfig, every: int, bits: float
) -> dict[str, float]:
    """Online qubits over each link and seconds of a whole training."""
    number = _collectives(config, loop, every)
    time = _round_time(config, loop, every, bits)
    seconds = number * float(time.period)
    if loop.method == "asynchronous":
        seconds = float(config.arrivals(loop, every).time[-1]) * config.memories.step_time
    return {"qubits": number * float(time.online_qubits), "seconds": seconds}


def _shown(config: OuterConfig, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The score of the loop that is shown, over H and coherence time."""
    loop = next(each for each in config.loops if each.name == config.shown)
    points = next(each["points"] for each in found if each["name"] == config.shown)
    points = [point for point in points if point["split"] == config.shown_split]
    times = np.array(config.memories.coherence)
    rate = np.array(
        [
            _round_time(config, loop, point["every"], point["bits"], times).steps_per_second
            for point in points
        ],
        float,
    )
    score = rate * np.array([point["accuracy"] for point in points])[:, None]
    every = np.array([point["every"] for point in points])
    return {
        "loop": config.shown,
        "split": config.shown_split,
        "every": every,
        "coherence": times,
        "steps_per_second": rate,
        "score": score,
        "best_every": every[np.argmax(np.nan_to_num(score, nan=-1.0), axis=0)],
    }


def _plain(value: Any) -> Any:
    """Numbers and arrays as files hold them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return value
