"""Adversaries: what each sees of a node's step, and what it holds an image's gradient against.

One image, one step, the first one, and one node: its messages are those of the gradient of a single
image, and the answers of the ring are those to this node alone, so that the basis of a low-rank
method is its own. More images and more nodes leave less to see.
"""

import functools
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.compress import Compressor
from jaxqring.inversion._attack import AttackSettings, Reconstruction, invert
from jaxqring.inversion._observer import Observed, observe
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


def seen(adversary: Adversary, step: Observed, key: Key) -> PyTree:
    """The numbers that an adversary holds those of another image against.

    Args:
      adversary: "naive", "adaptive", "neighbours" or "masked".
      step: of the node.
      key: of the partial sums of other nodes, and of the masks.

    Returns:
      For "naive" a pytree as the gradient; else a list with the values of each message.

    Raises:
      ValueError: if the adversary is unknown.

    >>> step = observe(None, jnp.array([3.0, -1.0, 2.0]), jax.random.key(0))
    >>> seen("neighbours", step, jax.random.key(1))
    [Array([ 3., -1.,  2.], dtype=float32)]
    """
    checks.one_of("adversary", adversary, ADVERSARIES)
    if adversary == "naive":
        return step.delivered
    if adversary == "adaptive":
        return [tensor.values for tensor in step.sent]
    # All tensors end to end, so that little is compiled.
    codes = jnp.concatenate([jnp.ravel(tensor.codes) for tensor in step.sent])
    widths = [jnp.broadcast_to(tensor.bits, (tensor.codes.size,)) for tensor in step.sent]
    bits, words = jnp.concatenate(widths), _words(codes)
    if adversary == "masked":
        # The two of them see the code plus the mask, mod 2^bits, and the mask is uniform.
        words = words + jax.random.bits(stream(key, MASKS), words.shape, jnp.uint32)
    # Every chunk of a message passes the node once with the partial sum of others, which is any
    # integer mod 2^bits: what it sends less what it received is exact.
    received = jax.random.bits(stream(key, OTHERS), words.shape, jnp.uint32)
    passed_on = words + received
    found = _signed(passed_on - received, bits)
    ends = np.cumsum([tensor.codes.size for tensor in step.sent])
    return [
        part.reshape(tensor.codes.shape) * tensor.unit
        for part, tensor in zip(jnp.split(found, ends[:-1]), step.sent, strict=True)
    ]


class Attacker:
    """Attacks on one victim, on many images at once; its programs are compiled once each.

    Args:
      victim: the network.
      settings: of the attacks.

    >>> import jaxqring as jq
    >>> from jaxqring.inversion import victim
    >>> images, labels = jnp.ones((2, 12, 12, 1)) / 2, jnp.array([0, 1])
    >>> attacker = Attacker(victim("mlp", (12, 12, 1), 10, jax.random.key(0)), AttackSettings(3, 2))
    >>> method = jq.compress.PowerSGD(rank=1)
    >>> attacker.attack(method, "adaptive", images, labels, jax.random.key(1)).image.shape
    (2, 12, 12, 1)
    """

    def __init__(self, victim: Victim, settings: AttackSettings) -> None:
        self.victim, self.settings = victim, settings
        self._gradients = jax.jit(jax.vmap(victim.gradient))
        self._search = jax.jit(jax.vmap(self._invert))
        self._views = {
            name: jax.jit(jax.vmap(functools.partial(seen, name))) for name in ADVERSARIES
        }
        self._last: tuple[Compressor | None, tuple, Observed] | None = None

    def _invert(
        self, message_map: Callable[[PyTree], PyTree], view: PyTree, label: jax.Array, key: Key
    ) -> Reconstruction:
        def made(dummy: jax.Array) -> PyTree:
            return message_map(self.victim.gradient(dummy, label))

        return invert(made, view, self.victim.shape, self.settings, stream(key, START))

    def attack(
        self,
        compressor: Compressor | None,
        adversary: Adversary,
        images: jax.Array,
        labels: jax.Array,
        key: Key,
    ) -> Reconstruction:
        """The images that an adversary makes of steps of one image each.

        The adversary knows the network, the label, the method and what it draws, and for low-rank
        methods both factors, which the ring shows to all nodes.

        Args:
          compressor: the method; None for 16-bit levels of the gradient itself.
          adversary: "naive", "adaptive", "neighbours" or "masked".
          images: (count, height, width, 1) in [0, 1], whose gradients are sent.
          labels: (count,) int32.
          key: of the method, the other nodes, the masks and the noise that attacks begin with.

        Returns:
          The reconstructions, along a leading axis.

        Raises:
          ValueError: if the adversary is unknown, or "masked" for a method that cannot be masked.
        """
        if adversary == "masked" and not can_be_masked(compressor):
            checks.refuse("compressor", "be one of sums, to be masked", compressor)
        view = self.view(compressor, adversary, images, labels, key)
        message_map = self._observed(compressor, images, labels, key).message_map
        if adversary == "naive":
            message_map = _AS_IT_IS
        return self._search(message_map, view, labels, _keys(key, len(labels)))

    def view(
        self,
        compressor: Compressor | None,
        adversary: Adversary,
        images: jax.Array,
        labels: jax.Array,
        key: Key,
    ) -> PyTree:
        """`seen` for each of the images, along a leading axis; arguments as for `attack`."""
        checks.one_of("adversary", adversary, ADVERSARIES)
        step = self._observed(compressor, images, labels, key)
        return self._views[adversary](step, _keys(key, len(labels)))

    def _observed(
        self, compressor: Compressor | None, images: jax.Array, labels: jax.Array, key: Key
    ) -> Observed:
        """The steps, kept for the last arguments."""
        given = images, labels, key
        last = self._last
        if (
            last is None
            or last[0] != compressor
            or any(a is not b for a, b in zip(last[1], given, strict=True))
        ):

            def of_one(gradient: PyTree, key: Key) -> Observed:
                return observe(compressor, gradient, stream(key, METHOD))

            gradients = self._gradients(images, labels)
            steps = jax.jit(jax.vmap(of_one))(gradients, _keys(key, len(labels)))
            self._last = last = compressor, given, steps
        return last[2]


#: The map of an adversary that holds gradients against gradients, as a pytree.
_AS_IT_IS = jax.tree_util.Partial(lambda gradient: gradient)


def _keys(key: Key, count: int) -> Key:
    """(count,) the keys of the images."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))


def stream(key: Key, number: int) -> Key:
    """One of the streams of a key."""
    return jax.random.fold_in(key, number)


def _words(codes: jax.Array) -> jax.Array:
    """Codes (...) as uint32 in two's complement."""
    return jnp.asarray(codes, jnp.int32).astype(jnp.uint32)


def _signed(words: jax.Array, bits: jax.Array) -> jax.Array:
    """The integers (...) float32 in [-2^(bits - 1), 2^(bits - 1)) of words mod 2^bits."""
    spare = (np.int32(32) - bits).astype(jnp.uint32)
    shifted = (words << spare).astype(jnp.int32)
    return (shifted >> spare.astype(jnp.int32)).astype(jnp.float32)
