"""The example of the README: eight nodes fit a line, their gradients averaged over the ring."""

import jax
import jax.numpy as jnp

import jaxqring as jq

ring = jq.Ring(jq.superdense(jq.werner(fidelity=0.999)))  # noisy superdense-coded links


def step(weights, inputs, targets, key):
    def loss(w):
        return jnp.mean((inputs @ w - targets) ** 2)

    gradient = jax.grad(loss)(weights)
    gradient = jq.pmean(gradient, "nodes", ring=ring, key=key)  # was: lax.pmean(gradient, "nodes")
    return weights - 0.1 * gradient


step = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None), axis_name="nodes"))  # or pmap, shard_map
inputs = jax.random.normal(jax.random.key(0), (8, 64, 3))
targets = inputs @ jnp.array([1.0, -2.0, 0.5])
weights = jnp.zeros((8, 3))
for number in range(200):
    weights = step(weights, inputs, targets, jax.random.key(number))
print("error of the worst node:", abs(weights - jnp.array([1.0, -2.0, 0.5])).max().round(3))
print(ring.cost(3, num_nodes=8))
