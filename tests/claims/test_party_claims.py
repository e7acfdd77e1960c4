"""Claims about two-party learning: their verdicts follow the numbers, their witnesses agree."""

import copy
import math

import numpy as np
import pytest

from jaxqring.claims import _depth_claims, _party_claims, _party_witnesses, _privacy_claims

TRAFFIC, LINEAR = _party_claims.CLAIMS
(DEPTH,) = _depth_claims.CLAIMS
(PRIVACY,) = _privacy_claims.CLAIMS


def traffic_results():
    sizes, many = [4, 8, 16], [100, 200, 400]
    flat, steep = [10, 11, 12], many
    traffic = {"sizes": sizes, "many": many, "hop": 9, "gradient": 20}
    curves = {"loss": sizes, "commuting": flat, "layered": steep, "by_shift": steep}
    traffic |= curves | {f"{name}_counted": curve for name, curve in curves.items()}
    traffic |= {"hop_scanned": 9, "gradient_scanned": 20}
    made = {"draws": 100, "shots": 738, "loss": 0.3, "slope": 0.1, "missed": 0.01}
    made |= {"shots_scanned": 738, "loss_dense": 0.3, "slope_dense": 0.1, "missed_exact": 0.01}
    return {"traffic": traffic, "estimates": made}


@pytest.mark.parametrize(
    "part, name, value, verdict",
    [
        ("traffic", "hop", 9, "holds if"),
        ("traffic", "layered", [10, 11, 12], "holds"),
        ("traffic", "commuting", [100, 200, 400], "fails"),
        ("traffic", "loss", [16, 256, 65536], "fails"),
        ("estimates", "missed", 0.06, "fails"),
    ],
)
def test_the_verdict_on_traffic_follows_exponents_and_misses(part, name, value, verdict):
    found = traffic_results()
    assert not TRAFFIC.conclude(found).disputed
    found[part][name] = value
    assert TRAFFIC.conclude(found).verdict == verdict


def test_the_verdict_on_linear_classifiers_follows_the_power_and_the_growth_with_size():
    margins = [0.1, 0.05, 0.025]
    qubits, bits = [1 / margin for margin in margins], [margin**-2 for margin in margins]
    found = {
        "bounds": {
            "margins": margins,
            "qubits": qubits,
            "qubits_counted": qubits,
            "bits": bits,
            "bits_counted": bits,
            "sizes": [10, 1000],
            "bits_by_size": [400, 400],
            "least": 10.0,
            "most": 1e4,
        },
        "planes": {"draws": 100, "wrong": 0.2, "wrong_drawn": {"16": 0.2}},
    }
    assert LINEAR.conclude(found).verdict == "holds"
    assert not LINEAR.conclude(found).disputed
    grown = copy.deepcopy(found)
    grown["bounds"]["bits_by_size"] = [400, 4000]
    assert LINEAR.conclude(grown).verdict == "fails"
    found["bounds"]["bits"] = [2**qubit for qubit in qubits]
    assert LINEAR.conclude(found).verdict == "fails"


def test_the_verdict_on_depth_follows_the_number_of_frequencies():
    scaled, equal = [3, 9, 27, 81], [3, 5, 7, 9]
    counts = {"depths": [1, 2, 3, 4]}
    for name, values in (("scaled", scaled), ("equal", equal)):
        counts |= {name: values, f"{name}_dense": values, f"{name}_sums": values}
    found = {"frequencies": counts, "digits": {"depths": []}}
    assert DEPTH.conclude(found).verdict == "holds if"
    trained = {"depths": [1, 8], "ours": [0.8, 0.95], "dense": [0.8, 0.9], "images": 100}
    with_digits = DEPTH.conclude(found | {"digits": trained})
    assert [number.name[-5:] for number in with_digits.disputed] == ["L = 8"]
    assert "95.0%" in with_digits.because
    counts["equal"] = scaled
    assert DEPTH.conclude(found).verdict == "holds"
    counts["scaled"] = equal
    assert DEPTH.conclude(found).verdict == "fails"


