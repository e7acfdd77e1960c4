"""Superdense coding over one noisy link: a pair and channels in, a symbol channel out.

The sender holds half A of a pair, encodes symbol m as U_m, and sends A to the receiver, who holds
half B and measures both in the Bell basis. With R the correlation matrix of the pair, M_0, M_1
and M_B the transfer matrices before encoding, on the way and on the kept half,

    T[r|m] = 1/4 sum_ik sign[r,i] eta_i G[i,k] sign[m,k],   G = M_1 * (M_B (M_0 R)^T),

where * multiplies entry by entry and eta are the correlations of Phi+. T is linear in every one
of its ingredients.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.physics._pair import Pair
from jaxqring.physics._paulis import PHI_PLUS, SIGNS, product
from jaxqring.physics.channels import Channel, add_clipped
from jaxqring.physics.information import discrete_memoryless_capacity


@struct.dataclass
class SymbolChannel:
    """The noisy channel of a two-bit symbol on one link, or on a batch of links.

    Attributes:
      transition: (..., 4, 4) T[r, m] = P(received r | sent m), or (..., 5, 4) with the
        probability of a flagged erasure in row 4; columns sum to one.
      clipped: (...) number of traced parameters that were moved into their domain, or None.

    Build it with `superdense`, or from any column-stochastic matrix:

    >>> SymbolChannel(jnp.eye(4)).error_prob
    Array(0., dtype=float32)
    """

    transition: jax.Array
    clipped: jax.Array | None = None

    @property
    def is_heralded(self) -> bool:
        """True if losses are flagged, in an erasure row."""
        return self.transition.shape[-2] == 5

    @property
    def erasure_prob(self) -> jax.Array:
        """(...) probability of a flagged erasure, averaged over the symbols sent."""
        if not self.is_heralded:
            return jnp.zeros(self.transition.shape[:-2], self.transition.dtype)
        return jnp.mean(self.transition[..., 4, :], axis=-1)

    @property
    def xor_probs(self) -> jax.Array:
        """(..., 4) q(e) = P(received XOR sent = e), averaged over the symbols sent.

        Sums to one less the erasure probability.
        """
        return jnp.mean(self.error_table, axis=-2)

    @property
    def error_table(self) -> jax.Array:
        """(..., 4, 4) P(received XOR sent = e | sent m), with m the row and e the column."""
        return _table(lambda sent, error: self.transition[..., sent ^ error, sent])

    @property
    def error_prob(self) -> jax.Array:
        """(...) probability of a wrong symbol that is not flagged, averaged over the symbols."""
        return jnp.sum(self.xor_probs[..., 1:], axis=-1)

    @property
    def flip_probs(self) -> jax.Array:
        """(..., 2) probabilities that bit a, and that bit b, of the symbol 2a + b is flipped."""
        q = self.xor_probs
        return jnp.stack([q[..., 2] + q[..., 3], q[..., 1] + q[..., 3]], axis=-1)

    @property
    def is_xor_symmetric(self) -> jax.Array:
        """(...) bool, whether errors are independent of the symbol sent (to 1e-6)."""
        table = self.error_table
        return jnp.all(jnp.abs(table - table[..., :1, :]) < 1e-6, axis=(-2, -1))

    @property
    def invalid_columns(self) -> jax.Array:
        """() float32 number of columns, on all links, that are not distributions (to 1e-5)."""
        fits = jnp.all((self.transition > -1e-5) & (self.transition < 1 + 1e-5), axis=-2)
        fits &= jnp.abs(jnp.sum(self.transition, axis=-2) - 1) < 1e-5
        return jnp.sum(~fits).astype(jnp.float32)

    def capacity(self) -> jax.Array:
        """(...) capacity in bits per symbol sent, that is per online qubit.

        2 - H(q) for an XOR-symmetric channel, eta (2 - H(q / eta)) with flagged loss, and the
        maximum over input distributions in general.
        """
        return discrete_memoryless_capacity(self.transition)

    def scrambled(self) -> "SymbolChannel":
        """The channel after XOR with a random pad that both ends know: exactly XOR-symmetric."""
        q = self.xor_probs
        rows = xor_symmetric(q)
        if self.is_heralded:
            lost = jnp.broadcast_to(self.erasure_prob[..., None, None], (*rows.shape[:-2], 1, 4))
            rows = jnp.concatenate([rows, lost], axis=-2)
        return SymbolChannel(rows, self.clipped)

    def guessed(self) -> "SymbolChannel":
        """The channel of a receiver that replaces each erased symbol by a uniform guess."""
        if not self.is_heralded:
            return self
        received, lost = self.transition[..., :4, :], self.transition[..., 4:, :]
        return SymbolChannel(received + lost / 4, self.clipped)


def superdense(
    pair: Pair,
    *,
    before: Channel | None = None,
    sent: Channel | None = None,
    kept: Channel | None = None,
    gate_error: ArrayLike = 0.0,
    readout_error: ArrayLike | tuple[ArrayLike, ArrayLike] = 0.0,
    survival: ArrayLike = 1.0,
    heralded: bool = False,
) -> SymbolChannel:
    """Builds the symbol channel of superdense coding with noise at every stage.

    Batch shapes of all arguments broadcast.

    Args:
      pair: the shared pair.
      before: channel on the sent half before encoding (its memory).
      sent: channel on the sent half after encoding (the fibre, and a noisy encoding gate).
      kept: channel on the half that stays.
      gate_error: (...) weight in [0, 1] of the two-qubit maximally mixed state after the gate
        of the Bell measurement: T -> (1 - g) T + g / 4. Noise of the encoding gate is a channel
        of its own: `sent=depolarizing(mix=...).then(...)`.
      readout_error: (...) probability in [0, 1] that a measured bit is read wrongly, the same
        for both; or two (..., 2, 2) column-stochastic matrices P(read | true), for bit a and b.
      survival: (...) probability in [0, 1] that both halves arrive. A lost half is replaced by
        white noise, so that the outcome is uniform before readout.
      heralded: whether a loss is flagged; if so, it becomes row 4 of the transition matrix.

    Returns:
      A `SymbolChannel`.

    Raises:
      TypeError: if `pair` is not a Pair or a channel not a Channel.
      ValueError: if a concrete probability is out of range.

    Reference: Bennett and Wiesner, Phys. Rev. Lett. 69, 2881 (1992); the noisy form is derived
    here and checked against dense matrices.

    >>> from jaxqring import depolarizing, werner
    >>> link = superdense(werner(fidelity=0.97), sent=depolarizing(error_prob=0.01))
    >>> round(float(link.error_prob), 4), round(float(link.capacity()), 4)
    (0.0396, 1.6968)
    """
    checks.instance("pair", pair, Pair)
    clipped = pair.clipped
    for name, channel in (("before", before), ("sent", sent), ("kept", kept)):
        if channel is not None:
            checks.instance(name, channel, Channel)
            clipped = add_clipped(clipped, channel.clipped)
    checks.one_of("heralded", heralded, (True, False))
    gate, gate_flag = checks.bounded("gate_error", gate_error)
    arrives, survival_flag = checks.bounded("survival", survival)
    readout, readout_flag = _readout_matrix(readout_error)
    clipped = add_clipped(clipped, gate_flag, survival_flag, readout_flag)

    # G[i, k]: correlation i seen by the receiver per correlation k at the moment of encoding.
    correlation = pair.apply(sent=before).correlation
    if kept is None:
        at_encoding = jnp.swapaxes(correlation, -1, -2)
    else:
        at_encoding = product(kept.ptm, jnp.swapaxes(correlation, -1, -2))
    on_the_way = jnp.eye(4, dtype=correlation.dtype) if sent is None else sent.ptm
    gain = on_the_way * at_encoding
    signs = jnp.asarray(SIGNS, dtype=gain.dtype)
    perfect = jnp.asarray(PHI_PLUS, dtype=gain.dtype)
    transition = product(product(signs * perfect[None, :], gain), signs.T) / 4
    # Noise that is absent by default costs nothing.
    if not heralded and not _is_plain(survival, 1.0):
        transition = _mix_in_noise(transition, arrives[..., None, None])
    if not _is_plain(gate_error, 0.0):
        transition = _mix_in_noise(transition, 1 - gate[..., None, None])
    if not _is_plain(readout_error, 0.0):
        transition = product(readout, transition)
    if heralded:
        eta = arrives[..., None, None]
        transition = eta * transition
        lost = jnp.broadcast_to(1 - eta, (*transition.shape[:-2], 1, 4)).astype(transition.dtype)
        transition = jnp.concatenate([transition, lost], axis=-2)
    if clipped is not None:
        clipped = jnp.broadcast_to(clipped, transition.shape[:-2])
    return SymbolChannel(transition, clipped)


def _table(entry: Callable[[int, int], jax.Array]) -> jax.Array:
    """Stacks entries (...), all of them slices, to (..., 4, 4): a gather would be slower."""
    rows = [jnp.stack([entry(row, column) for column in range(4)], axis=-1) for row in range(4)]
    return jnp.stack(rows, axis=-2)


def xor_symmetric(patterns: jax.Array) -> jax.Array:
    """The transition matrix (..., 4, 4) of XOR with a pattern, given its probabilities (..., 4)."""
    return _table(lambda received, sent: patterns[..., received ^ sent])


def _is_plain(value: Any, default: float) -> bool:
    """True if an argument is a number that changes nothing."""
    return isinstance(value, int | float) and value == default


def _mix_in_noise(transition: jax.Array, weight: ArrayLike) -> jax.Array:
    """Mixes a transition matrix, with this weight, with uniform noise."""
    return transition * weight + (1 - weight) / 4


def _readout_matrix(
    readout_error: ArrayLike | tuple[ArrayLike, ArrayLike],
) -> tuple[jax.Array, jax.Array]:
    """The matrix (..., 4, 4) of P(read | true) of both bits, and the clipped entries (...)."""
    if isinstance(readout_error, tuple | list):
        if len(readout_error) != 2 or any(np.shape(m)[-2:] != (2, 2) for m in readout_error):
            shapes = tuple(np.shape(m) for m in readout_error)
            checks.refuse("readout_error", "be an array or two matrices (..., 2, 2)", shapes)
        for matrix in readout_error:
            if not checks.is_traced(matrix) and not np.allclose(
                np.asarray(matrix).sum(-2), 1.0, atol=1e-5
            ):
                checks.refuse("readout_error", "have columns that sum to one", np.asarray(matrix))
        (bit_a, flag_a), (bit_b, flag_b) = (
            checks.bounded("readout_error", matrix) for matrix in readout_error
        )
        flag = jnp.sum(flag_a, axis=(-2, -1)) + jnp.sum(flag_b, axis=(-2, -1))
    else:
        flip, flag = checks.bounded("readout_error", readout_error)
        bit_a = jnp.stack(
            [jnp.stack([1 - flip, flip], axis=-1), jnp.stack([flip, 1 - flip], axis=-1)], axis=-2
        )
        bit_b = bit_a
    both = jnp.einsum("...ij,...kl->...ikjl", bit_a, bit_b, precision="highest")
    return both.reshape(*both.shape[:-4], 4, 4), flag


def check_transition(argument: str, channel: SymbolChannel) -> None:
    """Refuses a symbol channel whose matrix is not column-stochastic.

    Raises:
      TypeError: if it is not a SymbolChannel.
      ValueError: if its matrix does not have the shape (..., 4, 4) or (..., 5, 4), or is concrete
        and has columns that are not probability distributions, to 1e-5.
    """
    checks.instance(argument, channel, SymbolChannel)
    if not isinstance(channel.transition, jax.Array | np.ndarray):
        checks.refuse(f"{argument}.transition", "be an array", channel.transition, TypeError)
    if not jnp.issubdtype(channel.transition.dtype, jnp.floating):
        checks.refuse(f"{argument}.transition", "be floating", channel.transition.dtype, TypeError)
    shape = np.shape(channel.transition)
    if len(shape) < 2 or shape[-1] != 4 or shape[-2] not in (4, 5):
        checks.refuse(f"{argument}.transition", "have the shape (..., 4, 4) or (..., 5, 4)", shape)
    if not checks.is_traced(channel.transition):
        known = np.asarray(channel.transition)
        if not (np.all(known > -1e-5) and np.allclose(known.sum(-2), 1.0, atol=1e-5)):
            checks.refuse(
                f"{argument}.transition", "have columns that are probability distributions", known
            )
