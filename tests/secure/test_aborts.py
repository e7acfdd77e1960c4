"""Collectives that fail verification, or whose nodes vanish, deliver nothing unverified."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import binom
from secure_calls import (
    AXIS,
    BARE,
    KEY,
    assert_follows,
    assert_same_bits,
    dephased,
    depolarized_by,
    first,
    over_keys,
    payload,
    plain,
    quiet,
    secure,
    tree,
)

from jaxqring import GHZSource, depolarizing, secure_pmean, secure_psum
from jaxqring.secure import Dropout, PlantedSource, Security, plus_states
from jaxqring.secure._attempts import verify_attempts

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


# --- Abort ----------------------------------------------------------------------------------------

BAD = GHZSource(3, noise=depolarizing(mix=0.2))


def train_state(x):
    """State that a step may carry, for three nodes."""
    params = {"w": x, "half": x[:, :2].astype(jnp.bfloat16)}
    return {"params": params, "count": jnp.arange(3), "key": jnp.zeros((3, 2), jnp.uint32)}


def test_a_failed_verification_delivers_nothing_and_changes_nothing(vmap_first):
    security = Security(attempts=4)

    def step(state, gradient, source, key):
        update, report = secure_pmean(
            gradient,
            AXIS,
            ring=quiet(),
            source=source,
            security=security,
            key=key,
            with_report=True,
        )
        moved = jax.tree.map(lambda a, b: (a - b).astype(a.dtype), state["params"], update)
        new = {"params": moved, "count": state["count"] + 1, "key": state["key"] + 7}
        return report.keep(new, state), update, report

    state = train_state(payload(3, 20))
    run = vmap_first(step, 3, shared=2)
    gradient = train_state(payload(3, 20, seed=1))["params"]
    kept, update, report = run(state, gradient, BAD, KEY)
    assert_same_bits(kept, state)
    for leaf, own in zip(jax.tree.leaves(update), jax.tree.leaves(gradient), strict=True):
        assert leaf.dtype == own.dtype
        assert np.isnan(np.asarray(leaf, np.float32)).all()
    seen = first(report)
    assert seen.aborted
    assert (seen.attempts, seen.survivors) == (4, 3)
    assert seen.failures > 0
    assert seen.copies == 4 * 2 * security.masks_needed(22)
    # Nothing is left behind that would spoil the next step.
    moved, _, report = run(kept, gradient, dephased(3, 0.0), jax.random.key(1))
    assert not first(report).aborted
    assert np.asarray(moved["count"]).tolist() == [1, 2, 3]
    assert not np.array_equal(moved["params"]["w"], state["params"]["w"])


def test_apply_if_finite_skips_an_aborted_step(vmapped):
    optimizer = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), max_consecutive_errors=3)

    def step(params, gradient, state, source, key):
        update = secure_pmean(
            gradient, AXIS, ring=quiet(), source=source, security=Security(), key=key
        )
        update, state = optimizer.update(update, state, params)
        return optax.apply_updates(params, update), state

    run = vmapped(step, 3, shared=2)
    params, gradient = payload(3, 9), payload(3, 9, seed=1)
    state = jax.vmap(optimizer.init)(params)
    params, state = run(params, gradient, state, depolarized_by(0.0), jax.random.key(1))
    same, skipped = run(params, gradient, state, BAD, jax.random.key(2))
    assert_same_bits((same, skipped.inner_state), (params, state.inner_state))
    assert np.asarray(skipped.total_notfinite).tolist() == [1, 1, 1]
    moved, after = run(same, gradient, skipped, depolarized_by(0.0), jax.random.key(3))
    assert not np.array_equal(moved, params)
    assert np.asarray(after.notfinite_count).tolist() == [0, 0, 0]


@pytest.mark.statistics
@pytest.mark.parametrize("tests, tolerance", [("z", 0.0), ("xy", 0.2), ("mixed", 0.2)])
def test_attempts_are_geometric_with_the_probability_to_pass(tests, tolerance):
    """2,000 keys."""
    source = depolarized_by(0.02 if tolerance == 0 else 0.04)
    security = Security("none", tests=tests, tolerance=tolerance)
    _, (total, report) = over_keys(secure(security=security), 3, 2000, quiet(4), source, None)
    z_share = {"z": 1.0, "xy": 0.0, "mixed": 1 / 3}[tests]
    along, across = (1 - (1 - float(e)) ** 4 for e in (source.disagreement, source.x_error))
    fails = z_share * along + (1 - z_share) * across
    passes = binom.cdf(math.floor(tolerance * 6), 6, fails)
    assert 0.3 < passes < 0.8
    law = {(n, False): passes * (1 - passes) ** (n - 1) for n in (1, 2, 3)}
    law[3, True] = (1 - passes) ** 3
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], report)
    assert_follows(list(zip(seen.attempts.tolist(), seen.aborted.tolist(), strict=True)), law)
    np.testing.assert_array_equal(seen.copies, 12 * seen.attempts)
    np.testing.assert_array_equal(np.isnan(total).all(axis=(1, 2)), seen.aborted)
    np.testing.assert_array_equal(np.isnan(total).any(axis=(1, 2)), seen.aborted)


def test_planted_copies_do_not_change_the_sums(vmapped):
    x = payload(3, 100)
    source = PlantedSource(GHZSource(3), plus_states(3), 1)
    total, report = vmapped(secure(), 3, shared=4)(x, quiet(), source, None, KEY)
    exact, _ = vmapped(plain(), 3, shared=2)(x, quiet(), None)
    assert not first(report).aborted
    assert_same_bits(total, exact)


# --- Nodes that vanish ----------------------------------------------------------------------------


@pytest.mark.parametrize("recovery", ["restart", further("spare")])
def test_without_a_dropout_nothing_changes(vmapped, recovery):
    x = tree(4)
    exact, alike = vmapped(secure(), 4, shared=4)(x, quiet(), GHZSource(4), None, KEY)
    total, report = vmapped(secure(), 4, shared=4)(
        x, quiet(), GHZSource(4), Dropout(0.0, recovery), KEY
    )
    assert_same_bits(total, exact)
    spares = 1 if recovery == "restart" else 1 + 4
    assert first(report).copies == spares * first(alike).copies
    assert_same_bits(report.replace(copies=None), alike.replace(copies=None))


@pytest.mark.parametrize("recovery", ["restart", "spare"])
def test_copies_are_those_of_every_attempt_and_of_the_spares_of_who_is_left(recovery):
    """Exact: states that pass or fail for sure, and nodes that stay or vanish for sure."""
    nodes, security = 5, Security(attempts=3)
    spares = nodes if recovery == "spare" else 0
    one_set = 2 * security.masks_needed(10)
    perfect, white = (GHZSource(nodes, white=jnp.float32(share)) for share in (0, 1))

    @jax.jit
    def run(source, prob):
        dropout = Dropout(prob, recovery)
        return verify_attempts(KEY, source, 10, 4, nodes, security, dropout)

    for source, prob, attempts, restarts, left in (
        (perfect, 0.0, 1, 0, nodes),  # all is well
        (perfect, 1.0, 1, 1, 0),  # all vanish, and nobody goes on
        (white, 1.0, 3, 0, nodes),  # nobody adds masks, after which to vanish
    ):
        found = run(source, prob)
        assert (int(found.number), int(found.restarts)) == (attempts, restarts)
        assert int(found.alive.sum()) == left
        assert bool(found.done) == (prob == 0)
        # A further set of copies for every set of nodes that lacks one.
        assert float(found.copies) == attempts * one_set * (1 + spares)


def outcomes_of(nodes, prob, recovery):
    """{(attempts, restarts, survivors, aborted, sets of copies): probability}, by enumeration."""
    law = {}

    def follow(alive, attempts, restarts, sets, weight):
        attempts, sets = attempts + 1, sets + 1 + alive * (recovery == "spare")
        for gone in range(alive + 1):
            here = weight * binom.pmf(gone, alive, prob)
            left = alive - gone
            if gone <= (recovery == "spare"):
                end = attempts, restarts, left, left < 3, sets
            elif left < 3:
                end = attempts, restarts + 1, left, True, sets
            else:
                follow(left, attempts, restarts + 1, sets, here)
                continue
            law[end] = law.get(end, 0) + here

    follow(nodes, 0, 0, 0, 1.0)
    return law


@pytest.mark.parametrize("call", [further(secure_psum), secure_pmean])
@pytest.mark.parametrize("recovery", ["restart", further("spare")])
def test_sums_are_those_of_the_nodes_that_are_left(call, recovery):
    """2,000 keys. The first N values of node i are the unit vector i: they say who is left."""
    nodes, prob = 6, 0.15
    shared = quiet(), GHZSource(nodes), Dropout(prob, recovery)
    x, (total, report) = over_keys(secure(call, BARE), nodes, 2000, *shared)
    total = np.asarray(total)
    assert (total == total[:, :1])[~np.isnan(total)].all()
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], report)
    np.testing.assert_array_equal(np.isnan(total).all(axis=(1, 2)), seen.aborted)
    x = np.asarray(x, np.float64)
    for values, survivors, aborted in zip(total[:, 0], seen.survivors, seen.aborted, strict=True):
        assert aborted == (survivors < 3)
        if aborted:
            continue
        left = x[values[:nodes] != 0]
        assert len(left) == survivors
        # 13 bits are left for the codes of six nodes in 16.
        step = 2.0 ** math.ceil(math.log2(np.abs(left).max() / 4095))
        expected = np.rint(left / step).sum(axis=0) * step
        scale = 1 if call is secure_psum else survivors
        np.testing.assert_allclose(values, expected / scale, rtol=2e-7)

    size = x.shape[1]
    kinds = zip(
        *(np.asarray(leaf).tolist() for leaf in (seen.attempts, seen.restarts, seen.survivors)),
        seen.aborted.tolist(),
        (seen.copies / (2 * size)).tolist(),
        strict=True,
    )
    assert_follows(list(kinds), outcomes_of(nodes, prob, recovery))


def test_few_dropouts_cost_as_many_attempts_as_the_protocol_says():
    """(1 - p)^-N attempts, to first order: a node that vanished stays away."""
    for prob in (1e-3, 1e-4):
        law = outcomes_of(8, prob, "restart")
        attempts = sum(kind[0] * weight for kind, weight in law.items())
        assert abs(attempts - (1 - prob) ** -8) < 70 * prob**2


@pytest.mark.parametrize("recovery", ["restart", further("spare")])
def test_where_everyone_vanishes_nothing_is_delivered(recovery):
    """Of 2,000 keys, to share a program."""
    shared = quiet(), GHZSource(6), Dropout(1.0, recovery)
    _, (total, report) = over_keys(secure(secure_pmean, BARE), 6, 2000, *shared)
    assert np.isnan(total).all()
    for name, value in {"aborted": True, "attempts": 1, "restarts": 1, "survivors": 0}.items():
        assert np.unique(getattr(report, name)).tolist() == [value]
