"""Derivatives of compressed means: of the data, of the links, and those that are refused."""

import functools

import compress_reference as ref
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compress_calls import AXIS, KEY, normal, quiet, states, step

from jaxqring import FixedPoint, Ring, superdense, werner
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
)

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def name(compressor):
    return f"{type(compressor).__name__}-{compressor.reduce}"


@functools.cache
def data_gradient(compressor):
    """The gradient with respect to the own data, of the weighted sums of all nodes together."""

    def run(x, state, weights, ring, key):
        def weighted(x):
            mean, _ = step(compressor)(x, state, ring, key)
            return jnp.sum(weights * mean)

        return jax.grad(weighted)(x)

    return run


def slopes(mapping, compressor, x, weights, ring, key=None):
    nodes = x.shape[0]
    run = mapping(data_gradient(compressor), nodes, shared=3)
    weights = np.broadcast_to(weights, x.shape)
    return np.asarray(run(x, states(compressor, x), weights[0], ring, key))


def test_low_rank_has_the_derivative_of_the_unrounded_map(vmapped):
    """Against central differences of the reference in float64, of all values of both nodes."""
    x, weights = normal(2, 4, 3), normal(4, 3, seed=1)
    compressor = PowerSGD()
    found = slopes(vmapped, compressor, x, weights, quiet(32))
    factor = np.float64(states(compressor, x).factors[0][0])

    def loss(values):
        # Both nodes hold the same delivered matrix, and both losses count.
        delivered, _, _ = ref.powersgd_step(values, 0.0, factor)
        return 2 * np.sum(weights * delivered)

    exact, width = np.float64(x), 1e-5
    wanted = np.zeros_like(exact)
    for at in np.ndindex(x.shape):
        up, down = exact.copy(), exact.copy()
        up[at] += width
        down[at] -= width
        wanted[at] = (loss(up) - loss(down)) / (2 * width)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert np.abs(wanted).max() > 0.1
    # The same program: a gradient of zero has a derivative, and a finite one.
    nothing = slopes(vmapped, compressor, 0 * x, weights, quiet(32))
    assert np.isfinite(nothing).all()


SMOOTH = [
    further(LQSGD()),
    further(LQSGD(reduce="hop")),
    further(LQSGD(reduce="sum")),
    TernGrad(None),
    further(QSGD(norm="max")),
]


@pytest.mark.parametrize("compressor", SMOOTH, ids=name)
def test_codes_of_vectors_have_the_derivative_of_a_mean(vmapped, compressor):
    """The largest values, whose codes are at the end of the scale, like all others."""
    x, weights = normal(3, 6), normal(6, seed=1)
    x[:, 2] = 5
    found = slopes(vmapped, compressor, x, weights, quiet(), KEY)
    np.testing.assert_allclose(found, np.broadcast_to(weights, (3, 6)), rtol=1e-5)


@pytest.mark.parametrize("compressor", [TopK(0.5), further(DGC(0.5))], ids=name)
def test_values_that_are_kept_have_a_derivative_and_others_none(vmapped, compressor):
    x, weights = normal(3, 6), normal(6, seed=1)
    found = slopes(vmapped, compressor, x, weights, quiet())
    kept = np.array([ref.top_mask(own, 3) for own in x])
    np.testing.assert_allclose(found, np.where(kept, weights, 0), rtol=1e-5)


@pytest.mark.matrix
def test_values_at_drawn_places_have_the_derivative_of_their_multiple(vmapped):
    x, weights = normal(3, 6), normal(6, seed=1)
    found = slopes(vmapped, RandomK(0.5), x, weights, quiet(), KEY)
    assert (np.count_nonzero(found, axis=1) == 3).all()
    np.testing.assert_allclose(found, np.where(found != 0, 2 * weights, 0), rtol=1e-5)


@pytest.mark.parametrize("compressor", [SignVote(), SignVote(0.5), DeMo(k=2)], ids=name)
def test_signs_refuse_the_derivative_of_data(vmapped, compressor):
    with pytest.raises(ValueError, match="`x` must not be differentiated through signs"):
        slopes(vmapped, compressor, normal(3, 6), normal(6), quiet())


# Links


def link_slope(compressor, **options):
    """The derivative of what all nodes are delivered with respect to the fidelity of links."""
    x = normal(3, 4, 3)
    state, weights = states(compressor, x), normal(4, 3, seed=1)

    def delivered(fidelity):
        ring = Ring(superdense(werner(fidelity=fidelity)), FixedPoint(12), **options)
        run = jax.vmap(lambda x, state: step(compressor)(x, state, ring, KEY), axis_name=AXIS)
        return jnp.sum(weights * run(x, state)[0])

    return jax.grad(delivered)(jnp.float32(0.97))


def traced(compressor, **options):
    """As `link_slope`, which refuses before anything is compiled."""
    return jax.eval_shape(lambda: link_slope(compressor, **options))


FOLLOWED = [{"derivative": "mean"}, {"noise": "gaussian"}]


@pytest.mark.parametrize(
    "compressor, options",
    [
        further(PowerSGD(), FOLLOWED[0]),
        further(PowerSGD(), FOLLOWED[1]),
        (TernGrad(), FOLLOWED[0]),
        further(TernGrad(), FOLLOWED[1]),
        further(LQSGD(), FOLLOWED[0]),
        further(LQSGD(), FOLLOWED[1]),
        further(QSGD(), FOLLOWED[0]),
        further(RandomK(0.5), FOLLOWED[0]),
    ],
)
def test_the_noise_of_links_has_a_derivative(compressor, options):
    found = jax.jit(lambda: link_slope(compressor, **options))()
    assert np.isfinite(found)
    assert abs(found) > 1e-3


@pytest.mark.parametrize("options", FOLLOWED, ids=["mean", "gaussian"])
@pytest.mark.parametrize("compressor", [TopK(0.5), DGC(0.5), DeMo(k=2)], ids=name)
def test_places_refuse_the_derivative_of_links(compressor, options):
    with pytest.raises(ValueError, match=r"`compressor` must send no places|through signs"):
        traced(compressor, **options)


@pytest.mark.parametrize("options", FOLLOWED, ids=["mean", "gaussian"])
def test_votes_refuse_the_derivative_of_links(options):
    with pytest.raises(ValueError, match="`x` must not be differentiated through signs"):
        traced(SignVote(), **options)


def test_sampled_noise_refuses_a_derivative_unless_it_is_asked_for():
    with pytest.raises(ValueError, match="derivative"):
        traced(PowerSGD())


@pytest.mark.matrix
def test_every_mapping_differentiates_alike(mapping):
    x, weights = normal(2, 4, 3), normal(4, 3, seed=1)
    found = slopes(mapping, PowerSGD(), x, weights, quiet(32))
    factor = np.float64(states(PowerSGD(), x).factors[0][0])
    step_in = 1e-5 * normal(2, 4, 3, seed=2)

    def loss(values):
        return 2 * np.sum(weights * ref.powersgd_step(values, 0.0, factor)[0])

    moved = (loss(np.float64(x) + step_in) - loss(np.float64(x) - step_in)) / 2
    np.testing.assert_allclose(np.sum(found * step_in), moved, rtol=1e-3)
