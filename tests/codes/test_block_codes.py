"""Codes: failure probabilities, residual errors, attempts and rates, against independent counts."""

import functools
import itertools

import codewords as ref
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

from jaxqring import (
    Retransmit,
    SymbolChannel,
    bell_diagonal,
    depolarizing,
    reed_solomon,
    superdense,
    werner,
)
from jaxqring.capacity._limits import break_even, thresholds
from jaxqring.codes import BlockCode, IdealCode, bch, repetition, secded
from jaxqring.codes._binomial import binomial_pmf, binomial_tail
from jaxqring.physics.channels import identity

UNEQUAL = [0.93, 0.04, 0.02, 0.01]
LOPSIDED = [0.985, 0.0, 0.001, 0.014]

# q and lost of the links, bare and heralded. 24 of each in every test: JAX compiles an incomplete
# beta function anew, in more than a second, for every shape that it meets.
BATCH = 24
BARE = [
    *(ref.werner_link(fidelity) for fidelity in (0.25, 0.8, 0.97, 0.985, 0.99, 0.999, 1.0)),
    ref.bell_link(UNEQUAL),
    ref.bell_link(LOPSIDED),
    ref.bell_link([0, 0, 0, 1.0]),
]
HERALDED = [
    *(
        ref.werner_link(fidelity, survival)
        for fidelity in (0.25, 0.97, 0.999, 1.0)
        for survival in (1.0, 0.99, 0.93, 0.3, 0.0)
    ),
    ref.bell_link(UNEQUAL, 0.97),
    ref.bell_link(LOPSIDED, 0.9),
]

CODES = {
    "rs(255,223)": reed_solomon(255, 223),
    "rs(255,222)": reed_solomon(255, 222),  # 33 check symbols, so that 33 erasures are corrected
    "rs(15,11)": reed_solomon(15, 11, symbol_bits=4),
    "bch(255,223)": bch(255, 223, 4),
    "secded(72,64)": secded(72, 64),
    "secded(7,3)": secded(7, 3),  # of odd length: filled up with one bit
    **{f"repetition({n})": repetition(n) for n in (2, 3, 4, 5)},
}
ERASURES = {
    "rs(255,223)": 32,
    "rs(255,222)": 33,
    "rs(15,11)": 4,
    "bch(255,223)": 8,
    "secded(72,64)": 3,
    "secded(7,3)": 3,
    "repetition(2)": 1,
    "repetition(3)": 2,
    "repetition(4)": 3,
    "repetition(5)": 4,
}
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
QUICK = [("rs(255,223)", False), ("bch(255,223)", False), ("repetition(4)", True)]


def fill(values):
    return [*values, *[values[-1]] * (BATCH - len(values))]


def stack(links, heralded):
    """The `SymbolChannel` of 24 links, the last repeated, from the transition matrix itself."""
    rows = []
    for q, lost in fill(links):
        matrix = np.array([[q[r ^ m] for m in range(4)] for r in range(4)])
        rows.append(np.vstack([matrix, np.full((1, 4), lost)]) if heralded else matrix)
    return SymbolChannel(jnp.asarray(np.array(rows), dtype=float))


def expected_failures(name, links):
    code = CODES[name]
    return np.array(
        [ref.failure_prob(q, lost, code.n, code.symbol_bits, ERASURES[name]) for q, lost in links]
    )


# --- The probability of failure -------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize(
    "name, heralded",
    [
        (name, heralded) if (name, heralded) in QUICK else further(name, heralded)
        for name in CODES
        for heralded in (False, True)
    ],
)
def test_the_failure_probability_is_that_of_the_convolved_weights(name, heralded):
    links = HERALDED if heralded else BARE
    expected = expected_failures(name, fill(links))
    with jax.enable_x64(True):
        got = CODES[name].failure_prob(stack(links, heralded))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)
    got = CODES[name].failure_prob(stack(links, heralded))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("n, k, bits", [(255, 223, 8), further(15, 11, 4), further(63, 50, 8)])
def test_without_loss_a_reed_solomon_word_fails_with_a_binomial_tail(n, k, bits):
    code = reed_solomon(n, k, symbol_bits=bits)
    fidelity = np.array(fill([0.25, 0.5, 0.9, 0.97, 0.99, 0.999, 1.0]))
    with jax.enable_x64(True):
        got = code.failure_prob(superdense(werner(fidelity=fidelity)))
        expected = binom.sf((n - k) // 2, n, 1 - fidelity ** (bits // 2))
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-14)


