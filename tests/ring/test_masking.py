"""Masks as a node of the ring draws them: zero in sum, and never the same number for two levels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import plain_threefry
from scipy import stats

from jaxqring._threefry import cipher_key
from jaxqring.codec._packing import lanes_of
from jaxqring.ring._masking import Masks

NODES, CHUNKS, SIZE = 3, 2, 128
CHANCE = 1e-9


def masks_of(bits, seed=0):
    """(NODES, CHUNKS, lanes, SIZE) below 2^bits, and the cipher that they are made of."""
    cipher = cipher_key(jax.random.key(seed))

    def of(node, chunk):
        lanes = Masks(cipher).lanes(node, chunk, size=SIZE, bits=bits, num_nodes=NODES)
        return jnp.stack(lanes)

    nodes, chunks = jnp.arange(NODES), jnp.arange(CHUNKS)
    drawn = jax.jit(jax.vmap(jax.vmap(of, (None, 0)), (0, None)))(nodes, chunks)
    return np.asarray(drawn).astype(np.int64) % 2**bits, cipher


# Widths of which one draw is enough for all lanes, and those that take two, four and eight.
@pytest.mark.parametrize("bits", [8, 16, 12, 24, 18, 20, 32])
def test_masks_add_up_to_zero_and_no_lane_repeats_another(bits):
    """Codes of two different lanes, chunks or nodes agree once in 2^bits; exact binomial tails.

    Of at most 4,560 pairs with 128 levels each, none fails by chance but with 1e-9 in all.
    """
    drawn, _ = masks_of(bits)
    assert drawn.shape == (NODES, CHUNKS, lanes_of(bits), SIZE)
    np.testing.assert_array_equal(drawn.sum(axis=0) % 2**bits, 0)
    rows = drawn.reshape(-1, SIZE)
    pairs = list(itertools.combinations(range(len(rows)), 2))
    most = stats.binom.isf(CHANCE / len(pairs), SIZE, 2.0**-bits)
    for first, second in pairs:
        assert (rows[first] == rows[second]).sum() <= most, (first, second)
    # Nor does a lane repeat itself further on.
    for row in rows:
        for lag in (1, 2, SIZE // 2):
            assert (row[lag:] == row[:-lag]).sum() <= most


@pytest.mark.parametrize("bits", [12, 24])
def test_masks_are_differences_of_what_plain_threefry_draws(bits):
    """Exact: of 64 bits for each place and draw, cut into as many levels as fit each word."""
    drawn, cipher = masks_of(bits, seed=1)
    key, per_word = tuple(int(word) for word in cipher), 32 // bits

    def own(node, chunk, lane, place):
        word, part = divmod(lane, per_word)
        both = plain_threefry(plain_threefry(key, (node, chunk)), (place, word // 2))
        return both[word % 2] >> (part * bits)

    for node, chunk, lane, place in np.ndindex(NODES, CHUNKS, lanes_of(bits), 4):
        before = own((node - 1) % NODES, chunk, lane, place)
        expected = (own(node, chunk, lane, place) - before) % 2**bits
        assert drawn[node, chunk, lane, place] == expected
