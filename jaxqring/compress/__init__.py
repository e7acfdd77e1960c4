"""Gradient compression ahead of the ring: methods, their costs, and the collective they share."""

from jaxqring.compress._codes import Levels, Linear, Logarithmic, Sign, Ternary
from jaxqring.compress._collective import compressed_pmean
from jaxqring.compress._compressor import Compressor
from jaxqring.compress._demo import DeMo
from jaxqring.compress._elementwise import QSGD, SignVote, TernGrad, Uncompressed
from jaxqring.compress._exchange import Exchange
from jaxqring.compress._low_rank import LQSGD, LowRankState, PowerSGD
from jaxqring.compress._message import Message, Traffic, star_cost
from jaxqring.compress._optimizer import CompressState, all_reduce
from jaxqring.compress._report import CompressReport
from jaxqring.compress._sparse import DGC, RandomK, TopK

__all__ = [
    "DGC",
    "LQSGD",
    "QSGD",
    "CompressReport",
    "CompressState",
    "Compressor",
    "DeMo",
    "Exchange",
    "Levels",
    "Linear",
    "Logarithmic",
    "LowRankState",
    "Message",
    "PowerSGD",
    "RandomK",
    "Sign",
    "SignVote",
    "TernGrad",
    "Ternary",
    "TopK",
    "Traffic",
    "Uncompressed",
    "all_reduce",
    "compressed_pmean",
    "star_cost",
]
