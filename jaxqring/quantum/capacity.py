"""How many bits one online qubit carries: entropies, capacities, thresholds, accounting.

Capacities are in bits per online qubit, entropies in bits. The closed forms of channels come in
two families: `assisted_*` is the entanglement-assisted capacity C_E (perfect pairs, the best
code), `unassisted_*` the classical capacity of the bare qubit. `dense_coding_capacity` is for
noisy pairs on a noiseless channel, `discrete_memoryless_capacity` for symbols already measured.

Derivatives are of first order: where a capacity is a maximum over inputs, the envelope theorem
gives the exact first derivative at the optimal input held fixed, and a second one is not exact.
Where a derivative is infinite in truth (the entropy of a probability that starts at zero), the
one computed here is large, finite and of the right sign.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from scipy.optimize import brentq

from jaxqring import checks
from jaxqring.quantum.channels import amplitude_damping, depolarizing
from jaxqring.quantum.pairs import Pair, werner

#: Halvings of [0, 1] in the search for the best input; more than float64 can resolve.
BISECTIONS = 60

#: Steps of Blahut-Arimoto. What they leave is below log2(M) / 1000 bits for any channel of M
#: inputs, and far below for all but contrived ones.
BLAHUT_ARIMOTO_STEPS = 1000


# --- Entropies ------------------------------------------------------------------------------------


def _entropy(probs: jax.Array) -> jax.Array:
    # The logarithm is kept above log(tiny): at zero, 0 * log(tiny) is 0 and the derivative is
    # about -log2(tiny), where 0 * log(0) would be NaN in both.
    logs = jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))
    return -jnp.sum(probs * logs, axis=-1) / float(np.log(2.0))


def _binary_entropy(prob: jax.Array) -> jax.Array:
    return _entropy(jnp.stack([prob, 1 - prob], axis=-1))


def _safe_sqrt(square: jax.Array) -> jax.Array:
    # Zero derivative at zero, where sqrt has an infinite one.
    return jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))


def _distribution(argument: str, value: ArrayLike, axis: int) -> jax.Array:
    """`value` with rounding below zero removed, refused if it is no distribution along `axis`."""
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
      (...) -sum_k p_k log2 p_k, in bits. Its derivative in p_k is infinite in truth at p_k = 0;
      here it is -log2 of the smallest normal number, about 125 in float32, so that a chain rule
      that multiplies it by zero gives zero.

    Raises:
      ValueError: if there is no axis, or values known now are negative or do not sum to one, to
        1e-5.

    >>> round(float(shannon_entropy([0.5, 0.25, 0.25, 0.0])), 4)
    1.5
    """
    if np.ndim(probs) < 1:
        checks.refuse("probs", "have the shape (..., K)", np.shape(probs))
    return _entropy(_distribution("probs", probs, -1))


def binary_entropy(prob: ArrayLike) -> jax.Array:
    """The entropy of a biased coin, in bits.

    Args:
      prob: (...) probability of one side, in [0, 1].

    Returns:
      (...) h(p) = -p log2 p - (1 - p) log2(1 - p), in bits; for its derivative at 0 and 1 see
      `shannon_entropy`.

    Raises:
      ValueError: if a value known now is out of range.

    >>> round(float(binary_entropy(0.11)), 4)
    0.4999
    """
    return _binary_entropy(checks.bounded("prob", prob)[0])


def von_neumann_entropy(rho: ArrayLike) -> jax.Array:
    """The entropy of a quantum state, in bits.

    Args:
      rho: (..., d, d) density matrix.

    Returns:
      (...) -Tr[rho log2 rho], in bits. Only eigenvalues are used, so the derivative is finite
      where they coincide; where one is zero, see `shannon_entropy`.

    Raises:
      ValueError: if the shape is another, or a matrix known now is not Hermitian, of trace one
        and positive, to 1e-5.

    >>> round(float(von_neumann_entropy([[0.5, 0.0], [0.0, 0.5]])), 4)
    1.0
    """
    shape = np.shape(rho)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        checks.refuse("rho", "have the shape (..., d, d)", shape)
    if not checks.is_traced(rho):
        known = np.asarray(rho)
        if not np.allclose(known, np.swapaxes(known.conj(), -1, -2), atol=1e-5):
            checks.refuse("rho", "be Hermitian", known)
        trace = np.trace(known, axis1=-2, axis2=-1)
        if not np.allclose(trace, 1.0, atol=1e-5):
            checks.refuse("rho", "have trace one", trace)
        least = np.linalg.eigvalsh(known).min()
        if least < -1e-5:
            checks.refuse("rho", "have no negative eigenvalue", least)
    state = jnp.asarray(rho)
    state = state.astype(jnp.result_type(state.dtype, jnp.float32))
    return _entropy(jnp.linalg.eigvalsh(state))


