"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._hop_noise import GlobalDepolarizing, teleportation
from jaxqring.qmodels._parties import TwoParty
from jaxqring.qmodels._states import amplitudes

__all__ = ["GlobalDepolarizing", "TwoParty", "amplitudes", "teleportation"]
