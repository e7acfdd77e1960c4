"""Verification: copies chosen at random after all were handed out are measured and shown.

* A "z" test measures all parties along Z: the outcomes must be equal. Secrecy rests on it.
* An "xy" test measures each along X or Y, an even number of them along Y: the outcomes must
  multiply to (-1)^(Y / 2). It bounds errors of the sum (McCutcheon et al., Nature Communications
  7, 13251 (2016), with two angles).
* "mixed" makes one test in three a "z" test, which is the strategy of largest gap for GHZ states
  (Li, Han and Zhu, arXiv:1909.08979).

Every party must commit its outcome before any setting or outcome of the others is opened: a party
that knows them can make the product of an "xy" test right whatever the state. A "z" test withstands
that, as the honest parties compare their own.
"""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jaxqring import _checks as checks
from jaxqring._types import CopyTests, Key, VerifySimulation
from jaxqring.physics.ghz import GHZSource, sample
from jaxqring.ring._axes import apart
from jaxqring.secure._attacks import PlantedSource
from jaxqring.secure._copy_sampling import failures_allowed
from jaxqring.secure._security import Z_SHARE


class Verification(NamedTuple):
    """The outcome of a verification.

    Attributes:
      passed: () bool, True if no more tests failed than are tolerated.
      failures: () int32 tests that failed.
      tested: copies that were tested.
      bad_kept: () int32 planted copies among the untested ones; nobody in the protocol knows.
    """

    passed: jax.Array
    failures: jax.Array
    tested: int
    bad_kept: jax.Array


def verify(
    key: Key,
    source: GHZSource | PlantedSource,
    num_kept: int,
    num_tested: int,
    *,
    tests: CopyTests = "z",
    tolerance: float = 0.0,
    bits: int = 1,
    simulate: VerifySimulation = "counts",
) -> Verification:
    """Tests a random part of the copies, and passes if few enough tests fail.

    Args:
      key: typed PRNG key; its choices are public once all outcomes are committed.
      source: of the copies.
      num_kept: untested copies, at least 0.
      num_tested: tested copies, at least 1.
      tests: "z", "mixed" or "xy".
      tolerance: fraction of the tests that may fail, in [0, 1/2).
      bits: qubit GHZ states that make one copy; a test measures all, and fails if one does.
      simulate: "outcomes" draws every outcome of every tested copy, "counts" the number of tests
        that fail; the distribution is the same, but for the float32 of `jax.random.binomial`.

    Returns:
      A `Verification`.

    Raises:
      TypeError: if `key` is not a typed PRNG key, or `source` is not a source.
      ValueError: if `key` is a batch of keys, a count is not an integer in range, an option is
        unknown, the tolerance is outside [0, 1/2), or more copies are planted than there are.

    >>> from jaxqring.secure import plus_states
    >>> bad = PlantedSource(GHZSource(4), plus_states(4))
    >>> done = verify(jax.random.key(1), bad, num_kept=1000, num_tested=1000)
    >>> bool(done.passed), int(done.bad_kept)
    (True, 1)
    """
    checks.prng_key("key", key)
    if not isinstance(source, PlantedSource):
        checks.instance("source", source, GHZSource)
    num_kept = checks.integer("num_kept", num_kept, 0)
    num_tested = checks.integer("num_tested", num_tested)
    bits = checks.integer("bits", bits)
    checks.one_of("tests", tests, get_args(CopyTests))
    checks.one_of("simulate", simulate, get_args(VerifySimulation))
    if not 0 <= tolerance < 0.5:
        checks.refuse("tolerance", "lie in [0, 0.5)", tolerance)
    if isinstance(source, PlantedSource) and source.count > num_kept + num_tested:
        rule = f"hide at most the {num_kept + num_tested} copies there are"
        checks.refuse("source", rule, source.count)
    subset_key, good_key, bad_key = jax.random.split(key, 3)
    bad_tested = _planted_and_tested(subset_key, source, num_kept, num_tested)
    draw_failures = _failures if simulate == "counts" else _shown_failures
    if isinstance(source, PlantedSource):
        tested = num_tested - bad_tested
        failures = draw_failures(good_key, source.honest, num_tested, tested, tests, bits)
        most = min(source.count, num_tested)
        failures += draw_failures(bad_key, source.bad, most, bad_tested, tests, bits)
        bad_kept = source.count - bad_tested
    else:
        tested = jnp.int32(num_tested)
        failures = draw_failures(good_key, source, num_tested, tested, tests, bits)
        bad_kept = jnp.int32(0)
    allowed = failures_allowed(num_tested, tolerance)
    return Verification(failures <= allowed, failures, num_tested, bad_kept)


