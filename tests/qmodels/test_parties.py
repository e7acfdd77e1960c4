"""The model of two parties: its loss through hops of every kind, and what it says of itself.

The check values belong to three qubits and two layers; beside each stands a calculation with dense
matrices. In float64, to nine digits as printed.
"""

import functools
import re

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qmodels_dense as reference

import jaxqring as jq
from jaxqring.qmodels import GlobalDepolarizing, TwoParty
from jaxqring.qmodels._trajectories import trajectories

ALICE, BOB, OBSERVABLE = ("XXI", "IZZ", "YIX"), ("ZXI", "IYY", "XIZ"), "ZII"
LAYER, PLACE = np.ogrid[:2, :3]
ANGLES = {"alice": 0.3 + 0.2 * PLACE + 0.5 * LAYER, "bob": -0.4 + 0.3 * PLACE + 0.25 * LAYER}
DATA = np.arange(1.0, 9.0)
GRADIENT = [
    *(-0.060040, -0.319805, -0.210126, 0.118188, 0.289718, 0.421165),
    *(0.160994, -0.166824, -0.194114, 0.075862, 0.082897, 0.591649),
]
MIXED = (
    ("YII", "XXZ", "cnot-ring", "IZI", "IIY", "IXI", "cz-line", "ZXI"),
    ("cz-ring", "IXX", "cnot-line"),
)
close = functools.partial(np.testing.assert_allclose, rtol=0)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def model(hop=None):
    return TwoParty(ALICE, BOB, OBSERVABLE, 2, hop)


@jax.jit  # compiled once for each kind of hop
def loss_of(own, angles=ANGLES, x=DATA):
    return own.loss(angles, x)


def damping(gamma):
    return [np.diag([1, np.sqrt(1 - gamma)]), np.array([[0, np.sqrt(gamma)], [0, 0]])]


def werner_hop(fidelity):
    return reference.kraus_hop(reference.teleport_kraus(dense.werner_state(fidelity)), 3)


BELL_PROBS = (0.9, 0.05, 0.03, 0.02)
#: What is computed (inside x64), the same hop as dense matrices, and the check value.
NOISES = {
    "white": (lambda: GlobalDepolarizing(0.9), reference.white_hop(0.9, 3), -0.117707474),
    "mix": (
        lambda: jq.depolarizing(mix=0.05),
        reference.kraus_hop(dense.pauli_kraus(0.0125, 0.0125, 0.0125), 3),
        -0.138862955,
    ),
    **{
        f"damping {gamma}": (
            functools.partial(jq.amplitude_damping, gamma=gamma),
            reference.kraus_hop(damping(gamma), 3),
            value,
        )
        for gamma, value in ((0.05, -0.081614814), (0.1, -0.008176805), (0.2, 0.088298058))
    },
    **{
        f"Werner {fidelity}": (
            functools.partial(jq.werner, fidelity=fidelity),
            werner_hop(fidelity),
            value,
        )
        for fidelity, value in ((0.95, -0.126878283), (0.9, -0.086642230))
    },
    "Bell": (
        lambda: jq.bell_diagonal(np.array(BELL_PROBS)),
        reference.kraus_hop(reference.teleport_kraus(dense.bell_diagonal_state(BELL_PROBS)), 3),
        -0.096216748,
    ),
}


def test_the_loss_and_its_gradient_are_the_check_values():
    loss, slope = jax.jit(jax.value_and_grad(lambda own: model().loss(own, DATA)))(ANGLES)
    close(loss, -0.179404777, atol=1e-9)
    close(loss, reference.loss(ALICE, BOB, OBSERVABLE, ANGLES, DATA), atol=1e-14)
    flat = reference.in_time(slope)
    close(flat, GRADIENT, atol=6e-7)
    close(np.linalg.norm(flat), 0.937774857, atol=1e-9)
    step = 1e-5
    for party in ANGLES:
        for place in np.ndindex(2, 3):
            sides = []
            for side in (step, -step):
                moved = {name: values.copy() for name, values in ANGLES.items()}
                moved[party][place] += side
                sides.append(reference.loss(ALICE, BOB, OBSERVABLE, moved, DATA))
            close(slope[party][place], (sides[0] - sides[1]) / (2 * step), atol=1e-9)


