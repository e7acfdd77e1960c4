"""Tables for the terminal, of all commands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from jaxqring.jobs._compression_job import LARGER_IS_BETTER, LOST, Curve, best, borne

#: Rows of the table of a sweep that are shown before the middle is left out.
MOST_ROWS = 40


def _table(title: str, left: Sequence[str], right: Sequence[str] = (), tight: bool = True) -> Table:
    """An empty table with columns of text, then of numbers; `tight` for terminals of 80 columns."""
    spacing: dict[str, Any] = {"padding": (0, 1, 0, 0)} if tight else {}
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False, **spacing)
    for name in left:
        table.add_column(escape(name), no_wrap=True)
    for name in right:
        table.add_column(escape(name), justify="right", no_wrap=True)
    return table


def summary_table(summary: dict[str, Any]) -> Table:
    """The result of a training job, a row for each run."""
    job = summary["config"]
    title = f"{summary['name']}: {summary['parameters']:,} parameters, {job['nodes']} nodes, "
    title += f"{job['steps']} steps; online traffic per link and step, one EPR pair per qubit"
    columns = ("test\naccuracy", "online\ntraffic", "net bits\nper qubit", "error\nrate")
    table = _table(title, ["run"], [*columns, "replicas\nagree"])
    for run in summary["runs"]:
        qubits, bits = run["online_qubits_per_link_step"], run["online_bits_per_link_step"]
        net = run["net_bits_per_online_qubit"]
        table.add_row(
            escape(run["name"]),
            f"{run['test_accuracy']:.4f}",
            f"{qubits:,} qubits" if qubits else f"{bits:,} bits",
            "-" if net is None else f"{net:.3f}",
            f"{run['symbol_error_rate']:.1e}",
            f"{run['replica_agreement']:.4f}",
        )
    return table


def compression_table(summary: dict[str, Any]) -> Table:
    """The result of a training job with compressed gradients, a row for each run."""
    job = summary["config"]
    title = f"{summary['name']}: {summary['parameters']:,} parameters, {job['nodes']} nodes, "
    title += f"{job['steps']} steps; traffic per link and step, one EPR pair per qubit"
    columns = ("test\naccuracy", "qubits", "control\nbits", "net bits\nper qubit")
    table = _table(title, ["run"], [*columns, "sums out\nof range", "replica\ndrift"])
    for run in summary["runs"]:
        qubits, net = run["online_qubits_per_link_step"], run["net_bits_per_online_qubit"]
        control, outside = run.get("control_bits_per_link_step"), run.get("out_of_range")
        drift = run["replica_drift"]
        table.add_row(
            escape(run["name"]),
            f"{run['test_accuracy']:.4f}",
            f"{qubits:,}" if qubits else f"{run['online_bits_per_link_step']:,} bits",
            "-" if control is None else f"{control:,}",
            "-" if net is None else f"{net:.3f}",
            "-" if outside is None else f"{outside:,}",
            "-" if drift is None else _short(drift),
        )
    return table


def curves_table(varied: str, curves: Sequence[Curve]) -> Table:
    """The best value of each curve of compression, or the noise that it bears."""
    name = varied.replace("_", " ")
    if varied == "learning_rate":
        table = _table("the best of the values tried", ["curve"], [name, "accuracy", "tried"])
        for curve in curves:
            value, accuracy = best(curve)
            tried = f"{curve.values.min():g} to {curve.values.max():g}"
            table.add_row(escape(curve.config.name), f"{value:g}", f"{accuracy:.4f}", tried)
        return table
    title = f"the {name} at which {100 * LOST:g} points are lost"
    table = _table(title, ["curve"], [name, "accuracy at\nleast noise", "at most\nnoise"])
    for curve in curves:
        mean, limit = curve.accuracy.mean(axis=1), borne(varied, curve)
        order = np.argsort(curve.values)[:: -1 if varied in LARGER_IS_BETTER else 1]
        cells = [f"{mean[order[at]]:.4f}" for at in (0, -1)]
        table.add_row(
            escape(curve.config.name), "never" if limit is None else f"{limit:.6g}", *cells
        )
    return table


def outer_tables(summary: dict[str, Any]) -> list[Table]:
    """The result of a study of outer loops, a row for each H, and the best H by coherence time."""
    job = summary["config"]
    splits = job["splits"]
    title = f"{job['name']}: {summary['size']:,} parameters, {job['task']['nodes']} nodes, "
    title += f"{job['task']['steps']} steps; mean accuracies, and traffic over each link"
    columns = ("H", *splits, "±", "rounds", "Mbit", "million\nqubits", "seconds")
    table = _table(title, ["loop"], columns)
    for loop in summary["loops"]:
        by_steps: dict[int, list[dict[str, Any]]] = {}
        for point in loop["points"]:
            by_steps.setdefault(point["every"], []).append(point)
        for every, points in by_steps.items():
            found = {point["split"]: point for point in points}
            first = points[0]
            table.add_row(
                escape(loop["name"]),
                f"{every}",
                *(f"{found[split]['accuracy']:.3f}" for split in splits),
                f"{max(point['std'] for point in points):.3f}",
                f"{first['rounds']:g}",
                f"{first['bits'] / 1e6:.4g}",
                f"{first['qubits'] / 1e6:.4g}",
                f"{first['seconds']:.4g}",
            )
    shown = summary["shown"]
    best = _table(
        f"{shown['loop']}, {shown['split']}: most accuracy times inner steps a second",
        ["coherence time (s)"],
        ["best H"],
    )
    for time, every in zip(shown["coherence"], shown["best_every"], strict=True):
        best.add_row(f"{time:g}", f"{every}")
    return [table, best]


def security_table(summary: dict[str, Any]) -> Table:
    """The guarantees of the secure runs of a job and their cost, a row for each run."""
    title = f"{summary['name']}: a copy is one GHZ state for every bit of a mask"
    columns = (
        *("GHZ\nfidelity", "eps.\na step", "eps.\nin all", "copies\na mask", "1e6\na step"),
        *("steps\nlost", "sums\nwrong", "still\nwrong"),
    )
    table = _table(title, ["run"], columns)
    for run in summary["runs"]:
        if "security" not in run:
            continue
        security = run["security"]
        table.add_row(
            escape(run["name"]),
            f"{security['ghz_fidelity']:.6g}",
            _short(security["epsilon_per_step"]),
            "vacuous" if security["is_vacuous"] else _short(security["epsilon_total"]),
            f"{security['overhead']:.1f}",
            f"{security['copies_per_step'] / 1e6:.3f}",
            str(security["aborted_steps"]),
            _short(security["wrong_sum_rate"]),
            _short(security["uncorrected_sum_rate"]),
        )
    return table


def _short(value: float) -> str:
    """Two digits and an exponent without a zero in front; 0 for zero."""
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"


def budget_tables(results: dict[str, Any]) -> list[Table]:
    """The contents of `budget.json`: net rates, one all-reduce, and derivatives."""
    return [_rates(results), _one_all_reduce(results), _derivatives(results)]


def _code_names(results: dict[str, Any]) -> list[str]:
    # On three lines, so that several codes fit on a terminal of 80 columns.
    names = [code["name"] for code in results["codes"]]
    return [name.replace("(", "\n(").replace(", ", "\n") for name in names]


def _rates(results: dict[str, Any]) -> Table:
    codes = results["codes"]
    title = "net bits per online qubit, by fidelity F of Werner pairs"
    table = _table(title, ["F"], [*_code_names(results), "capacity"])
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
    table = _table(title, ["code"], columns)
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
    table = _table(title, ["parameter"], _code_names(results))
    for name in codes[0]["derivatives"]:
        slopes = [f"{code['derivatives'][name]:.2g}" for code in codes]
        table.add_row(name, *slopes)
    return table


def sweep_table(table: dict[str, np.ndarray], title: str) -> Table:
    """Mean and standard deviation of the accuracy over the seeds, a row for each setting."""
    names = list(table)[: list(table).index("seed")]
    seeds = len(np.unique(table["seed"]))
    accuracy = table["accuracy"].reshape(-1, seeds)
    shown = _table(title, [], [*names, "accuracy", "std over seeds"], tight=False)
    rows = [
        [f"{table[name][setting * seeds]:g}" for name in names]
        + [f"{of_seeds.mean():.4f}", f"{of_seeds.std():.4f}"]
        for setting, of_seeds in enumerate(accuracy)
    ]
    if len(rows) > MOST_ROWS:
        half = MOST_ROWS // 2
        left_out = [f"{len(rows) - 2 * half} more"] + [""] * (len(names) + 1)
        rows = [*rows[:half], left_out, *rows[-half:]]
    for row in rows:
        shown.add_row(*row)
    return shown


def sensitivity_table(table: dict[str, np.ndarray], title: str) -> Table:
    """A row for each parameter of each link, a column for each estimator."""
    estimators = list(dict.fromkeys(table["estimator"].tolist()))
    columns = [f"{name}\nderivative" for name in estimators]
    shown = _table(title, ["outcome", "parameter", "link", "value"], columns, tight=False)
    for row in np.flatnonzero(table["estimator"] == estimators[0]):
        cells = [str(table["outcome"][row]), str(table["parameter"][row])]
        cells.append("all" if table["link"][row] < 0 else str(table["link"][row]))
        cells.append(f"{table['value'][row]:g}")
        same = np.logical_and.reduce(
            [table[name] == table[name][row] for name in ("outcome", "parameter", "link")]
        )
        for other in np.flatnonzero(same):
            cells.append(f"{table['derivative'][other]:.3g} ± {table['standard_error'][other]:.2g}")
        shown.add_row(*(escape(cell) for cell in cells))
    return shown


def inversion_tables(summary: dict[str, Any]) -> list[Table]:
    """The contents of `summary.json` of a study of inversion: the attacks, and closed forms."""
    job = summary["config"]
    adversaries = list(job["adversaries"])
    title = f"{summary['name']}: SSIM of reconstructions, mean ± std over {job['images']} images"
    shown = _table(title, ["network", "compressor"], adversaries)
    found = {(x["network"], x["compressor"], x["adversary"]): x for x in summary["attacks"]}
    for network, compressor in dict.fromkeys(key[:2] for key in found):
        cells = [found.get((network, compressor, adversary)) for adversary in adversaries]
        shown.add_row(network, escape(compressor), *map(_similarity, cells))
    if not summary["closed_forms"]:
        return [shown]
    closed = _table(
        "images read off the first factor of an untrained mlp", ["compressor"], ["SSIM"]
    )
    for entry in summary["closed_forms"]:
        mean, worst = entry["ssim_mean"], min(entry["ssim"])
        closed.add_row(escape(entry["compressor"]), f"{mean:.5f} (worst {worst:.5f})")
    return [shown, closed]


def _similarity(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else f"{entry['ssim_mean']:.3f} ±{entry['ssim_std']:.2f}"


def robust_tables(summary: dict[str, Any]) -> list[Table]:
    """The accuracy of a study of liars by rule and attack, and the share that a rule clipped."""
    job, tables = summary["config"], []
    seeds = f"mean over {job['seeds']} seeds" if job["seeds"] > 1 else "one seed"
    for split in job["splits"]:
        shown = ("mean", f"test accuracy, {seeds}", ".3f"), ("clipped", "share clipped", ".2f")
        for name, about, form in shown:
            title = f"{summary['config']['name']}, {split}: {about}, by attack"
            table = _table(title, ["rule"], job["attacks"])
            table.padding = (0, 0, 0, 0)  # ten attacks on 80 columns
            for result in summary["results"]:
                if result["split"] == split:
                    cells = [format(value, form).lstrip("0") or "0" for value in result[name]]
                    table.add_row(escape(result["rule"]), *cells)
            tables.append(table)
    return tables


def claims_table(rows: Sequence[Sequence[str]]) -> Table:
    """The claims that were put to the test: name, number, three values, verdict and seconds."""
    table = Table(title="claims and findings", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim, and its number", min_width=28)
    table.add_column("verdict")
    for name in ("claimed", "ours", "second", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, number, claimed, ours, second, verdict, seconds in rows:
        about = f"[bold]{escape(name)}[/]\n{escape(number)}"
        table.add_row(about, verdict, claimed, ours, second, seconds)
    return table
