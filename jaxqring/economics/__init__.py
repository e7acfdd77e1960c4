"""The bill of a ring: qubits, pairs, time, and when the factor of two is left."""

from jaxqring.economics._budget import Budget, break_even_fidelity, budget

__all__ = [
    "Budget",
    "break_even_fidelity",
    "budget",
]
