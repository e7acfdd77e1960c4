"""FixedPoint by another way: scales found by doubling, levels and sums in float64 and int64."""

import math

import numpy as np


def levels_of(values, bits, nodes):
    """(nodes, size) of one block -> int64 levels, the value of one, and the largest level.

    NaN is sent as zero, an infinity as the largest level.
    """
    width = bits - math.ceil(math.log2(nodes))
    limit = 2 ** (width - 1) - (1 if width < 26 else 2 ** (width - 25))
    exact = np.asarray(values).astype(np.float64)
    finite = np.abs(exact[np.isfinite(exact)])
    power = -126
    while math.ldexp(limit, power) < finite.max(initial=0):
        power += 1
    scale = math.ldexp(1.0, power)
    with np.errstate(invalid="ignore"):
        levels = np.rint(np.clip(np.where(np.isnan(exact), 0, exact) / scale, -limit, limit))
    return levels.astype(np.int64), scale, limit


def sum_of_blocks(values, bits, block):
    """(nodes, size) -> (size,) the exact sum of levels, times their scales, run by run."""
    nodes, size = values.shape
    parts = []
    for start in range(0, size, block or max(size, 1)):
        levels, scale, _ = levels_of(values[:, start : start + (block or size)], bits, nodes)
        parts.append(levels.sum(axis=0) * scale)
    return np.concatenate(parts) if parts else np.zeros(0)


def mean_of_levels(values, bits):
    """(nodes, ...) of one leaf -> the mean of its levels, in its type.

    A sum of levels is at most 2^bits: up to 24 of them, the product and the quotient are exact.
    """
    nodes = values.shape[0]
    levels, scale, _ = levels_of(values, bits, nodes)
    return np.float32(levels.sum(axis=0) * scale / nodes).astype(values.dtype)
