"""Estimates of derivatives by the noise, against enumerations and against finite differences.

Statistical tests have fixed keys. Means are held to four standard errors where the truth is
enumerated, which fails with 6e-5 each, and variances to five standard errors of their own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxqring as jq
from jaxqring import FixedPoint, Ring, superdense, werner
from jaxqring.gradients import expected, finite_difference

AXIS = "nodes"
KEY = jax.random.key(20260723)
KINDS = {
    "mean": {},
    "gaussian": {},
    "exact": {},
    "score": {"samples": 2},
    "russo": {},
    "every site": {"every_site": True},
}
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
SYMBOLS_ALONE = ("score", "russo", "every site")  # only run the loss


def estimate(loss, ring, key, kind, cost=None, **options):
    options = KINDS[kind] | options | ({"cost": cost} if kind in SYMBOLS_ALONE else {})
    estimator = "russo" if kind == "every site" else kind
    return expected(loss, ring, key, estimator=estimator, **options)


def assert_mean(samples, truth, errors=4.0):
    samples = np.asarray(samples, np.float64)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - truth) < errors * error + 1e-5 * np.abs(truth)), (
        samples.mean(axis=0),
        error,
        truth,
    )


# --- One hop of four symbols ----------------------------------------------------------------------


def hop_ring(epsilon):
    return Ring(superdense(werner(fidelity=1 - epsilon)), FixedPoint(8, clip=127.0))


def hop_loss(ring, keys):
    gather = functools.partial(jq.all_gather, axis_name=AXIS, ring=ring, key=keys[0])
    received = jax.vmap(gather, axis_name=AXIS)(jnp.array([[37.0], [0.0]]))
    return received[1, 0, 0] ** 2  # what node 1 has of node 0


HOP_COST = hop_ring(0.1).cost(1, 2, collective="all_gather")
PATTERNS = np.moveaxis(np.indices((4,) * 4), 0, -1)  # of the errors on the symbols of a level
WORD = (37 ^ (PATTERNS << 2 * np.arange(4)).sum(axis=-1)).astype(np.int8).astype(float)
LOSS = WORD**2


def changes():
    """(4, 3, ...) of the loss by each error of each symbol, given the others."""
    at = [[np.take(LOSS, [k], axis=j) for k in range(4)] for j in range(4)]
    return np.array([[one[k] - one[0] + 0 * LOSS for k in (1, 2, 3)] for one in at])


def stated(kind, epsilon, links=2):
    """Mean and standard deviation of one sample of the derivative of E[v^2] by the error."""
    p = np.where(PATTERNS == 0, 1 - epsilon, epsilon / 3).prod(axis=-1)

    def spread(samples, weights=p):
        mean = np.sum(weights * samples)
        return mean, np.sqrt(np.sum(weights * samples**2) - mean**2)

    scores = np.where(PATTERNS == 0, -1 / (1 - epsilon), 1 / epsilon).sum(axis=-1)
    truth = np.sum(p * LOSS * scores)
    if kind == "russo":
        square = np.sum(p * changes() ** 2) * 16 * links / 12
        return truth, np.sqrt(square - truth**2)
    if kind == "every site":
        return spread(changes().sum(axis=(0, 1)) / 3)
    if kind == "no baseline":
        return spread(LOSS * scores)
    if kind == "best baseline":
        return spread((LOSS - np.sum(p * LOSS)) * scores)
    if kind == "score":  # two samples, with the scores of the other link
        loss, score, weight = LOSS.ravel(), scores.ravel(), p.ravel()
        apart = (loss[:, None] - loss) * (score[:, None] - score) / 2
        beside = ((loss[:, None] - loss) / 2) ** 2 * 8 * (links - 1) / (epsilon * (1 - epsilon))
        pairs = weight[:, None] * weight
        return truth, np.sqrt(np.sum(pairs * (apart**2 + beside)) - truth**2)
    mean, deviation = spread(WORD)
    d_mean = np.sum(p * WORD * scores)
    d_variance = truth - 2 * mean * d_mean
    if kind == "mean":
        return spread(2 * WORD * d_mean)
    if kind == "exact":
        return spread(2 * WORD * (d_mean + d_variance / (2 * deviation**2) * (WORD - mean)))
    z = np.linspace(-9, 9, 90_001)  # "gaussian": rounded and clipped normal levels
    normal = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    level = np.clip(np.round(mean + deviation * z), -128, 127)
    return spread(2 * level * (d_mean + d_variance / (2 * deviation) * z), normal)


def stated_difference(low, high):
    """As `stated` for a difference with common random numbers; kinds 4 to 6 are of `high` alone."""
    pairs = np.moveaxis(np.indices((7,) * 4), 0, -1)
    each = np.where(pairs == 0, 1 - high, np.where(pairs < 4, low / 3, (high - low) / 3))
    ends = [np.where(pairs < 4, pairs, 0), np.where(pairs < 4, pairs, pairs - 3)]
    low_loss, high_loss = (LOSS[tuple(np.moveaxis(end, -1, 0))] for end in ends)
    samples, p = (high_loss - low_loss) / (high - low), each.prod(axis=-1)
    mean = np.sum(p * samples)
    return mean, np.sqrt(np.sum(p * samples**2) - mean**2)


@functools.cache
def hop_samples(kind):
    """Compiled: error, keys -> values and derivatives of each, of the loss and of one above it."""

    def both(ring, keys):
        loss = hop_loss(ring, keys)
        return loss, loss + 10_000

    def of_key(epsilon, key):
        def run(epsilon):
            values = estimate(both, hop_ring(epsilon), key, kind, HOP_COST)
            return values, values[0]

        slopes, value = jax.jacrev(run, has_aux=True)(epsilon)
        return value, *slopes

    return jax.jit(jax.vmap(of_key, in_axes=(None, 0)))


def hop_estimates(kind, epsilon):
    keys = jax.random.split(KEY, 2000 if kind == "every site" else 20_000)
    found = hop_samples(kind)(jnp.float32(epsilon), keys)
    values, gradients, same = np.asarray(found, np.float64)
    # A constant is no part of it, in any sample: it is what a baseline takes away.
    np.testing.assert_allclose(same, gradients, rtol=1e-6)
    return values, gradients


def assert_spread(samples, deviation):
    away = samples - samples.mean()
    error = np.sqrt((np.mean(away**4) - np.mean(away**2) ** 2) / len(samples))
    assert abs(np.mean(away**2) - deviation**2) < 5 * error + 1e-4 * deviation**2, (
        samples.std(),
        deviation,
    )


def test_the_enumeration_has_the_numbers_of_the_protocols():
    # Their spreads were sampled: ten percent. They are those of the four symbols of one link.
    assert stated("exact", 0.1)[0] == pytest.approx(5149.644, abs=1e-3)
    for kind, epsilon, deviation in (
        ("no baseline", 0.1, 2.98e4),
        ("best baseline", 0.1, 2.36e4),
        ("russo", 0.1, 1.27e4),
        ("every site", 0.1, 7.2e2),
        ("no baseline", 0.001, 2.4e5),
        ("russo", 0.001, 1.2e4),
    ):
        assert stated(kind, epsilon, links=1)[1] == pytest.approx(deviation, rel=0.1)
    mean, deviation = stated_difference(0.09, 0.11)
    assert mean == pytest.approx(5149.644, abs=1)
    assert deviation == pytest.approx(4.9e4, rel=0.1)
    # Without a term of the spread the mean is wrong.
    assert stated("mean", 0.1)[0] == pytest.approx(-3200)
    assert stated("gaussian", 0.1)[0] == pytest.approx(5149.644, rel=0.02)


@pytest.mark.parametrize("kind", [further(k) if k in ("exact", "every site") else k for k in KINDS])
def test_an_estimator_has_the_mean_and_the_spread_that_are_enumerated(kind):
    # 20,000 samples, 2,000 of every site, at two noise levels, and without noise: there the loss is
    # known, and the derivative one-sided, of all first errors. What needs a deviation has none
    # there, and is "mean".
    for epsilon in (0.1, 0.001):
        values, gradients = hop_estimates(kind, epsilon)
        mean, deviation = stated(kind, epsilon)
        assert_mean(gradients, mean)
        assert_spread(gradients, deviation)
        if kind != "gaussian":  # it has values of its own
            p = np.where(PATTERNS == 0, 1 - epsilon, epsilon / 3).prod(axis=-1)
            assert_mean(values, np.sum(p * LOSS))
    values, gradients = hop_estimates(kind, 0.0)
    np.testing.assert_array_equal(values, 37**2)
    truth = changes()[:, :, 0, 0, 0, 0].sum() / 3
    linear = 2 * 37 * -50
    assert min(abs(truth), abs(linear), abs(linear - truth)) > 3000
    if kind == "score":
        assert np.isnan(gradients).all()
    else:
        assert np.isfinite(gradients).all()
        assert_mean(gradients, truth if kind in SYMBOLS_ALONE else linear)
        if kind in ("mean", "gaussian", "exact", "every site"):
            np.testing.assert_allclose(gradients, gradients[0], rtol=1e-5)


def test_a_known_ring_without_a_kind_of_error_has_no_score():
    with pytest.raises(
        ValueError, match=r"^`ring\.channel` must have every kind of error for .*\.$"
    ):
        estimate(hop_loss, hop_ring(0.0), KEY, "score", HOP_COST)


def test_differences_have_the_mean_and_the_spread_that_are_enumerated():
    # 20,000 pairs of runs.
    def run(key):
        return finite_difference(
            hop_loss, hop_ring(0.09), hop_ring(0.11), 0.02, key, samples=20_000
        )

    samples = np.asarray(jax.jit(run)(KEY), np.float64)
    mean, deviation = stated_difference(0.09, 0.11)
    assert_mean(samples, mean)
    assert_spread(samples, deviation)


# --- Steps of a loop, two links, and two outcomes -------------------------------------------------

STEPS, START = 3, np.array([3.0, 2.0])
LINKS = np.array([0.95, 0.9])


def scanned(ring, keys):
    """Three steps x -> psum(x) / 2 in four bits: rounded, clipped and wrapped levels."""

    def step(x, key):
        add = functools.partial(jq.psum, axis_name=AXIS, ring=ring, key=key)
        return jax.vmap(add, axis_name=AXIS)(x) / 2, None

    x = lax.scan(step, jnp.asarray(START, jnp.float32)[:, None], keys)[0]
    return {"product": x[0, 0] * x[1, 0], "steps": jnp.sum(x > 1.0).astype(jnp.float32)}


def enumerated_outcomes(fidelities):
    """The expected outcomes, from the law of the sums (16, 16) that both nodes hold."""

    def hop(fidelity):
        matrix = np.full((4, 4), (1 - fidelity) / 3)
        np.fill_diagonal(matrix, fidelity)
        return np.kron(matrix, matrix)

    values = (np.arange(16) + 8) % 16 - 8
    # Node 0 sends to node 1 over link 0, which adds its own, and returns the sum over link 1.
    first, back = hop(fidelities[0]), hop(fidelities[1])

    def step(levels):
        held = np.roll(first[:, levels[0] % 16], levels[1])
        return back * held  # [of node 0, of node 1]

    law = step(START.astype(int))
    for _ in range(STEPS - 1):
        before, law = law, np.zeros((16, 16))
        levels = np.round(np.clip(values / 2, -3, 3)).astype(int)
        for i, j in np.ndindex(16, 16):
            law += before[i, j] * step((levels[i], levels[j]))
    x = values / 2
    return {
        "product": x @ law @ x,
        "steps": law.sum(axis=1) @ (x > 1) + law.sum(axis=0) @ (x > 1),
    }


@pytest.mark.parametrize(
    "kind, count", [("russo", 8000), further("score", 4000), further("every site", 400)]
)
def test_each_outcome_of_a_scan_has_its_derivative_by_each_link(kind, count):
    # A loss without a derivative of its own among them. Means of 400 to 8000 estimates, of 2
    # outcomes by 2 links.
    cost = Ring(wire=FixedPoint(4)).cost(1, 2)

    def ring_at(fidelities):
        return Ring(superdense(werner(fidelity=fidelities)), FixedPoint(4, clip=3.0))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def slopes_of(fidelities, key):
        def run(fidelities):
            return estimate(scanned, ring_at(fidelities), key, kind, cost, calls=STEPS)

        return jax.jacrev(run)(fidelities)

    found = slopes_of(jnp.asarray(LINKS, jnp.float32), jax.random.split(KEY, count))
    shifts = 1e-5 * np.eye(2)
    for name in ("product", "steps"):
        ends = [[enumerated_outcomes(LINKS + s * d)[name] for s in (1, -1)] for d in shifts]
        slopes = np.array([(up - down) / 2e-5 for up, down in ends])
        assert np.abs(slopes).min() > 0.3
        assert_mean(found[name], slopes)


# --- The mappings of the nodes --------------------------------------------------------------------

X = np.array([[5.0, -3.0], [2.0, 6.0]], np.float32)
WEIGHTS = np.array([[1.0, -0.5], [0.7, 2.0]], np.float32)
DIRECTION = np.array([1.0, -2.0], np.float32)


def mapped_ring(fidelities):
    return Ring(superdense(werner(fidelity=fidelities)), FixedPoint(6, clip=15.0))


MAPPED_COST = mapped_ring(0.9).cost(2, 2)


@functools.cache
def on_a_node(kind, forward):
    """A node's own loss under a mapping: value, and gradient or tangent."""

    def run(x, weights, fidelities, key):
        def loss(ring, keys):
            return jnp.sum(weights * jq.psum(x, AXIS, ring=ring, key=keys[0]) ** 2)

        def own(fidelities):
            return estimate(loss, mapped_ring(fidelities), key, kind, MAPPED_COST)

        if forward:
            return jax.jvp(own, (fidelities,), (jnp.asarray(DIRECTION),))
        return jax.value_and_grad(own)(fidelities)

    return run


