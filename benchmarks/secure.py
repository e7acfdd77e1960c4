"""GHZ masks beside the generator of Flower's SecAgg+, stim, and the ring without masks.

* Masks of 8 nodes for 1e6 values. SecAgg+ (Flower 1.42) makes each node's mask of seven that it
  shares with the others and one of its own, each drawn by NumPy's MT19937 as int64 and added up;
  that draw and that addition are what is timed. One process, one thread. The goal is 4 times.
* X outcomes of noisy GHZ states, a percent of depolarizing error on every qubit, beside stim's
  FlipSimulator, bit-packed. Two processes, one on each core. The goal is twice stim.
* The secure all-reduce over eight host devices, in units of the plain ring on the same links. The
  goal is at most 2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import stim
from timing import medians, parser, report
from workers import Workers

import jaxqring as jq

NODES = 8
GHZ_ERROR = 0.01
INSTANCES = 32_768
draw_masks = jax.jit(jq.secure.masks, static_argnums=(2, 3, 4))


def secagg_masks(size, bits):
    """The masks of all nodes, as every one of them makes its own."""
    generator = np.random.RandomState
    masks = []
    for node in range(NODES):
        total = generator(1000 + node).randint(0, 2**bits - 1, (size,), dtype=np.int64)
        for other in range(NODES):
            if other != node:
                seed = min(node, other) * NODES + max(node, other)
                shared = generator(seed).randint(0, 2**bits - 1, (size,), dtype=np.int64)
                total = total + shared if node < other else total - shared
        masks.append(total & (2**bits - 1))
    return masks


def mask_rows(size, repeats):
    rows = []
    for bits in (16, 32):
        sources = {f"{error:g}": error for error in (0.0, 1e-4, 1e-3)}
        runs = {"SecAgg+": lambda bits=bits: secagg_masks(size, bits)}
        for name, error in sources.items():
            source = jq.GHZSource(NODES, noise=jq.depolarizing(error_prob=error))
            runs[name] = lambda s=source, b=bits: draw_masks(jax.random.key(0), s, size, b, "qft")
        seconds = medians(runs, repeats)
        for name in sources:
            label = f"masks of {bits} bits, error {name} a qubit"
            rate = NODES * size / seconds[name]
            rows.append([label, rate, "masks/s", seconds["SecAgg+"] / seconds[name], "SecAgg+"])
    return rows


def outcome_tasks(batches):
    def ours(parties):
        source = jq.GHZSource(parties, noise=jq.depolarizing(error_prob=GHZ_ERROR))
        words = batches * INSTANCES // 32

        def run():
            jax.block_until_ready(draw_masks(jax.random.key(0), source, words, 32, "xor"))

        return run

    def by_stim(parties):
        every = " ".join(map(str, range(parties)))
        fan = " ".join(f"0 {party}" for party in range(1, parties))
        circuit = stim.Circuit(f"H 0\nCX {fan}\nDEPOLARIZE1({GHZ_ERROR}) {every}\nMX {every}")
        simulator = stim.FlipSimulator(batch_size=INSTANCES, num_qubits=parties)

        def run():
            for _ in range(batches):
                simulator.clear()
                simulator.do(circuit)
                simulator.get_measurement_flips(bit_packed=True)

        return run

    return {"ours": ours, "stim": by_stim}


def outcome_rows(batches, repeats):
    workers = Workers(outcome_tasks, batches)
    rows = []
    for parties in (8, 64):
        runs = {name: (lambda n=name, p=parties: workers.run(n, p)) for name in ("ours", "stim")}
        seconds = medians(runs, repeats)
        rate = len(workers.pipes) * batches * INSTANCES / seconds["ours"]
        label = f"X outcomes of {parties} parties"
        rows.append([label, rate, "copies/s", seconds["stim"] / seconds["ours"], "stim, 2 cores"])
    workers.close()
    return rows


def all_reduce_rows(sizes, repeats):
    perfect = jq.GHZSource(NODES)
    noisy = jq.GHZSource(NODES, noise=jq.depolarizing(error_prob=1e-4))
    security = jq.secure.Security(tolerance=0.1)
    link = jq.superdense(jq.werner(fidelity=0.999))
    rows = []
    for size in sizes:
        values = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, size), (NODES, size))
        values = jax.block_until_ready(jax.pmap(lambda x: x + 0)(values))
        for links, ring in (("noise off", jq.Ring(noise="off")), ("error 1e-3", jq.Ring(link))):

            def plain(x, key, ring=ring):
                return jq.pmean(x, "nodes", ring=ring, key=key)

            def secure(x, key, source, ring=ring):
                return jq.secure_pmean(
                    x, "nodes", ring=ring, source=source, security=security, key=key
                )

            key = jax.random.key(0)
            plain = jax.pmap(plain, axis_name="nodes", in_axes=(0, None))
            secure = jax.pmap(secure, axis_name="nodes", in_axes=(0, None, None))
            runs = {
                "plain": lambda f=plain, v=values, k=key: f(v, k),
                "perfect": lambda f=secure, v=values, k=key: f(v, k, perfect),
                "error 1e-4": lambda f=secure, v=values, k=key: f(v, k, noisy),
            }
            seconds = medians(runs, repeats)
            for name in ("perfect", "error 1e-4"):
                label = f"all-reduce of {size:.0e}, links {links}, GHZ {name}"
                ratio = seconds[name] / seconds["plain"]
                rows.append([label, seconds[name] * 1e3, "ms", ratio, "plain ring (time)"])
    return rows


def main():
    options = parser(__doc__)
    options.add_argument("--size", type=float, default=1e6, help="of a node's masks")
    options.add_argument("--batches", type=int, default=256, help=f"of {INSTANCES} copies")
    options.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    options = options.parse_args()
    rows = mask_rows(int(options.size), options.repeats)
    rows += outcome_rows(options.batches, options.repeats)
    rows += all_reduce_rows([int(size) for size in options.sizes], options.repeats)
    report("secure", ["what", "ours", "unit", "ratio", "to"], rows, options)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", NODES)
    main()
