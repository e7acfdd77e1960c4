"""Block codes with bounded-distance decoding: Reed-Solomon, extended Hamming, repetition."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxqring import _checks as checks
from jaxqring.codes._binomial import binomial_tail
from jaxqring.codes._codewords import Codewords, as_probability
from jaxqring.link._symbol_channel import SymbolChannel


@dataclasses.dataclass(frozen=True)
class BlockCode(Codewords):
    """An (n, k) block code with bounded-distance decoding, systematic.

    As the protection of a ring it corrects and never repeats: a codeword beyond its reach is
    delivered as it is, and counted as undelivered.

    Attributes:
      n: code symbols in a codeword.
      k: code symbols of payload in it.
      t: wrong code symbols corrected, at most (n - k) / 2.
      symbol_bits: bits of a code symbol, 1 or even. A binary codeword of odd length is filled up
        with one bit, and the failure probability is that of n + 1 bits.
      erasures: erased code symbols corrected if none is wrong: 2 t, or 2 t + 1 for a code whose
        distance is even; 2 t if None.

    Raises:
      ValueError: if a number is outside its domain, or no such code can exist (Hamming's bound).

    >>> from jaxqring import superdense, werner
    >>> code = reed_solomon(255, 223)
    >>> round(float(code.failure_prob(superdense(werner(fidelity=0.99)))), 4)
    0.0255
    """

    n: int
    k: int
    t: int
    symbol_bits: int = 8
    erasures: int | None = None

    attempts: ClassVar[int] = 1
    missed_fraction: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        for name in ("n", "k", "t", "symbol_bits"):
            checks.integer(name, getattr(self, name), 0 if name == "t" else 1)
        if self.symbol_bits > 32 or (self.symbol_bits > 1 and self.symbol_bits % 2):
            checks.refuse("symbol_bits", "be 1 or an even number up to 32", self.symbol_bits)
        if self.n <= self.k:
            checks.refuse("n", f"be above k = {self.k}", self.n)
        if self.k * self.symbol_bits < 2:
            checks.refuse("k", "leave room for one two-bit symbol", self.k)
        if 2 * self.t > self.n - self.k:
            checks.refuse("t", f"be at most (n - k) / 2 = {(self.n - self.k) / 2:g}", self.t)
        sphere = sum(
            math.comb(self.n, i) * (2**self.symbol_bits - 1) ** i for i in range(self.t + 1)
        )
        if sphere > 2 ** (self.symbol_bits * (self.n - self.k)):
            rule = f"be correctable with n - k = {self.n - self.k} check symbols (Hamming's bound)"
            checks.refuse("t", rule, self.t)
        if self.erasures is not None:
            checks.one_of("erasures", self.erasures, (2 * self.t, 2 * self.t + 1))
            if self.erasures > self.n - self.k:
                checks.refuse("erasures", f"be at most n - k = {self.n - self.k}", self.erasures)

    @property
    def block(self) -> "BlockCode":
        return self

    @property
    def is_binary(self) -> bool:
        return self.symbol_bits == 1

    @property
    def payload_symbols(self) -> int:
        return self.k * self.symbol_bits // 2

    def _shortened(self, symbols: int) -> "BlockCode":
        return self.with_payload(2 * symbols)

    def with_payload(self, bits: int) -> "BlockCode":
        """The code shortened to the fewest code symbols of payload that hold this many bits."""
        k = -(-bits // self.symbol_bits)
        return dataclasses.replace(self, n=self.n - self.k + k, k=k)

    @property
    def units(self) -> int:
        """Number of units, which weigh 0, 1 or 2: code symbols, or qubits of a binary code."""
        return -(-self.n // 2) if self.is_binary else self.n

    @property
    def symbols(self) -> int:
        """Online qubits of a codeword."""
        return self.units * max(self.symbol_bits // 2, 1)

    @property
    def limit(self) -> int:
        """The largest sum of weights that is corrected."""
        most = 2 * self.t if self.erasures is None else self.erasures
        return most // 2 if self.is_binary else most

    def unit_probs(self, channel: SymbolChannel) -> tuple[jax.Array | None, jax.Array]:
        """Probabilities (...) of the weights 1 and 2 of a unit; None if weight 1 cannot occur."""
        lost = as_probability(channel.erasure_prob)
        if self.is_binary:
            q = channel.xor_probs
            return as_probability(q[..., 1] + q[..., 2] + lost), as_probability(q[..., 3])
        qubits = self.symbol_bits // 2
        error = as_probability(channel.error_prob)
        if not channel.is_heralded:
            return None, binomial_tail(0, qubits, error)
        arrived = jnp.where(lost < 1, 1 - lost, 1)
        error = as_probability(error / arrived)
        return binomial_tail(0, qubits, lost), (1 - lost) ** qubits * binomial_tail(
            0, qubits, error
        )


def reed_solomon(n: int, k: int, *, symbol_bits: int = 8) -> BlockCode:
    """Builds a Reed-Solomon code over GF(2^symbol_bits), shortened if n < 2^symbol_bits - 1.

    It corrects (n - k) // 2 wrong code symbols, or n - k erased ones.

    Args:
      n: code symbols in a codeword, at most 2^symbol_bits - 1.
      k: code symbols of payload.
      symbol_bits: bits of a code symbol, even.

    Returns:
      The code, which also corrects erasures.

    Raises:
      ValueError: if a number is outside its domain.

    >>> reed_solomon(255, 223).t
    16
    """
    for name, value in (("n", n), ("k", k), ("symbol_bits", symbol_bits)):
        checks.integer(name, value, 1)
    if n > 2**symbol_bits - 1:
        checks.refuse("n", f"be at most 2^symbol_bits - 1 = {2**symbol_bits - 1}", n)
    return BlockCode(n, k, max(n - k, 0) // 2, symbol_bits, erasures=max(n - k, 0))


def secded(n: int = 72, k: int = 64) -> BlockCode:
    """Builds an extended Hamming code, which corrects one bit error, or three erased bits.

    Args:
      n: bits in a codeword.
      k: bits of payload; 2^(n - k - 1) must reach n.

    Returns:
      The code, of one-bit code symbols.

    Raises:
      ValueError: if a number is outside its domain.

    >>> secded(72, 64).t
    1
    """
    for name, value in (("n", n), ("k", k)):
        checks.integer(name, value, 1)
    if 2 ** max(n - k - 1, 0) < n:
        checks.refuse("n", f"be at most 2^(n - k - 1) = {2.0 ** (n - k - 1):g}", n)
    return BlockCode(n, k, 1, symbol_bits=1, erasures=3)


def repetition(n: int) -> BlockCode:
    """Builds the code that sends each two-bit symbol n times and takes the majority.

    More than half of the copies must be right.

    Args:
      n: copies, at least 2.

    Returns:
      The code, of two-bit code symbols, with one of payload.

    Raises:
      ValueError: if n is below 2.

    >>> repetition(5).t
    2
    """
    checks.integer("n", n, 2)
    return BlockCode(n, 1, (n - 1) // 2, symbol_bits=2, erasures=n - 1)
