"""Supplies of pairs against enumeration, fractions, closed forms and numpy's random numbers.

The statistical tests fix their seeds and allow six standard errors, so that each of their
comparisons fails by chance less often than once in 10^8.
"""

import functools
import itertools
import math
from fractions import Fraction

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq

INF = float("inf")
both_precisions = pytest.mark.parametrize("x64_on", [False, True])

#: Compiled whole, which is quicker than one operation after the other.
generate = jax.jit(jq.supply.generate, static_argnames=("links", "scheme"))
stock = jax.jit(jq.supply.stock)
purify = jax.jit(jq.supply.purify, static_argnames=("rounds", "protocol"))
slowest = jax.jit(jq.supply.expected_slowest, static_argnames="count")
GENERAL = dense.random_state(np.random.default_rng(0))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def within_six_errors(samples, expected, axis=0):
    """Tells whether the mean of independent samples agrees with the expectation."""
    error = samples.std(axis) / math.sqrt(samples.shape[axis])
    return np.all(np.abs(samples.mean(axis) - expected) <= 6 * error + 1e-12)


# --- The slowest of several links -----------------------------------------------------------------


def slowest_by_subsets(prob, count):
    """The alternating sum, exact in fractions, where its cancellations do no harm."""
    p = Fraction(prob)
    return float(
        sum((-1) ** (k + 1) * math.comb(count, k) / (1 - (1 - p) ** k) for k in range(1, count + 1))
    )


@both_precisions
@pytest.mark.parametrize("count", [1, 4, 30])
def test_the_slowest_link_is_the_alternating_sum_in_fractions(count, x64_on):
    with jax.enable_x64(x64_on):
        prob = np.array([1e-12, 1e-6, 0.1, 0.5, 0.999, 1.0], np.float64 if x64_on else np.float32)
        expected = [slowest_by_subsets(float(p), count) for p in prob]
        tolerance = 1e-12 if x64_on else 5e-6
        np.testing.assert_allclose(slowest(prob, count=count), expected, rtol=tolerance)


def test_the_slowest_link_gives_the_known_numbers(x64):
    assert round(float(slowest(0.1, count=2)), 6) == 14.736842
    assert round(float(slowest(0.1, count=4)), 6) == 20.273378


@pytest.mark.statistics
def test_the_slowest_link_is_that_of_sampled_attempts(x64):
    # 200 000 samples, 3 comparisons.
    rng = np.random.default_rng(1)
    for prob, count in ((0.05, 3), (0.4, 7), (0.9, 20)):
        attempts = rng.geometric(prob, size=(200_000, count)).max(axis=1)
        assert within_six_errors(attempts, float(slowest(prob, count=count)))


# --- Generation -----------------------------------------------------------------------------------


def test_one_link_has_the_rate_of_its_scheme(x64):
    pair = jq.from_density_matrix(GENERAL)
    settings = {"attenuation_length": 30e3, "modes": 7.0, "signal_speed": 1.9e8, "cycle_time": 3e-6}
    reach = math.exp(-50 / 30)
    for scheme, prob in (("midpoint", 0.8**2 * reach / 2), ("direct", 0.8 * reach)):
        found = generate(pair, length=50e3, detector_efficiency=0.8, scheme=scheme, **settings)
        np.testing.assert_allclose(found.generation_prob, prob, rtol=1e-14)
        rate = 7 * prob / (50e3 / 1.9e8 + 3e-6)
        np.testing.assert_allclose(found.pairs_per_second, rate, rtol=1e-14)
        np.testing.assert_allclose(found.pair.correlation, pair.correlation, atol=1e-15)
        assert float(found.raw_pairs_per_pair) == 1


