"""Signatures of one-time universal hashing: a tag that a third node can check.

A signer shares with each of two receivers a state of n bits and a pad of 2n bits, from two quantum
keys; its own are the sums of the two. To sign, it draws an irreducible polynomial, hashes the
message with it from its state, and hides the hash and the polynomial by its pad. The first receiver
sends message, signature and its shares on to the second, who answers with its own. Both then have
the signer's secrets, and find the same. Neither could have made the signature, as it lacked the
share of the other; the signer cannot deny it, as both find the same.

The paper's: keys X and Y, their sums, the hash by a shift register with a random polynomial, the
order of the messages, and the bound m / 2^(n - 1) (from memory, not read again). Ours: the order of
the bits; a one after the last bit of a message, without which zeros could be appended to it; that a
receiver refuses a polynomial that is reducible; and that shares travel between receivers over a
channel that they have authenticated otherwise, without which a relay could have honest receivers
disagree. Keys are perfect here; with imperfect ones n counts as their min-entropy.

A receiver may also add to the polynomial under the pad, and gains by it: of 5 bits and a message of
4 its best forgery holds for 17/96 of the keys, where that of a tag holds for 1/32. All alterations
of 3 to 5 bits that we have tried stay within the bound, 1/4 here.

Reference: Yin et al., Natl. Sci. Rev. 10, nwac228 (2023); Li et al., arXiv 2301.01132.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.control._polynomials import MOST_DEGREE, ended, is_irreducible, lfsr_hash


@dataclasses.dataclass(frozen=True)
class Shares:
    """The secrets of one node for one signature.

    Attributes:
      state: X, of n bits; the initial state of the register.
      pad: Y, of 2n bits; the lower n hide the polynomial, the others the hash.
      length: n.

    Raises:
      ValueError: if the length is not in [2, 128], or a secret has more bits.

    >>> Shares(0b101, 0b001100, 3) + Shares(0b100, 0b000111, 3)
    Shares(state=1, pad=11, length=3)
    """

    state: int
    pad: int
    length: int

    def __post_init__(self) -> None:
        length = checks.integer("length", self.length, 2, MOST_DEGREE)
        for name, most in (
            ("length", MOST_DEGREE),
            ("state", 2**length - 1),
            ("pad", 4**length - 1),
        ):
            known = checks.integer(name, getattr(self, name), 0, most)
            object.__setattr__(self, name, known)  # of Python, whose shifts do not overflow

    def __add__(self, other: "Shares") -> "Shares":
        """Bitwise sums of two nodes' secrets.

        Raises:
          ValueError: if they are of another length.
        """
        if not isinstance(other, Shares):
            return NotImplemented
        if other.length != self.length:
            checks.refuse("other", f"be of length {self.length}", other.length)
        return Shares(self.state ^ other.state, self.pad ^ other.pad, self.length)


def deal(key: Key, length: int) -> tuple[Shares, Shares, Shares]:
    """Perfect secrets for one signature: 3n bits of key between the signer and each receiver.

    Args:
      key: typed PRNG key, in place of the two quantum keys.
      length: n, in [2, 128].

    Returns:
      The secrets of the signer, and of its first and its second receiver, of which they are the
      sum.

    Raises:
      TypeError: if the key is not a typed one.
      ValueError: if the length is out of range.

    >>> signer, first, second = deal(jax.random.key(0), 38)
    >>> signer == first + second
    True
    """
    checks.prng_key("key", key)
    checks.integer("length", length, 2, MOST_DEGREE)
    rows = np.asarray(jax.random.bits(key, (2, 12), np.uint32))
    drawn = [int.from_bytes(row.tobytes(), "little") % (1 << 3 * length) for row in rows]
    first, second = (
        Shares(number >> 2 * length, number % (1 << 2 * length), length) for number in drawn
    )
    return first + second, first, second


def sign(message: Sequence[int] | np.ndarray, secrets: Shares, polynomial: int) -> int:
    """The signature of a message.

    Args:
      message: (m,) bits.
      secrets: of the signer, used once.
      polynomial: irreducible over GF(2), of degree n, drawn for this message
        (`irreducible_polynomial`).

    Returns:
      An integer of 2n bits: the hash and the lower coefficients of the polynomial, under the pad.

    Raises:
      TypeError: if the secrets are not Shares.
      ValueError: if the message is not of bits, or the polynomial reducible or of another degree.

    >>> sign([1, 0, 1], Shares(0b101, 0b001100, 3), 0b1011)
    23
    """
    checks.instance("secrets", secrets, Shares)
    if checks.integer("polynomial", polynomial) >> secrets.length != 1:
        checks.refuse("polynomial", f"be of degree {secrets.length}", polynomial)
    hashed = lfsr_hash(ended(message), secrets.state, polynomial)
    plain = (hashed << secrets.length) | (polynomial % (1 << secrets.length))
    return plain ^ secrets.pad


def signature_holds(
    message: Sequence[int] | np.ndarray, signature: int, own: Shares, others: Shares
) -> bool:
    """Tells whether a signature belongs to a message, as each receiver finds.

    Args:
      message: (m,) bits.
      signature: that came with it.
      own: shares of this receiver.
      others: shares that the other receiver has sent.

    Returns:
      True if the polynomial under the pad is irreducible, and the hash that of the message.

    Raises:
      TypeError: if the shares are not Shares.
      ValueError: if the message is not of bits, the signature is too large, or the shares differ
        in length.

    >>> signer, first, second = deal(jax.random.key(0), 8)
    >>> signature = sign([1, 0, 1], signer, 0b100011011)
    >>> [signature_holds(m, signature, first, second) for m in ([1, 0, 1], [1, 1, 1])]
    [True, False]
    """
    checks.instance("own", own, Shares)
    checks.instance("others", others, Shares)
    length = own.length
    secrets = own + others
    message = ended(message)
    plain = checks.integer("signature", signature, 0, 4**length - 1) ^ secrets.pad
    polynomial = (1 << length) | plain % (1 << length)
    if not is_irreducible(polynomial):
        return False
    return lfsr_hash(message, secrets.state, polynomial) == plain >> length
