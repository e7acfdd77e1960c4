"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._distributed import DistributedRun, run_distributed
from jaxqring.qmodels._gates import Gate, GateList, qft, random_gates, ry_cz_ring
from jaxqring.qmodels._hypergraph import Hypergraph, Run, circuit_hypergraph
from jaxqring.qmodels._plans import CatCopy, CircuitPlan, plan_circuit
from jaxqring.qmodels._remote import GateFidelity, remote_gate, remote_gate_fidelity, teleport
from jaxqring.qmodels._states import amplitudes
from jaxqring.qmodels._tensorcircuit_gates import gates_from_tensorcircuit
from jaxqring.qmodels._walker import ControlLedger, WalkerRun, control_ledger, walker_gate

__all__ = [
    "CatCopy",
    "CircuitPlan",
    "ControlLedger",
    "DistributedRun",
    "Gate",
    "GateFidelity",
    "GateList",
    "Hypergraph",
    "Run",
    "WalkerRun",
    "amplitudes",
    "circuit_hypergraph",
    "control_ledger",
    "gates_from_tensorcircuit",
    "plan_circuit",
    "qft",
    "random_gates",
    "remote_gate",
    "remote_gate_fidelity",
    "run_distributed",
    "ry_cz_ring",
    "teleport",
    "walker_gate",
]
