"""Losses of models of two parties with teleported hops, by the Pauli errors of every run.

A state vector for each run, where the density matrix would be too large.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring._types import Key
from jaxqring.physics._pair import Pair
from jaxqring.qmodels._parties import Angles, TwoParty, by_layer, prepare
from jaxqring.qmodels._unitaries import expectations, turn

#: Runs that are simulated at once.
_AT_ONCE = 64


def trajectories(
    model: TwoParty, pair: Pair, angles: Angles, x: ArrayLike, shots: int, key: Key
) -> jax.Array:
    """(...) averages of m outcomes of +1 or -1, each of a run with errors of its own.

    Args:
      model: the model.
      pair: the resource of its hops.
      angles: {"alice": (..., L, P_A), "bob": (..., L, P_B)} radians.
      x: (..., N) data.
      shots: m.
      key: typed PRNG key.
    """
    begin = prepare(model, angles, x, dense=False)
    probs = jnp.broadcast_to(pair.bell_probs, (model.hops, 4)).reshape(model.layers, 2, 4)
    # Bell state 2a + b of the pair leaves the error X^a Z^b.
    edges = jnp.cumsum(probs, axis=-1)[..., :3]

    def outcome(key: Key) -> jax.Array:
        of_errors, of_outcome = jax.random.split(key)
        batch = begin.state.shape[:-1]
        shape = (model.layers, 2, *batch, model.qubits)
        uniform = jax.random.uniform(of_errors, shape, edges.dtype)
        walls = edges.reshape(model.layers, 2, *[1] * (len(batch) + 1), 3)
        errors = jnp.sum(uniform[..., None] >= walls, axis=-1)

        def layer(state: jax.Array, given: tuple) -> tuple[jax.Array, None]:
            own, errors = given
            for hop, party in enumerate(("bob", "alice")):
                state = _err(state, errors[hop])
                state = turn(state, getattr(model, party), own[party], dense=False)
            return state, None

        state = lax.scan(layer, begin.state, (by_layer(begin), errors))[0]
        mean = expectations(state, (model.observable,))[0]
        heads = jax.random.uniform(of_outcome, batch, mean.dtype) < (1 + mean) / 2
        return jnp.where(heads, 1, -1).astype(mean.dtype)

    return jnp.mean(lax.map(outcome, jax.random.split(key, shots), batch_size=_AT_ONCE), axis=0)


def _err(state: jax.Array, errors: jax.Array) -> jax.Array:
    """States (..., 2^n) after X^a Z^b on every qubit, with errors 2a + b (..., n)."""
    flips, signs = _places(errors >> 1), _places(errors & 1)
    index = np.arange(state.shape[-1])
    odd = jax.lax.population_count(index & signs) & 1
    return jnp.take_along_axis(state * (1 - 2 * odd), index ^ flips, axis=-1)


def _places(of_qubit: jax.Array) -> jax.Array:
    """(..., 1) the mask of the qubits (..., n) that have a one."""
    return jnp.sum(of_qubit * 2 ** np.arange(of_qubit.shape[-1])[::-1], axis=-1, keepdims=True)
