"""Nodes that lie in a training, and the rule that is to bear them, as parts of a configuration."""

import dataclasses

import numpy as np

from jaxqring._fields import NOT_NEGATIVE, check_fields, no_other_keys
from jaxqring.compress._codes import check_decay
from jaxqring.jobs._robust_config import ATTACKS, AttackName, RuleConfig, RuleName
from jaxqring.robust._ways import Topology
from jaxqring.train._liars import Liars, Robustness


@no_other_keys
@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """The nodes of a run that lie: the last ones, who know what all others send.

    The loss and the training accuracy of a step are means over all nodes, liars included, each by
    the labels that it learns from.

    Attributes:
      attack: on what they send: "flip" and "flip10" for the opposite, as long or ten times as long;
        "alie" for the mean of the honest less 1.5 of their deviations; "ipm" and "ipm5" for the
        mean of the honest times -0.1 and -5; "mimic" for a copy of what node 0 sends; "huge" for
        five entries of 1,000; "scale" for a first entry of 2^100; "labels" for what is learnt from
        flipped labels; "none". See `jaxqring.robust.Attack`.
      liars: f, their number.

    Raises:
      ValueError: if the attack is unknown, or `liars` below 1.
    """

    attack: AttackName = "flip"
    liars: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "attack.")

    def build(self, num_nodes: int) -> Liars:
        """The liars among so many nodes."""
        nodes = np.arange(num_nodes) >= num_nodes - self.liars
        return Liars(nodes, ATTACKS[self.attack], self.attack == "labels")


@no_other_keys
@dataclasses.dataclass(frozen=True)
class AggregationConfig:
    """A robust mean in place of an all-reduce; see `jaxqring.robust.robust_pmean`.

    Attributes:
      rule: as in `RuleConfig`.
      topology: "groups", "gather" or "butterfly".
      liars: f, that the rule is to bear.
      momentum: of each worker, in [0, 1), ahead of what it sends.
      tau: radius of clipping.
      iterations: of clipping, or reweightings of Flag.
      parts: of GAS.
      size: of a group or a bucket.

    Raises:
      TypeError: if a number is not real.
      ValueError: if a choice is unknown, a number out of its domain, or a value given that neither
        the rule nor the topology reads.
    """

    rule: RuleName = "median"
    topology: Topology = "groups"
    liars: int = dataclasses.field(default=1, metadata=NOT_NEGATIVE)
    momentum: float = 0.9
    tau: float = 1.0
    iterations: int = 1
    parts: int = 100
    size: int = 3

    def __post_init__(self) -> None:
        check_fields(self, "robust.")
        check_decay("robust.momentum", self.momentum)
        self._rule(masked=False)

    def _rule(self, *, masked: bool) -> RuleConfig:
        names = ("rule", "topology", "tau", "iterations", "parts", "size")
        given = {name: getattr(self, name) for name in names}
        return RuleConfig(name=self.rule, masks=masked, **given)

    def check(self, num_nodes: int, *, masked: bool) -> None:
        """Refuses nodes and liars that the rule cannot bear.

        Raises:
          ValueError: as `RuleConfig.check`; under masks without groups.
        """
        self._rule(masked=masked).check(num_nodes, self.liars)

    def build(self) -> Robustness:
        """The way to the mean that an update takes."""
        rule = self._rule(masked=False).build(self.liars)
        return Robustness(rule, self.topology, self.size, self.momentum)
