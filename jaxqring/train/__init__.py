"""Data, models and the training step, for one node and as one pure function."""

from typing import TYPE_CHECKING

from jaxqring._moved import moved
from jaxqring.train._datasets import DataConfig, Dataset, load
from jaxqring.train._membership import MembershipConfig, copies_lost
from jaxqring.train._models import MODELS
from jaxqring.train._quantum_model import QuantumConfig
from jaxqring.train._task import TaskConfig, training

__all__ = [
    "MODELS",
    "DataConfig",
    "Dataset",
    "MembershipConfig",
    "QuantumConfig",
    "TaskConfig",
    "copies_lost",
    "load",
    "training",
]

if not TYPE_CHECKING:  # names of earlier versions
    __getattr__ = moved(
        __name__,
        {
            "jaxqring.jobs": "TrainConfig load_config train",
        },
    )
