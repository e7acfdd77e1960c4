"""Error-correcting codes and retransmission, and the simulation of a protected link."""

from jaxqring.codes._bch import bch
from jaxqring.codes._block_codes import BlockCode, reed_solomon, repetition, secded
from jaxqring.codes._protection import IdealCode, Retransmit, Unequal, hop_error

__all__ = [
    "BlockCode",
    "IdealCode",
    "Retransmit",
    "Unequal",
    "bch",
    "hop_error",
    "reed_solomon",
    "repetition",
    "secded",
]
