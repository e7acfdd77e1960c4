"""The result of a run of a training job, from the lines of its metrics."""

import math
from typing import Any

import jax
import numpy as np

from jaxqring._files import total
from jaxqring._types import PyTree
from jaxqring.codec import FixedPoint, Float32
from jaxqring.compress import Compressor
from jaxqring.compress._message import sizes_of
from jaxqring.jobs._training_config import RunConfig
from jaxqring.ring import Cost, Ring

#: The lines of a run in `metrics.jsonl`.
Lines = list[dict[str, Any]]


def cost_of(
    ring: Ring | None, compressor: Compressor | None, params: PyTree, num_nodes: int
) -> Cost:
    """The cost of a step; a classical run sends float32 bits round the same ring.

    Args:
      ring: of the run; None for a classical one.
      compressor: of the run; None for gradients as they are.
      params: pytree of the shapes of one replica.
      num_nodes: N, the nodes of the ring.
    """
    if ring is not None and compressor is not None:
        return compressor.cost(ring, params, num_nodes)
    count = sum(sizes_of(params))
    return (Ring(wire=Float32(), noise="off") if ring is None else ring).cost(count, num_nodes)


def sums_of(run: RunConfig, params: PyTree, num_nodes: int) -> list[tuple[int, int]]:
    """The size and the bits of every collective of a step of a run with a fixed wire."""
    compressor, wire = run.compressor(), run.wire_format()
    if compressor is None:
        return [(sum(sizes_of(params)), run.bits)]
    assert isinstance(wire, FixedPoint)  # RunConfig has refused others
    return [(size, bits) for _, size, bits in compressor.messages(params, num_nodes, wire)]


def summarize(lines: Lines, ring: Ring | None, cost: Cost, resync_bits: int) -> dict[str, Any]:
    """The entries of a result that follow from the metrics of a run.

    Args:
      lines: one for each step. Counters that lines of an earlier version lack are read as zero.
      ring: of the run; None for a classical one.
      cost: of a step.
      resync_bits: over each link for all resynchronisations.
    """
    agreement = [line["replica_agreement"] for line in lines if "replica_agreement" in line]
    return {
        **traffic(ring, cost, lines),
        "resync_bits_per_link": resync_bits,
        "symbol_errors": total(lines, "symbol_errors"),
        "symbol_error_rate": _error_rate(lines, ring, cost),
        "replica_agreement": float(np.mean(agreement)) if agreement else None,
        "replica_drift": lines[-1].get("replica_drift"),
    }


def of_compression(lines: Lines, cost: Cost) -> dict[str, Any]:
    """The further entries of a run whose gradients are compressed."""
    return {
        "control_bits_per_link_step": cost.control_bits,
        "out_of_range": total(lines, "out_of_range"),
    }


def traffic(ring: Ring | None, cost: Cost, lines: Lines) -> dict[str, Any]:
    """Online traffic per link and step.

    Qubits include repetitions, in the mean over links and steps. The net rate is that of payload
    in codewords that arrived, all codewords of a message taken for equally long (the last may hold
    less); of unprotected noisy links no bit is certain, and it is None.
    """
    lost = total(lines, "undelivered")
    if ring is None:
        qubits, net, ceiling = 0.0, None, None
    else:
        repeated = total(lines, "repeated_qubits")
        qubits = cost.qubits + repeated / (cost.num_nodes * max(len(lines), 1))
        ceiling = 2.0
        if ring.noise != "off" and ring.channel is not None:
            ceiling = float(ring.channel.scrambled().capacity())
        net = None
        if ring.delivers_exactly and qubits:
            codewords = max(cost.codewords * cost.num_nodes * len(lines), 1)
            net = cost.bits * (1 - lost / codewords) / qubits
    return {
        "online_bits_per_link_step": cost.bits,
        "online_qubits_per_link_step": round(qubits),
        "epr_pairs_per_link_step": round(qubits),
        "net_bits_per_online_qubit": net,
        "capacity_bits_per_online_qubit": ceiling,
        "retransmissions": total(lines, "retransmissions"),
        "undelivered": lost,
    }


def resync_bits(state: PyTree, num_nodes: int, times: int) -> int:
    """Classical bits over each link for resynchronisations, by a ring all-reduce of float32.

    Args:
      state: whose floating arrays are averaged, with a leading axis of nodes.
      num_nodes: N, the nodes of the ring.
      times: number of resynchronisations.
    """
    if not times:
        return 0
    floats = [x for x in jax.tree.leaves(state) if np.issubdtype(x.dtype, np.floating)]
    size = sum(math.prod(leaf.shape[1:]) for leaf in floats)
    return Ring(wire=Float32(), noise="off").cost(size, num_nodes).bits * times


def _error_rate(lines: Lines, ring: Ring | None, cost: Cost) -> float:
    """Symbol errors per symbol sent over the whole run; zero where no symbol was sent."""
    if ring is None:
        return 0.0
    sent = cost.symbols * cost.num_nodes * len(lines)
    return total(lines, "symbol_errors") / sent if sent else 0.0
