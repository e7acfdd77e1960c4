"""Masks by the Fourier transform of dense GHZ states, and the law of the errors of their sums."""

import functools
import itertools

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring.physics.channels import Channel
from jaxqring.physics.ghz import GHZSource
from jaxqring.secure._masks import sum_error_law

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
visibility_of = jax.jit(lambda source: source.visibility)
HADAMARD = np.array([[1, 1], [1, -1]]) / np.sqrt(2)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- Dense states: copy r carries the bit 2^r of each party's number ------------------------------


def numbers_first(vector, parties, bits):
    """(d, ..., d) amplitudes by the parties' numbers, of a product over copies of N qubits each.

    The last copy stands first, so that it becomes the highest bit.
    """
    tensor = vector.reshape([2] * (parties * bits))
    order = [copy * parties + party for party in range(parties) for copy in range(bits)]
    return tensor.transpose(order).reshape([2**bits] * parties)


def fourier(amplitudes):
    """|j> -> sum_k omega^(j k) |k> / sqrt(d) for each party: NumPy's inverse transform."""
    return np.fft.ifftn(amplitudes, norm="ortho")


def hadamards(amplitudes, bits):
    """A Hadamard on every qubit in place of the transform."""
    matrix = dense.tensor([HADAMARD] * bits)
    for party in range(amplitudes.ndim):
        amplitudes = np.moveaxis(np.tensordot(matrix, amplitudes, (1, party)), 0, party)
    return amplitudes


def masks_law(copies, parties):
    """(d, ..., d) probabilities of the masks, of the states of the copies, bit 2^0 first.

    Each is a list of vectors with an equal share.
    """
    bits = len(copies)
    laws = [
        np.abs(fourier(numbers_first(dense.tensor(vectors[::-1]), parties, bits))) ** 2
        for vectors in itertools.product(*copies)
    ]
    return np.mean(laws, axis=0)


def twirled(vector, parties):
    """The state under every choice of the twirl: phases of thirds of a turn, and all flips.

    The difference of two bits is -1, 0 or 1, and no two differ by three: thirds do what all
    phases do.
    """
    bits = (np.arange(2**parties)[:, None] >> np.arange(parties)[::-1]) & 1
    flips = [np.arange(2**parties), np.arange(2**parties)[::-1]]
    found = []
    for turns in itertools.product(range(3), repeat=parties - 1):
        phases = np.array([*turns, -sum(turns)])
        turned = vector * np.exp(2j * np.pi / 3 * (bits @ phases))
        found += [turned[flip] for flip in flips]
    return found


def twirled_matrix(rho, parties):
    """The same of a density matrix: the mean over the twirl."""
    ones = twirled(np.ones(2**parties, complex), parties)[::2]
    turned = np.mean([dense.projector(phases) for phases in ones], axis=0) * rho
    return (turned + turned[::-1, ::-1]) / 2


def masks_law_of_matrices(copies, parties):
    """`masks_law` of density matrices, bit 2^0 first."""
    bits = len(copies)
    size = parties * bits
    rho = dense.tensor(copies[::-1]).reshape([2] * (2 * size))
    order = [copy * parties + party for party in range(parties) for copy in range(bits)]
    rho = rho.transpose([*order, *(size + np.array(order))])
    transform = fourier_matrix(2**bits)
    unitary = dense.tensor([transform] * parties)
    rho = unitary @ rho.reshape(2**size, 2**size) @ unitary.conj().T
    return np.diag(rho).real.reshape([2**bits] * parties)


def fourier_matrix(size):
    """Written out, against which `fourier` is held."""
    return np.array(
        [[np.exp(2j * np.pi * j * k / size) for j in range(size)] for k in range(size)]
    ) / np.sqrt(size)


def sums_of(parties, size):
    return functools.reduce(np.add.outer, [np.arange(size)] * parties) % size


