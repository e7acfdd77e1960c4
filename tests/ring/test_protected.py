"""Collectives over protected links: exact sums, equal replicas, honest reports, right slopes."""

import functools
import math

import codewords as ref
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from jaxqring import (
    BFloat16,
    FixedPoint,
    Float32,
    Retransmit,
    Ring,
    SymbolChannel,
    all_gather,
    all_reduce,
    pmean,
    psum,
    psum_scatter,
    reed_solomon,
    superdense,
    werner,
)
from jaxqring.codes import BlockCode, IdealCode, Unequal, secded
from jaxqring.ring import _hops as hops

AXIS = "nodes"
KEY = jax.random.key(20261122)
STRONG = Retransmit(reed_solomon(255, 223))
SMALL = reed_solomon(15, 11, symbol_bits=4)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def ring_of(fidelity, protection, **options):
    return Ring(superdense(werner(fidelity=fidelity)), protection=protection, **options)


def run_all(x, ring, key):
    """All four collectives, on a vector that no ring here divides, with their reports."""
    call = functools.partial(dict, ring=ring, key=key, with_report=True)
    num_nodes = lax.axis_size(AXIS) * ring.nodes_per_device
    even = x[..., : x.shape[-1] // num_nodes * num_nodes]
    parts = even.reshape(*x.shape[:-1], num_nodes, -1)
    return (
        psum(x, AXIS, **call()),
        pmean(x, AXIS, **call()),
        psum_scatter(parts, AXIS, **call()),
        all_gather(x[..., :11], AXIS, **call()),
    )


def run_psum(x, ring, key):
    return psum(x, AXIS, ring=ring, key=key, with_report=True)


def run_replicated(x, ring, key):
    return psum(x, AXIS, ring=ring, key=key, replicated=True, with_report=True)


def payload(num_nodes, size, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(num_nodes, size)), jnp.float32)


def assert_same_bits(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def first(report):
    """The report of one node, after a look at whether all nodes have the same."""
    for leaf in jax.tree.leaves(report):
        assert (np.asarray(leaf) == np.asarray(leaf)[:1]).all()
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], report)


# --- Identity: what arrives is exact --------------------------------------------------------------


def check_exact(mapping, num_nodes, wire, simulate):
    x = payload(num_nodes, 101)
    ring = ring_of(0.99, STRONG, wire=wire, simulate=simulate)
    protected = mapping(run_all, num_nodes, shared=2)(x, ring, KEY)
    exact = mapping(run_all, num_nodes, shared=2)(x, Ring(noise="off", wire=wire), None)
    pairs = zip(protected, exact, strict=True)
    for number, ((got, report), (expected, quiet)) in enumerate(pairs):
        assert_same_bits(got, expected)
        seen = first(report)
        assert seen.undelivered == 0
        assert not seen.errors_per_link.any()
        assert seen.replica_agreement in (None, 1)
        assert seen.symbols_per_link == quiet.symbols_per_link
        # Every message is one word, or ends in one, that is shorter than the others.
        hops = {0: 2, 1: 2, 2: 1, 3: 1}[number] * (num_nodes - 1)
        symbols = seen.symbols_per_link // hops
        *full, last = (4 * n for n in ref.word_lengths(symbols, 255, 223, 8, 32))
        assert seen.codewords_per_link == hops * (len(full) + 1)
        assert last < 1020
        assert all(qubits == 1020 for qubits in full)
        once = num_nodes * hops * (1020 * len(full) + last)
        assert seen.online_qubits == once + seen.repeated_qubits
        repeated = int(seen.retransmissions_per_link.sum())
        assert last * repeated <= seen.repeated_qubits <= (1020 if full else last) * repeated
        np.testing.assert_allclose(
            seen.bits_per_qubit, 2 * seen.symbols_sent / (once + seen.repeated_qubits), rtol=1e-6
        )


@pytest.mark.matrix
@pytest.mark.parametrize("num_nodes", [2, 3, 8])
def test_protected_collectives_equal_those_without_noise(every_mapping, num_nodes):
    check_exact(every_mapping, num_nodes, FixedPoint(16), "attempts")


@pytest.mark.matrix
@pytest.mark.parametrize("simulate", ["attempts", "symbol"])
@pytest.mark.parametrize("wire", [FixedPoint(10), Float32(), BFloat16()], ids=repr)
def test_protected_collectives_equal_those_without_noise_on_every_wire(vmapped, wire, simulate):
    check_exact(vmapped, 3, wire, simulate)


