"""The table of a sweep: a dict of columns that prints, and that xarray and Parquet take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._extras import needs
from jaxqring._shown import Panel, as_html, as_text

if TYPE_CHECKING:
    import xarray

#: Rows that are printed.
_HEAD = 8


class Table(dict[str, np.ndarray]):
    """A tidy table: a dict of columns (rows,) by name, a row for each point.

    Args:
      columns: by name, equally long.
      setting: names of those that describe a setting.
      beside: names of those with which every setting is combined, such as "seed".

    >>> columns = {"x": [0, 0, 1, 1], "seed": [0, 1, 0, 1], "height": [0.0, 0.1, 1.0, 1.2]}
    >>> Table({name: np.array(column) for name, column in columns.items()}, ["x"], ["seed"])
    Table of 4 rows
      x  seed  height
      0     0       0
      0     1     0.1
      1     0       1
      1     1     1.2
    """

    def __init__(
        self, columns: Mapping[str, Any], setting: Sequence[str], beside: Sequence[str] = ()
    ) -> None:
        super().__init__(columns)
        self.setting, self.beside = tuple(setting), tuple(beside)

    @property
    def num_rows(self) -> int:
        """The number of points, zero for a shard while points of others are missing."""
        return min(map(len, self.values()), default=0)

    def to_xarray(self) -> "xarray.Dataset":
        """The table as a data set of xarray, with a dimension for each parameter and for the seed.

        Where the settings are not all combinations of their values, they share one dimension,
        "setting", of which the parameters are coordinates.

        Returns:
          An `xarray.Dataset`: parameters and seeds are coordinates, in their order in the table,
          all other columns are variables.

        Raises:
          ImportError: without the extra `tables`.
          ValueError: if a row is missing, or there twice.
        """
        with needs("tables", "A data set of xarray"):
            import xarray
        dims = {name: [name] for name in (*self.setting, *self.beside)}
        codes, sizes = self._codes(dims)
        if len(set(zip(*codes, strict=True))) < np.prod(sizes):
            dims = {"setting": list(self.setting), **{name: [name] for name in self.beside}}
            codes, sizes = self._codes(dims)
            if self.num_rows != np.prod(sizes):
                rule = "name columns combined with every setting"
                checks.refuse(
                    "beside",
                    rule,
                    f"{self.num_rows} rows for {dict(zip(dims, sizes, strict=True))}",
                )
        order = np.lexsort(codes[::-1])
        coordinates = {
            name: (dim, _plain(self[name])[np.unique(code, return_index=True)[1]])
            for (dim, names), code in zip(dims.items(), codes, strict=True)
            for name in names
        }
        variables = {
            name: ([*dims], _plain(column)[order].reshape(sizes))
            for name, column in self.items()
            if name not in coordinates
        }
        return xarray.Dataset(variables, coordinates)

    def _codes(self, dims: Mapping[str, Sequence[str]]) -> tuple[np.ndarray, tuple[int, ...]]:
        """The position (dims, rows) of each row along each dimension, and the sizes of these."""
        codes, sizes = [], []
        for names in dims.values():
            keys = list(zip(*(self[name].tolist() for name in names), strict=True))
            levels = {key: place for place, key in enumerate(dict.fromkeys(keys))}
            codes.append([levels[key] for key in keys])
            sizes.append(len(levels))
        return np.array(codes, int), tuple(sizes)

    def to_parquet(self, path: str | Path) -> Path:
        """Writes the table as a Parquet file, with its columns and their types.

        Args:
          path: of the file. Values of parameters that Parquet does not know stand as their `repr`.

        Returns:
          The path.

        Raises:
          ImportError: without the extra `tables`.
        """
        with needs("tables", "A Parquet file"):
            import pyarrow
            from pyarrow import parquet
        columns = {name: _plain(column) for name, column in self.items()}
        parquet.write_table(pyarrow.table(columns), path)
        return Path(path)

    def __repr__(self) -> str:
        panel = self._panel()
        return super().__repr__() if panel is None else as_text(panel)

    def _repr_html_(self) -> str | None:
        panel = self._panel()
        return None if panel is None else as_html(panel)

    def _panel(self) -> Panel | None:
        """The first rows; None where the columns became something else, as `jax.tree.map` can."""
        if checks.is_traced(self) or not all(map(_is_column, self.values())):
            return None
        if len(set(map(len, self.values()))) > 1:
            return None
        cells = [[_cell(value) for value in column[:_HEAD].tolist()] for column in self.values()]
        title = f"Table of {self.num_rows:,} row" + ("" if self.num_rows == 1 else "s")
        title += f", the first {_HEAD}" if self.num_rows > _HEAD else ""
        return Panel(title, list(zip(*cells, strict=True)), list(self))


# A dict is a pytree for JAX, a subclass of it is none.
jax.tree_util.register_pytree_node(
    Table,
    lambda table: ([*table.values()], ([*table], table.setting, table.beside)),
    lambda about, columns: Table(dict(zip(about[0], columns, strict=True)), *about[1:]),
)


def _is_column(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and value.ndim == 1


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(column: np.ndarray) -> np.ndarray:
    """A column in a type that other libraries know."""
    if column.dtype == object:  # static values; the most common ones are strings
        return np.array([each if isinstance(each, str) else repr(each) for each in column.tolist()])
    return column.astype(np.float32) if column.dtype.kind == "V" else column  # bfloat16
