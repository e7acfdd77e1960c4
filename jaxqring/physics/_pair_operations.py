"""Operations on pairs: swapping, distillation, hashing, and the best time to purify.

All of it is exact for any two-qubit states, not only for mixtures of Bell states. A measurement
is a sum over Paulis of products of correlations, so that no density matrix larger than 4 x 4 is
ever formed.
"""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import DistillationProtocol
from jaxqring.physics._pair import Pair
from jaxqring.physics._paulis import PHI_PLUS
from jaxqring.physics.channels import add_clipped
from jaxqring.physics.information import entropy_bits

PROTOCOLS = get_args(DistillationProtocol)

#: Probability of success below which distillation counts as impossible: dividing by it would
#: leave rounding errors in place of correlations.
NEVER = 1e-6

#: Weight of Phi+ in a Werner pair at which a wait before purification costs nothing to first
#: order, (sqrt(5) - 1) / 2, and with it the fidelity 0.713525.
GOLDEN = (np.sqrt(5.0) - 1) / 2

# Conjugation by a CNOT turns s_i (control) x Z^alpha (target) into
# (FIRST[alpha, i] . s) x (SECOND[alpha, i] . s): a Pauli on each qubit, and a sign.
FIRST = np.stack([np.eye(4), np.eye(4)[::-1]])
SECOND = np.stack(
    [np.eye(4)[[0, 1, 1, 0]], np.diag([1.0, -1.0, 1.0, 1.0]) @ np.eye(4)[[3, 2, 2, 3]]]
)
#: (2, 4) 1 where that product is not the identity.
TOUCHED = np.array([[0, 1, 1, 1], [1, 1, 1, 1]], dtype=float)

# Quarter turns about X, one way on the sent half and the other way on the kept one, which leave
# Phi+ and Psi+ as they are and exchange Phi- and Psi-.
QUARTER_TURN = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]], dtype=float)


def flagged_pair(correlation: jax.Array, *flags: jax.Array | None) -> Pair:
    """A `Pair` with the sum of its flags, broadcast to its batch shape."""
    clipped = add_clipped(*flags)
    if clipped is not None:
        clipped = jnp.broadcast_to(clipped, correlation.shape[:-2])
    return Pair(correlation, clipped)


