"""Plans and estimates of the audit of ties against exact binomials and brute force.

Statistical tests have fixed keys and state their sample size. Each comparison of a count fails by
chance with probability `CHANCE`, 1e-9 for a chi-square; there are fewer than 100 of them.
"""

import functools
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audit_cases import NOISES, contrast_and_offset, neighbours
from scipy import stats

from jaxqring._types import TieVariant
from jaxqring.audit._tie_audit import _offset, subset_audit, tie_audit
from jaxqring.audit._tie_copies import sample_outcomes
from jaxqring.audit._tie_plans import (
    TieNoise,
    crossover_size,
    hit_moments,
    in_use,
    none_probability,
    plan_subset_audit,
    plan_tie_audit,
)

CHANCE = 1e-11
VARIANTS = get_args(TieVariant)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def signs_with(size, broken, seed=0):
    """Random signs of which `broken` pairs of neighbours differ."""
    first = np.random.default_rng(seed).choice([-1, 1], size // 2)
    second = np.where(np.arange(size // 2) < broken, -first, first)
    return np.stack([first, second], axis=-1).reshape(-1)


def assert_binomial(counts, size, probs):
    """Each count within the exact tails of Binomial(size, prob), `CHANCE` for each."""
    counts, probs = np.broadcast_arrays(np.asarray(counts), np.asarray(probs, np.float64))
    low, high = stats.binom.ppf(CHANCE / 2, size, probs), stats.binom.isf(CHANCE / 2, size, probs)
    assert np.all((low <= counts) & (counts <= high)), (counts, low, high)


# --- Plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "power, qubits, bits", [(20, 3700, 19698), (10, 1850, 616), (16, 2960, 4925)]
)
def test_check_values_of_plans(power, qubits, bits):
    assert plan_tie_audit(0.1, 0.05, 2**power) == (185, qubits, 0, 0)
    assert plan_subset_audit(0.1, 0.05, 2**power) == (0, 0, 0, bits)
    steered = plan_tie_audit(0.1, 0.05, 2**power, variant="steered")
    assert steered == (185, 0, qubits, qubits)


def test_check_values_of_noise_and_of_tests_of_zero():
    noise = TieNoise(global_mix=0.1)
    assert plan_tie_audit(0.1, 0.05, 2**20, noise=noise) == (228, 4560, 0, 0)
    assert plan_tie_audit(0.1, 0.05, 2**20, test="zero").copies == 30  # ln(20) / 0.1 = 29.96
    noise = TieNoise(local_survival=0.9)
    contrast, _ = contrast_and_offset(np.ones(16), 0.9)
    copies = math.ceil(math.log(40) / (2 * 0.1**2 * contrast**2))
    assert plan_tie_audit(0.1, 0.05, 16, noise=noise) == (copies, 4 * copies, 0, 5)


@pytest.mark.parametrize("coverage", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("mix", [0.0, 0.2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_are_the_fewest_that_the_bound_allows(coverage, mix, variant):
    size, epsilon, delta = 1000, 0.07, 0.01
    noise = TieNoise(global_mix=mix)
    copies = plan_tie_audit(epsilon, delta, size, coverage, variant, noise).copies
    signal = coverage * (size / 1024 if variant == "steered" else 1)
    hit = (1 - mix) * signal + mix * coverage * size / 1024
    contrast = (1 - mix) * signal / hit

    def bound(copies):
        hits = np.arange(copies + 1)
        pmf = stats.binom.pmf(hits, copies, hit)
        return 2 * np.sum(pmf * np.exp(-2 * hits * (contrast * epsilon) ** 2))

    assert bound(copies) <= delta < bound(copies - 1)
    leading = math.log(2 / delta) / (2 * epsilon**2 * hit * contrast**2)
    assert leading <= copies < 1.01 * leading + 1


def test_none_probability_is_exact():
    assert none_probability(10**6, 1000) == pytest.approx(0.606531, abs=1e-6)
    for sent in range(13):
        exact = math.comb(6, sent) * 2**sent / math.comb(12, sent)
        assert none_probability(12, sent) == pytest.approx(exact, abs=1e-14)


@pytest.mark.parametrize("start", [20_000, further(2)])
def test_crossover_is_the_smallest_by_brute_force(start):
    def wins(size, noise):
        quantum = plan_tie_audit(0.1, 0.05, size, noise=noise)
        return quantum.qubits + quantum.bits < plan_subset_audit(0.1, 0.05, size).bits

    for noise in (TieNoise(), TieNoise(global_mix=0.1)):
        found = crossover_size(0.1, 0.05, noise=noise)
        assert found == next(size for size in range(start, 40_000, 2) if wins(size, noise)), noise
    assert crossover_size(0.1, 0.05) == pytest.approx(2e4, rel=0.1)
    noise = TieNoise(local_survival=0.99)
    powers = [2**n for n in range(1, 30) if wins(2**n, noise)]
    assert crossover_size(0.1, 0.05, noise=noise) == powers[0]
    # A fidelity (1 + 3 lambda) / 4 of the qubits below 2^(-1/4) leaves nothing of the advantage.
    assert crossover_size(0.1, 0.05, noise=TieNoise(local_survival=0.78)) is None
    assert crossover_size(0.1, 0.05, noise=TieNoise(local_survival=0.85)) > 2**30


def test_qubits_grow_with_the_logarithm_and_bits_with_the_root():
    sizes = 2 ** np.arange(10, 31)
    qubits = [plan_tie_audit(0.1, 0.05, int(size)).qubits for size in sizes]
    np.testing.assert_array_equal(np.diff(qubits), 185)
    bits = [plan_subset_audit(0.1, 0.05, int(size)).bits for size in sizes]
    slopes = np.diff(np.log(bits)) / np.log(2)
    assert np.all(np.abs(slopes - 0.5) < 0.05)
    epsilons = np.array([0.1, 0.05, 0.02, 0.01])
    copies = [plan_tie_audit(float(each), 0.05, 2**20).copies for each in epsilons]
    assert np.polyfit(np.log(epsilons), np.log(copies), 1)[0] == pytest.approx(-2, abs=0.05)


# --- Audits ---------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("epsilon", "delta", "variant", "noise_items", "audit"))
def mapped(keys, signs, matching, epsilon, delta, variant, noise_items, audit=tie_audit):
    options = {} if audit is subset_audit else {
        "variant": variant, "noise": TieNoise(**dict(noise_items))
    }  # fmt: skip
    return jax.vmap(
        lambda key: audit(signs, matching, epsilon=epsilon, delta=delta, key=key, **options)
    )(keys)


def audits(seed, runs, signs, matching, epsilon, delta, variant="message", **noise):
    keys = jax.random.split(jax.random.key(seed), runs)
    items = tuple(noise.items())
    return mapped(keys, signs, matching, epsilon, delta, variant, items)


@pytest.mark.statistics
@pytest.mark.parametrize(
    "size, variant, noise",
    [
        (64, "message", {}),
        (48, "message", {"global_mix": 0.1}),
        (16, "message", {"local_survival": 0.99}),
        further(64, "message", {"global_mix": 0.1}),
        further(48, "steered", {"global_mix": 0.1}),
        further(16, "steered", {"local_survival": 0.9}),
        further(8, "message", {"local_survival": 0.8}),
        further(4, "message", {"local_survival": 0.8}),
        further(2, "message", {"local_survival": 0.8}),
    ],
)
def test_audits_are_unbiased_and_keep_their_confidence(size, variant, noise):
    """20,000 audits, half of the pairs broken, where the spread is largest.

    At most a fraction delta may be off by epsilon; by how much fewer are is checked against the
    exact binomial of the minus signs. The mean is within 5 standard errors (chance 6e-7).
    """
    runs, epsilon, delta = 20_000, 0.1, 0.05
    signs, matching = signs_with(size, size // 4), neighbours(size)
    fraction = np.mean(signs[::2] != signs[1::2])
    plan = plan_tie_audit(epsilon, delta, size, variant=variant, noise=TieNoise(**noise))
    found = audits(1, runs, signs, matching, epsilon, delta, variant, **noise)
    assert (found.copies, found.qubits, found.pairs, found.bits) == plan
    estimates = np.asarray(found.fraction, np.float64)
    assert estimates.mean() == pytest.approx(fraction, abs=5 * estimates.std() / math.sqrt(runs))
    off = np.sum(np.abs(estimates - fraction) > epsilon)
    allowed = stats.binom.isf(CHANCE, runs, delta)  # 1000 and a margin of about 210
    assert off <= allowed
    missed = np.sum((np.asarray(found.low) > fraction) | (np.asarray(found.high) < fraction))
    assert missed <= allowed
    # The law of the estimate: conditional on the hits it is that of a binomial.
    kind, level = in_use(TieNoise(**noise))
    hit, contrast = hit_moments(size, 1.0, variant, kind, level)
    offset = float(_offset(jnp.asarray(signs) < 0, level)) if kind == "local" else 0.0
    minus = (1 - contrast * (1 - 2 * fraction) - offset) / 2
    hits = np.asarray(found.hits)
    assert_binomial(hits.sum(), runs * plan.copies, hit)
    spread = np.mean(minus * (1 - minus) / contrast**2 / hits)
    # The variance of 20,000 draws that are nearly Gaussian: 1% standard error.
    assert estimates.var() == pytest.approx(spread, rel=0.07)
    if hit == 1:
        counts = np.arange(plan.copies + 1)
        values = (1 - (1 - 2 * counts / plan.copies - offset) / contrast) / 2
        far = stats.binom.pmf(counts, plan.copies, minus)[np.abs(values - fraction) > epsilon]
        assert_binomial(off, runs, far.sum())


@pytest.mark.statistics
@pytest.mark.parametrize("size, pairs, mix", [further(50, 10, 0.0), further(50, 10, 0.3)])
def test_partial_matchings_are_audited_without_bias(size, pairs, mix):
    """20,000 audits of a matching that leaves three coordinates in five out."""
    rng = np.random.default_rng(5)
    signs, matching = rng.choice([-1, 1], size), rng.permutation(size)[: 2 * pairs].reshape(-1, 2)
    fraction = np.mean(signs[matching[:, 0]] != signs[matching[:, 1]])
    assert 0.2 < fraction < 0.8
    found = audits(2, 20_000, signs, matching, 0.15, 0.05, global_mix=mix)
    estimates = np.asarray(found.fraction, np.float64)
    error = 5 * estimates.std() / math.sqrt(20_000)
    assert estimates.mean() == pytest.approx(fraction, abs=error)
    assert np.sum(np.abs(estimates - fraction) > 0.15) <= stats.binom.isf(CHANCE, 20_000, 0.05)
    hit = (1 - mix) * 0.4 + mix * 20 / 64
    assert_binomial(found.hits.sum(), 20_000 * found.copies, hit)


@pytest.mark.statistics
def test_rival_is_unbiased_and_sees_as_many_pairs_as_planned():
    """20,000 audits of 128 signs: the mean number of pairs within 5 standard errors."""
    size, runs = 128, 20_000
    signs, matching = signs_with(size, 19), neighbours(size)
    keys = jax.random.split(jax.random.key(4), runs)
    found = mapped(keys, signs, matching, 0.3, 0.1, "message", (), subset_audit)
    plan = plan_subset_audit(0.3, 0.1, size)
    assert (found.copies, found.qubits, found.pairs, found.bits) == plan
    hits, estimates = np.asarray(found.hits), np.asarray(found.fraction, np.float64)
    expected = plan.bits * (plan.bits - 1) / (2 * (size - 1))
    assert math.ceil(math.log(20) / 0.18) <= expected < math.ceil(math.log(20) / 0.18) + 1
    assert hits.mean() == pytest.approx(expected, abs=5 * hits.std() / math.sqrt(runs))
    error = 5 * estimates.std() / math.sqrt(runs)
    assert estimates[hits > 0].mean() == pytest.approx(19 / 64, abs=error)
    missed = (np.asarray(found.low) > 19 / 64) | (np.asarray(found.high) < 19 / 64)
    assert missed.sum() <= stats.binom.isf(CHANCE, runs, 0.1)


@pytest.mark.statistics
def test_rival_sees_no_pair_as_often_as_the_product_says():
    """20,000 audits by 12 of 64 signs; without a hit nothing is claimed."""
    signs, matching = np.ones(64), neighbours(64)
    found = jax.jit(
        jax.vmap(lambda key: subset_audit(signs, matching, bits=12, delta=0.1, key=key))
    )(jax.random.split(jax.random.key(5), 20_000))
    none = np.asarray(found.hits) == 0
    assert_binomial(none.sum(), 20_000, none_probability(64, 12))
    assert set(np.asarray(found.fraction)[none]) == {0.5}
    assert set(np.asarray(found.low)[none]) == {0.0}
    assert set(np.asarray(found.high)[none]) == {1.0}


def test_all_signs_sent_tell_the_fraction_exactly():
    signs, matching = signs_with(32, 5), neighbours(32)
    found = subset_audit(signs, matching, bits=32, delta=0.1, key=jax.random.key(0))
    assert float(found.fraction) == pytest.approx(5 / 16)
    assert int(found.hits) == 16


def test_test_of_zero_errs_on_one_side():
    """20,000 audits: all ties kept are always found kept; a tenth broken escapes 0.9^30 of them."""
    for broken, escapes in ((0, 1.0), (4, 0.9**30)):
        signs, matching = signs_with(80, broken), neighbours(80)
        found = jax.jit(
            jax.vmap(
                lambda key, signs=signs, matching=matching: (
                    tie_audit(
                        signs, matching, epsilon=0.1, delta=0.05, key=key, test="zero"
                    ).fraction
                )
            )
        )(jax.random.split(jax.random.key(6), 20_000))
        assert_binomial(np.sum(np.asarray(found) == 0), 20_000, escapes)
    assert 0.9**30 < 0.05


def test_fractions_of_nothing_and_of_all_are_exact_without_noise():
    for broken, fraction in ((0, 0.0), (8, 1.0)):
        for variant in VARIANTS:
            found = tie_audit(
                signs_with(16, broken), neighbours(16), epsilon=0.1, delta=0.05,
                key=jax.random.key(7), variant=variant,
            )  # fmt: skip
            assert float(found.fraction) == fraction


# --- Keys, mappings and types ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", further("global"), further("local")])
def test_same_key_same_bits_however_it_is_called(name):
    signs, matching = signs_with(16, 3), neighbours(16)
    keys = jax.random.split(jax.random.key(8), 3)
    call = functools.partial(tie_audit, epsilon=0.2, delta=0.1, noise=NOISES[name])
    alone = [call(signs, matching, key=key) for key in keys]
    jitted = jax.jit(call)
    compiled = [jitted(signs.astype(np.float32), matching, key=key) for key in keys]
    together = jax.jit(jax.vmap(lambda key: call(signs, matching, key=key)))(keys)
    for name in ("hits", "fraction", "low", "high"):
        values = [float(getattr(each, name)) for each in alone]
        # Arithmetic of floats may be fused differently; the counts are the same.
        np.testing.assert_allclose(
            [float(getattr(each, name)) for each in compiled], values, rtol=0, atol=3e-7
        )
        np.testing.assert_allclose(getattr(together, name), values, rtol=0, atol=3e-7)
    assert len({float(each.fraction) for each in alone}) > 1
    assert (together.copies, together.bits) == (alone[0].copies, alone[0].bits)


def test_audits_map_over_signs_and_confidence():
    """With the copies given. Exact: more confidence, wider intervals about the same estimate."""
    matching, key = neighbours(16), jax.random.key(9)
    stack = np.stack([signs_with(16, broken) for broken in (0, 8)])
    deltas = jnp.array([0.1, 0.01])

    @jax.jit
    @jax.vmap
    def found(signs, delta):
        return tie_audit(signs, matching, copies=100, delta=delta, key=key)

    results = found(stack, deltas)
    np.testing.assert_array_equal(results.fraction, [0, 1])
    widths = np.sqrt(np.log(2 / np.asarray(deltas)) / 200)
    np.testing.assert_allclose([results.high[0], 1 - results.low[1]], widths, rtol=1e-6)


@pytest.mark.parametrize(
    "name, levels", [further("global_mix", [0.1, 0.4]), further("local_survival", [0.9, 0.7])]
)
def test_audits_map_over_noise(name, levels):
    """With the copies given: the same as for each level that is known."""
    signs, matching, key = signs_with(16, 3), neighbours(16), jax.random.key(9)

    def found(noise):
        return tie_audit(signs, matching, copies=100, delta=0.1, key=key, noise=noise)

    together = jax.jit(jax.vmap(found))(TieNoise(**{name: jnp.array(levels)}))
    for row, level in enumerate(levels):
        alone = found(TieNoise(**{name: level}))
        np.testing.assert_allclose(together.fraction[row], alone.fraction, atol=1e-6)
        np.testing.assert_array_equal(together.hits[row], alone.hits)


@pytest.mark.matrix
def test_no_noise_by_any_name_is_no_noise():
    signs, matching = signs_with(12, 2), neighbours(12)
    found = [
        tie_audit(signs, matching, epsilon=0.2, delta=0.1, key=jax.random.key(1), noise=noise)
        for noise in (None, TieNoise(), TieNoise(0.0, 1.0), TieNoise(global_mix=0.0))
    ]
    assert len({(float(each.fraction), each.copies, each.bits) for each in found}) == 1


@pytest.mark.statistics
def test_a_million_signs_are_audited():
    """Audits of 2^20 signs, three pairs in ten broken, each way."""
    size = 2**20
    signs, matching = signs_with(size, 3 * size // 20), neighbours(size)
    for noise in NOISES.values():
        call = functools.partial(tie_audit, signs, matching, epsilon=0.05, delta=1e-6)
        noise = noise if noise.local_survival is None else TieNoise(local_survival=0.98)
        found = call(key=jax.random.key(2), noise=noise)
        assert float(found.low) <= 0.3 <= float(found.high)
        assert abs(float(found.fraction) - 0.3) < 0.05
        assert found.qubits == 20 * found.copies


# --- Refusals -------------------------------------------------------------------------------------

KEY, ONES, PAIRS = jax.random.key(0), np.ones(8), neighbours(8)
LOCAL = TieNoise(local_survival=0.9)


def audit(signs=ONES, matching=PAIRS, call=tie_audit, **options):
    return call(signs, matching, **({"epsilon": 0.1, "delta": 0.1, "key": KEY} | options))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: audit(key=0), TypeError, "`key` must be a typed key"),
        *(
            (lambda call=call: audit(np.array([1, 1, 0, -1]), neighbours(4), call), ValueError,
             "`signs` must be -1 or 1, but got")
            for call in (tie_audit, subset_audit)
        ),
        (lambda: audit([1.0, np.nan], [[0, 1]]), ValueError, "`signs` must be -1 or 1"),
        (lambda: audit(np.ones((2, 2))), ValueError, r"`signs` must have the shape \(P,\)"),
        (lambda: audit([1], [[0, 0]]), ValueError, r"`signs` must have the shape \(P,\)"),
        (lambda: audit(matching=[[0, 8]]), ValueError,
         "`matching` must hold indices from 0 to 7, but got"),
        (lambda: audit(matching=[[-1, 2]]), ValueError, "`matching` must hold indices from 0"),
        (lambda: audit(matching=[[0, 1], [1, 2]]), ValueError,
         "`matching` must hold each index at most once, but got"),
        (lambda: audit(matching=[[3, 3]]), ValueError, "`matching` must hold each index at most"),
        (lambda: audit(matching=[[0.0, 1.0]]), TypeError, "`matching` must be of integers"),
        (lambda: audit(matching=[0, 1]), ValueError, r"`matching` must have the shape \(M, 2\)"),
        (lambda: audit(matching=np.zeros((0, 2), int)), ValueError, "M from 1 to 4"),
        (lambda: audit(np.ones(12), neighbours(12), noise=LOCAL), ValueError,
         "must be a power of two in number and all be matched if noise is local, but got 12 signs"),
        (lambda: audit(matching=[[0, 1]], noise=LOCAL), ValueError,
         "but got 8 signs and a matching that leaves some out"),
        (lambda: plan_tie_audit(0.1, 0.1, 12, noise=LOCAL), ValueError, "but got 12 signs"),
        (lambda: plan_tie_audit(0.1, 0.1, 16, 0.5, noise=LOCAL), ValueError, "leaves some out"),
        (lambda: audit(noise=0.1), TypeError, "`noise` must be a TieNoise, but got 0.1"),
        (lambda: TieNoise(0.1, 0.9), ValueError,
         "`global_mix` or `local_survival` must be in use, one of them at most, but got both"),
        (lambda: TieNoise(global_mix=1.0), ValueError, r"`global_mix` must lie in \[0, 1\)"),
        (lambda: TieNoise(local_survival=0.0), ValueError, r"`local_survival` must lie in \(0, 1"),
        (lambda: TieNoise(global_mix=-0.1), ValueError, r"`global_mix` must lie in \[0, 1\]"),
        (lambda: audit(noise=TieNoise(jnp.array([0.1, 0.2]))), ValueError,
         "`global_mix` must be one number"),
        (lambda: audit(variant="teleported"), ValueError,
         "`variant` must be one of 'message', 'steered', but got 'teleported'"),
        (lambda: audit(test="one"), ValueError, "`test` must be one of 'estimate', 'zero'"),
        (lambda: audit(test="zero", noise=LOCAL), ValueError,
         "`noise` must have no effect in a test of zero"),
        *(
            (lambda options=options: audit(**options), ValueError,
             r"must lie in \(0, 1\)")
            for options in ({"epsilon": 0.0}, {"epsilon": 1.5}, {"delta": 0.0}, {"delta": 1.0})
        ),
        (lambda: audit(epsilon=None), ValueError, "`epsilon` or `copies` must be given"),
        (lambda: audit(copies=5), ValueError, "`epsilon` or `copies` must be given"),
        (lambda: audit(epsilon=None, copies=0), ValueError, "`copies` must be an integer in"),
        (lambda: audit(epsilon=1e-6), ValueError, "`copies` must be an integer in"),
        (lambda: audit(call=subset_audit, epsilon=None, bits=9), ValueError,
         r"`bits` must be an integer in \[1, 8\], but got 9"),
        (lambda: jax.jit(lambda delta: audit(delta=delta))(0.1), ValueError,
         "`delta` must be concrete"),
        (lambda: jax.jit(lambda mix: audit(noise=TieNoise(mix)).fraction)(0.1), ValueError,
         "`noise` must be concrete when copies are planned"),
        *(
            (lambda size=size: plan_tie_audit(0.1, 0.1, size), ValueError,
             "`size` must be an integer of at least 2")
            for size in (1, 8.0, True)
        ),
        (lambda: plan_tie_audit(0.1, 0.1, 8, 0.0), ValueError, "`coverage` must be positive"),
        (lambda: plan_subset_audit(0.1, 0.1, 8, 1.5), ValueError, r"`coverage` must lie in"),
        (lambda: none_probability(7, 2), ValueError, "`size` must be even, but got 7"),
        (lambda: none_probability(8, 9), ValueError, r"`sent` must be an integer in \[0, 8\]"),
        (lambda: crossover_size(0.0, 0.1), ValueError, r"`epsilon` must lie in \(0, 1\)"),
        (lambda: sample_outcomes(KEY, np.ones(6), neighbours(6), 5, relabel=True), ValueError,
         "but got 6 signs"),
        (lambda: sample_outcomes(KEY, ONES, PAIRS, 5, noise=TieNoise(0.1), relabel=True),
         ValueError, "`relabel` must be False if noise is global"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as refused:
        call()
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)
