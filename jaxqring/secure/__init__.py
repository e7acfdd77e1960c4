"""Secure aggregation inside the ring: masks from verified GHZ states, and what they are worth."""

from jaxqring.secure._attacks import PlantedSource, plus_states, purification_guess
from jaxqring.secure._bounds import epsilon
from jaxqring.secure._masks import masks, sum_error_law, universal_hash
from jaxqring.secure._planning import plan
from jaxqring.secure._secure_sums import Dropout, SecureReport, secure_pmean, secure_psum
from jaxqring.secure._security import Epsilon, Security
from jaxqring.secure._verification import Verification, verify
from jaxqring.secure._view import View, view

__all__ = [
    "Dropout",
    "Epsilon",
    "PlantedSource",
    "SecureReport",
    "Security",
    "Verification",
    "View",
    "epsilon",
    "masks",
    "plan",
    "plus_states",
    "purification_guess",
    "secure_pmean",
    "secure_psum",
    "sum_error_law",
    "universal_hash",
    "verify",
    "view",
]
