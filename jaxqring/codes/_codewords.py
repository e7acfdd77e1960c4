"""Codewords over a noisy link: how likely they arrive, after how many attempts, at what rate.

A code is described by what it corrects, not by its algebra: bounded-distance decoding restores a
codeword exactly if its errors are few enough, and fails otherwise. The probability of that is
exact, from the symbol channel of the link:

* A code over GF(2^s) with even s has one code symbol on s / 2 qubits. A binary code has two code
  bits on each qubit, which may flip together.
* e wrong and f erased code symbols are corrected if 2e + f <= `erasures`. A code symbol is erased
  if one of its qubits is flagged as lost; a lost qubit erases both bits of a binary code.
* Qubits fail independently, with the XOR pattern of `SymbolChannel.xor_probs`. On a scrambled link
  that is exact.

So each unit (a code symbol, or a qubit of a binary code) has weight 0, 1 or 2, and the codeword
fails if the weights sum to more than a limit. Failures are counted as such: a decoder that mistakes
a codeword for a wrong one close by is left to the checksum of `Retransmit`.

A message that does not fill its last codeword is not charged a whole one: that codeword is
shortened, as real systems do (`Codewords.shortened`).

The rate delivered per online qubit (`net_rate`) is derived here; the paper states the factor of two
for perfect pairs only.
"""

import abc
from typing import TYPE_CHECKING, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring.codes._binomial import binomial_pmf, binomial_tail
from jaxqring.link._symbol_channel import SymbolChannel, check_transition, xor_symmetric

if TYPE_CHECKING:
    from jaxqring.codes._block_codes import BlockCode


