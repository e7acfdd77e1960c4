"""Steps of compressors as per-node functions that tests share, and trees to run them on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import FixedPoint, Ring, superdense, werner
from jaxqring.compress import compressed_pmean
from jaxqring.secure import Security

AXIS = "nodes"
KEY = jax.random.key(20261126)
BARE = Security("none")


def quiet(bits=16, **options):
    """A ring without noise, with a wire of so many bits."""
    wire = FixedPoint(bits, **options.pop("wire", {}))
    return Ring(noise="off", wire=wire, **options)


def noisy(fidelity=0.95, bits=16, **options):
    return Ring(superdense(werner(fidelity=fidelity)), FixedPoint(bits), **options)


@functools.cache
def step(compressor, *, report=False):
    """(x, state, ring, key) -> (mean, state[, report]) on one node."""

    def run(x, state, ring, key):
        return compressed_pmean(
            x, state, AXIS, compressor=compressor, ring=ring, key=key, with_report=report
        )

    return run


@functools.cache
def secure_step(compressor, security=BARE):
    """(x, state, ring, source, key) -> (mean, state, report) on one node."""

    def run(x, state, ring, source, key):
        return compressed_pmean(
            x,
            state,
            AXIS,
            compressor=compressor,
            ring=ring,
            key=key,
            security=security,
            source=source,
            with_report=True,
        )

    return run


@functools.cache
def steps(compressor, *, report=False):
    """(xs, state, ring, key) -> what every step delivers, and its states, on one node.

    The leaves of `xs` have a leading axis of steps; a step draws from the key and its number.
    """
    one = step(compressor, report=report)

    def run(xs, state, ring, key):
        def body(state, given):
            x, number = given
            own = None if key is None else jax.random.fold_in(key, number)
            mean, state, *rest = one(x, state, ring, own)
            return state, (mean, state, *rest)

        count = jax.tree.leaves(xs)[0].shape[0]
        numbers = jnp.arange(count)
        # The state gets the type of a value that varies over the nodes.
        zero = sum(jnp.sum(leaf[:0]) for leaf in jax.tree.leaves(xs)) * 0
        state = jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), state)
        return jax.lax.scan(body, state, (xs, numbers))[1]

    return run


def states(compressor, x, *, steps=0):
    """The first state of every node, for arrays with a leading axis of nodes.

    Args:
      compressor: whose state.
      x: pytree (N, ...), or (N, steps, ...).
      steps: whether there is that axis.
    """
    nodes = jax.tree.leaves(x)[0].shape[0]
    lead = 2 if steps else 1
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[lead:], jnp.float32), x)
    state = compressor.init(one)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (nodes, *jnp.shape(leaf))), state)


def once(mapping, compressor, x, ring, key=None, *, report=False, state=None):
    """One step on all nodes: the mean and the state of each, and the report if there is one."""
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), x)
    nodes = jax.tree.leaves(x)[0].shape[0]
    state = states(compressor, x) if state is None else state
    return mapping(step(compressor, report=report), nodes, shared=2)(x, state, ring, key)


def many(mapping, compressor, xs, ring, key=None, *, report=False, state=None):
    """Steps in a scan: arrays (N, steps, ...)."""
    xs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), xs)
    nodes = jax.tree.leaves(xs)[0].shape[0]
    state = states(compressor, xs, steps=1) if state is None else state
    return mapping(steps(compressor, report=report), nodes, shared=2)(xs, state, ring, key)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tree(*lead, seed=0):
    """A matrix that low rank compresses, a smaller one, a kernel, a vector and a number."""
    shapes = {"a": (12, 10), "b": (3, 3), "c": (2, 2, 3, 8), "v": (7,), "x": ()}
    return {
        name: 10.0**-at * normal(*lead, *shape, seed=seed + 10 * at)
        for at, (name, shape) in enumerate(shapes.items())
    }


def same_on_all(values):
    """The value of one node, after a look at whether all nodes have the same bits."""

    def first(leaf):
        leaf = np.asarray(leaf)
        assert all(row.tobytes() == leaf[0].tobytes() for row in leaf)
        return leaf[0]

    return jax.tree.map(first, values)


def assert_same_bits(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    for a, b in pairs:
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes(), f"{np.sum(a != b)} of {a.size} differ"


def label(value):
    """A compressor by what differs from its defaults, as the name of a case."""
    if not dataclasses.is_dataclass(value):
        return None
    own = [
        f"{field.name}={getattr(value, field.name)}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    ]
    return "-".join([type(value).__name__, *own])
