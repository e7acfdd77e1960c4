"""Codes that detect and correct symbol errors, and retransmission.

A code is described by what it corrects, not by its algebra: bounded-distance decoding brings a
codeword back exactly if its errors are few enough, and fails otherwise. The probability of that is
exact, from the symbol channel of the link:

* A code over GF(2^s) with even s has one code symbol on s / 2 qubits. A binary code has two code
  bits on each qubit, which may flip together.
* e wrong and f erased code symbols are corrected if 2e + f <= `erasures`. A code symbol is erased
  if a qubit of it is flagged as lost; a lost qubit erases both bits of a binary code.
* Qubits fail independently, with the XOR pattern of `SymbolChannel.xor_probs`. On a scrambled link
  that is exact.

So each unit (a code symbol, or a qubit of a binary code) has weight 0, 1 or 2, and the word fails
if the weights sum to more than a limit. Failures are counted as such: that a decoder takes a word
for a wrong one close by is left to the checksum of `Retransmit`.

A message that does not fill its last codeword is not charged a whole one: that word is shortened,
as real systems do it (`Codewords.shortened`).

What a code delivers per online qubit (`net_rate`) is a reconstruction of ours; the paper states
the factor of two for perfect pairs only.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring.codes._binomial import binomial_pmf, binomial_tail
from jaxqring.link._symbol_channel import SymbolChannel, check_transition, xor_symmetric


class Codewords:
    """What `BlockCode` and `Retransmit` have in common: words that arrive whole or not.

    Channels may have batch axes (...), and every result then has them, too.
    """

    @property
    def block(self) -> "BlockCode":
        """The code of each word."""
        raise NotImplementedError

    @property
    def attempts(self) -> int:
        """How often a word is sent at most."""
        raise NotImplementedError

    @property
    def missed_fraction(self) -> float:
        """The part of the failures that the receiver takes for success."""
        raise NotImplementedError

    @property
    def payload_symbols(self) -> int:
        """Two-bit symbols of payload in a codeword."""
        raise NotImplementedError

    def shortened(self, symbols: int) -> "Codewords":
        """The same code with less payload in a word.

        The code symbols of payload left out are zeros that both ends know: they are not sent and
        cannot be wrong. Check symbols, checksum and reach stay what they are, so that the word
        fails less often, by the same formula with fewer units; and that a failure is missed is as
        likely, because the checksum is as long.

        Args:
          symbols: two-bit symbols of payload, at least 1 and at most `payload_symbols`. What does
            not fill a code symbol is filled up with zeros.

        Raises:
          ValueError: if the number of symbols is out of range.

        Source: Lin and Costello, Error Overrides Coding, section 4.6 (shortened cyclic codes).

        >>> reed_solomon(255, 223).shortened(376)
        BlockCode(n=126, k=94, t=16, symbol_bits=8, erasures=32)
        """
        check_count("symbols", symbols, 1)
        if symbols > self.payload_symbols:
            checks.refuse("symbols", f"be at most the {self.payload_symbols} of a word", symbols)
        return self if symbols == self.payload_symbols else self._shortened(symbols)

    def _shortened(self, symbols: int) -> "Codewords":
        raise NotImplementedError

    def failure_prob(self, channel: SymbolChannel) -> jax.Array:
        """(...) probability that a codeword, sent once, cannot be corrected.

        Args:
          channel: the link; batch shape (...).

        Raises:
          TypeError, ValueError: if `channel` is not a symbol channel.
        """
        check_transition("channel", channel)
        code = self.block
        return _exceeds(code.units, code.limit, *code.unit_probs(channel))

    def expected_attempts(self, channel: SymbolChannel) -> jax.Array:
        """(...) mean number of times that a codeword is sent."""
        again = self.failure_prob(channel) * (1 - self.missed_fraction)
        return _geometric_sum(again, self.attempts)

    def undelivered_prob(self, channel: SymbolChannel) -> jax.Array:
        """(...) probability that a codeword is still wrong after its last attempt."""
        fails = self.failure_prob(channel)
        return fails * self.wrong_ends(fails)

    def wrong_ends(self, fails: jax.Array) -> jax.Array:
        """(...) mean number of attempts that leave a word wrong for good, if each attempt fails.

        That times the failure probability (...) of one attempt is the probability of a wrong word:
        any attempt may be missed, and the last is final in any case.
        """
        missed, again = self.missed_fraction, fails * (1 - self.missed_fraction)
        return missed * _geometric_sum(again, self.attempts) + (1 - missed) * again ** (
            self.attempts - 1
        )

    def net_rate(self, channel: SymbolChannel) -> jax.Array:
        """(...) payload bits that arrive exact per online qubit, in the mean.

        2 without overhead or noise. Overheads are the code, the checksum, repetitions and words
        that stay wrong. This is the rate of full words; the last word of a message, shortened to
        what is left, has the same overhead for less payload, as `jaxqring.economics.budget`
        counts. Words of a few bits are also right by chance, which this counts although no
        receiver could tell: for `repetition` on links near white noise it exceeds the capacity.
        """
        sent = self.block.symbols * self.expected_attempts(channel)
        return 2 * self.payload_symbols * (1 - self.undelivered_prob(channel)) / sent

    def residual(self, channel: SymbolChannel) -> SymbolChannel:
        """What one symbol of payload meets in the end: (..., 4, 4), exact and XOR-symmetric.

        Symbols of the same word are not independent of each other, as a word is wrong or right as
        a whole. A lost qubit of a wrong word is replaced by a uniform guess.
        """
        check_transition("channel", channel)
        code = self.block
        units, limit = code.units - 1, code.limit
        erased, wrong = code.unit_probs(channel)
        q, lost = channel.xor_probs, channel.erasure_prob

        def beyond(weight: int) -> jax.Array:
            """(...) probability that a unit of this weight is in a word that fails."""
            return _exceeds(units, limit - weight, erased, wrong)

        if code.is_binary:
            scale = jnp.stack([beyond(0), beyond(1), beyond(1), beyond(2)], axis=-1)
        else:
            # Another qubit of the same code symbol may be lost, which turns an error to an erasure.
            others = binomial_tail(0, code.symbol_bits // 2 - 1, as_probability(lost))
            scale = ((1 - others) * beyond(2) + others * beyond(1))[..., None]
        patterns = q * scale + (lost * beyond(1))[..., None] / 4
        patterns = patterns * self.wrong_ends(self.failure_prob(channel))[..., None]
        shown = patterns[..., 1:]
        patterns = jnp.concatenate([1 - jnp.sum(shown, axis=-1, keepdims=True), shown], axis=-1)
        return SymbolChannel(xor_symmetric(patterns), channel.clipped)


@dataclasses.dataclass(frozen=True)
class BlockCode(Codewords):
    """An (n, k) block code with bounded-distance decoding, systematic.

    As the protection of a ring it corrects and never repeats: a word beyond its reach is delivered
    as it is, and counted as undelivered.

    Attributes:
      n: code symbols in a word.
      k: code symbols of payload in it.
      t: wrong code symbols corrected, at most (n - k) / 2.
      symbol_bits: bits of a code symbol, 1 or even. A binary code of odd length is filled up with
        one bit, and the failure probability is that of n + 1 bits.
      erasures: erased code symbols corrected if none is wrong: 2 t, or 2 t + 1 for a code whose
        distance is even; 2 t if None.

    Raises:
      ValueError: if a number is outside its domain, or no such code can exist (Hamming's bound).

    >>> from jaxqring.link._symbol_channel import superdense
    >>> from jaxqring.physics.pairs import werner
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
            check_count(name, getattr(self, name), 0 if name == "t" else 1)
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
        """The code shortened to the fewest code symbols of payload that hold so many bits."""
        k = -(-bits // self.symbol_bits)
        return dataclasses.replace(self, n=self.n - self.k + k, k=k)

    @property
    def units(self) -> int:
        """Code symbols, or qubits of a binary code: what has a weight of 0, 1 or 2."""
        return -(-self.n // 2) if self.is_binary else self.n

    @property
    def symbols(self) -> int:
        """Online qubits of a word."""
        return self.units * max(self.symbol_bits // 2, 1)

    @property
    def limit(self) -> int:
        """The largest sum of weights that is corrected."""
        most = 2 * self.t if self.erasures is None else self.erasures
        return most // 2 if self.is_binary else most

    def unit_probs(self, channel: SymbolChannel) -> tuple[jax.Array | None, jax.Array]:
        """(...) probabilities of the weights 1 and 2 of a unit; None where 1 cannot happen."""
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
    """A Reed-Solomon code over GF(2^symbol_bits), shortened if n < 2^symbol_bits - 1.

    It corrects (n - k) // 2 wrong symbols, or n - k erased ones.

    Args:
      n: symbols in a word, at most 2^symbol_bits - 1.
      k: symbols of payload.
      symbol_bits: bits of a symbol, even.

    Raises:
      ValueError: if a number is outside its domain.

    >>> reed_solomon(255, 223).t
    16
    """
    for name, value in (("n", n), ("k", k), ("symbol_bits", symbol_bits)):
        check_count(name, value, 1)
    if n > 2**symbol_bits - 1:
        checks.refuse("n", f"be at most 2^symbol_bits - 1 = {2**symbol_bits - 1}", n)
    return BlockCode(n, k, max(n - k, 0) // 2, symbol_bits, erasures=max(n - k, 0))


def bch(n: int, k: int, t: int) -> BlockCode:
    """A binary BCH code, narrow-sense and primitive, shortened where n is not 2^m - 1.

    The code of 2^m - 1 bits that corrects t errors has a check bit for each element of the
    2-cyclotomic cosets of 1, ..., 2 t: the powers of a primitive element of GF(2^m) at which its
    polynomials vanish. Where that leaves more than k bits for payload, zeros fill them up.

    Args:
      n: bits in a word; m is the smallest with n <= 2^m - 1.
      k: bits of payload.
      t: bit errors corrected, at most those for which n - k check bits are enough.

    Raises:
      ValueError: if a number is outside its domain, or t above what n - k check bits correct.

    Reference: Lin and Costello, Error Overrides Coding, section 6.1 (binary primitive BCH codes).

    >>> bch(255, 223, 4).symbols
    128
    """
    code = BlockCode(n, k, 0, symbol_bits=1)
    check_count("t", t, 0)
    most = _bch_reach(n, n - k)
    if t > most:
        rule = f"be at most {most}, the errors that a BCH code of {n} bits corrects with k = {k}"
        checks.refuse("t", rule, t)
    return dataclasses.replace(code, t=t)


def _bch_reach(n: int, check_bits: int) -> int:
    """The most bit errors that a BCH code of n bits corrects with so many check bits."""
    degree = n.bit_length()
    order = 2**degree - 1  # of the code that this one is shortened from
    zeros: set[int] = set()
    for reach, power in enumerate(range(1, order, 2)):
        zeros.update((power << squared) % order for squared in range(degree))
        if len(zeros) > check_bits:
            return reach
    return order // 2


def secded(n: int = 72, k: int = 64) -> BlockCode:
    """An extended Hamming code: it corrects one bit error, or three erased bits.

    Args:
      n: bits in a word.
      k: bits of payload; 2^(n - k - 1) must reach n.

    Raises:
      ValueError: if a number is outside its domain.

    >>> secded(72, 64).t
    1
    """
    for name, value in (("n", n), ("k", k)):
        check_count(name, value, 1)
    if 2 ** max(n - k - 1, 0) < n:
        checks.refuse("n", f"be at most 2^(n - k - 1) = {2.0 ** (n - k - 1):g}", n)
    return BlockCode(n, k, 1, symbol_bits=1, erasures=3)


def repetition(n: int) -> BlockCode:
    """Each two-bit symbol sent n times; more than half of the copies must be right.

    Args:
      n: copies, at least 2.

    Raises:
      ValueError: if n is below 2.

    >>> repetition(5).t
    2
    """
    check_count("n", n, 2)
    return BlockCode(n, 1, (n - 1) // 2, symbol_bits=2, erasures=n - 1)


def as_probability(value: jax.Array) -> jax.Array:
    """`value` in [0, 1], with the derivative of `value` even where rounding left the interval."""
    return value + jax.lax.stop_gradient(jnp.clip(value, 0, 1) - value)


def check_count(argument: str, value: int, least: int) -> None:
    """Refuses what is no integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        checks.refuse(argument, f"be an integer of at least {least}", value)


def _geometric_sum(ratio: jax.Array, terms: int) -> jax.Array:
    """(...) 1 + ratio + ratio^2 + ..., so many terms."""
    return jnp.polyval(jnp.ones((terms,), ratio.dtype), ratio)


def _exceeds(units: int, limit: int, single: jax.Array | None, double: jax.Array) -> jax.Array:
    """The probability that the weights of independent units sum to more than a limit.

    Args:
      units: how many.
      limit: of the sum.
      single: (...) probability of weight 1, or None for zero.
      double: (...) probability of weight 2.
    """
    if limit < 0:
        return jnp.ones_like(double)
    most = limit // 2
    beyond = binomial_tail(most, units, double)
    if single is None:
        return beyond
    # So many units of weight 2, and among the others too many of weight 1.
    doubles = np.arange(min(most, units) + 1)
    left = jnp.where(double < 1, 1 - double, 1)
    share = as_probability(single / left)[..., None]
    tails = binomial_tail(limit - 2 * doubles, units - doubles, share)
    return beyond + jnp.sum(binomial_pmf(doubles, units, double[..., None]) * tails, axis=-1)