class Codewords(abc.ABC):
    """The common base of `BlockCode` and `Retransmit`: codewords that arrive whole or not.

    Channels may have batch axes (...), and every result then has them, too.
    """

    @property
    @abc.abstractmethod
    def block(self) -> "BlockCode":
        """The block code of each codeword."""

    @property
    @abc.abstractmethod
    def attempts(self) -> int:
        """Largest number of times that a codeword is sent."""

    @property
    @abc.abstractmethod
    def missed_fraction(self) -> float:
        """Fraction of the failures that the receiver takes for success."""

    @property
    @abc.abstractmethod
    def payload_symbols(self) -> int:
        """Two-bit symbols of payload in a codeword."""

    @abc.abstractmethod
    def _shortened(self, symbols: int) -> Self:
        """The code with this much payload, which is less than a full codeword's."""

    def shortened(self, symbols: int) -> Self:
        """The same code with less payload in a codeword.

        The code symbols of payload left out are zeros that both ends know: they are not sent and
        cannot be wrong. Check symbols, checksum and reach stay the same, so that the codeword
        fails less often, by the same formula with fewer units; a failure is missed as often as
        before, because the checksum is as long.

        Args:
          symbols: two-bit symbols of payload, at least 1 and at most `payload_symbols`. A code
            symbol that they do not fill is filled up with zeros.

        Raises:
          ValueError: if the number of symbols is out of range.

        Reference: Lin and Costello, Error Control Coding, section 4.6 (shortened cyclic codes).

        >>> from jaxqring import reed_solomon
        >>> reed_solomon(255, 223).shortened(376)
        BlockCode(n=126, k=94, t=16, symbol_bits=8, erasures=32)
        """
        checks.integer("symbols", symbols, 1)
        if symbols > self.payload_symbols:
            rule = f"be at most the {self.payload_symbols} of a codeword"
            checks.refuse("symbols", rule, symbols)
        return self if symbols == self.payload_symbols else self._shortened(symbols)

    def failure_prob(self, channel: SymbolChannel) -> jax.Array:
        """Probability (...) that a codeword, sent once, cannot be corrected.

        Args:
          channel: the link; batch shape (...).

        Raises:
          TypeError: if `channel` is not a SymbolChannel.
          ValueError: if its matrix is not a transition matrix.
        """
        check_transition("channel", channel)
        code = self.block
        return _exceeds(code.units, code.limit, *code.unit_probs(channel))

    def expected_attempts(self, channel: SymbolChannel) -> jax.Array:
        """Mean number (...) of times that a codeword is sent."""
        again = self.failure_prob(channel) * (1 - self.missed_fraction)
        return _geometric_sum(again, self.attempts)

    def undelivered_prob(self, channel: SymbolChannel) -> jax.Array:
        """Probability (...) that a codeword is still wrong after its last attempt."""
        fails = self.failure_prob(channel)
        return fails * self.wrong_ends(fails)

    def wrong_ends(self, fails: jax.Array) -> jax.Array:
        """Expected number (...) of failed attempts that are final.

        An attempt is final if the checksum misses the failure, or if it is the last one. Multiply
        by the failure probability `fails` (...) of one attempt for the probability that a codeword
        stays wrong.
        """
        missed, again = self.missed_fraction, fails * (1 - self.missed_fraction)
        return missed * _geometric_sum(again, self.attempts) + (1 - missed) * again ** (
            self.attempts - 1
        )

    def net_rate(self, channel: SymbolChannel) -> jax.Array:
        """Mean number (...) of payload bits that arrive exact per online qubit.

        It is 2 without overhead or noise. Overheads are the code, the checksum, repetitions and
        codewords that stay wrong. This is the rate of full codewords; the last codeword of a
        message, shortened to the remaining payload, has the same overhead for less payload, as
        `jaxqring.economics.budget` counts. Codewords of a few bits are also right by chance, which
        is counted although no receiver could tell: for `repetition` on links near white noise the
        rate exceeds the capacity.
        """
        sent = self.block.symbols * self.expected_attempts(channel)
        return 2 * self.payload_symbols * (1 - self.undelivered_prob(channel)) / sent

    def residual(self, channel: SymbolChannel) -> SymbolChannel:
        """The symbol channel (..., 4, 4) of one symbol of payload: exact and XOR-symmetric.

        Symbols of the same codeword are not independent, because a codeword is wrong or right as a
        whole. A lost qubit of a wrong codeword is replaced by a uniform guess.
        """
        check_transition("channel", channel)
        code = self.block
        units, limit = code.units - 1, code.limit
        erased, wrong = code.unit_probs(channel)
        q, lost = channel.xor_probs, channel.erasure_prob

        def beyond(weight: int) -> jax.Array:
            """Probability (...) that a unit of this weight is in a codeword that fails."""
            return _exceeds(units, limit - weight, erased, wrong)

        if code.is_binary:
            scale = jnp.stack([beyond(0), beyond(1), beyond(1), beyond(2)], axis=-1)
        else:
            # Another qubit of the code symbol may be lost, which turns an error into an erasure.
            others = binomial_tail(0, code.symbol_bits // 2 - 1, as_probability(lost))
            scale = ((1 - others) * beyond(2) + others * beyond(1))[..., None]
        patterns = q * scale + (lost * beyond(1))[..., None] / 4
        patterns = patterns * self.wrong_ends(self.failure_prob(channel))[..., None]
        errors = patterns[..., 1:]
        patterns = jnp.concatenate([1 - jnp.sum(errors, axis=-1, keepdims=True), errors], axis=-1)
        return SymbolChannel(xor_symmetric(patterns), channel.clipped)


def as_probability(value: jax.Array) -> jax.Array:
    """Clips `value` to [0, 1], keeping its derivative even where rounding left the interval."""
    return value + jax.lax.stop_gradient(jnp.clip(value, 0, 1) - value)


def _geometric_sum(ratio: jax.Array, terms: int) -> jax.Array:
    """The sum (...) 1 + ratio + ratio^2 + ... of this many terms."""
    return jnp.polyval(jnp.ones((terms,), ratio.dtype), ratio)


def _exceeds(units: int, limit: int, single: jax.Array | None, double: jax.Array) -> jax.Array:
    """The probability that the weights of independent units sum to more than a limit.

    Args:
      units: number of units.
      limit: the largest sum that is corrected.
      single: (...) probability of weight 1, or None for zero.
      double: (...) probability of weight 2.
    """
    if limit < 0:
        return jnp.ones_like(double)
    most = limit // 2
    beyond = binomial_tail(most, units, double)
    if single is None:
        return beyond
    # A number of units of weight 2, and among the others too many of weight 1.
    doubles = np.arange(min(most, units) + 1)
    others = jnp.where(double < 1, 1 - double, 1)
    single_of_others = as_probability(single / others)[..., None]
    tails = binomial_tail(limit - 2 * doubles, units - doubles, single_of_others)
    return beyond + jnp.sum(binomial_pmf(doubles, units, double[..., None]) * tails, axis=-1)
