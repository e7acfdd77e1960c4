"""Every block of values has a scale of its own: small leaves arrive as well as large ones."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point import levels_of, sum_of_blocks

from jaxqring import (
    BFloat16,
    FixedPoint,
    GHZSource,
    Retransmit,
    Ring,
    all_gather,
    expected,
    pmean,
    psum,
    psum_scatter,
    reed_solomon,
    secure_psum,
    superdense,
    werner,
)
from jaxqring.ring._payload import layout_of, two_powers
from jaxqring.secure import Security

AXIS = "nodes"
NODES = 8
KEY = jax.random.key(20261126)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
SIZES = {"tiny": 5, "small": 16, "even": 16, "large": 3, "one": 1, "zero": 4}
PEAKS = {"tiny": 1e-6, "small": 1e-3, "even": 1.0, "large": 1e6, "one": 7e-10, "zero": 0.0}


def leaves(nodes=NODES, seed=0):
    """A tree whose leaves differ by 1e12 and more, (nodes, size) each."""
    rng = np.random.default_rng(seed)
    return {
        name: (PEAKS[name] * rng.uniform(-1, 1, (nodes, size))).astype(np.float32)
        for name, size in SIZES.items()
    }


def run_psum(x, ring, key):
    return psum(x, AXIS, ring=ring, key=key)


def run_psum_report(x, ring, key):
    return psum(x, AXIS, ring=ring, key=key, with_report=True)


def run_secure(x, ring, key):
    source, security = GHZSource(NODES), Security()
    return secure_psum(x, AXIS, ring=ring, key=key, source=source, security=security)


PROTECTED = Ring(
    superdense(werner(fidelity=0.97)), protection=Retransmit(reed_solomon(15, 9, symbol_bits=4))
)


@pytest.mark.parametrize("bits", [8, further(12), 16, further(24)])
def test_leaves_of_any_size_arrive_within_half_a_level_of_their_own(every_mapping, bits):
    tree, ring = leaves(), Ring(noise="off", wire=FixedPoint(bits))
    found = every_mapping(run_psum, NODES, shared=2)(tree, ring, KEY)
    for name, values in tree.items():
        total = sum_of_blocks(values, bits, None)
        # The sum is that of the levels, to the bit; each is within half a level of its value.
        np.testing.assert_array_equal(found[name], np.tile(np.float32(total), (NODES, 1)), name)
        scale = levels_of(values, bits, NODES)[1]
        exact = values.astype(np.float64).sum(axis=0)
        assert np.abs(total - exact).max() <= NODES * scale / 2
        assert scale <= 2 * np.abs(values).max() / (2 ** (bits - 4) - 1) or name == "zero"


@pytest.mark.parametrize("block", [further(1), 3, further(16), 1000])
def test_runs_of_a_leaf_have_scales_of_their_own(vmapped, block):
    tree, ring = leaves(), Ring(noise="off", wire=FixedPoint(12, scale=block))
    tree["small"] *= np.geomspace(1e-6, 1e6, 16, dtype=np.float32)
    found = vmapped(run_psum, NODES, shared=2)(tree, ring, KEY)
    for name, values in tree.items():
        total = np.float32(sum_of_blocks(values, 12, block))
        np.testing.assert_array_equal(found[name], np.tile(total, (NODES, 1)), name)


def test_one_scale_for_the_payload_loses_small_leaves_and_says_so(vmapped):
    tree = {
        "a": np.full((NODES, 2), 100.0),
        "b": np.full((NODES, 1), 0.1),
        "c": np.full((NODES, 3), 1e-3),
    }
    tree = jax.tree.map(np.float32, tree)
    run = vmapped(run_psum_report, NODES, shared=2)
    for bits, arrives in ((16, (100, 0.09375, 0)), (8, (96, 0, 0))):
        whole = Ring(noise="off", wire=FixedPoint(bits, scale="payload"))
        total, report = run(tree, whole, KEY)
        for leaf, value in zip("abc", arrives, strict=True):
            np.testing.assert_array_equal(total[leaf] / NODES, np.full_like(tree[leaf], value))
        assert int(report.vanished[0]) == NODES * sum(
            tree[leaf].shape[1] for leaf, value in zip("abc", arrives, strict=True) if value == 0
        )
        total, report = run(tree, Ring(noise="off", wire=FixedPoint(bits)), KEY)
        assert int(report.vanished[0]) == 0
        for leaf in tree:
            np.testing.assert_allclose(total[leaf] / NODES, tree[leaf], rtol=2.0 ** (5 - bits))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("nodes_per_device", [1, 4])
def test_vanished_values_are_counted(vmapped, rounding, nodes_per_device):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(NODES, 50)).astype(np.float32) * np.float32(10.0) ** rng.integers(
        -7, 1, (NODES, 50)
    ).astype(np.float32)
    values[:, 7] = 0  # is zero, and does not vanish
    values[2, 3] = 2e-38
    values[0, 0] = 3e38
    wire = FixedPoint(12, rounding=rounding)
    ring = Ring(noise="off", wire=wire, nodes_per_device=nodes_per_device)
    shape = values.shape if nodes_per_device == 1 else (2, 4, 50)
    devices = NODES // nodes_per_device
    _, report = vmapped(run_psum_report, devices, shared=2)(values.reshape(shape), ring, KEY)
    levels, scale, _ = levels_of(values, 12, NODES)
    gone = int(((levels == 0) & (values != 0)).sum())
    if rounding == "nearest":
        assert int(report.vanished[0]) == gone
    else:  # all but the largest are far below one level, and rounded up with that chance
        assert np.abs(values[1:]).max() / scale < 1e-30
        assert int(report.vanished[0]) == (values != 0).sum() - 1


@pytest.mark.parametrize("scale", ["leaf", "payload", 3])
def test_halves_of_a_sum_keep_the_scales(mapping, scale):
    rng = np.random.default_rng(2)
    nodes = 4
    x = {
        "a": rng.normal(size=(nodes, nodes, 5)).astype(np.float32) * np.float32(1e4),
        "b": rng.normal(size=(nodes, nodes, 2, 2)).astype(np.float32) * np.float32(1e-4),
    }
    x["a"][:, 1] *= np.float32(1e-3)
    ring = Ring(noise="off", wire=FixedPoint(14, scale=scale))

    def run(x, ring, key):
        scattered = psum_scatter(x, AXIS, ring=ring, key=key)
        return scattered, all_gather(jax.tree.map(lambda v: v[0], x), AXIS, ring=ring, key=key)

    scattered, gathered = mapping(run, nodes, shared=2)(x, ring, KEY)
    for name, leaf in x.items():
        for part in range(nodes):
            values = leaf[:, part].reshape(nodes, -1)
            if scale == 3:
                want = sum_of_blocks(values, 14, 3)
            else:
                every = (
                    leaf.reshape(nodes, -1)
                    if scale == "leaf"
                    else np.concatenate([v.reshape(nodes, -1) for v in x.values()], axis=1)
                )
                unit = levels_of(every, 14, nodes)[1]
                want = np.rint(values / unit).clip(-2047, 2047).sum(axis=0) * unit
            np.testing.assert_array_equal(scattered[name][part].reshape(-1), np.float32(want))
        own = leaf[:, 0].reshape(nodes, -1)
        for run_start in range(0, own.shape[1], 3 if scale == 3 else own.shape[1]):
            cut = slice(run_start, run_start + (3 if scale == 3 else own.shape[1]))
            every = own[:, cut]
            if scale == "payload":
                every = np.concatenate([v[:, 0].reshape(nodes, -1) for v in x.values()], axis=1)
            unit = levels_of(every, 14, 1)[1]  # no guard bits where nothing is added
            want = np.float32(np.rint(own[:, cut] / unit).clip(-8191, 8191) * unit)
            got = np.asarray(gathered[name]).reshape(nodes, nodes, -1)[:, :, cut]
            np.testing.assert_array_equal(got, np.tile(want, (nodes, 1, 1)))


def test_a_scale_that_float32_does_not_hold_is_the_product_of_two_that_it_does():
    """Exact: the value of a level is 2^-126 at the least and 2^128 at the most."""
    power = np.arange(-128, 129)
    first, second = (np.asarray(half, np.float64) for half in two_powers(jnp.asarray(power)))
    np.testing.assert_array_equal(first * second, 2.0**power)
    for half in (first, second):  # normal numbers
        assert (np.abs(np.log2(half)) <= 126).all()


@pytest.mark.parametrize("ring", [PROTECTED, Ring(noise="off")], ids=["protected", "off"])
@pytest.mark.parametrize("run", [run_psum, run_secure], ids=["plain", "secure"])
def test_protection_and_masks_keep_the_scales(vmapped, ring, run):
    tree = leaves()
    found = vmapped(run, NODES, shared=2)(tree, ring, jax.random.key(5))
    for name, values in tree.items():
        total = np.float32(sum_of_blocks(values, 16, None))
        np.testing.assert_array_equal(found[name], np.tile(total, (NODES, 1)), name)


@pytest.mark.parametrize("nodes_per_device", [further(2), 4])
def test_scales_do_not_depend_on_the_nodes_of_a_device(vmapped, nodes_per_device):
    tree, ring = leaves(), Ring(superdense(werner(fidelity=0.95)), FixedPoint(12, scale=3))
    alone = vmapped(run_psum, NODES, shared=2)(tree, ring, KEY)
    devices = NODES // nodes_per_device
    shared = jax.tree.map(lambda v: v.reshape(devices, nodes_per_device, -1), tree)
    ring = ring.replace(nodes_per_device=nodes_per_device)
    together = vmapped(run_psum, devices, shared=2)(shared, ring, KEY)
    for name in tree:
        np.testing.assert_array_equal(together[name].reshape(NODES, -1), alone[name])


def test_errors_are_as_large_as_the_leaf_that_they_hit(vmapped):
    tree, ring = leaves(), Ring(superdense(werner(fidelity=0.8)), FixedPoint(8))
    found = vmapped(run_psum, NODES, shared=2)(tree, ring, KEY)
    for name, values in tree.items():
        scale = levels_of(values, 8, NODES)[1]
        levels = found[name] / np.float32(scale)
        np.testing.assert_array_equal(levels, np.rint(levels))
        assert np.abs(levels).max() <= 128


@pytest.mark.parametrize("noise", ["sampled", further("gaussian"), further("mean")])
def test_the_slope_on_data_is_that_of_the_channel_whatever_the_scale(vmapped, noise):
    ring = Ring(superdense(werner(fidelity=0.97)), FixedPoint(16), noise=noise)
    tree, nodes = leaves(), NODES

    def run(x, ring, key):
        def mine(x):
            out = psum(x, AXIS, ring=ring, key=key)
            return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(out))

        return jax.grad(mine)(x)

    found = vmapped(run, NODES, shared=2)(tree, ring, KEY)
    # A wrong symbol is uniform, so that a bit flips with probability 2/3 (1 - F): a hop keeps
    # 1 - 4/3 (1 - F) of a level. Chunk (j + 1) mod N of node i crosses some hops to its owner, and
    # then up to N - 1 more; the exact slope of every value is a sum over nodes, at most N.
    keep = 1 - 4 / 3 * 0.03
    lowest, highest = nodes * keep ** (2 * nodes - 2), float(nodes)
    for name in ("small", "even", "large"):
        slopes = np.asarray(found[name])
        clipped = slopes == 0
        assert clipped.mean() < 0.2
        assert np.all((slopes >= lowest * 0.999) | clipped)
        assert np.all(slopes <= highest)


def test_expected_follows_leaves_of_unlike_size(vmapped):
    """The gaussian estimate of a small leaf's variance is that of its own scale."""
    tree = {"large": np.full((4, 1), 1e3, np.float32), "small": np.full((4, 400), 1e-3, np.float32)}
    wire = FixedPoint(8)

    def loss(ring, keys):
        def add(x):
            return psum(x, AXIS, ring=ring, key=keys[0])

        return jnp.mean((jax.vmap(add, axis_name=AXIS)(tree)["small"] * 1e3 - 4.0) ** 2)

    def error(fidelity):
        ring = Ring(superdense(werner(fidelity=fidelity)), wire)
        return expected(loss, ring, KEY, samples=64)

    value, slope = jax.jit(jax.value_and_grad(error))(0.999)
    # Of the order of the leaf itself: with the scale of the large one both would be 1e12 more.
    assert 1e-3 < float(value) < 1.0
    assert -1e3 < float(slope) < -1.0


