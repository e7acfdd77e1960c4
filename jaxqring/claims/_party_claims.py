"""Learning between two parties: the traffic of losses and gradients, and linear classifiers."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.audit import crossover, simhash
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._fits import exponent
from jaxqring.claims._gap_witnesses import (
    error_by_fourier,
    fewest_signs,
    phase_estimation_qubits,
)
from jaxqring.claims._party_witnesses import (
    DenseModel,
    fewest_shots,
    hops_of_loss,
    hops_of_slopes,
    miss_of_mean,
    party_losses,
    planes_wrong,
    slope_by_shifts,
)
from jaxqring.qmodels import (
    TwoParty,
    amplitude_crossover,
    linear_classifier_bounds,
    shots_for,
    two_party_cost,
    two_party_gradients,
    two_party_loss,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAPER = "Gilboa, Michaeli, Soudry and McClean, arXiv:2310.07136"
ERROR, DELTA, BITS, LAYERS, QUBITS = 0.1, 0.05, 16, 5, 20
PARAMETERS = 200  # of all unitaries, where the number of qubits changes
_SMALL = DenseModel(alice=("XXI", "IZZ", "YIX"), bob=("ZXI", "IYY", "XIZ"), observable="ZII")


def _loss_qubits(qubits: int) -> int:
    return two_party_cost(qubits, LAYERS, shots=shots_for(ERROR, DELTA)).qubits


def _slope_qubits(method: Any, qubits: int, parameters: int, groups: int) -> int:
    """Qubits of a gradient of `parameters` angles, as many in each of the 2 L unitaries."""
    shots = shots_for(ERROR, DELTA, parameters, method=method)
    each = parameters // (2 * LAYERS)
    return two_party_cost(
        qubits, LAYERS, method=method, shots=shots, parameters=each, groups=groups
    ).qubits


def _slope_counted(qubits: int, parameters: int, groups: int) -> int:
    """The same of the ancilla, hop by hop."""
    shots = fewest_shots(ERROR, DELTA, parameters)
    return sum(groups * shots * hops * qubits for hops in hops_of_slopes(LAYERS))


def _layered(parameters: int, qubits: int) -> int:
    """Commuting groups of a unitary made of layers that turn every qubit about one axis."""
    return math.ceil(parameters / (2 * LAYERS) / qubits)


def _traffic(effort: Effort) -> dict[str, Any]:
    sizes = list(range(4, 41))
    many = [2 * LAYERS * QUBITS * 2**power for power in range(10)]
    shots = fewest_shots(ERROR, DELTA)

    def message(qubits: int) -> int:
        return (2**qubits + PARAMETERS) * BITS

    def ancilla(qubits: int) -> int:
        return _slope_qubits("ancilla", qubits, PARAMETERS, _layered(PARAMETERS, qubits))

    def counted(qubits: int) -> int:
        return _slope_counted(qubits, PARAMETERS, _layered(PARAMETERS, qubits))

    return {
        "sizes": sizes,
        "loss": [_loss_qubits(n) for n in sizes],
        "loss_counted": [shots * hops_of_loss(LAYERS) * n for n in sizes],
        "ancilla": [ancilla(n) for n in sizes],
        "shift": [_slope_qubits("shift", n, PARAMETERS, 1) for n in sizes],
        "message": [message(n) for n in sizes],
        "many": many,
        "commuting": [_slope_qubits("ancilla", QUBITS, m, 1) for m in many],
        "commuting_counted": [_slope_counted(QUBITS, m, 1) for m in many],
        "layered": [_slope_qubits("ancilla", QUBITS, m, _layered(m, QUBITS)) for m in many],
        "layered_counted": [_slope_counted(QUBITS, m, _layered(m, QUBITS)) for m in many],
        "by_shift": [_slope_qubits("shift", QUBITS, m, 1) for m in many],
        "by_shift_counted": [
            2 * m * fewest_shots(ERROR, DELTA, m, outcomes=2) * hops_of_loss(LAYERS) * QUBITS
            for m in many
        ],
        "hop": amplitude_crossover(ERROR, DELTA, bits=BITS),
        "hop_scanned": next(n for n in sizes if 2**n * BITS > n * shots),
        "gradient": next(n for n in sizes if ancilla(n) < message(n)),
        "gradient_scanned": next(n for n in sizes if counted(n) < message(n)),
    }


def _estimates(effort: Effort) -> dict[str, Any]:
    draws = 2_000 if effort.quick else 50_000
    rng = np.random.default_rng(effort.seed)
    model = TwoParty(*_SMALL, layers=2)
    radians = {party: rng.uniform(-1, 1, (2, 3)) for party in ("alice", "bob")}
    x = rng.normal(size=8)
    states = (x / np.linalg.norm(x))[None]
    shots = shots_for(ERROR, DELTA)
    with jax.enable_x64(True):
        angles = jax.tree.map(jnp.asarray, radians)
        loss = two_party_loss(model, angles, x).value
        slopes = two_party_gradients(model, angles, x).value
        keys = jax.random.split(jax.random.key(effort.seed), draws)
        sampled = jax.jit(
            jax.vmap(lambda key: two_party_loss(model, angles, x, shots=shots, key=key).value)
        )(keys)
    exact = float(party_losses(_SMALL, radians, states)[0])
    by_shifts = slope_by_shifts(_SMALL, radians, states)
    ours = np.concatenate([np.asarray(slopes[party]).ravel() for party in radians])
    largest = int(np.argmax(np.abs(by_shifts)))
    return {
        "draws": draws,
        "shots": shots,
        "shots_scanned": fewest_shots(ERROR, DELTA),
        "loss": float(loss),
        "loss_dense": exact,
        "slope": float(ours[largest]),
        "slope_dense": float(by_shifts[largest]),
        "missed": float(np.mean(np.abs(np.asarray(sampled) - exact) > ERROR)),
        "missed_exact": miss_of_mean(shots, exact, ERROR),
    }


def _communication_numbers(found: dict[str, Any]) -> tuple[Number, ...]:
    traffic, made = found["traffic"], found["estimates"]
    sizes, many = traffic["sizes"], traffic["many"]
    missed = made["missed_exact"]
    powers = {name: exponent(many, traffic[name]) for name in ("commuting", "layered", "by_shift")}
    counted = {name: exponent(many, traffic[f"{name}_counted"]) for name in powers}
    by_hop = "hops and shots counted one by one"
    return (
        Number(
            "exponent of the qubits of a loss over log N",
            exponent(sizes, traffic["loss"]),
            exponent(sizes, traffic["loss_counted"]),
            by_hop,
            claimed=1.0,
        ),
        *(
            Number(
                f"exponent of a gradient's qubits over P, {text}",
                powers[name],
                counted[name],
                by_hop,
            )
            for name, text in (
                ("commuting", "generators that commute"),
                ("layered", f"layers of {QUBITS} rotations"),
                ("by_shift", "parameter shift"),
            )
        ),
        Number(
            f"shots of a loss to within {ERROR:g}",
            made["shots"],
            made["shots_scanned"],
            "Hoeffding's bound, count by count",
        ),
        Number(
            f"share of {made['draws']:,} losses off by more",
            made["missed"],
            missed,
            "exact binomial at the loss of dense matrices; 6 standard errors",
            within=6 * math.sqrt(max(missed * (1 - missed), 1e-9) / made["draws"]),
        ),
        Number("loss of a model of 3 qubits", made["loss"], made["loss_dense"], "dense matrices"),
        Number(
            "its largest derivative",
            made["slope"],
            made["slope_dense"],
            "turned angles of dense matrices",
        ),
        Number(
            f"qubits n from which a hop of a loss is shorter than N = 2^n numbers of {BITS} bits",
            traffic["hop"],
            traffic["hop_scanned"],
            "scan of counted shots",
        ),
        Number(
            f"n from which a gradient of {PARAMETERS} angles is",
            traffic["gradient"],
            traffic["gradient_scanned"],
            "scan of counted hops",
        ),
    )


def _communication(found: dict[str, Any]) -> Finding:
    traffic, numbers = found["traffic"], _communication_numbers(found)
    of_size, commuting, layered = (number.ours for number in numbers[:3])
    because = (
        f"A loss takes qubits as the power {of_size:.2f} of log N, and a gradient fewer than its "
        f"classical message has bits from N = 2^{traffic['gradient']} on. In the number P of "
        f"parameters it grows as the power {commuting:.2f} where all generators of a "
        f"unitary commute and one state serves them, but as {layered:.2f} for layers of "
        f"{QUBITS} rotations one behind the other. Shadow tomography, the source's way, is not "
        "simulated."
    )
    missed = found["estimates"]["missed"]
    if abs(of_size - 1) > 0.1 or commuting > 0.2 or missed > DELTA:
        return Finding("fails", because, numbers)
    return Finding("holds if" if layered > 0.2 else "holds", because, numbers)


def _draw_communication(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    traffic = found["traffic"]
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, label) in enumerate(
        (
            ("message", "classical message, bits"),
            ("loss", "loss"),
            ("shift", "gradient, shift"),
            ("ancilla", "gradient, ancilla"),
        )
    ):
        left.plot(traffic["sizes"], traffic[name], label=label, **look(index))
    left.set(yscale="log", ylim=(1e4, 1e11), xlabel="qubits n, N = 2^n", ylabel="qubits or bits")
    left.legend(loc="upper left", fontsize=11)
    for index, (name, label) in enumerate(
        (
            ("by_shift", "shift"),
            ("layered", f"ancilla, layers of {QUBITS}"),
            ("commuting", "ancilla, all commute"),
        )
    ):
        right.plot(traffic["many"], traffic[name], label=label, **look(index, 2))
    right.set(xscale="log", yscale="log", xlabel="parameters", ylabel="qubits of a gradient")
    right.legend(loc="upper left", fontsize=11)
    return figure


def _bounds(effort: Effort) -> dict[str, Any]:
    margins = [0.1 / 2**power for power in range(5 if effort.quick else 8)]
    sizes = [2**power for power in range(10, 31, 4)]
    with jax.enable_x64(True):
        by_margin = [crossover(margin, 10**6) for margin in margins]
        by_size = [crossover(0.1, size) for size in sizes]
    stated = linear_classifier_bounds(10**6, 0.01)
    return {
        "margins": margins,
        "qubits": [row.qubits for row in by_margin],
        "bits": [row.simhash_bits for row in by_margin],
        "qubits_counted": [phase_estimation_qubits(margin, 10**6) for margin in margins],
        "bits_counted": [fewest_signs(margin, error_by_fourier(margin)) for margin in margins],
        "sizes": sizes,
        "bits_by_size": [row.simhash_bits for row in by_size],
        "least": stated.quantum,
        "most": stated.classical,
    }


def _planes(effort: Effort) -> dict[str, Any]:
    draws = 2_000 if effort.quick else 20_000
    keys = jax.random.split(jax.random.key(effort.seed), draws)
    agree = jax.jit(jax.vmap(lambda key: simhash(key, 0.1, 101)))(keys)
    return {
        "draws": draws,
        "wrong": float(jnp.mean(~agree)),
        "wrong_drawn": {
            str(size): planes_wrong(0.1, size, 101, draws, effort.seed) for size in (16, 256)
        },
    }


def _linear(found: dict[str, Any]) -> Finding:
    bounds, planes = found["bounds"], found["planes"]
    margins = bounds["margins"]
    ours, rival = exponent(margins, bounds["qubits"]), exponent(margins, bounds["bits"])
    power = exponent(bounds["qubits"], bounds["bits"])
    stated = math.log(bounds["most"]) / math.log(bounds["least"])
    flat = exponent(bounds["sizes"], bounds["bits_by_size"])
    wrong = planes["wrong"]
    numbers = (
        Number(
            "power of the qubits of GapIP by which bits of SimHash grow",
            power,
            exponent(bounds["qubits_counted"], bounds["bits_counted"]),
            "hops of phase estimation, and incomplete beta functions, counted",
            within=1e-4,
        ),
        Number(
            "exponent of the qubits over the margin",
            ours,
            exponent(margins, bounds["qubits_counted"]),
            "hops of phase estimation counted",
        ),
        Number(
            "exponent of the bits over the margin",
            rival,
            exponent(margins, bounds["bits_counted"]),
            "incomplete beta functions at the error of Fourier transforms",
            within=1e-4,
        ),
        Number(
            "exponent of the bits over N, margin 0.1", flat, 0.0, "a sign knows no N", within=1e-9
        ),
        Number(
            "power between the stated bounds, N = 1,000,000, margin 0.01",
            stated,
            math.log(0.01**-2) / math.log(math.sqrt(1 / 0.01)),
            "sqrt(1 / margin) qubits, 1 / margin^2 bits",
            claimed=4.0,
        ),
        *(
            Number(
                f"wrong share of {planes['draws']:,} majorities of 101 signs, N = {size}",
                wrong,
                drawn,
                "planes drawn and vectors put beside them; 6 standard errors",
                within=6 * math.sqrt(2 * drawn * (1 - drawn) / planes["draws"]),
            )
            for size, drawn in planes["wrong_drawn"].items()
        ),
    )
    because = (
        f"Bits of SimHash grow as the power {power:.2f} of the qubits of GapIP, and as the power "
        f"{flat:.2f} of N; the bounds leave a power of {stated:.2g} at the most. An exponential "
        "gap would have no such power."
    )
    return Finding(
        "holds" if power < stated + 0.1 and abs(flat) < 0.01 else "fails", because, numbers
    )


CLAIMS = (
    Claim(
        "two-party-communication",
        "Losses and gradients in few qubits",
        f"{_PAPER}, abstract; formulas from memory",
        "communication polylogarithmic in the size N of the input and in the parameters of a "
        "unitary.",
        "estimators that read Paulis with or without an ancilla, shots by Hoeffding's bound, and "
        "the amplitudes and angles sent once as the classical rival; the source's lower bound of "
        "sqrt N bits is no matter of a simulation.",
        {"traffic": _traffic, "estimates": _estimates},
        _communication,
        _draw_communication,
    ),
    Claim(
        "linear-classifiers",
        "No exponential advantage for linear classifiers",
        f"{_PAPER}, abstract; bounds from memory",
        "no exponential advantage in communication holds for linear classification.",
        "GapIP and SimHash as the protocols, constants of the bounds set to one.",
        {"bounds": _bounds, "planes": _planes},
        _linear,
    ),
)