@pytest.mark.parametrize("simulate", ["attempts", further("symbol")])
def test_words_are_repeated_as_often_as_they_fail(vmapped, simulate):
    """3 nodes, 4 rounds of 92 words, each sent 1 / (1 - p) times in the mean.

    Repetitions of a word have the mean p / (1 - p) and the variance p / (1 - p)^2, with the p of
    its length; those of all 1,104 lie within six standard deviations and a half (for the skew)
    with probability 1 - 1e-7, and so do their qubits.
    """
    x = payload(3, 29_998)
    ring = ring_of(0.99, STRONG, simulate=simulate)
    total, report = vmapped(run_psum, 3, shared=2)(x, ring, KEY)
    exact, _ = vmapped(run_psum, 3, shared=2)(x, Ring(noise="off"), None)
    assert_same_bits(total, exact)
    seen = first(report)
    assert seen.codewords_per_link == 4 * 92 == 4 * math.ceil(10_000 * 8 / 876)
    lengths = np.array(ref.word_lengths(80_000, 255, 223, 8, 32))
    assert len(lengths) == 92
    assert lengths[-1] == 75 + 32  # 568 bits of payload and 32 of checksum
    fails = np.array([ref.failure_prob(*ref.werner_link(0.99), n, 8, 32) for n in lengths])
    for found, of_word in (
        (seen.retransmissions_per_link.sum(), np.ones(92)),
        (seen.repeated_qubits, 4 * lengths),
    ):
        mean = 12 * np.sum(of_word * fails / (1 - fails))
        deviation = math.sqrt(12 * np.sum(of_word**2 * fails / (1 - fails) ** 2))
        assert mean > 20
        assert abs(float(found) - mean) < 6.5 * deviation
    assert seen.undelivered == 0
    # Two bits a symbol of payload, which travels once, and qubits also of what is sent again.
    online = 12 * 4 * lengths.sum() + float(seen.repeated_qubits)
    np.testing.assert_allclose(seen.bits_per_qubit, 2 * 12 * 80_000 / online, rtol=1e-6)


# --- Invariance: the same key, the same bits ------------------------------------------------------

LINKS = superdense(werner(fidelity=jnp.linspace(0.93, 0.99, 8)))
PAYLOAD = np.random.default_rng(11).normal(size=(8, 500)).astype(np.float32)
LEAKY = {  # all of them leave words undelivered, as the tests see for themselves
    "block": SMALL,
    "retransmit": Retransmit(SMALL, 2, 2),
    "unequal": Unequal(Retransmit(SMALL, 2, 2), symbols=3),
    "rs(255,223)": reed_solomon(255, 223),
}


@functools.cache
def on_one_device(name, simulate, function=run_psum):
    ring = Ring(LINKS, protection=LEAKY[name], simulate=simulate)
    run = jax.jit(jax.vmap(function, in_axes=(0, None, None), axis_name=AXIS))
    return run(jnp.asarray(PAYLOAD), ring, KEY)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "name, simulate",
    [("unequal", "attempts"), ("block", "symbol"), ("rs(255,223)", "attempts")],
)
def test_the_same_key_gives_the_same_bits_under_every_mapping(mapping, name, simulate):
    ring = Ring(LINKS, protection=LEAKY[name], simulate=simulate)
    got = mapping(run_psum, 8, shared=2)(jnp.asarray(PAYLOAD), ring, KEY)
    expected = on_one_device(name, simulate)
    assert first(expected[1]).undelivered > 0
    assert first(expected[1]).symbol_errors > 0
    assert_same_bits(got, expected)


@pytest.mark.matrix
@pytest.mark.parametrize("nodes_per_device", [2, 4])
@pytest.mark.parametrize(
    "name, simulate",
    [("unequal", "attempts"), ("retransmit", "symbol"), ("rs(255,223)", "attempts")],
)
def test_the_same_key_gives_the_same_bits_however_many_nodes_a_device_carries(
    vmapped, name, simulate, nodes_per_device
):
    devices = 8 // nodes_per_device
    x = jnp.asarray(PAYLOAD).reshape(devices, nodes_per_device, -1)
    ring = Ring(LINKS, protection=LEAKY[name], simulate=simulate, nodes_per_device=nodes_per_device)
    total, report = vmapped(run_psum, devices, shared=2)(x, ring, KEY)
    expected, one = on_one_device(name, simulate)
    assert_same_bits(np.asarray(total).reshape(8, -1), expected)
    assert_same_bits(first(report), first(one))


