"""The parts that every training shares: its model, its loss and its learning rate.

`node_step` and `training` differ in the rest. The first trains one node at a time with a Flax
state, on a permutation of the images for every epoch, and can be resumed; the second is one pure
function of its keys, draws images with replacement, and keeps an optimizer whose derivative exists.
"""

import jax
import optax
from flax import linen as nn

from jaxqring._types import Key, ModelName, PyTree
from jaxqring.qmodels import QuantumClassifier
from jaxqring.train._datasets import Dataset
from jaxqring.train._models import MODELS
from jaxqring.train._quantum_model import QuantumConfig

#: The name of the mapped axis of nodes.
AXIS = "nodes"


def model_for(name: ModelName, data: Dataset, quantum: QuantumConfig | None = None) -> nn.Module:
    """The model of this name, with an output for each class of the data.

    Args:
      name: of the model.
      data: that it learns.
      quantum: the circuit of the model "quantum"; None for the default one.
    """
    if name == "quantum":
        return (quantum or QuantumConfig()).build(data.num_classes)
    return MODELS[name](num_classes=data.num_classes)


def initial_params(model: nn.Module, key: Key, data: Dataset) -> PyTree:
    """The parameters of one replica before the first step."""
    return exact(model).init(key, data.train_images[:1])["params"]


def exact(model: nn.Module) -> nn.Module:
    """The model, with exact expectations in place of finite shots."""
    return model.clone(shots=None) if isinstance(model, QuantumClassifier) else model


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """() mean cross-entropy in nats, of scores (count, classes) and labels (count,)."""
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def schedule(first: jax.Array | float, steps: int) -> optax.Schedule:
    """The learning rate by step: it falls from `first` to zero along half a cosine."""
    return optax.cosine_decay_schedule(first, steps)
