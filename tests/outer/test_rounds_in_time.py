"""The seconds of a round against simulated pairs in numpy, and against the budget of a collective.

The statistical tests fix their seeds and allow six standard errors, so that each of their
comparisons fails by chance less often than once in 10^8.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring.codes import IdealCode
from jaxqring.economics import budget
from jaxqring.outer import round_time
from jaxqring.supply import Supply

RING = jq.Ring(protection=IdealCode())
NODES, SIZE = 4, 100
BITS = 2 * 3 * 25 * 16


def supply(fidelity=0.95, rate=1e4):
    one = jnp.ones(())
    return Supply(jq.werner(fidelity=fidelity), rate * one, one, one)


@jax.jit
def found_of(fidelity, rate, every, step_time, overlap, slots, t1, t2):
    return round_time(
        RING,
        SIZE,
        NODES,
        supply(fidelity, rate),
        every=every,
        step_time=step_time,
        overlap=overlap,
        slots=slots,
        t1=t1,
        t2=t2,
        qubit_rate=1e6,
        latency=1e-3,
    )


def found(fidelity=0.95, rate=1e4, every=10.0, overlap=0.0, slots=1e6, t1=1e9, t2=1e9):
    return found_of(fidelity, rate, every, 0.01, overlap, slots, t1, t2)


def capacity(fidelity, age, t2):
    """Bits per qubit of a Werner pair that has waited, and its fidelity."""
    weight, decay = (4 * fidelity - 1) / 3, np.exp(-2 * np.asarray(age) / t2)
    corners = (1 + weight) / 4, (1 - weight) / 4
    bell = np.stack(
        [
            corners[0] + weight * decay / 2,
            corners[0] - weight * decay / 2,
            *[corners[1] + 0 * decay] * 2,
        ]
    )
    return 2 + np.sum(bell * np.log2(bell), axis=0), bell[0]


def simulated(rng, fidelity, rate, idle, slots, t2):
    """Qubits from the stock, their fidelity in sum, bits that they carry, and the oldest age."""
    times = np.cumsum(rng.exponential(1 / rate, int(rate * idle + 10 * np.sqrt(rate * idle) + 50)))
    memories = times[times < idle][-slots:]  # a new pair takes the place of the oldest
    ages = np.sort(idle - memories)
    bits, fidelities = capacity(fidelity, ages, t2)
    total = np.cumsum(bits)
    used = int(np.searchsorted(total, BITS)) + 1
    if used > len(ages):
        return len(ages), fidelities.sum(), bits.sum(), ages[-1]
    return used, fidelities[:used].sum(), BITS, ages[used - 1]


@pytest.mark.parametrize(
    "rate, idle, slots, t2",
    [
        (1e4, 0.1, 10**6, 0.5),  # fewer pairs than needed
        (1e4, 1.0, 700, 0.2),  # fewer memories than needed
        (1e4, 2.0, 10**6, 0.5),  # enough of both
    ],
)
def test_a_round_is_that_of_simulated_pairs(rate, idle, slots, t2):
    # 600 rounds; four comparisons in each case, the need of whole pairs allowed for.
    rng = np.random.default_rng(3)
    rounds = np.array([simulated(rng, 0.95, rate, idle, slots, t2) for _ in range(600)])
    used, fidelity, carried, oldest = rounds.T
    fresh = (BITS - carried) / capacity(0.95, 0, t2)[0]
    have = found(rate=rate, every=idle / 0.01, slots=slots, t2=t2)
    for samples, expected, unit in (
        (used, have.stocked, 1.0),
        (fresh, have.fresh, 0.0),
        (oldest, have.oldest, 2 / rate),
    ):
        error = samples.std() / np.sqrt(len(samples))
        assert abs(samples.mean() - float(expected)) <= 6 * error + unit + 1e-4 * float(expected)
    mean = float(have.stocked_fidelity)
    error = np.std(fidelity - mean * used) / np.sqrt(len(used))
    assert abs(np.mean(fidelity - mean * used)) <= 6 * error + 1e-4 * used.mean()
    busy = 6e-3 + float(have.online_qubits) / 1e6 + float(have.fresh) / rate
    assert float(have.seconds) == pytest.approx(busy, rel=1e-5)
    assert float(have.period) == pytest.approx(idle + busy, rel=1e-5)


def test_pairs_that_keep_are_the_budget_of_a_collective_after_as_much_computation():
    every = np.array([1.0, 10.0, 1000.0])
    have = found(every=every)
    ring = jq.Ring(jq.superdense(jq.werner(fidelity=0.95)), protection=IdealCode())
    times = {"qubit_rate": 1e6, "latency": 1e-3, "compute_time": every * 0.01}
    want = budget(ring, SIZE, NODES, supply(), **times)
    np.testing.assert_allclose(have.seconds, want.seconds, rtol=1e-5)
    np.testing.assert_allclose(have.online_qubits, want.online_qubits, rtol=1e-5)
    np.testing.assert_allclose(have.fidelity, 0.95, rtol=1e-6)
    np.testing.assert_allclose(have.bits, BITS)
    np.testing.assert_allclose(have.steps_per_second, every / have.period, rtol=1e-6)
    np.testing.assert_allclose(have.bits_per_second, BITS / have.period, rtol=1e-6)


def test_a_hidden_round_waits_for_what_the_inner_steps_do_not_hide():
    every, t2 = 10.0, 0.05
    waiting = found(every=every, t2=t2)
    hidden = found(every=every, overlap=every, t2=t2)
    # All its pairs are fresh, and they take their time.
    assert float(hidden.stocked) == 0
    assert float(hidden.fidelity) == pytest.approx(0.95)
    seconds = 6e-3 + float(hidden.fresh) * (1e-6 + 1e-4)
    assert float(hidden.seconds) == pytest.approx(seconds, rel=1e-5)
    assert float(hidden.period) == pytest.approx(max(0.1, seconds), rel=1e-5)
    assert float(waiting.late) == float(waiting.seconds)
    # Behind enough steps it takes no time at all.
    assert float(found(every=1000.0, overlap=1000.0).period) == pytest.approx(10.0, rel=1e-6)
    # A few steps hide a few hundredths of a second.
    some = found(every=every, overlap=3.0)
    assert float(some.late) == pytest.approx(float(some.seconds) - 0.03, rel=1e-5)
    assert float(some.stocked) == pytest.approx(700, rel=1e-5)


def test_stale_pairs_are_not_used_and_no_pairs_take_for_ever():
    short, long = (found(every=1000.0, t1=life, t2=life) for life in (1e-3, 1.0))
    assert 1e-3 < float(short.oldest) < 0.01 < float(long.oldest)
    assert float(short.period) > float(long.period)
    # Pairs of which only the parity is left still carry a classical bit, and are used.
    assert float(found(every=1000.0, t2=1e-3).stocked_fidelity) < 0.5
    assert np.isinf(float(found(rate=0.0).period))
    # Below the threshold of the code nothing arrives.
    assert np.isinf(float(found(fidelity=0.25).period))
    assert not any(bool(jnp.isnan(field)) for field in found(fidelity=0.25, rate=0.0))


def test_derivatives_are_those_of_differences():
    def value(x, every, overlap):
        have = found(x[0], x[1], every, overlap, 1e6, 1e9, x[2])
        numbers = jnp.stack([have.period, have.fidelity])
        return numbers, numbers

    both = jax.jit(jax.jacrev(value, has_aux=True))
    with jax.enable_x64(True):
        at = jnp.array([0.95, 1e4, 0.5])
        # With fewer pairs than needed, with more, and with hidden rounds.
        for every, overlap in ((5.0, 0.0), (100.0, 0.0), (5.0, 5.0)):
            slope, _ = both(at, every, overlap)
            for index in range(3):
                step = jnp.zeros(3).at[index].set(1e-4 * at[index])
                ends = [both(at + sign * step, every, overlap)[1] for sign in (1, -1)]
                wanted = (ends[0] - ends[1]) / (2e-4 * at[index])
                np.testing.assert_allclose(slope[:, index], wanted, rtol=2e-3, atol=1e-9)
        assert float(both(at, 5.0, 0.0)[0][0, 2]) < 0


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"size": 0}, "`size` must be an integer of at least 1, but got 0."),
        ({"nodes": 1}, "`nodes` must be an integer of at least 2, but got 1."),
        ({"every": 0.5}, "`every` must lie in [1, 1e+12], but got 0.5."),
        ({"overlap": 11}, "`overlap` must be at most `every`, but got"),
        ({"t2": 0.0}, "`t2` must"),
        ({"slots": -1}, "`slots` must lie in [0, 1e+12], but got -1."),
        ({"ring": jq.Ring()}, "`ring.protection` must protect every symbol"),
        (
            {"ring": jq.Ring(jq.superdense(jq.werner(fidelity=1.0)), protection=IdealCode())},
            "`ring.channel` must be None, as `link` makes it of the pairs",
        ),
    ],
)
def test_refusals(changed, sentence):
    given = {"ring": RING, "size": SIZE, "nodes": 4, "every": 10, "step_time": 0.01} | changed
    ring, size, nodes = (given.pop(name) for name in ("ring", "size", "nodes"))
    with pytest.raises((ValueError, TypeError)) as found:
        round_time(ring, size, nodes, supply(), **given)
    assert str(found.value).startswith(sentence)
    assert str(found.value).endswith(".")
