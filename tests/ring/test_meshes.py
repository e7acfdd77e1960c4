"""Rings on meshes with further axes: their own errors, the types of shard_map, nodes of vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxqring import (
    FixedPoint,
    Float32,
    GHZSource,
    Retransmit,
    Ring,
    all_gather,
    pmean,
    psum,
    psum_scatter,
    reed_solomon,
    secure_pmean,
    superdense,
    werner,
)
from jaxqring.secure import Security

P = PartitionSpec
KEY = jax.random.key(4)
SIZE = 24
NOISY = superdense(werner(fidelity=0.95))
RINGS = {
    "off": Ring(noise="off"),
    "sampled": Ring(NOISY),
    "gaussian": Ring(NOISY, noise="gaussian"),
    "stochastic": Ring(noise="off", wire=FixedPoint(12, rounding="stochastic")),
    "float": Ring(superdense(werner(fidelity=0.999)), Float32()),
    "protected": Ring(NOISY, protection=Retransmit(reed_solomon(15, 9, symbol_bits=4))),
}
further = functools.partial(pytest.param, marks=pytest.mark.matrix)
# Without checks the program is the same but for its types.
checked = pytest.mark.parametrize("check_vma", [True, further(False)], ids=["checked", "unchecked"])


def run_sum(x, ring, key, axis):
    return psum(x, axis, ring=ring, key=key)


def run_mean(x, ring, key, axis):
    return pmean(x, axis, ring=ring, key=key, with_report=True)[0]


def run_scatter(x, ring, key, axis):
    return psum_scatter(x.reshape(4, -1), axis, ring=ring, key=key)


def run_gather(x, ring, key, axis):
    return all_gather(x, axis, ring=ring, key=key)


def run_secure(x, ring, key, axis):
    source, security = GHZSource(4), Security()
    return secure_pmean(x, axis, ring=ring, key=key, source=source, security=security)


COLLECTIVES = {
    "sum": run_sum,
    "mean": run_mean,
    "scatter": run_scatter,
    "gather": run_gather,
    "secure": run_secure,
}


def mesh_of(shape, names, types=None):
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, names, axis_types=types)


def values_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def alone(run, ring_name):
    """The collective on a ring of one axis: (4, ...) and a key -> (4, ...)."""
    ring = RINGS[ring_name]
    return jax.jit(
        jax.vmap(lambda x, key: run(x, ring, key, "nodes"), in_axes=(0, None), axis_name="nodes")
    )


def key_of(number):
    """The key that ring `number` of a mesh draws from, as the documentation says."""
    return KEY if number == 0 else jax.random.fold_in(KEY, number)


def on_mesh(run, mesh, specs, check_vma, lead):
    """The collective on one value of each device, under shard_map."""

    def body(x, key):
        own = x.reshape(x.shape[lead:])
        return jax.tree.map(lambda leaf: leaf.reshape((1,) * lead + leaf.shape), run(own, key))

    return jax.jit(
        jax.shard_map(body, mesh=mesh, in_specs=(specs, P()), out_specs=specs, check_vma=check_vma)
    )


# --- Every ring of a mesh is the ring of one axis -------------------------------------------------

CASES = [
    *[("sum", "sampled"), ("secure", "sampled"), ("sum", "off"), ("sum", "protected")],
    *[further(name, "sampled") for name in COLLECTIVES if name not in ("sum", "secure")],
    *[further("sum", ring) for ring in ("gaussian", "stochastic", "float")],
    further("scatter", "off"),
    further("gather", "protected"),
]


@checked
@pytest.mark.parametrize("name, ring_name", CASES)
def test_rings_along_one_axis_of_a_mesh_are_rings_of_their_own(name, ring_name, check_vma):
    run, ring = COLLECTIVES[name], RINGS[ring_name]
    x = values_of(4, 2, SIZE)
    mesh = mesh_of((4, 2), ("data", "model"))
    act = functools.partial(run, ring=ring, axis="data")
    found = on_mesh(lambda own, key: act(own, key=key), mesh, P("data", "model"), check_vma, 2)
    out = np.asarray(found(x, KEY))
    for number in range(2):
        want = np.asarray(alone(run, ring_name)(x[:, number], key_of(number)))
        np.testing.assert_array_equal(out[:, number].view(np.uint32), want.view(np.uint32))


@checked
@pytest.mark.parametrize("name", ["mean", further("scatter"), further("gather"), "secure"])
def test_rings_along_two_of_three_axes(name, check_vma):
    run, ring = COLLECTIVES[name], RINGS["sampled"]
    x = values_of(2, 2, 2, SIZE)
    mesh, axes = mesh_of((2, 2, 2), ("a", "b", "c")), ("a", "c")
    found = on_mesh(
        lambda own, key: run(own, ring, key, axes), mesh, P("a", "b", "c"), check_vma, 3
    )
    out = np.asarray(found(x, KEY))
    for number in range(2):
        own = x[:, number].reshape(4, SIZE)  # the last axis of the ring is the fastest
        want = np.asarray(alone(run, "sampled")(own, key_of(number)))
        np.testing.assert_array_equal(out[:, number].reshape(want.shape), want)


@checked
def test_a_ring_along_one_of_three_axes_counts_the_others_row_by_row(check_vma):
    ring = Ring(NOISY)
    x = values_of(2, 2, 2, SIZE)
    mesh = mesh_of((2, 2, 2), ("a", "b", "c"))
    found = on_mesh(
        lambda own, key: psum(own, "b", ring=ring, key=key), mesh, P("a", "b", "c"), check_vma, 3
    )
    out = np.asarray(found(x, KEY))
    for a in range(2):
        for c in range(2):
            want = alone(run_sum, "sampled")(x[a, :, c], key_of(2 * a + c))
            np.testing.assert_array_equal(out[a, :, c], want)


@pytest.mark.statistics
def test_errors_of_rings_side_by_side_are_independent():
    """Zeros but for one value: what arrives shows the errors alone.

    2 x 4 x 2,000 levels of 8 symbols at an error of 0.05 and 6 hops: if the errors of two rings
    were the same, all levels would agree; independent ones leave both untouched in a share
    0.95^(2 * 48) = 0.7 % of the levels, and agree by chance in fewer than 2 % of the rest.
    """
    x = np.zeros((4, 2, 2000), np.float32)
    x[..., 0] = 1
    found = on_mesh(
        lambda own, key: psum(own, "data", ring=Ring(NOISY), key=key),
        mesh_of((4, 2), ("data", "model")),
        P("data", "model"),
        True,
        2,
    )
    out = np.asarray(found(x, KEY))
    same = (out[:, 0] == out[:, 1]).mean()
    assert same < 0.05


# --- The types of shard_map -----------------------------------------------------------------------


def test_what_is_the_same_along_an_axis_stays_so():
    """A tree of a sharded and a replicated leaf leaves shard_map with the types of lax.pmean."""
    mesh = mesh_of((4, 2), ("data", "model"))
    tree = {"kernel": values_of(4, 2, SIZE), "norm": values_of(4, 7, seed=1)}
    specs = {"kernel": P("data", "model"), "norm": P("data")}

    def body(tree, key):
        return pmean(tree, "data", ring=Ring(NOISY), key=key)

    run = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=(specs, P()), out_specs=specs))
    found = run(tree, KEY)
    # It is that of the first ring, which draws from the key itself, as without the other axis.
    first = {"kernel": tree["kernel"][:, 0], "norm": tree["norm"]}
    mean = jax.vmap(lambda own: pmean(own, "nodes", ring=Ring(NOISY), key=KEY), axis_name="nodes")(
        first
    )
    np.testing.assert_array_equal(found["norm"], mean["norm"])
    np.testing.assert_array_equal(found["kernel"][:, 0], mean["kernel"])
    assert not np.array_equal(mean["norm"], np.tile(tree["norm"].mean(axis=0), (4, 1)))


@checked
def test_a_payload_that_does_not_vary_along_the_mesh_is_one_ring(check_vma):
    mesh = mesh_of((4, 2), ("data", "model"))
    x = values_of(4, SIZE)
    found = on_mesh(
        lambda own, key: pmean(own, "data", ring=Ring(NOISY), key=key),
        mesh,
        P("data"),
        check_vma,
        1,
    )
    mean = jax.vmap(lambda own: pmean(own, "nodes", ring=Ring(NOISY), key=KEY), axis_name="nodes")
    np.testing.assert_array_equal(found(x, KEY), mean(x))


def test_the_gradient_of_a_leaf_that_is_the_same_along_an_axis_is_that_of_lax():
    """Noise-free: the derivative follows the types of shard_map as that of `lax.pmean` does."""
    mesh = mesh_of((4, 2), ("data", "model"))
    tree = {"kernel": values_of(4, 2, SIZE), "norm": values_of(4, 7, seed=1)}
    specs = {"kernel": P("data", "model"), "norm": P("data")}

    def slope(average):
        def body(tree):
            def loss(tree):
                mean = average(tree)
                own = jnp.sum(mean["kernel"] ** 2) + jnp.sum(mean["norm"] ** 2)
                return lax.pmean(own, "model")

            return jax.grad(loss)(tree)

        return jax.jit(jax.shard_map(body, mesh=mesh, in_specs=(specs,), out_specs=specs))(tree)

    ring = Ring(noise="off", wire=FixedPoint(32))
    ours = slope(lambda tree: pmean(tree, "data", ring=ring, key=None, replicated=True))
    theirs = slope(lambda tree: lax.pmean(tree, "data"))
    for name in tree:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_psum_counts_every_node_unless_the_result_is_replicated():
    """The two lines of the docstring of `psum`: N times `lax.psum`, or the same."""
    nodes, x = 4, values_of(4, 3)
    mesh = mesh_of((nodes,), ("nodes",))
    ring = Ring(noise="off", wire=FixedPoint(24))

    def slope(total):
        def body(w, x):
            return jax.grad(lambda w: jnp.sum(total(w * x)))(w)

        return jax.jit(
            jax.shard_map(body, mesh=mesh, in_specs=(P("nodes"), P("nodes")), out_specs=P("nodes"))
        )(np.ones_like(x), x)

    theirs = slope(lambda v: lax.psum(v, "nodes"))
    bare = slope(lambda v: psum(v, "nodes", ring=ring, key=None))
    replicated = slope(lambda v: psum(v, "nodes", ring=ring, key=None, replicated=True))
    np.testing.assert_array_equal(theirs, x)
    np.testing.assert_array_equal(bare, nodes * x)
    np.testing.assert_array_equal(replicated, x)


@checked
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_the_other_axis_may_be_left_to_jax(kind, check_vma):
    """A shard_map over one axis only, with leaves that are sharded over the other one."""
    mesh = mesh_of((4, 2), ("data", "model"), (kind, kind))
    x = values_of(4, 48)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, P("data", "model")))
        run = jax.shard_map(
            lambda own, key: pmean(own, "data", ring=Ring(NOISY), key=key),
            in_specs=(P("data"), P()),
            out_specs=P("data"),
            axis_names={"data"},
            check_vma=check_vma,
        )
        found = jax.jit(run)(sharded, KEY)
    if kind == AxisType.Explicit:
        assert found.sharding.spec == P("data", "model")
    mean = jax.vmap(lambda own: pmean(own, "nodes", ring=Ring(NOISY), key=KEY), axis_name="nodes")
    np.testing.assert_array_equal(found, mean(x))


@checked
def test_a_vmap_that_is_spread_over_the_mesh_is_carried_or_refused(check_vma):
    mesh = mesh_of((4, 2), ("data", "model"))
    x = values_of(4, 2, SIZE)
    body = jax.shard_map(
        lambda own, key: psum(own, "data", ring=Ring(noise="off"), key=key),
        mesh=mesh,
        in_specs=(P("data"), P()),
        out_specs=P("data"),
        check_vma=check_vma,
    )
    run = jax.jit(jax.vmap(body, in_axes=(1, None), out_axes=1, spmd_axis_name="model"))
    if check_vma:
        with pytest.raises(
            ValueError, match=r"^`spmd_axis_name` must not be given .* 'model'; pass"
        ):
            run(x, KEY)
        return
    for number in range(2):
        want = alone(run_sum, "off")(x[:, number], KEY)
        np.testing.assert_array_equal(run(x, KEY)[:, number], want)


# --- Parameters sharded over the nodes, as in ZeRO ------------------------------------------------


@checked
def test_scatter_update_gather_is_the_update_of_the_mean(check_vma):
    """Each node keeps a part of the parameters: the sum is scattered, updated and gathered."""
    mesh = mesh_of((4, 2), ("data", "model"))
    weights, gradient = values_of(2, 4 * 5), values_of(4, 2, 4 * 5, seed=1)
    ring = Ring(noise="off", wire=FixedPoint(32))
    exact = Ring(noise="off", wire=Float32())

    def body(weights, gradient, key):
        own = psum_scatter(gradient[0, 0], "data", ring=ring, key=key, tiled=True) / 4
        at = lax.axis_index("data") * 5
        part = lax.dynamic_slice_in_dim(weights[0], at, 5) - 0.1 * own
        return all_gather(part, "data", ring=exact, key=key, tiled=True)[None, None]

    run = jax.jit(
        jax.shard_map(
            body,
            mesh=mesh,
            in_specs=(P("model"), P("data", "model"), P()),
            out_specs=P("data", "model"),
            check_vma=check_vma,
        )
    )
    want = weights - np.float32(0.1) * gradient.mean(axis=0)
    for node in range(4):
        np.testing.assert_allclose(run(weights, gradient, KEY)[node], want, rtol=1e-5, atol=1e-6)


# --- Nodes along axes of vmap ---------------------------------------------------------------------


@pytest.mark.parametrize("outer", ["pmap", further("shard_map"), further("vmap")])
@pytest.mark.parametrize("name", ["sum", *map(further, ("mean", "scatter", "gather")), "secure"])
def test_an_axis_of_vmap_counts_as_nodes_of_its_device(outer, name):
    run, ring = COLLECTIVES[name], RINGS["sampled"]
    x = values_of(2, 2, SIZE)
    inside = jax.vmap(
        lambda own, key: run(own, ring, key, ("i", "j")), in_axes=(0, None), axis_name="j"
    )
    if outer == "pmap":
        found = jax.pmap(inside, axis_name="i", in_axes=(0, None), devices=jax.devices()[:2])
    elif outer == "vmap":
        found = jax.jit(jax.vmap(inside, axis_name="i", in_axes=(0, None)))
    else:
        found = on_mesh(inside, mesh_of((2,), ("i",)), P("i"), False, 1)
    want = np.asarray(alone(run, "sampled")(x.reshape(4, SIZE), KEY))
    np.testing.assert_array_equal(np.asarray(found(x, KEY)).reshape(want.shape), want)


def test_axes_that_jax_cannot_add_over_are_refused_with_the_remedy():
    ring = Ring(noise="off")
    x = values_of(2, 2, SIZE)
    mesh = mesh_of((2,), ("i",))

    def inside(axes):
        return jax.vmap(lambda own: psum(own, axes, ring=ring, key=None), axis_name="j")

    with pytest.raises(
        ValueError, match=r"^`axis_name` must name axes of vmap after .* \('j', 'i'\)"
    ):
        jax.shard_map(
            inside(("j", "i")), mesh=mesh, in_specs=P("i"), out_specs=P("i"), check_vma=False
        )(x.reshape(4, SIZE))
    for axes in ("j", ("i", "j")):
        with pytest.raises(
            ValueError, match=r"^`axis_name` must not name .* 'j'; pass check_vma=False"
        ):
            jax.shard_map(inside(axes), mesh=mesh, in_specs=P("i"), out_specs=P("i"))(
                x.reshape(4, SIZE)
            )


def test_secure_means_mask_every_ring_of_a_mesh_by_itself():
    """Of equal data under one key the same masks would show that they are equal."""
    mesh = mesh_of((4, 2), ("data", "model"))
    x = np.broadcast_to(values_of(4, 1, SIZE), (4, 2, SIZE))
    ring = Ring(NOISY)
    run = on_mesh(
        lambda own, key: run_secure(own, ring, key, "data"), mesh, P("data", "model"), False, 2
    )
    out = np.asarray(run(x, KEY))
    # What noise makes of a masked level depends on its mask.
    assert not np.array_equal(out[:, 0], out[:, 1])
