"""Circuits run by their plans, exactly, with the noise of the pair behind every copy.

A copy is right or flipped from its birth to its death: a classical bit that all its gates share.
The state is one density matrix for each setting of the bits of the copies that are alive, and a
circuit becomes a table of steps that one `lax.scan` goes through. In a step a copy may be born, a
diagonal gate and a one-qubit gate act, and a copy may die, in this order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._varying import as_varying, varying
from jaxqring.physics._pair import Pair
from jaxqring.physics._paulis import complex_dtype
from jaxqring.qmodels._density_matrices import MOST_QUBITS_MIXED
from jaxqring.qmodels._gates import Gate
from jaxqring.qmodels._plans import CircuitPlan
from jaxqring.qmodels._states import bits

#: The most entries of all density matrices together: 32 MiB in single precision.
MOST_ENTRIES = 2**22


class DistributedRun(NamedTuple):
    """The output of a circuit over nodes.

    Attributes:
      state: (2^n, 2^n) density matrix.
      fidelity: () overlap with the output without noise.
      no_error: () probability that no pair has an error, the product of their fidelities: a lower
        bound of `fidelity` for every input.
    """

    state: jax.Array
    fidelity: jax.Array
    no_error: jax.Array


class _Table(NamedTuple):
    """The steps (T, ...) of a circuit with m settings of the copies alive at once.

    Attributes:
      born: (T,) the number of the copy that is born, or that of all copies for none.
      born_from: (T, m) the setting with the bit of the born copy cleared.
      born_flipped: (T, m) true where that bit is set.
      signs: (T, D) Z of its wire.
      source: (T, D) the index with the bit of the one-qubit gate's wire flipped.
      keep: (T, m, D) factors of an amplitude from itself.
      mix: (T, m, D) factors of an amplitude from `source`.
      dies_from: (T, m) the setting with the bit of the dying copy flipped.
      dies: (T, m) 1 where that bit is clear and a copy dies, else 0.
      stays: (T, m) 0 where that bit is set, else 1.
    """

    born: np.ndarray
    born_from: np.ndarray
    born_flipped: np.ndarray
    signs: np.ndarray
    source: np.ndarray
    keep: np.ndarray
    mix: np.ndarray
    dies_from: np.ndarray
    dies: np.ndarray
    stays: np.ndarray


class _Writer:
    """Writes the table of a plan, packing what follows in the order of a step into one step."""

    def __init__(self, plan: CircuitPlan, slots: int) -> None:
        self.plan = plan
        self.bits = bits(plan.circuit.qubits)
        self.settings = np.arange(2**slots)
        self.slot: dict[int, int] = {}  # of the copies alive
        self.free = list(range(slots))
        self.steps: list[_Table] = []
        self.stage = 4  # of the present step: 1 birth, 2 diagonal gate, 3 other gate, 4 death

    def at(self, stage: int) -> None:
        """Opens a new step if the present one is past a stage."""
        if self.stage > stage or (self.stage == stage and stage != 2):
            size = self.bits.shape[1]
            ones = np.ones((len(self.settings), size), complex)
            here = self.settings
            self.steps.append(
                _Table(
                    born=np.array(len(self.plan.copies)),
                    born_from=here,
                    born_flipped=np.zeros(len(here), bool),
                    signs=np.ones(size),
                    source=np.arange(size),
                    keep=ones,
                    mix=0 * ones,
                    dies_from=here,
                    dies=np.zeros(len(here)),
                    stays=np.ones(len(here)),
                )
            )
        self.stage = stage

    def change(self, **fields: np.ndarray) -> None:
        """Sets fields of the present step."""
        self.steps[-1] = self.steps[-1]._replace(**fields)

    def flips(self, copy: int) -> np.ndarray:
        """(m,) the bit of a copy in each setting."""
        return (self.settings >> self.slot[copy]) & 1

    def birth(self, copy: int) -> None:
        """A copy comes to life."""
        self.at(1)
        self.slot[copy] = self.free.pop(0)
        flipped = self.flips(copy).astype(bool)
        self.change(
            born=np.array(copy),
            born_from=self.settings & ~(1 << self.slot[copy]),
            born_flipped=flipped,
            signs=1.0 - 2 * self.bits[self.plan.copies[copy].wire],
        )

    def death(self, copy: int) -> None:
        """A copy is measured away."""
        self.at(4)
        flips = self.flips(copy)
        bit = 1 << self.slot[copy]
        self.change(dies_from=self.settings ^ bit, dies=1.0 - flips, stays=1.0 - flips)
        self.free.append(self.slot.pop(copy))

    def two_qubit_gate(self, place: int, gate: Gate) -> None:
        """A controlled phase, on copies where its wires have them."""
        self.at(2)
        control = np.ones((1, 1), int)
        for wire in gate.qubits:
            own = self.bits[wire][None, :]
            for copy in self.slot:
                if self.plan.copies[copy].wire == wire and place in self.plan.copies[copy].gates:
                    own = own ^ self.flips(copy)[:, None]
            control = control * own
        self.change(keep=self.steps[-1].keep * np.exp(1j * gate.phase * control))

    def one_qubit_gate(self, gate: Gate) -> None:
        """A gate of one wire."""
        matrix, (wire,) = gate.matrix(), gate.qubits
        own = self.bits[wire]
        if gate.diagonal:
            self.at(2)
            self.change(keep=self.steps[-1].keep * matrix[own, own])
            return
        self.at(3)
        before = self.steps[-1].keep
        source = np.arange(len(own)) ^ (1 << (len(self.bits) - 1 - wire))
        self.change(
            source=source,
            keep=matrix[own, own] * before,
            mix=matrix[own, 1 - own] * before[:, source],
        )


def _table(plan: CircuitPlan) -> _Table:
    """The table of a plan."""
    circuit = plan.circuit
    alive = np.zeros(len(circuit.gates) + 1, int)
    for copy in plan.copies:
        alive[copy.gates[0]] += 1
        alive[copy.gates[-1] + 1] -= 1
    slots = int(np.max(np.cumsum(alive)))
    entries = 4**circuit.qubits * 2**slots
    if circuit.qubits > MOST_QUBITS_MIXED or entries > MOST_ENTRIES:
        rule = f"have at most {MOST_QUBITS_MIXED} wires and {MOST_ENTRIES} entries of its states"
        got = f"{circuit.qubits} wires with {slots} copies alive at once, {entries} entries"
        raise ValueError(f"`plan` must {rule}, but got {got}.")
    writer = _Writer(plan, slots)
    for place, gate in enumerate(circuit.gates):
        for at, copy in enumerate(plan.copies):
            if copy.gates[0] == place:
                writer.birth(at)
        if len(gate.qubits) == 2:
            writer.two_qubit_gate(place, gate)
        else:
            writer.one_qubit_gate(gate)
        for at, copy in enumerate(plan.copies):
            if copy.gates[-1] == place:
                writer.death(at)
    if not writer.steps:
        writer.at(1)
    return _Table(*map(np.stack, zip(*writer.steps, strict=True)))


@jax.jit
def _run(table: _Table, probs: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The noisy density matrix (D, D) and the ideal state (D,)."""
    none = jnp.zeros((1, 4), probs.dtype).at[0, 0].set(1)
    probs = jnp.concatenate([probs, none])
    settings = table.stays.shape[1]
    start = jnp.zeros((settings, *2 * state.shape), state.dtype)
    start = as_varying(start, varying(probs, state)).at[0].set(jnp.outer(state, state.conj()))

    def step(carry: tuple[jax.Array, jax.Array], row: _Table) -> tuple[tuple, None]:
        rho, ideal = carry
        flipped, signs = row.born_flipped[:, None, None], row.signs
        weights = probs[row.born]
        stays = jnp.where(flipped, weights[2], weights[0])
        turns = jnp.where(flipped, weights[3], weights[1])
        rho = (stays + turns * signs[:, None] * signs) * rho[row.born_from]
        keep, mix = row.keep, row.mix
        rho = keep[:, :, None] * rho + mix[:, :, None] * rho[:, row.source, :]
        keep, mix = keep.conj(), mix.conj()
        rho = keep[:, None, :] * rho + mix[:, None, :] * rho[:, :, row.source]
        ideal = row.keep[0] * ideal + row.mix[0] * ideal[row.source]
        from_other = row.dies[:, None, None] * rho[row.dies_from]
        return (row.stays[:, None, None] * rho + from_other, ideal), None

    first = (start, as_varying(state, varying(probs, state)))
    (rho, ideal), _ = lax.scan(step, first, table)
    return rho[0], ideal


