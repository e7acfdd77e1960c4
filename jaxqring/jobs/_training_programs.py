"""The programs of a run on one number of nodes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState

from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._run_parts import loop_of
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_results import Terms
from jaxqring.launch._processes import gathered, wait_for_all
from jaxqring.ring import replica_agreement
from jaxqring.train import _datasets as datasets
from jaxqring.train._liars import lying, robustly
from jaxqring.train._objective import AXIS, model_for
from jaxqring.train._placement import Placement
from jaxqring.train._step import node_correct, node_resync, node_step, over_nodes
from jaxqring.train._updates import averaged, in_rounds, with_replica

TEST_BATCH = 1000


class Programs(NamedTuple):
    """The programs of a run on N nodes, each of arrays with a leading axis of nodes.

    Attributes:
      placement: of the nodes.
      step: one update.
      resync: the average of the replicas.
      accuracy: (N,) of each node's replica on the test set; of an outer loop, what it evaluates.
      agreement: of the parameters of these replicas.
    """

    placement: Placement
    step: Callable
    resync: Callable
    accuracy: Callable[[TrainState], np.ndarray]
    agreement: Callable[[TrainState], float]


def programs_of(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    terms: Terms,
    placement: Placement,
) -> Programs:
    """The programs of a run, which compile when they are first called."""
    _meet(placement)
    over = functools.partial(over_nodes, mapping=placement.mapping, devices=placement.devices)
    with_shots = config.quantum is not None and config.quantum.shots is not None
    sampled = model_for(config.model, data, config.quantum).apply if with_shots else None
    liars = None if run.attack is None else run.attack.build(placement.nodes)
    evaluated = _as_it_is
    if (loop := loop_of(run, config)) is not None:
        update, evaluated = in_rounds(loop), over(with_replica(loop), shared=())
    elif run.robust is not None:
        ring, secure = run.ring(), None
        assert ring is not None  # or the configuration was refused
        if terms.source is not None and terms.security is not None:
            secure = terms.source, terms.security
        update = robustly(ring, run.robust.build(), secure, liars)
    else:
        update = averaged(run.ring(), terms.source, terms.security, run.compressor())
        update = update if liars is None else lying(update, liars)
    labels_of = None
    if liars is not None:
        labels_of = functools.partial(liars.labels, num_classes=data.num_classes)
    step = node_step(update, sampled, labels_of)
    correct = over(node_correct, shared=(1, 2))
    agreement = over(lambda tree: replica_agreement(tree, AXIS), shared=())
    return Programs(
        placement,
        over(step, shared=(2, 3)),
        over(node_resync, shared=()),
        lambda state: _test_accuracy(correct, data, evaluated(state)),
        lambda state: float(gathered(agreement(evaluated(state).params))[0]),
    )


def _as_it_is(state: TrainState) -> TrainState:
    """The state of a run that evaluates the parameters that it trains."""
    return state


def _meet(placement: Placement) -> None:
    """Connects the processes of some nodes while they are in step.

    When devices meet for the first time, gloo waits 30 seconds for them, which is less than a
    process may compile longer than another one; later it waits for as long as it takes.
    """
    sharding = placement.sharding
    if placement.processes == 1 or sharding is None:
        return
    wait_for_all(f"{placement.nodes} nodes")
    ones = jax.make_array_from_callback(
        (placement.nodes,), sharding, lambda index: np.ones(1, np.float32)
    )
    jax.block_until_ready(jax.jit(jnp.sum)(ones))


def _test_accuracy(correct_fn: Callable, data: datasets.Dataset, state: TrainState) -> np.ndarray:
    total = len(data.test_labels)
    correct = np.zeros(jax.tree.leaves(state.params)[0].shape[0])
    for start in range(0, total, TEST_BATCH):
        images = data.test_images[start : start + TEST_BATCH]
        labels = data.test_labels[start : start + TEST_BATCH]
        correct += gathered(correct_fn(state, images, labels))
    return correct / total


def updates(
    run: RunConfig,
    config: TrainConfig,
    data: datasets.Dataset,
    programs: Programs,
    before: datasets.Consumed = datasets.NOTHING,
) -> Callable[[TrainState, int], tuple[TrainState, dict[str, jax.Array]]]:
    """A function `update(state, step)` that returns the next state and its metrics, on the devices.

    Where the devices run ahead, it returns once the step before the one that it begins is done.
    `before` is what was consumed when the number of nodes was last another one.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    placement = programs.placement
    nodes, rows, runs_ahead = placement.nodes, placement.rows, placement.runs_ahead
    spread = functools.partial(jax.make_array_from_process_local_data, placement.sharding)
    last: Any = None

    def update(state: TrainState, step: int) -> tuple[TrainState, dict[str, jax.Array]]:
        nonlocal last
        per_node = config.batch_per_node
        batch = datasets.batches(
            data, step, config.seed, nodes, per_node, rows, before, config.split
        )
        if placement.processes > 1:
            batch = jax.tree.map(spread, batch)
        state, metrics = programs.step(state, batch, key, np.int32(step))
        jax.block_until_ready(last if runs_ahead else (state, metrics))
        if run.resync_every and (step + 1) % run.resync_every == 0:
            state = programs.resync(state)
            jax.block_until_ready(None if runs_ahead else state)
        last = metrics
        return state, metrics

    return update
