"""Two parties that learn digits together: depth, noise of every hop, and the shots that it costs.

Alice holds images of 64 pixels as states of 6 qubits and reads the answer, Bob is the other half of
the model; a state hops between them 2L times. Depth buys accuracy, noise of the hops takes it away,
first as a shift of all scores, which a new bias mends, and then as a smaller margin, which takes
more shots.

The form of the model is that of arXiv:2310.07136; circuits, data and noise are ours.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression

import jaxqring as jq
from jaxqring.show._style import COLOURS, page, save
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig

QUBITS, SUBLAYERS = 6, 2
BATCH, RATE = 256, 0.05
FIDELITIES = (1.0, 0.999, 0.99, 0.97, 0.95, 0.9)


def model_of(layers, hop=None):
    """The same unitary for both: RY and RZ on every qubit and a ring of CZ, twice."""
    turns = tuple("I" * q + axis + "I" * (QUBITS - 1 - q) for axis in "YZ" for q in range(QUBITS))
    gates = (*turns, "cz-ring") * SUBLAYERS
    return jq.qmodels.TwoParty(gates, gates, "Z" + "I" * (QUBITS - 1), layers, hop)


def scores(model, params, images):
    """Above zero for the digits 5 to 9."""
    return params["scale"] * (params["bias"] - model.loss(params["angles"], images))


def objective(params, model, images, labels):
    return optax.sigmoid_binary_cross_entropy(scores(model, params, images), labels).mean()


def train(layers, images, labels, steps, seed=0):
    """The parameters after some steps of Adam without noise."""
    model, key = model_of(layers), jax.random.key(seed)
    angles = {
        party: jax.random.normal(jax.random.fold_in(key, index), (layers, count))
        for index, (party, count) in enumerate(model.parameters.items())
    }
    params = {"angles": angles, "scale": jnp.asarray(4.0), "bias": jnp.asarray(0.0)}
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def step(carry, key):
        params, state = carry
        at = jax.random.choice(key, len(labels), (BATCH,), replace=False)
        slope = jax.grad(objective)(params, model, images[at], labels[at])
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.fold_in(key, 2), steps)
    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])
    return run((params, optimizer.init(params)), keys)[0]


@jax.jit
def expectations(model, angles, images):
    """<Z> of each image; density matrices of 32 images at a time."""
    return jax.lax.map(lambda image: model.loss(angles, image), images, batch_size=32)


def refitted(z, labels):
    """The bias by which most of the given expectations are told apart."""
    order = np.sort(z)
    between = (order[1:] + order[:-1]) / 2
    return between[np.argmax([np.mean((z < bias) == labels) for bias in between])]


def against_noise(layers, params, digits):
    """Rows of fidelity, accuracy with the bias as trained, with one refitted, mean margin."""
    for fidelity in FIDELITIES:
        model = model_of(layers, jq.werner(fidelity=fidelity))
        z, z_train = (
            np.asarray(expectations(model, params["angles"], images))
            for images in (digits["test"][0], digits["train"][0])
        )
        labels, bias = digits["test"][1], float(params["bias"])
        fresh = refitted(z_train, digits["train"][1])
        yield (
            fidelity,
            np.mean((z < bias) == labels),
            np.mean((z < fresh) == labels),
            np.mean(abs(z - fresh)),
        )


def slopes(layers, params, images, labels, fidelity=0.99):
    """d(cross-entropy) / d(fidelity of each hop)."""

    def of_fidelities(each):
        return objective(params, model_of(layers, jq.werner(fidelity=each)), images, labels)

    return jax.jit(jax.grad(of_fidelities))(jnp.full(2 * layers, fidelity))


def median_gap(rule, images):
    """The median of |cos| between an image and the linear rule, each with its constant."""
    weights = np.append(rule.coef_[0], rule.intercept_)
    points = np.column_stack([images, np.ones(len(images))])
    cosines = points @ weights / np.linalg.norm(points, axis=1) / np.linalg.norm(weights)
    return float(np.median(abs(cosines)))


def draw(path, depths, accuracies, linear, layers, rows):
    """Accuracy over depth, accuracy over the fidelity of a pair, and shots over it."""
    with page(13, 4.4) as figure:
        by_depth, by_noise, by_shots = figure.subplots(1, 3)
        by_depth.plot(depths, accuracies, "-o", color=COLOURS[1], label="two parties")
        by_depth.axhline(
            100 * linear, color=COLOURS[2], linestyle="--", label="logistic regression"
        )
        by_depth.set(xscale="log", xticks=depths, xticklabels=depths)
        by_depth.minorticks_off()
        by_depth.set(xlabel="layers L", ylabel="test accuracy (%)", title="Without noise")
        infidelity = [1 - row[0] for row in rows]
        for column, label, look in ((1, "bias as trained", "-o"), (2, "bias refitted", "--s")):
            curve = [100 * row[column] for row in rows]
            by_noise.plot(infidelity, curve, look, color=COLOURS[column], label=label)
        by_noise.set(xlabel="infidelity of a pair", ylabel="test accuracy (%)")
        by_noise.set_title(f"Teleported hops, L = {layers}")
        by_shots.plot(infidelity, [row[3] ** -2 for row in rows], "-o", color=COLOURS[3])
        by_shots.set(yscale="log", xlabel="infidelity of a pair", ylabel="shots, 1 / margin²")
        by_shots.set_title(f"Shots for one image, L = {layers}")
        by_depth.legend(fontsize=10, loc="lower right")
        by_noise.legend(fontsize=10)
        return save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8])
    options.add_argument("--noisy-depth", type=int, default=4, help="one of the depths")
    options.add_argument("--out", type=Path, default=Path("runs/two_parties.png"))
    given = options.parse_args()
    data = datasets.load(DataConfig("digits"))
    digits = {
        "train": (data.train_images.reshape(-1, 64), data.train_labels >= 5),
        "test": (data.test_images.reshape(-1, 64), data.test_labels >= 5),
    }
    images, labels = (jnp.asarray(of, jnp.float32) for of in digits["train"])
    rule = LogisticRegression(max_iter=5000).fit(*digits["train"])
    linear = rule.score(*digits["test"])

    trained, accuracies = {}, []
    print("layers  hops  angles  test accuracy")
    for layers in given.depths:
        params = trained[layers] = train(layers, images, labels, given.steps)
        found = scores(model_of(layers), params, digits["test"][0]) > 0
        accuracies.append(100 * float(np.mean(np.asarray(found) == digits["test"][1])))
        angles = layers * sum(model_of(layers).parameters.values())
        print(f"{layers:6}{2 * layers:6}{angles:8}{accuracies[-1]:13.1f} %")
    print(f"logistic regression on the pixels: {100 * linear:.1f} %")
    tau = median_gap(rule, digits["test"][0])
    row = jq.audit.crossover(tau, 65)
    print(
        f"  at its median gap {tau:.3f}: GapIP {row.qubits} qubits, SimHash {row.simhash_bits} bits"
    )

    layers = given.noisy_depth
    params, rows = trained[layers], []
    print(f"\nL = {layers}, every hop teleported through Werner pairs")
    print("fidelity  bias as trained  refitted  margin   shots     qubits")
    for row in against_noise(layers, params, digits):
        rows.append(row)
        fidelity, fixed, fresh, margin = row
        shots = margin**-2
        print(
            f"{fidelity:8.3f}{100 * fixed:15.1f} %{100 * fresh:8.1f} %{margin:8.3f}"
            f"{shots:8.0f}{shots * 2 * layers * QUBITS:11,.0f}"
        )
    found = slopes(layers, params, images[:64], labels[:64])
    print("\nd(cross-entropy) / d(fidelity of a hop) at 0.99, in the order of the hops:")
    print(" ".join(f"{slope:.2f}" for slope in found))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"wrote {draw(given.out, given.depths, accuracies, linear, layers, rows)}")


if __name__ == "__main__":
    main()
