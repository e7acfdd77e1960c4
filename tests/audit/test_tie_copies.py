"""The law of one copy of the audit of ties against dense density matrices.

Statistical tests have fixed keys and state their sample size. Each comparison of a count fails by
chance with probability `CHANCE`, 1e-9 for a chi-square; there are fewer than 100 of them.
"""

import functools
import itertools
import math

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audit_cases import NOISES, contrast_and_offset, neighbours
from scipy import stats

from jaxqring.audit._tie_copies import _draw_disjoint, sample_outcomes
from jaxqring.audit._tie_plans import (
    TieNoise,
    local_weights,
)

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def random_task(size, pairs, seed):
    rng = np.random.default_rng(seed)
    return rng.choice([-1, 1], size), rng.permutation(size)[: 2 * pairs].reshape(-1, 2)


def assert_law(counts, probs):
    """Counts of a multinomial: chi-square; nothing where there is no probability."""
    counts, probs = np.ravel(counts), np.ravel(probs)
    assert probs.sum() == pytest.approx(1, abs=1e-12)
    assert not counts[probs < 1e-12].any()
    counts, expected = counts[probs > 1e-12], probs[probs > 1e-12] * counts.sum()
    assert expected.min() > 10
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < stats.chi2.isf(1e-9, len(counts) - 1) or len(counts) == 1


# --- The law of one copy, by dense matrices -------------------------------------------------------


def kron(*operators):
    return functools.reduce(np.kron, operators)


def depolarized(rho, survival):
    """Every qubit sent through a depolarizing channel, by Kraus operators."""
    n = int(np.log2(len(rho)))
    for qubit in range(n):
        out = 0
        for kraus in dense.pauli_kraus(*[(1 - survival) / 4] * 3):
            operator = kron(np.eye(2**qubit), kraus, np.eye(2 ** (n - qubit - 1)))
            out = out + operator @ rho @ operator.conj().T
        rho = out
    return rho


def noisy(rho, noise):
    if noise.global_mix is not None:
        return (1 - noise.global_mix) * rho + noise.global_mix * np.eye(len(rho)) / len(rho)
    return rho if noise.local_survival is None else depolarized(rho, noise.local_survival)


def sent_state(signs):
    levels = 2 ** math.ceil(math.log2(len(signs)))
    return dense.projector(np.pad(signs / np.sqrt(len(signs)), (0, levels - len(signs))))


def measured(rho, matching):
    """(M, 2) probabilities of the pairs with plus and minus, unnormalized states included."""
    probs = np.zeros((len(matching), 2))
    for row, (i, j) in enumerate(matching):
        for column, sign in enumerate((1, -1)):
            vector = np.zeros(len(rho))
            vector[[i, j]] = np.array([1, sign]) / np.sqrt(2)
            probs[row, column] = (vector @ rho @ vector).real
    return probs


def with_misses(probs):
    return np.append(probs, 1 - probs.sum())


def counted(outcomes, pairs):
    pair, sign = np.asarray(outcomes.pair), np.asarray(outcomes.sign)
    np.testing.assert_array_equal(pair < 0, sign == 0)
    cells = np.where(pair < 0, 2 * pairs, 2 * pair + (sign < 0))
    return np.bincount(cells, minlength=2 * pairs + 1)


@pytest.mark.parametrize(
    "size, pairs, name",
    [
        (16, 8, "none"),
        (12, 5, "global"),
        (12, 5, "local"),
        further(16, 8, "local"),
        further(8, 4, "local"),
        *(further(8, 4, name) for name in ("none", "global")),
        *(further(*case, name) for case in ((2, 1), (13, 6), (16, 3)) for name in NOISES),
        *(further(12, 6, name) for name in NOISES),
    ],
)
def test_outcomes_are_those_of_the_dense_state(name, size, pairs):
    """100,000 copies of a random task."""
    signs, matching = random_task(size, pairs, seed=size)
    law = with_misses(measured(noisy(sent_state(signs), NOISES[name]), matching))
    found = sample_outcomes(jax.random.key(size), signs, matching, 100_000, noise=NOISES[name])
    assert_law(counted(found, pairs), law)
    assert not found.announced.any()
    if name == "none":
        wrong = signs[matching[:, 0]] != signs[matching[:, 1]]
        assert law[:-1].reshape(-1, 2)[np.arange(pairs), 1 - wrong.astype(int)].max() < 1e-15


@pytest.mark.parametrize(
    "size, pairs, name",
    [
        (8, 4, "local"),
        further(6, 3, "global"),
        *(further(8, 4, name) for name in ("none", "global")),
        *(further(*case, name) for case in ((4, 2), (4, 1), (5, 2)) for name in NOISES),
    ],
)
def test_steered_outcomes_and_announcements_are_those_of_the_dense_pairs(name, size, pairs):
    """100,000 copies: the joint law of what Alice announces and what Bob finds uncorrected."""
    signs, matching = random_task(size, pairs, seed=size + 1)
    n = math.ceil(math.log2(size))
    levels = 2**n
    padded = np.append(signs, np.ones(levels - size))
    joint = (np.diag(padded) / np.sqrt(levels)).astype(complex)  # [Alice, Bob] amplitudes
    hadamard = kron(*[np.array([[1, 1], [1, -1]]) / np.sqrt(2)] * n)
    law = np.zeros((levels, 2 * pairs + 1))
    for outcome, amplitudes in enumerate(hadamard @ joint):
        probs = measured(noisy_part(dense.projector(amplitudes), NOISES[name]), matching)
        law[outcome] = np.append(probs, 1 / levels - probs.sum())
    found = sample_outcomes(
        jax.random.key(size), signs, matching, 100_000, variant="steered", noise=NOISES[name]
    )
    announced = np.asarray(found.announced)
    turns = [[(a & (i ^ j)).bit_count() % 2 for i, j in [*matching.tolist(), (0, 0)]]
             for a in range(levels)]  # fmt: skip
    turned = np.asarray(turns)[announced, np.asarray(found.pair)]
    raw = found._replace(sign=np.where(turned, -1, 1) * np.asarray(found.sign))
    counts = [
        counted(raw._replace(pair=raw.pair[announced == a], sign=raw.sign[announced == a]), pairs)
        for a in range(levels)
    ]
    assert_law(np.array(counts), law)
    # Corrected, it is what Bob would have found in the state itself, of 2^n signs.
    assert_law(
        counted(found, pairs),
        with_misses(measured(noisy(sent_state(padded), NOISES[name]), matching)),
    )


