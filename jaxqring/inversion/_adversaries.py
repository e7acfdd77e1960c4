"""Adversaries: what each sees of a node's step, and what it holds an image's gradient against.

One image, one step, the first one, and one node: its messages are those of the gradient of a single
image, and the answers of the ring are those to this node alone, so that the basis of a low-rank
method is its own. More images and more nodes leave less to see.
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.compress import Compressor
from jaxqring.inversion._attack import AttackSettings, Reconstruction, invert
from jaxqring.inversion._observer import Sends, delivered, message_map, messages
from jaxqring.inversion._victims import Victim

#: "naive" sees what the step delivers and holds the dense gradient against it, as the literature
#: does. "adaptive" sees the messages, and holds against them those that the gradient would make.
#: "neighbours" are the two of a ring: one passes partial sums to the node, the other receives them
#: with the node's own added. "masked" are the same two where GHZ masks are on the codes.
Adversary: TypeAlias = Literal["naive", "adaptive", "neighbours", "masked"]
ADVERSARIES: tuple[Adversary, ...] = ("naive", "adaptive", "neighbours", "masked")

#: Streams of a key: of the compressor, of the noise an attack begins with, of the other nodes and
#: of masks.
METHOD, START, OTHERS, MASKS = range(4)


def can_be_masked(compressor: Compressor | None) -> bool:
    """True if the method adds up integers, which masks can hide.

    Args:
      compressor: the method; None for the gradient itself, which is summed.

    Returns:
      Of codes that are shown to all or requantised on the way, False.

    >>> from jaxqring.compress import PowerSGD, TopK
    >>> can_be_masked(PowerSGD()), can_be_masked(TopK())
    (True, False)
    """
    return compressor is None or compressor.reduce in ("sum", "vote")


def seen(
    adversary: Adversary, compressor: Compressor | None, gradient: PyTree, key: Key
) -> PyTree:
    """The numbers that an adversary holds a gradient against.

    Args:
      adversary: "naive", "adaptive", "neighbours" or "masked".
      compressor: the method; None for 16-bit levels of the gradient itself.
      gradient: pytree of float32 arrays, of one image.
      key: of the method, of the partial sums of other nodes and of the masks.

    Returns:
      For "naive" a pytree as the gradient; else a list with the values of each message.

    Raises:
      ValueError: if the adversary is unknown, or "masked" for a method that cannot be masked.
    """
    checks.one_of("adversary", adversary, ADVERSARIES)
    if adversary == "naive":
        return delivered(compressor, gradient, stream(key, METHOD))
    sends = messages(compressor, gradient, stream(key, METHOD))
    if adversary == "adaptive":
        return [sent.values for sent in sends]
    if adversary == "masked":
        if not can_be_masked(compressor):
            checks.refuse("compressor", "be one of sums, to be masked", compressor)
        # The two of them see the code plus the mask, mod 2^bits, and the mask is uniform.
        sends = _plus_uniform(sends, stream(key, MASKS))
    return [sent.values for sent in _between_neighbours(sends, stream(key, OTHERS))]


def attack(
    victim: Victim,
    compressor: Compressor | None,
    adversary: Adversary,
    image: jax.Array,
    label: jax.Array,
    settings: AttackSettings,
    key: Key,
) -> Reconstruction:
    """The image that an adversary makes of a node's step. Pure: map it over images, labels, keys.

    The adversary knows the network, the label, the method and what it draws, and for low-rank
    methods both factors, which the ring shows to all nodes.

    Args:
      victim: the network.
      compressor: the method; None for 16-bit levels of the gradient itself.
      adversary: "naive", "adaptive", "neighbours" or "masked".
      image: (height, width, 1) in [0, 1], whose gradient is sent.
      label: () int32.
      settings: of the attack.
      key: of the method, the other nodes, the masks and the noise that the attack begins with.

    Returns:
      The reconstruction.

    Raises:
      ValueError: as `seen`.
    """
    gradient = victim.gradient(image, label)
    view = seen(adversary, compressor, gradient, key)
    if adversary == "naive":
        made = lambda found: found  # noqa: E731
    else:
        made = message_map(compressor, gradient, stream(key, METHOD))
    return invert(
        lambda dummy: made(victim.gradient(dummy, label)),
        view,
        image.shape,
        settings,
        stream(key, START),
    )


def stream(key: Key, number: int) -> Key:
    """One of the streams of a key."""
    return jax.random.fold_in(key, number)


def _between_neighbours(sends: Sends, key: Key) -> Sends:
    """The codes of a node as the difference of what it sends and what it received.

    Every chunk of a message passes the node once with the partial sum of others, which is any
    integer mod 2^bits. The difference is exact.
    """
    found = []
    for number, sent in enumerate(sends):
        received = _uniform(stream(key, number), sent.codes.shape)
        passed_on = _words(sent.codes) + received
        found.append(sent._replace(codes=_signed(passed_on - received, sent.bits)))
    return found


def _plus_uniform(sends: Sends, key: Key) -> Sends:
    masked = []
    for number, sent in enumerate(sends):
        mask = _uniform(stream(key, number), sent.codes.shape)
        masked.append(sent._replace(codes=_signed(_words(sent.codes) + mask, sent.bits)))
    return masked


def _uniform(key: Key, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.bits(key, shape, jnp.uint32)


def _words(codes: jax.Array) -> jax.Array:
    """Codes (...) as uint32 in two's complement."""
    return jnp.asarray(codes, jnp.int32).astype(jnp.uint32)


def _signed(words: jax.Array, bits: jax.Array) -> jax.Array:
    """The integers (...) float32 in [-2^(bits - 1), 2^(bits - 1)) of words mod 2^bits."""
    spare = (np.int32(32) - bits).astype(jnp.uint32)
    shifted = (words << spare).astype(jnp.int32)
    return (shifted >> spare.astype(jnp.int32)).astype(jnp.float32)
