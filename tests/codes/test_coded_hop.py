"""Protected payloads: both ways to simulate them against exact distributions and each other.

Every word of these tests is sent alone, with a key of its own, so that what happened to it can be
told from the sums that `deliver` counts; words are zeros, so that what arrives are the errors.
"""

import functools

import codewords as ref
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packing import unpack

from jaxqring import FixedPoint, Retransmit, SymbolChannel, reed_solomon, superdense, werner
from jaxqring._threefry import cipher_key
from jaxqring.codec._packing import pack
from jaxqring.codes import BlockCode, IdealCode, Unequal, bch, hop_error, repetition, secded
from jaxqring.codes import _coded_hop as hop
from jaxqring.codes._coded_hop import attempt_thresholds, deliver
from jaxqring.codes._messages import message_of

KEY = jax.random.key(20261122)
MODES = ("attempts", "symbol")
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


@functools.cache
def sender(protection, mode, size, bits):
    """Compiled once for each: keys, levels and a link -> levels that arrive, and tallies."""

    def send(key, levels, matrix, thresholds):
        channel, words = SymbolChannel(matrix), pack(levels, bits)
        received, tally = deliver(
            cipher_key(key), words, size, bits, channel, protection, thresholds, "sparse"
        )
        return unpack(received, bits, size, signed=False), tally

    # What is compiled here runs for milliseconds, and takes seconds to optimise.
    fast = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(jax.vmap(send, in_axes=(0, None, None, None)), compiler_options=fast)
    thresholds_of = jax.jit(
        lambda matrix: attempt_thresholds(protection, SymbolChannel(matrix), size, bits)
    )

    def run(keys, levels, matrix):
        thresholds = thresholds_of(matrix) if mode == "attempts" else None
        return compiled(keys, levels, matrix, thresholds)

    return run


def transition(q, lost, heralded=True):
    matrix = np.array([[q[r ^ m] for m in range(4)] for r in range(4)])
    return np.float32(np.vstack([matrix, np.full((1, 4), lost)]) if heralded else matrix)


def send_words(protection, mode, link, words, key=KEY, heralded=True, size=None):
    """(words, size) errors of single words; whether undelivered; times sent again.

    `size` symbols of payload are in a word: all that it can hold, or fewer, which shorten it.
    """
    size = size or protection.payload_symbols
    run = sender(protection, mode, size, 2)
    keys = jax.random.split(key, words)
    errors, tally = run(keys, jnp.zeros(size, jnp.int32), transition(*link, heralded))
    errors, tally = np.asarray(errors), jax.tree.map(np.asarray, tally)
    np.testing.assert_array_equal((errors != 0).sum(axis=1), tally.errors)
    assert tally.undelivered.max() <= 1
    # What is wrong is never silent.
    assert (tally.errors[tally.undelivered == 0] == 0).all()
    np.testing.assert_array_equal(tally.last_retransmissions, tally.retransmissions)
    return errors, tally.undelivered.astype(bool), tally.retransmissions


# protection, erasures of its code, links as (fidelity, survival).
CASES = {
    "rs(255,223)": (
        Retransmit(reed_solomon(255, 223), 3, 2),
        32,
        [(0.985, 1.0), (0.98, 1.0), (0.99, 0.99), (0.995, 0.97)],
    ),
    "secded(72,64)": (
        Retransmit(secded(72, 64), 4, 1),
        3,
        [(0.98, 1.0), (0.95, 1.0), (0.99, 0.98), (0.97, 0.95)],
    ),
    "rs(15,11)": (
        Retransmit(reed_solomon(15, 11, symbol_bits=4), 3, 1),
        4,
        [(0.95, 1.0), (0.9, 1.0), (0.95, 0.95), (0.98, 0.9)],
    ),
    "bch(63,45)": (
        Retransmit(bch(63, 45, 3), 3, 3),
        6,
        [(0.95, 1.0), (0.92, 1.0), (0.95, 0.97), (0.98, 0.93)],
    ),
    "(9,7), two erasures": (
        Retransmit(BlockCode(9, 7, 1, 6), 3, 2),
        2,
        [(0.97, 1.0), (0.9, 1.0), (0.97, 0.95), (0.99, 0.9)],
    ),
}
SIZES = {"rs(255,223)": 3000}


