"""The optimizer of a run and its outer loop, as its configuration says."""

import jax
import optax

from jaxqring.codec import Float32
from jaxqring.jobs._loop_config import Inner, build_loop
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.outer import Loop
from jaxqring.ring import Ring
from jaxqring.train._objective import schedule


def optimizer_of(run: RunConfig, config: TrainConfig) -> optax.GradientTransformation:
    """The optimizer of every step; of the inner steps where there is an outer loop."""
    rate = schedule(run.learning_rate or config.learning_rate, config.steps)
    if (run.optimizer or config.optimizer) == "adam":
        return optax.adam(rate)
    momentum = config.momentum if run.momentum is None else run.momentum
    return optax.sgd(rate, momentum or None)


def loop_of(run: RunConfig, config: TrainConfig) -> Loop | None:
    """The outer loop of a run; None for an average of every step."""
    if run.outer is None:
        return None
    return build_loop(
        run.outer.method,
        run.outer.given(),
        Inner(optimizer_of(run, config), run.learning_rate or config.learning_rate),
        every=run.outer.every,
        ring=run.ring() or Ring(wire=Float32(), noise="off"),
        compressor=run.compressor(),
        key=jax.random.fold_in(jax.random.key(config.seed), 1),
    )
