"""Tables of studies, for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table


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
