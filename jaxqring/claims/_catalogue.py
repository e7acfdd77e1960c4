"""All claims, by name, in the order of the report."""

from jaxqring.claims import (
    _compression_claims,
    _map_claims,
    _ring_claims,
    _secrecy_claims,
    _slope_claims,
)
from jaxqring.claims._claim import Claim

_SUBJECTS = (_ring_claims, _secrecy_claims, _compression_claims, _map_claims, _slope_claims)

#: The claims by name.
CLAIMS: dict[str, Claim] = {claim.name: claim for subject in _SUBJECTS for claim in subject.CLAIMS}
