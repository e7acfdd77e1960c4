"""N-party GHZ states under noise: exact statistics and samples, without a vector of length 2^N.

A GHZ state is the sum of four terms |a...a><b...b| / 2, and local channels turn each of them into
another product. Every expectation of a product of local operators is therefore a sum of four
products, and every outcome can be drawn party by party: both cost O(N).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import Key
from jaxqring.physics._pair import Pair
from jaxqring.physics._paulis import complex_dtype
from jaxqring.physics.channels import Channel

#: (4, 4) twice the terms |0><0|, |1><1|, |0><1|, |1><0|, in the Paulis [I, X, Y, Z].
_TERMS = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1j, 0], [0, 1, -1j, 0]])

#: Operators in the Paulis: |0><0|, |1><1| and |0><1|.
_ZERO, _ONE = np.array([0.5, 0, 0, 0.5]), np.array([0.5, 0, 0, -0.5])
_FLIP = np.array([0, 0.5, 0.5j, 0])


@struct.dataclass
class GHZSource:
    """A source of copies of (|0...0> + |1...1>)/sqrt(2), each with the same noise.

    A pytree: the noise is made of leaves, the number of parties is static.

    Attributes:
      num_parties: N, at least 2.
      noise: the channel on every party's qubit, or N of them along a leading axis, or None.
      white: () weight of white noise, I/2^N in place of the state, in [0, 1].
      pair_probs: (N - 1, 4) Bell weights of the pairs between neighbours from which the state was
        fused, before `noise` acts; None for a perfect state. See `fused`.

    Raises:
      TypeError: if the noise is not a Channel.
      ValueError: if the number of parties is less than 2, or a concrete `white` is outside [0, 1];
        once the source is used, if the noise is neither one channel nor one for each party.

    Reference: derived here. White noise has fidelity 1 - white + white / 2^N.

    >>> from jaxqring import depolarizing
    >>> source = GHZSource(4, noise=depolarizing(mix=0.05))
    >>> print(f"{source.fidelity:.6f} {source.x_error:.6f} {source.disagreement:.6f}")
    0.859097 0.092747 0.096312
    """

    num_parties: int = struct.field(pytree_node=False)
    noise: Channel | None = None
    white: ArrayLike = 0.0
    pair_probs: jax.Array | None = None

    def __post_init__(self) -> None:
        checks.integer("num_parties", self.num_parties, 2)
        # JAX rebuilds pytrees around objects that are not arrays; those are not checked.
        if isinstance(self.white, float | int | np.ndarray | np.generic | jax.Array):
            checks.bounded("white", self.white)
        if self.noise is not None and type(self.noise) is not object:
            checks.instance("noise", self.noise, Channel)

    @property
    def fidelity(self) -> jax.Array:
        """() overlap with the GHZ state, squared."""
        return (1 - self.disagreement + self.visibility) / 2

    @property
    def visibility(self) -> jax.Array:
        """() remaining coherence: overlap with |0...0> + |1...1> less that with |0...0> - |1...1>.

        It is the mean of the product of outcomes in any equatorial bases whose angles add up to
        zero, once phases are twirled; see `x_error`.
        """
        return 2 * self.expectation(np.tile(_FLIP, (self.num_parties, 1))).real

    @property
    def x_error(self) -> jax.Array:
        """() probability that the outcomes of all parties in the Fourier basis have a wrong sum.

        It holds for the twirled state: the parties rotate their qubits by public random phases
        that add up to zero, and either all or none of them flip, which preserves the GHZ state
        and makes errors independent of the outcomes. It is also the probability of failing an XY
        test (Pappa et al., Phys. Rev. Lett. 108, 260502 (2012), with an even number of Y), and,
        for channels that treat X and Y alike, the probability for plain X measurements.
        """
        return (1 - self.visibility) / 2

    @property
    def disagreement(self) -> jax.Array:
        """() probability that the outcomes in the Z basis are not all equal.

        Computed as one minus the probability that they are: accurate to 1e-7 in float32.
        """
        zeros, ones = (np.tile(end, (self.num_parties, 1)) for end in (_ZERO, _ONE))
        return 1 - self.expectation(zeros).real - self.expectation(ones).real

    def z_error(self, first: int, second: int) -> jax.Array:
        """() probability that the outcomes of two different parties in the Z basis differ.

        Raises:
          ValueError: if `first` and `second` are not two different parties.
        """
        if first == second or not {first, second} <= set(range(self.num_parties)):
            rule = f"be two different parties of 0, ..., {self.num_parties - 1}"
            checks.refuse("first, second", rule, (first, second))
        observables = np.tile([1.0, 0, 0, 0], (self.num_parties, 1))
        observables[[first, second]] = [0, 0, 0, 1]
        return (1 - self.expectation(observables).real) / 2

    def expectation(self, observables: ArrayLike) -> jax.Array:
        """The expectation of a product of one operator for each party.

        Args:
          observables: (N, 4) coefficients of [I, X, Y, Z], real or complex.

        Returns:
          () complex.

        Raises:
          ValueError: if the shape is not (N, 4).

        >>> x = np.tile([0, 1, 0, 0], (5, 1))
        >>> print(GHZSource(5, white=0.25).expectation(x).real.round(6))
        0.75
        """
        if np.shape(observables) != (self.num_parties, 4):
            rule = f"have the shape ({self.num_parties}, 4)"
            checks.refuse("observables", rule, np.shape(observables))
        terms = self._terms()
        weights = jnp.asarray(observables).astype(terms.dtype)
        # (N, 2, 2): of each party and sector (equal, unequal), over the two branches.
        factors = jnp.sum(weights[:, None] * terms, axis=-1).reshape(-1, 2, 2)
        stay, jump = self._transfer(factors.real.dtype)

        def add(left: jax.Array, party: tuple) -> tuple[jax.Array, None]:
            factor, stay, jump = party
            return (stay[:, None] * left + jump[:, None] * left[:, ::-1]) * factor, None

        left, _ = lax.scan(add, factors[0] / 2, (factors[1:], stay, jump))
        white = self._white(left.real.dtype)
        return (1 - white) * jnp.sum(left) + white * jnp.prod(weights[:, 0])

    def _terms(self) -> jax.Array:
        """Twice the images (N, 4, 4) of |0><0|, |1><1|, |0><1|, |1><0| under the parties' noise."""
        if self.noise is None:
            return jnp.broadcast_to(
                jnp.asarray(_TERMS, complex_dtype(jnp.zeros(()).dtype)), (self.num_parties, 4, 4)
            )
        shape = self.noise.ptm.shape
        if shape not in (
            (4, 4),
            (self.num_parties, 4, 4),
        ):  # on use: sources may be stacked
            rule = f"be one channel or {self.num_parties}, one for each party"
            checks.refuse("noise", rule, shape)
        ptm = jnp.broadcast_to(self.noise.ptm, (self.num_parties, 4, 4))
        inputs = jnp.asarray(_TERMS, complex_dtype(ptm.dtype))
        return jnp.sum(ptm.astype(inputs.dtype)[:, None] * inputs[:, None], axis=-1)

    def _transfer(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
        """Weights (N - 1, 2) of staying in a branch and of leaving it, in either sector."""
        if self.pair_probs is None:
            ones = jnp.ones((self.num_parties - 1, 2), dtype)
            return ones, jnp.zeros_like(ones)
        phi, phi_minus, psi, psi_minus = jnp.moveaxis(jnp.asarray(self.pair_probs, dtype), -1, 0)
        stay = jnp.stack([phi + phi_minus, phi - phi_minus], axis=-1)
        return stay, jnp.stack([psi + psi_minus, psi - psi_minus], axis=-1)

    def _white(self, dtype: jnp.dtype) -> jax.Array:
        return checks.bounded("white", self.white)[0].astype(dtype)


def fused(pair: Pair, num_parties: int) -> GHZSource:
    """A source of GHZ states that N nodes in a row fuse from the pairs between neighbours.

    Each node but the last two joins its two halves by a CNOT and a Z measurement, which is
    announced and corrected. A bit error of a pair flips the bits of all nodes beyond it; phase
    errors add up. With Werner pairs of weight W the fidelity is
    ((1 + W) / 2)^(N - 1) / 2 + W^(N - 1) / 2.

    Simplification: gates and readout are perfect, and only the Bell weights of a pair count, as
    after a public random Pauli on both halves; exact for Bell-diagonal pairs.

    Args:
      pair: one for all N - 1 links, or N - 1 along a leading axis.
      num_parties: N, at least 2.

    Returns:
      The source, of N parties.

    Raises:
      TypeError: if the pair is not a Pair.
      ValueError: if `num_parties` is below 2, or there are not one or N - 1 pairs.

    Reference: derived here.

    >>> from jaxqring import werner
    >>> print(f"{fused(werner(fidelity=0.95), 3).fidelity:.6f}")
    0.902778
    """
    checks.instance("pair", pair, Pair)
    num_parties = checks.integer("num_parties", num_parties, 2)
    probs = pair.bell_probs
    if probs.shape not in ((4,), (num_parties - 1, 4)):
        checks.refuse("pair", f"be one pair or {num_parties - 1}", probs.shape[:-1])
    return GHZSource(num_parties, pair_probs=jnp.broadcast_to(probs, (num_parties - 1, 4)))


class _Drawn(NamedTuple):
    """Random errors of each copy: bits flipped (..., N), phase flipped (...), white noise (...)."""

    flipped: jax.Array
    phase: jax.Array
    white: jax.Array


def sample(key: Key, source: GHZSource, axes: ArrayLike) -> jax.Array:
    """Draws outcomes of measuring every party of many copies, each along an axis of its own.

    Exact for every source: all parties but the last are drawn from one of two product
    distributions, the last one given the others. The cost is O(N) for each copy.

    Args:
      key: typed PRNG key.
      source: the source of the copies.
      axes: (..., N, 3) unit Bloch vectors of the measurements.

    Returns:
      (..., N) uint8, zero for the eigenvalue +1 and one for -1.

    Raises:
      TypeError: if `key` is not a typed PRNG key or `source` not a GHZSource.
      ValueError: if `key` is a batch of keys, or the shape of `axes` is not (..., N, 3).

    >>> axes = np.tile([1.0, 0, 0], (1000, 3, 1))  # X on three parties, a thousand times
    >>> outcomes = sample(jax.random.key(0), GHZSource(3), axes)
    >>> int(jnp.sum(outcomes, axis=-1).max()), bool(jnp.all(jnp.sum(outcomes, axis=-1) % 2 == 0))
    (2, True)
    """
    checks.prng_key("key", key)
    checks.instance("source", source, GHZSource)
    if np.shape(axes)[-2:] != (source.num_parties, 3):
        checks.refuse("axes", f"have the shape (..., {source.num_parties}, 3)", np.shape(axes))
    terms = source._terms()
    axes = jnp.asarray(axes, terms.real.dtype)
    # The mean of each outcome in the four terms: real in the first two, complex in the others.
    means = jnp.einsum(
        "...nj,ntj->...nt", axes.astype(terms.dtype), terms[..., 1:], precision="highest"
    )
    errors_key, branch_key, outcome_key, last_key, white_key = jax.random.split(key, 5)
    drawn = _draw_errors(errors_key, source, axes.shape[:-2], terms.real.dtype)
    # Rounding may take a mean beyond one, whose logarithm below would be NaN.
    zero, one = (jnp.clip(means[..., branch].real, -1, 1) for branch in (0, 1))
    zero, one = jnp.where(drawn.flipped, one, zero), jnp.where(drawn.flipped, zero, one)
    branch = jax.random.bernoulli(branch_key, 0.5, axes.shape[:-2])
    chosen = jnp.where(branch[..., None], one, zero)[..., :-1]
    uniform = jax.random.uniform(outcome_key, chosen.shape, chosen.dtype)
    signs = jnp.where(uniform < (1 + chosen) / 2, 1.0, -1.0).astype(chosen.dtype)
    # The last outcome given the others. Logarithms, because 2^N products under- and overflow.
    logs = [jnp.sum(jnp.log1p(signs * mean[..., :-1]), axis=-1) for mean in (zero, one)]
    coherence = jnp.where(drawn.flipped, means[..., 2].conj(), means[..., 2])
    size = jnp.sum(jnp.log(jnp.abs(coherence)), axis=-1)
    angle = jnp.sum(jnp.angle(coherence), axis=-1)
    scale = jnp.maximum(jnp.maximum(*logs), size)
    parity = jnp.prod(signs, axis=-1) * jnp.where(drawn.phase, -1, 1)
    weights = [jnp.exp(log - scale) / 2 for log in logs]
    lean = parity * jnp.exp(size - scale) * jnp.cos(angle)
    lean += weights[0] * zero[..., -1] + weights[1] * one[..., -1]
    mean = lean / (weights[0] + weights[1])
    last = jax.random.uniform(last_key, mean.shape, mean.dtype) < (1 + mean) / 2
    outcomes = jnp.concatenate([signs < 0, ~last[..., None]], axis=-1).astype(jnp.uint8)
    noise = jax.random.bits(white_key, outcomes.shape, jnp.uint8) & 1
    return jnp.where(drawn.white[..., None], noise, outcomes)


def _draw_errors(key: Key, source: GHZSource, shape: tuple[int, ...], dtype: jnp.dtype) -> _Drawn:
    pair_key, white_key = jax.random.split(key)
    white = jax.random.bernoulli(white_key, source._white(dtype), shape)
    if source.pair_probs is None:
        flipped = jnp.zeros((*shape, source.num_parties), bool)
        return _Drawn(flipped, jnp.zeros(shape, bool), white)
    probs = jnp.asarray(source.pair_probs, dtype)
    logits = jnp.log(probs)
    kinds = jax.random.categorical(pair_key, logits, shape=(*shape, source.num_parties - 1))
    beyond = jnp.cumsum(kinds >> 1, axis=-1) % 2 == 1
    flipped = jnp.concatenate([jnp.zeros((*shape, 1), bool), beyond], axis=-1)
    return _Drawn(flipped, jnp.sum(kinds & 1, axis=-1) % 2 == 1, white)
