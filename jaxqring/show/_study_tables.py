"""Tables of studies, for the terminal."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

#: Rows of the table of a sweep that are shown before the middle is left out.
MOST_ROWS = 40


def budget_tables(results: dict[str, Any]) -> list[Table]:
    """The contents of `budget.json`: net rates, one all-reduce, and derivatives."""
    return [_rates(results), _one_all_reduce(results), _derivatives(results)]


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(escape(column), justify="right", no_wrap=True)
    return table


def _code_names(results: dict[str, Any]) -> list[str]:
    # On three lines, so that several codes fit on a terminal of 80 columns.
    names = [code["name"] for code in results["codes"]]
    return [name.replace("(", "\n(").replace(", ", "\n") for name in names]


def _rates(results: dict[str, Any]) -> Table:
    codes = results["codes"]
    title = "net bits per online qubit, by fidelity F of Werner pairs"
    table = _table(title, "F", [*_code_names(results), "capacity"])
    for row, fidelity in enumerate(results["config"]["fidelities"]):
        rates = [code["net_rates"][row] for code in codes] + [results["capacity"][row]]
        table.add_row(f"{fidelity:g}", *(f"{rate:.3f}" for rate in rates))
    evens = [code["break_even_fidelity"] for code in codes]
    table.add_row("even at F", *("never" if even is None else f"{even:.4f}" for even in evens))
    return table


def _one_all_reduce(results: dict[str, Any]) -> Table:
    job, supply = results["config"], results["supply"]
    title = (
        f"one all-reduce of {job['size']:,} values, {job['nodes']} nodes, {job['bits']} bits, per"
        f" link; pairs of fidelity {supply['pair_fidelity']:.4f}, {supply['pairs_per_second']:.3g}"
        " a second"
    )
    names = ("net_bits_per_qubit", "online_qubits", "raw_pairs", "lifetime_uses", "seconds")
    columns = ("net bits\nper qubit", "online\nuses", "raw\npairs", "lifetime\nuses", "seconds")
    table = _table(title, "code", columns)
    for code in results["codes"]:
        net, *values = [code["budget"][name] for name in names]
        table.add_row(escape(code["name"]), f"{net:.3f}", *(f"{value:.4g}" for value in values))
    one = results["codes"][0]["budget"]
    bits = f"{one['bits']:.4g}"
    table.add_row("classical ring", "1", bits, "0", bits, f"{one['classical_seconds']:.4g}")
    return table


def _derivatives(results: dict[str, Any]) -> Table:
    codes = results["codes"]
    title = "derivative of the net bits per qubit, per unit (SI) of each parameter"
    table = _table(title, "parameter", _code_names(results))
    for name in codes[0]["derivatives"]:
        slopes = [f"{code['derivatives'][name]:.2g}" for code in codes]
        table.add_row(name, *slopes)
    return table


def sweep_table(table: dict[str, np.ndarray], title: str) -> Table:
    """Mean and standard deviation of the accuracy over the seeds, a row for each setting."""
    names = list(table)[: list(table).index("seed")]
    seeds = len(np.unique(table["seed"]))
    accuracy = table["accuracy"].reshape(-1, seeds)
    shown = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (*names, "accuracy", "std over seeds"):
        shown.add_column(escape(name), justify="right", no_wrap=True)
    rows = [
        [f"{table[name][place * seeds]:g}" for name in names]
        + [f"{own.mean():.4f}", f"{own.std():.4f}"]
        for place, own in enumerate(accuracy)
    ]
    if len(rows) > MOST_ROWS:
        half = MOST_ROWS // 2
        gap = [f"{len(rows) - 2 * half} more"] + [""] * (len(names) + 1)
        rows = [*rows[:half], gap, *rows[-half:]]
    for row in rows:
        shown.add_row(*row)
    return shown


def sensitivity_table(table: dict[str, np.ndarray], title: str) -> Table:
    """A row for each parameter of each link, a column for each estimator."""
    estimators = list(dict.fromkeys(table["estimator"].tolist()))
    shown = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("outcome", "parameter", "link", "value"):
        shown.add_column(name, no_wrap=True)
    for name in estimators:
        shown.add_column(f"{name}\nderivative", justify="right", no_wrap=True)
    first = table["estimator"] == estimators[0]
    for row in np.flatnonzero(first):
        cells = [str(table["outcome"][row]), str(table["parameter"][row])]
        cells.append("all" if table["link"][row] < 0 else str(table["link"][row]))
        cells.append(f"{table['value'][row]:g}")
        same = np.logical_and.reduce(
            [table[name] == table[name][row] for name in ("outcome", "parameter", "link")]
        )
        for mine in np.flatnonzero(same):
            cells.append(f"{table['derivative'][mine]:.3g} ± {table['standard_error'][mine]:.2g}")
        shown.add_row(*cells)
    return shown
