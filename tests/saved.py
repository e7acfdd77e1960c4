"""What a training job has saved, for the tests of jobs."""

from flax import serialization

from jaxqring.jobs._training_folder import checkpoint_path
from jaxqring.jobs._training_job import _initial_state
from jaxqring.launch._checkpoints import Checkpoints
from jaxqring.train import _datasets as datasets


def last_state(config, name):
    """The state dict of the last checkpoint of a run, with a row for each node, and its step."""
    (run,) = [run for run in config.runs if run.name == name]
    initial = _initial_state(run, config, datasets.load(config.data))
    checkpoints = Checkpoints(checkpoint_path(config.folder, name))
    return checkpoints.restore(serialization.to_state_dict(initial))
