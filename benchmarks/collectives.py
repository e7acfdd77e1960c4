"""The ring all-reduce beside `lax.pmean`, `lax.psum` and a plain ring, on eight host devices.

The plain ring is what one writes with `ppermute` in float32. The goal at 1e7 values with a 16-bit
wire, in units of `lax.pmean`: 1.2 with noise off, 2 at symbol errors of 1e-3 and 1e-2, 4 at 0.04.

The goal at 1e5 values is 3. Two rows say what bounds it: the hops alone, with as many bytes as the
wire has and nothing done to them, and the plain ring, which reads, adds and collects as well.

The last row has all nodes on one device, under `vmap`: the goal is 1.3 times the row "noise off".
By processor time it is less; by the clock, part of the row is the system's, which takes blocks of
more than 32 MB back after every call and clears new ones: MALLOC_MMAP_THRESHOLD_=4000000000 and
MALLOC_TRIM_THRESHOLD_=8000000000 keep them, where malloc is that of glibc.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from timing import medians, parser, report

import jaxqring as jq

NODES = 8


def onward(nodes):
    """From each node to the next."""
    return [(d, (d + 1) % nodes) for d in range(nodes)]


def hops_alone(x):
    """The hops of an all-reduce of words of 16 bits, the first of `x`, and nothing else."""
    nodes = lax.axis_size("nodes")
    words = lax.bitcast_convert_type(x[: -(-x.size // (2 * nodes))], jnp.uint32)
    send = functools.partial(lax.ppermute, axis_name="nodes", perm=onward(nodes))
    return lax.fori_loop(0, 2 * (nodes - 1), lambda _, sent: send(sent), words)


def plain_ring(x):
    """The mean over a ring of `ppermute`s, in float32."""
    node, nodes = lax.axis_index("nodes"), lax.axis_size("nodes")
    rows = x.reshape(nodes, -1)

    def arrived(rows, chunk):
        sent = lax.dynamic_index_in_dim(rows, chunk % nodes, keepdims=False)
        return lax.ppermute(sent, "nodes", onward(nodes))

    def add(t, rows):
        chunk = (node - t - 1) % nodes
        own = lax.dynamic_index_in_dim(rows, chunk, keepdims=False)
        return lax.dynamic_update_index_in_dim(rows, own + arrived(rows, node - t), chunk, 0)

    def pass_on(t, rows):
        held = arrived(rows, node + 1 - t)
        return lax.dynamic_update_index_in_dim(rows, held, (node - t) % nodes, 0)

    rows = lax.fori_loop(0, nodes - 1, add, rows)
    return lax.fori_loop(0, nodes - 1, pass_on, rows).reshape(-1) / nodes


def candidates(size, key):
    values = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, size), (NODES, size))
    values = jax.block_until_ready(jax.pmap(lambda x: x + 0)(values))
    rings = {"ring, noise off": jq.Ring(noise="off")}
    for error in (1e-3, 1e-2, 0.04):
        link = jq.superdense(jq.werner(fidelity=1 - error))
        rings[f"ring, symbol error {error:g}"] = jq.Ring(link)
    code = jq.Retransmit(jq.reed_solomon(255, 223))
    link = jq.superdense(jq.werner(fidelity=0.99))
    rings["ring, 1e-2, protected"] = jq.Ring(link, protection=code)

    def mapped(average):
        run = jax.pmap(average, axis_name="nodes", in_axes=(0, None))
        return lambda: run(values, key)

    def over(ring):
        return mapped(lambda x, k: jq.pmean(x, "nodes", ring=ring, key=k))

    def off(x, k):
        return jq.pmean(x, "nodes", ring=jq.Ring(noise="off"), key=k)

    together = jax.jit(jax.vmap(off, axis_name="nodes", in_axes=(0, None)))
    on_one = jax.device_put(np.asarray(values), jax.devices()[0])
    mesh = Mesh(np.array(jax.devices()[:NODES]), ("nodes",))
    total = jax.jit(
        jax.shard_map(lambda x: lax.psum(x, "nodes"), mesh=mesh, in_specs=P("nodes"), out_specs=P())
    )
    return {
        "lax.pmean (pmap)": mapped(lambda x, k: lax.pmean(x, "nodes")),
        "lax.psum (shard_map)": lambda: total(values),
        "hops alone": mapped(lambda x, k: hops_alone(x)),
        "ring of ppermute": mapped(lambda x, k: plain_ring(x)),
        **{name: over(ring) for name, ring in rings.items()},
        "ring, noise off, vmap": lambda: together(on_one, key),
    }


def main():
    options = parser(__doc__)
    options.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    options = options.parse_args()
    sizes = [int(size) for size in options.sizes]
    found = [medians(candidates(size, jax.random.key(0)), options.repeats) for size in sizes]
    rows = []
    for name in found[0]:
        cells = []
        for seconds in found:
            cells += [seconds[name] * 1e3, seconds[name] / seconds["lax.pmean (pmap)"]]
        rows.append([name, *cells])
    columns = ["all-reduce of float32"]
    for size in sizes:
        columns += [f"{size:.0e} in ms", f"x pmean, {size:.0e}"]
    report("collectives", columns, rows, options)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", NODES)
    main()
