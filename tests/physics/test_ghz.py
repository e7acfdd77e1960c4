"""GHZ states against density matrices written out in `dense`, and against stim for many parties.

Statistical tests have fixed keys and state their sample size. Each comparison of counts fails by
chance with probability `CHANCE`; there are fewer than 10,000 of them.
"""

import functools
import itertools

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxqring as jq
from jaxqring.physics.channels import Channel
from jaxqring.physics.ghz import GHZSource, fused, sample
from jaxqring.secure._attacks import PlantedSource, plus_states, purification_guess

CHANCE = 1e-11
SAMPLES = 2**16

further = functools.partial(pytest.param, marks=pytest.mark.matrix)

AXES = {"I": [1, 0, 0, 0], "X": [0, 1, 0, 0], "Y": [0, 0, 1, 0], "Z": [0, 0, 0, 1]}
RNG = np.random.default_rng(0)
# Damping towards no pole, by turning it: the Bloch vector is shifted along x, y and z.
TURNED = [
    turn @ k @ turn.conj().T
    for turn in [np.linalg.qr(RNG.normal(size=(2, 2)) + 1j * RNG.normal(size=(2, 2)))[0]]
    for k in dense.damping_kraus(0.3)
]
#: name: Kraus operators
NOISE = {
    "random": dense.random_kraus(RNG, 3),
    "turned damping": TURNED,
    "damping": dense.damping_kraus(0.2),
    "generalized damping": dense.damping_kraus(0.3, 0.4),
    "thermal": dense.thermal_kraus(10.0, 7.0, 2.0, 0.1),
    "pauli": dense.pauli_kraus(0.05, 0.1, 0.03),
    "unitary": dense.random_kraus(RNG, 1),
    "completely random": dense.random_kraus(RNG, 4),
}

#: Compiled once for each number of parties and kind of noise.
draw = jax.jit(sample)
expectations = jax.jit(jax.vmap(GHZSource.expectation, (None, 0)))


@jax.jit
def statistics(source):
    return source.fidelity, source.visibility, source.x_error, source.disagreement


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def channel(*kraus):
    """One channel of the package for each list of Kraus operators, along a leading axis."""
    return Channel(np.stack([dense.transfer_matrix(each) for each in kraus]))


def words(*strings):
    """(S, N, 4) of products of Paulis."""
    return np.array([[AXES[letter] for letter in string] for string in strings], float)


def all_pairs(parties):
    return list(itertools.combinations(range(parties), 2))


def z_pairs(parties):
    """(N (N - 1) / 2, N, 4) the products Z_i Z_j."""
    return words(
        *("".join("Z" if k in pair else "I" for k in range(parties)) for pair in all_pairs(parties))
    )


def dense_statistics(rho):
    """Fidelity, visibility, X error and disagreement, by the overlaps that define them."""
    parties = int(np.log2(len(rho)))
    plus, minus = (
        (vector.conj() @ rho @ vector).real
        for vector in (dense.ghz(parties), dense.ghz(parties, -1))
    )
    agree = (rho[0, 0] + rho[-1, -1]).real
    return plus, plus - minus, (1 - plus + minus) / 2, 1 - agree


def dense_z_error(rho, first, second):
    parties = int(np.log2(len(rho)))
    bits = (np.arange(len(rho))[:, None] >> np.arange(parties)[::-1]) & 1
    return np.diag(rho).real[bits[:, first] != bits[:, second]].sum()


