"""Formats on the wire: packing without gaps, fixed-point levels, floats bit for bit."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from packing import unpack
from refused import check_refusal

import jaxqring as jq
from jaxqring._threefry import cipher_key
from jaxqring.codec._packing import pack, packed_size, symbol_position

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
EVEN = range(2, 33, 2)
#: The ends, and widths that do and do not divide a word; the others are in the lane `matrix`.
WIDTHS = [bits if bits in (2, 6, 16, 22, 32) else further(bits) for bits in EVEN]
MAX = np.finfo(np.float32).max
TINY = np.finfo(np.float32).tiny


def random_levels(bits, size, seed=0):
    rng = np.random.default_rng(seed + bits)
    levels = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), size=size)
    if size > 1:
        levels[:2] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return levels.astype(np.int32)


# In numpy, because XLA may lose the bits of a bfloat16 that is not a number when it moves it.
def join(wire, payload):
    """The words of a payload of any size, padded to whole groups."""
    groups = -(-payload.shape[0] // wire.lanes)
    padded = np.pad(np.asarray(payload), (0, groups * wire.lanes - payload.shape[0]))
    return wire.join([jnp.asarray(lane) for lane in padded.reshape(wire.lanes, groups)])


def part(wire, words, size):
    return jnp.asarray(np.concatenate([np.asarray(lane) for lane in wire.part(words)])[:size])


# --- Packing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", WIDTHS)
def test_unpacking_returns_the_levels_of_every_size(bits):
    for size in (0, 1, 3, 16, 17, 33, 101):
        levels = random_levels(bits, size)
        words = pack(levels, bits)
        assert words.dtype == jnp.uint32
        assert words.shape == (packed_size(size, bits),)
        found = unpack(words, bits, size)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, levels)
        unsigned = unpack(words, bits, size, signed=False)
        assert unsigned.dtype == jnp.uint32
        np.testing.assert_array_equal(unsigned, levels.astype(np.int64) % 2**bits)


@pytest.mark.parametrize("bits", EVEN)
def test_packing_leaves_no_gaps(bits):
    for size in (1, 2, 7, 16, 100, 1001, 4096):
        length = packed_size(size, bits)
        # Never more than one incomplete group of lcm(bits, 32) bits, so at most `bits` words.
        assert 0 <= 32 * length - size * bits < np.lcm(bits, 32)
    assert packed_size(16, bits) * 32 == 16 * bits or 32 % bits == 0 or bits > 16
    assert packed_size(32, bits) == bits


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_bit_of_every_word_carries_a_level_bit(bits):
    size = 64
    empty, full = np.zeros(size, np.int32), np.full(size, -1, np.int32)
    np.testing.assert_array_equal(pack(empty, bits), 0)
    np.testing.assert_array_equal(pack(full, bits), 2**32 - 1)


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_wrong_symbol_on_the_wire_changes_one_symbol_of_one_level(bits):
    """Symbols align with levels: bits (2j + 1, 2j) of a level travel together."""
    size = 32
    levels = random_levels(bits, size)
    words = np.asarray(pack(levels, bits))
    unpacked = jax.jit(lambda words: unpack(words, bits, size))
    seen = set()
    for word in range(len(words)):
        for position in range(16):
            broken = words.copy()
            broken[word] ^= np.uint32(3 << (2 * position))
            found = np.asarray(unpacked(broken)).astype(np.int64) % 2**bits
            change = found ^ (levels.astype(np.int64) % 2**bits)
            (index,) = np.nonzero(change)
            assert len(index) == 1
            symbol = np.log2(change[index[0]] / 3) / 2
            assert symbol == int(symbol)
            seen.add((int(index[0]), int(symbol)))
    assert len(seen) == size * bits // 2  # each symbol of each level, once


def test_high_bits_of_levels_that_do_not_fit_are_dropped():
    levels = np.array([37 + 256, -1 - 256, 2**30 + 5, -(2**31)], np.int32)
    found = unpack(pack(levels, 8), 8, 4)
    np.testing.assert_array_equal(found, [37, -1, 5, 0])


@pytest.mark.parametrize("bits", WIDTHS)
def test_wrap_is_arithmetic_mod_two_to_the_bits_in_twos_complement(bits):
    a, b = random_levels(bits, 200, 1), random_levels(bits, 200, 2)
    found = jq.FixedPoint(bits).add(jnp.asarray(a), jnp.asarray(b))
    half = 2 ** (bits - 1)
    expected = (a.astype(np.int64) + b + half) % 2**bits - half
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [further(2), 6, further(16), further(22), further(32)])
def test_packing_under_jit_and_vmap_gives_the_same_words(bits):
    levels = np.stack([random_levels(bits, 37, seed) for seed in range(3)])
    eager = np.stack([pack(row, bits) for row in levels])
    mapped = jax.jit(jax.vmap(lambda row: pack(row, bits)))(levels)
    np.testing.assert_array_equal(mapped, eager)
    back = jax.jit(jax.vmap(lambda row: unpack(row, bits, 37)))(mapped)
    np.testing.assert_array_equal(back, levels)


# --- Fixed point ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, further(4), 8, further(12), further(16), further(24), 26, 32])
@pytest.mark.parametrize("num_terms", [1, further(2), 3, further(8)])
def test_the_step_is_the_least_power_of_two_that_fits_the_peak(bits, num_terms):
    wire = jq.FixedPoint(bits)
    if bits - int(np.ceil(np.log2(num_terms))) < 2:
        with pytest.raises(ValueError, match=r"`wire\.bits` must be at least"):
            wire.level_bits(num_terms)
        return
    assert wire.level_bits(num_terms) == bits - int(np.ceil(np.log2(num_terms)))
    limit = float(wire.limit(num_terms))
    top = 2 ** (wire.level_bits(num_terms) - 1) - 1
    assert limit == top or (top > 2**24 and top * (1 - 2**-23) < limit < top)
    rng = np.random.default_rng(bits)
    peaks = np.exp(rng.uniform(-60, 60, size=40)).astype(np.float32)
    exact = np.float32(limit) * np.float32(2.0) ** np.arange(-20, 20)
    powers = np.float32(2.0) ** np.arange(-20, 20)
    above = np.nextafter(exact, np.float32(np.inf))
    peaks = np.concatenate([peaks, exact, above, powers]).astype(np.float32)
    scales = np.asarray(jax.vmap(lambda peak: wire.scale_of(peak, num_terms))(peaks), np.float64)
    assert np.all(np.frexp(scales)[0] == 0.5)  # powers of two
    assert np.all(limit * scales >= peaks)
    assert np.all(limit * scales / 2 < peaks)
    np.testing.assert_array_equal(scales[40:80] * limit, exact)  # a peak that just fits


CASES = [(bits, num_terms) for bits in (4, 8, 16, 24) for num_terms in (1, 3)]


@pytest.mark.parametrize("bits, num_terms", CASES)
@pytest.mark.parametrize("magnitude", [1e-30, further(1e-3), further(1.0), 1e20])
def test_nearest_rounding_errs_by_half_a_level_at_most(bits, num_terms, magnitude):
    wire = jq.FixedPoint(bits)
    rng = np.random.default_rng(3)
    values = (magnitude * rng.normal(size=2000)).astype(np.float32)
    peak = np.abs(values).max()
    scale = wire.scale_of(peak, num_terms)
    levels = wire.encode(values, scale, num_terms)
    assert levels.dtype == jnp.int32
    assert np.abs(np.asarray(levels)).max() <= wire.limit(num_terms)
    decoded = np.asarray(wire.decode(levels, scale), np.float64)
    error = np.abs(decoded - values)
    assert error.max() <= float(scale) / 2
    assert error.max() > float(scale) / 4 or bits == 24  # and the scale is used
    # The nearest level, ties to even.
    np.testing.assert_array_equal(levels, np.rint(values.astype(np.float64) / float(scale)))
    assert not np.any(wire.saturates(values, scale, num_terms))


def test_a_wide_wire_carries_float32_values_near_the_peak_exactly():
    wire = jq.FixedPoint(32)
    values = np.random.default_rng(4).uniform(0.5, 1, size=1000).astype(np.float32)
    scale = wire.scale_of(np.float32(1.0), 1)
    np.testing.assert_array_equal(wire.decode(wire.encode(values, scale, 1), scale), values)


def test_ties_go_to_even_levels():
    wire = jq.FixedPoint(8)
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5], np.float32)
    np.testing.assert_array_equal(wire.encode(values, np.float32(1), 1), [0, 2, 2, 0, -2, -2])


def test_an_error_free_sum_of_the_largest_levels_does_not_wrap():
    for bits, num_terms in [(8, 2), (8, 3), (8, 64), (16, 5), (32, 7), (32, 8)]:
        wire = jq.FixedPoint(bits)
        values = np.array([1.0, -1.0], np.float32)
        scale = wire.scale_of(np.float32(1.0), num_terms)
        levels = wire.encode(values, scale, num_terms)
        total = levels
        for _ in range(num_terms - 1):
            total = wire.add(total, levels)
        np.testing.assert_array_equal(total, num_terms * np.asarray(levels, np.int64))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("clip", ["max", 2.0])
def test_nan_becomes_zero_and_infinities_are_clipped(clip, rounding):
    wire = jq.FixedPoint(8, clip=clip, rounding=rounding)
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.0, -2.0], np.float32)
    scale = wire.scale_of(np.float32(2.0), 1)
    levels = np.asarray(wire.encode(values, scale, 1, cipher_key(jax.random.key(0))))
    if clip == "max":
        edge = 127
        np.testing.assert_array_equal(wire.saturates(values, scale, 1), [0, 1, 1, 0, 0, 0, 0])
    else:
        edge = 2.0 / float(scale)
        np.testing.assert_array_equal(wire.saturates(values, scale, 1), [0, 1, 1, 0, 0, 0, 0])
    exact = 2.0 / float(scale)
    np.testing.assert_array_equal(levels, [0, edge, -edge, 0, 0, exact, -exact])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_clip_bounds_what_is_decoded_and_counts_what_lies_outside(rounding):
    clip = 0.75
    wire = jq.FixedPoint(16, clip=clip, rounding=rounding)
    values = np.linspace(-2, 2, 401).astype(np.float32)
    scale = wire.scale_of(np.float32(clip), 1)
    decoded = np.asarray(
        wire.decode(wire.encode(values, scale, 1, cipher_key(jax.random.key(1))), scale)
    )
    bound = float(scale) / 2 if rounding == "nearest" else float(scale)
    assert np.abs(decoded - np.clip(values, -clip, clip)).max() <= bound
    np.testing.assert_array_equal(wire.saturates(values, scale, 1), np.abs(values) > clip)


def test_values_above_the_agreed_peak_saturate():
    wire = jq.FixedPoint(8)
    scale = wire.scale_of(np.float32(1.0), 1)
    edge = 127 * float(scale)
    values = np.array([edge, edge * 1.01, -edge * 1.01, 1e30, -1e30], np.float32)
    np.testing.assert_array_equal(wire.encode(values, scale, 1), [127, 127, -127, 127, -127])
    np.testing.assert_array_equal(wire.saturates(values, scale, 1), [False, True, True, True, True])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_all_zeros_are_carried_as_zeros(rounding):
    wire = jq.FixedPoint(16, rounding=rounding)
    values = np.zeros(100, np.float32)
    scale = wire.scale_of(np.float32(0.0), 4)
    assert float(scale) > 0
    levels = wire.encode(values, scale, 4, cipher_key(jax.random.key(0)))
    np.testing.assert_array_equal(levels, 0)
    np.testing.assert_array_equal(wire.decode(levels, scale), 0)


@pytest.mark.parametrize("bits", [2, 8, further(16), 32])
@pytest.mark.parametrize("peak", [TINY, TINY / 2, 1e-45, 3e-38, 1e-36, MAX, MAX / 2, 2.0**127])
def test_peaks_at_the_ends_of_float32_give_finite_values_within_half_a_step(bits, peak):
    wire = jq.FixedPoint(bits)
    values = np.float32(peak) * np.array([1, -1, 0.7, 0.3, 0], np.float32)
    scale = wire.scale_of(np.float32(peak), 1)
    assert TINY <= float(scale) <= 2.0**126
    levels = wire.encode(values, scale, 1)
    decoded = np.asarray(wire.decode(levels, scale), np.float64)
    assert np.all(np.isfinite(decoded))
    beyond = np.asarray(wire.saturates(values, scale, 1))
    error = np.abs(decoded - values)
    # XLA on a CPU flushes numbers below TINY, the least scale, to zero.
    flushed = np.abs(values) < TINY
    assert np.all(error[flushed] < TINY)
    assert np.all(error[~beyond & ~flushed] <= float(scale) / 2)
    if bits > 2 or peak < MAX / 4:
        assert not np.any(beyond)
    np.testing.assert_array_equal(np.sign(decoded[beyond]), np.sign(values[beyond]))


def test_encoding_under_jit_and_vmap_gives_the_same_levels():
    values = np.random.default_rng(5).normal(size=(4, 100)).astype(np.float32)
    keys = jax.random.split(jax.random.key(2), 4)
    for rounding in ("nearest", "stochastic"):
        wire = jq.FixedPoint(12, rounding=rounding)

        def send(row, key, wire=wire):
            scale = wire.scale_of(jnp.abs(row).max(), 2)
            return wire.encode(row, scale, 2, cipher_key(key)), scale

        levels, scales = jax.jit(jax.vmap(send))(values, keys)
        for row, key, mine, scale in zip(values, keys, levels, scales, strict=True):
            expected, agreed = send(jnp.asarray(row), key)
            np.testing.assert_array_equal(mine, expected)
            assert float(scale) == float(agreed)


# --- Stochastic rounding --------------------------------------------------------------------------

DRAWS = 2**20


@pytest.mark.statistics
@pytest.mark.parametrize("bits", [8, further(16), further(24), 32])
@pytest.mark.parametrize("level", ["small", "large", "negative"])
def test_stochastic_rounding_is_unbiased(bits, level):
    """2^20 draws a value; z = 5.5 in either direction fails by chance with 4e-8 a value."""
    wire = jq.FixedPoint(bits, rounding="stochastic")
    # The greatest levels with fractions of a quarter that float32 can still hold.
    whole = {"small": 3, "large": 2 ** min(bits - 2, 21), "negative": -5}[level]
    for fraction in (0.25, 0.5, 0.75):
        value = np.float32(whole + fraction)
        assert value - whole == fraction
        values = np.full(DRAWS, value, np.float32)
        levels = np.asarray(wire.encode(values, np.float32(1.0), 1, cipher_key(jax.random.key(7))))
        assert set(np.unique(levels)) == {whole, whole + 1}
        mean = levels.mean(dtype=np.float64)
        deviation = np.sqrt(fraction * (1 - fraction) / DRAWS)
        assert abs(mean - float(value)) < 5.5 * deviation


def test_stochastic_rounding_is_unbiased_for_small_fractions():
    """2^20 draws a value; z = 6 two-sided fails by chance with 2e-9 in the Gaussian limit; the
    expected counts are above 1,000, where the binomial tail is below 1e-8."""
    wire = jq.FixedPoint(16, rounding="stochastic")
    for fraction in (0.001, 0.01):
        values = np.full(DRAWS, fraction, np.float32)
        levels = np.asarray(wire.encode(values, np.float32(1.0), 1, cipher_key(jax.random.key(8))))
        assert abs(levels.mean() - fraction) < 6 * np.sqrt(fraction / DRAWS)


@pytest.mark.parametrize("bits", [8, further(16), further(24), 32])
def test_stochastic_rounding_leaves_whole_levels_as_they_are(bits):
    """Exact: a value that is a level has nothing to round, whatever is drawn."""
    wire = jq.FixedPoint(bits, rounding="stochastic")
    levels = random_levels(bits - 1, 2**18)
    levels = levels.astype(np.float32).astype(np.int64)
    values = levels.astype(np.float32)
    found = np.asarray(wire.encode(values, np.float32(1.0), 1, cipher_key(jax.random.key(9))))
    np.testing.assert_array_equal(found, np.clip(levels, -wire.limit(1), wire.limit(1)))


@pytest.mark.parametrize("bits", [4, further(8), further(16), 24])
def test_stochastic_rounding_stays_within_one_step(bits):
    """Exact: the two neighbouring levels are the only ones that may come out."""
    wire = jq.FixedPoint(bits, rounding="stochastic")
    values = np.random.default_rng(6).normal(size=2**16).astype(np.float32)
    scale = wire.scale_of(np.abs(values).max(), 2)
    levels = np.asarray(wire.encode(values, scale, 2, cipher_key(jax.random.key(10))))
    exact = values.astype(np.float64) / float(scale)
    assert np.all((levels == np.floor(exact)) | (levels == np.ceil(exact)))
    assert np.any(levels != np.rint(exact))


def test_stochastic_rounding_draws_independently_for_each_value():
    """2^20 pairs of neighbours at 1/2: their correlation has z < 5.5, failing with 4e-8."""
    wire = jq.FixedPoint(8, rounding="stochastic")
    values = np.full(DRAWS, 0.5, np.float32)
    ups = np.asarray(wire.encode(values, np.float32(1.0), 1, cipher_key(jax.random.key(11)))) - 0.5
    assert abs(np.mean(ups[1:] * ups[:-1]) * 4) < 5.5 / np.sqrt(DRAWS - 1)
    others = (
        np.asarray(wire.encode(values, np.float32(1.0), 1, cipher_key(jax.random.key(12)))) - 0.5
    )
    assert abs(np.mean(ups * others) * 4) < 5.5 / np.sqrt(DRAWS)


# --- Float wires ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 999])
def test_float32_travels_bit_for_bit(size):
    wire = jq.Float32()
    bits = np.random.default_rng(7).integers(0, 2**32, size=size, dtype=np.uint32)
    special = np.array(
        [0x7F800000, 0xFF800000, 0x7FC00000, 0x7FC00123, 0xFFC00001, 0x80000000, 1, 0x807FFFFF],
        np.uint32,
    )
    bits[: len(special)] = special[:size]
    values = jax.lax.bitcast_convert_type(jnp.asarray(bits), jnp.float32)
    payload = wire.encode(values, jnp.float32(1.0), 3)
    words = join(wire, payload)
    assert words.dtype == jnp.uint32
    np.testing.assert_array_equal(words, bits)
    back = wire.decode(part(wire, words, size), jnp.float32(1.0))
    assert back.dtype == jnp.float32
    np.testing.assert_array_equal(jax.lax.bitcast_convert_type(back, jnp.uint32), bits)


@pytest.mark.parametrize("size", [1, 2, 999])
def test_bfloat16_travels_bit_for_bit(size):
    wire = jq.BFloat16()
    bits = np.random.default_rng(8).integers(0, 2**16, size=size, dtype=np.uint16)
    special = np.array([0x7F80, 0xFF80, 0x7FC0, 0x7FC1, 0xFFC3, 0x8000, 1, 0x807F], np.uint16)
    bits[: len(special)] = special[:size]
    payload = jax.lax.bitcast_convert_type(jnp.asarray(bits), jnp.bfloat16)
    words = join(wire, payload)
    assert words.dtype == jnp.uint32
    assert words.shape == ((size + 1) // 2,)
    back = part(wire, words, size)
    assert back.dtype == jnp.bfloat16
    np.testing.assert_array_equal(jax.lax.bitcast_convert_type(back, jnp.uint16), bits)


def test_all_bfloat16_values_survive_encoding_and_decoding():
    wire = jq.BFloat16()
    bits = np.arange(2**16, dtype=np.uint16)
    values = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    words = join(wire, wire.encode(jnp.asarray(values), jnp.float32(1.0), 3))
    back = np.asarray(wire.decode(part(wire, words, 2**16), jnp.float32(1.0)))
    # equal_nan compares that NaNs stay NaNs; their bits are tested above.
    subnormal = (np.abs(values) < TINY) & (values != 0)
    np.testing.assert_array_equal(back[~subnormal], values[~subnormal])
    assert np.all(np.abs(back[subnormal]) < TINY)


def test_bfloat16_rounds_to_nearest_even_and_adds_in_float32():
    wire = jq.BFloat16()
    values = np.random.default_rng(9).normal(size=4096).astype(np.float32)
    payload = wire.encode(jnp.asarray(values), jnp.float32(1.0), 3)
    expected = values.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.asarray(payload), expected)
    total = wire.add(payload, payload[::-1])
    wide = expected.astype(np.float32) + expected[::-1].astype(np.float32)
    np.testing.assert_array_equal(np.asarray(total), wide.astype(ml_dtypes.bfloat16))


def test_float_wires_deliver_what_broken_bits_say():
    one = jnp.ones((1,), jnp.float32)
    wire = jq.Float32()
    broken = part(wire, join(wire, one) ^ np.uint32(0x40000000), 1)  # exponent 127 -> 255
    assert np.isinf(broken[0])
    wire = jq.BFloat16()
    words = join(wire, wire.encode(one, jnp.float32(1.0), 1))
    assert np.isinf(part(wire, words ^ np.uint32(0x4000), 1)[0].astype(jnp.float32))


# --- Refusal --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bits": 7}, "`bits` must be an even integer in [2, 32], but got 7."),
        ({"bits": 34}, "`bits` must be an even integer in [2, 32], but got 34."),
        ({"bits": 0}, "`bits` must be"),
        ({"bits": 8.0}, "`bits` must be"),
        ({"clip": 0.0}, '`clip` must be "max", "robust" or a positive finite number, but got 0.0.'),
        ({"clip": -1}, "`clip` must be"),
        ({"clip": float("inf")}, "`clip` must be"),
        ({"clip": float("nan")}, "`clip` must be"),
        ({"clip": "min"}, "`clip` must be"),
        ({"clip": True}, "`clip` must be"),
        ({"rounding": "up"}, "`rounding` must be one of 'nearest', 'stochastic', but got 'up'."),
    ],
)
def test_bad_wires_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match="must be") as caught:
        jq.FixedPoint(**options)
    assert message in str(caught.value)


def test_wires_are_hashable_and_equal_by_value():
    assert jq.FixedPoint(8, clip=1.0) == jq.FixedPoint(8, clip=1.0) != jq.FixedPoint(8)
    assert len({jq.Float32(), jq.Float32(), jq.BFloat16(), jq.FixedPoint(16)}) == 3
    assert (jq.Float32().bits, jq.BFloat16().bits) == (32, 16)


@pytest.mark.parametrize("bits", [2, 6, 16, 22, 32])
def test_a_symbol_is_where_packing_puts_it(bits):
    size = 37
    for symbol in range(size * bits // 2):
        code, place = divmod(symbol, bits // 2)
        levels = np.zeros(size, np.uint32)
        levels[code] = 1 << 2 * place
        words = np.asarray(pack(levels.view(np.int32), bits))
        word, shift = symbol_position(jnp.int32(symbol), size, bits)
        assert words[int(word)] == np.uint32(1) << np.uint32(int(shift))
        assert np.count_nonzero(words) == 1


def test_a_robust_wire_clips_at_its_largest_level_and_outvotes_less_than_half():
    wire = jq.FixedPoint(8, clip="robust", liars=2)
    assert wire.in_units(5) == wire
    assert not wire.has_fixed_clip
    limit = wire.limit(5)
    values = np.float32([limit, limit + 0.25, -3e38, np.inf, np.nan])
    assert wire.encode(values, np.float32(1), 5).tolist() == [limit, limit, -limit, limit, 0]
    assert wire.saturates(values, np.float32(1), 5).tolist() == [False, True, True, True, False]
    wire.check_liars(5)
    check_refusal(lambda: wire.check_liars(4), ValueError, ["`wire.liars`", "half of the 4", "2"])
    jq.FixedPoint(clip="robust").check_liars(1)
