"""Secure sums: exact under masks, wrong by the law of the states, never delivered unverified."""

import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import PartitionSpec
from scipy.stats import binom, chi2, chisquare

from jaxqring import (
    FixedPoint,
    Float32,
    GHZSource,
    Retransmit,
    Ring,
    dephasing,
    depolarizing,
    pmean,
    psum,
    reed_solomon,
    secure_pmean,
    secure_psum,
    superdense,
    werner,
)
from jaxqring.codes import bch
from jaxqring.ring import _call as calls
from jaxqring.ring import _engine as engine
from jaxqring.secure import (
    Dropout,
    PlantedSource,
    Security,
    masks,
    plus_states,
    sum_error_law,
    view,
)

AXIS = "nodes"
KEY = jax.random.key(20260624)
BARE = Security("none")
STRONG = Retransmit(reed_solomon(255, 223))
RIVALS = {secure_psum: psum, secure_pmean: pmean}
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def quiet(bits=16, **options):
    return Ring(noise="off", wire=FixedPoint(bits), **options)


def noisy(fidelity, bits=16, **options):
    return Ring(superdense(werner(fidelity=fidelity)), FixedPoint(bits), **options)


def dephased(nodes, error_prob):
    """Copies that pass every Z test, with wrong sums."""
    return GHZSource(nodes, noise=dephasing(error_prob=error_prob))


# --- Per-node functions, one for each set of static options so that tests share programs ----------


def secure(call=secure_psum, security=Security(), **options):  # noqa: B008
    return secure_with(call, security, **options)


@functools.cache
def secure_with(call, security, **options):
    def run(x, ring, source, dropout, key):
        return call(
            x,
            AXIS,
            ring=ring,
            source=source,
            security=security,
            key=key,
            dropout=dropout,
            with_report=True,
            **options,
        )

    return run


@functools.cache
def plain(call=psum):
    def run(x, ring, key):
        return call(x, AXIS, ring=ring, key=key, with_report=True)

    return run


def first(report):
    """The report of one node, after a look at whether all nodes have the same."""
    for leaf in jax.tree.leaves(report):
        assert (np.asarray(leaf) == np.asarray(leaf)[:1]).all()
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], report)


