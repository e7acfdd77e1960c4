"""The attack: its cost against numpy, its similarity against scikit-image, its victims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from jaxqring.compress import PowerSGD, TopK
from jaxqring.inversion import (
    Attacker,
    AttackSettings,
    cosine_distance,
    invert,
    ssim,
    total_variation,
    victim,
)
from jaxqring.inversion import _victims as victims
from jaxqring.train._datasets import DataConfig, load
from jaxqring.train._objective import cross_entropy

SIDE = np.arange(28)
RAMP = ((SIDE[:, None] + SIDE) / 54).astype(np.float32)
CHECKS = ((SIDE[:, None] // 4 + SIDE // 4) % 2).astype(np.float32)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_total_variation_is_the_sum_of_two_means():
    image = random(7, 5, 1)
    down, across = np.abs(np.diff(image, axis=0)), np.abs(np.diff(image, axis=1))
    assert float(total_variation(jnp.asarray(image))) == pytest.approx(
        down.mean() + across.mean(), rel=1e-6
    )


def test_the_cosine_is_one_over_all_tensors_together():
    a, b = ({"w": random(4, 3, seed=seed), "b": 100 * random(3, seed=seed + 2)} for seed in (0, 1))
    x, y = (np.concatenate([t["w"].ravel(), t["b"]]).astype(float) for t in (a, b))
    cosine = x @ y / np.sqrt((x @ x) * (y @ y))
    assert float(cosine_distance(a, b)) == pytest.approx(1 - cosine, abs=1e-6)
    assert float(cosine_distance(a, jax.tree.map(lambda t: 1e-6 * t, a))) < 1e-6


def test_a_gradient_of_zero_has_a_distance_of_one_and_a_derivative():
    zero = jnp.zeros(3)
    assert float(cosine_distance(zero, jnp.ones(3))) == 1
    assert np.isfinite(jax.grad(cosine_distance)(zero, jnp.ones(3))).all()


@pytest.mark.parametrize(
    "a, b, known",
    [
        (RAMP, RAMP + np.float32(0.1), 0.979716),
        (RAMP, 1 - RAMP, -0.478243),
        (CHECKS, np.roll(CHECKS, 1, axis=1), 0.485166),
        (CHECKS, np.float32(0.9) * CHECKS + np.float32(0.05), 0.994123),
    ],
    ids=["brighter", "inverted", "moved", "paler"],
)
def test_the_similarity_is_that_of_scikit_image_in_the_gaussian_convention(a, b, known):
    judge = structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        full=True,
    )[1][5:-5, 5:-5].mean()
    found = float(ssim(jnp.asarray(a)[None, ..., None], jnp.asarray(b)[None, ..., None])[0])
    assert found == pytest.approx(judge, abs=2e-5)
    assert found == pytest.approx(known, abs=2e-5)


def test_images_smaller_than_the_window_take_one_that_fits():
    image = jnp.asarray(np.abs(random(2, 8, 8, 1)) % 1)
    np.testing.assert_allclose(ssim(image, image), 1, atol=1e-5)
    assert float(ssim(image, 1 - image)[0]) < 0.5


def test_the_search_ends_in_the_box_with_the_least_of_its_costs():
    target = jnp.sign(jnp.asarray(random(4, 4, 1)))
    settings = AttackSettings(steps=60, restarts=3, tv=0.0)
    found = invert(lambda x: x - 0.5, target, (4, 4, 1), settings, jax.random.key(0))
    assert found.image.min() >= 0
    assert found.image.max() <= 1
    assert found.costs.shape == (3,)
    assert found.cost == found.costs.min() < 0.05
    # The cost without total variation is the distance of the image itself.
    assert float(cosine_distance(found.image - 0.5, target)) == pytest.approx(
        float(found.cost), abs=1e-6
    )


def test_total_variation_makes_images_smooth():
    target = jnp.asarray(random(6, 6, 1))
    rough, smooth = (
        invert(lambda x: x, target, (6, 6, 1), AttackSettings(40, 1, tv), jax.random.key(0)).image
        for tv in (0.0, 3.0)
    )
    assert total_variation(smooth) < total_variation(rough) / 3


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"steps": 0}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"tv": -1.0}, "tv"),
        ({"rate": 0.0}, "rate"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        AttackSettings(**settings)


@pytest.mark.parametrize("name, size", [("smooth", 8026), ("cnn", 6346), ("mlp", 4810)])
def test_the_gradient_of_a_victim_is_that_of_its_network(name, size):
    """Convolutions as products of patches, beside those of Flax."""
    shape = (8, 8, 1)
    made = victim(name, shape, 10, jax.random.key(1))
    kind = victims.Smooth if name == "smooth" else victims.MODELS[name]
    image = jnp.asarray(np.abs(random(*shape)) % 1)

    def loss(params):
        scores = kind(num_classes=10).apply({"params": params}, image[None])
        return cross_entropy(scores, jnp.array([3]))

    wanted, found = jax.grad(loss)(made.params), made.gradient(image, jnp.array(3))
    assert jax.tree.structure(wanted) == jax.tree.structure(found)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, atol=2e-6)
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == size


def test_the_weights_of_the_smooth_victim_are_uniform():
    params = victim("smooth", (28, 28, 1), 10, jax.random.key(0)).params
    weights = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    assert weights.size == 13426
    assert np.abs(weights).max() < 0.5
    # Standard error of the variance of a uniform law on [-1/2, 1/2): below 0.0007.
    assert weights.var() == pytest.approx(1 / 12, abs=0.004)


def test_an_unknown_victim_is_refused():
    with pytest.raises(ValueError, match="`name`"):
        victim("vgg", (8, 8, 1), 10, jax.random.key(0))


def test_a_short_attack_beats_noise_and_masks_bring_it_back():
    data = load(DataConfig("digits"))
    images, labels = jnp.asarray(data.test_images[:3]), jnp.asarray(data.test_labels[:3])
    made = victim("mlp", (8, 8, 1), 10, jax.random.key(0))
    attacker = Attacker(made, AttackSettings(steps=60, restarts=2))
    noise = jax.random.uniform(jax.random.key(9), images.shape)
    key = jax.random.key(1)
    found = {
        adversary: attacker.attack(PowerSGD(rank=1), adversary, images, labels, key)
        for adversary in ("adaptive", "neighbours", "masked")
    }
    similar = {name: float(ssim(each.image, images).mean()) for name, each in found.items()}
    of_noise = float(ssim(noise, images).mean())
    assert similar["adaptive"] > 0.8 > 0.3 > similar["masked"]
    assert similar["adaptive"] > of_noise + 0.5
    np.testing.assert_array_equal(found["neighbours"].image, found["adaptive"].image)
    assert float(found["adaptive"].cost.max()) < 0.05 < float(found["masked"].cost.min())


def test_codes_that_do_not_add_up_cannot_be_masked():
    made = victim("mlp", (8, 8, 1), 10, jax.random.key(0))
    attacker = Attacker(made, AttackSettings(steps=1, restarts=1))
    given = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1, jnp.int32), jax.random.key(0)
    with pytest.raises(ValueError, match="`compressor` must be one of sums"):
        attacker.attack(TopK(0.1), "masked", *given)
