"""Swapping, distillation and hashing against four qubits written out gate by gate. Exact."""

import functools
import itertools

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring.physics._pair_operations import NEVER

TOLERANCE = {False: 1e-5, True: 1e-12}
#: Both precisions, of which double is the one where less can go wrong.
single_first = pytest.mark.parametrize(
    "x64_on", [False, pytest.param(True, marks=pytest.mark.matrix)]
)
both_protocols = pytest.mark.parametrize("protocol", ["dejmps", "bbpssw"])

CNOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=complex)
HADAMARD = np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2)
ZERO, ONE = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
#: exp(-i pi/4 X)
QUARTER = (np.eye(2) - 1j * dense.X) / np.sqrt(2)

#: Compiled whole, which is quicker than one operation after the other.
swap = jax.jit(jq.swap)
werner = jax.jit(jq.werner)
best_time = jax.jit(jq.pairs.best_purification_time)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- Four qubits A1 B1 A2 B2 ----------------------------------------------------------------------


def on(gate, *qubits):
    """The 16 x 16 matrix of a gate on some of four qubits."""
    rest = [q for q in range(4) if q not in qubits]
    matrix = np.kron(gate, np.eye(2 ** len(rest))).reshape([2] * 8)
    order = np.argsort([*qubits, *rest])
    return matrix.transpose([*order, *(order + 4)]).reshape(16, 16)


def run(gate, rho):
    return gate @ rho @ gate.conj().T


def noisy(rho, weight, *qubits):
    """The weight of two qubits replaced by white noise."""
    kraus = dense.two_qubit_depolarizing_kraus(weight)
    return dense.act([on(k, *qubits) for k in kraus], rho)


def without(rho, *qubits):
    """The two qubits that are left when two others are traced out."""
    left = [q for q in range(4) if q not in qubits]
    tensor = rho.reshape([2] * 8).transpose(
        [*left, *qubits, *(q + 4 for q in left), *(q + 4 for q in qubits)]
    )
    return np.trace(tensor.reshape(4, 4, 4, 4), axis1=1, axis2=3)


def swapped(rho1, rho2, gate_error, readout_error):
    """B1 and A2 measured by CNOT, H and two readings; the Pauli that they name applied to B2."""
    rho = noisy(run(on(CNOT, 1, 2), np.kron(rho1, rho2)), gate_error, 1, 2)
    rho = run(on(HADAMARD, 1), rho)
    total = np.zeros((4, 4), complex)
    for phase, bit, wrong_phase, wrong_bit in itertools.product((0, 1), repeat=4):
        chance = np.prod(
            [readout_error if w else 1 - readout_error for w in (wrong_phase, wrong_bit)]
        )
        kept = run(on((ZERO, ONE)[phase], 1) @ on((ZERO, ONE)[bit], 2), rho)
        correction = on(dense.ENCODINGS[2 * (bit ^ wrong_bit) + (phase ^ wrong_phase)], 3)
        total += chance * without(run(correction, kept), 1, 2)
    return total


def distilled(rho1, rho2, protocol, gate_error, readout_error):
    """Both parties: a turn or twirl, a CNOT, noise, a reading; kept where the readings agree."""
    if protocol == "bbpssw":
        rho1, rho2 = (
            dense.werner_state((dense.BELL[0] @ r @ dense.BELL[0]).real) for r in (rho1, rho2)
        )
    rho = np.kron(rho1, rho2)
    if protocol == "dejmps":
        for qubit in range(4):
            rho = run(on(QUARTER if qubit in (0, 2) else QUARTER.conj().T, qubit), rho)
    for control, target in ((0, 2), (1, 3)):
        rho = noisy(run(on(CNOT, control, target), rho), gate_error, control, target)
    total = np.zeros((4, 4), complex)
    for a, b, wrong_a, wrong_b in itertools.product((0, 1), repeat=4):
        if a ^ wrong_a == b ^ wrong_b:
            chance = np.prod(
                [readout_error if w else 1 - readout_error for w in (wrong_a, wrong_b)]
            )
            total += chance * without(run(on((ZERO, ONE)[a], 2) @ on((ZERO, ONE)[b], 3), rho), 2, 3)
    success = np.trace(total).real
    total = total / success
    if protocol == "bbpssw":
        total = dense.werner_state((dense.BELL[0] @ total @ dense.BELL[0]).real)
    return total, success


