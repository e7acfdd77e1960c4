"""N links closed into a ring: the collectives, what they cost, and the Optax transformation."""

from jaxqring.ring.budget import Budget, break_even_fidelity, budget
from jaxqring.ring.collectives import all_gather, pmean, psum, psum_scatter
from jaxqring.ring.config import Ring
from jaxqring.ring.cost import Cost
from jaxqring.ring.differences import couple, finite_difference
from jaxqring.ring.estimators import expected
from jaxqring.ring.exact import chain_law
from jaxqring.ring.optimizer import AllReduceState, all_reduce
from jaxqring.ring.report import Report, replica_agreement

__all__ = [
    "AllReduceState",
    "Budget",
    "Cost",
    "Report",
    "Ring",
    "all_gather",
    "all_reduce",
    "break_even_fidelity",
    "budget",
    "chain_law",
    "couple",
    "expected",
    "finite_difference",
    "pmean",
    "psum",
    "psum_scatter",
    "replica_agreement",
]
