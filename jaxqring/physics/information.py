"""Entropies and mutual informations, in bits.

Derivatives, here and in `jaxqring.capacity`, are of first order: where a capacity is a maximum
over inputs, the envelope theorem gives the exact first derivative at the optimal input held fixed,
and a second one is not exact. Where the true derivative is infinite (the entropy of a probability
that starts at zero), the one computed here is large, finite and of the right sign.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks

#: Iterations of Blahut-Arimoto. The error they leave is below log2(M) / 1000 bits for any channel
#: of M inputs, and far below for all but contrived ones.
BLAHUT_ARIMOTO_ITERATIONS = 1000


def entropy_bits(probs: jax.Array) -> jax.Array:
    """Entropy of probabilities that have been checked.

    Args:
      probs: (..., K) float array.

    Returns:
      (...) bits, in [0, log2(K)].

    >>> entropy_bits(jnp.array([0.5, 0.25, 0.25]))
    Array(1.5, dtype=float32)
    """
    # The logarithm is kept above log(tiny): at zero, 0 * log(tiny) is 0 and the derivative is
    # about -log2(tiny), where 0 * log(0) would be NaN in both.
    logs = jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))
    return -jnp.sum(probs * logs, axis=-1) / float(np.log(2.0))


def binary_entropy_bits(prob: jax.Array) -> jax.Array:
    """Entropy of a coin whose probability has been checked.

    Args:
      prob: (...) float array.

    Returns:
      (...) bits, in [0, 1].

    >>> print(f"{binary_entropy_bits(jnp.array(0.11)):.4f}")
    0.4999
    """
    return entropy_bits(jnp.stack([prob, 1 - prob], axis=-1))


def safe_sqrt(square: jax.Array) -> jax.Array:
    """Square root, with a zero derivative at zero, where the true one is infinite.

    Args:
      square: (...) float array, at least zero.

    Returns:
      (...) the root; about 1e-19 at zero in float32.

    >>> [float(jax.grad(safe_sqrt)(square)) for square in (0.0, 4.0)]
    [0.0, 0.25]
    """
    return jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))


def _distribution(argument: str, value: ArrayLike, axis: int) -> jax.Array:
    """Refuses a concrete `value` that is no distribution along `axis`; removes rounding below 0."""
    if not checks.is_traced(value):
        known = np.asarray(checks.real(argument, value))
        if not np.all(known >= -1e-5):
            checks.refuse(argument, "have no negative entry", value)
        total = known.sum(axis)
        if not np.allclose(total, 1.0, atol=1e-5):
            checks.refuse(argument, f"sum to one along axis {axis}", total)
    array = checks.real(argument, value)
    # Not jnp.maximum, which would halve the derivative of an entry that is exactly zero.
    return jnp.where(array >= 0, array, 0.0)


def shannon_entropy(probs: ArrayLike) -> jax.Array:
    """The entropy of a distribution, in bits.

    Args:
      probs: (..., K) probabilities, summing to one.

    Returns:
      (...) -sum_k p_k log2 p_k, in bits. Its true derivative in p_k is infinite at p_k = 0;
      here it is -log2 of the smallest normal number, about 125 in float32, so that a chain rule
      that multiplies it by zero gives zero.

    Raises:
      ValueError: if there is no axis, or concrete values are negative or do not sum to one, to
        1e-5.

    >>> round(float(shannon_entropy([0.5, 0.25, 0.25, 0.0])), 4)
    1.5
    """
    if np.ndim(probs) < 1:
        checks.refuse("probs", "have the shape (..., K)", np.shape(probs))
    return entropy_bits(_distribution("probs", probs, -1))


def binary_entropy(prob: ArrayLike) -> jax.Array:
    """The entropy of a biased coin, in bits.

    Args:
      prob: (...) probability of one side, in [0, 1].

    Returns:
      (...) h(p) = -p log2 p - (1 - p) log2(1 - p), in bits; for its derivative at 0 and 1 see
      `shannon_entropy`.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> round(float(binary_entropy(0.11)), 4)
    0.4999
    """
    return binary_entropy_bits(checks.bounded("prob", prob)[0])


def von_neumann_entropy(rho: ArrayLike) -> jax.Array:
    """The entropy of a quantum state, in bits.

    Args:
      rho: (..., d, d) density matrix.

    Returns:
      (...) -Tr[rho log2 rho], in bits. Only eigenvalues are used, so the derivative is finite
      where they coincide; where one is zero, see `shannon_entropy`.

    Raises:
      ValueError: if the matrices are not square, or a concrete one is not Hermitian, of trace one
        and positive, to 1e-5.

    >>> round(float(von_neumann_entropy([[0.5, 0.0], [0.0, 0.5]])), 4)
    1.0
    """
    shape = np.shape(rho)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        checks.refuse("rho", "have the shape (..., d, d)", shape)
    checks.density_matrix("rho", rho)
    state = jnp.asarray(rho)
    state = state.astype(jnp.result_type(state.dtype, jnp.float32))
    return entropy_bits(jnp.linalg.eigvalsh(state))


def _transition(value: ArrayLike) -> jax.Array:
    if np.ndim(value) < 2:
        checks.refuse("transition", "have the shape (..., R, M)", np.shape(value))
    return _distribution("transition", value, -2)


def _outcomes(transition: jax.Array, inputs: jax.Array) -> jax.Array:
    return jnp.matmul(transition, inputs[..., None], precision="highest")[..., 0]


def _symbol_information(transition: jax.Array, inputs: jax.Array) -> jax.Array:
    noise = entropy_bits(jnp.swapaxes(transition, -1, -2))
    return entropy_bits(_outcomes(transition, inputs)) - jnp.sum(inputs * noise, axis=-1)


@jax.jit
def _blahut_arimoto(transition: jax.Array) -> jax.Array:
    """The (..., M) input distribution that maximises the mutual information."""
    kind = transition.dtype
    tiny, eps = jnp.finfo(kind).tiny, jnp.finfo(kind).eps
    # An iteration may move by the inverse of the channel's contraction of relative entropy. Pairs
    # of inputs decide that contraction, and 1 - (overlap of sqrt T)^2 bounds it for a pair: noisy
    # channels, slow to converge under plain iterations, get a long stride.
    roots = jnp.sqrt(jnp.swapaxes(transition, -1, -2))
    hellinger = jnp.sum((roots[..., :, None, :] - roots[..., None, :, :]) ** 2, axis=-1) / 2
    hellinger = hellinger.max((-1, -2))[..., None]
    stride = 1 / jnp.maximum(hellinger * (2 - hellinger), eps)

    def improve(_: int, logits: jax.Array) -> jax.Array:
        outcomes = _outcomes(transition, jax.nn.softmax(logits, axis=-1))
        log_ratio = (
            jnp.log(jnp.maximum(transition, tiny)) - jnp.log(jnp.maximum(outcomes, tiny))[..., None]
        )
        divergence = jnp.sum(transition * log_ratio, axis=-2)
        return jax.nn.log_softmax(logits + stride * divergence, axis=-1)

    uniform = jnp.zeros(roots.shape[:-1], dtype=kind)
    return jax.nn.softmax(lax.fori_loop(0, BLAHUT_ARIMOTO_ITERATIONS, improve, uniform), axis=-1)


def mutual_information_uniform(transition: ArrayLike) -> jax.Array:
    """Bits per symbol when all inputs are equally likely.

    Args:
      transition: (..., R, M) column-stochastic matrix T[r|m] = Pr(r received | m sent).

    Returns:
      (...) mutual information of m and r, bits per symbol.

    Raises:
      ValueError: if there are fewer than two axes, or concrete values are negative or their
        columns do not sum to one, to 1e-5.

    >>> round(float(mutual_information_uniform([[1.0, 0.5], [0.0, 0.5]])), 4)
    0.3113
    """
    array = _transition(transition)
    inputs = jnp.full((*array.shape[:-2], array.shape[-1]), 1 / array.shape[-1], array.dtype)
    return _symbol_information(array, inputs)


def discrete_memoryless_capacity(transition: ArrayLike) -> jax.Array:
    """Bits per symbol of a channel given by its transition matrix, at the best input.

    Args:
      transition: (..., R, M) column-stochastic matrix T[r|m] = Pr(r received | m sent); a Bell
        measurement has M = 4 and R = 4, or R = 5 with a flag for loss.

    Returns:
      (...) max over input distributions of the mutual information, bits per symbol. If T is
      XOR-symmetric the uniform input is best and this is log2 M minus the entropy of a column.

    Found by a fixed number of Blahut-Arimoto iterations from the uniform input, with the longest
    stride that the contraction of the channel allows, so that no iteration loses information. The
    result is a rate of the channel at some input: never above the capacity, and at most
    log2(M) / 1000 bits below.

    Raises:
      ValueError: if there are fewer than two axes, or concrete values are negative or their
        columns do not sum to one, to 1e-5.

    Reference: Blahut, IEEE Trans. Inf. Theory 18, 460 (1972). For long strides, Matz and Duhamel,
    Proc. IEEE Information Theory Workshop (2004); for the contraction, Ordentlich and
    Polyanskiy, arXiv:2010.01987.

    >>> round(float(discrete_memoryless_capacity([[1.0, 0.5], [0.0, 0.5]])), 4)
    0.3219
    """
    array = _transition(transition)
    best = _blahut_arimoto(lax.stop_gradient(array))
    return _symbol_information(array, lax.stop_gradient(best))
