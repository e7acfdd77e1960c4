"""Gradients of two parties: every method against dense circuits with an ancilla, and its variance.

In float64. The check values belong to three qubits and two layers.
"""

import functools
import itertools
import re

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qmodels_dense as reference

import jaxqring as jq
from jaxqring.qmodels import GlobalDepolarizing, TwoParty, two_party_gradients, two_party_loss
from jaxqring.qmodels._commuting import diagonal_form, multiply, outcome_law
from jaxqring.qmodels._pauli_strings import commute, strings
from jaxqring.qmodels._unitaries import Rotations, parts

ALICE, BOB, OBSERVABLE = ("XXI", "IZZ", "YIX"), ("ZXI", "IYY", "XIZ"), "ZII"
LAYER, PLACE = np.ogrid[:2, :3]
ANGLES = {"alice": 0.3 + 0.2 * PLACE + 0.5 * LAYER, "bob": -0.4 + 0.3 * PLACE + 0.25 * LAYER}
DATA = np.arange(1.0, 9.0)
METHODS = ("shift", "ancilla", "shadows", "bell")
#: Two and three strings in a group, entanglers between them.
GROUPED = {"alice": ("XXI", "YYI", "ZZI", "cnot-ring", "IZX"), "bob": ("YII", "IIY", "cz-line")}
GROUPED_ANGLES = {"alice": np.array([[0.3, -0.8, 0.5, 1.1]]), "bob": np.array([[0.7, -0.4]])}
DAMPING = [np.diag([1, np.sqrt(0.9)]), np.array([[0, np.sqrt(0.1)], [0, 0]])]
close = functools.partial(np.testing.assert_allclose, rtol=0)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def model(hop=None):
    return TwoParty(ALICE, BOB, OBSERVABLE, 2, hop)


def grouped(hop=None):
    return TwoParty(**GROUPED, observable="ZXI", layers=1, hop=hop)


@functools.cache
def compiled(method):
    """Value and variance of one shot for a model and its angles, compiled once for each."""
    return jax.jit(lambda own, angles: two_party_gradients(own, angles, DATA, method=method))


def exact(method, own=None, angles=ANGLES):
    """Value and variance of one shot, in the order of time."""
    found = compiled(method)(own or model(), angles)
    assert (found.shots, found.copies) == (None, 0)
    assert all(np.all(variance == 0) for variance in found.variance.values())
    return reference.in_time(found.value), reference.in_time(found.unit_variance)


def test_the_methods_agree_on_the_mean():
    gradient, none = exact("exact")
    assert np.all(none == 0)
    close(gradient, reference.ancilla_gradient(ALICE, BOB, OBSERVABLE, ANGLES, DATA), atol=1e-14)
    for method in ("shift", "ancilla", "shadows"):
        close(exact(method)[0], gradient, atol=1e-15)
    close(exact("bell")[0], gradient**2, atol=1e-15)
    for method in ("shift", "ancilla"):
        close(
            exact(method, grouped(), GROUPED_ANGLES)[0],
            exact("exact", grouped(), GROUPED_ANGLES)[0],
            atol=1e-15,
        )


def test_the_variances_of_one_shot_are_the_check_values():
    close(two_party_loss(model(), ANGLES, DATA).unit_variance, 0.967813926, atol=1e-9)
    close(exact("shift")[1][[0, 11]], [0.495626921, 0.324976024], atol=1e-9)
    close(exact("ancilla")[1][11], 0.649952048, atol=1e-9)
    close(exact("shadows")[1][11], 26.649952048, atol=1e-9)
    close([exact("bell")[part][11] for part in (0, 1)], [0.350047952, 0.877466431], atol=1e-9)
    sides = []
    for party, place, sign in itertools.product(("bob", "alice"), (0, 2), (1, -1)):
        moved = {name: values.copy() for name, values in ANGLES.items()}
        moved[party][0 if party == "bob" else 1, place] += sign * np.pi / 2
        sides.append(reference.loss(ALICE, BOB, OBSERVABLE, moved, DATA))
    close(sides[:2], [0.011663657, 0.131743220], atol=1e-9)
    close(sides[-2:], [0.591648504, -0.591648504], atol=1e-9)


def test_the_shift_stays_exact_under_noise():
    own = model(jq.amplitude_damping(gamma=0.1))
    gradient = exact("shift", own)[0]
    close(gradient[[0, 5, 11]], [-0.054042, 0.202104, 0.217098], atol=6e-7)
    close(gradient, exact("exact", own)[0], atol=1e-14)


