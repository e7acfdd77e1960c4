"""Compressors on the gradient of a ResNet-18, beside `lax.pmean` of the raw one, on eight devices.

A step compresses on each node, exchanges over a ring of noise "off", and decompresses. The goal for
PowerSGD of rank 1 is the time of `lax.pmean`; no compressor's first call, compilation included, may
take more than 15 s. Nodes are devices of the host and share its cores, so that all eight nodes'
work is paid for by them.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from timing import medians, parser, report

import jaxqring as jq
from jaxqring import compress

NODES = 8
COMPRESSORS = {
    "PowerSGD, rank 1": compress.PowerSGD(rank=1),
    "PowerSGD, rank 4": compress.PowerSGD(rank=4),
    "LQ-SGD, rank 1, gather": compress.LQSGD(rank=1),
    "LQ-SGD, rank 1, sum": compress.LQSGD(rank=1, reduce="sum"),
    "TopK, 1 %": compress.TopK(0.01),
    "RandomK, 1 %": compress.RandomK(0.01),
    "DGC, 0.1 %": compress.DGC(0.001),
    "TernGrad": compress.TernGrad(),
    "QSGD, 7 levels": compress.QSGD(7),
    "Signum": compress.SignVote(momentum=0.9),
    "DeMo, 32 of 4096": compress.DeMo(k=32),
}


def resnet18(channels=64, classes=10):
    """Shapes of the parameters of a ResNet-18 for small images, by name."""
    shapes = {"stem": (3, 3, 3, channels), "stem norm": (2, channels)}
    inputs = channels
    for stage, outputs in enumerate(channels * 2**stage for stage in range(4)):
        for block in range(2):
            name = f"{stage}.{block}"
            shapes[f"{name} first"] = (3, 3, inputs, outputs)
            shapes[f"{name} second"] = (3, 3, outputs, outputs)
            if inputs != outputs:
                shapes[f"{name} shortcut"] = (1, 1, inputs, outputs)
            inputs = outputs
    return shapes | {"dense": (inputs, classes), "bias": (classes,)}


def seconds_of(run):
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def main():
    options = parser(__doc__)
    options.add_argument("--only", nargs="*", default=[], help="parts of the names of compressors")
    options.add_argument("--channels", type=int, default=64, help="of the first stage")
    options = options.parse_args()
    mesh = Mesh(np.array(jax.devices()[:NODES]), ("nodes",))
    split, key = NamedSharding(mesh, P("nodes")), jax.random.key(0)
    one = {name: jnp.zeros(shape) for name, shape in resnet18(options.channels).items()}
    gradients = {
        name: jax.device_put(
            jax.random.normal(jax.random.fold_in(key, number), (NODES, *leaf.shape)), split
        )
        for number, (name, leaf) in enumerate(one.items())
    }

    def mapped(function):
        def block(*trees):
            out = function(*jax.tree.map(lambda leaf: leaf[0], trees))
            return jax.tree.map(lambda leaf: leaf[None], out)

        return jax.jit(jax.shard_map(block, mesh=mesh, in_specs=P("nodes"), out_specs=P("nodes")))

    raw = mapped(lambda x: lax.pmean(x, "nodes"))
    runs, costs = {"lax.pmean": lambda: raw(gradients)}, {}
    first = {"lax.pmean": seconds_of(runs["lax.pmean"])}
    ring = jq.Ring(noise="off")
    for name, compressor in COMPRESSORS.items():
        if options.only and not any(part in name for part in options.only):
            continue
        state = jax.tree.map(
            lambda leaf: jax.device_put(jnp.broadcast_to(leaf, (NODES, *leaf.shape)), split),
            compressor.init(one),
        )

        def step(x, memory, compressor=compressor):
            return compress.compressed_pmean(
                x, memory, "nodes", compressor=compressor, ring=ring, key=key
            )

        run = mapped(step)
        runs[name] = lambda run=run, state=state: run(gradients, state)
        first[name] = seconds_of(runs[name])
        costs[name] = compressor.cost(ring, one, NODES).bits
    found = medians(runs, options.repeats)
    rows = [
        [
            name,
            1e3 * seconds,
            seconds / found["lax.pmean"],
            first[name],
            costs.get(name, jq.Ring(noise="off").cost(one, NODES).bits) / 1e6,
        ]
        for name, seconds in found.items()
    ]
    columns = ["step", "ms", "times lax.pmean", "first call, s", "Mbit a link"]
    report("compressors", columns, rows, options)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", NODES)
    main()