def test_a_chain_is_its_links_swapped_one_after_the_other(x64):
    weight = np.append(np.linspace(0, 1, 5), (4 * 0.9 - 1) / 3)
    states = [dense.werner_state((1 + 3 * w) / 4) for w in weight]
    pair = jq.from_density_matrix(np.array([GENERAL, *states]))
    swap = jax.jit(jq.swap)
    for errors in (
        {"gate_error": 0.0, "readout_error": 0.0},
        {"gate_error": 0.1, "readout_error": 0.05},
    ):
        expected = pair
        for links in (1, 2, 4):
            found = generate(pair, length=80e3, links=links, **errors)
            np.testing.assert_allclose(found.pair.correlation, expected.correlation, atol=1e-14)
            np.testing.assert_allclose(found.generation_prob, math.exp(-80 / 22 / links) / 2)
            attempts = slowest_by_subsets(float(found.generation_prob[0]), links)
            rate = 1 / (attempts * (80e3 / links / 2e8 + 1e-6))
            np.testing.assert_allclose(found.pairs_per_second, rate, rtol=1e-12)
            if errors["gate_error"] == 0:
                np.testing.assert_allclose(
                    found.pair.fidelity[1:], (1 + 3 * weight**links) / 4, atol=1e-14
                )
                if links == 4:
                    assert round(float(found.pair.fidelity[-1]), 6) == 0.673126
            for _ in range(links):  # twice as many for the next turn
                expected = swap(expected, pair, **errors)


def chain_after(pair, attempts, attempt_time, t1, t2):
    """Correlations (..., 4, 4) of the links' pairs that became ready after (..., L) attempts."""
    ages = (attempts.max(-1, keepdims=True) - attempts)[..., None, None] * attempt_time
    half = np.array([0, 1 / t2, 1 / t2, 1 / t1])
    links = np.asarray(pair.correlation) * np.exp(-(half[:, None] + half) * ages)
    result = links[..., 0, :, :]
    for link in range(1, attempts.shape[-1]):
        diagonal = np.diagonal(links[..., link, :, :], axis1=-2, axis2=-1)
        result = result * (diagonal * [1, 1, -1, 1])[..., None, :]
    return result


MEMORIES = {"t1": 3e-3, "t2": 1e-3}


@pytest.mark.parametrize("links", [pytest.param(2, marks=pytest.mark.matrix), 3])
def test_decay_while_waiting_is_the_sum_over_all_histories(links, x64):
    # A direct link over no distance: one attempt takes one cycle and succeeds half the time.
    pair = jq.from_density_matrix(GENERAL)
    found = generate(
        pair,
        length=0.0,
        links=links,
        scheme="direct",
        detector_efficiency=0.5,
        cycle_time=2e-4,
        **MEMORIES,
    )
    history = np.array(list(itertools.product(range(1, 52 if links == 2 else 45), repeat=links)))
    weights = 0.5 ** history.sum(-1)
    expected = np.tensordot(weights, chain_after(pair, history, 2e-4, **MEMORIES), axes=1)
    np.testing.assert_allclose(found.pair.correlation, expected, atol=1e-12)


@pytest.mark.statistics
def test_decay_while_waiting_is_that_of_sampled_histories(x64):
    # 200 000 samples, 15 comparisons.
    pair = jq.from_density_matrix(GENERAL)
    found = generate(pair, length=60e3, links=5, cycle_time=1e-5, **MEMORIES)
    attempts = np.random.default_rng(2).geometric(float(found.generation_prob), size=(200_000, 5))
    samples = chain_after(pair, attempts, 12e3 / 2e8 + 1e-5, **MEMORIES)
    assert within_six_errors(samples, np.asarray(found.pair.correlation))
    fresh = generate(pair, length=60e3, links=5, cycle_time=1e-5).pair.correlation
    # The test can tell the decay of a swap's worth of attempts from none.
    assert np.all(np.abs(found.pair.correlation - fresh)[1:, 1:] > 0.1 * np.abs(fresh)[1:, 1:])


def test_waiting_is_thermal_relaxation_without_drift(x64):
    pair = jq.from_density_matrix(GENERAL)
    memory = jq.thermal_relaxation(t1=2.0, t2=0.7, time=0.3, excited_population=0.5)
    found = jq.supply.wait(pair, time=0.3, t1=2.0, t2=0.7)
    np.testing.assert_allclose(
        found.correlation, pair.apply(sent=memory, kept=memory).correlation, atol=1e-15
    )
    assert float(found.clipped) == 0


