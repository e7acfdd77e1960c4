"""Aggregation among nodes that may lie: rules, lies, robust means over a ring, and audits."""

from jaxqring.robust._clipping import CentredClipping, clipped_projections, worker_momentum
from jaxqring.robust._coordinate_rules import Mean, Median, TrimmedMean
from jaxqring.robust._distance_rules import Bucketing, Krum, NearestNeighbourMixing
from jaxqring.robust._equivocation import relayed
from jaxqring.robust._fedvote import (
    ballot,
    credibility,
    fedvote,
    latent_of,
    majority_probability,
    vote_weights,
)
from jaxqring.robust._flag import Flag
from jaxqring.robust._gas import GAS
from jaxqring.robust._group_odds import spoilt_groups
from jaxqring.robust._lies import (
    Attack,
    DelayedGradient,
    HugeEntries,
    InnerProduct,
    LittleIsEnough,
    Mimic,
    ScaleAttack,
    SignFlip,
    alie_z,
    attacked,
    flipped_labels,
)
from jaxqring.robust._recheck import Catch, agreed, digest, recheck, steps_to_catch, subjects
from jaxqring.robust._robust_cost import robust_cost
from jaxqring.robust._robust_report import RobustReport
from jaxqring.robust._rule import Aggregate, Rule
from jaxqring.robust._topologies import robust_pmean

__all__ = [
    "GAS",
    "Aggregate",
    "Attack",
    "Bucketing",
    "Catch",
    "CentredClipping",
    "DelayedGradient",
    "Flag",
    "HugeEntries",
    "InnerProduct",
    "Krum",
    "LittleIsEnough",
    "Mean",
    "Median",
    "Mimic",
    "NearestNeighbourMixing",
    "RobustReport",
    "Rule",
    "ScaleAttack",
    "SignFlip",
    "TrimmedMean",
    "agreed",
    "alie_z",
    "attacked",
    "ballot",
    "clipped_projections",
    "credibility",
    "digest",
    "fedvote",
    "flipped_labels",
    "latent_of",
    "majority_probability",
    "recheck",
    "relayed",
    "robust_cost",
    "robust_pmean",
    "spoilt_groups",
    "steps_to_catch",
    "subjects",
    "vote_weights",
    "worker_momentum",
]
