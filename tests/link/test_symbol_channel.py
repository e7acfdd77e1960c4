"""Superdense coding against dense matrices, TensorCircuit, finite differences, closed forms.

Nothing here is statistical: settings are drawn with fixed seeds, the comparison is exact.
"""

import functools
import itertools

import dense
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorcircuit as tc

import jaxqring as jq

FIRST, SETTINGS = 36, 240  # 36 have each kind of pair with each kind of first channel
PRECISIONS = {"float32": 1e-6, "float64": 1e-12}
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- Random settings: the same numbers for the package and for the reference ----------------------


def draw_pair(rng, kind):
    if kind == "werner":
        fidelity = rng.uniform(0.25, 1)
        return lambda: jq.werner(fidelity=fidelity), dense.werner_state(fidelity)
    if kind == "werner weight":
        weight = rng.uniform(0, 1)
        return lambda: jq.werner(weight=weight), dense.werner_state((1 + 3 * weight) / 4)
    if kind == "bell diagonal":
        probs = rng.dirichlet(np.ones(4))
        return lambda: jq.bell_diagonal(probs), dense.bell_diagonal_state(probs)
    rho = dense.random_state(rng)
    return lambda: jq.from_density_matrix(rho), rho


def draw_channel(rng, kind):
    u, v, w = rng.uniform(size=3)
    if kind == "pauli":
        x, y, z, _ = rng.dirichlet(np.ones(4))
        return lambda: jq.pauli(x=x, y=y, z=z), dense.pauli_kraus(x, y, z)
    if kind == "depolarizing error_prob":
        return lambda: jq.depolarizing(error_prob=u), dense.pauli_kraus(u / 3, u / 3, u / 3)
    if kind == "depolarizing mix":
        return lambda: jq.depolarizing(mix=u), dense.pauli_kraus(u / 4, u / 4, u / 4)
    if kind == "dephasing":
        return lambda: jq.dephasing(error_prob=u), dense.pauli_kraus(0, 0, u)
    if kind == "bit flip":
        return lambda: jq.bit_flip(error_prob=u), dense.pauli_kraus(u, 0, 0)
    if kind == "amplitude damping":
        return lambda: jq.amplitude_damping(gamma=u), dense.damping_kraus(u)
    if kind == "generalized amplitude damping":
        make = lambda: jq.generalized_amplitude_damping(gamma=u, excited_population=v)  # noqa: E731
        return make, dense.damping_kraus(u, v)
    if kind == "thermal":
        t1 = 0.1 + u
        t2, time = t1 * (0.05 + 1.95 * v), 2 * w
        excited = rng.uniform()
        numbers = {"t1": t1, "t2": t2, "time": time, "excited_population": excited}
        return lambda: jq.thermal_relaxation(**numbers), dense.thermal_kraus(t1, t2, time, excited)
    if kind == "kraus":
        kraus = dense.random_kraus(rng, 3)
        return lambda: jq.from_kraus(np.array(kraus)), kraus
    raise AssertionError(kind)


PAIRS = ["werner", "werner weight", "bell diagonal", "arbitrary"]
CHANNELS = [
    "pauli",
    "depolarizing error_prob",
    "depolarizing mix",
    "dephasing",
    "bit flip",
    "amplitude damping",
    "generalized amplitude damping",
    "thermal",
    "kraus",
]


