"""Results of the collectives: exact sums without noise, the channel's statistics with it."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from jaxqring import (
    BFloat16,
    FixedPoint,
    Float32,
    Ring,
    SymbolChannel,
    all_gather,
    bell_diagonal,
    moments,
    pmean,
    psum,
    psum_scatter,
    superdense,
    werner,
)
from jaxqring.ring import replica_agreement
from jaxqring.ring._payload import layout_of

AXIS = "nodes"
KEY = jax.random.key(20260720)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


# --- Per-node functions, at module level so that every test shares their compiled programs --------


def run_psum(x, ring, key):
    return psum(x, AXIS, ring=ring, key=key)


def run_psum_report(x, ring, key):
    return psum(x, AXIS, ring=ring, key=key, with_report=True)


def run_gather_report(x, ring, key):
    return all_gather(x, AXIS, ring=ring, key=key, with_report=True)


def run_pmean(x, ring, key):
    return pmean(x, AXIS, ring=ring, key=key)


def run_all(x, ring, key):
    """All three collectives on a vector whose length is a multiple of the number of nodes."""
    add = functools.partial(psum, axis_name=AXIS, ring=ring, key=key, with_report=True)
    if ring.nodes_per_device > 1:
        num_nodes = lax.axis_size(AXIS) * ring.nodes_per_device
    else:
        num_nodes = lax.axis_size(AXIS)
    parts = x.reshape(*x.shape[:-1], num_nodes, -1)
    scatter = psum_scatter(parts, AXIS, ring=ring, key=key, with_report=True)
    gather = all_gather(parts[..., 0, :], AXIS, ring=ring, key=key, with_report=True)
    return add(x), scatter, gather


# --- Independent calculations, in numpy -----------------------------------------------------------


def fixed_point_sum(x, bits, clip="max"):
    """(N, P) float32 -> the sum of the levels (P,) int64, the step, and the levels (N, P) int64."""
    num_nodes = x.shape[0]
    width = bits - math.ceil(math.log2(num_nodes))
    limit = 2 ** (width - 1) - 1
    if width > 25:  # the largest float32 that does not exceed it
        limit = 2 ** (width - 1) - 2 ** (width - 25)
    x = np.asarray(x, np.float32).astype(np.float64)
    peak = np.abs(x).max() if clip == "max" else np.float64(np.float32(clip))
    power = -200
    while math.ldexp(limit, power) < peak:
        power += 1
    step = math.ldexp(1.0, power)
    if clip != "max":
        x = np.clip(x, -peak, peak)
    levels = np.clip(np.rint(x / step), -limit, limit).astype(np.int64)
    total = levels.sum(axis=0)
    assert np.abs(total).max(initial=0) < 2 ** (bits - 1)
    return total, step, levels


def float_ring_sum(x, round_to):
    """(N, P) -> (P,): chunk j starts at node j, and each node adds its own to what arrives."""
    num_nodes, size = x.shape
    chunk = -(-size // num_nodes)
    total = np.zeros(size, np.float32)
    for j in range(num_nodes):
        part = slice(j * chunk, min((j + 1) * chunk, size))
        arrived = x[j, part].astype(round_to)
        for d in range(1, num_nodes):
            own = x[(j + d) % num_nodes, part].astype(round_to)
            arrived = (own.astype(np.float32) + arrived.astype(np.float32)).astype(round_to)
        total[part] = arrived.astype(np.float32)
    return total


def werner_transition(fidelity):
    error = (1 - fidelity) / 3
    return np.full((4, 4), error) + (fidelity - error) * np.eye(4)


def code_transition(fidelity, bits):
    """(2^b, 2^b) P(received level | sent level), levels read as unsigned integers."""
    matrix = np.ones((1, 1))
    for _ in range(bits // 2):
        matrix = np.kron(matrix, werner_transition(fidelity))
    return matrix


def chain_distribution(levels, bits, fidelity, reduce_hops, gather_hops):
    """(2^b,) the exact distribution of a sum over a chain, wrap-around included."""
    hop = code_transition(fidelity, bits)
    p = np.zeros(2**bits)
    p[levels[0] % 2**bits] = 1
    for d in range(1, reduce_hops + 1):
        p = np.roll(hop @ p, levels[d])
    for _ in range(gather_hops):
        p = hop @ p
    return p


def mean_and_variance(p, bits):
    values = np.arange(2**bits)
    values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    mean = p @ values
    return mean, p @ (values - mean) ** 2


def wide_chain_mean(levels, fidelity, gather_hops):
    """sum_i s^(H - i) x_i - (1 - s^H) / 2, then `gather_hops` more that add nothing."""
    slope = 1 - 2 * 2 * (1 - fidelity) / 3
    last = len(levels) - 1
    weights = [slope ** (last - i + gather_hops) for i in range(len(levels))]
    return np.dot(weights, levels) - (1 - slope ** (last + gather_hops)) / 2


def assert_same_bits(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def mixed_tree(num_nodes, seed=0):
    """17 values a node, in leaves of several shapes and types; some leaves are empty."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=(num_nodes, *shape)), jnp.float32)

    return {
        "layer": {"w": draw(2, 5), "none": jnp.zeros((num_nodes, 0))},
        "pair": (draw(), draw(3).astype(jnp.bfloat16)),
        "rows": [jnp.zeros((num_nodes, 3, 0)), 5 * draw(3)],
    }


def expected_tree(tree, num_nodes, bits, clip="max"):
    """The tree of sums that every node must hold, with a leading axis N.

    Every leaf has a step of its own.
    """

    def total_of(leaf):
        values = np.asarray(leaf, np.float32).reshape(num_nodes, -1)
        if not values.size:
            return np.asarray(leaf)
        total, step, _ = fixed_point_sum(values, bits, clip)
        sums = (total.astype(np.float32) * np.float32(step)).reshape(leaf.shape[1:])
        return np.broadcast_to(sums.astype(leaf.dtype), leaf.shape)

    return jax.tree.map(total_of, tree)


