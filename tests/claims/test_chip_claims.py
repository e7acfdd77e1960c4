"""The claim about fixed chips: its verdict follows the numbers, its witnesses agree."""

import copy

import pytest

from jaxqring.claims import _chip_claims, _chip_witnesses

(CHIPS,) = _chip_claims.CLAIMS


def results():
    lengths = [1, 2, 3, 4]
    success = [1 - 2.0**-k for k in lengths]
    copies, bits = [[4096, 102_400]], [[6144, 9216]]
    return {
        "runs": {
            "lengths": lengths,
            "draws": 100,
            "success": success,
            "success_dense": success,
            "infidelity": [0.0],
            "infidelity_dense": [0.0],
            "sampled": success[-1],
        },
        "leaks": {
            "lengths": lengths,
            "leaked": lengths,
            "leaked_dense": lengths,
            "read": [0.4, 1.1, 2.0, 2.9],
            "read_dense": [0.4, 1.1, 2.0, 2.9],
        },
        "gradients": {
            "errors": [0.5, 0.1],
            "sizes": [1024],
            "copies": copies,
            "copies_drawn": copies,
            "bits": bits,
            "bits_counted": bits,
            "saves": 0,
            "saves_drawn": 0,
        },
    }


def test_the_verdict_follows_success_leaks_and_savings():
    found = results()
    assert CHIPS.conclude(found).verdict == "holds if"
    assert not CHIPS.conclude(found).disputed
    broken = copy.deepcopy(found)
    broken["runs"]["infidelity"] = [0.1]
    assert CHIPS.conclude(broken).verdict == "fails"
    found["leaks"]["read"] = [0.0] * 4
    found["gradients"]["saves"] = 2
    assert CHIPS.conclude(found).verdict == "holds"


@pytest.mark.parametrize("qubits", [1, 3])
def test_the_chip_fails_with_two_to_the_minus_k(qubits):
    success, infidelity = _chip_witnesses.turned_by_program(0.7, qubits)
    assert success == pytest.approx(1 - 2.0**-qubits)
    assert infidelity < 1e-12


def test_a_program_holds_a_bit_a_qubit_and_one_qubit_is_read_as_a_coin_of_its_angle():
    assert _chip_witnesses.holevo_of_programs(3) == pytest.approx(3)
    # 1 - E[h(cos^2(theta / 2))] = 1 / ln 2 - 1
    assert _chip_witnesses.bits_read(1, 2000) == pytest.approx(0.4426950, abs=1e-5)


def test_copies_to_read_magnitudes_are_a_quarter_of_the_bound():
    # Counts have the variance of p (1 - p), and their roots a quarter of 1 - p, for all P entries.
    found = _chip_witnesses.copies_to_read(256, 0.02, 50, 0)
    assert found == pytest.approx(255 / 4 / 0.02**2, rel=0.1)


def test_numbers_are_rounded_to_the_error():
    assert _chip_witnesses.message_bits(1024, 0.1) == 1024 * 9
    assert _chip_witnesses.message_bits(4, 0.5) == 4 * 2
