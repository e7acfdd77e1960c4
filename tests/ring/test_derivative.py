"""The derivative of the collectives against exact numbers: slopes, chains, both modes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxqring as jq
from jaxqring import (
    FixedPoint,
    Float32,
    Ring,
    SymbolChannel,
    all_gather,
    psum,
    psum_scatter,
    superdense,
    werner,
)

AXIS = "nodes"
KEY = jax.random.key(20260721)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def chain_mean(x, fidelities):
    """The wide chain mean for every node and coordinate, with link i of fidelity F_i.

    A hop over link i takes the mean v of a level to s_i v - (1 - s_i) / 2, s_i = (4 F_i - 1) / 3:
    uniform flips of f = 2 (1 - F) / 3, a slope of 1 - 2f and an offset of -f.

    Args:
      x: (N, P) levels.
      fidelities: (N,).

    Returns:
      (N, P) what each node holds after a psum, in the mean.
    """
    num_nodes, size = x.shape
    chunk = -(-size // num_nodes)
    slopes = (4 * np.asarray(fidelities) - 1) / 3
    result = np.zeros(x.shape)

    def hop(value, node):
        return slopes[node] * value - (1 - slopes[node]) / 2

    for j in range(num_nodes):
        part = slice(j * chunk, min((j + 1) * chunk, size))
        value = x[j, part].astype(float)
        for d in range(1, num_nodes):
            value = hop(value, (j + d - 1) % num_nodes) + x[(j + d) % num_nodes, part]
        for d in range(num_nodes):
            node = (j - 1 + d) % num_nodes
            result[node, part] = value
            value = hop(value, node)
    return result


def chain_slopes(x, fidelities, direction, width=1e-4):
    """The derivative of `chain_mean` in a direction of the fidelities, by central differences."""
    step = width * np.asarray(direction)
    up, down = chain_mean(x, fidelities + step), chain_mean(x, fidelities - step)
    return (up - down) / (2 * width)


def werner_ring(fidelity, **options):
    return Ring(superdense(werner(fidelity=fidelity)), **options)


# --- With respect to the data ---------------------------------------------------------------------


def weighted(x, weights, ring, key):
    return jnp.sum(weights * psum(x, AXIS, ring=ring, key=key))


def data_gradient(x, weights, ring, key):
    return jax.grad(weighted)(x, weights, ring, key)


def test_without_noise_the_gradient_is_that_of_the_exact_sum_and_zero_where_clipped(vmap_first):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (3, 7)).astype(np.float32)
    weights = rng.normal(size=(3, 7)).astype(np.float32)
    ring = Ring(noise="off", wire=FixedPoint(16, clip=1.0))
    run = vmap_first(data_gradient, 3, shared=2)
    gradient = run(jnp.asarray(x), jnp.asarray(weights), ring, None)
    clipped = np.abs(x) > 1
    assert 3 < clipped.sum() < 18
    expected = np.where(clipped, 0, weights.astype(float).sum(0))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("collective", ["psum", "psum_scatter", "all_gather"])
def test_jvp_and_vjp_without_noise_are_those_of_lax(vmapped, collective):
    ours = {"psum": psum, "psum_scatter": psum_scatter, "all_gather": all_gather}[collective]
    theirs = getattr(lax, collective)
    rng = np.random.default_rng(1)
    shape = {"psum": (3, 5), "psum_scatter": (3, 3, 4), "all_gather": (3, 4)}[collective]
    x, moved = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))

    def both_modes(x, moved):
        found = []
        for function in (
            lambda x: ours(x, AXIS, ring=Ring(noise="off"), key=None),
            lambda x: theirs(x, AXIS),
        ):
            value, tangent = jax.jvp(function, (x,), (moved,))
            (pulled,) = jax.vjp(function, x)[1](value * 0 + lax.axis_index(AXIS) + 1.5)
            found.append((tangent, pulled))
        return found

    ours_found, theirs_found = vmapped(both_modes, 3)(x, moved)
    for got, expected in zip(ours_found, theirs_found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(np.asarray(got)).max() > 0.1


def test_the_gradient_of_the_data_is_the_product_of_the_slopes_of_its_hops(vmap_first):
    # Chunk j starts at node j and is complete at node j - 1. The input of node m crosses the links
    # m, ..., j - 2 before, and i's result another i - (j - 1) hops.
    fidelities = np.array([0.95, 0.9, 0.85, 0.99])
    slopes = (4 * fidelities - 1) / 3
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 7)).astype(np.float32)
    weights = rng.normal(size=(4, 7)).astype(np.float32)
    ring = werner_ring(jnp.asarray(fidelities, jnp.float32))
    run = vmap_first(data_gradient, 4, shared=2)
    gradient = run(jnp.asarray(x), jnp.asarray(weights), ring, KEY)
    expected = np.zeros((4, 7))
    for coordinate in range(7):
        chunk = coordinate // 2
        for m in range(4):
            for i in range(4):
                reduce_hops = 3 - (m - chunk) % 4
                gather_hops = (i - (chunk - 1)) % 4
                crossed = [(m + h) % 4 for h in range(reduce_hops)]
                crossed += [(chunk - 1 + h) % 4 for h in range(gather_hops)]
                expected[m, coordinate] += weights[i, coordinate] * np.prod(slopes[crossed])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    plain = np.broadcast_to(weights.sum(0), (4, 7))
    assert np.abs(expected - plain).max() > 0.1


def test_equal_links_weigh_an_input_by_its_distance(vmapped):
    # Exact numbers: F = 0.9, s = 1 - 2/15; three nodes, chunk 0 = [x0 -> x1 -> x2].
    ring = werner_ring(0.9)

    def jacobian(x):
        return jax.jacrev(lambda x: psum(x, AXIS, ring=ring, key=KEY))(x)

    # Reverse mode sums over the nodes that hold a result: over 0, 1 and 2 hops of passing on.
    rows = np.asarray(vmapped(jacobian, 3)(jnp.ones((3, 3))))
    s = 13 / 15
    passed = 1 + s + s**2
    for chunk in range(3):
        for m in range(3):
            weight = s ** (2 - (m - chunk) % 3)
            np.testing.assert_allclose(rows[m, chunk, chunk], weight * passed, rtol=1e-5)


# --- With respect to the noise --------------------------------------------------------------------


def fidelity_jvp(x, fidelity, direction, key):
    """The sum, and its derivative when the fidelities move in a direction."""

    def run(fidelity):
        ring = werner_ring(fidelity, wire=FixedPoint(8, clip=31.0), derivative="mean")
        return psum(x, AXIS, ring=ring, key=key)

    return jax.jvp(run, (fidelity,), (direction,))


def fidelity_gradient(x, weights, fidelity, key):
    """The node's gradient with respect to its own copy of the fidelities."""

    def loss(fidelity):
        ring = werner_ring(fidelity, wire=FixedPoint(8, clip=31.0), derivative="mean")
        return jnp.sum(weights * psum(x, AXIS, ring=ring, key=key))

    return jax.grad(loss)(fidelity)


