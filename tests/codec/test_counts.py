"""Counts on the wire: integers as they are, sums mod 2^bits, and what lies outside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring import (
    FixedPoint,
    GHZSource,
    Ring,
    all_gather,
    psum,
    secure_psum,
    superdense,
    werner,
)
from jaxqring.codec import Counts
from jaxqring.codes import repetition
from jaxqring.secure import Security

AXIS = "nodes"
KEY = jax.random.key(20261127)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


@functools.cache
def summed(call=psum):
    return lambda x, ring, key: call(x, AXIS, ring=ring, key=key, with_report=True)


def wrapped(total, bits):
    """Integers mod 2^bits in two's complement, in Python's own."""
    half = 2 ** (bits - 1)
    return (np.asarray(total, np.int64) + half) % 2**bits - half


def integers(bits, nodes, size, seed=0):
    """(nodes, size) over the whole range, the two ends among them."""
    rng = np.random.default_rng(seed)
    half = 2 ** (bits - 1)
    x = rng.integers(-half, half, (nodes, size))
    x[:, 0], x[:, 1] = -half, half - 1
    return x


@pytest.mark.parametrize(
    "most, bits",
    [(1, 2), (2, 4), (4, 4), (7, 4), (8, 6), (31, 6), (32, 8), (2**22, 24), (2**23 - 1, 24)],
)
def test_the_narrowest_width_for_a_sum(most, bits):
    wire = Counts.for_sums(most)
    assert wire == Counts(bits)
    edges = np.float32([-most, most, 0])
    found = wire.encode(edges, 1.0, num_terms=8)
    np.testing.assert_array_equal(found, edges)
    assert not np.asarray(wire.saturates(edges, 1.0, 8)).any()


def test_a_vote_of_eight_takes_two_bits_less_than_levels_with_guard_bits():
    assert Counts.for_sums(4).bits == 4
    assert Counts(4).level_bits(8) == 4
    with pytest.raises(ValueError, match=r"`wire\.bits` must be at least 6 for 8 nodes"):
        FixedPoint(4).level_bits(8)


@pytest.mark.parametrize("most", [0, -1, 2**23, 2**24])
def test_sums_that_float32_does_not_hold_are_refused(most):
    with pytest.raises(ValueError, match=r"`most` must be an integer in \[1, 8388607\]"):
        Counts.for_sums(most)


@pytest.mark.parametrize("bits", [0, 3, 34, 4.0])
def test_odd_widths_are_refused(bits):
    with pytest.raises(ValueError, match=r"`bits` must be an even integer in \[2, 32\]"):
        Counts(bits)


@pytest.mark.parametrize("bits", [2, 4, 22, 32])
def test_what_is_no_integer_of_the_range(bits):
    """Rounded half to even, clipped, and NaN as zero; what was clipped is counted."""
    half = 2.0 ** (bits - 1)
    top = half - 1 if bits <= 24 else float(np.nextafter(np.float32(half), np.float32(0)))
    x = np.float32([0.5, -0.5, 0.75, -0.75, np.nan, np.inf, -np.inf, 2 * half, -2 * half, -half])
    found = Counts(bits).encode(x, 1.0, 8)
    assert found.dtype == jnp.int32
    wanted = [0, 0, min(1, top), -1, 0, top, -half, top, -half, -half]
    np.testing.assert_array_equal(np.asarray(found, np.float64), wanted)
    outside = Counts(bits).saturates(x, 1.0, 8)
    np.testing.assert_array_equal(outside[5:], [True, True, True, True, False])
    assert not np.asarray(outside[:2]).any()


def test_sums_wrap_around_mod_two_to_the_bits(vmap_first):
    x = integers(6, 5, 33)
    total, report = vmap_first(summed(), 5, shared=2)(
        x.astype(np.float32), Ring(noise="off", wire=Counts(6)), None
    )
    wanted = wrapped(x.sum(axis=0), 6)
    assert (np.abs(x.sum(axis=0)) > 32).any()
    np.testing.assert_array_equal(total, np.broadcast_to(wanted, (5, 33)))
    assert report.saturated[0] == 0
    assert report.symbols_per_link == 2 * 4 * 7 * 3


@pytest.mark.parametrize("bits", [2, 4, further(22), 32])
def test_sums_wrap_around_in_every_width(vmapped, bits):
    x = integers(bits, 3, 20) if bits < 26 else 256 * integers(24, 3, 20)
    total, _ = vmapped(summed(), 3, shared=2)(
        x.astype(np.float32), Ring(noise="off", wire=Counts(bits)), None
    )
    wanted = wrapped(x.sum(axis=0), bits)
    np.testing.assert_array_equal(np.asarray(total, np.float64)[0], wanted.astype(np.float32))


def test_gathered_integers_arrive_as_they_are_and_clipped_ones_are_counted(vmapped):
    x = integers(4, 3, 16).astype(np.float32)
    x[1, 2:6] = 8, -9, np.inf, 100.25
    found, report = vmapped(summed(all_gather), 3, shared=2)(
        x, Ring(noise="off", wire=Counts(4)), None
    )
    np.testing.assert_array_equal(found, np.broadcast_to(np.clip(x, -8, 7), (3, 3, 16)))
    assert report.saturated[0] == 4


def test_nothing_is_agreed_on():
    ring = Ring(noise="off", wire=Counts(4))
    cost = ring.cost(100, 8)
    assert (cost.bits, cost.control_bits) == (2 * 7 * 13 * 4, 0)
    assert Ring(noise="off", wire=FixedPoint(8)).cost(100, 8).control_bits == 14 * 32


def test_masks_hide_them_and_leave_the_sum(vmapped):
    x = integers(4, 3, 40).astype(np.float32)

    def run(x, ring, key):
        return secure_psum(
            x, AXIS, ring=ring, source=GHZSource(3), security=Security("none"), key=key
        )

    total = vmapped(run, 3, shared=2)(x, Ring(noise="off", wire=Counts(4)), KEY)
    np.testing.assert_array_equal(total, np.broadcast_to(wrapped(x.sum(axis=0), 4), (3, 40)))


LINKS = superdense(werner(fidelity=0.9))


def test_protected_links_deliver_the_exact_sums_and_bare_ones_wrong_integers(vmapped):
    x = integers(6, 3, 60).astype(np.float32)
    wanted = wrapped(x.sum(axis=0), 6)
    bare, report = vmapped(summed(), 3, shared=2)(x, Ring(LINKS, Counts(6)), KEY)
    bare = np.asarray(bare)
    wrong = bare != wanted
    assert 0.3 < wrong.mean() < 0.9
    assert report.symbol_errors[0] > 0
    np.testing.assert_array_equal(bare, np.rint(bare))
    assert (np.abs(bare + 0.5) < 32).all()
    protected = Ring(LINKS, Counts(6), protection=repetition(9))
    total, report = vmapped(summed(), 3, shared=2)(x, protected, KEY)
    assert report.undelivered[0] == 0
    np.testing.assert_array_equal(total, np.broadcast_to(wanted, (3, 60)))


def test_an_error_of_one_symbol_moves_one_of_its_powers_of_four(vmapped):
    """A wrong symbol of a gather changes an integer by a multiple of its place."""
    x = integers(6, 2, 300).astype(np.float32)
    found, report = vmapped(summed(all_gather), 2, shared=2)(x, Ring(LINKS, Counts(6)), KEY)
    for node in range(2):
        np.testing.assert_array_equal(found[node, node], x[node])
        moved = np.int64(np.asarray(found[node, 1 - node])) ^ np.int64(x[1 - node])
        symbols = sum(((moved >> shift) & 3) > 0 for shift in (0, 2, 4))
        assert symbols.sum() == report.errors_per_link[0][1 - node]
        assert symbols.sum() > 20
