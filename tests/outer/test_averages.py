"""Averages over rings in outer loops: counts, keys, masks that fail, memories, and equal bits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from outer_cases import NODES

from jaxqring import (
    FixedPoint,
    GHZSource,
    Retransmit,
    Ring,
    bit_flip,
    outer,
    reed_solomon,
    superdense,
    werner,
)
from jaxqring.compress import TopK, Uncompressed
from jaxqring.ring import pmean
from jaxqring.secure import Security

AXIS, EVERY, ROUNDS = "nodes", 2, 3
KEY = jax.random.key(20261127)
# Not Adam, whose quotients of roots have other last bits where nodes are vectorised.
INNER = optax.sgd(0.1, momentum=0.9)
LINK = superdense(werner(fidelity=0.9))
NOISY = Ring(LINK)
OFF = Ring(noise="off")
PROTECTED = Ring(LINK, protection=Retransmit(reed_solomon(255, 223)))
SHAPES = {"w": (5, 2), "b": (3,)}
SECURITY = Security(test_ratio=0.5)

AVERAGES = {
    "off": lambda own=1: outer.over_ring(Ring(noise="off", nodes_per_device=own), AXIS),
    "noisy": lambda own=1: outer.over_ring(Ring(LINK, nodes_per_device=own), AXIS),
    "protected": lambda own=1: outer.over_ring(
        Ring(LINK, protection=PROTECTED.protection, nodes_per_device=own), AXIS
    ),
    "secure": lambda own=1: outer.secure(
        Ring(noise="off", nodes_per_device=own), AXIS, source=GHZSource(NODES), security=SECURITY
    ),
    "compressed": lambda own=1: outer.compressed(
        TopK(0.3), Ring(noise="off", nodes_per_device=own), AXIS
    ),
}


def normal(*lead, seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(*lead, *shape)).astype(np.float32) for name, shape in SHAPES.items()
    }


def gradients():
    return normal(NODES, EVERY * ROUNDS, seed=1)


def starts():
    return jax.tree.map(lambda leaf: np.tile(leaf, (NODES, *[1] * leaf.ndim)), normal(seed=2))


@functools.cache
def steps_of(loop, lead):
    """One device: all steps in one scan, on gradients that are given."""

    def node(params, state, found, steps):
        def step(carry, at):
            grads = jax.tree.map(lambda leaf: jnp.take(leaf, at, axis=lead), found)
            return loop.update(grads, carry[1], carry[0], step=at), None

        return jax.lax.scan(step, (params, state), steps)[0]

    return node


def run(loop, mapping, own=1):
    params, found = starts(), gradients()
    if own > 1:

        def apart(leaf):
            return leaf.reshape(NODES // own, own, *leaf.shape[1:])

        params, found = jax.tree.map(apart, (params, found))
    state = jax.vmap(loop.init)(params)
    act = mapping(steps_of(loop, int(own > 1)), NODES // own, shared=1)
    params, state = act(params, state, found, jnp.arange(EVERY * ROUNDS))
    return jax.tree.map(np.asarray, (params, state))


@functools.cache
def loop_of(name, own=1):
    if name == "streaming":
        return outer.diloco(
            INNER, AVERAGES["off"](own), every=EVERY, fragments=2, blend=0.25, key=KEY
        )
    if name == "eager":
        return outer.diloco(INNER, AVERAGES["off"](own), every=EVERY, eager=True, key=KEY)
    return outer.diloco(INNER, AVERAGES[name](own), every=EVERY, key=KEY)


@functools.cache
def by_vmap(mapping_named, name):
    return run(loop_of(name), mapping_named("vmap"))


def assert_same(found, wanted):
    """The same bits, but for the estimates, whose sums may be in another order."""
    params, state = found
    others, other = wanted
    for name, value in state._asdict().items():
        left, right = (
            (value, getattr(other, name))
            if name != "method"
            else (
                [part._replace(secant=0) for part in value],
                [part._replace(secant=0) for part in getattr(other, name)],
            )
        )
        if name in ("share", "radius"):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)
        else:
            jax.tree.map(np.testing.assert_array_equal, left, right)
    jax.tree.map(np.testing.assert_array_equal, params, others)


further = functools.partial(pytest.param, marks=pytest.mark.matrix)
NAMES = [*AVERAGES, "streaming", "eager"]
FEW = {("noisy", "shard_map_checked")}


@pytest.mark.parametrize(
    "name, other",
    [
        (name, other) if (name, other) in FEW else further(name, other)
        for name in NAMES
        for other in ("pmap", "shard_map_checked", "shard_map_unchecked")
    ],
)
def test_every_mapping_gives_the_same_bits(mapping_named, name, other):
    found = run(loop_of(name), mapping_named(other))
    assert_same(found, by_vmap(mapping_named, name))


@pytest.mark.parametrize("name", ["noisy", *map(further, ("secure", "compressed", "eager"))])
def test_two_nodes_on_a_device_are_two_nodes(mapping_named, name):
    params, state = run(loop_of(name, 2), mapping_named("vmap"), own=2)

    def together(leaf):
        return leaf.reshape(NODES, *leaf.shape[2:])

    wanted, other = by_vmap(mapping_named, name)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(together, params), wanted)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(together, state.slow), other.slow)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(together, state.inner), other.inner)
    assert state.qubits[0] == other.qubits[0]


@pytest.mark.parametrize("name", ["noisy", *map(further, ("off", "protected", "secure"))])
def test_replicas_agree_where_the_average_is_exact_and_costs_are_counted(mapping_named, name):
    params, state = by_vmap(mapping_named, name)
    same = [(leaf == leaf[:1]).all() for leaf in jax.tree.leaves((params, state.slow))]
    assert all(same) == (name != "noisy")
    ring = {"noisy": NOISY, "protected": PROTECTED}.get(name, OFF)
    cost = ring.cost(normal(seed=0), NODES)
    assert state.bits.tolist() == [ROUNDS * cost.bits] * NODES
    assert state.rounds.tolist() == [ROUNDS] * NODES
    if name == "protected":
        assert (state.qubits > ROUNDS * cost.qubits).all()
        assert (state.symbol_errors == 0).all()
    else:
        assert state.qubits.tolist() == [ROUNDS * cost.qubits] * NODES
        assert (state.symbol_errors > 0).all() == (name == "noisy")
    assert state.aborted.tolist() == [0] * NODES


def test_values_that_a_round_clips_are_counted(vmapped):
    average = outer.over_ring(Ring(noise="off", wire=FixedPoint(clip=1.0)), AXIS)

    def node(x):
        return average.mean(x, (), None)[2]

    found = normal(NODES, seed=6)
    clipped = sum(int((np.abs(leaf) > 1).sum()) for leaf in found.values())
    counts = vmapped(node, NODES)(found)
    assert counts.saturated.tolist() == [clipped] * NODES
    assert clipped > 0
    assert counts.out_of_range.tolist() == [0] * NODES


def test_the_number_of_the_round_is_folded_into_the_key(mapping_named):
    # By hand: local SGD whose rounds are `pmean` of the displacement, with the key of the round.
    def average(tree, key):
        return pmean(tree, AXIS, ring=NOISY, key=key)

    loop = outer.local_sgd(optax.sgd(1.0), average, every=EVERY, key=KEY)
    found, state = run(loop, mapping_named("vmap"))
    assert state.bits is state.aborted is None  # a plain function counts nothing
    assert state.rounds.tolist() == [ROUNDS] * NODES

    def node(params, found):
        slow = params
        for number in range(ROUNDS):
            delta = jax.tree.map(lambda leaf, at=number * EVERY: leaf[at] + leaf[at + 1], found)
            delta = jax.tree.map(lambda s, d: s - (s - d), slow, delta)
            mean = pmean(delta, AXIS, ring=NOISY, key=jax.random.fold_in(KEY, number))
            slow = jax.tree.map(lambda a, b: a - b, slow, mean)
        return slow

    # The displacement is rounded otherwise here, by half a level of the wire at most and by chance.
    by_hand = mapping_named("vmap")(node, NODES)(starts(), gradients())
    level = 8 * 2.0**-12
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=ROUNDS * level), found, by_hand)
    assert (found["w"] != found["w"][:1]).any()


# --- Masks that fail ------------------------------------------------------------------------------

MANY = 12
#: About half of all rounds are aborted, as each of some 20 copies under test is 16 states, and some
#: sums of masks are wrong.
SOMETIMES = GHZSource(NODES, noise=bit_flip(error_prob=0.0005))
STRICT = Security(test_ratio=0.5, attempts=1)


@pytest.mark.parametrize("overlap", [1, further(0)])
def test_an_aborted_round_leaves_all_as_it_was_and_the_next_one_makes_up_for_it(vmapped, overlap):
    average = outer.secure(OFF, AXIS, source=SOMETIMES, security=STRICT)
    loop = outer.diloco(
        optax.sgd(1.0),
        average,
        every=EVERY,
        learning_rate=1.0,
        momentum=0.0,
        overlap=overlap,
        key=KEY,
    )
    # Multiples of 1/8, of which the sums, and the levels of a wire of 16 bits, are exact.
    found = jax.tree.map(lambda leaf: np.round(leaf * 8) / 8, normal(NODES, EVERY * MANY, seed=4))

    def node(found, steps):
        params = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), found)

        def step(carry, at):
            grads = jax.tree.map(lambda leaf: leaf[at], found)
            carry = loop.update(grads, carry[1], carry[0], step=at)
            return carry, (carry[0], carry[1].aborted)

        (_, state), history = jax.lax.scan(step, (params, loop.init(params)), steps)
        return *history, state

    history, aborted, state = vmapped(node, NODES, shared=1)(found, jnp.arange(EVERY * MANY))
    aborted = np.asarray(aborted[0])
    count = int(aborted[-1])
    assert 1 < count < MANY - 1
    right = 0
    for name in SHAPES:
        params = np.zeros_like(found[name][:, 0])
        slow, arriving = params[0].copy(), {}
        for at in range(EVERY * MANY):
            params = params - found[name][:, at]
            given_up = aborted[at] > (aborted[at - 1] if at else 0)
            if (at + 1) % EVERY == 0 and not given_up:
                arriving[at + overlap] = (slow - params).mean(axis=0)
            assert not given_up or (at + 1) % EVERY == 0
            if at in arriving:
                expected = slow - arriving.pop(at)
                params = np.asarray(history[name])[:, at]
                slow = params[0]
                assert (params == slow).all()
                # Wrong are 13 x 3 x 16 / 1000 sums of masks of a round in the mean, at most.
                assert (slow != expected).sum() <= 2
                right += (slow == expected).sum()
            np.testing.assert_array_equal(history[name][:, at], params)
    rounds = MANY - count - len(arriving)
    assert right > 0.9 * rounds * 13
    assert state.rounds.tolist() == [rounds] * NODES
    sent = (MANY - count) * OFF.cost(normal(seed=0), NODES).qubits
    assert state.qubits.tolist() == [sent] * NODES  # an aborted one sends nothing


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["overlap", "eager", "co2", "compressed"])
def test_where_every_round_is_aborted_nodes_train_by_themselves(vmapped, kind):
    source = GHZSource(NODES, white=1.0)  # passes with a probability of 8^-20 or less
    average = outer.secure(OFF, AXIS, source=source, security=STRICT)
    masks = {"source": source, "security": STRICT}
    loop = {
        "compressed": lambda: outer.diloco(
            INNER, outer.compressed(Uncompressed(8), OFF, AXIS, **masks), every=EVERY, key=KEY
        ),
        "overlap": lambda: outer.diloco(INNER, average, every=EVERY, overlap=1, key=KEY),
        "eager": lambda: outer.diloco(INNER, average, every=EVERY, eager=True, key=KEY),
        "co2": lambda: outer.co2(INNER, average, every=EVERY, key=KEY),
    }[kind]()
    params, state = run(loop, vmapped)

    def alone(params, found):
        state = INNER.init(params)
        for at in range(EVERY * ROUNDS):
            grads = jax.tree.map(lambda leaf, at=at: leaf[at], found)
            updates, state = INNER.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    wanted = vmapped(alone, NODES)(starts(), gradients())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, wanted)
    jax.tree.map(np.testing.assert_array_equal, state.slow, starts())
    assert state.rounds.tolist() == [0] * NODES
    assert state.aborted.tolist() == [ROUNDS] * NODES
    assert state.bits.tolist() == state.qubits.tolist() == [0] * NODES
    assert (
        not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state.method)) or kind == "co2"
    )


# --- Derivatives ----------------------------------------------------------------------------------


def test_a_loss_after_a_round_has_a_derivative_by_the_noise_of_the_links(vmapped):
    def loss(params, found, steps, fidelity):
        ring = Ring(superdense(werner(fidelity=fidelity)), noise="mean", scramble=False)
        loop = outer.local_sgd(optax.sgd(0.1), outer.over_ring(ring, AXIS), every=EVERY)

        def step(carry, at):
            grads = jax.tree.map(lambda leaf: leaf[at], found)
            return loop.update(grads, carry[1], carry[0], step=at), None

        (params, _), _ = jax.lax.scan(step, (params, loop.init(params)), steps)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    def node(params, found, steps, fidelity):
        return jax.value_and_grad(loss, argnums=3)(params, found, steps, fidelity)

    act = vmapped(node, NODES, shared=2)
    (low, _), (_, slopes), (high, _) = [
        act(starts(), gradients(), jnp.arange(EVERY), jnp.float32(f)) for f in (0.85, 0.9, 0.95)
    ]
    # Each node differentiates all losses by the fidelity that it knows; they add up. The mean of a
    # level is rounded to a level, which a difference over 0.1 hardly sees.
    assert (np.abs(slopes) > 0.1).all()
    np.testing.assert_allclose(slopes.sum(), (high - low).sum() / 0.1, rtol=0.02)