@pytest.mark.parametrize("name", NOISES)
def test_the_loss_through_noisy_hops_is_that_of_dense_matrices(name):
    hop, other, value = NOISES[name]
    loss = loss_of(model(hop()))
    close(loss, value, atol=1e-9)
    close(loss, reference.loss(ALICE, BOB, OBSERVABLE, ANGLES, DATA, [other] * 4), atol=1e-12)


def test_a_hop_comes_before_the_unitary_that_it_leads_to():
    # Damping before the first unitary and none after the last: the other order is another number.
    hop = reference.kraus_hop(damping(0.2), 3)
    parts = list(reference.segments(ALICE, BOB, ANGLES, 3))
    rho = hop(reference.run(parts, reference.initial(DATA), [reference.same] + [hop] * 3))
    assert abs(np.trace(reference.string(OBSERVABLE) @ rho).real - 0.088298058) > 0.01


def test_any_two_qubit_state_teleports_by_its_bell_probabilities():
    rho = dense.random_state(np.random.default_rng(3))
    other = reference.kraus_hop(reference.teleport_kraus(rho), 3)
    found = loss_of(model(jq.from_density_matrix(rho)))
    close(found, reference.loss(ALICE, BOB, OBSERVABLE, ANGLES, DATA, [other] * 4), atol=1e-12)


def test_every_hop_has_its_own_physics_and_its_own_derivative():
    fidelities = np.array([0.99, 0.9, 0.95, 0.8])

    def loss(each):
        return model(jq.werner(fidelity=each)).loss(ANGLES, DATA)

    def other(each):
        hops = [werner_hop(fidelity) for fidelity in each]
        return reference.loss(ALICE, BOB, OBSERVABLE, ANGLES, DATA, hops)

    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.asarray(fidelities))
    close(value, other(fidelities), atol=1e-12)
    for hop, one in enumerate(np.eye(4) * 1e-5):
        close(slope[hop], (other(fidelities + one) - other(fidelities - one)) / 2e-5, atol=1e-8)


@pytest.mark.parametrize(
    "make, other",
    [
        (lambda e: jq.werner(fidelity=1 - e), lambda e: werner_hop(1 - e)),
        (
            lambda e: jq.amplitude_damping(gamma=e),
            lambda e: reference.kraus_hop(damping(e), 3),
        ),
        (lambda e: GlobalDepolarizing(1 - e), lambda e: reference.white_hop(1 - e, 3)),
    ],
    ids=["teleported", "damping", "white"],
)
def test_the_derivative_at_no_noise_is_finite(make, other):
    slope = jax.jit(jax.grad(lambda error: model(make(error)).loss(ANGLES, DATA)))(0.0)
    near, far = (
        reference.loss(ALICE, BOB, OBSERVABLE, ANGLES, DATA, [other(error)] * 4)
        for error in (1e-4, 2e-4)
    )
    start = reference.loss(ALICE, BOB, OBSERVABLE, ANGLES, DATA)
    close(slope, (4 * near - far - 3 * start) / 2e-4, atol=1e-5)


@pytest.mark.parametrize("noisy", [False, True])
def test_entanglers_and_batches_are_those_of_dense_matrices(noisy):
    alice, bob = MIXED
    rng = np.random.default_rng(1)
    hop = jq.amplitude_damping(gamma=np.array([0.1, 0.2])) if noisy else None
    hops = [reference.kraus_hop(damping(gamma), 3) for gamma in (0.1, 0.2)] if noisy else None
    own = TwoParty(alice, bob, "XZY", 1, hop)
    assert own.parameters == {"alice": 6, "bob": 1}
    angles = {"alice": rng.normal(size=(9, 1, 6)), "bob": rng.normal(size=(1, 1))}
    data = rng.normal(size=(9, 8))
    found = loss_of(own, angles, data)
    shared = loss_of(own, {"alice": angles["alice"][0], "bob": angles["bob"]}, data)
    assert found.shape == shared.shape == (9,)
    for row in range(9):
        each = {"alice": angles["alice"][row], "bob": angles["bob"]}
        close(found[row], reference.loss(alice, bob, "XZY", each, data[row], hops), atol=1e-12)
        each = {"alice": angles["alice"][0], "bob": angles["bob"]}
        # Nine states of eight amplitudes: the gates become one matrix.
        close(shared[row], reference.loss(alice, bob, "XZY", each, data[row], hops), atol=1e-12)


