"""Loops whose nodes correct their gradients by control variates: SCAFFOLD, SCALLION, SCAFCOM.

Node i keeps c_i, its own mean gradient of late, and c, that of all nodes. Inner steps follow
g_i - c_i + c, so that nodes with different data pull in the same direction.

All three send one vector of a node in a round. For SCAFFOLD as published (option II) it is two, the
displacement and the change of c_i; but with SGD inside both follow from

    d_i = Delta_i / (lr H) - c,

the mean inner gradient less c_i: Delta_i is lr H (d_i + c), and c_i changes by d_i.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import AxisName, Key, PyTree
from jaxqring.compress import Compressor
from jaxqring.outer._averages import Average, as_average
from jaxqring.outer._loop import make_loop
from jaxqring.outer._outer_types import Loop, Method, Received
from jaxqring.outer._own_messages import check_own, compressed_with_own, with_own
from jaxqring.ring import Ring


class Control(NamedTuple):
    """The control variates of a node, each in the shapes of the parameters.

    Attributes:
      own: c_i, of this node alone: a checkpoint needs that of every node.
      shared: c, the same on all nodes where averages are.
      momentum: v_i of SCAFCOM, of this node alone; None otherwise.
    """

    own: PyTree
    shared: PyTree
    momentum: PyTree | None


def scaffold(
    average: Average | Callable[[PyTree, Key | None], PyTree],
    *,
    every: int,
    inner_rate: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    key: Key | None = None,
) -> Loop:
    """SCAFFOLD, option II, with one vector in a round instead of two.

    H inner steps y <- y - lr (g_i(y) - c_i + c) from x, and then, with the mean d of the d_i,
    x <- x - eta lr H (d + c), c_i <- c_i + d_i, c <- c + d.

    The c_i take up d_i as it is, and c the mean as it is delivered, so that c and the mean of the
    c_i drift apart by what the average rounds off or links get wrong: by some 2^-15 of the largest
    value in a round at 16 bits, in random directions. Bare noisy links let replicas of c drift as
    well: protect them. `scallion` with `Uncompressed` lets c_i take up what was sent, and then
    nothing drifts.

    Args:
      average: over the nodes, as for `local_sgd`.
      every: H, inner steps of a round.
      inner_rate: () lr of SGD, above zero and at most 1e3. The inner steps are those of plain SGD
        at a constant rate; for another optimizer the displacement would not be a mean gradient.
      learning_rate: () eta, in [0, 1e3].
      key: typed PRNG key, as for `local_sgd`.

    Returns:
      A `Loop`; its `replica` are the slow parameters.

    Raises:
      TypeError: if `average` is no average or the key no typed key, or a rate is not real.
      ValueError: if `every` is no positive integer, or a concrete rate is out of range. Calls of
        `update` refuse as those of `local_sgd` do.

    Reference: Karimireddy et al., 1910.06378; the one vector is that of Huang, Li and Li,
    2308.08165.

    >>> from jaxqring.outer import exact
    >>> loop = scaffold(exact("nodes"), every=2, inner_rate=0.1)
    >>> target = jnp.array([[1.0], [3.0]])
    >>> params = jnp.zeros((2, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> update = jax.vmap(lambda g, s, p, step: loop.update(g, s, p, step=step),
    ...                   in_axes=(0, 0, 0, None), axis_name="nodes")
    >>> for step in range(2):
    ...     params, state = update(params - target, state, params, step)
    >>> print(params.ravel().round(2), state.method[0].own.ravel().round(2))
    [0.38 0.38] [-0.95 -2.85]
    """
    average = with_own(as_average(average))
    return _controlled(average, every, inner_rate, learning_rate, key, scale=1.0)


def scallion(
    compressor: Compressor,
    ring: Ring,
    axis_name: AxisName,
    *,
    every: int,
    inner_rate: ArrayLike,
    scale: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    key: Key | None = None,
) -> Loop:
    """SCALLION: SCAFFOLD through an unbiased compressor, one compressed message in a round.

    A node sends C(alpha d_i), and c_i takes up what it has sent. With alpha = 1 and `Uncompressed`
    it is SCAFFOLD, but for what levels of the wire round off.

    Args:
      compressor: `QSGD`, `RandomK`, `TernGrad(clip=None)` or `Uncompressed`; the largest norm that
        nodes share takes the place of their own, as everywhere on a ring.
      ring: as for `jaxqring.compress.compressed_pmean`.
      axis_name: name of the mapped axis.
      every: as for `scaffold`.
      inner_rate: as for `scaffold`.
      scale: () alpha, in (0, 1]: the share of d_i that a round sends. With a compressor whose
        squared error is omega times the square of what it is given, alpha <= 1 / (1 + omega) keeps
        the error below what it replaces.
      learning_rate: as for `scaffold`.
      key: typed PRNG key; None where nothing is drawn.

    Returns:
      A `Loop`; its `replica` are the slow parameters.

    Raises:
      TypeError: as `compressed_pmean` and `scaffold`.
      ValueError: as these; if the compressor is another one, or biased.

    Reference: Huang, Li and Li, 2308.08165, algorithm 1, with all nodes in every round.

    >>> from jaxqring.compress import Uncompressed
    >>> loop = scallion(Uncompressed(), Ring(noise="off"), "nodes", every=2,
    ...                inner_rate=0.1, scale=0.5)
    >>> target = jnp.array([[1.0], [3.0]])
    >>> params = jnp.zeros((2, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> update = jax.vmap(lambda g, s, p, step: loop.update(g, s, p, step=step),
    ...                   in_axes=(0, 0, 0, None), axis_name="nodes")
    >>> for step in range(2):
    ...     params, state = jax.jit(update)(params - target, state, params, step)
    >>> params.ravel().round(2), float(state.qubits[0])
    (Array([0.19, 0.19], dtype=float32), 16.0)
    """
    check_own(compressor, unbiased=True)
    alpha, _ = checks.bounded("scale", scale, 1e-6, 1.0)
    average = compressed_with_own(compressor, ring, axis_name)
    return _controlled(average, every, inner_rate, learning_rate, key, scale=alpha)


def scafcom(
    compressor: Compressor,
    ring: Ring,
    axis_name: AxisName,
    *,
    every: int,
    inner_rate: ArrayLike,
    momentum: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    key: Key | None = None,
) -> Loop:
    """SCAFCOM: SCAFFOLD with local momentum through any compressor, biased ones as well.

    v_i <- (1 - beta) v_i + beta (Delta_i / (lr H) + c_i - c), a node sends C(v_i - c_i), and c_i
    takes up what it has sent. With beta = 1 and `Uncompressed` it is SCAFFOLD, but for what levels
    of the wire round off.

    Args:
      compressor: `TopK(error_feedback=False)`, `TernGrad`, or one that `scallion` takes.
      ring: as for `jaxqring.compress.compressed_pmean`.
      axis_name: name of the mapped axis.
      every: as for `scaffold`.
      inner_rate: as for `scaffold`.
      momentum: () beta, in (0, 1]: the weight of the newest mean gradient.
      learning_rate: as for `scaffold`.
      key: typed PRNG key; None where nothing is drawn.

    Returns:
      A `Loop`; its `replica` are the slow parameters.

    Raises:
      TypeError: as `compressed_pmean` and `scaffold`.
      ValueError: as these; if the compressor is another one.

    Reference: Huang, Li and Li, 2308.08165, algorithm 2, with all nodes in every round.

    >>> from jaxqring.compress import TopK
    >>> loop = scafcom(TopK(1.0, error_feedback=False), Ring(noise="off"), "nodes", every=2,
    ...                inner_rate=0.1, momentum=0.5)
    >>> target = jnp.array([[1.0], [3.0]])
    >>> params = jnp.zeros((2, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> update = jax.vmap(lambda g, s, p, step: loop.update(g, s, p, step=step),
    ...                   in_axes=(0, 0, 0, None), axis_name="nodes")
    >>> for step in range(2):
    ...     params, state = jax.jit(update)(params - target, state, params, step)
    >>> params.ravel().round(2), float(state.qubits[0])
    (Array([0.19, 0.19], dtype=float32), 9.0)
    """
    check_own(compressor, unbiased=False)
    beta, _ = checks.bounded("momentum", momentum, 1e-6, 1.0)
    average = compressed_with_own(compressor, ring, axis_name)
    return _controlled(average, every, inner_rate, learning_rate, key, momentum=beta)


def _controlled(
    average: Average,
    every: int,
    inner_rate: ArrayLike,
    learning_rate: ArrayLike,
    key: Key | None,
    *,
    scale: ArrayLike = 1.0,
    momentum: ArrayLike | None = None,
) -> Loop:
    """The loop of all three, over an average of {"mean": x, "own": x}."""
    every = checks.integer("every", every)
    rate, _ = checks.bounded("inner_rate", inner_rate, 1e-9, 1e3)
    eta, _ = checks.bounded("learning_rate", learning_rate, 0.0, 1e3)
    reach = rate * every

    def init(slow: PyTree) -> Control:
        zeros = jax.tree.map(jnp.zeros_like, slow)
        return Control(zeros, zeros, None if momentum is None else zeros)

    def correct(grads: PyTree, methods: tuple[PyTree, ...]) -> PyTree:
        (control,) = methods
        return jax.tree.map(
            lambda g, own, shared: (g - own + shared).astype(g.dtype),
            grads,
            control.own,
            control.shared,
        )

    def send(displacement: PyTree, slow: PyTree, control: Control) -> PyTree:
        del slow
        sent = jax.tree.map(
            lambda delta, shared: delta / reach.astype(delta.dtype) - shared,
            displacement,
            control.shared,
        )
        if momentum is None:
            sent = jax.tree.map(lambda d: jnp.asarray(scale, d.dtype) * d, sent)
        else:
            sent = jax.tree.map(
                lambda d, v, own: (1 - momentum) * (v - own) + momentum * d,
                sent,
                control.momentum,
                control.own,
            )
        sent = jax.tree.map(lambda d, c: d.astype(c.dtype), sent, control.shared)
        return {"mean": sent, "own": sent}

    def receive(
        mean: PyTree, sent: PyTree, slow: PyTree, control: Control, here: PyTree
    ) -> Received:
        del here
        moved = jax.tree.map(
            lambda x, d, c: x - (eta * reach * (d + c)).astype(x.dtype),
            slow,
            mean["mean"],
            control.shared,
        )
        after = Control(
            optax.tree.add(control.own, mean["own"]),
            optax.tree.add(control.shared, mean["mean"]),
            None if momentum is None else optax.tree.add(sent["mean"], control.own),
        )
        return Received(moved, after)

    method = Method(init, receive, send, correct)
    return make_loop(optax.sgd(rate), average, method, every=every, key=key)
