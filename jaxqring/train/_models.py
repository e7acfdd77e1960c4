"""Small Flax models for small images.

Their products take the default precision of JAX, `jax_default_matmul_precision`, as those of any
Flax model do; all others in this package ask for the highest.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxqring._types import ModelName


class CNN(nn.Module):
    """Two convolutions and a linear layer: 20,746 parameters on 28 x 28 images."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Class scores (count, num_classes) of images (count, height, width, 1)."""
        x = nn.relu(nn.Conv(16, (5, 5), strides=2)(images))
        x = nn.max_pool(nn.relu(nn.Conv(32, (3, 3))(x)), (2, 2), strides=(2, 2))
        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))


class MLP(nn.Module):
    """One hidden layer of 64 units: 50,890 parameters on 28 x 28 images."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Class scores (count, num_classes) of images (count, height, width, 1)."""
        x = nn.relu(nn.Dense(64)(images.reshape(images.shape[0], -1)))
        return nn.Dense(self.num_classes)(x)


class ResNet18(nn.Module):
    """The residual network of 18 layers for images of 32 x 32, with batch norm.

    Its stem is a convolution of 3 x 3 without a stride and without pooling: 11,173,962 parameters
    for three channels and ten classes, in 21 matrices and 41 vectors.

    Reference: He, Zhang, Ren and Sun, CVPR 2016; the small stem is that of the CIFAR experiments.
    """

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Class scores (count, num_classes) of images (count, height, width, channels)."""

        def convolved(x: jax.Array, width: int, size: int, stride: int) -> jax.Array:
            x = nn.Conv(width, (size, size), strides=stride, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train)(x)

        x = nn.relu(convolved(images, 64, 3, 1))
        for width in (64, 128, 256, 512):
            for block in range(2):
                stride = 2 if block == 0 and width > 64 else 1
                y = nn.relu(convolved(x, width, 3, stride))
                y = convolved(y, width, 3, 1)
                if x.shape != y.shape:
                    x = convolved(x, width, 1, stride)
                x = nn.relu(x + y)
        return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


#: Models by name; "quantum" is built by `QuantumConfig`.
MODELS: dict[ModelName, type[nn.Module]] = {"cnn": CNN, "mlp": MLP}
