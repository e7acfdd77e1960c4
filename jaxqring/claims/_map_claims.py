"""The maps over fidelity: accuracy, bandwidth and secrecy on one page, and by compressor."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._secrecy_claims import distance
from jaxqring.claims._small_training import batches_of, digits, training
from jaxqring.claims._training_witness import (
    Errors,
    linear_mean,
    majority,
    outcomes,
    train_softmax,
)
from jaxqring.claims._witnesses import codeword_fails, repeated_net_rate
from jaxqring.codes import Retransmit, reed_solomon
from jaxqring.compress import Compressor, PowerSGD, SignVote, TernGrad
from jaxqring.link import superdense
from jaxqring.physics.ghz import GHZSource
from jaxqring.physics.pairs import werner
from jaxqring.ring import Ring
from jaxqring.secure import epsilon, plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxqring._types import Key
    from jaxqring.ring._ring import Protection

NODES, STEPS, RATE = 8, 60, 0.5
#: Signs move every weight alike, so that their rate is smaller.
VOTE_RATE, VOTE_MOMENTUM = 0.02, 0.9
CODE = Retransmit(reed_solomon(255, 223))
SECRECY, MASKS = 1e-6, 1000
#: Points of accuracy that count as kept.
KEPT = 0.01
#: Chance of a codeword that does not arrive in eight attempts, below which all of a run do.
_NEVER = 1e-12


def _fidelities(effort: Effort) -> list[float]:
    if effort.quick:
        return [1.0, 0.9999, 0.999, 0.99, 0.97]
    return [1.0, *(1 - np.geomspace(1e-5, 0.1, 17)).tolist()]


def _ours(
    effort: Effort,
    trainings: int,
    fidelities: list[float],
    protection: "Protection | None" = None,
    compressor: Compressor | None = None,
    rate: float = RATE,
) -> np.ndarray:
    """(F, K) accuracies; trainings of one seed share data and errors."""
    train = training(rate, compressor)

    def at(fidelity: jax.Array, key: "Key", batches: jax.Array) -> tuple[jax.Array, jax.Array]:
        ring = Ring(superdense(werner(fidelity=fidelity)), protection=protection)
        return train(ring, key, batches)

    every = jax.jit(jax.vmap(at, (None, 0, 1)))
    keys = jax.random.split(jax.random.key(effort.seed), trainings)
    batches = jnp.asarray(batches_of(effort.seed, trainings, STEPS))
    found = [every(jnp.float32(fidelity), keys, batches) for fidelity in fidelities]
    return np.stack([accuracies for accuracies, _ in found])


def _second(
    effort: Effort, trainings: int, fidelities: list[float], votes: bool = False
) -> np.ndarray:
    """The same by numpy."""
    batches = batches_of(effort.seed, trainings, STEPS)
    rates = np.repeat(1 - np.asarray(fidelities), trainings)[:, None] * np.ones(NODES)
    errors = Errors(rates, [*range(trainings)] * len(fidelities), float(rates.max()))
    train_images, train_labels, images, labels = digits()
    states = train_softmax(
        train_images,
        train_labels,
        np.concatenate([batches] * len(fidelities), axis=1),
        VOTE_RATE if votes else RATE,
        majority(errors) if votes else linear_mean(errors),
        momentum=VOTE_MOMENTUM if votes else 0.0,
    )
    return outcomes(*states, images, labels)[0].reshape(-1, trainings)


def _spread(ours: np.ndarray, second: np.ndarray) -> float:
    """Eight standard errors of the mean difference: the trainings share their data in pairs."""
    differences = ours - second
    return 8 * float(np.std(differences, ddof=1)) / math.sqrt(len(differences)) + 2e-3


def _accuracy(effort: Effort) -> dict[str, Any]:
    trainings, fidelities = 12 if effort.quick else 32, _fidelities(effort)
    bare = _ours(effort, trainings, fidelities)
    coded = _ours(effort, trainings, fidelities, protection=CODE)
    second = _second(effort, trainings, fidelities)
    return {
        "fidelities": fidelities,
        "trainings": trainings,
        "bare": bare.mean(1).tolist(),
        "coded": coded.mean(1).tolist(),
        "second": second.mean(1).tolist(),
        "within": [_spread(a, b) for a, b in zip(bare, second, strict=True)],
        # Where every codeword of a training arrives, it is the noise-free one, bit for bit.
        "coded_second": [
            float(second[0].mean()) if codeword_fails(f, 255, 223) ** 8 < _NEVER else None
            for f in fidelities
        ],
    }


def _bandwidth(effort: Effort) -> dict[str, Any]:
    fidelities = _fidelities(effort)
    rates = CODE.net_rate(superdense(werner(fidelity=jnp.asarray(fidelities))))
    return {
        "fidelities": fidelities,
        "rates": np.asarray(rates).tolist(),
        "second": [repeated_net_rate(f, 255, 223, 32) for f in fidelities],
    }


def _secrecy(effort: Effort) -> dict[str, Any]:
    """The fewest copies a mask for GHZ states of some fidelity: white noise beside the state."""
    rows = []
    for fidelity in _fidelities(effort):
        row: dict[str, Any] = {"fidelity": fidelity, "copies": math.inf}
        try:
            with jax.enable_x64(True):
                source = GHZSource(NODES, white=(1 - fidelity) / (1 - 2.0**-NODES))
                chosen = plan(SECRECY, MASKS, STEPS, source)
                price = epsilon(chosen, MASKS, source, steps=STEPS)
        except ValueError:  # no bucket that is tried meets the target
            rows.append(row)
            continue
        row |= {"copies": price.overhead, "sampling": price.sampling}
        if len(rows) <= 1:
            row["second"] = distance(chosen, price)
        rows.append(row)
    return {"rows": rows}


def _borne(fidelities: list[float], good: list[bool]) -> float:
    """The last of falling fidelities before one that is not good; NaN if the first is not."""
    before = [math.nan, *fidelities[:-1]]
    lost = (last for last, is_good in zip(before, good, strict=True) if not is_good)
    return next(lost, fidelities[-1])


def _one_page(found: dict[str, Any]) -> Finding:
    accuracy, bandwidth = found["accuracy"], found["bandwidth"]
    rows = found["secrecy"]["rows"]
    fidelities, trainings = accuracy["fidelities"], accuracy["trainings"]
    best = accuracy["coded"][0]
    numbers = [
        Number(
            f"accuracy over bare links at F = {fidelity:.6g}, mean of {trainings} trainings",
            accuracy["bare"][index],
            accuracy["second"][index],
            "the same trainings over a ring in numpy",
            within=accuracy["within"][index],
        )
        for index, fidelity in enumerate(fidelities)
    ]
    numbers += [
        *(
            Number(
                f"accuracy over RS(255,223) at F = {fidelity:.6g}, mean of {trainings} trainings",
                accuracy["coded"][index],
                accuracy["coded_second"][index],
                "noise-free trainings over a ring in numpy, as all codewords arrive",
                within=2e-3,
            )
            for index, fidelity in enumerate(fidelities)
            if accuracy["coded_second"][index] is not None
        ),
        *(
            Number(
                f"net bits per qubit, RS(255,223), F = {fidelity:.6g}",
                bandwidth["rates"][index],
                bandwidth["second"][index],
                "binomial failures and renewals, numpy",
                within=1e-4,
            )
            for index, fidelity in enumerate(fidelities)
        ),
        *(
            Number(
                f"secrecy distance of a step, GHZ states of F = {row['fidelity']:.6g}",
                row["sampling"],
                row["second"],
                "hypergeometric laws of scipy",
                within=1e-3 * row["second"],
            )
            for row in rows
            if "second" in row
        ),
    ]
    bare, coded, saves, secret = (
        _borne(fidelities, good)
        for good in (
            [value > best - KEPT for value in accuracy["bare"]],
            [value > best - KEPT for value in accuracy["coded"]],
            [rate > 1 for rate in bandwidth["rates"]],
            [row["copies"] < math.inf for row in rows],
        )
    )
    because = (
        f"Of the fidelities tried, accuracy is kept to a point down to {bare:.6g} on bare links "
        f"and {coded:.6g} in codewords, a saving is left down to {saves:.6g}, and {SECRECY:g} "
        f"over {STEPS} steps can be had from GHZ states down to {secret:.6g}."
    )
    return Finding("holds if" if saves < 1 else "fails", because, tuple(numbers))


def _draw_page(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    accuracy, rows = found["accuracy"], found["secrecy"]["rows"]
    figure = Figure(figsize=(7, 7.5), layout="constrained")
    axes = figure.subplots(3, sharex=True)
    losses = 1 - np.asarray(accuracy["fidelities"][1:])
    for index, (name, label) in enumerate((("coded", "RS(255,223)"), ("bare", "bare links"))):
        axes[0].plot(losses, accuracy[name][1:], marker="o", label=label, **look(index))
    axes[0].set(ylabel="test accuracy", ylim=(0, 1))
    axes[0].legend(loc="lower left")
    axes[1].plot(losses, found["bandwidth"]["rates"][1:], marker="o", **look(0))
    axes[1].axhline(1, color="0.5", linewidth=1)
    axes[1].set(ylabel="net bits\nper qubit", ylim=(0, 2.05))
    copies = [row["copies"] for row in rows[1:]]
    axes[2].plot(losses, copies, marker="o", **look(2))
    axes[2].set(ylabel="GHZ copies a mask", ylim=(0, None), xscale="log")
    axes[2].set_xlabel("infidelity, 1 - F, of the pairs; below, of the GHZ states")
    return figure


METHODS: dict[str, tuple[Compressor | None, float]] = {
    "SGD": (None, RATE),
    "PowerSGD r1": (PowerSGD(rank=1), RATE),
    "TernGrad": (TernGrad(), RATE),
    "Signum": (SignVote(momentum=VOTE_MOMENTUM), VOTE_RATE),
}


def _compressed(name: str) -> Any:
    def part(effort: Effort) -> dict[str, Any]:
        trainings, fidelities = 12 if effort.quick else 32, _fidelities(effort)
        compressor, rate = METHODS[name]
        ours = _ours(effort, trainings, fidelities, compressor=compressor, rate=rate)
        found = {"fidelities": fidelities, "trainings": trainings, "ours": ours.mean(1).tolist()}
        if name in ("SGD", "Signum"):
            second = _second(effort, trainings, fidelities, votes=name == "Signum")
            found["second"] = second.mean(1).tolist()
            found["within"] = [_spread(a, b) for a, b in zip(ours, second, strict=True)]
        return found

    return part


def _by_compressor(found: dict[str, Any]) -> Finding:
    numbers = tuple(
        Number(
            f"accuracy of {name} at F = {fidelity:.6g}, mean of {row['trainings']} trainings",
            row["ours"][index],
            row["second"][index],
            "the same trainings over a ring in numpy",
            within=row["within"][index],
        )
        for name in ("Signum", "SGD")
        for row in (found[name],)
        for index, fidelity in enumerate(row["fidelities"])
    )

    least = {
        name: _borne(
            row["fidelities"], [value > row["ours"][0] - 2 * KEPT for value in row["ours"]]
        )
        for name, row in found.items()
    }
    because = "Within two points of noise-free training down to a fidelity, of those tried, of " + (
        ", ".join(f"{value:.6g} ({name})" for name, value in least.items()) + ", on bare links."
    )
    return Finding("holds if", because, numbers)


def _draw_compressors(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (name, row) in enumerate(found.items()):
        losses = 1 - np.asarray(row["fidelities"][1:])
        axes.plot(losses, row["ours"][1:], marker="o", label=name, **look(index))
    axes.set(xscale="log", xlabel="infidelity of the pairs, 1 - F", ylabel="test accuracy")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower left")
    return figure


CLAIMS = (
    Claim(
        "map-fidelity",
        "Accuracy, bandwidth and secrecy over fidelity",
        "Asked by users of such networks",
        "what do I get at my fidelity?",
        "softmax regression on digits over eight nodes, Werner pairs, RS(255,223) repeated until "
        "right; GHZ states with white noise, verified for 1,000 masks a step. Where codewords get "
        "lost, accuracy in them has no second witness.",
        {"accuracy": _accuracy, "bandwidth": _bandwidth, "secrecy": _secrecy},
        _one_page,
        _draw_page,
    ),
    Claim(
        "map-compressors",
        "Accuracy over fidelity, by compressor",
        "Asked by users of such networks",
        "which compressor bears the noise of bare links?",
        "softmax regression on digits over eight nodes, Werner pairs. PowerSGD and TernGrad have "
        "no second witness under noise.",
        {name: _compressed(name) for name in METHODS},
        _by_compressor,
        _draw_compressors,
    ),
)