# --- Noise off ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_nodes", [further(2), further(3), 5, further(8)])
def test_psum_without_noise_is_the_exact_sum_of_levels(every_mapping, num_nodes):
    tree = mixed_tree(num_nodes)  # 17 values: no ring here divides them
    total = every_mapping(run_psum, num_nodes, shared=2)(tree, Ring(noise="off"), None)
    assert_same_bits(total, expected_tree(tree, num_nodes, 16))


def test_pmean_is_psum_divided_by_the_number_of_nodes(vmap_first):
    tree = mixed_tree(3)
    mean = vmap_first(run_pmean, 3, shared=2)(tree, Ring(noise="off"), None)
    expected = expected_tree(tree, 3, 16)
    for got, leaf in zip(jax.tree.leaves(mean), jax.tree.leaves(expected), strict=True):
        got = np.asarray(got)
        assert (got == got[:1]).all()
        assert got.dtype == leaf.dtype
        # Not to the last bit: XLA multiplies by the rounded constant 1/3.
        precision = 2e-7 if leaf.dtype == np.float32 else 1e-2
        np.testing.assert_allclose(
            got.astype(np.float64), leaf.astype(np.float64) / 3, rtol=precision
        )


@pytest.mark.parametrize(
    "bits, num_nodes",
    [(8, 8), (10, 3), further(16, 5), further(24, 2), further(28, 2), (32, 3), further(32, 8)],
)
def test_psum_is_exact_at_every_width(vmapped, bits, num_nodes):
    tree = mixed_tree(num_nodes, seed=bits)
    total = vmapped(run_psum, num_nodes, shared=2)(
        tree, Ring(noise="off", wire=FixedPoint(bits)), None
    )
    assert_same_bits(total, expected_tree(tree, num_nodes, bits))


def test_psum_is_exact_for_sizes_below_the_number_of_nodes(vmap_first):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    total = vmap_first(run_psum, 5, shared=2)(x, Ring(noise="off"), None)
    assert_same_bits(total, expected_tree(x, 5, 16))


def test_psum_over_one_node_only_quantises(vmapped):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 6)), jnp.float32)
    total = vmapped(run_psum, 1, shared=2)(x, Ring(noise="off", wire=FixedPoint(8)), None)
    assert_same_bits(total, expected_tree(x, 1, 8))
    assert not np.array_equal(total, x)


def test_psum_of_float64_leaves_keeps_their_type_under_x64(vmap_first):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(3).normal(size=(3, 7)), jnp.float64)
        assert x.dtype == jnp.float64
        run = vmap_first(run_psum_report, 3, shared=2)
        total, report = run({"wide": x}, Ring(noise="off"), None)
        assert_same_bits(total, expected_tree({"wide": x}, 3, 16))
        assert report.vanished.dtype == jnp.uint32
        assert np.asarray(report.vanished).tolist() == [0, 0, 0]


def test_psum_with_a_given_clip_clips_to_it_and_counts(vmap_first):
    x = np.random.default_rng(4).normal(size=(3, 11)).astype(np.float32)
    ring = Ring(noise="off", wire=FixedPoint(12, clip=0.75))
    total, report = vmap_first(run_psum_report, 3, shared=2)(jnp.asarray(x), ring, None)
    assert_same_bits(total, expected_tree(jnp.asarray(x), 3, 12, clip=0.75))
    outside = int((np.abs(x) > 0.75).sum())
    assert 0 < outside < x.size
    assert np.asarray(report.saturated).tolist() == [outside] * 3


def test_stochastic_rounding_is_within_a_step_a_node_and_the_same_on_all_nodes(vmap_first):
    x = np.random.default_rng(5).normal(size=(3, 23)).astype(np.float32)
    ring = Ring(noise="off", wire=FixedPoint(8, rounding="stochastic"))
    total = np.asarray(vmap_first(run_psum, 3, shared=2)(jnp.asarray(x), ring, KEY))
    nearest, step, _ = fixed_point_sum(x, 8)
    assert (total == total[0]).all()
    assert (total != nearest * step).any()
    assert (np.abs(total[0] - x.astype(np.float64).sum(0)) < 3 * step).all()


@pytest.mark.statistics
def test_stochastic_rounding_is_unbiased(vmapped):
    # Codes 0.3 and -0.8, 20,000 times: the mean of their sum has a standard error of
    # sqrt((0.21 + 0.16) / 20,000) = 0.0043; six of them are exceeded with probability 2e-9.
    x = jnp.broadcast_to(jnp.array([[0.3], [-0.8]], jnp.float32), (2, 20_000))
    ring = Ring(noise="off", wire=FixedPoint(8, clip=63.0, rounding="stochastic"))
    total = np.asarray(vmapped(run_psum, 2, shared=2)(x, ring, KEY))[0]
    assert set(np.unique(total)) == {-1.0, 0.0, 1.0}
    assert abs(total.mean() - -0.5) < 0.026


@pytest.mark.parametrize(
    "wire, round_to", [further(Float32(), np.float32), (BFloat16(), ml_dtypes.bfloat16)]
)
def test_float_wires_add_in_ring_order_identically_on_all_nodes(mapping, wire, round_to):
    x = np.random.default_rng(6).normal(size=(5, 13)).astype(np.float32)
    total = mapping(run_psum, 5, shared=2)(jnp.asarray(x), Ring(noise="off", wire=wire), None)
    expected = float_ring_sum(x, round_to)
    assert_same_bits(total, np.broadcast_to(expected, (5, 13)))


SPLITS = [(0, False), (1, False), (-1, False), (0, True), (1, True), (2, True), (-2, True)]


