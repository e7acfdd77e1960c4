"""Capacities of one online qubit, in closed form.

Two families: `assisted_*` is the entanglement-assisted capacity C_E (perfect pairs, the best
code), `unassisted_*` the classical capacity of the bare qubit. `dense_coding_capacity` is for
noisy pairs on a noiseless channel.

Derivatives are of first order; see `jaxqring.physics.information`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._pair import Pair
from jaxqring.physics.information import (
    binary_entropy_bits,
    entropy_bits,
    safe_sqrt,
    von_neumann_entropy,
)

#: Halvings of [0, 1] in the search for the best input; more than float64 can resolve.
BISECTIONS = 60


def dense_coding_capacity(pair: Pair) -> jax.Array:
    """Bits per online qubit that a pair supports on a noiseless channel.

    Args:
      pair: the shared pair, noise included, batch shape (...).

    Returns:
      (...) 1 + S(rho_B) - S(rho_AB) bits, B the kept half: the best that unitary encodings and
      joint measurements reach. For a Bell-diagonal pair it is 2 - H(bell_probs), which a Bell
      measurement attains. Below one the pair is worse than no pair.

    Raises:
      TypeError: if `pair` is not a Pair.

    Reference: Hiroshima, J. Phys. A 34, 6907 (2001); Bowen, Phys. Rev. A 63, 022302 (2001).
    Encodings that are not unitary can exceed it for some pairs (arXiv:0807.4552).

    >>> from jaxqring import werner
    >>> round(float(dense_coding_capacity(werner(fidelity=0.9))), 4)
    1.3725
    """
    checks.instance("pair", pair, Pair)
    both = pair.density_matrix()
    stored = jnp.einsum("...abad->...bd", both.reshape(*both.shape[:-2], 2, 2, 2, 2))
    return 1 + von_neumann_entropy(stored) - von_neumann_entropy(both)


def _depolarized_entropy(mix: jax.Array) -> jax.Array:
    return entropy_bits(jnp.stack([1 - 0.75 * mix, mix / 4, mix / 4, mix / 4], axis=-1))


def assisted_depolarizing(*, mix: ArrayLike) -> jax.Array:
    """Entanglement-assisted capacity of the depolarizing channel.

    Args:
      mix: (...) weight of I/2, in [0, 1]; mixing is complete at 1.

    Returns:
      (...) 2 - H(1 - 3 mix/4, mix/4, mix/4, mix/4), bits per online qubit.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: Bennett, Shor, Smolin and Thapliyal, Phys. Rev. Lett. 83, 3081 (1999).

    >>> round(float(assisted_depolarizing(mix=0.1)), 4)
    1.4968
    """
    return 2 - _depolarized_entropy(checks.bounded("mix", mix)[0])


def assisted_erasure(*, erasure_prob: ArrayLike) -> jax.Array:
    """Entanglement-assisted capacity of the erasure channel.

    Args:
      erasure_prob: (...) probability that the qubit is lost and the loss flagged, in [0, 1].

    Returns:
      (...) 2 (1 - erasure_prob), bits per online qubit.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: Bennett, Shor, Smolin and Thapliyal, Phys. Rev. Lett. 83, 3081 (1999).

    >>> round(float(assisted_erasure(erasure_prob=0.1)), 4)
    1.8
    """
    return 2 * (1 - checks.bounded("erasure_prob", erasure_prob)[0])


def assisted_dephasing(*, error_prob: ArrayLike) -> jax.Array:
    """Entanglement-assisted capacity of the dephasing channel.

    Args:
      error_prob: (...) probability of Z, in [0, 1]; phases are lost completely at 1/2.

    Returns:
      (...) 2 - h(error_prob), bits per online qubit; never below one.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: Bennett, Shor, Smolin and Thapliyal, IEEE Trans. Inf. Theory 48, 2637 (2002).

    >>> round(float(assisted_dephasing(error_prob=0.5)), 4)
    1.0
    """
    return 2 - binary_entropy_bits(checks.bounded("error_prob", error_prob)[0])


def _damping_information(
    excited_input: jax.Array, gamma: jax.Array, excited_population: jax.Array
) -> jax.Array:
    """S(rho) + S(N rho) - S(environment) for the input diag(1 - u, u).

    The environment has the spectrum of the purified input after the channel. That state has the
    populations |10> and |01> and one 2 x 2 block on {|00>, |11>}, whose smaller eigenvalue comes
    from the determinant because the difference of the larger ones would lose it to rounding.
    """
    u, e = excited_input, excited_population
    up, down = gamma * e, gamma * (1 - e)  # probabilities to be excited and to decay
    output = u * (1 - down) + (1 - u) * up
    stay_low, stay_high = (1 - u) * (1 - up), u * (1 - down)
    splitting = safe_sqrt((stay_low - stay_high) ** 2 + 4 * u * (1 - u) * (1 - gamma))
    larger = (stay_low + stay_high + splitting) / 2
    smaller = u * (1 - u) * up * down / larger
    environment = jnp.stack([(1 - u) * up, u * down, larger, smaller], axis=-1)
    return binary_entropy_bits(u) + binary_entropy_bits(output) - entropy_bits(environment)


def _damping_holevo(excited_input: jax.Array, gamma: jax.Array) -> jax.Array:
    """Holevo information of two pure inputs with mean diag(1 - u, u), opposite in phase."""
    overlap = gamma * (1 - gamma) * excited_input**2
    # (1 - root) / 2 without its cancellation.
    smaller = 2 * overlap / (1 + safe_sqrt(1 - 4 * overlap))
    return binary_entropy_bits((1 - gamma) * excited_input) - binary_entropy_bits(smaller)


@partial(jax.jit, static_argnums=0)
def _best_input(information: Callable[..., jax.Array], *parameters: jax.Array) -> jax.Array:
    """The u in [0, 1] at which a concave `information(u, *parameters)` has slope zero.

    Bisects the slope: near the maximum the values themselves differ by less than rounding and
    would determine u to half the digits only.
    """

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        _, slope = jax.jvp(
            lambda u: information(u, *parameters), (middle,), (jnp.ones_like(middle),)
        )
        return jnp.where(slope > 0, middle, low), jnp.where(slope > 0, high, middle)

    low, high = lax.fori_loop(
        0, BISECTIONS, halve, (jnp.zeros_like(parameters[0]), jnp.ones_like(parameters[0]))
    )
    return (low + high) / 2


def _maximum(information: Callable[..., jax.Array], *parameters: jax.Array) -> jax.Array:
    parameters = tuple(jnp.broadcast_arrays(*parameters))
    # The envelope theorem: at the best input the derivative through the input vanishes.
    best = _best_input(information, *(lax.stop_gradient(value) for value in parameters))
    return information(lax.stop_gradient(best), *parameters)


def _same_type(*values: jax.Array) -> list[jax.Array]:
    kind = jnp.result_type(*values)
    return [value.astype(kind) for value in values]


def damping_mutual_information(
    *, gamma: ArrayLike, excited_population: ArrayLike, excited_input: ArrayLike
) -> jax.Array:
    """Quantum mutual information of generalized amplitude damping, for a given input.

    Args:
      gamma: (...) fraction of the way to equilibrium, in [0, 1].
      excited_population: (...) probability of |1> in equilibrium, in [0, 1]; zero for amplitude
        damping.
      excited_input: (...) probability u of |1> in the input diag(1 - u, u), in [0, 1]; 1/2 is
        the half of a perfect pair.

    Returns:
      (...) S(rho) + S(N rho) - S(environment), bits per online qubit.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> half = damping_mutual_information(gamma=0.1, excited_population=0.0, excited_input=0.5)
    >>> round(float(half), 4)
    1.7064
    """
    return _damping_information(
        *_same_type(
            checks.bounded("excited_input", excited_input)[0],
            checks.bounded("gamma", gamma)[0],
            checks.bounded("excited_population", excited_population)[0],
        )
    )


def assisted_generalized_amplitude_damping(
    *, gamma: ArrayLike, excited_population: ArrayLike
) -> jax.Array:
    """Entanglement-assisted capacity of generalized amplitude damping.

    Args:
      gamma: (...) fraction of the way to equilibrium, in [0, 1]; complete at 1.
      excited_population: (...) probability of |1> in equilibrium, in [0, 1].

    Returns:
      (...) the largest `damping_mutual_information` of any input, bits per online qubit. The
      information is concave in the input and the channel treats all phases alike, so the best
      input is diagonal and the search is over one number.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: Bennett, Shor, Smolin and Thapliyal, IEEE Trans. Inf. Theory 48, 2637 (2002).

    >>> hot = assisted_generalized_amplitude_damping(gamma=0.1, excited_population=0.5)
    >>> round(float(hot), 4)
    1.6557
    """
    return _maximum(
        _damping_information,
        *_same_type(
            checks.bounded("gamma", gamma)[0],
            checks.bounded("excited_population", excited_population)[0],
        ),
    )


def assisted_amplitude_damping(*, gamma: ArrayLike) -> jax.Array:
    """Entanglement-assisted capacity of amplitude damping.

    Args:
      gamma: (...) probability that |1> has decayed, in [0, 1].

    Returns:
      (...) max over u of h(u) + h((1 - gamma) u) - h(gamma u), bits per online qubit; one at
      gamma = 1/2.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: Giovannetti and Fazio, Phys. Rev. A 71, 032314 (2005).

    >>> round(float(assisted_amplitude_damping(gamma=0.1)), 4)
    1.7077
    """
    value, _ = checks.bounded("gamma", gamma)
    return _maximum(_damping_information, value, jnp.zeros_like(value))


def unassisted_depolarizing(*, mix: ArrayLike) -> jax.Array:
    """Classical capacity of the depolarizing channel.

    Args:
      mix: (...) weight of I/2, in [0, 1]; mixing is complete at 1.

    Returns:
      (...) 1 - h(mix / 2), bits per qubit. Towards mix = 1 assistance triples it.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: King, IEEE Trans. Inf. Theory 49, 221 (2003).

    >>> round(float(unassisted_depolarizing(mix=0.1)), 4)
    0.7136
    """
    return 1 - binary_entropy_bits(checks.bounded("mix", mix)[0] / 2)


def unassisted_erasure(*, erasure_prob: ArrayLike) -> jax.Array:
    """Classical capacity of the erasure channel.

    Args:
      erasure_prob: (...) probability that the qubit is lost and the loss flagged, in [0, 1].

    Returns:
      (...) 1 - erasure_prob, bits per qubit.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: Bennett, DiVincenzo and Smolin, Phys. Rev. Lett. 78, 3217 (1997).

    >>> round(float(unassisted_erasure(erasure_prob=0.1)), 4)
    0.9
    """
    return 1 - checks.bounded("erasure_prob", erasure_prob)[0]


def unassisted_dephasing(*, error_prob: ArrayLike) -> jax.Array:
    """Classical capacity of the dephasing channel.

    Args:
      error_prob: (...) probability of Z, in [0, 1].

    Returns:
      (...) one bit per qubit at any noise: |0> and |1> pass unharmed.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> float(unassisted_dephasing(error_prob=0.3))
    1.0
    """
    return jnp.ones_like(checks.bounded("error_prob", error_prob)[0])


def unassisted_amplitude_damping(*, gamma: ArrayLike) -> jax.Array:
    """Product-state (Holevo) capacity of amplitude damping.

    Args:
      gamma: (...) probability that |1> has decayed, in [0, 1].

    Returns:
      (...) max over u of h((1 - gamma) u) - h((1 + sqrt(1 - 4 gamma (1 - gamma) u^2)) / 2), bits
      per qubit. It is open whether inputs entangled across uses do better (additivity), so
      this is a lower bound on the classical capacity.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: Giovannetti and Fazio, Phys. Rev. A 71, 032314 (2005).

    >>> round(float(unassisted_amplitude_damping(gamma=0.1)), 4)
    0.8405
    """
    return _maximum(_damping_holevo, checks.bounded("gamma", gamma)[0])
