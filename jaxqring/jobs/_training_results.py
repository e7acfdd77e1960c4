"""The result of a run of a training job, from the lines of its metrics."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxqring._files import total
from jaxqring._types import PyTree
from jaxqring.codec import FixedPoint, Float32
from jaxqring.compress._message import sizes_of
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._step_costs import cost_of
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Cost, Ring
from jaxqring.secure import Security, epsilon
from jaxqring.train._membership import Period

#: The lines of a run in `metrics.jsonl`.
Lines = list[dict[str, Any]]


class Terms(NamedTuple):
    """The cost of a step of a run on N nodes, and the masks on what it sends.

    Attributes:
      cost: of a step, or of a round of an outer loop.
      sums: the sizes of its collectives, and their bits.
      source: of the GHZ states of a secure run; None for others.
      security: their verification; None for others.
      rings: under masks of their own, with a sum of each size: the groups of a robust mean.
    """

    cost: Cost
    sums: Sequence[tuple[int, int]]
    source: GHZSource | None
    security: Security | None
    rings: int = 1


def terms_of(run: RunConfig, config: TrainConfig, params: PyTree, num_nodes: int) -> Terms:
    """The terms of a run on so many nodes.

    Args:
      run: of the job.
      config: the job.
      params: pytree of the parameters of one node, or of their shapes.
      num_nodes: N, the nodes of the ring.

    Raises:
      ValueError: if the compressor cannot send the gradients over the links, or no verification
        meets the target of the masks.
    """
    cost = cost_of(run, params, num_nodes)
    sums = sums_of(run, params, num_nodes)
    if run.security is None:
        return Terms(cost, sums, None, None)
    parties = num_nodes if run.robust is None else run.robust.size
    source = run.security.source(parties, run.fidelity)
    security = run.security.build(source, sums, config.steps)
    return Terms(cost, sums, source, security, rings=num_nodes // parties)


class Part(NamedTuple):
    """The steps of a run on equally many nodes.

    Attributes:
      num_nodes: N, the nodes of the ring.
      terms: of the run on them.
      lines: their metrics.
      sends: the number of times that the cost was paid: of the steps, or of the rounds of a loop.
    """

    num_nodes: int
    terms: Terms
    lines: Lines
    sends: float


def parts_of(
    run: RunConfig, config: TrainConfig, lines: Lines, terms: Callable[[int], Terms]
) -> list[Part]:
    """The parts of a finished run, one for each of its periods.

    Args:
      run: of the job.
      config: the job.
      lines: one for each step. Counters that lines of an earlier version lack are read as zero.
      terms: of the run, by the number of nodes.
    """
    parts = []
    for period in config.periods(run):
        own = [line for line in lines if period.first < line["step"] <= period.end]
        own_terms, sends = terms(len(period.nodes)), float(len(own))
        if run.outer is not None and "bits_so_far" in own[-1]:
            sends = own[-1]["bits_so_far"] / max(own_terms.cost.bits, 1)
        elif run.outer is not None:
            sends = total(own, "rounds")
        parts.append(Part(len(period.nodes), own_terms, own, sends))
    return parts


def sums_of(run: RunConfig, params: PyTree, num_nodes: int) -> list[tuple[int, int]]:
    """The size and the bits of every collective of a step of a run with a fixed wire."""
    compressor, wire = run.compressor(), run.wire_format()
    if compressor is None:
        return [(sum(sizes_of(params)), run.bits)]
    assert isinstance(wire, FixedPoint)  # RunConfig has refused others
    return [(size, bits) for _, size, bits in compressor.messages(params, num_nodes, wire)]


def summarize(run: RunConfig, parts: Sequence[Part], resync_bits: int) -> dict[str, Any]:
    """The entries of a result that follow from the metrics of a run.

    Args:
      run: of the job.
      parts: of the run.
      resync_bits: over each link for all resynchronisations.
    """
    ring, lines = run.ring(), [line for part in parts for line in part.lines]
    agreement = [line["replica_agreement"] for line in lines if "replica_agreement" in line]
    return {
        **traffic(ring, parts),
        "resync_bits_per_link": resync_bits,
        "symbol_errors": total(lines, "symbol_errors"),
        "symbol_error_rate": _error_rate(ring, parts),
        "replica_agreement": float(np.mean(agreement)) if agreement else None,
        "replica_drift": lines[-1].get("replica_drift"),
    }


def of_compression(parts: Sequence[Part]) -> dict[str, Any]:
    """The further entries of a run whose gradients are compressed."""
    bits = _mean(parts, lambda part: part.terms.cost.control_bits)
    return {
        "control_bits_per_link_step": round(bits),
        "out_of_range": sum(total(part.lines, "out_of_range") for part in parts),
    }


def traffic(ring: Ring | None, parts: Sequence[Part]) -> dict[str, Any]:
    """Online traffic per link and step, in the mean over the steps.

    Qubits include repetitions, in the mean over links. The net rate is that of payload in codewords
    that arrived, all codewords of a message taken for equally long (the last may hold less); of
    unprotected noisy links no bit is certain, and it is None.
    """
    qubits, net, ceiling = 0.0, None, None
    if ring is not None:
        qubits, ceiling = _mean(parts, _qubits), 2.0
        if ring.noise != "off" and ring.channel is not None:
            ceiling = float(ring.channel.scrambled().capacity())
        if ring.delivers_exactly and qubits:
            net = _mean(parts, _bits_delivered) / qubits
    lines = [line for part in parts for line in part.lines]
    return {
        "online_bits_per_link_step": round(_mean(parts, lambda part: part.terms.cost.bits)),
        "online_qubits_per_link_step": round(qubits),
        "epr_pairs_per_link_step": round(qubits),
        "net_bits_per_online_qubit": net,
        "capacity_bits_per_online_qubit": ceiling,
        "retransmissions": total(lines, "retransmissions"),
        "undelivered": total(lines, "undelivered"),
    }


def _mean(parts: Sequence[Part], value: Callable[[Part], float]) -> float:
    """The mean over all steps of what each step, or each round, of a part takes."""
    steps = sum(len(part.lines) for part in parts)
    return sum(value(part) * (part.sends / max(steps, 1)) for part in parts)


def _qubits(part: Part) -> float:
    repeated = total(part.lines, "repeated_qubits")
    return part.terms.cost.qubits + repeated / (part.num_nodes * max(part.sends, 1))


def _bits_delivered(part: Part) -> float:
    cost = part.terms.cost
    codewords = max(cost.codewords * part.num_nodes * part.sends, 1)
    return cost.bits * (1 - total(part.lines, "undelivered") / codewords)


def resync_bits(run: RunConfig, periods: Sequence[Period], state: PyTree) -> int:
    """Classical bits over each link for resynchronisations, by a ring all-reduce of float32.

    Args:
      run: of the job.
      periods: of the run.
      state: whose floating arrays are averaged, with a leading axis of nodes.
    """
    if not run.resync_every:
        return 0
    floats = [x for x in jax.tree.leaves(state) if np.issubdtype(x.dtype, np.floating)]
    size, ring = (
        sum(math.prod(leaf.shape[1:]) for leaf in floats),
        Ring(wire=Float32(), noise="off"),
    )
    return sum(
        ring.cost(size, len(period.nodes)).bits
        * (period.end // run.resync_every - period.first // run.resync_every)
        for period in periods
    )


def _error_rate(ring: Ring | None, parts: Sequence[Part]) -> float:
    """Symbol errors per symbol sent over the whole run; zero where no symbol was sent."""
    if ring is None:
        return 0.0
    sent = sum(part.terms.cost.symbols * part.num_nodes * part.sends for part in parts)
    return sum(total(part.lines, "symbol_errors") for part in parts) / sent if sent else 0.0


def guarantees(parts: Sequence[Part]) -> dict[str, Any]:
    """The secrecy that a run guarantees, and the copies, attempts and sums that it took.

    The epsilons of all steps add up. Over several numbers of nodes, the entries that describe a
    step are those of the part whose masks hide the least.

    Args:
      parts: of a secure run.
    """
    masked = []
    for _, (_, sums, source, security, _), lines, _ in parts:
        assert source is not None
        assert security is not None
        sizes, bits = zip(*sums, strict=True)
        bound = epsilon(security, sizes, source, bits=bits, steps=max(len(lines), 1))
        masked.append((bound, source, security))
    bounds = [bound for bound, *_ in masked]
    bound, source, security = max(masked, key=lambda one: one[0].per_step)
    lines = [line for part in parts for line in part.lines]
    masks = sum(
        max(len(part.lines), 1)
        * max(sum(size for size, _ in part.terms.sums), 1)
        * part.terms.rings
        for part in parts
    )
    return {
        "epsilon_per_step": bound.per_step,
        "epsilon_total": sum(each.total for each in bounds),
        "is_vacuous": any(each.is_vacuous for each in bounds),
        "ghz_fidelity": float(source.fidelity),
        "amplification": security.amplification,
        "bucket": security.summed,
        "test_ratio": security.test_ratio,
        "tolerance": security.tolerance,
        "overhead": bound.overhead,
        "copies": total(lines, "ghz_copies"),
        "copies_per_step": float(np.mean([line.get("ghz_copies", 0) for line in lines])),
        "attempts": total(lines, "attempts"),
        "aborted_steps": total(lines, "aborted"),
        "skip_rate": bound.skip_rate,
        "abort_rate": bound.abort_rate,
        "wrong_sum_rate": total(lines, "wrong_sums") / masks,
        "uncorrected_sum_rate": total(lines, "uncorrected_sums") / masks,
    }