CODES = np.array([[5, 2, 7, -3, 11, 1], [4, -8, 2, 9, 1, 6], [1, 3, 12, 2, -7, 4]])


def test_at_fidelity_one_the_derivative_of_the_noise_is_exact_and_not_zero(mapping):
    # No error is drawn, so that the conditional means are those of the levels themselves.
    fidelities = jnp.ones(3)
    weights = np.random.default_rng(3).normal(size=(3, 6)).astype(np.float32)
    x = jnp.asarray(CODES, jnp.float32)
    run = mapping(fidelity_gradient, 3, shared=2)
    local = np.asarray(run(x, jnp.asarray(weights), fidelities, KEY), np.float64)
    expected = np.array(
        [np.sum(weights * chain_slopes(CODES, np.ones(3), np.eye(3)[link])) for link in range(3)]
    )
    assert np.isfinite(local).all()
    assert (np.abs(expected) > 0.1).all()
    if mapping.checked:
        # Shared parameters: shard_map sums their gradient over the nodes.
        np.testing.assert_allclose(local, np.broadcast_to(expected, (3, 3)), rtol=1e-3, atol=1e-3)
    else:
        np.testing.assert_allclose(local.sum(0), expected, rtol=1e-3, atol=1e-3)
        # Node i has what its own link contributes to the results of all nodes.
        off_diagonal = local * (1 - np.eye(3))
        np.testing.assert_allclose(off_diagonal, 0, atol=1e-4)


