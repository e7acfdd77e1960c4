"""NaN and infinities reach all nodes, in their block alone; the mean of values that fit fits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixed_point import levels_of, mean_of_levels
from jax import lax

from jaxqring import (
    FixedPoint,
    GHZSource,
    Retransmit,
    Ring,
    all_gather,
    all_reduce,
    pmean,
    psum,
    psum_scatter,
    reed_solomon,
    secure_pmean,
    superdense,
    werner,
)
from jaxqring.secure import Security

AXIS = "nodes"
NODES = 8
KEY = jax.random.key(20261126)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
BAD = [np.nan, -np.nan, np.inf, -np.inf]
POISONED = 3
KINDS = (jnp.float32, jnp.float16, jnp.bfloat16)
NOISY = superdense(werner(fidelity=0.97))
STRONG = Retransmit(reed_solomon(15, 9, symbol_bits=4))


def ten_leaves(dtypes=KINDS, seed=0):
    """(8, 2, 4) or (8, 5) each, and (8,) the last, of each type, of sizes from 0.01 to 100."""
    rng = np.random.default_rng(seed)
    tree = {}
    for number in range(10):
        shape = (NODES,) if number == 9 else (NODES, 2, 4) if number % 2 else (NODES, 5)
        values = rng.uniform(-1, 1, shape) * 10.0 ** (number % 5 - 2)
        tree[f"leaf{number}"] = jnp.asarray(values, dtypes[number % len(dtypes)])
    return tree


def poisoned(tree, name, bad, place=2):
    """The tree with one value of one leaf replaced on node 3."""
    values = np.array(tree[name])
    own = values.reshape(NODES, -1)
    own[POISONED, min(place, own.shape[1] - 1)] = bad
    return {**tree, name: jnp.asarray(values)}


def same_bits(left, right):
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def assert_only(name, found, clean):
    """One leaf is NaN everywhere, the others are those of the clean run, bit for bit."""
    for other in clean:
        if other == name:
            assert np.isnan(np.asarray(found[other], np.float32)).all(), other
        else:
            assert same_bits(found[other], clean[other]), other


def run_pmean(x, ring, key):
    return pmean(x, AXIS, ring=ring, key=key)


def run_report(x, ring, key):
    return pmean(x, AXIS, ring=ring, key=key, with_report=True)


def run_secure(x, ring, key):
    source, security = GHZSource(NODES), Security()
    return secure_pmean(x, AXIS, ring=ring, key=key, source=source, security=security)


def run_secure_report(x, ring, key):
    source, security = GHZSource(NODES), Security()
    return secure_pmean(
        x, AXIS, ring=ring, key=key, source=source, security=security, with_report=True
    )


def run_scatter(x, ring, key):
    return psum_scatter(x, AXIS, ring=ring, key=key)


def run_gather(x, ring, key):
    return all_gather(x, AXIS, ring=ring, key=key)


# --- One value on one node ------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, further(16)])
def test_a_leaf_is_nan_on_all_nodes_and_nine_are_exact(mapping, bits):
    tree, ring = ten_leaves(), Ring(noise="off", wire=FixedPoint(bits))
    run = mapping(run_pmean, NODES, shared=2)
    clean = run(tree, ring, KEY)
    for name, values in tree.items():
        want = np.broadcast_to(mean_of_levels(values, bits), values.shape)
        assert same_bits(clean[name], want), name
    for name in ("leaf0", "leaf4", "leaf5", "leaf9"):  # of each type, and of one value
        for bad in BAD:
            assert_only(name, run(poisoned(tree, name, bad), ring, KEY), clean)


CALLS = {
    "noise": (run_pmean, Ring(NOISY, FixedPoint(8))),
    "protection": (run_pmean, Ring(NOISY, protection=STRONG)),
    "clip": (run_pmean, Ring(NOISY, FixedPoint(16, clip=1.0))),
    "stochastic": (run_pmean, Ring(noise="off", wire=FixedPoint(8, rounding="stochastic"))),
    "masks": (run_secure, Ring(noise="off")),
    "masks and noise": (run_secure, Ring(NOISY, FixedPoint(8))),
    "masks and protection": (run_secure, Ring(NOISY, protection=STRONG)),
    "masks and clip": (run_secure, Ring(noise="off", wire=FixedPoint(16, clip=1.0))),
}


@pytest.mark.parametrize(
    "call", [name if name in ("masks", "noise") else further(name) for name in CALLS]
)
def test_whatever_else_happens_to_levels_the_other_leaves_keep_their_bits(vmapped, call):
    run, ring = CALLS[call]
    tree, mapped = ten_leaves(), vmapped(run, NODES, shared=2)
    clean = mapped(tree, ring, KEY)
    if ring.noise == "off" and ring.wire == FixedPoint(16):
        for name, values in tree.items():
            assert same_bits(clean[name][0], mean_of_levels(values, 16)), name
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in clean.values())
    for bad in BAD:
        assert_only("leaf3", mapped(poisoned(tree, "leaf3", bad), ring, KEY), clean)


@pytest.mark.parametrize(
    "run", [further(run_secure, id="masks"), pytest.param(run_pmean, id="plain")]
)
def test_only_the_run_with_a_nan_is_nan(vmapped, run):
    tree, ring = ten_leaves(), Ring(noise="off", wire=FixedPoint(16, scale=3))
    mapped = vmapped(run, NODES, shared=2)
    clean = mapped(tree, ring, KEY)
    for bad in BAD:
        found = mapped(poisoned(tree, "leaf1", bad, place=4), ring, KEY)
        values = np.asarray(found["leaf1"], np.float32).reshape(NODES, 8)
        expected = np.asarray(clean["leaf1"], np.float32).reshape(NODES, 8).copy()
        assert np.isfinite(expected).all()
        expected[:, 3:6] = np.nan
        np.testing.assert_array_equal(values, expected)
        assert_only("leaf1", {**found, "leaf1": np.full_like(values, np.nan)}, clean)


@pytest.mark.parametrize("scale", ["leaf", "payload", 3])
def test_parts_of_a_sum_and_gathered_values_are_nan_alike(vmapped, scale):
    rng = np.random.default_rng(4)
    rows = {name: rng.normal(size=(NODES, NODES, 5)).astype(np.float32) for name in "ab"}
    ring = Ring(noise="off", wire=FixedPoint(16, scale=scale))
    for run, own in ((run_scatter, rows), (run_gather, {n: v[:, 0] for n, v in rows.items()})):
        mapped = vmapped(run, NODES, shared=2)
        clean = mapped(own, ring, KEY)
        part = own["a"].shape[1:]
        assert part in ((NODES, 5), (5,))
        found = mapped(poisoned(own, "a", np.inf, place=np.prod(part) - 1), ring, KEY)
        # Node 3's last value: of the last row where rows are scattered.
        lost = np.zeros(clean["a"].shape, bool)
        if scale != 3:
            lost[:] = True
        elif run is run_scatter:
            lost[NODES - 1, 3:] = True
        else:
            lost[..., 3:] = True  # the scales of a block are those of all nodes
        np.testing.assert_array_equal(found["a"], np.where(lost, np.nan, clean["a"]))
        want = np.full_like(clean["b"], np.nan) if scale == "payload" else clean["b"]
        np.testing.assert_array_equal(found["b"], want)


@pytest.mark.parametrize(
    "run", [further(run_secure_report, id="masks"), pytest.param(run_report, id="plain")]
)
@pytest.mark.parametrize("non_finite", ["clip", "propagate"])
def test_values_that_are_not_finite_are_counted_and_sent_as_told(vmapped, non_finite, run):
    wire = FixedPoint(16, non_finite=non_finite)
    tree, bits = ten_leaves(dtypes=(jnp.float32,)), 16
    for bad, place in ((np.nan, 1), (np.inf, 2), (-np.inf, 3)):
        tree = poisoned(tree, "leaf6", bad, place=place)
    tree = poisoned(tree, "leaf7", np.nan, place=0)
    found, report = vmapped(run, NODES, shared=2)(tree, Ring(noise="off", wire=wire), KEY)
    report = getattr(report, "ring", report)
    assert np.asarray(report.non_finite).tolist() == [4] * NODES
    for name, values in tree.items():
        levels, scale, limit = levels_of(values, bits, NODES)
        if name == "leaf6":
            assert levels[POISONED].tolist()[1:4] == [0, limit, -limit]
        want = np.float32(levels.sum(axis=0) * scale / NODES)
        if non_finite == "propagate" and name in ("leaf6", "leaf7"):
            want = np.full_like(want, np.nan)
        np.testing.assert_array_equal(found[name], np.broadcast_to(want, values.shape), name)


@pytest.mark.parametrize("scale", ["leaf", 1])
def test_a_block_of_one_value_has_the_scale_of_its_size_whatever_its_sign(mapping, scale):
    tree = {
        "all": np.full(NODES, -6.0, np.float32),
        "one": np.where(np.arange(NODES) == POISONED, -100.0, 0.25).astype(np.float32),
        "more": np.full((NODES, 3), -1e-5, np.float32),
    }
    found = mapping(run_pmean, NODES, shared=2)(
        tree, Ring(noise="off", wire=FixedPoint(12, scale=scale)), KEY
    )
    for name, values in tree.items():
        want = np.broadcast_to(mean_of_levels(values, 12), values.shape)
        np.testing.assert_array_equal(found[name], want)
        assert abs(found[name] - values.mean(axis=0)).max() <= np.abs(values).max() / 2**8


# --- Training -------------------------------------------------------------------------------------

STEPS, WRONG = 12, 5
EXACT = Ring(noise="off", wire=FixedPoint(24))


def regression(bad, collective):
    """Parameters and skips after each step, on each node; one batch of node 3 holds `bad`."""
    rng = np.random.default_rng(8)
    inputs = rng.normal(size=(NODES, STEPS, 16, 3)).astype(np.float32)
    targets = inputs @ np.float32([1.0, -2.0, 0.5]) + np.float32(3.0)
    if bad is not None:
        targets[POISONED, WRONG, 7] = bad
    skipping = optax.apply_if_finite(optax.adam(0.1), max_consecutive_errors=3)
    if collective == "chain":
        skipping = optax.chain(all_reduce(EXACT, AXIS, key=KEY), skipping)

    def loss(params, inputs, targets):
        return jnp.mean((inputs @ params["w"] + params["b"] - targets) ** 2)

    def node(inputs, targets):
        def step(carry, batch):
            params, state = carry
            gradient = jax.grad(loss)(params, *batch[:2])
            key = jax.random.fold_in(KEY, batch[2])
            if collective == "lax":
                gradient = lax.pmean(gradient, AXIS)
            elif collective == "secure":
                gradient = run_secure(gradient, EXACT, key)
            elif collective == "protected":
                ring = Ring(NOISY, FixedPoint(24), protection=STRONG)
                gradient = run_pmean(gradient, ring, key)
            elif collective == "ring":
                gradient = run_pmean(gradient, EXACT, key)
            updates, state = skipping.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), (params, optax.tree.get(state, "total_notfinite"))

        first = {"w": jnp.zeros(3), "b": jnp.zeros(())}
        batches = (inputs, targets, jnp.arange(STEPS))
        return lax.scan(step, (first, skipping.init(first)), batches)[1]

    params, skips = jax.jit(jax.vmap(node, axis_name=AXIS))(inputs, targets)
    return jax.tree.map(np.asarray, params), np.asarray(skips)


@functools.cache
def reference(bad):
    return regression(bad, "lax")


@pytest.mark.parametrize(
    "collective", ["ring", further("chain"), further("protected"), further("secure")]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_all_nodes_skip_the_step_of_a_poisoned_batch(collective, bad):
    params, skips = regression(bad, collective)
    assert skips.tolist() == [[int(step >= WRONG) for step in range(STEPS)]] * NODES
    exact, exact_skips = reference(bad)
    np.testing.assert_array_equal(skips, exact_skips)
    for name, leaf in params.items():
        assert np.isfinite(leaf).all()
        assert same_bits(leaf, np.broadcast_to(leaf[:1], leaf.shape))  # on all nodes alike
        np.testing.assert_array_equal(leaf[:, WRONG], leaf[:, WRONG - 1])
        assert (leaf[:, WRONG + 1] != leaf[:, WRONG]).all()
        # 21 bits of a level: a few millionths of each gradient, over twelve steps of 0.1.
        np.testing.assert_allclose(leaf, exact[name], atol=1e-4)


def test_no_step_is_skipped_without_a_poisoned_batch():
    params, skips = regression(None, "ring")
    assert not skips.any()
    exact, exact_skips = reference(None)
    assert not exact_skips.any()
    for name, leaf in params.items():
        np.testing.assert_allclose(leaf, exact[name], atol=1e-4)


def run_lax(x, ring, key):
    return lax.pmean(x, AXIS)


@pytest.mark.parametrize("collective", [run_pmean, run_lax], ids=["ring", "lax"])
def test_a_loss_scale_is_halved_on_all_nodes_until_gradients_are_finite(vmapped, collective):
    # In float16 the gradient overflows on one node alone while the scale is 2^16 to 2^13.
    slopes = np.full((NODES, 4), 0.125, np.float16)
    slopes[POISONED] = 6.0

    def run(slope, ring, key):
        def step(scale, _):
            grown = slope * scale.astype(jnp.float16)  # infinite beyond 65,504
            mean = collective(grown, ring, key).astype(jnp.float32) / scale
            good = jnp.isfinite(mean).all()
            return jnp.where(good, scale, scale / 2), (good, scale)

        _, seen = lax.scan(step, jnp.float32(2.0**16), length=6)
        return seen

    ring = Ring(noise="off", wire=FixedPoint(16))
    good, scale = vmapped(run, NODES, shared=2)(slopes, ring, KEY)
    # 2^16 is itself infinite in float16; 6 x 2^15 and 6 x 2^14 are; 6 x 2^13 = 49,152 is not.
    assert good.tolist() == [[False, False, False, True, True, True]] * NODES
    assert scale[:, -1].tolist() == [2.0**13] * NODES


# --- Large values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [further(6), 8, further(12), further(16), 32])
def test_the_mean_of_values_that_fit_fits(vmapped, bits):
    rng = np.random.default_rng(9)
    mixed = rng.uniform(-1, 1, (NODES, 6))
    tree = {
        "float32": np.full((NODES, 2), 3e38, np.float32),
        "negative": np.full((NODES, 2), -3e38, np.float32),
        "largest": np.full((NODES, 2), np.finfo(np.float32).max),
        "mixed": (3e38 * mixed).astype(np.float32),
        "float16": np.full((NODES, 2), 6e4, np.float16),
        "mixed16": (6e4 * mixed).astype(np.float16),
        "bfloat16": jnp.full((NODES, 2), 3e38, jnp.bfloat16),
    }
    ring = Ring(noise="off", wire=FixedPoint(bits))

    def both(x, ring, key):
        return run_pmean(x, ring, key), psum(x, AXIS, ring=ring, key=key), lax.psum(x, AXIS)

    mean, total, lax_total = vmapped(both, NODES, shared=2)(tree, ring, KEY)
    for name, values in tree.items():
        exact = np.asarray(values).astype(np.float64)
        _, scale, _ = levels_of(values, bits, NODES)
        rounding = float(jnp.finfo(values.dtype).eps) * np.abs(exact).max()
        error = np.abs(np.asarray(mean[name]).astype(np.float64) - exact.mean(axis=0))
        assert np.isfinite(error).all(), name
        assert error.max() <= scale / 2 + rounding, name
        if "mixed" not in name:
            assert np.isinf(np.asarray(lax_total[name], np.float32)).all()
            np.testing.assert_array_equal(total[name], lax_total[name], name)


# --- Derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf])
def test_slopes_of_the_other_leaves_do_not_see_a_nan(vmapped, bad):
    tree = poisoned(ten_leaves(dtypes=(jnp.float32,)), "leaf3", bad)
    # One node's value moves, in every leaf: the mean moves by an eighth of that.
    moved = jax.tree.map(lambda leaf: np.zeros_like(leaf), tree)
    for leaf in moved.values():
        leaf[POISONED] = 1.0

    def run(x, direction, ring, key):
        tangent = jax.jvp(lambda x: run_pmean(x, ring, key), (x,), (direction,))[1]

        def total(x):
            return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(run_pmean(x, ring, key)))

        return tangent, jax.grad(total)(x)

    ring = Ring(noise="off", wire=FixedPoint(16))
    tangent, slope = vmapped(run, NODES, shared=2)(tree, moved, ring, KEY)
    for name in tree:
        if name != "leaf3" or bad == 0.5:
            np.testing.assert_allclose(tangent[name], 1 / NODES, rtol=1e-6)
            np.testing.assert_allclose(slope[name], 1.0, rtol=1e-6)


def test_what_is_sent_in_place_of_a_nan_does_not_move_with_it(vmapped):
    """Exact: zero or the edge is sent, whatever moves; the others have the slopes of a mean."""
    ring = Ring(noise="off", wire=FixedPoint(16, non_finite="clip"))
    x = np.random.default_rng(10).uniform(-1, 1, (NODES, 6)).astype(np.float32)
    x[POISONED, 1:5] = np.nan, -np.nan, np.inf, -np.inf
    kept = np.isfinite(x)
    moved = np.random.default_rng(11).normal(size=x.shape).astype(np.float32)

    def run(x, direction, ring, key):
        def mean(x):
            return run_pmean(x, ring, key)

        slope = jax.grad(lambda x: jnp.sum(mean(x)))(x)
        return slope, *jax.jvp(mean, (x,), (direction,))

    run = vmapped(run, NODES, shared=2)
    slope, value, tangent = run(x, moved, ring, KEY)
    np.testing.assert_allclose(slope, np.where(kept, 1.0, 0.0), rtol=1e-6)
    right = np.where(kept, moved, 0).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(tangent, np.broadcast_to(right, x.shape), rtol=1e-5, atol=1e-6)
    # What arrives says the same: a NaN is a zero on the way.
    zero = np.where(np.isnan(x), np.float32(0), x)
    _, same, _ = run(zero, moved, ring, KEY)
    np.testing.assert_array_equal(value, same)
    assert np.isfinite(value).all()