#: (state, state, gate error, readout error), the states unlike each other and nowhere diagonal.
CASES = [
    (
        dense.random_state(np.random.default_rng(2 * i)),
        dense.random_state(np.random.default_rng(2 * i + 1)),
        gate,
        readout,
    )
    for i, (gate, readout) in enumerate(
        [(0, 0), (0.13, 0), (0, 0.08), (0.2, 0.3), (1.0, 0.1), (0.1, 1)]
    )
]


@functools.cache
def references(protocol):
    """Results of four qubits for every case, with a third state for a second step."""
    third = dense.random_state(np.random.default_rng(99))
    found = []
    for first, second, gate, readout in CASES:
        if protocol == "swap":
            once = swapped(first, second, gate, readout)
            found.append((once, 1.0, swapped(once, third, gate, readout), 1.0))
        else:
            once = distilled(first, second, protocol, gate, readout)
            found.append((*once, *distilled(once[0], third, protocol, gate, readout)))
    return third, [np.array(field) for field in zip(*found, strict=True)]


@pytest.mark.parametrize("x64_on", [pytest.param(False, marks=pytest.mark.matrix), True])
@pytest.mark.parametrize("operation", ["swap", "dejmps", "bbpssw"])
def test_any_two_states_become_what_four_qubits_make_of_them_twice(operation, x64_on):
    third, (once, success, twice, success_again) = references(operation)
    with jax.enable_x64(x64_on):
        firsts, seconds = (jq.from_density_matrix(np.array([c[i] for c in CASES])) for i in (0, 1))
        errors = {
            "gate_error": np.array([float(c[2]) for c in CASES]),
            "readout_error": np.array([float(c[3]) for c in CASES]),
        }
        third = jq.from_density_matrix(third)
        if operation == "swap":
            pairs = [swap(firsts, seconds, **errors)]
            pairs.append(swap(pairs[0], third, **errors))
            found = [1.0, 1.0]
        else:
            call = functools.partial(jq.distill, protocol=operation, **errors)
            results = [call(firsts, seconds)]
            results.append(call(results[0][0], third))
            pairs, found = zip(*results, strict=True)
        atol = TOLERANCE[x64_on]
        np.testing.assert_allclose(pairs[0].density_matrix(), once, atol=atol)
        np.testing.assert_allclose(pairs[1].density_matrix(), twice, atol=atol)
        np.testing.assert_allclose(found[0], success, atol=atol)
        np.testing.assert_allclose(found[1], success_again, atol=atol)


# --- Swapping -------------------------------------------------------------------------------------


def test_swapped_werner_pairs_multiply_their_weights(x64):
    weight = np.linspace(0, 1, 7)
    product = swap(werner(weight=weight[:, None]), werner(weight=weight))
    expected = werner(weight=weight[:, None] * weight)
    np.testing.assert_allclose(product.correlation, expected.correlation, atol=1e-15)
    first, second = np.linspace(0.25, 1, 7)[:, None], np.linspace(0.25, 1, 5)
    np.testing.assert_allclose(
        swap(werner(fidelity=first), werner(fidelity=second)).fidelity,
        first * second + (1 - first) * (1 - second) / 3,
        atol=1e-15,
    )
    two = swap(werner(fidelity=0.9), werner(fidelity=0.9))
    assert round(float(two.fidelity), 6) == 0.813333
    assert round(float(swap(two, two).fidelity), 6) == 0.673126


