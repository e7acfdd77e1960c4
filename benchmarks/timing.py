"""Alternating measurements in one process, reported as medians and ratios."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

REPEATS = 7


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=doc.splitlines()[0])
    options.add_argument("--repeats", type=int, default=REPEATS, help="how many turns")
    options.add_argument("--folder", type=Path, default=Path("runs/bench"), help="for the JSON")
    return options


def medians(
    candidates: dict[str, Callable[[], Any]], repeats: int, counted: bool = False
) -> dict[str, float]:
    """Median seconds of each candidate, run in turns so that all meet the same disturbances.

    By the clock; or those that a candidate returns, if it has counted them itself.
    """
    for run in candidates.values():
        jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            found = jax.block_until_ready(run())
            times[name].append(found if counted else time.perf_counter() - start)
    return {name: statistics.median(seen) for name, seen in times.items()}


def report(name: str, columns: list[str], rows: list[list], options: argparse.Namespace) -> None:
    """Prints a table and writes it, with the machine it was taken on, as JSON."""
    show(name, columns, rows)
    write(name, columns, rows, options)


def show(title: str | None, columns: list[str], rows: list[list]) -> None:
    """Prints a table."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row])
    Console(width=140).print(table)


def write(
    name: str, columns: list[str], rows: list[list], options: argparse.Namespace, **more: Any
) -> None:
    """Writes a table, with the machine it was taken on and `more` fields, as JSON."""
    options.folder.mkdir(parents=True, exist_ok=True)
    found = {
        "name": name,
        "machine": {
            "device": jax.devices()[0].device_kind,
            "devices": len(jax.devices()),
            "processor": platform.machine(),
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
        "repeats": options.repeats,
        "rows": [dict(zip(columns, row, strict=True)) for row in rows],
        **more,
    }
    (options.folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
