"""Derivatives of expectations by the parameter-shift rule, exact and with finite shots.

For a gate exp(-i t P / 2) with P a Pauli, d<O>/dt = (<O>(t + pi/2) - <O>(t - pi/2)) / 2 exactly.
The rule holds for an angle, which stands once in a circuit, and not for a parameter that stands
twice or is multiplied by a feature: derivatives by parameters follow by the chain rule from those
by angles.

Reference: Mitarai, Negoro, Kitagawa and Fujii, Phys. Rev. A 98, 032309 (2018); Schuld, Bergholm,
Gogolin, Izaac and Killoran, Phys. Rev. A 99, 032331 (2019).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring._varying import as_varying, varying
from jaxqring.qmodels._circuits import Angles, Circuit, check_observables
from jaxqring.qmodels._states import probabilities

#: Shifted circuits that are simulated at once.
_AT_ONCE = 32
#: Beyond this the shots of one circuit fill more memory than its state.
MOST_SHOTS = 10**6


@struct.dataclass
class ShotReport:
    """Derivatives by angles, and the precision of an estimate from shots.

    Attributes:
      derivative: of K expectations by each angle, in the shapes of the angles with a leading K.
      variance: of each derivative over the draws of the shots, as predicted from the exact
        probabilities; zero without shots.
      circuits: that were run, two for each angle.
      shots: of each circuit, or None for exact expectations.
    """

    derivative: Angles
    variance: Angles
    circuits: int = struct.field(pytree_node=False)
    shots: int | None = struct.field(pytree_node=False)


def parameter_shift(
    circuit: Circuit,
    angles: Angles,
    observables: ArrayLike,
    *,
    shots: int | None = None,
    key: Key | None = None,
) -> ShotReport:
    """The derivatives of expectations by every angle of a circuit.

    With shots all observables are read from the same outcomes of a circuit, which are multinomial.
    A derivative with m shots on each side has the variance (Var_+ + Var_-) / (4 m), where Var is
    that of the observable in one shot.

    Args:
      circuit: whose angles are all of gates with a Pauli as generator.
      angles: of the circuit, in radians.
      observables: (2^n, K) the value of each by outcome, as `z_values` gives.
      shots: of each circuit, at most 10^6; None for exact expectations.
      key: of the shots; given with them.

    Returns:
      The derivatives and their variance. It is a function of JAX like any other, under `jax.jit`,
      `jax.vmap` or `jax.shard_map`; with shots it has no derivative of its own.

    Raises:
      TypeError: if the key is not a typed one.
      ValueError: if the generator of an angle is no Pauli, the shots are out of range or without a
        key, or the shapes are not those of the circuit.

    >>> circuit = Circuit(1, 1, ("ry",))
    >>> angles = {"layers": jnp.full((1, 1, 1), 0.3), "last": jnp.zeros((0, 1))}
    >>> z = np.array([[1.0], [-1.0]])
    >>> exact = parameter_shift(circuit, angles, z).derivative["layers"]
    >>> bool(abs(exact + np.sin(0.3)).max() < 1e-6)
    True
    >>> found = parameter_shift(circuit, angles, z, shots=1000, key=jax.random.key(0))
    >>> bool(abs(found.derivative["layers"] + np.sin(0.3)).max() < 0.1)
    True
    """
    check_shift_rule(circuit)
    check_shots(shots, key)
    values = check_observables(circuit, observables)
    flat, restore = ravel_pytree(circuit.checked(angles))
    count = flat.size
    if key is not None:
        flat = as_varying(flat, varying(key, flat))

    def of_shift(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The expectations, and the variances of a shot, of the circuit of one shift."""
        step = jnp.where(index < count, jnp.pi / 2, -jnp.pi / 2).astype(flat.dtype)
        shifted = flat + jnp.where(jnp.arange(count) == index % count, step, 0)
        probs = probabilities(circuit.state(restore(shifted)))
        mean = jnp.matmul(probs, values, precision="highest")
        square = jnp.matmul(probs, values**2, precision="highest")
        if shots is None:
            return mean, jnp.zeros_like(mean)
        assert key is not None
        drawn = sample_frequencies(probs, shots, jax.random.fold_in(key, index))
        mean_drawn = jnp.matmul(drawn, values, precision="highest")
        return mean_drawn, jnp.maximum(square - mean**2, 0)

    means, variances = lax.map(of_shift, jnp.arange(2 * count), batch_size=_AT_ONCE)
    derivative = (means[:count] - means[count:]) / 2
    variance = (variances[:count] + variances[count:]) / (4 * (shots or 1))
    per_observable = jax.vmap(restore, in_axes=1)
    return ShotReport(per_observable(derivative), per_observable(variance), 2 * count, shots)


