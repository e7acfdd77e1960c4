"""All claims, by name, in the order of the report."""

from jaxqring.claims import (
    _bound_claims,
    _chip_claims,
    _compression_claims,
    _depth_claims,
    _gap_claims,
    _map_claims,
    _party_claims,
    _privacy_claims,
    _reuse_claims,
    _ring_claims,
    _secrecy_claims,
    _slope_claims,
    _tie_claims,
)
from jaxqring.claims._claim import Claim

_SUBJECTS = (
    _ring_claims,
    _secrecy_claims,
    _gap_claims,
    _tie_claims,
    _reuse_claims,
    _compression_claims,
    _party_claims,
    _depth_claims,
    _privacy_claims,
    _chip_claims,
    _bound_claims,
    _map_claims,
    _slope_claims,
)

#: The claims by name.
CLAIMS: dict[str, Claim] = {claim.name: claim for subject in _SUBJECTS for claim in subject.CLAIMS}
