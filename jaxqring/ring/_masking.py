"""Zero-sum masks on the levels of a ring, drawn where the levels are made.

N masks that are uniform but for their sum, zero mod 2^b, have the law of the differences of N
uniform numbers in a ring, k_i = r_i - r_(i-1). Nobody in the protocol holds the r_i: a node of the
simulation draws its own mask in this way without a word from the others, in two draws whatever N.
(A protocol in which neighbours share the r_i would fail against them; see the attacks in
`examples`.)
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from jaxqring._threefry import KeyWords, derive, threefry
from jaxqring.codec._packing import lanes_of
from jaxqring.ring._lanes import in_lanes


@struct.dataclass
class Masks:
    """The masks of one call of a collective.

    Attributes:
      cipher: two words of key, see `jaxqring._threefry`; used for nothing else.
      errors: (k, c) int32 error of the sum of the masks, for the chunk that each node on this
        device sends first; None if the masks sum to zero.
    """

    cipher: KeyWords
    errors: jax.Array | None = None

    def lanes(
        self, node: jax.Array, chunk: jax.Array, *, size: int, bits: int, num_nodes: int
    ) -> list[jax.Array]:
        """The mask of one node for one chunk: its lanes, each (size,) int32, mod 2^bits.

        Args:
          node: () int32.
          chunk: () int32.
          size: levels in a lane.
          bits: of the wire.
          num_nodes: N.
        """
        own = _uniform_lanes(derive(self.cipher, node, chunk), size, bits)
        previous = _uniform_lanes(derive(self.cipher, (node - 1) % num_nodes, chunk), size, bits)
        return [a - b for a, b in zip(own, previous, strict=True)]

    def first_errors(self, lanes: int) -> jax.Array | None:
        """(k, L, G) the errors in `lanes` lanes; None if there are none."""
        return None if self.errors is None else in_lanes(self.errors, lanes)


def _uniform_lanes(key: KeyWords, size: int, bits: int) -> list[jax.Array]:
    """All lanes, each (size,) int32 whose lowest `bits` bits are uniform.

    One draw gives 64 bits, which serve 64 // bits lanes. Several are made in a loop, which ends
    in memory: lanes that cross words are read twice, and XLA would draw them again for that.
    """
    position = lax.iota(jnp.uint32, size)
    per_word, count = 32 // bits, lanes_of(bits)

    def draw(number: jax.Array) -> KeyWords:
        return threefry(key, (position, jnp.full_like(position, number)))

    draws = -(-count // (2 * per_word))
    if draws == 1:
        words = list(draw(jnp.uint32(0)))
    else:
        drawn = lax.map(draw, jnp.arange(draws, dtype=jnp.uint32))
        words = list(jnp.stack(drawn, axis=1).reshape(-1, size))
    lanes = [word >> np.uint32(at * bits) for word in words for at in range(per_word)]
    return [lax.bitcast_convert_type(lane, jnp.int32) for lane in lanes[:count]]