def assert_same_bits(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def payload(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tree(*lead):
    """17 values a node, which no ring here divides."""
    return {
        "w": payload(*lead, 2, 5),
        "b": (payload(*lead, 3, seed=1).astype(jnp.bfloat16), payload(*lead, seed=2)),
        "none": jnp.zeros((*lead, 0)),
        "rest": payload(*lead, 3, seed=3),
    }


def codes_of(total, x, bits):
    """Sums as integers, by the step that the ring agrees on."""
    step = FixedPoint(bits).step(jnp.max(jnp.abs(x)), x.shape[0])
    return np.rint(np.asarray(total, np.float64) / float(step)).astype(np.int64)


# --- Identity -------------------------------------------------------------------------------------


def check_identity(mapping, x, ring, size, call=secure_psum, security=BARE, **options):
    """Bit for bit what the plain ring delivers, on every node, and the same report.

    Both draw from streams of their own: over noisy links the words sent again are not the same.
    """
    source, rival = dephased(size * ring.nodes_per_device, 0.0), RIVALS[call]
    run = mapping(secure(call, security, **options), size, shared=4)
    total, report = run(x, ring, source, None, KEY)
    expected, alike = mapping(plain(rival), size, shared=2)(x, ring, KEY)
    assert_same_bits(total, expected)
    drawn = ("retransmissions_per_link", "repeated_qubits", "online_qubits")
    if ring.noise == "off":
        assert_same_bits(report.ring, alike)
    else:
        none = dict.fromkeys(drawn)
        assert_same_bits(report.ring.replace(**none), alike.replace(**none))
        spent = report.ring.online_qubits - report.ring.repeated_qubits
        np.testing.assert_allclose(spent, alike.online_qubits - alike.repeated_qubits, rtol=1e-6)
    seen = first(report)
    assert (seen.aborted, seen.attempts, seen.failures, seen.restarts) == (False, 1, 0, 0)
    assert (seen.wrong_sums, seen.uncorrected) == (0, 0)
    assert seen.survivors == source.num_parties


def test_perfect_states_and_links_give_the_plain_sum_bit_for_bit(mapping_named):
    check_identity(mapping_named("shard_map_checked"), tree(3), quiet(), 3, security=Security())


@pytest.mark.matrix
@pytest.mark.parametrize("call", [secure_psum, secure_pmean])
def test_every_mapping_is_exact_under_masks(every_mapping, call):
    check_identity(every_mapping, tree(3), quiet(), 3, call)


@pytest.mark.matrix
@pytest.mark.parametrize("call", [secure_psum, secure_pmean])
@pytest.mark.parametrize("bits, nodes", [(4, 3), (8, 5), (12, 4), (32, 3), (32, 8)])
def test_every_width_is_exact_under_masks(vmapped, bits, nodes, call):
    check_identity(vmapped, tree(nodes), quiet(bits), nodes, call)


@pytest.mark.parametrize(
    "size, nodes", [(20, 3), further(1, 5), further(2, 5), further(6, 5), further(50, 5)]
)
def test_sizes_that_the_ring_does_not_divide_are_exact_under_masks(vmapped, size, nodes):
    check_identity(vmapped, payload(nodes, size), quiet(), nodes, security=Security())


@pytest.mark.matrix
def test_several_nodes_on_a_device_are_exact_under_masks(every_mapping):
    check_identity(every_mapping, tree(2, 2), quiet(nodes_per_device=2), 2)


@pytest.mark.matrix
def test_replicated_sums_are_exact_under_masks(every_mapping):
    check_identity(every_mapping, tree(3), quiet(), 3, replicated=True)


@pytest.mark.matrix
def test_masks_change_nothing_over_protected_links(mapping):
    check_identity(mapping, payload(3, 101), noisy(0.99, protection=STRONG), 3)


@pytest.mark.matrix
def test_a_replicated_sum_may_leave_shard_map_as_replicated(ring_mesh):
    run = secure(replicated=True)
    shared = quiet(), GHZSource(3), None, KEY
    total, report = jax.jit(
        jax.shard_map(
            lambda x: run(x[0], *shared),
            mesh=ring_mesh(3),
            in_specs=PartitionSpec(AXIS),
            out_specs=PartitionSpec(),
        )
    )(payload(3, 7))
    expected, _ = jax.vmap(lambda x: plain()(x, quiet(), None), axis_name=AXIS)(payload(3, 7))
    np.testing.assert_array_equal(total, expected[0])
    assert report.attempts == 1


# --- What travels ---------------------------------------------------------------------------------


def watched(monkeypatch, x, ring, source, key):
    """The sums, what each node sent (N, 2 (N - 1), c), and all masks (N, N, c), of a real call."""
    seen, nodes, bits = [], x.shape[0], ring.wire.bits
    chunk = x.shape[1] // nodes

    def spy(values, ring, key, plan):
        plan = plan._replace(keep_codes=True)
        result, counts, words = engine._with_trail(values, ring, key, plan)
        size, own = -(-chunk // ring.wire.lanes), plan.place.nodes()[0]

        def mask(number):
            each = ring.masks.lanes(own, number, size=size, bits=bits, nodes=nodes)
            # What the sum is off by is added by the node that starts with the chunk.
            off = jnp.where(number == own, ring.masks.errors[0], 0)
            return jnp.concatenate(each)[:chunk] + off

        sent = jax.vmap(lambda words: jnp.concatenate(ring.wire.part(words))[:chunk])
        seen.append((sent(words[:, 0]), jax.vmap(mask)(jnp.arange(nodes))))
        return result, counts

    monkeypatch.setattr(calls, "collective", spy)

    def node(x):
        total = secure_psum(x, AXIS, ring=ring, source=source, security=BARE, key=key)
        return total, *seen.pop()

    return jax.jit(jax.vmap(node, axis_name=AXIS))(x)


@pytest.mark.parametrize("nodes, bits", [(4, 8), further(3, 16), further(5, 12)])
def test_what_travels_is_what_view_says_and_uniform(monkeypatch, nodes, bits):
    """The engine and the audit tell one story, wrong sums of masks included.

    Of data that are all alike each node sends (N - 1) 4096 codes whose low byte is uniform on 256
    values by chi-square, which fails by chance with a probability below 1e-7 in all.
    """
    x = jnp.ones((nodes, 4096 * nodes))
    source = dephased(nodes, 0.001)
    total, sent, hidden = watched(monkeypatch, x, quiet(bits), source, KEY)
    step = FixedPoint(bits).step(jnp.max(jnp.abs(x)), nodes)
    codes = FixedPoint(bits).encode(x, step, nodes)
    hidden = hidden.reshape(nodes, -1)
    off = np.asarray(jnp.sum(hidden.astype(jnp.uint32), axis=0)) % 2**bits
    assert 0 < (off != 0).sum() < 0.1 * off.size
    for node in range(nodes):
        seen = view(((node + 1) % nodes,), codes, hidden, bits=bits)
        np.testing.assert_array_equal(seen.received[0], sent[node])
        reduced = np.asarray(sent[node][: nodes - 1])
        assert chisquare(np.bincount(reduced.reshape(-1) % 256, minlength=256)).pvalue > 1e-8
    expected = (codes.sum(axis=0) + off + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    np.testing.assert_array_equal(codes_of(total, x, bits), [expected] * nodes)


# --- Invariance -----------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("recovery", ["restart", "spare"])
def test_the_same_key_gives_the_same_bits_under_every_mapping(every_mapping, vmapped, recovery):
    source = GHZSource(4, noise=depolarizing(mix=0.003))
    security = Security("none", test_ratio=0.2, tolerance=0.1)
    arguments = payload(4, 101), noisy(0.97), source, Dropout(0.1, recovery), KEY
    run = secure(secure_pmean, security)
    got = every_mapping(run, 4, shared=4)(*arguments)
    assert_same_bits(got, vmapped(run, 4, shared=4)(*arguments))
    seen = first(got[1])
    assert seen.wrong_sums > 0
    assert seen.ring.symbol_errors > 0
    assert np.isfinite(got[0]).all()


@pytest.mark.matrix
def test_the_same_key_gives_the_same_bits_however_many_nodes_a_device_carries(vmapped):
    x, source = payload(4, 101), dephased(4, 0.01)
    rest = source, Dropout(0.1), KEY
    one, seen = vmapped(secure(), 4, shared=4)(x, noisy(0.97), *rest)
    paired = x.reshape(2, 2, -1)
    two, alike = vmapped(secure(), 2, shared=4)(paired, noisy(0.97, nodes_per_device=2), *rest)
    assert_same_bits(one, two.reshape(one.shape))
    assert_same_bits(first(seen), first(alike))


def test_other_keys_give_other_errors(vmapped):
    run = functools.partial(vmapped(secure(), 3, shared=4), payload(3, 20), quiet())
    totals = [run(dephased(3, 0.1), None, jax.random.key(seed))[0] for seed in range(2)]
    assert not np.array_equal(*totals)


# --- Wrong sums -----------------------------------------------------------------------------------


def summed_law(law, count):
    """The distribution of the sum mod 2^b of that many independent draws."""
    return np.fft.ifft(np.fft.fft(law) ** count).real


@pytest.mark.parametrize(
    "bits, security",
    [further(4, Security()), (4, BARE), further(6, Security(bucket=5)), further(6, BARE)],
)
def test_sums_are_off_by_the_law_of_the_masks(vmapped, bits, security):
    """60,000 coordinates; chi-square, to fail by chance with a probability of 1e-7."""
    nodes, source = 3, dephased(3, 0.02)
    x = payload(nodes, 60_000)
    total, report = vmapped(secure(security=security), nodes, shared=4)(
        x, quiet(bits), source, None, KEY
    )
    exact, _ = vmapped(plain(), nodes, shared=2)(x, quiet(bits), None)
    off = (codes_of(total[0], x, bits) - codes_of(exact[0], x, bits)) % 2**bits
    law = summed_law(np.asarray(sum_error_law(source.visibility, bits), float), security.summed)
    counts = np.bincount(off, minlength=2**bits)
    np.testing.assert_allclose(law.sum(), 1, atol=1e-5)
    statistic = np.sum((counts - off.size * law) ** 2 / (off.size * law))
    assert (off.size * law).min() > 5
    assert statistic < chi2.isf(1e-7, 2**bits - 1)
    seen = first(report)
    assert seen.wrong_sums == seen.uncorrected == (off != 0).sum()


def test_wrong_sums_are_those_of_the_masks_whatever_the_links_do(vmapped):
    x, source = payload(3, 3000), dephased(3, 0.02)
    run = vmapped(secure(), 3, shared=4)
    exact, still = run(x, quiet(), source, None, KEY)
    total, report = run(x, noisy(0.95), source, None, KEY)
    assert first(report).wrong_sums == first(still).wrong_sums > 0
    assert not np.array_equal(total, exact)


@pytest.mark.parametrize("size", [20, further(1), further(7)])
def test_only_coordinates_of_the_payload_are_counted_as_wrong(vmapped, size):
    """Chunks are padded: with 20 values of 3 nodes there is one coordinate of no value."""
    x, source = payload(3, size), dephased(3, 0.4)
    total, report = vmapped(secure(), 3, shared=4)(x, quiet(), source, None, KEY)
    exact, _ = vmapped(plain(), 3, shared=2)(x, quiet(), None)
    assert first(report).wrong_sums == (np.asarray(total) != np.asarray(exact))[0].sum()


# --- Correction -----------------------------------------------------------------------------------

CORRECTED = Security(correction=bch(63, 45, 3))


def test_few_wrong_sums_are_put_right(vmapped):
    """About 30 wrong sums in 892 words; more than three in one with a probability below 1e-4."""
    nodes, source = 3, dephased(3, 1e-5)
    x = payload(nodes, 40_000)
    run = vmapped(secure(security=CORRECTED), nodes, shared=4)
    total, report = run(x, quiet(8), source, None, KEY)
    exact, _ = vmapped(plain(), nodes, shared=2)(x, quiet(8), None)
    assert_same_bits(total, exact)
    seen = first(report)
    assert (seen.uncorrected, seen.aborted) == (0, False)
    wrong = 40_000 * (1 - float((1 - source.x_error) ** (3 * 8)))
    assert 0 < seen.wrong_sums < 3 * wrong
    assert seen.copies == 2 * CORRECTED.masks_needed(40_000)


def test_too_many_wrong_sums_abort_the_step(vmapped):
    run = vmapped(secure(security=CORRECTED), 3, shared=4)
    total, report = run(payload(3, 40_000), quiet(8), dephased(3, 0.01), None, KEY)
    seen = first(report)
    assert seen.aborted
    assert 0 < seen.uncorrected <= seen.wrong_sums
    assert seen.failures == 0  # Z tests see none of it
    assert np.isnan(total).all()


def test_a_single_sum_beyond_correction_aborts_the_step():
    """200 keys, 6 sums in three words of 7: all of a step is delivered, or nothing.

    A word has two sums of payload, and is beyond correction with two wrong ones of any kind.
    Exactly one sum stays wrong in 22% of the steps (from the binomial law of wrong sums), 44 of
    200, and in fewer than 5 with probability 2e-16.
    """
    security = Security("none", correction=bch(7, 4, 1))
    source = dephased(3, 0.005)
    x, (total, report) = over_keys(secure(security=security), 3, 200, quiet(8), source, None)
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], report)
    assert (seen.uncorrected == 1).sum() >= 5
    assert (seen.uncorrected == 0).sum() >= 5
    np.testing.assert_array_equal(seen.aborted, seen.uncorrected > 0)
    delivered = np.isfinite(total)
    np.testing.assert_array_equal(delivered.all(axis=(1, 2)), seen.uncorrected == 0)
    np.testing.assert_array_equal(delivered.any(axis=(1, 2)), seen.uncorrected == 0)
    exact, _ = jax.jit(jax.vmap(plain(), in_axes=(0, None, None), axis_name=AXIS))(
        x, quiet(8), None
    )
    for step in np.flatnonzero(seen.uncorrected == 0):
        assert_same_bits(total[step], exact)


# galois takes seconds to make the code.
def test_a_binary_decoder_finds_errors_mod_a_power_of_two_from_summed_syndromes():
    """What `Security` counts on: bit plane by bit plane, up to t errors of a BCH(63, 45)."""
    galois = pytest.importorskip("galois")
    code, bits, nodes = galois.BCH(63, 45), 4, 4
    assert code.t == CORRECTED.correction.t == 3
    generator = np.asarray(code.G).astype(np.int64)
    assert (generator[:, :45] == np.eye(45)).all()
    check = np.concatenate([generator[:, 45:].T, np.eye(18, dtype=np.int64)], axis=1)
    # The decoder is the table of all patterns within reach, whose syndromes are all different.
    number = 2 ** np.arange(18) @ check
    patterns = [p for weight in range(4) for p in itertools.combinations(range(63), weight)]
    table = {int(np.bitwise_xor.reduce(number[list(p)], initial=0)): p for p in patterns}
    assert len(table) == len(patterns)
    rng = np.random.default_rng(5)
    draw = jax.jit(lambda key: masks(key, GHZSource(nodes), 63, bits))
    for trial in range(40):
        weight = trial % 4
        error = np.zeros(63, np.int64)
        error[rng.choice(63, weight, replace=False)] = rng.integers(1, 16, weight)
        hidden = np.asarray(draw(jax.random.key(trial))).astype(np.int64)
        hidden[trial % nodes] += error
        published = hidden @ check.T % 16
        left = published.sum(axis=0) % 16
        found = np.zeros(63, np.int64)
        for plane in range(bits):
            bit = np.zeros(63, np.int64)
            bit[list(table[int(2 ** np.arange(18) @ (left % 2))])] = 1
            found += bit << plane
            rest = (left - check @ bit) % (16 >> plane)
            assert (rest % 2 == 0).all()
            left = rest // 2
        np.testing.assert_array_equal(found, error)


# --- Abort ----------------------------------------------------------------------------------------

BAD = GHZSource(3, noise=depolarizing(mix=0.2))


def train_state(x):
    """What a step may carry, for three nodes."""
    params = {"w": x, "half": x[:, :2].astype(jnp.bfloat16)}
    return {"params": params, "count": jnp.arange(3), "key": jnp.zeros((3, 2), jnp.uint32)}


def test_a_failed_verification_delivers_nothing_and_changes_nothing(vmap_first):
    security = Security(attempts=4)

    def step(state, gradient, source, key):
        update, report = secure_pmean(
            gradient,
            AXIS,
            ring=quiet(),
            source=source,
            security=security,
            key=key,
            with_report=True,
        )
        moved = jax.tree.map(lambda a, b: (a - b).astype(a.dtype), state["params"], update)
        new = {"params": moved, "count": state["count"] + 1, "key": state["key"] + 7}
        return report.keep(new, state), update, report

    state = train_state(payload(3, 20))
    run = vmap_first(step, 3, shared=2)
    gradient = train_state(payload(3, 20, seed=1))["params"]
    kept, update, report = run(state, gradient, BAD, KEY)
    assert_same_bits(kept, state)
    for leaf, own in zip(jax.tree.leaves(update), jax.tree.leaves(gradient), strict=True):
        assert leaf.dtype == own.dtype
        assert np.isnan(np.asarray(leaf, np.float32)).all()
    seen = first(report)
    assert seen.aborted
    assert (seen.attempts, seen.survivors) == (4, 3)
    assert seen.failures > 0
    assert seen.copies == 4 * 2 * security.masks_needed(22)
    # Nothing is left behind that would spoil the next step.
    moved, _, report = run(kept, gradient, dephased(3, 0.0), jax.random.key(1))
    assert not first(report).aborted
    assert np.asarray(moved["count"]).tolist() == [1, 2, 3]
    assert not np.array_equal(moved["params"]["w"], state["params"]["w"])


def test_apply_if_finite_skips_an_aborted_step(vmapped):
    optimizer = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), max_consecutive_errors=3)

    def step(params, gradient, state, source, key):
        update = secure_pmean(
            gradient, AXIS, ring=quiet(), source=source, security=Security(), key=key
        )
        update, state = optimizer.update(update, state, params)
        return optax.apply_updates(params, update), state

    run = vmapped(step, 3, shared=2)
    params, gradient = payload(3, 9), payload(3, 9, seed=1)
    state = jax.vmap(optimizer.init)(params)
    params, state = run(params, gradient, state, depolarized_by(0.0), jax.random.key(1))
    same, skipped = run(params, gradient, state, BAD, jax.random.key(2))
    assert_same_bits((same, skipped.inner_state), (params, state.inner_state))
    assert np.asarray(skipped.total_notfinite).tolist() == [1, 1, 1]
    moved, after = run(same, gradient, skipped, depolarized_by(0.0), jax.random.key(3))
    assert not np.array_equal(moved, params)
    assert np.asarray(after.notfinite_count).tolist() == [0, 0, 0]


