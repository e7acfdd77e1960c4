"""A whole training step of the demo, over rings of all kinds beside `lax.pmean`.

The step of `configs/demo.toml`: eight virtual devices, a small CNN, Adam, with the report of the
collective. The goal, in units of the classical step: 1.3 with protected links, 1.5 with a symbol
error of 1e-3.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from timing import medians, parser, report

import jaxqring as jq
from jaxqring.jobs._load import load_config
from jaxqring.jobs._training_job import _initial_state
from jaxqring.train import _datasets as datasets
from jaxqring.train._placement import place
from jaxqring.train._step import node_step, over_nodes
from jaxqring.train._updates import averaged

DEMO = Path(__file__).parent.parent / "configs" / "demo.toml"


def main():
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=5, help="steps in one measurement")
    options = options.parse_args()
    config = load_config(DEMO)
    placement = place(config.mapping, config.nodes)
    data = datasets.load(config.data)
    one = _initial_state(config.runs[0], config, data)
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (config.nodes, *leaf.shape[1:])), one)
    batch = datasets.batches(data, 0, config.seed, config.nodes, config.batch_per_node)
    rings = {run.name: run.ring() for run in config.runs}
    rings["ring, symbol error 1e-3"] = jq.Ring(jq.superdense(jq.werner(fidelity=0.999)))

    def steps(ring):
        step = node_step(averaged(ring))
        step = over_nodes(step, placement.mapping, placement.devices, shared=(2, 3))

        def run():
            for number in range(options.steps):
                # Each is waited for, as in the training loop.
                key = jax.random.key(number)
                jax.block_until_ready(step(state, batch, key, np.int32(number)))

        return run

    seconds = medians({name: steps(ring) for name, ring in rings.items()}, options.repeats)
    rows = [
        [name, time / options.steps * 1e3, time / seconds["classical"]]
        for name, time in seconds.items()
    ]
    report("training", ["step of the demo", "ms", "x classical"], rows, options)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    main()
