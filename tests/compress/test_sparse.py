"""TopK, DGC and RandomK: what is chosen, what is left behind, and what is lost of neither."""

import functools
import itertools

import compress_reference as ref
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compress_calls import AXIS, KEY, many, normal, quiet, same_on_all, step
from secure_calls import assert_follows

from jaxqring.compress import DGC, RandomK, TopK
from jaxqring.compress._sparse import _clipped, kept_of, largest

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
NODES, STEPS = 4, 4


def gradients(seed=0):
    """(N, steps, ...): 96 and 7 values, and one."""
    lead = NODES, STEPS
    return {
        "a": normal(*lead, 2, 6, 8, seed=seed),
        "v": 0.01 * normal(*lead, 7, seed=seed + 1),
        "x": normal(*lead, seed=seed + 2),
    }


def counts(fraction):
    return {"a": int(fraction * 96), "v": max(1, int(fraction * 7)), "x": 1}


def test_the_number_kept():
    assert [kept_of(size, 0.1) for size in (1, 9, 10, 29, 30, 1000)] == [1, 1, 1, 2, 3, 100]
    assert kept_of(100, 0.29) == 29  # 0.29 * 100 < 29 in floats
    assert kept_of(7, 1.0) == 7


def test_the_largest_and_of_equal_ones_the_first():
    x = jnp.array([1.0, -2, 2, 2, 0, -3])
    assert largest(x, 3).tolist() == [5, 1, 2]
    assert largest(0 * x, 2).tolist() == [0, 1]


# TopK


def test_three_steps_of_the_largest_value(vmapped):
    g = np.float32([[0.5, -2, 0.1, 1], [-0.4, 0.3, 1.5, 0.2]])
    xs = np.repeat(g[:, None], 3, axis=1)
    mean, errors = many(vmapped, TopK(0.25, bits=24), xs, quiet())
    mean = same_on_all(mean)
    wanted = [[0, -1, 0.75, 0], [0, -1, 0.75, 0], [0, 0, 0.75, 1.5]]
    np.testing.assert_allclose(mean, wanted, rtol=1e-6)
    left = [[1.5, -2, 0.3, 0], [-1.2, 0.9, 0, 0.6]]
    np.testing.assert_allclose(np.asarray(errors)[:, -1], left, rtol=0, atol=2e-6)


@pytest.mark.parametrize("bits", [8, further(16)])
def test_steps_are_those_of_the_reference_and_nothing_is_lost(vmapped, bits):
    xs, compressor = gradients(), TopK(0.1, bits=bits)
    mean, errors = many(vmapped, compressor, xs, quiet())
    mean = same_on_all(mean)
    for name, count in counts(0.1).items():
        left = np.zeros(np.shape(xs[name])[:1] + np.shape(xs[name])[2:])
        for at in range(STEPS):
            total = xs[name][:, at] + np.float32(left)
            step_of = ref.linear_step(ref.highest(total), bits, power_of_two=True)

            def said(sent, step_of=step_of):
                return np.rint(sent / step_of) * step_of

            delivered, left = ref.topk_step(np.float64(total), 0.0, count, value=said)
            np.testing.assert_array_equal(mean[name][at], np.float32(delivered))
            np.testing.assert_array_equal(np.asarray(errors[name])[:, at], np.float32(left))
            # To the last bit: float64 holds these sums.
            kept = np.float64(errors[name])[:, at].sum(axis=0)
            wanted = np.float64(total).sum(axis=0)
            np.testing.assert_array_equal(kept + NODES * np.float64(mean[name][at]), wanted)
        assert np.any(left)


@pytest.mark.matrix
def test_without_feedback_the_rest_is_dropped(vmapped):
    xs = gradients(seed=4)
    mean, errors = many(vmapped, TopK(0.1, bits=24, error_feedback=False), xs, quiet())
    for name, count in counts(0.1).items():
        assert not np.asarray(errors[name]).any()
        for at in range(STEPS):
            delivered, _ = ref.topk_step(np.float64(xs[name][:, at]), 0.0, count, feedback=False)
            np.testing.assert_allclose(mean[name][0, at], delivered, atol=1e-6)


# DGC


