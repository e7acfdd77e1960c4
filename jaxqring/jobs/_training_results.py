"""The result of a run of a training job, from the lines of its metrics."""

from typing import Any

import jax
import numpy as np

from jaxqring._files import total
from jaxqring._types import PyTree
from jaxqring.codec import Float32
from jaxqring.ring import Ring

#: The lines of a run in `metrics.jsonl`.
Lines = list[dict[str, Any]]


def summarize(
    lines: Lines, ring: Ring | None, count: int, num_nodes: int, resync_bits: int
) -> dict[str, Any]:
    """The entries of a result that follow from the metrics of a run.

    Args:
      lines: one for each step. Counters that lines of an earlier version lack are read as zero.
      ring: of the run; None for a classical one.
      count: parameters of the model.
      num_nodes: N, the nodes of the ring.
      resync_bits: over each link for all resynchronisations.
    """
    agreement = [line["replica_agreement"] for line in lines if "replica_agreement" in line]
    return {
        **traffic(ring, count, num_nodes, lines),
        "resync_bits_per_link": resync_bits,
        "symbol_errors": total(lines, "symbol_errors"),
        "symbol_error_rate": _error_rate(lines, ring, count, num_nodes),
        "replica_agreement": float(np.mean(agreement)) if agreement else None,
        "replica_drift": lines[-1].get("replica_drift"),
    }


def traffic(ring: Ring | None, count: int, num_nodes: int, lines: Lines) -> dict[str, Any]:
    """Online traffic per link and step; a classical run sends float32 bits round the same ring.

    Qubits include repetitions, in the mean over links and steps. The net rate is that of payload
    in codewords that arrived, all codewords of a message taken for equally long (the last may hold
    less); of unprotected noisy links no bit is certain, and it is None.
    """
    lost = total(lines, "undelivered")
    if ring is None:
        cost = Ring(wire=Float32(), noise="off").cost(count, num_nodes)
        qubits, net, ceiling = 0.0, None, None
    else:
        cost = ring.cost(count, num_nodes)
        repeated = total(lines, "repeated_qubits")
        qubits = cost.qubits + repeated / (num_nodes * max(len(lines), 1))
        ceiling = 2.0
        if ring.noise != "off" and ring.channel is not None:
            ceiling = float(ring.channel.scrambled().capacity())
        net = None
        if ring.delivers_exactly and qubits:
            codewords = max(cost.codewords * num_nodes * len(lines), 1)
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
    size = sum(leaf[0].size for leaf in floats)
    return Ring(wire=Float32(), noise="off").cost(size, num_nodes).bits * times


def _error_rate(lines: Lines, ring: Ring | None, count: int, num_nodes: int) -> float:
    """Symbol errors per symbol sent over the whole run; zero where no symbol was sent."""
    if ring is None:
        return 0.0
    sent = ring.cost(count, num_nodes).symbols * num_nodes * len(lines)
    return total(lines, "symbol_errors") / sent if sent else 0.0