def run_scatter_and_gather(x, ring, splits=((1, False), (-2, True))):
    """This library's result and that of `jax.lax`, for every split."""
    ours, theirs = [], []
    for dimension, tiled in splits:
        split = {"scatter_dimension": dimension, "tiled": tiled}
        sent = x["wide"] if tiled else x["even"]
        ours.append(psum_scatter(sent, AXIS, ring=ring, key=None, **split))
        split["scatter_dimension"] %= sent.ndim  # jax.lax takes no negative one here
        theirs.append(lax.psum_scatter(sent, AXIS, **split))
    for axis, tiled in splits:
        where = axis % (x["even"].ndim + (not tiled))
        ours.append(all_gather(x["even"], AXIS, ring=ring, key=None, axis=axis, tiled=tiled))
        theirs.append(lax.all_gather(x["even"], AXIS, axis=where, tiled=tiled))
    return ours, theirs


def run_every_split(x, ring):
    return run_scatter_and_gather(x, ring, SPLITS)


def check_semantics(run):
    # Integers below 2^7 are levels themselves, so that nothing is lost to quantisation.
    rng = np.random.default_rng(7)
    x = {
        "even": jnp.asarray(rng.integers(-99, 99, (3, 3, 3, 3)), jnp.float32),
        "wide": jnp.asarray(rng.integers(-99, 99, (3, 3, 6, 9)), jnp.float32),
    }
    ours, theirs = run(x, Ring(noise="off"))
    for got, expected in zip(ours, theirs, strict=True):
        assert got.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_psum_scatter_and_all_gather_have_the_semantics_of_lax(mapping):
    check_semantics(mapping(run_scatter_and_gather, 3, shared=1))


@pytest.mark.matrix
def test_every_dimension_and_axis_has_the_semantics_of_lax(vmapped):
    check_semantics(vmapped(run_every_split, 3, shared=1))


def run_halves(x, ring):
    part = psum_scatter(x, AXIS, ring=ring, key=None, tiled=True)
    whole = all_gather(part, AXIS, ring=ring, key=None, tiled=True)
    return part, whole, psum(x, AXIS, ring=ring, key=None)


def test_psum_is_the_all_gather_of_the_psum_scatter(vmap_first):
    x = {
        "a": jnp.asarray(np.random.default_rng(8).normal(size=(4, 8)), jnp.float32),
        "b": jnp.asarray(np.random.default_rng(9).normal(size=(4, 4, 2)), jnp.bfloat16),
    }
    part, whole, total = vmap_first(run_halves, 4, shared=1)(x, Ring(noise="off"))
    assert part["a"].shape == (4, 2)
    assert part["b"].shape == (4, 1, 2)
    assert_same_bits(whole["a"], total["a"])
    np.testing.assert_array_equal(np.asarray(part["a"]).ravel(), np.asarray(total["a"])[0])
    assert_same_bits(total, expected_tree(x, 4, 16))
    # bfloat16 parts are rounded before they are sent on, the sum after: equal to that type.
    assert_same_bits(whole["b"], total["b"])


def test_empty_trees_pass_through_with_an_empty_report(vmapped):
    x = {"a": jnp.zeros((3, 0)), "b": ()}
    total, report = vmapped(run_psum_report, 3, shared=2)(x, Ring(noise="off"), None)
    assert jax.tree.structure(total) == jax.tree.structure(x)
    assert total["a"].shape == (3, 0)
    assert report.symbols_per_link == 0
    assert np.asarray(report.errors_per_link).tolist() == [[0, 0, 0]] * 3
    assert np.asarray(report.replica_agreement).tolist() == [1, 1, 1]


@pytest.mark.parametrize("clip", ["max", 0.75])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_on_one_node_makes_its_leaf_nan_on_all(vmap_first, bad, clip):
    tree = mixed_tree(3)
    spoilt = {**tree, "spoilt": tree["layer"]["w"].at[1, 0, 2].set(bad)}
    ring = Ring(noise="off", wire=FixedPoint(16, clip=clip))
    total, report = vmap_first(run_psum_report, 3, shared=2)(spoilt, ring, None)
    assert np.isnan(np.asarray(total.pop("spoilt"))).all()
    assert_same_bits(total, expected_tree(tree, 3, 16, clip))
    outside = sum(
        int((np.abs(np.asarray(leaf, np.float32)) > 0.75).sum()) for leaf in jax.tree.leaves(tree)
    )
    assert np.asarray(report.non_finite).tolist() == [1, 1, 1]
    # Of a leaf that is lost nothing is clipped, and nothing vanishes.
    assert np.asarray(report.saturated).tolist() == [0 if clip == "max" else outside] * 3
    assert np.asarray(report.vanished).tolist() == [0, 0, 0]


def test_fixed_point_can_turn_nan_and_infinity_into_numbers_and_counts_them(vmap_first):
    x = np.random.default_rng(10).normal(size=(3, 11)).astype(np.float32)
    x[0, 1], x[1, 1], x[2, 5] = np.nan, np.inf, -np.inf
    ring = Ring(noise="off", wire=FixedPoint(16, non_finite="clip"))
    total, report = vmap_first(run_psum_report, 3, shared=2)(jnp.asarray(x), ring, None)
    width = 14
    finite = np.where(np.isfinite(x), x, 0)
    _, step, _ = fixed_point_sum(finite, 16)
    infinite = np.float32(step * (2 ** (width - 1) - 1))
    clipped = np.where(np.isnan(x), 0, np.clip(x, -infinite, infinite)).astype(np.float32)
    expected = np.rint(clipped.astype(np.float64) / step).sum(0) * step
    np.testing.assert_array_equal(np.asarray(total), np.broadcast_to(expected, (3, 11)))
    assert np.asarray(report.non_finite).tolist() == [3, 3, 3]
    assert np.asarray(report.saturated).tolist() == [2, 2, 2]