# --- A stock of pairs -----------------------------------------------------------------------------


def supply_of(rate, pair=None):
    """A supply of so many pairs per second."""
    one = jnp.ones_like(jnp.asarray(rate, dtype=float))
    return jq.supply.Supply(pair or jq.werner(fidelity=1.0), rate * one, one, one)


def test_a_stock_is_the_mean_over_the_ages_of_its_newest_pairs(x64):
    # 40 000 samples of up to 300 pairs each, 2 * 15 comparisons.
    rng = np.random.default_rng(3)
    pair = jq.from_density_matrix(GENERAL)
    half = np.array([0, 1 / 0.3, 1 / 0.3, 1 / 0.9])
    for count in (1, 300):
        found = stock(supply_of(400.0, pair), pairs=count, t1=0.9, t2=0.3)
        ages = np.cumsum(rng.exponential(1 / 400, size=(40_000, count)), axis=1)
        decay = {rate: np.exp(-rate * ages).mean(1) for rate in np.unique(half[:, None] + half)}
        samples = np.stack(
            [
                decay[a + b] * r
                for (a, b), r in zip(
                    itertools.product(half, half), np.asarray(pair.correlation).ravel(), strict=True
                )
            ],
            axis=-1,
        )
        assert within_six_errors(samples, np.asarray(found.pair.correlation).ravel())
        assert float(found.pairs_per_second) == 400
        assert float(found.raw_pairs_per_pair) == 1


@both_precisions
def test_a_stock_is_its_closed_form_over_all_orders_of_magnitude(x64_on):
    with jax.enable_x64(x64_on):
        rates = 10.0 ** np.arange(-9, 13)[:, None]
        counts = np.array([1, 2, 3, 10, 12345])
        found = stock(supply_of(rates), pairs=counts, t1=1.0, t2=1.0).pair.correlation[..., 3, 3]
        for i, n in np.ndindex(found.shape):
            x = Fraction(rates[i, 0]) / (Fraction(rates[i, 0]) + 2)
            # In fractions: the sum of powers is exact for few pairs, the quotient for many.
            power = sum(x**k for k in range(1, counts[n] + 1)) if counts[n] < 100 else None
            if power is None:
                log = math.log1p(-2 / (rates[i, 0] + 2)) if rates[i, 0] > 1 else math.log(x)
                power = -math.expm1(counts[n] * log) * float(x / (1 - x))
            expected = float(power) / counts[n]
            np.testing.assert_allclose(found[i, n], expected, rtol=1e-11 if x64_on else 5e-6)


# --- Purification and hashing ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["dejmps", pytest.param("bbpssw", marks=pytest.mark.matrix)])
def test_purification_is_distillation_round_by_round(protocol, x64):
    errors = {"gate_error": np.array([0.0, 0.02]), "readout_error": 0.01}
    raw = supply_of(
        np.array([100.0, 50.0]),
        jq.from_density_matrix(0.4 * GENERAL + 0.6 * dense.werner_state(1.0)),
    )
    distill = jax.jit(jq.distill, static_argnames="protocol")
    pair, cost = raw.pair, np.ones(2)
    for rounds in range(4):
        found = purify(raw, rounds=rounds, protocol=protocol, **errors)
        expected = np.broadcast_to(pair.correlation, (2, 4, 4))
        np.testing.assert_allclose(found.pair.correlation, expected, atol=1e-14)
        np.testing.assert_allclose(found.raw_pairs_per_pair, cost, rtol=1e-13)
        np.testing.assert_allclose(found.pairs_per_second, [100, 50] / cost, rtol=1e-13)
        pair, success = distill(pair, pair, protocol=protocol, **errors)
        cost = cost * 2 / np.asarray(success)
    again = purify(
        purify(raw, rounds=1, protocol=protocol, **errors), rounds=2, protocol=protocol, **errors
    )
    np.testing.assert_allclose(again.pair.correlation, found.pair.correlation, atol=1e-14)
    np.testing.assert_allclose(again.raw_pairs_per_pair, found.raw_pairs_per_pair, rtol=1e-13)


