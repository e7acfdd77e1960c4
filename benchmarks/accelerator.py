"""The library on an accelerator: is it right there, and how far are its figures from their bounds.

For a borrowed machine. It takes five minutes at most, from the root of a checkout, and needs JAX,
Flax, Optax, chex, NumPy and SciPy alone:

    PYTHONPATH=. python3 benchmarks/accelerator.py
    PYTHONPATH=. python3 benchmarks/accelerator.py --toy  # on a CPU: small sizes, no goal is judged

Sections go in the order of their importance, and the JSON is written after each. A section that
breaks is told, and the others go on. No row is begun after `--seconds`; those left out are told.

"x copy" is a time in units of moving the bytes that the work has to move, at the speed of a copy;
"x threefry" in units of making the random words that the dense sampler takes; "x peer" in units of
the peer that the title of the section names. "first, s" is a first call, tracing and compiling
included. Bits are demanded where they are promised, of the errors that the dense sampler draws;
what the sparse one draws is told without a verdict.
"""

import argparse
import functools
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from correctness import NODES, PROTECTION, Row, average, bare, bits, exactness, physics
from flax.training.train_state import TrainState
from jax import lax
from timing import parser, show, write

import jaxqring as jq
from jaxqring._threefry import cipher_key, threefry
from jaxqring.sweeps._memory import free_bytes
from jaxqring.sweeps._points import points_of
from jaxqring.sweeps._sweep import _plan, _trace
from jaxqring.train._models import CNN
from jaxqring.train._step import node_step, over_nodes
from jaxqring.train._task import DataConfig, TaskConfig, training
from jaxqring.train._updates import averaged

SWEEP = Path(__file__).parent.parent / "configs" / "sweep_fidelity.toml"
RATIOS = ["x copy", "x threefry", "x peer"]
COLUMNS = ["check", "found", "unit", "first, s", *RATIOS, "goal", "verdict"]
#: Seconds after which a call is not timed again.
LONG = 2.0
#: Of the first call and of a later one.
Times = tuple[float, float]