@pytest.mark.parametrize(
    "one, many, verdict", [(1.6, 8.48, "holds if"), (1.6, 4.0, "holds"), (6.0, 8.48, "fails")]
)
def test_the_verdict_on_privacy_follows_the_bits_of_one_copy_and_of_many(one, many, verdict):
    leaks = {
        "copies": [1, 738],
        "register": [6, 4428],
        "named": [0.03, 1.0],
        "message": 1024,
        "entropy": 8.48,
        "images": 357,
        "needed": 738,
        "needed_scanned": 738,
    }
    leaks |= {"one": one, "one_dense": one, "many": many, "many_gram": many}
    leaks |= {"all": 2.2, "all_dense": 2.2, "two": 2.7, "two_dense": 2.7}
    leaks |= {"bound": 314.0, "bound_counted": 314.0}
    found = PRIVACY.conclude({"leaks": leaks})
    assert found.verdict == verdict
    assert not found.disputed


def test_dense_losses_are_those_of_one_rotation():
    model = _party_witnesses.DenseModel(("YI",), ("IY",), "ZI")
    angles = {"alice": np.array([[0.5]]), "bob": np.array([[0.1]])}
    state = np.eye(4)[:1]
    assert _party_witnesses.party_losses(model, angles, state)[0] == pytest.approx(math.cos(0.5))
    slopes = _party_witnesses.slope_by_shifts(model, angles, state)
    np.testing.assert_allclose(slopes, [-math.sin(0.5), 0], atol=1e-12)


def test_a_ring_of_controlled_zs_counts_neighbours_that_are_both_one():
    signs = _party_witnesses.cz_ring(3)
    np.testing.assert_array_equal(signs, [1, 1, 1, -1, 1, -1, -1, -1])


@pytest.mark.parametrize("layers", [1, 4])
def test_hops_one_by_one_are_those_of_the_closed_form(layers):
    assert _party_witnesses.hops_of_loss(layers) == 2 * layers
    assert _party_witnesses.hops_of_slopes(layers) == [
        4 * layers - segment for segment in range(1, 2 * layers + 1)
    ]
    assert _party_witnesses.signed_sums(3, layers) == 3**layers
    assert _party_witnesses.signed_sums(1, layers) == 2 * layers + 1


def test_shots_follow_hoeffdings_bound():
    assert _party_witnesses.fewest_shots(0.1, 0.05) == math.ceil(2 * math.log(40) / 0.01)
    assert _party_witnesses.fewest_shots(0.1, 0.05, 160, outcomes=2) == 877
    assert _party_witnesses.miss_of_mean(1, 0.5, 0.6) == pytest.approx(0.25)


def test_two_states_have_the_holevo_quantity_of_their_overlap():
    angle = 0.4
    states = np.array([[1, 0], [math.cos(angle), math.sin(angle)]])
    for copies, found in (
        (1, _party_witnesses.holevo_of_matrix(states)),
        (2, _party_witnesses.holevo_of_two(states)),
        (5, _party_witnesses.holevo_of_many(states, 5)[0]),
    ):
        half = (1 + math.cos(angle) ** copies) / 2
        entropy = -half * math.log2(half) - (1 - half) * math.log2(1 - half)
        assert found == pytest.approx(entropy, abs=1e-12)
    # The pretty good measurement of two pure states is the best one, that of Helstrom.
    named = _party_witnesses.holevo_of_many(states, 1)[1]
    assert named == pytest.approx((1 + math.sin(angle)) / 2)


def test_drawn_planes_err_as_their_angle_says():
    draws = 400
    chance = 1 - math.acos(0.5) / math.pi
    wrong = (1 - chance) ** 3 + 3 * chance * (1 - chance) ** 2
    found = _party_witnesses.planes_wrong(0.5, 8, 3, draws, 0)
    assert abs(found - wrong) < 6 * math.sqrt(wrong * (1 - wrong) / draws)