# --- Replicated results ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protection, fidelity, simulate, others",
    [
        (SMALL, 0.95, "attempts", ()),
        further(SMALL, 0.95, "attempts", ("pmap", "vmap")),
        further(reed_solomon(255, 223), 0.98, "attempts", ("pmap", "vmap")),
        further(reed_solomon(255, 223), 0.98, "symbol", ("pmap", "vmap")),
        further(Retransmit(secded(72, 64), 2, 1), 0.97, "attempts", ("pmap", "vmap")),
        further(STRONG, 0.99, "attempts", ("pmap", "vmap")),
    ],
    ids=repr,
)
def test_replicated_sums_are_equal_by_proof_and_the_same_under_every_mapping(
    mapping_named, ring_mesh, protection, fidelity, simulate, others
):
    x = payload(3, 401)
    ring = ring_of(fidelity, protection, simulate=simulate)

    def proven(x, ring, key):
        return run_replicated(x[0], ring, key)

    spec = PartitionSpec()
    run = jax.shard_map(
        proven,
        mesh=ring_mesh(3),
        in_specs=(PartitionSpec(AXIS), spec, spec),
        out_specs=spec,
        check_vma=True,
    )
    total, report = jax.jit(run)(x, ring, KEY)
    assert total.shape == (401,)
    exact, _ = mapping_named("vmap")(run_psum, 3, shared=2)(x, Ring(noise="off"), None)
    leaky = protection is not STRONG
    assert (int(report.undelivered) > 0) == leaky
    assert np.array_equal(total, np.asarray(exact)[0]) != leaky
    assert float(report.replica_agreement) == 1
    for name in others:
        each, theirs = mapping_named(name)(run_replicated, 3, shared=2)(x, ring, KEY)
        assert_same_bits(each, np.broadcast_to(np.asarray(total), (3, 401)))
        assert_same_bits(first(theirs), jax.tree.map(np.asarray, report))


# --- Never silent ---------------------------------------------------------------------------------


def over_keys(x, ring, keys, replicated=False):
    """One psum for each key: (keys, N, ...) results and (keys, N) reports."""

    def call(x, key):
        return psum(x, AXIS, ring=ring, key=key, replicated=replicated, with_report=True)

    nodes = jax.vmap(call, in_axes=(0, None), axis_name=AXIS)
    return jax.jit(jax.vmap(nodes, in_axes=(None, 0)))(x, keys)


@pytest.mark.parametrize("simulate", ["attempts", further("symbol")])
@pytest.mark.parametrize("replicated", [True, further(False)])
@pytest.mark.parametrize("attempts", [further(1), 2])
def test_a_wrong_sum_is_never_silent(attempts, replicated, simulate):
    x = payload(3, 30)
    exact = jax.jit(
        jax.vmap(lambda x: psum(x, AXIS, ring=Ring(noise="off"), key=None), axis_name=AXIS)
    )
    ring = ring_of(0.985, Retransmit(SMALL, attempts, 1), simulate=simulate)
    keys = jax.random.split(KEY, 400)
    total, report = over_keys(x, ring, keys, replicated)
    wrong = (np.asarray(total) != np.asarray(exact(x))).any(axis=(1, 2))
    undelivered = np.asarray(report.undelivered)[:, 0]
    assert (undelivered[wrong] > 0).all()
    assert (wrong[undelivered == 0] == 0).all()
    # 400 sums of 48 words: some are wrong and some are not, and words spoilt on the way of the
    # mended half are counted as well. (So are those spoilt in check symbols alone, but few are.)
    assert 20 < wrong.sum() < 380
    assert (undelivered > 0).sum() >= wrong.sum() + replicated
    assert 3 * report.codewords_per_link == 48
    lengths = ref.word_lengths(80, 15, 11, 4, 1)
    assert lengths == [15, 15, 15, 13]
    each = [ref.failure_prob(*ref.werner_link(0.985), n, 4, 4) for n in lengths]
    ends = np.array([ref.attempts_tree(fails, 0.5, attempts)[1] for fails in each])
    # 19,200 words, six standard deviations: fails by chance with probability 2e-9.
    mean, variance = 4800 * ends.sum(), 4800 * np.sum(ends * (1 - ends))
    assert abs(undelivered.sum() - mean) < 6 * math.sqrt(variance) + 6
    agreement = np.asarray(report.replica_agreement)[:, 0]
    assert (agreement == 1).all() == replicated


