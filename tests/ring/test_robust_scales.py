"""Scales that a liar cannot set: the attack, the agreement, and everything that carries it."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refused import check_refusal

import jaxqring as jq
from jaxqring.secure import Dropout, Security

AXIS, NODES, BITS = "nodes", 4, 16
KEY = jax.random.key(20261127)
ROBUST = jq.FixedPoint(BITS, clip="robust", liars=1)
LARGEST = 0  # the honest node with the largest values
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def power_of(peak, width):
    """The least power of two with which a peak fits `width` bits, found by doubling."""
    power, limit = -126, 2 ** (width - 1) - 1
    while math.ldexp(limit, power) < peak:
        power += 1
    return power


def robust_levels(values, nodes, terms, liars=1):
    """(nodes, size) of one block -> int64 levels and the value of one; None if it is lost."""
    width = BITS - math.ceil(math.log2(terms))
    exact = np.asarray(values, np.float64)
    finite = np.isfinite(exact)
    powers = sorted(
        power_of(np.abs(row).max(initial=0), width) if good.all() else math.inf
        for row, good in zip(exact, finite, strict=True)
    )
    chosen = powers[nodes - 1 - liars]
    if chosen == math.inf:
        return None
    limit = 2 ** (width - 1) - 1
    kept = np.clip(np.where(np.isnan(exact), 0, exact) / math.ldexp(1, chosen), -limit, limit)
    return np.rint(kept).astype(np.int64), math.ldexp(1, chosen)


def robust_sum(values, block, terms=NODES):
    """(nodes, size) -> (size,) or, where nothing is added, (nodes, size); run by run."""
    nodes, size = values.shape
    parts = []
    for start in range(0, size, block or size):
        own = values[:, start : start + (block or size)]
        found = robust_levels(own, nodes, terms)
        if found is None:
            parts.append(np.full(own.shape if terms == 1 else own.shape[1:], np.nan))
            continue
        levels, scale = found
        parts.append((levels if terms == 1 else levels.sum(axis=0)) * scale)
    return np.float32(np.concatenate(parts, axis=-1))


def run_psum(x, ring, key):
    return jq.psum(x, AXIS, ring=ring, key=key, with_report=True)


def run_scatter(x, ring, key):
    return jq.psum_scatter(x, AXIS, ring=ring, key=key)


def run_gather(x, ring, key):
    return jq.all_gather(x, AXIS, ring=ring, key=key)


def run_secure(x, ring, key):
    source = jq.GHZSource(NODES)
    return jq.secure_psum(
        x, AXIS, ring=ring, key=key, source=source, security=Security(), with_report=True
    )


def honest(seed=0):
    """Two leaves (4, 8) and (4, 5), of sizes 1 and 1e-30, the first node's half as large again."""
    rng = np.random.default_rng(seed)
    tree = {"a": rng.uniform(-1, 1, (NODES, 8)), "b": 1e-30 * rng.uniform(-1, 1, (NODES, 5))}
    return {name: np.float32(leaf * [[1.9], [1.1], [1], [0.9]]) for name, leaf in tree.items()}


def lie(tree, value, nodes=(2,), name="a", at=3):
    tree = {each: leaf.copy() for each, leaf in tree.items()}
    for node in nodes:
        tree[name][node, at] = value
    return tree


LIES = {
    "none": lambda tree: tree,
    "huge": lambda tree: lie(lie(tree, 1e30), -3e38, name="b"),
    "tiny": lambda tree: {name: leaf * [[1], [1], [0], [1]] for name, leaf in tree.items()},
    "nan": lambda tree: lie(tree, np.nan),
    "infinite": lambda tree: lie(tree, -np.inf, name="b"),
    "two of them": lambda tree: lie(lie(tree, np.nan), np.inf, nodes=[0]),
}


def off(wire, **options):
    return jq.Ring(noise="off", wire=wire, **options)


# --- The attack -----------------------------------------------------------------------------------


def test_one_number_of_one_node_silences_everybody_unless_the_scale_is_robust(vmapped):
    values = np.random.default_rng(7).normal(size=(NODES, 1000)).astype(np.float32)
    values[1, 17] = 1e30
    rest = np.arange(1000) != 17
    exact = values.astype(np.float64).sum(axis=0)[rest]
    run = vmapped(run_psum, NODES, shared=2)
    total, report = run(values, off(jq.FixedPoint(BITS)), KEY)
    assert not total[:, rest].any()  # 0 of 999 arrive
    assert report.vanished[0] == NODES * 1000 - 1
    total, report = run(values, off(ROBUST), KEY)
    error = np.linalg.norm(total[:, rest] - exact, axis=1) / np.linalg.norm(exact)
    assert (error < 0.01).all()
    assert report.saturated[0] >= 1
    assert np.abs(total[:, 17]).max() < 20  # the liar is one node of four, with a level in reach


# --- The agreement, beside one in float64 ---------------------------------------------------------


