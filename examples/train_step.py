"""The same Flax training step under pmap, under shard_map and with nnx, over the same ring.

Run it with any number of devices; here eight of the host:

    python examples/train_step.py
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import jaxqring as jq

NODES = 8
# Exact replicas: a result that is the same on every node needs links without error.
RING = jq.Ring(wire=jq.FixedPoint(16), noise="off")
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
# Virtual devices of one host share its threads: let all finish a step before the next starts.
wait = jax.block_until_ready


class Classifier(nn.Module):
    """Two layers on points of the plane."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.tanh(nn.Dense(16)(x)))


def loss_of(scores, labels):
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def linen_loss(params, x, y):
    return loss_of(Classifier().apply(params, x), y)


def with_pmap(params, batches):
    """Every node holds its own copy of the parameters."""

    @functools.partial(jax.pmap, axis_name="nodes", in_axes=(0, 0, 0, 0, None))
    def step(params, opt_state, x, y, key):
        gradients = jax.grad(linen_loss)(params, x, y)  # local to the node
        gradients = jq.pmean(gradients, "nodes", ring=RING, key=key)
        updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (NODES, *jnp.shape(leaf))),
        (params, OPTIMIZER.init(params)),
    )
    for number, (x, y) in enumerate(batches):
        params, opt_state = wait(step(params, opt_state, x, y, jax.random.key(number)))
    return jax.tree.map(lambda leaf: leaf[0], params)


def with_shard_map(params, batches):
    """One copy of the parameters, replicated; shard_map checks that it stays so."""
    mesh = Mesh(np.array(jax.devices()[:NODES]), ("nodes",))

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), P("nodes"), P("nodes"), P()),
        out_specs=(P(), P()),
    )
    def step(params, opt_state, x, y, key):
        # Without this cast the gradient of replicated parameters arrives already summed.
        own = jax.lax.pcast(params, "nodes", to="varying")
        gradients = jax.grad(linen_loss)(own, x[0], y[0])
        gradients = jq.pmean(gradients, "nodes", ring=RING, key=key, replicated=True)
        updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = OPTIMIZER.init(params)
    for number, (x, y) in enumerate(batches):
        params, opt_state = wait(step(params, opt_state, x, y, jax.random.key(number)))
    return params


def with_nnx(batches):
    """An nnx model whose Optax chain holds the all-reduce and its running cost."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.Linear(2, 16, rngs=rngs)
            self.out = nnx.Linear(16, 2, rngs=rngs)

        def __call__(self, x):
            return self.out(nnx.tanh(self.hidden(x)))

    graph, params = nnx.split(Model(nnx.Rngs(0)), nnx.Param)
    optimizer = optax.chain(jq.all_reduce(RING, "nodes", key=jax.random.key(0)), OPTIMIZER)

    @functools.partial(jax.pmap, axis_name="nodes")
    def step(params, opt_state, x, y):
        gradients = jax.grad(lambda p: loss_of(nnx.merge(graph, p)(x), y))(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (NODES, *jnp.shape(leaf))),
        (params, optimizer.init(params)),
    )
    for x, y in batches:
        params, opt_state = wait(step(params, opt_state, x, y))
    model = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[0], params))
    return model, float(optax.tree.get(opt_state, "qubits")[0])


def batches(steps, per_node=32):
    """Points of the plane, and whether they lie within the unit circle."""
    x = np.random.default_rng(0).normal(size=(steps, NODES, per_node, 2)).astype(np.float32)
    return list(zip(x, (np.square(x).sum(-1) < 1).astype(np.int32), strict=True))


def main():
    steps = batches(150)
    x, y = (np.concatenate(part) for part in steps[-1])
    start = Classifier().init(jax.random.key(0), x)

    def accuracy(scores):
        return float(jnp.mean(jnp.argmax(scores, -1) == y))

    pmapped, sharded = with_pmap(start, steps), with_shard_map(start, steps)
    model, qubits = with_nnx(steps)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), pmapped, sharded)
    print(f"pmap:      accuracy {accuracy(Classifier().apply(pmapped, x)):.3f}")
    print(f"shard_map: accuracy {accuracy(Classifier().apply(sharded, x)):.3f}")
    print(f"nnx:       accuracy {accuracy(model(x)):.3f}, {qubits:,.0f} qubits per link")
    print(f"pmap and shard_map agree bit for bit: {all(jax.tree.leaves(same))}")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", NODES)
    main()
