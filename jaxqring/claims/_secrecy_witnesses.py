"""Second witnesses for secrecy: sampling, enumeration and formulas of numpy and scipy alone."""

import itertools
import math

import numpy as np
import scipy  # whose subpackages load when they are first used


def planted_escapes(size: int, trials: int, seed: int) -> float:
    """Share of the draws in which one bad copy of 2 `size` is not in the half that is tested."""
    rng = np.random.default_rng(seed)
    # The place of the bad copy in a random order, of which the first half is tested.
    return float(np.mean(rng.integers(0, 2 * size, trials) >= size))


def sampling_distance(kept: int, tested: int, excess: float) -> float:
    """Root of Serfling's bound, two-sided, on the excess of errors among the untested copies."""
    copies = kept + tested
    exponent = 2 * tested * excess**2 * kept**2 / (copies * (kept + 1))
    return math.sqrt(2 * math.exp(-exponent))


def bucket_loss(kept: int, tested: int, allowed: int, bucket: int) -> float:
    """Worst chance that the tests pass and a random bucket has a bad majority.

    Over the numbers e of bad copies among all: j of them are tested, which pass if j is at most
    `allowed`; a union bound over the kept / bucket buckets.
    """
    copies = kept + tested
    half = (bucket + 1) // 2
    tested_bad = np.arange(allowed + 1)

    def loss(bad: int) -> float:
        left = bad - tested_bad
        possible = (left >= 0) & (left <= kept)
        chance = scipy.stats.hypergeom.pmf(tested_bad[possible], copies, bad, tested)
        majority = scipy.stats.hypergeom.sf(half - 1, kept, left[possible], bucket)
        return float(np.sum(chance * np.minimum(1.0, kept / bucket * majority)))

    # One hump: finer and finer grids between the neighbours of the best.
    grid = np.unique(np.geomspace(1, copies, 24).astype(int))
    while True:
        losses = [loss(int(bad)) for bad in grid]
        best = int(np.argmax(losses))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        if high - low <= 2:
            return max(losses)
        grid = np.unique(np.linspace(low, high, 12).astype(int))


def disagreement(parties: int, error_prob: float) -> float:
    """Chance that Z outcomes of a GHZ state disagree if X, Y or Z hits each qubit by chance.

    Two of the three Paulis flip an outcome; all 2^N patterns of flips are added up but the two
    that leave all outcomes alike.
    """
    flip = 2 * error_prob / 3
    total = 0.0
    for pattern in itertools.product((0, 1), repeat=parties):
        if 0 < sum(pattern) < parties:
            total += math.prod(flip if bit else 1 - flip for bit in pattern)
    return total


def hashed_rate(kept: int, tested: int, tolerance: float, dimension: int) -> float:
    """Masks for an untested copy after a public random matrix over a prime field.

    Smoothing and amplification cost 1e-10 each; two honest parties.
    """
    smooth = amplify = 1e-10
    spread = math.sqrt((kept + tested) * (tested + 1) * math.log(1 / smooth) / (kept * tested**2))
    delta = tolerance + spread
    entropy = -delta * math.log2(delta) - (1 - delta) * math.log2(1 - delta)
    lost = entropy + delta * math.log2(dimension - 1) + 2 * math.log2(1 / (2 * amplify)) / kept
    return 1 - lost / math.log2(dimension)
