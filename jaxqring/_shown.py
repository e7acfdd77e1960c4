"""Small tables of what a call returned: as text in a terminal, as HTML in a notebook."""

import contextlib
import dataclasses
import html
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxqring import _checks as checks

#: The cells of a column of numbers.
_STARTS_WITH_A_NUMBER = re.compile(r"-?(\d|nan$|inf$)")


class Panel(NamedTuple):
    """A table of a few cells.

    Attributes:
      title: a line above it.
      rows: of cells, equally many in each.
      head: the names of the columns; none by default.
    """

    title: str
    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()


class Shown:
    """A dataclass that prints as panels, and never fails to.

    A class gives `_panels`, which is called where all numbers are known. Of others, such as those
    of a trace, the fields are listed as they are, and so are those of a pytree mapped to shapes or
    types that are not its own.
    """

    def _panels(self) -> list[Panel]:
        raise NotImplementedError

    def _shown(self) -> list[Panel]:
        leaves = jax.tree.leaves(self)
        # One that is no pytree is its own leaf, and holds numbers of Python.
        known = bool(leaves) and all(leaf is self or _is_known(leaf) for leaf in leaves)
        if known:
            with contextlib.suppress(TypeError, ValueError, IndexError):
                return self._panels()
        return [_fields_of(self)]

    def __repr__(self) -> str:
        return "\n".join(map(as_text, self._shown()))

    def _repr_html_(self) -> str:
        return "".join(map(as_html, self._shown()))


def _is_known(leaf: Any) -> bool:
    """True for an array that is not traced, not deleted and not empty."""
    if isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and leaf.is_deleted()):
        return False
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and np.size(leaf) > 0


def _fields_of(value: Any) -> Panel:
    """The fields of a dataclass whose numbers are not known."""
    name = type(value).__name__ + (", traced" if checks.is_traced(value) else "")
    cells = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return Panel(name, [(field, _in_a_line(content)) for field, content in cells])


def _in_a_line(value: Any) -> str:
    if isinstance(value, jax.Array):
        return value.aval.str_short()
    return textwrap.shorten(repr(value), 80, placeholder=" ...")


def as_text(panel: Panel) -> str:
    """A panel in columns, those of numbers flush right.

    >>> print(as_text(Panel("A ring", [("rounds", "14", "hops"), ("qubits", "1,112", "sent")])))
    A ring
      rounds     14  hops
      qubits  1,112  sent
    """
    rows = [*filter(None, [panel.head]), *panel.rows]
    if not rows:
        return panel.title
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = _numeric(panel)
    lines = [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        for row in rows
    ]
    return "\n".join([panel.title, *("  " + line.rstrip() for line in lines)])


def as_html(panel: Panel) -> str:
    """A panel as a table of HTML.

    >>> as_html(Panel("A < B", [("rounds", "14")]))
    '<table><caption>A &lt; B</caption><tr><td style="text-align:left">rounds</td><td
    style="text-align:right">14</td></tr></table>'
    """
    sides = ["right" if flush else "left" for flush in _numeric(panel)]

    def row(cells: Sequence[str], kind: str) -> str:
        aligned = [
            f'<{kind} style="text-align:{side}">{html.escape(cell)}</{kind}>'
            for cell, side in zip(cells, sides, strict=True)
        ]
        return f"<tr>{''.join(aligned)}</tr>"

    head = row(panel.head, "th") if panel.head else ""
    body = "".join(row(cells, "td") for cells in panel.rows)
    return f"<table><caption>{html.escape(panel.title)}</caption>{head}{body}</table>"


def _numeric(panel: Panel) -> list[bool]:
    """True for each column that holds numbers alone."""
    columns = list(zip(*panel.rows, strict=True)) or [()] * len(panel.head)
    return [all(map(_STARTS_WITH_A_NUMBER.match, column)) for column in columns]


def in_short(value: Any) -> str:
    """A number of a table: whole ones with their thousands apart, others to four digits.

    >>> in_short(112000), in_short(0.0123456), in_short(2.0), in_short(3e9)
    ('112,000', '0.01235', '2', '3,000,000,000')
    """
    number = float(value)
    if number.is_integer() and abs(number) < 1e12:
        return f"{int(number):,}"
    return f"{number:.4g}"


def first_entry(value: Any, scalar: str) -> tuple[Any, str]:
    """The view of one node, or of one step, of a report that has leading axes.

    Args:
      value: a dataclass of known arrays, none of them empty.
      scalar: name of a field that has the shape () in the report of one call.

    Returns:
      The report of the first entry, and a remark on the others; "" without leading axes.
    """
    own = jax.tree.map(_local, value)
    shape = np.shape(getattr(own, scalar))
    if not shape:
        return own, ""
    first = jax.tree.map(lambda leaf: leaf[(0,) * len(shape)], own)
    same = all(
        np.array_equal(np.broadcast_to(one, leaf.shape), leaf, equal_nan=leaf.dtype.kind == "f")
        for one, leaf in zip(jax.tree.leaves(first), jax.tree.leaves(own), strict=True)
    )
    of = f"of {shape[0]}" if len(shape) == 1 else f"of shape {shape}"
    return first, f" (first {of}, {'all the same' if same else 'others differ'})"


def _local(leaf: Any) -> np.ndarray:
    """The numbers of an array, or the part of them that this process has."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(leaf)
