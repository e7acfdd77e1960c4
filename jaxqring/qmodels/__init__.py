"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._hop_noise import GlobalDepolarizing
from jaxqring.qmodels._parties import TwoParty
from jaxqring.qmodels._party_estimators import (
    TwoPartyEstimate,
    two_party_gradients,
    two_party_loss,
)
from jaxqring.qmodels._states import amplitudes

__all__ = [
    "GlobalDepolarizing",
    "TwoParty",
    "TwoPartyEstimate",
    "amplitudes",
    "two_party_gradients",
    "two_party_loss",
]
