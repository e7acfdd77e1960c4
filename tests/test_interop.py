"""Conversions from and to TensorCircuit-NG, against dense matrices in NumPy.

TensorCircuit computes in single precision here, its default: everything agrees to 2e-6.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorcircuit as tc

import jaxqring as jq
from jaxqring import interop

slow = functools.partial(pytest.param, marks=pytest.mark.matrix)
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
ROOT = Path(__file__).parents[1]
PAULIS = np.array([np.eye(2), [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
HADAMARD = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
CNOT = np.eye(4)[[0, 1, 3, 2]]
NAMES = ("", "x", "y", "z")


@pytest.fixture(params=["numpy", "jax"])
def backend(request):
    before = tc.backend.name
    tc.set_backend(request.param)
    yield request.param
    tc.set_backend(before)


@pytest.fixture
def jax_backend():
    before = tc.backend.name
    tc.set_backend("jax")
    yield
    tc.set_backend(before)


def rotation(axis, angle):
    return np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * PAULIS[axis]


def entangled(circuit, angle):
    """A state without symmetry between the two qubits, as a circuit and as a vector."""
    circuit.h(0)
    circuit.cnot(0, 1)
    circuit.rx(0, theta=angle)
    circuit.rz(1, theta=0.3)
    state = CNOT @ np.kron(HADAMARD, np.eye(2)) @ np.eye(4)[0]
    return np.kron(rotation(1, angle), rotation(3, 0.3)) @ state


def correlation(rho):
    return np.array([[np.trace(rho @ np.kron(a, b)).real for b in PAULIS] for a in PAULIS])


def test_a_noiseless_circuit_becomes_the_pair_of_its_state(backend):
    circuit = tc.Circuit(2)
    state = entangled(circuit, 0.7)
    pair = interop.pair_from_tensorcircuit(circuit)
    close(pair.correlation, correlation(np.outer(state, state.conj())))
    close(pair.fidelity, abs(np.array([1, 0, 0, 1]) / np.sqrt(2) @ state) ** 2)


def test_a_noisy_circuit_becomes_the_pair_of_its_density_matrix(backend):
    circuit = tc.DMCircuit(2)
    state = entangled(circuit, 0.7)
    circuit.depolarizing(0, px=0.05, py=0.02, pz=0.01)
    circuit.amplitudedamping(1, gamma=0.1, p=1.0)
    rho = np.outer(state, state.conj())
    rho = dense.act(dense.on_sent(dense.pauli_kraus(0.05, 0.02, 0.01)), rho)
    rho = dense.act(dense.on_kept(dense.damping_kraus(0.1)), rho)
    close(interop.pair_from_tensorcircuit(circuit).correlation, correlation(rho))


def test_a_pair_becomes_a_circuit_in_its_state(backend):
    """Every Pauli correlation, as TensorCircuit measures it, and the matrix itself."""
    rho = dense.random_state(np.random.default_rng(0))
    circuit = interop.pair_to_tensorcircuit(jq.from_density_matrix(rho))
    close(circuit.densitymatrix(), rho)
    expected = correlation(rho)
    for i in range(4):
        for j in range(4):
            axes = {"x": [], "y": [], "z": []}
            for qubit, pauli in ((0, i), (1, j)):
                if pauli:
                    axes[NAMES[pauli]].append(qubit)
            if i or j:
                close(np.real(circuit.expectation_ps(**axes)), expected[i, j])


def test_a_pair_survives_the_way_there_and_back(backend):
    pair = jq.werner(fidelity=0.9).apply(
        sent=jq.amplitude_damping(gamma=0.2), kept=jq.dephasing(error_prob=0.1)
    )
    back = interop.pair_from_tensorcircuit(interop.pair_to_tensorcircuit(pair))
    close(back.correlation, pair.correlation)


CHANNELS = {
    "pauli": (
        lambda: tc.channels.depolarizingchannel(0.1, 0.05, 0.02),
        dense.pauli_kraus(0.1, 0.05, 0.02),
    ),
    "damping": (lambda: tc.channels.amplitudedampingchannel(0.3, 1.0), dense.damping_kraus(0.3)),
    # The excited population of TensorCircuit's thermal state is 1 - p.
    "thermal": (
        lambda: tc.channels.amplitudedampingchannel(0.3, 0.8),
        dense.damping_kraus(0.3, 0.2),
    ),
    "phase": (
        lambda: tc.channels.phasedampingchannel(0.36),
        dense.pauli_kraus(0, 0, (1 - np.sqrt(1 - 0.36)) / 2),
    ),
    "reset": (tc.channels.resetchannel, dense.damping_kraus(1.0)),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_a_list_of_kraus_gates_becomes_a_channel(name, backend):
    made, expected = CHANNELS[name]
    channel = interop.channel_from_tensorcircuit(made())
    close(channel.ptm, dense.transfer_matrix(expected))


def test_matrices_are_kraus_operators_as_well():
    kraus = dense.random_kraus(np.random.default_rng(3), 3)
    close(interop.channel_from_tensorcircuit(kraus).ptm, dense.transfer_matrix(kraus))


@pytest.mark.parametrize("qubit", [0, 1])
def test_a_channel_becomes_kraus_gates_that_a_circuit_takes(qubit, backend):
    rng = np.random.default_rng(4)
    rho, kraus = dense.random_state(rng), dense.random_kraus(rng, 2)
    circuit = interop.pair_to_tensorcircuit(jq.from_density_matrix(rho))
    gates = interop.channel_to_tensorcircuit(jq.from_kraus(np.array(kraus)))
    circuit.general_kraus(gates, qubit)
    on_qubit = dense.on_sent if qubit == 0 else dense.on_kept
    close(circuit.densitymatrix(), dense.act(on_qubit(kraus), rho))


def test_a_channel_survives_the_way_there_and_back(backend):
    channel = jq.thermal_relaxation(t1=1.0, t2=0.7, time=0.2, excited_population=0.1)
    back = interop.channel_from_tensorcircuit(interop.channel_to_tensorcircuit(channel))
    close(back.ptm, channel.ptm)


def test_a_traced_circuit_has_the_derivative_of_its_fidelity(jax_backend):
    """Phi+ after R_x(a) on one half has the fidelity cos^2(a / 2)."""

    def fidelity(angle):
        circuit = tc.Circuit(2)
        circuit.h(0)
        circuit.cnot(0, 1)
        circuit.rx(0, theta=angle)
        return interop.pair_from_tensorcircuit(circuit).fidelity

    angles = jnp.array([0.0, 0.4, 1.3])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(fidelity)))(angles)
    close(values, np.cos(angles / 2) ** 2)
    close(slopes, -np.sin(angles) / 2)


def test_a_traced_pair_has_the_derivative_of_a_measured_circuit(jax_backend):
    """<ZZ> of a Werner pair is (4 F - 1) / 3."""

    def correlated(value):
        circuit = interop.pair_to_tensorcircuit(jq.werner(fidelity=value))
        return circuit.expectation_ps(z=[0, 1]).real

    value, slope = jax.jit(jax.value_and_grad(correlated))(0.9)
    close([value, slope], [2.6 / 3, 4 / 3])


def traced(convert, make):
    """Converts under a trace with TensorCircuit's numpy backend."""
    return jax.jit(lambda value: convert(make(value)) and value)(0.1)