def test_two_steps_of_momentum_correction(vmapped):
    xs = np.repeat(np.float32([[[1, -0.5, 0.2], [0.3, -0.6, 0.1]]]), 2, axis=0)
    mean, (u, v) = many(vmapped, DGC(0.34, bits=24), xs, quiet())
    np.testing.assert_allclose(same_on_all(mean), [[1, 0, 0], [0, -1.55, 0]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(u)[0, -1], [0.3, 0, 0.28], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(v)[0, -1], [0.3, 0, 0.48], rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip", [2.0, further(None)])
def test_steps_are_those_of_the_reference_and_gradients_are_clipped_first(vmapped, clip):
    xs = gradients(seed=8)
    mean, (u, v) = many(vmapped, DGC(0.1, momentum=0.8, bits=24, clip=clip), xs, quiet())
    mean, names = same_on_all(mean), list(xs)
    flat = {name: np.float64(xs[name]).reshape(NODES, STEPS, -1) for name in names}
    if clip is not None:
        norms = np.sqrt(sum((leaf**2).sum(axis=2) for leaf in flat.values()))
        assert (norms > 2 * clip / np.sqrt(NODES)).any()
        factors = np.minimum(1, clip / np.sqrt(NODES) / norms)[:, :, None]
        flat = {name: leaf * factors for name, leaf in flat.items()}
    for name, count in counts(0.1).items():
        speed = memory = np.zeros_like(flat[name][:, 0])
        for at in range(STEPS):
            delivered, speed, memory = ref.dgc_step(
                flat[name][:, at], speed, memory, count, momentum=0.8
            )
            np.testing.assert_allclose(mean[name][at].ravel(), delivered, rtol=0, atol=2e-6)
            for found, wanted in ((u, speed), (v, memory)):
                own = np.asarray(found[name])[:, at].reshape(NODES, -1)
                np.testing.assert_allclose(own, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [1e-25, 0.1, 1.0, 1e25])
def test_a_norm_is_clipped_whatever_its_size(size):
    tree = {"a": jnp.array([0.0, 3 * size]), "b": jnp.float32(-4 * size)}
    found = _clipped(tree, jnp.float32(2.0))
    factor = min(1, 2 / (5 * size))
    np.testing.assert_allclose(found["a"], [0, 3 * size * factor], rtol=1e-6)
    np.testing.assert_allclose(found["b"], -4 * size * factor, rtol=1e-6)
    zero = jax.tree.map(lambda leaf: 0 * leaf, tree)
    slope = jax.grad(lambda tree: _clipped(tree, jnp.float32(2.0))["b"])(zero)
    assert (float(slope["b"]), slope["a"].tolist()) == (1, [0, 0])


@pytest.mark.matrix
def test_coarse_levels_leave_their_rounding_in_the_memory(vmapped):
    """With a momentum of zero u is the gradient, and v + delivered adds up to the last bit."""
    xs = gradients(seed=12)["a"]
    mean, (_, v) = many(vmapped, DGC(0.1, momentum=0.0, bits=4), xs, quiet())
    mean, v = np.float64(same_on_all(mean)), np.float64(v)
    before = np.concatenate([0 * v[:, :1], v[:, :-1]], axis=1)
    total = np.float64(np.float32(xs + np.float32(before)))
    np.testing.assert_array_equal(v.sum(axis=0) + NODES * mean, total.sum(axis=0))


# RandomK


def test_places_are_drawn_alike_and_each_choice_is_as_likely(vmapped):
    """2,000 keys. Delivered is unbiased over the twenty choices, as the reference enumerates."""
    x = np.float32([[1, 2, 3, 4, 5, 6], [3, -2, 1, 8, -7, 2]])
    one, choices = step(RandomK(0.5)), list(itertools.combinations(range(6), 3))

    def of_key(x, key):
        return jax.vmap(lambda own: one(own, (), quiet(24), key)[0], axis_name=AXIS)(x)

    run = jax.jit(jax.vmap(of_key, in_axes=(None, 0)))
    found = np.asarray(run(x, jax.random.split(KEY, 2000)))
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    wanted = {at: ref.random_mean(np.float64(x), np.isin(np.arange(6), at)) for at in choices}
    np.testing.assert_allclose(np.mean(list(wanted.values()), axis=0), x.mean(axis=0), rtol=1e-12)
    masks = [tuple(np.flatnonzero(row)) for row in found[:, 0]]
    # The mean of the second place is zero, so that a choice shows at all others.
    keys = {tuple(np.flatnonzero(row)): at for at, row in wanted.items()}
    assert len(keys) == len(choices) - 0 if x.mean(axis=0).all() else len(keys) > 10
    for row, mask in zip(found[:, 0], masks, strict=True):
        np.testing.assert_allclose(row, wanted[keys[mask]], rtol=1e-5)
    assert_follows([keys[mask] for mask in masks], dict.fromkeys(choices, 1 / 20))
