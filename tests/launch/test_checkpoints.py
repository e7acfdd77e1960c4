"""Checkpoints: bits, what is written once, what is left of a crash, and when they are due."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxqring.jobs import TrainConfig
from jaxqring.jobs import _training_loop as loop
from jaxqring.launch import checkpoint_interval
from jaxqring.launch._checkpoints import Checkpoints, newest

NODES = 4


def state(seed=0):
    """A state of which one array, and one more bit of another, differ from node to node."""
    rng = np.random.default_rng(seed)
    shared = np.broadcast_to(rng.normal(size=(5, 3)).astype(np.float32), (NODES, 5, 3))
    zeros = np.zeros((NODES, 2), np.float32)
    zeros[1, 0] = -0.0
    return {
        "params": {"w": shared, "zeros": zeros, "half": jnp.asarray(shared, jnp.bfloat16)},
        "memory": rng.normal(size=(NODES, 7)).astype(np.float32),
        "step": np.full(NODES, seed, np.int32),
        "nothing": {},
        "empty": np.zeros((NODES, 0), np.float32),
    }


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_a_state_comes_back_bit_for_bit_and_what_is_the_same_is_written_once(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.step() == 0
    mesh = Mesh(np.array(jax.devices()[:NODES]), ("nodes",))
    spread = NamedSharding(mesh, PartitionSpec("nodes"))
    for step, given in ((3, state(3)), (7, jax.device_put(state(7), spread))):
        checkpoints.save(step, given)
        checkpoints.wait()
        assert checkpoints.step() == newest(tmp_path) == step
        assert bits(checkpoints.restore(step, state(9))) == bits(state(step))
    there = checkpoints._orbax.metadata(tmp_path / "7").item_metadata.tree
    shapes = {
        "w": there["params"]["w"].shape,
        "zeros": there["params"]["zeros"].shape,
        "memory": there["memory"].shape,
        "step": there["step"].shape,
    }
    assert shapes == {"w": (5, 3), "zeros": (NODES, 2), "memory": (NODES, 7), "step": ()}
    assert [path.name for path in tmp_path.iterdir()] == ["7"]
    assert checkpoints.cost > 0
    checkpoints.close()


def test_what_was_left_of_a_checkpoint_is_never_read_and_goes(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state(2))
    checkpoints.close()
    for name in ("4.orbax-checkpoint-tmp-1", "1", "notes"):
        (tmp_path / name).mkdir()
    assert newest(tmp_path) == 2
    again = Checkpoints(tmp_path)
    # What is not ours stays.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "notes"]
    assert bits(again.restore(2, state(9))) == bits(state(2))


@pytest.mark.parametrize(
    "other",
    [
        lambda tree: tree | {"more": tree["memory"]},
        lambda tree: tree | {"memory": tree["memory"][:, :6]},
        lambda tree: tree | {"memory": tree["memory"].astype(np.float16)},
        lambda tree: jax.tree.map(lambda leaf: leaf[:3], tree),
    ],
)
def test_the_checkpoint_of_another_state_is_refused(tmp_path, other):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state(2))
    checkpoints.wait()
    with pytest.raises(ValueError, match=r"^`out` must hold checkpoints of this job, but got"):
        checkpoints.restore(2, other(state(2)))


def test_the_interval_is_that_of_daly_and_loses_the_least():
    assert checkpoint_interval(0.5, 600.0) == pytest.approx(24.162698118, abs=1e-9)
    # Not below the mean time that a checkpoint would cost.
    assert checkpoint_interval(20.0, 10.0) == 10.0
    assert checkpoint_interval(500.0, 10.0) == 10.0

    def seconds(work, cost, mean_time):
        """Of a second of work, in all, where failures are Poisson and each loses the segment."""
        return mean_time * math.expm1((work + cost) / mean_time) / work

    for cost, mean_time in ((0.5, 600.0), (3.0, 50.0), (1.0, 1e5)):
        chosen = checkpoint_interval(cost, mean_time)
        times = np.geomspace(cost / 10, 10 * mean_time, 20_001)
        best = min(seconds(work, cost, mean_time) for work in times)
        assert seconds(chosen, cost, mean_time) < best * (1 + 1e-6)


@pytest.mark.parametrize("arguments", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, math.inf)])
def test_times_that_are_not_positive_are_refused(arguments):
    with pytest.raises(ValueError, match=r"^`(cost|mean_time)` must "):
        checkpoint_interval(*arguments)


def written_after(config, seconds_each, cost):
    """The steps after which checkpoints are due, on a clock of our own."""
    clock, found = [0.0], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.time, "monotonic", lambda: clock[0])
        due = loop.Due(config, 0)
        for done in range(1, config.steps + 1):
            clock[0] += seconds_each if done > 1 else 100.0  # the first step compiles
            if due(done):
                clock[0] += cost
                found.append(done)
                due.saved(done, cost)
    return found


def test_checkpoints_are_due_with_evaluations_as_told_or_by_what_they_cost():
    config = TrainConfig(steps=200, eval_every=80)
    assert written_after(config, 1.0, 0.5) == [80, 160, 200]
    often = dataclasses.replace(config, checkpoint_every=75)
    assert written_after(often, 1.0, 0.5) == [75, 150, 200]
    failing = dataclasses.replace(config, mean_time_between_failures=600.0)
    # 24.16 s by Daly, after a first one that is measured.
    assert written_after(failing, 1.0, 0.5) == [16, *range(40, 200, 24), 200]
    assert written_after(failing, 8.0, 0.5) == [*range(16, 200, 3), 200]
    with pytest.raises(ValueError, match=r"^`checkpoint_every` must be left out where mean_time"):
        dataclasses.replace(failing, checkpoint_every=3)
    with pytest.raises(ValueError, match=r"^`mean_time_between_failures` must "):
        dataclasses.replace(config, mean_time_between_failures=0.0)
