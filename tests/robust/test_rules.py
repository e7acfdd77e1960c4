"""Rules against NumPy and against the check values; their derivatives, keys and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refused import check_refusal
from robust_reference import (
    X,
    centred_clipping,
    clipped,
    flag,
    gas_scores,
    krum_scores,
    mixed,
    trimmed,
)

from jaxqring.robust import (
    GAS,
    Bucketing,
    CentredClipping,
    Flag,
    Krum,
    Mean,
    Median,
    NearestNeighbourMixing,
    TrimmedMean,
    clipped_projections,
    worker_momentum,
)

KEY = jax.random.key(7)
#: Rows of the check values of GAS and of Flag.
PARTED = np.array(
    [
        *[(1, 2, 3, 4), (1.1, 2.1, 2.9, 4.2), (0.9, 1.8, 3.2, 3.9)],
        *[(1.05, 2.2, 3.1, 4.1), (1, 2, -3, -4), (5, -5, 3, 4)],
    ],
    float,
)
DIRECTED = np.array(
    [
        *[(1, 0.1, 0, 0), (1, -0.1, 0.1, 0), (0.9, 0, 0.1, 0.1)],
        *[(1.1, 0.1, -0.1, 0), (0, 0, 0, 5), (-1, 3, 0, 0)],
    ],
    float,
)
RULES = {
    "mean": Mean(),
    "median": Median(),
    "trimmed": TrimmedMean(1),
    "krum": Krum(1),
    "multi_krum": Krum(1, select=3),
    "mixing": NearestNeighbourMixing(TrimmedMean(1), 1),
    "bucketing": Bucketing(Median(), 2),
    "clipping": CentredClipping(1.0, 2),
    "gas": GAS(Median(), 3, 1),
    "flag": Flag(1, 2, length="median"),
}
#: Compiled for the shape of `vectors`, which tests share.
COMPILED = {name: jax.jit(rule) for name, rule in RULES.items()}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def vectors():
    """Seven vectors of eleven numbers, the last one a lie."""
    x = np.random.default_rng(3).normal(1, 0.3, (7, 11))
    x[6] *= -20
    return x


def close(found, wanted, atol=1e-6):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "iterations, wanted",
    [
        (1, (0.307174448, 0.291865887)),
        (3, (0.774784474, 0.929521351)),
        (20, (1.028396026, 1.570031317)),
    ],
)
def test_centred_clipping_from_zero(iterations, wanted, x64):
    rule = CentredClipping(1.0, iterations, start="last")
    found = rule(X)
    close(found.value, wanted, 1e-9)
    close(found.value, centred_clipping(X, 1.0, iterations, (0, 0)), 1e-12)
    # From another start, the aggregate of a step before.
    close(rule(X, state=jnp.ones(2)).value, centred_clipping(X, 1.0, iterations, (1, 1)), 1e-12)


def test_centred_clipping_ends_where_clipped_differences_add_up_to_zero(x64):
    found = CentredClipping(1.0, 200)(X)
    close(found.value, (1.028396027, 1.570031323), 1e-9)
    close(clipped(X, np.asarray(found.value), 1.0).sum(axis=0), 0, 1e-12)
    close(found.clipped, 2 / 6, 1e-12)
    close(jnp.sum(clipped_projections(X, found.value, 1.0, KEY)), 0, 1e-12)


def test_projections_show_a_centre_that_is_off(x64):
    off = np.array([1.2, 1.4])
    left = clipped(X, off, 1.0).sum(axis=0)
    direction = np.asarray(jax.random.normal(KEY, (2,), float))
    close(jnp.sum(clipped_projections(X, off, 1.0, KEY)), left @ direction, 1e-12)
    # The chance that a normal number is below 1e-3 of its deviation is 8e-4; the key is fixed.
    assert abs(left @ direction) > 1e-3 * np.linalg.norm(left)


def test_median_and_trimmed_mean(x64):
    close(Median()(X).value, (1.05, 1.9), 1e-12)
    close(TrimmedMean(1)(X).value, (1.05, -2.525), 1e-12)
    close(TrimmedMean(2)(X).value, (1.05, 1.9), 1e-12)
    close(Median()(X[:5]).value, np.median(X[:5], axis=0), 1e-12)


def test_krum_scores_have_squared_distances_of_n_less_f_less_2(x64):
    scores = Krum(1).scores(jnp.asarray(X))
    close(scores, (0.15, 0.43, 0.25, 0.27, 1545.68, 1076.08), 1e-9)
    close(scores, krum_scores(X, 1), 1e-9)
    close(Krum(1)(X).value, X[0], 1e-12)
    close(Krum(1, select=3)(X).value, X[[0, 2, 3]].mean(axis=0), 1e-12)


def test_gas_keeps_the_nearest_part_by_part(x64):
    rule = GAS(Median(), 2, 2, permute=False)
    wanted = (0.025, 0.348606798, 0.459456326, 0.342977800, 10.025, 8.049883540)
    scores = rule.scores(jnp.asarray(PARTED))
    close(scores, wanted, 1e-9)
    close(scores, gas_scores(PARTED, 2), 1e-12)
    close(rule(PARTED).value, (1.0125, 2.025, 3.05, 4.05), 1e-12)


def test_gas_permutes_coordinates_anew_by_every_key(vectors, x64):
    x = vectors[:, :10]
    rule = GAS(Median(), 5, 1)
    scores = [np.asarray(rule.scores(jnp.asarray(x), key)) for key in jax.random.split(KEY, 2)]
    assert not np.allclose(*scores, rtol=1e-3)
    order = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], 10))
    close(rule.scores(jnp.asarray(x), KEY), gas_scores(x[:, order], 5), 1e-12)


@pytest.mark.parametrize(
    "iterations, wanted",
    [
        (0, (0.970862, 0.994225, 0.989932, 0.960673, 0.994237, 0.150439)),
        (19, (0.988307, 0.986929, 0.996965, 0.971937, 1.000000, 0.095762)),
    ],
)
def test_flag_of_rank_two_locks_on_to_a_liar(iterations, wanted, x64):
    found = Flag(2, iterations).kept(jnp.asarray(DIRECTED))
    close(found, wanted, 1e-6)
    close(found, flag(DIRECTED, 2, iterations)[0], 1e-9)


def test_flag_of_rank_one_does_not(x64):
    kept = np.asarray(Flag(1, 20).kept(jnp.asarray(DIRECTED)))
    assert (kept[:4] > 0.95).all()
    assert kept[4] < 0.05


@pytest.mark.parametrize("pairs", [0.0, 2.0])
def test_flag_is_that_of_singular_vectors(pairs, vectors, x64):
    shares, total = flag(vectors, 2, 3, pairs)
    rule = Flag(2, 3, pairs)
    close(rule.kept(jnp.asarray(vectors)), shares, 1e-9)
    close(rule(vectors).value, total / 2, 1e-9)
    middle = np.median(np.linalg.norm(vectors, axis=1))
    scaled = Flag(2, 3, pairs, length="median")
    close(scaled(vectors).value, total / 7 * middle, 1e-9)
    close(scaled(10 * vectors).value, 10 * total / 7 * middle, 1e-8)  # lengths count


def test_mixing_takes_the_mean_of_neighbours_first(vectors, x64):
    found = NearestNeighbourMixing(TrimmedMean(1), 1)(vectors).value
    close(found, trimmed(mixed(vectors, 1), 1), 1e-12)


def test_buckets_are_dealt_by_the_key_and_may_be_uneven(vectors, x64):
    order = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], 7))
    buckets = [vectors[order[first : first + 2]].mean(axis=0) for first in range(0, 7, 2)]
    close(Bucketing(Median(), 2)(vectors, KEY).value, np.median(buckets, axis=0), 1e-12)


def test_shares_of_what_was_clipped_or_left_out(vectors):
    x = jnp.asarray(vectors, jnp.float32)
    shares = {name: float(rule(x, KEY).clipped) for name, rule in COMPILED.items()}
    wanted = {"mean": 0, "median": 6 / 7, "trimmed": 2 / 7, "krum": 6 / 7, "multi_krum": 4 / 7}
    wanted |= {"mixing": 2 / 7, "bucketing": 1 / 2, "gas": 1 / 7, "flag": 0}
    for name, share in wanted.items():
        assert shares[name] == pytest.approx(share), name
    assert 0 < shares["clipping"] < 1


@pytest.mark.parametrize("name", RULES)
def test_no_rule_but_the_mean_is_moved_far_by_one_huge_vector(name, vectors):
    x = np.asarray(vectors, np.float32)
    honest = x[:6].mean(axis=0)
    results = []
    for size in (1e3, 1e30):
        x[6] = size
        results.append(np.asarray(COMPILED[name](x, KEY).value, float))
    assert all(np.isfinite(result).all() for result in results)
    distance = np.linalg.norm(results[1] - honest)
    if name == "mean":
        assert distance > 1e29
        return
    spread = np.linalg.norm(x[:6] - honest, axis=1).max()
    assert distance < (3 if name == "flag" else 2) * spread
    close(results[0], results[1], 1e-5)


@pytest.mark.parametrize("name", [name for name in RULES if name != "flag"])
def test_derivatives_are_those_of_differences(name, vectors, x64):
    rule = RULES[name]
    weights = np.random.default_rng(1).normal(size=11)
    step = np.random.default_rng(2).normal(size=vectors.shape)

    @jax.jit
    def out(x):
        return rule(x, KEY).value @ weights

    slope = jnp.vdot(jax.grad(out)(jnp.asarray(vectors)), step)
    wanted = (out(vectors + 1e-6 * step) - out(vectors - 1e-6 * step)) / 2e-6
    assert abs(wanted) > 1e-3
    close(slope, wanted, 1e-6)


def test_the_derivative_at_the_centre_is_finite():
    slope = jax.grad(lambda x: CentredClipping(1.0)(x).value.sum())(jnp.ones((3, 2)))
    close(slope.sum(axis=0), 1)  # all are moved together, and so is the centre


def test_a_radius_can_be_traced_and_differentiated(vectors):
    def out(tau):
        return CentredClipping(tau, 2)(vectors).value.sum()

    wanted = (out(1.01) - out(0.99)) / 0.02
    assert abs(float(jax.grad(out)(1.0)) - float(wanted)) < 1e-2 * abs(float(wanted))


def test_flag_refuses_a_derivative(vectors):
    def out(x):
        return Flag()(x).value.sum()

    check_refusal(lambda: jax.grad(out)(jnp.asarray(vectors)), ValueError, ["`x`", "Flag"])


def test_momentum_in_both_forms():
    m, tree = {"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 2.0])}
    s = m
    for _ in range(3):
        m = worker_momentum(m, tree, 0.9)
        s = worker_momentum(s, tree, 0.9, "sum")
    close(m["w"], (1 - 0.9**3) * np.array([1, 2]))
    close(s["w"], 10 * np.asarray(m["w"]), 1e-5)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: CentredClipping(0.0), ValueError, ["`tau`", "positive", "0.0"]),
        (lambda: CentredClipping(-1.0), ValueError, ["`tau`"]),
        (lambda: CentredClipping(1.0, 0), ValueError, ["`iterations`"]),
        (lambda: CentredClipping(1.0, start="mean"), ValueError, ["`start`", "'mean'"]),
        (lambda: Krum(4)(X), ValueError, ["`liars`", "at most 3", "Krum", "4"]),
        (lambda: Krum(1, 6)(X), ValueError, ["`select`"]),
        (lambda: TrimmedMean(3)(X), ValueError, ["`liars`", "at most 2"]),
        (lambda: NearestNeighbourMixing(Median(), 3)(X), ValueError, ["`liars`"]),
        (lambda: NearestNeighbourMixing(jnp.mean, 1), TypeError, ["`rule`", "Rule"]),
        (lambda: GAS(Median(), 2, 3)(X, KEY), ValueError, ["`liars`"]),
        (lambda: GAS(CentredClipping(1.0, start="last"), 2, 1), ValueError, ["`rule`", "last"]),
        (lambda: GAS(Median(), 2, 1)(X), TypeError, ["`key`"]),
        (lambda: GAS(Median(), 2, 1).scores(jnp.asarray(X)), TypeError, ["`key`"]),
        (lambda: Bucketing(TrimmedMean(2), 2)(X, KEY), ValueError, ["`liars`", "3 vectors"]),
        (lambda: Bucketing(Median())(X), TypeError, ["`key`"]),
        (lambda: Flag(7)(X), ValueError, ["`rank`", "6 vectors"]),
        (lambda: Flag(pairs=-1.0), ValueError, ["`pairs`"]),
        (lambda: Median()(X[0]), ValueError, ["`x.ndim`"]),
        (lambda: Median()(X.astype(int)), TypeError, ["`x`", "floating"]),
        (lambda: CentredClipping(1.0)(X, state=np.ones(3)), ValueError, ["`state`", "(2,)"]),
        (lambda: worker_momentum(0.0, 1.0, 1.0), ValueError, ["`decay`"]),
        (lambda: worker_momentum(0.0, 1.0, 0.9, "mean"), ValueError, ["`form`"]),
    ],
)
def test_refusals_come_before_tracing(call, error, words):
    check_refusal(call, error, words)
