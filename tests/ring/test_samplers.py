"""Collectives over rings whose symbol errors are drawn by the dense sampler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import primitives

import jaxqring as jq
from jaxqring.codes import Unequal, secded
from jaxqring.gradients import _reruns as reruns
from jaxqring.ring._cost import Hops

AXIS, NODES, SIZE = "nodes", 4, 1200
KEY = jax.random.key(3)
FIDELITIES = jnp.array([0.9, 0.99, 0.8, 0.95])
LINKS = jq.superdense(jq.werner(fidelity=FIDELITIES))
RINGS = {
    "bare": jq.Ring(LINKS, sampler="dense"),
    "by the symbol sent": jq.Ring(LINKS, sampler="dense", scramble=False),
    "low symbols bare": jq.Ring(LINKS, sampler="dense", protection=Unequal(secded(72, 64), 3)),
}
X = np.random.default_rng(3).normal(size=(NODES, SIZE)).astype(np.float32)


def mean(x, ring, key):
    return jq.pmean(x, AXIS, ring=ring, key=key, with_report=True)


@pytest.mark.parametrize("name", RINGS)
def test_the_same_key_gives_the_same_bits_under_every_mapping(name, every_mapping, mapping_named):
    ring = RINGS[name]
    found, report = every_mapping(mean, NODES, shared=2)(X, ring, KEY)
    expected, _ = mapping_named("vmap")(mean, NODES, shared=2)(X, ring, KEY)
    np.testing.assert_array_equal(found, expected)
    sparse = dataclasses.replace(ring, sampler="sparse")
    other, told = mapping_named("vmap")(mean, NODES, shared=2)(X, sparse, KEY)
    assert np.any(expected != other)
    # 6 hops of 2,400 symbols over each link: as many errors, within six deviations of both.
    one, two = (np.asarray(each.errors_per_link[0], np.float64) for each in (report, told))
    assert np.all(np.abs(one - two) <= 6 * np.sqrt(one + two))
    assert one.min() > 30


def test_seeds_in_a_batch_and_nodes_on_one_device_give_the_same_bits(vmapped):
    ring = RINGS["bare"]
    keys = jax.random.split(KEY, 3)
    batch = jax.jit(jax.vmap(lambda key: vmapped(mean, NODES, shared=2)(X, ring, key)[0]))(keys)
    for key, own in zip(keys, batch, strict=True):
        np.testing.assert_array_equal(own, vmapped(mean, NODES, shared=2)(X, ring, key)[0])
    together = dataclasses.replace(ring, nodes_per_device=NODES)
    found = jax.jit(jax.vmap(lambda x: mean(x, together, keys[0])[0], axis_name=AXIS))(X[None])
    np.testing.assert_array_equal(found[0], batch[0])


@pytest.mark.parametrize("scramble", [True, False])
def test_no_program_of_a_dense_ring_holds_a_while_loop_a_scatter_or_a_logarithm(
    scramble, ring_mesh
):
    """One node on a device; what puts the chunks of several together is not of the sampler."""
    spec = jax.sharding.PartitionSpec(AXIS)

    def names(sampler):
        ring = jq.Ring(LINKS, sampler=sampler, scramble=scramble)
        call = jax.shard_map(
            lambda x: jq.pmean(x, AXIS, ring=ring, key=KEY),
            mesh=ring_mesh(NODES),
            in_specs=spec,
            out_specs=spec,
        )
        return primitives(jax.make_jaxpr(call)(X).jaxpr)

    forbidden = {"while", "log", "log1p"}
    found = names("dense")
    assert "scan" in found  # of the hops
    assert not {name for name in found if name in forbidden or "scatter" in name}
    assert forbidden - {"log1p"} <= names("sparse")


def test_coupled_dense_rings_share_their_errors(vmapped):
    """Exact: rings of equal links give the same bits, and one without noise none of them."""

    def ring_of(fidelity):
        return jq.Ring(jq.superdense(jq.werner(fidelity=fidelity)), sampler="dense")

    send = vmapped(mean, NODES, shared=2)
    low, same, high = jq.gradients.couple(*(ring_of(f) for f in (0.9, 0.9, 1.0)))
    first, (second, told) = send(X, low, KEY)[0], send(X, same, KEY)
    np.testing.assert_array_equal(first, second)
    assert np.all(np.asarray(told.errors_per_link[0]) > 500)
    assert not np.any(send(X, high, KEY)[1].errors_per_link[0])


def test_the_errors_that_an_estimator_counts_are_those_that_a_dense_ring_draws(vmapped):
    """Exact; it draws the calls of the loss again, as the ring's sampler draws them."""
    hops = Hops(NODES, 2 * (NODES - 1), SIZE // NODES, 16)
    ring = RINGS["bare"]
    runs = reruns.Runs(None, ring, KEY, 1, 1, (hops,), False, None)
    ciphers = runs.ciphers(KEY[None])
    counts = jax.jit(reruns._counts_of_errors(runs))(ciphers)
    _, report = vmapped(mean, NODES, shared=2)(X, runs.watched(ciphers), KEY)
    np.testing.assert_array_equal(counts.sum(axis=1), report.errors_per_link[0])


def test_another_sampler_is_refused():
    with pytest.raises(ValueError, match=r"`sampler` must be one of .*'dense'"):
        jq.Ring(LINKS, sampler="fast")


def test_the_sampler_is_static():
    ring = RINGS["bare"]
    assert len(jax.tree.leaves(ring)) == len(jax.tree.leaves(jq.Ring(LINKS)))
    assert jax.tree.structure(ring) != jax.tree.structure(jq.Ring(LINKS))
    assert jq.Ring(LINKS).sampler == "auto"
