"""Chips of a fixed design: the angle of a rotation arrives as qubits, the circuit never changes.

A program of k qubits holds the angle theta as (|0> + exp(i 2^j theta)|1>)/sqrt(2), j < k. The chip
does a CNOT from its data to the first program qubit and reads that along Z. On 0 the data has been
turned by theta, on 1 by -theta; then the next program qubit makes good for it, if it reads 0. With
probability 2^-k all read 1, and the data is turned by (1 - 2^k) theta. The chip sees that.
"""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring._varying import as_varying, varying
from jaxqring.physics._paulis import complex_dtype
from jaxqring.qmodels._states import (
    MOST_QUBITS,
    Rotation,
    bits,
    check_norm,
    probabilities,
    qubits_of,
)

#: (2, 2) the change of basis V with V Z V^dagger = X, Y or Z.
_HADAMARD = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
BASES = {"rx": _HADAMARD, "ry": np.diag([1, 1j]) @ _HADAMARD, "rz": np.eye(2)}


def program(theta: ArrayLike, qubits: int) -> jax.Array:
    """The program qubits of a rotation.

    Args:
      theta: (...) angles in radians.
      qubits: k.

    Returns:
      (..., k, 2) complex, the states of the k qubits, which are not entangled.

    Raises:
      TypeError: if `theta` is not real.
      ValueError: if `qubits` is not an integer in [1, 14].

    Reference: Vidal, Masanes and Cirac, Phys. Rev. Lett. 88, 047905 (2002). That such programs are
    how the operators of Daskin, arXiv:2401.13421, arrive at a fixed chip is our interpretation.

    >>> print(jnp.angle(program(0.5, 3)[:, 1]).round(4))
    [0.5 1.  2. ]
    """
    angle = checks.real("theta", theta)
    k = checks.integer("qubits", qubits, 1, MOST_QUBITS)
    phases = angle[..., None] * np.exp2(np.arange(k)).astype(angle.dtype)
    one = lax.complex(jnp.cos(phases), jnp.sin(phases))
    return jnp.stack([jnp.ones_like(one), one], axis=-1) * float(np.sqrt(0.5))


class ChipRun(NamedTuple):
    """The data after a run of a fixed chip.

    Attributes:
      state: (2^n,) complex, normalised.
      succeeded: () bool, True if the data was turned by the angle of the program, and False if by
        (1 - 2^k) times that; the chip knows.
    """

    state: jax.Array
    succeeded: jax.Array


def fixed_chip(
    state: ArrayLike, program: jax.Array, qubit: int, key: Key, *, axis: Rotation = "rz"
) -> ChipRun:
    """Runs the fixed circuit once: program qubits are measured, one after the other.

    Probabilities are those of the program as it is, which noise may have changed. Derivatives are
    those of the state for the outcomes that were drawn.

    Args:
      state: (2^n,) of the data.
      program: (k, 2) program qubits, as `program` makes them.
      qubit: of the data, that is turned.
      key: typed PRNG key.
      axis: "rz" as it stands, "rx" or "ry" between two fixed gates.

    Returns:
      A `ChipRun`; its state is that of the rotation up to a global phase.

    Raises:
      TypeError: if `key` is not a typed PRNG key.
      ValueError: if a shape is wrong, a known state has not the norm one, there is no such qubit,
        or the axis is unknown.

    Reference: Vidal, Masanes and Cirac, Phys. Rev. Lett. 88, 047905 (2002).

    >>> plus = jnp.array([1.0, 1.0]) / np.sqrt(2)
    >>> run = fixed_chip(plus, program(0.7, 3), 0, jax.random.key(0))
    >>> print(bool(run.succeeded), jnp.angle(run.state[1] / run.state[0]).round(4))
    True 0.7
    """
    checks.prng_key("key", key)
    data, _, qubit = _checked(state, program, qubit, axis)
    draws = jax.random.uniform(key, (program.shape[0],), data.real.dtype)
    return turn(data, program, qubit, draws, jnp.asarray(BASES[axis], data.dtype))


def turn(
    state: jax.Array, program: jax.Array, qubit: int, draws: jax.Array, basis: jax.Array
) -> ChipRun:
    """One run, by numbers (k,) uniform in [0, 1), about the axis of a change of basis (2, 2)."""
    qubits = qubits_of(state.shape[0])
    data = _gate(state, basis.conj().T, qubit)

    def use(carry: tuple, step: tuple) -> tuple:
        now, failing = carry
        ket, draw = step
        read_0, read_1 = _branches(now, ket, qubit, qubits)
        weight_0, weight_1 = jnp.sum(probabilities(read_0)), jnp.sum(probabilities(read_1))
        fails = draw * (weight_0 + weight_1) >= weight_0
        after = jnp.where(fails, read_1, read_0)
        after = after / jnp.sqrt(jnp.where(fails, weight_1, weight_0)).astype(after.dtype)
        return (jnp.where(failing, after, now), failing & fails), None

    start = as_varying((data, jnp.array(True)), varying(data, program, draws))
    (data, failing), _ = lax.scan(use, start, (program.astype(data.dtype), draws))
    return ChipRun(_gate(data, basis, qubit), ~failing)


