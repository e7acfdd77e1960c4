"""CO2: an average that was started a round ago, and an outer step with momentum and a clip."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.outer._averages import Average, as_average, same_structure
from jaxqring.outer._loop import make_loop
from jaxqring.outer._outer_types import Loop, Method, Received, master
from jaxqring.outer._stability import check_rates, warn_unless_stable


class CO2State(NamedTuple):
    """The state of CO2.

    Attributes:
      momentum: m, like the slow parameters.
      mean: the average of parameters under way.
      before: the slow parameters of the round before; None where no function of them is used.
      started: () bool, True once an average is under way.
    """

    momentum: PyTree
    mean: PyTree
    before: PyTree | None
    started: jax.Array


def co2(
    inner_tx: optax.GradientTransformation,
    average: Average | Callable[[PyTree, Key | None], PyTree],
    *,
    every: int,
    learning_rate: float = 1.0,
    momentum: float = 0.5,
    clip: float | None = 1.0,
    gap: float | Callable[[PyTree, PyTree], PyTree] = 1.0,
    key: Key | None = None,
) -> Loop:
    """CO2: the average of a round arrives at the end of the next one, which hides all of it.

    With x the slow parameters and x_bar the mean of the nodes' parameters a round ago:
    m <- clip(beta m + (x - x_bar) / lambda, -phi, phi);  x <- x - eta m;  all nodes go on from x.
    The first round only starts an average; nodes go on from their own parameters.

    The defaults are those of the public code, whose clip however discards its result, so that a
    training with it is one with `clip=None` here. The paper's lambda is adaptive, a gap of
    staleness; its formula is not in the code, which has the constant 1. A function for it can be
    given here, and is the caller's reading.

    Without the clip the defaults are stable on a quadratic for every share below 1.5, see
    `largest_share`. A clip bounds a step and makes nothing stable.

    Args:
      inner_tx: the inner optimizer; its state stays local.
      average: of displacements over the nodes, as for `local_sgd`.
      every: H, inner steps of a round.
      learning_rate: eta.
      momentum: beta in [0, 1), of heavy ball and not Nesterov.
      clip: phi, bound on the magnitude of every entry of m; None for none.
      gap: lambda, or a function of the slow parameters of this round and the one before to it: a
        number, or a tree like them. It must not be zero where they are equal, as they are at first.
      key: typed PRNG key, as for `local_sgd`.

    Returns:
      A `Loop`; its `replica` are the slow parameters.

    Raises:
      TypeError, ValueError: as `local_sgd`; if a number is out of range.

    Warns:
      UserWarning: if the gap is a number and a round is unstable for some share in (0, 1].

    Reference: Sun et al., 2401.16265.

    >>> from jaxqring.outer import exact
    >>> loop = co2(optax.sgd(1.0), exact("nodes"), every=1)
    >>> params = jnp.zeros((2, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> update = jax.vmap(lambda g, s, p, step: loop.update(g, s, p, step=step),
    ...                   in_axes=(0, 0, 0, None), axis_name="nodes")
    >>> for step in range(2):
    ...     params, state = update(jnp.array([[0.1], [0.3]]), state, params, step)
    ...     print(params.ravel())
    [-0.1 -0.3]
    [-0.2 -0.2]
    """
    check_rates(learning_rate, momentum)
    for name, value in (("clip", clip), ("gap", gap)):
        if value is not None and not callable(value):
            checks.open_interval(name, value, 0.0, np.inf)
    if callable(clip):
        checks.refuse("clip", "be a number or None", clip, TypeError)
    eta, beta = float(learning_rate), float(momentum)
    if not callable(gap):
        warn_unless_stable("co2", eta / float(gap), beta)

    def init(slow: PyTree) -> CO2State:
        zeros = jax.tree.map(jnp.zeros_like, slow)
        before = jax.tree.map(jnp.array, slow) if callable(gap) else None
        return CO2State(zeros, jax.tree.map(jnp.array, slow), before, jnp.zeros((), bool))

    def receive(mean: PyTree, sent: PyTree, slow: PyTree, own: CO2State, here: PyTree) -> Received:
        del sent
        weight = gap(slow, own.before) if callable(gap) else gap

        def stepped(m: jax.Array, x: jax.Array, bar: jax.Array, weight: Any) -> jax.Array:
            moved = beta * m + (x - bar) / weight
            moved = moved if clip is None else jnp.clip(moved, -clip, clip)
            return jnp.where(own.started, moved, m).astype(m.dtype)

        weights = weight
        if not same_structure(weight, slow):
            weights = jax.tree.map(lambda _: weight, slow)
        m = jax.tree.map(stepped, own.momentum, slow, own.mean, weights)
        after = jax.tree.map(lambda x, m: x - eta * m, slow, m)
        params = jax.tree.map(lambda a, b: jnp.where(own.started, a, master(b)), after, here)
        bar = jax.tree.map(lambda x, delta: x - delta, slow, mean)
        before = slow if callable(gap) else None
        state = CO2State(m, bar, before, jnp.ones((), bool))
        return Received(after, state, params)

    return make_loop(inner_tx, as_average(average), Method(init, receive), every=every, key=key)
