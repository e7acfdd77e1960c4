"""Supplies of pairs for a link: generation, memories, purification, hashing."""

from jaxqring.supply._distillation import hashed, purify
from jaxqring.supply._generation import Supply, generate
from jaxqring.supply._memories import stock, wait
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
