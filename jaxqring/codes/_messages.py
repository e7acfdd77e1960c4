"""The codewords of one message: full ones, and a last one shortened to the remaining payload."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxqring.codes._codewords import Codewords
from jaxqring.codes._protection import IdealCode, Protection, protected_part, qubits_per_symbol
from jaxqring.link._symbol_channel import SymbolChannel


class Message(NamedTuple):
    """The codewords of one message.

    Attributes:
      symbols: two-bit symbols of payload.
      codewords: number of codewords.
      code: the code of all but the last.
      last: the code of the last, shortened to the remaining payload; `code` if that fills it. In a
        message of one codeword, `code` is the same as `last`.
    """

    symbols: int
    codewords: int
    code: Codewords
    last: Codewords

    @property
    def parts(self) -> list[tuple[int, int, Codewords]]:
        """Groups of codewords of equal length: their number, symbols of payload, and code."""
        if self.code == self.last:
            return [(self.codewords, self.symbols, self.code)] if self.codewords else []
        full = self.codewords - 1
        symbols = full * self.code.payload_symbols
        return [(full, symbols, self.code), (1, self.symbols - symbols, self.last)]

    @property
    def qubits(self) -> int:
        """Online qubits if every codeword is sent once."""
        return sum(count * code.block.symbols for count, _, code in self.parts)

    def repeated_qubits(self, repeated: jax.Array, of_last: jax.Array) -> jax.Array:
        """Qubits (...) float32 of repetitions.

        Args:
          repeated: (...) uint32 codewords sent again.
          of_last: (...) uint32 number of those that were the last codeword of their message.
        """
        full, short = (repeated - of_last).astype(jnp.float32), of_last.astype(jnp.float32)
        return full * float(self.code.block.symbols) + short * float(self.last.block.symbols)


def message_of(code: Codewords, symbols: int) -> Message:
    """Divides two-bit symbols of payload into codewords.

    >>> from jaxqring import reed_solomon
    >>> message = message_of(reed_solomon(255, 223), 1000)
    >>> [(codewords, symbols, code.n) for codewords, symbols, code in message.parts]
    [(1, 892, 255), (1, 108, 59)]
    """
    full, rest = divmod(symbols, code.payload_symbols)
    last = code.shortened(rest) if rest else code
    return Message(symbols, full + bool(rest), code if full else last, last)


def message_qubits(
    protection: Protection | None, size: int, bits: int, channel: SymbolChannel
) -> tuple[int, int | jax.Array]:
    """The codewords and qubits of one message if every codeword is sent once.

    Args:
      protection: the protection of the link.
      size: number of levels in the message.
      bits: width of a level.
      channel: the link, batch shape (...); only an `IdealCode` looks at it.

    Returns:
      The number of codewords, of which the last is shortened to the remaining payload, and that of
      qubits: an integer, or (...) floats for an `IdealCode`, infinite where the link has no
      capacity to spare.

    >>> from jaxqring import Retransmit, reed_solomon
    >>> link = SymbolChannel(jnp.eye(4))
    >>> message_qubits(Retransmit(reed_solomon(255, 223)), 47, 16, link)  # 376 symbols
    (1, 520)
    """
    strong, count = protected_part(protection, bits)
    bare = size * (bits // 2 - count)
    if isinstance(strong, IdealCode):
        return 0, bare + size * count * qubits_per_symbol(strong, channel)
    message = protected_message(protection, size, bits)
    return (0, bare) if message is None else (message.codewords, bare + message.qubits)


def protected_message(protection: Protection | None, size: int, bits: int) -> Message | None:
    """The codewords of `size` levels of `bits` bits; None if the protection has no codewords."""
    strong, count = protected_part(protection, bits)
    return message_of(strong, size * count) if isinstance(strong, Codewords) else None
