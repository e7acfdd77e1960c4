"""Gradient inversion: the images that gradients show, compressed or masked, to who sees them."""

from jaxqring.inversion._adversaries import (
    ADVERSARIES,
    Attacker,
    can_be_masked,
    seen,
)
from jaxqring.inversion._attack import (
    AttackSettings,
    Reconstruction,
    cosine_distance,
    invert,
    ssim,
    total_variation,
)
from jaxqring.inversion._closed_form import image_in_factor
from jaxqring.inversion._observer import Observed, Observer, Sent, observe
from jaxqring.inversion._victims import VICTIMS, Victim, victim

__all__ = [
    "ADVERSARIES",
    "VICTIMS",
    "AttackSettings",
    "Attacker",
    "Observed",
    "Observer",
    "Reconstruction",
    "Sent",
    "Victim",
    "can_be_masked",
    "cosine_distance",
    "image_in_factor",
    "invert",
    "observe",
    "seen",
    "ssim",
    "total_variation",
    "victim",
]
