"""A budget is what a hand calculation gives, what a collective does, and smooth in the hardware."""

import functools
import math

import codewords as ref
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

import jaxqring as jq
from jaxqring import FixedPoint, Float32, Retransmit, Ring, reed_solomon, superdense, werner
from jaxqring.capacity._limits import thresholds
from jaxqring.codes import IdealCode, Unequal, bch, repetition, secded

AXIS = "nodes"
INF = math.inf
CODES = {
    "rs(255,223)": reed_solomon(255, 223),
    "rs(255,239)": reed_solomon(255, 239),
    "bch(255,223)": bch(255, 223, 4),
    "secded(72,64)": secded(72, 64),
}
PROTECTIONS = {
    **CODES,
    **{f"retransmit {name}": Retransmit(code) for name, code in CODES.items()},
    "ideal": IdealCode(),
    "ideal with a gap": IdealCode(0.1),
}

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@functools.cache
def compiled_budget(ring, size, nodes, collective="psum", **hardware):
    """Fidelities and survival (None for no flagged loss) -> a budget; one round of DEJMPS.

    The ring has no channel yet, and its hash is its static part.
    """

    @jax.jit
    def run(fidelity, survival, times):
        supply = jq.supply.purify(
            jq.supply.generate(werner(fidelity=fidelity), **hardware), rounds=1
        )
        flagged = {} if survival is None else {"survival": survival, "heralded": True}
        link = Ring(superdense(supply.pair, **flagged), *ring)
        return jq.economics.budget(link, size, nodes, supply, collective=collective, **times)

    return run


# --- By hand --------------------------------------------------------------------------------------

FIDELITIES = [0.3, 0.6, 0.9, 0.96, WITNESS := 0.975, 0.99, 0.997, 0.9997, 1.0]
SIZE, NODES = 20_001, 5  # neither do nodes divide the values, nor codewords a message
HARDWARE = {"length": 15e3, "detector_efficiency": 0.8, "modes": 50.0}
TIMES = {
    "qubit_rate": 3e6,
    "bit_rate": 5e6,
    "latency": 2e-4,
    "encode_time": 3e-5,
    "measure_time": 4e-5,
    "compute_time": 2.0,
}


def hand_supply(fidelity):
    """One round of DEJMPS on Werner pairs over one midpoint link, in numbers."""
    white = (1 - fidelity) / 3
    success = (fidelity + white) ** 2 + (2 * white) ** 2
    bell = np.array([fidelity**2 + white**2, 2 * fidelity * white, 2 * white**2, 2 * white**2])
    prob = 0.8**2 * math.exp(-15 / 22) / 2
    rate = 50 * prob / (15e3 / 2e8 + 1e-6)
    return {"bell": bell / success, "raw": 2 / success, "prob": prob, "rate": rate / (2 / success)}


def hand_capacity(q, survival):
    terms = [p * math.log2(p / survival) for p in q if p > 0]
    return survival * 2 + sum(terms)


