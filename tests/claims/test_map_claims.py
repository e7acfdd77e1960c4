"""Conclusions of the maps over fidelity follow from their numbers."""

import math

import pytest

from jaxqring.claims._map_claims import _borne


@pytest.mark.parametrize(
    ("good", "last"),
    [
        ([True, True, True], 0.9),
        ([True, False, False], 1.0),
        ([True, False, True], 1.0),  # what comes back by chance is not kept
        ([False, True, True], math.nan),
    ],
)
def test_a_fidelity_is_borne_if_all_better_ones_are(good, last):
    assert _borne([1.0, 0.99, 0.9], good) == pytest.approx(last, nan_ok=True)
