"""The frame of all outer loops: local steps, and a round of communication every H of them.

Node i takes inner steps with an optimizer of its own. After H of them it is displaced from the slow
parameters theta by Delta_i = theta - theta_i, and a round makes new slow parameters of what the
nodes send each other. A `Method` says what is sent and what becomes of it; the frame does the rest:
the inner step, the branch that skips the collective between rounds, keys, fragments, aborted rounds
and counts.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import Key, PyTree
from jaxqring._varying import as_varying, varying
from jaxqring.outer._averages import Average, AverageCounts
from jaxqring.outer._entry import check_grads, checked_step, refuse_averages_within
from jaxqring.outer._fragments import Fragments
from jaxqring.outer._outer_types import Loop, Method, OuterState, master, of_slow
from jaxqring.secure._secure_report import choose

#: The counts of averages that a state adds up.
_SUMS = tuple(name for name in AverageCounts._fields if name != "aborted")


def _replica_of_slow(params: PyTree, state: OuterState) -> PyTree:
    return of_slow(state.slow, params)


def make_loop(
    inner_tx: optax.GradientTransformation,
    average: Average,
    method: Method,
    *,
    every: int,
    key: Key | None,
    fragments: int = 1,
    overlap: int = 0,
    blend: float = 0.0,
    replica: Callable[[PyTree, OuterState], PyTree] = _replica_of_slow,
) -> Loop:
    """The loop of a method, checked.

    Args:
      inner_tx: the inner optimizer.
      average: over the nodes.
      method: of the outer step.
      every: H, inner steps of a round.
      key: of all rounds, into which the number of the round is folded; None where nothing is drawn.
      fragments: F, parts of the parameters with rounds of their own.
      overlap: tau, inner steps from sending to receiving.
      blend: alpha, weight of a node's own parameters in those that it goes on from.
      replica: of the loop.

    Returns:
      The loop.

    Raises:
      TypeError: if `inner_tx` is no optimizer, or the key no typed key.
      ValueError: if a number is out of range.

    >>> from jaxqring.outer import Received, exact
    >>> def receive(mean, sent, slow, method, here):  # as `local_sgd`, but halfway
    ...     return Received(jax.tree.map(lambda a, b: a - b / 2, slow, mean), method)
    >>> method = Method(lambda slow: (), receive)
    >>> loop = make_loop(optax.sgd(1.0), exact("nodes"), method, every=1, key=None)
    >>> params = jnp.zeros((2, 1))
    >>> state = jax.vmap(loop.init)(params)
    >>> act = lambda g, s, p: loop.update(g, s, p, step=0)
    >>> jax.vmap(act, axis_name="nodes")(jnp.array([[1.0], [3.0]]), state, params)[0].ravel()
    Array([-1., -1.], dtype=float32)
    """
    if isinstance(inner_tx, Loop) or not (
        callable(getattr(inner_tx, "init", None)) and callable(getattr(inner_tx, "update", None))
    ):
        got = type(inner_tx).__name__
        checks.refuse("inner_tx", "be an optimizer of Optax", got, TypeError)
    every = checks.integer("every", every)
    fragments = checks.integer("fragments", fragments)
    if every % fragments:
        checks.refuse("fragments", f"divide `every` = {every}", fragments)
    period = every // fragments
    overlap = checks.integer("overlap", overlap, 0)
    if overlap >= period:
        rule = f"be below `every` / `fragments` = {period}, so that one is received before the next"
        checks.refuse("overlap", rule, overlap)
    if average.draws or key is not None:
        checks.prng_key("key", key)
    options = _Options(
        optax.with_extra_args_support(inner_tx), average, method, period, key, overlap, blend
    )
    parts = functools.partial(Fragments.of, count=fragments)
    return Loop(
        functools.partial(_init, options, parts),
        functools.partial(_update, options, parts),
        replica,
    )


class _Options(NamedTuple):
    """The configuration of a loop."""

    inner: optax.GradientTransformationExtraArgs
    average: Average
    method: Method
    period: int
    key: Key | None
    overlap: int
    blend: float

    @property
    def carries_several(self) -> bool:
        """True if a device carries several nodes."""
        return self.average.nodes_per_device > 1


# --- The state ------------------------------------------------------------------------------------


def _init(options: _Options, parts: Callable[[PyTree], Fragments], params: PyTree) -> OuterState:
    own = options.average.nodes_per_device
    if not jax.tree.leaves(params):
        checks.refuse("params", "hold an array", params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "params" + jax.tree_util.keystr(path)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            checks.refuse(name, "be real and floating", str(jnp.result_type(leaf)), TypeError)
        if own > 1 and jnp.shape(leaf)[:1] != (own,):
            rule = f"have a leading axis of `nodes_per_device` = {own}"
            checks.refuse(name, rule, jnp.shape(leaf))
    inner = (jax.vmap(options.inner.init) if own > 1 else options.inner.init)(params)
    refuse_averages_within(inner)
    slow = jax.tree.map(master, params)
    pieces = parts(slow).split(slow)
    method = tuple(options.method.init(piece) for piece in pieces)
    zeros = [jax.tree.map(jnp.zeros_like, piece) for piece in pieces]
    sent = [
        jax.eval_shape(options.method.send, *each)
        for each in zip(zeros, pieces, method, strict=True)
    ]
    shaped = [jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree) for tree in sent]
    zero = jnp.float32(0)
    state = OuterState(
        inner=inner,
        slow=slow,
        method=method,
        memory=tuple(options.average.init(tree) for tree in shaped),
        arriving=tuple((tree, jnp.zeros((), bool)) for tree in shaped) if options.overlap else None,
        rounds=jnp.int32(0),
        aborted=jnp.int32(0) if options.average.counts else None,
        **dict.fromkeys(_SUMS, zero if options.average.counts else None),
        share=zero if options.method.radius else None,
        radius=zero if options.method.radius else None,
    )
    # Inside a shard_map of varying parameters all of it will vary, and so has the type of a carry.
    return as_varying(state, varying(*map(jnp.asarray, jax.tree.leaves(params))))


# --- One step -------------------------------------------------------------------------------------


def _update(
    options: _Options,
    parts: Callable[[PyTree], Fragments],
    grads: PyTree,
    state: OuterState,
    params: PyTree,
    *,
    step: Any,
    **extra: Any,
) -> tuple[PyTree, OuterState]:
    checks.instance("state", state, OuterState)
    for name, tree in (("grads", grads), ("state", state.slow)):
        shapes = jax.tree.map(jnp.shape, tree)
        if shapes != jax.tree.map(jnp.shape, params):
            checks.refuse(name, "have the structure and shapes of the parameters", shapes)
    if extra and options.carries_several:
        rule = "not be given with several nodes on a device, whose values they do not tell apart"
        checks.refuse("extra", rule, sorted(extra))
    step = checked_step(step, check_grads(grads, options.average))
    axes = varying(*map(jnp.asarray, jax.tree.leaves((grads, state, params))))
    grads, state, params = as_varying(jax.tree.map(jnp.asarray, (grads, state, params)), axes)

    grads = options.method.correct(grads, state.method)
    act = functools.partial(options.inner.update, **extra)
    updates, inner = (jax.vmap(act) if options.carries_several else act)(grads, state.inner, params)
    moved = optax.apply_updates(params, updates)
    state = state._replace(inner=inner)
    # Not the difference of rounded parameters: with H = 1 it is the update, bit for bit.
    start = of_slow(state.slow, params)
    displacement = jax.tree.map(
        lambda a, b, c: (master(a) - master(b)) - master(c), start, params, updates
    )

    frame = _Frame(options, parts(state.slow), axes)
    return frame.step(step, displacement, moved, state)


class _Frame(NamedTuple):
    """One step of communication on one node.

    Attributes:
      options: of the loop.
      fragments: of the parameters.
      axes: over which all values vary, in the types of shard_map.
    """

    options: _Options
    fragments: Fragments
    axes: frozenset

    def step(
        self, step: jax.Array, displacement: PyTree, params: PyTree, state: OuterState
    ) -> tuple[PyTree, OuterState]:
        """Sends and receives what is due after inner step number `step`."""
        period, overlap = self.options.period, self.options.overlap
        number = (step + 1) // period - 1  # of the round
        due = (step + 1) % period == 0
        send = functools.partial(self.send, number=number, displacement=displacement)
        params, state = self.branch(due, number, send, params, state)
        if overlap:
            late = step - overlap
            due = (late >= 0) & ((late + 1) % period == 0)
            params, state = self.branch(due, (late + 1) // period - 1, self.arrive, params, state)
        return params, state

    def branch(
        self, due: jax.Array, number: jax.Array, act: Callable, params: PyTree, state: OuterState
    ) -> tuple[PyTree, OuterState]:
        """`act` on the fragment whose turn it is, if anything is due, else nothing at all."""
        count = self.fragments.count

        def acting(place: int) -> Callable:
            return lambda: as_varying(act(place, params=params, state=state), self.axes)

        if self.options.period == 1 and count == 1:
            return acting(0)()  # in every step
        turn = jnp.where(due, number % count + 1, 0)
        return lax.switch(turn, [lambda: (params, state), *map(acting, range(count))])

    def send(
        self,
        place: int,
        *,
        number: jax.Array,
        displacement: PyTree,
        params: PyTree,
        state: OuterState,
    ) -> tuple[PyTree, OuterState]:
        """The round of a fragment, up to its arrival."""
        options, key = self.options, self.options.key
        split = self.fragments.part
        slow = split(state.slow, place)
        sent = options.method.send(split(displacement, place), slow, state.method[place])
        key = None if key is None else jax.random.fold_in(key, number)
        mean, memory, counts = options.average.mean(sent, state.memory[place], key)
        mean = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), mean, sent)
        counted = _counted(state, counts)
        memories = _put(state.memory, place, memory)
        if options.overlap:
            assert state.arriving is not None
            underway = _put(state.arriving, place, (mean, jnp.ones((), bool)))
            after = params, counted._replace(memory=memories, arriving=underway)
        else:
            after = self.receive(place, mean, sent, params, counted._replace(memory=memories))
        if counts is None or counts.aborted is None:
            return after
        # Masks are verified before anything is sent, so that all nodes know of it at once.
        return choose(counts.aborted, (params, counted), after)

    def arrive(self, place: int, *, params: PyTree, state: OuterState) -> tuple[PyTree, OuterState]:
        """Receives what was sent some steps ago, unless that round was aborted."""
        assert state.arriving is not None
        mean, underway = state.arriving[place]
        arrived = (mean, jnp.zeros((), bool))
        left = state._replace(arriving=_put(state.arriving, place, arrived))
        after = self.receive(place, mean, None, params, left)
        return choose(underway, after, (params, state))

    def receive(
        self, place: int, mean: PyTree, sent: PyTree, params: PyTree, state: OuterState
    ) -> tuple[PyTree, OuterState]:
        """The outer step on a fragment."""
        options, parts, alpha = self.options, self.fragments, self.options.blend
        here = parts.part(params, place)
        slow = parts.part(state.slow, place)
        got = options.method.receive(mean, sent, slow, state.method[place], here)
        going = got.slow if got.params is None else got.params
        if alpha:
            going = jax.tree.map(lambda a, b: alpha * master(a) + (1 - alpha) * b, here, going)
        after = state._replace(
            slow=parts.put(state.slow, place, got.slow),
            method=_put(state.method, place, got.method),
            rounds=state.rounds + 1,
        )
        if options.method.radius is not None:
            assert got.share is not None
            share = got.share.astype(jnp.float32)
            after = after._replace(share=share, radius=options.method.radius(share))
        return parts.put(params, place, of_slow(going, here)), after


def _put(parts: tuple, place: int, value: Any) -> tuple:
    return (*parts[:place], value, *parts[place + 1 :])


def _counted(state: OuterState, counts: AverageCounts | None) -> OuterState:
    if counts is None:
        return state
    aborted = state.aborted
    assert aborted is not None  # the average counts
    if counts.aborted is not None:
        aborted += counts.aborted.astype(jnp.int32)
    sums = {name: getattr(state, name) + getattr(counts, name) for name in _SUMS}
    return state._replace(aborted=aborted, **sums)
