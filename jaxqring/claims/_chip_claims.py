"""Chips of a fixed design: angles that arrive as states, what they leak, gradients as states."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.claims._chip_witnesses import (
    bits_read,
    copies_to_read,
    holevo_of_programs,
    message_bits,
    turned_by_program,
)
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._fits import exponent
from jaxqring.qmodels import (
    chip_branches,
    chip_cost,
    fixed_chip,
    gradient_state_cost,
    holevo,
    program,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ANGLE = 0.7
_QUBITS = 4  # of the program in the table
_DATA = (0.6, 0.8j)
_SIZE = 1024  # entries of a gradient in the figure


def _runs(effort: Effort) -> dict[str, Any]:
    draws = 4_000 if effort.quick else 200_000
    lengths = list(range(1, _QUBITS + 1))
    found: dict[str, Any] = {"lengths": lengths, "draws": draws, "success": [], "infidelity": []}
    with jax.enable_x64(True):
        data = jnp.asarray(_DATA)
        wanted = data * jnp.exp(jnp.array([0, 1j * _ANGLE]))
        for k in lengths:
            every = chip_branches(data, program(_ANGLE, k), 0)
            overlaps = jnp.abs(every.states[:-1] @ wanted.conj()) ** 2
            found["success"].append(float(jnp.sum(every.probs[:-1])))
            found["infidelity"].append(float(jnp.max(1 - overlaps)))
        keys = jax.random.split(jax.random.key(effort.seed), draws)
        states = program(_ANGLE, _QUBITS)
        run = jax.jit(jax.vmap(lambda key: fixed_chip(data, states, 0, key).succeeded))
        found["sampled"] = float(jnp.mean(run(keys)))
    dense = [turned_by_program(_ANGLE, k) for k in lengths]
    found["success_dense"] = [success for success, _ in dense]
    found["infidelity_dense"] = [infidelity for _, infidelity in dense]
    return found


def _programs(thetas: jax.Array, qubits: int) -> jax.Array:
    """(count, 2^k) the program qubits of each angle as one state."""
    kets = program(thetas, qubits)
    states = kets[:, 0]
    for j in range(1, qubits):
        states = jnp.einsum("ci,cj->cij", states, kets[:, j]).reshape(len(thetas), -1)
    return states


def _leaks(effort: Effort) -> dict[str, Any]:
    lengths = list(range(1, 6 if effort.quick else 9))
    with jax.enable_x64(True):
        leaked = [
            float(holevo(_programs(2 * jnp.pi * jnp.arange(4 * 2**k) / (4 * 2**k), k)))
            for k in lengths
        ]
    return {
        "lengths": lengths,
        "leaked": leaked,
        "leaked_dense": [holevo_of_programs(k) for k in lengths],
        "read": [chip_cost(k).read for k in lengths],
        "read_dense": [bits_read(k, 500 * 2**k) for k in lengths],
    }


def _gradients(effort: Effort) -> dict[str, Any]:
    draws = 20 if effort.quick else 200
    sizes, errors = [64, 256, _SIZE, 4096], [0.5, 0.3, 0.2, 0.1, 0.05]
    costs = [[gradient_state_cost(size, error) for error in errors] for size in sizes]
    drawn = [
        [copies_to_read(size, error, draws, effort.seed) for error in errors] for size in sizes
    ]
    bits = [[message_bits(size, error) for error in errors] for size in sizes]
    return {
        "errors": errors,
        "sizes": sizes,
        "copies": [[cost.copies for cost in row] for row in costs],
        "copies_drawn": drawn,
        "qubits": [[cost.qubits for cost in row] for row in costs],
        "bits": [[cost.bits for cost in row] for row in costs],
        "bits_counted": bits,
        "saves": sum(cost.saves for row in costs for cost in row),
        "saves_drawn": sum(
            copies * (size - 1).bit_length() < message
            for size, row, messages in zip(sizes, drawn, bits, strict=True)
            for copies, message in zip(row, messages, strict=True)
        ),
    }


def _chip_numbers(found: dict[str, Any]) -> tuple[Number, ...]:
    runs, leaks, sent = found["runs"], found["leaks"], found["gradients"]
    at = leaks["lengths"].index(_QUBITS)
    success = runs["success_dense"][-1]
    row = sent["sizes"].index(_SIZE)
    cases = len(sent["sizes"]) * len(sent["errors"])
    return (
        Number(
            f"probability that a program of {_QUBITS} qubits turns the data",
            runs["success"][-1],
            success,
            "data and program in one state vector, all readings followed",
        ),
        Number(
            f"share of {runs['draws']:,} runs that succeeded",
            runs["sampled"],
            success,
            "the same state vector; 6 standard errors",
            within=6 * (success * (1 - success) / runs["draws"]) ** 0.5,
        ),
        Number(
            "largest infidelity of the data after a success",
            max(runs["infidelity"]),
            max(runs["infidelity_dense"]),
            "the same state vector",
            within=1e-12,
        ),
        Number(
            f"bits of an angle in a program of {_QUBITS} qubits, at most",
            leaks["leaked"][at],
            leaks["leaked_dense"][at],
            "entropy of a sum of density matrices",
        ),
        Number(
            "bits of it that phase estimation reads",
            leaks["read"][at],
            leaks["read_dense"][at],
            "Fourier matrix on a finer grid of angles",
            within=1e-3,
        ),
        Number(
            f"exponent of the copies of a gradient state over the error, {_SIZE:,} entries",
            exponent(sent["errors"], sent["copies"][row]),
            exponent(sent["errors"], sent["copies_drawn"][row]),
            "counts of outcomes drawn, signs given away; within 0.1",
            within=0.1,
        ),
        Number(
            f"cases of {cases} in which a gradient as states saves qubits",
            sent["saves"],
            sent["saves_drawn"],
            "drawn copies, and bits of rounded numbers",
        ),
    )


def _chips(found: dict[str, Any]) -> Finding:
    runs, leaks, sent = found["runs"], found["leaks"], found["gradients"]
    at = leaks["lengths"].index(_QUBITS)
    numbers, success = _chip_numbers(found), runs["success"][-1]
    cases = len(sent["sizes"]) * len(sent["errors"])
    share = np.mean(np.divide(sent["copies_drawn"], sent["copies"]))
    because = (
        f"A fixed chip turns its data exactly with probability {success:.4f} by {_QUBITS} program "
        f"qubits, and sees a failure. The program holds {leaks['leaked'][at]:.2f} bits of its "
        f"angle, and a client reads {leaks['read'][at]:.2f} of them. A gradient as states saves "
        f"qubits in {sent['saves']} of {cases} cases, and in {sent['saves_drawn']} if the signs "
        f"are given away, which takes {share:.2f} of the copies."
    )
    exact = max(runs["infidelity"]) < 1e-9 and abs(success - (1 - 2.0**-_QUBITS)) < 1e-9
    if not exact:
        return Finding("fails", because, numbers)
    free = leaks["read"][at] < 0.01 and sent["saves"] == cases
    return Finding("holds" if free else "holds if", because, numbers)


def _draw_chips(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    leaks, sent = found["leaks"], found["gradients"]
    row = sent["sizes"].index(_SIZE)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = {"leaked": "in a program, at most", "read": "read by phase estimation"}
    for index, (name, label) in enumerate(curves.items()):
        left.plot(leaks["lengths"], leaks[name], marker="o", label=label, **look(index, 1))
    left.set(xlabel="program qubits k", ylabel="bits of an angle", xticks=leaks["lengths"])
    left.legend(loc="upper left", fontsize=11)
    read = np.asarray(sent["copies_drawn"][row]) * (_SIZE - 1).bit_length()
    for index, (label, values) in enumerate(
        {
            "states, qubits": sent["qubits"][row],
            "states, signs given away": read,
            "numbers, bits": sent["bits"][row],
        }.items()
    ):
        right.plot(sent["errors"], values, label=label, **look(index, 1))
    right.set(xscale="log", yscale="log", xlabel="error of a gradient", ylabel="qubits or bits")
    right.set_xticks(sent["errors"], [f"{error:g}" for error in sent["errors"]])
    right.minorticks_off()
    right.set_title(f"{_SIZE:,} entries", fontsize=13)
    right.legend(loc="upper right", fontsize=11)
    return figure


CLAIMS = (
    Claim(
        "fixed-chips",
        "Angles and gradients as states for a fixed chip",
        "Daskin, arXiv:2401.13421, abstract",
        "a server sends the learning operator as a state, and clients run it on a fixed circuit "
        "and return gradients as states.",
        "programs of Vidal, Masanes and Cirac for the operator, the Holevo quantity and phase "
        "estimation for what a client learns, amplitudes for the gradient, errors up to a half.",
        {"runs": _runs, "leaks": _leaks, "gradients": _gradients},
        _chips,
        _draw_chips,
    ),
)
