"""Unitaries of many rotations about Pauli strings, with fixed entanglers between them.

A unitary is a tuple of gates in the order of time: a string such as "XXI" is a rotation
exp(-i t P / 2) with an angle t of its own, a name such as "cz-ring" an entangler. Rotations that
follow each other are one loop over tables: it compiles in a twentieth of the time of gates written
out, and runs faster. Where all of them act on one qubit each, they are multiplied to one gate on
every qubit.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import _checks as checks
from jaxqring._varying import as_varying, varying
from jaxqring.physics._paulis import PAULIS
from jaxqring.qmodels._pauli_strings import check_pauli, commute, tables, weight
from jaxqring.qmodels._states import Entangler, entangle, one_qubit_layer

Gates = tuple[str, ...]
_ENTANGLERS = get_args(Entangler)


class Rotations(NamedTuple):
    """Rotations that follow each other, and the place of the first among the angles."""

    strings: Gates
    first: int


def check_gates(argument: str, gates: Sequence[str], qubits: int) -> Gates:
    """The gates as a tuple, or a refusal of what is not a sequence of strings and entanglers."""
    if isinstance(gates, str) or not isinstance(gates, Sequence):
        checks.refuse(argument, "be a sequence of Pauli strings and entanglers", gates, TypeError)
    for gate in gates:
        if gate not in _ENTANGLERS:
            check_pauli(f"a gate of `{argument}`", gate, qubits)
    if num_angles(tuple(gates)) == 0:
        checks.refuse(argument, "have at least one rotation", tuple(gates))
    return tuple(gates)


def num_angles(gates: Gates) -> int:
    """The number of rotations, each with an angle of its own."""
    return sum(gate not in _ENTANGLERS for gate in gates)


@functools.cache
def parts(gates: Gates, commuting: bool = False) -> tuple[Rotations | str, ...]:
    """Runs of rotations and entanglers in the order of time.

    With `commuting` a run ends where a string does not commute with all others of the run, so that
    one measurement reads all of its strings.

    >>> parts(("XI", "ZZ", "YI", "cz-ring", "YI"))
    (Rotations(strings=('XI', 'ZZ', 'YI'), first=0), 'cz-ring', Rotations(strings=('YI',), first=3))
    >>> [part.strings for part in parts(("XX", "ZZ", "ZI", "IZ"), commuting=True)]
    [('XX', 'ZZ'), ('ZI', 'IZ')]
    """
    found: list[Rotations | str] = []
    place = 0
    for gate in gates:
        if gate in _ENTANGLERS:
            found.append(gate)
            continue
        last = found[-1] if found else None
        if isinstance(last, Rotations) and not (
            commuting and not all(commute(gate, other) for other in last.strings)
        ):
            found[-1] = Rotations((*last.strings, gate), last.first)
        else:
            found.append(Rotations((gate,), place))
        place += 1
    return tuple(found)


@functools.cache
def stacked(strings: Gates) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2^n) the sources and the phases of strings: (P_k psi)[i] = phase[k, i] psi[source]."""
    flips, phases = zip(*(tables(string) for string in strings), strict=True)
    index = np.arange(phases[0].size, dtype=np.int32)
    return index ^ np.array(flips, np.int32)[:, None], np.stack(phases)


