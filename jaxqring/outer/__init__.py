"""Outer loops."""

from jaxqring.outer._arrivals import Arrivals, arrival_bits, arrivals, dylu
from jaxqring.outer._asynchronous import (
    AsynchronousResult,
    DelayedNesterovState,
    Server,
    delayed_nesterov,
    run_arrivals,
)
from jaxqring.outer._rounds_in_time import RoundTime, round_time
