"""How often do the two ends of a private pair disagree in sign? By a few qubits, or by many bits.

Alice has signs x of P coordinates. Bob has a matching: M disjoint pairs of coordinates that were
meant to be tied. The audit estimates f, the fraction of his pairs with x_i != x_j, by messages from
Alice to Bob only.

What the paper says (Gragera Garces and Pira, arXiv:2606.20344, abstract): O(eps^-2 log P) qubits
against Omega(sqrt P) bits. Our interpretation: that f is to be found to +-eps with probability
1 - delta, or f = 0 told from f >= eps; the protocol, from the hidden matching problem (Bar-Yossef,
Jayram and Kerenidis, STOC 2004); the noise, the estimator and every constant here. The lower bound
on bits is theirs and cannot be simulated: `subset_audit` is a protocol of O(sqrt(P) / eps) bits.

**One copy.** Alice sends |psi> = P^(-1/2) sum_i x_i |i> on n = ceil(log2 P) qubits, and Bob
measures (|i> +- |j>) / sqrt(2) for his pairs and |i> for the rest. He hits a uniformly random pair
with probability alpha = 2M / P, and the sign he finds is x_i x_j with certainty.

**Steered.** Without qubits on line: of n EPR pairs Alice turns her halves by diag(x) and measures
them along X, which leaves Z^a |psi> with Bob, a her outcomes. She announces these n bits, and Bob
multiplies his sign by (-1)^(a.(i^j)). Her halves have 2^n levels, so x goes on with ones:
alpha = 2M / 2^n, the same where P is a power of two.

**Noise**, of the qubits on their way to Bob or of his halves. An error X^a Z^b takes |i'> to
(-1)^(b.i') |i' ^ a>. So the amplitude at i is x_(i^a) (-1)^(b.(i^a)) / sqrt(P), or none if i ^ a is
beyond P, and a pair (i, j) gives +- with probability |c_i +- c_j|^2 / 2. Hence an exact sampler for
every P <= 2^n: draw i' < P and let i = i' ^ a; an unmatched i is a miss; with j its partner, the
sign is a fair coin if j ^ a >= P, else x_(i') x_(j^a) (-1)^(b.(i^j)). Qubits that depolarize with
survival lambda each have a Pauli X, Y or Z with probability (1 - lambda) / 4. A global mix leaves
I / 2^n with probability p: a uniform i < 2^n and a fair coin.

**Estimate.** A hit has mean sign w (1 - 2f) + c, so that with B of H hits negative
f = (1 - (1 - 2B/H - c) / w) / 2 on average, exactly, whatever H > 0 is. Its variance is
q (1 - q) E[1/H] / w^2, with q the probability of a minus. It may leave [0, 1].

* A global mix hits with h = (1 - p) alpha + p 2M / 2^n, has w = (1 - p) alpha / h and c = 0.
  For P = 2^n, w = 1 - p.
* Local noise would make w depend on which labels are paired. So before each copy the labels of
  all coordinates are permuted by public randomness, for P = 2^n and a perfect matching. For
  d = i ^ j of weight k the phases cancel all a but those off d, where each bit is 1 with
  probability (1 - lambda) / 2, and leave lambda^k. With d uniform over what is not zero, a = 0
  happens with C0 = (((1 + 3 lambda) / 2)^n - ((1 + lambda) / 2)^n) / (2^n - 1), and all a together
  with T = ((1 + lambda)^n - 1) / (2^n - 1). As a = d is not among them, every other a shows a
  uniformly random pair disjoint from (i, j), whose mean product is
  r = (S^2 (1 - 4 / P) + 4 - P + 2 (1 - 2f)) / ((P - 2) (P - 3)) with S the sum of all signs.
  So w = C0 + 2 (T - C0) / ((P - 2) (P - 3)); c is known once Alice sends S, in n + 1 bits.

**Copies.** By Hoeffding, H hits are off by more than eps with probability 2 exp(-2 H w^2 eps^2) at
most. H is binomial, so K copies are enough if 2 (1 - h (1 - exp(-2 w^2 eps^2)))^K <= delta: that is
K = ln(2 / delta) / (2 w^2 eps^2) for h = 1, and about 1 / h times this else. Memory and time of a
simulated copy do not depend on P, but for n bits if noise is local.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring.audit._tie_plans import (
    _MOST,
    TESTS,
    TieNoise,
    TiePlan,
    check_delta,
    check_local,
    check_options,
    cost_of,
    hit_law,
    in_use,
    index_qubits,
    is_integer,
    local_weights,
    plan_subset_audit,
    plan_tie_audit,
)


@struct.dataclass
class TieResult:
    """What an audit found, and what it cost.

    Attributes:
      fraction: () unbiased estimate of f, outside [0, 1] now and then if there is noise; 1/2 if
        there was no hit.
      low: () lower end of the Hoeffding interval given the hits, at confidence 1 - delta.
      high: () upper end.
      hits: () int32 measurements that found a pair.
      copies: K, static as all that follows; see `TiePlan`.
      qubits: sent from Alice to Bob.
      pairs: EPR pairs used.
      bits: sent from Alice to Bob.
    """

    fraction: jax.Array
    low: jax.Array
    high: jax.Array
    hits: jax.Array
    copies: int = struct.field(pytree_node=False)
    qubits: int = struct.field(pytree_node=False)
    pairs: int = struct.field(pytree_node=False)
    bits: int = struct.field(pytree_node=False)


class Outcomes(NamedTuple):
    """What Bob found in each of K copies.

    Attributes:
      pair: (K,) int32 row of the matching, or -1 for a miss.
      sign: (K,) int8 of the pair, corrected by what was announced; 0 for a miss.
      announced: (K,) int32 Alice's n outcomes along X, as a number whose bits are in the order of
        those of the indices; zero if she sent qubits.
    """

    pair: jax.Array
    sign: jax.Array
    announced: jax.Array


def tie_audit(
    signs: ArrayLike,
    matching: ArrayLike,
    *,
    delta: float,
    key: jax.Array,
    epsilon: float | None = None,
    copies: int | None = None,
    variant: str = "message",
    noise: TieNoise | None = None,
    test: str = "estimate",
) -> TieResult:
    """Estimates the fraction of pairs whose signs differ, from copies of Alice's state.

    Sampled exactly, in a time for each copy that does not depend on P; see the module. To be mapped
    over keys, signs and matchings.

    Args:
      signs: (P,) of -1 and 1, integers or floats.
      matching: (M, 2) integers, disjoint pairs of indices of signs.
      delta: () probability with which the interval may miss the fraction, in (0, 1).
      key: typed PRNG key; of public randomness and of outcomes.
      epsilon: error allowed, in (0, 1), which sets the number of copies by `plan_tie_audit`. Give
        this or `copies`.
      copies: number of copies. With it, `delta` and the noise may be traced.
      variant: "message" sends the qubits, "steered" uses EPR pairs and sends bits.
      noise: of the qubits; None for none.
      test: "estimate" or "zero"; the latter takes fewer copies to tell f = 0 from f >= epsilon, and
        found zero if the fraction is 0.

    Returns:
      A `TieResult` whose costs are those of `plan_tie_audit`.

    Raises:
      TypeError, ValueError: if a known argument is out of its domain; if noise is local and P no
        power of two or the matching not perfect. Of signs and pairs that are traced the values are
        not checked.

    >>> signs, matching = [1, 1, -1, -1, 1, -1, 1, 1], [[0, 1], [2, 3], [4, 5], [6, 7]]
    >>> found = tie_audit(signs, matching, epsilon=0.1, delta=0.05, key=jax.random.key(0))
    >>> bool(found.low <= 0.25 <= found.high), int(found.hits), found.qubits
    (True, 185, 555)
    """
    checks.prng_key("key", key)
    noise = check_options(variant, noise, test)
    kind, level = in_use(noise)
    signs, matching = _check_task(signs, matching)
    size, coverage = signs.shape[0], 2 * matching.shape[0] / signs.shape[0]
    check_local(kind, size, coverage == 1)
    name, _ = checks.exactly_one(epsilon=epsilon, copies=copies)
    if name == "epsilon":
        assert epsilon is not None
        plan = plan_tie_audit(epsilon, delta, size, coverage, variant, noise, test)
        _check_copies(plan.copies)
    else:
        check_delta(delta)
        if test == "zero" and kind != "none":
            checks.refuse("noise", "be none in a test of zero", noise)
        plan = cost_of(_check_copies(copies), size, variant, kind)
    _, contrast = hit_law(size, coverage, variant, kind, level)
    found = _run(
        key,
        signs < 0,
        matching,
        level,
        contrast,
        delta,
        kind=kind,
        copies=plan.copies,
        variant=variant,
    )
    return TieResult(*found, **plan._asdict())


def subset_audit(
    signs: ArrayLike,
    matching: ArrayLike,
    *,
    delta: float,
    key: jax.Array,
    epsilon: float | None = None,
    bits: int | None = None,
    test: str = "estimate",
) -> TieResult:
    """The classical rival: Alice sends the signs of a public random subset of the coordinates.

    Bob counts his pairs that have both ends in it: given their number, a random sample of his pairs
    without replacement, to which Hoeffding's bound applies as well.

    Args:
      signs: (P,) of -1 and 1, integers or floats.
      matching: (M, 2) integers, disjoint pairs of indices of signs.
      delta: () probability with which the interval may miss the fraction, in (0, 1).
      key: typed PRNG key, of public randomness.
      epsilon: error allowed, in (0, 1), which sets the bits by `plan_subset_audit`. Give this or
        `bits`.
      bits: m, signs sent, from 1 to P.
      test: "estimate" or "zero".

    Returns:
      A `TieResult` without copies, qubits and pairs.

    Raises:
      TypeError, ValueError: as for `tie_audit`.

    >>> signs, matching = np.ones(2**10), np.arange(2**10).reshape(-1, 2)
    >>> found = subset_audit(signs, matching, epsilon=0.1, delta=0.05, key=jax.random.key(0))
    >>> float(found.fraction), found.bits
    (0.0, 616)
    """
    checks.prng_key("key", key)
    checks.one_of("test", test, TESTS)
    signs, matching = _check_task(signs, matching)
    size, coverage = signs.shape[0], 2 * matching.shape[0] / signs.shape[0]
    name, _ = checks.exactly_one(epsilon=epsilon, bits=bits)
    if name == "epsilon":
        assert epsilon is not None
        plan = plan_subset_audit(epsilon, delta, size, coverage, test)
    else:
        check_delta(delta)
        if not is_integer(bits) or not 1 <= bits <= size:  # type: ignore[operator]
            checks.refuse("bits", f"be an integer from 1 to {size}", bits)
        plan = TiePlan(0, 0, 0, int(bits))  # type: ignore[arg-type]
    found = _run_subset(key, signs < 0, matching, delta, sent=plan.bits)
    return TieResult(*found, **plan._asdict())


def sample_outcomes(
    key: jax.Array,
    signs: ArrayLike,
    matching: ArrayLike,
    copies: int,
    *,
    variant: str = "message",
    noise: TieNoise | None = None,
    relabel: bool = False,
) -> Outcomes:
    """What Bob finds in each copy, exactly, for every size, matching and noise.

    Args:
      key: typed PRNG key.
      signs: (P,) of -1 and 1.
      matching: (M, 2) integers, disjoint pairs of indices of signs.
      copies: K.
      variant: "message" or "steered".
      noise: of the qubits; None for none.
      relabel: whether labels are permuted at random before each copy, as `tie_audit` does if noise
        is local: for P a power of two and a perfect matching. Labels are drawn as they are needed.

    Returns:
      `Outcomes` of K copies.

    Raises:
      TypeError, ValueError: as for `tie_audit`.

    >>> signs, matching = [1, 1, -1, -1, 1, -1, 1, 1], [[0, 1], [2, 3], [4, 5]]
    >>> found = sample_outcomes(jax.random.key(0), signs, matching, 1000)
    >>> [set(found.sign[found.pair == row].tolist()) for row in (-1, 0, 1, 2)]
    [{0}, {1}, {1}, {-1}]
    """
    checks.prng_key("key", key)
    kind, level = in_use(check_options(variant, noise, "estimate"))
    signs, matching = _check_task(signs, matching)
    copies = _check_copies(copies)
    perfect = 2 * matching.shape[0] == signs.shape[0]
    if relabel:
        check_local("local", signs.shape[0], perfect)
    if kind == "local" and not relabel:
        kind = "fixed"
    elif relabel and kind != "local":
        if kind == "global":
            checks.refuse("relabel", "be False if noise is global, which needs none", relabel)
        kind, level = "local", 1.0
    return _sample(key, signs < 0, matching, level, kind=kind, copies=copies, variant=variant)


@functools.partial(jax.jit, static_argnames=("kind", "copies", "variant"))
def _sample(
    key: jax.Array,
    negative: jax.Array,
    matching: jax.Array,
    level: ArrayLike,
    *,
    kind: str,
    copies: int,
    variant: str,
) -> Outcomes:
    size, n = negative.shape[0], index_qubits(negative.shape[0])
    levels = 2**n
    if variant == "steered":
        negative = jnp.pad(negative, (0, levels - size))
        size = levels
    index_key, noise_key, coin_key, announce_key, label_key = jax.random.split(key, 5)
    shape = (copies,)
    if kind in ("local", "fixed"):
        flips, phases = _draw_paulis(noise_key, n, copies, level)
    else:
        flips = phases = jnp.zeros(shape, jnp.int32)
    if kind == "local":
        pair = jax.random.randint(index_key, shape, 0, matching.shape[0], jnp.int32)
        i, j = matching[pair, 0], matching[pair, 1]
        shift_key, other_key = jax.random.split(label_key)
        difference = jax.random.randint(shift_key, shape, 1, levels, jnp.int32)
        moved = (flips != 0) & (flips != difference)
        k, m = _draw_disjoint(other_key, i, j, size)
        minus = jnp.where(moved, negative[k] ^ negative[m], negative[i] ^ negative[j])
    else:
        drawn = jax.random.randint(index_key, shape, 0, size, jnp.int32)
        white = jnp.zeros(shape, bool)
        if kind == "global":
            white_key, noise_key = jax.random.split(noise_key)
            white = jax.random.bernoulli(white_key, level, shape)
            drawn = jnp.where(white, _draw_bits(noise_key, n, shape), drawn)
        # Of every level: its row of the matching and its partner.
        ends = matching.T.reshape(-1)
        rows = jnp.tile(jnp.arange(matching.shape[0], dtype=jnp.int32), 2)
        row_of = jnp.full(levels, -1, jnp.int32).at[ends].set(rows)
        partner = jnp.zeros(levels, jnp.int32).at[ends].set(matching[:, ::-1].T.reshape(-1))
        i = drawn ^ flips
        j, pair = partner[i], row_of[i]
        difference = i ^ j
        other = j ^ flips
        # No index that counts is out of range: those of white noise and of misses do not.
        known = negative[jnp.minimum(drawn, size - 1)] ^ negative[jnp.minimum(other, size - 1)]
        coin = jax.random.bernoulli(coin_key, 0.5, shape)
        minus = jnp.where(white | (other >= size), coin, known)
    minus = minus ^ _odd(phases & difference)
    announced = jnp.zeros(shape, jnp.int32)
    if variant == "steered":
        announced = _draw_bits(announce_key, n, shape)
        measured = minus ^ _odd(announced & difference)  # of Z^a |psi>
        minus = measured ^ _odd(announced & difference)  # as Bob corrects it
    sign = jnp.where(pair < 0, 0, jnp.where(minus, -1, 1)).astype(jnp.int8)
    return Outcomes(pair, sign, announced)


@functools.partial(jax.jit, static_argnames=("kind", "copies", "variant"))
def _run(
    key: jax.Array,
    negative: jax.Array,
    matching: jax.Array,
    level: ArrayLike,
    contrast: ArrayLike,
    delta: ArrayLike,
    *,
    kind: str,
    copies: int,
    variant: str,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    sign = _sample(key, negative, matching, level, kind=kind, copies=copies, variant=variant).sign
    offset = _offset(negative, level) if kind == "local" else 0.0
    hits = jnp.sum(sign != 0, dtype=jnp.int32)
    minus = jnp.sum(sign < 0, dtype=jnp.int32)
    return _estimate(minus, hits, contrast, offset, delta)


@functools.partial(jax.jit, static_argnames="sent")
def _run_subset(
    key: jax.Array, negative: jax.Array, matching: jax.Array, delta: ArrayLike, *, sent: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    size = negative.shape[0]
    chosen = jax.random.permutation(key, size)[:sent]
    inside = jnp.zeros(size, bool).at[chosen].set(True)
    seen = inside[matching[:, 0]] & inside[matching[:, 1]]
    minus = seen & (negative[matching[:, 0]] ^ negative[matching[:, 1]])
    hits = jnp.sum(seen, dtype=jnp.int32)
    return _estimate(jnp.sum(minus, dtype=jnp.int32), hits, 1.0, 0.0, delta)


def _draw_paulis(
    key: jax.Array, n: int, copies: int, survival: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """(K,) a and (K,) b of errors X^a Z^b: a qubit that is lost gets one of four at random."""
    lost_key, pauli_key = jax.random.split(key)
    lost = ~jax.random.bernoulli(lost_key, survival, (n, copies))
    places = jnp.left_shift(1, jnp.arange(n, dtype=jnp.int32))
    mask = jnp.sum(jnp.where(lost, places[:, None], 0), axis=0, dtype=jnp.int32)
    flips, phases = _draw_bits(pauli_key, n, (2, copies))
    return flips & mask, phases & mask


def _draw_bits(key: jax.Array, n: int, shape: tuple[int, ...]) -> jax.Array:
    """(...) int32 of n random bits."""
    return (jax.random.bits(key, shape, jnp.uint32) >> (32 - n)).astype(jnp.int32)


def _draw_disjoint(
    key: jax.Array, i: jax.Array, j: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """Two different indices that are neither i nor j, uniformly; of no meaning for P = 2."""
    if size < 4:
        return i, j
    first_key, second_key = jax.random.split(key)
    low, high = jnp.minimum(i, j), jnp.maximum(i, j)
    k = jax.random.randint(first_key, i.shape, 0, size - 2, jnp.int32)
    k += (k >= low).astype(k.dtype)
    k += (k >= high).astype(k.dtype)
    m = jax.random.randint(second_key, i.shape, 0, size - 3, jnp.int32)
    for taken in (
        jnp.minimum(low, k),
        jnp.maximum(low, jnp.minimum(high, k)),
        jnp.maximum(high, k),
    ):
        m += (m >= taken).astype(m.dtype)
    return k, m


def _odd(bits: jax.Array) -> jax.Array:
    return lax.population_count(bits) % 2 == 1


def _offset(negative: jax.Array, survival: Any) -> ArrayLike:
    """() what the pairs that are not Bob's add to the mean sign."""
    size = negative.shape[0]
    if size < 4:
        return 0.0
    mean = 1 - 2 * jnp.sum(negative, dtype=jnp.int32) / size
    mean_product = mean**2 * (1 - 4 / size) + (4 - size) / size**2
    return local_weights(size, survival)[1] * mean_product / ((1 - 2 / size) * (1 - 3 / size))


