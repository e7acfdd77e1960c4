"""DeMo: block cosines, what each node keeps, and the mean over those that sent."""

import compress_reference as ref
import jax.numpy as jnp
import numpy as np
import pytest
from compress_calls import many, normal, quiet, same_on_all

from jaxqring.compress import DeMo
from jaxqring.compress._demo import blocks_of, cosines


def test_cosine_transforms():
    found = cosines(4) @ np.float32([1, 2, 3, 4])
    np.testing.assert_allclose(found, [5, -2.2304424974, 0, -0.1585126678], rtol=0, atol=1e-6)
    np.testing.assert_allclose(cosines(64), ref.dct_matrix(64), rtol=0, atol=1e-7)
    X = np.float32((4 * np.arange(4)[:, None] + np.arange(4)) ** 1.5)
    blocks = blocks_of((4, 4))
    D = np.asarray(blocks.transform(jnp.asarray(X[None]))).reshape(4, 4)
    wanted = [94.518630733, -70.867198511, -17.151560129]
    np.testing.assert_allclose([D[0, 0], D[1, 0], D[0, 1]], wanted, rtol=1e-6)
    energy = np.sort(D.ravel() ** 2)[::-1]
    assert energy[:3].sum() / (X**2).sum() == pytest.approx(0.9895907913, rel=1e-6)


@pytest.mark.parametrize(
    "shape, number, height, width",
    [
        ((4,), 1, 1, 4),
        ((), 1, 1, 1),
        ((67, 2), 67, 1, 2),
        ((128, 27), 2, 64, 27),
        ((7 * 7 * 32, 10), 28, 56, 10),
        ((3, 3, 16, 32), 3, 48, 32),
    ],
)
def test_blocks(shape, number, height, width):
    blocks = blocks_of(shape)
    assert (blocks.number, blocks.height, blocks.width) == (number, height, width)
    x = normal(2, *shape)
    coefficients = blocks.transform(jnp.asarray(x))
    assert coefficients.shape == (2, number, height * width)
    back = np.asarray(blocks.transform(coefficients, back=True)).reshape(x.shape)
    np.testing.assert_allclose(back, x, atol=2e-6)
    rows = np.float64(x[0]).reshape(-1, shape[-1] if shape else 1)
    wanted = ref.block_dct(rows)
    whole = [wanted[at].ravel() for at in ref.blocks(rows.shape)]
    np.testing.assert_allclose(coefficients[0], whole, atol=1e-5)


def test_one_step_of_two_nodes(vmapped):
    xs = np.float32([[[1, 2, 3, 4]], [[4, -3, 2, -1]]])
    mean, left = many(vmapped, DeMo(k=1, rate=0.1, bits=24), xs, quiet())
    np.testing.assert_array_equal(same_on_all(mean)[0], [1, -1, 1, 1])
    wanted = [[-0.15, -0.05, 0.05, 0.15], ref.demo_step(xs[:, 0], 0.0, rate=0.1, k=1)[1][1]]
    np.testing.assert_allclose(np.asarray(left)[:, 0], wanted, rtol=0, atol=1e-6)


def test_steps_are_those_of_the_reference(vmapped):
    """Some coefficients are sent by no node, some by one, some by all."""
    lead = 4, 3
    xs = {"a": normal(*lead, 66, 5), "v": normal(*lead, 7, seed=1)}
    compressor = DeMo(decay=0.9, rate=0.5, k=4, bits=24)
    mean, left = many(vmapped, compressor, xs, quiet())
    mean = same_on_all(mean)
    for name, x in xs.items():
        deltas = np.zeros_like(x[:, 0], dtype=float)
        for at in range(3):
            decoded, deltas = ref.demo_step(np.float64(x[:, at]), deltas, decay=0.9, rate=0.5, k=4)
            sure = np.abs(decoded) > 1e-5
            assert sure.mean() > 0.9
            np.testing.assert_array_equal(mean[name][at][sure], np.sign(decoded)[sure])
            np.testing.assert_allclose(np.asarray(left[name])[:, at], deltas, rtol=0, atol=5e-6)


def test_nothing_is_delivered_of_nothing(vmapped):
    xs = {"a": 0 * normal(4, 3, 66, 5), "v": 0 * normal(4, 3, 7)}
    mean, left = many(vmapped, DeMo(decay=0.9, rate=0.5, k=4, bits=24), xs, quiet())
    assert not any(np.asarray(leaf).any() for leaf in (*mean.values(), *left.values()))
