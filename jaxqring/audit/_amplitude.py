"""Estimating the angle between two vectors by reflections: the laws behind GapIP.

One party reflects about u, the other about v. Q = R_u R_v turns the plane of the two by twice their
angle theta and leaves everything else alone, so that all laws depend on theta, the number of qubits
and the noise: vectors of any length cost no more than their inner product.

Noise replaces the travelling register by white noise with some probability on every hop, two for
each Q; the control qubit is kept. What the parties then see is exact: operators are followed in the
plane, and in trace outside it, five numbers in all.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks

#: Canonical phase estimation errs by no more than one step with this probability, at least.
#: Brassard, Hoyer, Mosca and Tapp, arXiv:quant-ph/0005055, theorem 11.
ONE_STEP = 8 / math.pi**2


def angle(inner_product: ArrayLike) -> jax.Array:
    """(...) theta = arccos((1 + g) / 2) between (a, 1)/sqrt(2) and (b, 1)/sqrt(2) for g = <a, b>.

    >>> print(angle(0.0).round(4), angle(1.0))
    1.0472 0.0
    """
    value, _ = checks.bounded("inner_product", inner_product, -1.0, 1.0)
    return jnp.arccos((1 + value) / 2)


def phase_estimation_law(
    theta: ArrayLike, steps: int, qubits: int, hop_noise: ArrayLike
) -> jax.Array:
    """What canonical phase estimation of Q delivers.

    Args:
      theta: () the angle, in [0, pi/2].
      steps: M, a power of two: the resolution is pi / M.
      qubits: of the register that travels.
      hop_noise: () probability that a hop replaces it by white noise.

    Returns:
      (M,) probability of each outcome y, which stands for pi min(y, M - y) / M.

    Without noise that is (K(y/M - theta/pi) + K(y/M + theta/pi)) / 2, with
    K(x) = sin^2(pi M x) / (M sin(pi x))^2; with noise the sum over the paths of the control
    register is a product of 5 x 5 matrices, one for each of its qubits (our derivation).

    >>> law = phase_estimation_law(np.pi / 4, 8, 3, 0.0)
    >>> [int(y) for y in jnp.flatnonzero(law > 0.4)]
    [2, 6]
    """
    theta = jnp.asarray(theta, float)
    if isinstance(hop_noise, float | int) and hop_noise == 0:
        outcomes = jnp.arange(steps) / steps
        return (
            _kernel(outcomes - theta / np.pi, steps) + _kernel(outcomes + theta / np.pi, steps)
        ) / 2
    survival = 1 - jnp.asarray(hop_noise, theta.dtype)
    maps = {(a, b): _turn(theta, qubits, survival, a, b) for a in (0, 1) for b in (0, 1)}
    outcomes = jnp.arange(steps)
    state = jnp.tile(jnp.array([1.0, 0, 0, 0, 0], theta.dtype), (steps, 1))
    size = steps
    while size > 1:
        phase = jnp.exp(-2j * np.pi * outcomes * (steps // size) / steps).astype(complex)
        step = jnp.zeros((steps, 5, 5), phase.dtype)
        for (a, b), turned in maps.items():
            step += (phase ** (a - b))[:, None, None] * turned / 4
        state = jnp.einsum("yij,yj->yi", step, state.astype(step.dtype), precision="highest")
        maps = {bits: jnp.matmul(each, each, precision="highest") for bits, each in maps.items()}
        size //= 2
    # (x00, x01, x10, x11, trace outside)
    return jnp.maximum((state[:, 0] + state[:, 3] + state[:, 4]).real, 0)


def _kernel(turns: jax.Array, steps: int) -> jax.Array:
    """K(x), one where x is an integer."""
    whole = turns - jnp.round(turns)
    sine = jnp.sin(np.pi * whole)
    flat = jnp.abs(sine) < 1e-7
    ratio = jnp.sin(np.pi * steps * whole) / (steps * jnp.where(flat, 1, sine))
    return jnp.where(flat, 1.0, ratio**2)


def _turn(theta: jax.Array, qubits: int, survival: jax.Array, left: int, right: int) -> jax.Array:
    """(5, 5) what one Q, on either side if asked, and the noise of its two hops do."""
    cosine, sine = jnp.cos(theta), jnp.sin(theta)
    of_u = jnp.diag(jnp.array([-1.0, 1.0], theta.dtype))
    of_v = jnp.eye(2) - 2 * jnp.stack(
        [jnp.stack([cosine**2, cosine * sine]), jnp.stack([cosine * sine, sine**2])]
    )
    nothing = jnp.eye(2, dtype=theta.dtype)
    # White noise is I / D: two entries of 1 / D in the plane, and a trace of 1 - 2 / D outside.
    share = 2.0**-qubits
    white = jnp.array([share, 0, 0, share, 1 - 2 * share], theta.dtype)
    trace = jnp.array([1.0, 0, 0, 1, 1], theta.dtype)
    noise = survival * jnp.eye(5) + (1 - survival) * jnp.outer(white, trace)
    total = jnp.eye(5, dtype=theta.dtype)
    for reflection in (of_v, of_u):
        sides = [reflection if side else nothing for side in (left, right)]
        block = jnp.kron(sides[0], sides[1])
        whole = jnp.zeros((5, 5), theta.dtype).at[:4, :4].set(block).at[4, 4].set(1.0)
        total = jnp.matmul(
            noise, jnp.matmul(whole, total, precision="highest"), precision="highest"
        )
    return total


def iterate_probability(
    theta: ArrayLike, turns: ArrayLike, qubits: int, hop_noise: ArrayLike
) -> jax.Array:
    """(...) probability to find u again after so many Q: survival^(2k) cos^2(2 k theta) + rest.

    >>> print(iterate_probability(np.pi / 3, 3, 20, 0.0).round(6))
    1.0
    """
    alive = (1 - jnp.asarray(hop_noise, float)) ** (2 * jnp.asarray(turns))
    return alive * jnp.cos(2 * jnp.asarray(turns) * theta) ** 2 + (1 - alive) * 2.0**-qubits


def fisher_information(turns: ArrayLike) -> jax.Array:
    """(...) of one shot after k turns, about theta, without noise: 16 k^2.

    >>> int(fisher_information(3))
    144
    """
    return 16 * jnp.asarray(turns) ** 2
