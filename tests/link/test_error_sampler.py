"""The sampler of symbol errors: its split of probabilities, its spacings, and the errors drawn.

Every statistical test has a fixed key and states its sample size, the number of its comparisons
and the probability that one of them fails by chance, `CHANCE` a comparison unless it says
otherwise; see `symbol_counts`. There are fewer than 2,000 comparisons in all.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec
from symbol_counts import (
    SHARES,
    WORDS,
    assert_binomial,
    assert_counts_agree,
    cipher,
    noise_table,
    random_words,
    stated,
    symbols,
    table_of,
)

import jaxqring as jq
from jaxqring._threefry import cipher_key, derive
from jaxqring.link import _error_sampler as sampling

SYMBOLS = 16 * WORDS
# Without a coarse part, near where it begins to pay, and with one; 1.0 without one again.
TOTALS = (1e-4, 1e-3, 0.01, 0.024, 0.026, 0.1, 0.3, 0.75, 1.0)
FEW = sampling.FEW_WORDS  # up to here there is a random word for each symbol

further = functools.partial(pytest.param, marks=pytest.mark.matrix)

# Compiled once for each shape.
through = jax.jit(sampling.through)
split_all = jax.jit(jax.vmap(sampling.split))


# --- The split of the probabilities ---------------------------------------------------------------


def sparse_tables(rows, count, rng):
    """Log-uniform rates: of one kind alone, from 1e-7 to 0.75, or of all three up to 0.25."""

    def log_uniform(high, shape):
        return np.exp(rng.uniform(np.log(1e-7), np.log(high), shape))

    alone = np.eye(3)[rng.integers(0, 3, (count, rows))] * log_uniform(0.75, (count, rows, 1))
    return np.concatenate([alone, log_uniform(0.25, (count, rows, 3))])


def dense_tables(rows, count, rng):
    total = rng.uniform(0, 0.75, (count, rows, 1))
    return total * rng.dirichlet(np.ones(3), (count, rows))


def dyadic_tables(rows, count, rng):
    """Multiples of 1/256, with sums up to one; the first is no error."""
    cuts = np.sort(rng.integers(0, 257, (count, rows, 3)), axis=2)
    cuts[0] = 0
    return np.diff(cuts, axis=2, prepend=0) / 256


def certain_tables(rows, count, rng):
    """Rows of which the first has no right symbols, with other rows of any noise."""
    tables = sparse_tables(rows, (count + 1) // 2, rng)[:count]
    tables[:, 0] = rng.dirichlet(np.ones(3), count)
    tables[::2] = rng.dirichlet(np.ones(3), (len(tables[::2]), rows))
    return tables


FAMILIES = {
    "sparse": sparse_tables,
    "dense": dense_tables,
    "dyadic": dyadic_tables,
    "certain": certain_tables,
}


@functools.cache
def splits(rows, family):
    """Errors (4000, S, 3), rounded to float32, and their split."""
    count = 2000 if family == "sparse" else 4000
    errors = FAMILIES[family](rows, count, np.random.default_rng(11)).astype(np.float32)
    return errors.astype(np.float64), split_of(errors)


def split_of(errors):
    """The split of N <= 4000 tables of errors (N, S, 3), compiled once for each S."""
    tables = np.zeros((4000, errors.shape[1], 4), np.float32)
    tables[: len(errors), :, 1:] = errors
    tables[..., 0] = 1 - tables[..., 1:].sum(2)
    parts = split_all(jnp.asarray(tables))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(errors)], parts)


def implied(parts):
    """(N, S, 3) probabilities of the errors that a split is drawn with."""
    rate = parts.rate.astype(np.float64)[:, None, None]
    above = np.concatenate([parts.above, np.zeros_like(parts.above[..., :1])], 2)
    kinds = (above[..., :-1].astype(np.float64) - above[..., 1:]) / 2.0**32
    return (1 - rate) * parts.multiples / 256 + rate * kinds


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    "family",
    [
        "sparse",
        "dense",
        "dyadic",
    ],
)
def test_the_split_adds_up_to_the_probabilities(family, rows):
    errors, parts = splits(rows, family)
    np.testing.assert_allclose(implied(parts), errors, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_split_of_rare_errors_adds_up_to_them(rows):
    """To 2^-22 of what is drawn again, which is the rounding of the kinds in it."""
    errors, parts = splits(rows, "sparse")
    off = np.abs(implied(parts) - errors) - 1e-6 * errors
    assert np.all(off <= 2.0**-22 * parts.rate[:, None, None] + 1e-12)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_split_of_certain_errors_adds_up_to_them(rows):
    """Without right symbols the float32 errors need not add up to one: 1e-6 of all symbols."""
    errors, parts = splits(rows, "certain")
    np.testing.assert_allclose(implied(parts), errors, rtol=0, atol=1e-6)
    found = 1 - implied(parts)[:, 0].sum(1)
    np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_split_are_probabilities(family, rows):
    errors, parts = splits(rows, family)
    assert np.all((parts.rate >= 0) & (parts.rate <= 1))
    assert np.all(parts.multiples.sum(2) <= 256)
    assert np.all(np.diff(parts.above.astype(np.int64), axis=2) <= 0)
    assert np.all(parts.multiples[~parts.is_coarse] == 0)
    # A coarse part takes what it costs off the sparse one, at least 1/40 of the symbols.
    saved = errors.sum(2).max(1) - parts.rate
    assert np.all(saved[parts.is_coarse] > 0.0249)
    assert np.all(saved[~parts.is_coarse] < 1e-6)
    # The tables are on both sides; only certain errors are all drawn again.
    assert parts.is_coarse.any() == (family != "certain")
    if family in ("sparse", "certain"):
        assert not parts.is_coarse.all()


def test_multiples_of_one_in_256_are_all_coarse():
    """Exact. Where the coarse part pays, nothing is left to draw again."""
    for rows in (1, 4):
        errors, parts = splits(rows, "dyadic")
        np.testing.assert_array_equal(parts.is_coarse, errors.sum(2).max(1) > 1 / 40)
        assert np.all(parts.rate[parts.is_coarse] == 0)
        np.testing.assert_array_equal(
            parts.multiples[parts.is_coarse] / 256, errors[parts.is_coarse]
        )


def test_no_error_is_split_into_nothing():
    for rows in (1, 4):
        _, parts = splits(rows, "dyadic")
        assert not parts.is_coarse[0]
        assert parts.rate[0] == 0
        assert not parts.multiples[0].any()
        assert not parts.above[0].any()


def test_rounding_below_zero_and_above_one_is_cut_off():
    """A channel may be off by 1e-9 or so; as if it were not."""
    off = np.array([[[-1e-9, 0.1, -1e-12]], [[1 + 1e-6, 0.0, 0.0]]])
    found = implied(split_of(off))
    np.testing.assert_allclose(found[0, 0], [0, 0.1, 0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found[1, 0], [1, 0, 0], atol=1e-9)


def test_thresholds_of_kinds_differ_by_their_probabilities():
    """Exact up to 2^-32 and the rounding of a float32, for one kind to four."""
    rng = np.random.default_rng(12)
    thresholds = jax.jit(sampling.kind_thresholds)
    for kinds in (1, 3, 4):
        probs = rng.dirichlet(np.ones(kinds + 1), 500)[:, :kinds] * 10.0 ** -rng.integers(
            0, 9, (500, 1)
        )
        probs = probs.astype(np.float32)
        above = np.asarray(thresholds(probs))
        assert above.dtype == np.uint32
        above = np.concatenate([above, np.zeros((500, 1), np.uint32)], 1).astype(np.float64)
        np.testing.assert_allclose(
            (above[:, :-1] - above[:, 1:]) / 2**32, probs, rtol=1e-7, atol=2.0**-32
        )


# --- The spacings ---------------------------------------------------------------------------------

RATES = (1e-7, 1e-5, 1e-3, 0.01, 0.1, 0.5, 0.75, 1.0)
STRIDE = 2**9
EDGE = 2**16
STRETCH = 2**22


@jax.jit
def sums_of_spacings(number, rate):
    """Sums of 128 spacings, which fit 32 bits, for (N,) of the 2^31 numbers of random words."""
    spacing = sampling.spacings(
        number.astype(jnp.uint32) << 1, sampling.spacing_factor(rate), STRETCH
    )
    return jnp.sum(spacing.reshape(-1, 128).astype(jnp.uint32), axis=1)


def mean_spacing(rate):
    """Of min(G, cap) for a geometric G and the cap in the code: a spacing as long as a stretch
    leads out of any, however long it is."""
    rate = np.float64(rate)
    if rate == 1:
        return 1.0
    return -np.expm1((STRETCH + 1) * np.log1p(-rate)) / rate


@pytest.mark.parametrize("rate", RATES)
def test_spacings_have_the_mean_of_the_rate(rate):
    """Enumerates the 2^16 smallest and largest of the 2^31 uniforms (k + 0.5) / 2^31 and every
    2^9-th of the others. Spacings fall with k, so that this moves the mean by at most 2^9 / 2^31 of
    the largest spacing counted that way, ln(2^15) / rate: 2.5e-6 of the mean (3.1e-6 of that of
    capped spacings)."""
    rate = np.float32(rate)
    edges = np.r_[np.arange(EDGE), 2**31 - EDGE + np.arange(EDGE)].astype(np.int32)
    inner = np.arange(EDGE + STRIDE // 2, 2**31 - EDGE, STRIDE).astype(np.int32)
    count = len(inner)
    assert 2 * EDGE + count * STRIDE == 2**31
    inner = np.pad(inner, (0, -count % STRETCH), constant_values=2**31 - 1)
    total = np.asarray(sums_of_spacings(edges, rate), np.float64).sum()
    total += STRIDE * np.asarray(sums_of_spacings(inner, rate), np.float64)[: count // 128].sum()
    assert total / 2**31 == pytest.approx(mean_spacing(rate), rel=1e-5)


@pytest.mark.matrix
@pytest.mark.parametrize("rate", RATES)
def test_all_spacings_have_the_mean_of_the_rate(rate):
    """Exact: all 2^31 uniforms. The docstring of the module says 1e-6."""
    rate, total = np.float32(rate), 0.0
    chunk = np.arange(STRETCH, dtype=np.int32)
    for start in range(0, 2**31, STRETCH):
        total += np.asarray(sums_of_spacings(chunk + np.int32(start), rate), np.float64).sum()
    assert total / 2**31 == pytest.approx(mean_spacing(rate), rel=1e-6)


# --- What comes out -------------------------------------------------------------------------------


@functools.cache
def sampled(rows, total, seed=1):
    """(SYMBOLS,) symbols sent and errors on them."""
    sent = random_words(seed=seed)
    received = np.asarray(through(cipher(seed), sent, noise_table(rows, total)))
    return symbols(sent), symbols(sent ^ received)


def test_the_noise_levels_of_these_tests_are_on_both_sides_of_the_coarse_part():
    for rows in (1, 4):
        parts = split_of(np.stack([noise_table(rows, total)[:, 1:] for total in TOTALS]))
        np.testing.assert_array_equal(parts.is_coarse, np.isin(TOTALS, (0.1, 0.3, 0.75)))
        # Both parts are at work where there are two, and at 1.0 there is one.
        assert np.all((parts.rate > 1e-3) == (np.array(TOTALS) > 1e-3))
        assert parts.rate[-1] == 1


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("total", TOTALS)
def test_errors_of_each_kind_have_their_rates_for_each_symbol_sent(rows, total):
    """4,194,304 symbols; multinomial counts of four kinds for each of four symbols sent."""
    probs = np.broadcast_to(stated(noise_table(rows, total)), (4, 4))
    sent, errors = sampled(rows, total)
    counts = np.bincount(4 * sent + errors, minlength=16).reshape(4, 4)
    for symbol in range(4):
        assert_counts_agree(counts[symbol], probs[symbol])


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("total", [1e-4, 0.024, 0.3])
def test_all_positions_of_a_word_have_the_rate(rows, total):
    """2^18 words; four kinds of error at each of sixteen positions."""
    probs = stated(noise_table(rows, total)).mean(0)
    errors = sampled(rows, total)[1].reshape(WORDS, 16)
    for position in range(16):
        assert_counts_agree(np.bincount(errors[:, position], minlength=4), probs)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("total", [1e-3, 0.024, 0.1, 0.3])
def test_errors_of_neighbouring_symbols_are_independent(rows, total):
    """Joint counts of sixteen pairs of kinds, of 2,097,152 disjoint pairs that begin at an even
    place of a word, 1,835,008 that begin at an odd one, and 262,143 across words."""
    probs = stated(noise_table(rows, total)).mean(0)
    joint = np.outer(probs, probs)
    errors = sampled(rows, total)[1]
    words = errors.reshape(WORDS, 16)
    for first, second in (
        (words[:, 0::2], words[:, 1::2]),
        (words[:, 1:15:2], words[:, 2:16:2]),
        (words[:-1, 15], words[1:, 0]),
    ):
        assert_counts_agree(np.bincount((4 * first + second).ravel(), minlength=16), joint)


def geometric_bins(rate, bins):
    """Edges of spacings, and the probabilities between them, of `bins` bins or fewer."""
    survival = np.linspace(1, 0, bins + 1)[1:-1]
    edges = np.unique(np.floor(np.log(survival) / np.log1p(-rate)).astype(np.int64))
    edges = edges[edges >= 1]
    kept = np.r_[1.0, np.exp(edges * np.log1p(-rate)), 0.0]
    return edges, kept[:-1] - kept[1:]


def spacings_of(errors, rate):
    """Spacings between errors: as many as there are for sure, so that their number does not depend
    on them. Fewer come with a chance of 1e-15 (eight standard deviations)."""
    at = np.flatnonzero(errors)
    mean = errors.size * rate
    enough = int(mean - 8 * np.sqrt(mean))
    assert enough > 0
    assert len(at) >= enough
    return np.diff(at[:enough], prepend=-1)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("total", [1e-4, 1e-3, 0.024, 0.1, 0.3])
def test_spacings_between_errors_are_geometric(rows, total):
    """4,194,304 symbols; of 76 spacings or more the counts in up to 40 bins, and the joint counts
    in up to 4 of neighbouring ones and of a spacing and the kind of the error at its end."""
    rate = stated(noise_table(rows, total))[:, 1:].sum(1).mean()
    errors = sampled(rows, total)[1]
    spacings = spacings_of(errors, rate)
    edges, probs = geometric_bins(rate, 40)
    counts = np.bincount(np.searchsorted(edges, spacings), minlength=len(probs))
    assert_counts_agree(counts, probs)
    edges, probs = geometric_bins(rate, 4)
    bins = np.searchsorted(edges, spacings)
    first, second = bins[: len(spacings) // 2 * 2].reshape(-1, 2).T
    joint = np.bincount(len(probs) * first + second, minlength=len(probs) ** 2)
    assert_counts_agree(joint, np.outer(probs, probs))
    kinds = errors[np.flatnonzero(errors)[: len(spacings)]] - 1
    joint = np.bincount(3 * bins + kinds, minlength=3 * len(probs))
    assert_counts_agree(joint, np.outer(probs, stated(noise_table(rows, total)).mean(0)[1:]))


def test_spacings_across_lanes_and_batches_are_geometric():
    """Without a coarse part, error n is the last of spacing n: of 8 x 128 spacings in a batch, down
    its lanes. Eight keys, 12,000 lanes and 95 batches each: the counts of the spacings into a lane,
    of those into a batch, and jointly of these and the spacings before."""
    total, lane, batch = 0.024, 8, 1024
    rate = stated(noise_table(1, total))[0, 1:].sum()
    assert lane * 128 == batch == sampling._ROWS * sampling._MAX_LANES
    edges, probs = geometric_bins(rate, 4)
    bins = [np.searchsorted(edges, spacings_of(sampled(1, total, i)[1], rate)) for i in range(1, 9)]
    for every in (lane, batch):
        into = np.concatenate([one[every::every] for one in bins])
        before = np.concatenate([one[every - 1 : -1 : every] for one in bins])[: len(into)]
        assert len(into) >= 8 * 95 * batch // every
        assert_counts_agree(np.bincount(into, minlength=4), probs)
        joint = np.bincount(4 * before + into, minlength=16)
        assert_counts_agree(joint, np.outer(probs, probs))


@pytest.mark.parametrize("rows", [1, 4])
def test_what_is_drawn_again_over_a_coarse_part_has_geometric_spacings(rows):
    """4,194,304 symbols. Kinds 1 and 2 are coarse, up to their share in what is drawn again; kind
    3, at 0.003, comes of that alone. The counts of all, and the spacings of kind 3 in up to 40
    bins."""
    table = table_of(*[[64.1 / 256, 32.3 / 256, 0.003]] * rows)
    np.testing.assert_array_equal(split_of(table[None, :, 1:]).multiples[0], [[64, 32, 0]] * rows)
    sent = random_words(seed=2)
    errors = symbols(sent ^ np.asarray(through(cipher(2), sent, table)))
    probs = stated(table)[0]
    assert_counts_agree(np.bincount(errors, minlength=4), probs)
    edges, binned = geometric_bins(probs[3], 40)
    spacings = spacings_of(errors == 3, probs[3])
    assert_counts_agree(np.bincount(np.searchsorted(edges, spacings), minlength=40), binned)


def test_errors_on_both_sides_of_a_stretch_have_the_rate(monkeypatch):
    """8,192 stretches of 2^10 symbols: four kinds at the first eight and the last eight places of
    a stretch, the joint counts of its last symbol and the next, and all of them."""
    stretch = 2**10
    monkeypatch.setattr(sampling, "_STRETCH", stretch)
    short = jax.jit(lambda *arguments: sampling.through(*arguments))
    table = noise_table(1, 0.024)
    probs = stated(table)[0]
    errors = []
    for seed in (3, 4):
        sent = random_words(seed=seed)
        errors.append(symbols(sent ^ np.asarray(short(cipher(seed), sent, table))))
    errors = np.stack(errors).reshape(2, SYMBOLS // stretch, stretch)
    for place in (*range(8), *range(-8, 0)):
        assert_counts_agree(np.bincount(errors[..., place].ravel(), minlength=4), probs)
    pairs = 4 * errors[:, :-1, -1] + errors[:, 1:, 0]
    assert_counts_agree(np.bincount(pairs.ravel(), minlength=16), np.outer(probs, probs))
    assert_counts_agree(np.bincount(errors.ravel(), minlength=4), probs)


@jax.jit
def kinds_counted(key, words, table):
    """(3,) how many errors there are of each kind."""
    errors = sampling.through(key, words, table) ^ words
    low, high = errors & np.uint32(0x55555555), (errors >> 1) & np.uint32(0x55555555)
    kinds = jnp.stack([low & ~high, high & ~low, low & high])
    return jnp.sum(lax.population_count(kinds), axis=1)


@pytest.mark.statistics
@pytest.mark.parametrize("total", [1e-3, 0.3])
def test_rates_hold_to_one_in_a_thousand(total):
    """419,430,400 symbols of a Werner link: exact binomial tails of three kinds, seven standard
    deviations, which are 7 / sqrt(419430400 total / 3) or 2 % and 0.1 % of the rate."""
    table = table_of([total / 3] * 3)
    words = jnp.asarray(random_words(seed=7))
    key = cipher(7)
    counts = sum(
        np.asarray(kinds_counted(derive(key, i), words, table), np.int64) for i in range(100)
    )
    assert_binomial(counts, 100 * SYMBOLS, stated(table)[0, 1:])


# --- Short messages -------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=3)
def many_short(key, words, tables, number):
    """(number, links, W) errors of short messages: each link its table, each message its key."""
    keys = derive(key, jnp.arange(number)[:, None], jnp.arange(len(tables)))
    of_links = jax.vmap(sampling.through, in_axes=(0, None, 0))
    return jax.vmap(of_links, in_axes=(0, None, None))(keys, words, tables) ^ words


# No errors, rare ones, two rows with kinds that do not happen, and nothing but errors.
SHORT = [np.zeros(3), [1e-3, 0, 2e-3], 0.3 * SHARES, [0.0, 0.25, 0.0], [0.25, 0.0, 0.75]]


@pytest.mark.parametrize("rows", [1, 4])
def test_short_messages_have_the_rates_for_each_symbol_sent(rows):
    """Five links, mapped over, with 4,194,304 symbols each, in messages of FEW words. Counts of
    four kinds for each symbol sent, and for each of sixteen positions of a word."""
    levels = [np.roll(SHORT, shift, axis=0) for shift in range(rows)]  # rows that differ
    tables = np.stack([table_of(*(level[link] for level in levels)) for link in range(5)])
    words = random_words(FEW, seed=17)
    errors = np.asarray(many_short(cipher(17), words, tables, WORDS // FEW))
    sent = symbols(words)
    for link in range(5):
        probs = np.broadcast_to(stated(tables[link]), (4, 4))
        kinds = symbols(errors[:, link].ravel()).reshape(-1, 16 * FEW)
        for symbol in range(4):
            assert_counts_agree(
                np.bincount(kinds[:, sent == symbol].ravel(), minlength=4), probs[symbol]
            )
        mix = [probs[sent.reshape(-1, 16)[:, place]].mean(axis=0) for place in range(16)]
        for place in range(16):
            assert_counts_agree(np.bincount(kinds[:, place::16].ravel(), minlength=4), mix[place])


def test_neighbouring_symbols_and_messages_of_short_ones_are_independent():
    """Joint counts of kinds: 2,097,152 disjoint pairs of neighbours, of halves of a word that one
    draw gives, and of the same symbol of two messages."""
    table = table_of(0.3 * SHARES)
    errors = np.asarray(
        many_short(cipher(18), random_words(FEW, seed=18), table[None], WORDS // FEW)
    )
    kinds = symbols(errors.ravel()).reshape(-1, FEW, 16).astype(int)
    joint = np.outer(stated(table)[0], stated(table)[0])
    for first, second in (
        (kinds[..., 0::2], kinds[..., 1::2]),
        (kinds[..., :8], kinds[..., 8:]),
        (kinds[0::2], kinds[1::2]),
        (kinds[:, 0::2], kinds[:, 1::2]),
    ):
        assert_counts_agree(np.bincount((4 * first + second).ravel(), minlength=16), joint)


# --- Links that share their random numbers --------------------------------------------------------

coupled = jax.jit(jax.vmap(sampling.through, in_axes=(None, None, 0, None)))


def family(rows):
    """(3, S, 4) two tables in no order, and one below both; and (S, 4) their envelope."""
    one = [[0.004, 0.008, 0.001], [0.02, 0, 0.01], [0.001, 0.001, 0.04], [0.1, 0.05, 0.2]][:rows]
    other = [[0.008, 0.002, 0.001], [0.01, 0.03, 0], [0.002, 0.001, 0.01], [0.2, 0.01, 0.3]][:rows]
    low = 0.4 * np.minimum(one, other)
    tables = np.stack([table_of(*errors) for errors in (one, other, low)])
    return tables, tables.max(axis=0)


@functools.cache
def coupled_errors(rows, few):
    """(SYMBOLS,) symbols sent, and (3, SYMBOLS) errors of the members of a family."""
    tables, envelope = family(rows)
    if not few:
        words = random_words(seed=19)
        received = np.asarray(coupled(cipher(19), words, tables, envelope))
        return symbols(words), np.stack([symbols(words ^ each) for each in received])
    words = random_words(FEW, seed=20)
    keys = derive(cipher(20), jnp.arange(WORDS // FEW))
    received = jax.jit(jax.vmap(coupled, in_axes=(0, None, None, None)))(
        keys, words, tables, envelope
    )
    errors = np.moveaxis(np.asarray(received) ^ words, 1, 0).reshape(3, -1)
    return np.tile(symbols(words), WORDS // FEW), np.stack([symbols(each) for each in errors])


EACH_FAMILY = pytest.mark.parametrize(
    "rows, few", [(1, True), (4, False), further(1, False), further(4, True)]
)


@EACH_FAMILY
def test_each_of_coupled_links_has_its_own_rates(rows, few):
    """4,194,304 symbols, in messages of 2^18 words or of FEW: counts of four kinds of error for
    each of four symbols sent, on each of three links."""
    tables, _ = family(rows)
    sent, errors = coupled_errors(rows, few)
    for table, kinds in zip(tables, errors, strict=True):
        probs = np.broadcast_to(stated(table), (4, 4))
        counts = np.bincount(4 * sent + kinds, minlength=16).reshape(4, 4)
        for symbol in range(4):
            assert_counts_agree(counts[symbol], probs[symbol])


@EACH_FAMILY
def test_errors_are_shared_as_far_as_two_coupled_links_may_have_them(rows, few):
    """Exact: each error of the link below the others is the same error on both of them; and two
    links never have different ones. 4,194,304 symbols: as many are shared as the lesser of the
    probabilities of each kind says."""
    tables, _ = family(rows)
    sent, (one, other, low) = coupled_errors(rows, few)
    assert (low > 0).sum() > 1000
    for above in (one, other):
        np.testing.assert_array_equal(above[low > 0], low[low > 0])
    both = (one > 0) & (other > 0)
    np.testing.assert_array_equal(one[both], other[both])
    least = np.broadcast_to(np.minimum(stated(tables[0]), stated(tables[1])), (4, 4)).copy()
    least[:, 0] = 1 - least[:, 1:].sum(axis=1)
    counts = np.bincount(4 * sent + np.where(both, one, 0), minlength=16).reshape(4, 4)
    for symbol in range(4):
        assert_counts_agree(counts[symbol], least[symbol])


@pytest.mark.parametrize("size", [FEW, 2**14])
def test_equal_links_with_the_same_key_and_envelope_have_the_same_words(size):
    """Exact, beside whatever other link; another key gives others."""
    tables, envelope = family(1)
    words = random_words(size, seed=21)
    received = coupled(cipher(21), words, tables[[0, 0, 1]], envelope)
    np.testing.assert_array_equal(received[0], received[1])
    again = coupled(cipher(21), words, tables[[2, 1, 0]], envelope)
    np.testing.assert_array_equal(received[0], again[2])
    assert np.any(again[0] != again[1])
    assert np.any(coupled(cipher(22), words, tables[[0, 0, 1]], envelope)[0] != received[0])
    # The envelope is taken to be no lower than the table.
    assert np.any(received[0] != words)
    own = coupled(cipher(21), words, tables[[0, 0, 1]], tables[0])[0]
    below = coupled(cipher(21), words, tables[[0, 0, 1]], 0 * tables[0])[0]
    np.testing.assert_array_equal(own, below)


# --- Structure ------------------------------------------------------------------------------------

ANY = {1: table_of([0.1, 0.05, 0.003]), 4: noise_table(4, 0.3)}


@pytest.mark.parametrize(
    "size, rows",
    [(0, 1), (0, 4), (1, 1), (FEW, 4), (FEW + 1, 4)]
    + [further(*case) for case in [(1, 4), (2, 4), (31, 1), (FEW + 1, 1), (1000, 4)]],
)
def test_any_number_of_words_goes_through(size, rows):
    """100 keys. A symbol is hit with 0.075 or more by each, and by none with 4e-4 at most; a
    quarter of 16 symbols or more are left out with 5e-11."""
    words = random_words(size, seed=8)
    hit = np.zeros(16 * size, bool)
    for seed in range(100 if size else 1):
        received = through(derive(cipher(0), seed), words, ANY[rows])
        assert received.shape == (size,)
        assert received.dtype == jnp.uint32
        hit |= symbols(words ^ np.asarray(received)) != 0
    assert hit.mean() > 0.75 if size else received.size == 0


@pytest.mark.parametrize("rows", [1, 4])
def test_no_error_returns_the_words(rows):
    words = random_words(seed=9)
    received = through(cipher(9), words, np.eye(4, dtype=np.float32)[[0] * rows])
    np.testing.assert_array_equal(received, words)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_certain_error_hits_every_symbol(kind, rows):
    """4,194,304 symbols; thresholds stop at 2^32 - 1, so that one is missed with 2^-32: more than
    five with 1e-21."""
    words = random_words(seed=9)
    received = through(cipher(9), words, np.eye(4, dtype=np.float32)[[kind] * rows])
    assert np.sum(symbols(words ^ np.asarray(received)) != kind) <= 5


@pytest.mark.parametrize("total", [1e-3, 0.3])
def test_errors_depend_on_the_key_and_not_on_the_words_if_all_symbols_are_alike(total):
    table = noise_table(1, total)
    one, other = random_words(seed=10), random_words(seed=11)
    errors = one ^ np.asarray(through(cipher(10), one, table))
    assert errors.any()
    np.testing.assert_array_equal(errors, other ^ np.asarray(through(cipher(10), other, table)))
    assert np.any(errors != one ^ np.asarray(through(cipher(11), one, table)))
    # Neither half of a pair is left out.
    first, second = cipher(10)
    for pair in ((first + 1, second), (first, second + 1)):
        assert np.any(errors != one ^ np.asarray(through(pair, one, table)))


@pytest.mark.parametrize("rows", [1, 4])
def test_four_rows_alike_give_the_errors_of_one(rows):
    """The same law and, as it happens, the same bits: rows only say where thresholds are."""
    words = random_words(seed=12)
    table = np.repeat(noise_table(1, 0.3), rows, axis=0)
    errors = words ^ np.asarray(through(cipher(12), words, table))
    single = words ^ np.asarray(through(cipher(12), words, table[:1]))
    np.testing.assert_array_equal(errors, single)


def test_rates_too_low_to_be_normal_numbers_are_no_error():
    words = random_words(seed=13)
    for rate in (1e-45, 1e-40, 1e-38):
        table = np.array([[1, rate, 0, 0]], np.float32)
        assert all(
            np.isfinite(leaf).all() for leaf in jax.tree.leaves(split_of(table[None, :, 1:]))
        )
        np.testing.assert_array_equal(through(cipher(13), words, table), words)


spacing_of = jax.jit(
    lambda word, rate: sampling.spacings(word, sampling.spacing_factor(rate), STRETCH)
)


def test_short_spacings_are_as_right_as_long_ones():
    """Exact: how many of the 2^31 numbers give a spacing of at most n, found by bisection, because
    spacings fall with the lower numbers and rise with the upper ones, which count from one
    downwards."""
    for rate in (1e-12, 1e-9, 1e-7, 1e-5, 1e-4):
        for longest in (1, 16, 1000):
            exact = -np.expm1(longest * np.log1p(-rate))
            # Uniforms above 1 - x give spacings below log(1 - x) / log(1 - rate): numbers 2^30 + m.
            low, high = (
                -1,
                2**30 - 1,
            )  # the spacing of number 2^30 + low is short, of high it is long
            while high - low > 1:
                middle = (low + high) // 2
                word = np.uint32((2**30 + middle) << 1)
                spacing = int(spacing_of(word, np.float32(rate)))
                low, high = (middle, high) if spacing <= longest else (low, middle)
            assert abs((low + 1) / 2**31 - exact) <= 2.0**-31 + 1e-6 * exact, (rate, longest)


# --- Transformations ------------------------------------------------------------------------------

LEVELS = (0.0, 1e-3, 0.024, 0.3, 1.0)


@pytest.mark.parametrize(
    "size, rows", [(FEW, 4), (FEW + 1, 1), further(FEW, 1), further(FEW + 1, 4)]
)
def test_links_that_are_mapped_over_get_the_bits_of_single_ones_from_one_trace(size, rows):
    """Exact, for five noise levels on both sides of the coarse part, twice."""
    chex.clear_trace_counter()
    words = random_words(5 * size, seed=14).reshape(5, size)
    keys = derive(cipher(14), jnp.arange(5))
    tables = np.stack([noise_table(rows, total) for total in LEVELS])

    @jax.jit
    @chex.assert_max_traces(n=1)
    def mapped(keys, words, tables):
        return jax.vmap(sampling.through)(keys, words, tables)

    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        received = mapped(keys, words, tables[order])
        for link, level in enumerate(order):
            own = tuple(word[link] for word in keys)
            np.testing.assert_array_equal(
                received[link], through(own, words[link], tables[level]), err_msg=str(level)
            )
            if level != 1:  # which may have no error
                assert np.array_equal(received[link], words[link]) == (level == 0)


@pytest.mark.parametrize("scramble", [True, pytest.param(False, marks=pytest.mark.matrix)])
def test_links_with_rbg_keys_are_mapped_over_bit_for_bit(scramble):
    """Exact, for five noise levels, and equal to what the sampler makes of the key and the table;
    JAX's own bits of an rbg key depend on the mapping."""
    words = random_words(5 * (FEW + 1), seed=15).reshape(5, FEW + 1)
    keys = jax.random.split(jax.random.key(15, impl="rbg"), 5)
    probs = [stated(noise_table(1, total))[0] for total in LEVELS]
    matrices = [[[q[r ^ m] for m in range(4)] for r in range(4)] for q in probs]
    links = jq.SymbolChannel(jnp.asarray(matrices, jnp.float32))

    def hop(words, link, key):
        return jq.transmit(words, link, key, scramble=scramble)

    mapped = jax.jit(jax.vmap(hop))(words, links, keys)
    for index in range(5):
        table = jq.SymbolChannel(links.transition[index]).error_table
        single = through(cipher_key(keys[index]), words[index], table[: 1 if scramble else 4])
        np.testing.assert_array_equal(mapped[index], single)
    assert not np.array_equal(mapped[1:], words[1:])