def test_the_derivative_of_the_noise_is_that_of_the_mean_of_the_chain(vmapped):
    # 3 x 40,000 copies of each node's level: the mean of their tangents within six of their own
    # standard errors of the slope of the chain (fails with probability 2e-8 for 9 means), and
    # 0.05 for sums that wrap, which are less than 2e-4 of all.
    levels, fidelity, copies = np.array([3, 1, 2]), 0.95, 40_000
    x = np.broadcast_to(levels[:, None], (3, 3 * copies))
    run = vmapped(fidelity_jvp, 3, shared=3)
    _, tangent = run(jnp.asarray(x, jnp.float32), jnp.full(3, fidelity), jnp.ones(3), KEY)
    chunks = np.asarray(tangent, np.float64).reshape(3, 3, copies)
    expected = chain_slopes(x, np.full(3, fidelity), np.ones(3)).reshape(3, 3, copies)[:, :, 0]
    error = chunks.std(axis=2) / np.sqrt(copies)
    assert (np.abs(chunks.mean(axis=2) - expected) < 6 * error + 0.05).all()
    assert (expected > 12 * error + 0.05).all()


def test_every_link_has_its_own_derivative(vmapped):
    # As above, for one link at a time; 27 means.
    levels, fidelities, copies = np.array([3, 1, 2]), np.array([0.95, 0.98, 0.93]), 40_000
    x = np.broadcast_to(levels[:, None], (3, 3 * copies))
    run = vmapped(fidelity_jvp, 3, shared=3)
    for link in range(3):
        direction = np.eye(3)[link]
        _, tangent = run(
            jnp.asarray(x, jnp.float32),
            jnp.asarray(fidelities, jnp.float32),
            jnp.asarray(direction, jnp.float32),
            KEY,
        )
        chunks = np.asarray(tangent, np.float64).reshape(3, 3, copies)
        expected = chain_slopes(x, fidelities, direction).reshape(3, 3, copies)[:, :, 0]
        error = chunks.std(axis=2) / np.sqrt(copies)
        assert (np.abs(chunks.mean(axis=2) - expected) < 6 * error + 0.05).all()
        # A chunk that has not crossed the link does not feel it: that of node `link`, where it
        # is complete before the link.
        untouched = ~chunks.any(axis=2)
        assert (untouched == (expected == 0)).all()
        assert not untouched.all()


def dot_product_test(x, moved, cotangent, transition, moved_transition, key):
    """<cotangent, J moved> and <J^T cotangent, moved>, each summed over all nodes."""
    # Every node its own copy of the links, as of the data.
    ring = Ring(SymbolChannel(transition), wire=FixedPoint(8), derivative="mean")

    def run(x, transition):
        ring_here = ring.replace(channel=SymbolChannel(transition))
        return psum(x, AXIS, ring=ring_here, key=key)

    _, forward = jax.jvp(run, (x, transition), (moved, moved_transition))
    _, pull = jax.vjp(run, x, transition)
    data, links = pull(cotangent)
    left = jnp.sum(cotangent * forward)
    right = jnp.sum(data * moved) + jnp.sum(links * moved_transition)
    return lax.psum((left, right), AXIS), forward, data, links


def test_forward_and_reverse_mode_are_transposes_of_each_other(vmap_first):
    rng = np.random.default_rng(4)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32)

    transition = superdense(werner(fidelity=jnp.full((3, 3), 0.9))).transition
    moved_transition = draw(3, 4, 4)
    run = vmap_first(dot_product_test, 3, shared=1)
    (left, right), forward, data, links = run(
        draw(8), draw(8), draw(8), transition, moved_transition, KEY
    )
    np.testing.assert_allclose(left, right, rtol=2e-4)
    for found in (left, forward, data, links):
        assert np.isfinite(np.asarray(found)).all()
        assert np.abs(np.asarray(found)).max() > 1e-3


