"""Channels, pairs, capacities, links and budgets, in single and in double precision."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxqring as jq
from golden.collectives import SMALL
from golden.record import Group
from jaxqring.capacity import _closed_forms as capacity
from jaxqring.capacity import _limits as limits

#: Noise parameters, traced so that nothing is known before the program runs.
NOISE = {"low": 0.013, "high": 0.21, "t1": 10.0, "t2": 7.0, "length": 20e3}
PROTECTIONS = {
    "none": None,
    "reed_solomon": SMALL,
    "retransmit": jq.Retransmit(jq.reed_solomon(255, 223)),
    "bch": jq.codes.bch(63, 45, 3),
    "secded, repeated": jq.Retransmit(jq.codes.secded(72, 64), 4, 8),
    "repetition": jq.codes.repetition(3),
    "ideal": jq.codes.IdealCode(0.1),
    "unequal": jq.codes.Unequal(jq.Retransmit(jq.reed_solomon(255, 223)), 3),
}


def channels(at: dict[str, jax.Array]) -> dict[str, Any]:
    low, high = at["low"], at["high"]
    found = {
        "identity": jq.channels.identity(),
        "pauli": jq.pauli(x=low, y=high, z=low),
        "depolarizing": jq.depolarizing(error_prob=high),
        "dephasing": jq.dephasing(error_prob=high),
        "bit_flip": jq.bit_flip(error_prob=low),
        "amplitude_damping": jq.amplitude_damping(gamma=high),
        "generalized_amplitude_damping": jq.generalized_amplitude_damping(
            gamma=high, excited_population=low
        ),
        "thermal_relaxation": jq.thermal_relaxation(t1=at["t1"], t2=at["t2"], time=1.0),
    }
    both = found["amplitude_damping"].then(found["pauli"])
    kraus = found["dephasing"].kraus()
    return found | {"then": both, "kraus": kraus, "from_kraus": jq.from_kraus(kraus)}


def pairs(at: dict[str, jax.Array]) -> dict[str, Any]:
    low, high = at["low"], at["high"]
    werner = jq.werner(fidelity=1 - high)
    bell = jq.bell_diagonal(jnp.stack([1 - low - high, low, high / 2, high / 2]))
    damped = bell.apply(sent=jq.amplitude_damping(gamma=low), kept=jq.dephasing(error_prob=low))
    errors = {"gate_error": low, "readout_error": low}
    source = jq.GHZSource(4, noise=jq.pauli(x=low, y=0.0, z=low), white=low)
    joined = jq.ghz.fused(werner, 3)
    return {
        "werner": werner,
        "bell_diagonal": bell,
        "apply": damped,
        "density_matrix": damped.density_matrix(),
        "from_density_matrix": jq.from_density_matrix(damped.density_matrix()),
        "bell_probs": (damped.bell_probs, damped.fidelity),
        "swap": jq.swap(damped, werner, **errors),
        "distill, dejmps": jq.distill(damped, werner, **errors),
        "distill, bbpssw": jq.distill(werner, werner, protocol="bbpssw", **errors),
        "hashing_yield": jq.pairs.hashing_yield(bell),
        "best_purification_time": jq.pairs.best_purification_time(1 - high, 2.0, 1.0),
        "wait": jq.supply.wait(damped, time=0.5, t1=at["t1"], t2=at["t2"]),
        "GHZSource": (source.fidelity, source.visibility, source.x_error, source.disagreement),
        "fused": (joined.fidelity, joined.x_error, joined.z_error(0, 1)),
    }


def capacities(at: dict[str, jax.Array]) -> dict[str, Any]:
    low, high = at["low"], at["high"]
    by_mix = ("assisted_depolarizing", "unassisted_depolarizing")
    by_loss = ("assisted_erasure", "unassisted_erasure")
    by_error = ("assisted_dephasing", "unassisted_dephasing")
    by_gamma = ("assisted_amplitude_damping", "unassisted_amplitude_damping")
    named = {"mix": by_mix, "erasure_prob": by_loss, "error_prob": by_error, "gamma": by_gamma}
    found = {
        name: jax.value_and_grad(lambda v, p=p, name=name: getattr(capacity, name)(**{p: v}))(high)
        for p, names in named.items()
        for name in names
    }
    thermal = {"gamma": high, "excited_population": low}
    found["assisted_generalized_amplitude_damping"] = (
        capacity.assisted_generalized_amplitude_damping(**thermal)
    )
    pair = jq.werner(fidelity=1 - high)
    found["dense_coding_capacity"] = capacity.dense_coding_capacity(pair)
    found["one_shot_success_bound"] = limits.one_shot_success_bound(qubits=high, bits=5 * high)
    found["lifetime_uses"] = limits.lifetime_uses(online=100 * high, generation_prob=high)
    return found


def links(at: dict[str, jax.Array]) -> dict[str, Any]:
    low, pair = at["low"], jq.werner(fidelity=1 - at["low"])
    damping = jq.amplitude_damping(gamma=low)
    lossy = jq.superdense(pair, sent=damping, kept=damping, survival=1 - low, heralded=True)
    errors = {"gate_error": low, "readout_error": low}
    plain = jq.superdense(pair, before=jq.dephasing(error_prob=low), **errors)
    found: dict[str, Any] = {"superdense": plain, "superdense, heralded": lossy}
    for name, link in (("plain", plain), ("heralded", lossy)):
        found[f"link, {name}"] = (
            link.capacity(),
            link.error_prob,
            link.erasure_prob,
            link.xor_probs,
            link.error_table,
            link.flip_probs,
            link.scrambled(),
            link.guessed(),
        )
    for name, protection in PROTECTIONS.items():
        found[f"hop_error, {name}"] = jq.codes.hop_error(jq.FixedPoint(12), plain, protection)
    return found


def supplies(at: dict[str, jax.Array]) -> dict[str, Any]:
    low = at["low"]
    memory = {"t1": at["t1"], "t2": at["t2"]}
    errors = {"gate_error": low, "readout_error": low}
    fresh = jq.supply.generate(
        jq.werner(fidelity=1 - low), length=at["length"], links=2, modes=100.0, **memory, **errors
    )
    stored = jq.supply.stock(fresh, pairs=1000.0, **memory)
    better = jq.supply.purify(stored, rounds=1, **errors)
    found: dict[str, Any] = {
        "generate": fresh,
        "generate, direct": jq.supply.generate(
            jq.werner(fidelity=1 - low), length=at["length"], scheme="direct"
        ),
        "stock": stored,
        "purify": better,
        "hashed": jq.supply.hashed(fresh),
        "expected_slowest": jq.supply.expected_slowest(low, 4),
    }
    line = {"latency": 1e-5, "compute_time": 1.0}
    for name in ("retransmit", "ideal"):
        ring = jq.Ring(jq.superdense(better.pair), protection=PROTECTIONS[name])
        found[f"budget, {name}"] = jq.economics.budget(ring, 1001, 4, better, **line)
    return found


PARTS = {f.__name__: f for f in (channels, pairs, capacities, links, supplies)}


def traced(_: Callable, part: str, double: bool) -> dict[str, Any]:
    with jax.enable_x64(double):
        at = {name: jnp.asarray(value) for name, value in NOISE.items()}
        found = jax.device_get(jax.jit(PARTS[part])(at))
    digits = "double" if double else "single"
    return {f"{name} | {digits}": value for name, value in found.items()}


def planned(_: Callable) -> dict[str, Any]:
    """Results that are computed before any program runs, in Python's own floats."""
    source = jq.GHZSource(4, noise=jq.depolarizing(mix=1e-5))
    universal = jq.secure.Security("universal")
    noise = jq.audit.TieNoise(global_mix=0.1)
    found: dict[str, Any] = {
        "epsilon | buckets": jq.secure.epsilon(jq.secure.Security(), 1000, source, steps=10),
        "epsilon | universal": jq.secure.epsilon(universal, 1000, source, bits=8),
        "epsilon | corrected": jq.secure.epsilon(
            jq.secure.Security("none", correction=jq.codes.bch(1023, 923, 10)), 1000, source
        ),
        "plan": jq.secure.plan(1e-6, 1000, 10, source),
        "plan_tie_audit": jq.audit.plan_tie_audit(0.1, 0.05, 2**20),
        "plan_tie_audit | noisy": jq.audit.plan_tie_audit(0.1, 0.05, 2**20, noise=noise),
        "plan_subset_audit": jq.audit.plan_subset_audit(0.1, 0.05, 2**20),
        "simhash_bits": jq.audit.simhash_bits(0.05, 0.0914),
        "cost": [
            jq.Ring(wire=wire, noise="off").cost(1001, 5, collective=collective)
            for wire in (jq.FixedPoint(24), jq.Float32())
            for collective in ("psum", "psum_scatter", "all_gather")
        ],
    }
    for name in ("qpe", "mlae", "iqae", "projective"):
        found[f"plan_gap_ip | {name}"] = jq.audit.plan_gap_ip(0.1, 10**6, estimator=name)
    return found


def solved(_: Callable) -> dict[str, Any]:
    """Crossovers, by bisection."""
    names = ("none", "reed_solomon", "repetition", "ideal")
    return {
        "break_even_fidelity": {
            name: jq.economics.break_even_fidelity(PROTECTIONS[name]) for name in names
        },
        "decision_error": jq.audit.decision_error(-0.1, 0.1, 10**6),
        "crossover": jq.audit.crossover(0.01, 10**6),
        "crossover_gap": jq.audit.crossover_gap(10**6),
        "crossover_size": jq.audit.crossover_size(0.1, 0.05),
        "thresholds": limits.thresholds(),
    }


GROUPS = {
    f"{part}, {'double' if double else 'single'}": Group(
        functools.partial(traced, part=part, double=double), False, not double
    )
    for part in PARTS
    for double in (False, True)
}
GROUPS |= {"plans": Group(planned, False), "crossings": Group(solved, False, True)}
