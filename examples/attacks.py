"""Five attacks on the ring, with masks and without: measured rates beside predicted ones.

Eight nodes average the gradients of a softmax regression on real digits.

1. The neighbours of a node subtract what it was sent from what it sends on. In a plain ring, and
   under masks that neighbours agree on in pairs, that is the node's gradient, exactly.
2. A dishonest source plants one copy whose outcomes it knows.
3. A dishonest source sends GHZ states of which it keeps a purification, within the tolerance.
4. A dishonest node announces its outcomes after it has seen the others'.
5. The masks of one step are used in the next.

That verified GHZ states give composable security at twice the copies is the paper's claim (Gragera
Garces and Pira, arXiv:2606.20344). That one planted copy then escapes half of the time, the guess
of a purification, and the effect of both on single copies and on buckets are ours; the attacks of
neighbours and the tests are known from the literature.

    python examples/attacks.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jaxqring as jq
from jaxqring.physics.ghz import sample
from jaxqring.secure._copy_sampling import escape_probability, pass_probability
from jaxqring.secure._rates import secrecy_distance
from jaxqring.secure._verification import draw_tests, judge

NODES, BITS, VICTIM = 8, 16, 3
COPIES, TRIALS, STEPS = 2000, 10_000, 1000
ERROR, TOLERANCE, BUCKET = 0.01, 0.015, 3


def gradients(weights):
    """(N, 640) the gradient of each node on its own digits."""
    data = load_digits()
    count = len(data.target) // NODES * NODES
    images = jnp.asarray(data.data[:count] / 16, jnp.float32).reshape(NODES, -1, 64)
    labels = jnp.asarray(data.target[:count]).reshape(NODES, -1)

    def loss(weights, images, labels):
        scores = jax.nn.log_softmax(images @ weights)
        return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))

    each = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(weights, images, labels)
    return each.reshape(NODES, -1)


def levels_of(values):
    """(N, P) int32 levels that the nodes put into the ring."""
    wire = jq.FixedPoint(BITS)
    return wire.encode(values, wire.scale_of(jnp.max(jnp.abs(values)), NODES), NODES)


@jax.jit
def drawn(key):
    """(N, STEPS, 640) uint32 masks of GHZ states, for the gradients of many steps."""
    return jq.secure.masks(key, jq.GHZSource(NODES), (STEPS, 640), BITS)


def rate_of(right):
    return float(np.mean(np.asarray(right)))


# --- 1. The neighbours ----------------------------------------------------------------------------


def subtracted(levels, masks):
    """(P,) the victim's own terms mod 2^b, from the view of its two neighbours.

    In round t a node receives the chunk that started t + 1 nodes before it. The first neighbour
    knows what it passed on, the second what came out.
    """
    seen = jq.secure.view((VICTIM - 1, VICTIM + 1), levels, masks, bits=BITS)
    own = (seen.codes[0] + seen.masks[0]).reshape(NODES, -1)
    before, after = seen.received
    parts = []
    for chunk in range(NODES):
        sent_in_round = (VICTIM - chunk) % NODES
        passed_on = 0
        if sent_in_round > 0:  # else the victim was the first to send
            passed_on = own[chunk] + (before[sent_in_round - 2] if sent_in_round > 1 else 0)
        parts.append(after[sent_in_round] - passed_on)
    return jnp.concatenate(parts) % 2**BITS


def neighbours(levels, key):
    """Rows: fraction of the victim's levels that its neighbours find."""
    data = levels[VICTIM] % 2**BITS
    shared_key, ghz_key = jax.random.split(key)
    shared = jax.random.bits(shared_key, levels.shape, jnp.uint32) >> (32 - BITS)
    local = shared - jnp.roll(shared, 1, axis=0)  # of a pair of neighbours, one adds and one takes
    known = (shared[VICTIM] - shared[VICTIM - 1]).astype(jnp.int32)

    yield "a node's gradient, plain ring", rate_of(subtracted(levels, None) == data), 1.0
    found = (subtracted(levels, local) - known) % 2**BITS
    yield "a node's gradient, masks shared by neighbours", rate_of(found == data), 1.0
    found = jax.jit(jax.vmap(subtracted, in_axes=(None, 1)))(levels, drawn(ghz_key))
    yield "a node's gradient, masks from GHZ states", rate_of(found == data), 2.0**-BITS


# --- 2. One copy that the source knows ------------------------------------------------------------