# --- Noisy pairs, noiseless channel ---------------------------------------------------------------


def dense_coding_capacity(pair: Pair) -> jax.Array:
    """Bits per online qubit that a pair supports on a noiseless channel.

    Args:
      pair: the shared pair, noise included, batch shape (...).

    Returns:
      (...) 1 + S(rho_B) - S(rho_AB) bits, B the kept half: the best that unitary encodings and
      joint measurements reach. For a Bell-diagonal pair it is 2 - H(bell_probs), which a Bell
      measurement attains. Below one the pair is worse than none.

    Raises:
      TypeError: if `pair` is not a Pair.

    Reference: Hiroshima, J. Phys. A 34, 6907 (2001); Bowen, Phys. Rev. A 63, 022302 (2001).
    Encodings that are not unitary can exceed it for some pairs (arXiv:0807.4552).

    >>> round(float(dense_coding_capacity(werner(fidelity=0.9))), 4)
    1.3725
    """
    checks.instance("pair", pair, Pair)
    both = pair.density_matrix()
    kept = jnp.einsum("...abad->...bd", both.reshape(*both.shape[:-2], 2, 2, 2, 2))
    return 1 + von_neumann_entropy(kept) - von_neumann_entropy(both)


# --- Perfect pairs, noisy channel -----------------------------------------------------------------


def _depolarized_entropy(mix: jax.Array) -> jax.Array:
    return _entropy(jnp.stack([1 - 0.75 * mix, mix / 4, mix / 4, mix / 4], axis=-1))


def assisted_depolarizing(*, mix: ArrayLike) -> jax.Array:
    """Entanglement-assisted capacity of the depolarizing channel.

    Args:
      mix: (...) weight of I/2, in [0, 1]; mixing is complete at 1.

    Returns:
      (...) 2 - H(1 - 3 mix/4, mix/4, mix/4, mix/4), bits per online qubit.

    Raises:
      ValueError: if a value known now is out of range.

    Reference: Bennett, Shor, Smolin and Thapliyal, Phys. Rev. Lett. 83, 3081 (1999).

    >>> round(float(assisted_depolarizing(mix=0.1)), 4)
    1.4968
    """
    return 2 - _depolarized_entropy(checks.bounded("mix", mix)[0])


def assisted_erasure(*, erasure_prob: ArrayLike) -> jax.Array:
    """Entanglement-assisted capacity of the erasure channel.

    Args:
      erasure_prob: (...) probability that the qubit is lost and known to be, in [0, 1].

    Returns:
      (...) 2 (1 - erasure_prob), bits per online qubit.

    Raises:
      ValueError: if a value known now is out of range.

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
      ValueError: if a value known now is out of range.

    Reference: Bennett, Shor, Smolin and Thapliyal, IEEE Trans. Inf. Theory 48, 2637 (2002).

    >>> round(float(assisted_dephasing(error_prob=0.5)), 4)
    1.0
    """
    return 2 - _binary_entropy(checks.bounded("error_prob", error_prob)[0])


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
    gap = _safe_sqrt((stay_low - stay_high) ** 2 + 4 * u * (1 - u) * (1 - gamma))
    larger = (stay_low + stay_high + gap) / 2
    smaller = u * (1 - u) * up * down / larger
    environment = jnp.stack([(1 - u) * up, u * down, larger, smaller], axis=-1)
    return _binary_entropy(u) + _binary_entropy(output) - _entropy(environment)


def _damping_holevo(excited_input: jax.Array, gamma: jax.Array) -> jax.Array:
    """Holevo information of two pure inputs with mean diag(1 - u, u), opposite in phase."""
    overlap = gamma * (1 - gamma) * excited_input**2
    # (1 - root) / 2 without its cancellation.
    smaller = 2 * overlap / (1 + _safe_sqrt(1 - 4 * overlap))
    return _binary_entropy((1 - gamma) * excited_input) - _binary_entropy(smaller)


@partial(jax.jit, static_argnums=0)
def _best_input(information: Callable[..., jax.Array], *parameters: jax.Array) -> jax.Array:
    """The u in [0, 1] where a concave `information(u, *parameters)` has slope zero.

    Bisects the slope, because near the maximum the values themselves differ by less than
    rounding and would fix u to half the digits only.
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
      ValueError: if a value known now is out of range.

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
      ValueError: if a value known now is out of range.

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
      ValueError: if a value known now is out of range.

    Reference: Giovannetti and Fazio, Phys. Rev. A 71, 032314 (2005).

    >>> round(float(assisted_amplitude_damping(gamma=0.1)), 4)
    1.7077
    """
    value, _ = checks.bounded("gamma", gamma)
    return _maximum(_damping_information, value, jnp.zeros_like(value))


# --- No pairs, noisy channel ----------------------------------------------------------------------