@pytest.mark.statistics
def test_purification_is_that_of_sampled_errors(x64):
    # 800 000 raw pairs; 3 comparisons a round.
    rng = np.random.default_rng(4)
    probs, gate, readout = np.array([0.75, 0.06, 0.09, 0.1]), 0.05, 0.03
    labels = rng.choice(4, size=800_000, p=probs)
    raw = supply_of(1.0, jq.bell_diagonal(probs))
    for rounds in (1, 2):
        # Bits (a, b) of a Bell state are the X and Z errors; Phi- and Psi- are exchanged first.
        a, b = (labels >> 1) ^ (labels & 1), labels & 1
        a, b = a.reshape(2, -1), b.reshape(2, -1)
        a[1] ^= a[0]
        b[0] ^= b[1]
        for _party in range(2):
            broken = rng.random(a.shape[1]) < gate
            a = a ^ (broken & (rng.random(a.shape) < 0.5))
            b = b ^ (broken & (rng.random(b.shape) < 0.5))
            a[1] ^= rng.random(a.shape[1]) < readout
        agreed = a[1] == 0
        before = purify(raw, rounds=rounds - 1, gate_error=gate, readout_error=readout)
        found = purify(raw, rounds=rounds, gate_error=gate, readout_error=readout)
        success = 2 * before.raw_pairs_per_pair / found.raw_pairs_per_pair
        assert within_six_errors(agreed, float(success))
        labels = 2 * a[0][agreed] + b[0][agreed]
        labels = labels[: 2 * (labels.size // 2)]
        for state, probability in enumerate(np.asarray(found.pair.bell_probs)):
            assert within_six_errors(labels == state, probability)


def test_hashing_trades_pairs_for_perfect_ones(x64):
    supply = supply_of(np.array([10.0, 10.0, 10.0]), jq.werner(fidelity=np.array([1.0, 0.95, 0.8])))
    found = jax.jit(jq.supply.hashed)(supply)
    share = np.asarray(jq.pairs.hashing_yield(supply.pair))
    np.testing.assert_allclose(found.pair.fidelity, 1, atol=1e-15)
    np.testing.assert_allclose(found.pairs_per_second, 10 * share, rtol=1e-14)
    np.testing.assert_allclose(found.raw_pairs_per_pair[:2], 1 / share[:2], rtol=1e-14)
    # Where nothing is left no pair is delivered, and its price is finite.
    assert found.pairs_per_second[2] == 0
    np.testing.assert_allclose(found.raw_pairs_per_pair[2], 1e9, rtol=1e-14)


# --- The whole way from hardware to pairs ---------------------------------------------------------

#: name: (a value inside the domain, the ends of the domain)
HARDWARE = {
    "fidelity": (0.96, [0.25, 1.0]),
    "length": (40e3, [0.0, 1e9]),
    "attenuation_length": (22e3, [1.0, INF]),
    "detector_efficiency": (0.9, [0.0, 1.0]),
    "modes": (3.0, [1.0, 1e9]),
    "signal_speed": (2e8, [1.0, INF]),
    "cycle_time": (2e-5, [1e-9, 1e9]),
    "t1": (0.4, [1e-9, INF]),
    "t2": (0.1, [1e-9, INF]),
    "gate_error": (0.01, [0.0, 1.0]),
    "readout_error": (0.02, [0.0, 1.0]),
    "pairs": (30.0, [1.0, 1e12]),
    "time": (1e-3, [0.0, 1e9]),
}
INSIDE = {name: value for name, (value, _) in HARDWARE.items()}


def outcomes(hardware):
    """Numbers of a chain of three links, a stock, a wait, purification and hashing."""
    settings = dict(hardware)
    pair = jq.werner(fidelity=settings.pop("fidelity"))
    pairs, time = settings.pop("pairs"), settings.pop("time")
    memory = {name: settings[name] for name in ("t1", "t2")}
    errors = {name: settings[name] for name in ("gate_error", "readout_error")}
    supply = jq.supply.generate(pair, links=3, **settings)
    stocked = jq.supply.stock(supply, pairs=pairs, **memory)
    aged = stocked.replace(pair=jq.supply.wait(stocked.pair, time=time, **memory))
    better = jq.supply.purify(aged, rounds=2, **errors)
    perfect = jq.supply.hashed(better)
    found = [supply.pairs_per_second, supply.generation_prob]
    for stage in (supply, stocked, aged, better):
        found += [stage.pair.bell_probs[0], stage.pair.bell_probs[2]]
    for stage in (better, perfect):
        found += [stage.pairs_per_second, jnp.log(stage.raw_pairs_per_pair)]
    return jnp.stack(found)


@functools.cache
def compiled(transform):
    return jax.jit(lambda at: (jax.vmap(outcomes)(at), jax.vmap(transform(outcomes))(at)))


def values_and_slopes(points, transform):
    """Outcomes and their derivatives at some points, padded to one shape to compile but once."""
    padded = [*points, *[INSIDE] * (700 - len(points))]
    batch = {n: jnp.array([p[n] for p in padded], dtype=float) for n in HARDWARE}
    found = compiled(transform)(batch)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(points)], found)


