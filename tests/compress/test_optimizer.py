"""`all_reduce` of a compressor in an Optax chain: the updates, and the running cost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compress_calls import (
    AXIS,
    KEY,
    assert_same_bits,
    noisy,
    normal,
    quiet,
    same_on_all,
    states,
    step,
)
from jax import lax

from jaxqring import GHZSource, depolarizing
from jaxqring.compress import (
    LQSGD,
    CompressState,
    PowerSGD,
    SignVote,
    TernGrad,
    TopK,
    all_reduce,
)
from jaxqring.secure import Security

NODES, STEPS = 3, 3
PARAMS = {"w": jnp.ones((6, 5)), "b": jnp.zeros(4)}


def gradients():
    """(steps, N, ...)."""
    return {"w": normal(STEPS, NODES, 6, 5), "b": 0.1 * normal(STEPS, NODES, 4, seed=1)}


def on_nodes(tree):
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (NODES, *leaf.shape)), tree)


def train(optimizer, given):
    """Updates and states of all steps, in one program; none of them but the first is new."""
    run = jax.vmap(optimizer.update, axis_name=AXIS)

    def body(state, found):
        updates, state = run(found, state)
        return state, (updates, state)

    return jax.jit(lambda state, given: lax.scan(body, state, given)[1])(
        on_nodes(optimizer.init(PARAMS)), given
    )


def by_hand(compressor, ring, key, optimizer, given):
    """The same with `compressed_pmean`, and the bare optimizer after it."""
    run = jax.jit(
        jax.vmap(step(compressor, report=True), in_axes=(0, 0, None, None), axis_name=AXIS)
    )
    state, after = states(compressor, on_nodes(PARAMS)), on_nodes(optimizer.init(PARAMS))
    found = []
    for number in range(STEPS):
        own = jax.tree.map(lambda leaf, at=number: jnp.asarray(leaf[at]), given)
        mean, state, report = run(own, state, ring, jax.random.fold_in(key, number))
        updates, after = jax.vmap(optimizer.update)(mean, after)
        found.append((updates, state, same_on_all(report)))
    return found


@pytest.mark.parametrize(
    "compressor, ring",
    [
        (SignVote(0.5), quiet()),
        pytest.param(PowerSGD(), quiet(), marks=pytest.mark.matrix),
        pytest.param(TernGrad(), noisy(0.9), marks=pytest.mark.matrix),
        pytest.param(TopK(0.3), noisy(0.9), marks=pytest.mark.matrix),
    ],
    ids=["vote", "power", "terngrad", "topk"],
)
def test_it_is_the_step_and_then_the_optimizer_and_counts_the_cost(compressor, ring):
    momentum = optax.sgd(0.1, momentum=0.9)
    optimizer = optax.chain(all_reduce(compressor, ring, AXIS, key=KEY), momentum)
    updates, (state, _) = train(optimizer, gradients())
    assert isinstance(state, CompressState)
    steps = by_hand(compressor, ring, KEY, momentum, gradients())
    errors = 0
    for number, (wanted, memory, report) in enumerate(steps):
        for got, leaf in zip(jax.tree.leaves(updates), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(got[number], leaf, rtol=1e-5, atol=1e-7)
        got = jax.tree.map(lambda leaf, at=number: leaf[at], state.memory)
        for own, leaf in zip(jax.tree.leaves(got), jax.tree.leaves(memory), strict=True):
            np.testing.assert_allclose(own, leaf, rtol=1e-5, atol=1e-7)
        errors += int(report.symbol_errors)
    cost = compressor.cost(ring, PARAMS, NODES)
    last = same_on_all(jax.tree.map(lambda leaf: leaf[-1], state._replace(memory=())))
    assert last.step == STEPS
    assert last.bits == STEPS * cost.bits
    assert last.control_bits == STEPS * cost.control_bits
    assert last.qubits == last.pairs == STEPS * cost.qubits
    assert last.symbol_errors == errors
    assert (errors > 0) == (ring.noise == "sampled")
    assert last.out_of_range == sum(int(report.out_of_range) for *_, report in steps)
    assert last.replica_agreement == steps[-1][2].replica_agreement
    assert last.undelivered == last.retransmissions == last.repeated_qubits == 0


def test_it_starts_from_nothing():
    transformation = all_reduce(PowerSGD(rank=2), quiet(), AXIS, key=None)
    state = transformation.init(PARAMS)
    assert_same_bits(state.memory, PowerSGD(rank=2).init(PARAMS))
    assert state.replica_agreement == 1
    rest = state._replace(memory=(), replica_agreement=jnp.float32(0))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(rest))
    assert float(optax.tree.get(state, "bits")) == 0


def test_nodes_of_a_device_have_a_memory_each():
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    for compressor in (PowerSGD(), LQSGD(), TopK(0.3), TernGrad()):
        ring = quiet(nodes_per_device=2)
        state = all_reduce(compressor, ring, AXIS, key=KEY).init(two)
        one = compressor.init(PARAMS)
        for leaf, own in zip(jax.tree.leaves(state.memory), jax.tree.leaves(one), strict=True):
            assert leaf.shape == (2, *np.shape(own))
            np.testing.assert_array_equal(leaf[1], own)


@pytest.mark.matrix
def test_an_aborted_step_is_skipped_and_the_memory_stays():
    """`apply_if_finite` skips the optimizer; the memory of the compressor stays by itself."""
    transformation = all_reduce(
        PowerSGD(),
        quiet(),
        AXIS,
        key=KEY,
        security=Security(),
        source=GHZSource(NODES, noise=depolarizing(mix=0.5)),
    )
    inner = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), max_consecutive_errors=5)
    optimizer = optax.chain(transformation, inner)
    updates, (state, finite) = train(optimizer, gradients())
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(updates))
    assert_same_bits(
        jax.tree.map(lambda leaf: leaf[-1], state.memory), on_nodes(PowerSGD().init(PARAMS))
    )
    assert np.asarray(finite.total_notfinite)[-1].tolist() == [STEPS] * NODES
