"""Wrong sums of masks drawn bit by bit: the thresholds, the law, and the programs.

Every statistical test has a fixed key and states its sample size and the number of its comparisons,
each of which fails by chance with the probability `CHANCE` of `symbol_counts`; 40 in all.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import primitives
from scipy import stats
from symbol_counts import CHANCE, assert_counts_agree, cipher

import jaxqring as jq
from jaxqring._threefry import derive
from jaxqring.link._kinds import below
from jaxqring.secure import Security
from jaxqring.secure._dense_sums import all_sum_errors, bit_threshold
from jaxqring.secure._masks import sum_errors
from jaxqring.secure._sum_correction import chunk_errors

VISIBILITIES = np.float32([1, 1 - 1e-5, 0.999, 0.9, 0, -0.5, -1])
SIZE = 2**17
draw = jax.jit(all_sum_errors, static_argnums=(2, 3))
threshold = jax.jit(jax.vmap(bit_threshold, in_axes=(None, None, 0)))


def assert_thresholds_are_right(errors, t):
    """To 1e-9 of the closed form in double precision, for all visibilities."""
    found = np.float64(threshold(errors, np.uint32(t), below((1 - VISIBILITIES) / 2))) / 2**32
    cosine = np.cos(np.pi * errors.astype(np.float64) / 2.0**t)
    np.testing.assert_allclose(found, (1 - np.float64(VISIBILITIES)[:, None] * cosine) / 2, 0, 1e-9)


@pytest.mark.parametrize("t", [0, 1, 2, 5, 12])
def test_the_probability_of_every_bit_is_that_of_the_closed_form(t):
    """Exact: all values of the lower bits."""
    assert_thresholds_are_right(np.arange(2**t, dtype=np.uint32), t)


@pytest.mark.parametrize("t", [16, 24, 31])
def test_the_probabilities_of_high_bits_are_those_of_the_closed_form(t):
    """4,096 values of the lower bits, those near a turn's ends and middle among them."""
    errors = np.random.default_rng(t).integers(0, 2**t, 4090, dtype=np.uint32)
    ends = [0, 1, 2 ** (t - 1) - 1, 2 ** (t - 1), 2 ** (t - 1) + 1, 2**t - 1]
    assert_thresholds_are_right(np.concatenate([errors, np.uint32(ends)]), t)


def law_of(visibility, bits):
    """The product over the states, in double precision."""
    turns = np.arange(2**bits)[None] << np.arange(bits)[:, None]
    cosines = np.cos(2 * np.pi * (turns % 2**bits) / 2**bits)
    return np.prod((1 + np.float64(visibility) * cosines) / 2, axis=0)


@pytest.mark.parametrize("bits", [1, 4, 8, 32])
def test_errors_follow_the_law(bits):
    """131,072 sums for each of seven visibilities; of 32 bits the lower eight, whose law is that of
    eight bits alone."""
    counted = min(bits, 8)
    for number, visibility in enumerate(VISIBILITIES):
        found = draw(derive(cipher(bits), number), visibility, SIZE, bits)
        assert found.dtype == jnp.int32
        low = np.asarray(found) & (2**counted - 1)
        law = law_of(visibility, counted)
        assert_counts_agree(np.bincount(low, minlength=2**counted), np.maximum(law, 2.0**-32))


def test_dense_and_sparse_agree_in_law():
    """131,072 sums of 16 bits each: a chi-square of the five upper bits and of the lowest one."""
    dense = np.asarray(draw(cipher(1), np.float32(0.9), SIZE, 16))
    sparse = np.asarray(
        jax.jit(sum_errors, static_argnums=(2, 3))(cipher(1), jnp.float32(0.9), SIZE, 16)
    )
    assert np.any(dense != sparse)
    bins = [np.bincount((each >> 11) * 2 + (each & 1), minlength=64) for each in (dense, sparse)]
    counts = np.stack(bins)[:, np.sum(bins, axis=0) >= 1000]
    assert counts.shape[1] > 10
    assert stats.chi2_contingency(counts).pvalue > CHANCE


def test_sums_do_not_share_their_luck_and_places_do_not_depend_on_the_size():
    """131,072 sums of 4 bits: joint counts of a wrong sum and the next."""
    errors = np.asarray(draw(cipher(2), np.float32(0.9), SIZE, 4))
    wrong = (errors != 0).astype(int)
    rate = 1 - law_of(np.float32(0.9), 4)[0]
    joint = np.bincount(2 * wrong[::2] + wrong[1::2], minlength=4)
    assert_counts_agree(joint, np.outer([1 - rate, rate], [1 - rate, rate]))
    np.testing.assert_array_equal(draw(cipher(2), np.float32(0.9), 1000, 4), errors[:1000])


def test_no_program_of_dense_sums_holds_a_while_loop_a_scatter_or_a_logarithm():
    def names(sampler):
        chunk = functools.partial(
            chunk_errors, size=100, bits=16, security=Security("bucket"), sampler=sampler
        )
        call = jax.vmap(lambda key: chunk(key, jnp.float32(0.9), payload_size=jnp.int32(90)))
        return primitives(jax.make_jaxpr(call)(derive(cipher(3), jnp.arange(3))).jaxpr)

    def refused(found):
        return {name for name in found if name in ("while", "log", "log1p") or "scatter" in name}

    assert not refused(names("dense"))
    assert refused(names("sparse")) >= {"while", "log", "log1p", "scatter"}


def test_secure_sums_take_the_sampler_of_the_ring(every_mapping, mapping_named):
    """Exact: the same bits under every mapping; dense ones are not the sparse ones."""
    source = jq.GHZSource(3, noise=jq.dephasing(error_prob=0.02))

    def total(x, ring, key):
        return jq.secure_psum(
            x, "nodes", ring=ring, source=source, security=Security("bucket", attempts=2), key=key
        )

    x = np.random.default_rng(4).normal(size=(3, 60)).astype(np.float32)
    results = {
        sampler: mapping(total, 3, shared=2)(x, jq.Ring(noise="off", sampler=sampler), KEY)
        for sampler, mapping in (("dense", every_mapping), ("sparse", mapping_named("vmap")))
    }
    again = mapping_named("vmap")(total, 3, shared=2)
    np.testing.assert_array_equal(
        results["dense"], again(x, jq.Ring(noise="off", sampler="dense"), KEY)
    )
    assert np.any(results["dense"] != results["sparse"])


KEY = jax.random.key(7)
