"""The training of the maps: softmax regression on digits, over a ring of eight nodes."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring._types import Key
from jaxqring.compress import Compressor, compressed_pmean
from jaxqring.ring import Ring, pmean
from jaxqring.train import DataConfig, load

NODES, BATCH = 8, 16


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels; images as rows of pixels."""
    data = load(DataConfig("digits"))
    train, test = (
        np.asarray(images, np.float32).reshape(len(images), -1)
        for images in (data.train_images, data.test_images)
    )
    return train, np.asarray(data.train_labels), test, np.asarray(data.test_labels)


def batches_of(seed: int, trainings: int, steps: int) -> np.ndarray:
    """(steps, K, N, B) the images of every step, drawn once for both witnesses."""
    count = len(digits()[0])
    rng = np.random.default_rng([3, seed])
    return rng.integers(0, count, (steps, trainings, NODES, BATCH))


Train = Callable[[Ring, Key, jax.Array], tuple[jax.Array, jax.Array]]


def training(rate: float, compressor: Compressor | None = None) -> Train:
    """`train(ring, key, batches) -> (accuracy, soft accuracy)` of a training from zero weights.

    The soft accuracy is the mean probability of the right class, which has a derivative.

    Args:
      rate: of learning.
      compressor: of the gradients; none for `pmean`.

    Returns:
      The function, of (steps, N, B) batches.
    """
    images, labels, test, test_labels = map(jnp.asarray, digits())

    def loss_of(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        scores = jnp.dot(x, params["w"], precision="highest") + params["b"]
        return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(len(y)), y])

    def average(gradient: dict, memory: object, ring: Ring, key: Key) -> tuple:
        if compressor is None:
            return pmean(gradient, "nodes", ring=ring, key=key), memory
        return compressed_pmean(
            gradient, memory, "nodes", compressor=compressor, ring=ring, key=key
        )

    def train(ring: Ring, key: Key, batches: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(state: tuple, inputs: tuple) -> tuple[tuple, None]:
            params, memory = state
            places, key = inputs

            def node(params: dict, memory: object, places: jax.Array) -> tuple:
                gradient = jax.grad(loss_of)(params, images[places], labels[places])
                mean, memory = average(gradient, memory, ring, key)
                return jax.tree.map(lambda p, m: p - rate * m, params, mean), memory

            return jax.vmap(node, axis_name="nodes")(params, memory, places), None

        one = {"w": jnp.zeros((images.shape[1], 10)), "b": jnp.zeros(10)}
        memory = () if compressor is None else compressor.init(one)
        state = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (NODES, *leaf.shape)), (one, memory)
        )
        keys = jax.random.split(key, len(batches))
        (params, _), _ = jax.lax.scan(step, state, (batches, keys))
        scores = jnp.einsum("if,nfc->nic", test, params["w"], precision="highest")
        scores = jax.nn.log_softmax(scores + params["b"][:, None])
        right = jnp.mean(scores.argmax(-1) == test_labels)
        probability = jnp.exp(scores[:, jnp.arange(len(test_labels)), test_labels])
        return right, jnp.mean(probability)

    return train
