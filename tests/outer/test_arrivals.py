"""Arrivals at a server against a clock that ticks, and what their messages carry."""

import numpy as np
import pytest

from jaxqring.outer import Arrivals, arrival_bits, arrivals, dylu

SPEEDS = (1.0, 0.75, 0.25, 0.75)


def by_a_clock(speeds, steps, count):
    """The arrivals, found by looking at every moment of a clock that is fine enough for them."""
    rows, copies, seen = [], [0] * len(speeds), [0] * len(speeds)
    for tick in range(1, 10**5):
        for node, (speed, own) in enumerate(zip(speeds, steps, strict=True)):
            if int(tick * speed / 12 + 1e-9) // own > seen[node]:
                seen[node] += 1
                rows.append((node, own, copies[node], tick / 12))
                copies[node] = len(rows)
                if len(rows) == count:
                    return list(zip(*rows, strict=True))
    raise AssertionError


@pytest.mark.parametrize("adapted", [False, True])
def test_the_order_is_that_of_a_clock(adapted):
    steps = (8, 6, 2, 6) if adapted else (8,) * 4
    wanted = by_a_clock(SPEEDS, steps, 40)
    found = arrivals(SPEEDS, 8, 40, dylu_steps=adapted)
    assert found.num_nodes == 4
    for have, want in zip((found.node, found.steps, found.version), wanted[:3], strict=True):
        assert have.tolist() == list(want)
    np.testing.assert_allclose(found.time, wanted[3], rtol=1e-15)
    # With steps in proportion to speeds all arrive once in every turn, in order.
    if adapted:
        assert found.node.reshape(10, 4).tolist() == [[0, 1, 2, 3]] * 10
        assert (np.arange(4, 40) - found.version[4:]).max() == 3


def test_steps_in_proportion_to_speeds_are_the_known_ones_and_decimal():
    assert dylu((1.0, 0.7, 0.33), 50) == (50, 35, 16)
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert dylu((1.0, 0.29, 0.001), 100) == (100, 29, 1)


def test_an_arrival_crosses_every_link_of_a_one_way_ring_once():
    size, bits, num_nodes, server = 10, 4, 8, 3
    for two_way, mean in ((False, 4.0), (True, 16 / 7)):
        total = []
        for node in range(num_nodes):
            links = np.zeros(num_nodes)
            for start, end in ((node, server), (server, node)):
                forward = (end - start) % num_nodes
                ways = [[(start + k) % num_nodes for k in range(forward)]]
                if two_way:
                    ways.append([(start - k - 1) % num_nodes for k in range(-forward % num_nodes)])
                links[min(ways, key=len)] += size * bits
            total.append(links.sum())
            if node != server and not two_way:
                assert (links == size * bits).all()
        found = arrival_bits(
            size, num_nodes=num_nodes, node=range(8), server=server, bits=bits, two_way=two_way
        )
        assert found.tolist() == total
        assert found.sum() / 7 / 2 / (size * bits) == pytest.approx(mean)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: arrivals((), 5, 3), "`speeds` must hold one number for each node, but got ()."),
        (lambda: arrivals((1.0, 0.0), 5, 3), "`speeds` must lie in"),
        (lambda: arrivals((1.0,), 0, 3), "`steps` must be an integer of at least 1, but got 0."),
        (lambda: arrivals((1.0,), 5, 2.0), "`count` must be an integer of at least 1"),
        (lambda: arrivals((1.0,), 5, 2, dylu_steps=1.5), "`dylu_steps` must be one of True, False"),
        (lambda: Arrivals(2, *np.array([[0, 2], [5, 5], [0, 0], [1, 1]])), "`node` must hold"),
        (lambda: Arrivals(2, *np.array([[0, 1], [5, 0], [0, 0], [1, 1]])), "`steps` must hold"),
        (
            lambda: Arrivals(2, *np.array([[0, 0], [5, 5], [0, 0], [1, 1]])),
            "`version` must be those",
        ),
        (lambda: arrival_bits(5, num_nodes=4, node=4), "`node` must hold integers in"),
        (lambda: arrival_bits(5, num_nodes=4, node=1, server=4), "`server` must be an integer in"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises((ValueError, TypeError)) as found:
        call()
    assert str(found.value).startswith(sentence)
    assert str(found.value).endswith(".")