@pytest.mark.parametrize("scale", ["leaf", further(3), further("payload")])
def test_the_scale_is_that_of_the_second_largest_exponent(mapping, scale):
    run = mapping(run_psum, NODES, shared=2)
    block = scale if isinstance(scale, int) else 0
    for name, tell in LIES.items():
        tree = tell(honest())
        total, report = run(tree, off(jq.FixedPoint(BITS, "robust", scale=scale, liars=1)), KEY)
        want = {leaf: robust_sum(values, block) for leaf, values in tree.items()}
        if scale == "payload":
            both = robust_sum(np.concatenate([tree["a"], tree["b"]], axis=1), 0)
            want = {"a": both[:8], "b": both[8:]}
        for leaf, values in want.items():
            np.testing.assert_array_equal(
                total[leaf], np.tile(values, (NODES, 1)), f"{name} {leaf}"
            )
        bad = sum(int((~np.isfinite(leaf)).sum()) for leaf in tree.values())
        assert report.non_finite.tolist() == [bad] * NODES


@pytest.mark.parametrize("scale", ["leaf", 3])
def test_parts_of_a_sum_and_gathered_values_have_robust_scales(vmapped, scale):
    block = scale if scale == 3 else 0
    ring = off(jq.FixedPoint(BITS, clip="robust", scale=scale, liars=1))
    rows = np.random.default_rng(3).normal(size=(NODES, NODES, 5)).astype(np.float32)
    rows[1, 2, 4] = 1e30
    parts = vmapped(run_scatter, NODES, shared=2)(rows, ring, KEY)
    if scale == 3:
        want = np.stack([robust_sum(rows[:, row], block) for row in range(NODES)])
    else:
        want = robust_sum(rows.reshape(NODES, -1), 0).reshape(NODES, 5)
    np.testing.assert_array_equal(parts, want)
    everything = vmapped(run_gather, NODES, shared=2)(rows[:, 2], ring, KEY)
    want = robust_sum(rows[:, 2], block, terms=1)
    np.testing.assert_array_equal(everything, np.broadcast_to(want, everything.shape))


def test_without_liars_it_is_the_largest_bit_for_bit(vmapped):
    run = vmapped(run_psum, NODES, shared=2)
    for tell in LIES.values():
        found = [
            run(tell(honest()), off(jq.FixedPoint(BITS, clip, "stochastic")), KEY)
            for clip in ("max", "robust")
        ]
        jax.tree.map(np.testing.assert_array_equal, *found)


def test_exponents_are_gathered_once_and_the_largest_one_is_asked_for_as_before(ring_mesh):
    """One collective over the control channel: a sum of tables of exponents, or a maximum."""
    spec, tree = jax.sharding.PartitionSpec(AXIS), honest()
    for clip, want in (("max", (0, 1)), ("robust", (1, 0))):
        ring = off(jq.FixedPoint(BITS, clip))

        def total(x, ring=ring):
            return jq.psum(x, AXIS, ring=ring, key=None)

        mapped = jax.shard_map(total, mesh=ring_mesh(NODES), in_specs=spec, out_specs=spec)
        program = str(jax.make_jaxpr(mapped)(tree))
        assert (len(re.findall(r"= psum\w*\[", program)), program.count("= pmax[")) == want, clip


@pytest.mark.parametrize("non_finite", ["clip", "propagate"])
def test_what_one_node_has_not_finite_is_sent_as_the_nearest_level(vmapped, non_finite):
    wire = jq.FixedPoint(BITS, clip="robust", non_finite=non_finite, liars=1)
    tree = lie(lie(lie(honest(), np.nan, at=0), np.inf, at=1), -np.inf, at=2)
    total, report = vmapped(run_psum, NODES, shared=2)(tree, off(wire), KEY)
    levels, scale = robust_levels(tree["a"], NODES, NODES)
    assert levels[2, :3].tolist() == [0, 2**13 - 1, 1 - 2**13]
    np.testing.assert_array_equal(total["a"][0], np.float32(levels.sum(axis=0) * scale))
    assert report.non_finite[0] == 3
    assert report.saturated[0] == 2 + int((np.abs(tree["a"][0]) > 2**13 * scale).sum())


@pytest.mark.parametrize("per_device", [2, further(4)])
def test_nodes_on_one_device_say_the_same(mapping, per_device):
    tree, devices = LIES["huge"](honest()), NODES // per_device
    ring = off(ROBUST, nodes_per_device=per_device)
    shared = jax.tree.map(lambda leaf: leaf.reshape(devices, per_device, -1), tree)
    total, _ = mapping(run_psum, devices, shared=2)(shared, ring, KEY)
    for name, leaf in tree.items():
        want = np.tile(robust_sum(leaf, 0), (devices, per_device, 1))
        np.testing.assert_array_equal(total[name], want)


@pytest.mark.parametrize("noise", ["off", further("sampled")])
def test_masks_and_protection_carry_the_same_levels(vmapped, noise):
    tree, ring = LIES["huge"](honest()), off(ROBUST)
    if noise == "sampled":
        strong = jq.Retransmit(jq.reed_solomon(15, 9, symbol_bits=4))
        ring = jq.Ring(jq.superdense(jq.werner(fidelity=0.99)), ROBUST, protection=strong)
    masked, report = vmapped(run_secure, NODES, shared=2)(tree, ring, KEY)
    assert not report.aborted.any()
    for name, leaf in tree.items():
        np.testing.assert_array_equal(masked[name], np.tile(robust_sum(leaf, 0), (NODES, 1)))


