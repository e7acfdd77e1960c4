"""The exact law of what a ring delivers, against enumerations of every error pattern."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring import FixedPoint, Float32, Ring, SymbolChannel, superdense, werner
from jaxqring.link._transport import moments, variance_slope
from jaxqring.ring._exact import certain, chain_law, level_values, shift, spread

AXIS = "nodes"
KEY = jax.random.key(20260722)
DAMPED = jq.amplitude_damping(gamma=0.15)
law_of = functools.partial(jax.jit, static_argnums=1)(chain_law)


def werner_matrix(fidelity):
    """The symbol is right with probability F, and each other one has (1 - F) / 3."""
    error = (1 - fidelity) / 3
    return np.full((4, 4), error) + (fidelity - error) * np.eye(4)


def random_matrix(seed, *lead):
    """Column-stochastic, with nothing symmetric about it."""
    return np.swapaxes(np.random.default_rng(seed).dirichlet(np.ones(4), (*lead, 4)), -1, -2)


def damped(pair):
    """Both halves lose energy, which breaks XOR symmetry."""
    return superdense(pair, sent=DAMPED, kept=DAMPED)


def signed(levels, bits):
    half = 2 ** (bits - 1)
    return (levels + half) % 2**bits - half


def enumerated(levels, bits, matrices):
    """(2^bits,) the law of a chain, from every error pattern of all symbols of all hops."""
    symbols, hops = bits // 2, len(matrices)
    patterns = np.array(list(itertools.product(range(4), repeat=symbols * hops)), np.int64)
    patterns = patterns.reshape(-1, hops, symbols)
    held, chance = np.full(len(patterns), levels[0] % 2**bits), np.ones(len(patterns))
    for hop, matrix in enumerate(matrices):
        arrived = np.zeros_like(held)
        for j in range(symbols):
            sent = (held >> 2 * j) & 3
            received = sent ^ patterns[:, hop, j]
            chance = chance * matrix[received, sent]
            arrived |= received << 2 * j
        held = (arrived + levels[hop + 1]) % 2**bits
    return np.bincount(held, weights=chance, minlength=2**bits)


def by_hop(levels, bits, matrices):
    """As `enumerated`, by the matrices of whole levels."""
    law = np.zeros(2**bits)
    law[levels[0] % 2**bits] = 1
    for matrix, level in zip(matrices, levels[1:], strict=True):
        law = np.roll(functools.reduce(np.kron, [matrix] * (bits // 2)) @ law, level)
    return law


def mean_and_variance(law):
    bits = len(law).bit_length() - 1
    values = signed(np.arange(len(law)), bits)
    mean = law @ values
    return mean, law @ (values - mean) ** 2


# --- A chain of hops ------------------------------------------------------------------------------

CHANNELS = {
    "werner": [superdense(werner(fidelity=f)) for f in (0.98, 0.75, 0.95, 0.85)],
    "damped": [damped(werner(fidelity=f)) for f in (0.98, 0.75, 0.95, 0.85)],
    "scrambled": [damped(werner(fidelity=f)).scrambled() for f in (0.98, 0.75, 0.95, 0.85)],
    "any": [SymbolChannel(jnp.asarray(m, jnp.float32)) for m in random_matrix(0, 4)],
}


@pytest.mark.parametrize("name", CHANNELS)
def test_the_law_of_a_chain_is_that_of_all_its_error_patterns(name):
    # Three nodes, four bits: two hops that add and two that pass on, 4^8 patterns of errors.
    links = CHANNELS[name]
    matrices = np.stack([np.asarray(link.transition, np.float64) for link in links])
    found = []
    for levels in ([1, -1, 1, 0, 0], [7, -3, 5, 0, 0]):
        law = law_of(jnp.array(levels), FixedPoint(4), SymbolChannel(jnp.float32(matrices)))
        expected = enumerated(levels, 4, matrices)
        np.testing.assert_allclose(law, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(by_hop(levels, 4, matrices), expected, rtol=0, atol=1e-12)
        found.append(law)
    # The order of the links matters, and what is sent.
    turned = by_hop([1, -1, 1, 0, 0], 4, matrices[::-1])
    assert np.abs(turned - found[0]).max() > 0.002
    assert np.abs(found[1] - found[0]).max() > 0.01


def test_one_link_for_all_hops_is_as_many_links_alike():
    levels, matrix = [5, -2, 3], random_matrix(1)
    law = law_of(jnp.array(levels), FixedPoint(4), SymbolChannel(jnp.float32(matrix)))
    np.testing.assert_allclose(law, enumerated(levels, 4, [matrix] * 2), rtol=0, atol=1e-6)


def test_flagged_symbols_are_guessed():
    pair = werner(fidelity=0.9)
    flagged, silent = (superdense(pair, survival=0.7, heralded=h) for h in (True, False))
    laws = [law_of(jnp.array([37, 0]), FixedPoint(8), link) for link in (flagged, silent)]
    np.testing.assert_allclose(laws[0], laws[1], rtol=0, atol=1e-6)


# --- The stated numbers ---------------------------------------------------------------------------


def test_one_hop_of_a_werner_link_has_the_stated_moments():
    levels = jnp.stack([jnp.arange(-128, 128), jnp.zeros(256, jnp.int32)])
    laws = np.asarray(law_of(levels, FixedPoint(8), superdense(werner(fidelity=0.9))), np.float64)
    mean, variance = np.transpose([mean_and_variance(law) for law in laws])
    np.testing.assert_allclose(mean[[128 + 37, 128]], [32, -0.066667], atol=1e-4)
    np.testing.assert_allclose(variance[[128 + 37, 128]], [854.3822, 917.4756], rtol=1e-5)
    error = np.mean(variance + (mean - np.arange(-128, 128)) ** 2)
    assert error == pytest.approx(1456.3333, rel=1e-5)


def moments_of_37(epsilon):
    """E[v] and E[v^2] after one hop of 37 over a Werner link of error epsilon."""
    law = chain_law(jnp.array([37, 0]), FixedPoint(8), superdense(werner(fidelity=1 - epsilon)))
    return jnp.stack([law @ level_values(8), law @ level_values(8) ** 2])


def test_the_derivatives_of_the_moments_are_the_stated_ones():
    for mode in (jax.jacrev, jax.jacfwd):
        slopes = jax.jit(mode(moments_of_37))(jnp.float32(0.1))
        np.testing.assert_allclose(slopes, [-50, 5149.644], rtol=1e-5)


def sign_extended(law):
    """The law of the same numbers, written with two bits more."""
    bits = law.size.bit_length() - 1
    levels = signed(np.arange(law.size), bits) % (4 * law.size)
    return jnp.zeros(4 * law.size).at[levels].set(law)


def test_accumulators_that_never_wrap_have_the_stated_mean():
    # Each hop has two bits more to write the sum with: 6, 8 and 10 bits, and 12 to hold it.
    matrix = jnp.float32(werner_matrix(0.9))
    hop = jax.jit(lambda law, level: shift(sign_extended(spread(law, matrix)), level))
    law = certain(jnp.array(10), 6)
    for level in (-7, 5, 3):
        law = hop(law, jnp.array(level))
    assert law.size == 2**12
    assert float(law @ level_values(12)) == pytest.approx(8.410667, abs=1e-4)


def scattered(x, ring, key):
    return jax.vmap(lambda x: jq.psum_scatter(x, AXIS, ring=ring, key=key), axis_name=AXIS)(x)


def test_where_sums_wrap_the_wide_mean_is_wrong_and_the_law_right():
    # 60,000 sums, in eight bits, which they nearly fill, on node 0, which is the last to add. Six
    # standard errors: fails with 2e-9.
    copies = 60_000
    levels = np.array([31, 25, 29, 30])
    link = superdense(werner(fidelity=0.9))
    law = np.asarray(law_of(jnp.array(levels), FixedPoint(8), link), np.float64)
    mean, variance = mean_and_variance(law)
    expected = mean_and_variance(by_hop(levels, 8, [werner_matrix(0.9)] * 3))
    np.testing.assert_allclose([mean, variance], expected, rtol=1e-4)
    x = np.zeros((4, 4, copies), np.float32)
    x[:, 0] = np.roll(levels, 1)[:, None]
    received = jax.jit(scattered)(x, Ring(link, FixedPoint(8, clip=31.0)), KEY)
    error = np.sqrt(variance / copies)
    assert abs(np.asarray(received, np.float64)[0].mean() - mean) < 6 * error
    wide = levels @ (13 / 15) ** np.array([3, 2, 1, 0]) - (1 - (13 / 15) ** 3) / 2
    assert abs(mean - wide) > 12 * error


# --- Moments of any matrix ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_moments_are_those_of_the_law_for_all_levels_and_any_matrix(seed):
    # The law against the matrix of a whole level, and both against `moments`: 256 levels.
    matrix = random_matrix(seed)
    channel = SymbolChannel(jnp.float32(matrix))
    sent = np.arange(256)
    laws = law_of(jnp.array([sent, 0 * sent]), FixedPoint(8), channel)
    expected = np.stack([by_hop([level, 0], 8, [matrix]) for level in sent])
    np.testing.assert_allclose(laws, expected, rtol=0, atol=1e-6)
    stated = np.transpose([mean_and_variance(law) for law in expected])
    mean, variance = jax.jit(moments, static_argnums=1)(jnp.asarray(sent), FixedPoint(8), channel)
    np.testing.assert_allclose(mean, stated[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(variance, stated[1], rtol=1e-4)
    # The variance of an asymmetric link follows what is sent, that of a scrambled one does not.
    numbers = signed(sent, 8)
    slope = np.polyfit(numbers, stated[1], 1)[0]
    assert abs(slope) > 0.1
    assert float(variance_slope(FixedPoint(8), channel.transition)) == pytest.approx(
        slope, rel=1e-4
    )
    still = variance_slope(FixedPoint(8), channel.scrambled().transition)
    assert abs(float(still)) < 1e-4


# --- The ring -------------------------------------------------------------------------------------

COPIES = 6_000
SENT = np.array([[1, 1, -1], [-1, 1, 0], [1, 0, 1]])  # levels of each node for each chunk
FIDELITIES = np.array([0.9, 0.95, 0.85])


def links_at(fidelities):
    """Three links: Werner, damped as it is, and damped and scrambled."""
    first, second, third = (werner(fidelity=f) for f in fidelities)
    links = superdense(first), damped(second), damped(third).scrambled()
    return SymbolChannel(jnp.stack([link.transition for link in links]))


def delivered(fidelities, key):
    """(node, chunk, copy) what the nodes receive of the same sums many times."""
    ring = Ring(links_at(fidelities), FixedPoint(4, clip=1.0), scramble=False, derivative="exact")
    x = jnp.broadcast_to(jnp.asarray(SENT, jnp.float32)[..., None], (3, 3, COPIES))

    def summed(own):
        return jq.psum(own.reshape(-1), AXIS, ring=ring, key=key).reshape(own.shape)

    return jax.vmap(summed, axis_name=AXIS)(x)


def stated_moments(fidelities):
    """(2, node, chunk) mean and variance; the matrices are affine in the fidelity."""
    low, high = (np.asarray(links_at([f] * 3).transition, np.float64) for f in (0.5, 1.0))
    weight = (np.asarray(fidelities)[:, None, None] - 0.5) / 0.5
    matrices = low + weight * (high - low)
    found = np.zeros((2, 3, 3))
    for chunk in range(3):
        for passed in range(3):  # hops after the sum is complete, at node chunk - 1
            crossed = [(chunk + d) % 3 for d in range(2)]
            crossed += [(chunk - 1 + d) % 3 for d in range(passed)]
            levels = [SENT[(chunk + d) % 3, chunk] for d in range(3)] + [0] * passed
            law = by_hop(levels, 4, matrices[crossed])
            found[:, (chunk - 1 + passed) % 3, chunk] = mean_and_variance(law)
    return found


@functools.cache
def stated_slopes():
    """(2, node, chunk, link) derivatives of `stated_moments`, by central differences."""
    step = 1e-4 * np.eye(3)
    slopes = [
        (stated_moments(FIDELITIES + d) - stated_moments(FIDELITIES - d)) / 2e-4 for d in step
    ]
    return np.stack(slopes, axis=-1)


def stated_tangent(result):
    """dmu + dV / (2 V) (r - mu) with everything enumerated: (node, chunk, copy, link)."""
    (mean, variance), (d_mean, d_variance) = stated_moments(FIDELITIES), stated_slopes()
    rate = d_variance / (2 * variance[..., None])
    return d_mean[:, :, None] + rate[:, :, None] * (result - mean[..., None])[..., None]


def test_the_tangent_of_the_ring_is_that_of_all_patterns_in_every_sample_and_in_the_mean():
    # 9 chains, 6,000 samples, 3 links. Means of the tangents of r and r^2: six standard errors, or
    # rounding; fails with 1e-7.
    run = jax.jit(jax.jacfwd(lambda f: (delivered(f, KEY),) * 2, has_aux=True))
    moved, result = (
        np.asarray(part, np.float64) for part in run(jnp.asarray(FIDELITIES, jnp.float32))
    )
    np.testing.assert_allclose(moved, stated_tangent(result), rtol=1e-3, atol=2e-3)
    # Links that a chain has not crossed leave it alone, and the others do not.
    assert (np.abs(moved).max(axis=2) > 0.5).sum() >= 20
    (mean, _), (d_mean, d_variance) = stated_moments(FIDELITIES), stated_slopes()
    d_square = 2 * mean[..., None] * d_mean + d_variance
    for samples, right in ((moved, d_mean), (2 * result[..., None] * moved, d_square)):
        error = samples.std(axis=2) / np.sqrt(COPIES)
        assert (np.abs(samples.mean(axis=2) - right) < 6 * error + 2e-3).all()
    assert (np.abs(d_square).max(axis=-1) > 5).all()


def test_the_gradient_of_the_ring_is_that_of_all_patterns():
    weights = np.random.default_rng(5).normal(size=(3, 3, 1)) / COPIES

    def loss(fidelities):
        result = delivered(fidelities, KEY)
        return jnp.sum(jnp.float32(weights) * (result + result**2)), result

    run = jax.jit(jax.grad(loss, has_aux=True))
    gradient, result = run(jnp.asarray(FIDELITIES, jnp.float32))
    result = np.asarray(result, np.float64)
    right = np.einsum("ncs,ncsl->l", weights * (1 + 2 * result), stated_tangent(result))
    np.testing.assert_allclose(gradient, right, rtol=1e-3)
    assert np.abs(right).min() > 0.1


def test_without_noise_the_tangent_is_that_of_the_mean_and_finite():
    # Nothing is spread, so that there is no deviation to scale: 9 chains of the stated slopes.
    def summed(fidelity):
        ring = Ring(superdense(werner(fidelity=fidelity)), FixedPoint(4, clip=1.0))
        ring = ring.replace(derivative="exact")
        add = functools.partial(jq.psum, axis_name=AXIS, ring=ring, key=KEY)
        return jax.vmap(add, axis_name=AXIS)(jnp.asarray(SENT, jnp.float32))

    run = jax.jit(lambda f: jax.jvp(summed, (f,), (jnp.ones(()),)))
    result, moved = run(jnp.float32(1))
    np.testing.assert_array_equal(result, np.broadcast_to(SENT.sum(axis=0), (3, 3)))
    expected = np.zeros((3, 3))
    for chunk in range(3):
        for passed in range(3):
            levels = [SENT[(chunk + d) % 3, chunk] for d in range(3)] + [0] * passed
            ends = [
                mean_and_variance(by_hop(levels, 4, [werner_matrix(f)] * (2 + passed)))[0]
                for f in (1, 1 - 1e-6)
            ]
            expected[(chunk - 1 + passed) % 3, chunk] = (ends[0] - ends[1]) / 1e-6
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-3)
    assert np.abs(expected).max() > 2


# --- Refusals -------------------------------------------------------------------------------------

LINK = superdense(werner(fidelity=0.9))
EXACT = functools.partial(Ring, LINK, derivative="exact")
REFUSED = {
    "wire of 14 bits": (
        lambda: chain_law(jnp.array([1, 0]), FixedPoint(14), LINK),
        ValueError,
        ["`wire.bits`", "be at most 12", "14"],
    ),
    "float wire": (
        lambda: chain_law(jnp.array([1, 0]), Float32(), LINK),
        TypeError,
        ["`wire`", "be a FixedPoint", "Float32"],
    ),
    "matrix for a channel": (
        lambda: chain_law(jnp.array([1, 0]), FixedPoint(4), jnp.eye(4)),
        TypeError,
        ["`channel`", "be a SymbolChannel"],
    ),
    "two links for three hops": (
        lambda: chain_law(jnp.arange(4), FixedPoint(4), superdense(werner(fidelity=jnp.ones(2)))),
        ValueError,
        ["`channel`", "be one link or one for each of 3 hops", "(2,)"],
    ),
    "exact derivative of a float": (
        lambda: EXACT(Float32()),
        ValueError,
        ["`wire`", "be a FixedPoint of at most 12 bits", "Float32"],
    ),
    "exact derivative of 14 bits": (
        lambda: EXACT(FixedPoint(14)),
        ValueError,
        ["`wire`", "be a FixedPoint of at most 12 bits", "14"],
    ),
    "exact derivative of stochastic rounding": (
        lambda: EXACT(FixedPoint(8, rounding="stochastic")),
        ValueError,
        ["`wire`", "rounded to nearest", "stochastic"],
    ),
    "exact derivative of protected links": (
        lambda: EXACT(FixedPoint(8), protection=jq.codes.IdealCode()),
        ValueError,
        ["`derivative`", 'not be "exact" unless', "links are bare", "exact"],
    ),
    "exact derivative of normal noise": (
        lambda: EXACT(FixedPoint(8), "gaussian"),
        ValueError,
        ["`derivative`", 'noise is "sampled"', "exact"],
    ),
    "unknown derivative": (
        lambda: Ring(LINK, derivative="score"),
        ValueError,
        ["`derivative`", "be one of None, 'mean', 'exact'", "score"],
    ),
}


@pytest.mark.parametrize("call, error, words", REFUSED.values(), ids=REFUSED)
def test_a_malformed_call_is_refused_in_one_sentence(call, error, words):
    with pytest.raises(error) as refusal:
        call()
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert message.startswith("`"), message
    assert message.endswith("."), message
    assert "\n" not in message, message