def test_derivatives_in_all_hardware_are_those_of_finite_differences(x64):
    names = list(HARDWARE)
    ends = [INSIDE | {n: INSIDE[n] * (1 + sign * 1e-5)} for n in names for sign in (1, -1)]
    values, slopes = values_and_slopes([INSIDE, *ends], jax.jacfwd)
    assert values[0, -2] > 0  # hashing yields something, so that its slope is looked at
    for i, name in enumerate(names):
        difference = (values[2 * i + 1] - values[2 * i + 2]) / 2e-5
        # Per relative change of the parameter.
        found = slopes[name][0] * INSIDE[name]
        np.testing.assert_allclose(found, difference, rtol=2e-6, atol=1e-8)
        assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize(
    "x64_on, transform",
    [
        (True, jax.jacfwd),
        pytest.param(False, jax.jacfwd, marks=pytest.mark.matrix),
        pytest.param(False, jax.jacrev, marks=pytest.mark.matrix),
        pytest.param(True, jax.jacrev, marks=pytest.mark.matrix),
    ],
)
def test_values_and_derivatives_are_finite_at_the_ends_of_every_domain(x64_on, transform):
    # Two parameters at an end, then all of them; where t2 is above 2 t1, it is moved there.
    points = []
    for first, second in itertools.combinations_with_replacement(HARDWARE, 2):
        for low, high in itertools.product(HARDWARE[first][1], HARDWARE[second][1]):
            points.append(INSIDE | {first: low, second: high})
    rng = np.random.default_rng(5)
    points += [{n: rng.choice(ends) for n, (_, ends) in HARDWARE.items()} for _ in range(300)]
    points += [{n: ends[i] for n, (_, ends) in HARDWARE.items()} for i in (0, 1)]
    with jax.enable_x64(x64_on):
        values, slopes = values_and_slopes(points, transform)
    assert np.all(np.isfinite(values))
    bell = values[:, 2:10]
    assert np.all((bell > -1e-6) & (bell < 1 + 1e-6))
    for name, slope in slopes.items():
        bad = ~np.all(np.isfinite(slope), axis=-1)
        assert not bad.any(), (name, points[np.argmax(bad)], slope[np.argmax(bad)])


