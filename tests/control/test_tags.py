"""Polynomials, hashes and tags beside another arithmetic, and every forgery of short ones."""

import itertools

import galois
import jax
import numpy as np
import pytest
from refused import check_refusal

from jaxqring.control import (
    HashKey,
    best_forgery,
    forgery_bound,
    hash_matrix,
    irreducible_polynomial,
    irreducible_polynomials,
    is_irreducible,
    lfsr_hash,
    tag,
    tag_holds,
    tag_length,
)

AES = 0b100011011


def bits_of(number, width):
    return [(number >> place) & 1 for place in range(width - 1, -1, -1)]


def product(one, other):
    """The product of polynomials over GF(2)."""
    return np.bitwise_xor.reduce([one << at for at in range(64) if other >> at & 1] or [0])


def remainder(number, divisor):
    for at in range(int(number).bit_length() - divisor.bit_length(), -1, -1):
        if number >> (at + divisor.bit_length() - 1) & 1:
            number ^= divisor << at
    return number


def test_irreducible_polynomials_are_no_products():
    for degree in (1, 2, 3, 6):
        reducible = {
            int(product(one, other))
            for low in range(1, degree // 2 + 1)
            for one in range(1 << low, 2 << low)
            for other in range(1 << (degree - low), 2 << (degree - low))
        }
        want = set(range(1 << degree, 2 << degree)) - reducible
        assert irreducible_polynomials(degree) == sorted(want)
    assert [len(irreducible_polynomials(degree)) for degree in (6, 8, 10)] == [9, 30, 99]


def test_long_ones_are_known_to_another_library_and_drawn_from_the_key():
    drawn = [irreducible_polynomial(jax.random.key(seed), 38) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for each in drawn[1:]:
        assert each.bit_length() == 39
        for near in (each, each ^ 0b110):
            assert is_irreducible(near) == galois.Poly.Int(near).is_irreducible()


def test_the_hash_of_one_is_as_worked_out_by_hand():
    assert lfsr_hash(bits_of(0x3F800000, 32), 0xA5, AES) == 0x78


def test_a_hash_is_a_product_of_polynomials():
    rng = np.random.default_rng(0)
    for size, polynomial in ((5, 0b1011), (32, AES), (40, 0b10000001001)):
        degree = polynomial.bit_length() - 1
        message = rng.integers(0, 2, size)
        state = int(rng.integers(0, 1 << degree))
        as_polynomial = int(sum(1 << at for at in range(size) if message[at]))
        want = remainder(int(product(as_polynomial, state)), polynomial)
        assert lfsr_hash(message, state, polynomial) == want
        narrow = (np.int8(state % 128), np.int16(polynomial))
        assert lfsr_hash(np.uint8(message), *narrow) == lfsr_hash(message, state % 128, polynomial)
        rows = hash_matrix(size, state, polynomial) @ message % 2
        assert rows.tolist() == bits_of(want, degree)


def test_no_forgery_of_a_short_tag_beats_the_best_one():
    """Of three bits, by the tags themselves: every message, its tag, and what that tells."""
    keys = [
        (HashKey(polynomial, state), pad)
        for polynomial in (0b1011, 0b1101)
        for state in range(8)
        for pad in range(8)
    ]
    messages = list(itertools.product((0, 1), repeat=3))
    tags = np.array([[tag(message, key, pad) for message in messages] for key, pad in keys])
    best = 0.0
    for seen, forged in itertools.permutations(range(8), 2):
        both = np.zeros((8, 8))
        np.add.at(both, (tags[:, seen], tags[:, forged]), 1)
        assert (both.sum(axis=1) == len(keys) / 8).all()  # a tag says nothing of the hash
        best = max(best, (both / both.sum(axis=1, keepdims=True)).max())
    assert best == best_forgery(3, 3) <= forgery_bound(3, 3)


def test_all_forgeries_of_six_bits():
    assert best_forgery(8, 6) == 0.125
    assert forgery_bound(8, 6) == 0.25
    for message_bits, length in ((1, 2), (4, 4), (10, 5)):
        exact = best_forgery(message_bits, length)
        assert 2.0**-length <= exact <= forgery_bound(message_bits, length)


def test_a_message_of_another_length_is_another_one():
    # All messages of up to four bits: their hashes differ in all but m / 2^n of the states, m being
    # five with the one at the end. Without that one, zeros at the end would cost nothing.
    messages = [each for size in (1, 2, 3, 4) for each in itertools.product((0, 1), repeat=size)]
    polynomials, states = irreducible_polynomials(5), range(32)
    tags = np.array(
        [
            [tag(message, HashKey(each, state), 0) for each in polynomials for state in states]
            for message in messages
        ]
    )
    for one, other in itertools.combinations(range(len(messages)), 2):
        worth = max(np.mean(tags[one] ^ tags[other] == change) for change in states)
        assert worth <= forgery_bound(5, 5)
    assert not tag_holds([1, 0, 1, 0], tag([1, 0, 1], HashKey(AES, 7), 3), HashKey(AES, 7), 3)


def test_lengths_keep_the_bound():
    assert [tag_length(size, 1e-10) for size in (8, 32, 1_000_000)] == [38, 40, 55]
    for size, forgery in ((8, 1e-10), (1000, 0.3), (1, 0.5)):
        length = tag_length(size, forgery)
        assert size * 2.0 ** (1 - length) <= forgery < size * 2.0 ** (2 - length)


def test_an_altered_message_or_tag_is_seen():
    key, message = HashKey(AES, 0xA5), bits_of(0b10110101, 8)
    made = tag(message, key, 0x3C)
    assert tag_holds(message, made, key, 0x3C)
    for at in range(8):
        assert not tag_holds(message, made ^ 1 << at, key, 0x3C)
        other = [bit ^ (place == at) for place, bit in enumerate(message)]
        assert not tag_holds(other, made, key, 0x3C)  # one bit alters a hash for every key but zero


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: is_irreducible(1), ValueError, ["`polynomial`", "1"]),
        (lambda: irreducible_polynomials(17), ValueError, ["`degree`", "16"]),
        (lambda: irreducible_polynomial(jax.random.key(0), 1), ValueError, ["`degree`", "1"]),
        (lambda: irreducible_polynomial(0, 8), TypeError, ["`key`", "typed key"]),
        (lambda: lfsr_hash([], 1, AES), ValueError, ["`message`", "one or more bits"]),
        (lambda: lfsr_hash([2], 1, AES), ValueError, ["`message`", "[2]"]),
        (lambda: lfsr_hash([1], 256, AES), ValueError, ["`state`", "255", "256"]),
        (lambda: lfsr_hash([1], 1, 0b101), ValueError, ["`polynomial`", "irreducible"]),
        (lambda: hash_matrix(0, 1, AES), ValueError, ["`size`", "0"]),
        (lambda: HashKey(0b101, 1), ValueError, ["`polynomial`", "irreducible"]),
        (lambda: HashKey(AES, -1), ValueError, ["`state`", "-1"]),
        (lambda: tag([1], (AES, 1), 0), TypeError, ["`key`", "HashKey"]),
        (lambda: tag([1], HashKey(AES, 1), 256), ValueError, ["`pad`", "256"]),
        (lambda: tag_length(8, 0.0), ValueError, ["`forgery`", "(0, 1)"]),
        (lambda: best_forgery(13, 6), ValueError, ["`message_bits`", "13"]),
        (lambda: best_forgery(8, 9), ValueError, ["`length`", "9"]),
    ],
)
def test_what_is_no_polynomial_hash_or_message_is_refused(call, error, words):
    check_refusal(call, error, words)