def unassisted_depolarizing(*, mix: ArrayLike) -> jax.Array:
    """Classical capacity of the depolarizing channel.

    Args:
      mix: (...) weight of I/2, in [0, 1]; mixing is complete at 1.

    Returns:
      (...) 1 - h(mix / 2), bits per qubit. Towards mix = 1 assistance triples it.

    Raises:
      ValueError: if a value known now is out of range.

    Reference: King, IEEE Trans. Inf. Theory 49, 221 (2003).

    >>> round(float(unassisted_depolarizing(mix=0.1)), 4)
    0.7136
    """
    return 1 - _binary_entropy(checks.bounded("mix", mix)[0] / 2)


def unassisted_erasure(*, erasure_prob: ArrayLike) -> jax.Array:
    """Classical capacity of the erasure channel.

    Args:
      erasure_prob: (...) probability that the qubit is lost and known to be, in [0, 1].

    Returns:
      (...) 1 - erasure_prob, bits per qubit.

    Raises:
      ValueError: if a value known now is out of range.

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
      (...) one bit per qubit, whatever the noise: |0> and |1> pass unharmed.

    Raises:
      ValueError: if a value known now is out of range.

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
      per qubit. Whether inputs entangled across uses do better (additivity) is open, so this is
      a lower bound on the classical capacity.

    Raises:
      ValueError: if a value known now is out of range.

    Reference: Giovannetti and Fazio, Phys. Rev. A 71, 032314 (2005).

    >>> round(float(unassisted_amplitude_damping(gamma=0.1)), 4)
    0.8405
    """
    return _maximum(_damping_holevo, checks.bounded("gamma", gamma)[0])


# --- Symbols already measured ---------------------------------------------------------------------


def _transition(value: ArrayLike) -> jax.Array:
    if np.ndim(value) < 2:
        checks.refuse("transition", "have the shape (..., R, M)", np.shape(value))
    return _distribution("transition", value, -2)


def _outcomes(transition: jax.Array, inputs: jax.Array) -> jax.Array:
    return jnp.matmul(transition, inputs[..., None], precision="highest")[..., 0]


def _symbol_information(transition: jax.Array, inputs: jax.Array) -> jax.Array:
    noise = _entropy(jnp.swapaxes(transition, -1, -2))
    return _entropy(_outcomes(transition, inputs)) - jnp.sum(inputs * noise, axis=-1)


@jax.jit
def _blahut_arimoto(transition: jax.Array) -> jax.Array:
    """The (..., M) input distribution that maximises the mutual information."""
    kind = transition.dtype
    tiny, eps = jnp.finfo(kind).tiny, jnp.finfo(kind).eps
    # A step may be as long as the channel contracts relative entropy. Pairs of inputs decide that
    # contraction, and 1 - (overlap of sqrt T)^2 bounds it for a pair: noisy channels, slow under
    # plain steps, get long ones.
    roots = jnp.sqrt(jnp.swapaxes(transition, -1, -2))
    hellinger = jnp.sum((roots[..., :, None, :] - roots[..., None, :, :]) ** 2, axis=-1) / 2
    hellinger = hellinger.max((-1, -2))[..., None]
    step = 1 / jnp.maximum(hellinger * (2 - hellinger), eps)

    def improve(_: int, logits: jax.Array) -> jax.Array:
        outcomes = _outcomes(transition, jax.nn.softmax(logits, axis=-1))
        log_ratio = (
            jnp.log(jnp.maximum(transition, tiny)) - jnp.log(jnp.maximum(outcomes, tiny))[..., None]
        )
        divergence = jnp.sum(transition * log_ratio, axis=-2)
        return jax.nn.log_softmax(logits + step * divergence, axis=-1)

    uniform = jnp.zeros(roots.shape[:-1], dtype=kind)
    return jax.nn.softmax(lax.fori_loop(0, BLAHUT_ARIMOTO_STEPS, improve, uniform), axis=-1)


def mutual_information_uniform(transition: ArrayLike) -> jax.Array:
    """Bits per symbol when all inputs are equally likely.

    Args:
      transition: (..., R, M) column-stochastic matrix T[r|m] = Pr(r received | m sent).

    Returns:
      (...) mutual information of m and r, bits per symbol.

    Raises:
      ValueError: if there are fewer than two axes, or values known now are negative or their
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

    Found by a fixed number of Blahut-Arimoto steps from the uniform input, each as long as the
    contraction of the channel allows, so that none loses information. The result is a rate of
    the channel at some input: never above the capacity, and at most log2(M) / 1000 bits below.

    Raises:
      ValueError: if there are fewer than two axes, or values known now are negative or their
        columns do not sum to one, to 1e-5.

    Reference: Blahut, IEEE Trans. Inf. Theory 18, 460 (1972). For long steps, Matz and Duhamel,
    Proc. IEEE Information Theory Workshop (2004); for the contraction, Ordentlich and
    Polyanskiy, arXiv:2010.01987.

    >>> round(float(discrete_memoryless_capacity([[1.0, 0.5], [0.0, 0.5]])), 4)
    0.3219
    """
    array = _transition(transition)
    best = _blahut_arimoto(lax.stop_gradient(array))
    return _symbol_information(array, lax.stop_gradient(best))