@pytest.mark.matrix
def test_links_that_never_succeed_deliver_nothing_and_never_in_time(x64):
    dark = {"length": 1e4, "detector_efficiency": 0.0, "links": 2}
    memory = np.array([1.0, INF])  # one that forgets, and one that keeps for ever
    found = generate(jq.werner(fidelity=1.0), t1=memory, t2=memory, **dark)
    np.testing.assert_array_equal(found.pairs_per_second, 0)
    np.testing.assert_allclose(found.pair.fidelity, [0.25, 1.0], atol=1e-9)
    slope = jax.grad(
        lambda eta: (
            generate(
                jq.werner(fidelity=1.0),
                length=0.0,
                scheme="direct",
                detector_efficiency=eta,
                links=2,
            ).pairs_per_second
        )
    )
    # Half the time is spent on the second link: 1 / (3/2) pairs per microsecond of success.
    np.testing.assert_allclose(slope(0.0), 1e6 / 1.5, rtol=1e-12)


# --- Transformations, flags, refusals -------------------------------------------------------------


@pytest.mark.matrix
def test_hardware_broadcasts_to_supplies_of_one_shape(x64):
    supply = generate(
        jq.werner(fidelity=np.array([0.9, 0.95, 1.0])),
        length=np.array([[1e4], [2e4]]),
        links=2,
        t2=0.01,
        t1=0.02,
    )
    stages = [supply, purify(supply, rounds=1), jax.jit(jq.supply.hashed)(supply)]
    stages += [stock(supply, pairs=np.ones((4, 1, 1)), t2=0.1, t1=1.0)]
    for stage in stages:
        shape = (4, 2, 3) if stage is stages[-1] else (2, 3)
        assert stage.pair.correlation.shape == (*shape, 4, 4)
        for field in ("pairs_per_second", "raw_pairs_per_pair", "generation_prob"):
            assert getattr(stage, field).shape == shape
        assert stage.pair.clipped.shape == shape
        assert np.all(stage.pair.clipped == 0)
    one = generate(jq.werner(fidelity=0.95), length=2e4, links=2, t2=0.01, t1=0.02)
    for found, expected in zip(jax.tree.leaves(supply), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(found[1, 1], expected, rtol=1e-14, atol=1e-15)


def test_traced_hardware_out_of_domain_is_clipped_and_flagged():
    run = jax.jit(lambda h: jq.supply.generate(jq.werner(fidelity=0.9), links=2, **h))
    fine = {"length": 1e4, "detector_efficiency": 0.9, "t1": 1.0, "t2": 0.5, "modes": 1.0}
    assert float(run(fine).pair.clipped) == 0
    for name, wrong, edge in (
        ("length", -1.0, 0.0),
        ("detector_efficiency", 1.5, 1.0),
        ("modes", 0.0, 1.0),
        ("t2", 3.0, 2.0),
        ("t1", np.nan, 1e-9),
        ("length", np.nan, 0.0),
    ):
        found, expected = run(fine | {name: wrong}), run(fine | {name: edge})
        # A t1 that is moved to its least drags t2 along.
        assert float(found.pair.clipped) == (2 if name == "t1" else 1)
        np.testing.assert_allclose(found.pair.correlation, expected.pair.correlation, atol=1e-6)
        np.testing.assert_allclose(found.pairs_per_second, expected.pairs_per_second, rtol=1e-6)
    later = jax.jit(
        lambda time, n, g: jq.supply.purify(
            jq.supply.stock(
                supply_of(1.0, jq.supply.wait(jq.werner(fidelity=0.9), time=time)), pairs=n
            ),
            rounds=1,
            gate_error=g,
        )
    )
    assert float(later(-1.0, 0.5, 1.5).pair.clipped) == 3
    assert np.all(np.isfinite(jax.tree.leaves(later(np.nan, np.nan, np.nan))[0]))


PAIR = jq.werner(fidelity=0.9)
SUPPLY = jq.supply.Supply(PAIR, jnp.ones(()), jnp.ones(()), jnp.ones(()))


def make(**options):
    return lambda: jq.supply.generate(PAIR, **{"length": 1e4} | options)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: jq.supply.generate(0.9, length=1.0),
            TypeError,
            "`pair` must be a Pair, but got 0.9.",
        ),
        (make(links=0), ValueError, "`links` must be an integer of at least 1, but got 0."),
        (make(links=2.0), ValueError, "`links` must be an integer of at least 1, but got 2.0."),
        (make(links=True), ValueError, "`links` must be an integer"),
        (make(scheme="middle"), ValueError, "`scheme` must be one of 'midpoint', 'direct', but"),
        (make(length=-1.0), ValueError, "`length` must lie in [0, 1e+09], but got -1.0."),
        (make(length=INF), ValueError, "`length` must lie in"),
        (make(length="far"), TypeError, "`length` must be a real number"),
        (make(attenuation_length=0.0), ValueError, "`attenuation_length` must be at least 1"),
        (make(detector_efficiency=1.1), ValueError, "`detector_efficiency` must lie in [0, 1]"),
        (make(detector_efficiency=-0.1), ValueError, "`detector_efficiency` must lie in [0, 1]"),
        (make(modes=0), ValueError, "`modes` must lie in [1, 1e+09], but got 0."),
        (make(signal_speed=-2e8), ValueError, "`signal_speed` must be at least 1"),
        (make(cycle_time=0.0), ValueError, "`cycle_time` must lie in [1e-09, 1e+09]"),
        (make(t1=0.0), ValueError, "`t1` must be at least 1e-09, but got 0.0."),
        (make(t2=-1.0), ValueError, "`t2` must be at least 1e-09, but got -1.0."),
        (make(t1=1.0, t2=3.0), ValueError, "`t2` must be at most 2 t1 = 2.0, but got 3.0."),
        (make(t1=1.0), ValueError, "`t2` must be at most 2 t1 = 2.0, but got inf."),
        (make(gate_error=1.1), ValueError, "`gate_error` must lie in [0, 1]"),
        (make(readout_error=-0.1), ValueError, "`readout_error` must lie in [0, 1]"),
        (lambda: jq.supply.wait(SUPPLY, time=1.0), TypeError, "`pair` must be a Pair"),
        (lambda: jq.supply.wait(PAIR, time=-1.0), ValueError, "`time` must lie in [0, 1e+09]"),
        (lambda: jq.supply.wait(PAIR, time=INF), ValueError, "`time` must lie in [0, 1e+09]"),
        (
            lambda: jq.supply.wait(PAIR, time=1.0, t2=0),
            ValueError,
            "`t2` must be at least 1e-09, but",
        ),
        (lambda: jq.supply.stock(PAIR, pairs=1), TypeError, "`supply` must be a Supply"),
        (lambda: jq.supply.stock(SUPPLY, pairs=0), ValueError, "`pairs` must lie in [1, 1e+12]"),
        (
            lambda: jq.supply.stock(SUPPLY, pairs=1, t1=1, t2=3),
            ValueError,
            "`t2` must be at most 2 t1",
        ),
        (lambda: jq.supply.purify(PAIR, rounds=1), TypeError, "`supply` must be a Supply"),
        (
            lambda: jq.supply.purify(SUPPLY, rounds=-1),
            ValueError,
            "`rounds` must be an integer in [0, 32], but got -1.",
        ),
        (lambda: jq.supply.purify(SUPPLY, rounds=33), ValueError, "`rounds` must be an integer in"),
        (
            lambda: jq.supply.purify(SUPPLY, rounds=1, protocol="x"),
            ValueError,
            "`protocol` must be one of 'dejmps', 'bbpssw', but got 'x'.",
        ),
        (
            lambda: jq.supply.purify(SUPPLY, rounds=1, gate_error=2),
            ValueError,
            "`gate_error` must lie",
        ),
        (
            lambda: jq.supply.purify(SUPPLY, rounds=1, readout_error=2),
            ValueError,
            "`readout_error` must",
        ),
        (lambda: jq.supply.hashed(PAIR), TypeError, "`supply` must be a Supply"),
        (lambda: jq.supply.expected_slowest(0.0, 2), ValueError, "`prob` must lie in [1e-18, 1]"),
        (
            lambda: jq.supply.expected_slowest(0.5, 0),
            ValueError,
            "`count` must be an integer of at least",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
