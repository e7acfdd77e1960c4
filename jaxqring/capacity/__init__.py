"""Capacities of superdense coding, and the noise at which it breaks even."""

from jaxqring.capacity._closed_forms import (
    assisted_amplitude_damping,
    assisted_dephasing,
    assisted_depolarizing,
    assisted_erasure,
    assisted_generalized_amplitude_damping,
    damping_mutual_information,
    dense_coding_capacity,
    unassisted_amplitude_damping,
    unassisted_dephasing,
    unassisted_depolarizing,
    unassisted_erasure,
)
from jaxqring.capacity._limits import break_even, lifetime_uses, one_shot_success_bound, thresholds

__all__ = [
    "assisted_amplitude_damping",
    "assisted_dephasing",
    "assisted_depolarizing",
    "assisted_erasure",
    "assisted_generalized_amplitude_damping",
    "break_even",
    "damping_mutual_information",
    "dense_coding_capacity",
    "lifetime_uses",
    "one_shot_success_bound",
    "thresholds",
    "unassisted_amplitude_damping",
    "unassisted_dephasing",
    "unassisted_depolarizing",
    "unassisted_erasure",
]
