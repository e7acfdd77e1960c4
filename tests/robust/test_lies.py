"""Lies against NumPy and check values; votes, and what is said of them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refused import check_refusal
from robust_reference import X, little_is_enough

from jaxqring import Ring
from jaxqring.robust import (
    DelayedGradient,
    HugeEntries,
    InnerProduct,
    LittleIsEnough,
    Mean,
    Mimic,
    ScaleAttack,
    SignFlip,
    alie_z,
    attacked,
    ballot,
    credibility,
    fedvote,
    flipped_labels,
    latent_of,
    majority_probability,
    vote_weights,
)

KEY = jax.random.key(11)
AXIS = "nodes"
LIARS = (4, 5)


def close(found, wanted, atol=1e-6):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "nodes, liars, z",
    [(25, 5, 0.253347103), (25, 11, 1.067570524), (50, 12, 0.336038140), (8, 2, 0)],
)
def test_z_of_alie(nodes, liars, z):
    assert alie_z(nodes, liars) == pytest.approx(z, abs=1e-9)
    # The share of the honest that a normal law has below z.
    below = (1 + math.erf(z / math.sqrt(2))) / 2
    assert below == pytest.approx((nodes - (nodes // 2 + 1)) / (nodes - liars), abs=1e-9)


def test_alie_on_four_honest_vectors():
    with jax.enable_x64(True):
        by_population = {False: (1.017293030, 1.981732745), True: (1.021674933, 1.987529458)}
        for population, wanted in by_population.items():
            sent, _ = LittleIsEnough(0.253347103, population)(X, LIARS)
            close(sent[4:], [wanted] * 2, 1e-9)
            close(sent[5], little_is_enough(X[:4], 0.253347103, int(not population)), 1e-12)
            close(sent[:4], X[:4], 0)


def test_ipm_turns_the_mean_where_eps_is_large_enough():
    with jax.enable_x64(True):
        sent, _ = InnerProduct(0.1)(X, LIARS)
        close(Mean()(sent).value, (0.665, 1.2825), 1e-12)
        for eps, turns in ((1.9, False), (2.1, True)):  # (n - f) / f = 2
            sent, _ = InnerProduct(eps)(X, LIARS)
            mean = np.asarray(sent).mean(axis=0)
            assert (mean @ X[:4].mean(axis=0) < 0) == turns


def test_other_lies_are_what_they_say():
    x = np.asarray(X, np.float32)
    sent = {}
    for attack in (SignFlip(10.0), Mimic(1), ScaleAttack(), HugeEntries(1e3, 2)):
        key = KEY if attack.draws else None
        sent[type(attack)] = out = np.asarray(attack(x, LIARS, key)[0])
        close(out[:4], x[:4], 0)
    close(sent[SignFlip][4:], -10 * x[4:])
    close(sent[Mimic][4:], x[[1, 1]], 0)
    close(sent[ScaleAttack][4:], np.stack([np.full(2, np.float32(1e30)), x[4:, 1]], axis=1), 0)
    wide = np.zeros((6, 1000), np.float32)
    out = np.asarray(HugeEntries(1e3, 2)(wide, LIARS, KEY)[0])
    assert (np.count_nonzero(out, axis=1) == [0, 0, 0, 0, 2, 2]).all()
    assert set(np.unique(np.abs(out))) == {0, 1000}
    assert (out[4] != out[5]).any()
    close(flipped_labels(np.arange(10), 10), np.arange(10)[::-1], 0)


def test_a_delayed_gradient_is_that_of_some_steps_ago():
    attack = DelayedGradient(2)
    steps = np.random.default_rng(0).normal(size=(5, 6, 2)).astype(np.float32)
    state = attack.init(steps[0])
    for number, x in enumerate(steps):
        sent, state = attack(x, LIARS, state=state)
        close(sent[:4], x[:4], 0)
        close(sent[4:], steps[number - 2][4:] if number >= 2 else 0, 0)


@jax.jit
def _sent_at_once(x, key):
    rows = jnp.concatenate([x["w"].reshape(4, -1), x["b"].reshape(4, -1)], axis=1)
    return InnerProduct(2.0)(rows, [1])[0]


def _sent_on_a_node(x, key):
    return attacked(x, AXIS, InnerProduct(2.0), [1], key)[0]


def test_attacks_in_a_mapped_step_are_those_of_all_vectors(every_mapping):
    x = {"b": jnp.arange(4.0), "w": jax.random.normal(KEY, (4, 2, 3))}
    found = every_mapping(_sent_on_a_node, 4, shared=1)(x, KEY)
    wanted = _sent_at_once(x, KEY)
    both = np.concatenate([found["w"].reshape(4, -1), found["b"].reshape(4, -1)], axis=1)
    close(both, wanted, 1e-6)
    together, _ = attacked(x, None, InnerProduct(2.0), [1], KEY, nodes_per_device=4)
    close(together["w"], found["w"])


# --- Votes ----------------------------------------------------------------------------------------


def test_check_values_of_votes():
    with jax.enable_x64(True):
        close(jnp.tanh(1.5 * 0.4), 0.537049567, 1e-9)
        close(latent_of(jnp.float64(0.25)), 0.170275208, 1e-9)  # 5 of 8 for +1
        close(latent_of(jnp.float64(1.0)), math.atanh(1 - 1e-4) / 1.5, 1e-9)
    prob = (1 + 0.537049567) / 2
    assert prob == pytest.approx(0.768524783, abs=1e-9)
    for liars, wanted in ((0, 0.964109301), (2, 0.793854040)):
        found = majority_probability(0.537049567, 9, liars)
        assert found == pytest.approx(wanted, abs=1e-8)
        honest = 9 - liars
        enumerated = sum(
            math.prod(prob if vote else 1 - prob for vote in votes)
            for votes in itertools.product((0, 1), repeat=honest)
            if sum(votes) > 4
        )
        assert found == pytest.approx(enumerated, abs=1e-12)


def test_votes_are_drawn_with_the_weight_as_their_mean():
    # 40,000 votes: six standard deviations of a mean are 0.026, a chance of 2e-9.
    votes = np.asarray(ballot(jnp.full((40_000,), 0.4), KEY))
    assert set(np.unique(votes)) == {-1, 1}
    assert abs(votes.mean() - 0.537049567) < 6 * math.sqrt(1 - 0.537**2) / 200


def test_credibility_and_weights():
    votes = np.sign(np.random.default_rng(1).normal(0.5, 1, (5, 40)))
    before = np.array([1, 0.9, 0.8, 0.7, 0.2])
    majority = np.sign(votes.sum(axis=0))
    wanted = 0.5 * before + 0.5 * (votes == majority).mean(axis=1)
    close(credibility(votes, before), wanted)
    kept = np.where(wanted >= wanted.mean(), wanted, 0)
    close(vote_weights(jnp.asarray(wanted)), kept / kept.sum())
    close(vote_weights(jnp.full(3, 0.1)), np.full(3, 1 / 3))
    close(vote_weights(jnp.zeros(4)), np.full(4, 1 / 4))


def _voted(latent, key):
    return fedvote(latent, AXIS, ring=Ring(noise="off"), key=key)[0]


def _voted_by_credit(latent, credible, key):
    return fedvote(latent, AXIS, ring=Ring(noise="off"), key=key, credible=credible)


def test_votes_over_the_ring_are_those_counted_by_hand(vmap_first):
    latent = jax.random.normal(KEY, (4, 9))
    key = jax.random.key(2)
    keys = [jax.random.fold_in(jax.random.split(key)[0], node) for node in range(4)]
    votes = np.stack([ballot(latent[node], keys[node]) for node in range(4)])
    found = np.asarray(vmap_first(_voted, 4, shared=1)(latent, key))
    mean = np.clip(votes.mean(axis=0), -1 + 1e-4, 1 - 1e-4)
    close(found, np.tile(np.arctanh(mean) / 1.5, (4, 1)), 1e-5)
    assert (found == found[0]).all()
    credible = jnp.array([1.0, 1.0, 1.0, 0.1])
    new, after = vmap_first(_voted_by_credit, 4, shared=2)(latent, credible, key)
    close(after, np.tile(credibility(votes, credible), (4, 1)))
    weights = np.asarray(vote_weights(after[0]))
    mean = np.clip(weights @ votes, -1 + 1e-4, 1 - 1e-4)
    close(new, np.tile(np.arctanh(mean) / 1.5, (4, 1)), 1e-4)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: alie_z(8, 4), ValueError, ["`liars`", "[1, 3]", "4"]),
        (lambda: SignFlip()(X, [6]), ValueError, ["`liars`", "[0, 5]"]),
        (lambda: SignFlip()(X, [1, 1]), ValueError, ["`liars`", "distinct"]),
        (lambda: SignFlip()(X, np.ones(6, bool)), ValueError, ["`liars`", "honest"]),
        (lambda: SignFlip()(X, np.ones(3, bool)), ValueError, ["`liars`", "mask of 6"]),
        (lambda: HugeEntries()(X, LIARS), TypeError, ["`key`"]),
        (lambda: DelayedGradient(0), ValueError, ["`steps`"]),
        (lambda: DelayedGradient(1)(X, LIARS), ValueError, ["`state`", "init"]),
        (lambda: Mimic(9)(X, LIARS), ValueError, ["`node`"]),
        (lambda: jax.jit(lambda x: Mimic(4)(x, LIARS)[0])(X), ValueError, ["`node`", "honest"]),
        (lambda: attacked(X, "nodes", SignFlip(), LIARS), ValueError, ["`axis_name`"]),
        (lambda: attacked(X, None, abs, LIARS, nodes_per_device=6), TypeError, ["`attack`"]),
        (lambda: majority_probability(0.5, 8), ValueError, ["`num_nodes`", "odd"]),
        (lambda: ballot(X, KEY, 0.0), ValueError, ["`slope`"]),
        (
            lambda: jax.vmap(lambda h: _voted(h, KEY), axis_name=AXIS)(jnp.arange(4)),
            TypeError,
            ["`latent`", "floating", "int32"],
        ),
    ],
)
def test_refusals(call, error, words):
    check_refusal(call, error, words)
