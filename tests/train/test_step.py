"""One step: how far replicas are apart, how they are brought back, and that they need not part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxqring import Retransmit, Ring, pmean, reed_solomon, superdense, werner
from jaxqring.train._placement import MAPPINGS
from jaxqring.train._step import AXIS, _shot_key, node_resync, over_nodes, replica_drift


def drift_of(replicas):
    """The drift that each node sees."""
    run = jax.vmap(functools.partial(replica_drift, axis_name=AXIS), axis_name=AXIS)
    return np.asarray(jax.jit(run)(replicas))


def replicas(nodes, spread):
    """Replicas that are `spread` apart."""
    random = np.random.default_rng(nodes)
    shapes = {"kernel": (3, 5), "bias": (5,), "scale": ()}
    return {
        name: np.float32(random.normal(size=shape) + spread * random.normal(size=(nodes, *shape)))
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("nodes, spread", [(2, 1.0), (3, 0.1), (8, 1e-3)])
def test_drift_is_the_largest_difference_relative_to_the_values(nodes, spread):
    tree = replicas(nodes, spread)
    values = np.concatenate([leaf.reshape(nodes, -1) for leaf in tree.values()], axis=1)
    high, low = values.max(axis=0).astype(float), values.min(axis=0).astype(float)
    expected = np.sqrt(((high - low) ** 2).mean() / ((high**2 + low**2) / 2).mean())
    found = drift_of(tree)
    assert found.dtype == np.float32
    assert len(set(found.tolist())) == 1  # the same on every node
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


@pytest.mark.parametrize("nodes", [3, 8])
def test_equal_replicas_have_not_drifted_at_all(nodes):
    # A mean over 3 nodes of values with no short binary fraction would not give them back.
    tree = jax.tree.map(lambda leaf: np.stack([leaf[0]] * nodes), replicas(nodes, 1.0))
    assert (drift_of(tree) == 0).all()
    assert (drift_of(jax.tree.map(np.zeros_like, tree)) == 0).all()
    # The last bit of one value on one node is seen.
    tree["bias"][1, 2] = np.nextafter(tree["bias"][1, 2], np.float32(np.inf))
    assert (drift_of(tree) > 0).all()


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_resync_gives_all_nodes_the_mean_of_parameters_and_optimizer(mapping):
    nodes = 3
    params = replicas(nodes, 0.3)
    state = TrainState.create(apply_fn=None, params=params, tx=optax.adam(1e-2))
    random = np.random.default_rng(0)

    def parted(leaf):
        leaf = np.asarray(leaf)
        if leaf.shape[:1] != (nodes,):  # counts of steps
            return np.full((nodes, *leaf.shape), 7, np.int32)
        return np.float32(leaf + random.normal(size=leaf.shape))

    state = jax.tree.map(parted, state)
    averaged = over_nodes(node_resync, mapping, jax.devices()[:nodes], shared=())(state)
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(averaged), strict=True)
    for before, after in leaves:
        after = np.asarray(after)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, np.broadcast_to(after[:1], after.shape))
        np.testing.assert_allclose(after[0], before.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert (drift_of(state.params) > 0.1).all()
    assert (drift_of(averaged.params) == 0).all()


def test_a_sum_of_the_same_values_has_the_same_bits_under_every_mapping():
    values = np.float32(np.random.default_rng(2).normal(size=(3, 500)))
    ring = Ring(superdense(werner(fidelity=0.9)))

    def mean(x, key):
        return pmean(x, AXIS, ring=ring, key=key, with_report=True)

    def run(mapping):
        return over_nodes(mean, mapping, jax.devices()[:3], shared=(1,))(values, jax.random.key(0))

    first, *others = map(run, MAPPINGS)
    assert (np.asarray(first[1].symbol_errors) > 0).all()
    assert not np.array_equal(first[0], np.broadcast_to(values.mean(0), (3, 500)))
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)


class Scaled:
    """A callable object, whose second argument has a default."""

    def __call__(self, x, factor=2.0, *, offset=0.0):
        return {"mean": lax.pmean(x * factor, AXIS) + offset}


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_callable_is_mapped(mapping):
    values = np.float32([[1.0], [2.0], [6.0]])
    mean, devices = 3 * np.ones((3, 1)), jax.devices()[:3]

    def mapped(function):
        return over_nodes(function, mapping, devices, shared=(1,))

    for function, arguments, expected in (
        (Scaled(), (values,), 2 * mean),
        (functools.partial(Scaled(), offset=1.0), (values, 5.0), 5 * mean + 1),
        (functools.partial(Scaled(), factor=3.0), (values,), 3 * mean),
        (jax.jit(Scaled()), (values, 5.0), 5 * mean),
        (lambda *xs: Scaled()(*xs), (values, 5.0), 5 * mean),
    ):
        np.testing.assert_allclose(mapped(function)(*arguments)["mean"], expected, rtol=1e-6)
    once = mapped(Scaled())  # called with one argument, then with two
    np.testing.assert_allclose(once(values)["mean"], 2 * mean, rtol=1e-6)
    np.testing.assert_allclose(once(values, 4.0)["mean"], 4 * mean, rtol=1e-6)


def test_a_mapping_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match=r"`mapping` must be one of .*, but got 'auto'"):
        over_nodes(node_resync, "auto", jax.devices()[:2], shared=())


@pytest.mark.matrix
@pytest.mark.parametrize("simulate", ["attempts", "symbol"])
def test_parameters_known_to_be_replicated_train_over_noisy_links_as_over_perfect_ones(
    ring_mesh, simulate
):
    # The reader's own step: parameters enter and leave shard_map as P(), with its checks on.
    nodes, steps = 4, 10
    random = np.random.default_rng(1)
    x = np.float32(random.normal(size=(steps, nodes * 8, 30)))
    y = np.float32(x @ random.normal(size=(30, 4)))
    optimizer = optax.adam(0.05)
    start = {"kernel": jnp.zeros((30, 4)), "bias": jnp.zeros((4,))}

    def trained(ring):
        def shard(params, x, y, key):
            def step(carry, given):
                (params, state), (x, y, key) = carry, given

                def loss(params):
                    return jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)

                local = lax.pcast(params, AXIS, to="varying")
                value, gradients = jax.value_and_grad(loss)(local)
                gradients, report = pmean(
                    gradients, AXIS, ring=ring, key=key, replicated=True, with_report=True
                )
                updates, state = optimizer.update(gradients, state)
                params = optax.apply_updates(params, updates)
                counts = jnp.stack([report.retransmissions, report.undelivered])
                return (params, state), (lax.pmean(value, AXIS), counts)

            (params, _), history = lax.scan(step, (params, optimizer.init(params)), (x, y, key))
            return params, history

        run = jax.shard_map(
            shard,
            mesh=ring_mesh(nodes),
            in_specs=(P(), P(None, AXIS), P(None, AXIS), P()),
            out_specs=P(),
        )
        keys = jax.random.split(jax.random.key(3), steps)
        params, (losses, counts) = jax.jit(run)(start, x, y, keys)
        return jax.tree.map(np.asarray, params), np.asarray(losses), np.asarray(counts).sum(axis=0)

    link = superdense(werner(fidelity=0.975))
    protection = Retransmit(reed_solomon(63, 47))
    perfect, losses, counts = trained(Ring(noise="off"))
    assert counts.tolist() == [0, 0]
    assert losses[-1] < 0.8 * losses[0]
    noisy, same, (again, undelivered) = trained(
        Ring(link, protection=protection, simulate=simulate)
    )
    assert again > 0
    assert undelivered == 0
    np.testing.assert_array_equal(same, losses)
    for name in start:
        assert noisy[name].any()
        np.testing.assert_array_equal(noisy[name].view(np.int32), perfect[name].view(np.int32))


def test_shots_have_a_key_for_each_node_and_step_apart_from_that_of_the_ring():
    keys = jax.random.split(jax.random.key(0), 1)

    def of_node(_, step):
        state = TrainState(step, None, {}, None, {})
        return jax.random.key_data(_shot_key(keys[0], state))

    over = jax.vmap(of_node, in_axes=(0, None), axis_name=AXIS)
    found = [tuple(words) for step in range(3) for words in np.asarray(over(jnp.arange(4), step))]
    of_ring = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(keys[0], jnp.arange(3))
    ring = [tuple(words) for words in np.asarray(jax.random.key_data(of_ring))]
    assert len({*found, *ring}) == 4 * 3 + 3