@pytest.mark.parametrize("scale", ["leaf", 1])
def test_a_block_of_one_negative_value_has_the_scale_of_its_magnitude(vmap_first, scale):
    x = {"a": jnp.float32([-3.0, -1e-3, -40.0]), "b": -jnp.ones((3, 2)) * jnp.float32([5.0, 1e-4])}
    ring = Ring(noise="off", wire=FixedPoint(16, scale=scale))
    total = vmap_first(run_psum, 3, shared=2)(x, ring, None)
    assert_same_bits(total["a"], expected_tree(x["a"], 3, 16))
    if scale == 1:
        columns = [expected_tree(x["b"][:, at], 3, 16) for at in range(2)]
        assert_same_bits(total["b"], np.stack(columns, axis=1))


# --- Noise on: the same bits however mapped -------------------------------------------------------

LINKS = superdense(werner(fidelity=jnp.linspace(0.8, 0.99, 8)))
NOISY = Ring(LINKS)
PAYLOAD = np.random.default_rng(11).normal(size=(8, 40)).astype(np.float32)


@pytest.fixture(scope="module")
def one_node_per_device(mapping_named):
    """The three collectives on eight nodes, mapped by vmap."""
    return mapping_named("vmap")(run_all, 8, shared=2)(jnp.asarray(PAYLOAD), NOISY, KEY)


def test_same_key_gives_the_same_bits_under_every_mapping(every_mapping, one_node_per_device):
    assert_same_bits(
        every_mapping(run_all, 8, shared=2)(jnp.asarray(PAYLOAD), NOISY, KEY), one_node_per_device
    )


def assert_same_on_fewer_devices(results, expected_results, nodes_per_device):
    devices = 8 // nodes_per_device
    for (value, report), (expected, expected_report) in zip(results, expected_results, strict=True):
        merged = np.asarray(value).reshape(8, *value.shape[2:])
        assert_same_bits(merged, expected)
        assert report.num_links == 8
        assert report.symbols_per_link == expected_report.symbols_per_link
        for got, reference in zip(
            jax.tree.leaves(report), jax.tree.leaves(expected_report), strict=True
        ):
            assert_same_bits(got, np.asarray(reference)[:devices])


@pytest.mark.matrix
@pytest.mark.parametrize("nodes_per_device", [2, 4])
def test_same_key_gives_the_same_psum_however_many_nodes_a_device_carries(
    mapping, nodes_per_device, one_node_per_device
):
    devices = 8 // nodes_per_device
    x = jnp.asarray(PAYLOAD).reshape(devices, nodes_per_device, -1)
    ring = NOISY.replace(nodes_per_device=nodes_per_device)
    result = mapping(run_psum_report, devices, shared=2)(x, ring, KEY)
    assert_same_on_fewer_devices([result], one_node_per_device[:1], nodes_per_device)


@pytest.mark.parametrize("nodes_per_device", [further(2), 4])
def test_same_key_gives_the_same_halves_however_many_nodes_a_device_carries(
    vmapped, nodes_per_device, one_node_per_device
):
    devices = 8 // nodes_per_device
    x = jnp.asarray(PAYLOAD).reshape(devices, nodes_per_device, -1)
    ring = NOISY.replace(nodes_per_device=nodes_per_device)
    results = vmapped(run_all, devices, shared=2)(x, ring, KEY)
    assert_same_on_fewer_devices(results, one_node_per_device, nodes_per_device)


def test_noise_off_is_exact_with_several_nodes_on_a_device(mapping):
    tree = mixed_tree(6)
    split = jax.tree.map(lambda leaf: leaf.reshape(3, 2, *leaf.shape[1:]), tree)
    total = mapping(run_psum, 3, shared=2)(split, Ring(noise="off", nodes_per_device=2), None)
    merged = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(6, *leaf.shape[2:]), total)
    assert_same_bits(merged, expected_tree(tree, 6, 16))


def test_different_keys_give_different_bits(vmapped, one_node_per_device):
    other = vmapped(run_all, 8, shared=2)(jnp.asarray(PAYLOAD), NOISY, jax.random.key(1))
    for (value, _), (reference, _) in zip(other, one_node_per_device, strict=True):
        assert (np.asarray(value) != np.asarray(reference)).mean() > 0.3


def test_node_i_sends_over_link_i(vmapped):
    fidelity = jnp.ones(8).at[3].set(0.5)
    ring = Ring(superdense(werner(fidelity=fidelity)))
    results = vmapped(run_all, 8, shared=2)(jnp.asarray(PAYLOAD), ring, KEY)
    (_, report), (part, scattered), (gathered, passed) = results
    for seen in (report, scattered, passed):
        errors = np.asarray(seen.errors_per_link)
        assert (errors == errors[0]).all()
        # About half of 280 symbols and more; 0 of them has probability 2^-280.
        assert errors[0, 3] > 0
        assert errors[0, np.arange(8) != 3].tolist() == [0] * 7
    # Chunk j reaches node i over links j, j + 1, ..., i - 1: wrong exactly if 3 is among them.
    sent = fixed_point_gather(PAYLOAD[:, :5])
    for node in range(8):
        for chunk in range(8):
            crossed = {(chunk + hop) % 8 for hop in range((node - chunk) % 8)}
            exact = np.array_equal(np.asarray(gathered)[node, chunk], sent[chunk])
            assert exact == (3 not in crossed)
    # Part j of the reduced sum starts at node j + 1 and ends at node j: over all links but j.
    expected, step, _ = fixed_point_sum(PAYLOAD, 16)
    exact_parts = (np.asarray(part) == (expected * step).reshape(8, 5)).all(axis=1)
    assert exact_parts.tolist() == [node == 3 for node in range(8)]


def fixed_point_gather(x):
    """Codes of all 16 bits, without guard bits, as every node must receive them."""
    limit = 2**15 - 1
    power = math.ceil(math.log2(np.abs(x.astype(np.float64)).max() / limit))
    return (np.rint(x.astype(np.float64) / 2.0**power) * 2.0**power).astype(np.float32)


