"""Random draws beside collectives: errors of symbols, masks, verifications, audits."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxqring as jq
from golden.collectives import KEY, link
from golden.record import Group
from jaxqring.secure._masks import prime_modulus


def words(size: int) -> jax.Array:
    found = np.random.default_rng(size).integers(0, 2**32, size, dtype=np.uint32)
    return jnp.asarray(found)


def lossy() -> jq.SymbolChannel:
    """A link whose losses are known, one symbol in sixteen."""
    rows = np.asarray(link(0.25).transition) * np.float32(0.9375)
    return jq.SymbolChannel(jnp.asarray(np.concatenate([rows, np.full((1, 4), 0.0625)]), "float32"))


#: Sizes in words, and links.
SENT = {
    "nothing": (0, link(0.25), True),
    "one word": (1, link(0.25), True),
    "no errors": (37, link(0.0), True),
    "many errors": (1000, link(0.25), True),
    "few errors": (1000, link(0.01), True),
    "rare errors": (40_000, link(1e-5), True),
    "long and noisy": (40_000, link(0.75), True),
    "losses": (1000, lossy(), True),
    "plain symbols": (1000, link(0.25), False),
    "plain symbols with losses": (1000, lossy(), False),
}


def transmissions(_: Callable) -> dict[str, Any]:
    send = jax.jit(jq.transmit, static_argnames="scramble")
    return {
        f"transmit | {name}": send(words(size), channel, KEY, scramble=scramble)
        for name, (size, channel, scramble) in SENT.items()
    }


def noisy(parties: int) -> jq.GHZSource:
    """States with errors of both kinds."""
    return jq.GHZSource(parties, noise=jq.pauli(x=0.01, y=0.0, z=0.02))


@functools.partial(jax.jit, static_argnames=("size", "bits", "realisation"))
def drawn(key: jax.Array, source: jq.GHZSource, size: Any, bits: int, realisation: str) -> Any:
    return jq.secure.masks(key, source, size, bits, realisation)


@functools.partial(jax.jit, static_argnames=("kept", "tested", "options"))
def verified(key: jax.Array, source: Any, kept: int, tested: int, options: tuple) -> Any:
    return jq.secure.verify(key, source, kept, tested, **dict(options))


def tested(tests: str, simulate: str) -> Any:
    options = (("tests", tests), ("bits", 4), ("tolerance", 0.05), ("simulate", simulate))
    return verified(KEY, noisy(3), 40, 60, options)


def verifications(_: Callable) -> dict[str, Any]:
    """Every kind of test, by its counts and outcome by outcome."""
    kinds = [(tests, way) for tests in ("z", "mixed", "xy") for way in ("counts", "outcomes")]
    return {f"verify | {tests}, {way}": tested(tests, way) for tests, way in kinds[1:]}


def masked(_: Callable) -> dict[str, Any]:
    """Masks, what tests say of their states, and what coalitions see."""
    codes = words(4 * 11).reshape(4, 11).astype(jnp.int32)
    return {
        "masks | qft, 16 bits": drawn(KEY, noisy(4), 50, 16, "qft"),
        "verify | z, counts": tested("z", "counts"),
        "view | bare": jq.secure.view((1,), codes, bits=16),
    }


def masked_otherwise(_: Callable) -> dict[str, Any]:
    raw = drawn(KEY, noisy(3), 50, 8, "prime")
    planted = jq.secure.PlantedSource(noisy(4), jq.secure.plus_states(4), 3)
    codes, pads = words(2 * 4 * 11).reshape(2, 4, 11).astype(jnp.int32)
    outcomes = words(200).astype(jnp.uint8) & 1
    return {
        "masks | qft, 32 bits, perfect": drawn(KEY, jq.GHZSource(3), (3, 5), 32, "qft"),
        "masks | prime, 8 bits": raw,
        "masks | xor, 12 bits": drawn(KEY, noisy(5), (7, 5), 12, "xor"),
        "universal_hash": jq.secure.universal_hash(KEY, raw, 10, prime_modulus(8)),
        "verify | planted": verified(KEY, planted, 40, 60, ()),
        "purification_guess": jq.secure.purification_guess(KEY, outcomes, 0.1),
        "view | masked, two nodes": jq.secure.view((2, 0), codes, pads, bits=8),
    }


def audits(_: Callable, often: bool) -> dict[str, Any]:
    """GapIP, TieAudit and their rivals."""
    rng = np.random.default_rng(7)
    mine = jnp.asarray(rng.normal(size=64), jnp.float32)
    other = jnp.asarray(rng.normal(size=64), jnp.float32) - 0.5 * mine
    signs = rng.choice([-1.0, 1.0], 256)
    matching = rng.permutation(256).reshape(-1, 2)
    common = {"delta": 0.05, "epsilon": 0.1, "key": KEY}

    def gap(name: str) -> jq.audit.GapResult:
        options = {"estimator": name, "repetitions": 3, "hop_noise": 1e-4}
        return jq.audit.gap_ip(mine, other, tau=0.1, key=KEY, **options)

    if often:
        return {
            "gap_ip | projective": gap("projective"),
            "tie_audit | message": jq.audit.tie_audit(signs, matching, **common),
        }
    noise = jq.audit.TieNoise(global_mix=0.1)
    found = {f"gap_ip | {name}": gap(name) for name in ("qpe", "mlae", "iqae")}
    return found | {
        "tie_audit | steered": jq.audit.tie_audit(signs, matching, variant="steered", **common),
        "tie_audit | noisy": jq.audit.tie_audit(signs, matching, noise=noise, **common),
        "subset_audit": jq.audit.subset_audit(signs, matching, **common),
        "simhash": jq.audit.simhash(KEY, jnp.asarray([-0.3, 0.1, 0.9]), 63),
    }


GROUPS = {
    "transmit": Group(transmissions, True),
    "masks, verify, view": Group(masked, True),
    "masks, verify, view, the others": Group(masked_otherwise, True, matrix=True),
    "verify, every test": Group(verifications, True, matrix=True),
    "audits": Group(functools.partial(audits, often=True), False),
    "audits, the others": Group(functools.partial(audits, often=False), False, matrix=True),
}
