"""The placement of a job: the devices of its nodes, and the mapping over them."""

import dataclasses
from typing import get_args

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxqring import _checks as checks
from jaxqring._types import MappingChoice, NodeMapping
from jaxqring.train._objective import AXIS

#: Mappings of a function of one node over all of them.
MAPPINGS = get_args(NodeMapping)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices of a job, all of one platform.

    Attributes:
      mapping: "pmap" or "shard_map", with a device for each node; "vmap", with one for all.
      devices: one for each node, or one.
      nodes: N, the nodes of the ring.
      processes: whose devices these are, in their order and equally many of each.
    """

    mapping: NodeMapping
    devices: tuple[jax.Device, ...]
    nodes: int
    processes: int = 1

    @property
    def platform(self) -> str:
        return self.devices[0].platform

    @property
    def runs_ahead(self) -> bool:
        """True if a step may be handed to the devices while the one before it runs.

        Virtual devices of one host share its threads: a node that runs ahead into the next
        collective can starve one that has not finished this step.
        """
        return self.mapping == "vmap" or self.platform != "cpu"

    @property
    def rows(self) -> slice:
        """The nodes that the devices of this process carry."""
        if self.processes == 1:
            return slice(0, self.nodes)
        each, index = self.nodes // self.processes, jax.process_index()
        return slice(index * each, (index + 1) * each)

    @property
    def sharding(self) -> NamedSharding | None:
        """Of arrays with a leading axis of nodes under "shard_map"; None under other mappings."""
        if self.mapping != "shard_map":
            return None
        return NamedSharding(Mesh(np.array(self.devices), (AXIS,)), PartitionSpec(AXIS))

    def of(self, nodes: int) -> "Placement":
        """The placement of fewer nodes, on the first devices of each process."""
        if self.mapping == "vmap":
            return dataclasses.replace(self, nodes=nodes)
        have, each = self.nodes // self.processes, nodes // self.processes
        devices = [self.devices[p * have + i] for p in range(self.processes) for i in range(each)]
        return dataclasses.replace(self, nodes=nodes, devices=tuple(devices))

    def __str__(self) -> str:
        kind = self.devices[0].device_kind
        named = "" if kind == self.platform else f" ({kind})"
        shared = f" for all {self.nodes} nodes" if self.mapping == "vmap" else ", one for each node"
        where = _counted(len(self.devices)) + named + shared
        of = f" of {self.processes} processes" if self.processes > 1 else ""
        return f"platform {self.platform}, {where}{of}, mapping {self.mapping}"


def _counted(devices: int) -> str:
    return f"{devices} device" + ("s" if devices > 1 else "")


def choose_mapping(
    wanted: MappingChoice, platform: str, devices: int, num_nodes: int
) -> NodeMapping:
    """The mapping of a job, on the platform that JAX chooses and on no other.

    Args:
      wanted: "pmap", "shard_map", "vmap", or "auto" for the first of these on the host and where
        each node has an accelerator, and the last on fewer accelerators.
      platform: of the devices, "cpu" or another.
      devices: number of them.
      num_nodes: N, the nodes of the ring.

    Returns:
      "pmap", "shard_map" or "vmap".

    Raises:
      ValueError: if there are fewer devices than nodes, where each needs one.

    >>> choose_mapping("auto", "gpu", devices=1, num_nodes=8)
    'vmap'
    >>> choose_mapping("auto", "cpu", devices=8, num_nodes=8)
    'pmap'
    """
    checks.one_of("mapping", wanted, get_args(MappingChoice))
    if wanted == "vmap" or (wanted == "auto" and platform != "cpu" and devices < num_nodes):
        return "vmap"
    if devices < num_nodes and platform == "cpu":
        rule = f"be at most the {_counted(devices)} of the host, for each to have one"
        remedy = 'jax_num_cpu_devices sets how many there are, mapping = "vmap" takes one for all'
        checks.refuse("nodes", f"{rule} ({remedy})", num_nodes)
    if devices < num_nodes:
        there = f"{_counted(devices)} of platform {platform}"
        rule = f'be "auto" or "vmap" for {num_nodes} nodes on {there}'
        checks.refuse("mapping", rule + " (JAX_PLATFORMS=cpu takes devices of the host)", wanted)
    return "pmap" if wanted == "auto" else wanted


def place(wanted: MappingChoice, num_nodes: int) -> Placement:
    """Puts the nodes of a job on the devices of the platform that JAX chooses.

    Raises:
      ValueError: as `choose_mapping` and `check_processes`.
    """
    processes = jax.process_count()
    if processes > 1:
        return _over_processes(wanted, num_nodes, processes)
    devices = jax.devices()
    mapping = choose_mapping(wanted, devices[0].platform, len(devices), num_nodes)
    used = devices[: 1 if mapping == "vmap" else num_nodes]
    return Placement(mapping, tuple(used), num_nodes)


def check_processes(wanted: MappingChoice, num_nodes: int, processes: int) -> None:
    """Refuses processes that cannot carry the nodes of a job together.

    Raises:
      ValueError: if they do not carry equally many, or the mapping is not for several processes.
    """
    if num_nodes % processes:
        rule = f"divide the {num_nodes} nodes, of which each carries as many"
        checks.refuse("processes", rule, processes)
    if processes > 1 and wanted not in ("auto", "shard_map"):
        checks.refuse("mapping", 'be "auto" or "shard_map" over several processes', wanted)


def _over_processes(wanted: MappingChoice, num_nodes: int, processes: int) -> Placement:
    check_processes(wanted, num_nodes, processes)
    each, devices = num_nodes // processes, jax.devices()
    of_process: list[list[jax.Device]] = [[] for _ in range(processes)]
    for device in devices:
        of_process[device.process_index].append(device)
    fewest = min(map(len, of_process))
    if fewest < each:
        rule = f"be at most {fewest * processes}, with {_counted(fewest)} of a process"
        checks.refuse("nodes", rule, num_nodes)
    used = [device for own in of_process for device in own[:each]]
    return Placement("shard_map", tuple(used), num_nodes, processes)
