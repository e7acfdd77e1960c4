"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._chip_costs import (
    ChipCost,
    GradientStateCost,
    chip_cost,
    gradient_state_cost,
)
from jaxqring.qmodels._chip_gradients import (
    ChipCircuit,
    ChipGradient,
    chip_gradient,
)
from jaxqring.qmodels._chips import (
    ChipBranches,
    ChipRun,
    chip_branches,
    fixed_chip,
    program,
    read_program,
)
from jaxqring.qmodels._circuit_gates import gates_from_circuit
from jaxqring.qmodels._circuits import (
    Circuit,
    from_tensorcircuit,
    hardware_efficient,
)
from jaxqring.qmodels._classifier import (
    QuantumClassifier,
    readout_values,
)
from jaxqring.qmodels._distributed import (
    DistributedRun,
    run_distributed,
)
from jaxqring.qmodels._gates import (
    Gate,
    GateList,
    qft,
    random_gates,
    ry_cz_ring,
)
from jaxqring.qmodels._holevo import (
    Leakage,
    holevo,
    leakage,
    symmetric_bound,
)
from jaxqring.qmodels._hop_noise import (
    GlobalDepolarizing,
)
from jaxqring.qmodels._hypergraph import (
    Hypergraph,
    Run,
    circuit_hypergraph,
)
from jaxqring.qmodels._parameter_shift import (
    ShotReport,
    parameter_shift,
    sampled_expectations,
)
from jaxqring.qmodels._parties import (
    TwoParty,
)
from jaxqring.qmodels._party_bounds import (
    LinearBounds,
    amplitude_crossover,
    classical_bound,
    gradient_bound,
    inference_bound,
    linear_classifier_bounds,
)
from jaxqring.qmodels._party_costs import (
    PartyCost,
    shots_for,
    two_party_cost,
)
from jaxqring.qmodels._party_estimators import (
    TwoPartyEstimate,
    two_party_gradients,
    two_party_loss,
)
from jaxqring.qmodels._plans import (
    CatCopy,
    CircuitPlan,
    plan_circuit,
)
from jaxqring.qmodels._remote import (
    GateFidelity,
    remote_gate,
    remote_gate_fidelity,
    teleport,
)
from jaxqring.qmodels._states import (
    amplitudes,
    z_values,
)
from jaxqring.qmodels._tensorcircuit_gates import (
    gates_from_tensorcircuit,
)
from jaxqring.qmodels._walker import (
    ControlLedger,
    WalkerRun,
    control_ledger,
    walker_gate,
)

__all__ = [
    "CatCopy",
    "ChipBranches",
    "ChipCircuit",
    "ChipCost",
    "ChipGradient",
    "ChipRun",
    "Circuit",
    "CircuitPlan",
    "ControlLedger",
    "DistributedRun",
    "Gate",
    "GateFidelity",
    "GateList",
    "GlobalDepolarizing",
    "GradientStateCost",
    "Hypergraph",
    "Leakage",
    "LinearBounds",
    "PartyCost",
    "QuantumClassifier",
    "Run",
    "ShotReport",
    "TwoParty",
    "TwoPartyEstimate",
    "WalkerRun",
    "amplitude_crossover",
    "amplitudes",
    "chip_branches",
    "chip_cost",
    "chip_gradient",
    "circuit_hypergraph",
    "classical_bound",
    "control_ledger",
    "fixed_chip",
    "from_tensorcircuit",
    "gates_from_circuit",
    "gates_from_tensorcircuit",
    "gradient_bound",
    "gradient_state_cost",
    "hardware_efficient",
    "holevo",
    "inference_bound",
    "leakage",
    "linear_classifier_bounds",
    "parameter_shift",
    "plan_circuit",
    "program",
    "qft",
    "random_gates",
    "read_program",
    "readout_values",
    "remote_gate",
    "remote_gate_fidelity",
    "run_distributed",
    "ry_cz_ring",
    "sampled_expectations",
    "shots_for",
    "symmetric_bound",
    "teleport",
    "two_party_cost",
    "two_party_gradients",
    "two_party_loss",
    "walker_gate",
    "z_values",
]
