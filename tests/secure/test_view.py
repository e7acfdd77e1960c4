"""The view of a coalition of one all-reduce: a literal ring, exact privacy, real gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.datasets import load_digits

from jaxqring import FixedPoint, GHZSource
from jaxqring.secure import masks, view

further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def coalitions(nodes, least=0):
    """Every set of at most N - 2 nodes."""
    sizes = range(least, nodes - 1)
    return [c for size in sizes for c in itertools.combinations(range(nodes), size)]


def signed(levels, bits):
    return (np.asarray(levels) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


# --- A literal ring -------------------------------------------------------------------------------


def literal_ring(sent, bits):
    """[node][round] -> (c,) what each node receives, of chunks (N, N, c) that the nodes add up."""
    nodes = len(sent)
    held = [{chunk: list(sent[node][chunk]) for chunk in range(nodes)} for node in range(nodes)]
    received = [[] for _ in range(nodes)]
    for turn in range(2 * (nodes - 1)):
        reducing = turn < nodes - 1
        step = turn if reducing else turn - (nodes - 1)
        messages = []
        for node in range(nodes):
            chunk = (node - step if reducing else node + 1 - step) % nodes
            messages.append(((node + 1) % nodes, chunk, list(held[node][chunk])))
        for receiver, chunk, words in messages:
            received[receiver].append([signed(word, bits) for word in words])
            own = held[receiver][chunk]
            both = [a + b for a, b in zip(own, words, strict=True)]
            held[receiver][chunk] = both if reducing else words
    return received


@pytest.mark.parametrize("masked", [further(False), True])
@pytest.mark.parametrize(
    "nodes, size, bits", [further(3, 7, 4), further(4, 8, 16), (5, 3, 8), further(6, 20, 32)]
)
def test_a_view_is_what_arrives_in_a_literal_ring(nodes, size, bits, masked):
    rng = np.random.default_rng([nodes, masked])
    levels = rng.integers(-(2 ** (bits - 3)), 2 ** (bits - 3), (nodes, size))
    hidden = rng.integers(0, 2**bits, (nodes, size), dtype=np.uint32) * np.uint32(masked)
    chunk = -(-size // nodes)
    sent = np.pad(levels + hidden.astype(np.int64), ((0, 0), (0, chunk * nodes - size)))
    received = np.array(literal_ring(sent.reshape(nodes, nodes, chunk).tolist(), bits))
    everyone = coalitions(nodes)
    picked = rng.permutation(len(everyone))[:6]
    for coalition in [(0,), (nodes - 1, 1)[: nodes - 2], *(everyone[i] for i in picked)]:
        seen = view(coalition, levels, hidden if masked else None, bits=bits)
        members = list(coalition)
        np.testing.assert_array_equal(seen.received, received[members])
        np.testing.assert_array_equal(seen.codes, levels[members])
        np.testing.assert_array_equal(seen.masks, signed(hidden[members].astype(np.int64), bits))
        assert seen.vector().shape == (sum(part.size for part in seen),)


# --- Exact privacy: every mask there is -----------------------------------------------------------


def every_word(nodes, base):
    """(base^N, N) all vectors over Z_base."""
    return np.array(list(itertools.product(range(base), repeat=nodes)))


def zero_sum(nodes, base):
    """(base^(N - 1), N) all masks of one coordinate that add up to zero."""
    free = every_word(nodes - 1, base)
    return np.concatenate([free, -free.sum(axis=1, keepdims=True) % base], axis=1)


def seen_of_chunks(coalition, levels, hidden, bits):
    """[chunk] -> (X, K, V) views for all levels (X, N) and masks (K, N) of one coordinate.

    Chunks are masked independently, so that each may be looked at alone, with nothing in the
    others. Not compiled, which would take longer than it saves.
    """
    nodes = levels.shape[1]
    alone = np.eye(nodes, dtype=np.int32)
    levels, hidden = (np.einsum("cd,xn->cxnd", alone, part) for part in (levels, hidden))

    def one(own, mask):
        return view(coalition, own, mask, bits=bits).vector()

    across = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    return np.asarray(jax.vmap(across)(levels, hidden))


def laws(views, extra=None):
    """One label for the distribution of each input's view: labels are equal iff the laws are.

    Args:
      views: (X, K, V), equally likely along the second axis.
      extra: (K, E) what else is known, of the masks.
    """
    views = np.asarray(views)
    if extra is not None:
        extra = np.broadcast_to(extra, (*views.shape[:2], extra.shape[-1]))
        views = np.concatenate([views, extra], axis=2)
    views = views[..., (views != views[:1, :1]).any(axis=(0, 1))]  # a constant tells nothing
    # One number for each view, without collisions: digits in a base above all of them.
    views = views - views.min(initial=0)
    base = int(views.max(initial=0)) + 1
    assert base ** views.shape[2] < 2**62
    numbers = views.astype(np.int64) @ (base ** np.arange(views.shape[2], dtype=np.int64))
    return np.unique(np.sort(numbers, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def leaks(labels, levels, coalition, base):
    """Tells whether inputs alike for the coalition and in the honest sum have other laws."""
    honest = [i for i in range(levels.shape[1]) if i not in coalition]
    allowed = np.c_[levels[:, list(coalition)], levels[:, honest].sum(axis=1) % base]
    _, group = np.unique(allowed, axis=0, return_inverse=True)
    pairs = np.unique(np.c_[group.reshape(-1), labels], axis=0)
    return len(pairs) > len(np.unique(group))


@pytest.mark.parametrize("nodes, bits", [(4, 2), further(5, 1), further(5, 2)])
def test_masked_views_depend_on_the_honest_sum_alone(nodes, bits):
    base = 2**bits
    levels, hidden = every_word(nodes, base), zero_sum(nodes, base)
    for coalition in coalitions(nodes):
        for views in seen_of_chunks(coalition, levels, hidden, bits):
            assert not leaks(laws(views), levels, coalition, base), coalition


@pytest.mark.parametrize("nodes, bits", [(4, 2), further(5, 1)])
def test_unmasked_views_tell_more_to_every_coalition(nodes, bits):
    base = 2**bits
    levels, none = every_word(nodes, base), np.zeros((1, nodes), int)
    for coalition in coalitions(nodes, least=1):
        views = seen_of_chunks(coalition, levels, none, bits)
        assert any(leaks(laws(each), levels, coalition, base) for each in views), coalition


@pytest.mark.parametrize("nodes, bits", [(4, 2), further(5, 1)])
def test_ring_local_masks_fail_exactly_where_both_neighbours_collude(nodes, bits):
    """k_i = r_i - r_(i-1), and each node knows the two r that it shares with its neighbours."""
    base = 2**bits
    levels, shared = every_word(nodes, base), every_word(nodes, base)
    hidden = (shared - np.roll(shared, 1, axis=1)) % base
    failed = 0
    for coalition in coalitions(nodes):
        known = sorted({i for j in coalition for i in (j, (j - 1) % nodes)})
        exposed = [
            i
            for i in set(range(nodes)) - set(coalition)
            if {(i - 1) % nodes, (i + 1) % nodes} <= set(coalition)
        ]
        own = levels[(levels[:, list(coalition)] == 1).all(axis=1)]
        for views in seen_of_chunks(coalition, own, hidden, bits):
            labels = laws(views, shared[:, known])
            assert leaks(labels, own, coalition, base) == bool(exposed), coalition
        failed += bool(exposed)
        for victim in exposed:
            # The neighbours know the whole mask of the victim, and so its code, as it is.
            mask = shared[:, victim] - shared[:, victim - 1]
            held = views_of_all(coalition, levels[:64], hidden, bits)
            found = uncover(held, coalition, victim, nodes, bits)
            assert set(known) >= {victim, (victim - 1) % nodes}
            right = (found - mask[:, None]) % base == levels[:64, None, [victim] * nodes] % base
            assert right.all()
    assert failed


def test_colluding_neighbours_learn_nothing_or_two_bits():
    """N = 4, d = 4, neighbours 0 and 2 of node 1; exact, over all levels and masks."""
    coalition, victim, base = (0, 2), 1, 4
    levels = every_word(4, base)
    levels = levels[(levels[:, 0] == 3) & (levels[:, 2] == 1)]
    for hidden, bits_learnt in ((zero_sum(4, base), 0.0), (np.zeros((1, 4), int), 2.0)):
        for views in seen_of_chunks(coalition, levels, hidden, 2):
            flat = views.reshape(-1, views.shape[2])
            seen = np.unique(flat, axis=0, return_inverse=True)[1].reshape(len(levels), -1)
            honest = (levels[:, 1] + levels[:, 3]) % base
            joint = np.zeros((base, base, seen.max() + 1))  # victim, honest sum, view
            for x, s, row in zip(levels[:, victim], honest, seen, strict=True):
                np.add.at(joint[x, s], row, 1 / seen.size)
            given_sum = [
                information(part / part.sum()) * part.sum() for part in joint.swapaxes(0, 1)
            ]
            assert abs(sum(given_sum) - bits_learnt) < 1e-12


def information(joint):
    """Bits of mutual information of a joint distribution (X, Y)."""
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float(np.sum(joint[there] * np.log2(joint[there] / product[there])))


# --- The attack of the neighbours -----------------------------------------------------------------


def views_of_all(coalition, levels, hidden, bits):
    """A `View` of leading axes (X, K), the same code and mask in every chunk."""
    nodes = levels.shape[1]
    levels, hidden = (np.repeat(part[..., None], nodes, axis=2) for part in (levels, hidden))
    one = functools.partial(view, coalition, bits=bits)
    return jax.vmap(lambda own: jax.vmap(lambda mask: one(own, mask))(hidden))(levels)


def uncover(seen, coalition, victim, nodes, bits):
    """(..., size) what the victim added, by subtraction of what its two neighbours saw.

    The predecessor knows what it sent to the victim, the successor what came out; of the chunk
    that the victim adds up last, what comes out is the sum itself.
    """
    levels, hidden, received = (np.asarray(part, np.int64) for part in seen)
    before, after = (coalition.index((victim + way) % nodes) for way in (-1, 1))
    chunk = received.shape[-1]
    held = levels + hidden
    held = np.pad(held, [(0, 0)] * (held.ndim - 1) + [(0, chunk * nodes - held.shape[-1])])
    held = held.reshape(*held.shape[:-1], nodes, chunk)
    parts = []
    for number in range(nodes):
        turn = (victim - number) % nodes  # when the victim sends this chunk
        came_out = received[..., after, turn, :]
        went_in = 0
        if turn > 0:
            went_in = held[..., before, number, :]
            if turn > 1:
                went_in = went_in + received[..., before, turn - 2, :]
        parts.append(came_out - went_in)
    return signed(np.concatenate(parts, axis=-1)[..., : levels.shape[-1]], bits)


def gradient_levels(nodes, bits):
    """(N, 650) the levels of gradients of a softmax regression on real digits, a batch a node."""
    data = load_digits()
    images, labels = np.float32(data.data / 16), data.target
    rng = np.random.default_rng(8)
    weights = jnp.asarray(rng.normal(size=(64, 10)) / 8, jnp.float32), jnp.zeros(10)

    def loss(weights, images, labels):
        scores = jax.nn.log_softmax(images @ weights[0] + weights[1])
        return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))

    batches = rng.permutation(len(labels))[: nodes * 64].reshape(nodes, 64)
    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(
        weights, jnp.asarray(images[batches]), jnp.asarray(labels[batches])
    )
    flat = jnp.concatenate([leaf.reshape(nodes, -1) for leaf in gradients], axis=1)
    wire = FixedPoint(bits)
    step = wire.scale_of(jnp.max(jnp.abs(flat)), nodes)
    return np.asarray(wire.encode(flat, step, nodes))


def plug_in(left, right):
    """Bits of mutual information of two samples of integers, and the degrees of freedom."""
    shape = left.max() + 1, right.max() + 1
    joint = np.bincount(left * shape[1] + right, minlength=shape[0] * shape[1]).reshape(shape)
    return information(joint / left.size), (shape[0] - 1) * (shape[1] - 1)


def test_real_gradients_stay_hidden_from_six_of_eight_nodes():
    """10,400 pairs of a code of the victim and what six colluders make of it, in 16 x 8 bins.

    Of independent pairs, 2 n ln 2 times the plug-in information is chi-square distributed, to be
    exceeded with a probability of 1e-8 here and in each of 16 bits; 100 permutations of the levels
    give the same null, whose mean it misses by less than eight standard deviations.
    """
    nodes, bits, victim, trials = 8, 16, 3, 16
    coalition = (0, 1, 2, 4, 5, 6)
    levels = gradient_levels(nodes, bits)
    size = levels.shape[1]
    bare = view(coalition, levels, bits=bits)
    np.testing.assert_array_equal(uncover(bare, coalition, victim, nodes, bits), levels[victim])

    source = GHZSource(nodes)
    keys = jax.random.split(jax.random.key(20260623), trials)
    hidden = jax.lax.map(lambda key: masks(key, source, size, bits), keys)
    seen = jax.vmap(lambda mask: view(coalition, levels, mask, bits=bits))(hidden)
    found = uncover(seen, coalition, victim, nodes, bits)
    assert found.shape == (trials, size)
    # It is what the victim sent, so that the attack was carried out rightly.
    sent = signed(levels[victim] + np.asarray(hidden[:, victim], np.int64), bits)
    np.testing.assert_array_equal(found, sent)

    edges = np.quantile(levels[victim], np.linspace(0, 1, 9)[1:-1])
    bins = np.tile(np.digitize(levels[victim], np.unique(edges)), trials)
    guess = (found.reshape(-1) % 2**bits) >> (bits - 4)
    learnt, freedom = plug_in(bins, guess)
    scale = 2 * np.log(2) * bins.size
    assert scale * learnt < chi2.isf(1e-8, freedom)
    rng = np.random.default_rng(0)
    null = [plug_in(rng.permutation(bins), guess)[0] for _ in range(100)]
    assert abs(learnt - np.mean(null)) < 8 * np.std(null)
    own = np.tile(levels[victim], trials)
    for bit in range(bits):
        learnt, freedom = plug_in(own >> bit & 1, found.reshape(-1) >> bit & 1)
        assert freedom == 1
        assert scale * learnt < chi2.isf(1e-8, 1)

    # The same judge on what they make of a ring without masks: all there is to know.
    plain = uncover(bare, coalition, victim, nodes, bits)
    learnt, _ = plug_in(bins[:size], np.digitize(plain, np.unique(edges)))
    counts = np.bincount(bins[:size])
    entropy = -np.sum(counts / size * np.log2(np.maximum(counts, 1) / size))
    assert abs(learnt - entropy) < 1e-9
    assert entropy > 2


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coalition, shape, mask, words",
    [
        ((0, 1, 2), (4, 4), None, ["`coalition`", "hold at most 2", "(0, 1, 2)"]),
        ((0, 1), (3, 4), None, ["`coalition`", "hold at most 1"]),
        ((1, 1), (4, 4), None, ["`coalition`", "hold different nodes", "(1, 1)"]),
        ((4,), (4, 4), None, ["`coalition`", "0, ..., 3", "(4,)"]),
        ((-1,), (4, 4), None, ["`coalition`", "0, ..., 3"]),
        ((), (2, 4), None, ["`codes`", "N at least 3", "(2, 4)"]),
        ((0,), (4,), None, ["`codes`", "(N, size)", "(4,)"]),
        ((0,), (4, 4, 1), None, ["`codes`", "(N, size)"]),
        ((0,), (4, 4), (4, 5), ["`masks`", "(4, 4)", "(4, 5)"]),
        ((0,), (4, 4), (4,), ["`masks`", "(4, 4)"]),
    ],
)
def test_malformed_views_are_refused(coalition, shape, mask, words):
    hidden = None if mask is None else np.zeros(mask, int)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        view(coalition, np.zeros(shape, int), hidden, bits=8)
    assert all(word in str(refusal.value) for word in words), refusal.value
