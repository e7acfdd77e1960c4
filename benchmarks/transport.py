"""Symbols through a noisy superdense link: `transmit` beside its peers and its dense sampler.

Every side uses two processes, each on a core of its own, and gives as many symbols. stim's fastest
honest form: 64 pairs in 32,768 instances, a FlipSimulator that is cleared and used again, results
bit-packed. Ours sends as many symbols in one call as stim in eight batches. The copy is XLA's, of
the same words. The goal is twice stim at every noise, and half the speed of the copy at 1e-4.

tsim ("feels like Stim", on JAX; arXiv:2604.01059) is fastest with one pair in 2^19 shots, as bools.
It brings Jupyter's widgets along, so that no extra of ours installs it; where it is missing the
table says so:

    pip install --constraint constraints.txt bloqade-tsim
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import stim
from timing import medians, parser, report
from workers import Workers

import jaxqring as jq

PAIRS, INSTANCES, CALLS = 64, 32_768, 32
SHOTS = 2**19
OTHERS = ("stim", "tsim", "dense", "unscrambled", "copy")


def stim_task(error, batches):
    sent = " ".join(str(2 * pair) for pair in range(PAIRS))
    both = " ".join(f"{2 * pair} {2 * pair + 1}" for pair in range(PAIRS))
    circuit = stim.Circuit(f"DEPOLARIZE1({error}) {sent}\nCX {both}\nH {sent}\nM {both}")
    simulator = stim.FlipSimulator(
        batch_size=INSTANCES, num_qubits=2 * PAIRS, disable_stabilizer_randomization=True
    )

    def run():
        for _ in range(CALLS * batches):
            simulator.clear()
            simulator.do(circuit)
            simulator.get_measurement_flips(bit_packed=True)

    return run


def tsim_task(error, batches):
    import tsim  # after the process has its core: JAX then takes one thread

    # Both outcomes are 0 without an error, so that the samples are the errors.
    circuit = tsim.Circuit(f"R 0 1\nH 0\nCX 0 1\nDEPOLARIZE1({error}) 0\nCX 0 1\nH 0\nM 0 1")
    sampler = circuit.compile_sampler(seed=0)

    def run():
        for _ in range(CALLS * batches * PAIRS * INSTANCES // SHOTS):
            sampler.sample(SHOTS)

    return run


@functools.cache
def our_words(batches):
    return jax.random.bits(jax.random.key(1), (batches * PAIRS * INSTANCES // 16,))


def our_task(function, batches):
    # One program for all noises: the link is an argument.
    function = jax.jit(function)

    def prepared(error):
        link = jq.superdense(jq.werner(fidelity=1.0), sent=jq.depolarizing(error_prob=error))
        words, key = our_words(batches), jax.random.key(0)

        def run():
            for _ in range(CALLS):
                jax.block_until_ready(function(words, link, key))

        return run

    return prepared


def make_tasks(batches):
    return {
        "ours": our_task(jq.transmit, batches),
        "unscrambled": our_task(
            lambda w, link, k: jq.transmit(w, link, k, scramble=False), batches
        ),
        "dense": our_task(functools.partial(jq.transmit, sampler="dense"), batches),
        "copy": our_task(lambda w, link, k: jnp.copy(w), batches),
        "stim": lambda error: stim_task(error, batches),
        "tsim": lambda error: tsim_task(error, batches),
    }


def main():
    options = parser(__doc__)
    options.add_argument(
        "--errors", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2, 0.024, 0.04, 0.1, 0.3]
    )
    options.add_argument("--batches", type=int, default=8, help="2^21 symbols each, in one call")
    options.add_argument(
        "--cpu", action="store_true", help="count CPU seconds, where others use the machine as well"
    )
    options = options.parse_args()
    workers = Workers(make_tasks, options.batches)
    symbols = len(workers.pipes) * CALLS * options.batches * PAIRS * INSTANCES
    found = importlib.util.find_spec("tsim") is not None
    names = ["ours", *(name for name in OTHERS if found or name != "tsim")]
    rows = []
    for error in options.errors:
        runs = {name: (lambda name=name, e=error: workers.run(name, e)) for name in names}
        seconds = medians(runs, options.repeats, counted=options.cpu)
        rate = {name: symbols / time for name, time in seconds.items()}
        ratios = [rate["ours"] / rate[name] if name in rate else "not installed" for name in OTHERS]
        rows.append([error, rate["ours"], rate["stim"], *ratios])
    workers.close()
    columns = ["symbol error", "symbols/s", "stim, 2 cores", *(f"x {name}" for name in OTHERS)]
    report("transport", columns, rows, options)


if __name__ == "__main__":
    main()
