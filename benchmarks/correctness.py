"""The checks of an accelerator that hold or fail: physics, bits and exactness.

Each is a row of the table of `benchmarks/accelerator.py`: a name, what was found, five cells that
belong to times, what it should be, and a verdict.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

import jaxqring as jq
from jaxqring.link._transport import count_symbol_errors
from jaxqring.qmodels import Circuit

NODES = 8
PROTECTION = jq.Retransmit(jq.reed_solomon(255, 223))
Row = list


def checked(name: str, holds: bool, found: str, goal: str) -> Row:
    """A row for something that must hold."""
    return [name, found, *"-----", goal, "holds" if holds else "FAILS"]


def near(name: str, gap: float, limit: float) -> Row:
    """A largest difference that must stay below a limit."""
    return checked(name, bool(gap < limit), f"{gap:.2g}", f"below {limit:g}")


def alike(name: str, here: np.ndarray, there: np.ndarray) -> Row:
    """Bits that must be the same."""
    differ = np.sum(here.view(np.uint32) != there.view(np.uint32))
    return checked(name, differ == 0, f"{differ} of {here.size} differ", "none")


def on(device: jax.Device, function: Callable, *arguments):
    """The result of a function on a device, in NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(function)(*jax.device_put(arguments, device)))


def here_and_there(function: Callable, *arguments):
    """The results on the accelerator and on the CPU."""
    return [on(jax.devices(where)[0], function, *arguments) for where in (None, "cpu")]


def bare(error: float, **fields) -> jq.Ring:
    """A ring of Werner links with this symbol error."""
    return jq.Ring(jq.superdense(jq.werner(fidelity=1 - error)), **fields)


def average(values: jax.Array, ring: jq.Ring, key: jax.Array, pmean: Callable = jq.pmean):
    """The mean of the rows on one device: under vmap, or by `nodes_per_device` of the ring."""
    one = values[None] if ring.nodes_per_device > 1 else values
    return jax.vmap(lambda x: pmean(x, "nodes", ring=ring, key=key), axis_name="nodes")(one)


with_report = functools.partial(average, pmean=functools.partial(jq.pmean, with_report=True))


def physics(toy: bool) -> Iterator[Row]:
    """Physics beside closed forms and beside the CPU: products in float32, and not in less."""
    fidelities = np.linspace(0.9, 0.99999, 1000, dtype=np.float32)

    def computed(f):
        pair = jq.werner(fidelity=f)
        link = jq.superdense(pair)
        damped = jq.superdense(jq.werner(fidelity=1.0), sent=jq.amplitude_damping(gamma=1 - f))
        distilled, chance = jq.distill(pair, pair)
        angles = {"layers": jnp.full((2, 1, 4), f), "last": jnp.zeros((0, 4))}
        return (
            link.transition[1, 0],
            link.capacity(),
            damped.transition[0, 0],
            jq.swap(pair, pair).fidelity,
            distilled.fidelity,
            chance,
            Circuit(4, 2, ("ry",)).state(angles)[0].real,
        )

    f = fidelities.astype(np.float64)
    wrong = (1 - f) / 3
    success = f**2 + 2 * f * wrong + 5 * wrong**2
    closed = {
        "Werner links, (1 - F) / 3": (wrong, 2e-7),
        "their capacity": (2 + f * np.log2(f) + (1 - f) * np.log2(wrong), 2e-6),
        "damped links, (1 + sqrt(1 - gamma))^2 / 4": ((1 + np.sqrt(f)) ** 2 / 4, 1e-6),
        "swapped pairs": (f**2 + (1 - f) * wrong, 1e-6),
        "distilled pairs": ((f**2 + wrong**2) / success, 1e-6),
        "chance of distilling": (success, 1e-6),
        "a circuit of rotations, cos(t)^4": (np.cos(f) ** 4, 1e-6),
    }
    found = on(jax.devices()[0], jax.vmap(computed), fidelities)
    for (name, (exact, limit)), values in zip(closed.items(), found, strict=True):
        yield near(name, np.abs(values - exact).max(), limit)

    def noisy(f):
        link = jq.superdense(
            jq.werner(fidelity=f),
            before=jq.thermal_relaxation(t1=1.0, t2=0.7, time=1e-3),
            sent=jq.amplitude_damping(gamma=1 - f),
            kept=jq.dephasing(error_prob=1e-3),
            gate_error=1e-3,
            readout_error=2e-3,
            survival=0.99,
            heralded=True,
        )
        return link.transition, link.capacity()

    pairs = zip(*here_and_there(jax.vmap(noisy), fidelities), strict=True)
    gap = max(np.abs(one - other).max() for one, other in pairs)
    yield near("heralded links with every noise, from the CPU's", gap, 2e-6)
    yield from slopes()


