"""Learning models that are quantum, and models and circuits that are spread over nodes."""

from jaxqring.qmodels._states import amplitudes

__all__ = ["amplitudes"]
