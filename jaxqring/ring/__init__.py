"""N links closed into a ring: the collectives, what they cost, and the Optax transformation."""

from typing import TYPE_CHECKING

from jaxqring._moved import moved
from jaxqring.ring._collectives import all_gather, pmean, psum, psum_scatter
from jaxqring.ring._cost import Cost, Hops
from jaxqring.ring._optimizer import AllReduceState, all_reduce
from jaxqring.ring._report import Report, replica_agreement
from jaxqring.ring._ring import Ring

__all__ = [
    "AllReduceState",
    "Cost",
    "Hops",
    "Report",
    "Ring",
    "all_gather",
    "all_reduce",
    "pmean",
    "psum",
    "psum_scatter",
    "replica_agreement",
]

if not TYPE_CHECKING:  # names of earlier versions
    __getattr__ = moved(
        __name__,
        {
            "jaxqring.economics": "Budget break_even_fidelity budget",
            "jaxqring.gradients": "chain_law couple expected finite_difference",
        },
    )
