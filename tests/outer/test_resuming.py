"""A state that is saved and restored in the middle of a round goes on to the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from outer_cases import NODES

from jaxqring import Ring, outer
from jaxqring.compress import TopK

AXIS, EVERY, SAVED, STEPS = "nodes", 4, 6, 11
KEY = jax.random.key(20261127)
INNER = optax.adam(0.1)
EXACT = outer.exact(AXIS)
LOOPS = {
    "local_sgd": lambda: outer.local_sgd(INNER, EXACT, every=EVERY),
    "diloco": lambda: outer.diloco(INNER, EXACT, every=EVERY),
    # Saved between sending, after step 6, and receiving.
    "streaming": lambda: outer.diloco(
        INNER, EXACT, every=EVERY, fragments=2, overlap=1, blend=0.25
    ),
    "delayed": lambda: outer.diloco(INNER, EXACT, every=EVERY, delayed=True),
    "eager": lambda: outer.diloco(INNER, EXACT, every=EVERY, eager=True),
    "co2": lambda: outer.co2(INNER, EXACT, every=EVERY, gap=lambda now, before: 1.5),
    "noloco": lambda: outer.noloco(INNER, AXIS, every=EVERY, key=KEY),
    "compressed": lambda: outer.local_sgd(
        INNER, outer.compressed(TopK(0.3), Ring(noise="off"), AXIS), every=EVERY
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.matrix) if name == "compressed" else name
        for name in LOOPS
    ],
)
def test_a_restored_state_goes_on_to_the_same_bits(vmapped, name):
    loop = LOOPS[name]()
    rng = np.random.default_rng(0)
    params = {
        "w": rng.normal(size=(NODES, 5, 2)).astype(np.float32),
        "b": rng.normal(size=(NODES, 3)).astype(np.float32),
    }
    state = jax.vmap(loop.init)(params)
    fresh = jax.vmap(loop.init)(jax.tree.map(jnp.zeros_like, params))
    act = vmapped(lambda p, s, step: loop.update(p, s, p, step=step), NODES, shared=1)
    both = params, state
    for step in range(STEPS):
        if step == SAVED:
            saved = serialization.to_bytes(both)
        both = act(*both, step)
    again = serialization.from_bytes((params, fresh), saved)
    for step in range(SAVED, STEPS):
        again = act(*again, step)
    assert jax.tree.structure(again) == jax.tree.structure(both)
    jax.tree.map(np.testing.assert_array_equal, again, both)
    assert (both[1].rounds >= 2).all()
