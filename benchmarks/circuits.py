"""Gradients of a circuit that learns, beside TensorCircuit-NG and PennyLane.

Each of L layers is RY(x) on every qubit for the features of a sample, RY and RZ for the trained
angles, and a ring of CNOT. The loss is the softmax cross-entropy of <Z> of all qubits over a batch;
its value and its gradient by the trained angles are taken together, in single precision. They are
compared before anything is timed. The goals for 8 qubits and 4 layers: a first call, compiling
included, of 3 CPU seconds, 1.5 times the speed of TensorCircuit with its layer in a scan, and 3
times that of PennyLane, which is batched by `jax.vmap` or by its own broadcasting, whichever is
faster.
"""

import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pennylane as qml
from timing import medians, parser, report

from jaxqring._tensorcircuit import with_jax_backend
from jaxqring.qmodels import Circuit, z_values

LAYER = ("ry", "ry", "rz", "cnot-ring")


def ours(qubits, layers, engine):
    """Expectations (batch, n) by a circuit of the package, under either engine."""
    circuit, z = Circuit(qubits, layers, LAYER, engine=engine), z_values(qubits)

    def of_one(x, weights):
        rows = jnp.broadcast_to(x, (layers, 1, qubits))
        angles = {
            "layers": jnp.concatenate([rows, weights], axis=1),
            "last": jnp.zeros((0, qubits)),
        }
        return circuit.expectations(angles, z)

    return jax.vmap(of_one, in_axes=(0, None))


def unrolled(qubits, layers):
    """The same written for TensorCircuit gate by gate."""

    def of_one(x, weights):
        with with_jax_backend("This benchmark") as tc:
            circuit = tc.Circuit(qubits)
            for rotations in weights:
                for q in range(qubits):
                    circuit.ry(q, theta=x[q])
                    circuit.ry(q, theta=rotations[0, q])
                    circuit.rz(q, theta=rotations[1, q])
                for q in range(qubits):
                    circuit.cnot(q, (q + 1) % qubits)
            state = circuit.state()
        return (state.real**2 + state.imag**2) @ z_values(qubits)

    return jax.vmap(of_one, in_axes=(0, None))


def pennylane(qubits, layers, broadcast):
    """The same by PennyLane, over the batch by broadcasting or by `jax.vmap`."""
    device = qml.device("default.qubit", wires=qubits)

    @qml.qnode(device, interface="jax", diff_method="backprop")
    def circuit(x, weights):
        for rotations in weights:
            for q in range(qubits):
                qml.RY(x[..., q], wires=q)
                qml.RY(rotations[0, q], wires=q)
                qml.RZ(rotations[1, q], wires=q)
            for q in range(qubits):
                qml.CNOT(wires=[q, (q + 1) % qubits])
        return [qml.expval(qml.PauliZ(q)) for q in range(qubits)]

    def of_all(x, weights):
        return jnp.stack(circuit(x, weights), axis=-1)

    return of_all if broadcast else jax.vmap(of_all, in_axes=(0, None))


def with_gradient(expectations):
    """The loss of a batch and its gradient by the trained angles, compiled."""

    def loss(weights, x, labels):
        scores = expectations(x, weights).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    return jax.jit(jax.value_and_grad(loss))


def first_call(run, arguments):
    """The result of the first call, and the CPU seconds of tracing, compiling and running it."""
    start = time.process_time()
    found = jax.block_until_ready(run(*arguments))
    return found, time.process_time() - start


def row_of(qubits, layers, options):
    """The figures of one size."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 2 * np.pi, (layers, 2, qubits)).astype(np.float32)
    x = rng.normal(size=(options.batch, qubits)).astype(np.float32)
    arguments = tuple(map(jnp.asarray, (weights, x, rng.integers(qubits, size=options.batch))))
    candidates = {
        "ours": ours(qubits, layers, "statevector"),
        "TC in a scan": ours(qubits, layers, "tensorcircuit"),
        "PennyLane, vmap": pennylane(qubits, layers, broadcast=False),
        "PennyLane, broadcasting": pennylane(qubits, layers, broadcast=True),
    }
    if options.unrolled:
        candidates["TC unrolled"] = unrolled(qubits, layers)
    if options.only:
        chosen = ("ours", *options.only)
        candidates = {k: v for k, v in candidates.items() if any(part in k for part in chosen)}
    compiled = {name: with_gradient(function) for name, function in candidates.items()}
    firsts, expected = {}, None
    for name, run in compiled.items():
        found, firsts[name] = first_call(run, arguments)
        expected = found if expected is None else expected
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    runs = {name: (lambda run=run: run(*arguments)) for name, run in compiled.items()}
    seconds = medians(runs, options.repeats)
    size = f"{qubits} qubits, {layers} layers"
    return [
        [size, name, firsts[name], 1e3 * seconds[name], seconds[name] / seconds["ours"]]
        for name in candidates
    ]


def main():
    options = parser(__doc__)
    options.add_argument(
        "--qubits", type=int, nargs="+", default=[8], help="of each circuit, 3 or more"
    )
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument(
        "--unrolled", action="store_true", help="TensorCircuit without a scan, which compiles long"
    )
    options.add_argument("--only", nargs="*", default=[], help="parts of the names of peers")
    options = options.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    jax.block_until_ready(jax.jit(jnp.negative)(jnp.ones(())))  # what JAX does once in a process
    # TensorCircuit is imported here, and PennyLane above: neither counts as part of a first call.
    with with_jax_backend("This benchmark"), warnings.catch_warnings():
        # PennyLane asks for complex128, and JAX warns that it is complex64.
        warnings.filterwarnings("ignore", "Explicitly requested dtype")
        rows = [row for qubits in options.qubits for row in row_of(qubits, options.layers, options)]
    columns = [f"batch of {options.batch}", "engine", "first call, CPU s", "run, ms", "x ours"]
    report("circuits", columns, rows, options)


if __name__ == "__main__":
    main()
