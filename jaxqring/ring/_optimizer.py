"""The quantum all-reduce as a link in an Optax chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring.ring._collectives import pmean
from jaxqring.ring._ring import Ring


class AllReduceState(NamedTuple):
    """Running cost of the collective; read it with `optax.tree.get(state, "qubits")`.

    Attributes:
      step: () int32 updates so far.
      bits: () float32 payload bits over each link so far.
      qubits: () float32 online qubits over each link so far; with repetitions, the mean of links.
      pairs: () float32 EPR pairs used on each link so far, one for each qubit.
      symbol_errors: () float32 symbols that arrived wrong on all links so far.
      retransmissions: () float32 codewords sent again on all links so far.
      repeated_qubits: () float32 of `qubits`, those of codewords sent again.
      undelivered: () float32 codewords that stayed wrong on all links so far.
      replica_agreement: () float32 of the last update; one before the first.

    Costs are the number of updates times the cost of one, rounded once to float32 (6e-8 relative),
    and the repetitions. Those and other counts of events are added up in float32: exact below 2^24,
    then off by 6e-8 an update at most.
    """

    step: jax.Array
    bits: jax.Array
    qubits: jax.Array
    pairs: jax.Array
    symbol_errors: jax.Array
    retransmissions: jax.Array
    repeated_qubits: jax.Array
    undelivered: jax.Array
    replica_agreement: jax.Array


def all_reduce(
    ring: Ring, axis_name: AxisName, *, key: Key | None
) -> optax.GradientTransformationExtraArgs:
    """Averages updates over the nodes of a quantum ring.

    Args:
      ring: the ring.
      axis_name: name of the mapped axis in which `update` runs; `init` may run outside it.
      key: typed PRNG key, the same on every node, or None where nothing is drawn; the number of
        the step is folded in.

    Returns:
      A transformation whose state carries the running cost.

    Raises:
      TypeError: if the ring is not a Ring, or the key not a typed key.
      ValueError: if the key is a batch. Calls of `update` raise as `pmean` does.

    >>> optimizer = optax.chain(
    ...     all_reduce(Ring(noise="off"), "nodes", key=jax.random.key(0)), optax.sgd(0.1)
    ... )
    >>> params = {"w": jnp.zeros(3)}
    >>> state = optimizer.init(params)
    >>> step = jax.vmap(optimizer.update, in_axes=(0, None), axis_name="nodes")
    >>> updates, state = jax.jit(step)({"w": jnp.ones((4, 3))}, state)
    >>> float(updates["w"][0, 0]), float(optax.tree.get(state, "qubits")[0])
    (-0.1..., 48.0)
    """
    checks.instance("ring", ring, Ring)
    if ring.draws or key is not None:
        checks.prng_key("key", key)

    def init(params: PyTree) -> AllReduceState:
        del params
        zero = jnp.float32(0)
        return AllReduceState(
            jnp.int32(0), zero, zero, zero, zero, zero, zero, zero, replica_agreement=jnp.float32(1)
        )

    def update(
        updates: PyTree, state: AllReduceState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, AllReduceState]:
        del params, extra
        mean, report = pmean(
            updates,
            axis_name,
            ring=ring,
            key=None if key is None else jax.random.fold_in(key, state.step),
            with_report=True,
        )
        num_nodes = lax.axis_size(axis_name) * ring.nodes_per_device
        size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(updates)) // ring.nodes_per_device
        cost = ring.cost(size, num_nodes)
        step = optax.safe_increment(state.step)
        count = step.astype(jnp.float32)
        retransmissions = state.retransmissions + report.retransmissions.astype(jnp.float32)
        repeated = state.repeated_qubits + report.repeated_qubits / num_nodes
        qubits = count * float(cost.qubits) + repeated
        assert report.replica_agreement is not None  # a mean leaves replicas
        new_state = AllReduceState(
            step,
            count * float(cost.bits),
            qubits,
            qubits,
            state.symbol_errors + report.symbol_errors.astype(jnp.float32),
            retransmissions,
            repeated,
            state.undelivered + report.undelivered.astype(jnp.float32),
            report.replica_agreement,
        )
        return mean, new_state

    return optax.GradientTransformationExtraArgs(init, update)
