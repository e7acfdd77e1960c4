"""Outer loops: nodes that train by themselves and average every H steps, over any ring."""

from jaxqring.outer._arrivals import Arrivals, arrival_bits, arrivals, dylu
from jaxqring.outer._asynchronous import (
    AsynchronousResult,
    DelayedNesterovState,
    Server,
    delayed_nesterov,
    run_arrivals,
)
from jaxqring.outer._averages import Average, AverageCounts, compressed, exact, over_ring, secure
from jaxqring.outer._co2 import CO2State, co2
from jaxqring.outer._loop import make_loop
from jaxqring.outer._nesterov import Nesterov, diloco, local_sgd
from jaxqring.outer._noloco import NoLoCoState, in_pairs, noloco
from jaxqring.outer._outer_types import Loop, Method, OuterState, Received
from jaxqring.outer._pair_stability import largest_consensus, pair_cost, pair_radius
from jaxqring.outer._rounds_in_time import RoundTime, round_time
from jaxqring.outer._scaffold import Control, scafcom, scaffold, scallion
from jaxqring.outer._stability import largest_share, radius

__all__ = [
    "Arrivals",
    "AsynchronousResult",
    "Average",
    "AverageCounts",
    "CO2State",
    "Control",
    "DelayedNesterovState",
    "Loop",
    "Method",
    "Nesterov",
    "NoLoCoState",
    "OuterState",
    "Received",
    "RoundTime",
    "Server",
    "arrival_bits",
    "arrivals",
    "co2",
    "compressed",
    "delayed_nesterov",
    "diloco",
    "dylu",
    "exact",
    "in_pairs",
    "largest_consensus",
    "largest_share",
    "local_sgd",
    "make_loop",
    "noloco",
    "over_ring",
    "pair_cost",
    "pair_radius",
    "radius",
    "round_time",
    "run_arrivals",
    "scafcom",
    "scaffold",
    "scallion",
    "secure",
]