def _estimate(
    minus: jax.Array, hits: jax.Array, contrast: Any, offset: Any, delta: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Fraction, low, high and hits of a `TieResult`."""
    seen = jnp.maximum(hits, 1).astype(float)
    fraction = (1 - (1 - 2 * minus / seen - offset) / contrast) / 2
    width = jnp.sqrt(jnp.log(2 / jnp.asarray(delta, seen.dtype)) / (2 * seen)) / contrast
    fraction = jnp.where(hits > 0, fraction, 0.5)
    width = jnp.where(hits > 0, width, 0.5)
    return fraction, jnp.clip(fraction - width, 0, 1), jnp.clip(fraction + width, 0, 1), hits


def _check_copies(copies: Any) -> int:
    if not is_integer(copies) or not 1 <= copies <= _MOST:
        checks.refuse("copies", f"be an integer from 1 to {_MOST}", copies)
    return int(copies)


def _check_task(signs: ArrayLike, matching: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Signs (P,) and pairs (M, 2) int32; what is known stays off the device until it is used."""
    if not checks.is_traced(signs):
        known = checks.numbers("signs", signs)
        if not np.all(np.abs(known) == 1):
            checks.refuse("signs", "be -1 or 1", known)
        signs = known
    shape = np.shape(signs)
    if len(shape) != 1 or not 2 <= shape[0] <= _MOST:
        checks.refuse("signs", f"have the shape (P,), P from 2 to {_MOST}", shape)
    if not checks.is_traced(matching):
        matching = checks.numbers("matching", matching)
    pairs = np.shape(matching)
    if len(pairs) != 2 or pairs[1] != 2 or not 1 <= pairs[0] <= shape[0] // 2:
        checks.refuse("matching", f"have the shape (M, 2), M from 1 to {shape[0] // 2}", pairs)
    if not jnp.issubdtype(matching.dtype, jnp.integer):  # type: ignore[union-attr]
        checks.refuse("matching", "be of integers", matching, TypeError)
    if not checks.is_traced(matching):
        ends = np.asarray(matching)
        if ends.min() < 0 or ends.max() >= shape[0]:
            checks.refuse("matching", f"hold indices from 0 to {shape[0] - 1}", ends)
        if len(np.unique(ends)) < ends.size:
            checks.refuse("matching", "hold each index at most once", ends)
    return signs, matching.astype(np.int32)  # type: ignore[return-value, union-attr]