def dephasing(error_prob):
    return jq.dephasing(error_prob=error_prob)


def werner(fidelity):
    return jq.werner(fidelity=fidelity)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: interop.pair_from_tensorcircuit(np.eye(4)), TypeError,
         "`circuit` must be a Circuit or DMCircuit of TensorCircuit, but got"),
        (lambda: interop.pair_from_tensorcircuit(tc.Circuit(3)), ValueError,
         "`circuit` must have two qubits, but got 3."),
        (lambda: interop.pair_to_tensorcircuit(jq.dephasing(error_prob=0.1)), TypeError,
         "`pair` must be a Pair"),
        (lambda: interop.pair_to_tensorcircuit(jq.werner(fidelity=np.array([0.9, 0.8]))),
         ValueError, "`pair` must have no batch axes, but got (2,)."),
        (lambda: traced(interop.pair_to_tensorcircuit, werner), ValueError,
         '`pair` must be concrete unless the backend of TensorCircuit is "jax", but got'),
        (lambda: interop.channel_from_tensorcircuit([np.eye(4)]), ValueError,
         "`kraus` must be a list of operators of shape (2, 2), but got [(4, 4)]."),
        (lambda: interop.channel_from_tensorcircuit([]), ValueError,
         "`kraus` must be a list of operators of shape (2, 2), but got []."),
        (lambda: interop.channel_from_tensorcircuit([0.5 * np.eye(2)]), ValueError,
         "`kraus` must preserve the trace"),
        (lambda: interop.channel_to_tensorcircuit(jq.werner(fidelity=0.9)), TypeError,
         "`channel` must be a Channel"),
        (lambda: interop.channel_to_tensorcircuit(dephasing(np.array([0.1, 0.2]))), ValueError,
         "`channel` must have no batch axes, but got (2,)."),
        (lambda: traced(interop.channel_to_tensorcircuit, dephasing), ValueError,
         '`channel` must be concrete unless the backend of TensorCircuit is "jax", but got'),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    assert tc.backend.name == "numpy"
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