# A case, symbols of payload (whole code symbols), the length of the shortened word, and its links.
SHORTENED = {
    "47 values": ("rs(255,223)", 376, 127, [(0.97, 1.0), (0.99, 0.96)]),
    "secded": ("secded(72,64)", 9, 27, [(0.95, 1.0), (0.93, 0.9)]),
    "rs(15,11)": ("rs(15,11)", 6, 8, [(0.9, 1.0), (0.95, 0.9)]),
    "bch": ("bch(63,45)", 7, 35, [(0.85, 1.0), (0.95, 0.9)]),
    "two erasures": ("(9,7), two erasures", 3, 4, [(0.85, 1.0), (0.99, 0.85)]),
}


@pytest.mark.statistics
@pytest.mark.parametrize(
    "name", [name if name == "rs(15,11)" else further(name) for name in SHORTENED]
)
def test_a_shortened_word_has_the_exact_distribution_in_both_simulations(name):
    """3,000 messages of one word that their payload does not fill, on each of two links.

    As above: 6 p-values a link, each below 1e-9 with that probability if all is right, 12 in all.
    The reference knows n, the length of the word, and nothing of how it came about.
    """
    case, payload, n, points = SHORTENED[name]
    protection, erasures, _ = CASES[case]
    bits = protection.code.symbol_bits
    qubits = max(bits // 2, 1)
    shown = payload // qubits
    checksum = protection.checksum_bits
    assert [n] == ref.word_lengths(payload, protection.code.n, protection.code.k, bits, checksum)
    for at, point in enumerate(points):
        link = ref.werner_link(*point)
        fails = ref.failure_prob(*link, n, bits, erasures)
        assert 0.01 < fails < 0.9
        table = ref.repetitions_and_end(fails, protection.missed_fraction, protection.attempts)
        spoilt = ref.seen_of_failures(*link, n, bits, erasures, shown) / fails
        ends, counts = [], []
        for mode in MODES:
            key = jax.random.fold_in(jax.random.fold_in(KEY, 100 + at), MODES.index(mode))
            errors, wrong, again = send_words(protection, mode, link, 3000, key, size=payload)
            ends.append(2 * again.astype(int) + wrong)
            p = ref.chi_square(np.bincount(ends[-1], minlength=table.size), table.ravel())
            assert p > 1e-9, (point, mode, p)
            units = errors.reshape(3000, shown, qubits).any(axis=2)
            counts.append(units.sum(axis=1)[wrong])
            p = ref.chi_square(np.bincount(counts[-1], minlength=shown + 1), spoilt)
            assert p > 1e-9, (point, mode, p)
            check_places(errors, protection.shortened(payload), link)
        assert ref.same_distribution(*ends) > 1e-9
        assert ref.same_distribution(*counts) > 1e-9
    # The longer word fails more often: what is shown here can tell the two apart.
    assert ref.failure_prob(*link, protection.code.n, bits, erasures) > 1.1 * fails


@pytest.mark.statistics
@pytest.mark.parametrize(
    "name", [further(name) if name == "47 values" else name for name in ("rs(15,11)", "47 values")]
)
@pytest.mark.parametrize("mode", [further("attempts"), "symbol"])
def test_the_last_word_of_a_message_is_short_and_the_others_are_not(name, mode):
    """4,000 messages of one full word and a short one (2,000 of the longest code).

    Four p-values, each below 1e-9 with that probability: how often each word was sent again, and
    in how many units of the payload of each an error is seen, zero for those that arrive.
    """
    case, rest, short, _ = SHORTENED[name]
    protection, erasures, _ = CASES[case]
    # Links on which both words fail now and then.
    messages, point = (2000, (0.974, 1.0)) if name == "47 values" else (4000, (0.9, 1.0))
    code, first = protection.code, protection.payload_symbols
    qubits = max(code.symbol_bits // 2, 1)
    link = ref.werner_link(*point)
    key = jax.random.fold_in(KEY, 200 + MODES.index(mode))
    run = sender(protection, mode, first + rest, 2)
    errors, tally = run(
        jax.random.split(key, messages), jnp.zeros(first + rest, jnp.int32), transition(*link)
    )
    errors, tally = np.asarray(errors), jax.tree.map(lambda x: np.asarray(x).astype(int), tally)
    again = (tally.retransmissions - tally.last_retransmissions, tally.last_retransmissions)
    assert tally.undelivered.max() == 2
    assert not errors[tally.undelivered == 0].any()
    whole = first // qubits * qubits
    parts = (errors[:, :whole], errors[:, first:])
    for n, repeated, part in zip((code.n, short), again, parts, strict=True):
        fails = ref.failure_prob(*link, n, code.symbol_bits, erasures)
        table = ref.repetitions_and_end(fails, protection.missed_fraction, protection.attempts)
        p = ref.chi_square(np.bincount(repeated, minlength=len(table)), table.sum(axis=1))
        assert p > 1e-9, (n, p)
        shown = part.shape[1] // qubits
        units = part.reshape(messages, shown, qubits).any(axis=2).sum(axis=1)
        seen = ref.seen_of_failures(*link, n, code.symbol_bits, erasures, shown)
        seen *= table[:, 1].sum() / fails
        seen[0] += 1 - seen.sum()
        p = ref.chi_square(np.bincount(units, minlength=shown + 1), seen)
        assert p > 1e-9, (n, p)


@pytest.mark.statistics
@pytest.mark.parametrize("name", [name if name == "rs(15,11)" else further(name) for name in CASES])
def test_both_simulations_have_the_exact_distribution(name):
    """4,000 words on each of four links (3,000 of the longest code), half with flagged loss.

    On each link and in each mode: how often a word is sent again and whether it stays wrong, and
    in how many units an undelivered word shows errors, by chi-square against exact probabilities;
    and both again between the modes. 6 p-values a link, each below 1e-9 with that probability if
    all is right: 24 of them fail by chance with 2.4e-8. Wrong symbols by place: see below.
    """
    protection, erasures, points = CASES[name]
    code, size = protection.code, SIZES.get(name, 4000)
    qubits = max(code.symbol_bits // 2, 1)
    shown = protection.payload_symbols // qubits
    for at, point in enumerate(points):
        link = ref.werner_link(*point)
        fails = ref.failure_prob(*link, code.n, code.symbol_bits, erasures)
        assert 0.01 < fails < 0.9
        table = ref.repetitions_and_end(fails, protection.missed_fraction, protection.attempts)
        spoilt = ref.seen_of_failures(*link, code.n, code.symbol_bits, erasures, shown) / fails
        np.testing.assert_allclose([table.sum(), spoilt.sum()], 1, rtol=1e-9)
        ends, counts = [], []
        for mode in MODES:
            key = jax.random.fold_in(jax.random.fold_in(KEY, at), MODES.index(mode))
            errors, wrong, again = send_words(protection, mode, link, size, key)
            ends.append(2 * again.astype(int) + wrong)
            p = ref.chi_square(np.bincount(ends[-1], minlength=table.size), table.ravel())
            assert p > 1e-9, (point, mode, p)
            units = errors[:, : shown * qubits].reshape(size, shown, qubits).any(axis=2)
            counts.append(units.sum(axis=1)[wrong])
            p = ref.chi_square(np.bincount(counts[-1], minlength=shown + 1), spoilt)
            assert p > 1e-9, (point, mode, p)
            check_places(errors, protection, link)
        assert ref.same_distribution(*ends) > 1e-9
        assert ref.same_distribution(*counts) > 1e-9


def check_places(errors, protection, link):
    """Every pattern at every place of the payload as often as `residual` says.

    Words are independent of each other: at one place within seven standard deviations (2.6e-12,
    for rare patterns widened by seven counts); and over all places, where the symbols of a word
    are not independent, within seven empirical standard deviations of the mean over words.
    """
    expected = np.asarray(protection.residual(SymbolChannel(transition(*link))).xor_probs)
    words = len(errors)
    for pattern in range(1, 4):
        seen = errors == pattern
        band = ref.binomial_band(words, expected[pattern], 7.0)
        assert np.abs(seen.sum(axis=0) - words * expected[pattern]).max() < band
        rates = seen.mean(axis=1)
        assert abs(rates.mean() - expected[pattern]) < 7 * rates.std() / np.sqrt(words) + 1e-6


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "protection", [further(repetition(3)), further(reed_solomon(15, 11, symbol_bits=4))], ids=repr
)
def test_links_without_a_flag_have_the_exact_distribution(protection, mode):
    # The other form of the matrix. 20,000 words that are sent once, with unequal patterns, seven
    # standard deviations at every place: fails by chance with probability 1e-9.
    link = ref.bell_link([0.85, 0.08, 0.05, 0.02])
    errors, wrong, again = send_words(protection, mode, link, 20_000, heralded=False)
    assert not again.any()
    fails = ref.failure_prob(*link, protection.n, protection.symbol_bits, protection.erasures)
    assert abs(wrong.sum() - 20_000 * fails) < ref.binomial_band(20_000, fails, 7.0)
    check_places(errors, protection, link)


@pytest.mark.statistics
def test_words_of_one_message_are_independent_and_in_order():
    """A message of 3,000 words: each is whole or wrong as a whole, and the tally is of all."""
    protection = Retransmit(BlockCode(9, 7, 1, 6), 2, 2)
    size = 3000 * protection.payload_symbols
    link = ref.werner_link(0.95)
    for mode in MODES:
        run = sender(protection, mode, size, 2)
        errors, tally = run(KEY[None], jnp.zeros(size, jnp.int32), transition(*link))
        by_word = np.asarray(errors).reshape(3000, -1)
        fails = ref.failure_prob(*link, 9, 6, 2)
        undelivered, again = int(tally.undelivered[0]), int(tally.retransmissions[0])
        table = ref.repetitions_and_end(fails, 0.25, 2)
        # 3,000 words, six standard deviations, four checks: fails by chance with 8e-9.
        assert abs(again - 3000 * table[1].sum()) < ref.binomial_band(3000, table[1].sum())
        ends = table[:, 1].sum()
        assert abs(undelivered - 3000 * ends) < ref.binomial_band(3000, ends)
        spoilt = int(by_word.any(axis=1).sum())
        assert 0 < spoilt <= undelivered
        # Errors in the check symbols alone are not seen: those words count as undelivered too.
        shown = ref.seen_of_failures(*link, 9, 6, 2, protection.payload_symbols // 3)
        assert spoilt >= 0.9 * undelivered * (1 - shown[0] / fails)
        assert int(tally.errors[0]) == (by_word != 0).sum()


def test_a_perfect_link_and_a_dead_one():
    protection = Retransmit(reed_solomon(15, 11, symbol_bits=4), 3, 1)
    for mode in MODES:
        errors, wrong, again = send_words(protection, mode, ref.werner_link(1.0), 4000)
        assert not errors.any()
        assert not wrong.any()
        assert not again.any()
        # Everything is lost: every attempt fails, and what is guessed is uniform. 1,000 x 21
        # symbols are guessed, three quarters of them wrongly: 15,750, sd 62.7, six of them.
        errors, wrong, again = send_words(protection, mode, ref.werner_link(0.9, 0.0), 4000)
        assert wrong.all()
        table = ref.repetitions_and_end(1.0, 0.5, 3)
        assert ref.chi_square(np.bincount(again, minlength=3), table.sum(axis=1)) > 1e-9
        places = errors.size
        for pattern in range(4):
            assert abs((errors == pattern).sum() - places / 4) < ref.binomial_band(places, 0.25)


# --- Words, one by one ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, erasures",
    [
        (secded(8, 4), 3),
        (BlockCode(10, 2, 2, 1), 4),
        (BlockCode(3, 1, 1, 4), 2),
        (repetition(5), 4),
    ],
    ids=repr,
)
def test_the_words_that_fail_are_those_beyond_the_reach_of_a_decoder(monkeypatch, code, erasures):
    """Exact: every pattern of events is the word of one message, in place of random numbers."""
    qubits = ref.word_qubits(code.n, code.symbol_bits)
    # Each of five kinds as likely: kind k where a random number is in the fifth above 4 - k.
    kinds, _ = ref.enumerate_words(np.full(4, 0.2), 0.2, qubits)
    u = ((9 - 2 * kinds.reshape(-1)) / 10 * 2.0**32).astype(np.uint32)
    drawn = iter([u])
    monkeypatch.setattr(
        hop, "random_words", lambda key, count: next(drawn, np.zeros(count, np.uint32))
    )
    message = message_of(code, len(kinds) * code.payload_symbols)
    assert message.codewords == len(kinds)
    link = SymbolChannel(transition(np.full(4, 0.2), 0.2))
    failed, missed, patterns = hop._draw_codewords(cipher_key(KEY), link, message)
    expected = ref.fails(kinds, code.symbol_bits, erasures)
    np.testing.assert_array_equal(failed, expected)
    # As many as the distribution of weights says, which is another calculation.
    share = ref.failure_prob(np.full(4, 0.2), 0.2, code.n, code.symbol_bits, erasures)
    assert np.sum(failed) == round(share * 5**qubits)
    assert not np.any(missed)
    arrived = np.where(kinds == ref.LOST, 0, kinds)  # all guesses are zero
    np.testing.assert_array_equal(patterns, arrived[:, : code.payload_symbols])


@pytest.mark.parametrize(
    "protection",
    [
        Retransmit(reed_solomon(255, 223), checksum_bits=32),
        Retransmit(bch(63, 45, 3), 3, 3),
        Retransmit(secded(72, 64)),
        Retransmit(BlockCode(9, 7, 1, 6), 3, 2),
    ],
    ids=repr,
)
def test_qubits_sent_again_are_those_of_full_words_and_of_the_short_last_one(protection):
    code, room = protection.code, protection.payload_symbols
    for symbols in (3 * room, 2 * room + 1, room + room // 2, room // 3):
        message = message_of(protection, symbols)
        lengths = ref.word_lengths(
            symbols, code.n, code.k, code.symbol_bits, protection.checksum_bits
        )
        full, last = (ref.word_qubits(n, code.symbol_bits) for n in (code.n, lengths[-1]))
        assert message.codewords == len(lengths)
        assert (last < full) == (symbols % room > 0)
        again = np.array([0, 5, 7, 4], np.uint32) if len(lengths) > 1 else np.uint32([0, 2, 7, 4])
        of_last = np.array([0, 2, 7, 0], np.uint32) if len(lengths) > 1 else again
        np.testing.assert_array_equal(
            message.repeated_qubits(jnp.asarray(again), jnp.asarray(of_last)),
            full * (again - of_last) + last * of_last,
        )


# --- Ideal codes, and unequal protection ----------------------------------------------------------


def test_an_ideal_code_changes_nothing():
    codes = jnp.arange(-500, 500)
    for protection in (IdealCode(), Unequal(IdealCode(0.5), symbols=8)):
        run = sender(protection, "symbol", 1000, 16)
        arrived, tally = run(KEY[None], codes, transition(*ref.werner_link(0.5)))
        np.testing.assert_array_equal(np.asarray(arrived[0]), np.asarray(codes) & 0xFFFF)
        assert [int(part[0]) for part in tally] == [0, 0, 0, 0]


@pytest.mark.statistics
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("symbols, bits", [(3, 16), further(1, 10), further(5, 10)])
def test_unequal_protection_leaves_low_symbols_bare_and_high_ones_to_the_code(mode, symbols, bits):
    """20,000 codes on an uneven link; low symbols meet q, the high ones the residual of the code.

    Low symbols are independent: six standard deviations. High ones of a word are not: with words
    of 22 symbols their variance is at most 22 times that of independent ones.
    """
    strong = Retransmit(reed_solomon(15, 11, symbol_bits=4), 2, 2)
    protection = Unequal(strong, symbols=symbols)
    q, lost = ref.bell_link([0.9, 0.06, 0.03, 0.01], 0.97)
    size, low = 20_000, bits // 2 - symbols
    codes = np.random.default_rng(3).integers(0, 2**bits, size)
    run = sender(protection, mode, size, bits)
    arrived, tally = run(KEY[None], jnp.asarray(codes, jnp.int32), transition(q, lost))
    errors = np.asarray(arrived[0]).astype(np.int64) ^ codes
    by_symbol = (errors[:, None] >> 2 * np.arange(bits // 2)) & 3
    left = np.asarray(strong.residual(SymbolChannel(transition(q, lost))).xor_probs)
    assert int(tally.errors[0]) == (by_symbol != 0).sum()
    assert int(tally.undelivered[0]) > 300
    for pattern in range(1, 4):
        seen = (by_symbol == pattern).sum(axis=0)
        for place, count in enumerate(seen):
            if place < low:
                prob = q[pattern] + lost / 4
                assert abs(count - size * prob) < ref.binomial_band(size, prob)
            else:
                band = ref.binomial_band(size, left[pattern], 6 * np.sqrt(22))
                assert abs(count - size * left[pattern]) < band


@pytest.mark.matrix
def test_undelivered_words_of_unequal_protection_spoil_high_symbols_only():
    # Bare symbols on a link where all is lost in flight but flagged would show; here nothing
    # fails below the code, so that only its own words can be wrong.
    protection = Unequal(BlockCode(4, 3, 0, 2), symbols=2)
    size = 3000
    for mode in MODES:
        run = sender(protection, mode, size, 8)
        arrived, tally = run(
            KEY[None], jnp.zeros(size, jnp.int32), transition(*ref.werner_link(0.9))
        )
        by_symbol = (np.asarray(arrived[0])[:, None] >> 2 * np.arange(4)) & 3
        high = (by_symbol[:, 2:] != 0).reshape(-1, 3)  # 3 symbols of payload a word
        # A word without a wrong symbol in its payload may be wrong in its check symbol.
        assert high.any(axis=1).sum() <= int(tally.undelivered[0])
        # 2,000 words: fail with 1 - 0.9^4; shown in the payload with 1 - 0.9^3. Six sd: 8e-9.
        for count, prob in (
            (int(tally.undelivered[0]), 1 - 0.9**4),
            (high.any(axis=1).sum(), 1 - 0.9**3),
        ):
            assert abs(count - 2000 * prob) < ref.binomial_band(2000, prob)


# --- The mean square error of a hop ---------------------------------------------------------------


def as_values(codes, bits):
    """Two's complement."""
    return np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("link", [ref.werner_link(0.9), ref.bell_link([0.8, 0.1, 0.07, 0.03], 0.9)])
def test_the_error_of_a_bare_hop_is_that_of_all_codes_and_patterns(bits, link):
    q, lost = link
    met = q + lost / 4
    codes = np.arange(2**bits)
    total = 0.0
    for pattern in range(2**bits):
        prob = np.prod([met[(pattern >> shift) & 3] for shift in range(0, bits, 2)])
        jump = as_values(codes ^ pattern, bits) - as_values(codes, bits)
        total += prob * np.mean(jump.astype(float) ** 2)
    with jax.enable_x64(True):
        error, qubits = hop_error(
            FixedPoint(bits), SymbolChannel(jnp.asarray(transition(*link), float)), None
        )
        np.testing.assert_allclose(error, total, rtol=1e-6)
        assert float(qubits) == bits / 2


def test_the_error_of_a_bare_hop_on_a_werner_link_is_the_closed_form():
    # G1: f (4^b - 1) / 3 with f = 2 (1 - F) / 3.
    fidelity = np.array([0.5, 0.9, 0.99])
    with jax.enable_x64(True):
        link = superdense(werner(fidelity=fidelity))
        for bits in (2, 8, 16, 32):
            error, _ = hop_error(FixedPoint(bits), link, None)
            np.testing.assert_allclose(
                error, 2 * (1 - fidelity) / 3 * (4.0**bits - 1) / 3, rtol=1e-12
            )


@pytest.mark.statistics
@pytest.mark.parametrize(
    "protection",
    [
        further(Unequal(Retransmit(reed_solomon(15, 11, symbol_bits=4), 2, 2), symbols=3)),
        further(Retransmit(reed_solomon(15, 11, symbol_bits=4), 3, 1)),
        further(secded(72, 64)),
        further(None),
    ],
    ids=repr,
)
def test_the_error_and_the_qubits_of_a_protected_hop_are_those_of_a_sampled_one(protection):
    """260 messages of 168 uniform codes of 16 bits, which fill their words; the mean of the
    messages, which are independent, within six of its empirical standard deviations."""
    bits, size, messages = 16, 168, 260
    q, lost = ref.bell_link([0.9, 0.05, 0.03, 0.02], 0.98)
    matrix = transition(q, lost)
    codes = np.random.default_rng(4).integers(0, 2**bits, size)
    error, qubits = hop_error(FixedPoint(bits), SymbolChannel(matrix), protection)
    seen = {}
    for mode in MODES:
        keys = jax.random.split(jax.random.fold_in(KEY, MODES.index(mode)), messages)
        if protection is None and mode == "attempts":
            continue
        run = sender(protection, mode, size, bits)
        arrived, tally = run(keys, jnp.asarray(codes, jnp.int32), matrix)
        jumps = as_values(np.asarray(arrived).astype(np.int64), bits) - as_values(codes, bits)
        squares = np.mean(jumps.astype(float) ** 2, axis=1)
        deviation = squares.std() / np.sqrt(messages)
        assert deviation < 0.15 * float(error)
        assert abs(squares.mean() - float(error)) < 6 * deviation
        seen[mode] = np.asarray(tally.retransmissions)
    if isinstance(protection, Unequal | Retransmit):
        strong = getattr(protection, "strong", protection)
        count = getattr(protection, "symbols", bits // 2)
        words = size * count // strong.payload_symbols
        assert words * strong.payload_symbols == size * count
        for again in seen.values():
            spent = (bits // 2 - count) * size + (words + again) * strong.block.symbols
            deviation = spent.std() / np.sqrt(messages)
            assert abs(spent.mean() / size - float(qubits)) < 6 * deviation / size
