"""The command line: `jaxqring train`, `budget`, `sweep` and `sensitivity`.

A configuration comes from a TOML file, and any value of it can be overridden by a flag:

    jaxqring train --config configs/demo.toml --steps 100 --runs.2.fidelity 0.99
    jaxqring budget --config configs/budget.toml --hardware.length 20e3
    jaxqring sweep --config configs/sweep_fidelity.toml --seeds 2 --task.steps 100
    jaxqring sensitivity --config configs/sensitivity.toml --seeds 8
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxqring.train.config import TrainConfig, load_config

COMMANDS = ("train", "budget", "sweep", "sensitivity")

Config = TypeVar("Config")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    console = Console()
    if not arguments or arguments[0] not in COMMANDS:
        asked_for_help = not arguments or arguments[0] in ("-h", "--help")
        console.print(__doc__, highlight=False, markup=False)
        if not asked_for_help:
            console.print(f"unknown command {arguments[0]!r}: choose {', '.join(COMMANDS)}")
        return 0 if asked_for_help else 2
    try:
        commands = (_train, _budget, _sweep, _sensitivity)
        command = dict(zip(COMMANDS, commands, strict=True))[arguments[0]]
        return command(arguments[1:], console)
    except (ValueError, TypeError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from the last checkpoint")
        return 130


def _train(arguments: list[str], console: Console) -> int:
    about = "Train with a classical or a quantum all-reduce; --config FILE reads TOML."
    config = _parse(arguments, TrainConfig(), "train", about)
    _offer_host_devices(config.nodes)
    # Imported late: device counts must be set before anything of JAX looks at its devices.
    from jaxqring.train import figures, loop, security_figure

    summary = loop.train(config, console)
    console.print(summary_table(summary))
    if any("security" in run for run in summary["runs"]):
        console.print(security_table(summary))
    drawn = figures.draw(config.folder, summary)
    drawn += security_figure.draw_security(config.folder, summary)
    for path in [config.folder / "summary.json", *drawn]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _budget(arguments: list[str], console: Console) -> int:
    from jaxqring.study import BudgetConfig, figures, run_budget, tables

    about = "What codes and hardware leave of the factor of two; --config FILE reads TOML."
    config = _parse(arguments, BudgetConfig(), "budget", about)
    results = run_budget(config, console)
    for table in tables.budget_tables(results):
        console.print(table)
    for path in [config.folder / "budget.json", figures.draw_budget(config.folder, results)]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _sweep(arguments: list[str], console: Console) -> int:
    from jaxqring.study import sweep_figures, sweep_job

    about = "Train over and over, on rings whose links differ; --config FILE reads TOML."
    config = _parse(arguments, sweep_job.SweepConfig(), "sweep", about)
    _offer_cores(config.devices)
    table = sweep_job.run_sweep(config, console)
    console.print(sweep_job.sweep_table(table, f"{config.name}: {config.task.steps} steps"))
    figures = sweep_figures.draw_sweep(config.folder, table)
    for path in [config.folder / "results.csv", *figures]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _sensitivity(arguments: list[str], console: Console) -> int:
    from jaxqring.study import sensitivity_job as job

    about = "What the physics of each link does to a training; --config FILE reads TOML."
    config = _parse(arguments, job.SensitivityConfig(), "sensitivity", about)
    _offer_cores(config.devices)
    table = job.run_sensitivity(config, console)
    title = f"{config.name}: {config.task.steps} steps, {config.seeds} seeds, ± standard error"
    console.print(job.sensitivity_table(table, title))
    figures = [job.draw_sensitivity(config.folder, table, name) for name in config.outcomes]
    for path in [config.folder / "results.csv", *figures]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _parse(arguments: list[str], default: Config, command: str, about: str) -> Config:
    """A configuration from `--config FILE`, if given, and the flags beside it."""
    kind, flags = type(default), []
    rest = iter(arguments)
    for word in rest:
        if word == "--config" or word.startswith("--config="):
            default = load_config(word[9:] if "=" in word else next(rest, ""), kind)
        else:
            flags.append(word)
    return tyro.cli(
        kind, args=flags, default=default, prog=f"jaxqring {command}", description=about
    )


def _offer_host_devices(nodes: int) -> None:
    """Makes `nodes` devices of the host, for machines with fewer accelerators."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", nodes)


def _offer_cores(devices: int | None) -> None:
    """As many devices of the host as it has cores: each carries a training of its own."""
    cores = os.cpu_count() or 1
    _offer_host_devices(min(cores, devices or cores))


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


if __name__ == "__main__":
    sys.exit(main())
