"""Every product of floats is computed in full precision, on accelerators too.

A product without a stated precision runs in TF32 or bfloat16 there, with three digits. The jaxprs
of the public functions and of their derivatives say what was stated, on any machine.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

import jaxqring as jq
from jaxqring import FixedPoint, Ring
from jaxqring.audit import _amplitude as amplitude
from jaxqring.audit import _rivals as rivals
from jaxqring.audit._tie_copies import sample_outcomes
from jaxqring.capacity import _closed_forms as capacity
from jaxqring.capacity import _limits as limits
from jaxqring.link._transport import variance_slope
from jaxqring.physics import information
from jaxqring.secure._masks import prime_modulus
from jaxqring.secure._verification import failure_probability

AXIS = "nodes"
KEY = jax.random.key(0)
PRODUCTS = ("dot_general", "ragged_dot", "ragged_dot_general", "conv_general_dilated")
HIGHEST = jax.lax.Precision.HIGHEST


def products(jaxpr):
    """Every product of floats in a jaxpr and in those inside it, as (name, precisions)."""
    for equation in jaxpr.eqns:
        name, kind = equation.primitive.name, equation.outvars[0].aval.dtype
        if name in PRODUCTS and jnp.issubdtype(kind, jnp.inexact):
            precision = equation.params["precision"]
            yield name, precision if isinstance(precision, tuple) else (precision,) * 2
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(getattr(inner, "jaxpr", inner))


def loose(function, *arguments):
    """The products of a call without the highest precision, and how many there are in all."""
    found = list(products(jax.make_jaxpr(function)(*arguments).jaxpr))
    return [each for each in found if set(each[1]) != {HIGHEST}], len(found)


def moved(function):
    """The function with its derivative in the direction of its own arguments."""
    return lambda *arguments: jax.jvp(function, arguments, arguments)


# --- The public functions, of floats ------------------------------------------------------------


def pair(fidelity):
    return jq.werner(fidelity=fidelity)


def link(fidelity, **options):
    return jq.superdense(pair(fidelity), **options)


def supply(fidelity):
    noise = {"gate_error": 0.01 * fidelity, "readout_error": 0.01 * fidelity}
    return jq.supply.generate(pair(fidelity), length=1e4, links=2, t1=1.0, t2=1.0, **noise)


def uses(call, fidelity):
    """A function of a channel, by its matrix."""
    return call(jq.depolarizing(error_prob=1 - fidelity)).ptm


def rho(weight):
    return weight * jnp.eye(4) / 4 + (1 - weight) * jnp.diag(jnp.array([1.0, 0, 0, 0]))


VALUES = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
CODES = np.arange(12).reshape(3, 4)


def on_ring(call, value, fidelity=0.9, *, key=KEY, **options):
    """The sum over nodes of a collective of three nodes."""
    ring = Ring(link(fidelity), **options)
    run = functools.partial(call, axis_name=AXIS, ring=ring, key=key)
    return jnp.sum(jax.vmap(run, axis_name=AXIS)(value * VALUES))


def secure(call, value):
    run = functools.partial(
        call,
        axis_name=AXIS,
        ring=Ring(noise="off"),
        source=jq.GHZSource(3),
        security=jq.secure.Security(),
        key=KEY,
    )
    return jnp.sum(jax.vmap(run, axis_name=AXIS)(value * VALUES))


def estimated(fidelity, estimator, **options):
    ring = Ring(link(fidelity), FixedPoint(8, clip=2.0))

    def loss(ring, keys):
        run = functools.partial(jq.psum, axis_name=AXIS, ring=ring, key=keys[0])
        return jnp.mean(jax.vmap(run, axis_name=AXIS)(VALUES) ** 2)

    return jq.expected(loss, ring, KEY, estimator=estimator, **options)


def differences(fidelity):
    low, high = jq.gradients.couple(Ring(link(fidelity)), Ring(link(0.99)))
    run = functools.partial(jq.psum, axis_name=AXIS)

    def loss(ring, keys):
        return jnp.mean(jax.vmap(lambda x: run(x, ring=ring, key=keys[0]), axis_name=AXIS)(VALUES))

    return jq.gradients.finite_difference(loss, low, high, 0.1, KEY)


def reduced(value):
    optimizer = jq.all_reduce(Ring(noise="off"), AXIS, key=None)
    state = optimizer.init(VALUES[0])
    update = jax.vmap(lambda x: optimizer.update(x, state)[0], axis_name=AXIS)
    return update(value * VALUES)


def budgeted(fidelity):
    pairs = supply(fidelity)
    ring = Ring(jq.superdense(pairs.pair), protection=jq.Retransmit(jq.codes.secded()))
    found = jq.economics.budget(ring, 100, 3, pairs)
    return found.net_bits_per_qubit, found.seconds


SIGNS, MATCHING = [1, 1, -1, -1, 1, -1, 1, 1], [[0, 1], [2, 3], [4, 5], [6, 7]]
RS = jq.reed_solomon(15, 11, symbol_bits=4)
SAMPLED = {"cost": Ring(wire=FixedPoint(8)).cost(3, 3), "samples": 2}

# name: function of one float of about 0.9, which is traced with its derivative.
SMOOTH = {
    "identity": lambda f: f * jq.channels.identity().ptm,
    "pauli": lambda f: jq.pauli(x=0.1 * f, y=0.1, z=0.1).ptm,
    "depolarizing": lambda f: jq.depolarizing(mix=f).ptm,
    "dephasing": lambda f: jq.dephasing(error_prob=f).ptm,
    "bit_flip": lambda f: jq.bit_flip(error_prob=f).ptm,
    "amplitude_damping": lambda f: jq.amplitude_damping(gamma=f).ptm,
    "generalized_amplitude_damping": lambda f: (
        jq.generalized_amplitude_damping(gamma=f, excited_population=0.1).ptm
    ),
    "thermal_relaxation": lambda f: jq.thermal_relaxation(t1=f, t2=1.0, time=0.1).ptm,
    "from_kraus": lambda f: jq.from_kraus(jnp.stack([f * jnp.eye(2), (1 - f) * jnp.eye(2)])).ptm,
    "Channel.then": lambda f: uses(lambda c: c.then(c), f),
    "Channel.kraus": lambda f: jq.amplitude_damping(gamma=f).kraus(),
    "werner": lambda f: pair(f).correlation,
    "bell_diagonal": lambda f: jq.bell_diagonal(jnp.stack([f, 1 - f, 0 * f, 0 * f])).correlation,
    "from_density_matrix": lambda f: jq.from_density_matrix(rho(f)).correlation,
    "Pair.bell_probs": lambda f: pair(f).bell_probs,
    "Pair.fidelity": lambda f: pair(f).fidelity,
    "Pair.density_matrix": lambda f: pair(f).density_matrix(),
    "Pair.apply": lambda f: (
        pair(f)
        .apply(sent=jq.amplitude_damping(gamma=f), kept=jq.dephasing(error_prob=f))
        .correlation
    ),
    "swap": lambda f: jq.swap(pair(f), pair(f), gate_error=0.1 * f, readout_error=0.1).correlation,
    "distill": lambda f: jq.distill(pair(f), pair(f), gate_error=0.1 * f)[0].correlation,
    "distill by BBPSSW": lambda f: jq.distill(pair(f), pair(f), protocol="bbpssw")[1],
    "hashing_yield": lambda f: jq.pairs.hashing_yield(pair(f)),
    "best_purification_time": lambda f: jq.pairs.best_purification_time(f, 2.0, 1.0),
    "fused": lambda f: jq.ghz.fused(pair(f), 4).fidelity,
    "plus_states": lambda f: f * jq.secure.plus_states(4).fidelity,
    "GHZSource.expectation": lambda f: jq.GHZSource(
        3, noise=jq.depolarizing(error_prob=0.1 * f)
    ).expectation(jnp.eye(4)[jnp.array([1, 1, 1])]),
    "dense_coding_capacity": lambda f: capacity.dense_coding_capacity(pair(f)),
    "assisted_depolarizing": lambda f: capacity.assisted_depolarizing(mix=f),
    "assisted_erasure": lambda f: capacity.assisted_erasure(erasure_prob=f),
    "assisted_dephasing": lambda f: capacity.assisted_dephasing(error_prob=f),
    "assisted_amplitude_damping": lambda f: capacity.assisted_amplitude_damping(gamma=f),
    "damping_mutual_information": lambda f: capacity.damping_mutual_information(
        gamma=f, excited_population=0.1, excited_input=0.5
    ),
    "assisted_generalized_amplitude_damping": lambda f: (
        capacity.assisted_generalized_amplitude_damping(gamma=f, excited_population=0.1)
    ),
    "unassisted_depolarizing": lambda f: capacity.unassisted_depolarizing(mix=f),
    "unassisted_erasure": lambda f: capacity.unassisted_erasure(erasure_prob=f),
    "unassisted_dephasing": lambda f: capacity.unassisted_dephasing(error_prob=f),
    "unassisted_amplitude_damping": lambda f: capacity.unassisted_amplitude_damping(gamma=f),
    "shannon_entropy": lambda f: information.shannon_entropy(jnp.stack([f, 1 - f])),
    "binary_entropy": information.binary_entropy,
    "von_neumann_entropy": lambda f: information.von_neumann_entropy(rho(f)),
    "mutual_information_uniform": lambda f: information.mutual_information_uniform(
        link(f).transition
    ),
    "discrete_memoryless_capacity": lambda f: information.discrete_memoryless_capacity(
        link(f).transition
    ),
    "one_shot_success_bound": lambda f: limits.one_shot_success_bound(qubits=f, bits=2.0),
    "lifetime_uses": lambda f: limits.lifetime_uses(
        online=f, generation_prob=f, purification_cost=f
    ),
    "superdense": lambda f: (
        link(
            f,
            before=jq.dephasing(error_prob=f),
            sent=jq.amplitude_damping(gamma=f),
            kept=jq.bit_flip(error_prob=f),
            gate_error=0.1 * f,
            readout_error=0.1 * f,
            survival=f,
            heralded=True,
        ).transition
    ),
    "SymbolChannel.capacity": lambda f: link(f).capacity(),
    "SymbolChannel.scrambled": lambda f: link(f).scrambled().transition,
    "moments": lambda f: jq.moments(jnp.array(37), FixedPoint(8), link(f)),
    "variance_slope": lambda f: variance_slope(FixedPoint(8), link(f).transition),
    "hop_error": lambda f: jq.codes.hop_error(FixedPoint(8), link(f), RS),
    "BlockCode.net_rate": lambda f: RS.net_rate(link(f, survival=f, heralded=True)),
    "BlockCode.residual": lambda f: RS.residual(link(f)).transition,
    "secded.residual": lambda f: jq.codes.secded().residual(link(f)).transition,
    "IdealCode.net_rate": lambda f: jq.codes.IdealCode().net_rate(link(f)),
    "generate": lambda f: supply(f).pair.correlation,
    "purify": lambda f: jq.supply.purify(supply(f), rounds=2, gate_error=0.1 * f).pair.correlation,
    "stock": lambda f: jq.supply.stock(supply(f), pairs=10.0, t1=1.0, t2=f).pair.correlation,
    "wait": lambda f: jq.supply.wait(pair(f), time=0.1, t1=1.0, t2=f).correlation,
    "hashed": lambda f: jq.supply.hashed(supply(f)).raw_pairs_per_pair,
    "expected_slowest": lambda f: jq.supply.expected_slowest(f, 3),
    "budget": budgeted,
    "chain_law": lambda f: jq.gradients.chain_law(jnp.array(CODES), FixedPoint(8), link(f)),
    "psum": lambda f: on_ring(jq.psum, f),
    "psum on float32": lambda f: on_ring(jq.psum, f, wire=jq.Float32()),
    "psum on bfloat16": lambda f: on_ring(jq.psum, f, wire=jq.BFloat16()),
    "psum without scrambling": lambda f: on_ring(
        jq.psum, 1.0, f, scramble=False, derivative="mean"
    ),
    "psum by links": lambda f: on_ring(jq.psum, 1.0, f, derivative="mean"),
    "psum, gaussian": lambda f: on_ring(jq.psum, f, f, noise="gaussian"),
    "psum, mean": lambda f: on_ring(jq.psum, f, f, noise="mean"),
    "psum, exact": lambda f: on_ring(jq.psum, f, f, wire=FixedPoint(8), derivative="exact"),
    "psum, protected": lambda f: on_ring(
        jq.psum, f, f, protection=jq.Retransmit(RS), derivative="mean"
    ),
    "psum, symbol by symbol": lambda f: on_ring(
        jq.psum, f, protection=jq.codes.Unequal(RS, 2), simulate="symbol"
    ),
    "pmean": lambda f: on_ring(jq.pmean, f),
    "psum_scatter": lambda f: on_ring(jq.psum_scatter, f),
    "all_gather": lambda f: on_ring(jq.all_gather, f),
    "all_reduce": reduced,
    "expected, mean": lambda f: estimated(f, "mean"),
    "expected, gaussian": lambda f: estimated(f, "gaussian"),
    "expected, exact": lambda f: estimated(f, "exact"),
    "expected, score": lambda f: estimated(f, "score", **SAMPLED),
    "expected, russo": lambda f: estimated(f, "russo", **SAMPLED),
    "expected, russo, every site": lambda f: estimated(f, "russo", every_site=True, **SAMPLED),
    "sum_error_law": lambda f: jq.secure.sum_error_law(f, 4),
    "failure_probability": lambda f: failure_probability(
        jq.GHZSource(4, noise=jq.depolarizing(mix=0.1 * f)), "mixed"
    ),
    "phase_estimation_probabilities": lambda f: amplitude.phase_estimation_probabilities(
        f, 8, 3, 0.1
    ),
    "decision_error": lambda f: jq.audit.decision_error(f, 0.1, 100, hop_noise=0.01),
    "random_sign_variance": lambda f: rivals.random_sign_variance(f * VALUES[0], VALUES[1], 9),
}

PLUS = jnp.full(2, np.float32(np.sqrt(0.5)))

# Of one float too, but without a derivative.
DRAWN = {
    "finite_difference": differences,
    "transmit": lambda f: jq.transmit(jnp.arange(4, dtype=jnp.uint32), link(f), KEY),
    "replica_agreement": lambda f: jax.vmap(
        lambda x: jq.ring.replica_agreement(x, AXIS), axis_name=AXIS
    )(f * VALUES),
    "secure_psum": lambda f: secure(jq.secure_psum, f),
    "secure_pmean": lambda f: secure(jq.secure_pmean, f),
    "masks": lambda f: jq.secure.masks(
        KEY, jq.GHZSource(3, noise=jq.depolarizing(mix=1 - f)), 4, 8
    ),
    "masks by local measurement": lambda f: (
        f * jq.secure.masks(KEY, jq.GHZSource(3), 4, 8, realisation="prime")
    ),
    "universal_hash": lambda f: (
        f * jq.secure.universal_hash(KEY, jnp.ones((3, 20), jnp.uint32), 4, prime_modulus(8))
    ),
    "verify": lambda f: jq.secure.verify(
        KEY, jq.GHZSource(3, noise=jq.depolarizing(mix=1 - f)), 50, 50
    ),
    "verify, simulated": lambda f: jq.secure.verify(
        KEY, jq.GHZSource(3, noise=jq.depolarizing(mix=1 - f)), 5, 5, simulate="outcomes"
    ),
    "purification_guess": lambda f: jq.secure.purification_guess(
        KEY, jnp.zeros((5, 3), jnp.int32), f
    ),
    "view": lambda f: jq.secure.view((1,), jnp.int32(f) + np.arange(9).reshape(3, 3), bits=8),
    "simhash": lambda f: jq.audit.simhash(KEY, f, 9),
    "gap_ip": lambda f: jq.audit.gap_ip(f * VALUES[0], VALUES[1], tau=0.1, key=KEY, hop_noise=0.1),
    "gap_ip, iqae": lambda f: jq.audit.gap_ip(
        f * VALUES[0], VALUES[1], tau=0.1, key=KEY, estimator="iqae", repetitions=3
    ),
    "tie_audit": lambda f: (
        jq.audit.tie_audit(
            SIGNS,
            MATCHING,
            epsilon=0.1,
            delta=0.05,
            key=KEY,
            noise=jq.audit.TieNoise(),
        ).fraction
        * f
    ),
    "subset_audit": lambda f: (
        jq.audit.subset_audit(SIGNS, MATCHING, epsilon=0.1, delta=0.05, key=KEY).fraction * f
    ),
    "fixed_chip": lambda f: jq.qmodels.fixed_chip(
        PLUS, jq.qmodels.program(f, 2), 0, KEY, axis="ry"
    ),
    "chip_branches": lambda f: jq.qmodels.chip_branches(
        PLUS, jq.qmodels.program(f, 2), 0, axis="ry"
    ),
    "chip_gradient": lambda f: jq.qmodels.chip_gradient(
        jq.qmodels.ChipCircuit(("ry",), "Z"),
        f[None, None],
        PLUS[None],
        jnp.ones(1),
        shots=2,
        key=KEY,
    ),
    "holevo": lambda f: jq.qmodels.holevo(PLUS[None] + 0 * f, copies=2),
    "sample_outcomes": lambda f: f * sample_outcomes(KEY, SIGNS, MATCHING, 10).pair,
}

#: Public functions that compute with Python's numbers and shapes, or hold others' results.
STATIC = {
    "bch",
    "break_even_fidelity",
    "couple",
    "crossover",
    "crossover_gap",
    "crossover_size",
    "epsilon",
    "plan",
    "plan_gap_ip",
    "plan_subset_audit",
    "plan_tie_audit",
    "reed_solomon",
    "repetition",
    "secded",
    "sensitivity",
    "simhash_bits",
    "sweep",
}


@pytest.mark.parametrize("name", SMOOTH)
def test_products_and_those_of_derivatives_are_of_the_highest_precision(name):
    found, _ = loose(moved(SMOOTH[name]), jnp.float32(0.9))
    assert not found


@pytest.mark.parametrize("name", DRAWN)
def test_products_of_what_is_drawn_are_of_the_highest_precision(name):
    found, _ = loose(DRAWN[name], jnp.float32(0.9))
    assert not found


def test_every_public_function_is_looked_at():
    public = {name for name in jq.__all__ if inspect.isfunction(getattr(jq, name))}
    looked_at = {name.split(",")[0].split(" ")[0] for name in SMOOTH | DRAWN} | STATIC
    assert public <= looked_at
    # The table has something to find: each of these multiplies matrices.
    for name in ("bell_diagonal", "distill", "chain_law", "psum, exact", "expected, score"):
        assert loose(moved(SMOOTH[name]), jnp.float32(0.9))[1] > 0


def test_a_product_without_a_precision_is_seen_wherever_it_hides():
    a = jnp.eye(3)

    @jax.custom_jvp
    def own_rule(x):
        return x

    own_rule.defjvp(lambda primals, tangents: (primals[0], tangents[0] @ a))
    hidden = {
        "bare": lambda x: x @ a,
        "high, which is not the highest": lambda x: jnp.matmul(x, a, precision="high"),
        "one side only": lambda x: jnp.matmul(x, a, precision=("highest", "default")),
        "jit": jax.jit(lambda x: x @ a),
        "scan": lambda x: jax.lax.scan(lambda x, _: (x @ a, None), x, length=2)[0],
        "while": lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 0, lambda x: x @ a, x),
        "cond": lambda x: jax.lax.cond(x[0, 0] < 0, lambda x: x @ a, lambda x: x, x),
        "vmap": jax.vmap(lambda row: row @ a),
        "custom_jvp": jax.custom_jvp(lambda x: x @ a),
        "convolution": lambda x: jnp.convolve(x[0], a[0]),
        "rule": moved(own_rule),
    }
    hidden["custom_jvp"].defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    for name, function in hidden.items():
        assert len(loose(function, a)[0]) == 1, name
    assert loose(lambda x: jnp.matmul(x, a, precision="highest"), a) == ([], 1)
    # Integers have no rounding to lose.
    assert loose(lambda x: x @ x, jnp.eye(3, dtype=jnp.int32)) == ([], 0)
    assert loose(own_rule, a) == ([], 0)