def sum_law(law):
    """(d,) law of the sum, which must be independent of any N - 1 masks, and these uniform."""
    parties, size = law.ndim, law.shape[0]
    total = sums_of(parties, size)
    errors = np.array([law[total == e].sum() for e in range(size)])
    for last in range(parties):
        # The joint law of the sum's error and of all masks but one.
        for error in range(size):
            joint = np.where(total == error, law, 0).sum(axis=last)
            np.testing.assert_allclose(joint, errors[error] / size ** (parties - 1), atol=1e-14)
    return errors


SIZES = [
    (bits, parties) for bits in (1, 2, 3, 4, 6) for parties in (2, 3, 4) if bits * parties <= 12
]


@pytest.mark.parametrize("bits, parties", SIZES)
def test_qubit_ghz_states_in_the_fourier_basis_are_uniform_masks_of_zero_sum(bits, parties):
    """b qubit GHZ states are one of 2^b levels, and P(k) = d^(1 - N) where the sum is zero."""
    size = 2**bits
    state = numbers_first(dense.tensor([dense.ghz(parties)] * bits), parties, bits)
    levels = np.zeros([size] * parties)
    levels[(np.arange(size),) * parties] = 1 / np.sqrt(size)
    np.testing.assert_allclose(state, levels, atol=1e-14)
    law = np.abs(fourier(state)) ** 2
    expected = np.where(sums_of(parties, size) == 0, float(size) ** (1 - parties), 0)
    np.testing.assert_allclose(law, expected, atol=1e-14)


def test_the_fourier_transform_of_these_tests_has_the_sign_and_order_that_it_states():
    rng = np.random.default_rng(0)
    vector = rng.normal(size=8) + 1j * rng.normal(size=8)
    np.testing.assert_allclose(fourier(vector), fourier_matrix(8) @ vector, atol=1e-14)
    one = np.eye(2)
    # Bit 2^0 of the first party of two, and nothing else.
    copies = [np.kron(one[1], one[0]), np.kron(one[0], one[0])]
    np.testing.assert_array_equal(
        np.argwhere(numbers_first(np.kron(*copies[::-1]), 2, 2)), [[1, 0]]
    )


@pytest.mark.parametrize("bits, parties", [(1, 3), (2, 3), (3, 4)])
def test_hadamards_in_place_of_the_transform_give_masks_of_zero_xor(bits, parties):
    size = 2**bits
    state = numbers_first(dense.tensor([dense.ghz(parties)] * bits), parties, bits)
    law = np.abs(hadamards(state, bits)) ** 2
    xor = functools.reduce(np.bitwise_xor.outer, [np.arange(size)] * parties)
    expected = np.where(xor == 0, float(size) ** (1 - parties), 0)
    np.testing.assert_allclose(law, expected, atol=1e-14)
    # Their sums are anything even, which is why a ring that adds cannot use them.
    sums = [law[sums_of(parties, size) == e].sum() for e in range(size)]
    assert sums[0] < 1 - 1e-3 or bits == 1


# --- The law of the errors of sums ----------------------------------------------------------------

VISIBILITY = {"X": 0.0, "Y": 0.0, "Z": -1.0}


@pytest.mark.parametrize(
    "bits, parties",
    [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3), (2, 4), (3, 2), (3, 3), further(3, 4)],
)
@pytest.mark.parametrize("pauli", "XYZ")
def test_a_pauli_error_on_any_qubit_has_the_law_of_its_visibility(pauli, bits, parties, x64):
    """Twirled, and exact: a copy with an error is mixed over the twirl, which leaves the others."""
    error = dict(zip("IXYZ", dense.PAULIS, strict=True))[pauli]
    perfect = dense.ghz(parties)
    for copy, party in itertools.product(range(bits), range(parties)):
        wrong = dense.tensor([error if i == party else dense.I2 for i in range(parties)]) @ perfect
        copies = [[perfect]] * bits
        copies[copy] = twirled(wrong, parties)
        visibility = np.ones(bits)
        visibility[copy] = VISIBILITY[pauli]
        expected = sum_error_law(visibility, bits)
        np.testing.assert_allclose(sum_law(masks_law(copies, parties)), expected, atol=1e-13)


