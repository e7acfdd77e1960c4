"""Outer loops and the memories between their rounds, as parts of a configuration."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxqring import _checks as checks
from jaxqring._fields import check_fields, check_file_name, no_other_keys
from jaxqring._types import Key, OptimizerName, PyTree
from jaxqring.codec import FixedPoint
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compress_config import CompressConfig
from jaxqring.jobs._loop_config import (
    COMPRESSED,
    CONTROLLED,
    OPTIONS,
    PAIRS,
    Inner,
    build_loop,
    check_options,
)
from jaxqring.outer import Average, Loop, RoundTime, compressed, over_ring, pair_cost, round_time
from jaxqring.physics.pairs import werner
from jaxqring.ring import Ring
from jaxqring.supply import generate
from jaxqring.train._objective import AXIS
from jaxqring.train._task import TaskConfig

#: The options of each method, besides those of its inner optimizer and of what a round sends.
_OPTIONS = {
    **OPTIONS,
    "every_step": (),
    "asynchronous": ("outer_rate", "momentum", "activation", "slowest"),
}
#: What `generate` and `round_time` take.
_RANGES = {
    "length": (0.0, 1e9),
    "modes": (1.0, 1e9),
    "t1": (1e-9, 1e18),
    "slots": (0.0, 1e12),
    "step_time": (0.0, 1e9),
    "qubit_rate": (1e-9, 1e18),
    "latency": (0.0, 1e9),
}
#: Methods that send nothing by way of a compressor.
_PLAIN = (*PAIRS, "asynchronous")
#: Methods whose rounds hide behind all inner steps of the next one.
_HIDDEN = ("delayed", "eager", "co2")


@no_other_keys
@dataclasses.dataclass(frozen=True)
class OuterLoopConfig:
    """An outer loop of a study. An option that is left out is that of the loop.

    Attributes:
      name: of the curve, and of its folder.
      method: "every_step" for gradients averaged in each step, without an outer loop; "average",
        "diloco" (streaming with `fragments`), "delayed", "eager", "co2", "noloco" with random pairs
        and "neighbours" with those next to each other, "scaffold", "scallion", "scafcom", or
        "asynchronous" for a server with delayed Nesterov momentum.
      every: H, inner steps of a round; those of the study by default.
      optimizer: of inner steps, "adam" or "sgd"; that of the task by default. Loops with control
        variates have plain SGD at a constant rate.
      learning_rate: of inner steps; that of the task by default.
      outer_rate: learning rate of the outer step.
      momentum: of the outer step; of "scafcom" the weight of the newest gradient.
      fragments: of "diloco".
      overlap: of "diloco", in inner steps.
      blend: of "diloco".
      clip: of "co2".
      consensus: of pairs. They exchange numbers without rounding; their bits are counted at the
        width of the study, whose rings round to it.
      scale: of "scallion".
      activation: of "asynchronous".
      slowest: of "asynchronous": the speed of the slowest node, that of the fastest being 1; those
        between are spread evenly, and nodes make inner steps in proportion.
      compress: of what a round sends.

    Raises:
      ValueError: if an option is that of another method, one without a default is left out, or
        `every_step` has an `every`.
    """

    name: str = "DiLoCo"
    method: Literal[
        "every_step",
        "average",
        "diloco",
        "delayed",
        "eager",
        "co2",
        "noloco",
        "neighbours",
        "scaffold",
        "scallion",
        "scafcom",
        "asynchronous",
    ] = "diloco"
    every: tuple[int, ...] = ()
    optimizer: OptimizerName | None = None
    learning_rate: float | None = None
    outer_rate: float | None = None
    momentum: float | None = None
    fragments: int | None = None
    overlap: int | None = dataclasses.field(default=None, metadata={"least": 0})
    blend: float | None = None
    clip: float | None = None
    consensus: float | None = None
    scale: float | None = None
    activation: float | None = None
    slowest: float | None = None
    compress: CompressConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self, "loops.")
        check_file_name("loops.name", self.name)
        for steps in self.every:
            checks.integer("loops.every", steps)
        if self.method == "every_step" and self.every:
            checks.refuse("loops.every", 'be left out of "every_step"', self.every)
        check_options(self, _OPTIONS, "loops")
        if self.method in _PLAIN and self.compress is not None:
            rule = f'be left out of "{self.method}"'
            checks.refuse("loops.compress", rule, self.compress)
        if self.method in CONTROLLED and self.optimizer not in (None, "sgd"):
            rule = f'be "sgd" for "{self.method}", whose inner steps are plain ones'
            checks.refuse("loops.optimizer", rule, self.optimizer)
        if self.method in COMPRESSED and self.compress is None:
            checks.refuse("loops.compress", f'be given for "{self.method}"', self.compress)
        if self.slowest is not None:
            checks.within("loops.slowest", self.slowest, 1e-3, 1.0)

    def inner(self, task: TaskConfig) -> Inner:
        """The inner steps, at a constant rate."""
        rate = task.learning_rate if self.learning_rate is None else self.learning_rate
        if (self.optimizer or task.optimizer) == "adam":
            return Inner(optax.adam(rate), rate)
        return Inner(optax.sgd(rate, task.momentum or None), rate)

    def given(self) -> dict[str, Any]:
        """The options that are given."""
        found = {name: getattr(self, name) for name in _OPTIONS[self.method]}
        return {name: value for name, value in found.items() if value is not None}

    def loop(self, task: TaskConfig, ring: Ring, every: int, key: Key | None) -> Loop:
        """The loop over a ring.

        Raises:
          ValueError: as the loop.
        """
        inner = self.inner(task)
        compressor = None if self.compress is None else self.compress.build()
        if self.method == "every_step":
            average = over_ring(ring, AXIS)
            if compressor is not None:
                average = compressed(compressor, ring, AXIS)
            return every_step(inner.optimizer, average, key)
        return build_loop(
            self.method,
            self.given(),
            inner,
            every=every,
            ring=ring,
            compressor=compressor,
            key=key,
        )

    def bits(self, size: int, nodes: int, width: int) -> float | None:
        """Payload bits of a round over each link that its loop does not count itself."""
        pairs = PAIRS.get(self.method)
        return None if pairs is None else pair_cost(size, nodes, width, pairs)

    def overlapped(self, every: int) -> int:
        """Inner steps that a round of the loop hides behind."""
        return every if self.method in _HIDDEN else self.overlap or 0


class EveryStepState(NamedTuple):
    """The state of gradients averaged in every step."""

    inner: PyTree
    memory: PyTree
    rounds: jax.Array
    bits: jax.Array
    qubits: jax.Array


def every_step(inner_tx: optax.GradientTransformation, average: Average, key: Key | None) -> Loop:
    """Gradients averaged in every step, with the interface of an outer loop."""

    def init(params: PyTree) -> EveryStepState:
        zero = jnp.float32(0)
        memory = average.init(jax.tree.map(jnp.zeros_like, params))
        return EveryStepState(inner_tx.init(params), memory, jnp.int32(0), zero, zero)

    def update(
        grads: PyTree, state: EveryStepState, params: PyTree, *, step: Any, **extra: Any
    ) -> tuple[PyTree, EveryStepState]:
        del extra
        own = None if key is None else jax.random.fold_in(key, step)
        mean, memory, counts = average.mean(grads, state.memory, own)
        assert counts is not None  # rings count
        updates, inner = inner_tx.update(mean, state.inner, params)
        after = EveryStepState(
            inner,
            memory,
            state.rounds + 1,
            state.bits + counts.bits,
            state.qubits + counts.qubits,
        )
        return optax.apply_updates(params, updates), after

    return Loop(init, update, lambda params, state: params)  # type: ignore[arg-type]


@no_other_keys
@dataclasses.dataclass(frozen=True)
class MemoriesConfig:
    """The links of a study in time: their pairs, their memories, and the steps between rounds.

    Attributes:
      fidelity: of a fresh pair, in [1/4, 1].
      length: metres between two nodes of the ring.
      modes: pairs attempted side by side.
      detector_efficiency: probability that a photon is detected.
      t1: seconds, relaxation time of the memories.
      t2: seconds, coherence time of the memories in the table, at most 2 t1.
      coherence: seconds, coherence times in the figure.
      slots: pairs that the memories of a link hold.
      step_time: seconds of an inner step.
      qubit_rate: qubits per second on a link, in hertz.
      latency: seconds of one hop.
      protection: of the links.

    Raises:
      TypeError: if a number is not real.
      ValueError: if one is out of range, there is no coherence time, or symbols are not protected.
    """

    fidelity: float = 0.99
    length: float = 10e3
    modes: float = 1000.0
    detector_efficiency: float = 0.9
    t1: float = 10.0
    t2: float = 1.0
    coherence: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    slots: float = 1e7
    step_time: float = 5e-3
    qubit_rate: float = 1e9
    latency: float = 5e-5
    protection: CodeConfig = dataclasses.field(default_factory=CodeConfig)

    def __post_init__(self) -> None:
        check_fields(self, "memories.")
        checks.within("memories.fidelity", self.fidelity, 0.25, 1.0)
        checks.within("memories.detector_efficiency", self.detector_efficiency)
        for name, (low, high) in _RANGES.items():
            checks.within(f"memories.{name}", getattr(self, name), low, high)
        for name, values in (("t2", [self.t2]), ("coherence", list(self.coherence))):
            if not values:
                checks.refuse("memories.coherence", "hold at least one time", values)
            checks.within(f"memories.{name}", np.array(values), 1e-9, 2 * self.t1)
        if self.protection.top_symbols:
            rule = "protect all symbols (top_symbols = 0)"
            checks.refuse("memories.protection", rule, self.protection)

    def round_time(
        self, bits: float, nodes: int, width: int, *, every: Any, overlap: Any = 0.0, t2: Any = None
    ) -> RoundTime:
        """The time of rounds of so many payload bits over each link.

        Args:
          bits: of a round over a link; those of an all-reduce of as many values as it takes.
          nodes: N.
          width: bits of a value.
          every: (...) inner steps of a round.
          overlap: (...) inner steps that it hides behind.
          t2: (...) seconds; the coherence time of the table by default.
        """
        size = max(1, round(bits * nodes / (2 * (nodes - 1) * width)))
        supply = generate(
            werner(fidelity=self.fidelity),
            length=self.length,
            modes=self.modes,
            detector_efficiency=self.detector_efficiency,
        )
        return round_time(
            Ring(wire=FixedPoint(width), protection=self.protection.build()),
            size,
            nodes,
            supply,
            every=every,
            overlap=overlap,
            step_time=self.step_time,
            slots=self.slots,
            t1=self.t1,
            t2=self.t2 if t2 is None else t2,
            qubit_rate=self.qubit_rate,
            latency=self.latency,
        )
