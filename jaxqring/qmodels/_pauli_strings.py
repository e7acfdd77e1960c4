"""Products of Paulis on several qubits, written as strings such as "ZIX".

A string acts on a state by a permutation of its amplitudes and a phase for each:
(P psi)[i] = phase[i] psi[i ^ flips].
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring.physics._paulis import PAULIS
from jaxqring.qmodels._states import MOST_QUBITS


def check_pauli(argument: str, string: str, qubits: int | None = None) -> str:
    """The string, or a refusal of what is not made of I, X, Y and Z, one for each qubit."""
    if not isinstance(string, str) or not string or set(string) - set("IXYZ"):
        checks.refuse(argument, "be a string of the letters I, X, Y and Z", string)
    if len(string) > MOST_QUBITS:
        checks.refuse(argument, f"have at most {MOST_QUBITS} letters", string)
    if qubits is not None and len(string) != qubits:
        checks.refuse(argument, f"have a letter for each of the {qubits} qubits", string)
    return string


def weight(string: str) -> int:
    """The number of qubits on which a string is not the identity."""
    return len(string) - string.count("I")


def commute(left: str, right: str) -> bool:
    """True if two strings commute: they differ on an even number of qubits that both act on.

    >>> commute("XX", "ZZ"), commute("XI", "ZZ")
    (True, False)
    """
    differ = sum(a != b and "I" not in (a, b) for a, b in zip(left, right, strict=True))
    return differ % 2 == 0


@functools.cache
def tables(string: str) -> tuple[int, np.ndarray]:
    """The mask of bits that a string flips, and its phases (2^n,) complex64."""
    qubits = len(string)
    index = np.arange(2**qubits)
    flips = sum(1 << (qubits - 1 - q) for q, letter in enumerate(string) if letter in "XY")
    signs = sum(1 << (qubits - 1 - q) for q, letter in enumerate(string) if letter in "YZ")
    # Row i of Y has -i at i = 0 and +i at i = 1; that of Z +1 and -1.
    odd = np.array([bin(i & signs).count("1") & 1 for i in index])
    phase = (-1j) ** string.count("Y") * (1 - 2 * odd)
    return flips, phase.astype(np.complex64)


def apply_pauli(state: jax.Array, string: str) -> jax.Array:
    """P|psi> of states (..., 2^n)."""
    flips, phase = tables(string)
    sources = np.arange(state.shape[-1], dtype=np.int32) ^ flips
    return jnp.asarray(phase, state.dtype) * state[..., sources]


def rotate(state: jax.Array, string: str, angle: jax.Array) -> jax.Array:
    """exp(-i angle P / 2)|psi> of states (..., 2^n) and angles (...) in radians."""
    half = jnp.asarray(angle)[..., None] / 2
    turned = apply_pauli(state, string)
    return jnp.cos(half) * state - 1j * jnp.sin(half) * turned


def expectation(state: jax.Array, string: str) -> jax.Array:
    """(...) <psi|P|psi> of states (..., 2^n)."""
    return jnp.sum((state.conj() * apply_pauli(state, string)).real, axis=-1)


def matrix(string: str) -> np.ndarray:
    """(2^n, 2^n) complex matrix of a string."""
    factors = [PAULIS["IXYZ".index(letter)] for letter in string]
    return np.asarray(functools.reduce(np.kron, factors))


def strings(qubits: int) -> list[str]:
    """All 4^n strings, from "I...I" to "Z...Z"."""
    return ["".join(letters) for letters in itertools.product("IXYZ", repeat=qubits)]
