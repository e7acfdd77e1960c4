"""Victims: untrained networks whose gradients, of one image each, are inverted.

An attack differentiates the gradient of every image once more, and for many images at once that is
slow where convolutions have kernels of their own for each. They are therefore computed as products
of patches with a matrix, which is the same function of the same parameters.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.train._models import MODELS
from jaxqring.train._objective import cross_entropy

#: "smooth" has three sigmoid convolutions and is the usual victim of the literature; "cnn" and
#: "mlp" are the models of `jaxqring.train`.
VictimName: TypeAlias = Literal["smooth", "cnn", "mlp"]
VICTIMS: tuple[VictimName, ...] = ("smooth", "cnn", "mlp")


def _wide(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -0.5, 0.5)


class Smooth(nn.Module):
    """Three sigmoid convolutions of 12 channels and a linear layer, with wide uniform weights."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Class scores (count, num_classes) of images (count, height, width, 1)."""
        x = images
        wide: dict[str, Any] = {"kernel_init": _wide, "bias_init": _wide}
        for stride in (2, 2, 1):
            x = nn.sigmoid(nn.Conv(12, (5, 5), strides=stride, padding=2, **wide)(x))
        return nn.Dense(self.num_classes, **wide)(x.reshape(x.shape[0], -1))


class Victim(NamedTuple):
    """A network with its parameters.

    Attributes:
      name: of the network.
      params: pytree of float32 arrays.
      gradient: `gradient(image, label)`, the gradient of the cross-entropy in nats with respect to
        the parameters, of one image (height, width, 1) with its () int32 label.
      shape: (height, width, 1) of an image.
    """

    name: VictimName
    params: PyTree
    gradient: Callable[[jax.Array, jax.Array], PyTree]
    shape: tuple[int, ...]


def victim(name: VictimName, shape: tuple[int, ...], num_classes: int, key: Key) -> Victim:
    """An untrained network and its gradients.

    Args:
      name: "smooth", three sigmoid convolutions of 12 channels with weights uniform in
        [-1/2, 1/2), as in the reference; "cnn" or "mlp", as `jaxqring.train` begins with them.
      shape: (height, width, 1) of an image.
      num_classes: scores of the network.
      key: of the weights.

    Returns:
      The victim.

    Raises:
      ValueError: if the name is unknown.

    Reference: Zhu, Liu and Han, "Deep leakage from gradients", NeurIPS 2019.

    >>> mlp = victim("mlp", (28, 28, 1), 10, jax.random.key(0))
    >>> gradient = mlp.gradient(jnp.ones((28, 28, 1)), 3)
    >>> gradient["Dense_0"]["kernel"].shape
    (784, 64)
    """
    checks.one_of("name", name, VICTIMS)
    kind: Any = Smooth if name == "smooth" else MODELS[name]
    model = kind(num_classes=num_classes)
    params = model.init(key, jnp.zeros((1, *shape)))["params"]

    def loss(params: PyTree, image: jax.Array, label: jax.Array) -> jax.Array:
        with nn.intercept_methods(_convolutions_as_products):
            scores = model.apply({"params": params}, image[None])
        return cross_entropy(scores, jnp.asarray(label)[None])

    return Victim(name, params, functools.partial(jax.grad(loss), params), shape)


def _convolutions_as_products(
    call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any
) -> Any:
    """Computes the calls of `nn.Conv` as products of patches with the kernel as a matrix."""
    module = context.module
    if not isinstance(module, nn.Conv) or context.method_name != "__call__":
        return call(*args, **kwargs)
    (images,) = args
    kernel: jax.Array = module.get_variable("params", "kernel")
    bias: jax.Array = module.get_variable("params", "bias")
    high, wide, _, channels = kernel.shape
    stride, padding = module.strides or 1, module.padding
    assert isinstance(stride, int)
    assert isinstance(padding, str | int)
    if isinstance(padding, str):
        sides = lax.padtype_to_pads(images.shape[1:3], (high, wide), (stride, stride), padding)
    else:
        sides = [(padding, padding)] * 2
    x = jnp.pad(images, ((0, 0), *sides, (0, 0)))
    rows, columns = (x.shape[1] - high) // stride + 1, (x.shape[2] - wide) // stride + 1
    ends = stride * (rows - 1) + 1, stride * (columns - 1) + 1
    x = jnp.concatenate([x[:, i : i + ends[0] : stride] for i in range(high)], axis=-1)
    x = jnp.concatenate([x[:, :, j : j + ends[1] : stride] for j in range(wide)], axis=-1)
    return x @ kernel.transpose(1, 0, 2, 3).reshape(-1, channels) + bias
