"""CO2: published values, and the clip, the gap and the first round in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from outer_cases import EVERY, NODES, RATE, co2, trained
from refused import check_refusal

from jaxqring import outer

AXIS = "nodes"
INNER = optax.sgd(RATE)
ROUNDS = 4


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({"clip": None}, (1.282929431, 0.805290861)),
        ({"clip": None, "gap": 2.0}, (2.053703778, 0.268295430)),
        ({"clip": 0.5}, (3.5, -1.5)),
    ],
)
def test_it_has_the_published_values(x64, vmapped, options, wanted):
    loop = outer.co2(INNER, outer.exact(AXIS), every=EVERY, **options)
    history, state, replica = trained(loop, vmapped, ROUNDS * EVERY)
    np.testing.assert_allclose(state.slow, np.tile(wanted, (NODES, 1)), atol=1e-9)
    np.testing.assert_array_equal(replica, state.slow)
    gap, clip = options.get("gap", 1.0), options["clip"] or np.inf
    np.testing.assert_allclose(state.slow[0], co2(ROUNDS, gap=gap, clip=clip), atol=1e-12)
    # In the first round nodes go on from their own parameters, and later from the shared ones.
    history = np.asarray(history)
    assert (np.ptp(history[:, EVERY - 1], axis=0) > 0).all()
    assert (np.ptp(history[:, 2 * EVERY - 1], axis=0) == 0).all()
    assert state.share is None


def test_the_gap_may_be_a_function_of_two_rounds(x64, vmapped):
    def seen(now, before):
        return 2.0 + 0 * jnp.abs(now - before)  # a tree like the parameters

    loop = outer.co2(INNER, outer.exact(AXIS), every=EVERY, clip=None, gap=seen)
    _, state, _ = trained(loop, vmapped, ROUNDS * EVERY)
    np.testing.assert_allclose(state.slow[0], (2.053703778, 0.268295430), atol=1e-9)

    def grows(now, before):
        return 1.0 + jnp.sum((now - before) ** 2)

    loop = outer.co2(INNER, outer.exact(AXIS), every=EVERY, clip=None, gap=grows)
    _, state, _ = trained(loop, vmapped, 3 * EVERY)
    # After the second round x has moved by s = x_0 - bar; after the third by m / (1 + |s|^2).
    first = co2(2)
    before = co2(1)
    once, bar = co2(3), first - 0.5 * (before - first)
    change = bar - once  # (x - bar) of the third round
    moved = 0.5 * (before - first) + change / (1 + np.sum((first - before) ** 2))
    np.testing.assert_allclose(state.slow[0], first - moved, atol=1e-12)


def test_rates_that_diverge_are_warned_of():
    assert outer.largest_share("co2", 2.0, 0.5) == 0
    assert outer.radius("co2", 1e-3, 2.0, 0.5) > 1.4
    with pytest.warns(UserWarning, match="co2 .*learning_rate=2 .* unstable, however little"):
        outer.co2(INNER, outer.exact(AXIS), every=2, learning_rate=1.0, gap=0.5)


def test_numbers_out_of_range_are_refused():
    average = outer.exact(AXIS)
    for options, words in (
        ({"clip": 0.0}, ["`clip`", "0.0"]),
        ({"gap": -1.0}, ["`gap`", "-1.0"]),
        ({"momentum": 1.0}, ["`momentum`", "1.0"]),
    ):
        check_refusal(
            lambda options=options: outer.co2(INNER, average, every=2, **options), ValueError, words
        )
    check_refusal(
        lambda: outer.co2(INNER, average, every=2, clip=abs), TypeError, ["`clip`", "number"]
    )
