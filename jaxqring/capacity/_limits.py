"""Break-even noise of superdense coding, a bound on all protocols, and the price of pairs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose subpackages load when they are first used
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.capacity._closed_forms import (
    assisted_amplitude_damping,
    assisted_depolarizing,
    assisted_erasure,
    dense_coding_capacity,
)
from jaxqring.physics._pair import werner
from jaxqring.physics.channels import amplitude_damping, depolarizing
from jaxqring.physics.information import entropy_bits


def break_even(capacity: Callable[[jax.Array], jax.Array], low: float, high: float) -> float:
    """The noise at which a capacity crosses one bit per online qubit.

    Args:
      capacity: function of one scalar, in bits per online qubit.
      low: one end of the interval searched.
      high: the other end; `capacity` must be above one at one end and below at the other.

    Returns:
      The parameter where `capacity` is one. The search runs in float64 and
      leaves the precision of the program as it was.

    Raises:
      ValueError: if `capacity` does not cross one bit between `low` and `high`.

    >>> round(break_even(lambda loss: assisted_erasure(erasure_prob=loss), 0.0, 1.0), 6)
    0.5
    """

    def surplus(parameter: float) -> float:
        # The context is local to this thread. In float32 the root would be accurate to 1e-7
        # divided by the slope only.
        with jax.enable_x64(True):
            return float(capacity(jnp.asarray(parameter, dtype=float))) - 1.0

    ends = np.array([surplus(low), surplus(high)])
    if not ends[0] * ends[1] <= 0:
        rule = f"cross one bit between {low:g} and {high:g}"
        checks.refuse("capacity", rule, ends + 1.0)
    return float(scipy.optimize.brentq(surplus, low, high, xtol=1e-12))


def _both_halves(survival: jax.Array) -> jax.Array:
    noise = depolarizing(mix=1 - survival)
    return dense_coding_capacity(
        werner(weight=jnp.ones_like(survival)).apply(sent=noise, kept=noise)
    )


def _damped_bell(gamma: jax.Array) -> jax.Array:
    perfect = werner(weight=jnp.ones_like(gamma))
    return 2 - entropy_bits(perfect.apply(sent=amplitude_damping(gamma=gamma)).bell_probs)


def thresholds() -> dict[str, float]:
    """Noise at which superdense coding stops beating one bit per online qubit.

    Returns:
      For each kind of noise acting alone, the parameter at which one online qubit carries one
      bit:

      * `werner_fidelity`, `werner_weight`: least fidelity, or weight of Phi+, of a Werner pair;
      * `depolarizing_mix`: most total depolarizing;
      * `survival_each_half`: least 1 - mix per half, if both halves are depolarized alike;
      * `erasure_prob`: most loss, if loss is flagged;
      * `amplitude_damping_bell`: most gamma on the sent half, with a Bell measurement;
      * `amplitude_damping_assisted`: most gamma with the best code and measurement.

    Dephasing has no threshold: its assisted capacity is never below one.

    >>> {name: round(value, 4) for name, value in thresholds().items()}["werner_fidelity"]
    0.8107
    """
    return {
        "werner_fidelity": break_even(
            lambda fidelity: dense_coding_capacity(werner(fidelity=fidelity)), 0.25, 1.0
        ),
        "werner_weight": break_even(
            lambda weight: dense_coding_capacity(werner(weight=weight)), 0.0, 1.0
        ),
        "depolarizing_mix": break_even(lambda mix: assisted_depolarizing(mix=mix), 0.0, 1.0),
        "survival_each_half": break_even(_both_halves, 0.0, 1.0),
        "erasure_prob": break_even(lambda loss: assisted_erasure(erasure_prob=loss), 0.0, 1.0),
        "amplitude_damping_bell": break_even(_damped_bell, 0.0, 1.0),
        "amplitude_damping_assisted": break_even(
            lambda gamma: assisted_amplitude_damping(gamma=gamma), 0.0, 1.0
        ),
    }


def _counts(value: ArrayLike) -> jax.Array | np.ndarray:
    """`value`, with concrete integers in 64 bits."""
    if checks.is_traced(value):
        return jnp.asarray(value)
    known = np.asarray(value)
    if np.issubdtype(known.dtype, np.integer):
        return known.astype(np.int64)
    return jnp.asarray(value)


def one_shot_success_bound(*, qubits: ArrayLike, bits: ArrayLike) -> jax.Array:
    """Upper bound on the probability of decoding `bits` uniform bits from `qubits` qubits.

    Args:
      qubits: (...) online qubits m, at least zero.
      bits: (...) bits n to be decoded, at least zero.

    Returns:
      (...) min(1, 2^(2m - n)), a probability: the bound holds with any entanglement shared
      beforehand.

    Raises:
      ValueError: if a concrete value is negative.

    Reference: Nayak and Salzman, J. ACM 53, 184 (2006).

    >>> float(one_shot_success_bound(qubits=10, bits=21))
    0.5
    """
    for name, value in (("qubits", qubits), ("bits", bits)):
        checks.bounded(name, value, 0.0, np.inf)
    # Subtracted as integers, because 2m and n of a large model are not exact in float32.
    spare = 2 * _counts(qubits) - _counts(bits)
    return jnp.exp2(jnp.minimum(checks.real("2 qubits - bits", spare), 0.0))


def lifetime_uses(
    *, online: ArrayLike, generation_prob: ArrayLike, purification_cost: ArrayLike = 1.0
) -> jax.Array:
    """Uses of a link by online qubits and by the pairs shared for them beforehand.

    Args:
      online: (...) online qubits, at least zero.
      generation_prob: (...) probability that one attempt yields a heralded pair, in [1e-18, 1].
      purification_cost: (...) raw pairs consumed per pair used, at least one; one without
        purification.

    Returns:
      (...) online (1 + purification_cost / generation_prob) qubit uses, expected. With perfect
      generation and no purification that is two per online qubit, the same as the two bits that
      it carries would take unassisted.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> float(lifetime_uses(online=100, generation_prob=0.5, purification_cost=2.0))
    500.0
    """
    qubits, _ = checks.bounded("online", online, 0.0, np.inf)
    # The smallest value has a square that float32 can still divide by.
    success, _ = checks.bounded("generation_prob", generation_prob, 1e-18, 1.0)
    cost, _ = checks.bounded("purification_cost", purification_cost, 1.0, np.inf)
    return qubits * (1 + cost / success)
