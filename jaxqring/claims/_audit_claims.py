"""The conflict audits: GapIP, TieAudit, and the pairs that they share with the ring."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.audit import (
    crossover,
    crossover_gap,
    crossover_size,
    decision_error,
    gap_ip,
    plan_gap_ip,
    plan_subset_audit,
    plan_tie_audit,
    subset_audit,
    tie_audit,
)
from jaxqring.claims._audit_witnesses import (
    error_by_fourier,
    error_of_state_vector,
    fewest_hits,
    fewest_hits_exactly,
    fewest_signs,
    fewest_subset,
    gap_of_fewer_symbols,
    gradients_at,
    least_gap,
    miss_of_hits,
    miss_of_subset,
    phase_estimation_qubits,
    size_of_fewer_symbols,
    steered_minus,
)
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._fits import exponent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAPER = "Gragera Garces and Pira, arXiv:2606.20344"
SIZE, BITS = 1_000_000, 16
_SMALL = 7  # entries of a gradient whose state vector is written out
ERROR, DELTA = 0.1, 0.05


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


def _gap_numbers(found: dict[str, Any]) -> tuple[Number, ...]:
    costs, decisions = found["costs"], found["decisions"]
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
    )


def _gap(found: dict[str, Any]) -> Finding:
    costs, numbers = found["costs"], _gap_numbers(found)
    ours, rival = numbers[0].ours, numbers[1].ours
    because = (
        f"Qubits grow as the power {ours:.2f} of the gap and bits of SimHash as {rival:.2f}, but "
        f"for {SIZE:,} entries fewer qubits than bits are sent only at gaps between "
        f"{costs['least']:.2g} and {costs['between']:.2g}: above, SimHash is shorter, and below, "
        "the gradient itself."
    )
    if abs(ours + 1) > 0.1 or abs(rival + 2) > 0.1:
        return Finding("fails", because, numbers)
    return Finding("holds if" if costs["between"] < 0.5 else "holds", because, numbers)


def _draw_gap(found: dict[str, Any]) -> "Figure":
    import matplotlib.pyplot as plt

    from jaxqring.show._style import look

    costs = found["costs"]
    gaps, qubits, bits = np.array(costs["curve"]).T
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.axvspan(costs["least"], costs["between"], color="0.5", alpha=0.12, linewidth=0)
    axes.plot(gaps, qubits, label="GapIP, qubits", **look(1))
    axes.plot(gaps, bits, label="SimHash, bits", **look(2))
    axes.axhline(SIZE * BITS, label="the gradient, bits", color="0.4", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="gap", ylabel="qubits or bits", ylim=(10, 1e11))
    axes.set_title(f"{SIZE:,} entries; shaded: GapIP sends least", fontsize=13)
    axes.legend(loc="upper right")
    plt.close(figure)
    return figure


def _tie_costs(effort: Effort) -> dict[str, Any]:
    errors = [0.2 / 2**power for power in range(5 if effort.quick else 7)]
    sizes = [2**power for power in range(10, 31)]
    curves = {
        f"{error:g}": {
            "qubits": [plan_tie_audit(error, DELTA, size).qubits for size in sizes],
            "bits": [plan_subset_audit(error, DELTA, size).bits for size in sizes],
        }
        for error in (0.1, 0.01)
    }
    hits = fewest_hits(ERROR, DELTA)
    return {
        "errors": errors,
        "copies": [plan_tie_audit(error, DELTA, 2**20).copies for error in errors],
        "copies_scanned": [fewest_hits(error, DELTA) for error in errors],
        "copies_exact": [fewest_hits_exactly(error, DELTA) for error in errors],
        "sizes": sizes,
        "curves": curves,
        "qubits_counted": [hits * (size - 1).bit_length() for size in sizes],
        "bits_counted": [fewest_subset(hits, size) for size in sizes],
        "crossover": crossover_size(ERROR, DELTA),
        "crossover_scanned": size_of_fewer_symbols(ERROR, DELTA, 10**5),
    }


def _tie_audits(effort: Effort) -> dict[str, Any]:
    draws = 2_000 if effort.quick else 100_000
    size = 2**12
    rng = np.random.default_rng(effort.seed)
    matching = rng.permutation(size).reshape(-1, 2)
    signs = np.ones(size, int)
    signs[matching[: size // 4, 0]] = -1  # half of the pairs disagree: the hardest fraction
    keys = jax.random.split(jax.random.key(effort.seed), draws)

    def share(audit: Any) -> float:
        def one(key: jax.Array) -> jax.Array:
            return audit(signs, matching, epsilon=ERROR, delta=DELTA, key=key).fraction

        found = jax.lax.map(one, keys, batch_size=500)
        return float(jnp.mean(jnp.abs(found - 0.5) > ERROR + 1e-5))

    few, pairs = np.array([1, 1, -1, -1, 1, -1, 1, 1] * 2), rng.permutation(16).reshape(-1, 2)
    steered = jax.vmap(
        lambda key: tie_audit(few, pairs, delta=DELTA, key=key, copies=100, variant="steered")
    )(keys)
    return {
        "draws": draws,
        "missed": share(tie_audit),
        "missed_exact": miss_of_hits(fewest_hits(ERROR, DELTA), 0.5, ERROR),
        "subset_missed": share(subset_audit),
        "subset_exact": miss_of_subset(
            fewest_subset(fewest_hits(ERROR, DELTA), size), size, 0.5, ERROR
        ),
        "minus": float(jnp.mean(steered.fraction)),
        "minus_dense": steered_minus(few, pairs),
    }


def _tie_growth(costs: dict[str, Any]) -> tuple[Number, ...]:
    errors, sizes, curve = costs["errors"], costs["sizes"], costs["curves"][f"{ERROR:g}"]
    # Of fewer coordinates the subset may be all.
    large = slice(5, None)
    return (
        Number(
            "exponent of the qubits over the error",
            exponent(errors, costs["copies"]),
            exponent(errors, costs["copies_scanned"]),
            "Hoeffding's bound, count by count",
            claimed=-2.0,
        ),
        Number(
            f"copies at the error {ERROR:g}",
            costs["copies"][1],
            costs["copies_scanned"][1],
            "Hoeffding's bound, count by count",
        ),
        Number(
            "qubits for each doubling of P",
            float(np.polyfit(np.log2(sizes), curve["qubits"], 1)[0]),
            float(np.polyfit(np.log2(sizes), costs["qubits_counted"], 1)[0]),
            "copies times the qubits of an index",
        ),
        Number(
            "exponent of the bits of the subset over P",
            exponent(sizes[large], curve["bits"][large]),
            exponent(sizes[large], costs["bits_counted"][large]),
            "fewest signs by integers",
            claimed=0.5,
        ),
        Number(
            "size from which qubits are fewer than bits",
            costs["crossover"],
            costs["crossover_scanned"],
            "all even sizes, one by one",
        ),
    )


def _tie_misses(audits: dict[str, Any]) -> tuple[Number, ...]:
    draws = audits["draws"]

    def spread(chance: float, count: int = draws) -> float:
        return 6 * math.sqrt(chance * (1 - chance) / count)

    return (
        Number(
            f"share of {draws:,} audits off by more than {ERROR:g}",
            audits["missed"],
            audits["missed_exact"],
            "exact binomial; 6 standard errors",
            within=spread(audits["missed_exact"]),
        ),
        Number(
            f"the same of {draws:,} subsets",
            audits["subset_missed"],
            audits["subset_exact"],
            "all sizes of a subset's matching; 6 standard errors",
            within=spread(audits["subset_exact"]),
        ),
        Number(
            "share of minus in steered audits, 16 signs",
            audits["minus"],
            audits["minus_dense"],
            "EPR pairs written out; 6 standard errors",
            within=spread(audits["minus_dense"], 100 * draws),
        ),
    )


def _tie(found: dict[str, Any]) -> Finding:
    costs, audits = found["costs"], found["audits"]
    growth = _tie_growth(costs)
    copies, doubling, rival = (growth[place].ours for place in (0, 2, 3))
    numbers = growth + _tie_misses(audits)
    because = (
        f"Qubits grow as the power {copies:.2f} of the error and by {doubling:.0f} with each "
        f"doubling of P, the bits of a subset of signs as the power {rival:.2f} of P; fewer qubits "
        f"than bits are sent from {costs['crossover']:,} coordinates on, at the error {ERROR:g}. "
        f"{audits['missed']:.2%} of the audits are off by more, where {DELTA:.0%} may be: by the "
        f"binomials of fair coins {costs['copies_exact'][1]} of {costs['copies'][1]} copies do."
    )
    scales = abs(copies + 2) < 0.1 and abs(rival - 0.5) < 0.05 and audits["missed"] <= DELTA
    if not scales:
        return Finding("fails", because, numbers)
    return Finding("holds if" if costs["crossover"] > 2 else "holds", because, numbers)


def _draw_tie(found: dict[str, Any]) -> "Figure":
    import matplotlib.pyplot as plt

    from jaxqring.show._style import look

    costs = found["costs"]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for index, (error, curve) in enumerate(costs["curves"].items()):
        axes.plot(
            costs["sizes"], curve["qubits"], label=f"qubits, error {error}", **look(2 * index)
        )
        axes.plot(
            costs["sizes"], curve["bits"], label=f"bits, error {error}", **look(2 * index + 1)
        )
    axes.set(xscale="log", yscale="log", xlabel="coordinates P", ylabel="qubits or bits")
    axes.legend(loc="upper left", fontsize=11)
    plt.close(figure)
    return figure


CLAIMS = (
    Claim(
        "gap-ip",
        "The sign of an inner product in few qubits",
        f"{_PAPER}, abstract",
        "GapIP takes O~(tau^-1 log P) qubits against O~(min(tau^-2, P)) bits.",
        "phase estimation of the product of two reflections, its constants and the count of the "
        "control qubit; SimHash at the same error and the gradient itself as rivals. The lower "
        "bound on bits is the source's.",
        {"costs": _gap_costs, "decisions": _gap_decisions},
        _gap,
        _draw_gap,
    ),
    Claim(
        "tie-audit",
        "The share of tied weights in conflict",
        f"{_PAPER}, abstract",
        "TieAudit takes O(epsilon^-2 log P) qubits against Omega(sqrt P) bits.",
        "copies of a state of signs measured along a private matching, their number by Hoeffding's "
        "bound; the signs of a public random subset as the rival. The promise of the source is "
        "not known to us, and its lower bound on bits is no matter of a simulation.",
        {"costs": _tie_costs, "audits": _tie_audits},
        _tie,
        _draw_tie,
    ),
)
