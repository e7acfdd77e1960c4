"""Channels, EPR pairs, GHZ states and their information: exact, tiny matrices."""

from jaxqring.physics import channels, ghz, information, pairs

__all__ = ["channels", "ghz", "information", "pairs"]
