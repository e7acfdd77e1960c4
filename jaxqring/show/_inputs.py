"""Checks of the dicts and lines that are drawn."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxqring import _checks as checks


def check_entries(argument: str, value: Any, *names: str) -> None:
    """Refuses a dict that has no entries of these names.

    Raises:
      ValueError: if it is no dict, or an entry is missing.

    >>> check_entries("summary", {"config": {}}, "config", "runs")
    Traceback (most recent call last):
    ...
    ValueError: `summary` must have the entry 'runs', but got ['config'].
    """
    known = [*value] if isinstance(value, Mapping) else []
    for name in names:
        if name not in known:
            found = known if isinstance(value, Mapping) else value
            checks.refuse(argument, f"have the entry {name!r}", found)


def check_lines(lines: Any, *names: str) -> None:
    """Refuses lines of metrics that have no entries of these names.

    Raises:
      ValueError: if there is no line, or one is no dict with these entries.
    """
    if isinstance(lines, str | Mapping) or not isinstance(lines, Iterable) or not lines:
        checks.refuse("lines", "hold lines of metrics, as `read_metrics` returns them", lines)
    for line in lines:
        check_entries("lines", line, "run", "step", *names)
