"""Local SGD, DiLoCo, and its delayed and eager steps: published numbers and plain numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from outer_cases import CENTRES, EVERY, NODES, RATE, START, displaced, nesterov, trained

from jaxqring import Ring
from jaxqring.outer import (
    Method,
    Received,
    diloco,
    exact,
    local_sgd,
    make_loop,
    over_ring,
    radius,
)

AXIS = "nodes"
INNER = optax.sgd(RATE)
#: eta and mu by default.
RATES = {"sync": (0.7, 0.9), "delayed": (0.3, 0.3), "eager": (0.4, 0.5)}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def after(history, rounds):
    """(N, 2) the parameters after some rounds."""
    return np.asarray(history)[:, rounds * EVERY - 1]


# --- Values ---------------------------------------------------------------------------------------


def test_diloco_has_the_published_values(x64, vmapped):
    loop = diloco(INNER, exact(AXIS), every=EVERY)
    history, state, replica = trained(loop, vmapped, 10 * EVERY)
    for rounds, wanted in {
        1: (2.685244725, -0.093896800),
        2: (0.644400253, 1.452528446),
        3: (-0.635568747, 1.623366069),
        10: (1.264437929, 0.289607360),
    }.items():
        found = after(history, rounds)
        np.testing.assert_allclose(found, np.tile(wanted, (NODES, 1)), atol=1e-9)
        np.testing.assert_allclose(found, nesterov(rounds, 0.7, 0.9), atol=1e-12)
    np.testing.assert_array_equal(state.slow, after(history, 10))
    np.testing.assert_array_equal(replica, after(history, 10))
    assert np.asarray(state.rounds).tolist() == [10] * NODES


def test_a_heavy_ball_is_another_loop_with_published_values(x64, vmapped):
    # m <- mu m - eta Delta, theta <- theta + m: a method of the user's own, as none of ours has it.
    def receive(mean, sent, slow, momentum, here):
        momentum = 0.9 * momentum - 0.7 * mean
        return Received(slow + momentum, momentum)

    method = Method(jnp.zeros_like, receive)
    loop = make_loop(INNER, exact(AXIS), method, every=EVERY, key=None)
    history, _, _ = trained(loop, vmapped, 10 * EVERY)
    for rounds, wanted in {
        1: (3.781707750, -1.470472000),
        2: (1.816184477, 0.715798615),
        10: (2.918355633, -0.508639070),
    }.items():
        np.testing.assert_allclose(after(history, rounds), np.tile(wanted, (NODES, 1)), atol=1e-9)
    theta, momentum = np.array(START, float), 0.0
    for _ in range(10):
        momentum = 0.9 * momentum - 0.7 * displaced(theta).mean(axis=0)
        theta = theta + momentum
    np.testing.assert_allclose(after(history, 10)[0], theta, atol=1e-12)


def test_a_delayed_step_has_the_published_values_and_shares_replicas(x64, vmapped):
    with pytest.warns(UserWarning, match=r"delayed .* unstable where .* more than 36 %"):
        loop = diloco(
            INNER, exact(AXIS), every=EVERY, learning_rate=0.7, momentum=0.9, delayed=True
        )
    history, *_ = trained(loop, vmapped, 3 * EVERY)
    for rounds, wanted in {
        1: START,  # nothing has arrived
        2: (2.685244725, -0.093896800),
        3: (-0.616327272, 4.051124080),
    }.items():
        np.testing.assert_allclose(after(history, rounds), np.tile(wanted, (NODES, 1)), atol=1e-9)


def test_an_eager_step_has_the_published_values(x64, vmapped):
    loop = diloco(INNER, exact(AXIS), every=EVERY, learning_rate=0.7, momentum=0.9, eager=True)
    with pytest.warns(UserWarning, match=r"eager .* on 4 nodes is unstable .* more than 59 %"):
        history, _, replica = trained(loop, vmapped, 3 * EVERY)
    found = after(history, 3)
    np.testing.assert_allclose(found[0], (-0.844482795, 3.721452429), atol=1e-9)
    np.testing.assert_allclose(found[3], (-0.415223152, 3.075034985), atol=1e-9)
    np.testing.assert_allclose(found.mean(axis=0), (-0.898140250, 3.802254609), atol=1e-9)
    np.testing.assert_allclose(found, nesterov(3, 0.7, 0.9, "eager"), atol=1e-12)
    # The mean over the nodes, in float32.
    np.testing.assert_allclose(replica, np.tile(found.mean(axis=0), (NODES, 1)), atol=1e-6)


def test_replicas_of_eager_steps_stay_apart_at_the_optimum(x64, vmapped):
    loop = diloco(INNER, exact(AXIS), every=EVERY, eager=True)  # eta 0.4, mu 0.5
    history, *_ = trained(loop, vmapped, 30 * EVERY)
    found = after(history, 30)
    np.testing.assert_allclose(found.mean(axis=0), (0.749968295, 0.249815988), atol=1e-9)
    np.testing.assert_allclose(np.ptp(found, axis=0), (0.302807463, 0.474105833), atol=1e-9)


def test_local_sgd_averages_parameters(x64, vmapped):
    loop = local_sgd(INNER, exact(AXIS), every=EVERY)
    history, state, _ = trained(loop, vmapped, 2 * EVERY)
    once = START - displaced(START).mean(axis=0)
    twice = once - displaced(once).mean(axis=0)
    np.testing.assert_allclose(after(history, 2), np.tile(twice, (NODES, 1)), atol=1e-12)
    between = np.asarray(history)[:, EVERY + 2]
    np.testing.assert_allclose(between, once - displaced(once, 3), atol=1e-12)
    # One minus the quotient of the norms of the two mean displacements.
    norms = [np.linalg.norm(displaced(x).mean(axis=0)) for x in (START, once)]
    np.testing.assert_allclose(state.share, 1 - norms[1] / norms[0], rtol=1e-6)
    np.testing.assert_allclose(state.radius, norms[1] / norms[0], rtol=1e-6)


def test_the_worked_example_of_maxtext(x64, vmapped):
    # The unit test of its DiLoCo: two replicas of a linear model with two samples each, H = 3.
    samples = jnp.array([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    labels = jnp.array([[1.0, 2.0], [2.0, 3.0]])
    loop = diloco(optax.sgd(0.1), exact(AXIS), every=3, learning_rate=1.0, momentum=0.9)

    def node(params, samples, labels):
        def loss(params):
            return jnp.mean((labels - samples @ params["w"] - params["b"]) ** 2)

        state, losses = loop.init(params), []
        for step in range(4):
            value, grads = jax.value_and_grad(loss)(params)
            losses.append(value)
            before = params
            params, state = loop.update(grads, state, params, step=step)
        return before, jnp.stack(losses)

    params = {"w": jnp.array([[2.0, 1.0]] * 2), "b": jnp.ones(2)}
    found, losses = vmapped(node, 2)(params, samples, labels)
    np.testing.assert_allclose(found["w"], [[1.5345, 1.0494]] * 2, atol=1e-12)
    np.testing.assert_allclose(found["b"], [0.5839] * 2, atol=1e-12)
    np.testing.assert_allclose(losses.mean(axis=0), (1, 0.65, 0.4481, 0.574244), atol=5e-7)


def test_the_outer_step_is_that_of_optax(x64, vmapped):
    loop = diloco(INNER, exact(AXIS), every=EVERY)
    history, *_ = trained(loop, vmapped, 10 * EVERY)
    outer = optax.sgd(0.7, 0.9, nesterov=True)
    theta = jnp.array(START)
    state = outer.init(theta)
    for rounds in range(1, 11):
        delta = jnp.asarray(displaced(np.asarray(theta)).mean(axis=0))
        updates, state = outer.update(delta, state, theta)
        theta = optax.apply_updates(theta, updates)
        np.testing.assert_allclose(after(history, rounds), np.tile(theta, (NODES, 1)), atol=1e-12)


@pytest.mark.parametrize("kind", ["sync", "delayed", "eager"])
def test_the_share_of_a_common_curvature_is_found(x64, vmapped, kind):
    # Steps of 0.1 against a curvature of one, for every node and direction.
    loop = diloco(INNER, exact(AXIS), every=EVERY, **{kind: True} if kind != "sync" else {})

    def node(params, centre, steps):
        def step(carry, at):
            after = loop.update(carry[0] - centre, carry[1], carry[0], step=at)
            return after, (after[1].share, after[1].radius)

        return jax.lax.scan(step, (params, loop.init(params)), steps)[1]

    start = jnp.tile(jnp.asarray(START), (NODES, 1))
    shares, radii = vmapped(node, NODES, shared=1)(start, jnp.asarray(CENTRES), jnp.arange(50))
    share = 1 - 0.9**EVERY
    # None yet: it takes two displacements, and a step between them.
    first = {"sync": 2, "delayed": 3, "eager": 2}[kind] * EVERY
    assert (shares[:, : first - 1] == 0).all()
    np.testing.assert_allclose(shares[:, first - 1 : 7 * EVERY], share, rtol=1e-5)
    wanted = radius(kind, share, *RATES[kind], NODES)
    np.testing.assert_allclose(radii[:, first - 1 : 7 * EVERY], wanted, rtol=1e-5)


# --- H = 1 ----------------------------------------------------------------------------------------

TREE = {"w": (4, 2), "b": (3,)}
STEPS = 3
AVERAGES = {
    "pmean": exact(AXIS),
    "ring": over_ring(Ring(noise="off"), AXIS),
}


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tree(*lead, seed):
    return {
        name: normal(*lead, *shape, seed=seed + at) for at, (name, shape) in enumerate(TREE.items())
    }


@functools.cache
def both(rate, *names):
    """One node: steps of H = 1 over each of the averages, and of averaged gradients."""
    inner = optax.sgd(rate)

    def outcome(params, found, steps, average):
        loop = local_sgd(inner, average, every=1)

        def step(carry, at):
            ours, state, by_hand, second = carry
            grads = jax.tree.map(lambda leaf: leaf[at], found)
            ours, state = loop.update(grads, state, ours, step=at)
            mean, *_ = average.mean(grads, (), None)
            updates, second = inner.update(mean, second, by_hand)
            return (ours, state, optax.apply_updates(by_hand, updates), second), None

        start = params, loop.init(params), params, inner.init(params)
        (ours, _, by_hand, _), _ = jax.lax.scan(step, start, steps)
        return ours, by_hand

    def node(params, found, steps):
        return [outcome(params, found, steps, AVERAGES[name]) for name in names]

    return node


def test_every_step_with_a_rate_of_two_to_a_power_is_averaging_gradients(every_mapping):
    params = jax.tree.map(lambda leaf: np.tile(leaf, (NODES, *[1] * leaf.ndim)), tree(seed=1))
    act = every_mapping(both(0.125, "pmean", "ring"), NODES, shared=1)
    for ours, by_hand in act(params, tree(NODES, STEPS, seed=3), jnp.arange(STEPS)):
        for name in TREE:
            np.testing.assert_array_equal(ours[name], by_hand[name])
            assert (np.asarray(ours[name]) == np.asarray(ours[name])[:1]).all()
            assert (np.asarray(ours[name]) != params[name]).all()


def test_every_step_with_another_rate_differs_by_roundings(vmapped):
    rate, found = 0.1, tree(NODES, STEPS, seed=3)
    params = jax.tree.map(lambda leaf: np.tile(leaf, (NODES, *[1] * leaf.ndim)), tree(seed=1))
    act = vmapped(both(rate, "pmean"), NODES, shared=1)
    ((ours, by_hand),) = act(params, found, jnp.arange(STEPS))
    differs = 0
    for name in TREE:
        a, b = np.asarray(ours[name]), np.asarray(by_hand[name])
        magnitude = np.abs(found[name]).mean(axis=0).sum(axis=0)  # of the three steps
        largest = np.maximum(np.abs(a), np.abs(params[name])).max(axis=0) + rate * magnitude
        bound = (NODES + 1) * 2.0**-23 * rate * magnitude + STEPS * np.spacing(largest)
        assert (np.abs(a - b) <= bound).all()
        differs += (a != b).sum()
    assert differs > 0
