"""Binary BCH codes, and the number of errors that they correct."""

import dataclasses

from jaxqring import _checks as checks
from jaxqring.codes._block_codes import BlockCode


def bch(n: int, k: int, t: int) -> BlockCode:
    """Builds a binary BCH code, narrow-sense and primitive, shortened if n is not 2^m - 1.

    The code of 2^m - 1 bits that corrects t errors has a check bit for each element of the
    2-cyclotomic cosets of 1, ..., 2 t: the powers of a primitive element of GF(2^m) at which its
    polynomials vanish. Where that leaves more than k bits for payload, zeros fill them up.

    Args:
      n: bits in a codeword; m is the smallest with n <= 2^m - 1.
      k: bits of payload.
      t: bit errors corrected, at most those for which n - k check bits are enough.

    Returns:
      The code, of one-bit code symbols.

    Raises:
      ValueError: if a number is outside its domain, or t above what n - k check bits correct.

    Reference: Lin and Costello, Error Control Coding, section 6.1 (binary primitive BCH codes).

    >>> bch(255, 223, 4).symbols
    128
    """
    code = BlockCode(n, k, 0, symbol_bits=1)
    checks.integer("t", t, 0)
    most = _bch_reach(n, n - k)
    if t > most:
        rule = f"be at most {most}, the errors that a BCH code of {n} bits corrects with k = {k}"
        checks.refuse("t", rule, t)
    return dataclasses.replace(code, t=t)


def _bch_reach(n: int, check_bits: int) -> int:
    """The largest number of bit errors that a BCH code of n bits corrects with these check bits."""
    degree = n.bit_length()
    order = 2**degree - 1  # of the code that this one is shortened from
    zeros: set[int] = set()
    for reach, power in enumerate(range(1, order, 2)):
        zeros.update((power << squared) % order for squared in range(degree))
        if len(zeros) > check_bits:
            return reach
    return order // 2
