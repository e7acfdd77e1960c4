"""A server with delayed momentum against its equations in numpy, and whole lists of arrivals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxqring.outer import arrivals, delayed_nesterov, run_arrivals

GRADIENTS = (1.0, -2.0, 3.0, 0.5, 2.0, -1.0, 0.25, 4.0)
CENTRES = np.array([(1.0, 0.0), (0.0, 2.0), (-1.0, 1.0), (3.0, -2.0)])
CURVED = np.array([1.0, 2.0])
START = np.array([5.0, -3.0])


@functools.cache
def served(every):
    def serve(activation, displacements):
        server = delayed_nesterov(0.7, 0.9, every=every, activation=activation)
        start = jnp.zeros(()), server.init(jnp.zeros(()))

        def step(carry, displacement):
            carry = server.update(displacement, carry[1], carry[0])
            return carry, carry[0]

        return jax.lax.scan(step, start, displacements)

    return jax.jit(serve)


@pytest.mark.parametrize(
    "every, activation, wanted",
    [
        (4, 0.0, -2.93125),
        (4, 0.1, -2.576875),
        (4, 0.25, -2.0453125),
        (1, 0.0, -18.030409117),
        (1, 1.0, -18.030409117),
    ],
)
def test_the_known_ends_of_eight_arrivals(every, activation, wanted):
    (end, state), _ = served(every)(activation, np.array(GRADIENTS, np.float32))
    assert float(end) == pytest.approx(wanted, rel=1e-6)
    assert int(state.arrivals) == 8
    assert float(state.waiting) == 0


def test_a_window_without_activation_is_a_nesterov_step_on_its_mean():
    optimizer = optax.sgd(0.7, momentum=0.9, nesterov=True)
    params = jnp.zeros(())
    state = optimizer.init(params)
    _, path = served(4)(0.0, np.array(GRADIENTS, np.float32))
    for window in range(2):
        mean = jnp.array(np.mean(GRADIENTS[4 * window : 4 * window + 4]))
        updates, state = optimizer.update(mean, state)
        params = optax.apply_updates(params, updates)
        assert float(path[4 * window + 3]) == pytest.approx(float(params), rel=1e-6)


def in_numpy(events, rates, every, activation):
    """The arrivals on quadratics, in closed form for the inner steps."""
    eps, beta, inner = rates
    params, momentum, waiting = START.copy(), np.zeros(2), np.zeros(2)
    copies = [START.copy() for _ in CENTRES]
    for count, (node, steps) in enumerate(zip(events.node, events.steps, strict=True), 1):
        moved = (1 - (1 - inner * CURVED) ** steps) * (copies[node] - CENTRES[node])
        waiting = waiting + moved
        if count % every == 0:
            momentum = beta * momentum + waiting / every
            used, waiting = 1 - activation * every + activation, np.zeros(2)
        else:
            used = activation
        params = params - eps * (used * beta * momentum + moved / every)
        copies[node] = params.copy()
    return params, np.array(copies)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_list_of_arrivals_is_that_in_numpy(adapted):
    events = arrivals((1.0, 0.75, 0.25, 0.75), 8, 22, dylu_steps=adapted)

    def gradient(params, node, step):
        return CURVED * (params - jnp.asarray(CENTRES)[node])

    server = delayed_nesterov(0.4, 0.5, every=4, activation=0.1)
    run = jax.jit(lambda start: run_arrivals(gradient, optax.sgd(0.1), server, events, start))
    found = run(jnp.asarray(START))
    params, copies = in_numpy(events, (0.4, 0.5, 0.1), 4, 0.1)
    np.testing.assert_allclose(found.params, params, rtol=2e-6)
    np.testing.assert_allclose(found.copies, copies, rtol=2e-6, atol=1e-6)
    made = [int(events.steps[events.node == node].sum()) for node in range(4)]
    assert found.steps.tolist() == made
    assert found.displacement.shape == (22,)
    first = (1 - (1 - 0.1 * CURVED) ** 8) * (START - CENTRES[0])
    assert float(found.displacement[0]) == pytest.approx(np.linalg.norm(first), rel=1e-6)


def test_a_node_keeps_its_inner_state_and_counts_its_own_steps():
    # The gradient is the number of the step, and the sum of them is remembered.
    events = arrivals((1.0, 0.5), 3, 5)
    found = run_arrivals(
        lambda params, node, step: step.astype(jnp.float32) + 0 * params,
        optax.trace(1.0),
        delayed_nesterov(0.0, 0.0, every=1),
        events,
        jnp.zeros((), jnp.float32),
    )
    np.testing.assert_array_equal(found.inner.trace, [sum(range(12)), sum(range(3))])


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: delayed_nesterov(every=0), "`every` must be an integer of at least 1, but got 0."),
        (
            lambda: delayed_nesterov(every=4, activation=0.3),
            "`activation` must lie in [0, 0.25], but got 0.3.",
        ),
        (lambda: delayed_nesterov(-1.0, every=4), "`learning_rate` must lie in"),
        (lambda: delayed_nesterov(0.7, 1.5, every=4), "`momentum` must lie in [0, 1]"),
        (
            lambda: run_arrivals(
                None, optax.sgd(1.0), optax.sgd(1.0), arrivals((1.0,), 1, 1), jnp.ones(2)
            ),
            "`server` must be a Server",
        ),
        (
            lambda: run_arrivals(
                None,
                optax.sgd(1.0),
                delayed_nesterov(every=1),
                arrivals((1.0,), 1, 1),
                {"w": jnp.ones(2, int)},
            ),
            "`params['w']` must be real and floating",
        ),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises((ValueError, TypeError)) as found:
        call()
    assert str(found.value).startswith(sentence)
    assert str(found.value).endswith(".")
