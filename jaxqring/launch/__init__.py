"""Jobs of several processes: how they find each other, and who starts them again."""

from jaxqring.launch._processes import World, initialize
from jaxqring.launch._supervisor import supervise

__all__ = ["World", "initialize", "supervise"]
