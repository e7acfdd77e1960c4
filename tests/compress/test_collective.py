"""`compressed_pmean`: types, leaves that are not finite, rings of a step, and its report."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compress_calls import (
    KEY,
    assert_same_bits,
    noisy,
    normal,
    once,
    quiet,
    same_on_all,
    states,
    step,
)

from jaxqring.codes import repetition
from jaxqring.compress import LQSGD, DeMo, PowerSGD, SignVote, TopK

NODES = 3


def gradients(seed=0):
    return {
        "a": normal(NODES, 6, 5, seed=seed),
        "v": 0.01 * normal(NODES, 4, seed=seed + 1),
    }


@pytest.mark.parametrize(
    "compressor",
    [PowerSGD(), TopK(0.3), SignVote(), DeMo(k=3), LQSGD()],
    ids=lambda c: type(c).__name__,
)
def test_a_leaf_that_is_not_finite_is_lost_on_all_nodes_and_the_state_stays(vmapped, compressor):
    x = gradients()
    before = jax.tree.map(lambda leaf: leaf + np.float32(0.25), states(compressor, x))
    run = functools.partial(once, vmapped, compressor, ring=quiet(), report=True, state=before)
    whole, after, report = run(x=x)
    assert same_on_all(report).lost_leaves == 0
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    )
    for bad, name, other in ((np.nan, "v", "a"), (-np.inf, "a", "v")):
        broken = {key: leaf.copy() for key, leaf in x.items()}
        broken[name][1].flat[2] = bad
        mean, state, report = run(x=broken)
        assert np.isnan(mean[name]).all()
        # The other leaf is delivered as it would have been.
        assert_same_bits(mean[other], whole[other])
        assert_same_bits(state, before)
        report = same_on_all(report)
        assert report.lost_leaves == 1
        assert not report.aborted
        assert report.saturated == 0


def test_leaves_keep_their_types(vmapped):
    x = {
        "half": jnp.asarray(normal(NODES, 6, 5), jnp.bfloat16),
        "short": jnp.asarray(normal(NODES, 4), jnp.float16),
        "single": jnp.asarray(normal(NODES, 3)),
    }
    compressor = TopK(1.0, bits=24)
    state = states(compressor, x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    mean, state = vmapped(step(compressor), NODES, shared=2)(x, state, quiet(), None)
    for name, leaf in x.items():
        assert mean[name].dtype == leaf.dtype
        wanted = np.asarray(leaf, np.float32).mean(axis=0)
        np.testing.assert_allclose(np.asarray(mean[name][0], np.float32), wanted, rtol=1e-2)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))


def test_a_ring_for_each_collective_of_a_step(vmapped):
    """The first sum of PowerSGD over protected links, the second one over bare ones."""
    bare = noisy(0.95)
    whole = noisy(0.95, protection=repetition(9))
    mean, state, report = once(vmapped, PowerSGD(), gradients(), (whole, bare), KEY, report=True)
    report = same_on_all(report)
    assert [call.symbol_errors > 0 for call in report.rings] == [False, True]
    assert report.undelivered == 0
    # Without an error in the first: the basis, and the leaf beside it, are those of quiet links.
    quiet_mean, quiet_state = once(vmapped, PowerSGD(), gradients(), quiet())
    assert_same_bits(mean["v"], quiet_mean["v"])
    assert_same_bits(state.errors, quiet_state.errors)
    assert (np.asarray(mean["a"]) != np.asarray(quiet_mean["a"])).any()
    assert report.symbol_errors == sum(call.symbol_errors for call in report.rings)
    qubits = [float(call.online_qubits) for call in report.rings]
    assert float(report.online_qubits) == sum(qubits)
    assert qubits[0] == 9 * NODES * report.rings[0].symbols_per_link
    assert qubits[1] == NODES * report.rings[1].symbols_per_link


@pytest.mark.parametrize("compressor", [TopK(0.3), DeMo(k=3)], ids=["topk", "demo"])
def test_places_that_errors_made_are_counted_and_dropped(vmapped, compressor):
    """34 values, and 30 coefficients of a block, have places that five or six bits can leave."""
    mean, _, report = once(vmapped, compressor, gradients(), noisy(0.8), KEY, report=True)
    report = same_on_all(report)
    assert report.out_of_range > 0
    assert report.replica_agreement < 1
    assert all(np.isfinite(leaf).all() for leaf in mean.values())


def test_shared_factors_keep_nodes_together(vmapped):
    """Without, every node begins the next step with a factor of its own."""
    x = gradients()
    for shares in (True, False):
        compressor = PowerSGD(share_factors=shares)
        _, state = once(vmapped, compressor, x, noisy(0.9), KEY)
        (factor,) = (np.asarray(leaf) for leaf in state.factors)
        assert (factor == factor[:1]).all() == shares
        assert np.isfinite(factor).all()
    quiet_state = once(vmapped, PowerSGD(), x, quiet())[1]
    shared_state = once(vmapped, PowerSGD(share_factors=True), x, quiet())[1]
    np.testing.assert_allclose(shared_state.factors[0], quiet_state.factors[0], rtol=1e-6)


def test_an_error_that_leaves_float32_is_reported_and_not_passed_on(vmapped):
    """The gradient is finite and so is the error of a node; their sum is not."""
    x = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3e38), gradients())
    state = states(PowerSGD(), x)
    state = state._replace(errors=jax.tree.map(lambda leaf: leaf + np.float32(3e38), state.errors))
    _, after, report = once(vmapped, PowerSGD(), x, quiet(), None, report=True, state=state)
    assert int(np.asarray(report.lost_leaves)[0]) > 0
    jax.tree.map(np.testing.assert_array_equal, after, state)
