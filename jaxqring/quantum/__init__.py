"""What states and channels do: exact, tiny matrices; no ring, no training."""

from jaxqring.quantum.channels import (
    Channel,
    amplitude_damping,
    bit_flip,
    dephasing,
    depolarizing,
    from_kraus,
    generalized_amplitude_damping,
    identity,
    pauli,
    thermal_relaxation,
)
from jaxqring.quantum.ghz import (
    GHZSource,
    PlantedSource,
    fused,
    plus_states,
    purification_guess,
)
from jaxqring.quantum.operations import best_purification_time, distill, hashing_yield, swap
from jaxqring.quantum.pairs import Pair, bell_diagonal, from_density_matrix, werner

__all__ = [
    "Channel",
    "GHZSource",
    "Pair",
    "PlantedSource",
    "amplitude_damping",
    "bell_diagonal",
    "best_purification_time",
    "bit_flip",
    "dephasing",
    "depolarizing",
    "distill",
    "from_density_matrix",
    "from_kraus",
    "fused",
    "generalized_amplitude_damping",
    "hashing_yield",
    "identity",
    "pauli",
    "plus_states",
    "purification_guess",
    "swap",
    "thermal_relaxation",
    "werner",
]
