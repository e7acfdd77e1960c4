"""The outer loop of a training, as a part of a configuration."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import optax

from jaxqring import _checks as checks
from jaxqring._fields import NOT_NEGATIVE, check_fields, no_other_keys
from jaxqring._types import Key
from jaxqring.compress import Compressor
from jaxqring.outer import (
    Average,
    Loop,
    co2,
    compressed,
    diloco,
    local_sgd,
    noloco,
    over_ring,
    scafcom,
    scaffold,
    scallion,
)
from jaxqring.ring import Ring
from jaxqring.train._objective import AXIS

#: The options of each method.
OPTIONS: dict[str, tuple[str, ...]] = {
    "average": (),
    "diloco": ("outer_rate", "momentum", "fragments", "overlap", "blend"),
    "delayed": ("outer_rate", "momentum"),
    "eager": ("outer_rate", "momentum"),
    "co2": ("outer_rate", "momentum", "clip"),
    "noloco": ("outer_rate", "momentum", "consensus"),
    "neighbours": ("outer_rate", "momentum", "consensus"),
    "scaffold": ("outer_rate",),
    "scallion": ("outer_rate", "scale"),
    "scafcom": ("outer_rate", "momentum"),
}
#: The options that a method has no default for.
REQUIRED = {"scallion": "scale", "scafcom": "momentum"}
#: Methods whose inner steps are those of SGD without momentum, at a constant rate.
CONTROLLED = ("scaffold", "scallion", "scafcom")
#: Methods with a compressor of their own.
COMPRESSED = ("scallion", "scafcom")
#: The partners in methods of pairs.
PAIRS: dict[str, Literal["random", "neighbours"]] = {"noloco": "random", "neighbours": "neighbours"}


class Inner(NamedTuple):
    """The inner steps of a loop.

    Attributes:
      optimizer: where the method leaves it open.
      rate: the learning rate of SGD, where it does not.
    """

    optimizer: optax.GradientTransformation
    rate: float


def build_loop(
    method: str,
    given: Mapping[str, Any],
    inner: Inner,
    *,
    every: int,
    ring: Ring,
    compressor: Compressor | None,
    key: Key | None,
) -> Loop:
    """The loop of a method, over the axis of nodes.

    Args:
      method: a name in `OPTIONS`.
      given: its options that are given.
      inner: its inner steps.
      every: H.
      ring: that averages.
      compressor: of what a round sends; None for all of it.
      key: of all rounds.

    Raises:
      ValueError: as the loop.
    """
    options = {name if name != "outer_rate" else "learning_rate": given[name] for name in given}
    options |= {"every": every, "key": key}
    if method in COMPRESSED:
        build = scallion if method == "scallion" else scafcom
        assert compressor is not None  # or the configuration was refused
        return build(compressor, ring, AXIS, inner_rate=inner.rate, **options)
    if method in PAIRS:
        return noloco(inner.optimizer, AXIS, pairs=PAIRS[method], **options)
    average: Average = over_ring(ring, AXIS)
    if compressor is not None:
        average = compressed(compressor, ring, AXIS)
    if method == "scaffold":
        return scaffold(average, inner_rate=inner.rate, **options)
    if method == "average":
        return local_sgd(inner.optimizer, average, **options)
    if method == "co2":
        return co2(inner.optimizer, average, **options)
    if method != "diloco":
        options[method] = True
    return diloco(inner.optimizer, average, **options)


def check_options(config: Any, options: Mapping[str, tuple[str, ...]], prefix: str) -> None:
    """Refuses options of other methods than that of a configuration, and the lack of one.

    Raises:
      ValueError: if an option of another method is given, or one without a default is not.
    """
    needed = REQUIRED.get(config.method)
    if needed is not None and getattr(config, needed) is None:
        checks.refuse(f"{prefix}.{needed}", f'be given for "{config.method}"', None)
    for name in sorted({name for each in options.values() for name in each}):
        if name not in options[config.method] and getattr(config, name) is not None:
            rule = f'be left out of "{config.method}"'
            checks.refuse(f"{prefix}.{name}", rule, getattr(config, name))


@no_other_keys
@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Local steps with a round every H of them. An option that is left out is that of the method.

    Attributes:
      method: a loop of `jaxqring.outer`: "average" (`local_sgd`), "diloco" (streaming with
        `fragments`), "delayed", "eager", "co2", "noloco" with random pairs and "neighbours" with
        those next to each other, "scaffold", "scallion" or "scafcom".
      every: H, inner steps of a round.
      outer_rate: learning rate of the outer step.
      momentum: of the outer step; of "scafcom" the weight of the newest gradient.
      fragments: of "diloco": parts with rounds of their own.
      overlap: of "diloco": inner steps from sending to receiving.
      blend: of "diloco": weight of a node's own parameters.
      clip: of "co2".
      consensus: of pairs: weight of the pull towards the partner.
      scale: of "scallion".

    Raises:
      TypeError: if a number is not real.
      ValueError: if the method is unknown, an option is that of another method, or the momentum of
        "scafcom" or the scale of "scallion" is left out.
    """

    method: Literal[
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
    ] = "diloco"
    every: int = 10
    outer_rate: float | None = None
    momentum: float | None = None
    fragments: int | None = None
    overlap: int | None = dataclasses.field(default=None, metadata=NOT_NEGATIVE)
    blend: float | None = None
    clip: float | None = None
    consensus: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "outer.")
        check_options(self, OPTIONS, "outer")

    def given(self) -> dict[str, Any]:
        """The options that are given."""
        found = {name: getattr(self, name) for name in OPTIONS[self.method]}
        return {name: value for name, value in found.items() if value is not None}
