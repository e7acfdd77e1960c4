"""One directed link of the ring: its symbol channel, and the transmission of symbols over it."""

from typing import TYPE_CHECKING

from jaxqring._moved import moved
from jaxqring.link._symbol_channel import SymbolChannel, superdense
from jaxqring.link._transport import moments, transmit

__all__ = [
    "SymbolChannel",
    "moments",
    "superdense",
    "transmit",
]

if not TYPE_CHECKING:  # names of earlier versions
    __getattr__ = moved(
        __name__,
        {
            "jaxqring.codec": "BFloat16 FixedPoint Float32",
            "jaxqring.codes": (
                "BlockCode IdealCode Retransmit Unequal bch hop_error reed_solomon repetition"
                " secded"
            ),
            "jaxqring.supply": "Supply expected_slowest generate hashed purify stock wait",
        },
    )
