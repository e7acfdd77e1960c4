"""Claims of the papers behind this library, put to the test one by one: `jaxqring reproduce`."""

from jaxqring.claims._catalogue import CLAIMS
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._reproduction import Answer, ReproduceConfig, reproduce

__all__ = [
    "CLAIMS",
    "Answer",
    "Claim",
    "Effort",
    "Finding",
    "Number",
    "ReproduceConfig",
    "reproduce",
]
