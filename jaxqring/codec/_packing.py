"""Levels in packed words: two bits are a symbol, sixteen symbols a packed word."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SYMBOLS_PER_WORD = 16


def packed_size(size: int, bits: int) -> int:
    """Number of packed words that hold `size` levels of `bits` bits."""
    levels_per_group, words_per_group = _group(bits)
    return -(-size // levels_per_group) * words_per_group


def _group(bits: int) -> tuple[int, int]:
    """The smallest number of levels that fills whole words, and the number of those words."""
    whole = math.lcm(bits, 32)
    return whole // bits, whole // 32


def lanes_of(bits: int) -> int:
    """Number of lanes: lcm(bits, 32) / bits, one for each level of a group.

    A group is lcm(bits, 32) / 32 words; lane l is made of the l-th level of every group.
    """
    return _group(bits)[0]


def symbol_position(symbol: jax.Array, size: int, bits: int) -> tuple[jax.Array, jax.Array]:
    """The word that holds symbol number `symbol` of `size` levels, and its shift there (uint32)."""
    groups = -(-size // lanes_of(bits))
    level, position = symbol // (bits // 2), symbol % (bits // 2)
    lane, group = level // groups, level % groups
    bit = lane * bits + 2 * position
    return bit // 32 * groups + group, (bit % 32).astype(jnp.uint32)


def join(lanes: Sequence[jax.Array], bits: int) -> jax.Array:
    """Packs lanes without gaps.

    Args:
      lanes: lcm(bits, 32) / bits arrays (groups,) uint32, whose bits above `bits` are not read.
      bits: even, in [2, 32].

    Returns:
      (groups lcm(bits, 32) / 32,) uint32.
    """
    words: list[Any] = [np.uint32(0)] * _group(bits)[1]
    for index, lane in enumerate(lanes):
        word, shift = divmod(index * bits, 32)
        levels = lane & np.uint32(2**bits - 1) if bits < 32 else lane
        words[word] |= levels << np.uint32(shift) if shift else levels
        if shift + bits > 32:
            words[word + 1] |= levels >> np.uint32(32 - shift)
    return jnp.concatenate(words) if len(words) > 1 else words[0]


def part(words: jax.Array, bits: int) -> list[jax.Array]:
    """The inverse of `join`: (groups,) uint32 lanes, without the bits above `bits`."""
    columns = words.reshape(_group(bits)[1], -1)
    lanes = []
    for lane in range(lanes_of(bits)):
        word, shift = divmod(lane * bits, 32)
        levels = columns[word] >> np.uint32(shift)
        if shift + bits > 32:
            levels |= columns[word + 1] << np.uint32(32 - shift)
        lanes.append(levels & np.uint32(2**bits - 1))
    return lanes


def pack(levels: jax.Array, bits: int) -> jax.Array:
    """Packs the low `bits` bits of each level without gaps.

    Args:
      levels: (size,) integers of 32 bits.
      bits: even, in [2, 32].

    Returns:
      (packed_size(size, bits),) uint32. Each lane is a contiguous run of levels, so that lanes
      are packed by vector shifts; the order of symbols on the wire has no other meaning.
    """
    count = lanes_of(bits)
    groups = -(-levels.shape[0] // count)
    unsigned = lax.bitcast_convert_type(levels, jnp.uint32)
    lanes = jnp.pad(unsigned, (0, groups * count - levels.shape[0])).reshape(count, groups)
    return join(list(lanes), bits)


def wrap(levels: jax.Array, bits: int) -> jax.Array:
    """int32 levels mod 2^bits, in two's complement of `bits` bits."""
    unused = np.int32(32 - bits)
    return (levels << unused) >> unused