def hand_failure(code, q, lost, n=None):
    """P(2 wrong + erased beyond the reach); bits of a binary code flip two to a qubit.

    Of a word of n code symbols, if it is not a full one.
    """
    n = code.n if n is None else n
    if code.symbol_bits == 1:
        units, limit = -(-n // 2), 2 * code.t if code.erasures is None else code.erasures
        one, two = q[1] + q[2] + lost, q[3]
        limit //= 2
    else:
        qubits = code.symbol_bits // 2
        units, limit = n, 2 * code.t if code.erasures is None else code.erasures
        one = 1 - (1 - lost) ** qubits
        two = (1 - lost) ** qubits - q[0] ** qubits
    if one == 0:
        return stats.binom.sf(limit // 2, units, two)
    # The tail itself, because 1 less the rest would lose the digits of a small one.
    tail = stats.binom.sf(limit // 2, units, two)
    for wrong in range(limit // 2 + 1):
        more = stats.binom.sf(limit - 2 * wrong, units - wrong, one / (1 - two))
        tail += stats.binom.pmf(wrong, units, two) * more
    return tail


def hand_repetition(protection, q, lost, n):
    """A word of n code symbols: chance of another attempt, mean attempts, chance of a wrong end."""
    if isinstance(protection, Retransmit):
        missed, most = 2.0**-protection.checksum_bits, protection.max_attempts
        failure = hand_failure(protection.code, q, lost, n)
    else:
        missed, most, failure = 0.0, 1, hand_failure(protection, q, lost, n)
    here, mean, wrong = 1.0, 0.0, 0.0
    for attempt in range(most):
        mean += here
        wrong += here * failure * (1 if attempt == most - 1 else missed)
        here *= failure * (1 - missed)
    return failure * (1 - missed), most, mean, wrong


def hand_slowest(kinds, most):
    """E[attempts of the slowest word], summed over the distribution of the maximum.

    `kinds` are pairs: the chance of another attempt, and how many words have it.
    """
    # log P(all are done after a attempts), so that small chances of another one are not lost.
    done = [
        sum(words * (math.log1p(-(again**a)) if again**a < 1 else -INF) for again, words in kinds)
        for a in range(1, most)
    ]
    by = [0.0, *(math.exp(log) for log in done), 1.0]
    return sum(a * (by[a] - by[a - 1]) for a in range(1, most + 1))


def hand_budget(protection, fidelity, survival=1.0, collective="psum", size=SIZE, nodes=NODES):
    """Every field of a budget: counts, repetition, alpha-beta times."""
    supply, bits = hand_supply(fidelity), 16
    rounds = (2 if collective == "psum" else 1) * (nodes - 1)
    chunk = size if collective == "all_gather" else math.ceil(size / nodes)
    payload = rounds * chunk * bits
    q = survival * supply["bell"]
    capacity = hand_capacity(q, survival)
    turns, repeated, lost, undelivered = 1.0, 0.0, 0.0, 0.0
    if protection is None:
        once, capacity = chunk * bits / 2, 2.0
    elif isinstance(protection, IdealCode):
        rate = capacity - protection.gap
        once = chunk * bits / rate if rate > 0 else INF
    else:
        code = protection.code if isinstance(protection, Retransmit) else protection
        checksum = protection.checksum_bits if isinstance(protection, Retransmit) else 0
        shape = (code.n, code.k, code.symbol_bits, checksum)
        room, left = (code.k * code.symbol_bits - checksum) // 2, chunk * bits // 2
        once, kinds = 0, []
        lengths = ref.word_lengths(left, *shape)
        by_length = {
            n: hand_repetition(protection, q, 1 - survival, n) for n in {lengths[0], lengths[-1]}
        }
        for n in lengths:
            again, most, mean, wrong = by_length[n]
            qubits, held = ref.word_qubits(n, code.symbol_bits), min(room, left)
            left -= held
            once += qubits
            repeated += qubits * (mean - 1)
            lost += held * wrong
            undelivered += wrong
            kinds.append((again, nodes))
        assert left == 0
        turns = hand_slowest(kinds, most)
    online = rounds * (once + repeated)
    wrong = lost / (chunk * bits / 2)
    hop = TIMES["latency"] + TIMES["encode_time"] + TIMES["measure_time"]
    pair_seconds = online / supply["rate"]
    busy = rounds * (hop + (turns - 1) * (hop + TIMES["latency"])) + online / TIMES["qubit_rate"]
    return {
        "net_bits_per_qubit": payload * (1 - wrong) / online,
        "capacity": capacity,
        "bits": payload,
        "control_bits": 2 * (nodes - 1) * 32,
        "online_qubits": online,
        "pairs": online,
        "raw_pairs": online * supply["raw"],
        "lifetime_uses": online * (1 + supply["raw"] / supply["prob"]),
        "undelivered": rounds * undelivered,
        "pair_seconds": pair_seconds,
        "seconds": busy + max(0, pair_seconds - TIMES["compute_time"]),
        "classical_seconds": rounds * TIMES["latency"] + payload / TIMES["bit_rate"],
    }


def by_budget(protection, survival=None, noise="sampled", collective="psum"):
    """The budgets of all fidelities, compiled once for every test."""
    ring = (FixedPoint(16), noise, protection)
    run = compiled_budget(ring, SIZE, NODES, collective, **HARDWARE)
    return run(np.array(FIDELITIES), survival, TIMES)


def assert_is_hand_budget(found, expected):
    fields = set(found.__dataclass_fields__) - {"protection"}
    assert fields == expected[0].keys()
    by_hand = {name: np.array([case[name] for case in expected], float) for name in fields}
    by_hand["online_saving"] = by_hand["bits"] / by_hand["online_qubits"]
    by_hand["lifetime_saving"] = by_hand["bits"] / by_hand["lifetime_uses"]
    by_hand["speedup"] = by_hand["classical_seconds"] / by_hand["seconds"]
    for name, value in by_hand.items():
        # What may be far below one is a difference of numbers near one.
        atol = 1e-11 if name in ("net_bits_per_qubit", "capacity", "undelivered") else 0
        seen = getattr(found, name)
        np.testing.assert_allclose(seen, value, rtol=1e-10, atol=atol, err_msg=name)
    assert np.all(found.lifetime_saving < 1)


@pytest.mark.parametrize(
    "protection",
    [
        Retransmit(reed_solomon(255, 223)),
        further(Retransmit(reed_solomon(63, 31, symbol_bits=6), 3, 2)),
        further(Retransmit(secded(72, 64), 4, 8)),
        further(bch(255, 223, 4)),
        further(reed_solomon(255, 239)),
        further(repetition(3)),
        IdealCode(),
        further(IdealCode(0.2)),
    ],
    ids=str,
)
def test_every_field_is_what_a_hand_calculation_gives(protection, x64):
    found = by_budget(protection)
    assert found.protection is protection
    assert_is_hand_budget(found, [hand_budget(protection, f) for f in FIDELITIES])
    # Some of these messages wait for their pairs, and the others have enough of them.
    waits = np.asarray(found.pair_seconds) > TIMES["compute_time"]
    assert waits.any()
    # Three copies decoded without a look at whether they fail are often right by mere chance.
    if protection != repetition(3):
        assert np.all(found.net_bits_per_qubit <= found.capacity + 1e-12)


@pytest.mark.parametrize("size", [370, further(876)])
def test_a_small_message_is_charged_one_shortened_word(size, x64):
    """370 parameters on 8 nodes are 47 codes a hop: 376 symbols on 520 qubits, not on 1,020."""
    protection = Retransmit(reed_solomon(255, 223))
    run = compiled_budget((FixedPoint(16), "sampled", protection), size, 8, **HARDWARE)
    found = run(np.array(FIDELITIES), None, TIMES)
    assert_is_hand_budget(
        found, [hand_budget(protection, f, size=size, nodes=8) for f in FIDELITIES]
    )
    if size == 370:
        assert float(found.online_qubits[-1]) == 14 * 520
        np.testing.assert_allclose(found.net_bits_per_qubit[-1], 2 * 376 / 520, rtol=1e-12)


@pytest.mark.parametrize(
    "protection", [further(Retransmit(reed_solomon(255, 223))), IdealCode()], ids=str
)
def test_flagged_loss_is_counted_by_hand_as_well(protection, x64):
    found = by_budget(protection, survival=0.985)
    assert_is_hand_budget(found, [hand_budget(protection, f, 0.985) for f in FIDELITIES])
    assert np.all(found.capacity <= 0.985 * 2 + 1e-12)


@pytest.mark.parametrize("collective", ["psum", further("psum_scatter"), further("all_gather")])
def test_a_ring_without_noise_stands_for_perfect_pairs_at_the_price_of_the_supply(collective, x64):
    found = by_budget(None, noise="off", collective=collective)
    expected = [hand_budget(None, f, collective=collective) for f in FIDELITIES]
    assert_is_hand_budget(found, expected)
    assert np.all(np.asarray(found.net_bits_per_qubit) == 2)


@pytest.mark.matrix
def test_a_code_without_noise_costs_its_check_symbols_and_meets_perfect_pairs(x64):
    protection = Retransmit(reed_solomon(255, 223))
    found = by_budget(protection, noise="off")
    perfect = hand_budget(protection, 1.0)
    for name in ("net_bits_per_qubit", "capacity", "online_qubits", "undelivered"):
        np.testing.assert_allclose(getattr(found, name), perfect[name], rtol=1e-12)


@pytest.mark.matrix
def test_the_size_of_a_message_is_that_of_its_pytree_and_its_wire():
    one = jnp.ones(())
    supply = jq.supply.Supply(werner(fidelity=0.99), one, one, one)
    tree = {"a": np.zeros((10, 7), np.float32), "b": np.zeros(31, np.float32)}
    wires = (
        (FixedPoint(8), 6 * 32),  # of two scales, in four chunks of one
        (FixedPoint(8, clip=1.0), 6),  # a bit for each, whether all is finite
        (FixedPoint(8, clip=1.0, non_finite="clip"), 0),
        (Float32(), 0),
    )
    for wire, control in wires:
        found = jq.economics.budget(Ring(wire=wire, noise="off"), tree, 4, supply)
        assert float(found.bits) == 6 * 26 * wire.bits
        assert float(found.online_qubits) == 3 * 26 * wire.bits
        assert float(found.control_bits) == control


# --- The collective itself as a witness -----------------------------------------------------------


@pytest.mark.matrix
def test_a_real_collective_spends_what_the_budget_says():
    # Every symbol of every codeword is drawn: 3 collectives of 40 messages of 37 codewords, which
    # are 4,440 words. Half of them fail at once, and some 20 after eight attempts. Six standard
    # errors, which are known, in three comparisons: chance fails with a probability below 1e-6
    # (the 20 are the most skewed: below 4e-7), and the key is fixed.
    protection, runs = Retransmit(reed_solomon(255, 223)), 3
    with jax.enable_x64(True):
        place = FIDELITIES.index(WITNESS)
        expected = {
            name: float(getattr(by_budget(protection), name)[place])
            for name in ("net_bits_per_qubit", "online_qubits", "undelivered", "bits")
        }
    link = superdense(jq.bell_diagonal(hand_supply(WITNESS)["bell"]))
    ring = Ring(link, protection=protection, simulate="symbol")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(NODES, SIZE)), jnp.float32)

    @jax.jit
    def report(key):
        def total(x):
            return jq.psum(x, AXIS, ring=ring, key=key, with_report=True)[1]

        return jax.vmap(total, axis_name=AXIS)(x)

    keys = jax.random.split(jax.random.key(7), runs)
    seen = [jax.tree.map(lambda leaf: leaf[0], report(key)) for key in keys]
    assert seen[0].codewords_per_link == 8 * 37
    assert seen[0].symbols_sent * 2 == expected["bits"] * NODES
    words = runs * NODES * 8 * 37
    qubits = sum(float(one.online_qubits) for one in seen)
    wrong = sum(int(one.undelivered) for one in seen)
    again = sum(int(one.retransmissions) for one in seen)
    # 36 words of 255 code symbols, and one that holds the other 472 symbols of payload and the
    # checksum in 122 of 154; that one fails eight times in a row with a probability below 1e-12.
    lengths = np.array(ref.word_lengths(32_008, 255, 223, 8, 32))
    assert lengths.tolist() == [255] * 36 + [154]
    messages = words // 37
    repeated = sum(float(one.repeated_qubits) for one in seen)
    np.testing.assert_allclose(qubits, messages * 4 * lengths.sum() + repeated, rtol=1e-6)
    assert 616 * again < repeated < 1020 * again

    # How the number of attempts of a word, and whether it stays wrong, scatter.
    attempts = np.arange(1, 9)
    spread, means = {}, {}
    for n in (255, 154):
        once = hand_failure(protection.code, hand_supply(WITNESS)["bell"], 0.0, n)
        chance = once ** (attempts - 1) * np.where(attempts < 8, 1 - once, 1)
        means[n] = chance @ attempts
        spread[n] = chance @ (attempts - means[n]) ** 2
        if n == 255:
            assert 0.4 < once < 0.6
            lost, both = once**8, once**8 * (8 - means[n])
        else:
            assert once**8 < 1e-12
    words -= messages  # the full ones, which alone are lost
    deviation = 4 * math.sqrt(messages * sum(n**2 * spread[n] for n in lengths))
    total = 4 * sum(n * means[n] for n in lengths)
    part = 876 / 32_008  # of the payload of a message in a full word
    arrives = 1 - 36 * part * lost
    relative = (deviation / messages / total) ** 2 * messages + 36 * part**2 * lost / arrives**2
    relative += 2 * 36 * 1020 * part * both / total / arrives
    net = 2 * runs * seen[0].symbols_sent * (1 - wrong * part / messages) / qubits
    for found, wanted, error in (
        (qubits, expected["online_qubits"] * NODES * runs, deviation),
        (wrong, expected["undelivered"] * NODES * runs, math.sqrt(words * lost * (1 - lost))),
        (net, expected["net_bits_per_qubit"], net * math.sqrt(relative / messages)),
    ):
        assert abs(found - wanted) < 6 * error
        assert wrong if found is wrong else 6 * error < 0.08 * wanted  # the test can tell


@pytest.mark.statistics
def test_a_plain_code_leaves_as_many_words_wrong_as_the_budget_says():
    # 40 collectives of 24 messages of 2 codewords: 1,920 words, the full ones wrong with a
    # probability near 0.11, and those of 89 symbols and 32 check bits less often. Six standard
    # errors: chance fails below 2e-9, and the key is fixed.
    protection = bch(255, 223, 4)
    supply = jq.supply.generate(werner(fidelity=0.98), length=1e4)
    ring = Ring(superdense(supply.pair), FixedPoint(8), protection=protection, simulate="symbol")
    nodes, size, runs = 4, 200, 40  # 50 codes of 8 bits in words of 222
    expected = jq.economics.budget(ring, size, nodes, supply)

    def report(key):
        def total(x):
            return jq.psum(x, AXIS, ring=ring, key=key, with_report=True)[1]

        x = jnp.ones((nodes, size))
        return jax.tree.map(lambda leaf: leaf[0], jax.vmap(total, axis_name=AXIS)(x))

    seen = jax.jit(jax.vmap(report))(jax.random.split(jax.random.key(8), runs))
    lengths = ref.word_lengths(200, 255, 223, 1)
    assert lengths == [255, 178 + 32]
    chances = np.array(
        [hand_failure(protection, superdense(supply.pair).xor_probs, 0, n) for n in lengths]
    )
    assert 0.02 < chances[1] < chances[0] < 0.3
    np.testing.assert_allclose(float(expected.undelivered) * nodes, 24 * chances.sum(), rtol=1e-3)
    count = int(np.sum(np.asarray(seen.undelivered), dtype=int))
    spread = math.sqrt(24 * runs * np.sum(chances * (1 - chances)))
    assert abs(count - 24 * runs * chances.sum()) < 6 * spread
    assert int(np.sum(np.asarray(seen.retransmissions))) == 0
    np.testing.assert_allclose(seen.online_qubits, float(expected.online_qubits) * nodes)


# --- What no code exceeds -------------------------------------------------------------------------


@pytest.mark.parametrize("x64_on", [False, further(True)])
def test_perfect_pairs_and_an_ideal_code_double_the_rate_exactly(x64_on):
    with jax.enable_x64(x64_on):
        for length in (0.0, 3e4):
            supply = jq.supply.generate(werner(fidelity=1.0), length=length, scheme="direct")
            for ring in (
                Ring(superdense(supply.pair), protection=IdealCode(0.0)),
                Ring(superdense(supply.pair), noise="off"),
                Ring(noise="off"),
                Ring(noise="off", wire=Float32()),
            ):
                found = jq.economics.budget(ring, 1_000, 4, supply)
                assert float(found.net_bits_per_qubit) == 2.0
                assert float(found.online_saving) == 2.0
                assert float(found.capacity) == 2.0
                # Two uses for two bits if every attempt makes a pair, and more if not.
                if length == 0:
                    assert float(found.lifetime_saving) == 1.0
                else:
                    assert float(found.lifetime_saving) < 0.5


@pytest.mark.parametrize(
    "name", ["ideal", *(further(name) for name in PROTECTIONS if name != "ideal")]
)
def test_no_code_beats_the_link_and_no_supply_its_lifetime(name, x64):
    @jax.jit
    def run(fidelity, length, efficiency):
        supply = jq.supply.generate(
            werner(fidelity=fidelity),
            length=length,
            detector_efficiency=efficiency,
            scheme="direct",
        )
        ring = Ring(superdense(supply.pair), protection=PROTECTIONS[name])
        # A long message: the part of its last word that is empty hides no excess.
        return jq.economics.budget(ring, 10**9, 2, supply)

    found = run(
        np.linspace(0.25, 1.0, 301),
        np.array([0.0, 0.0, 1e4])[:, None],
        np.array([1.0, 0.999, 1.0])[:, None],
    )
    net, capacity = np.asarray(found.net_bits_per_qubit), np.asarray(found.capacity)
    assert np.all(np.isfinite(net) & (net >= 0))
    assert np.all(net <= capacity + 1e-12)
    assert np.all(np.diff(net, axis=1) >= -1e-12)
    assert 0.8 < net[0, -1] <= 2
    saving = np.asarray(found.lifetime_saving)
    assert np.all((saving >= 0) & (saving <= 1))
    # One for perfect pairs, each from the first attempt, that nothing is added to.
    ones = np.zeros_like(saving, bool)
    ones[0, -1] = name == "ideal"
    np.testing.assert_array_equal(saving == 1, ones)


# --- Break-even -----------------------------------------------------------------------------------


def surplus(fidelity):
    """Capacity of a Werner pair above one bit, in bits."""
    white = (1 - fidelity) / 3
    return 1 + fidelity * math.log2(fidelity) + 3 * white * math.log2(white)


@pytest.mark.matrix
def test_the_ideal_code_breaks_even_at_the_threshold_of_superdense_coding():
    root = optimize.brentq(surplus, 0.5, 0.99, xtol=1e-13)
    assert abs(root - 0.810710) < 1e-6
    assert abs(jq.economics.break_even_fidelity(IdealCode()) - root) < 1e-9


@pytest.mark.matrix
def test_a_budget_knows_where_its_code_breaks_even():
    supply = jq.supply.generate(werner(fidelity=0.9), length=1e4)
    for protection in (IdealCode(), reed_solomon(255, 223)):
        found = jq.economics.budget(
            Ring(superdense(supply.pair), protection=protection), 1_000, 4, supply
        )
        assert found.break_even_fidelity == jq.economics.break_even_fidelity(protection)
    known = thresholds()["werner_fidelity"]
    assert abs(jq.economics.break_even_fidelity(IdealCode()) - known) < 1e-6


@pytest.mark.matrix
@pytest.mark.parametrize(
    "name",
    [
        "secded(72,64)",
        further("rs(255,223)"),
        further("ideal with a gap"),
        further("retransmit bch(255,223)"),
    ],
)
def test_a_code_breaks_even_where_its_net_rate_is_one_bit(name):
    protection = PROTECTIONS[name]
    fidelity = jq.economics.break_even_fidelity(protection)
    assert 0.8107 < fidelity < 1
    with jax.enable_x64(True):
        near = werner(fidelity=fidelity + np.array([-1e-5, 0.0, 1e-5]))
        below, at, above = np.asarray(protection.net_rate(superdense(near)))
    assert abs(at - 1) < 1e-9
    assert below < 1 - 1e-7 < 1 + 1e-7 < above


@pytest.mark.parametrize("copies", [further(2), 3])
def test_a_code_that_halves_the_rate_never_breaks_even(copies):
    assert jq.economics.break_even_fidelity(repetition(copies)) is None


@pytest.mark.matrix
def test_break_even_is_the_same_within_a_trace():
    seen = []

    @jax.jit
    def traced(x):
        seen.append(jq.economics.break_even_fidelity(IdealCode(0.05)))
        return x

    traced(jnp.zeros(()))
    jq.economics.break_even_fidelity.cache_clear()
    assert seen == [jq.economics.break_even_fidelity(IdealCode(0.05))]


# --- Derivatives ----------------------------------------------------------------------------------

#: name: (a value inside the domain, the ends that are looked at)
PARAMETERS = {
    "fidelity": (0.9995, [0.25, 1.0]),
    "length": (30e3, [0.0]),
    "attenuation_length": (22e3, [INF]),
    "detector_efficiency": (0.9, [0.0, 1.0]),
    "modes": (300.0, [1.0]),
    "signal_speed": (2e8, [INF]),
    "cycle_time": (2e-5, [1e-9]),
    "t1": (3.0, [INF]),
    "t2": (1.0, [INF]),
    "gate_error": (2e-4, [0.0, 1.0]),
    "readout_error": (1e-3, [0.0, 1.0]),
    "pairs": (100.0, [1.0]),
    "survival": (0.998, [0.0, 1.0]),
    "qubit_rate": (1e6, []),
    "bit_rate": (2e6, []),
    "latency": (1e-3, [0.0]),
    "encode_time": (1e-4, [0.0]),
    "measure_time": (2e-4, [0.0]),
    "compute_time": (1e-3, [0.0]),
}
INSIDE = {name: value for name, (value, _) in PARAMETERS.items()}
HARDWARE_NAMES = [*PARAMETERS][:13]
TIME_NAMES = [*PARAMETERS][13:]


def outcomes(values, protection, links, flagged):
    """The whole way from hardware to a budget; the net rate comes first."""
    fibre = ("length", "attenuation_length", "detector_efficiency", "modes", "signal_speed")
    fibre += ("cycle_time", "t1", "t2", "gate_error", "readout_error")
    errors = {name: values[name] for name in ("gate_error", "readout_error")}
    memory = {name: values[name] for name in ("t1", "t2")}
    pair = werner(fidelity=values["fidelity"])
    raw = jq.supply.generate(pair, links=links, **{name: values[name] for name in fibre})
    used = jq.supply.stock(
        jq.supply.purify(raw, rounds=1, **errors), pairs=values["pairs"], **memory
    )
    link = superdense(used.pair, survival=values["survival"], heralded=flagged, **errors)
    times = {name: values[name] for name in TIME_NAMES}
    ring = Ring(link, protection=protection)
    found = jq.economics.budget(ring, 50_000, 4, used, **times)
    return {
        "net rate": found.net_bits_per_qubit,
        "capacity": found.capacity,
        "lifetime saving": found.lifetime_saving,
        "undelivered": found.undelivered / 100,
        "seconds": found.seconds,
        "classical seconds": found.classical_seconds,
    }


@functools.cache
def compiled_slopes(protection, links, flagged, mode):
    run = functools.partial(outcomes, protection=protection, links=links, flagged=flagged)

    def both(at):
        if mode == "all":  # in forward mode
            return jax.jacfwd(lambda at: (run(at),) * 2, has_aux=True)(at)[::-1]

        def net_rate(at):
            found = run(at)
            return found["net rate"], found

        (_, found), slope = jax.value_and_grad(net_rate, has_aux=True)(at)
        return found, {"net rate": slope}

    return jax.jit(jax.vmap(both))


def values_and_slopes(points, *how):
    """Outcomes and derivatives at some points, padded to one shape to compile but once."""
    padded = [*points, *[INSIDE] * (64 - len(points))]
    batch = {name: jnp.array([p[name] for p in padded], dtype=float) for name in PARAMETERS}
    found = compiled_slopes(*how)(batch)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(points)], found)