class Session:
    """The sizes, the time that is left, and the bounds that were measured so far.

    Attributes:
      copy: bytes/s that a copy reads and writes; 0 before it is measured.
      threefry: random words/s that are consumed at once; 0 before it is measured.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.toy, self.repeats, self.folder = options.toy, options.repeats, options.folder
        self.end = time.perf_counter() + options.seconds
        self.copy = self.threefry = 0.0

    def left(self) -> float:
        """Seconds."""
        return self.end - time.perf_counter()

    def times(self, run: Callable, *arguments) -> Times:
        """Seconds of the first call, and of one after it: the median over `repeats` rows of calls.

        Short calls are timed in rows, so that the host gives orders while the device works.
        """
        first, once = _seconds(run, arguments), _seconds(run, arguments)
        row = max(1, min(20, int(0.01 / once)))
        seen = [once]
        while len(seen) <= self.repeats and sum(seen) * row < LONG:
            seen.append(_seconds(run, arguments, row) / row)
        return first, float(np.median(seen[1:] or seen))

    def row(self, name, times, *, count=0, unit="ms", moved=0, words=0, peer=0.0, goal=None) -> Row:
        """A figure beside its bounds: symbols and the like a second for a `count`, or a time."""
        first, seconds = times
        found = count / seconds if count else seconds * {"ms": 1e3, "s": 1.0}[unit]
        ratios = [
            seconds * self.copy / moved if self.copy and moved else "-",
            seconds * self.threefry / words if self.threefry and words else "-",
            seconds / peer if peer else "-",
        ]
        if goal is None:
            return [name, found, unit, first, *ratios, "-", "-"]
        met = found >= goal if count else found <= goal
        told = f"{goal:g} or {'more' if count else 'less'}"
        verdict = "-" if self.toy else "met" if met else "MISSED"
        return [name, found, unit, first, *ratios, told, verdict]


def _seconds(run, arguments, row=1):
    start = time.perf_counter()
    for _ in range(row):
        last = run(*arguments)
    jax.block_until_ready(last)
    return time.perf_counter() - start


def ceilings(session: Session) -> Iterator[Row]:
    """The bounds: a copy, and Threefry whose words are consumed at once."""
    size = 2**18 if session.toy else 2**28
    values = jnp.arange(size, dtype=jnp.float32)
    times = session.times(jax.jit(lambda x: x + 1), values)
    session.copy = 8 * size / times[1]
    yield session.row("copy, read and written", times, count=8 * size, unit="bytes/s")
    del values

    @jax.jit
    def consumed(key):
        position = lax.iota(jnp.uint32, size)
        total = jnp.uint32(0)
        for stream in range(4):
            first, second = threefry(cipher_key(key), (position, jnp.full_like(position, stream)))
            total ^= lax.reduce(first ^ second, np.uint32(0), lax.bitwise_xor, (0,))
        return total

    times = session.times(consumed, jax.random.key(0))
    session.threefry = 8 * size / times[1]
    yield session.row("Threefry, consumed", times, count=8 * size, unit="words/s")


def transport(session: Session) -> Iterator[Row]:
    """One link; peer: a mask of `jax.random.bernoulli`."""
    size = 2**13 if session.toy else 2**24
    words, key = jax.random.bits(jax.random.key(3), (size,)), jax.random.key(0)

    @jax.jit
    def masked(words, key, error):
        hit_key, kind_key = jax.random.split(key)
        hit = jax.random.bernoulli(hit_key, error, (*words.shape, 16))
        kind = jax.random.randint(kind_key, hit.shape, 1, 4).astype(jnp.uint32)
        shifts = 2 * lax.iota(jnp.uint32, 16)
        return words ^ jnp.sum(jnp.where(hit, kind, 0) << shifts, axis=-1, dtype=jnp.uint32)

    of = {"count": 16 * size, "unit": "symbols/s", "moved": 8 * size, "words": 16 * size}
    some = words[: size // 16]  # sixteen words of mask for each of its own
    times = session.times(masked, some, key, 1e-2)
    mask = 16 * times[1]
    less = {name: each if name == "unit" else each // 16 for name, each in of.items()}
    yield session.row("mask, error 0.01", times, **less)
    for sampler, errors in (
        ("auto", (1e-4, 1e-3, 1e-2, 0.04, 0.3)),
        ("sparse", (1e-4, 1e-2)),
    ):
        send = jax.jit(functools.partial(jq.transmit, sampler=sampler))
        goal = 2e11 if sampler == "auto" else None
        for error in errors:
            times = session.times(send, words, bare(error).channel, key)
            yield session.row(f"{sampler}, error {error:g}", times, peer=mask, goal=goal, **of)


def frames(session: Session) -> Iterator[Row]:
    """cuStabilizer, 64 links in 2^22 shots of its frame simulator; where cuquantum-python is."""
    try:
        from cuquantum.stabilizer import Circuit as FrameCircuit
        from cuquantum.stabilizer import FrameSimulator
    except ImportError:
        yield ["cuStabilizer", "not installed", *"-------"]
        return
    links, shots = 64, 2**22
    sent = " ".join(str(2 * link) for link in range(links))
    both = " ".join(f"{2 * link} {2 * link + 1}" for link in range(links))
    for error in (1e-3, 0.04, 0.3):
        # Reset, so that a call begins without the errors of the last one.
        circuit = FrameCircuit(
            f"R {both}\nDEPOLARIZE1({error}) {sent}\nCNOT {both}\nH {sent}\nM {both}\n"
        )
        simulator = FrameSimulator.from_circuit(
            circuit, shots, randomize_measurements=False, package="cupy", seed=0
        )

        def run(circuit=circuit, simulator=simulator):
            simulator.apply(circuit)  # and waits; the bits stay packed on the device
            simulator.get_measurement_bits()

        count = links * shots
        times = session.times(run)
        yield session.row(f"cuStabilizer, error {error:g}", times, count=count, unit="symbols/s")


def all_reduces(session: Session) -> Iterator[Row]:
    """`pmean`, eight nodes on one device; peer: `lax.pmean`."""
    key = jax.random.key(1)
    classical = jax.jit(lambda v: jax.vmap(lambda x: lax.pmean(x, "nodes"), axis_name="nodes")(v))
    ours = jax.jit(average)
    slowest = 0.0
    goals = {10_000_000: (1.0, 3.0, 6.0), 100_000_000: (10.0, 12.0, 50.0)}
    for size in (4_000,) if session.toy else goals:
        values = jax.jit(lambda k, size=size: jax.random.normal(k, (NODES, size)))(key)
        off, protected, noisy = goals.get(size, (None,) * 3)
        times = session.times(classical, values)
        peer = times[1]
        yield session.row(f"{size:.0e} lax.pmean", times, moved=8 * NODES * size)
        rings = [
            ("noise off", jq.Ring(noise="off", nodes_per_device=NODES), off),
            (
                "error 1e-2, protected",
                bare(1e-2, protection=PROTECTION, nodes_per_device=NODES),
                protected,
            ),
            *((f"error {e:g}", bare(e, nodes_per_device=NODES), noisy) for e in (1e-4, 1e-2, 0.3)),
        ]
        if size < 1e8:  # which copies more
            rings += [
                ("noise off, vmap", jq.Ring(noise="off"), off),
                ("error 1e-2, vmap", bare(1e-2), noisy),
            ]
        for name, ring, goal in rings:
            times = session.times(ours, values, ring, key)
            slowest = max(slowest, times[0])
            words = 112 * size if name.startswith("error") and not ring.protection else 0
            of = {"moved": 145 * size, "words": words, "peer": peer, "goal": goal}
            yield session.row(f"{size:.0e} {name}", times, **of)
        del values
    yield session.row("slowest first call of pmean", (slowest, slowest), unit="s", goal=10.0)
    if peak := (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"):
        rest = ["-", "-", "-", peak / (4 * NODES * size), "-", "-"]
        yield [f"{size:.0e} memory at its peak; x the values", peak / 1e9, "GB", *rest]


def step(session: Session) -> Iterator[Row]:
    """A training step of the demo's model, 20,746 parameters; peer: the classical step."""
    rng = np.random.default_rng(4)
    count = 2 if session.toy else 32
    images = rng.random((NODES, count, 28, 28, 1), dtype=np.float32)
    labels = rng.integers(0, 10, (NODES, count), dtype=np.int32)
    model = CNN()
    params = model.init(jax.random.key(0), images[0])["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(4e-3))
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (NODES, *jnp.shape(leaf))), state)
    arguments = jax.device_put(
        (state, (images, labels), jax.random.key(0), np.int32(0)), jax.devices()[0]
    )
    peer = 0.0
    for name, ring, goal in (
        ("classical", None, None),
        ("error 1e-2", bare(1e-2), 2.0),
        ("noise off", jq.Ring(noise="off"), None),
        ("error 1e-2, protected", bare(1e-2, protection=PROTECTION), None),
    ):
        run = over_nodes(node_step(averaged(ring)), "vmap", jax.devices()[:1], shared=(2, 3))
        times = session.times(run, *arguments)
        peer = peer or times[1]
        yield session.row(f"step, {name}", times, peer=peer, goal=goal)


