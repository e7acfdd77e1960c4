"""Trainings whose derivatives by the noise are estimated, and calls that are refused.

The trainings are held against differences with common random numbers, which are unbiased but for
the width of the interval, half the error.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxqring as jq
from jaxqring import FixedPoint, Ring, superdense, werner
from jaxqring.gradients import couple, expected, finite_difference
from jaxqring.ring import Hops

AXIS = "nodes"
KEY = jax.random.key(20260724)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)

# --- Trainings ------------------------------------------------------------------------------------


@functools.cache
def training(problem, nodes, steps):
    """(ring, keys) -> the final loss of gradient descent on averaged gradients, and its cost."""
    rng = np.random.default_rng(0)
    if problem == "quadratic":
        rate = 0.1
        curvature = jnp.asarray(rng.uniform(0.5, 1.5, (nodes, 8)), jnp.float32)
        centre = jnp.asarray(rng.normal(size=(nodes, 8)) + 1, jnp.float32)
        best = jnp.sum(curvature * centre, axis=0) / jnp.sum(curvature, axis=0)

        def slope(w):
            return curvature * (w - centre)

        def final(w):
            return jnp.sum(jnp.mean(curvature, axis=0) * (w - best) ** 2) / 2

    else:
        rate = 1.0
        data = rng.normal(size=(nodes, 32, 8))
        odds = 1 / (1 + np.exp(-data @ rng.normal(size=8) * 1.5))
        label = jnp.asarray(odds > rng.uniform(size=odds.shape), jnp.float32)
        data = jnp.asarray(data, jnp.float32)

        def cross_entropy(w, data, label):
            return jnp.mean(jnp.logaddexp(0, data @ w) - label * (data @ w))

        def slope(w):
            return jax.vmap(jax.grad(cross_entropy))(w, data, label)

        def final(w):
            return cross_entropy(w, data.reshape(-1, 8), label.reshape(-1))

    def loss(ring, keys):
        ring = ring.replace(nodes_per_device=nodes)

        def step(w, key):
            mean = functools.partial(jq.pmean, axis_name=AXIS, ring=ring, key=key)
            return w - rate * jax.vmap(mean, axis_name=AXIS)(slope(w)[None])[0], None

        w = lax.scan(step, jnp.zeros((nodes, 8)), keys)[0]
        return jnp.mean(jax.vmap(final)(w))

    return loss, training_ring(0.5).cost(8, nodes)


def training_ring(epsilon):
    return Ring(superdense(werner(fidelity=1 - epsilon)), FixedPoint(16, clip=4.0))


@functools.cache
def trained(problem, kind, nodes, steps, count):
    """Compiled: error -> estimates of the derivative of the final loss."""
    loss, cost = training(problem, nodes, steps)
    samples = 4 if kind == "score" else 1
    keys = jax.random.split(jax.random.fold_in(KEY, 1), count // samples)

    def estimated(epsilon):
        def of_key(key):
            def run(epsilon):
                options = {"calls": steps, "samples": samples, "cost": cost}
                return expected(loss, training_ring(epsilon), key, estimator=kind, **options)

            return jax.grad(run)(epsilon)

        return lax.map(of_key, keys, batch_size=100)

    def difference(epsilon):
        ends = training_ring(0.75 * epsilon), training_ring(1.25 * epsilon)
        options = {"samples": count, "calls": steps, "batch": 100}
        return finite_difference(loss, *ends, epsilon / 2, KEY, **options)

    return jax.jit(difference if kind == "difference" else estimated)


def bias(problem, kind, epsilon, nodes=8, steps=50, count=4000):
    """Of the derivative, as a share of that of 4,000 differences, and its standard error."""
    found = [
        np.asarray(trained(problem, name, nodes, steps, runs)(jnp.float32(epsilon)), np.float64)
        for name, runs in ((kind, count), ("difference", 4000))
    ]
    (mean, truth), errors = np.transpose(
        [(each.mean(), each.std(ddof=1) / np.sqrt(len(each))) for each in found]
    )
    assert abs(truth) > 4 * errors[1]
    return (mean - truth) / abs(truth), np.hypot(*errors) / abs(truth)


def test_a_short_training_has_the_derivative_of_its_differences():
    # Two nodes, five steps, 4,000 runs; three standard errors, which fails with 0.3 %.
    off, error = bias("quadratic", "score", 0.01, nodes=2, steps=5, count=4000)
    assert error < 0.2
    assert abs(off) < 3 * error


TRAININGS = [
    (problem, error) for problem in ("quadratic", "logistic") for error in (1e-4, 3e-4, 1e-3)
]


@pytest.mark.statistics
@pytest.mark.parametrize("problem, epsilon", TRAININGS)
@pytest.mark.parametrize("kind", ["score", "russo"])
def test_trainings_have_the_derivatives_of_their_differences(problem, epsilon, kind):
    # 4,000 runs each; three standard errors, which fails with 0.3 % for each of 12.
    off, error = bias(problem, kind, epsilon)
    assert error < 0.15
    assert abs(off) < 3 * error


@pytest.mark.statistics
@pytest.mark.parametrize("epsilon, own", [(3e-5, 0.0), (1e-4, 0.0), (3e-4, 0.0), (1e-3, 0.1)])
def test_a_quadratic_training_with_normal_noise_has_them_where_noise_is_low(epsilon, own):
    # 1,000 runs; its own bias grows with the noise: -5 % at 1e-3, measured. Three standard errors.
    off, error = bias("quadratic", "gaussian", epsilon, count=1000)
    assert abs(off) < 3 * error + own


@pytest.mark.statistics
@pytest.mark.parametrize("problem", ["quadratic", "logistic"])
def test_the_mean_alone_misses_what_the_spread_of_errors_costs(problem):
    # 1,000 runs: its bias is all of the derivative, to 10 % and three standard errors.
    off, error = bias(problem, "mean", 1e-3, count=1000)
    assert abs(off + 1) < 3 * error + 0.1


# --- Refusals -------------------------------------------------------------------------------------

LINK = superdense(werner(fidelity=0.9))
RING = Ring(LINK, FixedPoint(8))
COST, HOPS = RING.cost(1, 2, collective="all_gather"), Hops.of(1, 2, 8, collective="all_gather")
THREE = Ring(superdense(werner(fidelity=jnp.full(3, 0.9))), FixedPoint(8))


def sent_once(ring, keys):
    gather = functools.partial(jq.all_gather, axis_name=AXIS, ring=ring, key=keys[0])
    return jnp.sum(jax.vmap(gather, axis_name=AXIS)(jnp.array([[37.0], [0.0]])) ** 2)


def refused(ring=RING, key=KEY, *, loss=sent_once, estimator="russo", cost=COST, **options):
    return lambda: expected(loss, ring, key, estimator=estimator, cost=cost, **options)


REFUSED = {
    "no noise": (refused(RING.replace(noise="off")), ValueError, '`ring.noise` must be "sampled"'),
    "normal noise": (refused(RING.replace(noise="gaussian")), ValueError, "`ring.noise` must be"),
    "mean noise": (
        refused(RING.replace(noise="mean"), estimator="mean"),
        ValueError,
        "`ring.noise`",
    ),
    "no links": (refused(Ring(), estimator="mean"), ValueError, "`ring.noise` must be"),
    "no ring": (refused(LINK), TypeError, "`ring` must be a Ring"),
    "raw key": (refused(key=jax.random.PRNGKey(0)), TypeError, "`key` must be a typed key"),
    "estimator": (refused(estimator="pathwise"), ValueError, "`estimator` must be one of 'mean'"),
    "no samples": (refused(samples=0), ValueError, "`samples` must be an integer of at least 1"),
    "calls": (
        refused(calls=1.5),
        ValueError,
        "`calls` must be an integer of at least 1, but got 1.5",
    ),
    "batch": (
        refused(batch=True),
        ValueError,
        "`batch` must be an integer of at least 1, but got True",
    ),
    "one sample": (refused(estimator="score"), ValueError, "`samples` must be at least 2"),
    "no cost": (refused(cost=None), TypeError, "`cost` must be a Cost"),
    "cost of nothing": (refused(cost=RING.cost(1, 1)), ValueError, "`cost` must be that of a call"),
    "cost of two nodes": (refused(THREE), ValueError, "`cost.num_nodes` must be the number of"),
    "cost of more": (refused(cost=RING.cost(5, 2)), ValueError, "`cost` must be that of every"),
    "no hops": (refused(cost=()), ValueError, "`cost` must be that of a call that sends"),
    "numbers": (refused(cost=(1, 8)), TypeError, "`cost[0]` must be a Hops"),
    "hops of nothing": (refused(cost=(HOPS, Hops.of(0, 2, 8))), ValueError, "`cost` must be that"),
    "hops of more nodes": (
        refused(cost=(HOPS, Hops.of(1, 3, 8))),
        ValueError,
        "`cost` must be that of collectives of the same nodes",
    ),
    "hops of three nodes": (refused(THREE, cost=(HOPS,)), ValueError, "`cost.num_nodes` must be"),
    "narrower hops": (
        refused(cost=(Hops.of(1, 2, 6, collective="all_gather"),)),
        ValueError,
        "`cost` must be that of every call, here 2 nodes, 1 hops and 1 values a hop of 8 bits",
    ),
    "more hops": (
        refused(cost=(Hops.of(1, 2, 8), Hops.of(2, 2, 8))),
        ValueError,
        "`cost` must be that of every",
    ),
    "no other ring": (lambda: couple(RING, LINK), TypeError, "`rings` must be a Ring"),
    "ring without links": (lambda: couple(RING, Ring()), ValueError, "`rings` must have links"),
    "rings that differ": (lambda: couple(RING, THREE), ValueError, "`rings` must have the same"),
    "wide exact": (
        refused(Ring(LINK), estimator="exact"),
        ValueError,
        "`wire` must be a FixedPoint of at most 12",
    ),
} | {
    f"{kind} of {name}": (
        refused(ring, estimator=kind, samples=2),
        ValueError,
        f"`{argument}` must be",
    )
    for kind, name, ring, argument in [
        *(
            (k, "codes", RING.replace(protection=jq.codes.IdealCode()), "ring.protection")
            for k in ("gaussian", "exact", "score", "russo")
        ),
        *(
            (k, "plain links", RING.replace(scramble=False), "ring.scramble")
            for k in ("score", "russo")
        ),
    ]
}


@pytest.mark.parametrize("call, error, start", REFUSED.values(), ids=REFUSED)
def test_a_malformed_call_is_refused_in_one_sentence(call, error, start):
    with pytest.raises(error) as refusal:
        call()
    message = str(refusal.value)
    assert message.startswith(start), message
    assert message.endswith("."), message
    assert "\n" not in message, message
    assert " must " in message, message


EITHER = pytest.mark.parametrize("estimator", ["score", further("russo")])


@EITHER
def test_a_call_with_another_key_is_not_a_number(estimator):
    @jax.jit
    def run(key, foreign):
        def loss(ring, keys):
            return sent_once(ring, jnp.where(foreign, jax.random.key(5), keys))

        return expected(loss, RING, key, estimator=estimator, samples=2, cost=COST)

    assert bool(jnp.isnan(run(KEY, True)))
    assert bool(jnp.isfinite(run(KEY, False)))


@EITHER
def test_a_second_derivative_is_refused(estimator):
    def run(epsilon):
        ring = Ring(superdense(werner(fidelity=1 - epsilon)), FixedPoint(8))
        return expected(sent_once, ring, KEY, estimator=estimator, samples=2, cost=COST)

    for second in (jax.grad(jax.grad(run)), jax.jacfwd(jax.jacfwd(run))):
        with pytest.raises(ValueError, match=r"^`estimator` must .* differentiated twice.*\."):
            jax.eval_shape(second, 0.1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"samples": 0}, "`samples` must be an integer of at least 1"),
        ({"calls": 1.0}, "`calls` must be an integer of at least 1"),
        ({"batch": -1}, "`batch` must be an integer of at least 1"),
        ({"high": training_ring(0.1).replace(wire=FixedPoint(12))}, "`high` must differ from"),
        ({"low": Ring(noise="off")}, "`rings` must have links"),
    ],
)
def test_malformed_differences_are_refused(change, message):
    ends = {"low": training_ring(0.1), "high": training_ring(0.2), "width": 0.1, "key": KEY}
    with pytest.raises(ValueError, match=message):
        finite_difference(lambda ring, keys: jnp.float32(0), **(ends | change))
