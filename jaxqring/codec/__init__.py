"""Formats of numbers on the wire, and their packing into two-bit symbols."""

from jaxqring.codec._counts import Counts
from jaxqring.codec._formats import BFloat16, FixedPoint, Float32, WireFormat
from jaxqring.codec._log_levels import LogLevels

__all__ = [
    "BFloat16",
    "Counts",
    "FixedPoint",
    "Float32",
    "LogLevels",
    "WireFormat",
]