def sweep(session: Session) -> Iterator[Row]:
    """The sweep of `configs/sweep_fidelity.toml` on images of noise, after compilation."""
    config = tomllib.loads(SWEEP.read_text())
    points = points_of(config["grid"], config["seeds"])
    lengths = [10, config["task"]["steps"]]
    if session.toy:
        points, lengths = points_of({"fidelity": [0.9, 0.99]}, 1), [2]
    rng = np.random.default_rng(5)
    session.folder.mkdir(parents=True, exist_ok=True)
    path = session.folder / "noise.npz"
    arrays = {}
    for split, count in (("train", 4000), ("test", 1000)):
        count = 40 if session.toy else count
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"y_{split}"] = rng.permutation(np.arange(count) % 10)
    np.savez(path, **arrays)
    devices = jax.devices()[:1]
    batch = 1 if devices[0].platform == "cpu" else None
    values = np.array([points.setting(i)["fidelity"] for i in range(len(points))], np.float32)
    seeds = np.array([points.seed(i) for i in range(len(points))], np.uint32)
    expected = 0.0
    for steps in lengths:
        if expected > session.left():
            needed = f"{expected:.0f} s, not taken"
            yield [f"{len(points)} trainings of {steps} steps", needed, *"-------"]
            return
        task = TaskConfig(DataConfig("npz", str(path)), nodes=NODES, steps=steps)

        def train(setting, key, task=task):
            keys = jax.random.split(key, task.steps)
            return training(task)(bare(1 - setting["fidelity"]), keys)

        start = time.perf_counter()
        traced = _trace(train, points, list(range(len(points))))
        plan = _plan(traced, devices, len(points), len(points), batch, free_bytes(devices))
        made = time.perf_counter() - start
        first, later = session.times(plan.evaluate, [values], seeds)
        times = made + first, later
        goal = 10.0 if steps == config["task"]["steps"] else None
        name = f"{len(points)} trainings of {steps} steps, {plan.batch} at once"
        yield session.row(name, times, unit="s", goal=goal)
        expected = times[0] + 2 * times[1] * lengths[-1] / steps


