"""State vectors and Pauli strings, against matrices written out in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuit_matrices import PAULIS, controlled, kron, of_string
from scipy.linalg import expm

from jaxqring.qmodels import _pauli_strings as pauli_strings
from jaxqring.qmodels import _states as states
from jaxqring.qmodels import amplitudes

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)


def a_state(qubits, seed=0):
    rng = np.random.default_rng(seed)
    state = rng.normal(size=2**qubits) + 1j * rng.normal(size=2**qubits)
    return state / np.linalg.norm(state)


@pytest.mark.parametrize("qubits", [1, 3, 6])
def test_a_layer_of_gates_is_their_kronecker_product(qubits):
    angles = np.linspace(-2, 3, 3 * qubits).reshape(3, qubits)
    state = expected = a_state(qubits)
    for row, (axis, letter) in zip(angles, (("rx", "X"), ("ry", "Y"), ("rz", "Z")), strict=True):
        state = states.one_qubit_layer(jnp.asarray(state), states.rotations(axis, jnp.asarray(row)))
        expected = kron(*(expm(-0.5j * angle * PAULIS[letter]) for angle in row)) @ expected
    close(state, expected)


@pytest.mark.parametrize("qubits", [1, 2, 3, 5])
@pytest.mark.parametrize("gate, letter", [("cz", "Z"), ("cnot", "X")])
@pytest.mark.parametrize("shape", ["ring", "line"])
def test_gates_between_neighbours_are_controlled_paulis_in_order(qubits, gate, letter, shape):
    expected = a_state(qubits)
    found = states.entangle(jnp.asarray(expected), f"{gate}-{shape}")
    for q in range(qubits if shape == "ring" and qubits > 2 else qubits - 1):
        expected = controlled(PAULIS[letter], q, (q + 1) % qubits, qubits) @ expected
    close(found, expected)


def test_strings_act_rotate_and_commute_as_their_matrices():
    state = a_state(3)
    every = list(map("".join, itertools.product("IXYZ", repeat=3)))
    assert pauli_strings.strings(3) == every
    found = np.array([pauli_strings.apply_pauli(jnp.asarray(state), string) for string in every])
    close(found, [of_string(string) @ state for string in every])
    for string in ("XYZ", "IYI", "ZZX"):
        turned = pauli_strings.rotate(jnp.asarray(state), string, 0.7)
        close(turned, expm(-0.35j * of_string(string)) @ state)
        value = pauli_strings.expectation(jnp.asarray(state), string)
        close(value, (state.conj() @ of_string(string) @ state).real)
        close(pauli_strings.matrix(string), of_string(string))
    for left, right in itertools.product(["XYZ", "IYI", "ZZX", "III"], repeat=2):
        a, b = of_string(left), of_string(right)
        assert pauli_strings.commute(left, right) == np.allclose(a @ b, b @ a)


def test_outcomes_of_z_are_those_of_its_matrix():
    for qubit in range(3):
        letters = ["I"] * 3
        letters[qubit] = "Z"
        close(states.z_values(3)[:, qubit], np.diag(of_string("".join(letters))).real)


def test_amplitudes_are_normalised_padded_and_differentiable():
    rows = np.arange(1.0, 7.0).reshape(2, 3)
    found = amplitudes(rows)
    assert found.shape == (2, 4)
    assert found.dtype == jnp.complex64
    close(found[:, :3], rows / np.linalg.norm(rows, axis=1, keepdims=True))
    assert not found[:, 3].any()
    slope = jax.grad(lambda x: amplitudes(x).real[0])(jnp.array([3.0, 4.0]))
    close(slope, [16 / 125, -12 / 125])
    assert amplitudes([2.0]).shape == (2,)


@pytest.mark.parametrize(
    "x, sentence",
    [
        (1.0, "at least one number"),
        (np.zeros((2, 0)), "at least one number"),
        ([0.0, 0.0], "not zero"),
        ([np.nan, 1.0], "finite"),
        (np.ones(2**14 + 1), r"\[1, 14\]"),
    ],
)
def test_rows_that_are_no_states_are_refused(x, sentence):
    with pytest.raises(ValueError, match=sentence):
        amplitudes(x)


@pytest.mark.parametrize("string", ["", "XA", 3, "I" * 15, "XX"])
def test_letters_that_are_no_paulis_are_refused(string):
    with pytest.raises(ValueError, match=r"`string` must"):
        pauli_strings.check_pauli("string", string, 3)
