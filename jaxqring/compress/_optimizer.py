"""A compressor as an Optax transformation, in front of an optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxqring._types import AxisName, Key, PyTree
from jaxqring.compress._collective import _masking, check_options, compressed_pmean
from jaxqring.compress._compressor import Compressor, with_nodes
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Ring
from jaxqring.secure import Security


class CompressState(NamedTuple):
    """The state of `all_reduce`: a compressor's memory and the running cost, each () per link.

    Attributes:
      step: int32 number of updates.
      memory: the state of the compressor.
      bits: float32 payload bits so far, mean over the links.
      qubits: float32 online qubits so far, repetitions included, mean over the links.
      pairs: float32 EPR pairs so far, one for each qubit.
      control_bits: float32 classical bits so far for what nodes agree on.
      symbol_errors: float32 on all links so far.
      retransmissions: float32 on all links so far.
      repeated_qubits: float32 so far, mean over the links.
      undelivered: float32 codewords on all links so far.
      out_of_range: float32 sums and places so far that no codes give.
      replica_agreement: () float32 of the last update; one before the first.

    Counts are as those of `jaxqring.ring.AllReduceState`: exact to a relative 6e-8.
    """

    step: jax.Array
    memory: PyTree
    bits: jax.Array
    qubits: jax.Array
    pairs: jax.Array
    control_bits: jax.Array
    symbol_errors: jax.Array
    retransmissions: jax.Array
    repeated_qubits: jax.Array
    undelivered: jax.Array
    out_of_range: jax.Array
    replica_agreement: jax.Array


def all_reduce(
    compressor: Compressor,
    ring: Ring | tuple[Ring, ...],
    axis_name: AxisName,
    *,
    key: Key | None,
    security: Security | None = None,
    source: GHZSource | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Compresses updates and averages them over the nodes of a quantum ring.

    Momentum and weight decay come after it: `optax.chain(all_reduce(...), optax.sgd(0.1, 0.9))`.

    Args:
      compressor: one of `jaxqring.compress`.
      ring: as for `compressed_pmean`.
      axis_name: name of the mapped axis in which `update` runs; `init` may run outside it.
      key: typed PRNG key, the same on every node, or None where nothing is drawn; the number of
        the step is folded in.
      security: as for `compressed_pmean`.
      source: as for `compressed_pmean`.

    Returns:
      A transformation whose state carries the compressor's memory and the running cost.

    Raises:
      TypeError, ValueError: as `compressed_pmean`; calls of `update` as well.

    >>> from jaxqring.compress import SignVote
    >>> transformation = all_reduce(SignVote(), Ring(noise="off"), "nodes", key=None)
    >>> optimizer = optax.chain(transformation, optax.sgd(0.01))
    >>> params = {"w": jnp.zeros(3)}
    >>> state = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), optimizer.init(params))
    >>> step = jax.vmap(optimizer.update, axis_name="nodes")
    >>> updates, state = jax.jit(step)({"w": jnp.ones((4, 3))}, state)
    >>> float(updates["w"][0, 0]), float(optax.tree.get(state, "qubits")[0])
    (-0.0099..., 12.0)
    """
    rings = ring if isinstance(ring, tuple) else (ring,)
    check_options(compressor, rings, key, _masking(security, source))
    own = rings[0].nodes_per_device

    def init(params: PyTree) -> CompressState:
        one = params if own == 1 else jax.tree.map(lambda leaf: leaf[0], params)
        memory = compressor.init(one)
        zero = jnp.float32(0)
        return CompressState(
            jnp.int32(0),
            memory if own == 1 else with_nodes(memory, own),
            zero,
            zero,
            zero,
            zero,
            zero,
            zero,
            zero,
            zero,
            zero,
            replica_agreement=jnp.float32(1),
        )

    def update(
        updates: PyTree, state: CompressState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, CompressState]:
        del params, extra
        mean, memory, report = compressed_pmean(
            updates,
            state.memory,
            axis_name,
            compressor=compressor,
            ring=ring,
            key=None if key is None else jax.random.fold_in(key, state.step),
            security=security,
            source=source,
            with_report=True,
        )
        num_nodes = lax.axis_size(axis_name) * own
        step = optax.safe_increment(state.step)
        count = step.astype(jnp.float32)
        qubits = state.qubits + report.online_qubits / num_nodes
        return mean, CompressState(
            step,
            memory,
            count * float(2 * report.symbols_per_link),
            qubits,
            qubits,
            count * float(report.control_bits),
            state.symbol_errors + report.symbol_errors.astype(jnp.float32),
            state.retransmissions + report.retransmissions.astype(jnp.float32),
            state.repeated_qubits + report.repeated_qubits / num_nodes,
            state.undelivered + report.undelivered.astype(jnp.float32),
            state.out_of_range + report.out_of_range.astype(jnp.float32),
            report.replica_agreement,
        )

    return optax.GradientTransformationExtraArgs(init, update)
