"""Verification: some copies, chosen at random after all were handed out, are measured and shown.

* A "z" test measures all parties along Z: the outcomes must be equal. It is what secrecy needs.
* An "xy" test measures each along X or Y, an even number of them along Y: the outcomes must
  multiply to (-1)^(Y / 2). It bounds errors of the sum (McCutcheon et al., Nature Communications
  7, 13251 (2016), with two angles).
* "mixed" makes one test in three a "z" test, which is the strategy of largest gap for GHZ states
  (Li, Han and Zhu, arXiv:1909.08979).

Every party must commit its outcome before any setting or outcome of the others is opened: who
knows them can make the product of an "xy" test right whatever the state. A "z" test stands that, as
the honest parties compare their own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import _checks as checks
from jaxqring.physics.ghz import GHZSource, sample
from jaxqring.ring._axes import apart
from jaxqring.secure._attacks import PlantedSource
from jaxqring.secure._copy_sampling import failures_allowed
from jaxqring.secure._security import Z_SHARE

_SIMULATIONS = ("counts", "outcomes")


class Verification(NamedTuple):
    """What came of a verification.

    Attributes:
      passed: () bool.
      failures: () int32 tests that failed.
      tested: copies that were tested.
      bad_kept: () int32 planted copies among those that were kept; nobody in the protocol knows.
    """

    passed: jax.Array
    failures: jax.Array
    tested: int
    bad_kept: jax.Array


def verify(
    key: jax.Array,
    source: GHZSource | PlantedSource,
    num_kept: int,
    num_tested: int,
    *,
    tests: str = "z",
    tolerance: float = 0.0,
    bits: int = 1,
    simulate: str = "counts",
) -> Verification:
    """Tests a random part of the copies, and passes if few enough tests fail.

    Args:
      key: typed PRNG key; what it decides is public once all outcomes are committed.
      source: of the copies.
      num_kept: copies that are not measured, at least 0.
      num_tested: copies that are, at least 1.
      tests: "z", "mixed" or "xy".
      tolerance: fraction of the tests that may fail, in [0, 1/2).
      bits: qubit GHZ states that make one copy; a test measures all, and fails if one does.
      simulate: "outcomes" draws every outcome of every tested copy, "counts" how many tests fail;
        the distribution is the same, but for the float32 of `jax.random.binomial`.

    Raises:
      TypeError, ValueError: if an argument is none of these.

    >>> from jaxqring.secure._attacks import plus_states
    >>> bad = PlantedSource(GHZSource(4), plus_states(4))
    >>> done = verify(jax.random.key(1), bad, num_kept=1000, num_tested=1000)
    >>> bool(done.passed), int(done.bad_kept)
    (True, 1)
    """
    checks.prng_key("key", key)
    if not isinstance(source, PlantedSource):
        checks.instance("source", source, GHZSource)
    for name, count, least in (("num_kept", num_kept, 0), ("num_tested", num_tested, 1)):
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < least:
            checks.refuse(name, f"be an integer of at least {least}", count)
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1:
        checks.refuse("bits", "be a positive integer", bits)
    checks.one_of("tests", tests, tuple(Z_SHARE))
    checks.one_of("simulate", simulate, _SIMULATIONS)
    if not 0 <= tolerance < 0.5:
        checks.refuse("tolerance", "lie in [0, 0.5)", tolerance)
    if isinstance(source, PlantedSource) and source.count > num_kept + num_tested:
        rule = f"hide at most the {num_kept + num_tested} copies there are"
        checks.refuse("source", rule, source.count)
    subset, good_key, bad_key = jax.random.split(key, 3)
    bad_tested = _planted_and_tested(subset, source, num_kept, num_tested)
    fails = _failures if simulate == "counts" else _shown_failures
    if isinstance(source, PlantedSource):
        failures = fails(good_key, source.honest, num_tested, num_tested - bad_tested, tests, bits)
        most = min(source.count, num_tested)
        failures += fails(bad_key, source.bad, most, bad_tested, tests, bits)
        bad_kept = source.count - bad_tested
    else:
        failures = fails(good_key, source, num_tested, jnp.int32(num_tested), tests, bits)
        bad_kept = jnp.int32(0)
    allowed = failures_allowed(num_tested, tolerance)
    return Verification(failures <= allowed, failures, int(num_tested), bad_kept)


def _planted_and_tested(
    key: jax.Array, source: GHZSource | PlantedSource, num_kept: int, num_tested: int
) -> jax.Array:
    """() int32 how many planted copies the random subset holds: hypergeometric."""
    if not isinstance(source, PlantedSource):
        return jnp.int32(0)
    total = num_kept + num_tested

    def place(tested: jax.Array, step: tuple) -> tuple[jax.Array, None]:
        before, uniform = step
        # Of the places that are left, so many are tested.
        hit = uniform * (total - before) < num_tested - tested
        return tested + hit.astype(jnp.int32), None

    uniform = jax.random.uniform(key, (source.count,))
    placed = jnp.arange(source.count)
    return lax.scan(place, jnp.int32(0), (placed, uniform))[0]


def failure_probability(source: GHZSource, tests: str, bits: int = 1) -> jax.Array:
    """() probability that one test of a copy of `bits` qubit GHZ states fails.

    >>> from jaxqring.physics.channels import depolarizing
    >>> source = GHZSource(4, noise=depolarizing(mix=0.05))
    >>> print(f"{1 - failure_probability(source, 'mixed'):.6f}")
    0.906065
    """
    checks.one_of("tests", tests, tuple(Z_SHARE))

    def of_any(error: jax.Array) -> jax.Array:
        # Compared, not clipped: `clip` halves the derivative at the edge, where there is no noise.
        error = jnp.where(error >= 0, jnp.where(error < 1, error, 1 - 2.0**-24), 0)
        return -jnp.expm1(bits * jnp.log1p(-error))

    along_z, across = of_any(source.disagreement), of_any(source.x_error)
    return Z_SHARE[tests] * along_z + (1 - Z_SHARE[tests]) * across


def _failures(
    key: jax.Array, source: GHZSource, most: int, count: jax.Array, tests: str, bits: int
) -> jax.Array:
    """() int32 how many of `count` tests fail, drawn at once."""
    del most
    error = failure_probability(source, tests, bits).astype(jnp.float32)
    kind = jax.random.key_impl(key)

    def draw(words: jax.Array, count: jax.Array, error: jax.Array) -> jax.Array:
        return jax.random.binomial(jax.random.wrap_key_data(words, impl=kind), count, error)

    data = jax.random.key_data(key)
    drawn = apart(draw, data, count.astype(jnp.float32), jnp.clip(error, 0, 1))
    return drawn.astype(jnp.int32)


def _shown_failures(
    key: jax.Array, source: GHZSource, most: int, count: jax.Array, tests: str, bits: int
) -> jax.Array:
    """() int32 how many of `count` tests fail, by the outcomes that the parties announce."""
    axes_key, sample_key = jax.random.split(key)
    axes, expected = draw_tests(axes_key, most, source.num_parties, tests, bits)
    wrong = judge(sample(sample_key, source, axes), expected)
    tested = jnp.arange(most) < count
    return jnp.sum(jnp.any(wrong, axis=-1) & tested, dtype=jnp.int32)


def draw_tests(
    key: jax.Array, copies: int, parties: int, tests: str, bits: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Random tests.

    Args:
      key: typed PRNG key.
      copies: how many tests.
      parties: N.
      tests: "z", "mixed" or "xy".
      bits: qubit GHZ states in a copy; all of one copy are tested alike, along Z or not.

    Returns:
      (copies, bits, N, 3) axes, as `sample` takes them, and (copies, bits) int8 the product of
      outcomes that a perfect state shows, 1 or -1, or 0 for a test along Z.
    """
    checks.one_of("tests", tests, tuple(Z_SHARE))
    kind_key, y_key = jax.random.split(key)
    along_z = jax.random.bernoulli(kind_key, Z_SHARE[tests], (copies, 1))
    along_y = jax.random.bernoulli(y_key, 0.5, (copies, bits, parties - 1))
    last = jnp.sum(along_y, axis=-1, keepdims=True) % 2 == 1
    along_y = jnp.concatenate([along_y, last], axis=-1)
    product = 1 - jnp.sum(along_y, axis=-1) % 4  # 1 or -1, as there are 0 or 2 mod 4 along Y
    across = jnp.stack([~along_y, along_y, jnp.zeros_like(along_y)], axis=-1)
    up = jnp.broadcast_to(jnp.array([False, False, True]), across.shape)
    axes = jnp.where(along_z[..., None, None], up, across)
    return axes.astype(float), jnp.where(along_z, 0, product).astype(jnp.int8)


def judge(outcomes: jax.Array, expected: jax.Array) -> jax.Array:
    """(...) bool, which tests fail.

    Args:
      outcomes: (..., N) as announced.
      expected: (...) as of `draw_tests`.
    """
    ones = jnp.sum(outcomes.astype(jnp.int32), axis=-1)
    unequal = (ones > 0) & (ones < outcomes.shape[-1])
    product = 1 - 2 * (ones % 2)
    return jnp.where(expected == 0, unequal, product != expected)
