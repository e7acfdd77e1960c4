"""NoLoCo: published values, partners by key, by neighbour and by table, and what a round costs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from outer_cases import EVERY, NODES, RATE, START, noloco, trained
from refused import check_refusal

from jaxqring import FixedPoint, Ring, outer

AXIS = "nodes"
INNER = optax.sgd(RATE)
SCHEDULE = np.array([[1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
STARTS = START + 0.5 * np.arange(NODES)[:, None] * np.array([1.0, -1.0])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_it_has_the_published_values(x64, vmapped):
    loop = outer.noloco(INNER, AXIS, every=EVERY, pairs=SCHEDULE)
    _, state, replica = trained(loop, vmapped, 3 * EVERY, STARTS)
    np.testing.assert_allclose(state.slow[0], (1.575266695, 0.440344306), atol=1e-9)
    np.testing.assert_allclose(state.slow[3], (1.509790265, 0.630625906), atol=1e-9)
    mean = np.asarray(state.slow).mean(axis=0)
    np.testing.assert_allclose(mean, (1.184207230, 1.123765106), atol=1e-9)
    np.testing.assert_allclose(replica, np.tile(mean, (NODES, 1)), atol=1e-6)
    np.testing.assert_allclose(state.slow, noloco(STARTS, SCHEDULE), atol=1e-12)


def test_neighbours_take_turns(x64, vmapped):
    loop = outer.noloco(INNER, AXIS, every=EVERY, pairs="neighbours")
    _, state, _ = trained(loop, vmapped, 3 * EVERY, STARTS)
    turns = [[1, 0, 3, 2], [3, 2, 1, 0], [1, 0, 3, 2]]
    np.testing.assert_allclose(state.slow, noloco(STARTS, turns), atol=1e-12)


def test_every_mapping_passes_the_same_partners(every_mapping):
    average = outer.in_pairs(AXIS)

    def node(x, keys):
        return jax.lax.map(lambda key: average.mean(x, jnp.int32(0), key)[0], keys)

    keys = jax.random.split(jax.random.key(5), 40)
    found = np.asarray(every_mapping(node, NODES, shared=1)(2.0 ** np.arange(NODES), keys))
    # Each mean of two powers says who they were: a pairing, of all pairings one.
    seen = set()
    for means in found.T:
        pairs = [frozenset(np.flatnonzero(means == mean).tolist()) for mean in set(means)]
        assert sorted(map(len, pairs)) == [2, 2]
        assert all(means[min(p)] == (2.0 ** np.array([*p])).sum() / 2 for p in pairs)
        seen.add(frozenset(pairs))
    # Chance that one of 3 pairings is not among 40 uniform ones: 3 (2/3)^40 < 3e-7.
    assert len(seen) == 3
    orders = np.stack([np.asarray(jax.random.permutation(key, NODES)) for key in keys])
    for means, order in zip(found.T, orders, strict=True):
        for a, b in ((order[0], order[2]), (order[1], order[3])):
            assert means[a] == means[b] == (2.0**a + 2.0**b) / 2


def test_a_consensus_that_drives_nodes_apart_is_warned_of():
    loop = outer.noloco(INNER, AXIS, every=1, consensus=2.0, key=jax.random.key(0))
    params = jnp.zeros((NODES, 1))
    state = jax.vmap(loop.init)(params)
    with pytest.warns(UserWarning, match=r"4 nodes .* grow for a consensus of 1\.8"):
        jax.eval_shape(
            jax.vmap(lambda p, s: loop.update(p, s, p, step=0), axis_name=AXIS), params, state
        )


def test_a_round_has_the_published_costs_and_those_of_counted_hops():
    size, nodes, bits = 10**6, 8, 16
    for pattern, wanted in (
        ("all_reduce", 28_000_000),
        ("random", 128_000_000),
        ("neighbours", 32_000_000),
        ("all_gather", 112_000_000),
        ("butterfly", 70_000_000),
    ):
        assert outer.pair_cost(size, nodes, bits, pattern) == wanted
    ring = Ring(noise="off", wire=FixedPoint(bits))
    assert ring.cost(size, nodes).bits == 28_000_000
    assert ring.cost(size, nodes, collective="all_gather").bits == 112_000_000
    # Hops of all ordered pairs of different nodes.
    apart = [(b - a) % nodes for a, b in itertools.permutations(range(nodes), 2)]
    assert np.mean(apart) == 4
    shorter = np.mean([min(d, nodes - d) for d in apart])
    assert abs(shorter - 2.285714) < 1e-6
    sent = 2 * size * bits * nodes  # by all nodes
    assert outer.pair_cost(size, nodes, bits) == sent * np.mean(apart) / nodes
    found = outer.pair_cost(size, nodes, bits, "shortest")
    np.testing.assert_allclose(found, sent * shorter / (2 * nodes))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: outer.in_pairs(AXIS, "all"), ["`pairs`", "'all'"]),
        (lambda: outer.in_pairs(AXIS, [[0, 1]]), ["`pairs`", "another"]),
        (lambda: outer.in_pairs(AXIS, [[1, 2, 0, 3]]), ["`pairs`", "another"]),
        (lambda: outer.in_pairs(AXIS, [[1, 4]]), ["`pairs`", "[0, N)"]),
        (lambda: outer.in_pairs(AXIS, [1, 0]), ["`pairs`", "(T, N)"]),
        (lambda: outer.noloco(INNER, AXIS, every=1, consensus=0.0), ["`consensus`", "0.0"]),
        (lambda: outer.pair_cost(4, 3, 16), ["`num_nodes`", "even", "3"]),
        (lambda: outer.pair_cost(4, 4, 16, "tree"), ["`pattern`", "'tree'"]),
    ],
)
def test_what_cannot_be_paired_is_refused(call, words):
    check_refusal(call, ValueError, words)


def test_an_odd_number_of_nodes_and_a_missing_key_are_refused():
    mean = jax.vmap(lambda x: outer.in_pairs(AXIS, "neighbours").mean(x, 0, None), axis_name=AXIS)
    check_refusal(lambda: mean(np.ones(3)), ValueError, ["`axis_name`", "even", "3"])
    table = jax.vmap(lambda x: outer.in_pairs(AXIS, [[1, 0]]).mean(x, 0, None), axis_name=AXIS)
    check_refusal(lambda: table(np.ones(4)), ValueError, ["`pairs`", "4", "(1, 2)"])
    check_refusal(lambda: outer.noloco(INNER, AXIS, every=1), TypeError, ["`key`", "None"])
