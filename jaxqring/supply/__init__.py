"""Where the pairs of a link come from: generation, memories, purification, hashing."""

from jaxqring.supply._pair_supply import Supply, generate, hashed, purify, stock, wait
from jaxqring.supply._waiting import expected_slowest

__all__ = [
    "Supply",
    "expected_slowest",
    "generate",
    "hashed",
    "purify",
    "stock",
    "wait",
]
