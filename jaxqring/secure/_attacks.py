"""Dishonest sources, and the best guess of one, to test verification against."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.physics.channels import Channel
from jaxqring.physics.ghz import GHZSource


@struct.dataclass
class PlantedSource:
    """A dishonest source: among honest copies it hides some of another kind.

    Attributes:
      honest: source of the honest copies.
      bad: source of the planted ones; see `plus_states`.
      count: number of copies planted among those of one verification.

    Raises:
      TypeError: if `honest` or `bad` is not a `GHZSource`.
      ValueError: if their parties differ, or the count is not an integer of at least 0.

    >>> PlantedSource(GHZSource(4), plus_states(4), count=2).num_parties
    4
    """

    honest: GHZSource
    bad: GHZSource
    count: int = struct.field(pytree_node=False, default=1)

    def __post_init__(self) -> None:
        checks.integer("count", self.count, 0)
        if type(self.honest) is object or type(self.bad) is object:
            return  # JAX rebuilds pytrees around placeholders
        checks.instance("honest", self.honest, GHZSource)
        checks.instance("bad", self.bad, GHZSource)
        if self.honest.num_parties != self.bad.num_parties:
            rule = f"have the {self.honest.num_parties} parties of the honest source"
            checks.refuse("bad", rule, self.bad.num_parties)

    @property
    def num_parties(self) -> int:
        return self.honest.num_parties


def plus_states(num_parties: int) -> GHZSource:
    """Product states |+...+> in place of GHZ states: the one who planted them knows every mask.

    Each party's X outcome is zero, so that sums are right; the outcomes in the Z basis agree with
    probability 2^(1 - N) only.

    Args:
      num_parties: N, at least 2.

    Returns:
      A `GHZSource` of N parties, whose noise replaces each qubit by |+>.

    Raises:
      ValueError: if `num_parties` is not an integer of at least 2.

    >>> source = plus_states(3)
    >>> print(f"{source.disagreement:.4f} {source.x_error:.4f}")
    0.7500 0.3750
    """
    replaced = np.zeros((4, 4))
    replaced[0, 0] = replaced[1, 0] = 1.0
    return GHZSource(num_parties, noise=Channel(jnp.asarray(replaced, float)))


def purification_guess(key: Key, outcomes: jax.Array, error_prob: ArrayLike) -> jax.Array:
    """Guesses one party's X outcomes, as a source that keeps a purification can.

    It sends sqrt(1 - e) |G>|0> + sqrt(e) X_1|G>|1>, where X_1 flips the first party's qubit, and
    keeps the last one. To the parties that is a `bit_flip` with probability e on the first qubit,
    which a Z test sees with probability e. Measuring the last one along X, the source guesses the
    first party's X outcome rightly with probability 1/2 + sqrt(e (1 - e)): the distance from
    secrecy that `jaxqring.secure` counts with, attained.

    Args:
      key: typed PRNG key.
      outcomes: (...) the first party's X outcomes.
      error_prob: () e, in [0, 1].

    Returns:
      (...) uint8 the source's guesses.

    Raises:
      TypeError: if `key` is not a typed PRNG key, or `error_prob` is not real.
      ValueError: if `key` is a batch of keys, or `error_prob` is outside [0, 1].

    Reference: our derivation.

    >>> guess = purification_guess(jax.random.key(0), jnp.zeros(1000, jnp.uint8), 0.5)
    >>> int(jnp.sum(guess))
    0
    """
    checks.prng_key("key", key)
    error, _ = checks.bounded("error_prob", error_prob)
    wrong = 0.5 - jnp.sqrt(error * (1 - error))
    flips = jax.random.bernoulli(key, wrong, jnp.shape(outcomes))
    return jnp.asarray(outcomes, jnp.uint8) ^ flips.astype(jnp.uint8)
