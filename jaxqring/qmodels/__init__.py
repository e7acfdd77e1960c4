"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._chip_costs import (
    ChipCost,
    GradientStateCost,
    chip_cost,
    gradient_state_cost,
)
from jaxqring.qmodels._chip_gradients import ChipCircuit, ChipGradient, chip_gradient
from jaxqring.qmodels._chips import (
    ChipBranches,
    ChipRun,
    chip_branches,
    fixed_chip,
    program,
    read_program,
)
from jaxqring.qmodels._holevo import Leakage, holevo, leakage, symmetric_bound
from jaxqring.qmodels._party_bounds import (
    LinearBounds,
    amplitude_crossover,
    classical_bound,
    gradient_bound,
    inference_bound,
    linear_classifier_bounds,
)
from jaxqring.qmodels._party_costs import PartyCost, shots_for, two_party_cost
from jaxqring.qmodels._states import amplitudes

__all__ = [
    "ChipBranches",
    "ChipCircuit",
    "ChipCost",
    "ChipGradient",
    "ChipRun",
    "GradientStateCost",
    "Leakage",
    "LinearBounds",
    "PartyCost",
    "amplitude_crossover",
    "amplitudes",
    "chip_branches",
    "chip_cost",
    "chip_gradient",
    "classical_bound",
    "fixed_chip",
    "gradient_bound",
    "gradient_state_cost",
    "holevo",
    "inference_bound",
    "leakage",
    "linear_classifier_bounds",
    "program",
    "read_program",
    "shots_for",
    "symmetric_bound",
    "two_party_cost",
]
