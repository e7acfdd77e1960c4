"""Data, models and the training step, for one node and as one pure function."""

from jaxqring.train._datasets import DataConfig, Dataset, load
from jaxqring.train._models import MODELS
from jaxqring.train._task import TaskConfig, training

__all__ = [
    "MODELS",
    "DataConfig",
    "Dataset",
    "TaskConfig",
    "load",
    "training",
]
