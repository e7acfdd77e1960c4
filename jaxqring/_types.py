"""Types that several rooms share: pytrees, names of axes, keys, and the choices of options."""

from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

import jax

#: Any nested structure of arrays that JAX takes.
PyTree: TypeAlias = Any
#: The name of a mapped axis, or a tuple of names that count as one axis.
AxisName: TypeAlias = Hashable
#: A typed PRNG key, as `jax.random.key` makes it.
Key: TypeAlias = jax.Array

Noise: TypeAlias = Literal["sampled", "gaussian", "mean", "off"]
Simulate: TypeAlias = Literal["attempts", "symbol"]
#: The way in which symbol errors are drawn, of one law: searched for, or decided one by one.
Sampler: TypeAlias = Literal["auto", "sparse", "dense"]
#: The way in which training images are spread over the nodes: each node draws from all of them, or
#: from a shard of its own of the images in the order of their labels.
Split: TypeAlias = Literal["iid", "sorted"]
Rounding: TypeAlias = Literal["nearest", "stochastic"]
DistillationProtocol: TypeAlias = Literal["dejmps", "bbpssw"]
HeraldingScheme: TypeAlias = Literal["midpoint", "direct"]
NonFinite: TypeAlias = Literal["propagate", "clip"]
Derivative: TypeAlias = Literal["mean", "exact"]
Collective: TypeAlias = Literal["psum", "psum_scatter", "all_gather"]
Estimator: TypeAlias = Literal["mean", "gaussian", "score", "russo", "exact"]

#: The arithmetic in which masks add up to zero: mod 2^bits, mod a prime, or bitwise XOR.
Realisation: TypeAlias = Literal["qft", "prime", "xor"]
#: The way in which masks of tested states are made secret.
Amplification: TypeAlias = Literal["bucket", "none", "universal"]
#: The measurements of GHZ copies that are tested.
CopyTests: TypeAlias = Literal["z", "mixed", "xy"]
#: The unit that a simulated verification draws: numbers of failures, or all outcomes.
VerifySimulation: TypeAlias = Literal["counts", "outcomes"]
#: The reading of the protocol that an epsilon belongs to.
EpsilonMode: TypeAlias = Literal["composable", "paper"]
#: The remedy where nodes vanish from a secure collective.
Recovery: TypeAlias = Literal["restart", "spare"]
#: The estimator of the angle between two gradients.
GapEstimator: TypeAlias = Literal["qpe", "mlae", "iqae", "projective"]
#: The transport of a copy of Alice's state: by qubits, or by EPR pairs and bits.
TieVariant: TypeAlias = Literal["message", "steered"]
#: The question of a tie audit: the fraction itself, or whether it is zero.
TieTest: TypeAlias = Literal["estimate", "zero"]
#: The measurement of the gradients of a model of two parties.
GradientMethod: TypeAlias = Literal["exact", "shift", "ancilla", "shadows", "bell"]

ModelName: TypeAlias = Literal["cnn", "mlp", "quantum"]
OptimizerName: TypeAlias = Literal["adam", "sgd"]
NodeMapping: TypeAlias = Literal["pmap", "shard_map", "vmap"]
MappingChoice: TypeAlias = Literal["auto", NodeMapping]
DerivativeMode: TypeAlias = Literal["auto", "forward", "reverse"]
