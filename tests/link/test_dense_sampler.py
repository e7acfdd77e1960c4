"""The dense sampler: its bits from a plain calculation, its law, and the programs it makes.

Every statistical test has a fixed key and states its sample size, the number of its comparisons
and the probability that one of them fails by chance, `CHANCE` a comparison unless it says
otherwise; see `symbol_counts`. There are fewer than 1,000 comparisons in all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from plain import plain_threefry
from programs import primitives
from scipy import stats
from symbol_counts import (
    CHANCE,
    assert_counts_agree,
    cipher,
    noise_table,
    random_words,
    stated,
    table_of,
)

import jaxqring as jq
from jaxqring._threefry import derive
from jaxqring.link import _error_sampler as sampling
from jaxqring.link._dense_sampler import through_all
from jaxqring.link._transport import count_symbol_errors

TOTALS = (1e-4, 1e-3, 0.024, 0.3)
EVEN = np.uint32(0x55555555)

# Compiled once for each shape.
dense = jax.jit(through_all)
sparse = jax.jit(sampling.through)


# --- The bits -------------------------------------------------------------------------------------


def plain_errors(key, words, table, envelope=None):
    """The errors in Python integers: symbol j of word w has a random word of its own."""
    errors = []
    for place, word in enumerate(map(int, words)):
        found = 0
        for symbol in range(16):
            drawn = plain_threefry(key, (place, symbol // 2))[symbol % 2]
            row = (word >> 2 * symbol) & 3 if len(table) == 4 else 0
            probs = [int(p * 2**32) for p in np.float64(table[row][1:])]
            often = probs if envelope is None else [int(p * 2**32) for p in envelope[row][1:]]
            for kind in (3, 2, 1):
                begin = sum(often[kind:])
                if begin <= drawn < begin + probs[kind - 1]:
                    found |= kind << 2 * symbol
        errors.append(found)
    return np.array(errors, np.uint32)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_bits_are_those_of_a_plain_calculation(rows):
    """Exact, on 150 words, with thresholds that are cut off to multiples of 2^-32."""
    table, words = noise_table(rows, 0.3), random_words(150, seed=1)
    pair = tuple(np.uint32(word) for word in (0x13198A2E, 0x03707344))
    expected = plain_errors(tuple(map(int, pair)), words, table)
    assert np.count_nonzero(expected) > 100
    np.testing.assert_array_equal(words ^ np.asarray(dense(pair, words, table)), expected)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_bits_of_coupled_links_are_those_of_a_plain_calculation(rows):
    table, words = noise_table(rows, 0.2), random_words(150, seed=2)
    envelope = np.maximum(table, noise_table(rows, 0.3)[::-1])
    pair = tuple(np.uint32(word) for word in (5, 6))
    expected = plain_errors((5, 6), words, table, envelope)
    found = words ^ np.asarray(dense(pair, words, table, envelope))
    np.testing.assert_array_equal(found, expected)


def test_the_first_words_of_a_longer_message_are_those_of_a_short_one():
    """The place of a word counts, and not the size of the message."""
    words, table = random_words(3000, seed=3), noise_table(4, 0.3)
    whole = np.asarray(dense(cipher(3), words, table))
    for size in (0, 1, 150, 1000):
        np.testing.assert_array_equal(dense(cipher(3), words[:size], table), whole[:size])


@pytest.mark.parametrize("rows", [1, 4])
def test_no_error_returns_the_words_and_a_certain_one_hits_all(rows):
    """4,194,304 symbols; thresholds stop at 2^32 - 1: more than five are missed with 1e-21."""
    words = random_words(seed=4)
    tables = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(dense(cipher(4), words, tables[[0] * rows]), words)
    for kind in (1, 2, 3):
        errors = dense(cipher(4), words, tables[[kind] * rows]) ^ words
        missed = errors ^ np.uint32(kind * 0x55555555)
        assert int(jnp.sum(count_symbol_errors(missed))) <= 5


# --- The law --------------------------------------------------------------------------------------


def are(words, kind):
    """Words of the even bits at which a symbol is of this kind."""
    low, high = words & EVEN, (words >> 1) & EVEN
    return (low if kind & 1 else ~low) & (high if kind & 2 else ~high) & EVEN


def kinds_of(words, places=EVEN):
    """(4,) uint32 how many symbols there are of each kind, at the even bits given."""
    kinds = jnp.stack([are(words, kind) & places for kind in range(4)])
    return jnp.sum(lax.population_count(kinds), axis=1, dtype=jnp.uint32)


def joint(one, other, places=EVEN):
    """(4, 4) uint32 how often symbols of one word meet those of the other."""
    return jnp.stack([kinds_of(other, are(one, kind) & places) for kind in range(4)])


jointly = jax.jit(joint)


@jax.jit  # of arrays in memory: fused with the sampler, every count would draw the errors again
def counts_of(words, errors):
    """Counts (4, 4): errors by symbol sent; pairs of neighbours in a word from an even place on,
    from an odd one on, and across words; and (16, 4) errors by place."""
    pairs = [
        joint(errors, errors >> 2, np.uint32(0x11111111)),
        joint(errors, errors >> 2, np.uint32(0x04444444)),
        joint(errors[:-1] >> 30, errors[1:], np.uint32(1)),
    ]
    shifts = 2 * jnp.arange(16, dtype=jnp.uint32)
    places = jax.vmap(lambda shift: kinds_of(errors >> shift, np.uint32(1)))(shifts)
    return joint(words, errors), jnp.stack(pairs), places


def counted(key, words, table, send=dense):
    return counts_of(words, send(key, words, table) ^ words)


def assert_the_law(table, counts):
    by_sent, pairs, places = (np.asarray(each, np.int64) for each in counts)
    probs = np.broadcast_to(stated(table), (4, 4))
    for symbol in range(4):
        assert_counts_agree(by_sent[symbol], probs[symbol])
    mean = probs.mean(0)
    for place in places:
        assert_counts_agree(place, mean)
    for pair in pairs:
        assert_counts_agree(pair, np.outer(mean, mean))


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("total", TOTALS)
def test_errors_have_their_rates_and_are_independent(rows, total):
    """4,194,304 symbols, 23 comparisons of counts: by symbol sent, by place, and of neighbours."""
    table = noise_table(rows, total)
    assert_the_law(table, counted(cipher(5), random_words(seed=5), table))


@pytest.mark.statistics
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("total", TOTALS)
def test_errors_have_their_rates_and_are_independent_at_a_hundred_times_the_size(rows, total):
    """419,430,400 symbols, otherwise as above."""
    table, counts = noise_table(rows, total), None
    for turn in range(100):
        found = counted(derive(cipher(6), turn), random_words(seed=turn), table)
        found = jax.tree.map(lambda each: np.asarray(each, np.int64), found)
        counts = found if counts is None else jax.tree.map(np.add, counts, found)
    assert_the_law(table, counts)


def assert_alike(one, other):
    """Two tables of counts of like things, of two laws that should be one."""
    both = np.stack([np.asarray(each, np.int64).ravel() for each in (one, other)])
    both = both[:, both.sum(axis=0) >= 2000]
    assert both.shape[1] > 1
    assert stats.chi2_contingency(both).pvalue > CHANCE


@pytest.mark.parametrize("total", [0.024, 0.3])
@pytest.mark.parametrize("rows", [1, 4])
def test_dense_and_sparse_agree_in_law(rows, total):
    """4,194,304 symbols each; a chi-square of errors by symbol sent, and three of neighbours."""
    table, words = noise_table(rows, total), random_words(seed=7)
    one = counted(cipher(7), words, table)
    other = counted(cipher(7), words, table, sparse)
    assert np.any(np.asarray(one[0]) != other[0])
    assert_alike(one[0], other[0])
    for pair in range(3):
        assert_alike(one[1][pair], other[1][pair])


def family(rows):
    """(2, S, 4) a quiet and a loud table that is nowhere below it; the loud one is the envelope."""
    loud = [[0.1, 0.05, 0.2], [0.2, 0.01, 0.3], [0.02, 0.0, 0.01], [0.01, 0.3, 0.1]][:rows]
    return np.stack([table_of(*(0.4 * np.array(loud))), table_of(*loud)])


def coupled(words, tables, send=dense):
    """The errors of two links that share their random words."""
    return [send(cipher(8), words, table, tables[1]) ^ words for table in tables]


@pytest.mark.parametrize("rows", [1, 4])
def test_coupled_links_share_their_errors_and_have_their_own_rates(rows):
    """Exact: an error of the quiet link is the same error on the loud one. 4,194,304 symbols:
    counts of errors by symbol sent; both links together against the sparse sampler."""
    tables, words = family(rows), random_words(seed=8)
    quiet, loud = coupled(words, tables)
    shared = np.asarray(jointly(quiet, loud))
    assert shared[1:, 1:].sum() == np.trace(shared[1:, 1:]) > 100_000
    assert not shared[1:, 0].any()
    for table, errors in zip(tables, (quiet, loud), strict=True):
        counts = np.asarray(jointly(words, errors))
        for symbol in range(4):
            assert_counts_agree(counts[symbol], np.broadcast_to(stated(table), (4, 4))[symbol])
    assert_alike(shared, jointly(*coupled(words, tables, sparse)))


def test_links_too_far_apart_to_share_errors_keep_their_own_probabilities():
    """An envelope that would fill more than all symbols is ignored; 4,194,304 symbols."""
    table, words = table_of([0.6, 0.1, 0.05]), random_words(seed=9)
    envelope = np.array([[0.0, 0.65, 0.6, 0.05]], np.float32)
    errors = dense(cipher(9), words, table, envelope) ^ words
    assert_counts_agree(kinds_of(errors), stated(table)[0])


# --- The programs ---------------------------------------------------------------------------------

LINKS = jq.superdense(jq.werner(fidelity=jnp.linspace(0.7, 0.999, 8)))


def sent(scramble, links, sampler="dense"):
    def send(words, matrices, key):
        def over(matrix, own):
            channel = jq.SymbolChannel(matrix)
            return jq.transmit(words, channel, own, scramble=scramble, sampler=sampler)

        if not links:
            return over(matrices[0], key)
        return jax.vmap(over)(matrices[:links], jax.random.split(key, links))

    return send


ARGUMENTS = (random_words(300, seed=10), LINKS.transition, jax.random.key(10))
FORBIDDEN = {"while", "log", "log1p", "sort", "gather"}


def refused(names):
    return {name for name in names if name in FORBIDDEN or name.startswith("scatter")}


@pytest.mark.parametrize("scramble", [True, False])
def test_no_program_of_a_dense_link_holds_a_while_loop_a_scatter_or_a_logarithm(scramble):
    """Nor a gather or a sort; on an accelerator it holds no loop at all, see below."""
    jaxpr = jax.make_jaxpr(sent(scramble, 0))(*ARGUMENTS).jaxpr
    assert not refused(primitives(jaxpr))
    keys = derive(cipher(0), jnp.arange(3))
    tables = np.stack([noise_table(1 if scramble else 4, total) for total in (0.1, 0.2, 0.3)])
    for envelope in ((), (tables,)):
        mapped = jax.vmap(through_all, in_axes=(0, None, 0, *[0] * len(envelope)))
        found = primitives(jax.make_jaxpr(mapped)(keys, ARGUMENTS[0], tables, *envelope).jaxpr)
        assert not refused(found)
        assert "shift_right_logical" in found
    assert {"while", "log"} <= primitives(
        jax.make_jaxpr(sent(scramble, 0, "sparse"))(*ARGUMENTS).jaxpr
    )


def lowered(sampler, platform):
    traced = jax.jit(sent(True, 3, sampler)).trace(*ARGUMENTS)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_auto_is_dense_in_programs_for_an_accelerator_and_sparse_in_those_for_a_cpu():
    for platform in ("cuda", "tpu"):
        for sampler in ("auto", "dense"):
            text = lowered(sampler, platform)
            assert not any(f"stablehlo.{name}" in text for name in ("while", "scatter", "log"))
        assert "stablehlo.while" in lowered("sparse", platform)
    assert "stablehlo.while" in lowered("auto", "cpu")
    words, matrices, key = ARGUMENTS
    auto, same, other = (
        sent(True, 0, sampler)(words, matrices, key) for sampler in ("auto", "sparse", "dense")
    )
    np.testing.assert_array_equal(auto, same)
    assert np.any(auto != other)


@pytest.mark.parametrize("scramble", [True, False])
def test_the_same_key_gives_the_same_bits_however_it_is_called(scramble):
    """With and without jit, for 1, 3 and 8 links side by side, and for seeds in a batch."""
    words, matrices, _ = ARGUMENTS
    keys = jax.random.split(jax.random.key(11), 8)

    def one(matrix, key):
        channel = jq.SymbolChannel(matrix)
        return jq.transmit(words, channel, key, scramble=scramble, sampler="dense")

    alone = jax.jit(one)
    single = np.stack([alone(*own) for own in zip(matrices, keys, strict=True)])
    assert len(np.unique(single, axis=0)) == 8
    np.testing.assert_array_equal(one(matrices[2], keys[2]), single[2])
    for links in (1, 3, 8):
        mapped = jax.jit(jax.vmap(one))(matrices[:links], keys[:links])
        np.testing.assert_array_equal(mapped, single[:links])
    seeds = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(matrices, keys)
    np.testing.assert_array_equal(seeds[np.arange(8), np.arange(8)], single)


def test_another_sampler_is_refused():
    words, _, key = ARGUMENTS
    link = jq.superdense(jq.werner(fidelity=0.9))
    with pytest.raises(ValueError, match=r"`sampler` must be one of .*'sparse'"):
        jq.transmit(words, link, key, sampler="fast")
