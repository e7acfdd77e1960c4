"""Local steps without a round: every node reports to a server as soon as it has made its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import PyTree
from jaxqring.outer._arrivals import Arrivals

#: `gradient(params, node, step) -> gradient` of a node at a step of its own.
LocalGradient = Callable[[PyTree, jax.Array, jax.Array], PyTree]


class Server(NamedTuple):
    """A server that takes displacements one by one, as pure functions.

    Attributes:
      init: `init(params) -> state`.
      update: `update(displacement, state, params) -> (params, state)`; a displacement is old minus
        new, as a gradient points.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


class DelayedNesterovState(NamedTuple):
    """The state of `delayed_nesterov`.

    Attributes:
      momentum: float32, in the shapes of the parameters.
      waiting: float32, the displacements since the momentum was last renewed, in sum.
      arrivals: () int32 so far.
    """

    momentum: PyTree
    waiting: PyTree
    arrivals: jax.Array


def delayed_nesterov(
    learning_rate: ArrayLike = 0.7,
    momentum: ArrayLike = 0.9,
    *,
    every: int,
    activation: ArrayLike = 0.0,
) -> Server:
    """A server whose momentum waits for several displacements, and is then renewed by their mean.

    With g the displacement that arrives, B the sum of those since the last renewal (g included), m
    the momentum, beta, epsilon, K and c the arguments `momentum`, `learning_rate`, `every` and
    `activation`: on every K-th arrival

        m <- beta m + B / K,  theta <- theta - epsilon ((1 - c K + c) beta m + g / K),  B <- 0,

    and on the others theta <- theta - epsilon (c beta m + g / K). With c = 0 the K arrivals of a
    window add up to one Nesterov step on their mean; with K = 1 every arrival is one, whatever c.

    Args:
      learning_rate: () epsilon, in [0, 1e3].
      momentum: () beta, in [0, 1].
      every: K, an integer of at least 1; the paper takes the number of nodes.
      activation: () c, the share of the momentum that an arrival uses before it is renewed, in
        [0, 1 / K].

    Returns:
      The `Server`. It takes and returns parameters of any floating type, each updated in float32.

    Raises:
      TypeError: if a number is not real.
      ValueError: if `every` is not such an integer, or a concrete number is out of range.

    Reference: Liu et al., arXiv:2401.09135, algorithm 3; defaults as those of its outer steps.

    >>> server = delayed_nesterov(every=2)
    >>> params, state = jnp.zeros(()), server.init(jnp.zeros(()))
    >>> for displacement in (1.0, 3.0):
    ...     params, state = server.update(jnp.float32(displacement), state, params)
    >>> round(float(params), 4), round(float(state.momentum), 4)
    (-2.66, 2.0)
    """
    every = checks.integer("every", every)
    rate, beta, share = (
        checks.bounded(name, value, 0.0, most)[0].astype(jnp.float32)
        for name, value, most in (
            ("learning_rate", learning_rate, 1e3),
            ("momentum", momentum, 1.0),
            ("activation", activation, 1 / every),
        )
    )

    def init(params: PyTree) -> DelayedNesterovState:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), params)
        return DelayedNesterovState(zeros, zeros, jnp.int32(0))

    def update(
        displacement: PyTree, state: DelayedNesterovState, params: PyTree
    ) -> tuple[PyTree, DelayedNesterovState]:
        count = state.arrivals + 1
        renews = count % every == 0
        used = jnp.where(renews, 1 - share * every + share, share)

        def renewed(old: jax.Array, waiting: jax.Array) -> jax.Array:
            return jnp.where(renews, beta * old + waiting / every, old)

        def moved(param: jax.Array, kept: jax.Array, own: jax.Array) -> jax.Array:
            change = rate * (used * beta * kept + own.astype(jnp.float32) / every)
            return (param.astype(jnp.float32) - change).astype(param.dtype)

        waiting = jax.tree.map(
            lambda old, own: old + own.astype(jnp.float32), state.waiting, displacement
        )
        kept = jax.tree.map(renewed, state.momentum, waiting)
        params = jax.tree.map(moved, params, kept, displacement)
        waiting = jax.tree.map(lambda leaf: jnp.where(renews, 0, leaf), waiting)
        return params, DelayedNesterovState(kept, waiting, count)

    return Server(init, update)


