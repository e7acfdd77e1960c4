"""SCAFFOLD and its compressed relatives against their published equations in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxqring import Ring
from jaxqring.compress import QSGD, PowerSGD, RandomK, SignVote, TernGrad, TopK, Uncompressed
from jaxqring.outer import compressed, exact, over_ring, scafcom, scaffold, scallion
from jaxqring.outer._own_messages import own_message

AXIS = "nodes"
OFF = Ring(noise="off")
#: The quadratic problems: node i has the curvature and the minimum of its row.
FOUR = np.tile([1.0, 2.0], (4, 1)), np.array([(1.0, 0.0), (0.0, 2.0), (-1.0, 1.0), (3.0, -2.0)])
TWO = np.array([[1.0], [3.0]]), np.array([[1.0], [-1.0]])


@functools.cache
def runner(loop, steps):
    """Parameters (steps, N, ...) after each inner step, and the last state."""

    def node(params, curvature, minimum):
        def step(carry, at):
            params, state = carry
            grads = curvature * (params - minimum)
            carry = loop.update(grads, state, params, step=at)
            return carry, carry[0]

        start = params, loop.init(params)
        (_, state), history = jax.lax.scan(step, start, jnp.arange(steps))
        return history, state

    return jax.jit(jax.vmap(node, axis_name=AXIS))


def trained(loop, problem, start, steps):
    kind = jnp.zeros(()).dtype
    curvature, minimum = problem
    params = np.tile(np.asarray(start, kind), (len(curvature), 1))
    return runner(loop, steps)(params, curvature.astype(kind), minimum.astype(kind))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def option_two(problem, start, rounds, *, rate, every, eta):
    """SCAFFOLD as published, which sends two vectors."""
    curvature, minimum = problem
    x, c = np.array(start), np.zeros(len(start))
    own = np.zeros_like(minimum)
    path = []
    for _ in range(rounds):
        y = np.tile(x, (len(own), 1))
        for _ in range(every):
            y = y - rate * (curvature * (y - minimum) - own + c)
        new = own - c + (x - y) / (every * rate)
        x = x + eta * (y - x).mean(axis=0)
        c = c + (new - own).mean(axis=0)
        own = new
        path.append(x)
    return np.array(path), own, c


def test_scaffold_has_the_known_values_and_is_option_two(x64):
    loop = scaffold(exact(AXIS), every=5, inner_rate=0.1)
    history, state = trained(loop, FOUR, (5.0, -3.0), 15)
    wanted = [(3.259582500, -0.814960000), (2.231883370, -0.098966093), (1.625037311, 0.135650791)]
    np.testing.assert_allclose(history[0, 4::5], wanted, atol=1e-9)
    path, own, shared = option_two(FOUR, (5.0, -3.0), 3, rate=0.1, every=5, eta=1.0)
    np.testing.assert_allclose(history[0, 4::5], path, atol=1e-12)
    (control,) = state.method
    np.testing.assert_allclose(control.own, own, atol=1e-12)
    np.testing.assert_allclose(control.shared, np.tile(shared, (4, 1)), atol=1e-12)
    # Another rate of the outer step, with curvatures that differ as well.
    loop = scaffold(exact(AXIS), every=2, inner_rate=0.1, learning_rate=0.5)
    history, _ = trained(loop, TWO, (0.0,), 8)
    path, *_ = option_two(TWO, (0.0,), 4, rate=0.1, every=2, eta=0.5)
    np.testing.assert_allclose(history[0, 1::2], path, atol=1e-12)


def test_one_vector_goes_round_and_is_counted():
    loop = scaffold(over_ring(OFF, AXIS), every=5, inner_rate=0.1)
    history, state = trained(loop, FOUR, (5.0, -3.0), 15)
    path, *_ = option_two(FOUR, (5.0, -3.0), 3, rate=0.1, every=5, eta=1.0)
    np.testing.assert_allclose(history[0, 4::5], path, atol=2e-3)
    assert (np.ptp(history[:, 4::5], axis=0) == 0).all()
    assert float(state.bits[0]) == 3 * OFF.cost(2, 4).bits
    assert state.rounds.tolist() == [3] * 4


# --- Compressed -----------------------------------------------------------------------------------


def published(rounds, *, alpha=1.0, beta=None):
    """SCALLION, or SCAFCOM with `beta`, on two nodes, without compression."""
    curvature, minimum = (part[:, 0] for part in TWO)
    x, c, own, v = 0.0, 0.0, np.zeros(2), np.zeros(2)
    path = []
    for _ in range(rounds):
        y = np.full(2, x)
        for _ in range(2):
            y = y - 0.1 * (curvature * (y - minimum) - own + c)
        if beta is None:
            d = alpha * ((x - y) / 0.2 - c)
        else:
            v = (1 - beta) * v + beta * ((x - y) / 0.2 + own - c)
            d = v - own
        own = own + d
        x, c = x - 0.2 * (d.mean() + c), c + d.mean()
        path.append(x)
    return np.array(path)


@functools.cache
def of_two_nodes(make, name):
    """The path of node 0 at the ends of rounds, and all last parameters and states."""

    def run(value, params, curvature, minimum):
        loop = make(
            Uncompressed(22),
            OFF,
            AXIS,
            every=2,
            inner_rate=0.1,
            key=jax.random.key(0),
            **{name: value},
        )

        def node(params, curvature, minimum):
            def step(carry, at):
                params, state = carry
                carry = loop.update(curvature * (params - minimum), state, params, step=at)
                return carry, carry[0]

            (last, state), path = jax.lax.scan(step, (params, loop.init(params)), jnp.arange(160))
            return path, last, state.method[0].own

        return jax.vmap(node, axis_name=AXIS)(params, curvature, minimum)

    return jax.jit(run)


@pytest.mark.parametrize(
    "make, name, value, wanted",
    [
        (scallion, "scale", 1.0, (-0.16, -0.2815, -0.360945, -0.41165925)),
        (scallion, "scale", 0.5, (-0.08, -0.190375, -0.298868125, -0.3884487031)),
        (scafcom, "momentum", 0.2, (-0.032, -0.08806, -0.16000756, -0.2400731828)),
    ],
)
def test_compressed_relatives_have_the_known_values(make, name, value, wanted):
    start = np.zeros((2, 1), np.float32)
    curvature, minimum = (part.astype(np.float32) for part in TWO)
    path, last, own = of_two_nodes(make, name)(value, start, curvature, minimum)
    np.testing.assert_allclose(path[0, 1:8:2, 0], wanted, atol=1e-6)
    mine = published(4, **{"alpha" if name == "scale" else "beta": value})
    np.testing.assert_allclose(mine, wanted, atol=1e-9)
    # All of them reach the optimum, where averages of H steps would end at -0.457.
    np.testing.assert_allclose(last, -0.5 * np.ones((2, 1)), atol=1e-3)
    np.testing.assert_allclose(own[:, 0], [-1.5, 1.5], atol=5e-3)


def test_with_the_identity_and_all_of_it_sent_both_are_scaffold():
    key = jax.random.key(0)
    options = {"every": 5, "inner_rate": 0.1, "key": key}
    plain = scaffold(compressed(Uncompressed(), OFF, AXIS), **options)
    wanted, _ = trained(plain, FOUR, (5.0, -3.0), 15)
    for loop in (
        scallion(Uncompressed(), OFF, AXIS, scale=1.0, **options),
        scafcom(Uncompressed(), OFF, AXIS, momentum=1.0, **options),
    ):
        history, state = trained(loop, FOUR, (5.0, -3.0), 15)
        np.testing.assert_allclose(history, wanted, atol=1e-3)
        assert (np.ptp(history[:, 4::5], axis=0) == 0).all()
        # The control variates of the nodes add up to what all of them share, as sent.
        (control,) = state.method
        np.testing.assert_allclose(np.mean(control.own, 0), control.shared[0], atol=3e-7)


COMPRESSORS = {
    "uncompressed": Uncompressed(),
    "qsgd": QSGD(3),
    "terngrad": TernGrad(clip=None),
    "randomk": RandomK(0.5),
    "topk": TopK(0.25, error_feedback=False),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("qsgd", "topk") else [pytest.mark.matrix])
        for name in COMPRESSORS
    ],
)
def test_own_messages_are_what_is_delivered_in_the_mean(name):
    compressor = COMPRESSORS[name]
    average = compressed(compressor, OFF, AXIS)
    values = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)

    def node(x):
        key = jax.random.key(1)
        memory = average.init(x)
        mean, *_ = average.mean(x, memory, key)
        own = own_message(x, memory, AXIS, compressor=compressor, ring=OFF, key=key)
        return mean, own

    mean, own = jax.jit(jax.vmap(node, axis_name=AXIS))({"w": values})
    np.testing.assert_allclose(np.mean(own["w"], axis=0), mean["w"][0], atol=1e-6)
    if name == "topk":  # three of twelve, on 16 bits
        largest = np.argsort(-np.abs(values), axis=1)[:, :3]
        for sent, row, at in zip(np.asarray(own["w"]), values, largest, strict=True):
            assert np.flatnonzero(sent).tolist() == sorted(at)
            np.testing.assert_allclose(sent[at], row[at], atol=1e-3)
    if name == "randomk":  # the same places on all nodes, twice as large
        at = np.flatnonzero(own["w"][0])
        assert at.size == 6
        assert not np.asarray(own["w"])[:, np.setdiff1d(range(12), at)].any()
        np.testing.assert_allclose(np.asarray(own["w"])[:, at], 2 * values[:, at], atol=2e-3)
    assert not np.allclose(own["w"][0], own["w"][1])


@pytest.mark.parametrize("name", [pytest.param("qsgd", marks=pytest.mark.matrix), "topk"])
def test_compressed_loops_reach_the_optimum_of_unequal_nodes(name):
    # The mean of the four minima, as curvatures are equal: nodes never agree on where to go.
    options = {"every": 5, "inner_rate": 0.05, "learning_rate": 0.5, "key": jax.random.key(0)}
    loop = (
        scallion(QSGD(3), OFF, AXIS, scale=0.3, **options)
        if name == "qsgd"
        else scafcom(TopK(0.5, error_feedback=False), OFF, AXIS, momentum=0.5, **options)
    )
    history, state = trained(loop, FOUR, (5.0, -3.0), 500)
    np.testing.assert_allclose(history[:, -1], np.tile(FOUR[1].mean(0), (4, 1)), atol=5e-3)
    (control,) = state.method
    np.testing.assert_allclose(np.mean(control.own, 0), control.shared[0], atol=1e-5)


SPARSE = scafcom(
    TopK(0.5, error_feedback=False),
    OFF,
    AXIS,
    every=2,
    inner_rate=0.1,
    momentum=0.5,
    key=jax.random.key(0),
)


def two_rounds(params, state, minimum, steps):
    def step(carry, at):
        params, state = carry
        return SPARSE.update(params - minimum, state, params, step=at), None

    return jax.lax.scan(step, (params, state), steps)[0]


def test_replicas_agree_under_every_mapping(mapping, vmapped):
    params = np.tile(np.float32((5.0, -3.0)), (4, 1))
    given = params, jax.vmap(SPARSE.init)(params), FOUR[1].astype(np.float32), jnp.arange(4)
    found, after = mapping(two_rounds, 4, shared=1)(*given)
    wanted, _ = vmapped(two_rounds, 4, shared=1)(*given)
    np.testing.assert_array_equal(found, wanted)
    assert (np.ptp(found, axis=0) == 0).all()
    assert np.asarray(after.rounds).tolist() == [2] * 4


# --- Refusals -------------------------------------------------------------------------------------


def scallion_of(compressor, **changed):
    options = {"every": 2, "inner_rate": 0.1, "scale": 1.0, "key": jax.random.key(0)} | changed
    return scallion(compressor, OFF, AXIS, **options)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: scallion_of(TopK(error_feedback=False)), "`compressor` must be unbiased (QSGD"),
        (lambda: scallion_of(TernGrad()), "`compressor` must be unbiased (QSGD"),
        (lambda: scallion_of(PowerSGD()), "`compressor` must send one message a round"),
        (lambda: scallion_of(SignVote()), "`compressor` must send one message a round"),
        (lambda: scallion_of(QSGD(), key=None), "`key` must be a typed key"),
        (lambda: scallion_of(QSGD(), scale=0.0), "`scale` must lie in"),
        (lambda: scallion_of(QSGD(), inner_rate=0.0), "`inner_rate` must lie in"),
        (lambda: scallion_of(QSGD(), every=0), "`every` must be an integer of at least 1"),
        (
            lambda: scafcom(TopK(), OFF, AXIS, every=2, inner_rate=0.1, momentum=0.5),
            "`compressor` must have error_feedback=False",
        ),
        (
            lambda: scafcom(
                TopK(error_feedback=False), OFF, AXIS, every=2, inner_rate=0.1, momentum=0.0
            ),
            "`momentum` must lie in",
        ),
        (
            lambda: scaffold(exact(AXIS), every=2, inner_rate=optax.adam(1.0)),
            "`inner_rate` must be a real number",
        ),
        (lambda: scaffold(3, every=2, inner_rate=0.1), "`average` must be an Average or a"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises((ValueError, TypeError)) as found:
        call()
    assert str(found.value).startswith(sentence)
    assert str(found.value).endswith(".")
