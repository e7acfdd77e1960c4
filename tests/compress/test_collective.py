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

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
NODES = 3


def gradients(seed=0):
    return {
        "a": normal(NODES, 6, 5, seed=seed),
        "v": 0.01 * normal(NODES, 4, seed=seed + 1),
    }


@pytest.mark.parametrize(
    "compressor",
    [PowerSGD(), further(TopK(0.3)), further(SignVote()), further(DeMo(k=3)), further(LQSGD())],
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


@pytest.mark.matrix
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


@pytest.mark.matrix
@pytest.mark.parametrize("compressor", [TopK(0.3), DeMo(k=3)], ids=["topk", "demo"])
def test_places_that_errors_made_are_counted_and_dropped(vmapped, compressor):
    """34 values, and 30 coefficients of a block, have places that five or six bits can leave."""
    mean, _, report = once(vmapped, compressor, gradients(), noisy(0.8), KEY, report=True)
    report = same_on_all(report)
    assert report.out_of_range > 0
    assert report.replica_agreement < 1
    assert all(np.isfinite(leaf).all() for leaf in mean.values())


@pytest.mark.matrix
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
