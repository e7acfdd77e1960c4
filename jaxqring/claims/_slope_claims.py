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


def _slopes(effort: Effort) -> dict[str, Any]:
    trainings = 16 if effort.quick else 256
    train = training(RATE)
    batches = jnp.asarray(batches_of(effort.seed, 1, STEPS))[:, 0]

    def loss(ring: Ring, keys: "Key") -> jax.Array:
        return train(ring, keys[0], batches)[1]

    def ring_at(fidelity: jax.Array) -> Ring:
        return Ring(superdense(werner(fidelity=fidelity)))

    @jax.jit
    @jax.vmap
    def each(key: "Key") -> jax.Array:
        def mean(fidelities: jax.Array) -> jax.Array:
            return expected(loss, ring_at(fidelities), key, estimator="gaussian", calls=1)

        return jax.jacfwd(mean)(jnp.full(NODES, _AT))

    keys = jax.random.split(jax.random.key(effort.seed), trainings)
    slopes = np.asarray(each(keys), float)
    low, high = couple(*(ring_at(jnp.full(NODES, _AT + s * _WIDTH / 2)) for s in (-1, 1)))
    rises = np.asarray(
        finite_difference(
            loss, low, high, _WIDTH, jax.random.key(effort.seed + 1), samples=trainings, calls=1
        )
    )
    many = 4 * trainings
    rates = np.repeat([1 - _AT + _WIDTH / 2, 1 - _AT - _WIDTH / 2], many)[:, None]
    errors = Errors(rates * np.ones(NODES), [*range(many)] * 2, float(rates.max()))
    train_images, train_labels, images, labels = digits()
    same = np.repeat(np.asarray(batches)[:, None], 2 * many, axis=1)
    states = train_softmax(train_images, train_labels, same, RATE, linear_mean(errors))
    ends = outcomes(*states, images, labels)[1].reshape(2, many)
    seconds = (ends[1] - ends[0]) / _WIDTH
    root = math.sqrt(trainings)
    return {
        "trainings": trainings,
        "slopes": slopes.mean(0).tolist(),
        "errors": (slopes.std(0, ddof=1) / root).tolist(),
        "sum": float(slopes.sum(1).mean()),
        "sum_error": float(slopes.sum(1).std(ddof=1) / root),
        "difference": float(rises.mean()),
        "difference_error": float(rises.std(ddof=1) / root),
        "second": float(seconds.mean()),
        "second_error": float(seconds.std(ddof=1) / math.sqrt(many)),
    }


def _by_link(found: dict[str, Any]) -> Finding:
    slopes = found["slopes"]
    difference, second = slopes["difference"], slopes["second"]
    both = math.hypot(slopes["difference_error"], slopes["second_error"])
    numbers = (
        Number(
            f"d(loss)/dF of all links together at F = {_AT}, difference of coupled trainings",
            difference,
            second,
            "coupled trainings over a ring in numpy",
            within=6 * both,
        ),
        Number(
            "the same, one gradient of the Gaussian model",
            slopes["sum"],
            second,
            "coupled trainings over a ring in numpy; a bias of a third is allowed",
            within=6 * math.hypot(slopes["sum_error"], slopes["second_error"]) + abs(second) / 3,
        ),
    )
    spread = max(slopes["slopes"]) - min(slopes["slopes"])
    bias = 100 * (slopes["sum"] / difference - 1)
    because = (
        f"A gradient gives all {NODES} links at once: {slopes['sum']:.3g} ± "
        f"{1.96 * slopes['sum_error']:.2g} in sum (95 %), beside {difference:.3g} ± "
        f"{1.96 * slopes['difference_error']:.2g} from differences, {bias:+.0f} % off, as normal "
        f"noise is not the noise of symbols; links differ by {spread:.2g}. Accuracy is a "
        "count and has no derivative by sample: the derivative is that of the loss."
    )
    resolved = abs(difference) > 3 * slopes["difference_error"]
    return Finding("holds if" if resolved else "fails", because, numbers)


def _draw_links(found: dict[str, Any]) -> "Figure":
    import matplotlib.pyplot as plt

    from jaxqring.show._style import look

    slopes = found["slopes"]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    style = {**look(1), "linestyle": "none", "marker": "o", "capsize": 4}
    bars = 1.96 * np.asarray(slopes["errors"])
    axes.errorbar(range(NODES), slopes["slopes"], yerr=bars, label="gradient, 95 %", **style)
    mean, error = slopes["difference"] / NODES, 1.96 * slopes["difference_error"] / NODES
    axes.axhspan(mean - error, mean + error, color="0.85", label="differences, mean of all links")
    axes.set(xlabel="link", ylabel="d(loss) / dF", xticks=range(NODES))
    axes.set_ylim(min(0, *axes.get_ylim()), max(0, *axes.get_ylim()))
    axes.legend()
    plt.close(figure)
    return figure


CLAIMS = (
    Claim(
        "map-links",
        "Derivatives by the physics of each link",
        "asked by users of such networks",
        "which link decides about my training, and by how much?",
        "the loss of softmax regression on digits, by the fidelity of the pairs of each of eight "
        "links; the Gaussian estimator of `jaxqring.expected`.",
        {"slopes": _slopes},
        _by_link,
        _draw_links,
    ),
)
