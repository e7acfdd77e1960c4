"""Gradient inversion: the images that gradients show, compressed or masked, to who sees them."""

from jaxqring.inversion._adversaries import ADVERSARIES, Adversary, attack, can_be_masked, seen
from jaxqring.inversion._attack import (
    AttackSettings,
    Reconstruction,
    cosine_distance,
    invert,
    ssim,
    total_variation,
)
from jaxqring.inversion._closed_form import image_in_factor
from jaxqring.inversion._observer import Observer, Sent, delivered, message_map, messages
from jaxqring.inversion._victims import VICTIMS, Victim, VictimName, victim

__all__ = [
    "ADVERSARIES",
    "VICTIMS",
    "Adversary",
    "AttackSettings",
    "Observer",
    "Reconstruction",
    "Sent",
    "Victim",
    "VictimName",
    "attack",
    "can_be_masked",
    "cosine_distance",
    "delivered",
    "image_in_factor",
    "invert",
    "message_map",
    "messages",
    "seen",
    "ssim",
    "total_variation",
    "victim",
]