@pytest.mark.parametrize(
    "own, rows",
    [("keys", 1), ("words", 1)]
    + [further(*case) for case in [("keys", 4), ("words", 4), ("tables", 1), ("tables", 4)]],
)
def test_what_varies_over_devices_may_be_any_of_the_arguments(own, rows, ring_mesh):
    """Exact, under a shard_map that checks what varies, on two devices."""
    split = PartitionSpec("nodes")
    keys = derive(cipher(16), jnp.arange(2))
    size = FEW + 1
    words = random_words(2 * size, seed=16)
    tables = np.concatenate([noise_table(rows, total) for total in (0.3, 0.01)])

    def send(*arguments):
        first, second, words, table = arguments
        pair = (first[0], second[0]) if own == "keys" else (first, second)
        return sampling.through(pair, words, table)

    single = [word[0] for word in keys]
    arguments = {
        "keys": (*keys, words[:size], tables[:rows]),
        "words": (*single, words, tables[:rows]),
        "tables": (*single, words[:size], tables),
    }[own]
    specs = [
        split if name == own else PartitionSpec() for name in ("keys", "keys", "words", "tables")
    ]
    mapped = jax.jit(
        jax.shard_map(
            send, mesh=ring_mesh(2), in_specs=tuple(specs), out_specs=split, check_vma=True
        )
    )
    received = np.asarray(mapped(*arguments)).reshape(2, size)
    for node in range(2):
        key = tuple(word[node if own == "keys" else 0] for word in keys)
        sent = words[size:] if own == "words" and node else words[:size]
        table = tables[rows:] if own == "tables" and node else tables[:rows]
        np.testing.assert_array_equal(received[node], through(key, sent, table))
    assert np.any(received[0] ^ words[:size])


@pytest.mark.parametrize("size", [100, 5000])
def test_links_too_far_apart_to_share_errors_keep_their_own_probabilities(size):
    # 160,000 symbols or more; six standard deviations, four counts: fails with probability 1e-8.
    table = jnp.array([[0.25, 0.6, 0.1, 0.05]], jnp.float32)
    envelope = jnp.array([[0.0, 0.65, 0.6, 0.05]], jnp.float32)
    turns = 160_000 // (16 * size) + 1
    words = jnp.zeros((size,), jnp.uint32)

    def draw(number):
        return sampling.through((jnp.uint32(5), number), words, table, envelope)

    errors = np.asarray(
        jax.jit(lambda n: jax.lax.map(draw, n))(jnp.arange(turns, dtype=jnp.uint32))
    )
    symbols = (errors[..., None] >> np.arange(0, 32, 2, dtype=np.uint32)) & 3
    found = np.bincount(symbols.ravel(), minlength=4) / symbols.size
    probs = np.asarray(table[0], np.float64)
    assert (np.abs(found - probs) <= 6 * np.sqrt(probs * (1 - probs) / symbols.size)).all()
