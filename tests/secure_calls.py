"""Secure sums and plain ones as per-node functions that tests share, and how they are compared."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

from jaxqring import (
    FixedPoint,
    GHZSource,
    Ring,
    dephasing,
    depolarizing,
    psum,
    secure_psum,
    superdense,
    werner,
)
from jaxqring.secure import Security

AXIS = "nodes"
KEY = jax.random.key(20260624)
BARE = Security("none")


def quiet(bits=16, **options):
    return Ring(noise="off", wire=FixedPoint(bits), **options)


def noisy(fidelity, bits=16, **options):
    return Ring(superdense(werner(fidelity=fidelity)), FixedPoint(bits), **options)


def dephased(nodes, error_prob):
    """Copies that pass every Z test, with wrong sums."""
    return GHZSource(nodes, noise=dephasing(error_prob=error_prob))


def depolarized_by(mix):
    return GHZSource(3, noise=depolarizing(mix=mix))


# One function for each set of static options, so that tests share programs.


def secure(call=secure_psum, security=Security(), **options):  # noqa: B008
    return secure_with(call, security, **options)


@functools.cache
def secure_with(call, security, **options):
    def run(x, ring, source, dropout, key):
        return call(
            x,
            AXIS,
            ring=ring,
            source=source,
            security=security,
            key=key,
            dropout=dropout,
            with_report=True,
            **options,
        )

    return run


@functools.cache
def plain(call=psum):
    def run(x, ring, key):
        return call(x, AXIS, ring=ring, key=key, with_report=True)

    return run


def first(report):
    """The report of one node, after a look at whether all nodes have the same."""
    for leaf in jax.tree.leaves(report):
        assert (np.asarray(leaf) == np.asarray(leaf)[:1]).all()
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], report)


def assert_same_bits(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def payload(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tree(*lead):
    """17 values a node, which no ring here divides."""
    return {
        "w": payload(*lead, 2, 5),
        "b": (payload(*lead, 3, seed=1).astype(jnp.bfloat16), payload(*lead, seed=2)),
        "none": jnp.zeros((*lead, 0)),
        "rest": payload(*lead, 3, seed=3),
    }


def levels_of(total, x, bits):
    """Sums as integers, by the scale that the ring agrees on."""
    scale = FixedPoint(bits).scale_of(jnp.max(jnp.abs(x)), x.shape[0])
    return np.rint(np.asarray(total, np.float64) / float(scale)).astype(np.int64)


def over_keys(run, nodes, count, *shared):
    """Runs a per-node function once for each of `count` keys: (count, N, ...)."""
    x = jnp.concatenate([jnp.eye(nodes), payload(nodes, 3)], axis=1)
    return x, every_key(run)(x, *shared, jax.random.split(KEY, count))


@functools.cache
def every_key(run):
    each = jax.vmap(run, in_axes=(0, None, None, None, None), axis_name=AXIS)
    return jax.jit(jax.vmap(each, in_axes=(None, None, None, None, 0)))


def assert_follows(outcomes, law):
    """Chi-square of outcomes, rare ones taken together, to fail by chance one time in 1e7."""
    count = len(outcomes)
    assert set(outcomes) <= set(law)
    assert abs(sum(law.values()) - 1) < 1e-6
    common = [kind for kind in law if count * law[kind] > 10]
    seen = np.array([outcomes.count(kind) for kind in common])
    mean = np.array([count * law[kind] for kind in common])
    rest = count - mean.sum()
    if rest > 10:
        seen, mean = np.append(seen, count - seen.sum()), np.append(mean, rest)
    else:
        assert count - seen.sum() < rest + 8 * math.sqrt(rest) + 12
    assert len(common) > 2
    assert np.sum((seen - mean) ** 2 / mean) < chi2.isf(1e-7, len(seen) - 1)