@pytest.mark.matrix
def test_the_gradient_of_shared_links_is_summed_by_shard_map_and_local_elsewhere(mapping_named):
    x = jnp.asarray(CODES, jnp.float32)
    weights = jnp.asarray(np.random.default_rng(5).normal(size=(3, 6)), jnp.float32)
    found = {
        name: np.asarray(
            mapping_named(name)(fidelity_gradient, 3, shared=2)(
                x, weights, jnp.array([0.9, 0.8, 0.95]), KEY
            )
        )
        for name in ("pmap", "shard_map_checked")
    }
    total = found["pmap"].sum(axis=0)
    assert np.abs(total).min() > 1e-2
    np.testing.assert_allclose(
        found["shard_map_checked"], np.broadcast_to(total, (3, 3)), rtol=1e-4, atol=1e-3
    )


def test_forward_mode_with_shared_links_is_the_same_under_every_mapping(mapping):
    # At fidelity one, so that no error is drawn: the tangent is the exact slope of the chain.
    direction = np.array([0.5, -1.0, 2.0])
    run = mapping(fidelity_jvp, 3, shared=3)
    value, tangent = run(
        jnp.asarray(CODES, jnp.float32), jnp.ones(3), jnp.asarray(direction, jnp.float32), KEY
    )
    np.testing.assert_array_equal(value, np.broadcast_to(CODES.sum(0), (3, 6)))
    expected = chain_slopes(CODES, np.ones(3), direction)
    np.testing.assert_allclose(tangent, expected, rtol=1e-3, atol=1e-3)


def test_derivatives_go_through_a_scan_over_steps(vmapped):
    # At fidelity one, three steps of x -> psum(x) / 2 on two nodes. The chain, in levels of
    # step one: every step adds its own slope, and passes that of the steps before.
    steps, size = 3, 4

    def final(x, fidelity, key):
        wire = FixedPoint(16, clip=2.0**14 - 1)
        ring = werner_ring(fidelity, wire=wire, derivative="mean")

        def step(x, index):
            return psum(x, AXIS, ring=ring, key=jax.random.fold_in(key, index)) / 2, None

        return jnp.sum(lax.scan(step, x, jnp.arange(steps))[0])

    x = jnp.array([[40.0, 80, -24, 16], [8, 16, 24, 32]])
    run = vmapped(jax.value_and_grad(final, argnums=(0, 1)), 2, shared=2)
    value, (data, fidelity) = run(x, jnp.float32(1), KEY)

    def reference(fidelity):
        held = np.asarray(x, np.float64)
        for _ in range(steps):
            held = chain_mean(held, np.full(2, fidelity)) / 2
        return held.sum()

    np.testing.assert_allclose(value.sum(), reference(1.0))
    np.testing.assert_allclose(data, np.ones((2, size)), rtol=1e-5)
    slope = (reference(1 + 1e-5) - reference(1 - 1e-5)) / 2e-5
    assert abs(slope) > 1
    np.testing.assert_allclose(fidelity.sum(), slope, rtol=1e-4)


# --- What there is no derivative of ---------------------------------------------------------------


@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd])
def test_a_sampled_ring_that_says_nothing_has_no_derivative_of_its_noise(vmap_first, transform):
    def run(x, fidelity, key):
        def loss(fidelity):
            return jnp.sum(psum(x, AXIS, ring=werner_ring(fidelity), key=key))

        return transform(loss)(fidelity)

    rule = r"`ring\.derivative` must say what .* follows, but got None: use `jaxqring\.expected`"
    with pytest.raises(ValueError, match=rule):
        vmap_first(run, 2, shared=2)(jnp.ones((2, 4)), jnp.float32(0.9), KEY)