# --- Cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protection, wire, codewords, qubits",
    [
        # Chunks of 251 codes of 8 symbols: 2,008 symbols are 2 words of 876 on 1,020 qubits, and
        # 256 more, which with the checksum are 68 code symbols and with the check symbols 100.
        (STRONG, FixedPoint(16), 3, 2 * 1020 + 400),
        # 892 symbols a word without a checksum; 224 are left, which are 56 code symbols.
        (reed_solomon(255, 223), FixedPoint(16), 3, 2 * 1020 + 4 * (56 + 32)),
        # Float32: 4,016 symbols in words of 32 on 36 qubits, and a half one.
        (secded(72, 64), Float32(), 126, 125 * 36 + 16 + 4),
        # (64 - 8) / 2 = 28 symbols a word: 71 of them, and 20 symbols.
        (Retransmit(secded(72, 64), checksum_bits=8), BFloat16(), 72, 71 * 36 + 20 + 4 + 4),
        # 753 symbols in one word, 5 * 251 bare: 1,538 bits are 193 code symbols.
        (Unequal(STRONG, symbols=3), FixedPoint(16), 1, 4 * (193 + 32) + 1255),
        # 2,008 symbols at two bits a qubit less the gap.
        (IdealCode(0.5), FixedPoint(16), 0, math.ceil(2008 * 2 / 1.5)),
        (Unequal(IdealCode(0.5), symbols=3), FixedPoint(16), 0, 1255 + math.ceil(753 * 2 / 1.5)),
    ],
    ids=repr,
)
def test_the_cost_is_that_of_whole_words_and_a_shortened_one(protection, wire, codewords, qubits):
    ring = ring_of(1.0, protection, wire=wire)
    for collective, size, rounds in (
        ("psum", 1001, 6),
        ("psum_scatter", 1004, 3),
        ("all_gather", 251, 3),
    ):
        cost = ring.cost(size, 4, collective=collective)
        assert cost.codewords == rounds * codewords
        assert cost.qubits == cost.pairs == rounds * qubits
        assert cost.bits == rounds * 251 * wire.bits
    assert ring.cost(0, 4).qubits == ring.cost(0, 4).codewords == 0


def test_a_small_message_is_one_shortened_word():
    """370 parameters on 8 nodes: 47 codes of 16 bits a hop. A whole word would be 1,020 qubits."""
    bare, ring = ring_of(1.0, None).cost(370, 8), ring_of(1.0, STRONG).cost(370, 8)
    assert (bare.qubits, ring.qubits) == (14 * 376, 14 * 520)
    assert ring.codewords == 14
    # Payload that fills its words is charged what it was: 876 symbols are 219 codes of 8 bits.
    for words in (1, 2, 5):
        cost = ring_of(1.0, STRONG, wire=FixedPoint(8)).cost(2 * 219 * words, 2)
        assert (cost.codewords, cost.qubits) == (2 * words, 2 * 1020 * words)
    # A symbol more is a short word more, of 5 + 32 code symbols.
    cost = ring_of(1.0, STRONG, wire=FixedPoint(2, clip=1.0)).cost(877, 1, collective="all_gather")
    assert cost.qubits == 0
    cost = ring_of(1.0, STRONG, wire=FixedPoint(2, clip=1.0)).cost(877, 2, collective="all_gather")
    assert (cost.codewords, cost.qubits) == (2, 1020 + 148)
    # More payload never costs less.
    for protection in (STRONG, secded(72, 64), SMALL, Unequal(STRONG, symbols=3)):
        qubits = [ring_of(1.0, protection).cost(2 * size, 2).qubits for size in range(1, 400)]
        assert (np.diff(qubits) > 0).all()


def test_the_cost_does_not_depend_on_the_noise_but_of_an_ideal_code():
    for protection in (STRONG, secded(72, 64), Unequal(STRONG, symbols=2)):
        worse, better = ring_of(0.5, protection), ring_of(1.0, protection)
        assert worse.cost(1000, 4) == better.cost(1000, 4)
    rate = float(IdealCode(0.1).net_rate(superdense(werner(fidelity=0.95))))
    cost = ring_of(jnp.array([1.0, 0.95, 0.97, 0.99]), IdealCode(0.1)).cost(1000, 4)
    assert cost.qubits == 6 * math.ceil(2000 * 2 / rate)  # of the worst link


