"""The protection of links, as a part of a configuration."""

import dataclasses
from typing import Literal

from jaxqring._fields import NOT_NEGATIVE, check_fields, no_other_keys
from jaxqring.codes import (
    BlockCode,
    IdealCode,
    Retransmit,
    Unequal,
    bch,
    reed_solomon,
    repetition,
    secded,
)
from jaxqring.codes._protection import Protection


@no_other_keys
@dataclasses.dataclass(frozen=True)
class CodeConfig:
    """The protection of links.

    Attributes:
      family: of block codes, or "ideal" for error-free transmission at capacity.
      n: code symbols in a codeword: bytes for "reed_solomon", bits for "bch" and "secded", copies
        of a two-bit symbol for "repetition".
      k: code symbols of payload in a codeword; "repetition" has one.
      t: bit errors that "bch" corrects; other families know their own.
      gap: bits per qubit below capacity, for "ideal".
      max_attempts: largest number of times that a codeword is sent; 1 for a code that never
        repeats, and then has no checksum.
      checksum_bits: of payload in each codeword, so that failures are noticed.
      top_symbols: number of the highest two-bit symbols of every number that are protected; 0 for
        all of them.
    """

    family: Literal["reed_solomon", "bch", "secded", "repetition", "ideal"] = "reed_solomon"
    n: int = 255
    k: int = 223
    t: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)
    gap: float = 0.0
    max_attempts: int = 8
    checksum_bits: int = 32
    top_symbols: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        check_fields(self, "protection.")
        self.build()

    def build(self) -> Protection:
        """The protection that `Ring` takes."""
        strong: BlockCode | Retransmit | IdealCode
        if self.family == "ideal":
            strong = IdealCode(self.gap)
        else:
            code = {
                "reed_solomon": lambda: reed_solomon(self.n, self.k),
                "bch": lambda: bch(self.n, self.k, self.t),
                "secded": lambda: secded(self.n, self.k),
                "repetition": lambda: repetition(self.n),
            }[self.family]()
            repeats = self.max_attempts > 1
            strong = Retransmit(code, self.max_attempts, self.checksum_bits) if repeats else code
        return Unequal(strong, self.top_symbols) if self.top_symbols else strong
