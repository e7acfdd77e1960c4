"""One directed link of the ring: from physics to symbols, and symbols across."""

from jaxqring.link._symbol_channel import SymbolChannel, superdense
from jaxqring.link._transport import moments, transmit

__all__ = [
    "SymbolChannel",
    "moments",
    "superdense",
    "transmit",
]