def depolarized_by(mix):
    return GHZSource(3, noise=depolarizing(mix=mix))


def over_keys(run, nodes, count, *shared):
    """Runs a per-node function once for each of `count` keys: (count, N, ...)."""
    x = jnp.concatenate([jnp.eye(nodes), payload(nodes, 3)], axis=1)
    return x, every_key(run)(x, *shared, jax.random.split(KEY, count))


@functools.cache
def every_key(run):
    each = jax.vmap(run, in_axes=(0, None, None, None, None), axis_name=AXIS)
    return jax.jit(jax.vmap(each, in_axes=(None, None, None, None, 0)))


def assert_follows(outcomes, law):
    """Chi-square of outcomes, rare ones taken together, to fail by chance one time in 1e7."""
    count = len(outcomes)
    assert set(outcomes) <= set(law)
    assert abs(sum(law.values()) - 1) < 1e-6
    common = [kind for kind in law if count * law[kind] > 10]
    seen = np.array([outcomes.count(kind) for kind in common])
    mean = np.array([count * law[kind] for kind in common])
    rest = count - mean.sum()
    if rest > 10:
        seen, mean = np.append(seen, count - seen.sum()), np.append(mean, rest)
    else:
        assert count - seen.sum() < rest + 8 * math.sqrt(rest) + 12
    assert len(common) > 2
    assert np.sum((seen - mean) ** 2 / mean) < chi2.isf(1e-7, len(seen) - 1)