def swap_gain(
    pair: Pair, gate_error: ArrayLike, readout_error: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Factors by which swapping with `pair` multiplies the columns of another pair's correlations.

    Args:
      pair: the pair whose sent half is measured, of batch shape (...).
      gate_error: (...) as in `swap`.
      readout_error: (...) as in `swap`.

    Returns:
      (..., 4) factors in the order [I, X, Y, Z], and (...) number of clipped parameters.

    Raises:
      ValueError: if a concrete probability is out of range.

    >>> from jaxqring import werner
    >>> print(np.asarray(swap_gain(werner(weight=0.5), 0.0, 0.1)[0]).round(4))
    [1.   0.4  0.32 0.4 ]
    """
    gate, gate_flag = checks.bounded("gate_error", gate_error)
    readout, readout_flag = checks.bounded("readout_error", readout_error)
    right, intact = 1 - 2 * readout, 1 - gate
    right, intact = jnp.broadcast_arrays(right, intact)
    # A wrong bit of the outcome becomes a wrong X or Z in the correction at the far end.
    factors = [jnp.ones_like(intact), intact * right, intact * right**2, intact * right]
    noise = jnp.stack(factors, axis=-1)
    diagonal = jnp.diagonal(pair.correlation, axis1=-2, axis2=-1)
    return diagonal * jnp.asarray(PHI_PLUS, diagonal.dtype) * noise, gate_flag + readout_flag


def swap(
    first: Pair, second: Pair, *, gate_error: ArrayLike = 0.0, readout_error: ArrayLike = 0.0
) -> Pair:
    """One long pair out of two short ones that meet at a station.

    The station holds the kept half of `first` and the sent half of `second`, measures both in the
    Bell basis and sends the two bits to the holder of the kept half of `second`, who undoes the
    Pauli that they name. The result joins the sent half of `first` and the kept half of
    `second`. Batch shapes of all arguments broadcast.

    Args:
      first: the pair whose kept half is measured.
      second: the pair whose sent half is measured.
      gate_error: (...) weight in [0, 1] of the two-qubit maximally mixed state after the gate of
        the Bell measurement.
      readout_error: (...) probability in [0, 1] that a measured bit is read wrongly, the same for
        both and independent; a wrong bit makes a wrong correction.

    Returns:
      The `Pair`, averaged over outcomes, R_ik = R1_ik eta_k R2_kk with eta the correlations of
      Phi+: averaging over the corrections removes all of R2 but its diagonal.

    Raises:
      TypeError: if `first` or `second` is not a Pair.
      ValueError: if a concrete probability is out of range.

    Reference: Zukowski, Zeilinger, Horne and Ekert, Phys. Rev. Lett. 71, 4287 (1993), and for
    chains Briegel, Duer, Cirac and Zoller, Phys. Rev. Lett. 81, 5932 (1998); the form for any
    states is derived here.

    >>> from jaxqring import werner
    >>> round(float(swap(werner(fidelity=0.9), werner(fidelity=0.9)).fidelity), 6)
    0.813333
    """
    checks.instance("first", first, Pair)
    checks.instance("second", second, Pair)
    gain, flag = swap_gain(second, gate_error, readout_error)
    return flagged_pair(first.correlation * gain[..., None, :], first.clipped, second.clipped, flag)


def _twirled(correlation: jax.Array) -> jax.Array:
    """The Werner pair (..., 4, 4) of the same fidelity."""
    eta = jnp.asarray(PHI_PLUS, correlation.dtype)
    diagonal = jnp.diagonal(correlation, axis1=-2, axis2=-1) * eta
    weight = jnp.sum(diagonal[..., 1:], axis=-1, keepdims=True) / 3
    scale = jnp.concatenate([jnp.ones_like(weight), *[weight] * 3], axis=-1)
    return scale[..., None] * jnp.diag(eta)


@functools.partial(jax.jit, static_argnames="protocol")
def recurrence(
    first: jax.Array,
    second: jax.Array,
    gate: jax.Array,
    readout: jax.Array,
    protocol: DistillationProtocol,
) -> tuple[jax.Array, jax.Array]:
    """One round of `distill` on correlation matrices, with parameters that have been checked.

    Args:
      first: (..., 4, 4) correlations of the pair that remains.
      second: (..., 4, 4) correlations of the pair that is measured.
      gate: (...) gate error.
      readout: (...) readout error.
      protocol: "dejmps" or "bbpssw".

    Returns:
      (..., 4, 4) correlations and (...) probability of success.
    """

    def sandwich(left: jax.Array, middle: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.matmul(jnp.matmul(left, middle, precision="highest"), right, precision="highest")

    kind = jnp.result_type(first, second, gate, readout)
    if protocol == "bbpssw":
        first, second = _twirled(first), _twirled(second)
    else:
        # The other half turns the other way: its transfer matrix, transposed, is the same one.
        turn = jnp.asarray(QUARTER_TURN, kind)
        first, second = (sandwich(turn, matrix, turn) for matrix in (first, second))

    control, target = jnp.asarray(FIRST, kind), jnp.asarray(SECOND, kind)
    terms = sandwich(control, first[..., None, :, :], jnp.swapaxes(control, -1, -2))
    terms = terms * sandwich(target, second[..., None, :, :], jnp.swapaxes(target, -1, -2))
    survival = 1 - gate[..., None, None] * jnp.asarray(TOUCHED, kind)
    terms = terms * survival[..., :, None] * survival[..., None, :]
    agreed = (
        terms[..., 0, :, :] + (1 - 2 * readout[..., None, None]) ** 2 * terms[..., 1, :, :]
    ) / 2

    success = agreed[..., 0, 0]
    possible = success > NEVER
    scaled = agreed / jnp.where(possible, success, 1.0)[..., None, None]
    white = jnp.zeros((4, 4), kind).at[0, 0].set(1.0)
    correlation = jnp.where(possible[..., None, None], scaled, white)
    if protocol == "bbpssw":
        correlation = _twirled(correlation)
    return correlation, jnp.where(possible, success, 0.0)


def distill(
    first: Pair,
    second: Pair,
    *,
    protocol: DistillationProtocol = "dejmps",
    gate_error: ArrayLike = 0.0,
    readout_error: ArrayLike = 0.0,
) -> tuple[Pair, jax.Array]:
    """One better pair out of two, if two measured bits coincide.

    Each party applies a CNOT from its half of `first` to its half of `second` and measures the
    latter in the Z basis; `first` remains if both read the same, else both pairs are lost. Batch
    shapes of all arguments broadcast.

    Args:
      first: the pair to be improved.
      second: the pair that is measured.
      protocol: "dejmps", where both parties first turn their halves about X by quarter turns in
        opposite senses, which exchanges Phi- and Psi-; or "bbpssw", which makes both pairs
        Werner pairs first and the result one as well.
      gate_error: (...) weight in [0, 1] of the two-qubit maximally mixed state after each of the
        two CNOTs.
      readout_error: (...) probability in [0, 1] that a measured bit is read wrongly, the same for
        both and independent.

    Returns:
      The `Pair` given success, and the (...) probability of success. Where that is below 1e-6 it
      is returned as zero and the pair as white noise, both with a zero derivative.

    Raises:
      TypeError: if `first` or `second` is not a Pair.
      ValueError: if a concrete probability is out of range, or `protocol` is not one of these.

    Reference: Bennett et al., Phys. Rev. Lett. 76, 722 (1996), for "bbpssw"; Deutsch et al., Phys.
    Rev. Lett. 77, 2818 (1996), for "dejmps"; Duer, Briegel, Cirac and Zoller, Phys. Rev. A 59, 169
    (1999), for "bbpssw" with this noise. The form for any states is derived here: with
    s_i x Z^alpha turned by a CNOT into sign s_i1 x s_i2, the result is the sum over alpha in
    (0, 1) of R1[i1, k1] R2[i2, k2] / 2 with both signs, divided by its entry 00, which is the
    probability of success.

    >>> from jaxqring import werner
    >>> better, success = distill(werner(fidelity=0.9), werner(fidelity=0.9))
    >>> round(float(better.fidelity), 6), round(float(success), 6)
    (0.926396, 0.875556)
    """
    checks.instance("first", first, Pair)
    checks.instance("second", second, Pair)
    checks.one_of("protocol", protocol, PROTOCOLS)
    gate, gate_flag = checks.bounded("gate_error", gate_error)
    readout, readout_flag = checks.bounded("readout_error", readout_error)
    correlation, success = recurrence(
        first.correlation, second.correlation, gate, readout, protocol
    )
    flags = (first.clipped, second.clipped, gate_flag, readout_flag)
    return flagged_pair(correlation, *flags), success


def hashing_yield(pair: Pair) -> jax.Array:
    """Yield of perfect pairs per pair, if very many are measured together.

    Args:
      pair: one of many alike, of batch shape (...).

    Returns:
      (...) max(0, 1 - H(bell_probs)) in [0, 1], pairs per pair, reached in the limit of many
      pairs with noiseless gates and one-way communication. A pair that is not a
      mixture of Bell states counts as the mixture with the same overlaps, into which random
      Paulis turn it. Where the entropy is a bit or more the yield and its derivative are zero,
      at the kink itself too. At a perfect pair the true slope is infinite; see
      `shannon_entropy`.

    Raises:
      TypeError: if `pair` is not a Pair.

    Reference: Bennett, DiVincenzo, Smolin and Wootters, Phys. Rev. A 54, 3824 (1996).

    >>> from jaxqring import bell_diagonal, werner
    >>> round(float(hashing_yield(bell_diagonal([0.89, 0.11, 0.0, 0.0]))), 4)
    0.5001
    >>> float(hashing_yield(werner(fidelity=0.8)))
    0.0
    """
    checks.instance("pair", pair, Pair)
    probs = pair.bell_probs
    rate = 1 - entropy_bits(jnp.where(probs > 0, probs, 0.0))  # rounding may end below zero
    return jnp.where(rate > 0, rate, 0.0)


def best_purification_time(
    weight: ArrayLike, decay_rate: ArrayLike, deadline: ArrayLike
) -> jax.Array:
    """The time for which two Werner pairs should decay before they are distilled into one.

    Both pairs have weight w now; one pair is used at the deadline T. Memories
    depolarise, w(t) = w exp(-kappa t), before the distillation and after it. Distillation makes
    f(w) = (2 w + 4 w^2) / (3 + 3 w^2) of w, so the weight at the deadline goes as f(w) / w at the
    moment of distillation, which is largest at w = (sqrt(5) - 1) / 2, fidelity 0.713525.

    Args:
      weight: (...) weight of Phi+ in either pair now, in [0, 1].
      decay_rate: (...) kappa in 1/seconds, in [0, 1e12]: for halves that depolarise with time
        T_m each, 2 / T_m.
      deadline: (...) T in seconds, in [0, 1e10], from now.

    Returns:
      (...) seconds from now, clip(ln(w / 0.618034) / kappa, 0, T): as late as possible while
      pairs are better than that. It is T without decay if w is above the optimum, and zero at it
      or below. The weight is that given success; earlier distillations succeed more often. The
      derivative is zero where the time is clipped to 0 or T.

    Raises:
      ValueError: if a concrete value is out of range.

    Reference: derived here.

    >>> round(float(best_purification_time(0.9, 2.0, 1.0)), 4)
    0.1879
    >>> float(best_purification_time(0.9, 0.0, 1.0)), float(best_purification_time(0.5, 2.0, 1.0))
    (1.0, 0.0)
    """
    weight, _ = checks.bounded("weight", weight)
    rate, _ = checks.bounded("decay_rate", decay_rate, 0.0, 1e12)
    last, _ = checks.bounded("deadline", deadline, 0.0, 1e10)
    above = jnp.log(jnp.where(weight > GOLDEN, weight / GOLDEN, 1.0))
    # The square of any rate that passes, by which the derivative divides, is a normal number.
    falls_in_time = (above > 0) & (above < rate * last)
    time = above / jnp.where(falls_in_time, rate, 1.0)
    return jnp.where(above > 0, jnp.where(falls_in_time, time, last), 0.0)