CHECKS = (physics, bits, exactness)
TIMINGS = (ceilings, transport, frames, all_reduces, step, sweep)


def main() -> int:
    options = parser(__doc__)
    names = [section.__name__ for section in (*CHECKS, *TIMINGS)]
    options.add_argument("--seconds", type=float, default=280, help="then the rest is skipped")
    options.add_argument("--toy", action="store_true", help="small sizes, for a CPU")
    options.add_argument("--only", nargs="+", choices=names, default=names, help="sections")
    options = options.parse_args()
    session = Session(options)
    sections = [(each, each(options.toy)) for each in CHECKS]
    sections += [(each, each(session)) for each in TIMINGS]
    rows, skipped, errors = [], [], {}
    for section, its_rows in sections:
        name = section.__name__
        if name not in options.only:
            continue
        found, finished, error = run(its_rows, session)
        if error:
            errors[name] = error
        elif not finished:
            skipped.append(f"{name} after {len(found)} rows")
        rows += found
        tell(f"{name}, {session.left():.0f} s left. {section.__doc__}", found)
        write("accelerator", COLUMNS, rows, options, skipped=skipped, errors=errors)
    failed = [row[0] for row in rows if row[-1] == "FAILS"]
    missed = [row[0] for row in rows if row[-1] == "MISSED"]
    for what, those in (("failed", failed), ("missed", missed), ("skipped", skipped)):
        print(f"{what}: {', '.join(those) or 'nothing'}")
    for name, error in errors.items():
        print(f"error in {name}: {error}")
    return 1 if failed or errors else 0


def run(section: Iterator[Row], session: Session) -> tuple[list[Row], bool, str]:
    """The rows of a section that there is time for, whether they are all, and what ended it."""
    found: list[Row] = []
    try:
        while session.left() > 0:
            row = next(section, None)
            if row is None:
                return found, True, ""
            found.append(row)
    except Exception as error:  # the other sections go on
        return found, False, f"{type(error).__name__}: {error}"[:800]
    return found, False, ""


def tell(title: str, rows: list[Row]) -> None:
    """Prints the rows of a section, without the columns that none of them fills."""
    kept = [i for i in range(len(COLUMNS)) if i == 0 or any(row[i] != "-" for row in rows)]
    print(f"\n{title}", flush=True)
    if rows:
        show(None, [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows])


if __name__ == "__main__":
    sys.exit(main())
