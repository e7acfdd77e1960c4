"""The control channel: exponents over noisy links, and messages that nobody can alter."""

from jaxqring.control._consensus import admm_maximum, max_consensus
from jaxqring.control._polynomials import (
    hash_matrix,
    irreducible_polynomial,
    irreducible_polynomials,
    is_irreducible,
    lfsr_hash,
)
from jaxqring.control._prices import ScalePrice, authenticated_scales, key_rate
from jaxqring.control._repetition import relay, repetitions_for, symbol_error, word_error
from jaxqring.control._signatures import Shares, deal, sign, signature_holds
from jaxqring.control._tags import (
    HashKey,
    best_forgery,
    forgery_bound,
    tag,
    tag_holds,
    tag_length,
)

__all__ = [
    "HashKey",
    "ScalePrice",
    "Shares",
    "admm_maximum",
    "authenticated_scales",
    "best_forgery",
    "deal",
    "forgery_bound",
    "hash_matrix",
    "irreducible_polynomial",
    "irreducible_polynomials",
    "is_irreducible",
    "key_rate",
    "lfsr_hash",
    "max_consensus",
    "relay",
    "repetitions_for",
    "sign",
    "signature_holds",
    "symbol_error",
    "tag",
    "tag_holds",
    "tag_length",
    "word_error",
]
