"""Symbols through a noisy superdense link: `transmit` beside stim's FlipSimulator and a copy.

Both sides use two cores: ours as two devices of one process, stim as two processes. stim's fastest
honest form: 64 pairs in 32,768 instances, a simulator that is cleared and used again, results
bit-packed. The copy is XLA's, of the same words on the same two devices. The goal is twice stim at
every noise, and half the speed of the copy at 1e-4.
"""

import multiprocessing

import jax
import jax.numpy as jnp
import stim
from timing import medians, parser, report

import jaxqring as jq

WORKERS, PAIRS, INSTANCES = 2, 64, 32_768


def stim_worker(pipe, error):
    """Sends as many batches of PAIRS x INSTANCES symbols as it is told to, and says when done."""
    sent = " ".join(str(2 * pair) for pair in range(PAIRS))
    both = " ".join(f"{2 * pair} {2 * pair + 1}" for pair in range(PAIRS))
    circuit = stim.Circuit(f"DEPOLARIZE1({error}) {sent}\nCX {both}\nH {sent}\nM {both}")
    simulator = stim.FlipSimulator(
        batch_size=INSTANCES, num_qubits=2 * PAIRS, disable_stabilizer_randomization=True
    )
    while batches := pipe.recv():
        for _ in range(batches):
            simulator.clear()
            simulator.do(circuit)
            simulator.get_measurement_flips(bit_packed=True)
        pipe.send(True)


class StimPair:
    """Two processes that wait for work."""

    def __init__(self, error):
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(WORKERS):
            mine, theirs = context.Pipe()
            process = context.Process(target=stim_worker, args=(theirs, error), daemon=True)
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def send(self, batches):
        for pipe in self.pipes:
            pipe.send(batches)
        for pipe in self.pipes:
            pipe.recv()

    def close(self):
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(0)
            process.join()


def main():
    options = parser(__doc__)
    options.add_argument(
        "--errors", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2, 0.04, 0.1, 0.3]
    )
    options.add_argument("--batches", type=int, default=8, help="batches of 2^21 symbols a core")
    options = options.parse_args()
    words_per_core = options.batches * PAIRS * INSTANCES // 16
    symbols = WORKERS * words_per_core * 16
    keys = jax.random.split(jax.random.key(0), WORKERS)
    words = jax.random.bits(jax.random.key(1), (WORKERS, words_per_core), jnp.uint32)
    words = jax.block_until_ready(jax.pmap(lambda w: w ^ 1)(words))
    # One program for all noises: the link is an argument.
    transmit = jax.pmap(jq.transmit, in_axes=(0, None, 0))
    dependent = jax.pmap(lambda w, c, k: jq.transmit(w, c, k, scramble=False), in_axes=(0, None, 0))
    copy = jax.pmap(jnp.copy)
    rows = []
    for error in options.errors:
        link = jq.superdense(jq.werner(fidelity=1.0), sent=jq.depolarizing(error_prob=error))
        peer = StimPair(error)
        seconds = medians(
            {
                "ours": lambda link=link: transmit(words, link, keys),
                "dependent": lambda link=link: dependent(words, link, keys),
                "stim": lambda peer=peer: peer.send(options.batches),
                "copy": lambda: copy(words),
            },
            options.repeats,
        )
        peer.close()
        rate = {name: symbols / time for name, time in seconds.items()}
        rows.append(
            [
                error,
                rate["ours"],
                rate["stim"],
                rate["ours"] / rate["stim"],
                rate["ours"] / rate["copy"],
                rate["ours"] / rate["dependent"],
            ]
        )
    columns = [
        "symbol error",
        "symbols/s",
        "stim, 2 cores",
        "x stim",
        "x copy",
        "unscrambled costs x",
    ]
    report("transport", columns, rows, options)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", WORKERS)
    main()
