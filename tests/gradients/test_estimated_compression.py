"""Estimates of derivatives where one key makes several collectives of unlike size and width.

Judged by laws of sums that are enumerated here, and, where there are too many, by differences with
common random numbers. Statistical tests have fixed keys and hold means to 5.5 standard errors,
which fails with 4e-8 each.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring import FixedPoint, Ring, superdense, werner
from jaxqring.codec import Counts
from jaxqring.compress import (
    DGC,
    LQSGD,
    QSGD,
    DeMo,
    PowerSGD,
    RandomK,
    SignVote,
    TernGrad,
    TopK,
    compressed_pmean,
)
from jaxqring.gradients import expected, finite_difference
from jaxqring.ring import Hops

AXIS = "nodes"
KEY = jax.random.key(20260801)
KINDS = {"russo": {}, "every site": {"every_site": True}, "score": {"samples": 2}}
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def ring_of(fidelities, bits=16):
    return Ring(superdense(werner(fidelity=fidelities)), FixedPoint(bits))


def estimate(loss, ring, key, kind, **options):
    estimator = "score" if kind == "score" else "russo"
    return expected(loss, ring, key, estimator=estimator, **(KINDS[kind] | options))


def assert_mean(samples, truth, errors=5.5):
    samples = np.asarray(samples, np.float64)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - truth) < errors * error + 1e-5 * np.abs(truth)), (
        samples.mean(axis=0),
        error,
        truth,
    )


@functools.cache
def slopes_of(loss, hops, calls, kind):
    """Compiled: fidelities (N,), keys -> values and derivatives by each link, of each key."""

    def of_key(fidelities, key):
        def run(fidelities):
            return estimate(loss, ring_of(fidelities), key, kind, cost=hops, calls=calls)

        return jax.value_and_grad(run)(fidelities)

    return jax.jit(jax.vmap(of_key, in_axes=(None, 0)))


def slope_of(enumerated, fidelities):
    """(N,) derivatives of a polynomial by each fidelity."""
    shifts = 1e-5 * np.eye(len(fidelities))
    ends = [[enumerated(fidelities + s * d) for s in (1, -1)] for d in shifts]
    return np.array([(up - down) / 2e-5 for up, down in ends])


def judge(loss, hops, enumerated, fidelities, kind, count, calls=2):
    """Holds values and slopes against an enumeration."""
    run = slopes_of(loss, hops, calls, kind)
    values, slopes = run(jnp.asarray(fidelities, jnp.float32), jax.random.split(KEY, count))
    exact = slope_of(enumerated, np.asarray(fidelities))
    assert np.abs(exact).min() > 0.1
    assert_mean(values, enumerated(np.asarray(fidelities)))
    assert_mean(slopes, exact)


def judge_first_errors(loss, hops, enumerated, nodes, calls=2):
    """Holds slopes without noise, which are sums over all first errors, against an enumeration."""
    value, slope = slopes_of(loss, hops, calls, "every site")(jnp.ones(nodes), KEY[None])
    np.testing.assert_allclose(value[0], enumerated(np.ones(nodes)), rtol=1e-6)
    exact = slope_of(enumerated, np.ones(nodes))
    assert np.abs(exact).min() > 0.1
    np.testing.assert_allclose(slope[0], exact, rtol=1e-5)


def law(fidelity, bits):
    """(2^bits, 2^bits) probabilities of the level received, by the level sent, over one link."""
    matrix = np.full((4, 4), (1 - fidelity) / 3)
    np.fill_diagonal(matrix, fidelity)
    return functools.reduce(np.kron, [matrix] * (bits // 2))


def numbers(bits):
    """The level that each pattern of bits stands for."""
    half = 2 ** (bits - 1)
    return (np.arange(2**bits) + half) % 2**bits - half


# --- Two sums of unlike size and width from one key -----------------------------------------------

X = np.array([[3.0, 1.0, -2.0], [-2.0, 4.0, 5.0]])
HOPS = (Hops.of(1, 2, 4), Hops.of(3, 2, 6))


def one_product(ring, keys, order=(0, 1), x=X):
    """One value in four bits, then three that depend on its sum in six."""
    narrow, wide = ring.replace(wire=Counts(4)), ring.replace(wire=Counts(6))
    first, second = (jax.random.fold_in(keys[0], number) for number in order)

    def of_node(x):
        total = jq.psum(x[0], AXIS, ring=narrow, key=first)
        given = jnp.stack([total + x[1], 2 * total, x[2] - total])
        return jq.psum(given, AXIS, ring=wide, key=second)

    both = jax.vmap(of_node, axis_name=AXIS)(jnp.asarray(x, jnp.float32))
    return jnp.sum(both[0] * both[1])


def two_products(ring, keys):
    return one_product(ring, keys[:1]) / 10 - one_product(ring, keys[1:], x=-X) / 20


def enumerated_products(fidelities):
    values = numbers(4)
    narrow = [law(fidelity, 4) for fidelity in fidelities]
    wide, levels = [law(fidelity, 6) for fidelity in fidelities], numbers(6)

    def products(first):
        """(64, 64) means of the product of what both hold of a value, by both values put in."""
        start, back = wide[first], wide[1 - first]
        held = levels * (back.T @ levels)  # by what the second node holds
        shifts = (np.arange(64)[:, None] + np.arange(64)) % 64
        return start.T @ held[shifts].T  # [value of the first node, of the second]

    def product(x):
        # A node with the first value sends it, the other adds its own and sends the sum back.
        sums = np.roll(narrow[0][:, int(x[0, 0]) % 16], int(x[1, 0]))
        joint = narrow[1] * sums  # [of node 0, of node 1]
        given = [np.stack([values + row[1], 2 * values, row[2] - values]) for row in x]
        total = 0.0
        for value in range(3):
            # Two values in the part that node 0 sends first, and one in that of node 1.
            table = products(0) if value < 2 else products(1).T
            own, other = (each[value].astype(int) % 64 for each in given)
            total += np.sum(joint * table[np.ix_(own, other)])
        return total

    return product(X) / 10 - product(-X) / 20


@pytest.mark.parametrize(
    "kind, count", [("russo", 8000), further("every site", 150), further("score", 8000)]
)
def test_two_sums_from_one_key_have_the_derivatives_that_are_enumerated(kind, count):
    # 150 to 8,000 estimates of a value and two slopes.
    judge(two_products, HOPS, enumerated_products, [0.95, 0.9], kind, count)


def test_two_sums_from_one_key_have_the_first_errors_that_are_enumerated():
    judge_first_errors(two_products, HOPS, enumerated_products, 2)


def known(loss, cost):
    """True if an estimate is a number."""
    run = jax.jit(functools.partial(expected, loss, estimator="russo", cost=cost))
    return bool(jnp.isfinite(run(ring_of(0.9), KEY)))


def test_collectives_in_another_order_are_not_a_number():
    assert known(one_product, HOPS)
    assert not known(functools.partial(one_product, order=(1, 0)), HOPS)


@pytest.mark.parametrize("folds", [True, False])
def test_a_description_of_one_collective_draws_from_a_folded_key(folds):
    def loss(ring, keys):
        key = jax.random.fold_in(keys[0], 0) if folds else keys[0]
        add = functools.partial(jq.psum, axis_name=AXIS, ring=ring, key=key)
        return jnp.sum(jax.vmap(add, axis_name=AXIS)(jnp.ones(2)))

    assert known(loss, (Hops.of(1, 2, 16),)) == folds
    assert known(loss, ring_of(0.9).cost(1, 2)) != folds


def test_a_protected_collective_among_bare_ones_is_refused():
    def loss(ring, keys):
        return one_product(ring.replace(protection=jq.codes.secded()), keys)

    with pytest.raises(ValueError, match=r"^`ring\.protection` must be None in every call"):
        expected(loss, ring_of(0.9), KEY, estimator="russo", cost=HOPS)


# --- Steps of a compressor ------------------------------------------------------------------------

TREE = {"w": np.zeros((3, 2), np.float32), "b": np.zeros(2, np.float32)}


@functools.cache
def stepped(compressor, nodes, steps=1):
    """(ring, keys) -> a loss of gradient descent by the tree that a compressor delivers."""
    rng = np.random.default_rng(1)
    centre = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=(nodes, *x.shape)), jnp.float32), TREE
    )

    def loss(ring, keys):
        def of_node(centre):
            w = jax.tree.map(jnp.zeros_like, centre)
            state = compressor.init(w)
            for key in [keys[number] for number in range(steps)]:
                slope = jax.tree.map(jnp.subtract, w, centre)
                mean, state = compressed_pmean(
                    slope, state, AXIS, compressor=compressor, ring=ring, key=key
                )
                w = jax.tree.map(lambda w, g: w - g / 2, w, mean)
            return w

        w = jax.vmap(of_node, axis_name=AXIS)(centre)
        return sum(jnp.sum((w[name] - jnp.mean(centre[name], 0)) ** 2) for name in w)

    return loss


VOTE_HOPS = SignVote().hops(Ring(), np.zeros(1), 3)
START, GOAL = np.array([0.3, -0.4, 0.2]), np.array([1.0, 0.0, -0.9])


def voted(ring, keys):
    """Two steps of three nodes by the majority of their signs, one value each."""

    def of_node(w, goal):
        state = jnp.zeros(1)
        for key in (keys[0], keys[1]):
            mean, state = compressed_pmean(
                (w - goal)[None], state, AXIS, compressor=SignVote(), ring=ring, key=key
            )
            w = w - mean[0] / 2
        return w

    w = jax.vmap(of_node, axis_name=AXIS)(*(jnp.asarray(x, jnp.float32) for x in (START, GOAL)))
    return w[0] * w[1] + 2 * w[2] ** 2 + w[1]


def enumerated_votes(fidelities):
    links = [law(fidelity, 4) for fidelity in fidelities]
    sign = np.sign(numbers(4))

    def step(w):
        """(3, 3, 3) law of the vote that each of the nodes sees."""
        votes = np.sign(w - GOAL).astype(int)
        # From node 0 to 1 to 2, which has the sum, and on to nodes 0 and 1.
        sums = links[0][:, votes[0] % 16]
        sums = np.roll(links[1] @ np.roll(sums, votes[1]), votes[2])
        joint = np.einsum("a,ba,cb->bca", sums, links[2], links[0])
        seen = np.zeros((3, 3, 3))
        places = np.ix_(*[sign + 1] * 3)
        np.add.at(seen, np.broadcast_arrays(*places), joint)
        return seen

    total = 0.0
    for first in np.ndindex(3, 3, 3):
        chance = step(START)[first]
        w = START - (np.array(first) - 1) / 2
        after = step(w)
        for second in np.ndindex(3, 3, 3):
            u = w - (np.array(second) - 1) / 2
            total += chance * after[second] * (u[0] * u[1] + 2 * u[2] ** 2 + u[1])
    return total


@pytest.mark.parametrize(
    "kind, count", [further("russo", 8000), further("every site", 200), further("score", 8000)]
)
def test_votes_have_the_derivatives_that_are_enumerated(kind, count):
    # A step without a derivative of its own. 200 to 8,000 estimates of a value and three slopes.
    judge(voted, VOTE_HOPS, enumerated_votes, [0.95, 0.9, 0.85], kind, count)


def test_votes_have_the_first_errors_that_are_enumerated():
    assert (Hops(num_nodes=3, rounds=4, size=1, bits=4),) == VOTE_HOPS
    judge_first_errors(voted, VOTE_HOPS, enumerated_votes, 3)


@pytest.mark.parametrize("kind", ["russo", further("score")])
def test_low_rank_steps_have_the_derivatives_of_their_differences(kind):
    # Two steps of two unlike sums each. 200,000 runs of each, to 1.4 % together: 5.5 standard
    # errors, and a per cent for the width of the differences, which is a fifth of the error.
    compressor, nodes, steps, error, count = PowerSGD(rank=1), 2, 2, 0.05, 200_000
    loss = stepped(compressor, nodes, steps)
    hops = compressor.hops(ring_of(1.0, 8), TREE, nodes)
    assert [each.size for each in hops] == [3, 1]
    samples = KINDS[kind].get("samples", 1)

    @jax.jit
    def estimates(fidelity, keys):
        def of_key(key):
            def run(fidelity):
                options = {"cost": hops, "calls": steps}
                return estimate(loss, ring_of(fidelity, 8), key, kind, **options)

            return jax.grad(run)(fidelity)

        return jax.lax.map(of_key, keys, batch_size=2000)

    @jax.jit
    def differences(key):
        ends = (ring_of(1 - error - part * error / 10, 8) for part in (1, -1))
        options = {"samples": count, "calls": steps, "batch": 2000}
        return finite_difference(loss, *ends, error / 5, key, **options)

    found = estimates(jnp.float32(1 - error), jax.random.split(KEY, count // samples))
    both = [np.asarray(each, np.float64) for each in (found, differences(KEY))]
    means = [each.mean() for each in both]
    off = np.hypot(*(each.std(ddof=1) / np.sqrt(len(each)) for each in both))
    assert abs(means[1]) > 50 * off
    assert abs(means[0] - means[1]) < 5.5 * off + 0.01 * abs(means[1])


COMPRESSORS = {
    "power": PowerSGD(rank=1),
    "power, shared": PowerSGD(rank=1, warm_start=False, share_factors=True, bits=5),
    "lq, gather": LQSGD(rank=1, bits=7),
    "lq, hop": LQSGD(rank=1, reduce="hop"),
    "lq, sum": LQSGD(rank=1, bits=4, reduce="sum"),
    "top": TopK(0.3, bits=6),
    "dgc": DGC(0.3, bits=6, clip=1.0),
    "random": RandomK(0.5),
    "tern": TernGrad(),
    "qsgd": QSGD(),
    "vote": SignVote(),
    "demo": DeMo(k=2, bits=6),
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_the_hops_of_a_compressor_are_those_that_it_makes(name):
    compressor, ring = COMPRESSORS[name], ring_of(0.9)
    hops = compressor.hops(ring, TREE, 3)
    cost = compressor.cost(ring, TREE, 3)
    assert sum(each.rounds * each.symbols for each in hops) == cost.symbols
    run = functools.partial(expected, stepped(compressor, 3), estimator="russo", cost=hops)
    jax.eval_shape(run, ring, KEY)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["top", "lq, hop", "lq, gather", "demo", "tern"])
def test_every_collective_of_a_step_is_known(name):
    compressor, ring = COMPRESSORS[name], ring_of(0.9)
    for estimator in ("russo", "score"):
        options = {"estimator": estimator, "samples": 2, "cost": compressor.hops(ring, TREE, 2)}
        run = functools.partial(expected, stepped(compressor, 2), key=KEY, **options)
        value, slope = jax.jit(jax.value_and_grad(lambda f, run=run: run(ring_of(f))))(0.9)
        assert np.isfinite([value, slope]).all()


@pytest.mark.parametrize("estimator", ["mean", "gaussian", "exact"])
@pytest.mark.parametrize("name", ["vote", "demo", "top", "dgc"])
def test_a_step_without_a_derivative_is_refused(name, estimator):
    loss = stepped(COMPRESSORS[name], 2)

    def run(fidelity):
        return expected(loss, ring_of(fidelity, 12), KEY, estimator=estimator)

    with pytest.raises(ValueError, match=r'"score" or "russo".*finite.*differences'):
        jax.eval_shape(jax.grad(run), 0.9)
    jax.eval_shape(run, 0.9)


@pytest.mark.parametrize("estimator", ["gaussian", further("mean"), further("exact")])
@pytest.mark.parametrize("name", ["power", further("tern"), further("lq, gather")])
def test_a_step_with_a_derivative_needs_no_description(name, estimator):
    loss = stepped(COMPRESSORS[name], 2)

    def run(fidelity):
        return expected(loss, ring_of(fidelity, 12), KEY, estimator=estimator)

    value, slope = jax.jit(jax.value_and_grad(run))(0.95)
    assert np.isfinite([value, slope]).all()
    assert slope != 0
