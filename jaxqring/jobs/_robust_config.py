"""Rules and lies by their names in TOML files."""

import dataclasses
from typing import Literal

from jaxqring import _checks as checks
from jaxqring._fields import check_fields, check_file_name, no_other_keys
from jaxqring.robust import (
    GAS,
    Attack,
    Bucketing,
    CentredClipping,
    Flag,
    HugeEntries,
    InnerProduct,
    Krum,
    LittleIsEnough,
    Mean,
    Median,
    Mimic,
    NearestNeighbourMixing,
    Rule,
    ScaleAttack,
    SignFlip,
    TrimmedMean,
)
from jaxqring.robust._topologies import check_group_size
from jaxqring.robust._vectors import LARGEST
from jaxqring.robust._ways import Topology

RuleName = Literal[
    "mean", "median", "trimmed", "krum", "mixing", "bucketing", "clipping", "gas", "flag"
]
AttackName = Literal[
    "none", "flip", "flip10", "labels", "alie", "ipm", "ipm5", "mimic", "huge", "scale"
]
#: What liars send; "labels" is a lie about labels and not about vectors.
ATTACKS: dict[str, Attack | None] = {
    "none": None,
    "flip": SignFlip(),
    "flip10": SignFlip(10.0),
    "labels": None,
    "alie": LittleIsEnough(1.5),
    "ipm": InnerProduct(0.1),
    "ipm5": InnerProduct(5.0),
    "mimic": Mimic(),
    "huge": HugeEntries(1e3, 5),
    "scale": ScaleAttack(LARGEST / 2**20),
}
#: The rules and topologies that read a field of a `RuleConfig`.
_READERS = {
    "tau": {"clipping"},
    "iterations": {"clipping", "flag"},
    "parts": {"gas"},
    "size": {"bucketing", "groups"},
}


@no_other_keys
@dataclasses.dataclass(frozen=True)
class RuleConfig:
    """One rule on one way of the vectors over the ring.

    Attributes:
      name: of the rule in tables, and of its folder.
      rule: "mean", "median", "trimmed", "krum", "mixing" and "bucketing" (before the median),
        "clipping", "gas" (of the median) or "flag" (with the median of lengths).
      topology: "gather", "groups" or "butterfly".
      nodes: N, of which the liars of the study are the last; those of the study by default.
      tau: radius of clipping.
      iterations: of clipping, or reweightings of Flag.
      parts: of GAS.
      size: of a group or a bucket.
      masks: whether rings in groups are masked, by perfect GHZ states.

    Raises:
      TypeError: if `tau` is not real.
      ValueError: if a choice is unknown, a number out of its domain, `name` cannot be that of a
        file, masks are asked for without groups, the butterfly for another rule than clipping, or
        a value is given that neither the rule nor the topology reads.
    """

    name: str = "median"
    rule: RuleName = "median"
    topology: Topology = "gather"
    nodes: int | None = None
    tau: float = 1.0
    iterations: int = 1
    parts: int = 100
    size: int = 3
    masks: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "rules.")
        check_file_name("rules.name", self.name)
        if self.masks and self.topology != "groups":
            checks.refuse("rules.masks", "be false but for groups", self.masks)
        if self.topology == "butterfly" and self.rule != "clipping":
            checks.refuse("rules.rule", 'be "clipping" for a butterfly', self.rule)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, readers in _READERS.items():
            value = getattr(self, name)
            if value != defaults[name] and not {self.rule, self.topology} & readers:
                rule = f'be left out of "{self.rule}" by "{self.topology}", which does not read it'
                checks.refuse(f"rules.{name}", rule, value)
        self.build(0)

    def build(self, liars: int) -> Rule:
        """The rule against so many liars."""
        makers = {
            "mean": Mean,
            "median": Median,
            "trimmed": lambda: TrimmedMean(liars),
            "krum": lambda: Krum(liars),
            "mixing": lambda: NearestNeighbourMixing(Median(), liars),
            "bucketing": lambda: Bucketing(Median(), self.size),
            "clipping": lambda: CentredClipping(self.tau, self.iterations, "last"),
            "gas": lambda: GAS(Median(), self.parts, liars),
            "flag": lambda: Flag(iterations=self.iterations, length="median"),
        }
        return makers[self.rule]()

    def check(self, nodes: int, liars: int) -> None:
        """Refuses nodes and liars that the rule cannot bear.

        Raises:
          ValueError: if the rule needs more vectors, groups do not fit the nodes, or liars are at
            or above half of the vectors, groups or buckets that the rule sees.
        """
        count = nodes
        if self.topology == "groups":
            check_group_size(self.size, nodes, masked=self.masks)
            count = nodes // self.size
        seen = -(-count // self.size) if self.rule == "bucketing" else count
        if self.rule != "mean" and 2 * liars >= seen:
            rule = f"be less than half of the {seen} vectors that {self.name!r} sees"
            checks.refuse("liars", rule, liars)
        self.build(liars).check(count)