@pytest.mark.statistics
@pytest.mark.parametrize("tests, tolerance", [("z", 0.0), ("xy", 0.2), ("mixed", 0.2)])
def test_attempts_are_geometric_with_the_probability_to_pass(tests, tolerance):
    """2,000 keys."""
    source = depolarized_by(0.02 if tolerance == 0 else 0.04)
    security = Security("none", tests=tests, tolerance=tolerance)
    _, (total, report) = over_keys(secure(security=security), 3, 2000, quiet(4), source, None)
    z_share = {"z": 1.0, "xy": 0.0, "mixed": 1 / 3}[tests]
    along, across = (1 - (1 - float(e)) ** 4 for e in (source.disagreement, source.x_error))
    fails = z_share * along + (1 - z_share) * across
    passes = binom.cdf(math.floor(tolerance * 6), 6, fails)
    assert 0.3 < passes < 0.8
    law = {(n, False): passes * (1 - passes) ** (n - 1) for n in (1, 2, 3)}
    law[3, True] = (1 - passes) ** 3
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], report)
    assert_follows(list(zip(seen.attempts.tolist(), seen.aborted.tolist(), strict=True)), law)
    np.testing.assert_array_equal(seen.copies, 12 * seen.attempts)
    np.testing.assert_array_equal(np.isnan(total).all(axis=(1, 2)), seen.aborted)
    np.testing.assert_array_equal(np.isnan(total).any(axis=(1, 2)), seen.aborted)


