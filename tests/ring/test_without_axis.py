"""Collectives of nodes that one device carries, without a mapped axis: the bits of a mapped one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from refused import check_refusal

from jaxqring import (
    FixedPoint,
    GHZSource,
    Ring,
    all_gather,
    psum,
    psum_scatter,
    secure_psum,
    superdense,
    werner,
)
from jaxqring.compress import TopK, compressed_pmean
from jaxqring.robust import agreed
from jaxqring.secure import Security

AXIS = "nodes"
KEY = jax.random.key(5)
NOISY = Ring(superdense(werner(fidelity=0.9)))
TOGETHER = dataclasses.replace(NOISY, nodes_per_device=4)
CALLS = {
    "psum": psum,
    "scatter": functools.partial(psum_scatter, scatter_dimension=1),
    "gather": all_gather,
    "secure": functools.partial(secure_psum, source=GHZSource(4), security=Security("none")),
}


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(KEY, (4, 3, 4))


def run(name, axis_name, ring):
    return jax.jit(lambda x: CALLS[name](x, axis_name, ring=ring, key=KEY, with_report=True))


def assert_same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    "name",
    [n if n == "psum" else pytest.param(n, marks=pytest.mark.matrix) for n in CALLS],
)
def test_no_axis_gives_the_bits_and_the_report_of_one(name, x):
    found, report = run(name, None, TOGETHER)(x)
    mapped = jax.vmap(lambda x: run(name, AXIS, NOISY)(x), axis_name=AXIS)
    wanted, reports = mapped(x)
    assert_same(found, wanted)
    assert_same(report, jax.tree.map(lambda leaf: leaf[0], reports))


def test_no_axis_gives_the_bits_of_one_under_scales_that_a_liar_cannot_set(x):
    ring = Ring(noise="off", wire=FixedPoint(clip="robust", liars=1))
    spoilt = x.at[2, 0, 0].set(1e30)
    found = jax.jit(
        lambda x: psum(x, None, ring=dataclasses.replace(ring, nodes_per_device=4), key=None)
    )(spoilt)
    mapped = jax.vmap(lambda x: psum(x, AXIS, ring=ring, key=None), axis_name=AXIS)
    wanted = jax.jit(mapped)(spoilt)
    assert_same(found, wanted)
    others = x.sum(axis=0).at[0, 0].set(0)
    np.testing.assert_allclose(found[0].at[0, 0].set(0), others, rtol=0, atol=1e-2)


@pytest.mark.parametrize("checked", [True, pytest.param(False, marks=pytest.mark.matrix)])
def test_every_device_of_a_mesh_has_the_same_ring(checked, x, ring_mesh):
    spread = PartitionSpec(AXIS)
    call = jax.shard_map(
        lambda x: psum(x, None, ring=TOGETHER, key=KEY),
        mesh=ring_mesh(2),
        in_specs=spread,
        out_specs=spread,
        check_vma=checked,
    )
    found = jax.jit(call)(jnp.concatenate([x, x]))
    wanted = jax.jit(lambda x: psum(x, None, ring=TOGETHER, key=KEY))(x)
    assert_same(found, jnp.concatenate([wanted, wanted]))


def test_what_needs_an_axis_refuses_none(x):
    compressor = TopK(0.5)
    state = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape)), compressor.init(x[0]))

    def compressed():
        return compressed_pmean(x, state, None, compressor=compressor, ring=TOGETHER, key=KEY)

    check_refusal(compressed, ValueError, ["`axis_name`", "bound", "None"])
    check_refusal(lambda: agreed(x, None, KEY), ValueError, ["`axis_name`", "None"])
