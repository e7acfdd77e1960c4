"""Sums are wrong by the law of the states, and put right by the correction or not delivered."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2
from secure_calls import (
    AXIS,
    BARE,
    KEY,
    assert_same_bits,
    dephased,
    first,
    levels_of,
    noisy,
    over_keys,
    payload,
    plain,
    quiet,
    secure,
)

from jaxqring import GHZSource
from jaxqring._threefry import cipher_key
from jaxqring.codes import bch
from jaxqring.secure import Security, masks, sum_error_law
from jaxqring.secure._sum_correction import chunk_errors

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


# --- Wrong sums -----------------------------------------------------------------------------------


def summed_law(law, count):
    """The distribution of the sum mod 2^b of that many independent draws."""
    return np.fft.ifft(np.fft.fft(law) ** count).real


@pytest.mark.parametrize(
    "bits, security",
    [further(4, Security()), (4, BARE), further(6, Security(bucket=5)), further(6, BARE)],
)
def test_sums_are_off_by_the_law_of_the_masks(vmapped, bits, security):
    """60,000 coordinates; chi-square, to fail by chance with a probability of 1e-7."""
    nodes, source = 3, dephased(3, 0.02)
    x = payload(nodes, 60_000)
    total, report = vmapped(secure(security=security), nodes, shared=4)(
        x, quiet(bits), source, None, KEY
    )
    exact, _ = vmapped(plain(), nodes, shared=2)(x, quiet(bits), None)
    off = (levels_of(total[0], x, bits) - levels_of(exact[0], x, bits)) % 2**bits
    law = summed_law(np.asarray(sum_error_law(source.visibility, bits), float), security.summed)
    counts = np.bincount(off, minlength=2**bits)
    np.testing.assert_allclose(law.sum(), 1, atol=1e-5)
    statistic = np.sum((counts - off.size * law) ** 2 / (off.size * law))
    assert (off.size * law).min() > 5
    assert statistic < chi2.isf(1e-7, 2**bits - 1)
    seen = first(report)
    assert seen.wrong_sums == seen.uncorrected == (off != 0).sum()


def test_wrong_sums_are_those_of_the_masks_whatever_the_links_do(vmapped):
    x, source = payload(3, 3000), dephased(3, 0.02)
    run = vmapped(secure(), 3, shared=4)
    exact, still = run(x, quiet(), source, None, KEY)
    total, report = run(x, noisy(0.95), source, None, KEY)
    assert first(report).wrong_sums == first(still).wrong_sums > 0
    assert not np.array_equal(total, exact)


@pytest.mark.parametrize("size", [20, further(1), further(7)])
def test_only_coordinates_of_the_payload_are_counted_as_wrong(vmapped, size):
    """Chunks are padded: with 20 values of 3 nodes there is one coordinate of no value."""
    x, source = payload(3, size), dephased(3, 0.4)
    total, report = vmapped(secure(), 3, shared=4)(x, quiet(), source, None, KEY)
    exact, _ = vmapped(plain(), 3, shared=2)(x, quiet(), None)
    assert first(report).wrong_sums == (np.asarray(total) != np.asarray(exact))[0].sum()


# --- Correction -----------------------------------------------------------------------------------

CORRECTED = Security(correction=bch(63, 45, 3))


def test_few_wrong_sums_are_put_right(vmapped):
    """About 30 wrong sums in 892 words; more than three in one with a probability below 1e-4."""
    nodes, source = 3, dephased(3, 1e-5)
    x = payload(nodes, 40_000)
    run = vmapped(secure(security=CORRECTED), nodes, shared=4)
    total, report = run(x, quiet(8), source, None, KEY)
    exact, _ = vmapped(plain(), nodes, shared=2)(x, quiet(8), None)
    assert_same_bits(total, exact)
    seen = first(report)
    assert (seen.uncorrected, seen.aborted) == (0, False)
    wrong = 40_000 * (1 - float((1 - source.x_error) ** (3 * 8)))
    assert 0 < seen.wrong_sums < 3 * wrong
    assert seen.copies == 2 * CORRECTED.masks_needed(40_000)


def test_too_many_wrong_sums_abort_the_step(vmapped):
    run = vmapped(secure(security=CORRECTED), 3, shared=4)
    total, report = run(payload(3, 40_000), quiet(8), dephased(3, 0.01), None, KEY)
    seen = first(report)
    assert seen.aborted
    assert 0 < seen.uncorrected <= seen.wrong_sums
    assert seen.failures == 0  # Z tests see none of it
    assert np.isnan(total).all()


@pytest.mark.parametrize(
    "code", [bch(7, 4, 1), further(bch(15, 7, 2)), further(bch(63, 45, 3))], ids=repr
)
def test_words_of_up_to_t_wrong_sums_are_put_right_and_no_others(code):
    """Exact: the errors without a correction, word by word, with the rule of the decoder."""
    words, bits, cipher = 300, 4, cipher_key(KEY)
    # About t wrong sums in a word.
    visibility = jnp.float32(1 - 2 * code.t / (bits * code.n))

    def draw(size, payload, correction):
        security = Security("none", correction=correction)
        run = functools.partial(chunk_errors, bits=bits, security=security, sampler="sparse")
        return run(cipher, visibility, size, jnp.int32(payload))

    bare, wrong, left = draw(words * code.n, words * code.n, None)
    by_word = np.asarray(bare).reshape(words, code.n)
    weights = np.count_nonzero(by_word, axis=1)
    assert int(wrong) == int(left) == weights.sum()
    # The sums of a word after its first k are checks, and the last word is not full.
    size, payload = words * code.k - 1, words * code.k - 3
    before = np.where(np.arange(size) < payload, by_word[:, : code.k].reshape(-1)[:size], 0)
    for weight in (code.t, code.t + 1):
        assert np.count_nonzero(weights == weight) > 20
    after = np.where(np.repeat(weights, code.k)[:size] <= code.t, 0, before)
    errors, wrong, left = draw(size, payload, code)
    np.testing.assert_array_equal(errors, after)
    assert (int(wrong), int(left)) == (np.count_nonzero(before), np.count_nonzero(after))


def test_a_single_sum_beyond_correction_aborts_the_step():
    """200 keys, 6 sums in three words of 7: all of a step is delivered, or nothing.

    A word has two sums of payload, and is beyond correction with two wrong ones of any kind.
    Exactly one sum stays wrong in 22% of the steps (from the binomial law of wrong sums), 44 of
    200, and in fewer than 5 with probability 2e-16.
    """
    security = Security("none", correction=bch(7, 4, 1))
    source = dephased(3, 0.005)
    x, (total, report) = over_keys(secure(security=security), 3, 200, quiet(8), source, None)
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], report)
    assert (seen.uncorrected == 1).sum() >= 5
    assert (seen.uncorrected == 0).sum() >= 5
    np.testing.assert_array_equal(seen.aborted, seen.uncorrected > 0)
    delivered = np.isfinite(total)
    np.testing.assert_array_equal(delivered.all(axis=(1, 2)), seen.uncorrected == 0)
    np.testing.assert_array_equal(delivered.any(axis=(1, 2)), seen.uncorrected == 0)
    exact, _ = jax.jit(jax.vmap(plain(), in_axes=(0, None, None), axis_name=AXIS))(
        x, quiet(8), None
    )
    for step in np.flatnonzero(seen.uncorrected == 0):
        assert_same_bits(total[step], exact)


# galois takes seconds to make the code.
def test_a_binary_decoder_finds_errors_mod_a_power_of_two_from_summed_syndromes():
    """`Security` counts on this: bit plane by bit plane, up to t errors of a BCH(63, 45)."""
    galois = pytest.importorskip("galois")
    code, bits, nodes = galois.BCH(63, 45), 4, 4
    assert code.t == CORRECTED.correction.t == 3
    generator = np.asarray(code.G).astype(np.int64)
    assert (generator[:, :45] == np.eye(45)).all()
    check = np.concatenate([generator[:, 45:].T, np.eye(18, dtype=np.int64)], axis=1)
    # The decoder is the table of all patterns within reach, whose syndromes are all different.
    number = 2 ** np.arange(18) @ check
    patterns = [p for weight in range(4) for p in itertools.combinations(range(63), weight)]
    table = {int(np.bitwise_xor.reduce(number[list(p)], initial=0)): p for p in patterns}
    assert len(table) == len(patterns)
    rng = np.random.default_rng(5)
    draw = jax.jit(lambda key: masks(key, GHZSource(nodes), 63, bits))
    for trial in range(40):
        weight = trial % 4
        error = np.zeros(63, np.int64)
        error[rng.choice(63, weight, replace=False)] = rng.integers(1, 16, weight)
        hidden = np.asarray(draw(jax.random.key(trial))).astype(np.int64)
        hidden[trial % nodes] += error
        published = hidden @ check.T % 16
        left = published.sum(axis=0) % 16
        found = np.zeros(63, np.int64)
        for plane in range(bits):
            bit = np.zeros(63, np.int64)
            bit[list(table[int(2 ** np.arange(18) @ (left % 2))])] = 1
            found += bit << plane
            rest = (left - check @ bit) % (16 >> plane)
            assert (rest % 2 == 0).all()
            left = rest // 2
        np.testing.assert_array_equal(found, error)
