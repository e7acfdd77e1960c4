"""Derivatives of secure sums, calls that are refused, and one key for one collective."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from secure_calls import (
    AXIS,
    BARE,
    KEY,
    assert_same_bits,
    dephased,
    depolarized_by,
    noisy,
    payload,
    quiet,
    secure,
)

from jaxqring import (
    Float32,
    GHZSource,
    Retransmit,
    Ring,
    pmean,
    reed_solomon,
    secure_pmean,
    secure_psum,
    werner,
)
from jaxqring.codes import bch
from jaxqring.secure import Dropout, PlantedSource, Security, plus_states

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


# --- Derivatives ----------------------------------------------------------------------------------


def loss(call, x, ring, source, key, **options):
    """A number that weighs every coordinate on every node differently."""
    masked = {} if call is pmean else {"source": source, "security": Security()}

    def node(x):
        return call(x, AXIS, ring=ring, key=key, **masked, **options)

    return jnp.vdot(payload(*x.shape, seed=9), jax.vmap(node, axis_name=AXIS)(x))


@pytest.mark.parametrize("options", [{}, further({"dropout": Dropout(0.0)})], ids=["", "dropout"])
@pytest.mark.parametrize("fidelity", [further(1.0), 0.97])
def test_the_gradient_follows_the_data_through_masked_sums_and_bare_ones(fidelity, options):
    """Slope one up to the sum; then 1 - 2 f for each hop to a node, with bit flips f."""
    nodes, size = 3, 5
    x = payload(nodes, size)
    ring = noisy(fidelity) if fidelity < 1 else quiet()
    gradient = jax.jit(jax.grad(functools.partial(loss, secure_pmean, **options)))
    got = gradient(x, ring, GHZSource(nodes), KEY)
    weights = payload(nodes, size, seed=9)
    slope = 1 - 2 * (2 * (1 - fidelity) / 3)
    chunk = np.arange(size) // 2
    # The sum of chunk c is made on node c - 1, and reaches node j after that many hops.
    hops = (np.arange(nodes)[:, None] - (chunk - 1)) % nodes
    expected = np.sum(np.asarray(weights) * slope**hops, axis=0) / nodes
    np.testing.assert_allclose(got, np.tile(expected, (nodes, 1)), rtol=1e-5)
    assert np.abs(expected).min() > 0


@pytest.mark.parametrize(
    "wrap", [further(lambda f: f), jax.jit, further(jax.vmap)], ids=["eager", "jit", "vmap"]
)
def test_derivatives_of_the_noise_are_refused(wrap):
    x = payload(3, 5)

    def of_links(fidelity):
        return loss(secure_pmean, x, noisy(fidelity), GHZSource(3), KEY)

    def of_states(mix):
        return loss(secure_pmean, x, quiet(), depolarized_by(mix), KEY)

    for function, words in (
        (of_links, "`ring` must not be differentiated with respect to noise under masks"),
        (of_states, "`source` must not be differentiated through a secure collective"),
    ):
        given = jnp.full(2, 0.97) if wrap is jax.vmap else jnp.float32(0.97)
        with pytest.raises(ValueError, match=words):
            wrap(jax.grad(function))(given)


# --- Refusals -------------------------------------------------------------------------------------


def refused(nodes=3, x=1.0, *, call=secure_psum, **changes):
    given = {"ring": quiet(), "source": GHZSource(nodes), "security": Security(), "key": KEY}
    given |= changes
    node = functools.partial(call, axis_name=AXIS, **given)
    return jax.jit(jax.vmap(node, axis_name=AXIS))(jnp.full(nodes, x))


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"nodes": 2}, ValueError, ["`axis_name`", "at least 3 nodes", "2"]),
        ({"source": GHZSource(4)}, ValueError, ["`source`", "3 parties", "4"]),
        ({"source": werner(fidelity=1)}, TypeError, ["`source`", "GHZSource"]),
        ({"ring": Ring(noise="off", wire=Float32())}, ValueError, ["`ring.wire`", "FixedPoint"]),
        ({"ring": noisy(0.9, noise="gaussian")}, ValueError, ["`noise`", "under masks"]),
        ({"ring": noisy(0.9, noise="mean")}, ValueError, ["`noise`", "under masks"]),
        ({"ring": noisy(0.9, 8, derivative="exact")}, ValueError, ["`derivative`", "under masks"]),
        ({"ring": GHZSource(3)}, TypeError, ["`ring`", "Ring"]),
        ({"ring": quiet(2)}, ValueError, ["`wire.bits`", "guard bits"]),
        (
            {"security": Security("universal")},
            ValueError,
            ["`security.amplification`", "no universal hash", "universal"],
        ),
        ({"security": None}, TypeError, ["`security`", "Security", "None"]),
        ({"security": "bucket"}, TypeError, ["`security`", "Security"]),
        ({"dropout": 0.1}, TypeError, ["`dropout`", "Dropout", "0.1"]),
        ({"key": None}, TypeError, ["`key`"]),
        ({"key": jnp.zeros(2, jnp.uint32)}, TypeError, ["`key`", "typed"]),
        ({"key": jax.random.split(KEY, 2)}, ValueError, ["`key`"]),
    ],
)
@pytest.mark.parametrize("call", [secure_psum, further(secure_pmean)])
def test_malformed_calls_are_refused(call, changes, error, words):
    with pytest.raises(error) as refusal:
        refused(call=call, **changes)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_malformed_dropouts_are_refused():
    with pytest.raises(ValueError, match="`prob` must lie in"):
        Dropout(1.5)
    with pytest.raises(ValueError, match="`recovery` must be one of"):
        Dropout(0.1, "hope")


# --- One key, one collective ----------------------------------------------------------------------


def twice(x, key, other):
    """Two secure sums, as in a training step that sums two things."""
    given = {"ring": quiet(), "source": GHZSource(3), "security": BARE}
    one = secure_psum(x, AXIS, key=key, **given)
    return one, secure_pmean(x, AXIS, key=other, **given)


def one_sum(x, key):
    return secure_psum(x, AXIS, ring=quiet(), source=dephased(3, 0.2), security=BARE, key=key)


both = jax.vmap(twice, (0, None, None), axis_name=AXIS)
in_a_scan = jax.vmap(
    lambda x, key: lax.scan(lambda at, _: (at, one_sum(x, key)), 0, None, 3)[1],
    (0, None),
    axis_name=AXIS,
)


@pytest.mark.parametrize(
    "reuse",
    [
        lambda x, key: jax.eval_shape(lambda x, key: both(x, key, key), x, key),
        lambda x, key: jax.eval_shape(jax.jit(lambda x, key: both(x, key, key)), x, key),
        lambda x, key: jax.eval_shape(lambda x: both(x, key, key), x),
        lambda x, key: jax.eval_shape(in_a_scan, x, key),
    ],
    ids=["traced", "jit", "closed over", "scan"],
)
def test_the_checker_of_keys_refuses_one_key_for_two_sums(reuse):
    x, key = payload(3, 4), jax.random.key(3)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        reuse(x, key)


def test_the_checker_of_keys_refuses_one_key_for_two_calls_of_a_program():
    x, key = payload(3, 4), jax.random.key(3)
    run = jax.jit(jax.vmap(one_sum, (0, None), axis_name=AXIS))
    with jax.debug_key_reuse(True):
        run(x, key)
        with pytest.raises(jax.errors.KeyReuseError):
            run(x, key)


@pytest.mark.parametrize(
    "name", ["vmap", further("shard_map_checked"), further("shard_map_unchecked")]
)
def test_the_checker_of_keys_accepts_a_key_for_each_sum(mapping_named, name):
    """Over noisy, protected links, with a correction, planted copies and nodes that vanish."""
    x, keys = payload(3, 4), jax.random.split(jax.random.key(3))
    ring = noisy(0.97, protection=Retransmit(reed_solomon(255, 223)))
    source = PlantedSource(dephased(3, 0.01), plus_states(3))
    run = secure(security=Security("none", tests="mixed", correction=bch(7, 4, 1)))
    with jax.debug_key_reuse(True):
        total, _ = jax.eval_shape(
            mapping_named(name)(run, 3, shared=4), x, ring, source, Dropout(0.1), keys[0]
        )
        assert total.shape == x.shape
        jax.eval_shape(both, x, *keys)


def test_every_iteration_of_a_scan_has_masks_of_its_own():
    x, run = payload(3, 4), jax.vmap(one_sum, (0, None), axis_name=AXIS)
    keys = jax.random.split(jax.random.key(4), 3)
    totals = jax.jit(lambda keys: lax.scan(lambda at, key: (at, run(x, key)), 0, keys)[1])(keys)
    assert len(np.unique(np.asarray(totals)[:, 0], axis=0)) == 3
    assert_same_bits(totals[1], jax.jit(run)(x, keys[1]))


def test_repeated_calls_trace_once():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, ring, source, dropout, key):
        each = jax.vmap(secure(), in_axes=(0, *[None] * 4), axis_name=AXIS)
        return each(x, ring, source, dropout, key)

    for seed, noise in ((0, 0.1), (1, 0.2), (2, 0.5)):
        given = noisy(1 - noise), depolarized_by(noise), Dropout(noise)
        total, report = jax.eval_shape(run, jnp.ones((3, 5)), *given, jax.random.key(seed))
        assert total.shape == (3, 5)
        assert report.attempts.shape == (3,)
