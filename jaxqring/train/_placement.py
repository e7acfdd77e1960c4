"""The placement of a job: the devices of its nodes, and the mapping over them."""

import dataclasses
from typing import get_args

import jax

from jaxqring import _checks as checks
from jaxqring._types import MappingChoice, NodeMapping

#: Mappings of a function of one node over all of them.
MAPPINGS = get_args(NodeMapping)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices of a job, all of one platform.

    Attributes:
      mapping: "pmap" or "shard_map", with a device for each node; "vmap", with one for all.
      devices: one for each node, or one.
      nodes: N, the nodes of the ring.
    """

    mapping: NodeMapping
    devices: tuple[jax.Device, ...]
    nodes: int

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

    def __str__(self) -> str:
        kind = self.devices[0].device_kind
        named = "" if kind == self.platform else f" ({kind})"
        shared = f" for all {self.nodes} nodes" if self.mapping == "vmap" else ", one for each node"
        where = _counted(len(self.devices)) + named + shared
        return f"platform {self.platform}, {where}, mapping {self.mapping}"


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
      ValueError: as `choose_mapping`.
    """
    devices = jax.devices()
    mapping = choose_mapping(wanted, devices[0].platform, len(devices), num_nodes)
    used = devices[: 1 if mapping == "vmap" else num_nodes]
    return Placement(mapping, tuple(used), num_nodes)
