"""The error of a gradient that nodes measure with finite shots, over shots and over nodes.

Each node estimates the gradient of a small circuit on the same digits by the parameter-shift rule,
with outcomes of its own, and the ring averages over N nodes. The loss is the probability that the
qubit of the true class reads 1, averaged over the digits: it is linear in expectations, so that an
estimate has no bias. The error of the mean is predicted from the exact probabilities, as
sqrt(variance / N) with a variance that falls as 1 / shots: both slopes are -1/2.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

import jaxqring as jq
from jaxqring.show._style import look, page, save
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig

QUBITS, LAYERS = 4, 1  # a qubit for each of the digits 0 to 3
CIRCUIT = jq.qmodels.hardware_efficient(QUBITS, LAYERS, features=2 * QUBITS)
SHOTS = (10, 100, 1000, 10_000)
NODES = (1, 2, 4, 8)
#: Estimates of single nodes for each number of shots; rings of N nodes share them out.
ESTIMATES = 128


def batch():
    """The principal components of one image of each digit, and their labels."""
    digits = datasets.load(DataConfig("digits", features=CIRCUIT.features))
    few = [np.flatnonzero(digits.train_labels == digit)[0] for digit in range(QUBITS)]
    return digits.train_images[few].reshape(QUBITS, -1), digits.train_labels[few]


@functools.partial(jax.jit, static_argnames="shots")
def gradient(params, batch, keys, shots=None):
    """Gradients (keys, P) by biases, and their variance, of the loss of a batch."""
    reads_one = (1 - jq.qmodels.z_values(QUBITS)) / 2

    def of_image(x, label, key):
        observable = jnp.asarray(reads_one)[:, label, None]
        report = jq.qmodels.parameter_shift(
            CIRCUIT, CIRCUIT.encode(params, x), observable, shots=shots, key=key if shots else None
        )
        return ravel_pytree(report.derivative)[0], ravel_pytree(report.variance)[0]

    def of_batch(key):
        found = jax.vmap(of_image)(*batch, jax.random.split(key, QUBITS))
        # A bias is added to one angle of each image, so that its derivative is the mean of theirs.
        return found[0].mean(axis=0), found[1].sum(axis=0) / QUBITS**2

    return lax.map(of_batch, keys, batch_size=8)


@jax.jit
def errors_of(estimates, exact):
    """The root-mean-square error of the ring's mean, for each number of nodes."""
    ring = jq.Ring(noise="off")
    mean = jax.vmap(lambda x: jq.pmean(x, "nodes", ring=ring, key=None), axis_name="nodes")
    means = [jax.vmap(mean)(estimates.reshape(-1, n, exact.size))[:, 0] for n in NODES]
    return jnp.stack([jnp.sqrt(jnp.mean((found - exact) ** 2)) for found in means])


def measure():
    """Errors (shots, nodes) as measured and as predicted."""
    params, digits = CIRCUIT.init(jax.random.key(0)), batch()
    keys = jax.random.split(jax.random.key(1), (len(SHOTS), ESTIMATES))
    exact = gradient(params, digits, keys[0, :1])[0][0]
    measured, predicted = [], []
    for shots, own in zip(SHOTS, keys, strict=True):
        estimates, variance = gradient(params, digits, own, shots=shots)
        measured.append(errors_of(estimates, exact))
        predicted.append(jnp.sqrt(variance[0].mean() / np.array(NODES)))
    return np.array(measured), np.array(predicted)


def slopes(x, errors):
    """The slope of each column of errors over x, on logarithmic axes."""
    return np.polyfit(np.log(x), np.log(errors), 1)[0]


def draw(path, measured, predicted):
    """Errors over shots and over nodes, measured as points and predicted as lines."""
    with page(11, 4.6) as figure:
        by_shots, by_nodes = figure.subplots(1, 2, sharey=True)
        of_nodes = [f"N = {nodes}" for nodes in NODES]
        of_shots = [f"{shots:,} shots" for shots in SHOTS]
        for axes, x, names, found, expected in (
            (by_shots, SHOTS, of_nodes, measured, predicted),
            (by_nodes, NODES, of_shots, measured.T, predicted.T),
        ):
            for index, name in enumerate(names):
                axes.plot(x, expected[:, index], **look(index))
                point = {"color": look(index)["color"], "marker": "osD^"[index]}
                axes.plot(x, found[:, index], linestyle="", label=name, **point)
            axes.set(xscale="log", yscale="log")
            axes.legend(fontsize=10, ncols=2, loc="upper right")
        by_shots.set(xlabel="shots of each circuit", ylabel="error of a derivative")
        by_shots.set(ylim=(3e-4, 0.3))
        by_nodes.set(xlabel="nodes N", xticks=NODES, xticklabels=NODES)
        by_nodes.xaxis.minorticks_off()
        figure.suptitle("points measured, lines predicted", fontsize=13)
        return save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--figure", type=Path, default=Path("runs/finite_shots.png"))
    path = options.parse_args().figure
    measured, predicted = measure()
    print(f"{CIRCUIT.num_angles} derivatives, {ESTIMATES} estimates; error measured / predicted")
    print("shots   " + "".join(f"{f'N = {nodes}':>23}" for nodes in NODES) + "  slope over N")
    for shots, found, expected, slope in zip(
        SHOTS, measured, predicted, slopes(NODES, measured.T), strict=True
    ):
        cells = [f"{a:#.3g} / {b:#.3g}" for a, b in zip(found, expected, strict=True)]
        print(f"{shots:<8}" + "".join(f"{cell:>23}" for cell in cells) + f"{slope:14.3f}")
    print("slope   " + "".join(f"{slope:23.3f}" for slope in slopes(SHOTS, measured)))
    print(f"mean slope over shots {slopes(SHOTS, measured).mean():.3f}, ", end="")
    print(f"over nodes {slopes(NODES, measured.T).mean():.3f}; predicted -0.500")
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"wrote {draw(path, measured, predicted)}")


if __name__ == "__main__":
    main()
