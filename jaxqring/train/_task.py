"""A whole training as one pure function of a ring and its keys, to map over and differentiate."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxqring import _checks as checks
from jaxqring._fields import LATER, check_fields, no_other_keys
from jaxqring._types import Key, ModelName, OptimizerName, PyTree, Split
from jaxqring.compress import Compressor, compressed_pmean
from jaxqring.compress._codes import check_decay
from jaxqring.compress._compressor import with_nodes
from jaxqring.ring import Ring, pmean
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig
from jaxqring.train._objective import (
    AXIS,
    cross_entropy,
    initial_params,
    model_for,
    schedule,
)
from jaxqring.train._quantum_model import QuantumConfig, check_model

Outcomes = dict[str, jax.Array]
Training = Callable[..., Outcomes]


@no_other_keys
@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """A training that sweeps and sensitivities repeat with other rings and keys.

    Attributes:
      data: the images.
      model: "mlp", "cnn" or "quantum".
      nodes: N, the nodes of the ring; one device carries them all.
      batch_per_node: images of a node in a step, drawn with replacement.
      steps: updates of a training.
      optimizer: "adam", or "sgd" with momentum. Adam divides by the size of gradients, which makes
        derivatives through it large where gradients are all but zero.
      learning_rate: at the first step; it falls to zero along half a cosine.
      momentum: of "sgd", in [0, 1).
      quantum: the circuit of a quantum model, which needs `data.features`; with exact expectations.
      split: of the training images over the nodes: "iid" where each draws from all of them,
        "sorted" where it draws from its own shard of the images in the order of their labels.

    Raises:
      TypeError: if a number is not real.
      ValueError: if `learning_rate` is outside [1e-9, 1e3], `momentum` outside [0, 1), a count is
        below 1, a choice is unknown, the model cannot read the data, or its circuit has shots.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelName = "mlp"
    nodes: int = 8
    batch_per_node: int = 32
    steps: int = 200
    optimizer: OptimizerName = "adam"
    learning_rate: float = 4e-3
    momentum: float = dataclasses.field(default=0.9, metadata=LATER)
    quantum: QuantumConfig | None = dataclasses.field(default=None, metadata=LATER)
    split: Split = dataclasses.field(default="iid", metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self, "task.")
        checks.within("task.learning_rate", self.learning_rate, 1e-9, 1e3)
        check_decay("task.momentum", self.momentum)
        check_model(self.model, self.quantum, self.data, "task.")
        if self.quantum is not None and self.quantum.shots is not None:
            rule = "be left out, as a training to differentiate has exact expectations"
            checks.refuse("task.quantum.shots", rule, self.quantum.shots)