@pytest.mark.parametrize(
    "protection",
    [further(SMALL), further(Unequal(STRONG, symbols=3)), further(IdealCode(0.5))],
    ids=repr,
)
def test_a_report_without_repetitions_has_the_cost(vmapped, protection):
    ring = ring_of(1.0, protection)
    _, report = vmapped(run_psum, 3, shared=2)(payload(3, 101), ring, KEY)
    seen, cost = first(report), ring.cost(101, 3)
    assert seen.codewords_per_link == cost.codewords
    assert seen.symbols_per_link == cost.symbols
    assert not seen.retransmissions_per_link.any()
    # The cost rounds the qubits of an ideal code up, message by message.
    spare = 4 * 3 if isinstance(protection, IdealCode) else 0
    assert 3 * cost.qubits - spare <= seen.online_qubits <= 3 * cost.qubits * (1 + 1e-6)


def test_the_state_of_the_optimizer_counts_repetitions():
    protection = Retransmit(SMALL, 4, 2)
    ring = ring_of(0.9, protection)
    x = payload(3, 200)
    optimizer = all_reduce(ring, AXIS, key=KEY)
    state = optimizer.init(x[0])

    def update(x, state):
        _, state = optimizer.update(x, state)
        return optimizer.update(x, state)

    _, state = jax.jit(jax.vmap(update, in_axes=(0, None), axis_name=AXIS))(x, state)
    again, undelivered, repeated = 0, 0, 0.0
    for step in range(2):
        key = jax.random.fold_in(KEY, step)
        _, report = jax.jit(jax.vmap(run_pmean, in_axes=(0, None, None), axis_name=AXIS))(
            x, ring, key
        )
        again += int(first(report).retransmissions_per_link.sum())
        repeated += float(first(report).repeated_qubits)
        undelivered += int(first(report).undelivered)
    assert again > 0
    # 67 codes of 8 symbols a chunk, 21 symbols a word, 4 rounds, 30 qubits a word; 11 symbols in
    # the last one, which with two bits of checksum are 6 code symbols.
    lengths = ref.word_lengths(67 * 8, 15, 11, 4, 2)
    assert lengths == [15] * 25 + [10]
    per_link = 4 * 2 * sum(lengths)
    assert 20 * again < repeated < 30 * again
    expected = 2 * per_link + repeated / 3
    np.testing.assert_allclose(optax.tree.get(state, "repeated_qubits"), repeated / 3, rtol=1e-6)
    np.testing.assert_allclose(optax.tree.get(state, "qubits"), expected, rtol=1e-6)
    np.testing.assert_allclose(optax.tree.get(state, "pairs"), expected, rtol=1e-6)
    assert np.asarray(optax.tree.get(state, "retransmissions")).tolist() == [again] * 3
    assert np.asarray(optax.tree.get(state, "undelivered")).tolist() == [undelivered] * 3
    np.testing.assert_array_equal(optax.tree.get(state, "bits"), 2 * 4 * 67 * 16)


def run_pmean(x, ring, key):
    return pmean(x, AXIS, ring=ring, key=key, with_report=True)


# --- Derivatives ----------------------------------------------------------------------------------


def chunked_codes():
    """(2, 2 C) codes: chunk j starts at node j, and the other adds zero, so that no sum wraps."""
    chunk = np.arange(-100.0, 100.0, 8.0)
    zero = np.zeros_like(chunk)
    return np.array([np.concatenate([chunk, zero]), np.concatenate([zero, -chunk])])


def residual_flip(fidelity, n=15, bits=4, erasures=4):
    """The probability that a bit of payload is flipped: its qubit is wrong, and the word fails."""
    q, _ = ref.werner_link(fidelity)
    others = ref.weight_distribution(q, 0.0, n - 1, bits)
    return 2 * q[1] * others[max(erasures - 1, 0) :].sum()


def bit_slopes(fidelity):
    """(codes, 16) 1 - 2 f of each bit of the codes of a chunk, the lowest first.

    25 codes of 8 symbols fill nine words of 22 symbols, and the two highest symbols of the last
    code are in a word of their own, of one code symbol of payload.
    """
    lengths = ref.word_lengths(200, 15, 11, 4)
    assert lengths == [15] * 9 + [5]
    flips = [residual_flip(fidelity, n) for n in lengths]
    by_symbol = np.repeat(flips, [22] * 9 + [2])
    return 1 - 2 * np.repeat(by_symbol.reshape(25, 8), 2, axis=1)


