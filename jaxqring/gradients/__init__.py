"""Derivatives of a training with respect to the physics of its links."""

from jaxqring.gradients._differences import couple, finite_difference
from jaxqring.gradients._estimators import expected
from jaxqring.ring._exact import chain_law

__all__ = [
    "chain_law",
    "couple",
    "expected",
    "finite_difference",
]
