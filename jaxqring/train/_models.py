"""Small Flax models for small images.

Their products take the default precision of JAX, `jax_default_matmul_precision`, as those of any
Flax model do; all others in this package ask for the highest.
"""

import jax
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


MODELS: dict[ModelName, type[nn.Module]] = {"cnn": CNN, "mlp": MLP}
