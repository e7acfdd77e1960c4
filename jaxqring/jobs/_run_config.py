"""The configuration of one run of a training job, as a frozen dataclass."""

import dataclasses
import math
from typing import Literal

from jaxqring import _checks as checks
from jaxqring._fields import LATER, NOT_NEGATIVE, check_fields, check_file_name, no_other_keys
from jaxqring._types import Clip, Noise, OptimizerName, Rounding, Sampler, Simulate
from jaxqring.codec import BFloat16, FixedPoint, Float32
from jaxqring.codec._formats import WireFormat
from jaxqring.codes._protection import Protection
from jaxqring.compress import Compressor
from jaxqring.compress._codes import check_decay
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compress_config import CompressConfig
from jaxqring.jobs._liar_config import AggregationConfig, AttackConfig
from jaxqring.jobs._link_config import PARAMETERS, LinkConfig, check_link
from jaxqring.jobs._loop_config import COMPRESSED, PAIRS, LoopConfig
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.ring import Ring
from jaxqring.train._membership import MembershipConfig


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
      outer: local steps with a round every H of them, in place of an average of every step; none by
        default. The inner steps have the optimizer and the learning rate of the run, but for
        "scaffold", "scallion" and "scafcom", which are SGD at a constant rate. A classical run has
        its rounds over a ring of float32 without error.
      robust: a robust mean of what the nodes send, in place of the all-reduce; none by default.
        Masks are those of the rings in groups.
      attack: some nodes lie about what they send; none by default.

    Raises:
      TypeError: if a parameter of the links is not real.
      ValueError: if one is out of range, a choice is unknown, `name` cannot be that of a file, or
        `Ring` refuses the wire, noise and protection; under masks or compression, if the run is
        classical or the wire not "fixed"; under masks, if the noise is neither "sampled" nor "off"
        or the method does not sum what it sends; if `memory` is not "fresh" without compression or
        without changes of the nodes; if `clip` or `liars` is given to a classical run, another wire
        or, as codes have scales of their own, under compression; if an outer loop comes with masks,
        changes of the nodes or resynchronisation, or lacks the compressor that it needs; if pairs
        have another wire than "float32", noise, protection or compression; if a robust mean or
        liars come with an outer loop, changes of the nodes or resynchronisation, which is a mean of
        all nodes, or a robust mean with compression or without a ring.
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
    outer: LoopConfig | None = dataclasses.field(default=None, metadata=LATER)
    robust: AggregationConfig | None = dataclasses.field(default=None, metadata=LATER)
    attack: AttackConfig | None = dataclasses.field(default=None, metadata=LATER)

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
        if self.outer is not None:
            self._check_outer(self.outer)
        for name in ("robust", "attack"):
            if getattr(self, name) is None:
                continue
            for other in ("outer", "membership", "resync_every"):
                if getattr(self, other):
                    rule = f"be left out of a run with `{other}`"
                    checks.refuse(f"runs.{name}", rule, getattr(self, name))
        if self.robust is not None and (self.compress is not None or self.collective != "ring"):
            rule = "be left out of classical or compressed runs"
            checks.refuse("runs.robust", rule, self.robust)
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

    def _check_outer(self, loop: LoopConfig) -> None:
        # Checked first where nothing is known of the average, whose states have other sizes then.
        for name in ("security", "membership", "resync_every"):
            if getattr(self, name):
                rule = "be left out of a run with an outer loop"
                checks.refuse(f"runs.{name}", rule, getattr(self, name))
        if loop.method in COMPRESSED and self.compress is None:
            checks.refuse("runs.compress", f'be given for "{loop.method}"', self.compress)
        if loop.method not in PAIRS or self.collective == "classical":
            return
        if self.compress is not None or self.noise != "off" or self.protection is not None:
            rule = f'be "off" for "{loop.method}", whose pairs have no errors, no code'
            checks.refuse("runs.noise", f"{rule} and no compression", self.noise)
        if self.wire != "float32":
            rule = f'be "float32" for "{loop.method}", whose pairs round nothing'
            checks.refuse("runs.wire", rule, self.wire)

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
