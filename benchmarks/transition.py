"""Transition matrices and their Jacobians, batched, beside TensorCircuit-NG.

A Werner pair, depolarizing and amplitude damping on the sent half, dephasing of the kept half:
four parameters. TensorCircuit builds the two-qubit density matrix for each of the four symbols,
under `jit` and `vmap`; ours takes the batch as it is. The goal is 40 times its speed with the
Jacobian, which is taken by `jax.jacfwd` or one parameter at a time, whichever is faster for
TensorCircuit. The results are compared before anything is timed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tensorcircuit as tc
from timing import medians, parser, report

import jaxqring as jq


def ours(fidelity, error_prob, gamma, dephasing):
    sent = jq.depolarizing(error_prob=error_prob).then(jq.amplitude_damping(gamma=gamma))
    kept = jq.dephasing(error_prob=dephasing)
    return jq.superdense(jq.werner(fidelity=fidelity), sent=sent, kept=kept).transition


def theirs(fidelity, error_prob, gamma, dephasing):
    bell = np.array([1, 0, 0, 1], np.complex64) / np.sqrt(2)
    projector = jnp.asarray(np.outer(bell, bell))
    weight = (4 * fidelity - 1) / 3
    pair = weight * projector + (1 - weight) * jnp.eye(4, dtype=jnp.complex64) / 4
    columns = []
    for symbol in range(4):
        circuit = tc.DMCircuit(2, dminputs=pair)
        if symbol & 1:
            circuit.z(0)
        if symbol & 2:
            circuit.x(0)
        circuit.depolarizing(0, px=error_prob / 3, py=error_prob / 3, pz=error_prob / 3)
        circuit.amplitudedamping(0, gamma=gamma, p=1.0)
        circuit.phasedamping(1, gamma=4 * dephasing * (1 - dephasing))
        circuit.cnot(0, 1)
        circuit.h(0)
        outcomes = jnp.real(jnp.diagonal(circuit.state()))
        # Outcome (z bit, x bit) of qubits 0 and 1 is the symbol 2 x + z.
        columns.append(outcomes[jnp.array([0, 2, 1, 3])])
    return jnp.stack(columns, axis=1)


def slope_by_slope(function):
    """The matrix and its derivatives, one forward pass for each parameter."""

    def value_and_slopes(*parameters):
        def along(index):
            def one(value):
                return function(*parameters[:index], value, *parameters[index + 1 :])

            return jax.jvp(one, parameters[index : index + 1], (jnp.ones_like(parameters[index]),))

        passes = [along(index) for index in range(len(parameters))]
        return passes[0][0], tuple(slope for _, slope in passes)

    return value_and_slopes


def all_slopes(function):
    """The same by `jax.jacfwd`, which passes all of them at once."""
    every = jax.jacfwd(function, argnums=(0, 1, 2, 3))
    return lambda *parameters: (function(*parameters), every(*parameters))


def main():
    options = parser(__doc__)
    options.add_argument("--batch", type=int, default=4096)
    options = options.parse_args()
    tc.set_backend("jax")
    low = np.array([0.8, 0.0, 0.01, 0.01])
    high = np.array([1.0, 0.1, 0.3, 0.2])
    drawn = np.random.default_rng(0).uniform(low, high, (options.batch, len(low)))
    parameters = tuple(jnp.asarray(drawn.T, jnp.float32))
    tasks = {
        "matrix": (ours, [theirs]),
        "with Jacobian": (slope_by_slope(ours), [all_slopes(theirs), slope_by_slope(theirs)]),
    }
    rows = []
    for task, (mine, forms) in tasks.items():
        compiled = {"ours": jax.jit(mine)}  # of whole batches
        compiled |= {f"theirs {i}": jax.jit(jax.vmap(form)) for i, form in enumerate(forms)}
        expected = compiled["ours"](*parameters)
        for run in compiled.values():
            for a, b in zip(*map(jax.tree.leaves, (run(*parameters), expected)), strict=True):
                np.testing.assert_allclose(a, b, atol=2e-5)
        runs = {name: (lambda run=run: run(*parameters)) for name, run in compiled.items()}
        seconds = medians(runs, options.repeats)
        fastest = min(time for name, time in seconds.items() if name != "ours")
        rate, peer = options.batch / seconds["ours"], options.batch / fastest
        rows.append([task, rate, peer, rate / peer])
    columns = [f"batch of {options.batch}", "values/s", "TensorCircuit-NG", "x TensorCircuit-NG"]
    report("transition", columns, rows, options)


if __name__ == "__main__":
    main()
