"""ByzFL as a judge of rules and attacks, where it is installed; it brings torch."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring.robust import (
    CentredClipping,
    InnerProduct,
    LittleIsEnough,
    Median,
    NearestNeighbourMixing,
    TrimmedMean,
)

byzfl = pytest.importorskip("byzfl")
pytestmark = pytest.mark.matrix

HONEST, LIARS, SIZE = 10, 2, 37


@pytest.fixture
def vectors():
    x = np.random.default_rng(0).normal(1, 0.5, (HONEST + LIARS, SIZE))
    x[HONEST:] *= -3
    return np.float32(x)


# Not Krum: there it counts n - f - 1 neighbours, one more than the paper.
@pytest.mark.parametrize(
    "ours, theirs",
    [
        (Median(), lambda x: byzfl.Median()(x)),
        (TrimmedMean(LIARS), lambda x: byzfl.TrMean(f=LIARS)(x)),
        (CentredClipping(1.0, 5, "last"), lambda x: byzfl.CenteredClipping(L=5, tau=1.0)(x)),
        (
            NearestNeighbourMixing(TrimmedMean(LIARS), LIARS),
            lambda x: byzfl.TrMean(f=LIARS)(byzfl.NNM(f=LIARS)(x)),
        ),
    ],
    ids=["median", "trimmed", "clipping", "mixing"],
)
def test_rules_are_those_of_the_judge(vectors, ours, theirs):
    np.testing.assert_allclose(ours(jnp.asarray(vectors)).value, theirs(vectors), atol=1e-5)


def test_attacks_are_those_of_the_judge(vectors):
    honest, liars = vectors[:HONEST], [HONEST, HONEST + 1]
    wanted = byzfl.InnerProductManipulation(tau=0.7)(honest)
    np.testing.assert_allclose(InnerProduct(0.7)(vectors, liars)[0][-1], wanted, atol=1e-5)
    # With the sign turned: it adds deviations where the paper takes them away.
    wanted = byzfl.ALittleIsEnough(tau=-1.5)(honest)
    np.testing.assert_allclose(LittleIsEnough(1.5)(vectors, liars)[0][-1], wanted, atol=1e-5)
