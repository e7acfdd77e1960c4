"""Do gradients conflict? Two audits after the ring, on real gradients, beside their rivals.

GapIP asks whether the gradients of two classes agree; TieAudit, whether the two uses of a tied
weight pull it the same way. Both need far fewer qubits than classical messages need bits, if the
gap is small or the model large enough: the figure shows from where on.

The protocols are the paper's (arXiv:2606.20344); estimators, constants and crossovers are ours.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import jaxqring as jq
from jaxqring.show._style import COLOURS, page, save
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig

TAU, REPETITIONS = 0.1, 11
EPSILON, DELTA = 0.05, 0.05
STEPS, HIDDEN = 100, 32


def classifier(images, labels):
    """A small network after some steps of Adam, and the gradient of each class."""
    keys = jax.random.split(jax.random.key(0))
    size = images.shape[1]
    params = {
        "first": jax.random.normal(keys[0], (size, HIDDEN)) / np.sqrt(size),
        "last": jax.random.normal(keys[1], (HIDDEN, 10)) / np.sqrt(HIDDEN),
    }

    def loss(params, weights):
        scores = jnp.tanh(images @ params["first"]) @ params["last"]
        each = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        return jnp.sum(weights * each) / jnp.sum(weights)

    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params, jnp.ones(len(labels))), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(STEPS):
        params, state = jax.block_until_ready(step(params, state))
    of_class = jax.jit(lambda own: ravel_pytree(jax.grad(loss)(params, own))[0])
    return jnp.stack([of_class((labels == c).astype(jnp.float32)) for c in range(10)])


def tied_signs(images):
    """Signs of the gradient of each tied weight: of its use in the encoder, and in the decoder."""
    size = images.shape[1]
    weights = jax.random.normal(jax.random.key(2), (size, HIDDEN)) / np.sqrt(size)

    def loss(encoder, decoder):
        return jnp.mean((jnp.tanh(images @ encoder) @ decoder.T - images) ** 2)

    both = jax.jit(jax.grad(loss, argnums=(0, 1)))(weights, weights)
    return jnp.where(jnp.stack(both).reshape(2, -1) < 0, -1, 1)


def audit_classes(gradients):
    """Every pair of classes: the inner product, and the decision of GapIP."""
    first, second = np.triu_indices(10, 1)
    unit = gradients / jnp.linalg.norm(gradients, axis=1, keepdims=True)
    truth = np.asarray(jnp.sum(unit[first] * unit[second], axis=1))

    def one(a, b, key):
        return jq.audit.gap_ip(a, b, tau=TAU, key=key, repetitions=REPETITIONS)

    keys = jax.random.split(jax.random.key(1), len(first))
    found = jax.jit(jax.vmap(one))(gradients[first], gradients[second], keys)
    return first, second, truth, found


def draw(path):
    """Symbols over the gap and over the size, and the error of a decision over noise."""
    with page(10.5, 8) as figure:
        panels = figure.subplot_mosaic([["gap", "size"], ["noise", "noise"]])
        by_gap, by_size, by_noise = panels.values()
        size = 10**6
        gaps = np.geomspace(2e-3, 0.3, 24)
        rows = [jq.audit.crossover(float(gap), size) for gap in gaps]
        qubits = [row.qubits for row in rows]
        by_gap.plot(gaps, qubits, "-o", ms=4, color=COLOURS[1], label="GapIP, qubits")
        bits = [row.simhash_bits for row in rows]
        by_gap.plot(gaps, bits, "--s", ms=4, color=COLOURS[2], label="SimHash, bits")
        cross = jq.audit.crossover_gap(size)
        by_gap.axvline(cross, color="k", linestyle=":", label=f"crossover {cross:.4f}")
        by_gap.set(xlabel="gap tau", ylabel="symbols for one decision")
        by_gap.set_title(
            "P = 1e6, equal error;\nsteps: phase estimation has 2^m outcomes", fontsize=12
        )
        sizes = 2 ** np.arange(8, 31)
        plans = [jq.audit.plan_tie_audit(0.1, 0.05, int(p)).qubits for p in sizes]
        rivals = [jq.audit.plan_subset_audit(0.1, 0.05, int(p)).bits for p in sizes]
        by_size.plot(sizes, plans, "-", color=COLOURS[1], label="TieAudit, qubits")
        by_size.plot(sizes, rivals, "--", color=COLOURS[2], label="random subset, bits")
        cross = jq.audit.crossover_size(0.1, 0.05)
        by_size.axvline(cross, color="k", linestyle=":", label=f"crossover {cross:,}")
        by_size.set(xlabel="signs P", ylabel="symbols for one audit")
        by_size.set_title("error 0.1 with confidence 0.95", fontsize=12)
        for axes in (by_gap, by_size):
            axes.set(xscale="log", yscale="log")
        noises = np.geomspace(1e-5, 1e-1, 25)
        for index, gap in enumerate((0.1, 0.05, 0.02)):
            errors = [
                max(float(jq.audit.decision_error(g, gap, size, hop_noise=n)) for g in (gap, -gap))
                for n in noises
            ]
            look = {"color": COLOURS[index], "linestyle": ("-", "--", "-.")[index]}
            by_noise.plot(noises, errors, label=f"tau = {gap}", **look)
        by_noise.set(
            xscale="log",
            xlabel="noise of a hop",
            ylabel="probability of a wrong decision",
        )
        by_noise.set_title("one run of GapIP, noise on every hop", fontsize=12)
        for axes in panels.values():
            axes.legend()
        return save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--figure", type=Path, default=Path("runs/audit.png"))
    path = options.parse_args().figure
    digits = datasets.load(DataConfig("mnist"))
    images = jnp.asarray(digits.train_images).reshape(len(digits.train_labels), -1)
    labels = jnp.asarray(digits.train_labels)

    first, second, truth, found = audit_classes(classifier(images, labels))
    sure = np.abs(truth) >= TAU
    right = np.asarray(found.agrees) == (truth > 0)
    print(f"GapIP, tau {TAU}: {sure.sum()} of {len(truth)} pairs of classes beyond the gap,")
    print(f"  {right[sure].sum()} of them decided rightly; {(truth < -TAU).sum()} conflict")
    for pair in np.argsort(truth)[[0, 1, -2, -1]]:
        verdict = "agree" if found.agrees[pair] else "conflict"
        print(f"  digits {first[pair]} and {second[pair]}: {truth[pair]:+.3f}, {verdict}")
    plan = found.plan
    print(f"  {plan.qubits:,} qubits, {plan.rounds} rounds for each pair; beside them")
    row = jq.audit.crossover(TAU, images.shape[1] * HIDDEN + HIDDEN * 10)
    print(f"  one run: {row.qubits:,} qubits, or {row.simhash_bits:,} bits of SimHash")

    signs = tied_signs(images)
    size = signs.size
    matching = np.arange(size).reshape(2, -1).T
    result = jq.audit.tie_audit(
        signs.reshape(-1), matching, epsilon=EPSILON, delta=DELTA, key=jax.random.key(3)
    )
    exact = float(jnp.mean(signs[0] != signs[1]))
    rival = jq.audit.plan_subset_audit(EPSILON, DELTA, size).bits
    print(f"TieAudit, epsilon {EPSILON}: {size // 2:,} tied weights, inconsistent {exact:.3f},")
    print(
        f"  estimated {float(result.fraction):.3f} in [{float(result.low):.3f}, "
        f"{float(result.high):.3f}] from {result.qubits:,} qubits; a random subset: {rival:,} bits"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"wrote {draw(path)}")


if __name__ == "__main__":
    main()