class AsynchronousResult(NamedTuple):
    """The end of `run_arrivals`.

    Attributes:
      params: of the server.
      server: its state.
      copies: (N, ...) the parameters that each node took last.
      inner: (N, ...) the states of the inner optimizers, which nodes keep for themselves.
      steps: (N,) int32 inner steps of each node that have arrived.
      displacement: (count,) float32, the 2-norm of each displacement over all parameters.
    """

    params: PyTree
    server: PyTree
    copies: PyTree
    inner: PyTree
    steps: jax.Array
    displacement: jax.Array


def run_arrivals(
    gradient: LocalGradient,
    inner_tx: optax.GradientTransformation,
    server: Server,
    arrivals: Arrivals,
    params: PyTree,
) -> AsynchronousResult:
    """Trains through a list of arrivals, on one device that carries all nodes.

    At each arrival its node makes its inner steps from the copy that it took, the server takes the
    displacement, and the node takes a fresh copy. That is one `lax.scan` over the arrivals, around
    a loop of as many inner steps as each of them has; a loop of traced length has no derivative in
    reverse mode, and JAX says so. Displacements arrive as they were sent: links take no part.

    Args:
      gradient: `gradient(params, node, step)`, pure: that of a node, () int32, at its own step
        number, () int32 from 0 over all its arrivals.
      inner_tx: an Optax transformation, for every node alike.
      server: of `delayed_nesterov`, or with the same methods.
      arrivals: the list.
      params: pytree of floating arrays, of the server and of every node at the start.

    Returns:
      An `AsynchronousResult`.

    Raises:
      TypeError: if `server` is not a Server or `arrivals` not an Arrivals, or a leaf of `params`
        is not real and floating.

    >>> from jaxqring.outer import arrivals
    >>> target = jnp.array([1.0, 3.0])
    >>> found = run_arrivals(
    ...     lambda params, node, step: params - target[node],
    ...     optax.sgd(0.5),
    ...     delayed_nesterov(0.2, 0.5, every=2),
    ...     arrivals((1.0, 1.0), steps=4, count=60),
    ...     jnp.zeros(()),
    ... )
    >>> round(float(found.params), 1), found.steps.tolist()
    (2.0, [120, 120])
    """
    checks.instance("server", server, Server)
    checks.instance("arrivals", arrivals, Arrivals)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            name = "params" + jax.tree_util.keystr(path)
            checks.refuse(name, "be real and floating", leaf, TypeError)
    total = arrivals.num_nodes

    def for_each(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (total, *jnp.shape(leaf))), tree)

    def arrive(carry: tuple, event: tuple[jax.Array, jax.Array]) -> tuple[tuple, jax.Array]:
        params, state, copies, inner, steps = carry
        node, made = event
        copy, own = jax.tree.map(lambda leaf: leaf[node], (copies, inner))

        def step(number: jax.Array, local: tuple[PyTree, Any]) -> tuple[PyTree, Any]:
            here, moments = local
            updates, moments = inner_tx.update(
                gradient(here, node, steps[node] + number), moments, here
            )
            return optax.apply_updates(here, updates), moments

        here, own = lax.fori_loop(0, made, step, (copy, own))
        displacement = jax.tree.map(jnp.subtract, copy, here)
        params, state = server.update(displacement, state, params)
        copies, inner = jax.tree.map(
            lambda leaf, new: leaf.at[node].set(new), (copies, inner), (params, own)
        )
        steps = steps.at[node].add(made)
        return (params, state, copies, inner, steps), optax.tree.norm(displacement)

    start = (
        params,
        server.init(params),
        for_each(params),
        for_each(inner_tx.init(params)),
        jnp.zeros(total, jnp.int32),
    )
    events = jnp.asarray(arrivals.node), jnp.asarray(arrivals.steps)
    end, norms = lax.scan(arrive, start, events)
    return AsynchronousResult(*end, norms.astype(jnp.float32))
