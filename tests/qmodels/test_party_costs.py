"""Costs of the two-party model, counted again hop by hop, and the bounds behind equal error."""

import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from refused import check_refusal
from scipy import stats

import jaxqring as jq
from jaxqring.qmodels import (
    amplitude_crossover,
    classical_bound,
    gradient_bound,
    inference_bound,
    linear_classifier_bounds,
    shots_for,
    two_party_cost,
)

# --- Check values ---------------------------------------------------------------------------------


def test_shots_and_inference_qubits():
    assert [shots_for(epsilon, 0.05) for epsilon in (0.1, 0.01)] == [738, 73778]
    assert two_party_cost(3, 2, shots=738).qubits == 8856
    assert two_party_cost(3, 2, shots=73778).qubits == 885336


def test_gradient_qubits():
    shape = {"qubits": 10, "layers": 4, "parameters": 20}
    assert two_party_cost(**shape, method="shift", shots=738).qubits == 18_892_800
    found = [
        two_party_cost(**shape, method="ancilla", shots=shots, groups=2).qubits
        for shots in (738, shots_for(0.1, 0.05, 160))
    ]
    assert shots_for(0.1, 0.05, 160) == 1753
    assert found == [1_357_920, 3_225_520]


def test_crossovers_against_amplitudes():
    found = {
        (bits, epsilon): amplitude_crossover(epsilon, 0.05, bits=bits)
        for bits in (16, 32)
        for epsilon in (0.1, 0.01)
    }
    assert found == {(16, 0.1): 9, (16, 0.01): 17, (32, 0.1): 8, (32, 0.01): 16}
    for (bits, epsilon), qubits in found.items():
        shots = math.ceil(2 * math.log(40) / epsilon**2)
        wins = [n for n in range(1, 40) if 2**n * bits > n * shots]
        assert wins == list(range(qubits, 40))


# --- Counted again --------------------------------------------------------------------------------


def walk(layers, segment=None):
    """Qubit crossings of one run: the holder of the register, followed from step to step.

    Alice holds the input; unitaries in order of time are Bob's and Alice's in turn. Without a
    segment the register ends at Alice's, who reads it. With one it goes back until the holder of
    the unitary of that segment has undone what comes after the gate.
    """
    owners = ["Bob", "Alice"] * layers
    path = ["Alice", *owners]
    if segment is not None:
        path += owners[segment - 1 : -1][::-1]
    return sum(a != b for a, b in itertools.pairwise(path))


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("qubits, shots, groups", [(1, 1, 1), (7, 13, 3)])
def test_hops_are_those_of_a_register_that_is_followed(layers, qubits, shots, groups):
    p = groups + 2
    forward = walk(layers)
    gradient = [walk(layers, s) for s in range(1, 2 * layers + 1)]
    loss = two_party_cost(qubits, layers, shots=shots)
    assert (loss.copies, loss.rounds) == (shots, forward)
    assert loss.qubits == shots * forward * qubits
    shift = two_party_cost(qubits, layers, method="shift", shots=shots, parameters=p)
    runs = sum(2 * shots for _ in range(2 * layers) for _ in range(p))
    assert (shift.copies, shift.rounds, shift.qubits) == (runs, forward, runs * forward * qubits)
    for method, twins in (("ancilla", 1), ("shadows", 1), ("bell", 2)):
        cost = two_party_cost(
            qubits, layers, method=method, shots=shots, parameters=p, groups=groups
        )
        each = twins * shots * groups
        assert cost.copies == each * len(gradient)
        assert cost.rounds == max(gradient)
        assert cost.qubits == each * sum(gradient) * qubits
        assert (cost.pairs, cost.bits) == (0, 0)


def test_unitaries_of_two_sizes():
    """Two layers, of which Alice's unitaries have 3 groups of 7 gates and Bob's one of 5."""
    shape = {"qubits": 2, "layers": 2, "shots": 11, "parameters": (7, 5)}
    assert two_party_cost(**shape, method="shift").copies == 2 * 11 * 2 * (7 + 5)
    found = two_party_cost(**shape, method="ancilla", groups=(3, 1))
    assert found.copies == 11 * 2 * (3 + 1)
    hops = [walk(2, 1), *[walk(2, 2)] * 3, walk(2, 3), *[walk(2, 4)] * 3]
    assert found.qubits == 11 * 2 * sum(hops)


@pytest.mark.parametrize("method", ["loss", "shift", "ancilla", "shadows", "bell"])
def test_a_teleported_qubit_takes_a_pair_and_two_bits(method):
    sent = two_party_cost(4, 3, method=method, shots=5, parameters=2)
    teleported = two_party_cost(4, 3, method=method, shots=5, parameters=2, hop="teleported")
    assert (teleported.copies, teleported.rounds) == (sent.copies, sent.rounds)
    assert teleported.qubits == teleported.pairs == sent.qubits
    assert teleported.bits == 2 * sent.qubits


# --- Shots: the bounds hold, and are not far from what is needed ----------------------------------