@pytest.mark.statistics
def test_without_scrambling_the_errors_depend_on_the_data(vmapped):
    # Symbol 0 always arrives, symbols 1, 2 and 3 arrive as anything.
    transition = jnp.full((4, 4), 0.25).at[:, 0].set(jnp.array([1.0, 0, 0, 0]))
    zeros = jnp.zeros((2, 64))
    seen = {}
    for scramble in (True, False):
        ring = Ring(SymbolChannel(transition), scramble=scramble)
        _, report = vmapped(run_gather_report, 2, shared=2)(zeros, ring, KEY)
        seen[scramble] = int(np.asarray(report.errors_per_link)[0].sum())
    assert seen[False] == 0
    # Scrambled, an error has probability 9/16: 576 of 1024 expected, standard deviation 15.9.
    assert abs(seen[True] - 576) < 6 * 15.9


# --- Statistics of the noise ----------------------------------------------------------------------


@pytest.mark.statistics
def test_every_hop_and_node_draws_errors_of_its_own(vmapped):
    # Zeros come back as the XOR of the errors met on the way. In units of a level of 16 bits:
    zeros = jnp.zeros((4, 2000))
    ring = Ring(superdense(werner(fidelity=0.7)), wire=FixedPoint(16, clip=2.0**15 - 1))
    gathered, _ = vmapped(run_gather_report, 4, shared=2)(zeros, ring, KEY)
    seen = np.asarray(gathered).astype(np.int64) & 0xFFFF  # (node, chunk, coordinate)
    drawn = []
    for chunk in range(4):
        assert not seen[chunk, chunk].any()
        for hop in range(3):
            before, after = (chunk + hop) % 4, (chunk + hop + 1) % 4
            drawn.append(seen[before, chunk] ^ seen[after, chunk])
    # And both halves of an all-reduce: two nodes, so that each sum crosses one link of each half.
    ring = ring.replace(wire=FixedPoint(16, clip=2.0**14 - 1))
    total, _ = vmapped(run_psum_report, 2, shared=2)(jnp.zeros((2, 4000)), ring, KEY)
    total = np.asarray(total).astype(np.int64).reshape(2, 2, 2000) & 0xFFFF
    for chunk in range(2):
        owner = (chunk + 1) % 2
        drawn.append(total[owner, chunk])
        drawn.append(total[owner, chunk] ^ total[chunk, chunk])
    wrong = np.array(
        [[(levels >> 2 * symbol) & 3 != 0 for symbol in range(8)] for levels in drawn]
    ).reshape(len(drawn), -1)
    # 16 patterns of 16,000 symbols, wrong with probability 0.3 each: 4,800, sd 58; two patterns
    # share 1,440 wrong symbols, sd 36.2. Six sigma, 136 checks: fails with probability 3e-7.
    assert (np.abs(wrong.sum(1) - 4800) < 6 * 58).all()
    for i in range(len(drawn)):
        for j in range(i):
            assert abs((wrong[i] & wrong[j]).sum() - 1440) < 6 * 36.2


@pytest.mark.statistics
def test_errors_per_link_follow_the_error_probability(vmapped):
    # 4 links, 48,000 symbols each, wrong with probability 0.1: 4,800, standard deviation 65.7.
    # Six of them are exceeded on one of four links with probability 8e-9.
    x = jnp.asarray(np.random.default_rng(12).normal(size=(4, 4000)), jnp.float32)
    ring = Ring(superdense(bell_diagonal([0.9, 0.05, 0.03, 0.02])))
    _, report = vmapped(run_psum_report, 4, shared=2)(x, ring, KEY)
    assert report.symbols_per_link == 48_000
    assert report.symbols_sent == 192_000
    errors = np.asarray(report.errors_per_link)
    assert (errors == errors[0]).all()
    assert (np.abs(errors[0] - 4800.0) < 6 * 65.7).all()
    one = jax.tree.map(lambda leaf: leaf[0], report)
    assert int(one.symbol_errors) == errors[0].sum()
    assert int(one.worst_link_errors) == errors[0].max()
    np.testing.assert_allclose(one.symbol_error_rate, errors[0].sum() / 192_000, rtol=1e-6)


