"""The example of the README: eight nodes fit a line, their gradients averaged over the ring."""

import jax
import jax.numpy as jnp

import jaxqring as jq

ring = jq.Ring(jq.superdense(jq.werner(fidelity=0.999)))  # eight links, all alike
inputs = jax.random.normal(jax.random.key(0), (8, 64, 3))  # 64 samples on each of eight nodes
truth, weights = jnp.array([1.0, -2.0, 0.5]), jnp.zeros((8, 3))


def step(weights, inputs, key):
    gradient = jax.grad(lambda w: jnp.mean((inputs @ (w - truth)) ** 2))(weights)
    return weights - 0.1 * jq.pmean(gradient, "nodes", ring=ring, key=key)  # was: lax.pmean


step = jax.jit(jax.vmap(step, in_axes=(0, 0, None), axis_name="nodes"))  # or pmap, shard_map
for number in range(1, 201):
    weights = step(weights, inputs, jax.random.key(number))
print(f"largest error on any node: {abs(weights - truth).max():.4f}")
