"""Second witnesses of TieAudit: bounds count by count, matchings and EPR pairs written out."""

import math

import numpy as np
import scipy  # whose subpackages load when they are first used


def fewest_hits(error: float, delta: float) -> int:
    """The fewest hits K with 2 exp(-2 K error^2) <= delta, one after the other."""
    hits = np.arange(1, math.ceil(20 / error**2))
    return int(hits[np.argmax(2 * np.exp(-2 * hits * error**2) <= delta)])


def fewest_copies(error: float, delta: float, hit: float) -> int:
    """The same of copies that are a hit with probability `hit`, over all numbers of hits."""
    copies = fewest_hits(error, delta)
    while True:
        hits = np.arange(copies + 1)
        misses = 2 * np.exp(-2 * hits * error**2)
        if scipy.stats.binom.pmf(hits, copies, hit) @ misses <= delta:
            return copies
        copies += 1


def fewest_hits_exactly(error: float, delta: float) -> int:
    """The hits from which on a mean of fair coins is off by more than `error` rarely enough."""
    hits = np.arange(1, fewest_hits(error, delta) + 1)
    few = np.ceil(hits * (0.5 - error) - 1e-9) - 1
    misses = 2 * scipy.stats.binom.cdf(few, hits, 0.5) > delta
    return int(hits[misses][-1]) + 1


def fewest_subset(pairs: int, size: int) -> int:
    """The fewest signs that hold `pairs` pairs of a perfect matching on average, in integers."""
    signs = math.isqrt(2 * (size - 1) * pairs)
    while signs * (signs - 1) < 2 * (size - 1) * pairs:
        signs += 1
    return min(signs, size)


def miss_of_hits(hits: int, fraction: float, error: float) -> float:
    """Probability that a share of `hits` coins is off its fraction by more than `error`."""
    counts = np.arange(hits + 1)
    off = np.abs(counts / hits - fraction) > error + 1e-9
    return float(scipy.stats.binom.pmf(counts[off], hits, fraction).sum())


def miss_of_subset(signs: int, size: int, fraction: float, error: float) -> float:
    """The same of a random subset of signs: all numbers of pairs in it, and of minus among them."""
    every = size // 2
    minus = round(every * fraction)
    found = np.arange(max(0, signs - every), signs // 2 + 1)
    choose = scipy.special.gammaln
    weights = np.exp(
        choose(every + 1)
        - choose(found + 1)
        - choose(signs - 2 * found + 1)
        - choose(every - signs + found + 1)
        + (signs - 2 * found) * math.log(2)
        - (choose(size + 1) - choose(signs + 1) - choose(size - signs + 1))
    )
    missed = 0.0
    for hits, weight in zip(found[weights > 1e-15], weights[weights > 1e-15], strict=True):
        counts = np.arange(hits + 1)
        off = np.abs(counts / max(hits, 1) - fraction) > error + 1e-9
        missed += weight * scipy.stats.hypergeom.pmf(counts[off], every, minus, hits).sum()
    return float(missed)


def steered_minus(signs: np.ndarray, matching: np.ndarray) -> float:
    """Probability that Bob's corrected sign is minus, of EPR pairs written out.

    Alice's halves get her signs and are measured along X; Bob measures (|i> +- |j>) / sqrt(2).
    """
    size = len(signs)
    halves = np.diag(signs) / math.sqrt(size)
    index = np.arange(size)
    parity = np.array([[(a & i).bit_count() % 2 for i in index.tolist()] for a in index.tolist()])
    states = (1 - 2 * parity) @ halves / math.sqrt(size)  # of Bob, a row for each outcome a
    minus = 0.0
    for i, j in matching:
        for sign in (1, -1):
            chances = (states[:, i] + sign * states[:, j]) ** 2 / 2
            corrected = sign * (1 - 2 * parity[:, i ^ j])
            minus += float(chances[corrected < 0].sum())
    return minus


def size_of_fewer_symbols(error: float, delta: float, most: int) -> int:
    """The smallest even size up to `most` at which n K qubits are fewer than the signs sent."""
    hits = fewest_hits(error, delta)
    sizes = np.arange(2, most + 1, 2)
    needed = 2.0 * (sizes - 1) * hits
    signs = np.ceil(np.sqrt(needed))
    signs += signs * (signs - 1) < needed
    wins = np.ceil(np.log2(sizes)) * hits < np.minimum(signs, sizes)
    return int(sizes[np.argmax(wins)])