WEIGHTS = 2.0 ** np.arange(16) * np.where(np.arange(16) == 15, -1, 1)


def expected_loss(fidelity, weights, replicated):
    """A bit b has the mean s^H b + (1 - s^H) / 2 after H hops, with s = 1 - 2 f."""
    x = chunked_codes().sum(axis=0)
    slopes = np.tile(bit_slopes(fidelity), (2, 1))
    bits = (x.astype(int)[:, None] >> np.arange(16)) & 1
    total = 0.0
    half = x.size // 2
    for node in range(2):
        for chunk in range(2):
            # Chunk j is complete at node j + 1 after one hop, and back at node j after two.
            hops = 1 if replicated or node != chunk else 2
            part = slice(chunk * half, (chunk + 1) * half)
            slope = slopes[part] ** hops
            mean = (slope * bits[part] + (1 - slope) / 2) @ WEIGHTS
            total += weights[node, part] @ mean
    return total


@pytest.mark.statistics
@pytest.mark.parametrize("replicated", [False, True])
def test_values_and_slopes_have_the_mean_of_the_channel(replicated):
    """2,000 keys, a linear loss: value and slope in the fidelity, each within six standard
    deviations of the mean over the keys: fails by chance with probability 4e-9."""
    x = chunked_codes()
    weights = np.random.default_rng(3).normal(size=x.shape) + 1
    fidelity = 0.95
    ring_options = {"wire": FixedPoint(16, clip=127.0 * 128), "derivative": "mean"}

    def loss(fidelity, x, key):
        ring = ring_of(fidelity, SMALL, **ring_options)
        call = functools.partial(psum, axis_name=AXIS, ring=ring, key=key, replicated=replicated)
        total = jax.vmap(call, axis_name=AXIS)(x)
        return jnp.sum(total * weights.astype(np.float32))

    keys = jax.random.split(KEY, 2000)
    run = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1)), in_axes=(None, None, 0)))
    values, (slopes, data) = jax.tree.map(
        np.asarray, run(jnp.float32(fidelity), jnp.asarray(x, jnp.float32), keys)
    )
    expected = expected_loss(fidelity, weights, replicated)
    deviation = values.std() / math.sqrt(len(keys))
    assert deviation > 0
    assert abs(values.mean() - expected) < 6 * deviation
    h = 1e-4
    slope = (
        expected_loss(fidelity + h, weights, replicated)
        - expected_loss(fidelity - h, weights, replicated)
    ) / (2 * h)
    assert abs(slope) > 100
    spread = 6 * slopes.std() / math.sqrt(len(keys)) + 1e-3 * abs(slope)
    assert abs(slopes.mean() - slope) < spread
    # The slope in the data is the same for all keys: weight times the slope of the hops.
    # Of a code it is that of the regression of its mean, by the squares of the weights of its bits.
    s, half = bit_slopes(fidelity) @ WEIGHTS**2 / np.sum(WEIGHTS**2), x.shape[1] // 2
    assert s[-1] > s[0] + 1e-3
    assert (s[:-1] == s[0]).all()
    exact = np.zeros_like(x)
    for chunk in range(2):
        part = slice(chunk * half, (chunk + 1) * half)
        owner, other = (chunk + 1) % 2, chunk
        back = 1 if replicated else s
        exact[owner, part] = weights[owner, part] + back * weights[other, part]
        exact[other, part] = s * exact[owner, part]
    np.testing.assert_allclose(data, np.broadcast_to(exact, data.shape), rtol=2e-4, atol=1e-4)


def unequal_flips(fidelity, symbols, size):
    """(size, 16) the probability that each bit of each code is flipped in a hop, the lowest first.

    The highest `symbols` of the eight symbols are in words of `SMALL`, one code after another,
    each from its lowest protected symbol; the others are bare.
    """
    q, _ = ref.werner_link(fidelity)
    lengths = ref.word_lengths(size * symbols, 15, 11, 4)
    coded = np.repeat([residual_flip(fidelity, n) for n in lengths], 22)[: size * symbols]
    flips = np.full((size, 8), 2 * q[1])
    flips[:, 8 - symbols :] = coded.reshape(size, symbols)
    return np.repeat(flips, 2, axis=1)