def test_planted_copies_do_not_change_the_sums(vmapped):
    x = payload(3, 100)
    source = PlantedSource(GHZSource(3), plus_states(3), 1)
    total, report = vmapped(secure(), 3, shared=4)(x, quiet(), source, None, KEY)
    exact, _ = vmapped(plain(), 3, shared=2)(x, quiet(), None)
    assert not first(report).aborted
    assert_same_bits(total, exact)


# --- Nodes that vanish ----------------------------------------------------------------------------


@pytest.mark.parametrize("recovery", ["restart", further("spare")])
def test_without_a_dropout_nothing_changes(vmapped, recovery):
    x = tree(4)
    exact, alike = vmapped(secure(), 4, shared=4)(x, quiet(), GHZSource(4), None, KEY)
    total, report = vmapped(secure(), 4, shared=4)(
        x, quiet(), GHZSource(4), Dropout(0.0, recovery), KEY
    )
    assert_same_bits(total, exact)
    spares = 1 if recovery == "restart" else 1 + 4
    assert first(report).copies == spares * first(alike).copies
    assert_same_bits(report.replace(copies=None), alike.replace(copies=None))


def outcomes_of(nodes, prob, recovery):
    """{(attempts, restarts, survivors, aborted, sets of copies): probability}, by enumeration."""
    law = {}

    def follow(alive, attempts, restarts, sets, weight):
        attempts, sets = attempts + 1, sets + 1 + alive * (recovery == "spare")
        for gone in range(alive + 1):
            here = weight * binom.pmf(gone, alive, prob)
            left = alive - gone
            if gone <= (recovery == "spare"):
                end = attempts, restarts, left, left < 3, sets
            elif left < 3:
                end = attempts, restarts + 1, left, True, sets
            else:
                follow(left, attempts, restarts + 1, sets, here)
                continue
            law[end] = law.get(end, 0) + here

    follow(nodes, 0, 0, 0, 1.0)
    return law


