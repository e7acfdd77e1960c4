"""Symbols through a noisy superdense link: `transmit` beside stim's FlipSimulator.

stim tracks Pauli frames of 64 pairs in 32,768 instances through a depolarizing error on the sent
half and the Bell measurement, on one thread. Prints symbols per second and their ratio.
"""

import argparse

import jax
import jax.numpy as jnp
import stim
from timing import medians

import jaxqring as jq

PAIRS, INSTANCES = 64, 32_768


def stim_link(error):
    """One batch of PAIRS x INSTANCES symbols as bit-packed measurement flips."""
    sent = " ".join(str(2 * pair) for pair in range(PAIRS))
    both = " ".join(f"{2 * pair} {2 * pair + 1}" for pair in range(PAIRS))
    circuit = stim.Circuit(f"DEPOLARIZE1({error}) {sent}\nCX {both}\nH {sent}\nM {both}")

    def run():
        simulator = stim.FlipSimulator(
            batch_size=INSTANCES, num_qubits=2 * PAIRS, disable_stabilizer_randomization=True
        )
        simulator.do(circuit)
        return simulator.get_measurement_flips(bit_packed=True)

    return run


def our_link(error):
    link = jq.superdense(jq.werner(fidelity=1 - error))
    words = jnp.zeros((PAIRS * INSTANCES // 16,), jnp.uint32)
    send = jax.jit(lambda words, key: jq.transmit(words, link, key))
    return lambda: send(words, jax.random.key(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--errors", type=float, nargs="+", default=[1e-3, 1e-2, 0.04, 0.3])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    symbols = PAIRS * INSTANCES
    for error in options.errors:
        seconds = medians({"jaxqring": our_link(error), "stim": stim_link(error)}, options.repeats)
        ours, theirs = symbols / seconds["jaxqring"], symbols / seconds["stim"]
        print(
            f"symbol error {error:<6g} jaxqring {ours:.2e}/s, stim (one thread) {theirs:.2e}/s, "
            f"ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
