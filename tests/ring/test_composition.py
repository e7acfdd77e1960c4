"""The collectives inside larger programs: several axes, sweeps over noise, other keys, loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import jaxqring as jq

KEY = jax.random.key(7)
VALUES = jax.random.normal(jax.random.key(1), (8, 100))
NOISY = jq.Ring(jq.superdense(jq.werner(fidelity=0.99)))


def over_nodes(ring, key=KEY):
    return jax.vmap(
        lambda x: jq.psum(x, "nodes", ring=ring, key=key, with_report=True), axis_name="nodes"
    )


@pytest.mark.matrix
def test_two_mesh_axes_together_make_one_ring():
    grid = Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("rows", "columns"))

    def per_device(x):
        total = jq.psum(x[0, 0], ("rows", "columns"), ring=NOISY, key=KEY)
        return total[None, None]

    spec = P("rows", "columns")
    mapped = jax.jit(jax.shard_map(per_device, mesh=grid, in_specs=spec, out_specs=spec))
    expected, _ = over_nodes(NOISY)(VALUES)
    np.testing.assert_array_equal(mapped(VALUES.reshape(2, 4, 100)).reshape(8, 100), expected)


def test_each_row_of_a_mesh_can_be_a_ring_of_its_own():
    grid = Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("rows", "columns"))
    ring = jq.Ring(noise="off", wire=jq.FixedPoint(32))

    def per_device(x):
        return jq.psum(x[0, 0], "columns", ring=ring, key=None)[None, None]

    spec = P("rows", "columns")
    mapped = jax.jit(jax.shard_map(per_device, mesh=grid, in_specs=spec, out_specs=spec))
    rows = np.asarray(VALUES.reshape(2, 4, 100))
    totals = np.asarray(mapped(rows))
    np.testing.assert_allclose(totals, np.repeat(rows.sum(1, keepdims=True), 4, 1), atol=1e-5)


@pytest.mark.matrix
def test_a_sweep_over_noise_is_traced_once_and_gives_the_bits_of_single_runs():
    traces = 0

    def run(fidelity, values):
        nonlocal traces
        traces += 1
        return over_nodes(jq.Ring(jq.superdense(jq.werner(fidelity=fidelity))))(values)

    fidelities = jnp.array([0.9, 0.99, 0.999])
    sweep = jax.jit(jax.vmap(run, in_axes=(0, None)))
    totals, reports = sweep(fidelities, VALUES)
    sweep(fidelities / 2 + 0.5, VALUES)
    assert traces == 1
    for index, fidelity in enumerate(fidelities):
        alone, report = run(float(fidelity), VALUES)
        np.testing.assert_array_equal(totals[index], alone)
        np.testing.assert_array_equal(reports.errors_per_link[index], report.errors_per_link)


@pytest.mark.statistics
@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_every_implementation_of_keys_has_the_right_error_rate(implementation):
    # 8 links x 14 rounds x 13 levels x 8 symbols = 11,648 symbols: a deviation of six standard
    # deviations, 0.0055, has a chance of 2e-9 per implementation.
    _, report = over_nodes(NOISY, jax.random.key(0, impl=implementation))(VALUES)
    rate = float(report.symbol_error_rate[0])
    assert abs(rate - 0.01) < 6 * np.sqrt(0.01 * 0.99 / 11_648)


@pytest.mark.statistics
def test_flagged_losses_become_uniform_guesses():
    # Three of four guesses are wrong. 11,648 symbols; six standard deviations, chance 2e-9.
    link = jq.superdense(jq.werner(fidelity=0.99), survival=0.9, heralded=True)
    expected = 0.9 * 0.01 + 0.1 * 0.75
    _, report = over_nodes(jq.Ring(link))(VALUES)
    rate = float(report.symbol_error_rate[0])
    assert abs(rate - expected) < 6 * np.sqrt(expected * (1 - expected) / 11_648)


@pytest.mark.matrix
def test_a_ring_can_be_an_argument_of_a_compiled_function():
    @jax.jit
    def run(ring, values):
        return over_nodes(ring)(values)[0]

    np.testing.assert_array_equal(run(NOISY, VALUES), over_nodes(NOISY)(VALUES)[0])
    follows = NOISY.replace(derivative="mean")
    gradient = jax.grad(lambda ring: jnp.sum(run(ring, VALUES)))(follows)
    assert gradient.channel.transition.shape == (4, 4)
    assert np.any(np.asarray(gradient.channel.transition) != 0)


def scaled_sum(ring, values, wrap=lambda f: f):
    """s -> sum over nodes of the squares of the psum of s times the values."""

    def of_node(scale, x):
        return jnp.sum(jq.psum(scale * x, "nodes", ring=ring, key=KEY) ** 2)

    return wrap(
        lambda scale: jnp.sum(
            jax.vmap(of_node, in_axes=(None, 0), axis_name="nodes")(scale, values)
        )
    )


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda f: f, id="plain", marks=pytest.mark.matrix),
        pytest.param(jax.jit, id="jit"),
    ],
)
def test_second_derivatives_are_those_of_the_exact_sum(wrap):
    ring = jq.Ring(wire=jq.FixedPoint(32), noise="off")
    loss = scaled_sum(ring, VALUES, wrap)
    expected = 2 * 8 * float(jnp.sum(jnp.sum(VALUES, axis=0) ** 2))
    for second in (jax.grad(jax.grad(loss)), jax.jacfwd(jax.grad(loss)), jax.hessian(loss)):
        np.testing.assert_allclose(second(1.0), expected, rtol=1e-5)


@pytest.mark.matrix
def test_a_slope_can_be_differentiated_with_respect_to_noise_but_not_the_other_way_round():
    def loss(fidelity, scale):
        link = jq.superdense(jq.werner(fidelity=fidelity))
        ring = jq.Ring(link, jq.FixedPoint(32), derivative="mean")

        def of_node(x):
            return jnp.sum(jq.psum(scale * x, "nodes", ring=ring, key=KEY))

        return jnp.sum(jax.vmap(of_node, axis_name="nodes")(VALUES))

    # d loss / d scale is the sum over pairs of nodes of slope^hops x, with slope 1 - 2f: of noise
    # alone, so that a finite difference of it is that of a smooth function.
    slope = jax.jit(jax.grad(loss, argnums=1))
    mixed = jax.jacfwd(jax.grad(loss, argnums=1), argnums=0)(0.99, 1.0)
    difference = (slope(0.99 + 1e-3, 1.0) - slope(0.99 - 1e-3, 1.0)) / 2e-3
    assert abs(difference) > 1
    np.testing.assert_allclose(mixed, difference, rtol=2e-2)
    with pytest.raises(ValueError, match="differentiate with respect to noise last"):
        jax.grad(jax.grad(loss, argnums=0), argnums=1)(0.99, 1.0)


@pytest.mark.matrix
def test_a_loop_between_the_axis_and_an_outer_jit_is_refused_with_the_remedy():
    def of_node(x):
        def add(total, _):
            return total + jq.psum(x, "nodes", ring=NOISY, key=KEY), None

        return jnp.sum(jax.lax.scan(add, jnp.zeros(100), length=2)[0])

    def loss(values):
        return jnp.sum(jax.vmap(of_node, axis_name="nodes")(values))

    # Each is a sum of positive products of slopes, one for each node that a value reaches: two
    # programs differ by the 30 roundings or so of 2 N terms and of N factors, 2^-24 each.
    inside = jax.jit(jax.grad(loss))(VALUES)
    assert np.all(np.asarray(inside) > 2)
    np.testing.assert_allclose(inside, jax.grad(loss)(VALUES), rtol=32 * 2.0**-24)
    with pytest.raises(ValueError, match="apply jit to the grad instead"):
        jax.grad(jax.jit(loss))(VALUES)


@pytest.mark.matrix
def test_reports_and_the_optimizer_work_in_double_precision():
    with jax.enable_x64(True):
        values = np.asarray(VALUES, np.float64)
        quiet = jq.Ring(noise="off")
        total, _ = over_nodes(quiet)(values)
        assert total.dtype == np.float64
        np.testing.assert_array_equal(total, over_nodes(quiet)(VALUES)[0])
        # Leaves of another type have errors of their own, of the same rate: 11,648 symbols, six
        # standard deviations, chance 2e-9.
        total, report = over_nodes(NOISY)(values)
        assert total.dtype == np.float64
        rate = float(report.symbol_error_rate[0])
        assert abs(rate - 0.01) < 6 * np.sqrt(0.01 * 0.99 / 11_648)
        chain = jq.all_reduce(NOISY, "nodes", key=KEY)
        update = jax.vmap(chain.update, in_axes=(0, None), axis_name="nodes")
        mean, _ = update(values, chain.init(values[0]))
        assert mean.dtype == np.float64


def test_the_error_rate_of_more_than_2_to_the_31_symbols():
    errors = jnp.full((8,), 1_000_000, jnp.uint32)
    zero = jnp.uint32(0)
    report = jq.Report(
        errors_per_link=errors,
        retransmissions_per_link=errors * 0,
        undelivered=zero,
        online_qubits=jnp.float32(8 * 280_000_000),
        repeated_qubits=jnp.float32(0),
        saturated=zero,
        non_finite=zero,
        vanished=zero,
        clipped_parameters=zero,
        replica_agreement=None,
        num_links=8,
        symbols_per_link=280_000_000,
        codewords_per_link=0,
    )
    assert report.symbols_sent == 2_240_000_000
    np.testing.assert_allclose(report.symbol_error_rate, 1 / 280, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("non_finite", ["propagate", "clip"])
def test_a_mean_of_values_that_fit_fits_and_a_sum_beyond_their_type_does_as_the_wire_says(
    dtype, non_finite
):
    top = float(jnp.finfo(dtype).max)
    values = jnp.full((8, 4), top, dtype).at[:, 1].multiply(-1)
    ring = jq.Ring(wire=jq.FixedPoint(16, non_finite=non_finite), noise="off")
    run = jax.vmap(
        lambda x: (
            jq.psum(x, "nodes", ring=ring, key=None),
            jq.pmean(x, "nodes", ring=ring, key=None),
        ),
        axis_name="nodes",
    )
    total, mean = (np.asarray(each, np.float64) for each in jax.jit(run)(values))
    edge = np.inf if non_finite == "propagate" else top
    np.testing.assert_array_equal(total, edge * np.sign(np.asarray(values, np.float64)))
    # Codes of 13 bits; the last one of float32 lies half a step below its end at most.
    np.testing.assert_allclose(mean, np.asarray(values, np.float64), rtol=2.0**-12)
    assert np.all(np.isfinite(mean))


@jax.jit
def report_of(transition):
    return over_nodes(jq.Ring(jq.SymbolChannel(transition)))(VALUES)[1]


@pytest.mark.parametrize("entry", [np.nan, 1.5])
def test_a_traced_matrix_that_is_none_is_flagged(entry):
    report = report_of(jnp.eye(4).at[0, 0].set(entry))
    assert float(report.clipped_parameters[0]) == 1
    if np.isnan(entry):  # a quarter of each row is all that is known: three of four are wrong
        assert float(report.symbol_error_rate[0]) > 0.1


def test_a_certain_error_happens_to_every_symbol():
    link = jq.superdense(jq.werner(fidelity=1.0), sent=jq.bit_flip(error_prob=1.0))
    words = jnp.zeros((100_000,), jnp.uint32)
    # 1.6 million symbols; one escapes with probability 4e-4 at the resolution of 2^-32.
    assert np.all(np.asarray(jax.jit(jq.transmit)(words, link, KEY)) == 0xAAAAAAAA)


def test_what_is_known_to_be_the_same_everywhere_can_be_gathered():
    mesh = Mesh(np.array(jax.devices()[:4]), ("nodes",))
    ring = jq.Ring(wire=jq.FixedPoint(16), noise="off")
    gather = jax.shard_map(
        lambda x: jq.all_gather(x, "nodes", ring=ring, key=None),
        mesh=mesh,
        in_specs=P(),
        out_specs=P("nodes"),
    )
    np.testing.assert_array_equal(jax.jit(gather)(jnp.ones(3)), np.ones((16, 3)))