def noisy_part(rho, noise):
    """Noise on a state that is not normalized."""
    weight = np.trace(rho).real
    return weight * noisy(rho / weight, noise)


@functools.cache
def mean_law_of_relabellings(signs, survival):
    """(4, 2) of neighbours, exactly: all 8! relabellings of 8 signs, a dense state for each."""
    labels = np.array(list(itertools.permutations(range(8))))  # [r, item] -> label
    held = np.empty_like(labels)
    np.put_along_axis(held, labels, np.asarray(signs)[None], axis=1)  # sign at each label
    strings, which = np.unique(held, axis=0, return_inverse=True)
    states = np.array([depolarized(sent_state(string), survival).real for string in strings])
    law = np.zeros((4, 2))
    for row, (i, j) in enumerate(neighbours(8)):
        a, b = labels[:, i], labels[:, j]
        rho = states[which.ravel()]
        at = np.arange(len(labels))
        mean, cross = (rho[at, a, a] + rho[at, b, b]) / 2, rho[at, a, b]
        law[row] = (mean + cross).mean(), (mean - cross).mean()
    return law


@pytest.mark.parametrize(
    "signs",
    [(1,) * 8, (1, -1, 1, 1, -1, 1, -1, -1), (1, 1, -1, 1, 1, 1, 1, 1)],
)
def test_relabelled_outcomes_are_those_of_all_relabellings(signs):
    """100,000 copies; and the contrast and the offset, exactly."""
    survival = 0.7
    law = mean_law_of_relabellings(signs, survival)
    noise = TieNoise(local_survival=survival)
    found = sample_outcomes(
        jax.random.key(3), signs, neighbours(8), 100_000, noise=noise, relabel=True
    )
    assert_law(counted(found, 4), np.append(law, 0.0))
    contrast, offset = contrast_and_offset(signs, survival)
    fraction = np.mean(np.asarray(signs)[::2] != np.asarray(signs)[1::2])
    mean = law[:, 0].sum() - law[:, 1].sum()
    assert mean == pytest.approx(contrast * (1 - 2 * fraction) + offset, abs=1e-6)


@pytest.mark.parametrize("size, i, j", [(4, 3, 1), (8, 0, 7), (8, 5, 2), (8, 3, 4)])
def test_pairs_shown_in_place_of_another_are_any_that_share_no_index_with_it(size, i, j):
    """100,000 draws; (P - 2) (P - 3) ordered pairs, all as likely."""
    own = jnp.full(100_000, i, jnp.int32), jnp.full(100_000, j, jnp.int32)
    k, m = (np.asarray(each) for each in _draw_disjoint(jax.random.key(size + i), *own, size))
    others = [index for index in range(size) if index not in (i, j)]
    pairs = list(itertools.permutations(others, 2))
    counts = [np.sum((k == first) & (m == second)) for first, second in pairs]
    assert sum(counts) == 100_000
    assert_law(np.array(counts), np.full(len(pairs), 1 / len(pairs)))


@pytest.mark.parametrize("size, survival", [(4, 0.6), (16, 0.9)])
def test_mean_sign_by_all_relabellings_of_the_differences(size, survival):
    """All shifts, weighed one by one, and all pairs of items that may be shown in place of it."""
    rng = np.random.default_rng(size)
    signs, n = rng.choice([-1, 1], size), int(np.log2(size))
    pairs, total = neighbours(size), 0.0
    for i, j in pairs:
        others = [k for k in range(size) if k not in (i, j)]
        shown = np.mean([signs[k] * signs[m] for k, m in itertools.permutations(others, 2)])
        for d, a in itertools.product(range(1, size), range(size)):
            weight = 1.0
            for bit in range(n):
                on, shifted = d >> bit & 1, a >> bit & 1
                # sum over b of the probability of X^a Z^b, times (-1)^(b d)
                plus = (1 + 3 * survival) / 4 if not shifted else (1 - survival) / 4
                minus = (1 - survival) / 4
                weight *= plus - minus if on else plus + minus
            total += weight * (signs[i] * signs[j] if a in (0, d) else shown)
    mean = total / (len(pairs) * (size - 1))
    contrast, offset = contrast_and_offset(signs, survival)
    fraction = np.mean(signs[::2] != signs[1::2])
    assert mean == pytest.approx(contrast * (1 - 2 * fraction) + offset, abs=1e-6)


def test_check_value_of_the_contrast_of_equal_signs():
    size, survival = 16, 0.9
    alone, rest = local_weights(size, survival)
    assert alone + rest == pytest.approx(0.802140, abs=1e-6)
    rho = depolarized(sent_state(np.ones(size)), survival).real
    pairs = list(itertools.combinations(range(size), 2))
    mean = np.mean([size * rho[i, j] for i, j in pairs])
    assert alone + rest == pytest.approx(mean, abs=1e-12)
    contrast, offset = contrast_and_offset(np.ones(size), survival)
    assert contrast + offset == pytest.approx(mean, abs=1e-6)
