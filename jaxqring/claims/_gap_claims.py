"""The sign of an inner product: qubits of GapIP, bits of its rivals, and noise of the hops."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.audit import (
    crossover,
    crossover_gap,
    decision_error,
    gap_ip,
    plan_gap_ip,
    simhash_bits,
)
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._fits import exponent
from jaxqring.claims._gap_witnesses import (
    error_by_fourier,
    error_of_state_vector,
    fewest_signs,
    gap_of_fewer_symbols,
    gradients_at,
    least_gap,
    most_noise,
    phase_estimation_qubits,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAPER = "Gragera Garces and Pira, arXiv:2606.20344"
SIZE, BITS = 1_000_000, 16
_SMALL = 7  # entries of a gradient whose state vector is written out
NOISY_GAP = 0.00625


def _gap_costs(effort: Effort) -> dict[str, Any]:
    # Halved gaps: the number of outcomes is a power of two, and other ratios fit its steps.
    gaps = [0.2 / 2**power for power in range(8 if effort.quick else 14)]
    sizes = [2**power for power in range(10, 31)]
    with jax.enable_x64(True):
        rows = [crossover(gap, SIZE) for gap in gaps]
        between = crossover_gap(SIZE, width=BITS)
        # Each number of outcomes is compiled anew: few of them in a quick run.
        drawn = 0.4 / 4.0 ** np.arange(9) if effort.quick else np.geomspace(0.5, 5e-6, 160)
        curve = [crossover(float(gap), SIZE) for gap in drawn]
    low, high = 1e-7, 0.1
    for _ in range(60):
        middle = math.sqrt(low * high)
        fewer = plan_gap_ip(middle, SIZE).qubits < SIZE * BITS
        low, high = (low, middle) if fewer else (middle, high)
    return {
        "gaps": gaps,
        "qubits": [row.qubits for row in rows],
        "bits": [row.simhash_bits for row in rows],
        "qubits_counted": [phase_estimation_qubits(gap, SIZE) for gap in gaps],
        "bits_counted": [fewest_signs(gap, error_by_fourier(gap)) for gap in gaps],
        "sizes": sizes,
        "by_size": [plan_gap_ip(0.1, size).qubits for size in sizes],
        "by_size_counted": [phase_estimation_qubits(0.1, size) for size in sizes],
        "between": between,
        "between_scanned": gap_of_fewer_symbols(SIZE),
        "least": high,
        "least_solved": least_gap(SIZE, BITS),
        "curve": [[row.tau, row.qubits, row.simhash_bits] for row in curve],
    }


def _gap_decisions(effort: Effort) -> dict[str, Any]:
    draws = 4_000 if effort.quick else 200_000
    tau = 0.1
    with jax.enable_x64(True):
        exact = [float(decision_error(sign * tau, tau, _SMALL)) for sign in (1, -1)]
        first, second = gradients_at(-tau, _SMALL, effort.seed)
        keys = jax.random.split(jax.random.key(effort.seed), draws)
        agrees = jax.jit(jax.vmap(lambda key: gap_ip(first, second, tau=tau, key=key).agrees))(keys)
    return {
        "exact": max(exact),
        "dense": max(error_of_state_vector(s * tau, tau, _SMALL, effort.seed) for s in (1, -1)),
        "sampled": float(jnp.mean(agrees)),
        "dense_of_sampled": error_of_state_vector(-tau, tau, _SMALL, effort.seed),
        "draws": draws,
    }


def _gap_noise(effort: Effort) -> dict[str, Any]:
    qubits = plan_gap_ip(NOISY_GAP, SIZE).qubits
    with jax.enable_x64(True):

        @jax.jit
        def error(noise: jax.Array) -> jax.Array:
            gaps = NOISY_GAP, -NOISY_GAP
            return jnp.maximum(
                *(decision_error(gap, NOISY_GAP, SIZE, hop_noise=noise) for gap in gaps)
            )

        low, high = 1e-5, 1e-2
        for _ in range(30):
            middle = math.sqrt(low * high)
            wrong = float(error(jnp.asarray(middle)))
            fewer = wrong < 0.5 and qubits < simhash_bits(NOISY_GAP, wrong)
            low, high = (middle, high) if fewer else (low, middle)
    return {"most": low, "most_solved": most_noise(NOISY_GAP, SIZE)}


def _gap_numbers(found: dict[str, Any]) -> tuple[Number, ...]:
    costs, decisions, noise = found["costs"], found["decisions"], found["noise"]
    gaps, sizes = costs["gaps"], np.log2(costs["sizes"])
    wrong = decisions["dense_of_sampled"]
    sampling = math.sqrt(wrong * (1 - wrong) / decisions["draws"])
    return (
        Number(
            "exponent of the qubits over the gap",
            exponent(gaps, costs["qubits"]),
            exponent(gaps, costs["qubits_counted"]),
            "register and control counted step by step",
            claimed=-1.0,
        ),
        Number(
            "exponent of the bits of SimHash over the gap",
            exponent(gaps, costs["bits"]),
            exponent(gaps, costs["bits_counted"]),
            "incomplete beta functions at the error of Fourier transforms",
            claimed=-2.0,
            within=1e-5,
        ),
        Number(
            "qubits for each doubling of P at the gap 0.1",
            float(np.polyfit(sizes, costs["by_size"], 1)[0]),
            float(np.polyfit(sizes, costs["by_size_counted"], 1)[0]),
            "register and control counted step by step",
        ),
        Number(
            f"probability of a wrong sign at the gap 0.1, {_SMALL} entries",
            decisions["exact"],
            decisions["dense"],
            "phase estimation of dense matrices",
        ),
        Number(
            f"wrong share of {decisions['draws']:,} decisions at -0.1",
            decisions["sampled"],
            wrong,
            "phase estimation of dense matrices; 6 standard errors",
            within=6 * sampling,
        ),
        Number(
            f"gap below which qubits are fewer than bits of SimHash, P = {SIZE:,}",
            costs["between"],
            costs["between_scanned"],
            "scan with incomplete beta functions",
        ),
        Number(
            f"gap below which the gradient of {BITS} bits an entry is shorter",
            costs["least"],
            costs["least_solved"],
            "angle of the last power of two that fits",
        ),
        Number(
            f"white noise of a hop up to which qubits are fewer, gap {NOISY_GAP:g}",
            noise["most"],
            noise["most_solved"],
            "Fourier transforms over the hop of the first noise; within 0.1 %",
            within=1e-3 * noise["most_solved"],
        ),
    )


def _gap(found: dict[str, Any]) -> Finding:
    costs, numbers = found["costs"], _gap_numbers(found)
    ours, rival = numbers[0].ours, numbers[1].ours
    because = (
        f"Qubits grow as the power {ours:.2f} of the gap and bits of SimHash as {rival:.2f}, but "
        f"for {SIZE:,} entries fewer qubits than bits are sent only at gaps between "
        f"{costs['least']:.2g} and {costs['between']:.2g}: above, SimHash is shorter, and below, "
        f"the gradient itself. At the gap {NOISY_GAP:g} a hop may bring white noise with "
        f"probability {found['noise']['most']:.2g} at the most."
    )
    if abs(ours + 1) > 0.1 or abs(rival + 2) > 0.1:
        return Finding("fails", because, numbers)
    return Finding("holds if" if costs["between"] < 0.5 else "holds", because, numbers)


def _draw_gap(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    costs = found["costs"]
    gaps, qubits, bits = np.array(costs["curve"]).T
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(costs["least"], costs["between"], color="0.5", alpha=0.12, linewidth=0)
    axes.plot(gaps, qubits, label="GapIP, qubits", **look(1))
    axes.plot(gaps, bits, label="SimHash, bits", **look(2))
    axes.axhline(SIZE * BITS, label="the gradient, bits", color="0.4", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="gap", ylabel="qubits or bits", ylim=(10, 1e11))
    axes.set_title(f"{SIZE:,} entries; shaded: GapIP sends least", fontsize=13)
    axes.legend(loc="upper right")
    return figure


CLAIMS = (
    Claim(
        "gap-ip",
        "The sign of an inner product in few qubits",
        f"{_PAPER}, abstract",
        "GapIP takes O~(tau^-1 log P) qubits against O~(min(tau^-2, P)) bits.",
        "phase estimation of the product of two reflections, its constants and the count of the "
        "control qubit; SimHash at the same error and the gradient itself as rivals; white "
        "noise of hops. The lower bound on bits is the source's.",
        {"costs": _gap_costs, "decisions": _gap_decisions, "noise": _gap_noise},
        _gap,
        _draw_gap,
    ),
)
