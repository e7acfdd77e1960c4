"""All claims, by name, in the order of the report."""

from jaxqring.claims import (
    _chip_claims,
    _depth_claims,
    _gap_claims,
    _party_claims,
    _privacy_claims,
    _reuse_claims,
    _ring_claims,
    _tie_claims,
)
from jaxqring.claims._claim import Claim

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        *_ring_claims.CLAIMS,
        *_gap_claims.CLAIMS,
        *_tie_claims.CLAIMS,
        *_reuse_claims.CLAIMS,
        *_party_claims.CLAIMS,
        *_depth_claims.CLAIMS,
        *_privacy_claims.CLAIMS,
        *_chip_claims.CLAIMS,
    )
}