class ChipBranches(NamedTuple):
    """All ways that a run of a fixed chip may take.

    Attributes:
      probs: (k + 1,) of success with the program qubit 0..k-1, and of failure.
      states: (k + 1, 2^n) complex, the data after each; normalised.
    """

    probs: jax.Array
    states: jax.Array


def chip_branches(
    state: ArrayLike, program: jax.Array, qubit: int, *, axis: Rotation = "rz"
) -> ChipBranches:
    """Computes all outcomes of `fixed_chip` exactly, differentiable in program and data.

    Args:
      state: (2^n,) of the data.
      program: (k, 2) program qubits, as `program` makes them.
      qubit: of the data, that is turned.
      axis: as for `fixed_chip`.

    Returns:
      A `ChipBranches`.

    Raises:
      ValueError: as `fixed_chip`.

    Reference: Vidal, Masanes and Cirac, Phys. Rev. Lett. 88, 047905 (2002).

    >>> print(chip_branches(jnp.array([0.6, 0.8]), program(0.7, 3), 0).probs.round(4))
    [0.5   0.25  0.125 0.125]
    """
    data, qubits, qubit = _checked(state, program, qubit, axis)
    basis = jnp.asarray(BASES[axis], data.dtype)
    data = _gate(data, basis.conj().T, qubit)

    def use(now: jax.Array, ket: jax.Array) -> tuple[jax.Array, jax.Array]:
        read_0, read_1 = _branches(now, ket, qubit, qubits)
        return read_1, read_0

    start = as_varying(data, varying(data, program))
    failed, succeeded = lax.scan(use, start, program.astype(data.dtype))
    ends = jnp.concatenate([succeeded, failed[None]])
    probs = jnp.sum(probabilities(ends), axis=-1)
    # A branch that never occurs has no state; it is left as zeros.
    root = jnp.sqrt(jnp.where(probs > 0, probs, 1.0))
    states = jax.vmap(lambda end: _gate(end, basis, qubit))(ends)
    return ChipBranches(probs, states / root[:, None].astype(states.dtype))


def _checked(
    state: ArrayLike, program: jax.Array, qubit: int, axis: Rotation
) -> tuple[jax.Array, int, int]:
    """The state as a complex array, its number of qubits and the qubit, or a refusal."""
    checks.one_of("axis", axis, get_args(Rotation))
    data = jnp.asarray(state)
    if data.ndim != 1 or data.shape[0] < 2 or data.shape[0] & (data.shape[0] - 1):
        checks.refuse("state", "have the shape (2^n,)", data.shape)
    check_norm("state", state)
    if np.ndim(program) != 2 or np.shape(program)[0] < 1 or np.shape(program)[1] != 2:
        checks.refuse("program", "have the shape (k, 2)", np.shape(program))
    qubits = qubits_of(data.shape[0])
    dtype = complex_dtype(jnp.result_type(data.dtype, program.dtype))
    return data.astype(dtype), qubits, checks.integer("qubit", qubit, 0, qubits - 1)


def _branches(
    state: jax.Array, ket: jax.Array, qubit: int, qubits: int
) -> tuple[jax.Array, jax.Array]:
    """The states after CNOT data -> program and a reading of 0 and of 1, not normalised."""
    own = bits(qubits)[qubit]
    return state * ket[own], state * ket[1 - own]


def _gate(state: jax.Array, gate: jax.Array, qubit: int) -> jax.Array:
    """The state (2^n,) after a gate (2, 2) on one qubit."""
    shaped = state.reshape(2**qubit, 2, -1)
    return jnp.einsum("ij,ajb->aib", gate, shaped, precision="highest").reshape(-1)


def read_program(program: ArrayLike) -> jax.Array:
    """The distribution of what a curious client reads from a program by phase estimation.

    The k program qubits are the register of phase estimation: after the inverse Fourier transform
    the outcome y stands for the angle 2 pi y / 2^k.

    Args:
      program: (k, 2) program qubits, as `program` makes them.

    Returns:
      (2^k,) probabilities of the outcomes y.

    Raises:
      ValueError: if the shape is wrong.

    Reference: Kitaev, arXiv:quant-ph/9511026, for phase estimation; that it reads programs is our
    observation.

    >>> print(read_program(program(2 * np.pi * 5 / 8, 3)).round(4))
    [0. 0. 0. 0. 0. 1. 0. 0.]
    """
    kets = jnp.asarray(program)
    if kets.ndim != 2 or not 1 <= kets.shape[0] <= MOST_QUBITS or kets.shape[1] != 2:
        checks.refuse("program", f"have the shape (k, 2) with k in [1, {MOST_QUBITS}]", kets.shape)
    register = jnp.ones(1, complex_dtype(kets.dtype))
    for ket in kets.astype(register.dtype):  # the first has the weight 1 in y, the last 2^(k-1)
        register = (ket[:, None] * register).reshape(-1)
    return probabilities(jnp.fft.fft(register)) / register.shape[0]
