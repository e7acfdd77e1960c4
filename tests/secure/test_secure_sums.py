"""Secure sums are exact under masks, and the same bits under every mapping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from scipy.stats import chisquare
from secure_calls import (
    AXIS,
    BARE,
    KEY,
    assert_same_bits,
    dephased,
    first,
    levels_of,
    noisy,
    payload,
    plain,
    quiet,
    secure,
    tree,
)

from jaxqring import (
    FixedPoint,
    GHZSource,
    Retransmit,
    depolarizing,
    pmean,
    psum,
    reed_solomon,
    secure_pmean,
    secure_psum,
)
from jaxqring.ring import _call as calls
from jaxqring.ring import _engine as engine
from jaxqring.secure import Dropout, Security, view

STRONG = Retransmit(reed_solomon(255, 223))
RIVALS = {secure_psum: psum, secure_pmean: pmean}
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


# --- Identity -------------------------------------------------------------------------------------


def check_identity(mapping, x, ring, size, call=secure_psum, security=BARE, **options):
    """Bit for bit what the plain ring delivers, on every node, and the same report.

    Both draw from streams of their own: over noisy links the words sent again are not the same.
    """
    source, rival = dephased(size * ring.nodes_per_device, 0.0), RIVALS[call]
    run = mapping(secure(call, security, **options), size, shared=4)
    total, report = run(x, ring, source, None, KEY)
    expected, alike = mapping(plain(rival), size, shared=2)(x, ring, KEY)
    assert_same_bits(total, expected)
    drawn = ("retransmissions_per_link", "repeated_qubits", "online_qubits")
    if ring.noise == "off":
        assert_same_bits(report.ring, alike)
    else:
        none = dict.fromkeys(drawn)
        assert_same_bits(report.ring.replace(**none), alike.replace(**none))
        spent = report.ring.online_qubits - report.ring.repeated_qubits
        np.testing.assert_allclose(spent, alike.online_qubits - alike.repeated_qubits, rtol=1e-6)
    seen = first(report)
    assert (seen.aborted, seen.attempts, seen.failures, seen.restarts) == (False, 1, 0, 0)
    assert (seen.wrong_sums, seen.uncorrected) == (0, 0)
    assert seen.survivors == source.num_parties


def test_perfect_states_and_links_give_the_plain_sum_bit_for_bit(mapping_named):
    check_identity(mapping_named("shard_map_checked"), tree(3), quiet(), 3, security=Security())


@pytest.mark.matrix
@pytest.mark.parametrize("call", [secure_psum, secure_pmean])
def test_every_mapping_is_exact_under_masks(every_mapping, call):
    check_identity(every_mapping, tree(3), quiet(), 3, call)


@pytest.mark.matrix
@pytest.mark.parametrize("call", [secure_psum, secure_pmean])
@pytest.mark.parametrize("bits, nodes", [(4, 3), (8, 5), (12, 4), (32, 3), (32, 8)])
def test_every_width_is_exact_under_masks(vmapped, bits, nodes, call):
    check_identity(vmapped, tree(nodes), quiet(bits), nodes, call)


@pytest.mark.parametrize(
    "size, nodes", [(20, 3), further(1, 5), further(2, 5), further(6, 5), further(50, 5)]
)
def test_sizes_that_the_ring_does_not_divide_are_exact_under_masks(vmapped, size, nodes):
    check_identity(vmapped, payload(nodes, size), quiet(), nodes, security=Security())


@pytest.mark.matrix
def test_several_nodes_on_a_device_are_exact_under_masks(every_mapping):
    check_identity(every_mapping, tree(2, 2), quiet(nodes_per_device=2), 2)


@pytest.mark.matrix
def test_replicated_sums_are_exact_under_masks(every_mapping):
    check_identity(every_mapping, tree(3), quiet(), 3, replicated=True)


@pytest.mark.matrix
def test_masks_change_nothing_over_protected_links(mapping):
    check_identity(mapping, payload(3, 101), noisy(0.99, protection=STRONG), 3)


@pytest.mark.matrix
def test_a_replicated_sum_may_leave_shard_map_as_replicated(ring_mesh):
    run = secure(replicated=True)
    shared = quiet(), GHZSource(3), None, KEY
    total, report = jax.jit(
        jax.shard_map(
            lambda x: run(x[0], *shared),
            mesh=ring_mesh(3),
            in_specs=PartitionSpec(AXIS),
            out_specs=PartitionSpec(),
        )
    )(payload(3, 7))
    expected, _ = jax.vmap(lambda x: plain()(x, quiet(), None), axis_name=AXIS)(payload(3, 7))
    np.testing.assert_array_equal(total, expected[0])
    assert report.attempts == 1


# --- What travels ---------------------------------------------------------------------------------


def watched(monkeypatch, x, ring, source, key):
    """The sums, what each node sent (N, 2 (N - 1), c), and all masks (N, N, c), of a real call."""
    seen, nodes, bits = [], x.shape[0], ring.wire.bits
    chunk = x.shape[1] // nodes

    def spy(values, ring, key, spec):
        spec = spec._replace(keep_sent=True)
        result, counts, words = engine._with_sent(values, ring, key, spec)
        size, own = -(-chunk // ring.wire.lanes), spec.place.nodes()[0]

        def mask(number):
            each = ring.masks.lanes(own, number, size=size, bits=bits, num_nodes=nodes)
            # What the sum is off by is added by the node that starts with the chunk.
            off = jnp.where(number == own, ring.masks.errors[0], 0)
            return jnp.concatenate(each)[:chunk] + off

        sent = jax.vmap(lambda words: jnp.concatenate(ring.wire.part(words))[:chunk])
        seen.append((sent(words[:, 0]), jax.vmap(mask)(jnp.arange(nodes))))
        return result, counts

    monkeypatch.setattr(calls, "collective", spy)

    def node(x):
        total = secure_psum(x, AXIS, ring=ring, source=source, security=BARE, key=key)
        return total, *seen.pop()

    return jax.jit(jax.vmap(node, axis_name=AXIS))(x)


@pytest.mark.parametrize("nodes, bits", [(4, 8), further(3, 16), further(5, 12)])
def test_what_travels_is_what_view_says_and_uniform(monkeypatch, nodes, bits):
    """The engine and the audit tell one story, wrong sums of masks included.

    Of data that are all alike each node sends (N - 1) 4096 levels whose low byte is uniform on 256
    values by chi-square, which fails by chance with a probability below 1e-7 in all.
    """
    x = jnp.ones((nodes, 4096 * nodes))
    source = dephased(nodes, 0.001)
    total, sent, hidden = watched(monkeypatch, x, quiet(bits), source, KEY)
    scale = FixedPoint(bits).scale_of(jnp.max(jnp.abs(x)), nodes)
    levels = FixedPoint(bits).encode(x, scale, nodes)
    hidden = hidden.reshape(nodes, -1)
    off = np.asarray(jnp.sum(hidden.astype(jnp.uint32), axis=0)) % 2**bits
    assert 0 < (off != 0).sum() < 0.1 * off.size
    for node in range(nodes):
        seen = view(((node + 1) % nodes,), levels, hidden, bits=bits)
        np.testing.assert_array_equal(seen.received[0], sent[node])
        reduced = np.asarray(sent[node][: nodes - 1])
        assert chisquare(np.bincount(reduced.reshape(-1) % 256, minlength=256)).pvalue > 1e-8
    expected = (levels.sum(axis=0) + off + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    np.testing.assert_array_equal(levels_of(total, x, bits), [expected] * nodes)


# --- Invariance -----------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("recovery", ["restart", "spare"])
def test_the_same_key_gives_the_same_bits_under_every_mapping(every_mapping, vmapped, recovery):
    source = GHZSource(4, noise=depolarizing(mix=0.003))
    security = Security("none", test_ratio=0.2, tolerance=0.1)
    arguments = payload(4, 101), noisy(0.97), source, Dropout(0.1, recovery), KEY
    run = secure(secure_pmean, security)
    got = every_mapping(run, 4, shared=4)(*arguments)
    assert_same_bits(got, vmapped(run, 4, shared=4)(*arguments))
    seen = first(got[1])
    assert seen.wrong_sums > 0
    assert seen.ring.symbol_errors > 0
    assert np.isfinite(got[0]).all()


@pytest.mark.matrix
def test_the_same_key_gives_the_same_bits_however_many_nodes_a_device_carries(vmapped):
    x, source = payload(4, 101), dephased(4, 0.01)
    rest = source, Dropout(0.1), KEY
    one, seen = vmapped(secure(), 4, shared=4)(x, noisy(0.97), *rest)
    paired = x.reshape(2, 2, -1)
    two, alike = vmapped(secure(), 2, shared=4)(paired, noisy(0.97, nodes_per_device=2), *rest)
    assert_same_bits(one, two.reshape(one.shape))
    assert_same_bits(first(seen), first(alike))


def test_other_keys_give_other_errors(vmapped):
    run = functools.partial(vmapped(secure(), 3, shared=4), payload(3, 20), quiet())
    totals = [run(dephased(3, 0.1), None, jax.random.key(seed))[0] for seed in range(2)]
    assert not np.array_equal(*totals)
