"""What TieAudit and its rival cost, and where the one begins to cost less than the other.

The protocol, its noise and the formulas used here are in `jaxqring.audit._tie_audit`.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from jaxqring import _checks as checks

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
            in_use(self)


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
    check_errors(epsilon, delta)
    check_size(size)
    check_coverage(coverage)
    noise = check_options(variant, noise, test)
    kind, level = in_use(noise)
    if checks.is_traced(level):
        checks.refuse("noise", "be known when copies are planned", noise)
    check_local(kind, size, coverage == 1)
    if test == "zero":
        if kind != "none":
            checks.refuse("noise", "be none in a test of zero", noise)
        hit, _ = hit_law(size, coverage, variant, kind, level)
        return cost_of(math.ceil(rounded(-math.log(delta) / (epsilon * hit))), size, variant, kind)
    copies = math.ceil(rounded(real_copies(epsilon, delta, size, coverage, variant, kind, level)))
    return cost_of(copies, size, variant, kind)


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
    check_errors(epsilon, delta)
    check_size(size)
    check_coverage(coverage)
    checks.one_of("test", test, TESTS)
    wanted = -math.log(delta) / epsilon if test == "zero" else pairs_needed(epsilon, delta)
    signs = real_signs(math.ceil(rounded(wanted)) / coverage, size)
    return TiePlan(0, 0, 0, min(math.ceil(rounded(signs)), size))


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
    check_size(size)
    if size % 2:
        checks.refuse("size", "be even", size)
    if not is_integer(sent) or not 0 <= sent <= size:
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
    noise = check_options("message", noise, test)
    kind, level = in_use(noise)

    def wins(size: int) -> bool:
        quantum = plan_tie_audit(epsilon, delta, size, noise=noise, test=test)
        bits = plan_subset_audit(epsilon, delta, size, test=test).bits
        return quantum.qubits + quantum.bits < bits

    def nearly_wins(size: int) -> bool:
        """Without rounding: true wherever `wins` is."""
        if test == "zero":
            copies = wanted = -math.log(delta) / epsilon
        else:
            copies = real_copies(epsilon, delta, size, 1.0, "message", kind, level)
            wanted = pairs_needed(epsilon, delta)
        signs = real_signs(math.ceil(wanted), size) + 1
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


def index_qubits(size: int) -> int:
    """The n = ceil(log2 P) of a copy."""
    return (size - 1).bit_length()


def hit_law(size: int, coverage: float, variant: str, kind: str, level: Any) -> tuple[Any, Any]:
    """Probability h of a hit, and the contrast w of its sign."""
    n = index_qubits(size)
    share = size / 2**n
    signal = coverage * share if variant == "steered" else coverage
    if kind == "global":
        hit = (1 - level) * signal + level * coverage * share
        return hit, (1 - level) * signal / hit
    if kind == "local":
        alone, rest = local_weights(size, level)
        # In shares of P, whose square is too large for an integer.
        return 1.0, alone + (2 * rest / (size - 2) / (size - 3) if size > 2 else 0.0)
    return signal, 1.0


def local_weights(size: int, survival: Any) -> tuple[Any, Any]:
    """C0 and T - C0, with numerators and denominators divided by P."""
    n = index_qubits(size)
    alone = (((1 + 3 * survival) / 4) ** n - ((1 + survival) / 4) ** n) / (1 - 1 / size)
    total = (((1 + survival) / 2) ** n - 1 / size) / (1 - 1 / size)
    return alone, total - alone


def pairs_needed(epsilon: float, delta: float) -> float:
    """Hits that are enough without noise."""
    return math.log(2 / delta) / (2 * epsilon**2)


def real_copies(
    epsilon: float, delta: float, size: int, coverage: float, variant: str, kind: str, level: Any
) -> float:
    """Copies of the state that are needed, before rounding."""
    hit, contrast = hit_law(size, coverage, variant, kind, level)
    if contrast * epsilon < 1e-140:
        checks.refuse("epsilon", "be such that 1e280 copies are enough", epsilon)
    exponent = 2 * (contrast * epsilon) ** 2
    if hit < 1:
        exponent = -math.log1p(hit * math.expm1(-exponent))
    return math.log(2 / delta) / exponent


def real_signs(pairs: float, size: int) -> float:
    """Signs of which a random subset holds so many pairs on average, before rounding."""
    return 0.5 + math.sqrt(0.25 + 2 * (size - 1) * pairs)


def rounded(count: float) -> float:
    """A count before it is rounded up: 0.1 is no binary fraction, 10 may be 10.000000000000002."""
    return count * (1 - 1e-12)


def cost_of(copies: int, size: int, variant: str, kind: str) -> TiePlan:
    """What so many copies cost."""
    n = index_qubits(size)
    total = n + 1 if kind == "local" else 0
    if variant == "steered":
        return TiePlan(copies, 0, n * copies, n * copies + total)
    return TiePlan(copies, n * copies, 0, total)


def is_integer(value: Any) -> bool:
    """Whether it is an integer, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_open(name: str, value: Any) -> None:
    """Refuses what is not known, or not strictly between 0 and 1."""
    if checks.is_traced(value):
        checks.refuse(name, "be known, as it sets how many copies there are", value)
    checks.within(name, value)
    if np.ndim(value) or not 0 < value < 1:
        checks.refuse(name, "be one number strictly between 0 and 1", value)


def check_errors(epsilon: float, delta: float) -> None:
    """Refuses errors out of range."""
    check_open("epsilon", epsilon)
    check_open("delta", delta)


def check_delta(delta: Any) -> None:
    """Refuses a known probability out of range."""
    if not checks.is_traced(delta):
        check_open("delta", delta)


def check_size(size: int) -> None:
    """Refuses a number of signs that is none."""
    if not is_integer(size) or size < 2:
        checks.refuse("size", "be an integer of at least 2", size)


def check_coverage(coverage: float) -> None:
    """Refuses a share of paired coordinates that is none."""
    checks.within("coverage", coverage)
    if coverage == 0:
        checks.refuse("coverage", "be positive", coverage)


def check_options(variant: str, noise: TieNoise | None, test: str) -> TieNoise:
    """Refuses unknown options; the noise, or none."""
    checks.one_of("variant", variant, VARIANTS)
    checks.one_of("test", test, TESTS)
    if noise is None:
        return TieNoise()
    checks.instance("noise", noise, TieNoise)
    for name, value in (("global_mix", noise.global_mix), ("local_survival", noise.local_survival)):
        if value is not None and np.ndim(value):
            checks.refuse(name, "be one number", value)
    return noise


def check_local(kind: str, size: int, perfect: bool) -> None:
    """Refuses local noise where no unbiased estimate is known."""
    if kind == "local" and (size & (size - 1) or not perfect):
        got = f"{size} signs" + ("" if perfect else " and a matching that leaves some out")
        rule = "`signs` must be a power of two in number and all be matched if noise is local"
        raise ValueError(f"{rule}, but got {got}.")


def in_use(noise: TieNoise) -> tuple[str, Any]:
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
