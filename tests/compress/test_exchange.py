"""The collectives of a step: integers that arrive as they were sent, and the streams they draw."""

import functools

import fixed_point
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compress_calls import AXIS, KEY, assert_same_bits, noisy, normal, quiet, same_on_all

from jaxqring import FixedPoint, psum
from jaxqring.codec import Counts
from jaxqring.compress import Exchange
from jaxqring.compress._exchange import sum_in_order
from jaxqring.compress._message import wire_for_sums

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def exchange(ring, key=None):
    rings = ring if isinstance(ring, tuple) else (ring,)
    return Exchange(AXIS, rings, key, None, frozenset())


def means(leaves, ring, key):
    """The means of two leaves, what the own levels stand for, and the bits agreed on."""
    made = exchange(ring, key)
    found, own = made.mean([leaf[None] for leaf in leaves])
    return *jax.tree.map(lambda leaf: leaf[0], (found, own)), jnp.int32(made.control_bits)


@pytest.mark.parametrize("bits", [8, further(4), further(16)])
def test_means_are_those_of_levels_exactly(vmapped, bits):
    """In integers, each leaf with a scale of its own: nothing is lost but what a node sees."""
    leaves = [normal(4, 30), 1e-4 * normal(4, 5, seed=1)]
    found, own, control = vmapped(means, 4, shared=2)(leaves, quiet(bits), None)
    found = same_on_all(found)
    assert (np.asarray(control) == 2 * 3 * 1 * 32).all()
    for leaf, mean, said in zip(leaves, found, own, strict=True):
        levels, scale, limit = fixed_point.levels_of(leaf, bits, 4)
        assert np.abs(levels).max() <= limit
        np.testing.assert_array_equal(np.float64(said), levels * scale)
        np.testing.assert_array_equal(4 * np.float64(mean), levels.sum(axis=0) * scale)
        assert np.abs(leaf - np.asarray(said)).max() <= scale / 2
        assert np.abs(leaf - np.asarray(said)).max() > 0


@pytest.mark.matrix
def test_levels_rounded_by_chance_differ_between_nodes_and_have_the_right_mean(vmapped):
    """2,000 equal values on each of four nodes: by chance off less than once in 10^7 runs."""
    x = np.full((4, 2001), 0.3, np.float32)
    x[:, 0] = 1
    ring = quiet(6, wire={"rounding": "stochastic"})
    found, own, _ = vmapped(means, 4, shared=2)([x, x[:, :1]], ring, KEY)
    levels = np.float64(own[0])[:, 1:] * 4
    assert set(np.unique(levels)) == {1, 2}
    assert abs(levels.mean() - 1.2) < 6 * np.sqrt(0.16 / levels.size)
    together = (levels[0] == levels[1]).mean()
    assert abs(together - 0.68) < 6 * np.sqrt(0.25 / 2000)
    np.testing.assert_array_equal(found[0][0], np.float64(own[0]).mean(axis=0))


def test_the_narrowest_levels_that_keep_so_many_bits():
    assert wire_for_sums(8, 8) == FixedPoint(12)
    assert wire_for_sums(8, 4) == FixedPoint(10)
    assert wire_for_sums(29, 8) == FixedPoint(32)
    with pytest.raises(ValueError, match="`bits` must leave room for 3 guard bits of 8 nodes"):
        wire_for_sums(30, 8)


def sums(codes, ring, key):
    """Sums of codes, two collectives of a step, and how many lay outside."""
    made = exchange(ring, key)
    first = made.sum([codes[None]], 5)
    second = made.sum([codes[None]], 5)
    return first[0][0], second[0][0], made.out_of_range


def plain(codes, ring, key):
    return psum([codes], AXIS, ring=ring, key=key)[0]


def test_sums_draw_from_the_number_of_the_collective_and_are_kept_in_their_range(vmapped):
    """Five votes: sums of 6, 7 and -6, -7, -8 are possible on the wire, and mean nothing."""
    x = np.sign(normal(5, 200)) * (normal(5, 200, seed=1) > -1)
    ring = noisy(0.9)
    *found, outside = vmapped(sums, 5, shared=2)(x, ring, KEY)
    counted = 0
    for number, each in enumerate(found):
        wire = ring.replace(wire=Counts(4))
        raw = np.asarray(vmapped(plain, 5, shared=2)(x, wire, jax.random.fold_in(KEY, number)))
        np.testing.assert_array_equal(each, np.clip(raw, -5, 5))
        counted += (np.abs(raw) > 5).sum()
    assert np.asarray(outside).sum() == counted > 10
    assert (np.asarray(found[0]) != np.asarray(found[1])).any()


NUMBERS = np.random.default_rng(5)
MIXED = [
    (NUMBERS.integers(0, 2**24, (3, 11)).astype(np.float32), 24),
    (NUMBERS.integers(0, 2**30, (3, 2, 3)).astype(np.int32), 30),
    (NUMBERS.integers(0, 2**6, (3, 4)).astype(np.int32), 6),
]


def gathered(*numbers_ring_key):
    *numbers, ring, key = numbers_ring_key
    made = exchange(ring, key)
    widths = [bits for _, bits in MIXED]
    pairs = [(x[None], bits) for x, bits in zip(numbers, widths, strict=True)]
    return [each[0] for each in made.gather(pairs)]


def test_numbers_of_different_widths_travel_in_pieces_of_six_bits(vmapped):
    """Up to the last bit of 24 for floats and of 30 for integers, the ends among them."""
    values = [x.copy() for x, _ in MIXED]
    values[0][0, :2], values[1][0, 0, :2] = [0, 2**24 - 1], [0, 2**30 - 1]
    found = same_on_all(vmapped(gathered, 3, shared=2)(*values, quiet(), None))
    for own, all_of_them in zip(values, found, strict=True):
        assert all_of_them.dtype == own.dtype
        np.testing.assert_array_equal(all_of_them, own)


def test_sums_over_nodes_have_one_order():
    rows = jnp.asarray(10.0 ** np.arange(8)[:, None] * normal(8, 50))
    wanted = np.float32(0)
    for row in np.asarray(rows):
        wanted = wanted + row
    assert_same_bits(sum_in_order(rows, 0), wanted)
    assert_same_bits(sum_in_order(rows.T, 1), wanted)
    assert (np.asarray(sum_in_order(rows[::-1], 0)) != wanted).any()
