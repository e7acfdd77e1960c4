"""Every malformed call is refused in one sentence: the argument, the rule and the value."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring import FixedPoint, Float32, Ring, SymbolChannel, superdense, werner

AXIS = "nodes"
KEY = jax.random.key(0)
LINK = SymbolChannel(jnp.full((4, 4), 0.05) + 0.8 * jnp.eye(4))
NOISELESS = Ring(noise="off")
NAN = float("nan")


def on_nodes(function, x, num_nodes):
    """Runs a collective on `num_nodes` nodes, all of which hold x."""
    run = jax.jit(jax.vmap(function, axis_name=AXIS))
    return run(jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * num_nodes), x))


def summed(ring, key=None, *, x=1.0, num_nodes=2, name=AXIS, call=jq.psum, **options):
    x = np.float32(x) if isinstance(x, float) else x
    return on_nodes(lambda x: call(x, name, ring=ring, key=key, **options), x, num_nodes)


def links(number):
    return SymbolChannel(jnp.stack([LINK.transition] * number))


def kraus(scale):
    return scale * np.eye(2)[None]


def density(**entries):
    rho = np.eye(4) / 4
    for place, value in entries.items():
        rho[int(place[1]), int(place[2])] = value
    return rho


VECTOR = np.ones(4, np.float32)
SCATTER = functools.partial(summed, NOISELESS, call=jq.psum_scatter, x=VECTOR)
GATHER = functools.partial(summed, NOISELESS, call=jq.all_gather, x=VECTOR)
COST = Ring(wire=FixedPoint(8)).cost(100, 4)

# name: (call, exception, words of the message)
QUANTUM = {
    "fidelity above one": (
        lambda: werner(fidelity=1.2),
        ValueError,
        ["`fidelity`", "lie in [0.25, 1]", "1.2"],
    ),
    "fidelity below a quarter": (
        lambda: werner(fidelity=0.2),
        ValueError,
        ["`fidelity`", "lie in [0.25, 1]", "0.2"],
    ),
    "one fidelity of several": (
        lambda: werner(fidelity=jnp.array([0.9, 1.5])),
        ValueError,
        ["`fidelity`", "lie in [0.25, 1]", "1.5"],
    ),
    "fidelity that is no number": (
        lambda: werner(fidelity=NAN),
        ValueError,
        ["`fidelity`", "lie in [0.25, 1]", "nan"],
    ),
    "fidelity of a string": (
        lambda: werner(fidelity="high"),
        TypeError,
        ["`fidelity`", "be a real number", "high"],
    ),
    "fidelity and weight": (
        lambda: werner(fidelity=0.9, weight=0.9),
        ValueError,
        ["`fidelity` or `weight`", "exactly one", "both"],
    ),
    "neither fidelity nor weight": (
        lambda: werner(),
        ValueError,
        ["`fidelity` or `weight`", "exactly one", "neither"],
    ),
    "error_prob and mix": (
        lambda: jq.depolarizing(error_prob=0.1, mix=0.1),
        ValueError,
        ["`error_prob` or `mix`", "exactly one", "both"],
    ),
    "neither error_prob nor mix": (
        lambda: jq.depolarizing(),
        ValueError,
        ["`error_prob` or `mix`", "exactly one", "neither"],
    ),
    "negative weight": (
        lambda: werner(weight=-0.1),
        ValueError,
        ["`weight`", "lie in [0, 1]", "-0.1"],
    ),
    "mix above one": (
        lambda: jq.depolarizing(mix=1.01),
        ValueError,
        ["`mix`", "lie in [0, 1]", "1.01"],
    ),
    "gamma above one": (
        lambda: jq.amplitude_damping(gamma=2),
        ValueError,
        ["`gamma`", "lie in [0, 1]", "2"],
    ),
    "complex error_prob": (
        lambda: jq.dephasing(error_prob=0.1j),
        TypeError,
        ["`error_prob`", "be a real number", "0.1j"],
    ),
    "negative time": (
        lambda: jq.thermal_relaxation(t1=1.0, t2=1.0, time=-1.0),
        ValueError,
        ["`time`", "be at least 0", "-1.0"],
    ),
    "t2 above 2 t1": (
        lambda: jq.thermal_relaxation(t1=1.0, t2=2.5, time=1.0),
        ValueError,
        ["`t2`", "be at most 2 t1 = 2.0", "2.5"],
    ),
    "t1 of zero": (
        lambda: jq.thermal_relaxation(t1=0.0, t2=1.0, time=1.0),
        ValueError,
        ["`t1`", "be above 0", "0.0"],
    ),
    "t2 that is no number": (
        lambda: jq.thermal_relaxation(t1=1.0, t2=NAN, time=1.0),
        ValueError,
        ["`t2`", "be above 0", "nan"],
    ),
    "Pauli probabilities above one": (
        lambda: jq.pauli(x=0.5, y=0.4, z=0.3),
        ValueError,
        ["`x + y + z`", "lie in [0, 1]", "1.2"],
    ),
    "Kraus operators that lose probability": (
        lambda: jq.from_kraus(kraus(0.9)),
        ValueError,
        ["`kraus`", "preserve the trace", "0.81"],
    ),
    "Kraus operators of a wrong shape": (
        lambda: jq.from_kraus(np.eye(2)),
        ValueError,
        ["`kraus`", "have the shape (..., K, 2, 2)", "(2, 2)"],
    ),
    "density matrix not Hermitian": (
        lambda: jq.from_density_matrix(density(r01=0.1)),
        ValueError,
        ["`rho`", "be Hermitian", "0.1"],
    ),
    "density matrix of trace 1.1": (
        lambda: jq.from_density_matrix(1.1 * np.eye(4) / 4),
        ValueError,
        ["`rho`", "have trace one", "1.1"],
    ),
    "density matrix with a negative eigenvalue": (
        lambda: jq.from_density_matrix(density(r00=0.75, r11=-0.25)),
        ValueError,
        ["`rho`", "have no negative eigenvalue", "-0.25"],
    ),
    "density matrix of one qubit": (
        lambda: jq.from_density_matrix(np.eye(2) / 2),
        ValueError,
        ["`rho`", "have the shape (..., 4, 4)", "(2, 2)"],
    ),
    "Bell weights that sum to 1.1": (
        lambda: jq.bell_diagonal([0.8, 0.1, 0.1, 0.1]),
        ValueError,
        ["`probs`", "sum to one", "1.1"],
    ),
    "three Bell weights": (
        lambda: jq.bell_diagonal([0.8, 0.1, 0.1]),
        ValueError,
        ["`probs`", "have a last axis of length 4", "(3,)"],
    ),
    "then without a channel": (
        lambda: jq.channels.identity().then(0.1),
        TypeError,
        ["`other`", "be a Channel", "0.1"],
    ),
}

LINKS = {
    "pair that is none": (
        lambda: superdense(0.9),
        TypeError,
        ["`pair`", "be a Pair", "0.9"],
    ),
    "channel that is none": (
        lambda: superdense(werner(fidelity=0.9), sent=0.1),
        TypeError,
        ["`sent`", "be a Channel", "0.1"],
    ),
    "survival above one": (
        lambda: superdense(werner(fidelity=0.9), survival=1.5),
        ValueError,
        ["`survival`", "lie in [0, 1]", "1.5"],
    ),
    "negative readout error": (
        lambda: superdense(werner(fidelity=0.9), readout_error=-0.5),
        ValueError,
        ["`readout_error`", "lie in [0, 1]", "-0.5"],
    ),
    "readout matrix that loses probability": (
        lambda: superdense(werner(fidelity=0.9), readout_error=(np.eye(2), 0.9 * np.eye(2))),
        ValueError,
        ["`readout_error`", "have columns that sum to one", "0.9"],
    ),
    "one readout matrix": (
        lambda: superdense(werner(fidelity=0.9), readout_error=(np.eye(2),)),
        ValueError,
        ["`readout_error`", "be an array or two matrices", "(2, 2)"],
    ),
    "odd number of bits": (
        lambda: FixedPoint(7),
        ValueError,
        ["`bits`", "be an even integer in [2, 32]", "7"],
    ),
    "no bits": (
        lambda: FixedPoint(0),
        ValueError,
        ["`bits`", "be an even integer in [2, 32]", "0"],
    ),
    "34 bits": (
        lambda: FixedPoint(34),
        ValueError,
        ["`bits`", "be an even integer in [2, 32]", "34"],
    ),
    "bits that are no integer": (
        lambda: FixedPoint(8.0),
        ValueError,
        ["`bits`", "be an even integer in [2, 32]", "8.0"],
    ),
    "clip of zero": (
        lambda: FixedPoint(8, clip=0.0),
        ValueError,
        ["`clip`", 'be "max", "robust" or a positive finite number', "0.0"],
    ),
    "infinite clip": (
        lambda: FixedPoint(8, clip=float("inf")),
        ValueError,
        ["`clip`", 'be "max", "robust" or a positive finite number', "inf"],
    ),
    "clip of another word": (
        lambda: FixedPoint(8, clip="mean"),
        ValueError,
        ["`clip`", 'be "max", "robust" or a positive finite number', "mean"],
    ),
    "unknown rounding": (
        lambda: FixedPoint(8, rounding="up"),
        ValueError,
        ["`rounding`", "be one of 'nearest', 'stochastic'", "up"],
    ),
    "transmit of signed words": (
        lambda: jq.transmit(jnp.zeros(3, jnp.int32), LINK, KEY),
        TypeError,
        ["`words`", "be uint32", "int32"],
    ),
    "transmit over several links": (
        lambda: jq.transmit(jnp.zeros(3, jnp.uint32), links(3), KEY),
        ValueError,
        ["`channel`", "be one link without batch axes", "(3, 4, 4)"],
    ),
    "transmit over a matrix": (
        lambda: jq.transmit(jnp.zeros(3, jnp.uint32), LINK.transition, KEY),
        TypeError,
        ["`channel`", "be a SymbolChannel", "0.85"],
    ),
    "transmit with a raw key": (
        lambda: jq.transmit(jnp.zeros(3, jnp.uint32), LINK, jax.random.PRNGKey(0)),
        TypeError,
        ["`key`", "be a typed key", "uint32[2]"],
    ),
    "moments of float codes": (
        lambda: jq.moments(jnp.zeros(3), FixedPoint(8), LINK),
        TypeError,
        ["`codes`", "be integers", "float32"],
    ),
    "moments on a float wire": (
        lambda: jq.moments(jnp.zeros(3, jnp.int32), Float32(), LINK),
        TypeError,
        ["`wire`", "be a FixedPoint", "Float32"],
    ),
    "moments of a channel that loses probability": (
        lambda: jq.moments(jnp.int32(1), FixedPoint(8), SymbolChannel(0.9 * jnp.eye(4))),
        ValueError,
        ["`channel.transition`", "have columns that are probability distributions", "0.9"],
    ),
}

STRONG = jq.Retransmit(jq.reed_solomon(255, 223))

PROTECTIONS = {
    "no check symbols": (
        lambda: jq.codes.BlockCode(8, 8, 0),
        ValueError,
        ["`n`", "be above k = 8", "8"],
    ),
    "more payload than symbols": (
        lambda: jq.reed_solomon(223, 255),
        ValueError,
        ["`n`", "be above k = 255", "223"],
    ),
    "length that is no integer": (
        lambda: jq.codes.BlockCode(255.0, 223, 16),
        ValueError,
        ["`n`", "be an integer of at least 1", "255.0"],
    ),
    "truth value for a length": (
        lambda: jq.codes.BlockCode(8, True, 1),
        ValueError,
        ["`k`", "be an integer of at least 1", "True"],
    ),
    "negative t": (
        lambda: jq.codes.BlockCode(8, 4, -1),
        ValueError,
        ["`t`", "be an integer of at least 0", "-1"],
    ),
    "t beyond half the check symbols": (
        lambda: jq.codes.BlockCode(255, 223, 17),
        ValueError,
        ["`t`", "be at most (n - k) / 2 = 16", "17"],
    ),
    "t beyond Hamming's bound": (
        lambda: jq.codes.BlockCode(255, 223, 5, symbol_bits=1),
        ValueError,
        ["`t`", "be correctable with n - k = 32 check symbols", "Hamming's bound", "5"],
    ),
    "t beyond the BCH code": (
        lambda: jq.codes.bch(127, 64, 11),
        ValueError,
        ["`t`", "be at most 10, the errors that a BCH code of 127 bits corrects with k = 64", "11"],
    ),
    "a t that is no integer, of a BCH code": (
        lambda: jq.codes.bch(127, 64, 10.0),
        ValueError,
        ["`t`", "be an integer of at least 0", "10.0"],
    ),
    "odd symbol_bits": (
        lambda: jq.codes.BlockCode(15, 11, 2, symbol_bits=3),
        ValueError,
        ["`symbol_bits`", "be 1 or an even number up to 32", "3"],
    ),
    "odd symbol_bits of a Reed-Solomon code": (
        lambda: jq.reed_solomon(7, 3, symbol_bits=3),
        ValueError,
        ["`symbol_bits`", "be 1 or an even number up to 32", "3"],
    ),
    "symbol_bits of 34": (
        lambda: jq.codes.BlockCode(15, 11, 2, symbol_bits=34),
        ValueError,
        ["`symbol_bits`", "be 1 or an even number up to 32", "34"],
    ),
    "one bit of payload": (
        lambda: jq.codes.bch(3, 1, 1),
        ValueError,
        ["`k`", "leave room for one two-bit symbol", "1"],
    ),
    "erasures that do not follow from t": (
        lambda: jq.codes.BlockCode(255, 223, 15, erasures=32),
        ValueError,
        ["`erasures`", "be one of 30, 31", "32"],
    ),
    "erasures beyond the check symbols": (
        lambda: jq.codes.BlockCode(255, 223, 16, erasures=33),
        ValueError,
        ["`erasures`", "be at most n - k = 32", "33"],
    ),
    "Reed-Solomon word longer than its field": (
        lambda: jq.reed_solomon(256, 223),
        ValueError,
        ["`n`", "be at most 2^symbol_bits - 1 = 255", "256"],
    ),
    "short field": (
        lambda: jq.reed_solomon(16, 11, symbol_bits=4),
        ValueError,
        ["`n`", "be at most 2^symbol_bits - 1 = 15", "16"],
    ),
    "extended Hamming code that is too long": (
        lambda: jq.codes.secded(72, 65),
        ValueError,
        ["`n`", "be at most 2^(n - k - 1) = 64", "72"],
    ),
    "extended Hamming code without checks": (
        lambda: jq.codes.secded(64, 64),
        ValueError,
        ["`n`", "be at most 2^(n - k - 1) = 0.5", "64"],
    ),
    "one copy": (
        lambda: jq.codes.repetition(1),
        ValueError,
        ["`n`", "be an integer of at least 2", "1"],
    ),
    "retransmission of no code": (
        lambda: jq.Retransmit(STRONG),
        TypeError,
        ["`code`", "be a BlockCode", "Retransmit("],
    ),
    "no attempts": (
        lambda: jq.Retransmit(jq.codes.secded(), max_attempts=0),
        ValueError,
        ["`max_attempts`", "be an integer of at least 1", "0"],
    ),
    "no checksum": (
        lambda: jq.Retransmit(jq.codes.secded(), checksum_bits=0),
        ValueError,
        ["`checksum_bits`", "be an integer of at least 1", "0"],
    ),
    "checksum that leaves no payload": (
        lambda: jq.Retransmit(jq.codes.secded(), checksum_bits=63),
        ValueError,
        ["`checksum_bits`", "leave two of the 64 bits of payload", "63"],
    ),
    "negative gap": (
        lambda: jq.codes.IdealCode(-0.1),
        ValueError,
        ["`gap`", "lie in [0, 2]", "-0.1"],
    ),
    "gap that is no number": (
        lambda: jq.codes.IdealCode(NAN),
        ValueError,
        ["`gap`", "lie in [0, 2]", "nan"],
    ),
    "unequal protection by nothing": (
        lambda: jq.codes.Unequal(None, symbols=2),
        TypeError,
        ["`strong`", "be a BlockCode, Retransmit or IdealCode", "None"],
    ),
    "unequal protection of unequal protection": (
        lambda: jq.codes.Unequal(jq.codes.Unequal(STRONG, symbols=1), symbols=1),
        TypeError,
        ["`strong`", "be a BlockCode, Retransmit or IdealCode", "Unequal("],
    ),
    "unequal protection of no symbols": (
        lambda: jq.codes.Unequal(STRONG, symbols=0),
        ValueError,
        ["`symbols`", "be an integer of at least 1", "0"],
    ),
    "failure over a matrix": (
        lambda: jq.codes.secded().failure_prob(LINK.transition),
        TypeError,
        ["`channel`", "be a SymbolChannel", "0.85"],
    ),
    "rate over a matrix": (
        lambda: jq.codes.IdealCode().net_rate(LINK.transition),
        TypeError,
        ["`channel`", "be a SymbolChannel", "0.85"],
    ),
    "failure over a channel that loses probability": (
        lambda: STRONG.failure_prob(SymbolChannel(0.9 * jnp.eye(4))),
        ValueError,
        ["`channel.transition`", "have columns that are probability distributions", "0.9"],
    ),
    "error of a hop on a float wire": (
        lambda: jq.codes.hop_error(Float32(), LINK, STRONG),
        TypeError,
        ["`wire`", "be a FixedPoint", "Float32"],
    ),
    "error of a hop with too many symbols": (
        lambda: jq.codes.hop_error(FixedPoint(8), LINK, jq.codes.Unequal(STRONG, symbols=5)),
        ValueError,
        ["`protection.symbols`", "be at most the 4 symbols of the wire", "5"],
    ),
    "protection that is none": (
        lambda: Ring(LINK, protection="reed_solomon"),
        TypeError,
        ["`protection`", "be a BlockCode, Retransmit, IdealCode or Unequal", "reed_solomon"],
    ),
    "protection that is a class": (
        lambda: Ring(LINK, protection=jq.Retransmit),
        TypeError,
        ["`protection`", "be a BlockCode, Retransmit, IdealCode or Unequal", "Retransmit"],
    ),
    "gaussian noise with protection": (
        lambda: Ring(LINK, noise="gaussian", protection=STRONG),
        ValueError,
        ["`noise`", 'be "sampled" or "off" with protection', "gaussian"],
    ),
    "mean noise with protection": (
        lambda: Ring(LINK, noise="mean", protection=STRONG),
        ValueError,
        ["`noise`", 'be "sampled" or "off" with protection', "mean"],
    ),
    "protection without scrambling": (
        lambda: Ring(LINK, protection=STRONG, scramble=False),
        ValueError,
        ["`scramble`", "be True with protection", "False"],
    ),
    "unequal protection of a float wire": (
        lambda: Ring(LINK, wire=Float32(), protection=jq.codes.Unequal(STRONG, symbols=2)),
        ValueError,
        ["`wire`", "be a FixedPoint under Unequal protection", "Float32"],
    ),
    "unequal protection of more symbols than a code has": (
        lambda: Ring(LINK, wire=FixedPoint(8), protection=jq.codes.Unequal(STRONG, symbols=5)),
        ValueError,
        ["`protection.symbols`", "be at most the 4 symbols of the wire", "5"],
    ),
    "unknown simulation": (
        lambda: Ring(LINK, protection=STRONG, simulate="words"),
        ValueError,
        ["`simulate`", "be one of 'attempts', 'symbol'", "words"],
    ),
    "replicated with unequal protection": (
        lambda: summed(
            Ring(LINK, protection=jq.codes.Unequal(STRONG, symbols=2)), KEY, replicated=True
        ),
        ValueError,
        ["`replicated`", 'be False unless noise is "off" or every symbol is protected', "True"],
    ),
    "cost of an ideal code without capacity": (
        lambda: Ring(superdense(werner(fidelity=0.25)), protection=jq.codes.IdealCode()).cost(
            10, 2
        ),
        ValueError,
        ["`ring.channel`", "have a capacity above the gap of its IdealCode", "0.25"],
    ),
    "cost of an ideal code with too wide a gap": (
        lambda: Ring(LINK, protection=jq.codes.IdealCode(1.5)).cost(10, 2),
        ValueError,
        ["`ring.channel`", "have a capacity above the gap of its IdealCode", "0.85"],
    ),
    "cost of an ideal code on a traced link": (
        lambda: jax.jit(
            lambda link: Ring(link, protection=jq.codes.IdealCode()).cost(10, 2).qubits
        )(LINK),
        ValueError,
        ["`ring.channel`", "be concrete for the cost of an IdealCode", "SymbolChannel"],
    ),
}

RINGS = {
    "wire that is none": (
        lambda: Ring(wire=16),
        TypeError,
        ["`wire`", "be a FixedPoint, Counts, Float32, BFloat16 or LogLevels", "16"],
    ),
    "unknown noise": (
        lambda: Ring(noise="on"),
        ValueError,
        ["`noise`", "be one of 'sampled', 'gaussian', 'mean', 'off'", "on"],
    ),
    "gaussian noise on a float wire": (
        lambda: Ring(wire=Float32(), noise="gaussian"),
        ValueError,
        ["`noise`", 'be "sampled" or "off" on a float or logarithmic wire', "gaussian"],
    ),
    "scramble that is no truth value": (
        lambda: Ring(scramble="no"),
        ValueError,
        ["`scramble`", "be one of True, False", "no"],
    ),
    "no nodes on a device": (
        lambda: Ring(nodes_per_device=0),
        ValueError,
        ["`nodes_per_device`", "be an integer of at least 1", "0"],
    ),
    "missing axis of the nodes on a device": (
        lambda: summed(Ring(noise="off", nodes_per_device=2), x=np.ones(3, np.float32)),
        ValueError,
        ["`x`", "have a leading axis of `nodes_per_device` = 2", "(3,)"],
    ),
    "ring that is none": (
        lambda: summed(LINK),
        TypeError,
        ["`ring`", "be a Ring", "SymbolChannel"],
    ),
    "axis that is not bound": (
        lambda: summed(NOISELESS, name="devices"),
        ValueError,
        ["`axis_name`", "be bound by pmap, shard_map or vmap", "'devices'"],
    ),
    "no room for guard bits": (
        lambda: summed(Ring(noise="off", wire=FixedPoint(4)), num_nodes=8),
        ValueError,
        ["`wire.bits`", "be at least 6 for 8 nodes", "3 guard bits", "4"],
    ),
    "no room for guard bits in the cost": (
        lambda: Ring(wire=FixedPoint(4)).cost(10, 8),
        ValueError,
        ["`wire.bits`", "be at least 6 for 8 nodes", "3 guard bits", "4"],
    ),
    "integer leaf": (
        lambda: summed(NOISELESS, x={"w": np.ones(3, np.float32), "count": np.int32(1)}),
        TypeError,
        ["`x['count']`", "be real and floating", "int32"],
    ),
    "complex leaf": (
        lambda: summed(NOISELESS, x=(np.ones(3, np.complex64),)),
        TypeError,
        ["`x[0]`", "be real and floating", "complex64"],
    ),
    "raw key": (
        lambda: summed(Ring(LINK), jax.random.PRNGKey(0)),
        TypeError,
        ["`key`", "be a typed key", "wrap_key_data", "uint32[2]"],
    ),
    "batch of keys": (
        lambda: summed(Ring(LINK), jax.random.split(KEY, 3)),
        ValueError,
        ["`key`", "be a single key of shape ()", "(3,)"],
    ),
    "missing key": (
        lambda: summed(Ring(LINK)),
        TypeError,
        ["`key`", "be a typed key", "None"],
    ),
    "missing key of stochastic rounding": (
        lambda: summed(Ring(noise="off", wire=FixedPoint(8, rounding="stochastic"))),
        TypeError,
        ["`key`", "be a typed key", "None"],
    ),
    "missing channel": (
        lambda: summed(Ring(), KEY),
        TypeError,
        ["`ring.channel`", "be a SymbolChannel", "None"],
    ),
    "three links for eight nodes": (
        lambda: summed(Ring(links(3)), KEY, num_nodes=8),
        ValueError,
        ["`ring.channel`", "be one link or one for each of the 8 nodes", "(3,)"],
    ),
    "transition that is not stochastic": (
        lambda: summed(Ring(SymbolChannel(1.1 * jnp.eye(4))), KEY),
        ValueError,
        ["`ring.channel.transition`", "have columns that are probability distributions", "1.1"],
    ),
    "transition of a wrong shape": (
        lambda: summed(Ring(SymbolChannel(jnp.eye(3))), KEY),
        ValueError,
        ["`ring.channel.transition`", "have the shape (..., 4, 4) or (..., 5, 4)", "(3, 3)"],
    ),
    "replicated with noise": (
        lambda: summed(Ring(LINK), KEY, replicated=True),
        ValueError,
        ["`replicated`", 'be False unless noise is "off"', "True"],
    ),
    "scattered dimension of a wrong length": (
        lambda: SCATTER(num_nodes=3),
        ValueError,
        ["`scatter_dimension`", "name a dimension of length 3", "4"],
    ),
    "tiled dimension that the nodes do not divide": (
        lambda: SCATTER(num_nodes=3, tiled=True),
        ValueError,
        ["`scatter_dimension`", "name a dimension of length a multiple of 3", "4"],
    ),
    "scattered dimension that is not there": (
        lambda: SCATTER(num_nodes=4, scatter_dimension=1),
        ValueError,
        ["`scatter_dimension`", "be an integer in [-1, 0]", "1"],
    ),
    "gathered axis that is not there": (
        lambda: GATHER(axis=2),
        ValueError,
        ["`axis`", "be an integer in [-2, 1]", "2"],
    ),
    "nothing to gather": (
        lambda: GATHER(x=np.ones(0, np.float32)),
        ValueError,
        ["`x`", "hold at least one value", "none"],
    ),
    "cost for no nodes": (
        lambda: NOISELESS.cost(10, 0),
        ValueError,
        ["`num_nodes`", "be an integer of at least 1", "0"],
    ),
    "cost of a negative size": (
        lambda: NOISELESS.cost(-1, 2),
        ValueError,
        ["`tree_or_size`", "size of at least 0", "-1"],
    ),
    "cost of an unknown collective": (
        lambda: NOISELESS.cost(10, 2, collective="broadcast"),
        ValueError,
        ["`collective`", "be one of 'psum', 'psum_scatter', 'all_gather'", "broadcast"],
    ),
    "negative rate of qubits": (
        lambda: COST.seconds(qubit_rate=-1.0),
        ValueError,
        ["`qubit_rate`", "be a positive finite rate", "-1.0"],
    ),
    "no rate of bits": (
        lambda: COST.classical_seconds(bit_rate=0),
        ValueError,
        ["`bit_rate`", "be a positive finite rate", "0"],
    ),
    "negative latency": (
        lambda: COST.seconds(qubit_rate=1.0, latency=-2.0),
        ValueError,
        ["`latency`", "be at least 0", "-2.0"],
    ),
    "optimizer with a raw key": (
        lambda: jq.all_reduce(Ring(LINK), AXIS, key=jax.random.PRNGKey(0)),
        TypeError,
        ["`key`", "be a typed key", "uint32[2]"],
    ),
    "optimizer without a ring": (
        lambda: jq.all_reduce(LINK, AXIS, key=KEY),
        TypeError,
        ["`ring`", "be a Ring", "SymbolChannel"],
    ),
}

TABLE = [
    pytest.param(*row, id=f"{room}: {name}")
    for room, rows in (
        ("quantum", QUANTUM),
        ("link", LINKS),
        ("protection", PROTECTIONS),
        ("ring", RINGS),
    )
    for name, row in rows.items()
]


@pytest.mark.parametrize("call, error, words", TABLE)
def test_a_malformed_call_is_refused_in_one_sentence(call, error, words):
    with pytest.raises(error) as refusal:
        call()
    message = str(refusal.value)
    assert refusal.type is error
    for word in words:
        assert word in message, message
    assert message.startswith("`"), message
    assert message.endswith("."), message
    assert "\n" not in message, message
    assert " must " in message, message


def test_the_table_is_not_satisfied_by_well_formed_calls():
    # The helpers of the table run when nothing is wrong, so that its refusals are of its mistakes.
    assert summed(NOISELESS).tolist() == [2, 2]
    assert summed(Ring(links(2)), KEY, x=VECTOR).shape == (2, 4)
    assert SCATTER(num_nodes=4).tolist() == [4, 4, 4, 4]
    assert GATHER().shape == (2, 2, 4)
    assert jq.from_kraus(kraus(1.0)).ptm.shape == (4, 4)
    assert float(jq.from_density_matrix(density()).fidelity) == 0.25
    assert Ring(LINK, protection=STRONG).cost(10, 2).codewords == 2
    assert summed(Ring(LINK, protection=jq.codes.IdealCode()), KEY, replicated=True).tolist() == [
        2,
        2,
    ]
