"""The all-reduce of distributed training, carried by a simulated quantum ring.

What a training script needs is here; everything else has a namespace, which is a room of the
package: `jaxqring.channels`, `pairs`, `ghz`, `information`, `capacity`, `link`, `codec`, `codes`,
`supply`, `ring`, `gradients`, `economics`, `secure`, `audit`, `control`, `qmodels`, `compress`,
`outer`, `robust`, `train`, `sweeps`, `inversion`, `launch`, `jobs`, `show`, `claims` and
`interop`.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from jaxqring import audit, capacity, codec, codes, economics, gradients, link, ring, secure, supply
from jaxqring.codec import BFloat16, FixedPoint, Float32
from jaxqring.codes import Retransmit, reed_solomon
from jaxqring.gradients import expected
from jaxqring.link import SymbolChannel, moments, superdense, transmit
from jaxqring.physics import channels, ghz, information, pairs
from jaxqring.physics.channels import (
    Channel,
    amplitude_damping,
    bit_flip,
    dephasing,
    depolarizing,
    from_kraus,
    generalized_amplitude_damping,
    pauli,
    thermal_relaxation,
)
from jaxqring.physics.ghz import GHZSource
from jaxqring.physics.pairs import (
    Pair,
    bell_diagonal,
    distill,
    from_density_matrix,
    swap,
    werner,
)
from jaxqring.ring import (
    Cost,
    Report,
    Ring,
    all_gather,
    all_reduce,
    pmean,
    psum,
    psum_scatter,
)
from jaxqring.secure import secure_pmean, secure_psum

if TYPE_CHECKING:
    from jaxqring import (
        claims,
        compress,
        control,
        interop,
        inversion,
        jobs,
        launch,
        outer,
        qmodels,
        robust,
        show,
        sweeps,
        train,
    )
    from jaxqring.sweeps import sensitivity, sweep

__all__ = [
    "BFloat16",
    "Channel",
    "Cost",
    "FixedPoint",
    "Float32",
    "GHZSource",
    "Pair",
    "Report",
    "Retransmit",
    "Ring",
    "SymbolChannel",
    "all_gather",
    "all_reduce",
    "amplitude_damping",
    "audit",
    "bell_diagonal",
    "bit_flip",
    "capacity",
    "channels",
    "claims",
    "codec",
    "codes",
    "compress",
    "control",
    "dephasing",
    "depolarizing",
    "distill",
    "economics",
    "expected",
    "from_density_matrix",
    "from_kraus",
    "generalized_amplitude_damping",
    "ghz",
    "gradients",
    "information",
    "interop",
    "inversion",
    "jobs",
    "launch",
    "link",
    "moments",
    "outer",
    "pairs",
    "pauli",
    "pmean",
    "psum",
    "psum_scatter",
    "qmodels",
    "reed_solomon",
    "ring",
    "robust",
    "secure",
    "secure_pmean",
    "secure_psum",
    "sensitivity",
    "show",
    "superdense",
    "supply",
    "swap",
    "sweep",
    "sweeps",
    "thermal_relaxation",
    "train",
    "transmit",
    "werner",
]

__version__ = "0.2.0"

#: Names that few programs use and that take their time to import, loaded when they are asked for.
_LATE = {
    "claims": "jaxqring.claims",
    "compress": "jaxqring.compress",
    "control": "jaxqring.control",
    "interop": "jaxqring.interop",
    "inversion": "jaxqring.inversion",
    "jobs": "jaxqring.jobs",
    "launch": "jaxqring.launch",
    "outer": "jaxqring.outer",
    "qmodels": "jaxqring.qmodels",
    "robust": "jaxqring.robust",
    "sensitivity": "jaxqring.sweeps",
    "show": "jaxqring.show",
    "sweep": "jaxqring.sweeps",
    "sweeps": "jaxqring.sweeps",
    "train": "jaxqring.train",
}

#: Names of earlier versions, by the namespace that they are in now. Gone with release 0.3.
_MOVED = {
    "audit": (
        "GapPlan GapResult TieNoise TieResult crossover crossover_gap crossover_size decision_error"
        " gap_ip plan_gap_ip plan_subset_audit plan_tie_audit simhash simhash_bits subset_audit"
        " tie_audit"
    ),
    "channels": "identity",
    "codes": "BlockCode IdealCode Unequal bch hop_error repetition secded",
    "economics": "Budget break_even_fidelity budget",
    "ghz": "fused",
    "gradients": "chain_law couple finite_difference",
    "pairs": "best_purification_time hashing_yield",
    "ring": "AllReduceState replica_agreement",
    "secure": (
        "Dropout Epsilon PlantedSource SecureReport Security epsilon masks plan plus_states"
        " purification_guess sum_error_law universal_hash verify view"
    ),
    "supply": "Supply expected_slowest generate hashed purify stock wait",
}
_PLACES = {name: room for room, names in _MOVED.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        module = importlib.import_module(_LATE[name])
        found = module if module.__name__ == f"jaxqring.{name}" else getattr(module, name)
        globals()[name] = found
        return found
    if name in _PLACES:
        room = _PLACES[name]
        warnings.warn(
            f"`jaxqring.{name}` is `jaxqring.{room}.{name}` now; the old name goes with release"
            " 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(globals()[room], name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
