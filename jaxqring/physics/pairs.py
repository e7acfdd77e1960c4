"""EPR pairs, and their swapping, purification and hashing."""

from jaxqring.physics._pair import Pair, bell_diagonal, from_density_matrix, werner
from jaxqring.physics._pair_operations import best_purification_time, distill, hashing_yield, swap

__all__ = [
    "Pair",
    "bell_diagonal",
    "best_purification_time",
    "distill",
    "from_density_matrix",
    "hashing_yield",
    "swap",
    "werner",
]
