"""One measurement that reads several commuting Pauli strings from one copy of a state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring.qmodels._pauli_strings import commute
from jaxqring.qmodels._states import bits, probabilities
from jaxqring.qmodels._unitaries import Gates, act, rotate_by

#: The product of two letters without its phase, and the letters whose product has the phase +i.
_LETTERS = {frozenset("XY"): "Z", frozenset("YZ"): "X", frozenset("XZ"): "Y"}
_FORWARD = ("XY", "YZ", "ZX")


def multiply(left: str, right: str) -> tuple[complex, str]:
    """The product of two strings: a phase, 1, i, -1 or -i, and a string.

    >>> multiply("XZ", "YZ")
    (1j, 'ZI')
    """
    quarters, letters = 0, []
    for a, b in zip(left, right, strict=True):
        if "I" in (a, b) or a == b:
            letters.append("I" if a == b else (a + b).replace("I", ""))
        else:
            quarters += 1 if a + b in _FORWARD else -1
            letters.append(_LETTERS[frozenset((a, b))])
    return (1, 1j, -1, -1j)[quarters % 4], "".join(letters)


@functools.cache
def diagonal_form(strings: Gates) -> tuple[Gates, np.ndarray, np.ndarray]:
    """The quarter turns after which commuting strings are all diagonal, and their values then.

    A string P that is not diagonal has an X or Y on some qubit q, and exp(-i pi/4 Q) with
    Q = i Z_q P makes Z_q of it. Strings that are diagonal by then commute with both Z_q and P, and
    stay as they are.

    Returns:
      The strings Q, whose number is at most that of the qubits; their angles (Q,), plus or minus
      pi / 2; and (P, 2^n) the value, +1 or -1, of each string in each outcome of all qubits.

    >>> turns, angles, values = diagonal_form(("XX", "YY"))
    >>> turns, values.tolist()
    (('YX',), [[1, 1, -1, -1], [-1, 1, -1, 1]])
    """
    signed = [(1, string) for string in strings]
    turns, angles = [], []
    while True:
        pending = [string for _, string in signed if set(string) & {"X", "Y"}]
        if not pending:
            break
        qubit = next(q for q, letter in enumerate(pending[0]) if letter in "XY")
        z = "I" * qubit + "Z" + "I" * (len(pending[0]) - qubit - 1)
        phase, turn = multiply(z, pending[0])
        sign = round((1j * phase).real)
        turns.append(turn)
        angles.append(sign * np.pi / 2)
        for place, (factor, string) in enumerate(signed):
            if not commute(turn, string):  # becomes -i Q P
                phase, product = multiply(turn, string)
                signed[place] = (factor * sign * round((-1j * phase).real), product)
    of = bits(len(strings[0]))
    parity = [
        sum((of[q] for q, c in enumerate(s) if c == "Z"), np.zeros(of.shape[1], int)) & 1
        for _, s in signed
    ]
    values = np.array([factor for factor, _ in signed])[:, None] * (1 - 2 * np.stack(parity))
    return tuple(turns), np.array(angles), values


def outcome_law(state: jax.Array, strings: Gates, dense: bool) -> jax.Array:
    """(..., 2^n) the probabilities of the outcomes that `diagonal_form` gives values.

    Args:
      state: (..., 2^n), or (..., 2^n, 2^n) if `dense`.
      strings: commuting strings.
      dense: True for density matrices.
    """
    turns, angles, _ = diagonal_form(strings)
    if turns:
        angle = jnp.asarray(angles, state.real.dtype)
        state = act(state, lambda own: rotate_by(own, turns, angle), dense)
    if not dense:
        return probabilities(state)
    return jnp.diagonal(state, axis1=-2, axis2=-1).real
