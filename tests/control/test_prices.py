"""The price of authenticated scales, beside the payload's."""

import itertools
import math

import jax
import numpy as np
import pytest
from refused import check_refusal

import jaxqring as jq
from jaxqring.control import authenticated_scales, key_rate
from jaxqring.secure._rates import asymptotic_mask_rate

GOOD = jq.werner(fidelity=0.99)


def errors_of(pair):
    """Probabilities that outcomes along Z, and along X, differ, from the density matrix."""
    rho = np.asarray(pair.density_matrix())
    along_x = np.array([[1, 1], [1, -1]]) / math.sqrt(2)
    turned = np.kron(along_x, along_x) @ rho @ np.kron(along_x, along_x)
    return [float((state[1, 1] + state[2, 2]).real) for state in (rho, turned)]


def test_the_rate_of_key_follows_the_errors_along_z_and_x():
    pairs = [GOOD, jq.bell_diagonal([0.9, 0.06, 0.03, 0.01]), jq.werner(fidelity=1.0)]
    for pair in pairs:
        along_z, along_x = errors_of(pair)
        entropies = [
            -sum(p * math.log2(p) for p in (error, 1 - error) if p > 1e-7)
            for error in (along_z, along_x)
        ]
        assert float(key_rate(pair)) == pytest.approx(1 - sum(entropies), abs=5e-6)
        assert float(key_rate(pair)) == pytest.approx(
            asymptotic_mask_rate(along_x, along_z), abs=5e-6
        )
    assert float(key_rate(GOOD)) == pytest.approx(0.884, abs=5e-4)
    assert float(key_rate(jq.werner(fidelity=0.7))) == 0


def test_the_price_of_signed_scales_of_a_training():
    """Eight signers, 250 steps, 290,528 pairs of payload over each of eight links in a step."""
    price = authenticated_scales(1, 9, GOOD, method="signatures")
    assert (price.message_bits, price.length, price.key_bits) == (8, 38, 114)
    assert 250 * price.receiver_bits == 228_000
    pairs = 250 * float(price.pairs)
    assert pairs == pytest.approx(228_000 / 0.884, rel=1e-3)
    assert pairs == pytest.approx(0.26e6, rel=0.01)
    assert pairs / (250 * 290_528 * 8) == pytest.approx(0.00044, abs=1e-5)  # one receiver's


@pytest.mark.parametrize("nodes", [3, 4, 8])
def test_bits_over_a_link_are_those_of_all_messages_on_their_way(nodes):
    tags = authenticated_scales(6, nodes, GOOD)
    message, length = 48, tags.length
    # Each node's message goes over N - 1 links, with the tags of the receivers still to come.
    sent = sum(message + ahead * length for ahead in range(1, nodes)) * nodes
    assert tags.control_bits == sent / nodes
    assert (tags.key_bits, tags.setup_bits) == (length, 2 * length)
    signed = authenticated_scales(6, nodes, GOOD, method="signatures")
    # Shares of 3n bits of each of N - 1 receivers of each of N signers, passed on link by link
    # until all other receivers have them.
    links = 0
    for signer, receiver in itertools.permutations(range(nodes), 2):
        missing, at = set(range(nodes)) - {signer, receiver}, receiver
        while missing:
            at = (at + 1) % nodes
            missing.discard(at)
            links += 1
    shares = links * 3 * length
    sent = nodes * (nodes - 1) * (message + 2 * length) + shares
    assert signed.control_bits == sent / nodes
    assert signed.receiver_bits == (nodes - 1) * 3 * length


def test_pairs_follow_the_fidelity_and_are_infinite_without_a_key():
    batch = authenticated_scales(1, 4, jq.werner(fidelity=np.array([0.99, 0.95, 0.7])))
    assert batch.pairs[0] < batch.pairs[1] < batch.pairs[2] == np.inf
    assert "inf" in str(batch)

    def pairs(fidelity):
        return authenticated_scales(1, 4, jq.werner(fidelity=fidelity)).pairs

    slope, near = jax.grad(pairs)(0.95), (pairs(0.951) - pairs(0.949)) / 0.002
    assert float(slope) == pytest.approx(float(near), rel=0.01)
    assert float(jax.grad(pairs)(0.7)) == 0  # infinite all around


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: authenticated_scales(0, 4, GOOD), ValueError, ["`leaves`", "0"]),
        (lambda: authenticated_scales(1, 1, GOOD), ValueError, ["`num_nodes`", "2"]),
        (
            lambda: authenticated_scales(1, 2, GOOD, method="signatures"),
            ValueError,
            ["`num_nodes`", "3"],
        ),
        (lambda: authenticated_scales(1, 4, GOOD, method="qds"), ValueError, ["`method`", "qds"]),
        (lambda: authenticated_scales(1, 4, 0.99), TypeError, ["`pair`", "Pair"]),
        (lambda: authenticated_scales(1, 4, GOOD, forgery=1.0), ValueError, ["`forgery`", "1"]),
        (lambda: key_rate(0.99), TypeError, ["`pair`", "Pair"]),
    ],
)
def test_numbers_out_of_range_are_refused(call, error, words):
    check_refusal(call, error, words)