def test_the_highest_symbols_are_the_protected_ones_in_derivatives():
    """One hop: the tangent is that of the exact mean, whatever errors are drawn.

    Bit by bit in NumPy, of codes whose protected symbols fill words up to within one of them.
    """
    size, symbols, fidelity = 10, 3, 0.93
    codes = np.random.default_rng(4).integers(-(2**14), 2**14, (2, size)).astype(np.float32)
    moved = np.random.default_rng(5).normal(size=codes.shape).astype(np.float32)
    wire = FixedPoint(16, clip=2.0**15 - 1)  # so that a value is its code

    def passed_on(fidelity, x):
        ring = ring_of(fidelity, Unequal(SMALL, symbols), wire=wire, derivative="mean")
        return jax.vmap(lambda x: all_gather(x, AXIS, ring=ring, key=KEY), axis_name=AXIS)(x)

    @jax.jit
    def both(fidelity, x):
        of_links = jax.jvp(lambda f: passed_on(f, x), (fidelity,), (jnp.ones(()),))[1]
        return of_links, jax.jvp(lambda x: passed_on(fidelity, x), (x,), (moved,))[1]

    of_links, of_data = (np.asarray(d, np.float64) for d in both(jnp.float32(fidelity), codes))
    bits = (codes.astype(int)[..., None] >> np.arange(16)) & 1
    flips = unequal_flips(fidelity, symbols, size)
    h = 1e-6
    rise = unequal_flips(fidelity + h, symbols, size) - unequal_flips(fidelity - h, symbols, size)
    from_links = ((1 - 2 * bits) * rise / (2 * h)) @ WEIGHTS
    from_data = (1 - 2 * flips) @ WEIGHTS**2 / np.sum(WEIGHTS**2) * moved
    for node in range(2):
        other = 1 - node
        np.testing.assert_allclose(of_links[node, other], from_links[other], rtol=2e-3, atol=0.5)
        np.testing.assert_allclose(of_data[node, other], from_data[other], rtol=1e-4)
        assert not of_links[node, node].any()  # what stays crosses no link
        np.testing.assert_array_equal(of_data[node, node], moved[node])
    # The order matters: with the lowest symbols protected, the numbers are others by far.
    wrong = ((1 - 2 * bits) * rise[:, ::-1] / (2 * h)) @ WEIGHTS
    assert np.abs(wrong - from_links).min() > 50


@pytest.mark.parametrize("symbols", [1, 3, 7])
def test_the_symbols_of_a_code_meet_bare_links_below_and_the_residual_of_words_above(symbols):
    """(8, 4, 4) for each run of codes, against the XOR patterns of flips by hand."""
    size, fidelity = 10, 0.93
    ring = ring_of(fidelity, Unequal(SMALL, symbols))
    runs = hops.level_runs(ring, size)
    met = hops.effective_channels(ring.transition, ring, runs)
    found = np.concatenate(
        [
            np.tile(np.asarray(each), (count, 1, 1, 1))
            for (count, _), each in zip(runs, met, strict=True)
        ]
    )
    patterns = np.arange(4)[:, None] ^ np.arange(4)
    # Each of three patterns as likely: a bit is flipped by two of them.
    each = unequal_flips(fidelity, symbols, size)[:, ::2, None, None] / 2
    expected = np.where(patterns == 0, 1 - 3 * each, each)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)
    bare = np.asarray(hops.effective_channel(ring.transition, ring))
    np.testing.assert_allclose(bare, expected[0, 0], atol=1e-6)


