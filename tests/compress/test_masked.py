"""Under masks: the sums bit for bit, and steps that are given up."""

import functools

import jax
import numpy as np
import pytest
from compress_calls import (
    BARE,
    KEY,
    assert_same_bits,
    label,
    normal,
    once,
    quiet,
    same_on_all,
    secure_step,
    states,
)

from jaxqring import GHZSource, dephasing, depolarizing
from jaxqring.compress import LQSGD, QSGD, PowerSGD, RandomK, SignVote, TernGrad, Uncompressed
from jaxqring.secure import PlantedSource, SecureReport, Security, plus_states

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
NODES = 3


def gradients(seed=0):
    return {"a": normal(NODES, 6, 5, seed=seed), "v": 0.01 * normal(NODES, 4, seed=seed + 1)}


def masked(mapping, compressor, source, *, security=BARE, state=None, key=KEY, bits=16):
    x = gradients()
    state = states(compressor, x) if state is None else state
    run = mapping(secure_step(compressor, security), NODES, shared=3)
    return run(x, state, quiet(bits), source, key)


CHECKED = Security(attempts=2)


@pytest.mark.parametrize(
    "compressor",
    [
        further(Uncompressed()),
        further(PowerSGD()),
        further(LQSGD(reduce="sum")),
        further(RandomK(0.4)),
        further(TernGrad()),
        further(QSGD()),
        SignVote(0.5),
    ],
    ids=label,
)
def test_masked_sums_are_the_plain_ones_bit_for_bit(vmapped, compressor):
    source = GHZSource(NODES, noise=depolarizing(mix=0.0))
    mean, state, report = masked(vmapped, compressor, source, security=CHECKED)
    wanted = once(vmapped, compressor, gradients(), quiet(), KEY)
    assert_same_bits((mean, state), wanted)
    report = same_on_all(report)
    assert not report.aborted
    assert all(isinstance(call, SecureReport) for call in report.calls)
    messages = compressor.messages({"a": np.zeros((6, 5)), "v": np.zeros(4)}, NODES)
    assert len(report.calls) == len(messages)
    # Masks are drawn for every collective, in its own width.
    for call, message in zip(report.calls, messages, strict=True):
        assert call.copies > 0
        chunk = -(-message.size // NODES)
        assert call.ring.symbols_per_link == 2 * (NODES - 1) * chunk * message.bits // 2


def carried(compressor):
    """A state as it is after a step."""
    state = states(compressor, gradients())
    return jax.tree.map(lambda leaf: leaf + np.float32(0.25), state)


@pytest.mark.parametrize("compressor", [further(PowerSGD()), SignVote(0.5)], ids=label)
def test_an_aborted_step_delivers_nothing_and_changes_nothing(vmapped, compressor):
    bad = GHZSource(NODES, noise=depolarizing(mix=0.5))
    before = carried(compressor)
    run = functools.partial(masked, vmapped, compressor, security=CHECKED)
    mean, state, report = run(bad, state=before)
    report = same_on_all(report)
    assert report.aborted
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(mean))
    assert_same_bits(state, before)
    assert_same_bits(report.keep(1.0, 2.0), np.float32(2))
    # The same program with a good source: nothing was left behind that would spoil the next step.
    good = GHZSource(NODES, noise=depolarizing(mix=0.0))
    mean, after, report = run(good, state=state)
    assert not same_on_all(report).aborted
    wanted = once(vmapped, compressor, gradients(), quiet(), KEY, state=before)
    assert_same_bits((mean, after), wanted)


@pytest.mark.matrix
def test_one_failed_sum_of_two_gives_the_step_up(vmapped):
    """Some keys fail in the first sum alone, some in the second alone."""
    source = GHZSource(NODES, noise=depolarizing(mix=0.003))
    security = Security("none", tests="z", attempts=1)
    before, seen = carried(PowerSGD()), set()
    for seed in range(30):
        key = jax.random.key(seed)
        mean, state, report = masked(
            vmapped, PowerSGD(), source, security=security, state=before, key=key
        )
        report = same_on_all(report)
        parts = tuple(bool(call.aborted) for call in report.calls)
        seen.add(parts)
        assert bool(report.aborted) == any(parts)
        lost = [np.isnan(leaf).all() for leaf in jax.tree.leaves(mean)]
        assert lost == [any(parts)] * 2
        if any(parts):
            assert_same_bits(state, before)
    assert {(True, False), (False, True), (False, False)} <= seen


@pytest.mark.matrix
def test_planted_copies_do_not_change_the_sums(vmapped):
    source = PlantedSource(GHZSource(NODES), plus_states(NODES), 1)
    mean, state, report = masked(vmapped, SignVote(), source)
    assert not same_on_all(report).aborted
    assert_same_bits((mean, state), once(vmapped, SignVote(), gradients(), quiet(), KEY))


@pytest.mark.matrix
def test_masks_that_do_not_cancel_are_counted_as_votes_that_nobody_cast(vmapped):
    """Dephased copies pass every test of populations and make wrong sums of three votes."""
    source = GHZSource(NODES, noise=dephasing(error_prob=0.5))
    mean, _, report = masked(vmapped, SignVote(), source, security=Security("none", tests="z"))
    report = same_on_all(report)
    assert not report.aborted
    assert 5 < report.out_of_range <= 34 * NODES
    assert set(np.unique(np.concatenate([np.ravel(x) for x in mean.values()]))) <= {-1, 0, 1}
