"""Audits by recomputation, and the odds of groups: enumeration, equality of bits, coverage."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refused import check_refusal
from robust_reference import spoilt_by_enumeration

from jaxqring import Ring, psum
from jaxqring.robust import agreed, digest, recheck, spoilt_groups, steps_to_catch, subjects

AXIS = "nodes"
KEY = jax.random.key(16)


@pytest.mark.parametrize(
    "nodes, size, liars, wanted",
    [
        (12, 3, 2, {1: 0.181818182, 2: 0.818181818}),
        (24, 3, 3, {1: 0.003952569, 2: 0.249011858, 3: 0.747035573}),
        (9, 3, 5, {}),
        (8, 2, 0, {0: 1.0}),
    ],
)
def test_spoilt_groups_are_those_of_an_enumeration(nodes, size, liars, wanted):
    found = spoilt_groups(nodes, size, liars)
    np.testing.assert_allclose(found, spoilt_by_enumeration(nodes, size, liars), atol=1e-15)
    for count, probability in wanted.items():
        assert found[count] == pytest.approx(probability, abs=1e-9)


def test_check_values_of_steps_to_catch():
    catch = steps_to_catch(16, 2)
    assert catch.mean == 8
    assert catch.within == pytest.approx(34.49, abs=5e-3)
    survives = np.cumprod(np.full(4000, 1 - 2 / 16))
    assert 1 + survives.sum() == pytest.approx(8)  # sum over steps of the chance to get that far
    assert survives[33] > 0.01 > survives[34]
    assert steps_to_catch(4, 4) == (1, 1)


def test_subjects_are_all_audited_alike_and_never_by_themselves():
    drawn = np.asarray(jax.vmap(lambda key: subjects(key, 5, 2))(jax.random.split(KEY, 4000)))
    assert (drawn != np.arange(5)).all()
    counts = np.array([np.bincount(row[row >= 0], minlength=5) for row in drawn])
    assert (counts.sum(axis=1) == 2).all()
    assert counts.max() == 1
    # 4,000 draws of 2 in 5: six standard deviations of a count are 186, a chance of 2e-9.
    assert np.abs(counts.sum(axis=0) - 1600).max() < 6 * math.sqrt(4000 * 0.4 * 0.6)
    # Every ordered pair of auditor and subject: 400 times in the mean.
    pairs = [np.sum(drawn[:, a] == s) for a in range(5) for s in range(5) if a != s]
    assert np.abs(np.array(pairs) - 400).max() < 6 * math.sqrt(4000 * 0.1 * 0.9)


def test_a_digest_sees_every_bit_place_and_type():
    tree = {"a": jnp.arange(6.0), "b": jnp.arange(4, dtype=jnp.int8)}
    base = np.asarray(digest(tree, KEY))
    seen = {tuple(base)}
    words = np.asarray(tree["a"]).view(np.uint32)
    for bit in range(32):
        changed = words.copy()
        changed[2] ^= np.uint32(1 << bit)
        seen.add(tuple(np.asarray(digest({**tree, "a": changed.view(np.float32)}, KEY))))
    seen.add(tuple(np.asarray(digest({**tree, "a": tree["a"][::-1]}, KEY))))
    seen.add(tuple(np.asarray(digest({**tree, "b": tree["b"] + 1}, KEY))))
    seen.add(tuple(np.asarray(digest(tree, jax.random.key(1)))))
    assert len(seen) == 36
    zeros = digest({"a": jnp.array([0.0])}, KEY), digest({"a": jnp.array([-0.0])}, KEY)
    assert (np.asarray(zeros[0]) != np.asarray(zeros[1])).any()


def _gradient(node):
    """The gradient that a node should send: a pure function of its number, which seeds its data."""
    data = jax.random.normal(jax.random.fold_in(KEY, node), (3, 5))
    return {"w": jnp.tanh(data).sum(axis=0), "b": jnp.exp(data).mean()}


def _audited(audited, lie, key):
    node = jax.lax.axis_index(AXIS)
    own = _gradient(node)
    own["w"] = jnp.where(lie, jnp.nextafter(own["w"], jnp.inf), own["w"])  # the last bit
    return recheck(own, _gradient, AXIS, audited=audited, key=key)


def test_a_lie_in_the_last_bit_is_caught_where_it_is_audited(mapping):
    lies = jnp.array([False, True, False, True])
    run = mapping(functools.partial(_audited, 2), 4, shared=1)
    for key in jax.random.split(KEY, 4):
        found = np.asarray(run(lies, key))
        tasks = np.asarray(subjects(jax.random.split(key)[0], 4, 2))
        assert (found == [(node in tasks) and lies[node] for node in range(4)]).all()


def _summed(x):
    return psum(x, AXIS, ring=Ring(noise="off"), key=None)


def test_the_sum_of_a_ring_has_one_digest_under_every_mapping(vmap_first):
    x = jax.random.normal(KEY, (4, 9))
    here = digest(_own_sum(x), KEY)
    there = vmap_first(_summed, 4)(x)
    assert all((np.asarray(digest(row, KEY)) == here).all() for row in np.asarray(there))
    same = vmap_first(lambda x: agreed(x, AXIS, KEY), 4)
    assert np.asarray(same(there)).all()
    assert not np.asarray(same(x)).any()


@jax.jit
def _own_sum(x):
    return psum(x, None, ring=Ring(noise="off", nodes_per_device=4), key=None)[0]


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: subjects(KEY, 4, 5), ValueError, ["`audited`", "[1, 4]"]),
        (lambda: subjects(None, 4, 2), TypeError, ["`key`"]),
        (lambda: digest({"a": jnp.zeros(2) > 0}, KEY), TypeError, ["`tree['a']`", "32 bits"]),
        (lambda: steps_to_catch(4, 2, 1.0), ValueError, ["`probability`"]),
        (lambda: spoilt_groups(10, 3, 2), ValueError, ["`group_size`", "divide"]),
        (lambda: recheck({}, _gradient, "nodes", audited=2, key=KEY), ValueError, ["`axis_name`"]),
        (lambda: agreed({}, "nodes", KEY), ValueError, ["`axis_name`"]),
    ],
)
def test_refusals(call, error, words):
    check_refusal(call, error, words)