def test_the_ancilla_through_white_noise_has_the_check_values():
    gradient = exact("ancilla", model(GlobalDepolarizing(0.9)))[0]
    wanted = [-0.028716841, 0.062809943, -0.114622137, 0.388180584]
    close(gradient[[0, 3, 8, 11]], wanted, atol=1e-9)
    hops = np.repeat(model().gradient_hops, 3)
    close(gradient, 0.9**hops * exact("exact")[0], atol=1e-14)


@pytest.mark.parametrize("kind", ["damping", "teleported, each hop its own"])
def test_the_ancilla_through_noisy_hops_is_the_dense_circuit(kind):
    fidelities = (0.97, 0.8, 0.9, 0.95)
    if kind == "damping":
        hop, hops = jq.amplitude_damping(gamma=0.1), [reference.kraus_hop(DAMPING, 3)] * 4
    else:
        hop = jq.werner(fidelity=np.array(fidelities))
        states = [dense.werner_state(fidelity) for fidelity in fidelities]
        hops = [reference.kraus_hop(reference.teleport_kraus(state), 3) for state in states]
    wanted = reference.ancilla_gradient(ALICE, BOB, OBSERVABLE, ANGLES, DATA, hops=hops)
    found, unit = exact("ancilla", model(hop))
    close(found, wanted, atol=1e-13)
    close(unit, 1 - wanted**2, atol=1e-13)
    assert np.max(abs(found - exact("exact", model(hop))[0])) > 0.01


# --- Laws of what is read -------------------------------------------------------------------------


def test_runs_of_commuting_strings_and_their_diagonal_form():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pool, group = list(rng.permutation(strings(3)[1:])), []
        for string in pool:
            if all(commute(string, other) for other in group) and len(group) < 5:
                group.append(str(string))
        factor = rng.normal(size=(8, 8)) + 1j * rng.normal(size=(8, 8))
        rho = factor @ factor.conj().T / np.trace(factor @ factor.conj().T).real
        law = np.asarray(outcome_law(jnp.asarray(rho), tuple(group), dense=True))
        values = diagonal_form(tuple(group))[2]
        wanted = reference.joint_law(rho, [reference.string(string) for string in group])
        for signs, probability in wanted.items():
            found = law[np.all(values == np.array(signs)[:, None], axis=0)].sum()
            close(found, probability, atol=1e-12)
    with jax.enable_x64(False):
        pure = jq.qmodels.amplitudes(np.arange(1.0, 9.0))
        close(outcome_law(pure, ("ZII",), dense=False), abs(np.asarray(pure)) ** 2, atol=1e-7)


@pytest.mark.parametrize("left, right", [("XYZI", "YYXZ"), ("ZX", "XZ"), ("YZ", "ZY")])
def test_a_product_of_strings_is_that_of_matrices(left, right):
    phase, string = multiply(left, right)
    product = reference.string(left) @ reference.string(right)
    close(product, phase * reference.string(string), atol=1e-15)


def test_groups_are_maximal_runs_that_commute():
    found = parts(("XX", "ZZ", "ZI", "IZ", "cz-ring", "IZ"), commuting=True)
    assert found == (
        *(Rotations(("XX", "ZZ"), 0), Rotations(("ZI", "IZ"), 2)),
        *("cz-ring", Rotations(("IZ",), 4)),
    )


def dense_states():
    return reference.psi_states(GROUPED["alice"], GROUPED["bob"], "ZXI", GROUPED_ANGLES, DATA)


def state_of_alice():
    """|Psi><Psi| of the group XXI, YYI, ZZI, and its operators -Y P, from the dense circuit."""
    rho = list(dense_states())[1][1]  # after the undoing of IZX alone
    return rho, [np.kron(-dense.Y, reference.string(p)) for p in GROUPED["alice"][:3]]


def sampled(method, shots, count, own, angles):
    """Estimates (count, P) in the order of time, from as many keys, and the prediction of one."""
    keys = jax.random.split(jax.random.key(5), count)

    def one(key):
        found = two_party_gradients(own, angles, DATA, method=method, shots=shots, key=key)
        return found.value, found.variance

    value, variance = jax.jit(jax.vmap(one))(keys)
    variances = {party: own[0] for party, own in variance.items()}
    return reference.in_time(value), reference.in_time(variances)


@pytest.mark.parametrize("method", METHODS)
def test_an_estimate_has_the_mean_and_the_variance_that_are_predicted(method):
    """4,096 estimates of 16 shots: six standard errors of 12 means and variances, 5e-8 in all."""
    count, shots = 4096, 16
    found, predicted = sampled(method, shots, count, model(), ANGLES)
    mean, _ = exact(method)
    assert np.all(abs(found.mean(0) - mean) < 6 * np.sqrt(predicted / count))
    # A reading of a shadow is 0 or +-3^(w + 1), of fourth moment 3^(w + 1) times its square.
    excess = 81 / shots if method == "shadows" else 0
    assert np.all(abs(found.var(0) / predicted - 1) < 6 * np.sqrt((2 + excess) / count))