def run_distributed(
    plan: CircuitPlan, pairs: Pair, state: ArrayLike | None = None
) -> DistributedRun:
    """Runs a circuit over nodes by its plan, with a pair for each copy.

    Args:
      plan: the circuit, and the copies of its wires.
      pairs: in any states; batch shape () for all copies alike, or (ebits,) in the order of
        `plan.copies`.
      state: (2^n,) complex input of norm one; None for |0...0>.

    Returns:
      The output and its fidelity, differentiable in the pairs and the input.

    Raises:
      TypeError: if `plan` is not a CircuitPlan or `pairs` not a Pair.
      ValueError: if a shape is wrong, a known `state` not of norm one, there are more than 7 wires,
        or the states of too many copies alive at once do not fit.

    The exact treatment of flipped copies for angles other than pi is ours.

    Reference: Yimsiriwattana and Lomonaco, arXiv:quant-ph/0402148, for the copies.

    >>> from jaxqring import werner
    >>> from jaxqring.qmodels import plan_circuit, qft
    >>> run = run_distributed(plan_circuit(qft(4), 2), werner(fidelity=0.95))
    >>> round(float(run.no_error), 6), bool(run.fidelity > run.no_error)
    (0.9025, True)
    """
    checks.instance("plan", plan, CircuitPlan)
    checks.instance("pairs", pairs, Pair)
    if pairs.correlation.shape[:-2] not in ((), (plan.ebits,)):
        rule = f"have the batch shape () or ({plan.ebits},)"
        checks.refuse("pairs", rule, pairs.correlation.shape[:-2])
    table = _table(plan)
    probs = jnp.broadcast_to(pairs.bell_probs, (plan.ebits, 4))
    kind = complex_dtype(probs.dtype)
    size = 2**plan.circuit.qubits
    if state is None:
        psi = jnp.zeros(size, kind).at[0].set(1)
    else:
        if np.shape(state) != (size,):
            checks.refuse("state", f"have the shape ({size},)", np.shape(state))
        if not checks.is_traced(state) and abs(np.linalg.norm(np.asarray(state)) - 1) > 1e-5:
            checks.refuse("state", "have the norm one", np.linalg.norm(np.asarray(state)))
        psi = jnp.asarray(state).astype(kind)
    real = probs.dtype
    table = _Table(
        *(leaf.astype({"f": real, "c": kind}.get(leaf.dtype.kind, leaf.dtype)) for leaf in table)
    )
    rho, ideal = _run(table, probs, psi)
    found = jnp.einsum("i,ij,j->", ideal.conj(), rho, ideal, precision="highest").real
    return DistributedRun(rho, found, jnp.prod(probs[:, 0]))
