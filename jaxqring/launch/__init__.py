"""Jobs of several processes: how they find each other, and who starts them again."""

from jaxqring.launch._checkpoints import checkpoint_interval
from jaxqring.launch._processes import World, initialize
from jaxqring.launch._stopping import Stopped
from jaxqring.launch._supervisor import supervise

__all__ = ["Stopped", "World", "checkpoint_interval", "initialize", "supervise"]
