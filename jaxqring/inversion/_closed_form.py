"""The image in a factor: the closed form for networks that begin with a dense layer."""

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.compress import Compressor
from jaxqring.inversion._observer import messages


def image_in_factor(
    compressor: Compressor, gradient: PyTree, shape: tuple[int, ...], key: Key
) -> jax.Array:
    """The image that a rank-1 method sends as it is, up to a constant: no search is needed.

    The gradient of a first dense layer is x delta^T for one image x, so that M Q is x times the
    number delta^T Q. The brightest pixel is taken for 1.

    Args:
      compressor: of rank 1.
      gradient: of one image, of a network whose only message with a number for each pixel is the
        left factor of its first layer.
      shape: (height, width, 1) of the image.
      key: for methods that draw.

    Returns:
      The image (height, width, 1) in [0, 1].

    Raises:
      ValueError: if no message has a number for each pixel.

    Reference: that inputs of dense layers follow from gradients, Geiping et al., NeurIPS 2020.
    """
    pixels = 1
    for side in shape:
        pixels *= side
    fitting = [sent for sent in messages(compressor, gradient, key) if sent.codes.size == pixels]
    if not fitting:
        checks.refuse("compressor", "send a number for each pixel, as of rank 1", compressor)
    factor = fitting[0].values.reshape(shape)
    brightest = factor.reshape(-1)[jnp.argmax(jnp.abs(factor))]
    return jnp.clip(factor / jnp.where(brightest == 0, 1, brightest), 0, 1)
