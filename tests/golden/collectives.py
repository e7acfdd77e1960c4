"""Collectives over wires, kinds of noise and protections, each under some mapping.

Every wire is there with every kind of noise, and with protected links three wires of different
widths and those of the diagonal. The collective and the mapping turn with both, in Latin squares of
five, so that each kind of noise meets all of them, and so does each wire.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxqring as jq
from golden.record import Group

AXIS = "nodes"
NODES = 4
KEY = jax.random.key(20261126)
#: The last one carries two nodes on each of two devices.
MAPPINGS = ("vmap", "pmap", "shard_map_checked", "shard_map_unchecked", "nodes_per_device")
SMALL = jq.reed_solomon(15, 11, symbol_bits=4)
REPEATED = jq.Retransmit(SMALL, 2, 2)

WIRES = {
    "fixed8": jq.FixedPoint(8),
    "fixed16": jq.FixedPoint(16),
    "fixed24": jq.FixedPoint(24),
    "fixed16 payload": jq.FixedPoint(16, scale="payload", non_finite="clip"),
    "fixed16 runs of 3": jq.FixedPoint(16, scale=3),
    "fixed16 stochastic": jq.FixedPoint(16, rounding="stochastic"),
    "fixed16 clip 1.5": jq.FixedPoint(16, clip=1.5, non_finite="clip"),
    "float32": jq.Float32(),
    "bfloat16": jq.BFloat16(),
}
LINKS: dict[str, dict[str, Any]] = {
    "reed_solomon": {"protection": SMALL},
    "off": {"noise": "off"},
    "gaussian": {"noise": "gaussian"},
    "unequal": {"protection": jq.codes.Unequal(REPEATED, 3)},
    "mean": {"noise": "mean"},
    "symbol by symbol": {"protection": REPEATED, "simulate": "symbol"},
    "ideal": {"protection": jq.codes.IdealCode(0.1)},
    "retransmit": {"protection": REPEATED},
    "sampled": {},
}
ON_CODES = ("gaussian", "mean", "unequal")  # FixedPoint wires alone have them
EVERYWHERE = ("sampled", "unequal", "retransmit")  # those of the diagonal, under every mapping
PROTECTED = ("fixed16", "fixed24", "float32")  # with every protection


def payload() -> dict[str, jax.Array]:
    """28 float32 values and 8 of bfloat16 on each node, with an infinity among them."""
    rng = np.random.default_rng(20261126)
    large = rng.normal(size=(NODES, 4, 6)).astype(np.float32)
    small = (1e-3 * rng.normal(size=(NODES, 4))).astype(np.float32)
    small[1, 2] = np.inf
    narrow = jnp.asarray(rng.normal(size=(NODES, 8)).astype(np.float32)).astype(jnp.bfloat16)
    return {"large": jnp.asarray(large), "small": jnp.asarray(small), "narrow": narrow}


def link(errors: Any = (0.01, 0.02, 0.04, 0.08)) -> jq.SymbolChannel:
    """Links without symmetry, of given probabilities of an error, from exact arithmetic alone."""
    errors = np.asarray(errors, np.float64)[..., None, None]
    kinds = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
    matrix = np.array([0, 0.5, 0.125, 0.375])[kinds] * errors + np.eye(4) * (1 - errors)
    return jq.SymbolChannel(jnp.asarray(matrix, jnp.float32))


def run_psum(x: Any, ring: jq.Ring, key: jax.Array) -> Any:
    return jq.psum(x, AXIS, ring=ring, key=key, with_report=True)


def run_pmean(x: Any, ring: jq.Ring, key: jax.Array) -> Any:
    return jq.pmean(x, AXIS, ring=ring, key=key, with_report=True)


def run_psum_scatter(x: Any, ring: jq.Ring, key: jax.Array) -> Any:
    return jq.psum_scatter(x, AXIS, ring=ring, key=key, tiled=True, with_report=True)


def run_all_gather(x: Any, ring: jq.Ring, key: jax.Array) -> Any:
    return jq.all_gather(x, AXIS, ring=ring, key=key, with_report=True)


def run_all_reduce(x: Any, ring: jq.Ring, key: jax.Array) -> Any:
    """The second update of a training."""
    optimizer = jq.all_reduce(ring, AXIS, key=key)
    return optimizer.update(x, optimizer.init(x)._replace(step=jnp.int32(1)))


COLLECTIVES = {
    "psum": run_psum,
    "pmean": run_pmean,
    "psum_scatter": run_psum_scatter,
    "all_gather": run_all_gather,
    "all_reduce": run_all_reduce,
}


class Case(NamedTuple):
    """One program: a collective over a ring under a mapping, and whether it is run each time."""

    name: str
    function: Callable
    ring: jq.Ring
    mapping: str
    often: bool


def cases() -> Iterator[Case]:
    """Every wire with every link."""
    for i, (wire, codes) in enumerate(WIRES.items()):
        for j, (kind, options) in enumerate(LINKS.items()):
            if kind in ON_CODES and not isinstance(codes, jq.FixedPoint):
                continue
            if "protection" in options and wire not in PROTECTED and i != j:
                continue
            collective = list(COLLECTIVES)[(i + j) % len(COLLECTIVES)]
            yield Case(
                f"{collective} | {wire} | {kind}",
                COLLECTIVES[collective],
                jq.Ring(link(), codes, **options),
                MAPPINGS[(i + 2 * j) % len(MAPPINGS)],
                i == j,
            )


def on_nodes(mapping_named: Callable, mapping: str, function: Callable, ring: jq.Ring) -> Any:
    """(values of all nodes, counts, which are the same on all of them) of a collective."""
    x, devices, name = payload(), NODES, mapping
    if mapping == "nodes_per_device":
        devices, name = NODES // 2, "pmap"
        ring = dataclasses.replace(ring, nodes_per_device=2)
        x = jax.tree.map(lambda leaf: leaf.reshape(devices, 2, *leaf.shape[1:]), x)
    values, counts = mapping_named(name)(function, devices, shared=2)(x, ring, KEY)
    if mapping == "nodes_per_device":
        values = jax.tree.map(lambda leaf: leaf.reshape(NODES, *leaf.shape[2:]), values)
    return values, jax.tree.map(functools.partial(_same, devices), counts)


def _same(devices: int, leaf: jax.Array) -> np.ndarray:
    """The value that all devices hold, after a check that they do."""
    everywhere = np.asarray(leaf)
    assert everywhere.shape[0] == devices
    assert (everywhere == everywhere[:1]).all()
    return everywhere[0]


def outputs(mapping_named: Callable, wanted: Callable[[Case], bool]) -> dict[str, Any]:
    """Outputs of the wanted cases by name, each under its own mapping."""
    return {
        case.name: on_nodes(mapping_named, case.mapping, case.function, case.ring)
        for case in cases()
        if wanted(case)
    }


def under(mapping_named: Callable, mapping: str) -> dict[str, Any]:
    """Outputs of some cases that are run each time, under a mapping that is not theirs."""
    return {
        case.name: on_nodes(mapping_named, mapping, case.function, case.ring)
        for case in cases()
        if case.often and case.mapping != mapping and case.name.split(" | ")[2] in EVERYWHERE
    }


def _of_wire(wire: str) -> Callable[[Callable], dict[str, Any]]:
    def wanted(case: Case) -> bool:
        return not case.often and case.name.split(" | ")[1] == wire

    return functools.partial(outputs, wanted=wanted)


GROUPS = {"collectives": Group(functools.partial(outputs, wanted=lambda case: case.often), True)}
GROUPS |= {f"collectives, {wire}": Group(_of_wire(wire), True, matrix=True) for wire in WIRES}
