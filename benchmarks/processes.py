"""The ring all-reduce beside `lax.pmean` over processes of one host, each with one device.

The goal at 1e6 values and two processes, in units of `lax.pmean`: 1.3 with noise off on a wire of
16 bits, and 1.7 at a fidelity of 0.999. Data go from process to process by gloo, as JAX has it on
processors.
"""

import sys

import jax
import jax.numpy as jnp
from collectives import hops_alone, plain_ring
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from timing import medians, parser, report

import jaxqring as jq

FIDELITY = 0.999


def candidates(size, nodes, key):
    mesh = jax.make_mesh((nodes,), ("nodes",))
    spread = NamedSharding(mesh, P("nodes"))
    row = jax.jit(
        lambda: jnp.broadcast_to(jnp.linspace(-1.0, 1.0, size), (nodes, size)), out_shardings=spread
    )
    values = row()
    link = jq.superdense(jq.werner(fidelity=FIDELITY))
    code = jq.Retransmit(jq.reed_solomon(255, 223))
    rings = {
        "ring, noise off": jq.Ring(noise="off"),
        f"ring, F {FIDELITY:g}": jq.Ring(link),
        f"ring, F {FIDELITY:g}, protected": jq.Ring(link, protection=code),
    }

    def mapped(average):
        run = jax.jit(
            jax.shard_map(
                lambda x, key: average(x[0], key)[None],
                mesh=mesh,
                in_specs=(P("nodes"), P()),
                out_specs=P("nodes"),
            )
        )
        return lambda: run(values, key)

    def over(ring):
        return mapped(lambda x, key: jq.pmean(x, "nodes", ring=ring, key=key))

    return {
        "lax.pmean": mapped(lambda x, _: lax.pcast(lax.pmean(x, "nodes"), "nodes", to="varying")),
        "hops alone": mapped(lambda x, _: hops_alone(x)),
        "ring of ppermute": mapped(lambda x, _: plain_ring(x)),
        **{name: over(ring) for name, ring in rings.items()},
    }


def measure(options, nodes):
    """In every process; the first one reports."""
    rows = []
    for size in map(int, options.sizes):
        seconds = medians(candidates(size, nodes, jax.random.key(0)), options.repeats)
        for name, found in seconds.items():
            rows.append([name, f"{size:.0e}", found * 1e3, found / seconds["lax.pmean"]])
    if jax.process_index() == 0:
        columns = [f"all-reduce over {nodes} processes", "values", "ms", "x pmean"]
        report("processes", columns, rows, options)


def main():
    options = parser(__doc__)
    options.set_defaults(repeats=151)
    options.add_argument("--sizes", type=float, nargs="+", default=[1e6])
    options.add_argument("--processes", type=int, default=2)
    options = options.parse_args()
    place = jq.launch.initialize()
    if place.count > 1:
        measure(options, place.count)
        return 0
    command = [sys.executable, *sys.argv]
    return jq.launch.supervise(command, options.processes, progress=lambda: None, restarts=0)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 1)
    sys.exit(main())