def test_swapped_mixtures_of_bell_states_convolve(x64):
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), size=2)
    found = swap(jq.bell_diagonal(p), jq.bell_diagonal(q)).bell_probs
    expected = [sum(p[m] * q[m ^ e] for m in range(4)) for e in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_a_swap_that_reads_nothing_leaves_nothing(x64):
    perfect = werner(fidelity=1.0)
    for errors in ({"gate_error": 1.0}, {"readout_error": 0.5}):
        np.testing.assert_allclose(swap(perfect, perfect, **errors).fidelity, 0.25, atol=1e-15)


# --- Distillation ---------------------------------------------------------------------------------


def bbpssw(fidelity, reliability=1.0, eta=1.0):
    """Fidelity and success probability by the formula of Duer, Briegel, Cirac and Zoller."""
    F, r = fidelity, (1 - fidelity) / 3
    right, wrong = eta**2 + (1 - eta) ** 2, 2 * eta * (1 - eta)
    g = (1 - reliability**2) / (8 * reliability**2)
    denominator = (F**2 + 2 * F * r + 5 * r**2) * right + (F * r + r**2) * 4 * wrong + 4 * g
    return ((F**2 + r**2) * right + (F * r + r**2) * wrong + g) / denominator, (
        reliability**2 * denominator
    )


def test_bbpssw_is_the_formula_of_the_literature_over_a_grid(x64):
    F, reliability, eta = np.meshgrid(
        np.linspace(0.25, 1, 16), np.linspace(0.05, 1, 6), np.linspace(0.5, 1, 6)
    )
    pair = werner(fidelity=F)
    found, success = jq.distill(
        pair, pair, protocol="bbpssw", gate_error=1 - reliability, readout_error=1 - eta
    )
    expected, expected_success = bbpssw(F, reliability, eta)
    np.testing.assert_allclose(found.fidelity, expected, atol=1e-14)
    np.testing.assert_allclose(success, expected_success, atol=1e-14)


@pytest.mark.parametrize(
    "fidelity, errors, better, success",
    [
        (0.8, {}, 0.838150, 0.768889),
        (0.9, {}, 0.926396, 0.875556),
        (0.9, {"gate_error": 0.03, "readout_error": 0.02}, 0.898428, 0.825657),
    ],
)
def test_bbpssw_gives_the_known_numbers(fidelity, errors, better, success, x64):
    pair = werner(fidelity=fidelity)
    found, probability = jq.distill(pair, pair, protocol="bbpssw", **errors)
    assert round(float(found.fidelity), 6) == better
    assert round(float(probability), 6) == success
    np.testing.assert_allclose(
        found.correlation, werner(fidelity=found.fidelity).correlation, atol=1e-15
    )


def test_bbpssw_gains_above_one_half_and_nowhere_else(x64):
    fidelity = np.linspace(0.26, 0.99, 74)
    pair = werner(fidelity=fidelity)
    gain = jq.distill(pair, pair, protocol="bbpssw")[0].fidelity - fidelity
    assert np.all((np.asarray(gain) > 1e-12) == (fidelity > 0.5 + 1e-9))
    w = (4 * fidelity - 1) / 3
    expected = (2 * w + 4 * w**2) / (3 * (1 + w**2))
    np.testing.assert_allclose((4 * (gain + fidelity) - 1) / 3, expected, atol=1e-14)


def dejmps(p, q):
    """Probabilities of Phi+, Phi-, Psi+, Psi- by the formula of Deutsch et al., unequal inputs."""
    (a1, d1, c1, b1), (a2, d2, c2, b2) = p, q
    success = (a1 + b1) * (a2 + b2) + (c1 + d1) * (c2 + d2)
    better = [a1 * a2 + b1 * b2, a1 * b2 + b1 * a2, c1 * c2 + d1 * d2, c1 * d2 + d1 * c2]
    return np.array(better) / success, success


def test_dejmps_is_the_formula_of_the_literature_for_unequal_mixtures(x64):
    p, q = np.random.default_rng(1).dirichlet(np.ones(4), size=(2, 20))
    found, success = jq.distill(jq.bell_diagonal(p), jq.bell_diagonal(q))
    expected, expected_success = dejmps(p.T, q.T)
    np.testing.assert_allclose(found.bell_probs, expected.T, atol=1e-14)
    np.testing.assert_allclose(success, expected_success, atol=1e-14)
    pair = jq.bell_diagonal([0.7, 0.05, 0.1, 0.15])
    found, success = jq.distill(pair, pair)
    assert np.asarray(found.bell_probs).round(6).tolist() == [
        0.687919,
        0.281879,
        0.016779,
        0.013423,
    ]
    assert round(float(success), 6) == 0.745


@both_protocols
def test_perfect_pairs_stay_perfect_and_white_noise_stays_white(protocol, x64):
    for fidelity, success in ((1.0, 1.0), (0.25, 0.5)):
        pair = werner(fidelity=fidelity)
        found, probability = jq.distill(pair, pair, protocol=protocol)
        np.testing.assert_allclose(found.correlation, pair.correlation, atol=1e-15)
        np.testing.assert_allclose(probability, success, atol=1e-15)


@single_first
def test_pairs_that_never_agree_are_white_noise_with_no_slope(x64_on):
    with jax.enable_x64(x64_on):

        def outcome(error):
            opposite = jq.bell_diagonal(jnp.stack([error, 0 * error, 1 - error, 0 * error]))
            pair, success = jq.distill(werner(fidelity=1.0), opposite)
            return jnp.append(pair.bell_probs, success)

        for transform in (jax.jacfwd, jax.jacrev):
            np.testing.assert_array_equal(jax.jit(transform(outcome))(0.0), np.zeros(5))
        np.testing.assert_allclose(jax.jit(outcome)(0.0), [0.25] * 4 + [0], atol=1e-7)
        # A little above the floor it is an answer like any other.
        found = jax.jit(outcome)(100 * NEVER)
        np.testing.assert_allclose(found[4], 100 * NEVER, rtol=1e-2)
        np.testing.assert_allclose(found[:4].sum(), 1, atol=1e-6)


# --- Hashing, and when to purify ------------------------------------------------------------------


def test_hashing_yields_what_entropy_leaves(x64):
    probs = np.random.default_rng(2).dirichlet([8, 1, 1, 1], size=30)
    entropy = -(probs * np.log2(probs)).sum(-1)
    found = jq.pairs.hashing_yield(jq.bell_diagonal(probs))
    np.testing.assert_allclose(found, np.maximum(0, 1 - entropy), atol=1e-13)
    assert (entropy > 1).any()
    assert (entropy < 1).any()
    assert float(jq.pairs.hashing_yield(werner(fidelity=1.0))) == 1.0
    general = jq.from_density_matrix(CASES[0][0] * 0.05 + 0.95 * dense.werner_state(1.0))
    mixture = jq.bell_diagonal(general.bell_probs)
    np.testing.assert_allclose(
        jq.pairs.hashing_yield(general), jq.pairs.hashing_yield(mixture), atol=1e-13
    )


def test_hashing_has_no_slope_where_it_yields_nothing():
    slope = jax.jit(jax.vmap(jax.grad(lambda f: jq.pairs.hashing_yield(werner(fidelity=f)))))
    found = np.asarray(slope(jnp.array([0.25, 0.5, 0.8, 0.82, 0.95, 1.0])))
    assert np.all(np.isfinite(found))
    assert np.all(found[:3] == 0)
    assert np.all(found[3:] > 1)


def test_best_purification_time_is_the_best_of_a_grid(x64):
    grid = itertools.product((0.5, 0.7, 0.9, 1.0), (0.05, 0.7, 5.0), (0.1, 1.0))
    weight, rate, deadline = (np.array(column)[:, None] for column in zip(*grid, strict=True))
    times = deadline * np.linspace(0, 1, 2001)

    @jax.jit
    def fidelity_at_the_deadline(weight, rate, deadline, times):
        memory = {"t1": 2 / rate, "t2": 2 / rate}
        before = jq.supply.wait(jq.werner(weight=weight), time=times, **memory)
        better, _ = jq.distill(before, before, protocol="bbpssw")
        return jq.supply.wait(better, time=deadline - times, **memory).fidelity

    used = fidelity_at_the_deadline(weight, rate, deadline, times)
    best = np.take_along_axis(times, np.argmax(used, axis=1)[:, None], axis=1)
    found = best_time(weight, rate, deadline)
    assert np.all(np.abs(found - best) <= deadline / 1990)
    assert len(set(best.ravel())) > 5


@single_first
def test_best_purification_time_and_its_slopes_are_finite_everywhere(x64_on):
    with jax.enable_x64(x64_on):
        golden = (np.sqrt(5) - 1) / 2
        weight = np.array([0, 0.3, golden, 0.6180341, 0.9, 1.0])[:, None, None]
        rate = np.array([0, 1e-30, 1e-3, 1.0, 1e12])[:, None]
        points = np.broadcast_arrays(weight, rate, np.array([0.0, 1e-3, 1.0, 1e10]))
        points = [jnp.asarray(p.ravel(), dtype=float) for p in points]
        value = best_time(*points)
        slopes = jax.jit(jax.vmap(jax.grad(jq.pairs.best_purification_time, argnums=(0, 1, 2))))(
            *points
        )
        assert np.all((np.asarray(value) >= 0) & (np.asarray(value) <= np.asarray(points[2])))
        assert all(np.all(np.isfinite(slope)) for slope in slopes)
        for above, time in ((0.62, 5.0), (0.61, 0.0)):
            assert float(best_time(above, 0.0, 5.0)) == time
        slope = jax.grad(jq.pairs.best_purification_time, argnums=(0, 1))(0.9, 2.0, 1.0)
        np.testing.assert_allclose(slope, [1 / 1.8, -np.log(0.9 / golden) / 4], rtol=1e-6)


# --- Transformations, derivatives, flags ----------------------------------------------------------


def everything(fidelity, gate, readout):
    """All that this module makes of two unlike pairs."""
    pair = werner(fidelity=fidelity)
    other = pair.apply(kept=jq.amplitude_damping(gamma=0.1))
    found = [swap(pair, other, gate_error=gate, readout_error=readout).correlation.ravel()]
    for protocol in ("dejmps", "bbpssw"):
        better, success = jq.distill(
            pair, other, protocol=protocol, gate_error=gate, readout_error=readout
        )
        found += [better.correlation.ravel(), success[None], jq.pairs.hashing_yield(better)[None]]
    return jnp.concatenate(found)


@functools.cache
def compiled(transform):
    slopes = transform(everything, argnums=(0, 1, 2))
    return jax.jit(lambda *at: (jax.vmap(everything)(*at), jax.vmap(slopes)(*at)))


def values_and_slopes(points, transform):
    """Outputs at (18, 3) points, the one shape that is compiled, and their derivatives."""
    padded = np.resize(np.array(points, float), (18, 3))
    return compiled(transform)(*(jnp.asarray(column, dtype=float) for column in padded.T))


def test_derivatives_are_those_of_finite_differences(x64):
    at = np.array([0.93, 0.04, 0.03])
    steps = 1e-6 * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    values, slopes = values_and_slopes(at + steps, jax.jacfwd)
    for i, slope in enumerate(slopes):
        np.testing.assert_allclose(slope[0], (values[1 + i] - values[4 + i]) / 2e-6, atol=1e-7)
        assert np.abs(slope[0]).max() > 0.1


@pytest.mark.parametrize(
    "x64_on, transform",
    [
        (True, jax.jacfwd),
        pytest.param(False, jax.jacfwd, marks=pytest.mark.matrix),
        pytest.param(False, jax.jacrev, marks=pytest.mark.matrix),
        pytest.param(True, jax.jacrev, marks=pytest.mark.matrix),
    ],
)
def test_values_and_derivatives_are_finite_at_the_ends_of_every_domain(x64_on, transform):
    points = list(itertools.product((0.25, 0.5, 1.0), (0, 1), (0, 0.5, 1)))
    with jax.enable_x64(x64_on):
        values, slopes = values_and_slopes(points, transform)
        assert np.all(np.isfinite(values))
        assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_arguments_broadcast_over_batch_axes(x64):
    first = werner(fidelity=np.array([0.7, 0.8, 0.9]))
    gate = np.array([[0.0], [0.1]])
    pair, success = jq.distill(first, werner(fidelity=0.9), gate_error=gate)
    assert pair.correlation.shape == (2, 3, 4, 4)
    assert success.shape == pair.clipped.shape == (2, 3)
    single, alone = jq.distill(werner(fidelity=0.8), werner(fidelity=0.9), gate_error=0.1)
    np.testing.assert_allclose(pair.correlation[1, 1], single.correlation, atol=1e-15)
    np.testing.assert_allclose(success[1, 1], alone, atol=1e-15)
    long = swap(werner(fidelity=0.9), first, readout_error=gate)
    assert long.correlation.shape == (2, 3, 4, 4)
    assert long.clipped.shape == (2, 3)


def test_traced_errors_out_of_domain_are_clipped_and_flagged():
    good = werner(fidelity=0.9)

    @jax.jit
    def call(fidelity, gate, readout):
        pair = werner(fidelity=fidelity)
        errors = {"gate_error": gate, "readout_error": readout}
        return swap(pair, good, **errors), jq.distill(good, pair, **errors)[0]

    for pair in call(0.9, 0.1, 0.1):
        assert float(pair.clipped) == 0
    edge = call(1.0, 1.0, 0.0)
    for pair, expected in zip(call(1.5, np.nan, -1.0), call(1.0, 0.0, 0.0), strict=True):
        assert float(pair.clipped) == 3
        np.testing.assert_allclose(pair.correlation, expected.correlation, atol=1e-6)
    for pair, expected in zip(call(1.0, 2.0, 0.0), edge, strict=True):
        assert float(pair.clipped) == 1
        np.testing.assert_allclose(pair.correlation, expected.correlation, atol=1e-6)


PAIR = jq.werner(fidelity=0.9)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: jq.swap(PAIR, 0.9), TypeError, "`second` must be a Pair, but got 0.9."),
        (lambda: jq.swap(0.9, PAIR), TypeError, "`first` must be a Pair"),
        (
            lambda: jq.swap(PAIR, PAIR, gate_error=1.1),
            ValueError,
            "`gate_error` must lie in [0, 1], but got 1.1.",
        ),
        (lambda: jq.swap(PAIR, PAIR, readout_error=-0.1), ValueError, "`readout_error` must lie"),
        (lambda: jq.distill(PAIR, None), TypeError, "`second` must be a Pair"),
        (lambda: jq.distill(None, PAIR), TypeError, "`first` must be a Pair"),
        (
            lambda: jq.distill(PAIR, PAIR, protocol="best"),
            ValueError,
            "`protocol` must be one of 'dejmps', 'bbpssw', but got 'best'.",
        ),
        (lambda: jq.distill(PAIR, PAIR, gate_error=-1), ValueError, "`gate_error` must lie in"),
        (lambda: jq.distill(PAIR, PAIR, readout_error=2), ValueError, "`readout_error` must lie"),
        (lambda: jq.distill(PAIR, PAIR, gate_error="no"), TypeError, "`gate_error` must be a real"),
        (lambda: jq.pairs.hashing_yield(0.9), TypeError, "`pair` must be a Pair"),
        (
            lambda: jq.pairs.best_purification_time(1.1, 1.0, 1.0),
            ValueError,
            "`weight` must lie in",
        ),
        (
            lambda: jq.pairs.best_purification_time(0.9, -1.0, 1.0),
            ValueError,
            "`decay_rate` must lie",
        ),
        (
            lambda: jq.pairs.best_purification_time(0.9, 1.0, np.inf),
            ValueError,
            "`deadline` must lie in",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
