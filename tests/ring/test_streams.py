"""One key, two calls: the same call draws the same errors, another one draws others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring import (
    FixedPoint,
    GHZSource,
    Retransmit,
    Ring,
    all_gather,
    pmean,
    psum,
    psum_scatter,
    reed_solomon,
    secure_psum,
    superdense,
    werner,
)
from jaxqring.secure import Security

AXIS = "nodes"
NODES = 4
SIZE = 512
KEY = jax.random.key(12)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
# Every symbol is wrong in every second case, so that streams show at once what they are.
LINKS = superdense(werner(fidelity=0.5))
WIRE = FixedPoint(16, clip=1000.0)
RINGS = {
    "bare": Ring(LINKS, WIRE),
    "gaussian": Ring(LINKS, WIRE, noise="gaussian"),
    "rounding": Ring(noise="off", wire=FixedPoint(4, clip=1.0, rounding="stochastic")),
    "protected": Ring(LINKS, WIRE, protection=Retransmit(reed_solomon(15, 9, symbol_bits=4), 2)),
}


def calls():
    """Calls that differ in kind, size, structure or type, each on (SIZE,) values of a node."""

    def named(function, *args, **kwargs):
        return lambda x, ring: function(x, *args, ring=ring, key=KEY, **kwargs)

    add = functools.partial(psum, axis_name=AXIS, key=KEY)
    secure = functools.partial(secure_psum, source=GHZSource(NODES), security=Security())
    return {
        "sum": lambda x, ring: add(x, ring=ring),
        "of a dict": lambda x, ring: add({"a": x}, ring=ring)["a"],
        "of two": lambda x, ring: jnp.concatenate(add([x[:100], x[100:]], ring=ring)),
        "of others": lambda x, ring: add({"b": x}, ring=ring)["b"],
        "longer": lambda x, ring: add(jnp.append(x, 0), ring=ring)[:SIZE],
        "narrow": lambda x, ring: add(x.astype(jnp.bfloat16), ring=ring).astype(jnp.float32),
        "gather": lambda x, ring: all_gather(x, AXIS, ring=ring, key=KEY)[0],
        "scatter": lambda x, ring: psum_scatter(
            jnp.tile(x, NODES), AXIS, ring=ring, key=KEY, tiled=True
        ),
        "secure": lambda x, ring: secure(x, AXIS, ring=ring, key=KEY),
        "named": named(psum, AXIS),
    }


def errors(call, ring):
    """(NODES, SIZE) what a call makes of zeros; the values it puts in are all 0."""
    half = jnp.full((NODES, SIZE), 0.25 if ring is RINGS["rounding"] else 0.0)
    return np.asarray(jax.jit(jax.vmap(lambda x: call(x, ring), axis_name=AXIS))(half))


@pytest.mark.matrix
@pytest.mark.parametrize(
    "name", ["bare", further("gaussian"), further("rounding"), further("protected")]
)
def test_calls_that_differ_draw_independently_from_one_key(name):
    """Of 512 values most are hit in both of two calls; the same ones alike if streams are shared.

    Independent errors are equal for at most some hundred of them (both right, or both rounded the
    same way with probability 5/8 in each of the four terms); shared ones for all.
    """
    ring, seen = RINGS[name], {}
    for kind, call in calls().items():
        if kind == "secure" and name in ("gaussian", "rounding"):
            continue  # refused, or masked
        seen[kind] = errors(call, ring)
    np.testing.assert_array_equal(seen.pop("named"), seen["sum"])  # an equal call draws equally
    names = list(seen)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            same = np.mean(seen[first] == seen[second])
            assert same < 0.9, (first, second, same)


def test_psum_and_pmean_share_a_stream_and_shapes_do_not_matter():
    """The mean is the sum divided; and under some mappings a leaf has axes of length one."""
    ring = RINGS["bare"]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(NODES, SIZE)), jnp.float32)

    def run(x):
        flat = psum(x, AXIS, ring=ring, key=KEY)
        folded = psum(x.reshape(1, -1, 2), AXIS, ring=ring, key=KEY).reshape(-1)
        return flat, folded, pmean(x, AXIS, ring=ring, key=KEY) * NODES

    flat, folded, mean = jax.jit(jax.vmap(run, axis_name=AXIS))(x)
    np.testing.assert_array_equal(flat, folded)
    np.testing.assert_array_equal(flat, mean)


def test_gradients_and_statistics_with_one_key_have_errors_of_their_own():
    """The step of many a model: `pmean` of gradients and of batch statistics with one key."""
    ring = Ring(superdense(werner(fidelity=0.9)), WIRE)

    def step(x):
        gradients = pmean({"w": x, "b": x[:8]}, AXIS, ring=ring, key=KEY)
        statistics = pmean({"mean": x, "var": x[:8]}, AXIS, ring=ring, key=KEY)
        return gradients["w"] != 0, statistics["mean"] != 0

    first, second = jax.jit(jax.vmap(step, axis_name=AXIS))(jnp.zeros((NODES, SIZE)))
    first, second = np.asarray(first), np.asarray(second)
    # A level is hit with probability p in each; in both with p^2, to 6 standard deviations.
    p = (first.mean() + second.mean()) / 2
    assert 0.3 < p < 0.999
    both = (first & second).mean()
    # Nodes see the same errors of the first half, so that only values count as independent.
    deviation = np.sqrt(p**2 * (1 - p**2) / SIZE)
    assert abs(both - p**2) < 6 * deviation
