"""Secure aggregation inside the ring: masks from verified GHZ states, and what they are worth."""

from jaxqring.secure.bounds import epsilon
from jaxqring.secure.collectives import Dropout, SecureReport, secure_pmean, secure_psum
from jaxqring.secure.masks import masks, sum_error_law, universal_hash
from jaxqring.secure.planning import plan
from jaxqring.secure.security import Epsilon, Security
from jaxqring.secure.verify import Verification, verify
from jaxqring.secure.view import View, view

__all__ = [
    "Dropout",
    "Epsilon",
    "SecureReport",
    "Security",
    "Verification",
    "View",
    "epsilon",
    "masks",
    "plan",
    "secure_pmean",
    "secure_psum",
    "sum_error_law",
    "universal_hash",
    "verify",
    "view",
]
