"""The majority of repeated symbols beside all orders in which they can arrive, and sampled."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refused import check_refusal

import jaxqring as jq
from jaxqring.control import relay, repetitions_for, symbol_error, word_error
from jaxqring.link._transport import count_symbol_errors

UNEVEN = np.array([0.85, 0.08, 0.05, 0.02])


def link_of(patterns):
    """The link whose errors are XORs with a pattern, of these probabilities."""
    return jq.SymbolChannel(
        jnp.asarray(np.array([[patterns[r ^ m] for m in range(4)] for r in range(4)]))
    )


def even(error):
    return link_of([1 - error, *[error / 3] * 3])


def winner_law(patterns, repetitions):
    """(4,) the law of the winner of a vote, the first to arrive of those with most copies."""
    law = np.zeros(4)
    for arrived in itertools.product(range(4), repeat=repetitions):
        most = max(arrived.count(symbol) for symbol in arrived)
        winner = next(symbol for symbol in arrived if arrived.count(symbol) == most)
        law[winner] += np.prod(np.asarray(patterns)[list(arrived)])
    return law


@pytest.mark.parametrize(
    "patterns", [UNEVEN, [0.99, 0.01 / 3, 0.01 / 3, 0.01 / 3], [0.3, 0.4, 0.2, 0.1]]
)
def test_the_error_of_a_vote_is_that_of_all_orders(patterns):
    for repetitions in (1, 2, 3, 4, 6):
        want = winner_law(patterns, repetitions)[1:].sum()
        found = float(symbol_error(link_of(patterns), repetitions))
        assert found == pytest.approx(want, rel=2e-5, abs=1e-9), repetitions


def test_four_symbols_over_fourteen_hops():
    found = [float(word_error(even(0.01), r, 14)) for r in (1, 3, 5, 7)]
    assert found[0] == pytest.approx(1 - 0.99**56, abs=1e-6)
    three = 1 - (1 - winner_law([0.99, *[0.01 / 3] * 3], 3)[1:].sum()) ** 56
    assert found[1] == pytest.approx(three, abs=1e-7)
    np.testing.assert_allclose(found, [0.4304, 0.01291, 2.467e-4, 3.62e-6], rtol=1e-3)
    assert float(word_error(even(0.01), 1, 7, symbols=2)) == pytest.approx(1 - 0.99**14, abs=1e-6)


def test_a_link_that_is_always_wrong_has_words_that_are():
    def wrong(error):
        patterns = jnp.stack([1 - error, *[error / 3] * 3])
        table = jnp.stack([patterns[np.arange(4) ^ m] for m in range(4)])
        return word_error(jq.SymbolChannel(table), 3, 2)

    value, slope = jax.jit(jax.value_and_grad(wrong))(1.0)
    assert (float(value), float(slope)) == (1, 0)  # 1 - (1 - e)^8


def test_erased_symbols_are_guesses_and_a_batch_of_links_has_a_batch_of_errors():
    lost = jnp.concatenate([0.9 * even(0.05).transition, jnp.full((1, 4), 0.1)])
    want = winner_law([0.9 * 0.95 + 0.025, *[0.9 * 0.05 / 3 + 0.025] * 3], 3)[1:].sum()
    assert float(symbol_error(jq.SymbolChannel(lost), 3)) == pytest.approx(want, rel=1e-5)
    both = jq.SymbolChannel(jnp.stack([even(0.1).transition, even(0.2).transition]))
    singly = [float(symbol_error(even(error), 3)) for error in (0.1, 0.2)]
    np.testing.assert_allclose(symbol_error(both, 3), singly, rtol=1e-6)


def test_the_derivative_by_the_link_is_that_of_the_polynomial():
    def wrong(error):
        patterns = jnp.stack([1 - error, *[error / 3] * 3])
        table = jnp.stack([patterns[np.arange(4) ^ m] for m in range(4)])
        return symbol_error(jq.SymbolChannel(table), 3)

    # 7/9 of the votes with two wrong copies are lost, and all with three.
    slope = jax.jit(jax.grad(wrong))
    for error in (0.0, 0.01, 0.3):
        want = 3 * 7 / 9 * (2 * error - 3 * error**2) + 3 * error**2
        assert float(slope(error)) == pytest.approx(want, abs=1e-6)


def test_the_fewest_repetitions_reach_the_target():
    law = [winner_law([0.99, *[0.01 / 3] * 3], r) for r in range(1, 7)]
    wrong = [1 - (1 - each[1:].sum()) ** 56 for each in law]
    for target, want in ((0.5, 1), (0.02, 3), (1e-3, 5), (2e-4, 6)):
        assert next(r for r in range(1, 7) if wrong[r - 1] <= target) == want
        assert repetitions_for(target, even(0.01), 14) == want


def test_sampled_words_are_wrong_as_often_as_the_vote():
    """320,000 symbols over two hops: beyond 5.5 standard deviations with a chance of 4e-8."""
    words = jax.random.bits(jax.random.key(3), (20_000,), jnp.uint32)
    law = winner_law(UNEVEN, 3)
    walked = np.eye(4)[0]
    for _ in range(2):
        walked = np.array([sum(walked[a] * law[a ^ e] for a in range(4)) for e in range(4)])
    found = relay(words, link_of(UNEVEN), jax.random.key(8), repetitions=3, hops=2)
    wrong, want = int(jnp.sum(count_symbol_errors(found ^ words))), walked[1:].sum()
    assert abs(wrong - 320_000 * want) < 5.5 * np.sqrt(320_000 * want * (1 - want))


def test_words_are_spoilt_somewhere_on_their_way_as_often_as_they_should():
    """40,000 words over 14 hops: beyond 5.5 standard deviations with a chance of 4e-8."""
    words, key = jnp.zeros(10_000, jnp.uint32), jax.random.key(5)
    one_hop = jax.jit(lambda key: relay(words, even(0.01), key, repetitions=3, hops=1))
    spoilt = np.zeros((10_000, 4), bool)
    for hop in range(14):
        errors = np.asarray(one_hop(jax.random.fold_in(key, hop)))
        spoilt |= errors[:, None] >> np.arange(0, 32, 8, dtype=np.uint32) & 0xFF > 0
    want = float(word_error(even(0.01), 3, 14))
    assert abs(spoilt.sum() - 40_000 * want) < 5.5 * np.sqrt(40_000 * want * (1 - want))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: symbol_error(even(0.01), 0), ValueError, ["`repetitions`", "0"]),
        (lambda: symbol_error(even(0.01), 33), ValueError, ["`repetitions`", "33"]),
        (lambda: symbol_error(0.01, 3), TypeError, ["`channel`", "SymbolChannel"]),
        (lambda: word_error(even(0.01), 3, 0), ValueError, ["`hops`", "0"]),
        (lambda: word_error(even(0.01), 3, 1, symbols=0), ValueError, ["`symbols`", "0"]),
        (lambda: repetitions_for(0.0, even(0.01), 1), ValueError, ["`target`", "(0, 1)"]),
        (lambda: repetitions_for(0.1, even(0.75), 14), ValueError, ["`target`", "in reach", "0.1"]),
        (
            lambda: relay(np.arange(4), even(0.01), jax.random.key(0), repetitions=3, hops=1),
            TypeError,
            ["`words`", "uint32"],
        ),
        (
            lambda: relay(jnp.zeros((2, 2), jnp.uint32), even(0.01), None, repetitions=3, hops=1),
            ValueError,
            ["`words`", "one axis"],
        ),
    ],
)
def test_numbers_out_of_range_are_refused(call, error, words):
    check_refusal(call, error, words)
