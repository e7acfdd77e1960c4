"""The codewords of one message: whole ones, and a last one that is shortened to what is left."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxqring.codes._block_codes import Codewords
from jaxqring.codes._protection import IdealCode, Protection, protected_part, qubits_per_symbol
from jaxqring.link._symbol_channel import SymbolChannel


class Message(NamedTuple):
    """The codewords of one message.

    Attributes:
      symbols: two-bit symbols of payload.
      codewords: how many.
      code: of all but the last.
      last: the code of the last, shortened to what is left for it; `code` if that fills it. Of a
        message of one word, `code` is this one, too.
    """

    symbols: int
    codewords: int
    code: Codewords
    last: Codewords

    @property
    def parts(self) -> list[tuple[int, int, Codewords]]:
        """Codewords of one length each: their number, symbols of payload, and their code."""
        if self.code == self.last:
            return [(self.codewords, self.symbols, self.code)] if self.codewords else []
        full = self.codewords - 1
        held = full * self.code.payload_symbols
        return [(full, held, self.code), (1, self.symbols - held, self.last)]

    @property
    def qubits(self) -> int:
        """Online qubits if every word is sent once."""
        return sum(count * code.block.symbols for count, _, code in self.parts)

    def repeated_qubits(self, repeated: jax.Array, of_last: jax.Array) -> jax.Array:
        """(...) float32 qubits of repetitions.

        Args:
          repeated: (...) uint32 codewords sent again.
          of_last: (...) uint32 of those, the times that it was the last word of its message.
        """
        full, short = (repeated - of_last).astype(jnp.float32), of_last.astype(jnp.float32)
        return full * float(self.code.block.symbols) + short * float(self.last.block.symbols)


def message_of(code: Codewords, symbols: int) -> Message:
    """The codewords of so many two-bit symbols of payload.

    >>> from jaxqring.codes._block_codes import reed_solomon
    >>> message = message_of(reed_solomon(255, 223), 1000)
    >>> [(words, symbols, code.n) for words, symbols, code in message.parts]
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
      protection: of the link.
      size: codes in the message.
      bits: of a code.
      channel: the link, batch shape (...); only an `IdealCode` looks at it.

    Returns:
      The codewords, of which the last is shortened to what is left for it, and the qubits: an
      integer, or (...) floats for an `IdealCode`, infinite where the link has no capacity to
      spare.

    >>> from jaxqring.codes._block_codes import reed_solomon
    >>> from jaxqring.codes._protection import Retransmit
    >>> link = SymbolChannel(jnp.eye(4))
    >>> message_qubits(Retransmit(reed_solomon(255, 223)), 47, 16, link)  # 376 symbols
    (1, 520)
    """
    strong, count = protected_part(protection, bits)
    bare = size * (bits // 2 - count)
    if isinstance(strong, IdealCode):
        return 0, bare + size * count * qubits_per_symbol(strong, channel)
    words = message_words(protection, size, bits)
    return (0, bare) if words is None else (words.codewords, bare + words.qubits)


def message_words(protection: Protection | None, size: int, bits: int) -> Message | None:
    """The codewords of a message of `size` codes of `bits` bits; None where there are none."""
    strong, count = protected_part(protection, bits)
    return message_of(strong, size * count) if isinstance(strong, Codewords) else None
