"""The way back of a state from the end of a model of two parties, and readings on it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring._types import GradientMethod, Key
from jaxqring.qmodels._commuting import diagonal_form
from jaxqring.qmodels._hop_noise import cross
from jaxqring.qmodels._parties import PARTIES, Prepared, TwoParty, by_layer, forward
from jaxqring.qmodels._pauli_strings import weight
from jaxqring.qmodels._unitaries import Gates, act, apply_part, parts, rotate_by

#: Called for the strings of a group, the two branches of the state there, and a key.
Visit = Callable[[Gates, jax.Array, Key | None], Any]


def walk_back(model: TwoParty, begin: Prepared, visit: Visit, keys: Key | None) -> dict[str, Any]:
    """Runs a model to its end and back, and visits every commuting group.

    Args:
      model: the model.
      begin: of one input.
      visit: sees the two branches of the state, (2, 2^n) or (2, 2^n, 2^n), for the outcomes +1 and
        -1 of Y on the ancilla, each of which has the probability 1/2.
      keys: (L, groups) for it, or None.

    Returns:
      The results of `visit` for each party, whose arrays (P of the group, ...) become (L, P, ...).
    """
    dense = begin.hops is not None
    end = forward(model, begin)
    quarters = jnp.pi / 2 * jnp.array([1, -1], end.real.dtype)
    quarters = quarters.reshape(2, *[1] * (end.ndim - 1), 1)
    branches = jnp.broadcast_to(end, (2, *end.shape))
    branches = act(branches, lambda own: rotate_by(own, (model.observable,), quarters), dense)

    def layer(state: jax.Array, given: Any) -> tuple[jax.Array, dict[str, Any]]:
        own, keys = given
        found: dict[str, Any] = {}
        for place, party in enumerate(PARTIES):  # Alice first, who was last
            results = []
            for part in reversed(parts(getattr(model, party), commuting=True)):
                if not isinstance(part, str):
                    key = None if keys is None else keys[0]
                    keys = None if keys is None else keys[1:]
                    results.append(visit(part.strings, state, key))
                undo = functools.partial(apply_part, part=part, angles=own[party], inverse=True)
                state = act(state, undo, dense)
            found[party] = jax.tree.map(lambda *of: jnp.concatenate(of), *results[::-1])
            if dense:
                state = cross(state, own["hops"][1 - place])
        return state, found

    return lax.scan(layer, branches, (by_layer(begin), keys), reverse=True)[1]


def shadow_scales(strings: Gates, like: jax.Array) -> jax.Array:
    """(P,) 3^(w + 1) of each string, by which a reading of its shadow is multiplied."""
    return jnp.array([3.0 ** (weight(string) + 1) for string in strings], like.dtype)


def measure(
    strings: Gates, law: jax.Array, method: GradientMethod, shots: int, key: Key
) -> jax.Array:
    """(P,) the estimates of a group from the outcomes (2, 2^n) of the two branches."""
    values = jnp.asarray(diagonal_form(strings)[2], law.dtype)
    # The outcome of -Y on the ancilla, times that of each string.
    values = jnp.concatenate([-values, values], axis=-1)
    cumulative = jnp.cumsum(jnp.maximum(law, 0).reshape(-1))

    def readings(key: Key) -> jax.Array:
        # In (0, 1], so that no outcome of probability zero is found, by rounding or otherwise.
        uniform = 1 - jax.random.uniform(key, (shots,), cumulative.dtype)
        return values[:, jnp.searchsorted(cumulative, uniform * cumulative[-1])]

    first, second = jax.random.split(key)
    signs = readings(first)
    if method == "bell":
        signs = signs * readings(second)
    if method == "shadows":
        letters = jnp.array([["IXYZ".index(letter) for letter in "Y" + s] for s in strings])
        bases = jax.random.randint(second, (shots, letters.shape[1]), 1, 4)
        is_read = jnp.all((letters[:, None] == 0) | (letters[:, None] == bases), axis=-1)
        signs = signs * is_read * shadow_scales(strings, signs)[:, None]
    return jnp.mean(signs, axis=-1)