def sampled_expectations(
    circuit: Circuit, angles: Angles, observables: ArrayLike, *, shots: int, key: Key
) -> jax.Array:
    """The expectations of observables from finite shots, with a derivative from shots of its own.

    The derivative by `jax.grad` is that of the parameter-shift rule with the same number of shots
    for each shifted circuit. Its draws are independent of those of the expectations: the gradient
    of a loss is the product of both, and its mean would be wrong by their covariance otherwise. It
    still differs from the gradient of the exact loss, by terms of order 1 / shots, where the loss
    is not linear in the expectations.

    Args:
      circuit: as for `parameter_shift`.
      angles: of the circuit, in radians.
      observables: (2^n, K) the value of each by outcome.
      shots: of each circuit, at most 10^6.
      key: of the shots.

    Returns:
      (K,) means over the shots. Derivatives are of the first order and in reverse mode alone.

    Raises:
      TypeError: if the key is not a typed one.
      ValueError: as `parameter_shift`.

    >>> circuit = Circuit(1, 1, ("ry",))
    >>> angles = {"layers": jnp.full((1, 1, 1), 0.3), "last": jnp.zeros((0, 1))}
    >>> z = np.array([[1.0], [-1.0]])
    >>> def mean(angles, key):
    ...     return sampled_expectations(circuit, angles, z, shots=10**5, key=key)[0]
    >>> slope = jax.grad(mean)(angles, jax.random.key(0))["layers"]
    >>> bool(abs(slope + np.sin(0.3)).max() < 0.02)
    True
    """
    check_shift_rule(circuit)
    if shots is None:
        checks.refuse("shots", f"be an integer in [1, {MOST_SHOTS}]", shots)
    check_shots(shots, key)
    values = check_observables(circuit, observables)
    found = circuit.checked(angles)
    axes = varying(key, values, *jax.tree.leaves(found))
    words = jax.random.key_data(key)
    found, values, words = as_varying((found, values, words), axes)
    return _sampled(circuit, shots, str(jax.random.key_impl(key)), found, values, words)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sampled(
    circuit: Circuit, shots: int, impl: str, angles: Angles, values: jax.Array, words: jax.Array
) -> jax.Array:
    return _sampled_forward(circuit, shots, impl, angles, values, words)[0]


def _sampled_forward(
    circuit: Circuit, shots: int, impl: str, angles: Angles, values: jax.Array, words: jax.Array
) -> tuple[jax.Array, tuple]:
    key = jax.random.fold_in(jax.random.wrap_key_data(words, impl=impl), 0)
    frequencies = sample_frequencies(probabilities(circuit.state(angles)), shots, key)
    means = jnp.matmul(frequencies, values, precision="highest")
    return means, (angles, values, words, frequencies)


def _sampled_backward(
    circuit: Circuit, shots: int, impl: str, kept: tuple, cotangent: jax.Array
) -> tuple:
    angles, values, words, frequencies = kept
    key = jax.random.fold_in(jax.random.wrap_key_data(words, impl=impl), 1)
    found = parameter_shift(circuit, angles, values, shots=shots, key=key).derivative
    by_angle = jax.tree.map(
        lambda leaf: jnp.tensordot(cotangent, leaf, axes=1, precision="highest"), found
    )
    no_slope = np.zeros(words.shape, jax.dtypes.float0)
    return by_angle, jnp.outer(frequencies, cotangent), no_slope


_sampled.defvjp(_sampled_forward, _sampled_backward)


def sample_frequencies(probs: jax.Array, shots: int, key: Key) -> jax.Array:
    """(2^n,) the frequencies of outcomes that are drawn with the probabilities (2^n,).

    The outcomes are found in the cumulative probabilities, which are sums in the type of `probs`:
    in single precision a probability is off by 1e-7 or so.
    """
    cumulative = jnp.cumsum(probs)
    draws = jax.random.uniform(key, (shots,), probs.dtype) * cumulative[-1]
    outcomes = jnp.searchsorted(cumulative, draws, side="right")
    counts = jnp.zeros(len(probs), probs.dtype)
    return counts.at[jnp.minimum(outcomes, len(probs) - 1)].add(1) / shots


def check_shift_rule(circuit: Circuit) -> None:
    """Refuses a circuit with an angle whose generator is no Pauli."""
    if not circuit.shift_rule:
        rule = "have a Pauli as generator of every angle under the parameter-shift rule"
        checks.refuse("circuit", rule, circuit.layer or circuit.custom)


def check_shots(shots: int | None, key: Key | None) -> None:
    """Refuses a number of shots out of range, and shots without a key or the reverse."""
    if shots is not None:
        checks.integer("shots", shots, 1, MOST_SHOTS)
        checks.prng_key("key", key)
    elif key is not None:
        checks.refuse("key", "be left out without shots", getattr(key, "dtype", key))
