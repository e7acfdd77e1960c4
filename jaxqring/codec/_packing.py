"""Codes in packed words: two bits are a symbol, sixteen symbols a word."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SYMBOLS_PER_WORD = 16


def packed_size(size: int, bits: int) -> int:
    """Number of words that hold `size` codes of `bits` bits."""
    codes_per_group, words_per_group = _group(bits)
    return -(-size // codes_per_group) * words_per_group


def _group(bits: int) -> tuple[int, int]:
    """The smallest number of codes that fills whole words, and that number of words."""
    whole = math.lcm(bits, 32)
    return whole // bits, whole // 32


def lanes_of(bits: int) -> int:
    """Number of lanes: codes of which every group of words holds one each."""
    return _group(bits)[0]


def symbol_place(symbol: jax.Array, size: int, bits: int) -> tuple[jax.Array, jax.Array]:
    """Where symbol number `symbol` of `size` packed codes is: its word, and its shift (uint32)."""
    groups = -(-size // lanes_of(bits))
    code, position = symbol // (bits // 2), symbol % (bits // 2)
    lane, group = code // groups, code % groups
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
    for lane, codes in enumerate(lanes):
        word, shift = divmod(lane * bits, 32)
        code = codes & np.uint32(2**bits - 1) if bits < 32 else codes
        words[word] |= code << np.uint32(shift) if shift else code
        if shift + bits > 32:
            words[word + 1] |= code >> np.uint32(32 - shift)
    return jnp.concatenate(words) if len(words) > 1 else words[0]


def part(words: jax.Array, bits: int) -> list[jax.Array]:
    """The inverse of `join`: (groups,) uint32 lanes, without the bits above `bits`."""
    columns = words.reshape(_group(bits)[1], -1)
    lanes = []
    for lane in range(lanes_of(bits)):
        word, shift = divmod(lane * bits, 32)
        code = columns[word] >> np.uint32(shift)
        if shift + bits > 32:
            code |= columns[word + 1] << np.uint32(32 - shift)
        lanes.append(code & np.uint32(2**bits - 1))
    return lanes


def pack(codes: jax.Array, bits: int) -> jax.Array:
    """Packs the low `bits` bits of each code without gaps.

    Args:
      codes: (size,) integers of 32 bits.
      bits: even, in [2, 32].

    Returns:
      (packed_size(size, bits),) uint32. Lane l of every group is a contiguous run of codes, so
      that lanes are packed by vector shifts; the order of symbols on the wire has no other
      meaning.
    """
    count = lanes_of(bits)
    groups = -(-codes.shape[0] // count)
    unsigned = lax.bitcast_convert_type(codes, jnp.uint32)
    lanes = jnp.pad(unsigned, (0, groups * count - codes.shape[0])).reshape(count, groups)
    return join(list(lanes), bits)


def unpack(words: jax.Array, bits: int, size: int, *, signed: bool = True) -> jax.Array:
    """The inverse of `pack`.

    Args:
      words: (packed_size(size, bits),) uint32.
      bits: even, in [2, 32].
      size: number of codes.
      signed: whether to read codes as two's complement (int32) or as they are (uint32).

    Returns:
      (size,) int32 or uint32.
    """
    codes = jnp.concatenate(part(words, bits))[:size]
    return wrap(lax.bitcast_convert_type(codes, jnp.int32), bits) if signed else codes


def wrap(codes: jax.Array, bits: int) -> jax.Array:
    """int32 codes mod 2^bits, in two's complement of `bits` bits."""
    unused = np.int32(32 - bits)
    return (codes << unused) >> unused
