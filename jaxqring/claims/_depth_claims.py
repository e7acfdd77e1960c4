"""Expressivity of the two-party model over its depth: frequencies, and digits told apart."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._fits import exponent
from jaxqring.claims._party_witnesses import DenseModel, party_losses, signed_sums
from jaxqring.qmodels import TwoParty

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Alice turns the qubit by the data and then by an angle of hers, after two angles of Bob's.
_ONE = DenseModel(alice=("X", "Y"), bob=("Y", "Z"), observable="Z")
_LEAST = 1e-9  # of a coefficient that is there; rounding leaves 1e-16
QUBITS, SUBLAYERS, BATCH, RATE = 6, 2, 256, 0.05


def _spectrum(base: int, layers: int, seed: int) -> tuple[int, int, float]:
    """Frequencies of the loss by this library and by dense matrices, and the largest difference.

    Layer l turns by the data times base^l, on a grid that holds all sums of these scales.
    """
    scales = float(base) ** np.arange(layers)
    points = 2 * int(scales.sum()) + 2
    grid = 2 * np.pi * np.arange(points) / points
    rng = np.random.default_rng(seed)
    bob = rng.uniform(0.5, 2.5, (layers, 2))
    own = np.broadcast_to(rng.uniform(0.5, 2.5, layers), (points, layers))
    angles = {
        "alice": np.stack([grid[:, None] * scales, own], axis=-1),
        "bob": np.broadcast_to(bob, (points, layers, 2)),
    }
    states = np.broadcast_to([1.0, 0.0], (points, 2))
    with jax.enable_x64(True):
        model = TwoParty(*_ONE, layers)
        ours = np.asarray(jax.jit(model.loss)(jax.tree.map(jnp.asarray, angles), states))
    dense = party_losses(_ONE, angles, states)
    counts = [int(np.sum(np.abs(np.fft.fft(v) / points) > _LEAST)) for v in (ours, dense)]
    return counts[0], counts[1], float(np.abs(ours - dense).max())


def _frequencies(effort: Effort) -> dict[str, Any]:
    depths = list(range(1, 5 if effort.quick else 7))
    found: dict[str, Any] = {"depths": depths}
    for name, base in (("scaled", 3), ("equal", 1)):
        each = [_spectrum(base, layers, effort.seed) for layers in depths]
        found[name] = [row[0] for row in each]
        found[f"{name}_dense"] = [row[1] for row in each]
        found[f"{name}_sums"] = [signed_sums(base, layers) for layers in depths]
    return found


def _of_digits() -> DenseModel:
    """The same unitary for both: RY and RZ of every qubit and a ring of CZ, twice."""
    turns = ["I" * q + axis + "I" * (QUBITS - 1 - q) for axis in "YZ" for q in range(QUBITS)]
    gates = (*turns, "cz-ring") * SUBLAYERS
    return DenseModel(gates, gates, "Z" + "I" * (QUBITS - 1))


def _trained(layers: int, images: jax.Array, labels: jax.Array, steps: int, seed: int) -> Any:
    """Parameters after Adam on a cross-entropy; the score is scale (bias - loss)."""
    import optax

    model, key = TwoParty(*_of_digits(), layers), jax.random.key(seed)
    angles = {
        party: jax.random.normal(jax.random.fold_in(key, index), (layers, count))
        for index, (party, count) in enumerate(model.parameters.items())
    }
    params = {"angles": angles, "scale": jnp.asarray(4.0), "bias": jnp.asarray(0.0)}
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def objective(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        scores = params["scale"] * (params["bias"] - model.loss(params["angles"], images))
        return optax.sigmoid_binary_cross_entropy(scores, labels).mean()

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry
        at = jax.random.choice(key, len(labels), (BATCH,), replace=False)
        slope = jax.grad(objective)(params, images[at], labels[at])
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.fold_in(key, 2), steps)
    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])
    return model, run((params, optimizer.init(params)), keys)[0]


def _digits(effort: Effort) -> dict[str, Any]:
    if effort.quick:
        return {"depths": []}
    from jaxqring.train import DataConfig, load

    data = load(DataConfig("digits", seed=effort.seed))
    images, tests = (
        part.reshape(-1, 64).astype(np.float32) for part in (data.train_images, data.test_images)
    )
    labels, truth = data.train_labels >= 5, data.test_labels >= 5
    depths, ours, dense, far = [1, 2, 4, 8], [], [], []
    for layers in depths:
        model, params = _trained(
            layers, jnp.asarray(images), jnp.asarray(labels, jnp.float32), 600, effort.seed
        )
        losses = np.asarray(model.loss(params["angles"], tests))
        angles = {party: np.asarray(own, float) for party, own in params["angles"].items()}
        states = tests / np.linalg.norm(tests.astype(float), axis=1, keepdims=True)
        second = party_losses(_of_digits(), angles, states)
        bias = float(params["bias"])
        ours.append(float(np.mean((losses < bias) == truth)))
        dense.append(float(np.mean((second < bias) == truth)))
        far.append(float(np.abs(losses - second).max()))
    return {"depths": depths, "ours": ours, "dense": dense, "far": far, "images": len(truth)}


def _depth(found: dict[str, Any]) -> Finding:
    counts, digits = found["frequencies"], found["digits"]
    depths = counts["depths"]
    # The base b of b^L is the exponent over e^L.
    base = float(np.exp(exponent(np.exp(depths), counts["scaled"])))
    power = exponent(depths, counts["equal"])
    numbers = [
        Number(
            f"frequencies of the loss in {depths[-1]} layers, scales 3^l",
            counts["scaled"][-1],
            counts["scaled_dense"][-1],
            "Fourier transform of products of 2 x 2 matrices",
        ),
        Number(
            "the same, equal scales",
            counts["equal"][-1],
            counts["equal_dense"][-1],
            "Fourier transform of products of 2 x 2 matrices",
        ),
        Number(
            "factor for each layer, scales 3^l",
            base,
            float(np.exp(exponent(np.exp(depths), counts["scaled_sums"]))),
            "sums of the scales with signs, listed",
        ),
    ]
    numbers += [
        Number(
            f"accuracy on digits below 5 or not, L = {layers}",
            ours,
            dense,
            "state vectors gate by gate; within one image",
            within=1.001 / digits["images"],
        )
        for layers, ours, dense in zip(
            digits["depths"], digits.get("ours", []), digits.get("dense", []), strict=True
        )
    ]
    because = (
        f"Frequencies grow by a factor of {base:.2f} with each layer if layer l turns by the data "
        f"times 3^l, and with equal turns only as the power {power:.2f} of the depth, to "
        f"{counts['equal'][-1]} in {depths[-1]} layers."
    )
    if digits["depths"]:
        first, last = digits["ours"][0], digits["ours"][-1]
        because += (
            f" On digits L = {digits['depths'][0]} reaches {first:.1%} and "
            f"L = {digits['depths'][-1]} {last:.1%} of test images."
        )
    if base < 2:
        return Finding("fails", because, tuple(numbers))
    polynomial = counts["equal"][-1] < 2 ** depths[-1]
    return Finding("holds if" if polynomial else "holds", because, tuple(numbers))


def _draw_depth(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    from jaxqring.show._style import look

    counts, digits = found["frequencies"], found["digits"]
    panels = 2 if digits["depths"] else 1
    figure = Figure(figsize=(5.5 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)
    left = axes[0, 0]
    for index, (name, label) in enumerate((("scaled", "scales 3^l"), ("equal", "equal scales"))):
        left.plot(counts["depths"], counts[name], marker="o", label=label, **look(index, 1))
    left.set(yscale="log", xlabel="layers L", ylabel="frequencies", xticks=counts["depths"])
    left.set_yticks(counts["scaled"], [str(count) for count in counts["scaled"]])
    left.minorticks_off()
    left.legend(loc="upper left")
    if digits["depths"]:
        right = axes[0, 1]
        percent = 100 * np.asarray(digits["ours"])
        right.plot(digits["depths"], percent, marker="o", **look(0, 1))
        right.set(xscale="log", xlabel="layers L", ylabel="test accuracy (%)")
        right.set_xticks(digits["depths"], [str(depth) for depth in digits["depths"]])
        right.minorticks_off()
    return figure


CLAIMS = (
    Claim(
        "two-party-depth",
        "Expressivity over the depth",
        "Gilboa, Michaeli, Soudry and McClean, arXiv:2310.07136, from memory",
        "the expressivity of the model grows exponentially with its depth.",
        "expressivity counted as frequencies of the loss in a number that Alice turns one qubit "
        "by (Schuld, Sweke and Meyer 2021); digits, their circuit and training are ours.",
        {"frequencies": _frequencies, "digits": _digits},
        _depth,
        _draw_depth,
    ),
)
