"""Updates of one node: by the average of all gradients in every step, or by an outer loop."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState
from jax import lax

from jaxqring._types import Key, PyTree
from jaxqring.compress import Compressor, CompressReport, compressed_pmean
from jaxqring.outer import Loop, OuterState
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Report, Ring, pmean, replica_agreement
from jaxqring.secure import SecureReport, Security, secure_pmean
from jaxqring.train._objective import AXIS

#: (gradients, state, key, number of the step, the same on all nodes) -> (state, metrics).
Update = Callable[[PyTree, TrainState, Key, jax.Array], tuple[TrainState, dict[str, Any]]]

#: Whole numbers of a round that the state of a loop adds up.
_COUNTED = ("saturated", "out_of_range", "symbol_errors", "retransmissions", "undelivered")


class CompressedState(TrainState):
    """The state of a training whose gradients are compressed.

    Attributes:
      memory: of the compressor of this node, from step to step.
    """

    memory: PyTree


class LoopState(TrainState):
    """The state of a training by an outer loop, which has its optimizers.

    Attributes:
      outer: the state of the loop on this node.
    """

    outer: OuterState


class _Reduced(NamedTuple):
    """The result of an all-reduce.

    Attributes:
      gradients: the mean, or what a compressor delivers in its place.
      memory: of the compressor; None without one.
      counts: metrics of the all-reduce and of its masks.
      keep: takes the new and the old state to the old one where a secure step was aborted.
    """

    gradients: PyTree
    memory: PyTree
    counts: dict[str, Any]
    keep: Callable[[PyTree, PyTree], PyTree] | None = None


def averaged(
    ring: Ring | None,
    source: GHZSource | None = None,
    security: Security | None = None,
    compressor: Compressor | None = None,
) -> Update:
    """An update by the average of the gradients of all nodes.

    A secure step whose GHZ states fail verification changes neither parameters nor optimizer nor
    the memory of a compressor, but is counted, so that the next one has fresh states.

    Args:
      ring: that averages; None for `lax.pmean` in float32.
      source: of GHZ states, for a secure average.
      security: their verification; given with `source`.
      compressor: of the gradients; the state is a `CompressedState` then.
    """

    def reduced(gradients: PyTree, state: TrainState, key: Key) -> _Reduced:
        if ring is None:
            gradients = lax.pmean(gradients, AXIS)
            agreement = replica_agreement(gradients, AXIS)
            return _Reduced(gradients, None, {"replica_agreement": agreement})
        step_key = jax.random.fold_in(key, state.step)
        if compressor is not None:
            masked = {"source": source, "security": security}
            assert isinstance(state, CompressedState)
            return _compressed(gradients, state.memory, step_key, compressor, ring, masked)
        assert isinstance(ring, Ring)
        if source is None or security is None:
            gradients, report = pmean(gradients, AXIS, ring=ring, key=step_key, with_report=True)
            return _Reduced(gradients, None, _counts(report))
        gradients, secure = secure_pmean(
            gradients,
            AXIS,
            ring=ring,
            source=source,
            security=security,
            key=step_key,
            with_report=True,
        )
        counts = {**_counts(secure.ring), **secure_counts((secure,))}
        return _Reduced(gradients, None, counts, secure.keep)

    def update(
        gradients: PyTree, state: TrainState, key: Key, step: jax.Array
    ) -> tuple[TrainState, dict[str, Any]]:
        del step  # that of the state, which counts alike
        result = reduced(gradients, state, key)
        after = state.apply_gradients(grads=result.gradients)
        if compressor is not None:
            after = after.replace(memory=result.memory)
        if result.keep is not None:
            after = result.keep(after, state).replace(step=after.step)
        return after, result.counts

    return update


def in_rounds(loop: Loop) -> Update:
    """An update by an outer loop: a local step, and a round where one is due.

    The metrics of a step count its round: 0 where there is none. Traffic is the sum of all rounds
    up to the step, as the state of the loop has it. The share closed and its radius may differ
    between eager nodes, and after bare noisy links.

    Args:
      loop: of a `LoopState`.
    """

    def update(
        gradients: PyTree, state: TrainState, key: Key, step: jax.Array
    ) -> tuple[TrainState, dict[str, Any]]:
        del key  # the loop has its own
        assert isinstance(state, LoopState)
        before = state.outer
        params, after = loop.update(gradients, before, state.params, step=step)
        metrics: dict[str, Any] = {
            "rounds": (after.rounds - before.rounds).astype(jnp.uint32),
            "replica_agreement": replica_agreement(after.slow, AXIS),
        }
        if after.bits is not None:  # nor are the others
            metrics["bits_so_far"], metrics["qubits_so_far"] = after.bits, after.qubits
            # Differences of sums, which are exact below 2^24.
            names = (*_COUNTED, "repeated_qubits")
            added = {name: getattr(after, name) - getattr(before, name) for name in names}
            metrics["repeated_qubits"] = added.pop("repeated_qubits")
            metrics |= {name: added[name].astype(jnp.uint32) for name in added}
        if after.share is not None:
            metrics["share_closed"], metrics["radius"] = after.share, after.radius
        return state.replace(step=state.step + 1, params=params, outer=after), metrics

    return update


def with_replica(loop: Loop) -> Callable[[LoopState], LoopState]:
    """A function that puts the parameters that a loop evaluates in place of those of a node."""

    def evaluated(state: LoopState) -> LoopState:
        return state.replace(params=loop.replica(state.params, state.outer))

    return evaluated


def _compressed(
    gradients: PyTree,
    memory: PyTree,
    key: Key,
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    masked: dict[str, Any],
) -> _Reduced:
    """The all-reduce by way of a compressor, under masks if there are any."""
    gradients, memory, report = compressed_pmean(
        gradients,
        memory,
        AXIS,
        compressor=compressor,
        ring=ring,
        key=key,
        with_report=True,
        **masked,
    )
    counts = {**_counts(report), "out_of_range": report.out_of_range}
    secure = [call for call in report.calls if isinstance(call, SecureReport)]
    if not secure:
        return _Reduced(gradients, memory, counts)
    counts |= {**secure_counts(secure), "aborted": report.aborted.astype(jnp.uint32)}
    return _Reduced(gradients, memory, counts, report.keep)


def _counts(report: Report | CompressReport) -> dict[str, Any]:
    return {
        "symbol_errors": report.symbol_errors,
        "saturated": report.saturated,
        "retransmissions": report.retransmissions,
        "repeated_qubits": report.repeated_qubits,
        "undelivered": report.undelivered,
        "replica_agreement": report.replica_agreement,
    }


def secure_counts(reports: Sequence[SecureReport]) -> dict[str, Any]:
    """The counts of the masks of a step, over all its collectives."""

    def total(name: str) -> jax.Array:
        first, *others = [getattr(report, name) for report in reports]
        return sum(others, first)

    return {
        "aborted": reports[0].aborted.astype(jnp.uint32),
        "attempts": total("attempts"),
        "ghz_copies": total("copies"),
        "wrong_sums": total("wrong_sums"),
        "uncorrected_sums": total("uncorrected"),
    }
