"""Sweeps over parameters and derivatives with error bars, resumable, on all devices."""

from jaxqring.sweeps._sensitivity import sensitivity
from jaxqring.sweeps._sweep import sweep
from jaxqring.sweeps._tidy_table import Table

__all__ = [
    "Table",
    "sensitivity",
    "sweep",
]