def error_of_coins(value, count, epsilon):
    """Exact probability that the mean of `count` outcomes +-1 is off by more than epsilon."""
    ones = stats.binom(count, (1 + value) / 2)
    low, high = count * (1 + value - epsilon) / 2, count * (1 + value + epsilon) / 2
    return ones.cdf(math.ceil(low - 1e-9) - 1) + ones.sf(math.floor(high + 1e-9))


@pytest.mark.parametrize("parameters", [1, 40])
def test_shots_of_the_ancilla_keep_their_error(parameters):
    epsilon, delta = 0.1, 0.05
    count = shots_for(epsilon, delta, parameters)
    worst = max(error_of_coins(g, count, epsilon) for g in np.linspace(-1, 1, 41))
    assert worst <= delta / parameters
    # Half of them are too few at g = 0: Hoeffding's bound is that close.
    assert error_of_coins(0.0, count // 2, epsilon) > delta / parameters


def test_half_the_shots_on_each_side_do_for_a_shift():
    # At L+ = L- = 0, the largest variance, all 2m outcomes are fair coins of a mean with epsilon.
    epsilon, delta, parameters = 0.1, 0.05, 160
    side = shots_for(epsilon, delta, parameters, method="shift")
    whole = shots_for(epsilon, delta, parameters)
    assert side == math.ceil(whole / 2)
    for plus, minus in ((0.0, 0.0), (0.3, -0.3), (0.9, 0.5)):
        heads = [stats.binom.pmf(np.arange(side + 1), side, (1 + v) / 2) for v in (plus, minus)]
        difference = np.convolve(heads[0], heads[1][::-1])  # heads of plus less heads of minus
        estimate = np.arange(-side, side + 1) / side
        off = np.abs(estimate - (plus - minus) / 2) > epsilon + 1e-12
        assert difference[off].sum() <= delta / parameters


def test_shots_of_shadows_keep_their_error():
    """Exact distribution of the sum of outcomes 3^w, 0 and -3^w, as a normal would not do."""
    epsilon, delta, parameters, weight = 0.2, 0.05, 3, 2
    count = shots_for(epsilon, delta, parameters, method="shadows", weight=weight)
    scale = 3**weight
    for value in (0.0, 0.5, 1.0):
        single = np.array([(1 - value) / 2, 0.0, (1 + value) / 2]) / scale
        single[1] = 1 - single.sum()
        spectrum = np.fft.fft(single, 2 * count + 1) ** count
        chances = np.fft.ifft(spectrum).real  # of sums from -count to count
        estimate = scale * np.arange(-count, count + 1) / count
        off = np.abs(estimate - value) > epsilon + 1e-12
        assert chances[off].sum() <= delta / parameters
    variance = scale  # at value 0
    assert count < 1.4 * 2 * math.log(2 * parameters / delta) * variance / epsilon**2


def test_pairs_of_copies_find_magnitudes():
    epsilon, delta = 0.3, 0.05
    count = shots_for(epsilon, delta, method="bell")
    for value in (0.0, 0.1, 0.3, 0.8):
        ones = np.arange(count + 1)
        chances = stats.binom.pmf(ones, count, (1 + value**2) / 2)
        found = np.sqrt(np.maximum(2 * ones / count - 1, 0))
        assert chances[np.abs(found - value) > epsilon + 1e-12].sum() <= delta


def test_shots_by_exact_arithmetic():
    for parameters in (1, 7, 2000):
        for epsilon, delta in ((Fraction(1, 10), 0.05), (Fraction(1, 4), 0.2)):
            log = math.log(2 * parameters / delta)
            square = float(epsilon) ** 2
            expected = {
                "loss": 2 * log / square,
                "ancilla": 2 * log / square,
                "shift": log / square,
                "bell": 2 * log / square**2,
                "shadows": log * (2 * 27 + 2 * 28 * float(epsilon) / 3) / square,
            }
            for method, value in expected.items():
                found = shots_for(float(epsilon), delta, parameters, method=method, weight=3)
                assert found - 1 <= value * (1 + 1e-12)
                assert value <= found + 1e-9


PAULIS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}
BELL = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / np.sqrt(2)


@pytest.mark.parametrize("string", ["YXZ", "YYI", "YZY"])
def test_an_ancilla_at_home_serves_pairs_of_copies(string):
    """Each qubit is read with its twin alone, the ancilla, which is the first, among them."""
    rng = np.random.default_rng(5)
    state = rng.normal(size=8) + 1j * rng.normal(size=8)
    state /= np.linalg.norm(state)
    twins = np.outer(state, state).reshape((2,) * 6).transpose(0, 3, 1, 4, 2, 5).reshape(64)
    chances = np.abs(functools.reduce(np.kron, [BELL] * 3) @ twins) ** 2
    signs = []
    for letter in string:
        both = np.kron(PAULIS[letter], PAULIS[letter])
        of_bell = BELL @ both @ BELL.T
        np.testing.assert_allclose(of_bell, np.diag(np.diag(of_bell)), atol=1e-12)
        signs.append(np.diag(of_bell).real)
    matrix = functools.reduce(np.kron, [PAULIS[letter] for letter in string])
    value = np.vdot(state, matrix @ state).real
    assert abs(value) > 0.05
    assert chances @ functools.reduce(np.kron, signs) == pytest.approx(value**2)