def test_the_links_of_superdense_coding_are_those_of_the_reference():
    with jax.enable_x64(True):
        for (q, lost), link in (
            (
                ref.werner_link(0.97, 0.9),
                superdense(werner(fidelity=0.97), survival=0.9, heralded=True),
            ),
            (ref.bell_link(UNEQUAL), superdense(bell_diagonal(UNEQUAL))),
        ):
            np.testing.assert_allclose(link.xor_probs, q, atol=1e-15)
            np.testing.assert_allclose(link.erasure_prob, lost, atol=1e-15)


# --- Every pattern of a small code ----------------------------------------------------------------

# code, erasures that its definition promises, links; enumerated over all patterns of all qubits.
TINY = {
    "repetition(3)": (repetition(3), 2),
    "(3,1,1,2)": (BlockCode(3, 1, 1, 2), 2),
    "repetition(4)": (repetition(4), 3),
    "(3,1,1,4)": (BlockCode(3, 1, 1, 4), 2),
    "(4,2,1,4)": (BlockCode(4, 2, 1, 4), 2),
    "(2,1,0,6), one erasure": (BlockCode(2, 1, 0, 6, erasures=1), 1),
    "bch(7,4)": (bch(7, 4, 1), 2),  # odd length: 8 bits are sent
    "(8,4), binary": (BlockCode(8, 4, 1, 1, erasures=3), 3),
    "bch(15,5,3)": (bch(15, 5, 3), 6),
}


# What the quick tests enumerate: an odd count, an even one, few erasures, and binary codes.
TINY_FIRST = ("repetition(3)", "(4,2,1,4)", "(2,1,0,6), one erasure", "bch(7,4)", "(8,4), binary")


