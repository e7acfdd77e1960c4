"""The inverse of packing, by index arithmetic: shares no line with the package."""

import math

import jax.numpy as jnp
import numpy as np


def unpack(words, bits, size, *, signed=True):
    """The (size,) levels of `bits` bits in packed words: int32 if signed, else uint32."""
    groups = max(-(-size // (math.lcm(bits, 32) // bits)), 1)
    lane, group = np.divmod(np.arange(size), groups)
    word, shift = np.divmod(lane * bits, 32)
    first = word * groups + group
    split = shift + bits > 32  # over two words
    low = words[first] >> shift.astype(np.uint32)
    high = words[first + np.where(split, groups, 0)] << ((32 - shift) % 32).astype(np.uint32)
    levels = jnp.where(split, low | high, low) & np.uint32(2**bits - 1)
    if not signed:
        return levels
    sign = np.uint32(2 ** (bits - 1))
    return ((levels ^ sign) - sign).astype(jnp.int32)