# --- Bounds of the paper --------------------------------------------------------------------------


def test_formulas_of_the_paper():
    assert inference_bound(2**10, 4, 0.1) == pytest.approx(4 * 10 / 0.01)
    expected = 4**2 * 10 * math.log2(20) ** 2 * math.log(4 / 0.05) / 0.1**4
    assert gradient_bound(2**10, 4, 20, 0.1, 0.05) == pytest.approx(expected)
    assert classical_bound(2**10, 4) == 32
    assert classical_bound(4, 9) == 9


def test_the_gradient_grows_with_logarithms_alone():
    costs = [gradient_bound(2**10, 4, p, 0.1, 0.05) for p in (4, 16, 256)]
    assert costs[1] / costs[0] == pytest.approx(4)
    assert costs[2] / costs[0] == pytest.approx(16)
    assert gradient_bound(2**20, 4, 4, 0.1, 0.05) == pytest.approx(2 * costs[0])


def test_a_linear_classifier_has_a_polynomial_gap_at_most():
    for size in (10, 10**4, 10**8):
        for margin in (0.5, 0.1, 1e-2, 1e-4):
            found = linear_classifier_bounds(size, margin)
            block = max(1, math.ceil(margin * size))
            assert found.quantum == pytest.approx(math.sqrt(size / block))
            assert found.classical == pytest.approx(min(size, margin**-2))
            # Rounding up doubles a block at most, which the fourth power sees twice.
            assert found.classical <= 4 * found.quantum**4 + 1e-9


def test_the_classifier_is_the_problem_of_gap_ip():
    for tau in (0.1, 0.01):
        bound = linear_classifier_bounds(10**6, tau)
        assert bound.quantum < jq.audit.plan_gap_ip(tau, 10**6).qubits
        assert bound.classical < jq.audit.simhash_bits(tau, 0.1) * 10


# --- Refusals -------------------------------------------------------------------------------------

# name: (call, exception, words of the message)
REFUSALS = {
    "no error": (lambda: shots_for(0.0, 0.1), ValueError, ["`epsilon`", "(0, 1)"]),
    "certain failure": (lambda: shots_for(0.1, 1.0), ValueError, ["`delta`", "(0, 1)"]),
    "error that is text": (lambda: shots_for("0.1", 0.1), TypeError, ["`epsilon`"]),
    "no parameter": (lambda: shots_for(0.1, 0.1, 0), ValueError, ["`parameters`", "at least 1"]),
    "method": (lambda: shots_for(0.1, 0.1, method="swap"), ValueError, ["`method`", "'bell'"]),
    "weight": (lambda: shots_for(0.1, 0.1, weight=-1), ValueError, ["`weight`", "-1"]),
    "no qubits": (lambda: two_party_cost(0, 1, shots=1), ValueError, ["`qubits`", "0"]),
    "half a layer": (lambda: two_party_cost(1, 0.5, shots=1), ValueError, ["`layers`", "0.5"]),
    "shots": (lambda: two_party_cost(1, 1, shots=0), ValueError, ["`shots`", "at least 1"]),
    "groups": (
        lambda: two_party_cost(1, 1, shots=1, parameters=2, groups=3),
        ValueError,
        ["`groups`", "[1, 2]", "3"],
    ),
    "groups of Alice's": (
        lambda: two_party_cost(1, 1, shots=1, parameters=(2, 4), groups=(3, 3)),
        ValueError,
        ["`groups`", "[1, 2]", "3"],
    ),
    "three parties": (
        lambda: two_party_cost(1, 1, shots=1, parameters=(1, 1, 1)),
        ValueError,
        ["`parameters`", "pair", "(1, 1, 1)"],
    ),
    "hop": (lambda: two_party_cost(1, 1, shots=1, hop="fibre"), ValueError, ["`hop`", "'fibre'"]),
    "cost of what": (
        lambda: two_party_cost(1, 1, shots=1, method="autodiff"),
        ValueError,
        ["`method`", "'autodiff'"],
    ),
    "one amplitude": (lambda: inference_bound(1, 1, 0.1), ValueError, ["`size`", "at least 2"]),
    "one parameter": (
        lambda: gradient_bound(8, 1, 1, 0.1, 0.1),
        ValueError,
        ["`parameters`", "at least 2"],
    ),
    "no bits": (lambda: amplitude_crossover(0.1, 0.1, bits=0), ValueError, ["`bits`", "0"]),
    "margin": (lambda: linear_classifier_bounds(8, 1.0), ValueError, ["`margin`", "(0, 1)"]),
    "no entries": (lambda: linear_classifier_bounds(0, 0.5), ValueError, ["`size`", "0"]),
    "layers of a bound": (lambda: classical_bound(8, 0), ValueError, ["`layers`", "0"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name):
    check_refusal(*REFUSALS[name])