# protection, elementary links, whether loss is flagged, and the derivatives: of the net rate, in
# reverse mode, or of all outcomes, in forward mode
SMOOTH = [
    (IdealCode(0.1), 1, False, "net rate"),
    further(Retransmit(reed_solomon(255, 223)), 1, False, "net rate"),
    further(Retransmit(reed_solomon(255, 223)), 2, True, "all"),
    further(IdealCode(0.1), 2, True, "net rate"),
    further(IdealCode(0.1), 2, False, "all"),
    further(bch(255, 223, 4), 3, True, "all"),
]


@pytest.mark.parametrize("protection, links, flagged, mode", SMOOTH, ids=str)
def test_derivatives_in_all_hardware_are_those_of_finite_differences(
    protection, links, flagged, mode, x64
):
    # Near one, what matters is how much is missing.
    steps = {name: 1e-6 if name in ("fidelity", "survival") else 1e-5 for name in PARAMETERS}
    ends = [
        INSIDE | {name: INSIDE[name] * (1 + sign * steps[name])}
        for name in PARAMETERS
        for sign in (1, -1)
    ]
    values, slopes = values_and_slopes([INSIDE, *ends], protection, links, flagged, mode)
    assert 1 < values["net rate"][0] < values["capacity"][0] < 2
    for what, slope in slopes.items():
        for i, name in enumerate(PARAMETERS):
            difference = (values[what][2 * i + 1] - values[what][2 * i + 2]) / (2 * steps[name])
            found = slope[name][0] * INSIDE[name]  # per relative change of the parameter
            np.testing.assert_allclose(
                found, difference, rtol=1e-5, atol=1e-8, err_msg=f"{what}, {name}"
            )
            if what in ("net rate", "capacity"):
                assert (abs(found) > 1e-6) == (name in HARDWARE_NAMES), (what, name)
    if mode == "all":
        for name in TIME_NAMES:
            assert max(abs(slopes[what][name][0]) for what in ("seconds", "classical seconds"))


