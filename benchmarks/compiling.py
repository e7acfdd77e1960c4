"""Times the first call of an all-reduce, compiling included.

Everything is traced, compiled and run once. The goal is 3 seconds for 8 and for 64 nodes with 1e6
values. With 64 devices on a few cores most of the rest is XLA waiting for its threads: the second
column of each number of nodes is the time of a call after the first.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax
from timing import parser, report

import jaxqring as jq


def first_call(nodes, size, ring):
    """Seconds of the first call, and of the second."""
    jax.clear_caches()
    values = jnp.zeros((nodes, size))
    values = jax.block_until_ready(jax.pmap(jnp.negative)(values))  # one node on each device

    def average(x, key):
        if ring is None:
            return lax.pmean(x, "nodes")
        return jq.pmean(x, "nodes", ring=ring, key=key)

    key = jax.random.key(0)
    run = jax.pmap(average, axis_name="nodes", in_axes=(0, None), devices=jax.devices()[:nodes])
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(run(values, key))
        seconds.append(time.perf_counter() - start)
    return seconds


def main():
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, nargs="+", default=[8, 64])
    options.add_argument("--size", type=float, default=1e6)
    options = options.parse_args()
    link = jq.superdense(jq.werner(fidelity=0.999))
    rings = {
        "lax.pmean": None,
        "ring, noise off": jq.Ring(noise="off"),
        "ring, noise": jq.Ring(link),
        "ring, noise, protected": jq.Ring(
            link, protection=jq.Retransmit(jq.reed_solomon(255, 223))
        ),
    }
    rows = []
    for name, ring in rings.items():
        times = []
        for nodes in options.nodes:
            seen = [first_call(nodes, int(options.size), ring) for _ in range(options.repeats)]
            times += map(statistics.median, zip(*seen, strict=True))
        rows.append([name, *times])
    columns = ["all-reduce"]
    for nodes in options.nodes:
        columns += [f"{nodes} nodes: first, s", f"{nodes} nodes: next, s"]
    report("compiling", columns, rows, options)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 64)
    main()
