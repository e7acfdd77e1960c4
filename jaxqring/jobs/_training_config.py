"""The configuration of a training job, as frozen dataclasses."""

import dataclasses
import math
from pathlib import Path

from jaxqring import _checks as checks
from jaxqring._fields import LATER, NOT_NEGATIVE, check_fields, check_file_name, no_other_keys
from jaxqring._types import (
    MappingChoice,
    ModelName,
    OptimizerName,
    Split,
)
from jaxqring.codec import FixedPoint
from jaxqring.compress._codes import check_decay
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._loop_config import CONTROLLED, PAIRS, LoopConfig
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.secure._security import MIN_PARTIES
from jaxqring.train._datasets import DataConfig
from jaxqring.train._membership import Period, periods_of
from jaxqring.train._quantum_model import QuantumConfig, check_model


@no_other_keys
@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training job: one model, one data set, several runs side by side.

    Attributes:
      name: of the job; results go to `<out>/<name>/`.
      out: folder of all results.
      data: the images.
      model: "cnn", "mlp", or "quantum", which needs `data.features`.
      nodes: N, the nodes of the ring.
      batch_per_node: images of a node in a step.
      steps: updates of every run.
      learning_rate: at the first step; it falls to zero along half a cosine.
      seed: of the initial parameters, the order of the images and the noise.
      eval_every: steps between two evaluations on the test set.
      mapping: "pmap" or "shard_map", with a device for each node; "vmap", with all nodes on one;
        "auto" for "vmap" where there are accelerators, but fewer than nodes, else for "pmap".
        The same key gives the same errors under each; under "vmap" the compiler batches the
        products of the nodes, so that the last bits of a gradient may differ.
      resume: if true, a job of the same configuration that was cut off goes on, and a finished
        one is left as it is; if false, it starts over.
      runs: the trainings to compare.
      security: of every ring run without a security of its own; no masks by default.
      optimizer: "adam" or "sgd", after what the all-reduce delivers.
      momentum: of "sgd".
      quantum: the circuit of a quantum model; one of the default sizes if left out.
      checkpoint_every: steps between two checkpoints; by default each evaluation is followed by
        one.
      mean_time_between_failures: in seconds, in place of `checkpoint_every`: the time between
        checkpoints is then `jaxqring.launch.checkpoint_interval` of what the last one cost. A
        checkpoint after 16 steps is the first to be measured.
      split: of the training images over the nodes: "iid" for a permutation of all of them in each
        epoch, "sorted" for one of each node's own shard of the images in the order of their labels.

    Raises:
      TypeError: if `learning_rate` or `mean_time_between_failures` is not real.
      ValueError: if one is not positive and finite, a choice is unknown, a count is below 1, `name`
        cannot be that of a file, runs are missing or share a name, N is too large for a wire, half
        of the nodes of a run may lie, N is below 3 under masks, a run without "sgd" has a momentum,
        a change of the nodes does not come after the one before it and before the last step,
        changes nothing, leaves nobody or meets sorted images, an outer loop has no round, pairs an
        odd number of nodes or needs another optimizer, a rule cannot bear so many liars, or the
        model cannot read the data.
    """

    name: str = "train"
    out: str = "runs"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelName = "cnn"
    nodes: int = 8
    batch_per_node: int = 32
    steps: int = 250
    learning_rate: float = 4e-3
    seed: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)
    eval_every: int = 25
    mapping: MappingChoice = "auto"
    resume: bool = True
    runs: tuple[RunConfig, ...] = (RunConfig("ring-protected", protection=CodeConfig()),)
    security: SecurityConfig | None = None
    optimizer: OptimizerName = dataclasses.field(default="adam", metadata=LATER)
    momentum: float = dataclasses.field(default=0.9, metadata=LATER)
    quantum: QuantumConfig | None = dataclasses.field(default=None, metadata=LATER)
    checkpoint_every: int | None = dataclasses.field(default=None, metadata=LATER)
    mean_time_between_failures: float | None = dataclasses.field(default=None, metadata=LATER)
    split: Split = dataclasses.field(default="iid", metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        check_model(self.model, self.quantum, self.data)
        check_file_name("name", self.name)
        checks.open_interval("learning_rate", self.learning_rate, 0.0, math.inf)
        check_decay("momentum", self.momentum)
        if self.mean_time_between_failures is not None:
            name, seconds = "mean_time_between_failures", self.mean_time_between_failures
            checks.open_interval(name, seconds, 0.0, math.inf)
            if self.checkpoint_every is not None:
                rule = f"be left out where {name} is given"
                checks.refuse("checkpoint_every", rule, self.checkpoint_every)
        names = [run.name for run in self.runs]
        if not names or len(set(names)) < len(names):
            checks.refuse("runs", "hold at least one run, each with a name of its own", names)
        if self.security is not None:
            secured = [
                run
                if run.security is not None or run.collective == "classical"
                else dataclasses.replace(run, security=self.security)
                for run in self.runs
            ]
            object.__setattr__(self, "runs", tuple(secured))
        for run in self.runs:
            sizes = self.sizes(run)
            if run.security is not None and min(sizes) < MIN_PARTIES:
                checks.refuse("nodes", f"be at least {MIN_PARTIES} under masks", min(sizes))
            if run.outer is not None:
                self._check_outer(run, run.outer)
            if run.attack is not None and 2 * run.attack.liars >= self.nodes:
                rule = f"be less than half of the {self.nodes} nodes"
                checks.refuse("attack.liars", rule, run.attack.liars)
            if run.robust is not None:
                run.robust.check(self.nodes, masked=run.security is not None)
            if run.membership and self.split == "sorted":
                rule = 'be left out where images are "sorted", as shards are those of one N'
                checks.refuse("runs.membership", rule, run.membership)
            if run.momentum is not None and (run.optimizer or self.optimizer) != "sgd":
                checks.refuse("runs.momentum", 'be left out but for "sgd"', run.momentum)
            wire = run.wire_format()
            if run.robust is not None and run.robust.topology == "groups":
                sizes = (run.robust.size,)  # of the rings that add
            if run.collective == "ring" and isinstance(wire, FixedPoint):
                wire.level_bits(max(sizes))
                wire.check_liars(min(sizes))

    def _check_outer(self, run: RunConfig, loop: LoopConfig) -> None:
        if loop.every > self.steps:
            checks.refuse("outer.every", f"be at most the {self.steps} steps of a run", loop.every)
        if loop.method in PAIRS and self.nodes % 2:
            checks.refuse("nodes", "be even for pairs", self.nodes)
        if loop.method not in CONTROLLED:
            return
        optimizer, momentum = run.optimizer or self.optimizer, run.momentum
        momentum = self.momentum if momentum is None else momentum
        if optimizer != "sgd" or momentum:
            rule = f'be "sgd" without momentum for "{loop.method}"'
            checks.refuse("runs.optimizer", rule, f"{optimizer}, {momentum:g}")

    def periods(self, run: RunConfig) -> tuple[Period, ...]:
        """The periods of a run between the changes of its nodes."""
        return periods_of(run.membership, self.nodes, self.steps)

    def sizes(self, run: RunConfig) -> tuple[int, ...]:
        """The numbers of nodes of a run, in the order of its periods."""
        return tuple(len(period.nodes) for period in self.periods(run))

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name