@pytest.mark.parametrize("protection, links, flagged, mode", SMOOTH, ids=str)
def test_values_and_derivatives_are_finite_at_the_ends(protection, links, flagged, mode, x64):
    points = [INSIDE | {name: end} for name, (_, ends) in PARAMETERS.items() for end in ends]
    still = {"t1": INF, "t2": INF}
    perfect = still | {"fidelity": 1.0, "gate_error": 0.0, "readout_error": 0.0, "survival": 1.0}
    points += [
        INSIDE | still,
        INSIDE | perfect,
        INSIDE | perfect | {"length": 0.0, "detector_efficiency": 1.0},
        INSIDE | perfect | {"detector_efficiency": 0.0},
        INSIDE | {"fidelity": 0.25, "length": 0.0},
        INSIDE | {"fidelity": 0.25, "detector_efficiency": 0.0},
        INSIDE | {"fidelity": 0.25, "survival": 0.0},
    ]
    values, slopes = values_and_slopes(points, protection, links, flagged, mode)
    assert not np.isnan(list(values.values())).any()
    net, capacity = values["net rate"], values["capacity"]
    assert np.all((net >= 0) & (net <= capacity + 1e-12) & (capacity <= 2))
    # Without pairs, or without an ideal code that gets through, it takes for ever.
    assert np.all(values["seconds"][[p["detector_efficiency"] == 0 for p in points]] == INF)
    stuck = ~np.isfinite(values["seconds"])
    for what, slope in slopes.items():
        for name, leaf in slope.items():
            bad = ~np.isfinite(leaf)
            if what not in ("net rate", "capacity"):
                bad &= ~stuck
            assert not bad.any(), (what, name, points[np.argmax(bad)], leaf[np.argmax(bad)])


