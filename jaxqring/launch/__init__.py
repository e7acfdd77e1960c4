"""Jobs of several processes: how they find each other, and who starts them again."""

from jaxqring.launch._processes import World, gathered, initialize, is_first, wait_for_all
from jaxqring.launch._supervisor import supervise

__all__ = ["World", "gathered", "initialize", "is_first", "supervise", "wait_for_all"]
