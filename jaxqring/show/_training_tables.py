"""Tables of finished jobs, for the terminal."""

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table


def summary_table(summary: dict[str, Any]) -> Table:
    """The result of a job as a table, one row a run."""
    job = summary["config"]
    title = f"{summary['name']}: {summary['parameters']:,} parameters, {job['nodes']} nodes, "
    title += f"{job['steps']} steps; online traffic per link and step, one EPR pair per qubit"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("run", no_wrap=True)
    for name in (
        "test\naccuracy",
        "online\ntraffic",
        "net bits\nper qubit",
        "error\nrate",
        "replicas\nagree",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for run in summary["runs"]:
        qubits, bits = run["online_qubits_per_link_step"], run["online_bits_per_link_step"]
        table.add_row(
            escape(run["name"]),
            f"{run['test_accuracy']:.4f}",
            f"{qubits:,} qubits" if qubits else f"{bits:,} bits",
            "-"
            if run["net_bits_per_online_qubit"] is None
            else f"{run['net_bits_per_online_qubit']:.3f}",
            f"{run['symbol_error_rate']:.1e}",
            f"{run['replica_agreement']:.4f}",
        )
    return table


def security_table(summary: dict[str, Any]) -> Table:
    """What the secure runs of a job promise and what they took, one row a run."""
    title = f"{summary['name']}: a copy is one GHZ state for every bit of a mask"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True)
    for name in (
        "GHZ\nfidelity",
        "eps.\na step",
        "eps.\nin all",
        "copies\na mask",
        "1e6\na step",
        "steps\nlost",
        "sums\nwrong",
        "still\nwrong",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for run in summary["runs"]:
        if "security" not in run:
            continue
        found = run["security"]
        table.add_row(
            escape(run["name"]),
            f"{found['ghz_fidelity']:.6g}",
            _short(found["epsilon_per_step"]),
            "vacuous" if found["is_vacuous"] else _short(found["epsilon_total"]),
            f"{found['overhead']:.1f}",
            f"{found['copies_per_step'] / 1e6:.3f}",
            str(found["aborted_steps"]),
            _short(found["wrong_sum_rate"]),
            _short(found["uncorrected_sum_rate"]),
        )
    return table


def _short(value: float) -> str:
    """Two digits and an exponent without a zero in front; 0 for zero."""
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"
