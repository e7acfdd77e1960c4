"""One-qubit channels as Pauli transfer matrices.

A channel N is the real matrix M_ij = Tr[s_i N(s_j)] / 2 with s = [I, X, Y, Z]. Channels in
sequence multiply, parameters enter without square roots wherever physics allows it, and the
derivative at zero noise is finite.

No argument is called `p`: `error_prob` is the total probability of an error, `mix` the weight of
the maximally mixed state, and each docstring says where mixing is complete.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._paulis import PAULIS, complex_dtype, product


@struct.dataclass
class Channel:
    """A one-qubit channel.

    Attributes:
      ptm: (..., 4, 4) Pauli transfer matrix, rows and columns in the order [I, X, Y, Z].
      clipped: (...) number of traced parameters that lay outside their domain and were moved to
        its edge, or None if no parameter was checked.

    >>> channel = amplitude_damping(gamma=0.1).then(dephasing(error_prob=0.02))
    >>> channel.ptm.shape, bool(channel.is_unital)
    ((4, 4), False)
    """

    ptm: jax.Array
    clipped: jax.Array | None = None

    def then(self, other: "Channel") -> "Channel":
        """This channel followed by `other`.

        Raises:
          TypeError: if `other` is not a Channel.
        """
        checks.instance("other", other, Channel)
        return Channel(
            product(other.ptm, self.ptm),
            add_clipped(self.clipped, other.clipped),
        )

    def kraus(self) -> jax.Array:
        """Kraus operators from the eigenvectors of the Choi matrix.

        Returns:
          (..., 4, 2, 2) complex; some may be zero. They are unique up to a unitary among
          themselves, and for that reason not differentiable: the derivative is NaN where two of
          them have the same weight.
        """
        paulis = jnp.asarray(PAULIS, dtype=complex_dtype(self.ptm.dtype))
        # Choi matrix with indices (out, in; out', in'): N(s_j) x conj(s_j) summed over j, halved.
        choi = jnp.einsum(
            "...ij,iab,jcd->...acbd",
            self.ptm.astype(paulis.dtype),
            paulis,
            paulis.conj(),
            precision="highest",
        )
        weights, vectors = jnp.linalg.eigh(choi.reshape(*choi.shape[:-4], 4, 4) / 2)
        scaled = vectors * jnp.sqrt(jnp.maximum(weights, 0.0))[..., None, :].astype(paulis.dtype)
        return jnp.swapaxes(scaled, -1, -2).reshape(*choi.shape[:-4], 4, 2, 2)

    @property
    def is_unital(self) -> jax.Array:
        """(...) bool, whether the channel leaves I/2 as it is (to 1e-6)."""
        return jnp.all(jnp.abs(self.ptm[..., 1:, 0]) < 1e-6, axis=-1)


def add_clipped(*flags: jax.Array | None) -> jax.Array | None:
    """The sum of the counts of clipped parameters that are not None.

    Args:
      *flags: counts (...) that broadcast, or None.

    Returns:
      The sum (...), or None if every count is None.

    >>> float(add_clipped(None, jnp.ones(()), jnp.ones(())))
    2.0
    """
    present = [flag for flag in flags if flag is not None]
    return sum(present[1:], present[0]) if present else None


def _channel(
    x: jax.Array, y: jax.Array, z: jax.Array, shift: ArrayLike, *flags: jax.Array
) -> Channel:
    """The channel that scales the Bloch vector by (x, y, z) and adds `shift` to its z."""
    x, y, z, shift = jnp.broadcast_arrays(x, y, z, jnp.asarray(shift, dtype=x.dtype))
    zero, one = jnp.zeros_like(x), jnp.ones_like(x)
    rows = [
        *(one, zero, zero, zero),
        *(zero, x, zero, zero),
        *(zero, zero, y, zero),
        *(shift, zero, zero, z),
    ]
    # The batch stays innermost until the end: XLA then generates faster code.
    ptm = jnp.moveaxis(jnp.stack(rows).reshape(4, 4, *x.shape), (0, 1), (-2, -1))
    flag = add_clipped(*flags)
    return Channel(ptm, None if flag is None else jnp.broadcast_to(flag, x.shape))


def identity() -> Channel:
    """The channel that does nothing.

    Returns:
      One channel, without batch axes.

    >>> print(np.asarray(identity().ptm.diagonal()).round(4))
    [1. 1. 1. 1.]
    """
    return Channel(jnp.eye(4))


def pauli(*, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Channel:
    """The Pauli channel: X, Y or Z with the given probabilities, else nothing.

    Args:
      x: (...) probability of X, in [0, 1].
      y: (...) probability of Y, in [0, 1].
      z: (...) probability of Z, in [0, 1].

    Mixing is complete at x = y = z = 1/4.

    Returns:
      The channel, with the batch shape (...) to which the arguments broadcast.

    Raises:
      ValueError: if a concrete value is out of range, or the three sum to more than one.

    >>> print(np.asarray(pauli(x=0.1, y=0.0, z=0.05).ptm.diagonal()).round(4))
    [1. 0.9 0.7 0.8]
    """
    (x, x_flag), (y, y_flag), (z, z_flag) = (
        checks.bounded(name, value) for name, value in (("x", x), ("y", y), ("z", z))
    )
    _, sum_flag = checks.bounded("x + y + z", x + y + z, 0.0, 1.0 + 1e-6)
    # Rescale where traced values sum to more than one; not at one, to keep the derivative there.
    excess = jnp.where(x + y + z > 1.0 + 1e-6, x + y + z, 1.0)
    x, y, z = x / excess, y / excess, z / excess
    return _channel(
        1 - 2 * (y + z), 1 - 2 * (x + z), 1 - 2 * (x + y), 0.0, x_flag, y_flag, z_flag, sum_flag
    )


def depolarizing(*, error_prob: ArrayLike | None = None, mix: ArrayLike | None = None) -> Channel:
    """The depolarizing channel. Give exactly one of its two parametrisations.

    Args:
      error_prob: (...) total probability of X, Y or Z, in [0, 1]; mixing is complete at 3/4.
      mix: (...) weight of I/2, in [0, 1]: rho -> (1 - mix) rho + mix I/2; complete at 1.

    Returns:
      The channel, with the batch shape (...) of the argument.

    Raises:
      ValueError: if both or neither are given, or a concrete value is out of range.

    >>> bool(jnp.allclose(depolarizing(error_prob=0.03).ptm, depolarizing(mix=0.04).ptm))
    True
    """
    name, given = checks.exactly_one(error_prob=error_prob, mix=mix)
    value, flag = checks.bounded(name, given)
    scale = 1 - (4 / 3 if name == "error_prob" else 1) * value
    return _channel(scale, scale, scale, 0.0, flag)


def dephasing(*, error_prob: ArrayLike) -> Channel:
    """The dephasing channel.

    Args:
      error_prob: (...) probability of Z, in [0, 1]; phases are lost completely at 1/2.

    Returns:
      The channel, with the batch shape (...) of the argument.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> print(np.asarray(dephasing(error_prob=0.1).ptm.diagonal()).round(4))
    [1.  0.8 0.8 1. ]
    """
    value, flag = checks.bounded("error_prob", error_prob)
    scale = 1 - 2 * value
    return _channel(scale, scale, jnp.ones_like(value), 0.0, flag)


def bit_flip(*, error_prob: ArrayLike) -> Channel:
    """The bit-flip channel.

    Args:
      error_prob: (...) probability of X, in [0, 1]; bits are lost completely at 1/2.

    Returns:
      The channel, with the batch shape (...) of the argument.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> print(np.asarray(bit_flip(error_prob=0.1).ptm.diagonal()).round(4))
    [1. 1. 0.8 0.8]
    """
    value, flag = checks.bounded("error_prob", error_prob)
    scale = 1 - 2 * value
    return _channel(jnp.ones_like(value), scale, scale, 0.0, flag)


def amplitude_damping(*, gamma: ArrayLike) -> Channel:
    """Amplitude damping: decay from |1> to |0>.

    Args:
      gamma: (...) probability that |1> has decayed, in [0, 1]; complete at 1.

    The coherence sqrt(1 - gamma) ends with an infinite slope at gamma = 1; exactly there, and
    nowhere else, its derivative is defined as zero, so that no NaN arises.

    Returns:
      The channel, with the batch shape (...) of the argument.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> bool(amplitude_damping(gamma=0.1).is_unital)
    False
    """
    return generalized_amplitude_damping(gamma=gamma, excited_population=0.0)


def generalized_amplitude_damping(*, gamma: ArrayLike, excited_population: ArrayLike) -> Channel:
    """Generalized amplitude damping: relaxation towards a thermal state.

    Args:
      gamma: (...) fraction of the way to equilibrium, in [0, 1]; complete at 1.
      excited_population: (...) probability of |1> in equilibrium, in [0, 1].

    Returns:
      The channel, with the batch shape (...) to which the arguments broadcast.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> bool(generalized_amplitude_damping(gamma=0.1, excited_population=0.5).is_unital)
    True
    """
    gamma, gamma_flag = checks.bounded("gamma", gamma)
    excited, excited_flag = checks.bounded("excited_population", excited_population)
    # At gamma = 1 the slope is infinite; a constant there keeps tangents of clipped values finite.
    left = 1 - gamma
    coherence = jnp.where(left > 0, jnp.sqrt(jnp.where(left > 0, left, 1.0)), 0.0)
    return _channel(
        coherence, coherence, 1 - gamma, gamma * (1 - 2 * excited), gamma_flag, excited_flag
    )


def thermal_relaxation(
    *, t1: ArrayLike, t2: ArrayLike, time: ArrayLike, excited_population: ArrayLike = 0.0
) -> Channel:
    """The channel of a waiting qubit: relaxation with T1 and loss of phase with T2.

    Args:
      t1: (...) relaxation time in seconds, above zero; may be infinite.
      t2: (...) coherence time in seconds, above zero and at most 2 `t1`; may be infinite.
      time: (...) waiting time in seconds, at least zero and finite.
      excited_population: (...) probability of |1> in equilibrium, in [0, 1].

    Returns:
      The channel, with the batch shape (...) to which the arguments broadcast.

    Raises:
      ValueError: if a concrete value breaks one of these rules.

    >>> print(np.asarray(thermal_relaxation(t1=10.0, t2=7.0, time=1.0).ptm.diagonal()).round(4))
    [1.     0.8669 0.8669 0.9048]
    """
    # Bounds for traced values: T^2, by which the derivative divides, must stay a normal number,
    # and a waiting time must not be infinite where T1 is.
    shortest, longest = 1e-15, 1e30
    for name, value in (("t1", t1), ("t2", t2)):
        if not checks.is_traced(value) and not np.all(checks.numbers(name, value) > 0):
            checks.refuse(name, "be above 0", value)
    t1, t2, life_flag = relaxation_times(t1, t2, shortest)
    if not checks.is_traced(time):
        checks.within("time", time, 0.0, np.inf)
        if not np.all(np.isfinite(time)):
            checks.refuse("time", "be finite", time)
    time, time_flag = checks.bounded("time", time, 0.0, longest)
    excited, excited_flag = checks.bounded("excited_population", excited_population)
    population, coherence = jnp.exp(-time / t1), jnp.exp(-time / t2)
    return _channel(
        coherence,
        coherence,
        population,
        (1 - population) * (1 - 2 * excited),
        life_flag,
        time_flag,
        excited_flag,
    )


def relaxation_times(
    t1: ArrayLike, t2: ArrayLike, shortest: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """T1 and T2 within their domain, and the number of times they had to be moved there.

    Args:
      t1: (...) seconds, at least `shortest`; may be infinite.
      t2: (...) seconds, at least `shortest` and at most 2 `t1`; may be infinite.
      shortest: seconds.

    Returns:
      T1 (...) and T2 (...) in seconds, and the number (...) of values moved: traced ones only.

    Raises:
      ValueError: if a concrete value is out of range.

    >>> times = jax.jit(relaxation_times, static_argnums=2)(1.0, 3.0, 1e-15)
    >>> [float(value) for value in times]
    [1.0, 2.0, 1.0]
    """
    (life, life_flag), (coherence, coherence_flag) = (
        checks.bounded(name, value, shortest, np.inf) for name, value in (("t1", t1), ("t2", t2))
    )
    if not checks.is_traced((t1, t2)) and np.any(np.asarray(t2) > 2 * np.asarray(t1) * (1 + 1e-6)):
        checks.refuse("t2", f"be at most 2 t1 = {2 * np.asarray(t1)}", t2)
    # Traced values may still break T2 <= 2 T1; flag it and use the largest T2 allowed.
    high = jnp.where(coherence > 2 * life * (1 + 1e-6), 1.0, 0.0).astype(life.dtype)
    coherence = jnp.where(coherence > 2 * life, 2 * life, coherence)
    return life, coherence, life_flag + coherence_flag + high


def from_kraus(kraus: ArrayLike) -> Channel:
    """The channel rho -> sum_k K_k rho K_k^dagger.

    Args:
      kraus: (..., K, 2, 2) complex Kraus operators.

    Returns:
      The channel, with the batch shape (...); `clipped` is 1 where the trace is not
        preserved, else 0.

    Raises:
      ValueError: if the shape is not (..., K, 2, 2), or concrete operators do not preserve the
        trace to 1e-5. Traced ones are flagged.

    >>> bool(jnp.allclose(from_kraus(dephasing(error_prob=0.2).kraus()).ptm,
    ...                   dephasing(error_prob=0.2).ptm, atol=1e-6))
    True
    """
    if np.ndim(kraus) < 3 or np.shape(kraus)[-2:] != (2, 2):
        checks.refuse("kraus", "have the shape (..., K, 2, 2)", np.shape(kraus))
    if not checks.is_traced(kraus):
        known = np.asarray(kraus)
        total = np.einsum("...kba,...kbc->...ac", known.conj(), known)
        if not np.allclose(total, np.eye(2), atol=1e-5):
            checks.refuse("kraus", "preserve the trace: sum K^dagger K = I", total)
    operators = jnp.asarray(kraus)
    operators = operators.astype(complex_dtype(operators.dtype))
    paulis = jnp.asarray(PAULIS, dtype=operators.dtype)
    ptm = jnp.einsum(
        "iab,...kbc,jcd,...kad->...ij",
        paulis,
        operators,
        paulis,
        operators.conj(),
        precision="highest",
    )
    defect = jnp.abs(ptm[..., 0, :].real / 2 - jnp.eye(4)[0].astype(ptm.real.dtype))
    flag = jnp.where(jnp.max(defect, axis=-1) > 1e-5, 1.0, 0.0).astype(ptm.real.dtype)
    return Channel(ptm.real / 2, flag)
