"""The attack: an image whose gradient points where the observed one does, and which is smooth.

Minimises 1 - cosine + tv TV over images in the box [0, 1]. The cosine is one over all tensors
together, TV is the anisotropic total variation of means, and Adam takes the signs of the gradient.

Reference: Geiping, Bauermeister, Droege and Moeller, "Inverting gradients: how easy is it to break
privacy in federated learning?", NeurIPS 2020, and its public code.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxqring import _checks as checks
from jaxqring._extras import needs
from jaxqring._types import Key, PyTree

#: Parts of an attack after which its steps become ten times shorter.
SHORTER = (3 / 8, 5 / 8, 7 / 8)


@dataclasses.dataclass(frozen=True)
class AttackSettings:
    """The numbers of an attack.

    Attributes:
      steps: of Adam.
      restarts: attacks on one image, each from noise of its own; the one of least cost counts.
      tv: weight of the total variation, at least 0.
      rate: of Adam at the first step, in units of the range of a pixel, positive.

    Raises:
      TypeError: if `tv` or `rate` is not real.
      ValueError: if one is out of range, or a count below 1.
    """

    steps: int = 500
    restarts: int = 4
    tv: float = 0.003
    rate: float = 0.1

    def __post_init__(self) -> None:
        checks.integer("steps", self.steps)
        checks.integer("restarts", self.restarts)
        checks.within("tv", self.tv, 0.0, math.inf)
        checks.open_interval("rate", self.rate, 0.0, math.inf)


class Reconstruction(NamedTuple):
    """The best of several attacks on an image.

    Attributes:
      image: (height, width, 1) float32 in [0, 1].
      cost: () the cost at its end.
      costs: (restarts,) the cost of each attack at its end.
    """

    image: jax.Array
    cost: jax.Array
    costs: jax.Array


def total_variation(image: jax.Array) -> jax.Array:
    """() the mean difference of neighbours in a column, plus that of neighbours in a row.

    Args:
      image: (height, width, channels).

    Returns:
      () float.

    >>> total_variation(jnp.array([[0.0, 1.0], [0.0, 1.0]])[..., None])
    Array(1., dtype=float32)
    """
    down, across = image[1:] - image[:-1], image[:, 1:] - image[:, :-1]
    return jnp.mean(jnp.abs(down)) + jnp.mean(jnp.abs(across))


def cosine_distance(found: PyTree, wanted: PyTree) -> jax.Array:
    """1 - the cosine of the angle between two pytrees, each taken for one long vector.

    Args:
      found: pytree of float arrays.
      wanted: of the same shapes.

    Returns:
      () float in [0, 2]; 1 if either is zero.

    >>> cosine_distance([jnp.array([1.0, 0.0])], [jnp.array([2.0, 0.0])])
    Array(0., dtype=float32)
    """
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))
    products = sum(jnp.vdot(a, b) for a, b in pairs)
    squares = sum(jnp.vdot(a, a) for a, _ in pairs), sum(jnp.vdot(b, b) for _, b in pairs)
    # Not the root of a product, which may be too small for a float32 where neither factor is; and
    # far from zero, where the derivative of the root would overflow.
    roots = [lax.rsqrt(jnp.maximum(square, 1e-24)) for square in squares]
    return 1 - products * roots[0] * roots[1]


def invert(
    messages: Callable[[jax.Array], PyTree],
    observed: PyTree,
    shape: tuple[int, ...],
    settings: AttackSettings,
    key: Key,
) -> Reconstruction:
    """The image whose messages point into the direction of those observed.

    Pure: map it over observations to attack many images at once.

    Args:
      messages: of an image (height, width, 1) in [0, 1], a pytree; twice differentiable where it
        is differentiable at all.
      observed: a pytree of the same shapes.
      shape: (height, width, 1) of the image.
      settings: of the attack.
      key: of the noise that it begins with.

    Returns:
      The best of the restarts.

    >>> settings = AttackSettings(steps=40, restarts=2, tv=0.0)
    >>> image = jnp.linspace(0, 1, 9).reshape(3, 3, 1)
    >>> found = invert(lambda x: x, image, (3, 3, 1), settings, jax.random.key(0))
    >>> bool(found.cost < 0.01)
    True
    """

    def cost(image: jax.Array) -> jax.Array:
        distance = cosine_distance(messages(image), observed)
        return distance + settings.tv * total_variation(image)

    moves = optax.scale_by_adam()

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        image, moments = carry
        direction, moments = moves.update(jnp.sign(jax.grad(cost)(image)), moments)
        passed = sum(number >= part * settings.steps for part in SHORTER)
        image = image - settings.rate * jnp.float32(0.1) ** passed * direction
        return (jnp.clip(image, 0, 1), moments), None

    def attempt(key: Key) -> tuple[jax.Array, jax.Array]:
        start = jax.random.uniform(key, shape)
        (image, _), _ = lax.scan(step, (start, moves.init(start)), jnp.arange(settings.steps))
        return image, cost(image)

    images, costs = jax.vmap(attempt)(jax.random.split(key, settings.restarts))
    best = jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))
    return Reconstruction(images[best], costs[best], costs)


def ssim(found: jax.Array, truth: jax.Array) -> jax.Array:
    """Structural similarity of images, in the Gaussian convention.

    A Gaussian window of 11 x 11 pixels and standard deviation 1.5, without padding; k1 = 0.01,
    k2 = 0.03, and pixels that range over 1. Smaller images take the largest odd window that fits.

    Args:
      found: (count, height, width, channels) in [0, 1].
      truth: of the same shape.

    Returns:
      (count,) float32 of at most 1, which equal images have.

    Raises:
      MissingExtraError: if the package `dm_pix` is missing.

    Reference: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility
    to structural similarity", IEEE Transactions on Image Processing 13, 2004.

    >>> image = jnp.linspace(0, 1, 144).reshape(1, 12, 12, 1)
    >>> float(ssim(image, image)[0]) > 0.9999
    True
    """
    with needs("train", "The structural similarity"):
        import dm_pix
    smallest = min(found.shape[-3:-1])
    window = min(11, smallest - (smallest + 1) % 2)
    return dm_pix.ssim(found, truth, filter_size=window)