@pytest.mark.parametrize("bits, parties", [(1, 3), (2, 2), (2, 3), (3, 3)])
def test_without_the_twirl_phase_errors_have_the_same_law_and_bit_flips_another(bits, parties, x64):
    """A flip of the highest bit shifts a number by half of d, which no outcome sees."""
    perfect = dense.ghz(parties)
    total = sums_of(parties, 2**bits)
    for copy, party in itertools.product(range(bits), range(parties)):
        for pauli in "XZ":
            error = dict(zip("IXYZ", dense.PAULIS, strict=True))[pauli]
            gates = [error if i == party else dense.I2 for i in range(parties)]
            copies = [[perfect]] * bits
            copies[copy] = [dense.tensor(gates) @ perfect]
            law = masks_law(copies, parties)
            visibility = np.ones(bits)
            if pauli == "Z":
                visibility[copy] = -1
                expected = sum_error_law(visibility, bits)
                np.testing.assert_allclose(sum_law(law), expected, atol=1e-13)
            else:
                visibility[copy] = copy == bits - 1
                found = [law[total == e].sum() for e in range(2**bits)]
                np.testing.assert_allclose(found, sum_error_law(visibility, bits), atol=1e-13)


@pytest.mark.parametrize("bits, parties", [(2, 2), further(2, 3), further(3, 2)])
def test_noise_of_finite_strength_has_the_law_of_the_visibility_of_the_source(bits, parties, x64):
    """Every qubit of every copy depolarised, damped, or in a random channel; and white noise."""
    rng = np.random.default_rng(bits + parties)
    for kraus, white in (
        (dense.pauli_kraus(0.05, 0.05, 0.05), 0.0),
        (dense.damping_kraus(0.3), 0.1),
        (dense.random_kraus(rng, 2), 0.0),
    ):
        source = GHZSource(
            parties, noise=Channel(jnp.asarray(dense.transfer_matrix(kraus))), white=white
        )
        rho = twirled_matrix(dense.noisy_ghz([kraus] * parties, white), parties)
        law = masks_law_of_matrices([rho] * bits, parties)
        expected = sum_error_law(visibility_of(source), bits)
        np.testing.assert_allclose(sum_law(law), expected, atol=1e-13)


@pytest.mark.parametrize("bits, parties", [further(2, 2), (2, 3), (3, 2)])
def test_any_states_have_the_law_of_their_visibilities(bits, parties, x64):
    """Random density matrices, another for each copy: of each one number is left."""
    states = [dense.random_state(np.random.default_rng(s), 2**parties) for s in range(bits)]
    plus, minus = dense.ghz(parties), dense.ghz(parties, -1)
    visibility = np.array(
        [(plus.conj() @ rho @ plus - minus.conj() @ rho @ minus).real for rho in states]
    )
    law = masks_law_of_matrices([twirled_matrix(rho, parties) for rho in states], parties)
    np.testing.assert_allclose(sum_law(law), sum_error_law(visibility, bits), atol=1e-13)


@pytest.mark.parametrize("bits", [1, 2, 5, further(20)])
def test_the_law_of_errors_is_one_of_probabilities(bits, x64):
    for visibility in (1.0, 0.9, 0.0, -0.5, -1.0):
        law = np.asarray(sum_error_law(visibility, bits))
        assert law.shape == (2**bits,)
        assert law.min() > -1e-15
        assert law.sum() == pytest.approx(1, abs=1e-12)
        assert law[0] == pytest.approx(((1 + visibility) / 2) ** bits, abs=1e-12)
        np.testing.assert_allclose(law[1:], law[:0:-1], atol=1e-15)  # e and -e alike
    assert law[2**bits >> 1] == (1.0 if bits == 1 else pytest.approx(0, abs=1e-15))
