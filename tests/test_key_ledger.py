"""No random word is drawn twice, and no key both draws words and derives keys.

A ledger of every use of the package's Threefry in real collectives, one node on each device: which
key, which counter and which of its two words, noted where it happens by a callback in the compiled
program. Exact, of the keys of the test; that two different keys of 64 bits are the same by chance
has a probability below 1e-9 for the some 1e5 keys here.
"""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxqring as jq
from jaxqring import (
    FixedPoint,
    GHZSource,
    Retransmit,
    Ring,
    dephasing,
    reed_solomon,
    superdense,
    werner,
)
from jaxqring import _threefry as home
from jaxqring.codes import Unequal, bch, secded
from jaxqring.ring import _hops as hops
from jaxqring.secure import Security

AXIS, BESIDE, NODES = "nodes", "rings", 3
KEY = jax.random.key(20261126)

#: KeyWords that are drawn more than once on purpose, by the function that draws them.
TIMES = {
    # The number between two neighbours, which one adds and the other subtracts.
    "_uniform_lanes.<locals>.draw": 2,
    # Both words of a draw are made for each of the two.
    "_uniform_bits.<locals>.draw": 2,
}


@dataclasses.dataclass
class Ledger:
    """The uses of keys: rows of (where, word or None, key, counter)."""

    rows: list = dataclasses.field(default_factory=list)

    def note(self, where, word, key, counter):
        """`word` 0 or 1 of a draw, or None where a key is derived."""

        def add(*words):
            first, second, third, fourth = (np.asarray(each, np.uint64).ravel() for each in words)
            self.rows.append((where, word, first << 32 | second, third << 32 | fourth))

        jax.debug.callback(add, *jnp.broadcast_arrays(*key, *counter))

    def read(self):
        """Derived keys, and the draws: (keys, counters, words, names of functions)."""
        jax.effects_barrier()
        rows, self.rows = self.rows, []
        derived = [key for _, word, key, _ in rows if word is None]
        drawn = [row for row in rows if row[1] is not None]
        columns = [np.concatenate([row[at] for row in drawn]) for at in (2, 3)]
        words = np.concatenate([np.full(row[2].size, row[1]) for row in drawn])
        names = np.concatenate([np.full(row[2].size, row[0]) for row in drawn])
        return np.unique(np.concatenate(derived)), (*columns, words, names)


class Pair:
    """Two random words, noted when one of them is taken."""

    def __init__(self, note, words):
        self.note, self.words, self.taken = note, words, set()

    def __getitem__(self, word):
        if word not in self.taken:
            self.taken.add(word)
            self.note(word)
        return self.words[word]

    def __iter__(self):
        return iter((self[0], self[1]))


jax.tree_util.register_pytree_node(Pair, lambda pair: (tuple(pair), None), lambda _, both: both)


@pytest.fixture(scope="module")
def ledger():
    """The ledger of all that is traced while it is open.

    What was traced before would not be noted, and what is traced here must not be used later.
    """
    found = Ledger()
    threefry, make_keys, normal = home.threefry, home._make_keys, hops._normal

    def noted_threefry(key, counter):
        words = threefry(key, counter)
        caller = sys._getframe(1).f_code
        if caller.co_filename == home.__file__ and caller is not home.random_words.__code__:
            return words  # made for a key
        name = caller.co_qualname
        return Pair(lambda word: found.note(name, word, key, counter), words)

    def noted_make_keys(key, counter):
        found.note("derive", None, key, counter)
        return make_keys(key, counter)

    def noted_normal(key, shape):
        place = jnp.arange(np.prod(shape), dtype=jnp.uint32)
        for word in range(2):  # as JAX counts, and it mixes both words
            found.note("_normal", word, key, (jnp.zeros_like(place), place))
        return normal(key, shape)

    modules = [module for name, module in sys.modules.items() if name.startswith("jaxqring")]
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name, value in list(vars(module).items()):
                if value is threefry:
                    patch.setattr(module, name, noted_threefry)
        patch.setattr(home, "_make_keys", noted_make_keys)
        patch.setattr(hops, "_normal", noted_normal)
        yield found
    jax.clear_caches()


def check(ledger):
    """Reads the ledger, refuses what may not be, and returns the names of who drew."""
    derived, (keys, counters, words, names) = ledger.read()
    both = np.intersect1d(keys, derived)
    assert not both.size, f"keys that draw and derive: {by(names[np.isin(keys, both)])}"
    use = np.rec.fromarrays([keys, counters, words])
    _, at, inverse, counts = np.unique(
        use, return_index=True, return_inverse=True, return_counts=True
    )
    allowed = np.array([TIMES.get(name, 1) for name in names[at]])
    wrong = counts != allowed
    assert not wrong.any(), f"drawn again: {by(names[wrong[inverse]])}"
    assert (names == names[at][inverse]).all()  # all times by the same function
    return set(names.tolist())


def by(names):
    return ", ".join(sorted(set(names.tolist())))


@functools.cache
def mapped(call, rings):
    """Compiled once for each call and number of rings, like what is noted in it."""
    devices = np.array(jax.devices()[: rings * NODES]).reshape(rings, NODES)

    def node(x, ring, key):
        return jax.tree.map(lambda leaf: leaf[None, None], call(x[0, 0], ring, key))

    spec = PartitionSpec(BESIDE, AXIS)
    return jax.jit(
        jax.shard_map(
            node,
            mesh=Mesh(devices, (BESIDE, AXIS)),
            in_specs=(spec, PartitionSpec(), PartitionSpec()),
            out_specs=spec,
        )
    )


