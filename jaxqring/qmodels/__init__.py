"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._hop_noise import GlobalDepolarizing, teleportation
from jaxqring.qmodels._parties import TwoParty
from jaxqring.qmodels._party_estimators import Estimate, two_party_gradients, two_party_loss
from jaxqring.qmodels._states import amplitudes

__all__ = [
    "Estimate",
    "GlobalDepolarizing",
    "TwoParty",
    "amplitudes",
    "teleportation",
    "two_party_gradients",
    "two_party_loss",
]