@pytest.mark.parametrize("wire", [FixedPoint(16), further(Float32())], ids=repr)
@pytest.mark.parametrize("replicated", [further(False), True])
def test_the_gradient_of_the_data_is_that_without_noise(wire, replicated):
    x, weights = payload(3, 20), payload(3, 20, seed=1)

    def gradient(ring, key):
        def loss(x):
            call = functools.partial(
                psum, axis_name=AXIS, ring=ring, key=key, replicated=replicated
            )
            return jnp.sum(jax.vmap(call, axis_name=AXIS)(x) * weights)

        return jax.jit(jax.grad(loss))(x)

    exact = gradient(Ring(noise="off", wire=wire), None)
    np.testing.assert_allclose(
        exact, np.broadcast_to(weights.sum(0), (3, 20)), rtol=1e-5, atol=1e-6
    )
    got = gradient(ring_of(0.99, STRONG, wire=wire), KEY)
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "protection",
    [
        Unequal(Retransmit(SMALL, 3, 4), symbols=3),
        SMALL,
        STRONG,
        secded(72, 64),
        IdealCode(0.1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("replicated", [False, True])
def test_jvp_and_vjp_agree_and_are_finite_from_one_end_to_the_other(protection, replicated):
    if replicated and isinstance(protection, Unequal):
        pytest.skip("refused: low symbols are bare")
    x, weights = payload(3, 20), payload(3, 20, seed=1)
    moved = payload(3, 20, seed=2)

    def loss(fidelity, x):
        ring = ring_of(fidelity, protection, derivative="mean")
        call = functools.partial(psum, axis_name=AXIS, ring=ring, key=KEY, replicated=replicated)
        return jnp.sum(jax.vmap(call, axis_name=AXIS)(x) * weights)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def both(fidelity, x):
        _, forward = jax.jvp(loss, (fidelity, x), (jnp.ones(()), moved))
        return forward, jax.grad(loss, argnums=(0, 1))(fidelity, x)

    forward, (link, data) = jax.tree.map(np.asarray, both(jnp.array([0.25, 0.97, 1.0]), x))
    for part in (forward, link, data):
        assert np.isfinite(part).all()
    backward = link + (data * np.asarray(moved)).sum(axis=(1, 2))
    np.testing.assert_allclose(forward, backward, rtol=2e-3, atol=2e-3 * np.abs(link).max() + 1e-4)


def test_a_derivative_taken_outside_the_mapping_leaves_replicated_sums_as_they_are():
    ring = ring_of(0.9, SMALL)

    @jax.jit
    def loss(x):
        call = functools.partial(psum, axis_name=AXIS, ring=ring, key=KEY, replicated=True)
        return jnp.sum(jax.vmap(call, axis_name=AXIS)(x) ** 2)

    x = payload(3, 20)
    assert jax.value_and_grad(loss)(x)[0] == loss(x)


# --- What the program does ------------------------------------------------------------------------


COLLECTIVES = {"ppermute", "psum", "psum_invariant", "pmax", "pmin", "all_gather"} | {
    "all_gather_invariant",
    "all_to_all",
    "reduce_scatter",
}


def communications(jaxpr, times=1):
    """name -> how often each primitive that communicates runs."""
    found = {}
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        # Not what only changes the type of a value.
        if {"axis_name", "axes"} & set(equation.params) and name in COLLECTIVES:
            found[name] = found.get(name, 0) + times
        length = equation.params.get("length", 1) if name == "scan" else 1
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                for inside, count in communications(inner, times * length).items():
                    found[inside] = found.get(inside, 0) + count
    return found


@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("simulate", ["attempts", further("symbol")])
def test_protection_adds_no_communication(ring_mesh, simulate, replicated):
    def traced(ring, key):
        def per_device(x):
            call = run_replicated if replicated else run_psum
            total, _ = call(x[0], ring, key)
            return total[None]

        spec = PartitionSpec(AXIS)
        run = jax.shard_map(per_device, mesh=ring_mesh(4), in_specs=spec, out_specs=spec)
        return communications(jax.make_jaxpr(run)(jnp.zeros((4, 40))).jaxpr)

    quiet = traced(Ring(noise="off"), None)
    assert quiet["ppermute"] == (3 if replicated else 6)
    assert traced(ring_of(0.9, STRONG, simulate=simulate), KEY) == quiet


def test_ring_with_protection_is_a_pytree_whose_leaves_are_its_links():
    ring = ring_of(0.9, BlockCode(4, 3, 0, 2))
    (leaf, _) = jax.tree.leaves(ring)
    assert leaf.shape == (4, 4)
    rebuilt = jax.tree.map(lambda leaf: leaf, ring)
    assert rebuilt.protection == ring.protection
    assert isinstance(rebuilt.channel, SymbolChannel)


@pytest.mark.matrix
@pytest.mark.parametrize("simulate", ["attempts", "symbol"])
def test_protection_works_under_x64(simulate):
    with jax.enable_x64(True):
        x = payload(3, 101).astype(jnp.float64)
        ring = ring_of(0.95, Retransmit(SMALL, 3, 8), simulate=simulate)
        run = jax.jit(jax.vmap(run_psum, in_axes=(0, None, None), axis_name=AXIS))
        total, report = run(x, ring, KEY)
        exact, _ = run(x, Ring(noise="off"), KEY)
        seen = first(report)
        assert total.dtype == jnp.float64
        assert seen.retransmissions > 0
        assert np.array_equal(total, exact) or seen.undelivered > 0
