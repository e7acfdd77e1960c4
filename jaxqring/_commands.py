"""The commands of the command line: their configurations, what they run, and what they show."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxqring.claims import ReproduceConfig, reproduce
from jaxqring.jobs import (
    _budget_job,
    _compression_job,
    _inversion_job,
    _outer_job,
    _robust_job,
    _sensitivity_job,
    _sweep_job,
    _training_job,
)
from jaxqring.jobs._on_step import OnStep
from jaxqring.jobs._security_curves import security_curves
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_folder import finished_summary
from jaxqring.jobs._training_losses import sizes_ahead
from jaxqring.launch._processes import initialize, is_first, world
from jaxqring.launch._supervisor import is_child
from jaxqring.train._placement import check_processes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    #: The tables of a command and the files that it names.
    Output = tuple[list[Table], list[Path]]


def say(console: "Console", line: str) -> None:
    """Prints a line as it is, whatever the width of the terminal."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


# The modules of `show` are imported late, as they need packages of the extra.


def _train(config: TrainConfig, console: "Console", on_step: OnStep | None = None) -> "Output":
    from jaxqring.show import _compression_figures, _security_figure, _tables, _training_figures

    processes = world(os.environ).count
    ahead = sizes_ahead(config)
    for nodes in ahead:
        check_processes(config.mapping, nodes, processes)
    if config.mapping != "vmap":
        _offer_host_devices(max(ahead, default=processes) // processes)
    logging.getLogger("absl").addFilter(_is_not_raised)
    initialize(preemption=True)
    console.quiet = not is_first()
    folder, finished = config.folder, finished_summary(config)
    if finished:
        say(console, f"{folder} holds this job, finished: --restart starts over")
    summary = finished or _training_job.train(config, console, on_step=on_step)
    if not is_first():
        return [], []
    compressed = any("compress" in run for run in summary["config"]["runs"])
    paths = []
    if compressed and not (finished and (folder / "compression.png").exists()):
        paths.append(_compression_figures.draw_compression(folder, summary))
    if not compressed or len(summary["runs"]) <= _training_figures.MOST_RUNS:
        only_missing = bool(finished)
        paths += _training_figures.draw_training(folder, summary, only_missing=only_missing)
    if not (finished and (folder / "security.png").exists()):
        curves = security_curves(summary)
        if curves is not None:
            paths.append(_security_figure.draw_security(folder, summary, curves))
    if finished:
        return [], paths
    tables = [(_tables.compression_table if compressed else _tables.summary_table)(summary)]
    if any("security" in run for run in summary["runs"]):
        tables.append(_tables.security_table(summary))
    return tables, [folder / "summary.json", *paths]


def _is_not_raised(record: logging.LogRecord) -> bool:
    """False for the tracebacks that Orbax logs, of errors that it raises later."""
    return not record.exc_info


def _unfinished(folder: Path, table: dict[str, Any], console: "Console") -> bool:
    """True where points are missing, or the parent of this process is to show them."""
    whole = len(next(iter(table.values()))) > 0
    if not (whole or is_child()):
        say(console, f"this shard is done; {folder} waits for points of others")
    return is_child() or not whole


def _budget(config: _budget_job.BudgetConfig, console: "Console") -> "Output":
    from jaxqring.show import _budget_figure, _tables

    results = _budget_job.run_budget(config, console)
    figure = _budget_figure.draw_budget(config.folder, results)
    return _tables.budget_tables(results), [config.folder / "budget.json", figure]


def _sweep(config: _sweep_job.SweepConfig, console: "Console", **share: Any) -> "Output":
    from jaxqring.show import _sweep_figures, _tables

    _offer_cores(config.devices)
    table = _sweep_job.run_sweep(config, console, **share)
    if _unfinished(config.folder, table, console):
        return [], []
    figures = _sweep_figures.draw_sweep(config.folder, table)
    title = f"{config.name}: {config.task.steps} steps"
    return [_tables.sweep_table(table, title)], [config.folder / "results.csv", *figures]


def _sensitivity(
    config: _sensitivity_job.SensitivityConfig, console: "Console", **share: Any
) -> "Output":
    from jaxqring.show import _sensitivity_figure, _tables

    _offer_cores(config.devices)
    table = _sensitivity_job.run_sensitivity(config, console, **share)
    if _unfinished(config.folder, table, console):
        return [], []
    draw = _sensitivity_figure.draw_sensitivity
    figures = [draw(config.folder, table, name) for name in config.outcomes]
    title = f"{config.name}: {config.task.steps} steps, {config.seeds} seeds, ± standard error"
    return [_tables.sensitivity_table(table, title)], [config.folder / "results.csv", *figures]


def _compression(config: _compression_job.CompressionConfig, console: "Console") -> "Output":
    from jaxqring.show import _compression_figures, _tables

    _offer_cores(config.devices)
    curves = _compression_job.run_compression(config, console)
    figure = _compression_figures.draw_curves(config.folder, config.varied, curves)
    table = _tables.curves_table(config.varied, curves)
    return [table], [config.folder / "summary.json", figure]


def _inversion(config: _inversion_job.InversionConfig, console: "Console") -> "Output":
    from jaxqring.show import _inversion_figures, _tables

    summary = _inversion_job.run_inversion(config, console)
    figures = _inversion_figures.draw_inversion(config, summary)
    return _tables.inversion_tables(summary), [config.folder / "summary.json", *figures]


def _outer(config: _outer_job.OuterConfig, console: "Console") -> "Output":
    from jaxqring.show import _outer_figure, _tables

    _offer_cores(config.devices)
    summary = _outer_job.run_outer(config, console)
    figures = _outer_figure.draw_outer(config.folder, summary)
    return _tables.outer_tables(summary), [config.folder / "summary.json", *figures]


def _robust(config: _robust_job.RobustConfig, console: "Console") -> "Output":
    from jaxqring.show import _robust_figure, _tables

    _offer_cores(config.devices)
    summary = _robust_job.run_robust(config, console)
    figure = _robust_figure.draw_robust(config.folder, summary)
    return _tables.robust_tables(summary), [config.folder / "summary.json", figure]


def _reproduce(config: ReproduceConfig, console: "Console") -> "Output":
    from jaxqring.claims._pages import row
    from jaxqring.show import _tables

    number = len(config.chosen)
    say(console, f"{number} claim{'s' if number > 1 else ''}, on {jax.default_backend()}")
    tested = reproduce(config, console)
    reports = [config.folder / name for name in ("report.md", "report.html", "times.json")]
    rows = [[*row(each, digits=4), f"{each.seconds:.0f}"] for each in tested]
    return [_tables.claims_table(rows)], reports


class Command(NamedTuple):
    """A command: the class of its configuration, its description, and the function that runs it."""

    config: type
    about: str
    run: "Callable[..., Output]"


COMMANDS = {
    "train": Command(TrainConfig, "Train with a classical or a quantum all-reduce.", _train),
    "budget": Command(
        _budget_job.BudgetConfig, "Compute the net rates of codes on hardware.", _budget
    ),
    "sweep": Command(
        _sweep_job.SweepConfig, "Train again and again, on rings whose links differ.", _sweep
    ),
    "sensitivity": Command(
        _sensitivity_job.SensitivityConfig,
        "Differentiate a training by the physics of each link.",
        _sensitivity,
    ),
    "compression": Command(
        _compression_job.CompressionConfig,
        "Train with compressed gradients, over one parameter.",
        _compression,
    ),
    "inversion": Command(
        _inversion_job.InversionConfig,
        "Reconstruct images from gradients that compressors and masks are to hide.",
        _inversion,
    ),
    "outer": Command(
        _outer_job.OuterConfig,
        "Train with outer loops, which average every H steps, and time their rounds.",
        _outer,
    ),
    "robust": Command(
        _robust_job.RobustConfig,
        "Train among nodes that lie, by attack and rule of aggregation.",
        _robust,
    ),
    "reproduce": Command(
        ReproduceConfig, "Put the claims of the papers to the test, one by one.", _reproduce
    ),
}


def _offer_host_devices(num_nodes: int) -> None:
    """Makes a device of the host for each node, for machines with fewer accelerators."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", num_nodes)


def _offer_cores(devices: int | None) -> None:
    """Makes a device for each core of this process: each carries a training of its own."""
    allowed = getattr(os, "sched_getaffinity", None)  # fewer than there are, as a scheduler says
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    if is_child():  # all are on one host
        cores = max(1, cores // world(os.environ).count)
    _offer_host_devices(min(cores, devices or cores))
