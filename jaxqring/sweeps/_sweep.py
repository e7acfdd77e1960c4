"""Sweeps: one pure training at many settings and seeds, compiled once and resumable."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.sharding import Mesh, PartitionSpec

from jaxqring import _checks as checks
from jaxqring._progress import progress_bars
from jaxqring.sweeps._memory import free_bytes, needed_bytes
from jaxqring.sweeps._points import Found, Grid, Points, points_of, table_of
from jaxqring.sweeps._points_folder import PointsFolder
from jaxqring.sweeps._tidy_table import Table

if TYPE_CHECKING:
    from rich.console import Console

AXIS = "sweep"

#: Points in a row on a device before they are written, where they are few enough to be lost.
IN_A_ROW = 4


def sweep(
    train_fn: Callable[[dict[str, Any], jax.Array], Mapping[str, jax.Array]],
    grid: Grid,
    seeds: int | Sequence[int],
    *,
    static: Sequence[str] = (),
    folder: str | Path | None = None,
    devices: Sequence[jax.Device] | None = None,
    chunk: int | None = None,
    batch: int | None = None,
    memory: int | None = None,
    about: Any = None,
    shard: tuple[int, int] = (1, 1),
    merge: bool = False,
    console: "Console | None" = None,
) -> Table:
    """Evaluates a function at every setting of a grid, with every seed.

    The function is traced once, and compiled once, for each combination of static values. The
    points of a chunk are spread over the devices, and on each device taken one after another, or
    `batch` at a time. With `batch` = 1 the outcomes of a point are, bit for bit, those of the
    compiled function on its own, whatever else is in the sweep.

    With a folder, each finished chunk is appended to `points.jsonl` and is on disk before the
    next one starts. A sweep that was cut off goes on from there when it is called again, even
    after a crash, and its `results.csv` is that of one that was not. A change of `train_fn` cannot
    be noticed: say in `about` what it depends on.

    Several processes share a sweep by `shard`, on one host or on any that see the folder. They need
    not know of each other: each may come and go as it likes, and the one that finds every point
    done at its end writes `results.csv`. With `batch` = 1 its bytes are those of one process.

    Args:
      train_fn: `train_fn(setting, key) -> outcomes`, pure. `setting` has a () float32 for each
        name, or the value itself if the name is static; `key` is `jax.random.key(seed)`;
        outcomes are a dict of () real arrays.
      grid: values by name, for all their combinations; or a sequence of settings, each a dict.
      seeds: their number, counted from 0; or the seeds themselves, distinct integers in [0, 2^32).
      static: names whose values are concrete when tracing; they must be hashable.
      folder: for the results; None for no files.
      devices: to spread the points over; all local ones by default.
      chunk: points of one call, a multiple of devices times `batch`; by default a few for each
        device.
      batch: points that a device works on at once. By default 1 on CPU, where more are slower,
        and elsewhere as many as fit the memory, judged by a program of single points. A ring with
        the dense sampler delivers the same bits at every batch; sums that `train_fn` takes itself
        may come in another order in a batch, and then the last bits of an outcome depend on it.
      memory: bytes that a device may use for the sweep; by default half of the free ones. The
        need of a program is XLA's count and its constants, known before anything runs.
      about: whatever else tells this sweep from others, as JSON, stored in the folder.
      shard: (k, n) for the k-th of n shares of the points, counted from 1: every n-th, less those
        that are done already, under whatever split.
      merge: computes nothing, and writes `results.csv` from the points of all shards.
      console: that shows progress; None for silence.

    Returns:
      A tidy `Table`: a column (points,) for each parameter, "seed" and each outcome, with settings
      outermost in the order given. For a shard, it has no rows while points of others are missing.

    Raises:
      TypeError: if a value of the grid or an outcome is not a real number.
      ValueError: if there is nothing to do, the folder holds another sweep or a point twice,
        `chunk` and `batch` do not fit the devices, or one point does not fit the memory; for a
        shard, if there is no such share, no folder, or another process works on it; for a merge,
        if points are missing.

    >>> def parabola(setting, key):
    ...     return {"height": setting["x"] ** 2 + 0 * jax.random.normal(key)}
    >>> sweep(parabola, {"x": [0.0, 0.5]}, seeds=2)["height"]
    array([0.  , 0.  , 0.25, 0.25], dtype=float32)
    """
    points = points_of(grid, seeds, static)
    own = points.share(*shard)
    if folder is None and (merge or len(own) < len(points)):
        checks.refuse("folder", "be given for a shard or a merge", folder)
    if merge:
        return _merged(PointsFolder(folder, points, about), points)
    chosen = list(jax.local_devices() if devices is None else devices)
    if not chosen:
        checks.refuse("devices", "hold at least one device", devices)
    platform = chosen[0].platform
    batch = 1 if batch is None and platform == "cpu" else batch
    _check_counts(len(chosen), chunk, batch, memory)
    with contextlib.closing(PointsFolder(folder, points, about, platform, shard)) as store:
        found = store.read()
        missing = [point for point in own if point not in found]
        if missing:
            store.hold()
        traces = [_trace(train_fn, points, group) for group in points.groups(missing)]
        kinds = _same_kinds([traced.kinds for traced in traces], store.kinds)
        # Of all points with their static values in common: every call of a sweep has the same.
        largest = max(map(len, points.groups(range(len(points)))))
        per_device = -(-largest // len(chosen))
        free = free_bytes(chosen) if memory is None else memory
        works = [_plan(traced, chosen, per_device, chunk, batch, free) for traced in traces]
        if missing:
            store.begin(kinds)
        with progress_bars(console) as bar:
            done = len(own) - len(missing)  # in earlier runs, too
            advance = bar("points", total=len(own), done=done)
            for work in works:
                for outcomes in _chunks(work, points):
                    store.append(outcomes)
                    found |= outcomes
                    advance(len(outcomes))
        found |= store.read()  # of other shards, meanwhile
        whole = len(found) == len(points)
        table = table_of(points, found if whole else {}, kinds)
        if whole:
            store.finish(table)
        return table


def _merged(store: PointsFolder, points: Points) -> Table:
    """The table of a sweep whose points are all there."""
    found = store.read()
    missing = [point for point in range(len(points)) if point not in found]
    if missing:
        first = store.in_words(missing[0])
        got = f"{store.path} without {len(missing)} of {len(points)}, the first {first}"
        checks.refuse("folder", "hold every point of the sweep", got)
    assert store.kinds is not None  # as there are points
    table = table_of(points, found, store.kinds)
    store.finish(table)
    return table


@dataclasses.dataclass(frozen=True)
class _Traced:
    """A function of traced values and a seed, and the points that it evaluates."""

    jaxpr: core.ClosedJaxpr
    names: list[str]
    kinds: dict[str, str]
    points: list[int]

    @property
    def constants(self) -> int:
        """The bytes of arrays that the function holds, which XLA keeps beside what it counts."""
        return sum(constant.nbytes for constant in self.jaxpr.consts)


@dataclasses.dataclass(frozen=True)
class _Work:
    """The points of one trace, and the program that evaluates a chunk of them.

    Attributes:
      traced: the points.
      batch: points that a device works on at once.
      chunk: points of a call.
      evaluate: the program, of values and seeds (chunk,).
    """

    traced: _Traced
    batch: int
    chunk: int
    evaluate: jax.stages.Compiled

    @property
    def needed(self) -> int | None:
        """The bytes that it needs on each device; None where the backend does not count."""
        counted = needed_bytes(self.evaluate)
        return None if counted is None else counted + self.traced.constants


def _check_counts(devices: int, chunk: int | None, batch: int | None, memory: int | None) -> None:
    for name, value in (("chunk", chunk), ("batch", batch), ("memory", memory)):
        if value is not None:
            checks.integer(name, value)
    unit = devices * (batch or 1)
    if chunk is not None and chunk % unit:
        checks.refuse("chunk", f"be a multiple of {unit}, devices times `batch`", chunk)


def _trace(train_fn: Callable, points: Points, group: list[int]) -> _Traced:
    """Traces the function, once, for points that have their static values in common."""
    fixed = points.setting(group[0])
    names = [name for name in points.names if name not in points.static]

    def point(values: list[jax.Array], seed: jax.Array) -> dict[str, jax.Array]:
        setting = fixed | dict(zip(names, values, strict=True))
        outcomes = train_fn(setting, jax.random.key(seed))
        _check_outcomes(outcomes, points.names)
        return {name: jnp.asarray(value) for name, value in outcomes.items()}

    scalars = [jax.ShapeDtypeStruct((), jnp.float32) for _ in names]
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    jaxpr, shapes = jax.make_jaxpr(point, return_shape=True)(scalars, seed)
    kinds = {name: shape.dtype.name for name, shape in shapes.items()}
    return _Traced(jaxpr, names, kinds, group)


def _check_outcomes(outcomes: Any, names: Sequence[str]) -> None:
    if not isinstance(outcomes, Mapping) or not outcomes:
        checks.refuse("train_fn", "return a dict of outcomes", type(outcomes).__name__, TypeError)
    for name, value in outcomes.items():
        if not isinstance(name, str) or name in (*names, "seed"):
            checks.refuse("train_fn", "call its outcomes by names that are free", name)
        kind = getattr(value, "dtype", None) or np.asarray(value).dtype
        real = jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)
        if not real or np.shape(value) != ():
            got = f"{kind}{list(np.shape(value))} for {name!r}"
            checks.refuse("train_fn", "return real arrays of shape ()", got, TypeError)


def _same_kinds(kinds: list[dict[str, str]], before: dict[str, str] | None) -> dict[str, str]:
    """The outcomes and their types, the same for all points."""
    first = kinds[0] if kinds else before
    assert first is not None  # with nothing missing, the folder has them
    for other in kinds:
        if other != first:
            rule = f"return the same outcomes for all static values, {first}"
            checks.refuse("train_fn", rule, other)
    return first


def _plan(
    traced: _Traced,
    devices: list[jax.Device],
    per_device: int,
    chunk: int | None,
    batch: int | None,
    memory: int,
) -> _Work:
    """Compiles the points in batches that fit `memory` bytes; `per_device` points at most each.

    Where the batch is open, a program of single points tells how many of them should fit, and one
    of so many whether they do. A backend that does not count gets single points.
    """
    work = _compiled(traced, devices, chunk, batch or 1)
    needed = work.needed
    if needed is not None and needed > memory:
        of = "one point" if batch in (None, 1) else f"{batch} points at once"
        checks.refuse("memory", f"be at least {needed}, the bytes of {of} by XLA's count", memory)
    if batch is not None or needed is None:
        return work
    row = None if chunk is None else chunk // len(devices)
    fitting = (memory - traced.constants) // max(needed - traced.constants, 1)
    width = _widest(min(fitting, per_device), row)
    while width > 1:
        wider = _compiled(traced, devices, chunk, width)
        if wider.needed is not None and wider.needed <= memory:
            return wider
        width = _widest(width // 2, row)
    return work


def _widest(most: int, row: int | None) -> int:
    """Largest batch size <= `most` that divides the number of points in a row on a device."""
    if row is None:
        return most
    return next(width for width in range(min(most, row), 0, -1) if row % width == 0)


def _chunks(work: _Work, points: Points) -> Iterator[Found]:
    """The outcomes of the points, chunk after chunk, each finished before the next begins."""
    traced = work.traced
    for start in range(0, len(traced.points), work.chunk):
        chunk = traced.points[start : start + work.chunk]
        # The last chunk is filled up with repeats: one shape, one compilation.
        full = chunk + chunk[-1:] * (work.chunk - len(chunk))
        settings = [points.setting(point) for point in full]
        values = [np.array([at[name] for at in settings], np.float32) for name in traced.names]
        seeds = np.array([points.seed(point) for point in full], np.uint32)
        columns = [np.asarray(column) for column in work.evaluate(values, seeds)]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        outcomes = [dict(zip(traced.kinds, row, strict=True)) for row in rows]
        yield dict(zip(chunk, outcomes, strict=False))


def _compiled(traced: _Traced, devices: list[jax.Device], chunk: int | None, batch: int) -> _Work:
    """Compiles a chunk of points, spread over the devices and taken in a row of batches on each."""
    unit = len(devices) * batch
    # A chunk longer than all points would only be filled up.
    count = min(chunk or unit * -(-IN_A_ROW // batch), unit * -(-len(traced.points) // unit))
    mesh = Mesh(np.array(devices), (AXIS,))
    spread = PartitionSpec(AXIS)
    program = jax.jit(
        jax.shard_map(
            _on_a_device(traced.jaxpr, batch),
            mesh=mesh,
            in_specs=spread,
            out_specs=spread,
            check_vma=False,
        )
    )
    values = [jax.ShapeDtypeStruct((count,), jnp.float32) for _ in traced.names]
    compiled = program.lower(values, jax.ShapeDtypeStruct((count,), jnp.uint32)).compile()
    return _Work(traced, batch, count, compiled)


def _on_a_device(jaxpr: core.ClosedJaxpr, batch: int) -> Callable[..., list[jax.Array]]:
    """The outcomes of values and seeds (points,), batch after batch."""
    point = core.jaxpr_as_fun(jaxpr)
    # Without a batch axis at all where points go one by one: that leaves branches branches.
    size = None if batch == 1 else batch
    return lambda values, seeds: lax.map(
        lambda at: point(*at[0], at[1]), (values, seeds), batch_size=size
    )
