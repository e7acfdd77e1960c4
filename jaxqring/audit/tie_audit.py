"""How often do the two ends of a private pair disagree in sign? By a few qubits, or by many bits.

Alice has signs x of P coordinates. Bob has a matching: M disjoint pairs of coordinates that were
meant to be tied. The audit estimates f, the fraction of his pairs with x_i != x_j, by messages from
Alice to Bob only.

What the paper says (Gragera Garces and Pira, arXiv:2606.20344, abstract): O(eps^-2 log P) qubits
against Omega(sqrt P) bits. Our interpretation: that f is to be found to +-eps with probability
1 - delta, or f = 0 told from f >= eps; the protocol, from the hidden matching problem (Bar-Yossef,
Jayram and Kerenidis, STOC 2004); the noise, the estimator and every constant here. The lower bound
on bits is theirs and cannot be simulated: `subset_audit` is a protocol of O(sqrt(P) / eps) bits.

**One copy.** Alice sends |psi> = P^(-1/2) sum_i x_i |i> on n = ceil(log2 P) qubits, and Bob measures
(|i> +- |j>) / sqrt(2) for his pairs and |i> for the rest. He hits a uniformly random pair with
probability alpha = 2M / P, and the sign he finds is x_i x_j with certainty.

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
  d = i ^ j of weight k the phases cancel all a but those off d, where each bit is 1 with probability
  (1 - lambda) / 2, and leave lambda^k. With d uniform over what is not zero, a = 0 happens with
  C0 = (((1 + 3 lambda) / 2)^n - ((1 + lambda) / 2)^n) / (2^n - 1), and all a together with
  T = ((1 + lambda)^n - 1) / (2^n - 1). As a = d is not among them, every other a shows a uniformly
  random pair disjoint from (i, j), whose mean product is
  r = (S^2 (1 - 4 / P) + 4 - P + 2 (1 - 2f)) / ((P - 2) (P - 3)) with S the sum of all signs.
  So w = C0 + 2 (T - C0) / ((P - 2) (P - 3)); c is known once Alice sends S, in n + 1 bits.

**Copies.** By Hoeffding, H hits are off by more than eps with probability 2 exp(-2 H w^2 eps^2) at
most. H is binomial, so K copies are enough if 2 (1 - h (1 - exp(-2 w^2 eps^2)))^K <= delta: that is
K = ln(2 / delta) / (2 w^2 eps^2) for h = 1, and about 1 / h times this else. Memory and time of a
simulated copy do not depend on P but for its n bits of noise.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike

from jaxqring import checks

VARIANTS = ("message", "steered")
TESTS = ("estimate", "zero")

#: Coordinates and copies: both are counted in int32.
_MOST = 2**30


@struct.dataclass
class TieNoise:
    """Noise of the qubits that Bob measures, of one kind or none; a pytree.

    Attributes:
      global_mix: () weight p of the maximally mixed state of all n qubits, in [0, 1).
      local_survival: () lambda of every qubit, which is depolarized with probability 1 - lambda, in
        (0, 1].

    Raises:
      ValueError: if a known value is out of range, or both kinds are in use. What is known to be
        0, or 1, is not in use; what is traced is.
    """

    global_mix: ArrayLike | None = None
    local_survival: ArrayLike | None = None

    def __post_init__(self) -> None:
        # JAX rebuilds pytrees around other things than numbers: those are not ours to check.
        kinds = float | int | np.ndarray | np.generic | jax.Array | None
        if isinstance(self.global_mix, kinds) and isinstance(self.local_survival, kinds):
            _in_use(self)


class TiePlan(NamedTuple):
    """What an audit costs.

    Attributes:
      copies: K, of the state; 0 for `plan_subset_audit`.
      qubits: sent from Alice to Bob.
      pairs: EPR pairs used.
      bits: sent from Alice to Bob.
    """

    copies: int
    qubits: int
    pairs: int
    bits: int


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


# --- Plans ----------------------------------------------------------------------------------------


def plan_tie_audit(
    epsilon: float,
    delta: float,
    size: int,
    coverage: float = 1.0,
    variant: str = "message",
    noise: TieNoise | None = None,
    test: str = "estimate",
) -> TiePlan:
    """How many copies `tie_audit` needs, and what they cost.

    Args:
      epsilon: error allowed of the fraction, in (0, 1).
      delta: probability with which it may be larger, in (0, 1).
      size: P, coordinates, at least 2.
      coverage: 2 M / P, share of the coordinates that are in a pair, in (0, 1].
      variant: "message" sends the qubits, "steered" uses EPR pairs and sends bits.
      noise: of the qubits; None for none. Its values must be known.
      test: "estimate" finds f to +-epsilon; "zero" tells f = 0 from f >= epsilon, by whether any
        sign was negative: right for sure in the first case, and with probability 1 - delta in the
        second.

    Returns:
      n K qubits for messages; n K pairs and n K bits else; n + 1 more bits if noise is local. For
      the estimate see the module; the test takes K = ceil(ln(1 / delta) / (epsilon h)).

    Raises:
      TypeError, ValueError: if an argument is out of its domain; if noise is local and the size no
        power of two or the coverage not 1; if there is noise in a test of zero.

    >>> plan_tie_audit(0.1, 0.05, 2**20)
    TiePlan(copies=185, qubits=3700, pairs=0, bits=0)
    >>> plan_tie_audit(0.1, 0.05, 2**20, noise=TieNoise(global_mix=0.1)).copies
    228
    """
    _check_errors(epsilon, delta)
    _check_size(size)
    _check_coverage(coverage)
    noise = _check_options(variant, noise, test)
    kind, level = _in_use(noise)
    if checks.is_traced(level):
        checks.refuse("noise", "be known when copies are planned", noise)
    _check_local(kind, size, coverage == 1)
    if test == "zero":
        if kind != "none":
            checks.refuse("noise", "be none in a test of zero", noise)
        hit, _ = _law(size, coverage, variant, kind, level)
        return _cost(math.ceil(_rounded(-math.log(delta) / (epsilon * hit))), size, variant, kind)
    copies = math.ceil(_rounded(_real_copies(epsilon, delta, size, coverage, variant, kind, level)))
    return _cost(copies, size, variant, kind)


def plan_subset_audit(
    epsilon: float, delta: float, size: int, coverage: float = 1.0, test: str = "estimate"
) -> TiePlan:
    """How many bits `subset_audit` sends, so that it sees as many pairs as are needed on average.

    Args:
      epsilon: error allowed of the fraction, in (0, 1).
      delta: probability with which it may be larger, in (0, 1).
      size: P, coordinates, at least 2.
      coverage: 2 M / P, in (0, 1].
      test: "estimate" or "zero", as in `plan_tie_audit`.

    Returns:
      m = 1/2 + sqrt(1/4 + 2 (P - 1) K / coverage) bits, rounded up and P at most, with K the pairs
      of a perfect matching that are needed without noise. Of m random signs
      coverage m (m - 1) / (2 (P - 1)) pairs are seen on average; the interval of a run counts
      those that were.

    Raises:
      TypeError, ValueError: if an argument is out of its domain.

    >>> plan_subset_audit(0.1, 0.05, 2**20).bits, plan_subset_audit(0.1, 0.05, 2**10).bits
    (19698, 616)
    """
    _check_errors(epsilon, delta)
    _check_size(size)
    _check_coverage(coverage)
    checks.one_of("test", test, TESTS)
    wanted = -math.log(delta) / epsilon if test == "zero" else _needed(epsilon, delta)
    signs = _real_signs(math.ceil(_rounded(wanted)) / coverage, size)
    return TiePlan(0, 0, 0, min(math.ceil(_rounded(signs)), size))


def none_probability(size: int, sent: int) -> float:
    """The probability that m random signs hold both ends of no pair of a perfect matching.

    Args:
      size: P, even.
      sent: m, from 0 to P.

    Returns:
      The product over i < m of (P - 2i) / (P - i), about exp(-m^2 / (2 P)).

    Raises:
      ValueError: if a number is outside its domain.

    >>> round(none_probability(10**6, 1000), 4)
    0.6065
    """
    _check_size(size)
    if size % 2:
        checks.refuse("size", "be even", size)
    if not _is_integer(sent) or not 0 <= sent <= size:
        checks.refuse("sent", f"be an integer from 0 to {size}", sent)
    if 2 * sent > size:
        return 0.0
    drawn = np.arange(sent, dtype=float)
    return math.exp(math.fsum(np.log1p(-drawn / (size - drawn))))


def crossover_size(
    epsilon: float, delta: float, *, noise: TieNoise | None = None, test: str = "estimate"
) -> int | None:
    """The smallest size at which `tie_audit` sends fewer qubits than `subset_audit` sends bits.

    A little beyond it there may be sizes at which it does not, as n steps up at powers of two.

    Args:
      epsilon: error allowed of the fraction, in (0, 1).
      delta: probability with which it may be larger, in (0, 1).
      noise: of the qubits, whose values must be known; None for none.
      test: "estimate" or "zero".

    Returns:
      P, with a perfect matching: even, and a power of two if noise is local. None if there is none
      up to 2^200, as for a local noise that takes more copies than sqrt(P).

    Raises:
      TypeError, ValueError: if an argument is out of its domain.

    >>> crossover_size(0.1, 0.05)
    20808
    """
    noise = _check_options("message", noise, test)
    kind, level = _in_use(noise)

    def wins(size: int) -> bool:
        quantum = plan_tie_audit(epsilon, delta, size, noise=noise, test=test)
        bits = plan_subset_audit(epsilon, delta, size, test=test).bits
        return quantum.qubits + quantum.bits < bits

    def nearly_wins(size: int) -> bool:
        """Without rounding: true wherever `wins` is."""
        if test == "zero":
            copies = wanted = -math.log(delta) / epsilon
        else:
            copies = _real_copies(epsilon, delta, size, 1.0, "message", kind, level)
            wanted = _needed(epsilon, delta)
        signs = _real_signs(math.ceil(wanted), size) + 1
        return (size - 1).bit_length() * copies * (1 - 1e-9) < signs

    wins(2)  # checks the arguments
    for n in range(1, 201):
        if kind == "local":
            if wins(2**n):
                return 2**n
            continue
        # Even sizes of n qubits. The copies that a global mix takes grow with the size, and faster
        # than the rival's bits beyond a share of (1 - p) / p.
        first, last = max(2 ** (n - 1) + 2, 2), 2**n
        if n <= 2:
            first = 2**n
        peak = last
        if kind == "global" and level > 0.5:
            peak = min(max(int((1 - level) / level * last) // 2 * 2, first), last)
        if not nearly_wins(peak):
            continue
        low, high = first // 2, peak // 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if nearly_wins(2 * middle) else (middle + 1, high)
        size = 2 * low
        while size <= last and nearly_wins(size):
            if wins(size):
                return size
            size += 2
    return None


# --- Audits ---------------------------------------------------------------------------------------


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
    noise = _check_options(variant, noise, test)
    kind, level = _in_use(noise)
    signs, matching = _check_task(signs, matching)
    size, coverage = signs.shape[0], 2 * matching.shape[0] / signs.shape[0]
    _check_local(kind, size, coverage == 1)
    name, _ = checks.exactly_one(epsilon=epsilon, copies=copies)
    if name == "epsilon":
        assert epsilon is not None
        plan = plan_tie_audit(epsilon, delta, size, coverage, variant, noise, test)
        _check_copies(plan.copies)
    else:
        _check_delta(delta)
        if test == "zero" and kind != "none":
            checks.refuse("noise", "be none in a test of zero", noise)
        plan = _cost(_check_copies(copies), size, variant, kind)
    outcomes = _sample(
        key, signs < 0, matching, level, kind=kind, copies=plan.copies, variant=variant
    )
    _, contrast = _law(size, coverage, variant, kind, level)
    offset = _offset(signs < 0, level) if kind == "local" else 0.0
    hits = jnp.sum(outcomes.sign != 0, dtype=jnp.int32)
    minus = jnp.sum(outcomes.sign < 0, dtype=jnp.int32)
    found = _estimate(minus, hits, contrast, offset, delta)
    return TieResult(*found, hits, *plan)


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
        _check_delta(delta)
        if not _is_integer(bits) or not 1 <= bits <= size:  # type: ignore[operator]
            checks.refuse("bits", f"be an integer from 1 to {size}", bits)
        plan = TiePlan(0, 0, 0, int(bits))  # type: ignore[arg-type]
    minus, hits = _sample_subset(key, signs < 0, matching, sent=plan.bits)
    found = _estimate(minus, hits, 1.0, 0.0, delta)
    return TieResult(*found, hits, *plan)


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
    kind, level = _in_use(_check_options(variant, noise, "estimate"))
    signs, matching = _check_task(signs, matching)
    copies = _check_copies(copies)
    perfect = 2 * matching.shape[0] == signs.shape[0]
    if relabel:
        _check_local("local", signs.shape[0], perfect)
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
    size, n = negative.shape[0], _qubits(negative.shape[0])
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
        pair = jax.random.randint(index_key, shape, 0, matching.shape[0])
        i, j = matching[pair, 0], matching[pair, 1]
        shift_key, other_key = jax.random.split(label_key)
        difference = jax.random.randint(shift_key, shape, 1, levels)
        moved = (flips != 0) & (flips != difference)
        k, m = _draw_disjoint(other_key, i, j, size)
        minus = jnp.where(moved, negative[k] ^ negative[m], negative[i] ^ negative[j])
    else:
        drawn = jax.random.randint(index_key, shape, 0, size)
        white = jnp.zeros(shape, bool)
        if kind == "global":
            white_key, noise_key = jax.random.split(noise_key)
            white = jax.random.bernoulli(white_key, level, shape)
            drawn = jnp.where(white, jax.random.randint(noise_key, shape, 0, levels), drawn)
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
        announced = jax.random.randint(announce_key, shape, 0, levels)
        measured = minus ^ _odd(announced & difference)  # of Z^a |psi>
        minus = measured ^ _odd(announced & difference)  # as Bob corrects it
    sign = jnp.where(pair < 0, 0, jnp.where(minus, -1, 1)).astype(jnp.int8)
    return Outcomes(pair, sign, announced)


@functools.partial(jax.jit, static_argnames="sent")
def _sample_subset(
    key: jax.Array, negative: jax.Array, matching: jax.Array, *, sent: int
) -> tuple[jax.Array, jax.Array]:
    size = negative.shape[0]
    chosen = jax.random.permutation(key, size)[:sent]
    inside = jnp.zeros(size, bool).at[chosen].set(True)
    seen = inside[matching[:, 0]] & inside[matching[:, 1]]
    minus = seen & (negative[matching[:, 0]] ^ negative[matching[:, 1]])
    return jnp.sum(minus, dtype=jnp.int32), jnp.sum(seen, dtype=jnp.int32)


def _draw_paulis(
    key: jax.Array, n: int, copies: int, survival: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """(K,) a and (K,) b of errors X^a Z^b: a qubit that is lost gets one of four at random."""
    lost_key, pauli_key = jax.random.split(key)
    lost = ~jax.random.bernoulli(lost_key, survival, (n, copies))
    places = jnp.left_shift(1, jnp.arange(n, dtype=jnp.int32))
    mask = jnp.sum(jnp.where(lost, places[:, None], 0), axis=0, dtype=jnp.int32)
    flips, phases = jax.random.randint(pauli_key, (2, copies), 0, 2**n)
    return flips & mask, phases & mask


def _draw_disjoint(
    key: jax.Array, i: jax.Array, j: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """Two different indices that are neither i nor j, uniformly; of no meaning for P = 2."""
    if size < 4:
        return i, j
    first_key, second_key = jax.random.split(key)
    low, high = jnp.minimum(i, j), jnp.maximum(i, j)
    k = jax.random.randint(first_key, i.shape, 0, size - 2)
    k += (k >= low).astype(k.dtype)
    k += (k >= high).astype(k.dtype)
    m = jax.random.randint(second_key, i.shape, 0, size - 3)
    for taken in (
        jnp.minimum(low, k),
        jnp.maximum(low, jnp.minimum(high, k)),
        jnp.maximum(high, k),
    ):
        m += (m >= taken).astype(m.dtype)
    return k, m


def _odd(bits: jax.Array) -> jax.Array:
    return lax.population_count(bits) % 2 == 1


# --- The law of a copy ----------------------------------------------------------------------------


def _qubits(size: int) -> int:
    """The n = ceil(log2 P) of a copy."""
    return (size - 1).bit_length()


def _law(size: int, coverage: float, variant: str, kind: str, level: Any) -> tuple[Any, Any]:
    """Probability h of a hit, and the contrast w of its sign."""
    n = _qubits(size)
    share = size / 2**n
    signal = coverage * share if variant == "steered" else coverage
    if kind == "global":
        hit = (1 - level) * signal + level * coverage * share
        return hit, (1 - level) * signal / hit
    if kind == "local":
        alone, rest = _weights(size, level)
        # In shares of P, whose square is too large for an integer.
        return 1.0, alone + (2 * rest / (size - 2) / (size - 3) if size > 2 else 0.0)
    return signal, 1.0


def _weights(size: int, survival: Any) -> tuple[Any, Any]:
    """C0 and T - C0, with numerators and denominators divided by P."""
    n = _qubits(size)
    alone = (((1 + 3 * survival) / 4) ** n - ((1 + survival) / 4) ** n) / (1 - 1 / size)
    total = (((1 + survival) / 2) ** n - 1 / size) / (1 - 1 / size)
    return alone, total - alone


def _offset(negative: jax.Array, survival: Any) -> ArrayLike:
    """() what the pairs that are not Bob's add to the mean sign."""
    size = negative.shape[0]
    if size < 4:
        return 0.0
    mean = 1 - 2 * jnp.sum(negative, dtype=jnp.int32) / size
    mean_product = mean**2 * (1 - 4 / size) + (4 - size) / size**2
    return _weights(size, survival)[1] * mean_product / ((1 - 2 / size) * (1 - 3 / size))


