"""Which of eight unequal links deserves the next round of distillation?

Eight nodes learn to read digits over links whose pairs have different fidelities, and whose
measurements have different readout errors. One round of distillation (DEJMPS) can be given to one
link. One gradient of the expected training loss says what each link would gain; brute force, a
training with each link distilled in turn, says whether that is right.

The link that makes most errors is not the answer: its errors are those of its readout, which
distillation does not touch.

    python examples/which_link.py --seeds 64 --figure which_link.png
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

import jaxqring as jq
from jaxqring.show._style import COLOURS, page, save

NODES, STEPS, RATE = 8, 40, 0.5
FIDELITY = jnp.array([0.999, 0.997, 0.9985, 0.9995, 0.998, 0.9975, 0.999, 0.996])
READOUT = jnp.array([4e-4, 4e-4, 3e-3, 4e-4, 1e-3, 4e-4, 2e-3, 4e-4])


def links(share):
    """The ring's links, each moved by a share (N,) from its fresh to its distilled pairs."""
    fresh = jq.werner(fidelity=FIDELITY)
    distilled, _ = jq.distill(fresh, fresh)
    before, after = (
        jq.superdense(pair, readout_error=READOUT).transition for pair in (fresh, distilled)
    )
    mixed = before + jnp.asarray(share)[:, None, None] * (after - before)
    return jq.Ring(jq.SymbolChannel(mixed), jq.FixedPoint(16), nodes_per_device=NODES)


def digits():
    """1,792 of scikit-learn's digits, dealt to the nodes."""
    data = load_digits()
    count = len(data.target) // NODES * NODES
    images = np.float32(data.data[:count] / 16).reshape(NODES, -1, 64)
    return jnp.asarray(images), jnp.asarray(data.target[:count].reshape(NODES, -1))


def training(images, labels):
    """(ring, keys) -> the loss of a softmax regression at the end, in the mean over the nodes."""

    def loss_of(weights, images, labels):
        scores = jax.nn.log_softmax(images @ weights)
        return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))

    def train(ring, keys):
        average = functools.partial(jq.pmean, axis_name="nodes", ring=ring)

        def step(weights, key):
            gradients = jax.vmap(jax.grad(loss_of))(weights, images, labels)
            mean = jax.vmap(functools.partial(average, key=key), axis_name="nodes")(gradients[None])
            return weights - RATE * mean[0], None

        weights, _ = lax.scan(step, jnp.zeros((NODES, 64, 10)), keys)
        everything = images.reshape(-1, 64), labels.reshape(-1)
        return jnp.mean(jax.vmap(lambda own: loss_of(own, *everything))(weights))

    return train


def study(seeds):
    """Gains by the gradient and by brute force, (seeds, N) each: how much the loss falls."""
    train, none = training(*digits()), jnp.zeros(NODES)

    def gradient(key):
        def loss(share):
            return jq.expected(train, links(share), key, estimator="gaussian", calls=STEPS)

        return -jax.grad(loss)(none)

    def brute_force(key):
        def gain(link):
            ends = links(none), links(none.at[link].set(1.0))
            return -jq.gradients.finite_difference(train, *ends, 1.0, key, calls=STEPS)[0]

        return lax.map(gain, jnp.arange(NODES))

    keys = jax.random.split(jax.random.key(0), seeds)
    return [
        np.asarray(jax.jit(functools.partial(lax.map, f))(keys)) for f in (gradient, brute_force)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    gains = study(options.seeds)
    means = [each.mean(axis=0) for each in gains]
    errors = [each.std(axis=0, ddof=1) / np.sqrt(options.seeds) for each in gains]
    wrong = np.asarray(links(jnp.zeros(NODES)).channel.error_prob)
    print("link  fidelity  readout  symbol error   gain in loss by one round of distillation")
    print("                 error                        gradient           brute force")
    for link in range(NODES):
        cells = (f"{m[link]:8.5f} ± {e[link]:.5f}" for m, e in zip(means, errors, strict=True))
        print(
            f"{link:4}  {FIDELITY[link]:8.4f}  {READOUT[link]:7.4f}  {wrong[link]:12.4f}   ",
            "   ".join(cells),
        )
    print(f"the gradient says link {means[0].argmax()}, brute force link {means[1].argmax()};")
    print(f"most errors are made on link {wrong.argmax()}")
    agreement = spearmanr(*means).statistic
    print(f"rank correlation of the two: {agreement:.3f}; ratio {ratio(*means):.2f}")
    if options.figure:
        draw(options.figure, means, errors)


def ratio(first, second):
    """The factor that brings the second nearest to the first."""
    return first @ second / (second @ second)


def draw(path, means, errors):
    """Bars with two standard errors, link by link."""
    looks = (
        {"color": COLOURS[1], "label": "one gradient"},
        {"color": "white", "hatch": "///", "label": "brute force"},
    )
    with page(10, 4.8) as figure:
        axes = figure.subplots()
        for place, (mean, error, look) in enumerate(zip(means, errors, looks, strict=True)):
            at = np.arange(NODES) + 0.4 * (place - 0.5)
            bars = {"capsize": 3, "edgecolor": "0.25", **look}
            axes.bar(at, mean, 0.38, yerr=2 * error, **bars)
        physics = zip(FIDELITY, READOUT, strict=True)
        names = [f"{link}\nF {f:g}\nr {r:g}" for link, (f, r) in enumerate(physics)]
        axes.set_xticks(range(NODES), names, fontsize=11)
        axes.set_xlabel("link, fidelity F of its pairs, readout error r")
        axes.set_ylabel("fall of the training loss (nats)\nby one round of distillation")
        axes.grid(visible=False, axis="x")
        axes.legend(title="twice the standard error")
        save(figure, path)


if __name__ == "__main__":
    main()
