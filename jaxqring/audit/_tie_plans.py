"""Costs of TieAudit and its rival, their crossover, and the moments of a hit under noise.

By Hoeffding K copies are enough if 2 (1 - h (1 - exp(-2 w^2 eps^2)))^K <= delta, with h the
probability of a hit and w the contrast of its sign: that is K = ln(2 / delta) / (2 w^2 eps^2) for
h = 1, and about 1 / h times this otherwise.
"""

import math
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks
from jaxqring._types import TieTest, TieVariant

#: Noise in use: "fixed" is local noise without permuted labels.
NoiseKind: TypeAlias = Literal["none", "global", "local", "fixed"]
#: The largest number of coordinates, and of copies: both are counted in int32.
MAX_COUNT = 2**30


@struct.dataclass
class TieNoise:
    """Noise of the qubits that Bob measures, of at most one kind; a pytree.

    Attributes:
      global_mix: () weight p of the maximally mixed state of all n qubits, in [0, 1).
      local_survival: () lambda of every qubit, which is depolarized with probability 1 - lambda, in
        (0, 1].

    Raises:
      TypeError: if a concrete value is not real.
      ValueError: if a concrete value is out of range, or both kinds are in use. A concrete mix of 0
        or survival of 1 is not in use; a traced value is.
    """

    global_mix: ArrayLike | None = None
    local_survival: ArrayLike | None = None

    def __post_init__(self) -> None:
        # JAX rebuilds pytrees around other things than numbers, which are not checked.
        kinds = float | int | np.ndarray | np.generic | jax.Array | None
        if isinstance(self.global_mix, kinds) and isinstance(self.local_survival, kinds):
            in_use(self)


