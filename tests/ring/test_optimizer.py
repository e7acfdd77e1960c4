"""`all_reduce` in an Optax chain: the update of the mean, and the running cost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxqring import FixedPoint, Ring, all_reduce, pmean, superdense, werner

AXIS = "nodes"
KEY = jax.random.key(20260722)
NOISY = Ring(superdense(werner(fidelity=0.9)))
STEPS = 3
NODES = 3
PARAMS = {"w": jnp.ones((4, 2)), "b": jnp.zeros(3)}  # 11 values: chunks of 4


def gradients(seed=0):
    """(N, STEPS, ...) what every node finds in every step."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=(NODES, STEPS, *leaf.shape)), jnp.float32), PARAMS
    )


def train(found, ring):
    """All steps in a scan, with the parameters and the state of every node its own."""
    optimizer = optax.chain(all_reduce(ring, AXIS, key=KEY), optax.adam(0.1))

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, optax.tree.get(state, "symbol_errors"))

    # The first gradient gives the carry the type of a value that varies over the nodes.
    start = jax.tree.map(lambda leaf, own: leaf + 0 * own[0], PARAMS, found)
    state = optimizer.init(start)
    varying = jnp.ravel(found["b"])[0] * 0
    state = (
        state[0],  # the running cost is the same on all nodes
        jax.tree.map(lambda leaf: leaf + varying if leaf.dtype == jnp.float32 else leaf, state[1]),
    )
    (_, state), (history, errors) = lax.scan(step, (start, state), found)
    return history, errors, state


def by_hand(found, ring):
    """The same with `pmean` and the bare optimizer, in a Python loop."""
    optimizer = optax.adam(0.1)
    params, state, history, seen, agreement = PARAMS, optimizer.init(PARAMS), [], [], None
    for index in range(STEPS):
        mean, report = pmean(
            jax.tree.map(lambda leaf, at=index: leaf[at], found),
            AXIS,
            ring=ring,
            key=jax.random.fold_in(KEY, index),
            with_report=True,
        )
        updates, state = optimizer.update(mean, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
        seen.append(report.symbol_errors)
        agreement = report.replica_agreement
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *history), jnp.stack(seen), agreement


@pytest.fixture(scope="module")
def reference(mapping_named):
    return mapping_named("vmap")(by_hand, NODES, shared=1)(gradients(), NOISY)


def test_it_is_the_mean_and_then_the_optimizer_and_counts_the_cost(vmap_first, reference):
    history, errors, state = vmap_first(train, NODES, shared=1)(gradients(), NOISY)
    expected, seen, agreement = reference
    for got, leaf in zip(jax.tree.leaves(history), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-5, atol=1e-6)
        assert np.abs(np.asarray(got) - np.asarray(got)[:1]).max() > 0  # noisy replicas differ
    np.testing.assert_array_equal(errors, np.cumsum(np.asarray(seen), axis=1))
    np.testing.assert_array_equal(optax.tree.get(state, "replica_agreement"), agreement)
    cost = NOISY.cost(PARAMS, NODES)
    assert cost.qubits == 4 * 4 * 8
    for name in ("bits", "qubits", "pairs"):
        total = STEPS * getattr(cost, name)
        assert np.asarray(optax.tree.get(state, name)).tolist() == [total] * NODES


def test_every_step_draws_errors_of_its_own(vmapped):
    # The same gradient in every step. 384 symbols wrong with probability 0.1: two steps with the
    # same counts on all links and the same values do not happen by chance (below 1e-6 by far).
    optimizer = all_reduce(NOISY, AXIS, key=KEY)

    def two_steps(gradient):
        first, state = optimizer.update(gradient, optimizer.init(gradient))
        second, state = optimizer.update(gradient, state)
        again, _ = optimizer.update(gradient, optimizer.init(gradient))
        return first, second, again

    gradient = jax.tree.map(lambda leaf: leaf[:, 0], gradients())
    first, second, again = vmapped(two_steps, NODES)(gradient)
    for name in PARAMS:
        assert (np.asarray(first[name]) != np.asarray(second[name])).any()
        np.testing.assert_array_equal(first[name], again[name])


def test_without_noise_and_with_sgd_it_is_the_step_of_the_mean_gradient(mapping):
    optimizer = optax.chain(
        all_reduce(Ring(noise="off", wire=FixedPoint(24)), AXIS, key=KEY), optax.sgd(0.5)
    )

    def step(gradient, params):
        updates, state = optimizer.update(gradient, optimizer.init(params), params)
        return optax.apply_updates(params, updates), optax.tree.get(state, "symbol_errors")

    gradient = jax.tree.map(lambda leaf: leaf[:, 0], gradients(1))
    params, errors = mapping(step, NODES, shared=1)(gradient, PARAMS)
    for name, leaf in PARAMS.items():
        expected = np.asarray(leaf) - 0.5 * np.asarray(gradient[name]).mean(axis=0)
        np.testing.assert_allclose(
            params[name], np.broadcast_to(expected, params[name].shape), atol=1e-5
        )
        assert (np.asarray(params[name]) == np.asarray(params[name])[:1]).all()
    assert np.asarray(errors).tolist() == [0] * NODES


def test_init_runs_outside_the_mapping_and_extra_arguments_pass(vmapped):
    optimizer = all_reduce(Ring(noise="off"), AXIS, key=KEY)
    state = optimizer.init(PARAMS)
    for name, value in (("step", 0), ("bits", 0), ("symbol_errors", 0), ("replica_agreement", 1)):
        assert float(optax.tree.get(state, name)) == value

    def step(gradient, state):
        return optimizer.update(gradient, state, PARAMS, value=jnp.float32(1))[1]

    state = vmapped(step, NODES, shared=1)(
        jax.tree.map(lambda leaf: leaf[:, 0], gradients()), state
    )
    assert np.asarray(state.step).tolist() == [1] * NODES


def test_a_device_with_several_nodes_counts_each_value_once(vmapped):
    ring = Ring(noise="off", nodes_per_device=2)
    optimizer = all_reduce(ring, AXIS, key=KEY)

    def step(gradient):
        return optimizer.update(gradient, optimizer.init(gradient))

    x = jnp.arange(24.0).reshape(2, 2, 6)
    mean, state = vmapped(step, 2)(x)
    expected = np.asarray(x).reshape(4, 6).mean(axis=0)
    np.testing.assert_allclose(mean, np.broadcast_to(expected, (2, 2, 6)), rtol=1e-3)
    assert np.asarray(state.qubits).tolist() == [ring.cost(6, 4).qubits] * 2
