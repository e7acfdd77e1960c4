"""The configuration of a training job, as frozen dataclasses."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from jaxqring import _checks as checks
from jaxqring._fields import LATER, NOT_NEGATIVE, check_fields, check_file_name, no_other_keys
from jaxqring._types import (
    Clip,
    MappingChoice,
    ModelName,
    Noise,
    OptimizerName,
    Rounding,
    Sampler,
    Simulate,
    Split,
)
from jaxqring.codec import BFloat16, FixedPoint, Float32
from jaxqring.codec._formats import WireFormat
from jaxqring.codes._protection import Protection
from jaxqring.compress import Compressor
from jaxqring.compress._codes import check_decay
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compress_config import CompressConfig
from jaxqring.jobs._link_config import PARAMETERS, LinkConfig, check_link
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.ring import Ring
from jaxqring.secure._security import MIN_PARTIES
from jaxqring.train._datasets import DataConfig
from jaxqring.train._membership import MembershipConfig, Period, periods_of
from jaxqring.train._quantum_model import QuantumConfig, check_model


@no_other_keys
@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training of a job, and the all-reduce that averages its gradients.

    Attributes:
      name: of the run, in the table and the files.
      collective: "classical" for `lax.pmean` in float32, "ring" for `jaxqring.pmean`.
      noise: of the ring: "sampled", "gaussian", "mean" or "off".
      fidelity: of the Werner pairs, in [1/4, 1].
      error_prob: total Pauli error of the depolarizing channel on the sent half, in [0, 1].
      wire: "fixed", "float32" or "bfloat16".
      bits: width of the fixed wire.
      rounding: of the fixed wire: "nearest" or "stochastic".
      protection: of the links; no protection by default.
      simulate: of protected links: "attempts" or "symbol"; the distribution is the same.
      resync_every: steps between two averages of parameters and optimizer states over the
        error-free classical channel, for runs whose replicas drift; 0 for never.
      security: masks on what the run sends; no masks by default.
      dephasing: of the stored half, as in `LinkConfig`.
      gamma: decay of the sent half, as in `LinkConfig`.
      gate_error: of the Bell measurement, as in `LinkConfig`.
      readout_error: of a measured bit, as in `LinkConfig`.
      survival: of both halves, as in `LinkConfig`.
      compress: compression of the gradients; none by default.
      optimizer: "adam" or "sgd"; that of the job by default.
      momentum: of "sgd"; that of the job by default.
      learning_rate: at the first step; that of the job by default.
      sampler: of the ring: "sparse", "dense", or "auto" by the platform; see `jaxqring.transmit`.
      membership: changes of the nodes that carry the run, by their steps; none by default.
      memory: of a compressor, of a node that joins: "fresh", or "neighbour" for what it had when it
        left, a copy of which the next node round the ring has kept.
      clip: of the fixed wire: "max", "robust" or a number; see `jaxqring.FixedPoint`.
      liars: nodes that may lie about their magnitudes, for a robust clip; below half of the nodes.

    Raises:
      TypeError: if a parameter of the links is not real.
      ValueError: if one is out of range, a choice is unknown, `name` cannot be that of a file, or
        `Ring` refuses the wire, noise and protection; under masks or compression, if the run is
        classical or the wire not "fixed"; under masks, if the noise is neither "sampled" nor "off"
        or the method does not sum what it sends; if `memory` is not "fresh" without compression or
        without changes of the nodes; if `clip` or `liars` is given to a classical run, another wire
        or, as codes have scales of their own, under compression.
    """

    name: str = "ring-noisy"
    collective: Literal["classical", "ring"] = "ring"
    noise: Noise = "sampled"
    fidelity: float = 0.99
    error_prob: float = 0.0
    wire: Literal["fixed", "float32", "bfloat16"] = "fixed"
    bits: int = 16
    rounding: Rounding = "nearest"
    protection: CodeConfig | None = None
    simulate: Simulate = "attempts"
    resync_every: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)
    security: SecurityConfig | None = None
    dephasing: float = dataclasses.field(default=0.0, metadata=LATER)
    gamma: float = dataclasses.field(default=0.0, metadata=LATER)
    gate_error: float = dataclasses.field(default=0.0, metadata=LATER)
    readout_error: float = dataclasses.field(default=0.0, metadata=LATER)
    survival: float = dataclasses.field(default=1.0, metadata=LATER)
    compress: CompressConfig | None = dataclasses.field(default=None, metadata=LATER)
    optimizer: OptimizerName | None = dataclasses.field(default=None, metadata=LATER)
    momentum: float | None = dataclasses.field(default=None, metadata=LATER)
    learning_rate: float | None = dataclasses.field(default=None, metadata=LATER)
    sampler: Sampler = dataclasses.field(default="auto", metadata=LATER)
    membership: tuple[MembershipConfig, ...] = dataclasses.field(default=(), metadata=LATER)
    memory: Literal["fresh", "neighbour"] = dataclasses.field(default="fresh", metadata=LATER)
    clip: Clip = dataclasses.field(default="max", metadata=LATER)
    liars: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE | LATER)

    def __post_init__(self) -> None:
        check_fields(self, "runs.")
        check_file_name("runs.name", self.name)
        if self.learning_rate is not None:
            checks.open_interval("runs.learning_rate", self.learning_rate, 0.0, math.inf)
        if self.momentum is not None:
            check_decay("runs.momentum", self.momentum)
        if self.memory != "fresh" and (self.compress is None or not self.membership):
            rule = 'be "fresh" without compression, or without changes of the nodes'
            checks.refuse("runs.memory", rule, self.memory)
        if self.clip != "max" or self.liars:
            self._check_clip()
        # Refused here without touching a device: a job may still choose how many there are.
        check_link("runs.", self)
        Ring(wire=self.wire_format(), noise=self.noise, protection=self.protection_scheme())
        for name, what in (("compress", "compression"), ("security", "masks")):
            if getattr(self, name) is None:
                continue
            if self.collective == "classical":
                rule = "be left out of a classical run"
                checks.refuse(f"runs.{name}", rule, getattr(self, name))
            if self.wire != "fixed":
                checks.refuse("runs.wire", f'be "fixed" under {what}', self.wire)
        if self.security is None:
            return
        if self.noise not in ("sampled", "off"):
            checks.refuse("runs.noise", 'be "sampled" or "off" under masks', self.noise)
        compressor = self.compressor()
        if compressor is not None and compressor.reduce not in ("sum", "vote"):
            rule = "sum what it sends under masks, which hide sums alone"
            checks.refuse("runs.compress", rule, self.compress)

    def _check_clip(self) -> None:
        name = "clip" if self.clip != "max" else "liars"
        if self.wire != "fixed" or self.collective == "classical":
            rule = "be left out but for a ring with a fixed wire"
            checks.refuse(f"runs.{name}", rule, getattr(self, name))
        if self.compress is not None:
            rule = "be left out under compression, whose codes have scales of their own"
            checks.refuse(f"runs.{name}", rule, getattr(self, name))

    def link(self) -> LinkConfig:
        """The noise of the links of this run."""
        return LinkConfig(**{name: getattr(self, name) for name in PARAMETERS})

    def wire_format(self) -> WireFormat:
        """The wire of this run."""
        if self.wire == "fixed":
            return FixedPoint(self.bits, self.clip, self.rounding, liars=self.liars)
        return Float32() if self.wire == "float32" else BFloat16()

    def protection_scheme(self) -> Protection | None:
        """The protection of this run."""
        return None if self.protection is None else self.protection.build()

    def compressor(self) -> Compressor | None:
        """The compressor of this run, or None for gradients as they are."""
        return None if self.compress is None else self.compress.build()

    def ring(self) -> Ring | None:
        """The ring of this run, or None for a classical one."""
        if self.collective == "classical":
            return None
        return Ring(
            self.link().channel(),
            self.wire_format(),
            self.noise,
            self.protection_scheme(),
            simulate=self.simulate,
            sampler=self.sampler,
        )


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
<<<<<<< HEAD
        cannot be that of a file, runs are missing or share a name, N is too large for a wire, N is
        below 3 under masks, a run without "sgd" has a momentum, a change of the nodes does not
        come after the one before it and before the last step, changes nothing, leaves nobody or
        meets sorted images, or the model cannot read the data.
=======
        cannot be that of a file, runs are missing or share a name, N is too large for a wire, half
        of the nodes of a run may lie, N is below 3 under masks, a run without "sgd" has a momentum,
        a change of the nodes does not come after the one before it and before the last step,
        changes nothing or leaves nobody, or the model cannot read the data.
>>>>>>> f244d0f
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
            if run.membership and self.split == "sorted":
                rule = 'be left out where images are "sorted", as shards are those of one N'
                checks.refuse("runs.membership", rule, run.membership)
            if run.momentum is not None and (run.optimizer or self.optimizer) != "sgd":
                checks.refuse("runs.momentum", 'be left out but for "sgd"', run.momentum)
            wire = run.wire_format()
            if run.collective == "ring" and isinstance(wire, FixedPoint):
                wire.level_bits(max(sizes))
                wire.check_liars(min(sizes))

    def periods(self, run: RunConfig) -> tuple[Period, ...]:
        """The periods of a run between the changes of its nodes."""
        return periods_of(run.membership, self.nodes, self.steps)

    def sizes(self, run: RunConfig) -> tuple[int, ...]:
        """The numbers of nodes of a run, in the order of its periods."""
        return tuple(len(period.nodes) for period in self.periods(run))

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name
