"""The all-reduce of distributed training, carried by a simulated quantum ring."""

from jaxqring import quantum
from jaxqring.link import (
    BFloat16,
    FixedPoint,
    Float32,
    SymbolChannel,
    moments,
    superdense,
    transmit,
)
from jaxqring.quantum import *  # noqa: F403  (its __all__ is the list of channels and pairs)
from jaxqring.ring import (
    AllReduceState,
    Cost,
    Report,
    Ring,
    all_gather,
    all_reduce,
    pmean,
    psum,
    psum_scatter,
    replica_agreement,
)

__version__ = "0.1.0.dev0"
