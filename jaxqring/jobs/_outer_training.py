"""A whole training with an outer loop as one pure function, with all nodes on one device."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxqring._types import Key, PyTree
from jaxqring.outer import Arrivals, Loop, Server, run_arrivals
from jaxqring.train import TaskConfig, load
from jaxqring.train._datasets import sorted_shards
from jaxqring.train._objective import AXIS, cross_entropy, initial_params, model_for

Outcomes = dict[str, jax.Array]
#: `(key, is_sorted) -> outcomes`: a training whose images are drawn by the key, by each node from
#: all of them, or from its shard of those in the order of their labels.
OuterTraining = Callable[[Key, jax.Array], Outcomes]


class _Problem(NamedTuple):
    """The parts of a task that every loop shares.

    Attributes:
      initial: takes a key to parameters of one replica.
      gradient: takes (params, key, node, is_sorted) to the gradient of a node on images of its own.
      scores: takes parameters to the scores (count, classes) of the test set.
      truth: (count,) labels of it.
    """

    initial: Callable[[Key], PyTree]
    gradient: Callable[[PyTree, Key, jax.Array, jax.Array], PyTree]
    scores: Callable[[PyTree], jax.Array]
    truth: jax.Array


def _problem(task: TaskConfig) -> _Problem:
    data = load(task.data)
    model = model_for(task.model, data, task.quantum)
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    shards = jnp.asarray(sorted_shards(data.train_labels, task.nodes))

    def scores(params: PyTree, images: jax.Array) -> jax.Array:
        return model.apply({"params": params}, images)  # type: ignore[return-value]

    def gradient(params: PyTree, key: Key, node: jax.Array, is_sorted: jax.Array) -> PyTree:
        own, count = shards[node], task.batch_per_node
        anywhere = jax.random.randint(key, (count,), 0, labels.shape[0])
        within = own[jax.random.randint(key, (count,), 0, own.shape[0])]
        chosen = jnp.where(is_sorted, within, anywhere)

        def loss(params: PyTree) -> jax.Array:
            return cross_entropy(scores(params, images[chosen]), labels[chosen])

        return jax.grad(loss)(params)

    return _Problem(
        lambda key: initial_params(model, key, data),
        gradient,
        functools.partial(scores, images=jnp.asarray(data.test_images)),
        jnp.asarray(data.test_labels),
    )


def initial_shapes(task: TaskConfig) -> PyTree:
    """The shapes of the parameters of one replica."""
    return jax.eval_shape(_problem(task).initial, jax.random.key(0))


def loop_training(
    task: TaskConfig, loop_of: Callable[[Key], Loop], bits: float | None = None
) -> OuterTraining:
    """The training of a task with a loop.

    Args:
      task: the training; its optimizer and its learning rates are those of the loop.
      loop_of: takes a key to the loop, which draws from it whatever it draws.
      bits: of a round over each link, for a loop that does not count them.

    Returns:
      The function. Its outcomes are (): "accuracy" on the test set in the mean over the replicas,
      "worst" that of the worst of them, "rounds", and over each link "bits" of payload.
    """
    problem = _problem(task)
    nodes = jnp.arange(task.nodes)

    def train(key: Key, is_sorted: jax.Array) -> Outcomes:
        start, draws, own = jax.random.split(key, 3)
        loop = loop_of(own)
        one = problem.initial(start)
        params = jax.tree.map(lambda x: jnp.broadcast_to(x, (task.nodes, *jnp.shape(x))), one)

        def node_step(params: PyTree, state: PyTree, key: Key, node: jax.Array, at: Any) -> Any:
            grads = problem.gradient(params, key, node, is_sorted)
            return loop.update(grads, state, params, step=at)

        mapped = jax.vmap(node_step, in_axes=(0, 0, 0, 0, None), axis_name=AXIS)

        def step(carry: tuple, at: jax.Array) -> tuple[tuple, None]:
            keys = jax.random.split(jax.random.fold_in(draws, at), task.nodes)
            params, state = carry
            return mapped(params, state, keys, nodes, at), None

        state = jax.vmap(loop.init)(params)
        (params, state), _ = lax.scan(step, (params, state), jnp.arange(task.steps))
        replicas = jax.vmap(loop.replica, axis_name=AXIS)(params, state)
        right = jnp.argmax(jax.vmap(problem.scores)(replicas), axis=-1) == problem.truth
        accuracy = jnp.mean(right.astype(jnp.float32), axis=1)
        rounds = state.rounds[0].astype(jnp.float32)
        known = state.bits if bits is None else rounds[None] * np.float32(bits)
        assert known is not None  # loops over rings count
        return {
            "accuracy": jnp.mean(accuracy),
            "worst": jnp.min(accuracy),
            "rounds": rounds,
            "bits": known[0],
        }

    return train


def asynchronous_training(
    task: TaskConfig,
    inner_tx: optax.GradientTransformation,
    server: Server,
    arrivals: Arrivals,
    bits: float,
) -> OuterTraining:
    """The training of a task by nodes that report to a server; outcomes as of `loop_training`.

    Args:
      task: the training; the list of arrivals says how many steps there are.
      inner_tx: the inner optimizer.
      server: as for `jaxqring.outer.run_arrivals`.
      arrivals: the list.
      bits: over each link for all of them.
    """
    problem = _problem(task)

    def train(key: Key, is_sorted: jax.Array) -> Outcomes:
        start, draws, _ = jax.random.split(key, 3)

        def gradient(params: PyTree, node: jax.Array, step: jax.Array) -> PyTree:
            own = jax.random.split(jax.random.fold_in(draws, step), task.nodes)[node]
            return problem.gradient(params, own, node, is_sorted)

        found = run_arrivals(gradient, inner_tx, server, arrivals, problem.initial(start))
        right = jnp.argmax(problem.scores(found.params), axis=-1) == problem.truth
        accuracy = jnp.mean(right.astype(jnp.float32))
        rounds = jnp.float32(len(arrivals.node) / task.nodes)
        total = jnp.float32(bits)
        return {"accuracy": accuracy, "worst": accuracy, "rounds": rounds, "bits": total}

    return train