def _planted_and_tested(
    key: Key, source: GHZSource | PlantedSource, num_kept: int, num_tested: int
) -> jax.Array:
    """() int32 number of planted copies in the random subset: hypergeometric."""
    if not isinstance(source, PlantedSource):
        return jnp.int32(0)
    total = num_kept + num_tested

    def plant(tested: jax.Array, draw: tuple) -> tuple[jax.Array, None]:
        planted_before, uniform = draw
        # Of the copies that no planted one has taken yet, num_tested - tested are tested ones.
        is_tested = uniform * (total - planted_before) < num_tested - tested
        return tested + is_tested.astype(jnp.int32), None

    uniform = jax.random.uniform(key, (source.count,))
    planted_before = jnp.arange(source.count)
    return lax.scan(plant, jnp.int32(0), (planted_before, uniform))[0]


def failure_probability(source: GHZSource, tests: CopyTests, bits: int = 1) -> jax.Array:
    """Probability () that one test of a copy of `bits` qubit GHZ states fails.

    >>> from jaxqring import depolarizing
    >>> source = GHZSource(4, noise=depolarizing(mix=0.05))
    >>> print(f"{1 - failure_probability(source, 'mixed'):.6f}")
    0.906065
    """
    checks.one_of("tests", tests, get_args(CopyTests))

    def of_any(error: jax.Array) -> jax.Array:
        # Compared, not clipped: `clip` halves the derivative at the edge, where there is no noise.
        error = jnp.where(error >= 0, jnp.where(error < 1, error, 1 - 2.0**-24), 0)
        return -jnp.expm1(bits * jnp.log1p(-error))

    along_z, across = of_any(source.disagreement), of_any(source.x_error)
    return Z_SHARE[tests] * along_z + (1 - Z_SHARE[tests]) * across


def _failures(
    key: Key, source: GHZSource, most: int, count: jax.Array, tests: CopyTests, bits: int
) -> jax.Array:
    """() int32 number of `count` tests that fail, drawn at once."""
    del most  # the arguments are those of `_shown_failures`
    error = failure_probability(source, tests, bits).astype(jnp.float32)
    kind = jax.random.key_impl(key)

    def draw(words: jax.Array, count: jax.Array, error: jax.Array) -> jax.Array:
        return jax.random.binomial(jax.random.wrap_key_data(words, impl=kind), count, error)

    data = jax.random.key_data(key)
    drawn = apart(draw, data, count.astype(jnp.float32), jnp.clip(error, 0, 1))
    return drawn.astype(jnp.int32)


def _shown_failures(
    key: Key, source: GHZSource, most: int, count: jax.Array, tests: CopyTests, bits: int
) -> jax.Array:
    """() int32 number of `count` tests, at most `most`, that fail by the announced outcomes."""
    axes_key, sample_key = jax.random.split(key)
    axes, expected = draw_tests(axes_key, most, source.num_parties, tests, bits)
    wrong = judge(sample(sample_key, source, axes), expected)
    tested = jnp.arange(most) < count
    return jnp.sum(jnp.any(wrong, axis=-1) & tested, dtype=jnp.int32)


def draw_tests(
    key: Key, copies: int, num_parties: int, tests: CopyTests, bits: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Draws the settings of random tests.

    Args:
      key: typed PRNG key.
      copies: number of copies to test.
      num_parties: N.
      tests: "z", "mixed" or "xy".
      bits: qubit GHZ states in a copy; all of one copy are tested alike, along Z or not.

    Returns:
      (copies, bits, N, 3) axes, as `sample` takes them, and (copies, bits) int8 the product of
      outcomes that a perfect state shows, 1 or -1, or 0 for a test along Z.
    """
    checks.one_of("tests", tests, get_args(CopyTests))
    kind_key, y_key = jax.random.split(key)
    along_z = jax.random.bernoulli(kind_key, Z_SHARE[tests], (copies, 1))
    along_y = jax.random.bernoulli(y_key, 0.5, (copies, bits, num_parties - 1))
    last_along_y = jnp.sum(along_y, axis=-1, keepdims=True) % 2 == 1
    along_y = jnp.concatenate([along_y, last_along_y], axis=-1)
    product = 1 - jnp.sum(along_y, axis=-1) % 4  # 1 or -1, as there are 0 or 2 mod 4 along Y
    across = jnp.stack([~along_y, along_y, jnp.zeros_like(along_y)], axis=-1)
    up = jnp.broadcast_to(jnp.array([False, False, True]), across.shape)
    axes = jnp.where(along_z[..., None, None], up, across)
    return axes.astype(float), jnp.where(along_z, 0, product).astype(jnp.int8)


def judge(outcomes: jax.Array, expected: jax.Array) -> jax.Array:
    """Compares announced outcomes with those of a perfect state.

    Args:
      outcomes: (..., N) as announced.
      expected: (...) as `draw_tests` returns them.

    Returns:
      (...) bool, True for a test that fails.
    """
    ones = jnp.sum(outcomes.astype(jnp.int32), axis=-1)
    unequal = (ones > 0) & (ones < outcomes.shape[-1])
    product = 1 - 2 * (ones % 2)
    return jnp.where(expected == 0, unequal, product != expected)