def test_a_float_wire_has_no_derivative_of_its_noise(vmap_first):
    def gradient(x, fidelity, key):
        def loss(fidelity):
            ring = werner_ring(fidelity, wire=Float32(), derivative="mean")
            return jnp.sum(psum(x, AXIS, ring=ring, key=key))

        return jax.grad(loss)(fidelity)

    with pytest.raises(ValueError, match=r"`ring\.wire` must be a FixedPoint for a derivative"):
        vmap_first(gradient, 2, shared=2)(jnp.ones((2, 4)), jnp.float32(0.9), KEY)


def test_a_noisy_float_wire_passes_the_data_on_as_far_as_words_stay_whole(vmapped):
    # A Float32 survives a hop with probability F^16; two nodes: chunk j is complete at node 1 - j.
    fidelity, weights = 0.99, np.array([[1.0, 2.0], [3.0, 5.0]])
    run = vmapped(data_gradient, 2, shared=2)
    ring = werner_ring(fidelity, wire=Float32())
    gradient = np.asarray(run(jnp.ones((2, 2)), jnp.asarray(weights, jnp.float32), ring, KEY))
    s = fidelity**16
    expected = np.zeros((2, 2))
    for chunk in range(2):
        owner = (chunk + 1) % 2
        received = weights[owner, chunk] + s * weights[chunk, chunk]
        expected[owner, chunk], expected[chunk, chunk] = received, s * received
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


@pytest.mark.parametrize("wire", [FixedPoint(16), further(Float32())])
def test_no_channel_is_needed_for_the_derivative_without_noise(vmapped, wire):
    run = vmapped(data_gradient, 3, shared=2)
    x = jnp.ones((3, 4))
    gradient = run(x, x * jnp.arange(4.0), Ring(noise="off", wire=wire), None)
    np.testing.assert_allclose(gradient, np.broadcast_to(3 * np.arange(4.0), (3, 4)), rtol=1e-6)


def report_gradient(x, ring, key):
    """As a training step does: the report travels beside the loss."""

    def loss(x):
        total, report = psum(x, AXIS, ring=ring, key=key, with_report=True)
        return jnp.sum(total), report

    return jax.grad(loss, has_aux=True)(x)


def test_a_report_may_be_asked_for_under_grad(vmap_first):
    x = jnp.ones((2, 4))
    run = vmap_first(report_gradient, 2, shared=2)
    gradient, report = run(x, werner_ring(0.9), KEY)
    assert np.asarray(report.symbol_errors).tolist() == [report.errors_per_link[0].sum()] * 2
    assert np.isfinite(np.asarray(gradient)).all()
    assert (np.asarray(gradient) > 1).all()


@pytest.mark.parametrize("noise", ["gaussian", further("mean")])
def test_the_smooth_modes_have_the_slopes_of_the_sampled_one(vmapped, noise):
    x = jnp.asarray(np.random.default_rng(6).normal(size=(2, 4)), jnp.float32)
    weights = jnp.arange(1.0, 9.0).reshape(2, 4)
    run = vmapped(data_gradient, 2, shared=2)
    sampled = run(x, weights, werner_ring(0.9), KEY)
    smooth = run(x, weights, werner_ring(0.9, noise=noise), KEY)
    np.testing.assert_allclose(smooth, sampled, rtol=1e-6)
    assert (np.asarray(sampled) < np.asarray(weights).sum(0)).all()