# --- Global state ---------------------------------------------------------------------------------


def python(code):
    """The last line that a process of its own prints, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# Whether the precision of JAX is set for all threads, in a context of this one, or both.
@pytest.mark.parametrize("everywhere, here", [(True, False), slow(False, True), slow(False, False)])
def test_a_first_import_changes_nothing_that_belongs_to_the_program(everywhere, here):
    """Even if it ends in a refusal: precision, environment, warnings, logging."""
    code = f"""
import json, logging, os, sys, warnings
import jax, jax.numpy as jnp
import numpy as np
import jaxqring as jq

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
os.environ.pop("TF_FORCE_GPU_ALLOW_GROWTH", None)
jax.config.update("jax_enable_x64", {everywhere})

def state():
    root = logging.getLogger()
    filters = [str(entry) for entry in warnings.filters]
    return [dict(os.environ), filters, root.level, len(root.handlers), str(jnp.ones(1).dtype)]

before = state()
with jax.enable_x64({here}):
    inside = state()
    assert "tensorcircuit" not in sys.modules
    try:
        jq.interop.pair_from_tensorcircuit(None)
    except TypeError as error:
        assert "`circuit`" in str(error)
    assert "tensorcircuit" in sys.modules
    found = [state() == inside]
found.append(state() == before)
import tensorcircuit as tc
circuit = jq.interop.pair_to_tensorcircuit(jq.werner(fidelity=0.9))
found += [state() == before, tc.backend.name, tc.cons.dtypestr]
print(json.dumps(found))
"""
    assert python(code) == [True, True, True, "numpy", "complex64"]


def test_backend_and_precision_of_tensorcircuit_stay_as_they_are(backend):
    pair, channel = jq.werner(fidelity=0.9), jq.dephasing(error_prob=0.1)
    interop.channel_from_tensorcircuit(interop.channel_to_tensorcircuit(channel))
    interop.pair_from_tensorcircuit(interop.pair_to_tensorcircuit(pair))
    assert (tc.backend.name, tc.cons.dtypestr) == (backend, "complex64")


def test_without_tensorcircuit_one_sentence_says_which_extra_brings_it():
    code = """
import json, sys
sys.modules["tensorcircuit"] = None  # as if it were not installed
import jaxqring as jq
try:
    jq.interop.pair_to_tensorcircuit(jq.werner(fidelity=0.9))
except ImportError as error:
    print(json.dumps(str(error)))
"""
    sentence = "`jaxqring.interop` needs the package `tensorcircuit`: "
    assert python(code) == sentence + 'pip install "jaxqring[tensorcircuit]".'