# --- Thresholds -----------------------------------------------------------------------------------


def break_even(capacity: Callable[[jax.Array], jax.Array], low: float, high: float) -> float:
    """The noise at which a capacity crosses one bit per online qubit.

    Args:
      capacity: function of one scalar, in bits per online qubit.
      low: one end of the interval searched.
      high: the other end; `capacity` must be above one at one end and below at the other.

    Returns:
      The parameter where `capacity` is one. The search runs in float64 whatever the precision
      of the program, which is left as it was.

    Raises:
      ValueError: if `capacity` does not cross one bit between `low` and `high`.

    >>> round(break_even(lambda loss: assisted_erasure(erasure_prob=loss), 0.0, 1.0), 6)
    0.5
    """

    def surplus(parameter: float) -> float:
        # The context is local to this thread. In float32 the root would be good to 1e-7 divided
        # by the slope only.
        with jax.enable_x64(True):
            return float(capacity(jnp.asarray(parameter, dtype=float))) - 1.0

    ends = np.array([surplus(low), surplus(high)])
    if not ends[0] * ends[1] <= 0:
        rule = f"cross one bit between {low:g} and {high:g}"
        checks.refuse("capacity", rule, ends + 1.0)
    return float(brentq(surplus, low, high, xtol=1e-12))


def _both_halves(survival: jax.Array) -> jax.Array:
    noise = depolarizing(mix=1 - survival)
    return dense_coding_capacity(
        werner(weight=jnp.ones_like(survival)).apply(sent=noise, kept=noise)
    )


def _damped_bell(gamma: jax.Array) -> jax.Array:
    perfect = werner(weight=jnp.ones_like(gamma))
    return 2 - _entropy(perfect.apply(sent=amplitude_damping(gamma=gamma)).bell_probs)


def thresholds() -> dict[str, float]:
    """Where superdense coding stops beating one bit per online qubit.

    Returns:
      For each kind of noise acting alone, the parameter at which one online qubit carries one
      bit:

      * `werner_fidelity`, `werner_weight`: least fidelity, or weight of Phi+, of a Werner pair;
      * `depolarizing_mix`: most total depolarizing;
      * `survival_each_half`: least 1 - mix per half, if both halves are depolarized alike;
      * `erasure_prob`: most loss, if loss is flagged;
      * `amplitude_damping_bell`: most gamma on the sent half, with a Bell measurement;
      * `amplitude_damping_assisted`: most gamma with the best code and measurement.

    Dephasing has none: its assisted capacity is never below one.

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


# --- Bounds and accounting ------------------------------------------------------------------------


def _counts(value: ArrayLike) -> jax.Array | np.ndarray:
    """`value`, with integers known now in 64 bits."""
    if checks.is_traced(value):
        return jnp.asarray(value)
    known = np.asarray(value)
    if np.issubdtype(known.dtype, np.integer):
        return known.astype(np.int64)
    return jnp.asarray(value)


def one_shot_success_bound(*, qubits: ArrayLike, bits: ArrayLike) -> jax.Array:
    """The most often that `bits` uniform bits can be decoded from `qubits` qubits.

    Args:
      qubits: (...) online qubits m, at least zero.
      bits: (...) bits n to be decoded, at least zero.

    Returns:
      (...) min(1, 2^(2m - n)), a probability: the bound holds with any entanglement shared
      beforehand.

    Raises:
      ValueError: if a value known now is negative.

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
    """Uses of a link by online qubits and by the pairs that had to be shared for them.

    Args:
      online: (...) online qubits, at least zero.
      generation_prob: (...) probability that one attempt yields a heralded pair, in [1e-18, 1].
      purification_cost: (...) raw pairs consumed per pair used, at least one; one without
        purification.

    Returns:
      (...) online (1 + purification_cost / generation_prob) qubit uses, expected. With perfect
      generation and no purification that is two per online qubit, as many as the two bits that
      it carries would take unassisted.

    Raises:
      ValueError: if a value known now is out of range.

    >>> float(lifetime_uses(online=100, generation_prob=0.5, purification_cost=2.0))
    500.0
    """
    qubits, _ = checks.bounded("online", online, 0.0, np.inf)
    # The smallest value has a square that float32 can still divide by.
    success, _ = checks.bounded("generation_prob", generation_prob, 1e-18, 1.0)
    cost, _ = checks.bounded("purification_cost", purification_cost, 1.0, np.inf)
    return qubits * (1 + cost / success)