def test_single_precision_is_the_default():
    with jax.enable_x64(False):
        for hop in (None, jq.werner(fidelity=0.95), GlobalDepolarizing(0.9)):
            angles = {party: jnp.asarray(own, jnp.float32) for party, own in ANGLES.items()}
            loss = loss_of(model(hop), angles)
            assert loss.dtype == jnp.float32
        close(loss, -0.117707474, atol=2e-6)


@pytest.mark.parametrize("name", ["damping 0.2", "Bell"])
def test_tensorcircuit_agrees_on_noisy_hops(name):
    import tensorcircuit as tc

    with jax.enable_x64(False):
        hop = NOISES[name][0]()
        before = tc.backend.name
        tc.set_backend("jax")
        try:
            circuit = tc.DMCircuit(3, inputs=jnp.asarray(DATA / np.linalg.norm(DATA)))
            for segment in range(4):
                for qubit in range(3):
                    if name == "Bell":
                        _, z, x, y = BELL_PROBS
                        circuit.depolarizing(qubit, px=x, py=y, pz=z)
                    else:
                        circuit.amplitudedamping(qubit, gamma=0.2, p=1.0)
                party = "alice" if segment % 2 else "bob"
                for letters, angle in zip(
                    ALICE if segment % 2 else BOB, ANGLES[party][segment // 2], strict=True
                ):
                    matrix = tc.backend.convert_to_tensor(reference.string(letters))
                    turn = jax.scipy.linalg.expm(-0.5j * angle * matrix)
                    circuit.any(0, 1, 2, unitary=turn.astype(jnp.complex64))
            found = circuit.expectation_ps(z=[0]).real
        finally:
            tc.set_backend(before)
        close(found, NOISES[name][2], atol=2e-6)
        close(loss_of(model(hop)), found, atol=2e-6)


# --- Runs beyond density matrices -----------------------------------------------------------------


def test_runs_with_errors_have_the_law_of_the_density_matrix():
    """20,000 runs each: six standard errors, 2e-9 for each of the two numbers."""
    pair = jq.bell_diagonal(np.array([0.8, 0.04, 0.15, 0.01]))
    data = np.stack([DATA, DATA[::-1]])
    own = model(pair)
    draw = jax.jit(lambda pair, key: trajectories(own, pair, ANGLES, data, 20_000, key))
    found = draw(pair, jax.random.key(0))
    exact = np.asarray(loss_of(own, ANGLES, data))
    close(found, exact, atol=6 * np.sqrt((1 - exact**2) / 20_000).max())
    assert np.any(abs(found - np.asarray(loss_of(model(), ANGLES, data))) > 0.06)


def test_eight_qubits_teleport_by_the_errors_of_each_run():
    """40,000 runs: six standard errors, 2e-9."""
    alice, bob = ("XXIIIIII", "IYIIIIIZ"), ("YIIIIIII",)
    angles = {"alice": np.array([[0.4, -0.9]]), "bob": np.array([[0.8]])}
    data = np.random.default_rng(0).normal(size=256) + 0.2
    data[:128] *= 3
    own = TwoParty(alice, bob, "Z" + "I" * 7, 1, jq.werner(fidelity=np.array([0.7, 0.9])))
    sampled = jax.jit(
        lambda key: jq.qmodels.two_party_loss(own, angles, data, shots=40_000, key=key)
    )(jax.random.key(1))
    exact = _eight_qubits(alice, bob, angles, data, (0.7, 0.9))
    close(sampled.value, exact, atol=6 * np.sqrt((1 - exact**2) / 40_000))
    assert abs(exact - reference.loss(alice, bob, "ZIIIIIII", angles, data)) > 0.03


def _eight_qubits(alice, bob, angles, data, fidelities):
    """The loss in the Heisenberg picture, where a hop of Werner pairs depolarises each qubit."""
    shrink = [(4 * fidelity - 1) / 3 for fidelity in fidelities]
    observable = reference.string("ZIIIIIII")
    for gates, factor in zip(
        [
            list(reference.gates_of(alice, angles["alice"][0], 8)),
            list(reference.gates_of(bob, angles["bob"][0], 8)),
        ],
        shrink[::-1],
        strict=True,
    ):
        for gate, _ in reversed(gates):
            observable = gate.conj().T @ observable @ gate
        observable = _shrunk(observable, factor)
    state = data / np.linalg.norm(data)
    return (state @ observable @ state).real


def _shrunk(observable, factor):
    qubits = int(np.log2(len(observable)))
    for qubit in range(qubits):
        shape = (2**qubit, 2, 2 ** (qubits - qubit - 1))
        split = observable.reshape(*shape, *shape)
        half = np.einsum("iajkal->ijkl", split) / 2
        white = np.einsum("ijkl,ab->iajkbl", half, np.eye(2)).reshape(observable.shape)
        observable = factor * observable + (1 - factor) * white
    return observable


# --- What the model says of itself, and what it refuses -------------------------------------------


def test_a_model_says_what_a_cost_needs():
    own = TwoParty(*MIXED, "ZII", 3)
    assert (own.qubits, own.hops) == (3, 6)
    assert own.parameters == {"alice": 6, "bob": 1}
    # YII | XXZ, an entangler, IZI IIY | IXI, an entangler, ZXI.
    assert own.groups == {"alice": 5, "bob": 1}
    assert own.gradient_hops == (11, 10, 9, 8, 7, 6)
    # The check value of a whole gradient at 738 shots: ten qubits, four layers, two groups.
    turns = ["I" * q + axis + "I" * (9 - q) for axis in "YZ" for q in range(10)]
    wide = TwoParty(turns, turns, "Z" + "I" * 9, 4)
    assert 738 * sum(wide.groups["bob"] * hops * 10 for hops in wide.gradient_hops) == 1_357_920
    assert 738 * 2 * wide.hops * 10 * 8 * wide.parameters["alice"] == 18_892_800
    # No two neighbours commute.
    assert model().groups == {"alice": 3, "bob": 3}


def test_a_model_is_a_pytree_whose_leaves_are_its_noise():
    own = model(jq.werner(fidelity=0.9))
    again = jax.tree.map(lambda leaf: leaf, own)
    assert (again.alice, again.layers) == (ALICE, 2)
    fidelities = jnp.linspace(0.8, 1.0, 3)
    found = jax.jit(jax.vmap(lambda f: model(jq.werner(fidelity=f)).loss(ANGLES, DATA)))(fidelities)
    close(found[1], -0.086642230, atol=1e-9)
    close(found[2], -0.179404777, atol=1e-9)


def refused():
    noisy = jq.depolarizing(mix=0.1)
    eight = TwoParty(("X" * 8,), ("Z" * 8,), "Z" * 8, 1, noisy)
    one = {"alice": [[0.1]], "bob": [[0.1]]}
    return {
        "`observable` must be a string": lambda: TwoParty(ALICE, BOB, "ZIQ", 2),
        "`observable` must have at most 14": lambda: TwoParty(ALICE, BOB, "Z" * 15, 2),
        "`a gate of `alice`` must have a letter": lambda: TwoParty(("XX",), BOB, "ZII", 2),
        "`bob` must have at least one rotation": lambda: TwoParty(ALICE, ("cz-ring",), "ZII", 2),
        "`layers` must be an integer": lambda: TwoParty(ALICE, BOB, "ZII", 0),
        "`x` must have amplitudes of 3 qubits": lambda: model().loss(ANGLES, np.ones(9)),
        "`angles of bob` must have the shape": lambda: model().loss(
            {**ANGLES, "bob": np.ones((2, 2))}, DATA
        ),
        "`angles` must be a mapping": lambda: model().loss({"alice": ANGLES["alice"]}, DATA),
        "`hop` must have no batch axis, or one of 4": lambda: model(
            jq.werner(fidelity=np.full(3, 0.9))
        ).loss(ANGLES, DATA),
        "`hop` must be None where there are more than 7": lambda: eight.loss(one, np.ones(256)),
        "`survival` must lie in": lambda: GlobalDepolarizing(1.2),
    }


@pytest.mark.parametrize("sentence", refused())
def test_a_value_is_refused_in_one_sentence(sentence):
    with pytest.raises(ValueError, match=rf"^{re.escape(sentence)}.*\.$"):
        refused()[sentence]()


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeError, match="`alice` must be a sequence"):
        TwoParty("XXI", BOB, "ZII", 2)
    with pytest.raises(TypeError, match="`hop` must be a Channel"):
        model(0.9).loss(ANGLES, DATA)
    with pytest.raises(TypeError, match="`angles` must be a mapping"):
        model().loss([1.0], DATA)
