"""Derivatives of a training by the physics of each link, with intervals."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._small_training import batches_of, digits, training
from jaxqring.claims._training_witness import Errors, linear_mean, outcomes, train_softmax
from jaxqring.gradients import couple, expected, finite_difference
from jaxqring.link import superdense
from jaxqring.physics.pairs import werner
from jaxqring.ring import Ring

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxqring._types import Key

NODES, STEPS, RATE = 8, 60, 0.5

_AT, _WIDTH = 0.998, 2e-3
OUTCOMES = ("accuracy", "soft accuracy")


def _slopes(effort: Effort) -> dict[str, Any]:
    trainings = 16 if effort.quick else 128
    train = training(RATE)
    batches = jnp.asarray(batches_of(effort.seed, 1, STEPS))[:, 0]

    def both(ring: Ring, keys: "Key") -> tuple[jax.Array, jax.Array]:
        return train(ring, keys[0], batches)

    def soft(ring: Ring, keys: "Key") -> jax.Array:
        return both(ring, keys)[1]

    def ring_at(fidelity: jax.Array) -> Ring:
        return Ring(superdense(werner(fidelity=fidelity)))

    @jax.jit
    @jax.vmap
    def each(key: "Key") -> jax.Array:
        def mean(fidelities: jax.Array) -> jax.Array:
            return expected(soft, ring_at(fidelities), key, estimator="gaussian", calls=1)

        return jax.jacfwd(mean)(jnp.full(NODES, _AT))

    slopes = np.asarray(each(jax.random.split(jax.random.key(effort.seed), trainings)), float)
    low, high = couple(*(ring_at(jnp.full(NODES, _AT + s * _WIDTH / 2)) for s in (-1, 1)))
    key = jax.random.key(effort.seed + 1)
    rises = finite_difference(both, low, high, _WIDTH, key, samples=trainings, calls=1)
    seconds = _differences_in_numpy(np.asarray(batches), 4 * trainings)
    return {
        "trainings": trainings,
        "each": [_mean(slopes[:, link]) for link in range(NODES)],
        "gradient": _mean(slopes.sum(1)),
        "differences": [_mean(np.asarray(rise, float)) for rise in rises],
        "seconds": [_mean(rise) for rise in seconds],
    }


def _mean(sample: np.ndarray) -> tuple[float, float]:
    """The mean of a sample and its standard error."""
    return float(sample.mean()), float(sample.std(ddof=1) / math.sqrt(len(sample)))


def _differences_in_numpy(batches: np.ndarray, trainings: int) -> list[np.ndarray]:
    """(trainings,) difference quotients of each outcome, between rings that share errors."""
    rates = np.repeat([1 - _AT + _WIDTH / 2, 1 - _AT - _WIDTH / 2], trainings)[:, None]
    errors = Errors(rates * np.ones(NODES), [*range(trainings)] * 2, float(rates.max()))
    train_images, train_labels, images, labels = digits()
    same = np.repeat(batches[:, None], 2 * trainings, axis=1)
    states = train_softmax(train_images, train_labels, same, RATE, linear_mean(errors))
    ends = (each.reshape(2, trainings) for each in outcomes(*states, images, labels))
    return [(high - low) / _WIDTH for low, high in ends]


def _by_link(found: dict[str, Any]) -> Finding:
    slopes = found["slopes"]
    numbers = [
        Number(
            f"d({name})/dF of all links together at F = {_AT}, differences",
            ours,
            second,
            "coupled trainings over a ring in numpy; 6 standard errors",
            within=6 * math.hypot(ours_error, second_error),
        )
        for name, (ours, ours_error), (second, second_error) in zip(
            OUTCOMES, slopes["differences"], slopes["seconds"], strict=True
        )
    ]
    (gradient, error), (second, second_error) = slopes["gradient"], slopes["seconds"][1]
    numbers.append(
        Number(
            "d(soft accuracy)/dF, one gradient of the Gaussian model",
            gradient,
            second,
            "coupled trainings in numpy; 6 standard errors, and a bias of a third",
            within=6 * math.hypot(error, second_error) + abs(second) / 3,
        )
    )
    (hard, hard_error), (soft, soft_error) = slopes["differences"]
    spread = max(mean for mean, _ in slopes["each"]) - min(mean for mean, _ in slopes["each"])
    because = (
        f"At F = {_AT} accuracy rises by {hard:.3g} ± {1.96 * hard_error:.2g} for each unit of F "
        f"on all links (95 %), and the probability of the right class, which has a derivative, by "
        f"{soft:.3g} ± {1.96 * soft_error:.2g}. One gradient gives the latter link by link, "
        f"{gradient:.3g} ± {1.96 * error:.2g} in sum, {100 * (gradient / soft - 1):+.0f} % off, as "
        f"normal noise is not the noise of symbols; alike links differ by {spread:.2g}."
    )
    return Finding("holds if" if soft > 3 * soft_error else "fails", because, tuple(numbers))


def _draw_links(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    slopes = found["slopes"]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    style = {**look(1), "linestyle": "none", "marker": "o", "capsize": 4}
    means, errors = np.transpose(slopes["each"])
    axes.errorbar(range(NODES), means, yerr=1.96 * errors, label="gradient, 95 %", **style)
    mean, error = (value / NODES for value in slopes["differences"][1])
    axes.axhspan(
        mean - 1.96 * error,
        mean + 1.96 * error,
        color="0.85",
        label="differences, mean of the links, 95 %",
    )
    axes.set(xlabel="link", ylabel="d(soft accuracy) / dF", xticks=range(NODES))
    axes.set_ylim(min(0, *axes.get_ylim()), max(0, *axes.get_ylim()))
    axes.legend()
    return figure


CLAIMS = (
    Claim(
        "map-links",
        "Derivatives by the physics of each link",
        "Asked by users of such networks",
        "which link decides about my training, and by how much?",
        "accuracy of softmax regression on digits, by the fidelity of the pairs of each of eight "
        "links; the Gaussian estimator of `jaxqring.expected`.",
        {"slopes": _slopes},
        _by_link,
        _draw_links,
    ),
)
