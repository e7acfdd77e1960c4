"""Codes of tensors: numbers worked out beforehand, exact expectations, and slopes of one."""

import compress_reference as ref
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring.compress import Levels, Linear, Logarithmic, Sign, Ternary


def close(found, wanted):
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=1.2e-7, atol=1e-10)


def array(*values):
    return jnp.array(values, jnp.float32)


# Logarithmic and linear levels


def test_codes_of_eight_bits():
    code, x = Logarithmic(8), array(0.5, -0.01, 0.25, 0.001, 1, 0)
    codes = code.encode(x, 1.0)
    np.testing.assert_array_equal(codes, [95, -5, 66, 1, 127, 0])
    wanted = [0.5011661633, -0.0099005111, 0.2476932012, 0.0019060440, 1, 0]
    close(code.decode(codes, 1.0), wanted)
    close(code.decode(array(126), 1.0), [1 - 0.0205743278])
    # Nearest on the logarithmic axis: the border of the two highest is not halfway in value.
    np.testing.assert_array_equal(code.encode(array(0.98966, 0.98967), 1.0), [126, 127])


def test_levels_of_four_bits():
    levels = [0, 0.0408543888, 0.0983995886, 0.1794545279, 0.2936239674, 0.4544366336, 0.6809483318]
    close(Logarithmic(4).decode(jnp.arange(8.0), 1.0), [*levels, 1])


@pytest.mark.parametrize("alpha", [1.0, 10.0, 255.0])
@pytest.mark.parametrize("scale", [2.0**-90, 0.3, 7e20])
def test_levels_are_their_own_codes_and_agree_with_the_reference(alpha, scale):
    code = Logarithmic(8, alpha)
    codes = jnp.arange(-127.0, 128)
    values = code.decode(codes, scale)
    wanted = ref.log_decode(codes, np.float32(scale), 8, alpha)
    np.testing.assert_allclose(values, wanted, rtol=2e-7)
    np.testing.assert_array_equal(code.encode(values, scale), codes)
    x = scale * np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    found = np.asarray(code.encode(x, scale))
    exact = 127 * ref.log_fraction(x, np.float32(scale), alpha)
    assert np.abs(found - exact).max() < 0.5 + 1e-4
    assert np.abs(found - exact).max() > 0.49


def test_log_codes_do_not_add():
    code = Logarithmic(8)
    for x, codes, of_mean, mean in (
        ([1, 0], [127, 0], 0.2316624790, 0.5),
        ([1, -0.5], [127, -95], 0.0352692489, 0.2494169184),
        ([0.9, -0.2, 0.05, 0.4], [122, -58, 21, 85], 0.1230989633, 0.2870874101),
    ):
        found = code.encode(array(*x), 1.0)
        np.testing.assert_array_equal(found, codes)
        close(jnp.mean(code.decode(found, 1.0)), mean)
        # What the mean of the codes would say.
        assert float(ref.log_decode(np.mean(found))) == pytest.approx(of_mean, abs=1e-7)


def relative_error(code, t=None):
    """The mean squared error on a fine grid of [0, 1], of uniform values or a Laplace density."""
    x = (np.arange(400_000) + 0.5) / 400_000
    values = np.asarray(code.decode(code.encode(x.astype(np.float32), 1.0), 1.0), np.float64)
    error = (values - x) ** 2
    if t is None:
        return error.mean()
    return (error * np.exp(-x / t) / (2 * t)).mean() * 2 / (2 * t * t)


def test_squared_errors():
    uniform = [relative_error(code) for code in (Logarithmic(8), Logarithmic(8, 100.0), Linear(8))]
    np.testing.assert_allclose(uniform, [1.317020e-5, 3.779062e-5, 5.166677e-6], rtol=1e-3)
    for t, wanted in (
        (0.1, [2.5828e-4, 7.4174e-5, 1.2131e-4]),
        (0.02, [6.4293e-3, 5.4955e-4, 1.7885e-4]),
    ):
        codes = Linear(8), Logarithmic(8), Logarithmic(8, 100.0)
        np.testing.assert_allclose([relative_error(code, t) for code in codes], wanted, rtol=1e-3)