def even_strings(parties):
    """All strings of X and Y with an even number of Y, and the sign (-1)^(Y / 2) of each."""
    strings = [
        "".join(letters)
        for letters in itertools.product("XY", repeat=parties)
        if letters.count("Y") % 2 == 0
    ]
    return strings, np.array([(-1) ** (string.count("Y") // 2) for string in strings])


def assert_binomial(counts, size, probs):
    """Each count within the exact tails of Binomial(size, prob), `CHANCE` for each."""
    counts, probs = np.broadcast_arrays(np.asarray(counts), np.asarray(probs, np.float64))
    low, high = stats.binom.ppf(CHANCE / 2, size, probs), stats.binom.isf(CHANCE / 2, size, probs)
    assert np.all((low <= counts) & (counts <= high)), (counts, low, high)


def assert_counts_agree(counts, probs):
    """Pearson's chi-square where at least 1,000 are expected, and the tails of each count.

    The tail of the chi-square itself is taken at 1e-9, because it is only nearly one.
    """
    probs = np.clip(probs, 0, 1)
    assert_binomial(counts, counts.sum(), probs)
    many = counts.sum() * probs >= 1000
    found = counts[many]
    expected = probs[many] / probs[many].sum() * found.sum()
    statistic = np.sum((found - expected) ** 2 / expected)
    assert many.sum() < 2 or statistic < stats.chi2.isf(1e-9, many.sum() - 1), statistic


# --- Closed values against density matrices -------------------------------------------------------


@pytest.mark.parametrize("parties", [2, further(3), further(4), further(5), 6])
def test_statistics_are_those_of_the_dense_state_with_another_channel_for_each_party(parties, x64):
    rng = np.random.default_rng(parties)
    observables = rng.normal(size=(8, parties, 4)) + 1j * rng.normal(size=(8, parties, 4))
    for first in range(0, len(NOISE), 2):
        kraus = [list(NOISE.values())[(first + i) % len(NOISE)] for i in range(parties)]
        white = 0.15 * (first % 4 == 0)
        source = GHZSource(parties, noise=channel(*kraus), white=white)
        rho = dense.noisy_ghz(kraus, white)
        np.testing.assert_allclose(statistics(source), dense_statistics(rho), atol=1e-13)
        expected = [np.trace(rho @ dense.product_of_paulis(o)) for o in observables]
        found = expectations(source, observables)
        assert found.dtype == np.complex128
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NOISE)
def test_one_channel_acts_on_every_party(name, x64):
    kraus = NOISE[name]
    source = GHZSource(4, noise=Channel(dense.transfer_matrix(kraus)), white=0.1)
    rho = dense.noisy_ghz([kraus] * 4, 0.1)
    np.testing.assert_allclose(statistics(source), dense_statistics(rho), atol=1e-13)


def test_single_precision_has_its_rounding_and_no_more():
    kraus = [list(NOISE.values())[i] for i in range(6)]
    source = GHZSource(6, noise=channel(*kraus), white=0.15)
    found = statistics(source)
    assert {value.dtype for value in found} == {jnp.dtype("float32")}
    np.testing.assert_allclose(found, dense_statistics(dense.noisy_ghz(kraus, 0.15)), atol=1e-6)


@pytest.mark.parametrize("parties", [2, 4])
def test_z_errors_are_those_of_the_dense_state_for_every_pair_of_parties(parties, x64):
    kraus = [list(NOISE.values())[i] for i in range(parties)]
    source = GHZSource(parties, noise=channel(*kraus), white=0.2)
    rho = dense.noisy_ghz(kraus, 0.2)
    pairs = all_pairs(parties)

    @jax.jit
    def errors(source):
        return jnp.stack([source.z_error(*pair) for pair in pairs])

    found = errors(source)
    np.testing.assert_allclose(found, [dense_z_error(rho, *pair) for pair in pairs], atol=1e-13)
    np.testing.assert_allclose(
        (1 - expectations(source, z_pairs(parties)).real) / 2, found, atol=1e-13
    )


@pytest.mark.parametrize("parties", [2, 3, 4, 5, 6])
def test_visibility_is_the_mean_over_all_xy_tests(parties, x64):
    """The identity that `x_error` stands on: an XY test fails with probability (1 - V) / 2."""
    kraus = [list(NOISE.values())[i] for i in range(parties)]
    rho = dense.noisy_ghz(kraus, 0.1)
    strings, signs = even_strings(parties)
    means = np.array([np.trace(rho @ dense.product_of_paulis(w)).real for w in words(*strings)])
    source = GHZSource(parties, noise=channel(*kraus), white=0.1)
    _, visibility, x_error, _ = statistics(source)
    np.testing.assert_allclose(visibility, np.mean(signs * means), atol=1e-13)
    np.testing.assert_allclose(1 - x_error, np.mean((1 + signs * means) / 2), atol=1e-13)
    # The channels treat X and Y apart, so that plain X tests would give another number.
    assert parties == 2 or abs(means[0] - np.mean(signs * means)) > 1e-3


def parity_signs(parties):
    """(2^N,) product of the outcomes 1 and -1 that an index stands for."""
    return np.array([(-1) ** int(index).bit_count() for index in range(2**parties)])


def test_channels_alike_in_x_and_y_have_the_x_error_of_plain_x_tests(x64):
    kraus = [NOISE["thermal"], NOISE["damping"], dense.pauli_kraus(0.1, 0.1, 0.05)]
    source = GHZSource(3, noise=channel(*kraus), white=0.0)
    plain = dense.born(dense.noisy_ghz(kraus), np.tile([1, 0, 0], (3, 1)))
    np.testing.assert_allclose(statistics(source)[2], plain[parity_signs(3) < 0].sum(), atol=1e-14)


# --- Closed forms for any number of parties -------------------------------------------------------


@functools.partial(jax.jit, static_argnums=1)
@functools.partial(jax.vmap, in_axes=(0, None))
def noisy_statistics(level, parties):
    sources = (
        GHZSource(parties, white=level),
        GHZSource(parties, noise=jq.depolarizing(mix=level)),
        GHZSource(parties, noise=jq.dephasing(error_prob=level)),
    )
    return [[*statistics(source), source.z_error(0, parties - 1)] for source in sources]


@pytest.mark.parametrize("parties", [further(2), 4, further(10), further(100), 1000])
def test_noise_has_its_closed_statistics(parties, x64):
    """Of white noise, local depolarising and local Z flips, from none to complete."""
    level = np.array([0.0, 1e-4, 0.01, 0.05, 0.3, 0.5, 1.0])
    left = 1 - level
    half = 2.0**-parties
    agree = ((1 + left) / 2) ** parties + ((1 - left) / 2) ** parties
    turned = (1 - 2 * level) ** parties
    expected = [
        [left + level * half, left, level / 2, level * (1 - 2 * half), level / 2],
        [
            (agree + left**parties) / 2,
            left**parties,
            (1 - left**parties) / 2,
            1 - agree,
            (1 - left**2) / 2,
        ],
        [(1 + turned) / 2, turned, (1 - turned) / 2, 0 * level, 0 * level],
    ]
    # Errors of rounding add up over the parties.
    np.testing.assert_allclose(noisy_statistics(level, parties), expected, atol=1e-12)


def test_check_values_of_four_parties(x64):
    fidelity, _, x_error, disagreement, z_error = np.array(
        noisy_statistics(np.full(7, 0.05), 4)
    )[1, :, 0]  # fmt: skip
    assert fidelity == pytest.approx(0.859097, abs=1e-6)
    assert x_error == pytest.approx(0.092747, abs=1e-6)
    assert disagreement == pytest.approx(0.096312, abs=1e-6)
    assert z_error == pytest.approx(0.04875, abs=1e-12)


@pytest.mark.matrix
def test_single_precision_holds_for_a_thousand_parties():
    """Rounding adds up to 1000 x 6e-8 of each product; no step under- or overflows."""
    level = np.array([0.0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1.0])
    found = np.array(noisy_statistics(level.astype(np.float32), 1000))
    assert found.dtype == np.float32
    with jax.enable_x64(True):
        exact = np.array(noisy_statistics(level, 1000))
    np.testing.assert_allclose(found, exact, atol=1e-4)


def test_product_states_in_place_of_ghz_states_are_dense_plus_states(x64):
    plus = dense.projector(np.full(8, 8**-0.5, complex))
    source = plus_states(3)
    np.testing.assert_allclose(statistics(source), dense_statistics(plus), atol=1e-14)
    observables = np.random.default_rng(1).normal(size=(4, 3, 4))
    expected = [np.trace(plus @ dense.product_of_paulis(o)).real for o in observables]
    np.testing.assert_allclose(expectations(source, observables).real, expected, atol=1e-12)


# --- Fusion ---------------------------------------------------------------------------------------

CNOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=complex)


def flip_where(qubits, size):
    return dense.tensor([dense.X if q in qubits else dense.I2 for q in range(size)])


def fused_by_gates(states):
    """The nodes' state after CNOT, Z measurement and correction, qubit by qubit.

    Qubits lie in the row of the nodes: node 0, both halves of node 1, both of node 2, ... A node's
    first half belongs to the pair before it, its second one, which is measured, to the next pair.
    """
    size = 2 * len(states)
    rho = dense.tensor(states)
    measured = range(2, size - 1, 2)
    for qubit in measured:
        gate = dense.tensor([np.eye(2 ** (qubit - 1)), CNOT, np.eye(2 ** (size - qubit - 1))])
        rho = gate @ rho @ gate.conj().T
    total = 0
    for bits in itertools.product([0, 1], repeat=len(measured)):
        ends = dict(zip(measured, bits, strict=True))
        effect = [np.diag([1.0 - ends[q], ends[q]]) if q in ends else dense.I2 for q in range(size)]
        shown = dense.tensor(effect) @ rho @ dense.tensor(effect)
        for qubit in measured:  # who was told flips what lies beyond
            if ends[qubit]:
                beyond = [q for q in range(qubit, size) if q not in ends]
                turn = flip_where(beyond, size)
                shown = turn @ shown @ turn
        total = total + trace_out(shown, measured, size)
    return total


def trace_out(rho, qubits, size):
    rho = rho.reshape([2] * (2 * size))
    for qubit in sorted(qubits, reverse=True):
        rho = np.trace(rho, axis1=qubit, axis2=qubit + rho.ndim // 2)
    return rho.reshape(2 ** (size - len(qubits)), -1)


@pytest.mark.parametrize("parties", [further(2), 3, further(4)])
def test_fused_states_are_those_of_the_gates_on_neighbouring_pairs(parties, x64):
    """Other Bell weights for each pair. Noise afterwards acts on the fused state."""
    rng = np.random.default_rng(parties)
    probs = rng.dirichlet(np.ones(4), size=parties - 1)
    rho = fused_by_gates([dense.bell_diagonal_state(p) for p in probs])
    assert np.trace(rho).real == pytest.approx(1, abs=1e-12)
    pair_probs = fused(jq.bell_diagonal(probs), parties).pair_probs
    kraus = [list(NOISE.values())[i] for i in range(parties)]
    after = rho
    for qubit, each in enumerate(kraus):
        after = dense.on_qubit(each, after, qubit)
    after = 0.9 * after + 0.1 * np.eye(len(after)) / len(after)
    noisy = GHZSource(parties, noise=channel(*kraus), white=0.1, pair_probs=pair_probs)
    nothing = channel(*[[dense.I2]] * parties)
    source = GHZSource(parties, noise=nothing, white=0.0, pair_probs=pair_probs)
    observables = rng.normal(size=(16, parties, 4)) + 1j * rng.normal(size=(16, parties, 4))
    for found, state in ((source, rho), (noisy, after)):
        np.testing.assert_allclose(statistics(found), dense_statistics(state), atol=1e-13)
        errors = (1 - expectations(found, z_pairs(parties)).real) / 2
        expected = [dense_z_error(state, *pair) for pair in all_pairs(parties)]
        np.testing.assert_allclose(errors, expected, atol=1e-13)
        expected = [np.trace(state @ dense.product_of_paulis(o)) for o in observables]
        np.testing.assert_allclose(expectations(found, observables), expected, atol=1e-12)


@pytest.mark.parametrize("parties", [2, further(3), further(8), further(100)])
def test_fused_werner_pairs_have_their_closed_statistics(parties, x64):
    for weight in (1.0, 0.999, 0.9, 0.3):
        source = fused(jq.werner(weight=weight), parties)
        both = weight ** (parties - 1)
        fidelity, visibility, x_error, disagreement = statistics(source)
        agree = ((1 + weight) / 2) ** (parties - 1)
        assert float(fidelity) == pytest.approx((agree + both) / 2, abs=1e-12)
        assert float(visibility) == pytest.approx(both, abs=1e-12)
        assert float(x_error) == pytest.approx((1 - both) / 2, abs=1e-12)
        assert float(disagreement) == pytest.approx(1 - agree, abs=1e-12)
        pairs = all_pairs(parties)[: 2 * parties]
        errors = (1 - expectations(source, z_pairs(parties)[: 2 * parties]).real) / 2
        expected = [(1 - weight ** (j - i)) / 2 for i, j in pairs]
        np.testing.assert_allclose(errors, expected, atol=1e-12)


def test_check_value_of_three_fused_nodes(x64):
    fidelity = statistics(fused(jq.werner(fidelity=0.95), 3))[0]
    assert float(fidelity) == pytest.approx(0.902778, abs=1e-6)


def test_pairs_in_any_state_count_by_their_bell_weights():
    rho = dense.random_state(np.random.default_rng(3))
    expected = [(bell.conj() @ rho @ bell).real for bell in dense.BELL]
    source = fused(jq.from_density_matrix(rho), 4)
    np.testing.assert_allclose(source.pair_probs, np.tile(expected, (3, 1)), atol=1e-6)


# --- Samples --------------------------------------------------------------------------------------


def unit_vectors(rng, *shape):
    axes = rng.normal(size=(*shape, 3))
    return axes / np.linalg.norm(axes, axis=-1, keepdims=True)


def outcome_counts(outcomes):
    outcomes = np.asarray(outcomes)
    parties = outcomes.shape[-1]
    index = outcomes.astype(np.int64) @ (1 << np.arange(parties)[::-1])
    return np.bincount(index, minlength=2**parties)


def assert_born(seed, source, rho, axes):
    """SAMPLES outcomes along each of (A, N, 3) axes against Born's probabilities."""
    many = np.broadcast_to(axes[:, None], (len(axes), SAMPLES, *axes.shape[1:]))
    outcomes = draw(jax.random.key(seed), source, many.astype(np.float32))
    assert outcomes.dtype == jnp.uint8
    assert outcomes.shape == many.shape[:-1]
    for each, along in zip(outcomes, axes, strict=True):
        assert_counts_agree(outcome_counts(each), dense.born(rho, along))


@pytest.mark.parametrize("parties", [3, further(4)])
def test_samples_follow_born_along_any_axes(parties):
    """SAMPLES for each of three axes and four kinds of noise."""
    rng = np.random.default_rng(10 + parties)
    for seed, first in enumerate((0, 1, 4)):
        kraus = [list(NOISE.values())[first + i] for i in range(parties)]
        source = GHZSource(parties, noise=channel(*kraus), white=0.1 * (seed == 1))
        axes = unit_vectors(rng, 3, parties)
        assert_born(seed, source, dense.noisy_ghz(kraus, 0.1 * (seed == 1)), axes)
    axes = unit_vectors(rng, 3, parties)
    axes[1:] = [[0, 0, 1.0]], [[0, 1.0, 0]]  # where some outcomes never happen
    nothing = channel(*[[dense.I2]] * parties)
    source = GHZSource(parties, noise=nothing, white=0.0)
    assert_born(9, source, dense.projector(dense.ghz(parties)), axes)


def test_samples_of_fused_states_follow_born_along_any_axes():
    rng = np.random.default_rng(20)
    probs = rng.dirichlet(np.ones(4), size=2)
    rho = fused_by_gates([dense.bell_diagonal_state(p) for p in probs])
    kraus = [NOISE["random"], NOISE["turned damping"], NOISE["thermal"]]
    for qubit, each in enumerate(kraus):
        rho = dense.on_qubit(each, rho, qubit)
    pair_probs = fused(jq.bell_diagonal(probs), 3).pair_probs
    source = GHZSource(3, noise=channel(*kraus), pair_probs=pair_probs)
    axes = unit_vectors(rng, 3, 3)
    axes[1], axes[2] = [0, 0, 1], [1, 0, 0]
    assert_born(3, source, rho, axes)


def test_axes_rounded_to_more_than_one_are_as_good_as_others():
    """1000 copies, exact: along Z all agree, by an axis of a length that rounding leaves.

    The mean of an outcome is a little above one then.
    """
    nothing = channel(*[[dense.I2]] * 3)
    for length in np.nextafter(np.float32(1), np.float32([0, 1, 2])):
        axes = np.tile(np.float32([0, 0, length]), (1000, 3, 1))
        outcomes = draw(jax.random.key(1), GHZSource(3, noise=nothing, white=0.0), axes)
        assert set(np.unique(np.sum(outcomes, axis=-1))) == {0, 3}, length


@pytest.mark.matrix
def test_key_decides_all_and_mapping_over_keys_nothing():
    source = GHZSource(3, noise=channel(*[NOISE["random"]] * 3), white=0.1)
    axes = unit_vectors(np.random.default_rng(5), 50, 3).astype(np.float32)
    keys = jax.random.split(jax.random.key(4), 3)
    mapped = jax.jit(jax.vmap(sample, (0, None, None)))(keys, source, axes)
    for key, found in zip(keys, mapped, strict=True):
        np.testing.assert_array_equal(found, draw(key, source, axes))
    assert np.any(mapped[0] != mapped[1])


# --- Many parties ---------------------------------------------------------------------------------


def assert_statistics(name, outcomes, source):
    """Outcomes (S, N) of a test against the closed values: `CHANCE` for each comparison."""
    parties, size = outcomes.shape[-1], len(outcomes)
    outcomes = np.asarray(outcomes).astype(np.float32)
    ones = outcomes.sum(-1)
    if name == "Z":
        disagree = np.sum((ones > 0) & (ones < parties))
        assert_binomial(disagree, size, float(statistics(source)[3]))
        spins = 1 - 2 * outcomes
        differ = (size - spins.T @ spins) / 2
        counts = [differ[pair] for pair in all_pairs(parties)]
        means = expectations(source, z_pairs(parties)).real
        assert_binomial(np.rint(counts), size, (1 - np.asarray(means, np.float64)) / 2)
    else:
        product = expectations(source, words(name))[0].real
        assert_binomial(np.sum(ones % 2 == 1), size, (1 - float(product)) / 2)
    # Each party alone is unbiased, and X outcomes of some parties are, but of all.
    if name != "Z":
        assert_binomial(outcomes.sum(0), size, 0.5)
        assert_binomial(np.sum(outcomes[:, 1:].sum(-1) % 2 == 1), size, 0.5)


@pytest.mark.parametrize(
    "sampler, parties",
    [("stim", 16), further("stim", 64), further("sample", 64), further("sample", 16)],
)
def test_pauli_noise_on_many_parties_has_the_closed_statistics(sampler, parties):
    """2^15 outcomes of stim, and of `sample`, in each of three bases.

    X along with noise alike in X and Y, where the X error is that of plain X measurements; a
    random string with an even number of Y, where X and Y noise differ; Z.
    """
    size = 2**15
    rng = np.random.default_rng(parties)
    # Other rates for each qubit, that leave a visibility of a few tenths.
    rates = rng.uniform(0, 0.5 / parties, size=(parties, 3))
    alike = np.stack([rates[:, 0], rates[:, 0], rates[:, 2]], axis=1)
    letters = np.where(rng.random(parties) < 0.5, "X", "Y")
    letters[0] = "X" if np.sum(letters[1:] == "Y") % 2 == 0 else "Y"
    bases = {"X" * parties: alike, "".join(letters): rates, "Z": rates}
    for seed, (name, levels) in enumerate(bases.items()):
        source = GHZSource(parties, noise=channel(*(dense.pauli_kraus(*p) for p in levels)))
        string = "Z" * parties if name == "Z" else name
        if sampler == "stim":
            outcomes = stim_outcomes(string, levels, size)
        else:
            axes = np.broadcast_to(words(string)[0, :, 1:], (size, parties, 3))
            outcomes = draw(jax.random.key(seed), source, axes)
        with jax.enable_x64(True):
            assert_statistics(name, outcomes, source)
            if name == "X" * parties:
                wrong = np.sum(np.sum(np.asarray(outcomes, np.int64), axis=-1) % 2 == 1)
                assert_binomial(wrong, size, float(statistics(source)[2]))


def stim_outcomes(string, rates, size):
    """(size, N) outcomes that stim draws of a GHZ state with Pauli noise on every qubit."""
    stim = pytest.importorskip("stim")
    circuit = stim.Circuit("H 0")
    for party in range(1, len(string)):
        circuit.append("CX", [0, party])
    for party, levels in enumerate(rates):
        circuit.append("PAULI_CHANNEL_1", [party], list(levels))
    for party, letter in enumerate(string):
        circuit.append(f"M{letter}", [party])
    return circuit.compile_sampler(seed=7).sample(size)


def test_a_thousand_parties_measure_x_of_even_parity_and_z_alike():
    """Exact: no noise, and noise that the basis does not see. 100 copies."""
    nothing, flips = (
        Channel(np.broadcast_to(dense.transfer_matrix(dense.pauli_kraus(x, 0, z)), (1000, 4, 4)))
        for x, z in ((0, 0), (0.3, 0))
    )
    phases = Channel(
        np.broadcast_to(dense.transfer_matrix(dense.pauli_kraus(0, 0, 0.3)), (1000, 4, 4))
    )
    for name, unseen in (("X", flips), ("Z", phases)):
        axes = np.tile(AXES[name][1:], (100, 1000, 1)).astype(np.float32)
        for noise in (nothing, unseen):
            outcomes = draw(jax.random.key(0), GHZSource(1000, noise=noise), axes)
            ones = np.sum(np.asarray(outcomes, np.int64), axis=-1)
            if name == "X":
                np.testing.assert_array_equal(ones % 2, 0)
                assert len(np.unique(ones)) > 10  # not all alike
            else:
                np.testing.assert_array_equal(np.unique(ones), [0, 1000])


@pytest.mark.statistics
def test_the_last_of_a_thousand_parties_follows_the_others():
    """2^12 copies, damped: who decayed did so alone, wherever in the row it stands.

    The products of a thousand numbers under which the last outcome is drawn are of any size.
    """
    size, gamma = 2**12, 0.2
    damping = dense.transfer_matrix(dense.damping_kraus(gamma))
    source = GHZSource(1000, noise=Channel(np.broadcast_to(damping, (1000, 4, 4))))
    axes = np.tile(np.float32([0, 0, 1]), (size, 1000, 1))
    outcomes = np.asarray(draw(jax.random.key(1), source, axes))
    excited = outcomes[:, :-1].any(-1)
    assert_binomial(excited.sum(), size, 0.5)
    assert not outcomes[~excited, -1].any()
    assert_binomial(outcomes[excited, -1].sum(), excited.sum(), 1 - gamma)
    assert_binomial(outcomes[excited, 0].sum(), excited.sum(), 1 - gamma)


@pytest.mark.statistics
def test_parity_of_a_thousand_noisy_parties_is_the_closed_one():
    """2^10 copies, depolarised and damped differently along the row, X and Y by turns."""
    size, parties = 2**10, 1000
    level = np.linspace(0, 0.0006, parties)
    source = GHZSource(
        parties,
        noise=channel(
            *(dense.compose(dense.pauli_kraus(p, p, p), dense.damping_kraus(p)) for p in level)
        ),
    )
    word = words("XXYY" * (parties // 4))
    axes = np.broadcast_to(word[0, :, 1:], (size, parties, 3)).astype(np.float32)
    ones = np.sum(np.asarray(draw(jax.random.key(2), source, axes), np.int64), axis=-1)
    mean = float(expectations(source, word)[0].real)
    assert mean == pytest.approx(float(statistics(source)[1]), abs=1e-4)  # 500 Y: the sign is plus
    assert 0.1 < mean < 0.5
    assert_binomial(np.sum(ones % 2 == 1), size, (1 - mean) / 2)


@pytest.mark.matrix
@pytest.mark.usefixtures("compiled_anew")
def test_memory_of_a_sample_grows_with_the_parties_and_no_faster():
    def temporary(parties):
        source = GHZSource(parties, noise=jq.depolarizing(mix=0.01))
        axes = jax.ShapeDtypeStruct((100, parties, 3), jnp.float32)
        compiled = draw.lower(jax.random.key(0), source, axes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(1000) < 2.2 * temporary(500)


# --- Derivatives ----------------------------------------------------------------------------------


def all_noise(levels):
    """Fidelity, X error and disagreement under five kinds of noise, of other strength for each."""
    gamma, x, z, mix, white = levels

    def of_one(scale):
        damping = jq.amplitude_damping(gamma=gamma * scale)
        flips = jq.pauli(x=x * scale, y=0.0, z=z * scale)
        return damping.then(flips).then(jq.depolarizing(mix=mix * scale)).ptm

    noise = Channel(jax.vmap(of_one)(jnp.array([1.0, 0.5, 0.8])))
    fidelity, _, x_error, disagreement = statistics(GHZSource(3, noise=noise, white=white))
    return jnp.stack([fidelity, x_error, disagreement])


@pytest.mark.parametrize("mode", ["jacfwd", further("jacrev")])
def test_derivatives_are_those_of_finite_differences_and_whole_at_zero_noise(mode, x64):
    value, jacobian = jax.jit(all_noise), jax.jit(getattr(jax, mode)(all_noise))
    inside, zero, step = np.array([0.1, 0.05, 0.02, 0.1, 0.2]), np.zeros(5), 1e-4
    for at in (inside, zero):
        # Three points to one side, because there is nothing on the other: exact to step^2.
        columns = [
            (-3 * value(at) + 4 * value(at + step * unit) - value(at + 2 * step * unit))
            / (2 * step)
            for unit in np.eye(5)
        ]
        found = jacobian(at)
        assert np.all(np.isfinite(found))
        np.testing.assert_allclose(found, np.transpose(columns), atol=1e-6)
    # Nothing is flat: each kind of noise moves the fidelity at once.
    assert np.all(np.asarray(jacobian(zero))[0] < -0.3)


def test_derivative_with_respect_to_the_pairs_is_that_of_the_closed_form(x64):
    slope = jax.jit(jax.grad(lambda f: fused(jq.werner(fidelity=f), 5).fidelity))
    for fidelity in (0.25, 0.8, 1.0):
        weight = (4 * fidelity - 1) / 3
        expected = 4 / 3 * 4 / 2 * ((1 + weight) ** 3 / 16 + weight**3)
        assert float(slope(fidelity)) == pytest.approx(expected, abs=1e-12)


def test_noise_maps_over_a_batch():
    gamma, white = np.float32([0.0, 0.1, 0.5]), np.float32([0.0, 0.2, 1.0])

    def one(gamma, white):
        return statistics(GHZSource(3, noise=jq.amplitude_damping(gamma=gamma), white=white))

    mapped = np.array(jax.jit(jax.vmap(one))(gamma, white)).T
    for row, g, w in zip(mapped, gamma, white, strict=True):
        rho = dense.noisy_ghz([dense.damping_kraus(g)] * 3, w)
        np.testing.assert_allclose(row, dense_statistics(rho), atol=1e-6)


def test_sources_stack_like_other_pytrees():
    def make(mix):
        return GHZSource(4, noise=jq.depolarizing(mix=mix))

    stacked = jax.vmap(make)(jnp.array([0.0, 0.05]))
    found = jax.vmap(lambda source: source.fidelity)(stacked)
    np.testing.assert_allclose(found, [1, 0.859097], atol=1e-6)


# --- A source that keeps a purification -----------------------------------------------------------


def kept_purification(error, parties=3):
    """(2^N, 2) sqrt(1 - e) |G>|0> + sqrt(e) X_1|G>|1>."""
    state = dense.ghz(parties)
    flipped = flip_where([0], parties) @ state
    return np.stack([np.sqrt(1 - error) * state, np.sqrt(error) * flipped], axis=1)


@pytest.mark.parametrize("error", [0.0, 0.01, 0.2, 0.5, 0.9, 1.0])
def test_a_purification_along_x_tells_the_outcome_as_well_as_any_measurement(error):
    """Dense: what `purification_guess` states, and that no measurement does better (Helstrom)."""
    state = kept_purification(error)
    seen = state @ state.conj().T
    bit_flip = dense.on_qubit(
        dense.pauli_kraus(error, 0, 0), dense.projector(dense.ghz(3)), 0
    )  # fmt: skip
    np.testing.assert_allclose(seen, bit_flip, atol=1e-15)
    assert float(dense_statistics(seen)[3]) == pytest.approx(error, abs=1e-12)
    signs = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    # (x of the first party, the others, x of the purification)
    along_x = np.einsum("ai,be,ije->ajb", signs, signs, state.reshape(2, 4, 2))
    joint = np.sum(np.abs(along_x) ** 2, axis=1)
    distance = np.sqrt(error * (1 - error))
    np.testing.assert_allclose(np.diag(joint), (0.5 + distance) / 2, atol=1e-12)
    np.testing.assert_allclose(joint.sum(1), 0.5, atol=1e-12)
    # 1/2 || rho_KE - U x rho_E ||: of the first party's outcome and what is kept.
    of_outcome = np.einsum("ai,ije->aje", signs, state.reshape(2, 4, 2))
    kept = np.einsum("aje,ajf->aef", of_outcome, of_outcome.conj())
    ideal = kept.sum(0) / 2
    off = sum(np.abs(np.linalg.eigvalsh(each - ideal)).sum() for each in kept) / 2
    assert off == pytest.approx(distance, abs=1e-12)


def test_guesses_are_right_as_often_as_the_purification_allows():
    """SAMPLES outcomes for each error, of which half are ones."""
    outcomes = (np.arange(SAMPLES) % 2).astype(np.uint8)
    guess = jax.jit(purification_guess)
    for seed, error in enumerate((0.0, 0.01, 0.2, 0.9)):
        guesses = np.asarray(guess(jax.random.key(seed), outcomes, error))
        assert guesses.dtype == np.uint8
        right = guesses == outcomes
        for value in (0, 1):
            prob = 0.5 + np.sqrt(error * (1 - error))
            assert_binomial(right[outcomes == value].sum(), SAMPLES // 2, prob)
    np.testing.assert_array_equal(guess(jax.random.key(9), outcomes, 0.5), outcomes)


# --- Refusals -------------------------------------------------------------------------------------

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "call, error, message",
    [
        *(
            (lambda parties=parties: GHZSource(parties), ValueError,
             rf"`num_parties` must be an integer of at least 2, but got {parties}\.")
            for parties in (1, 0, -3, 2.0, True, None)
        ),
        (lambda: GHZSource(3, white=1.5), ValueError,
         r"`white` must lie in \[0, 1\], but got 1\.5\."),
        (lambda: GHZSource(3, white=-0.1), ValueError, r"`white` must lie in \[0, 1\]"),
        (lambda: GHZSource(3, white=np.nan), ValueError, r"`white` must lie in \[0, 1\]"),
        (lambda: GHZSource(3, noise=np.eye(4)), TypeError, "`noise` must be a Channel"),
        (lambda: GHZSource(3, noise=0.1), TypeError, "`noise` must be a Channel"),
        (lambda: GHZSource(4, noise=Channel(np.zeros((3, 4, 4)))).fidelity, ValueError,
         r"`noise` must be one channel or 4, one for each party, but got \(3, 4, 4\)\."),
        (lambda: GHZSource(3).expectation(np.zeros((2, 4))), ValueError,
         r"`observables` must have the shape \(3, 4\), but got \(2, 4\)\."),
        (lambda: GHZSource(3).expectation(np.zeros((3, 3))), ValueError,
         r"`observables` must have the shape \(3, 4\)"),
        (lambda: fused(0.9, 3), TypeError, "`pair` must be a Pair"),
        (lambda: fused(jq.werner(fidelity=0.9), 3.0), ValueError,
         r"`num_parties` must be an integer of at least 2, but got 3\.0\."),
        (lambda: fused(jq.werner(fidelity=np.full(3, 0.9)), 3), ValueError,
         r"`pair` must be one pair or 2, but got \(3,\)\."),
        (lambda: fused(jq.werner(fidelity=np.full((2, 2), 0.9)), 3), ValueError,
         r"`pair` must be one pair or 2"),
        (lambda: fused(jq.werner(fidelity=0.9), 1), ValueError, "`num_parties` must be an integer"),
        (lambda: sample(0, GHZSource(3), np.zeros((3, 3))), TypeError,
         "`key` must be a typed key"),
        (lambda: sample(jax.random.split(KEY), GHZSource(3), np.zeros((3, 3))), ValueError,
         "`key` must be a single key"),
        (lambda: sample(KEY, plus_states, np.zeros((3, 3))), TypeError,
         "`source` must be a GHZSource"),
        (lambda: sample(KEY, GHZSource(3), np.zeros((5, 2, 3))), ValueError,
         r"`axes` must have the shape \(\.\.\., 3, 3\), but got \(5, 2, 3\)\."),
        (lambda: PlantedSource(GHZSource(3), plus_states(4)), ValueError,
         "`bad` must have the 3 parties of the honest source, but got 4"),
        (lambda: PlantedSource(GHZSource(3), 0.1), TypeError, "`bad` must be a GHZSource"),
        (lambda: PlantedSource(3, GHZSource(3)), TypeError, "`honest` must be a GHZSource"),
        *(
            (lambda count=count: PlantedSource(GHZSource(3), plus_states(3), count), ValueError,
             "`count` must be an integer of at least 0")
            for count in (-1, 1.0, True)
        ),
        (lambda: plus_states(1), ValueError, "`num_parties` must be an integer of at least 2"),
        (lambda: purification_guess(KEY, np.zeros(3, np.uint8), 1.2), ValueError,
         r"`error_prob` must lie in \[0, 1\], but got 1\.2"),
        (lambda: purification_guess(0, np.zeros(3, np.uint8), 0.2), TypeError,
         "`key` must be a typed key"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()
