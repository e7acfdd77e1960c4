"""Outer loops as others see them: their functions, their state, and the interface of a method."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxqring._types import PyTree


class Update(Protocol):
    """The signature of `Loop.update`."""

    def __call__(
        self, grads: PyTree, state: "OuterState", params: PyTree, *, step: Any, **extra: Any
    ) -> tuple[PyTree, "OuterState"]:
        """Returns new parameters and the new state."""


class Loop(NamedTuple):
    """An outer loop: pure functions of one node, for `pmap`, `shard_map` or `vmap(axis_name=)`.

    `update` returns new parameters and not updates to add, as Optax would: p + (q - p) is not q in
    floating point, and replicas would differ after a round.

    Every node has a row of its own of parameters and state, also where they start alike::

        params, state = loop.update(grads, state, params, step=step)

    `step` counts inner steps from 0. It is an integer of shape (), the same on all nodes, and not
    mapped (`in_axes=None`, `PartitionSpec()`): only then is a collective skipped between rounds
    under `vmap`, where one that is mapped would make every step a round that is thrown away.
    Further arguments by keyword go to the inner optimizer.

    Attributes:
      init: takes the parameters of a node to its state; may run outside the mapping.
      update: takes (grads, state, params, step=) to (params, state), inside the mapping.
      replica: takes (params, state) to the parameters to evaluate. Where nodes share the slow
        parameters these are the last ones agreed upon; where each has its own (eager, NoLoCo,
        averages over bare noisy links) it is up to the loop, which says so.
    """

    init: Callable[[PyTree], "OuterState"]
    update: Update
    replica: Callable[[PyTree, "OuterState"], PyTree]


class OuterState(NamedTuple):
    """The state of one node; read its measurements with `optax.tree.get(state, "qubits")`.

    Attributes:
      inner: of the inner optimizer, local and never averaged.
      slow: the slow parameters, in float32 or wider.
      method: of the outer step, one for each fragment.
      memory: of the average, one for each fragment.
      arriving: averages under way, with the flag of their being so, one for each fragment; None
        without overlap.
      rounds: () int32 rounds that delivered an average so far; those of every fragment count.
      aborted: () int32 rounds given up so far; None, as the next eight, for an average that does
        not count.
      bits: () float32 payload bits over each link so far.
      qubits: () float32 online qubits over each link so far, repetitions included.
      saturated: () float32 values that were clipped on the wire so far, on all nodes.
      out_of_range: () float32 sums, votes and places that no codes of a compressor give, so far.
      symbol_errors: () float32 symbols that arrived wrong on all links so far.
      retransmissions: () float32 codewords sent again on all links so far.
      repeated_qubits: () float32 of the qubits, those of codewords sent again, on all links so far.
      undelivered: () float32 codewords that stayed wrong on all links so far.
      share: () float32 estimate of the share of the way to the optimum that the inner steps of the
        last round closed; 0 before there is one, None for loops without an estimate.
      radius: () float32 spectral radius of a round at that share, see `radius`; None without.

    Floats are added up in float32: exact below 2^24, then off by 6e-8 a round at most. The share
    and the radius have no derivative.
    """

    inner: PyTree
    slow: PyTree
    method: tuple[PyTree, ...]
    memory: tuple[PyTree, ...]
    arriving: tuple[Any, ...] | None
    rounds: jax.Array
    aborted: jax.Array | None
    bits: jax.Array | None
    qubits: jax.Array | None
    saturated: jax.Array | None
    out_of_range: jax.Array | None
    symbol_errors: jax.Array | None
    retransmissions: jax.Array | None
    repeated_qubits: jax.Array | None
    undelivered: jax.Array | None
    share: jax.Array | None
    radius: jax.Array | None


class Received(NamedTuple):
    """The outcome of an outer step on a fragment.

    Attributes:
      slow: the new slow parameters.
      method: the new state of the method.
      params: the parameters to go on from, like `slow`; None for `slow` itself.
      share: () estimate of the share closed; None without one.
    """

    slow: PyTree
    method: PyTree
    params: PyTree | None = None
    share: jax.Array | None = None


def _no_correction(grads: PyTree, method: tuple[PyTree, ...]) -> PyTree:
    del method
    return grads


def _displacement(displacement: PyTree, slow: PyTree, method: PyTree) -> PyTree:
    del slow, method
    return displacement


class Method(NamedTuple):
    """The part of a loop that is its own; trees are of one fragment, in float32 or wider.

    Attributes:
      init: takes the slow parameters to the state of the method.
      receive: takes (mean, sent, slow, method, here) to a `Received`: the mean of what was sent,
        what this node sent itself (None with overlap), and the parameters that the node has.
      send: takes (displacement, slow, method) to the tree to average; the displacement itself
        unless said otherwise.
      correct: takes the gradients and the states of all fragments to the gradients that the inner
        optimizer sees.
      radius: takes a share to the spectral radius of a round; None without.
    """

    init: Callable[[PyTree], PyTree]
    receive: Callable[[PyTree, PyTree, PyTree, PyTree, PyTree], Received]
    send: Callable[[PyTree, PyTree, PyTree], PyTree] = _displacement
    correct: Callable[[PyTree, tuple[PyTree, ...]], PyTree] = _no_correction
    radius: Callable[[jax.Array], jax.Array] | None = None


def master(leaf: Any) -> jax.Array:
    """A copy of a leaf in float32, or in its own type if that is wider."""
    return jnp.array(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))


def of_slow(slow: PyTree, params: PyTree) -> PyTree:
    """Slow parameters in the types of the parameters."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), slow, params)
