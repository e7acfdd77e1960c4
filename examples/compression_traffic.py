"""Compressed gradients by the byte: the LQ-SGD paper's tables, and the bill of a quantum ring.

The paper counts what one of five workers sends to a parameter server in an epoch, a direction, in
MiB. It leaves open how; with a ResNet-18 for CIFAR, 128 images a worker and step, the last partial
step left out, and vectors quantised like factors, all of its sizes come out. A ring sends other
amounts: logarithmic codes do not add up, and every node needs those of all others.
"""

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

import jaxqring as jq
from jaxqring.compress import (
    LQSGD,
    Compressor,
    DeMo,
    PowerSGD,
    SignVote,
    TernGrad,
    TopK,
    Uncompressed,
    star_cost,
)
from jaxqring.train._models import CNN, ResNet18

WORKERS, BATCH = 5, 128
#: name: (classes, channels, training images, MiB in the paper by method).
DATA_SETS = {
    "CIFAR-10": (10, 3, 50_000, {"SGD": 3325, "PowerSGD": 14, "TopK": 14, "LQ-SGD": 3}),
    "CIFAR-100": (100, 3, 50_000, {"SGD": 3339, "PowerSGD": 14, "TopK": 14, "LQ-SGD": 3}),
    "MNIST": (10, 1, 60_000, {"SGD": 3964, "PowerSGD": 16, "TopK": 16, "LQ-SGD": 4}),
}
#: The methods on a ring, by name.
ON_RING: dict[str, Compressor] = {
    "SGD, 16 bits": Uncompressed(),
    "PowerSGD, 16 bits": PowerSGD(rank=1),
    "PowerSGD, 8 bits + guard": PowerSGD(rank=1, bits=8),
    "LQ-SGD, gather": LQSGD(rank=1),
    "LQ-SGD, sum": LQSGD(rank=1, reduce="sum"),
    "LQ-SGD, hop": LQSGD(rank=1, reduce="hop"),
    "TopK 1 %": TopK(0.01),
    "TernGrad": TernGrad(),
    "sign votes": SignVote(),
    "DeMo, k = 32": DeMo(),
}


def shapes_of(model, size, channels):
    """The shapes of the parameters, without computing any."""
    image = jnp.zeros((1, size, size, channels))
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def sizes_of(compressor, params):
    return [message.size for message in compressor.messages(params, WORKERS)]


def paper_table():
    table = _table(
        f"LQ-SGD's tables: {WORKERS} workers, an epoch, one direction of one worker, MiB",
        ["data", "method"],
        ["bits a step", "MiB", "in the paper", "times less\nthan SGD"],
    )
    for data, (classes, channels, images, published) in DATA_SETS.items():
        params = shapes_of(ResNet18(classes), 32, channels)
        values = sizes_of(Uncompressed(), params)
        factors = sizes_of(PowerSGD(rank=1), params)
        bits = {
            "SGD": star_cost(32, 32, values)[0],
            "PowerSGD": star_cost(32, 32, factors)[0],
            # As many bits: half as many values, each with a place.
            "TopK": star_cost(64, 64, [sum(factors) // 2])[0],
            "LQ-SGD": star_cost(8, 8, factors)[0],
        }
        for method, amount in bits.items():
            epoch = amount * (images // (WORKERS * BATCH)) / 8 / 2**20
            row = (f"{amount:,}", f"{epoch:.3f}", f"{published[method]}")
            table.add_row(data, method, *row, f"{bits['SGD'] / amount:.1f}")
    return table


def ring_table(name, params, num_nodes):
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    table = _table(
        f"{name}, {count:,} parameters, a step of {num_nodes} nodes:\n"
        "on each link of the ring; and from one worker to a server and back, float32",
        ["method"],
        ["bits", "qubits", "control\nbits", "bits a\nparameter", "server:\nbits up", "bits\ndown"],
    )
    for method, compressor in ON_RING.items():
        cost = compressor.cost(jq.Ring(noise="off"), params, num_nodes)
        messages = compressor.messages(params, num_nodes)
        up = sum(star_cost(message.bits, 0, [message.size])[0] for message in messages)
        # Factors come back as factors; everything else as a mean that is dense.
        is_thin = isinstance(compressor, PowerSGD | LQSGD)
        back = sizes_of(compressor if is_thin else Uncompressed(), params)
        numbers = (cost.bits, cost.qubits, cost.control_bits)
        row = [f"{number:,}" for number in numbers] + [f"{cost.bits / count:.3g}"]
        table.add_row(method, *row, f"{up:,}", f"{star_cost(0, 32, back)[1]:,}")
    return table


def _table(title, left, right):
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def main() -> None:
    console = Console(width=110)
    console.print(paper_table())
    resnet = shapes_of(ResNet18(), 32, 3)
    for num_nodes in (WORKERS, 8):
        console.print(ring_table("ResNet-18", resnet, num_nodes))
    console.print(ring_table("the CNN of the demo", shapes_of(CNN(), 28, 1), 8))


if __name__ == "__main__":
    main()
