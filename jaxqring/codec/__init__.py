"""Formats of numbers on the wire, and their packing into two-bit symbols."""

from jaxqring.codec._formats import BFloat16, FixedPoint, Float32, WireFormat

__all__ = [
    "BFloat16",
    "FixedPoint",
    "Float32",
    "WireFormat",
]
