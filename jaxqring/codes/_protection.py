"""Protection of a ring against errors: codes, retransmission, and unequal protection.

`Ring(protection=...)` takes a `BlockCode` alone, `Retransmit`, `IdealCode` as the bound on all
codes, or `Unequal`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring.codec._formats import FixedPoint
from jaxqring.codes._block_codes import BlockCode
from jaxqring.codes._codewords import Codewords, as_probability
from jaxqring.link._symbol_channel import SymbolChannel, check_transition
from jaxqring.physics.information import entropy_bits


@dataclasses.dataclass(frozen=True)
class Retransmit(Codewords):
    """A block code with a checksum in each codeword; a codeword that fails is sent again.

    Attributes:
      code: the code of each codeword.
      max_attempts: largest number of times that a codeword is sent; after the last it is delivered
        as it is and counted as undelivered.
      checksum_bits: bits of payload given to the checksum. A codeword that is not corrected passes
        it with probability 2^-checksum_bits, and is then delivered wrong: counted as undelivered,
        too, though a receiver would not know. Errors that the code itself detects are not relied
        on.

    Requests for repetition travel over the error-free classical control channel.

    Raises:
      TypeError: if `code` is not a BlockCode.
      ValueError: if a number is outside its domain, or the checksum leaves no payload.

    >>> from jaxqring import reed_solomon, superdense, werner
    >>> link = superdense(werner(fidelity=0.99))
    >>> round(float(Retransmit(reed_solomon(255, 223)).net_rate(link)), 3)
    1.674
    """

    code: BlockCode
    max_attempts: int = 8
    checksum_bits: int = 32

    def __post_init__(self) -> None:
        checks.instance("code", self.code, BlockCode)
        checks.integer("max_attempts", self.max_attempts, 1)
        checks.integer("checksum_bits", self.checksum_bits, 1)
        payload = self.code.k * self.code.symbol_bits
        if payload - self.checksum_bits < 2:
            rule = f"leave two of the {payload} bits of payload in a codeword"
            checks.refuse("checksum_bits", rule, self.checksum_bits)

    @property
    def block(self) -> BlockCode:
        return self.code

    @property
    def attempts(self) -> int:
        return self.max_attempts

    @property
    def missed_fraction(self) -> float:
        return 2.0**-self.checksum_bits

    @property
    def payload_symbols(self) -> int:
        return (self.code.k * self.code.symbol_bits - self.checksum_bits) // 2

    def _shortened(self, symbols: int) -> "Retransmit":
        code = self.code.with_payload(2 * symbols + self.checksum_bits)
        return dataclasses.replace(self, code=code)


@dataclasses.dataclass(frozen=True)
class IdealCode:
    """An error-free code at the capacity of the link, less a gap: a bound on every real code.

    Attributes:
      gap: bits per online qubit below capacity, at least zero.

    Raises:
      ValueError: if the gap is negative or not finite.

    >>> from jaxqring import superdense, werner
    >>> round(float(IdealCode().net_rate(superdense(werner(fidelity=0.9)))), 4)
    1.3725
    """

    gap: float = 0.0

    def __post_init__(self) -> None:
        checks.within("gap", self.gap, 0.0, 2.0)

    def net_rate(self, channel: SymbolChannel) -> jax.Array:
        """Bits (...) per online qubit: the capacity of the scrambled link less the gap, or zero."""
        check_transition("channel", channel)
        q, arrived = channel.xor_probs, 1 - channel.erasure_prob
        # Scrambled, so that uniform symbols are best: eta (2 - H(q / eta)), without a division.
        excess = entropy_bits(as_probability(q)) - entropy_bits(as_probability(arrived)[..., None])
        rate = 2 * arrived - excess - self.gap
        return jnp.where(rate > 0, rate, 0.0)

    def residual(self, channel: SymbolChannel) -> SymbolChannel:
        """The noise-free symbol channel."""
        perfect = jnp.broadcast_to(
            jnp.eye(4, dtype=channel.transition.dtype), (*channel.transition.shape[:-2], 4, 4)
        )
        return SymbolChannel(perfect, channel.clipped)


@dataclasses.dataclass(frozen=True)
class Unequal:
    """Protection of the most significant symbols of each level in codewords, the others bare.

    Attributes:
      strong: the code of the most significant symbols.
      symbols: number of two-bit symbols of each level that it protects.

    Raises:
      TypeError: if `strong` is not a BlockCode, Retransmit or IdealCode.
      ValueError: if the number of symbols is not positive.

    >>> from jaxqring import reed_solomon
    >>> Unequal(Retransmit(reed_solomon(255, 223)), symbols=3).symbols
    3
    """

    strong: BlockCode | Retransmit | IdealCode
    symbols: int

    def __post_init__(self) -> None:
        if not isinstance(self.strong, BlockCode | Retransmit | IdealCode):
            rule = "be a BlockCode, Retransmit or IdealCode"
            checks.refuse("strong", rule, self.strong, TypeError)
        checks.integer("symbols", self.symbols, 1)


Protection = BlockCode | Retransmit | IdealCode | Unequal


def hop_error(
    wire: FixedPoint, channel: SymbolChannel, protection: Protection | None
) -> tuple[jax.Array, jax.Array]:
    """Mean square error of one hop, and its cost in qubits.

    Args:
      wire: the format of the levels.
      channel: the link, scrambled; batch shape (...).
      protection: of the link; None for bare symbols.

    Returns:
      (...) mean square error of a level in units of one level squared, arithmetic mod 2^bits left
      aside, averaged over uniformly distributed levels (errors of different bits then do not
      correlate); and (...) expected online qubits per level. Both are of full codewords: the last
      codeword of a message, shortened to the remaining payload, fails less often and costs more
      for each symbol.

    Raises:
      TypeError: if `wire` is not a FixedPoint or `channel` not a SymbolChannel.
      ValueError: if more symbols are to be protected than a level has.

    >>> from jaxqring import superdense, werner
    >>> link = superdense(werner(fidelity=0.9))
    >>> error, qubits = hop_error(FixedPoint(8), link, None)
    >>> round(float(error), 2), float(qubits)
    (1456.33, 4.0)
    """
    checks.instance("wire", wire, FixedPoint)
    check_transition("channel", channel)
    strong, count = protected_part(protection, wire.bits)
    squares = 4.0 ** np.arange(wire.bits)  # of the weights of the bits, the lowest first
    bare = channel.guessed()

    def mean_square(link: SymbolChannel, low: int, high: int) -> jax.Array:
        flips = link.flip_probs  # of the high bit of a symbol, and of the low one
        highs, lows = squares[2 * low + 1 : 2 * high : 2], squares[2 * low : 2 * high : 2]
        return flips[..., 0] * float(highs.sum()) + flips[..., 1] * float(lows.sum())

    symbols = wire.bits // 2
    error = mean_square(bare, 0, symbols - count)
    qubits = jnp.full_like(error, symbols - count)
    if strong is not None:
        error += mean_square(strong.residual(channel), symbols - count, symbols)
        qubits += count * qubits_per_symbol(strong, channel)
    return error, qubits


def qubits_per_symbol(
    strong: BlockCode | Retransmit | IdealCode, channel: SymbolChannel
) -> jax.Array:
    """Expected online qubits (...) per symbol of payload in full codewords, with repetitions."""
    if isinstance(strong, IdealCode):
        rate = strong.net_rate(channel)
        return jnp.where(rate > 0, 2 / jnp.where(rate > 0, rate, 1.0), jnp.inf)
    per_attempt = strong.block.symbols / strong.payload_symbols
    return per_attempt * strong.expected_attempts(channel)


def protected_part(
    protection: Protection | None, bits: int
) -> tuple[BlockCode | Retransmit | IdealCode | None, int]:
    """The code in use, and the number of the highest symbols of a level that it protects."""
    if isinstance(protection, Unequal):
        if protection.symbols > bits // 2:
            rule = f"be at most the {bits // 2} symbols of the wire"
            checks.refuse("protection.symbols", rule, protection.symbols)
        return protection.strong, protection.symbols
    return protection, 0 if protection is None else bits // 2
