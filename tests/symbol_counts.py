"""Tables of symbol errors, and counts of those drawn against the probabilities stated.

Chi-squares are only taken where at least 1,000 are expected of each count, where their tail at
`CHANCE` is too low by a factor of three or so; other counts are held against exact binomial tails.
"""

import jax
import numpy as np
from scipy import stats

from jaxqring._threefry import cipher_key

CHANCE = 1e-11
WORDS = 2**18
SHARES = np.array([0.5, 0.3, 0.2])


def random_words(size=WORDS, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, size=size, dtype=np.uint32)


def symbols(words):
    """(16 W,) the symbols of words, in the order in which they are sent."""
    shifts = np.arange(0, 32, 2, dtype=np.uint32)
    return ((np.asarray(words)[:, None] >> shifts) & 3).astype(np.uint8).ravel()


def cipher(seed):
    return cipher_key(jax.random.key(seed))


def table_of(*errors):
    """(S, 4) float32 table of rows of the probabilities of errors 1, 2 and 3."""
    errors = np.array(errors, np.float64)
    return np.concatenate([1 - errors.sum(1, keepdims=True), errors], 1).astype(np.float32)


def stated(table):
    """(S, 4) float64 probabilities that the float32 errors of a table state."""
    errors = np.asarray(table)[:, 1:].astype(np.float64)
    return np.concatenate([np.maximum(1 - errors.sum(1, keepdims=True), 0), errors], 1)


def noise_table(rows, total):
    """One row of that error probability, or four of other shares and up to that probability."""
    if rows == 1:
        return table_of(total * SHARES)
    weights = (1.0, 0.25, 0.75, 0.5)
    return table_of(*(total * w * np.roll(SHARES, i) for i, w in enumerate(weights)))


def assert_binomial(counts, size, probs, chance=CHANCE):
    """Each count within the exact tails of Binomial(size, prob), `chance` for all of them."""
    counts, probs = np.broadcast_arrays(np.asarray(counts), np.asarray(probs, np.float64))
    tail = chance / counts.size / 2
    # A probability below 2^-31 may be that of the rounding of thresholds: 2^22 symbols have
    # 2^-9 such errors at most, more than five with 1e-19.
    high = np.where(probs < 2.0**-31, 5, stats.binom.isf(tail, size, np.minimum(probs, 1)))
    low = np.where(probs > 1 - 2.0**-31, size - 5, stats.binom.ppf(tail, size, probs))
    assert np.all((low <= counts) & (counts <= high)), (counts, low, high)


def assert_counts_agree(counts, probs, chance=CHANCE):
    """Multinomial counts: Pearson's chi-square where it may be taken, and each count."""
    counts, probs = np.asarray(counts).ravel(), np.asarray(probs, np.float64).ravel()
    probs = probs / probs.sum()
    assert_binomial(counts, counts.sum(), probs, chance / 2)
    many = counts.sum() * probs >= 1000
    if many.sum() < 2:
        return
    # Of those that are not rare, given how many they are together.
    found, expected = counts[many], probs[many] / probs[many].sum() * counts[many].sum()
    statistic = np.sum((found - expected) ** 2 / expected)
    assert statistic < stats.chi2.isf(chance / 2, many.sum() - 1), (statistic, counts)