@pytest.mark.parametrize("call", [further(secure_psum), secure_pmean])
@pytest.mark.parametrize("recovery", ["restart", further("spare")])
def test_sums_are_those_of_the_nodes_that_are_left(call, recovery):
    """2,000 keys. The first N values of node i are the unit vector i: they say who is left."""
    nodes, prob = 6, 0.15
    shared = quiet(), GHZSource(nodes), Dropout(prob, recovery)
    x, (total, report) = over_keys(secure(call, BARE), nodes, 2000, *shared)
    total = np.asarray(total)
    assert (total == total[:, :1])[~np.isnan(total)].all()
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], report)
    np.testing.assert_array_equal(np.isnan(total).all(axis=(1, 2)), seen.aborted)
    x = np.asarray(x, np.float64)
    for values, survivors, aborted in zip(total[:, 0], seen.survivors, seen.aborted, strict=True):
        assert aborted == (survivors < 3)
        if aborted:
            continue
        left = x[values[:nodes] != 0]
        assert len(left) == survivors
        # 13 bits are left for the codes of six nodes in 16.
        step = 2.0 ** math.ceil(math.log2(np.abs(left).max() / 4095))
        expected = np.rint(left / step).sum(axis=0) * step
        scale = 1 if call is secure_psum else survivors
        np.testing.assert_allclose(values, expected / scale, rtol=2e-7)

    size = x.shape[1]
    kinds = zip(
        *(np.asarray(leaf).tolist() for leaf in (seen.attempts, seen.restarts, seen.survivors)),
        seen.aborted.tolist(),
        (seen.copies / (2 * size)).tolist(),
        strict=True,
    )
    assert_follows(list(kinds), outcomes_of(nodes, prob, recovery))