@pytest.mark.parametrize("collective", ["psum", "psum_scatter", "all_gather"])
def test_scales_are_counted_on_the_control_channel(collective):
    tree = {
        "a": np.zeros((4, 1000)),
        "b": np.zeros((4,)),
        "c": np.zeros((4, 6)),
        "none": np.zeros((4, 0)),
    }

    def control(wire):
        return Ring(noise="off", wire=wire).cost(tree, 4, collective=collective).control_bits

    around = 2 * (4 - 1)  # the peaks go all the way round, whatever the collective
    assert control(FixedPoint(16)) == around * 1 * 32  # three peaks in four chunks of one
    assert control(FixedPoint(16, scale="payload")) == around * 32
    in_runs = 4 * (10 + 1 + 1) if collective == "psum_scatter" else 40 + 1 + 1
    assert control(FixedPoint(16, scale=100)) == around * math.ceil(in_runs / 4) * 32
    assert control(FixedPoint(16, clip=1.0, scale=100)) == around * math.ceil(in_runs / 4)
    assert control(FixedPoint(16, clip=1.0, scale=100, non_finite="clip")) == 0
    assert control(BFloat16()) == 0


def test_a_layout_puts_every_value_in_one_place():
    rng = np.random.default_rng(3)
    shapes = [(2, 3, int(size)) for size in rng.integers(0, 5, 100)]
    kinds = [np.float32 if flag else np.float16 for flag in rng.integers(0, 2, 100)]
    rows = [
        jnp.asarray(rng.normal(size=shape), kind) for shape, kind in zip(shapes, kinds, strict=True)
    ]
    layout = layout_of(FixedPoint(16), [shape[2] for shape in shapes], 3, kinds)
    joined = layout.join(rows)
    assert joined.shape == (2, 3, sum(shape[2] for shape in shapes))
    for before, after in zip(rows, jax.jit(layout.split)(joined), strict=True):
        np.testing.assert_array_equal(before.astype(np.float32), after)
    moved = jax.jvp(layout.split, (joined,), (2 * joined,))[1]
    for before, after in zip(rows, moved, strict=True):
        np.testing.assert_array_equal(2 * before.astype(np.float32), after)