@pytest.mark.matrix
def test_a_supply_without_pairs_keeps_a_ring_waiting_for_ever(x64):
    rate, one = jnp.array([0.0, 1e3]), jnp.ones(2)
    supply = jq.supply.Supply(werner(fidelity=np.array([0.9, 0.9])), rate, one, one / 2)
    found = jq.economics.budget(Ring(noise="off"), 1_000, 4, supply)
    assert found.seconds[0] == found.pair_seconds[0] == INF
    assert np.isfinite(found.seconds[1])
    assert found.speedup[0] == 0
    assert np.all(np.asarray(found.net_bits_per_qubit) == 2)


# --- Batches and traces ---------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("protection", [IdealCode(), Retransmit(reed_solomon(255, 223))], ids=str)
def test_a_sweep_is_its_points_one_by_one_and_compiling_changes_nothing(protection, x64):
    fidelities, rates = np.array([0.9, 0.99, 1.0]), np.array([[1e6], [1e7]])

    def at(fidelity, rate):
        supply = jq.supply.generate(werner(fidelity=fidelity), length=1e4, modes=100)
        ring = Ring(superdense(supply.pair), protection=protection)
        return jq.economics.budget(ring, 10_000, 8, supply, qubit_rate=rate)

    sweep = at(fidelities, rates)
    traced = jax.jit(at)(fidelities, rates)
    one_by_one = jax.jit(jax.vmap(jax.vmap(at, (0, None)), (None, 0)))(fidelities, rates[:, 0])
    assert sweep.protection is traced.protection is protection
    for found in (traced, one_by_one):
        for wanted, leaf in zip(jax.tree.leaves(sweep), jax.tree.leaves(found), strict=True):
            assert wanted.shape == leaf.shape == (2, 3)
            np.testing.assert_allclose(leaf, wanted, rtol=1e-12, atol=1e-200)


