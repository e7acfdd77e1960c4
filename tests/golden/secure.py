"""Secure collectives over wires, links, sources and policies, each under some mapping."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import jaxqring as jq
from golden.collectives import AXIS, LINKS, NODES, WIRES, link, on_nodes
from golden.record import Group


class Case(NamedTuple):
    """A secure collective, and whether it is run each time."""

    function: Callable
    wire: str
    link: str
    mapping: str
    source: jq.GHZSource | jq.secure.PlantedSource
    security: jq.secure.Security
    dropout: jq.secure.Dropout | None = None
    often: bool = False


def noisy(error_prob: float) -> jq.GHZSource:
    """States whose sums of masks are wrong at times, and that no Z test finds."""
    return jq.GHZSource(NODES, noise=jq.dephasing(error_prob=error_prob))


PLANTED = jq.secure.PlantedSource(noisy(0.0), jq.secure.plus_states(NODES), 2)
BARE = jq.secure.Security("none")
MIXED = jq.secure.Security("none", tests="mixed", tolerance=0.2, correction=jq.codes.bch(15, 7, 2))
CASES = {
    "secure_psum | fixed16 | off | buckets": Case(
        jq.secure_psum, "fixed16", "off", "vmap", noisy(1e-3), jq.secure.Security(), often=True
    ),
    "secure_pmean | fixed8 | sampled | spare copies": Case(
        jq.secure_pmean,
        "fixed8",
        "sampled",
        "shard_map_checked",
        noisy(1e-3),
        BARE,
        jq.secure.Dropout(0.1, "spare"),
    ),
    "secure_psum | fixed24 | retransmit | corrected": Case(
        jq.secure_psum, "fixed24", "retransmit", "pmap", noisy(5e-4), MIXED
    ),
    "secure_pmean | fixed16 payload | sampled | planted": Case(
        jq.secure_pmean, "fixed16 payload", "sampled", "shard_map_unchecked", PLANTED, BARE
    ),
    "secure_psum | fixed16 runs of 3 | unequal | aborted after restarts": Case(
        jq.secure_psum,
        "fixed16 runs of 3",
        "unequal",
        "nodes_per_device",
        noisy(1e-3),
        BARE,
        jq.secure.Dropout(0.1, "restart"),
    ),
    "secure_pmean | fixed16 stochastic | ideal | buckets": Case(
        jq.secure_pmean, "fixed16 stochastic", "ideal", "pmap", noisy(1e-3), jq.secure.Security()
    ),
}


def output(case: Case, mapping: str, mapping_named: Callable) -> Any:
    def run(x: Any, ring: jq.Ring, key: jax.Array) -> Any:
        options = {"source": case.source, "security": case.security, "dropout": case.dropout}
        return case.function(x, AXIS, ring=ring, key=key, with_report=True, **options)

    ring = jq.Ring(link(), WIRES[case.wire], **LINKS[case.link])
    return on_nodes(mapping_named, mapping, run, ring)


def outputs(mapping_named: Callable, often: bool) -> dict[str, Any]:
    return {
        name: output(case, case.mapping, mapping_named)
        for name, case in CASES.items()
        if case.often == often
    }


def under(mapping_named: Callable, mapping: str) -> dict[str, Any]:
    """Outputs of the cases that are run each time, under a mapping that is not theirs."""
    return {
        name: output(case, mapping, mapping_named)
        for name, case in CASES.items()
        if case.often and case.mapping != mapping
    }


GROUPS = {
    "secure collectives": Group(functools.partial(outputs, often=True), True),
    "secure collectives, the others": Group(functools.partial(outputs, often=False), True, True),
}
