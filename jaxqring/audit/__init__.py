"""After the ring: do gradients conflict? GapIP and TieAudit, with their classical rivals."""

from jaxqring.audit._gap_ip import GapPlan, GapResult, decision_error, gap_ip, plan_gap_ip
from jaxqring.audit._rivals import Crossover, crossover, crossover_gap, simhash, simhash_bits
from jaxqring.audit._tie_audit import TieResult, subset_audit, tie_audit
from jaxqring.audit._tie_plans import (
    TieNoise,
    TiePlan,
    crossover_size,
    plan_subset_audit,
    plan_tie_audit,
)

__all__ = [
    "Crossover",
    "GapPlan",
    "GapResult",
    "TieNoise",
    "TiePlan",
    "TieResult",
    "crossover",
    "crossover_gap",
    "crossover_size",
    "decision_error",
    "gap_ip",
    "plan_gap_ip",
    "plan_subset_audit",
    "plan_tie_audit",
    "simhash",
    "simhash_bits",
    "subset_audit",
    "tie_audit",
]
