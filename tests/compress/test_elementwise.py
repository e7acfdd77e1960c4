"""TernGrad, QSGD and votes of signs: their sums, their expectations, and who abstains."""

import functools
import itertools
import math

import compress_reference as ref
import jax
import numpy as np
import pytest
from compress_calls import AXIS, KEY, label, many, normal, once, quiet, same_on_all, step

from jaxqring.compress import QSGD, SignVote, TernGrad

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


# TernGrad and QSGD


def uniforms(key, nodes, shapes):
    """The numbers that nodes draw in the first draw of a step, one leaf after the other."""
    of_draw = jax.random.fold_in(key, np.uint32((1 << 30) + 1))
    sizes = [math.prod(shape) for shape in shapes]
    keys = [jax.random.fold_in(of_draw, node) for node in range(nodes)]
    rows = np.array([jax.random.uniform(key, (sum(sizes),)) for key in keys])
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(nodes, *shape) for part, shape in zip(parts, shapes, strict=True)]


def by_reference(compressor, x, uniform):
    """The mean of codes on the scale that the nodes share."""
    if isinstance(compressor, TernGrad):
        # A single value has no deviation, and is not clipped.
        clip = None if x[0].size == 1 else compressor.clip
        scale = np.float32(ref.terngrad_scale(x, clip, peak=False))
        codes = [ref.terngrad_codes(own, scale, u) for own, u in zip(x, uniform, strict=True)]
        return np.mean(codes, axis=0) * scale
    norm = max(ref.qsgd_norm(own, compressor.norm) for own in x)
    codes = [
        ref.qsgd_codes(own, norm, compressor.levels, u) for own, u in zip(x, uniform, strict=True)
    ]
    return np.mean(codes, axis=0) * norm / compressor.levels


@pytest.mark.parametrize(
    "compressor",
    [
        TernGrad(),
        further(TernGrad(None)),
        further(QSGD(7)),
        further(QSGD(15, "max")),
        further(QSGD(1)),
    ],
    ids=label,
)
def test_codes_of_given_numbers_are_added_up(vmapped, compressor):
    x = {"a": normal(4, 12, 10), "v": 1e-3 * normal(4, 7, seed=1), "x": normal(4, seed=2)}
    mean, _ = once(vmapped, compressor, x, quiet(), KEY)
    mean = same_on_all(mean)
    drawn = uniforms(KEY, 4, [(12, 10), (7,), ()])
    for name, uniform in zip(x, drawn, strict=True):
        wanted = by_reference(compressor, np.float64(x[name]), uniform)
        np.testing.assert_allclose(mean[name], wanted, rtol=2e-6, atol=1e-9)
        assert np.any(wanted)


@functools.cache
def over_keys(compressor):
    """(N, size), (keys,) -> (keys, size), what the first node is delivered."""
    one = step(compressor)

    def of_key(x, key):
        run = jax.vmap(lambda own: one(own, (), quiet(), key)[0], axis_name=AXIS)
        return run(x)[0]

    return jax.jit(jax.vmap(of_key, in_axes=(None, 0)))


@pytest.mark.statistics
@pytest.mark.parametrize(
    "compressor, x, error",
    [(TernGrad(None), [0.3, -0.7, 0.1, 0], 0.18), (QSGD(4), [3, 4, 0, 0], 0.625)],
    ids=label,
)
def test_nodes_draw_independently_and_without_bias(compressor, x, error):
    """4,000 keys. Six deviations: by chance less than once in 10^7 runs."""
    count, nodes = 4000, 8
    given = np.broadcast_to(np.float32(x), (nodes, 4))
    found = np.float64(over_keys(compressor)(given, jax.random.split(KEY, count)))
    squared = ((found - x) ** 2).sum(axis=1)
    assert abs(found.mean(axis=0) - x).max() < 6 * np.sqrt(error / nodes / count)
    assert abs(squared.mean() - error / nodes) < 6 * squared.std() / np.sqrt(count)
    assert squared.std() / np.sqrt(count) < 0.03 * error / nodes


# Votes


def votes(nodes):
    """All patterns of agreement and dissent; then some zeros, all zeros last."""
    patterns = np.array(list(itertools.product([1.0, -1.0], repeat=nodes))).T
    some = np.random.default_rng(nodes).integers(-1, 2, (nodes, 400))
    scales = np.exp(np.random.default_rng(1).normal(size=(nodes, 1)))
    return scales * np.concatenate([patterns, some, np.zeros((nodes, 8))], axis=1)


def with_abstention(x):
    """The sign of what the documentation of `SignVote` says is added up."""
    nodes, size = x.shape
    if nodes % 2:
        return np.sign(np.sign(x).sum(axis=0))
    counts_ones = (np.arange(nodes)[:, None] + np.arange(size)) % 2 == 0
    full = np.where(x == 0, np.where(counts_ones, -1, 1), np.sign(x))
    return np.sign(full.sum(axis=0))


@pytest.mark.parametrize(
    "nodes, outcomes",
    [
        (5, [(0.2, 0.05792, 0)]),
        further(7, [(0.3, 0.126036, 0)]),
        (8, [(0.3, 0.05796765, 0.1361367), (0.4, 0.1736704, 0.2322432)]),
    ],
)
def test_the_majority_of_every_pattern(vmapped, nodes, outcomes):
    x = votes(nodes)
    mean, _ = once(vmapped, SignVote(), x, quiet())
    found = same_on_all(mean)
    np.testing.assert_array_equal(found, with_abstention(x))
    patterns, agreed = found[: 2**nodes], (x[:, : 2**nodes] > 0).sum(axis=0)
    np.testing.assert_array_equal(patterns, ref.vote_step(x, 0 * x)[0][: 2**nodes])
    for error, wrong, tie in outcomes:
        weights = (1 - error) ** agreed * error ** (nodes - agreed)
        assert weights[patterns < 0].sum() == pytest.approx(wrong, rel=1e-6)
        assert weights[patterns == 0].sum() == pytest.approx(tie, rel=1e-6)
    # All abstain; with an odd number of nodes an abstention changes nothing.
    assert not found[-8:].any()
    apart = found != np.sign(np.sign(x).sum(axis=0))
    assert apart.any() == (nodes % 2 == 0)
    assert not apart[np.all(x != 0, axis=0)].any()


def test_votes_of_momenta(vmapped):
    xs = normal(4, 3, 30)
    mean, momenta = many(vmapped, SignVote(0.75), xs, quiet())
    own, mean = np.zeros((4, 30)), same_on_all(mean)
    for at in range(3):
        delivered, own = ref.vote_step(np.float64(xs[:, at]), own, momentum=0.75)
        np.testing.assert_array_equal(mean[at], delivered)
        np.testing.assert_allclose(momenta[:, at], own, rtol=1e-5, atol=1e-6)
    assert {-1, 0, 1} == set(np.unique(mean))