def test_few_dropouts_cost_as_many_attempts_as_the_protocol_says():
    """(1 - p)^-N attempts (PROTOCOLS C2), to first order: who vanished stays away."""
    for prob in (1e-3, 1e-4):
        law = outcomes_of(8, prob, "restart")
        attempts = sum(kind[0] * weight for kind, weight in law.items())
        assert abs(attempts - (1 - prob) ** -8) < 70 * prob**2


@pytest.mark.parametrize("recovery", ["restart", further("spare")])
def test_where_everyone_vanishes_nothing_is_delivered(recovery):
    """Of 2,000 keys, to share a program."""
    shared = quiet(), GHZSource(6), Dropout(1.0, recovery)
    _, (total, report) = over_keys(secure(secure_pmean, BARE), 6, 2000, *shared)
    assert np.isnan(total).all()
    for name, value in {"aborted": True, "attempts": 1, "restarts": 1, "survivors": 0}.items():
        assert np.unique(getattr(report, name)).tolist() == [value]


# --- Derivatives ----------------------------------------------------------------------------------


def loss(call, x, ring, source, key, **options):
    """A number that weighs every coordinate on every node differently."""
    masked = {} if call is pmean else {"source": source, "security": Security()}

    def node(x):
        return call(x, AXIS, ring=ring, key=key, **masked, **options)

    return jnp.vdot(payload(*x.shape, seed=9), jax.vmap(node, axis_name=AXIS)(x))


@pytest.mark.parametrize("options", [{}, further({"dropout": Dropout(0.0)})], ids=["", "dropout"])
@pytest.mark.parametrize("fidelity", [further(1.0), 0.97])
def test_the_gradient_follows_the_data_through_masked_sums_and_bare_ones(fidelity, options):
    """Slope one up to the sum; then 1 - 2 f for each hop to a node, with bit flips f."""
    nodes, size = 3, 5
    x = payload(nodes, size)
    ring = noisy(fidelity) if fidelity < 1 else quiet()
    gradient = jax.jit(jax.grad(functools.partial(loss, secure_pmean, **options)))
    got = gradient(x, ring, GHZSource(nodes), KEY)
    weights = payload(nodes, size, seed=9)
    slope = 1 - 2 * (2 * (1 - fidelity) / 3)
    chunk = np.arange(size) // 2
    # The sum of chunk c is made on node c - 1, and reaches node j after that many hops.
    hops = (np.arange(nodes)[:, None] - (chunk - 1)) % nodes
    expected = np.sum(np.asarray(weights) * slope**hops, axis=0) / nodes
    np.testing.assert_allclose(got, np.tile(expected, (nodes, 1)), rtol=1e-5)
    assert np.abs(expected).min() > 0


@pytest.mark.parametrize(
    "wrap", [further(lambda f: f), jax.jit, further(jax.vmap)], ids=["eager", "jit", "vmap"]
)
def test_derivatives_of_the_noise_are_refused(wrap):
    x = payload(3, 5)

    def of_links(fidelity):
        return loss(secure_pmean, x, noisy(fidelity), GHZSource(3), KEY)

    def of_states(mix):
        return loss(secure_pmean, x, quiet(), depolarized_by(mix), KEY)

    for function, words in (
        (of_links, "`ring` must not be differentiated with respect to noise under masks"),
        (of_states, "`source` must not be differentiated through a secure collective"),
    ):
        given = jnp.full(2, 0.97) if wrap is jax.vmap else jnp.float32(0.97)
        with pytest.raises(ValueError, match=words):
            wrap(jax.grad(function))(given)


# --- Refusals -------------------------------------------------------------------------------------


