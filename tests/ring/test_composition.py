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


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_every_implementation_of_keys_has_the_right_error_rate(implementation):
    # 8 links x 14 rounds x 13 codes x 8 symbols = 11,648 symbols: a deviation of six standard
    # deviations, 0.0055, has a chance of 2e-9 per implementation.
    _, report = over_nodes(NOISY, jax.random.key(0, impl=implementation))(VALUES)
    rate = float(report.symbol_error_rate[0])
    assert abs(rate - 0.01) < 6 * np.sqrt(0.01 * 0.99 / 11_648)


def test_flagged_losses_become_uniform_guesses():
    # Three of four guesses are wrong. 11,648 symbols; six standard deviations, chance 2e-9.
    link = jq.superdense(jq.werner(fidelity=0.99), survival=0.9, heralded=True)
    expected = 0.9 * 0.01 + 0.1 * 0.75
    _, report = over_nodes(jq.Ring(link))(VALUES)
    rate = float(report.symbol_error_rate[0])
    assert abs(rate - expected) < 6 * np.sqrt(expected * (1 - expected) / 11_648)


def test_a_ring_can_be_an_argument_of_a_compiled_function():
    @jax.jit
    def run(ring, values):
        return over_nodes(ring)(values)[0]

    np.testing.assert_array_equal(run(NOISY, VALUES), over_nodes(NOISY)(VALUES)[0])
    gradient = jax.grad(lambda ring: jnp.sum(run(ring, VALUES)))(NOISY)
    assert gradient.channel.transition.shape == (4, 4)
    assert np.any(np.asarray(gradient.channel.transition) != 0)
