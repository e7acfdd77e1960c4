"""The points of a sweep, settings times seeds, their shares, and the table of their outcomes."""

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring.sweeps._tidy_table import Table

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

    def share(self, k: int, n: int) -> range:
        """The k-th of n shares, counted from 1: every n-th point, so that each has dear settings.

        Raises:
          ValueError: if there is no such share, or one of the n would have no point.
        """
        for value in (k, n):
            checks.integer("shard", value)
        if not k <= n <= len(self):
            rule = f"be (k, n) with 1 <= k <= n, and n at most the number of points, {len(self)}"
            checks.refuse("shard", rule, (k, n))
        return range(k - 1, len(self), n)

    def at(self, point: int) -> dict[str, Any]:
        """The setting and the seed of a point."""
        return {**self.setting(point), "seed": self.seed(point)}

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


def table_of(points: Points, found: Found, kinds: Mapping[str, str]) -> Table:
    """The tidy table: a column for each parameter, the seed and each outcome.

    It has a row for each point that was found, in the order of their numbers.
    """
    every = sorted(found)
    settings = [points.setting(point) for point in every]
    table = {name: _column([setting[name] for setting in settings]) for name in points.names}
    table["seed"] = np.array([points.seed(point) for point in every])
    for name, kind in kinds.items():
        table[name] = np.array([found[point][name] for point in every], jnp.dtype(kind))
    return Table(table, points.names, ["seed"])


def _column(values: list[Any]) -> np.ndarray:
    if all(isinstance(value, int | float) for value in values):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