@pytest.mark.matrix
def test_every_ring_of_a_mesh_agrees_by_itself_and_knows_that_nodes_agree():
    """Two rings of four nodes side by side, with check_vma, the second one's values ten times."""
    tree = LIES["huge"](honest())["a"]
    mesh = jax.make_mesh((NODES, 2), (AXIS, "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = jax.sharding.PartitionSpec

    @functools.partial(jax.jit)
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=spec(AXIS, "model"), out_specs=spec(None, "model")
    )
    def total(x):
        return jq.psum(x, AXIS, ring=off(ROBUST), key=None, replicated=True)

    found = total(np.concatenate([tree, 10 * tree], axis=1))
    want = np.concatenate([robust_sum(tree, 0), robust_sum(np.float32(10) * tree, 0)])
    np.testing.assert_array_equal(found[0], want)


def test_gradients_pass_where_nothing_is_clipped_and_are_finite_everywhere():
    tree = lie(lie(honest(), 1e30), np.nan, at=5)["a"]
    weights = np.arange(1, 9, dtype=np.float32)

    def loss(x):
        mean = jq.pmean(x, AXIS, ring=off(ROBUST), key=None)
        return jnp.sum(weights * mean)

    gradient = jax.jit(jax.vmap(jax.grad(loss), axis_name=AXIS))(tree)
    _, scale = robust_levels(tree, NODES, NODES)
    passes = np.isfinite(tree) & (np.abs(tree) <= (2**13 - 1) * scale)
    assert not passes[2, 3]
    assert not passes[2, 5]
    np.testing.assert_allclose(gradient, np.where(passes, weights, 0), rtol=1e-6)


# --- Cost and refusals ----------------------------------------------------------------------------


def test_the_control_channel_carries_eight_bits_of_each_node_and_block():
    tree = {"a": np.zeros((4, 3)), "b": np.zeros(8)}
    for scale, blocks in (("leaf", 2), ("payload", 1), (5, 5)):
        for collective, rows in (("psum", 1), ("all_gather", 1), ("psum_scatter", 4)):
            found = off(jq.FixedPoint(8, clip="robust", scale=scale, liars=1)).cost(
                tree, NODES, collective=collective
            )
            if scale == 5 and rows == 4:
                blocks = 4 * (1 + 1)  # of each part: 3 values of `a`, and 2 of `b`
            assert found.control_bits == 8 * (NODES - 1) * blocks
            plain = off(jq.FixedPoint(8, scale=scale)).cost(tree, NODES, collective=collective)
            assert (found.bits, found.rounds) == (plain.bits, plain.rounds)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jq.FixedPoint(clip="robust", liars=-1), ["`liars`", "at least 0"]),
        (lambda: jq.FixedPoint(clip="robust", liars=1.0), ["`liars`", "integer"]),
        (lambda: jq.FixedPoint(liars=1), ["`liars`", '"robust"']),
        (lambda: jq.FixedPoint(clip=0.5, liars=1), ["`liars`", '"robust"']),
        (lambda: jq.FixedPoint(clip="median"), ["`clip`", "'median'"]),
        (lambda: off(jq.FixedPoint(clip="robust", liars=2)).cost(8, NODES), ["below half", "4"]),
    ],
)
def test_what_cannot_be_outvoted_is_refused(call, words):
    check_refusal(call, ValueError, words)


@pytest.mark.parametrize("collective", [run_psum, run_scatter, run_gather, run_secure])
def test_half_of_the_nodes_are_refused_before_tracing(vmapped, collective):
    run = vmapped(collective, NODES, shared=2)
    ring = off(jq.FixedPoint(clip="robust", liars=2))
    check_refusal(lambda: run(np.ones((NODES, 8)), ring, KEY), ValueError, ["`wire.liars`", "2"])


def test_liars_are_below_half_of_the_nodes_that_a_dropout_may_leave(vmapped):
    def run(x, ring, key):
        return jq.secure_psum(
            x,
            AXIS,
            ring=ring,
            key=key,
            source=jq.GHZSource(5),
            security=Security(),
            dropout=Dropout(0.1),
        )

    x, ring = np.ones((5, 8)), off(jq.FixedPoint(clip="robust", liars=2))
    words = ["`ring.wire.liars`", "half of the 3 nodes", "2"]
    check_refusal(lambda: vmapped(run, 5, shared=2)(x, ring, KEY), ValueError, words)


def test_a_compressor_has_scales_of_its_own_and_refuses_robust_ones(vmapped):
    compressor = jq.compress.TopK(0.5)

    def run(x, state):
        return jq.compress.compressed_pmean(
            x, state, AXIS, compressor=compressor, ring=off(ROBUST), key=None
        )

    x = np.ones((NODES, 8), np.float32)
    words = ["`ring.wire.clip`", '"max"', "'robust'"]
    check_refusal(lambda: vmapped(run, NODES)(x, 0 * x), ValueError, words)