def planted(levels, key):
    """Rows: rates at which tests pass and the source then reads the level of a node."""
    half = COPIES // 2
    source = jq.secure.PlantedSource(jq.GHZSource(NODES), jq.secure.plus_states(NODES))
    tests_key, mask_key, level_key = jax.random.split(key, 3)

    def attempt(key):
        done = jq.secure.verify(key, source, half, half)
        return done.passed, done.bad_kept

    keys = jax.random.split(tests_key, TRIALS)
    passed, untested = (np.asarray(each) for each in jax.jit(jax.vmap(attempt))(keys))
    seen = 1 - 2.0 ** (1 - NODES)  # a test fails but where the outcomes of all parties agree
    rate = escape_probability(1, half, half, detection=seen)
    yield f"one of {COPIES} copies planted: tests passed", rate_of(passed), rate
    yield "  of these, the copy stays untested", rate_of(untested[passed]), 0.5 / rate

    # Of |+...+> the outcome of every party is zero. The other masks of a bucket are good.
    raw = drawn(mask_key)[VICTIM].reshape(-1)
    raw = raw[: raw.size // BUCKET * BUCKET].reshape(BUCKET, -1).at[0].set(0)
    data = jax.random.choice(level_key, levels[VICTIM], raw.shape[1:]).astype(jnp.uint32)
    for copies, name, chance in ((1, "no amplification", 1.0), (BUCKET, "buckets", 2.0**-BITS)):
        sent = (data + jnp.sum(raw[:copies], axis=0)) % 2**BITS
        yield f"  level over it read, {name}", rate_of(sent == data % 2**BITS), chance


# --- 3. A purification ----------------------------------------------------------------------------


def purified(key):
    """Rows: rates at which tests pass and the source guesses a bit of the first party's mask."""
    tests, bits = 10_000, 3_000_000
    tests_key, mask_key, guess_key = jax.random.split(key, 3)
    # To the parties it is a flip of the first one's qubit.
    flips = jnp.eye(4) + jnp.zeros((NODES, 1, 1))
    flips = flips.at[0].set(jq.bit_flip(error_prob=ERROR).ptm)
    source = jq.GHZSource(NODES, noise=jq.Channel(flips))

    def attempt(key):
        return jq.secure.verify(key, source, tests, tests, tolerance=TOLERANCE).passed

    passed = jax.jit(jax.vmap(attempt))(jax.random.split(tests_key, TRIALS))
    pass_rate = pass_probability(tests, ERROR, TOLERANCE)
    yield f"purification of error {ERROR:g}: tests passed", rate_of(passed), pass_rate

    outcomes = jax.random.bernoulli(mask_key, 0.5, (bits // BUCKET, BUCKET)).astype(jnp.uint8)
    guess = jq.secure.purification_guess(guess_key, outcomes, ERROR)
    advantage = secrecy_distance(ERROR)
    yield "  bits of a raw mask guessed", rate_of(guess == outcomes), 0.5 + advantage
    # Advantages multiply: a sum of bits is guessed rightly if an even number of them is wrong.
    right = jnp.sum(guess ^ outcomes, axis=1) % 2 == 0
    summed = 0.5 + (2 * advantage) ** BUCKET / 2
    yield f"  bits of a sum of {BUCKET} guessed", rate_of(right), summed


# --- 4. A node that speaks last -------------------------------------------------------------------


def rushing(key):
    """Rows: tests that product states pass, without a liar and with one who hears the others."""
    source = jq.secure.plus_states(NODES)
    for tests, name, honest, lying in (
        ("xy", "XY", 1 - float(source.x_error), 1.0),
        ("z", "Z", 1 - float(source.disagreement), 2.0 ** (2 - NODES)),
    ):
        key, axes_key, sample_key = jax.random.split(key, 3)
        axes, expected = draw_tests(axes_key, 100_000, NODES, tests)
        outcomes = jax.jit(sample)(sample_key, source, axes)
        yield f"product states, {name} tests passed", rate_of(~judge(outcomes, expected)), honest
        others = jnp.sum(outcomes[..., 1:].astype(int), axis=-1)
        # It makes the product right, or joins the others, whom it cannot bring to agree.
        make_right = (others + (expected == -1)) % 2
        said = jnp.where(expected == 0, outcomes[..., 1], make_right).astype(outcomes.dtype)
        told = outcomes.at[..., 0].set(said)
        yield f"  with a node that speaks last, {name}", rate_of(~judge(told, expected)), lying


# --- 5. Masks used twice --------------------------------------------------------------------------


def reused(levels, later, key):
    """Rows: fraction of the changes of a node's data that its messages of two steps give away."""
    change = np.asarray(later[VICTIM] - levels[VICTIM], np.int64) % 2**BITS
    keys = jax.random.split(key)
    first, second = (np.asarray(drawn(each)[VICTIM, 0], np.int64) for each in keys)
    one = np.asarray(levels[VICTIM], np.int64) + first
    for name, mask, rate in (
        ("masks used twice", first, 1.0),
        ("fresh masks", second, 2.0**-BITS),
    ):
        two = np.asarray(later[VICTIM], np.int64) + mask
        yield f"change of a gradient, {name}", rate_of((two - one) % 2**BITS == change), rate


def main():
    """Prints every row as soon as it is known."""
    weights = jnp.zeros((64, 10))
    now = gradients(weights)
    later = gradients(weights - 0.5 * jnp.mean(now, axis=0).reshape(64, 10))
    wire = jq.FixedPoint(BITS)
    step = wire.scale_of(jnp.max(jnp.abs(jnp.stack([now, later]))), NODES)
    levels, next_levels = (wire.encode(each, step, NODES) for each in (now, later))
    keys = jax.random.split(jax.random.key(0), 5)
    attacks = (
        ("neighbours", neighbours(levels, keys[0])),
        ("planted copy", planted(levels, keys[1])),
        ("purification", purified(keys[2])),
        ("last word", rushing(keys[3])),
        ("masks reused", reused(levels, next_levels, keys[4])),
    )
    row = "{:<14} {:<48} {:>10} {:>10}".format
    print(row("attack", "what the attacker gets", "measured", "predicted"))
    print("-" * len(row("", "", "", "")))
    for attack, rows in attacks:
        for what, measured, predicted in rows:
            print(row(attack, what, f"{measured:.6f}", f"{predicted:.6f}"))


if __name__ == "__main__":
    main()
