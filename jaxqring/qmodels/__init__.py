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
from jaxqring.qmodels._circuits import Circuit, from_tensorcircuit, hardware_efficient
from jaxqring.qmodels._classifier import QuantumClassifier, readout_values
from jaxqring.qmodels._holevo import Leakage, holevo, leakage, symmetric_bound
from jaxqring.qmodels._parameter_shift import ShotReport, parameter_shift, sampled_expectations
from jaxqring.qmodels._party_bounds import (
    LinearBounds,
    amplitude_crossover,
    classical_bound,
    gradient_bound,
    inference_bound,
    linear_classifier_bounds,
)
from jaxqring.qmodels._party_costs import PartyCost, shots_for, two_party_cost
from jaxqring.qmodels._states import amplitudes, z_values

__all__ = [
    "ChipBranches",
    "ChipCircuit",
    "ChipCost",
    "ChipGradient",
    "ChipRun",
    "Circuit",
    "GradientStateCost",
    "Leakage",
    "LinearBounds",
    "PartyCost",
    "QuantumClassifier",
    "ShotReport",
    "amplitude_crossover",
    "amplitudes",
    "chip_branches",
    "chip_cost",
    "chip_gradient",
    "classical_bound",
    "fixed_chip",
    "from_tensorcircuit",
    "gradient_bound",
    "gradient_state_cost",
    "hardware_efficient",
    "holevo",
    "inference_bound",
    "leakage",
    "linear_classifier_bounds",
    "parameter_shift",
    "program",
    "read_program",
    "readout_values",
    "sampled_expectations",
    "shots_for",
    "symmetric_bound",
    "two_party_cost",
    "z_values",
]
