"""Loops that average displacements and take a Nesterov step, or none: local SGD and DiLoCo."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring.codec import Float32
from jaxqring.outer._averages import Average, as_average
from jaxqring.outer._loop import make_loop
from jaxqring.outer._outer_types import Loop, Method, OuterState, Received, of_slow
from jaxqring.outer._stability import (
    LoopKind,
    check_rates,
    round_matrix,
    traced_radius,
    warn_unless_stable,
)
from jaxqring.ring import Ring, pmean

#: The rates of DiLoCo, and rates with which a delayed step is stable for every share up to 1.6.
_RATES = {"sync": (0.7, 0.9), "delayed": (0.3, 0.3), "eager": (0.4, 0.5)}


class Nesterov(NamedTuple):
    """The state of an outer Nesterov step on a fragment.

    Attributes:
      momentum: m, like the slow parameters.
      stale: of "delayed" the mean of the round before, of "eager" that without the part of this
        node; None for "sync".
      secant: (2,) float32 of the estimate of the share: <Delta, m> and <s, m>, where s is the last
        step of the slow parameters, minus its sign.
    """

    momentum: PyTree
    stale: PyTree | None
    secant: jax.Array


def dot(a: PyTree, b: PyTree) -> jax.Array:
    """() float32 the inner product of two trees, for measurements, which have no derivative."""
    a, b = lax.stop_gradient((a, b))  # of a norm that is zero it would be infinite
    products = jax.tree.map(lambda x, y: jnp.sum(x * y, dtype=jnp.float32), a, b)
    return sum(jax.tree.leaves(products), jnp.float32(0))


def _quotient(above: jax.Array, below: jax.Array) -> jax.Array:
    """A quotient, 0 where the divisor is 0."""
    return jnp.where(below == 0, 0, above / jnp.where(below == 0, 1, below))


def _nesterov(kind: LoopKind, eta: float, mu: float, num_nodes: Callable[[], int]) -> Method:
    def init(slow: PyTree) -> Nesterov:
        zeros = jax.tree.map(jnp.zeros_like, slow)
        stale = None if kind == "sync" else jax.tree.map(jnp.zeros_like, slow)
        return Nesterov(zeros, stale, jnp.zeros(2, jnp.float32))

    def receive(mean: PyTree, sent: PyTree, slow: PyTree, own: Nesterov, here: PyTree) -> Received:
        del here
        step, stale = mean, None
        if kind == "delayed":
            step, stale = own.stale, mean
        elif kind == "eager":
            nodes = num_nodes()
            warn_unless_stable(kind, eta, mu, nodes)
            step = jax.tree.map(lambda a, b: a + b / nodes, own.stale, sent)
            stale = jax.tree.map(lambda a, b: a - b / nodes, mean, sent)
        # Delta changes by -r s where theta has changed by -s; along m, as no older Delta is kept.
        # Eager nodes have changes of their own.
        seen = sent if kind == "eager" else mean
        share = _quotient(own.secant[0] - dot(seen, own.momentum), own.secant[1])
        momentum = jax.tree.map(lambda m, g: mu * m + g, own.momentum, step)
        ahead = jax.tree.map(lambda m, g: eta * (g + mu * m), momentum, step)
        slow = jax.tree.map(lambda a, b: a - b, slow, ahead)
        secant = jnp.stack([dot(seen, momentum), dot(ahead, momentum)])
        return Received(slow, Nesterov(momentum, stale, secant), share=share)

    def radius(share: jax.Array) -> jax.Array:
        nodes = num_nodes() if kind == "eager" else None
        return traced_radius(round_matrix(kind, share, eta, mu, nodes))

    return Method(init, receive, radius=radius)


class LastNorm(NamedTuple):
    """The state of plain averaging on a fragment.

    Attributes:
      norm: () float32 of the mean displacement of the last round.
    """

    norm: jax.Array


def local_sgd(
    inner_tx: optax.GradientTransformation,
    average: Average | Callable[[PyTree, Key | None], PyTree],
    *,
    every: int,
    key: Key | None = None,
) -> Loop:
    """Local steps, and the mean of the parameters every H of them: theta <- theta - Delta.

    With `every=1` and SGD whose learning rate is a power of two this is the training on averaged
    gradients, bit for bit, over `lax.pmean` and over a ring of fixed point, whose scales are powers
    of two. With another rate it is the product with the rate that is rounded and then averaged, not
    the other way round: over `lax.pmean` of N nodes the parameters then differ, in one step and to
    first order, by (N + 1) 2^-23 times the rate times the mean magnitude of the gradients, and by a
    unit in their last place, at most.

    The share of the way that a round closes is estimated as 1 - |Delta_t| / |Delta_(t-1)|.

    Args:
      inner_tx: the inner optimizer; its state stays local.
      average: of displacements over the nodes: `jaxqring.outer.over_ring`, `secure`, `compressed`
        or `exact`, or a function (tree, key) -> mean, of which nothing is counted.
      every: H, inner steps of a round.
      key: typed PRNG key, the same on all nodes, into which the number of the round is folded;
        None where nothing is drawn.

    Returns:
      A `Loop`; its `replica` is the mean of the last round.

    Raises:
      TypeError: if `inner_tx` is no optimizer or averages over nodes already, `average` no average,
        or the key no typed key.
      ValueError: if `every` is no positive integer. Calls of `update` refuse a step that is mapped
        and gradients that are summed already.

    Reference: McMahan et al., 1602.05629; Stich, 1805.09767.

    >>> from jaxqring.outer import exact
    >>> loop = local_sgd(optax.sgd(0.5), exact("nodes"), every=2)
    >>> grads = jnp.array([[1.0], [3.0]])
    >>> params = jnp.zeros((2, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> update = jax.vmap(lambda g, s, p, step: loop.update(g, s, p, step=step),
    ...                   in_axes=(0, 0, 0, None), axis_name="nodes")
    >>> for step in range(2):
    ...     params, state = update(grads, state, params, step)
    ...     print(params.ravel())
    [-0.5 -1.5]
    [-2. -2.]
    """

    def init(slow: PyTree) -> LastNorm:
        del slow
        return LastNorm(jnp.float32(0))

    def receive(mean: PyTree, sent: PyTree, slow: PyTree, own: LastNorm, here: PyTree) -> Received:
        del sent, here
        norm = jnp.sqrt(dot(mean, mean))
        slow = jax.tree.map(lambda a, b: a - b, slow, mean)
        share = jnp.where(own.norm > 0, 1 - _quotient(norm, own.norm), 0)
        return Received(slow, LastNorm(norm), share=share)

    def radius(share: jax.Array) -> jax.Array:
        return jnp.abs(1 - share)

    method = Method(init, receive, radius=radius)
    return make_loop(inner_tx, as_average(average), method, every=every, key=key)


def diloco(
    inner_tx: optax.GradientTransformation,
    average: Average | Callable[[PyTree, Key | None], PyTree],
    *,
    every: int,
    learning_rate: float | None = None,
    momentum: float | None = None,
    fragments: int = 1,
    overlap: int = 0,
    blend: float = 0.0,
    delayed: bool = False,
    eager: bool = False,
    key: Key | None = None,
) -> Loop:
    """DiLoCo: the mean displacement of H local steps is the gradient of an outer Nesterov step.

    m <- mu m + Delta;  theta <- theta - eta (Delta + mu m), as `optax.sgd(eta, mu, nesterov=True)`.

    **Fragments.** F parts of the parameters, whole leaves in balance, each with a round of its own
    every H steps: fragment f after (f + 1) H / F of them, so that what is sent at a time is 1 / F.
    With an overlap of tau a mean is received tau inner steps after it was sent, and a node goes on
    from alpha theta_i + (1 - alpha) theta, alpha being `blend`.

    **Delayed, eager.** What is sent in a round is received at the end of the next one, so that all
    of a round hides the communication. "Delayed" steps with Delta^(t-1), of which there is none in
    the first round; "eager" with g_i = Delta^(t-1) + (Delta_i^t - Delta_i^(t-1)) / N, so that no
    two replicas are ever equal. With the rates of the paper on streaming, 0.7 and 0.9, both
    diverge where inner steps get far (see `largest_share`), so that they have other defaults here.
    Those of delayed steps are smaller than stability asks for: with Adam inside, a displacement
    does not shrink as the gap does, and what is stale must weigh less than on a quadratic.

    A round is received as sent, at once in the simulation; an aborted one is known before anything
    is sent, when its masks fail: nodes then go on from their own parameters, and what they are
    displaced by goes into the next round.

    The share r of the way to the optimum that a round closes is estimated along the momentum, as
    <Delta_t - Delta_(t+1), m> / <s, m>, s being the last change of theta, minus its sign: exact on
    a quadratic where all directions close alike, an average over directions on others. What decides
    about stability is the largest one, which may be larger. With fragments, that of the last one;
    of eager steps, that of this node.

    Args:
      inner_tx: the inner optimizer; its state stays local.
      average: of displacements over the nodes, as for `local_sgd`; of "eager" an `Average`, which
        knows the number of nodes.
      every: H, inner steps of a round.
      learning_rate: eta; 0.7 unless given, 0.3 for delayed and 0.4 for eager steps.
      momentum: mu in [0, 1); 0.9 unless given, 0.3 for delayed and 0.5 for eager steps.
      fragments: F, which divides H.
      overlap: tau, inner steps until a mean is received; below H / F.
      blend: alpha in [0, 1), weight of a node's own parameters.
      delayed: whether to step with the mean of the round before.
      eager: whether to do so with the fresh part of the node itself.
      key: typed PRNG key, as for `local_sgd`.

    Returns:
      A `Loop`. Its `replica` are the slow parameters; of "eager" their mean over the nodes, exact
      in float32, which needs the axis.

    Raises:
      TypeError: as `local_sgd`.
      ValueError: as `local_sgd`; if a number is out of range, or options exclude each other.

    Warns:
      UserWarning: if a round is unstable for some share in (0, 1]; of "eager", in `update`.

    Reference: Douillard et al., 2311.08105; streaming: 2501.18512; eager: 2502.12996.

    >>> from jaxqring.outer import exact
    >>> loop = diloco(optax.sgd(0.5), exact("nodes"), every=1, learning_rate=1.0, momentum=0.5)
    >>> params = jnp.zeros((2, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> update = jax.vmap(lambda g, s, p, step: loop.update(g, s, p, step=step),
    ...                   in_axes=(0, 0, 0, None), axis_name="nodes")
    >>> params, state = update(jnp.array([[1.0], [3.0]]), state, params, 0)
    >>> params.ravel(), state.rounds
    (Array([-1.5, -1.5], dtype=float32), Array([1, 1], dtype=int32))
    """
    for name, value in (("delayed", delayed), ("eager", eager)):
        checks.one_of(name, value, (True, False))
    if delayed and eager:
        checks.refuse("eager", "be False with `delayed`, which it replaces", eager)
    kind: LoopKind = "delayed" if delayed else "eager" if eager else "sync"
    checks.within("blend", blend)
    if not blend < 1:
        checks.refuse("blend", "be below 1, where nodes never learn of each other", blend)
    if kind != "sync":
        for name, number, usual in (
            ("fragments", fragments, 1),
            ("overlap", overlap, 0),
            ("blend", blend, 0),
        ):
            if number != usual:
                checks.refuse(
                    name, f"be {usual} for {kind} steps, whose overlap is a round", number
                )
    eta, mu = _RATES[kind]
    eta = eta if learning_rate is None else learning_rate
    mu = mu if momentum is None else momentum
    check_rates(eta, mu)
    eta, mu = float(eta), float(mu)
    average = as_average(average)
    if kind != "eager":
        warn_unless_stable(kind, eta, mu)
    method = _nesterov(kind, eta, mu, average.num_nodes)
    loop = make_loop(
        inner_tx,
        average,
        method,
        every=every,
        key=key,
        fragments=fragments,
        overlap=overlap,
        blend=float(blend),
    )
    if kind != "eager":
        return loop
    return loop._replace(replica=mean_replica(average))


def mean_replica(average: Average) -> Callable[[PyTree, OuterState], PyTree]:
    """The `replica` of loops whose nodes have slow parameters of their own: the mean of them.

    In float32 and without error, in an order that does not depend on the mapping.

    Raises:
      ValueError: if the average does not know its axis.
    """
    axis_name = average.known_axis()

    def replica(params: PyTree, state: OuterState) -> PyTree:
        ring = Ring(wire=Float32(), noise="off", nodes_per_device=average.nodes_per_device)
        return of_slow(pmean(state.slow, axis_name, ring=ring, key=None), params)

    return replica