@pytest.mark.parametrize("name", [name if name in TINY_FIRST else further(name) for name in TINY])
@pytest.mark.parametrize("heralded", [further(False), True])
def test_failures_and_residual_errors_are_those_of_all_patterns(name, heralded):
    code, erasures = TINY[name]
    links = [ref.bell_link([0.8, 0.1, 0.07, 0.03], 0.85 if heralded else 1.0)]
    if code.symbols < 8:
        links += [ref.werner_link(0.6, 0.5 if heralded else 1.0)]
    with jax.enable_x64(True):
        channel = stack(links, heralded)
        failure, left = code.failure_prob(channel), code.residual(channel)
        assert left.transition.shape == (BATCH, 4, 4)
        assert bool(left.is_xor_symmetric.all())
        for at, (q, lost) in enumerate(links):
            words, probs = ref.enumerate_words(q, lost, code.symbols)
            np.testing.assert_allclose(probs.sum(), 1, rtol=1e-12)
            failed = ref.fails(words, code.symbol_bits, erasures)
            np.testing.assert_allclose(failure[at], probs[failed].sum(), rtol=0, atol=1e-12)
            # All qubits of the payload are alike.
            for qubit in {0, code.payload_symbols - 1}:
                seen = ref.marginal(words, probs, failed, qubit)
                np.testing.assert_allclose(left.xor_probs[at], seen, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attempts, checksum", [(1, 1), (2, 1), (3, 2)])
def test_residual_errors_of_a_repeated_word_are_those_of_all_histories(attempts, checksum):
    # Attempt after attempt, every pattern of the four qubits of a binary code.
    protection = Retransmit(BlockCode(8, 4, 1, 1, erasures=3), attempts, checksum)
    q, lost = ref.bell_link([0.8, 0.1, 0.07, 0.03], 0.85)
    words, probs = ref.enumerate_words(q, lost, 4)
    failed = ref.fails(words, 1, 3)
    wrong = ref.marginal(words, probs * failed, failed, 0)  # patterns of failed words
    fails_once, missed = probs[failed].sum(), 2.0**-checksum
    here, ends = 1.0, 0.0
    for attempt in range(attempts):
        last = attempt == attempts - 1
        ends += here * (1.0 if last else missed)
        here *= fails_once * (1 - missed)
    seen = ends * wrong
    seen[0] = 1 - seen[1:].sum()
    with jax.enable_x64(True):
        left = protection.residual(stack([(q, lost)], heralded=True))
        np.testing.assert_allclose(left.xor_probs[0], seen, rtol=0, atol=1e-12)


# --- Shortened words ------------------------------------------------------------------------------

# code, its erasures, symbols of payload left, and the length of the word that holds them.
SHORT = {
    "rs": (reed_solomon(15, 11, symbol_bits=4), 4, 3, 6),  # 6 bits are two code symbols
    "secded": (secded(72, 64), 3, 2, 12),
    "bch(15,5,3)": (bch(15, 5, 3), 6, 1, 12),
    "odd": (bch(7, 4, 1), 2, 1, 5),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_shortened_word_is_the_full_one_with_zeros_that_cannot_be_wrong(name):
    code, erasures, payload, n = SHORT[name]
    short = code.shortened(payload)
    assert (short.n, short.n - short.k, short.t) == (n, code.n - code.k, code.t)
    assert short.payload_symbols >= payload
    q, lost = ref.bell_link([0.8, 0.1, 0.07, 0.03], 0.85 if name != "rs" else 1.0)
    with jax.enable_x64(True):
        channel = stack([(q, lost)], heralded=name != "rs")
        failure, left = short.failure_prob(channel), short.residual(channel)
        expected = ref.failure_prob(q, lost, n, code.symbol_bits, erasures)
        np.testing.assert_allclose(failure[0], expected, rtol=1e-12)
        assert (failure < code.failure_prob(channel)).all()
        if name == "rs":
            # In code symbols: 2 e <= 4, by the binomial distribution.
            once = 1 - q[0] ** 2
            np.testing.assert_allclose(failure[0], binom.sf(2, n, once), rtol=1e-12)
            return
        # Every pattern of the qubits that are sent.
        words, probs = ref.enumerate_words(q, lost, short.symbols)
        failed = ref.fails(words, code.symbol_bits, erasures)
        np.testing.assert_allclose(failure[0], probs[failed].sum(), rtol=1e-12)
        seen = ref.marginal(words, probs, failed, 0)
        np.testing.assert_allclose(left.xor_probs[0], seen, rtol=0, atol=1e-12)


def test_47_values_are_one_word_of_520_qubits():
    """376 symbols of payload and 32 bits of checksum fill 98 code symbols; 32 more are check."""
    protection = Retransmit(reed_solomon(255, 223))
    short = protection.shortened(376)
    assert short == Retransmit(BlockCode(130, 98, 16, 8, erasures=32))
    assert short.block.symbols == 520 == round(1.383 * 376)
    assert (short.payload_symbols, short.missed_fraction) == (376, 2.0**-32)
    # By the binomial tail of 130 code symbols, each of four qubits.
    prob = float(short.failure_prob(superdense(werner(fidelity=0.985))))
    np.testing.assert_allclose(prob, binom.sf(16, 130, 1 - 0.985**4), rtol=1e-4)
    assert protection.shortened(876) is protection
    # One symbol of payload and the checksum are 34 bits, which fill five code symbols.
    assert protection.shortened(1).block == BlockCode(37, 5, 16, 8, erasures=32)


@pytest.mark.parametrize("name", CODES)
def test_every_shortened_word_holds_its_payload_and_no_code_symbol_more(name):
    code = CODES[name]
    protections = [(code, 0)]
    if code.k * code.symbol_bits > 2:
        protections.append((Retransmit(code, 3, 1), 1))
    for protection, checksum in protections:
        for payload in range(1, protection.payload_symbols + 1):
            short = protection.shortened(payload)
            bits = code.symbol_bits
            (n,) = ref.word_lengths(payload, code.n, code.k, bits, checksum)
            assert short.block.n == n
            assert short.block.symbols == ref.word_qubits(n, bits)
            assert 2 * payload + checksum <= short.block.k * bits
            if payload < protection.payload_symbols:
                assert 2 * payload + checksum > (short.block.k - 1) * bits
            assert short.block.limit == code.limit
            assert short.attempts == protection.attempts
            assert short.missed_fraction == protection.missed_fraction


@pytest.mark.parametrize("symbols", [0, -1, 22, 1.5, True])
def test_a_word_is_shortened_to_what_it_can_hold(symbols):
    code = BlockCode(9, 7, 1, 6)
    with pytest.raises(ValueError, match="`symbols` must be"):
        code.shortened(symbols)


def reach_by_galois(n, most):
    """For t = 1, 2, ... the payload of the code whose zeros are the powers 1, ..., 2 t.

    By the degrees of minimal polynomials that galois finds, `most` of them at the most.
    """
    galois = pytest.importorskip("galois")
    field = galois.GF(n + 1)
    try:
        field.compile("python-calculate")  # to compile takes longer than to calculate
        powers = field.primitive_element ** np.arange(1, min(n, most + 1))
        polynomials = [power.minimal_poly() for power in powers]
    finally:
        field.compile("auto")
    found, degree, payload = set(), 0, []
    for power, polynomial in enumerate(polynomials, 1):
        if int(polynomial) not in found:
            found.add(int(polynomial))
            degree += polynomial.degree
        if power % 2 == 0:
            payload.append(n - degree)
    return payload


def reach_of_bch(n, k):
    """The largest t that `bch` does not refuse, and that it names when it refuses one more."""
    with pytest.raises(ValueError, match="`t` must be at most") as refusal:
        bch(n, k, n)
    most = int(str(refusal.value).split("at most ")[1].split(",")[0])
    assert bch(n, k, most).t == most
    with pytest.raises(ValueError, match=rf"`t` must be at most {most}, .* but got {most + 1}\."):
        bch(n, k, most + 1)
    return most


@pytest.mark.parametrize("n", [15, 31, 63, 127, 255, 511, 1023])
def test_bch_codes_correct_what_the_minimal_polynomials_of_galois_allow(n):
    """Every payload of the five shorter lengths; of the others what up to 30 errors leave."""
    complete = n <= 255
    payload = reach_by_galois(n, n if complete else 60)
    assert len(payload) == (n // 2 if complete else 30)
    for k in range(2 if complete else payload[-1] + 1, n):
        expected = sum(k <= each for each in payload)
        if complete or k in payload or k - 1 in payload or k % 50 == 0:
            assert reach_of_bch(n, k) == expected, k
        # A shortened code has the check bits, and the reach, of the code that it is cut from.
        short = min(k - 2, n // 2)
        if k in payload and short:
            assert reach_of_bch(n - short, k - short) == expected


@pytest.mark.parametrize(
    "n, k, t",
    [
        (127, 64, 10),
        (255, 131, 18),
        (1023, 923, 10),
        (1023, 553, 52),
        (511, 259, 30),
        (31, 11, 5),
        (63, 30, 6),
    ],
)
def test_bch_codes_are_those_of_the_published_table(n, k, t):
    """Lin and Costello, Error Control Coding, table 6.1."""
    assert reach_of_bch(n, k) == t


@pytest.mark.statistics
def test_a_real_decoder_corrects_shortened_words_exactly_up_to_the_reach():
    """Galois decodes a shortened RS(15, 11) of 8 code symbols, 5,000 words on Werner pairs.

    Six standard deviations of a binomial count: fails by chance with probability 2e-9.
    """
    galois = pytest.importorskip("galois")
    short = reed_solomon(15, 11, symbol_bits=4).shortened(8)
    assert (short.n, short.k) == (8, 4)
    q, lost = ref.werner_link(0.9)
    size = 5000
    rng = np.random.default_rng(5)
    decoder = galois.ReedSolomon(15, 11)
    sent = decoder.encode(decoder.field(rng.integers(0, 16, (size, 4))))
    assert sent.shape == (size, 8)
    kinds = draw_kinds(rng, q, lost, (size, 8, 2))
    errors = 4 * kinds[..., 0] + kinds[..., 1]
    decoded = decoder.decode(sent + decoder.field(errors), output="codeword")
    arrives = np.all(np.asarray(decoded) == np.asarray(sent), axis=1)
    within = (errors != 0).sum(axis=1) <= short.t
    np.testing.assert_array_equal(arrives, within)
    prob = float(short.failure_prob(superdense(werner(fidelity=0.9))))
    assert abs((~within).sum() - size * prob) < ref.binomial_band(size, prob)


# --- Real decoders --------------------------------------------------------------------------------


def gf16():
    """exp and log of GF(16), of the polynomial x^4 + x + 1."""
    powers = [1]
    for _ in range(14):
        double = powers[-1] << 1
        powers.append(double ^ 0b10011 if double & 16 else double)
    logs = {value: at for at, value in enumerate(powers)}
    return np.array(powers), logs


def syndromes_15_11(words):
    """(words,) the four syndromes of RS(15, 11) over GF(16), as one integer."""
    powers, _ = gf16()
    log = np.zeros(16, int)
    log[powers] = np.arange(15)
    total = np.zeros(len(words), int)
    for root in range(1, 5):
        terms = np.where(words > 0, powers[(log[words] + root * np.arange(15)) % 15], 0)
        total = 16 * total + np.bitwise_xor.reduce(terms, axis=1)
    return total


def draw_kinds(rng, q, lost, shape):
    return rng.choice(5, size=shape, p=np.append(q, lost))


def test_a_table_decoder_of_rs_15_11_fails_exactly_where_the_code_says():
    """Every pattern of up to two wrong symbols has a syndrome of its own; all else is a failure."""
    single = [[(at, value)] for at in range(15) for value in range(1, 16)]
    double = [
        [(i, a), (j, b)]
        for i, j in itertools.combinations(range(15), 2)
        for a in range(1, 16)
        for b in range(1, 16)
    ]
    patterns = np.zeros((1 + len(single) + len(double), 15), int)
    for row, errors in zip(patterns, [[], *single, *double], strict=True):
        for at, value in errors:
            row[at] = value
    table = {int(s): row for s, row in zip(syndromes_15_11(patterns), patterns, strict=True)}
    assert len(table) == len(patterns) == 1 + 225 + 105 * 225

    code = reed_solomon(15, 11, symbol_bits=4)
    q, lost = ref.werner_link(0.93)
    size = 6_000
    kinds = draw_kinds(np.random.default_rng(1), q, lost, (size, 15, 2))
    errors = 4 * kinds[..., 0] + kinds[..., 1]
    found = [table.get(int(s)) for s in syndromes_15_11(errors)]
    arrives = np.array(
        [f is not None and (f == e).all() for f, e in zip(found, errors, strict=True)]
    )
    beyond = (errors != 0).sum(axis=1) > code.t
    np.testing.assert_array_equal(arrives, ~beyond)
    # A word that is not corrected either is detected or is taken for another one close by.
    mistaken = np.array([f is not None for f in found]) & beyond
    assert 0 < mistaken.sum() < beyond.sum()
    # 6,000 words, six standard deviations: fails by chance with probability 2e-9.
    prob = float(code.failure_prob(superdense(werner(fidelity=0.93))))
    assert abs(beyond.sum() - size * prob) < ref.binomial_band(size, prob)


@pytest.mark.parametrize("n, k", [further(8, 4), (72, 64)])
def test_an_extended_hamming_code_fails_exactly_where_secded_says(n, k):
    """Its parity checks: the columns are all odd-weight ones of a kind, so that single errors have
    a syndrome each and double errors have none of them; three erasures have one solution."""
    checks = n - k
    code = secded(n, k)
    low = np.arange(2 ** (checks - 1))[:n]
    columns = np.vstack([[(low >> bit) & 1 for bit in range(checks - 1)], np.ones(n, int)])
    assert columns.shape == (checks, n)
    value = (1 << np.arange(checks)) @ columns
    assert len(set(value)) == n
    rng = np.random.default_rng(2)
    fidelity, survival = (0.9, 0.9) if n == 8 else (0.985, 0.985)
    q, lost = ref.werner_link(fidelity, survival)
    size = 4_000
    kinds = draw_kinds(rng, q, lost, (size, n // 2))
    erased = np.repeat(kinds == ref.LOST, 2, axis=1)
    bits = np.stack([kinds >> 1, kinds & 1], axis=2).reshape(size, n)
    bits = np.where(erased, rng.integers(0, 2, bits.shape), bits)  # what lies in an erased place
    arrives = np.zeros(size, bool)
    for row in range(size):
        places = np.flatnonzero(erased[row])
        syndrome = int(np.bitwise_xor.reduce(value[bits[row] == 1], initial=0))
        arrives[row] = decodes(syndrome, bits[row], places, value)
    distance = 2 * ((bits == 1) & ~erased).sum(axis=1) + erased.sum(axis=1)
    # Errors and erasures within the distance of four are corrected ...
    assert arrives[distance <= code.erasures].all()
    # ... and not all others: a decoder that guessed could be luckier, this one gives up.
    assert not arrives[distance > code.erasures].any()
    # 4,000 words, six standard deviations: fails by chance with probability 2e-9.
    link = superdense(werner(fidelity=fidelity), survival=survival, heralded=True)
    prob = float(code.failure_prob(link))
    failed = size - arrives.sum()
    assert 0.02 < prob < 0.98
    assert abs(failed - size * prob) < ref.binomial_band(size, prob)


def decodes(syndrome, bits, erased, value):
    """Tells whether decoding with erasures brings back the word of zeros.

    Every filling of at most three erased places, with at most so many flips elsewhere that
    2 e + f stays below the distance of four; the first that satisfies all checks is taken.
    """
    if len(erased) > 3:
        return False
    flips = [None] if len(erased) >= 2 else [None, *sorted(set(range(len(value))) - set(erased))]
    for flip in flips:
        for filling in itertools.product((0, 1), repeat=len(erased)):
            found = syndrome if flip is None else syndrome ^ int(value[flip])
            for place, bit in zip(erased, filling, strict=True):
                found ^= int(value[place]) * (bit ^ int(bits[place]))
            if found == 0:
                right = bits.copy()
                right[erased] = filling
                if flip is not None:
                    right[flip] ^= 1
                return not right.any()
    return False


# numba compiles the field on first use, a quarter of a minute for each.
@pytest.mark.statistics
@pytest.mark.filterwarnings("default")  # of numba's, which says what it will deprecate
@pytest.mark.parametrize(
    "n, k, bits, fidelity, size", [(255, 223, 8, 0.985, 2000), (15, 11, 4, 0.93, 20_000)]
)
def test_galois_decodes_exactly_the_words_that_the_code_says(n, k, bits, fidelity, size):
    galois = pytest.importorskip("galois")
    decoder = galois.ReedSolomon(n, k)
    code = reed_solomon(n, k, symbol_bits=bits)
    assert (decoder.t, decoder.d) == (code.t, n - k + 1)
    rng = np.random.default_rng(3)
    q, lost = ref.werner_link(fidelity)
    kinds = draw_kinds(rng, q, lost, (size, n, bits // 2))
    errors = (kinds * 4 ** np.arange(bits // 2)).sum(axis=2)
    field = decoder.field
    sent = decoder.encode(field(rng.integers(0, 2**bits, (size, k)).astype(np.uint8)))
    received = sent + field(errors.astype(np.uint8))
    decoded, corrected = decoder.decode(received, output="codeword", errors=True)
    decoded, corrected = np.asarray(decoded), np.asarray(corrected)
    wrong = (errors != 0).sum(axis=1)
    beyond = wrong > code.t
    arrives = (decoded == np.asarray(sent)).all(axis=1) & (corrected >= 0)
    np.testing.assert_array_equal(arrives, ~beyond)
    np.testing.assert_array_equal(corrected[~beyond], wrong[~beyond])
    # Of the words beyond reach, about one in t! is taken for another codeword.
    mistaken = (corrected >= 0) & beyond
    assert mistaken.sum() == 0 if code.t == 16 else 0 < mistaken.sum() < beyond.sum()
    # `size` words, six standard deviations: fails by chance with probability 2e-9.
    prob = float(code.failure_prob(superdense(werner(fidelity=fidelity))))
    assert 0.02 < prob < 0.98
    assert abs(beyond.sum() - size * prob) < ref.binomial_band(size, prob)


# --- Attempts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [1, 2, 3])
def test_attempts_undelivered_words_and_rates_follow_the_tree_of_attempts(checksum):
    code = BlockCode(15, 11, 2, 4)
    fidelity = np.array(fill([0.25, 0.8, 0.93, 0.97, 0.999, 1.0]))
    fails = [ref.failure_prob(*ref.werner_link(f), 15, 4, 4) for f in fidelity]
    with jax.enable_x64(True):
        channel = superdense(werner(fidelity=fidelity))
        for attempts in (1, 2, 3, 8):
            protection = Retransmit(code, attempts, checksum)
            tree = [ref.attempts_tree(p, 2.0**-checksum, attempts) for p in fails]
            mean, wrong = np.array(tree).T
            np.testing.assert_allclose(protection.expected_attempts(channel), mean, rtol=1e-11)
            np.testing.assert_allclose(
                protection.undelivered_prob(channel), wrong, rtol=1e-10, atol=1e-13
            )
            # 44 bits of payload less the checksum, in whole symbols; 30 qubits a word.
            payload = (44 - checksum) // 2
            np.testing.assert_allclose(
                protection.net_rate(channel),
                2 * payload * (1 - wrong) / (30 * mean),
                rtol=1e-10,
                atol=1e-13,
            )


def test_a_block_code_alone_is_sent_once():
    code = repetition(3)
    with jax.enable_x64(True):
        channel = superdense(werner(fidelity=np.array(fill([0.5, 0.9, 1.0]))))
        np.testing.assert_array_equal(code.expected_attempts(channel), np.ones(BATCH))
        fails = code.failure_prob(channel)
        np.testing.assert_array_equal(code.undelivered_prob(channel), fails)
        np.testing.assert_allclose(code.net_rate(channel), 2 / 3 * (1 - fails), rtol=1e-14)


GRADED = {
    "retransmitted rs(255,223)": (Retransmit(reed_solomon(255, 223)), (0.97, 0.985, 0.999)),
    "retransmitted rs(15,11)": (
        Retransmit(reed_solomon(15, 11, symbol_bits=4), 3, 2),
        (0.3, 0.9, 0.97, 0.999),
    ),
    "retransmitted bch(255,223)": (Retransmit(bch(255, 223, 4), 5, 3), (0.5, 0.97, 0.999)),
    "secded(72,64)": (secded(72, 64), (0.9, 0.97, 0.999)),
    "repetition(3)": (repetition(3), (0.3, 0.9, 0.999)),
    "ideal": (IdealCode(0.1), (0.85, 0.97, 0.999)),
}


def quantities(protection, heralded):
    """fidelity, survival -> expected attempts and net rate."""

    def both(fidelity, survival):
        loss = {"survival": survival, "heralded": True} if heralded else {}
        channel = superdense(werner(fidelity=fidelity), **loss)
        rate = protection.net_rate(channel)
        if isinstance(protection, IdealCode):
            return jnp.stack([rate, rate])
        return jnp.stack([protection.expected_attempts(channel), rate])

    return both


GRADED_FIRST = ("retransmitted rs(15,11)", "ideal")


@pytest.mark.parametrize("name", [x if x in GRADED_FIRST else further(x) for x in GRADED])
@pytest.mark.parametrize("heralded", [further(False), True])
def test_derivatives_are_those_of_finite_differences(name, heralded):
    protection, fidelities = GRADED[name]
    both = quantities(protection, heralded)
    with jax.enable_x64(True):
        point = (jnp.array(fill(fidelities)), jnp.full(BATCH, 0.985))
        for argument in range(1 + heralded):
            direction = [jnp.zeros(BATCH), jnp.zeros(BATCH)]
            direction[argument] = jnp.ones(BATCH)
            _, slope = jax.jvp(both, point, tuple(direction))
            h = 1e-6
            ahead, behind = (
                both(*(x + sign * h * d for x, d in zip(point, direction, strict=True)))
                for sign in (1, -1)
            )
            np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=2e-4, atol=1e-6)
            assert np.abs(np.asarray(slope)).max() > 0.1
            backward = jax.grad(lambda *at: jnp.sum(both(*at)), argnums=argument)(*point)
            np.testing.assert_allclose(backward, slope.sum(axis=0), rtol=1e-9, atol=1e-9)


ENDS = [(f, s) for f in (0.25, 0.5, 0.9, 1.0) for s in (0.0, 1e-3, 0.5, 0.9, 0.999, 1.0)]


@pytest.mark.matrix
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", GRADED)
def test_values_and_two_derivatives_are_finite_at_the_ends(name, wide):
    protection, _ = GRADED[name]
    both = quantities(protection, heralded=True)
    with jax.enable_x64(wide):
        fidelity, survival = jnp.array(ENDS, dtype=float).T
        ones = jnp.ones(BATCH)
        for direction in ((ones, 0 * ones), (0 * ones, ones)):

            def first(*at, direction=direction):
                return jax.jvp(both, at, direction)

            ((value, slope), (_, curvature)) = jax.jvp(first, (fidelity, survival), direction)
            assert np.isfinite(np.asarray(value)).all()
            assert np.isfinite(np.asarray(slope)).all()
            # An entropy has derivatives of first order only; `quantum.information` says so.
            assert isinstance(protection, IdealCode) or np.isfinite(np.asarray(curvature)).all()


# --- Rates ----------------------------------------------------------------------------------------


def test_without_noise_or_gap_the_ideal_code_carries_two_bits():
    for wide in (False, True):
        with jax.enable_x64(wide):
            assert float(IdealCode(0).net_rate(superdense(werner(fidelity=1.0)))) == 2.0
            assert float(IdealCode(0.25).net_rate(superdense(werner(fidelity=1.0)))) == 1.75
            assert float(IdealCode(0.25).net_rate(superdense(werner(fidelity=0.25)))) == 0.0


RATED = [
    IdealCode(),
    IdealCode(0.2),
    Retransmit(reed_solomon(255, 223)),
    Retransmit(reed_solomon(255, 127), 3),
    Retransmit(bch(255, 223, 4), 1000),
    Retransmit(secded(72, 64), 1000, 8),
    reed_solomon(15, 11, symbol_bits=4),
]


# Words of a few symbols are not among them: a lucky guess arrives exact, too, and `net_rate` counts
# it (repetition(2) on white noise: one word in 16), though no receiver could tell.
@pytest.mark.matrix
@pytest.mark.parametrize("code", [RATED[5], *map(further, RATED[:5] + RATED[6:])], ids=repr)
def test_no_code_beats_the_capacity_of_its_link(code):
    fidelities = [*np.linspace(0.25, 1.0, 20), 0.995, 0.999]
    with jax.enable_x64(True):
        for survival in (1.0, 0.9, 0.5, 0.0):
            link = stack([ref.werner_link(f, survival) for f in fidelities], heralded=True)
            check_rate(code, link)
        uneven = [ref.bell_link(UNEQUAL, s) for s in np.linspace(0, 1, BATCH)]
        check_rate(code, stack(uneven, heralded=True))


def check_rate(code, link):
    got, most = np.asarray(code.net_rate(link)), np.asarray(link.capacity())
    assert (got <= most + 1e-6).all()
    assert (got >= -1e-12).all()
    if isinstance(code, IdealCode):
        np.testing.assert_allclose(got, np.maximum(most - code.gap, 0), atol=1e-6)


def test_the_ideal_code_breaks_even_where_superdense_coding_does():
    known = thresholds()
    cases = {
        "werner_fidelity": (lambda f: superdense(werner(fidelity=f)), 0.25, 1.0),
        "depolarizing_mix": (
            lambda mix: superdense(werner(fidelity=1.0), sent=depolarizing(mix=mix)),
            0.0,
            1.0,
        ),
        "erasure_prob": (
            lambda loss: superdense(
                werner(fidelity=1.0), sent=identity(), survival=1 - loss, heralded=True
            ),
            0.0,
            1.0,
        ),
    }
    for name, (link, low, high) in cases.items():
        found = break_even(lambda noise, link=link: IdealCode().net_rate(link(noise)), low, high)
        assert found == pytest.approx(known[name], abs=1e-6)
    assert known["werner_fidelity"] == pytest.approx(0.810710, abs=1e-6)


# --- Binomial probabilities -----------------------------------------------------------------------

TOTALS = np.array([1, 2, 5, 63, 255])
COUNTS = [-1, 0, 1, 4, 16, 62, 255]


def test_binomial_probabilities_are_those_of_scipy():
    inside = np.array([0.0, 1e-6, 0.01, 0.3, 0.5, 0.99, 1.0])
    count, total = np.meshgrid(COUNTS, TOTALS, indexing="ij")
    with jax.enable_x64(True):
        prob = jnp.asarray(inside)[:, None, None]
        pmf, tail = binomial_pmf(count, total, prob), binomial_tail(count, total, prob)
        grid = (count[None], total[None], inside[:, None, None])
        np.testing.assert_allclose(pmf, binom.pmf(*grid), rtol=1e-10, atol=1e-300)
        np.testing.assert_allclose(tail, binom.sf(*grid), rtol=1e-9, atol=1e-14)
        assert pmf.dtype == tail.dtype == jnp.float64
    assert binomial_pmf(count, total, prob.astype(jnp.float32)).dtype == jnp.float32


def polynomials(count, total):
    """pmf and tail as exact polynomials of the probability."""
    base, other = np.polynomial.Polynomial([0, 1]), np.polynomial.Polynomial([1, -1])

    def pmf(k):
        ways = binom.pmf(k, total, 0.5) * 2.0**total
        return np.rint(ways) * base**k * other ** (total - k)

    zero = np.polynomial.Polynomial([0.0])
    tail = sum((pmf(k) for k in range(max(count + 1, 0), total + 1)), zero)
    return (pmf(count) if 0 <= count <= total else zero), tail


def test_binomial_derivatives_are_those_of_the_polynomial_to_second_order():
    points = jnp.asarray
    cases = [(-1, 3), (0, 1), (0, 3), (1, 3), (2, 3), (3, 3), (4, 3), (2, 6), (6, 6)]
    count, total = np.array(cases).T
    with jax.enable_x64(True):

        def values(p):
            return binomial_pmf(count, total, p), binomial_tail(count, total, p)

        def first(p):
            return jax.jvp(values, (p,), (jnp.ones_like(p),))[1]

        def second(p):
            return jax.jvp(first, (p,), (jnp.ones_like(p),))[1]

        at = np.array([0.0, 0.2, 0.7, 1.0])
        grids = jax.jit(jax.vmap(lambda p: (values(p), first(p), second(p))))(points(at))
        for column, case in enumerate(cases):
            for kind, exact in enumerate(polynomials(*case)):
                for order in range(3):
                    got = np.asarray(grids[order][kind])[:, column]
                    expected = exact.deriv(order)(at) if order else exact(at)
                    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)
