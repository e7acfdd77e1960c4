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
Rounding: TypeAlias = Literal["nearest", "stochastic"]
NonFinite: TypeAlias = Literal["propagate", "clip"]

ModelName: TypeAlias = Literal["cnn", "mlp"]
NodeMapping: TypeAlias = Literal["pmap", "shard_map", "vmap"]
MappingChoice: TypeAlias = Literal["auto", NodeMapping]
DerivativeMode: TypeAlias = Literal["auto", "forward", "reverse"]