def _estimate(
    minus: jax.Array, hits: jax.Array, contrast: Any, offset: Any, delta: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    seen = jnp.maximum(hits, 1).astype(float)
    fraction = (1 - (1 - 2 * minus / seen - offset) / contrast) / 2
    width = jnp.sqrt(jnp.log(2 / jnp.asarray(delta, seen.dtype)) / (2 * seen)) / contrast
    fraction = jnp.where(hits > 0, fraction, 0.5)
    width = jnp.where(hits > 0, width, 0.5)
    return fraction, jnp.clip(fraction - width, 0, 1), jnp.clip(fraction + width, 0, 1)


def _needed(epsilon: float, delta: float) -> float:
    """Hits that are enough without noise."""
    return math.log(2 / delta) / (2 * epsilon**2)


def _real_copies(
    epsilon: float, delta: float, size: int, coverage: float, variant: str, kind: str, level: Any
) -> float:
    hit, contrast = _law(size, coverage, variant, kind, level)
    if contrast * epsilon < 1e-140:
        checks.refuse("epsilon", "be such that 1e280 copies are enough", epsilon)
    exponent = 2 * (contrast * epsilon) ** 2
    if hit < 1:
        exponent = -math.log1p(hit * math.expm1(-exponent))
    return math.log(2 / delta) / exponent


def _real_signs(pairs: float, size: int) -> float:
    return 0.5 + math.sqrt(0.25 + 2 * (size - 1) * pairs)


def _rounded(count: float) -> float:
    """A count before it is rounded up: 0.1 is no binary fraction, 10 may be 10.000000000000002."""
    return count * (1 - 1e-12)


def _cost(copies: int, size: int, variant: str, kind: str) -> TiePlan:
    n = _qubits(size)
    total = n + 1 if kind == "local" else 0
    if variant == "steered":
        return TiePlan(copies, 0, n * copies, n * copies + total)
    return TiePlan(copies, n * copies, 0, total)


# --- Checks ---------------------------------------------------------------------------------------


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_open(name: str, value: Any) -> None:
    if checks.is_traced(value):
        checks.refuse(name, "be known, as it sets how many copies there are", value)
    checks.within(name, value)
    if np.ndim(value) or not 0 < value < 1:
        checks.refuse(name, "be one number strictly between 0 and 1", value)


def _check_errors(epsilon: float, delta: float) -> None:
    _check_open("epsilon", epsilon)
    _check_open("delta", delta)


def _check_delta(delta: Any) -> None:
    if not checks.is_traced(delta):
        _check_open("delta", delta)


def _check_size(size: int) -> None:
    if not _is_integer(size) or size < 2:
        checks.refuse("size", "be an integer of at least 2", size)


def _check_coverage(coverage: float) -> None:
    checks.within("coverage", coverage)
    if coverage == 0:
        checks.refuse("coverage", "be positive", coverage)


def _check_copies(copies: Any) -> int:
    if not _is_integer(copies) or not 1 <= copies <= _MOST:
        checks.refuse("copies", f"be an integer from 1 to {_MOST}", copies)
    return int(copies)


def _check_options(variant: str, noise: TieNoise | None, test: str) -> TieNoise:
    checks.one_of("variant", variant, VARIANTS)
    checks.one_of("test", test, TESTS)
    if noise is None:
        return TieNoise()
    checks.instance("noise", noise, TieNoise)
    for name, value in (("global_mix", noise.global_mix), ("local_survival", noise.local_survival)):
        if value is not None and np.ndim(value):
            checks.refuse(name, "be one number", value)
    return noise


def _check_local(kind: str, size: int, perfect: bool) -> None:
    if kind == "local" and (size & (size - 1) or not perfect):
        got = f"{size} signs" + ("" if perfect else " and a matching that leaves some out")
        rule = "`signs` must be a power of two in number and all be matched if noise is local"
        raise ValueError(f"{rule}, but got {got}.")


def _in_use(noise: TieNoise) -> tuple[str, Any]:
    """The kind of noise and its level: a float if it is known."""
    used: dict[str, Any] = {}
    for name, value, nothing in (
        ("global_mix", noise.global_mix, 0.0),
        ("local_survival", noise.local_survival, 1.0),
    ):
        if value is None:
            continue
        if checks.is_traced(value):
            used[name] = value
            continue
        checks.within(name, value)
        if np.any(np.asarray(value) == 1 - nothing):
            checks.refuse(name, "lie in [0, 1)" if nothing == 0 else "lie in (0, 1]", value)
        if np.any(np.asarray(value) != nothing):
            used[name] = value if np.ndim(value) else float(value)  # type: ignore[arg-type]
    if len(used) == 2:
        rule = "`global_mix` or `local_survival` must be in use, one of them at most"
        raise ValueError(f"{rule}, but got both.")
    for name, value in used.items():
        return name.split("_")[0], value
    return "none", 0.0


def _check_task(signs: ArrayLike, matching: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Signs (P,) and pairs (M, 2) int32."""
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
    return jnp.asarray(signs), jnp.asarray(matching, jnp.int32)
