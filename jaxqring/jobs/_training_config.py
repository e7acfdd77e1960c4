"""What a training job is made of, as frozen dataclasses, and how to read one from TOML."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxqring import _checks as checks
from jaxqring._fields import check_fields, check_file_name, no_other_keys
from jaxqring.codec import BFloat16, FixedPoint, Float32
from jaxqring.codec._formats import WireFormat
from jaxqring.codes._protection import Protection
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.link import superdense
from jaxqring.physics.channels import depolarizing
from jaxqring.physics.pairs import werner
from jaxqring.ring import Ring
from jaxqring.secure._security import MIN_PARTIES
from jaxqring.train._datasets import DataConfig

if TYPE_CHECKING:
    pass


@no_other_keys
@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training of the job, and how its gradients are averaged.

    Attributes:
      name: of the run, in the table and the files.
      collective: "classical" for `lax.pmean` in float32, "ring" for `jaxqring.pmean`.
      noise: of the ring: "sampled", "gaussian", "mean" or "off".
      fidelity: of the Werner pairs, in [1/4, 1].
      error_prob: total Pauli error of the depolarizing channel on the sent half, in [0, 1].
      wire: "fixed", "float32" or "bfloat16".
      bits: width of the fixed wire.
      rounding: of the fixed wire: "nearest" or "stochastic".
      protection: of the links; none by default.
      simulate: of protected links: "attempts" or "symbol"; the distribution is the same.
      resync_every: steps between two averagings of parameters and optimizer states over the
        error-free classical channel, for runs whose replicas drift; 0 for never.
      security: masks on what is sent; none by default.
    """

    name: str = "ring-noisy"
    collective: Literal["classical", "ring"] = "ring"
    noise: Literal["sampled", "gaussian", "mean", "off"] = "sampled"
    fidelity: float = 0.99
    error_prob: float = 0.0
    wire: Literal["fixed", "float32", "bfloat16"] = "fixed"
    bits: int = 16
    rounding: Literal["nearest", "stochastic"] = "nearest"
    protection: CodeConfig | None = None
    simulate: Literal["attempts", "symbol"] = "attempts"
    resync_every: int = 0
    security: SecurityConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self, "runs.")
        check_file_name("runs.name", self.name)
        # Refused here without touching a device: a job may still choose how many there are.
        checks.within("runs.fidelity", self.fidelity, 0.25, 1.0)
        checks.within("runs.error_prob", self.error_prob)
        Ring(wire=self.codes(), noise=self.noise, protection=self.guard())
        if self.security is None:
            return
        if self.collective == "classical":
            checks.refuse("runs.security", "be left out of a classical run", self.security)
        if self.wire != "fixed":
            checks.refuse("runs.wire", 'be "fixed" under masks', self.wire)
        if self.noise not in ("sampled", "off"):
            checks.refuse("runs.noise", 'be "sampled" or "off" under masks', self.noise)

    def codes(self) -> WireFormat:
        """The wire of this run."""
        if self.wire == "fixed":
            return FixedPoint(self.bits, rounding=self.rounding)
        return Float32() if self.wire == "float32" else BFloat16()

    def guard(self) -> Protection | None:
        """The protection of this run."""
        return None if self.protection is None else self.protection.build()

    def ring(self) -> Ring | None:
        """The ring of this run, or None for a classical one."""
        if self.collective == "classical":
            return None
        sent = depolarizing(error_prob=self.error_prob)
        link = superdense(werner(fidelity=self.fidelity), sent=sent)
        return Ring(link, self.codes(), self.noise, self.guard(), simulate=self.simulate)


@no_other_keys
@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training job: one model, one data set, several runs side by side.

    Attributes:
      name: of the job; results go to `<out>/<name>/`.
      out: folder of all results.
      data: what to learn.
      model: "cnn" or "mlp".
      nodes: N, the nodes of the ring.
      batch_per_node: images a node sees in a step.
      steps: updates of every run.
      learning_rate: of Adam at the first step; it falls to zero along half a cosine.
      seed: of the initial parameters, the order of the images and the noise.
      eval_every: steps between two looks at the test set; a checkpoint is written with each.
      mapping: "pmap" or "shard_map", with a device for each node; "vmap", with all nodes on one;
        "auto" for "vmap" where there are accelerators, but fewer than nodes, else for "pmap".
        The same key gives the same errors under each; under "vmap" the compiler batches the
        products of the nodes, so that the last bits of a gradient may differ.
      resume: whether to go on with what there is of a job of the same configuration, and to leave
        a finished one as it is; if not, it starts over.
      runs: the trainings to compare.
      security: of every ring run that has none of its own; none by default.
    """

    name: str = "train"
    out: str = "runs"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: Literal["cnn", "mlp"] = "cnn"
    nodes: int = 8
    batch_per_node: int = 32
    steps: int = 250
    learning_rate: float = 4e-3
    seed: int = 0
    eval_every: int = 25
    mapping: Literal["auto", "pmap", "shard_map", "vmap"] = "auto"
    resume: bool = True
    runs: tuple[RunConfig, ...] = (RunConfig("ring-protected", protection=CodeConfig()),)
    security: SecurityConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        if not 0 < self.learning_rate < math.inf:
            checks.refuse("learning_rate", "be positive and finite", self.learning_rate)
        names = [run.name for run in self.runs]
        if not names or len(set(names)) < len(names):
            checks.refuse("runs", "hold at least one run, each with a name of its own", names)
        if self.security is not None:
            own = [
                run
                if run.security is not None or run.collective == "classical"
                else dataclasses.replace(run, security=self.security)
                for run in self.runs
            ]
            object.__setattr__(self, "runs", tuple(own))
        for run in self.runs:
            if run.security is not None and self.nodes < MIN_PARTIES:
                checks.refuse("nodes", f"be at least {MIN_PARTIES} under masks", self.nodes)
            wire = run.codes()
            if run.collective == "ring" and isinstance(wire, FixedPoint):
                wire.level_bits(self.nodes)

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name
