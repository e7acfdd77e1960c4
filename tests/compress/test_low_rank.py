"""PowerSGD and LQ-SGD against the reference, on several nodes and over several steps."""

import functools

import compress_reference as ref
import jax.numpy as jnp
import numpy as np
import pytest
from compress_calls import assert_same_bits, many, normal, quiet, same_on_all, states

from jaxqring.compress import LQSGD, LowRankState, PowerSGD
from jaxqring.compress._low_rank import orthonormal

further = functools.partial(pytest.param, marks=pytest.mark.matrix)
NODES, STEPS = 4, 4


def gradients(seed=0):
    """(N, steps, ...): two matrices that rank 2 compresses, and a small vector."""
    lead = NODES, STEPS
    return {
        "a": normal(*lead, 12, 10, seed=seed),
        "c": 0.1 * normal(*lead, 2, 2, 3, 8, seed=seed + 1),
        "v": 0.01 * normal(*lead, 7, seed=seed + 2),
    }


def matrices(xs):
    """(N, steps, n, m) float64 of each of the two."""
    return {name: np.float64(xs[name]).reshape(NODES, -1, 12, xs[name].shape[-1]) for name in "ac"}


def by_reference(xs, factors, send, **options):
    """The trees that the reference delivers in every step, and its errors."""
    found = {}
    for (name, own), factor in zip(matrices(xs).items(), factors, strict=True):
        errors, Q = np.zeros_like(own[:, 0]), np.float64(factor)
        delivered, kept = [], []
        for at in range(own.shape[1]):
            mean, errors, Q = ref.powersgd_step(own[:, at], errors, Q, send=send, **options)
            delivered.append(mean)
            kept.append(errors)
        found[name] = np.array(delivered), np.array(kept).swapaxes(0, 1)
    return found


def relative(found, wanted):
    """The largest difference, as a part of the largest value."""
    found = np.float64(found).reshape(np.shape(wanted))
    return np.abs(found - wanted).max() / np.abs(wanted).max()


# PowerSGD

MATRICES = np.array([[[1, 2], [3, 4], [5, 6]], [[0, 1], [1, 0], [2, 2]]], dtype=np.float32)


def test_two_steps_of_rank_one(vmapped):
    xs = np.stack([MATRICES, MATRICES], axis=1)
    first = np.broadcast_to(np.float32([[1.0], [0.0]]), (2, 2, 1))
    state = LowRankState(jnp.zeros((2, 3, 2)), [jnp.asarray(first)])
    mean, after = many(vmapped, PowerSGD(), xs, quiet(32), state=state)
    mean = same_on_all(mean)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
    close(mean[0], [[0.5, 0.5681818182], [2, 2.2727272727], [3.5, 3.9772727273]])
    assert np.linalg.norm(MATRICES.mean(axis=0) - mean[0]) == pytest.approx(0.9711754827, rel=1e-6)
    close(after.errors[0, 0], np.array([[3, 12], [1, 4], [-1, -4]]) / 11)
    close(after.factors[0][0, 0, :, 0], [4.0620192023, 4.6159309117])
    close(mean[1][:, 0], [1.3484228061, 1.6374010397, 3.3349880926])
    close(mean[1][:, 1], [1.6852061124, 2.0463598124, 4.1679377513])
    # Public code that subtracts the averaged reconstruction has other errors.
    averaged = [[0.5, 1.4318181818], [1, 1.7272727273], [1.5, 2.0227272727]]
    assert np.abs(np.asarray(after.errors)[0, 0] - averaged).max() > 0.2


RANK2 = PowerSGD(rank=2)


@pytest.fixture(scope="module")
def run(mapping_named):
    """Steps of PowerSGD of rank 2 over a wire of 32 bits."""
    return functools.partial(many, mapping_named("vmap"), RANK2, ring=quiet(32))


def test_steps_are_those_of_the_reference(run):
    xs = gradients()
    mean, after = run(xs=xs)
    mean = same_on_all(mean)
    factors = states(RANK2, xs, steps=1).factors
    assert [leaf.shape for leaf in factors] == [(4, 10, 2), (4, 8, 2)]
    for name, (delivered, errors) in by_reference(xs, [f[0] for f in factors], ref.exact).items():
        assert relative(mean[name], delivered) < 3e-6
        assert relative(after.errors[name], errors) < 3e-6
    np.testing.assert_allclose(mean["v"], xs["v"].mean(axis=0), rtol=0, atol=1e-8)
    assert not np.asarray(after.errors["v"]).any()


