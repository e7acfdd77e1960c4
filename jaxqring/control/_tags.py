"""Tags that only two can make: a hash of few secret bits, hidden by a one-time pad.

Both ends share the description of a hash, a polynomial and a state, and for each message n fresh
bits. Whoever sees a message and its tag learns nothing about the hash, since the pad hides it; to
forge is to guess the difference of two hashes. The hash may stay, the pads may not.

A one after the last bit goes into the hash, so that a message of another length is another message.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxqring import _checks as checks
from jaxqring.control._polynomials import (
    check_register,
    ended,
    irreducible_polynomials,
    lfsr_hash,
)

#: The longest tags and messages of which all forgeries are tried.
MOST_TAG, MOST_MESSAGE = 8, 12


@dataclasses.dataclass(frozen=True)
class HashKey:
    """The secret hash of two ends.

    Attributes:
      polynomial: irreducible over GF(2), of degree n; bits of an integer.
      state: of n bits.

    Raises:
      ValueError: if the polynomial is reducible, or the state has more bits.

    >>> HashKey(0b100011011, 0xA5).length
    8
    """

    polynomial: int
    state: int

    def __post_init__(self) -> None:
        state, polynomial = check_register(self.state, self.polynomial)
        object.__setattr__(self, "state", state)
        object.__setattr__(self, "polynomial", polynomial)

    @property
    def length(self) -> int:
        """n, bits of a tag."""
        return self.polynomial.bit_length() - 1


def tag(message: Sequence[int] | np.ndarray, key: HashKey, pad: int) -> int:
    """The tag of a message: its hash, hidden by a pad that is used once.

    Args:
      message: (m,) bits.
      key: of both ends.
      pad: n secret bits as an integer, for this message only.

    Returns:
      An integer of n bits.

    Raises:
      TypeError: if the key is not a HashKey.
      ValueError: if the message is not of bits, or the pad too large.

    Reference: Wegman and Carter, J. Comput. Syst. Sci. 22, 265 (1981).

    >>> tag([0, 1, 1, 0], HashKey(0b1011, 0b101), 0b010)
    2
    """
    checks.instance("key", key, HashKey)
    hidden = checks.integer("pad", pad, 0, 2**key.length - 1)
    return lfsr_hash(ended(message), key.state, key.polynomial) ^ hidden


def tag_holds(message: Sequence[int] | np.ndarray, received: int, key: HashKey, pad: int) -> bool:
    """Tells whether a tag belongs to a message.

    Args:
      message: (m,) bits.
      received: the tag that came with it.
      key: of both ends.
      pad: of this message.

    Returns:
      True if it is the tag that `tag` makes.

    Raises:
      TypeError: as `tag`.
      ValueError: as `tag`.

    >>> key = HashKey(0b1011, 0b101)
    >>> tag_holds([0, 1, 1, 0], 2, key, 0b010), tag_holds([0, 1, 1, 1], 2, key, 0b010)
    (True, False)
    """
    return tag(message, key, pad) == received


def forgery_bound(message_bits: int, length: float) -> float:
    """The most that a forger's best guess can be worth.

    Args:
      message_bits: m; where a forger may change the length, one more than the longest has.
      length: n, bits of a tag; of a signature with keys that are not perfectly secret, their
        min-entropy, a real number.

    Returns:
      min(1, m 2^(1 - n)).

    Raises:
      TypeError: if the length is not real.
      ValueError: if a number is below 1.

    Reference: Krawczyk, CRYPTO '94, LNCS 839, 129; for imperfect keys Li et al., arXiv 2301.01132,
    from memory.

    >>> forgery_bound(8, 6), round(forgery_bound(8, 5.5), 4)
    (0.25, 0.3536)
    """
    checks.integer("message_bits", message_bits)
    checks.within("length", length, 1.0, math.inf)
    return min(1.0, message_bits * 2.0 ** (1 - length))


def tag_length(message_bits: int, forgery: float) -> int:
    """The fewest bits of a tag that keep `forgery_bound` as low as told.

    Args:
      message_bits: m.
      forgery: probability in (0, 1).

    Returns:
      n.

    Raises:
      ValueError: if a number is out of range.

    >>> [tag_length(bits, 1e-10) for bits in (8, 32, 1_000_000)]
    [38, 40, 55]
    """
    checks.integer("message_bits", message_bits)
    checks.open_interval("forgery", forgery)
    length = 1
    while forgery_bound(message_bits, length) > forgery:
        length += 1
    return length


def best_forgery(message_bits: int, length: int) -> float:
    """Exact probability of the best forgery of a tag, by trying all of them.

    A forger has a message and its tag, and sends another message and another tag. Under a pad
    that nobody knows only the differences of the two count: the forgery holds for those keys with
    which the hash of the one difference is the other.

    Args:
      message_bits: m, in [1, 12].
      length: n, in [2, 8].

    Returns:
      The largest, over all differences, of the fraction of all irreducible polynomials and all
      states with which the forgery holds.

    Raises:
      ValueError: if a number is out of range.

    >>> best_forgery(8, 6), forgery_bound(8, 6)
    (0.125, 0.25)
    """
    checks.integer("message_bits", message_bits, 1, MOST_MESSAGE)
    checks.integer("length", length, 2, MOST_TAG)
    polynomials = irreducible_polynomials(length)
    held = np.zeros((2**message_bits, 2**length), np.int64)
    differences = np.arange(2**message_bits)[:, None]
    for polynomial in polynomials:
        states = np.arange(2**length)
        hashes = np.zeros((2**message_bits, 2**length), np.int64)
        for place in range(message_bits - 1, -1, -1):
            hashes ^= ((differences >> place) & 1) * states
            states = (states << 1) ^ ((states >> (length - 1)) * polynomial)
        np.add.at(held, (differences, hashes), 1)
    return float(held[1:].max() / (len(polynomials) * 2**length))
