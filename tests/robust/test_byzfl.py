"""Rules and lies against ByzFL, where it is installed; no extra of ours has it, nor its PyTorch.

Its Krum counts one neighbour more than the paper, and is no judge of ours.
"""

import jax
import numpy as np
import pytest
from robust_reference import X

from jaxqring.robust import (
    CentredClipping,
    InnerProduct,
    LittleIsEnough,
    Median,
    NearestNeighbourMixing,
    TrimmedMean,
)

pytestmark = pytest.mark.matrix
WIDE = np.random.default_rng(8).normal(1, 0.5, (9, 40)) * np.array([1] * 7 + [-9, 50])[:, None]


@pytest.fixture(scope="module")
def byzfl():
    return pytest.importorskip("byzfl", exc_type=ImportError)


@pytest.mark.parametrize("x", [X, WIDE], ids=["check values", "wide"])
def test_rules_and_lies_are_those_of_byzfl(x, byzfl):
    clip, honest, liars = byzfl.CenteredClipping, x[:-2], [len(x) - 2, len(x) - 1]
    mean = honest.mean(axis=0)
    with jax.enable_x64(True):
        pairs = [
            (CentredClipping(1.0, 20, "last")(x).value, clip(m=None, L=20, tau=1.0)(x)),
            (TrimmedMean(2)(x).value, byzfl.TrMean(f=2)(x)),
            (Median()(x).value, byzfl.Median()(x)),
            (
                NearestNeighbourMixing(Median(), 2)(x).value,
                byzfl.Median()(byzfl.NNM(f=2)(x)),
            ),
            (InnerProduct(2.0)(x, liars)[0][-1], byzfl.InnerProductManipulation(tau=2.0)(honest)),
            # Theirs lies on the other side of the mean.
            (
                LittleIsEnough(1.5)(x, liars)[0][-1],
                2 * mean - byzfl.ALittleIsEnough(tau=1.5)(honest),
            ),
        ]
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