@pytest.mark.parametrize("method", ["ancilla", "bell"])
def test_the_strings_of_a_group_are_read_together(method):
    """20,000 single readings of three strings: all eight outcomes, six standard errors each."""
    rho, operators = state_of_alice()
    count = 20_000
    found, _ = sampled(method, 1, count, grouped(), GROUPED_ANGLES)
    found = found[:, 2:5]  # after the two of Bob
    if method == "ancilla":
        law = reference.joint_law(rho, operators)
    else:  # the Bell measurement itself, of all strings at once
        every = reference.bell_law(rho)
        close(every.sum(), 1, atol=1e-12)
        read = np.stack([reference.bell_signs("Y" + string) for string in GROUPED["alice"][:3]])
        law = {
            signs: every[np.all(read == np.reshape(signs, (3, *[1] * every.ndim)), axis=0)].sum()
            for signs in itertools.product([1, -1], repeat=3)
        }
    assert np.sort(list(law.values()))[-4] > 1e-3
    for signs, probability in law.items():
        share = np.mean(np.all(found == np.array(signs), axis=1))
        spread = np.sqrt(max(probability * (1 - probability), 0) / count)
        assert abs(share - probability) <= 6 * spread + 1e-9


def test_shadows_read_two_strings_of_one_basis_together():
    """20,000 readings; 3^-3 of them read both strings: six standard errors of that share."""
    found, _ = sampled("shadows", 1, 20_000, grouped(), GROUPED_ANGLES)
    both = found[:, 0] * found[:, 1] != 0  # YII and IIY of Bob, with the ancilla along Y
    assert abs(both.mean() - 1 / 27) < 6 * np.sqrt(1 / 27 / 20_000)
    assert set(np.unique(found[:, :2])) == {-9, 0, 9}
    # XX, YY and ZZ have no basis in common.
    assert np.all(np.sum(found[:, 2:5] != 0, axis=1) <= 1)
    rho = next(rho for segment, rho, _ in list(dense_states())[::-1] if segment == 0)
    parity = np.kron(np.eye(2), reference.string("YIY"))  # the ancilla cancels
    product = np.trace(parity @ rho).real
    assert abs(np.mean(found[:, 0] * found[:, 1]) / 3 - product) < 6 * np.sqrt(27 / 20_000)


def test_samples_through_noise_have_the_noisy_mean():
    """4,096 estimates of 16 shots, six standard errors."""
    own = grouped(jq.amplitude_damping(gamma=0.1))
    hops = [reference.kraus_hop(DAMPING, 3)] * 2
    wanted = reference.ancilla_gradient(
        GROUPED["alice"], GROUPED["bob"], "ZXI", GROUPED_ANGLES, DATA, hops=hops
    )
    found, predicted = sampled("ancilla", 16, 4096, own, GROUPED_ANGLES)
    close(predicted, (1 - wanted**2) / 16, atol=1e-12)
    assert np.all(abs(found.mean(0) - wanted) < 6 * np.sqrt(predicted / 4096))


def test_a_loss_by_shots_has_the_variance_that_is_predicted():
    """4,096 losses of 16 shots, six standard errors of the mean and of the variance."""
    keys = jax.random.split(jax.random.key(2), 4096)
    own = functools.partial(two_party_loss, model(), ANGLES, DATA, shots=16)
    found = jax.jit(jax.vmap(lambda key: own(key=key)))(keys)
    close(found.variance, 0.967813926 / 16, atol=1e-9)
    assert abs(found.value.mean() + 0.179404777) < 6 * np.sqrt(0.967813926 / 16 / 4096)
    assert abs(found.value.var() / (0.967813926 / 16) - 1) < 6 * np.sqrt(2 / 4096)


def test_copies_are_those_of_sides_groups_and_pairs():
    def copies(method):
        shape = jax.eval_shape(
            lambda key: two_party_gradients(
                grouped(), GROUPED_ANGLES, DATA, method=method, shots=10, key=key
            ),
            jax.random.key(0),
        )
        return shape.copies

    found = {method: copies(method) for method in METHODS}
    # Six angles on two sides; the groups are three strings and one of Alice's, two of Bob's.
    assert found == {"shift": 120, "ancilla": 30, "shadows": 30, "bell": 60}
    two = two_party_loss(model(), ANGLES, np.stack([DATA] * 2), shots=7, key=jax.random.key(0))
    assert two.copies == 14


