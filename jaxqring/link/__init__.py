"""One directed link of the ring: its symbol channel, and the transmission of symbols over it."""

from jaxqring.link._symbol_channel import SymbolChannel, superdense
from jaxqring.link._transport import moments, transmit

__all__ = [
    "SymbolChannel",
    "moments",
    "superdense",
    "transmit",
]
