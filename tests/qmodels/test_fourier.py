"""Fourier coefficients of re-uploading circuits: depth buys frequencies, and scaled angles more.

A circuit that rotates by x times a base^l in layer l, between fixed rotations, has an expectation
that is a Fourier sum: its frequencies are the sums of the bases, each taken once, left out or
subtracted. Equal bases give 2L + 1 of them in L layers, powers of three 3^L.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring.qmodels._states import one_qubit_layer, probabilities, rotations, zero_state

CASES = [(1, layers, 2 * layers + 1) for layers in (1, 2, 3, 4)]
CASES += [(3, layers, 3**layers) for layers in (1, 2, 3, 4)]
THRESHOLD = 1e-5  # between the smallest coefficient here and the noise of rounding in float64


def weights(layers):
    """(L + 1, 2) generic angles of a rotation about Y and one about Z, between the uploads."""
    return np.random.default_rng(0).uniform(0.5, 2.5, size=(layers + 1, 2))


def scales(base, layers):
    return float(base) ** np.arange(layers)


def grid(base, layers):
    """Enough points for all frequencies up to the sum of the scales."""
    points = 2 * int(scales(base, layers).sum()) + 2
    return 2 * np.pi * np.arange(points) / points


def by_matrices(base, layers):
    """<Z> at every point of the grid, from 2 x 2 matrices written out here."""
    values = []
    for x in grid(base, layers):
        state = np.array([1, 0], complex)
        for layer, (about_y, about_z) in enumerate(weights(layers)):
            c, s = np.cos(about_y / 2), np.sin(about_y / 2)
            state = np.array([[c, -s], [s, c]]) @ state
            state = np.exp([-0.5j * about_z, 0.5j * about_z]) * state
            if layer < layers:
                c, s = np.cos(x * base**layer / 2), np.sin(x * base**layer / 2)
                state = np.array([[c, -1j * s], [-1j * s, c]]) @ state
        values.append(abs(state[0]) ** 2 - abs(state[1]) ** 2)
    return np.array(values)


def by_states(base, layers):
    """<Z> at every point of the grid, from the state vectors of the package."""

    def value(x):
        state = zero_state(1, jnp.complex128)
        for layer, (about_y, about_z) in enumerate(weights(layers)):
            state = one_qubit_layer(state, rotations("ry", jnp.array([about_y])))
            state = one_qubit_layer(state, rotations("rz", jnp.array([about_z])))
            if layer < layers:
                state = one_qubit_layer(state, rotations("rx", x[None] * base**layer))
        zero, one = probabilities(state)
        return zero - one

    return np.asarray(jax.jit(jax.vmap(value))(jnp.asarray(grid(base, layers))))


def frequencies(values):
    """The frequencies, positive and negative, whose coefficients are not zero."""
    coefficients = np.fft.fft(values) / len(values)
    found = np.fft.fftfreq(len(values), 1 / len(values))[np.abs(coefficients) > THRESHOLD]
    return {int(frequency) for frequency in found}


def sums(base, layers):
    """All sums of the scales with the signs -1, 0 and 1."""
    found = {0}
    for scale in scales(base, layers):
        found = {frequency + sign * int(scale) for frequency in found for sign in (-1, 0, 1)}
    return found


@pytest.mark.parametrize("base, layers, count", CASES)
def test_matrices_have_the_frequencies_of_the_sums(base, layers, count):
    found = frequencies(by_matrices(base, layers))
    assert len(found) == count
    assert found == sums(base, layers)


@pytest.mark.parametrize("base, layers, count", [(1, 4, 9), (3, 3, 27)])
def test_states_of_the_package_have_the_same_coefficients(base, layers, count):
    with jax.enable_x64(True):
        values = by_states(base, layers)
    assert len(frequencies(values)) == count
    np.testing.assert_allclose(values, by_matrices(base, layers), atol=1e-12)