def test_linear_codes_are_those_of_the_reference():
    x = np.random.default_rng(1).normal(size=300).astype(np.float32)
    peak = float(np.abs(x).max())
    codes = Linear(5).encode(x, peak)
    np.testing.assert_array_equal(codes, ref.linear_encode(x, peak, 5))
    np.testing.assert_allclose(
        Linear(5).decode(codes, peak), ref.linear_decode(codes, peak, 5), rtol=1e-6
    )
    assert Linear(5).most == 15
    np.testing.assert_array_equal(Linear(5).encode(array(9.0, -9.0), 1.0), [15, -15])


@pytest.mark.parametrize("code", [Linear(8), Logarithmic(8), Ternary(None), Levels(3)])
def test_a_scale_of_zero_codes_and_decodes_to_zero(code):
    uniform = (jnp.zeros(3),) if isinstance(code, Ternary | Levels) else ()
    codes = code.encode(jnp.zeros(3), 0.0, *uniform)
    np.testing.assert_array_equal(codes, np.zeros(3))
    np.testing.assert_array_equal(code.decode(codes, 0.0), np.zeros(3))


# Rounding by chance


def grid(count):
    """(count, 1) uniform numbers, one in the middle of each of `count` equal cells."""
    return ((jnp.arange(count) + 0.5) / count)[:, None]


TERNARY = array(0.3, -0.7, 0.1, 0.0)


def test_ternary_codes():
    code = Ternary(None)
    codes = np.asarray(code.encode(TERNARY, 0.7, grid(7)), np.float64)
    assert set(np.unique(codes)) <= {-1, 0, 1}
    np.testing.assert_allclose(np.abs(codes).mean(axis=0), [3 / 7, 1, 1 / 7, 0], rtol=1e-12)
    assert np.abs(codes).mean(axis=0).sum() == pytest.approx(1.5714285714)
    np.testing.assert_allclose(0.7 * codes.mean(axis=0), TERNARY, atol=1e-7)
    sent = np.asarray(code.decode(codes, 0.7), np.float64)
    assert ((sent - TERNARY) ** 2).mean(axis=0).sum() == pytest.approx(0.18, rel=1e-6)
    shared = np.asarray(code.encode(TERNARY, 1.0, grid(10)), np.float64)
    assert ((shared - TERNARY) ** 2).mean(axis=0).sum() == pytest.approx(0.51, rel=1e-6)
    # The codes of given numbers are those of the reference.
    rng = np.random.default_rng(2)
    x, uniform = rng.normal(size=1000), rng.uniform(size=1000)
    found = Ternary(2.5).encode(x.astype(np.float32), 2.0, uniform.astype(np.float32))
    np.testing.assert_array_equal(found, ref.terngrad_codes(x, 2.0, uniform))


def test_ternary_expectations_are_exact():
    """All of 64 equally likely numbers: the mean of the codes is the value, without an error."""
    x = jnp.arange(-64, 65) / 64
    codes = Ternary(None).encode(x, 1.0, grid(64))
    np.testing.assert_array_equal(jnp.mean(codes, axis=0), x)
    beyond = Ternary(None).encode(array(1.5, -3.0), 1.0, grid(64))
    np.testing.assert_array_equal(beyond, np.broadcast_to([1, -1], (64, 2)))


@pytest.mark.parametrize("count", [1, 4, 7])
def test_expectations_of_levels_are_exact(count):
    x = jnp.arange(-64 * count, 64 * count + 1) / 64
    codes = Levels(count).encode(x / count, 1.0, grid(64))
    np.testing.assert_allclose(jnp.mean(codes, axis=0), x, atol=1e-6)
    assert np.abs(np.asarray(codes)).max() == count
    assert len(np.unique(codes)) == 2 * count + 1


