"""One directed link of the ring: physics to symbols, floats to symbols, symbols across."""

from jaxqring.link.codes import BlockCode, bch, reed_solomon, repetition, secded
from jaxqring.link.protection import IdealCode, Retransmit, Unequal, hop_error
from jaxqring.link.superdense import SymbolChannel, superdense
from jaxqring.link.supply import (
    Supply,
    generate,
    hashed,
    purify,
    stock,
    wait,
)
from jaxqring.link.transport import moments, transmit
from jaxqring.link.waiting import expected_slowest
from jaxqring.link.wire import BFloat16, FixedPoint, Float32

__all__ = [
    "BFloat16",
    "BlockCode",
    "FixedPoint",
    "Float32",
    "IdealCode",
    "Retransmit",
    "Supply",
    "SymbolChannel",
    "Unequal",
    "bch",
    "expected_slowest",
    "generate",
    "hashed",
    "hop_error",
    "moments",
    "purify",
    "reed_solomon",
    "repetition",
    "secded",
    "stock",
    "superdense",
    "transmit",
    "wait",
]
