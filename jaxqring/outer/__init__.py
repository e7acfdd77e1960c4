"""Outer loops: nodes that train by themselves and average every H steps, over any ring."""

from jaxqring.outer._averages import Average, AverageCounts, compressed, exact, over_ring, secure
from jaxqring.outer._loop import make_loop
from jaxqring.outer._nesterov import Nesterov, diloco, local_sgd
from jaxqring.outer._outer_types import Loop, Method, OuterState, Received
from jaxqring.outer._stability import largest_share, radius

__all__ = [
    "Average",
    "AverageCounts",
    "Loop",
    "Method",
    "Nesterov",
    "OuterState",
    "Received",
    "compressed",
    "diloco",
    "exact",
    "largest_share",
    "local_sgd",
    "make_loop",
    "over_ring",
    "radius",
    "secure",
]
