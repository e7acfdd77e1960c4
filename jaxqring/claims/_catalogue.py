"""All claims, by name, in the order of the report."""

from jaxqring.claims import _compression_claims, _ring_claims, _secrecy_claims
from jaxqring.claims._claim import Claim

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for room in (_ring_claims, _secrecy_claims, _compression_claims)
    for claim in room.CLAIMS
}
