"""Signatures of a few bits: whoever deviates, in every way there is."""

import itertools

import jax
import numpy as np
import pytest
from refused import check_refusal

from jaxqring.control import (
    Shares,
    best_forgery,
    deal,
    forgery_bound,
    irreducible_polynomial,
    irreducible_polynomials,
    sign,
    signature_holds,
)

LENGTH, POLYNOMIALS = 3, (0b1011, 0b1101)
MESSAGES = list(itertools.product((0, 1), repeat=2))


def test_both_receivers_find_what_was_signed_and_nothing_else():
    signer, first, second = deal(jax.random.key(4), 38)
    assert signer == first + second
    message = [0, 1, 1, 0, 0, 1, 0, 1]
    signature = sign(message, signer, irreducible_polynomial(jax.random.key(5), 38))
    assert signature.bit_length() <= 76
    for own, others in ((first, second), (second, first)):
        assert signature_holds(message, signature, own, others)
        assert not signature_holds([*message[:-1], 0], signature, own, others)
        assert not signature_holds([*message, 0], signature, own, others)
        assert not signature_holds(message, signature ^ 1 << 40, own, others)
    _, other, _ = deal(jax.random.key(6), 38)
    assert not signature_holds(message, signature, first, other)


def hashes(length, message_bits, polynomial):
    """(2^m, 2^n) by message and state: the message as a polynomial, times the state, reduced."""
    states = np.arange(1 << length)
    found = np.tile(states, (1 << message_bits, 1))  # of the one behind the last bit
    for place in range(message_bits):  # Horner's rule, from the highest coefficient
        found <<= 1
        found ^= (found >> length) * polynomial
        # The bit that comes first is the lowest coefficient, as it meets the initial state.
        ones = np.arange(1 << message_bits) >> place & 1
        found ^= ones[:, None] * states
    return found


def best_alteration(length, message_bits, polynomials):
    """The most of the keys that any alteration is accepted with, and of one to the hash alone."""
    table = {each: hashes(length, message_bits, each) for each in polynomials}
    states, messages = np.arange(1 << length), np.arange(1 << message_bits)
    best = {}
    for low, shift in itertools.product(range(1 << length), range(1 << length)):
        wins = np.zeros((messages.size, messages.size, 1 << length))
        for each in polynomials:
            if each ^ low in table:  # any other is found reducible
                high = table[each][:, None] ^ table[each ^ low][None, :, states ^ shift]
                np.add.at(wins, (messages[:, None, None], messages[None, :, None], high), 1)
        wins[messages, messages] = 0
        best[low, shift] = wins.max() / (len(polynomials) << length)
    return max(best.values()), best[0, 0]


def test_no_first_receiver_forges_more_often_than_the_bound():
    """The first receiver alters message, signature and its own shares before it passes them on.

    It knows its shares and the signature of one message, and nothing of the second one's shares:
    the hash and the polynomial stay under the pad, so that only what it adds to them counts. All
    additions to the state, the polynomial and the hash, in another arithmetic than the package's.
    """
    found = {}
    for length, message_bits in ((3, 2), (3, 4), (4, 3), (5, 4)):
        polynomials = irreducible_polynomials(length)
        best, of_hash = best_alteration(length, message_bits, polynomials)
        assert of_hash == best_forgery(message_bits, length)
        assert best <= forgery_bound(message_bits, length)
        found[length, message_bits] = best, of_hash
    # Additions to the hidden polynomial gain more than a tag would allow, within the bound.
    assert found == {
        (3, 2): (3 / 8, 1 / 8),
        (3, 4): (1.0, 9 / 16),
        (4, 3): (1 / 4, 1 / 16),
        (5, 4): (17 / 96, 1 / 32),
    }


def test_alterations_are_accepted_as_in_that_arithmetic():
    table = {each: hashes(LENGTH, 2, each) for each in POLYNOMIALS}
    rng, accepted = np.random.default_rng(0), 0
    for _ in range(600):
        key, shift, low, high = rng.integers(0, (16, 8, 8, 8)).tolist()
        polynomial, state = POLYNOMIALS[key // 8], key % 8
        sent, forged = rng.permutation(4)[:2].tolist()
        want = False
        if polynomial ^ low in table:
            altered = table[polynomial ^ low][forged, state ^ shift]
            want = altered == table[polynomial][sent, state] ^ high
        pads = rng.integers(0, 64, 2).tolist()
        first = Shares(int(rng.integers(8)), pads[0], LENGTH)
        second = Shares(first.state ^ state, pads[1], LENGTH)
        signature = sign(MESSAGES[sent], first + second, polynomial)
        shown = Shares(first.state ^ shift, first.pad, LENGTH)
        found = signature_holds(MESSAGES[forged], signature ^ high << 3 ^ low, second, shown)
        assert found == want
        accepted += found
    assert accepted > 5


def test_no_signer_has_one_receiver_accept_and_the_other_refuse():
    """All signatures that a signer may send: both receivers, who have the same, find the same."""
    first, second = Shares(0b011, 0b110010, LENGTH), Shares(0b110, 0b011001, LENGTH)
    accepted = 0
    for message, signature in itertools.product(MESSAGES, range(64)):
        verdicts = {
            signature_holds(message, signature, first, second),
            signature_holds(message, signature, second, first),
        }
        assert len(verdicts) == 1
        accepted += verdicts == {True}
    assert accepted == len(MESSAGES) * len(POLYNOMIALS)  # one hash for each polynomial


def test_a_share_alone_and_the_signature_leave_all_messages_alike():
    """Whatever the first receiver holds, each message fits as many shares of the second one."""
    first = Shares(0b011, 0b110010, LENGTH)
    for signature in (0, 37):
        fits = [
            sum(
                signature_holds(message, signature, first, Shares(state, pad, LENGTH))
                for state in range(8)
                for pad in range(64)
            )
            for message in MESSAGES
        ]
        assert fits == [16] * 4


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Shares(8, 0, 3), ValueError, ["`state`", "8"]),
        (lambda: Shares(0, 64, 3), ValueError, ["`pad`", "64"]),
        (lambda: Shares(0, 0, 1), ValueError, ["`length`", "1"]),
        (lambda: Shares(0, 0, 3) + Shares(0, 0, 4), ValueError, ["`other`", "length 3", "4"]),
        (lambda: deal(0, 3), TypeError, ["`key`", "typed key"]),
        (lambda: deal(jax.random.key(0), 129), ValueError, ["`length`", "129"]),
        (lambda: sign([1], (0, 0, 3), 0b1011), TypeError, ["`secrets`", "Shares"]),
        (lambda: sign([1], Shares(0, 0, 3), 0b111), ValueError, ["`polynomial`", "degree 3"]),
        (lambda: sign([1], Shares(0, 0, 3), 0b1111), ValueError, ["`polynomial`", "irreducible"]),
        (
            lambda: signature_holds([1], 64, Shares(0, 0, 3), Shares(0, 0, 3)),
            ValueError,
            ["`signature`", "64"],
        ),
    ],
)
def test_secrets_of_another_length_are_refused(call, error, words):
    check_refusal(call, error, words)
