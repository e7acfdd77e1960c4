"""Times the first call of an all-reduce, compiling included.

Everything is traced, compiled and run once. The goal is 3 seconds on two cores, for 8 and for 64
nodes with 1e6 values. With 64 devices on a few cores much of it is XLA waiting for its threads: the
second column of each number of nodes is the time of a call after the first, which a plain ring of
`ppermute`s takes as well. The third is the processor time of the first call, which other processes
disturb less; on an idle machine much of it is spent by several threads at once.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from collectives import plain_ring
from jax import lax
from timing import parser, report

import jaxqring as jq


def first_call(nodes, size, average):
    """Seconds of the first call and of the next, and processor seconds of the first."""
    jax.clear_caches()
    values = jnp.zeros((nodes, size))
    values = jax.block_until_ready(jax.pmap(jnp.negative)(values))  # one node on each device
    key = jax.random.key(0)
    run = jax.pmap(average, axis_name="nodes", in_axes=(0, None), devices=jax.devices()[:nodes])
    seconds, processor = [], []
    for _ in range(2):
        starts = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(values, key))
        seconds.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    return *seconds, processor[0]


def over(ring):
    return lambda x, key: jq.pmean(x, "nodes", ring=ring, key=key)


def main():
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, nargs="+", default=[8, 64])
    options.add_argument("--size", type=float, default=1e6)
    options = options.parse_args()
    link = jq.superdense(jq.werner(fidelity=0.999))
    code = jq.Retransmit(jq.reed_solomon(255, 223))
    candidates = {
        "lax.pmean": lambda x, key: lax.pmean(x, "nodes"),
        "ring of ppermute": lambda x, key: plain_ring(x),
        "ring, noise off": over(jq.Ring(noise="off")),
        "ring, noise": over(jq.Ring(link)),
        "ring, noise, protected": over(jq.Ring(link, protection=code)),
    }
    rows = []
    for name, average in candidates.items():
        times = []
        for nodes in options.nodes:
            seen = [first_call(nodes, int(options.size), average) for _ in range(options.repeats)]
            times += map(statistics.median, zip(*seen, strict=True))
        rows.append([name, *times])
    columns = ["all-reduce"]
    for nodes in options.nodes:
        columns += [f"{nodes} nodes: {what}, s" for what in ("first", "next", "processor")]
    report("compiling", columns, rows, options)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 64)
    main()
