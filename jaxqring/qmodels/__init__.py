"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._circuits import Circuit, from_tensorcircuit, hardware_efficient
from jaxqring.qmodels._classifier import QuantumClassifier, readout_values
from jaxqring.qmodels._parameter_shift import ShotReport, parameter_shift, sampled_expectations
from jaxqring.qmodels._states import amplitudes, z_values

__all__ = [
    "Circuit",
    "QuantumClassifier",
    "ShotReport",
    "amplitudes",
    "from_tensorcircuit",
    "hardware_efficient",
    "parameter_shift",
    "readout_values",
    "sampled_expectations",
    "z_values",
]