# --- Refusals -------------------------------------------------------------------------------------

SUPPLY = jq.supply.generate(werner(fidelity=0.99), length=1e4)
LINK = superdense(SUPPLY.pair)
RING = Ring(LINK, protection=IdealCode())


def budget_with(**options):
    return lambda: jq.economics.budget(RING, 100, 4, SUPPLY, **options)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: jq.economics.budget(Ring(LINK), 100, 4, SUPPLY),
            ValueError,
            ["`ring.protection` must protect every symbol of a noisy ring", "None"],
        ),
        (
            lambda: jq.economics.budget(Ring(LINK, noise="mean"), 100, 4, SUPPLY),
            ValueError,
            ["`ring.protection` must protect every symbol"],
        ),
        (
            lambda: jq.economics.budget(
                Ring(LINK, protection=Unequal(IdealCode(), 2)), 100, 4, SUPPLY
            ),
            ValueError,
            ["`ring.protection` must protect every symbol", "Unequal"],
        ),
        (
            lambda: jq.economics.budget(
                Ring(noise="off", protection=Unequal(IdealCode(), 2)), 100, 4, SUPPLY
            ),
            ValueError,
            ["`ring.protection` must protect every symbol", "Unequal"],
        ),
        (
            lambda: jq.economics.budget(Ring(protection=IdealCode()), 100, 4, SUPPLY),
            TypeError,
            ["`ring.channel` must be a SymbolChannel", "None"],
        ),
        (lambda: jq.economics.budget(LINK, 100, 4, SUPPLY), TypeError, ["`ring` must be a Ring"]),
        (
            lambda: jq.economics.budget(RING, 100, 4, SUPPLY.pair),
            TypeError,
            ["`supply` must be a Supply"],
        ),
        (
            lambda: jq.economics.budget(RING, 100, 4, 0.99),
            TypeError,
            ["`supply` must be a Supply", "0.99"],
        ),
        (
            lambda: jq.economics.budget(RING, -1, 4, SUPPLY),
            ValueError,
            ["size of at least 0", "-1"],
        ),
        (
            lambda: jq.economics.budget(RING, 1.5, 4, SUPPLY),
            TypeError,
            ["a pytree of arrays", "1.5"],
        ),
        (lambda: jq.economics.budget(RING, 100, 0, SUPPLY), ValueError, ["`num_nodes`", "0"]),
        (lambda: jq.economics.budget(RING, 100, 2.0, SUPPLY), ValueError, ["`num_nodes`", "2.0"]),
        (budget_with(collective="pmin"), ValueError, ["`collective` must be one of", "'pmin'"]),
        (budget_with(qubit_rate=0.0), ValueError, ["`qubit_rate` must lie in", "0.0"]),
        (budget_with(qubit_rate=-1e9), ValueError, ["`qubit_rate` must lie in"]),
        (budget_with(qubit_rate=INF), ValueError, ["`qubit_rate` must lie in", "inf"]),
        (budget_with(qubit_rate=math.nan), ValueError, ["`qubit_rate` must lie in", "nan"]),
        (budget_with(qubit_rate="fast"), TypeError, ["`qubit_rate` must be a real number"]),
        (budget_with(bit_rate=0), ValueError, ["`bit_rate` must lie in", "0."]),
        (budget_with(latency=-1e-3), ValueError, ["`latency` must lie in [0, ", "-0.001."]),
        (budget_with(encode_time=-1.0), ValueError, ["`encode_time` must lie in [0, ", "-1.0."]),
        (budget_with(measure_time=-1.0), ValueError, ["`measure_time` must lie in [0, ", "-1.0"]),
        (budget_with(compute_time=[0.0, -1.0]), ValueError, ["`compute_time` must lie in [0, "]),
        (
            lambda: jq.economics.break_even_fidelity(Unequal(IdealCode(), 1)),
            TypeError,
            ["`protection` must be a BlockCode, Retransmit or IdealCode", "Unequal"],
        ),
        (
            lambda: jq.economics.break_even_fidelity(2),
            TypeError,
            ["`protection` must be a BlockCode", "2."],
        ),
    ],
)
def test_a_bad_argument_is_refused_in_one_sentence(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert message.startswith("`")
    assert " must " in message
    assert message.endswith(".")
    assert "\n" not in message
