"""Hashing with a shift register: Toeplitz matrices over GF(2) that a few bits describe.

A register of n bits with feedback p, an irreducible polynomial of degree n, runs through states
s_0, s_1, ... from an initial one: the state moves one place to the left, and where the highest bit
leaves, the lower bits of p are added. The hash of a message is the sum of the states at its ones,
so that it is linear in the message and in the initial state.

Polynomials and states are integers of Python whose bits are coefficients, bit k that of x^k. All of
this is public or known before a program is traced; `hash_matrix` is for what is known inside one.
"""

from collections.abc import Sequence

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._types import Key

#: The largest degree whose polynomials are listed, and the largest at all.
MOST_LISTED, MOST_DEGREE = 16, 128


def is_irreducible(polynomial: int) -> bool:
    """Tells whether a polynomial over GF(2) has no divisor of a lower degree, but one.

    Args:
      polynomial: its coefficients as the bits of an integer.

    Returns:
      True if it is irreducible: if it divides x^(2^n) - x, and has no divisor in common with
      x^(2^(n / q)) - x for any prime q that divides its degree n.

    Raises:
      ValueError: if its degree is not in [1, 128].

    Reference: Rabin, SIAM J. Comput. 9, 273 (1980).

    >>> is_irreducible(0b100011011), is_irreducible(0b100011111)  # x^8 + x^4 + x^3 + x + 1 is
    (True, False)
    """
    polynomial = checks.integer("polynomial", polynomial, 2, 2 ** (MOST_DEGREE + 1) - 1)
    degree = polynomial.bit_length() - 1
    frobenius = {0: 2}  # x^(2^k) by k
    power = _reduced(2, polynomial)
    for k in range(1, degree + 1):
        power = _reduced(_squared(power), polynomial)
        frobenius[k] = power
    if frobenius[degree] != _reduced(2, polynomial):
        return False
    primes = [q for q in range(2, degree + 1) if degree % q == 0 and _is_prime(q)]
    return all(_gcd(polynomial, frobenius[degree // q] ^ 2) == 1 for q in primes)


def irreducible_polynomials(degree: int) -> list[int]:
    """All irreducible polynomials over GF(2) of one degree.

    Args:
      degree: in [1, 16].

    Returns:
      Integers whose bits are coefficients, in ascending order.

    Raises:
      ValueError: if the degree is out of range.

    >>> [len(irreducible_polynomials(degree)) for degree in (6, 8, 10)]
    [9, 30, 99]
    """
    checks.integer("degree", degree, 1, MOST_LISTED)
    return [each for each in range(1 << degree, 2 << degree) if is_irreducible(each)]


def irreducible_polynomial(key: Key, degree: int) -> int:
    """A random irreducible polynomial over GF(2), each of the degree as likely as any other.

    Args:
      key: typed PRNG key.
      degree: in [2, 128].

    Returns:
      An integer whose bits are coefficients.

    Raises:
      TypeError: if the key is not a typed one.
      ValueError: if the degree is out of range.

    >>> is_irreducible(irreducible_polynomial(jax.random.key(0), 38))
    True
    """
    checks.prng_key("key", key)
    checks.integer("degree", degree, 2, MOST_DEGREE)
    batch = 0
    while True:  # one in about degree / 2 of those with a constant term is irreducible
        words = np.asarray(jax.random.bits(jax.random.fold_in(key, batch), (64, 4), np.uint32))
        for row in words:
            drawn = int.from_bytes(row.tobytes(), "little") % (1 << degree)
            candidate = (1 << degree) | drawn | 1
            if is_irreducible(candidate):
                return candidate
        batch += 1


def lfsr_hash(message: Sequence[int] | np.ndarray, state: int, polynomial: int) -> int:
    """The hash of a message by a shift register.

    It is that of the same message with zeros behind it: `tag` and `sign` mark the end by a one.

    Args:
      message: (m,) bits, the first of which meets the initial state.
      state: the initial state, in [0, 2^n).
      polynomial: the feedback, irreducible of degree n.

    Returns:
      The hash, an integer in [0, 2^n).

    Raises:
      ValueError: if the message is not of bits, or the polynomial reducible, or the state too
        large.

    Reference: Krawczyk, CRYPTO '94, LNCS 839, 129.

    >>> one = [(0x3F800000 >> place) & 1 for place in range(31, -1, -1)]  # of float32 1.0
    >>> hex(lfsr_hash(one, 0xA5, 0b100011011))
    '0x78'
    """
    bits = check_bits("message", message)
    state, polynomial = check_register(state, polynomial)
    total = 0
    for bit in bits:
        total ^= state if bit else 0
        state = _reduced(state << 1, polynomial)
    return total


def hash_matrix(size: int, state: int, polynomial: int) -> np.ndarray:
    """The Toeplitz matrix of `lfsr_hash`, for messages that are known inside a traced program.

    Args:
      size: m, bits of a message.
      state: as for `lfsr_hash`.
      polynomial: as for `lfsr_hash`.

    Returns:
      (n, m) uint8 bits M, the highest bit of the hash in the first row: the hash of bits b is
      M b mod 2.

    Raises:
      ValueError: as `lfsr_hash`; if the size is below 1.

    >>> hash_matrix(3, 0b01, 0b111)
    array([[0, 1, 1],
           [1, 0, 1]], dtype=uint8)
    """
    checks.integer("size", size)
    state, polynomial = check_register(state, polynomial)
    degree, columns = polynomial.bit_length() - 1, []
    for _ in range(size):
        columns.append([(state >> place) & 1 for place in range(degree - 1, -1, -1)])
        state = _reduced(state << 1, polynomial)
    return np.array(columns, np.uint8).T


def check_bits(argument: str, message: Sequence[int] | np.ndarray) -> list[int]:
    """The bits of a message, which has one at least.

    Raises:
      ValueError: if it is empty, has more than one axis, or an entry that is neither 0 nor 1.
    """
    known = np.asarray(message)
    if known.ndim != 1 or not known.size or not np.isin(known, (0, 1)).all():
        checks.refuse(argument, "be one or more bits along one axis", known)
    return [int(bit) for bit in known]


def ended(message: Sequence[int] | np.ndarray) -> list[int]:
    """The bits of a message and a one that marks its end.

    Without it zeros appended to a message, or taken from its end, would leave its hash as it is.
    """
    return [*check_bits("message", message), 1]


def check_register(state: int, polynomial: int) -> tuple[int, int]:
    """The initial state and the feedback of a register, as integers of Python.

    Raises:
      ValueError: if the polynomial is reducible, or the state does not fit its degree.
    """
    if not is_irreducible(polynomial):
        checks.refuse("polynomial", "be irreducible over GF(2)", polynomial)
    known = int(polynomial)
    return checks.integer("state", state, 0, 2 ** (known.bit_length() - 1) - 1), known


def _reduced(value: int, polynomial: int) -> int:
    """The remainder of a polynomial."""
    length = polynomial.bit_length()
    while value.bit_length() >= length:
        value ^= polynomial << (value.bit_length() - length)
    return value


def _squared(value: int) -> int:
    """The square of a polynomial: a zero between each two of its bits."""
    return int("0".join(f"{value:b}"), 2)


def _gcd(one: int, other: int) -> int:
    while other:
        one, other = other, _reduced(one, other)
    return one


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % q for q in range(2, int(number**0.5) + 1))