def test_the_tangent_of_normal_noise_is_that_of_its_mean_and_of_its_deviation(vmapped):
    """Exact: what arrives says which variate was drawn, up to the rounding of a level.

    With v = mean + deviation z, dv = d_mean + d_variance / (2 variance) (v - mean).
    """
    size, bits, fidelity = 64, 16, 0.97
    codes = np.random.default_rng(9).integers(-2000, 2000, (2, size))
    weights = 2.0 ** np.arange(bits) * np.where(np.arange(bits) == bits - 1, -1, 1)
    chi = 1 - 2 * ((codes[..., None] >> np.arange(bits)) & 1)

    def law(fidelity):
        """Mean and variance by hand: a bit is flipped with f, and two of a symbol with f / 2."""
        flip = 2 * (1 - fidelity) / 3
        pairs = (weights[::2] * weights[1::2] * chi[..., ::2] * chi[..., 1::2]).sum(axis=-1)
        alone = flip * (1 - flip) * np.sum(weights**2)
        return codes + flip * (chi @ weights), alone + 2 * (flip / 2 - flip**2) * pairs

    def passed_on(x, fidelity, key):
        def gather(fidelity):
            wire = FixedPoint(bits, clip=2.0 ** (bits - 1) - 1)  # so that a value is its level
            return all_gather(
                x, AXIS, ring=werner_ring(fidelity, wire=wire, noise="gaussian"), key=key
            )

        return jax.jvp(gather, (fidelity,), (jnp.ones(()),))

    value, moved = vmapped(passed_on, 2, shared=2)(
        jnp.asarray(codes, jnp.float32), jnp.float32(fidelity), KEY
    )
    value, moved = (np.asarray(part, np.float64)[[0, 1], [1, 0]] for part in (value, moved))
    mean, variance = (part[::-1] for part in law(fidelity))
    ends = zip(law(fidelity + 1e-4), law(fidelity - 1e-4), strict=True)
    d_mean, d_variance = ((up - down)[::-1] / 2e-4 for up, down in ends)
    rate = d_variance / (2 * variance)
    # Of a level that is rounded, half a level at the most is not known.
    right, unknown = d_mean + rate * (value - mean), np.abs(rate).max()
    np.testing.assert_allclose(moved, right, rtol=1e-3, atol=unknown)
    assert np.abs(right - d_mean).max() > 100 * unknown


# --- Around the mapped axis -----------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize(
    "collective, noise, nodes_per_device",
    [
        ("psum", "sampled", 1),
        further("psum", "sampled", 2),
        further("psum", "gaussian", 1),
        further("psum_scatter", "sampled", 1),
        further("all_gather", "off", 1),
    ],
)
def test_differentiating_around_a_jit_or_a_scan_gives_the_derivative_of_the_plain_program(
    collective, noise, nodes_per_device
):
    """JAX calls the rule after the vmap that binds the axis has returned, and unbinds the axis."""
    devices = 8 // nodes_per_device
    lead = (devices, nodes_per_device) if nodes_per_device > 1 else (devices,)
    values = jax.random.normal(jax.random.key(3), (*lead, 8, 3))
    weights = jax.random.normal(jax.random.key(4), (8,))
    # What normal noise makes of a level is rounded to one, and two programs may round a variate
    # that is near to a half apart: a sum is then off by the value of one level on all nodes, and
    # the derivative of w out^2 by 2 w times that.
    wire = FixedPoint(24 if noise == "gaussian" else 16)
    one_code = 2 * float(jnp.max(jnp.abs(weights)) * wire.scale_of(jnp.max(jnp.abs(values)), 8))
    apart = one_code if noise == "gaussian" else 0.0

    def loss(fidelities, values):
        link = jq.superdense(jq.werner(fidelity=fidelities))
        ring = jq.Ring(
            link,
            wire=wire,
            noise=noise,
            nodes_per_device=nodes_per_device,
            derivative="mean",
        )
        call = functools.partial(
            getattr(jq, collective), axis_name="nodes", ring=ring, key=jax.random.key(5)
        )
        out = jax.vmap(lambda x: call(x, with_report=True)[0], axis_name="nodes")(values)
        out = out.reshape(8, -1)
        return jnp.sum(weights[:, None] * out**2)

    def scanned(fidelities, values):
        total, _ = jax.lax.scan(
            lambda sum_, _: (sum_ + loss(fidelities, values), None), 0.0, length=1
        )
        return total

    fidelities = jnp.linspace(0.98, 0.999, 8)
    plain = jax.value_and_grad(loss, argnums=(0, 1))(fidelities, values)
    assert np.any(np.asarray(plain[1][1]) != 0)
    assert noise == "off" or np.all(np.asarray(plain[1][0]) != 0)
    for around in (jax.jit(loss), scanned):
        chex.assert_trees_all_close(
            jax.value_and_grad(around, argnums=(0, 1))(fidelities, values),
            plain,
            rtol=2e-5,
            atol=apart,
        )
