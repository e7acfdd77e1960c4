"""The image in a factor: the closed form for networks that begin with a dense layer."""

import math

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring.inversion._observer import Observed


def image_in_factor(step: Observed, shape: tuple[int, ...]) -> jax.Array:
    """The image that a rank-1 method sends as it is, up to a constant: no search is needed.

    The gradient of a first dense layer is x delta^T for one image x, so that M Q is x times the
    number delta^T Q. The brightest pixel is taken for 1.

    Args:
      step: of a node with one image, whose first column with a number for each pixel is the left
        factor of the first layer.
      shape: (height, width, 1) of the image.

    Returns:
      The image (height, width, 1) in [0, 1].

    Raises:
      ValueError: if no message is a column with a number for each pixel.

    Reference: that inputs of dense layers follow from gradients, Geiping et al., NeurIPS 2020.

    >>> import jaxqring as jq
    >>> from jaxqring.inversion import observe
    >>> image, delta = jnp.linspace(0, 1, 9), jnp.array([0.5, -1.0, 0.25])
    >>> gradient = jnp.outer(image, delta)
    >>> step = observe(jq.compress.PowerSGD(rank=1), gradient, jax.random.key(0))
    >>> bool(jnp.allclose(image_in_factor(step, (3, 3, 1)).reshape(-1), image, atol=1e-4))
    True
    """
    pixels = math.prod(shape)
    fitting = [sent for sent in step.sent if sent.codes.shape == (pixels, 1)]
    if not fitting:
        shapes = [sent.codes.shape for sent in step.sent]
        checks.refuse("step", f"have a message of shape ({pixels}, 1)", shapes)
    factor = fitting[0].values.reshape(shape)
    brightest = factor.reshape(-1)[jnp.argmax(jnp.abs(factor))]
    return jnp.clip(factor / jnp.where(brightest == 0, 1, brightest), 0, 1)