def test_squared_errors_of_levels():
    v = array(3, 4)
    sent = Levels(4).decode(Levels(4).encode(v, 5.0, grid(10)), 5.0)
    assert float(((sent - v) ** 2).mean(axis=0).sum()) == pytest.approx(0.625, rel=1e-5)
    v, norm = array(1, -2, 2, 0.5), np.sqrt(9.25)
    codes = Levels(1).encode(v, norm, grid(100_000))
    sent = Levels(1).decode(codes, norm)
    assert float(((sent - v) ** 2).mean(axis=0).sum()) == pytest.approx(7.4775969583, rel=1e-4)
    assert float(jnp.abs(codes).mean(axis=0).sum()) == pytest.approx(1.8083888604, rel=1e-4)
    rng = np.random.default_rng(3)
    x, uniform = rng.normal(size=1000), rng.uniform(size=1000)
    norm = np.abs(x).max()
    found = Levels(9).encode(x.astype(np.float32), norm, uniform.astype(np.float32))
    np.testing.assert_array_equal(found, ref.qsgd_codes(x, norm, 9, uniform))


def test_the_scale_of_ternary_codes():
    """The deviation around the mean, of a population."""
    layer = array(1, 2, 3, 4, -20)
    assert float(Ternary(1.0).scale(layer)) == pytest.approx(9.0553851381, rel=1e-6)
    assert float(Ternary(None).scale(layer)) == 20
    spike = jnp.zeros((4, 4)).at[1, 2].set(16)
    assert float(Ternary(1.0).scale(spike)) == pytest.approx(3.8729833462, rel=1e-6)
    assert float(Ternary().scale(spike)) == pytest.approx(9.6824583655, rel=1e-6)


def test_a_single_value_has_no_deviation_and_is_not_clipped():
    assert float(Ternary().scale(jnp.float32(-3))) == 3
    assert float(Ternary().scale(array(-3))) == 3


# Derivatives


def slopes(code, x, scale):
    uniform = (jnp.full(x.shape, 0.5),) if isinstance(code, Ternary | Levels) else ()

    def through(x):
        return jnp.sum(code.decode(code.encode(x, scale, *uniform), scale))

    return jax.grad(through)(x)


@pytest.mark.parametrize(
    "code", [Linear(4), Logarithmic(4), Ternary(None), Levels(3)], ids=lambda c: type(c).__name__
)
def test_rounding_is_followed_by_a_straight_line(code):
    """The largest value itself, and its negative, among them."""
    x = array(0.7, -0.7, 0.3, 0.0, -0.1)
    np.testing.assert_allclose(slopes(code, x, 0.7), np.ones(5), rtol=1e-6)


@pytest.mark.parametrize("code", [Linear(4), Ternary(2.5), Levels(3)])
def test_clipped_values_have_no_derivative(code):
    np.testing.assert_allclose(slopes(code, array(0.8, -0.8, 0.3), 0.7), [0, 0, 1], atol=1e-6)


def test_signs_refuse_a_derivative():
    x = array(0.3, -0.7, 0.0)
    np.testing.assert_array_equal(Sign().encode(x), [1, -1, 0])
    np.testing.assert_array_equal(Sign().decode(array(3, -2, 0), 0.5), [0.5, -0.5, 0])
    for function in (Sign().encode, lambda x: Sign().decode(x, 2.0)):
        with pytest.raises(ValueError, match="`x` must not be differentiated through signs"):
            jax.grad(lambda x, function=function: jnp.sum(function(x)))(x)
        held = jax.grad(lambda x, f=function: jnp.sum(x * f(jax.lax.stop_gradient(x))))(x)
        assert np.isfinite(held).all()


def test_the_scale_of_ternary_codes_is_finite_where_the_values_are():
    values = jnp.array([3e38, -1e38, 0.0, 2e38])
    expected = 0.5 * np.std(np.asarray(values, np.float64))
    np.testing.assert_allclose(Ternary(0.5).scale(values), expected, rtol=1e-6)