def test_all_nodes_are_one_node_with_the_mean_gradient(run):
    xs = gradients(seed=5)
    mean = same_on_all(run(xs=xs)[0])
    alone = {name: leaf.mean(axis=0, keepdims=True) for name, leaf in xs.items()}
    alike = {name: np.repeat(leaf, NODES, axis=0) for name, leaf in alone.items()}
    for name, leaf in same_on_all(run(xs=alike)[0]).items():
        assert relative(mean[name], leaf) < 3e-6
    # And the reference, which has one node indeed.
    factors = [leaf[0] for leaf in states(RANK2, xs, steps=1).factors]
    own = {name: np.repeat(leaf, NODES, axis=0) for name, leaf in alone.items()}
    single = {name: leaf[:1] for name, leaf in matrices(own).items()}
    for (name, leaf), Q in zip(single.items(), factors, strict=True):
        errors, Q = np.zeros_like(leaf[:, 0]), np.float64(Q)
        for at in range(STEPS):
            delivered, errors, Q = ref.powersgd_step(leaf[:, at], errors, Q)
            assert relative(mean[name][at], delivered) < 3e-6


def test_a_gradient_of_zero_is_delivered_as_zero_and_leaves_nothing_behind(run):
    """The factors of a layer that was not used live on, bit for bit."""
    xs = gradients(seed=7)
    late = {name: np.concatenate([0 * x[:, :1], x[:, :-1]], axis=1) for name, x in xs.items()}
    fresh, state = run(xs=xs)
    mean, after = run(xs=late)
    for name in xs:
        assert not np.asarray(mean[name])[:, 0].any()
        assert_same_bits(mean[name][:, 1:], fresh[name][:, :-1])
        assert np.asarray(fresh[name]).any()
    assert_same_bits([f[:, 1:] for f in after.factors], [f[:, :-1] for f in state.factors])


def test_a_mean_of_low_rank_is_delivered_at_once(run):
    """Nodes differ from it by what adds up to zero."""
    xs = gradients(seed=9)
    thin = normal(12, 2, seed=1) @ normal(2, 10, seed=2)
    xs["a"][:, 0] += thin - xs["a"][:, 0].mean(axis=0)
    assert relative(run(xs=xs)[0]["a"][0, 0], thin) < 3e-6


def test_ranks_that_save_nothing_deliver_the_mean():
    rows, columns = 12, 10
    for rank in range(1, 13):
        (message, *more) = PowerSGD(rank).messages(np.zeros((rows, columns)), 4)
        compressed = (rows + columns) * rank < rows * columns
        assert message.size == (rank * rows if compressed else rows * columns)
        assert [each.size for each in more] == ([rank * columns] if compressed else [])
    assert not any(PowerSGD(10).init(np.zeros((rows, columns))).factors)


def test_a_rank_as_large_as_the_matrix_delivers_the_mean(vmapped):
    xs = normal(2, 1, 3, 2)
    mean, after = many(vmapped, PowerSGD(rank=2), xs, quiet(32))
    np.testing.assert_allclose(mean[0, 0], xs.mean(axis=(0, 1)), rtol=1e-6)
    assert not np.asarray(after.errors).any()
    assert after.factors == []


@pytest.mark.parametrize("bits", [8, further(12), further(16)])
def test_errors_hold_what_the_wire_rounds_off(vmapped, bits):
    """The mean error and what is delivered are what was put in, in every step."""
    xs = gradients(seed=11)
    mean, after = many(vmapped, RANK2, xs, quiet(bits))
    mean, largest = same_on_all(mean), 2.0 ** (2 - bits)
    for name in "ac":
        x, errors = np.float64(xs[name]), np.float64(after.errors[name])
        before = np.concatenate([0 * errors[:, :1], errors[:, :-1]], axis=1)
        wanted = (x + before).mean(axis=0)
        assert relative(mean[name] + errors.mean(axis=0), wanted) < 1e-6
        # Without the rounding of the wire something else would have been delivered.
        exact = by_reference(xs, [f[0] for f in states(RANK2, xs, steps=1).factors], ref.exact)
        assert relative(mean[name], exact[name][0]) > largest / 20
    assert np.abs(mean["v"] - xs["v"].mean(axis=0)).max() > 1e-7


