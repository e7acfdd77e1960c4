"""Circuits over two to four nodes: entangled pairs by three rules, and the fidelity that is left.

Gate by gate, every gate between nodes has a pair of its own. A copy that serves a whole run of
gates needs fewer; on three nodes or more it pays to make some gates at a node that is the home of
neither of their wires. Every plan printed here is proven to be the best under its rule.

The hypergraph is Andres-Martinez and Heunen's (arXiv:1811.10972); proofs and noise are ours.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxqring as jq
from jaxqring.qmodels import plan_circuit, qft, random_gates, run_distributed, ry_cz_ring
from jaxqring.show._style import look, page, save

RULES = {
    "gate by gate": {"reuse": False},
    "own nodes": {"own_nodes": True},
    "any node": {},
}
NODES = (2, 3, 4)


def families(qubits):
    return {
        "QFT": qft(qubits),
        "RY, CZ ring": ry_cz_ring(qubits, 2),
        "random CZ": random_gates(qubits, 3 * qubits, turn=0.3),
    }


def fidelities(plan, fidelity, inputs):
    """The mean fidelity over inputs, and its slope, for each fidelity of a pair."""

    def mean(value):
        pairs = jq.werner(fidelity=value)
        runs = jax.vmap(lambda state: run_distributed(plan, pairs, state).fidelity)(inputs)
        return jnp.mean(runs)

    return jax.jit(jax.vmap(jax.value_and_grad(mean)))(fidelity)


def random_states(qubits, count):
    parts = jax.random.normal(jax.random.key(0), (2, count, 2**qubits))
    states = parts[0] + 1j * parts[1]
    return states / jnp.linalg.norm(states, axis=1, keepdims=True)


def draw(path, ebits, small, grid, measured):
    with page(12, 8) as figure:
        above, below = figure.subplots(2, 3, sharey="row")
        for axes, (name, rows) in zip(above, ebits.items(), strict=True):
            for index, rule in enumerate(RULES):
                values = [row[rule].ebits for row in rows]
                axes.plot(NODES, values, marker="osD"[index], label=rule, **look(index))
            axes.set(title=f"{name}, {rows[0]['any node'].circuit.qubits} qubits", xlabel="nodes")
            axes.set_xticks(NODES)
        above[0].set(ylabel="pairs", ylim=(0, None))
        above[1].legend()
        for axes, name in zip(below, small, strict=True):
            for index, (rule, plan) in enumerate(small[name].items()):
                shade = look(index)
                axes.plot(grid, measured[name][rule], label=f"{rule}, {plan.ebits} pairs", **shade)
                bound = grid**plan.ebits
                axes.plot(grid, bound, color=shade["color"], linewidth=1, alpha=0.6)
            circuit = plan.circuit
            axes.set(title=f"{name}, {circuit.qubits} qubits, 3 nodes")
            axes.set(xlabel="fidelity of a pair F")
            axes.legend(fontsize=11)
        below[0].set(ylabel="fidelity of the output\n(thin: bound F^pairs)")
        return save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--figure", type=Path, default=Path("runs/distribute.png"))
    options.add_argument("--qubits", type=int, default=8, help="of the plans")
    options = options.parse_args()

    ebits = {}
    print(f"{'circuit':<16}{'nodes':>6}{'gates':>7}" + "".join(f"{rule:>14}" for rule in RULES))
    for name, circuit in families(options.qubits).items():
        rows = ebits.setdefault(name, [])
        for nodes in NODES:
            plans = {rule: plan_circuit(circuit, nodes, **how) for rule, how in RULES.items()}
            assert all(plan.proven for plan in plans.values())
            rows.append(plans)
            numbers = "".join(f"{plan.ebits:>14}" for plan in plans.values())
            print(f"{name:<16}{nodes:>6}{len(circuit.two_qubit_gates):>7}{numbers}")

    grid = np.linspace(0.9, 1.0, 6)
    inputs = random_states(5, 16)
    small, measured = {}, {}
    for name, circuit in families(5).items():
        small[name] = {rule: plan_circuit(circuit, 3, **how) for rule, how in RULES.items()}
        measured[name] = {}
        for rule, plan in small[name].items():
            values, slopes = fidelities(plan, jnp.asarray(grid), inputs)
            measured[name][rule] = values
            print(
                f"{name}, 5 qubits on 3 nodes, {rule}: {plan.ebits} pairs; at F = 0.98 "
                f"fidelity {values[4]:.3f}, bound {0.98**plan.ebits:.3f}, slope {slopes[4]:.2f}"
            )
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    print(f"wrote {draw(options.figure, ebits, small, grid, measured)}")


if __name__ == "__main__":
    main()
