"""One directed link of the ring: physics to symbols, floats to symbols, symbols across."""

from jaxqring.link.superdense import SymbolChannel, superdense
from jaxqring.link.transport import moments, transmit
from jaxqring.link.wire import BFloat16, FixedPoint, Float32

__all__ = [
    "BFloat16",
    "FixedPoint",
    "Float32",
    "SymbolChannel",
    "moments",
    "superdense",
    "transmit",
]