def test_own_errors_stay_bounded_on_unequal_data(vmapped):
    """400 steps over 10 bits; errors of the averaged reconstruction grow with the steps."""
    nodes, count, shape = 8, 400, (64, 32)
    rng = np.random.default_rng(0)
    own = 3 * rng.normal(size=(nodes, 1, *shape))
    xs = own - own.mean(axis=0) + rng.normal(size=(nodes, count, *shape))
    _, after = many(vmapped, RANK2, xs, quiet(10))
    largest = np.abs(np.asarray(after.errors)).max(axis=(0, 2, 3))
    assert largest[100:].max() < 2 * largest[100]
    send, errors = ref.linear(7, power_of_two=True), np.zeros((nodes, *shape))
    Q, grown = np.float64(states(RANK2, xs[:, 0]).factors[0][0]), []
    for at in range(count):
        _, errors, Q = ref.powersgd_step(xs[:, at], errors, Q, send=send, feedback="averaged")
        grown.append(np.abs(errors).max())
    assert grown[-1] > 3 * grown[100]
    assert grown[-1] > 4 * largest[-1]


def test_columns_are_made_orthonormal():
    x = jnp.asarray(normal(20, 4, seed=3))
    basis = np.float64(orthonormal(x))
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(basis, ref.orthonormal(x), atol=2e-6)
    for scale in (1e-30, 1e30):
        np.testing.assert_allclose(orthonormal(x * scale), basis, atol=2e-6)
    # Columns that add nothing are zero.
    twice = orthonormal(jnp.stack([x[:, 0], 3 * x[:, 0], 0 * x[:, 0], x[:, 1]], axis=1))
    np.testing.assert_array_equal(np.abs(twice).max(axis=0) > 0, [True, False, False, True])
    close = x[:, 0] + 1e-3 * x[:, 1]
    pair = np.float64(orthonormal(jnp.stack([x[:, 0], close], axis=1)))
    np.testing.assert_allclose(pair.T @ pair, np.eye(2), atol=1e-5)


# LQ-SGD


def shared_logarithmic(values):
    """Codes on the scale of the largest magnitude of all nodes, decoded and averaged."""
    scale = ref.highest(values)
    own = ref.log_decode(ref.log_encode(values, scale), scale)
    return own.mean(axis=0), own


def on_linear_levels(values):
    """The same on linear levels of 12 bits."""
    _, own = shared_logarithmic(values)
    return ref.linear(12, power_of_two=True)(own)


def requantised(values):
    """Hop by hop, with the sum of all peaks for a scale."""
    rows = np.reshape(values, (NODES, -1))
    scale = np.abs(rows).max(axis=1).sum()
    chunk = -(-rows.shape[1] // NODES)
    order = [(np.arange(rows.shape[1]) // chunk + at) % NODES for at in range(NODES)]
    met = [rows[own, np.arange(rows.shape[1])] for own in order]
    total = ref.hop_sum(np.array(met), scale) / NODES
    return total.reshape(np.shape(values)[1:]), np.asarray(values)


@pytest.mark.parametrize(
    "reduce, send",
    [("gather", shared_logarithmic), further("sum", on_linear_levels), ("hop", requantised)],
)
def test_codes_are_reduced_as_the_reference_does(vmapped, reduce, send):
    xs = gradients(seed=3)["a"]
    compressor = LQSGD(rank=2, reduce=reduce)
    mean, after = many(vmapped, compressor, xs, quiet(16))
    factor = states(compressor, xs, steps=1).factors[0][0]
    mean, (delivered, errors) = same_on_all(mean), ([], [])
    left, Q = np.zeros((NODES, 12, 10)), np.float64(factor)
    for at in range(STEPS):
        step, left, Q = ref.powersgd_step(np.float64(xs[:, at]), left, Q, send=send)
        delivered.append(step)
        errors.append(left)
    assert relative(mean, np.array(delivered)) < 1e-5
    assert relative(after.errors, np.array(errors).swapaxes(0, 1)) < 1e-5


@pytest.mark.parametrize("reduce", ["gather", further("sum")])
def test_the_mean_of_what_codes_say_and_not_what_the_mean_of_codes_says(vmapped, reduce):
    """A vector is quantised as it is; its largest value makes the scale one."""
    four = np.float32([0.9, -0.2, 0.05, 0.4])
    xs = np.stack([four, np.ones(4)], axis=1)[:, None].astype(np.float32)
    mean, after = many(vmapped, LQSGD(reduce=reduce), xs, quiet(16))
    found = same_on_all(mean)[0]
    tolerance = 1e-7 if reduce == "gather" else 2e-4
    assert found[0] == pytest.approx(0.2870874101, abs=tolerance)
    assert found[1] == pytest.approx(1, abs=tolerance)
    assert abs(found[0] - 0.1230989633) > 0.1
    left = np.float64(after.errors)[:, 0]
    np.testing.assert_allclose(left.mean(axis=0) + found, xs.mean(axis=(0, 1)), atol=1e-7)
    if reduce == "gather":
        said = ref.log_decode(ref.log_encode(four))
        np.testing.assert_allclose(left[:, 0], four - said, atol=1e-7)
