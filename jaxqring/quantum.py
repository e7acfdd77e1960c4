"""Earlier home of `jaxqring.physics`; gone with release 0.3."""

from typing import TYPE_CHECKING

from jaxqring._moved import moved

if not TYPE_CHECKING:  # so that type checkers know no name here
    __getattr__ = moved(
        __name__,
        {
            "jaxqring.physics.channels": (
                "Channel amplitude_damping bit_flip dephasing depolarizing from_kraus"
                " generalized_amplitude_damping identity pauli thermal_relaxation"
            ),
            "jaxqring.physics.ghz": "GHZSource fused",
            "jaxqring.physics.pairs": (
                "Pair bell_diagonal best_purification_time distill from_density_matrix"
                " hashing_yield swap werner"
            ),
            "jaxqring.secure": "PlantedSource plus_states purification_guess",
        },
    )