def rotate_by(state: jax.Array, strings: Gates, angles: jax.Array) -> jax.Array:
    """States (..., 2^n) after rotations about strings, in order, by angles (..., P) in radians."""
    sources, phases = stacked(strings)

    @jax.checkpoint  # a gate is cheaper than the memory of what it computed
    def step(state: jax.Array, gate: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        source, phase, half = gate
        half = half[..., None]
        return jnp.cos(half) * state - 1j * jnp.sin(half) * (phase * state[..., source]), None

    halves = jnp.moveaxis(angles, -1, 0) / 2
    gates = (jnp.asarray(sources), jnp.asarray(phases, state.dtype), halves)
    return lax.scan(step, state, gates)[0]


def rotate_each(state: jax.Array, strings: Gates, angles: jax.Array) -> jax.Array:
    """As `rotate_by`, for strings of one letter, which are multiplied to a gate on every qubit."""
    qubits = len(strings[0])
    own = np.array([[string[q] != "I" for q in range(qubits)] for string in strings])
    letters = np.array(["IXYZ".index(string.strip("I")) for string in strings])

    def step(each: jax.Array, gate: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        is_own, pauli, half = gate
        half = half[..., None, None, None]
        later = jnp.cos(half) * each - 1j * jnp.sin(half) * _two_by_two(pauli, each)
        return jnp.where(is_own[:, None, None], later, each), None

    identity = jnp.broadcast_to(jnp.eye(2, dtype=state.dtype), (*angles.shape[:-1], qubits, 2, 2))
    halves = jnp.moveaxis(angles, -1, 0) / 2
    gates = jnp.asarray(own), jnp.asarray(PAULIS[letters], state.dtype), halves
    each = lax.scan(step, as_varying(identity, varying(angles)), gates)[0]
    return one_qubit_layer(state, each)


def _two_by_two(left: jax.Array, right: jax.Array) -> jax.Array:
    return left[:, :1] * right[..., :1, :] + left[:, 1:] * right[..., 1:, :]


def apply(state: jax.Array, gates: Gates, angles: jax.Array) -> jax.Array:
    """States (..., 2^n) after a unitary with angles (..., P) in radians.

    The batch of the angles has to broadcast to that of the states.
    """
    for part in parts(gates):
        state = apply_part(state, part, angles)
    return state


def columns(gates: Gates, angles: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """(..., 2^n, 2^n) the transpose of a unitary with angles (..., P): row j is U|j>."""
    size = 2 ** len(next(part for part in parts(gates) if not isinstance(part, str)).strings[0])
    identity = jnp.broadcast_to(jnp.eye(size, dtype=dtype), (*angles.shape[:-1], size, size))
    return apply(as_varying(identity, varying(angles)), gates, angles[..., None, :])


def turn(state: jax.Array, gates: Gates, angles: jax.Array, dense: bool) -> jax.Array:
    """States (..., 2^n), or density matrices (..., 2^n, 2^n), after a unitary.

    For density matrices, and for more states than amplitudes that share their angles, the gates are
    multiplied to one matrix first.
    """
    if dense:
        rows = columns(gates, angles, state.dtype)
        left = jnp.einsum("...ji,...jk->...ik", rows, state, precision="highest")
        return jnp.einsum("...ij,...jk->...ik", left, rows.conj(), precision="highest")
    if angles.ndim == 1 and state.size > state.shape[-1] ** 2:
        return jnp.matmul(state, columns(gates, angles, state.dtype), precision="highest")
    return apply(state, gates, angles)


def apply_part(
    state: jax.Array, part: Rotations | str, angles: jax.Array, inverse: bool = False
) -> jax.Array:
    """States (..., 2^n) after one part of a unitary, whose angles (..., P) are given, or undone."""
    if isinstance(part, str):
        return entangle(state, part, inverse=inverse)
    own = angles[..., part.first : part.first + len(part.strings)]
    strings = part.strings
    if inverse:
        strings, own = strings[::-1], -own[..., ::-1]
    one_letter = all(weight(string) == 1 for string in strings)
    return (rotate_each if one_letter else rotate_by)(state, strings, own)


def act(state: jax.Array, gates: Callable[[jax.Array], jax.Array], dense: bool) -> jax.Array:
    """States (..., 2^n) after gates; if `dense`, density matrices (..., 2^n, 2^n)."""
    if not dense:
        return gates(state)
    for _ in range(2):  # rho -> (U rho)^dagger, twice
        state = gates(jnp.swapaxes(state, -1, -2)).conj()
    return state


def expectations(state: jax.Array, strings: Gates) -> jax.Array:
    """(P, ...) <psi|P_k|psi> of strings in states (..., 2^n)."""
    sources, phases = stacked(strings)

    def one(table: tuple[jax.Array, jax.Array]) -> jax.Array:
        source, phase = table
        return jnp.sum((state.conj() * phase * state[..., source]).real, axis=-1)

    return lax.map(one, (jnp.asarray(sources), jnp.asarray(phases, state.dtype)))


def dense_expectations(rho: jax.Array, strings: Gates) -> jax.Array:
    """(P, ...) Tr[P_k rho] of strings in density matrices (..., 2^n, 2^n)."""
    sources, phases = stacked(strings)
    index = np.arange(sources.shape[-1])

    def one(table: tuple[jax.Array, jax.Array]) -> jax.Array:
        source, phase = table
        return jnp.sum((phase * rho[..., source, index]).real, axis=-1)

    return lax.map(one, (jnp.asarray(sources), jnp.asarray(phases, rho.dtype)))
