"""Estimating the angle between two vectors by reflections: the distributions behind GapIP.

One party reflects about u, the other about v. Q = R_u R_v turns the plane of the two by twice their
angle theta and leaves everything else alone, so that all distributions depend on theta, the number
of qubits and the noise: vectors of any length cost no more than their inner product.

Noise replaces the travelling register by white noise with some probability on every hop, two for
each Q; it leaves the control qubit alone. The distributions are exact: operators are followed in
the plane, and in trace outside it, five numbers in all.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks

#: Least probability that canonical phase estimation errs by no more than its resolution pi / M.
#: Reference: Brassard, Hoyer, Mosca and Tapp, arXiv:quant-ph/0005055, theorem 11.
WITHIN_RESOLUTION = 8 / math.pi**2


def angle(inner_product: ArrayLike) -> jax.Array:
    """Angle (...) arccos((1 + g) / 2) between (a, 1)/sqrt(2) and (b, 1)/sqrt(2) for g = <a, b>.

    >>> print(angle(0.0).round(4), angle(1.0))
    1.0472 0.0
    """
    value, _ = checks.bounded("inner_product", inner_product, -1.0, 1.0)
    return jnp.arccos((1 + value) / 2)


def phase_estimation_probabilities(
    theta: ArrayLike, num_outcomes: int, qubits: int, hop_noise: ArrayLike
) -> jax.Array:
    """Distribution of the outcome of canonical phase estimation of Q.

    Without noise it is (K(y/M - theta/pi) + K(y/M + theta/pi)) / 2, with
    K(x) = sin^2(pi M x) / (M sin(pi x))^2; with noise the sum over the paths of the control
    register is a product of 5 x 5 matrices, one for each of its qubits (our derivation).

    Args:
      theta: () the angle, in [0, pi/2].
      num_outcomes: M, a power of two: the resolution is pi / M.
      qubits: of the register that travels.
      hop_noise: () probability that a hop replaces it by white noise.

    Returns:
      (M,) probability of each outcome y, which stands for the angle pi min(y, M - y) / M.

    >>> probabilities = phase_estimation_probabilities(np.pi / 4, 8, 3, 0.0)
    >>> [int(y) for y in jnp.flatnonzero(probabilities > 0.4)]
    [2, 6]
    """
    theta = jnp.asarray(theta, float)
    if isinstance(hop_noise, float | int) and hop_noise == 0:
        cycles = jnp.arange(num_outcomes) / num_outcomes
        return (
            _kernel(cycles - theta / np.pi, num_outcomes)
            + _kernel(cycles + theta / np.pi, num_outcomes)
        ) / 2
    survival = 1 - jnp.asarray(hop_noise, theta.dtype)
    maps = {(a, b): _iteration_map(theta, qubits, survival, a, b) for a in (0, 1) for b in (0, 1)}
    outcomes = jnp.arange(num_outcomes)
    state = jnp.tile(jnp.array([1.0, 0, 0, 0, 0], theta.dtype), (num_outcomes, 1))
    size = num_outcomes
    while size > 1:
        phase = jnp.exp(-2j * np.pi * outcomes * (num_outcomes // size) / num_outcomes).astype(
            complex
        )
        transfer = jnp.zeros((num_outcomes, 5, 5), phase.dtype)
        for (a, b), power in maps.items():
            transfer += (phase ** (a - b))[:, None, None] * power / 4
        state = jnp.einsum(
            "yij,yj->yi", transfer, state.astype(transfer.dtype), precision="highest"
        )
        maps = {bits: jnp.matmul(each, each, precision="highest") for bits, each in maps.items()}
        size //= 2
    # (x00, x01, x10, x11, trace outside)
    return jnp.maximum((state[:, 0] + state[:, 3] + state[:, 4]).real, 0)


def _kernel(cycles: jax.Array, num_outcomes: int) -> jax.Array:
    """K(x), one where x is an integer."""
    fraction = cycles - jnp.round(cycles)
    sine = jnp.sin(np.pi * fraction)
    is_zero = jnp.abs(sine) < 1e-7
    ratio = jnp.sin(np.pi * num_outcomes * fraction) / (num_outcomes * jnp.where(is_zero, 1, sine))
    return jnp.where(is_zero, 1.0, ratio**2)


def _iteration_map(
    theta: jax.Array, qubits: int, survival: jax.Array, left: int, right: int
) -> jax.Array:
    """Superoperator (5, 5) of one controlled Q followed by white noise on both hops.

    Q acts on the ket if `left` is 1, and on the bra if `right` is 1.
    """
    cosine, sine = jnp.cos(theta), jnp.sin(theta)
    of_u = jnp.diag(jnp.array([-1.0, 1.0], theta.dtype))
    of_v = jnp.eye(2) - 2 * jnp.stack(
        [jnp.stack([cosine**2, cosine * sine]), jnp.stack([cosine * sine, sine**2])]
    )
    identity = jnp.eye(2, dtype=theta.dtype)
    # White noise is I / D: two entries of 1 / D in the plane, and a trace of 1 - 2 / D outside.
    weight = 2.0**-qubits
    white = jnp.array([weight, 0, 0, weight, 1 - 2 * weight], theta.dtype)
    trace = jnp.array([1.0, 0, 0, 1, 1], theta.dtype)
    noise = survival * jnp.eye(5) + (1 - survival) * jnp.outer(white, trace)
    total = jnp.eye(5, dtype=theta.dtype)
    for reflection in (of_v, of_u):
        sides = [reflection if side else identity for side in (left, right)]
        block = jnp.kron(sides[0], sides[1])
        whole = jnp.zeros((5, 5), theta.dtype).at[:4, :4].set(block).at[4, 4].set(1.0)
        total = jnp.matmul(
            noise, jnp.matmul(whole, total, precision="highest"), precision="highest"
        )
    return total


def iterate_probability(
    theta: ArrayLike, iterations: ArrayLike, qubits: int, hop_noise: ArrayLike
) -> jax.Array:
    """Probability (...) to find u again after k iterations of Q.

    It is a cos^2(2 k theta) + (1 - a) 2^-qubits with a the probability of no error in 2 k hops.

    >>> print(iterate_probability(np.pi / 3, 3, 20, 0.0).round(6))
    1.0
    """
    alive = (1 - jnp.asarray(hop_noise, float)) ** (2 * jnp.asarray(iterations))
    return alive * jnp.cos(2 * jnp.asarray(iterations) * theta) ** 2 + (1 - alive) * 2.0**-qubits


def fisher_information(iterations: ArrayLike) -> jax.Array:
    """Fisher information (...) about theta of one shot after k iterations, without noise: 16 k^2.

    >>> int(fisher_information(3))
    144
    """
    return 16 * jnp.asarray(iterations) ** 2
