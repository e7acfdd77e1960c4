"""The same key gives the same bits under every mapping, and with several nodes on a device."""

import functools
import itertools

import jax
import numpy as np
import pytest
from compress_calls import (
    KEY,
    assert_same_bits,
    noisy,
    normal,
    quiet,
    states,
    step,
)

from jaxqring import Ring
from jaxqring.compress import (
    DGC,
    LQSGD,
    QSGD,
    DeMo,
    PowerSGD,
    RandomK,
    SignVote,
    TernGrad,
    TopK,
    Uncompressed,
)

MAPPINGS = ("pmap", "shard_map_checked", "shard_map_unchecked")
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
NODES = 4
COMPRESSORS = {
    "uncompressed": Uncompressed(8),
    "power": PowerSGD(),
    "power2": PowerSGD(rank=2, bits=8, share_factors=True),
    "cold": PowerSGD(warm_start=False),
    "gather": LQSGD(),
    "hop": LQSGD(reduce="hop"),
    "sum": LQSGD(reduce="sum"),
    "topk": TopK(0.1),
    "dgc": DGC(0.1, clip=1.0),
    "randomk": RandomK(0.2),
    "terngrad": TernGrad(),
    "qsgd": QSGD(),
    "vote": SignVote(0.9),
    "demo": DeMo(k=4),
}
RINGS = {"off": quiet(), "sampled": noisy()}


def gradients():
    return {
        "a": normal(NODES, 13, 11),
        "v": 0.01 * normal(NODES, 7, seed=1),
        "x": normal(NODES, seed=2),
    }


def some_state(compressor, x):
    """A state as it is after some steps: nothing in it is zero, and factors are the same."""
    state = states(compressor, x)

    def filled(leaf):
        if np.asarray(leaf).any():
            return leaf
        return 0.1 * normal(*leaf.shape, seed=leaf.size)

    return jax.tree.map(filled, state)


@functools.cache
def by_vmap(mapping_named, name, noise):
    compressor, x = COMPRESSORS[name], gradients()
    run = mapping_named("vmap")(step(compressor, report=True), NODES, shared=2)
    return run(x, some_state(compressor, x), RINGS[noise], KEY)


DEFAULT = {("power", "off", "pmap"), ("vote", "sampled", "shard_map_checked")}
CASES = [
    case if case in DEFAULT else further(*case)
    for case in itertools.product(COMPRESSORS, RINGS, MAPPINGS)
]


@pytest.mark.parametrize("name, noise, other", CASES)
def test_every_mapping_gives_the_same_bits(mapping_named, name, noise, other):
    compressor, x = COMPRESSORS[name], gradients()
    run = mapping_named(other)(step(compressor, report=True), NODES, shared=2)
    found = run(x, some_state(compressor, x), RINGS[noise], KEY)
    wanted = by_vmap(mapping_named, name, noise)
    assert_same_bits(found, wanted)
    report = wanted[2]
    if noise == "off":
        assert report.replica_agreement[0] == 1
    else:
        assert report.symbol_errors[0] > 0
        assert report.replica_agreement[0] < 1


@pytest.mark.parametrize(
    "name, noise",
    [
        case if case == ("power", "off") else further(*case)
        for case in itertools.product(COMPRESSORS, RINGS)
    ],
)
def test_two_nodes_on_a_device_are_two_nodes(mapping_named, name, noise):
    compressor, x = COMPRESSORS[name], gradients()
    ring = RINGS[noise]
    wide = Ring(ring.channel, ring.wire, ring.noise, nodes_per_device=2)
    both = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(2, 2, *leaf.shape[1:]),
        (x, some_state(compressor, x)),
    )
    mean, state, report = mapping_named("vmap")(step(compressor, report=True), 2, shared=2)(
        *both, wide, KEY
    )
    apart = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(NODES, *leaf.shape[2:]), (mean, state)
    )
    wanted = by_vmap(mapping_named, name, noise)
    assert_same_bits(apart, wanted[:2])
    assert_same_bits(
        jax.tree.map(lambda leaf: leaf[0], report), jax.tree.map(lambda leaf: leaf[0], wanted[2])
    )
