"""The states that a training job has saved, for the tests of jobs."""

import contextlib

import jax
import pytest
from flax import serialization

from jaxqring.jobs._training_folder import checkpoint_path
from jaxqring.jobs._training_job import _initial_state
from jaxqring.jobs._training_loop import restored
from jaxqring.jobs._training_losses import with_losses
from jaxqring.launch._checkpoints import Checkpoints
from jaxqring.train import _datasets as datasets
from jaxqring.train._placement import Placement


def last_state(config, name):
    """The state dict of the last checkpoint of a run, with a row for each node, and its step."""
    config = with_losses(config)
    (run,) = [run for run in config.runs if run.name == name]
    initial = _initial_state(run, config, datasets.load(config.data))
    placement = Placement("vmap", (jax.devices()[0],), config.nodes)
    checkpoints = Checkpoints(checkpoint_path(config.folder, name))
    point = restored(run, config, initial, placement, checkpoints)
    return serialization.to_state_dict(point.state), point.done


class CutError(BaseException):
    """The end of a process, wherever it strikes."""


@contextlib.contextmanager
def cut_off(monkeypatch):
    """Cuts a training off when its first checkpoint is whole."""
    save = Checkpoints.save

    def cut(checkpoints, step, state):
        save(checkpoints, step, state)
        checkpoints.wait()
        raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", cut)
        with pytest.raises(CutError):
            yield
