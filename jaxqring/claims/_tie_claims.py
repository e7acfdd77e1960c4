"""The conflict audit of tied weights: copies, bits, and the share of audits that miss."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.audit import (
    crossover_size,
    plan_subset_audit,
    plan_tie_audit,
    subset_audit,
    tie_audit,
)
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._fits import exponent
from jaxqring.claims._tie_witnesses import (
    fewest_hits,
    fewest_hits_exactly,
    fewest_subset,
    miss_of_hits,
    miss_of_subset,
    size_of_fewer_symbols,
    steered_minus,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR, DELTA = 0.1, 0.05


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
    draws = 2_000 if effort.quick else 40_000
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
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    costs = found["costs"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (error, curve) in enumerate(costs["curves"].items()):
        axes.plot(
            costs["sizes"], curve["qubits"], label=f"qubits, error {error}", **look(2 * index)
        )
        axes.plot(
            costs["sizes"], curve["bits"], label=f"bits, error {error}", **look(2 * index + 1)
        )
    axes.set(xscale="log", yscale="log", xlabel="coordinates P", ylabel="qubits or bits")
    axes.legend(loc="upper left", fontsize=11)
    return figure


CLAIMS = (
    Claim(
        "tie-audit",
        "The share of tied weights in conflict",
        "Gragera Garces and Pira, arXiv:2606.20344, abstract",
        "TieAudit takes O(epsilon^-2 log P) qubits against Omega(sqrt P) bits.",
        "copies of a state of signs measured along a private matching, their number by Hoeffding's "
        "bound; the signs of a public random subset as the rival. The promise of the source is "
        "not known to us, and its lower bound on bits is no matter of a simulation.",
        {"costs": _tie_costs, "audits": _tie_audits},
        _tie,
        _draw_tie,
    ),
)
