"""The reference of robust rules: their equations in float64 NumPy, row by row, without tricks."""

import itertools
import math

import numpy as np

#: Vectors of the check values: four honest ones and two lies.
X = np.array([(1, 2), (1.2, 1.8), (0.9, 2.1), (1.1, 2.2), (-10, -20), (8, -16)], float)


def clipped(x, centre, tau):
    return np.array([(v - centre) * tau / max(tau, np.linalg.norm(v - centre)) for v in x])


def centred_clipping(x, tau, iterations, start):
    centre = np.array(start, float)
    for _ in range(iterations):
        centre = centre + clipped(x, centre, tau).mean(axis=0)
    return centre


def krum_scores(x, liars):
    scores = []
    for i, v in enumerate(x):
        others = sorted(np.sum((v - w) ** 2) for j, w in enumerate(x) if j != i)
        scores.append(sum(others[: len(x) - liars - 2]))
    return np.array(scores)


def mixed(x, liars):
    rows = []
    for v in x:
        nearest = sorted(range(len(x)), key=lambda j: np.sum((v - x[j]) ** 2))
        rows.append(x[nearest[: len(x) - liars]].mean(axis=0))
    return np.array(rows)


def trimmed(x, liars):
    return np.sort(x, axis=0)[liars : len(x) - liars].mean(axis=0)


def gas_scores(x, parts):
    pieces = np.array_split(np.arange(x.shape[1]), parts)
    return sum(
        np.linalg.norm(x[:, piece] - np.median(x[:, piece], axis=0), axis=1) for piece in pieces
    )


def flag(x, rank, iterations, pairs=0.0):
    """The kept shares and the sum of what is kept, by singular vectors of the P x n matrix."""
    u = (x / np.linalg.norm(x, axis=1, keepdims=True)).T
    columns = list(u.T)
    scale = [1.0] * len(x)
    if pairs:
        for i, j in itertools.permutations(range(len(x)), 2):
            columns.append((u[:, i] - u[:, j]) / np.linalg.norm(u[:, i] - u[:, j]))
            scale.append(pairs / (len(x) * (len(x) - 1)))
    columns, scale = np.array(columns).T, np.array(scale)
    weights = np.ones(len(scale))
    for _ in range(iterations + 1):
        left = np.linalg.svd(columns * weights * np.sqrt(scale), full_matrices=False)[0][:, :rank]
        shares = np.sum((left.T @ columns) ** 2, axis=0)
        weights = (abs(1 - shares) + 1e-7) ** -0.25
    return shares[: len(x)], left @ (left.T @ u.sum(axis=1))


def little_is_enough(honest, z, ddof):
    return honest.mean(axis=0) - z * honest.std(axis=0, ddof=ddof)


def spoilt_by_enumeration(num_nodes, size, liars):
    """The law of the number of groups with a liar, over all places of the liars."""
    counts = [0] * (num_nodes // size + 1)
    for places in itertools.combinations(range(num_nodes), liars):
        counts[len({place // size for place in places})] += 1
    return np.array(counts) / math.comb(num_nodes, liars)
