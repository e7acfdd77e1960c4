"""Zero-sum masks on the codes of a ring, drawn where the codes are made.

N masks that are uniform but for their sum, zero mod 2^b, have the law of the differences of N
uniform numbers in a ring, k_i = r_i - r_(i-1). Nobody in the protocol holds the r_i: this is how a
node of the simulation draws its own mask without a word from the others, in two draws whatever N.
(A protocol in which neighbours share the r_i would fail against them; see the attacks in
`examples`.)
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from jaxqring.ring.lanes import in_lanes
from jaxqring.threefry import Words, derive, threefry


@struct.dataclass
class Masks:
    """The masks of one call of a collective.

    Attributes:
      cipher: two words of key, see `jaxqring.threefry`; used for nothing else.
      errors: (k, c) int32 what the sum of the masks is off by, for the chunk that each node on
        this device sends first; None if the masks sum to zero.
    """

    cipher: Words
    errors: jax.Array | None = None

    def codes(
        self, node: jax.Array, chunk: jax.Array, *, lane: int, size: int, bits: int, nodes: int
    ) -> jax.Array:
        """(size,) int32 the mask of one node for one lane of one chunk, mod 2^bits.

        Args:
          node: () int32.
          chunk: () int32.
          lane: which lane.
          size: codes in a lane.
          bits: of the wire.
          nodes: N.
        """
        own = uniform_codes(derive(self.cipher, node, chunk), lane, size, bits)
        before = derive(self.cipher, (node - 1) % nodes, chunk)
        return own - uniform_codes(before, lane, size, bits)

    def first_errors(self, lanes: int) -> jax.Array | None:
        """(k, L, G) the errors in that many lanes."""
        return None if self.errors is None else in_lanes(self.errors, lanes)


def uniform_codes(key: Words, lane: int, size: int, bits: int) -> jax.Array:
    """(size,) int32 whose lowest `bits` bits are uniform; lanes share the words that hold them.

    A draw gives 64 bits, which serve 64 // bits lanes.
    """
    per_word = 32 // bits
    draw, place = divmod(lane, 2 * per_word)
    position = lax.iota(jnp.uint32, size)
    drawn = threefry(key, (position, jnp.full_like(position, draw)))
    word = drawn[place // per_word] >> np.uint32(place % per_word * bits)
    return lax.bitcast_convert_type(word, jnp.int32)