def slopes() -> Iterator[Row]:
    """Derivatives with respect to a fidelity, beside those of the CPU."""
    values = np.random.default_rng(0).normal(size=(NODES, 256)).astype(np.float32)
    for estimator, bits in (("mean", 16), ("exact", 8)):

        def loss(f, estimator=estimator, bits=bits):
            def run(ring, keys):
                return jnp.mean(average(values, ring, keys[0]) ** 2)

            ring = bare(1 - f, wire=jq.FixedPoint(bits), sampler="dense")
            return jq.expected(run, ring, jax.random.key(3), estimator=estimator, samples=2)

        here, there = here_and_there(jax.grad(loss), np.float32(0.999))
        gap = float(abs(here - there) / abs(there))
        yield near(f"slope in F by {estimator}, from the CPU's, relative", gap, 1e-4)


def bits(toy: bool) -> Iterator[Row]:
    """The same key and the same links here and on the CPU: errors alike, bit for bit."""
    size = 2**12 if toy else 2**18
    words = np.random.default_rng(1).integers(0, 2**32, size, dtype=np.uint32)

    def dense(words, link, sampler="dense"):
        return jq.transmit(words, link, jax.random.key(7), sampler=sampler)

    sparse = functools.partial(dense, sampler="sparse")
    for error in (1e-3, 0.02, 0.3):
        here, there = here_and_there(dense, words, bare(error).channel)
        yield alike(f"dense transmit, error {error:g}", here, there)
        count = int(count_symbol_errors(here ^ words).sum())
        mean = 16 * size * error
        gap = abs(count - mean) / (mean * (1 - error)) ** 0.5
        yield near(f"its {count} errors: sigmas from the mean", gap, 6)
        here, there = here_and_there(sparse, words, bare(error).channel)
        yield [*alike(f"sparse transmit, error {error:g}", here, there)[:-2], "-", "-"]
    ring, key = bare(1e-2, sampler="dense"), jax.random.key(5)
    (here, told), (there, other) = here_and_there(with_report, some_values(toy), ring, key)
    counts = told.errors_per_link, other.errors_per_link
    yield alike("pmean, error 0.01: errors of each link", *counts)
    # A scale may differ in its last bit.
    yield [*alike("pmean, error 0.01: results", here, there)[:-2], "-", "-"]


def some_values(toy: bool) -> np.ndarray:
    size = 2_000 if toy else 100_003
    return np.random.default_rng(2).normal(size=(NODES, size)).astype(np.float32)


def exactness(toy: bool) -> Iterator[Row]:
    """Exact results without noise and with protection, and as much noise as there should be."""
    values = some_values(toy)
    key, device = jax.random.key(5), jax.devices()[0]
    off = on(device, average, values, jq.Ring(noise="off"), key)
    yield alike("noise off: replicas", off, np.broadcast_to(off[0], off.shape))
    gap = np.abs(off[0] - values.mean(axis=0, dtype=np.float64)).max() / np.abs(values).max()
    yield near("noise off: from the mean, of the largest value", gap, 2.0**-11)
    safe, report = on(device, with_report, values, bare(1e-2, protection=PROTECTION), key)
    resent = int(report.retransmissions_per_link[0].sum())
    yield alike(f"protected, {resent} retransmissions: noise off", safe, off)
    noisy, report = on(device, with_report, values, bare(1e-2), key)
    symbols = report.num_links * report.symbols_per_link
    gap = abs(float(report.errors_per_link[0].sum()) - symbols / 100) / (symbols * 0.0099) ** 0.5
    yield near("bare: errors, sigmas from the mean", gap, 6)
    again = on(device, average, values, bare(1e-2), key)
    yield alike("bare: the same call again", again, noisy)
    several = on(device, average, values, bare(1e-2, nodes_per_device=NODES), key)[0]
    yield alike("bare: all nodes of a device, not under vmap", several, noisy)
    few, source = values[:, :500], jq.GHZSource(NODES)
    masking = {"source": source, "security": jq.secure.plan(1e-6, 500, steps=1, source=source)}
    secure = functools.partial(average, pmean=functools.partial(jq.secure_pmean, **masking))
    masked, plain = (on(device, f, few, jq.Ring(noise="off"), key) for f in (secure, average))
    yield alike("masked: noise off", masked, plain)