@pytest.mark.parametrize(
    "options, rule",
    [
        ({"scale": 0}, "`scale` must be an integer of at least 1, but got 0."),
        ({"scale": "row"}, '`scale` must be "leaf", "payload" or an integer, but got \'row\'.'),
        ({"scale": True}, '`scale` must be "leaf", "payload" or an integer, but got True.'),
        (
            {"non_finite": "raise"},
            "`non_finite` must be one of 'propagate', 'clip', but got 'raise'.",
        ),
    ],
)
def test_other_scales_are_refused(options, rule):
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
        FixedPoint(16, **options)


@pytest.mark.parametrize("nodes, ulps", [(4, 0), (5, 1)])
def test_pmean_of_unlike_leaves_is_their_sum_divided(vmapped, nodes, ulps):
    """To the bit where N is a power of two; else XLA multiplies by 1 / N, which rounds twice."""

    def both(x, ring, key):
        return pmean(x, AXIS, ring=ring, key=key), psum(x, AXIS, ring=ring, key=key)

    ring = Ring(superdense(werner(fidelity=0.9)), FixedPoint(10))
    mean, total = vmapped(both, nodes, shared=2)(leaves(nodes), ring, KEY)
    for name in SIZES:
        if PEAKS[name]:  # levels of zeros are worth 2^-126, a part of which is subnormal
            want = np.asarray(total[name]) / np.float32(nodes)
            np.testing.assert_array_max_ulp(np.asarray(mean[name]), want, maxulp=ulps)
