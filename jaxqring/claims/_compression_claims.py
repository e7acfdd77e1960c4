"""LQ-SGD: its sizes, its ratios, its all-reduce, its accuracy and its privacy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring._types import PyTree
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._compression_witnesses import (
    low_rank_average,
    mebibytes,
    resnet18_tensors,
    rounded_by_log,
    similarity,
)
from jaxqring.claims._small_training import batches_of, digits, training
from jaxqring.claims._training_witness import Errors, linear_mean, outcomes, train_softmax
from jaxqring.compress import (
    LQSGD,
    Compressor,
    Logarithmic,
    PowerSGD,
    Uncompressed,
    star_cost,
)
from jaxqring.inversion import image_in_factor, observe, ssim, victim
from jaxqring.ring import Ring
from jaxqring.train import DataConfig, load
from jaxqring.train._models import ResNet18

_PAPER = "LQ-SGD, arXiv:2506.17974"
_WORKERS, _BATCH, _NODES = 5, 128, 8
#: name: (classes, channels, images, MiB of the source by method).
DATA_SETS = {
    "CIFAR-10": (10, 3, 50_000, {"SGD": 3325, "PowerSGD": 14, "LQ-SGD": 3}),
    "CIFAR-100": (100, 3, 50_000, {"SGD": 3339, "PowerSGD": 14, "LQ-SGD": 3}),
    "MNIST": (10, 1, 60_000, {"SGD": 3964, "PowerSGD": 16, "LQ-SGD": 4}),
}
#: Similarity from which on a picture is taken for the image.
SHOWN = 0.9
#: Points that LQ-SGD loses to SGD in the tables of the source, on CIFAR-10 and CIFAR-100.
LOST = (1.6, 2.2)
RATE, STEPS = 0.5, 60


def _resnet(classes: int, channels: int) -> PyTree:
    image = jnp.zeros((1, 32, 32, channels))
    return jax.eval_shape(ResNet18(classes).init, jax.random.key(0), image)["params"]


def _sizes(effort: Effort) -> dict[str, Any]:
    rows = []
    for data, (classes, channels, images, published) in DATA_SETS.items():
        params, tensors = _resnet(classes, channels), resnet18_tensors(classes, channels)
        for method, claimed in published.items():
            bits = 8 if method == "LQ-SGD" else 32
            kind: Compressor = Uncompressed() if method == "SGD" else PowerSGD(rank=1)
            counts = [message.size for message in kind.messages(params, _WORKERS)]
            epoch = star_cost(bits, bits, counts)[0] * (images // (_WORKERS * _BATCH))
            second = mebibytes(tensors, method, images, _WORKERS, _BATCH)
            row = {"data": data, "method": method, "claimed": claimed, "second": second}
            rows.append({**row, "ours": epoch / 8 / 2**20})
    return {"rows": rows}


def _nine_sizes(found: dict[str, Any]) -> Finding:
    rows = found["sizes"]["rows"]
    numbers = tuple(
        Number(
            f"MiB an epoch, {row['data']}, {row['method']}",
            row["ours"],
            row["second"],
            "arithmetic of the layers",
            claimed=row["claimed"],
        )
        for row in rows
    )
    # The source prints whole numbers, some rounded and some cut.
    right = sum(row["claimed"] in (int(row["ours"]), round(row["ours"])) for row in rows)
    because = (
        f"{right} of its {len(rows)} sizes follow from {_WORKERS} workers of batch {_BATCH} on a "
        "ResNet-18 with a small stem, one worker and one direction, vectors quantised as well."
    )
    return Finding("holds" if right == len(rows) else "fails", because, numbers)


def _ratios(found: dict[str, Any]) -> Finding:
    sizes: dict[str, dict[str, Any]] = {}
    for row in found["sizes"]["rows"]:
        sizes.setdefault(row["data"], {})[row["method"]] = row
    cifar = sizes["CIFAR-10"]

    def less(small: str, large: str, by: str) -> float:
        return 100 * (1 - cifar[small][by] / cifar[large][by])

    numbers = (
        Number(
            "per cent less than SGD",
            less("LQ-SGD", "SGD", "ours"),
            less("LQ-SGD", "SGD", "second"),
            "arithmetic of the layers",
            claimed=99.9,
        ),
        Number(
            "per cent less than PowerSGD",
            less("LQ-SGD", "PowerSGD", "ours"),
            less("LQ-SGD", "PowerSGD", "second"),
            "arithmetic of the layers",
            claimed=75.0,
        ),
        *(
            Number(
                f"times less than SGD, {data}",
                row["SGD"]["ours"] / row["LQ-SGD"]["ours"],
                row["SGD"]["second"] / row["LQ-SGD"]["second"],
                "arithmetic of the layers",
                claimed=claimed,
            )
            for (data, row), claimed in zip(sizes.items(), (1108.3, 1113.0, 991.0), strict=True)
        ),
    )
    rounded = 100 * (1 - cifar["LQ-SGD"]["claimed"] / cifar["SGD"]["claimed"])
    because = (
        f'"More than 99.9 %" is {numbers[0].ours:.3f} %; {rounded:.2f} % is the ratio of its '
        f'rounded sizes. "Over 75 %" is {numbers[1].ours:.2f} %, 8 bits in place of 32, without '
        "the scales."
    )
    holds = numbers[0].ours > 99.9 and numbers[1].ours > 75.0
    return Finding("holds" if holds else "fails", because, numbers)


def _codes(effort: Effort) -> dict[str, Any]:
    code = Logarithmic(8)
    # Of 1 and of the smallest level, whose codes have a mean that is a code.
    mean = float(code.decode((code.encode(jnp.array([1.0]), 1.0)[0] + 1) // 2, 1.0))
    least = float(code.decode(jnp.array(1), 1.0))
    params, tensors = _resnet(10, 3), resnet18_tensors(10, 3)
    ring = Ring(noise="off")
    gathered = LQSGD(rank=1).cost(ring, params, _NODES).bits
    summed = PowerSGD(rank=1).cost(ring, params, _NODES).bits

    def chunk(size: int) -> int:
        return -(-size // _NODES)

    left = sum(shape[0] for shape in tensors)
    right = sum(shape[1] for shape in tensors if len(shape) == 2)
    return {
        "mean": mean,
        "mean_second": float(np.expm1(64 / 127 * np.log1p(10.0)) / 10.0),
        "right": (1 + least) / 2,
        "ratio": gathered / summed,
        "ratio_second": (left + right) * 8 / (2 * (chunk(left) + chunk(right)) * 16),
    }


def _all_reduce(found: dict[str, Any]) -> Finding:
    codes = found["codes"]
    numbers = (
        Number(
            "value of the mean of the codes of 1 and of the smallest level",
            codes["mean"],
            codes["mean_second"],
            "the levels by numpy, alpha 10",
            claimed=codes["right"],
            within=1e-6,
        ),
        Number(
            f"bits of LQ-SGD over those of 16-bit PowerSGD, ResNet-18, ring of {_NODES}",
            codes["ratio"],
            codes["ratio_second"],
            "arithmetic of the layers",
        ),
    )
    because = (
        f"Logarithmic codes do not add up: the mean of those of 1 and of the smallest level "
        f"stands for {codes['mean']:.4f} in place of {codes['right']:.4f}. A ring has to "
        f"gather them, which at {_NODES} nodes takes "
        f"{codes['ratio']:.2f} times the bits of 16-bit sums of PowerSGD."
    )
    holds = abs(codes["mean"] - codes["right"]) < 1e-3
    return Finding("holds" if holds else "fails", because, numbers)


def _accuracies(effort: Effort) -> dict[str, Any]:
    trainings = 3 if effort.quick else 32
    batches = batches_of(effort.seed, trainings, STEPS)
    train_images, train_labels, images, labels = digits()
    features = train_images.shape[1]
    methods: dict[str, Compressor | None] = {
        "SGD": None,
        "PowerSGD": PowerSGD(rank=1, bits=16),
        "LQ-SGD": LQSGD(rank=1),
    }
    start = PowerSGD(rank=1).init({"b": jnp.zeros(10), "w": jnp.zeros((features, 10))})
    first = np.asarray(next(factor for factor in start.factors if factor is not None))
    ring, found = Ring(noise="off"), {}
    for name, compressor in methods.items():
        train = training(RATE, compressor)
        keys = jax.random.split(jax.random.key(effort.seed), trainings)
        ours, _ = jax.jit(jax.vmap(lambda key, b, train=train: train(ring, key, b), (0, 1)))(
            keys, jnp.asarray(batches)
        )
        if compressor is None:
            silent = Errors(np.zeros((trainings, 8)), range(trainings), 0.0)
            average = linear_mean(silent)
        else:
            average = low_rank_average(first, features, quantised=name == "LQ-SGD")
        states = train_softmax(train_images, train_labels, batches, RATE, average)
        second, _ = outcomes(*states, images, labels)
        found[name] = {"ours": float(jnp.mean(ours)), "second": float(second.mean())}
    return {"trainings": trainings, "methods": found}


def _accuracy(found: dict[str, Any]) -> Finding:
    methods, trainings = found["digits"]["methods"], found["digits"]["trainings"]
    numbers = tuple(
        Number(
            f"test accuracy of {name}, mean of {trainings} trainings",
            row["ours"],
            row["second"],
            "the same trainings by numpy",
            within=0.015,
        )
        for name, row in sorted(methods.items())
    )
    lost = methods["SGD"]["ours"] - methods["LQ-SGD"]["ours"]
    thin = methods["SGD"]["ours"] - methods["PowerSGD"]["ours"]
    because = (
        f"LQ-SGD of rank 1 loses {100 * lost:.2f} points to SGD here, and PowerSGD, which does not "
        f"quantise, {100 * thin:.2f}. The source's own tables lose {LOST[0]} and {LOST[1]} on "
        "CIFAR, which is not at hand here."
    )
    return Finding("holds if" if lost < 0.03 else "fails", because, numbers)


def _factors(effort: Effort) -> dict[str, Any]:
    data = load(DataConfig("mnist"))
    count = 2 if effort.quick else 10
    images = jnp.asarray(data.test_images[:count])
    labels = jnp.asarray(data.test_labels[:count])
    shape = images.shape[1:]
    network = victim("mlp", shape, 10, jax.random.key(effort.seed))
    found: dict[str, Any] = {"images": count}
    for name, method in {"PowerSGD": PowerSGD(rank=1), "LQ-SGD": LQSGD(rank=1)}.items():

        def read_off(image: jax.Array, label: jax.Array, method: Compressor = method) -> jax.Array:
            key = jax.random.key(effort.seed)
            return image_in_factor(observe(method, network.gradient(image, label), key), shape)

        seen = jax.jit(jax.vmap(read_off))(images, labels)
        found[name] = float(jnp.mean(ssim(seen, images)))
    gradients = jax.jit(jax.vmap(network.gradient))(images, labels)
    layers = np.asarray(gradients["Dense_0"]["kernel"], float)
    seconds: dict[str, list[float]] = {"PowerSGD": [], "LQ-SGD": []}
    for image, layer in zip(np.asarray(images, float), layers, strict=True):
        # The gradient is an image times a row: its first singular vector is the image.
        vector = np.linalg.svd(layer, full_matrices=False)[0][:, 0]
        for name, sent in (("PowerSGD", vector), ("LQ-SGD", rounded_by_log(vector))):
            guess = np.clip(sent / sent[np.argmax(np.abs(sent))], 0, 1).reshape(image.shape)
            seconds[name].append(similarity(guess[..., 0], image[..., 0]))
    means = {f"{name}_second": float(np.mean(values)) for name, values in seconds.items()}
    return {**found, **means}


def _inversion(found: dict[str, Any]) -> Finding:
    factors = found["factors"]
    numbers = tuple(
        Number(
            f"similarity (SSIM) of the factor of {name} to the image, {factors['images']} images",
            factors[name],
            factors[f"{name}_second"],
            "singular vector of the gradient, and SSIM by scipy",
            within=1e-3,
        )
        for name in ("LQ-SGD", "PowerSGD")
    )
    alike = factors["LQ-SGD"]
    shows = alike > SHOWN
    because = (
        "Not as a statement on security: of a first dense layer and one image the factor that is "
        f"sent is the image, to a similarity of {alike:.5f}, without any search."
        if shows
        else f"The factor of a first dense layer is like the image to {alike:.5f} only."
    )
    return Finding("fails" if shows else "holds if", because, numbers)


CLAIMS = (
    Claim(
        "lqsgd-sizes",
        "The nine sizes of LQ-SGD",
        f"{_PAPER}, tables",
        "an epoch sends so many MiB by SGD, PowerSGD and LQ-SGD, on three data sets.",
        "the network, the workers and the rounding, which reproduce its numbers.",
        {"sizes": _sizes},
        _nine_sizes,
    ),
    Claim(
        "lqsgd-ratios",
        "The ratios of LQ-SGD",
        f"{_PAPER}, text and tables",
        "more than 99.9 % less than SGD, and over 75 % less than PowerSGD.",
        "the ratios of sizes that are not rounded.",
        {"sizes": _sizes},
        _ratios,
    ),
    Claim(
        "lqsgd-all-reduce",
        "An all-reduce of quantised factors",
        f"{_PAPER}, algorithm",
        "quantised factors are all-reduced.",
        "alpha = 10, which the source leaves open; the ring gathers what it cannot add.",
        {"codes": _codes},
        _all_reduce,
    ),
    Claim(
        "lqsgd-accuracy",
        "The accuracy of LQ-SGD",
        f"{_PAPER}, tables",
        "an accuracy comparable to that of SGD.",
        "softmax regression on the digits of scikit-learn, eight nodes, noise-free; below three "
        "points counts as comparable.",
        {"digits": _accuracies},
        _accuracy,
    ),
    Claim(
        "lqsgd-inversion",
        "Compression against gradient inversion",
        f"{_PAPER}, text",
        "compression resists gradient inversion.",
        "an attacker who sees the factors of one image, and a first layer that is dense.",
        {"factors": _factors},
        _inversion,
    ),
)