@functools.cache
def of_all_nodes(kind):
    """(2,) the losses of both nodes, and their derivatives (2, 2) by both links."""

    def losses(ring, keys):
        add = functools.partial(jq.psum, axis_name=AXIS, ring=ring, key=keys[0])
        each = jnp.sum(WEIGHTS * jax.vmap(add, axis_name=AXIS)(jnp.asarray(X)) ** 2, axis=1)
        return [each[0], each[1]]

    def run(fidelities):
        each = jnp.stack(estimate(losses, mapped_ring(fidelities), KEY, kind, MAPPED_COST))
        return each, each

    slopes, each = jax.jit(jax.jacrev(run, has_aux=True))(jnp.asarray(LINKS, jnp.float32))
    return np.asarray(each, np.float64), np.asarray(slopes, np.float64)


def mapped_estimates(mapping, kind, forward):
    fidelities = jnp.asarray(LINKS, jnp.float32)
    run = mapping(on_a_node(kind, forward), 2, shared=2)
    return [np.asarray(part, np.float64) for part in run(X, WEIGHTS, fidelities, KEY)]


def check_gradient(mapping, kind):
    losses, slopes = of_all_nodes(kind)
    value, gradient = mapped_estimates(mapping, kind, False)
    if mapping.checked:  # sums the gradients of what all nodes share
        right = np.broadcast_to(slopes.sum(axis=0), (2, 2))
    elif kind in SYMBOLS_ALONE:
        right = slopes
    else:  # each node has the part of its own link in the losses of all
        right = np.diag(slopes.sum(axis=0))
    scale = np.abs(slopes).max()
    assert scale > 1
    np.testing.assert_allclose(value, losses, rtol=1e-5)
    np.testing.assert_allclose(gradient, right, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name, kind", [further("vmap", "score"), ("shard_map_checked", "mean")])
def test_a_node_of_a_mapping_may_estimate_its_own_loss(mapping_named, name, kind):
    """Exact: the same key, the nodes mapped inside the loss or around the estimate."""
    check_gradient(mapping_named(name), kind)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", KINDS)
def test_every_mapping_has_the_estimates_of_every_other(every_mapping, kind):
    """Exact, as above, and in forward mode."""
    check_gradient(every_mapping, kind)
    losses, slopes = of_all_nodes(kind)
    value, tangent = mapped_estimates(every_mapping, kind, True)
    scale = np.abs(slopes).max()
    np.testing.assert_allclose(value, losses, rtol=1e-5)
    np.testing.assert_allclose(tangent, slopes @ DIRECTION, rtol=1e-4, atol=1e-4 * scale)
