"""The place of a process among those of its job."""

import socket

import jax
import numpy as np
import pytest

from jaxqring.launch import World, initialize
from jaxqring.launch import _processes as processes
from jaxqring.launch._processes import gathered, is_first, wait_for_all, world
from jaxqring.train._placement import check_processes

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
SLURM = {"SLURM_STEP_NODELIST": "node[0-1]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}


def test_a_process_is_alone_unless_its_environment_names_others():
    alone = ({}, {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1"})
    # Within an allocation of SLURM, and not within srun.
    for environment in (*alone, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}):
        assert world(environment) == World(0, 1, None)


def test_others_are_found_by_the_variables_of_torchrun_and_of_slurm():
    assert world(TORCHRUN) == World(1, 4, "node0:29500")
    assert world(SLURM) == World(1, 2, None)
    assert world(SLURM | TORCHRUN) == World(1, 4, "node0:29500")


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_variables_that_are_missing_are_named(missing):
    environment = {name: value for name, value in TORCHRUN.items() if name != missing}
    with pytest.raises(ValueError, match=rf"^`{missing}` must be set where "):
        world(environment)


@pytest.mark.parametrize(
    "name, value, rule",
    [
        ("RANK", "-1", "be a whole number"),
        ("RANK", "4", "be below WORLD_SIZE = 4"),
        ("WORLD_SIZE", "two", "be a whole number"),
        ("MASTER_PORT", "", "be a whole number"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(name, value, rule):
    with pytest.raises(ValueError, match=f"^`{name}` must {rule}"):
        world(TORCHRUN | {name: value})


def test_jax_is_told_what_the_environment_says(monkeypatch):
    told = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *given, **named: told.append((given, named))
    )
    monkeypatch.setattr(processes.jax.config, "update", lambda name, value: None)
    for environment in (TORCHRUN, SLURM, {}):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            initialize(heartbeat=7)
    beat = {"heartbeat_timeout_seconds": 7}
    assert told == [(("node0:29500", 4, 1), beat), ((), beat)]


def test_a_port_in_use_is_refused_before_anything_starts(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in (TORCHRUN | {"RANK": "0", "MASTER_ADDR": "127.0.0.1"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MASTER_PORT", port)
        monkeypatch.setattr(processes.jax.config, "update", lambda name, value: None)
        with pytest.raises(ValueError, match=f"^`MASTER_PORT` must be free .* got '{port}"):
            initialize()


def test_a_process_alone_is_the_first_waits_for_nobody_and_has_everything():
    assert is_first()
    wait_for_all("nothing")
    tree = {"a": jax.numpy.arange(3), "b": np.ones(2)}
    whole = gathered(tree)
    assert isinstance(whole["a"], np.ndarray)
    np.testing.assert_array_equal(whole["a"], [0, 1, 2])


def test_processes_that_cannot_carry_the_nodes_together_are_refused():
    check_processes("pmap", 4, 1)
    check_processes("auto", 4, 2)
    check_processes("shard_map", 4, 4)
    with pytest.raises(ValueError, match=r"^`processes` must divide the 4 nodes, .*got 3"):
        check_processes("auto", 4, 3)
    for mapping in ("pmap", "vmap"):
        with pytest.raises(ValueError, match=r"^`mapping` must be \"auto\" or \"shard_map\" over"):
            check_processes(mapping, 4, 2)
