"""Circuits of both engines, against matrices written out in NumPy, and under every mapping."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuit_matrices import PAULIS, controlled, kron
from jax import lax
from scipy.linalg import expm

from jaxqring.qmodels import Circuit, from_tensorcircuit, hardware_efficient, z_values

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
ENGINES = ("statevector", "tensorcircuit")
LETTERS = {"rx": "X", "ry": "Y", "rz": "Z"}
#: Every step once, in an order in which rotations are merged and not.
LAYER = ("rx", "rzz-ring", "ry", "rz", "cz-line", "crz-ring", "ry", "cnot-ring", "rx")


def check_34():
    """Parameters and features of a circuit of three qubits whose values were computed elsewhere."""
    index = np.indices((2, 2, 2, 3)).astype(float)
    angles = 0.4 + 0.1 * index[0] - 0.2 * index[1] + 0.15 * index[2] + 0.05 * index[3]
    params = {
        "weight": jnp.asarray(angles[:, 0], jnp.float32),
        "bias": jnp.asarray(angles[:, 1], jnp.float32),
        "last": jnp.array([[0.2, -0.1, 0.4]]),
    }
    return params, jnp.array([0.5, -1, 0.25, 1, 0.3, -0.6])


def dense_state(circuit, angles):
    """The state of a circuit by matrices of its whole space."""
    qubits = circuit.qubits
    state = np.eye(2**qubits)[0].astype(complex)

    def around(gate):
        for q in range(qubits):
            yield gate(q, (q + 1) % qubits)

    def steps(names, rows):
        nonlocal state
        rows = iter(np.asarray(rows, float))
        for name in names:
            if name in LETTERS:
                generator, row = PAULIS[LETTERS[name]], next(rows)
                state = kron(*(expm(-0.5j * angle * generator) for angle in row)) @ state
                continue
            row = next(rows) if name.startswith(("rzz", "crz")) else None
            count = qubits if name.endswith("ring") else qubits - 1
            for q in range(count):
                pair = q, (q + 1) % qubits
                if name.startswith("rzz"):
                    both = np.diag(z_values(qubits)[:, pair[0]] * z_values(qubits)[:, pair[1]])
                    gate = expm(-0.5j * row[q] * both)
                elif name.startswith("crz"):
                    gate = controlled(expm(-0.5j * row[q] * PAULIS["Z"]), *pair, qubits)
                else:
                    letter = "Z" if name.startswith("cz") else "X"
                    gate = controlled(PAULIS[letter], *pair, qubits)
                state = gate @ state

    for of_layer in angles["layers"]:
        steps(circuit.layer, of_layer)
    steps(circuit.last, angles["last"])
    return state


def drawn(circuit, seed=1):
    keys = jax.random.split(jax.random.key(seed))
    pairs = zip(keys, circuit.shapes.items(), strict=True)
    return {name: jax.random.normal(key, shape) for key, (name, shape) in pairs}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_step_is_its_matrix_under_both_engines(engine):
    circuit = Circuit(5, 2, LAYER, ("rx", "rz"), engine=engine)
    angles = drawn(circuit)
    close(circuit.state(angles), dense_state(circuit, angles))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_hardware_efficient_circuit_has_its_values(engine):
    circuit = hardware_efficient(3, 2, features=6, engine=engine)
    params, x = check_34()
    angles = circuit.encode(params, x)
    values = circuit.expectations(angles, z_values(3))
    close(values, [0.669007, 0.922389, 0.319403])
    state = dense_state(circuit, angles)
    close(values, np.abs(state) ** 2 @ z_values(3))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_circuit_of_two_qubits_has_one_cz_in_a_layer(engine):
    circuit = hardware_efficient(2, 3, engine=engine)
    angles = drawn(circuit)
    state = np.eye(4)[0]
    for row in angles["layers"]:
        for letter, of_qubits in zip("YZ", np.asarray(row), strict=True):
            state = kron(*(expm(-0.5j * a * PAULIS[letter]) for a in of_qubits)) @ state
        state = np.diag([1, 1, 1, -1]) @ state
    state = kron(*(expm(-0.5j * a * PAULIS["Y"]) for a in np.asarray(angles["last"][0]))) @ state
    close(circuit.state(angles), state)


def test_features_are_taken_row_by_row_and_from_the_first_again():
    circuit = hardware_efficient(2, 2, features=6)
    x = jnp.arange(6.0)
    ones = {name: jnp.ones(shape) for name, shape in circuit.shapes.items()}
    params = {"weight": ones["layers"], "bias": 10 * ones["layers"], "last": ones["last"]}
    found = circuit.encode(params, x)["layers"]
    close(found, 10 + np.array([[[0, 1], [2, 3]], [[4, 5], [0, 1]]]))
    plain = hardware_efficient(2, 2)
    params = plain.init(jax.random.key(0))
    assert "weight" not in params
    close(plain.encode(params)["layers"], params["bias"])


def test_double_precision_is_kept_by_our_engine_and_refused_by_tensorcircuit():
    with jax.enable_x64(True):
        circuit = hardware_efficient(3, 1)
        angles = {n: np.full(s, 0.3) for n, s in circuit.shapes.items()}
        state = circuit.state(angles)
        assert state.dtype == jnp.complex128
        np.testing.assert_allclose(state, dense_state(circuit, angles), atol=1e-14)
        other = dataclasses.replace(circuit, engine="tensorcircuit")
        with pytest.raises(ValueError, match=r"`angles` must be of single precision"):
            other.state(angles)


def test_a_layer_of_a_user_may_hold_any_gate_of_tensorcircuit():
    def layer(circuit, angles):
        for q in range(3):
            circuit.rx(q, theta=angles[0, q])
        circuit.iswap(0, 2)
        circuit.toffoli(0, 1, 2)
        circuit.ry(1, theta=angles[1, 0] * 2)

    circuit = from_tensorcircuit(layer, 3, 2, 2, last=("ry",))
    angles = drawn(circuit)
    iswap = np.eye(8, dtype=complex)
    for i, j in ((1, 4), (3, 6)):
        iswap[[i, j], [i, j]] = 0
        iswap[i, j] = iswap[j, i] = 1j
    toffoli = np.eye(8)[[0, 1, 2, 3, 4, 5, 7, 6]]
    state = np.eye(8)[0]
    for row in np.asarray(angles["layers"]):
        state = kron(*(expm(-0.5j * a * PAULIS["X"]) for a in row[0])) @ state
        state = toffoli @ iswap @ state
        state = kron(np.eye(2), expm(-1j * row[1, 0] * PAULIS["Y"]), np.eye(2)) @ state
    state = kron(*(expm(-0.5j * a * PAULIS["Y"]) for a in np.asarray(angles["last"][0]))) @ state
    close(circuit.state(angles), state)
    slope = jax.grad(lambda a: circuit.expectations(a, z_values(3)).sum())(angles)
    step = {"layers": jnp.zeros((2, 2, 3)).at[0, 1, 0].set(0.05), "last": jnp.zeros((1, 3))}

    def along(sign):
        return circuit.expectations(
            jax.tree.map(lambda a, s: a + sign * s, angles, step), z_values(3)
        )

    finite = (along(1) - along(-1)).sum() / 0.1
    np.testing.assert_allclose(slope["layers"][0, 1, 0], finite, atol=5e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_those_of_no_mapping_under_every_mapping(engine, every_mapping):
    circuit = hardware_efficient(3, 2, features=6, engine=engine)
    params, x = check_34()
    samples = jnp.stack([x, -x, 2 * x, x - 1])

    def loss(params, sample):
        return circuit.expectations(circuit.encode(params, sample), z_values(3))[1]

    def step(sample, params):
        return jax.tree.map(lambda g: lax.pmean(g, "nodes"), jax.grad(loss)(params, sample))

    # Replicas of their own: by parameters that are shared, JAX adds up the gradients of all nodes.
    replicas = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), params)
    found = every_mapping(step, 4)(samples, replicas)
    alone = [jax.grad(loss)(params, sample) for sample in samples]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *alone)
    jax.tree.map(lambda of_nodes, one: close(of_nodes, np.stack([one] * 4)), found, mean)


def test_a_layer_is_traced_once_whatever_their_number():
    calls = []

    def layer(circuit, angles):
        calls.append(angles)
        for q in range(2):
            circuit.rx(q, theta=angles[0, q])

    circuit = from_tensorcircuit(layer, 2, 40, 1)
    state = jax.jit(circuit.state)
    angles = {"layers": jnp.full((40, 1, 2), 0.1), "last": jnp.zeros((0, 2))}
    close(state(angles)[0], np.cos(2) ** 2)
    close(state(jax.tree.map(jnp.zeros_like, angles))[0], 1)
    assert len(calls) <= 2  # `lax.scan` asks for the types of the carry first


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Circuit(15, 1, ("ry",)), r"`qubits` must be an integer in \[1, 14\]"),
        (lambda: Circuit(0, 1, ("ry",)), r"`qubits` must be"),
        (lambda: Circuit(2, 0, ("ry",)), r"`layers` must be"),
        (lambda: Circuit(2, 1, ("swap",)), r"`layer` must be one of"),
        (lambda: Circuit(2, 1, ("rzz-ring",)), r"`layer` must leave out gates around a ring"),
        (lambda: Circuit(2, 1, ("ry",), ("cz-ring",)), r"`last` must be one of"),
        (lambda: Circuit(2, 1, ("ry",), features=3), r"`features` must be a multiple of the 2"),
        (lambda: Circuit(2, 1, ("ry",), engine="qiskit"), r"`engine` must be one of"),
        (lambda: from_tensorcircuit(lambda c, a: None, 2, 1, -1), r"`slots` must be"),
    ],
)
def test_circuits_that_cannot_be_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_angles_and_features_of_another_shape_are_refused():
    circuit = hardware_efficient(2, 1, features=2)
    params = circuit.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"`x` must have the shape \(2,\)"):
        circuit.encode(params, jnp.ones(3))
    with pytest.raises(ValueError, match=r"`x` must have the shape"):
        circuit.encode(params)
    with pytest.raises(ValueError, match=r"`x` must be left out"):
        hardware_efficient(2, 1).encode(params, jnp.ones(2))
    with pytest.raises(ValueError, match=r"`angles` must have the shapes"):
        circuit.state({"layers": jnp.ones((1, 2, 2))})
    with pytest.raises(ValueError, match=r"`observables` must have the shape \(4, K\)"):
        circuit.expectations(circuit.encode(params, jnp.ones(2)), jnp.ones(4))
    with pytest.raises(TypeError, match=r"`layer` must be a function"):
        from_tensorcircuit("ry", 2, 1, 1)