def run(call, ring, size, rings=1):
    """`call(x, ring, key)` on (size,) values of each node, for each of some rings side by side."""
    x = np.random.default_rng(0).normal(size=(rings, NODES, size)).astype(np.float32)
    jax.block_until_ready(mapped(call, rings)(x, ring, KEY))


def psum(x, ring, key):
    return jq.psum(x, AXIS, ring=ring, key=key)


def all_kinds(x, ring, key):
    """Four calls that differ in kind or structure, with one key."""
    call = functools.partial(dict, ring=ring, key=key)
    return (
        jq.pmean(x, AXIS, **call()),
        jq.psum({"a": x}, AXIS, **call()),
        jq.psum_scatter(x, AXIS, tiled=True, **call()),
        jq.all_gather(x, AXIS, **call()),
    )


def secure(x, ring, key):
    """Under masks whose sums are wrong now and then."""
    source = GHZSource(NODES, noise=dephasing(error_prob=0.02))
    security = Security("bucket", correction=bch(7, 4, 1), attempts=2)
    return jq.secure_psum(x, AXIS, ring=ring, source=source, security=security, key=key)


def secure_and_plain(x, ring, key):
    """The same, and the plain sum with the same key."""
    return secure(x, ring, key), psum(x, ring, key)


def ring_of(fidelity=0.9, bits=8, *, loss=0.0, **options):
    link = superdense(werner(fidelity=fidelity), survival=1 - loss, heralded=loss > 0)
    return Ring(link, FixedPoint(bits, rounding="stochastic"), **options)


LEAKY = Retransmit(reed_solomon(15, 11, symbol_bits=4), 3, 2)
FEW, COARSE = "_errors_of_few", "_coarse_errors"
SPARSE = "_redraw.<locals>.redraw_batch.<locals>.draw"
DENSE, DENSE_SUMS = "through_all.<locals>.two_symbols", "all_sum_errors.<locals>.two_bits"
WORDS, MASKS, SUMS = (
    "random_words",
    "_uniform_lanes.<locals>.draw",
    "_draw_sum_errors.<locals>.draw",
)

CASES = {
    "four kinds of calls": (all_kinds, ring_of(), 30, {FEW, WORDS}),
    "links as noisy as that, 16 bits": (psum, ring_of(0.6, 16), 1200, {COARSE, SPARSE, WORDS}),
    "quieter links": (psum, ring_of(0.99, 16), 1200, {SPARSE, WORDS}),
    "links of any noise, densely": (
        psum,
        ring_of(0.99, 16, sampler="dense"),
        1200,
        {DENSE, WORDS},
    ),
    "normal noise": (psum, ring_of(0.9, 12, noise="gaussian"), 30, {"_normal", WORDS}),
    "rounding alone": (
        psum,
        Ring(noise="off", wire=FixedPoint(24, rounding="stochastic")),
        30,
        {WORDS},
    ),
    "codewords by attempts": (psum, ring_of(0.93, 16, protection=LEAKY), 60, {WORDS}),
    "codewords by symbols, some lost": (
        psum,
        ring_of(0.95, 16, loss=0.02, protection=LEAKY, simulate="symbol"),
        60,
        {WORDS},
    ),
    "codewords of the high symbols": (
        psum,
        ring_of(0.9, 16, protection=Unequal(secded(72, 64), 3)),
        60,
        {FEW, WORDS},
    ),
    "masks of several draws": (secure, ring_of(0.95, 24), 40, {FEW, WORDS, MASKS, SUMS}),
    "masks and their sums, densely": (
        secure,
        ring_of(0.95, 24, sampler="dense"),
        40,
        {DENSE, WORDS, MASKS, DENSE_SUMS},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_call_draws_nothing_twice(ledger, name):
    call, ring, size, expected = CASES[name]
    run(call, ring, size)
    assert check(ledger) == expected


def test_two_rings_side_by_side_share_no_word(ledger):
    run(secure_and_plain, ring_of(), 12, rings=2)
    assert check(ledger) == {FEW, WORDS, MASKS, SUMS}


@pytest.mark.parametrize("realisation", ["qft", "prime", "xor"])
def test_masks_alone_draw_nothing_twice(ledger, realisation):
    source = GHZSource(NODES, noise=dephasing(error_prob=0.02))
    draw = jax.jit(jq.secure.masks, static_argnums=(2, 3, 4))
    jax.block_until_ready(draw(KEY, source, 50, 8, realisation))
    assert check(ledger)


def test_the_ledger_sees_what_it_is_for(ledger):
    """A word drawn twice, a key that draws and derives, and a function that repeats another's."""
    key = home.derive(home.cipher_key(KEY), 1)

    def twice():
        home.random_words(key, 3)
        home.random_words(key, 2)

    def both():
        home.random_words(key, 3)
        home.derive(key, 0)

    for use, words in ((twice, "drawn again"), (both, "keys that draw and derive")):
        use()
        with pytest.raises(AssertionError, match=words):
            check(ledger)