@pytest.mark.statistics
def test_levels_survive_h_hops_with_the_probability_of_the_protocol(vmapped):
    # One symbol is intact after H hops with probability (1 + 3 W^H) / 4, W = (4F - 1) / 3; a level
    # of 8 bits if its four are, which is at least F^(4H). 4 chunks of 10,000 levels at each
    # distance, within six standard deviations: fails with probability 8e-9.
    fidelity, bits, size = 0.95, 8, 10_000
    x = jnp.asarray(np.random.default_rng(13).integers(-127, 128, (4, size)), jnp.float32)
    ring = Ring(superdense(werner(fidelity=fidelity)), wire=FixedPoint(bits, clip=127.0))
    gathered, _ = vmapped(run_gather_report, 4, shared=2)(x, ring, KEY)
    exact = (np.asarray(gathered) == np.asarray(x)).mean(axis=2)  # (node, chunk)
    weight = (4 * fidelity - 1) / 3
    for hops in range(4):
        measured = np.mean([exact[(chunk + hops) % 4, chunk] for chunk in range(4)])
        expected = ((1 + 3 * weight**hops) / 4) ** (bits // 2)
        deviation = math.sqrt(expected * (1 - expected) / (4 * size))
        assert abs(measured - expected) <= 6 * deviation
        assert measured >= fidelity ** (bits / 2 * hops) - 6 * deviation


@pytest.mark.statistics
@pytest.mark.parametrize("values", [(1, 2, 1, 3), (31, -30, -31, 28)])
def test_the_mean_of_a_noisy_psum_is_that_of_the_chain(vmapped, values):
    # Node m holds 240,000 times the level x_m of 8 bits. The mean over a chunk is compared with the
    # exact distribution (mod 2^8), six standard errors for each of 16 pairs of node and chunk:
    # fails with probability 4e-8. A wide accumulator holds where wrapping is rare, that
    # is for small positive levels: its error there is computed, and is below 0.02.
    # The biases, from 0.6 up, are four standard errors and more of one pair, and 16 of all.
    bits, fidelity, size = 8, 0.95, 240_000
    bias = 0.0
    x = jnp.broadcast_to(jnp.asarray(values, jnp.float32)[:, None], (4, size))
    ring = Ring(superdense(werner(fidelity=fidelity)), wire=FixedPoint(bits, clip=31.0))
    total, _ = vmapped(run_psum_report, 4, shared=2)(x, ring, KEY)
    chunks = np.asarray(total).reshape(4, 4, -1)
    for chunk in range(4):
        order = [values[(chunk + d) % 4] for d in range(4)]
        for node in range(4):
            hops = (node - (chunk - 1)) % 4  # from the owner of the sum
            p = chain_distribution(order, bits, fidelity, 3, hops)
            mean, variance = mean_and_variance(p, bits)
            error = math.sqrt(variance / (size / 4))
            assert abs(chunks[node, chunk].mean() - mean) < 6 * error
            bias += abs(chunks[node, chunk].mean() - sum(values)) / error / 16
            if min(values) > 0:
                wide = wide_chain_mean(order, fidelity, hops)
                assert abs(wide - mean) < 0.02
                assert abs(chunks[node, chunk].mean() - wide) < 6 * error + 0.02
    assert bias > 6  # without errors, or with those of another channel, it would be about one


# --- noise="mean" and noise="gaussian" ------------------------------------------------------------


def test_mean_mode_delivers_the_rounded_mean_of_every_hop(vmap_first):
    # A hop takes the level v to (1 - 2f) v - f, rounded. No tie can arise for f = 1/15.
    values = np.random.default_rng(14).integers(-31, 32, (4, 9))
    ring = Ring(superdense(werner(fidelity=0.9)), wire=FixedPoint(8, clip=31.0), noise="mean")
    total = vmap_first(run_psum, 4, shared=2)(jnp.asarray(values, jnp.float32), ring, None)
    flip = 1 / 15

    def hop(level):
        return np.rint((1 - 2 * flip) * level - flip)

    expected = np.zeros((4, 9))
    for coordinate in range(9):
        chunk = coordinate // 3
        level = values[chunk, coordinate]
        for d in range(1, 4):
            level = hop(level) + values[(chunk + d) % 4, coordinate]
        for d in range(4):
            expected[(chunk - 1 + d) % 4, coordinate] = level
            level = hop(level)
    np.testing.assert_array_equal(np.asarray(total), expected)
    assert (expected[0] != values.sum(0)).any()


@pytest.mark.statistics
def test_one_gaussian_hop_has_the_mean_and_variance_of_the_channel(vmapped):
    # f = 0.02, level 39 of 8 bits: mean 37.4, sd 21, clipped 4.3 sd away. 100,000 draws: standard
    # error of the mean 0.066, of the variance 2; six of them fail with probability 4e-9.
    fidelity, level, size, bits = 0.97, 39, 100_000, 8
    x = jnp.full((2, size), float(level))
    link = superdense(werner(fidelity=fidelity))
    flip, both = 2 * (1 - fidelity) / 3, (1 - fidelity) / 3
    mean = (1 - 2 * flip) * level - flip
    weights = 2.0 ** np.arange(bits)
    weights[-1] *= -1
    chi = 1 - 2 * ((level >> np.arange(bits)) & 1)
    pairs = np.sum(weights[1::2] * weights[::2] * chi[1::2] * chi[::2])
    variance = flip * (1 - flip) * (4**bits - 1) / 3 + 2 * (both - flip**2) * pairs
    computed = moments(jnp.int32(level), FixedPoint(bits), link)
    np.testing.assert_allclose([float(m) for m in computed], [mean, variance], rtol=1e-4)

    seen = {}
    for noise in ("gaussian", "sampled"):
        ring = Ring(link, wire=FixedPoint(bits, clip=127.0), noise=noise)
        gathered, report = vmapped(run_gather_report, 2, shared=2)(x, ring, KEY)
        seen[noise] = np.asarray(gathered)[0, 1].astype(np.float64)
        assert (np.asarray(report.errors_per_link).sum() > 0) == (noise == "sampled")
        # Sampled errors are not normal: fourth moment about (2^7)^4 f, standard error 7.
        assert abs(seen[noise].mean() - mean) < 6 * math.sqrt(variance / size) + 0.01
        assert abs(seen[noise].var() - variance) < 6 * (2.0 if noise == "gaussian" else 7.0)
    assert len(np.unique(seen["gaussian"])) > 100  # every size of error, not only flips of bits
    assert np.array_equal(seen["gaussian"], np.rint(seen["gaussian"]))

    ring = ring.replace(noise="mean")
    gathered, _ = vmapped(run_gather_report, 2, shared=2)(x, ring, None)
    assert (np.asarray(gathered)[0, 1] == np.rint(mean)).all()


def test_what_normal_noise_puts_beyond_the_format_arrives_as_its_ends(vmapped):
    """Exact: the same normal variates on a link that never reaches the ends, and on a white one.

    The levels of a white link have the mean -1/2 and the variance (4^b - 1) / 12. What is nearer to
    a tie than the variates are known is left out.
    """
    size, bits, wide = 2048, 4, 16
    run = vmapped(run_gather_report, 2, shared=2)

    def received(fidelity, bits):
        wire = FixedPoint(bits, clip=2.0 ** (bits - 1) - 1)  # so that a value is its level
        ring = Ring(superdense(werner(fidelity=fidelity)), wire, noise="gaussian")
        return np.asarray(run(jnp.zeros((2, size)), ring, KEY)[0], np.float64)[0, 1]

    # All bits of a zero are zeros, so that flips are sums of weights, here of f = 0.02.
    flip, both = 0.02, 0.01
    weights = 2.0 ** np.arange(wide) * np.where(np.arange(wide) == wide - 1, -1, 1)
    variance = flip * (1 - flip) * np.sum(weights**2)
    variance += 2 * (both - flip**2) * np.sum(weights[::2] * weights[1::2])
    levels = received(0.97, wide)
    assert np.abs(levels).max() < 2 ** (wide - 1) - 1
    variates = (levels + flip) / np.sqrt(variance)
    assert abs(variates.std() - 1) < 0.1
    exact = -0.5 + np.sqrt((4.0**bits - 1) / 12) * variates
    found = received(0.25, bits)
    sure = np.abs(exact - np.floor(exact) - 0.5) > 0.01
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(found[sure], np.clip(np.rint(exact), -8, 7)[sure])
    assert min(np.sum(exact < -9), np.sum(exact > 8)) > 20


# --- Reports --------------------------------------------------------------------------------------


def test_replica_agreement_is_that_of_the_outputs(vmapped, one_node_per_device):
    # The reports are the same under every mapping: see the test of the bits above.
    (total, report), (_, scattered), (gathered, passed) = one_node_per_device
    assert scattered.replica_agreement is None
    for value, seen in ((total, report), (gathered, passed)):
        rows = np.asarray(value).reshape(8, -1)
        fraction = (rows == rows[0]).all(axis=0).mean()
        np.testing.assert_allclose(seen.replica_agreement, [fraction] * 8, rtol=1e-6)
    tree = {"a": jnp.ones((3, 4, 5)), "b": jnp.ones((3, 30), jnp.bfloat16)}
    ring = Ring(superdense(werner(fidelity=0.99)))
    total, report = vmapped(run_psum_report, 3, shared=2)(tree, ring, KEY)
    rows = [np.asarray(leaf).reshape(3, -1) for leaf in jax.tree.leaves(total)]
    fraction = np.concatenate([(row == row[0]).all(axis=0) for row in rows]).mean()
    assert 0.2 < fraction < 0.98
    np.testing.assert_allclose(report.replica_agreement, [fraction] * 3, rtol=1e-6)


def test_replica_agreement_compares_bits_over_nodes_and_devices(vmapped):
    zero = np.float32(0)
    x = jnp.array([[zero, 1, np.nan, 2], [-zero, 1, np.nan, 3]] * 2)
    alone = jax.jit(jax.vmap(lambda leaf: replica_agreement(leaf, AXIS), axis_name=AXIS))(x)
    assert alone.tolist() == [0.5] * 4  # -0 differs from 0, NaN is equal to itself
    together = jax.vmap(
        lambda leaf: replica_agreement(leaf, AXIS, nodes_per_device=2), axis_name=AXIS
    )
    together = jax.jit(together)(x.reshape(2, 2, 4))
    assert together.tolist() == [0.5] * 2


def test_without_noise_all_replicas_agree(vmap_first):
    x = jnp.asarray(np.random.default_rng(16).normal(size=(3, 11)), jnp.float32)
    _, report = vmap_first(run_psum_report, 3, shared=2)(x, Ring(noise="off"), None)
    assert np.asarray(report.replica_agreement).tolist() == [1, 1, 1]
    assert np.asarray(report.errors_per_link).tolist() == [[0, 0, 0]] * 3
    assert np.asarray(report.clipped_parameters).tolist() == [0, 0, 0]
    assert (report.num_links, report.symbols_per_link) == (3, 2 * 2 * 4 * 8)


def run_from_fidelity(x, fidelity, key):
    ring = Ring(superdense(werner(fidelity=fidelity)))
    return psum(x, AXIS, ring=ring, key=key, with_report=True)


def test_a_traced_fidelity_out_of_its_domain_is_clipped_and_flagged(vmap_first):
    x = jnp.asarray(np.random.default_rng(17).normal(size=(2, 6)), jnp.float32)
    run = vmap_first(run_from_fidelity, 2, shared=2)
    flags = {}
    for fidelity in (0.9, 1.2, 0.1, float("nan")):
        total, report = run(x, jnp.float32(fidelity), KEY)
        assert np.isfinite(np.asarray(total)).all()
        flags[fidelity] = np.asarray(report.clipped_parameters).tolist()
        if fidelity == 1.2:  # clipped to 1, where nothing goes wrong
            assert_same_bits(total, expected_tree(x, 2, 16))
    assert list(flags.values()) == [[0] * 2, [1] * 2, [1] * 2, [1] * 2]


@pytest.mark.matrix
def test_a_noisy_float_wire_delivers_what_the_bits_say_and_counts_it(vmapped):
    # Each bit is flipped with probability 1/3 a hop, so that the last of four hops leaves all
    # eight bits of an exponent one with probability 3^-8 = 1.5e-4 at the least, and 1/256 where
    # the bits are random already. A fixed key; none in 8,100 delivered values has probability
    # below e^-20 for the latter.
    x = jnp.asarray(np.random.default_rng(18).normal(size=(3, 2700)), jnp.float32)
    ring = Ring(superdense(werner(fidelity=0.5)), wire=Float32())
    total, report = vmapped(run_psum_report, 3, shared=2)(x, ring, KEY)
    delivered = int((~np.isfinite(np.asarray(total))).sum())
    assert delivered > 0
    assert np.asarray(report.non_finite).tolist() == [delivered] * 3
    assert np.asarray(report.saturated).tolist() == [0] * 3
    # 57,600 symbols a link, wrong with probability 1/2: standard deviation 120.
    errors = np.asarray(report.errors_per_link)[0]
    assert report.symbols_per_link == 4 * 900 * 16
    assert (np.abs(errors - 28_800.0) < 6 * 120).all()


# --- What the type system of shard_map sees -------------------------------------------------------


def test_a_replicated_result_may_leave_shard_map_as_replicated(ring_mesh):
    x = np.random.default_rng(19).normal(size=(4, 10)).astype(np.float32)
    ring = Ring(noise="off")

    def total(shard, replicated):
        return psum(shard[0], AXIS, ring=ring, key=None, replicated=replicated)

    def mapped(function, out_specs):
        specs = {"in_specs": PartitionSpec(AXIS), "out_specs": out_specs}
        return jax.jit(jax.shard_map(function, mesh=ring_mesh(4), **specs))

    result = mapped(functools.partial(total, replicated=True), PartitionSpec())(x)
    assert_same_bits(result, expected_tree(jnp.asarray(x), 4, 16)[0])

    def loss(x):
        values = mapped(functools.partial(total, replicated=True), PartitionSpec())(x)
        return jnp.sum(values * jnp.arange(10.0))

    gradient = jax.grad(loss)(jnp.asarray(x))
    np.testing.assert_array_equal(gradient, np.broadcast_to(np.arange(10.0), (4, 10)))

    with pytest.raises(ValueError, match="out_specs"):
        mapped(functools.partial(total, replicated=False), PartitionSpec())(x)


def run_replicated(x):
    return psum(x, AXIS, ring=Ring(noise="off"), key=None, replicated=True)


def test_replicated_gives_the_same_bits_under_every_mapping(vmap_first):
    x = jnp.asarray(np.random.default_rng(20).normal(size=(3, 7)), jnp.float32)
    assert_same_bits(vmap_first(run_replicated, 3)(x), expected_tree(x, 3, 16))


def gradient_step(params, batch, key, *, vary=False, empty=False):
    if vary:
        params = jax.tree.map(lambda leaf: lax.pcast(leaf, AXIS, to="varying"), params)
    gradients = jax.grad(lambda p: jnp.sum((batch @ p["w"]) ** 2) / 2)(params)
    if empty:
        gradients["none"] = jnp.zeros((0,))
    return pmean(gradients, AXIS, ring=Ring(superdense(werner(fidelity=0.95))), key=key)


def test_gradients_that_shard_map_has_summed_are_refused_with_the_remedy(ring_mesh, mapping_named):
    rng = np.random.default_rng(21)
    params = {"w": jnp.asarray(rng.normal(size=6), jnp.float32)}
    batch = jnp.asarray(rng.normal(size=(2, 3, 6)), jnp.float32)

    def step(**options):
        def per_device(params, batch, key):
            mean = gradient_step(params, batch[0], key, **options)
            return jax.tree.map(lambda leaf: leaf[None], mean)

        specs = (PartitionSpec(), PartitionSpec(AXIS), PartitionSpec())
        run = jax.shard_map(
            per_device, mesh=ring_mesh(2), in_specs=specs, out_specs=PartitionSpec(AXIS)
        )
        return jax.jit(run)(params, batch, KEY)

    with pytest.raises(ValueError, match="summed already") as refusal:
        step()
    assert "jax.lax.pcast(params, 'nodes', to='varying')" in str(refusal.value)
    assert "`x['w']`" in str(refusal.value)

    mean = step(vary=True, empty=True)  # an empty leaf is the same everywhere, and harmless

    def local(batch, params, key):
        return gradient_step(params, batch, key, empty=True)

    expected = mapping_named("pmap")(local, 2, shared=2)(batch, params, KEY)
    assert_same_bits(mean, expected)
    assert mean["none"].shape == (2, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_hides_no_peak_and_no_peak_hides_it(bad):
    """Exact, with the peak before it: reductions of XLA may forget what precedes a NaN."""
    layout = layout_of(FixedPoint(16), [1600])
    peaks = jax.jit(layout.peaks, static_argnames="finite")
    for at in range(0, 1600, 37):
        values = np.zeros((1, 1, 1600), np.float32)
        values.ravel()[[0, 1599]] = -3.0, 2.0
        values.ravel()[at] = bad
        bits = np.asarray(peaks(values, finite=True))
        assert bits.view(np.float32).tolist() == [[3.0 if at else 2.0]]
        (found,) = np.asarray(peaks(values, finite=False))[0]
        assert found >= np.float32(np.inf).view(np.int32)  # NaN or infinity, by its bits


# --- Size of the compiled program -----------------------------------------------------------------


def equations(jaxpr):
    """Every equation of a jaxpr and of the jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("noise", [further("off"), "sampled", further("gaussian")])
def test_the_program_does_not_grow_with_the_ring(noise, mapping_named):
    ring = Ring(superdense(werner(fidelity=0.9)), noise=noise)
    sizes = {}
    for num_nodes in (2, 8):
        over = mapping_named("pmap")(run_psum_report, num_nodes, shared=2)
        traced = jax.make_jaxpr(over)(jnp.zeros((num_nodes, 96)), ring, KEY)
        found = list(equations(traced.jaxpr))
        names = [equation.primitive.name for equation in found]
        assert names.count("ppermute") == 1
        loops = [
            equation
            for equation in found
            if equation.primitive.name == "scan"
            and any(
                inner.primitive.name == "ppermute"
                for inner in equations(equation.params["jaxpr"].jaxpr)
            )
        ]
        assert [loop.params["length"] for loop in loops] == [2 * (num_nodes - 1)]
        sizes[num_nodes] = len(found)
    assert sizes[2] == sizes[8]


def test_repeated_calls_trace_once():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, ring, key):
        return jax.vmap(run_psum, in_axes=(0, None, None), axis_name=AXIS)(x, ring, key)

    x = jnp.ones((2, 5))
    for seed, fidelity in ((0, 0.9), (1, 0.8), (2, 0.5)):
        ring = Ring(superdense(werner(fidelity=fidelity)), wire=FixedPoint(8))
        assert run(x, ring, jax.random.key(seed)).shape == (2, 5)