further = functools.partial(pytest.param, marks=pytest.mark.matrix)


@pytest.mark.parametrize(
    "method", ["exact", "ancilla", further("shift"), further("shadows"), further("bell")]
)
def test_every_mapping_gives_the_same_numbers(method, mapping):
    own = grouped(jq.werner(fidelity=np.array([0.9, 0.8])) if method == "ancilla" else None)
    shots = None if method == "exact" else 20

    def one(x, key, angles):
        key = None if shots is None else key
        found = two_party_gradients(own, angles, x, method=method, shots=shots, key=key)
        return found.value

    data, keys = np.stack([DATA, DATA[::-1]]), jax.random.split(jax.random.key(4), 2)
    found = mapping(one, 2, shared=1)(data, keys, GROUPED_ANGLES)
    for row in range(2):
        alone = jax.jit(one)(data[row], keys[row], GROUPED_ANGLES)
        for party in alone:
            close(found[party][row], alone[party], atol=1e-12)


def refused():
    key = jax.random.key(0)
    eight = TwoParty(("X" * 8,), ("Z" * 8,), "Z" * 8, 1, jq.werner(fidelity=0.9))
    one = {"alice": np.ones((1, 1)), "bob": np.ones((1, 1))}

    def call(**options):
        return two_party_gradients(model(), ANGLES, DATA, **options)

    return {
        "`shots` must be an integer": lambda: call(method="shift", shots=0, key=key),
        "`shots` must be None for": lambda: call(shots=5, key=key),
        "`key` must be given": lambda: call(method="ancilla", shots=5),
        "`method` must be one of": lambda: call(method="tomography"),
        "`x` must be one input": lambda: two_party_gradients(model(), ANGLES, np.ones((2, 8))),
        "`hop` must be None where there": lambda: two_party_gradients(
            eight, one, np.ones(256), method="ancilla", shots=5, key=key
        ),
        "`hop` must have no batch axis, or one of 2 hops": lambda: two_party_loss(
            eight.replace(hop=jq.werner(fidelity=np.full(3, 0.9))),
            one,
            np.ones(256),
            shots=5,
            key=key,
        ),
        "`shots` must be an integer of": lambda: two_party_loss(model(), ANGLES, DATA, shots=-1),
    }


@pytest.mark.parametrize("sentence", refused())
def test_a_value_is_refused_in_one_sentence(sentence):
    with pytest.raises(ValueError, match=rf"^{re.escape(sentence)}.*\.$"):
        refused()[sentence]()


def test_a_key_of_the_old_style_is_refused():
    with pytest.raises(TypeError, match="`key` must be a typed key"):
        two_party_loss(model(), ANGLES, DATA, shots=3, key=jax.random.PRNGKey(0))


def test_a_clifford_shadow_would_have_its_variance():
    """No method of ours, but a rival of Pauli shadows: 2^(n + 1) + 1 - g^2 by the group itself.

    A random Clifford makes of a string one of Z and I alone with chance 1 / (2^(n + 1) + 1), and
    the snapshot is that factor times the outcome, or zero. 20,000 draws by stim, which takes no
    seed here: the share is within six of its standard errors but for a chance of 2e-9.
    """
    stim = pytest.importorskip("stim")
    draws, factor = 20_000, 2**4 + 1
    hits = 0
    for _ in range(draws):
        image = stim.Tableau.random(4)(stim.PauliString("YYIX"))
        hits += all(image[q] in (0, 3) for q in range(4))
    share = 1 / factor
    assert abs(hits / draws - share) < 6 * np.sqrt(share * (1 - share) / draws)
    g = exact("exact")[0][11]
    close(factor**2 * share - g**2, 16.649952048, atol=1e-9)


def test_the_cost_is_that_of_the_copies_and_their_hops():
    own, shots = grouped(), 20
    cost = functools.partial(
        jq.qmodels.two_party_cost,
        own.qubits,
        own.layers,
        shots=shots,
        parameters=tuple(own.parameters.values()),
        groups=tuple(own.groups.values()),
    )
    for method in METHODS:
        found = two_party_gradients(
            own, GROUPED_ANGLES, DATA, method=method, shots=shots, key=jax.random.key(0)
        )
        assert found.copies == cost(method=method).copies
        hops = {"bob": own.gradient_hops[0], "alice": own.gradient_hops[1]}
        times = 2 if method == "bell" else 1
        wanted = sum(times * shots * own.groups[party] * hops[party] for party in hops)
        if method == "shift":
            wanted = 2 * shots * sum(own.parameters.values()) * own.hops
        assert cost(method=method).qubits == wanted * own.qubits
