"""A walker as the control of a remote gate: a qubit that carries the control there and back.

The walker starts in |0> and is flipped by a CNOT from the control; it crosses d hops, controls the
gates on the other node, crosses the hops back, and a second CNOT disentangles it. No pair is used.
Noise that has flipped it shows when it is read at the end, so that such a run can be repeated.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._paulis import PAULIS, product
from jaxqring.physics.channels import Channel
from jaxqring.qmodels._density_matrices import (
    check_partners,
    check_rho,
    conjugated,
    partner_phases,
)
from jaxqring.qmodels._plans import CircuitPlan
from jaxqring.qmodels._states import bits

#: What carries a control to another node.
ControlPlane: TypeAlias = Literal["ebit", "walker"]


class WalkerRun(NamedTuple):
    """The state after the gates of a walker.

    Attributes:
      state: (2^n, 2^n) if the walker is not read.
      unflagged: () probability that it reads 0.
      kept: (2^n, 2^n) the state if it reads 0; zero if that never happens.
    """

    state: jax.Array
    unflagged: jax.Array
    kept: jax.Array


def walker_gate(
    rho: ArrayLike,
    path: Channel,
    control: int,
    partners: Sequence[int],
    angles: ArrayLike = math.pi,
) -> WalkerRun:
    """The state after controlled phases whose control a walker has carried to another node.

    Args:
      rho: (2^n, 2^n) density matrix of n <= 7 qubits, the walker not among them.
      path: the noise of each hop on the walker's way there, of batch shape (d,), or () for one hop;
        it comes back by the same hops in the opposite order.
      control: the qubit that is copied.
      partners: the qubits on the other node.
      angles: () or (m,) radians, of diag(1, 1, 1, exp(i angle)) with each of the m partners.

    Returns:
      The states with and without a look at the walker.

    Raises:
      TypeError: if `path` is not a Channel, or an angle not real.
      ValueError: if a shape is wrong, a qubit is not there or stands twice, or a known `rho` is not
        a state.

    The walker is that of the reference; noise and the flag are ours.

    Reference: de Andrade, Dai, Guha and Towsley, IEEE QCE (2021), arXiv:2106.09839.

    >>> from jaxqring import dephasing
    >>> plus = jnp.full((4, 4), 0.25)
    >>> run = walker_gate(plus, dephasing(error_prob=0.1), 0, [1])
    >>> ideal = jnp.array([1, 1, 1, -1]) / 2
    >>> round(float(run.unflagged), 6), round(float((ideal @ run.state @ ideal).real), 6)
    (1.0, 0.82)
    """
    matrix, qubits = check_rho(rho)
    control, partners, angles = check_partners(control, partners, angles, qubits)
    checks.instance("path", path, Channel)
    hops = path.ptm[None] if path.ptm.ndim == 2 else path.ptm
    if hops.ndim != 3 or not hops.shape[0]:
        checks.refuse("path", "have one batch axis at most, of at least one hop", path.ptm.shape)
    there, back = _in_sequence(hops), _in_sequence(hops[::-1])
    # blocks[a, b] is <a|rho|b> of the walker, a matrix on the n qubits.
    here = bits(qubits)[control]
    reads = jnp.asarray(np.stack([1 - here, here]), matrix.dtype)
    blocks = _on_walker(there, reads[:, None, :, None] * reads[None, :, None, :] * matrix)
    phases = partner_phases(qubits, partners, angles)
    acts = jnp.stack([jnp.zeros_like(phases), phases])
    turned = jax.vmap(jax.vmap(conjugated, (0, None, 0)), (0, 0, None))
    blocks = _on_walker(back, turned(blocks, acts, acts))
    at = np.arange(matrix.shape[0])
    unflagged, flagged = (
        blocks[found[:, None], found[None, :], at[:, None], at[None, :]]
        for found in (here, 1 - here)
    )
    chance = jnp.trace(unflagged).real
    kept = jnp.where(chance > 0, unflagged / jnp.where(chance > 0, chance, 1.0), 0.0)
    return WalkerRun(unflagged + flagged, chance, kept)


def _in_sequence(hops: jax.Array) -> jax.Array:
    """(4, 4) the transfer matrix of hops (d, 4, 4), the first one first."""
    total, _ = lax.scan(lambda before, hop: (product(hop, before), None), hops[0], hops[1:])
    return total


def _on_walker(ptm: jax.Array, blocks: jax.Array) -> jax.Array:
    """Blocks (2, 2, 2^n, 2^n) after a channel on the walker, given by its transfer matrix."""
    paulis = jnp.asarray(PAULIS, blocks.dtype)
    # N(rho) = sum_ij M_ij s_i Tr[s_j rho] / 2.
    channel = jnp.einsum("ij,iab,jdc->abcd", ptm, paulis, paulis, precision="highest") / 2
    return jnp.einsum("abcd,cdxy->abxy", channel, blocks, precision="highest")


class ControlLedger(NamedTuple):
    """The cost of carrying all controls of a plan to the nodes of its gates.

    Attributes:
      qubit_hops: links crossed by qubits that carry a control.
      pairs: pairs of neighbours that are used up.
      bits: sent from one node to another.
      rounds: messages one after another between a wire's home and a copy's node, if copies are made
        one after another.
    """

    qubit_hops: int
    pairs: int
    bits: int
    rounds: int


def control_ledger(
    circuit_plan: CircuitPlan, *, plan: ControlPlane = "ebit", distance: ArrayLike | None = None
) -> ControlLedger:
    """Counts what carries the controls of a plan to other nodes.

    Args:
      circuit_plan: the copies, each of which is one visit of a walker or one pair.
      plan: "walker" for a qubit that crosses the d hops to the node and back; "ebit" for a pair of
        each of the d links, swapped to one of the two nodes (2 bits for each of the d - 1 swaps),
        and the bit there and the bit back.
      distance: (k, k) hops between nodes; None if all are neighbours.

    Returns:
      Sums over the copies: 2 d qubit hops or d pairs and 2 d bits; 2 rounds for either.

    Raises:
      TypeError: if `circuit_plan` is not a CircuitPlan.
      ValueError: if `plan` is unknown, or `distance` is not a matrix of positive integers off its
        diagonal.

    >>> from jaxqring.qmodels import plan_circuit, qft
    >>> found = plan_circuit(qft(6), 2)
    >>> control_ledger(found, distance=[[0, 3], [3, 0]])
    ControlLedger(qubit_hops=0, pairs=9, bits=18, rounds=6)
    >>> control_ledger(found, plan="walker", distance=[[0, 3], [3, 0]])
    ControlLedger(qubit_hops=18, pairs=0, bits=0, rounds=6)
    """
    checks.instance("circuit_plan", circuit_plan, CircuitPlan)
    checks.one_of("plan", plan, get_args(ControlPlane))
    nodes = circuit_plan.nodes
    hops = np.ones((nodes, nodes), int) if distance is None else np.asarray(distance)
    apart = ~np.eye(nodes, dtype=bool)
    if hops.shape != apart.shape or hops.dtype.kind not in "iu" or not np.all(hops[apart] > 0):
        rule = f"be ({nodes}, {nodes}) integers, positive off the diagonal"
        checks.refuse("distance", rule, hops)
    placement, copies = circuit_plan.placement, circuit_plan.copies
    crossed = sum(int(hops[placement[copy.wire], copy.node]) for copy in copies)
    rounds = 2 * len(copies)
    if plan == "walker":
        return ControlLedger(2 * crossed, 0, 0, rounds)
    return ControlLedger(0, crossed, 2 * crossed, rounds)
