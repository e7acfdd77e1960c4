"""No silent derivative: sampled noise has none unless the ring says what it follows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxqring import (
    FixedPoint,
    Float32,
    Retransmit,
    Ring,
    expected,
    pmean,
    psum,
    reed_solomon,
    superdense,
    werner,
)
from jaxqring.gradients import finite_difference

AXIS = "nodes"
KEY = jax.random.key(25)
VALUES = jnp.asarray(np.random.default_rng(5).normal(size=(4, 6)), jnp.float32)


def ring_of(fidelity, **options):
    return Ring(superdense(werner(fidelity=fidelity)), FixedPoint(16), **options)


def squares(ring, keys):
    """A loss that noise reaches through its variance: the distance to the exact sum."""

    def add(x):
        return psum(x, AXIS, ring=ring, key=keys[0])

    return jnp.mean((jax.vmap(add, axis_name=AXIS)(VALUES) - VALUES.sum(axis=0)) ** 2)


def loss(fidelity, **options):
    return squares(ring_of(fidelity, **options), KEY[None])


@pytest.mark.parametrize("options", [{}, {"protection": Retransmit(reed_solomon(255, 223))}])
@pytest.mark.parametrize("differentiate", [jax.grad, jax.jacfwd, lambda f: jax.jit(jax.grad(f))])
def test_a_sampled_ring_refuses_a_derivative_with_respect_to_noise(differentiate, options):
    message = (
        "^`ring.derivative` must say what a derivative with respect to sampled noise follows, but"
        r' got None: use `jaxqring.expected`, or `Ring\(derivative="mean"\)`'
    )
    with pytest.raises(ValueError, match=message):
        differentiate(lambda fidelity: loss(fidelity, **options))(0.99)


def test_what_the_ring_says_is_followed():
    """Against differences with common random numbers, 2,000 pairs: the mean misses the variance."""
    width, samples = 2e-3, 2000
    low, high = ring_of(0.99 - width / 2), ring_of(0.99 + width / 2)
    found = np.asarray(finite_difference(squares, low, high, width, KEY, samples=samples))
    slope, bar = found.mean(), found.std() / np.sqrt(samples)
    assert slope + 6 * bar < 0  # more fidelity, less error
    asked = jax.grad(lambda f: loss(f, derivative="mean"))(0.99)
    assert abs(asked) < abs(slope) - 6 * bar

    def estimate(fidelity):
        return expected(squares, ring_of(fidelity), KEY, samples=500)

    default = jax.jit(jax.grad(estimate))(0.99)
    # Biased by a few per cent at this error, see the module of the estimators; spread of its own.
    assert abs(default - slope) < 0.2 * abs(slope) + 6 * bar


@pytest.mark.parametrize("derivative", ["mean", "exact"])
def test_a_ring_that_says_so_differentiates(derivative):
    def small(fidelity):
        ring = Ring(
            superdense(werner(fidelity=fidelity)), FixedPoint(8, clip=4.0), derivative=derivative
        )
        return squares(ring, KEY[None])

    assert np.isfinite(jax.grad(small)(0.99))


def test_normal_noise_is_differentiated_unasked():
    """Its variates have a derivative, and it is the one that is meant."""
    assert jax.grad(lambda f: loss(f, noise="gaussian"))(0.99) < 0


def test_derivatives_with_respect_to_data_need_no_word():
    """Through jit, scan, checkpoint and cond, with the ring as an argument and as a constant."""

    def train(weights, ring):
        @jax.checkpoint
        def step(weights, key):
            def node(w, x):
                return w - 0.1 * pmean(w - x, AXIS, ring=ring, key=key)

            moved = jax.vmap(node, in_axes=(None, 0), axis_name=AXIS)(weights, VALUES)
            return lax.cond(jnp.sum(weights) < 1e9, lambda: moved[0], lambda: weights), None

        return jnp.sum(lax.scan(step, weights, jax.random.split(KEY, 3))[0])

    for outer in (lambda f: f, jax.jit):
        slopes = outer(jax.grad(train))(jnp.zeros(6), ring_of(0.99))
        np.testing.assert_array_less(0.5, slopes)
        np.testing.assert_array_less(slopes, 1.0)


def test_the_default_estimator_is_that_of_normal_noise():
    """The loss is handed a ring of that noise, whether it is named or not."""
    seen = []

    def loss(ring, keys):
        seen.append(ring.noise)
        return jnp.sum(ring.transition) * 0 + jnp.float32(1)

    for options in ({}, {"estimator": "gaussian"}, {"estimator": "mean"}):
        expected(loss, ring_of(0.99), KEY, **options)
    assert seen == ["gaussian", "gaussian", "sampled"]


@pytest.mark.parametrize(
    "ring",
    [
        ring_of(0.99, protection=Retransmit(reed_solomon(255, 223))),
        Ring(superdense(werner(fidelity=0.99)), Float32()),
    ],
    ids=["protected", "float"],
)
def test_where_normal_noise_does_not_apply_the_estimator_must_be_named(ring):
    with pytest.raises(ValueError, match=r"^`estimator` must be named on protected links and"):
        expected(squares, ring, KEY)