class TiePlan(NamedTuple):
    """The cost of an audit.

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


def plan_tie_audit(
    epsilon: float,
    delta: float,
    size: int,
    coverage: float = 1.0,
    variant: TieVariant = "message",
    noise: TieNoise | None = None,
    test: TieTest = "estimate",
) -> TiePlan:
    """Computes the number of copies that `tie_audit` needs, and their cost.

    Args:
      epsilon: tolerated error of the fraction, in (0, 1).
      delta: probability of a larger error, in (0, 1).
      size: P, coordinates, at least 2.
      coverage: 2 M / P, fraction of the coordinates that are in a pair, in (0, 1].
      variant: "message" sends the qubits, "steered" uses EPR pairs and sends bits.
      noise: of the qubits, with concrete values; None for perfect ones.
      test: "estimate" finds f to +-epsilon; "zero" tells f = 0 from f >= epsilon, by whether any
        sign was negative: always right in the first case, and with probability 1 - delta in the
        second.

    Returns:
      n K qubits for messages; n K pairs and n K bits otherwise; n + 1 more bits if noise is local.
      A test of zero takes K = ceil(ln(1 / delta) / (epsilon h)), with h the probability of a hit.

    Raises:
      TypeError: if a number is not real, or the noise not a `TieNoise`.
      ValueError: if an argument is out of range or traced; if noise is local and the size not a
        power of two or the coverage not 1; if there is noise in a test of zero.

    >>> plan_tie_audit(0.1, 0.05, 2**20)
    TiePlan(copies=185, qubits=3700, pairs=0, bits=0)
    >>> plan_tie_audit(0.1, 0.05, 2**20, noise=TieNoise(global_mix=0.1)).copies
    228
    """
    _check_task(epsilon, delta, size, coverage)
    noise = check_options(variant, noise, test)
    kind, strength = in_use(noise)
    if checks.is_traced(strength):
        checks.refuse("noise", "be concrete when copies are planned", noise)
    check_local(kind, size, coverage == 1)
    if test == "zero":
        if kind != "none":
            checks.refuse("noise", "have no effect in a test of zero", noise)
        hit, _ = hit_moments(size, coverage, variant, kind, strength)
        return cost_of(math.ceil(rounded(-math.log(delta) / (epsilon * hit))), size, variant, kind)
    copies = real_copies(epsilon, delta, size, coverage, variant, kind, strength)
    return cost_of(math.ceil(rounded(copies)), size, variant, kind)


def plan_subset_audit(
    epsilon: float, delta: float, size: int, coverage: float = 1.0, test: TieTest = "estimate"
) -> TiePlan:
    """Computes the number of bits with which `subset_audit` sees enough pairs on average.

    Args:
      epsilon: tolerated error of the fraction, in (0, 1).
      delta: probability of a larger error, in (0, 1).
      size: P, coordinates, at least 2.
      coverage: 2 M / P, in (0, 1].
      test: "estimate" or "zero", as in `plan_tie_audit`.

    Returns:
      m = 1/2 + sqrt(1/4 + 2 (P - 1) K / coverage) bits, rounded up and P at most, with K the pairs
      of a perfect matching that are needed without noise. Of m random signs
      coverage m (m - 1) / (2 (P - 1)) pairs are seen on average; the interval of a run follows from
      those that were.

    Raises:
      TypeError: if a number is not real.
      ValueError: if an argument is out of range or traced.

    >>> plan_subset_audit(0.1, 0.05, 2**20).bits, plan_subset_audit(0.1, 0.05, 2**10).bits
    (19698, 616)
    """
    _check_task(epsilon, delta, size, coverage)
    checks.one_of("test", test, get_args(TieTest))
    wanted = -math.log(delta) / epsilon if test == "zero" else pairs_needed(epsilon, delta)
    signs = real_signs(math.ceil(rounded(wanted)) / coverage, size)
    return TiePlan(0, 0, 0, min(math.ceil(rounded(signs)), size))


def none_probability(size: int, sent: int) -> float:
    """Probability that m random signs hold both ends of no pair of a perfect matching.

    Args:
      size: P, even.
      sent: m, from 0 to P.

    Returns:
      The product over i < m of (P - 2i) / (P - i), about exp(-m^2 / (2 P)).

    Raises:
      ValueError: if `size` is not an even positive integer, or `sent` not an integer in [0, P].

    >>> round(none_probability(10**6, 1000), 4)
    0.6065
    """
    if checks.integer("size", size, 2) % 2:
        checks.refuse("size", "be even", size)
    checks.integer("sent", sent, 0, size)
    if 2 * sent > size:
        return 0.0
    drawn = np.arange(sent, dtype=float)
    return math.exp(math.fsum(np.log1p(-drawn / (size - drawn))))


def crossover_size(
    epsilon: float, delta: float, *, noise: TieNoise | None = None, test: TieTest = "estimate"
) -> int | None:
    """The smallest size at which `tie_audit` sends fewer qubits than `subset_audit` sends bits.

    A little beyond it there may be sizes at which it does not, as n grows by one at powers of two.

    Args:
      epsilon: tolerated error of the fraction, in (0, 1).
      delta: probability of a larger error, in (0, 1).
      noise: of the qubits, with concrete values; None for perfect ones.
      test: "estimate" or "zero".

    Returns:
      P, with a perfect matching: even, and a power of two if noise is local. None if no P up to
      2^200 is large enough, as for a local noise that takes more copies than sqrt(P).

    Raises:
      TypeError, ValueError: as `plan_tie_audit`.

    >>> crossover_size(0.1, 0.05)
    20808
    """
    noise = check_options("message", noise, test)
    kind, strength = in_use(noise)

    def wins(size: int) -> bool:
        quantum = plan_tie_audit(epsilon, delta, size, noise=noise, test=test)
        bits = plan_subset_audit(epsilon, delta, size, test=test).bits
        return quantum.qubits + quantum.bits < bits

    def nearly_wins(size: int) -> bool:
        """`wins` without rounding: true wherever that is."""
        if test == "zero":
            copies = pairs = -math.log(delta) / epsilon
        else:
            copies = real_copies(epsilon, delta, size, 1.0, "message", kind, strength)
            pairs = pairs_needed(epsilon, delta)
        signs = real_signs(math.ceil(pairs), size) + 1
        return (size - 1).bit_length() * copies * (1 - 1e-9) < signs

    wins(2)  # checks the arguments
    for n in range(1, 201):
        if kind == "local":
            if wins(2**n):
                return 2**n
            continue
        # Even sizes of n qubits. The copies that a global mix takes grow with the size, and faster
        # than the rival's bits where the size is beyond a fraction (1 - p) / p of 2^n.
        least, most = (2**n if n <= 2 else 2 ** (n - 1) + 2), 2**n
        peak = most
        if kind == "global" and strength > 0.5:
            peak = min(max(int((1 - strength) / strength * most) // 2 * 2, least), most)
        if not nearly_wins(peak):
            continue
        low, high = least // 2, peak // 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if nearly_wins(2 * middle) else (middle + 1, high)
        size = 2 * low
        while size <= most and nearly_wins(size):
            if wins(size):
                return size
            size += 2
    return None


def index_qubits(size: int) -> int:
    """Qubits n = ceil(log2 P) of a copy."""
    return (size - 1).bit_length()


def hit_moments(
    size: int, coverage: float, variant: TieVariant, kind: NoiseKind, strength: Any
) -> tuple[Any, Any]:
    """Probability h of a hit, and the contrast w of its sign.

    A global mix of weight p hits with h = (1 - p) alpha + p 2M / 2^n and has w = (1 - p) alpha / h,
    where alpha is 2M / P, or 2M / 2^n if steered. With local noise and permuted labels every copy
    hits, and w = C0 + 2 (T - C0) / ((P - 2) (P - 3)); see `local_weights`.
    """
    filling = size / 2 ** index_qubits(size)
    signal = coverage * filling if variant == "steered" else coverage
    if kind == "global":
        hit = (1 - strength) * signal + strength * coverage * filling
        return hit, (1 - strength) * signal / hit
    if kind == "local":
        identity, moved = local_weights(size, strength)
        # In fractions of P, whose square is too large for an integer.
        return 1.0, identity + (2 * moved / (size - 2) / (size - 3) if size > 2 else 0.0)
    return signal, 1.0


def local_weights(size: int, survival: Any) -> tuple[Any, Any]:
    """C0 and T - C0: signal from the pair itself, and from a random pair disjoint from it.

    Labels are permuted before each copy, so that d = i ^ j is uniform over all but zero. For d of
    weight k the phases cancel all flips a but those off d, where each bit is 1 with probability
    (1 - lambda) / 2, and leave lambda^k. On average a = 0 has the weight
    C0 = (((1 + 3 lambda) / 2)^n - ((1 + lambda) / 2)^n) / (2^n - 1), and all a together
    T = ((1 + lambda)^n - 1) / (2^n - 1), here with numerators and denominators divided by P. The
    mean product of a disjoint pair is (S^2 (1 - 4 / P) + 4 - P + 2 (1 - 2f)) / ((P - 2) (P - 3))
    with S the sum of all signs (our derivation).
    """
    n = index_qubits(size)
    identity = (((1 + 3 * survival) / 4) ** n - ((1 + survival) / 4) ** n) / (1 - 1 / size)
    total = (((1 + survival) / 2) ** n - 1 / size) / (1 - 1 / size)
    return identity, total - identity


def pairs_needed(error: float, delta: float) -> float:
    """Number of hits that are enough without noise."""
    return math.log(2 / delta) / (2 * error**2)


def real_copies(
    error: float,
    delta: float,
    size: int,
    coverage: float,
    variant: TieVariant,
    kind: NoiseKind,
    strength: Any,
) -> float:
    """Number of copies of the state that are needed, before rounding."""
    hit, contrast = hit_moments(size, coverage, variant, kind, strength)
    if contrast * error < 1e-140:
        checks.refuse("epsilon", "be such that 1e280 copies are enough", error)
    exponent = 2 * (contrast * error) ** 2
    if hit < 1:
        exponent = -math.log1p(hit * math.expm1(-exponent))
    return math.log(2 / delta) / exponent


def real_signs(pairs: float, size: int) -> float:
    """Size of a random subset of signs that holds `pairs` pairs on average, before rounding."""
    return 0.5 + math.sqrt(0.25 + 2 * (size - 1) * pairs)


def rounded(count: float) -> float:
    """A count before it is rounded up, as 0.1 is not binary and 10 may be 10.000000000000002."""
    return count * (1 - 1e-12)


def cost_of(copies: int, size: int, variant: TieVariant, kind: NoiseKind) -> TiePlan:
    """The cost of a number of copies."""
    n = index_qubits(size)
    bits_of_sum = n + 1 if kind == "local" else 0
    if variant == "steered":
        return TiePlan(copies, 0, n * copies, n * copies + bits_of_sum)
    return TiePlan(copies, n * copies, 0, bits_of_sum)


def _check_task(epsilon: float, delta: float, size: int, coverage: float) -> None:
    checks.open_interval("epsilon", epsilon)
    checks.open_interval("delta", delta)
    checks.integer("size", size, 2)
    checks.within("coverage", coverage)
    if coverage == 0:
        checks.refuse("coverage", "be positive", coverage)


def check_delta(delta: ArrayLike) -> None:
    """Refuses a concrete probability that is not in (0, 1)."""
    if not checks.is_traced(delta):
        checks.open_interval("delta", delta)


def check_options(variant: TieVariant, noise: TieNoise | None, test: TieTest) -> TieNoise:
    """Refuses unknown options; returns the noise, or a `TieNoise` without effect for None."""
    checks.one_of("variant", variant, get_args(TieVariant))
    checks.one_of("test", test, get_args(TieTest))
    if noise is None:
        return TieNoise()
    checks.instance("noise", noise, TieNoise)
    for name, value in (("global_mix", noise.global_mix), ("local_survival", noise.local_survival)):
        if value is not None and np.ndim(value):
            checks.refuse(name, "be one number", value)
    return noise


def check_local(kind: NoiseKind, size: int, perfect: bool) -> None:
    """Refuses local noise where no unbiased estimate is known."""
    if kind == "local" and (size & (size - 1) or not perfect):
        got = f"{size} signs" + ("" if perfect else " and a matching that leaves some out")
        rule = "`signs` must be a power of two in number and all be matched if noise is local"
        raise ValueError(f"{rule}, but got {got}.")


def in_use(noise: TieNoise) -> tuple[NoiseKind, Any]:
    """The kind of noise and its strength, which is a float if it is concrete."""
    used: dict[NoiseKind, Any] = {}
    kinds: tuple[tuple[NoiseKind, str, ArrayLike | None, float], ...] = (
        ("global", "global_mix", noise.global_mix, 0.0),
        ("local", "local_survival", noise.local_survival, 1.0),
    )
    for kind, name, value, perfect in kinds:
        if value is None:
            continue
        if checks.is_traced(value):
            used[kind] = value
            continue
        checks.within(name, value)
        if np.any(np.asarray(value) == 1 - perfect):
            checks.refuse(name, "lie in [0, 1)" if perfect == 0 else "lie in (0, 1]", value)
        if np.any(np.asarray(value) != perfect):
            used[kind] = value if np.ndim(value) else float(value)  # type: ignore[arg-type]
    if len(used) == 2:
        rule = "`global_mix` or `local_survival` must be in use, one of them at most"
        raise ValueError(f"{rule}, but got both.")
    return next(iter(used.items()), ("none", 0.0))