def draw_setting(seed):
    """A function that calls the package, and the arguments of `dense.transition`."""
    rng = np.random.default_rng(seed)
    pair, rho = draw_pair(rng, PAIRS[seed % len(PAIRS)])
    # Offsets make every kind of channel visit every stage.
    kinds = [CHANNELS[(seed + shift * (seed // 9 + 1)) % len(CHANNELS)] for shift in range(3)]
    channels = {
        stage: draw_channel(rng, kind)
        for stage, kind in zip(("before", "sent", "kept"), kinds, strict=True)
    }
    gate, survival, flip = rng.uniform(size=3)
    if seed % 3 == 0:
        readout = tuple(rng.dirichlet(np.ones(2), size=2).T for _ in "ab")
        readout_error = readout
    else:
        readout, readout_error = dense.flip_matrices(flip), flip
    heralded = seed % 2 == 1

    def package():
        made = {stage: make() for stage, (make, _) in channels.items()}
        return jq.superdense(
            pair(),
            **made,
            gate_error=gate,
            readout_error=readout_error,
            survival=survival,
            heralded=heralded,
        )

    reference = dict(
        rho=rho,
        **{stage: kraus for stage, (_, kraus) in channels.items()},
        gate=gate,
        readout=readout,
        survival=survival,
        heralded=heralded,
    )
    return package, reference


@functools.cache
def reference_transition(seed):
    return dense.transition(**draw_setting(seed)[1])


# --- The whole calculation, twice -----------------------------------------------------------------


# The two precisions among the quick tests take a witness each.
@pytest.mark.parametrize("precision", [further("float32"), "float64"])
@pytest.mark.parametrize("seeds", [range(FIRST), further(range(FIRST, SETTINGS))], ids=str)
def test_transition_equals_the_dense_density_matrix_calculation(precision, seeds):
    with jax.enable_x64(precision == "float64"):
        for seed in seeds:
            package, reference = draw_setting(seed)
            found = package().transition
            assert found.dtype == precision
            expected = reference_transition(seed)
            assert found.shape == ((5, 4) if reference["heralded"] else (4, 4))
            worst = np.abs(np.asarray(found) - expected).max()
            assert worst < PRECISIONS[precision], (seed, worst)


def tensorcircuit_transition(
    rho, *, before, sent, kept, gate, readout, survival, heralded
) -> np.ndarray:
    """The same link as a circuit: every imperfection a Kraus channel, loss a replaced qubit."""
    columns = []
    lost = 0.0 if heralded else 1 - survival
    with tc.runtime_dtype("complex128"):
        for symbol in range(4):
            circuit = tc.DMCircuit(2, dminputs=rho)
            circuit.general_kraus(list(before), 0)
            circuit.general_kraus(list(kept), 1)
            if symbol & 1:
                circuit.z(0)
            if symbol >> 1:
                circuit.x(0)
            circuit.general_kraus(list(sent), 0)
            # The qubit that travels is replaced by I/2.
            circuit.general_kraus(dense.pauli_kraus(lost / 4, lost / 4, lost / 4), 0)
            circuit.cnot(0, 1)
            circuit.h(0)
            circuit.general_kraus(dense.two_qubit_depolarizing_kraus(gate), 0, 1)
            # Now qubit 0 holds the phase b, qubit 1 the parity a; a misreading is a classical
            # channel on each of them.
            for qubit, matrix in ((1, readout[0]), (0, readout[1])):
                misread = [
                    np.sqrt(matrix[seen, true]) * np.outer(np.eye(2)[seen], np.eye(2)[true])
                    for seen, true in itertools.product(range(2), repeat=2)
                ]
                circuit.general_kraus(misread, qubit)
            both = np.real(np.diag(circuit.densitymatrix())).reshape(2, 2)  # [b, a]
            column = both.T.reshape(4)  # 2a + b
            columns.append(np.append(survival * column, 1 - survival) if heralded else column)
    return np.array(columns).T


@pytest.mark.parametrize("precision", ["float32", further("float64")])
def test_transition_equals_tensorcircuits_density_matrix_simulator(precision):
    for seed in range(1000, 1027):  # every kind of channel at every stage
        package, reference = draw_setting(seed)
        expected = tensorcircuit_transition(**reference)
        with jax.enable_x64(precision == "float64"):
            found = np.asarray(package().transition)
        worst = np.abs(found - expected).max()
        assert worst < PRECISIONS[precision], (seed, worst)


def test_stages_that_are_left_out_are_noiseless(x64):
    rho = dense.random_state(np.random.default_rng(1))
    pair = jq.from_density_matrix(rho)
    kraus = dense.random_kraus(np.random.default_rng(2), 2)
    channel = jq.from_kraus(np.array(kraus))
    for stage in ("before", "sent", "kept"):
        found = jq.superdense(pair, **{stage: channel}).transition
        expected = dense.transition(rho, **{stage: kraus}, heralded=False)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_perfect_link_is_the_identity():
    np.testing.assert_array_equal(jq.superdense(jq.werner(fidelity=1.0)).transition, np.eye(4))


@pytest.mark.parametrize("symbol", range(4))
def test_a_pair_in_another_bell_state_shifts_every_symbol_by_it(symbol):
    probs = np.eye(4)[symbol]
    found = np.asarray(jq.superdense(jq.bell_diagonal(probs)).transition)
    np.testing.assert_array_equal(found.argmax(0), [m ^ symbol for m in range(4)])
    np.testing.assert_array_equal(found.max(0), 1.0)


def test_batched_arguments_give_each_link_its_own_matrix(x64):
    fidelity = np.array([[0.7], [0.9]])
    gamma = np.array([0.0, 0.1, 0.4])
    gate = np.array([0.02, 0.0, 0.3])
    survival = np.array([[0.9], [0.6]])
    for heralded in (False, True):
        batch = jq.superdense(
            jq.werner(fidelity=fidelity),
            sent=jq.amplitude_damping(gamma=gamma),
            kept=jq.dephasing(error_prob=0.05),
            gate_error=gate,
            survival=survival,
            heralded=heralded,
        )
        assert batch.transition.shape == (2, 3, 5 if heralded else 4, 4)
        assert batch.error_prob.shape == (2, 3)
        assert batch.flip_probs.shape == (2, 3, 2)
        for i, j in np.ndindex(2, 3):
            expected = dense.transition(
                dense.werner_state(fidelity[i, 0]),
                sent=dense.damping_kraus(gamma[j]),
                kept=dense.pauli_kraus(0, 0, 0.05),
                gate=gate[j],
                survival=survival[i, 0],
                heralded=heralded,
            )
            np.testing.assert_allclose(batch.transition[i, j], expected, atol=1e-12)


def test_jit_and_vmap_agree_with_the_eager_call(x64):
    def link(numbers):
        fidelity, gamma, gate, flip, survival = numbers
        return jq.superdense(
            jq.werner(fidelity=fidelity),
            sent=jq.amplitude_damping(gamma=gamma),
            kept=jq.amplitude_damping(gamma=gamma),
            gate_error=gate,
            readout_error=flip,
            survival=survival,
        ).transition

    rows = np.random.default_rng(3).uniform(0.3, 0.9, size=(5, 5))
    mapped = jax.jit(jax.vmap(link))(rows)
    for row, found in zip(rows, mapped, strict=True):
        np.testing.assert_allclose(found, link(row), atol=1e-14)


# --- Derivatives ----------------------------------------------------------------------------------

PARAMETERS = {
    "fidelity": 0.87,
    "before_gamma": 0.12,
    "before_excited": 0.23,
    "before_phase": 0.04,
    "sent_mix": 0.11,
    "sent_error": 0.07,
    "sent_bit": 0.06,
    "t1": 3.1,
    "t2": 2.3,
    "time": 0.37,
    "excited": 0.15,
    "kept_x": 0.03,
    "kept_y": 0.05,
    "kept_z": 0.02,
    "kept_gamma": 0.09,
    "gate": 0.04,
    "readout": 0.03,
    "survival": 0.83,
}


def everything(vector, heralded=False, matrices=False):
    p = dict(zip(PARAMETERS, vector, strict=True))
    flip = p["readout"]
    if matrices:
        flip = (
            jnp.array([[1 - flip, 2 * flip], [flip, 1 - 2 * flip]]),
            jnp.array([[1 - flip**2, 0.1], [flip**2, 0.9]]),
        )
    return jq.superdense(
        jq.werner(fidelity=p["fidelity"]),
        before=jq.generalized_amplitude_damping(
            gamma=p["before_gamma"], excited_population=p["before_excited"]
        ).then(jq.dephasing(error_prob=p["before_phase"])),
        sent=jq.depolarizing(mix=p["sent_mix"])
        .then(jq.depolarizing(error_prob=p["sent_error"]))
        .then(jq.bit_flip(error_prob=p["sent_bit"]))
        .then(
            jq.thermal_relaxation(
                t1=p["t1"], t2=p["t2"], time=p["time"], excited_population=p["excited"]
            )
        ),
        kept=jq.pauli(x=p["kept_x"], y=p["kept_y"], z=p["kept_z"]).then(
            jq.amplitude_damping(gamma=p["kept_gamma"])
        ),
        gate_error=p["gate"],
        readout_error=flip,
        survival=p["survival"],
        heralded=heralded,
    ).transition


@functools.cache
def jacobians(heralded, matrices):
    """In forward and in reverse mode, compiled once for each precision."""
    link = functools.partial(everything, heralded=heralded, matrices=matrices)
    return jax.jit(jax.jacfwd(link)), jax.jit(jax.jacrev(link))


@pytest.mark.parametrize("heralded, matrices", [(False, False), further(True, True)])
def test_jacobian_of_every_parameter_equals_central_differences(x64, heralded, matrices):
    def link(vector):
        return everything(vector, heralded, matrices)

    point = np.array(list(PARAMETERS.values()))
    evaluate = jax.jit(jax.vmap(link))
    step = 1e-5  # error step^2 + 1e-16 / step, both near 1e-10
    shifts = step * np.eye(len(point))
    differences = (evaluate(point + shifts) - evaluate(point - shifts)) / (2 * step)
    differences = np.moveaxis(np.asarray(differences), 0, -1)
    for jacobian in jacobians(heralded, matrices):
        found = jacobian(jnp.asarray(point))
        np.testing.assert_allclose(found, differences, atol=1e-8)
    assert np.all(np.abs(differences).max((0, 1)) > 1e-4)  # no parameter is idle


def test_jacobian_of_pair_and_kraus_entries_equals_central_differences(x64):
    rng = np.random.default_rng(5)
    rho, kraus = dense.random_state(rng), np.array(dense.random_kraus(rng, 2))
    drho = dense.random_state(rng) - rho
    weights = rng.dirichlet(np.ones(4))

    def link(t):
        turned = kraus * jnp.exp(1j * t * np.arange(2))[:, None, None]
        rotation = jnp.array([[jnp.cos(t), -jnp.sin(t)], [jnp.sin(t), jnp.cos(t)]])
        rotated = jnp.einsum("ab,kbc->kac", rotation.astype(complex), turned)
        one = jq.superdense(jq.from_density_matrix(rho + t * drho), kept=jq.from_kraus(rotated))
        probs = weights + t * (np.roll(weights, 1) - weights)
        return one.transition + jq.superdense(jq.bell_diagonal(probs)).transition

    at, step = 0.1, 1e-5
    evaluate = jax.jit(link)
    differences = (evaluate(at + step) - evaluate(at - step)) / (2 * step)
    assert np.abs(differences).max() > 0.01
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(jacobian(link))(at), differences, atol=1e-8)


def thermal(**changed):
    return jq.thermal_relaxation(
        **({"t1": 3.0, "t2": 2.0, "time": 0.4, "excited_population": 0.2} | changed)
    )


NOISY = {"before": (0.1, 0.2), "kept": (0.15, 0.3)}


def link_with(pair=None, sent=None, **options):
    """A link with damping on both halves, where every parameter has something to act on."""
    before, kept = (
        jq.generalized_amplitude_damping(gamma=g, excited_population=e) for g, e in NOISY.values()
    )
    pair = jq.werner(fidelity=0.9) if pair is None else pair
    return jq.superdense(pair, before=before, sent=sent, kept=kept, **options).transition


#: name: (function of one parameter, where, direction into the domain)
EDGES = {
    "werner fidelity 1": (lambda v: link_with(jq.werner(fidelity=v)), 1.0, -1),
    "werner fidelity 1/4": (lambda v: link_with(jq.werner(fidelity=v)), 0.25, 1),
    "werner weight 1": (lambda v: link_with(jq.werner(weight=v)), 1.0, -1),
    "werner weight 0": (lambda v: link_with(jq.werner(weight=v)), 0.0, 1),
    "bell diagonal": (
        lambda v: link_with(jq.bell_diagonal(jnp.stack([1 - v, v / 2, v / 3, v / 6]))),
        0.0,
        1,
    ),
    "pauli x 0": (lambda v: link_with(sent=jq.pauli(x=v, y=0.0, z=0.0)), 0.0, 1),
    "pauli y 0": (lambda v: link_with(sent=jq.pauli(x=0.0, y=v, z=0.0)), 0.0, 1),
    "pauli z 0": (lambda v: link_with(sent=jq.pauli(x=0.0, y=0.0, z=v)), 0.0, 1),
    "pauli x 1": (lambda v: link_with(sent=jq.pauli(x=v, y=0.0, z=0.0)), 1.0, -1),
    "pauli sum 1": (lambda v: link_with(sent=jq.pauli(x=0.5, y=0.25, z=v)), 0.25, -1),
    "depolarizing error_prob 0": (
        lambda v: link_with(sent=jq.depolarizing(error_prob=v)), 0.0, 1),
    "depolarizing error_prob 1": (
        lambda v: link_with(sent=jq.depolarizing(error_prob=v)), 1.0, -1),
    "depolarizing mix 0": (lambda v: link_with(sent=jq.depolarizing(mix=v)), 0.0, 1),
    "depolarizing mix 1": (lambda v: link_with(sent=jq.depolarizing(mix=v)), 1.0, -1),
    "dephasing 0": (lambda v: link_with(sent=jq.dephasing(error_prob=v)), 0.0, 1),
    "dephasing 1": (lambda v: link_with(sent=jq.dephasing(error_prob=v)), 1.0, -1),
    "bit flip 0": (lambda v: link_with(sent=jq.bit_flip(error_prob=v)), 0.0, 1),
    "bit flip 1": (lambda v: link_with(sent=jq.bit_flip(error_prob=v)), 1.0, -1),
    "damping gamma 0": (lambda v: link_with(sent=jq.amplitude_damping(gamma=v)), 0.0, 1),
    "generalized gamma 0": (
        lambda v: link_with(
            sent=jq.generalized_amplitude_damping(gamma=v, excited_population=0.3)),
        0.0,
        1,
    ),
    "generalized excited 0": (
        lambda v: link_with(
            sent=jq.generalized_amplitude_damping(gamma=0.2, excited_population=v)),
        0.0,
        1,
    ),
    "generalized excited 1": (
        lambda v: link_with(
            sent=jq.generalized_amplitude_damping(gamma=0.2, excited_population=v)),
        1.0,
        -1,
    ),
    "generalized excited at gamma 0": (
        lambda v: link_with(
            sent=jq.generalized_amplitude_damping(gamma=0.0, excited_population=v)),
        0.0,
        1,
    ),
    "thermal time 0": (lambda v: link_with(sent=thermal(time=v)), 0.0, 1),
    "thermal t1 at time 0": (lambda v: link_with(sent=thermal(t1=v, time=0.0)), 3.0, 1),
    "thermal t2 at time 0": (lambda v: link_with(sent=thermal(t2=v, time=0.0)), 2.0, 1),
    "thermal t2 at 2 t1": (lambda v: link_with(sent=thermal(t2=v)), 6.0, -1),
    "thermal t1 at t2 / 2": (lambda v: link_with(sent=thermal(t1=v)), 1.0, 1),
    "thermal time at t1 infinite": (
        lambda v: link_with(sent=thermal(time=v, t1=np.inf)), 0.0, 1),
    "thermal time at both infinite": (
        lambda v: link_with(sent=thermal(time=v, t1=np.inf, t2=np.inf)), 0.0, 1),
    "thermal excited 0": (lambda v: link_with(sent=thermal(excited_population=v)), 0.0, 1),
    "gate error 0": (lambda v: link_with(gate_error=v), 0.0, 1),
    "gate error 1": (lambda v: link_with(gate_error=v), 1.0, -1),
    "readout error 0": (lambda v: link_with(readout_error=v), 0.0, 1),
    "readout error 1": (lambda v: link_with(readout_error=v), 1.0, -1),
    "readout matrices": (
        lambda v: link_with(readout_error=(
            jnp.array([[1 - v, 0.0], [v, 1.0]]), jnp.array([[1.0, v], [0.0, 1 - v]]))),
        0.0,
        1,
    ),
    "survival 1": (lambda v: link_with(survival=v), 1.0, -1),
    "survival 0": (lambda v: link_with(survival=v), 0.0, 1),
    "heralded survival 1": (lambda v: link_with(survival=v, heralded=True), 1.0, -1),
    "heralded survival 0": (lambda v: link_with(survival=v, heralded=True), 0.0, 1),
}  # fmt: skip

#: Here the transition matrix does not depend on the parameter at all.
IDLE = {
    "thermal t1 at time 0",
    "thermal t2 at time 0",
    "thermal time at both infinite",
    "generalized excited at gamma 0",
}


#: One end of each kind of parameter; all others are in the lane `matrix`.
NEAR = {
    "werner fidelity 1",
    "bell diagonal",
    "pauli x 0",
    "pauli sum 1",
    "depolarizing mix 0",
    "damping gamma 0",
    "generalized excited at gamma 0",
    "thermal time 0",
    "thermal t2 at 2 t1",
    "thermal time at t1 infinite",
    "gate error 0",
    "readout error 0",
    "readout matrices",
    "heralded survival 1",
}


@pytest.mark.parametrize("name", [x if x in NEAR else further(x) for x in EDGES])
def test_derivative_at_the_edge_of_a_domain_is_finite_and_full(name):
    link, at, inward = EDGES[name]

    def everything_at(value):
        return link(value), jax.jacfwd(link)(value), jax.jacrev(link)(value)

    with jax.enable_x64(True):
        h = inward * 1e-5
        # One-sided and of second order: error about h^2, rounding 1e-11.
        values, forward, reverse = jax.jit(jax.vmap(everything_at))(at + h * np.arange(3))
        start, middle, end = np.asarray(values)
        expected = (-3 * start + 4 * middle - end) / (2 * h)
        assert (np.abs(expected).max() > 1e-3) == (name not in IDLE)
        np.testing.assert_allclose(forward[0], expected, atol=1e-8)
        np.testing.assert_allclose(reverse[0], expected, atol=1e-8)
    _, forward, reverse = jax.jit(everything_at)(np.float32(at))
    for found in (forward, reverse):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("x64_on", [further(False), True])
def test_all_derivatives_together_are_finite_at_exactly_zero_noise(x64_on):
    zero = dict.fromkeys(PARAMETERS, 0.0) | {"fidelity": 1.0, "t1": 3.0, "t2": 2.0, "survival": 1.0}
    with jax.enable_x64(x64_on):
        point = jnp.array(list(zero.values()))
        for jacobian in jacobians(heralded=False, matrices=False):
            slopes = np.asarray(jacobian(point))
            assert np.all(np.isfinite(slopes))
            np.testing.assert_allclose(slopes.sum(0), 0.0, atol=1e-5)  # columns stay at one


# --- Values known only inside a trace -------------------------------------------------------------

OUTSIDE = {
    "werner fidelity high": (lambda v: jq.superdense(jq.werner(fidelity=v)), 1.2, 1.0),
    "werner fidelity low": (lambda v: jq.superdense(jq.werner(fidelity=v)), 0.1, 0.25),
    "werner weight": (lambda v: jq.superdense(jq.werner(weight=v)), -0.5, 0.0),
    "sent": (
        lambda v: jq.superdense(jq.werner(fidelity=0.9), sent=jq.dephasing(error_prob=v)), -1, 0.0),
    "kept": (
        lambda v: jq.superdense(jq.werner(fidelity=0.9), kept=jq.bit_flip(error_prob=v)), 3.0, 1.0),
    "before": (
        lambda v: jq.superdense(jq.werner(fidelity=0.9), before=jq.amplitude_damping(gamma=v)),
        1.7, 1.0),
    "gate": (lambda v: jq.superdense(jq.werner(fidelity=0.9), gate_error=v), -0.2, 0.0),
    "readout": (lambda v: jq.superdense(jq.werner(fidelity=0.9), readout_error=v), 1.1, 1.0),
    "survival": (lambda v: jq.superdense(jq.werner(fidelity=0.9), survival=v), 1.1, 1.0),
    "heralded survival": (
        lambda v: jq.superdense(jq.werner(fidelity=0.9), survival=v, heralded=True), -0.1, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_traced_values_out_of_domain_are_clipped_and_flagged_and_never_nan(name):
    make, outside, edge = OUTSIDE[name]
    traced = jax.jit(make)
    np.testing.assert_allclose(traced(outside).transition, make(edge).transition, atol=1e-6)
    assert float(traced(outside).clipped) == 1
    assert float(traced(edge).clipped) == 0
    unknown = traced(np.nan)
    assert np.all(np.isfinite(unknown.transition))
    assert float(unknown.clipped) == 1
    with pytest.raises(ValueError, match="must lie in"):
        make(outside)


@pytest.mark.parametrize("name", OUTSIDE)
def test_derivative_with_respect_to_a_clipped_value_is_zero_and_not_nan(name):
    make, outside, _ = OUTSIDE[name]

    def link(value):
        return make(value).transition

    for slope in jax.jit(lambda v: (jax.jacrev(link)(v), jax.jacfwd(link)(v)))(float(outside)):
        np.testing.assert_array_equal(slope, 0.0)


def test_clipped_counts_every_parameter_that_was_moved():
    @jax.jit
    def count(a, b, c):
        return jq.superdense(
            jq.werner(fidelity=a),
            sent=jq.dephasing(error_prob=b),
            kept=jq.dephasing(error_prob=0.1),
            gate_error=c,
        ).clipped

    assert float(count(1.5, -0.5, 2.0)) == 3
    assert float(count(0.9, -0.5, 2.0)) == 2
    assert float(count(0.9, 0.1, 0.2)) == 0


def test_clipped_has_the_shape_of_the_batch():
    make = jax.jit(lambda f, g: jq.superdense(jq.werner(fidelity=f), gate_error=g))
    link = make(jnp.array([[0.9], [1.1]]), jnp.array([0.1, -0.1, 0.3]))
    assert link.transition.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(link.clipped, [[0, 1, 0], [1, 2, 1]])


# --- Closed forms ---------------------------------------------------------------------------------

BITS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def sixteen_entries(before, sent, kept):
    """The sixteen entries in closed form; each stage is (lambda_x, lambda_z, shift)."""
    x = before[0] * sent[0] * kept[0]
    matrix = np.zeros((4, 4))
    for r, (ra, rb) in enumerate(BITS):
        for m, (ma, mb) in enumerate(BITS):
            x_r, z_r, x_m, z_m = (-1) ** rb, (-1) ** ra, (-1) ** mb, (-1) ** ma
            way = before[1] * sent[1] * kept[1] + sent[1] * before[2] * kept[2]
            matrix[r, m] = (
                1 + (x_r * x_m + x_r * z_r * x_m * z_m) * x + z_r * (z_m * way + sent[2] * kept[2])
            ) / 4
    return matrix


def test_thermal_noise_at_three_stages_obeys_the_sixteen_entry_closed_form(x64):
    rng = np.random.default_rng(7)
    for _ in range(40):
        stages, channels = [], []
        for _ in range(3):
            t1, excited, time = rng.uniform(0.5, 2), rng.uniform(), rng.uniform(0, 2)
            t2 = t1 * rng.uniform(0.1, 2)
            e1, e2 = np.exp(-time / t1), np.exp(-time / t2)
            stages.append((e2, e1, (1 - e1) * (1 - 2 * excited)))
            channels.append(
                jq.thermal_relaxation(t1=t1, t2=t2, time=time, excited_population=excited)
            )
        before, sent, kept = channels
        found = jq.superdense(jq.werner(fidelity=1.0), before=before, sent=sent, kept=kept)
        np.testing.assert_allclose(found.transition, sixteen_entries(*stages), atol=1e-14)


SWEEP = np.linspace(0, 1, 21)


def damping_probs(gamma):
    s = np.sqrt(1 - gamma)
    return np.stack([(1 + s) ** 2, (1 - s) ** 2, gamma, gamma], axis=-1) / 4


@pytest.mark.parametrize("stage", ["before", "sent", "kept"])
def test_amplitude_damping_on_one_half_is_xor_symmetric_with_the_known_probabilities(x64, stage):
    channel = jq.amplitude_damping(gamma=SWEEP)
    link = jq.superdense(jq.werner(fidelity=1.0), **{stage: channel})
    np.testing.assert_allclose(link.xor_probs, damping_probs(SWEEP), atol=1e-14)
    assert np.all(link.is_xor_symmetric)
    hot = jq.generalized_amplitude_damping(gamma=SWEEP, excited_population=0.37)
    link = jq.superdense(jq.werner(fidelity=1.0), **{stage: hot})
    np.testing.assert_allclose(link.xor_probs, damping_probs(SWEEP), atol=1e-14)


def test_amplitude_damping_of_a_tenth_has_the_stated_numbers(x64):
    link = jq.superdense(jq.werner(fidelity=1.0), sent=jq.amplitude_damping(gamma=0.1))
    np.testing.assert_allclose(link.xor_probs, [0.949342, 0.000658, 0.025, 0.025], atol=5e-7)
    assert float(link.capacity()) == pytest.approx(1.655744, abs=1e-6)


def test_amplitude_damping_on_both_halves_breaks_xor_symmetry(x64):
    gamma = SWEEP[1:]
    link = jq.superdense(
        jq.werner(fidelity=1.0),
        sent=jq.amplitude_damping(gamma=gamma),
        kept=jq.amplitude_damping(gamma=gamma),
    )
    assert not np.any(link.is_xor_symmetric)
    # The term that breaks it is gamma^2 / 4 with the sign of the received bit a.
    table = np.asarray(link.error_table)
    lean = table[:, 0, 0] - table[:, 2, 0]
    np.testing.assert_allclose(lean, gamma**2 / 2, atol=1e-14)
    # Averaged over the symbols the XOR-symmetric part is left.
    pure = [sixteen_entries((1, 1, 0), (s, s * s, g), (s, s * s, g))
            for g, s in zip(gamma, np.sqrt(1 - gamma), strict=True)]  # fmt: skip
    np.testing.assert_allclose(link.transition, pure, atol=1e-14)
    np.testing.assert_allclose(link.xor_probs, [dense.xor_probs(t) for t in pure], atol=1e-14)


def test_thermal_noise_on_one_half_has_the_known_probabilities(x64):
    time = np.linspace(0, 5, 11)
    for t1, t2, excited in ((10.0, 7.0, 0.0), (2.0, 4.0, 0.3), (np.inf, 3.0, 0.5)):
        channel = jq.thermal_relaxation(t1=t1, t2=t2, time=time, excited_population=excited)
        link = jq.superdense(jq.werner(fidelity=1.0), kept=channel)
        e1, e2 = np.exp(-time / t1), np.exp(-time / t2)
        expected = np.stack([1 + e1 + 2 * e2, 1 + e1 - 2 * e2, 1 - e1, 1 - e1], axis=-1) / 4
        np.testing.assert_allclose(link.xor_probs, expected, atol=1e-14)
        assert np.all(link.is_xor_symmetric)
    channel = jq.thermal_relaxation(t1=10.0, t2=7.0, time=1.0)
    found = jq.superdense(jq.werner(fidelity=1.0), sent=channel).xor_probs
    np.testing.assert_allclose(found, [0.909648, 0.042770, 0.023791, 0.023791], atol=5e-7)


def test_dephasing_and_bit_flip_each_harm_their_own_bit(x64):
    zeros = np.zeros_like(SWEEP)
    link = jq.superdense(jq.werner(fidelity=1.0), sent=jq.dephasing(error_prob=SWEEP))
    np.testing.assert_allclose(
        link.xor_probs, np.stack([1 - SWEEP, SWEEP, zeros, zeros], axis=-1), atol=1e-14
    )
    np.testing.assert_allclose(link.flip_probs, np.stack([zeros, SWEEP], axis=-1), atol=1e-14)
    link = jq.superdense(jq.werner(fidelity=1.0), sent=jq.bit_flip(error_prob=SWEEP))
    np.testing.assert_allclose(link.flip_probs, np.stack([SWEEP, zeros], axis=-1), atol=1e-14)


def convolve(p, q):
    return np.array([sum(p[m] * q[m ^ e] for m in range(4)) for e in range(4)])


def test_bell_diagonal_pairs_and_pauli_noise_convolve(x64):
    rng = np.random.default_rng(8)
    for _ in range(30):
        probs = rng.dirichlet(np.ones(4))
        noise = rng.dirichlet(np.ones(4), size=3)  # weights of I, Z, X, Y: errors 0, 1, 2, 3
        before, sent, kept = (jq.pauli(x=n[2], y=n[3], z=n[1]) for n in noise)
        link = jq.superdense(jq.bell_diagonal(probs), before=before, sent=sent, kept=kept)
        expected = probs
        for n in noise:
            expected = convolve(expected, n)
        np.testing.assert_allclose(link.xor_probs, expected, atol=1e-14)
        assert bool(link.is_xor_symmetric)
        np.testing.assert_allclose(link.transition[:, 2], expected[[2, 3, 0, 1]], atol=1e-14)


def test_werner_pairs_have_symbol_error_one_less_the_fidelity(x64):
    fidelity = np.linspace(0.25, 1, 16)
    link = jq.superdense(jq.werner(fidelity=fidelity))
    np.testing.assert_allclose(link.error_prob, 1 - fidelity, atol=1e-14)
    flips = 2 * (1 - fidelity) / 3
    np.testing.assert_allclose(link.flip_probs, np.stack([flips, flips], axis=-1), atol=1e-14)
    np.testing.assert_allclose(link.xor_probs[:, 3], (1 - fidelity) / 3, atol=1e-14)


def test_depolarizing_anywhere_multiplies_the_werner_weight(x64):
    for stage, mix in itertools.product(("before", "sent", "kept"), SWEEP):
        link = jq.superdense(jq.werner(weight=0.8), **{stage: jq.depolarizing(mix=mix)})
        expected = jq.superdense(jq.werner(weight=0.8 * (1 - mix)))
        np.testing.assert_allclose(link.transition, expected.transition, atol=1e-14)


def entropy(probs):
    probs = np.asarray(probs)[np.asarray(probs) > 0]
    return -np.sum(probs * np.log2(probs))


@pytest.mark.parametrize("fidelity, expected", [(0.9, 1.372508), (0.95, 1.634355)])
def test_werner_capacities_have_the_stated_numbers(x64, fidelity, expected):
    link = jq.superdense(jq.werner(fidelity=fidelity))
    assert float(link.capacity()) == pytest.approx(expected, abs=1e-6)
    assert float(link.error_prob) == pytest.approx(1 - fidelity, abs=1e-12)


def test_flagged_loss_scales_the_capacity_and_unflagged_loss_is_noise(x64):
    for survival in SWEEP[1:]:
        for fidelity in (0.5, 0.9, 0.97):
            q = np.array([fidelity, *[(1 - fidelity) / 3] * 3])
            flagged = jq.superdense(jq.werner(fidelity=fidelity), survival=survival, heralded=True)
            expected = survival * (2 - entropy(q))
            assert float(flagged.capacity()) == pytest.approx(expected, abs=1e-9)
            assert float(flagged.erasure_prob) == pytest.approx(1 - survival, abs=1e-14)
            # What is not flagged sums to the survival.
            np.testing.assert_allclose(flagged.xor_probs, survival * q, atol=1e-14)
            silent = jq.superdense(jq.werner(fidelity=fidelity), survival=survival)
            np.testing.assert_allclose(
                silent.xor_probs, survival * q + (1 - survival) / 4, atol=1e-14
            )
            assert float(silent.erasure_prob) == 0
            # A receiver who guesses throws the flag away.
            np.testing.assert_allclose(flagged.guessed().transition, silent.transition, atol=1e-14)


def test_loss_of_a_tenth_has_the_stated_numbers(x64):
    silent = jq.superdense(jq.werner(fidelity=0.9), survival=0.9)
    assert 1 - float(silent.error_prob) == pytest.approx(0.835, abs=1e-12)
    flagged = jq.superdense(jq.werner(fidelity=0.9), survival=0.9, heralded=True)
    assert float(flagged.capacity()) == pytest.approx(1.235257, abs=1e-6)
    assert float(flagged.error_prob) == pytest.approx(0.09, abs=1e-12)


def test_symmetric_readout_error_damps_the_walsh_spectrum(x64):
    walsh = np.array([[(-1) ** bin(s & e).count("1") for e in range(4)] for s in range(4)])
    weight = np.array([0, 1, 1, 2])
    probs = np.array([0.7, 0.1, 0.15, 0.05])
    for flip in SWEEP:
        link = jq.superdense(jq.bell_diagonal(probs), readout_error=flip)
        spectrum = (walsh @ probs) * (1 - 2 * flip) ** weight
        np.testing.assert_allclose(walsh @ np.asarray(link.xor_probs), spectrum, atol=1e-14)


def test_gate_error_mixes_in_uniform_noise(x64):
    for gate in SWEEP:
        link = jq.superdense(jq.werner(fidelity=0.9), gate_error=gate)
        np.testing.assert_allclose(link.error_prob, (1 - gate) * 0.1 + gate * 0.75, atol=1e-14)


# --- The symbol channel ---------------------------------------------------------------------------


def random_transition(seed, rows=4):
    return np.random.default_rng(seed).dirichlet(np.ones(rows), size=4).T


@pytest.mark.parametrize("rows", [4, 5])
def test_error_statistics_of_an_arbitrary_matrix_are_sums_over_its_entries(x64, rows):
    matrix = random_transition(9, rows)
    link = jq.SymbolChannel(jnp.asarray(matrix))
    table = [[matrix[m ^ e, m] for e in range(4)] for m in range(4)]
    np.testing.assert_allclose(link.error_table, table, atol=1e-15)
    q = np.mean(table, axis=0)
    np.testing.assert_allclose(link.xor_probs, q, atol=1e-15)
    assert float(link.error_prob) == pytest.approx(q[1:].sum(), abs=1e-15)
    np.testing.assert_allclose(link.flip_probs, [q[2] + q[3], q[1] + q[3]], atol=1e-15)
    assert not bool(link.is_xor_symmetric)
    assert link.is_heralded == (rows == 5)


@pytest.mark.parametrize("rows", [4, 5])
def test_scrambling_keeps_the_mean_errors_and_makes_them_independent_of_the_symbol(x64, rows):
    matrix = random_transition(10, rows)
    link = jq.SymbolChannel(jnp.asarray(matrix))
    scrambled = link.scrambled()
    assert bool(scrambled.is_xor_symmetric)
    # Brute force: average over the four pads.
    expected = np.mean(
        [
            [
                [matrix[r if r == 4 else r ^ pad, m ^ pad] for m in range(4)]
                for r in range(rows)
            ]
            for pad in range(4)
        ],
        axis=0,
    )  # fmt: skip
    np.testing.assert_allclose(scrambled.transition, expected, atol=1e-15)
    np.testing.assert_allclose(scrambled.xor_probs, link.xor_probs, atol=1e-15)


probability = st.floats(0, 1)


def check_columns(p, fidelity, t1, t2_ratio, time, heralded):
    link = jq.superdense(
        jq.werner(fidelity=fidelity),
        before=jq.generalized_amplitude_damping(gamma=p[0], excited_population=p[1]).then(
            jq.dephasing(error_prob=p[2])
        ),
        sent=jq.thermal_relaxation(t1=t1, t2=t1 * t2_ratio, time=time, excited_population=p[3])
        .then(jq.depolarizing(error_prob=p[4]))
        .then(jq.bit_flip(error_prob=p[5])),
        kept=jq.pauli(x=p[6] / 3, y=p[7] / 3, z=p[8] / 3)
        .then(jq.amplitude_damping(gamma=p[9]))
        .then(jq.depolarizing(mix=p[10])),
        gate_error=p[11],
        readout_error=p[12],
        survival=p[13],
        heralded=heralded,
    )
    matrix = np.asarray(link.transition)
    assert matrix.shape == (5 if heralded else 4, 4)
    np.testing.assert_allclose(matrix.sum(0), 1.0, atol=2e-6)
    assert matrix.min() > -1e-6
    assert matrix.max() < 1 + 1e-6
    assert float(link.clipped) == 0


@pytest.mark.parametrize("examples", [30, further(150)])
def test_columns_are_probability_distributions_for_any_parameters(examples):
    given = hypothesis.given(
        st.lists(probability, min_size=14, max_size=14),
        st.floats(0.25, 1),
        st.floats(1e-3, 1e3),
        st.floats(1e-3, 2),
        st.floats(0, 1e3),
        st.booleans(),
    )
    hypothesis.settings(deadline=None, max_examples=examples)(given(check_columns))()


# --- Refusal --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"gate_error": -0.1}, ValueError, "`gate_error` must lie in [0, 1], but got -0.1."),
        ({"survival": 1.5}, ValueError, "`survival` must lie in [0, 1], but got 1.5."),
        ({"readout_error": 2}, ValueError, "`readout_error` must lie in [0, 1], but got 2."),
        ({"survival": float("nan")}, ValueError, "`survival` must lie in [0, 1], but got nan."),
        ({"gate_error": "much"}, TypeError, "`gate_error` must be a real number"),
        ({"readout_error": (np.eye(2),)}, ValueError, "`readout_error` must be"),
        ({"readout_error": (np.eye(2), np.ones((2, 2)))}, ValueError, "sum to one"),
        ({"sent": np.eye(4)}, TypeError, "`sent` must be a Channel"),
        ({"before": "identity"}, TypeError, "`before` must be a Channel, but got 'identity'."),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(options, error, message):
    with pytest.raises(error) as caught:
        jq.superdense(jq.werner(fidelity=0.9), **options)
    assert message in str(caught.value)


def test_what_is_no_pair_is_refused():
    with pytest.raises(TypeError, match="`pair` must be a Pair"):
        jq.superdense(0.9)
