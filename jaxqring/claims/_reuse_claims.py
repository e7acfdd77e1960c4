"""The pairs that the ring and the conflict audits share, and those that they cannot."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.audit import plan_gap_ip, plan_tie_audit
from jaxqring.capacity import dense_coding_capacity
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._gap_witnesses import phase_estimation_qubits
from jaxqring.claims._reuse_witnesses import coding_capacity, negativity, spent_pairs
from jaxqring.claims._tie_witnesses import fewest_copies
from jaxqring.claims._witnesses import bell_transition, information, werner_density
from jaxqring.link import superdense
from jaxqring.physics.information import mutual_information_uniform
from jaxqring.physics.pairs import from_density_matrix, werner
from jaxqring.ring import Ring

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NODES, SIZE, BITS = 8, 1_000_000, 16
GAP, ERROR, DELTA = 0.1, 0.1, 0.05
USES = {
    "ring": "the Bell measurement of the ring",
    "hop": "a teleported hop of GapIP",
    "steered": "a steered copy of TieAudit",
}


def _spent(effort: Effort) -> dict[str, Any]:
    states = spent_pairs()
    left = {}
    with jax.enable_x64(True):
        for use, outcomes in states.items():
            pairs = from_density_matrix(jnp.asarray(np.array(outcomes)))
            left[use] = {
                "capacity": float(jnp.max(dense_coding_capacity(pairs))),
                "capacity_dense": max(coding_capacity(rho) for rho in outcomes),
                "negativity": max(negativity(rho) for rho in outcomes),
                "read": float(jnp.max(mutual_information_uniform(superdense(pairs).transition))),
                "read_dense": max(information(bell_transition(rho)) for rho in outcomes),
            }
        before = float(dense_coding_capacity(werner(fidelity=1.0)))
    return {
        "before": before,
        "before_dense": coding_capacity(werner_density(1.0)),
        "negativity": negativity(werner_density(1.0)),
        "left": left,
    }


def _stock(effort: Effort) -> dict[str, Any]:
    gaps = np.geomspace(1e-5, 0.5, 200).tolist()
    errors = np.geomspace(1e-3, 0.5, 100).tolist()
    index = math.ceil(math.log2(SIZE))
    return {
        "ring": Ring(noise="off").cost(SIZE, NODES).pairs,
        "ring_counted": 2 * (NODES - 1) * -(-SIZE // NODES) * BITS // 2,
        "gap_ip": plan_gap_ip(GAP, SIZE).qubits,
        "gap_ip_counted": phase_estimation_qubits(GAP, SIZE),
        "tie": plan_tie_audit(ERROR, DELTA, SIZE, variant="steered").pairs,
        # Levels of a copy beyond P are no coordinates: a few more copies make up for them.
        "tie_counted": index * fewest_copies(ERROR, DELTA, SIZE / 2**index),
        "gaps": gaps,
        "by_gap": [plan_gap_ip(gap, SIZE).qubits for gap in gaps],
        "errors": errors,
        "by_error": [
            plan_tie_audit(error, DELTA, SIZE, variant="steered").pairs for error in errors
        ],
    }


def _reuse_numbers(spent: dict[str, Any], stock: dict[str, Any]) -> tuple[Number, ...]:
    left, numbers = spent["left"], []
    for use, name in USES.items():
        numbers += [
            Number(
                f"bits per qubit that a pair supports after {name}",
                left[use]["capacity"],
                left[use]["capacity_dense"],
                "all outcomes written out, entropies of dense matrices",
                within=1e-9,
            ),
            Number(
                f"bits that the ring would read by that pair, after {name}",
                left[use]["read"],
                left[use]["read_dense"],
                "mutual information of dense matrices",
                within=1e-9,
            ),
        ]
    numbers += [
        Number(
            "bits per qubit that it supported before",
            spent["before"],
            spent["before_dense"],
            "entropies of dense matrices",
            claimed=2.0,
            within=1e-9,
        ),
        Number(
            f"pairs of one GapIP, gap {GAP:g}, in % of those of a link in an all-reduce",
            100 * stock["gap_ip"] / stock["ring"],
            100 * stock["gap_ip_counted"] / stock["ring_counted"],
            "hops of the register and its control, and symbols of the schedule, counted",
        ),
        Number(
            f"pairs of one steered TieAudit, error {ERROR:g}, in % of the same",
            100 * stock["tie"] / stock["ring"],
            100 * stock["tie_counted"] / stock["ring_counted"],
            "Hoeffding's bound over all numbers of hits, and symbols of the schedule",
        ),
    ]
    return tuple(numbers)


def _reuse(found: dict[str, Any]) -> Finding:
    spent, stock = found["spent"], found["stock"]
    numbers, left = _reuse_numbers(spent, stock), spent["left"]
    gap, tie = (number.ours for number in numbers[-2:])
    entanglement = round(max(each["negativity"] for each in left.values()), 9)
    gains = max(each["capacity"] for each in left.values()) > 1 + 1e-9
    fewest = max(
        tau
        for tau, pairs in zip(stock["gaps"], stock["by_gap"], strict=True)
        if pairs >= stock["ring"]
    )
    because = (
        f"A pair that has been read has a negativity of {entanglement:g} left of "
        f"{spent['negativity']:.2g}, whichever of {len(USES)} measurements read it: "
        f"it {'could serve again' if entanglement or gains else 'serves once'}. "
        f"From one stock GapIP at the gap {GAP:g} takes {gap:.2g} % and TieAudit at the error "
        f"{ERROR:g} {tie:.2g} % of the pairs of a link in one all-reduce of {SIZE:,} values; at "
        f"gaps of {fewest:.1g} an audit takes as many as the ring."
    )
    if entanglement or gains:
        return Finding("holds", because, numbers)
    return Finding("holds if" if max(gap, tie) < 100 else "fails", because, numbers)


def _draw_reuse(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    stock = found["stock"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    curves = {
        "GapIP, teleported, over the gap": ("gaps", "by_gap"),
        "TieAudit, steered, over the error": ("errors", "by_error"),
    }
    for index, (name, (x, y)) in enumerate(curves.items()):
        share = 100 * np.asarray(stock[y]) / stock["ring"]
        axes.plot(stock[x], share, label=name, **look(index, 1))
    axes.axhline(100, color="0.4", linestyle=":", label="one all-reduce")
    axes.set(xscale="log", yscale="log", xlabel="gap or error")
    axes.set_ylabel("pairs of a link (%)")
    axes.legend(loc="lower left", fontsize=11)
    return figure


CLAIMS = (
    Claim(
        "entanglement-reuse",
        "One stock of pairs for the ring and the audits",
        "Gragera Garces and Pira, arXiv:2606.20344, open question",
        "can the entanglement of the ring serve the conflict tests too? The source keeps the "
        "budgets apart.",
        "reuse means a second use of the same pair, and sharing that both draw from one stock; "
        "hops of GapIP teleported, control qubit included, and copies of TieAudit steered, "
        f"between neighbours on a ring of {NODES} nodes. The states of spent pairs and their "
        "negativity are of the second witness alone.",
        {"spent": _spent, "stock": _stock},
        _reuse,
        _draw_reuse,
    ),
)
