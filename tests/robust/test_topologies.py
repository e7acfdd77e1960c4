"""Robust means over a ring: NumPy, the same bits under every mapping, masks, damage and bounds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from refused import check_refusal
from robust_reference import centred_clipping

from jaxqring import (
    FixedPoint,
    Float32,
    GHZSource,
    Retransmit,
    Ring,
    pmean,
    reed_solomon,
    superdense,
    werner,
)
from jaxqring.robust import (
    GAS,
    CentredClipping,
    Krum,
    Mean,
    Median,
    TrimmedMean,
    agreed,
    relayed,
    robust_cost,
    robust_pmean,
)
from jaxqring.secure import Security

AXIS = "nodes"
KEY = jax.random.key(2011)
QUIET = Ring(noise="off")
NOISY = Ring(superdense(werner(fidelity=0.9)))
CLIPPING = CentredClipping(20.0, 300)
SECURITY = Security()


@functools.cache
def tree():
    """Ten numbers for each of six nodes in two leaves, one of them a thousand times as large."""
    rng = np.random.default_rng(5)
    return {
        "b": jnp.asarray(1000 * rng.normal(1, 0.2, (6, 3)), jnp.float32),
        "w": jnp.asarray(rng.normal(1, 0.2, (6, 7)), jnp.float32),
    }


def flat(x):
    return np.concatenate([np.asarray(leaf, float) for leaf in x.values()], axis=1)


@functools.cache
def mean_of(rule, topology, group_size, security=None):
    """A mean as a per-node function, one for each set of options, so that tests share programs."""

    def run(x, ring, key, source):
        return robust_pmean(
            x,
            AXIS,
            rule=rule,
            topology=topology,
            ring=ring,
            key=key,
            secure=None if security is None else (source, security),
            group_size=group_size,
        )

    return run


@functools.cache
def compiled(rule, topology, group_size, security):
    """On one device that carries all six nodes, without a mapping; with a report."""

    def run(x, ring, key, start, source):
        own = dataclasses.replace(ring, nodes_per_device=6)
        secure = None if security is None else (source, security)
        options = {"rule": rule, "topology": topology, "ring": own, "key": key, "start": start}
        return robust_pmean(
            x, None, secure=secure, group_size=group_size, with_report=True, **options
        )

    return jax.jit(run)


def on_one_device(rule, topology, x=None, ring=QUIET, key=KEY, start=None, source=None, size=2):
    security = None if source is None else SECURITY
    x = tree() if x is None else x
    return compiled(rule, topology, size, security)(x, ring, key, start, source)


@jax.jit
def plain(x):
    return pmean(x, None, ring=dataclasses.replace(QUIET, nodes_per_device=6), key=None)


def assert_near(found, wanted):
    """Compares, but for the roundings of levels of 16 bits, twice, in each leaf by its size."""
    for name, first, last in (("b", 0, 3), ("w", 3, 10)):
        bound = 2.0**-13 * np.abs(tree()[name]).max()
        np.testing.assert_allclose(found[name][0], wanted[first:last], rtol=0, atol=bound)


def assert_same_bits(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def dealt(size=2):
    """The groups of a call with this key, whose first part of five deals."""
    order = jax.random.permutation(jax.random.split(KEY, 5)[0], 6)
    return np.sort(np.asarray(order).reshape(-1, size), axis=1)


# --- The numbers ----------------------------------------------------------------------------------


def test_gathering_applies_the_rule_to_all_vectors():
    found, report = on_one_device(Median(), "gather")
    assert_near(found, np.median(flat(tree()), axis=0))
    assert float(report.replica_agreement) == 1
    assert int(report.unusable) == 0
    assert float(report.clipped) == pytest.approx(4 / 6)


def test_groups_apply_the_rule_to_their_means():
    found, report = on_one_device(Median(), "groups")
    assert_near(found, np.median(flat(tree())[dealt()].mean(axis=1), axis=0))
    assert report.groups.errors_per_link.shape == (3, 2)
    assert float(report.clipped) == pytest.approx(2 / 3)
    other, _ = on_one_device(Median(), "groups", key=jax.random.key(1))
    assert (other["w"] != found["w"]).any()  # dealt anew


def parts(x):
    """(6, 6, 2): the parts of a vector of ten numbers and two zeros, by node that has them."""
    return np.pad(x, ((0, 0), (0, 2))).reshape(-1, 6, 2).swapaxes(0, 1)


def test_the_butterfly_clips_part_by_part_and_its_projections_add_up_to_zero():
    found, report = on_one_device(CLIPPING, "butterfly")
    wanted = [centred_clipping(v, 20.0, 300, np.median(v, axis=0)) for v in parts(flat(tree()))]
    # The second half of a butterfly has one scale for all leaves of a part.
    difference = np.concatenate(wanted)[:10] - flat(jax.tree.map(lambda leaf: leaf[:1], found))[0]
    assert np.abs(difference).max() < 0.1
    assert np.abs(difference[4:]).max() < 1e-3
    assert np.abs(report.residual).max() < 1
    # One iteration from the median is not yet there, and shows.
    start = jax.tree.map(jnp.zeros_like, tree())
    early = CentredClipping(20.0, 1, "last")
    found, report = on_one_device(early, "butterfly", start=start)
    assert np.abs(report.residual).max() > 10
    wanted = [centred_clipping(v, 20.0, 1, (0, 0)) for v in parts(flat(tree()))]
    found = flat(jax.tree.map(lambda leaf: leaf[:1], found))[0]
    assert np.abs(np.concatenate(wanted)[:10] - found).max() < 2e-3


def test_groups_bear_a_liar_inside_by_a_robust_scale_and_one_outside_by_the_rule():
    ring = dataclasses.replace(QUIET, wire=FixedPoint(clip="robust", liars=1))
    spoilt = tree() | {"w": tree()["w"].at[5, 0].set(1e30)}
    found = np.asarray(on_one_device(Mean(), "groups", spoilt, ring=ring, size=3)[0]["w"][0])
    np.testing.assert_allclose(found[1:], np.asarray(spoilt["w"]).mean(axis=0)[1:], atol=2e-3)
    lost = np.asarray(on_one_device(Mean(), "groups", spoilt, size=3)[0]["w"][0])
    half = np.asarray(spoilt["w"])[dealt(3)].mean(axis=1)[~(dealt(3) == 5).any(axis=1)]
    np.testing.assert_allclose(lost[1:], half[0, 1:] / 2, atol=2e-3)  # all of its group is lost


@pytest.mark.matrix
def test_a_start_is_where_clipping_begins():
    start = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), tree())
    found, _ = on_one_device(CentredClipping(0.1, 1, "last"), "gather", start=start)
    assert_near(found, centred_clipping(flat(tree()), 0.1, 1, np.full(10, 0.5)))


# --- Bits -----------------------------------------------------------------------------------------


def assert_mapped_alike(mapping, rule, topology, ring):
    found = mapping(mean_of(rule, topology, 2), 6, shared=3)(tree(), ring, KEY, None)
    assert_same_bits(found, on_one_device(rule, topology, ring=ring)[0])


def test_groups_have_the_same_bits_under_every_mapping(mapping):
    assert_mapped_alike(mapping, Median(), "groups", QUIET)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "topology, rule", [("gather", GAS(Median(), 2, 1)), ("butterfly", CLIPPING)]
)
def test_other_ways_have_the_same_bits_under_every_mapping(topology, rule, every_mapping):
    assert_mapped_alike(every_mapping, rule, topology, QUIET)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "topology, rule",
    [("groups", Median()), ("gather", GAS(Median(), 2, 1)), ("butterfly", CLIPPING)],
)
def test_all_ways_have_the_same_bits_over_noisy_links(topology, rule, every_mapping):
    assert_mapped_alike(every_mapping, rule, topology, NOISY)


@pytest.mark.matrix
def test_three_nodes_on_each_of_two_devices(every_mapping):
    x = jax.tree.map(lambda leaf: leaf.reshape(2, 3, -1), tree())
    ring = dataclasses.replace(NOISY, nodes_per_device=3)
    for topology, rule in (("groups", Median()), ("butterfly", CLIPPING)):
        found = every_mapping(mean_of(rule, topology, 2), 2, shared=3)(x, ring, KEY, None)
        assert_same_bits(found, on_one_device(rule, topology, ring=NOISY)[0])


def test_masks_do_not_change_the_means_of_groups():
    plain_one, _ = on_one_device(Mean(), "groups", size=3)
    masked, report = on_one_device(Mean(), "groups", source=GHZSource(3), size=3)
    assert_same_bits(masked, plain_one)
    assert not np.asarray(report.groups.aborted).any()
    assert (np.asarray(report.groups.copies) > 0).all()
    assert "groups given up" in repr(report)
    assert "replicas agree 1" in repr(report)


def test_a_group_that_is_given_up_counts_as_zero():
    found, report = on_one_device(Mean(), "groups", source=GHZSource(3, white=1.0), size=3)
    assert np.asarray(report.groups.aborted).all()
    assert int(report.unusable) == 2
    assert all((np.asarray(leaf) == 0).all() for leaf in found.values())


@pytest.mark.parametrize("checked", [True, pytest.param(False, marks=[pytest.mark.matrix])])
def test_rings_beside_each_other_share_no_errors_in_their_groups(checked):
    # Nor masks, which have the same keys.
    mesh = jax.make_mesh((2, 1), ("beside", AXIS), axis_types=(AxisType.Auto,) * 2)
    spread = PartitionSpec(("beside", AXIS))

    def run(x):
        ring = dataclasses.replace(NOISY, nodes_per_device=6)
        options = {"rule": Median(), "ring": ring, "key": KEY, "group_size": 2}
        return robust_pmean(x, AXIS, **options, with_report=True)[1].groups.errors_per_link

    mapped = jax.shard_map(run, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=checked)
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), tree())
    first, second = np.asarray(jax.jit(mapped)(twice)).reshape(2, 3, 2)
    assert first.sum() > 0
    assert (first != second).any()


@pytest.mark.matrix
def test_masks_do_not_change_them_under_any_mapping(every_mapping):
    run = mean_of(Mean(), "groups", 3, SECURITY)
    found = every_mapping(run, 6, shared=3)(tree(), QUIET, KEY, GHZSource(3))
    assert_same_bits(found, on_one_device(Mean(), "groups", size=3)[0])


def test_protected_links_deliver_what_quiet_ones_do():
    ring = dataclasses.replace(NOISY, protection=Retransmit(reed_solomon(15, 9, symbol_bits=4)))
    found, report = on_one_device(Median(), "gather", ring=ring)
    assert int(report.ring.undelivered) == 0
    assert int(report.ring.retransmissions) > 0
    assert_same_bits(found, on_one_device(Median(), "gather")[0])


@pytest.mark.parametrize("topology", ["gather", pytest.param("groups", marks=[pytest.mark.matrix])])
def test_bare_links_err_and_the_report_says_so(topology):
    found, report = on_one_device(Median(), topology, ring=NOISY)
    assert float(report.replica_agreement) < 1
    assert int(report.ring.symbol_errors) > 0
    if topology == "groups":
        assert np.asarray(report.groups.errors_per_link).sum() > 0
    assert all(np.isfinite(leaf).all() for leaf in found.values())
    assert int(report.garbled) == 0


@pytest.mark.matrix
def test_vectors_that_links_have_made_unusable_are_counted():
    ring = dataclasses.replace(NOISY, wire=Float32())
    found, report = on_one_device(Median(), "gather", ring=ring)
    assert 0 < int(report.garbled) <= 36
    assert all(np.isfinite(leaf).all() for leaf in found.values())


# --- Damage and bounds ----------------------------------------------------------------------------


def test_a_liar_sets_the_mean_of_a_ring_and_is_bounded_by_a_rule():
    x = tree()
    honest = np.asarray(x["w"][:5], float)
    target = np.full(7, -0.3)
    lie = 6 * target - honest.sum(axis=0)  # who adds last knows the sum of the others
    spoilt = x | {"w": x["w"].at[5].set(lie)}
    np.testing.assert_allclose(plain(spoilt)["w"][0], target, atol=1e-3)
    found = np.asarray(on_one_device(Median(), "gather", spoilt)[0]["w"][0])
    assert (found >= honest.min(axis=0) - 1e-3).all()
    assert (found <= honest.max(axis=0) + 1e-3).all()


@pytest.mark.parametrize("size", [1e30, np.nan, np.inf, 3e38])
def test_one_number_of_one_node_costs_a_ring_all_others_and_a_robust_mean_nothing(size):
    spoilt = tree() | {"w": tree()["w"].at[5, 0].set(size)}
    lost = np.asarray(plain(spoilt)["w"][0])
    assert np.isnan(lost).all() or (lost[1:] == 0).all()
    is_unusable = not abs(size) < 2.0**120
    vectors = flat(spoilt)
    if is_unusable:
        vectors[5] = 0
    found, report = on_one_device(Median(), "gather", spoilt)
    if is_unusable:
        assert_near(found, np.median(vectors, axis=0))
    else:  # the liar's own small numbers are lost in its leaf, and no other's
        vectors[5, 4:] = 0
        assert_near(found, np.median(vectors, axis=0))
    assert int(report.unusable) == is_unusable
    # A liar spoils the mean of its group, and the median of three groups stands.
    found, report = on_one_device(Median(), "groups", spoilt)
    means = vectors[dealt()].mean(axis=1)
    if not is_unusable:
        means[np.any(dealt() == 5, axis=1), 4:] = 0
    assert_near(found, np.median(means, axis=0))
    assert int(report.unusable) == is_unusable


def _held(table, liars):
    own = Median()(relayed(table, jax.lax.axis_index(AXIS), liars)).value
    return own, agreed(own, AXIS, KEY)


def test_equivocation_is_seen_in_the_digests(mapping):
    values = tree()["w"]
    tables = jnp.broadcast_to(values, (6, *values.shape))
    for liar, same in ((-1, True), (1, False)):
        own, seen = mapping(_held, 6, shared=1)(tables, jnp.arange(6) == liar)
        assert (np.asarray(seen) == same).all()
        assert (np.asarray(own) == np.asarray(own)[:1]).all() == same


def test_relays_alter_what_passes_them():
    table = np.eye(5, dtype=np.float32) + 1
    for node in range(5):
        found = np.asarray(relayed(table, node, [1, 3], 2.0))
        for source in range(5):
            passed = {(source + hop) % 5 for hop in range(1, (node - source) % 5)}
            np.testing.assert_array_equal(found[source], table[source] * 2 ** len(passed & {1, 3}))


# --- Derivatives, costs, refusals -----------------------------------------------------------------


@pytest.mark.parametrize("topology", ["gather", pytest.param("groups", marks=[pytest.mark.matrix])])
def test_derivatives_pass_through_a_mean(topology):
    ring = dataclasses.replace(QUIET, nodes_per_device=6)

    @jax.jit
    @jax.grad
    def slope(x):
        mean = robust_pmean(x, None, rule=Mean(), topology=topology, ring=ring, key=KEY)
        return jnp.sum(mean["w"][0] * jnp.arange(7.0))

    found = slope(tree())
    np.testing.assert_allclose(found["w"], np.tile(np.arange(7.0) / 6, (6, 1)), rtol=1e-5)
    assert (np.asarray(found["b"]) == 0).all()


def test_check_values_of_costs():
    wire = Ring(noise="off", wire=FixedPoint(16))
    gather = robust_cost(wire, 10**6, 8, topology="gather")
    butterfly = robust_cost(wire, 10**6, 8, topology="butterfly")
    assert (gather.bits, butterfly.bits) == (112_000_000, 70_000_000)
    assert gather.qubits == gather.pairs == 56_000_000
    assert gather.control_bits == 7 * 8
    assert wire.cost(10**6, 8).bits == 28_000_000
    groups = robust_cost(wire, 10**6, 12, topology="groups")
    chunk = -(-(10**6) // 3)
    assert groups.bits == 2 * 2 * chunk * 16 + 11 * chunk * 16
    shared = robust_cost(wire, 10**6, 12, links="ring")
    assert shared.bits == 4 * 2 * 2 * chunk * 16 + 11 * chunk * 16
    fixed = Ring(noise="off", wire=FixedPoint(16, clip=1.0))  # one bit says that all is finite
    assert robust_cost(fixed, 10**6, 8, topology="gather").control_bits == 2 * 7
    assert robust_cost(fixed, 10**6, 8, topology="butterfly").control_bits == 2 * 2 * 7
    voted = Ring(noise="off", wire=FixedPoint(16, clip="robust", liars=1))
    assert robust_cost(voted, 10**6, 8, topology="gather") == gather
    assert robust_cost(voted, 10**6, 12).control_bits == 2 * 8 + 4 * 8
    x = {"a": np.zeros((5, 7)), "b": np.zeros(3)}
    assert robust_cost(Ring(noise="off", wire=Float32()), x, 4, topology="gather").control_bits == 0
    assert robust_cost(wire, x, 4, topology="gather").control_bits == 3 * 2 * 8


def test_what_a_report_counts_is_what_the_cost_says():
    _, report = on_one_device(Median(), "groups")
    both = report.groups.symbols_per_link + report.ring.symbols_per_link
    assert robust_cost(QUIET, 10, 6, group_size=2).bits == 2 * both
    _, report = on_one_device(Median(), "gather")
    cost = robust_cost(QUIET, 10, 6, topology="gather")
    assert cost.bits == 2 * report.ring.symbols_per_link
    _, report = on_one_device(CLIPPING, "butterfly")
    # The first half counts twice, as an `all_gather`: 5 x 10 numbers of 16 bits, not 2 x 15 halves.
    assert 2 * report.ring.symbols_per_link == 16 * (5 * 10 + 5 * 2)
    assert robust_cost(QUIET, 10, 6, topology="butterfly").bits == 16 * (2 * 15 + 5 * 2)


def refused(x=None, axis=None, ring=QUIET, **options):
    ring = dataclasses.replace(ring, nodes_per_device=6)
    x = tree() if x is None else x
    return robust_pmean(x, axis, ring=ring, **({"rule": Median(), "key": KEY} | options))


SECURE = (GHZSource(3), SECURITY)
LINKS = Ring(superdense(werner(fidelity=jnp.full((6,), 0.9))))


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"group_size": 4}, ValueError, ["`group_size`", "divide", "6", "4"]),
        ({"group_size": 1}, ValueError, ["`group_size`", "[2, 6]"]),
        ({"group_size": 2, "secure": SECURE}, ValueError, ["`group_size`", "[3, 6]"]),
        ({"secure": SECURE, "topology": "gather"}, ValueError, ["`secure`", "groups"]),
        ({"secure": GHZSource(3)}, TypeError, ["`secure`", "pair"]),
        ({"secure": (GHZSource(6), Security())}, ValueError, ["`source`", "3 parties"]),
        ({"rule": TrimmedMean(1)}, ValueError, ["`liars`", "2 vectors"]),
        ({"rule": Krum(4), "topology": "gather"}, ValueError, ["`liars`", "at most 3"]),
        ({"rule": Median(), "topology": "butterfly"}, TypeError, ["`rule`", "CentredClipping"]),
        ({"rule": jnp.mean}, TypeError, ["`rule`", "Rule"]),
        ({"topology": "star"}, ValueError, ["`topology`", "'star'"]),
        ({"key": None}, TypeError, ["`key`"]),
        ({"ring": LINKS}, ValueError, ["`ring.channel`", "one channel"]),
        ({"axis": "elsewhere"}, ValueError, ["`axis_name`", "bound"]),
        ({"x": {"w": jnp.zeros((5, 2))}}, ValueError, ["`x['w']`", "leading axis"]),
        ({"x": {"w": jnp.zeros((6, 2), int)}}, TypeError, ["`x['w']`", "floating"]),
        ({"start": {"w": jnp.zeros((6, 2))}}, ValueError, ["`start`", "like `x`"]),
        ({"with_report": 1.5}, ValueError, ["`with_report`"]),
    ],
)
def test_refusals_come_before_tracing(options, error, words):
    check_refusal(lambda: refused(**options), error, words)


def test_a_gradient_that_has_been_summed_already_is_refused(ring_mesh):
    def run(w):
        return robust_pmean(w, AXIS, rule=Median(), topology="gather", ring=QUIET, key=None)

    none = PartitionSpec()
    call = jax.shard_map(run, mesh=ring_mesh(4), in_specs=none, out_specs=PartitionSpec(AXIS))
    check_refusal(lambda: call(jnp.ones(4)), ValueError, ["`x`", "vary over"])
