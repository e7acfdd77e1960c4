"""The noise of links in every job: each parameter of superdense coding under a name of its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._fields import no_other_keys
from jaxqring.link import SymbolChannel, superdense
from jaxqring.physics.channels import amplitude_damping, dephasing, depolarizing
from jaxqring.physics.pairs import werner


@no_other_keys
@dataclasses.dataclass(frozen=True)
class LinkConfig:
    """The noise of every link of a ring.

    Attributes:
      fidelity: of the Werner pairs, in [1/4, 1].
      error_prob: total Pauli error of the depolarizing channel on the sent half, in [0, 1].
      dephasing: probability of Z on the stored half, in [0, 1]; phases are lost at 1/2.
      gamma: probability that the sent half has decayed, in [0, 1], before it is depolarized.
      gate_error: weight of white noise in the Bell measurement, in [0, 1].
      readout_error: probability that a measured bit is read wrongly, in [0, 1].
      survival: probability that both halves arrive, in [0, 1]; a loss is not flagged.
    """

    fidelity: float = 1.0
    error_prob: float = 0.0
    dephasing: float = 0.0
    gamma: float = 0.0
    gate_error: float = 0.0
    readout_error: float = 0.0
    survival: float = 1.0

    def __post_init__(self) -> None:
        check_link("link.", self)

    def channel(self, parameters: Mapping[str, ArrayLike] | None = None) -> SymbolChannel:
        """The symbol channel of a link, with these values in place of its own.

        Args:
          parameters: () or (N,) values by name, concrete or traced.

        Returns:
          A `SymbolChannel` of their batch shape.

        Raises:
          ValueError: if a name is not that of a parameter, or a concrete value is out of range.

        >>> link = LinkConfig(fidelity=0.99).channel({"readout_error": 0.01})
        >>> round(float(link.error_prob), 4)
        0.0296
        """
        parameters = parameters or {}
        for name in parameters:
            checks.one_of("parameters", name, PARAMETERS)
        at: dict[str, Any] = {**dataclasses.asdict(self), **parameters}
        damped = amplitude_damping(gamma=at["gamma"])
        return superdense(
            werner(fidelity=at["fidelity"]),
            sent=damped.then(depolarizing(error_prob=at["error_prob"])),
            kept=dephasing(error_prob=at["dephasing"]),
            gate_error=at["gate_error"],
            readout_error=at["readout_error"],
            survival=at["survival"],
        )


#: Names of the parameters of a link, which a sweep can vary and a sensitivity differentiate.
PARAMETERS = tuple(field.name for field in dataclasses.fields(LinkConfig))


def check_link(prefix: str, config: Any) -> None:
    """Refuses a configuration with a parameter of a link that is out of range.

    Args:
      prefix: of the names of parameters in refusals.
      config: has each of `PARAMETERS` as an attribute.

    Raises:
      TypeError: if a value is not real.
      ValueError: if one is out of range.
    """
    for name in PARAMETERS:
        check_parameter(prefix + name, name, getattr(config, name))


def check_parameter(argument: str, name: str, value: ArrayLike) -> None:
    """Refuses concrete values that parameter `name` of a link cannot have.

    Touches no device: a job may still choose how many there are.

    Raises:
      TypeError: if a value is not real.
      ValueError: if one is out of range.
    """
    checks.within(argument, value, 0.25 if name == "fidelity" else 0.0, 1.0)
