"""Sweeps over parameters and derivatives with error bars, resumable, on all devices."""

from jaxqring.sweeps._sensitivity import sensitivity
from jaxqring.sweeps._sweep import sweep

__all__ = [
    "sensitivity",
    "sweep",
]
