"""Data-parallel Flax training whose gradient all-reduce is classical or travels a quantum ring."""

from jaxqring.train.config import TrainConfig, load_config
from jaxqring.train.loop import train

__all__ = ["TrainConfig", "load_config", "train"]
