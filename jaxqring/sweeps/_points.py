"""The points of a sweep, settings times seeds, and the folder with their outcomes."""

import csv
import dataclasses
import io
import itertools
import json
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._files import number, to_json, write_whole

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
#: Outcomes by the number of their point: Python numbers, which hold every float32 exactly.
Found = dict[int, dict[str, int | float]]


@dataclasses.dataclass(frozen=True)
class Points:
    """Every setting with every seed, numbered with the settings outermost.

    Attributes:
      names: of the parameters.
      settings: their values, in the order of `names`.
      seeds: of the random keys.
      static: those names whose values are known when tracing.
    """

    names: tuple[str, ...]
    settings: tuple[tuple[Any, ...], ...]
    seeds: tuple[int, ...]
    static: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.settings) * len(self.seeds)

    def setting(self, point: int) -> dict[str, Any]:
        """The setting of a point."""
        return dict(zip(self.names, self.settings[point // len(self.seeds)], strict=True))

    def seed(self, point: int) -> int:
        """The seed of a point."""
        return self.seeds[point % len(self.seeds)]

    def groups(self, points: Sequence[int]) -> list[list[int]]:
        """These points in groups; those of a group have all static values in common."""
        alike: dict[tuple, list[int]] = {}
        for point in points:
            at = self.setting(point)
            # With its type: 1, 1.0 and True are equal and compile to different things.
            key = tuple((type(at[name]), at[name]) for name in self.static)
            alike.setdefault(key, []).append(point)
        return list(alike.values())


def points_of(grid: Grid, seeds: int | Sequence[int], static: Sequence[str] = ()) -> Points:
    """The points of a sweep; the arguments are those of `jaxqring.sweeps.sweep`.

    Raises:
      TypeError: if a value that is traced is not a real number.
      ValueError: if there is no point, a point twice, or an unknown name in `static`.
    """
    names, settings = _settings(grid)
    static = (static,) if isinstance(static, str) else tuple(static)
    for name in static:
        checks.one_of("static", name, names)
    for name, values in zip(names, zip(*settings, strict=True), strict=True):
        _check_values(f"grid.{name}", values, name in static)
    if len(set(settings)) < len(settings):
        twice = next(s for s in settings if settings.count(s) > 1)
        checks.refuse("grid", "hold no setting twice", dict(zip(names, twice, strict=True)))
    return Points(names, settings, _seeds(seeds), static)


def _check_values(argument: str, values: Any, static: bool) -> None:
    if static:
        for value in values:
            if not isinstance(value, Hashable):
                checks.refuse(argument, "hold hashable values, being static", value, TypeError)
        return
    known = checks.numbers(argument, values)
    if known.ndim != 1 or not np.all(np.abs(known) <= np.finfo(np.float32).max):
        checks.refuse(argument, "hold numbers that are finite in float32", values)


def _settings(grid: Grid) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """The names of a grid, and its settings in the order of these."""
    if isinstance(grid, Mapping):
        names = tuple(grid)
        for name in names:
            if np.ndim(grid[name]) == 0:
                checks.refuse(f"grid.{name}", "be a sequence of values", grid[name], TypeError)
        settings = tuple(itertools.product(*grid.values())) if names else ()
    else:
        names = tuple(grid[0]) if grid else ()
        for setting in grid:
            if set(setting) != set(names):
                checks.refuse("grid", f"have the names {', '.join(names)} throughout", setting)
        settings = tuple(tuple(setting[name] for name in names) for setting in grid)
    if not names or not settings:
        checks.refuse("grid", "hold at least one parameter, each with a value", grid)
    if "seed" in names:
        checks.refuse("grid", "leave the name `seed` to the seeds", names)
    return names, tuple(tuple(map(_plain, setting)) for setting in settings)


def _plain(value: Any) -> Any:
    """Numbers of NumPy and JAX as those of Python, which can be compared and written."""
    return value.item() if isinstance(value, np.generic | jax.Array) else value


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = range(seeds)
    known = np.asarray(seeds)
    fits = known.ndim == 1 and known.size and np.issubdtype(known.dtype, np.integer)
    if not fits or known.min() < 0 or known.max() >= 2**32 or len(set(known)) < known.size:
        rule = "be a positive count, or distinct integers in [0, 2^32)"
        checks.refuse("seeds", rule, seeds)
    return tuple(known.tolist())


def table_of(points: Points, found: Found, kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The tidy table: a column for each parameter, the seed and each outcome, a row for a point."""
    every = range(len(points))
    settings = [points.setting(point) for point in every]
    table = {name: _column([setting[name] for setting in settings]) for name in points.names}
    table["seed"] = np.array([points.seed(point) for point in every])
    for name, kind in kinds.items():
        table[name] = np.array([found[point][name] for point in every], jnp.dtype(kind))
    return table


def _column(values: list[Any]) -> np.ndarray:
    if all(isinstance(value, int | float) for value in values):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column


class PointsFolder:
    """The files of a sweep: `sweep.json`, `points.jsonl` and, at its end, `results.csv`.

    Args:
      path: of the folder, which need not exist; None for no files.
      points: of the sweep.
      about: whatever else tells it from others, as JSON.
      platform: of the devices, "cpu" or another.

    Raises:
      ValueError: if the folder holds another sweep.
    """

    def __init__(
        self, path: str | Path | None, points: Points, about: Any = None, platform: str = "cpu"
    ) -> None:
        self.path = None if path is None else Path(path)
        self._points = points
        self._what = {
            "about": about,
            "names": points.names,
            "settings": points.settings,
            "seeds": points.seeds,
            "static": points.static,
            # The bits of a result are those of one version on one kind of device.
            "jax": jax.__version__,
            "platform": platform,
        }
        self.kinds: dict[str, str] | None = None
        if self.path is not None:
            self.kinds = self._check(self.path)

    def _check(self, path: Path) -> dict[str, str] | None:
        """The outcomes of the sweep that the folder holds, if it is this one."""
        marker, rule = path / "sweep.json", "be empty or hold the same sweep"
        if not marker.exists():
            for name in ("points.jsonl", "results.csv"):
                if (path / name).exists():
                    checks.refuse("folder", rule, f"{path} with {name} alone")
            return None
        there, here = json.loads(marker.read_text()), json.loads(_line(self._what))
        for name, value in here.items():
            if there.get(name) != value:
                checks.refuse("folder", rule, f"{path} with other {name}")
        return there["outcomes"]

    def begin(self, kinds: dict[str, str]) -> None:
        """Writes `sweep.json`, now that the outcomes are known.

        Raises:
          ValueError: if the folder holds a sweep with other outcomes.
        """
        if self.path is None:
            return
        if self.kinds is not None and self.kinds != kinds:
            rule = "be empty or hold the same sweep"
            checks.refuse("folder", rule, f"{self.path} with outcomes {self.kinds}")
        write_whole(self.path / "sweep.json", _line({**self._what, "outcomes": kinds}).encode())

    def read(self) -> Found:
        """Reads the outcomes of earlier runs; cuts the file where a line is cut short."""
        file = None if self.path is None else self.path / "points.jsonl"
        if file is None or not file.exists():
            return {}
        found: Found = {}
        whole = 0
        for line in file.read_bytes().split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:  # the disk lost power, say
                break
            whole += len(line) + 1
            found[entry["point"]] = {n: number(v) for n, v in entry["outcomes"].items()}
        os.truncate(file, whole)
        return found

    def append(self, found: Found) -> None:
        """Adds points with a single write, and waits until the disk has them."""
        if self.path is None:
            return
        text = "".join(self._lines(found)).encode()
        file = os.open(self.path / "points.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if os.write(file, text) < len(text):
                raise OSError(f"{self.path / 'points.jsonl'} could not be written: disk full")
            os.fsync(file)
        finally:
            os.close(file)

    def _lines(self, found: Found) -> Iterator[str]:
        for point, outcomes in found.items():
            at = {**self._points.setting(point), "seed": self._points.seed(point)}
            yield _line({"point": point, "at": at, "outcomes": outcomes})

    def finish(self, table: Mapping[str, np.ndarray]) -> None:
        """Writes the table as `results.csv`, whole; numbers as Python would read them back."""
        if self.path is None:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
        write_whole(self.path / "results.csv", text.getvalue().encode())


def _line(value: Any) -> str:
    """A line of JSON, in which static values that JSON does not know stand as their `repr`."""
    return to_json(value, default=repr) + "\n"
