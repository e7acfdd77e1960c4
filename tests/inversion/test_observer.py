"""The messages of a node, as they are observed, against the formulas of each method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring import Ring
from jaxqring.compress import (
    DGC,
    LQSGD,
    QSGD,
    DeMo,
    Logarithmic,
    PowerSGD,
    RandomK,
    SignVote,
    TernGrad,
    TopK,
    compressed_pmean,
)
from jaxqring.inversion import can_be_masked, image_in_factor, observe, seen, ssim, victim
from jaxqring.inversion._observer import Sent
from jaxqring.train._datasets import DataConfig, load

KEY = jax.random.key(7)
METHODS = {
    "none": None,
    "powersgd": PowerSGD(rank=2),
    "lqsgd": LQSGD(rank=1),
    "lqsgd_hop": LQSGD(rank=1, reduce="hop"),
    "topk": TopK(0.1),
    "randomk": RandomK(0.1),
    "dgc": DGC(0.1),
    "terngrad": TernGrad(),
    "qsgd": QSGD(7),
    "signvote": SignVote(),
    "demo": DeMo(k=3),
}


def gradient(seed=0):
    draw = np.random.default_rng(seed).normal
    return {"b": jnp.float32(draw(size=8)), "w": jnp.float32(draw(size=(24, 8)))}


def close(found, wanted, tolerance):
    """Up to a part of the largest value, as linear levels have it."""
    wanted = np.asarray(wanted, float)
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


def test_powersgd_sends_two_factors_and_what_is_no_matrix():
    here, other = gradient(), gradient(1)
    step = observe(PowerSGD(rank=2), here, KEY)
    vector, left, right = (sent.values for sent in step.sent)
    first = np.asarray(PowerSGD(rank=2).init(here).factors[0], float)
    close(vector, here["b"], 1e-4)
    close(left, here["w"] @ first, 1e-4)
    # Of the columns that were received, orthonormal: Q^T Q is that of any such basis.
    basis, _ = np.linalg.qr(np.asarray(left, float))
    thin = np.asarray(here["w"], float).T @ basis
    close(right @ right.T, thin @ thin.T, 2e-3)
    close(step.delivered["w"], basis @ basis.T @ here["w"], 1e-3)
    others = step.message_map(other)
    close(others[0], other["b"], 1e-6)
    close(others[1], other["w"] @ first, 1e-5)
    thin = np.asarray(other["w"], float).T @ basis
    close(others[2] @ others[2].T, thin @ thin.T, 2e-3)


@pytest.mark.parametrize("reduce", ["gather", "hop", "sum"])
def test_codes_of_lqsgd_stand_as_the_values_that_they_decode_to(reduce):
    here, code = gradient(), Logarithmic(8)
    method = LQSGD(rank=1, reduce=reduce)
    step = observe(method, here, KEY)
    product = here["w"] @ method.init(here).factors[0]
    peak = jnp.max(jnp.abs(product))
    close(step.sent[1].values, code.decode(code.encode(product, peak), peak), 2e-3)
    close(step.message_map(here)[1], product, 1e-5)


def test_topk_shows_the_places_that_were_sent_and_those_of_another_gradient_do_not_matter():
    here, other = gradient(), gradient(1)
    step = observe(TopK(0.1), here, KEY)
    for name, sent, mapped in zip(("b", "w"), step.sent, step.message_map(other), strict=True):
        flat = np.asarray(here[name]).ravel()
        places = np.argsort(-np.abs(flat), kind="stable")[: max(1, int(0.1 * flat.size))]
        unit = flat[places] @ np.asarray(sent.values) / (flat[places] @ flat[places])
        close(sent.values, unit * flat[places], 1e-3)
        close(mapped, unit * np.asarray(other[name]).ravel()[places], 1e-3)


def test_votes_have_a_smooth_step_in_the_place_of_signs():
    here = gradient()
    step = observe(SignVote(), here, KEY)
    np.testing.assert_array_equal(step.sent[1].values, np.sign(here["w"]))
    size = np.sqrt(np.mean(np.asarray(here["w"]) ** 2))
    close(step.message_map(here)[1], np.tanh(np.asarray(here["w"]) / size), 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_message_is_near_the_map_of_its_own_gradient(name):
    here, method = gradient(), METHODS[name]
    step = observe(method, here, KEY)
    assert jax.tree.map(jnp.shape, step.delivered) == jax.tree.map(jnp.shape, here)
    sent = np.concatenate([np.ravel(each.values) for each in step.sent])
    mapped = np.concatenate([np.ravel(each) for each in step.message_map(here)])
    cosine = sent @ mapped / np.sqrt((sent @ sent) * (mapped @ mapped))
    rounded = {"terngrad": 0.5, "qsgd": 0.6, "signvote": 0.8}
    assert cosine > rounded.get(name, 0.999)
    for each in step.sent:
        codes = np.asarray(each.codes)
        np.testing.assert_array_equal(codes, np.round(codes))
        assert np.abs(codes).max() <= 2 ** (int(each.bits) - 1)


def test_what_is_delivered_is_what_the_collective_delivers_to_one_node():
    here, method = gradient(), PowerSGD(rank=2)

    def call(x, state):
        ring = Ring(noise="off")
        return compressed_pmean(x, state, "nodes", compressor=method, ring=ring, key=KEY)

    lead = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)  # noqa: E731
    mean, _ = jax.vmap(call, axis_name="nodes")(lead(here), lead(method.init(here)))
    found = observe(method, here, KEY).delivered
    for name, value in mean.items():
        close(found[name], value[0], 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_neighbours_see_what_the_node_sent_bit_for_bit(name):
    step = observe(METHODS[name], gradient(), KEY)
    adaptive, neighbours = (seen(who, step, KEY) for who in ("adaptive", "neighbours"))
    for a, b in zip(adaptive, neighbours, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masked_codes_are_uniform():
    codes = jnp.zeros(32_000)
    sent = Sent(codes, jnp.float32(1), jnp.int32(16))
    step = observe(None, jnp.ones(3), KEY)._replace(sent=[sent])
    (masked,) = seen("masked", step, KEY)
    assert masked.min() >= -(2**15)
    assert masked.max() < 2**15
    counts, _ = np.histogram(masked, bins=16, range=(-(2**15), 2**15))
    # Chi-square of 15 degrees of freedom, above 60 with a chance of 2e-7.
    assert np.sum((counts - 2000) ** 2 / 2000) < 60
    assert can_be_masked(None)


def test_an_unknown_adversary_is_refused():
    with pytest.raises(ValueError, match="`adversary`"):
        seen("curious", observe(None, jnp.ones(3), KEY), KEY)


@pytest.mark.parametrize(
    "method, least",
    [(PowerSGD(rank=1), 0.9999), (LQSGD(rank=1), 0.999), (LQSGD(rank=1, bits=4), 0.97)],
    ids=["powersgd", "lqsgd8", "lqsgd4"],
)
def test_the_factor_of_a_first_dense_layer_is_the_image(method, least):
    data = load(DataConfig("digits"))
    images, labels = jnp.asarray(data.test_images[:8]), jnp.asarray(data.test_labels[:8])
    made = victim("mlp", (8, 8, 1), 10, jax.random.key(0))

    def read_off(image, label):
        return image_in_factor(observe(method, made.gradient(image, label), KEY), (8, 8, 1))

    found = jax.jit(jax.vmap(read_off))(images, labels)
    # The brightest pixel of a digit may be below one, and the reconstruction is brighter by that.
    peaks = images.max(axis=(1, 2, 3), keepdims=True)
    assert float(ssim(found * peaks, images).min()) > least


def test_a_step_without_a_number_for_each_pixel_is_refused():
    with pytest.raises(ValueError, match=r"`step` must have a message of shape \(64, 1\)"):
        image_in_factor(observe(PowerSGD(rank=1), gradient(), KEY), (8, 8, 1))