def payload(task: TaskConfig) -> int:
    """Number of parameters of the model of a task: the size of an all-reduce."""
    data = datasets.load(task.data)
    model = model_for(task.model, data, task.quantum)
    shapes = jax.eval_shape(model.init, jax.random.key(0), data.train_images[:1])
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def training(task: TaskConfig, compressor: Compressor | None = None) -> Training:
    """The training of a task: `train(ring, keys, learning_rate=None) -> outcomes`.

    The function is pure and takes traced rings, with a compressor a tuple of them as well. `keys`
    (steps,) are typed, one for each all-reduce; the initial parameters and the images of a step are
    drawn from them as well, by other streams. Every node holds its replica.

    Args:
      task: the training.
      compressor: of the gradients; none by default.

    Returns:
      The function. Its outcomes are (): "loss" and "accuracy" on the test set, "soft_accuracy" (the
      mean probability of the right class, which has a derivative), each in the mean over the
      replicas.

    Raises:
      ValueError, MissingExtraError: as `load`.

    >>> task = TaskConfig(DataConfig("digits"), nodes=2, steps=3)
    >>> keys = jax.random.split(jax.random.key(0), task.steps)
    >>> sorted(jax.eval_shape(training(task), Ring(noise="off"), keys))
    ['accuracy', 'loss', 'soft_accuracy']
    """
    data = datasets.load(task.data)
    model = model_for(task.model, data, task.quantum)
    # The root of a second moment of zero has no derivative without `eps_root`.
    adam = optax.scale_by_adam(eps_root=1e-12)
    sgd = optax.trace(task.momentum) if task.momentum else optax.identity()
    optimizer = adam if task.optimizer == "adam" else sgd
    blocks = next(n for n in range(math.isqrt(task.steps), 0, -1) if task.steps % n == 0)

    def scores_of(params: PyTree, images: jax.Array) -> jax.Array:
        return model.apply({"params": params}, images)  # type: ignore[return-value]

    def loss_of(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(scores_of(params, images), labels)

    def train(
        ring: Ring | tuple[Ring, ...],
        keys: jax.Array,
        learning_rate: jax.Array | float | None = None,
    ) -> Outcomes:
        images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
        shards = None
        if task.split == "sorted":
            shards = jnp.asarray(datasets.sorted_shards(data.train_labels, task.nodes))
        rate = schedule(task.learning_rate if learning_rate is None else learning_rate, task.steps)
        rings = tuple(
            dataclasses.replace(each, nodes_per_device=task.nodes)
            for each in (ring if isinstance(ring, tuple) else (ring,))
        )

        @jax.checkpoint
        def step(state: tuple, inputs: tuple) -> tuple[tuple, None]:
            params, moments, memory = state
            key, number = inputs
            shape = (task.nodes, task.batch_per_node)
            if shards is None:
                chosen = jax.random.randint(key, shape, 0, labels.shape[0])
            else:
                places = jax.random.randint(key, shape, 0, shards.shape[1])
                chosen = jnp.take_along_axis(shards, places, axis=1)
            gradients = jax.vmap(jax.grad(loss_of))(params, images[chosen], labels[chosen])
            gradients, memory = _average(gradients, memory, rings, key, compressor)
            slowed = rate(number)
            updates, moments = optimizer.update(gradients, moments, params)
            params = jax.tree.map(lambda p, update: p - slowed * update, params, updates)
            return (params, moments, memory), None

        # Blocks of steps, run anew in reverse mode: about two roots of their number of states
        # are stored, and not one for each step.
        @jax.checkpoint
        def block(state: tuple, inputs: tuple) -> tuple[tuple, None]:
            return lax.scan(step, state, inputs)

        one = initial_params(model, keys[0], data)
        params = jax.tree.map(lambda x: jnp.broadcast_to(x, (task.nodes, *jnp.shape(x))), one)
        memory = () if compressor is None else with_nodes(compressor.init(one), task.nodes)
        start = params, optimizer.init(params), memory
        numbers = jnp.arange(task.steps, dtype=jnp.float32)
        in_blocks = [x.reshape(blocks, task.steps // blocks) for x in (keys, numbers)]
        (params, _, _), _ = lax.scan(block, start, tuple(in_blocks))
        scores = jax.vmap(scores_of, in_axes=(0, None))(params, jnp.asarray(data.test_images))
        return _outcomes(scores, jnp.asarray(data.test_labels))

    return train


def _average(
    gradients: PyTree,
    memory: PyTree,
    rings: tuple[Ring, ...],
    key: Key,
    compressor: Compressor | None,
) -> tuple[PyTree, PyTree]:
    """The all-reduce of gradients (nodes, ...), on one device that carries all nodes."""

    def on_device(gradients: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        if compressor is None:
            return pmean(gradients, AXIS, ring=rings[0], key=key), memory
        return compressed_pmean(gradients, memory, AXIS, compressor=compressor, ring=rings, key=key)

    one = jax.tree.map(lambda leaf: leaf[None], (gradients, memory))
    result = jax.vmap(on_device, axis_name=AXIS)(*one)
    return jax.tree.map(lambda leaf: leaf[0], result)


def _outcomes(scores: jax.Array, truth: jax.Array) -> Outcomes:
    """The outcomes of a training, from the scores (nodes, count, classes) of its replicas."""
    right = jnp.take_along_axis(jax.nn.log_softmax(scores), truth[None, :, None], axis=-1)
    return {
        "loss": -jnp.mean(right),
        "accuracy": jnp.mean((jnp.argmax(scores, axis=-1) == truth).astype(jnp.float32)),
        "soft_accuracy": jnp.mean(jnp.exp(right)),
    }
