"""Secure aggregation inside the ring: masks from verified GHZ states, and what they are worth."""

from jaxqring.secure.collectives import Dropout, SecureReport, secure_pmean, secure_psum
from jaxqring.secure.masks import masks, sum_error_law
from jaxqring.secure.security import Security
from jaxqring.secure.verify import Verification, verify
from jaxqring.secure.view import View, view

__all__ = [
    "Dropout",
    "SecureReport",
    "Security",
    "Verification",
    "View",
    "masks",
    "secure_pmean",
    "secure_psum",
    "sum_error_law",
    "verify",
    "view",
]
