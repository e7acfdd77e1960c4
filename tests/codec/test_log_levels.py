"""Logarithmic levels on the wire: decoded, added and rounded anew at every hop."""

import functools

import compress_reference as ref
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqring import GHZSource, Ring, psum, secure_psum, superdense, werner
from jaxqring.codec import LogLevels
from jaxqring.secure import Security

AXIS = "nodes"
KEY = jax.random.key(20261128)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def summed(x, ring, key):
    return psum(x, AXIS, ring=ring, key=key, with_report=True)


def ring_of(bits=8, alpha=10.0):
    return Ring(noise="off", wire=LogLevels(bits, alpha))


def hopwise(rows, bits=8, alpha=10.0):
    """The sums of (N, size) fractions, chunk c from node c on, in float64."""
    nodes, size = rows.shape
    chunk = -(-size // nodes)
    total = np.zeros(size)
    for c in range(nodes):
        part = slice(c * chunk, (c + 1) * chunk)
        order = (c + np.arange(nodes)) % nodes
        total[part] = ref.hop_sum(rows[order, part].astype(float), 1.0, bits, alpha)
    return total


FOUR = np.float32([0.9, -0.2, 0.05, 0.4])


def test_four_values_hop_by_hop(vmapped):
    """Each of four chunks meets the four values in this order, at a scale of two."""
    x = np.array([[FOUR[(node - c) % 4] for c in range(4)] for node in range(4)]) / 2
    total, _ = vmapped(summed, 4, shared=2)(x.astype(np.float32), ring_of(), None)
    np.testing.assert_allclose(2 * np.asarray(total), np.full((4, 4), 1.1465552527), rtol=3e-6)
    # Not the sum of what the codes say, nor what the sum of the codes says.
    codes = ref.log_encode(FOUR.astype(float), 2.0)
    assert abs(ref.log_decode(codes, 2.0).sum() - 1.1465552527) > 1e-3
    assert abs(4 * ref.log_decode(codes.mean(), 2.0) - 1.1465552527) > 0.1


@pytest.mark.parametrize(
    "nodes, bits, alpha", [(5, 8, 10.0), further(3, 4, 2.5), further(8, 6, 100.0)]
)
def test_sums_are_those_of_the_reference_and_the_same_on_all_nodes(vmap_first, nodes, bits, alpha):
    rng = np.random.default_rng(bits)
    x = (rng.laplace(size=(nodes, 23)) / 20).clip(-1 / nodes, 1 / nodes).astype(np.float32)
    total, report = vmap_first(summed, nodes, shared=2)(x, ring_of(bits, alpha), None)
    total = np.asarray(total)
    assert (total.view(np.uint32) == total[:1].view(np.uint32)).all()
    assert report.replica_agreement[0] == 1
    # A value that the two precisions round to different levels would be off by a whole level.
    np.testing.assert_allclose(total[0], hopwise(x, bits, alpha), rtol=2e-5, atol=1e-7)
    # Never further from the sum than half the widest level at every hop.
    assert np.abs(total[0] - x.sum(axis=0)).max() < nodes * bound(bits, alpha)
    assert np.abs(total[0] - x.sum(axis=0)).max() > 0


def bound(bits, alpha):
    """Half the distance of the highest two levels, with some room for log against linear."""
    top = 2 ** (bits - 1) - 1
    return 0.6 * (1 - ref.log_decode(top - 1, 1.0, bits, alpha))


def test_levels_pass_unchanged_and_sums_beyond_one_are_clipped(vmapped):
    """One node holds every level, the other zeros; then both hold a large one."""
    levels = ref.log_decode(np.arange(-127, 128)).astype(np.float32)
    x = np.stack([np.append(levels, [0.9, -1.0]), np.append(0 * levels, [0.9, -1.0])])
    total, _ = vmapped(summed, 2, shared=2)(x.astype(np.float32), ring_of(), None)
    np.testing.assert_allclose(total[0, :-2], levels, rtol=2e-6)
    np.testing.assert_allclose(total[0, -2:], [1, -1], rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8, 14, 16])
def test_words_hold_every_level(bits):
    wire = LogLevels(bits, 10.0)
    top = 2 ** (bits - 1) - 1
    codes = np.unique(np.linspace(-top, top, 999).astype(np.int64))
    padded = np.pad(codes, (0, -len(codes) % wire.lanes))
    values = ref.log_decode(padded, 1.0, bits).astype(np.float32)
    lanes = [jnp.asarray(lane) for lane in values.reshape(wire.lanes, -1)]
    found = np.concatenate(wire.part(wire.join(lanes)))
    np.testing.assert_allclose(found, values, rtol=1e-5)
    assert len(np.unique(found)) == len(codes)


def test_noise_moves_a_level_to_another_one(vmapped):
    """No bit pattern decodes beyond the interval by more than the one level that none sends."""
    x = np.full((3, 60), 0.1, np.float32)
    ring = Ring(superdense(werner(fidelity=0.8)), LogLevels(8, 10.0))
    total, report = vmapped(summed, 3, shared=2)(x, ring, KEY)
    total = np.asarray(total)
    assert report.symbol_errors[0] > 100
    assert np.isfinite(total).all()
    lowest = -float(ref.log_decode(128))
    assert (total >= lowest - 1e-5).all()
    assert (total <= 1 + 1e-6).all()


def test_refusals():
    for bits in (2, 7, 18, 8.0):
        with pytest.raises(ValueError, match="`bits` must be"):
            LogLevels(bits)
    for alpha in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"`alpha` must lie in \(0, inf\)"):
            LogLevels(8, alpha)
    with pytest.raises(ValueError, match="`noise` must be"):
        Ring(superdense(werner(fidelity=0.9)), LogLevels(8), noise="gaussian")


def test_masks_are_refused(vmapped):
    def run(x, ring, key):
        return secure_psum(
            x, AXIS, ring=ring, source=GHZSource(3), security=Security("none"), key=key
        )

    with pytest.raises((TypeError, ValueError), match="FixedPoint"):
        vmapped(run, 3, shared=2)(np.zeros((3, 4), np.float32), ring_of(), KEY)
