"""Streaming: balanced fragments that take turns, received late and blended, in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from outer_cases import CENTRES, CURVATURE, NODES, RATE, START

from jaxqring import Ring, outer
from jaxqring.outer._fragments import Fragments

AXIS, EVERY, STEPS = "nodes", 6, 26
NAMES = ("a", "b")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def streaming(fragments, overlap, blend, eta=0.7, mu=0.9):
    """(STEPS, N, 2) parameters after every step, and (2,) slow ones; fragment f is coordinate f."""
    theta, m = START.copy(), np.zeros(2)
    nodes = np.tile(START, (NODES, 1))
    period, arriving, history = EVERY // fragments, {}, []
    parts = [[0, 1]] if fragments == 1 else [[0], [1]]
    for step in range(1, STEPS + 1):
        nodes = nodes - RATE * CURVATURE * (nodes - CENTRES)
        if step % period == 0:
            part = parts[(step // period - 1) % fragments]
            arriving[step + overlap] = part, (theta - nodes).mean(axis=0)
        if step in arriving:
            part, delta = arriving.pop(step)
            m[part] = mu * m[part] + delta[part]
            theta[part] = theta[part] - eta * (delta + mu * m)[part]
            nodes[:, part] = blend * nodes[:, part] + (1 - blend) * theta[part]
        history.append(nodes.copy())
    return np.stack(history), theta


@pytest.mark.parametrize(
    "fragments, overlap, blend",
    [
        (2, 2, 0.25),
        *(
            pytest.param(*case, marks=pytest.mark.matrix)
            for case in [(1, 0, 0.0), (2, 0, 0.0), (2, 1, 0.0), (1, 5, 0.5)]
        ),
    ],
)
def test_fragments_take_turns_and_are_received_late(x64, vmapped, fragments, overlap, blend):
    loop = outer.diloco(
        optax.sgd(RATE),
        outer.exact(AXIS),
        every=EVERY,
        fragments=fragments,
        overlap=overlap,
        blend=blend,
    )

    def node(params, state, centre, steps):
        def step(carry, at):
            grads = {
                name: CURVATURE[i] * (carry[0][name] - centre[i]) for i, name in enumerate(NAMES)
            }
            after = loop.update(grads, carry[1], carry[0], step=at)
            return after, after[0]

        (_, state), history = jax.lax.scan(step, (params, state), steps)
        return history, state

    params = {name: jnp.full((NODES,), START[i]) for i, name in enumerate(NAMES)}
    state = jax.vmap(loop.init)(params)
    run = vmapped(node, NODES, shared=1)
    history, state = run(params, state, jnp.asarray(CENTRES), jnp.arange(STEPS))
    wanted, theta = streaming(fragments, overlap, blend)
    for i, name in enumerate(NAMES):
        np.testing.assert_allclose(history[name], wanted[:, :, i].T, atol=1e-12)
        np.testing.assert_allclose(state.slow[name], [theta[i]] * NODES, atol=1e-12)
    late = STEPS - overlap
    assert state.rounds.tolist() == [late // (EVERY // fragments)] * NODES


def test_a_round_sends_its_own_fragment_and_no_other(vmapped):
    ring = Ring(noise="off")
    loop = outer.diloco(optax.sgd(0.1), outer.over_ring(ring, AXIS), every=4, fragments=2)
    params = {"a": np.ones((NODES, 9), np.float32), "b": np.ones((NODES, 5), np.float32)}
    state = jax.vmap(loop.init)(params)
    act = vmapped(lambda g, s, p, step: loop.update(g, s, p, step=step), NODES, shared=1)
    seen = []
    for step in range(8):
        before = state.bits[0]
        params, state = act(params, state, params, step)
        seen.append(float(state.bits[0] - before))
    large, small = (ring.cost(size, NODES).bits for size in (9, 5))
    assert seen == [0, large, 0, small] * 2


def test_fragments_are_balanced_and_put_together_again():
    sizes = [7, 1, 5, 4, 3, 4]
    tree = {f"leaf{at}": np.arange(size) for at, size in enumerate(sizes)}
    parts = Fragments.of(tree, count=3)
    loads = [sum(leaf.size for leaf in part.values()) for part in parts.split(tree)]
    assert sorted(loads) == [8, 8, 8]
    whole = jax.tree.map(np.zeros_like, tree)
    for place in range(parts.count):
        whole = parts.put(whole, place, parts.part(tree, place))
    jax.tree.map(np.testing.assert_array_equal, whole, tree)
    # One is the tree itself; empty leaves are fragments too.
    assert Fragments.of(tree, count=1).part(tree, 0) is tree
    empty = [np.zeros(0)] * 3
    assert [len(place) for place in Fragments.of(empty, count=3).places] == [1, 1, 1]
