"""The outer loop of a training, as a part of a configuration."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import optax

from jaxqring import _checks as checks
from jaxqring import outer
from jaxqring._fields import NOT_NEGATIVE, check_fields, no_other_keys
from jaxqring._types import Key
from jaxqring.compress import Compressor
from jaxqring.outer import Average, Loop
from jaxqring.ring import Ring
from jaxqring.train._objective import AXIS

#: The function of each method; its options are those of its arguments that a file can say.
METHODS: dict[str, Callable[..., Loop]] = {
    "local_sgd": outer.local_sgd,
    "diloco": outer.diloco,
    "co2": outer.co2,
    "noloco": outer.noloco,
    "scaffold": outer.scaffold,
    "scallion": outer.scallion,
    "scafcom": outer.scafcom,
}
#: Options of each method.
OPTIONS: dict[str, tuple[str, ...]] = {
    "local_sgd": (),
    "diloco": (
        "learning_rate",
        "momentum",
        "fragments",
        "overlap",
        "blend",
        "delayed",
        "eager",
    ),
    "co2": ("learning_rate", "momentum", "clip", "gap"),
    "noloco": ("learning_rate", "momentum", "consensus", "pairs"),
    "scaffold": ("learning_rate",),
    "scallion": ("learning_rate", "scale"),
    "scafcom": ("learning_rate", "momentum"),
}
#: Methods whose inner steps are those of SGD without momentum, at a constant rate.
CONTROLLED = ("scaffold", "scallion", "scafcom")
#: Methods that are told their compressor, in place of an average.
COMPRESSED = ("scallion", "scafcom")


@no_other_keys
@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Local steps with a round every H of them. An option that is left out is that of the method.

    Attributes:
      method: a loop of `jaxqring.outer`: "local_sgd", "diloco", "co2", "noloco", "scaffold",
        "scallion" or "scafcom".
      every: H, inner steps of a round.
      learning_rate: of the outer step.
      momentum: of the outer step; of "scafcom", beta of the local momentum.
      fragments: of "diloco": parts with rounds of their own.
      overlap: of "diloco": inner steps from sending to receiving.
      blend: of "diloco": weight of a node's own parameters.
      delayed: of "diloco": whether to step with the mean of the round before.
      eager: of "diloco": whether to do so with the fresh part of the node itself.
      clip: of "co2".
      gap: of "co2": what displacements are divided by.
      consensus: of "noloco": weight of the pull towards the partner.
      pairs: of "noloco": "random" or "neighbours".
      scale: of "scallion": alpha.

    Raises:
      TypeError: if a number is not real.
      ValueError: if the method is unknown, an option is that of another method, or the method
        refuses its value.
    """

    method: Literal["local_sgd", "diloco", "co2", "noloco", "scaffold", "scallion", "scafcom"] = (
        "diloco"
    )
    every: int = 10
    learning_rate: float | None = None
    momentum: float | None = None
    fragments: int | None = None
    overlap: int | None = dataclasses.field(default=None, metadata=NOT_NEGATIVE)
    blend: float | None = None
    delayed: bool | None = None
    eager: bool | None = None
    clip: float | None = None
    gap: float | None = None
    consensus: float | None = None
    pairs: Literal["random", "neighbours"] | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "outer.")
        for name, value in self._options().items():
            if name not in OPTIONS[self.method]:
                checks.refuse(f"outer.{name}", f'be left out of "{self.method}"', value)

    def _options(self) -> dict[str, Any]:
        """The options that are given."""
        names = [field.name for field in dataclasses.fields(self)]
        given = {name: getattr(self, name) for name in names if name not in ("method", "every")}
        return {name: value for name, value in given.items() if value is not None}

    def build(
        self,
        inner_tx: optax.GradientTransformation,
        inner_rate: float,
        average: Average,
        ring: Ring,
        compressor: Compressor | None,
        key: Key,
    ) -> Loop:
        """The loop, over the axis of nodes.

        Args:
          inner_tx: the inner optimizer, where the method leaves it open.
          inner_rate: the learning rate of the inner steps, where it does not.
          average: over the nodes, where the method leaves it open.
          ring: of a method with a compressor of its own.
          compressor: of such a method.
          key: of all rounds.
        """
        options = {**self._options(), "every": self.every, "key": key}
        method = METHODS[self.method]
        if self.method in COMPRESSED:
            return method(compressor, ring, AXIS, inner_rate=inner_rate, **options)
        if self.method in CONTROLLED:
            return method(average, inner_rate=inner_rate, **options)
        if self.method == "noloco":
            return method(inner_tx, AXIS, **options)
        return method(inner_tx, average, **options)
