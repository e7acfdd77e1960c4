"""The processes of a job: how one finds the others, and what they know in common.

A process learns of the others from its environment, in this order:

* `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, as torchrun sets them, and
  `jaxqring.launch.supervise`;
* the variables of SLURM within `srun`, which JAX reads.

Without either it is alone.
"""

import dataclasses
import os
import socket
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.launch._supervisor import follow_parent

#: Seconds of silence after which a process counts as lost.
HEARTBEAT = 20

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclasses.dataclass(frozen=True)
class World:
    """The place of a process among those of its job.

    Attributes:
      index: of this process, counted from 0.
      count: of all.
      address: "host:port" at which the first process coordinates the others; None where JAX
        finds it by itself, or nobody is to be found.
    """

    index: int = 0
    count: int = 1
    address: str | None = None


def world(environment: Mapping[str, str]) -> World:
    """The place that an environment gives to a process.

    Raises:
      ValueError: if some of `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` are missing, or
        are not numbers that go together.

    >>> names = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    >>> world(names)
    World(index=1, count=2, address='10.0.0.1:1234')
    """
    given = [name for name in _VARIABLES if name in environment]
    if given and int_of(environment, "WORLD_SIZE", "1") > 1:
        missing = [name for name in _VARIABLES if name not in environment]
        if missing:
            checks.refuse(missing[0], f"be set where {given[0]} is", None)
        index, count = int_of(environment, "RANK"), int_of(environment, "WORLD_SIZE")
        port = int_of(environment, "MASTER_PORT")
        if index >= count:
            checks.refuse("RANK", f"be below WORLD_SIZE = {count}", index)
        return World(index, count, f"{environment['MASTER_ADDR']}:{port}")
    if "SLURM_STEP_NODELIST" in environment:
        count = int_of(environment, "SLURM_NTASKS", "1")
        return World(int_of(environment, "SLURM_PROCID", "0"), count)
    return World()


def int_of(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    """The count that a variable holds.

    Raises:
      ValueError: if it holds something else.
    """
    text = environment.get(name, default)
    if text is None or not text.isdecimal():
        checks.refuse(name, "be a whole number that is not negative", text)
    return int(text)


def initialize(heartbeat: int = HEARTBEAT, *, preemption: bool = False) -> World:
    """Joins the other processes of the job that the environment names, if any.

    Call it before anything that touches a device. A process that is lost is noticed after
    `heartbeat` seconds of silence; JAX then ends the others. A process that `supervise` has started
    ends with its parent from here on.

    Args:
      heartbeat: in seconds, at least 1.
      preemption: if true, SIGTERM does not end a process that has joined others. It is taken for a
        request that the program has to meet, as `jaxqring train` does, by
        `jax.experimental.multihost_utils.reached_preemption_sync_point`.

    Returns:
      The place of this process.

    Raises:
      ValueError: if the environment contradicts itself, or the port of the first process is in
        use.

    >>> initialize().count
    1
    """
    checks.integer("heartbeat", heartbeat)
    follow_parent()
    place = world(os.environ)
    if place.count == 1:
        return place
    # With its service, JAX swallows SIGTERM even where nobody asks for preemptions.
    jax.config.update("jax_enable_preemption_service", preemption)
    if place.address is None:
        jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)
        return place
    if place.index == 0:
        _check_port(place.address)
    jax.distributed.initialize(
        place.address, place.count, place.index, heartbeat_timeout_seconds=heartbeat
    )
    return place


def _check_port(address: str) -> None:
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            checks.refuse("MASTER_PORT", "be free on the first process", f"{port} ({error})")


def is_first() -> bool:
    """True on the process that prints, draws and writes."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Waits until every process has come to the point of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def of_first(value: int) -> int:
    """The number that the first process has; all have to call it."""
    if jax.process_count() == 1:
        return int(value)
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def gathered(tree: PyTree) -> PyTree:
    """NumPy arrays of the whole of every array, on every process.

    Where arrays are spread over processes, all have to call it.
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    # A device that ran ahead into the next collective could starve one that has not come here.
    jax.block_until_ready(tree)

    def whole(leaf: jax.Array | np.ndarray) -> np.ndarray:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(whole, tree)