def refused(nodes=3, x=1.0, *, call=secure_psum, **changes):
    given = {"ring": quiet(), "source": GHZSource(nodes), "security": Security(), "key": KEY}
    given |= changes
    node = functools.partial(call, axis_name=AXIS, **given)
    return jax.jit(jax.vmap(node, axis_name=AXIS))(jnp.full(nodes, x))


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"nodes": 2}, ValueError, ["`axis_name`", "at least 3 nodes", "2"]),
        ({"source": GHZSource(4)}, ValueError, ["`source`", "3 parties", "4"]),
        ({"source": werner(fidelity=1)}, TypeError, ["`source`", "GHZSource"]),
        ({"ring": Ring(noise="off", wire=Float32())}, ValueError, ["`ring.wire`", "FixedPoint"]),
        ({"ring": noisy(0.9, noise="gaussian")}, ValueError, ["`noise`", "under masks"]),
        ({"ring": noisy(0.9, noise="mean")}, ValueError, ["`noise`", "under masks"]),
        ({"ring": noisy(0.9, 8, derivative="exact")}, ValueError, ["`derivative`", "under masks"]),
        ({"ring": GHZSource(3)}, TypeError, ["`ring`", "Ring"]),
        ({"ring": quiet(2)}, ValueError, ["`wire.bits`", "guard bits"]),
        (
            {"security": Security("universal")},
            ValueError,
            ["`security.amplification`", "no universal hash", "universal"],
        ),
        ({"security": None}, TypeError, ["`security`", "Security", "None"]),
        ({"security": "bucket"}, TypeError, ["`security`", "Security"]),
        ({"dropout": 0.1}, TypeError, ["`dropout`", "Dropout", "0.1"]),
        ({"key": None}, TypeError, ["`key`"]),
        ({"key": jnp.zeros(2, jnp.uint32)}, TypeError, ["`key`", "typed"]),
        ({"key": jax.random.split(KEY, 2)}, ValueError, ["`key`"]),
    ],
)
@pytest.mark.parametrize("call", [secure_psum, further(secure_pmean)])
def test_malformed_calls_are_refused(call, changes, error, words):
    with pytest.raises(error) as refusal:
        refused(call=call, **changes)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_malformed_dropouts_are_refused():
    with pytest.raises(ValueError, match="`prob` must lie in"):
        Dropout(1.5)
    with pytest.raises(ValueError, match="`recovery` must be one of"):
        Dropout(0.1, "hope")


def twice(x, key, other=None):
    """Two secure sums, as in a step that sums two things."""
    given = {"ring": quiet(), "source": GHZSource(3), "security": BARE}
    one = secure_psum(x, AXIS, key=key, **given)
    return one, secure_pmean(x, AXIS, key=key if other is None else other, **given)


def test_one_key_for_two_sums_of_a_function_is_refused():
    x, key = payload(3, 4), jax.random.key(3)
    both = jax.vmap(twice, (0, None), axis_name=AXIS)
    known = jax.vmap(lambda x: twice(x, key), axis_name=AXIS)
    for run, arguments in ((both, (x, key)), (known, (x,)), (jax.jit(known), (x,))):
        with pytest.raises(ValueError, match="`key` must be used for one secure collective only"):
            jax.eval_shape(run, *arguments)
    keys = jax.random.split(key)
    jax.eval_shape(jax.vmap(lambda x: twice(x, keys[0], keys[1]), axis_name=AXIS), x)


@pytest.mark.matrix
def test_one_key_for_two_sums_is_refused_without_a_compiler():
    x, key = payload(3, 4), jax.random.key(3)
    run = jax.vmap(lambda x: twice(x, key), axis_name=AXIS)
    with pytest.raises(ValueError, match="`key` must be used for one secure collective only"):
        run(x)


def one_sum(x, key):
    return secure_psum(x, AXIS, ring=quiet(), source=dephased(3, 0.2), security=BARE, key=key)


def test_a_key_may_be_used_again_in_another_trace():
    x, key = payload(3, 4), jax.random.key(4)
    for _ in range(2):
        jax.eval_shape(jax.vmap(lambda x: one_sum(x, key), axis_name=AXIS), x)
        jax.eval_shape(jax.jit(jax.vmap(one_sum, (0, None), axis_name=AXIS)), x, key)


def test_every_step_of_a_scan_has_masks_of_its_own():
    x, run = payload(3, 4), jax.vmap(one_sum, (0, None), axis_name=AXIS)
    keys = jax.random.split(jax.random.key(4), 3)
    totals = jax.jit(lambda keys: lax.scan(lambda at, key: (at, run(x, key)), 0, keys)[1])(keys)
    assert len(np.unique(np.asarray(totals)[:, 0], axis=0)) == 3
    assert_same_bits(totals[1], jax.jit(run)(x, keys[1]))


def test_repeated_calls_trace_once():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, ring, source, dropout, key):
        each = jax.vmap(secure(), in_axes=(0, *[None] * 4), axis_name=AXIS)
        return each(x, ring, source, dropout, key)

    for seed, noise in ((0, 0.1), (1, 0.2), (2, 0.5)):
        given = noisy(1 - noise), depolarized_by(noise), Dropout(noise)
        total, report = jax.eval_shape(run, jnp.ones((3, 5)), *given, jax.random.key(seed))
        assert total.shape == (3, 5)
        assert report.attempts.shape == (3,)
